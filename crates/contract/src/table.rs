//! A context's locks as others see them: who holds what, who waits, and who waits in a circle.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::{Claim, Holder, LeaseId};

/// A lease that stands, as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The lease.
    pub lease: LeaseId,
    /// Who holds it.
    pub holder: Holder,
    /// What it covers.
    pub claims: Arc<[Claim]>,
    /// Its token's epoch and counter, as it was granted. A lease that has tokens to spare may be in use under a later one.
    pub token: (u64, u64),
    /// How long it has been held.
    pub held_for: Duration,
    /// How long it lasts yet without renewal; zero where it has lapsed and nobody has taken it.
    pub remaining: Duration,
    /// What for.
    pub reason: Option<String>,
}

/// A request that queues, as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiter {
    /// The attempt.
    pub lease: LeaseId,
    /// Who waits.
    pub holder: Holder,
    /// What it asks for.
    pub claims: Arc<[Claim]>,
    /// How long it has queued.
    pub waited: Duration,
    /// What for.
    pub reason: Option<String>,
    /// Leases that it keeps while it waits.
    pub keeps: Vec<LeaseId>,
    /// The lease that it is to take the place of.
    pub replaces: Option<LeaseId>,
}

impl Waiter {
    /// Whether this lease stays until the request is settled.
    pub fn has(&self, lease: LeaseId) -> bool {
        self.replaces == Some(lease) || self.keeps.contains(&lease)
    }
}

/// A context's locks at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockTable {
    /// Leases that stand, oldest grant first.
    pub holdings: Vec<Holding>,
    /// Requests that queue, in the order in which they are to be served.
    pub waiters: Vec<Waiter>,
}

impl LockTable {
    /// What is in a queued request's way, and how many are before it; `None` where no such request queues.
    pub fn position(&self, request: LeaseId) -> Option<Blocked> {
        let place = self.waiters.iter().position(|waiter| waiter.lease == request)?;
        let waiter = self.waiters.get(place)?;
        let holdings = self.leases_before(waiter).cloned().collect();
        let before = self.waiters[..place].iter().filter(|other| conflict(&other.claims, &waiter.claims));
        Some(Blocked { holdings, ahead: before.count() })
    }

    /// The cycle that `request` closes, where it does: see [`Deadlock`].
    pub fn deadlock(&self, request: LeaseId) -> Option<Deadlock> {
        let place = self.waiters.iter().position(|waiter| waiter.lease == request)?;
        let asker = self.waiters.get(place)?;
        if asker.keeps.is_empty() && asker.replaces.is_none() {
            // Nobody can wait for it.
            return None;
        }
        let mut known = vec![false; self.waiters.len()];
        let mut cycle = Vec::new();
        self.follow(place, asker, &mut known, &mut cycle).then_some(Deadlock { cycle })
    }

    /// Looks behind the waiter at `place` for a lease that `asker` keeps; `cycle` is the way there.
    fn follow(&self, place: usize, asker: &Waiter, known: &mut [bool], cycle: &mut Vec<Knot>) -> bool {
        known[place] = true;
        let waiter = &self.waiters[place];
        for lease in self.leases_before(waiter) {
            cycle.push(Knot { waiter: waiter.clone(), obstacle: Obstacle::Lease(lease.clone()) });
            if asker.has(lease.lease) {
                return true;
            }
            for next in 0..self.waiters.len() {
                if !known[next] && self.waiters[next].has(lease.lease) && self.follow(next, asker, known, cycle) {
                    return true;
                }
            }
            cycle.pop();
        }
        for next in 0..place {
            if known[next] || !conflict(&self.waiters[next].claims, &waiter.claims) {
                continue;
            }
            cycle.push(Knot { waiter: waiter.clone(), obstacle: Obstacle::Request(self.waiters[next].clone()) });
            if self.follow(next, asker, known, cycle) {
                return true;
            }
            cycle.pop();
        }
        false
    }

    /// The leases in a waiter's way. One that has lapsed is in nobody's, its own is not in its own.
    fn leases_before<'a>(&'a self, waiter: &'a Waiter) -> impl Iterator<Item = &'a Holding> {
        let in_the_way = |lease: &&Holding| {
            !lease.remaining.is_zero()
                && waiter.replaces != Some(lease.lease)
                && conflict(&waiter.claims, &lease.claims)
        };
        self.holdings.iter().filter(in_the_way)
    }
}

/// Whether any of the one conflicts with any of the other.
fn conflict(one: &[Claim], other: &[Claim]) -> bool {
    one.iter().any(|claim| other.iter().any(|theirs| claim.conflicts(theirs)))
}

/// What somebody in a cycle waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// A lease; the next in the cycle keeps it, and the last is kept by whoever asked.
    Lease(Holding),
    /// A request that came before; it is the next in the cycle.
    Request(Waiter),
}

/// One step of a cycle: who waits, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Knot {
    /// Who waits.
    pub waiter: Waiter,
    /// What for.
    pub obstacle: Obstacle,
}

/// A circle of requests that wait for each other: none of them could ever be granted, unless somebody gives way.
///
/// It begins with the request that closed it, which is not queued any more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deadlock {
    /// Who waits for whom.
    pub cycle: Vec<Knot>,
}

impl fmt::Display for Deadlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Knot { waiter, obstacle }) in self.cycle.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{} waits for {}", waiter.holder, resources(&waiter.claims))?;
            match obstacle {
                Obstacle::Lease(lease) => {
                    write!(f, ", and {} holds {}", lease.holder, resources(&lease.claims))?;
                    if let Some(reason) = &lease.reason {
                        write!(f, " ({reason})")?;
                    }
                }
                Obstacle::Request(before) => {
                    write!(f, " behind {}, who came before", before.holder)?;
                }
            }
        }
        Ok(())
    }
}

