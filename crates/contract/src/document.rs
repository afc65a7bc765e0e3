//! Documents: content, revisions, and the commits that change them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{AgentName, DocumentPath, Fence, IdempotencyKey};

/// A document's version number: 1, 2, 3, … A deletion takes one too, so that no number is ever used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in a context's feed of commits. Opaque to callers but for its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(pub u64);

impl Cursor {
    /// Before the first commit.
    pub const START: Self = Self(0);
}

/// What a document's text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// JSON, kept byte for byte as it was written.
    Json,
}

/// What a document holds: UTF-8 text or JSON. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    kind: Kind,
    text: Arc<str>,
}

/// Text that was to be JSON and is not.
#[derive(Debug, thiserror::Error)]
#[error("the content is not valid JSON at line {line}, column {column}: {source}")]
pub struct InvalidJson {
    /// Where it fails, from 1.
    pub line: usize,
    /// Where it fails, from 1.
    pub column: usize,
    /// What the parser says.
    pub source: serde_json::Error,
}

impl From<serde_json::Error> for InvalidJson {
    fn from(source: serde_json::Error) -> Self {
        Self { line: source.line(), column: source.column(), source }
    }
}

impl Content {
    /// Text as it is.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self { kind: Kind::Text, text: text.into() }
    }

    /// JSON text, checked and kept byte for byte.
    pub fn parse_json(text: impl Into<Arc<str>>) -> Result<Self, InvalidJson> {
        let text = text.into();
        serde_json::from_str::<serde::de::IgnoredAny>(&text)?;
        Ok(Self { kind: Kind::Json, text })
    }

    /// A value as JSON.
    pub fn json(value: &impl Serialize) -> Result<Self, InvalidJson> {
        Ok(Self { kind: Kind::Json, text: serde_json::to_string(value)?.into() })
    }

    /// What it is.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Its text: for JSON, as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its size in bytes.
    pub fn size(&self) -> usize {
        self.text.len()
    }

    /// Its JSON as a value of `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, InvalidJson> {
        Ok(serde_json::from_str(&self.text)?)
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

/// A document as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Where it lies.
    pub path: DocumentPath,
    /// Its version.
    pub revision: Revision,
    /// What it holds.
    pub content: Content,
    /// Who wrote this revision.
    pub author: AgentName,
    /// When, by the store's clock: for people to read, never for deciding.
    pub written_at: SystemTime,
    /// When it is gone by itself, by the store's clock; `None`: never.
    pub expires_at: Option<SystemTime>,
}

/// One past revision of a document; `content` is `None` where it was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastRevision {
    /// Its version.
    pub revision: Revision,
    /// What it held; `None` for a deletion.
    pub content: Option<Content>,
    /// Who wrote it.
    pub author: AgentName,
    /// Why, in the author's words.
    pub message: Option<String>,
    /// When, by the store's clock.
    pub written_at: SystemTime,
    /// Whether it replaced what was there without a precondition.
    pub overwrote: bool,
}

/// A document in a listing, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it lies.
    pub path: DocumentPath,
    /// Its version.
    pub revision: Revision,
    /// What it holds.
    pub kind: Kind,
    /// Its size in bytes.
    pub size: usize,
    /// Who wrote this revision.
    pub author: AgentName,
    /// When, by the store's clock.
    pub written_at: SystemTime,
    /// When it is gone by itself, by the store's clock; `None`: never.
    pub expires_at: Option<SystemTime>,
}

/// What a write demands of the document that it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precondition {
    /// Nothing: an explicit overwrite. Under a lease, that the document is still as the lease has last read or written
    /// it.
    Any,
    /// That there is none.
    Absent,
    /// That it stands at exactly this revision: compare-and-set.
    Exact(Revision),
}

impl Precondition {
    /// That the document is still as it was read.
    pub fn unchanged(document: Option<&Document>) -> Self {
        document.map_or(Self::Absent, |document| Self::Exact(document.revision))
    }

    /// Whether a document at `current` meets it; `None` where there is no document.
    pub fn is_met_by(self, current: Option<Revision>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => current.is_none(),
            Self::Exact(revision) => current == Some(revision),
        }
    }
}

impl fmt::Display for Precondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Absent => f.write_str("absent"),
            Self::Exact(revision) => write!(f, "revision {revision}"),
        }
    }
}

/// What happens to one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It holds this from now on.
    Put(Content),
    /// It is gone; its history stays.
    Delete,
}

/// When a document that is written is gone by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Expiry {
    /// As it was: a new document stays.
    #[default]
    Keep,
    /// Never.
    Never,
    /// So long after this write, by the store's clock.
    After(Duration),
}

/// One document's part in a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which document.
    pub path: DocumentPath,
    /// What must hold for it.
    pub precondition: Precondition,
    /// What happens to it.
    pub action: Action,
    /// When it is gone by itself.
    pub expiry: Expiry,
    /// Whether it is refused where it would drop more than half of what is there: see [`Change::erodes`].
    pub guarded: bool,
}

impl Change {
    /// A smaller document is not guarded against losing most of itself: a word may well take the place of a sentence.
    pub const GUARDED_BYTES_MIN: usize = 64;

