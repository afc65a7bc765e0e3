//! What happens when members die, hang and forget their history, when the process is silent for too long, and when
//! clients die.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Epochs, open, soon};
use mutext_conformance::asking::{an_epoch_is_waited_for_until_the_deadline, context, granted, queued, request};
use mutext_contract::{Deadline, Effect, LockService, Release, Renewal, TroubleKind};
use mutext_etcd::EtcdLocks;
use mutext_testbed::EtcdServer;

const TTL: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(20);

async fn two(server: &EtcdServer) -> (Arc<EtcdLocks>, Arc<EtcdLocks>) {
    let epochs = Arc::default();
    (open(&server.url(), &epochs).await.unwrap(), open(&server.url(), &epochs).await.unwrap())
}

/// A request that waits in a task of its own.
fn waiting(locks: &Arc<EtcdLocks>, agent: &str, path: &str) -> tokio::task::JoinHandle<mutext_contract::Grant> {
    let (locks, request) = (Arc::clone(locks), request(agent, path, TTL));
    tokio::spawn(async move { granted(&locks, &request, LONG).await })
}

async fn within<T>(limit: Duration, task: tokio::task::JoinHandle<T>) -> T {
    tokio::time::timeout(limit, task).await.expect("it comes in time").unwrap()
}

/// Writes elsewhere, and makes etcd forget all that was before.
fn compact(server: &EtcdServer) {
    for _ in 0..10 {
        server.ctl(&["put", "elsewhere", "x"]).unwrap();
    }
    let said = server.ctl(&["put", "elsewhere", "x", "--write-out=json"]).unwrap();
    let revision = said.split("\"revision\":").nth(1).unwrap().split([',', '}']).next().unwrap().to_owned();
    server.ctl(&["compact", &revision]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_survives_a_compaction_and_a_connection_that_breaks_after_it() {
    let mut server = EtcdServer::start().unwrap();
    let (anna, bert) = two(&server).await;
    let held = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    let waiter = waiting(&bert, "bert", "plan");
    queued(&anna, 1).await;
    for round in 0..2 {
        compact(&server);
        // The watch is made again, from a revision that is gone.
        server.kill(0).unwrap();
        server.restart(0).unwrap();
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(!waiter.is_finished(), "round {round}: nobody has released the lock");
    }
    assert_eq!(anna.release(&context(), held.id(), soon()).await.unwrap(), Release::Released);
    let next = within(Duration::from_secs(3), waiter).await.lease;
    assert!(next.token.number() > held.token.number(), "{} after {}", next.token, held.token);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_while_a_watch_was_cut_and_was_compacted_since_is_found_again() {
    let mut server = EtcdServer::start().unwrap();
    let (anna, bert) = two(&server).await;
    let held = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    let waiter = waiting(&bert, "bert", "plan");
    queued(&anna, 1).await;
    server.kill(0).unwrap();
    server.restart(0).unwrap();
    // By another hand, before the clients are back if they are slow: the release, and its compaction.
    let key = format!("mutext/locks/{}/held/{}", context(), held.id());
    server.ctl(&["del", &key]).unwrap();
    compact(&server);
    let next = within(Duration::from_secs(5), waiter).await.lease;
    assert!(next.token.number() > held.token.number(), "{} after {}", next.token, held.token);
    assert!(matches!(anna.renew(&held, soon()).await.unwrap(), Renewal::Lost(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_cluster_costs_nobody_a_lease_or_a_place() {
    let mut server = EtcdServer::start().unwrap();
    let (anna, bert) = two(&server).await;
    let held = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    let first = waiting(&bert, "first", "plan");
    queued(&anna, 1).await;
    let second = waiting(&anna, "second", "plan");
    queued(&anna, 2).await;
    server.kill(0).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.restart(0).unwrap();
    assert!(matches!(anna.renew(&held, soon()).await.unwrap(), Renewal::Renewed { .. }));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!first.is_finished() && !second.is_finished(), "a lease that stands excludes others");
    assert_eq!(anna.release(&context(), held.id(), soon()).await.unwrap(), Release::Released);
    let next = within(Duration::from_secs(3), first).await.lease;
    assert_eq!(next.token.epoch, held.token.epoch);
    assert!(next.token.number() > held.token.number() && !second.is_finished());
    bert.release(&context(), next.id(), soon()).await.unwrap();
    assert!(within(Duration::from_secs(3), second).await.lease.token.number() > next.token.number());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_has_lost_its_memory_begins_a_new_epoch() {
    let epochs: Arc<Epochs> = Arc::default();
    let first = EtcdServer::start().unwrap();
    let anna = open(&first.url(), &epochs).await.unwrap();
    let old = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    // Others have begun none yet: another cluster, whose revisions begin anew.
    let second = EtcdServer::start().unwrap();
    let bert = open(&second.url(), &epochs).await.unwrap();
    let new = granted(&bert, &request("bert", "plan", TTL), LONG).await.lease;
    assert!(new.token.epoch > old.token.epoch, "{} after {}", new.token, old.token);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acquire_outlasts_a_short_outage_and_ends_in_a_long_one() {
    let mut server = EtcdServer::start().unwrap();
    let (anna, _) = two(&server).await;
    granted(&anna, &request("warm", "other", TTL), LONG).await;
    server.kill(0).unwrap();
    let asked = Instant::now();
    let error = anna.acquire(&request("anna", "plan", TTL), Deadline::after(Duration::from_millis(300))).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind, TroubleKind::Unavailable);
    assert!(error.to_string().contains("127.0.0.1") && asked.elapsed() < Duration::from_secs(4), "{error}");
    let attempt = {
        let anna = Arc::clone(&anna);
        tokio::spawn(async move { granted(&anna, &request("anna", "plan", TTL), LONG).await })
    };
    tokio::time::sleep(Duration::from_millis(400)).await;
    server.restart(0).unwrap();
    within(Duration::from_secs(10), attempt).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_ends_no_wait_late_and_leaves_nothing_behind() {
    let server = EtcdServer::start().unwrap();
    let (anna, bert) = two(&server).await;
    granted(&anna, &request("warm", "other", TTL), LONG).await;
    server.pause(0).unwrap();
    let asked = Instant::now();
    let attempt = request("anna", "plan", TTL);
    let error = anna.acquire(&attempt, Deadline::after(Duration::from_millis(500))).await.unwrap_err();
    let took = asked.elapsed();
    assert_eq!((error.kind, error.effect), (TroubleKind::Unavailable, Effect::Unknown));
    assert!(took < Duration::from_secs(4), "expected a bounded wait; it took {took:?}");
    server.resume(0).unwrap();
    // The library gives back what may have been granted.
    anna.release(&context(), attempt.lease, soon()).await.unwrap();
    granted(&bert, &request("bert", "plan", TTL), Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_gives_back_goes_with_its_time() {
    let server = EtcdServer::start().unwrap();
    let (anna, bert) = two(&server).await;
    let held = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    // A waiter that is dropped and never released, in a process that lives on.
    let dropped = request("carl", "plan", Duration::from_millis(500));
    let _ = tokio::time::timeout(Duration::from_millis(200), anna.acquire(&dropped, Deadline::after(LONG))).await;
    assert_eq!(bert.inspect(&context(), soon()).await.unwrap().waiters.len(), 1);
    let waiter = waiting(&bert, "bert", "plan");
    queued(&bert, 1).await;
    assert_eq!(anna.release(&context(), held.id(), soon()).await.unwrap(), Release::Released);
    within(Duration::from_secs(3), waiter).await;
}

/// Says what it holds, and does nothing more until it is killed.
#[tokio::test(flavor = "multi_thread")]
async fn the_dead_are_found_well_before_their_ttl() {
    const ROLE: &str = "MUTEXT_ETCD_VICTIM";
    if let Ok(role) = std::env::var(ROLE) {
        let (url, said) = role.split_once(' ').unwrap();
        let locks = open(url, &Arc::default()).await.unwrap();
        granted(&locks, &request("victim", "plan", TTL), LONG).await;
        std::fs::write(format!("{said}.part"), "held").unwrap();
        std::fs::rename(format!("{said}.part"), said).unwrap();
        std::future::pending::<()>().await;
    }
    let server = EtcdServer::start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let said = dir.path().join("said");
    let mut victim = Command::new(std::env::current_exe().unwrap());
    victim.args(["--exact", "the_dead_are_found_well_before_their_ttl"]);
    victim.env(ROLE, format!("{} {}", server.url(), said.display()));
    let mut victim = victim.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while !said.exists() {
        assert!(began.elapsed() < LONG, "the victim holds nothing");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let anna = open(&server.url(), &Arc::default()).await.unwrap();
    let waiter = waiting(&anna, "anna", "plan");
    queued(&anna, 1).await;
    // It lives, and keeps its lock.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!waiter.is_finished(), "a process that lives keeps its lock");
    victim.kill().unwrap();
    victim.wait().unwrap();
    let died = Instant::now();
    within(Duration::from_secs(6), waiter).await;
    let took = died.elapsed();
    assert!(took < Duration::from_secs(5), "expected the dead to be found within seconds of {TTL:?}; it took {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_do_not_grow_with_the_queue_and_nothing_stays_of_an_idle_lock() {
    let server = EtcdServer::start().unwrap();
    let epochs: Arc<Epochs> = Arc::default();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(open(&server.url(), &epochs).await.unwrap());
    }
    // Each hand-over is a release and a claim, whatever waits behind: two revisions.
    for waiters in [10_usize, 200] {
        let held = granted(&clients[0], &request("first", "plan", TTL), LONG).await.lease;
        let tasks: Vec<_> = (0..waiters)
            .map(|number| {
                let (locks, request) = (Arc::clone(&clients[number % 4]), request("waiter", "plan", TTL));
                tokio::spawn(async move {
                    let grant = granted(&locks, &request, Duration::from_secs(60)).await;
                    locks.release(&context(), grant.lease.id(), soon()).await.unwrap();
                    grant.lease.token.counter
                })
            })
            .collect();
        queued(&clients[1], waiters).await;
        clients[0].release(&context(), held.id(), soon()).await.unwrap();
        let mut tokens = Vec::new();
        for task in tasks {
            tokens.push(within(Duration::from_secs(60), task).await);
        }
        tokens.sort_unstable();
        let steps = (tokens[waiters - 1] - tokens[0]) / (waiters as u64 - 1);
        assert_eq!(steps, 2, "with {waiters} waiters: a release and a claim for each hand-over");
    }
    let left = server.ctl(&["get", "mutext/", "--prefix", "--keys-only"]).unwrap();
    let left: Vec<&str> = left.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(left, ["mutext/locks/research-42/epoch"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_is_remembered_is_passed_though_the_store_forgot_it() {
    let files = tempfile::tempdir().unwrap();
    let snapshot = files.path().join("snapshot");
    let mut server = EtcdServer::start().unwrap();
    let epochs = Arc::<Epochs>::default();
    let anna = open(&server.url(), &epochs).await.unwrap();
    anna.begin_epoch(&context(), 1_000, soon()).await.unwrap();
    let first = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    server.ctl(&["snapshot", "save", &snapshot.display().to_string()]).unwrap();
    epochs.forget();
    // Another cluster by its name, which remembers all that this one did.
    server.put_back(&snapshot, Some("another")).unwrap();
    let bert = open(&server.url(), &epochs).await.unwrap();
    let second = granted(&bert, &request("bert", "notes", TTL), LONG).await.lease;
    assert!(second.token.epoch > first.token.epoch, "{} after {}", second.token, first.token);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_others_begin_is_waited_for_no_longer_than_a_lock() {
    let server = EtcdServer::start().unwrap();
    let epochs = Arc::<Epochs>::default();
    let locks = open(&server.url(), &epochs).await.unwrap();
    an_epoch_is_waited_for_until_the_deadline(locks, &epochs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_this_process_remembers_is_passed_though_etcd_went_back_under_its_old_names() {
    let files = tempfile::tempdir().unwrap();
    let snapshot = files.path().join("snapshot");
    let mut server = EtcdServer::start().unwrap();
    let (anna, _) = two(&server).await;
    let first = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    server.ctl(&["snapshot", "save", &snapshot.display().to_string()]).unwrap();
    anna.begin_epoch(&context(), first.token.epoch, soon()).await.unwrap();
    let second = granted(&anna, &request("anna", "notes", TTL), LONG).await.lease;
    assert!(second.token.epoch > first.token.epoch, "{} after {}", second.token, first.token);
    server.put_back(&snapshot, None).unwrap();
    let third = granted(&anna, &request("anna", "board", TTL), LONG).await.lease;
    assert!(third.token.epoch > second.token.epoch, "{} after {}", third.token, second.token);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_that_a_dead_cluster_ends_says_that_something_may_be_left_of_it() {
    let mut server = EtcdServer::start().unwrap();
    let (anna, bert) = two(&server).await;
    granted(&anna, &request("anna", "plan", TTL), LONG).await;
    let waiter = {
        let bert = Arc::clone(&bert);
        let request = request("bert", "plan", TTL);
        tokio::spawn(async move { bert.acquire(&request, Deadline::after(Duration::from_secs(6))).await })
    };
    queued(&anna, 1).await;
    server.kill(0).unwrap();
    let error = waiter.await.unwrap().unwrap_err();
    assert_eq!((&error.kind, error.effect), (&TroubleKind::Unavailable, Effect::Unknown), "{error}");
}
