//! What happens to locks when the server dies, restarts, cuts connections or is set up wrongly: tokens never go back, no
//! acknowledged update is lost, and whoever waits goes on.

#![expect(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use mutext_conformance::Epochs;
use mutext_conformance::asking::an_epoch_is_waited_for_until_the_deadline;
use mutext_contract::{
    Acquisition, AgentName, Claim, ContextName, Deadline, DocumentStore, EpochSource, FencedRead, Grant, Holder, Lease,
    LockRequest, LockService, Mode, Outcome, Precondition, Release, Renewal, Severity, Ttl,
};
use mutext_postgres::{PostgresLocks, PostgresStore};
use mutext_testbed::PostgresServer;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{address, context, fresh_schema, key, options, path, put, shared, soon, started};

/// One process: documents and locks of a schema.
#[derive(Clone)]
struct Process {
    store: Arc<PostgresStore>,
    locks: Arc<PostgresLocks>,
}

impl Process {
    async fn start(server: &PostgresServer, schema: &str) -> Self {
        let options = options(&address(server, &format!("schema={schema}&pool=3")));
        let store = options.open(soon()).await.unwrap();
        let epochs: Arc<dyn EpochSource> = Arc::<PostgresStore>::clone(&store);
        let locks = options.open_locks(epochs, soon()).await.unwrap();
        Self { store, locks }
    }

    async fn take(&self, request: &LockRequest) -> Lease {
        self.granted(request).await.lease
    }

    async fn granted(&self, request: &LockRequest) -> Grant {
        match self.locks.acquire(request, soon()).await {
            Ok(Acquisition::Granted(grant)) => grant,
            other => panic!("expected a grant; found {other:?}"),
        }
    }

    async fn release(&self, lease: &Lease) -> Release {
        self.locks.release(&lease.context, lease.id(), soon()).await.unwrap()
    }
}

fn request(context: &ContextName, resource: &str, ttl: Duration) -> LockRequest {
    let holder = Holder::new(AgentName::new("anna").unwrap());
    LockRequest::exclusive(context.clone(), holder, Ttl::new(ttl).unwrap(), resource.parse().unwrap())
}

