//! What is different between two contents, as a unified diff of limited size.

use std::fmt;
use std::ops::Range;

use mutext_contract::{Content, Kind};
use serde::{Deserialize, Serialize};
use similar::{Algorithm, DiffOp, DiffTag, capture_diff_slices, group_diff_ops};

use crate::edit_error::clipped;
use crate::lines::without_break;
use crate::style::laid_out;

/// JSON on one line is compared as it stands up to this size, and laid out on several beyond it.
const ONE_LINE_MAX: usize = 120;
/// What part of the budget one line may take.
const LINE_SHARE: usize = 4;
/// A line is never shortened below this many bytes.
const LINE_BYTES_MIN: usize = 80;

/// How a difference is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffOptions {
    /// What the old side is called in the first line.
    pub old: String,
    /// What the new side is called in the second line.
    pub new: String,
    /// How many unchanged lines stand around a change.
    pub context: usize,
    /// How many bytes the hunks may have together.
    pub bytes_max: usize,
}

impl Default for DiffOptions {
    fn default() -> Self {
        Self { old: "before".to_owned(), new: "after".to_owned(), context: 3, bytes_max: usize::MAX }
    }
}

impl DiffOptions {
    /// With these names of the two sides; line breaks in them become blanks.
    #[must_use]
    pub fn labels(mut self, old: &str, new: &str) -> Self {
        let on_one_line = |label: &str| label.replace(['\n', '\r'], " ");
        (self.old, self.new) = (on_one_line(old), on_one_line(new));
        self
    }

    /// With at most so many bytes of hunks.
    #[must_use]
    pub fn within(mut self, bytes_max: usize) -> Self {
        self.bytes_max = bytes_max;
        self
    }
}

/// The difference between two contents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diff {
    /// It as a unified diff; empty where there is none.
    pub text: String,
    /// How many lines are there that were not.
    pub added: usize,
    /// How many lines were there that are not.
    pub removed: usize,
    /// How many of these added and removed lines `text` leaves out, because it would have become too large.
    pub left_out: usize,
    /// How many lines of `text` end early, with three points.
    pub shortened: usize,
    /// Whether what is compared is JSON laid out on lines of its own, not the bytes as they stand.
    pub laid_out: bool,
}

impl Diff {
    /// Whether the two are the same.
    pub const fn is_empty(&self) -> bool {
        self.added == 0 && self.removed == 0
    }

    /// Whether `text` is the whole difference, of the bytes as they stand: what a patch tool could apply.
    pub const fn is_exact(&self) -> bool {
        self.left_out == 0 && self.shortened == 0 && !self.laid_out
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match self.left_out {
            0 => Ok(()),
            1 => f.write_str("… 1 more changed line is left out\n"),
            more => writeln!(f, "… {more} more changed lines are left out"),
        }
    }
}

/// The difference between two contents; `None` stands for a document that is not there.
///
/// JSON that stands on one long line is compared as if it were laid out on several.
///
/// ```
/// # use mutext_edit::{DiffOptions, diff};
/// let (old, new) = ("a\nb\n".into(), "a\nc\n".into());
/// let diff = diff(Some(&old), Some(&new), &DiffOptions::default().labels("plan@1", "plan@2"));
/// assert_eq!(diff.text, "--- plan@1\n+++ plan@2\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n");
/// ```
pub fn diff(old: Option<&Content>, new: Option<&Content>, options: &DiffOptions) -> Diff {
    if let Some((old, new)) = both_laid_out(old, new) {
        return Diff { laid_out: true, ..diff_texts(&old, &new, options) };
    }
    diff_texts(old.map_or("", Content::as_str), new.map_or("", Content::as_str), options)
}

/// Both sides on several lines, where one of them is JSON on one line that is too long to compare.
fn both_laid_out(old: Option<&Content>, new: Option<&Content>) -> Option<(String, String)> {
    let sides = || old.into_iter().chain(new);
    let is_long = |content: &Content| content.size() > ONE_LINE_MAX && !content.as_str().trim().contains('\n');
    if !sides().all(|side| side.kind() == Kind::Json) || !sides().any(is_long) {
        return None;
    }
    let lines = |side: Option<&Content>| side.map_or(Some(String::new()), laid_out);
    let (old, new) = (lines(old)?, lines(new)?);
    // Where only blanks changed there would be nothing to see.
    (old != new).then_some((old, new))
}

