//! The second contract: a document store.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout_at;

use crate::{
    AgentName, ArchivedCommit, Claim, Commit, ContextName, Cursor, Deadline, Document, DocumentPath, EngineError,
    Entry, Fence, FencingToken, Finding, Hit, IdempotencyKey, LeaseId, PastRevision, PathPrefix, Precondition, Query,
    Revision, StoreCapabilities, TroubleKind,
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
    /// Its place in the context's feed; where nothing was to be changed, the place of the last change before.
    pub cursor: Cursor,
    /// The revision at which each document stands now, in the commit's order: a new one, but for those that held
    /// already what was written to them.
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
    /// It would drop more than half of a document, and was to be refused then.
    Erodes(Erosion),
}

/// A write that would drop more than half of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erosion {
    /// Which document.
    pub path: DocumentPath,
    /// The revision that is there.
    pub revision: Revision,
    /// How many bytes that has.
    pub bytes: usize,
    /// How many would be left.
    pub left: usize,
}

impl fmt::Display for Erosion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, revision, bytes, left } = self;
        write!(f, "of the {bytes} bytes of {path} at revision {revision} only {left} would be left")
    }
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
            Precondition::Any => {
                f.write_str(", written by somebody without the lock since it was read under this lease")
            }
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

/// What the feed has after a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Feed {
    /// The next commits, in order and without gaps; none, where there are none yet.
    Page(Vec<CommitRecord>),
    /// Some of the commits after that place are forgotten: begin anew, with a look at the documents themselves.
    Gone {
        /// From here on none is missing.
        oldest: Cursor,
    },
}

impl Feed {
    /// The page; or, where some of it is forgotten, the place from which on nothing is.
    pub fn page(self) -> Result<Vec<CommitRecord>, Cursor> {
        match self {
            Self::Page(commits) => Ok(commits),
            Self::Gone { oldest } => Err(oldest),
        }
    }
}

/// Documents as of one place in the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Snapshot {
    /// A page of them, in the order of their paths; ask for the next one after that path.
    Page(Vec<Document>, Option<DocumentPath>),
    /// What was there at that place is forgotten.
    Gone {
        /// From here on nothing is missing.
        oldest: Cursor,
    },
}

/// Which past revisions are kept. The last revision of a document always is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// At most so many revisions of each document; `None`: any number.
    pub revisions: Option<u64>,
    /// Those that were replaced no longer than this ago; `None`: any age.
    pub age: Option<Duration>,
}

impl Retention {
    /// What a commit did is remembered under its idempotency key for so long at least, whatever else is forgotten.
    pub const KEYS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

    /// Whether everything is kept.
    pub const fn is_unbounded(&self) -> bool {
        self.revisions.is_none() && self.age.is_none()
    }
}

