//! `append`, `prepend`, `insert`, `replace`, `patch`, `merge-patch`, `add`, `add-to-set`, `increment`: changing a
//! document by what changes, on what is there now.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use mutext::{Context, DocumentPath, Edit, Edited, Error, Fence, Which};
use serde_json::{Number, Value, json};

use crate::config::Common;
use crate::conflict::explained;
use crate::error::CliError;
use crate::exit::Exit;
use crate::inherited::{self, Inherited};
use crate::input::Input;
use crate::said::Said;

/// Put lines at the end of a text; creates it where there is none
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mutext append log.md 'read the paper'\n  \
    make 2>&1 | mutext append build.log -\n  \
    mutext append log.md 'tried again' --key build-17\n\n\
    The lines stand on lines of their own. Where several append at once, all lines are there in the\n\
    end: nothing has to be locked or tried again.")]
pub(crate) struct AppendArgs {
    #[command(flatten)]
    lines: LinesArgs,
}

/// Put lines at the beginning of a text; creates it where there is none
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mutext prepend news.md '- the build is green'\n  mutext prepend news.md -")]
pub(crate) struct PrependArgs {
    #[command(flatten)]
    lines: LinesArgs,
}

/// Lines that go into a document.
#[derive(Debug, Args)]
struct LinesArgs {
    /// The document
    path: DocumentPath,
    /// The lines; - reads standard input
    #[arg(required_unless_present = "file")]
    text: Option<String>,
    /// Read them from this file
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,
    #[command(flatten)]
    said: Said,
}

/// Put lines before a line of a text
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mutext insert plan.md 1 '# The plan'\n  \
    mutext insert plan.md 3 - --if-revision 7\n\n\
    Lines move when others write: name the revision whose lines you counted, or use replace.")]
pub(crate) struct InsertArgs {
    /// The document
    path: DocumentPath,
    /// Before which line, from 1; the number of lines + 1 is the end
    line: usize,
    /// The lines; - reads standard input
    #[arg(required_unless_present = "file")]
    text: Option<String>,
    /// Read them from this file
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,
    #[command(flatten)]
    said: Said,
}

/// Put one text in the place of another, which must be there exactly once
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mutext replace plan.md --old 'by Friday' --new 'by Monday'\n  \
    mutext replace plan.md --old '- [ ] test' --new '- [x] test' --nth 2\n  \
    mutext replace plan.md --old teh --new the --all\n  \
    mutext replace plan.md --old-file before.txt --new-file after.txt\n\n\
    What is to be replaced says itself which version it is for: where somebody has changed it, or it is\n\
    there twice, the replacement is refused, and says where it stands.")]
pub(crate) struct ReplaceArgs {
    /// The document
    path: DocumentPath,
    /// What is there
    #[arg(long, value_name = "TEXT", required_unless_present = "old_file", allow_hyphen_values = true)]
    old: Option<String>,
    /// What is to be there
    #[arg(long, value_name = "TEXT", required_unless_present = "new_file", allow_hyphen_values = true)]
    new: Option<String>,
    /// Read what is there from this file
    #[arg(long, value_name = "FILE", conflicts_with = "old")]
    old_file: Option<PathBuf>,
    /// Read what is to be there from this file
    #[arg(long, value_name = "FILE", conflicts_with = "new")]
    new_file: Option<PathBuf>,
    /// This occurrence of several, from 1
    #[arg(long, value_name = "N", value_parser = occurrence)]
    nth: Option<usize>,
    /// Every occurrence
    #[arg(long, conflicts_with = "nth")]
    all: bool,
    #[command(flatten)]
    said: Said,
}

fn occurrence(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "occurrences count from 1".to_owned())
}

/// Apply a JSON Patch (RFC 6902): all of its operations, or none
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mutext patch tasks.json change.json\n  \
    mutext patch tasks.json --patch '[{\"op\": \"replace\", \"path\": \"/0/done\", \"value\": true}]'\n  \
    ./make-patch | mutext patch tasks.json -\n\n\
    A `test` operation makes the rest depend on what is there.")]
pub(crate) struct PatchArgs {
    #[command(flatten)]
    json: JsonArgs,
}

/// Apply a JSON Merge Patch (RFC 7396); creates the document where there is none
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mutext merge-patch task.json --patch '{\"done\": true, \"owner\": null}'\n  \
    mutext merge-patch task.json change.json\n\n\
    Members of the patch take the place of those of the document; null removes one.")]
pub(crate) struct MergePatchArgs {
    #[command(flatten)]
    json: JsonArgs,
}

/// A patch, from wherever it comes.
#[derive(Debug, Args)]
struct JsonArgs {
    /// The document
    path: DocumentPath,
    /// The file with the patch; - reads standard input
    #[arg(required_unless_present = "patch")]
    file: Option<PathBuf>,
    /// The patch itself
    #[arg(long, value_name = "JSON", conflicts_with = "file")]
    patch: Option<String>,
    #[command(flatten)]
    said: Said,
}

