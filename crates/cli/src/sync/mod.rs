//! `sync`: a folder of files and a context that are kept alike, for those who only know files.
//!
//! | file | what lives there |
//! |---|---|
//! | `plan` | what is to be done, as a function of what both sides hold and held |
//! | `look` | which texts are in the folder, and what is left out |
//! | `folder` | files: read, and replaced without losing anything |
//! | `state` | what both held when they were last alike |
//! | `round` | one round of all that |
//! | `digest` | what a text is told from another by |

mod digest;
mod folder;
mod look;
mod plan;
mod round;
mod state;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use mutext::{Context, ContextName, DocumentPath, Error, Wait};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use self::folder::{Alone, Folder};
use self::look::Known;
use self::plan::{Action, Why};
use self::round::{Done, Pair, Report, Terms};
use self::state::State;
use crate::config::Common;
use crate::config_file::parse_duration;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{Written, on_one_line, to_stdout, write_unless_gone};
use crate::signals::{self, Signal, Signals};

/// Keep a folder of files and a context alike, in both directions
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
#[command(after_help = "Examples:\n  \
    mutext sync notes/ research-42\n  \
    mutext sync notes/ --dry-run\n  \
    mutext sync notes/ research-42 --watch\n\n\
    What has changed on one side goes to the other, deletions too. What has changed on both is merged\n\
    where the two changes do not touch each other. Else the file gets what the context has, and what\n\
    was in it is kept beside it as FILE.conflict-REVISION, for somebody to look at and remove. A\n\
    deletion gives way to a change, and nothing is ever written over unseen.\n\n\
    Files whose names begin with a dot, links and the like are ignored. What cannot be a document (it\n\
    is not UTF-8, is too large, or has a name that no document can have) is told of and left as it is;\n\
    then, and where a copy of a conflict waits, the exit status is 1.\n\n\
    What both sides held when they were last alike stands in DIR/.mutext-sync.json. One sync at a time\n\
    works on a folder; another one waits for it (MUTEXT_WAIT), then gives up.")]
pub(crate) struct SyncArgs {
    /// The folder
    dir: PathBuf,
    /// The context [default: as --context]
    #[arg(value_name = "CONTEXT")]
    with: Option<ContextName>,
    /// Go on until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// How often to look, with --watch
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = every, requires = "watch")]
    every: Duration,
    /// Say what would be done, and do nothing
    #[arg(long, conflicts_with = "watch")]
    dry_run: bool,
    /// Also write documents that lose more than half of what they hold
    #[arg(long)]
    allow_shrink: bool,
    /// Also delete more than half of all that both have in common
    #[arg(long)]
    allow_deletions: bool,
    /// Why, for the history [default: "from the folder DIR"]
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
}

/// What was done until then is done and written down.
const HALFWAY: &str = "before all of it was alike; the next sync goes on";
const EVERY_MIN: Duration = Duration::from_millis(100);

fn every(text: &str) -> Result<Duration, String> {
    let every = parse_duration(text)?;
    if every < EVERY_MIN { Err(format!("give {EVERY_MIN:?} or more")) } else { Ok(every) }
}

pub(crate) async fn run(args: SyncArgs, common: &Common) -> Result<ExitCode, CliError> {
    let common = &Common { context: args.with.clone().unwrap_or_else(|| common.context.clone()), ..common.clone() };
    let mut signals = Signals::listen()?;
    let (mutext, context) = tokio::select! {
        opened = common.open() => opened?,
        signal = signals.next() => return Err(signals::interrupted(signal)),
    };
    let outcome = keep_alike(&args, common, &context, &mut signals).await;
    mutext.finish().await;
    outcome
}

async fn keep_alike(
    args: &SyncArgs,
    common: &Common,
    context: &Context,
    signals: &mut Signals,
) -> Result<ExitCode, CliError> {
    let folder = open(&args.dir, common)?;
    let _alone = tokio::select! {
        alone = be_alone(&folder, common.wait) => alone?,
        signal = signals.next() => return Err(signals::interrupted(signal)),
    };
    let state = State::read(&folder, common.store.identity(), &common.context)?;
    let name = folder.path().file_name().map(|name| name.to_string_lossy().into_owned());
    let message = || format!("from the folder {}", name.unwrap_or_default());
    let terms = Terms {
        allow_shrink: args.allow_shrink,
        allow_deletions: args.allow_deletions,
        message: args.message.clone().unwrap_or_else(message),
    };
    let mut pair = Pair { common, context, folder, state, known: Known::default(), terms };
    if args.dry_run {
        return dry_run(&mut pair).await;
    }
    let mut told = Told::default();
    loop {
        let made = tokio::select! {
            made = pair.make(|path, done| told.tell(path, done, common)) => made,
            signal = signals.next() => {
                pair.save()?;
                return stopped(signal, args.watch);
            }
        };
        // Also where the round ended early: what was alike until then is.
        pair.save()?;
        let exit = match made {
            Ok(report) => told.report(&report, args, common)?,
            Err(error) if args.watch => told.trouble(error, common)?,
            Err(error) => return Err(error),
        };
        if !args.watch || told.is_unheard {
            return Ok(exit.into());
        }
        tokio::select! {
            () = sleep(args.every) => {}
            signal = signals.next() => return stopped(signal, true),
        }
    }
}

