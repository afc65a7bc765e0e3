//! Shared context for many agents, with locks that hold.
//!
//! Several agents keep their plans, notes and task boards in one place, and change them at the same time. Mutext is
//! that place: documents with revisions, leases with fencing tokens, and a store that checks both in the transaction
//! that writes, so that **no acknowledged update is lost**, whatever dies or pauses.
//!
//! - [`Mutext::open`] opens documents and locks by their [`Address`]; [`Mutext::context`] gives a [`Context`].
//! - [`Context::get`], [`Context::put`], [`Context::commit`], [`Context::list`], [`Context::history`]: documents.
//! - [`Context::edit`], [`Context::write`], [`Context::change_all`]: changes that are made on what is there now, merge, or
//!   are a conflict that [`Context::explain`] explains; and never lose what others wrote.
//! - [`Context::read`], [`Context::watch`], [`Context::search`], [`Context::snapshot`]: no more than is needed, and all that
//!   happens, once.
//! - [`Context::update`]: read, change, write back, under a lease or by compare-and-set.
//! - [`Context::lock`]: a [`LockGuard`] for work that takes longer. It is renewed while it lives, and tells when it
//!   is lost; reads and writes through it are fenced.
//!
//! ```
//! # async fn example(dir: &std::path::Path) -> Result<(), mutext::Error> {
//! use mutext::{Address, Error, Mutext, Precondition, Settings};
//!
//! let mutext = Mutext::open(&Address::embedded(dir), None).await?;
//! let planner = mutext.context("research-42", Settings::new("planner".try_into()?))?;
//! let critic = mutext.context("research-42", Settings::new("critic".try_into()?))?;
//!
//! let first = planner.put("plan.md", "measure", Precondition::Absent).await?;
//! critic.put("plan.md", "measure twice", Precondition::Exact(first)).await?;
//!
//! // The planner still thinks that the plan is as it wrote it. It is told, and shown what is there now.
//! match planner.put("plan.md", "cut", Precondition::Exact(first)).await {
//!     Err(Error::Conflict(conflict)) => {
//!         let current = conflict.current.expect("there is a plan");
//!         assert_eq!(current.content.as_str(), "measure twice");
//!         assert_eq!(current.author.as_str(), "critic");
//!     }
//!     other => panic!("{other:?}"),
//! }
//! # Ok(())
//! # }
//! # let dir = std::env::temp_dir().join(format!("mutext-lib-{}", std::process::id()));
//! # tokio::runtime::Runtime::new().unwrap().block_on(example(&dir)).unwrap();
//! # std::fs::remove_dir_all(&dir).unwrap();
//! ```

mod adaptive;
mod address;
mod archive;
mod blame;
mod claim;
mod conflict;
mod context;
mod edit;
mod engines;
mod error;
mod guard;
mod history;
mod keeper;
mod kept;
mod late;
mod line;
mod lock;
mod metrics;
mod parts;
mod read;
mod seats;
mod snapshot;
mod stranger;
mod tending;
mod update;
mod watch;
mod write;

pub use crate::metrics::AcquisitionTimes;
#[cfg(feature = "prometheus")]
pub use crate::metrics::prometheus::{Prometheus, RecorderInstalled};
pub use address::Address;
pub use archive::{ArchiveError, Export, Import, Imported};
pub use blame::Blame;
pub use claim::{ClaimAnswer, ClaimHandle, Claimed, Claiming, HeldElement, InvalidHandle, NoneFree};
pub use conflict::{Explanation, Since};
pub use context::{Context, Examination, Mutext, Settings};
pub use edit::{Edited, Editing};
pub use error::Error;
pub use guard::{LockGuard, NotConverted, OnLapse};
pub use lock::Lock;
pub use mutext_contract::{
    Action, AgentName, Blocked, Change, Claim, Commit, CommitRecord, Committed, Conflict, Content, ContextName, Cursor,
    Deadlock, Document, DocumentPath, Effect, EngineError, Entry, Erosion, Expiry, Fence, Fenced, FencingToken,
    Finding, Hit, Holder, HolderId, Holding, IdempotencyKey, InvalidDuration, InvalidJson, InvalidName, InvalidQuery,
    InvalidToken, Kind, Knot, Lease, LeaseId, Listing, LockCapabilities, LockTable, Loss, Mode, NameRule, Obstacle,
    PastRevision, PathPrefix, Precondition, Release, Resource, Retention, Revision, Revocation, RevocationRecord,
    Severity, StoreCapabilities, Tended, TroubleKind, Ttl, Wait, Waiter,
};
pub use mutext_edit::{
    Blamed, BoardError, Condition, Diff, DiffOptions, Edit, EditError, Element, FailedEdit, Hunk, Lines, Mark, Merge,
    MergeError, Outline, OutlineOptions, OutlinePart, Patch, PatchOperation, Place, Resolution, Standing, View,
    ViewError, Which,
};
pub use mutext_embedded::SQLITE_VERSION;
pub use parts::{Changed, Changes, Doing, Part};
pub use read::{InvalidOnward, Onward, Reading, Section, Shown};
pub use snapshot::Snapshot;
pub use update::{Strategy, UpdateOptions, Updated};
pub use watch::{Watch, Watcher};
pub use write::{Effected, Merged, Writing, Written};
