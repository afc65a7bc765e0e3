//! Three-way merges: what two sides made of one base, put together where they do not contradict each other.

use std::collections::BTreeMap;
use std::fmt;

use mutext_contract::{Content, InvalidJson, Kind};
use serde::{Deserialize, Serialize};

use crate::merge_json::Tree;
use crate::merge_text::{self, Part};
use crate::style::{laid_out, written_like};

/// What came of a merge: content, or conflicts with everything around them settled.
#[derive(Debug, Clone)]
pub struct Merge {
    /// What both sides agree on, with holes where they do not.
    body: Body,
    conflicts: Vec<Hunk>,
    kind: Kind,
    /// Whose way of writing JSON the result has.
    like: Content,
}

/// What a merge consists of.
#[derive(Debug, Clone)]
enum Body {
    /// One side as it is.
    Whole(Content),
    /// Lines, in order.
    Lines(Vec<Part>),
    /// A JSON value.
    Json(Tree),
}

/// One place where two sides contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hunk {
    /// Its name in this merge: `h1`, `h2`, …
    pub id: String,
    /// Where it is.
    pub place: Place,
    /// What both began from; `None` where there was nothing. For JSON, as JSON text, as in the two others.
    pub base: Option<String>,
    /// What our side has there; `None` where it has nothing.
    pub ours: Option<String>,
    /// What their side has there; `None` where it has nothing.
    pub theirs: Option<String>,
}

/// Where two sides contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Lines of a text.
    Lines {
        /// Those of the base.
        base: Lines,
        /// Those of our side.
        ours: Lines,
        /// Those of their side.
        theirs: Lines,
    },
    /// A value of a JSON document, at this JSON Pointer.
    Value(String),
    /// Neighbouring items of a JSON list; the sides of the conflict are lists of them.
    Items {
        /// The list, as a JSON Pointer.
        pointer: String,
        /// Which items of their side, from 0.
        first: usize,
        /// How many items of their side.
        count: usize,
    },
}

/// Neighbouring lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lines {
    /// The first one, from 1; where there is none, the line before which they would stand.
    pub first: usize,
    /// How many there are.
    pub count: usize,
}

/// How one conflict is resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// As it was before either side changed it.
    Base,
    /// As our side has it.
    Ours,
    /// As their side has it.
    Theirs,
    /// Their lines or items, and then ours. For a single JSON value there is no such thing.
    Both,
    /// This text instead; for JSON, a value as JSON text (a list of items where the conflict is about items).
    Text(String),
}

/// Why a merge was not finished.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// Conflicts that nobody resolved.
    #[error("{} not resolved; give a resolution for each", unresolved(.ids))]
    Unresolved {
        /// Their names.
        ids: Vec<String>,
    },
    /// A resolution of a conflict that there is not.
    #[error("there is no conflict {id:?}; there are {}", listed(.known))]
    NoSuchConflict {
        /// The name given.
        id: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// A single JSON value cannot hold both sides.
    #[error("conflict {id} is about one JSON value, which cannot hold both sides; resolve it with one, or with text")]
    NotBoth {
        /// Its name.
        id: String,
    },
    /// A resolution of a conflict about items that is not a list.
    #[error("the resolution of conflict {id} must be a JSON list, of the items that are to stand there")]
    NotAList {
        /// The conflict's name.
        id: String,
    },
    /// A resolution after which the document would not be JSON.
    #[error("the resolution of {id} is not valid JSON: {source}")]
    NotJson {
        /// The conflict's name, or `the whole document`.
        id: String,
        /// What is wrong with it, and where.
        source: InvalidJson,
    },
    /// A resolution that nests the document too deeply.
    #[error("the resolutions nest the document {depth} levels deep; {limit} is the limit: keep it flatter")]
    TooDeep {
        /// How deep that would be.
        depth: usize,
        /// How deep it may be.
        limit: usize,
    },
}

