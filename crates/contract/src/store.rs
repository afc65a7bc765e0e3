//! The second contract: a document store.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;

use crate::{
    AgentName, Claim, Commit, ContextName, Cursor, Deadline, Document, DocumentPath, EngineError, Entry, Fence,
    FencingToken, Finding, IdempotencyKey, LeaseId, PastRevision, PathPrefix, Precondition, Revision,
    StoreCapabilities,
};

/// How a commit ended. A refusal is a value, not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It happened, durably as far as the engine promises.
    Committed(Committed),
    /// Nothing happened.
    Refused(Refusal),
}

/// A commit that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its place in the context's feed.
    pub cursor: Cursor,
    /// The new revision of each document, in the commit's order.
    pub revisions: Vec<(DocumentPath, Revision)>,
    /// Whether it had happened before under the same idempotency key, so that this call changed nothing.
    pub replayed: bool,
}

/// Which check failed, and what is there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A precondition failed.
    Conflict(Box<Conflict>),
    /// The fencing token is behind.
    Fenced(Box<Fenced>),
    /// The lease was revoked, whether or not anybody has held the lock since.
    Revoked {
        /// Who did it.
        by: AgentName,
        /// Why.
        reason: String,
    },
    /// The idempotency key has named another commit.
    KeyReused {
        /// The key.
        key: IdempotencyKey,
    },
}

/// A precondition that failed; it carries what the caller needs to rebase in one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Which document.
    pub path: DocumentPath,
    /// What the write demanded.
    pub precondition: Precondition,
    /// What is there now; `None` where there is no document.
    pub current: Option<Document>,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is ", self.path)?;
        match &self.current {
            Some(document) => write!(f, "at revision {} by {}", document.revision, document.author)?,
            None => f.write_str("absent")?,
        }
        match self.precondition {
            Precondition::Any => Ok(()),
            Precondition::Absent => f.write_str(", and the write was to create it"),
            Precondition::Exact(revision) => write!(f, ", and the write was made for revision {revision}"),
        }
    }
}

/// A token that is behind; the writer's lease has passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fenced {
    /// Which document.
    pub path: DocumentPath,
    /// The token that the write presented.
    pub presented: FencingToken,
    /// The highest that the document has seen.
    pub highest: FencingToken,
    /// What is there now.
    pub current: Option<Document>,
}

impl fmt::Display for Fenced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (presented, highest) = (self.presented.number(), self.highest.number());
        write!(
            f,
            "{} has seen token {}.{}, and this one is {}.{}",
            self.path, highest.0, highest.1, presented.0, presented.1
        )
    }
}

/// How a read under a lease ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FencedRead {
    /// What is there; from now on the document refuses older tokens.
    Read(Option<Document>),
    /// The token is behind: a later holder has been here.
    Fenced(Box<Fenced>),
    /// The lease was revoked.
    Revoked {
        /// Who did it.
        by: AgentName,
        /// Why.
        reason: String,
    },
}

/// A lease that is not to be good any more, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// The lease: every token that it owns.
    pub lease: LeaseId,
    /// Who held it; `None` where the lock service could not tell.
    pub holder: Option<AgentName>,
    /// What it covered; empty where the lock service could not tell.
    pub claims: Arc<[Claim]>,
    /// Who revokes it.
    pub by: AgentName,
    /// Why: told to whoever comes with one of its tokens.
    pub reason: String,
}

/// A revocation that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationRecord {
    /// What was revoked, by whom and why.
    pub revocation: Revocation,
    /// When, by the store's clock.
    pub at: SystemTime,
}

/// One page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// In the order of their paths.
    pub entries: Vec<Entry>,
    /// Ask for the next page after this path; `None` on the last.
    pub next: Option<DocumentPath>,
}

