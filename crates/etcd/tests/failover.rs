//! A cluster of three whose leader dies while locks are held and agents work.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Epochs, open, soon};
use mutext_conformance::asking::{context, granted, queued, request};
use mutext_contract::{Acquisition, Deadline, FencingToken, LockService, Release, Renewal};
use mutext_etcd::EtcdLocks;
use mutext_testbed::EtcdServer;

const TTL: Duration = Duration::from_secs(10);
const AGENTS: usize = 6;

/// Numbers under fences, as a document store keeps them: it says what was lost, whatever the locks did.
#[derive(Debug, Default)]
struct Store(Mutex<HashMap<&'static str, (u64, Option<FencingToken>)>>);

impl Store {
    /// None where a later holder has been here.
    fn read(&self, path: &'static str, token: FencingToken) -> Option<u64> {
        let mut numbers = self.0.lock().unwrap();
        let number = numbers.entry(path).or_default();
        token.is_admitted_after(number.1.as_ref()).then(|| {
            number.1 = Some(token);
            number.0
        })
    }

    fn write(&self, path: &'static str, token: FencingToken, value: u64) -> bool {
        let mut numbers = self.0.lock().unwrap();
        let number = numbers.entry(path).or_default();
        let is_admitted = token.is_admitted_after(number.1.as_ref());
        if is_admitted {
            *number = (value, Some(token));
        }
        is_admitted
    }
}

/// What agents have done: when each update was acknowledged, and what refused them.
#[derive(Debug, Default)]
struct Record {
    done: Mutex<HashMap<&'static str, Vec<(FencingToken, Instant)>>>,
    refused: Mutex<usize>,
}

async fn work(
    locks: Arc<EtcdLocks>,
    path: &'static str,
    store: Arc<Store>,
    record: Arc<Record>,
    stop: Arc<AtomicBool>,
) {
    while !stop.load(Ordering::Relaxed) {
        let request = request("agent", path, TTL);
        let Ok(Acquisition::Granted(grant)) = locks.acquire(&request, Deadline::after(Duration::from_secs(15))).await
        else {
            let _ = locks.release(&context(), request.lease, soon()).await;
            continue;
        };
        let token = grant.lease.token;
        let read = store.read(path, token);
        // Long enough for another to walk in, if one could.
        tokio::time::sleep(Duration::from_millis(2)).await;
        if read.is_some_and(|value| store.write(path, token, value + 1)) {
            record.done.lock().unwrap().entry(path).or_default().push((token, Instant::now()));
        } else {
            *record.refused.lock().unwrap() += 1;
        }
        let _ = locks.release(&context(), request.lease, soon()).await;
    }
}

fn updates(record: &Record) -> usize {
    record.done.lock().unwrap().values().map(Vec::len).sum()
}

/// Until agents have done so many more updates.
async fn until_more(record: &Record, more: usize) {
    let (began, goal) = (Instant::now(), updates(record) + more);
    while updates(record) < goal {
        assert!(began.elapsed() < Duration::from_secs(30), "agents do not go on: {} of {goal}", updates(record));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_dies_and_nothing_is_lost() {
    let mut server = EtcdServer::start_cluster(3).unwrap();
    let epochs: Arc<Epochs> = Arc::default();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(open(&server.url(), &epochs).await.unwrap());
    }
    let (store, record, stop) = (Arc::<Store>::default(), Arc::<Record>::default(), Arc::<AtomicBool>::default());
    let agents: Vec<_> = (0..AGENTS)
        .map(|number| {
            let (locks, path) = (Arc::clone(&clients[number % 3]), ["plan", "tasks/1"][number % 2]);
            let (store, record, stop) = (Arc::clone(&store), Arc::clone(&record), Arc::clone(&stop));
            tokio::spawn(work(locks, path, store, record, stop))
        })
        .collect();
    let held = granted(&clients[0], &request("holder", "kept", TTL), TTL).await.lease;
    let waiter = {
        let locks = Arc::clone(&clients[1]);
        tokio::spawn(async move { granted(&locks, &request("waiter", "kept", TTL), Duration::from_secs(60)).await })
    };
    loop {
        let table = clients[0].inspect(&context(), soon()).await.unwrap();
        if table.waiters.iter().any(|waiter| waiter.holder.agent.as_str() == "waiter") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // Twice: whoever leads then, with the first back as a follower.
    for round in 1..=2 {
        until_more(&record, 30).await;
        let leader = server.leader().unwrap();
        let killed = Instant::now();
        server.kill(leader).unwrap();
        match clients[0].renew(&held, Deadline::after(Duration::from_secs(15))).await.unwrap() {
            Renewal::Renewed { .. } => {}
            lost @ Renewal::Lost(_) => panic!("expected the lease to outlive the leader; found {lost:?}"),
        }
        let renewed = killed.elapsed();
        until_more(&record, 30).await;
        let mut after: Vec<Duration> = Vec::new();
        for (path, done) in &*record.done.lock().unwrap() {
            let next = done.iter().find_map(|(_, at)| at.checked_duration_since(killed));
            after.push(next.unwrap_or_else(|| panic!("nobody went on with {path}")));
        }
        eprintln!("failover {round}: the lease renewed after {renewed:.1?}, updates of both go on after {after:.1?}");
        assert!(after.iter().all(|after| *after < Duration::from_secs(15)), "{after:?}");
        assert!(!waiter.is_finished(), "a lease that stands excludes others, also across a change of leader");
        server.restart(leader).unwrap();
    }
    assert!(matches!(clients[0].renew(&held, soon()).await.unwrap(), Renewal::Renewed { .. }));
    assert_eq!(clients[0].release(&context(), held.id(), soon()).await.unwrap(), Release::Released);
    let next = tokio::time::timeout(Duration::from_secs(5), waiter).await.unwrap().unwrap().lease;
    assert!(next.token.number() > held.token.number());
    clients[1].release(&context(), next.id(), soon()).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    for agent in agents {
        agent.await.unwrap();
    }
    queued(&clients[0], 0).await;
    // Each acknowledged update is there, and each was made under a higher token than the one before it.
    for (path, done) in &*record.done.lock().unwrap() {
        assert_eq!(store.0.lock().unwrap()[path].0, done.len() as u64, "{path}: an acknowledged update is lost");
        let rises = done.windows(2).all(|pair| pair[0].0.number() < pair[1].0.number());
        assert!(rises, "{path}: tokens in the order of updates: {done:?}");
    }
    assert_eq!(*record.refused.lock().unwrap(), 0, "nobody was overtaken while it held the lock");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_hangs_is_left_for_another() {
    let server = EtcdServer::start_cluster(3).unwrap();
    let epochs: Arc<Epochs> = Arc::default();
    // Named first, it is the one that is asked.
    let (anna, bert) = (open(&server.url(), &epochs).await.unwrap(), open(&server.url(), &epochs).await.unwrap());
    let held = granted(&anna, &request("anna", "plan", TTL), TTL).await.lease;
    let waiter = {
        let bert = Arc::clone(&bert);
        tokio::spawn(async move { granted(&bert, &request("bert", "plan", TTL), Duration::from_secs(30)).await })
    };
    queued(&anna, 1).await;
    server.pause(0).unwrap();
    let renewed = anna.renew(&held, Deadline::after(Duration::from_secs(15))).await.unwrap();
    assert!(matches!(renewed, Renewal::Renewed { .. }), "{renewed:?}");
    assert_eq!(anna.release(&context(), held.id(), Deadline::after(TTL)).await.unwrap(), Release::Released);
    let next = tokio::time::timeout(Duration::from_secs(15), waiter).await.unwrap().unwrap().lease;
    assert!(next.token.number() > held.token.number());
    server.resume(0).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_granted_and_with_it_again_work_goes_on() {
    let mut server = EtcdServer::start_cluster(3).unwrap();
    let locks = open(&server.url(), &Arc::default()).await.unwrap();
    let held = granted(&locks, &request("anna", "plan", TTL), TTL).await.lease;
    let leader = server.leader().unwrap();
    let dead = [leader, (leader + 1) % 3];
    for member in dead {
        server.kill(member).unwrap();
    }
    let asked = Instant::now();
    let error =
        locks.acquire(&request("bert", "other", TTL), Deadline::after(Duration::from_secs(2))).await.unwrap_err();
    assert!(error.to_string().contains("majority") || error.to_string().contains("in time"), "{error}");
    assert!(asked.elapsed() < Duration::from_secs(6), "it took {:?}", asked.elapsed());
    server.restart(dead[0]).unwrap();
    let renewed = locks.renew(&held, Deadline::after(Duration::from_secs(15))).await.unwrap();
    assert!(matches!(renewed, Renewal::Renewed { .. }), "nobody is taken for dead while nobody leads: {renewed:?}");
    granted(&locks, &request("bert", "other", TTL), Duration::from_secs(15)).await;
}
