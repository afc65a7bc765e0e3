//! A lease in hand: renewed while its guard lives, honest about its loss, and never in the way of the truth.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use common::{Store, agent_of, assert_free, until_waiting, wait, waiters};
use mutext::{
    AgentName, Commit, Context, ContextName, EngineError, Error, Lease, LeaseId, LockCapabilities, LockTable, Loss,
    Mode, Mutext, OnLapse, Precondition, Release, TroubleKind, Ttl,
};
use mutext_contract::{Acquisition, Deadline, Finding, LockRequest, LockService, Renewal};
use tokio::sync::broadcast;
use tokio::time::timeout;

/// Short, and yet so long that a renewal comes in time on a machine that is slow: it is due at a third of it.
static RENEWED: LazyLock<Ttl> = LazyLock::new(|| ttl(2500));

fn ttl(millis: u64) -> Ttl {
    Ttl::new(Duration::from_millis(millis)).unwrap()
}

async fn read(context: &Context, path: &str) -> (u64, String) {
    let document = context.get(path).await.unwrap().unwrap();
    (document.revision.0, document.content.as_str().to_owned())
}

fn loss(error: Error) -> (Loss, Option<String>) {
    match error {
        Error::LeaseLost { loss, current, .. } => (loss, current.map(|document| document.content.as_str().to_owned())),
        other => panic!("not a lost lease: {other}"),
    }
}

// --- Renewal -------------------------------------------------------------------------------------------------------

#[test]
fn a_short_lease_is_kept_while_its_holder_blocks_its_own_runtime() {
    let store = Store::new();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let holders = runtime();
    let holder = holders.block_on(store.agent("holder"));
    let guard = holders.block_on(holder.lock("plan").ttl(*RENEWED).acquire()).unwrap();

    let others = runtime();
    let contender = others.block_on(store.agent("contender"));
    let contend = std::thread::spawn(move || {
        let lock = contender.lock("plan").wait(wait(2 * RENEWED.get()));
        others.block_on(lock.acquire()).map(drop)
    });
    // Blocking, as a model call without `await` would be: nothing of this runtime runs meanwhile.
    std::thread::sleep(2 * RENEWED.get() + Duration::from_millis(200));

    let refused = contend.join().unwrap();
    assert!(matches!(refused, Err(Error::Timeout { .. })), "a renewed lease was given to another: {refused:?}");
    assert!(guard.is_held());
    holders.block_on(guard.put("plan", "mine")).unwrap();
}

#[tokio::test]
async fn a_lease_ends_with_its_guard_and_not_before() {
    let store = Store::new();
    let (holder, other) = (store.agent("holder").await, store.agent("other").await);
    let guard = holder.lock("plan").ttl(*RENEWED).await.unwrap();
    let before = guard.valid_until();
    assert!(timeout(2 * RENEWED.get(), guard.lost()).await.is_err(), "lost while it was renewed");
    assert!(guard.valid_until() > before);
    assert_eq!(guard.release().await.unwrap(), Release::Released);
    let next = other.lock("plan").without_waiting().await.unwrap();
    assert_eq!(next.lease().holder.agent.as_str(), "other");
}

#[tokio::test]
async fn tokens_grow_with_every_grant_over_the_whole_context() {
    let store = Store::new();
    let (one, other) = (store.agent("one").await, store.agent("other").await);
    let mut last = (0, 0);
    for (context, resource) in [(&one, "a"), (&other, "b"), (&one, "a/b"), (&other, "a"), (&one, "/")] {
        let guard = context.lock(resource).await.unwrap();
        assert!(guard.token().number() > last, "{resource}");
        last = guard.token().number();
        guard.release().await.unwrap();
    }
}

