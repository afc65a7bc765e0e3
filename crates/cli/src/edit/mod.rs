//! `edit`: a document in a person's own editor, and what happens where others were faster.
//!
//! What was typed is in a file of its own from beginning to end. It goes once it is in the document, and is named on
//! every other way out.

mod ask;
mod draft;

use std::process::{ExitCode, ExitStatus};

use clap::{Args, ValueEnum};
use mutext::{Content, Context, Document, DocumentPath, Effected, Error, Explanation, Kind, Revision};
use serde_json::json;
use tokio::process::Command;

use self::ask::{Choice, ask, can_ask};
use self::draft::Draft;
use crate::config::Common;
use crate::conflict::Explained;
use crate::error::CliError;
use crate::exit::Exit;
use crate::inherited::Inherited;
use crate::input::{kind_of, utf8};
use crate::said::Why;
use crate::signals::{self, Signal, Signals};

/// Edit a document in your editor ($VISUAL, $EDITOR, or vi)
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mutext edit plan.md\n  \
    EDITOR='code --wait' mutext edit plan.md --message 'as discussed'\n  \
    EDITOR='sed -i s/teh/the/' mutext edit plan.md --on-conflict merge\n\n\
    Nothing is locked meanwhile. Where others have changed the document, you are shown what, and choose:\n\
    merge, edit again with both before you, or abandon. Whatever happens, what you typed is kept: where\n\
    it is not written, the file that holds it is named. A document that is not there is created.")]
pub(crate) struct EditArgs {
    /// The document
    path: DocumentPath,
    /// What to do where others have changed it [default: ask at a terminal, else fail]
    #[arg(long, value_name = "WHAT")]
    on_conflict: Option<OnConflict>,
    /// Also where more than half of the document is dropped
    #[arg(long)]
    allow_shrink: bool,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnConflict {
    /// Merge, where the changes do not touch each other; else fail
    Merge,
    /// Fail, and keep what was typed
    Fail,
}

/// Names of the sides in a draft with both changes.
const YOURS: &str = "what you wrote";
const BASE: &str = "what both began with";
const THEIRS: &str = "what is there now";

pub(crate) async fn run(args: EditArgs, common: &Common) -> Result<ExitCode, CliError> {
    let mut signals = Signals::listen()?;
    let (mutext, context) = tokio::select! {
        opened = common.open() => opened?,
        signal = signals.next() => return Err(signals::interrupted_when(signal, "before it was written")),
    };
    let outcome = Session::run(&args, common, &context, &mut signals).await;
    mutext.finish().await;
    outcome
}

/// One document in an editor, until it is written or given up.
struct Session<'a> {
    args: &'a EditArgs,
    common: &'a Common,
    context: &'a Context,
    /// What the draft began with: what is written takes its place.
    base: Option<Document>,
    kind: Kind,
}

/// How a session ended well.
enum Ended {
    Unchanged,
    Written { revision: Revision, effect: Effected },
}

impl<'a> Session<'a> {
    async fn run(
        args: &'a EditArgs,
        common: &'a Common,
        context: &'a Context,
        signals: &mut Signals,
    ) -> Result<ExitCode, CliError> {
        let base = context.get(args.path.clone()).await?;
        let kind = base.as_ref().map_or_else(|| kind_of(&args.path), |base| base.content.kind());
        let text = base.as_ref().map_or("", |base| base.content.as_str()).to_owned();
        let mut draft = Draft::new(&args.path, &text)?;
        let mut session = Self { args, common, context, base, kind };
        match session.go_on(&mut draft, signals).await {
            Ok(ended) => {
                draft.discard();
                session.tell(&ended)
            }
            // There is nothing left to keep, unless earlier versions are beside it.
            Err(error) if draft.is_gone() => {
                if let Some(copy) = draft.kept() {
                    return Err(CliError::NotWritten { source: Box::new(error), file: copy.display().to_string() });
                }
                draft.discard();
                Err(error)
            }
            // Nothing was typed, nothing is kept.
            Err(error) if draft.read(common.document_bytes_max).is_ok_and(|bytes| bytes == text.as_bytes()) => {
                draft.discard();
                Err(error)
            }
            Err(source) => {
                Err(CliError::NotWritten { source: Box::new(source), file: draft.file().display().to_string() })
            }
        }
    }

