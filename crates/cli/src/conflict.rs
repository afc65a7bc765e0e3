//! Conflicts as people and programs are told of them: who wrote since and why, what they changed, whether a merge would
//! be clean, and what to run next.

use std::fmt::Write as _;

use mutext::{Conflict, Content, Context, Error, Explanation, Hunk, Revision, Since};
use serde_json::{Map, Value, json};

use crate::error::{CliError, conflict_data};
use crate::output::{moment, timestamp};

/// A conflict with all that led to it.
#[derive(Debug)]
pub(crate) struct Explained {
    conflict: Box<Conflict>,
    explanation: Box<Explanation>,
    next: String,
}

/// So many of those who wrote since are named to people; programs are told of all that the library names.
const NAMED: usize = 5;
/// A difference that is longer than this is no help on a terminal.
const DIFF_LINES: usize = 60;

/// So many places that contradict each other are named to people.
const PLACES: usize = 10;
/// Programs are given the contradictions themselves up to so many bytes of JSON.
const HUNK_BYTES: usize = 4096;

/// Looks up what led to a conflict; any other error stays as it is. `mine` is what was to be written, and `next` says
/// what to run, given the revision that is there now and whether a merge would be clean.
pub(crate) async fn explained(
    error: CliError,
    context: &Context,
    mine: Option<&Content>,
    next: impl FnOnce(Option<Revision>, Option<bool>) -> String,
) -> CliError {
    let CliError::Library(Error::Conflict(conflict)) = error else { return error };
    match context.explain(&conflict, mine).await {
        Ok(explanation) => {
            let current = explanation.current.as_ref().map(|current| current.revision);
            let next = next(current, explanation.merges_cleanly());
            CliError::Conflict(Box::new(Explained::new(conflict, explanation, next)))
        }
        // What is there stands in the conflict itself.
        Err(_) => Error::Conflict(conflict).into(),
    }
}

impl Explained {
    pub(crate) fn new(conflict: Box<Conflict>, explanation: Explanation, next: String) -> Self {
        Self { conflict, explanation: Box::new(explanation), next }
    }

    /// In words, line by line.
    pub(crate) fn text(&self) -> String {
        format!("{}\nnext: {}", Self::told(&self.conflict, &self.explanation), self.next)
    }

    /// What led to it.
    pub(crate) fn told(conflict: &Conflict, explanation: &Explanation) -> String {
        let Explanation { since, more, diff, merge, .. } = explanation;
        let mut text = format!("conflict: {conflict}; nothing was changed");
        for since in since.iter().take(NAMED) {
            let _ = write!(text, "\n  {}", one(since));
        }
        let unnamed = since.len().saturating_sub(NAMED) as u64 + more;
        if unnamed > 0 {
            let _ = write!(text, "\n  and {unnamed} more before; see `mutext history {}`", conflict.path);
        }
        if let Some(diff) = diff {
            let all = diff.to_string();
            let lines: Vec<&str> = all.lines().collect();
            lines.iter().take(DIFF_LINES).for_each(|line| {
                let _ = write!(text, "\n  {line}");
            });
            if lines.len() > DIFF_LINES {
                let _ = write!(text, "\n  … {} more lines of the difference", lines.len() - DIFF_LINES);
            }
        }
        if let Some(merge) = merge {
            let hunks = merge.hunks();
            let places: Vec<String> = hunks.iter().take(PLACES).map(|hunk| hunk.place.to_string()).collect();
            let more = hunks.len() - places.len();
            let more = if more == 0 { String::new() } else { format!(", and at {more} more places") };
            let fits = if hunks.is_empty() {
                "the two changes do not touch each other: a merge would be clean".to_owned()
            } else {
                format!("the two changes contradict each other at {}{more}", places.join(", "))
            };
            let _ = write!(text, "\n  {fits}");
        }
        text
    }

    /// As JSON.
    pub(crate) fn data(&self) -> Value {
        let Explanation { since, more, diff, merge, base, .. } = &*self.explanation;
        let mut object = Map::new();
        if let Value::Object(mut data) = conflict_data(&self.conflict) {
            object.append(&mut data);
        }
        object.insert("base".to_owned(), json!(base));
        object.insert("since".to_owned(), since.iter().map(since_json).collect());
        object.insert("more".to_owned(), json!(more));
        object.insert("diff".to_owned(), json!(diff));
        let merge = merge.as_ref().map(|merge| {
            let (hunks, left_out) = shown_hunks(merge.hunks());
            json!({ "clean": merge.is_clean(), "hunks": hunks, "hunks_left_out": left_out })
        });
        object.insert("merge".to_owned(), json!(merge));
        object.insert("next".to_owned(), json!(self.next));
        Value::Object(object)
    }
}

/// Whole hunks, as far as an agent's answer has room for them, and how many are left out.
fn shown_hunks(hunks: &[Hunk]) -> (Vec<Value>, usize) {
    let mut room = HUNK_BYTES;
    let mut shown = Vec::new();
    for hunk in hunks {
        let hunk = json!(hunk);
        let size = hunk.to_string().len();
        if size > room {
            break;
        }
        room -= size;
        shown.push(hunk);
    }
    let left_out = hunks.len() - shown.len();
    (shown, left_out)
}

/// One who wrote since, in words.
pub(crate) fn one(since: &Since) -> String {
    let Since { revision, author, message, written_at, deleted } = since;
    let what = if *deleted { "deleted it at revision" } else { "wrote revision" };
    let why = message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
    format!("{author} {what} {revision}, {}{why}", moment(*written_at))
}

fn since_json(since: &Since) -> Value {
    json!({
        "revision": since.revision,
        "author": since.author,
        "message": since.message,
        "written_at": timestamp(since.written_at),
        "deleted": since.deleted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutext_edit::merge;

    #[test]
    fn an_answer_has_room_for_so_many_contradictions_and_counts_the_others() {
        let text = |word: &str| {
            let lines: Vec<String> = (0..2000).map(|line| format!("line {line}\n{word} {line}\n")).collect();
            lines.concat()
        };
        let (base, ours, theirs) = (text("as it was"), text("as one says"), text("as the other says"));
        let merged = merge(&base.into(), &ours.into(), &theirs.into());
        let (shown, left_out) = shown_hunks(merged.hunks());
        assert!(!shown.is_empty() && left_out > 0 && shown.len() + left_out == merged.hunks().len());
        assert!(json!(shown).to_string().len() < 2 * HUNK_BYTES);
    }
}
