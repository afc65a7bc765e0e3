//! Dropping an acquire's future leaves nothing that a release of the attempt does not end.

use std::time::Duration;

use mutext_contract::{Acquisition, Release};

use crate::LockFixture;
use crate::support::{AT_ONCE, Asker, LONG, LONG_TTL, same, served};

/// A waiter whose future is dropped and whose attempt is then released is out of the queue: whether the lock was
/// handed to it in between or not, the next waiter is served.
pub async fn a_dropped_waiter_does_not_block_the_queue(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    for handed_over_meanwhile in [false, true] {
        let held = anna.take("plan.md", LONG_TTL).await;
        let dropped = bert.request("plan.md", LONG_TTL);
        let waiting = bert.queue(&dropped).await;
        let next = anna.beside("carl");
        let next_waiting = next.queue(&next.request("plan.md", LONG_TTL)).await;
        waiting.abort();
        assert!(waiting.await.is_err(), "expected the waiter to be dropped while it waits");
        if handed_over_meanwhile {
            anna.release(held.id()).await;
            bert.release(dropped.lease).await;
        } else {
            bert.release(dropped.lease).await;
            anna.release(held.id()).await;
        }
        let grant = served(next_waiting, AT_ONCE).await;
        let holders: Vec<_> = anna.table().await.holdings.iter().map(|holding| holding.lease).collect();
        same("who holds it", &holders, &vec![grant.lease.id()]);
        next.release(grant.lease.id()).await;
    }
}

/// An acquire that is dropped at any moment, and then released by its id, holds nothing and queues nowhere, whatever
/// had become of it.
pub async fn a_dropped_acquire_leaves_nothing_beyond_release(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    for micros in [0, 0, 0, 50, 100, 200, 400, 800, 1600, 3200] {
        for held in [false, true] {
            let holding = if held { Some(bert.take("plan.md", LONG_TTL).await) } else { None };
            let request = anna.request("plan.md", LONG_TTL);
            // Polls at least once, then drops it at some moment of its life.
            let _ = tokio::time::timeout(Duration::from_micros(micros), anna.ask(&request, LONG)).await;
            anna.release(request.lease).await;
            let table = bert.table().await;
            let expected: Vec<_> = holding.iter().map(mutext_contract::Lease::id).collect();
            let found: Vec<_> = table.holdings.iter().map(|holding| holding.lease).collect();
            same("who holds it", &found, &expected);
            same("who waits", &table.waiters, &Vec::new());
            if let Some(lease) = holding {
                bert.release(lease.id()).await;
            }
            assert!(bert.could_take("plan.md").await, "expected the lock to be free; found {:?}", bert.table().await);
        }
    }
}

/// A release ends an attempt for good, also one that still waits and whichever client releases it: it is not granted
/// any more, and does not queue again.
pub async fn a_released_attempt_does_not_come_back(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    for releaser in [&anna, &bert] {
        let held = anna.take("plan.md", LONG_TTL).await;
        let request = bert.request("plan.md", LONG_TTL);
        let waiting = {
            let (bert, request) = (bert.clone(), request.clone());
            tokio::spawn(async move { bert.ask(&request, Duration::from_millis(800)).await })
        };
        bert.until_queued(request.lease).await;
        same("the release of the attempt", &releaser.release(request.lease).await, &Release::Released);
        // The lock is free while the released attempt's future still lives: it must not take it.
        same("the holder's release", &anna.release(held.id()).await, &Release::Released);
        let outcome = waiting.await.expect("the asker does not panic");
        assert!(
            matches!(outcome, Acquisition::TimedOut(_)),
            "expected a released attempt to be over; found {outcome:?}"
        );
        let table = anna.table().await;
        assert!(table.holdings.is_empty() && table.waiters.is_empty(), "expected an empty table; found {table:?}");
    }
}
