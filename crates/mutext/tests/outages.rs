//! Locks in Redis over documents on PostgreSQL while both go down: what was acknowledged stays, what was refused did not
//! happen, agents go on by themselves, and errors say which server and what to do.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mutext::{
    AgentName, Commit, Content, Context, Document, Effect, Error, Mutext, Precondition, Settings, Strategy, Ttl,
    UpdateOptions, Wait,
};
use mutext_testbed::{PostgresServer, RedisServer};

/// How an agent makes its updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// `update`: lease, fence and revision.
    Protected,
    /// The lease and its fence alone.
    Fenced,
    /// The revision alone.
    Optimistic,
}

/// Those with locks share documents; those without share one of their own.
const AGENTS: [Way; 6] =
    [Way::Protected, Way::Protected, Way::Protected, Way::Fenced, Way::Optimistic, Way::Optimistic];
const SHARED: usize = 3;

/// What an agent saw.
#[derive(Debug, Default)]
struct Seen {
    acknowledged: BTreeSet<String>,
    /// It may have happened or not.
    unknown: BTreeSet<String>,
    refused: BTreeSet<String>,
    errors: BTreeMap<String, usize>,
}

fn with(document: Option<&Document>, id: &str) -> Result<Content, Error> {
    let mut ids: Vec<String> = document.map_or(Ok(Vec::new()), |document| document.content.parse())?;
    ids.push(id.to_owned());
    Ok(Content::json(&ids)?)
}

async fn update(context: &Context, path: &str, way: Way, id: &str) -> Result<(), Error> {
    let patience = Duration::from_secs(3);
    let strategy = match way {
        Way::Fenced => {
            let guard = context.lock(path).await?;
            let document = guard.get(path).await?;
            let content = with(document.as_ref(), id)?;
            let commit = Commit::new(context.agent().clone()).put(path.parse()?, content, Precondition::Any);
            return guard.commit(commit).await.map(drop);
        }
        Way::Protected => {
            Strategy::Lease { ttl: context.settings().ttl, wait: Wait::new(Duration::from_secs(2)).unwrap() }
        }
        Way::Optimistic => Strategy::CompareAndSet,
    };
    let options = UpdateOptions { strategy, patience, message: None };
    context.update_with(path, &options, async |document| with(document.as_ref(), id)).await.map(drop)
}

