//! How revisions are counted, and what it means that there is no document.

use mutext_contract::{Conflict, FencedRead, Listing, PathPrefix, Precondition, Refusal, Revision};

use crate::StoreFixture;
use crate::support::{Scribe, fence, only_revision, path, same, soon};

/// What was never written is absent to every way of looking, and looking does not create it.
pub async fn absent_means_absent(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    for scribe in [&anna, &bert] {
        same("a read", &scribe.read("plan.md").await, &None);
        same("its history", &scribe.history("plan.md").await, &Vec::new());
        let listing = scribe.store.list(&scribe.context, &PathPrefix::all(), None, 10, soon()).await;
        same("the listing", &listing.expect("a listing without trouble"), &Listing::default());
        same("the feed", &scribe.feed(mutext_contract::Cursor::START).await, &Vec::new());
    }
    let at = path("plan.md");
    let read = anna.store.read_fenced(&anna.context, &at, &fence(1, 1), soon()).await;
    same("a read under a lease", &read.expect("a read without trouble"), &FencedRead::Read(None));

    // A lease has been here now; a document has not.
    same("a read", &bert.read("plan.md").await, &None);
    same("its history", &bert.history("plan.md").await, &Vec::new());
    let listing = bert.store.list(&bert.context, &PathPrefix::all(), None, 10, soon()).await;
    same("the listing", &listing.expect("a listing without trouble"), &Listing::default());
    same("the feed", &bert.feed(mutext_contract::Cursor::START).await, &Vec::new());
    for precondition in [Precondition::Exact(Revision(1)), Precondition::Exact(Revision(0))] {
        let refusal = bert.refused(&bert.put("plan.md", "x", precondition)).await;
        let conflict = Conflict { path: at.clone(), precondition, current: None };
        same("a write for a revision that never was", &refusal, &Refusal::Conflict(Box::new(conflict)));
    }
    let created = bert.committed(&bert.put("plan.md", "x", Precondition::Absent)).await;
    same("the first revision", &only_revision(&created), &1);
}

/// Revisions of a document are 1, 2, 3, … whoever writes; each document counts for itself.
pub async fn revisions_rise_from_one(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    for round in 0..3 {
        for (place, scribe) in [(1, &anna), (2, &bert)] {
            let expected = 2 * round + place;
            let text = format!("text {expected}");
            same("the new revision", &scribe.overwrite("plan.md", &text).await, &expected);
            for reader in [&anna, &bert] {
                let document = reader.read("plan.md").await.expect("what was written");
                same("the revision that is read", &document.revision, &Revision(expected));
                same("the text that is read", &document.content.as_str(), &text.as_str());
                same("its author", &document.author, &scribe.author);
                same("its path", &document.path, &path("plan.md"));
            }
        }
    }
    same("another document's first revision", &anna.overwrite("notes.md", "x").await, &1);
}

/// A deletion takes a revision; a document that comes again goes on counting, so that no number means two texts.
pub async fn a_deleted_document_is_absent_and_its_revision_is_never_used_again(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    let at = path("plan.md");
    anna.overwrite("plan.md", "first").await;
    let deletion = anna.commit().delete(at.clone(), Precondition::Exact(Revision(1)));
    same("the deletion's revision", &only_revision(&anna.committed(&deletion).await), &2);

    same("a read", &bert.read("plan.md").await, &None);
    let listing = bert.store.list(&bert.context, &PathPrefix::all(), None, 10, soon()).await;
    same("the listing", &listing.expect("a listing without trouble"), &Listing::default());
    for revision in [1, 2] {
        let precondition = Precondition::Exact(Revision(revision));
        let refusal = bert.refused(&bert.put("plan.md", "stale", precondition)).await;
        let conflict = Conflict { path: at.clone(), precondition, current: None };
        same("a write for a revision of before", &refusal, &Refusal::Conflict(Box::new(conflict)));
    }

    let again = bert.committed(&bert.put("plan.md", "second", Precondition::Absent)).await;
    same("the revision of the document that came again", &only_revision(&again), &3);
    let refusal = anna.refused(&anna.put("plan.md", "stale", Precondition::Exact(Revision(1)))).await;
    assert!(matches!(refusal, Refusal::Conflict(_)), "expected revision 1 never to match again; found {refusal:?}");
    same("the text", &anna.text("plan.md").await.as_str(), &"second");
}
