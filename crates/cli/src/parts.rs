//! `get` with less than a whole document: nothing where it is unchanged, what changed, an outline, or a part.

use std::process::ExitCode;

use clap::Args;
use mutext::{Context, DocumentPath, Entry, Fence, Onward, Outline, Revision, Section, Shown};
use serde_json::{Value, json};

use crate::documents::missing;
use crate::error::{self, CliError};
use crate::exit::Exit;
use crate::output::{Output, timestamp};

/// What of a document is wanted, and how much.
#[derive(Debug, Args)]
pub(crate) struct PartArgs {
    /// You have this revision before you: only what is different
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "revision")]
    if_revision: Option<u64>,
    /// Headings or keys, with their sizes
    #[arg(long, conflicts_with = "revision", group = "part")]
    outline: bool,
    /// A section of Markdown by its heading, with those above it where it takes them: Plan/Phase 2
    #[arg(long, value_name = "HEADING", conflicts_with = "revision", group = "part")]
    section: Option<String>,
    /// A value of a JSON document by its JSON Pointer
    #[arg(long, value_name = "POINTER", conflicts_with = "revision", group = "part")]
    pointer: Option<String>,
    /// Lines, from 1: 10..20, or 10.. to the end
    #[arg(long, value_name = "A..B", conflicts_with = "revision", group = "part", value_parser = lines)]
    lines: Option<(usize, usize)>,
    /// At most so many bytes, in whole lines where they fit
    #[arg(long, value_name = "BYTES", conflicts_with_all = ["revision", "outline"], value_parser = budget)]
    budget: Option<usize>,
    /// Go on where a read of the same part was cut off
    #[arg(long, value_name = "PLACE", conflicts_with_all = ["revision", "outline"])]
    from: Option<Onward>,
}

fn lines(text: &str) -> Result<(usize, usize), String> {
    let wrong = || format!("{text:?} is not a range of lines; write 10..20, 10.. or 10");
    let (first, last) = match text.split_once("..") {
        Some((first, "")) => (first.parse().map_err(|_| wrong())?, usize::MAX),
        Some((first, last)) => (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?),
        None => {
            let line = text.parse().map_err(|_| wrong())?;
            (line, line)
        }
    };
    if first == 0 || last < first { Err(wrong()) } else { Ok((first, last)) }
}

fn budget(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|bytes| *bytes > 0).ok_or_else(|| "give a number of bytes, 1 or more".to_owned())
}

impl PartArgs {
    /// Whether less than all is wanted.
    pub(crate) fn is_given(&self) -> bool {
        let Self { if_revision, outline, section, pointer, lines, budget, from } = self;
        let part = *outline || section.is_some() || pointer.is_some() || lines.is_some();
        part || if_revision.is_some() || budget.is_some() || from.is_some()
    }
}

pub(crate) async fn get(
    path: &DocumentPath,
    args: &PartArgs,
    fence: Option<&Fence>,
    context: &Context,
    out: Output,
) -> Result<ExitCode, CliError> {
    if let Some(fence) = fence {
        // From here on older holders of the lock cannot write it any more.
        context.get_under(path.clone(), fence).await?;
    }
    let mut reading = context.read(path.clone());
    if let Some(revision) = args.if_revision {
        reading = reading.if_revision(Revision(revision));
    }
    reading = match (&args.section, &args.pointer, args.lines) {
        _ if args.outline => reading.outline(),
        (Some(section), ..) => reading.section(section),
        (None, Some(pointer), _) => reading.pointer(pointer),
        (None, None, Some((first, last))) => reading.lines(first, last),
        (None, None, None) => reading,
    };
    if let Some(budget) = args.budget {
        reading = reading.budget(budget);
    }
    if let Some(from) = args.from {
        reading = reading.go_on(from);
    }
    let shown = reading.await?;
    if out.json {
        out.answer(&as_json(&shown).ok_or_else(|| missing(path, context))?, String::new)?;
        return Ok(Exit::Done.into());
    }
    match shown {
        Shown::Absent => return Err(missing(path, context)),
        Shown::Unchanged(entry) => {
            let (revision, by) = (entry.revision, &entry.author);
            out.content(&format!("{path} is unchanged; it is at revision {revision} by {by}\n"))?;
        }
        Shown::Changed(_, diff) => out.content(&diff.to_string())?,
        Shown::Whole(document) => out.content(document.content.as_str())?,
        Shown::Part(_, Section { view, next }) => {
            out.content(&view.text)?;
            if let Some(next) = next {
                out.say(&format!("{} bytes are left; go on with --from {next}", view.left));
            }
        }
        Shown::Outline(entry, outline) => {
            out.content(&outline_table(&outline, out))?;
            out.remark(&summary(&entry, &outline));
        }
    }
    Ok(Exit::Done.into())
}

fn outline_table(outline: &Outline, out: Output) -> String {
    let rows = outline.parts.iter().map(|part| {
        [
            part.at.clone(),
            format!("{}..{}", part.lines.first, part.lines.first + part.lines.count.saturating_sub(1)),
            part.bytes.to_string(),
            part.members.map(|members| members.to_string()).unwrap_or_default(),
        ]
    });
    out.table(["part", "lines", "bytes", "members"], rows.collect())
}

fn summary(entry: &Entry, outline: &Outline) -> String {
    let more = if outline.left_out > 0 { format!("; {} more parts", outline.left_out) } else { String::new() };
    let (path, revision) = (&entry.path, entry.revision);
    format!("{path} at revision {revision}: {} bytes on {} lines{more}", outline.bytes, outline.lines)
}

/// As JSON; nothing where there is no document.
fn as_json(shown: &Shown) -> Option<Value> {
    let with = |status: &str, entry: &Entry, more: &[(&str, Value)]| {
        let mut value = json!({
            "path": entry.path,
            "revision": entry.revision,
            "kind": error::kind(entry.kind),
            "size": entry.size,
            "author": entry.author,
            "written_at": timestamp(entry.written_at),
            "expires_at": entry.expires_at.map(timestamp),
            "status": status,
        });
        more.iter().for_each(|(name, member)| value[*name] = member.clone());
        value
    };
    Some(match shown {
        Shown::Absent => return None,
        Shown::Unchanged(entry) => with("unchanged", entry, &[]),
        Shown::Changed(entry, diff) => with("changed", entry, &[("diff", json!(diff))]),
        Shown::Whole(document) => {
            let mut value = error::document(document);
            value["status"] = json!("whole");
            value
        }
        Shown::Part(entry, Section { view, next }) => with(
            "part",
            entry,
            &[
                ("content", json!(view.text)),
                ("lines", json!(view.lines)),
                ("left", json!(view.left)),
                ("next", json!(next)),
            ],
        ),
        Shown::Outline(entry, outline) => with("outline", entry, &[("outline", json!(outline))]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_a_range_from_one() {
        assert_eq!(lines("10..20"), Ok((10, 20)));
        assert_eq!(lines("10.."), Ok((10, usize::MAX)));
        assert_eq!(lines("10"), Ok((10, 10)));
        for text in ["", "0..3", "5..3", "..3", "a..b", "1...3"] {
            assert!(lines(text).is_err(), "{text}");
        }
    }
}
