//! The first contract: a lock service.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::{
    AgentName, Blocked, Claim, ContextName, Deadline, Deadlock, EngineError, Finding, Holder, InvalidName, Lease,
    LeaseId, LockCapabilities, LockTable, Mode, NameRule, Resource, TroubleKind, Ttl,
};

/// One request: all of its claims are granted together, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockRequest {
    /// The context that the resources lie in.
    pub context: ContextName,
    /// What is asked for: at least one claim, sorted, each resource once.
    claims: Arc<[Claim]>,
    /// Who asks.
    pub holder: Holder,
    /// Names this attempt and, once granted, the lease.
    pub lease: LeaseId,
    /// How long the lease is to last without renewal.
    pub ttl: Ttl,
    /// What for: shown to those who wait.
    pub reason: Option<String>,
    /// Leases that whoever asks keeps until this request is settled. One that waits for it, directly or through
    /// others, waits in a circle: that is how a deadlock is found.
    pub keeps: Vec<LeaseId>,
    /// A lease of the asker's own that ends in the moment in which this request is granted, and not before: so a
    /// shared lease becomes an exclusive one, or the other way round, with nobody in between. Such a request stands
    /// before all that replace nothing, as those wait for the very lease that it keeps.
    pub replaces: Option<LeaseId>,
    /// How many more tokens the asker would like for the lease: it then needs not give it back between one piece of
    /// work and the next, and has a token of its own for each. [`Grant::spare`] says how many it was given.
    pub spare: u32,
}

impl LockRequest {
    /// The most claims in one request.
    pub const CLAIMS_MAX: usize = 64;
    /// The most leases that a request keeps.
    pub const KEEPS_MAX: usize = 64;

    /// A request for all of `claims`, with a fresh [`LeaseId`]. A resource named twice counts once, in its stronger mode.
    pub fn new(
        context: ContextName,
        holder: Holder,
        ttl: Ttl,
        claims: impl IntoIterator<Item = Claim>,
    ) -> Result<Self, InvalidName> {
        let mut claims: Vec<Claim> = claims.into_iter().collect();
        // Of two claims on one resource the stronger sorts first, and is kept.
        claims.sort_by(|a, b| (&a.resource, b.mode).cmp(&(&b.resource, a.mode)));
        claims.dedup_by(|later, first| later.resource == first.resource);
        let rule = match claims.len() {
            0 => Some(NameRule::Empty),
            n if n > Self::CLAIMS_MAX => Some(NameRule::TooMany { count: n, limit: Self::CLAIMS_MAX }),
            _ => None,
        };
        match rule {
            Some(rule) => Err(InvalidName { kind: "lock request", value: format!("{} resources", claims.len()), rule }),
            None => Ok(Self::of(context, claims.into(), holder, ttl)),
        }
    }

    /// A request for one resource alone.
    pub fn exclusive(context: ContextName, holder: Holder, ttl: Ttl, resource: Resource) -> Self {
        Self::of(context, Arc::new([Claim { resource, mode: Mode::Exclusive }]), holder, ttl)
    }

    /// A request that takes the place of `lease`, for the same resources in `mode`.
    pub fn converting(lease: &Lease, mode: Mode) -> Self {
        let claims = lease.claims.iter().map(|claim| Claim { resource: claim.resource.clone(), mode }).collect();
        let request = Self::of(lease.context.clone(), claims, lease.holder.clone(), lease.ttl);
        Self { replaces: Some(lease.id()), ..request }
    }

    fn of(context: ContextName, claims: Arc<[Claim]>, holder: Holder, ttl: Ttl) -> Self {
        let lease = LeaseId::random();
        Self { context, claims, holder, lease, ttl, reason: None, keeps: Vec::new(), replaces: None, spare: 0 }
    }

    /// What is asked for.
    pub const fn claims(&self) -> &Arc<[Claim]> {
        &self.claims
    }
}

/// A grant, and whether it took queueing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The lease.
    pub lease: Lease,
    /// Whether the request had to queue: what was read before a queued grant may be stale.
    pub queued: bool,
    /// How long ago somebody else, by releasing what was in the way, had made it ours when we learned of it: both
    /// moments read from one clock. `None` where it was granted at once, where we found it free ourselves, or where
    /// the engine has no such clock: nobody is to guess.
    pub handed_over_after: Option<Duration>,
    /// So many tokens after the lease's own are the lease's, too: same epoch, same owner, the counters that follow. The
    /// context's next grant has a counter above them. None where nobody asked for any, where the request queued, and
    /// where the engine cannot tell a holder that its lease is wanted ([`LockService::wanted`]).
    pub spare: u32,
}

/// How an acquire ended. Contention is a value, not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acquisition {
    /// The lease is ours.
    Granted(Grant),
    /// The deadline passed first; nothing is held and nothing queues.
    TimedOut(Blocked),
    /// Waiting would have closed a cycle; nothing queues, and what the asker keeps it still has.
    Deadlock(Deadlock),
    /// The lease that this request was to replace is no longer ours; nothing is held and nothing queues.
    Lost(Loss),
}

/// How a renewal ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// The lease lasts a full TTL again.
    Renewed {
        /// Until when it may be believed, counted from before the question.
        valid_until: Instant,
    },
    /// It is no longer ours.
    Lost(Loss),
}

