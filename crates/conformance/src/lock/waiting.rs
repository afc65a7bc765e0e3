//! Waiting is bounded, orderly, and ends promptly.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mutext_contract::{LockRequest, LockService, Mode};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::{LockFixture, acquire, context, exclusive, grant, pause, refused, release, request, soon};

/// Not before, and not much after.
pub async fn waiting_ends_at_the_deadline<F: LockFixture>() {
    let fixture = F::open().await;
    grant(&*fixture.locks(), &exclusive("a", "x"), 0).await;
    let asked = Instant::now();
    refused(&*fixture.locks(), &exclusive("b", "x"), 300).await;
    let waited = asked.elapsed();
    assert!(waited >= Duration::from_millis(300) && waited < Duration::from_millis(1_500), "{waited:?}");
    let table = fixture.locks().inspect(&context(), soon()).await.unwrap_or_else(|error| panic!("{error}"));
    assert!(table.waiters.is_empty(), "whoever has timed out does not queue any more: {table:?}");
}

/// One try, and an answer at once.
pub async fn a_passed_deadline_means_one_try<F: LockFixture>() {
    let fixture = F::open().await;
    let got = grant(&*fixture.locks(), &exclusive("a", "x"), 0).await;
    let asked = Instant::now();
    refused(&*fixture.locks(), &exclusive("b", "x"), 0).await;
    assert!(asked.elapsed() < Duration::from_secs(1));
    release(&*fixture.locks(), got.lease.id()).await;
    grant(&*fixture.locks(), &exclusive("b", "x"), 0).await;
}

/// Starts to wait, and is certainly in the queue when this returns. Whoever is granted reports its number.
async fn queue(locks: &Arc<dyn LockService>, asked: LockRequest, number: usize, served: &mpsc::UnboundedSender<usize>) {
    let (client, lease, served) = (Arc::clone(locks), asked.lease, served.clone());
    tokio::spawn(async move {
        let got = grant(&*client, &asked, 8_000).await;
        let _ = served.send(number);
        pause(5).await;
        release(&*client, got.lease.id()).await;
    });
    for attempt in 0.. {
        let table = locks.inspect(&context(), soon()).await.unwrap_or_else(|error| panic!("{error}"));
        if table.waiters.iter().any(|waiter| waiter.lease == lease) {
            return;
        }
        assert!(attempt < 400, "request {number} never queues");
        pause(5).await;
    }
}

async fn next(served: &mut mpsc::UnboundedReceiver<usize>) -> usize {
    let found = tokio::time::timeout(Duration::from_secs(8), served.recv()).await;
    found.ok().flatten().unwrap_or_else(|| panic!("nobody was served"))
}

/// Promptly, long before its deadline.
pub async fn a_waiter_is_served_when_the_holder_releases<F: LockFixture>() {
    let fixture = F::open().await;
    let locks = fixture.locks();
    served_promptly(&locks, &locks).await;
}

/// As promptly where the waiter lives elsewhere.
pub async fn a_waiter_of_another_client_is_served_too<F: LockFixture>() {
    let fixture = F::open().await;
    served_promptly(&fixture.locks(), &fixture.second().await).await;
}

async fn served_promptly(holder: &Arc<dyn LockService>, waiter: &Arc<dyn LockService>) {
    let (served, mut order) = mpsc::unbounded_channel();
    let got = grant(&**holder, &exclusive("a", "x"), 0).await;
    queue(waiter, exclusive("b", "x"), 1, &served).await;
    let released = Instant::now();
    release(&**holder, got.lease.id()).await;
    next(&mut order).await;
    assert!(released.elapsed() < Duration::from_secs(1), "served only after {:?}", released.elapsed());
}

/// In the order in which they asked, whichever client they asked through.
pub async fn first_come_is_first_served<F: LockFixture>() {
    let fixture = F::open().await;
    let clients = [fixture.locks(), fixture.second().await];
    let (served, mut order) = mpsc::unbounded_channel();
    let got = grant(&*clients[0], &exclusive("a", "x"), 0).await;
    for number in 0..8 {
        queue(&clients[number % 2], exclusive("w", "x"), number, &served).await;
    }
    release(&*clients[0], got.lease.id()).await;
    for number in 0..8 {
        assert_eq!(next(&mut order).await, number);
    }
}

/// Whoever stops waiting and says so is skipped.
pub async fn a_dropped_waiter_does_not_block_the_queue<F: LockFixture>() {
    let fixture = F::open().await;
    let locks = fixture.locks();
    let got = grant(&*locks, &exclusive("a", "x"), 0).await;
    let dropped = exclusive("b", "x");
    let waiting = acquire(&*locks, &dropped, 5_000);
    assert!(tokio::time::timeout(Duration::from_millis(100), waiting).await.is_err());
    release(&*locks, dropped.lease).await;
    let (served, mut order) = mpsc::unbounded_channel();
    queue(&locks, exclusive("c", "x"), 1, &served).await;
    release(&*locks, got.lease.id()).await;
    let released = Instant::now();
    next(&mut order).await;
    assert!(released.elapsed() < Duration::from_secs(1), "{:?}", released.elapsed());
}

/// Readers that come after a writer wait for it.
pub async fn a_writer_is_not_starved_by_readers<F: LockFixture>() {
    let fixture = F::open().await;
    let locks = fixture.locks();
    assert!(locks.capabilities().shared_mode, "an engine without shared mode needs a case of its own");
    let reader = |name: &str| request(name, &[("x", Mode::Shared)], 10_000);
    let (served, mut order) = mpsc::unbounded_channel();
    let first = grant(&*locks, &reader("r1"), 0).await;
    queue(&locks, exclusive("w", "x"), 1, &served).await;
    queue(&locks, reader("r2"), 2, &served).await;
    refused(&*locks, &reader("r3"), 0).await;
    release(&*locks, first.lease.id()).await;
    assert_eq!((next(&mut order).await, next(&mut order).await), (1, 2));
}

/// However many ask, from both clients: never two at once.
pub async fn contenders_never_overlap<F: LockFixture>() {
    const CONTENDERS: usize = 30;
    const ROUNDS: usize = 5;
    let fixture = F::open().await;
    let clients = [fixture.locks(), fixture.second().await];
    let (inside, entered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = Vec::new();
    for contender in 0..CONTENDERS {
        let (locks, inside, entered) = (Arc::clone(&clients[contender % 2]), Arc::clone(&inside), Arc::clone(&entered));
        tasks.push(tokio::spawn(async move {
            for _ in 0..ROUNDS {
                let got = grant(&*locks, &exclusive("c", "x"), 30_000).await;
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two are inside");
                tokio::task::yield_now().await;
                entered.fetch_add(1, Ordering::SeqCst);
                inside.fetch_sub(1, Ordering::SeqCst);
                release(&*locks, got.lease.id()).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap_or_else(|error| panic!("{error}"));
    }
    assert_eq!(entered.load(Ordering::SeqCst), CONTENDERS * ROUNDS);
}
