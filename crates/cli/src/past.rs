//! `history`, `show`, `diff`, `blame`, `restore`, `purge`: what a document was, and bringing it back.

use std::fmt;
use std::process::ExitCode;
use std::str::FromStr;

use clap::Args;
use mutext::{DocumentPath, Effected, PastRevision, Precondition, Revision, Written};
use serde_json::{Value, json};

use crate::config::Common;
use crate::conflict::explained;
use crate::documents::{as_document, missing, print};
use crate::error::{self, CliError};
use crate::exit::Exit;
use crate::inherited::{self, Inherited};
use crate::output::{Output, moment, timestamp};

/// Show a document's past revisions, newest first
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mutext history plan.md\n  mutext history plan.md --limit 5 --content\n  \
    mutext history plan.md --before 40 --json")]
pub(crate) struct HistoryArgs {
    /// The document
    path: DocumentPath,
    /// At most so many revisions
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Only revisions before this one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    before: Option<u64>,
    /// With their contents
    #[arg(long)]
    content: bool,
}

/// Print a past revision of a document
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mutext show plan.md@3\n  mutext show plan.md@3 --json | jq -r .author")]
pub(crate) struct ShowArgs {
    /// The document and its revision, as in plan.md@3
    #[arg(value_name = "PATH@REV")]
    what: PathAt,
}

/// Show what changed in a document from one revision to another
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mutext diff plan.md@3..5\n  \
    mutext diff plan.md@3\n\n\
    With one revision, from that one to what is there now.")]
pub(crate) struct DiffArgs {
    /// The document and its revisions, as in plan.md@3..5 or plan.md@3
    #[arg(value_name = "PATH@A..B")]
    what: PathBetween,
}

/// Show which agent, and which commit, last touched each line, or each top-level key of JSON
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mutext blame plan.md\n  mutext blame board.json --json")]
pub(crate) struct BlameArgs {
    /// The document
    path: DocumentPath,
}

/// Bring a past revision back, as a new one
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mutext restore plan.md@3 --if-revision 7\n  \
    mutext restore plan.md@3 --overwrite --message 'the rewrite was worse'\n\n\
    Say which revision it takes the place of, or run inside `mutext lock`, or say --overwrite, as for\n\
    replacing. A document that is deleted is brought back without a flag.")]
pub(crate) struct RestoreArgs {
    /// The document and the revision to bring back, as in plan.md@3
    #[arg(value_name = "PATH@REV")]
    what: PathAt,
    /// Only in the place of exactly this revision
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    if_revision: Option<u64>,
    /// In the place of whatever is there
    #[arg(long, conflicts_with = "if_revision")]
    overwrite: bool,
    /// Why, for the history
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
}

/// Delete a document for good, with all that it ever held
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mutext purge people/anna.md --reason 'asked to be forgotten'\n\n\
    What it held cannot be brought back. A last revision stays that says who did it, when and why, so\n\
    that nobody takes it for an accident. Exports made before still hold the document.")]
pub(crate) struct PurgeArgs {
    /// The document
    path: DocumentPath,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", value_parser = crate::locks::why)]
    reason: String,
}

/// A document at a revision: `plan.md@3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathAt {
    path: DocumentPath,
    revision: Revision,
}

/// A document between two revisions: `plan.md@3..5`; without the second one, up to now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathBetween {
    path: DocumentPath,
    from: Revision,
    to: Option<Revision>,
}

impl fmt::Display for PathAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.path, self.revision)
    }
}

impl FromStr for PathAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A path may hold an @ of its own: the last one counts.
        let (path, number) =
            text.rsplit_once('@').ok_or_else(|| "write it as PATH@REVISION, as in plan.md@3".to_owned())?;
        Ok(Self { path: named(path)?, revision: revision(number)? })
    }
}

impl FromStr for PathBetween {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = || "write it as PATH@A..B, as in plan.md@3..5, or as PATH@A".to_owned();
        let (path, range) = text.rsplit_once('@').ok_or_else(example)?;
        let (from, to) = range.split_once("..").unwrap_or((range, ""));
        let to = if to.is_empty() { None } else { Some(revision(to)?) };
        Ok(Self { path: named(path)?, from: revision(from)?, to })
    }
}

fn named(path: &str) -> Result<DocumentPath, String> {
    DocumentPath::new(path).map_err(|error| error.to_string())
}

fn revision(text: &str) -> Result<Revision, String> {
    let number = text.parse().ok().filter(|number| *number > 0).map(Revision);
    number.ok_or_else(|| format!("{text:?} is not a revision: those are 1, 2, 3, …"))
}

