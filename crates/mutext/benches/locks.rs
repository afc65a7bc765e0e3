//! A lock through the library against the bare calls of the same client on the same servers: for an agent that comes
//! back for the same lock at once, whose lease may stay with it, and for one that takes four in turn, whose may not.
//!
//! `cargo bench -p mutext --bench locks` prints locks per second and their ratio, for each form of Redis and for
//! PostgreSQL; medians of interleaved rounds. Bare is `SET NX PX` and a script that compares and deletes, on all nodes where
//! there are several; on PostgreSQL two `UPDATE` statements on an unlogged table. A number as an argument takes that many
//! rounds, and words take only the lines that have them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use mutext::{AgentName, LeaseId, Mutext, Settings};
use mutext_conformance::asking::{Failure, median, rate};
use mutext_testbed::{PostgresServer, RedisCluster, RedisNodes, RedisServer, SentinelSet};
use redis::aio::MultiplexedConnection;
use tokio_postgres::{Client, NoTls};

const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(300);
const RELEASE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end";
const CONTEXT: &str = "bench";
/// So many tasks at most speak to PostgreSQL, each on a session of its own.
const SESSIONS: usize = 8;

/// What a bare lock is set on.
#[derive(Clone)]
enum Bare {
    Redis(Vec<MultiplexedConnection>),
    Postgres(Vec<Arc<Client>>),
}

impl Bare {
    async fn redis(servers: &[&RedisServer]) -> Result<Self, Failure> {
        let connect = |server: &&RedisServer| redis::Client::open(server.url());
        let clients = servers.iter().map(connect).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::Redis(try_join_all(clients.iter().map(redis::Client::get_multiplexed_async_connection)).await?))
    }

    async fn postgres(server: &PostgresServer) -> Result<Self, Failure> {
        let mut sessions = Vec::new();
        for _ in 0..SESSIONS {
            let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await?;
            tokio::spawn(connection);
            sessions.push(Arc::new(client));
        }
        let table =
            "CREATE UNLOGGED TABLE bare (id int PRIMARY KEY, token bigint NOT NULL, holder bytea, ends timestamptz);
                     INSERT INTO bare SELECT id, 0 FROM generate_series(0, 63) AS id;
                     ALTER TABLE bare SET (fillfactor = 10); VACUUM FULL bare";
        for statement in table.split(';') {
            sessions[0].batch_execute(statement).await?;
        }
        Ok(Self::Postgres(sessions))
    }

    /// Cycles of one task until `until`.
    async fn cycles(self, task: usize, until: Instant) -> Result<u64, Failure> {
        match self {
            Self::Redis(servers) => on_redis(servers, format!("{{{CONTEXT}}}:{task}"), until).await,
            Self::Postgres(sessions) => on_postgres(&sessions[task % SESSIONS], task, until).await,
        }
    }
}

async fn on_redis(servers: Vec<MultiplexedConnection>, key: String, until: Instant) -> Result<u64, Failure> {
    let script = redis::Script::new(RELEASE);
    let mut cycles = 0;
    while Instant::now() < until {
        let owner = LeaseId::random().to_string();
        let set = servers.iter().cloned().map(|mut server| {
            let mut set = redis::cmd("SET");
            set.arg(&key).arg(&owner).arg("NX").arg("PX").arg(10_000);
            async move { set.query_async::<Option<String>>(&mut server).await }
        });
        assert!(try_join_all(set).await?.iter().all(Option::is_some), "nobody else wants {key}");
        let deleted = servers.iter().cloned().map(|mut server| {
            let (script, key, owner) = (&script, &key, &owner);
            async move { script.key(key).arg(owner).invoke_async::<u8>(&mut server).await }
        });
        assert!(try_join_all(deleted).await?.iter().all(|deleted| *deleted == 1));
        cycles += 1;
    }
    Ok(cycles)
}

async fn on_postgres(client: &Client, task: usize, until: Instant) -> Result<u64, Failure> {
    let (own, task): ([u8; 16], i32) = (rand::random(), task.try_into()?);
    let take = "UPDATE bare SET holder = $2, token = token + 1, ends = clock_timestamp() + interval '10 s'
                WHERE id = $1 AND (holder IS NULL OR ends < clock_timestamp()) RETURNING token";
    let take = client.prepare(take).await?;
    let give = client.prepare("UPDATE bare SET holder = NULL WHERE id = $1 AND holder = $2").await?;
    let mut cycles = 0;
    while Instant::now() < until {
        client.query_one(&take, &[&task, &&own[..]]).await?;
        client.execute(&give, &[&task, &&own[..]]).await?;
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

#[expect(clippy::print_stdout, reason = "a benchmark's figures are its output")]
async fn compare(name: &str, url: &str, bare: Bare) -> Result<(), Failure> {
    let documents = tempfile::tempdir()?;
    let store = format!("embedded:{}", documents.path().display()).parse()?;
    let mutext = Mutext::open(&store, Some(&url.parse()?)).await?;
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let rounds = args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(ROUNDS);
    let most = if matches!(bare, Bare::Postgres(_)) { SESSIONS } else { usize::MAX };
    for (tasks, in_turn) in [(1, 1), (8, 1), (64, 1), (1, 4), (8, 4), (64, 4)] {
        let what = if in_turn == 1 { "the same again" } else { "four in turn" };
        let case = format!("{name:<16} {tasks:>3} tasks, {what:<14}");
        if tasks > most || args.iter().any(|arg| arg.parse::<usize>().is_err() && !case.contains(arg)) {
            continue;
        }
        let (mut theirs, mut own) = (Vec::new(), Vec::new());
        for round in 0..=rounds {
            let (a, _) = rate(tasks, ROUND, |task, until| bare.clone().cycles(task, until)).await?;
            let paths = |task| (0..in_turn).map(|which| format!("lock-{task}-{which}")).collect();
            let (b, _) = rate(tasks, ROUND, |task, until| locks(mutext.clone(), paths(task), until)).await?;
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
    {
        let server = RedisServer::start()?;
        compare("Redis", &server.url(), Bare::redis(&[&server]).await?).await?;
    }
    {
        let mut set = SentinelSet::start()?;
        let url = set.url();
        compare("Sentinel", &url, Bare::redis(&[&set.servers()[0]]).await?).await?;
    }
    {
        let mut cluster = RedisCluster::start()?;
        let (_, master) = cluster.place_of(&format!("{{{CONTEXT}}}"))?;
        let url = cluster.url();
        compare("Cluster", &url, Bare::redis(&[&cluster.nodes()[master]]).await?).await?;
    }
    for count in [3, 5] {
        let mut nodes = RedisNodes::start(count)?;
        let url = nodes.url();
        let all: Vec<&RedisServer> = nodes.nodes().iter().collect();
        compare(&format!("Redlock, {count} nodes"), &url, Bare::redis(&all).await?).await?;
    }
    let server = PostgresServer::start()?;
    compare("PostgreSQL", &server.url(), Bare::postgres(&server).await?).await
}
