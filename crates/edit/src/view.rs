//! A part of a document within a budget, and where to go on from.

use std::ops::Range;

use mutext_contract::{Content, Kind};
use serde::{Deserialize, Serialize};

use crate::edit_error::clipped;
use crate::lines::count;
use crate::merge::Lines;
use crate::outline::{Breaks, Section, sections};
use crate::place::{self, described};
use crate::{EditError, spans};

/// How many headings an error lists.
const LISTED_MAX: usize = 20;

/// Which part of a document to show.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// All of it.
    #[default]
    Whole,
    /// A section of Markdown by its heading, with those above it where that is needed to tell it from others:
    /// `Phase 2`, `Plan/Phase 2`.
    Section(String),
    /// A value of a JSON document by its JSON Pointer, as it was written.
    Pointer(String),
    /// Lines of the text.
    Lines {
        /// The first one, from 1.
        first: usize,
        /// The last one; beyond the end means to the end.
        last: usize,
    },
}

/// A part of a document, or as much of it as the budget allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// What stands there, byte for byte.
    pub text: String,
    /// On which lines of the document.
    pub lines: Lines,
    /// How many bytes of the part come after it.
    pub left: usize,
    /// What to hand in to go on from where this ends, while the document is at the same revision; `None` at the end.
    pub next: Option<usize>,
}

/// Why a part cannot be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// A part of text asked of JSON, or the other way round.
    #[error("a {part} cannot be shown of {kind}; give {remedy}")]
    WrongKind {
        /// `section` or `pointer`.
        part: &'static str,
        /// What the document is.
        kind: &'static str,
        /// What can be shown of it.
        remedy: &'static str,
    },
    /// No heading like that.
    #[error("there is no section {path:?}; there are {}", listed(.known, *.count))]
    NoSuchSection {
        /// What was asked for.
        path: String,
        /// The first sections that there are.
        known: Vec<String>,
        /// How many there are.
        count: usize,
    },
    /// More than one heading like that.
    #[error("{path:?} is the heading of {} sections: {}; give the headings above it too, or lines", .lines.len(),
        .lines.iter().map(|(line, path)| format!("{path:?} on line {line}")).collect::<Vec<_>>().join(", "))]
    AmbiguousSection {
        /// What was asked for.
        path: String,
        /// The line and the whole path of each.
        lines: Vec<(usize, String)>,
    },
    /// A pointer that is not one.
    #[error(transparent)]
    BadPointer(EditError),
    /// A pointer that leads nowhere.
    #[error("nothing is at {pointer:?}; at {way:?} is {found}")]
    NoSuchValue {
        /// What was asked for.
        pointer: String,
        /// How far it leads.
        way: String,
        /// What is there.
        found: String,
    },
    /// A line beyond the end, or line 0, or an end before the beginning.
    #[error("there are no lines {first} to {last}; the document has {lines} lines, counted from 1")]
    NoSuchLines {
        /// The first that was asked for.
        first: usize,
        /// The last that was asked for.
        last: usize,
        /// How many there are.
        lines: usize,
    },
    /// A place to go on from that is not in the part.
    #[error("cannot go on from {from}, which is not a place in this part; begin again without it")]
    BadCursor {
        /// What was given.
        from: usize,
    },
}

/// Shows a part of a document: at most `bytes_max` bytes of it, from where an earlier view ended.
///
/// It ends with a whole line where one fits, and never inside a character. So that whoever goes on gets on, at least
/// one character is shown, however small the budget.
///
/// ```
/// # use mutext_edit::{Part, view};
/// let document = "# Plan\n\none\ntwo\n\n# Notes\n".into();
/// let part = Part::Section("Plan".into());
/// let first = view(&document, &part, None, 14).unwrap();
/// assert_eq!((first.text.as_str(), first.left), ("# Plan\n\none\n", 5));
/// let rest = view(&document, &part, first.next, 100).unwrap();
/// assert_eq!((rest.text.as_str(), rest.next), ("two\n\n", None));
/// ```
pub fn view(content: &Content, part: &Part, from: Option<usize>, bytes_max: usize) -> Result<View, ViewError> {
    let text = content.as_str();
    let range = range_of(content, part)?;
    let start = from.unwrap_or(range.start);
    let rest = if (range.start..=range.end).contains(&start) { text.get(start..range.end) } else { None };
    let rest = rest.ok_or(ViewError::BadCursor { from: start })?;
    let shown = beginning(rest, bytes_max);
    let breaks = text.get(..start).unwrap_or_default().matches('\n').count();
    let left = rest.len() - shown.len();
    Ok(View {
        text: shown.to_owned(),
        lines: Lines { first: breaks + 1, count: count(shown) },
        left,
        next: (left > 0).then_some(start + shown.len()),
    })
}

