//! What happens when sessions end, when Consul forgets, restarts or hangs, and when clients die.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Epochs, open, served, soon, two, waiting};
use mutext_conformance::asking::{an_epoch_is_waited_for_until_the_deadline, context, granted, queued, request};
use mutext_contract::{
    Acquisition, Claim, Deadline, Effect, LockRequest, LockService, Loss, Mode, Release, Renewal, TroubleKind,
};
use mutext_testbed::ConsulServer;

const TTL: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(20);
/// What a loaded machine may take for something that happens at once.
const AT_ONCE: Duration = Duration::from_secs(5);
/// Sessions may last shorter than the usual ten seconds at least.
const SHORT_SESSIONS: &str = r#"{"session_ttl_min": "1s"}"#;

/// The sessions that there are.
fn sessions(server: &ConsulServer) -> Vec<String> {
    let list = server.api("GET", "/v1/session/list").unwrap();
    list.split("\"ID\":").skip(1).filter_map(|rest| rest.split('"').nth(1)).map(str::to_owned).collect()
}

/// All keys below Mutext's prefix.
fn keys(server: &ConsulServer) -> Vec<String> {
    let names = server.cli(&["kv", "get", "-keys", "-separator=", "mutext/"]).unwrap();
    names.lines().map(str::to_owned).collect()
}

