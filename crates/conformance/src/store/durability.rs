//! What a store keeps when its client goes.

use mutext_contract::{Cursor, FencedRead, Precondition, Refusal, Revision};

use crate::StoreFixture;
use crate::support::{Scribe, fence, fresh_context, key, only_revision, path, same, soon};

/// Documents, history, feed, keys, marks and epochs are all there for a client that comes after the first has gone.
pub async fn what_was_committed_is_there_after_reopening(fixture: &dyn StoreFixture) {
    let context = fresh_context();
    let first = Scribe::new(fixture.store(), &context, "anna");
    let keyed = first.put("plan.md", "one", Precondition::Absent).key(key("once")).message("begun");
    let original = first.committed(&keyed).await;
    first.committed(&first.put("plan.md", "two", Precondition::Any).fenced_by(fence(3, 7))).await;
    first.overwrite("gone.md", "x").await;
    first.committed(&first.commit().delete(path("gone.md"), Precondition::Any)).await;
    let marked = fence(3, 9);
    let read = first.store.read_fenced(&context, &path("absent.md"), &marked, soon()).await;
    same("a read under a lease", &read.expect("no trouble"), &FencedRead::Read(None));
    let epoch = first.store.mint_epoch(&context, 0, soon()).await.expect("an epoch without trouble");
    let (document, history) = (first.read("plan.md").await, first.history("plan.md").await);
    let feed = first.feed(Cursor::START).await;
    drop(first);
    fixture.vanish().await;

    let second = Scribe::new(fixture.second_store().await, &context, "bert");
    same("the document", &second.read("plan.md").await, &document);
    same("its history", &second.history("plan.md").await, &history);
    same("the feed", &second.feed(Cursor::START).await, &feed);
    same("the deleted document", &second.read("gone.md").await, &None);
    let replayed = second.committed(&keyed).await;
    same("the replay of a key", &(replayed.cursor, replayed.replayed), &(original.cursor, true));
    for (at, late) in [("plan.md", fence(3, 6)), ("absent.md", fence(3, 8))] {
        let refusal = second.refused(&second.put(at, "late", Precondition::Any).fenced_by(late)).await;
        assert!(matches!(refusal, Refusal::Fenced(_)), "expected {at} to keep its mark; found {refusal:?}");
    }
    let next = second.committed(&second.put("plan.md", "three", Precondition::Exact(Revision(2)))).await;
    same("the next revision", &only_revision(&next), &3);
    let last = feed.last().map(|record| record.cursor);
    assert!(Some(next.cursor) > last, "expected a cursor above {last:?}; found {:?}", next.cursor);
    let minted = second.store.mint_epoch(&context, 0, soon()).await.expect("an epoch without trouble");
    assert!(minted > epoch, "expected an epoch above {epoch}; found {minted}");
}
