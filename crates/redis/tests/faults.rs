//! What happens when Redis forgets, restarts, hangs or drops its connections, and when clients die.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Epochs, open, soon};
use mutext_conformance::asking::{an_epoch_is_waited_for_until_the_deadline, context, granted, queued, request};
use mutext_contract::{Acquisition, Deadline, Effect, LockService, Release, Renewal, TroubleKind};
use mutext_redis::RedisLocks;
use mutext_testbed::RedisServer;

const TTL: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(20);

async fn two(server: &RedisServer) -> (Arc<RedisLocks>, Arc<RedisLocks>) {
    let epochs = Arc::default();
    (open(&server.url(), &epochs).await.unwrap(), open(&server.url(), &epochs).await.unwrap())
}

/// A request that waits in a task of its own.
fn waiting(locks: &Arc<RedisLocks>, agent: &str, path: &str) -> tokio::task::JoinHandle<mutext_contract::Grant> {
    let (locks, request) = (Arc::clone(locks), request(agent, path, TTL));
    tokio::spawn(async move { granted(&locks, &request, LONG).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_never_go_back_when_everything_is_forgotten() {
    let server = RedisServer::start().unwrap();
    let (anna, bert) = two(&server).await;
    let first = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    let waiter = waiting(&bert, "bert", "plan");
    queued(&anna, 1).await;
    server.cli(&["FLUSHALL"]).unwrap();
    // Whoever waited asks again by itself, and is granted what nobody is known to hold.
    let second = tokio::time::timeout(Duration::from_secs(2), waiter).await.unwrap().unwrap().lease;
    assert!(second.token.epoch > first.token.epoch, "{} after {}", second.token, first.token);
    assert!(matches!(anna.renew(&first, soon()).await.unwrap(), Renewal::Lost(_)));
    assert_eq!(anna.release(&context(), first.id(), soon()).await.unwrap(), Release::NotHeld);
    assert!(matches!(bert.renew(&second, soon()).await.unwrap(), Renewal::Renewed { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_without_data_begins_a_new_epoch_and_waiters_recover() {
    let mut server = RedisServer::start().unwrap();
    let (anna, bert) = two(&server).await;
    let first = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    let waiter = waiting(&bert, "bert", "plan");
    queued(&anna, 1).await;
    server.kill().unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.restart().unwrap();
    let second = tokio::time::timeout(Duration::from_secs(5), waiter).await.unwrap().unwrap().lease;
    assert!(second.token.number() > first.token.number(), "{} after {}", second.token, first.token);
    assert!(matches!(anna.renew(&first, soon()).await.unwrap(), Renewal::Lost(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_data_keeps_leases_and_begins_a_new_epoch() {
    let mut server = RedisServer::start_with(&[("appendonly", "yes"), ("appendfsync", "always")]).unwrap();
    let (anna, bert) = two(&server).await;
    let first = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    server.restart().unwrap();
    assert!(matches!(anna.renew(&first, soon()).await.unwrap(), Renewal::Renewed { .. }));
    let waiter = waiting(&bert, "bert", "plan");
    queued(&anna, 1).await;
    // Longer than it takes to bury the dead: anna lives, and has come back.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(!waiter.is_finished(), "a lease that was kept excludes others");
    assert_eq!(anna.release(&context(), first.id(), soon()).await.unwrap(), Release::Released);
    let second = tokio::time::timeout(Duration::from_secs(2), waiter).await.unwrap().unwrap().lease;
    // The counter may have been set back by the restart: only another epoch makes it comparable.
    assert!(second.token.epoch > first.token.epoch, "{} after {}", second.token, first.token);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_is_remembered_is_passed_though_the_store_forgot_it() {
    let mut server = RedisServer::start_with(&[("appendonly", "yes"), ("appendfsync", "always")]).unwrap();
    let epochs = Arc::<Epochs>::default();
    let anna = open(&server.url(), &epochs).await.unwrap();
    anna.begin_epoch(&context(), 1_000, soon()).await.unwrap();
    let first = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    epochs.forget();
    server.restart().unwrap();
    let second = granted(&anna, &request("anna", "notes", TTL), LONG).await.lease;
    assert!(second.token.epoch > first.token.epoch, "{} after {}", second.token, first.token);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_of_the_data_that_was_put_back_begins_a_new_epoch() {
    let mut server = RedisServer::start_with(&[("save", ""), ("appendonly", "no")]).unwrap();
    let (anna, bert) = two(&server).await;
    granted(&anna, &request("anna", "early", TTL), LONG).await;
    // What lies on disk is of this moment; what comes after it is lost with the process.
    server.cli(&["SAVE"]).unwrap();
    let mut last = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    for _ in 0..20 {
        anna.release(&context(), last.id(), soon()).await.unwrap();
        last = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    }
    server.kill().unwrap();
    server.restart().unwrap();
    assert_eq!(server.cli(&["HEXISTS", "mutext:{research-42}:locks", "epoch"]).unwrap(), "1", "the copy was read");
    let next = granted(&bert, &request("bert", "plan", TTL), LONG).await.lease;
    assert!(next.token.epoch > last.token.epoch, "{} after {}", next.token, last.token);
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_every_connection_costs_nobody_a_lease_or_a_place() {
    let server = RedisServer::start().unwrap();
    let (anna, bert) = two(&server).await;
    let mut lease = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    let waiters = [waiting(&bert, "first", "plan"), waiting(&anna, "second", "plan")];
    queued(&anna, 2).await;
    for _ in 0..5 {
        for kind in ["normal", "pubsub"] {
            server.cli(&["CLIENT", "KILL", "TYPE", kind]).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
        match anna.renew(&lease, soon()).await.unwrap() {
            Renewal::Renewed { valid_until } => lease.valid_until = valid_until,
            lost @ Renewal::Lost(_) => panic!("expected the lease to be kept; found {lost:?}"),
        }
    }
    server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]).unwrap();
    assert_eq!(anna.release(&context(), lease.id(), soon()).await.unwrap(), Release::Released);
    // Whoever could not be told at that moment may be overtaken; nobody is forgotten.
    let mut waiters: Vec<_> = waiters.into_iter().map(Box::pin).collect();
    while !waiters.is_empty() {
        let next = tokio::time::timeout(Duration::from_secs(3), poll_any(&mut waiters)).await.unwrap().lease;
        assert!(next.token.number() > lease.token.number());
        let released = anna.release(&context(), next.id(), soon()).await.unwrap();
        assert_eq!(released, Release::Released);
    }
}

/// Whichever is granted first; it is taken out.
async fn poll_any(
    waiters: &mut Vec<std::pin::Pin<Box<tokio::task::JoinHandle<mutext_contract::Grant>>>>,
) -> mutext_contract::Grant {
    std::future::poll_fn(|context| {
        for index in 0..waiters.len() {
            if let std::task::Poll::Ready(outcome) = waiters[index].as_mut().poll(context) {
                waiters.remove(index);
                return std::task::Poll::Ready(outcome.unwrap());
            }
        }
        std::task::Poll::Pending
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dead_are_found_within_a_second() {
    let server = RedisServer::start().unwrap();
    let (anna, bert) = two(&server).await;
    let carl = open(&server.url(), &Arc::default()).await.unwrap();
    let _held = granted(&anna, &request("anna", "plan", TTL), LONG).await;
    let dead_waiter = waiting(&carl, "carl", "plan");
    queued(&anna, 1).await;
    let waiter = waiting(&bert, "bert", "plan");
    queued(&bert, 2).await;
    dead_waiter.abort();
    let _ = dead_waiter.await;
    let died = Instant::now();
    drop((anna, carl));
    tokio::time::timeout(Duration::from_secs(5), waiter).await.unwrap().unwrap();
    let took = died.elapsed();
    assert!(took < Duration::from_millis(1500), "expected both to be found within a second; it took {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_ends_no_wait_late_and_leaves_nothing_behind() {
    let server = RedisServer::start().unwrap();
    let (anna, bert) = two(&server).await;
    granted(&anna, &request("warm", "other", TTL), LONG).await;
    server.pause().unwrap();
    let asked = Instant::now();
    let attempt = request("anna", "plan", TTL);
    let error = anna.acquire(&attempt, Deadline::after(Duration::from_millis(500))).await.unwrap_err();
    let took = asked.elapsed();
    assert_eq!((error.kind, error.effect), (TroubleKind::Unavailable, Effect::Unknown));
    assert!(took < Duration::from_secs(3), "expected a bounded wait; it took {took:?}");
    server.resume().unwrap();
    // The library gives back what may have been granted.
    anna.release(&context(), attempt.lease, soon()).await.unwrap();
    granted(&bert, &request("bert", "plan", TTL), Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acquire_outlasts_a_short_outage_and_ends_in_a_long_one() {
    let mut server = RedisServer::start().unwrap();
    let (anna, _) = two(&server).await;
    server.kill().unwrap();
    let asked = Instant::now();
    let error = anna.acquire(&request("anna", "plan", TTL), Deadline::after(Duration::from_millis(300))).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind, TroubleKind::Unavailable);
    assert!(error.to_string().contains("127.0.0.1") && asked.elapsed() < Duration::from_secs(3), "{error}");
    let attempt = {
        let anna = Arc::clone(&anna);
        tokio::spawn(async move { granted(&anna, &request("anna", "plan", TTL), LONG).await })
    };
    tokio::time::sleep(Duration::from_millis(400)).await;
    server.restart().unwrap();
    tokio::time::timeout(Duration::from_secs(5), attempt).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_stays_of_an_idle_lock_and_messages_do_not_grow_with_the_queue() {
    let server = RedisServer::start().unwrap();
    let epochs: Arc<Epochs> = Arc::default();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(open(&server.url(), &epochs).await.unwrap());
    }
    let calls = |name: &str| {
        let stats = server.cli(&["INFO", "commandstats"]).unwrap();
        let line =
            stats.lines().find(|line| line.starts_with(&format!("cmdstat_{name}:"))).unwrap_or_default().to_owned();
        line.split(['=', ',']).nth(1).and_then(|calls| calls.parse::<u64>().ok()).unwrap_or(0)
    };
    // Requests and messages for each hand-over, with a short queue and with a long one.
    let mut per_hand_over = Vec::new();
    for waiters in [10, 500] {
        let held = granted(&clients[0], &request("first", "plan", TTL), LONG).await.lease;
        let tasks: Vec<_> = (0..waiters)
            .map(|number| {
                let (locks, request) = (Arc::clone(&clients[number % 4]), request("waiter", "plan", TTL));
                tokio::spawn(async move {
                    let grant = granted(&locks, &request, LONG).await;
                    locks.release(&context(), grant.lease.id(), soon()).await.unwrap();
                })
            })
            .collect();
        queued(&clients[1], waiters).await;
        server.cli(&["CONFIG", "RESETSTAT"]).unwrap();
        clients[0].release(&context(), held.id(), soon()).await.unwrap();
        for task in tasks {
            task.await.unwrap();
        }
        let hand_overs = waiters as f64;
        per_hand_over.push((calls("evalsha") as f64 / hand_overs, calls("publish") as f64 / hand_overs));
    }
    let [(few_calls, few_messages), (many_calls, many_messages)] = per_hand_over[..] else { unreachable!() };
    assert!((few_messages - 1.0).abs() < 0.01 && (many_messages - 1.0).abs() < 0.01, "{per_hand_over:?}");
    assert!(
        few_calls < 2.0 && many_calls < 2.0,
        "one release a hand-over, and looks of each process: {per_hand_over:?}"
    );

    let mut fields: Vec<String> =
        server.cli(&["HKEYS", "mutext:{research-42}:locks"]).unwrap().lines().map(str::to_owned).collect();
    fields.sort();
    assert_eq!(fields, ["count", "epoch", "place", "run"]);
    assert_eq!(server.cli(&["KEYS", "*"]).unwrap(), "mutext:{research-42}:locks");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_request_is_told_who_is_in_its_way_also_from_far_back_in_the_queue() {
    let server = RedisServer::start().unwrap();
    let (anna, bert) = two(&server).await;
    let held = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    let waiters: Vec<_> = (0..100).map(|_| waiting(&anna, "carl", "plan")).collect();
    queued(&anna, 100).await;
    let outcome =
        bert.acquire(&request("bert", "plan", TTL), Deadline::after(Duration::from_millis(200))).await.unwrap();
    let Acquisition::TimedOut(blocked) = outcome else { panic!("{outcome:?}") };
    assert_eq!((blocked.holdings[0].lease, blocked.ahead), (held.id(), 100));
    waiters.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_others_begin_is_waited_for_no_longer_than_a_lock() {
    let server = RedisServer::start().unwrap();
    let epochs = Arc::<Epochs>::default();
    let locks = open(&server.url(), &epochs).await.unwrap();
    an_epoch_is_waited_for_until_the_deadline(locks, &epochs).await;
}
