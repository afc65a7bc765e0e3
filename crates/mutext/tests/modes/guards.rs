//! Guards: clones, locks within locks, and leases that change their mode.

use std::time::{Duration, Instant};

use mutext::{Commit, Error, LockGuard, Loss, Mode, NotConverted, Precondition, Release};

use crate::common::{PROMPTLY, assert_free, eventually, poll_then_drop, until_waiting, wait};
use crate::{Place, on_each_engine};

on_each_engine! {
    the_last_clone_gives_the_lease_back
    what_a_guard_covers_it_shares
    what_is_held_already_is_refused_at_once
    a_clone_of_a_context_waits_like_anybody
    an_update_of_what_its_own_line_holds_is_refused
    updates_side_by_side_wait_for_each_other
    a_reader_becomes_a_writer_of_what_it_read
    a_writer_becomes_a_reader
    a_refused_upgrade_leaves_a_reader
    an_upgrade_that_is_dropped_leaves_nothing
    a_place_in_the_queue_can_be_seen
    what_was_revoked_writes_no_more_and_is_written_down
}

fn deadlock(outcome: Result<LockGuard, Error>) -> String {
    match outcome {
        Err(error @ Error::Deadlock { .. }) => error.to_string(),
        other => panic!("expected a deadlock; found {other:?}"),
    }
}

async fn the_last_clone_gives_the_lease_back(place: &Place) {
    let (anna, bert) = (place.agent("anna").await, place.agent("bert").await);
    let guard = anna.lock("plan").await.unwrap();
    let (inner, other) = (guard.clone(), guard.clone());
    let work = tokio::spawn(async move {
        inner.put("plan", "by the clone").await.unwrap();
        inner.release().await.unwrap()
    });
    assert_eq!(work.await.unwrap(), Release::Kept);
    assert_eq!(guard.release().await.unwrap(), Release::Kept);
    assert!(other.is_held() && bert.lock("plan").without_waiting().await.is_err());
    assert_eq!(other.get("plan").await.unwrap().unwrap().content.as_str(), "by the clone");
    assert_eq!(other.release().await.unwrap(), Release::Released);
    assert_free(&bert, "plan", "the last clone is gone").await;
}

async fn what_a_guard_covers_it_shares(place: &Place) {
    let anna = place.agent("anna").await;
    let tree = anna.lock("tasks/").await.unwrap();
    for covered in [tree.lock("tasks/17"), tree.lock("tasks"), tree.lock("tasks/17").shared()] {
        assert_eq!(covered.await.unwrap().lease().id(), tree.lease().id());
    }
    let both = tree.lock("tasks/17").and("plan").await.unwrap_err();
    assert!(matches!(both, Error::Deadlock { .. }), "a part of it is held already: {both}");
    let beside = tree.lock("plan").await.unwrap();
    assert_ne!(beside.lease().id(), tree.lease().id());
    assert_eq!(beside.lease().holder, tree.lease().holder);

    // A shared lease is not enough to write.
    let reader = anna.clone().lock("notes").shared().await.unwrap();
    assert_eq!(reader.lock("notes/1").shared().await.unwrap().lease().id(), reader.lease().id());
    assert!(deadlock(reader.lock("notes/1").await).contains("use through its guard"));
    drop((tree, beside, reader));
    assert_free(&anna.clone(), "/", "all guards are gone").await;
}

async fn what_is_held_already_is_refused_at_once(place: &Place) {
    let anna = place.agent("anna").await;
    let guard = anna.lock("tasks/").reason("re-ordering").await.unwrap();
    let asked = Instant::now();
    let said = deadlock(anna.lock("tasks/17").wait(wait(Duration::from_secs(60))).await);
    assert!(asked.elapsed() < PROMPTLY, "it waited {:?}", asked.elapsed());
    let expected = "lock on tasks/17 would deadlock: anna waits for tasks/17, and anna holds tasks (re-ordering)";
    assert!(said.starts_with(expected) && said.contains("a clone"), "{said}");
    assert!(guard.is_held());
    drop(guard);
    assert_free(&anna, "tasks/17", "what was held is given back").await;
}

