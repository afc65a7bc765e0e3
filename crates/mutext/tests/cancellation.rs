//! Dropping any future at any await: no lock outlives it, and no answer of a commit that happened is lost.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use common::{PROMPTLY, Store, agent_of, assert_free, eventually, poll_then_drop, until_waiting, wait, waiters};
use mutext::{Commit, Content, Context, Document, Error, Precondition, Strategy, Ttl, UpdateOptions};

/// Short enough to stop a future in the middle, varied so that it is not always the same middle.
fn pause(round: u32) -> Duration {
    Duration::from_micros(u64::from(round * 37 % 400))
}

/// Fewer polls than `most`, from none at all; every tenth time as many as it takes.
fn polls(round: u32, most: u32) -> u32 {
    if round % 10 == 9 { 1_000_000 } else { round * 7 % most }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acquire_dropped_after_any_number_of_polls_leaves_the_lock_free() {
    let store = Store::new();
    let (dropper, other) = (store.agent("dropper").await, store.agent("other").await);
    let (mut pending, mut granted) = (0, 0);
    for round in 0..120 {
        match poll_then_drop(dropper.lock("plan").acquire(), polls(round, 6), pause(round)).await {
            Some(guard) => {
                drop(guard.unwrap());
                granted += 1;
            }
            None => pending += 1,
        }
        assert_free(&other, "plan", &format!("round {round}")).await;
    }
    assert!(pending >= 15 && granted >= 12, "the drops were too early or too late: {pending} and {granted}");
    assert!(other.locks().await.unwrap().holdings.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acquire_dropped_while_it_queues_leaves_the_queue() {
    let store = Store::new();
    let (holder, dropper, behind) =
        (store.agent("holder").await, store.agent("dropper").await, store.agent("behind").await);
    let guard = holder.lock("plan").await.unwrap();
    let mut queued = 0;
    for round in 0..40 {
        let lock = dropper.lock("plan").wait(wait(Duration::from_secs(60)));
        assert!(poll_then_drop(lock.acquire(), 1 + round % 6, 4 * pause(round)).await.is_none());
        queued += waiters(&holder).await;
    }
    assert!(queued > 0, "no drop met a request in the queue");
    until_waiting(&holder, 0).await;

    // One more that certainly queues, and another behind it: the drop must not leave a hole that holds it up.
    let mut first = Box::pin(dropper.lock("plan").wait(wait(Duration::from_secs(60))).acquire());
    poll_once(first.as_mut()).await;
    until_waiting(&holder, 1).await;
    let second = tokio::spawn(async move { behind.lock("plan").wait(wait(Duration::from_secs(60))).await });
    until_waiting(&holder, 2).await;
    drop(first);
    until_waiting(&holder, 1).await;
    let start = Instant::now();
    guard.release().await.unwrap();
    second.await.unwrap().unwrap().release().await.unwrap();
    assert!(start.elapsed() < PROMPTLY, "the one behind waited for {:?}", start.elapsed());
}

/// One poll whose answer must be "not yet".
async fn poll_once<F: Future>(mut future: Pin<&mut F>) {
    poll_fn(|task| {
        assert!(future.as_mut().poll(task).is_pending(), "it was ready at once");
        Poll::Ready(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_that_nobody_takes_from_the_hand_any_more_passes_on() {
    let store = Store::new();
    let (holder, dropper, next) =
        (store.agent("holder").await, store.agent("dropper").await, store.agent("next").await);
    for round in 0..20 {
        let guard = holder.lock("plan").await.unwrap();
        let mut waiting = Box::pin(dropper.lock("plan").wait(wait(Duration::from_secs(60))).acquire());
        poll_once(waiting.as_mut()).await;
        until_waiting(&holder, 1).await;
        // The releaser's transaction grants to the waiter, which is never polled again: it does not know.
        guard.release().await.unwrap();
        let table = holder.locks().await.unwrap();
        assert_eq!(table.holdings.len(), 1, "round {round}: not handed over");
        assert_eq!(table.holdings[0].holder.agent.as_str(), "dropper");
        drop(waiting);
        let start = Instant::now();
        next.lock("plan").wait(wait(Duration::from_secs(5))).await.unwrap().release().await.unwrap();
        // An unconfirmed grant ends by itself after two seconds; given back, it must not last nearly so long.
        assert!(start.elapsed() < Duration::from_secs(1), "round {round}: passed on after {:?}", start.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_aborted_while_its_grant_is_on_the_way_leaves_the_lock_free() {
    let store = Store::new();
    let (holder, dropper, next) =
        (store.agent("holder").await, store.agent("dropper").await, store.agent("next").await);
    let (mut aborted, mut granted) = (0, 0);
    for round in 0..200 {
        let guard = holder.lock("plan").await.unwrap();
        let asker = dropper.clone();
        let task = tokio::spawn(async move { asker.lock("plan").wait(wait(Duration::from_secs(60))).await.map(drop) });
        until_waiting(&holder, 1).await;
        drop(guard);
        std::thread::sleep(Duration::from_micros(round * 20 % 2000));
        task.abort();
        match task.await {
            Ok(outcome) => {
                outcome.unwrap();
                granted += 1;
            }
            Err(_) => aborted += 1,
        }
        let start = Instant::now();
        next.lock("plan").wait(wait(Duration::from_secs(5))).await.unwrap().release().await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(1), "round {round}: free after {:?}", start.elapsed());
    }
    assert!(aborted > 0, "every task was faster than its abort: {granted} were granted");
    assert_eq!((waiters(&holder).await, holder.locks().await.unwrap().holdings.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_dropped_at_any_await_releases_all_the_same() {
    let store = Store::new();
    let (holder, other) = (store.agent("holder").await, store.agent("other").await);
    let (mut dropped, mut answered) = (0, 0);
    for round in 0..60 {
        let guard = holder.lock("plan").wait(wait(PROMPTLY)).await.unwrap();
        match poll_then_drop(guard.release(), polls(round, 4), pause(round)).await {
            Some(outcome) => {
                outcome.unwrap();
                answered += 1;
            }
            None => dropped += 1,
        }
        assert_free(&other, "plan", &format!("round {round}")).await;
    }
    assert!(dropped >= 10 && answered >= 6, "the drops were too early or too late: {dropped} and {answered}");
}

#[tokio::test]
async fn a_guard_dropped_on_a_thread_without_a_runtime_is_released() {
    let store = Store::new();
    let (holder, other) = (store.agent("holder").await, store.agent("other").await);
    let guard = holder.lock("plan").await.unwrap();
    std::thread::spawn(move || drop(guard)).join().unwrap();
    assert_free(&other, "plan", "dropped on a plain thread").await;
}

#[test]
fn a_guard_dropped_after_its_runtime_has_shut_down_is_released() {
    let store = Store::new();
    let first = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let holder = first.block_on(store.agent("holder"));
    let guard = first.block_on(holder.lock("plan").acquire()).unwrap();
    first.shutdown_timeout(Duration::from_secs(5));

    let second = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let other = second.block_on(store.agent("other"));
    let refused = second.block_on(other.lock("plan").without_waiting().acquire());
    assert!(matches!(refused, Err(Error::Timeout { .. })), "the lease ended with its runtime: {refused:?}");
    drop(guard);
    second.block_on(assert_free(&other, "plan", "dropped after the runtime"));
}

#[test]
fn a_runtime_that_shuts_down_takes_its_waiting_tasks_out_of_the_queue() {
    let store = Store::new();
    let lasting = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let holder = lasting.block_on(store.agent("holder"));
    let guard = lasting.block_on(holder.lock("plan").acquire()).unwrap();

    let ending = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let waiter = ending.block_on(store.agent("waiter"));
    let keeps_the_engine = waiter.clone();
    ending.spawn(async move { waiter.lock("plan").wait(wait(Duration::from_secs(60))).await.map(drop) });
    lasting.block_on(until_waiting(&holder, 1));
    ending.shutdown_timeout(Duration::from_secs(5));
    lasting.block_on(until_waiting(&holder, 0));
    lasting.block_on(guard.release()).unwrap();
    lasting.block_on(assert_free(&holder, "plan", "after the runtime"));
    drop(keeps_the_engine);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finish_waits_until_every_dropped_guard_is_given_back() {
    let store = Store::new();
    let mutext = store.open().await;
    let (holder, other) = (agent_of(&mutext, "holder"), store.agent("other").await);
    for _ in 0..20 {
        drop(holder.lock("plan").and("board").await.unwrap());
        mutext.finish().await;
        other.lock("plan").and("board").without_waiting().await.unwrap().release().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opening_that_is_dropped_with_all_it_holds_gives_it_back_and_leaves_no_socket() {
    let store = Store::new();
    let other = store.agent("other").await;
    let sockets = || std::fs::read_dir(store.path().join("wake")).unwrap().count();
    assert_eq!(sockets(), 1);
    for round in 0..10 {
        let dropper = store.agent("dropper").await;
        let mut waiting = Box::pin(dropper.lock("plan").acquire());
        if round % 2 == 0 {
            drop(waiting.await.unwrap());
        } else {
            // Polled once, it may have its grant, or be on the way to it.
            drop(poll_fn(|task| Poll::Ready(waiting.as_mut().poll(task))).await);
            drop(waiting);
        }
        drop(dropper);
        assert_free(&other, "plan", &format!("round {round}")).await;
    }
    eventually("only the other's socket is left", async || sockets() == 1).await;
}

fn intention(round: u32, before: Option<&Document>) -> Commit {
    Commit::new("writer".try_into().unwrap())
        .put("plan".try_into().unwrap(), format!("plan {round}").into(), Precondition::unchanged(before))
        .key(format!("intention-{round}").try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_dropped_half_way_and_tried_again_happens_once_and_tells_its_first_answer() {
    let store = Store::new();
    let writer = store.agent("writer").await;
    let (mut had_happened, mut had_not) = (0, 0);
    for round in 0..120 {
        let commit = intention(round, writer.get("plan").await.unwrap().as_ref());
        // Not polled at all, it has not even begun; polled once, it is on its way, whoever listens.
        let told = poll_then_drop(writer.commit(commit.clone()), polls(round, 4), pause(round)).await;
        let retried = writer.commit(commit.clone()).await.unwrap();
        let again = writer.commit(commit).await.unwrap();
        assert!(again.replayed, "round {round}");
        assert_eq!((retried.cursor, &retried.revisions), (again.cursor, &again.revisions), "round {round}");
        if let Some(told) = told.transpose().unwrap() {
            assert_eq!((told.cursor, &told.revisions), (again.cursor, &again.revisions), "round {round}");
            assert!(!told.replayed && retried.replayed, "round {round}");
        }
        if retried.replayed {
            had_happened += 1;
        } else {
            had_not += 1;
        }
        let plan = writer.get("plan").await.unwrap().unwrap();
        assert_eq!(plan.revision.0, u64::from(round) + 1, "it happened twice, or not at all");
        assert_eq!(plan.content.as_str(), format!("plan {round}"));
    }
    assert!(had_happened >= 60 && had_not >= 20, "{had_happened} had happened, {had_not} had not");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_dropped_half_way_happens_whole_or_not_at_all() {
    let store = Store::new();
    let writer = store.agent("writer").await;
    let (mut happened, mut not) = (0, 0);
    for round in 0..80 {
        let before = writer.get("plan").await.unwrap();
        let revision = before.as_ref().map_or(0, |plan| plan.revision.0);
        let text = format!("plan {round} ").repeat(2000);
        let put = writer.put("plan", text.clone(), Precondition::unchanged(before.as_ref()));
        let told = poll_then_drop(put, polls(round, 3), pause(round)).await;
        // A write that queues behind it: once that is answered, the dropped one has happened or never will.
        writer.put("other", "x", Precondition::Any).await.unwrap();
        let after = writer.get("plan").await.unwrap();
        if let Some(told) = told {
            assert_eq!(after.as_ref().unwrap().revision, told.unwrap());
        }
        if after == before {
            not += 1;
        } else {
            let after = after.unwrap();
            assert_eq!((after.revision.0, after.content.as_str()), (revision + 1, text.as_str()));
            happened += 1;
        }
    }
    assert!(happened >= 40 && not >= 15, "{happened} happened, {not} did not");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_dropped_half_way_cost_nothing() {
    let store = Store::new();
    let reader = store.agent("reader").await;
    reader.put("plan", "1", Precondition::Absent).await.unwrap();
    let guard = reader.lock("plan").await.unwrap();
    for round in 0..300 {
        poll_then_drop(reader.get("plan"), round % 3, pause(round) / 8).await;
        poll_then_drop(guard.get("plan"), round % 3, pause(round) / 8).await;
    }
    assert_eq!(reader.get("plan").await.unwrap().unwrap().content.as_str(), "1");
    assert_eq!(guard.get("plan").await.unwrap().unwrap().content.as_str(), "1");
    guard.put("plan", "2").await.unwrap();
    assert!(guard.is_held());
}

fn ids(document: Option<&Document>) -> Vec<u32> {
    document.map(|document| document.content.parse().unwrap()).unwrap_or_default()
}

/// Appends each of 0..200 to a list by an update that is dropped at some point; none that was acknowledged may be
/// missing, and none may be there twice.
async fn updates_dropped_at_random_points(strategy: Strategy) {
    let store = Store::new();
    let (writer, other) = (store.agent("writer").await, store.agent("other").await);
    let options = UpdateOptions { strategy, ..writer.update_options() };
    let mut acknowledged = HashSet::new();
    let mut dropped = 0;
    for id in 0..200 {
        let append = |context: &Context| {
            let (context, options) = (context.clone(), options.clone());
            async move {
                let change = async |list: Option<Document>| {
                    let mut ids = ids(list.as_ref());
                    ids.push(id);
                    Content::json(&ids)
                };
                context.update_with("list", &options, change).await
            }
        };
        match poll_then_drop(append(&writer), polls(id, 9), pause(id) / 4).await {
            Some(updated) => {
                updated.unwrap();
                acknowledged.insert(id);
            }
            None => dropped += 1,
        }
    }
    // Queues behind all that is still on its way.
    writer.put("other", "x", Precondition::Any).await.unwrap();
    assert_free(&other, "list", "after the last update").await;
    let list = other.get("list").await.unwrap().unwrap();
    let all = ids(Some(&list));
    let present: HashSet<u32> = all.iter().copied().collect();
    assert_eq!(present.len(), all.len(), "an update happened twice: {all:?}");
    assert!(acknowledged.is_subset(&present), "acknowledged and missing: {:?}", acknowledged.difference(&present));
    assert_eq!(list.revision.0, all.len() as u64, "a revision was written over");
    assert!(acknowledged.len() >= 20 && dropped >= 20, "{} acknowledged, {dropped} dropped", acknowledged.len());
    eventually("nothing is held", async || other.locks().await.unwrap().holdings.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_under_a_lease_dropped_at_random_points_lose_nothing_and_free_the_lock() {
    let strategy = Strategy::Lease { ttl: Ttl::DEFAULT, wait: wait(PROMPTLY) };
    updates_dropped_at_random_points(strategy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_by_compare_and_set_dropped_at_random_points_lose_nothing() {
    updates_dropped_at_random_points(Strategy::CompareAndSet).await;
}