/// What tending a context has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tended {
    /// So many documents had expired and are deleted.
    pub expired: u64,
    /// So many past revisions are forgotten.
    pub forgotten: u64,
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
    ///
    /// A document that holds already what is written to it keeps its revision, and is not in the feed. Under a lease,
    /// a write without a precondition is for the revision that the lease has last read or written: where somebody
    /// without the lock has come in between, it is a conflict.
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
    ) -> Result<Feed, EngineError>;

    /// The place of the last commit, of this or another context, before which none is still to come: what is after it
    /// happened after this call began, or was under way then.
    async fn head(&self, context: &ContextName, deadline: Deadline) -> Result<Cursor, EngineError>;

    /// At most `limit` documents whose paths begin with `prefix`, after `after`, all as they were at the place `at`:
    /// pages of one place are one snapshot, whatever is committed meanwhile.
    async fn documents_at(
        &self,
        context: &ContextName,
        at: Cursor,
        prefix: &PathPrefix,
        after: Option<&DocumentPath>,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Snapshot, EngineError>;

    /// At most `limit` documents that the query finds, the best first. Documents are indexed by searches, not by
    /// commits: the first search after many changes takes longer.
    async fn search(
        &self,
        context: &ContextName,
        query: &Query,
        prefix: &PathPrefix,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Vec<Hit>, EngineError>;

    /// Deletes documents that have expired (none can be read since that moment), and forgets what `retention` does not
    /// keep. Does a bounded piece of work: more may be left.
    async fn tend(
        &self,
        context: &ContextName,
        retention: &Retention,
        deadline: Deadline,
    ) -> Result<Tended, EngineError>;

    /// Deletes a document with all that it ever held, and leaves a tombstone: a last revision that says who did it and
    /// why. Answers with that revision; none where nothing of the document is left already.
    async fn purge(
        &self,
        context: &ContextName,
        path: &DocumentPath,
        author: &AgentName,
        reason: &str,
        deadline: Deadline,
    ) -> Result<Option<Revision>, EngineError>;

    /// At most `limit` commits after `after` and up to `until`, in commit order, with all that they wrote; fewer, where
    /// they are large. What was forgotten before the first place that is left belongs to no archive.
    async fn archive(
        &self,
        context: &ContextName,
        after: Cursor,
        until: Cursor,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Vec<ArchivedCommit>, EngineError>;

    /// Brings archived commits, in their order, into a context that has no document yet: all of them or none, with
    /// their authors, times and revisions, and new places in the feed. Answers with the last place; none where the
    /// context has documents.
    async fn restore(
        &self,
        context: &ContextName,
        commits: &[ArchivedCommit],
        deadline: Deadline,
    ) -> Result<Option<Cursor>, EngineError>;

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
    /// An epoch that this context has never seen: above `above`, which is the last one that the caller remembers (zero
    /// where it remembers none), above all that were minted here, and above those of the tokens that its documents have
    /// seen, as far as those can have been minted ([`EPOCH_BELIEVED`]).
    ///
    /// A store that was put back, or that stands in for one that was ahead of it, does not know all that was minted. So
    /// an epoch is never below the seconds since 1970 by the store's clock either: as long as clocks go on, and a context
    /// has had at most one new epoch a second, what was forgotten is not minted again. None is above [`EPOCH_MAX`].
    /// Errors where there is none above `above`.
    async fn mint_epoch(&self, context: &ContextName, above: u64, deadline: Deadline) -> Result<u64, EngineError>;
}

/// The highest epoch: up to here the scripts and JSON readers of all engines count exactly.
pub const EPOCH_MAX: u64 = (1 << 53) - 1;

/// The highest epoch that a document's mark, or what a lock engine remembers, may raise those of a context to. A token of
/// a higher one was forged: were it believed, few epochs were left, or none, and the context would soon be without locks.
pub const EPOCH_BELIEVED: u64 = EPOCH_MAX - (1 << 32);

/// An epoch that a store is about to hand out to whoever remembers `above`, where it is as high as must be, and no higher
/// than may be; for engines.
pub fn within_epochs(epoch: u64, above: u64, context: &ContextName, subject: &str) -> Result<u64, EngineError> {
    if above < epoch && epoch <= EPOCH_MAX {
        return Ok(epoch);
    }
    let last = if epoch > EPOCH_MAX { EPOCH_MAX } else { above.min(EPOCH_MAX) };
    let what = format!("the context {context} would need an epoch above {last}, and there is none");
    let remedy = "somebody has written under a token that no lock engine grants: export the context, and import it into \
                  a new one";
    Err(EngineError::new(subject, TroubleKind::Failed(what), remedy))
}

/// Whose turn it is to have a context's epoch minted, among the callers of one engine: one epoch is enough, whoever finds
/// that it is missing. For engines.
#[derive(Debug, Default)]
pub struct Minting(Mutex<HashMap<ContextName, Weak<tokio::sync::Mutex<()>>>>);

impl Minting {
    /// The turn, which lasts until it is dropped. Whoever has it waits for the document store, and the others wait for
    /// that no longer than for anything else.
    pub async fn turn(&self, context: &ContextName, deadline: Deadline) -> Result<OwnedMutexGuard<()>, EngineError> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let turn = turns.get(context).and_then(Weak::upgrade).unwrap_or_default();
            turns.insert(context.clone(), Arc::downgrade(&turn));
            turn
        };
        timeout_at(deadline.instant(), turn.lock_owned()).await.map_err(|_| {
            let remedy = "another caller waits for an epoch: see that the document store answers, or wait longer";
            EngineError::new(format!("the epoch of {context}"), TroubleKind::Busy, remedy)
        })
    }
}

#[async_trait]
impl<S: EpochSource + ?Sized> EpochSource for Arc<S> {
    async fn mint_epoch(&self, context: &ContextName, above: u64, deadline: Deadline) -> Result<u64, EngineError> {
        (**self).mint_epoch(context, above, deadline).await
    }
}
