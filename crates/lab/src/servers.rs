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

    /// Whether it is started for documents; all others are for locks alone.
    pub const fn holds_documents(self) -> bool {
        matches!(self, Self::Postgres)
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

impl ServersError {
    /// Whether its program is not on this machine.
    pub const fn is_missing(&self) -> bool {
        matches!(self, Self::Testbed(TestbedError::Missing { .. }))
    }
}

/// PostgreSQL waits for its disk before it acknowledges, as it does wherever data matter. These are its own defaults,
/// but for the room for many agents; they are written out because they decide what an update costs.
const POSTGRES_SETTINGS: [(&str, &str); 4] =
    [("fsync", "on"), ("synchronous_commit", "on"), ("full_page_writes", "on"), ("max_connections", "500")];

/// Redis keeps locks in memory alone: after a restart a new epoch holds off whoever had one.
const REDIS_SETTINGS: [(&str, &str); 2] = [("save", ""), ("appendonly", "no")];

/// One that runs.
#[derive(Debug)]
enum Running {
    Redis(RedisServer),
    Postgres(PostgresServer),
}

impl Running {
    fn start(server: Server) -> Result<Self, TestbedError> {
        Ok(match server {
            Server::Redis => Self::Redis(RedisServer::start_with(&REDIS_SETTINGS)?),
            Server::Postgres => Self::Postgres(PostgresServer::start_with(&POSTGRES_SETTINGS)?),
        })
    }

    fn url(&self) -> String {
        match self {
            Self::Redis(server) => server.url(),
            Self::Postgres(server) => server.url(),
        }
    }

    /// Its version, and the settings that decide what it costs and what it keeps.
    fn facts(&self) -> Result<String, TestbedError> {
        Ok(match self {
            Self::Redis(server) => redis_facts(server)?,
            Self::Postgres(server) => postgres_facts(server)?,
        })
    }
}

fn postgres_facts(server: &PostgresServer) -> Result<String, TestbedError> {
    let mut settings = Vec::new();
    for name in ["fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_connections"] {
        settings.push(format!("{name}={}", server.sql(&format!("SHOW {name}"))?.trim()));
    }
    Ok(format!("{}: {}", server.version()?.trim(), settings.join(", ")))
}

fn redis_facts(server: &RedisServer) -> Result<String, TestbedError> {
    let mut settings = Vec::new();
    for name in ["save", "appendonly", "maxmemory-policy", "io-threads"] {
        let answer = server.cli(&["CONFIG", "GET", name])?;
        let value = answer.lines().nth(1).filter(|text| !text.is_empty()).unwrap_or("none");
        settings.push(format!("{name}={value}"));
    }
    let version = server.version()?;
    let version = version.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    Ok(format!("{version}: {}", settings.join(", ")))
}

/// Servers that run until this is dropped, or until this process dies of whatever cause.
#[derive(Debug)]
pub struct Servers(Vec<(Server, Running)>);

impl Servers {
    /// Starts each kind that `wanted` names, once.
    pub fn start(wanted: &[Server]) -> Result<Self, ServersError> {
        let wanted = Server::ALL.into_iter().filter(|server| wanted.contains(server));
        let started = wanted.map(|server| Ok((server, Running::start(server)?)));
        Ok(Self(started.collect::<Result<_, TestbedError>>()?))
    }

    /// Where documents lie, if a server for them was started.
    pub fn store(&self) -> Result<Option<Address>, ServersError> {
        let found = self.0.iter().find(|(server, _)| server.holds_documents());
        Ok(found.map(|(_, running)| running.url().parse()).transpose()?)
    }

    /// Where locks lie, if a server for nothing else was started.
    pub fn locks(&self) -> Result<Option<Address>, ServersError> {
        let found = self.0.iter().find(|(server, _)| !server.holds_documents());
        Ok(found.map(|(_, running)| running.url().parse()).transpose()?)
    }

    /// Versions, and the settings that decide what they cost and what they keep, one server a line.
    pub fn facts(&self) -> Result<Vec<String>, ServersError> {
        let mut facts = Vec::with_capacity(self.0.len());
        for (_, running) in &self.0 {
            facts.push(format!("spawned {}", running.facts()?));
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
