//! Queueing: how long, in which order, and how it ends.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mutext_contract::{Acquisition, Fairness, LeaseId, Release};
use tokio::time::Instant;

use crate::LockFixture;
use crate::support::{AT_ONCE, Asker, LONG, LONG_TTL, same, served};

/// Of a question to a server on this machine, when it is slow.
const HALF_A_ROUND_TRIP: Duration = Duration::from_millis(250);

/// A waiter gives up at its deadline: not before, not much later; and nothing of it queues then.
pub async fn waiting_ends_at_the_deadline(fixture: &dyn LockFixture) {
    const WAIT: Duration = Duration::from_millis(200);
    let (anna, bert) = Asker::two(fixture).await;
    let lease = anna.take("plan.md", LONG_TTL).await;
    for asker in [bert, anna.beside("carl")] {
        let request = asker.request("plan.md", LONG_TTL);
        let asked = Instant::now();
        let outcome = asker.ask(&request, WAIT).await;
        let waited = asked.elapsed();
        let Acquisition::TimedOut(blocked) = outcome else {
            panic!("expected the wait to run out; found {outcome:?}");
        };
        assert!(waited >= WAIT, "expected the wait to last {WAIT:?}; it ended after {waited:?}");
        assert!(waited < WAIT + AT_ONCE, "expected the wait to end at {WAIT:?}; it took {waited:?}");
        same("the lease in the way", &blocked.holdings.first().map(|holding| holding.lease), &Some(lease.id()));
        same("the waiters left over", &asker.table().await.waiters, &Vec::new());
        same("release of the attempt", &asker.release(request.lease).await, &Release::NotHeld);
    }
    anna.release(lease.id()).await;
    assert!(anna.could_take("plan.md").await, "expected the lock to be free; found {:?}", anna.table().await);
}

/// A release serves a waiter at once, on the same client and on another.
pub async fn a_waiter_is_served_when_the_holder_releases(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    for (holder, waiter) in [(&anna, anna.beside("carl")), (&anna, bert.clone()), (&bert, anna.clone())] {
        let lease = holder.take("plan.md", LONG_TTL).await;
        let waiting = waiter.queue(&waiter.request("plan.md", LONG_TTL)).await;
        let releasing = Instant::now();
        same("the release", &holder.release(lease.id()).await, &Release::Released);
        let grant = served(waiting, AT_ONCE).await;
        assert!(grant.queued, "expected a grant after queueing to say so; found {grant:?}");
        // An engine knows its server's clock to within half a round trip of its own.
        let (told, most) = (grant.handed_over_after, releasing.elapsed() + HALF_A_ROUND_TRIP);
        assert!(told.is_none_or(|after| after <= most), "expected a hand-over of at most {most:?}; found {grant:?}");
        assert!(
            grant.lease.token.number() > lease.token.number(),
            "expected a token above {:?}; found {:?}",
            lease.token,
            grant.lease.token
        );
        waiter.release(grant.lease.id()).await;
    }
}

/// Waiters on two clients are served in the order in which they came; where the engine lets them barge, each is
/// served once.
pub async fn first_come_first_served(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    let held = anna.take("plan.md", LONG_TTL).await;
    let order: Arc<Mutex<Vec<LeaseId>>> = Arc::default();
    let (mut came, mut tasks) = (Vec::new(), Vec::new());
    for number in 0..8 {
        let asker = if number % 2 == 0 { bert.clone() } else { anna.beside("carl") };
        let request = asker.request("plan.md", LONG_TTL);
        came.push(request.lease);
        let (own, served_in, lease) = (asker.clone(), Arc::clone(&order), request.lease);
        tasks.push(tokio::spawn(async move {
            let grant = own.granted(&request, LONG).await;
            served_in.lock().expect("no waiter panics").push(grant.lease.id());
            own.release(grant.lease.id()).await;
        }));
        asker.until_queued(lease).await;
    }
    anna.release(held.id()).await;
    for task in tasks {
        task.await.expect("each waiter is served");
    }
    let mut served_in = order.lock().expect("no waiter panics").clone();
    if anna.locks.capabilities().fairness == Fairness::Barging {
        served_in.sort_unstable();
        came.sort_unstable();
    }
    same("the order of grants", &served_in, &came);
}

/// A passed deadline means one try: granted where the lock is free, refused at once where it is held.
pub async fn a_passed_deadline_means_one_try(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    let long_ago = Instant::now().checked_sub(Duration::from_secs(1)).unwrap_or_else(Instant::now);
    let one_try = mutext_contract::Deadline::at(long_ago);
    let request = anna.request("plan.md", LONG_TTL);
    let outcome = anna.locks.acquire(&request, one_try).await.expect("an acquire without trouble");
    assert!(matches!(outcome, Acquisition::Granted(_)), "expected one try to find the lock free; found {outcome:?}");

    let asked = Instant::now();
    let outcome = bert.locks.acquire(&bert.request("plan.md", LONG_TTL), one_try).await;
    let outcome = outcome.expect("an acquire without trouble");
    let took = asked.elapsed();
    let Acquisition::TimedOut(blocked) = outcome else {
        panic!("expected one try to find the lock held; found {outcome:?}");
    };
    same("the lease in the way", &blocked.holdings.first().map(|holding| holding.lease), &Some(request.lease));
    assert!(took < AT_ONCE, "expected one try to answer at once; it took {took:?}");
    same("the waiters left over", &bert.table().await.waiters, &Vec::new());
}
