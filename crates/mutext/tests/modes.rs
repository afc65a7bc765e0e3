//! Locks that fit the work: shared guards, updates that choose, locks within locks, readers that become writers, circles of waiters; on
//! each engine.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/mod.rs"]
mod common;

mod modes {
    pub(crate) mod adaptive;
    pub(crate) mod crowds;
    pub(crate) mod deadlocks;
    pub(crate) mod guards;
    pub(crate) mod kept;
}

use std::sync::OnceLock;

use common::{Store, settings};
use mutext::{Address, Context, Mutext};
use mutext_testbed::RedisServer;

/// It ends with the process: nothing drops it.
static SERVER: OnceLock<RedisServer> = OnceLock::new();

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Embedded,
    Redis,
}

/// Documents and locks of one test.
pub(crate) struct Place {
    store: Store,
    locks: Option<Address>,
}

impl Place {
    pub(crate) fn new(engine: Engine) -> Self {
        let server = || SERVER.get_or_init(|| RedisServer::start().unwrap());
        let prefix = format!("{:032x}", rand::random::<u128>());
        let locks = (engine == Engine::Redis).then(|| format!("{}?prefix={prefix}", server().url()).parse().unwrap());
        Self { store: Store::new(), locks }
    }

    /// Documents in a directory, and locks at this address.
    pub(crate) fn locked_by(address: &str) -> Self {
        Self { store: Store::new(), locks: Some(address.parse().unwrap()) }
    }

    /// An opening of its own, as good as another process.
    pub(crate) async fn open(&self) -> Mutext {
        Mutext::open(&self.store.address(), self.locks.as_ref()).await.unwrap()
    }

    /// An agent with an opening of its own.
    pub(crate) async fn agent(&self, name: &str) -> Context {
        self.open().await.context("shared", settings(name)).unwrap()
    }
}

/// Writes a test for each engine.
macro_rules! on_each_engine {
    ($($name:ident)*) => {$(
        mod $name {
            use crate::{Engine, Place};

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn embedded() {
                super::$name(&Place::new(Engine::Embedded)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn redis() {
                super::$name(&Place::new(Engine::Redis)).await;
            }
        }
    )*};
}
pub(crate) use on_each_engine;
