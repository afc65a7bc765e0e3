//! What a document consists of: headings of Markdown, members of JSON, with their sizes.

use std::ops::Range;

use mutext_contract::{Content, Kind};
use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};
use serde::{Deserialize, Serialize};

use crate::lines::count;
use crate::merge::Lines;
use crate::place::escaped;
use crate::spans::{Shape, children, root, shape};

/// How many parts an outline lists unless told otherwise.
const PARTS_MAX: usize = 200;

/// How many levels of members an outline of JSON shows unless told otherwise.
const JSON_DEPTH: usize = 2;

/// How much of a document an outline shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutlineOptions {
    /// How many levels of headings, or of members below members; `None`: all headings, two levels of members.
    pub depth: Option<usize>,
    /// How many parts at most.
    pub parts_max: usize,
}

impl Default for OutlineOptions {
    fn default() -> Self {
        Self { depth: None, parts_max: PARTS_MAX }
    }
}

/// What a document consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outline {
    /// The document's size in bytes.
    pub bytes: usize,
    /// How many lines it has.
    pub lines: usize,
    /// Its parts in their order, each followed by those inside it.
    pub parts: Vec<OutlinePart>,
    /// How many parts are left out because there are too many.
    pub left_out: usize,
}

/// A section of Markdown, or a value inside a JSON document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutlinePart {
    /// How to ask for it: the path of its heading (`Plan/Phase 2`), or its JSON Pointer.
    pub at: String,
    /// How deep it lies, from 1.
    pub level: usize,
    /// Its size in bytes, with everything inside it.
    pub bytes: usize,
    /// Where it stands.
    pub lines: Lines,
    /// How many members or items it has; `None` for a section, or a value that has none.
    pub members: Option<usize>,
}

/// A section of a Markdown text: a heading and everything up to the next one that is not below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    /// Its heading behind those above it: `Plan/Phase 2`.
    pub(crate) path: String,
    /// How many headings stand above it, and one.
    pub(crate) depth: usize,
    /// The bytes it takes.
    pub(crate) range: Range<usize>,
}

/// What a document consists of.
///
/// ```
/// # use mutext_edit::{OutlineOptions, outline};
/// let outline = outline(&"# Plan\n\n## Phase 1\n\nwrite\n\n## Phase 2\n".into(), OutlineOptions::default());
/// let parts: Vec<_> = outline.parts.iter().map(|part| (part.at.as_str(), part.bytes)).collect();
/// assert_eq!(parts, [("Plan", 38), ("Plan/Phase 1", 19), ("Plan/Phase 2", 11)]);
/// ```
pub fn outline(content: &Content, options: OutlineOptions) -> Outline {
    let text = content.as_str();
    let breaks = Breaks::of(text);
    let mut parts: Vec<_> = match content.kind() {
        Kind::Text => {
            let is_shown = |section: &Section| options.depth.is_none_or(|depth| section.depth <= depth);
            sections(text).into_iter().filter(is_shown).map(|section| of_section(section, text, &breaks)).collect()
        }
        Kind::Json => members(text, options.depth.unwrap_or(JSON_DEPTH), &breaks),
    };
    let left_out = parts.len().saturating_sub(options.parts_max);
    parts.truncate(options.parts_max);
    Outline { bytes: text.len(), lines: count(text), parts, left_out }
}

fn of_section(section: Section, text: &str, breaks: &Breaks) -> OutlinePart {
    let lines = breaks.lines(text, &section.range);
    OutlinePart { at: section.path, level: section.depth, bytes: section.range.len(), lines, members: None }
}

/// The values inside a JSON text, down to a depth.
fn members(text: &str, depth: usize, breaks: &Breaks) -> Vec<OutlinePart> {
    let mut parts = Vec::new();
    // What is still to be listed, the next one last: a document may be nested deeper than a stack.
    let mut open = vec![(String::new(), 0, root(text))];
    while let Some((at, level, value)) = open.pop() {
        let below = children(text, &value);
        if level > 0 {
            let members = (shape(text, &value) != Shape::Scalar).then_some(below.len());
            let lines = breaks.lines(text, &value);
            parts.push(OutlinePart { at: at.clone(), level, bytes: value.len(), lines, members });
        }
        // The items of lists inside the document are many and have no names.
        if level < depth && (level == 0 || shape(text, &value) == Shape::Object) {
            let named = |(index, child): (usize, crate::spans::Child)| {
                let token = child.name.map_or_else(|| index.to_string(), |name| escaped(&name));
                (format!("{at}/{token}"), level + 1, child.value)
            };
            open.extend(below.into_iter().enumerate().map(named).rev());
        }
    }
    parts
}

/// The sections of a Markdown text in their order.
pub(crate) fn sections(text: &str) -> Vec<Section> {
    let headings = headings(text);
    let mut above: Vec<(usize, String)> = Vec::new();
    let mut sections: Vec<Section> = Vec::new();
    for (at, heading) in headings.iter().enumerate() {
        let end = headings.iter().skip(at + 1).find(|next| next.level <= heading.level);
        let range = heading.start..end.map_or(text.len(), |next| next.start);
        above.truncate(above.iter().position(|(level, _)| *level >= heading.level).unwrap_or(above.len()));
        let path = match above.last() {
            Some((_, path)) => format!("{path}/{}", heading.title),
            None => heading.title.clone(),
        };
        above.push((heading.level, path.clone()));
        sections.push(Section { path, depth: above.len(), range });
    }
    sections
}

