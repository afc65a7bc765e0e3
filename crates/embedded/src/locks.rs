//! Locks that several processes on one machine share, without a daemon.
//!
//! The lock table lies in a small database of its own, valid for one boot of the machine and never synced: what is
//! lost with the power was leased to processes that are gone too, and the next boot begins a new epoch, minted by
//! the document store. One transaction acquires or queues; one transaction releases, grants the next waiter and
//! wakes its process through its socket. The waiter then already holds the lock: no retry, no barging.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mutext_contract::queue::Entry;
use mutext_contract::{
    Acquisition, AgentName, Begun, Blocked, ContextName, DeadHolder, Deadline, Deadlock, EngineError, EpochSource,
    ExpiryClock, Fairness, Finding, Grant, Lease, LeaseId, LockCapabilities, LockRequest, LockService, LockTable, Loss,
    Patience, Release, Renewal, TroubleKind, Waiting, begin_above, may_be_behind,
};
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::clock;
use crate::lock_rows::{self, Desk};
use crate::sqlite::{self, PATIENCE, Sync};
use crate::wake::{News, Wake};
use crate::worker::Worker;

/// How often a waiter looks for itself, and whether those before it are alive: a push can be missed.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// A handed-over grant lasts so long until its new holder confirms it.
pub(crate) const CONFIRM_NS: i64 = 2_000_000_000;
/// A waiter removes itself at its deadline; others remove it so much later, in case it died.
pub(crate) const OVERDUE_NS: i64 = 100_000_000;

/// What to do about a damaged lock table: unlike documents, leases are not worth salvaging.
const REMOVE_THE_TABLE: &str =
    "nothing was changed; stop every process that uses this store and remove the file: leases end, documents stay";

/// The embedded lock engine.
pub struct EmbeddedLocks {
    desk: Worker<Desk>,
    wake: Arc<Wake>,
    epochs: Arc<dyn EpochSource>,
    look_again: Duration,
}

impl fmt::Debug for EmbeddedLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedLocks").field("wake", &self.wake).finish_non_exhaustive()
    }
}

/// How one look at the table went, for an attempt that wants to be granted.
pub(crate) enum Look {
    Granted {
        epoch: u64,
        counter: u64,
        until_ns: i64,
        queued: bool,
        /// When another made it ours; `None` where this look did.
        handed_over_ns: Option<i64>,
        /// How many numbers after its own it has, too.
        spare: u32,
    },
    /// Whose processes are in the way, by leases or by requests that came before, and when the first lease runs out.
    Waits {
        homes: Vec<String>,
        next_ns: Option<i64>,
    },
    Blocked {
        blocked: Blocked,
        /// Whether nothing is in the way but leases with tokens to spare, whose holders were told.
        may_be_kept: bool,
    },
    Deadlock(Deadlock),
    /// The lease that it was to take the place of is no more.
    Lost(Loss),
    NoEpoch,
}

impl EmbeddedLocks {
    /// Opens the locks in `dir`, which must exist. Epochs come from the document store that the locks guard.
    pub(crate) fn open(
        dir: &Path,
        epochs: Arc<dyn EpochSource>,
        look_again: Option<Duration>,
        deadline: Deadline,
    ) -> Result<Self, EngineError> {
        let boot = clock::boot_id();
        let file = dir.join(format!("locks-{boot}.db"));
        let opened = sqlite::open(&file, &lock_rows::SCHEMA, Sync::Off, deadline);
        let connection = opened.map_err(|mut error| {
            if error.kind == TroubleKind::Corrupt {
                error.remedy = REMOVE_THE_TABLE;
            }
            error
        })?;
        forget_earlier_boots(dir, &file);
        let wake = Arc::new(Wake::open(&dir.join("wake"))?);
        let desk = Worker::start("mutext-locks", Desk::new(connection, file, Arc::clone(&wake)))?;
        Ok(Self { desk, wake, epochs, look_again: look_again.unwrap_or(LOOK_AGAIN) })
    }

