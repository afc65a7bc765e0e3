//! What can go wrong for a user of the library, with the data that a caller needs to go on.

use std::time::Duration;

use mutext_contract::{
    Blocked, Conflict, ContextName, Cursor, Deadlock, Document, DocumentPath, EngineError, Erosion, IdempotencyKey,
    InvalidDuration, InvalidJson, InvalidName, InvalidQuery, Loss, PastRevision, Resource, Revision, Wait,
};
use mutext_edit::{BoardError, FailedEdit, ViewError};

use crate::archive::ArchiveError;

/// Why an operation did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name breaks a rule.
    #[error(transparent)]
    InvalidName(#[from] InvalidName),
    /// A TTL or a wait is outside its bounds.
    #[error(transparent)]
    InvalidDuration(#[from] InvalidDuration),
    /// A content that was to be JSON is not.
    #[error(transparent)]
    InvalidJson(#[from] InvalidJson),
    /// An address that no engine of this build understands.
    #[error("address {address:?} is not valid: {rule}")]
    InvalidAddress {
        /// The address, without any password.
        address: String,
        /// What is wrong with it, and what would be right.
        rule: String,
    },
    /// A commit that cannot be made as it stands.
    #[error("the commit is not valid: {0}")]
    InvalidCommit(String),
    /// A document over the size limit.
    #[error("document {path} would have {size} bytes; the limit is {limit}: split it, or raise the limit")]
    TooLarge {
        /// Which document.
        path: DocumentPath,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A precondition failed; the current document is inside, so that the caller can rebase in one step.
    #[error("conflict: {0}; read it again and apply the change to what is there now")]
    Conflict(Box<Conflict>),
    /// A write would have dropped more than half of a document, and was not told that it may.
    #[error(
        "refused: {0}; writers who send a document from memory lose it piece by piece: send an edit, or allow it to \
         shrink; nothing was written"
    )]
    Erosion(Erosion),
    /// The feed after a cursor is forgotten.
    #[error(
        "the commits after cursor {} are not all kept any more; the oldest place to go on from is {}: read the \
         documents anew, then watch from where that was",
        after.0, oldest.0
    )]
    CursorGone {
        /// Where it was to go on from.
        after: Cursor,
        /// From here on none is missing.
        oldest: Cursor,
    },
    /// The cursor is of a place that the feed has not come to.
    #[error(
        "the feed has not come to cursor {}: it is at {}, so that the cursor is another store's, or of before this one \
         was made anew; read the documents, then watch from where that was",
        after.0, head.0
    )]
    CursorAhead {
        /// Where it was to go on from.
        after: Cursor,
        /// How far the feed has come.
        head: Cursor,
    },
    /// The idempotency key has named another commit before.
    #[error("idempotency key {key} has named another commit before; use a fresh key for a new intention")]
    KeyReused {
        /// The key.
        key: IdempotencyKey,
    },
    /// The lock was not granted in time.
    #[error("lock on {} not granted {}", list(resources), not_granted(*wait, *waited, blocked))]
    Timeout {
        /// What was asked for.
        resources: Vec<Resource>,
        /// How long it was to queue at most; none where it was not to queue.
        wait: Option<Wait>,
        /// How long it waited.
        waited: Duration,
        /// Who is in the way.
        blocked: Box<Blocked>,
    },
    /// Waiting would have closed a circle of those who wait for each other.
    #[error(
        "lock on {} would deadlock: {deadlock}; give up what you hold and begin anew, or ask for all in one request{}",
        list(resources),
        own_hint(deadlock)
    )]
    Deadlock {
        /// What was asked for.
        resources: Vec<Resource>,
        /// Who waits for whom, beginning with the asker.
        deadlock: Box<Deadlock>,
    },
    /// A lease that clones of its guard share is to be changed under them.
    #[error("the lease on {} cannot change its mode: clones of its guard share it; drop them first", list(resources))]
    GuardShared {
        /// What it covers.
        resources: Vec<Resource>,
    },
    /// The lease is no longer ours; nothing was written.
    #[error("the lease on {} is lost: {loss}; nothing was written: lock and read again", list(resources))]
    LeaseLost {
        /// What it covered.
        resources: Vec<Resource>,
        /// Why.
        loss: Loss,
        /// What is in the document now, where the store told.
        current: Option<Box<Document>>,
    },
    /// A write through a guard to a document that its lease does not cover.
    #[error(
        "document {path} is not covered by the lease on {}; lock it too, or write it without the lease",
        list(resources)
    )]
    NotCovered {
        /// Which document.
        path: DocumentPath,
        /// What the lease covers exclusively.
        resources: Vec<Resource>,
    },
    /// Retries went on until the deadline.
    #[error("update of {path} did not succeed within {limit:.1?} and {attempts} attempts; the last one: {last}")]
    RetriesExhausted {
        /// Which document.
        path: DocumentPath,
        /// How many attempts were made.
        attempts: u32,
        /// The deadline, as a duration from the start.
        limit: Duration,
        /// What the last attempt met.
        last: Box<Error>,
    },
    /// The caller's own function refused to make the change.
    #[error("the change could not be made: {0}")]
    Edit(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An edit does not fit what is there; nothing was written.
    #[error("{path}, {}, stays as it was: {failed}", standing(current.as_deref()))]
    EditFailed {
        /// Which document.
        path: DocumentPath,
        /// Which edit, and why.
        failed: Box<FailedEdit>,
        /// What the edit was to be made on.
        current: Option<Box<Document>>,
    },
    /// A write of a whole document that does not say what may be there.
    #[error(
        "the write of {path} does not say what it takes the place of; name the revision that was read ({}), or say that \
         it creates the document, or that it overwrites whatever is there",
        standing(current.as_deref())
    )]
    PreconditionRequired {
        /// Which document.
        path: DocumentPath,
        /// What is there now.
        current: Option<Box<Document>>,
    },
    /// A revision that is not there (any more).
    #[error(
        "{path} has no revision {revision}: {}",
        no_revision(*revision, *newest, deleted.as_deref())
    )]
    NoRevision {
        /// Which document.
        path: DocumentPath,
        /// Which revision.
        revision: Revision,
        /// The newest there is.
        newest: Option<Revision>,
        /// That one, where it says that the document was deleted, or purged: by whom and why.
        deleted: Option<Box<PastRevision>>,
    },
    /// A part of a document that cannot be shown.
    #[error("{path}: {why}")]
    Unviewable {
        /// Which document.
        path: DocumentPath,
        /// Why, and what there is.
        why: Box<ViewError>,
    },
    /// A search that looks for nothing.
    #[error(transparent)]
    InvalidQuery(#[from] InvalidQuery),
    /// An archive that cannot be brought in; nothing of it was.
    #[error("the archive cannot be imported, and nothing of it was: {0}")]
    Archive(#[from] ArchiveError),
    /// A context that is to take an archive in, and has documents.
    #[error("context {context} has documents already; import the archive into a context that has never had any")]
    ContextNotEmpty {
        /// Which context.
        context: ContextName,
    },
    /// A board that cannot be claimed from, or an element that cannot be changed so; nothing was written.
    #[error("{path} cannot be claimed from, or its element changed: {why}")]
    Board {
        /// Which document.
        path: DocumentPath,
        /// Why.
        why: Box<BoardError>,
    },
    /// Trouble with an engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

fn list(resources: &[Resource]) -> String {
    resources.iter().map(Resource::as_str).collect::<Vec<_>>().join(", ")
}

/// Whoever did not queue is not helped by waiting longer.
fn not_granted(wait: Option<Wait>, waited: Duration, blocked: &Blocked) -> String {
    match wait {
        Some(_) => format!("within {waited:.1?}: {blocked}; wait longer, or try again"),
        None => format!("at once, and it was not to wait: {blocked}; try again later, or let it wait for its turn"),
    }
}

fn no_revision(revision: Revision, newest: Option<Revision>, deleted: Option<&PastRevision>) -> String {
    match (newest, deleted) {
        (None, _) => "there has never been such a document".to_owned(),
        (Some(newest), _) if revision > newest => format!("the newest is {newest}"),
        (Some(newest), Some(deleted)) => {
            let why = deleted.message.as_ref().map(|message| format!(" ({message})")).unwrap_or_default();
            format!("it is not kept; the document was deleted at revision {newest} by {}{why}", deleted.author)
        }
        (Some(_), None) => {
            "it is forgotten; older revisions are kept as long as the context's retention says".to_owned()
        }
    }
}

fn standing(document: Option<&Document>) -> String {
    document.map_or_else(|| "absent".to_owned(), |document| format!("at revision {}", document.revision))
}

/// Whoever waits for itself has the lock already.
fn own_hint(deadlock: &Deadlock) -> &'static str {
    if deadlock.cycle.len() == 1 { "; what you hold already, use through its guard or a clone of that" } else { "" }
}
