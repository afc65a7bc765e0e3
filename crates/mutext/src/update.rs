//! Read, change, write back: under a lease or by compare-and-set, retried until a deadline.
//!
//! What is retried is the caller's *function*, on what is there now; never a snapshot.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mutext_contract::{
    Commit, Committed, Content, Cursor, Deadline, Document, DocumentPath, Expiry, FencingToken, IdempotencyKey,
    Precondition, Resource, Revision, Ttl, Wait,
};
use tokio::time::Instant;

use crate::adaptive::{self, Adaptive, Cost};
use crate::seats::Seat;
use crate::{Context, Error, LockGuard};

/// How an update keeps others from being written over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Queue for the lock first, then read, change and write under its lease, fence and revision. For documents that
    /// many change, and for changes that are costly to make twice.
    Lease {
        /// How long the lease lasts without renewal.
        ttl: Ttl,
        /// How long to queue at most.
        wait: Wait,
    },
    /// Read, change, and write if nobody wrote in between; else do it again. For documents that few change.
    CompareAndSet,
    /// By compare-and-set as long as conflicts cost less than leases would, and else under a lease: decided for each
    /// document by what its updates in this process have met. For whoever cannot tell. Where the lock service is in
    /// trouble, by compare-and-set.
    Adaptive {
        /// How long a lease lasts without renewal.
        ttl: Ttl,
        /// How long to queue at most, where it is under a lease.
        wait: Wait,
    },
}

/// How an update is made.
#[derive(Debug, Clone)]
pub struct UpdateOptions {
    /// How others are kept from being written over.
    pub strategy: Strategy,
    /// Until when attempts are made, counted from the call.
    pub patience: Duration,
    /// Why, for the history.
    pub message: Option<String>,
}

/// An update that happened; its timings are part of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Updated {
    /// The document's new revision.
    pub revision: Revision,
    /// The commit's place in the context's feed.
    pub cursor: Cursor,
    /// The token that it was written under; `None` by compare-and-set.
    pub token: Option<FencingToken>,
    /// The revision that the change was made on; `None` where there was no document. Where the same change had been made
    /// before under its key, the revision that was there when it was asked for again.
    pub base: Option<Revision>,
    /// Whether it had been made before under the same idempotency key, so that this call changed nothing.
    pub replayed: bool,
    /// How many attempts it took.
    pub attempts: u32,
    /// How long it waited for its lease, in the attempt that succeeded; `None` by compare-and-set.
    pub waited: Option<Duration>,
}

impl Updated {
    /// One that waited for no lease of its own.
    pub(crate) fn without_wait(committed: &Committed, base: Option<Revision>, attempts: u32) -> Self {
        Self {
            revision: crate::context::only(committed),
            cursor: committed.cursor,
            token: None,
            base,
            replayed: committed.replayed,
            attempts,
            waited: None,
        }
    }
}

impl Context {
    /// Under a lease, with this context's TTL, wait and patience.
    pub fn update_options(&self) -> UpdateOptions {
        let settings = self.settings();
        UpdateOptions {
            strategy: Strategy::Lease { ttl: settings.ttl, wait: settings.wait },
            patience: settings.patience,
            message: None,
        }
    }