async fn work(context: Context, agent: usize, done: Arc<AtomicUsize>, ended: Arc<AtomicBool>) -> Seen {
    let (way, mut seen) = (AGENTS[agent], Seen::default());
    for number in 0.. {
        if ended.load(Ordering::SeqCst) {
            break;
        }
        let id = format!("{agent}-{number}");
        let path = match way {
            Way::Optimistic => "alone".to_owned(),
            _ => format!("shared/{}", (agent + number) % SHARED),
        };
        let began = Instant::now();
        let outcome = update(&context, &path, way, &id).await;
        assert!(began.elapsed() < Duration::from_secs(12), "{id} took {:?}: {outcome:?}", began.elapsed());
        match outcome {
            Ok(()) => {
                assert!(seen.acknowledged.insert(id));
                done.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) => {
                if let Error::Engine(trouble) = &error {
                    let text = trouble.to_string();
                    assert!(text.contains("redis:") || text.contains("postgres:"), "which server? {text}");
                    assert!(!trouble.remedy.is_empty(), "no remedy: {text}");
                    let lock = text.contains("redis:");
                    assert!(!(lock && trouble.effect == Effect::Unknown), "a lock that fails changes nothing: {text}");
                }
                let unknown = matches!(&error, Error::Engine(trouble) if trouble.effect == Effect::Unknown);
                if unknown {
                    seen.unknown.insert(id)
                } else {
                    seen.refused.insert(id)
                };
                *seen.errors.entry(error.to_string()).or_default() += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    seen
}

async fn open(postgres: &PostgresServer, redis: &RedisServer, agent: usize) -> Context {
    let mutext = Mutext::open(&postgres.url().parse().unwrap(), Some(&redis.url().parse().unwrap())).await.unwrap();
    let mut settings = Settings::new(AgentName::new(format!("agent-{agent}")).unwrap());
    settings.ttl = Ttl::new(Duration::from_secs(2)).unwrap();
    settings.wait = Wait::new(Duration::from_secs(2)).unwrap();
    settings.patience = Duration::from_secs(3);
    mutext.context("outages", settings).unwrap()
}

/// Until every agent has made `more` updates more; how long that took.
async fn all_go_on(done: &[Arc<AtomicUsize>], more: usize, after: &str) -> Duration {
    let began = Instant::now();
    let wanted: Vec<usize> = done.iter().map(|done| done.load(Ordering::SeqCst) + more).collect();
    while done.iter().zip(&wanted).any(|(done, wanted)| done.load(Ordering::SeqCst) < *wanted) {
        let counts: Vec<_> = done.iter().map(|done| done.load(Ordering::SeqCst)).collect();
        assert!(began.elapsed() < Duration::from_secs(20), "after {after}: {counts:?}, and {wanted:?} were wanted");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_while_both_servers_go_down() {
    let (mut postgres, mut redis) = (PostgresServer::start().unwrap(), RedisServer::start().unwrap());
    let (done, ended) = (AGENTS.map(|_| Arc::new(AtomicUsize::new(0))), Arc::new(AtomicBool::new(false)));
    let mut agents = Vec::new();
    for (agent, done) in done.iter().enumerate() {
        let context = open(&postgres, &redis, agent).await;
        agents.push(tokio::spawn(work(context, agent, Arc::clone(done), Arc::clone(&ended))));
    }
    all_go_on(&done, 5, "the start").await;
    // At once, soon, and later than anybody's patience.
    for (round, away) in [0, 0, 0, 400, 400, 3_500].into_iter().map(Duration::from_millis).enumerate() {
        redis.kill().unwrap();
        tokio::time::sleep(away).await;
        redis.restart().unwrap();
        println!("{round}: Redis restarted without its data: on after {:?}", all_go_on(&done, 3, "a restart").await);
        redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]).unwrap();
        redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]).unwrap();
        println!("{round}: every connection killed: on after {:?}", all_go_on(&done, 3, "CLIENT KILL").await);
        redis.cli(&["FLUSHALL"]).unwrap();
        println!("{round}: FLUSHALL: on after {:?}", all_go_on(&done, 3, "FLUSHALL").await);
        postgres.kill().unwrap();
        tokio::time::sleep(away).await;
        postgres.restart().unwrap();
        println!("{round}: PostgreSQL killed and restarted: on after {:?}", all_go_on(&done, 3, "a kill").await);
    }
    // Without any lock service, compare-and-set goes on.
    redis.kill().unwrap();
    all_go_on(&done[4..], 20, "the end of Redis").await;
    redis.restart().unwrap();
    all_go_on(&done, 5, "the return of Redis").await;
    ended.store(true, Ordering::SeqCst);
    let mut all = Seen::default();
    for agent in agents {
        let seen = agent.await.unwrap();
        all.acknowledged.extend(seen.acknowledged);
        all.unknown.extend(seen.unknown);
        all.refused.extend(seen.refused);
        seen.errors.into_iter().for_each(|(error, count)| *all.errors.entry(error).or_default() += count);
    }
    for server in ["redis:", "postgres:"] {
        assert!(
            all.errors.keys().any(|error| error.contains(server)),
            "nobody met the end of {server} {:?}",
            all.errors
        );
    }
    println!("{} acknowledged, {} unknown, {} refused", all.acknowledged.len(), all.unknown.len(), all.refused.len());
    all.errors.iter().for_each(|(error, count)| println!("{count:>4} x {error}"));

    let reader = open(&postgres, &redis, 9).await;
    let mut there = Vec::new();
    for path in ["alone", "shared/0", "shared/1", "shared/2"] {
        let document = reader.get(path).await.unwrap().unwrap();
        there.extend(document.content.parse::<Vec<String>>().unwrap());
    }
    let found: BTreeSet<String> = there.iter().cloned().collect();
    assert_eq!(found.len(), there.len(), "an update happened twice");
    let lost: Vec<_> = all.acknowledged.difference(&found).collect();
    assert!(lost.is_empty(), "acknowledged, and lost: {lost:?}");
    let undead: Vec<_> = all.refused.intersection(&found).collect();
    assert!(undead.is_empty(), "refused, and there: {undead:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_outlives_an_outage_of_the_documents_and_misses_nothing() {
    let mut postgres = PostgresServer::start().unwrap();
    let locks = tempfile::tempdir().unwrap();
    let mutext =
        Mutext::open(&postgres.url().parse().unwrap(), Some(&mutext::Address::embedded(locks.path()))).await.unwrap();
    let context = mutext.context("watched", Settings::new(AgentName::new("anna").unwrap())).unwrap();
    let append = |text: &str| mutext::Edit::Append { text: text.to_owned() };
    let write = async |text: &str| context.edit("log", [append(text)]).message(text).await.unwrap();
    let mut watcher = context.watch("").await.unwrap();
    write("before").await;
    assert_eq!(watcher.next().await.unwrap().message.as_deref(), Some("before"));
    let watching = tokio::spawn(async move {
        let commit = watcher.next().await.unwrap();
        (watcher, commit)
    });
    postgres.kill().unwrap();
    // Long enough for it to have asked in vain.
    tokio::time::sleep(Duration::from_millis(500)).await;
    postgres.restart().unwrap();
    write("after").await;
    let (mut watcher, commit) = tokio::time::timeout(Duration::from_secs(30), watching).await.unwrap().unwrap();
    assert_eq!(commit.message.as_deref(), Some("after"));

    // For longer than its patience: it says so, and goes on when it is asked again.
    let mut hasty = context.watch("").after(watcher.cursor()).patience(Duration::from_millis(300)).await.unwrap();
    postgres.kill().unwrap();
    let error = tokio::time::timeout(Duration::from_secs(30), hasty.next()).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Engine(_)), "{error}");
    postgres.restart().unwrap();
    write("at last").await;
    assert_eq!(watcher.next().await.unwrap().message.as_deref(), Some("at last"));
    assert_eq!(hasty.next().await.unwrap().message.as_deref(), Some("at last"));
}

