//! What a document was: past revisions, bringing one back, and forgetting all of them.

use mutext_contract::{Commit, DocumentPath, PastRevision, Precondition, Revision};
use mutext_edit::{Diff, DiffOptions, diff};

use crate::conflict::heavy;
use crate::{Context, Error, Written};

impl Context {
    /// One past revision of the document at `path`, or its present one; without content where it was deleted.
    ///
    /// Errors with [`Error::NoRevision`], which tells a revision that is forgotten from one that is still to come.
    pub async fn revision<P>(&self, path: P, revision: Revision) -> Result<PastRevision, Error>
    where
        P: TryInto<DocumentPath>,
        Error: From<P::Error>,
    {
        self.kept(path.try_into()?, revision).await
    }

    pub(crate) async fn kept(&self, path: DocumentPath, revision: Revision) -> Result<PastRevision, Error> {
        if let Some(past) = self.past(&path, revision).await? {
            return Ok(past);
        }
        let newest = self.store().history(self.name(), &path, None, 1, self.deadline()).await?;
        let last = newest.into_iter().next();
        let (newest, deleted) = (last.as_ref().map(|last| last.revision), last.filter(|last| last.content.is_none()));
        Err(Error::NoRevision { path, revision, newest, deleted: deleted.map(Box::new) })
    }

    /// A past revision, unless it is forgotten.
    pub(crate) async fn past(&self, path: &DocumentPath, revision: Revision) -> Result<Option<PastRevision>, Error> {
        let before = Some(Revision(revision.0.saturating_add(1)));
        let page = self.store().history(self.name(), path, before, 1, self.deadline()).await?;
        Ok(page.into_iter().next().filter(|past| past.revision == revision))
    }

    /// What changed in the document at `path` from one revision to another, as a unified diff of any length.
    pub async fn diff<P>(&self, path: P, from: Revision, to: Revision) -> Result<Diff, Error>
    where
        P: TryInto<DocumentPath>,
        Error: From<P::Error>,
    {
        self.difference(path.try_into()?, from, to).await
    }

    async fn difference(&self, path: DocumentPath, from: Revision, to: Revision) -> Result<Diff, Error> {
        let (old, new) = tokio::try_join!(self.kept(path.clone(), from), self.kept(path.clone(), to))?;
        let options = DiffOptions::default().labels(&format!("{path}@{from}"), &format!("{path}@{to}"));
        let options = options.within(usize::MAX);
        Ok(heavy(move || diff(old.content.as_ref(), new.content.as_ref(), &options)).await)
    }

    /// Brings a past revision of the document at `path` back, as a new one: where `precondition` holds, and else it is a
    /// conflict like that of any write. Where the document was deleted then, it is deleted now.
    ///
    /// ```
    /// # async fn example(context: &mutext::Context) -> Result<(), mutext::Error> {
    /// use mutext::Precondition;
    ///
    /// let first = context.write("plan.md", "measure").create().await?.revision;
    /// let second = context.write("plan.md", "cut").at(first).await?.revision;
    /// let restored = context.restore("plan.md", first, Precondition::Exact(second), None).await?;
    /// assert_eq!(restored.revision.0, 3);
    /// # Ok(())
    /// # }
    /// # let dir = std::env::temp_dir().join(format!("mutext-restore-{}", std::process::id()));
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// #     let mutext = mutext::Mutext::open(&mutext::Address::embedded(&dir), None).await.unwrap();
    /// #     let settings = mutext::Settings::new("planner".try_into().unwrap());
    /// #     example(&mutext.context("research-42", settings).unwrap()).await.unwrap();
    /// # });
    /// # std::fs::remove_dir_all(&dir).unwrap();
    /// ```
    pub async fn restore<P>(
        &self,
        path: P,
        revision: Revision,
        precondition: Precondition,
        message: Option<&str>,
    ) -> Result<Written, Error>
    where
        P: TryInto<DocumentPath>,
        Error: From<P::Error>,
    {
        self.restored(path.try_into()?, revision, precondition, message).await
    }

    async fn restored(
        &self,
        path: DocumentPath,
        revision: Revision,
        precondition: Precondition,
        message: Option<&str>,
    ) -> Result<Written, Error> {
        let past = self.kept(path.clone(), revision).await?;
        let message = message.map_or_else(|| format!("restore revision {revision}"), str::to_owned);
        let Some(content) = past.content else {
            let commit = Commit::new(self.agent().clone()).delete(path, precondition).message(message);
            return self.commit(commit).await.map(|committed| Written::deleted(&committed));
        };
        // Whoever names a revision has seen how long it is.
        self.write(path, content).precondition(precondition).allow_shrink().message(message).await
    }

    /// Deletes the document at `path` with all that it ever held, for good, and leaves a tombstone: a last revision that
    /// says who did it and why. Answers with that revision; none where nothing of it was left already.
    pub async fn purge<P>(&self, path: P, reason: &str) -> Result<Option<Revision>, Error>
    where
        P: TryInto<DocumentPath>,
        Error: From<P::Error>,
    {
        let (path, deadline) = (path.try_into()?, self.deadline());
        Ok(self.store().purge(self.name(), &path, self.agent(), reason, deadline).await?)
    }
}
