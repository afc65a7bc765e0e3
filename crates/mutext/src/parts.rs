//! Several documents at once, all or none, where each part may be a whole document, a deletion, or edits.

use std::collections::HashMap;
use std::pin::Pin;

use mutext_contract::{
    Action, Change, Commit, Content, Cursor, Document, DocumentPath, Expiry, Fence, IdempotencyKey, Outcome,
    Precondition, Refusal, Revision,
};
use mutext_edit::Edit;
use serde::Serialize;

use crate::edit::applied;
use crate::update::{STALE_AFTER, back_off};
use crate::{Context, Error};

/// One document's part in a commit of several.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Which document.
    pub path: DocumentPath,
    /// What happens to it.
    pub doing: Doing,
    /// What must hold for it. A whole document and a deletion need a word on that; edits are made on what is there.
    pub precondition: Option<Precondition>,
    /// When it is gone by itself.
    pub expiry: Expiry,
    /// Whether a whole document may drop more than half of what is there.
    pub may_shrink: bool,
}

/// What happens to one of several documents.
#[derive(Debug, Clone, PartialEq)]
pub enum Doing {
    /// It holds this from now on.
    Put(Content),
    /// It is gone; its history stays.
    Delete,
    /// It is edited.
    Edit(Vec<Edit>),
}

/// Changes of several documents, to be awaited or said more of first.
///
/// Where somebody is faster with a document that is only edited, all is made again on what is there then, until the
/// deadline; what names a revision is never tried again.
#[derive(Debug)]
#[must_use = "nothing is changed until this is awaited"]
pub struct Changes<'a> {
    context: &'a Context,
    parts: Vec<Part>,
    message: Option<String>,
    key: Option<IdempotencyKey>,
    fence: Option<Fence>,
}

/// Changes that were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The commit's place in the context's feed; where nothing was to be changed, the place of the last change before.
    pub cursor: Cursor,
    /// At which revision each document stands now, in the order of the parts.
    pub revisions: Vec<(DocumentPath, Revision)>,
    /// Whether they had been made before under the same idempotency key, so that this call changed nothing.
    pub replayed: bool,
    /// How many attempts it took.
    pub attempts: u32,
}

impl Part {
    const fn new(path: DocumentPath, doing: Doing) -> Self {
        Self { path, doing, precondition: None, expiry: Expiry::Keep, may_shrink: false }
    }

    /// The document at `path` holds `content` from now on; say what it takes the place of.
    pub const fn put(path: DocumentPath, content: Content) -> Self {
        Self::new(path, Doing::Put(content))
    }

    /// The document at `path` is deleted; say at which revision.
    pub const fn delete(path: DocumentPath) -> Self {
        Self::new(path, Doing::Delete)
    }

    /// The document at `path` is edited, as it is then.
    pub fn edit(path: DocumentPath, edits: impl IntoIterator<Item = Edit>) -> Self {
        Self::new(path, Doing::Edit(edits.into_iter().collect()))
    }

    /// Where this holds.
    #[must_use]
    pub const fn precondition(mut self, precondition: Precondition) -> Self {
        self.precondition = Some(precondition);
        self
    }

    /// Where it stands at this revision.
    #[must_use]
    pub const fn at(self, revision: Revision) -> Self {
        self.precondition(Precondition::Exact(revision))
    }

    /// Where there is none.
    #[must_use]
    pub const fn create(self) -> Self {
        self.precondition(Precondition::Absent)
    }

    /// Whatever is there, seen or not; the history says so.
    #[must_use]
    pub const fn overwrite(self) -> Self {
        self.precondition(Precondition::Any)
    }

    /// When it is gone by itself: as it was, unless said otherwise.
    #[must_use]
    pub const fn expires(mut self, expiry: Expiry) -> Self {
        self.expiry = expiry;
        self
    }

    /// Also where more than half of it is dropped.
    #[must_use]
    pub const fn allow_shrink(mut self) -> Self {
        self.may_shrink = true;
        self
    }

    /// Whether it is made again on what is there, where somebody was faster.
    const fn is_retried(&self) -> bool {
        matches!(self.doing, Doing::Edit(_)) && matches!(self.precondition, None | Some(Precondition::Any))
    }
}

