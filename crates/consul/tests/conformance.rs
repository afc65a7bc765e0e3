//! Locks in Consul in the conformance suite: one real agent for all cases, each in a context of its own.
//!
//! The agent lets sessions last shorter than the ten seconds that are usual at least, so that a case that waits for the
//! end of one does not take half a minute.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be set up fails its case")]

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use mutext_conformance::{Clients, Servers};
use mutext_consul::ConsulOptions;
use mutext_contract::{Deadline, EpochSource, LockService};
use mutext_testbed::ConsulServer;

/// It ends with the process: nothing drops it.
static SERVER: OnceLock<ConsulServer> = OnceLock::new();

struct One;

#[async_trait]
impl Servers for One {
    async fn client(epochs: Arc<dyn EpochSource>) -> Arc<dyn LockService> {
        let settings = r#"{"session_ttl_min": "1s", "limits": {"http_max_conns_per_client": 1000}}"#;
        let server = SERVER.get_or_init(|| ConsulServer::start_with(settings).unwrap());
        let options = ConsulOptions::parse(&format!("{}?session_ttl=4&lock_delay=0.1", server.url())).unwrap();
        options.open(epochs, Deadline::after(Duration::from_secs(10))).await.unwrap()
    }
}

mutext_conformance::lock_suite!(Clients<One>);
mutext_conformance::model_suite!(Clients<One>, schedules = 1_000);