/// The difference between two texts, line by line.
pub fn diff_texts(old: &str, new: &str, options: &DiffOptions) -> Diff {
    let old: Vec<_> = old.split_inclusive('\n').collect();
    let new: Vec<_> = new.split_inclusive('\n').collect();
    let ops = capture_diff_slices(Algorithm::Myers, &old, &new);
    let (removed, added) = changed(&ops);
    let mut diff = Diff { added, removed, ..Diff::default() };
    if diff.is_empty() {
        return diff;
    }
    let mut writer =
        Writer { room: options.bytes_max, line_max: line_max(options.bytes_max), shown: 0, diff: &mut diff };
    writer.diff.text = format!("--- {}\n+++ {}\n", options.old, options.new);
    for hunk in group_diff_ops(ops, options.context) {
        if !writer.hunk(&hunk, &old, &new) {
            break;
        }
    }
    let shown = writer.shown;
    diff.left_out = added + removed - shown;
    diff
}

const fn line_max(bytes_max: usize) -> usize {
    if bytes_max == usize::MAX {
        return usize::MAX;
    }
    let share = bytes_max / LINE_SHARE;
    if share < LINE_BYTES_MIN { LINE_BYTES_MIN } else { share }
}

/// How many lines are removed, and how many added.
fn changed(ops: &[DiffOp]) -> (usize, usize) {
    let changes = ops.iter().filter(|op| op.tag() != DiffTag::Equal);
    changes.fold((0, 0), |(removed, added), op| (removed + op.old_range().len(), added + op.new_range().len()))
}

/// Writes hunks as long as there is room.
struct Writer<'a> {
    room: usize,
    line_max: usize,
    /// How many changed lines are written.
    shown: usize,
    diff: &'a mut Diff,
}

impl Writer<'_> {
    /// Writes a hunk, or as much of it as there is room for; whether it is whole.
    fn hunk(&mut self, ops: &[DiffOp], old: &[&str], new: &[&str]) -> bool {
        let mut body = String::new();
        let (mut olds, mut news, mut shown, mut shortened, mut is_whole) = (0, 0, 0, 0, true);
        let (old_start, new_start) = ops.first().map_or((0, 0), |op| (op.old_range().start, op.new_range().start));
        for (mark, line) in ops.iter().flat_map(|op| marked(op, old, new)) {
            let (written, is_short) = self.line(mark, line);
            // The header is written last, and its numbers are known only then; it never has more than these.
            if body.len() + written.len() + HEADER_BYTES_MAX > self.room {
                is_whole = false;
                break;
            }
            body.push_str(&written);
            olds += usize::from(mark != '+');
            news += usize::from(mark != '-');
            shown += usize::from(mark != ' ');
            shortened += usize::from(is_short);
        }
        if shown == 0 {
            return false;
        }
        let header = format!("@@ -{} +{} @@\n", span(old_start, olds), span(new_start, news));
        self.room = self.room.saturating_sub(header.len() + body.len());
        self.diff.text.push_str(&header);
        self.diff.text.push_str(&body);
        self.diff.shortened += shortened;
        self.shown += shown;
        is_whole
    }

    /// A line with its mark, and whether it was shortened.
    fn line(&self, mark: char, line: &str) -> (String, bool) {
        let is_short = line.len() > self.line_max;
        let end = if line.ends_with('\n') { "" } else { "\n\\ No newline at end of file\n" };
        if is_short {
            // Characters have up to four bytes.
            let start = clipped(without_break(line), self.line_max / 4);
            return (format!("{mark}{start}\n"), true);
        }
        (format!("{mark}{line}{end}"), false)
    }
}

/// No header of a hunk is longer: four numbers and what is between them.
const HEADER_BYTES_MAX: usize = 48;

/// The lines of one operation with the marks of a unified diff.
fn marked<'a>(op: &DiffOp, old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    let of = |mark: char, lines: &[&'a str], range: Range<usize>| {
        lines.get(range).unwrap_or_default().iter().map(|line| (mark, *line)).collect::<Vec<_>>()
    };
    if op.tag() == DiffTag::Equal {
        return of(' ', old, op.old_range());
    }
    [of('-', old, op.old_range()), of('+', new, op.new_range())].concat()
}

