//! `put` and `rm`: changing documents, never blindly unless told to.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use mutext::{
    Commit, Committed, Content, Context, DocumentPath, Effected, Error, Expiry, Fence, Kind, Precondition, Revision,
    Written,
};
use serde_json::json;

use crate::config::Common;
use crate::conflict::explained;
use crate::documents::missing;
use crate::error::CliError;
use crate::exit::Exit;
use crate::inherited::{self, Inherited};
use crate::input::{self, Input};
use crate::said::{Why, expiry};

/// Write a document: create it, or replace it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mutext put plan.md 'measure twice'\n  \
    mutext put plan.md --file plan.md --if-revision 3 --message 'as discussed'\n  \
    jq '.done = true' task.json | mutext put tasks/17.json - --if-revision 1\n  \
    mutext lock plan.md -- sh -c 'mutext get plan.md | sed s/a/b/ | mutext put plan.md -'\n\n\
    Without a flag it creates. To replace a document, say which revision it replaces (--if-revision),\n\
    or run inside `mutext lock`, or say --overwrite; else it is refused, and the answer names the\n\
    current revision. Standard input is read only for `-`, so that a job whose input happens to be\n\
    empty never empties a document.\n\n\
    --merge keeps what others have changed since that revision, where the two changes do not touch each\n\
    other. What would drop more than half of a document is refused, unless --allow-shrink is said.")]
pub(crate) struct PutArgs {
    /// The document, as in plan.md or tasks/17
    path: DocumentPath,
    /// What it shall hold; - reads standard input
    #[arg(required_unless_present = "file")]
    text: Option<String>,
    /// Read it from this file
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,
    #[command(flatten)]
    demand: Demand,
    /// Merge with what others have changed since --if-revision
    #[arg(long, requires = "if_revision")]
    merge: bool,
    /// Also where more than half of the document is dropped
    #[arg(long)]
    allow_shrink: bool,
    /// How long the document stays from now on, as in 2h; or never, for always
    #[arg(long, value_name = "DURATION", value_parser = expiry)]
    expires: Option<Expiry>,
    /// What it is [default: json where PATH ends in .json, else text]
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<KindArg>,
}

/// Delete a document; its history stays
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mutext rm notes/old.md --if-revision 4\n  mutext rm notes/old.md --overwrite\n\n\
    Say which revision is deleted, or run inside `mutext lock`, or say --overwrite, as for replacing.")]
pub(crate) struct RmArgs {
    /// The document
    path: DocumentPath,
    #[command(flatten)]
    demand: Demand,
}

/// What a change demands and says of itself.
#[derive(Debug, Args)]
struct Demand {
    /// Only if it stands at exactly this revision
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    if_revision: Option<u64>,
    /// Whatever is there
    #[arg(long, conflicts_with = "if_revision")]
    overwrite: bool,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KindArg {
    Json,
    Text,
}

impl From<KindArg> for Kind {
    fn from(kind: KindArg) -> Self {
        match kind {
            KindArg::Json => Self::Json,
            KindArg::Text => Self::Text,
        }
    }
}

impl Demand {
    /// `None` where it says nothing.
    fn precondition(&self, fence: Option<&Fence>) -> Option<Precondition> {
        match self.if_revision {
            Some(revision) => Some(Precondition::Exact(Revision(revision))),
            None => (self.overwrite || fence.is_some()).then_some(Precondition::Any),
        }
    }

