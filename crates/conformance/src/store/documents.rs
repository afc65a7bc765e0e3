//! Documents, their revisions and their history.

use mutext_contract::{Content, ContextName, DocumentPath, Kind, PathPrefix, Precondition, Revision};

use super::{commit, done, path, put, read, revision, text};
use crate::{StoreFixture, context, soon};

/// 1, 2, 3, and each read says which.
pub async fn revisions_rise_from_one<F: StoreFixture>() {
    let fixture = F::open().await;
    let store = fixture.store();
    for expected in 1..=5 {
        let committed = done(&*store, &put("a", &expected.to_string(), Precondition::Any)).await;
        assert_eq!(revision(&committed), Revision(expected));
        let document = read(&*store, "a").await.unwrap_or_else(|| panic!("it was just written"));
        assert_eq!((document.revision, document.content.as_str()), (Revision(expected), &*expected.to_string()));
        assert_eq!(document.author.as_str(), "writer");
    }
}

/// What was never written is not there.
pub async fn absent_means_absent<F: StoreFixture>() {
    let fixture = F::open().await;
    assert_eq!(read(&*fixture.store(), "a").await, None);
    done(&*fixture.store(), &put("a/b", "x", Precondition::Absent)).await;
    assert_eq!(read(&*fixture.store(), "a").await, None, "a folder is no document");
}

/// Text and JSON come back as they were written.
pub async fn content_survives_byte_for_byte<F: StoreFixture>() {
    let fixture = F::open().await;
    let store = fixture.store();
    let large = "ä".repeat(512 * 1024);
    for text in ["", "\n", "tabs\tand\r\nbreaks", "emoji 🦀 and \u{fffd}", "nul \0 inside", &large] {
        done(&*store, &put("t", text, Precondition::Any)).await;
        let found = read(&*store, "t").await.unwrap_or_else(|| panic!("it was just written"));
        assert!(found.content.as_str() == text && found.content.kind() == Kind::Text, "{} bytes", text.len());
    }
    let json = "{ \"b\": 1.10,\n  \"a\": 123456789012345678901234567890 }";
    let content = Content::parse_json(json).unwrap_or_else(|error| panic!("{error}"));
    done(&*store, &commit().put(path("j"), content.clone(), Precondition::Any)).await;
    assert_eq!(read(&*store, "j").await.map(|document| document.content), Some(content));
}

/// It is gone, its number is spent, and a new one goes on from there.
pub async fn a_deleted_document_is_absent_and_its_revision_is_never_used_again<F: StoreFixture>() {
    let fixture = F::open().await;
    let store = fixture.store();
    done(&*store, &put("a", "x", Precondition::Absent)).await;
    let deleted = done(&*store, &commit().delete(path("a"), Precondition::Exact(Revision(1)))).await;
    assert_eq!(revision(&deleted), Revision(2));
    assert_eq!(read(&*store, "a").await, None);
    let again = done(&*store, &put("a", "y", Precondition::Absent)).await;
    assert_eq!(revision(&again), Revision(3));
}

/// Newest first, in pages, with authors, messages and deletions.
pub async fn history_keeps_every_revision<F: StoreFixture>() {
    let fixture = F::open().await;
    let store = fixture.store();
    for text in ["one", "two"] {
        done(&*store, &put("a", text, Precondition::Any).message(format!("writes {text}"))).await;
    }
    done(&*store, &commit().delete(path("a"), Precondition::Any)).await;
    done(&*store, &put("a", "four", Precondition::Absent)).await;
    let page = |before, limit| {
        let store = store.clone();
        async move {
            let page = store.history(&context(), &path("a"), before, limit, soon()).await;
            page.unwrap_or_else(|error| panic!("{error}"))
        }
    };
    let first = page(None, 3).await;
    let texts: Vec<_> = first.iter().map(|past| past.content.as_ref().map(Content::as_str)).collect();
    assert_eq!(texts, [Some("four"), None, Some("two")]);
    assert_eq!(first[2].message.as_deref(), Some("writes two"));
    let rest = page(Some(first[2].revision), 10).await;
    assert_eq!(rest.len(), 1);
    assert_eq!((rest[0].revision, rest[0].author.as_str()), (Revision(1), "writer"));
}

/// In the order of the paths' bytes, nothing twice and nothing left out.
pub async fn listing_by_prefix_goes_in_pages<F: StoreFixture>() {
    let fixture = F::open().await;
    let store = fixture.store();
    let mut paths = ["tasks", "tasks/1", "tasks/10", "tasks/2", "tasks-old", "Tasks/1", "tasks/ä", "tasks/%", "z"];
    let all = paths.iter().fold(commit(), |commit, at| commit.put(path(at), Content::text(*at), Precondition::Absent));
    done(&*store, &all).await;
    done(&*store, &put("tasks/gone", "x", Precondition::Absent)).await;
    done(&*store, &commit().delete(path("tasks/gone"), Precondition::Any)).await;
    paths.sort_unstable();
    for prefix in ["", "tasks", "tasks/", "tasks/1", "tasks/%", "none"] {
        let prefix = PathPrefix::new(prefix).unwrap_or_else(|error| panic!("{error}"));
        let mut found: Vec<DocumentPath> = Vec::new();
        loop {
            let page = store.list(&context(), &prefix, found.last(), 2, soon()).await;
            let page = page.unwrap_or_else(|error| panic!("{error}"));
            assert!(page.entries.len() <= 2);
            assert!(page.entries.iter().all(|entry| entry.size == entry.path.as_str().len()));
            found.extend(page.entries.into_iter().map(|entry| entry.path));
            if page.next.is_none() {
                break;
            }
        }
        let expected = paths.iter().filter(|path| path.starts_with(prefix.as_str()));
        assert_eq!(found.iter().map(DocumentPath::as_str).collect::<Vec<_>>(), expected.copied().collect::<Vec<_>>());
    }
}

/// The same path of another context is another document.
pub async fn contexts_do_not_share_documents<F: StoreFixture>() {
    let fixture = F::open().await;
    done(&*fixture.store(), &put("a", "x", Precondition::Absent)).await;
    let other = ContextName::new("elsewhere").unwrap_or_else(|error| panic!("{error}"));
    let found = fixture.store().read(&other, &path("a"), soon()).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(found, None);
}

/// At once, and after the first client has gone.
pub async fn what_was_committed_is_there_for_another_client<F: StoreFixture>() {
    let fixture = F::open().await;
    let second = fixture.second().await;
    done(&*fixture.store(), &put("a", "x", Precondition::Absent)).await;
    assert_eq!(text(&*second, "a").await.as_deref(), Some("x"));
    done(&*second, &put("a", "y", Precondition::Exact(Revision(1)))).await;
    drop(second);
    assert_eq!(text(&*fixture.second().await, "a").await.as_deref(), Some("y"));
}
