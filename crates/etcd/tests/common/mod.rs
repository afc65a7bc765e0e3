//! Clients and requests for tests of their own servers.

#![expect(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::Arc;
use std::time::Duration;

pub(crate) use mutext_conformance::Epochs;
use mutext_contract::{
    Acquisition, AgentName, ContextName, Deadline, EngineError, EpochSource, Grant, Holder, LockRequest, LockService,
    Ttl,
};
use mutext_etcd::{EtcdLocks, EtcdOptions};

pub(crate) async fn open(url: &str, epochs: &Arc<Epochs>) -> Result<Arc<EtcdLocks>, EngineError> {
    let epochs: Arc<dyn EpochSource> = Arc::<Epochs>::clone(epochs);
    EtcdOptions::parse(url).unwrap().open(epochs, Deadline::after(Duration::from_secs(10))).await
}

pub(crate) fn context() -> ContextName {
    ContextName::new("research-42").unwrap()
}

pub(crate) fn request(agent: &str, path: &str, ttl: Duration) -> LockRequest {
    let holder = Holder::new(AgentName::new(agent).unwrap());
    LockRequest::exclusive(context(), holder, Ttl::new(ttl).unwrap(), path.parse().unwrap())
}

pub(crate) async fn granted(locks: &EtcdLocks, request: &LockRequest, wait: Duration) -> Grant {
    match locks.acquire(request, Deadline::after(wait)).await.unwrap() {
        Acquisition::Granted(grant) => grant,
        other => panic!("expected {} to be granted; found {other:?}", request.holder),
    }
}

/// Waits until `count` requests queue.
pub(crate) async fn queued(locks: &EtcdLocks, count: usize) {
    loop {
        let table = locks.inspect(&context(), soon()).await.unwrap();
        if table.waiters.len() == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(5))
}
