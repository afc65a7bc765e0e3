//! Both engines in the conformance suites: a schema of its own on a real server, and a second opening of it, which has its
//! own connections, as another process would.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be set up fails its case")]

mod support;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use mutext_conformance::{LockFixture, StoreFixture};
use mutext_contract::{DocumentStore, EpochSource, LockService};
use mutext_postgres::{PostgresLocks, PostgresStore};

use crate::support::{address, fresh_schema, opened, options, shared, soon};

struct Schema {
    name: String,
    first: Mutex<Option<Arc<PostgresStore>>>,
}

#[async_trait]
impl StoreFixture for Schema {
    async fn open() -> Self {
        let name = fresh_schema();
        let first = Mutex::new(Some(opened(shared(), &name).await));
        Self { name, first }
    }

    fn store(&self) -> Arc<dyn DocumentStore> {
        self.first.lock().unwrap().clone().unwrap()
    }

    async fn second_store(&self) -> Arc<dyn DocumentStore> {
        opened(shared(), &self.name).await
    }

    async fn vanish(&self) {
        let first = self.first.lock().unwrap().take().unwrap();
        assert_eq!(Arc::strong_count(&first), 1, "the case keeps handles of a client");
    }
}

/// The lock engine: a schema for all cases, each in a context of its own. Epochs come from the documents beside it.
struct Clients {
    epochs: Arc<PostgresStore>,
    first: Mutex<Option<Arc<PostgresLocks>>>,
    /// Kept so that the second client lives as long as the case.
    others: Mutex<Vec<Arc<PostgresLocks>>>,
}

impl Clients {
    async fn client(epochs: &Arc<PostgresStore>) -> Arc<PostgresLocks> {
        let epochs: Arc<dyn EpochSource> = Arc::<PostgresStore>::clone(epochs);
        options(&address(shared(), "schema=locks&pool=2")).open_locks(epochs, soon()).await.unwrap()
    }
}

#[async_trait]
impl LockFixture for Clients {
    async fn open() -> Self {
        let epochs = options(&address(shared(), "schema=locks&pool=1")).open(soon()).await.unwrap();
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

mutext_conformance::store_suite!(Schema);
mutext_conformance::lock_suite!(Clients);
mutext_conformance::model_suite!(Clients, schedules = 1_000);
