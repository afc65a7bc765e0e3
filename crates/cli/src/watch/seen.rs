//! What the looks add up to: grants, changed holders and the longest wait, as far as looks can see them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use mutext::{HolderId, LeaseId, LockTable, Resource};
use serde_json::{Value, json};

use crate::error::milliseconds;

/// What was seen over the time watched. A lease that came and went between two looks is in none of it: these are lower
/// bounds, which a smaller `--every` raises.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    /// Looks that were answered.
    pub(crate) looks: u64,
    /// Leases that were not there at the look before; those of the first look are nobody's news.
    pub(crate) grants: u64,
    /// Resources that at two looks in a row were held, and by none of the same holders.
    pub(crate) holders_changed: u64,
    /// The longest that any request had queued when it was seen.
    pub(crate) longest_wait: Duration,
    leases: HashSet<LeaseId>,
    holders: HashMap<Resource, HashSet<HolderId>>,
}

impl Seen {
    /// Counts what is new in `table`.
    pub(crate) fn add(&mut self, table: &LockTable) {
        let leases: HashSet<LeaseId> = table.holdings.iter().map(|lease| lease.lease).collect();
        let mut holders: HashMap<Resource, HashSet<HolderId>> = HashMap::new();
        for lease in &table.holdings {
            for claim in lease.claims.iter() {
                holders.entry(claim.resource.clone()).or_default().insert(lease.holder.id);
            }
        }
        if self.looks > 0 {
            self.grants += leases.difference(&self.leases).count() as u64;
            let changed = |(resource, now): &(&Resource, &HashSet<HolderId>)| {
                self.holders.get(*resource).is_some_and(|before| before.is_disjoint(now))
            };
            self.holders_changed += holders.iter().filter(changed).count() as u64;
        }
        let longest = table.waiters.iter().map(|waiter| waiter.waited).max().unwrap_or_default();
        self.longest_wait = self.longest_wait.max(longest);
        self.looks += 1;
        (self.leases, self.holders) = (leases, holders);
    }

    pub(crate) fn to_json(&self, watched: Duration) -> Value {
        json!({
            "for_ms": milliseconds(watched),
            "looks": self.looks,
            "grants": self.grants,
            "holders_changed": self.holders_changed,
            "longest_wait_ms": milliseconds(self.longest_wait),
        })
    }
}

/// How many of them a minute; nothing while so little time has passed that the number would mean nothing.
pub(crate) fn per_minute(count: u64, watched: Duration) -> Option<f64> {
    (watched >= Duration::from_secs(10)).then(|| count as f64 * 60.0 / watched.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::{holding, waiter};
    use super::*;

    #[test]
    fn what_was_there_at_the_first_look_is_no_grant() {
        let mut seen = Seen::default();
        let plan = holding("plan.md", "planner");
        seen.add(&LockTable { holdings: vec![plan.clone()], waiters: vec![waiter("plan.md", "critic", 3)] });
        assert_eq!((seen.grants, seen.holders_changed), (0, 0));
        seen.add(&LockTable { holdings: vec![plan], waiters: vec![] });
        assert_eq!((seen.grants, seen.holders_changed), (0, 0), "it is the same lease");
        let (handed_over, elsewhere) = (holding("plan.md", "critic"), holding("tasks", "planner"));
        seen.add(&LockTable { holdings: vec![handed_over, elsewhere], waiters: vec![] });
        assert_eq!((seen.grants, seen.holders_changed), (2, 1));
        assert_eq!((seen.looks, seen.longest_wait), (3, Duration::from_secs(3)));
    }

    #[test]
    fn a_reader_that_joins_another_changes_no_holder() {
        let mut seen = Seen::default();
        let first = holding("plan.md", "planner");
        seen.add(&LockTable { holdings: vec![first.clone()], waiters: vec![] });
        seen.add(&LockTable { holdings: vec![first, holding("plan.md", "critic")], waiters: vec![] });
        assert_eq!((seen.grants, seen.holders_changed), (1, 0));
    }

    #[test]
    fn a_rate_needs_time() {
        assert_eq!(per_minute(3, Duration::from_secs(2)), None);
        assert_eq!(per_minute(3, Duration::from_secs(90)), Some(2.0));
    }
}
