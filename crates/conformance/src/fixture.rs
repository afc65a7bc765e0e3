//! What an engine brings to be tested: itself, opened fresh, and a second client of it.

use std::sync::Arc;

use async_trait::async_trait;
use mutext_contract::{DocumentStore, LockService};

/// A lock engine under test, with one client open.
#[async_trait]
pub trait LockFixture: Send + Sync {
    /// Opens the engine's first client; called once for each case.
    async fn open() -> Self
    where
        Self: Sized;

    /// The first client.
    fn locks(&self) -> Arc<dyn LockService>;

    /// Another client of the same engine, as independent as another process's would be: a connection of its own.
    async fn second_locks(&self) -> Arc<dyn LockService>;

    /// Ends the first client without a good-bye, as the death of its process would. The case has dropped its own
    /// handles of it by then, and does not ask for [`locks`](Self::locks) again.
    async fn vanish(&self);
}

/// A document engine under test, with one client open.
#[async_trait]
pub trait StoreFixture: Send + Sync {
    /// Opens the engine's first client; called once for each case.
    async fn open() -> Self
    where
        Self: Sized;

    /// The first client.
    fn store(&self) -> Arc<dyn DocumentStore>;

    /// Another client of the same engine, as independent as another process's would be: a connection of its own.
    async fn second_store(&self) -> Arc<dyn DocumentStore>;

    /// Ends the first client without a good-bye, as the death of its process would. The case has dropped its own
    /// handles of it by then, and does not ask for [`store`](Self::store) again.
    async fn vanish(&self);
}
