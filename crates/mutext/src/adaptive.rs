//! Which documents are changed under a lease, and which by compare-and-set: decided for each by what its updates meet.
//!
//! A conflict costs an attempt that is made again; a lease costs being asked for, conflict or not. With a share `p` of
//! attempts that meet somebody, an update by compare-and-set makes `p / (1 - p)` attempts in vain on average, and a lease
//! is worth its price where these cost more. All three are measured: the share by conflicts, and under leases by
//! whether one had to queue; an attempt by how long it takes, from reading to the refusal; a lease by how long those
//! take that nobody is in the way of, and as much again for giving it back.
//!
//! Not all of an attempt in vain is lost. Where the engine makes one commit after the other, an attempt spends its time in
//! the engine's queue, as it would under a lease; a refusal takes next to nothing of the engine. There the caller's own
//! work counts alone, unless the process comes back for the document at once: then its lease can be left to its next
//! update, which has the queue to itself.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mutext_contract::{ContextName, Deadline, DocumentPath};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::LockGuard;
use crate::seats::{self, Seats};

/// A process that has come back to a document at once in so large a share of cases is expected to do so again.
const COMES_BACK: f64 = 0.375;
/// How much the latest moves an average.
const WEIGHT: f64 = 1.0 / 16.0;
/// The same of whether a process comes back. It decides between two ways that are far apart in cost, and where a
/// process chooses between a few documents it is to be told from one that has two favourites: fewer cases than these
/// would now and then take chance for a habit.
const WEIGHT_OF_RETURNS: f64 = 1.0 / 64.0;
/// A document goes to leases once attempts in vain cost so many times what a lease does, and back below the other.
const TO_LEASE: f64 = 1.3;
const TO_COMPARE_AND_SET: f64 = 0.7;
/// Below this share of attempts that met somebody a document is forgotten.
const QUIET: f64 = 0.02;
/// Nobody can tell how many attempts are in vain where nearly all are.
const SHARE_MAX: f64 = 0.95;
/// What a lease costs until one was measured, in seconds.
const LEASE_COST: f64 = 0.0005;
/// A lease costs so many times what asking for it takes: giving it back is as much work, and though whoever gave it back
/// does not wait for that, others do where they share a queue or a processor.
const LEASE: f64 = 2.0;
/// For how long a lock service that could not be asked is not asked again.
const AWAY: Duration = Duration::from_secs(5);
/// So many documents are remembered at most; those with the fewest conflicts are forgotten first.
const DOCUMENTS_MAX: usize = 4096;

/// A document that changes from one way to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Switch {
    ToLease,
    ToCompareAndSet,
}

/// What an attempt costs, in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// The caller's own work.
    work: f64,
    /// Reading and writing.
    engine: f64,
}

impl Cost {
    /// Of an attempt that took so long, `work` of it for the caller's own work.
    pub(crate) fn new(took: Duration, work: Duration) -> Self {
        Self { work: work.as_secs_f64(), engine: took.saturating_sub(work).as_secs_f64() }
    }

    fn average(&mut self, latest: Self) {
        self.work += WEIGHT * (latest.work - self.work);
        self.engine += WEIGHT * (latest.engine - self.engine);
    }
}

/// What is known of one document that had a conflict.
#[derive(Debug)]
struct Contention {
    /// The share of attempts that met somebody.
    share: f64,
    /// What an attempt costs.
    cost: Cost,
    leased: bool,
    /// When this process changed it last, and in which share of cases it came back for it at once.
    changed: Option<Instant>,
    comes_back: f64,
    /// Ends when the lease of this process's last update is given back.
    giving_back: Option<oneshot::Receiver<()>>,
}

impl Contention {
    const fn new(cost: Cost) -> Self {
        Self { share: 0.0, cost, leased: false, changed: None, comes_back: 0.0, giving_back: None }
    }

    /// Takes note of an attempt, and decides anew.
    fn note(&mut self, met_somebody: bool, cost: Cost, lease: f64, serial: bool) -> Option<Switch> {
        self.share += WEIGHT * (f64::from(u8::from(met_somebody)) - self.share);
        self.cost.average(cost);
        let share = self.share.min(SHARE_MAX);
        let engine = if serial && self.comes_back < COMES_BACK { 0.0 } else { self.cost.engine };
        let lease = LEASE * lease;
        let in_vain = share / (1.0 - share) * (self.cost.work + engine);
        if !self.leased && in_vain > TO_LEASE * lease {
            self.leased = true;
            return Some(Switch::ToLease);
        }
        if self.leased && in_vain < TO_COMPARE_AND_SET * lease {
            self.leased = false;
            return Some(Switch::ToCompareAndSet);
        }
        None
    }
}

pub(crate) type Document = (ContextName, DocumentPath);

/// What the updates of one process have met.
pub(crate) struct Adaptive {
    known: Mutex<Known>,
    /// Whether the engine makes one commit after the other.
    serial: bool,
    pub(crate) seats: Seats,
}

