//! Locks on one Redis in the conformance suite: one real server for all cases.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be set up fails its case")]

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use mutext_conformance::{Clients, Servers};
use mutext_contract::{Deadline, EpochSource, LockService};
use mutext_redis::RedisOptions;
use mutext_testbed::RedisServer;

/// It ends with the process: nothing drops it.
static SERVER: OnceLock<RedisServer> = OnceLock::new();

struct One;

#[async_trait]
impl Servers for One {
    async fn client(epochs: Arc<dyn EpochSource>) -> Arc<dyn LockService> {
        let server = SERVER.get_or_init(|| RedisServer::start().unwrap());
        let options = RedisOptions::parse(&server.url()).unwrap();
        options.open(epochs, Deadline::after(Duration::from_secs(10))).await.unwrap()
    }
}

mutext_conformance::lock_suite!(Clients<One>);
mutext_conformance::model_suite!(Clients<One>, schedules = 1_000);
