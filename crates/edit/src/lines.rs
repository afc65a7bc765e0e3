//! Edits of text: replacing an exact piece of it, and adding lines.

use std::collections::{HashMap, HashSet};

use mutext_contract::{Content, Kind};

use crate::edit_error::clipped;
use crate::{EditError, Which};

/// How many occurrences an error lists.
const LISTED_MAX: usize = 20;
/// How similar a line must be to be worth showing, from 0 to 1.
const WORTH_SHOWING: f64 = 0.5;
/// How many characters of a line are compared and shown.
const COMPARED_MAX: usize = 200;

/// The break that a text uses: `\r\n` where it uses that throughout, else `\n`.
pub(crate) fn line_break(text: &str) -> &'static str {
    let breaks = text.matches('\n').count();
    if breaks > 0 && text.matches("\r\n").count() == breaks { "\r\n" } else { "\n" }
}

/// The text's lines without their breaks.
pub(crate) fn bare(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n').map(without_break)
}

/// A line without its break.
pub(crate) fn without_break(line: &str) -> &str {
    line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line))
}

/// How many lines a text has.
pub(crate) fn count(text: &str) -> usize {
    text.split_inclusive('\n').count()
}

pub(crate) fn replace(content: Option<&Content>, old: &str, new: &str, which: Which) -> Result<Content, EditError> {
    let content =
        content.ok_or(EditError::NoDocument { edit: "replace", remedy: "append (text) or merge_patch (JSON)" })?;
    if old.is_empty() {
        return Err(EditError::EmptyOld);
    }
    let text = content.as_str();
    let count = text.matches(old).count();
    let no_such = |nth| EditError::NoSuchOccurrence { old: old.to_owned(), nth, count };
    let result = match (which, count) {
        (Which::Nth(0), _) => return Err(no_such(0)),
        (_, 0) => return Err(EditError::NotFound { old: old.to_owned(), near: near(text, old) }),
        (Which::Only, 1) | (Which::All, _) => text.replace(old, new),
        (Which::Only, _) => {
            let lines = occurrences(text, old);
            return Err(EditError::Ambiguous { old: old.to_owned(), lines, count });
        }
        (Which::Nth(nth), _) => {
            let (at, _) = text.match_indices(old).nth(nth - 1).ok_or_else(|| no_such(nth))?;
            let (before, rest) = text.split_at(at);
            [before, new, &rest[old.len()..]].concat()
        }
    };
    match content.kind() {
        Kind::Text => Ok(Content::text(result)),
        Kind::Json => Content::parse_json(result).map_err(|source| EditError::NotJson { source }),
    }
}

/// The lines on which the first occurrences begin.
fn occurrences(text: &str, old: &str) -> Vec<usize> {
    let (mut line, mut seen) = (1, 0);
    let starts = text.match_indices(old).take(LISTED_MAX).map(|(at, _)| {
        line += text[seen..at].matches('\n').count();
        seen = at;
        line
    });
    starts.collect()
}

/// The line that is most like the first line of `old` that the text does not have.
fn near(text: &str, old: &str) -> Option<(usize, String)> {
    let there: HashSet<_> = bare(text).collect();
    let mut wanted = bare(old).filter(|line| !line.trim().is_empty());
    let first = wanted.next()?;
    let wanted = std::iter::once(first).chain(wanted).find(|line| !there.contains(line)).unwrap_or(first);
    let wanted = pairs(wanted);
    let mut best: Option<(f64, usize, &str)> = None;
    for (index, line) in bare(text).enumerate() {
        let likeness = likeness(&wanted, &pairs(line));
        if likeness >= WORTH_SHOWING && best.is_none_or(|(most, ..)| likeness > most) {
            best = Some((likeness, index + 1, line));
        }
    }
    best.map(|(_, line, text)| (line, clipped(text, COMPARED_MAX)))
}

/// How often each pair of neighbouring characters occurs; blanks at the ends do not count.
fn pairs(line: &str) -> HashMap<(char, char), usize> {
    let mut pairs = HashMap::new();
    let characters = || line.trim().chars().take(COMPARED_MAX);
    let ends = || std::iter::once(' ');
    for pair in ends().chain(characters()).zip(characters().chain(ends())) {
        *pairs.entry(pair).or_default() += 1;
    }
    pairs
}

/// What two lines share, from 0 to 1: cheap enough to ask of every line of a long document.
fn likeness(left: &HashMap<(char, char), usize>, right: &HashMap<(char, char), usize>) -> f64 {
    let all: usize = left.values().chain(right.values()).sum();
    let shared: usize = left.iter().map(|(pair, count)| *count.min(right.get(pair).unwrap_or(&0))).sum();
    2.0 * shared as f64 / all.max(1) as f64
}

/// The document's text, where it is one.
fn text_of<'a>(content: &'a Content, edit: &'static str) -> Result<&'a str, EditError> {
    match content.kind() {
        Kind::Text => Ok(content.as_str()),
        Kind::Json => {
            Err(EditError::WrongKind { edit, kind: "JSON", remedy: "add to add to a list, or merge_patch for members" })
        }
    }
}

/// `text` with a final line break, as lines of its own.
fn whole_lines<'a>(text: &'a str, line_break: &'a str) -> [&'a str; 2] {
    [text, if text.ends_with('\n') { "" } else { line_break }]
}

