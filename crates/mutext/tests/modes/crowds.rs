//! Many readers and one writer: neither side starves the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mutext::Context;

use crate::common::wait;
use crate::{Place, on_each_engine};

on_each_engine! {
    a_writer_waits_for_no_reader_that_came_after_it
}

const READERS: usize = 200;
/// So many writes are to be seen in the queue, in at most so many tries: on a busy machine whoever looks may look when
/// a write has been served already.
const WRITES: usize = 6;
const TRIES: usize = 200;
const PATIENCE: Duration = Duration::from_secs(60);

/// When a reader asked, and the number of its grant.
type Reading = (Instant, u64);

async fn read_on(context: Context, is_over: Arc<AtomicBool>) -> Vec<Reading> {
    let mut readings = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let guard = context.lock("board").shared().wait(wait(PATIENCE)).await.unwrap();
        readings.push((asked, guard.token().counter));
        tokio::time::sleep(Duration::from_millis(20)).await;
        guard.release().await.unwrap();
    }
    readings
}

#[expect(clippy::print_stderr, reason = "what was measured")]
async fn a_writer_waits_for_no_reader_that_came_after_it(place: &Place) {
    let crowd = place.agent("reader").await;
    let is_over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..READERS).map(|_| tokio::spawn(read_on(crowd.clone(), Arc::clone(&is_over)))).collect();
    let (writer, observer) = (place.agent("writer").await, place.agent("observer").await);
    let mut writes = Vec::new();
    for _ in 0..TRIES {
        if writes.len() == WRITES {
            break;
        }
        let lock = writer.lock("board").wait(wait(PATIENCE));
        let (id, observer) = (lock.id(), observer.clone());
        // From when on it certainly queued.
        let queued = tokio::spawn(async move {
            while observer.position(id).await.unwrap().is_none() {}
            Instant::now()
        });
        let asked = Instant::now();
        let guard = lock.await.unwrap();
        let (waited, token) = (asked.elapsed(), guard.token().counter);
        if queued.is_finished() {
            writes.push((queued.await.unwrap(), waited, token));
        } else {
            queued.abort();
        }
        guard.release().await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    is_over.store(true, Ordering::Relaxed);
    let mut readings = Vec::new();
    for reader in readers {
        let own = reader.await.unwrap();
        assert!(!own.is_empty(), "a reader was starved");
        readings.extend(own);
    }
    let longest = writes.iter().map(|(_, waited, _)| *waited).max().unwrap_or_default();
    eprintln!("{} reads, {} writes that queued, none longer than {longest:.1?}", readings.len(), writes.len());
    assert_eq!(writes.len(), WRITES, "the writer is to find readers in its way");
    for (queued, _, token) in writes {
        let passed = readings.iter().filter(|(asked, number)| *asked > queued && *number < token).count();
        assert_eq!(passed, 0, "readers that came after the writer were served before it");
    }
}
