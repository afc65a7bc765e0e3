//! How a lock passes to a waiter in another process: pushed through its socket, and found by looking where the push
//! went astray. Each opening of the store has a socket and connections of its own, as another process would.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mutext_contract::{
    Acquisition, AgentName, ContextName, Deadline, EngineError, Grant, Holder, LeaseId, LockRequest, LockService,
    Release, Resource, Ttl,
};
use mutext_embedded::{Embedded, EmbeddedOptions};
use tokio::task::JoinHandle;

/// What a loaded machine may take for something that happens at once.
const AT_ONCE: Duration = Duration::from_secs(2);

type Waiting = JoinHandle<Result<Acquisition, EngineError>>;

fn deadline() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

fn context() -> ContextName {
    ContextName::new("main").unwrap()
}

async fn open(dir: &Path, look_again: Duration) -> Embedded {
    EmbeddedOptions::new(dir).look_again(look_again).open(deadline()).await.unwrap()
}

fn request(agent: &str) -> LockRequest {
    let ttl = Ttl::new(Duration::from_secs(60)).unwrap();
    LockRequest::exclusive(context(), Holder::new(AgentName::new(agent).unwrap()), ttl, Resource::new("a").unwrap())
}

async fn take(client: &Embedded) -> LeaseId {
    match client.locks.acquire(&request("holder"), Deadline::now()).await.unwrap() {
        Acquisition::Granted(grant) => grant.lease.id(),
        other => panic!("expected the lock to be free; found {other:?}"),
    }
}

/// Waits on a task of its own; returns once it queues.
async fn queue(client: &Embedded) -> Waiting {
    queue_for(client, request("waiter")).await
}

