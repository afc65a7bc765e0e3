//! What an edit of a large document costs beside reading and writing it bare, and what listing very many costs: on both
//! stores, every commit on the disk before it is acknowledged.
//!
//! `cargo bench -p mutext --bench edit` fails where an edit costs more than three times the bare way, or where
//! listing takes memory that grows with the number of documents.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use mutext::{
    Address, AgentName, Commit, Content, Context, Edit, Mutext, PathPrefix, Precondition, Settings, Strategy, Which,
};
use mutext_testbed::PostgresServer;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const MIB: usize = 1024 * 1024;
const ROUNDS: usize = 60;
const DOCUMENTS: usize = 100_000;
const PAGE: usize = 1000;
/// More than an allocator keeps to itself, and far less than a listing of all documents takes.
const GROWTH_MAX: usize = 8 * MIB;

/// A text of 1 MiB in which each line can be told from the others, with a mark in its middle.
fn large(mark: &str) -> String {
    let mut text = String::with_capacity(MIB);
    let mut number = 0;
    while text.len() + 64 < MIB {
        if number == 8000 {
            text.push_str(mark);
            text.push('\n');
        }
        // A String takes all that is written to it.
        let _ = writeln!(text, "line {number:06}: something that an agent noted down");
        number += 1;
    }
    text
}

/// Twenty bytes, another mark in each round.
fn mark(round: usize) -> String {
    format!("the mark of {round:08}")
}

fn replace(round: usize) -> [Edit; 1] {
    [Edit::Replace { old: mark(round), new: mark(round + 1), which: Which::Only }]
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

#[expect(clippy::print_stdout, reason = "a benchmark's figures are its output")]
async fn edits(context: &Context, store: &str) -> Result<(), Failure> {
    let lease = Strategy::Lease { ttl: context.settings().ttl, wait: context.settings().wait };
    let ways = [("edit", None), ("edit, compare-and-set", Some(Strategy::CompareAndSet)), ("edit, lease", Some(lease))];
    context.put("bare", large(&mark(0)), Precondition::Any).await?;
    for (path, _) in ways {
        context.put(path, large(&mark(0)), Precondition::Any).await?;
    }
    let mut times = vec![Vec::new(); ways.len() + 1];
    for round in 0..ROUNDS {
        let next = large(&mark(round + 1));
        let began = Instant::now();
        let document = context.get("bare").await?.ok_or("it is there")?;
        context.put("bare", next, Precondition::Exact(document.revision)).await?;
        times[0].push(began.elapsed());
        for (way, (path, strategy)) in ways.into_iter().enumerate() {
            let began = Instant::now();
            let edit = context.edit(path, replace(round));
            let edited = match strategy {
                Some(strategy) => edit.strategy(strategy).await?,
                None => edit.await?,
            };
            times[way + 1].push(began.elapsed());
            assert!(!edited.unchanged, "each round changes the document");
        }
    }
    let bare = median(&mut times[0]);
    println!("\n{store}: a document of 1 MiB, {ROUNDS} rounds, medians\n  {:<24} {bare:>8.2} ms", "read and write");
    for (way, (name, _)) in ways.into_iter().enumerate() {
        let edit = median(&mut times[way + 1]);
        println!("  {name:<24} {edit:>8.2} ms  {:>5.2} times", edit / bare);
        assert!(edit <= 3.0 * bare, "{name} costs more than three times the bare way");
    }
    Ok(())
}

/// What this process has in memory, in bytes.
fn resident() -> Result<usize, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("the kernel tells it")?;
    Ok(line.trim_end_matches("kB").trim().parse::<usize>()? * 1024)
}

#[expect(clippy::print_stdout, reason = "a benchmark's figures are its output")]
async fn listing(context: &Context) -> Result<(), Failure> {
    for first in (0..DOCUMENTS).step_by(PAGE) {
        let mut commit = Commit::new(context.agent().clone());
        for number in first..first + PAGE {
            let (path, content) = (format!("tasks/{number:06}").parse()?, Content::text("open"));
            commit = commit.put(path, content, Precondition::Absent);
        }
        context.commit(commit).await?;
    }
    let (prefix, mut after, mut listed) = (PathPrefix::new("tasks/")?, None, 0);
    let (began, mut at_first, mut most) = (Instant::now(), None, 0);
    loop {
        let page = context.list_page(&prefix, after.as_ref(), PAGE).await?;
        listed += page.entries.len();
        if listed >= 5 * PAGE {
            let now = resident()?;
            most = most.max(now);
            at_first.get_or_insert(now);
        }
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let growth = most - at_first.unwrap_or(most);
    println!(
        "  {listed} documents listed in pages of {PAGE}: {:.2?}, {} KiB more memory than after five pages",
        began.elapsed(),
        growth / 1024
    );
    assert_eq!(listed, DOCUMENTS);
    assert!(growth <= GROWTH_MAX, "listing takes {growth} bytes more at its end than at its beginning");
    Ok(())
}

async fn run(mutext: &Mutext, store: &str) -> Result<(), Failure> {
    let context = mutext.context("bench", Settings::new(AgentName::new("bench")?))?;
    edits(&context, store).await?;
    listing(&context).await?;
    mutext.finish().await;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let locks = Address::embedded(dir.path());
    run(&Mutext::open(&locks, None).await?, "embedded").await?;
    let postgres = PostgresServer::start_with(&[("fsync", "on"), ("synchronous_commit", "on")])?;
    run(&Mutext::open(&postgres.url().parse()?, Some(&locks)).await?, "PostgreSQL").await
}
