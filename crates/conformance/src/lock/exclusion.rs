//! The property that a lock is for, under contention.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::LockFixture;
use crate::support::{Asker, LONG, LONG_TTL, same};

const CONTENDERS: usize = 30;
const ROUNDS: usize = 3;

/// Thirty contenders on two clients take the same lock again and again: never two at once, all are served, and the
/// tokens grow in the order in which they were inside.
pub async fn thirty_contenders_never_overlap(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    let inside = Arc::new(AtomicUsize::new(0));
    let tokens: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
    let mut tasks = Vec::new();
    for number in 0..CONTENDERS {
        let asker = if number % 2 == 0 { anna.beside("even") } else { bert.beside("odd") };
        let (inside, tokens) = (Arc::clone(&inside), Arc::clone(&tokens));
        tasks.push(tokio::spawn(async move {
            for _ in 0..ROUNDS {
                let lease = asker.granted(&asker.request("plan.md", LONG_TTL), LONG).await.lease;
                let others = inside.fetch_add(1, Ordering::SeqCst);
                assert_eq!(others, 0, "expected nobody else to hold the lock; found {others}");
                tokens.lock().expect("no contender panics in here").push(lease.token.number());
                // Long enough for another to walk in, if one could.
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                inside.fetch_sub(1, Ordering::SeqCst);
                asker.release(lease.id()).await;
            }
        }));
    }
    for task in tasks {
        task.await.expect("no contender meets another");
    }
    let found = tokens.lock().expect("no contender panics in here").clone();
    same("how often the lock was held", &found.len(), &(CONTENDERS * ROUNDS));
    let mut rising = found.clone();
    rising.sort_unstable();
    rising.dedup();
    same("the tokens in the order of their holders", &found, &rising);
}
