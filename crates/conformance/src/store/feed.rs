//! The feed of commits: every one once, in order, without gaps.

use std::sync::Arc;
use std::time::Duration;

use mutext_contract::{Cursor, Deadline, Precondition};
use tokio::time::Instant;

use super::{cursors, done, put};
use crate::{StoreFixture, context};

const WRITERS: usize = 4;
const COMMITS: usize = 25;

/// Also for a reader that pages along while several write.
pub async fn the_feed_has_every_commit_once_in_order_without_gaps<F: StoreFixture>() {
    let fixture = F::open().await;
    let clients = [fixture.store(), fixture.second().await];
    let mut tasks = Vec::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&clients[writer % 2]);
        tasks.push(tokio::spawn(async move {
            let mut made = Vec::new();
            for _ in 0..COMMITS {
                made.push(done(&*store, &put(&format!("w{writer}"), "x", Precondition::Any)).await.cursor);
            }
            made
        }));
    }
    let (mut seen, mut after) = (Vec::new(), Cursor::START);
    let began = Instant::now();
    while seen.len() < WRITERS * COMMITS {
        assert!(began.elapsed() < Duration::from_secs(20), "only {} commits in the feed", seen.len());
        let page = clients[1].changes(&context(), after, 7, Deadline::after(Duration::from_millis(200))).await;
        for record in page.unwrap_or_else(|error| panic!("{error}")) {
            assert!(record.cursor > after, "{:?} does not come after {after:?}", record.cursor);
            after = record.cursor;
            seen.push(record);
        }
    }
    let mut made = Vec::new();
    for task in tasks {
        made.extend(task.await.unwrap_or_else(|error| panic!("{error}")));
    }
    made.sort_unstable();
    assert_eq!(seen.iter().map(|record| record.cursor).collect::<Vec<_>>(), made);
    for writer in 0..WRITERS {
        let at = format!("w{writer}");
        let of_writer = seen.iter().flat_map(|record| &record.changes).filter(|(path, ..)| path.as_str() == at);
        let revisions: Vec<u64> = of_writer.map(|(_, revision, _)| revision.0).collect();
        assert_eq!(revisions, (1..=COMMITS as u64).collect::<Vec<_>>());
    }
    assert!(cursors(&*clients[0], after, 10).await.is_empty());
}

/// Until somebody commits, or its deadline.
pub async fn a_reader_of_the_feed_waits_for_the_next_commit<F: StoreFixture>() {
    let fixture = F::open().await;
    let (store, second) = (fixture.store(), fixture.second().await);
    let asked = Instant::now();
    let page = store.changes(&context(), Cursor::START, 10, Deadline::after(Duration::from_millis(150))).await;
    assert!(page.is_ok_and(|page| page.is_empty()) && asked.elapsed() >= Duration::from_millis(150));
    let reader = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            store.changes(&context(), Cursor::START, 10, Deadline::after(Duration::from_secs(10))).await
        })
    };
    crate::pause(100).await;
    let committed = done(&*second, &put("a", "x", Precondition::Absent).message("why")).await;
    let told = Instant::now();
    let page = reader.await.unwrap_or_else(|error| panic!("{error}")).unwrap_or_else(|error| panic!("{error}"));
    assert!(told.elapsed() < Duration::from_secs(2), "{:?}", told.elapsed());
    assert_eq!((page.len(), page[0].cursor, page[0].message.as_deref()), (1, committed.cursor, Some("why")));
}
