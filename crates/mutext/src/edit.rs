//! Editing a document by what changes: operations, which are made again on what is there now, never snapshots.

use std::future::{Ready, ready};
use std::pin::Pin;
use std::time::Duration;

use mutext_contract::{
    Action, Change, Commit, Content, Cursor, Deadline, Document, DocumentPath, Expiry, Fence, IdempotencyKey,
    InvalidName, Outcome, Precondition, Revision, Wait,
};
use mutext_edit::{Edit, apply_all};
use serde::Serialize;

use crate::context::{only, refused};
use crate::update::Wording;
use crate::{Context, Error, LockGuard, Strategy, UpdateOptions, Updated};

/// Edits of one document, to be awaited or said more of first.
///
/// They are made on what is there now, all or none; again, should somebody have been faster, until the deadline. An edit
/// that does not fit what is there is an error that shows what is ([`Error::EditFailed`]).
///
/// Dropping it, or the future that it becomes, stops the attempts; a write that was under way happens or not, and the same
/// edits under the same key learn which.
#[derive(Debug)]
#[must_use = "nothing is edited until this is awaited"]
pub struct Editing<'a> {
    context: &'a Context,
    path: Result<DocumentPath, InvalidName>,
    edits: Vec<Edit>,
    at: Option<Revision>,
    options: UpdateOptions,
    key: Option<IdempotencyKey>,
    expiry: Expiry,
    through: Through<'a>,
}

/// Under which lease edits are made.
#[derive(Debug)]
enum Through<'a> {
    /// As the strategy says.
    Strategy,
    /// One that this process holds.
    Guard(&'a LockGuard),
    /// One that it may not hold itself.
    Fence(Fence),
}

/// Edits that were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The document's revision with the edits.
    pub revision: Revision,
    /// The commit's place in the context's feed; where nothing was to be changed, the place of the last change before.
    pub cursor: Cursor,
    /// The revision that the edits were made on; `None` where there was no document.
    pub base: Option<Revision>,
    /// Whether the document held already what the edits make of it, so that it keeps its revision.
    pub unchanged: bool,
    /// Whether they had been made before under the same idempotency key, so that this call changed nothing.
    pub replayed: bool,
    /// How many attempts it took.
    pub attempts: u32,
    /// What the document held before; `None` where there was none, and where the edits were replayed.
    pub before: Option<Content>,
    /// What the edits made of it; `None` where they were replayed: more may have happened since.
    pub content: Option<Content>,
}

impl Context {
    /// Makes `edits` of the document at `path`, on what is there now: await it, or adjust it first.
    ///
    /// ```
    /// # async fn example(context: &mutext::Context) -> Result<(), mutext::Error> {
    /// use mutext::Edit;
    ///
    /// let logged = context.edit("log.md", [Edit::Append { text: "read the paper".into() }]).await?;
    /// let edits = [Edit::Replace { old: "the paper".into(), new: "both papers".into(), which: mutext::Which::Only }];
    /// let edited = context.edit("log.md", edits).message("there were two").await?;
    /// assert_eq!((logged.revision.0, edited.revision.0), (1, 2));
    /// # Ok(())
    /// # }
    /// # let dir = std::env::temp_dir().join(format!("mutext-edit-{}", std::process::id()));
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// #     let mutext = mutext::Mutext::open(&mutext::Address::embedded(&dir), None).await.unwrap();
    /// #     let settings = mutext::Settings::new("planner".try_into().unwrap());
    /// #     example(&mutext.context("research-42", settings).unwrap()).await.unwrap();
    /// # });
    /// # std::fs::remove_dir_all(&dir).unwrap();
    /// ```
    pub fn edit<P>(&self, path: P, edits: impl IntoIterator<Item = Edit>) -> Editing<'_>
    where
        P: TryInto<DocumentPath>,
        InvalidName: From<P::Error>,
    {
        let settings = self.settings();
        // Whoever edits wants it made, and does not mind how long others take. Half of its patience is left for making
        // it without a lock, where the lock service is away.
        let wait = Wait::new((settings.patience / 2).clamp(Wait::MIN, Wait::MAX)).unwrap_or(settings.wait);
        let strategy = Strategy::Adaptive { ttl: settings.ttl, wait };
        Editing {
            context: self,
            path: path.try_into().map_err(InvalidName::from),
            edits: edits.into_iter().collect(),
            at: None,
            options: UpdateOptions { strategy, patience: settings.patience, message: None },
            key: None,
            expiry: Expiry::Keep,
            through: Through::Strategy,
        }
    }