    /// One look at the table: the first queues the request, the last takes it out again.
    async fn look(&self, request: &LockRequest, first: bool, deadline: Deadline) -> Result<Look, EngineError> {
        let last = deadline.has_passed();
        let entry = self.entry(request, deadline);
        let context = request.context.clone();
        let busy = Deadline::after(deadline.remaining() + PATIENCE);
        self.desk.call(move |desk| desk.look(&context, &entry, first, last, busy)).await
    }

    fn entry(&self, request: &LockRequest, deadline: Deadline) -> Entry {
        let now_ns = clock::now_ns();
        Entry {
            place: 0,
            id: request.lease,
            holder: request.holder.clone(),
            claims: Arc::clone(request.claims()),
            ttl_ns: nanoseconds(request.ttl.get()),
            reason: request.reason.clone(),
            home: self.wake.home().to_owned(),
            since_ns: now_ns,
            until_ns: now_ns + nanoseconds(deadline.remaining()) + OVERDUE_NS,
            counter: None,
            keeps: request.keeps.clone(),
            replaces: request.replaces,
            spare: request.spare,
        }
    }

    /// The processes of the leases in the way: whoever is dead is buried, and its locks pass on.
    async fn bury_the_dead(&self, context: &ContextName, homes: Vec<String>) -> Result<bool, EngineError> {
        let dead: Vec<String> = homes.into_iter().filter(|home| !self.wake.is_alive(home)).collect();
        if dead.is_empty() {
            return Ok(false);
        }
        let context = context.clone();
        self.desk.call(move |desk| desk.bury(&context, &dead, Deadline::after(PATIENCE))).await?;
        Ok(true)
    }
}

#[async_trait]
impl LockService for EmbeddedLocks {
    fn capabilities(&self) -> LockCapabilities {
        LockCapabilities {
            engine: "embedded",
            waiting: Waiting::Pushed,
            fairness: Fairness::FirstComeFirstServed,
            shared_mode: true,
            subtrees: true,
            several_resources: true,
            deadlock_detection: true,
            revival: true,
            hands_over: true,
            dead_holder: DeadHolder::Presence,
            expiry_clock: ExpiryClock::Machine,
            token_source: "a counter for each context, under an epoch that the document store mints once a boot",
            survives: "the death of any process; a restart of the machine ends every lease and begins a new epoch",
        }
    }

