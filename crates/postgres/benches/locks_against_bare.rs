//! Acquire plus release against two bare statements of the same client on the same server, interleaved in one run; how a
//! contended lock is handed over; and what a notice costs those who release.
//!
//! `cargo bench -p mutext-postgres --bench locks_against_bare` prints rates and their ratios. The bare statements know one
//! row and no queue, no subtree, no token of a context and no second look: the least that a lock in a table is. Once they
//! are made on an ordinary table, which waits for the disk as any table does, and once on an unlogged one, as ours.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mutext_conformance::Epochs;
use mutext_conformance::asking::{Failure, median};
use mutext_contract::{
    Acquisition, AgentName, ContextName, Deadline, EpochSource, Holder, LockRequest, LockService, Ttl,
};
use mutext_postgres::{PostgresLocks, PostgresOptions};
use mutext_testbed::{PgBouncer, PostgresServer};
use tokio_postgres::{Client, NoTls};

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(400);
const CONTENDERS: u32 = 8;
const CONTENTION: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy)]
enum Variant {
    BareLogged,
    BareUnlogged,
    Ours,
}

const VARIANTS: [(Variant, &str); 3] = [
    (Variant::BareLogged, "two UPDATEs, an ordinary table"),
    (Variant::BareUnlogged, "two UPDATEs, an unlogged table"),
    (Variant::Ours, "acquire, release"),
];

async fn connected(url: &str) -> Result<Client, Failure> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn bare(client: Client, table: &str, task: i32, until: Instant) -> Result<u64, Failure> {
    let own: [u8; 16] = rand::random();
    let take = format!(
        "UPDATE {table} SET holder = $2, token = token + 1, ends = clock_timestamp() + interval '10 s'
         WHERE id = $1 AND (holder IS NULL OR ends < clock_timestamp()) RETURNING token"
    );
    let take = client.prepare(&take).await?;
    let give = client.prepare(&format!("UPDATE {table} SET holder = NULL WHERE id = $1 AND holder = $2")).await?;
    let mut cycles = 0;
    while Instant::now() < until {
        client.query_one(&take, &[&task, &&own[..]]).await?;
        client.execute(&give, &[&task, &&own[..]]).await?;
        cycles += 1;
    }
    Ok(cycles)
}

fn request(resource: &str) -> Result<LockRequest, Failure> {
    let holder = Holder::new(AgentName::new("bench")?);
    Ok(LockRequest::exclusive(ContextName::new("bench")?, holder, Ttl::DEFAULT, resource.parse()?))
}

async fn ours(locks: Arc<PostgresLocks>, task: i32, until: Instant) -> Result<u64, Failure> {
    let resource = format!("task-{task}");
    let mut cycles = 0;
    while Instant::now() < until {
        let request = request(&resource)?;
        let deadline = Deadline::after(Duration::from_secs(5));
        let Acquisition::Granted(grant) = locks.acquire(&request, deadline).await? else {
            return Err("a lock that nobody else wants was not granted".into());
        };
        locks.release(&request.context, grant.lease.id(), deadline).await?;
        cycles += 1;
    }
    Ok(cycles)
}

async fn rate(variant: Variant, tasks: i32, url: &str, locks: &[Arc<PostgresLocks>]) -> Result<f64, Failure> {
    let mut clients = Vec::new();
    if !matches!(variant, Variant::Ours) {
        for _ in 0..tasks {
            clients.push(connected(url).await?);
        }
    }
    let began = Instant::now();
    let until = began + ROUND;
    let mut running = Vec::new();
    for task in 0..tasks {
        let own = Arc::clone(&locks[task as usize % locks.len()]);
        running.push(match (variant, clients.pop()) {
            (Variant::BareLogged, Some(client)) => tokio::spawn(bare(client, "bare_logged", task, until)),
            (Variant::BareUnlogged, Some(client)) => tokio::spawn(bare(client, "bare_unlogged", task, until)),
            _ => tokio::spawn(ours(own, task, until)),
        });
    }
    let mut cycles = 0;
    for task in running {
        cycles += task.await??;
    }
    Ok(cycles as f64 / began.elapsed().as_secs_f64())
}

fn at(sorted: &[Duration], share: f64) -> Duration {
    sorted.get((sorted.len() as f64 * share) as usize).copied().unwrap_or_default()
}

/// One contender: how long it waited each time, and how long it took to learn of a grant.
async fn contend(locks: Arc<PostgresLocks>, until: Instant) -> Result<(Vec<Duration>, Vec<Duration>), Failure> {
    let (mut waits, mut learned) = (Vec::new(), Vec::new());
    while Instant::now() < until {
        let (request, deadline) = (request("hot")?, Deadline::after(Duration::from_secs(10)));
        let asked = Instant::now();
        let Acquisition::Granted(grant) = locks.acquire(&request, deadline).await? else {
            return Err("a contender waited for ten seconds".into());
        };
        waits.push(asked.elapsed());
        learned.extend(grant.handed_over_after);
        locks.release(&request.context, grant.lease.id(), deadline).await?;
    }
    Ok((waits, learned))
}

