//! One change of a document as data, how it is written down, and how it is applied.

use mutext_contract::{Content, Kind};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use crate::{EditError, json, lines};

/// One change of one document, as data.
///
/// As JSON it is an object with one member, named as [`Edit::name`] says:
///
/// ```
/// # use mutext_edit::{Edit, Which};
/// let edit: Edit = serde_json::from_str(r#"{"replace": {"old": "open", "new": "done", "nth": 2}}"#).unwrap();
/// assert_eq!(edit, Edit::Replace { old: "open".into(), new: "done".into(), which: Which::Nth(2) });
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Edit {
    /// Puts `new` in the place of `old`. On JSON it works on the text, which must still be JSON afterwards.
    Replace {
        /// What is there now; not empty.
        old: String,
        /// What is to be there.
        new: String,
        /// Which of several occurrences.
        which: Which,
    },
    /// Puts lines before a line of a text.
    Insert {
        /// The line, from 1; the number of lines + 1 is the end.
        line: usize,
        /// The lines; a final line break is added where it lacks one.
        text: String,
    },
    /// Puts lines at the end of a text, on lines of their own. Creates the document where there is none.
    Append {
        /// The lines; a final line break is added where it lacks one. An empty text is an empty line.
        text: String,
    },
    /// Puts lines at the beginning of a text. Creates the document where there is none.
    Prepend {
        /// The lines; a final line break is added where it lacks one. An empty text is an empty line.
        text: String,
    },
    /// A JSON Patch, RFC 6902.
    Patch(json_patch::Patch),
    /// A JSON Merge Patch, RFC 7396.
    MergePatch(Value),
    /// Puts an item at the end of a JSON list.
    Add {
        /// The list, as a JSON Pointer (RFC 6901); made where it is missing.
        pointer: String,
        /// The item.
        item: Value,
    },
    /// Puts an item at the end of a JSON list, unless an equal one is there.
    AddToSet {
        /// The list, as a JSON Pointer (RFC 6901); made where it is missing.
        pointer: String,
        /// The item.
        item: Value,
    },
    /// Adds to a JSON number: exactly, for integers within 128 bits and for decimals of like size.
    Increment {
        /// The number, as a JSON Pointer (RFC 6901); 0 where it is missing.
        pointer: String,
        /// How much; may be negative or a decimal.
        by: Number,
    },
}

/// Which of several occurrences a replacement means. They do not overlap and are counted from the left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Which {
    /// There must be exactly one.
    #[default]
    Only,
    /// This one, from 1.
    Nth(usize),
    /// Every one; at least one.
    All,
}

/// An edit out of several that failed; none of them was applied.
#[derive(Debug, thiserror::Error)]
#[error("edit {} of the list (`{name}`) failed, and none was applied: {source}", .index + 1)]
pub struct FailedEdit {
    /// Its place in the list, from 0.
    pub index: usize,
    /// What kind of edit it was, as [`Edit::name`] says.
    pub name: &'static str,
    /// Why.
    pub source: EditError,
}

impl Edit {
    /// The content after this edit; `None` stands for a document that does not exist yet.
    pub fn apply(&self, content: Option<&Content>) -> Result<Content, EditError> {
        if let (true, Some(content)) = (self.is_json(), content)
            && content.kind() == Kind::Text
        {
            return Err(EditError::WrongKind { edit: self.name(), kind: "text", remedy: "replace, insert or append" });
        }
        match self {
            Self::Replace { old, new, which } => lines::replace(content, old, new, *which),
            Self::Insert { line, text } => lines::insert(content, *line, text),
            Self::Append { text } => lines::append(content, text),
            Self::Prepend { text } => lines::prepend(content, text),
            Self::Patch(patch) => json::patch(content, patch),
            Self::MergePatch(patch) => json::merge_patch(content, patch),
            Self::Add { pointer, item } => json::add(content, pointer, item, false),
            Self::AddToSet { pointer, item } => json::add(content, pointer, item, true),
            Self::Increment { pointer, by } => json::increment(content, pointer, by),
        }
    }

