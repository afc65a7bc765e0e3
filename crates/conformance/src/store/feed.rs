//! The feed of commits: every one, once, in order; and waiting for the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mutext_contract::{CommitRecord, Committed, Content, Cursor, Deadline, DocumentPath, Precondition, Revision};
use tokio::time::Instant;

use crate::StoreFixture;
use crate::support::{AT_ONCE, LONG, Scribe, path, same};

const COMMITS_EACH: usize = 20;

/// One writer's commits: a document of its own, one that all share, and now and then a deletion.
async fn write(scribe: Scribe, number: usize) -> Vec<Committed> {
    let several = scribe.store.capabilities().several_documents;
    let mut committed = Vec::new();
    for round in 0..COMMITS_EACH {
        let own = format!("own/{number}");
        let mut commit = scribe.commit().message(format!("{number}: {round}"));
        commit = if round % 5 == 4 {
            commit.delete(path(&own), Precondition::Any)
        } else {
            commit.put(path(&own), Content::text(format!("{round}")), Precondition::Any)
        };
        if several && round % 2 == 0 {
            commit = commit.put(path("common"), Content::text(format!("{number}.{round}")), Precondition::Any);
        }
        committed.push(scribe.committed(&commit).await);
    }
    committed
}

/// Reads pages of a few commits until the writers have ended and nothing more comes.
async fn read_along(scribe: Scribe, ended: Arc<AtomicBool>) -> Vec<CommitRecord> {
    let (mut records, mut cursor) = (Vec::<CommitRecord>::new(), Cursor::START);
    loop {
        // Looked at before the page: what was committed by then must be in it.
        let last = ended.load(Ordering::SeqCst);
        let deadline = Deadline::after(Duration::from_millis(100));
        let page = scribe.store.changes(&scribe.context, cursor, 7, deadline).await;
        let page = page.expect("a page of the feed without trouble").page().expect("nothing is forgotten");
        assert!(page.len() <= 7, "expected at most 7 commits; found {}", page.len());
        match page.last() {
            Some(record) => cursor = record.cursor,
            None if last => return records,
            None => {}
        }
        records.extend(page);
    }
}

fn sorted(mut changes: Vec<(DocumentPath, Revision, bool)>) -> Vec<(DocumentPath, Revision, bool)> {
    changes.sort();
    changes
}

/// Readers that page through the feed while four writers on two clients commit see every commit once, in the order
/// of the cursors, which is the order in which the documents changed: none comes later under a lower cursor.
pub async fn the_feed_has_every_commit_once_in_order_without_gaps(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    let ended = Arc::new(AtomicBool::new(false));
    let readers = [&anna, &bert].map(|scribe| tokio::spawn(read_along(scribe.clone(), Arc::clone(&ended))));
    let writers: Vec<_> = [&anna, &bert, &anna, &bert]
        .into_iter()
        .enumerate()
        .map(|(number, scribe)| tokio::spawn(write(scribe.clone(), number)))
        .collect();
    let mut committed = Vec::new();
    for writer in writers {
        committed.extend(writer.await.expect("the writer does not panic"));
    }
    ended.store(true, Ordering::SeqCst);
    committed.sort_by_key(|committed| committed.cursor);

    let whole = anna.feed(Cursor::START).await;
    let cursors = |records: &[CommitRecord]| records.iter().map(|record| record.cursor).collect::<Vec<_>>();
    let expected: Vec<_> = committed.iter().map(|committed| committed.cursor).collect();
    same("the cursors of the whole feed", &cursors(&whole), &expected);
    for reader in readers {
        let records = reader.await.expect("the reader does not panic");
        same("the cursors that a reader saw along the way", &cursors(&records), &expected);
        same("the commits that it saw", &records, &whole);
    }

    let mut revisions: std::collections::BTreeMap<DocumentPath, u64> = std::collections::BTreeMap::new();
    for (record, committed) in whole.iter().zip(&committed) {
        let message = record.message.clone().unwrap_or_default();
        let round: usize = message.split(": ").nth(1).and_then(|round| round.parse().ok()).expect("the message");
        let is_deletion = |at: &DocumentPath| round % 5 == 4 && at.as_str().starts_with("own/");
        let changes = committed.revisions.iter().map(|(at, revision)| (at.clone(), *revision, is_deletion(at)));
        same(&format!("the changes of {message:?}"), &sorted(record.changes.clone()), &sorted(changes.collect()));
        let author = if message.starts_with(['0', '2']) { &anna.author } else { &bert.author };
        same(&format!("the author of {message:?}"), &record.author, author);
        for (at, revision, _) in &record.changes {
            let last = revisions.entry(at.clone()).or_default();
            same(&format!("the next revision of {at} in the feed"), &revision.0, &(*last + 1));
            *last = revision.0;
        }
    }
}

/// A reader at the end of the feed gets the next commit soon after it was made, by its own client or another; and an
/// empty page at its deadline where none comes.
pub async fn a_feed_reader_waits_for_the_next_commit(fixture: &dyn StoreFixture) {
    const WAIT: Duration = Duration::from_millis(150);
    let (anna, bert) = Scribe::two(fixture).await;
    let asked = Instant::now();
    let page = anna.store.changes(&anna.context, Cursor::START, 5, Deadline::after(WAIT)).await;
    same("the page at the end of the feed", &page.expect("no trouble").page(), &Ok(Vec::new()));
    let waited = asked.elapsed();
    assert!(waited >= WAIT, "expected the reader to wait {WAIT:?}; it waited {waited:?}");
    assert!(waited < WAIT + AT_ONCE, "expected the reader to end at {WAIT:?}; it took {waited:?}");

    let mut cursor = Cursor::START;
    for (text, reader, writer) in [("x", &anna, &bert), ("y", &anna, &anna), ("z", &bert, &anna)] {
        let waiting = {
            let (reader, after) = (reader.clone(), cursor);
            tokio::spawn(async move { reader.store.changes(&reader.context, after, 5, Deadline::after(LONG)).await })
        };
        // Long enough for it to have looked once; where it has not, it finds the commit on its first look.
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(!waiting.is_finished(), "expected the reader to wait; it answered {:?}", waiting.await);
        let committed = writer.committed(&writer.put("plan.md", text, Precondition::Any)).await;
        let made = Instant::now();
        let page = waiting
            .await
            .expect("the reader does not panic")
            .expect("no trouble")
            .page()
            .expect("nothing is forgotten");
        let took = made.elapsed();
        same("the page", &page.iter().map(|record| record.cursor).collect(), &vec![committed.cursor]);
        assert!(took < AT_ONCE, "expected the commit to arrive at once; it took {took:?}");
        cursor = committed.cursor;
    }
}
