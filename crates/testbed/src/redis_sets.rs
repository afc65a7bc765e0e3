//! Several redis-servers that belong together: a Sentinel set, a Cluster, and nodes that know nothing of each other.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::process::{Process, Recipe, free_port, fresh_directory};
use crate::redis::cli_in;
use crate::{Place, RedisServer, TestbedError, binary};

/// How long servers may take to find each other: a busy machine.
const TOGETHER: Duration = Duration::from_secs(60);
/// The name that the Sentinels know their service by.
const SERVICE: &str = "mutext";
/// Silence of a server that makes the others act: short, so that tests of failovers are.
const SILENCE_MS: u32 = 1_000;

/// Asks again until it is so.
fn until(what: &str, mut is_so: impl FnMut() -> Result<bool, TestbedError>) -> Result<(), TestbedError> {
    let until = Instant::now() + TOGETHER;
    while !is_so()? {
        if Instant::now() > until {
            let log = String::new();
            return Err(TestbedError::NotReady { program: "redis-server", what: what.to_owned(), log });
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// One redis-sentinel.
#[derive(Debug)]
struct Sentinel {
    _process: Process,
    place: Place,
    bin: PathBuf,
}

impl Sentinel {
    fn start(master: u16, password: Option<&str>) -> Result<Self, TestbedError> {
        let missing = TestbedError::Missing { program: "redis-sentinel", package: "redis-sentinel" };
        let found = |name: &str| binary::directory_with(&[name], &[]).map(|dir| dir.join(name));
        let bin = found("redis-sentinel").or_else(|| found("valkey-sentinel")).ok_or(missing)?;
        let place = Place { dir: fresh_directory("sentinel")?, port: free_port()? };
        let config = place.dir.join("sentinel.conf");
        let login = password.map(|word| format!("sentinel auth-pass {SERVICE} {word}\n")).unwrap_or_default();
        let text = format!(
            "bind 127.0.0.1\nport {}\ndir {}\nsentinel monitor {SERVICE} 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds {SERVICE} {SILENCE_MS}\nsentinel failover-timeout {SERVICE} 5000\n{login}",
            place.port,
            place.dir.display(),
        );
        fs::write(&config, text).map_err(TestbedError::system("writing a configuration"))?;
        let command = vec![bin.display().to_string(), config.display().to_string()];
        let recipe =
            Recipe { program: "redis-sentinel", command, dir: &place.dir, ready: "+monitor master", signal: "KILL" };
        Ok(Self { _process: Process::start(&recipe)?, place, bin })
    }

    fn cli(&self, arguments: &[&str]) -> Result<String, TestbedError> {
        binary::output(cli_in(&self.bin, self.place.port).args(arguments))
    }
}

/// A primary, two replicas and three Sentinels that watch them; all end when this is dropped.
#[derive(Debug)]
pub struct SentinelSet {
    servers: Vec<RedisServer>,
    sentinels: Vec<Sentinel>,
}

impl SentinelSet {
    /// Starts them; ready when the Sentinels agree and both replicas are in touch.
    pub fn start() -> Result<Self, TestbedError> {
        Self::start_with(&[])
    }

    /// Starts them with settings for all three servers.
    pub fn start_with(options: &[(&str, &str)]) -> Result<Self, TestbedError> {
        let password = options.iter().find(|(key, _)| *key == "requirepass").map(|(_, word)| *word);
        let mut all = options.to_vec();
        all.extend(password.map(|word| ("masterauth", word)));
        // A replica would otherwise wait five seconds for others that want the same data.
        all.push(("repl-diskless-sync-delay", "0"));
        let primary = RedisServer::start_with(&all)?;
        let of = format!("127.0.0.1 {}", primary.port());
        all.push(("replicaof", &of));
        let servers = vec![primary, RedisServer::start_with(&all)?, RedisServer::start_with(&all)?];
        let port = servers[0].port();
        until("has no replicas in touch after 60 s", || {
            Ok(servers[0].cli(&["INFO", "replication"])?.matches("state=online").count() == 2)
        })?;
        let sentinels = (0..3).map(|_| Sentinel::start(port, password)).collect::<Result<Vec<_>, _>>()?;
        for sentinel in &sentinels {
            until("is not watched by three Sentinels after 60 s", || {
                let said = sentinel.cli(&["SENTINEL", "MASTER", SERVICE])?;
                let lines: Vec<&str> = said.lines().collect();
                let of = |key| lines.iter().position(|line| *line == key).and_then(|at| lines.get(at + 1).copied());
                Ok(of("num-slaves") == Some("2") && of("num-other-sentinels") == Some("2"))
            })?;
        }
        Ok(Self { servers, sentinels })
    }

    /// Its address, without a password.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.sentinels.iter().map(|one| format!("127.0.0.1:{}", one.place.port)).collect();
        format!("redis+sentinel://{}/{SERVICE}", hosts.join(","))
    }

    /// The three servers; the first was the primary at the start.
    pub fn servers(&mut self) -> &mut [RedisServer] {
        &mut self.servers
    }

    /// Which server the Sentinels call the primary now.
    pub fn primary(&self) -> Result<usize, TestbedError> {
        let said = self.sentinels[0].cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE])?;
        let port = said.lines().nth(1).and_then(|port| port.parse().ok()).unwrap_or(0);
        let found = self.servers.iter().position(|server| server.port() == port);
        found.ok_or_else(|| TestbedError::Command { command: "SENTINEL GET-MASTER-ADDR-BY-NAME".to_owned(), said })
    }

    /// Waits until both others are in touch with the primary.
    pub fn wait_until_whole(&self) -> Result<(), TestbedError> {
        until("has not both replicas again after 60 s", || {
            let info = self.servers[self.primary()?].cli(&["INFO", "replication"])?;
            Ok(info.matches("state=online").count() == 2)
        })
    }
}