    /// Whether several of these come to the same whatever their order: the same lines, the same items, the same sum.
    pub const fn commutes(&self) -> bool {
        matches!(self, Self::Append { .. } | Self::Add { .. } | Self::AddToSet { .. } | Self::Increment { .. })
    }

    /// The word for it: `append`, `merge_patch`, …
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Replace { .. } => "replace",
            Self::Insert { .. } => "insert",
            Self::Append { .. } => "append",
            Self::Prepend { .. } => "prepend",
            Self::Patch(_) => "patch",
            Self::MergePatch(_) => "merge_patch",
            Self::Add { .. } => "add",
            Self::AddToSet { .. } => "add_to_set",
            Self::Increment { .. } => "increment",
        }
    }

    const fn is_json(&self) -> bool {
        matches!(
            self,
            Self::Patch(_) | Self::MergePatch(_) | Self::Add { .. } | Self::AddToSet { .. } | Self::Increment { .. }
        )
    }
}

/// The content after all of `edits`, one upon the other: all or none. An empty list needs a document.
///
/// ```
/// # use mutext_edit::{Edit, apply_all};
/// let edits = [Edit::Append { text: "first".into() }, Edit::Append { text: "second".into() }];
/// assert_eq!(apply_all(&edits, None).unwrap().as_str(), "first\nsecond\n");
/// ```
pub fn apply_all(edits: &[Edit], content: Option<&Content>) -> Result<Content, FailedEdit> {
    let mut current = content.cloned();
    for (index, edit) in edits.iter().enumerate() {
        let failed = |source| FailedEdit { index, name: edit.name(), source };
        current = Some(edit.apply(current.as_ref()).map_err(failed)?);
    }
    current.ok_or(FailedEdit { index: 0, name: "none", source: EditError::NothingToDo })
}

