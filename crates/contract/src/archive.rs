//! Commits with all that they wrote: what an archive of a context is made of.

use std::time::SystemTime;

use crate::{AgentName, Content, Cursor, DocumentPath, Revision};

/// A commit with all that it wrote, for archives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedCommit {
    /// Its place in the feed that it was made in.
    pub cursor: Cursor,
    /// Who made it.
    pub author: AgentName,
    /// Why.
    pub message: Option<String>,
    /// When, by the store's clock.
    pub written_at: SystemTime,
    /// What it made of each document.
    pub changes: Vec<ArchivedChange>,
}

/// What a commit made of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedChange {
    /// Which document.
    pub path: DocumentPath,
    /// Its new revision.
    pub revision: Revision,
    /// What it held from then on; `None`: it was deleted.
    pub content: Option<Content>,
    /// Whether it replaced what was there without a precondition.
    pub overwrote: bool,
    /// When the document is gone by itself: with its last revision alone.
    pub expires_at: Option<SystemTime>,
}