/// The index of the last thing that was written.
fn index(server: &ConsulServer) -> u64 {
    // What is there already is not written again.
    server.cli(&["kv", "put", "other", &mutext_contract::LeaseId::random().to_string()]).unwrap();
    let said = server.api("GET", "/v1/kv/other").unwrap();
    let after = said.split("\"ModifyIndex\":").nth(1).unwrap();
    after.trim().chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_an_operator_destroys_is_a_lost_lease_and_its_holder_hears_of_it() {
    let server = ConsulServer::start().unwrap();
    let (anna, bert) = two(&server.url()).await;
    let mut news = anna.losses().unwrap();
    let lease = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    let anna_session = sessions(&server);
    let waiter = waiting(&bert, "bert", "plan");
    queued(&anna, 1).await;
    server.api("PUT", &format!("/v1/session/destroy/{}", anna_session[0])).unwrap();
    let told = tokio::time::timeout(AT_ONCE, news.recv()).await.unwrap().unwrap();
    assert_eq!(told, lease.id());
    assert_eq!(anna.renew(&lease, soon()).await.unwrap(), Renewal::Lost(Loss::Expired));
    assert_eq!(anna.release(&context(), lease.id(), soon()).await.unwrap(), Release::NotHeld);
    let next = served(waiter, AT_ONCE).await.lease;
    assert!(next.token.number() > lease.token.number());
    // Whoever lost its session begins another, and goes on.
    bert.release(&context(), next.id(), soon()).await.unwrap();
    let again = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    assert!(again.token.number() > next.token.number());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_whose_session_ends_keeps_its_wait() {
    let server = ConsulServer::start().unwrap();
    let (anna, bert) = two(&server.url()).await;
    let lease = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    let anna_session = sessions(&server);
    let waiter = waiting(&bert, "bert", "plan");
    queued(&anna, 1).await;
    let of_bert = sessions(&server).into_iter().find(|session| !anna_session.contains(session)).unwrap();
    server.api("PUT", &format!("/v1/session/destroy/{of_bert}")).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiter.is_finished(), "nobody has released it");
    assert_eq!(anna.release(&context(), lease.id(), soon()).await.unwrap(), Release::Released);
    served(waiter, AT_ONCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_cannot_renew_its_session_tells_its_holders_before_consul_would() {
    let server = ConsulServer::start_with(SHORT_SESSIONS).unwrap();
    let (anna, _) = two(&format!("{}?session_ttl=2", server.url())).await;
    let mut news = anna.losses().unwrap();
    let lease = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    let renewed = Instant::now();
    server.pause().unwrap();
    // Counted from its last renewal, which was at most a third of the TTL ago.
    let told = tokio::time::timeout(LONG, news.recv()).await.unwrap().unwrap();
    assert_eq!(told, lease.id());
    assert!(renewed.elapsed() >= Duration::from_secs(1), "it was told after {:?}", renewed.elapsed());
    server.resume().unwrap();
    assert_eq!(anna.renew(&lease, soon()).await.unwrap(), Renewal::Lost(Loss::Expired));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lock_delay_passes_before_a_dead_holder_s_lease_does() {
    let server = ConsulServer::start().unwrap();
    let epochs: Arc<Epochs> = Arc::default();
    let anna = open(&format!("{}?lock_delay=3", server.url()), &epochs).await.unwrap();
    let bert = open(&server.url(), &epochs).await.unwrap();
    let _held = granted(&anna, &request("anna", "plan", TTL), LONG).await;
    let session = sessions(&server)[0].clone();
    // As if the process had died: nobody is left who could make room by itself.
    drop(anna);
    let waiter = waiting(&bert, "bert", "plan");
    queued(&bert, 1).await;
    server.api("PUT", &format!("/v1/session/destroy/{session}")).unwrap();
    let ended = Instant::now();
    served(waiter, LONG).await;
    assert!(ended.elapsed() >= Duration::from_secs(3), "it was passed on after {:?}", ended.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_never_go_back_when_the_table_is_removed() {
    let server = ConsulServer::start().unwrap();
    let (anna, bert) = two(&server.url()).await;
    let first = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    let waiter = waiting(&bert, "bert", "plan");
    queued(&anna, 1).await;
    server.cli(&["kv", "delete", "-recurse", "mutext/locks/"]).unwrap();
    // Whoever waited asks again by itself, and is granted what nobody is known to hold.
    let second = served(waiter, AT_ONCE).await.lease;
    assert!(second.token.epoch > first.token.epoch, "{} after {}", second.token, first.token);
    assert!(matches!(anna.renew(&first, soon()).await.unwrap(), Renewal::Lost(_)));
    assert_eq!(anna.release(&context(), first.id(), soon()).await.unwrap(), Release::NotHeld);
    assert!(matches!(bert.renew(&second, soon()).await.unwrap(), Renewal::Renewed { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_is_remembered_is_passed_though_the_store_forgot_it() {
    let server = ConsulServer::start().unwrap();
    let epochs = Arc::<Epochs>::default();
    let anna = open(&server.url(), &epochs).await.unwrap();
    anna.begin_epoch(&context(), 1_000, soon()).await.unwrap();
    let first = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    epochs.forget();
    server.cli(&["kv", "delete", "-recurse", "mutext/locks/"]).unwrap();
    let second = granted(&anna, &request("anna", "notes", TTL), LONG).await.lease;
    assert!(second.token.epoch > first.token.epoch, "{} after {}", second.token, first.token);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_seen_more_than_a_restored_snapshot_has_begins_a_new_epoch() {
    let (mut server, other) = (ConsulServer::start().unwrap(), ConsulServer::start().unwrap());
    let both = format!("consul://127.0.0.1:{},127.0.0.1:{}", server.port(), other.port());
    let anna = open(&both, &Arc::default()).await.unwrap();
    // Its session is in the snapshot too, so that nothing else tells that the servers are others.
    let early = granted(&anna, &request("anna", "early", TTL), LONG).await.lease;
    let snapshot = server.dir().join("snapshot").display().to_string();
    server.cli(&["snapshot", "save", &snapshot]).unwrap();
    let mut last = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    for _ in 0..20 {
        anna.release(&context(), last.id(), soon()).await.unwrap();
        last = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    }
    other.cli(&["snapshot", "restore", &snapshot]).unwrap();
    server.kill().unwrap();
    assert!(index(&other) < last.token.counter >> 12, "the snapshot's index has passed what was granted");
    let next = granted(&anna, &request("anna", "notes", TTL), LONG).await.lease;
    assert!(next.token.epoch > last.token.epoch, "{} after {}", next.token, last.token);
    // What the snapshot knows of stands; what it does not know of is lost.
    assert!(matches!(anna.renew(&early, soon()).await.unwrap(), Renewal::Renewed { .. }));
    assert!(matches!(anna.renew(&last, soon()).await.unwrap(), Renewal::Lost(_)));
    // It goes on in the new epoch.
    let again = granted(&anna, &request("anna", "more", TTL), LONG).await.lease;
    assert_eq!(again.token.epoch, next.token.epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_without_data_is_told_to_holders_begins_a_new_epoch_and_waiters_recover() {
    let mut server = ConsulServer::start().unwrap();
    let (anna, bert) = two(&server.url()).await;
    let mut news = anna.losses().unwrap();
    let first = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    let waiter = waiting(&bert, "bert", "plan");
    queued(&anna, 1).await;
    server.restart().unwrap();
    let second = served(waiter, LONG).await.lease;
    assert!(second.token.epoch > first.token.epoch, "{} after {}", second.token, first.token);
    assert_eq!(tokio::time::timeout(LONG, news.recv()).await.unwrap().unwrap(), first.id());
    assert!(matches!(anna.renew(&first, soon()).await.unwrap(), Renewal::Lost(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_data_keeps_leases_and_the_queue() {
    let mut server = ConsulServer::start_durable("{}").unwrap();
    let (anna, bert) = two(&server.url()).await;
    let first = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    let waiter = waiting(&bert, "bert", "plan");
    queued(&anna, 1).await;
    server.kill().unwrap();
    server.restart().unwrap();
    assert!(matches!(anna.renew(&first, soon()).await.unwrap(), Renewal::Renewed { .. }));
    assert!(!waiter.is_finished(), "a lease that was kept excludes others");
    assert_eq!(anna.release(&context(), first.id(), soon()).await.unwrap(), Release::Released);
    let second = served(waiter, LONG).await.lease;
    assert_eq!(second.token.epoch, first.token.epoch);
    assert!(second.token.number() > first.token.number(), "{} after {}", second.token, first.token);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_hangs_ends_no_wait_late_and_leaves_nothing_behind() {
    let server = ConsulServer::start().unwrap();
    let (anna, bert) = two(&server.url()).await;
    granted(&anna, &request("warm", "other", TTL), LONG).await;
    server.pause().unwrap();
    let asked = Instant::now();
    let attempt = request("anna", "plan", TTL);
    let error = anna.acquire(&attempt, Deadline::after(Duration::from_millis(500))).await.unwrap_err();
    let took = asked.elapsed();
    assert_eq!((&error.kind, error.effect), (&TroubleKind::Unavailable, Effect::Unknown), "{error}");
    assert!(took < Duration::from_secs(6), "expected a bounded wait; it took {took:?}");
    server.resume().unwrap();
    // The library gives back what may have been granted.
    anna.release(&context(), attempt.lease, soon()).await.unwrap();
    granted(&bert, &request("bert", "plan", TTL), LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acquire_outlasts_a_short_outage_and_ends_in_a_long_one() {
    let mut server = ConsulServer::start().unwrap();
    let (anna, _) = two(&server.url()).await;
    server.kill().unwrap();
    let asked = Instant::now();
    let error = anna.acquire(&request("anna", "plan", TTL), Deadline::after(Duration::from_millis(300))).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind, TroubleKind::Unavailable, "{error}");
    assert!(error.to_string().contains("127.0.0.1") && asked.elapsed() < Duration::from_secs(6), "{error}");
    let attempt = waiting(&anna, "anna", "plan");
    tokio::time::sleep(Duration::from_millis(400)).await;
    server.restart().unwrap();
    served(attempt, LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_stays_of_an_idle_lock_and_a_hand_over_is_one_write_however_long_the_queue() {
    let server = ConsulServer::start().unwrap();
    let epochs: Arc<Epochs> = Arc::default();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(open(&server.url(), &epochs).await.unwrap());
    }
    for (number, client) in clients.iter().enumerate() {
        // Each has its session.
        let lease = granted(client, &request("first", &format!("own-{number}"), TTL), LONG).await.lease;
        client.release(&context(), lease.id(), soon()).await.unwrap();
    }
    for waiters in [8, 80] {
        let held = granted(&clients[0], &request("first", "plan", TTL), LONG).await.lease;
        let tasks: Vec<_> = (0..waiters)
            .map(|number| {
                let (locks, request) = (Arc::clone(&clients[number % 4]), request("waiter", "plan", TTL));
                tokio::spawn(async move {
                    let grant = granted(&locks, &request, Duration::from_secs(50)).await;
                    locks.release(&context(), grant.lease.id(), soon()).await.unwrap();
                })
            })
            .collect();
        queued(&clients[1], waiters).await;
        let before = index(&server);
        clients[0].release(&context(), held.id(), soon()).await.unwrap();
        for task in tasks {
            task.await.unwrap();
        }
        let writes = (index(&server) - before) as f64 / waiters as f64;
        // One that looked too long ago to believe a grant confirms it first, and each release is one.
        assert!(writes > 0.9, "expected a write a hand-over at least; found {writes}");
        eprintln!("{waiters} waiters: {writes:.2} writes a hand-over");
        assert!(writes < 2.2, "expected few writes a hand-over with {waiters} waiters; found {writes}");
    }
    drop(clients);
    // Whoever holds nothing ends its session and takes its keys with it.
    let gone = Instant::now() + LONG;
    while keys(&server) != ["mutext/locks/research-42"] || !sessions(&server).is_empty() {
        assert!(Instant::now() < gone, "{:?} and {:?}", keys(&server), sessions(&server));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let table = server.cli(&["kv", "get", "mutext/locks/research-42"]).unwrap();
    assert!(table.contains(r#""rows":[]"#), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mailboxes_of_the_dead_are_cleared_away() {
    let server = ConsulServer::start().unwrap();
    server.cli(&["kv", "put", "mutext/home/0123/bell/research-42", "old news"]).unwrap();
    let (anna, _) = two(&server.url()).await;
    granted(&anna, &request("anna", "plan", TTL), LONG).await;
    let gone = Instant::now() + LONG;
    while keys(&server).iter().any(|key| key.contains("0123")) {
        assert!(Instant::now() < gone, "{:?}", keys(&server));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_nobody_can_read_is_named_and_left_alone() {
    let server = ConsulServer::start().unwrap();
    let (anna, _) = two(&server.url()).await;
    server.cli(&["kv", "put", "mutext/locks/research-42", "{\"version\":9}"]).unwrap();
    let error = anna.acquire(&request("anna", "plan", TTL), soon()).await.unwrap_err();
    assert_eq!(error.kind, TroubleKind::Corrupt);
    assert!(
        error.to_string().contains("mutext/locks/research-42") && error.to_string().contains("version 9"),
        "{error}"
    );
    assert_eq!(server.cli(&["kv", "get", "mutext/locks/research-42"]).unwrap(), "{\"version\":9}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_that_is_full_says_so_and_those_who_wait_go_on() {
    let server = ConsulServer::start().unwrap();
    let (anna, _) = two(&server.url()).await;
    let held = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    let mut large = request("anna", "plan", TTL);
    large.reason = Some("x".repeat(100_000));
    let tasks: Vec<_> = (0..5)
        .map(|_| {
            let (anna, mut request) = (Arc::clone(&anna), large.clone());
            request.lease = mutext_contract::LeaseId::random();
            tokio::spawn(async move {
                let answer = anna.acquire(&request, Deadline::after(LONG)).await;
                // Each gives back by itself: nobody knows in which order they came.
                if let Ok(Acquisition::Granted(grant)) = &answer {
                    anna.release(&context(), grant.lease.id(), soon()).await.unwrap();
                }
                answer
            })
        })
        .collect();
    let begun = Instant::now();
    while !tasks.iter().any(tokio::task::JoinHandle::is_finished) {
        assert!(begun.elapsed() < LONG, "expected some of five times 100 kB not to fit");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(anna.release(&context(), held.id(), soon()).await.unwrap(), Release::Released);
    let (mut full, mut served) = (0, 0);
    for task in tasks {
        match task.await.unwrap() {
            Ok(Acquisition::Granted(_)) => served += 1,
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert_eq!(error.kind, TroubleKind::Full, "{error}");
                full += 1;
            }
        }
    }
    assert!(full > 0 && served > 0, "{full} did not fit and {served} did");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_others_begin_is_waited_for_no_longer_than_a_lock() {
    let server = ConsulServer::start().unwrap();
    let epochs = Arc::<Epochs>::default();
    let locks = open(&server.url(), &epochs).await.unwrap();
    an_epoch_is_waited_for_until_the_deadline(locks, &epochs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_queues_for_a_lock_keeps_nobody_from_an_epoch_of_another_context() {
    let server = ConsulServer::start().unwrap();
    let epochs = Arc::<Epochs>::default();
    let locks = open(&server.url(), &epochs).await.unwrap();
    epochs.hang(true);
    let holder = waiting(&locks, "anna", "plan");
    epochs.are_asked_for().await;
    let waiter = waiting(&locks, "bert", "plan");
    // Long enough, as a rule, for it to find that there is no epoch, and to wait for one.
    tokio::time::sleep(Duration::from_millis(500)).await;
    epochs.hang(false);
    // One of the two has it, and the other queues.
    queued(&locks, 1).await;
    let mut elsewhere = request("carl", "plan", TTL);
    elsewhere.context = mutext_contract::ContextName::new("elsewhere").unwrap();
    granted(&locks, &elsewhere, LONG).await;
    assert!(!(holder.is_finished() && waiter.is_finished()), "nobody has released the lock");
    holder.abort();
    waiter.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_releases_finds_room_in_a_context_that_newcomers_have_filled() {
    let server = ConsulServer::start().unwrap();
    let (anna, bert) = two(&server.url()).await;
    let held = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    let resource: mutext_contract::Resource = "plan".parse().unwrap();
    let ask = |reason: usize| {
        let claim = Claim { resource: resource.clone(), mode: Mode::Shared };
        let mut request = LockRequest::new(context(), held.holder.clone(), held.ttl, [claim]).unwrap();
        request.reason = Some("x".repeat(reason));
        let bert = Arc::clone(&bert);
        tokio::spawn(async move { bert.acquire(&request, Deadline::after(Duration::from_secs(120))).await })
    };
    // Many small ones fill what a few large ones leave: each grows as it is granted.
    let mut waiters: Vec<_> = (0..8).map(|_| ask(40_000)).collect();
    queued(&anna, waiters.len()).await;
    let full = loop {
        let next = ask(1);
        while !next.is_finished() && anna.inspect(&context(), soon()).await.unwrap().waiters.len() == waiters.len() {}
        if next.is_finished() {
            break next.await.unwrap().unwrap_err();
        }
        waiters.push(next);
    };
    assert_eq!(full.kind, TroubleKind::Full, "{full}");
    assert_eq!(anna.release(&context(), held.id(), soon()).await.unwrap(), Release::Released);
    for waiter in waiters {
        let outcome = waiter.await.unwrap().unwrap();
        assert!(matches!(outcome, Acquisition::Granted(_)), "{outcome:?}");
    }
}
