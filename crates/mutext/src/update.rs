//! Read, change, write back: under a lease or by compare-and-set, retried until a deadline.
//!
//! What is retried is the caller's *function*, on what is there now; never a snapshot.

use std::time::{Duration, SystemTime};

use mutext_contract::{
    Commit, Content, Cursor, Deadline, Document, DocumentPath, FencingToken, Precondition, Resource, Revision, Ttl,
    Wait,
};
use tokio::time::Instant;

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
    /// document by what its updates in this process have met. For whoever cannot tell.
    Adaptive {
        /// How long a lease lasts without renewal.
        ttl: Ttl,
        /// How long to queue at most, where it is under a lease.
        wait: Wait,
    },
}

impl Strategy {
    const fn terms(self) -> Option<(Ttl, Wait)> {
        match self {
            Self::Lease { ttl, wait } | Self::Adaptive { ttl, wait } => Some((ttl, wait)),
            Self::CompareAndSet => None,
        }
    }
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
    /// The revision that the change was made on; `None` where there was no document.
    pub base: Option<Revision>,
    /// How many attempts it took.
    pub attempts: u32,
    /// How long it waited for its lease, in the attempt that succeeded; `None` by compare-and-set.
    pub waited: Option<Duration>,
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
        let deadline = Deadline::after(options.patience);
        let context = self.by(deadline);
        let mut change = async |document| change(document).await.map_err(|error| Error::Edit(error.into()));
        let adaptive = matches!(options.strategy, Strategy::Adaptive { .. }).then(|| self.adaptive());
        let key = (self.name().clone(), path.clone());
        let mut attempts = 0;
        let mut guard: Option<LockGuard> = None;
        let mut base: Option<Option<Document>> = None;
        // Since when a lease is held that others wait for.
        let mut in_demand = None;
        let mut waited = None;
        if let Some(adaptive) = adaptive {
            adaptive.begins(&key, Instant::now());
            if let Some(seat) = adaptive.seats.take(&key, self.agent()) {
                guard = Some(seat.guard);
                base = Some(Some(seat.document));
                in_demand = Some(seat.since);
                waited = Some(Duration::ZERO);
            }
        }
        loop {
            attempts += 1;
            let began = Instant::now();
            let mut met_somebody = in_demand.is_some();
            let leased = guard.is_none() && adaptive.is_none_or(|adaptive| adaptive.is_leased(&key));
            if let Some((ttl, wait)) = options.strategy.terms().filter(|_| leased) {
                let (held, queued, read) = context.lock_and_read(&path, ttl, wait, deadline).await?;
                if let Some(adaptive) = adaptive.filter(|_| !queued) {
                    adaptive.leased_within(held.waited());
                }
                met_somebody = queued;
                waited = Some(held.waited());
                in_demand = queued.then(Instant::now);
                guard = Some(held);
                base = Some(read);
            }
            let asked = Instant::now();
            let document = match base.take() {
                Some(document) => document,
                None => context.get_by(&path, deadline).await?,
            };
            let before = document.as_ref().map(|document| document.revision);
            let precondition = Precondition::unchanged(document.as_ref());
            let content = change(document).await?;
            let written = in_demand.is_some().then(|| content.clone());
            let mut commit = Commit::new(self.agent().clone()).put(path.clone(), content, precondition);
            commit.message.clone_from(&options.message);
            let outcome = match &guard {
                Some(guard) => guard.commit(commit).await,
                None => context.commit(commit).await,
            };
            let under_lease = guard.is_some();
            if let Some(adaptive) = adaptive {
                met_somebody |= matches!(outcome, Err(Error::Conflict(_)));
                // What came before the lease was granted is not what would be made again.
                let attempt = if under_lease { asked.elapsed() } else { began.elapsed() };
                let switch = adaptive.note(&key, met_somebody, attempt);
                self.keeper().meter().switched(switch);
            }
            let trouble = match outcome {
                Ok(committed) => {
                    self.keeper().meter().updated(under_lease, true, attempts);
                    let updated = Updated {
                        revision: crate::context::only(&committed),
                        cursor: committed.cursor,
                        token: guard.as_ref().map(LockGuard::token),
                        base: before,
                        attempts,
                        waited: waited.filter(|_| guard.is_some()),
                    };
                    if let (Some(adaptive), Some(guard), Some(since), Some(content)) =
                        (adaptive, guard, in_demand, written)
                        && adaptive.ends(&key, since, Instant::now())
                    {
                        let (revision, author, written_at) =
                            (updated.revision, self.agent().clone(), SystemTime::now());
                        let document = Document { path, revision, content, author, written_at };
                        adaptive.seats.leave(key, Seat { guard, document, since }, self.keeper());
                    }
                    return Ok(updated);
                }
                // The conflict carries what is there now: the next attempt needs no read.
                Err(Error::Conflict(conflict)) => {
                    base = Some(conflict.current.clone());
                    Error::Conflict(conflict)
                }
                Err(lost @ Error::LeaseLost { .. }) => {
                    (guard, in_demand) = (None, None);
                    lost
                }
                Err(error) => return Err(error),
            };
            if deadline.has_passed() {
                self.keeper().meter().updated(under_lease, false, attempts);
                return Err(Error::RetriesExhausted {
                    path,
                    attempts,
                    limit: options.patience,
                    last: Box::new(trouble),
                });
            }
            back_off(attempts, deadline).await;
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
    ) -> Result<(LockGuard, bool, Option<Document>), Error> {
        let lock = self.lock(Resource::from(path)).ttl(ttl).wait(wait);
        let until = Deadline::after(wait.get()).min(deadline);
        let ((guard, queued), document) = tokio::try_join!(lock.acquire_by(until), self.get_by(path, deadline))?;
        let document = if queued { self.get_by(path, deadline).await? } else { document };
        Ok((guard, queued, document))
    }
}

/// A short random pause that grows with each attempt, so that those in conflict do not meet again in step.
async fn back_off(attempts: u32, deadline: Deadline) {
    let most = Duration::from_micros(500).saturating_mul(1 << attempts.min(6));
    let pause = most.mul_f64(rand::random_range(0.0..1.0));
    tokio::time::sleep_until((Instant::now() + pause).min(deadline.instant())).await;
}