/// Adds to a counter under the lock until `ended`; answers what was acknowledged. What the server did not acknowledge is
/// sent again under its key by the store itself, or counts as not done.
async fn count(
    process: Process,
    board: ContextName,
    worker: usize,
    done: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
) -> (BTreeSet<String>, u64) {
    let (mut acknowledged, mut highest) = (BTreeSet::new(), 0);
    for number in 0.. {
        if ended.load(Ordering::SeqCst) {
            break;
        }
        let request = request(&board, "sums", Duration::from_secs(5));
        let lease = match process.locks.acquire(&request, soon()).await {
            Ok(Acquisition::Granted(grant)) => grant.lease,
            Ok(other) => panic!("expected a grant in time; found {other:?}"),
            Err(error) => panic!("expected the server back in time; found {error}"),
        };
        highest = highest.max(lease.token.epoch);
        let fence = lease.fence();
        let at = path("sums/all");
        // A lease that was forgotten in a crash may be refused here: that is what the fence is for.
        if let FencedRead::Read(before) = process.store.read_fenced(&board, &at, &fence, soon()).await.unwrap() {
            let entry = format!("{worker}/{number}");
            let text = before.as_ref().map_or(String::new(), |before| format!("{} ", before.content.as_str()));
            let commit = put("sums/all", &format!("{text}{entry}"), Precondition::unchanged(before.as_ref()))
                .fenced_by(fence)
                .key(key(entry.clone()));
            if let Outcome::Committed(_) = process.store.commit(&board, &commit, soon()).await.unwrap() {
                acknowledged.insert(entry);
                done.fetch_add(1, Ordering::SeqCst);
            }
        }
        process.release(&lease).await;
    }
    (acknowledged, highest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_forgets_leases_and_no_update_that_was_made_under_them() {
    let mut server = started();
    let processes = [Process::start(&server, "counting").await, Process::start(&server, "counting").await];
    let (board, done, ended) = (context("board"), Arc::<AtomicU64>::default(), Arc::new(AtomicBool::new(false)));
    let workers: Vec<_> = (0..6)
        .map(|worker| {
            let process = processes[worker % processes.len()].clone();
            tokio::spawn(count(process, board.clone(), worker, Arc::clone(&done), Arc::clone(&ended)))
        })
        .collect();
    let go_on = async |least: u64| {
        let before = done.load(Ordering::SeqCst);
        while done.load(Ordering::SeqCst) < before + least {
            sleep(Duration::from_millis(5)).await;
        }
    };
    for least in [10, 7, 12] {
        go_on(least).await;
        server.kill().unwrap();
        server.restart().unwrap();
    }
    go_on(10).await;
    ended.store(true, Ordering::SeqCst);
    let (mut acknowledged, mut highest) = (BTreeSet::new(), 0);
    for worker in workers {
        let (own, epoch) = worker.await.unwrap();
        acknowledged.extend(own);
        highest = highest.max(epoch);
    }
    let document = processes[0].store.read(&board, &path("sums/all"), soon()).await.unwrap().unwrap();
    let there: Vec<String> = document.content.as_str().split(' ').map(str::to_owned).collect();
    let once: BTreeSet<String> = there.iter().cloned().collect();
    assert_eq!(once.len(), there.len(), "something happened twice");
    let lost: Vec<_> = acknowledged.difference(&once).collect();
    assert!(lost.is_empty(), "acknowledged, and not there: {lost:?}");
    // Each crash that came between two grants began an epoch.
    assert!(highest >= 4, "the epoch is {highest} after three crashes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_begins_an_epoch_and_a_waiter_asks_again() {
    let mut server = started();
    let (one, other) = (Process::start(&server, "epochs").await, Process::start(&server, "epochs").await);
    let board = context("board");
    let lease = one.take(&request(&board, "plan.md", Duration::from_secs(60))).await;
    let waiting = {
        let (other, request) = (other.clone(), request(&board, "plan.md", Duration::from_secs(60)));
        tokio::spawn(async move { other.take(&request).await })
    };
    until_somebody_waits(&one, &board).await;
    server.kill().unwrap();
    server.restart().unwrap();
    // The lease is forgotten, so the waiter gets its own; under a token that keeps the old one out.
    let next = waiting.await.unwrap();
    assert!(next.token.epoch > lease.token.epoch, "{:?} after {:?}", next.token, lease.token);
    let lost = one.locks.renew(&lease, soon()).await.unwrap();
    assert!(matches!(lost, Renewal::Lost(_)), "{lost:?}");
    let read = one.store.read_fenced(&board, &path("plan.md"), &next.fence(), soon()).await.unwrap();
    assert!(matches!(read, FencedRead::Read(None)), "{read:?}");
    let stale = put("plan.md", "late", Precondition::Any).fenced_by(lease.fence());
    let refused = one.store.commit(&board, &stale, soon()).await.unwrap();
    assert!(matches!(refused, Outcome::Refused(_)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_in_good_order_keeps_leases_and_begins_an_epoch() {
    let mut server = started();
    let process = Process::start(&server, "orderly").await;
    let board = context("board");
    let kept = process.take(&request(&board, "kept.md", Duration::from_secs(60))).await;
    let first = process.take(&request(&board, "plan.md", Duration::from_secs(60))).await;
    process.release(&first).await;
    server.shut_down().unwrap();
    server.restart().unwrap();
    let renewed = process.locks.renew(&kept, soon()).await.unwrap();
    assert!(matches!(renewed, Renewal::Renewed { .. }), "{renewed:?}");
    let blocked = process.locks.acquire(&request(&board, "kept.md", Duration::from_secs(9)), Deadline::now()).await;
    assert!(matches!(&blocked, Ok(Acquisition::TimedOut(blocked)) if blocked.holdings.len() == 1), "{blocked:?}");
    let next = process.take(&request(&board, "plan.md", Duration::from_secs(9))).await;
    assert!(next.token.epoch > kept.token.epoch, "{:?} after {:?}", next.token, kept.token);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_cost_no_lease_and_no_place_in_the_queue() {
    let server = started();
    let (one, other) = (Process::start(&server, "cut").await, Process::start(&server, "cut").await);
    let board = context("board");
    let lease = one.take(&request(&board, "plan.md", Duration::from_secs(60))).await;
    let waiting = {
        let (other, request) = (other.clone(), request(&board, "plan.md", Duration::from_secs(60)));
        tokio::spawn(async move { other.take(&request).await })
    };
    until_somebody_waits(&one, &board).await;
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'mutext'";
    for _ in 0..3 {
        server.sql(cut).unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    let renewed = one.locks.renew(&lease, soon()).await.unwrap();
    assert!(matches!(renewed, Renewal::Renewed { .. }), "{renewed:?}");
    assert!(!waiting.is_finished(), "it was granted what another holds");
    assert_eq!(one.locks.inspect(&board, soon()).await.unwrap().waiters.len(), 1);
    assert_eq!(one.release(&lease).await, Release::Released);
    let next = waiting.await.unwrap();
    assert!(next.token.number() > lease.token.number());
}

/// Asks for both of two resources, with tokens to spare.
fn keeping(context: &ContextName, spare: u32) -> LockRequest {
    let holder = Holder::new(AgentName::new("anna").unwrap());
    let claims = ["plan.md", "tasks"].map(|at| Claim { resource: at.parse().unwrap(), mode: Mode::Shared });
    let ttl = Ttl::new(Duration::from_secs(60)).unwrap();
    let mut request = LockRequest::new(context.clone(), holder, ttl, claims).unwrap();
    request.spare = spare;
    request
}

#[tokio::test]
async fn a_lease_with_tokens_to_spare_is_told_of_whatever_it_covers_and_its_row_forgets_them() {
    let (server, schema) = (shared(), fresh_schema());
    let (one, other) = (Process::start(server, &schema).await, Process::start(server, &schema).await);
    let board = context("board");
    let mut wanted = one.locks.wanted().unwrap();
    let kept = one.granted(&keeping(&board, 5_000)).await;
    // No more than there are between one number and the next.
    assert_eq!(kept.spare, 1_023);
    // Shared with others, it is in nobody's way.
    let shared = other.take(&keeping(&board, 0)).await;
    assert!(shared.token.counter > kept.lease.token.counter + u64::from(kept.spare), "{}", shared.token);
    other.release(&shared).await;
    let below = request(&board, "tasks/7", Duration::from_secs(60));
    let tried = Instant::now();
    let tried = (other.locks.acquire(&below, Deadline::now()).await, tried.elapsed());
    assert!(matches!(&tried.0, Ok(Acquisition::TimedOut(blocked)) if blocked.holdings.len() == 1), "{tried:?}");
    assert!(tried.1 >= Duration::from_millis(10), "its holder had {:?}", tried.1);
    // The try, and the moment that it was given.
    for _ in 0..2 {
        assert_eq!(timeout(Duration::from_secs(9), wanted.recv()).await.unwrap().unwrap(), kept.lease.id());
    }
    // What takes its place has none: others may wait for it already.
    let mut converting = LockRequest::converting(&kept.lease, Mode::Exclusive);
    converting.spare = 5;
    let converted = one.granted(&converting).await;
    assert_eq!(converted.spare, 0);
    other.locks.acquire(&below, Deadline::now()).await.unwrap();
    one.release(&converted.lease).await;
    let plain = one.take(&request(&board, "plan.md", Duration::from_secs(60))).await;
    other.locks.acquire(&request(&board, "plan.md/x", Duration::from_secs(60)), Deadline::now()).await.unwrap();
    one.release(&plain).await;
    assert!(timeout(Duration::from_millis(300), wanted.recv()).await.is_err(), "told of an ordinary lease");
}

#[tokio::test]
async fn whoever_may_not_have_heard_who_wants_its_lease_is_told_that_somebody_may() {
    let (server, board) = (started(), context("board"));
    let process = Process::start(&server, "deaf").await;
    let mut wanted = process.locks.wanted().unwrap();
    process.take(&request(&board, "other.md", Duration::from_secs(60))).await;
    let kept = process.granted(&keeping(&board, 5)).await;
    assert_eq!(kept.spare, 5);
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'mutext'";
    server.sql(cut).unwrap();
    assert_eq!(timeout(Duration::from_secs(9), wanted.recv()).await.unwrap().unwrap(), kept.lease.id());
    // It hears again soon.
    let again = async {
        loop {
            let kept = process.granted(&keeping(&board, 5)).await;
            if kept.spare == 5 {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(9), again).await.unwrap();
}

async fn until_somebody_waits(process: &Process, board: &ContextName) {
    while process.locks.inspect(board, soon()).await.unwrap().waiters.is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_tells_the_next_process() {
    let server = shared();
    let schema = fresh_schema();
    let (one, other) = (Process::start(server, &schema).await, Process::start(server, &schema).await);
    let (board, mut told) = (context("board"), 0);
    for _ in 0..10 {
        let lease = one.take(&request(&board, "plan.md", Duration::from_secs(9))).await;
        let waiting = {
            let (other, request) = (other.clone(), request(&board, "plan.md", Duration::from_secs(9)));
            tokio::spawn(async move { other.locks.acquire(&request, soon()).await })
        };
        until_somebody_waits(&one, &board).await;
        one.release(&lease).await;
        let Ok(Acquisition::Granted(grant)) = waiting.await.unwrap() else { panic!("expected a grant") };
        assert!(grant.queued);
        told += usize::from(grant.handed_over_after.is_some());
        other.release(&grant.lease).await;
    }
    // A look of its own may come first now and then.
    assert!(told >= 5, "only {told} of 10 were told");
    let findings = one.locks.examine(soon()).await.unwrap();
    let wake_ups = findings.iter().find(|finding| finding.subject == "wake-ups").unwrap();
    assert_eq!(wake_ups.severity, Severity::Fine, "{wake_ups:?}");
    assert!(!findings.iter().any(|finding| finding.subject == "fsync"), "locks need no disk");
}

#[tokio::test]
async fn a_step_in_another_isolation_is_refused() {
    let (server, schema) = (shared(), fresh_schema());
    let process = Process::start(server, &schema).await;
    drop(process);
    let step = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT {schema}.lock_release(1, 'c', '\\x01', null, 'h', null, null, false)"
    );
    let refused = server.sql(&step).unwrap_err().to_string();
    assert!(refused.contains("locks need transactions in read committed"), "{refused}");
}

#[tokio::test]
async fn what_nobody_needs_any_more_is_forgotten_and_what_stands_is_not() {
    let (server, schema) = (shared(), fresh_schema());
    let process = Process::start(server, &schema).await;
    let board = context("board");
    let kept = process.take(&request(&board, "kept.md", Duration::from_secs(60))).await;
    for number in 0..20 {
        let lease = process.take(&request(&board, &format!("task/{number}"), Duration::from_secs(9))).await;
        if number % 2 == 0 {
            process.release(&lease).await;
        }
    }
    let count = || server.sql(&format!("SELECT count(*) FROM {schema}.lock_claims")).unwrap().trim().to_owned();
    assert_eq!(count(), "21");
    let aged = format!("UPDATE {schema}.lock_claims SET ends = ends - interval '2 hours' WHERE path <> 'kept.md'");
    server.sql(&format!("{aged}; SELECT {schema}.lock_sweep()")).unwrap();
    assert_eq!(count(), "1");
    assert!(matches!(process.locks.renew(&kept, soon()).await.unwrap(), Renewal::Renewed { .. }));
}

#[tokio::test]
async fn odd_names_and_reasons_come_back_as_they_were() {
    let process = Process::start(shared(), &fresh_schema()).await;
    let board = context("board");
    let mut odd = request(&board, "ein Plan/'\"\\%_ü", Duration::from_secs(9));
    odd.reason = Some("zero \0, quote \" and 中".to_owned());
    let lease = process.take(&odd).await;
    let table = process.locks.inspect(&board, soon()).await.unwrap();
    assert_eq!((&table.holdings[0].claims, &table.holdings[0].reason), (odd.claims(), &odd.reason));
    let by = AgentName::new("operator").unwrap();
    process.locks.revoke(&board, lease.id(), &by, "why \0?", soon()).await.unwrap();
    let lost = process.locks.renew(&lease, soon()).await.unwrap();
    assert!(format!("{lost:?}").contains("why \\0?"), "{lost:?}");
}

/// The seconds since 1970.
fn seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_was_behind_and_takes_over_mints_no_epoch_again() {
    let mut server = started();
    let board = context("board");
    let before = Process::start(&server, "behind").await;
    let first = before.store.mint_epoch(&board, 0, soon()).await.unwrap();
    let mut standby = server.standby().unwrap();
    let knows = |epoch: u64| standby.sql("SELECT max(epoch) FROM behind.epochs").unwrap() == epoch.to_string();
    while !knows(first) {
        sleep(Duration::from_millis(20)).await;
    }
    standby.shut_down().unwrap();
    // The standby will know neither this epoch nor what was written under it.
    let lost = before.take(&request(&board, "plan.md", Duration::from_secs(60))).await;
    assert!(lost.token.epoch > first, "{} after {first}", lost.token);
    server.kill().unwrap();
    standby.restart().unwrap();
    standby.promote().unwrap();
    // As many seconds as epochs that were forgotten: here one or two, and the servers took longer than that.
    while seconds() <= lost.token.epoch {
        sleep(Duration::from_millis(50)).await;
    }
    let after = Process::start(&standby, "behind").await;
    assert_eq!(standby.sql("SELECT max(epoch) FROM behind.epochs").unwrap(), first.to_string());
    let next = after.take(&request(&board, "plan.md", Duration::from_secs(60))).await;
    assert!(next.token.epoch > lost.token.epoch, "{} after {}", next.token, lost.token);
    // Whoever held the lock before is behind as soon as the new holder has read.
    let at = path("plan.md");
    let read = after.store.read_fenced(&board, &at, &next.fence(), soon()).await.unwrap();
    assert!(matches!(read, FencedRead::Read(None)), "{read:?}");
    let late = after.store.read_fenced(&board, &at, &lost.fence(), soon()).await.unwrap();
    assert!(matches!(late, FencedRead::Fenced(_)), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_epoch_that_is_remembered_is_passed_though_the_store_forgot_it() {
    let mut server = started();
    let epochs = Arc::<Epochs>::default();
    let options = options(&address(&server, "schema=remembered&pool=3"));
    let locks = options.open_locks(Arc::<Epochs>::clone(&epochs), soon()).await.unwrap();
    let board = context("board");
    locks.begin_epoch(&board, 1_000, soon()).await.unwrap();
    epochs.forget();
    server.shut_down().unwrap();
    server.restart().unwrap();
    let request = request(&board, "plan.md", Duration::from_secs(9));
    match locks.acquire(&request, soon()).await {
        Ok(Acquisition::Granted(grant)) => assert!(grant.lease.token.epoch > 1_001, "{}", grant.lease.token),
        other => panic!("expected a grant; found {other:?}"),
    }
}

/// A process that had the schema open while a newer one raised it goes on: what its version calls is there yet.
#[tokio::test]
async fn what_the_version_before_calls_begins_an_epoch_or_says_to_upgrade() {
    let (server, schema) = (shared(), fresh_schema());
    let process = Process::start(server, &schema).await;
    let begins = |epoch: u64| {
        server.sql(&format!("SELECT outcome FROM {schema}.lock_begin(7::bigint, 'board', {epoch}::bigint, 'home')"))
    };
    assert_eq!(begins(41).unwrap().trim(), "1");
    let lease = process.take(&request(&context("board"), "plan.md", Duration::from_secs(30))).await;
    assert_eq!(lease.token.epoch, 41);
    // There is one already: that is as good.
    assert_eq!(begins(40).unwrap().trim(), "1");
    server.sql(&format!("UPDATE {schema}.lock_contexts SET run = '-infinity'")).unwrap();
    // It would ask again for ever.
    let refused = begins(41).unwrap_err().to_string();
    for part in ["epoch 41", "board", "not above 41", "upgrade it"] {
        assert!(refused.contains(part), "{part:?} is not in: {refused}");
    }
    assert_eq!(begins(42).unwrap().trim(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_epoch_that_others_begin_is_waited_for_no_longer_than_a_lock() {
    let server = started();
    let epochs = Arc::<Epochs>::default();
    let options = options(&address(&server, "schema=hanging&pool=3"));
    let locks = options.open_locks(Arc::<Epochs>::clone(&epochs), soon()).await.unwrap();
    an_epoch_is_waited_for_until_the_deadline(locks, &epochs).await;
}
