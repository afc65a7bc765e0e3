//! What each strategy makes of conflicts: eight agents, each with an opening of its own, over documents on PostgreSQL and
//! locks in Redis, from nobody in anybody's way to all of them on one document, and a mixture.
//!
//! `cargo bench -p mutext --bench adaptive` prints, for each strategy, updates per second (the median of interleaved
//! rounds), the ratio of adaptive to the better one of compare-and-set and lease, and how many of its updates were made
//! under a lease. `-- embedded` uses the embedded engines, `rounds=9` says how many.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mutext::{Address, AgentName, Context, Document, Mutext, Precondition, Settings, Strategy};
use mutext_testbed::{PostgresServer, RedisServer};
use rand::seq::SliceRandom;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const AGENTS: usize = 8;
const ROUND: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_secs(20);

/// Which documents an agent changes.
#[derive(Debug, Clone, Copy)]
enum Spread {
    /// Its own.
    Apart,
    /// Any of so many.
    Over(u32),
    /// In half of its updates one that all change, else any of many.
    Mixed,
}

const SPREADS: [(Spread, &str); 6] = [
    (Spread::Apart, "each its own"),
    (Spread::Over(64), "64 documents"),
    (Spread::Over(16), "16 documents"),
    (Spread::Over(4), "4 documents"),
    (Spread::Over(1), "one document"),
    (Spread::Mixed, "one of two hot"),
];

impl Spread {
    fn path(self, way: &str, agent: usize) -> String {
        let name = match self {
            Self::Apart => format!("own-{agent}"),
            Self::Over(count) => format!("any-{}", rand::random_range(0..count)),
            Self::Mixed if rand::random() => "hot".to_owned(),
            Self::Mixed => format!("cold-{}", rand::random_range(0..200)),
        };
        format!("{way}/{name}")
    }
}

/// How an update is made.
#[derive(Debug, Clone, Copy)]
enum Way {
    Blind,
    By(Strategy),
}

/// Makes one; whether it was under a lease.
async fn update(context: &Context, path: &str, way: Way, work: Duration) -> Result<bool, Failure> {
    let change = async |document: Option<Document>| {
        if !work.is_zero() {
            tokio::time::sleep(work).await;
        }
        let count: u64 = document.map_or(Ok(0), |document| document.content.as_str().parse())?;
        Ok::<_, Failure>((count + 1).to_string().into())
    };
    match way {
        Way::Blind => {
            let document = context.get(path).await?;
            context.put(path, change(document).await?, Precondition::Any).await?;
            Ok(false)
        }
        Way::By(strategy) => {
            let mut options = context.update_options();
            (options.strategy, options.patience) = (strategy, PATIENCE);
            Ok(context.update_with(path, &options, change).await?.token.is_some())
        }
    }
}

/// Updates per second of all agents together, and the share of them that was made under a lease.
async fn rate(agents: &[Context], spread: Spread, name: &str, way: Way, work: Duration) -> Result<(f64, f64), Failure> {
    let began = Instant::now();
    let until = began + ROUND;
    let work_on = |(agent, context): (usize, &Context)| {
        let (context, name) = (context.clone(), name.to_owned());
        tokio::spawn(async move {
            let (mut count, mut leased) = (0_u32, 0_u32);
            while Instant::now() < until {
                leased += u32::from(update(&context, &spread.path(&name, agent), way, work).await?);
                count += 1;
            }
            Ok::<_, Failure>((count, leased))
        })
    };
    let running: Vec<_> = agents.iter().enumerate().map(work_on).collect();
    let (mut count, mut leased) = (0, 0);
    for running in running {
        let (by_one, leased_by_one) = running.await??;
        (count, leased) = (count + by_one, leased + leased_by_one);
    }
    Ok((f64::from(count) / began.elapsed().as_secs_f64(), f64::from(leased) / f64::from(count.max(1))))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

#[expect(clippy::print_stdout, reason = "a benchmark's figures are its output")]
async fn sweep(agents: &[Context], rounds: usize, work: Duration) -> Result<(), Failure> {
    let (ttl, wait) = (mutext::Ttl::DEFAULT, mutext::Wait::new(PATIENCE)?);
    let ways = [
        ("blind", Way::Blind),
        ("compare-and-set", Way::By(Strategy::CompareAndSet)),
        ("lease", Way::By(Strategy::Lease { ttl, wait })),
        ("adaptive", Way::By(Strategy::Adaptive { ttl, wait })),
    ];
    println!("\n{rounds} rounds of {ROUND:?}, {work:?} of work in each update; updates per second");
    println!(
        "{:<16} {:>10} {:>16} {:>10} {:>10} {:>18} {:>12}",
        "", ways[0].0, ways[1].0, ways[2].0, ways[3].0, "to the better one", "under lease"
    );
    for (spread, title) in SPREADS {
        let mut rates = vec![Vec::new(); ways.len()];
        let mut leased = Vec::new();
        let mut order: Vec<usize> = (0..ways.len()).collect();
        for round in 0..=rounds {
            order.shuffle(&mut rand::rng());
            for &which in &order {
                let (name, way) = ways[which];
                let (rate, under_lease) =
                    rate(agents, spread, &format!("{name}/{}", work.as_millis()), way, work).await?;
                // The first round warms up.
                if round > 0 {
                    rates[which].push(rate);
                    if name == "adaptive" {
                        leased.push(under_lease);
                    }
                }
            }
        }
        let medians: Vec<f64> = rates.iter().map(|rates| median(rates)).collect();
        let ratio = medians[3] / medians[1].max(medians[2]);
        println!(
            "{title:<16} {:>10.0} {:>16.0} {:>10.0} {:>10.0} {ratio:>18.3} {:>10.0} %",
            medians[0],
            medians[1],
            medians[2],
            medians[3],
            100.0 * median(&leased)
        );
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let embedded = std::env::args().any(|word| word == "embedded");
    let rounds = std::env::args().find_map(|word| word.strip_prefix("rounds=")?.parse().ok()).unwrap_or(9);
    let dir = tempfile::tempdir()?;
    let servers = if embedded {
        None
    } else {
        Some((PostgresServer::start_with(&[("fsync", "on"), ("synchronous_commit", "on")])?, RedisServer::start()?))
    };
    let (store, locks): (Address, Option<Address>) = match &servers {
        Some((postgres, redis)) => (format!("{}?pool=2", postgres.url()).parse()?, Some(redis.url().parse()?)),
        None => (Address::embedded(dir.path()), None),
    };
    let mut opened = Vec::new();
    let mut agents = Vec::new();
    for agent in 0..AGENTS {
        let mutext = Mutext::open(&store, locks.as_ref()).await?;
        agents.push(mutext.context("bench", Settings::new(AgentName::new(format!("agent-{agent}"))?))?);
        opened.push(Arc::new(mutext));
    }
    for work in [Duration::ZERO, Duration::from_millis(1)] {
        sweep(&agents, rounds, work).await?;
    }
    for mutext in opened {
        mutext.finish().await;
    }
    Ok(())
}
