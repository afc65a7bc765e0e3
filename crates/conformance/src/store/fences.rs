//! Fencing tokens at the store: whoever is behind is refused, whatever else is right.

use mutext_contract::{Content, Document, Fence, Fenced, FencedRead, Outcome, Precondition, Refusal, Revision};

use crate::StoreFixture;
use crate::support::{Scribe, fence, only_revision, path, same, soon};

/// Asserts that a refusal is for a token behind `highest`, and carries what is there.
fn is_fenced(refusal: &Refusal, presented: &Fence, highest: &Fence, current: Option<Document>) {
    let fenced = Fenced { path: path("plan.md"), presented: presented.token, highest: highest.token, current };
    same("the refusal", refusal, &Refusal::Fenced(Box::new(fenced)));
}

async fn read_fenced(scribe: &Scribe, fence: &Fence) -> FencedRead {
    let read = scribe.store.read_fenced(&scribe.context, &path("plan.md"), fence, soon()).await;
    read.expect("a read without trouble")
}

/// A holder whose lease has passed on is refused although its revision is right: nothing has been written since.
pub async fn an_older_fence_is_refused_even_at_the_right_revision(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    let (old, new) = (fence(1, 4), fence(1, 5));
    bert.committed(&bert.put("plan.md", "new holder's", Precondition::Absent).fenced_by(new.clone())).await;
    let current = anna.read("plan.md").await;
    for precondition in [Precondition::Exact(Revision(1)), Precondition::Any] {
        let stale = anna.put("plan.md", "old holder's", precondition).fenced_by(old.clone());
        is_fenced(&anna.refused(&stale).await, &old, &new, current.clone());
    }
    let deletion = anna.commit().delete(path("plan.md"), Precondition::Any).fenced_by(old.clone());
    is_fenced(&anna.refused(&deletion).await, &old, &new, current);
    same("the text", &bert.text("plan.md").await.as_str(), &"new holder's");
    same("the number of revisions", &bert.history("plan.md").await.len(), &1);

    // Each document has a mark of its own.
    anna.committed(&anna.put("notes.md", "old holder's", Precondition::Absent).fenced_by(old)).await;
}

/// Where a token is behind on one document of a commit, the others' marks stay as they were.
pub async fn a_refused_fence_raises_no_mark(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    if !anna.store.capabilities().several_documents {
        let (old, new) = (fence(1, 4), fence(1, 5));
        read_fenced(&bert, &new).await;
        same("an older read's end", &matches!(read_fenced(&anna, &old).await, FencedRead::Fenced(_)), &true);
        same("the same read's end", &read_fenced(&bert, &new).await, &FencedRead::Read(None));
        return;
    }
    let high = fence(1, 9);
    same("the high mark", &read_fenced(&bert, &high).await, &FencedRead::Read(None));
    let middle = fence(1, 5);
    let both = anna
        .commit()
        .put(path("a.md"), Content::text("x"), Precondition::Any)
        .put(path("plan.md"), Content::text("x"), Precondition::Any)
        .put(path("z.md"), Content::text("x"), Precondition::Any)
        .fenced_by(middle.clone());
    is_fenced(&anna.refused(&both).await, &middle, &high, None);
    for at in ["a.md", "z.md"] {
        let low = anna.put(at, "low", Precondition::Absent).fenced_by(fence(1, 2));
        same("a lower token's write beside it", &only_revision(&anna.committed(&low).await), &1);
    }
}

/// A holder writes as often as it likes, and reads in between.
pub async fn the_same_fence_may_write_twice(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    let own = fence(1, 5);
    for (scribe, expected) in [(&anna, 1), (&bert, 2), (&anna, 3)] {
        let text = format!("text {expected}");
        let commit = scribe.put("plan.md", &text, Precondition::Any).fenced_by(own.clone());
        same("the new revision", &only_revision(&scribe.committed(&commit).await), &expected);
        let FencedRead::Read(Some(document)) = read_fenced(scribe, &own).await else {
            panic!("expected the holder to read what it wrote");
        };
        same("the revision that it reads", &document.revision, &Revision(expected));
    }
    let next = bert.put("plan.md", "other text", Precondition::Any).fenced_by(fence(1, 6));
    same("a later holder's revision", &only_revision(&bert.committed(&next).await), &4);
}

/// Two grants that a failover gave the same number are told apart: the first to come to the document wins.
pub async fn an_equal_number_of_another_owner_is_refused(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    let (first, other) = (fence(1, 5), fence(1, 5));
    anna.committed(&anna.put("plan.md", "first", Precondition::Absent).fenced_by(first.clone())).await;
    let current = bert.read("plan.md").await;
    let twin = bert.put("plan.md", "twin", Precondition::Exact(Revision(1))).fenced_by(other.clone());
    is_fenced(&bert.refused(&twin).await, &other, &first, current);
    let read = read_fenced(&bert, &other).await;
    assert!(matches!(read, FencedRead::Fenced(_)), "expected the twin's read to be refused; found {read:?}");
    anna.committed(&anna.put("plan.md", "second", Precondition::Exact(Revision(1))).fenced_by(first)).await;
}