fn resources(claims: &[Claim]) -> String {
    claims.iter().map(|claim| claim.resource.as_str()).collect::<Vec<_>>().join(", ")
}

/// Why a request was not granted in time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blocked {
    /// The leases in its way.
    pub holdings: Vec<Holding>,
    /// How many requests were ahead of it in the queue.
    pub ahead: usize,
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.holdings.is_empty() {
            write!(f, "no lease is in the way")?;
        }
        for (index, holding) in self.holdings.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(
                f,
                "{separator}{} holds {} for {:.1?}",
                holding.holder,
                resources(&holding.claims),
                holding.held_for
            )?;
            if let Some(reason) = &holding.reason {
                write!(f, " ({reason})")?;
            }
            write!(f, ", lease good for {:.1?} yet", holding.remaining)?;
        }
        match self.ahead {
            0 => Ok(()),
            1 => write!(f, "; 1 request is ahead in the queue"),
            n => write!(f, "; {n} requests are ahead in the queue"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AgentName, Mode};
    use Mode::{Exclusive as X, Shared as S};

    fn id(number: u8) -> LeaseId {
        LeaseId::from_bytes([number; 16])
    }

    fn holder(name: &str) -> Holder {
        Holder::new(AgentName::new(name).unwrap())
    }

    fn claims(claims: &[(&str, Mode)]) -> Arc<[Claim]> {
        claims.iter().map(|(path, mode)| Claim { resource: path.parse().unwrap(), mode: *mode }).collect()
    }

    fn held(number: u8, by: &str, what: &[(&str, Mode)]) -> Holding {
        let (held_for, remaining) = (Duration::from_secs(3), Duration::from_secs(7));
        let token = (1, u64::from(number));
        Holding {
            lease: id(number),
            holder: holder(by),
            claims: claims(what),
            token,
            held_for,
            remaining,
            reason: None,
        }
    }

    fn waits(number: u8, by: &str, what: &[(&str, Mode)], keeps: &[u8]) -> Waiter {
        let keeps = keeps.iter().copied().map(id).collect();
        let waited = Duration::from_secs(1);
        let (claims, replaces) = (claims(what), None);
        Waiter { lease: id(number), holder: holder(by), claims, waited, reason: None, keeps, replaces }
    }

    #[test]
    fn two_who_wait_for_each_other_are_a_cycle() {
        let table = LockTable {
            holdings: vec![held(1, "anna", &[("a", X)]), held(2, "bert", &[("b", X)])],
            waiters: vec![waits(3, "anna", &[("b", X)], &[1]), waits(4, "bert", &[("a", X)], &[2])],
        };
        let deadlock = table.deadlock(id(4)).unwrap();
        assert_eq!(deadlock.to_string(), "bert waits for a, and anna holds a; anna waits for b, and bert holds b");
        assert!(LockTable { waiters: table.waiters[..1].to_vec(), ..table }.deadlock(id(3)).is_none());
    }

    #[test]
    fn whoever_waits_for_itself_is_a_cycle_of_one() {
        let table = LockTable {
            holdings: vec![held(1, "anna", &[("tasks", X)])],
            waiters: vec![waits(2, "anna", &[("tasks/17", S)], &[1])],
        };
        assert_eq!(table.deadlock(id(2)).unwrap().to_string(), "anna waits for tasks/17, and anna holds tasks");
    }

    #[test]
    fn a_request_that_came_before_is_waited_for_too() {
        let table = LockTable {
            holdings: vec![held(1, "anna", &[("a", S)])],
            waiters: vec![waits(2, "bert", &[("a", X)], &[]), waits(3, "anna", &[("a", S)], &[1])],
        };
        let said = table.deadlock(id(3)).unwrap().to_string();
        assert_eq!(said, "anna waits for a behind bert, who came before; bert waits for a, and anna holds a");
    }

    #[test]
    fn two_readers_who_both_want_to_write_are_a_cycle() {
        let upgrade =
            |number, by, replaces| Waiter { replaces: Some(id(replaces)), ..waits(number, by, &[("a", X)], &[]) };
        let mut table = LockTable {
            holdings: vec![held(1, "anna", &[("a", S)]), held(2, "bert", &[("a", S)])],
            waiters: vec![upgrade(3, "anna", 1)],
        };
        assert!(table.deadlock(id(3)).is_none());
        table.waiters.push(upgrade(4, "bert", 2));
        assert_eq!(table.deadlock(id(4)).unwrap().cycle.len(), 2);
    }

    #[test]
    fn a_lapsed_lease_and_a_request_that_keeps_nothing_close_no_cycle() {
        let mut table = LockTable {
            holdings: vec![held(1, "anna", &[("a", X)]), held(2, "bert", &[("b", X)])],
            waiters: vec![waits(3, "anna", &[("b", X)], &[1]), waits(4, "bert", &[("a", X)], &[])],
        };
        assert!(table.deadlock(id(4)).is_none());
        table.waiters[1].keeps = vec![id(2)];
        table.holdings[0].remaining = Duration::ZERO;
        assert!(table.deadlock(id(4)).is_none());
    }

    #[test]
    fn a_position_counts_those_who_may_not_be_passed() {
        let table = LockTable {
            holdings: vec![held(1, "anna", &[("a", X)]), held(2, "bert", &[("b", X)])],
            waiters: vec![
                waits(3, "carl", &[("a/1", X)], &[]),
                waits(4, "dora", &[("b", X)], &[]),
                waits(5, "emil", &[("a", S)], &[]),
            ],
        };
        let position = table.position(id(5)).unwrap();
        assert_eq!((position.ahead, position.holdings.len()), (1, 1));
        assert_eq!(table.position(id(9)), None);
    }
}