/// The bytes that a part takes.
fn range_of(content: &Content, part: &Part) -> Result<Range<usize>, ViewError> {
    let text = content.as_str();
    match (part, content.kind()) {
        (Part::Whole, _) => Ok(0..text.len()),
        (Part::Lines { first, last }, _) => lines(text, *first, *last),
        (Part::Section(path), Kind::Text) => Ok(section(text, path)?.range),
        (Part::Pointer(pointer), Kind::Json) => value(text, pointer),
        (Part::Section(_), Kind::Json) => {
            Err(ViewError::WrongKind { part: "section", kind: "JSON", remedy: "a JSON Pointer, or lines" })
        }
        (Part::Pointer(_), Kind::Text) => {
            Err(ViewError::WrongKind { part: "pointer", kind: "text", remedy: "a section, or lines" })
        }
    }
}

fn lines(text: &str, first: usize, last: usize) -> Result<Range<usize>, ViewError> {
    let lines = count(text);
    // An empty document has nothing to show, but is no reason for an error.
    if first == 0 || last < first || first > lines.max(1) {
        return Err(ViewError::NoSuchLines { first, last, lines });
    }
    let bytes = |lines: usize| text.split_inclusive('\n').take(lines).map(str::len).sum();
    Ok(bytes(first - 1)..bytes(last))
}

/// The one section that a path of headings means: the whole path, or else the end of one.
pub(crate) fn section(text: &str, path: &str) -> Result<Section, ViewError> {
    let mut all = sections(text);
    let path = path.trim();
    let below = format!("/{path}");
    let is_whole = |section: &Section| section.path == path;
    let found: Vec<_> = if all.iter().any(is_whole) {
        all.extract_if(.., |section| is_whole(section)).collect()
    } else {
        all.extract_if(.., |section| section.path.ends_with(&below)).collect()
    };
    let breaks = Breaks::of(text);
    let lines = found.iter().map(|one| (breaks.before(one.range.start) + 1, one.path.clone())).take(LISTED_MAX);
    let lines: Vec<_> = lines.collect();
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => Err(ViewError::AmbiguousSection { path: path.to_owned(), lines }),
        (None, _) => {
            let known = all.iter().take(LISTED_MAX).map(|section| section.path.clone()).collect();
            Err(ViewError::NoSuchSection { path: clipped(path, 100), known, count: all.len() })
        }
    }
}

/// Where the value stands to which a pointer leads.
pub(crate) fn value(text: &str, pointer: &str) -> Result<Range<usize>, ViewError> {
    let tokens = place::tokens(pointer).map_err(ViewError::BadPointer)?;
    spans::find(text, &tokens).map_err(|(way, found)| {
        let parsed = text.get(found).and_then(|text| serde_json::from_str(text).ok());
        let way: String = tokens.iter().take(way).flat_map(|token| ["/".to_owned(), place::escaped(token)]).collect();
        ViewError::NoSuchValue {
            pointer: clipped(pointer, 100),
            way: clipped(&way, 100),
            found: parsed.map_or_else(|| "something deeply nested".to_owned(), |value| described(&value)),
        }
    })
}

/// As much of a text as fits: whole lines if one fits, whole characters if one does, else one character.
fn beginning(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        return text;
    }
    let end = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    let end = text.get(..end).and_then(|fitting| fitting.rfind('\n')).map_or(end, |at| at + 1);
    let one = text.chars().next().map_or(0, char::len_utf8);
    text.get(..end.max(one)).unwrap_or(text)
}