/// Why a lease is no longer its holder's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Loss {
    /// Its time ran out, and the service no longer knows it or somebody else holds the resource.
    #[error("its time ran out and it is no longer ours")]
    Expired,
    /// An operator broke it.
    #[error("{by} revoked it: {reason}")]
    Revoked {
        /// Who.
        by: AgentName,
        /// Why.
        reason: String,
    },
    /// The store has seen a later holder's token.
    #[error("a later holder has taken over")]
    Superseded,
    /// The service cannot be reached, and the lease's time has run out meanwhile.
    #[error("it could not be renewed in time")]
    Unconfirmed,
}

/// How a release ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// It was held or queued, and is not any more.
    Released,
    /// There was nothing of that id.
    NotHeld,
    /// Others share the lease and keep it: clones of a guard. No engine answers so.
    Kept,
}

/// Leases with fencing tokens, first come first served.
///
/// Two parties meet here: an engine, which implements it, and the `mutext` library, which calls it. Users see
/// neither; they see `Context::lock` and its guard.
///
/// **Tokens** grow over the whole context. **Waiting** is the engine's business: it knows how to be told.
/// **Dropping** any of these futures leaks nothing past the TTL: after dropping `acquire`, the caller releases
/// `request.lease`, which is good in whatever state the attempt was.
#[async_trait]
pub trait LockService: fmt::Debug + Send + Sync + 'static {
    /// What this engine can do.
    fn capabilities(&self) -> LockCapabilities;

    /// Queues for all of `request`'s claims until granted or `deadline`. A passed deadline means one try.
    ///
    /// Where waiting would close a cycle of those who keep a lease while they wait for another's, the answer is
    /// [`Acquisition::Deadlock`] at once: the one who closes the cycle gives way.
    async fn acquire(&self, request: &LockRequest, deadline: Deadline) -> Result<Acquisition, EngineError>;

    /// Makes the lease last a full TTL again; `Lost` if it is no longer ours.
    async fn renew(&self, lease: &Lease, deadline: Deadline) -> Result<Renewal, EngineError>;

    /// Ends the lease, or the attempt, and hands over to the next waiter. Idempotent.
    async fn release(&self, context: &ContextName, lease: LeaseId, deadline: Deadline) -> Result<Release, EngineError>;

    /// Who holds what, and who waits.
    async fn inspect(&self, context: &ContextName, deadline: Deadline) -> Result<LockTable, EngineError>;

    /// Breaks a lease: the next waiter is served, and the holder is told.
    async fn revoke(
        &self,
        context: &ContextName,
        lease: LeaseId,
        by: &AgentName,
        reason: &str,
        deadline: Deadline,
    ) -> Result<Release, EngineError>;

    /// Sees to it that every later grant of the context has a token of an epoch above `above`: where the epoch under way
    /// is not, another one begins. Leases stand, and their holders keep their old tokens; a table may show them under the
    /// new epoch. Idempotent.
    ///
    /// For whoever finds that the engine's memory has gone back without its noticing, as after a backup was put back: a
    /// store has refused the token of a lease that stands. An engine that one server answers for begins none where the
    /// refusing token cannot be its own ([`may_be_behind`]): that server may be the one that was replaced.
    async fn begin_epoch(&self, context: &ContextName, above: u64, deadline: Deadline) -> Result<(), EngineError>;

    /// News of leases that were taken from this process, where the engine can push it; renewal finds out the rest.
    fn losses(&self) -> Option<broadcast::Receiver<LeaseId>>;

    /// News of leases with spare tokens that somebody else asks for, where the engine can push it: whoever keeps one
    /// without using it gives it back then. A request that takes no waiting, and finds nothing but such leases in its
    /// way, is given a moment in which they may be given back. `None` where the engine cannot: it grants no spare tokens.
    ///
    /// After the callbacks of J. Howard et al., "Scale and Performance in a Distributed File System" (1988), and the
    /// cached locks of file systems for clusters.
    fn wanted(&self) -> Option<broadcast::Receiver<LeaseId>> {
        None
    }

    /// Looks at the engine's version, settings and reach, and says what would endanger its promises. Changes nothing.
    async fn examine(&self, deadline: Deadline) -> Result<Vec<Finding>, EngineError>;
}

/// For a lock engine that one server answers for, before it begins an epoch above `above`: whether that can be of its own
/// memory, whose last epoch is `last` (zero where it has none).
///
/// A memory that went back grants numbers of an epoch again that it has begun itself. A higher epoch proves no such thing:
/// a primary that was replaced, and that some still reach, would be given tokens above those of the rightful one, whose
/// holders would be refused then. Where a quorum answers, no server that was replaced does.
pub fn may_be_behind(last: u64, above: u64, context: &ContextName, subject: &str) -> Result<(), EngineError> {
    // One that remembers nothing begins an epoch with its next grant anyway.
    if last == 0 || last >= above {
        return Ok(());
    }
    let what = format!(
        "documents of the context {context} have seen a token of epoch {above}, and the last epoch here is {last}: as \
         far as can be told, another lock service gave it"
    );
    let remedy = "give all agents the same address of the locks, and stop a primary that was replaced; where this is the \
                  right one, restart it, or remove the context's locks from it while nobody uses them: a new epoch begins";
    Err(EngineError::new(subject, TroubleKind::Misconfigured(what), remedy))
}
