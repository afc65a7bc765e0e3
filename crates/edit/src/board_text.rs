//! Boards that are Markdown lists: an element is an item, its mark a comment at the end of its first line.

use std::ops::Range;

use mutext_contract::Content;
use pulldown_cmark::{Event, Parser, Tag, TagEnd};

use crate::board::{BoardError, Element, Standing, read, written};
use crate::lines::{line_break, without_break};
use crate::outline::{Breaks, MARKDOWN};
use crate::view;

/// How a mark begins, and how it ends.
const MARK: (&str, &str) = ("<!-- claim ", " -->");

/// An item of a list, as it stands in the text.
struct Item {
    /// From its bullet to the end of everything below it.
    range: Range<usize>,
    /// The box before its text, without brackets, and whether it is ticked.
    tick: Option<(usize, bool)>,
    /// Its first line from behind bullet and box, without the line break.
    line: Range<usize>,
}

pub(crate) fn elements(text: &str, at: &str) -> Result<Vec<Element>, BoardError> {
    let breaks = Breaks::of(text);
    let element = |(index, item): (usize, Item)| {
        let (line, mark) = split(text.get(item.line.clone()).unwrap_or_default());
        let details = text.get(item.line.end..item.range.end).map(|below| below.trim_start_matches(['\r', '\n']));
        let standing = match (mark, item.tick) {
            (Some(Standing::Unclear), _) => Standing::Unclear,
            // Ticked off by hand: whatever the mark says, it is done.
            (Some(Standing::Held(mark) | Standing::Left(mark)), Some((_, true))) => Standing::Done(Some(mark)),
            (Some(standing), _) => standing,
            (None, Some((_, true))) => Standing::Done(None),
            (None, _) => Standing::Open,
        };
        Element {
            index,
            at: (breaks.before(item.range.start) + 1).to_string(),
            content: Content::text(line),
            details: details.filter(|below| !below.trim().is_empty()).map(str::to_owned),
            standing,
        }
    };
    let items = items(text, at)?;
    if items.is_empty() {
        return Err(BoardError::NoItems { at: at.to_owned() });
    }
    Ok(items.into_iter().enumerate().map(element).collect())
}

/// The items of all lists in a section, those inside others behind them.
fn items(text: &str, at: &str) -> Result<Vec<Item>, BoardError> {
    let part = if at.trim().is_empty() { 0..text.len() } else { view::section(text, at)?.range };
    let mut items: Vec<Item> = Vec::new();
    let mut open = Vec::new();
    for (event, range) in Parser::new_ext(text, MARKDOWN).into_offset_iter() {
        match event {
            Event::Start(Tag::Item) => {
                open.push(items.len());
                // An item inside another may begin with some of its indentation.
                let item = text.get(range.clone()).unwrap_or_default();
                let start = range.start + item.len() - item.trim_start_matches([' ', '\t']).len();
                items.push(Item { range: start..range.end, tick: None, line: 0..0 });
            }
            Event::End(TagEnd::Item) => {
                open.pop();
            }
            Event::TaskListMarker(is_ticked) => {
                if let Some(item) = open.last().and_then(|item: &usize| items.get_mut(*item)) {
                    item.tick = Some((range.start + 1, is_ticked));
                }
            }
            _ => {}
        }
    }
    items.retain(|item| part.contains(&item.range.start));
    for item in &mut items {
        item.line = line(text, item);
    }
    Ok(items)
}

/// Where an item's first line stands, behind bullet and box.
fn line(text: &str, item: &Item) -> Range<usize> {
    let first = text.get(item.range.start..).and_then(|rest| rest.split_inclusive('\n').next()).unwrap_or_default();
    let end = item.range.start + without_break(first).len();
    // The box has its sign and a bracket; a bullet is everything up to the first blank.
    let bullet = first.find([' ', '\t']).map_or(end, |blank| item.range.start + blank);
    let start = item.tick.map_or(bullet, |(sign, _)| sign + 2).min(end);
    let blanks = text.get(start..end).map_or(0, |line| line.len() - line.trim_start().len());
    start + blanks..end
}

/// A line's text, and the mark behind it.
fn split(line: &str) -> (&str, Option<Standing>) {
    let line = line.trim_end();
    let marked = || {
        let (text, mark) = line.strip_suffix(MARK.1)?.rsplit_once(MARK.0)?;
        Some((text.trim_end(), serde_json::from_str(mark).map_or(Standing::Unclear, read)))
    };
    match marked() {
        Some((text, standing)) => (text, Some(standing)),
        None => (line, None),
    }
}

/// The text with that element in its place, and its mark; lines beyond its first stand below it.
pub(crate) fn put(text: &str, at: &str, element: &Element) -> Result<Content, BoardError> {
    let Some(item) = items(text, at)?.into_iter().nth(element.index) else {
        return Err(BoardError::NoItems { at: at.to_owned() });
    };
    let mut lines = element.content.as_str().lines();
    let mut line = lines.next().unwrap_or_default().to_owned();
    if let Some(mark) = written(&element.standing) {
        // So that no name can end the comment. In JSON such a character stands in strings only.
        let mark = mark.to_string().replace('>', "\\u003e");
        line = [line.trim_end(), " ", MARK.0, &mark, MARK.1].concat();
    }
    let line_start = text.get(..item.range.start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
    let bullet = text.get(item.range.start..).and_then(|rest| rest.find([' ', '\t'])).unwrap_or(1) + 1;
    let indent = " ".repeat(item.range.start - line_start + bullet);
    for below in lines {
        line.extend([line_break(text), &indent, below]);
    }
    let mut changed = text.to_owned();
    changed.replace_range(item.line.clone(), &line);
    if let (Some((sign, _)), Standing::Done(_)) = (item.tick, &element.standing) {
        // One sign is as long as another: a blank or an x.
        changed.replace_range(sign..=sign, "x");
    }
    Ok(Content::text(changed))
}
