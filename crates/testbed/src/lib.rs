//! Real throwaway servers on free ports of this machine, for tests and experiments.
//!
//! Each server runs in a temporary directory of its own. It ends, and its directory goes, when its handle is dropped
//! and also when the process that started it dies of whatever cause: a small shell beside it waits for that.
//!
//! ```no_run
//! use mutext_testbed::RedisServer;
//! let redis = RedisServer::start()?;
//! assert_eq!(redis.cli(&["PING"])?.trim(), "PONG");
//! # Ok::<(), mutext_testbed::TestbedError>(())
//! ```

mod binary;
mod consul;
mod etcd;
mod pgbouncer;
mod postgres;
mod process;
mod redis;
mod redis_sets;

use std::path::PathBuf;

pub use consul::{ConsulCluster, ConsulServer};
pub use etcd::EtcdServer;
pub use pgbouncer::PgBouncer;
pub use postgres::PostgresServer;
pub use redis::RedisServer;
pub use redis_sets::{RedisCluster, RedisNodes, SentinelSet};

/// Why a server could not be had, or a command to it failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestbedError {
    /// The program is not on this machine.
    #[error(
        "{program} is not installed: on Debian or Ubuntu, `apt-get install {package}`; elsewhere put its directory into PATH"
    )]
    Missing {
        /// The program.
        program: &'static str,
        /// The package that has it.
        package: &'static str,
    },
    /// The program is not on this machine, and no package of its current release has it.
    #[error("{program} is not installed: {remedy}")]
    Absent {
        /// The program.
        program: &'static str,
        /// Where it comes from.
        remedy: &'static str,
    },
    /// The system refused.
    #[error("{what} failed: {source}")]
    System {
        /// What was to be done.
        what: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The server ended before it was ready, or was not ready in time.
    #[error("{program} {what}; its log says:\n{log}")]
    NotReady {
        /// The program.
        program: &'static str,
        /// What it did.
        what: String,
        /// The end of its log.
        log: String,
    },
    /// A command to the server failed.
    #[error("{command} failed: {said}")]
    Command {
        /// The command.
        command: String,
        /// What it said.
        said: String,
    },
}

impl TestbedError {
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}

/// Where a server's files lie, and where it listens.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    pub(crate) port: u16,
}
