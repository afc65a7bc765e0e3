//! Documents that end by themselves, and pasts that need not be kept.

use std::time::Duration;

use mutext_contract::{
    Content, Cursor, Deadline, Expiry, Feed, PathPrefix, Precondition, Query, Refusal, Retention, Revision, Snapshot,
    Tended,
};

use crate::StoreFixture;
use crate::support::{Scribe, eventually, key, only_revision, path, same, soon};

const SHORT: Duration = Duration::from_millis(120);

async fn tend(scribe: &Scribe, retention: Retention) -> Tended {
    let mut all = Tended::default();
    loop {
        let tended = scribe.store.tend(&scribe.context, &retention, soon()).await.expect("upkeep without trouble");
        if tended == Tended::default() {
            return all;
        }
        all.expired += tended.expired;
        all.forgotten += tended.forgotten;
    }
}

/// A document whose time has run out is not there any more, for readers and writers alike; tending deletes it, which
/// the history and the feed show.
pub async fn an_expired_document_is_absent_at_once(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    let scratch = anna.put("scratch", "soon gone", Precondition::Absent).expiring(Expiry::After(SHORT));
    let written = anna.committed(&scratch).await;
    let document = bert.read("scratch").await.expect("it is there at first");
    let expires = document.expires_at.expect("it says when it is gone");
    let ttl = expires.duration_since(document.written_at).expect("after it was written");
    same("its time", &ttl, &SHORT);
    anna.overwrite("plan.md", "stays").await;

    let gone = || async { bert.read("scratch").await.is_none().then_some(()) };
    eventually("the document's time runs out", gone).await;
    let all = PathPrefix::all();
    let listed = bert.store.list(&bert.context, &all, None, 9, soon()).await.expect("a listing without trouble");
    same("the listing", &listed.entries.iter().map(|entry| entry.path.clone()).collect(), &vec![path("plan.md")]);
    let stale = bert.put("scratch", "x", Precondition::Exact(Revision(1)));
    let Refusal::Conflict(conflict) = bert.refused(&stale).await else { panic!("expected a conflict") };
    same("what is there", &conflict.current, &None);

    same("what tending does", &tend(&anna, Retention::default()).await, &Tended { expired: 1, forgotten: 0 });
    same("what is left to do", &tend(&bert, Retention::default()).await, &Tended::default());
    let last = anna.feed(written.cursor).await.pop().expect("a commit");
    same("the deletion in the feed", &last.changes, &vec![(path("scratch"), Revision(2), true)]);
    same("its message", &last.message.as_deref(), &Some("expired"));
    let anew = bert.put("scratch", "anew", Precondition::Absent);
    same("the next revision", &only_revision(&bert.committed(&anew).await), &3);
    same("its time", &bert.read("scratch").await.and_then(|document| document.expires_at), &None);
}

/// Without tending, an expired document can be created anew; a later write keeps, ends or prolongs its time.
pub async fn a_write_says_what_becomes_of_an_expiry(fixture: &dyn StoreFixture) {
    const LONG: Duration = Duration::from_secs(3600);
    let anna = Scribe::one(fixture);
    let expires = async || anna.read("note").await.expect("it is there").expires_at;
    anna.committed(&anna.put("note", "1", Precondition::Absent).expiring(Expiry::After(LONG))).await;
    let first = expires().await;
    same("whether it ends", &first.is_some(), &true);
    anna.overwrite("note", "2").await;
    same("its end after a write that does not name one", &expires().await, &first);
    // Also where the text stays as it is.
    let longer = anna.put("note", "2", Precondition::Any).expiring(Expiry::After(2 * LONG));
    same("the revision", &only_revision(&anna.committed(&longer).await), &2);
    same("whether it ends later", &(expires().await > first), &true);
    anna.committed(&anna.put("note", "3", Precondition::Any).expiring(Expiry::Never)).await;
    same("its end after one that ends it", &expires().await, &None);

    anna.committed(&anna.put("brief", "1", Precondition::Absent).expiring(Expiry::After(SHORT))).await;
    tokio::time::sleep(SHORT + Duration::from_millis(30)).await;
    let anew = anna.committed(&anna.put("brief", "1", Precondition::Absent)).await;
    same("its new revision", &only_revision(&anew), &2);
    same("its end", &anna.read("brief").await.map(|document| document.expires_at), &Some(None));
}

