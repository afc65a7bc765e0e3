//! Locks in etcd in the conformance suite: one real server for all cases, each in a context of its own.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be set up fails its case")]

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use mutext_conformance::{Clients, Servers};
use mutext_contract::{Deadline, EpochSource, LockService};
use mutext_etcd::EtcdOptions;
use mutext_testbed::EtcdServer;

/// It ends with the process: nothing drops it.
static SERVER: OnceLock<EtcdServer> = OnceLock::new();

struct One;

#[async_trait]
impl Servers for One {
    async fn client(epochs: Arc<dyn EpochSource>) -> Arc<dyn LockService> {
        let server = SERVER.get_or_init(|| EtcdServer::start().unwrap());
        let options = EtcdOptions::parse(&server.url()).unwrap();
        options.open(epochs, Deadline::after(Duration::from_secs(10))).await.unwrap()
    }
}

mutext_conformance::lock_suite!(Clients<One>);
mutext_conformance::model_suite!(Clients<One>, schedules = 1_000);
