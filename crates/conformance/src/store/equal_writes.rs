//! Writes that change nothing, and writes that would drop most of a document.

use mutext_contract::{Action, Change, Content, Cursor, Erosion, FencedRead, Outcome, Precondition, Refusal, Revision};

use crate::StoreFixture;
use crate::support::{Scribe, fence, key, only_revision, path, same, soon};

/// A document that holds already what is written to it keeps its revision; a write of other bytes, or of another kind,
/// does not. What a write demands must hold all the same.
pub async fn a_write_of_what_is_there_keeps_the_revision(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    let first = anna.committed(&anna.put("plan.md", "1", Precondition::Absent)).await;
    for precondition in [Precondition::Any, Precondition::Exact(Revision(1))] {
        let again = bert.committed(&bert.put("plan.md", "1", precondition)).await;
        same("the revision of an equal write", &only_revision(&again), &1);
        same("its place", &again.cursor, &first.cursor);
        same("whether it is a replay", &again.replayed, &false);
    }
    same("the author", &anna.read("plan.md").await.map(|document| document.author), &Some(anna.author.clone()));
    same("the number of revisions", &anna.history("plan.md").await.len(), &1);
    same("the number of commits", &anna.feed(Cursor::START).await.len(), &1);

    for precondition in [Precondition::Absent, Precondition::Exact(Revision(2))] {
        let refusal = bert.refused(&bert.put("plan.md", "1", precondition)).await;
        same("whether it is a conflict", &matches!(refusal, Refusal::Conflict(_)), &true);
    }
    let json = Content::parse_json("1").expect("a number is JSON");
    let other = bert.committed(&bert.commit().put(path("plan.md"), json, Precondition::Any)).await;
    same("the revision of the same text as JSON", &only_revision(&other), &2);

    bert.committed(&bert.commit().delete(path("plan.md"), Precondition::Any)).await;
    let anew = anna.committed(&anna.put("plan.md", "1", Precondition::Any)).await;
    same("the revision after a deletion", &only_revision(&anew), &4);
}

/// Where a commit changes some of its documents, the others keep their revisions and are not in the feed.
pub async fn only_what_a_commit_changes_gets_a_revision(fixture: &dyn StoreFixture) {
    let anna = Scribe::one(fixture);
    if !anna.store.capabilities().several_documents {
        return;
    }
    anna.overwrite("a.md", "same").await;
    let both = anna.commit().put(path("a.md"), Content::text("same"), Precondition::Exact(Revision(1))).put(
        path("b.md"),
        Content::text("new"),
        Precondition::Absent,
    );
    let committed = anna.committed(&both).await;
    same("the revisions", &committed.revisions, &vec![(path("a.md"), Revision(1)), (path("b.md"), Revision(1))]);
    let feed = anna.feed(Cursor::START).await;
    let last = feed.last().map(|record| record.changes.clone());
    same("what the feed has of it", &last, &Some(vec![(path("b.md"), Revision(1), false)]));
    same("its place", &feed.last().map(|record| record.cursor), &Some(committed.cursor));
}

/// A write that changed nothing is known by its key: a late retry does not write over what came after it.
pub async fn the_key_of_a_write_that_changed_nothing_is_remembered(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    anna.overwrite("plan.md", "as it was").await;
    let keyed = anna.put("plan.md", "as it was", Precondition::Any).key(key("once"));
    let first = anna.committed(&keyed).await;
    same("the revision", &only_revision(&first), &1);
    bert.overwrite("plan.md", "changed").await;
    let retried = bert.committed(&keyed).await;
    same("the retry's revision", &retried.revisions, &first.revisions);
    same("whether it is a replay", &retried.replayed, &true);
    same("the text", &anna.text("plan.md").await.as_str(), &"changed");
    same("the number of commits in the feed", &anna.feed(Cursor::START).await.len(), &2);
}

