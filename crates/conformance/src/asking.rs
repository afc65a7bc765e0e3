//! What tests and benches of lock engines ask alike, whatever engine they ask.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mutext_contract::{
    Acquisition, AgentName, ContextName, Deadline, Grant, Holder, LockRequest, LockService, TroubleKind, Ttl,
};

use crate::Epochs;

/// Why a bench cannot go on.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The context of tests that have a server of their own.
pub fn context() -> ContextName {
    ContextName::new("research-42").expect("a name of ours")
}

/// A request for one path of [`context`].
pub fn request(agent: &str, path: &str, ttl: Duration) -> LockRequest {
    let holder = Holder::new(AgentName::new(agent).expect("a name of ours"));
    let (ttl, path) = (Ttl::new(ttl).expect("a TTL of ours"), path.parse().expect("a path of ours"));
    LockRequest::exclusive(context(), holder, ttl, path)
}

/// What a request is granted within `wait`.
pub async fn granted<L>(locks: &L, request: &LockRequest, wait: Duration) -> Grant
where
    L: Deref<Target: LockService>,
{
    match locks.acquire(request, Deadline::after(wait)).await.expect("the engine answers") {
        Acquisition::Granted(grant) => grant,
        other => panic!("expected {} to be granted; found {other:?}", request.holder),
    }
}

/// Waits until `count` requests queue in [`context`].
pub async fn queued<L>(locks: &L, count: usize)
where
    L: Deref<Target: LockService>,
{
    loop {
        let table =
            locks.inspect(&context(), Deadline::after(Duration::from_secs(5))).await.expect("the engine answers");
        if table.waiters.len() == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Shows that whoever finds another at it to begin an epoch waits for that no longer than for a lock. `locks` are new,
/// and `epochs` are theirs.
pub async fn an_epoch_is_waited_for_until_the_deadline(locks: Arc<dyn LockService>, epochs: &Epochs) {
    let of = |path: &str| request("anna", path, Duration::from_secs(30));
    epochs.hang(true);
    let first = {
        let (locks, request) = (Arc::clone(&locks), of("plan"));
        tokio::spawn(async move { granted(&locks, &request, Duration::from_secs(120)).await })
    };
    epochs.are_asked_for().await;
    let outcome = locks.acquire(&of("notes"), Deadline::after(Duration::from_millis(300))).await;
    let trouble = outcome.expect_err("there is no epoch to be had");
    assert!(!first.is_finished(), "the other waits yet; {trouble}");
    assert_eq!(trouble.kind, TroubleKind::Busy, "{trouble}");
    epochs.hang(false);
    first.await.expect("it is granted once there is an epoch");
}

/// Acquires and releases a lock that nobody else wants, again and again until `until`; how often.
pub async fn cycles(
    locks: Arc<dyn LockService>,
    context: String,
    path: String,
    until: Instant,
) -> Result<u64, Failure> {
    let (context, holder) = (ContextName::new(context)?, Holder::new(AgentName::new("bench")?));
    let mut cycles = 0;
    while Instant::now() < until {
        let request = LockRequest::exclusive(context.clone(), holder.clone(), Ttl::DEFAULT, path.parse()?);
        let deadline = Deadline::after(Duration::from_secs(5));
        let granted = locks.acquire(&request, deadline).await?;
        assert!(matches!(granted, Acquisition::Granted(_)), "nobody else wants {path}");
        locks.release(&context, request.lease, deadline).await?;
        cycles += 1;
    }
    Ok(cycles)
}

/// What tasks that run side by side for the time of a round come to: so many a second, and how many.
pub async fn rate<F>(tasks: usize, round: Duration, start: impl Fn(usize, Instant) -> F) -> Result<(f64, f64), Failure>
where
    F: Future<Output = Result<u64, Failure>> + Send + 'static,
{
    let began = Instant::now();
    let running: Vec<_> = (0..tasks).map(|task| tokio::spawn(start(task, began + round))).collect();
    let mut cycles = 0;
    for task in running {
        cycles += task.await??;
    }
    Ok((cycles as f64 / began.elapsed().as_secs_f64(), cycles as f64))
}

/// The middle one; of an even number the upper.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
