//! `watch`: every commit once, in order, as it happens.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use mutext::{CommitRecord, Cursor, PathPrefix, Watcher};
use serde_json::{Value, json};

use crate::config::Common;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{Output, Written, moment, printable, timestamp, write_unless_gone};
use crate::signals::{self, Signals};

/// Where nothing that is watched has changed for so long, it is told how far the feed has come.
const QUIET: Duration = Duration::from_secs(5);

/// Watch documents change: every commit once, in order
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mutext watch\n  \
    mutext watch tasks/ --json | while read -r commit; do ./react \"$commit\"; done\n  \
    mutext watch --after 0 --count 10\n  \
    mutext watch plan.md --count 1 && echo 'the plan has changed'\n\n\
    Each commit is one line; the first column, or `cursor`, is its place. Whoever was interrupted goes\n\
    on with --after and the place that was seen last, and misses nothing. Where commits after that\n\
    place are forgotten already, that is an error (exit status 6): read the documents anew.\n\
    Whoever watches few of many documents keeps up with --cursors: while the others change, a line\n\
    now and then has the place alone, in JSON as `cursor` with empty `changes`. It is no commit, and\n\
    --count does not count it.\n\
    It goes on until Ctrl-C, also while the store is away for a while.")]
pub(crate) struct WatchArgs {
    /// Only documents whose paths begin with this
    #[arg(default_value = "", hide_default_value = true)]
    prefix: PathPrefix,
    /// From behind this place on; 0 for all that is kept [default: from now on]
    #[arg(long, value_name = "CURSOR")]
    after: Option<u64>,
    /// Also say now and then how far it has come, where only other documents change
    #[arg(long)]
    cursors: bool,
    /// End after so many commits
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

pub(crate) async fn watch(args: WatchArgs, common: &Common) -> Result<ExitCode, CliError> {
    let mut signals = Signals::listen()?;
    let (mutext, context) = tokio::select! {
        opened = common.open() => opened?,
        signal = signals.next() => return Ok(signals::ended_by(signal)),
    };
    let watch = context.watch(args.prefix.clone());
    let watch = match args.after {
        Some(cursor) => watch.after(Cursor(cursor)),
        None => watch,
    };
    let outcome = tokio::select! {
        outcome = async { hand_on(&mut watch.begin().await?, &args, common.out).await } => outcome,
        signal = signals.next() => Ok(signals::ended_by(signal)),
    };
    mutext.finish().await;
    outcome
}

async fn hand_on(watcher: &mut Watcher, args: &WatchArgs, out: Output) -> Result<ExitCode, CliError> {
    let (after, prefix) = (watcher.cursor(), args.prefix.to_string());
    out.began(
        &format!("watching from cursor {} on; Ctrl-C ends it", after.0),
        &json!({ "after": after, "prefix": prefix }),
    );
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut told = after;
    while left > 0 {
        let commit = watcher.next_within(QUIET).await?;
        let line = match commit {
            Some(commit) => {
                (told, left) = (commit.cursor, left - 1);
                if out.json { as_json(&commit).to_string() } else { printable(&words(&commit)) }
            }
            // Whoever goes on from the last line later would read all of that anew, or find it forgotten.
            None if args.cursors && watcher.cursor() > told => {
                told = watcher.cursor();
                if out.json { json!({ "cursor": told, "changes": [] }).to_string() } else { told.0.to_string() }
            }
            None => continue,
        };
        // A reader that does not read must not keep us from being interrupted.
        let written = tokio::task::spawn_blocking(move || write_unless_gone(format!("{line}\n").as_bytes())).await;
        if !matches!(written, Ok(Ok(Written::Read))) {
            break;
        }
    }
    Ok(Exit::Done.into())
}

fn words(commit: &CommitRecord) -> String {
    let change = |(path, revision, deleted): &(mutext::DocumentPath, mutext::Revision, bool)| {
        format!("{path}@{revision}{}", if *deleted { " (deleted)" } else { "" })
    };
    let changes: Vec<String> = commit.changes.iter().map(change).collect();
    // A commit stays on its line.
    let message =
        commit.message.as_deref().map(|message| format!("  {}", message.replace('\n', " "))).unwrap_or_default();
    let CommitRecord { cursor, author, written_at, .. } = commit;
    format!("{}  {}  {author}  {}{message}", cursor.0, moment(*written_at), changes.join(", "))
}

fn as_json(commit: &CommitRecord) -> Value {
    let changes = commit
        .changes
        .iter()
        .map(|(path, revision, deleted)| json!({ "path": path, "revision": revision, "deleted": deleted }));
    json!({
        "cursor": commit.cursor,
        "author": commit.author,
        "message": commit.message,
        "written_at": timestamp(commit.written_at),
        "changes": changes.collect::<Vec<_>>(),
    })
}