    /// That `action` happens to the document at `path` where `precondition` holds.
    pub const fn new(path: DocumentPath, precondition: Precondition, action: Action) -> Self {
        Self { path, precondition, action, expiry: Expiry::Keep, guarded: false }
    }

    /// How many bytes the document has after it.
    pub fn size(&self) -> usize {
        match &self.action {
            Action::Put(content) => content.size(),
            Action::Delete => 0,
        }
    }

    /// Whether it would drop more than half of a document of so many bytes, and is to be refused then. Writers who
    /// send a whole document from memory wear it down a little each time; this is the largest wear that passes.
    pub fn erodes(&self, bytes: usize) -> bool {
        let is_put = matches!(self.action, Action::Put(_));
        self.guarded && is_put && bytes >= Self::GUARDED_BYTES_MIN && self.size() < bytes.div_ceil(2)
    }
}

/// One atomic change of one or more documents of one context: all or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The documents' parts; each path at most once.
    pub changes: Vec<Change>,
    /// The lease under which it is made, if any: refused where its token is behind.
    pub fence: Option<Fence>,
    /// Who makes it.
    pub author: AgentName,
    /// Why, in the author's words.
    pub message: Option<String>,
    /// Names the intention, so that a retry happens once.
    pub key: Option<IdempotencyKey>,
    /// What is intended, where that is more than what is written: an edit, say, whose outcome depends on what was there
    /// when it was made. A retry with the same words is the same intention, whatever it would write by then.
    pub intent: Option<String>,
}

impl Commit {
    /// The most documents that one commit may change.
    pub const CHANGES_MAX: usize = 1000;

    /// An empty commit by `author`.
    pub const fn new(author: AgentName) -> Self {
        Self { changes: Vec::new(), fence: None, author, message: None, key: None, intent: None }
    }

    /// Adds: the document at `path` holds `content` from now on.
    #[must_use]
    pub fn put(mut self, path: DocumentPath, content: Content, precondition: Precondition) -> Self {
        self.changes.push(Change::new(path, precondition, Action::Put(content)));
        self
    }

    /// Adds: the document at `path` is deleted.
    #[must_use]
    pub fn delete(mut self, path: DocumentPath, precondition: Precondition) -> Self {
        self.changes.push(Change::new(path, precondition, Action::Delete));
        self
    }

    /// Says of the change added last when its document is gone by itself.
    #[must_use]
    pub fn expiring(mut self, expiry: Expiry) -> Self {
        if let Some(change) = self.changes.last_mut() {
            change.expiry = expiry;
        }
        self
    }

    /// Has the change added last refused where it would drop more than half of its document.
    #[must_use]
    pub fn guarded(mut self) -> Self {
        if let Some(change) = self.changes.last_mut() {
            change.guarded = true;
        }
        self
    }

    /// Tells, part by part, what makes two commits the same intention: documents, preconditions, content and message;
    /// not the lease that it is made under. Where [`Commit::intent`] says what is intended, that counts alone.
    pub fn intention(&self, mut tell: impl FnMut(&[u8])) {
        if let Some(intent) = &self.intent {
            tell(b"intent");
            tell(intent.as_bytes());
            return;
        }
        for change in &self.changes {
            tell(change.path.as_str().as_bytes());
            tell(change.precondition.to_string().as_bytes());
            match &change.action {
                Action::Put(content) => {
                    tell(if content.kind() == Kind::Json { b"json" } else { b"text" });
                    tell(content.as_str().as_bytes());
                }
                Action::Delete => tell(b"delete"),
            }
        }
        tell(self.message.as_deref().unwrap_or_default().as_bytes());
    }

    /// Makes it under a lease.
    #[must_use]
    pub fn fenced_by(mut self, fence: Fence) -> Self {
        self.fence = Some(fence);
        self
    }

    /// Says why.
    #[must_use]
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// Names the intention, so that a retry happens once.
    #[must_use]
    pub fn key(mut self, key: IdempotencyKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Says what is intended, where that is more than what is written: see [`Commit::intent`].
    #[must_use]
    pub fn intending(mut self, intent: impl Into<String>) -> Self {
        self.intent = Some(intent.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_kept_as_it_was_written() {
        let text = "{ \"b\": 1.10,\n  \"a\": 12345678901234567890123 }";
        assert_eq!(Content::parse_json(text).unwrap().as_str(), text);
    }

    #[test]
    fn broken_json_says_where() {
        let error = Content::parse_json("{\n  \"a\": }").unwrap_err();
        assert_eq!((error.line, error.column), (2, 8));
    }

    #[test]
    fn a_precondition_tells_absent_from_a_revision() {
        assert!(Precondition::Absent.is_met_by(None));
        assert!(!Precondition::Absent.is_met_by(Some(Revision(1))));
        assert!(!Precondition::Exact(Revision(1)).is_met_by(None));
        assert!(Precondition::Exact(Revision(1)).is_met_by(Some(Revision(1))));
        assert!(Precondition::Any.is_met_by(None));
    }
}
