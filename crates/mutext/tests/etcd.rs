//! The library over locks in an etcd cluster whose leader dies: agents go on by themselves, no acknowledged update is
//! lost, and whoever holds a lock holds it yet.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mutext::{AgentName, Content, Context, Effect, Error, Mutext, Settings, Strategy, Ttl, UpdateOptions, Wait};
use mutext_testbed::EtcdServer;

const AGENTS: usize = 4;
const DOCUMENTS: [&str; 2] = ["plan", "tasks/1"];

fn settings(agent: &str) -> Settings {
    let mut settings = Settings::new(AgentName::new(agent).unwrap());
    settings.ttl = Ttl::new(Duration::from_secs(10)).unwrap();
    settings.wait = Wait::new(Duration::from_secs(10)).unwrap();
    settings.patience = Duration::from_secs(15);
    settings
}

async fn open(store: &str, server: &EtcdServer) -> Mutext {
    Mutext::open(&store.parse().unwrap(), Some(&server.url().parse().unwrap())).await.unwrap()
}

/// Adds one word after the other to documents, each under a lease; which were acknowledged, and which may be there.
async fn work(
    context: Context,
    agent: usize,
    done: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut acknowledged, mut unknown) = (BTreeSet::new(), BTreeSet::new());
    let strategy = Strategy::Lease { ttl: context.settings().ttl, wait: context.settings().wait };
    let options = UpdateOptions { strategy, patience: context.settings().patience, message: None };
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let id = format!("{agent}-{number}");
        let path = DOCUMENTS[(agent + number) % DOCUMENTS.len()];
        let add = async |document: Option<mutext::Document>| {
            let mut ids: Vec<String> = document.map_or(Ok(Vec::new()), |document| document.content.parse())?;
            ids.push(id.clone());
            Ok::<_, Error>(Content::json(&ids)?)
        };
        match context.update_with(path, &options, add).await {
            Ok(_) => {
                acknowledged.insert(id.clone());
                done.fetch_add(1, Ordering::SeqCst);
            }
            Err(Error::Engine(trouble)) if trouble.effect == Effect::Unknown => {
                unknown.insert(id.clone());
            }
            Err(_) => {}
        }
    }
    (acknowledged, unknown)
}

async fn all_go_on(done: &[Arc<AtomicUsize>], more: usize) -> Duration {
    let began = Instant::now();
    let wanted: Vec<usize> = done.iter().map(|done| done.load(Ordering::SeqCst) + more).collect();
    while done.iter().zip(&wanted).any(|(done, wanted)| done.load(Ordering::SeqCst) < *wanted) {
        assert!(began.elapsed() < Duration::from_secs(30), "agents do not go on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_update_is_lost_when_the_leader_dies() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("embedded:{}?sync=normal", dir.path().join("store").display());
    let mut server = EtcdServer::start_cluster(3).unwrap();
    let (done, stop) = ([(); AGENTS].map(|()| Arc::new(AtomicUsize::new(0))), Arc::new(AtomicBool::new(false)));
    let mut agents = Vec::new();
    for (agent, done) in done.iter().enumerate() {
        let context = open(&store, &server).await.context("team", settings(&format!("agent-{agent}"))).unwrap();
        agents.push(tokio::spawn(work(context, agent, Arc::clone(done), Arc::clone(&stop))));
    }
    let holder = open(&store, &server).await.context("team", settings("holder")).unwrap();
    let guard = holder.lock("kept").await.unwrap();
    all_go_on(&done, 5).await;
    for round in 1..=2 {
        let leader = server.leader().unwrap();
        server.kill(leader).unwrap();
        println!("{round}: the leader is gone; all went on after {:.1?}", all_go_on(&done, 3).await);
        server.restart(leader).unwrap();
        all_go_on(&done, 3).await;
    }
    // The keeper has renewed all the while: it writes, and nobody else is let in.
    guard.put("kept", Content::text("mine")).await.unwrap();
    guard.release().await.unwrap();
    stop.store(true, Ordering::SeqCst);
    let (mut acknowledged, mut unknown) = (BTreeSet::new(), BTreeSet::new());
    for agent in agents {
        let (own, may_be) = agent.await.unwrap();
        acknowledged.extend(own);
        unknown.extend(may_be);
    }
    let mut there = Vec::new();
    for path in DOCUMENTS {
        there.extend(holder.get(path).await.unwrap().unwrap().content.parse::<Vec<String>>().unwrap());
    }
    let found: BTreeSet<String> = there.iter().cloned().collect();
    assert_eq!(found.len(), there.len(), "an update happened twice");
    let lost: Vec<_> = acknowledged.difference(&found).collect();
    assert!(lost.is_empty(), "acknowledged, and lost: {lost:?}");
    let undead: Vec<_> = found.iter().filter(|id| !acknowledged.contains(*id) && !unknown.contains(*id)).collect();
    assert!(undead.is_empty(), "refused, and there: {undead:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_told_with_its_address_and_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("embedded:{}", dir.path().join("store").display());
    let locks = "etcd://agents:hush@127.0.0.1:1,127.0.0.1:2?connect_timeout=0.3";
    let error = Mutext::open(&store.parse().unwrap(), Some(&locks.parse().unwrap())).await.unwrap_err().to_string();
    assert!(error.contains("127.0.0.1:2") && error.contains("majority") && !error.contains("hush"), "{error}");
    let error = Mutext::open(&locks.parse().unwrap(), None).await.unwrap_err().to_string();
    assert!(error.contains("etcd holds locks, not documents"), "{error}");
}