/// By count: the last revisions stay, what was before is forgotten; whoever reads on from there is told.
pub async fn retention_by_count_forgets_the_oldest_and_says_so(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    let mut places = Vec::new();
    for number in 1..=5 {
        let put = anna.put("plan.md", &format!("{number}"), Precondition::Any);
        places.push(anna.committed(&put).await.cursor);
    }
    anna.overwrite("once.md", "kept").await;
    let keyed = anna.put("keyed.md", "1", Precondition::Absent).key(key("kept"));
    anna.committed(&keyed).await;
    anna.overwrite("keyed.md", "2").await;
    anna.overwrite("keyed.md", "3").await;

    let two = Retention { revisions: Some(2), age: None };
    // Under a key, the first of `keyed.md` is kept for a while: so that a retry happens once.
    same("what tending does", &tend(&bert, two).await, &Tended { expired: 0, forgotten: 3 });
    let left = |past: Vec<mutext_contract::PastRevision>| past.iter().map(|past| past.revision.0).collect::<Vec<_>>();
    same("the revisions that are left", &left(anna.history("plan.md").await), &vec![5, 4]);
    same("the text", &anna.text("plan.md").await.as_str(), &"5");
    same("a document of one revision", &left(anna.history("once.md").await), &vec![1]);
    same("whether the retry is known", &anna.committed(&keyed).await.replayed, &true);

    let oldest = match bert.store.changes(&bert.context, Cursor::START, 9, Deadline::now()).await {
        Ok(Feed::Gone { oldest }) => oldest,
        other => panic!("expected the beginning of the feed to be gone; found {other:?}"),
    };
    same("the oldest place", &oldest, &places[3]);
    let rest = anna.feed(oldest).await;
    same("the commits after it", &rest.first().map(|record| record.cursor), &Some(places[4]));
    let at = anna.store.documents_at(&anna.context, places[2], &PathPrefix::all(), None, 9, soon()).await;
    same("documents as of before", &at.expect("no trouble"), &Snapshot::Gone { oldest });
}

/// By age: what was replaced long enough ago is forgotten, however few there are; a deletion counts as a revision.
pub async fn retention_by_age_forgets_what_was_replaced_long_ago(fixture: &dyn StoreFixture) {
    let anna = Scribe::one(fixture);
    anna.overwrite("plan.md", "1").await;
    anna.overwrite("plan.md", "2").await;
    anna.committed(&anna.commit().delete(path("gone.md"), Precondition::Any)).await;
    let hour = Retention { revisions: None, age: Some(Duration::from_secs(3600)) };
    same("what is an hour old", &tend(&anna, hour).await, &Tended::default());
    tokio::time::sleep(Duration::from_millis(20)).await;
    let now = Retention { revisions: None, age: Some(Duration::from_millis(1)) };
    same("what is older than that", &tend(&anna, now).await, &Tended { expired: 0, forgotten: 1 });
    same("the text", &anna.text("plan.md").await.as_str(), &"2");
    same("the next revision", &anna.overwrite("plan.md", "3").await, &3);
}

/// Nothing is left of a purged document but a tombstone that says who did it and why; whatever else its commits
/// changed stays, and a late retry does not bring it back.
pub async fn a_purge_leaves_a_tombstone_alone(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    let secret = anna.put("person.md", "Ada, born 1815", Precondition::Absent).key(key("birth")).message("Ada's");
    anna.committed(&secret).await;
    if anna.store.capabilities().several_documents {
        let both = anna.commit().put(path("person.md"), Content::text("Ada Lovelace"), Precondition::Any).put(
            path("plan.md"),
            Content::text("stays"),
            Precondition::Any,
        );
        anna.committed(&both).await;
    }
    let query: Query = "lovelace OR ada".parse().expect("a query");
    let found = async |query: &Query| {
        let hits = bert.store.search(&bert.context, query, &PathPrefix::all(), 9, soon()).await;
        hits.expect("a search without trouble").len()
    };
    found(&query).await;
    let purge = async |scribe: &Scribe, at: &str| {
        let purged = scribe.store.purge(&scribe.context, &path(at), &scribe.author, "asked to", soon()).await;
        purged.expect("a purge without trouble")
    };
    let last = anna.history("person.md").await[0].revision.0;
    same("the tombstone's revision", &purge(&bert, "person.md").await, &Some(Revision(last + 1)));
    same("the document", &anna.read("person.md").await, &None);
    let past = anna.history("person.md").await;
    same("the number of revisions", &past.len(), &1);
    same("what the tombstone holds", &past[0].content, &None);
    same("who did it", &past[0].author, &bert.author);
    same("why", &past[0].message.as_deref(), &Some("purged: asked to"));
    let ada: Query = "Ada".parse().expect("a query");
    same("what a search finds", &found(&ada).await, &0);
    let told = anna.feed(Cursor::START).await;
    let messages: Vec<_> = told.iter().filter_map(|record| record.message.as_deref()).collect();
    same("the messages in the feed", &messages, &vec!["purged: asked to"]);
    same("purged twice", &purge(&anna, "person.md").await, &None);
    same("what never was", &purge(&anna, "nobody.md").await, &None);
    same("whether a late retry is known", &anna.committed(&secret).await.replayed, &true);
    same("the document", &anna.read("person.md").await, &None);
    if anna.store.capabilities().several_documents {
        same("its neighbour", &anna.text("plan.md").await.as_str(), &"stays");
    }
    let anew = anna.committed(&anna.put("person.md", "another", Precondition::Absent)).await;
    same("the next revision", &only_revision(&anew), &(last + 2));
}