async fn queue_for(client: &Embedded, request: LockRequest) -> Waiting {
    let (locks, lease, context) = (Arc::clone(&client.locks), request.lease, request.context.clone());
    let waiting = tokio::spawn(async move { locks.acquire(&request, deadline()).await });
    let begun = Instant::now();
    loop {
        let table = client.locks.inspect(&context, deadline()).await.unwrap();
        if table.waiters.iter().any(|waiter| waiter.lease == lease) {
            return waiting;
        }
        assert!(begun.elapsed() < AT_ONCE, "expected the request to queue; found {table:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn release(client: &Embedded, lease: LeaseId) {
    assert_eq!(client.locks.release(&context(), lease, deadline()).await.unwrap(), Release::Released);
}

/// The grant, and how long it took from now.
async fn granted(waiting: Waiting) -> (Grant, Duration) {
    let begun = Instant::now();
    match tokio::time::timeout(Duration::from_secs(30), waiting).await {
        Ok(Ok(Ok(Acquisition::Granted(grant)))) => (grant, begun.elapsed()),
        other => panic!("expected a grant; found {other:?}"),
    }
}

fn sockets(dir: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(dir.join("wake")).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_is_pushed_and_does_not_wait_for_the_next_look() {
    let dir = tempfile::tempdir().unwrap();
    let look_again = Duration::from_secs(10);
    let (first, second) = (open(dir.path(), look_again).await, open(dir.path(), look_again).await);
    for (holder, waiter) in [(&first, &second), (&second, &first), (&first, &first)] {
        let lease = take(holder).await;
        let waiting = queue(waiter).await;
        release(holder, lease).await;
        let (grant, took) = granted(waiting).await;
        assert!(took < AT_ONCE, "expected the grant to be pushed; it took {took:?}");
        release(waiter, grant.lease.id()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expiry_does_not_wait_for_the_next_look() {
    let dir = tempfile::tempdir().unwrap();
    let look_again = Duration::from_secs(10);
    let (first, second) = (open(dir.path(), look_again).await, open(dir.path(), look_again).await);
    let mut short = request("holder");
    short.ttl = Ttl::new(Duration::from_millis(300)).unwrap();
    let held = first.locks.acquire(&short, Deadline::now()).await.unwrap();
    assert!(matches!(held, Acquisition::Granted(_)), "expected the lock to be free; found {held:?}");
    let (_, took) = granted(queue(&second).await).await;
    assert!(took < AT_ONCE, "expected the waiter to wake when the lease ran out; it took {took:?}");
}

/// Opens a client whose address leads to a socket that nobody reads: every push to it arrives nowhere.
async fn open_deaf(dir: &Path, look_again: Duration) -> (Embedded, UnixDatagram) {
    let before = sockets(dir);
    let client = open(dir, look_again).await;
    let added: Vec<String> = sockets(dir).difference(&before).cloned().collect();
    let [address] = added.as_slice() else { panic!("expected one more socket; found {added:?}") };
    let address = dir.join("wake").join(address);
    fs::remove_file(&address).unwrap();
    (client, UnixDatagram::bind(&address).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_went_astray_is_made_up_for_by_the_next_look() {
    let dir = tempfile::tempdir().unwrap();
    let look_again = Duration::from_millis(1200);
    let first = open(dir.path(), look_again).await;
    let (second, _unread) = open_deaf(dir.path(), look_again).await;
    let lease = take(&first).await;
    let waiting = queue(&second).await;
    release(&first, lease).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished(), "expected the push to go astray; else this test shows nothing");
    let (grant, took) = granted(waiting).await;
    assert!(took < look_again + AT_ONCE, "expected the waiter to look for itself; it took {took:?}");
    let table = first.locks.inspect(&context(), deadline()).await.unwrap();
    assert_eq!(table.holdings.iter().map(|holding| holding.lease).collect::<Vec<_>>(), [grant.lease.id()]);
}

/// A waiter that slept through its turn, so that another was served, still waits until its deadline: nothing else
/// ends an acquire.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_that_missed_its_turn_goes_on_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path(), Duration::from_millis(100)).await;
    // It looks again only after its unconfirmed grant has lapsed and gone to the next.
    let (deaf, _unread) = open_deaf(dir.path(), Duration::from_millis(3500)).await;
    let lease = take(&first).await;
    let missed = queue(&deaf).await;
    let next = queue(&first).await;
    release(&first, lease).await;
    let (grant, _) = granted(next).await;
    assert!(!missed.is_finished(), "expected the first waiter to sleep through its turn; else this shows nothing");
    release(&first, grant.lease.id()).await;
    granted(missed).await;
}

/// A dead waiter is passed over in the same moment: its refused datagram tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_that_died_is_passed_over_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let look_again = Duration::from_secs(10);
    let first = open(dir.path(), look_again).await;
    let before = sockets(dir.path());
    let doomed = open(dir.path(), look_again).await;
    let added: Vec<String> = sockets(dir.path()).difference(&before).cloned().collect();
    let last = open(dir.path(), look_again).await;

    let lease = take(&first).await;
    let dying = queue(&doomed).await;
    let waiting = queue(&last).await;
    dying.abort();
    assert!(dying.await.is_err());
    drop(doomed);
    // As a killed process leaves it: an address with nobody behind it. Its thread closes the living one first.
    let address = dir.path().join("wake").join(&added[0]);
    let begun = Instant::now();
    while address.exists() {
        assert!(begun.elapsed() < AT_ONCE, "expected the closed client's socket to go");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    drop(UnixDatagram::bind(&address).unwrap());

    release(&first, lease).await;
    let (_, took) = granted(waiting).await;
    assert!(took < AT_ONCE, "expected the dead waiter to be passed over at once; it took {took:?}");
    assert!(!address.exists(), "expected the dead waiter's socket to be swept away");
}

/// A dead holder is found by its presence, long before its TTL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_died_is_found_when_somebody_waits() {
    let dir = tempfile::tempdir().unwrap();
    let look_again = Duration::from_millis(200);
    let (doomed, first) = (open(dir.path(), look_again).await, open(dir.path(), look_again).await);
    take(&doomed).await;
    let waiting = queue(&first).await;
    drop(doomed);
    let (_, took) = granted(waiting).await;
    assert!(took < AT_ONCE, "expected the dead holder to be found within {look_again:?}; it took {took:?}");
}

/// Whoever finds a dead process ends its leases in every context, and whoever waits there is served with the same
/// push: it does not wait for its own next look.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_holder_that_one_waiter_finds_is_found_for_all() {
    let dir = tempfile::tempdir().unwrap();
    let look_again = Duration::from_secs(6);
    let (doomed, first) = (open(dir.path(), look_again).await, open(dir.path(), look_again).await);
    let elsewhere = |agent: &str| {
        let mut request = request(agent);
        request.context = ContextName::new("elsewhere").unwrap();
        request
    };
    take(&doomed).await;
    let held = doomed.locks.acquire(&elsewhere("holder"), Deadline::now()).await.unwrap();
    assert!(matches!(held, Acquisition::Granted(_)), "expected the lock to be free; found {held:?}");
    let waiting = queue_for(&first, elsewhere("waiter")).await;
    let before = sockets(dir.path());
    drop(doomed);
    let begun = Instant::now();
    while sockets(dir.path()) == before {
        assert!(begun.elapsed() < AT_ONCE, "expected the closed client's socket to go");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }

    let found = first.locks.acquire(&request("finder"), deadline()).await.unwrap();
    assert!(matches!(found, Acquisition::Granted(_)), "expected the dead holder to be found; found {found:?}");
    let (_, took) = granted(waiting).await;
    assert!(took < AT_ONCE, "expected the other context's waiter to be served at once; it took {took:?}");
}

/// A connection to the lock table, to keep it busy with.
fn lock_table(dir: &Path) -> rusqlite::Connection {
    let mut names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let is_table = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "db") && path.to_string_lossy().contains("locks-")
    };
    rusqlite::Connection::open(names.find(is_table).unwrap()).unwrap()
}

/// One try is a try: where others keep the lock table busy for a moment, a free lock is still granted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_try_finds_a_free_lock_although_others_keep_the_table_busy() {
    let dir = tempfile::tempdir().unwrap();
    let client = open(dir.path(), Duration::from_millis(200)).await;
    let warm = take(&client).await;
    release(&client, warm).await;
    let busy = lock_table(dir.path());
    busy.execute_batch("BEGIN IMMEDIATE").unwrap();
    let trying = tokio::spawn(async move { client.locks.acquire(&request("waiter"), Deadline::now()).await });
    tokio::time::sleep(Duration::from_millis(400)).await;
    busy.execute_batch("ROLLBACK").unwrap();
    let outcome = trying.await.unwrap().unwrap();
    assert!(matches!(outcome, Acquisition::Granted(_)), "expected the free lock to be granted; found {outcome:?}");
}

/// A waiter whose deadline passes while others keep the lock table busy still learns who is in its way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_that_ends_while_the_table_is_busy_names_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    // Its one look but for the first is at its deadline.
    let client = open(dir.path(), Duration::from_secs(10)).await;
    let lease = take(&client).await;
    let (locks, request) = (Arc::clone(&client.locks), request("waiter"));
    let until = Deadline::after(Duration::from_millis(500));
    let waiting = tokio::spawn(async move { locks.acquire(&request, until).await });
    let begun = Instant::now();
    while client.locks.inspect(&context(), deadline()).await.unwrap().waiters.is_empty() {
        assert!(begun.elapsed() < AT_ONCE, "expected the request to queue");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let busy = lock_table(dir.path());
    busy.busy_timeout(AT_ONCE).unwrap();
    busy.execute_batch("BEGIN IMMEDIATE").unwrap();
    tokio::time::sleep_until(until.instant() + Duration::from_millis(400)).await;
    busy.execute_batch("ROLLBACK").unwrap();
    let outcome = waiting.await.unwrap().unwrap();
    let Acquisition::TimedOut(blocked) = outcome else { panic!("expected the wait to run out; found {outcome:?}") };
    let in_the_way: Vec<_> = blocked.holdings.iter().map(|holding| holding.lease).collect();
    assert_eq!(in_the_way, [lease], "expected the holder to be named; found {blocked:?}");
}