/// A guarded write that would leave less than half of a document is refused, and says how much it would leave.
pub async fn a_guarded_write_does_not_wear_a_document_down(fixture: &dyn StoreFixture) {
    let anna = Scribe::one(fixture);
    let hundred = "0123456789".repeat(10);
    anna.overwrite("plan.md", &hundred).await;
    let guarded = |text: &str| anna.put("plan.md", text, Precondition::Exact(Revision(1))).guarded();
    let erosion = Erosion { path: path("plan.md"), revision: Revision(1), bytes: 100, left: 49 };
    same("the refusal", &anna.refused(&guarded(&hundred[..49])).await, &Refusal::Erodes(erosion));
    same("the text", &anna.text("plan.md").await, &hundred);
    same("half of it", &only_revision(&anna.committed(&guarded(&hundred[..50])).await), &2);

    // A small document may be replaced by any other, a deletion is meant, and who asks for no guard gets none.
    let small = "x".repeat(Change::GUARDED_BYTES_MIN - 1);
    anna.overwrite("small.md", &small).await;
    let word = anna.put("small.md", "", Precondition::Any).guarded();
    same("a small document's revision", &only_revision(&anna.committed(&word).await), &2);
    anna.overwrite("plan.md", &hundred).await;
    same("without the guard", &anna.overwrite("plan.md", "x").await, &4);
    anna.overwrite("plan.md", &hundred).await;
    let mut deletion = anna.commit();
    deletion.changes.push(Change { guarded: true, ..Change::new(path("plan.md"), Precondition::Any, Action::Delete) });
    same("the deletion's revision", &only_revision(&anna.committed(&deletion).await), &6);
}

/// What a holder writes without naming a revision is for the one that it has read or written: where somebody without
/// the lock has come in between, it is told, and nothing of that is lost.
pub async fn a_holder_does_not_write_over_what_it_has_not_seen(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    anna.overwrite("plan.md", "first").await;
    let own = fence(1, 5);
    let read = async |scribe: &Scribe| {
        let read = scribe.store.read_fenced(&scribe.context, &path("plan.md"), &own, soon()).await;
        match read.expect("a read without trouble") {
            FencedRead::Read(document) => document.map(|document| document.revision.0),
            other => panic!("expected the holder to read; found {other:?}"),
        }
    };
    same("the revision that the holder reads", &read(&anna).await, &Some(1));
    bert.committed(&bert.put("plan.md", "a stranger's", Precondition::Exact(Revision(1)))).await;
    let blind = anna.put("plan.md", "the holder's", Precondition::Any).fenced_by(own.clone());
    match anna.refused(&blind).await {
        Refusal::Conflict(conflict) => {
            same("what is there", &conflict.current.map(|document| document.revision), &Some(Revision(2)));
        }
        other => panic!("expected a conflict; found {other:?}"),
    }
    same("the text", &bert.text("plan.md").await.as_str(), &"a stranger's");

    // Once it has seen it, it may; and what it wrote itself it has seen.
    same("the revision that the holder reads", &read(&anna).await, &Some(2));
    same("its write", &only_revision(&anna.committed(&blind).await), &3);
    let more = anna.put("plan.md", "the holder's second", Precondition::Any).fenced_by(own.clone());
    same("its next write", &only_revision(&anna.committed(&more).await), &4);
    let deletion = bert.commit().delete(path("plan.md"), Precondition::Any);
    bert.committed(&deletion).await;
    let outcome = anna.send(&anna.put("plan.md", "again", Precondition::Any).fenced_by(own.clone())).await;
    same("a write over a stranger's deletion", &matches!(outcome, Outcome::Refused(Refusal::Conflict(_))), &true);

    // Whoever has read nothing under its lease has said that it writes whatever is there.
    let next = bert.put("plan.md", "the next holder's", Precondition::Any).fenced_by(fence(1, 6));
    same("the next holder's write", &only_revision(&bert.committed(&next).await), &6);
}