    async fn acquire(&self, request: &LockRequest, deadline: Deadline) -> Result<Acquisition, EngineError> {
        let expected = self.wake.expect(request.lease);
        let mut first = true;
        let mut patience = Patience::until(deadline);
        let mut last_knock = None;
        loop {
            let deadline = patience.deadline();
            let asked = Instant::now();
            let (homes, next_ns) = match self.look(request, first, deadline).await? {
                Look::Granted { epoch, counter, until_ns, queued, handed_over_ns, spare } => {
                    let lease = granted(request, (epoch, counter), until_ns, asked);
                    let handed_over_after = handed_over_ns.map(clock::since);
                    return Ok(Acquisition::Granted(Grant { lease, queued, handed_over_after, spare }));
                }
                Look::Blocked { blocked, may_be_kept } => match patience.blocked(blocked, may_be_kept) {
                    Some(ended) => return Ok(ended),
                    None => continue,
                },
                Look::Deadlock(deadlock) => return Ok(patience.deadlock(deadlock)),
                Look::Lost(loss) => return Ok(Acquisition::Lost(loss)),
                Look::NoEpoch => {
                    self.begin_epoch(&request.context, 0, deadline).await?;
                    continue;
                }
                Look::Waits { homes, next_ns } => (homes, next_ns),
            };
            first = false;
            if last_knock.is_none_or(|at: Instant| at.elapsed() >= self.look_again) {
                last_knock = Some(Instant::now());
                if self.bury_the_dead(&request.context, homes).await? {
                    continue;
                }
            }
            let expiry = next_ns.map_or(deadline.instant(), clock::instant_at);
            let until = deadline.instant().min(expiry).min(Instant::now() + self.look_again);
            tokio::select! {
                () = expected.told() => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    async fn renew(&self, lease: &Lease, deadline: Deadline) -> Result<Renewal, EngineError> {
        let asked = Instant::now();
        let (context, id, ttl) = (lease.context.clone(), lease.id(), nanoseconds(lease.ttl.get()));
        let outcome = self.desk.call(move |desk| desk.renew(&context, id, ttl, deadline)).await?;
        Ok(match outcome {
            Ok(()) => Renewal::Renewed { valid_until: asked + lease.ttl.get() },
            Err(loss) => Renewal::Lost(loss),
        })
    }

    async fn release(&self, context: &ContextName, lease: LeaseId, deadline: Deadline) -> Result<Release, EngineError> {
        let context = context.clone();
        self.desk.call(move |desk| desk.release(&context, lease, None, deadline)).await
    }

    async fn inspect(&self, context: &ContextName, deadline: Deadline) -> Result<LockTable, EngineError> {
        let context = context.clone();
        self.desk.call(move |desk| desk.inspect(&context, deadline)).await
    }

    async fn revoke(
        &self,
        context: &ContextName,
        lease: LeaseId,
        by: &AgentName,
        reason: &str,
        deadline: Deadline,
    ) -> Result<Release, EngineError> {
        let (context, loss) = (context.clone(), Loss::Revoked { by: by.clone(), reason: reason.to_owned() });
        self.desk.call(move |desk| desk.release(&context, lease, Some(loss), deadline)).await
    }

    async fn begin_epoch(&self, context: &ContextName, above: u64, deadline: Deadline) -> Result<(), EngineError> {
        let (deadline, subject) = (Deadline::after(deadline.remaining() + PATIENCE), format!("the locks of {context}"));
        let begin = async |minted| {
            let (named, minted) = (context.clone(), (minted > 0).then_some(minted));
            let last = self.desk.call(move |desk| desk.begin_epoch(&named, above, minted, deadline)).await?;
            let Some(last) = last else { return Ok(Begun::Done) };
            may_be_behind(last, above, context, &subject)?;
            Ok(Begun::Behind(last))
        };
        begin_above(&*self.epochs, context, (above, 0), deadline, &subject, begin).await
    }

    fn losses(&self) -> Option<broadcast::Receiver<LeaseId>> {
        Some(self.wake.losses())
    }

    fn wanted(&self) -> Option<broadcast::Receiver<LeaseId>> {
        Some(self.wake.wanted())
    }

    async fn examine(&self, deadline: Deadline) -> Result<Vec<Finding>, EngineError> {
        let file = self.desk.call(move |desk| desk.check(deadline)).await?;
        Ok(vec![Finding::fine("lock table", format!("{} is sound", file.display()))])
    }
}

fn granted(request: &LockRequest, number: (u64, u64), until_ns: i64, asked: Instant) -> Lease {
    Lease {
        context: request.context.clone(),
        claims: Arc::clone(request.claims()),
        holder: request.holder.clone(),
        token: mutext_contract::FencingToken::new(number.0, number.1, request.lease),
        ttl: request.ttl,
        // The table's clock is the machine's own, so that its stamp is exact; and never later than the question.
        valid_until: clock::instant_at(until_ns).min(asked + request.ttl.get()),
    }
}

pub(crate) fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

/// Earlier boots' tables: their clock means nothing any more, and nobody who could use them is alive.
fn forget_earlier_boots(dir: &Path, current: &Path) {
    let is_table = |name: &str| name.starts_with("locks-") && name.contains(".db");
    let current = current.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
    for name in names.filter_map(|entry| entry.file_name().into_string().ok()) {
        if is_table(&name) && !name.starts_with(current) {
            let file: PathBuf = dir.join(&name);
            if let Err(error) = std::fs::remove_file(&file) {
                tracing::debug!(%error, file = %file.display(), "an earlier boot's lock table stays");
            }
        }
    }
}

/// A row that this build cannot read.
pub(crate) fn unreadable(file: &Path, what: &str) -> EngineError {
    EngineError::new(format!("{} ({what})", file.display()), TroubleKind::Corrupt, REMOVE_THE_TABLE)
}

/// Tells a process what became of a lease; used by the desk after its transaction.
pub(crate) type Letter = (String, News, LeaseId);