async fn a_clone_of_a_context_waits_like_anybody(place: &Place) {
    let anna = place.agent("anna").await;
    let guard = anna.lock("plan").await.unwrap();
    let beside = anna.clone();
    assert_ne!(beside.holder().id, anna.holder().id);
    let waiting = tokio::spawn(async move { beside.lock("plan").wait(wait(PROMPTLY)).await.map(drop) });
    until_waiting(&anna, 1).await;
    drop(guard);
    waiting.await.unwrap().unwrap();
}

async fn an_update_of_what_its_own_line_holds_is_refused(place: &Place) {
    let anna = place.agent("anna").await;
    let guard = anna.lock("plan").await.unwrap();
    let update = anna.update("plan", |_| async { Ok::<_, Error>("x".into()) }).await;
    assert!(matches!(update, Err(Error::Deadlock { .. })), "{update:?}");
    guard.put("plan", "x").await.unwrap();
}

async fn updates_side_by_side_wait_for_each_other(place: &Place) {
    let anna = place.agent("anna").await;
    let add = async |part: &str| {
        let part = part.to_owned();
        anna.update("list", move |list| {
            let list = list.map(|list| list.content.as_str().to_owned()).unwrap_or_default();
            let grown = format!("{list}{part}");
            async move { Ok::<_, Error>(grown.into()) }
        })
        .await
        .unwrap();
    };
    tokio::join!(add("a"), add("b"), add("c"), add("d"));
    assert_eq!(anna.get("list").await.unwrap().unwrap().content.size(), 4);
}

async fn a_reader_becomes_a_writer_of_what_it_read(place: &Place) {
    let (anna, bert) = (place.agent("anna").await, place.agent("bert").await);
    anna.put("plan", "one", Precondition::Absent).await.unwrap();
    let reader = anna.lock("plan").shared().await.unwrap();
    let read = reader.get("plan").await.unwrap().unwrap();
    let (asker, document) = (bert.clone(), "plan");
    let writer = tokio::spawn(async move {
        let guard = asker.lock(document).wait(wait(PROMPTLY)).await.unwrap();
        guard.get(document).await.unwrap().unwrap().content.as_str().to_owned()
    });
    until_waiting(&bert, 1).await;
    let before = reader.token();
    let guard = reader.upgrade().await.unwrap();
    assert!(guard.token().number() > before.number());
    assert!(guard.lease().claims.iter().all(|claim| claim.mode == Mode::Exclusive));
    let written = guard.put("plan", format!("{} two", read.content.as_str())).await.unwrap();
    assert_eq!(written.0, read.revision.0 + 1);
    assert_eq!(guard.release().await.unwrap(), Release::Released);
    assert_eq!(writer.await.unwrap(), "one two");
    eventually("nobody holds anything", async || anna.locks().await.unwrap().holdings.is_empty()).await;
}

async fn a_writer_becomes_a_reader(place: &Place) {
    let (anna, bert) = (place.agent("anna").await, place.agent("bert").await);
    let writer = anna.lock("plan").await.unwrap();
    writer.put("plan", "done").await.unwrap();
    let other = bert.clone();
    let reading = tokio::spawn(async move { other.lock("plan").shared().wait(wait(PROMPTLY)).await.unwrap() });
    until_waiting(&bert, 1).await;
    let reader = writer.downgrade().await.unwrap();
    let second = reading.await.unwrap();
    assert!(reader.is_held() && second.is_held());
    assert_eq!(reader.get("plan").await.unwrap().unwrap().content.as_str(), "done");
    let refused = reader.put("plan", "more").await;
    assert!(matches!(refused, Err(Error::NotCovered { .. })), "{refused:?}");
    assert!(bert.lock("plan").without_waiting().await.is_err());
}

async fn a_refused_upgrade_leaves_a_reader(place: &Place) {
    let (anna, bert) = (place.agent("anna").await, place.agent("bert").await);
    let (own, other) = (anna.lock("plan").shared().await.unwrap(), bert.lock("plan").shared().await.unwrap());
    let clone = own.clone();
    let NotConverted { guard: own, error } = own.upgrade().await.unwrap_err();
    assert!(matches!(error, Error::GuardShared { .. }), "{error}");
    drop(clone);
    // The other reads on.
    let NotConverted { guard: own, error } = own.upgrade().await.unwrap_err();
    assert!(matches!(&error, Error::Timeout { blocked, .. } if blocked.holdings.len() == 1), "{error}");
    assert!(own.is_held());

    // Both want to write: whoever comes second is told at once, and makes way.
    let first = tokio::spawn(own.upgrade());
    until_waiting(&bert, 1).await;
    let NotConverted { guard: other, error } = other.upgrade().await.unwrap_err();
    assert!(matches!(&error, Error::Deadlock { deadlock, .. } if deadlock.cycle.len() == 2), "{error}");
    assert!(other.is_held());
    drop(other);
    assert!(first.await.unwrap().unwrap().is_held());
}

