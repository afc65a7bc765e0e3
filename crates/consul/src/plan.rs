//! The next version of a table: what is asked for, decided on a copy. Nothing here asks Consul anything.

use std::collections::BTreeSet;

use mutext_contract::queue;
use mutext_contract::{AgentName, Blocked, Deadlock, LeaseId, Loss, Release};

use crate::sight::Sight;
use crate::table::{Held, Row, Table, wall_ms};

/// How a request stands in the next version.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It is granted.
    Granted,
    /// It waits.
    Queued,
    /// It was not to wait; nothing of it is in the table.
    Blocked(Blocked),
    /// It would close a circle; nothing of it is in the table.
    Deadlock(Deadlock),
}

/// A copy of a table that is changed step by step, each as if it were alone.
pub(crate) struct Draft<'a> {
    pub(crate) table: Table,
    pub(crate) changed: bool,
    /// The processes that must be told: something of theirs was granted or taken.
    pub(crate) told: BTreeSet<String>,
    home: &'a str,
    sight: &'a Sight,
    grants: u32,
}

impl<'a> Draft<'a> {
    /// From a version, by the process that lives at `home`.
    pub(crate) fn new(table: &Table, home: &'a str, sight: &'a Sight) -> Self {
        Self { table: table.clone(), changed: false, told: BTreeSet::new(), home, sight, grants: 0 }
    }

    fn tell(&mut self, home: &str) {
        if home != self.home {
            self.told.insert(home.to_owned());
        }
    }

    /// Begins an epoch: earlier tokens are behind, leases stand.
    pub(crate) fn begin(&mut self, epoch: u64) {
        self.table.epoch = epoch;
        self.changed = true;
    }

    /// Takes out all that lived at `home`.
    pub(crate) fn bury(&mut self, home: &str) {
        let before = self.table.rows.len();
        self.table.rows.retain(|row| row.home != home);
        if self.table.rows.len() != before {
            self.changed = true;
            self.settle();
        }
    }

    /// Of what lived at an earlier home of this process, leases end, and requests go on from here where somebody still
    /// waits for them.
    pub(crate) fn move_from(&mut self, earlier: &str, goes_on: impl Fn(LeaseId) -> bool) {
        if !self.table.rows.iter().any(|row| row.home == earlier) {
            return;
        }
        self.table.rows.retain(|row| row.home != earlier || (row.held.is_none() && goes_on(row.id)));
        for row in self.table.rows.iter_mut().filter(|row| row.home == earlier) {
            self.home.clone_into(&mut row.home);
            row.beat += 1;
        }
        self.changed = true;
        self.settle();
    }

    /// Makes a lease last again, also one that has lapsed and that nobody has taken.
    pub(crate) fn renew(&mut self, id: LeaseId, ttl_ms: u64) -> Result<(), Loss> {
        let Some(row) = self.table.row_mut(id) else { return Err(self.table.loss(id)) };
        let Some(held) = row.held.as_mut() else { return Err(Loss::Expired) };
        (held.confirmed, held.lapsed) = (true, false);
        row.ttl_ms = ttl_ms;
        row.beat += 1;
        self.changed = true;
        Ok(())
    }

    /// Ends a lease or an attempt; with somebody's name, its holder is told.
    pub(crate) fn release(&mut self, id: LeaseId, by: Option<(AgentName, String)>) -> Release {
        let Some(row) = self.table.remove(id) else { return Release::NotHeld };
        self.changed = true;
        // Its asker may still wait elsewhere, and must not take the missing row for a lost turn.
        let may_wait = row.home != self.home && row.held.as_ref().is_none_or(|held| !held.confirmed);
        if by.is_some() || may_wait {
            self.table.end(id, by);
            self.tell(&row.home);
        }
        self.settle();
        Release::Released
    }

    /// Leaves the queue: what was in the way, where it waited.
    pub(crate) fn leave(&mut self, id: LeaseId) -> Blocked {
        let blocked = self.position(id);
        if self.table.remove(id).is_some() {
            self.changed = true;
            self.settle();
        }
        blocked
    }

    /// Asks for what `row` says; `last` says that it is not to wait.
    pub(crate) fn ask(&mut self, row: Row, last: bool) -> Asked {
        let (id, keeps) = (row.id, row.replaces.is_some() || !row.keeps.is_empty());
        let may_go = last || keeps;
        let before = may_go.then(|| (self.table.clone(), self.changed, self.told.clone(), self.grants));
        self.table.rows.push(row);
        self.changed = true;
        self.settle();
        if self.table.row(id).is_some_and(|row| row.held.is_some()) {
            return Asked::Granted;
        }
        // Nobody can wait for a request that keeps nothing.
        let Some(before) = before else { return Asked::Queued };
        let outcome = if last { Some(Asked::Blocked(self.position(id))) } else { None };
        let Some(outcome) = outcome.or_else(|| self.picture().deadlock(id).map(Asked::Deadlock)) else {
            return Asked::Queued;
        };
        // As if it had not come: nobody need write that down.
        (self.table, self.changed, self.told, self.grants) = before;
        outcome
    }

    /// The process of a lease that another granted knows of it now.
    pub(crate) fn confirm(&mut self, id: LeaseId) {
        if let Some(row) = self.table.row_mut(id)
            && let Some(held) = row.held.as_mut()
        {
            (held.confirmed, held.lapsed) = (true, false);
            row.beat += 1;
            self.changed = true;
        }
    }

