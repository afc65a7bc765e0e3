//! Real servers: started, killed, started again, and gone when whoever started them is gone.

use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mutext_testbed::{ConsulCluster, ConsulServer, PostgresServer, RedisCluster, RedisNodes, RedisServer, SentinelSet};

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[test]
fn redis_answers_and_forgets_when_it_is_killed() {
    let mut redis = RedisServer::start().unwrap();
    redis.cli(&["SET", "a", "1"]).unwrap();
    assert_eq!(redis.cli(&["GET", "a"]).unwrap(), "1");
    assert!(redis.socket().exists());
    redis.kill().unwrap();
    assert!(!listens(redis.port()));
    redis.restart().unwrap();
    assert_eq!(redis.cli(&["GET", "a"]).unwrap(), "");
}

#[test]
fn redis_remembers_where_it_is_told_to() {
    let mut redis = RedisServer::start_with(&[("appendonly", "yes"), ("appendfsync", "always")]).unwrap();
    redis.cli(&["SET", "a", "1"]).unwrap();
    redis.kill().unwrap();
    redis.restart().unwrap();
    assert_eq!(redis.cli(&["GET", "a"]).unwrap(), "1");
}

#[test]
fn a_sentinel_set_promotes_a_replica_when_its_primary_dies() {
    let mut set = SentinelSet::start().unwrap();
    assert_eq!(set.primary().unwrap(), 0);
    set.servers()[0].kill().unwrap();
    eventually("nobody is promoted", || set.primary().unwrap() != 0);
    set.servers()[0].restart().unwrap();
    set.wait_until_whole().unwrap();
}

#[test]
fn a_cluster_serves_every_slot_and_moves_one() {
    let cluster = RedisCluster::start().unwrap();
    let (slot, from) = cluster.place_of("{a}:1").unwrap();
    let to = (0..3).find(|node| *node != from).unwrap();
    cluster.migrate(slot, from, to, || {}).unwrap();
    eventually("the slot stays", || cluster.place_of("{a}:1").unwrap() == (slot, to));
}

#[test]
fn nodes_know_nothing_of_each_other() {
    let mut nodes = RedisNodes::start(3).unwrap();
    nodes.nodes()[0].cli(&["SET", "a", "1"]).unwrap();
    assert_eq!(nodes.nodes()[1].cli(&["GET", "a"]).unwrap(), "");
}

#[test]
fn postgres_answers_and_keeps_what_it_acknowledged() {
    let mut postgres = PostgresServer::start_with(&[("fsync", "on")]).unwrap();
    postgres.sql("CREATE TABLE t (n int); INSERT INTO t VALUES (42)").unwrap();
    postgres.kill().unwrap();
    assert!(postgres.sql("SELECT 1").is_err());
    postgres.restart().unwrap();
    assert_eq!(postgres.sql("SELECT n FROM t").unwrap(), "42");
    assert_eq!(postgres.sql("SHOW fsync").unwrap(), "on");
}

#[test]
fn a_dropped_server_is_gone_with_its_directory() {
    let redis = RedisServer::start().unwrap();
    let (port, dir) = (redis.port(), redis.socket().parent().unwrap().to_owned());
    assert!(dir.exists() && listens(port));
    drop(redis);
    assert!(!dir.exists() && !listens(port));
}

#[test]
fn a_wrong_setting_is_told_with_the_log() {
    let error = RedisServer::start_with(&[("maxmemory-policy", "nonsense")]).unwrap_err().to_string();
    assert!(error.contains("maxmemory-policy"), "{error}");
    let error = PostgresServer::start_with(&[("nonsense", "1")]).unwrap_err().to_string();
    assert!(error.contains("nonsense"), "{error}");
}

/// Starts itself again as a process that starts servers and is then killed.
#[test]
fn servers_end_when_their_starter_is_killed() {
    const ROLE: &str = "MUTEXT_TESTBED_STARTER";
    if std::env::var_os(ROLE).is_some() {
        let (redis, postgres) = (RedisServer::start().unwrap(), PostgresServer::start().unwrap());
        let dirs = [redis.socket().parent().unwrap().to_owned(), postgres.socket_dir().to_owned()];
        // The name of the file is the message: the test harness keeps standard output to itself.
        let said = std::env::var(ROLE).unwrap();
        let text = format!("{} {} {} {}", redis.port(), postgres.port(), dirs[0].display(), dirs[1].display());
        std::fs::write(format!("{said}.part"), text).unwrap();
        std::fs::rename(format!("{said}.part"), said).unwrap();
        loop {
            thread::park();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let said = dir.path().join("said");
    let mut starter = Command::new(std::env::current_exe().unwrap());
    starter.args(["--exact", "servers_end_when_their_starter_is_killed"]).env(ROLE, &said);
    let mut starter = starter.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    eventually("the starter says nothing", || {
        if let Some(status) = starter.try_wait().unwrap() {
            let mut said = String::new();
            starter.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("the starter ended with {status}: {said}");
        }
        text = std::fs::read_to_string(&said).unwrap_or_default();
        !text.is_empty()
    });
    let words: Vec<&str> = text.split(' ').collect();
    let ports: Vec<u16> = words[..2].iter().map(|port| port.parse().unwrap()).collect();
    assert!(ports.iter().all(|port| listens(*port)));
    starter.kill().unwrap();
    starter.wait().unwrap();
    eventually("a server outlived its starter", || !ports.iter().any(|port| listens(*port)));
    eventually("a directory outlived its server", || !words[2..].iter().any(|dir| Path::new(dir).exists()));
}

#[test]
fn consul_answers_and_remembers_where_it_is_told_to() {
    for (is_durable, remembered) in [(false, ""), (true, "1")] {
        let start = if is_durable { ConsulServer::start_durable } else { ConsulServer::start_with };
        let mut consul = start("{}").unwrap();
        consul.cli(&["kv", "put", "a", "1"]).unwrap();
        assert_eq!(consul.cli(&["kv", "get", "a"]).unwrap(), "1");
        consul.kill().unwrap();
        assert!(!listens(consul.port()));
        consul.restart().unwrap();
        assert_eq!(consul.cli(&["kv", "get", "a"]).unwrap_or_default(), remembered);
    }
}

#[test]
fn three_consul_servers_elect_another_leader_when_theirs_is_killed() {
    let mut cluster = ConsulCluster::start(3).unwrap();
    let first = cluster.leader().unwrap();
    cluster.kill(first).unwrap();
    eventually("another leads", || cluster.leader().is_ok_and(|leader| leader != first));
}
