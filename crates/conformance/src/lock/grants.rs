//! Who is granted a lock, and what the others are told.

use std::time::Duration;

use mutext_contract::Release;
use tokio::time::Instant;

use crate::LockFixture;
use crate::support::{Asker, LONG_TTL, fresh_context, same};

/// A free lock is granted on the first try, to the one who asked and for what it asked.
pub async fn a_free_lock_is_granted(fixture: &dyn LockFixture) {
    let (anna, _) = Asker::two(fixture).await;
    let request = anna.request("plan.md", LONG_TTL);
    let grant = anna.granted(&request, Duration::ZERO).await;
    let lease = &grant.lease;
    assert!(!grant.queued, "expected a free lock to be granted without queueing; found {grant:?}");
    same("the hand-over of a free lock", &grant.handed_over_after, &None);
    same("the lease's context", &lease.context, &anna.context);
    same("the lease's claims", &lease.claims, request.claims());
    same("the lease's holder", &lease.holder, &anna.holder);
    same("the lease's id is the attempt's", &lease.id(), &request.lease);
    same("the lease's TTL", &lease.ttl, &request.ttl);
    let now = Instant::now();
    assert!(lease.valid_until > now, "expected a lease that is valid yet; found {lease:?} at {now:?}");
}

/// Who finds a lock held learns by whom, what for, and for how long yet; from the same client and from another.
pub async fn a_held_lock_names_its_holder(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    let mut request = anna.request("plan.md", LONG_TTL);
    request.reason = Some("rewriting the introduction".to_owned());
    let lease = anna.granted(&request, Duration::ZERO).await.lease;
    for asker in [bert, anna.beside("carl")] {
        let blocked = asker.refused(&asker.request("plan.md", LONG_TTL)).await;
        let [holding] = blocked.holdings.as_slice() else {
            panic!("expected the one lease in the way; found {blocked:?}");
        };
        same("the lease in the way", &holding.lease, &lease.id());
        same("its holder", &holding.holder, &anna.holder);
        same("its claims", &holding.claims, request.claims());
        same("its token", &holding.token, &lease.token.number());
        same("its reason", &holding.reason, &request.reason);
        let remaining = holding.remaining;
        assert!(
            remaining > LONG_TTL / 2 && remaining <= LONG_TTL,
            "expected nearly {LONG_TTL:?} to remain; found {remaining:?}"
        );
        same("the number of requests ahead", &blocked.ahead, &0);
    }
}

/// Locks on different resources have nothing to do with each other, also where one name begins with the other.
pub async fn two_resources_do_not_meet(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    anna.take("tasks", LONG_TTL).await;
    bert.take("tasks-done", LONG_TTL).await;
    bert.take("task", LONG_TTL).await;
    anna.take("notes/tasks", LONG_TTL).await;
}

/// Every character of a name counts, and none means anything.
pub async fn names_keep_case_and_odd_characters(fixture: &dyn LockFixture) {
    const NAMES: [&str; 15] = [
        "plan.md",
        "Plan.md",
        "two words",
        "two  words",
        "100%_sure",
        "it's \"quoted\"; --",
        "back\\slash",
        "{braces}[brackets]",
        "a*",
        "a?",
        "$a:b|c",
        "名前/ключ",
        "é",
        "e\u{301}",
        "🦀/🔒",
    ];
    let (anna, bert) = Asker::two(fixture).await;
    for name in NAMES {
        anna.take(name, LONG_TTL).await;
    }
    let table = bert.table().await;
    let mut found: Vec<&str> = table.holdings.iter().map(|holding| holding.claims[0].resource.as_str()).collect();
    let mut expected = NAMES.to_vec();
    found.sort_unstable();
    expected.sort_unstable();
    same("the names that the other client sees", &found, &expected);
    for name in NAMES {
        let blocked = bert.refused(&bert.request(name, LONG_TTL)).await;
        let names: Vec<&str> = blocked.holdings.iter().map(|holding| holding.claims[0].resource.as_str()).collect();
        same("the lease in the way", &names, &vec![name]);
    }
}

/// The same name in two contexts is two locks; and a lease id means nothing in another context.
pub async fn contexts_do_not_meet(fixture: &dyn LockFixture) {
    let (anna, elsewhere) = Asker::two(fixture).await;
    let elsewhere = Asker { context: fresh_context(), ..elsewhere };
    let lease = anna.take("plan.md", LONG_TTL).await;
    let other = elsewhere.take("plan.md", LONG_TTL).await;
    same("the locks of the one context", &anna.table().await.holdings.len(), &1);
    same("the locks of the other context", &elsewhere.table().await.holdings.len(), &1);
    same("release of the one's lease in the other", &elsewhere.release(lease.id()).await, &Release::NotHeld);
    same(
        "revocation of the one's lease in the other",
        &elsewhere.revoke(lease.id(), "op", "x").await,
        &Release::NotHeld,
    );
    let bert = anna.beside("bert");
    let blocked = bert.refused(&bert.request("plan.md", LONG_TTL)).await;
    same("whose lease is in the way", &blocked.holdings.first().map(|holding| holding.lease), &Some(lease.id()));
    same("release in its own context", &elsewhere.release(other.id()).await, &Release::Released);
}