/// A token of a new epoch outranks every counter of the epochs before; large numbers compare as numbers.
pub async fn a_newer_epoch_outranks(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    let (old, new) = (fence(1, 900), fence(2, 1));
    anna.committed(&anna.put("plan.md", "old epoch", Precondition::Absent).fenced_by(old)).await;
    bert.committed(&bert.put("plan.md", "new epoch", Precondition::Any).fenced_by(new.clone())).await;
    let current = anna.read("plan.md").await;
    let late = fence(1, 901);
    let commit = anna.put("plan.md", "old epoch", Precondition::Any).fenced_by(late.clone());
    is_fenced(&anna.refused(&commit).await, &late, &new, current.clone());

    // Numbers beyond 32 bits are compared as numbers, not as texts, and keep their value.
    let large = fence(10, 5_000_000_000);
    bert.committed(&bert.put("plan.md", "large", Precondition::Any).fenced_by(large.clone())).await;
    let current = anna.read("plan.md").await;
    for late in [fence(10, 4_999_999_999), fence(10, 999), fence(9, 5_000_000_001)] {
        let commit = anna.put("plan.md", "late", Precondition::Any).fenced_by(late.clone());
        is_fenced(&anna.refused(&commit).await, &late, &large, current.clone());
    }
}

/// What was read under a lease, no older holder can change any more: neither a document, nor that there is none.
pub async fn a_fenced_read_keeps_older_tokens_out(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    let (old, new) = (fence(1, 4), fence(1, 5));
    same("the new holder's read", &read_fenced(&bert, &new).await, &FencedRead::Read(None));
    let creation = anna.put("plan.md", "old holder's", Precondition::Absent).fenced_by(old.clone());
    is_fenced(&anna.refused(&creation).await, &old, &new, None);
    let FencedRead::Fenced(fenced) = read_fenced(&anna, &old).await else {
        panic!("expected the old holder's read to be refused");
    };
    same("the refusal of its read", &fenced.highest, &new.token);

    let creation = bert.put("plan.md", "new holder's", Precondition::Absent).fenced_by(new);
    same("the first revision", &only_revision(&bert.committed(&creation).await), &1);
    let (middle, newest) = (fence(1, 6), fence(1, 7));
    let current = bert.read("plan.md").await;
    same("the newest holder's read", &read_fenced(&anna, &newest).await, &FencedRead::Read(current.clone()));
    let late = bert.put("plan.md", "late", Precondition::Exact(Revision(1))).fenced_by(middle.clone());
    is_fenced(&bert.refused(&late).await, &middle, &newest, current.clone());
    let FencedRead::Fenced(fenced) = read_fenced(&bert, &middle).await else {
        panic!("expected the middle holder's read to be refused");
    };
    let expected = Fenced { path: path("plan.md"), presented: middle.token, highest: newest.token, current };
    same("the refusal of its read", &*fenced, &expected);
    same("the number of revisions", &anna.history("plan.md").await.len(), &1);
}

/// A good token leaves its mark although the write is refused for its revision: an older one is kept out from then on.
pub async fn a_good_fence_raises_the_mark_even_where_the_precondition_fails(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    let (old, new) = (fence(1, 6), fence(1, 7));
    anna.overwrite("plan.md", "text").await;
    let wrong = bert.put("plan.md", "new holder's", Precondition::Exact(Revision(99))).fenced_by(new.clone());
    let refusal = bert.refused(&wrong).await;
    assert!(matches!(refusal, Refusal::Conflict(_)), "expected a conflict; found {refusal:?}");
    let current = anna.read("plan.md").await;
    let late = anna.put("plan.md", "old holder's", Precondition::Exact(Revision(1))).fenced_by(old.clone());
    is_fenced(&anna.refused(&late).await, &old, &new, current);

    // The same on a document that is not there.
    let absent = path("notes.md");
    let wrong = bert.put("notes.md", "x", Precondition::Exact(Revision(1))).fenced_by(new.clone());
    bert.refused(&wrong).await;
    let late = anna.put("notes.md", "x", Precondition::Absent).fenced_by(old.clone());
    let outcome = anna.send(&late).await;
    let fenced = Fenced { path: absent, presented: old.token, highest: new.token, current: None };
    same("the late creation", &outcome, &Outcome::Refused(Refusal::Fenced(Box::new(fenced))));
}
