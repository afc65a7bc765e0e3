//! A lease that takes the place of another: from shared to exclusive, and back.

use std::time::Duration;

use mutext_contract::{Acquisition, Lease, LockRequest, Loss, Mode, Renewal};

use crate::LockFixture;
use crate::support::{AT_ONCE, Asker, LONG, LONG_TTL, claim, same, served};

fn upgrade(lease: &Lease) -> LockRequest {
    LockRequest::converting(lease, Mode::Exclusive)
}

async fn shared(asker: &Asker) -> Lease {
    let request = asker.request_all([claim("plan.md", Mode::Shared)], LONG_TTL);
    asker.granted(&request, Duration::ZERO).await.lease
}

/// Whose leases stand, oldest grant first.
async fn standing(asker: &Asker) -> Vec<mutext_contract::LeaseId> {
    asker.table().await.holdings.iter().map(|holding| holding.lease).collect()
}

/// A reader that wants to write waits for the other readers alone: it passes the writer in the queue, which waits for
/// it, and nobody writes between its reading and its writing. Readers that come meanwhile wait.
pub async fn a_reader_becomes_a_writer_with_nobody_in_between(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    if !anna.locks.capabilities().shared_mode {
        let lease = anna.take("plan.md", LONG_TTL).await;
        anna.granted(&upgrade(&lease), Duration::ZERO).await;
        return;
    }
    let (own, other) = (shared(&anna).await, shared(&bert).await);
    let writer = bert.queue(&bert.request("plan.md", LONG_TTL)).await;
    let request = upgrade(&own);
    let waiting = anna.queue(&request).await;
    same("what is held while it waits", &standing(&bert).await, &vec![own.id(), other.id()]);
    let first = anna.table().await.waiters.first().map(|waiter| waiter.lease);
    same("who is served next", &first, &Some(request.lease));
    let late = anna.beside("carl");
    late.refused(&late.request_all([claim("plan.md", Mode::Shared)], LONG_TTL)).await;

    bert.release(other.id()).await;
    let own_again = served(waiting, AT_ONCE).await.lease;
    same("the claims", &own_again.claims, request.claims());
    assert!(own_again.token.number() > other.token.number(), "expected a token above all before: {own_again:?}");
    same("what is held then", &standing(&bert).await, &vec![own_again.id()]);
    assert!(matches!(anna.renew(&own).await, Renewal::Lost(_)), "expected the shared lease to be gone");
    assert!(!writer.is_finished(), "expected the writer to wait yet");
    anna.release(own_again.id()).await;
    served(writer, AT_ONCE).await;
}

/// A writer that only reads from now on lets the readers in that wait, and keeps the writers out.
pub async fn a_writer_becomes_a_reader_and_lets_others_in(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    if !anna.locks.capabilities().shared_mode {
        return;
    }
    let own = anna.take("plan.md", LONG_TTL).await;
    let reader = bert.queue(&bert.request_all([claim("plan.md", Mode::Shared)], LONG_TTL)).await;
    let writer = bert.queue(&bert.request("plan.md", LONG_TTL)).await;
    let request = LockRequest::converting(&own, Mode::Shared);
    let grant = anna.granted(&request, Duration::ZERO).await;
    let read = served(reader, AT_ONCE).await.lease;
    same("what is held then", &standing(&bert).await, &vec![grant.lease.id(), read.id()]);
    assert!(!writer.is_finished(), "expected the writer to wait yet");
    anna.release(grant.lease.id()).await;
    bert.release(read.id()).await;
    served(writer, AT_ONCE).await;
}

/// Two readers of one resource that both want to write wait for each other: the second is told, keeps its shared
/// lease, and lets the first go on by giving it up.
pub async fn two_readers_who_want_to_write_are_told(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    let capabilities = anna.locks.capabilities();
    if !capabilities.shared_mode {
        return;
    }
    let (one, other) = (shared(&anna).await, shared(&bert).await);
    let waiting = anna.queue(&upgrade(&one)).await;
    let wait = if capabilities.deadlock_detection { LONG } else { Duration::from_millis(300) };
    let request = upgrade(&other);
    match bert.ask(&request, wait).await {
        Acquisition::Deadlock(deadlock) if capabilities.deadlock_detection => {
            same("how many are in the circle", &deadlock.cycle.len(), &2);
            same("who closed it", &deadlock.cycle[0].waiter.lease, &request.lease);
        }
        Acquisition::TimedOut(_) if !capabilities.deadlock_detection => {}
        outcome => panic!("expected the second to be told; found {outcome:?}"),
    }
    assert!(matches!(bert.renew(&other).await, Renewal::Renewed { .. }), "expected it to read yet");
    bert.release(other.id()).await;
    served(waiting, AT_ONCE).await;
}

/// Whoever could not become a writer in time is a reader as before.
pub async fn an_upgrade_that_times_out_keeps_the_shared_lease(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    if !anna.locks.capabilities().shared_mode {
        return;
    }
    let (own, other) = (shared(&anna).await, shared(&bert).await);
    for wait in [Duration::ZERO, Duration::from_millis(60)] {
        let outcome = anna.ask(&upgrade(&own), wait).await;
        let Acquisition::TimedOut(blocked) = outcome else {
            panic!("expected the other to be in the way: {outcome:?}")
        };
        let in_the_way: Vec<_> = blocked.holdings.iter().map(|holding| holding.lease).collect();
        same("what is in its way", &in_the_way, &vec![other.id()]);
    }
    assert!(matches!(anna.renew(&own).await, Renewal::Renewed { .. }), "expected it to read yet");
    same("what is held", &standing(&bert).await, &vec![own.id(), other.id()]);
    // And nobody is kept out by it.
    let late = anna.beside("carl");
    late.granted(&late.request_all([claim("plan.md", Mode::Shared)], LONG_TTL), AT_ONCE).await;
}

/// What was revoked cannot be turned into anything: the answer says who did it.
pub async fn a_lost_lease_cannot_be_replaced(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    let own = shared(&anna).await;
    bert.revoke(own.id(), "bert", "enough").await;
    for wait in [Duration::ZERO, LONG] {
        match anna.ask(&upgrade(&own), wait).await {
            Acquisition::Lost(Loss::Revoked { by, reason }) => {
                same("who revoked it, and why", &(by.as_str(), reason.as_str()), &("bert", "enough"));
            }
            other => panic!("expected the loss to be told; found {other:?}"),
        }
    }
    bert.take("plan.md", LONG_TTL).await;
}
