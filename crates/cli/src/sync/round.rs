//! One round: a look at both sides, a plan, and its actions one by one, until both are alike.
//!
//! Each action is checked where it happens, by the document's revision and by the file's content. What has changed since
//! the look is left to the next pass. The base of a document moves only once both sides hold the same; so a round that
//! is killed anywhere is simply made again.

use std::collections::BTreeMap;

use mutext::{Commit, Content, Context, Document, DocumentPath, Error, Kind, PathPrefix, Precondition, Revision};

use super::digest::Digest;
use super::folder::{FileError, Folder, Known, Look, is_unfit};
use super::plan::{self, Action, Base, Why};
use super::state::State;
use crate::config::Common;
use crate::error::CliError;
use crate::inherited::Inherited;

/// What was done for one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Done {
    Uploaded(Revision, Why),
    Downloaded(Revision, Why),
    DocumentDeleted(Revision),
    FileDeleted,
    /// Two changes were put together.
    Merged(Revision),
    /// Two changes contradict each other: the file holds the document now, and the copy what was in the file.
    BothKept {
        revision: Revision,
        author: String,
        copy: String,
    },
}

/// What a round has done, and what it has not.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) done: Vec<(DocumentPath, Done)>,
    /// What is not synchronised, and why.
    pub(super) left: BTreeMap<String, String>,
    /// Copies that wait for somebody, those of this round among them.
    pub(super) copies: Vec<String>,
    /// Links and the like.
    pub(super) ignored: Vec<String>,
    /// How many documents and files are alike now.
    pub(super) alike: usize,
}

/// How a round is made.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) allow_shrink: bool,
    pub(super) allow_deletions: bool,
    pub(super) message: String,
}

/// A folder and a context that are kept alike.
pub(super) struct Pair<'a> {
    pub(super) common: &'a Common,
    pub(super) context: &'a Context,
    pub(super) folder: Folder,
    pub(super) state: State,
    pub(super) known: Known,
    pub(super) terms: Terms,
}

/// How one action ended.
enum Step {
    Done(Option<Done>),
    /// One of the two has changed since the look.
    Again,
    /// It cannot be done; why.
    Left(String),
}

impl From<FileError> for Step {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Changed => Self::Again,
            other => Self::Left(other.to_string()),
        }
    }
}

/// What the context has: revisions, and what they are.
type Documents = BTreeMap<DocumentPath, (Revision, Kind)>;

