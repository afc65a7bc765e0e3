//! The embedded engines pass the suites of both contracts.

#![expect(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mutext_conformance::{LockFixture, StoreFixture, lock_suite, store_suite};
use mutext_contract::{Deadline, DocumentStore, LockService};
use mutext_embedded::{Embedded, EmbeddedOptions};

/// A store in a directory of its own.
struct Fresh {
    dir: tempfile::TempDir,
    opened: Embedded,
}

impl Fresh {
    async fn make() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let opened = client(dir.path()).await;
        Self { dir, opened }
    }
}

async fn client(dir: &std::path::Path) -> Embedded {
    EmbeddedOptions::new(dir).open(Deadline::after(Duration::from_secs(10))).await.unwrap()
}

#[async_trait]
impl LockFixture for Fresh {
    async fn open() -> Self {
        Self::make().await
    }
    fn locks(&self) -> Arc<dyn LockService> {
        self.opened.locks.clone()
    }
    async fn second(&self) -> Arc<dyn LockService> {
        client(self.dir.path()).await.locks
    }
}

#[async_trait]
impl StoreFixture for Fresh {
    async fn open() -> Self {
        Self::make().await
    }
    fn store(&self) -> Arc<dyn DocumentStore> {
        self.opened.store.clone()
    }
    async fn second(&self) -> Arc<dyn DocumentStore> {
        client(self.dir.path()).await.store
    }
}

lock_suite!(Fresh);
store_suite!(Fresh);
