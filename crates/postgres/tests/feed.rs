//! The feed when commits overlap, and when notices are lost.

#![expect(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mutext_contract::{CommitRecord, Cursor, Deadline, DocumentStore, Precondition};
use mutext_postgres::PostgresStore;
use tokio::time::{Instant, sleep};

use crate::support::{committed, context, fresh_schema, opened, put, shared};

const WRITERS: usize = 16;
const COMMITS_EACH: usize = 15;

async fn read_along(store: Arc<PostgresStore>, ended: Arc<AtomicBool>) -> Vec<CommitRecord> {
    let (mut records, mut cursor) = (Vec::<CommitRecord>::new(), Cursor::START);
    loop {
        let last = ended.load(Ordering::SeqCst);
        let deadline = Deadline::after(Duration::from_millis(50));
        let page = store.changes(&context("board"), cursor, 5, deadline).await.unwrap().page().unwrap();
        match page.last() {
            Some(record) => cursor = record.cursor,
            None if last => return records,
            None => {}
        }
        records.extend(page);
    }
}

/// Commits that take their place and then dawdle, each for another time: later places can be seen before earlier ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_overlapping_writers_leave_no_gap() {
    let (server, schema) = (shared(), fresh_schema());
    let stores = [opened(server, &schema).await, opened(server, &schema).await];
    let dawdle = format!(
        "CREATE FUNCTION {schema}.dawdle() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_sleep(random() * 0.03); RETURN NEW; END $$;
         CREATE TRIGGER dawdle BEFORE INSERT ON {schema}.revisions FOR EACH ROW EXECUTE FUNCTION {schema}.dawdle()"
    );
    server.sql(&dawdle).unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let readers = stores.clone().map(|store| tokio::spawn(read_along(store, Arc::clone(&ended))));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = Arc::clone(&stores[writer % stores.len()]);
            tokio::spawn(async move {
                let mut cursors = Vec::new();
                for round in 0..COMMITS_EACH {
                    let at = if round % 5 == 0 { "common".to_owned() } else { format!("own/{writer}") };
                    let commit = put(&at, &format!("{writer}.{round}"), Precondition::Any);
                    cursors.push(committed(&*store, &context("board"), &commit).await.cursor);
                }
                assert!(cursors.is_sorted(), "a later commit of one writer has an earlier place");
                cursors
            })
        })
        .collect();
    let mut cursors = Vec::new();
    for writer in writers {
        cursors.extend(writer.await.unwrap());
    }
    ended.store(true, Ordering::SeqCst);
    cursors.sort();
    for reader in readers {
        let records = reader.await.unwrap();
        let seen: Vec<_> = records.iter().map(|record| record.cursor).collect();
        assert_eq!(seen, cursors, "what a reader saw along the way");
        let common = records.iter().flat_map(|record| &record.changes).filter(|(at, _, _)| at.as_str() == "common");
        let revisions: Vec<u64> = common.map(|(_, revision, _)| revision.0).collect();
        let expected: Vec<u64> = (1..=revisions.len() as u64).collect();
        assert_eq!(revisions, expected, "the order in which the common document changed");
    }
}

/// How long after a commit of `writer` a waiter on `reader` has it.
async fn delay(
    reader: &Arc<PostgresStore>,
    writer: &PostgresStore,
    cursor: &mut Cursor,
    disturb: impl FnOnce(),
) -> Duration {
    let (waiter, after) = (Arc::clone(reader), *cursor);
    let waiting = tokio::spawn(async move {
        let page = waiter.changes(&context("board"), after, 9, Deadline::after(Duration::from_secs(20))).await;
        (page.unwrap().page().unwrap(), Instant::now())
    });
    sleep(Duration::from_millis(300)).await;
    disturb();
    let made = committed(writer, &context("board"), &put("plan.md", &format!("after {}", cursor.0), Precondition::Any))
        .await
        .cursor;
    let begun = Instant::now();
    let (page, seen) = waiting.await.unwrap();
    assert_eq!(page.iter().map(|record| record.cursor).collect::<Vec<_>>(), [made]);
    *cursor = made;
    seen.saturating_duration_since(begun)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_is_told_of_another_process_and_finds_out_where_it_is_not() {
    let (server, schema) = (shared(), fresh_schema());
    let (reader, writer) = (opened(server, &schema).await, opened(server, &schema).await);
    let mut cursor = Cursor::START;
    let mut told = Vec::new();
    for _ in 0..5 {
        told.push(delay(&reader, &writer, &mut cursor, || {}).await);
    }
    told.sort();
    println!("told after {told:?}");
    // Looking alone would take half a second in the middle.
    assert!(told[2] < Duration::from_millis(200), "expected a waiter to be told; it took {told:?}");

    let end_listeners =
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'LISTEN \"mutext/test_%'";
    let deaf =
        delay(&reader, &writer, &mut cursor, || assert_ne!(server.sql(end_listeners).unwrap().trim(), "0")).await;
    assert!(deaf < Duration::from_secs(3), "expected it to look for itself; it took {deaf:?}");
    sleep(Duration::from_millis(500)).await;
    let again = delay(&reader, &writer, &mut cursor, || {}).await;
    assert!(again < Duration::from_millis(500), "expected it to listen again; it took {again:?}");
}
