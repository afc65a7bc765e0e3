//! The reference: who holds what, who waits, and who is next, by brute force over a handful of entries.

use std::collections::BTreeSet;

use mutext_contract::{Deadlock, LeaseId, Mode, Obstacle};

/// A lease or a request.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) id: LeaseId,
    pub(super) agent: usize,
    pub(super) claims: Vec<(&'static str, Mode)>,
    pub(super) keeps: Vec<LeaseId>,
    pub(super) replaces: Option<LeaseId>,
    /// Its place among the grants; `None` while it waits.
    pub(super) grant: Option<u64>,
    pub(super) lapsed: bool,
}

/// How a request must be answered at once.
#[derive(Debug)]
pub(super) enum Answer {
    Granted,
    /// By these leases, and so many requests before it.
    Blocked(BTreeSet<LeaseId>, usize),
    Queued,
    Deadlock,
}

#[derive(Debug, Default)]
pub(super) struct Reference {
    /// In the order in which they came; those that replace a lease before all others.
    entries: Vec<Entry>,
    grants: u64,
}

fn overlap(one: &str, other: &str) -> bool {
    let (one, other) = (one.trim_matches('/'), other.trim_matches('/'));
    let within = |inner: &str, outer: &str| {
        outer.is_empty() || inner == outer || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
    };
    within(one, other) || within(other, one)
}

impl Entry {
    fn stands(&self) -> bool {
        self.grant.is_some() && !self.lapsed
    }

    fn waits(&self) -> bool {
        self.grant.is_none()
    }

    fn conflicts(&self, other: &Self) -> bool {
        let both_read = |one: Mode, other: Mode| one == Mode::Shared && other == Mode::Shared;
        let meets = |(own, mode): &(&str, Mode)| {
            other.claims.iter().any(|(theirs, other)| overlap(own, theirs) && !both_read(*mode, *other))
        };
        self.claims.iter().any(meets)
    }
}

impl Reference {
    pub(super) fn leases(&self) -> Vec<&Entry> {
        self.entries.iter().filter(|entry| !entry.waits()).collect()
    }

    /// In the order in which they are to be served.
    pub(super) fn waiters(&self) -> Vec<&Entry> {
        self.entries.iter().filter(|entry| entry.waits()).collect()
    }