async fn an_upgrade_that_is_dropped_leaves_nothing(place: &Place) {
    let (anna, bert) = (place.agent("anna").await, place.agent("bert").await);
    for polls in [1, 2, 3, 8] {
        let own = anna.lock("plan").shared().await.unwrap();
        let other = bert.lock("plan").shared().await.unwrap();
        assert!(poll_then_drop(own.upgrade(), polls, Duration::from_millis(3)).await.is_none());
        let waiting = bert.clone();
        let next = tokio::spawn(async move { waiting.lock("plan").wait(wait(PROMPTLY)).await });
        drop(other);
        next.await.unwrap().unwrap().release().await.unwrap();
    }
    let granted = anna.lock("plan").shared().await.unwrap();
    drop(poll_then_drop(granted.upgrade(), 1, Duration::from_millis(20)).await);
    assert_free(&bert, "plan", "the upgrade was dropped").await;
}

async fn a_place_in_the_queue_can_be_seen(place: &Place) {
    let (anna, bert) = (place.agent("anna").await, place.agent("bert").await);
    let guard = anna.lock("plan").reason("rewriting").await.unwrap();
    let mut waiting = Vec::new();
    for ahead in 0..3 {
        let asker = bert.clone();
        let (told, id) = tokio::sync::oneshot::channel();
        waiting.push(tokio::spawn(async move {
            let lock = asker.lock("plan").wait(wait(PROMPTLY));
            told.send(lock.id()).unwrap();
            lock.await.map(drop)
        }));
        let id = id.await.unwrap();
        until_waiting(&bert, ahead + 1).await;
        let place = anna.position(id).await.unwrap().unwrap();
        assert_eq!(place.ahead, ahead);
        assert_eq!(place.holdings[0].reason.as_deref(), Some("rewriting"));
    }
    assert_eq!(anna.position(guard.lease().id()).await.unwrap(), None, "what is held does not queue");
    drop(guard);
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
}

async fn what_was_revoked_writes_no_more_and_is_written_down(place: &Place) {
    let (anna, operator) = (place.agent("anna").await, place.agent("operator").await);
    let guard = anna.lock("tasks").await.unwrap();
    guard.put("tasks/1", "one").await.unwrap();
    let (lease, fence) = (guard.lease().id(), guard.fence());
    assert_eq!(operator.revoke(lease, "it hangs").await.unwrap(), Release::Released);
    // Nobody has held the lock since, and the revision is right: its fence is refused all the same.
    let late = Commit::new(anna.agent().clone()).put("tasks/1".try_into().unwrap(), "two".into(), Precondition::Any);
    for refused in [anna.commit(late.fenced_by(fence.clone())).await.err(), guard.put("tasks/1", "two").await.err()] {
        let Some(Error::LeaseLost { loss: Loss::Revoked { by, reason }, .. }) = refused else {
            panic!("expected the revocation to be told; found {refused:?}");
        };
        assert_eq!((by.as_str(), reason.as_str()), ("operator", "it hangs"));
    }
    let read = anna.get_under("tasks/1", &fence).await;
    assert!(matches!(read, Err(Error::LeaseLost { loss: Loss::Revoked { .. }, .. })), "{read:?}");
    assert_eq!(anna.get("tasks/1").await.unwrap().unwrap().content.as_str(), "one");

    assert_eq!(operator.revoke(mutext::LeaseId::random(), "nobody").await.unwrap(), Release::NotHeld);
    let listed = anna.revocations(9).await.unwrap();
    let [record] = listed.as_slice() else { panic!("expected one; found {listed:?}") };
    let (holder, by) = (record.revocation.holder.as_ref().unwrap(), &record.revocation.by);
    assert_eq!((holder.as_str(), by.as_str(), record.revocation.lease), ("anna", "operator", lease));
    assert_eq!(record.revocation.claims, guard.lease().claims);
}
