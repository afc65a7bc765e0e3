//! `mutext experiment engines`: real servers of several engines, the same experiment on each, one table.

#![expect(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn engines(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mutext"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MUTEXT_")) {
        command.env_remove(name);
    }
    command.current_dir(dir).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A smaller run than the published one, of every engine that there is.
#[test]
fn every_engine_keeps_its_promises_and_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    let arguments =
        ["experiment", "engines", "--spawn", "all", "--trials", "2", "--probes", "1", "--contend", "500ms", "--json"];
    let output = engines(dir.path(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = answer["engines"].as_array().unwrap();
    let names: Vec<&str> = found.iter().map(|engine| engine["name"].as_str().unwrap()).collect();
    assert_eq!(names, ALL);
    for engine in found {
        let name = &engine["name"];
        for treatment in engine["experiment"]["treatments"].as_array().unwrap() {
            let corrupt = treatment["corrupt_trials"].as_u64().unwrap();
            assert!(treatment["treatment"] == "baseline" || corrupt == 0, "{name}: {treatment}");
            assert_eq!(treatment["trials"], 2, "{name}: {treatment}");
        }
        assert!(engine["free_acquire_ms"]["n"].as_u64().unwrap() >= 100, "{name}: {engine}");
        assert!(engine["hand_over_ms"]["n"].as_u64().unwrap() > 0, "{name}: {engine}");
        assert_eq!((&engine["overlaps"], &engine["errors"]), (&Value::from(0), &Value::from([0; 0])), "{name}");
    }
    for file in
        ["data/experiments/engines/REPORT.md", "data/experiments/engines/probes.csv", "diagrams/engines/engines.png"]
    {
        assert!(std::fs::metadata(dir.path().join("assets").join(file)).unwrap().len() > 0, "{file}");
    }
    let report = std::fs::read_to_string(dir.path().join("assets/data/experiments/engines/REPORT.md")).unwrap();
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/engines/README.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let declared = report.split("## What each engine declares").nth(1).unwrap();
    for row in declared.lines().filter(|line| line.starts_with('|')).take(2 + ALL.len()) {
        assert!(guide.contains(row), "docs/engines/README.md does not say what the engines declare:\n{row}");
    }
    // All of it comes back from the files: the report is the same, byte for byte.
    let data = dir.path().join("assets/data/experiments/engines");
    std::fs::remove_file(data.join("REPORT.md")).unwrap();
    let rebuilt = engines(dir.path(), &["experiment", "report", "--json"]);
    assert_eq!(rebuilt.status.code(), Some(0), "{}", said(&rebuilt));
    assert_eq!(serde_json::from_slice::<Value>(&rebuilt.stdout).unwrap(), answer);
    assert_eq!(std::fs::read_to_string(data.join("REPORT.md")).unwrap(), report);
    assert!(std::fs::read_dir(dir.path().join(".mutext")).unwrap().next().is_none(), "trial stores are left behind");
}

/// In the order of the table.
const ALL: [&str; 10] =
    ["embedded", "redis", "postgres", "sentinel", "cluster", "redlock", "etcd", "etcd3", "consul", "consul3"];

#[test]
fn an_engine_that_does_not_exist_is_refused_with_those_that_do() {
    let dir = tempfile::tempdir().unwrap();
    let output = engines(dir.path(), &["experiment", "engines", "--spawn", "zookeeper"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("embedded, redis, postgres"), "{}", said(&output));
}