/// A sync that goes on until it is stopped has nothing to say then; another one says that it was not finished.
fn stopped(signal: Signal, watch: bool) -> Result<ExitCode, CliError> {
    if watch { Ok(signals::ended_by(signal)) } else { Err(signals::interrupted_when(signal, HALFWAY)) }
}

fn open(dir: &Path, common: &Common) -> Result<Folder, CliError> {
    let places = std::iter::once(&common.store).chain(&common.locks);
    let except = places.filter_map(|place| place.identity().strip_prefix("embedded:").map(PathBuf::from)).collect();
    Folder::open(dir, except, common.document_bytes_max).map_err(|source| CliError::Io {
        what: format!("folder {} cannot be opened", dir.display()),
        remedy: "name a folder that is there; mkdir makes an empty one",
        source,
    })
}

async fn be_alone(folder: &Folder, wait: Wait) -> Result<Alone, CliError> {
    let until = Instant::now() + wait.get();
    let name = folder.path().display();
    loop {
        let alone = folder.alone().map_err(|error| CliError::Io {
            what: format!("folder {name} cannot be kept from other syncs"),
            remedy: "name a folder that can be written",
            source: std::io::Error::other(error),
        })?;
        match alone {
            Some(alone) => return Ok(alone),
            None if Instant::now() >= until => return Err(CliError::SyncedElsewhere(name.to_string())),
            None => sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn dry_run(pair: &mut Pair<'_>) -> Result<ExitCode, CliError> {
    let (actions, _, look) = pair.look().await?;
    let (folder, context) = (pair.folder.path().display().to_string(), pair.context.name());
    let words = |action: &Action| match action {
        Action::Forget => "forget (gone on both sides)",
        Action::DeleteDocument { .. } => "delete the document",
        Action::DeleteFile { .. } => "delete the file",
        Action::Upload { .. } => "upload",
        Action::Download { .. } => "download",
        Action::Compare { .. } => "compare (changed on both sides)",
    };
    let planned: Vec<Value> =
        actions.iter().map(|(path, action)| json!({ "path": path, "action": words(action) })).collect();
    let answer = json!({ "dir": folder, "context": context, "planned": planned, "left": left(&look.left) });
    if !pair.common.out.json {
        look.left.iter().for_each(|(path, why)| tell_left(path, why, pair.common));
    }
    pair.common.out.answer(&answer, || {
        let mut lines: Vec<String> =
            actions.iter().map(|(path, action)| on_one_line(&format!("{path}: {}", words(action)))).collect();
        lines.push(format!("nothing was done: {} to do\n", actions.len()));
        lines.join("\n")
    })?;
    Ok(Exit::Done.into())
}

/// A file's name may hold anything: what would move a terminal's cursor, or begin a line, is shown, not done.
fn tell_left(path: &str, why: &str, common: &Common) {
    common.out.warn("left", &format!("{} is left as it is: {}", on_one_line(path), on_one_line(why)));
}

fn left(left: &std::collections::BTreeMap<String, String>) -> Vec<Value> {
    left.iter().map(|(path, why)| json!({ "path": path, "why": why })).collect()
}

/// What was told already, so that a sync that goes on tells everything once.
#[derive(Debug, Default)]
struct Told {
    left: Vec<(String, String)>,
    copies: Vec<String>,
    trouble: Option<String>,
    has_reported: bool,
    /// Whoever read standard output has gone.
    is_unheard: bool,
}

impl Told {
    /// For people each thing as it is done.
    fn tell(&mut self, path: &DocumentPath, done: &Done, common: &Common) {
        if !common.out.json {
            self.say(&format!("{}\n", on_one_line(&format!("{path} {}", words(done)))));
        }
    }

    fn say(&mut self, text: &str) {
        self.is_unheard |= !matches!(write_unless_gone(text.as_bytes()), Ok(Written::Read));
    }

    fn report(&mut self, report: &Report, args: &SyncArgs, common: &Common) -> Result<Exit, CliError> {
        self.trouble = None;
        let left_now: Vec<_> = report.left.iter().map(|(path, why)| (path.clone(), why.clone())).collect();
        let is_news = !report.done.is_empty() || self.left != left_now || self.copies != report.copies;
        let exit = if left_now.is_empty() && report.copies.is_empty() { Exit::Done } else { Exit::CriterionFailed };
        if !is_news && self.has_reported {
            return Ok(exit);
        }
        if common.out.json {
            let done = report.done.iter().map(|(path, done)| as_json(path, done));
            let answer = json!({
                "dir": args.dir.to_string_lossy(),
                "context": common.context,
                "done": done.collect::<Vec<_>>(),
                "left": left(&report.left),
                "copies": report.copies,
                "ignored": report.ignored,
                "alike": report.alike,
            });
            self.say(&format!("{answer}\n"));
        } else {
            for (path, why) in left_now.iter().filter(|left| !self.left.contains(left)) {
                tell_left(path, why, common);
            }
            for copy in report.copies.iter().filter(|copy| !self.copies.contains(copy)) {
                let what = "holds what could not be merged: put what you need of it into the file, then remove it";
                common.out.warn("copy", &format!("{} {what}", on_one_line(copy)));
            }
            if !args.watch {
                to_stdout(summary(report, common).as_bytes())?;
            }
        }
        (self.left, self.copies, self.has_reported) = (left_now, report.copies.clone(), true);
        Ok(exit)
    }

    /// An engine that is away comes back; anything else ends the sync.
    fn trouble(&mut self, error: CliError, common: &Common) -> Result<Exit, CliError> {
        let CliError::Library(Error::Engine(_)) = &error else { return Err(error) };
        let text = error.chain().join(": ");
        if self.trouble.as_ref() != Some(&text) {
            common.out.warn("no_answer", &format!("{text}; the sync goes on as soon as it can"));
            self.trouble = Some(text);
        }
        Ok(Exit::Trouble)
    }
}

fn summary(report: &Report, common: &Common) -> String {
    let ignored = match report.ignored.len() {
        0 => String::new(),
        count => format!("; {count} ignored (links and the like)"),
    };
    format!("{} alike in folder and context {}{ignored}\n", count(report.alike, "document"), common.context)
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what} is") } else { format!("{number} {what}s are") }
}

fn words(done: &Done) -> String {
    let but = |why: &Why, what: &str| match why {
        Why::Changed => String::new(),
        Why::ChangedWhereDeleted => format!(" (it was deleted in the {what}, and changed since it was read there)"),
    };
    match done {
        Done::Uploaded(revision, why) => format!("is uploaded, at revision {revision}{}", but(why, "context")),
        Done::Downloaded(revision, why) => format!("is downloaded, from revision {revision}{}", but(why, "folder")),
        Done::DocumentDeleted(revision) => format!("is deleted in the context, at revision {revision}"),
        Done::FileDeleted => "is deleted in the folder".to_owned(),
        Done::Merged(revision) => format!("is merged, at revision {revision}"),
        Done::BothKept { revision, author, copy } => format!(
            "has changed on both sides in the same place: the file holds revision {revision} by {author}, and {copy} \
             what it held"
        ),
    }
}

fn as_json(path: &DocumentPath, done: &Done) -> Value {
    let (what, revision) = match done {
        Done::Uploaded(revision, _) => ("uploaded", Some(revision)),
        Done::Downloaded(revision, _) => ("downloaded", Some(revision)),
        Done::DocumentDeleted(revision) => ("document_deleted", Some(revision)),
        Done::FileDeleted => ("file_deleted", None),
        Done::Merged(revision) => ("merged", Some(revision)),
        Done::BothKept { revision, .. } => ("both_kept", Some(revision)),
    };
    let mut value = json!({ "path": path, "what": what, "revision": revision });
    match done {
        Done::BothKept { author, copy, .. } => {
            value["author"] = json!(author);
            value["copy"] = json!(copy);
        }
        Done::Uploaded(_, Why::ChangedWhereDeleted) | Done::Downloaded(_, Why::ChangedWhereDeleted) => {
            value["undeleted"] = json!(true);
        }
        _ => {}
    }
    value
}
