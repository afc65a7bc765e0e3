//! `mutext experiment locking`, with real agents as processes: it finds corruption where there is some, and only there.

#![expect(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

const DATA: &str = "assets/data/experiments/locking-mechanism";

fn mutext(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mutext"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MUTEXT_")) {
        command.env_remove(name);
    }
    command.current_dir(dir).args(arguments).stdin(Stdio::null());
    command
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    mutext(dir, arguments).output().unwrap()
}

fn answer(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn it_leaves_the_files_that_it_names_and_the_report_is_rebuilt_from_them() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["experiment", "locking", "--trials", "2", "--seed", "11"]);
    let (shown, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // What two trials cost on a busy machine may well miss the criterion of overhead; that they corrupt nothing may not.
    let status = output.status.code();
    let is_slow = shown.lines().any(|line| line.starts_with("overhead: ") && line.trim_end().ends_with("FAIL"));
    assert_eq!(status, Some(i32::from(is_slow)), "{shown}{said}");
    assert!(shown.lines().all(|line| !line.starts_with("no corruption") || line.contains("pass")), "{shown}");
    for part in ["baseline", "locking", "protected", "0 of 2", "no corruption: locking", "pass"] {
        assert!(shown.contains(part), "{part} is missing in {shown}");
    }
    let files = [
        "baseline-test-results.csv",
        "locking-test-results.csv",
        "update-samples.csv",
        "performance-comparison.json",
        "metadata.yaml",
        "README.md",
        "REPORT.md",
        "report.html",
    ];
    for file in files {
        assert!(std::fs::metadata(dir.path().join(DATA).join(file)).unwrap().len() > 0, "{file}");
    }
    for chart in ["corrupt-trials", "overhead", "acquisition-time", "throughput"] {
        for ending in ["svg", "png"] {
            let file = dir.path().join(format!("assets/diagrams/locking-mechanism/{chart}.{ending}"));
            assert!(file.is_file(), "{}", file.display());
        }
    }
    let left: Vec<_> =
        std::fs::read_dir(dir.path().join(".mutext")).unwrap().map(|trial| trial.unwrap().path()).collect();
    let inside = |trial: &std::path::PathBuf| std::fs::read_dir(trial).map(|files| files.flatten().collect::<Vec<_>>());
    assert!(left.is_empty(), "trial stores are left behind: {:?}", left.iter().map(inside).collect::<Vec<_>>());
    let report = dir.path().join(DATA).join("report.html");
    let before = std::fs::read_to_string(&report).unwrap();
    std::fs::remove_file(&report).unwrap();
    assert_eq!(run(dir.path(), &["experiment", "report", DATA]).status.code(), status);
    assert_eq!(std::fs::read_to_string(&report).unwrap(), before);
}

#[test]
fn the_same_seed_repeats_the_same_choices() {
    let choices = |dir: &Path| {
        let output = run(
            dir,
            &["experiment", "locking", "--trials", "1", "--treatments", "optimistic", "--seed", "3", "--json"],
        );
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let rows = std::fs::read_to_string(dir.join(DATA).join("locking-test-results.csv")).unwrap();
        rows.lines().nth(1).unwrap().split(',').nth(3).unwrap().to_owned()
    };
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert_eq!(choices(one.path()), choices(other.path()));
}

/// What the fence is for: an agent that sleeps past its lease and then writes.
const PAUSED: [&str; 10] =
    ["experiment", "locking", "--profile", "hot", "--pause", "1500ms", "--trials", "2", "--json", "--seed=4"];

#[test]
fn an_agent_that_is_stopped_past_its_lease_corrupts_only_what_is_not_fenced() {
    let dir = tempfile::tempdir().unwrap();
    let treatments = ["--treatments", "unfenced,locking,protected,optimistic,adaptive"];
    let output = run(dir.path(), &[&PAUSED[..], &treatments].concat());
    let found = answer(&output);
    assert_eq!(output.status.code(), Some(0), "{found}");
    assert!(found["treatments"]["unfenced"]["corrupt_trials"].as_u64() > Some(0), "{found}");
    assert!(found["treatments"]["unfenced"]["lost_updates"].as_u64() > Some(0), "{found}");
    for safe in ["locking", "protected", "optimistic", "adaptive"] {
        assert_eq!(found["treatments"][safe]["corrupt_trials"], 0, "{safe}: {found}");
        assert_eq!(found["treatments"][safe]["acknowledged_updates"], 400, "{safe}: {found}");
    }
    let refused = |name: &str| found["treatments"]["locking"][name].as_u64().unwrap();
    assert!(refused("lost_leases") > 0, "the stopped agent's write was never refused: {found}");
}