    /// Writes down which leases have stood unchanged for their whole TTL, for those who have not watched so long, and
    /// serves those who waited for one of them.
    pub(crate) fn mark_lapsed(&mut self) {
        let now_ns = self.sight.now_ns();
        let sight = self.sight;
        let mut any = false;
        for row in &mut self.table.rows {
            let over = sight.until_ns(row) <= now_ns;
            if let Some(held) = row.held.as_mut().filter(|held| over && !held.lapsed) {
                held.lapsed = true;
                any = true;
            }
        }
        if any {
            self.changed = true;
            self.settle();
        }
    }

    /// Whether somebody can be served, or is to go, as things stand.
    pub(crate) fn is_ripe(table: &Table, sight: &Sight) -> bool {
        let now_ns = sight.now_ns();
        let settlement = queue::settle(&table.entries(now_ns, |row| sight.until_ns(row)), now_ns);
        table.epoch != 0 && settlement != queue::Settlement::default()
    }

    fn picture(&self) -> mutext_contract::LockTable {
        self.table.picture(self.sight.now_ns(), |row| self.sight.until_ns(row))
    }

    fn position(&self, id: LeaseId) -> Blocked {
        self.picture().position(id).unwrap_or_default()
    }

    /// Does what the state machine says.
    pub(crate) fn settle(&mut self) {
        if self.table.epoch == 0 {
            // There is no token to be had: whoever waits begins an epoch first.
            return;
        }
        let now_ns = self.sight.now_ns();
        let entries = self.table.entries(now_ns, |row| self.sight.until_ns(row));
        let settlement = queue::settle(&entries, now_ns);
        for id in settlement.superseded.iter().chain(&settlement.replaced).chain(&settlement.gone) {
            if let Some(row) = self.table.remove(*id) {
                self.changed = true;
                self.tell(&row.home);
            }
        }
        let (epoch, own) = (self.table.epoch, self.home);
        for id in settlement.granted {
            let nth = self.grants;
            let Some(row) = self.table.row_mut(id) else { continue };
            row.held = Some(Held { epoch, at: None, nth, confirmed: row.home == own, lapsed: false });
            row.since_ms = wall_ms();
            row.wait_ms = 0;
            row.beat += 1;
            let home = row.home.clone();
            self.grants += 1;
            self.changed = true;
            self.tell(&home);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutext_contract::{ContextName, Holder, LockRequest, Ttl};
    use std::time::Duration;

    fn row(path: &str, home: &str) -> Row {
        let holder = Holder::new(AgentName::new(home).unwrap());
        let context = ContextName::new("c").unwrap();
        let request = LockRequest::exclusive(context, holder, Ttl::DEFAULT, path.parse().unwrap());
        Row::new(&request, home, Duration::from_secs(5))
    }

    #[test]
    fn a_release_makes_the_next_the_owner_and_tells_its_process() {
        let sight = Sight::new();
        let mut draft = Draft::new(&Table::new(1), "here", &sight);
        let (first, second) = (row("plan", "here"), row("plan", "there"));
        let ids = (first.id, second.id);
        assert_eq!(draft.ask(first, false), Asked::Granted);
        assert_eq!(draft.ask(second, false), Asked::Queued);
        assert_eq!(draft.release(ids.0, None), Release::Released);
        let held = draft.table.row(ids.1).unwrap().held.clone().unwrap();
        assert!(!held.confirmed && held.nth == 1);
        assert_eq!(draft.told, BTreeSet::from(["there".to_owned()]));
        // Its own lease leaves nothing behind.
        assert!(draft.table.ended.is_empty());
    }

    #[test]
    fn one_try_in_vain_changes_nothing() {
        let sight = Sight::new();
        let mut draft = Draft::new(&Table::new(1), "here", &sight);
        draft.ask(row("plan", "there"), false);
        let held = draft.table.clone();
        draft.changed = false;
        assert!(matches!(draft.ask(row("plan", "here"), true), Asked::Blocked(blocked) if blocked.holdings.len() == 1));
        assert!(!draft.changed);
        assert_eq!(draft.table, held);
    }

    #[test]
    fn whoever_lost_its_home_keeps_its_place_and_loses_its_leases() {
        let sight = Sight::new();
        let mut draft = Draft::new(&Table::new(1), "new", &sight);
        let (lease, waiter, behind) = (row("a", "old"), row("a", "old"), row("a", "there"));
        let (lease_id, waiter_id) = (lease.id, waiter.id);
        for row in [lease, waiter, behind] {
            draft.ask(row, false);
        }
        draft.move_from("old", |id| id == waiter_id);
        assert!(draft.table.row(lease_id).is_none());
        let next = draft.table.row(waiter_id).unwrap();
        assert!(next.home == "new" && next.held.as_ref().unwrap().confirmed);
    }

    #[test]
    fn nothing_is_granted_without_an_epoch() {
        let sight = Sight::new();
        let mut draft = Draft::new(&Table::new(0), "here", &sight);
        assert_eq!(draft.ask(row("a", "here"), false), Asked::Queued);
        draft.begin(4);
        draft.settle();
        assert_eq!(draft.table.rows[0].held.as_ref().unwrap().epoch, 4);
    }
}
