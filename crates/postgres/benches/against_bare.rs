//! Read plus commit against a bare SELECT plus UPDATE of the same client on the same server, interleaved in one run.
//!
//! `cargo bench -p mutext-postgres` prints rates and their ratios. A bare UPDATE keeps no history and no feed, and checks
//! nothing; the variant beside it writes an INSERT in the same transaction, which is the least that a history costs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mutext_contract::{
    AgentName, Commit, Content, ContextName, Deadline, DocumentPath, DocumentStore, Fence, FencingToken, LeaseId,
    Outcome, Precondition,
};
use mutext_postgres::PostgresOptions;
use mutext_testbed::PostgresServer;
use tokio_postgres::{Client, NoTls};

const ROUNDS: usize = 11;
const ROUND: Duration = Duration::from_millis(700);
const CONTENT: &str = r#"["0-0","1-0","2-0","3-0","0-1","1-1","2-1","3-1"]"#;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Clone, Copy)]
enum Variant {
    Bare,
    BareWithHistory,
    Ours,
    OursFenced,
}

const VARIANTS: [(Variant, &str); 4] = [
    (Variant::Bare, "SELECT, UPDATE"),
    (Variant::BareWithHistory, "SELECT, UPDATE and INSERT in one statement"),
    (Variant::Ours, "read, commit if unchanged"),
    (Variant::OursFenced, "fenced read, commit under fence and revision"),
];

async fn connected(url: &str) -> Result<Client, Failure> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn bare(client: Client, task: i32, history: bool, until: Instant) -> Result<u64, Failure> {
    let select = client.prepare("SELECT content FROM bare WHERE id = $1").await?;
    let update = client
        .prepare(if history {
            "WITH made AS (UPDATE bare SET content = $2, revision = revision + 1 WHERE id = $1 RETURNING revision)
             INSERT INTO past SELECT $1, revision, $2 FROM made"
        } else {
            "UPDATE bare SET content = $2, revision = revision + 1 WHERE id = $1"
        })
        .await?;
    let mut cycles = 0;
    while Instant::now() < until {
        client.query_one(&select, &[&task]).await?;
        client.execute(&update, &[&task, &CONTENT]).await?;
        cycles += 1;
    }
    Ok(cycles)
}

async fn ours(store: Arc<dyn DocumentStore>, task: i32, fenced: bool, until: Instant) -> Result<u64, Failure> {
    let (context, author) = (ContextName::new("bench")?, AgentName::new("bench")?);
    let path = DocumentPath::new(format!("doc-{task}"))?;
    let began = u64::try_from(Instant::now().duration_since(*START).as_micros())?;
    let mut cycles = 0;
    while Instant::now() < until {
        let deadline = Deadline::after(Duration::from_secs(5));
        let fence = Fence::new(FencingToken::new(1, began + cycles, LeaseId::random()), path.as_str())?;
        let document = if fenced {
            match store.read_fenced(&context, &path, &fence, deadline).await? {
                mutext_contract::FencedRead::Read(document) => document,
                _ => return Err("a newer token has been here".into()),
            }
        } else {
            store.read(&context, &path, deadline).await?
        };
        let precondition = Precondition::unchanged(document.as_ref());
        // Not what is there already: that would make no revision.
        let text = if cycles % 2 == 0 { CONTENT.to_owned() } else { CONTENT.replace('3', "4") };
        let mut commit = Commit::new(author.clone()).put(path.clone(), Content::parse_json(text)?, precondition);
        if fenced {
            commit = commit.fenced_by(fence);
        }
        let outcome = store.commit(&context, &commit, deadline).await?;
        assert!(matches!(outcome, Outcome::Committed(_)), "nobody else writes: {outcome:?}");
        cycles += 1;
    }
    Ok(cycles)
}

static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);

async fn rate(variant: Variant, tasks: i32, url: &str, stores: &[Arc<dyn DocumentStore>]) -> Result<f64, Failure> {
    let mut clients = Vec::new();
    if matches!(variant, Variant::Bare | Variant::BareWithHistory) {
        for _ in 0..tasks {
            clients.push(connected(url).await?);
        }
    }
    let began = Instant::now();
    let until = began + ROUND;
    let mut running = Vec::new();
    for task in 0..tasks {
        let store = Arc::clone(&stores[task as usize % stores.len()]);
        running.push(match (variant, clients.pop()) {
            (Variant::Bare, Some(client)) => tokio::spawn(bare(client, task, false, until)),
            (Variant::BareWithHistory, Some(client)) => tokio::spawn(bare(client, task, true, until)),
            (other, _) => tokio::spawn(ours(store, task, matches!(other, Variant::OursFenced), until)),
        });
    }
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
    let _ = *START;
    let server = PostgresServer::start_with(&[("fsync", "on"), ("synchronous_commit", "on")])?;
    server.sql("CREATE TABLE bare (id int PRIMARY KEY, revision bigint, content text) WITH (fillfactor = 70)")?;
    server.sql("CREATE TABLE past (id int, revision bigint, content text, PRIMARY KEY (id, revision))")?;
    server.sql(&format!("INSERT INTO bare SELECT i, 0, '{CONTENT}' FROM generate_series(0, 15) i"))?;
    let url = server.url();
    println!("{}, fsync on; medians of {ROUNDS} rounds", server.version()?);
    for tasks in [1, 4, 16] {
        // As many connections as the bare variant has.
        let options = PostgresOptions::parse(&format!("{url}?pool={}", tasks.min(4)))?;
        let mut stores: Vec<Arc<dyn DocumentStore>> = Vec::new();
        for _ in 0..(tasks / 4).max(1) {
            stores.push(options.open(Deadline::after(Duration::from_secs(10))).await?);
        }
        let mut rates = vec![Vec::new(); VARIANTS.len()];
        for round in 0..=ROUNDS {
            for (which, (variant, _)) in VARIANTS.iter().enumerate() {
                let rate = rate(*variant, tasks, &url, &stores).await?;
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
                "{tasks:>3} tasks  {what:<46} {rate:>7.0}/s  {:.2} of the bare update  {:.2} of the one with history",
                ratio(0),
                ratio(1)
            );
        }
    }
    Ok(())
}
