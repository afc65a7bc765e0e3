//! Who may hold what beside whom.

use Mode::{Exclusive, Shared};
use mutext_contract::{ContextName, LockRequest, Mode};

use crate::{LockFixture, acquire, context, exclusive, grant, holder, refused, release, request, soon};

/// What is free is granted at once.
pub async fn a_free_lock_is_granted<F: LockFixture>() {
    let fixture = F::open().await;
    let asked = exclusive("a", "plan.md");
    let got = grant(&*fixture.locks(), &asked, 0).await;
    assert!(!got.queued);
    assert_eq!(got.lease.id(), asked.lease);
    assert_eq!((&got.lease.holder, &got.lease.claims), (&asked.holder, asked.claims()));
}

/// A refusal says who is in the way, since when, what for, and for how long yet.
pub async fn a_held_lock_names_its_holder<F: LockFixture>() {
    let fixture = F::open().await;
    let mut asked = exclusive("planner", "plan.md");
    asked.reason = Some("re-ordering".to_owned());
    let held = grant(&*fixture.locks(), &asked, 0).await;
    for locks in [fixture.locks(), fixture.second().await] {
        let blocked = refused(&*locks, &exclusive("critic", "plan.md"), 0).await;
        let [holding] = &blocked.holdings[..] else { panic!("one holder, not {:?}", blocked.holdings) };
        assert_eq!((holding.holder.clone(), holding.lease), (asked.holder.clone(), asked.lease));
        assert_eq!(holding.reason.as_deref(), Some("re-ordering"));
        assert_eq!(holding.token, held.lease.token.number());
        assert!(!holding.remaining.is_zero() && holding.remaining <= asked.ttl.get(), "{:?}", holding.remaining);
    }
}

/// Locks on different resources have nothing to do with each other.
pub async fn two_resources_do_not_meet<F: LockFixture>() {
    let fixture = F::open().await;
    grant(&*fixture.locks(), &exclusive("a", "tasks/1"), 0).await;
    for other in ["tasks/10", "tasks/2", "task", "plan.md"] {
        grant(&*fixture.locks(), &exclusive("b", other), 0).await;
    }
}

/// The same resource of another context is another resource.
pub async fn contexts_do_not_meet<F: LockFixture>() {
    let fixture = F::open().await;
    grant(&*fixture.locks(), &exclusive("a", "/"), 0).await;
    let other = ContextName::new("elsewhere").unwrap_or_else(|error| panic!("{error}"));
    let asked = exclusive("b", "/");
    let claims = asked.claims().iter().cloned();
    let asked = LockRequest::new(other, holder("b"), asked.ttl, claims).unwrap_or_else(|error| panic!("{error}"));
    grant(&*fixture.locks(), &asked, 0).await;
}

/// Case counts, and so does every odd character.
pub async fn names_keep_case_and_odd_characters<F: LockFixture>() {
    let fixture = F::open().await;
    for name in ["Plan", "plan", "pl an", "pl'an\"", "plän", "計画", "{plan}", "a%b_c", "*", "plan\\"] {
        grant(&*fixture.locks(), &exclusive("a", name), 0).await;
    }
    refused(&*fixture.locks(), &exclusive("b", "計画"), 0).await;
}

/// Readers stand together; a writer stands alone.
pub async fn shared_leases_stand_together<F: LockFixture>() {
    let fixture = F::open().await;
    let locks = fixture.locks();
    let readers = [request("r1", &[("a", Shared)], 10_000), request("r2", &[("a", Shared)], 10_000)];
    let first = grant(&*locks, &readers[0], 0).await;
    let second = acquire(&*locks, &readers[1], 0).await;
    if !locks.capabilities().shared_mode {
        assert!(matches!(second, mutext_contract::Acquisition::TimedOut(_)), "declared without shared mode");
        return;
    }
    assert!(matches!(second, mutext_contract::Acquisition::Granted(_)), "{second:?}");
    assert_eq!(refused(&*locks, &exclusive("w", "a"), 0).await.holdings.len(), 2);
    release(&*locks, first.lease.id()).await;
    refused(&*locks, &exclusive("w", "a"), 0).await;
    release(&*locks, readers[1].lease).await;
    grant(&*locks, &exclusive("w", "a"), 0).await;
    refused(&*locks, &readers[0], 0).await;
}

/// A lock on a path is one on all below it, and on nothing beside it.
pub async fn a_lease_covers_all_below_it<F: LockFixture>() {
    let fixture = F::open().await;
    let locks = fixture.locks();
    assert!(locks.capabilities().subtrees, "an engine without subtrees needs a case of its own");
    grant(&*locks, &exclusive("a", "tasks/"), 0).await;
    refused(&*locks, &request("b", &[("tasks/17/notes", Shared)], 10_000), 0).await;
    grant(&*locks, &exclusive("b", "plan.md"), 0).await;
    refused(&*locks, &exclusive("c", "/"), 0).await;
}

/// The root is the whole context.
pub async fn the_root_covers_the_context<F: LockFixture>() {
    let fixture = F::open().await;
    grant(&*fixture.locks(), &exclusive("a", "/"), 0).await;
    refused(&*fixture.locks(), &exclusive("b", "any/where"), 0).await;
}

/// No part of a request is held while another part is not.
pub async fn several_resources_are_granted_together_or_not_at_all<F: LockFixture>() {
    let fixture = F::open().await;
    let locks = fixture.locks();
    assert!(locks.capabilities().several_resources, "an engine without it needs a case of its own");
    let b = grant(&*locks, &exclusive("a", "b"), 0).await;
    let both = request("c", &[("a", Exclusive), ("b", Exclusive)], 10_000);
    refused(&*locks, &both, 0).await;
    let a = grant(&*locks, &exclusive("d", "a"), 0).await;
    release(&*locks, a.lease.id()).await;
    release(&*locks, b.lease.id()).await;
    let both = request("c", &[("a", Exclusive), ("b", Exclusive)], 10_000);
    assert_eq!(grant(&*locks, &both, 0).await.lease.fence().resources.len(), 2);
    refused(&*locks, &exclusive("d", "a"), 0).await;
    refused(&*locks, &exclusive("d", "b"), 0).await;
}

/// Anyone can see who holds and who waits.
pub async fn inspection_shows_holders_and_waiters<F: LockFixture>() {
    let fixture = F::open().await;
    let locks = fixture.locks();
    grant(&*locks, &exclusive("a", "x"), 0).await;
    let mut waiting = exclusive("b", "x");
    waiting.reason = Some("mine next".to_owned());
    let waiter = {
        let (locks, waiting) = (locks.clone(), waiting.clone());
        tokio::spawn(async move { acquire(&*locks, &waiting, 5_000).await })
    };
    let second = fixture.second().await;
    for attempt in 0.. {
        let table = second.inspect(&context(), soon()).await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(table.holdings.len(), 1);
        if let [found] = &table.waiters[..] {
            assert_eq!((&found.holder, found.lease), (&waiting.holder, waiting.lease));
            assert_eq!(found.reason.as_deref(), Some("mine next"));
            break;
        }
        assert!(attempt < 200, "the waiter never shows: {table:?}");
        crate::pause(10).await;
    }
    waiter.abort();
}