pub(crate) async fn history(args: HistoryArgs, common: &Common) -> Result<ExitCode, CliError> {
    let path = args.path;
    let revisions = common
        .with_context(async |context| {
            let revisions = context.history(&path, args.before.map(Revision), args.limit as usize).await?;
            if revisions.is_empty() && args.before.is_none() { Err(missing(&path, &context)) } else { Ok(revisions) }
        })
        .await?;
    let list: Vec<Value> = revisions.iter().map(|past| past_json(past, args.content)).collect();
    common.out.answer(&json!({ "path": path, "revisions": list }), || {
        if args.content { contents(&revisions) } else { history_table(&revisions, common.out) }
    })?;
    Ok(Exit::Done.into())
}

fn past_json(past: &PastRevision, with_content: bool) -> Value {
    let content = past.content.as_ref();
    let mut value = json!({
        "revision": past.revision,
        "deleted": content.is_none(),
        "kind": content.map(|content| error::kind(content.kind())),
        "size": content.map(mutext::Content::size),
        "author": past.author,
        "written_at": timestamp(past.written_at),
        "message": past.message,
    });
    if with_content {
        value["content"] = json!(content.map(mutext::Content::as_str));
    }
    value
}

fn history_table(revisions: &[PastRevision], out: Output) -> String {
    let rows = revisions.iter().map(|past| {
        [
            past.revision.to_string(),
            past.content.as_ref().map_or_else(|| "deleted".to_owned(), |content| content.size().to_string()),
            past.author.to_string(),
            moment(past.written_at),
            past.message.clone().unwrap_or_default(),
        ]
    });
    out.table(["revision", "bytes", "author", "written", "message"], rows.collect())
}

fn contents(revisions: &[PastRevision]) -> String {
    let block = |past: &PastRevision| {
        let (revision, author, written) = (past.revision, &past.author, moment(past.written_at));
        let content = past.content.as_ref().map_or("(deleted)", mutext::Content::as_str);
        let end = if content.is_empty() || content.ends_with('\n') { "" } else { "\n" };
        format!("--- revision {revision} by {author}, {written}\n{content}{end}")
    };
    revisions.iter().map(block).collect()
}

pub(crate) async fn show(args: ShowArgs, common: &Common) -> Result<ExitCode, CliError> {
    let PathAt { path, revision } = args.what;
    let past = common.with_context(async |context| Ok(context.revision(path.clone(), revision).await?)).await?;
    print(&as_document(&path, past)?, common.out)
}

pub(crate) async fn diff(args: DiffArgs, common: &Common) -> Result<ExitCode, CliError> {
    let PathBetween { path, from, to } = args.what;
    let (diff, to) = common
        .with_context(async |context| {
            let to = match to {
                Some(to) => to,
                None => newest(&context, &path).await?,
            };
            Ok((context.diff(path.clone(), from, to).await?, to))
        })
        .await?;
    let answer = json!({ "path": path, "from": from, "to": to, "diff": diff });
    common.out.answer(&answer, || diff.to_string())?;
    if diff.is_empty() {
        common.out.remark(&format!("{path} is the same at revisions {from} and {to}"));
    }
    Ok(Exit::Done.into())
}

/// The last revision, which may be a deletion.
async fn newest(context: &mutext::Context, path: &DocumentPath) -> Result<Revision, CliError> {
    let last = context.history(path.clone(), None, 1).await?;
    last.first().map(|last| last.revision).ok_or_else(|| missing(path, context))
}

pub(crate) async fn blame(args: BlameArgs, common: &Common) -> Result<ExitCode, CliError> {
    let path = args.path;
    let blame = common
        .with_context(async |context| {
            let blame = context.blame(path.clone()).await?;
            blame.ok_or_else(|| missing(&path, &context))
        })
        .await?;
    let by = |revision: &Revision| blame.revisions.get(revision);
    let lines = blame.lines.iter().map(|line| {
        let since = by(&line.by);
        json!({
            "at": line.at,
            "text": line.text,
            "revision": line.by,
            "author": since.map(|since| &since.author),
            "message": since.and_then(|since| since.message.as_ref()),
            "written_at": since.map(|since| timestamp(since.written_at)),
        })
    });
    let lines: Vec<Value> = lines.collect();
    let answer = json!({ "path": path, "revision": blame.revision, "oldest": blame.oldest, "lines": lines });
    common.out.answer(&answer, || {
        let rows = blame.lines.iter().map(|line| {
            let since = by(&line.by);
            [
                line.at.clone(),
                line.by.to_string(),
                since.map(|since| since.author.to_string()).unwrap_or_default(),
                since.map(|since| moment(since.written_at)).unwrap_or_default(),
                line.text.replace('\n', " "),
            ]
        });
        common.out.table(["at", "revision", "author", "written", "text"], rows.collect())
    })?;
    if blame.oldest.0 > 1 {
        let oldest = blame.oldest;
        common
            .out
            .remark(&format!("revisions before {oldest} were not looked at: what {oldest} is named for may be older"));
    }
    Ok(Exit::Done.into())
}

