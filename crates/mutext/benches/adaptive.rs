//! What each strategy makes of conflicts: eight agents, each with an opening of its own, over documents on PostgreSQL and
//! locks in Redis, from nobody in anybody's way to all of them on one document, and a mixture.
//!
//! `cargo bench -p mutext --bench adaptive` prints, for each strategy, updates per second over all of its rounds, the ratio
//! of adaptive to the better one of compare-and-set and lease, and how many of its updates were made under a lease. The
//! rounds are short, many and interleaved, so that what else the machine does falls on all alike. `-- embedded` uses the
//! embedded engines, `rounds=30` says how many rounds, `work=1` how many milliseconds each update works, and `only=hot`
//! takes the cases with that word.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mutext::{Address, AgentName, Context, Document, Mutext, Precondition, Settings, Strategy};
use mutext_testbed::{PostgresServer, RedisServer};
use rand::seq::SliceRandom;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const AGENTS: usize = 8;
const ROUND: Duration = Duration::from_millis(100);
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

/// What all agents together did in some rounds.
#[derive(Debug, Clone, Copy, Default)]
struct Done {
    updates: u32,
    leased: u32,
    seconds: f64,
}

impl Done {
    fn rate(self) -> f64 {
        f64::from(self.updates) / self.seconds
    }

    fn add(&mut self, other: Self) {
        self.updates += other.updates;
        self.leased += other.leased;
        self.seconds += other.seconds;
    }
}

/// One round.
async fn round(agents: &[Context], spread: Spread, name: &str, way: Way, work: Duration) -> Result<Done, Failure> {
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
    let mut done = Done::default();
    for running in running {
        let (updates, leased) = running.await??;
        done.add(Done { updates, leased, seconds: 0.0 });
    }
    Ok(Done { seconds: began.elapsed().as_secs_f64(), ..done })
}

#[expect(clippy::print_stdout, reason = "a benchmark's figures are its output")]
async fn sweep(agents: &[Context], rounds: usize, only: &str, work: Duration) -> Result<(), Failure> {
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
    for (spread, title) in SPREADS.into_iter().filter(|(_, title)| title.contains(only)) {
        let mut done = vec![Done::default(); ways.len()];
        let mut order: Vec<usize> = (0..ways.len()).collect();
        // The first rounds warm up: how much is in whose way is learnt.
        for number in 0..rounds + rounds / 4 {
            order.shuffle(&mut rand::rng());
            for &which in &order {
                let (name, way) = ways[which];
                let one = round(agents, spread, &format!("{name}/{}", work.as_millis()), way, work).await?;
                if number >= rounds / 4 {
                    done[which].add(one);
                }
            }
        }
        let rates: Vec<f64> = done.iter().map(|done| done.rate()).collect();
        let ratio = rates[3] / rates[1].max(rates[2]);
        let leased = 100.0 * f64::from(done[3].leased) / f64::from(done[3].updates.max(1));
        println!(
            "{title:<16} {:>10.0} {:>16.0} {:>10.0} {:>10.0} {ratio:>18.3} {leased:>10.0} %",
            rates[0], rates[1], rates[2], rates[3]
        );
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let embedded = std::env::args().any(|word| word == "embedded");
    let given = |name: &str| std::env::args().find_map(|word| Some(word.strip_prefix(name)?.to_owned()));
    let rounds = given("rounds=").map_or(Ok(30), |rounds| rounds.parse())?;
    let only = given("only=").unwrap_or_default();
    let works = match given("work=") {
        Some(work) => vec![Duration::from_millis(work.parse()?)],
        None => vec![Duration::ZERO, Duration::from_millis(1)],
    };
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
    for work in works {
        sweep(&agents, rounds, &only, work).await?;
    }
    for mutext in opened {
        mutext.finish().await;
    }
    Ok(())
}
