//! A lease in a caller's hands: renewed while it lives, given back when it is dropped, and honest about its loss.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mutext_contract::{
    Claim, Commit, Committed, Content, Deadline, Document, DocumentPath, Effect, Fence, FencedRead, FencingToken,
    InvalidName, Lease, LockRequest, Loss, Mode, Outcome, Precondition, Refusal, Release, Resource, Revision, Ttl,
    Wait,
};
use tokio::time::Instant;

use crate::keeper::{Held, Keeper, Status};
use crate::metrics::Acquiring;
use crate::{Context, Error};

/// How long the keeper is given to revive a lease that has lapsed before its holder is told.
const REVIVAL: Duration = Duration::from_millis(250);

/// What a write through a guard does when the lease's time has run out unconfirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLapse {
    /// It is still good if nobody has taken the lock in between and the document is as it was read: for agents that
    /// think for minutes. An expired lease matters only when it is contended.
    #[default]
    Revalidate,
    /// It is refused.
    Reject,
}

/// A request for a lock, to be awaited or adjusted first.
///
/// Dropping it, or the future that it becomes, leaves nothing behind.
#[derive(Debug, Clone)]
#[must_use = "a lock is asked for only once this is awaited"]
pub struct Lock<'a> {
    context: &'a Context,
    resources: Vec<Result<Resource, InvalidName>>,
    mode: Mode,
    ttl: Ttl,
    wait: Option<Wait>,
    reason: Option<String>,
    on_lapse: OnLapse,
}

impl<'a> Lock<'a> {
    pub(crate) fn new(context: &'a Context, resource: Result<Resource, InvalidName>) -> Self {
        let settings = context.settings();
        Self {
            context,
            resources: vec![resource],
            mode: Mode::Exclusive,
            ttl: settings.ttl,
            wait: Some(settings.wait),
            reason: None,
            on_lapse: settings.on_lapse,
        }
    }

    /// Also this resource: all are granted together, or none.
    pub fn and<R: TryInto<Resource, Error = InvalidName>>(mut self, resource: R) -> Self {
        self.resources.push(resource.try_into());
        self
    }

    /// For reading: others may read too.
    pub const fn shared(mut self) -> Self {
        self.mode = Mode::Shared;
        self
    }

    /// How long the lease lasts without renewal.
    pub const fn ttl(mut self, ttl: Ttl) -> Self {
        self.ttl = ttl;
        self
    }

    /// How long to queue at most.
    pub const fn wait(mut self, wait: Wait) -> Self {
        self.wait = Some(wait);
        self
    }

    /// One try, without queueing.
    pub const fn without_waiting(mut self) -> Self {
        self.wait = None;
        self
    }

    /// What for: shown to those who wait.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// What a write does when the lease has lapsed.
    pub const fn on_lapse(mut self, on_lapse: OnLapse) -> Self {
        self.on_lapse = on_lapse;
        self
    }

    /// Queues until granted, at most as long as the wait.
    ///
    /// Errors with [`Error::Timeout`], which names who is in the way. Dropping the future gives back whatever it had
    /// got by then; should even that be lost, the lease ends with its TTL.
    pub async fn acquire(self) -> Result<LockGuard, Error> {
        let deadline = self.wait.map_or_else(Deadline::now, |wait| Deadline::after(wait.get()));
        Ok(self.acquire_by(deadline).await?.0)
    }

    /// The guard, and whether it took queueing.
    pub(crate) async fn acquire_by(self, deadline: Deadline) -> Result<(LockGuard, bool), Error> {
        let asked = Instant::now();
        let context = self.context;
        let resources = self.resources.into_iter().collect::<Result<Vec<_>, _>>()?;
        let claims = resources.iter().map(|resource| Claim { resource: resource.clone(), mode: self.mode });
        let mut request = LockRequest::new(context.name().clone(), context.holder().clone(), self.ttl, claims)?;
        request.reason = self.reason;
        let attempt = Attempt { keeper: context.keeper(), request: &request, settled: false };
        let measured = Acquiring::start(context.keeper().meter(), self.wait, asked);
        let answer = context.lock_service().acquire(&request, deadline).await;
        measured.answered(&answer);
        // What may have been granted without our knowing is given back: for the caller, nothing has happened.
        let acquisition = answer.map_err(|trouble| trouble.with_effect(Effect::None))?;
        attempt.settle();
        match acquisition {
            mutext_contract::Acquisition::Granted(grant) => {
                let held = context.keeper().hold(grant.lease, self.on_lapse);
                let (context, waited) = (context.clone(), asked.elapsed());
                Ok((LockGuard { context, held, seen: Mutex::default(), waited, released: false }, grant.queued))
            }
            mutext_contract::Acquisition::TimedOut(blocked) => {
                Err(Error::Timeout { resources, waited: asked.elapsed(), blocked: Box::new(blocked) })
            }
            mutext_contract::Acquisition::Deadlock(holders) => Err(Error::Deadlock { resources, holders }),
        }
    }
}

