//! Several clients of one set of servers, as the conformance suite wants them: the set is started once for all cases,
//! each of which works in a context of its own.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use mutext_conformance::LockFixture;
use mutext_contract::{EpochSource, LockService};

use super::Epochs;

/// Where the clients of a fixture go.
#[async_trait]
pub(crate) trait Servers: Send + Sync + 'static {
    /// A client of its own.
    async fn client(epochs: Arc<dyn EpochSource>) -> Arc<dyn LockService>;
}

pub(crate) struct Clients<S> {
    epochs: Arc<Epochs>,
    first: Mutex<Option<Arc<dyn LockService>>>,
    /// Kept so that the second client lives as long as the case.
    others: Mutex<Vec<Arc<dyn LockService>>>,
    servers: PhantomData<S>,
}

#[async_trait]
impl<S: Servers> LockFixture for Clients<S> {
    async fn open() -> Self {
        let epochs: Arc<Epochs> = Arc::default();
        let first = S::client(Arc::<Epochs>::clone(&epochs)).await;
        Self { epochs, first: Mutex::new(Some(first)), others: Mutex::default(), servers: PhantomData }
    }

    fn locks(&self) -> Arc<dyn LockService> {
        self.first.lock().unwrap().clone().unwrap()
    }

    async fn second_locks(&self) -> Arc<dyn LockService> {
        let second = S::client(Arc::<Epochs>::clone(&self.epochs)).await;
        self.others.lock().unwrap().push(Arc::clone(&second));
        second
    }

    async fn vanish(&self) {
        let first = self.first.lock().unwrap().take().unwrap();
        assert_eq!(Arc::strong_count(&first), 1, "the case keeps handles of a client");
    }
}
