//! Sets of servers: what is said where one is not as it should be, and how contexts lie in a cluster.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Epochs, open, soon};
use mutext_contract::{
    Acquisition, AgentName, ContextName, Deadline, Effect, EngineError, EpochSource, Finding, Holder, LockRequest,
    LockService, Release, Renewal, Severity, TroubleKind, Ttl,
};
use mutext_redis::{RedlockLocks, RedlockOptions};
use mutext_testbed::{RedisCluster, RedisNodes, RedisServer, SentinelSet};

const TTL: Duration = Duration::from_secs(30);

fn request(context: &str, path: &str) -> LockRequest {
    let holder = Holder::new(AgentName::new("anna").unwrap());
    LockRequest::exclusive(ContextName::new(context).unwrap(), holder, Ttl::new(TTL).unwrap(), path.parse().unwrap())
}

async fn on_nodes(url: &str) -> Result<Arc<RedlockLocks>, EngineError> {
    on_nodes_with(url, Arc::default()).await
}

async fn on_nodes_with(url: &str, epochs: Arc<Epochs>) -> Result<Arc<RedlockLocks>, EngineError> {
    let epochs: Arc<dyn EpochSource> = epochs;
    RedlockOptions::parse(url).unwrap().open(epochs, Deadline::after(Duration::from_secs(10))).await
}

