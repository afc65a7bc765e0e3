//! A peer: a program that is not ours and does the same work, to be measured beside us.
//!
//! Its agents speak the protocol of ours (see [`crate::agent`]), get the same choices of documents and pauses, and are
//! timed, judged and counted by the same code. Where and how it keeps documents is its own affair: one more process,
//! its keeper, makes them before a trial and hands them over after it. The command is called with one more argument:
//! `check`, `keeper` or `agent`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use mutext::Address;
use serde::{Deserialize, Serialize};

pub(crate) const AGENT: &str = "agent";
pub(crate) const KEEPER: &str = "keeper";

/// A peer that is there and works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The program, and its first arguments.
    pub command: Vec<OsString>,
    /// Where its documents lie.
    pub store: Address,
    /// Where its locks lie.
    pub locks: Address,
    /// What it runs with, one fact a line.
    pub facts: Vec<String>,
}

/// What a peer's keeper is told to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeeperTask {
    /// Where the documents lie.
    pub store: Address,
    /// The trial's context, which nobody else uses.
    pub context: String,
    /// The paths of the documents, each to begin as an empty list.
    pub documents: Vec<String>,
}

/// Why there is no peer to compare with.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// There is no source tree here.
    #[error(
        "the Python reproduction is not here: it comes with Mutext's source, in compare/python; run this command in the root of the source tree"
    )]
    NoSource,
    /// Its environment was not made yet.
    #[error("the Python reproduction is not set up: {} is missing; run {}", python.display(), setup.display())]
    NotSetUp {
        /// The interpreter.
        python: PathBuf,
        /// What makes it.
        setup: PathBuf,
    },
    /// It says that something is wrong.
    #[error("the Python reproduction does not work: {said}")]
    Broken {
        /// Its own words.
        said: String,
    },
}

/// A peer's program, which was asked whether it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    command: Vec<OsString>,
    facts: Vec<String>,
}

impl Program {
    /// The Python reproduction of the published experiment, from the first of `roots` that holds `compare/python`.
    pub fn python(roots: &[&Path]) -> Result<Self, PeerError> {
        let folders = roots.iter().filter_map(|root| root.join("compare/python").canonicalize().ok());
        let mut folders = folders.filter(|folder| folder.join("agent.py").is_file());
        let folder = folders.next().ok_or(PeerError::NoSource)?;
        let python = folder.join(".venv/bin/python");
        if !python.is_file() {
            return Err(PeerError::NotSetUp { python, setup: folder.join("setup") });
        }
        let command = vec![OsString::from(python), OsString::from(folder.join("agent.py"))];
        let facts = check(&command)?;
        Ok(Self { command, facts })
    }

    /// It, at work on these engines.
    pub fn on(self, store: Address, locks: Address) -> Peer {
        Peer { command: self.command, store, locks, facts: self.facts }
    }
}

/// Asks a peer whether it works, and what it runs with.
fn check(command: &[OsString]) -> Result<Vec<String>, PeerError> {
    let broken = |said: String| PeerError::Broken { said };
    let (program, arguments) = command.split_first().ok_or_else(|| broken("it has no program".to_owned()))?;
    let output = Command::new(program).args(arguments).arg("check").output();
    let output = output.map_err(|error| broken(format!("{} cannot be started: {error}", program.display())))?;
    if !output.status.success() {
        return Err(broken(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(|line| format!("peer: {line}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(root: &Path) -> Result<Program, PeerError> {
        Program::python(&[root])
    }

    #[test]
    fn what_is_missing_is_named_with_its_remedy() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(found(root.path()), Err(PeerError::NoSource)));
        let folder = root.path().join("compare/python");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("agent.py"), "").unwrap();
        let error = found(root.path()).unwrap_err().to_string();
        assert!(error.contains(".venv/bin/python is missing") && error.ends_with("compare/python/setup"), "{error}");
    }

    #[test]
    fn a_peer_that_does_not_work_is_heard() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("compare/python/.venv/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::write(root.path().join("compare/python/agent.py"), "").unwrap();
        let python = bin.join("python");
        for (script, outcome) in [
            ("#!/bin/sh\necho redis is not installed >&2; exit 1\n", Err("redis is not installed")),
            ("#!/bin/sh\necho Python 3; echo redis-py 8\n", Ok(2)),
        ] {
            std::fs::write(&python, script).unwrap();
            std::fs::set_permissions(&python, PermissionsExt::from_mode(0o755)).unwrap();
            match (found(root.path()), outcome) {
                (Err(error), Err(said)) => assert!(error.to_string().contains(said), "{error}"),
                (found, outcome) => assert_eq!(found.map(|peer| peer.facts.len()).ok(), outcome.ok()),
            }
        }
    }
}
