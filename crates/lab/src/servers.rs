//! Throwaway servers for an experiment, set as people set them who want to keep their data.

use std::fmt;
use std::str::FromStr;

use mutext::Address;
use mutext_testbed::{PostgresServer, RedisServer, TestbedError};

/// A kind of server that can be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// Holds locks.
    Redis,
    /// Holds documents.
    Postgres,
}

impl Server {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Redis, Self::Postgres];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|server| server.name() == text);
        found.ok_or_else(|| {
            format!("there is no such server to start; there are {}", Self::ALL.map(Self::name).join(", "))
        })
    }
}

/// Why there are no servers.
#[derive(Debug, thiserror::Error)]
pub enum ServersError {
    /// One could not be started, or does not answer.
    #[error(transparent)]
    Testbed(#[from] TestbedError),
    /// One has an address that this build cannot read.
    #[error(transparent)]
    Address(#[from] mutext::Error),
}

/// Servers that run until this is dropped, or until this process dies of whatever cause.
#[derive(Debug)]
pub struct Servers {
    redis: Option<RedisServer>,
    postgres: Option<PostgresServer>,
}

/// PostgreSQL waits for its disk before it acknowledges, as it does wherever data matter. These are its own defaults,
/// but for the room for many agents; they are written out because they decide what an update costs.
const POSTGRES_SETTINGS: [(&str, &str); 4] =
    [("fsync", "on"), ("synchronous_commit", "on"), ("full_page_writes", "on"), ("max_connections", "500")];

/// Redis keeps locks in memory alone: after a restart a new epoch holds off whoever had one.
const REDIS_SETTINGS: [(&str, &str); 2] = [("save", ""), ("appendonly", "no")];

impl Servers {
    /// Starts each kind that `wanted` names, once.
    pub fn start(wanted: &[Server]) -> Result<Self, ServersError> {
        let starts = |server| wanted.contains(&server);
        let redis = starts(Server::Redis).then(|| RedisServer::start_with(&REDIS_SETTINGS)).transpose()?;
        let postgres = starts(Server::Postgres).then(|| PostgresServer::start_with(&POSTGRES_SETTINGS)).transpose()?;
        Ok(Self { redis, postgres })
    }

    /// Where documents lie, if a server for them was started.
    pub fn store(&self) -> Result<Option<Address>, ServersError> {
        Ok(self.postgres.as_ref().map(|server| server.url().parse()).transpose()?)
    }

    /// Where locks lie, if a server for them was started.
    pub fn locks(&self) -> Result<Option<Address>, ServersError> {
        Ok(self.redis.as_ref().map(|server| server.url().parse()).transpose()?)
    }

    /// Versions, and the settings that decide what they cost and what they keep, one server a line.
    pub fn facts(&self) -> Result<Vec<String>, ServersError> {
        let mut facts = Vec::new();
        if let Some(server) = &self.postgres {
            let mut settings = Vec::new();
            for name in ["fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_connections"] {
                settings.push(format!("{name}={}", server.sql(&format!("SHOW {name}"))?.trim()));
            }
            facts.push(format!("spawned {}: {}", server.version()?.trim(), settings.join(", ")));
        }
        if let Some(server) = &self.redis {
            let mut settings = Vec::new();
            for name in ["save", "appendonly", "maxmemory-policy", "io-threads"] {
                let answer = server.cli(&["CONFIG", "GET", name])?;
                settings.push(format!(
                    "{name}={}",
                    answer.lines().nth(1).filter(|text| !text.is_empty()).unwrap_or("none")
                ));
            }
            let version = server.version()?;
            let version = version.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
            facts.push(format!("spawned {version}: {}", settings.join(", ")));
        }
        Ok(facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_server_is_told_which_are_known() {
        assert_eq!("redis".parse(), Ok(Server::Redis));
        let error = "mysql".parse::<Server>().unwrap_err();
        assert!(error.contains("redis, postgres"), "{error}");
    }

    #[test]
    fn nothing_is_started_that_nobody_wants() {
        let servers = Servers::start(&[]).unwrap();
        assert_eq!((servers.store().unwrap(), servers.locks().unwrap()), (None, None));
        assert!(servers.facts().unwrap().is_empty());
    }
}