/// A Redis Cluster of three masters and three replicas; all end when this is dropped. It needs Redis 7.0.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts them; ready when every node says that the cluster is.
    pub fn start() -> Result<Self, TestbedError> {
        Self::start_with(&[])
    }

    /// Starts them with settings for all six nodes.
    pub fn start_with(options: &[(&str, &str)]) -> Result<Self, TestbedError> {
        let silence = SILENCE_MS.to_string();
        let mut nodes = Vec::new();
        for _ in 0..6 {
            // The port of the nodes among themselves is the other one plus 10,000 by default, which may be none.
            let bus = free_port()?.to_string();
            let mut all = options.to_vec();
            all.extend([("cluster-enabled", "yes"), ("cluster-node-timeout", &*silence), ("cluster-port", &*bus)]);
            all.push(("repl-diskless-sync-delay", "0"));
            nodes.push(RedisServer::start_with(&all)?);
        }
        let cluster = Self { nodes };
        let places: Vec<String> = cluster.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        let mut create = vec!["--cluster", "create"];
        create.extend(places.iter().map(String::as_str));
        create.extend(["--cluster-replicas", "1", "--cluster-yes"]);
        cluster.nodes[0].cli(&create)?;
        cluster.wait_until_whole()?;
        Ok(cluster)
    }

    /// Waits until all nodes that run agree that the cluster is well, and each replica is in touch with its master.
    pub fn wait_until_whole(&self) -> Result<(), TestbedError> {
        until("is no whole cluster after 60 s", || {
            for node in &self.nodes {
                let Ok(info) = node.cli(&["CLUSTER", "INFO"]) else { return Ok(false) };
                let replication = node.cli(&["INFO", "replication"])?;
                let is_in_touch = replication.contains("role:master") || replication.contains("master_link_status:up");
                if !info.contains("cluster_state:ok") || !info.contains("cluster_known_nodes:6") || !is_in_touch {
                    return Ok(false);
                }
            }
            let list = self.nodes[0].cli(&["CLUSTER", "NODES"])?;
            Ok(list.matches("slave").count() == 3 && !list.contains("fail"))
        })
    }

    /// Its address: the first three nodes.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.nodes[..3].iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// The six nodes.
    pub fn nodes(&mut self) -> &mut [RedisServer] {
        &mut self.nodes
    }

    /// The slot of a key, and the node that serves it.
    pub fn place_of(&self, key: &str) -> Result<(u16, usize), TestbedError> {
        let asked = &self.nodes.iter().find(|node| node.cli(&["PING"]).is_ok()).unwrap_or(&self.nodes[0]);
        let slot: u16 = asked.cli(&["CLUSTER", "KEYSLOT", key])?.parse().unwrap_or(0);
        for (index, node) in self.nodes.iter().enumerate() {
            let Ok(said) = node.cli(&["CLUSTER", "NODES"]) else { continue };
            let own = said.lines().find(|line| line.contains("myself,master")).unwrap_or_default();
            let serves = |range: &str| {
                let (from, to) = range.split_once('-').unwrap_or((range, range));
                matches!((from.parse::<u16>(), to.parse::<u16>()), (Ok(from), Ok(to)) if (from..=to).contains(&slot))
            };
            if own.split(' ').skip(8).any(serves) {
                return Ok((slot, index));
            }
        }
        Err(TestbedError::Command { command: format!("CLUSTER KEYSLOT {key}"), said: "no node serves it".to_owned() })
    }

    /// Moves a slot and all its keys from one node to another, as a resharding does; `halfway` is called when the
    /// slot is on its way and its keys have not moved yet.
    pub fn migrate(&self, slot: u16, from: usize, to: usize, halfway: impl FnOnce()) -> Result<(), TestbedError> {
        let (source, target, slot) = (&self.nodes[from], &self.nodes[to], slot.to_string());
        let (source_id, target_id) = (source.cli(&["CLUSTER", "MYID"])?, target.cli(&["CLUSTER", "MYID"])?);
        target.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source_id])?;
        source.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target_id])?;
        halfway();
        let port = target.port().to_string();
        loop {
            let keys = source.cli(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"])?;
            let keys: Vec<&str> = keys.lines().filter(|key| !key.is_empty()).collect();
            if keys.is_empty() {
                break;
            }
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            words.extend(keys);
            source.cli(&words)?;
        }
        for node in [target, source] {
            node.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &target_id])?;
        }
        Ok(())
    }
}

/// Servers that know nothing of each other, as Redlock wants them; all end when this is dropped.
#[derive(Debug)]
pub struct RedisNodes {
    nodes: Vec<RedisServer>,
}

impl RedisNodes {
    /// Starts so many.
    pub fn start(count: usize) -> Result<Self, TestbedError> {
        Self::start_with(count, &[])
    }

    /// Starts so many, with settings for all of them.
    pub fn start_with(count: usize, options: &[(&str, &str)]) -> Result<Self, TestbedError> {
        Ok(Self { nodes: (0..count).map(|_| RedisServer::start_with(options)).collect::<Result<_, _>>()? })
    }

    /// Their address.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redlock://{}", hosts.join(","))
    }

    /// The servers.
    pub fn nodes(&mut self) -> &mut [RedisServer] {
        &mut self.nodes
    }
}
