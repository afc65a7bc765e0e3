//! Processes that claim elements of one board: one winner a round, and what becomes of a dead or stopped holder's.

use std::time::{Duration, Instant};

use mutext::{Address, ClaimAnswer, Claimed, Content, Context, Error, Mutext, Precondition, Ttl};
use mutext_testbed::{PostgresServer, RedisServer};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::child::Child;
use crate::roles::{agent_of, hear_from_the_parent, say};

const PROCESSES: usize = 8;
const ROUNDS: u32 = 1000;

/// An agent whose documents are at `store`, its locks at `locks` or in the same place.
async fn agent(store: &str, locks: &str, name: &str) -> Context {
    let locks: Option<Address> = (locks != "-").then(|| locks.parse().unwrap());
    agent_of(&Mutext::open(&store.parse().unwrap(), locks.as_ref()).await.unwrap(), name)
}

/// Claims once a round, when the parent says so, and hands back what it won when the parent says so.
pub(crate) async fn claim_in_rounds(store: &str, locks: &str, name: &str, rounds: u32) {
    let agent = agent(store, locks, name).await;
    say("ready");
    for _ in 0..rounds {
        hear_from_the_parent();
        match agent.claim("board.json", "/tasks").await.unwrap() {
            ClaimAnswer::Claimed(mut task) => {
                say(&format!("won {}", task.attempt()));
                hear_from_the_parent();
                task.hand_back(&[]).await.unwrap();
            }
            ClaimAnswer::NoneFree(none) => {
                say(&format!("none {}", none.held.len()));
                hear_from_the_parent();
            }
            other @ ClaimAnswer::Settled(_) => panic!("{other:?}"),
        }
        say("back");
    }
}

/// Claims, and keeps what it has until it is killed, or told to complete it.
pub(crate) async fn claim_and_keep(store: &str, locks: &str, ttl: Duration) {
    let agent = agent(store, locks, "holder").await;
    let claim = agent.claim("board.json", "/tasks").ttl(Ttl::new(ttl).unwrap());
    let mut task = claim.await.unwrap().claimed().unwrap();
    say("won");
    // On a thread of its own, so that the lease is renewed as by a busy agent.
    tokio::task::spawn_blocking(hear_from_the_parent).await.unwrap();
    match task.complete(&[]).await {
        Err(Error::LeaseLost { loss, .. }) => say(&format!("lost {loss}")),
        other => say(&format!("completed {other:?}")),
    }
}

/// Where a test keeps its board.
struct Board {
    store: String,
    locks: String,
    runtime: Runtime,
    agent: Context,
}

impl Board {
    fn at(store: String, locks: String) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let agent = runtime.block_on(agent(&store, &locks, "parent"));
        let board = Content::json(&json!({"tasks": [{"id": 1}]})).unwrap();
        runtime.block_on(agent.put("board.json", board, Precondition::Absent)).unwrap();
        Self { store, locks, runtime, agent }
    }

    fn mark(&self) -> Value {
        let board = self.runtime.block_on(self.agent.get("board.json")).unwrap().unwrap();
        board.content.parse::<Value>().unwrap()["tasks"][0]["claim"].clone()
    }

    /// Asks until it is had, and says how long that took.
    fn claim(&self, since: Instant) -> (Claimed, Duration) {
        loop {
            let answer = self.runtime.block_on(async { self.agent.claim("board.json", "/tasks").await.unwrap() });
            if let Some(task) = answer.claimed() {
                return (task, since.elapsed());
            }
            assert!(since.elapsed() < Duration::from_secs(30), "the element never came free");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn holder(&self, ttl_ms: &str) -> Child {
        let child = Child::start("claim-and-keep", &[&self.store, &self.locks, ttl_ms]);
        child.until("won");
        child
    }
}

/// Every round one of eight wins, and the attempts are counted without a gap: no claim was made twice, or lost.
fn rounds(board: &Board) {
    let names: Vec<_> = (0..PROCESSES).map(|number| format!("c{number}")).collect();
    let start = |name: &String| {
        let arguments: [&str; 4] = [&board.store, &board.locks, name, &ROUNDS.to_string()];
        Child::start("claim-in-rounds", &arguments)
    };
    let mut children: Vec<_> = names.iter().map(start).collect();
    for child in &children {
        child.until("ready");
    }
    let (began, mut wins) = (Instant::now(), [0; PROCESSES]);
    for round in 1..=ROUNDS {
        for child in &mut children {
            child.say("go");
        }
        let answers: Vec<_> = children.iter().map(|child| child.line().unwrap()).collect();
        let winners: Vec<_> = answers.iter().enumerate().filter(|(_, answer)| answer.starts_with("won")).collect();
        let [(winner, answer)] = winners[..] else { panic!("round {round}: {answers:?}") };
        assert_eq!(*answer, format!("won {round}"), "each round is one attempt");
        wins[winner] += 1;
        assert_eq!(board.mark()["by"], names[winner].as_str());
        for child in &mut children {
            child.say("end");
        }
        for child in &children {
            child.until("back");
        }
    }
    let took = began.elapsed();
    for child in children {
        child.finish();
    }
    eprintln!("\n  {ROUNDS} rounds of {PROCESSES} in {took:.1?}; wins {wins:?}");
    assert!(wins.iter().all(|wins| *wins > 0), "everybody has a chance");
}

/// Killed while it holds an element, it loses it: somebody else has it soon, as a second attempt.
fn killed(board: &Board) {
    let holder = board.holder("1500");
    let (_, killed) = holder.kill();
    let (mut task, took) = board.claim(killed);
    eprintln!("\n  free {took:.1?} after the death of its holder, with a TTL of 1.5 s");
    assert_eq!(task.attempt(), 2);
    assert!(took < Duration::from_secs(10), "after {took:?}");
    board.runtime.block_on(task.complete(&[])).unwrap();
    assert_eq!((board.mark()["state"].clone(), board.mark()["by"].clone()), (json!("done"), json!("parent")));
}

/// Stopped past its lease, it wakes to find its element taken, and changes nothing.
fn stopped(board: &Board) {
    let mut holder = board.holder("500");
    let stopped = holder.signal(Signal::STOP);
    let (mut task, _) = board.claim(stopped);
    assert_eq!(task.attempt(), 2);
    let before = board.mark();
    holder.signal(Signal::CONT);
    holder.say("complete it");
    assert!(holder.line().unwrap().starts_with("lost"));
    holder.finish();
    assert_eq!(board.mark(), before);
    board.runtime.block_on(task.complete(&[])).unwrap();
}

/// One test on either pair of engines.
fn on_embedded(test: fn(&Board)) {
    let dir = tempfile::tempdir().unwrap();
    test(&Board::at(format!("embedded:{}?sync=normal", dir.path().display()), "-".to_owned()));
}

fn on_servers(test: fn(&Board)) {
    let (postgres, redis) = (PostgresServer::start().unwrap(), RedisServer::start().unwrap());
    test(&Board::at(postgres.url(), redis.url()));
}

pub(crate) fn of_eight_processes_one_wins_each_of_a_thousand_rounds() {
    on_embedded(rounds);
}

pub(crate) fn of_eight_processes_on_servers_one_wins_each_of_a_thousand_rounds() {
    on_servers(rounds);
}

pub(crate) fn the_element_of_a_killed_holder_is_claimed_by_another() {
    on_embedded(killed);
    on_servers(killed);
}

pub(crate) fn a_holder_stopped_past_its_lease_completes_nothing() {
    on_embedded(stopped);
    on_servers(stopped);
}