    /// Changes the document at `path` by `change`, under a lease. See [`Context::update_with`].
    pub async fn update<P, F, Fut, E>(&self, path: P, change: F) -> Result<Updated, Error>
    where
        P: TryInto<DocumentPath>,
        Error: From<P::Error>,
        F: FnMut(Option<Document>) -> Fut,
        Fut: Future<Output = Result<Content, E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.update_with(path, &self.update_options(), change).await
    }

    /// Changes the document at `path` by `change`, which is given what is there (or nothing) and returns what shall
    /// be there. It is called again on what is there then, should somebody have been faster.
    ///
    /// Errors: [`Error::Timeout`] where the lock is not granted, [`Error::RetriesExhausted`] at the deadline,
    /// [`Error::Edit`] where `change` fails. Dropping the future gives the lease back; a write that was under way
    /// happens or not.
    pub async fn update_with<P, F, Fut, E>(
        &self,
        path: P,
        options: &UpdateOptions,
        mut change: F,
    ) -> Result<Updated, Error>
    where
        P: TryInto<DocumentPath>,
        Error: From<P::Error>,
        F: FnMut(Option<Document>) -> Fut,
        Fut: Future<Output = Result<Content, E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = path.try_into()?;
        let change = |document| {
            let changed = change(document);
            async { changed.await.map_err(|error| Error::Edit(error.into())) }
        };
        self.update_as(path, options, &Wording::default(), change).await
    }

    /// The same, with more to say of what is written.
    pub(crate) async fn update_as<F, Fut>(
        &self,
        path: DocumentPath,
        options: &UpdateOptions,
        wording: &Wording,
        mut change: F,
    ) -> Result<Updated, Error>
    where
        F: FnMut(Option<Document>) -> Fut,
        Fut: Future<Output = Result<Content, Error>>,
    {
        let deadline = Deadline::after(options.patience);
        let context = self.by(deadline);
        let mut course = Course::begin(self, options.strategy, &path);
        let mut base = course.seat().map(Some);
        // What was left is older than this call: somebody without the lock may have written since.
        let mut is_remembered = base.is_some();
        let mut attempts = 0;
        loop {
            attempts += 1;
            if let Some((ttl, wait)) = course.wants_lease() {
                base = course.take_lease(&context, &path, ttl, wait, deadline).await?;
            }
            let began = Instant::now();
            let document = match base.take() {
                Some(document) => document,
                None => context.get_by(&path, deadline).await?,
            };
            let before = document.as_ref().map(|document| document.revision);
            let precondition = Precondition::unchanged(document.as_ref());
            let asked = Instant::now();
            let content = match change(document).await {
                Ok(content) => content,
                Err(_) if std::mem::take(&mut is_remembered) => continue,
                Err(error) => return Err(error),
            };
            is_remembered = false;
            let work = asked.elapsed();
            let written = course.keeps_content(&content);
            let mut commit = Commit::new(self.agent().clone()).put(path.clone(), content, precondition);
            commit.message.clone_from(&options.message);
            wording.told_of(&mut commit);
            let outcome = match course.guard() {
                Some(guard) => guard.commit_through(&context, commit).await,
                None => context.commit(commit).await,
            };
            course.note(matches!(outcome, Err(Error::Conflict(_))), Cost::new(began.elapsed(), work));
            let trouble = match outcome {
                Ok(committed) => {
                    self.keeper().meter().updated(course.guard().is_some(), true, attempts);
                    let updated = Updated {
                        revision: crate::context::only(&committed),
                        cursor: committed.cursor,
                        token: course.guard().map(LockGuard::token),
                        base: before,
                        replayed: committed.replayed,
                        attempts,
                        waited: course.hold.as_ref().map(|hold| hold.waited),
                    };
                    // What was written when it was made first is not known any more.
                    course.end(path, updated.revision, written.filter(|_| !committed.replayed));
                    return Ok(updated);
                }
                // The conflict carries what is there now: the next attempt needs no read.
                Err(Error::Conflict(conflict)) => {
                    base = Some(conflict.current.clone());
                    Error::Conflict(conflict)
                }
                Err(lost @ Error::LeaseLost { .. }) => {
                    course.hold = None;
                    lost
                }
                Err(error) => return Err(error),
            };
            if deadline.has_passed() {
                self.keeper().meter().updated(course.guard().is_some(), false, attempts);
                return Err(Error::RetriesExhausted {
                    path,
                    attempts,
                    limit: options.patience,
                    last: Box::new(trouble),
                });
            }
            // Under a lease only those without the lock can be faster: the sooner the next attempt, the less they can.
            // Whoever steps back takes its time, and looks again at what is there then.
            if course.hold.is_none() && back_off(attempts, deadline).await > STALE_AFTER {
                base = None;
            }
        }
    }

    /// Acquires and reads at the same time. What was read before a grant that took queueing may be stale; the
    /// revision check at the commit would refuse it, and reading again is cheaper than that.
    async fn lock_and_read(
        &self,
        path: &DocumentPath,
        ttl: Ttl,
        wait: Wait,
        deadline: Deadline,
    ) -> Result<(LockGuard, bool, Option<Document>), NotTaken> {
        let lock = self.lock(Resource::from(path)).ttl(ttl).wait(wait);
        let until = Deadline::after(wait.get()).min(deadline);
        let lock = async { lock.acquire_by(until).await.map_err(NotTaken::Locks) };
        let read = async || self.get_by(path, deadline).await.map_err(NotTaken::Documents);
        // The read goes out first: it is what takes longer to answer.
        let (document, (guard, queued)) = tokio::try_join!(read(), lock)?;
        let document = if queued { read().await? } else { document };
        Ok((guard, queued, document))
    }
}

