//! The race that the whole product is about: read, think, write.

use std::time::Duration;

use mutext_contract::{Document, Outcome, Precondition, Refusal};

use crate::StoreFixture;
use crate::support::{Scribe, same};

const WORKERS: usize = 5;
const ROUNDS: usize = 20;

fn number(document: Option<&Document>) -> usize {
    document.map_or(0, |document| document.content.as_str().parse().expect("the counter's number"))
}

/// Workers on two clients count one document up; how many times each was told that it had done so, and the count.
async fn race(fixture: &dyn StoreFixture, demand: fn(Option<&Document>) -> Precondition) -> (usize, usize) {
    let (anna, bert) = Scribe::two(fixture).await;
    let start = std::sync::Arc::new(tokio::sync::Barrier::new(WORKERS));
    let mut workers = Vec::new();
    for worker in 0..WORKERS {
        let scribe = if worker % 2 == 0 { anna.clone() } else { bert.clone() };
        let start = std::sync::Arc::clone(&start);
        workers.push(tokio::spawn(async move {
            start.wait().await;
            let mut acknowledged = 0;
            while acknowledged < ROUNDS {
                let read = scribe.read("counter").await;
                // What an agent does between reading and writing.
                tokio::time::sleep(Duration::from_millis(1)).await;
                let next = (number(read.as_ref()) + 1).to_string();
                match scribe.send(&scribe.put("counter", &next, demand(read.as_ref()))).await {
                    Outcome::Committed(_) => acknowledged += 1,
                    Outcome::Refused(Refusal::Conflict(_)) => {}
                    other @ Outcome::Refused(_) => panic!("expected a commit or a conflict; found {other:?}"),
                }
            }
            acknowledged
        }));
    }
    let mut acknowledged = 0;
    for worker in workers {
        acknowledged += worker.await.expect("the worker does not panic");
    }
    same("what both clients see", &anna.read("counter").await, &bert.read("counter").await);
    // A write of what is there already makes no revision, and each revision was acknowledged to somebody.
    let revisions = anna.history("counter").await.len();
    assert!(revisions <= acknowledged, "expected at most {acknowledged} revisions; found {revisions}");
    (acknowledged, number(bert.read("counter").await.as_ref()))
}

/// Read, think, write what was read plus one, and again where it has moved: every acknowledged update is there.
pub async fn no_update_is_lost(fixture: &dyn StoreFixture) {
    let (acknowledged, found) = race(fixture, Precondition::unchanged).await;
    same("acknowledged updates", &acknowledged, &(WORKERS * ROUNDS));
    same("updates that are there", &found, &acknowledged);
}

/// The same race without a demand loses updates: were it otherwise, the case above would show nothing.
pub async fn unprotected_updates_are_lost(fixture: &dyn StoreFixture) {
    let (acknowledged, found) = race(fixture, |_| Precondition::Any).await;
    same("acknowledged updates", &acknowledged, &(WORKERS * ROUNDS));
    assert!(found < acknowledged, "expected unprotected updates to be lost; found all {found} of {acknowledged}");
}
