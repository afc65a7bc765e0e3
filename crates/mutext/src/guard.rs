//! A lease in a caller's hands: renewed while it lives, given back when it is dropped, and honest about its loss.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mutext_contract::{
    Claim, Commit, Committed, Content, Deadline, Document, DocumentPath, Fence, Fenced, FencedRead, FencingToken,
    InvalidName, Lease, LockRequest, Loss, Mode, Outcome, Precondition, Refusal, Release, Resource, Revision,
    Revocation,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::keeper::{Held, Left, Status};
use crate::kept::Kept;
use crate::lock::{self, Lock};
use crate::{Context, Error};

/// How long the keeper is given to revive a lease that has lapsed before its holder is told.
const REVIVAL: Duration = Duration::from_millis(250);

/// How many of the last revocations are looked through where the lock service cannot say what has become of a lease.
const REVOCATIONS_LOOKED_AT: usize = 1000;

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

/// A lease in hand. Renewed in the background; released when dropped, without waiting; told when it is lost.
///
/// Reads through it keep older holders out from then on; writes through it carry its fence and the revision read.
/// A clone shares the lease, which ends with the last of them.
#[derive(Clone)]
#[must_use = "the lock is released when the guard is dropped"]
pub struct LockGuard {
    grip: Arc<Grip>,
}

/// What the clones of a guard share.
struct Grip {
    context: Context,
    held: Arc<Held>,
    /// The revision at which each document was read or written through this guard; `None` where it was absent.
    seen: Mutex<HashMap<DocumentPath, Option<Revision>>>,
    waited: Duration,
    /// Where the lease may stay with its agent.
    kept: Option<Arc<Kept>>,
    /// It is given back already, or another has taken its place.
    over: bool,
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("lease", self.grip.held.lease())
            .field("status", &self.grip.held.status())
            .finish_non_exhaustive()
    }
}

/// Why a lease kept its mode, and the guard that still holds it.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct NotConverted {
    /// As it was before.
    pub guard: LockGuard,
    /// Why.
    #[source]
    pub error: Error,
}

impl From<NotConverted> for Error {
    /// Gives the lease back.
    fn from(refused: NotConverted) -> Self {
        refused.error
    }
}

impl LockGuard {
    pub(crate) fn new(
        context: Context,
        lease: Lease,
        kept: Option<Arc<Kept>>,
        on_lapse: OnLapse,
        waited: Duration,
    ) -> Self {
        context.line().takes(lease.id());
        let held = context.keeper().hold(lease, on_lapse);
        if kept.as_ref().is_some_and(|kept| kept.may_be_lost()) {
            // Word of that came before there was anybody to ask about.
            context.keeper().ask_about(held.lease().id());
        }
        Self { grip: Arc::new(Grip { context, held, seen: Mutex::default(), waited, kept, over: false }) }
    }

    /// A clone, where the lease covers all of `claims`.
    pub(crate) fn sharing(&self, claims: &[Claim]) -> Result<Option<Self>, Error> {
        let covered = |claim: &Claim| self.lease().claims.iter().any(|own| own.covers(claim));
        if !claims.iter().all(covered) {
            return Ok(None);
        }
        match self.grip.held.status() {
            Status::Lost(loss) => Err(self.lost_error(loss, None)),
            Status::Held | Status::Lapsed => Ok(Some(self.clone())),
        }
    }

    /// The lease: what it covers, who holds it, its token.
    pub fn lease(&self) -> &Lease {
        self.grip.held.lease()
    }

