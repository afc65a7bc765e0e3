//! Conflicts as people and programs are told of them: who wrote since and why, what they changed, whether a merge would
//! be clean, and what to run next.

use std::fmt::Write as _;

use mutext::{Conflict, Content, Context, Error, Explanation, Revision, Since};
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
            let hunks: Vec<String> = merge.hunks().iter().map(|hunk| hunk.place.to_string()).collect();
            let fits = if hunks.is_empty() {
                "the two changes do not touch each other: a merge would be clean".to_owned()
            } else {
                format!("the two changes contradict each other at {}", hunks.join(", "))
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
        let merge = merge.as_ref().map(|merge| json!({ "clean": merge.is_clean(), "hunks": merge.hunks() }));
        object.insert("merge".to_owned(), json!(merge));
        object.insert("next".to_owned(), json!(self.next));
        Value::Object(object)
    }
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