struct Heading {
    level: usize,
    title: String,
    /// Where its line begins.
    start: usize,
}

/// What Markdown may contain beyond the core of it.
pub(crate) const MARKDOWN: Options =
    Options::ENABLE_TASKLISTS.union(Options::ENABLE_TABLES).union(Options::ENABLE_YAML_STYLE_METADATA_BLOCKS);

/// The headings that stand on their own: not in quotes or lists.
fn headings(text: &str) -> Vec<Heading> {
    let mut headings: Vec<Heading> = Vec::new();
    let (mut depth, mut is_open) = (0_usize, false);
    for (event, range) in Parser::new_ext(text, MARKDOWN).into_offset_iter() {
        match event {
            Event::Start(Tag::Heading { level, .. }) if depth == 0 => {
                depth += 1;
                is_open = true;
                let start = text.get(..range.start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
                headings.push(Heading { level: level_number(level), title: String::new(), start });
            }
            Event::Start(_) => depth += 1,
            Event::End(end) => {
                depth = depth.saturating_sub(1);
                is_open &= !matches!(end, TagEnd::Heading(_));
            }
            Event::Text(piece) | Event::Code(piece) if is_open => push(&mut headings, &piece),
            Event::SoftBreak | Event::HardBreak if is_open => push(&mut headings, " "),
            _ => {}
        }
    }
    for heading in &mut headings {
        heading.title = heading.title.trim().to_owned();
    }
    headings
}

fn push(headings: &mut [Heading], piece: &str) {
    if let Some(heading) = headings.last_mut() {
        heading.title.push_str(piece);
    }
}

const fn level_number(level: HeadingLevel) -> usize {
    match level {
        HeadingLevel::H1 => 1,
        HeadingLevel::H2 => 2,
        HeadingLevel::H3 => 3,
        HeadingLevel::H4 => 4,
        HeadingLevel::H5 => 5,
        HeadingLevel::H6 => 6,
    }
}

/// Where the line breaks of a text are.
pub(crate) struct Breaks(Vec<usize>);

impl Breaks {
    pub(crate) fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// How many there are before a place.
    pub(crate) fn before(&self, at: usize) -> usize {
        self.0.partition_point(|place| *place < at)
    }

    /// The lines on which these bytes stand.
    pub(crate) fn lines(&self, text: &str, range: &Range<usize>) -> Lines {
        let count = text.get(range.clone()).map_or(0, count);
        Lines { first: self.before(range.start) + 1, count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(content: &Content, depth: usize) -> Vec<String> {
        let outline = outline(content, OutlineOptions { depth: Some(depth), ..OutlineOptions::default() });
        let part = |part: OutlinePart| {
            let last = part.lines.first + part.lines.count - 1;
            let members = part.members.map(|members| format!(" of {members}")).unwrap_or_default();
            format!("{} {}-{last} {}{members}", part.at, part.lines.first, part.bytes)
        };
        outline.parts.into_iter().map(part).collect()
    }

    #[test]
    fn headings_are_sections_with_what_stands_below_them() {
        let text = "---\ntitle: x\n---\nbefore\n\nPlan *A*\n====\n\n```\n# not one\n```\n\n### `deep`\nx\n## Next\n\
                    > # quoted\n\n- # in a list\n# Last";
        let expected =
            ["Plan A 6-18 81", "Plan A/deep 13-14 13", "Plan A/Next 15-18 34", "Last 19-19 6"].map(str::to_owned);
        assert_eq!(listed(&text.into(), 2), expected);
    }

    #[test]
    fn members_are_listed_with_their_sizes() {
        let json = Content::parse_json("{\n  \"a/b\": {\"c\": [1,\n 2], \"d\": {}},\n  \"e\": 1.10\n}\n").unwrap();
        let expected = ["/a~1b 2-3 23 of 2", "/a~1b/c 2-3 7 of 2", "/a~1b/d 3-3 2 of 0", "/e 4-4 4"];
        assert_eq!(listed(&json, 2), expected.map(str::to_owned));
        assert_eq!(listed(&json, 1).len(), 2);
        let list = Content::parse_json("[[1],2]").unwrap();
        assert_eq!(listed(&list, 2), ["/0 1-1 3 of 1", "/1 1-1 1"].map(str::to_owned));
    }

    #[test]
    fn a_long_outline_says_what_it_leaves_out() {
        let json = Content::json(&(0..1000).collect::<Vec<_>>()).unwrap();
        let outline = outline(&json, OutlineOptions::default());
        assert_eq!((outline.parts.len(), outline.left_out, outline.lines), (200, 800, 1));
        assert_eq!(super::outline(&"no heading\n".into(), OutlineOptions::default()).parts, []);
    }
}
