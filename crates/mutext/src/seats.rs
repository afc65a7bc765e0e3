//! Leases that an update leaves to the next one of the same document in this process.
//!
//! Where a document is so much in demand that its leases queue, handing it over takes longer than changing it. A process
//! that comes back for it at once may therefore go on for a moment before the next in the queue has it, and needs
//! neither lock nor read for that: it knows what it wrote. The moment is short and bounded, so that nobody starves.
//! After D. Dice, V. Marathe and N. Shavit, "Lock Cohorting" (2012), which passes a lock on within a processor's
//! cores for a bounded number of times.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mutext_contract::HolderId;
use tokio::time::Instant;

use crate::LockGuard;
use crate::adaptive::{Adaptive, Document};
use crate::keeper::Keeper;

/// How long a process may go on at most, from the grant on.
pub(crate) const TURN: Duration = Duration::from_millis(10);
/// How soon it must come back.
pub(crate) const SOON: Duration = Duration::from_millis(1);

/// What one update leaves to the next.
pub(crate) struct Seat {
    pub(crate) guard: LockGuard,
    /// The document as it was written last.
    pub(crate) document: mutext_contract::Document,
    /// When the lease was granted.
    pub(crate) since: Instant,
    /// Whose update left it.
    pub(crate) left_by: HolderId,
}

#[derive(Default)]
pub(crate) struct Seats {
    kept: Mutex<HashMap<Document, (u64, Seat)>>,
    number: AtomicU64,
}

impl Seats {
    fn with<T>(&self, look: impl FnOnce(&mut HashMap<Document, (u64, Seat)>) -> T) -> T {
        look(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was left for an update of this document by an agent of the same name, if that may still be believed.
    pub(crate) fn take(&self, document: &Document, agent: &mutext_contract::AgentName) -> Option<Seat> {
        let (_, seat) = self.with(|kept| kept.remove(document))?;
        let good = seat.since.elapsed() < TURN && seat.guard.is_held() && seat.guard.lease().holder.agent == *agent;
        good.then_some(seat)
    }

    /// Leaves `seat` to the next update; its number.
    fn leave(&self, document: Document, seat: Seat) -> u64 {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        // An earlier one is dropped outside of the lock.
        drop(self.with(|kept| kept.insert(document, (number, seat))));
        number
    }

    /// What was left under this number, if nobody has taken it.
    fn stale(&self, document: &Document, number: u64) -> Option<Seat> {
        self.with(|kept| {
            let is_same = kept.get(document).is_some_and(|(kept, _)| *kept == number);
            if is_same { kept.remove(document).map(|(_, seat)| seat) } else { None }
        })
    }

    /// What `holder` left for updates of other documents than `document`.
    fn behind(&self, holder: HolderId, document: &Document) -> Vec<(Document, (u64, Seat))> {
        self.with(|kept| kept.extract_if(|left, (_, seat)| seat.left_by == holder && left != document).collect())
    }

    /// Gives everything back.
    pub(crate) fn clear(&self) {
        drop(self.with(std::mem::take));
    }
}

impl Adaptive {
    /// Whoever turns to `document` does not come back at once for the one that it left.
    pub(crate) fn turns_to(&self, document: &Document, holder: HolderId) {
        for (left, (_, seat)) in self.seats.behind(holder, document) {
            self.give_back(&left, seat.guard);
        }
    }

    /// Leaves a lease to the next update of the document; unless one comes soon, it is given back.
    pub(crate) fn leave(self: &Arc<Self>, document: Document, seat: Seat, keeper: &Keeper) {
        let number = self.seats.leave(document.clone(), seat);
        let adaptive = Arc::downgrade(self);
        keeper.soon(Instant::now() + SOON, move || {
            let Some(adaptive) = adaptive.upgrade() else { return };
            if let Some(seat) = adaptive.seats.stale(&document, number) {
                adaptive.give_back(&document, seat.guard);
            }
        });
    }
}

#[cfg(all(test, feature = "postgres"))]
mod tests {
    use mutext_contract::{AgentName, Deadline, DocumentPath, Precondition};
    use mutext_testbed::PostgresServer;

    use super::*;
    use crate::{Address, Content, Error, Mutext, Settings, Strategy};

    #[tokio::test]
    async fn whoever_goes_on_under_a_lease_has_its_own_deadline_and_not_that_of_who_took_it() {
        let dir = tempfile::tempdir().unwrap();
        // PostgreSQL is asked nothing once a deadline has passed.
        let postgres = PostgresServer::start().unwrap();
        let (store, locks) = (postgres.url().parse().unwrap(), Address::embedded(dir.path()));
        let mutext = Mutext::open(&store, Some(&locks)).await.unwrap();
        let context = mutext.context("c", Settings::new(AgentName::new("anna").unwrap())).unwrap();
        context.put("board", "1", Precondition::Absent).await.unwrap();
        let (path, deadline) = (DocumentPath::new("board").unwrap(), Deadline::after(Duration::from_secs(1)));
        let hurried = context.by(deadline);
        let guard = hurried.lock("board").await.unwrap();
        let document = context.get("board").await.unwrap().unwrap();
        tokio::time::sleep_until(deadline.instant()).await;

        let token = guard.token();
        let seat = Seat { guard, document, since: Instant::now(), left_by: context.holder().id };
        context.adaptive().seats.leave((context.name().clone(), path), seat);
        let mut options = context.update_options();
        options.strategy = Strategy::Adaptive { ttl: context.settings().ttl, wait: context.settings().wait };
        let change = async |_| Ok::<Content, Error>("2".into());
        let updated = context.update_with("board", &options, change).await.unwrap();
        assert_eq!((updated.token, updated.revision.0), (Some(token), 2));
    }
}
