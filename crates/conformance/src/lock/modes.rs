//! Shared and exclusive leases, subtrees, and several resources at once.

use std::time::Duration;

use mutext_contract::{Acquisition, Effect, Fairness, Mode};

use crate::LockFixture;
use crate::support::{AT_ONCE, Asker, LONG, LONG_TTL, claim, same, served};

/// Shared leases stand together and keep writers out, as an exclusive one keeps readers out. An engine without a
/// shared mode takes each claim as exclusive.
pub async fn shared_leases_stand_together(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    let shared = |asker: &Asker| asker.request_all([claim("plan.md", Mode::Shared)], LONG_TTL);
    let first = anna.granted(&shared(&anna), Duration::ZERO).await.lease;
    if !anna.locks.capabilities().shared_mode {
        bert.refused(&shared(&bert)).await;
        return;
    }
    let second = bert.granted(&shared(&bert), Duration::ZERO).await.lease;
    let carl = anna.beside("carl");
    let blocked = carl.refused(&carl.request("plan.md", LONG_TTL)).await;
    let mut in_the_way: Vec<_> = blocked.holdings.iter().map(|holding| holding.lease).collect();
    let mut readers = vec![first.id(), second.id()];
    in_the_way.sort_unstable();
    readers.sort_unstable();
    same("the leases in a writer's way", &in_the_way, &readers);

    anna.release(first.id()).await;
    carl.refused(&carl.request("plan.md", LONG_TTL)).await;
    bert.release(second.id()).await;
    carl.take("plan.md", LONG_TTL).await;
    bert.refused(&shared(&bert)).await;
}

/// A writer that queues is served although readers keep coming: they wait behind it. Where the engine lets readers
/// barge, the writer is served once they pause.
pub async fn a_writer_is_not_starved_by_readers(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    let capabilities = anna.locks.capabilities();
    let shared = |asker: &Asker| asker.request_all([claim("plan.md", Mode::Shared)], LONG_TTL);
    let reader = anna.granted(&shared(&anna), Duration::ZERO).await.lease;
    let writer = bert.queue(&bert.request("plan.md", LONG_TTL)).await;
    let late = anna.beside("carl");
    if capabilities.fairness == Fairness::FirstComeFirstServed {
        let blocked = late.refused(&shared(&late)).await;
        same("how many are ahead of a late reader", &blocked.ahead, &1);
    }
    let waiting = {
        let (late, request) = (late.clone(), shared(&late));
        tokio::spawn(async move { late.ask(&request, LONG).await })
    };
    if capabilities.fairness == Fairness::Barging || !capabilities.shared_mode {
        anna.release(reader.id()).await;
        let (one, other) = tokio::join!(
            async {
                let grant = served(writer, LONG).await;
                bert.release(grant.lease.id()).await;
            },
            async {
                let grant = served(waiting, LONG).await;
                late.release(grant.lease.id()).await;
            }
        );
        return (one, other).0;
    }
    let queued = || async { (anna.table().await.waiters.len() == 2).then_some(()) };
    crate::support::eventually("the late reader queues behind the writer", queued).await;
    anna.release(reader.id()).await;
    let written = served(writer, AT_ONCE).await.lease;
    assert!(!waiting.is_finished(), "expected the late reader to wait for the writer before it");
    bert.release(written.id()).await;
    let read = served(waiting, AT_ONCE).await.lease;
    assert!(
        read.token.number() > written.token.number(),
        "expected the late reader's token above {:?}; found {:?}",
        written.token,
        read.token
    );
}

/// A lease on a path covers all below it, and is kept out by whatever is held there; what lies beside it is free.
/// An engine without subtrees takes each name for itself.
pub async fn a_lease_covers_all_below_it(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    let tree = anna.take("tasks/", LONG_TTL).await;
    if !anna.locks.capabilities().subtrees {
        bert.take("tasks/17", LONG_TTL).await;
        return;
    }
    for below in ["tasks", "tasks/17", "tasks/17/notes.md"] {
        let blocked = bert.refused(&bert.request(below, LONG_TTL)).await;
        same("the lease in the way", &blocked.holdings.first().map(|holding| holding.lease), &Some(tree.id()));
    }
    for beside in ["tasks-done", "tasks.md", "notes/tasks"] {
        let lease = bert.take(beside, LONG_TTL).await;
        bert.release(lease.id()).await;
    }
    anna.release(tree.id()).await;
    let leaf = bert.take("tasks/17", LONG_TTL).await;
    let blocked = anna.refused(&anna.request("tasks", LONG_TTL)).await;
    same("the lease in the way", &blocked.holdings.first().map(|holding| holding.lease), &Some(leaf.id()));
    anna.take("tasks/18", LONG_TTL).await;
}

/// A lease on `/` keeps out everything in its context, and is kept out by anything.
pub async fn the_root_covers_the_context(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    let root = anna.take("/", LONG_TTL).await;
    bert.refused(&bert.request("/", LONG_TTL)).await;
    if !anna.locks.capabilities().subtrees {
        bert.take("plan.md", LONG_TTL).await;
        return;
    }
    for below in ["plan.md", "a/b/c", "ключ"] {
        let blocked = bert.refused(&bert.request(below, LONG_TTL)).await;
        same("the lease in the way", &blocked.holdings.first().map(|holding| holding.lease), &Some(root.id()));
    }
    anna.release(root.id()).await;
    let leaf = bert.take("a/b/c", LONG_TTL).await;
    let blocked = anna.refused(&anna.request("/", LONG_TTL)).await;
    same("the lease in the way", &blocked.holdings.first().map(|holding| holding.lease), &Some(leaf.id()));
    let elsewhere = Asker { context: crate::support::fresh_context(), ..anna };
    elsewhere.take("/", LONG_TTL).await;
}

/// A request for several resources holds none while it waits for one, and all once it is granted. An engine that
/// grants one at a time refuses it without effect.
pub async fn several_resources_all_or_none(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    let both = |asker: &Asker| asker.request_all(["a", "b"].map(|name| claim(name, Mode::Exclusive)), LONG_TTL);
    if !anna.locks.capabilities().several_resources {
        let outcome = anna.locks.acquire(&both(&anna), mutext_contract::Deadline::now()).await;
        let error = outcome.expect_err("an engine that grants one at a time refuses two");
        same("the refusal's effect", &error.effect, &Effect::None);
        assert!(bert.could_take("a").await && bert.could_take("b").await, "expected nothing to be held");
        return;
    }
    let held = bert.take("b", LONG_TTL).await;
    anna.refused(&both(&anna)).await;
    let carl = bert.beside("carl");
    assert!(carl.could_take("a").await, "expected a refused request to hold none of its resources");

    let request = both(&anna);
    let waiting = anna.queue(&request).await;
    let holders: Vec<_> = bert.table().await.holdings.iter().map(|holding| holding.lease).collect();
    same("who holds something while it waits", &holders, &vec![held.id()]);
    bert.release(held.id()).await;
    let grant = served(waiting, AT_ONCE).await;
    same("what was granted", &grant.lease.claims, request.claims());
    for name in ["a", "b"] {
        let blocked = bert.refused(&bert.request(name, LONG_TTL)).await;
        same("the lease in the way", &blocked.holdings.first().map(|holding| holding.lease), &Some(grant.lease.id()));
    }
    let outcome = carl.ask(&carl.request("c", LONG_TTL), Duration::ZERO).await;
    assert!(matches!(outcome, Acquisition::Granted(_)), "expected another resource to be free; found {outcome:?}");
    anna.release(grant.lease.id()).await;
    assert!(bert.could_take("a").await && bert.could_take("b").await, "expected both to be free again");
}
