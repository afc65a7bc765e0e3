//! `get`, `ls` and `history`: reading documents.

use std::process::ExitCode;

use clap::Args;
use mutext::{Context, Document, DocumentPath, PastRevision, PathPrefix, Revision};
use serde_json::{Value, json};

use crate::config::Common;
use crate::error::{self, CliError};
use crate::exit::Exit;
use crate::inherited::Inherited;
use crate::output::{Output, moment, timestamp};

/// Print a document
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mutext get plan.md\n  \
    mutext get tasks/17.json --json | jq .revision\n  \
    mutext get plan.md --revision 2\n\n\
    The content is printed byte for byte; a terminal gets the line break that it may lack.\n\
    Inside `mutext lock` it is read under the lease: older holders can no longer write it.")]
pub(crate) struct GetArgs {
    /// The document, as in plan.md or tasks/17
    path: DocumentPath,
    /// This revision instead of the last
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    revision: Option<u64>,
}

/// List documents
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mutext ls\n  mutext ls tasks/\n  mutext ls --json | jq -r '.documents[].path'")]
pub(crate) struct LsArgs {
    /// Only those whose paths begin with this
    #[arg(default_value = "", hide_default_value = true)]
    prefix: PathPrefix,
}

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

pub(crate) async fn get(args: GetArgs, common: &Common) -> Result<ExitCode, CliError> {
    let GetArgs { path, revision } = args;
    let fence = Inherited::covering(&path, common)?;
    common
        .with_context(async |context| {
            let document = match (revision, &fence) {
                (Some(revision), _) => return past(&context, &path, revision, common.out).await,
                (None, Some(fence)) => context.get_under(&path, fence).await?,
                (None, None) => context.get(&path).await?,
            };
            let document = document.ok_or_else(|| missing(&path, &context))?;
            print(&document, common.out)
        })
        .await
}

fn print(document: &Document, out: Output) -> Result<ExitCode, CliError> {
    if out.json {
        out.answer(&error::document(document), String::new)?;
    } else {
        out.content(document.content.as_str())?;
    }
    Ok(Exit::Done.into())
}

async fn past(context: &Context, path: &DocumentPath, revision: u64, out: Output) -> Result<ExitCode, CliError> {
    let before = revision.checked_add(1).map(Revision);
    let found = context.history(path, before, 1).await?.into_iter().find(|past| past.revision.0 == revision);
    let gone = |what: &str| CliError::NotFound(format!("{path} {what}; see `mutext history {path}`"));
    let past = found.ok_or_else(|| gone(&format!("has no revision {revision}")))?;
    let content = past.content.ok_or_else(|| gone(&format!("was deleted at revision {revision}")))?;
    let PastRevision { revision, author, written_at, .. } = past;
    print(&Document { path: path.clone(), revision, content, author, written_at, expires_at: None }, out)
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