    async fn make(self, mut commit: Commit, fence: Option<Fence>, context: &Context) -> Result<Committed, CliError> {
        if let Some(fence) = fence {
            if self.if_revision.is_none() {
                inherited::still_stands(&fence, context).await?;
            }
            commit = commit.fenced_by(fence);
        }
        commit.message = self.why.message;
        commit.key = self.why.key;
        Ok(context.commit(commit).await?)
    }
}

pub(crate) async fn put(args: PutArgs, common: &Common) -> Result<ExitCode, CliError> {
    let fence = Inherited::covering(&args.path, common)?;
    let kind = args.kind.map_or_else(|| input::kind_of(&args.path), Kind::from);
    let input = Input::of(args.text.clone(), args.file.as_deref());
    let content = input.content(&args.path, kind, common.document_bytes_max)?;
    let written = common.with_context(async |context| match make(&args, &context, content.clone(), fence).await {
        Ok(written) => Ok(written),
        Err(CliError::Library(Error::Conflict(conflict))) if conflict.precondition == Precondition::Absent => {
            Err(match conflict.current.clone() {
                Some(current) => needs_precondition("to replace", current),
                None => Error::Conflict(conflict).into(),
            })
        }
        Err(error) => {
            let next = |current: Option<Revision>, clean| next(&args.path, current, clean);
            Err(explained(error, &context, Some(&content), next).await)
        }
    });
    tell_written(&args.path, &written.await?, common)
}

/// What somebody who met a conflict does next.
fn next(path: &DocumentPath, current: Option<Revision>, clean: Option<bool>) -> String {
    match (current, clean) {
        (Some(_), Some(true)) => "repeat it with --merge, which keeps both changes".to_owned(),
        (Some(current), _) => format!(
            "put your change into what is there now (`mutext get {path}`), then repeat it with --if-revision {current}"
        ),
        (None, _) => format!("there is no {path} any more (`mutext history {path}`); repeat it without --if-revision"),
    }
}

async fn make(args: &PutArgs, context: &Context, content: Content, fence: Option<Fence>) -> Result<Written, CliError> {
    let precondition = args.demand.precondition(fence.as_ref()).unwrap_or(Precondition::Absent);
    let mut writing = context.write(args.path.clone(), content).precondition(precondition);
    writing = writing.expires(args.expires.unwrap_or_default());
    if let Some(fence) = fence {
        if args.demand.if_revision.is_none() {
            inherited::still_stands(&fence, context).await?;
        }
        writing = writing.under(fence);
    }
    if args.merge {
        writing = writing.merge();
    }
    if args.allow_shrink {
        writing = writing.allow_shrink();
    }
    if let Some(message) = &args.demand.why.message {
        writing = writing.message(message);
    }
    if let Some(key) = &args.demand.why.key {
        writing = writing.key(key.clone());
    }
    Ok(writing.await?)
}

pub(crate) async fn rm(args: RmArgs, common: &Common) -> Result<ExitCode, CliError> {
    let RmArgs { path, demand } = args;
    let fence = Inherited::covering(&path, common)?;
    let committed = common
        .with_context(async |context| {
            let precondition = demand.precondition(fence.as_ref());
            // A retry under a key must reach the store, which alone knows what the key has done.
            let precondition = match (precondition, demand.why.key.is_some()) {
                (Some(precondition), true) => precondition,
                (given, _) => {
                    let current = context.get(&path).await?.ok_or_else(|| missing(&path, &context))?;
                    given.ok_or_else(|| needs_precondition("to delete", current))?
                }
            };
            let commit = Commit::new(common.agent.clone()).delete(path.clone(), precondition);
            match demand.make(commit, fence, &context).await {
                Ok(committed) => Ok(committed),
                Err(error) => Err(explained(error, &context, None, |current, _| match current {
                    Some(current) => {
                        format!("see whether it may still go, then `mutext rm {path} --if-revision {current}`")
                    }
                    None => format!("{path} is gone already; see `mutext history {path}`"),
                })
                .await),
            }
        })
        .await?;
    tell_deleted(&committed, common)
}

fn needs_precondition(verb: &'static str, current: mutext::Document) -> CliError {
    CliError::PreconditionMissing { verb, current: Box::new(current) }
}

fn tell_written(path: &DocumentPath, written: &Written, common: &Common) -> Result<ExitCode, CliError> {
    let Written { revision, cursor, effect, replayed } = written;
    let word = match effect {
        Effected::Created => "created",
        Effected::Written => "written",
        Effected::Unchanged => "unchanged",
        Effected::Merged(_) => "merged",
        Effected::Deleted => "deleted",
    };
    let mut answer = json!({
        "path": path,
        "revision": revision,
        "status": word,
        "deleted": false,
        "cursor": cursor,
        "replayed": replayed,
    });
    if let Effected::Merged(merged) = effect {
        answer["merged_with"] = json!(merged.with);
        answer["foreign"] = json!(merged.foreign);
        answer["content"] = json!(merged.content.as_str());
    }
    common.out.answer(&answer, || match effect {
        _ if *replayed => format!("{path} is at revision {revision}, since an earlier call with this key\n"),
        Effected::Unchanged => format!("{path} stays at revision {revision}: it holds that already\n"),
        Effected::Merged(merged) => format!(
            "{path} is at revision {revision}, merged with revision {}; see whether the two make sense together: \
             others had changed\n{}",
            merged.with, merged.foreign
        ),
        _ => format!("{path} is at revision {revision}\n"),
    })?;
    Ok(Exit::Done.into())
}

fn tell_deleted(committed: &Committed, common: &Common) -> Result<ExitCode, CliError> {
    let Some((path, revision)) = committed.revisions.first() else { return Ok(Exit::Done.into()) };
    let answer = json!({
        "path": path,
        "revision": revision,
        "deleted": true,
        "cursor": committed.cursor,
        "replayed": committed.replayed,
    });
    common.out.answer(&answer, || {
        let replayed = if committed.replayed { ", since an earlier call with this key" } else { "" };
        format!("{path} is deleted, at revision {revision}{replayed}\n")
    })?;
    Ok(Exit::Done.into())
}