/// An edit as it is written down.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Written {
    Replace(WrittenReplace),
    Insert(WrittenInsert),
    Append(WrittenText),
    Prepend(WrittenText),
    Patch(json_patch::Patch),
    MergePatch(Value),
    Add(WrittenItem),
    AddToSet(WrittenItem),
    Increment(WrittenIncrement),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenReplace {
    old: String,
    new: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nth: Option<usize>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    all: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenInsert {
    line: usize,
    text: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenText {
    text: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenItem {
    pointer: String,
    item: Value,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenIncrement {
    pointer: String,
    #[serde(default = "one")]
    by: Number,
}

fn one() -> Number {
    Number::from(1)
}

impl TryFrom<Written> for Edit {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        Ok(match written {
            Written::Replace(WrittenReplace { old, new, nth, all }) => {
                let which = match (nth, all) {
                    (None, false) => Which::Only,
                    (Some(0), false) => return Err("`nth` of a replace is 0; occurrences count from 1"),
                    (Some(nth), false) => Which::Nth(nth),
                    (None, true) => Which::All,
                    (Some(_), true) => return Err("a replace has both `nth` and `all`; keep one of them"),
                };
                Self::Replace { old, new, which }
            }
            Written::Insert(WrittenInsert { line, text }) => Self::Insert { line, text },
            Written::Append(WrittenText { text }) => Self::Append { text },
            Written::Prepend(WrittenText { text }) => Self::Prepend { text },
            Written::Patch(patch) => Self::Patch(patch),
            Written::MergePatch(patch) => Self::MergePatch(patch),
            Written::Add(WrittenItem { pointer, item }) => Self::Add { pointer, item },
            Written::AddToSet(WrittenItem { pointer, item }) => Self::AddToSet { pointer, item },
            Written::Increment(WrittenIncrement { pointer, by }) => Self::Increment { pointer, by },
        })
    }
}

impl From<Edit> for Written {
    fn from(edit: Edit) -> Self {
        match edit {
            Edit::Replace { old, new, which } => {
                let (nth, all) = match which {
                    Which::Only => (None, false),
                    Which::Nth(nth) => (Some(nth), false),
                    Which::All => (None, true),
                };
                Self::Replace(WrittenReplace { old, new, nth, all })
            }
            Edit::Insert { line, text } => Self::Insert(WrittenInsert { line, text }),
            Edit::Append { text } => Self::Append(WrittenText { text }),
            Edit::Prepend { text } => Self::Prepend(WrittenText { text }),
            Edit::Patch(patch) => Self::Patch(patch),
            Edit::MergePatch(patch) => Self::MergePatch(patch),
            Edit::Add { pointer, item } => Self::Add(WrittenItem { pointer, item }),
            Edit::AddToSet { pointer, item } => Self::AddToSet(WrittenItem { pointer, item }),
            Edit::Increment { pointer, by } => Self::Increment(WrittenIncrement { pointer, by }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edit_is_written_down_as_it_is_documented() {
        let written = [
            r#"{"append":{"text":"…"}}"#,
            r#"{"prepend":{"text":"…"}}"#,
            r#"{"replace":{"old":"a","new":"b"}}"#,
            r#"{"replace":{"old":"a","new":"b","nth":2}}"#,
            r#"{"replace":{"old":"a","new":"b","all":true}}"#,
            r#"{"insert":{"line":3,"text":"…"}}"#,
            r#"{"patch":[{"op":"add","path":"/a","value":12345678901234567890123}]}"#,
            r#"{"merge_patch":{"a":null,"b":1.10}}"#,
            r#"{"add":{"pointer":"/tags","item":1.0}}"#,
            r#"{"add_to_set":{"pointer":"/tags","item":{"b":1,"a":2}}}"#,
            r#"{"increment":{"pointer":"/n","by":0.1}}"#,
        ];
        for text in written {
            let edit: Edit = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&edit).unwrap(), text);
            assert!(text.starts_with(&format!("{{\"{}\"", edit.name())), "{text}");
        }
    }

    #[test]
    fn by_is_one_unless_said_otherwise() {
        let edit: Edit = serde_json::from_str(r#"{"increment":{"pointer":"/n"}}"#).unwrap();
        assert_eq!(edit, Edit::Increment { pointer: "/n".into(), by: 1.into() });
    }

    #[test]
    fn what_contradicts_itself_is_refused_when_it_is_read() {
        let refused = |text: &str| serde_json::from_str::<Edit>(text).unwrap_err().to_string();
        assert!(refused(r#"{"replace":{"old":"a","new":"b","nth":1,"all":true}}"#).contains("keep one"));
        assert!(refused(r#"{"replace":{"old":"a","new":"b","nth":0}}"#).contains("from 1"));
        assert!(refused(r#"{"append":{"texts":"a"}}"#).contains("texts"));
    }

    #[test]
    fn several_edits_are_all_or_none() {
        let edits = [Edit::Append { text: "b".into() }, Edit::Insert { line: 9, text: "x".into() }];
        let failed = apply_all(&edits, Some(&"a\n".into())).unwrap_err();
        assert_eq!((failed.index, failed.name), (1, "insert"));
        assert!(failed.to_string().contains("edit 2"), "{failed}");
        assert!(apply_all(&[], None).is_err());
        assert_eq!(apply_all(&[], Some(&"a".into())).unwrap().as_str(), "a");
    }

    #[test]
    fn an_edit_of_the_wrong_kind_names_the_right_one() {
        let json = Content::parse_json("[]").unwrap();
        let error = Edit::Append { text: "a".into() }.apply(Some(&json)).unwrap_err();
        assert!(error.to_string().contains("add"), "{error}");
        let error = Edit::Add { pointer: String::new(), item: 1.into() }.apply(Some(&"a".into())).unwrap_err();
        assert!(error.to_string().contains("append"), "{error}");
    }
}