/// Add to a JSON number
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mutext increment counters.json /builds\n  \
    mutext increment counters.json /balance -0.10\n\n\
    A number that is missing counts as 0. Where several add at once, the sum is right.")]
pub(crate) struct IncrementArgs {
    /// The document
    path: DocumentPath,
    /// Which number, as a JSON Pointer (RFC 6901)
    pointer: String,
    /// How much; may be negative or a decimal
    #[arg(default_value = "1", allow_hyphen_values = true, value_parser = number)]
    by: Number,
    #[command(flatten)]
    said: Said,
}

/// Put an item at the end of a JSON list, which is made where it is missing
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mutext add board.json /tasks '{\"title\": \"test\", \"state\": \"open\"}'\n  \
    mutext add board.json /tags '\"urgent\"'\n\n\
    Where several add at once, all items are there in the end.")]
pub(crate) struct AddArgs {
    #[command(flatten)]
    item: ItemArgs,
}

/// Put an item at the end of a JSON list, unless an equal one is there
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mutext add-to-set board.json /tags '\"urgent\"'")]
pub(crate) struct AddToSetArgs {
    #[command(flatten)]
    item: ItemArgs,
}

/// An item of a list.
#[derive(Debug, Args)]
struct ItemArgs {
    /// The document
    path: DocumentPath,
    /// Which list, as a JSON Pointer (RFC 6901)
    pointer: String,
    /// The item, as JSON
    #[arg(allow_hyphen_values = true, value_parser = item)]
    item: Value,
    #[command(flatten)]
    said: Said,
}

fn number(text: &str) -> Result<Number, String> {
    serde_json::from_str(text).map_err(|_| "it is not a number as JSON writes it, as in 1, -3 or 0.5".to_owned())
}

fn item(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("it is not JSON ({error}); a text needs quotes: '\"{text}\"'"))
}

impl LinesArgs {
    fn text(&self, common: &Common) -> Result<Option<String>, CliError> {
        lines(Input::of(self.text.clone(), self.file.as_deref()), &self.path, common)
    }
}

/// The lines that are given; none where a file or another program gave nothing at all. An empty argument is an empty
/// line.
fn lines(input: Input<'_>, path: &DocumentPath, common: &Common) -> Result<Option<String>, CliError> {
    let is_piped = input.is_piped();
    let text = input.text(path, common.document_bytes_max)?;
    Ok(if text.is_empty() && is_piped { None } else { Some(text) })
}

/// There are no lines to be put anywhere, and the document stays as it is.
async fn stays(path: &DocumentPath, common: &Common) -> Result<ExitCode, CliError> {
    let current = common.with_context(async |context| Ok(context.get(path.clone()).await?)).await?;
    let revision = current.map(|current| current.revision);
    let answer = json!({
        "path": path, "revision": revision, "base": revision, "unchanged": true, "replayed": false, "attempts": 0,
        "cursor": null,
    });
    common.out.answer(&answer, || match revision {
        Some(revision) => format!("{path} stays at revision {revision}: there was nothing to put into it\n"),
        None => format!("{path} is not created: there was nothing to put into it\n"),
    })?;
    Ok(Exit::Done.into())
}

impl JsonArgs {
    fn input(&self) -> Input<'_> {
        match (&self.patch, self.file.as_deref()) {
            (Some(patch), _) => Input::Argument(patch.clone()),
            (None, Some(file)) if file != Path::new("-") => Input::File(file),
            _ => Input::Standard,
        }
    }
}

pub(crate) async fn append(args: AppendArgs, common: &Common) -> Result<ExitCode, CliError> {
    let Some(text) = args.lines.text(common)? else { return stays(&args.lines.path, common).await };
    edit(args.lines.path, Edit::Append { text }, args.lines.said, common).await
}

pub(crate) async fn prepend(args: PrependArgs, common: &Common) -> Result<ExitCode, CliError> {
    let Some(text) = args.lines.text(common)? else { return stays(&args.lines.path, common).await };
    edit(args.lines.path, Edit::Prepend { text }, args.lines.said, common).await
}

pub(crate) async fn insert(args: InsertArgs, common: &Common) -> Result<ExitCode, CliError> {
    let InsertArgs { path, line, text, file, said } = args;
    let input = Input::of(text, file.as_deref());
    let Some(text) = lines(input, &path, common)? else { return stays(&path, common).await };
    edit(path, Edit::Insert { line, text }, said, common).await
}