    async fn go_on(&mut self, draft: &mut Draft, signals: &mut Signals) -> Result<Ended, CliError> {
        loop {
            edit(draft, signals).await?;
            if draft.is_gone() {
                return Err(CliError::Editor(format!(
                    "the editor ended well and took its file {} away: {} stays as it was; to delete the document, run \
                     `mutext rm {}`",
                    draft.file().display(),
                    self.args.path,
                    self.args.path
                )));
            }
            let attempt = tokio::select! {
                attempt = self.attempt(draft) => attempt,
                signal = signals.next() => return Err(signals::interrupted_when(signal, "before it was written")),
            };
            let problem = match attempt {
                Ok(ended) => return Ok(ended),
                Err(problem) => problem,
            };
            // From here on whoever is asked may go away, too.
            let solved = tokio::select! {
                solved = self.solve(problem, draft) => solved?,
                signal = signals.next() => return Err(signals::interrupted_when(signal, "before it was written")),
            };
            if let Some(ended) = solved {
                return Ok(ended);
            }
        }
    }

    /// Writes what is in the draft.
    async fn attempt(&self, draft: &Draft) -> Result<Ended, CliError> {
        let content = self.content(draft)?;
        let before = self.base.as_ref().map(|base| base.content.as_str());
        // Editors end the last line; that alone is no change.
        let is_same = before.is_some_and(|before| {
            let typed = content.as_str();
            typed == before || typed.strip_suffix('\n') == Some(before)
        });
        if is_same || before.is_none() && content.as_str().is_empty() {
            return Ok(Ended::Unchanged);
        }
        self.write(content, self.args.allow_shrink).await
    }

    fn content(&self, draft: &Draft) -> Result<Content, CliError> {
        let limit = self.common.document_bytes_max;
        let bytes = draft.read(limit)?;
        if bytes.len() > limit {
            let path = &self.args.path;
            return Err(CliError::input(format!(
                "document {path} would have more than {limit} bytes, the limit: split it, or raise document_bytes_max in \
                 the config file"
            )));
        }
        let text = utf8(bytes, "the draft")?;
        let is_marker = |line: &str| {
            [("<<<<<<< ", YOURS), ("||||||| ", BASE), (">>>>>>> ", THEIRS)]
                .iter()
                .any(|(marker, side)| line.strip_prefix(marker).is_some_and(|rest| rest.starts_with(side)))
        };
        if let Some(line) = text.lines().position(is_marker) {
            let line = line + 1;
            return Err(CliError::input(format!(
                "line {line} of the draft still marks a conflict: choose between the two sides, and remove the marks"
            )));
        }
        match self.kind {
            Kind::Text => Ok(Content::text(text)),
            // An empty draft of a new document is nothing yet.
            Kind::Json if self.base.is_none() && text.trim().is_empty() => Ok(Content::text("")),
            Kind::Json => Content::parse_json(text)
                .map_err(|error| CliError::input(format!("the draft for {}: {error}; correct it", self.args.path))),
        }
    }

    async fn write(&self, content: Content, allow_shrink: bool) -> Result<Ended, CliError> {
        let path = &self.args.path;
        let precondition = mutext::Precondition::unchanged(self.base.as_ref());
        let mut writing = self.context.write(path.clone(), content).precondition(precondition);
        if let Some(fence) = Inherited::covering(path, self.common)? {
            writing = writing.under(fence);
        }
        if allow_shrink {
            writing = writing.allow_shrink();
        }
        if let Some(message) = &self.args.why.message {
            writing = writing.message(message);
        }
        if let Some(key) = &self.args.why.key {
            writing = writing.key(key.clone());
        }
        let written = writing.await?;
        Ok(Ended::Written { revision: written.revision, effect: written.effect })
    }

