//! Pure functions from content to content: edits, diffs, merges, partial views, blame and boards of claims.
//!
//! Nothing here opens a file, waits or looks at a clock: content and moments come in as arguments, and an answer or an
//! error that says what to do comes out. So whoever loses a race can simply apply the same edit to what is there now.
//!
//! ```
//! use mutext_contract::Content;
//! use mutext_edit::Edit;
//!
//! let edit: Edit = serde_json::from_str(r#"{"increment": {"pointer": "/done"}}"#).unwrap();
//! let board = Content::parse_json(r#"{"done": 41, "of": 12345678901234567890123}"#).unwrap();
//! let board = edit.apply(Some(&board)).unwrap();
//! assert_eq!(board.as_str(), r#"{"done": 42, "of": 12345678901234567890123}"#);
//! ```

mod blame;
mod board;
mod board_json;
mod board_text;
mod diff;
mod edit;
mod edit_error;
mod json;
mod lines;
mod merge;
mod merge_json;
mod merge_text;
mod number;
mod outline;
mod patch;
mod place;
mod spans;
mod style;
mod view;

pub use blame::{Blamed, Blamer};
pub use board::{
    BoardError, ClaimOutcome, Claimant, Condition, Element, Mark, Standing, Step, Stepped, Wanted, claim, elements,
    step,
};
pub use diff::{Diff, DiffOptions, diff, diff_texts};
pub use edit::{Edit, FailedEdit, Which, apply_all};
pub use edit_error::EditError;
pub use json_patch::{Patch, PatchOperation};
pub use merge::{Hunk, Lines, Merge, MergeError, Place, Resolution, merge};
pub use outline::{Outline, OutlineOptions, OutlinePart, outline};
pub use view::{Part, View, ViewError, view};