/// What `ours` and `theirs`, which both came from `base`, are together.
///
/// Text is merged by lines, JSON by structure: members and items that only one side changed are taken from it. Where
/// both changed the same lines, or the same member, differently, there is a conflict; changed lines that touch each
/// other are one too. A clean merge of JSON is written as `theirs` is, and every number keeps its digits.
///
/// A clean merge says that the two sides do not meet, not that the result makes sense: show it to whoever wrote.
///
/// ```
/// # use mutext_edit::merge;
/// let base = "# Plan\n\nwrite\ntest\n".into();
/// let merged = merge(&base, &"# Plan\n\nwrite docs\ntest\n".into(), &"# The plan\n\nwrite\ntest\n".into());
/// assert_eq!(merged.content().unwrap().as_str(), "# The plan\n\nwrite docs\ntest\n");
/// ```
pub fn merge(base: &Content, ours: &Content, theirs: &Content) -> Merge {
    let whole = |side: &Content| Merge::new(Body::Whole(side.clone()), Vec::new(), side);
    if ours == theirs || base == ours {
        return whole(theirs);
    }
    if base == theirs {
        return whole(ours);
    }
    if ours.kind() != theirs.kind() {
        return Merge::of_whole_documents(base, ours, theirs);
    }
    match ours.kind() {
        Kind::Text => Merge::by_lines(base, ours, theirs),
        Kind::Json => Merge::by_structure(base, ours, theirs),
    }
}

impl Merge {
    fn new(body: Body, conflicts: Vec<Hunk>, like: &Content) -> Self {
        let mut conflicts = conflicts;
        for (number, conflict) in conflicts.iter_mut().enumerate() {
            conflict.id = format!("h{}", number + 1);
        }
        Self { body, conflicts, kind: like.kind(), like: like.clone() }
    }

    fn by_lines(base: &Content, ours: &Content, theirs: &Content) -> Self {
        let (parts, conflicts) = merge_text::merge(base.as_str(), ours.as_str(), theirs.as_str());
        Self::new(Body::Lines(parts), conflicts, theirs)
    }

    fn by_structure(base: &Content, ours: &Content, theirs: &Content) -> Self {
        let by_lines = Self::by_lines(base, ours, theirs);
        let Some((tree, conflicts)) = Tree::merge(base, ours, theirs) else {
            // It cannot be taken apart: nested too deeply, say. Its lines will do if they leave JSON.
            return if by_lines.is_clean() && by_lines.content().is_some() {
                by_lines
            } else {
                Self::of_whole_documents(base, ours, theirs)
            };
        };
        let by_structure = Self::new(Body::Json(tree), conflicts, theirs);
        // Where lines come to the same, they leave everything else as it was written, blanks and all.
        let same = |lines: &Content, tree: &Content| {
            lines.parse::<serde_json::Value>().ok() == tree.parse::<serde_json::Value>().ok()
        };
        match (by_lines.content(), by_structure.content()) {
            (Some(lines), Some(tree)) if same(&lines, &tree) => by_lines,
            _ => by_structure,
        }
    }

    /// Nothing can be put together: one conflict about everything.
    fn of_whole_documents(base: &Content, ours: &Content, theirs: &Content) -> Self {
        let (part, conflict) = merge_text::whole(base.as_str(), ours.as_str(), theirs.as_str());
        // Text holds whichever side is taken; JSON is demanded only where both sides are.
        let like = if ours.kind() == theirs.kind() { theirs.clone() } else { Content::text("") };
        Self::new(Body::Lines(vec![part]), vec![conflict], &like)
    }

    /// Whether the two sides do not contradict each other anywhere.
    pub fn is_clean(&self) -> bool {
        self.conflicts.is_empty()
    }

    /// Where they contradict each other, in the order of the document.
    pub fn hunks(&self) -> &[Hunk] {
        &self.conflicts
    }

    /// What the two are together; `None` where they contradict each other.
    pub fn content(&self) -> Option<Content> {
        if self.is_clean() { self.resolved(&BTreeMap::new()).ok() } else { None }
    }

    /// What the two are together once each conflict, by its name, is resolved.
    ///
    /// ```
    /// # use mutext_edit::{Resolution, merge};
    /// let merged = merge(&"a\n".into(), &"ours\n".into(), &"theirs\n".into());
    /// let resolutions = [("h1".to_owned(), Resolution::Both)].into();
    /// assert_eq!(merged.resolved(&resolutions).unwrap().as_str(), "theirs\nours\n");
    /// ```
    pub fn resolved(&self, resolutions: &BTreeMap<String, Resolution>) -> Result<Content, MergeError> {
        let known = || self.conflicts.iter().map(|conflict| conflict.id.clone());
        if let Some(id) = resolutions.keys().find(|id| self.conflicts.iter().all(|known| known.id != **id)) {
            return Err(MergeError::NoSuchConflict { id: id.clone(), known: known().collect() });
        }
        let ids: Vec<_> = known().filter(|id| !resolutions.contains_key(id)).collect();
        if !ids.is_empty() {
            return Err(MergeError::Unresolved { ids });
        }
        let chosen: Vec<_> = self.conflicts.iter().filter_map(|conflict| resolutions.get(&conflict.id)).collect();
        match &self.body {
            Body::Whole(content) => Ok(content.clone()),
            Body::Lines(parts) => {
                let text = merge_text::resolved(parts, &self.conflicts, &chosen);
                match self.kind {
                    Kind::Text => Ok(Content::text(text)),
                    Kind::Json => Content::parse_json(text)
                        .map_err(|source| MergeError::NotJson { id: "the whole document".to_owned(), source }),
                }
            }
            Body::Json(tree) => Ok(written_like(&tree.resolved(&self.conflicts, &chosen)?, Some(&self.like))),
        }
    }

