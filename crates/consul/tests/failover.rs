//! Three servers, and the leader among them killed while agents work.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Epochs, open, soon};
use mutext_conformance::asking::{context, granted, request};
use mutext_contract::{LockService, Release, Renewal};
use mutext_testbed::ConsulCluster;

const TTL: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(60);
const AGENTS: usize = 6;

/// What the agents did: who was inside when, under which token.
#[derive(Default)]
struct Protocol {
    inside: AtomicUsize,
    grants: Mutex<Vec<(Instant, (u64, u64))>>,
}

/// An agent that takes one lock again and again.
async fn work(url: String, epochs: Arc<Epochs>, protocol: Arc<Protocol>, until: Arc<Mutex<Option<Instant>>>) -> usize {
    let locks = open(&url, &epochs).await.unwrap();
    let mut rounds = 0;
    while until.lock().unwrap().is_none_or(|until| Instant::now() < until) {
        let lease = granted(&locks, &request("agent", "counter", TTL), LONG).await.lease;
        assert_eq!(protocol.inside.fetch_add(1, Ordering::SeqCst), 0, "two at once");
        protocol.grants.lock().unwrap().push((Instant::now(), lease.token.number()));
        tokio::time::sleep(Duration::from_millis(1)).await;
        protocol.inside.fetch_sub(1, Ordering::SeqCst);
        // A release that is not answered may be asked for again.
        let begun = Instant::now();
        while let Err(error) = locks.release(&context(), lease.id(), soon()).await {
            assert!(begun.elapsed() < LONG, "{error}");
        }
        rounds += 1;
    }
    rounds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_killed_while_agents_work_and_nothing_is_lost() {
    let mut cluster = tokio::task::spawn_blocking(|| ConsulCluster::start(3)).await.unwrap().unwrap();
    let (url, epochs, protocol) = (cluster.url(), Arc::<Epochs>::default(), Arc::<Protocol>::default());
    // A lease that is held all the while.
    let keeper = open(&url, &epochs).await.unwrap();
    let mut losses = keeper.losses().unwrap();
    let kept = granted(&keeper, &request("keeper", "kept", TTL), LONG).await.lease;
    let until: Arc<Mutex<Option<Instant>>> = Arc::default();
    let agents: Vec<_> = (0..AGENTS)
        .map(|_| tokio::spawn(work(url.clone(), Arc::clone(&epochs), Arc::clone(&protocol), Arc::clone(&until))))
        .collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = protocol.grants.lock().unwrap().len();
    let leader = cluster.leader().unwrap();
    cluster.kill(leader).unwrap();
    let killed = Instant::now();
    // Work goes on for a while after it has recovered.
    while protocol.grants.lock().unwrap().iter().filter(|(at, _)| *at > killed + Duration::from_millis(500)).count()
        < 50
    {
        assert!(killed.elapsed() < LONG, "expected the agents to go on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    *until.lock().unwrap() = Some(Instant::now());
    let mut rounds = 0;
    for agent in agents {
        rounds += agent.await.unwrap();
    }
    let grants = protocol.grants.lock().unwrap().clone();
    assert_eq!(grants.len(), rounds);
    assert!(before > 0, "expected work before the leader was killed");
    assert!(grants.windows(2).all(|pair| pair[0].1 < pair[1].1), "tokens rise in the order of their holders");
    let gap = grants.windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap_or_default();
    eprintln!("leader killed: {rounds} locks taken, the longest time without one {gap:.1?}");
    assert!(losses.try_recv().is_err(), "the lease that was held all the while is still held");
    assert!(matches!(keeper.renew(&kept, soon()).await.unwrap(), Renewal::Renewed { .. }));
    assert_eq!(keeper.release(&context(), kept.id(), soon()).await.unwrap(), Release::Released);
}
