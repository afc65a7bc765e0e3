//! What was, and what there is: history and listings, in pages.

use mutext_contract::{AgentName, Content, DocumentPath, Kind, PathPrefix, Precondition, Revision};

use crate::StoreFixture;
use crate::support::{Scribe, path, same, soon};

/// A past revision: its number, text and kind, author, and message.
type Row<'a> = (u64, Option<(&'a str, Kind)>, &'a AgentName, Option<&'a str>);

/// Every revision of a document can be read again, newest first, with its author and message; deletions are shown.
pub async fn history_keeps_every_revision(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    let at = path("plan.md");
    let any = Precondition::Any;
    anna.committed(&anna.put("plan.md", "one", any).message("begun")).await;
    bert.committed(&bert.commit().put(at.clone(), Content::parse_json("{ \"n\": 2 }").expect("JSON"), any)).await;
    anna.committed(&anna.commit().delete(at.clone(), any).message("not needed")).await;
    bert.committed(&bert.put("plan.md", "", any).message("needed after all")).await;
    anna.committed(&anna.put("plan.md", "five", any)).await;
    anna.overwrite("plan.md/below", "another document").await;

    let expected: Vec<Row<'_>> = vec![
        (5, Some(("five", Kind::Text)), &anna.author, None),
        (4, Some(("", Kind::Text)), &bert.author, Some("needed after all")),
        (3, None, &anna.author, Some("not needed")),
        (2, Some(("{ \"n\": 2 }", Kind::Json)), &bert.author, None),
        (1, Some(("one", Kind::Text)), &anna.author, Some("begun")),
    ];
    let whole = bert.history("plan.md").await;
    let row = |past: &'_ mutext_contract::PastRevision| {
        let content = past.content.as_ref().map(|content| (content.as_str().to_owned(), content.kind()));
        (past.revision.0, content, past.author.clone(), past.message.clone())
    };
    let found: Vec<_> = whole.iter().map(row).collect();
    let owned = |(revision, content, author, message): Row<'_>| {
        (revision, content.map(|(text, kind)| (text.to_owned(), kind)), author.clone(), message.map(str::to_owned))
    };
    same("the history", &found, &expected.into_iter().map(owned).collect());

    for limit in [1, 2, 5, 7] {
        let (mut paged, mut before) = (Vec::new(), None);
        loop {
            let page = anna.store.history(&anna.context, &at, before, limit, soon()).await;
            let page = page.expect("a page without trouble");
            assert!(page.len() <= limit, "expected at most {limit} revisions; found {}", page.len());
            let Some(last) = page.last() else { break };
            before = Some(last.revision);
            paged.extend(page);
        }
        same(&format!("the history in pages of {limit}"), &paged, &whole);
    }
    let none = anna.store.history(&anna.context, &at, Some(Revision(1)), 5, soon()).await;
    same("what was before the first", &none.expect("a page without trouble"), &Vec::new());
}

/// A listing has every document below its prefix, once, in the byte order of their paths, whatever the page's size.
pub async fn listing_by_prefix_in_pages(fixture: &dyn StoreFixture) {
    const PATHS: [&str; 19] = [
        "Tasks/1",
        "a",
        "a b",
        "a!",
        "a%",
        "a-b",
        "a/b",
        "a/b/c",
        "a0",
        "a_b",
        "aa",
        "b'",
        "tasks",
        "tasks-done",
        "tasks/1",
        "tasks/10",
        "tasks/2",
        "é/ü",
        "🦀",
    ];
    let (anna, bert) = Scribe::two(fixture).await;
    let mut paths = PATHS.to_vec();
    paths.sort_unstable();
    // Written in another order than the listing's.
    for (number, at) in paths.iter().rev().enumerate() {
        let scribe = if number % 2 == 0 { &anna } else { &bert };
        scribe.overwrite(at, &"x".repeat(number)).await;
    }
    anna.overwrite("tasks/3-deleted", "x").await;
    anna.committed(&anna.commit().delete(path("tasks/3-deleted"), Precondition::Any)).await;

    for prefix in ["", "a", "a/", "a/b", "a_", "a%", "tasks", "tasks/", "tasks/1", "tasks/3", "T", "é", "🦀", "zz"] {
        let expected: Vec<&str> = paths.iter().copied().filter(|at| at.starts_with(prefix)).collect();
        for limit in [1, 3, 19, 50] {
            let found = pages(&bert, prefix, limit, expected.len()).await;
            let found: Vec<&str> = found.iter().map(DocumentPath::as_str).collect();
            same(&format!("the listing of {prefix:?} in pages of {limit}"), &found, &expected);
        }
    }

    let after = path("tasks/15");
    let prefix = PathPrefix::new("tasks/").expect("a valid prefix");
    let listing = anna.store.list(&anna.context, &prefix, Some(&after), 10, soon()).await;
    let entries = listing.expect("a listing without trouble").entries;
    let [entry] = entries.as_slice() else { panic!("expected tasks/2 alone after tasks/15; found {entries:?}") };
    let document = bert.read("tasks/2").await.expect("what was written");
    same("the entry's path", &entry.path, &document.path);
    same("the entry's revision", &entry.revision, &document.revision);
    same("the entry's size", &entry.size, &document.content.size());
    same("the entry's kind", &entry.kind, &document.content.kind());
    same("the entry's author", &entry.author, &document.author);
    same("the entry's time", &entry.written_at, &document.written_at);
}

async fn pages(scribe: &Scribe, prefix: &str, limit: usize, expected: usize) -> Vec<DocumentPath> {
    let prefix = PathPrefix::new(prefix).expect("a valid prefix");
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = scribe.store.list(&scribe.context, &prefix, after.as_ref(), limit, soon()).await;
        let page = page.expect("a page without trouble");
        assert!(page.entries.len() <= limit, "expected at most {limit} entries; found {}", page.entries.len());
        found.extend(page.entries.iter().map(|entry| entry.path.clone()));
        assert!(found.len() <= expected, "expected {expected} entries below {prefix:?}; found {found:?} and more");
        let Some(next) = page.next else { return found };
        same("the place to go on from", &Some(&next), &found.last());
        after = Some(next);
    }
}