#[derive(Serialize)]
struct Intent<'a> {
    changes: Vec<IntentPart<'a>>,
    message: Option<&'a str>,
}

#[derive(Serialize)]
struct IntentPart<'a> {
    path: &'a str,
    put: Option<(mutext_contract::Kind, &'a str)>,
    edits: Option<&'a [Edit]>,
    precondition: Option<Precondition>,
    expiry: String,
}

impl Context {
    /// Changes several documents at once, all or none, under one message: await it, or adjust it first.
    ///
    /// ```
    /// # async fn example(context: &mutext::Context) -> Result<(), mutext::Error> {
    /// use mutext::{Edit, Part};
    ///
    /// let task = context.write("tasks/17", "open").create().await?.revision;
    /// let done = Edit::Append { text: "task 17 is done".into() };
    /// let parts = [
    ///     Part::delete("tasks/17".try_into()?).at(task),
    ///     Part::edit("log.md".try_into()?, [done]),
    /// ];
    /// let changed = context.change_all(parts).message("finished").await?;
    /// assert_eq!(changed.revisions.len(), 2);
    /// # Ok(())
    /// # }
    /// # let dir = std::env::temp_dir().join(format!("mutext-parts-{}", std::process::id()));
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// #     let mutext = mutext::Mutext::open(&mutext::Address::embedded(&dir), None).await.unwrap();
    /// #     let settings = mutext::Settings::new("planner".try_into().unwrap());
    /// #     example(&mutext.context("research-42", settings).unwrap()).await.unwrap();
    /// # });
    /// # std::fs::remove_dir_all(&dir).unwrap();
    /// ```
    pub fn change_all(&self, parts: impl IntoIterator<Item = Part>) -> Changes<'_> {
        Changes { context: self, parts: parts.into_iter().collect(), message: None, key: None, fence: None }
    }
}

