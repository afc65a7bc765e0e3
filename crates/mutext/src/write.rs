//! Writing a whole document: only with a word on what it takes the place of, and never over what the writer has not seen.

use std::pin::Pin;

use mutext_contract::{
    Action, Change, Commit, Committed, Conflict, Content, Cursor, Deadline, DocumentPath, Expiry, Fence,
    IdempotencyKey, InvalidName, Kind, Outcome, Precondition, Refusal, Revision,
};
use mutext_edit::Diff;
use serde::Serialize;

use crate::conflict::CleanMerge;
use crate::context::only;
use crate::update::{STALE_AFTER, back_off};
use crate::{Context, Error};

/// A write of a whole document, to be awaited or said more of first. It needs [`Writing::at`], [`Writing::create`] or
/// [`Writing::overwrite`].
///
/// Dropping it, or the future that it becomes, does not stop a write that is under way: it happens or not, and the same
/// write under the same key learns which.
#[derive(Debug)]
#[must_use = "nothing is written until this is awaited"]
pub struct Writing<'a> {
    context: &'a Context,
    path: Result<DocumentPath, InvalidName>,
    content: Content,
    precondition: Option<Precondition>,
    guarded: bool,
    merges: bool,
    message: Option<String>,
    key: Option<IdempotencyKey>,
    expiry: Expiry,
    fence: Option<Fence>,
}

/// A write that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The document's revision with what was written.
    pub revision: Revision,
    /// The commit's place in the context's feed; where nothing was to be changed, the place of the last change before.
    pub cursor: Cursor,
    /// What it did.
    pub effect: Effected,
    /// Whether it had happened before under the same idempotency key, so that this call changed nothing.
    pub replayed: bool,
}

/// What a write did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effected {
    /// There was no document.
    Created,
    /// It took the place of what was there.
    Written,
    /// The document held that already, and keeps its revision.
    Unchanged,
    /// Others had changed the document, and what they changed is kept: both are in it now.
    Merged(Box<Merged>),
    /// It is deleted: what was restored was a deletion.
    Deleted,
}

/// What a write was merged with. That two changes touch different lines does not mean that they make sense together: read
/// what the others changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// The revision that was there.
    pub with: Revision,
    /// What others had changed, from the revision that the write was made for.
    pub foreign: Diff,
    /// What the document holds now.
    pub content: Content,
}

#[derive(Serialize)]
struct Intent<'a> {
    write: &'a str,
    content: &'a str,
    kind: Kind,
    precondition: Precondition,
    merges: bool,
    expiry: String,
    message: Option<&'a str>,
}

impl Context {
    /// Writes `content` as the whole document at `path`: say what it takes the place of, and await it.
    ///
    /// What would drop more than half of the document is refused ([`Error::Erosion`]), unless that is allowed.
    ///
    /// ```
    /// # async fn example(context: &mutext::Context) -> Result<(), mutext::Error> {
    /// let plan = context.write("plan.md", "measure").create().await?;
    /// context.write("plan.md", "measure twice").at(plan.revision).message("to be sure").await?;
    ///
    /// // Made for what is not there any more: a conflict, or a merge, and never a loss.
    /// let late = context.write("plan.md", "measure thrice").at(plan.revision).await;
    /// assert!(matches!(late, Err(mutext::Error::Conflict(_))));
    /// # Ok(())
    /// # }
    /// # let dir = std::env::temp_dir().join(format!("mutext-write-{}", std::process::id()));
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// #     let mutext = mutext::Mutext::open(&mutext::Address::embedded(&dir), None).await.unwrap();
    /// #     let settings = mutext::Settings::new("planner".try_into().unwrap());
    /// #     example(&mutext.context("research-42", settings).unwrap()).await.unwrap();
    /// # });
    /// # std::fs::remove_dir_all(&dir).unwrap();
    /// ```
    pub fn write<P>(&self, path: P, content: impl Into<Content>) -> Writing<'_>
    where
        P: TryInto<DocumentPath>,
        InvalidName: From<P::Error>,
    {
        Writing {
            context: self,
            path: path.try_into().map_err(InvalidName::from),
            content: content.into(),
            precondition: None,
            guarded: true,
            merges: false,
            message: None,
            key: None,
            expiry: Expiry::Keep,
            fence: None,
        }
    }
}

