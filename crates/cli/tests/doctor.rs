//! `mutext doctor` against real servers: as the files in conf/ set them up, and as they should not be.

#![expect(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]

use std::path::PathBuf;
use std::process::{Command, Stdio};

use mutext_testbed::{PostgresServer, RedisServer};
use serde_json::Value;

/// What came of a run.
#[derive(Debug)]
struct Ran {
    status: i32,
    out: String,
    err: String,
}

fn doctor(arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mutext"));
    command.env_clear().envs(variables.iter().copied()).current_dir(dir.path()).stdin(Stdio::null());
    let output = command.arg("doctor").args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { status: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

impl Ran {
    /// Its findings: `of`, `subject`, `severity`, `found`, `remedy`.
    #[track_caller]
    fn findings(&self) -> Vec<Value> {
        let answer: Value = serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        answer["findings"].as_array().unwrap().clone()
    }

    /// That this was found, with this severity and a remedy that says this.
    #[track_caller]
    fn finds(&self, of: &str, subject: &str, severity: &str, remedy: &str) {
        let findings = self.findings();
        let found = findings.iter().find(|finding| finding["of"] == of && finding["subject"] == subject);
        let found = found.unwrap_or_else(|| panic!("nothing about {of}, {subject}: {self:#?}"));
        assert_eq!(found["severity"], severity, "{found}");
        assert!(found["remedy"].as_str().unwrap().contains(remedy), "{found}");
    }
}

fn conf(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../conf").join(name)
}

#[test]
fn servers_as_conf_sets_them_up_need_no_change() {
    let redis = RedisServer::start_with_config(conf("redis.conf")).unwrap();
    let postgres = PostgresServer::start_with_config(conf("postgres.conf")).unwrap();
    let addresses = ["--store", &postgres.url(), "--locks", &redis.url()];
    let ran = doctor(&[&addresses[..], &["--json"]].concat(), &[]);
    assert_eq!(ran.status, 0, "{ran:?}");
    let known = ["fsync", "synchronous_commit", "full_page_writes", "server version", "server's clock", "round trip"];
    let known = known.map(|subject| ("documents", subject)).into_iter();
    let locks = ["server", "clock", "round trip", "maxmemory-policy", "appendonly", "replicas"];
    let known = known.chain(locks.map(|subject| ("locks", subject)));
    let tried = ["acquire", "read and write under the lease", "release", "wait"].map(|subject| ("end to end", subject));
    let findings = ran.findings();
    for (of, subject) in known.chain(tried) {
        let looked_at = findings.iter().any(|finding| finding["of"] == of && finding["subject"] == subject);
        assert!(looked_at, "nothing about {of}, {subject}: {findings:#?}");
    }
    let worse: Vec<_> =
        findings.iter().filter(|found| found["severity"] != "fine" && found["severity"] != "note").collect();
    assert!(worse.is_empty(), "{worse:#?}");

    let ran = doctor(&addresses, &[]);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(ran.out.contains("Nothing that must change."), "{ran:?}");
    let looked = doctor(&[&addresses[..], &["--look-only", "--json"]].concat(), &[]);
    assert!(looked.findings().iter().all(|finding| finding["of"] != "end to end"), "{looked:?}");
}

#[test]
fn what_endangers_locks_or_documents_is_found_and_told() {
    let redis = [("maxmemory", "64mb"), ("maxmemory-policy", "allkeys-lru")];
    let redis = RedisServer::start_with(&redis).unwrap();
    let postgres = [("fsync", "off"), ("synchronous_commit", "off"), ("full_page_writes", "off")];
    let postgres = PostgresServer::start_with(&postgres).unwrap();
    let ran = doctor(&["--store", &postgres.url(), "--locks", &redis.url(), "--json"], &[]);
    assert_eq!(ran.status, 1, "{ran:?}");
    ran.finds("documents", "fsync", "danger", "set fsync = on");
    ran.finds("documents", "synchronous_commit", "danger", "set synchronous_commit = on");
    ran.finds("documents", "full_page_writes", "danger", "set full_page_writes = on");
    ran.finds("locks", "maxmemory-policy", "danger", "noeviction");
    ran.finds("locks", "appendonly", "warning", "set it to yes");
    let ran = doctor(&["--store", &postgres.url(), "--locks", &redis.url()], &[]);
    assert_eq!(ran.status, 1, "{ran:?}");
    assert!(ran.out.contains("danger: documents, fsync: set fsync = on"), "{ran:?}");
    assert!(ran.out.contains("Do not rely on it"), "{ran:?}");
}

#[test]
fn replicas_without_a_quorum_and_short_waits_are_warned_of() {
    let primary = RedisServer::start().unwrap();
    let replica = RedisServer::start_with(&[("replicaof", &format!("127.0.0.1 {}", primary.port()))]).unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !primary.cli(&["INFO", "replication"]).unwrap().contains("state=online") {
        assert!(std::time::Instant::now() < until, "the replica does not come up");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let ran = doctor(&["--locks", &primary.url(), "--json"], &[("MUTEXT_WAIT", "1ms")]);
    assert_eq!(ran.status, 0, "{ran:?}");
    ran.finds("locks", "replicas", "warning", "min-replicas-to-write");
    ran.finds("end to end", "wait", "warning", "raise wait to");
    let ran = doctor(&["--locks", &replica.url(), "--json"], &[]);
    assert_eq!(ran.status, 1, "{ran:?}");
    let reach = ran.findings().into_iter().find(|finding| finding["subject"] == "reach").unwrap();
    assert!(reach["found"].as_str().unwrap().contains(&primary.port().to_string()), "its primary: {reach}");
}

#[test]
fn one_engine_out_of_reach_does_not_hide_the_other() {
    let redis = RedisServer::start().unwrap();
    let gone = "postgres://someone:hunter2@127.0.0.1:1/board";
    let ran = doctor(&["--store", gone, "--locks", &redis.url(), "--json"], &[]);
    assert_eq!(ran.status, 1, "{ran:?}");
    ran.finds("documents", "reach", "danger", "");
    ran.finds("locks", "maxmemory-policy", "fine", "");
    assert!(!format!("{ran:?}").contains("hunter2"), "{ran:?}");

    let locked = RedisServer::start_with(&[("requirepass", "right-one")]).unwrap();
    let wrong = format!("redis://:wrong-one@127.0.0.1:{}", locked.port());
    for more in [&["--json"][..], &[]] {
        let ran = doctor(&[&["--locks", &wrong][..], more].concat(), &[]);
        assert_eq!(ran.status, 1, "{ran:?}");
        assert!(ran.out.contains("password") && ran.out.contains("documents"), "{ran:?}");
        assert!(!format!("{ran:?}").contains("wrong-one"), "{ran:?}");
    }
}

#[test]
fn each_setting_says_where_it_came_from() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mutext.yaml");
    std::fs::write(&file, "store: embedded:of-file\ncontext: of-file\nwait: 3s\nttl: 20s\n").unwrap();
    let file = file.to_str().unwrap();
    let variables =
        [("MUTEXT_CONTEXT", "of-env"), ("MUTEXT_WAIT", "2s"), ("MUTEXT_AGENT", "of-env"), ("MUTEXT_CONFIG", file)];
    let ran = doctor(&["--agent", "of-flag", "--json"], &variables);
    assert_eq!(ran.status, 0, "{ran:?}");
    let of = |subject: &str| {
        let findings = ran.findings();
        let found = findings.into_iter().find(|finding| finding["of"] == "settings" && finding["subject"] == subject);
        found.unwrap()["found"].as_str().unwrap().to_owned()
    };
    let from_file = format!("(from config file {file})");
    assert!(of("store").ends_with(&from_file), "{}", of("store"));
    assert_eq!(of("ttl"), format!("20.0s {from_file}"));
    assert_eq!(of("context"), "of-env (from MUTEXT_CONTEXT)");
    assert_eq!(of("wait"), "2.0s (from MUTEXT_WAIT)");
    assert_eq!(of("agent"), "of-flag (from --agent)");
    assert_eq!(of("document_bytes_max"), "1048576 bytes (from the default)");
    let ran = doctor(&[], &[("MUTEXT_TTL", "soon")]);
    assert_eq!(ran.status, 2, "{ran:?}");
    assert!(ran.err.contains("MUTEXT_TTL is \"soon\""), "{ran:?}");
}

#[cfg(feature = "consul")]
#[test]
fn consul_is_looked_at_and_a_lock_is_tried_there() {
    let consul = mutext_testbed::ConsulServer::start().unwrap();
    let ran = doctor(&["--locks", &consul.url(), "--json"], &[]);
    assert_eq!(ran.status, 0, "{ran:?}");
    ran.finds("locks", "agent", "fine", "");
    ran.finds("locks", "servers", "note", "three or five");
    ran.finds("locks", "data", "warning", "data directory");
    ran.finds("end to end", "acquire", "fine", "");
    let refused = doctor(&["--store", &consul.url()], &[]);
    assert_eq!(refused.status, 1, "{refused:?}");
    assert!(refused.out.contains("Consul holds locks, not documents"), "{refused:?}");
}
