//! Locks in a Redis Cluster in the conformance suite: three masters and three replicas for all cases, whose contexts lie
//! wherever their names lead.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be set up fails its case")]

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use mutext_conformance::{Clients, Servers};
use mutext_contract::{Deadline, EpochSource, LockService};
use mutext_redis::RedisOptions;
use mutext_testbed::RedisCluster;

/// They end with the process: nothing drops them.
static SERVERS: OnceLock<RedisCluster> = OnceLock::new();

struct InCluster;

#[async_trait]
impl Servers for InCluster {
    async fn client(epochs: Arc<dyn EpochSource>) -> Arc<dyn LockService> {
        let servers = SERVERS.get_or_init(|| RedisCluster::start().unwrap());
        let options = RedisOptions::parse(&servers.url()).unwrap();
        options.open(epochs, Deadline::after(Duration::from_secs(10))).await.unwrap()
    }
}

mutext_conformance::lock_suite!(Clients<InCluster>);
mutext_conformance::model_suite!(Clients<InCluster>, schedules = 1_000);
