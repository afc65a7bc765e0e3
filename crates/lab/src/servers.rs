//! Throwaway servers for an experiment, set as people set them who want to keep their data.

use std::fmt;
use std::str::FromStr;

use mutext::Address;
use mutext_testbed::{
    ConsulCluster, ConsulServer, EtcdServer, PostgresServer, RedisCluster, RedisNodes, RedisServer, SentinelSet,
    TestbedError,
};

/// A kind of server, or set of servers, that can be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// One Redis: holds locks.
    Redis,
    /// PostgreSQL: holds documents, and locks.
    Postgres,
    /// A Redis with two replicas and three Sentinels: holds locks.
    Sentinel,
    /// A Redis Cluster of three masters with a replica each: holds locks.
    Cluster,
    /// Three independent Redis nodes: hold locks.
    Redlock,
    /// One etcd: holds locks.
    Etcd,
    /// An etcd of three members: holds locks.
    Etcd3,
    /// One Consul: holds locks.
    Consul,
    /// A Consul of three servers: holds locks.
    Consul3,
}

impl Server {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Redis,
        Self::Postgres,
        Self::Sentinel,
        Self::Cluster,
        Self::Redlock,
        Self::Etcd,
        Self::Etcd3,
        Self::Consul,
        Self::Consul3,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::Sentinel => "sentinel",
            Self::Cluster => "cluster",
            Self::Redlock => "redlock",
            Self::Etcd => "etcd",
            Self::Etcd3 => "etcd3",
            Self::Consul => "consul",
            Self::Consul3 => "consul3",
        }
    }

    /// Whether this build has the engine for it; else an error that says how to build one that has.
    pub fn known(self) -> Result<(), mutext::Error> {
        let scheme = match self {
            Self::Etcd | Self::Etcd3 => "etcd",
            Self::Consul | Self::Consul3 => "consul",
            Self::Postgres => "postgres",
            Self::Redis | Self::Sentinel | Self::Cluster | Self::Redlock => "redis",
        };
        format!("{scheme}://localhost").parse::<Address>().map(drop)
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
        matches!(self, Self::Testbed(TestbedError::Missing { .. } | TestbedError::Absent { .. }))
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
struct Running {
    kind: Server,
    url: String,
    /// Its version, and the settings that decide what it costs and what it keeps.
    facts: String,
    /// Ends when it is dropped.
    _server: Box<dyn fmt::Debug + Send + Sync>,
}

impl Running {
    fn start(kind: Server) -> Result<Self, TestbedError> {
        let (url, facts, server): (String, String, Box<dyn fmt::Debug + Send + Sync>) = match kind {
            Server::Redis => {
                let server = RedisServer::start_with(&REDIS_SETTINGS)?;
                (server.url(), redis_facts(&server)?, Box::new(server))
            }
            Server::Postgres => {
                let server = PostgresServer::start_with(&POSTGRES_SETTINGS)?;
                (server.url(), postgres_facts(&server)?, Box::new(server))
            }
            Server::Sentinel => {
                let mut set = SentinelSet::start_with(&REDIS_SETTINGS)?;
                let facts = format!("a primary, 2 replicas and 3 Sentinels of {}", redis_facts(&set.servers()[0])?);
                (set.url(), facts, Box::new(set))
            }
            Server::Cluster => {
                let mut cluster = RedisCluster::start_with(&REDIS_SETTINGS)?;
                let facts = format!("3 masters with a replica each of {}", redis_facts(&cluster.nodes()[0])?);
                (cluster.url(), facts, Box::new(cluster))
            }
            Server::Redlock => {
                let mut nodes = RedisNodes::start_with(3, &REDIS_SETTINGS)?;
                let facts = format!("3 independent nodes of {}", redis_facts(&nodes.nodes()[0])?);
                (nodes.url(), facts, Box::new(nodes))
            }
            Server::Etcd => {
                let server = EtcdServer::start()?;
                (server.url(), server.version()?, Box::new(server))
            }
            Server::Etcd3 => {
                let server = EtcdServer::start_cluster(3)?;
                (server.url(), format!("3 members of {}", server.version()?), Box::new(server))
            }
            Server::Consul => {
                let server = ConsulServer::start_durable("")?;
                (server.url(), server.version()?, Box::new(server))
            }
            Server::Consul3 => {
                let cluster = ConsulCluster::start(3)?;
                let version = cluster.any().map(ConsulServer::version).transpose()?.unwrap_or_default();
                (cluster.url(), format!("3 servers of {version}"), Box::new(cluster))
            }
        };
        Ok(Self { kind, url, facts, _server: server })
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
pub struct Servers(Vec<Running>);

impl Servers {
    /// Starts each kind that `wanted` names, once.
    pub fn start(wanted: &[Server]) -> Result<Self, ServersError> {
        let wanted = Server::ALL.into_iter().filter(|server| wanted.contains(server));
        Ok(Self(wanted.map(Running::start).collect::<Result<_, _>>()?))
    }

    /// Where documents lie, if a server for them was started.
    pub fn store(&self) -> Result<Option<Address>, ServersError> {
        let found = self.0.iter().find(|running| running.kind.holds_documents());
        Ok(found.map(|running| running.url.parse()).transpose()?)
    }

    /// Where locks lie, if a server for nothing else was started.
    pub fn locks(&self) -> Result<Option<Address>, ServersError> {
        let found = self.0.iter().find(|running| !running.kind.holds_documents());
        Ok(found.map(|running| running.url.parse()).transpose()?)
    }

    /// Versions, and the settings that decide what they cost and what they keep, one server a line.
    pub fn facts(&self) -> Vec<String> {
        self.0.iter().map(|running| format!("spawned {}", running.facts)).collect()
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
    fn a_program_that_is_not_here_is_missing_wherever_it_could_be_had_from() {
        let missing = TestbedError::Missing { program: "etcd", package: "etcd-server" };
        let absent = TestbedError::Absent { program: "consul", remedy: "fetch it" };
        for error in [missing, absent] {
            assert!(ServersError::from(error).is_missing());
        }
        let failed = TestbedError::Command { command: "etcd".to_owned(), said: "no".to_owned() };
        assert!(!ServersError::from(failed).is_missing());
    }

    #[test]
    fn nothing_is_started_that_nobody_wants() {
        let servers = Servers::start(&[]).unwrap();
        assert_eq!((servers.store().unwrap(), servers.locks().unwrap()), (None, None));
        assert!(servers.facts().is_empty());
    }
}
