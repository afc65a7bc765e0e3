//! Locks on sets of Redis servers, over documents in the embedded store, while servers die, are promoted, start again
//! empty, and slots move: what was acknowledged stays, agents go on by themselves, and how long that took is printed.
//!
//! `cargo test -p mutext --test failovers -- --nocapture --test-threads=1` shows the times.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/mod.rs"]
mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Store, settings, wait};
use mutext::{Commit, Content, Context, Document, Effect, Error, Mutext, Precondition, Ttl};
use mutext_testbed::{RedisCluster, RedisNodes, SentinelSet};

/// Half of them check the fence alone, and half the revision as well.
const AGENTS: usize = 4;
const SHARED: usize = 2;
const CONTEXT: &str = "failovers";

/// What an agent saw.
#[derive(Debug, Default)]
struct Seen {
    acknowledged: BTreeSet<String>,
    /// It may have happened or not.
    unknown: BTreeSet<String>,
    refused: BTreeSet<String>,
}

impl Seen {
    fn note(&mut self, id: String, outcome: Result<(), Error>) {
        match outcome {
            Ok(()) => assert!(self.acknowledged.insert(id)),
            Err(Error::Engine(trouble)) if trouble.effect == Effect::Unknown => assert!(self.unknown.insert(id)),
            Err(_) => assert!(self.refused.insert(id)),
        }
    }
}

fn with(document: Option<&Document>, id: &str) -> Result<Content, Error> {
    let mut ids: Vec<String> = document.map_or(Ok(Vec::new()), |document| document.content.parse())?;
    ids.push(id.to_owned());
    Ok(Content::json(&ids)?)
}

async fn update(context: &Context, path: &str, fenced_alone: bool, id: &str) -> Result<(), Error> {
    let guard = context.lock(path).await?;
    let document = guard.get(path).await?;
    let content = with(document.as_ref(), id)?;
    let precondition = if fenced_alone { Precondition::Any } else { Precondition::unchanged(document.as_ref()) };
    let commit = Commit::new(context.agent().clone()).put(path.parse()?, content, precondition);
    guard.commit(commit).await.map(drop)
}

