//! Trouble with an engine: what failed, on what, and whether anything may have happened.

use std::error::Error;
use std::fmt;

/// Trouble with an engine. Expected answers (contention, conflicts) are values; this is for the rest.
#[derive(Debug, thiserror::Error)]
#[error("{subject}: {kind}{}{}", Hint(remedy), Tail(effect))]
pub struct EngineError {
    /// What it is about: a file, an address, an operation.
    pub subject: String,
    /// What went wrong.
    pub kind: TroubleKind,
    /// What to do about it; may be empty.
    pub remedy: &'static str,
    /// Whether anything may have happened.
    pub effect: Effect,
    /// What the engine's client says.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

struct Hint<'a>(&'a str);
struct Tail<'a>(&'a Effect);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; {}", self.0) }
    }
}

impl fmt::Display for Tail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Effect::None => Ok(()),
            Effect::Unknown => {
                f.write_str(" (it may have happened: read again, or retry with the same idempotency key)")
            }
        }
    }
}

/// What went wrong with an engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TroubleKind {
    /// It cannot be reached, or has gone away.
    #[error("is not available")]
    Unavailable,
    /// Others kept it busy until the deadline.
    #[error("was kept busy by others until the deadline")]
    Busy,
    /// It may not be written.
    #[error("cannot be written: it is read-only")]
    ReadOnly,
    /// What it holds is damaged.
    #[error("is damaged or not what it should be")]
    Corrupt,
    /// Its disk or quota is full.
    #[error("is full")]
    Full,
    /// It was written by a newer Mutext.
    #[error("has schema version {found}, and this build knows up to {known}")]
    TooNew {
        /// The version found.
        found: u32,
        /// The highest that this build knows.
        known: u32,
    },
    /// It is set up in a way that cannot work.
    #[error("is not set up rightly: {0}")]
    Misconfigured(String),
    /// It answered with something unexpected.
    #[error("failed: {0}")]
    Failed(String),
}

/// Whether anything may have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Certainly nothing.
    None,
    /// It may have happened.
    Unknown,
}

impl EngineError {
    /// Trouble without effect.
    pub fn new(subject: impl Into<String>, kind: TroubleKind, remedy: &'static str) -> Self {
        Self { subject: subject.into(), kind, remedy, effect: Effect::None, source: None }
    }

    /// Keeps what the engine's client said.
    #[must_use]
    pub fn caused_by(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Says whether anything may have happened.
    #[must_use]
    pub const fn with_effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }
}
