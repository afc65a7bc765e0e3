//! The lock table as a pure state machine: who may hold what, and who is next. No clock and no database inside, so
//! that every engine whose table is at hand in one atomic step can decide by it.
//!
//! The rule is first come, first served: a request is granted when it conflicts neither with a lease that stands nor
//! with a request that came before it and still waits. So a stream of readers cannot hold a writer off, and requests
//! for other resources do not wait at all. A request that is to take the place of a lease of its own comes before all
//! others: those wait for that very lease.

use std::sync::Arc;

use crate::{Claim, Holder, LeaseId};

/// Lapsed leases that nobody has taken are kept so long, for their holders to revive.
const LAPSED_KEPT_NS: i64 = 3_600_000_000_000;

/// A request that waits or a lease that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place: whoever came first has the lower one.
    pub place: i64,
    /// The request, and the lease once it is granted.
    pub id: LeaseId,
    /// Who asks or holds.
    pub holder: Holder,
    /// What is asked for or held.
    pub claims: Arc<[Claim]>,
    /// How long it lasts without renewal.
    pub ttl_ns: i64,
    /// What for.
    pub reason: Option<String>,
    /// The process that it lives in.
    pub home: String,
    /// When it was granted, or began to wait.
    pub since_ns: i64,
    /// Until when it lasts without renewal, or may wait.
    pub until_ns: i64,
    /// The token's counter; `None` while it waits.
    pub counter: Option<u64>,
    /// Leases that it keeps while it waits.
    pub keeps: Vec<LeaseId>,
    /// The lease that it is to take the place of.
    pub replaces: Option<LeaseId>,
    /// How many tokens it would like to spare, and once it is granted how many it has.
    pub spare: u32,
}

impl Entry {
    /// Holds, whether or not its time has run out.
    pub const fn is_held(&self) -> bool {
        self.counter.is_some()
    }

    /// Holds, and its time has not run out.
    pub const fn stands(&self, now_ns: i64) -> bool {
        self.is_held() && self.until_ns > now_ns
    }

    /// Whether it stands in the way of `waiter` and its holder, told of that, may give it back: it has tokens to spare.
    pub fn may_be_given_up_for(&self, waiter: &Self, now_ns: i64) -> bool {
        self.spare > 0 && self.stands(now_ns) && self.conflicts(waiter)
    }

    /// Whether the two cannot be held at once. What a request is to take the place of is not in its way.
    pub fn conflicts(&self, other: &Self) -> bool {
        let replaces = |waiter: &Self, lease: &Self| !waiter.is_held() && waiter.replaces == Some(lease.id);
        if replaces(self, other) || replaces(other, self) {
            return false;
        }
        self.claims.iter().any(|own| other.claims.iter().any(|theirs| own.conflicts(theirs)))
    }
}

/// What a moment changes: who is granted, and who goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settlement {
    /// Requests to be granted, first come first.
    pub granted: Vec<LeaseId>,
    /// Leases that had lapsed, and whose resource is granted to another now.
    pub superseded: Vec<LeaseId>,
    /// Leases whose place one that is granted takes.
    pub replaced: Vec<LeaseId>,
    /// Requests that waited long enough or were to take the place of a lease that is no more, and lapsed leases that
    /// nobody revived.
    pub gone: Vec<LeaseId>,
}