fn of<'a>(findings: &'a [Finding], subject: &str) -> &'a Finding {
    let found = findings.iter().find(|finding| finding.subject.contains(subject));
    found.unwrap_or_else(|| panic!("nothing about {subject}: {findings:#?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_contexts_spread_over_the_masters() {
    const CONTEXTS: usize = 3_000;
    let mut cluster = RedisCluster::start().unwrap();
    let locks = open(&cluster.url(), &Arc::default()).await.unwrap();
    let tasks: Vec<_> = (0..30)
        .map(|task| {
            let locks = Arc::clone(&locks);
            tokio::spawn(async move {
                for number in (task..CONTEXTS).step_by(30) {
                    let request = request(&format!("context-{number}"), "plan");
                    let outcome = locks.acquire(&request, soon()).await.unwrap();
                    assert!(matches!(outcome, Acquisition::Granted(_)), "{outcome:?}");
                    let released = locks.release(&request.context, request.lease, soon()).await.unwrap();
                    assert_eq!(released, Release::Released);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    // Each idle context keeps one key, its counters.
    let keys: Vec<usize> =
        cluster.nodes()[..3].iter().map(|node| node.cli(&["DBSIZE"]).unwrap().parse().unwrap()).collect();
    assert_eq!(keys.iter().sum::<usize>(), CONTEXTS, "{keys:?}");
    assert!(keys.iter().all(|keys| *keys > CONTEXTS / 4), "{keys:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_examination_of_a_cluster_looks_at_each_master() {
    let mut cluster = RedisCluster::start().unwrap();
    let locks = open(&cluster.url(), &Arc::default()).await.unwrap();
    let findings = locks.examine(soon()).await.unwrap();
    assert_eq!(of(&findings, "cluster").severity, Severity::Fine, "{findings:#?}");
    assert_eq!(findings.iter().filter(|finding| finding.subject.ends_with(" server")).count(), 3);
    assert_eq!(of(&findings, "min_replicas").severity, Severity::Note);
    cluster.nodes()[4].kill().unwrap();
    let replica = cluster.nodes()[4].port().to_string();
    let findings = locks.examine(Deadline::after(Duration::from_secs(20))).await.unwrap();
    assert!(of(&findings, "nodes").found.contains(&replica), "{findings:#?}");

    let alone = RedisServer::start().unwrap();
    let error = open(&alone.url().replace("redis:", "redis+cluster:").replace("/0", ""), &Arc::default()).await;
    let error = error.unwrap_err();
    assert!(error.to_string().contains("no node of a Redis Cluster"), "{error}");
    assert!(error.remedy.contains("redis://"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_examination_behind_sentinels_looks_at_them_too() {
    let set = SentinelSet::start_with(&[("requirepass", "hush")]).unwrap();
    let url = set.url().replace("//", "//:hush@");
    let locks = open(&url, &Arc::default()).await.unwrap();
    let findings = locks.examine(soon()).await.unwrap();
    for subject in ["sentinels", "primary", "failover"] {
        assert_eq!(of(&findings, subject).severity, Severity::Fine, "{findings:#?}");
    }
    assert!(of(&findings, "failover").found.starts_with('2'), "{findings:#?}");
    assert_eq!(of(&findings, "min_replicas").severity, Severity::Note);
    let asks_for_three = open(&format!("{url}?min_replicas=3"), &Arc::default()).await.unwrap();
    let findings = asks_for_three.examine(soon()).await.unwrap();
    assert_eq!(of(&findings, "min_replicas").severity, Severity::Danger);
    // Such a grant is not reported, and leaves nothing once it is given back.
    let request = request("replicas", "plan");
    let error = asks_for_three.acquire(&request, soon()).await.unwrap_err();
    assert_eq!((error.kind.clone(), error.effect), (TroubleKind::Unavailable, Effect::Unknown));
    assert!(error.remedy.contains("min_replicas") && error.source.as_ref().unwrap().to_string().contains("2 replicas"));
    asks_for_three.release(&request.context, request.lease, soon()).await.unwrap();
    // Nor does it wait for replicas so long that it could not say so.
    let impatient = Deadline::after(Duration::from_millis(200));
    let error = asks_for_three.acquire(&request, impatient).await.unwrap_err();
    assert!(error.remedy.contains("min_replicas"), "{error}");
    asks_for_three.release(&request.context, request.lease, soon()).await.unwrap();
    assert!(locks.inspect(&request.context, soon()).await.unwrap().holdings.is_empty());

    let wrong = set.url().replace("/mutext", "/nobody").replace("//", "//:hush@");
    let error = open(&wrong, &Arc::default()).await.unwrap_err();
    assert!(error.to_string().contains("no service named \"nobody\""), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_examination_of_nodes_counts_those_that_answer() {
    let mut nodes = RedisNodes::start(5).unwrap();
    let locks = on_nodes(&nodes.url()).await.unwrap();
    let findings = locks.examine(soon()).await.unwrap();
    assert_eq!(of(&findings, "nodes").severity, Severity::Fine, "{findings:#?}");
    for (killed, severity) in [Severity::Fine, Severity::Warning, Severity::Danger].into_iter().enumerate() {
        nodes.nodes()[killed].kill().unwrap();
        let findings = locks.examine(Deadline::after(Duration::from_secs(2))).await.unwrap();
        assert_eq!(of(&findings, "nodes").severity, severity, "{findings:#?}");
    }
    // Two of five decide nothing, and say so in time.
    let asked = Instant::now();
    let request = request("nodes", "plan");
    let error = locks.acquire(&request, Deadline::after(Duration::from_millis(300))).await.unwrap_err();
    assert_eq!(error.kind, TroubleKind::Unavailable);
    assert!(error.remedy.contains("majority") && asked.elapsed() < Duration::from_secs(4), "{error}");

    let port = nodes.nodes()[3].port();
    let same = format!("redlock://127.0.0.1:{port},localhost:{port},127.0.0.1:{}", nodes.nodes()[4].port());
    let findings = on_nodes(&same).await.unwrap().examine(soon()).await.unwrap();
    assert!(
        findings.iter().any(|finding| finding.severity == Severity::Danger && finding.found.contains("the same as"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn five_nodes_outlive_two() {
    let mut nodes = RedisNodes::start(5).unwrap();
    let locks = on_nodes(&nodes.url()).await.unwrap();
    let kept = request("five", "kept");
    let Acquisition::Granted(first) = locks.acquire(&kept, soon()).await.unwrap() else { panic!("it is free") };
    let mut token = first.lease.token;
    for round in 0..5 {
        let (one, other) = (round % 5, (round + 2) % 5);
        for node in [one, other] {
            nodes.nodes()[node].kill().unwrap();
        }
        let next = request("five", "plan");
        let outcome = locks.acquire(&next, Deadline::after(Duration::from_secs(10))).await.unwrap();
        let Acquisition::Granted(grant) = outcome else { panic!("{outcome:?}") };
        assert_eq!(grant.lease.token.epoch, token.epoch, "an epoch was lost in round {round}");
        assert!(grant.lease.token.number() > token.number(), "{} after {token}", grant.lease.token);
        token = grant.lease.token;
        locks.release(&next.context, next.lease, soon()).await.unwrap();
        for node in [one, other] {
            nodes.nodes()[node].restart().unwrap();
        }
        // They take over what the others have with a next change, once they are connected to.
        let until = Instant::now() + Duration::from_secs(30);
        let has_taken_over =
            |node: &RedisServer| !node.cli(&["HGET", "mutext:{five}:register", "a"]).unwrap().is_empty();
        while ![one, other].into_iter().all(|node| has_taken_over(&nodes.nodes()[node])) {
            assert!(Instant::now() < until, "nodes {one} and {other} do not vote again in round {round}");
            let touched = request("five", "touch");
            locks.acquire(&touched, Deadline::after(Duration::from_secs(10))).await.unwrap();
            locks.release(&touched.context, touched.lease, soon()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let table = locks.inspect(&kept.context, soon()).await.unwrap();
    assert_eq!(table.holdings.iter().map(|held| held.lease).collect::<Vec<_>>(), [kept.lease]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_forgot_takes_over_only_what_was_decided_after_that() {
    const KEY: &str = "mutext:{forgetful}:register";
    let mut nodes = RedisNodes::start(3).unwrap();
    let locks = on_nodes(&nodes.url()).await.unwrap();
    // "epoch round proposer".
    let round = |ballot: &str| ballot.split(' ').nth(1).unwrap().parse::<u64>().unwrap();
    let first = request("forgetful", "kept");
    assert!(matches!(locks.acquire(&first, soon()).await.unwrap(), Acquisition::Granted(_)));
    nodes.nodes()[0].kill().unwrap();
    nodes.nodes()[0].restart().unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let before = round(&nodes.nodes()[1].cli(&["HGET", KEY, "a"]).unwrap());
        let next = request("forgetful", &format!("plan-{before}"));
        assert!(matches!(locks.acquire(&next, soon()).await.unwrap(), Acquisition::Granted(_)));
        // Longer than a node may take to be connected to and to answer: nothing of an earlier round comes in later.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        // The change that found the node out was decided by others, perhaps before it forgot: another one followed,
        // though nobody asked for anything.
        let took_over = nodes.nodes()[0].cli(&["HGET", KEY, "a"]).unwrap();
        if !took_over.is_empty() {
            assert!(round(&took_over) >= before + 2, "it took over {took_over}, after a change from round {before}");
            break;
        }
        assert!(Instant::now() < until, "it does not vote again");
    }
    // It votes: the two that were there all the time are not needed both.
    nodes.nodes()[1].kill().unwrap();
    let last = request("forgetful", "last");
    let outcome = locks.acquire(&last, Deadline::after(Duration::from_secs(10))).await.unwrap();
    let Acquisition::Granted(grant) = outcome else { panic!("{outcome:?}") };
    assert_eq!(grant.lease.token.epoch, 1, "an epoch was lost");
    let table = locks.inspect(&first.context, soon()).await.unwrap();
    assert!(table.holdings.iter().any(|held| held.lease == first.lease));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_nodes_remember_is_passed_though_the_store_forgot_it() {
    let mut nodes = RedisNodes::start_with(3, &[("appendonly", "yes"), ("appendfsync", "always")]).unwrap();
    let epochs = Arc::<Epochs>::default();
    let locks = on_nodes_with(&nodes.url(), Arc::clone(&epochs)).await.unwrap();
    let kept = request("board", "kept");
    locks.begin_epoch(&kept.context, 1_000, soon()).await.unwrap();
    let Acquisition::Granted(first) = locks.acquire(&kept, soon()).await.unwrap() else { panic!("nobody holds it") };
    epochs.forget();
    // No majority remembers its promises: another epoch is founded.
    for node in nodes.nodes() {
        node.restart().unwrap();
    }
    let next = request("board", "plan");
    let outcome = locks.acquire(&next, soon()).await.unwrap();
    let Acquisition::Granted(second) = outcome else { panic!("{outcome:?}") };
    assert!(second.lease.token.epoch > first.lease.token.epoch, "{} after {}", second.lease.token, first.lease.token);
    let table = locks.inspect(&kept.context, soon()).await.unwrap();
    assert!(table.holdings.iter().any(|held| held.lease == kept.lease), "{table:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_does_not_wait_for_an_epoch_that_is_to_be_begun_nor_learn_of_its_trouble() {
    let nodes = RedisNodes::start(3).unwrap();
    let epochs = Arc::<Epochs>::default();
    let locks = on_nodes_with(&nodes.url(), Arc::clone(&epochs)).await.unwrap();
    let kept = request("board", "kept");
    let Acquisition::Granted(first) = locks.acquire(&kept, soon()).await.unwrap() else { panic!("nobody holds it") };
    let begin = |deadline: Duration| {
        let (locks, context) = (Arc::clone(&locks), kept.context.clone());
        let above = first.lease.token.epoch;
        tokio::spawn(async move { locks.begin_epoch(&context, above, Deadline::after(deadline)).await })
    };
    epochs.hang(true);
    let (patient, impatient) = (begin(Duration::from_secs(120)), begin(Duration::from_millis(100)));
    epochs.are_asked_for().await;
    for _ in 0..10 {
        let renewed = locks.renew(&first.lease, Deadline::after(Duration::from_secs(20))).await.unwrap();
        assert!(matches!(renewed, Renewal::Renewed { .. }), "{renewed:?}");
    }
    assert_eq!(impatient.await.unwrap().unwrap_err().kind, TroubleKind::Unavailable);
    let renewed = locks.renew(&first.lease, Deadline::after(Duration::from_secs(20))).await.unwrap();
    assert!(matches!(renewed, Renewal::Renewed { .. }) && !patient.is_finished(), "{renewed:?}");
    epochs.hang(false);
    patient.await.unwrap().unwrap();
    let next = request("board", "plan");
    let Acquisition::Granted(second) = locks.acquire(&next, soon()).await.unwrap() else { panic!("nobody holds it") };
    assert!(second.lease.token.epoch > first.lease.token.epoch, "{} after {}", second.lease.token, first.lease.token);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_whose_founder_died_is_founded_by_the_next_without_another_and_without_those_who_forgot() {
    const KEY: &str = "mutext:{orphan}:register";
    let mut nodes = RedisNodes::start(3).unwrap();
    let epochs = Arc::<Epochs>::default();
    let locks = on_nodes_with(&nodes.url(), Arc::clone(&epochs)).await.unwrap();
    let kept = request("orphan", "kept");
    let Acquisition::Granted(first) = locks.acquire(&kept, soon()).await.unwrap() else { panic!("nobody holds it") };
    nodes.nodes()[0].kill().unwrap();
    nodes.nodes()[0].restart().unwrap();
    // A majority that remembers has promised somebody who does not come to the end of it.
    let founded = first.lease.token.epoch + 50;
    for node in &nodes.nodes()[1..] {
        node.cli(&["HSET", KEY, "p", &format!("{founded} 1 7")]).unwrap();
    }
    let next = request("orphan", "plan");
    let Acquisition::Granted(second) = locks.acquire(&next, soon()).await.unwrap() else { panic!("nobody holds it") };
    assert_eq!(second.lease.token.epoch, founded);
    let table = locks.inspect(&kept.context, soon()).await.unwrap();
    assert!(table.holdings.iter().any(|held| held.lease == kept.lease), "{table:?}");
    let minted = epochs.mint_epoch(&kept.context, 0, soon()).await.unwrap();
    assert_eq!(minted, first.lease.token.epoch + 1, "nobody has minted another");
}