    /// What is to be done about a draft that could not be written: done with it, or once more in the editor.
    async fn solve(&mut self, problem: CliError, draft: &mut Draft) -> Result<Option<Ended>, CliError> {
        match problem {
            CliError::Library(Error::Conflict(conflict)) => self.reconcile(conflict, draft).await,
            CliError::Library(Error::Erosion(erosion)) if self.may_ask() => {
                self.common.out.say(&format!("{erosion}"));
                match ask(&[("write it", Choice::Write), ("edit again", Choice::Again), ABANDON]).await {
                    Choice::Write => match self.write(self.content(draft)?, true).await {
                        Ok(ended) => Ok(Some(ended)),
                        Err(CliError::Library(Error::Conflict(conflict))) => self.reconcile(conflict, draft).await,
                        Err(error) => Err(error),
                    },
                    Choice::Again => Ok(None),
                    Choice::Merge | Choice::Abandon => Err(Error::Erosion(erosion).into()),
                }
            }
            problem @ CliError::Input(_) if self.may_ask() => {
                self.common.out.say(&problem.to_string());
                match ask(&[("edit again", Choice::Again), ABANDON]).await {
                    Choice::Again => Ok(None),
                    _ => Err(problem),
                }
            }
            other => Err(other),
        }
    }

    fn may_ask(&self) -> bool {
        self.args.on_conflict.is_none() && can_ask(self.common.out)
    }

    /// Others were faster: merges where that is wanted and clean, or goes on with both before the editor.
    async fn reconcile(
        &mut self,
        mut conflict: Box<mutext::Conflict>,
        draft: &mut Draft,
    ) -> Result<Option<Ended>, CliError> {
        loop {
            let mine = self.content(draft)?;
            let explanation = self.context.explain(&conflict, Some(&mine)).await?;
            let clean = explanation.merge.as_ref().and_then(mutext::Merge::content);
            let choice = match self.args.on_conflict {
                Some(OnConflict::Merge) if clean.is_some() => Choice::Merge,
                None if can_ask(self.common.out) => self.ask_about(&conflict, &explanation, clean.is_some()).await,
                _ => Choice::Abandon,
            };
            match (choice, clean) {
                (Choice::Merge, Some(merged)) => {
                    let (with, foreign) = (explanation.current.clone(), explanation.diff.clone().unwrap_or_default());
                    let before = std::mem::replace(&mut self.base, explanation.current);
                    match self.write(merged.clone(), true).await {
                        Ok(Ended::Written { revision, .. }) => {
                            let with = with.map_or(revision, |with| with.revision);
                            let merged = mutext::Merged { with, foreign, content: merged };
                            return Ok(Some(Ended::Written { revision, effect: Effected::Merged(Box::new(merged)) }));
                        }
                        Ok(unchanged @ Ended::Unchanged) => return Ok(Some(unchanged)),
                        // Somebody was faster once more: what was typed is still for the revision that it began with.
                        Err(CliError::Library(Error::Conflict(again))) => {
                            self.base = before;
                            let precondition = mutext::Precondition::unchanged(self.base.as_ref());
                            conflict = Box::new(mutext::Conflict { precondition, ..*again });
                        }
                        Err(error) => return Err(error),
                    }
                }
                (Choice::Again, _) => {
                    self.lay_out_both(&mine, explanation, draft)?;
                    return Ok(None);
                }
                (Choice::Write, _) => {
                    // It is gone: what was typed becomes a new document.
                    self.base = None;
                    match self.write(mine, true).await {
                        Ok(ended) => return Ok(Some(ended)),
                        Err(CliError::Library(Error::Conflict(again))) => conflict = again,
                        Err(error) => return Err(error),
                    }
                }
                _ => return Err(CliError::Conflict(Box::new(self.explained(conflict, explanation)))),
            }
        }
    }

    fn explained(&self, conflict: Box<mutext::Conflict>, explanation: Explanation) -> Explained {
        let path = &self.args.path;
        let next = if explanation.merges_cleanly() == Some(true) {
            format!("`mutext edit {path} --on-conflict merge`, or put what you typed into what is there now")
        } else {
            format!("`mutext edit {path}`, and put what you typed into what is there now")
        };
        Explained::new(conflict, explanation, next)
    }

    async fn ask_about(&self, conflict: &mutext::Conflict, explanation: &Explanation, clean: bool) -> Choice {
        let out = self.common.out;
        out.say(&Explained::told(conflict, explanation));
        if explanation.current.is_none() {
            return ask(&[("write it anew", Choice::Write), ABANDON]).await;
        }
        if clean {
            return ask(&[("merge", Choice::Merge), ("edit again with both", Choice::Again), ABANDON]).await;
        }
        ask(&[("edit again with both", Choice::Again), ABANDON]).await
    }

