//! Which crate may see which, what opens a file, which engines are enrolled, which licences and sources are let in.

#![expect(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Each crate, and those of ours that it may see. Whatever is not written here is a change of design.
const ARROWS: [(&str, &[&str]); 15] = [
    ("mutext-contract", &[]),
    ("mutext-history", &[]),
    ("mutext-tidy", &[]),
    ("mutext-conformance", &["mutext-contract"]),
    ("mutext-testbed", &[]),
    ("mutext-edit", &["mutext-contract"]),
    ("mutext-embedded", &["mutext-contract"]),
    // Addresses are one grammar, whichever engine they lead to.
    ("mutext-reach", &["mutext-contract"]),
    ("mutext-etcd", &["mutext-contract", "mutext-reach"]),
    ("mutext-redis", &["mutext-contract", "mutext-reach"]),
    ("mutext-consul", &["mutext-contract", "mutext-reach"]),
    ("mutext-postgres", &["mutext-contract"]),
    (
        "mutext",
        &[
            "mutext-contract",
            "mutext-edit",
            "mutext-embedded",
            "mutext-etcd",
            "mutext-redis",
            "mutext-consul",
            "mutext-postgres",
        ],
    ),
    ("mutext-lab", &["mutext", "mutext-history", "mutext-testbed"]),
    ("mutext-cli", &["mutext", "mutext-edit", "mutext-lab", "mutext-testbed"]),
];

/// Crates that implement a contract, and must pass its suites.
const ENGINES: [(&str, &[&str]); 5] = [
    ("embedded", &["lock_suite!", "store_suite!"]),
    ("etcd", &["lock_suite!"]),
    ("redis", &["lock_suite!"]),
    ("consul", &["lock_suite!"]),
    ("postgres", &["lock_suite!", "store_suite!"]),
];

/// Engines that are reached in several ways: each way passes the suites in a file of its own.
const WAYS: [(&str, &[&str]); 1] =
    [("redis", &["conformance_sentinel.rs", "conformance_cluster.rs", "conformance_redlock.rs"])];

/// Licences that may be linked into a program under MIT or Apache-2.0.
const LICENCES: [&str; 14] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "Unlicense",
    "CC0-1.0",
    "Unicode-3.0",
    "BSL-1.0",
    "MIT-0",
    "OFL-1.1",
];

const LINES_MAX: usize = 700;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn metadata(arguments: &[&str]) -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version", "1", "--offline", "--locked"]).args(arguments).current_dir(root());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// This machine's target: what others would link is not on the disk.
fn host() -> String {
    let version = Command::new("rustc").arg("-vV").output().unwrap().stdout;
    let version = String::from_utf8(version).unwrap();
    version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn crates_see_only_those_below_them() {
    let metadata = metadata(&["--no-deps"]);
    let allowed: BTreeMap<_, _> = ARROWS.into_iter().collect();
    for package in metadata["packages"].as_array().unwrap() {
        let name = text(package, "name");
        let may_see = allowed.get(name).unwrap_or_else(|| panic!("{name} is not in ARROWS: say what it may see"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let (seen, kind) = (text(dependency, "name"), dependency["kind"].as_str());
            let ours = allowed.contains_key(seen);
            let of_tests = ["mutext-conformance", "mutext-testbed"].contains(&seen) && kind == Some("dev");
            assert!(!ours || of_tests || may_see.contains(&seen), "{name} sees {seen}, which no arrow allows");
        }
    }
    assert_eq!(metadata["packages"].as_array().unwrap().len(), allowed.len(), "ARROWS names a crate that is gone");
}

#[test]
fn every_engine_is_enrolled_in_its_suites() {
    for (engine, suites) in ENGINES {
        let file = root().join("crates").join(engine).join("tests/conformance.rs");
        let enrolment = std::fs::read_to_string(&file).unwrap_or_else(|_| panic!("{} is missing", file.display()));
        for suite in suites {
            assert!(enrolment.contains(suite), "{engine} does not run {suite}");
        }
    }
}

#[test]
fn every_way_to_an_engine_is_enrolled_as_well() {
    for (engine, files) in WAYS {
        for file in files {
            let file = root().join("crates").join(engine).join("tests").join(file);
            let enrolment = std::fs::read_to_string(&file).unwrap_or_else(|_| panic!("{} is missing", file.display()));
            for suite in ["lock_suite!", "model_suite!"] {
                assert!(enrolment.contains(suite), "{} does not run {suite}", file.display());
            }
        }
    }
}

#[test]
fn every_file_opens_by_saying_what_lives_in_it_and_none_hides_too_much() {
    let mut files = Vec::new();
    sources(&root().join("crates"), &mut files);
    assert!(files.len() > 30, "only {} files found", files.len());
    for file in files {
        let source = std::fs::read_to_string(&file).unwrap();
        assert!(source.starts_with("//!"), "{} does not open with //!", file.display());
        let lines = source.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines: what is it hiding?", file.display());
    }
}

#[test]
fn every_dependency_has_a_licence_and_a_source_that_are_let_in() {
    let metadata = metadata(&["--all-features", "--filter-platform", &host()]);
    for package in metadata["packages"].as_array().unwrap() {
        let (name, licence) = (text(package, "name"), text(package, "license"));
        let any_of = licence.replace('/', " OR ");
        let one_is_let_in = any_of.split(" OR ").any(|choice| {
            choice
                .trim_matches(['(', ')', ' '])
                .split(" AND ")
                .all(|part| LICENCES.contains(&part.trim_matches(['(', ')', ' '])))
        });
        assert!(one_is_let_in, "{name} is under {licence:?}, which is not let in");
        let source = package["source"].as_str();
        let known =
            source.is_none_or(|source| source.starts_with("registry+https://github.com/rust-lang/crates.io-index"));
        assert!(known, "{name} comes from {source:?}, not from crates.io");
    }
}

#[test]
fn unsafe_code_is_forbidden_everywhere() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("unsafe_code = \"forbid\""));
    for package in metadata(&["--no-deps"])["packages"].as_array().unwrap() {
        let manifest = std::fs::read_to_string(text(package, "manifest_path")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{} has lints of its own", text(package, "name"));
    }
}