pub(crate) async fn replace(args: ReplaceArgs, common: &Common) -> Result<ExitCode, CliError> {
    let ReplaceArgs { path, old, new, old_file, new_file, nth, all, said } = args;
    let limit = common.document_bytes_max;
    let of = |text: Option<String>, file: Option<&Path>| match file {
        Some(file) => Input::File(file).text(&path, limit),
        None => Ok(text.unwrap_or_default()),
    };
    let (old, new) = (of(old, old_file.as_deref())?, of(new, new_file.as_deref())?);
    let which = match (nth, all) {
        (Some(nth), _) => Which::Nth(nth),
        (None, true) => Which::All,
        (None, false) => Which::Only,
    };
    edit(path, Edit::Replace { old, new, which }, said, common).await
}

pub(crate) async fn patch(args: PatchArgs, common: &Common) -> Result<ExitCode, CliError> {
    let patch = args.json.input().json("a JSON Patch", common.document_bytes_max)?;
    edit(args.json.path, Edit::Patch(patch), args.json.said, common).await
}

pub(crate) async fn merge_patch(args: MergePatchArgs, common: &Common) -> Result<ExitCode, CliError> {
    let patch = args.json.input().json("a JSON Merge Patch", common.document_bytes_max)?;
    edit(args.json.path, Edit::MergePatch(patch), args.json.said, common).await
}

pub(crate) async fn increment(args: IncrementArgs, common: &Common) -> Result<ExitCode, CliError> {
    let IncrementArgs { path, pointer, by, said } = args;
    edit(path, Edit::Increment { pointer, by }, said, common).await
}

pub(crate) async fn add(args: AddArgs, common: &Common) -> Result<ExitCode, CliError> {
    let ItemArgs { path, pointer, item, said } = args.item;
    edit(path, Edit::Add { pointer, item }, said, common).await
}

pub(crate) async fn add_to_set(args: AddToSetArgs, common: &Common) -> Result<ExitCode, CliError> {
    let ItemArgs { path, pointer, item, said } = args.item;
    edit(path, Edit::AddToSet { pointer, item }, said, common).await
}

/// Makes one edit of one document, and says what came of it.
async fn edit(path: DocumentPath, edit: Edit, said: Said, common: &Common) -> Result<ExitCode, CliError> {
    let fence = Inherited::covering(&path, common)?;
    let outcome = common.with_context(async |context| {
        let made = make(&context, &path, &edit, &said, fence).await;
        match made {
            Ok(edited) => Ok(edited),
            Err(CliError::Library(error @ Error::EditFailed { .. })) => Err(CliError::Edit(Box::new(error))),
            Err(error) => Err(explained(error, &context, None, |current, _| next(&path, current)).await),
        }
    });
    tell(&path, &outcome.await?, &edit, common)
}

fn next(path: &DocumentPath, current: Option<mutext::Revision>) -> String {
    match current {
        Some(current) => format!(
            "see whether the edit still makes sense (`mutext get {path}`), then repeat it with --if-revision {current}, \
             or without"
        ),
        None => format!("there is no {path} any more; see `mutext history {path}`"),
    }
}

async fn make(
    context: &Context,
    path: &DocumentPath,
    edit: &Edit,
    said: &Said,
    fence: Option<Fence>,
) -> Result<Edited, CliError> {
    let mut editing = context.edit(path.clone(), [edit.clone()]).expires(said.expiry());
    if let Some(fence) = fence {
        if said.at().is_none() {
            inherited::still_stands(&fence, context).await?;
        }
        editing = editing.under(fence);
    }
    if let Some(revision) = said.at() {
        editing = editing.at(revision);
    }
    if let Some(message) = &said.why.message {
        editing = editing.message(message);
    }
    if let Some(key) = &said.why.key {
        editing = editing.key(key.clone());
    }
    Ok(editing.await?)
}

fn tell(path: &DocumentPath, edited: &Edited, edit: &Edit, common: &Common) -> Result<ExitCode, CliError> {
    let value = value(edited, edit);
    let mut answer = json!({
        "path": path,
        "revision": edited.revision,
        "base": edited.base,
        "unchanged": edited.unchanged,
        "replayed": edited.replayed,
        "attempts": edited.attempts,
        "cursor": edited.cursor,
    });
    if let Some(value) = &value {
        answer["value"] = value.clone();
    }
    common.out.answer(&answer, || {
        let revision = edited.revision;
        let value = value.map(|value| format!(": {value}")).unwrap_or_default();
        match (edited.replayed, edited.unchanged) {
            (true, _) => format!("{path} is at revision {revision}, since an earlier call with this key\n"),
            (false, true) => format!("{path} stays at revision {revision}: it was so already{value}\n"),
            (false, false) => format!("{path} is at revision {revision}{value}\n"),
        }
    })?;
    Ok(Exit::Done.into())
}

/// The number that an increment has made.
fn value(edited: &Edited, edit: &Edit) -> Option<Value> {
    let Edit::Increment { pointer, .. } = edit else { return None };
    edited.content.as_ref()?.parse::<Value>().ok()?.pointer(pointer).cloned()
}