/// Decides who is next. `entries` are in the order in which they are to be served.
pub fn settle(entries: &[Entry], now_ns: i64) -> Settlement {
    let mut settlement = Settlement::default();
    let mut standing: Vec<&Entry> = entries.iter().filter(|entry| entry.stands(now_ns)).collect();
    let mut waiting: Vec<&Entry> = Vec::new();
    let is_there = |lease: LeaseId| entries.iter().any(|entry| entry.id == lease && entry.is_held());
    for entry in entries {
        if entry.is_held() {
            if entry.until_ns + LAPSED_KEPT_NS < now_ns {
                settlement.gone.push(entry.id);
            }
        } else if entry.until_ns <= now_ns || entry.replaces.is_some_and(|lease| !is_there(lease)) {
            settlement.gone.push(entry.id);
        } else if standing.iter().chain(&waiting).any(|other| other.conflicts(entry)) {
            waiting.push(entry);
        } else {
            standing.retain(|other| entry.replaces != Some(other.id));
            standing.push(entry);
            settlement.granted.push(entry.id);
            settlement.replaced.extend(entry.replaces);
            let lapsed =
                entries.iter().filter(|other| other.is_held() && !other.stands(now_ns) && other.conflicts(entry));
            settlement.superseded.extend(lapsed.map(|other| other.id));
        }
    }
    settlement.superseded.retain(|id| !settlement.gone.contains(id) && !settlement.replaced.contains(id));
    settlement.superseded.sort_unstable();
    settlement.superseded.dedup();
    settlement
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AgentName, Mode};
    use proptest::prelude::*;

    fn entry(place: i64, claims: &[(&str, Mode)], until_ns: i64, counter: Option<u64>) -> Entry {
        Entry {
            place,
            id: LeaseId::from_bytes([u8::try_from(place).unwrap(); 16]),
            holder: Holder::new(AgentName::new("a").unwrap()),
            claims: claims.iter().map(|(path, mode)| Claim { resource: path.parse().unwrap(), mode: *mode }).collect(),
            ttl_ns: 10,
            reason: None,
            home: String::new(),
            since_ns: 0,
            until_ns,
            counter,
            keeps: Vec::new(),
            replaces: None,
            spare: 0,
        }
    }

    use Mode::{Exclusive as X, Shared as S};

    fn granted(entries: &[Entry]) -> Vec<i64> {
        let settlement = settle(entries, 100);
        let place = |id: &LeaseId| entries.iter().find(|entry| entry.id == *id).unwrap().place;
        settlement.granted.iter().map(place).collect()
    }

    #[test]
    fn the_first_to_come_is_the_first_to_be_served() {
        assert_eq!(granted(&[entry(1, &[("a", X)], 200, None), entry(2, &[("a", X)], 200, None)]), [1]);
    }

    #[test]
    fn a_reader_does_not_pass_a_writer_that_waits() {
        let entries = [
            entry(1, &[("a", S)], 200, Some(1)),
            entry(2, &[("a", X)], 200, None),
            entry(3, &[("a", S)], 200, None),
            entry(4, &[("b", S)], 200, None),
        ];
        assert_eq!(granted(&entries), [4]);
    }

    #[test]
    fn a_request_for_several_resources_holds_none_until_it_holds_all() {
        let entries = [
            entry(1, &[("a", X)], 200, Some(1)),
            entry(2, &[("a", X), ("b", X)], 200, None),
            entry(3, &[("c", X)], 200, None),
        ];
        assert_eq!(granted(&entries), [3]);
    }

    #[test]
    fn a_lapsed_lease_stands_in_nobodys_way_and_goes_only_when_it_is_taken() {
        let lapsed = entry(1, &[("a", X)], 50, Some(1));
        assert_eq!(settle(std::slice::from_ref(&lapsed), 100), Settlement::default());
        let settlement = settle(&[lapsed.clone(), entry(2, &[("a/b", X)], 200, None)], 100);
        assert_eq!(settlement.superseded, [lapsed.id]);
        assert_eq!(settlement.granted.len(), 1);
    }

    #[test]
    fn a_reader_that_wants_to_write_comes_before_writers_and_after_other_readers() {
        let upgrade = Entry { replaces: Some(LeaseId::from_bytes([1; 16])), ..entry(3, &[("a", X)], 200, None) };
        let reader = entry(1, &[("a", S)], 200, Some(1));
        let (other, writer) = (entry(2, &[("a", S)], 200, Some(2)), entry(4, &[("a", X)], 200, None));
        assert_eq!(granted(&[upgrade.clone(), reader.clone(), other, writer.clone()]), [0_i64; 0]);
        let settlement = settle(&[upgrade.clone(), reader.clone(), writer.clone()], 100);
        assert_eq!((&settlement.granted[..], &settlement.replaced[..]), (&[upgrade.id][..], &[reader.id][..]));
        // Without the lease that it was to take the place of it is nobody.
        let settlement = settle(&[upgrade.clone(), writer.clone()], 100);
        assert_eq!((&settlement.granted[..], &settlement.gone[..]), (&[writer.id][..], &[upgrade.id][..]));
    }

    #[test]
    fn whoever_has_waited_long_enough_is_gone_and_blocks_nobody() {
        let entries = [entry(1, &[("a", X)], 100, None), entry(2, &[("a", X)], 200, None)];
        assert_eq!(granted(&entries), [2]);
    }

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let claim = (prop::sample::select(vec!["/", "a", "a/b", "a/c", "b"]), prop::sample::select(vec![S, X]));
        let one = (prop::collection::vec(claim, 1..3), 50_i64..200);
        prop::collection::vec(one, 0..12).prop_map(|all| {
            all.iter().zip(1..).map(|((claims, until), place)| entry(place, claims, *until, None)).collect()
        })
    }

    proptest! {
        /// Grant, let time pass, grant again: no two leases that stand conflict, and nobody is passed by a later
        /// request that is in conflict with it.
        #[test]
        fn no_two_leases_that_stand_conflict(mut entries in entries(), steps in prop::collection::vec(0_usize..12, 0..20)) {
            let mut counter = 0;
            for (step, released) in steps.into_iter().enumerate() {
                let now = 60 + 5 * i64::try_from(step).unwrap();
                let settlement = settle(&entries, now);
                entries.retain(|e| !settlement.gone.contains(&e.id) && !settlement.superseded.contains(&e.id));
                for id in &settlement.granted {
                    let granted = entries.iter_mut().find(|e| e.id == *id).unwrap();
                    counter += 1;
                    granted.counter = Some(counter);
                    granted.until_ns = now + granted.ttl_ns;
                }
                for (index, one) in entries.iter().enumerate().filter(|(_, e)| e.stands(now)) {
                    for other in entries[index + 1..].iter().filter(|e| e.stands(now)) {
                        prop_assert!(!one.conflicts(other), "{one:?} and {other:?}");
                    }
                }
                for waiter in entries.iter().filter(|e| !e.is_held()) {
                    let is_before = |e: &&Entry| e.stands(now) || (!e.is_held() && e.place < waiter.place);
                    let waits = entries.iter().filter(is_before).any(|e| e.conflicts(waiter));
                    prop_assert!(waits, "{waiter:?} waits for nothing");
                }
                if released < entries.len() && entries[released].is_held() {
                    entries.remove(released);
                }
            }
        }
    }
}