    fn get(&self, id: LeaseId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == id)
    }

    pub(super) fn of_agent(&self, agent: usize) -> Vec<LeaseId> {
        self.leases().iter().filter(|lease| lease.agent == agent).map(|lease| lease.id).collect()
    }

    /// The leases in a request's way, and the requests that it may not pass.
    fn before(&self, entry: &Entry) -> (Vec<&Entry>, Vec<&Entry>) {
        let in_the_way = |other: &&&Entry| other.id != entry.id && other.conflicts(entry);
        let leases: Vec<&Entry> = self.entries.iter().collect();
        let leases = leases.iter().filter(in_the_way).copied();
        let leases = leases.filter(|lease| lease.stands() && entry.replaces != Some(lease.id)).collect();
        let earlier: Vec<&Entry> = self.waiters().into_iter().take_while(|other| other.id != entry.id).collect();
        (leases, earlier.iter().filter(in_the_way).copied().collect())
    }

    /// A request comes: how it is answered, and who is granted something in the same moment.
    pub(super) fn ask(&mut self, entry: Entry, wait: bool) -> (Answer, Vec<LeaseId>) {
        let id = entry.id;
        let place = if entry.replaces.is_some() {
            self.entries
                .iter()
                .position(|other| other.waits() && other.replaces.is_none())
                .unwrap_or(self.entries.len())
        } else {
            self.entries.len()
        };
        let keeps = entry.keeps.iter().copied().chain(entry.replaces).collect::<BTreeSet<_>>();
        self.entries.insert(place, entry);
        let granted = self.settle();
        if granted.contains(&id) {
            return (Answer::Granted, granted);
        }
        let Some(own) = self.get(id) else { return (Answer::Queued, granted) };
        let (leases, requests) = self.before(own);
        let blocked = Answer::Blocked(leases.iter().map(|lease| lease.id).collect(), requests.len());
        if wait && !self.closes_a_circle(id, &keeps) {
            return (Answer::Queued, granted);
        }
        self.remove(id);
        (if wait { Answer::Deadlock } else { blocked }, granted)
    }

    /// Whether following who waits for whom leads from this request to a lease that its asker keeps.
    fn closes_a_circle(&self, id: LeaseId, keeps: &BTreeSet<LeaseId>) -> bool {
        let (mut reached, mut look_at) = (BTreeSet::from([id]), vec![id]);
        while let Some(next) = look_at.pop() {
            let Some(waiter) = self.get(next) else { continue };
            let (leases, requests) = self.before(waiter);
            if leases.iter().any(|lease| keeps.contains(&lease.id)) {
                return true;
            }
            let keepers = self.waiters().into_iter().filter(|other| {
                leases.iter().any(|lease| other.keeps.contains(&lease.id) || other.replaces == Some(lease.id))
            });
            look_at.extend(keepers.chain(requests).map(|other| other.id).filter(|other| reached.insert(*other)));
        }
        false
    }

    /// Whether each step of a circle is true, and it ends where it began. `asker` is not in the queue any more.
    pub(super) fn is_circle(&self, asker: &Entry, deadlock: &Deadlock) -> bool {
        let mut table = Self { entries: self.entries.clone(), grants: self.grants };
        let place = if asker.replaces.is_some() {
            table.entries.iter().position(|other| other.waits() && other.replaces.is_none())
        } else {
            None
        };
        table.entries.insert(place.unwrap_or(table.entries.len()), asker.clone());
        let has = |waiter: LeaseId, lease: LeaseId| {
            table.get(waiter).is_some_and(|waiter| waiter.keeps.contains(&lease) || waiter.replaces == Some(lease))
        };
        let mut expected = asker.id;
        for (index, knot) in deadlock.cycle.iter().enumerate() {
            let Some(waiter) = table.get(knot.waiter.lease).filter(|waiter| waiter.id == expected) else {
                return false;
            };
            let (leases, requests) = table.before(waiter);
            let last = index + 1 == deadlock.cycle.len();
            let next = deadlock.cycle.get(index + 1).map(|knot| knot.waiter.lease);
            match &knot.obstacle {
                Obstacle::Lease(lease) => {
                    let keeper = if last { asker.id } else { next.unwrap_or(asker.id) };
                    if !leases.iter().any(|other| other.id == lease.lease) || !has(keeper, lease.lease) {
                        return false;
                    }
                    expected = keeper;
                }
                Obstacle::Request(request) => {
                    if last || next != Some(request.lease) || !requests.iter().any(|other| other.id == request.lease) {
                        return false;
                    }
                    expected = request.lease;
                }
            }
        }
        !deadlock.cycle.is_empty() && expected == asker.id
    }

    /// An entry ends; who is granted something by that.
    pub(super) fn end(&mut self, id: LeaseId) -> Vec<LeaseId> {
        self.remove(id);
        self.settle()
    }

    pub(super) fn lapse(&mut self, id: LeaseId, lapsed: bool) -> Vec<LeaseId> {
        for entry in self.entries.iter_mut().filter(|entry| entry.id == id) {
            entry.lapsed = lapsed;
        }
        self.settle()
    }

    /// All that these agents hold and wait for ends; what it was, and who is granted something by that.
    pub(super) fn crash(&mut self, from: usize) -> (Vec<LeaseId>, Vec<LeaseId>) {
        let dead: Vec<LeaseId> =
            self.entries.iter().filter(|entry| entry.agent >= from).map(|entry| entry.id).collect();
        self.entries.retain(|entry| entry.agent < from);
        (dead, self.settle())
    }

    fn remove(&mut self, id: LeaseId) {
        self.entries.retain(|entry| entry.id != id);
    }

    /// First come, first served: a request is granted when neither a lease that stands nor a request before it is in its
    /// way. What it replaces, and lapsed leases in its way, end with that; a request whose lease is gone ends too.
    fn settle(&mut self) -> Vec<LeaseId> {
        let mut granted = Vec::new();
        loop {
            let orphan = self
                .waiters()
                .into_iter()
                .find(|waiter| waiter.replaces.is_some_and(|lease| self.get(lease).is_none_or(Entry::waits)));
            if let Some(orphan) = orphan.map(|orphan| orphan.id) {
                self.remove(orphan);
                continue;
            }
            let next = self.waiters().into_iter().find(|waiter| {
                let (leases, requests) = self.before(waiter);
                leases.is_empty() && requests.is_empty()
            });
            let Some(next) = next.cloned() else { return granted };
            self.entries.retain(|entry| {
                let taken = entry.lapsed && entry.conflicts(&next);
                entry.id == next.id || !(next.replaces == Some(entry.id) || taken)
            });
            self.grants += 1;
            for entry in self.entries.iter_mut().filter(|entry| entry.id == next.id) {
                entry.grant = Some(self.grants);
            }
            granted.push(next.id);
        }
    }
}