/// Why a lease was not taken, or nothing read under it.
enum NotTaken {
    /// The lock service is the reason.
    Locks(Error),
    /// The document store is.
    Documents(Error),
}

/// What is said of an update's commits beside its options.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wording {
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) intent: Option<String>,
    pub(crate) expiry: Expiry,
}

impl Wording {
    pub(crate) fn told_of(&self, commit: &mut Commit) {
        commit.key.clone_from(&self.key);
        commit.intent.clone_from(&self.intent);
        if let Some(change) = commit.changes.last_mut() {
            change.expiry = self.expiry;
        }
    }
}

/// A lease that an update is made under.
struct Hold {
    guard: LockGuard,
    /// How long it took to be had; nothing where the update before had left it.
    waited: Duration,
    /// Since when it is held while others want it.
    in_demand: Option<Instant>,
}

/// How one update goes on: under a lease, by compare-and-set, or as its document's past suggests.
struct Course<'a> {
    context: &'a Context,
    strategy: Strategy,
    /// Where it may choose.
    adaptive: Option<(&'a Arc<Adaptive>, adaptive::Document)>,
    hold: Option<Hold>,
    /// Whether this attempt had to queue.
    queued: bool,
}

impl<'a> Course<'a> {
    fn begin(context: &'a Context, strategy: Strategy, path: &DocumentPath) -> Self {
        let adaptive = matches!(strategy, Strategy::Adaptive { .. });
        let adaptive = adaptive.then(|| (context.adaptive(), (context.name().clone(), path.clone())));
        if let Some((adaptive, document)) = &adaptive {
            adaptive.turns_to(document, context.holder().id);
            adaptive.begins(document, Instant::now());
        }
        Self { context, strategy, adaptive, hold: None, queued: false }
    }

    /// Goes on where the last update of this process left its lease, with what that wrote.
    fn seat(&mut self) -> Option<Document> {
        let (adaptive, document) = self.adaptive.as_ref()?;
        let Seat { guard, document, since, .. } = adaptive.seats.take(document, self.context.agent())?;
        self.hold = Some(Hold { guard, waited: Duration::ZERO, in_demand: Some(since) });
        Some(document)
    }

    const fn guard(&self) -> Option<&LockGuard> {
        match &self.hold {
            Some(hold) => Some(&hold.guard),
            None => None,
        }
    }

    /// The terms of a lease that is to be taken first.
    fn wants_lease(&self) -> Option<(Ttl, Wait)> {
        if self.hold.is_some() {
            return None;
        }
        match (self.strategy, &self.adaptive) {
            (Strategy::Lease { ttl, wait }, _) => Some((ttl, wait)),
            (Strategy::Adaptive { ttl, wait }, Some((adaptive, document))) => {
                adaptive.is_leased(document).then_some((ttl, wait))
            }
            _ => None,
        }
    }