    /// It as text for a person: what is settled, and conflicts between markers, with the base in their middle.
    pub fn marked(&self, ours: &str, base: &str, theirs: &str) -> String {
        let labels = [ours, base, theirs].map(|label| label.replace(['\n', '\r'], " "));
        match &self.body {
            Body::Whole(content) => content.as_str().to_owned(),
            Body::Lines(parts) => merge_text::marked(parts, &self.conflicts, &labels),
            // Resolved in three ways, the documents differ at the conflicts and nowhere else.
            Body::Json(_) => {
                let [base, ours, theirs] =
                    [Resolution::Base, Resolution::Ours, Resolution::Theirs].map(|way| self.side(&way));
                let (parts, conflicts) = match merge_text::merge(&base, &ours, &theirs) {
                    // By lines they do not even meet; but a person has to see what is to be decided.
                    (_, conflicts) if conflicts.is_empty() && !self.is_clean() => {
                        let (part, conflict) = merge_text::whole(&base, &ours, &theirs);
                        (vec![part], vec![conflict])
                    }
                    merged => merged,
                };
                merge_text::marked(&parts, &conflicts, &labels)
            }
        }
    }

    /// The text with every conflict resolved in one way, on more lines than one.
    fn side(&self, way: &Resolution) -> String {
        let all = self.conflicts.iter().map(|conflict| (conflict.id.clone(), way.clone())).collect();
        let Ok(content) = self.resolved(&all) else { return String::new() };
        let is_on_lines = content.as_str().trim().contains('\n');
        let text = if is_on_lines { None } else { laid_out(&content) };
        text.unwrap_or_else(|| content.as_str().to_owned())
    }
}

impl Hunk {
    /// What a resolution puts there, or puts there first.
    pub(crate) fn side<'a>(&'a self, resolution: &'a Resolution) -> Option<&'a str> {
        match resolution {
            Resolution::Base => self.base.as_deref(),
            Resolution::Ours => self.ours.as_deref(),
            Resolution::Theirs | Resolution::Both => self.theirs.as_deref(),
            Resolution::Text(text) => Some(text),
        }
    }
}

impl fmt::Display for Hunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.id, self.place)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lines { theirs: Lines { first, count: 0 | 1 }, .. } => write!(f, "line {first}"),
            Self::Lines { theirs: Lines { first, count }, .. } => write!(f, "lines {first} to {}", first + count - 1),
            Self::Value(pointer) => write!(f, "{pointer:?}"),
            Self::Items { pointer, first, count } => write!(f, "{pointer:?}, {count} items from {first}"),
        }
    }
}

fn listed(ids: &[String]) -> String {
    if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
}