/// Where a side of a hunk stands: its first line, or the line before it where it is empty, and its length.
fn span(start: usize, length: usize) -> String {
    match length {
        0 => format!("{start},0"),
        1 => (start + 1).to_string(),
        _ => format!("{},{length}", start + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(old: &str, new: &str) -> String {
        let diff = diff_texts(old, new, &DiffOptions::default());
        assert!(diff.is_exact());
        diff.text.lines().skip(2).map(|line| [line, "\n"].concat()).collect()
    }

    #[test]
    fn changes_stand_in_three_lines_of_context() {
        let old: String = (1..=20).flat_map(|n| [n.to_string(), "\n".to_owned()]).collect();
        let new = old.replace("\n5\n", "\nfive\n").replace("\n15\n", "\n");
        let expected = "@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n\
                        @@ -12,7 +12,6 @@\n 12\n 13\n 14\n-15\n 16\n 17\n 18\n";
        assert_eq!(shown(&old, &new), expected);
    }

    #[test]
    fn what_lacks_a_final_line_break_says_so() {
        let expected = "@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+b\n\\ No newline at end of file\n";
        assert_eq!(shown("a", "b"), expected);
        assert_eq!(shown("a", "a\n"), "@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n");
        assert_eq!(shown("", "a\n"), "@@ -0,0 +1 @@\n+a\n");
        assert_eq!(shown("a\nb\n", ""), "@@ -1,2 +0,0 @@\n-a\n-b\n");
        assert_eq!(shown("a\r\n", "a\n"), "@@ -1 +1 @@\n-a\n+a\n", "a line break that changed is a change");
    }

    #[test]
    fn equal_contents_have_no_difference() {
        let content = Content::text("a\n");
        let none = diff(Some(&content), Some(&content), &DiffOptions::default());
        assert!(none.is_empty() && none.text.is_empty() && none.to_string().is_empty());
        assert!(diff(None, None, &DiffOptions::default()).is_empty());
        assert_eq!(diff(None, Some(&content), &DiffOptions::default()).added, 1);
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let (old, new) = ("old\n".repeat(500), "new\n".repeat(500));
        let diff = diff_texts(&old, &new, &DiffOptions::default().within(1000));
        assert_eq!((diff.added, diff.removed), (500, 500));
        assert!(diff.text.len() < 1100, "{}", diff.text.len());
        let lines = diff.text.lines().filter(|line| line.starts_with("-old") || line.starts_with("+new")).count();
        assert_eq!(lines + diff.left_out, 1000);
        assert!(diff.text.contains(&format!("@@ -1,{lines} +0,0 @@")), "the header says what is there");
        assert!(diff.to_string().ends_with(&format!("… {} more changed lines are left out\n", diff.left_out)));
        assert_eq!(diff_texts(&old, &new, &DiffOptions::default().within(0)).left_out, 1000);
    }

    #[test]
    fn a_long_line_is_shortened_between_characters() {
        let (old, new) = ("ä".repeat(5000), "ö".repeat(5000));
        let diff = diff_texts(&old, &new, &DiffOptions::default().within(1000));
        assert_eq!((diff.shortened, diff.left_out), (2, 0));
        assert!(diff.text.contains("ä…\n") && diff.text.contains("ö…\n") && diff.text.len() < 1100, "{}", diff.text);
    }

    #[test]
    fn json_on_one_long_line_is_compared_member_by_member() {
        let members: Vec<_> = (0..50).map(|n| format!("\"m{n}\":{n}.10")).collect();
        let old = Content::parse_json(format!("{{{}}}", members.join(","))).unwrap();
        let new = Content::parse_json(old.as_str().replace("\"m7\":7.10", "\"m7\":7.1")).unwrap();
        let diff = diff(Some(&old), Some(&new), &DiffOptions { context: 0, ..DiffOptions::default() });
        assert!(diff.text.ends_with("@@ -9 +9 @@\n-  \"m7\": 7.10,\n+  \"m7\": 7.1,\n"), "{}", diff.text);
        assert!(diff.laid_out && !diff.is_exact());
        let blanks = Content::parse_json(old.as_str().replace(',', ", ")).unwrap();
        let diff = super::diff(Some(&old), Some(&blanks), &DiffOptions::default());
        assert!(!diff.laid_out && !diff.is_empty());
    }
}
