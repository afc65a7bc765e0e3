//! What a commit demands, and what happens to it where that does not hold.

use mutext_contract::{Commit, Conflict, Content, Effect, PathPrefix, Precondition, Refusal, Revision};

use crate::StoreFixture;
use crate::support::{Scribe, fresh_context, key, only_revision, path, same, soon};

/// A write for an older revision changes nothing, and gets the document as it stands now.
pub async fn a_moved_revision_is_refused_with_the_current_document(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    anna.overwrite("plan.md", "first").await;
    let read = bert.read("plan.md").await;
    let precondition = Precondition::unchanged(read.as_ref());
    anna.overwrite("plan.md", "second").await;

    let refusal = bert.refused(&bert.put("plan.md", "from the first", precondition)).await;
    let current = anna.read("plan.md").await;
    let conflict = Conflict { path: path("plan.md"), precondition, current: current.clone() };
    same("the refusal", &refusal, &Refusal::Conflict(Box::new(conflict)));
    same("the current revision", &current.map(|document| document.revision), &Some(Revision(2)));
    same("the text", &bert.text("plan.md").await.as_str(), &"second");
    same("the number of revisions", &bert.history("plan.md").await.len(), &2);

    let rebased = bert.put("plan.md", "third", Precondition::Exact(Revision(2)));
    same("the rebased write's revision", &only_revision(&bert.committed(&rebased).await), &3);
    let refusal = bert.refused(&bert.put("plan.md", "ahead", Precondition::Exact(Revision(9)))).await;
    assert!(matches!(refusal, Refusal::Conflict(_)), "expected a revision to come to be refused; found {refusal:?}");
}

/// A write that is to create finds what exists.
pub async fn create_is_refused_where_one_exists(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    anna.committed(&anna.put("plan.md", "anna's", Precondition::Absent)).await;
    let refusal = bert.refused(&bert.put("plan.md", "bert's", Precondition::Absent)).await;
    let current = anna.read("plan.md").await;
    let conflict = Conflict { path: path("plan.md"), precondition: Precondition::Absent, current };
    same("the refusal", &refusal, &Refusal::Conflict(Box::new(conflict)));
    same("the text", &bert.text("plan.md").await.as_str(), &"anna's");
}

/// A write that demands nothing creates, overwrites, and creates again after a deletion.
pub async fn any_overwrites(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    same("on an absent document", &anna.overwrite("plan.md", "one").await, &1);
    same("on a present one", &bert.overwrite("plan.md", "two").await, &2);
    same("the text", &anna.text("plan.md").await.as_str(), &"two");
    let deletion = anna.commit().delete(path("plan.md"), Precondition::Any);
    same("a deletion", &only_revision(&anna.committed(&deletion).await), &3);
    same("on a deleted one", &bert.overwrite("plan.md", "four").await, &4);
}

/// A commit of several documents changes all of them, with one place in the feed; or none, where one of them has
/// moved. An engine that changes one at a time refuses it without effect.
pub async fn several_documents_change_together_or_not_at_all(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    let create = |commit: Commit, at: &str| commit.put(path(at), Content::text(at), Precondition::Absent);
    let all = create(create(create(anna.commit(), "c"), "a"), "b");
    if !anna.store.capabilities().several_documents {
        let error = anna.store.commit(&anna.context, &all, soon()).await;
        let error = error.expect_err("an engine that changes one document at a time refuses three");
        same("the refusal's effect", &error.effect, &Effect::None);
        same("the first document", &bert.read("c").await, &None);
        return;
    }
    let committed = anna.committed(&all).await;
    let expected: Vec<_> = ["c", "a", "b"].map(|at| (path(at), Revision(1))).into();
    same("the revisions, in the commit's order", &committed.revisions, &expected);
    let feed = bert.feed(mutext_contract::Cursor::START).await;
    same("its places in the feed", &feed.iter().map(|record| record.cursor).collect(), &vec![committed.cursor]);

    bert.overwrite("b", "moved").await;
    let stale = anna
        .commit()
        .put(path("a"), Content::text("new"), Precondition::Exact(Revision(1)))
        .delete(path("c"), Precondition::Any)
        .put(path("b"), Content::text("new"), Precondition::Exact(Revision(1)))
        .put(path("d"), Content::text("new"), Precondition::Absent);
    let Refusal::Conflict(conflict) = anna.refused(&stale).await else { panic!("expected a conflict") };
    same("the document in the way", &conflict.path, &path("b"));
    same("its revision", &conflict.current.map(|document| document.revision), &Some(Revision(2)));
    for (at, text) in [("a", Some("a")), ("b", Some("moved")), ("c", Some("c")), ("d", None)] {
        let found = bert.read(at).await.map(|document| document.content.as_str().to_owned());
        same(at, &found.as_deref(), &text);
    }
    same("the number of commits", &bert.feed(mutext_contract::Cursor::START).await.len(), &2);
}

/// The same path and the same key in another context are others; a listing and a feed show their own alone.
pub async fn contexts_do_not_share_documents(fixture: &dyn StoreFixture) {
    let (anna, elsewhere) = Scribe::two(fixture).await;
    let elsewhere = Scribe { context: fresh_context(), ..elsewhere };
    let keyed = |scribe: &Scribe, text: &str| scribe.put("plan.md", text, Precondition::Absent).key(key("the-key"));
    let one = anna.committed(&keyed(&anna, "here")).await;
    same("a read in the other context", &elsewhere.read("plan.md").await, &None);
    let other = elsewhere.committed(&keyed(&elsewhere, "there")).await;
    assert!(!other.replayed, "expected a key to name nothing in another context; found {other:?}");
    same("the other's revision", &only_revision(&other), &1);
    anna.overwrite("only-here.md", "x").await;

    for (scribe, text, paths, own) in
        [(&anna, "here", vec!["only-here.md", "plan.md"], &one), (&elsewhere, "there", vec!["plan.md"], &other)]
    {
        same("the text", &scribe.text("plan.md").await.as_str(), &text);
        let listing = scribe.store.list(&scribe.context, &PathPrefix::all(), None, 10, soon()).await;
        let listing = listing.expect("a listing without trouble");
        same("the listing", &listing.entries.iter().map(|entry| entry.path.as_str()).collect(), &paths);
        let feed = scribe.feed(mutext_contract::Cursor::START).await;
        same("the feed's length", &feed.len(), &paths.len());
        same("its first commit", &feed[0].cursor, &own.cursor);
        same("the history's length", &scribe.history("plan.md").await.len(), &1);
    }
}
