//! A lock through the library against two bare commands of the same client on the same server: for an agent that comes
//! back for the same lock at once, whose lease may stay with it, and for one that takes four in turn, whose may not.
//!
//! `cargo bench -p mutext --bench locks` prints locks per second and their ratio, on one Redis, behind Sentinels and in a
//! cluster; medians of interleaved rounds. Bare is `SET NX PX` and a script that compares and deletes. A number as
//! an argument takes that many rounds, and words take only the lines that have them.

use std::time::{Duration, Instant};

use mutext::{AgentName, LeaseId, Mutext, Settings};
use mutext_testbed::{RedisCluster, RedisServer, SentinelSet};
use redis::aio::MultiplexedConnection;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(300);
const RELEASE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end";
const CONTEXT: &str = "bench";

async fn bare(mut connection: MultiplexedConnection, key: String, until: Instant) -> Result<u64, Failure> {
    let script = redis::Script::new(RELEASE);
    let mut cycles = 0;
    while Instant::now() < until {
        let owner = LeaseId::random().to_string();
        let mut set = redis::cmd("SET");
        let granted: Option<String> =
            set.arg(&key).arg(&owner).arg("NX").arg("PX").arg(10_000).query_async(&mut connection).await?;
        assert!(granted.is_some(), "nobody else wants {key}");
        let deleted: u8 = script.key(&key).arg(&owner).invoke_async(&mut connection).await?;
        assert_eq!(deleted, 1);
        cycles += 1;
    }
    Ok(cycles)
}

/// Takes the first of `paths`, drops its guard, takes the next.
async fn locks(mutext: Mutext, paths: Vec<String>, until: Instant) -> Result<u64, Failure> {
    let agent = mutext.context(CONTEXT, Settings::new(AgentName::new("agent")?))?;
    let mut cycles = 0;
    for path in paths.iter().cycle() {
        if Instant::now() >= until {
            break;
        }
        drop(agent.lock(path.as_str()).await?);
        cycles += 1;
    }
    Ok(cycles)
}

/// What tasks come to that run side by side: so many a second.
async fn rate<F>(tasks: usize, start: impl Fn(usize, Instant) -> F) -> Result<f64, Failure>
where
    F: Future<Output = Result<u64, Failure>> + Send + 'static,
{
    let began = Instant::now();
    let running: Vec<_> = (0..tasks).map(|task| tokio::spawn(start(task, began + ROUND))).collect();
    let mut cycles = 0;
    for task in running {
        cycles += task.await??;
    }
    Ok(cycles as f64 / began.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[expect(clippy::print_stdout, reason = "a benchmark's figures are its output")]
async fn compare(name: &str, url: &str, primary: &RedisServer) -> Result<(), Failure> {
    let documents = tempfile::tempdir()?;
    let store = format!("embedded:{}", documents.path().display()).parse()?;
    let mutext = Mutext::open(&store, Some(&url.parse()?)).await?;
    let connection = redis::Client::open(primary.url())?.get_multiplexed_async_connection().await?;
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let rounds = args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(ROUNDS);
    for (tasks, in_turn) in [(1, 1), (8, 1), (64, 1), (1, 4), (8, 4), (64, 4)] {
        let what = if in_turn == 1 { "the same again" } else { "four in turn" };
        let case = format!("{name:<10} {tasks:>3} tasks, {what:<14}");
        if args.iter().any(|arg| arg.parse::<usize>().is_err() && !case.contains(arg)) {
            continue;
        }
        let (mut theirs, mut own) = (Vec::new(), Vec::new());
        for round in 0..=rounds {
            let a = rate(tasks, |task, until| bare(connection.clone(), format!("{{{CONTEXT}}}:{task}"), until)).await?;
            let paths = |task| (0..in_turn).map(|which| format!("lock-{task}-{which}")).collect();
            let b = rate(tasks, |task, until| locks(mutext.clone(), paths(task), until)).await?;
            // The first round warms up.
            if round > 0 {
                theirs.push(a);
                own.push(b);
            }
        }
        let ratio = median(own.iter().zip(&theirs).map(|(own, theirs)| own / theirs).collect());
        println!("{case}: bare {:>7.0}/s  ours {:>7.0}/s  ratio {ratio:.2}", median(theirs), median(own));
    }
    mutext.finish().await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let server = RedisServer::start()?;
    compare("Redis", &server.url(), &server).await?;
    let mut set = SentinelSet::start()?;
    let url = set.url();
    compare("Sentinel", &url, &set.servers()[0]).await?;
    let mut cluster = RedisCluster::start()?;
    let (_, master) = cluster.place_of(&format!("{{{CONTEXT}}}"))?;
    let url = cluster.url();
    compare("Cluster", &url, &cluster.nodes()[master]).await
}
