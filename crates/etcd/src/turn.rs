//! Whose turn it is, as one request sees it: a pure function of the table at one revision.

use mutext_contract::LeaseId;
use mutext_contract::queue;

use crate::records::{NOW_NS, Row, Table};

/// Leases that one grant may take away: a transaction has room for so many.
pub(crate) const SUPERSEDED_MAX: usize = 30;
/// Leases that a waiter knows all of: whoever waits for more looks again before it asks to be granted.
const KNOWN_MAX: usize = 16;

/// What a request is to do.
#[derive(Debug)]
pub(crate) enum Turn {
    /// It is not in the queue.
    Absent,
    /// The lease that it was to take the place of is no more.
    Orphan,
    /// Nothing is in its way; these leases, which have lapsed, go.
    Now(Vec<Row>),
    /// It waits until this one goes.
    Later(Ahead),
}

/// What a request waits for next.
#[derive(Debug)]
pub(crate) struct Ahead {
    pub(crate) kind: Kind,
    /// What is in its way: the last of them is what it waits for.
    pub(crate) rows: Vec<Row>,
    /// Whether that is leases alone, and nobody is before it in the queue: once they are gone it is its turn, whatever
    /// else came since, unless somebody came to replace a lease.
    pub(crate) is_all: bool,
}

/// Why one waits for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is a lease in the way.
    Lease,
    /// It is a request in the way that came before.
    Request,
    /// It is in nobody's way, and came before: it is granted first, so that tokens grow in the order of the queue.
    Courtesy,
}

/// Whether a request waits for a lease that is no more: its process will take it out, and nobody waits for it.
fn is_orphan(table: &Table, row: &Row) -> bool {
    row.about.replaces.is_some_and(|lease| table.lease(lease).is_none())
}

/// What `id` is to do. `yields` says whether it lets those go first that came before it, are in nobody's way, and whose turn
/// it is as well.
pub(crate) fn of(table: &Table, id: LeaseId, yields: impl FnOnce(&[&Row]) -> bool) -> Turn {
    let Some(place) = table.waiting.iter().position(|row| row.id == id) else { return Turn::Absent };
    let own = &table.waiting[place];
    if is_orphan(table, own) {
        return Turn::Orphan;
    }
    let before: Vec<&Row> = table.waiting[..place].iter().filter(|row| !is_orphan(table, row)).collect();
    if let Some(row) = before.iter().rev().find(|row| row.entry.conflicts(&own.entry)) {
        // The nearest: when it goes, because it is granted or gives up, the next look finds what it left.
        return later(Kind::Request, vec![(*row).clone()], false);
    }
    let in_the_way = |row: &&Row| row.entry.conflicts(&own.entry);
    let (stand, lapsed): (Vec<&Row>, Vec<&Row>) =
        table.held.iter().filter(in_the_way).partition(|row| row.entry.stands(NOW_NS));
    if !stand.is_empty() {
        let is_all = before.is_empty() && stand.len() <= KNOWN_MAX && lapsed.is_empty();
        return later(Kind::Lease, stand.into_iter().take(KNOWN_MAX).cloned().collect(), is_all);
    }
    if !before.is_empty() {
        let entries: Vec<_> = table.held.iter().chain(before.iter().copied()).map(|row| row.entry.clone()).collect();
        let settlement = queue::settle(&entries, NOW_NS);
        let due: Vec<&Row> = before.iter().copied().filter(|row| settlement.granted.contains(&row.id)).collect();
        if let Some(nearest) = due.last()
            && yields(&due)
        {
            return later(Kind::Courtesy, vec![(*nearest).clone()], false);
        }
    }
    Turn::Now(lapsed.into_iter().cloned().collect())
}

