//! A context as of one place, in pages; and as an archive.

use std::time::Duration;

use mutext_contract::{
    ArchivedCommit, Content, Cursor, Document, Expiry, PathPrefix, Precondition, Revision, Snapshot,
};

use crate::StoreFixture;
use crate::support::{Scribe, path, same, soon};

async fn documents_at(scribe: &Scribe, at: Cursor, prefix: &str, limit: usize) -> Vec<Document> {
    let prefix = PathPrefix::new(prefix).expect("a valid prefix");
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = scribe.store.documents_at(&scribe.context, at, &prefix, after.as_ref(), limit, soon()).await;
        match page.expect("a page without trouble") {
            Snapshot::Page(documents, next) => {
                assert!(documents.len() <= limit, "expected at most {limit}; found {}", documents.len());
                all.extend(documents);
                match next {
                    Some(next) => after = Some(next),
                    None => return all,
                }
            }
            Snapshot::Gone { oldest } => panic!("expected the place {at:?} to be there; the oldest is {oldest:?}"),
        }
    }
}

fn texts(documents: &[Document]) -> Vec<(&str, u64, &str)> {
    let text = |document: &Document| {
        // Leaked, so that a case reads as a table.
        let content: &'static str = document.content.as_str().to_owned().leak();
        let path: &'static str = document.path.to_string().leak();
        (path, document.revision.0, content)
    };
    documents.iter().map(text).collect()
}

/// Pages of one place are one snapshot, whatever is written, deleted or created meanwhile.
pub async fn a_snapshot_stays_as_it_was_while_others_write(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    for (at, text) in [("a", "1"), ("notes/b", "1"), ("notes/c", "1"), ("z", "1")] {
        anna.overwrite(at, text).await;
    }
    anna.overwrite("notes/c", "2").await;
    let head = bert.store.head(&bert.context, soon()).await.expect("the head without trouble");
    let expected = vec![("a", 1, "1"), ("notes/b", 1, "1"), ("notes/c", 2, "2"), ("z", 1, "1")];
    same("the snapshot", &texts(&documents_at(&bert, head, "", 2).await), &expected);
    same("a part of it", &texts(&documents_at(&bert, head, "notes/", 9).await), &expected[1..3].to_vec());

    anna.overwrite("a", "changed").await;
    anna.committed(&anna.commit().delete(path("z"), Precondition::Any)).await;
    anna.overwrite("notes/new", "created").await;
    let later = bert.store.head(&bert.context, soon()).await.expect("the head without trouble");
    assert!(later > head, "expected the head to move on from {head:?}; found {later:?}");
    for limit in [1, 100] {
        same("the same snapshot", &texts(&documents_at(&anna, head, "", limit).await), &expected);
    }
    let now = vec![("a", 2, "changed"), ("notes/b", 1, "1"), ("notes/c", 2, "2"), ("notes/new", 1, "created")];
    same("a later snapshot", &texts(&documents_at(&anna, later, "", 3).await), &now);
    same("one of the beginning", &texts(&documents_at(&anna, Cursor::START, "", 3).await), &Vec::new());
}

/// What an archive holds brings another context to the same state, with authors, times, messages and all revisions;
/// and never into one that has documents.
pub async fn an_archive_brings_back_all_that_was_there(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    let odd = "zwölf Boxkämpfer\r\n\0\u{1f600}";
    anna.committed(&anna.put("a b/ü.md", odd, Precondition::Absent).message("odd\0 one")).await;
    let json = Content::parse_json("{\"b\": 1.10, \"a\": 12345678901234567890123}").expect("JSON");
    bert.committed(&bert.commit().put(path("data.json"), json, Precondition::Absent)).await;
    bert.overwrite("a b/ü.md", "second").await;
    bert.committed(&bert.commit().delete(path("a b/ü.md"), Precondition::Any)).await;
    anna.overwrite("a b/ü.md", "third").await;
    let hour = Expiry::After(Duration::from_secs(3600));
    anna.committed(&anna.put("scratch", "for an hour", Precondition::Absent).expiring(hour)).await;
    if anna.store.capabilities().several_documents {
        let (left, right) = (Content::text("left"), Content::text("right"));
        let both = anna.commit().put(path("l"), left, Precondition::Any).put(path("r"), right, Precondition::Any);
        anna.committed(&both).await;
    }
    // Of a document that is still there, what it is now; of the others, that they are gone.
    let head = anna.store.head(&anna.context, soon()).await.expect("the head without trouble");
    let (mut archive, mut after) = (Vec::<ArchivedCommit>::new(), Cursor::START);
    loop {
        let page = anna.store.archive(&anna.context, after, head, 2, soon()).await.expect("a page without trouble");
        assert!(page.len() <= 2, "expected at most 2 commits; found {}", page.len());
        match page.last() {
            Some(last) => after = last.cursor,
            None => break,
        }
        archive.extend(page);
    }
    let feed = anna.feed(Cursor::START).await;
    same("the commits of the archive", &archive.len(), &feed.len());

    let copy = Scribe::new(bert.store.clone(), &crate::support::fresh_context(), "anna");
    let brought = copy.store.restore(&copy.context, &archive, soon()).await.expect("a restore without trouble");
    same("the last place", &brought, &copy.feed(Cursor::START).await.last().map(|record| record.cursor));
    let later = copy.store.head(&copy.context, soon()).await.expect("the head without trouble");
    same("the documents", &documents_at(&copy, later, "", 9).await, &documents_at(&anna, head, "", 9).await);
    for at in ["a b/ü.md", "data.json", "scratch"] {
        same("the history", &copy.history(at).await, &anna.history(at).await);
    }
    let told = |records: Vec<mutext_contract::CommitRecord>| {
        let told =
            |record: mutext_contract::CommitRecord| (record.author, record.message, record.written_at, record.changes);
        records.into_iter().map(told).collect::<Vec<_>>()
    };
    same("the feed", &told(copy.feed(Cursor::START).await), &told(feed));
    let next = copy.overwrite("a b/ü.md", "fourth").await;
    same("the next revision", &Revision(next), &Revision(5));

    let again = copy.store.restore(&copy.context, &archive, soon()).await.expect("a restore without trouble");
    same("a second time", &again, &None);
    same("the text then", &copy.text("a b/ü.md").await.as_str(), &"fourth");
}