// --- Loss ----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_revoked_holder_is_told_at_once_by_whom_and_why_and_writes_no_more() {
    let store = Store::new();
    let (holder, operator) = (store.agent("holder").await, store.agent("operator").await);
    let guard = holder.lock("plan").await.unwrap();
    guard.put("plan", "before").await.unwrap();
    let waiting = operator.clone();
    let next = tokio::spawn(async move { waiting.lock("plan").wait(wait(Duration::from_secs(60))).await });
    until_waiting(&operator, 1).await;

    let start = Instant::now();
    let revoked = operator.revoke(guard.lease().id(), "it went home").await.unwrap();
    assert_eq!(revoked, Release::Released);
    let told = timeout(Duration::from_secs(1), guard.lost()).await;
    let told = told.unwrap_or_else(|_| panic!("not told within {:?}; renewal is due after 3.3 s", start.elapsed()));
    let expected = Loss::Revoked { by: AgentName::new("operator").unwrap(), reason: "it went home".to_owned() };
    assert_eq!(told, expected);
    assert!(!guard.is_held());

    assert_eq!(loss(guard.put("plan", "after").await.unwrap_err()).0, expected);
    assert_eq!(loss(guard.delete("plan").await.unwrap_err()).0, expected);
    assert_eq!(loss(guard.get("plan").await.unwrap_err()).0, expected);
    assert_eq!(read(&holder, "plan").await, (1, "before".to_owned()));
    let text = guard.put("plan", "after").await.unwrap_err().to_string();
    assert!(text.contains("operator revoked it: it went home"), "{text}");
    next.await.unwrap().unwrap().put("plan", "next").await.unwrap();
}

#[tokio::test]
async fn a_revocation_ends_one_lease_and_no_other() {
    let store = Store::new();
    let (holder, operator) = (store.agent("holder").await, store.agent("operator").await);
    let (plan, board) = (holder.lock("plan").await.unwrap(), holder.lock("board").await.unwrap());
    operator.revoke(plan.lease().id(), "only the plan").await.unwrap();
    timeout(Duration::from_secs(1), plan.lost()).await.unwrap();
    assert!(timeout(Duration::from_millis(100), board.lost()).await.is_err());
    board.put("board", "still mine").await.unwrap();
    assert_eq!(operator.revoke(plan.lease().id(), "again").await.unwrap(), Release::NotHeld);
    // The lost guard's release says so, and harms nobody who has come since.
    let next = operator.lock("plan").await.unwrap();
    assert_eq!(plan.release().await.unwrap(), Release::NotHeld);
    assert!(next.put("plan", "next").await.is_ok());
}

// --- What a guard covers, and the revision that it read ---------------------------------------------------------------

