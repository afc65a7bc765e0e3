//! What lock engines whose servers are shared by all cases bring alike: epochs from a counter, and clients of one server.

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mutext_contract::{ContextName, Deadline, EngineError, EpochSource, LockService, TroubleKind};
use tokio::sync::watch;
use tokio::time::timeout_at;

use crate::LockFixture;

/// Mints epochs as a document store does: each higher than all before it. For tests and benches of lock engines alone.
#[derive(Debug, Default)]
pub struct Epochs {
    last: AtomicU64,
    hangs: watch::Sender<bool>,
}

impl Epochs {
    /// Forgets all that was minted, as a store does that stands in for one that was ahead of it.
    pub fn forget(&self) {
        self.last.store(0, Ordering::SeqCst);
    }

    /// Answers nothing from now on, as a store that hangs, or answers again.
    pub fn hang(&self, hangs: bool) {
        self.hangs.send_replace(hangs);
    }

    /// Comes back once somebody waits for an answer.
    pub async fn are_asked_for(&self) {
        while self.hangs.receiver_count() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[async_trait]
impl EpochSource for Epochs {
    async fn mint_epoch(&self, context: &ContextName, above: u64, deadline: Deadline) -> Result<u64, EngineError> {
        let mut hangs = self.hangs.subscribe();
        if timeout_at(deadline.instant(), hangs.wait_for(|hangs| !hangs)).await.is_err() {
            let what = format!("the epochs of {context}");
            return Err(EngineError::new(what, TroubleKind::Unavailable, "let them answer again"));
        }
        let next = |last: u64| Some(last.max(above) + 1);
        Ok(self.last.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).unwrap_or_default().max(above) + 1)
    }
}

/// Where the clients of a fixture go: servers that are started once for all cases, each of which works in a context of
/// its own.
#[async_trait]
pub trait Servers: Send + Sync + 'static {
    /// A client of its own.
    async fn client(epochs: Arc<dyn EpochSource>) -> Arc<dyn LockService>;
}

/// The fixture of an engine on such servers.
pub struct Clients<S> {
    epochs: Arc<Epochs>,
    first: Mutex<Option<Arc<dyn LockService>>>,
    /// Kept so that the second client lives as long as the case.
    others: Mutex<Vec<Arc<dyn LockService>>>,
    servers: PhantomData<S>,
}

impl<S> fmt::Debug for Clients<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").field("first", &self.first).field("others", &self.others).finish_non_exhaustive()
    }
}

#[async_trait]
impl<S: Servers> LockFixture for Clients<S> {
    async fn open() -> Self {
        let epochs: Arc<Epochs> = Arc::default();
        let first = S::client(Arc::<Epochs>::clone(&epochs)).await;
        Self { epochs, first: Mutex::new(Some(first)), others: Mutex::default(), servers: PhantomData }
    }

    fn locks(&self) -> Arc<dyn LockService> {
        lock(&self.first).clone().expect("the first client has vanished")
    }

    async fn second_locks(&self) -> Arc<dyn LockService> {
        let second = S::client(Arc::<Epochs>::clone(&self.epochs)).await;
        lock(&self.others).push(Arc::clone(&second));
        second
    }

    async fn vanish(&self) {
        let first = lock(&self.first).take().expect("the first client has vanished");
        assert_eq!(Arc::strong_count(&first), 1, "the case keeps handles of a client");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