impl<'a> IntoFuture for Lock<'a> {
    type Output = Result<LockGuard, Error>;
    type IntoFuture = std::pin::Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.acquire())
    }
}

/// An attempt under way. Dropped before its answer came, it is given back in whatever state it is.
struct Attempt<'a> {
    keeper: &'a Keeper,
    request: &'a LockRequest,
    settled: bool,
}

impl Attempt<'_> {
    fn settle(mut self) {
        self.settled = true;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.keeper.release(self.request.context.clone(), self.request.lease);
        }
    }
}

/// A lease in hand. Renewed in the background; released when dropped, without waiting; told when it is lost.
///
/// Reads through it keep older holders out from then on; writes through it carry its fence and the revision read.
#[must_use = "the lock is released when the guard is dropped"]
pub struct LockGuard {
    context: Context,
    held: Arc<Held>,
    /// The revision at which each document was read or written through this guard; `None` where it was absent.
    seen: Mutex<HashMap<DocumentPath, Option<Revision>>>,
    waited: Duration,
    released: bool,
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("lease", self.held.lease())
            .field("status", &self.held.status())
            .finish_non_exhaustive()
    }
}

impl LockGuard {
    /// The lease: what it covers, who holds it, its token.
    pub fn lease(&self) -> &Lease {
        self.held.lease()
    }

    /// The fencing token.
    pub fn token(&self) -> FencingToken {
        self.lease().token
    }

    /// What writes under this lease present to the store.
    pub fn fence(&self) -> Fence {
        self.lease().fence()
    }

    /// How long it took from asking to holding.
    pub const fn waited(&self) -> Duration {
        self.waited
    }

    /// Until when the lease may be believed without another renewal.
    pub fn valid_until(&self) -> Instant {
        self.held.valid_until()
    }

    /// Whether it is held, as far as is known here and now.
    pub fn is_held(&self) -> bool {
        self.held.status() == Status::Held
    }

    /// Ready when the lease is lost, or has lapsed and could not be revived at once, with the reason; never after an
    /// ordinary release. For `select!` beside the work. Dropping it changes nothing.
    pub async fn lost(&self) -> Loss {
        let mut status = self.held.watch();
        loop {
            match &*status.borrow_and_update() {
                Status::Held | Status::Lapsed => {}
                Status::Lost(loss) => return loss.clone(),
            }
            let lapsed = *status.borrow() == Status::Lapsed;
            let change = status.changed();
            // A process that was stopped wakes up to a lease that has lapsed and that its keeper is about to renew.
            let told =
                if lapsed { tokio::time::timeout(REVIVAL, change).await.unwrap_or(Ok(())) } else { change.await };
            if told.is_err() || (lapsed && self.held.status() == Status::Lapsed) {
                return Loss::Unconfirmed;
            }
        }
    }

    /// The document at `path`, read under the lease. Under an exclusive one the store refuses older tokens for it
    /// from then on; shared ones stand beside each other, so that none of them keeps another out.
    pub async fn get<P>(&self, path: P) -> Result<Option<Document>, Error>
    where
        P: TryInto<DocumentPath>,
        Error: From<P::Error>,
    {
        let path = path.try_into()?;
        let is_shared = |claim: &&Claim| claim.mode == Mode::Shared && claim.resource.covers(&path);
        if !self.fence().covers(&path) && self.lease().claims.iter().any(|claim| is_shared(&claim)) {
            self.check_held(false).await?;
            let document = self.context.get_by(&path, self.context.deadline()).await?;
            self.remember(path, document.as_ref().map(|document| document.revision));
            return Ok(document);
        }
        self.check_covers(&path)?;
        self.check_held(false).await?;
        match self.context.read_fenced(&path, &self.fence()).await? {
            FencedRead::Read(document) => {
                self.remember(path, document.as_ref().map(|document| document.revision));
                Ok(document)
            }
            FencedRead::Fenced(fenced) => Err(self.superseded(fenced.current)),
        }
    }

