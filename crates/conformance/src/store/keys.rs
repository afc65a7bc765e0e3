//! Idempotency keys: one intention happens once, however often it is sent.

use std::time::Duration;

use mutext_contract::{Committed, Content, Cursor, Kind, Precondition, Refusal, Revision};

use crate::StoreFixture;
use crate::support::{LONG, Scribe, fence, key, only_revision, path, same};

/// A commit sent again under its key changes nothing, and gets the first one's answer; although its precondition
/// does not hold any more, its lease has passed on, and others have written since.
pub async fn the_same_key_happens_once(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    let mut commit = anna.put("plan.md", "mine", Precondition::Absent).key(key("once")).message("why");
    if anna.store.capabilities().several_documents {
        commit = commit.put(path("notes.md"), Content::text("mine too"), Precondition::Absent);
    }
    let commit = commit.fenced_by(fence(1, 4));
    let first = anna.committed(&commit).await;
    assert!(!first.replayed, "expected the first to be no replay; found {first:?}");
    let replay = Committed { replayed: true, ..first.clone() };
    same("the replay", &anna.committed(&commit).await, &replay);
    same("the replay from another client", &bert.committed(&commit).await, &replay);

    bert.committed(&bert.put("plan.md", "bert's", Precondition::Any).fenced_by(fence(1, 5))).await;
    same("the replay after others wrote", &anna.committed(&commit).await, &replay);
    same("the text", &anna.text("plan.md").await.as_str(), &"bert's");
    same("the number of revisions", &anna.history("plan.md").await.len(), &2);
    same("the number of commits", &anna.feed(Cursor::START).await.len(), &2);
}

/// A key that has named one commit cannot name another: not one of other content, document, precondition or kind.
pub async fn the_same_key_for_another_commit_is_refused(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    anna.committed(&anna.put("plan.md", "1", Precondition::Any).key(key("taken"))).await;
    let others = [
        bert.put("plan.md", "2", Precondition::Any),
        bert.put("notes.md", "1", Precondition::Any),
        bert.put("plan.md", "1", Precondition::Exact(Revision(1))),
        bert.commit().put(path("plan.md"), Content::parse_json("1").expect("JSON"), Precondition::Any),
        bert.commit().delete(path("plan.md"), Precondition::Any),
        bert.put("plan.md", "1", Precondition::Any).message("another reason"),
        bert.put("plan.md", "1", Precondition::Any).put(path("b"), Content::text("b"), Precondition::Any),
    ];
    let at_once = if anna.store.capabilities().several_documents { others.len() } else { others.len() - 1 };
    for other in others.into_iter().take(at_once) {
        let refusal = bert.refused(&other.clone().key(key("taken"))).await;
        same(&format!("{other:?} under the key"), &refusal, &Refusal::KeyReused { key: key("taken") });
    }
    let document = anna.read("plan.md").await.expect("what was written");
    same("what is there", &(document.revision, document.content.kind()), &(Revision(1), Kind::Text));
    let other_key = bert.put("plan.md", "2", Precondition::Any).key(key("Taken"));
    same("another key's revision", &only_revision(&bert.committed(&other_key).await), &2);
}

/// What was refused has not happened: the intention, rebased, may keep its key.
pub async fn a_refusal_does_not_use_the_key_up(fixture: &dyn StoreFixture) {
    let scribe = Scribe::one(fixture);
    scribe.overwrite("plan.md", "there").await;
    let refusal = scribe.refused(&scribe.put("plan.md", "x", Precondition::Absent).key(key("kept"))).await;
    assert!(matches!(refusal, Refusal::Conflict(_)), "expected a conflict; found {refusal:?}");
    let rebased = scribe.put("plan.md", "x", Precondition::Exact(Revision(1))).key(key("kept"));
    let committed = scribe.committed(&rebased).await;
    same("the rebased commit", &(only_revision(&committed), committed.replayed), &(2, false));
    let again = scribe.committed(&rebased).await;
    same("its replay", &(only_revision(&again), again.replayed), &(2, true));
}

/// A commit whose future is dropped happens or not; its retry under the same key learns which, and in the end it has
/// happened once.
pub async fn a_dropped_commit_and_its_retry_happen_once(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    for (number, micros) in [0, 0, 0, 50, 100, 200, 400, 800, 1600, 3200].into_iter().enumerate() {
        let at = format!("dropped/{number}");
        let commit = anna.put(&at, "once", Precondition::Any).key(key(&at));
        // Polls at least once, then drops it at some moment of its life.
        let _ = tokio::time::timeout(Duration::from_micros(micros), anna.send(&commit)).await;
        let scribe = if number % 2 == 0 { &anna } else { &bert };
        let retried = tokio::time::timeout(LONG, scribe.committed(&commit)).await.expect("the retry ends");
        same("the retry's revision", &only_revision(&retried), &1);
        same("the replay's answer", &bert.committed(&commit).await.cursor, &retried.cursor);
        same("the number of revisions", &anna.history(&at).await.len(), &1);
    }
    same("the number of commits", &bert.feed(Cursor::START).await.len(), &10);
}