fn unresolved(ids: &[String]) -> String {
    let (verb, noun) = if ids.len() == 1 { ("is", "conflict") } else { ("are", "conflicts") };
    format!("{noun} {} {verb}", listed(ids))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(base: &str, ours: &str, theirs: &str) -> Merge {
        merge(&base.into(), &ours.into(), &theirs.into())
    }

    #[test]
    fn changes_of_different_lines_are_taken_from_both() {
        let base = "a\nb\nc\nd\ne\n";
        let merge = merged(base, "a\nB\nc\nd\ne\n", "a\nb\nc\nd\ne\nf");
        assert_eq!(merge.content().unwrap().as_str(), "a\nB\nc\nd\ne\nf");
        assert!(merge.is_clean() && merge.hunks().is_empty());
        assert_eq!(merged(base, "x", base).content().unwrap().as_str(), "x");
        assert_eq!(merged(base, "x", "x").content().unwrap().as_str(), "x");
    }

    #[test]
    fn the_same_lines_changed_differently_are_a_conflict_that_says_where() {
        let merge = merged("1\na\nb\nc\n9\n", "1\na\nours\nc\n9\n", "0\n1\na\ntheirs\ntoo\nc\n9\n");
        let [hunk] = merge.hunks() else { panic!("one") };
        assert_eq!(hunk.to_string(), "h1 at lines 4 to 5");
        let lines = |first, count| Lines { first, count };
        assert_eq!(hunk.place, Place::Lines { base: lines(3, 1), ours: lines(3, 1), theirs: lines(4, 2) });
        assert_eq!(hunk.theirs.as_deref(), Some("theirs\ntoo\n"));
        assert_eq!(merge.content(), None);
        let marked = "0\n1\na\n<<<<<<< me\nours\n||||||| plan@1\nb\n=======\ntheirs\ntoo\n>>>>>>> you\nc\n9\n";
        assert_eq!(merge.marked("me", "plan@1", "you"), marked);
    }

    #[test]
    fn resolutions_must_be_those_of_the_conflicts() {
        let merge = merged("a\n\nb\n", "1\n\n2\n", "3\n\n4\n");
        let of = |ids: &[&str]| ids.iter().map(|id| ((*id).to_owned(), Resolution::Ours)).collect();
        let error = merge.resolved(&of(&["h1"])).unwrap_err().to_string();
        assert_eq!(error, "conflict h2 is not resolved; give a resolution for each");
        assert!(merge.resolved(&of(&[])).unwrap_err().to_string().contains("h1, h2 are"));
        assert!(merge.resolved(&of(&["h1", "h2", "h3"])).unwrap_err().to_string().contains("there are h1, h2"));
        assert_eq!(merge.resolved(&of(&["h1", "h2"])).unwrap().as_str(), "1\n\n2\n");
    }

    #[test]
    fn lines_stay_apart_where_a_final_line_break_is_missing() {
        let merge = merged("a", "a\nours", "a\ntheirs");
        let both = [("h1".to_owned(), Resolution::Both)].into();
        assert_eq!(merge.resolved(&both).unwrap().as_str(), "a\ntheirs\na\nours");
        assert!(merge.marked("o", "b", "t").contains("\na\nours\n|||||||"));
    }

    #[test]
    fn text_against_json_is_one_conflict() {
        let json = Content::parse_json("{}").unwrap();
        let merge = merge(&"a".into(), &"b".into(), &json);
        assert_eq!(merge.hunks().len(), 1);
        let theirs = [("h1".to_owned(), Resolution::Theirs)].into();
        assert_eq!(merge.resolved(&theirs).unwrap().kind(), Kind::Text);
    }

    #[test]
    fn json_too_deep_to_be_taken_apart_is_merged_by_lines_or_not_at_all() {
        let deep = ["[\n".repeat(300), "]\n".repeat(300)].concat();
        let json = |text: String| Content::parse_json(text).unwrap();
        let base = json(format!("{{\"a\":\n1,\n\"b\":\n2,\n\"c\":\n{deep}}}"));
        let (ours, theirs) = (base.as_str().replace("\n1,", "\n7,"), base.as_str().replace("\n2,", "\n8,"));
        let clean = merge(&base, &json(ours.clone()), &json(theirs));
        assert!(clean.content().unwrap().as_str().starts_with("{\"a\":\n7,\n\"b\":\n8,"));
        let other = merge(&base, &json(ours.clone()), &json(ours.replace("\n7,", "\n9,")));
        assert_eq!(other.hunks().len(), 1);
        let text = |text: &str| [("h1".to_owned(), Resolution::Text(text.to_owned()))].into();
        assert!(other.resolved(&text("{")).unwrap_err().to_string().contains("whole document"));
        assert_eq!(other.resolved(&text("[]")).unwrap().kind(), Kind::Json);
    }

    #[test]
    fn conflicts_in_json_are_marked_among_its_lines() {
        let json = |text: &str| Content::parse_json(text).unwrap();
        let merge = merge(&json("{\"a\":1,\"b\":1}"), &json("{\"a\":2,\"b\":1}"), &json("{\"a\":3,\"b\":4}"));
        let marked =
            "{\n<<<<<<< me\n  \"a\": 2,\n||||||| base\n  \"a\": 1,\n=======\n  \"a\": 3,\n>>>>>>> you\n  \"b\": 4\n}\n";
        assert_eq!(merge.marked("me", "base", "you"), marked);
    }
}