fn later(kind: Kind, rows: Vec<Row>, is_all: bool) -> Turn {
    Turn::Later(Ahead { kind, rows, is_all })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mutext_contract::{AgentName, Claim, ContextName, Holder, LockRequest, Mode, Ttl};
    use proptest::prelude::*;

    use super::*;
    use crate::keys::{Class, Keys};
    use crate::options::EtcdOptions;
    use crate::records::About;
    use crate::wire::KeyValue;

    use Mode::{Exclusive as X, Shared as S};

    struct Fixture {
        keys: Keys,
        context: ContextName,
        kvs: Vec<KeyValue>,
    }

    impl Fixture {
        fn new() -> Self {
            let keys = Keys::new(&EtcdOptions::parse("etcd://h").unwrap());
            Self { keys, context: ContextName::new("c").unwrap(), kvs: Vec::new() }
        }

        /// An entry of the next revision.
        fn add(&mut self, class: Class, claims: &[(&str, Mode)], replaces: Option<LeaseId>, lapsed: bool) -> LeaseId {
            let claims = claims.iter().map(|(path, mode)| Claim { resource: path.parse().unwrap(), mode: *mode });
            let holder = Holder::new(AgentName::new("a").unwrap());
            let mut request = LockRequest::new(self.context.clone(), holder, Ttl::DEFAULT, claims).unwrap();
            request.replaces = replaces;
            let mut about = About::of(&request, Duration::from_secs(1));
            about.lapsed = lapsed;
            let revision = 10 + i64::try_from(self.kvs.len()).unwrap();
            let key = self.keys.entry(&self.context, class, request.lease);
            let value = about.text();
            self.kvs.push(KeyValue { key, create_revision: revision, mod_revision: revision, value, lease: 7 });
            request.lease
        }

        fn table(&self) -> Table {
            Table::read("test", &self.keys, &self.context, &self.kvs, 100).unwrap()
        }

        fn turn(&self, id: LeaseId) -> Turn {
            of(&self.table(), id, |_| true)
        }
    }

    fn ahead(turn: Turn) -> (LeaseId, Kind) {
        match turn {
            Turn::Later(ahead) => (ahead.rows.last().unwrap().id, ahead.kind),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_waiter_waits_for_its_nearest_predecessor() {
        let mut f = Fixture::new();
        let held = f.add(Class::Held, &[("a", X)], None, false);
        let [first, second] = [(); 2].map(|()| f.add(Class::Waiting, &[("a", X)], None, false));
        assert_eq!(ahead(f.turn(first)), (held, Kind::Lease));
        assert_eq!(ahead(f.turn(second)), (first, Kind::Request));
    }

    #[test]
    fn who_came_before_and_is_in_nobodys_way_is_granted_first() {
        let mut f = Fixture::new();
        let first = f.add(Class::Waiting, &[("a", X)], None, false);
        let second = f.add(Class::Waiting, &[("b", X)], None, false);
        assert!(matches!(f.turn(first), Turn::Now(_)));
        assert_eq!(ahead(f.turn(second)), (first, Kind::Courtesy));
        let third = f.add(Class::Waiting, &[("c", X)], None, false);
        assert_eq!(ahead(f.turn(third)), (second, Kind::Courtesy));
        let yields = |due: &[&Row]| due.iter().map(|row| row.id).ne([first, second]);
        assert!(matches!(of(&f.table(), third, yields), Turn::Now(_)));
    }

    #[test]
    fn a_lapsed_lease_goes_with_the_grant_that_wants_its_resource() {
        let mut f = Fixture::new();
        let lapsed = f.add(Class::Held, &[("a", X)], None, true);
        f.add(Class::Held, &[("b", X)], None, true);
        let own = f.add(Class::Waiting, &[("a/b", X)], None, false);
        let Turn::Now(superseded) = f.turn(own) else { panic!("{:?}", f.turn(own)) };
        assert_eq!(superseded.iter().map(|row| row.id).collect::<Vec<_>>(), [lapsed]);
    }

    #[test]
    fn who_is_to_replace_a_lease_of_its_own_comes_before_those_who_wait_for_it() {
        let mut f = Fixture::new();
        let own = f.add(Class::Held, &[("a", S)], None, false);
        let writer = f.add(Class::Waiting, &[("a", X)], None, false);
        let upgrade = f.add(Class::Convert, &[("a", X)], Some(own), false);
        assert!(matches!(f.turn(upgrade), Turn::Now(superseded) if superseded.is_empty()));
        assert_eq!(ahead(f.turn(writer)), (upgrade, Kind::Request));
        let orphan = f.add(Class::Convert, &[("a", X)], Some(LeaseId::random()), false);
        assert!(matches!(f.turn(orphan), Turn::Orphan));
        assert!(matches!(f.turn(LeaseId::random()), Turn::Absent));
    }

    /// Whether it is held, and lapsed then; and what it claims.
    type Plan = (bool, bool, Vec<(&'static str, Mode)>);

    fn entries() -> impl Strategy<Value = Vec<Plan>> {
        let claim = (prop::sample::select(vec!["/", "a", "a/b", "a/c", "b"]), prop::sample::select(vec![S, X]));
        prop::collection::vec((any::<bool>(), any::<bool>(), prop::collection::vec(claim, 1..3)), 0..10)
    }

    proptest! {
        /// Whose turn it is is exactly who the contract's rule grants first; with each grant made in turn, all whom the
        /// rule grants are granted, in its order.
        #[test]
        fn it_is_the_turn_of_whom_the_rule_of_the_queue_grants(entries in entries()) {
            let mut f = Fixture::new();
            let mut held: Vec<LeaseId> = Vec::new();
            for (is_held, lapsed, claims) in entries {
                // Leases that stand do not conflict.
                let before = f.table();
                let id = f.add(if is_held { Class::Held } else { Class::Waiting }, &claims, None, is_held && lapsed);
                let table = f.table();
                if is_held {
                    let own = table.lease(id).unwrap();
                    if !lapsed && before.held.iter().any(|row| !row.about.lapsed && row.entry.conflicts(&own.entry)) {
                        f.kvs.pop();
                    } else {
                        held.push(id);
                    }
                }
            }
            let expected = queue::settle(&f.table().entries(), NOW_NS).granted;
            let mut found = Vec::new();
            loop {
                let table = f.table();
                let turns = table.waiting.iter().filter_map(|row| match of(&table, row.id, |_| true) {
                    Turn::Now(superseded) => Some((row.clone(), superseded)),
                    _ => None,
                });
                let turns: Vec<_> = turns.collect();
                let Some((row, superseded)) = turns.first() else { break };
                prop_assert_eq!(turns.len(), 1, "two at once");
                found.push(row.id);
                let key = f.keys.entry(&f.context, Class::Held, row.id);
                let granted = f.kvs.iter_mut().find(|kv| kv.key == row.key).unwrap();
                granted.key = key;
                granted.create_revision = 50 + i64::try_from(found.len()).unwrap();
                f.kvs.retain(|kv| !superseded.iter().any(|row| row.key == kv.key));
            }
            prop_assert_eq!(found, expected);
        }
    }
}