    /// The draft gets both changes, with marks where they contradict each other; what was typed is kept beside it.
    fn lay_out_both(&mut self, mine: &Content, explanation: Explanation, draft: &mut Draft) -> Result<(), CliError> {
        let copy = draft.keep()?;
        let Explanation { current, merge, .. } = explanation;
        let theirs = current.as_ref().map_or_else(|| Content::text(""), |current| current.content.clone());
        let merge = merge.unwrap_or_else(|| mutext_edit::merge(&Content::text(""), mine, &theirs));
        draft.write(&merge.marked(YOURS, BASE, THEIRS))?;
        self.common.out.say(&format!("what you typed before is in {}", copy.display()));
        self.base = current;
        Ok(())
    }

    fn tell(&self, ended: &Ended) -> Result<ExitCode, CliError> {
        let path = &self.args.path;
        let revision = match ended {
            Ended::Unchanged => self.base.as_ref().map(|base| base.revision),
            Ended::Written { revision, .. } => Some(*revision),
        };
        let (word, merged) = match ended {
            Ended::Unchanged | Ended::Written { effect: Effected::Unchanged, .. } => ("unchanged", None),
            Ended::Written { effect: Effected::Merged(merged), .. } => ("merged", Some(merged)),
            Ended::Written { effect: Effected::Created, .. } => ("created", None),
            Ended::Written { .. } => ("written", None),
        };
        let mut answer = json!({ "path": path, "revision": revision, "status": word });
        if let Some(merged) = merged {
            answer["merged_with"] = json!(merged.with);
            answer["foreign"] = json!(merged.foreign);
        }
        self.common.out.answer(&answer, || match (revision, merged) {
            (None, _) => format!("{path} is not created: nothing was typed\n"),
            (Some(revision), Some(merged)) => {
                let (with, foreign) = (merged.with, &merged.foreign);
                format!("{path} is at revision {revision}, merged with revision {with}; others had changed\n{foreign}")
            }
            (Some(revision), None) if word == "unchanged" => format!("{path} stays at revision {revision}\n"),
            (Some(revision), None) => format!("{path} is at revision {revision}\n"),
        })?;
        Ok(Exit::Done.into())
    }
}

const ABANDON: (&str, Choice) = ("abandon (what you typed is kept)", Choice::Abandon);

/// Runs the editor on the draft until it ends.
async fn edit(draft: &Draft, signals: &mut Signals) -> Result<(), CliError> {
    let editor = ["VISUAL", "EDITOR"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|editor| !editor.trim().is_empty()));
    let editor = editor.unwrap_or_else(|| "vi".to_owned());
    // As a shell reads it, so that it may have arguments of its own.
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{editor} \"$@\"")).arg(&editor).arg(draft.file());
    let mut child = command.spawn().map_err(|source| CliError::Command { program: editor.clone(), source })?;
    let pid = child.id();
    let mut told = None;
    let status = loop {
        tokio::select! {
            biased;
            status = child.wait() => break status,
            signal = signals.next() => {
                // An editor makes of Ctrl-C what it likes; another signal is meant for both.
                if !signals::reaches_both(signal) {
                    signals::send(pid, signal);
                }
                if !matches!(signal, Signal::INT | Signal::QUIT) || !signals::reaches_both(signal) {
                    told = Some(signal);
                }
            }
        }
    };
    let status = status.map_err(|source| CliError::Command { program: editor.clone(), source })?;
    match told {
        Some(signal) => {
            Err(signals::interrupted_when(signal, "while the document was in the editor; nothing was written"))
        }
        None if status.success() => Ok(()),
        None => Err(failed(&editor, status)),
    }
}

fn failed(editor: &str, status: ExitStatus) -> CliError {
    let how =
        status.code().map_or_else(|| format!("was ended by {status}"), |code| format!("ended with status {code}"));
    let hint = if status.code() == Some(127) { ": name one that is there in VISUAL or EDITOR" } else { "" };
    CliError::Editor(format!("the editor {editor:?} {how}{hint}; nothing was written"))
}
