//! Edits made side by side come to the same as one after the other, in the order of their revisions: on either store.
//!
//! Agents make random edits of one document at once. Each is told at which revision its edits were made; in that order,
//! one upon the other, they must give every revision that the history has. An edit that was refused must not fit what
//! its agent was shown. The seed of every round is printed where it fails, and can be given in `MUTEXT_TEST_SEED`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;

use common::{Store, settings};
use mutext::{Address, Content, Context, Edit, Error, Mutext, Precondition, Revision, Strategy, Which};
use mutext_edit::apply_all;
use mutext_testbed::PostgresServer;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const AGENTS: usize = 6;
const EDITS: usize = 20;
const ROUNDS: u64 = 12;

/// What an agent was told of its edits.
enum Told {
    Made { edits: Vec<Edit>, revision: Revision, base: Option<Revision>, unchanged: bool },
    Refused { edits: Vec<Edit>, shown: Option<Content> },
}

fn edit(rng: &mut StdRng, is_json: bool) -> Edit {
    let letter = |rng: &mut StdRng| char::from(b'a' + rng.random_range(0..4)).to_string();
    let (one, other, place) = (letter(rng), letter(rng), rng.random_range(0..4_usize));
    if !is_json {
        return match rng.random_range(0..5) {
            0 => Edit::Append { text: one },
            1 => Edit::Prepend { text: one },
            2 => Edit::Insert { line: place + 1, text: one },
            3 => Edit::Replace { old: one, new: other, which: Which::Nth(place + 1) },
            _ => Edit::Replace { old: format!("{one}\n"), new: String::new(), which: Which::Only },
        };
    }
    let written = match rng.random_range(0..7) {
        0 => json!({"increment": {"pointer": format!("/{one}"), "by": place}}),
        1 => json!({"add": {"pointer": "/list", "item": one}}),
        2 => json!({"add_to_set": {"pointer": "/set", "item": one}}),
        3 => json!({"merge_patch": {one: place, other: null}}),
        4 => json!({"patch": [{"op": "test", "path": format!("/{one}"), "value": place},
                              {"op": "replace", "path": format!("/{one}"), "value": {"was": place}}]}),
        5 => json!({"patch": [{"op": "remove", "path": "/list/0"}]}),
        _ => json!({"replace": {"old": format!("\"{one}\""), "new": format!("\"{other}\"")}}),
    };
    serde_json::from_value(written).unwrap()
}

/// Makes its edits, one call after another, each of one or two.
async fn work(agent: Context, seed: u64, is_json: bool) -> Vec<Told> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut told = Vec::new();
    for _ in 0..EDITS {
        let edits: Vec<_> = (0..rng.random_range(1..3)).map(|_| edit(&mut rng, is_json)).collect();
        let mut editing = agent.edit("shared", edits.clone());
        if rng.random_bool(0.3) {
            editing = editing.strategy(Strategy::CompareAndSet);
        }
        told.push(match editing.await {
            Ok(edited) => {
                let (revision, base, unchanged) = (edited.revision, edited.base, edited.unchanged);
                Told::Made { edits, revision, base, unchanged }
            }
            Err(Error::EditFailed { current, .. }) => {
                Told::Refused { edits, shown: current.map(|document| document.content) }
            }
            Err(error) => panic!("{error}"),
        });
    }
    told
}

/// Every revision of the document, by its number.
async fn revisions(agent: &Context) -> BTreeMap<u64, Content> {
    let past = agent.history("shared", None, 1000).await.unwrap();
    past.into_iter().map(|past| (past.revision.0, past.content.unwrap())).collect()
}

async fn round(agents: Vec<Context>, seed: u64) {
    let is_json = seed.is_multiple_of(2);
    let first = if is_json { Content::json(&json!({"a": 0})).unwrap() } else { Content::text("a\nb\n") };
    let reader = agents[0].clone();
    reader.put("shared", first, Precondition::Absent).await.unwrap();
    let mut working = JoinSet::new();
    for (number, agent) in agents.into_iter().enumerate() {
        working.spawn(work(agent, seed * 1000 + number as u64, is_json));
    }
    let told: Vec<_> = working.join_all().await.into_iter().flatten().collect();
    let revisions = revisions(&reader).await;
    let mut made = 1;
    for told in told {
        match told {
            Told::Made { edits, revision, base, unchanged } => {
                let base = base.unwrap();
                assert_eq!(base.0 + u64::from(!unchanged), revision.0, "seed {seed}: it was made on what was there");
                let after = apply_all(&edits, Some(&revisions[&base.0])).unwrap();
                assert_eq!(after, revisions[&revision.0], "seed {seed}: {edits:?} at revision {revision}");
                made += u64::from(!unchanged);
            }
            Told::Refused { edits, shown } => {
                let shown = shown.unwrap();
                assert!(apply_all(&edits, Some(&shown)).is_err(), "seed {seed}: {edits:?} would fit {shown:?}");
                assert!(revisions.values().any(|content| *content == shown), "seed {seed}: {shown:?} was never there");
            }
        }
    }
    let newest = *revisions.last_key_value().unwrap().0;
    assert_eq!((made, revisions.len() as u64), (newest, newest), "seed {seed}: each revision is one agent's edits");
    if is_json {
        revisions.values().for_each(|content| drop(content.parse::<Value>().unwrap()));
    }
}

/// So many rounds, each in a context of its own, with agents whose openings are their own.
async fn rounds(store: &Address, locks: Option<&Address>) {
    let given = std::env::var("MUTEXT_TEST_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let begin: u64 = given.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let mut openings = Vec::new();
    for _ in 0..AGENTS {
        openings.push(Mutext::open(store, locks).await.unwrap());
    }
    for seed in (begin..).take(if given.is_some() { 1 } else { ROUNDS as usize }) {
        let context = |(number, mutext): (usize, &Mutext)| {
            mutext.context(format!("round-{seed}"), settings(&format!("a{number}"))).unwrap()
        };
        round(openings.iter().enumerate().map(context).collect(), seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_side_by_side_are_some_serial_order_on_the_embedded_store() {
    let store = Store::new();
    rounds(&store.address(), None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_side_by_side_are_some_serial_order_on_postgres() {
    let (server, locks) = (PostgresServer::start().unwrap(), Store::new());
    rounds(&server.url().parse().unwrap(), Some(&locks.address())).await;
}
