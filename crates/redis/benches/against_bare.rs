//! Acquire plus release against two bare commands of the same client on the same server, interleaved in one run.
//!
//! `cargo bench -p mutext-redis` prints rates and their ratio, with one task and with sixty-four, and what a cycle costs
//! of the processor's time on both sides: on a busy machine these are the steadier figures. A number as an argument
//! takes that many rounds, and words take only the cases whose lines have them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mutext_conformance::Epochs;
use mutext_conformance::asking::{Failure, cycles, median, rate};
use mutext_contract::{Deadline, EpochSource};
use mutext_redis::{RedisLocks, RedisOptions};
use mutext_testbed::RedisServer;
use redis::aio::MultiplexedConnection;

const ROUNDS: usize = 15;
/// The kernel counts a process's time in these.
const TICK_US: f64 = 10_000.0;
const ROUND: Duration = Duration::from_millis(400);
const RELEASE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end";

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

/// The processor's time that the server and this process have had, in microseconds.
async fn spent(connection: &mut MultiplexedConnection) -> Result<[f64; 2], Failure> {
    let info: redis::InfoDict = redis::cmd("INFO").arg("cpu").query_async(connection).await?;
    let seconds = |name| info.get::<f64>(name).unwrap_or_default();
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name of the program, in brackets, may have spaces.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    Ok([(seconds("used_cpu_user") + seconds("used_cpu_sys")) * 1e6, (ticks(11) + ticks(12)) * TICK_US])
}

/// Rates of rounds, and what they cost.
#[derive(Default)]
struct Side {
    rates: Vec<f64>,
    cycles: f64,
    spent: [f64; 2],
}

impl Side {
    fn add(&mut self, (rate, cycles): (f64, f64), before: [f64; 2], after: [f64; 2]) {
        self.rates.push(rate);
        self.cycles += cycles;
        self.spent = [0, 1].map(|at| self.spent[at] + after[at] - before[at]);
    }

    fn show(&self) -> String {
        let [server, own] = self.spent.map(|spent| spent / self.cycles);
        format!("{:>7.0}/s ({server:4.1} + {own:4.1} µs)", median(self.rates.clone()))
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark's figures are its output")]
#[tokio::main]
async fn main() -> Result<(), Failure> {
    let server = RedisServer::start()?;
    let epochs: Arc<dyn EpochSource> = Arc::new(Epochs::default());
    let locks = RedisOptions::parse(&server.url())?.open(epochs, Deadline::after(Duration::from_secs(10))).await?;
    let connection = redis::Client::open(server.url())?.get_multiplexed_async_connection().await?;
    let mut asks = connection.clone();
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let rounds = args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(ROUNDS);
    println!("{}", server.version()?);
    println!("acquire plus release against SET NX PX plus a compare-and-delete script; medians of {rounds} rounds");
    println!("in brackets: the processor's time of a cycle, of the server and of this process");
    for (tasks, depth) in [(1, 1), (8, 1), (64, 1), (1, 4), (64, 4)] {
        let case = format!("{tasks:>3} tasks, paths of depth {depth}");
        if args.iter().any(|arg| arg.parse::<usize>().is_err() && !case.contains(arg)) {
            continue;
        }
        let path = move |task: usize| match depth {
            1 => format!("lock-{task}"),
            _ => format!("a/b/c/lock-{task}"),
        };
        let (mut theirs, mut own) = (Side::default(), Side::default());
        for round in 0..=rounds {
            let before = spent(&mut asks).await?;
            let a = rate(tasks, ROUND, |task, until| bare(connection.clone(), path(task), until)).await?;
            let between = spent(&mut asks).await?;
            let b = rate(tasks, ROUND, |task, until| {
                cycles(Arc::<RedisLocks>::clone(&locks), "bench".to_owned(), path(task), until)
            })
            .await?;
            let after = spent(&mut asks).await?;
            // The first round warms up.
            if round > 0 {
                theirs.add(a, before, between);
                own.add(b, between, after);
            }
        }
        let ratio = median(own.rates.iter().zip(&theirs.rates).map(|(own, theirs)| own / theirs).collect());
        println!("{case}: bare {}  ours {}  ratio {ratio:.2}", theirs.show(), own.show());
    }
    Ok(())
}
