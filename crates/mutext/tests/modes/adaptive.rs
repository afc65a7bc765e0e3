//! Updates that choose for themselves between compare-and-set and a lease.

use std::collections::BTreeSet;
use std::time::Duration;

use mutext::{Context, Error, Precondition, Strategy, UpdateOptions, Updated};

use crate::common::{assert_free, wait};
use crate::{Place, on_each_engine};

on_each_engine! {
    without_conflicts_no_lease_is_taken
    a_document_takes_leases_after_a_costly_conflict_and_goes_back_when_it_is_quiet
    eight_agents_on_one_document_lose_nothing_and_leave_nothing
}

fn adaptive(context: &Context) -> UpdateOptions {
    let settings = context.settings();
    let mut options = context.update_options();
    options.strategy = Strategy::Adaptive { ttl: settings.ttl, wait: wait(Duration::from_secs(30)) };
    options.patience = Duration::from_secs(30);
    options
}

/// Adds a line to the document at `path`, after `work`.
async fn add(context: &Context, path: &str, line: &str, work: Duration) -> Updated {
    let change = |document: Option<mutext::Document>| async move {
        tokio::time::sleep(work).await;
        let text = document.map(|document| document.content.as_str().to_owned()).unwrap_or_default();
        Ok::<_, Error>(format!("{text}{line}\n").into())
    };
    context.update_with(path, &adaptive(context), change).await.unwrap()
}

async fn without_conflicts_no_lease_is_taken(place: &Place) {
    let anna = place.agent("anna").await;
    for number in 0..50 {
        let updated = add(&anna, "plan", &number.to_string(), Duration::ZERO).await;
        assert_eq!((updated.token, updated.waited, updated.attempts), (None, None, 1));
    }
}

async fn a_document_takes_leases_after_a_costly_conflict_and_goes_back_when_it_is_quiet(place: &Place) {
    let (anna, bert) = (place.agent("anna").await, place.agent("bert").await);
    let work = Duration::from_millis(100);
    let disturbed = async {
        tokio::time::sleep(work / 2).await;
        bert.put("plan", "from bert\n", Precondition::Any).await.unwrap();
    };
    let (updated, ()) = tokio::join!(add(&anna, "plan", "from anna", work), disturbed);
    // It went on under a lease, and kept what the other wrote.
    assert!(updated.attempts == 2 && updated.token.is_some(), "{updated:?}");
    assert_eq!(anna.get("plan").await.unwrap().unwrap().content.as_str(), "from bert\nfrom anna\n");
    let next = add(&anna, "plan", "again", Duration::ZERO).await;
    assert!(next.token.is_some() && next.attempts == 1, "{next:?}");
    assert!(add(&anna, "other", "x", Duration::ZERO).await.token.is_none(), "each document for itself");

    let mut quiet = 0;
    while add(&anna, "plan", "quiet", Duration::ZERO).await.token.is_some() {
        quiet += 1;
        assert!(quiet < 500, "it never went back to compare-and-set");
    }
    assert_free(&bert, "plan", "nobody is left holding it").await;
}

async fn eight_agents_on_one_document_lose_nothing_and_leave_nothing(place: &Place) {
    const EACH: usize = 60;
    let mut working = Vec::new();
    for agent in 0..8 {
        let mutext = place.open().await;
        let context = mutext.context("shared", crate::common::settings(&format!("agent-{agent}"))).unwrap();
        working.push(tokio::spawn(async move {
            let mut leased = 0;
            for number in 0..EACH {
                let updated = add(&context, "board", &format!("{agent}.{number}"), Duration::ZERO).await;
                leased += usize::from(updated.token.is_some());
            }
            mutext.finish().await;
            leased
        }));
    }
    let mut leased = 0;
    for working in working {
        leased += working.await.unwrap();
    }
    let observer = place.agent("observer").await;
    assert_eq!(observer.locks().await.unwrap().holdings, [], "what was left to a next update is given back");
    let board = observer.get("board").await.unwrap().unwrap();
    let lines: Vec<&str> = board.content.as_str().lines().collect();
    let different: BTreeSet<&str> = lines.iter().copied().collect();
    assert_eq!((lines.len(), different.len(), board.revision.0), (8 * EACH, 8 * EACH, 8 * EACH as u64));
    assert!(leased > 0, "all of them on one document, and nobody took a lease");
}
