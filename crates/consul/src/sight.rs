//! What this process has seen of a context's leases: since when each has stood as it stands, by its own monotonic clock.
//!
//! A lease ends only after somebody has watched it unchanged for its whole TTL. It was written before it was first
//! seen, and its holder counts from before it asked for that: so the holder stops believing first, and no two
//! machines need to agree on the time. They need to agree on how long a second is, to within a part in a thousand.

use std::collections::HashMap;

use mutext_contract::LeaseId;
use tokio::time::Instant;

use crate::table::{Row, Table};

/// How much faster than another a clock may run: one part in so many.
const DRIFT: u32 = 1_000;

struct Seen {
    beat: u64,
    held: bool,
    at: Instant,
}

/// Since when rows have stood as they stand.
pub(crate) struct Sight {
    began: Instant,
    seen: HashMap<LeaseId, Seen>,
}

impl Sight {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), seen: HashMap::new() }
    }

    /// A moment on this process's clock.
    pub(crate) fn ns(&self, at: Instant) -> i64 {
        i64::try_from(at.saturating_duration_since(self.began).as_nanos()).unwrap_or(i64::MAX)
    }

    pub(crate) fn now_ns(&self) -> i64 {
        self.ns(Instant::now())
    }

    /// Takes note of a version that has arrived by now.
    pub(crate) fn note(&mut self, table: &Table) {
        let now = Instant::now();
        self.seen.retain(|id, _| table.row(*id).is_some());
        for row in &table.rows {
            let (beat, held) = (row.beat, row.held.is_some());
            let seen = self.seen.entry(row.id).or_insert(Seen { beat, held, at: now });
            if (seen.beat, seen.held) != (beat, held) {
                *seen = Seen { beat, held, at: now };
            }
        }
    }

    /// Until when it stands if nothing changes. What has not been seen yet has all of its time before it.
    pub(crate) fn until(&self, row: &Row) -> Instant {
        let known = self.seen.get(&row.id).filter(|seen| (seen.beat, seen.held) == (row.beat, row.held.is_some()));
        let lasts = row.lasts() + row.lasts() / DRIFT;
        known.map_or_else(Instant::now, |seen| seen.at) + lasts
    }

    pub(crate) fn until_ns(&self, row: &Row) -> i64 {
        self.ns(self.until(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Held;
    use mutext_contract::{AgentName, ContextName, Holder, LockRequest, Ttl};
    use std::time::Duration;

    #[test]
    fn a_lease_that_is_asked_for_again_under_its_old_name_is_not_taken_for_what_it_was() {
        let holder = Holder::new(AgentName::new("anna").unwrap());
        let context = ContextName::new("c").unwrap();
        let request = LockRequest::exclusive(context, holder, Ttl::DEFAULT, "plan.md".parse().unwrap());
        let granted = || {
            let mut row = Row::new(&request, "home", Duration::from_secs(1));
            row.held = Some(Held { epoch: 1, at: None, nth: 0, confirmed: true, lapsed: false });
            row.beat += 1;
            row
        };
        let mut sight = Sight::new();
        let (mut table, first) = (Table::new(1), granted());
        table.rows = vec![first.clone()];
        sight.note(&table);
        std::thread::sleep(Duration::from_millis(20));
        // It went and came back, and this process saw neither.
        let again = granted();
        table.rows = vec![again.clone()];
        sight.note(&table);
        assert!(sight.until(&again) >= Instant::now() + first.lasts() - Duration::from_millis(10));
    }
}