/// How often Redis was asked for something by script.
fn asked(redis: &RedisServer) -> usize {
    let stats = redis.cli(&["INFO", "commandstats"]).unwrap();
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    calls.and_then(|calls| calls.split(',').next()).map_or(0, |calls| calls.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_of_a_document_in_demand_go_on_without_any_lock_service() {
    const AGENTS: usize = 3;
    let (postgres, mut redis) = (PostgresServer::start().unwrap(), RedisServer::start().unwrap());
    let (done, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut agents = Vec::new();
    for agent in 0..AGENTS {
        let (context, done, ended) = (open(&postgres, &redis, agent).await, Arc::clone(&done), Arc::clone(&ended));
        let (ttl, wait) = (context.settings().ttl, Wait::new(Duration::from_secs(1)).unwrap());
        let strategy = Strategy::Adaptive { ttl, wait };
        let options = UpdateOptions { strategy, patience: Duration::from_secs(30), message: None };
        agents.push(tokio::spawn(async move {
            let mut made = 0;
            while !ended.load(Ordering::SeqCst) {
                // Thinking makes an attempt in vain dear, and a lease worth its price.
                let change = async |document: Option<Document>| {
                    tokio::time::sleep(Duration::from_millis(3)).await;
                    let edit = mutext::Edit::Append { text: format!("{agent} {made}") };
                    edit.apply(document.as_ref().map(|document| &document.content))
                };
                context.update_with("log", &options, change).await.unwrap();
                made += 1;
                done.fetch_add(1, Ordering::SeqCst);
            }
            made
        }));
    }
    let until = async |count: usize| {
        let wanted = done.load(Ordering::SeqCst) + count;
        let began = Instant::now();
        while done.load(Ordering::SeqCst) < wanted {
            assert!(began.elapsed() < Duration::from_secs(40), "the updates do not go on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        began.elapsed()
    };
    println!("200 updates in {:?}", until(200).await);
    let leases = asked(&redis);
    until(50).await;
    assert!(asked(&redis) > leases + 10, "they meet so often that they take leases");
    redis.kill().unwrap();
    println!("without locks: on after {:?}", until(30).await);
    redis.restart().unwrap();
    println!("with locks again: on after {:?}", until(50).await);
    ended.store(true, Ordering::SeqCst);
    let mut expected = BTreeMap::new();
    for (agent, made) in agents.into_iter().enumerate() {
        expected.insert(agent.to_string(), (0..made.await.unwrap()).map(|number| number.to_string()).collect());
    }
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let log = open(&postgres, &redis, 9).await.get("log").await.unwrap().unwrap();
    for (agent, number) in log.content.as_str().lines().map(|line| line.split_once(' ').unwrap()) {
        found.entry(agent.to_owned()).or_default().push(number.to_owned());
    }
    assert_eq!(found, expected, "each entry once, and in its agent's order");
}