async fn work(context: Context, agent: usize, done: Arc<AtomicUsize>, ended: Arc<AtomicBool>) -> Seen {
    let mut seen = Seen::default();
    for number in 0.. {
        if ended.load(Ordering::SeqCst) {
            break;
        }
        let (id, path) = (format!("{agent}-{number}"), format!("shared/{}", (agent + number) % SHARED));
        let outcome = update(&context, &path, agent.is_multiple_of(2), &id).await;
        if outcome.is_ok() {
            done.fetch_add(1, Ordering::SeqCst);
        }
        seen.note(id, outcome);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    seen
}

/// Agents at work, and one that holds a lock all the time.
struct Team {
    store: Store,
    url: String,
    done: Vec<Arc<AtomicUsize>>,
    ended: Arc<AtomicBool>,
    agents: Vec<tokio::task::JoinHandle<Seen>>,
}

impl Team {
    async fn context(&self, agent: &str) -> Context {
        self.context_with(agent, Duration::from_secs(3)).await
    }

    async fn context_with(&self, agent: &str, ttl: Duration) -> Context {
        let mutext = Mutext::open(&self.store.address(), Some(&self.url.parse().unwrap())).await.unwrap();
        let mut settings = settings(agent);
        settings.ttl = Ttl::new(ttl).unwrap();
        settings.wait = wait(Duration::from_secs(4));
        mutext.context(CONTEXT, settings).unwrap()
    }

    async fn start(url: String) -> Self {
        let (store, ended) = (Store::new(), Arc::default());
        let mut team = Self { store, url, done: Vec::new(), ended, agents: Vec::new() };
        for agent in 0..AGENTS {
            let context = team.context(&format!("agent-{agent}")).await;
            let done = Arc::<AtomicUsize>::default();
            team.done.push(Arc::clone(&done));
            team.agents.push(tokio::spawn(work(context, agent, done, Arc::clone(&team.ended))));
        }
        team.all_go_on("the start").await;
        team
    }

    /// Until every agent has made three more updates; how long that took.
    async fn all_go_on(&self, after: &str) -> Duration {
        let began = Instant::now();
        let wanted: Vec<usize> = self.done.iter().map(|done| done.load(Ordering::SeqCst) + 3).collect();
        while self.done.iter().zip(&wanted).any(|(done, wanted)| done.load(Ordering::SeqCst) < *wanted) {
            let counts: Vec<_> = self.done.iter().map(|done| done.load(Ordering::SeqCst)).collect();
            assert!(began.elapsed() < Duration::from_secs(60), "after {after}: {counts:?}, and {wanted:?} were wanted");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        began.elapsed()
    }

    #[expect(clippy::print_stderr, reason = "how long agents were held up is what these tests tell")]
    async fn recovers(&self, after: &str) {
        let took = self.all_go_on(after).await;
        eprintln!("{after}: all agents had gone on after {took:.2?}");
    }

    /// Holds a lock while `fault` happens, and writes under it afterwards; so does whoever is next.
    async fn holds_through(&self, fault: impl Future<Output = ()>) {
        let (anna, bert) = (self.context("anna").await, self.context("bert").await);
        let guard = anna.lock("held").await.unwrap();
        let document = guard.get("held").await.unwrap();
        fault.await;
        let next = async {
            loop {
                // A set of servers that fails over may take longer than one wait.
                if let Ok(guard) = bert.lock("held").await {
                    return guard;
                }
            }
        };
        let first = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let content = with(document.as_ref(), "anna").unwrap();
            let commit = Commit::new(anna.agent().clone()).put("held".parse().unwrap(), content, Precondition::Any);
            let outcome = guard.commit(commit).await;
            drop(guard);
            outcome
        };
        let (outcome, guard) = tokio::join!(first, next);
        let seen = guard.get("held").await.unwrap();
        let content = with(seen.as_ref(), "bert").unwrap();
        let commit = Commit::new(bert.agent().clone()).put("held".parse().unwrap(), content, Precondition::Any);
        guard.commit(commit).await.unwrap();
        let ids: Vec<String> = bert.get("held").await.unwrap().unwrap().content.parse().unwrap();
        let wrote = ids.iter().filter(|id| *id == "anna").count();
        match outcome {
            Ok(_) => assert!(wrote > 0, "an acknowledged update is lost: {ids:?}"),
            Err(Error::Engine(trouble)) if trouble.effect == Effect::Unknown => {}
            Err(_) => assert_eq!(wrote, 0, "a refused update is there: {ids:?}"),
        }
    }

    /// Ends them, and compares what they saw with what is there.
    async fn ends(self) {
        self.ended.store(true, Ordering::SeqCst);
        let mut all = Seen::default();
        for agent in self.agents {
            let seen = agent.await.unwrap();
            all.acknowledged.extend(seen.acknowledged);
            all.unknown.extend(seen.unknown);
            all.refused.extend(seen.refused);
        }
        let context = Mutext::open(&self.store.address(), None).await.unwrap();
        let context = context.context(CONTEXT, settings("reader")).unwrap();
        let mut there = Vec::new();
        for number in 0..SHARED {
            let document = context.get(format!("shared/{number}").as_str()).await.unwrap().unwrap();
            there.extend(document.content.parse::<Vec<String>>().unwrap());
        }
        let once: BTreeSet<String> = there.iter().cloned().collect();
        assert_eq!(once.len(), there.len(), "something was written twice");
        let lost: Vec<_> = all.acknowledged.difference(&once).collect();
        assert!(lost.is_empty(), "acknowledged and gone: {lost:?}");
        let risen: Vec<_> = all.refused.intersection(&once).collect();
        assert!(risen.is_empty(), "refused and there: {risen:?}");
    }
}

/// Runs what blocks beside the agents.
async fn beside<T: Send + 'static>(block: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(block).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_dies_is_followed_by_the_one_that_sentinels_promote() {
    let mut set = beside(|| SentinelSet::start().unwrap()).await;
    let team = Team::start(set.url()).await;
    let mut set = {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        team.holds_through(async {
            set = beside(move || {
                set.servers()[0].kill().unwrap();
                set
            })
            .await;
            team.recovers("Sentinel, the primary killed").await;
            drop(sender.send(set));
        })
        .await;
        receiver.await.unwrap()
    };
    // The old one comes back as a replica; the new one hangs, and is replaced in turn.
    set = beside(move || {
        set.servers()[0].restart().unwrap();
        set.wait_until_whole().unwrap();
        set
    })
    .await;
    let primary = set.primary().unwrap();
    assert_ne!(primary, 0);
    set.servers()[primary].pause().unwrap();
    team.recovers("Sentinel, the primary hangs").await;
    assert_ne!(set.primary().unwrap(), primary);
    set.servers()[primary].resume().unwrap();
    team.all_go_on("the hung primary's return").await;
    team.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_a_replica_has_outlives_its_primary() {
    let mut set = beside(|| SentinelSet::start().unwrap()).await;
    let team = Team::start(format!("{}?min_replicas=1", set.url())).await;
    let anna = team.context_with("anna", Duration::from_secs(30)).await;
    let guard = anna.lock("kept").await.unwrap();
    let set = beside(move || {
        set.servers()[0].kill().unwrap();
        set
    })
    .await;
    team.recovers("Sentinel with min_replicas=1, the primary killed").await;
    let table = team.context("bert").await.locks().await.unwrap();
    assert!(table.holdings.iter().any(|held| held.lease == guard.lease().id()), "{table:?}");
    drop(guard);
    team.ends().await;
    drop(set);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_of_a_cluster_that_dies_is_followed_by_its_replica() {
    let mut cluster = beside(|| RedisCluster::start().unwrap()).await;
    let team = Team::start(cluster.url()).await;
    let (_, master) = cluster.place_of(&format!("{{{CONTEXT}}}")).unwrap();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    team.holds_through(async {
        cluster = beside(move || {
            cluster.nodes()[master].kill().unwrap();
            cluster
        })
        .await;
        team.recovers("Cluster, the master of the slot killed").await;
        drop(sender.send(cluster));
    })
    .await;
    let mut cluster = receiver.await.unwrap();
    assert_ne!(cluster.place_of(&format!("{{{CONTEXT}}}")).unwrap().1, master);
    cluster.nodes()[master].restart().unwrap();
    team.all_go_on("the old master's return").await;
    team.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_under_load_takes_its_locks_with_it() {
    let cluster = Arc::new(beside(|| RedisCluster::start().unwrap()).await);
    let team = Team::start(cluster.url()).await;
    for round in 0..6 {
        let moving = Arc::clone(&cluster);
        let moved = beside(move || {
            let (slot, from) = moving.place_of(&format!("{{{CONTEXT}}}")).unwrap();
            let to = (0..3).find(|node| *node != from && (node + round) % 2 == 0).unwrap_or((from + 1) % 3);
            // Agents ask for locks while the slot is on its way.
            moving.migrate(slot, from, to, || std::thread::sleep(Duration::from_millis(100))).unwrap();
        });
        if round == 0 {
            team.holds_through(moved).await;
        } else {
            moved.await;
        }
        team.recovers("Cluster, the slot moved").await;
    }
    team.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_of_three_may_die_and_start_again_empty() {
    let mut nodes = beside(|| RedisNodes::start(3).unwrap()).await;
    let team = Team::start(nodes.url()).await;
    let anna = team.context("anna").await;
    let guard = anna.lock("kept").await.unwrap();
    let epoch = guard.lease().token.epoch;
    // One after the other, so that in the end none remembers the beginning.
    for node in 0..3 {
        nodes.nodes()[node].kill().unwrap();
        team.recovers("Redlock, one node of three killed").await;
        nodes.nodes()[node].restart().unwrap();
        team.recovers("Redlock, the node started again empty").await;
        // It votes again when it has taken over what the others have.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    nodes.nodes()[1].pause().unwrap();
    team.recovers("Redlock, one node of three hangs").await;
    nodes.nodes()[1].resume().unwrap();
    // The lease that was granted first is known all the same, and no epoch was lost.
    let table = team.context("bert").await.locks().await.unwrap();
    let held = table.holdings.iter().find(|held| held.lease == guard.lease().id());
    assert_eq!(held.map(|held| held.token.0), Some(epoch), "{table:?}");
    assert!(table.holdings.iter().all(|held| held.token.0 == epoch), "{table:?}");
    drop(guard);
    team.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_majority_forgets_an_epoch_begins_and_nothing_is_lost() {
    let mut nodes = beside(|| RedisNodes::start(3).unwrap()).await;
    let team = Team::start(nodes.url()).await;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    team.holds_through(async {
        nodes = beside(move || {
            for node in 0..2 {
                nodes.nodes()[node].kill().unwrap();
                nodes.nodes()[node].restart().unwrap();
            }
            nodes
        })
        .await;
        team.recovers("Redlock, two nodes of three started again empty").await;
        drop(sender.send(nodes));
    })
    .await;
    team.ends().await;
    drop(receiver);
}