#[cfg(feature = "sabotage")]
#[test]
fn with_the_fence_check_switched_off_the_checkers_report_corruption() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("embedded:{}?fence=off", dir.path().join("store").display());
    let output = run(dir.path(), &[&PAUSED[..], &["--treatments", "locking", "--store", &store]].concat());
    let found = answer(&output);
    assert_eq!(output.status.code(), Some(1), "{found}");
    assert!(found["treatments"]["locking"]["corrupt_trials"].as_u64() > Some(0), "{found}");
    assert_eq!(found["passed"], false);
    let report = std::fs::read_to_string(dir.path().join(DATA).join("REPORT.md")).unwrap();
    assert!(report.contains("was acknowledged and is lost"), "the report shows no evidence");
}

#[test]
fn ctrl_c_ends_it_with_what_was_measured_so_far() {
    let dir = tempfile::tempdir().unwrap();
    let mut command =
        mutext(dir.path(), &["experiment", "locking", "--trials", "1000", "--treatments", "baseline,locking"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Each trial has a directory of its own while it runs. Where the fifth is there, two rounds are over.
    let mut seen = BTreeSet::new();
    while seen.len() < 5 {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself after {seen:?}");
        let trials = std::fs::read_dir(dir.path().join(".mutext")).into_iter().flatten();
        seen.extend(trials.map(|trial| trial.unwrap().file_name()));
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(130), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    assert!(shown.contains("stopped before its end"), "{shown}");
    let metadata = std::fs::read_to_string(dir.path().join(DATA).join("metadata.yaml")).unwrap();
    assert!(metadata.contains("interrupted: true"), "{metadata}");
    let rows = std::fs::read_to_string(dir.path().join(DATA).join("baseline-test-results.csv")).unwrap();
    assert!(rows.lines().count() > 2, "{rows}");
    assert!(std::fs::read_dir(dir.path().join(".mutext")).unwrap().next().is_none(), "trial stores are left behind");
}

#[test]
fn what_it_cannot_do_it_says_before_it_begins() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, status, parts) in [
        (vec!["--spawn", "redis,mysql"], 2, ["mysql", "redis, postgres"]),
        (
            vec!["--spawn", "redis", "--locks", "redis://:secret@host"],
            2,
            ["--spawn redis", "--locks names redis://:***@host"],
        ),
        (vec!["--spawn", "postgres", "--store", "embedded:x"], 2, ["--spawn postgres", "--store names embedded:"]),
        (vec!["--compare", "java"], 2, ["java", "python"]),
        (vec!["--compare", "python"], 2, ["--compare python", "--spawn redis,postgres"]),
        (vec!["--compare", "python", "--spawn", "redis"], 2, ["PostgreSQL", "--store"]),
        (vec!["--treatments", "python locking"], 2, ["python locking", "protected"]),
        (vec!["--store", "zookeeper://me:secret@host"], 2, ["zookeeper", "embedded:DIR"]),
        (vec!["--treatments", "baseline,wishful"], 2, ["wishful", "protected"]),
        (vec!["--profile", "cold"], 2, ["cold", "published"]),
        (vec!["--trials", "0"], 2, ["0", "--trials"]),
        (vec!["--pause", "1s", "--ttl", "2s"], 2, ["--pause 1s", "2s"]),
        (vec!["--ttl", "10ms"], 2, ["TTL of 10ms", "100ms"]),
        (vec!["--wait", "0s"], 2, ["wait of 0ns", "1ms"]),
    ] {
        let output = run(dir.path(), &[&["experiment", "locking"], &arguments[..]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{arguments:?}: {said}");
        assert!(!said.contains("secret"), "{said}");
    }
    let output = run(dir.path(), &["experiment", "report", "nowhere"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(said.contains("nowhere") && said.contains("--out"), "{said}");
}