impl Writing<'_> {
    /// In the place of this revision: where another is there, it is a conflict.
    pub const fn at(self, revision: Revision) -> Self {
        self.precondition(Precondition::Exact(revision))
    }

    /// As a new document: where one is there, it is a conflict.
    pub const fn create(self) -> Self {
        self.precondition(Precondition::Absent)
    }

    /// In the place of whatever is there, seen or not; the history says so.
    pub const fn overwrite(self) -> Self {
        self.precondition(Precondition::Any)
    }

    /// The same three in one word.
    pub const fn precondition(mut self, precondition: Precondition) -> Self {
        self.precondition = Some(precondition);
        self
    }

    /// Where others have changed the document since the revision that was named, their changes are kept, if the two do
    /// not touch the same place. Where they do, or where that revision is forgotten, it is a conflict: a merge never
    /// guesses.
    pub const fn merge(mut self) -> Self {
        self.merges = true;
        self
    }

    /// Also where more than half of the document is dropped.
    pub const fn allow_shrink(mut self) -> Self {
        self.guarded = false;
        self
    }

    /// Why, for the history.
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// Names the intention: the same write under the same key happens once, however often it is asked for.
    pub fn key(mut self, key: IdempotencyKey) -> Self {
        self.key = Some(key);
        self
    }

    /// When the document is gone by itself: as it was, unless said otherwise.
    pub const fn expires(mut self, expiry: Expiry) -> Self {
        self.expiry = expiry;
        self
    }

    /// Under a lease that this process may not hold itself: refused where a later holder has been there.
    pub fn under(mut self, fence: Fence) -> Self {
        self.fence = Some(fence);
        self
    }

    /// Writes.
    ///
    /// Errors: [`Error::Conflict`], which carries what is there; [`Error::PreconditionRequired`];
    /// [`Error::Erosion`].
    pub async fn make(self) -> Result<Written, Error> {
        let path = self.path.clone()?;
        let Some(precondition) = self.precondition else {
            let current = self.context.get(path.clone()).await?.map(Box::new);
            return Err(Error::PreconditionRequired { path, current });
        };
        let deadline = self.context.deadline();
        let context = self.context.by(deadline);
        let intent = self.intent(&path, precondition)?;
        // An overwrite does not say what is there: it is looked at, to be able to tell what became of it.
        let before = match precondition {
            Precondition::Any => context.get(path.clone()).await?.map(|document| document.revision),
            Precondition::Exact(revision) => Some(revision),
            Precondition::Absent => None,
        };
        let commit = self.commit(&path, self.content.clone(), precondition, intent);
        match context.try_commit(commit.clone()).await? {
            Outcome::Committed(committed) => Ok(written(&committed, before)),
            Outcome::Refused(Refusal::Conflict(conflict)) => self.after(&context, commit, conflict, deadline).await,
            Outcome::Refused(refusal) => Err(context.refused_by(self.fence.as_ref(), refusal).await),
        }
    }

    /// Somebody was faster: perhaps with the very same, perhaps with something that this can be merged with.
    async fn after(
        &self,
        context: &Context,
        mut commit: Commit,
        mut conflict: Box<Conflict>,
        deadline: Deadline,
    ) -> Result<Written, Error> {
        let first = conflict.precondition;
        for attempts in 1.. {
            let Some(current) = &conflict.current else { break };
            let before = current.revision;
            let merged = match first {
                _ if current.content == self.content => None,
                Precondition::Exact(base) if self.merges => {
                    let Some(merged) = context.merged(base, &self.content, current).await? else { break };
                    Some(merged)
                }
                _ => break,
            };
            if let Some(change) = commit.changes.first_mut() {
                let content = merged.as_ref().map_or(&self.content, |merged| &merged.content);
                (change.precondition, change.action) = (Precondition::Exact(before), Action::Put(content.clone()));
            }
            match context.try_commit(commit.clone()).await? {
                Outcome::Committed(committed) => {
                    let mut written = written(&committed, Some(before));
                    if let (Some(merged), Effected::Written, false) = (merged, &written.effect, written.replayed) {
                        let CleanMerge { content, foreign } = merged;
                        written.effect = Effected::Merged(Box::new(Merged { with: before, foreign, content }));
                    }
                    return Ok(written);
                }
                Outcome::Refused(Refusal::Conflict(again)) => conflict = again,
                Outcome::Refused(refusal) => return Err(context.refused_by(self.fence.as_ref(), refusal).await),
            }
            if deadline.has_passed() {
                break;
            }
            if back_off(attempts, deadline).await > STALE_AFTER {
                conflict.current = context.get_by(&conflict.path, deadline).await?;
            }
        }
        // What the caller asked for failed, not one of the attempts to make the best of it.
        conflict.precondition = first;
        Err(Error::Conflict(conflict))
    }

    /// What is intended is told by the first attempt, whatever the last one writes.
    fn intent(&self, path: &DocumentPath, precondition: Precondition) -> Result<Option<String>, Error> {
        if self.key.is_none() {
            return Ok(None);
        }
        let intent = Intent {
            write: path.as_str(),
            content: self.content.as_str(),
            kind: self.content.kind(),
            precondition,
            merges: self.merges,
            expiry: format!("{:?}", self.expiry),
            message: self.message.as_deref(),
        };
        Ok(Some(serde_json::to_string(&intent).map_err(mutext_contract::InvalidJson::from)?))
    }

    fn commit(
        &self,
        path: &DocumentPath,
        content: Content,
        precondition: Precondition,
        intent: Option<String>,
    ) -> Commit {
        let mut commit = Commit::new(self.context.agent().clone());
        let mut change = Change::new(path.clone(), precondition, Action::Put(content));
        (change.guarded, change.expiry) = (self.guarded, self.expiry);
        commit.changes.push(change);
        commit.message.clone_from(&self.message);
        commit.key.clone_from(&self.key);
        commit.intent = intent;
        commit.fence.clone_from(&self.fence);
        commit
    }
}

impl Written {
    pub(crate) fn deleted(committed: &Committed) -> Self {
        let (revision, replayed) = (only(committed), committed.replayed);
        Self { revision, cursor: committed.cursor, effect: Effected::Deleted, replayed }
    }
}

fn written(committed: &Committed, before: Option<Revision>) -> Written {
    let revision = only(committed);
    let effect = match before {
        None => Effected::Created,
        Some(before) if before == revision && !committed.replayed => Effected::Unchanged,
        Some(_) => Effected::Written,
    };
    Written { revision, cursor: committed.cursor, effect, replayed: committed.replayed }
}

impl<'a> IntoFuture for Writing<'a> {
    type Output = Result<Written, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.make())
    }
}
