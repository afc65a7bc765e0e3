//! Locks in etcd in the conformance suite: one real server for all cases, each in a context of its own.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be set up fails its case")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use mutext_conformance::LockFixture;
use mutext_contract::{ContextName, Deadline, EngineError, EpochSource, LockService};
use mutext_etcd::{EtcdLocks, EtcdOptions};
use mutext_testbed::EtcdServer;

/// It ends with the process: nothing drops it.
static SERVER: OnceLock<EtcdServer> = OnceLock::new();

/// Mints epochs as a document store does: each higher than all before it.
#[derive(Debug, Default)]
struct Epochs(AtomicU64);

#[async_trait]
impl EpochSource for Epochs {
    async fn mint_epoch(&self, _: &ContextName, _: Deadline) -> Result<u64, EngineError> {
        Ok(self.0.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

struct Clients {
    epochs: Arc<Epochs>,
    first: Mutex<Option<Arc<EtcdLocks>>>,
    /// Kept so that the second client lives as long as the case.
    others: Mutex<Vec<Arc<EtcdLocks>>>,
}

impl Clients {
    async fn client(epochs: &Arc<Epochs>) -> Arc<EtcdLocks> {
        let server = SERVER.get_or_init(|| EtcdServer::start().unwrap());
        let options = EtcdOptions::parse(&server.url()).unwrap();
        let epochs: Arc<dyn EpochSource> = Arc::<Epochs>::clone(epochs);
        options.open(epochs, Deadline::after(Duration::from_secs(10))).await.unwrap()
    }
}

#[async_trait]
impl LockFixture for Clients {
    async fn open() -> Self {
        let epochs = Arc::default();
        let first = Self::client(&epochs).await;
        Self { epochs, first: Mutex::new(Some(first)), others: Mutex::default() }
    }

    fn locks(&self) -> Arc<dyn LockService> {
        self.first.lock().unwrap().clone().unwrap()
    }

    async fn second_locks(&self) -> Arc<dyn LockService> {
        let second = Self::client(&self.epochs).await;
        self.others.lock().unwrap().push(Arc::clone(&second));
        second
    }

    async fn vanish(&self) {
        let first = self.first.lock().unwrap().take().unwrap();
        assert_eq!(Arc::strong_count(&first), 1, "the case keeps handles of a client");
    }
}

mutext_conformance::lock_suite!(Clients);
mutext_conformance::model_suite!(Clients, schedules = 1_000);