impl Pair<'_> {
    /// Somebody who writes faster than we look is met this often.
    const PASSES: usize = 5;
    /// Fewer deletions than this are nobody's accident.
    const DELETIONS_MIN: usize = 5;

    /// What would be done.
    pub(super) async fn look(&mut self) -> Result<(Vec<(DocumentPath, Action)>, Documents, Look), CliError> {
        let mut look = self.folder.look(&mut self.known).map_err(|error| self.trouble("be looked through", error))?;
        let mut documents = Documents::new();
        for entry in self.context.list(PathPrefix::all()).await? {
            if is_unfit(&entry.path) {
                let why = "the folder keeps names that begin with a dot, and copies of conflicts, to itself";
                look.left.insert(entry.path.to_string(), format!("{why}; the document stays in the context"));
            } else {
                documents.insert(entry.path, (entry.revision, entry.kind));
            }
        }
        let fits = |path: &DocumentPath| !look.hides(path);
        let revisions = documents.iter().filter(|(path, _)| fits(path));
        let revisions = revisions.map(|(path, (revision, _))| (path.clone(), *revision)).collect();
        let bases = self.state.bases.iter().filter(|(path, _)| fits(path));
        let bases = bases.map(|(path, base)| (path.clone(), *base)).collect();
        Ok((plan::plan(&look.files, &revisions, &bases), documents, look))
    }

    /// Makes both sides alike, telling of each thing done.
    pub(super) async fn make(&mut self, mut tell: impl FnMut(&DocumentPath, &Done)) -> Result<Report, CliError> {
        let mut report = Report::default();
        for pass in 0..Self::PASSES {
            let (actions, documents, look) = self.look().await?;
            if pass == 0 {
                self.refuse_to_empty(&actions)?;
            }
            (report.left, report.copies, report.ignored) = (look.left, look.copies, look.ignored);
            let mut again = false;
            for (path, action) in actions {
                match self.act(&path, action, &documents).await? {
                    Step::Done(None) => {}
                    Step::Done(Some(done)) => {
                        tell(&path, &done);
                        report.done.push((path, done));
                    }
                    Step::Left(why) => _ = report.left.insert(path.to_string(), why),
                    Step::Again => {
                        again = true;
                        let why = "it keeps changing; the next sync sees to it";
                        report.left.insert(path.to_string(), why.to_owned());
                    }
                }
            }
            if !again {
                break;
            }
        }
        let kept = report.done.iter().filter_map(|(_, done)| match done {
            Done::BothKept { copy, .. } => Some(copy.clone()),
            _ => None,
        });
        report.copies.extend(kept);
        report.copies.sort_unstable();
        report.copies.dedup();
        report.alike = self.state.bases.len();
        Ok(report)
    }

    /// Writes down what is alike by now.
    pub(super) fn save(&self) -> Result<(), CliError> {
        self.state.write(&self.folder).map_err(|error| self.trouble("keep its state", error))
    }

    fn trouble(&self, what: &str, error: FileError) -> CliError {
        let source = match error {
            FileError::Io(source) => source,
            other => std::io::Error::other(other),
        };
        CliError::Io {
            what: format!("folder {} cannot {what}", self.folder.path().display()),
            remedy: "name a folder that can be read and written",
            source,
        }
    }

    /// A folder that was emptied, or a context that is not the one that it was, is an accident more often than a wish.
    fn refuse_to_empty(&self, actions: &[(DocumentPath, Action)]) -> Result<(), CliError> {
        let (deletions, known) = (plan::deletions(actions), self.state.bases.len());
        if self.terms.allow_deletions || deletions < Self::DELETIONS_MIN || deletions * 2 <= known {
            return Ok(());
        }
        let (folder, context) = (self.folder.path().display(), self.context.name());
        Err(CliError::input(format!(
            "{deletions} of the {known} documents that {folder} and context {context} had in common are gone from one \
             of the two, and would be deleted in the other: if that is meant, say --allow-deletions (--dry-run shows \
             which); nothing was changed"
        )))
    }

    async fn act(&mut self, path: &DocumentPath, action: Action, documents: &Documents) -> Result<Step, CliError> {
        match action {
            Action::Forget => {
                self.state.bases.remove(path);
                Ok(Step::Done(None))
            }
            Action::DeleteDocument { at } => {
                let commit = self.commit().delete(path.clone(), Precondition::Exact(at));
                let step = self.write(path, commit).await?;
                Ok(step.map_or_else(
                    |step| step,
                    |revision| {
                        self.state.bases.remove(path);
                        Step::Done(Some(Done::DocumentDeleted(revision)))
                    },
                ))
            }
            Action::DeleteFile { was } => Ok(match self.folder.delete(path, was) {
                Ok(()) => {
                    self.state.bases.remove(path);
                    Step::Done(Some(Done::FileDeleted))
                }
                Err(error) => error.into(),
            }),
            Action::Upload { file, over, why } => {
                let kind = documents.get(path).filter(|_| over.is_some()).map(|(_, kind)| *kind);
                self.upload(path, file, over, kind, why).await
            }
            Action::Download { over, why, .. } => self.download(path, over, why).await,
            Action::Compare { file, base, .. } => self.compare(path, file, base).await,
        }
    }

    fn commit(&self) -> Commit {
        Commit::new(self.common.agent.clone()).message(self.terms.message.clone())
    }

    /// Commits, under the surrounding lock where that covers it: the new revision, or how else it ended.
    async fn write(&self, path: &DocumentPath, mut commit: Commit) -> Result<Result<Revision, Step>, CliError> {
        if !self.terms.allow_shrink {
            commit = commit.guarded();
        }
        if let Some(fence) = Inherited::covering(path, self.common)? {
            commit = commit.fenced_by(fence);
        }
        Ok(match self.context.commit(commit).await {
            Ok(committed) => match committed.revisions.first() {
                Some((_, revision)) => Ok(*revision),
                None => Err(Step::Again),
            },
            Err(Error::Conflict(_)) => Err(Step::Again),
            Err(Error::Erosion(erosion)) => {
                Err(Step::Left(format!("{erosion}: say --allow-shrink if that is meant; the document is as it was")))
            }
            Err(error @ Error::TooLarge { .. }) => Err(Step::Left(error.to_string())),
            Err(error) => return Err(error.into()),
        })
    }

    async fn upload(
        &mut self,
        path: &DocumentPath,
        file: Digest,
        over: Option<Revision>,
        kind: Option<Kind>,
        why: Why,
    ) -> Result<Step, CliError> {
        let text = match self.folder.read(path) {
            Ok(text) if Digest::of(&text) == file => text,
            Ok(_) => return Ok(Step::Again),
            Err(error) => return Ok(error.into()),
        };
        let content = match content(path, text, kind) {
            Ok(content) => content,
            Err(why) => return Ok(Step::Left(why)),
        };
        let precondition = over.map_or(Precondition::Absent, Precondition::Exact);
        let commit = self.commit().put(path.clone(), content, precondition);
        Ok(match self.write(path, commit).await? {
            Ok(revision) => {
                self.state.bases.insert(path.clone(), Base { revision, digest: file });
                Step::Done(Some(Done::Uploaded(revision, why)))
            }
            Err(step) => step,
        })
    }

    async fn download(&mut self, path: &DocumentPath, over: Option<Digest>, why: Why) -> Result<Step, CliError> {
        let Some(document) = self.context.get(path.clone()).await? else { return Ok(Step::Again) };
        if let Err(step) = self.put_into_folder(&document, over) {
            return Ok(step);
        }
        Ok(Step::Done(Some(Done::Downloaded(document.revision, why))))
    }

    /// The file holds the document from now on, and both are alike.
    fn put_into_folder(&mut self, document: &Document, over: Option<Digest>) -> Result<(), Step> {
        let Document { path, revision, content, .. } = document;
        let limit = self.common.document_bytes_max;
        if content.size() > limit {
            return Err(FileError::TooLarge(limit).into());
        }
        self.folder.write(path, over, content.as_str())?;
        let base = Base { revision: *revision, digest: Digest::of(content.as_str()) };
        self.state.bases.insert(path.clone(), base);
        Ok(())
    }

    /// Both have changed: they are the same by now, or are merged, or both kept.
    async fn compare(&mut self, path: &DocumentPath, file: Digest, base: Option<Base>) -> Result<Step, CliError> {
        let Some(mut document) = self.context.get(path.clone()).await? else { return Ok(Step::Again) };
        let text = match self.folder.read(path) {
            Ok(text) if Digest::of(&text) == file => text,
            Ok(_) => return Ok(Step::Again),
            Err(error) => return Ok(error.into()),
        };
        if text == document.content.as_str() {
            self.state.bases.insert(path.clone(), Base { revision: document.revision, digest: file });
            return Ok(Step::Done(None));
        }
        let own = match content(path, text, Some(document.content.kind())) {
            Ok(content) => content,
            Err(why) => return Ok(Step::Left(why)),
        };
        let merged = match self.content_of(path, base).await? {
            Some(base) => mutext_edit::merge(&base, &own, &document.content).content(),
            None => None,
        };
        let Some(merged) = merged else { return Ok(self.keep_both(&own, &document, file)) };
        if merged != document.content {
            let commit = self.commit().put(path.clone(), merged.clone(), Precondition::Exact(document.revision));
            document.revision = match self.write(path, commit).await? {
                Ok(revision) => revision,
                Err(step) => return Ok(step),
            };
            document.content = merged;
        }
        Ok(match self.put_into_folder(&document, Some(file)) {
            Ok(()) => Step::Done(Some(Done::Merged(document.revision))),
            Err(step) => step,
        })
    }

    fn keep_both(&mut self, own: &Content, document: &Document, file: Digest) -> Step {
        let Document { path, revision, author, .. } = document;
        let copy = match self.folder.keep_beside(path, own.as_str(), revision.0) {
            Ok(copy) => copy,
            Err(error) => return error.into(),
        };
        match self.put_into_folder(document, Some(file)) {
            Ok(()) => Step::Done(Some(Done::BothKept { revision: *revision, author: author.to_string(), copy })),
            Err(step) => step,
        }
    }

    /// What both held when they were last alike, as far as the history still has it, and has it as it was.
    async fn content_of(&self, path: &DocumentPath, base: Option<Base>) -> Result<Option<Content>, CliError> {
        let Some(Base { revision, digest }) = base else { return Ok(None) };
        let before = revision.0.checked_add(1).map(Revision);
        let past = self.context.history(path.clone(), before, 1).await?.into_iter().next();
        let content = past.filter(|past| past.revision == revision).and_then(|past| past.content);
        Ok(content.filter(|content| Digest::of(content.as_str()) == digest))
    }
}

/// A file's text as its document holds it: as that is, or else by its name.
fn content(path: &DocumentPath, text: String, kind: Option<Kind>) -> Result<Content, String> {
    match kind.unwrap_or_else(|| crate::input::kind_of(path)) {
        Kind::Text => Ok(Content::text(text)),
        Kind::Json => Content::parse_json(text).map_err(|error| format!("{error}; correct it")),
    }
}