/// One commit in the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitRecord {
    /// Its place.
    pub cursor: Cursor,
    /// Who made it.
    pub author: AgentName,
    /// Why.
    pub message: Option<String>,
    /// When, by the store's clock.
    pub written_at: SystemTime,
    /// The documents that it changed, with their new revisions; `true` where it deleted one.
    pub changes: Vec<(DocumentPath, Revision, bool)>,
}

/// Documents with revisions, changed by commits that are checked and applied in one transaction.
///
/// Two parties meet here: an engine, which implements it, and the `mutext` library, which calls it.
///
/// **The checks** (idempotency key, revocation, fence, revision) and the write are one atomic step. **Dropping** a commit's
/// future does not stop the commit: it happens or not, and a retry under the same key learns which.
/// **Errors** say whether anything may have happened.
#[async_trait]
pub trait DocumentStore: EpochSource + fmt::Debug + Send + Sync + 'static {
    /// What this engine can do.
    fn capabilities(&self) -> StoreCapabilities;

    /// The document at `path`, or none.
    async fn read(
        &self,
        context: &ContextName,
        path: &DocumentPath,
        deadline: Deadline,
    ) -> Result<Option<Document>, EngineError>;

    /// The document at `path` read under a lease: it refuses older tokens from then on, so that no stale holder can
    /// slip a write under what this one has read.
    async fn read_fenced(
        &self,
        context: &ContextName,
        path: &DocumentPath,
        fence: &Fence,
        deadline: Deadline,
    ) -> Result<FencedRead, EngineError>;

    /// At most `limit` documents whose paths begin with `prefix`, after `after`.
    async fn list(
        &self,
        context: &ContextName,
        prefix: &PathPrefix,
        after: Option<&DocumentPath>,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Listing, EngineError>;

    /// All or nothing: every precondition, the fence and the key are checked with the write. Changes nothing where
    /// it is refused, but for the documents' highest tokens, which a good fence raises even then.
    async fn commit(&self, context: &ContextName, commit: &Commit, deadline: Deadline) -> Result<Outcome, EngineError>;

    /// At most `limit` revisions of a document, newest first, before `before`.
    async fn history(
        &self,
        context: &ContextName,
        path: &DocumentPath,
        before: Option<Revision>,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Vec<PastRevision>, EngineError>;

    /// At most `limit` commits after `after`, in commit order and without gaps. Waits for one until `deadline`.
    async fn changes(
        &self,
        context: &ContextName,
        after: Cursor,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Vec<CommitRecord>, EngineError>;

    /// Records that a lease's tokens are not admitted any more, as durably as a commit. A commit or fenced read that
    /// begins after this has returned and presents one of them is refused; one under way meanwhile comes before or
    /// after. Idempotent: the first revocation of a lease stands.
    ///
    /// The answer under an idempotency key is still given: it tells what happened before.
    async fn revoke(
        &self,
        context: &ContextName,
        revocation: &Revocation,
        deadline: Deadline,
    ) -> Result<(), EngineError>;

    /// At most `limit` revocations, newest first. They are kept as long as the documents.
    async fn revocations(
        &self,
        context: &ContextName,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Vec<RevocationRecord>, EngineError>;

    /// Looks at the engine's version, settings and reach, and says what would endanger its promises. Changes nothing.
    async fn examine(&self, deadline: Deadline) -> Result<Vec<Finding>, EngineError>;
}

/// Where epochs of fencing tokens come from: the document store, since it must be able to compare them.
#[async_trait]
pub trait EpochSource: fmt::Debug + Send + Sync + 'static {
    /// An epoch that this context has never seen, higher than all before it.
    async fn mint_epoch(&self, context: &ContextName, deadline: Deadline) -> Result<u64, EngineError>;
}

#[async_trait]
impl<S: EpochSource + ?Sized> EpochSource for Arc<S> {
    async fn mint_epoch(&self, context: &ContextName, deadline: Deadline) -> Result<u64, EngineError> {
        (**self).mint_epoch(context, deadline).await
    }
}