    /// What it was taken through.
    pub(crate) fn context(&self) -> &Context {
        &self.grip.context
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
    pub fn waited(&self) -> Duration {
        self.grip.waited
    }

    /// Whether the engine was asked for it: not where its agent still had it.
    pub(crate) fn was_asked_for(&self) -> bool {
        self.grip.kept.as_ref().is_none_or(|kept| kept.was_asked_for(self.token()))
    }

    /// Until when the lease may be believed without another renewal.
    pub fn valid_until(&self) -> Instant {
        self.grip.held.valid_until()
    }

    /// Whether it is held, as far as is known here and now.
    pub fn is_held(&self) -> bool {
        self.grip.held.status() == Status::Held
    }

    /// Ready when the lease is lost, or has lapsed and could not be revived at once, with the reason; never after an
    /// ordinary release. For `select!` beside the work. Dropping it changes nothing.
    pub async fn lost(&self) -> Loss {
        let mut status = self.grip.held.watch();
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
            if told.is_err() || (lapsed && self.grip.held.status() == Status::Lapsed) {
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
            self.check_held(false, self.grip.context.deadline()).await?;
            let document = self.grip.context.get_by(&path, self.grip.context.deadline()).await?;
            self.remember(path, document.as_ref().map(|document| document.revision));
            return Ok(document);
        }
        self.check_covers(&path)?;
        self.check_held(false, self.grip.context.deadline()).await?;
        match self.grip.context.read_fenced(&path, &self.fence()).await? {
            FencedRead::Read(document) => {
                self.remember(path, document.as_ref().map(|document| document.revision));
                Ok(document)
            }
            FencedRead::Fenced(fenced) => Err(self.outranked(&self.grip.context, fenced).await),
            FencedRead::Revoked { by, reason } => Err(self.lose(Loss::Revoked { by, reason }, None)),
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
        let commit = Commit::new(self.grip.context.agent().clone()).put(path.clone(), content.into(), precondition);
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
        let commit = Commit::new(self.grip.context.agent().clone()).delete(path.clone(), precondition);
        self.commit(commit).await.map(|committed| crate::context::only(&committed))
    }

    /// Makes `commit` under the lease, with the preconditions that it names itself.
    pub async fn commit(&self, commit: Commit) -> Result<Committed, Error> {
        self.commit_through(&self.grip.context, commit).await
    }

    /// The same, for a work of `context`, which need not be the one that the lease was taken through: it has until that
    /// one's deadline.
    pub(crate) async fn commit_through(&self, context: &Context, commit: Commit) -> Result<Committed, Error> {
        for change in &commit.changes {
            self.check_covers(&change.path)?;
        }
        let seen_all = commit.changes.iter().all(|change| change.precondition != Precondition::Any);
        self.check_held(seen_all, context.deadline()).await?;
        let paths: Vec<(DocumentPath, bool)> = commit
            .changes
            .iter()
            .map(|change| (change.path.clone(), matches!(change.action, mutext_contract::Action::Put(_))))
            .collect();
        match context.try_commit(commit.fenced_by(self.fence())).await? {
            Outcome::Committed(committed) => {
                for ((path, lives), (_, revision)) in paths.into_iter().zip(&committed.revisions) {
                    self.remember(path, lives.then_some(*revision));
                }
                Ok(committed)
            }
            Outcome::Refused(Refusal::Fenced(fenced)) => Err(self.outranked(context, fenced).await),
            Outcome::Refused(Refusal::Revoked { by, reason }) => Err(self.lose(Loss::Revoked { by, reason }, None)),
            Outcome::Refused(Refusal::Conflict(conflict)) if !self.is_held() => Err(self.superseded(conflict.current)),
            Outcome::Refused(refusal) => Err(crate::context::refused(refusal)),
        }
    }

    /// Asks for another lock while this one is held: await it, or adjust it first.
    ///
    /// Where this lease covers what is asked for, in a mode as strong, the answer is a clone of this guard, at once.
    /// Anything else is a lock of its own; whoever waits for this lease meanwhile waits for that, too, so that a
    /// circle is found.
    pub fn lock<R>(&self, resource: R) -> Lock<'_>
    where
        R: TryInto<Resource>,
        InvalidName: From<R::Error>,
    {
        self.grip.context.lock(resource).within(self)
    }

    /// Makes a shared lease exclusive, without giving it up in between: whatever was read through it is as it was.
    ///
    /// It waits for the other readers, at most as long as the context's wait; writers that queue wait for it. Two
    /// readers who both want to write wait for each other: the second gets [`Error::Deadlock`], and lets the first go
    /// on by dropping its guard. On an error the guard comes back in it, with its shared lease; `?` gives that back.
    /// Dropping the future gives back everything. Clones of the guard must be gone ([`Error::GuardShared`]).
    pub async fn upgrade(self) -> Result<Self, NotConverted> {
        self.convert(Mode::Exclusive).await
    }

    /// Makes an exclusive lease shared, in one step: readers that wait come in, writers do not. Errors as
    /// [`LockGuard::upgrade`] does, but waits for nobody.
    pub async fn downgrade(self) -> Result<Self, NotConverted> {
        self.convert(Mode::Shared).await
    }

    async fn convert(self, mode: Mode) -> Result<Self, NotConverted> {
        if self.lease().claims.iter().all(|claim| claim.mode == mode) {
            return Ok(self);
        }
        let mut grip = match Arc::try_unwrap(self.grip) {
            Ok(grip) => grip,
            Err(grip) => {
                let resources = grip.held.lease().claims.iter().map(|claim| claim.resource.clone()).collect();
                return Err(NotConverted { guard: Self { grip }, error: Error::GuardShared { resources } });
            }
        };
        // What it becomes, or may have become when this is given up, does not stay with its agent.
        grip.stays_no_more();
        let wait = grip.context.settings().wait;
        let mut request = LockRequest::converting(grip.held.lease(), mode);
        request.keeps = grip.context.line().keeps();
        match lock::ask(&grip.context, &request, Some(wait), Instant::now(), Deadline::after(wait.get())).await {
            Ok((grant, waited)) => {
                grip.held.measured().given_back();
                grip.gone();
                let guard = Self::new(grip.context.same(), grant.lease, None, grip.held.on_lapse(), waited);
                *guard.seen() = std::mem::take(&mut *grip.seen.lock().unwrap_or_else(PoisonError::into_inner));
                Ok(guard)
            }
            Err(error) => {
                if let Error::LeaseLost { loss, .. } = &error {
                    grip.held.lose(loss.clone());
                }
                Err(NotConverted { guard: Self { grip: Arc::new(grip) }, error })
            }
        }
    }

    /// Gives the lease back and waits for the answer: whoever asks after that finds it free. A guard that is dropped gives
    /// it back, too, at its leisure: an agent that has taken the same lock again and again, at once each time, may then
    /// keep it for a moment, as long as nobody else asks. Dropping the future gives it back in the background. Where clones
    /// of this guard live, the lease stays theirs ([`Release::Kept`]).
    pub async fn release(self) -> Result<Release, Error> {
        let Some(mut grip) = Arc::into_inner(self.grip) else { return Ok(Release::Kept) };
        grip.stays_no_more();
        let lease = grip.held.lease();
        let deadline = grip.context.deadline();
        let held_until_now = grip.held.measured().given_back();
        // The grip lives until the answer: a dropped future drops it, and it is released all the same.
        let release = grip.context.lock_service().release(&lease.context, lease.id(), deadline).await?;
        grip.gone();
        if held_until_now && release == Release::NotHeld {
            grip.held.measured().gone();
        }
        Ok(release)
    }

    /// Gives the lease back in the background; the receiver ends when that is done. `None` where clones keep it.
    pub(crate) fn give_back(self) -> Option<oneshot::Receiver<()>> {
        let mut grip = Arc::into_inner(self.grip)?;
        if grip.stays() {
            return None;
        }
        grip.held.measured().given_back();
        let lease = grip.held.lease();
        let given_back = grip.context.keeper().release(lease.context.clone(), lease.id(), Left::Perhaps);
        grip.gone();
        Some(given_back)
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<DocumentPath, Option<Revision>>> {
        self.grip.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn precondition(&self, path: &DocumentPath) -> Precondition {
        match self.seen().get(path) {
            Some(Some(revision)) => Precondition::Exact(*revision),
            Some(None) => Precondition::Absent,
            None => Precondition::Any,
        }
    }

    fn remember(&self, path: DocumentPath, revision: Option<Revision>) {
        self.seen().insert(path, revision);
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
    async fn check_held(&self, revision_decides: bool, deadline: Deadline) -> Result<(), Error> {
        if self.grip.held.status() == Status::Lapsed {
            let renewed = self.grip.held.renew(&**self.grip.context.lock_service(), deadline).await;
            if let Err(error) = renewed
                && !revision_decides
            {
                return Err(error.into());
            }
        }
        match self.grip.held.status() {
            Status::Held | Status::Lapsed => Ok(()),
            Status::Lost(loss) => Err(self.lost_error(loss, None)),
        }
    }

    /// Asks the lock service now whether the lease is still ours, and makes it last a full TTL again. Where the service
    /// cannot be asked in half the time there is, it is believed in unless the store knows that it was revoked.
    pub(crate) async fn confirm(&self, deadline: Deadline) -> Result<(), Error> {
        let context = &self.grip.context;
        let half = Deadline::after(deadline.remaining() / 2);
        let renewed = self.grip.held.renew(&**context.lock_service(), half).await;
        if let (Err(error), Status::Held | Status::Lapsed) = (renewed, self.grip.held.status()) {
            if self.grip.held.on_lapse() == OnLapse::Reject {
                return Err(error.into());
            }
            let revocations = context.revocations(REVOCATIONS_LOOKED_AT).await?;
            let ours = revocations.into_iter().find(|record| record.revocation.lease == self.lease().id());
            if let Some(Revocation { by, reason, .. }) = ours.map(|record| record.revocation) {
                return Err(self.lose(Loss::Revoked { by, reason }, None));
            }
        }
        match self.grip.held.status() {
            Status::Held | Status::Lapsed => Ok(()),
            Status::Lost(loss) => Err(self.lost_error(loss, None)),
        }
    }

    /// The store has refused the token. The lease is lost from then on, also where the caller does not wait until the
    /// lock service, which may hang, has been told.
    async fn outranked(&self, context: &Context, mut fenced: Box<Fenced>) -> Error {
        let lost = self.superseded(fenced.current.take());
        context.outranked(&fenced).await;
        lost
    }

    pub(crate) fn superseded(&self, current: Option<Document>) -> Error {
        self.lose(Loss::Superseded, current)
    }

    fn lose(&self, loss: Loss, current: Option<Document>) -> Error {
        self.grip.held.lose(loss.clone());
        self.lost_error(loss, current)
    }

    fn lost_error(&self, loss: Loss, current: Option<Document>) -> Error {
        let resources = self.lease().claims.iter().map(|claim| claim.resource.clone()).collect();
        Error::LeaseLost { resources, loss, current: current.map(Box::new) }
    }
}

impl Grip {
    /// Whether the lease stays with its agent, for the next time that it takes the same lock.
    fn stays(&mut self) -> bool {
        let (is_held, lease) = (self.held.status() == Status::Held, self.held.lease());
        let kept = self.kept.as_ref().filter(|_| is_held).map(|kept| (kept, self.held.valid_until()));
        if kept.is_some() {
            // Before it is laid down: the next may have it at once, and what is of the next must not be forgotten.
            self.held.measured().given_back();
            self.context.keeper().forget(lease.id());
            self.context.line().gives_back(lease.id());
        }
        let stays = self.context.line().habit().leaves(&lease.claims, kept);
        self.over = stays;
        stays
    }

    /// Whatever comes, the lease is given back for good.
    fn stays_no_more(&mut self) {
        if let Some(kept) = self.kept.take() {
            kept.is_given_back();
        }
    }

    /// There is nothing to give back any more.
    fn gone(&mut self) {
        let lease = self.held.lease().id();
        self.context.keeper().forget(lease);
        self.context.line().gives_back(lease);
        self.over = true;
    }
}

impl Drop for Grip {
    fn drop(&mut self) {
        if !self.over && !self.stays() {
            self.held.measured().given_back();
            let lease = self.held.lease();
            let (line, keeper) = (self.context.line(), self.context.keeper());
            line.gives_back(lease.id());
            // One that is lost was told of as such, and one that lapsed has ended with its TTL.
            let left = if self.held.status() == Status::Held { Left::Perhaps } else { Left::Nothing };
            let given_back = keeper.release(lease.context.clone(), lease.id(), left);
            if keeper.tells_who_wants() {
                line.habit().gives_back(&lease.claims, given_back);
            }
        }
    }
}
