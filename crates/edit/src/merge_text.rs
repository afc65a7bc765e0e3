//! Merging text by lines.

use similar::{MergeResolution, TextMerge};

use crate::lines::{count, line_break};
use crate::merge::{Hunk, Lines, Place, Resolution};

/// A piece of a merged text.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    /// Lines that are settled.
    Settled(String),
    /// The conflict at this place in the list of them.
    Conflict(usize),
}

/// Where a side has been read to.
#[derive(Default)]
struct Reader {
    breaks: usize,
}

impl Reader {
    /// Where `text` stands, which comes next.
    fn next(&mut self, text: &str) -> Lines {
        let lines = Lines { first: self.breaks + 1, count: count(text) };
        self.breaks += text.matches('\n').count();
        lines
    }
}

/// The pieces of the merged text, in order, and the conflicts among them.
pub(crate) fn merge(base: &str, ours: &str, theirs: &str) -> (Vec<Part>, Vec<Hunk>) {
    let merge = TextMerge::from_lines(base, ours, theirs);
    let mut readers = [Reader::default(), Reader::default(), Reader::default()];
    let (mut parts, mut conflicts) = (Vec::new(), Vec::new());
    for region in merge.regions() {
        let base: String = region.base_range().filter_map(|at| merge.base_line(at)).collect();
        let ours: String = region.ours_range().filter_map(|at| merge.ours_line(at)).collect();
        let theirs: String = region.theirs_range().filter_map(|at| merge.theirs_line(at)).collect();
        let [b, o, t] = &mut readers;
        let lines = (b.next(&base), o.next(&ours), t.next(&theirs));
        match region.resolution() {
            MergeResolution::Unchanged | MergeResolution::Ours | MergeResolution::Both => settle(&mut parts, ours),
            MergeResolution::Theirs => settle(&mut parts, theirs),
            // A conflict, or something that a later version of the library tells apart.
            _ => {
                parts.push(Part::Conflict(conflicts.len()));
                conflicts.push(conflict(lines, &base, &ours, &theirs));
            }
        }
    }
    (parts, conflicts)
}

/// One conflict about everything.
pub(crate) fn whole(base: &str, ours: &str, theirs: &str) -> (Part, Hunk) {
    let lines = |text: &str| Lines { first: 1, count: count(text) };
    (Part::Conflict(0), conflict((lines(base), lines(ours), lines(theirs)), base, ours, theirs))
}

fn settle(parts: &mut Vec<Part>, text: String) {
    match parts.last_mut() {
        Some(Part::Settled(before)) => before.push_str(&text),
        _ => parts.push(Part::Settled(text)),
    }
}

fn conflict(
    (base_lines, ours_lines, theirs_lines): (Lines, Lines, Lines),
    base: &str,
    ours: &str,
    theirs: &str,
) -> Hunk {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Hunk {
        id: String::new(),
        place: Place::Lines { base: base_lines, ours: ours_lines, theirs: theirs_lines },
        base: some(base),
        ours: some(ours),
        theirs: some(theirs),
    }
}

/// The text, each conflict resolved as `chosen` says at the same place.
pub(crate) fn resolved(parts: &[Part], conflicts: &[Hunk], chosen: &[&Resolution]) -> String {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Settled(settled) => push(&mut text, settled),
            Part::Conflict(at) => {
                let Some((conflict, resolution)) = conflicts.get(*at).zip(chosen.get(*at)) else { continue };
                push(&mut text, conflict.side(resolution).unwrap_or_default());
                if matches!(resolution, Resolution::Both) {
                    push(&mut text, conflict.ours.as_deref().unwrap_or_default());
                }
            }
        }
    }
    text
}

/// Adds lines; what stands before them ends with a line break first.
fn push(text: &mut String, lines: &str) {
    if !text.is_empty() && !text.ends_with('\n') && !lines.is_empty() {
        text.push_str(line_break(lines));
    }
    text.push_str(lines);
}

/// The text with markers around what each side has: ours, the base, theirs.
pub(crate) fn marked(parts: &[Part], conflicts: &[Hunk], [ours, base, theirs]: &[String; 3]) -> String {
    let mut text = String::new();
    for part in parts {
        let conflict = match part {
            Part::Settled(settled) => {
                push(&mut text, settled);
                continue;
            }
            Part::Conflict(at) => conflicts.get(*at),
        };
        let Some(conflict) = conflict else { continue };
        push(&mut text, &format!("<<<<<<< {ours}\n"));
        push(&mut text, conflict.ours.as_deref().unwrap_or_default());
        push(&mut text, &format!("||||||| {base}\n"));
        push(&mut text, conflict.base.as_deref().unwrap_or_default());
        push(&mut text, "=======\n");
        push(&mut text, conflict.theirs.as_deref().unwrap_or_default());
        push(&mut text, &format!(">>>>>>> {theirs}\n"));
    }
    text
}
