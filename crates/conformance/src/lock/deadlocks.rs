//! Those who wait for each other, each keeping what another waits for.

use std::time::Duration;

use mutext_contract::{Acquisition, Deadlock, Lease, LeaseId, LockRequest, Mode, Obstacle};
use tokio::time::Instant;

use crate::LockFixture;
use crate::support::{AT_ONCE, Asker, LONG, LONG_TTL, claim, eventually, same, served};

/// How long a cycle may last that nobody finds.
const PATIENCE: Duration = Duration::from_millis(300);

fn keeping(mut request: LockRequest, leases: &[&Lease]) -> LockRequest {
    request.keeps = leases.iter().map(|lease| lease.id()).collect();
    request
}

/// Asks for what closes a cycle. An engine without detection must let the wait run out; `None` then.
async fn closes(asker: &Asker, request: &LockRequest) -> Option<Deadlock> {
    let detects = asker.locks.capabilities().deadlock_detection;
    let asked = Instant::now();
    let outcome = asker.ask(request, if detects { LONG } else { PATIENCE }).await;
    let took = asked.elapsed();
    match outcome {
        Acquisition::Deadlock(deadlock) if detects => {
            assert!(took < AT_ONCE, "expected the cycle to be found at once; it took {took:?}");
            let left = asker.table().await.waiters.iter().any(|waiter| waiter.lease == request.lease);
            assert!(!left, "expected whoever closed the cycle to have left the queue");
            Some(deadlock)
        }
        Acquisition::TimedOut(_) if !detects => None,
        other => panic!("expected a cycle to end (deadlock detection: {detects}); found {other:?}"),
    }
}

/// Who waits, and for which lease or request, along a cycle.
fn steps(deadlock: &Deadlock) -> Vec<(LeaseId, LeaseId)> {
    let obstacle = |obstacle: &Obstacle| match obstacle {
        Obstacle::Lease(lease) => lease.lease,
        Obstacle::Request(request) => request.lease,
    };
    deadlock.cycle.iter().map(|knot| (knot.waiter.lease, obstacle(&knot.obstacle))).collect()
}

/// Two holders that each wait for the other's lock: an engine that declares deadlock detection tells the second at
/// once, naming both; with any other the waits run out. The first goes on once the second gives up what it holds.
pub async fn a_cycle_of_waiters_is_found_or_runs_out_of_time(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    let (a, b) = (anna.take("a", LONG_TTL).await, bert.take("b", LONG_TTL).await);
    let first = keeping(anna.request("b", LONG_TTL), &[&a]);
    let waiting = anna.queue(&first).await;
    let mut second = keeping(bert.request("a", LONG_TTL), &[&b]);
    second.reason = Some("to compare".to_owned());
    if let Some(deadlock) = closes(&bert, &second).await {
        same("the cycle", &steps(&deadlock), &vec![(second.lease, a.id()), (first.lease, b.id())]);
        let [asker, other] = deadlock.cycle.as_slice() else { panic!("expected two; found {deadlock:?}") };
        same("who closed it", &asker.waiter.holder, &bert.holder);
        same("what for", &asker.waiter.reason, &second.reason);
        same("what it wants", &asker.waiter.claims, second.claims());
        same("who waits for it", &other.waiter.holder, &anna.holder);
    }
    bert.release(b.id()).await;
    served(waiting, AT_ONCE).await;
}

/// Three in a circle, on two clients: all are named, in order, and the two that came before go on waiting.
pub async fn a_longer_cycle_is_named_from_end_to_end(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    let carl = anna.beside("carl");
    let a = anna.take("a", LONG_TTL).await;
    let b = bert.take("tasks/b", LONG_TTL).await;
    let c = carl.take("c", LONG_TTL).await;
    let wants_b = keeping(anna.request("tasks/b", LONG_TTL), &[&a]);
    let wants_c = keeping(bert.request("c", LONG_TTL), &[&b]);
    let (first, second) = (anna.queue(&wants_b).await, bert.queue(&wants_c).await);
    let wants_a = keeping(carl.request("a", LONG_TTL), &[&c]);
    if let Some(deadlock) = closes(&carl, &wants_a).await {
        let around = vec![(wants_a.lease, a.id()), (wants_b.lease, b.id()), (wants_c.lease, c.id())];
        same("the cycle", &steps(&deadlock), &around);
    }
    same("how many wait yet", &anna.table().await.waiters.len(), &2);
    carl.release(c.id()).await;
    let c = served(second, AT_ONCE).await.lease;
    bert.release(c.id()).await;
    bert.release(b.id()).await;
    served(first, AT_ONCE).await;
}

/// A request behind another in the queue waits for that too: a reader that asks again behind a writer, which waits
/// for the reader, waits in a circle.
pub async fn a_cycle_through_the_queue_is_found(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    let capabilities = anna.locks.capabilities();
    if !capabilities.shared_mode || capabilities.fairness == mutext_contract::Fairness::Barging {
        return;
    }
    let shared = || anna.request_all([claim("plan.md", Mode::Shared)], LONG_TTL);
    let reader = anna.granted(&shared(), Duration::ZERO).await.lease;
    let writer = bert.request("plan.md", LONG_TTL);
    let waiting = bert.queue(&writer).await;
    let again = keeping(shared(), &[&reader]);
    if let Some(deadlock) = closes(&anna, &again).await {
        let around = vec![(again.lease, writer.lease), (writer.lease, reader.id())];
        same("the cycle", &steps(&deadlock), &around);
    }
    anna.release(reader.id()).await;
    served(waiting, AT_ONCE).await;
}

/// Whoever asks for a part of what it keeps would wait for itself.
pub async fn waiting_for_oneself_is_a_cycle(fixture: &dyn LockFixture) {
    let (anna, _) = Asker::two(fixture).await;
    let own = if anna.locks.capabilities().subtrees { "tasks" } else { "tasks/17" };
    let lease = anna.take(own, LONG_TTL).await;
    let again = keeping(anna.request("tasks/17", LONG_TTL), &[&lease]);
    if let Some(deadlock) = closes(&anna, &again).await {
        same("the cycle", &steps(&deadlock), &vec![(again.lease, lease.id())]);
    }
    assert!(anna.renew(&lease).await != mutext_contract::Renewal::Lost(mutext_contract::Loss::Expired));
}

/// One holder may do several things side by side: what it holds for one of them keeps nobody who waits for another.
pub async fn whoever_keeps_nothing_waits_in_no_circle(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    let (a, b) = (anna.take("a", LONG_TTL).await, bert.take("b", LONG_TTL).await);
    let waiting = bert.queue(&keeping(bert.request("a", LONG_TTL), &[&b])).await;
    let beside = anna.queue(&anna.request("b", LONG_TTL)).await;
    let both_wait = || async { (anna.table().await.waiters.len() == 2).then_some(()) };
    eventually("both wait", both_wait).await;
    anna.release(a.id()).await;
    let a = served(waiting, AT_ONCE).await.lease;
    bert.release(a.id()).await;
    bert.release(b.id()).await;
    served(beside, AT_ONCE).await;
}