pub(crate) async fn restore(args: RestoreArgs, common: &Common) -> Result<ExitCode, CliError> {
    let RestoreArgs { what, if_revision, overwrite, message } = args;
    let PathAt { path, revision } = what.clone();
    let fence = Inherited::covering(&path, common)?;
    let outcome = common.with_context(async |context| {
        let current = context.get(path.clone()).await?;
        let precondition = match (if_revision, &current) {
            (Some(revision), _) => Precondition::Exact(Revision(revision)),
            (None, _) if overwrite => Precondition::Any,
            (None, None) => Precondition::Absent,
            (None, Some(_)) if fence.is_some() => Precondition::Any,
            (None, Some(current)) => {
                return Err(CliError::PreconditionMissing { verb: "to replace", current: Box::new(current.clone()) });
            }
        };
        let made = match &fence {
            None => context.restore(path.clone(), revision, precondition, message.as_deref()).await,
            Some(fence) => {
                inherited::still_stands(fence, &context).await?;
                let past = context.revision(path.clone(), revision).await?;
                let reason = message.clone().unwrap_or_else(|| format!("restore revision {revision}"));
                let commit = mutext::Commit::new(common.agent.clone()).message(reason).fenced_by(fence.clone());
                let commit = match past.content {
                    Some(content) => commit.put(path.clone(), content, precondition),
                    None => commit.delete(path.clone(), precondition),
                };
                context.commit(commit).await.map(|committed| as_written(&committed))
            }
        };
        match made {
            Ok(written) => Ok(written),
            Err(error) => Err(explained(error.into(), &context, None, |current, _| {
                let precondition = current.map(|current| format!(" --if-revision {current}")).unwrap_or_default();
                format!("look at it (`mutext get {path}`), then `mutext restore {what}{precondition}`")
            })
            .await),
        }
    });
    let written = outcome.await?;
    let deleted = written.effect == Effected::Deleted;
    let answer = json!({
        "path": path,
        "revision": written.revision,
        "restored": revision,
        "deleted": deleted,
        "unchanged": written.effect == Effected::Unchanged,
        "cursor": written.cursor,
    });
    common.out.answer(&answer, || match written.effect {
        Effected::Unchanged => format!("{path} stays at revision {}: it holds that already\n", written.revision),
        Effected::Deleted => {
            format!("{path} is deleted, as it was at revision {revision}; now at revision {}\n", written.revision)
        }
        _ => format!("{path} is as it was at revision {revision}; now at revision {}\n", written.revision),
    })?;
    Ok(Exit::Done.into())
}

fn as_written(committed: &mutext::Committed) -> Written {
    let revision = committed.revisions.first().map_or(Revision(0), |(_, revision)| *revision);
    Written { revision, cursor: committed.cursor, effect: Effected::Written, replayed: committed.replayed }
}

pub(crate) async fn purge(args: PurgeArgs, common: &Common) -> Result<ExitCode, CliError> {
    let PurgeArgs { path, reason } = args;
    let revision = common.with_context(async |context| {
        let purged = context.purge(path.clone(), &reason).await?;
        purged.ok_or_else(|| {
            let name = context.name();
            CliError::NotFound(format!("nothing of {path} is in context {name}; see `mutext ls` for what is"))
        })
    });
    let revision = revision.await?;
    common.out.answer(&json!({ "path": path, "revision": revision, "purged": true }), || {
        format!("{path} is purged with all that it ever held; revision {revision} says so\n")
    })?;
    Ok(Exit::Done.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_hold_an_at_sign_of_its_own() {
        let at: PathAt = "people/me@home@3".parse().unwrap();
        assert_eq!((at.path.as_str(), at.revision), ("people/me@home", Revision(3)));
        for text in ["plan.md", "plan.md@", "plan.md@0", "plan.md@x", "@3", "a//b@3"] {
            assert!(text.parse::<PathAt>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_range_may_end_now() {
        let between =
            |text: &str| text.parse::<PathBetween>().map(|between| (between.from.0, between.to.map(|to| to.0)));
        assert_eq!(between("a@3..5"), Ok((3, Some(5))));
        assert_eq!(between("a@3.."), Ok((3, None)));
        assert_eq!(between("a@3"), Ok((3, None)));
        assert!(between("a@..5").is_err() && between("a").is_err() && between("a@3..x").is_err());
    }
}
