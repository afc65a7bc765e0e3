//! What protecting an update costs, and what each measure against that cost contributes: documents on PostgreSQL, locks
//! in Redis, every variant once a round in random order, on documents of its own.
//!
//! `cargo bench -p mutext --bench update` prints, for each variant, the time from asking to the acknowledged write. What
//! happens behind the answer is waited for before the next variant, and counts in no variant's time.

use std::time::{Duration, Instant};

use mutext::{
    AgentName, Commit, Content, Context, Document, Error, LockGuard, Mutext, Precondition, Settings, Strategy,
    UpdateOptions,
};
use mutext_testbed::{PostgresServer, RedisServer};
use rand::seq::SliceRandom;
use redis::aio::MultiplexedConnection;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How the update is protected, and when its steps happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    Unprotected,
    Optimistic,
    Floor,
    Unfenced,
    OneByOne,
    Behind,
    Overlapped,
}

const VARIANTS: [(Variant, &str); 7] = [
    (Variant::Unprotected, "read, write"),
    (Variant::Optimistic, "read, write if unchanged"),
    (Variant::Floor, "read and PING Redis at the same time, write if unchanged"),
    (Variant::Unfenced, "lock, read, write; unlock behind the answer"),
    (Variant::OneByOne, "lock, read, write under fence and revision, unlock"),
    (Variant::Behind, "  the same, unlock behind the answer"),
    (Variant::Overlapped, "  the same, lock and read at the same time"),
];

fn changed(document: Option<&Document>) -> Result<Content, Error> {
    let mut ids: Vec<u32> = match document {
        Some(document) => document.content.parse()?,
        None => Vec::new(),
    };
    ids.truncate(20);
    ids.push(7);
    Ok(Content::json(&ids)?)
}

async fn under_lease(context: &Context, path: &str, fenced: bool) -> Result<LockGuard, Error> {
    let guard = context.lock(path).await?;
    let document = if fenced { guard.get(path).await? } else { context.get(path).await? };
    let content = changed(document.as_ref())?;
    if fenced {
        let precondition = Precondition::unchanged(document.as_ref());
        guard.commit(Commit::new(context.agent().clone()).put(path.parse()?, content, precondition)).await?;
    } else {
        context.put(path, content, Precondition::Any).await?;
    }
    Ok(guard)
}

async fn by_library(context: &Context, path: &str, options: &UpdateOptions) -> Result<(), Error> {
    context.update_with(path, options, async |document| changed(document.as_ref())).await.map(drop)
}

/// The least that anything costs that asks Redis once: what our locks cost more is their own.
async fn with_ping(context: &Context, redis: &mut MultiplexedConnection, path: &str) -> Result<(), Failure> {
    let ping = redis::cmd("PING");
    let (document, pong) = tokio::join!(context.get(path), ping.query_async::<String>(redis));
    pong?;
    let document = document?;
    context.put(path, changed(document.as_ref())?, Precondition::unchanged(document.as_ref())).await?;
    Ok(())
}

/// One update, and how long it took.
async fn update(
    context: &Context,
    redis: &mut MultiplexedConnection,
    path: &str,
    variant: Variant,
) -> Result<Duration, Failure> {
    let mut options = context.update_options();
    let began = Instant::now();
    let held = match variant {
        Variant::Unprotected => {
            let document = context.get(path).await?;
            context.put(path, changed(document.as_ref())?, Precondition::Any).await?;
            None
        }
        Variant::Optimistic => {
            options.strategy = Strategy::CompareAndSet;
            by_library(context, path, &options).await?;
            None
        }
        Variant::Floor => {
            with_ping(context, redis, path).await?;
            None
        }
        Variant::Overlapped => {
            by_library(context, path, &options).await?;
            None
        }
        Variant::Unfenced => Some(under_lease(context, path, false).await?),
        Variant::OneByOne => {
            under_lease(context, path, true).await?.release().await?;
            None
        }
        Variant::Behind => Some(under_lease(context, path, true).await?),
    };
    drop(held);
    Ok(began.elapsed())
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[expect(clippy::print_stdout, reason = "a benchmark's figures are its output")]
async fn run(
    context: &Context,
    redis: &mut MultiplexedConnection,
    rounds: usize,
    pause: Duration,
    name: &str,
) -> Result<(), Failure> {
    let mut order: Vec<usize> = (0..VARIANTS.len()).collect();
    let mut times = vec![Vec::new(); VARIANTS.len()];
    for round in 0..rounds + 30 {
        order.shuffle(&mut rand::rng());
        for &which in &order {
            tokio::time::sleep(pause).await;
            let path = format!("{name}/{which}/{}", round % 10);
            let took = update(context, redis, &path, VARIANTS[which].0).await?;
            // The first rounds warm up.
            if round >= 30 {
                times[which].push(took.as_secs_f64() * 1000.0);
            }
        }
    }
    println!("\n{rounds} rounds, pauses of {pause:?}");
    println!("{:<54} {:>8} {:>8} {:>8} {:>10} {:>10}", "", "mean ms", "p50 ms", "p99 ms", "mean + %", "p50 + %");
    let sorted: Vec<Vec<f64>> = times
        .into_iter()
        .map(|mut times| {
            times.sort_by(f64::total_cmp);
            times
        })
        .collect();
    let (bare_mean, bare_median) = (mean(&sorted[0]), quantile(&sorted[0], 0.5));
    for ((_, what), times) in VARIANTS.iter().zip(&sorted) {
        let (mean, median) = (mean(times), quantile(times, 0.5));
        let more = |time: f64, base: f64| (time / base - 1.0) * 100.0;
        println!(
            "{what:<54} {mean:>8.3} {median:>8.3} {:>8.3} {:>10.1} {:>10.1}",
            quantile(times, 0.99),
            more(mean, bare_mean),
            more(median, bare_median)
        );
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a benchmark's figures are its output")]
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    // As it runs wherever data matter: every commit waits for the disk.
    let postgres = PostgresServer::start_with(&[("fsync", "on"), ("synchronous_commit", "on")])?;
    let redis_server = RedisServer::start()?;
    println!("{}; {}", postgres.version()?, redis_server.version()?);
    let mutext = Mutext::open(&postgres.url().parse()?, Some(&redis_server.url().parse()?)).await?;
    let context = mutext.context("bench", Settings::new(AgentName::new("bench")?))?;
    let mut redis = redis::Client::open(redis_server.url())?.get_multiplexed_async_connection().await?;
    run(&context, &mut redis, 1500, Duration::from_millis(1), "soon").await?;
    run(&context, &mut redis, 250, Duration::from_millis(30), "late").await?;
    mutext.finish().await;
    Ok(())
}
