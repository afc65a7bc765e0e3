//! What happened in a run of Mutext, and the checkers that judge it.
//!
//! Many processes work on documents; each writes down what it asked, when, and what came back.
//! Afterwards the records are judged, each checker asking one question:
//!
//! | question | checker | finding |
//! |---|---|---|
//! | does one order of the operations explain what all saw? | [`check()`] | [`Counterexample`] |
//! | were two processes inside one lock at once? | [`overlaps`] | [`Overlap`] |
//! | do fencing tokens grow from grant to grant? | [`check_grants`] | [`GrantViolation`] |
//! | do they never go back along a document's revisions? | [`check_written`] | [`WrittenViolation`] |
//! | is every acknowledged update in the final document? | [`lost_updates`] | [`LostUpdate`] |
//! | and only once? | [`duplicates`] | [`Duplicate`] |
//!
//! Three rules hold for all of them. A finding is a proof: where clocks are too coarse or an
//! outcome is unknown, the doubt speaks for the system. A finding is a value that shows the
//! operations which prove it. And the checkers share no code with what they judge: they know
//! records, not locks or stores, and whoever runs the system writes the records.
//!
//! Two agents read the same document, and each writes back its own version of it. Both are told
//! that all went well; nothing failed, and one update is gone:
//!
//! ```
//! use mutext_history::{Budget, Register, RegisterOperation, check};
//!
//! let history = [
//!     // process, invoked, returned, what it saw, what it left
//!     RegisterOperation::update(1, 100, 300, 0, 1),
//!     RegisterOperation::update(2, 200, 400, 0, 2),
//! ];
//! let verdict = check(&Register(0), &history, Budget::default());
//! assert_eq!(
//!     verdict.to_string(),
//!     "\
//! not linearizable: no order of these operations explains what they returned
//! the longest order that holds takes 1 of them:
//!   process 1 [100, 300] update to 1 -> saw 0
//! and leaves 1, from where none of these can go on:
//!   process 2 [200, 400] update to 2 -> saw 0"
//! );
//!
//! // Had the second waited for the first, it would have seen its work.
//! let history = [
//!     RegisterOperation::update(1, 100, 300, 0, 1),
//!     RegisterOperation::update(2, 200, 400, 1, 2),
//! ];
//! assert!(check(&Register(0), &history, Budget::default()).is_linearizable());
//! ```

mod check;
mod exclusion;
mod lost;
mod operation;
mod partition;
mod register;
mod search;
mod spec;
mod timeline;
mod tokens;
mod visited;
mod witness;

pub use check::{Budget, Counterexample, Undecided, Verdict, check};
pub use exclusion::{Overlap, Section, overlaps};
pub use lost::{Acknowledged, Contents, Duplicate, LostUpdate, duplicates, lost_updates};
pub use operation::{Operation, Outcome};
pub use partition::partition;
pub use register::{Interner, Register, RegisterOp, RegisterOperation, RegisterRet};
pub use spec::SequentialSpec;
pub use tokens::{Grant, GrantViolation, Token, Written, WrittenViolation, check_grants, check_written};
