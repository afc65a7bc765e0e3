//! A context on one of the stores, and agents in it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use mutext::{Address, Context, Mutext, Settings};
use mutext_testbed::PostgresServer;
use tempfile::TempDir;

/// A context of its own.
pub(crate) struct Place {
    /// Removed with the place.
    _dir: TempDir,
    first: Mutext,
    second: Mutext,
    name: String,
}

/// One server for all cases of this file; it ends with this process.
fn server() -> &'static PostgresServer {
    static SERVER: OnceLock<PostgresServer> = OnceLock::new();
    SERVER.get_or_init(|| PostgresServer::start().expect("PostgreSQL starts"))
}

impl Place {
    pub(crate) async fn embedded() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let address = format!("embedded:{}?sync=normal", dir.path().display());
        Self::at(address.parse().expect("an address"), None, dir).await
    }

    /// Documents on the server; locks in a directory.
    pub(crate) async fn postgres() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = server().url().parse().expect("an address");
        Self::at(store, Some(Address::embedded(dir.path())), dir).await
    }

    async fn at(store: Address, locks: Option<Address>, dir: TempDir) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let open = async || Mutext::open(&store, locks.as_ref()).await.expect("the store opens");
        let (first, second) = (open().await, open().await);
        let name = format!("place-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        Self { _dir: dir, first, second, name }
    }

    /// An agent.
    pub(crate) fn agent(&self, name: &str) -> Context {
        self.first.context(self.name.as_str(), crate::common::settings(name)).expect("a context")
    }

    /// An agent with connections of its own, as in another process.
    pub(crate) fn other(&self, name: &str) -> Context {
        self.second.context(self.name.as_str(), crate::common::settings(name)).expect("a context")
    }

    /// An agent with settings of its own.
    pub(crate) fn agent_with(&self, settings: Settings) -> Context {
        self.first.context(self.name.as_str(), settings).expect("a context")
    }

    /// An agent in another context of the same store.
    pub(crate) fn elsewhere(&self, name: &str) -> Context {
        let elsewhere = format!("{}-elsewhere", self.name);
        self.second.context(elsewhere.as_str(), crate::common::settings(name)).expect("a context")
    }
}