/// Contenders, each a process of its own to the server, want one lock again and again, and hold it for no time.
#[expect(clippy::print_stdout, reason = "a benchmark's figures are its output")]
async fn contention(name: &str, url: &str, epochs: &Arc<Epochs>) -> Result<(), Failure> {
    let mut contenders = Vec::new();
    for _ in 0..CONTENDERS {
        let epochs: Arc<dyn EpochSource> = Arc::<Epochs>::clone(epochs);
        let options = PostgresOptions::parse(&format!("{url}?pool=1"))?;
        contenders.push(options.open_locks(epochs, Deadline::after(Duration::from_secs(10))).await?);
    }
    let until = Instant::now() + CONTENTION;
    let running: Vec<_> = contenders.into_iter().map(|locks| tokio::spawn(contend(locks, until))).collect();
    let (mut waits, mut learned, mut each) = (Vec::new(), Vec::new(), Vec::new());
    for task in running {
        let (own, told) = task.await??;
        each.push(own.len());
        waits.extend(own);
        learned.extend(told);
    }
    waits.sort_unstable();
    learned.sort_unstable();
    println!(
        "{CONTENDERS} contenders, {name:<14} {:>5.0}/s  waited {:.1?} p50, {:.1?} p99, {:.1?} max; {} told, after {:.0?} p50, \
         {:.0?} p99; the least had {}, the most {}",
        waits.len() as f64 / CONTENTION.as_secs_f64(),
        at(&waits, 0.5),
        at(&waits, 0.99),
        waits.last().copied().unwrap_or_default(),
        learned.len(),
        at(&learned, 0.5),
        at(&learned, 0.99),
        each.iter().min().copied().unwrap_or_default(),
        each.iter().max().copied().unwrap_or_default(),
    );
    Ok(())
}

/// Eight sessions change rows of their own, unlogged as ours are; with and without a notice in each transaction.
#[expect(clippy::print_stdout, reason = "a benchmark's figures are its output")]
async fn notices(url: &str) -> Result<(), Failure> {
    let plain = "UPDATE bare_unlogged SET token = token + 1 WHERE id = $1";
    let told = "WITH told AS (UPDATE bare_unlogged SET token = token + 1 WHERE id = $1 RETURNING id)
                SELECT pg_notify('nobody', id::text) FROM told";
    for listeners in [0, 8, 40] {
        let mut listening = Vec::new();
        for _ in 0..listeners {
            let client = connected(url).await?;
            client.batch_execute("LISTEN somebody").await?;
            listening.push(client);
        }
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..5 {
            for (which, sql) in [plain, told].into_iter().enumerate() {
                let until = Instant::now() + ROUND;
                let mut running = Vec::new();
                for id in 0..8_i32 {
                    let client = connected(url).await?;
                    running.push(tokio::spawn(async move {
                        let statement = client.prepare(sql).await?;
                        let mut count = 0_u64;
                        while Instant::now() < until {
                            client.query(&statement, &[&id]).await?;
                            count += 1;
                        }
                        Ok::<u64, Failure>(count)
                    }));
                }
                let mut count = 0;
                for task in running {
                    count += task.await??;
                }
                rates[which].push(count as f64 / ROUND.as_secs_f64());
            }
        }
        let [plain, told] = rates.map(median);
        println!("{listeners:>3} who listen: {plain:>6.0}/s without a notice, {told:>6.0}/s with one");
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a benchmark's figures are its output")]
#[tokio::main]
async fn main() -> Result<(), Failure> {
    let settings = [("fsync", "on"), ("synchronous_commit", "on"), ("max_connections", "200")];
    let server = PostgresServer::start_with(&settings)?;
    for (table, kind) in [("bare_logged", ""), ("bare_unlogged", "UNLOGGED")] {
        server.sql(&format!(
            "CREATE {kind} TABLE {table} (id int PRIMARY KEY, holder bytea, token bigint NOT NULL, ends timestamptz)
                 WITH (fillfactor = 40);
             INSERT INTO {table} SELECT i, NULL, 0, now() FROM generate_series(0, 15) i"
        ))?;
    }
    let (url, epochs) = (server.url(), Arc::<Epochs>::default());
    println!("{}, fsync on; medians of {ROUNDS} rounds", server.version()?);
    for tasks in [1, 4] {
        let mut locks = Vec::new();
        for _ in 0..tasks {
            let epochs: Arc<dyn EpochSource> = Arc::<Epochs>::clone(&epochs);
            let options = PostgresOptions::parse(&format!("{url}?pool=1"))?;
            locks.push(options.open_locks(epochs, Deadline::after(Duration::from_secs(10))).await?);
        }
        let mut rates = vec![Vec::new(); VARIANTS.len()];
        for round in 0..=ROUNDS {
            for (which, (variant, _)) in VARIANTS.iter().enumerate() {
                let rate = rate(*variant, tasks, &url, &locks).await?;
                // The first round warms up.
                if round > 0 {
                    rates[which].push(rate);
                }
            }
        }
        for (which, (_, what)) in VARIANTS.iter().enumerate() {
            let ratio =
                |base: usize| median(rates[which].iter().zip(&rates[base]).map(|(own, base)| own / base).collect());
            let rate = median(rates[which].clone());
            println!(
                "{tasks:>3} tasks  {what:<32} {rate:>6.0}/s  {:.2} of the ordinary table  {:.2} of the unlogged one",
                ratio(0),
                ratio(1)
            );
        }
    }
    contention("told", &url, &epochs).await?;
    let pooler = PgBouncer::start(&server, 16)?;
    contention("through a pooler", &pooler.url(), &epochs).await?;
    notices(&url).await
}
