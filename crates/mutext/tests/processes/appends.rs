//! Eight processes append to one document, and a watcher of it is killed and resumed a hundred times meanwhile.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mutext::{Address, Context, Cursor, Edit, Mutext, Settings};
use mutext_testbed::PostgresServer;

use crate::child::Child;
use crate::roles::{agent_of, say};

const PROCESSES: usize = 8;
const EACH: usize = 1000;
const KILLS: usize = 100;
/// How long one append may take on a machine that is slow: eight want the same document all the time.
const PATIENCE: Duration = Duration::from_secs(120);

/// Documents at `store`, locks at `locks` or in the same place.
async fn opened(store: &str, locks: &str) -> Mutext {
    let locks: Option<Address> = (locks != "-").then(|| locks.parse().unwrap());
    Mutext::open(&store.parse().unwrap(), locks.as_ref()).await.unwrap()
}

/// Appends its entries, one by one.
pub(crate) async fn append(store: &str, locks: &str, name: &str) {
    let mutext = opened(store, locks).await;
    let mut settings = Settings::new(name.try_into().unwrap());
    settings.patience = PATIENCE;
    let agent = mutext.context("shared", settings).unwrap();
    let mut attempts = 0;
    for number in 0..EACH {
        let entry = Edit::Append { text: format!("{name} {number}") };
        attempts += agent.edit("log.md", [entry]).await.unwrap().attempts;
    }
    mutext.finish().await;
    say(&format!("done {attempts}"));
}

/// Says of every commit after `after` where it is and which revision it made, until it is killed.
pub(crate) async fn watch(store: &str, locks: &str, after: u64) {
    let agent = agent_of(&opened(store, locks).await, "watcher");
    let mut watcher = agent.watch("log.md").after(Cursor(after)).await.unwrap();
    loop {
        let commit = watcher.next().await.unwrap();
        say(&format!("saw {} {}", commit.cursor.0, commit.changes[0].1));
    }
}

/// Kills a watcher again and again, resumes it from the last place that it told, and returns the revisions it saw.
fn watched(store: &str, locks: &str, is_over: &AtomicBool, last: usize) -> (Vec<u64>, usize) {
    let (mut seen, mut after, mut kills) = (Vec::new(), 0, 0);
    let take = |line: &str, seen: &mut Vec<u64>, after: &mut u64| {
        let [_, cursor, revision] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line:?}") };
        *after = cursor.parse().unwrap();
        seen.push(revision.parse().unwrap());
    };
    while seen.len() < last {
        let watcher = Child::start("watch", &[store, locks, &after.to_string()]);
        if kills >= KILLS {
            while seen.len() < last {
                take(&watcher.line().unwrap(), &mut seen, &mut after);
            }
            break;
        }
        take(&watcher.line().unwrap(), &mut seen, &mut after);
        // At any moment of its work; the more often, the less is left to watch.
        let pause = if is_over.load(Ordering::Relaxed) { 0 } else { rand::random_range(0..60) };
        std::thread::sleep(Duration::from_millis(pause));
        for line in watcher.kill().0 {
            if seen.len() < last {
                take(&line, &mut seen, &mut after);
            }
        }
        kills += 1;
    }
    (seen, kills)
}

fn run(store: &str, locks: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let agent: Context = runtime.block_on(async { agent_of(&opened(store, locks).await, "parent") });
    let (start, is_over) = (Instant::now(), AtomicBool::new(false));
    let (attempts, (seen, kills), took) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watched(store, locks, &is_over, PROCESSES * EACH));
        let names: Vec<_> = (0..PROCESSES).map(|number| format!("p{number}")).collect();
        let children: Vec<_> = names.iter().map(|name| Child::start("append", &[store, locks, name])).collect();
        let mut attempts = 0;
        for child in children {
            let said = child.finish().pop().unwrap();
            attempts += said.strip_prefix("done ").unwrap().parse::<usize>().unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
        let took = start.elapsed();
        (attempts, watching.join().unwrap(), took)
    });
    let text = runtime.block_on(agent.get("log.md")).unwrap().unwrap().content;
    let mut entries: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for line in text.as_str().lines() {
        let (name, number) = line.split_once(' ').unwrap();
        entries.entry(name).or_default().push(number.parse().unwrap());
    }
    let whole = (0..EACH).collect::<Vec<_>>();
    assert_eq!(entries.len(), PROCESSES);
    for (name, numbers) in entries {
        assert!(numbers == whole, "{name}: not each of its entries once and in its order");
    }
    assert!(seen.iter().copied().eq(1..=(PROCESSES * EACH) as u64), "commits are missing, twice or out of order");
    assert!(kills >= KILLS.min(PROCESSES * EACH), "only {kills} kills");
    eprintln!(
        "\n  {} appends in {took:.1?}: {:.0} a second, {attempts} attempts; watched through {kills} kills by {:.1?}",
        PROCESSES * EACH,
        (PROCESSES * EACH) as f64 / took.as_secs_f64(),
        start.elapsed(),
    );
}

pub(crate) fn eight_processes_append_and_a_killed_watcher_sees_all_on_the_embedded_store() {
    let dir = tempfile::tempdir().unwrap();
    run(&format!("embedded:{}", dir.path().display()), "-");
}

pub(crate) fn eight_processes_append_and_a_killed_watcher_sees_all_on_postgres() {
    let dir = tempfile::tempdir().unwrap();
    let server = PostgresServer::start().unwrap();
    run(&server.url(), &format!("embedded:{}", dir.path().display()));
}
