//! `search`, `export`, `import`, `tend`: what concerns a context as a whole.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use mutext::{ArchiveError, Context, Error, PathPrefix};
use serde_json::json;

use crate::config::Common;
use crate::error::CliError;
use crate::exit::Exit;

/// Find documents by what is in them
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mutext search 'deadlock'\n  \
    mutext search '\"next step\" meas* -done' plans/ --limit 5\n  \
    mutext search budget --json | jq -r '.hits[].path'\n\n\
    All words must be there: word, \"several words in a row\", word* for all that begin so, -word for what\n\
    must not be there. The best hits come first.")]
pub(crate) struct SearchArgs {
    /// What to look for
    #[arg(allow_hyphen_values = true)]
    query: String,
    /// Only in documents whose paths begin with this
    #[arg(default_value = "", hide_default_value = true)]
    prefix: PathPrefix,
    /// At most so many hits
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

/// Write the whole context to one file: documents, history, authors, reasons and times
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mutext export team.jsonl\n  \
    mutext export - | zstd > team.jsonl.zst\n\n\
    JSON Lines, as of one moment, whatever is written meanwhile. The last line holds a digest, so that\n\
    an archive that was cut short or altered is refused.")]
pub(crate) struct ExportArgs {
    /// The file, which must not be there yet; - writes standard output
    #[arg(default_value = "-")]
    file: PathBuf,
    /// Also where the file is there already
    #[arg(long)]
    overwrite: bool,
}

/// Bring an archive into a context that has never had a document
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mutext --context team-2 import team.jsonl\n  \
    zstdcat team.jsonl.zst | mutext --store postgres://localhost/board import -\n\n\
    All of it, or nothing where anything is wrong with it.")]
pub(crate) struct ImportArgs {
    /// The file; - reads standard input
    #[arg(default_value = "-")]
    file: PathBuf,
}

/// Delete what has expired, and forget what need not be kept
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mutext tend\n  \
    MUTEXT_RETENTION_REVISIONS=100 mutext tend\n\n\
    Which revisions are kept, say retention_revisions and retention_age in the config file, or\n\
    MUTEXT_RETENTION_REVISIONS and MUTEXT_RETENTION_AGE; without them, all. The last revision of a\n\
    document always is. Nobody has to call this: what has expired cannot be read since that moment, and\n\
    whoever writes tends the context now and then.")]
pub(crate) struct TendArgs {}

pub(crate) async fn search(args: SearchArgs, common: &Common) -> Result<ExitCode, CliError> {
    let SearchArgs { query, prefix, limit } = args;
    let found = common.with_context(async |context| Ok(context.search(&query, prefix, limit as usize).await?));
    let hits = found.await?;
    let list: Vec<_> =
        hits.iter().map(|hit| json!({ "path": hit.path, "revision": hit.revision, "snippet": hit.snippet })).collect();
    common.out.answer(&json!({ "context": common.context, "query": query, "hits": list }), || {
        let on_one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let rows = hits.iter().map(|hit| [hit.path.to_string(), hit.revision.to_string(), on_one_line(&hit.snippet)]);
        common.out.table(["path", "revision", "found"], rows.collect())
    })?;
    if hits.is_empty() {
        common.out.remark(&format!("nothing found in context {}", common.context));
    }
    Ok(Exit::Done.into())
}

pub(crate) async fn export(args: ExportArgs, common: &Common) -> Result<ExitCode, CliError> {
    if args.file == Path::new("-") {
        let stdout = io::stdout().lock();
        common
            .with_context(async |context| write_archive(&context, BufWriter::new(stdout), Path::new("-")).await)
            .await?;
        return Ok(Exit::Done.into());
    }
    let name = args.file.display().to_string();
    if !args.overwrite && args.file.exists() {
        return Err(CliError::input(format!(
            "file {name} is there already: name another one, or say --overwrite; nothing was written"
        )));
    }
    // Beside it, so that it takes the name whole or not at all.
    let dir = args.file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = tempfile::Builder::new().prefix(".mutext-export-").tempfile_in(dir);
    let mut temporary = temporary.map_err(|source| unwritten(&name, source))?;
    let lines = common
        .with_context(async |context| {
            write_archive(&context, BufWriter::new(temporary.as_file_mut()), &args.file).await
        })
        .await?;
    temporary.as_file().sync_all().map_err(|source| unwritten(&name, source))?;
    let kept = if args.overwrite { temporary.persist(&args.file) } else { temporary.persist_noclobber(&args.file) };
    kept.map_err(|error| unwritten(&name, error.error))?;
    common.out.answer(&json!({ "context": common.context, "file": name, "lines": lines }), || {
        format!("context {} is in {name}, in {lines} lines\n", common.context)
    })?;
    Ok(Exit::Done.into())
}

/// The archive line by line: how many.
async fn write_archive(context: &Context, mut to: impl Write, file: &Path) -> Result<u64, CliError> {
    let name = file.display().to_string();
    let mut lines = 0;
    let mut export = context.export().await?;
    while let Some(line) = export.next().await? {
        match writeln!(to, "{line}") {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(lines),
            written => written.map_err(|source| unwritten(&name, source))?,
        }
        lines += 1;
    }
    match to.flush() {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(lines),
        flushed => flushed.map(|()| lines).map_err(|source| unwritten(&name, source)),
    }
}

fn unwritten(name: &str, source: io::Error) -> CliError {
    let what = if name == "-" {
        "standard output cannot be written".to_owned()
    } else {
        format!("file {name} cannot be written")
    };
    CliError::Io { what, remedy: "the context is as it was; make room where the archive goes", source }
}

pub(crate) async fn import(args: ImportArgs, common: &Common) -> Result<ExitCode, CliError> {
    let is_standard = args.file == Path::new("-");
    let name = if is_standard { "standard input".to_owned() } else { format!("file {}", args.file.display()) };
    let unread = |source| CliError::Io {
        what: format!("{name} cannot be read"),
        remedy: "nothing was changed; name an archive that can be read",
        source,
    };
    let from: Box<dyn Read> =
        if is_standard { Box::new(io::stdin()) } else { Box::new(File::open(&args.file).map_err(unread)?) };
    let mut from = BufReader::new(from);
    // A document's text as JSON takes up to six bytes for one; a path, an author and a message are short.
    let longest =
        u64::try_from(common.document_bytes_max).unwrap_or(u64::MAX).saturating_mul(6).saturating_add(1 << 20);
    let imported = common.with_context(async |context| {
        let mut import = context.import();
        let (mut line, mut number) = (Vec::new(), 0_u64);
        loop {
            line.clear();
            number += 1;
            let read = from.by_ref().take(longest).read_until(b'\n', &mut line).map_err(unread)?;
            if read == 0 {
                break;
            }
            if u64::try_from(read).is_ok_and(|read| read >= longest) {
                let why = format!("it has more than {longest} bytes, more than any document within the limit");
                return Err(Error::Archive(ArchiveError::BadLine { line: number, why }).into());
            }
            import.line(&line)?;
        }
        Ok(import.finish().await?)
    });
    let imported = imported.await?;
    let answer = json!({
        "context": common.context,
        "commits": imported.commits,
        "documents": imported.documents,
        "cursor": imported.cursor,
    });
    common.out.answer(&answer, || {
        let (commits, documents) = (imported.commits, imported.documents);
        format!("context {} has {documents} documents, from {commits} commits\n", common.context)
    })?;
    Ok(Exit::Done.into())
}

pub(crate) async fn tend(_: TendArgs, common: &Common) -> Result<ExitCode, CliError> {
    let tended = common.with_context(async |context| Ok(context.tend().await?)).await?;
    let answer = json!({ "context": common.context, "expired": tended.expired, "forgotten": tended.forgotten });
    common.out.answer(&answer, || {
        let (expired, forgotten) = (tended.expired, tended.forgotten);
        format!("{expired} expired documents are deleted, {forgotten} past revisions forgotten\n")
    })?;
    Ok(Exit::Done.into())
}
