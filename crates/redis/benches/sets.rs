//! Acquire plus release on sets of servers against the bare calls of the same client on the same servers, interleaved
//! in one run.
//!
//! `cargo bench -p mutext-redis --bench sets` prints rates and their ratio. Bare is `SET NX PX` and a script that
//! compares and deletes: on the primary behind Sentinels, with `WAIT 1` after the first where a replica must have it;
//! on the master that serves the slot; and on all of three or five independent nodes, all of whose answers are awaited.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use mutext_conformance::Epochs;
use mutext_conformance::asking::{Failure, cycles, median, rate};
use mutext_contract::{Deadline, EpochSource, LeaseId, LockService};
use mutext_redis::{RedisOptions, RedlockOptions};
use mutext_testbed::{RedisCluster, RedisNodes, RedisServer, SentinelSet};
use redis::aio::MultiplexedConnection;

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(250);
const CONTEXT: &str = "bench";
const RELEASE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end";

/// The servers that a bare lock is set on, and whether a replica must have it.
#[derive(Clone)]
struct Bare {
    servers: Vec<MultiplexedConnection>,
    replicas: u32,
}

impl Bare {
    async fn on(servers: &[&RedisServer], replicas: u32) -> Result<Self, Failure> {
        let connect = |server: &&RedisServer| redis::Client::open(server.url());
        let clients = servers.iter().map(connect).collect::<Result<Vec<_>, _>>()?;
        let connections = clients.iter().map(redis::Client::get_multiplexed_async_connection);
        Ok(Self { servers: try_join_all(connections).await?, replicas })
    }

    /// Cycles of one task until `until`.
    async fn cycles(self, key: String, until: Instant) -> Result<u64, Failure> {
        let script = redis::Script::new(RELEASE);
        let mut cycles = 0;
        while Instant::now() < until {
            let owner = LeaseId::random().to_string();
            let set = self.servers.iter().cloned().map(|mut server| {
                let mut set = redis::cmd("SET");
                set.arg(&key).arg(&owner).arg("NX").arg("PX").arg(10_000);
                let replicas = self.replicas;
                async move {
                    let granted: Option<String> = set.query_async(&mut server).await?;
                    if replicas > 0 {
                        let _: u32 = redis::cmd("WAIT").arg(replicas).arg(1_000).query_async(&mut server).await?;
                    }
                    Ok::<_, redis::RedisError>(granted)
                }
            });
            assert!(try_join_all(set).await?.iter().all(Option::is_some), "nobody else wants {key}");
            let deleted = self.servers.iter().cloned().map(|mut server| {
                let (script, key, owner) = (&script, &key, &owner);
                async move { script.key(key).arg(owner).invoke_async::<u8>(&mut server).await }
            });
            assert!(try_join_all(deleted).await?.iter().all(|deleted| *deleted == 1));
            cycles += 1;
        }
        Ok(cycles)
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark's figures are its output")]
async fn compare(name: &str, locks: Arc<dyn LockService>, bare: Bare) -> Result<(), Failure> {
    for tasks in [1, 8] {
        let (mut theirs, mut own) = (Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let (a, _) =
                rate(tasks, ROUND, |task, until| bare.clone().cycles(format!("{{{CONTEXT}}}:bare-{task}"), until))
                    .await?;
            let ours = |task, until| cycles(Arc::clone(&locks), CONTEXT.to_owned(), format!("lock-{task}"), until);
            let (b, _) = rate(tasks, ROUND, ours).await?;
            // The first round warms up.
            if round > 0 {
                theirs.push(a);
                own.push(b);
            }
        }
        let ratio = median(own.iter().zip(&theirs).map(|(own, theirs)| own / theirs).collect());
        let (theirs, own) = (median(theirs), median(own));
        println!("{name:<32} {tasks:>2} tasks: bare {theirs:>8.0}/s  ours {own:>8.0}/s  ratio {ratio:.2}");
    }
    Ok(())
}

async fn open(url: &str) -> Result<Arc<dyn LockService>, Failure> {
    let epochs: Arc<dyn EpochSource> = Arc::new(Epochs::default());
    let deadline = Deadline::after(Duration::from_secs(10));
    Ok(if url.starts_with("redlock") {
        RedlockOptions::parse(url)?.open(epochs, deadline).await?
    } else {
        RedisOptions::parse(url)?.open(epochs, deadline).await?
    })
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    {
        let mut set = SentinelSet::start()?;
        let url = set.url();
        let primary = &set.servers()[0];
        compare("Sentinel", open(&url).await?, Bare::on(&[primary], 0).await?).await?;
        let waits = open(&format!("{url}?min_replicas=1")).await?;
        compare("Sentinel, min_replicas=1", waits, Bare::on(&[primary], 1).await?).await?;
    }
    {
        let mut cluster = RedisCluster::start()?;
        let (_, master) = cluster.place_of(&format!("{{{CONTEXT}}}"))?;
        let url = cluster.url();
        compare("Cluster", open(&url).await?, Bare::on(&[&cluster.nodes()[master]], 0).await?).await?;
    }
    for count in [3, 5] {
        let mut nodes = RedisNodes::start(count)?;
        let url = nodes.url();
        let all: Vec<&RedisServer> = nodes.nodes().iter().collect();
        compare(&format!("Redlock, {count} nodes"), open(&url).await?, Bare::on(&all, 0).await?).await?;
    }
    Ok(())
}
