//! Locks behind Sentinels in the conformance suite: a primary, two replicas of which one must have each grant, and three
//! Sentinels.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be set up fails its case")]

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use mutext_conformance::{Clients, Servers};
use mutext_contract::{Deadline, EpochSource, LockService};
use mutext_redis::RedisOptions;
use mutext_testbed::SentinelSet;

/// They end with the process: nothing drops them.
static SERVERS: OnceLock<SentinelSet> = OnceLock::new();

struct BehindSentinels;

#[async_trait]
impl Servers for BehindSentinels {
    async fn client(epochs: Arc<dyn EpochSource>) -> Arc<dyn LockService> {
        let servers = SERVERS.get_or_init(|| SentinelSet::start().unwrap());
        let options = RedisOptions::parse(&format!("{}?min_replicas=1", servers.url())).unwrap();
        options.open(epochs, Deadline::after(Duration::from_secs(10))).await.unwrap()
    }
}

mutext_conformance::lock_suite!(Clients<BehindSentinels>);
mutext_conformance::model_suite!(Clients<BehindSentinels>, schedules = 1_000);
