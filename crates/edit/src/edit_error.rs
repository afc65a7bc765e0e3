//! Why an edit was not made: what was asked, what is there, and what to do.

use mutext_contract::InvalidJson;

/// Why an edit was not made; the content stays as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// There is no document, and this edit cannot begin one.
    #[error("there is no document to {edit}; create it first, with {remedy}")]
    NoDocument {
        /// The edit, as `Edit::name` says.
        edit: &'static str,
        /// Edits that create a document.
        remedy: &'static str,
    },
    /// A list of edits that is empty, and no document.
    #[error("there is neither an edit nor a document; give at least one edit")]
    NothingToDo,
    /// An edit of text on JSON, or the other way round.
    #[error("`{edit}` does not work on {kind}; use {remedy}")]
    WrongKind {
        /// The edit, as `Edit::name` says.
        edit: &'static str,
        /// What the document is.
        kind: &'static str,
        /// What works there.
        remedy: &'static str,
    },
    /// A replacement of nothing.
    #[error("the text to replace is empty; say what is to be replaced, or use insert, append or prepend")]
    EmptyOld,
    /// The text to replace is nowhere.
    #[error("{:?} is not in the document; {}", shown(.old), hint(.near.as_ref()))]
    NotFound {
        /// What was looked for.
        old: String,
        /// The number, from 1, and the text of the most similar line, where one is worth showing.
        near: Option<(usize, String)>,
    },
    /// The text to replace is there more than once.
    #[error("{:?} is there {count} times, on lines {}; give more of its surroundings, or `nth`, or `all`",
        shown(.old), listed(.lines, *.count))]
    Ambiguous {
        /// What was looked for.
        old: String,
        /// The lines, from 1, on which the first occurrences begin; at most 20.
        lines: Vec<usize>,
        /// How many occurrences there are.
        count: usize,
    },
    /// An occurrence beyond the last, or occurrence 0.
    #[error("there is no occurrence {nth} of {:?}; there are {count}, counted from 1", shown(.old))]
    NoSuchOccurrence {
        /// What was looked for.
        old: String,
        /// Which was asked for.
        nth: usize,
        /// How many there are.
        count: usize,
    },
    /// A line beyond the end, or line 0.
    #[error("cannot insert before line {line}: the document has {lines} lines; give 1 to {}", .lines + 1)]
    NoSuchLine {
        /// Which was asked for.
        line: usize,
        /// How many there are.
        lines: usize,
    },
    /// A replacement after which the text would not be JSON any more.
    #[error("the replacement would leave text that is not JSON; replace a whole value, or use merge_patch: {source}")]
    NotJson {
        /// What is wrong with it, and where.
        source: InvalidJson,
    },
    /// A JSON document that this crate cannot take apart, such as one nested too deeply.
    #[error("the document's JSON cannot be taken apart; edit it with replace: {source}")]
    Unreadable {
        /// What the parser says.
        source: InvalidJson,
    },
    /// A pointer that is not one.
    #[error("{pointer:?} is not a JSON Pointer: {why}; write it like /members/0/name, with ~1 for / and ~0 for ~")]
    BadPointer {
        /// The pointer.
        pointer: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// Something nested deeper than can be read again.
    #[error("{pointer:?} would nest the document {depth} levels deep; {limit} is the limit: keep it flatter")]
    TooDeep {
        /// Where it was to lie.
        pointer: String,
        /// How deep that would be.
        depth: usize,
        /// How deep it may be.
        limit: usize,
    },
    /// A pointer that leads through something that has no members.
    #[error("{pointer:?} cannot have members: {found} is there; give another pointer, or replace it with patch first")]
    NotAContainer {
        /// Where the way ends.
        pointer: String,
        /// What is there.
        found: String,
    },
    /// A pointer through an item that a list does not have.
    #[error("{pointer:?} is not in the document: {found} is there; give one of its items, or add one first")]
    NoSuchItem {
        /// The item that is missing.
        pointer: String,
        /// The list.
        found: String,
    },
    /// Something other than a list where an item was to be added.
    #[error("{pointer:?} is not a list: {found} is there; give the pointer of a list")]
    NotAList {
        /// The pointer.
        pointer: String,
        /// What is there.
        found: String,
    },
    /// Something other than a number where one was to be incremented.
    #[error("{pointer:?} is not a number: {found} is there; give the pointer of a number, or replace it with patch")]
    NotANumber {
        /// The pointer.
        pointer: String,
        /// What is there.
        found: String,
    },
    /// A sum that is too large.
    #[error("{found} at {pointer:?} and {by} make no sum that fits (integers have 128 bits); set it with patch")]
    Overflow {
        /// The pointer.
        pointer: String,
        /// What is there.
        found: String,
        /// What was to be added.
        by: String,
    },
    /// One operation of a JSON Patch that does not apply; none of them was applied.
    #[error("operation {index} of the patch ({op} {path:?}, counted from 0) does not apply: {why}")]
    Patch {
        /// Its place in the patch, from 0.
        index: usize,
        /// `add`, `remove`, `replace`, `move`, `copy` or `test`.
        op: &'static str,
        /// Its path.
        path: String,
        /// Why, and what is there instead.
        why: String,
    },
}

/// At most the first 100 characters.
fn shown(text: &str) -> String {
    clipped(text, 100)
}

/// At most the first `limit` characters, and three points where there are more.
pub(crate) fn clipped(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn hint(near: Option<&(usize, String)>) -> String {
    match near {
        Some((line, text)) => format!("the most similar line is {line}: {text:?}; copy it exactly"),
        None => "nothing like it is there; read the document again".to_owned(),
    }
}

fn listed(lines: &[usize], count: usize) -> String {
    let mut text = lines.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    if count > lines.len() {
        text.push_str(", …");
    }
    text
}
