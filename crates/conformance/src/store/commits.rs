//! Commits: preconditions, all or nothing, once.

use std::sync::Arc;
use std::time::Duration;

use mutext_contract::{Content, DocumentStore, IdempotencyKey, Outcome, Precondition, Refusal, Revision};

use super::{done, outcome, path, put, read, refusal, revision, text};
use crate::{StoreFixture, context, pause, soon};

/// And shows what is there now, so that the caller can rebase in one step.
pub async fn a_moved_revision_is_refused_with_the_current_document<F: StoreFixture>() {
    let fixture = F::open().await;
    let store = fixture.store();
    done(&*store, &put("a", "one", Precondition::Absent)).await;
    done(&*store, &put("a", "two", Precondition::Exact(Revision(1)))).await;
    for stale in [Revision(1), Revision(3), Revision(0)] {
        let refused = refusal(&*store, &put("a", "mine", Precondition::Exact(stale))).await;
        let Refusal::Conflict(conflict) = refused else { panic!("{refused:?}") };
        assert_eq!((conflict.path.clone(), conflict.precondition), (path("a"), Precondition::Exact(stale)));
        let current = conflict.current.unwrap_or_else(|| panic!("there is a document"));
        assert_eq!((current.revision, current.content.as_str()), (Revision(2), "two"));
    }
    let refused = refusal(&*store, &put("b", "mine", Precondition::Exact(Revision(1)))).await;
    assert!(matches!(refused, Refusal::Conflict(conflict) if conflict.current.is_none()));
}

/// Exactly one of those that create wins.
pub async fn create_is_refused_where_one_exists<F: StoreFixture>() {
    let fixture = F::open().await;
    let clients = [fixture.store(), fixture.second().await];
    let mut tasks = Vec::new();
    for number in 0..8_usize {
        let store = Arc::clone(&clients[number % 2]);
        tasks.push(tokio::spawn(async move {
            matches!(
                outcome(&*store, &put("a", &number.to_string(), Precondition::Absent)).await,
                Outcome::Committed(_)
            )
        }));
    }
    let mut winners = 0;
    for task in tasks {
        winners += usize::from(task.await.unwrap_or_else(|error| panic!("{error}")));
    }
    assert_eq!(winners, 1);
}

/// An explicit overwrite asks nothing.
pub async fn any_overwrites<F: StoreFixture>() {
    let fixture = F::open().await;
    done(&*fixture.store(), &put("a", "one", Precondition::Any)).await;
    done(&*fixture.store(), &put("a", "two", Precondition::Any)).await;
    assert_eq!(text(&*fixture.store(), "a").await.as_deref(), Some("two"));
}

/// One precondition that fails, and nothing of the commit happens.
pub async fn several_documents_change_together_or_not_at_all<F: StoreFixture>() {
    let fixture = F::open().await;
    let store = fixture.store();
    let both = put("a", "1", Precondition::Absent).put(path("b"), Content::text("1"), Precondition::Absent);
    let committed = done(&*store, &both).await;
    assert_eq!(committed.revisions, [(path("a"), Revision(1)), (path("b"), Revision(1))]);
    let torn = put("a", "2", Precondition::Exact(Revision(1))).delete(path("c"), Precondition::Any).put(
        path("b"),
        Content::text("2"),
        Precondition::Exact(Revision(7)),
    );
    assert!(matches!(refusal(&*store, &torn).await, Refusal::Conflict(conflict) if conflict.path == path("b")));
    assert_eq!(read(&*store, "a").await.map(|document| document.revision), Some(Revision(1)));
    assert!(
        store
            .changes(&context(), committed.cursor, 10, mutext_contract::Deadline::now())
            .await
            .is_ok_and(|page| page.is_empty())
    );
}

fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::new(text).unwrap_or_else(|error| panic!("{error}"))
}

