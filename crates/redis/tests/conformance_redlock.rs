//! Locks on three Redis servers that know nothing of each other, in the conformance suite: what a majority of them agrees
//! on counts.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be set up fails its case")]

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use mutext_conformance::{Clients, Servers};
use mutext_contract::{Deadline, EpochSource, LockService};
use mutext_redis::RedlockOptions;
use mutext_testbed::RedisNodes;

/// They end with the process: nothing drops them.
static SERVERS: OnceLock<RedisNodes> = OnceLock::new();

struct OnNodes;

#[async_trait]
impl Servers for OnNodes {
    async fn client(epochs: Arc<dyn EpochSource>) -> Arc<dyn LockService> {
        let servers = SERVERS.get_or_init(|| RedisNodes::start(3).unwrap());
        let options = RedlockOptions::parse(&servers.url()).unwrap();
        options.open(epochs, Deadline::after(Duration::from_secs(10))).await.unwrap()
    }
}

mutext_conformance::lock_suite!(Clients<OnNodes>);
mutext_conformance::model_suite!(Clients<OnNodes>, schedules = 1_000);