    /// Takes the lease, and reads; neither, where it may do without a lease and the lock service is in trouble.
    async fn take_lease(
        &mut self,
        context: &Context,
        path: &DocumentPath,
        ttl: Ttl,
        wait: Wait,
        deadline: Deadline,
    ) -> Result<Option<Option<Document>>, Error> {
        if let Some((adaptive, document)) = &self.adaptive {
            adaptive.given_back(document, deadline).await;
        }
        let (guard, queued, read) = match (context.lock_and_read(path, ttl, wait, deadline).await, &self.adaptive) {
            (Ok(taken), _) => taken,
            (Err(NotTaken::Locks(error)), Some((adaptive, _))) if is_trouble(&error) && !deadline.has_passed() => {
                tracing::warn!(%error, %path, "going on by compare-and-set");
                adaptive.locks_are_away(Instant::now());
                return Ok(None);
            }
            (Err(NotTaken::Locks(error) | NotTaken::Documents(error)), _) => return Err(error),
        };
        let waited = guard.waited();
        if let Some((adaptive, _)) = self.adaptive.as_ref().filter(|_| !queued && guard.was_asked_for()) {
            adaptive.leased_within(waited);
        }
        self.queued = queued;
        self.hold = Some(Hold { guard, waited, in_demand: queued.then(Instant::now) });
        Ok(Some(read))
    }

    /// What is written, where the next update may want to know it.
    fn keeps_content(&self, content: &Content) -> Option<Content> {
        let in_demand = self.hold.as_ref().is_some_and(|hold| hold.in_demand.is_some());
        (self.adaptive.is_some() && in_demand).then(|| content.clone())
    }

    /// An attempt ended.
    fn note(&mut self, conflict: bool, cost: Cost) {
        let Some((adaptive, document)) = &self.adaptive else { return };
        let in_demand = self.hold.as_ref().is_some_and(|hold| hold.in_demand.is_some());
        let met_somebody = conflict || in_demand || std::mem::take(&mut self.queued);
        self.context.keeper().meter().switched(adaptive.note(document, met_somebody, cost));
    }

    /// It is done: its lease goes back behind the answer, unless it is worth leaving to the next update.
    fn end(self, path: DocumentPath, revision: Revision, written: Option<Content>) {
        let Some((adaptive, key)) = self.adaptive else { return };
        let in_demand = self.hold.as_ref().and_then(|hold| hold.in_demand);
        let is_left = adaptive.ends(&key, in_demand, Instant::now());
        let Some(Hold { guard, .. }) = self.hold else { return };
        match (in_demand, written) {
            (Some(since), Some(content)) if is_left => {
                let (author, written_at) = (self.context.agent().clone(), SystemTime::now());
                let document = Document { path, revision, content, author, written_at, expires_at: None };
                let left_by = self.context.holder().id;
                adaptive.leave(key, Seat { guard, document, since, left_by }, self.context.keeper());
            }
            _ => adaptive.give_back(&key, guard),
        }
    }
}

/// Whether a lease was not granted because of the lock service, and not because of who is in the way.
fn is_trouble(error: &Error) -> bool {
    match error {
        Error::Engine(_) => true,
        // A service that comes back without its memory knows of nobody who would be.
        Error::Timeout { blocked, .. } => blocked.holdings.is_empty() && blocked.ahead == 0,
        _ => false,
    }
}

/// What was read longer ago than this before a write is likely to have changed, where others have been faster before.
pub(crate) const STALE_AFTER: Duration = Duration::from_millis(1);

/// A short random pause that grows with each attempt, so that those in conflict do not meet again in step; how long it
/// was.
pub(crate) async fn back_off(attempts: u32, deadline: Deadline) -> Duration {
    let most = Duration::from_micros(500).saturating_mul(1 << attempts.min(6));
    let (began, pause) = (Instant::now(), most.mul_f64(rand::random_range(0.0..1.0)));
    tokio::time::sleep_until((began + pause).min(deadline.instant())).await;
    began.elapsed()
}