    /// Writes `content`, under the lease and for the revision that was last read or written through this guard.
    ///
    /// A document that was not read through it is written whatever its revision: the lease alone protects it.
    /// Errors with [`Error::LeaseLost`] where the lease has passed on, [`Error::NotCovered`] outside its resources,
    /// [`Error::Conflict`] where somebody wrote past the lock. Dropping the future does not stop the write.
    pub async fn put<P>(&self, path: P, content: impl Into<Content>) -> Result<Revision, Error>
    where
        P: TryInto<DocumentPath>,
        Error: From<P::Error>,
    {
        let path = path.try_into()?;
        let precondition = self.precondition(&path);
        let commit = Commit::new(self.context.agent().clone()).put(path.clone(), content.into(), precondition);
        self.commit(commit).await.map(|committed| crate::context::only(&committed))
    }

    /// Deletes the document at `path`, under the same rules as [`LockGuard::put`].
    pub async fn delete<P>(&self, path: P) -> Result<Revision, Error>
    where
        P: TryInto<DocumentPath>,
        Error: From<P::Error>,
    {
        let path = path.try_into()?;
        let precondition = self.precondition(&path);
        let commit = Commit::new(self.context.agent().clone()).delete(path.clone(), precondition);
        self.commit(commit).await.map(|committed| crate::context::only(&committed))
    }

    /// Makes `commit` under the lease, with the preconditions that it names itself.
    pub async fn commit(&self, commit: Commit) -> Result<Committed, Error> {
        for change in &commit.changes {
            self.check_covers(&change.path)?;
        }
        let seen_all = commit.changes.iter().all(|change| change.precondition != Precondition::Any);
        self.check_held(seen_all).await?;
        let paths: Vec<(DocumentPath, bool)> = commit
            .changes
            .iter()
            .map(|change| (change.path.clone(), matches!(change.action, mutext_contract::Action::Put(_))))
            .collect();
        match self.context.try_commit(commit.fenced_by(self.fence())).await? {
            Outcome::Committed(committed) => {
                for ((path, lives), (_, revision)) in paths.into_iter().zip(&committed.revisions) {
                    self.remember(path, lives.then_some(*revision));
                }
                Ok(committed)
            }
            Outcome::Refused(Refusal::Fenced(fenced)) => Err(self.superseded(fenced.current)),
            Outcome::Refused(Refusal::Conflict(conflict)) if !self.is_held() => Err(self.superseded(conflict.current)),
            Outcome::Refused(refusal) => Err(crate::context::refused(refusal)),
        }
    }

    /// Gives the lease back and waits for the answer. Dropping the future gives it back in the background.
    pub async fn release(mut self) -> Result<Release, Error> {
        let lease = self.held.lease();
        let deadline = self.context.deadline();
        let held_until_now = self.held.measured().given_back();
        // The guard lives until the answer: a dropped future drops it, and it is released all the same.
        let release = self.context.lock_service().release(&lease.context, lease.id(), deadline).await?;
        self.context.keeper().forget(lease.id());
        self.released = true;
        if held_until_now && release == Release::NotHeld {
            self.held.measured().gone();
        }
        Ok(release)
    }

    fn precondition(&self, path: &DocumentPath) -> Precondition {
        match self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(path) {
            Some(Some(revision)) => Precondition::Exact(*revision),
            Some(None) => Precondition::Absent,
            None => Precondition::Any,
        }
    }

    fn remember(&self, path: DocumentPath, revision: Option<Revision>) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(path, revision);
    }

    fn check_covers(&self, path: &DocumentPath) -> Result<(), Error> {
        let fence = self.fence();
        if fence.covers(path) {
            return Ok(());
        }
        Err(Error::NotCovered { path: path.clone(), resources: fence.resources })
    }

    /// Whether a write may go out. A lapsed lease asks the service first: where nobody has taken the lock, it goes
    /// on. Where the service cannot be asked, the store's check of the revision decides alone.
    async fn check_held(&self, revision_decides: bool) -> Result<(), Error> {
        if self.held.status() == Status::Lapsed {
            let renewed = self.held.renew(&**self.context.lock_service(), self.context.deadline()).await;
            if let Err(error) = renewed
                && !revision_decides
            {
                return Err(error.into());
            }
        }
        match self.held.status() {
            Status::Held | Status::Lapsed => Ok(()),
            Status::Lost(loss) => Err(self.lost_error(loss, None)),
        }
    }

    fn superseded(&self, current: Option<Document>) -> Error {
        self.held.lose(Loss::Superseded);
        self.lost_error(Loss::Superseded, current)
    }

    fn lost_error(&self, loss: Loss, current: Option<Document>) -> Error {
        let resources = self.lease().claims.iter().map(|claim| claim.resource.clone()).collect();
        Error::LeaseLost { resources, loss, current: current.map(Box::new) }
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if !self.released {
            self.held.measured().given_back();
            let lease = self.held.lease();
            self.context.keeper().release(lease.context.clone(), lease.id());
        }
    }
}