/// A retry gets the first answer and changes nothing, also where its precondition would fail by now.
pub async fn the_same_key_happens_once<F: StoreFixture>() {
    let fixture = F::open().await;
    let intended = put("a", "x", Precondition::Absent).key(key("k"));
    let first = done(&*fixture.store(), &intended).await;
    let second = done(&*fixture.second().await, &intended).await;
    assert!(!first.replayed && second.replayed);
    assert_eq!((first.cursor, &first.revisions), (second.cursor, &second.revisions));
    done(&*fixture.store(), &put("a", "y", Precondition::Any)).await;
    assert_eq!(revision(&done(&*fixture.store(), &intended).await), Revision(1));
    assert_eq!(text(&*fixture.store(), "a").await.as_deref(), Some("y"));
}

/// A key names one intention.
pub async fn the_same_key_for_another_commit_is_refused<F: StoreFixture>() {
    let fixture = F::open().await;
    done(&*fixture.store(), &put("a", "x", Precondition::Any).key(key("k"))).await;
    for other in
        [put("a", "y", Precondition::Any), put("b", "x", Precondition::Any), put("a", "x", Precondition::Absent)]
    {
        let refused = refusal(&*fixture.store(), &other.key(key("k"))).await;
        assert_eq!(refused, Refusal::KeyReused { key: key("k") });
    }
    assert_eq!(read(&*fixture.store(), "a").await.map(|document| document.revision), Some(Revision(1)));
}

/// Whenever the first future is dropped: the retry learns what became of it, and it happened once.
pub async fn a_dropped_commit_and_its_retry_happen_once<F: StoreFixture>() {
    let fixture = F::open().await;
    let store = fixture.store();
    for round in 0..60_u64 {
        let at = format!("d{round}");
        let intended = put(&at, "x", Precondition::Any).key(key(&at));
        let here = context();
        let dropped = store.commit(&here, &intended, soon());
        let _ = tokio::time::timeout(Duration::from_micros(round * 20), dropped).await;
        assert_eq!(revision(&done(&*store, &intended).await), Revision(1));
        let past =
            store.history(&context(), &path(&at), None, 10, soon()).await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(past.len(), 1, "round {round}");
    }
}

const WORKERS: usize = 5;
const ROUNDS: usize = 20;

/// Each worker adds one to a number so many times: by compare-and-set with retry, or blindly.
async fn count<F: StoreFixture>(checked: bool) -> usize {
    let fixture = F::open().await;
    let clients = [fixture.store(), fixture.second().await];
    done(&*clients[0], &put("n", "0", Precondition::Absent)).await;
    let mut tasks = Vec::new();
    for worker in 0..WORKERS {
        let store = Arc::clone(&clients[worker % 2]);
        tasks.push(tokio::spawn(async move {
            for _ in 0..ROUNDS {
                while !add_one(&*store, checked).await {}
            }
        }));
    }
    for task in tasks {
        task.await.unwrap_or_else(|error| panic!("{error}"));
    }
    text(&*clients[0], "n").await.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("there is a number"))
}

async fn add_one(store: &dyn DocumentStore, checked: bool) -> bool {
    let document = read(store, "n").await.unwrap_or_else(|| panic!("there is a number"));
    let number: usize = document.content.as_str().parse().unwrap_or_else(|error| panic!("{error}"));
    pause(1).await;
    let precondition = if checked { Precondition::Exact(document.revision) } else { Precondition::Any };
    matches!(outcome(store, &put("n", &(number + 1).to_string(), precondition)).await, Outcome::Committed(_))
}

/// The product's promise, at its smallest.
pub async fn no_update_is_lost<F: StoreFixture>() {
    assert_eq!(count::<F>(true).await, WORKERS * ROUNDS);
}

/// The same without the check: a suite that cannot fail proves nothing.
pub async fn unprotected_updates_are_lost<F: StoreFixture>() {
    let kept = count::<F>(false).await;
    assert!(kept < WORKERS * ROUNDS, "no update was lost without any check: the race is not run");
}
