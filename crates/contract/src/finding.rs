//! What an examination of an engine finds: settings and circumstances that would endanger what Mutext promises.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Fine,
    /// Worth knowing; nothing needs to change.
    Note,
    /// Slower, or less durable, than it could be.
    Warning,
    /// Work or leases can be lost, or it does not work at all.
    Danger,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fine => "fine",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Danger => "danger",
        })
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at, named as the engine names it: `maxmemory-policy`, `server version`.
    pub subject: String,
    /// How much it matters.
    pub severity: Severity,
    /// What was found, with its value.
    pub found: String,
    /// What to change, and why; empty where nothing needs to.
    pub remedy: String,
}

impl Finding {
    /// Something that is as it should be.
    pub fn fine(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self { subject: subject.into(), severity: Severity::Fine, found: found.into(), remedy: String::new() }
    }

    /// Something that is not.
    pub fn new(
        subject: impl Into<String>,
        severity: Severity,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { subject: subject.into(), severity, found: found.into(), remedy: remedy.into() }
    }
}
