//! `mutext experiment locking --spawn`: real servers are started for it, and end with it, however it ends.

#![expect(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const DATA: &str = "assets/data/experiments/locking-mechanism";

fn mutext(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mutext"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MUTEXT_")) {
        command.env_remove(name);
    }
    command.current_dir(dir).args(["experiment", "locking"]).args(arguments).stdin(Stdio::null());
    command
}

/// The numbers of the servers of process `owner`: the children of the wardens that are its children.
fn servers_of(owner: u32) -> Vec<String> {
    let stat = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent = |pid: &str| stat(pid).rsplit(')').next().unwrap().split_whitespace().nth(1).map(str::to_owned);
    let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let is_ours = |pid: &String| {
        let warden = parent(pid).unwrap_or_default();
        parent(&warden) == Some(owner.to_string())
    };
    pids.filter(|pid| pid.parse::<u32>().is_ok()).filter(is_ours).collect()
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < until, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn servers_end_with_an_experiment_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = mutext(dir.path(), &["--spawn", "redis", "--trials", "1000"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut servers = Vec::new();
    wait_until("the start of a server", || {
        servers = servers_of(child.id());
        !servers.is_empty()
    });
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the end of the server", || servers.iter().all(|pid| !Path::new("/proc").join(pid).exists()));
}

#[test]
fn a_missing_server_is_named_with_what_to_install() {
    let dir = tempfile::tempdir().unwrap();
    let output = mutext(dir.path(), &["--spawn", "redis", "--trials", "1"]).env("PATH", "/nowhere").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(said.contains("redis-server is not installed") && said.contains("apt-get install"), "{said}");
}

#[test]
fn locks_in_a_spawned_redis_protect_embedded_documents() {
    let dir = tempfile::tempdir().unwrap();
    let output = mutext(dir.path(), &["--spawn", "redis", "--trials", "2", "--json"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // What it costs depends on how busy the machine is; 1 says that it cost too much.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{said}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    for safe in ["locking", "protected"] {
        assert_eq!(found["treatments"][safe]["acknowledged_updates"], 24, "{found}");
        assert_eq!(found["treatments"][safe]["corrupt_trials"], 0, "{found}");
    }
    let metadata = std::fs::read_to_string(dir.path().join(DATA).join("metadata.yaml")).unwrap();
    for part in ["spawned Redis server v=", "appendonly=no", "--spawn redis", "redis://127.0.0.1:"] {
        assert!(metadata.contains(part), "{part} is missing in {metadata}");
    }
}