#[derive(Debug)]
struct Known {
    documents: HashMap<Document, Contention>,
    /// What a lease costs that nobody is in the way of, in seconds.
    lease: f64,
    /// No lease is asked for before this: the lock service was away.
    away_until: Option<Instant>,
}

impl Adaptive {
    /// For an engine that makes one commit after the other, or not.
    pub(crate) fn new(serial: bool) -> Self {
        let known = Known { documents: HashMap::new(), lease: LEASE_COST, away_until: None };
        Self { known: Mutex::new(known), serial, seats: Seats::default() }
    }

    fn with<T>(&self, look: impl FnOnce(&mut Known) -> T) -> T {
        // Each change is complete at each of its steps, so that a panic leaves nothing half-done.
        look(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// An update of this document begins.
    pub(crate) fn begins(&self, document: &Document, now: Instant) {
        self.with(|known| {
            let Some(contention) = known.documents.get_mut(document) else { return };
            let at_once = contention.changed.take().is_some_and(|changed| now.duration_since(changed) < seats::SOON);
            contention.comes_back += WEIGHT_OF_RETURNS * (f64::from(u8::from(at_once)) - contention.comes_back);
        });
    }

    /// An update is done, under a lease that others queue for since `in_demand`, or not: whether its lease is worth
    /// leaving to the next.
    pub(crate) fn ends(&self, document: &Document, in_demand: Option<Instant>, now: Instant) -> bool {
        self.with(|known| {
            let Some(contention) = known.documents.get_mut(document) else { return false };
            contention.changed = Some(now);
            let Some(since) = in_demand else { return false };
            let next =
                now.duration_since(since) + Duration::from_secs_f64(contention.cost.work + contention.cost.engine);
            contention.leased && contention.comes_back > COMES_BACK && next < seats::TURN
        })
    }

    /// Gives a lease back behind the answer.
    pub(crate) fn give_back(&self, document: &Document, guard: LockGuard) {
        let giving_back = guard.give_back();
        self.with(|known| {
            if let Some(contention) = known.documents.get_mut(document) {
                contention.giving_back = giving_back;
            }
        });
    }

    /// Ready when the lease of this process's last update is given back: who queues then queues behind others, and not
    /// behind itself.
    pub(crate) async fn given_back(&self, document: &Document, deadline: Deadline) {
        let giving_back = self.with(|known| known.documents.get_mut(document)?.giving_back.take());
        if let Some(giving_back) = giving_back {
            // An error says that it has ended.
            let _ = tokio::time::timeout_at(deadline.instant(), giving_back).await;
        }
    }

    /// Whether an update of this document is to take a lease.
    pub(crate) fn is_leased(&self, document: &Document) -> bool {
        self.with(|known| {
            let is_away = known.away_until.is_some_and(|until| Instant::now() < until);
            !is_away && known.documents.get(document).is_some_and(|known| known.leased)
        })
    }

    /// The lock service cannot be asked: what it is good for, order and less work in vain, must do without it for a
    /// while. The store refuses lost updates by itself.
    pub(crate) fn locks_are_away(&self, now: Instant) {
        self.with(|known| known.away_until = Some(now + AWAY));
    }

    /// How long a lease took to be had that nobody was in the way of.
    pub(crate) fn leased_within(&self, took: Duration) {
        self.with(|known| known.lease += WEIGHT * (took.as_secs_f64() - known.lease));
    }

    /// An attempt ended: it met a conflict, or had to queue for its lease, or met nobody.
    pub(crate) fn note(&self, document: &Document, met_somebody: bool, cost: Cost) -> Option<Switch> {
        self.with(|known| {
            if let Some(contention) = known.documents.get_mut(document) {
                let switch = contention.note(met_somebody, cost, known.lease, self.serial);
                if contention.share < QUIET && !contention.leased {
                    known.documents.remove(document);
                }
                return switch;
            }
            if !met_somebody {
                return None;
            }
            known.make_room();
            let mut contention = Contention::new(cost);
            let switch = contention.note(true, cost, known.lease, self.serial);
            known.documents.insert(document.clone(), contention);
            switch
        })
    }
}

impl Known {
    /// Forgets the quieter half once there are too many.
    fn make_room(&mut self) {
        if self.documents.len() < DOCUMENTS_MAX {
            return;
        }
        let mut shares: Vec<f64> = self.documents.values().map(|contention| contention.share).collect();
        let half = shares.len() / 2;
        let (_, median, _) = shares.select_nth_unstable_by(half, f64::total_cmp);
        let median = *median;
        self.documents.retain(|_, contention| contention.share > median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(name: &str) -> Document {
        (ContextName::new("c").unwrap(), DocumentPath::new(name).unwrap())
    }

    /// An attempt that spent its time in the engine.
    fn engine(took: Duration) -> Cost {
        Cost::new(took, Duration::ZERO)
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn whoever_meets_nobody_takes_no_lease_and_is_not_remembered() {
        let adaptive = Adaptive::new(false);
        for _ in 0..100 {
            assert_eq!(adaptive.note(&document("a"), false, engine(60_000 * MS)), None);
        }
        assert!(!adaptive.is_leased(&document("a")));
        assert!(adaptive.with(|known| known.documents.is_empty()));
    }

    #[test]
    fn one_conflict_is_enough_where_an_attempt_takes_a_minute() {
        let adaptive = Adaptive::new(false);
        assert_eq!(adaptive.note(&document("a"), true, engine(60_000 * MS)), Some(Switch::ToLease));
        assert!(adaptive.is_leased(&document("a")) && !adaptive.is_leased(&document("b")));
    }

    #[test]
    fn where_an_attempt_is_cheap_it_takes_many() {
        let adaptive = Adaptive::new(false);
        let mut conflicts = 0;
        while adaptive.note(&document("a"), true, engine(MS / 2)) != Some(Switch::ToLease) {
            conflicts += 1;
        }
        assert!((3..24).contains(&conflicts), "{conflicts}");
        // One in six meets somebody: conflicts are cheaper than leases.
        for round in 0..600 {
            adaptive.note(&document("b"), round % 6 == 0, engine(MS / 2));
            assert!(!adaptive.is_leased(&document("b")), "{round}");
        }
    }

    #[test]
    fn a_document_goes_back_once_nobody_is_met_and_is_forgotten_then() {
        let adaptive = Adaptive::new(false);
        for _ in 0..50 {
            adaptive.note(&document("a"), true, engine(MS));
        }
        assert!(adaptive.is_leased(&document("a")));
        let mut quiet = 0;
        while adaptive.note(&document("a"), false, engine(MS)) != Some(Switch::ToCompareAndSet) {
            quiet += 1;
        }
        assert!((4..40).contains(&quiet), "{quiet}");
        for _ in 0..60 {
            adaptive.note(&document("a"), false, engine(MS));
        }
        assert!(adaptive.with(|known| known.documents.is_empty()));
    }

    #[test]
    fn where_one_commit_follows_the_other_work_in_vain_counts_against_a_lease_and_its_end() {
        let work = |took: Duration| Cost::new(took + MS, took);
        let adaptive = Adaptive::new(true);
        for round in 0..600 {
            // Every third attempt is in vain: 0.75 ms lost for each update.
            adaptive.note(&document("a"), round % 3 == 0, work(MS * 3 / 2));
            assert!(!adaptive.is_leased(&document("a")), "{round}");
        }
        let dearer = (0..600).any(|round| adaptive.note(&document("b"), round % 3 == 0, work(MS * 4)).is_some());
        assert!(dearer && adaptive.is_leased(&document("b")));
    }

    #[test]
    fn who_chooses_among_four_documents_has_no_favourite_and_who_takes_every_second_time_the_same_has() {
        let adaptive = Adaptive::new(true);
        let at_once = |one_in: usize, round: usize| ((round * 7919) % 1009).is_multiple_of(one_in);
        let comes_back = |name: &str, one_in: usize| {
            adaptive.note(&document(name), true, engine(MS));
            let mut now = Instant::now();
            (0..2000)
                .filter(|round| {
                    adaptive.ends(&document(name), None, now);
                    now += if at_once(one_in, *round) { seats::SOON / 2 } else { seats::SOON * 2 };
                    adaptive.begins(&document(name), now);
                    adaptive.with(|known| known.documents[&document(name)].comes_back > COMES_BACK)
                })
                .count()
        };
        assert_eq!(comes_back("one of four", 4), 0);
        assert!(comes_back("one of two", 2) > 1800);
    }

    #[test]
    fn it_does_not_flap_where_both_cost_the_same() {
        let adaptive = Adaptive::new(false);
        let switches =
            (0..2000).filter(|round| adaptive.note(&document("a"), round % 2 == 0, engine(MS / 2)).is_some());
        assert!(switches.count() <= 2);
    }

    #[tokio::test]
    async fn while_locks_are_away_nobody_takes_one() {
        let adaptive = Adaptive::new(false);
        adaptive.note(&document("a"), true, engine(60_000 * MS));
        adaptive.locks_are_away(Instant::now());
        assert!(!adaptive.is_leased(&document("a")));
        adaptive.locks_are_away(Instant::now().checked_sub(AWAY).unwrap());
        assert!(adaptive.is_leased(&document("a")));
    }

    #[test]
    fn it_remembers_a_bounded_number() {
        let adaptive = Adaptive::new(false);
        for _ in 0..20 {
            adaptive.note(&document("hot"), true, engine(MS));
        }
        for number in 0..3 * DOCUMENTS_MAX {
            adaptive.note(&document(&format!("cold-{number}")), true, engine(MS / 10));
        }
        assert!(adaptive.with(|known| known.documents.len()) <= DOCUMENTS_MAX);
        assert!(adaptive.is_leased(&document("hot")));
    }
}
