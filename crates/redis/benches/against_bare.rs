//! Acquire plus release against two bare commands of the same client on the same server, interleaved in one run.
//!
//! `cargo bench -p mutext-redis` prints rates and their ratio, with one task and with sixty-four.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use mutext_contract::{
    Acquisition, AgentName, ContextName, Deadline, EngineError, EpochSource, Holder, LockRequest, LockService, Ttl,
};
use mutext_redis::{RedisLocks, RedisOptions};
use mutext_testbed::RedisServer;
use redis::aio::MultiplexedConnection;

const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(400);
const RELEASE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end";

#[derive(Debug, Default)]
struct Epochs(AtomicU64);

#[async_trait]
impl EpochSource for Epochs {
    async fn mint_epoch(&self, _: &ContextName, _: Deadline) -> Result<u64, EngineError> {
        Ok(self.0.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Cycles of one task until `until`.
async fn bare(mut connection: MultiplexedConnection, key: String, until: Instant) -> Result<u64, Failure> {
    let script = redis::Script::new(RELEASE);
    let mut cycles = 0;
    while Instant::now() < until {
        let owner = mutext_contract::LeaseId::random().to_string();
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

async fn ours(locks: Arc<RedisLocks>, path: String, until: Instant) -> Result<u64, Failure> {
    let (context, holder) = (ContextName::new("bench")?, Holder::new(AgentName::new("bench")?));
    let mut cycles = 0;
    while Instant::now() < until {
        let request = LockRequest::exclusive(context.clone(), holder.clone(), Ttl::DEFAULT, path.parse()?);
        let deadline = Deadline::after(Duration::from_secs(5));
        let granted = locks.acquire(&request, deadline).await?;
        assert!(matches!(granted, Acquisition::Granted(_)), "nobody else wants {path}");
        locks.release(&context, request.lease, deadline).await?;
        cycles += 1;
    }
    Ok(cycles)
}

async fn rate<F>(tasks: usize, start: impl Fn(usize, Instant) -> F) -> Result<f64, Failure>
where
    F: Future<Output = Result<u64, Failure>> + Send + 'static,
{
    let began = Instant::now();
    let until = began + ROUND;
    let running: Vec<_> = (0..tasks).map(|task| tokio::spawn(start(task, until))).collect();
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
#[tokio::main]
async fn main() -> Result<(), Failure> {
    let server = RedisServer::start()?;
    let epochs: Arc<dyn EpochSource> = Arc::new(Epochs::default());
    let locks = RedisOptions::parse(&server.url())?.open(epochs, Deadline::after(Duration::from_secs(10))).await?;
    let connection = redis::Client::open(server.url())?.get_multiplexed_async_connection().await?;
    println!("{}", server.version()?);
    println!("acquire plus release against SET NX PX plus a compare-and-delete script; medians of {ROUNDS} rounds");
    for (tasks, depth) in [(1, 1), (64, 1), (1, 4), (64, 4)] {
        let path = move |task: usize| match depth {
            1 => format!("lock-{task}"),
            _ => format!("a/b/c/lock-{task}"),
        };
        let (mut theirs, mut own) = (Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let a = rate(tasks, |task, until| bare(connection.clone(), path(task), until)).await?;
            let b = rate(tasks, |task, until| ours(Arc::clone(&locks), path(task), until)).await?;
            // The first round warms up.
            if round > 0 {
                theirs.push(a);
                own.push(b);
            }
        }
        let ratio = median(own.iter().zip(&theirs).map(|(own, theirs)| own / theirs).collect());
        let (theirs, own) = (median(theirs), median(own));
        println!("{tasks:>3} tasks, paths of depth {depth}: bare {theirs:>9.0}/s  ours {own:>9.0}/s  ratio {ratio:.2}");
    }
    Ok(())
}
