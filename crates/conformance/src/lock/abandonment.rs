//! A holder that dies without a word.

use std::time::Duration;

use mutext_contract::{DeadHolder, Mode};
use tokio::time::Instant;

use crate::LockFixture;
use crate::support::{AT_ONCE, Asker, LONG, LONG_TTL, claim, fresh_context};

/// What a vanished client held and queued for is free again when its lease has expired; where the engine declares
/// that it finds dead holders by their presence, well before that.
pub async fn a_vanished_client_frees_its_lock_within_its_ttl(fixture: &dyn LockFixture) {
    let context = fresh_context();
    let second = Asker::new(fixture.second_locks().await, &context, "bert");
    let first = Asker::new(fixture.locks(), &context, "anna");
    let by_presence = first.locks.capabilities().dead_holder == DeadHolder::Presence;
    let ttl = if by_presence { LONG_TTL } else { Duration::from_millis(800) };

    let asked = Instant::now();
    let lease = first.take("plan.md", ttl).await;
    let held_by_other = second.take("notes.md", LONG_TTL).await;
    let waiting = first.queue(&first.request("notes.md", ttl)).await;
    waiting.abort();
    let _ = waiting.await;
    drop(first);
    fixture.vanish().await;

    let grant = second.granted(&second.request("plan.md", LONG_TTL), LONG).await;
    let took = asked.elapsed();
    if by_presence {
        assert!(took < 2 * AT_ONCE, "expected a dead holder to be found by its presence; it took {took:?} of {ttl:?}");
    } else {
        assert!(took >= ttl, "expected the lease to last {ttl:?}; it was passed on after {took:?}");
        assert!(took < ttl + AT_ONCE, "expected the lease to end after {ttl:?}; it took {took:?}");
    }
    assert!(
        grant.lease.token.number() > lease.token.number(),
        "expected a token above the dead holder's {:?}; found {:?}",
        lease.token,
        grant.lease.token
    );

    // The dead waiter does not stand in the queue either: not for longer than it would have held.
    second.release(held_by_other.id()).await;
    second.granted(&second.request("notes.md", LONG_TTL), LONG).await;
}

/// A waiter that died keeps nobody behind it from what is free for them: a reader joins another past a dead writer.
pub async fn a_dead_waiter_does_not_block_those_behind_it(fixture: &dyn LockFixture) {
    let context = fresh_context();
    let second = Asker::new(fixture.second_locks().await, &context, "bert");
    let first = Asker::new(fixture.locks(), &context, "anna");
    let capabilities = first.locks.capabilities();
    if capabilities.dead_holder != DeadHolder::Presence || !capabilities.shared_mode {
        return;
    }
    let shared = |asker: &Asker| asker.request_all([claim("plan.md", Mode::Shared)], LONG_TTL);
    let reader = second.granted(&shared(&second), Duration::ZERO).await.lease;
    let writer = first.queue(&first.request("plan.md", LONG_TTL)).await;
    writer.abort();
    let _ = writer.await;
    drop(first);
    fixture.vanish().await;

    let asked = Instant::now();
    let late = second.beside("carl");
    late.granted(&shared(&late), LONG).await;
    assert!(asked.elapsed() < 2 * AT_ONCE, "it waited {:?} behind a dead writer", asked.elapsed());
    second.release(reader.id()).await;
}
