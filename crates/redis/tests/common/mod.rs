//! Clients and requests for tests of their own servers.

#![expect(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::Arc;
use std::time::Duration;

pub(crate) use mutext_conformance::Epochs;
use mutext_contract::{Deadline, EngineError, EpochSource};
use mutext_redis::{RedisLocks, RedisOptions};

pub(crate) async fn open(url: &str, epochs: &Arc<Epochs>) -> Result<Arc<RedisLocks>, EngineError> {
    let epochs: Arc<dyn EpochSource> = Arc::<Epochs>::clone(epochs);
    RedisOptions::parse(url).unwrap().open(epochs, Deadline::after(Duration::from_secs(10))).await
}

pub(crate) fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(5))
}
