//! `get` and `ls`: reading documents.

use std::process::ExitCode;

use clap::Args;
use mutext::{Context, Document, DocumentPath, PastRevision, PathPrefix, Revision};
use serde_json::{Value, json};

use crate::config::Common;
use crate::error::{self, CliError};
use crate::exit::Exit;
use crate::inherited::Inherited;
use crate::output::{Output, moment, timestamp};
use crate::parts;

/// Print a document
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mutext get plan.md\n  \
    mutext get tasks/17.json --json | jq .revision\n  \
    mutext get plan.md --revision 2\n  \
    mutext get plan.md --if-revision 17\n  \
    mutext get plan.md --outline\n  \
    mutext get plan.md --section 'Plan/Phase 2' --budget 4000\n  \
    mutext get board.json --pointer /tasks/3\n\n\
    The content is printed byte for byte; a terminal gets the line break that it may lack.\n\
    --if-revision says which revision you still have before you: you are told that it is unchanged, or\n\
    what changed, or, where that is shorter, all of it. A read that its --budget cut off says how to go\n\
    on, in the same revision, whatever was written meanwhile.\n\
    Inside `mutext lock` it is read under the lease: older holders can no longer write it.")]
pub(crate) struct GetArgs {
    /// The document, as in plan.md or tasks/17
    path: DocumentPath,
    /// This revision instead of the last
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    revision: Option<u64>,
    #[command(flatten)]
    part: parts::PartArgs,
}

/// List documents
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mutext ls\n  mutext ls tasks/\n  mutext ls --json | jq -r '.documents[].path'")]
pub(crate) struct LsArgs {
    /// Only those whose paths begin with this
    #[arg(default_value = "", hide_default_value = true)]
    prefix: PathPrefix,
}

pub(crate) async fn get(args: GetArgs, common: &Common) -> Result<ExitCode, CliError> {
    let GetArgs { path, revision, part } = args;
    let fence = Inherited::covering(&path, common)?;
    common
        .with_context(async |context| {
            let document = match (revision, &fence) {
                (Some(revision), _) => return past(&context, &path, revision, common.out).await,
                _ if part.is_given() => return parts::get(&path, &part, fence.as_ref(), &context, common.out).await,
                (None, Some(fence)) => context.get_under(&path, fence).await?,
                (None, None) => context.get(&path).await?,
            };
            let document = document.ok_or_else(|| missing(&path, &context))?;
            print(&document, common.out)
        })
        .await
}

pub(crate) fn print(document: &Document, out: Output) -> Result<ExitCode, CliError> {
    if out.json {
        out.answer(&error::document(document), String::new)?;
    } else {
        out.content(document.content.as_str())?;
    }
    Ok(Exit::Done.into())
}

async fn past(context: &Context, path: &DocumentPath, revision: u64, out: Output) -> Result<ExitCode, CliError> {
    let past = context.revision(path.clone(), Revision(revision)).await?;
    let document = as_document(path, past)?;
    print(&document, out)
}

/// A past revision as a document; one that deleted it has nothing to show.
pub(crate) fn as_document(path: &DocumentPath, past: PastRevision) -> Result<Document, CliError> {
    let PastRevision { revision, content, author, written_at, message, .. } = past;
    let content = content.ok_or_else(|| {
        let why = message.map(|message| format!(" ({message})")).unwrap_or_default();
        CliError::NotFound(format!(
            "{path} was deleted at revision {revision} by {author}{why}; see `mutext history {path}`"
        ))
    })?;
    Ok(Document { path: path.clone(), revision, content, author, written_at, expires_at: None })
}

pub(crate) fn missing(path: &DocumentPath, context: &Context) -> CliError {
    let name = context.name();
    CliError::NotFound(format!("there is no document {path} in context {name}; see `mutext ls` for those that are"))
}

pub(crate) async fn ls(args: LsArgs, common: &Common) -> Result<ExitCode, CliError> {
    let entries = common.with_context(async |context| Ok(context.list(args.prefix).await?)).await?;
    let documents: Vec<Value> = entries
        .iter()
        .map(|entry| {
            json!({
                "path": entry.path,
                "revision": entry.revision,
                "kind": error::kind(entry.kind),
                "size": entry.size,
                "author": entry.author,
                "written_at": timestamp(entry.written_at),
            })
        })
        .collect();
    common.out.answer(&json!({ "context": common.context, "documents": documents }), || {
        let rows = entries.iter().map(|entry| {
            [
                entry.path.to_string(),
                entry.revision.to_string(),
                error::kind(entry.kind).to_owned(),
                entry.size.to_string(),
                entry.author.to_string(),
                moment(entry.written_at),
            ]
        });
        common.out.table(["path", "revision", "kind", "bytes", "author", "written"], rows.collect())
    })?;
    if entries.is_empty() {
        common.out.remark(&format!("no such documents in context {}", common.context));
    }
    Ok(Exit::Done.into())
}
