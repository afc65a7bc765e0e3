//! One lock that many want: how fast it passes on, how fairly, and what it costs the server.
//!
//! `cargo bench -p mutext-redis --bench contended` prints the time from a release to the next grant against a round
//! trip of the same client in the same run, Jain's index of fairness over 10,000 grants, requests and messages for
//! each hand-over by the server's own statistics, and the memory of a held lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mutext_conformance::Epochs;
use mutext_contract::{
    Acquisition, AgentName, ContextName, Deadline, EpochSource, Holder, LockRequest, LockService, Ttl,
};
use mutext_redis::{RedisLocks, RedisOptions};
use mutext_testbed::RedisServer;

const GRANTS: u64 = 10_000;

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Shared {
    began: Instant,
    /// When the last release was asked for, in nanoseconds.
    released: AtomicU64,
    grants: AtomicU64,
}

struct Agent {
    grants: u64,
    hand_overs: Vec<u64>,
}

async fn agent(locks: Arc<RedisLocks>, shared: Arc<Shared>) -> Result<Agent, Failure> {
    let (context, holder) = (ContextName::new("bench")?, Holder::new(AgentName::new("bench")?));
    let mut agent = Agent { grants: 0, hand_overs: Vec::new() };
    while shared.grants.load(Ordering::Relaxed) < GRANTS {
        let request = LockRequest::exclusive(context.clone(), holder.clone(), Ttl::DEFAULT, "hot".parse()?);
        let deadline = Deadline::after(Duration::from_secs(60));
        let Acquisition::Granted(grant) = locks.acquire(&request, deadline).await? else {
            return Err("a wait of a minute ran out".into());
        };
        let now = shared.began.elapsed().as_nanos() as u64;
        if grant.queued {
            agent.hand_overs.push(now.saturating_sub(shared.released.load(Ordering::SeqCst)));
        }
        agent.grants += 1;
        shared.grants.fetch_add(1, Ordering::Relaxed);
        shared.released.store(shared.began.elapsed().as_nanos() as u64, Ordering::SeqCst);
        locks.release(&context, request.lease, deadline).await?;
    }
    Ok(agent)
}

fn calls(server: &RedisServer, name: &str) -> Result<f64, Failure> {
    let stats = server.cli(&["INFO", "commandstats"])?;
    let line = stats.lines().find(|line| line.starts_with(&format!("cmdstat_{name}:"))).unwrap_or_default();
    Ok(line.split(['=', ',']).nth(1).and_then(|calls| calls.parse().ok()).unwrap_or(0.0))
}

fn percentile(sorted: &[u64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize] as f64 / 1000.0
}

#[expect(clippy::print_stdout, reason = "a benchmark's figures are its output")]
#[tokio::main]
async fn main() -> Result<(), Failure> {
    let server = RedisServer::start()?;
    println!("{}", server.version()?);
    let mut connection = redis::Client::open(server.url())?.get_multiplexed_async_connection().await?;
    for (processes, per_process) in [(8, 1), (8, 8), (8, 125)] {
        let agents = processes * per_process;
        let epochs: Arc<dyn EpochSource> = Arc::new(Epochs::default());
        let shared = Arc::new(Shared { began: Instant::now(), released: AtomicU64::new(0), grants: AtomicU64::new(0) });
        server.cli(&["FLUSHALL"])?;
        server.cli(&["CONFIG", "RESETSTAT"])?;
        let mut running = Vec::new();
        for _ in 0..processes {
            let options = RedisOptions::parse(&server.url())?;
            let locks = options.open(Arc::clone(&epochs), Deadline::after(Duration::from_secs(10))).await?;
            for _ in 0..per_process {
                running.push(tokio::spawn(agent(Arc::clone(&locks), Arc::clone(&shared))));
            }
        }
        // The same machine, as busy as it is then.
        let mut trips = Vec::new();
        while shared.grants.load(Ordering::Relaxed) < GRANTS {
            let asked = Instant::now();
            let _: String = redis::cmd("PING").query_async(&mut connection).await?;
            trips.push(asked.elapsed().as_nanos() as u64);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (requests, messages) = (calls(&server, "evalsha")?, calls(&server, "publish")?);
        let mut hand_overs = Vec::new();
        let mut counts = Vec::new();
        for task in running {
            let agent = task.await??;
            hand_overs.extend(agent.hand_overs);
            counts.push(agent.grants as f64);
        }
        let (sum, squares): (f64, f64) = (counts.iter().sum(), counts.iter().map(|count| count * count).sum());
        let jain = sum * sum / (counts.len() as f64 * squares);
        hand_overs.sort_unstable();
        trips.sort_unstable();
        let (trip, median) = (percentile(&trips, 0.5), percentile(&hand_overs, 0.5));
        println!(
            "{agents:>5} agents: release to next grant p50 {median:.0} us, p99 {:.0} us; round trip p50 {trip:.0} us; ratio {:.2}; Jain {jain:.4}; \
             {:.2} requests and {:.2} messages a grant",
            percentile(&hand_overs, 0.99),
            median / trip,
            requests / sum,
            messages / sum,
        );
    }

    server.cli(&["FLUSHALL"])?;
    let epochs: Arc<dyn EpochSource> = Arc::new(Epochs::default());
    let locks = RedisOptions::parse(&server.url())?.open(epochs, Deadline::after(Duration::from_secs(10))).await?;
    let context = ContextName::new("bench")?;
    let size = || -> Result<f64, Failure> {
        let key = "mutext:{bench}:locks";
        Ok(server.cli(&["MEMORY", "USAGE", key, "SAMPLES", "0"])?.parse().unwrap_or(0.0))
    };
    let mut held = Vec::new();
    let mut begin = 0.0;
    for number in 0..=1000 {
        let holder = Holder::new(AgentName::new("agent-17")?);
        let request =
            LockRequest::exclusive(context.clone(), holder, Ttl::DEFAULT, format!("tasks/{number:04}").parse()?);
        locks.acquire(&request, Deadline::after(Duration::from_secs(5))).await?;
        held.push(request.lease);
        if number == 0 {
            begin = size()?;
        }
    }
    let full = size()?;
    for lease in held {
        locks.release(&context, lease, Deadline::after(Duration::from_secs(5))).await?;
    }
    let left = server.cli(&["HLEN", "mutext:{bench}:locks"])?;
    println!(
        "a held lock takes {:.0} bytes; after the releases {left} fields are left of the context",
        (full - begin) / 1000.0
    );
    Ok(())
}
