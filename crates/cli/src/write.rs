//! `put` and `rm`: changing documents, never blindly unless told to.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use mutext::{Commit, Committed, Context, DocumentPath, Error, Fence, IdempotencyKey, Kind, Precondition, Revision};
use serde_json::json;

use crate::config::Common;
use crate::documents::missing;
use crate::error::CliError;
use crate::exit::Exit;
use crate::inherited::{self, Inherited};
use crate::input::{self, Input};

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
    empty never empties a document.")]
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
    /// Why, for the history
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
    /// Names this change, so that a retry after a lost answer happens once
    #[arg(long, value_name = "KEY")]
    key: Option<IdempotencyKey>,
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
        commit.message = self.message;
        commit.key = self.key;
        Ok(context.commit(commit).await?)
    }
}

pub(crate) async fn put(args: PutArgs, common: &Common) -> Result<ExitCode, CliError> {
    let PutArgs { path, text, file, demand, kind } = args;
    let fence = Inherited::covering(&path, common)?;
    let kind = kind.map_or_else(|| input::kind_of(&path), Kind::from);
    let content = Input::of(text, file.as_deref()).content(&path, kind, common.document_bytes_max)?;
    let committed = common
        .with_context(async |context| {
            let precondition = demand.precondition(fence.as_ref()).unwrap_or(Precondition::Absent);
            let commit = Commit::new(common.agent.clone()).put(path.clone(), content, precondition);
            demand.make(commit, fence, &context).await.map_err(|error| match error {
                CliError::Library(Error::Conflict(conflict)) if conflict.precondition == Precondition::Absent => {
                    match conflict.current.clone() {
                        Some(current) => needs_precondition("to replace", current),
                        None => Error::Conflict(conflict).into(),
                    }
                }
                other => other,
            })
        })
        .await?;
    tell(&committed, false, common)
}

pub(crate) async fn rm(args: RmArgs, common: &Common) -> Result<ExitCode, CliError> {
    let RmArgs { path, demand } = args;
    let fence = Inherited::covering(&path, common)?;
    let committed = common
        .with_context(async |context| {
            let precondition = demand.precondition(fence.as_ref());
            // A retry under a key must reach the store, which alone knows what the key has done.
            let precondition = match (precondition, demand.key.is_some()) {
                (Some(precondition), true) => precondition,
                (given, _) => {
                    let current = context.get(&path).await?.ok_or_else(|| missing(&path, &context))?;
                    given.ok_or_else(|| needs_precondition("to delete", current))?
                }
            };
            let commit = Commit::new(common.agent.clone()).delete(path.clone(), precondition);
            demand.make(commit, fence, &context).await
        })
        .await?;
    tell(&committed, true, common)
}

fn needs_precondition(verb: &'static str, current: mutext::Document) -> CliError {
    CliError::PreconditionMissing { verb, current: Box::new(current) }
}

fn tell(committed: &Committed, deleted: bool, common: &Common) -> Result<ExitCode, CliError> {
    let Some((path, revision)) = committed.revisions.first() else { return Ok(Exit::Done.into()) };
    let answer = json!({
        "path": path,
        "revision": revision,
        "deleted": deleted,
        "cursor": committed.cursor,
        "replayed": committed.replayed,
    });
    common.out.answer(&answer, || {
        let what = if deleted { "is deleted, at revision" } else { "is at revision" };
        let replayed = if committed.replayed { ", since an earlier call with this key" } else { "" };
        format!("{path} {what} {revision}{replayed}\n")
    })?;
    Ok(Exit::Done.into())
}
