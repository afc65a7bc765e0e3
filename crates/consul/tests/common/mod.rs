//! Clients and requests for tests of their own servers.

#![expect(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::Arc;
use std::time::Duration;

pub(crate) use mutext_conformance::Epochs;
use mutext_conformance::asking::{granted, request};
use mutext_consul::{ConsulLocks, ConsulOptions};
use mutext_contract::{Deadline, EngineError, EpochSource, Grant};

pub(crate) async fn open(url: &str, epochs: &Arc<Epochs>) -> Result<Arc<ConsulLocks>, EngineError> {
    let epochs: Arc<dyn EpochSource> = Arc::<Epochs>::clone(epochs);
    ConsulOptions::parse(url).unwrap().open(epochs, Deadline::after(Duration::from_secs(10))).await
}

pub(crate) async fn two(url: &str) -> (Arc<ConsulLocks>, Arc<ConsulLocks>) {
    let epochs = Arc::default();
    (open(url, &epochs).await.unwrap(), open(url, &epochs).await.unwrap())
}

/// A request that waits in a task of its own.
pub(crate) fn waiting(locks: &Arc<ConsulLocks>, agent: &str, path: &str) -> tokio::task::JoinHandle<Grant> {
    let (locks, request) = (Arc::clone(locks), request(agent, path, Duration::from_secs(30)));
    tokio::spawn(async move { granted(&locks, &request, Duration::from_secs(30)).await })
}

/// What a waiter is granted.
pub(crate) async fn served(waiting: tokio::task::JoinHandle<Grant>, within: Duration) -> Grant {
    tokio::time::timeout(within, waiting).await.unwrap().unwrap()
}

pub(crate) fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}
