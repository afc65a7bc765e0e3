//! What the test files share: a store in a temporary directory, agents on it, and waiting without sleeping long.

#![allow(dead_code, reason = "each test file uses its part of this")]

use std::future::Future;
use std::pin::pin;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use mutext::{Address, Context, Mutext, Settings, Wait};
use tempfile::TempDir;

/// Far below the default TTL of ten seconds, and far above what a busy machine needs for one release.
pub(crate) const PROMPTLY: Duration = Duration::from_secs(2);

/// A store in a directory of its own, removed with it.
pub(crate) struct Store {
    dir: TempDir,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    /// Its address. Commits are not synced: these tests are about processes, not about power loss.
    pub(crate) fn address(&self) -> Address {
        format!("embedded:{}?sync=normal", self.dir.path().display()).parse().expect("an address")
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Opens it once more: as good as another process, with a socket and connections of its own.
    pub(crate) async fn open(&self) -> Mutext {
        Mutext::open(&self.address(), None).await.expect("the store opens")
    }

    /// An agent with an opening of its own.
    pub(crate) async fn agent(&self, name: &str) -> Context {
        agent_of(&self.open().await, name)
    }
}

pub(crate) fn settings(agent: &str) -> Settings {
    Settings::new(agent.try_into().expect("an agent name"))
}

pub(crate) fn agent_of(mutext: &Mutext, name: &str) -> Context {
    mutext.context("shared", settings(name)).expect("a context")
}

pub(crate) fn wait(duration: Duration) -> Wait {
    Wait::new(duration).expect("a wait")
}

/// Polls `future` at most `polls` times and gives the world `pause` after each, then drops it: what a `select!`,
/// a timeout or an aborted task does to it, at an await of the test's choice.
pub(crate) async fn poll_then_drop<F: Future>(future: F, polls: u32, pause: Duration) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        if let Poll::Ready(output) = future.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())) {
            return Some(output);
        }
        std::thread::sleep(pause);
        // Gives the task its budget back; a poll without one is always pending.
        tokio::task::yield_now().await;
    }
    None
}

/// Looks until `look` says yes; panics with `what` where it never does.
pub(crate) async fn eventually<Fut: Future<Output = bool>>(what: &str, mut look: impl FnMut() -> Fut) {
    let start = Instant::now();
    while !look().await {
        assert!(start.elapsed() < Duration::from_secs(10), "it never came about that {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// How many wait in the context's queue.
pub(crate) async fn waiters(context: &Context) -> usize {
    context.locks().await.expect("the lock table").waiters.len()
}

/// Ready once exactly `count` requests wait.
pub(crate) async fn until_waiting(context: &Context, count: usize) {
    eventually(&format!("{count} requests wait"), async || waiters(context).await == count).await;
}

/// Takes `resource` and gives it back; panics where that is not possible long before any TTL.
pub(crate) async fn assert_free(context: &Context, resource: &str, story: &str) {
    let start = Instant::now();
    match context.lock(resource).wait(wait(PROMPTLY)).await {
        Ok(guard) => drop(guard.release().await.expect("a release")),
        Err(error) => panic!("{story}: after {:?} {error}", start.elapsed()),
    }
}