    /// What is there, read under a lease or without.
    pub(crate) async fn get_for(&self, path: &DocumentPath, fence: Option<&Fence>) -> Result<Option<Document>, Error> {
        match fence {
            Some(fence) => self.get_under(path.as_str(), fence).await,
            None => self.get_by(path, self.deadline()).await,
        }
    }
}

impl LockGuard {
    /// Makes `edits` of the document at `path`, under this lease: await it, or adjust it first. Should somebody write
    /// past the lock, they are made again on what is there then.
    ///
    /// Errors as [`Editing::make`] does, with [`Error::LeaseLost`] where the lease has passed on, and with
    /// [`Error::NotCovered`] outside its resources.
    pub fn edit<P>(&self, path: P, edits: impl IntoIterator<Item = Edit>) -> Editing<'_>
    where
        P: TryInto<DocumentPath>,
        InvalidName: From<P::Error>,
    {
        let editing = self.context().edit(path, edits);
        Editing { through: Through::Guard(self), ..editing }
    }
}

/// What names the intention of edits, where they have an idempotency key.
#[derive(Serialize)]
struct Intent<'a> {
    edit: &'a str,
    edits: &'a [Edit],
    at: Option<Revision>,
    expiry: String,
    message: Option<&'a str>,
}

impl Editing<'_> {
    /// Why, for the history.
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.options.message = Some(message.into());
        self
    }

    /// Names the intention: the same edits under the same key are made once, however often they are asked for.
    pub fn key(mut self, key: IdempotencyKey) -> Self {
        self.key = Some(key);
        self
    }

    /// How others are kept from being written over: [`Strategy::Adaptive`] unless said otherwise.
    pub const fn strategy(mut self, strategy: Strategy) -> Self {
        self.options.strategy = strategy;
        self
    }

    /// Until when attempts are made, counted from the call: the context's patience unless said otherwise.
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.options.patience = patience;
        self
    }

    /// When the document is gone by itself: as it was, unless said otherwise.
    pub const fn expires(mut self, expiry: Expiry) -> Self {
        self.expiry = expiry;
        self
    }

    /// Only on this revision: where another is there, it is a conflict, and nothing is tried again.
    pub const fn at(mut self, revision: Revision) -> Self {
        self.at = Some(revision);
        self
    }

    /// Under a lease that this process may not hold itself: refused where a later holder has been there.
    pub fn under(mut self, fence: Fence) -> Self {
        self.through = Through::Fence(fence);
        self
    }

    /// Makes the edits.
    ///
    /// Errors: [`Error::EditFailed`] where one does not fit what is there, [`Error::Conflict`] where another revision
    /// is there than was named, [`Error::RetriesExhausted`] at the deadline.
    pub async fn make(self) -> Result<Edited, Error> {
        let path = self.path.clone()?;
        let wording = Wording { key: self.key.clone(), intent: self.intent(&path)?, expiry: self.expiry };
        match self.attempt(&path, &wording).await {
            // They may have been made long ago, and do not fit a second time for that very reason.
            Err(Error::Engine(trouble)) => Err(Error::Engine(trouble)),
            Err(error) if self.key.is_some() => self.made_before(path, wording).await?.ok_or(error),
            answer => answer,
        }
    }

    fn intent(&self, path: &DocumentPath) -> Result<Option<String>, Error> {
        if self.key.is_none() {
            return Ok(None);
        }
        let intent = Intent {
            edit: path.as_str(),
            edits: &self.edits,
            at: self.at,
            expiry: format!("{:?}", self.expiry),
            message: self.options.message.as_deref(),
        };
        Ok(Some(serde_json::to_string(&intent).map_err(mutext_contract::InvalidJson::from)?))
    }

    async fn attempt(&self, path: &DocumentPath, wording: &Wording) -> Result<Edited, Error> {
        let mut latest = (None, None);
        let change = |document: Option<Document>| {
            let edited = self.applied(path, document.as_ref());
            latest = (document.map(|document| document.content), edited.as_ref().ok().cloned());
            ready(edited)
        };
        let updated = match &self.through {
            Through::Strategy => self.context.update_as(path.clone(), &self.options, wording, change).await?,
            through => self.under_lease(through, path, wording, change).await?,
        };
        let (before, content) = if updated.replayed { (None, None) } else { latest };
        Ok(Edited {
            revision: updated.revision,
            cursor: updated.cursor,
            base: updated.base,
            unchanged: !updated.replayed && updated.base == Some(updated.revision),
            replayed: updated.replayed,
            attempts: updated.attempts,
            before,
            content,
        })
    }

    /// The same under a lease that is held already; only those without the lock can be faster.
    async fn under_lease(
        &self,
        through: &Through<'_>,
        path: &DocumentPath,
        wording: &Wording,
        mut change: impl FnMut(Option<Document>) -> Ready<Result<Content, Error>>,
    ) -> Result<Updated, Error> {
        let deadline = Deadline::after(self.options.patience);
        let context = self.context.by(deadline);
        let mut attempts = 0;
        loop {
            attempts += 1;
            let document = match through {
                Through::Guard(guard) => guard.get(path.as_str()).await?,
                Through::Fence(fence) => context.get_under(path.as_str(), fence).await?,
                Through::Strategy => context.get_by(path, deadline).await?,
            };
            let base = document.as_ref().map(|document| document.revision);
            let precondition = Precondition::unchanged(document.as_ref());
            let content = change(document).await?;
            let mut commit = Commit::new(self.context.agent().clone()).put(path.clone(), content, precondition);
            commit.message.clone_from(&self.options.message);
            wording.told_of(&mut commit);
            let outcome = match through {
                Through::Guard(guard) => guard.commit_through(&context, commit).await,
                Through::Fence(fence) => context.commit(commit.fenced_by(fence.clone())).await,
                Through::Strategy => context.commit(commit).await,
            };
            let conflict = match outcome {
                Ok(committed) => return Ok(Updated::without_wait(&committed, base, attempts)),
                Err(Error::Conflict(conflict)) => conflict,
                Err(error) => return Err(error),
            };
            if deadline.has_passed() {
                let (limit, last) = (self.options.patience, Box::new(Error::Conflict(conflict)));
                return Err(Error::RetriesExhausted { path: path.clone(), attempts, limit, last });
            }
        }
    }

    fn applied(&self, path: &DocumentPath, document: Option<&Document>) -> Result<Content, Error> {
        applied(&self.edits, path, document, self.at)
    }

    /// What the same edits did under the same key; nothing, where they were never made.
    async fn made_before(&self, path: DocumentPath, wording: Wording) -> Result<Option<Edited>, Error> {
        // No document ever stands at revision 0: this writes nothing, and the key is looked at first.
        let never = Precondition::Exact(Revision(0));
        let mut commit = Commit::new(self.context.agent().clone());
        commit.changes.push(Change::new(path, never, Action::Put(Content::text(""))));
        commit.message.clone_from(&self.options.message);
        wording.told_of(&mut commit);
        match self.context.try_commit(commit).await? {
            Outcome::Committed(committed) => Ok(Some(Edited {
                revision: only(&committed),
                cursor: committed.cursor,
                base: None,
                unchanged: false,
                replayed: true,
                attempts: 1,
                before: None,
                content: None,
            })),
            Outcome::Refused(refusal) => match refused(refusal) {
                Error::Conflict(_) => Ok(None),
                error => Err(error),
            },
        }
    }
}

/// The content after `edits`; where they do not fit, what is there is in the error.
pub(crate) fn applied(
    edits: &[Edit],
    path: &DocumentPath,
    document: Option<&Document>,
    at: Option<Revision>,
) -> Result<Content, Error> {
    if let Some(revision) = at.filter(|at| document.is_none_or(|document| document.revision != *at)) {
        let (precondition, current) = (Precondition::Exact(revision), document.cloned());
        let conflict = mutext_contract::Conflict { path: path.clone(), precondition, current };
        return Err(Error::Conflict(Box::new(conflict)));
    }
    let edited = apply_all(edits, document.map(|document| &document.content));
    edited.map_err(|failed| Error::EditFailed {
        path: path.clone(),
        failed: Box::new(failed),
        current: document.cloned().map(Box::new),
    })
}

impl<'a> IntoFuture for Editing<'a> {
    type Output = Result<Edited, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.make())
    }
}
