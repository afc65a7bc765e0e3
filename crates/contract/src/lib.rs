//! Mutext's contracts: the words, and what a lock engine and a document engine promise.
//!
//! Nothing here talks to anything. Engines implement [`LockService`] and [`DocumentStore`]; the `mutext` library
//! calls them; each side sees only this crate. The suites in `mutext-conformance` hold every engine to it.
//!
//! One update, as the contracts see it:
//!
//! 1. [`LockService::acquire`] grants a [`Lease`] with a [`FencingToken`] that grows over the whole context.
//! 2. [`DocumentStore::read_fenced`] reads under it: the document refuses older tokens from then on.
//! 3. [`DocumentStore::commit`] checks fence, [`Revision`] and idempotency key in the transaction that writes.
//! 4. [`LockService::release`] hands the lock to the next in the queue.
//!
//! ```
//! use mutext_contract::{FencingToken, LeaseId};
//!
//! let first = FencingToken::new(1, 41, LeaseId::random());
//! let second = FencingToken::new(1, 42, LeaseId::random());
//! // The document has seen the second holder: the first, waking late, is refused.
//! assert!(!first.is_admitted_after(Some(&second)));
//! assert!(second.is_admitted_after(Some(&first)));
//! ```

mod archive;
mod begun;
mod capability;
mod document;
mod error;
mod fence;
mod finding;
mod lease;
mod lock;
mod name;
mod patience;
pub mod queue;
mod search;
mod store;
mod table;

pub use archive::{ArchivedChange, ArchivedCommit};
pub use begun::{Begun, begin_above};
pub use capability::{DeadHolder, ExpiryClock, Fairness, LockCapabilities, StoreCapabilities, Waiting};
pub use document::{
    Action, Change, Commit, Content, Cursor, Document, Entry, Expiry, InvalidJson, Kind, PastRevision, Precondition,
    Revision,
};
pub use error::{Effect, EngineError, TroubleKind};
pub use fence::{Fence, FencingToken, InvalidToken};
pub use finding::{Finding, Severity};
pub use lease::{Claim, Deadline, Holder, HolderId, InvalidDuration, Lease, LeaseId, Mode, Ttl, Wait};
pub use lock::{Acquisition, Grant, LockRequest, LockService, Loss, Release, Renewal, may_be_behind};
pub use name::{
    AgentName, ContextName, DocumentPath, IdempotencyKey, InvalidName, NAME_BYTES_MAX, NameRule, PATH_BYTES_MAX,
    PATH_SEGMENTS_MAX, PathPrefix, Resource,
};
pub use patience::{GIVEN_BACK, Patience};
pub use search::{Hit, InvalidQuery, Query, Term};
pub use store::{
    CommitRecord, Committed, Conflict, DocumentStore, EPOCH_BELIEVED, EPOCH_MAX, EpochSource, Erosion, Feed, Fenced,
    FencedRead, Listing, Minting, Outcome, Refusal, Retention, Revocation, RevocationRecord, Snapshot, Tended,
    within_epochs,
};
pub use table::{Blocked, Deadlock, Holding, Knot, LockTable, Obstacle, Waiter};
