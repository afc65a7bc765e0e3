//! The embedded engines in the conformance suites: a store in a temporary directory, and a second opening of it,
//! which has its own connections and its own socket, as another process would.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be set up fails its case")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use mutext_conformance::{LockFixture, StoreFixture};
use mutext_contract::{Deadline, DocumentStore, LockService};
use mutext_embedded::{Embedded, EmbeddedOptions};
use tempfile::TempDir;

struct Directory {
    dir: TempDir,
    first: Mutex<Option<Embedded>>,
    /// Kept so that the second client lives as long as the case.
    others: Mutex<Vec<Embedded>>,
}

impl Directory {
    async fn fresh() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let first = Mutex::new(Some(opened(&dir).await));
        Self { dir, first, others: Mutex::default() }
    }

    fn first(&self) -> Embedded {
        self.first.lock().unwrap().clone().unwrap()
    }

    async fn second(&self) -> Embedded {
        let second = opened(&self.dir).await;
        self.others.lock().unwrap().push(second.clone());
        second
    }

    fn drop_first(&self) {
        let first = self.first.lock().unwrap().take().unwrap();
        let (locks, store) = (Arc::downgrade(&first.locks), Arc::downgrade(&first.store));
        drop(first);
        // Whatever still holds on to it would keep its socket, and with it its presence.
        assert_eq!((locks.strong_count(), store.strong_count()), (0, 0), "the case keeps handles of a client");
    }
}

async fn opened(dir: &TempDir) -> Embedded {
    let deadline = Deadline::after(Duration::from_secs(10));
    EmbeddedOptions::new(dir.path().join("store")).open(deadline).await.unwrap()
}

#[async_trait]
impl LockFixture for Directory {
    async fn open() -> Self {
        Self::fresh().await
    }

    fn locks(&self) -> Arc<dyn LockService> {
        self.first().locks
    }

    async fn second_locks(&self) -> Arc<dyn LockService> {
        self.second().await.locks
    }

    async fn vanish(&self) {
        self.drop_first();
    }
}

#[async_trait]
impl StoreFixture for Directory {
    async fn open() -> Self {
        Self::fresh().await
    }

    fn store(&self) -> Arc<dyn DocumentStore> {
        self.first().store
    }

    async fn second_store(&self) -> Arc<dyn DocumentStore> {
        self.second().await.store
    }

    async fn vanish(&self) {
        self.drop_first();
    }
}

mutext_conformance::lock_suite!(Directory);
mutext_conformance::store_suite!(Directory);
mutext_conformance::model_suite!(Directory, schedules = 10_000);