#[tokio::test]
async fn a_document_outside_the_lease_is_not_covered_and_stays_as_it_is() {
    let store = Store::new();
    let holder = store.agent("holder").await;
    let guard = holder.lock("tasks/").await.unwrap();
    guard.put("tasks/17", "inside").await.unwrap();
    let commit = Commit::new(holder.agent().clone())
        .put("tasks/18".try_into().unwrap(), "inside".into(), Precondition::Any)
        .put("tasks-done".try_into().unwrap(), "outside".into(), Precondition::Any);
    let refused = [
        guard.put("tasks-done", "outside").await.map(drop),
        guard.get("plan").await.map(drop),
        guard.delete("plan").await.map(drop),
        guard.commit(commit).await.map(drop),
    ];
    for refused in refused {
        let Err(Error::NotCovered { resources, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(resources, ["tasks/".parse().unwrap()]);
    }
    let paths: Vec<String> = holder.list("").await.unwrap().into_iter().map(|entry| entry.path.into()).collect();
    assert_eq!(paths, ["tasks/17"]);
}

#[tokio::test]
async fn a_write_past_the_lock_meets_the_holder_as_a_conflict_and_is_not_lost() {
    let store = Store::new();
    let (holder, other) = (store.agent("holder").await, store.agent("other").await);
    let first = other.put("plan", "1", Precondition::Absent).await.unwrap();
    let guard = holder.lock("plan").await.unwrap();
    guard.get("plan").await.unwrap();
    // Compare-and-set needs no lock; it is not stopped by one.
    other.put("plan", "2", Precondition::Exact(first)).await.unwrap();
    let Err(Error::Conflict(conflict)) = guard.put("plan", "mine").await else { panic!("no conflict") };
    assert_eq!(conflict.precondition, Precondition::Exact(first));
    assert_eq!(conflict.current.unwrap().content.as_str(), "2");
    assert!(guard.is_held(), "a conflict is no loss");
    guard.get("plan").await.unwrap();
    assert_eq!(guard.put("plan", "mine").await.unwrap().0, 3);
}

#[tokio::test]
async fn a_guard_writes_again_and_again_for_the_revision_that_it_wrote_last() {
    let store = Store::new();
    let (holder, other) = (store.agent("holder").await, store.agent("other").await);
    let guard = holder.lock("plan").await.unwrap();
    assert!(guard.get("plan").await.unwrap().is_none());
    for (text, revision) in [("a", 1), ("b", 2), ("c", 3)] {
        assert_eq!(guard.put("plan", text).await.unwrap().0, revision);
    }
    assert_eq!(guard.delete("plan").await.unwrap().0, 4);
    assert!(guard.get("plan").await.unwrap().is_none());
    // It has seen that there is none: what another creates meanwhile is not written over.
    other.put("plan", "theirs", Precondition::Absent).await.unwrap();
    assert!(matches!(guard.put("plan", "mine").await, Err(Error::Conflict(_))));
    assert!(matches!(guard.delete("plan").await, Err(Error::Conflict(_))));
    assert_eq!(read(&other, "plan").await, (5, "theirs".to_owned()));
}

#[tokio::test]
async fn a_write_under_a_fence_that_was_passed_on_counts_as_the_holders() {
    let store = Store::new();
    let (holder, child) = (store.agent("holder").await, store.agent("child").await);
    let guard = holder.lock("plan").await.unwrap();
    let fence = guard.fence();
    let put = |text: &str| {
        let plan = "plan".try_into().unwrap();
        Commit::new(child.agent().clone()).put(plan, text.into(), Precondition::Any).fenced_by(fence.clone())
    };
    child.commit(put("by the child")).await.unwrap();
    assert_eq!(child.get_under("plan", &fence).await.unwrap().unwrap().content.as_str(), "by the child");
    guard.release().await.unwrap();
    let next = holder.lock("plan").await.unwrap();
    next.get("plan").await.unwrap();
    let (told, current) = loss(child.commit(put("too late")).await.unwrap_err());
    assert_eq!((told, current.as_deref()), (Loss::Superseded, Some("by the child")));
    assert_eq!(loss(child.get_under("plan", &fence).await.unwrap_err()).0, Loss::Superseded);
    assert_eq!(read(&holder, "plan").await, (1, "by the child".to_owned()));
}

// --- Leases that lapse: a service that cannot be reached for renewal -------------------------------------------------

/// The embedded engine behind a connection that can be cut for renewals, and for one release.
#[derive(Debug)]
struct Faulty {
    engine: Arc<dyn LockService>,
    cut: AtomicBool,
    /// What becomes of the next release.
    release: Mutex<NextRelease>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum NextRelease {
    #[default]
    Arrives,
    Fails,
    /// Never arrives, and is never answered.
    Hangs,
}

#[async_trait]
impl LockService for Faulty {
    fn capabilities(&self) -> LockCapabilities {
        self.engine.capabilities()
    }

    async fn acquire(&self, request: &LockRequest, deadline: Deadline) -> Result<Acquisition, EngineError> {
        self.engine.acquire(request, deadline).await
    }

    async fn renew(&self, lease: &Lease, deadline: Deadline) -> Result<Renewal, EngineError> {
        if self.cut.load(Ordering::SeqCst) {
            return Err(EngineError::new("the test's wire", TroubleKind::Unavailable, "mend it"));
        }
        self.engine.renew(lease, deadline).await
    }

    async fn release(&self, context: &ContextName, lease: LeaseId, deadline: Deadline) -> Result<Release, EngineError> {
        let next = std::mem::take(&mut *self.release.lock().unwrap());
        match next {
            NextRelease::Arrives => self.engine.release(context, lease, deadline).await,
            NextRelease::Fails => Err(EngineError::new("the test's wire", TroubleKind::Unavailable, "mend it")),
            NextRelease::Hangs => std::future::pending().await,
        }
    }

    async fn inspect(&self, context: &ContextName, deadline: Deadline) -> Result<LockTable, EngineError> {
        self.engine.inspect(context, deadline).await
    }

    async fn revoke(
        &self,
        context: &ContextName,
        lease: LeaseId,
        by: &AgentName,
        reason: &str,
        deadline: Deadline,
    ) -> Result<Release, EngineError> {
        self.engine.revoke(context, lease, by, reason, deadline).await
    }

    async fn begin_epoch(&self, context: &ContextName, above: u64, deadline: Deadline) -> Result<(), EngineError> {
        self.engine.begin_epoch(context, above, deadline).await
    }

    fn losses(&self) -> Option<broadcast::Receiver<LeaseId>> {
        // The wire carries no news either.
        None
    }

    async fn examine(&self, deadline: Deadline) -> Result<Vec<Finding>, EngineError> {
        self.engine.examine(deadline).await
    }
}

/// A holder whose wire to the lock service can be cut, and another agent whose cannot.
struct Lapsing {
    wire: Arc<Faulty>,
    holder: Context,
    other: Context,
    _store: Store,
}

impl Lapsing {
    async fn new() -> Self {
        let store = Store::new();
        let options = mutext_embedded::EmbeddedOptions::new(store.path()).synced(false);
        let engines = options.open(Deadline::after(Duration::from_secs(15))).await.unwrap();
        let wire = Arc::new(Faulty { engine: engines.locks, cut: AtomicBool::new(false), release: Mutex::default() });
        let mutext = Mutext::with_engines(engines.store, wire.clone()).unwrap();
        let (holder, other) = (agent_of(&mutext, "holder"), store.agent("other").await);
        other.put("plan", "1", Precondition::Absent).await.unwrap();
        Self { wire, holder, other, _store: store }
    }

    /// A lease through which the plan was read, and that has lapsed since: nobody could renew it.
    async fn lapsed(&self, on_lapse: OnLapse) -> mutext::LockGuard {
        let guard = self.holder.lock("plan").ttl(ttl(200)).on_lapse(on_lapse).await.unwrap();
        assert_eq!(guard.get("plan").await.unwrap().unwrap().content.as_str(), "1");
        self.wire.cut.store(true, Ordering::SeqCst);
        let told = timeout(Duration::from_secs(5), guard.lost()).await.unwrap();
        assert_eq!(told, Loss::Unconfirmed);
        assert!(!guard.is_held());
        guard
    }

    fn mend(&self) {
        self.wire.cut.store(false, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_lapsed_lease_that_nobody_took_still_writes_where_it_may_be_revalidated() {
    let test = Lapsing::new().await;
    let guard = test.lapsed(OnLapse::Revalidate).await;
    // With the wire still cut: the revision that was read decides.
    assert_eq!(guard.put("plan", "2").await.unwrap().0, 2);
    test.mend();
    assert_eq!(guard.put("plan", "3").await.unwrap().0, 3);
    assert!(guard.is_held(), "asked again, the service confirms it");
    let refused = test.other.lock("plan").without_waiting().await;
    assert!(matches!(refused, Err(Error::Timeout { .. })), "the revived lease keeps others out: {refused:?}");
    assert_eq!(read(&test.other, "plan").await, (3, "3".to_owned()));
}

#[tokio::test]
async fn a_lapsed_lease_that_was_to_be_rejected_writes_no_more_although_nobody_took_it() {
    let test = Lapsing::new().await;
    let guard = test.lapsed(OnLapse::Reject).await;
    assert_eq!(loss(guard.put("plan", "2").await.unwrap_err()).0, Loss::Unconfirmed);
    test.mend();
    assert_eq!(loss(guard.put("plan", "2").await.unwrap_err()).0, Loss::Unconfirmed);
    assert_eq!(read(&test.other, "plan").await, (1, "1".to_owned()));
}

#[tokio::test]
async fn a_lapsed_lease_that_cannot_be_asked_about_writes_nothing_that_it_has_not_read() {
    let test = Lapsing::new().await;
    let guard = test.holder.lock("/").ttl(ttl(200)).await.unwrap();
    test.wire.cut.store(true, Ordering::SeqCst);
    timeout(Duration::from_secs(5), guard.lost()).await.unwrap();
    // No revision to check against: only the service could say whether this is still ours, and it cannot be asked.
    assert!(matches!(guard.put("plan", "blind").await, Err(Error::Engine(_))));
    assert_eq!(read(&test.other, "plan").await, (1, "1".to_owned()));
    test.mend();
    guard.put("plan", "asked").await.unwrap();
}

#[tokio::test]
async fn a_stale_holder_does_not_write_over_what_the_next_holder_wrote() {
    let test = Lapsing::new().await;
    for (round, mended) in [false, true].into_iter().enumerate() {
        test.mend();
        test.other.put("plan", "1", Precondition::Any).await.unwrap();
        let guard = test.lapsed(OnLapse::Revalidate).await;
        let next = test.other.lock("plan").await.unwrap();
        next.get("plan").await.unwrap();
        next.put("plan", "theirs").await.unwrap();
        if mended {
            test.mend();
        }
        let (told, current) = loss(guard.put("plan", "stale").await.unwrap_err());
        if mended {
            assert_eq!(told, Loss::Expired, "the service was asked, and says so");
        } else {
            assert_eq!((told, current.as_deref()), (Loss::Superseded, Some("theirs")), "the store's fence says so");
        }
        assert_eq!(read(&test.other, "plan").await.1, "theirs", "round {round}");
        next.put("plan", "theirs again").await.unwrap();
    }
}

#[tokio::test]
async fn a_stale_holder_does_not_slip_a_write_under_what_the_next_holder_has_read() {
    let test = Lapsing::new().await;
    let guard = test.lapsed(OnLapse::Revalidate).await;
    let next = test.other.lock("plan").await.unwrap();
    // Only read: the revision is still the one that the stale holder saw, so that only the fence can tell.
    next.get("plan").await.unwrap();
    let (told, current) = loss(guard.put("plan", "stale").await.unwrap_err());
    assert_eq!((told, current.as_deref()), (Loss::Superseded, Some("1")));
    assert_eq!(loss(guard.get("plan").await.unwrap_err()).0, Loss::Superseded);
    assert_eq!(next.put("plan", "theirs").await.unwrap().0, 2);
    assert_eq!(read(&test.other, "plan").await, (2, "theirs".to_owned()));
}

#[tokio::test]
async fn a_lease_that_another_took_and_gave_back_meanwhile_is_lost() {
    let test = Lapsing::new().await;
    let guard = test.lapsed(OnLapse::Revalidate).await;
    test.other.lock("plan").await.unwrap().release().await.unwrap();
    test.mend();
    assert_eq!(loss(guard.put("plan", "stale").await.unwrap_err()).0, Loss::Expired);
    assert_eq!(read(&test.other, "plan").await, (1, "1".to_owned()));
}

#[tokio::test]
async fn a_release_that_does_not_arrive_is_made_again_in_the_background() {
    let test = Lapsing::new().await;
    for next in [NextRelease::Fails, NextRelease::Hangs] {
        let guard = test.holder.lock("plan").await.unwrap();
        *test.wire.release.lock().unwrap() = next;
        // The answer never comes, and the caller gives up.
        let released = timeout(Duration::from_millis(100), guard.release()).await;
        assert_eq!(released.is_err(), next == NextRelease::Hangs, "{released:?}");
        assert!(!matches!(released, Ok(Ok(_))), "{released:?}");
        assert_free(&test.other, "plan", "released in the background").await;
    }
}

// --- Modes, several resources, waiting ---------------------------------------------------------------------------------

#[tokio::test]
async fn two_readers_stand_together_and_a_writer_waits_for_both() {
    let store = Store::new();
    let (one, other, writer) = (store.agent("one").await, store.agent("other").await, store.agent("writer").await);
    let first = one.lock("plan").shared().without_waiting().await.unwrap();
    let second = other.lock("plan").shared().without_waiting().await.unwrap();
    let waiting = writer.clone();
    let exclusive = tokio::spawn(async move { waiting.lock("plan").wait(wait(Duration::from_secs(60))).await });
    until_waiting(&writer, 1).await;
    first.release().await.unwrap();
    assert_eq!(waiters(&writer).await, 1, "one reader is still there");
    // A reader that comes now does not pass the writer.
    assert!(matches!(one.lock("plan").shared().without_waiting().await, Err(Error::Timeout { .. })));
    second.release().await.unwrap();
    let guard = exclusive.await.unwrap().unwrap();
    assert!(guard.lease().claims.iter().all(|claim| claim.mode == Mode::Exclusive));
}

#[tokio::test]
async fn a_reader_reads_through_its_shared_guard_and_does_not_write() {
    let store = Store::new();
    let (one, other) = (store.agent("one").await, store.agent("other").await);
    one.put("plan", "1", Precondition::Absent).await.unwrap();
    let (first, second) = (one.lock("plan").shared().await.unwrap(), other.lock("plan").shared().await.unwrap());
    assert!(matches!(first.put("plan", "2").await, Err(Error::NotCovered { .. })));
    assert_eq!(read(&one, "plan").await, (1, "1".to_owned()));
    // In the order of their tokens and against it: readers do not shut each other out.
    for guard in [&second, &first, &second] {
        let read = guard.get("plan").await;
        assert_eq!(read.expect("a shared guard covers what it may read").unwrap().content.as_str(), "1");
    }
}

#[tokio::test]
async fn several_resources_are_granted_together_or_not_at_all() {
    let store = Store::new();
    let (one, other) = (store.agent("one").await, store.agent("other").await);
    let board = one.lock("board").await.unwrap();
    let short = wait(Duration::from_millis(50));
    let Err(Error::Timeout { resources, blocked, .. }) = other.lock("plan").and("board").wait(short).await else {
        panic!("granted over another's lease")
    };
    assert_eq!(resources.len(), 2);
    assert_eq!(blocked.holdings[0].lease, board.lease().id());
    one.lock("plan").without_waiting().await.unwrap().release().await.unwrap();
    board.release().await.unwrap();
    let both = other.lock("plan").and("board").await.unwrap();
    both.put("plan", "p").await.unwrap();
    both.put("board", "b").await.unwrap();
    assert!(one.lock("plan").without_waiting().await.is_err() && one.lock("board").without_waiting().await.is_err());
    one.lock("notes").without_waiting().await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn a_lease_on_a_subtree_keeps_out_whoever_wants_a_part_or_the_whole_of_it() {
    let store = Store::new();
    let (one, other) = (store.agent("one").await, store.agent("other").await);
    let guard = one.lock("tasks/").await.unwrap();
    for taken in ["tasks", "tasks/17", "tasks/17/notes", "/"] {
        assert!(other.lock(taken).without_waiting().await.is_err(), "{taken}");
    }
    for free in ["tasks-done", "plan"] {
        other.lock(free).without_waiting().await.unwrap().release().await.unwrap();
    }
    guard.release().await.unwrap();
    other.lock("/").without_waiting().await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn a_timeout_names_the_holder_its_reason_and_the_queue() {
    let store = Store::new();
    let (holder, first, second) =
        (store.agent("holder").await, store.agent("first").await, store.agent("second").await);
    let guard = holder.lock("plan").reason("re-planning the week").await.unwrap();
    let watcher = first.clone();
    let queued = tokio::spawn(async move { first.lock("plan").wait(wait(Duration::from_secs(60))).await.map(drop) });
    until_waiting(&watcher, 1).await;
    let asked = Duration::from_millis(80);
    let error = second.lock("plan").wait(wait(asked)).await.unwrap_err();
    let text = error.to_string();
    let Error::Timeout { waited, blocked, .. } = error else { panic!("{text}") };
    assert!(waited >= asked && waited < Duration::from_secs(5), "{waited:?}");
    assert_eq!((blocked.holdings.len(), blocked.ahead), (1, 1));
    assert_eq!(blocked.holdings[0].holder, *holder.holder());
    for part in ["lock on plan", "holder holds plan", "re-planning the week", "1 request is ahead"] {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
    assert_eq!(waiters(&watcher).await, 1, "who has timed out waits no more");
    guard.release().await.unwrap();
    queued.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_try_without_waiting_does_not_wait_and_leaves_nothing_in_the_queue() {
    let store = Store::new();
    let (holder, other) = (store.agent("holder").await, store.agent("other").await);
    let guard = holder.lock("plan").await.unwrap();
    let fastest = {
        let mut fastest = Duration::MAX;
        for _ in 0..5 {
            let start = Instant::now();
            let error = other.lock("plan").without_waiting().await.unwrap_err();
            fastest = fastest.min(start.elapsed());
            assert!(error.to_string().contains("holder holds plan"), "{error}");
        }
        fastest
    };
    assert!(fastest < Duration::from_millis(100), "it waited for {fastest:?}");
    let table = other.locks().await.unwrap();
    assert_eq!((table.holdings.len(), table.waiters.len()), (1, 0));
    assert_eq!(table.holdings[0].lease, guard.lease().id());
}

#[tokio::test]
async fn who_asked_first_is_served_first() {
    let store = Store::new();
    let holder = store.agent("holder").await;
    let guard = holder.lock("plan").await.unwrap();
    let (order, mut served) = tokio::sync::mpsc::unbounded_channel();
    for place in 0..6 {
        let (agent, order) = (store.agent("asker").await, order.clone());
        tokio::spawn(async move {
            let guard = agent.lock("plan").wait(wait(Duration::from_secs(60))).await.unwrap();
            order.send((place, guard.token().number())).unwrap();
            guard.release().await.unwrap();
        });
        until_waiting(&holder, place + 1).await;
    }
    guard.release().await.unwrap();
    let mut last = (0, 0);
    for expected in 0..6 {
        let (place, token) = served.recv().await.unwrap();
        assert_eq!(place, expected);
        assert!(token > last);
        last = token;
    }
}