pub(crate) fn insert(content: Option<&Content>, line: usize, text: &str) -> Result<Content, EditError> {
    let content = content.ok_or(EditError::NoDocument { edit: "insert", remedy: "append" })?;
    let there = text_of(content, "insert")?;
    let lines = count(there);
    if line == 0 || line > lines + 1 {
        return Err(EditError::NoSuchLine { line, lines });
    }
    if line == lines + 1 {
        return append(Some(content), text);
    }
    let at: usize = there.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let (before, after) = there.split_at(at);
    let [text, end] = whole_lines(text, line_break(there));
    Ok(Content::text([before, text, end, after].concat()))
}

pub(crate) fn append(content: Option<&Content>, text: &str) -> Result<Content, EditError> {
    let there = content.map_or(Ok(""), |content| text_of(content, "append"))?;
    let line_break = line_break(there);
    let between = if there.is_empty() || there.ends_with('\n') { "" } else { line_break };
    let [text, end] = whole_lines(text, line_break);
    Ok(Content::text([there, between, text, end].concat()))
}

pub(crate) fn prepend(content: Option<&Content>, text: &str) -> Result<Content, EditError> {
    let there = content.map_or(Ok(""), |content| text_of(content, "prepend"))?;
    let [text, end] = whole_lines(text, line_break(there));
    Ok(Content::text([text, end, there].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(result: Result<Content, EditError>) -> String {
        result.unwrap().as_str().to_owned()
    }

    fn replaced(content: &str, old: &str, which: Which) -> Result<Content, EditError> {
        replace(Some(&content.into()), old, "X", which)
    }

    #[test]
    fn one_occurrence_is_replaced_and_several_are_listed() {
        assert_eq!(text(replaced("a b c", "b", Which::Only)), "a X c");
        let Err(EditError::Ambiguous { lines, count, .. }) = replaced(&"b\nbb\n".repeat(10), "b", Which::Only) else {
            panic!("thirty are one too many")
        };
        assert_eq!((lines.len(), count), (20, 30));
        assert_eq!(&lines[..4], [1, 2, 2, 3]);
    }

    #[test]
    fn occurrences_do_not_overlap_and_count_from_the_left() {
        assert_eq!(text(replaced("aaaaa", "aa", Which::All)), "XXa");
        assert_eq!(text(replaced("aaaaa", "aa", Which::Nth(2))), "aaXa");
        let error = replaced("aaaaa", "aa", Which::Nth(3)).unwrap_err();
        assert!(error.to_string().contains("there are 2"), "{error}");
        assert!(matches!(replaced("a", "a", Which::Nth(0)), Err(EditError::NoSuchOccurrence { nth: 0, .. })));
    }

    #[test]
    fn what_is_not_there_is_told_with_the_most_similar_line() {
        let content = "# Plan\n\n- [ ] Write the docs for `merge`\n- [x] Sleep\n";
        let Err(EditError::NotFound { near, .. }) = replaced(content, "- [ ] Write docs for merge", Which::Only) else {
            panic!("it is not there")
        };
        assert_eq!(near, Some((3, "- [ ] Write the docs for `merge`".to_owned())));
        let Err(EditError::NotFound { near, .. }) = replaced(content, "# Plan\n- [X] Sleep", Which::All) else {
            panic!("it is not there")
        };
        assert_eq!(near.unwrap().0, 4, "the first line is there; it is the second that differs");
        let Err(EditError::NotFound { near, .. }) = replaced(content, "zzz", Which::Only) else {
            panic!("it is not there")
        };
        assert_eq!(near, None);
        assert!(matches!(replaced("a", "", Which::All), Err(EditError::EmptyOld)));
    }

    #[test]
    fn replacing_in_json_leaves_json() {
        let json = Content::parse_json("{ \"a\": 1.10 }").unwrap();
        let result = replace(Some(&json), "1.10", "[1]", Which::Only).unwrap();
        assert_eq!((result.kind(), result.as_str()), (Kind::Json, "{ \"a\": [1] }"));
        assert!(matches!(replace(Some(&json), "}", "", Which::Only), Err(EditError::NotJson { .. })));
    }

    #[test]
    fn inserted_lines_stand_before_the_line_that_is_named() {
        let insert = |there: &str, line, text: &str| insert(Some(&there.into()), line, text);
        assert_eq!(text(insert("a\nb\n", 2, "x")), "a\nx\nb\n");
        assert_eq!(text(insert("a\nb", 3, "x\n")), "a\nb\nx\n");
        assert_eq!(text(insert("", 1, "x")), "x\n");
        assert_eq!(text(insert("a\r\nb\r\n", 1, "x")), "x\r\na\r\nb\r\n");
        let error = insert("a\nb", 4, "x").unwrap_err();
        assert!(error.to_string().contains("has 2 lines"), "{error}");
        assert!(insert("a", 0, "x").is_err());
    }

    #[test]
    fn appended_and_prepended_text_stands_on_lines_of_its_own() {
        assert_eq!(text(append(None, "x")), "x\n");
        assert_eq!(text(append(Some(&"a".into()), "x\n")), "a\nx\n");
        assert_eq!(text(append(Some(&"a\r\n".into()), "x")), "a\r\nx\r\n");
        assert_eq!(text(append(Some(&"a\r\nb\n".into()), "x")), "a\r\nb\nx\n", "not \\r\\n throughout");
        assert_eq!(text(append(Some(&"a".into()), "")), "a\n\n", "an empty text is an empty line");
        assert_eq!(text(prepend(None, "x")), "x\n");
        assert_eq!(text(prepend(Some(&"a".into()), "x")), "x\na");
    }
}