fn listed(known: &[String], count: usize) -> String {
    if known.is_empty() {
        return "no headings; give lines instead".to_owned();
    }
    let names: Vec<_> = known.iter().map(|path| format!("{path:?}")).collect();
    format!("{}{}", names.join(", "), if count > known.len() { ", …" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "# Plan\nintro\n## Phase 1\none\n## Phase 2\ntwo\n# Notes\n## Phase 2\nother\n## In/Out\nx";

    fn shown(text: &str, part: &Part) -> Result<String, String> {
        let content = if text.starts_with(['{', '[']) { Content::parse_json(text).unwrap() } else { text.into() };
        view(&content, part, None, usize::MAX).map(|view| view.text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_section_goes_up_to_the_next_heading_of_its_level() {
        let section = |path: &str| shown(PLAN, &Part::Section(path.to_owned()));
        assert_eq!(section("Phase 1").unwrap(), "## Phase 1\none\n");
        assert_eq!(section("Plan").unwrap(), PLAN[..PLAN.find("# Notes").unwrap()]);
        assert_eq!(section("Notes/Phase 2").unwrap(), "## Phase 2\nother\n");
        assert_eq!(section("In/Out").unwrap(), "## In/Out\nx");
        let ambiguous = "\"Phase 2\" is the heading of 2 sections: \"Plan/Phase 2\" on line 5, \"Notes/Phase 2\" on line 8; \
                         give the headings above it too, or lines";
        assert_eq!(section("Phase 2").unwrap_err(), ambiguous);
        assert!(section("Phase").unwrap_err().contains("there are \"Plan\", \"Plan/Phase 1\""));
        assert!(shown("x", &Part::Section("y".into())).unwrap_err().contains("no headings"));
        assert!(shown("{}", &Part::Section("y".into())).unwrap_err().contains("JSON Pointer"));
    }

    #[test]
    fn a_value_is_shown_as_it_was_written() {
        let json = "{\"a\": [ 1.10,\n {} ], \"b\": 2}";
        let pointer = |pointer: &str| shown(json, &Part::Pointer(pointer.to_owned()));
        assert_eq!(pointer("/a").unwrap(), "[ 1.10,\n {} ]");
        assert_eq!(pointer("/a/7").unwrap_err(), "nothing is at \"/a/7\"; at \"/a\" is a list of 2 items");
        assert!(pointer("a").unwrap_err().contains("does not begin with `/`"));
        assert!(shown("x", &Part::Pointer("/a".into())).unwrap_err().contains("give a section, or lines"));
    }

    #[test]
    fn lines_are_counted_from_one_and_end_with_the_document() {
        let lines = |first, last| shown("a\nb\r\nc", &Part::Lines { first, last });
        assert_eq!(lines(2, 2).unwrap(), "b\r\n");
        assert_eq!(lines(2, 99).unwrap(), "b\r\nc");
        assert!(lines(4, 5).unwrap_err().contains("has 3 lines"));
        assert!(lines(0, 1).is_err() && lines(2, 1).is_err());
        assert_eq!(shown("", &Part::Lines { first: 1, last: 1 }).unwrap(), "");
    }

    #[test]
    fn a_view_goes_on_where_the_last_one_ended() {
        let content = Content::text("one\ntwo\näöü\nfour");
        let (mut from, mut pieces) = (None, Vec::new());
        loop {
            let view = view(&content, &Part::Whole, from, 5).unwrap();
            pieces.push((view.text, view.lines.first, view.lines.count));
            from = view.next;
            if from.is_none() {
                break;
            }
        }
        let piece = |text: &str, first, count| (text.to_owned(), first, count);
        assert_eq!(
            pieces,
            [piece("one\n", 1, 1), piece("two\n", 2, 1), piece("äö", 3, 1), piece("ü\n", 3, 1), piece("four", 4, 1)]
        );
        assert_eq!(view(&Content::text("ä"), &Part::Whole, None, 0).unwrap().text, "ä", "or nobody would get on");
        assert!(view(&content, &Part::Whole, Some(9), 5).is_err(), "inside a character");
        assert!(
            view(&content, &Part::Lines { first: 1, last: 1 }, Some(5), 5)
                .unwrap_err()
                .to_string()
                .contains("begin again")
        );
    }
}