impl Changes<'_> {
    /// Why, for the history.
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// Names the intention: the same changes under the same key are made once, however often they are asked for.
    pub fn key(mut self, key: IdempotencyKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Under a lease that this process may not hold itself: refused where a later holder has been there. It must cover
    /// every document.
    pub fn under(mut self, fence: Fence) -> Self {
        self.fence = Some(fence);
        self
    }

    /// Makes them.
    ///
    /// Errors: [`Error::Conflict`] for the first part whose precondition fails, [`Error::EditFailed`],
    /// [`Error::PreconditionRequired`], [`Error::Erosion`], [`Error::RetriesExhausted`] at the deadline.
    pub async fn make(self) -> Result<Changed, Error> {
        let deadline = self.context.deadline();
        let context = self.context.by(deadline);
        let intent = self.intent()?;
        let mut known: HashMap<DocumentPath, Option<Document>> = HashMap::new();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let commit = match self.commit(&context, &mut known, intent.clone()).await {
                Ok(commit) => commit,
                Err(Error::Engine(trouble)) => return Err(Error::Engine(trouble)),
                Err(error) if self.key.is_some() => return self.made_before(&context, intent).await?.ok_or(error),
                Err(error) => return Err(error),
            };
            let conflict = match context.try_commit(commit).await? {
                Outcome::Committed(mutext_contract::Committed { cursor, revisions, replayed }) => {
                    return Ok(Changed { cursor, revisions, replayed, attempts });
                }
                Outcome::Refused(Refusal::Conflict(conflict)) => conflict,
                Outcome::Refused(refusal) => return Err(context.refused_by(self.fence.as_ref(), refusal).await),
            };
            let path = conflict.path.clone();
            let is_retried = self.parts.iter().any(|part| part.path == path && part.is_retried());
            if !is_retried {
                return Err(Error::Conflict(conflict));
            }
            known.insert(path.clone(), conflict.current.clone());
            if deadline.has_passed() {
                let (limit, last) = (context.settings().patience, Box::new(Error::Conflict(conflict)));
                return Err(Error::RetriesExhausted { path, attempts, limit, last });
            }
            if back_off(attempts, deadline).await > STALE_AFTER {
                known.clear();
            }
        }
    }

    /// The commit as of what is known of the documents that are edited; what is not known is read.
    async fn commit(
        &self,
        context: &Context,
        known: &mut HashMap<DocumentPath, Option<Document>>,
        intent: Option<String>,
    ) -> Result<Commit, Error> {
        let mut commit = self.empty(intent);
        for part in &self.parts {
            let (precondition, action) = match &part.doing {
                Doing::Edit(edits) => {
                    let document = match known.get(&part.path) {
                        Some(document) => document.clone(),
                        None => context.get_for(&part.path, self.fence.as_ref()).await?,
                    };
                    let content = part.edited(edits, document.as_ref())?;
                    let precondition = Precondition::unchanged(document.as_ref());
                    known.insert(part.path.clone(), document);
                    (precondition, Action::Put(content))
                }
                Doing::Put(content) => (part.required(context).await?, Action::Put(content.clone())),
                Doing::Delete => (part.required(context).await?, Action::Delete),
            };
            let mut change = Change::new(part.path.clone(), precondition, action);
            change.expiry = part.expiry;
            change.guarded = matches!(part.doing, Doing::Put(_)) && !part.may_shrink;
            commit.changes.push(change);
        }
        Ok(commit)
    }

    fn empty(&self, intent: Option<String>) -> Commit {
        let mut commit = Commit::new(self.context.agent().clone());
        commit.message.clone_from(&self.message);
        commit.key.clone_from(&self.key);
        commit.intent = intent;
        commit.fence.clone_from(&self.fence);
        commit
    }

    /// What the same changes did under the same key; nothing, where they were never made.
    async fn made_before(&self, context: &Context, intent: Option<String>) -> Result<Option<Changed>, Error> {
        let mut commit = self.empty(intent);
        // No document ever stands at revision 0: this writes nothing, and the key is looked at first.
        let never = Precondition::Exact(Revision(0));
        let changes = self.parts.iter().map(|part| Change::new(part.path.clone(), never, Action::Delete));
        commit.changes.extend(changes);
        match context.try_commit(commit).await? {
            Outcome::Committed(mutext_contract::Committed { cursor, revisions, replayed }) => {
                Ok(Some(Changed { cursor, revisions, replayed, attempts: 1 }))
            }
            Outcome::Refused(Refusal::Conflict(_)) => Ok(None),
            Outcome::Refused(refusal) => Err(context.refused_by(self.fence.as_ref(), refusal).await),
        }
    }

    fn intent(&self) -> Result<Option<String>, Error> {
        if self.key.is_none() {
            return Ok(None);
        }
        let intent =
            Intent { changes: self.parts.iter().map(Part::intent).collect(), message: self.message.as_deref() };
        Ok(Some(serde_json::to_string(&intent).map_err(mutext_contract::InvalidJson::from)?))
    }
}

impl Part {
    fn edited(&self, edits: &[Edit], document: Option<&Document>) -> Result<Content, Error> {
        let precondition = self.precondition.unwrap_or(Precondition::Any);
        if !precondition.is_met_by(document.map(|document| document.revision)) {
            let conflict =
                mutext_contract::Conflict { path: self.path.clone(), precondition, current: document.cloned() };
            return Err(Error::Conflict(Box::new(conflict)));
        }
        applied(edits, &self.path, document, None)
    }

    async fn required(&self, context: &Context) -> Result<Precondition, Error> {
        if let Some(precondition) = self.precondition {
            return Ok(precondition);
        }
        let path = self.path.clone();
        let current = context.get(path.clone()).await?.map(Box::new);
        Err(Error::PreconditionRequired { path, current })
    }

    fn intent(&self) -> IntentPart<'_> {
        let put = match &self.doing {
            Doing::Put(content) => Some((content.kind(), content.as_str())),
            _ => None,
        };
        let edits = match &self.doing {
            Doing::Edit(edits) => Some(edits.as_slice()),
            _ => None,
        };
        let expiry = format!("{:?}", self.expiry);
        IntentPart { path: self.path.as_str(), put, edits, precondition: self.precondition, expiry }
    }
}

impl<'a> IntoFuture for Changes<'a> {
    type Output = Result<Changed, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.make())
    }
}
