//! Conflicts that can be solved in one step: who wrote since, what they changed, and whether the two go together.

use std::time::SystemTime;

use mutext_contract::{AgentName, Conflict, Content, Document, DocumentPath, PastRevision, Precondition, Revision};
use mutext_edit::{Diff, DiffOptions, Merge, diff, merge};

use crate::{Context, Error};

/// A difference in an answer has at most so many bytes: clients of agents cut longer answers off.
pub(crate) const DIFF_BYTES_MAX: usize = 6 * 1024;
/// At most so many of those who wrote since are named.
const NAMED_MAX: usize = 10;

/// What somebody who met a conflict wants to know.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// Which document.
    pub path: DocumentPath,
    /// The revision that the write was made for; `None` where it was to create the document, or knew of no revision.
    pub base: Option<Revision>,
    /// What is there now; `None` where there is no document.
    pub current: Option<Document>,
    /// Who wrote since, newest first: the last ten.
    pub since: Vec<Since>,
    /// How many more wrote before those.
    pub more: u64,
    /// What they changed together, from the base on; `None` where the base is not known, or forgotten.
    pub diff: Option<Diff>,
    /// What their changes and the caller's are together, or where they contradict each other; `None` where the base or
    /// the document is gone, or the caller's content was not given.
    pub merge: Option<Merge>,
}

/// One revision, who wrote it, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since {
    /// Its number.
    pub revision: Revision,
    /// Who.
    pub author: AgentName,
    /// Why, in the author's words.
    pub message: Option<String>,
    /// When, by the store's clock.
    pub written_at: SystemTime,
    /// Whether it deleted the document.
    pub deleted: bool,
}

impl Since {
    pub(crate) fn of(past: &PastRevision) -> Self {
        Self {
            revision: past.revision,
            author: past.author.clone(),
            message: past.message.clone(),
            written_at: past.written_at,
            deleted: past.content.is_none(),
        }
    }
}

impl Explanation {
    /// Whether the caller's content can be merged with what is there: [`crate::Writing::merge`] does.
    pub fn merges_cleanly(&self) -> Option<bool> {
        self.merge.as_ref().map(Merge::is_clean)
    }
}

impl Context {
    /// Looks up what led to `conflict`: who wrote since and why, what changed, and whether `mine`, the content that was
    /// to be written, can be merged with it.
    ///
    /// ```
    /// # async fn example(context: &mutext::Context) -> Result<(), mutext::Error> {
    /// use mutext::{Content, Error};
    ///
    /// let read = context.write("plan.md", "measure\n").create().await?.revision;
    /// context.write("plan.md", "measure twice\n").at(read).message("to be sure").await?;
    ///
    /// let mine = Content::text("measure\ncut\n");
    /// if let Err(Error::Conflict(conflict)) = context.write("plan.md", mine.clone()).at(read).await {
    ///     let explained = context.explain(&conflict, Some(&mine)).await?;
    ///     for since in &explained.since {
    ///         println!("{} wrote revision {}: {:?}", since.author, since.revision, since.message);
    ///     }
    ///     let diff = explained.diff.expect("revision 1 is kept");
    ///     assert!(diff.text.contains("-measure\n+measure twice\n"));
    /// }
    /// # Ok(())
    /// # }
    /// # let dir = std::env::temp_dir().join(format!("mutext-explain-{}", std::process::id()));
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// #     let mutext = mutext::Mutext::open(&mutext::Address::embedded(&dir), None).await.unwrap();
    /// #     let settings = mutext::Settings::new("planner".try_into().unwrap());
    /// #     example(&mutext.context("research-42", settings).unwrap()).await.unwrap();
    /// # });
    /// # std::fs::remove_dir_all(&dir).unwrap();
    /// ```
    pub async fn explain(&self, conflict: &Conflict, mine: Option<&Content>) -> Result<Explanation, Error> {
        let Conflict { path, precondition, current } = conflict.clone();
        let base = match precondition {
            Precondition::Exact(revision) => Some(revision),
            Precondition::Absent | Precondition::Any => None,
        };
        // What is there may have been replaced since; what is explained is what the conflict met.
        let before = current.as_ref().map(|current| Revision(current.revision.0 + 1));
        let page = self.store().history(self.name(), &path, before, NAMED_MAX + 1, self.deadline()).await?;
        let is_since = |past: &&PastRevision| base.is_none_or(|base| past.revision > base);
        // Who knew of no revision is told of the last one.
        let named = if base.is_some() { NAMED_MAX } else { 1 };
        let since: Vec<_> = page.iter().filter(is_since).take(named).map(Since::of).collect();
        let more = match (base, since.last()) {
            (Some(base), Some(last)) => last.revision.0.saturating_sub(base.0 + 1),
            _ => 0,
        };
        let mut explanation = Explanation { path, base, current, since, more, diff: None, merge: None };
        let Some(began) = self.base_of(&explanation, page).await? else { return Ok(explanation) };
        let (mine, now) = (mine.cloned(), explanation.current.clone().map(|current| current.content));
        let options = between(&explanation.path, base, explanation.current.as_ref());
        (explanation.diff, explanation.merge) = heavy(move || {
            let merged = mine.zip(now.as_ref()).map(|(mine, now)| merge(&began, &mine, now));
            (Some(diff(Some(&began), now.as_ref(), &options)), merged)
        })
        .await;
        Ok(explanation)
    }

    async fn base_of(&self, explanation: &Explanation, page: Vec<PastRevision>) -> Result<Option<Content>, Error> {
        let Some(base) = explanation.base else { return Ok(None) };
        let past = match page.into_iter().find(|past| past.revision == base) {
            Some(past) => Some(past),
            None => self.past(&explanation.path, base).await?,
        };
        Ok(past.and_then(|past| past.content))
    }
}

/// How the difference between a base and what is there is written down.
fn between(path: &DocumentPath, base: Option<Revision>, current: Option<&Document>) -> DiffOptions {
    let label = |revision: Option<Revision>| {
        revision.map_or_else(|| format!("{path} (absent)"), |revision| format!("{path}@{revision}"))
    };
    let (old, new) = (label(base), label(current.map(|current| current.revision)));
    DiffOptions::default().labels(&old, &new).within(DIFF_BYTES_MAX)
}

/// A merge that can be written: what it makes of the document, and what others had changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CleanMerge {
    pub(crate) content: Content,
    pub(crate) foreign: Diff,
}

impl Context {
    /// What `mine`, made for `base`, and what is there now are together; `None` where they contradict each other, and
    /// where nobody knows any more what `base` was: then it is no merge but a guess.
    pub(crate) async fn merged(
        &self,
        base: Revision,
        mine: &Content,
        current: &Document,
    ) -> Result<Option<CleanMerge>, Error> {
        if base >= current.revision {
            return Ok(None);
        }
        let Some(began) = self.past(&current.path, base).await?.and_then(|past| past.content) else { return Ok(None) };
        let (mine, now) = (mine.clone(), current.content.clone());
        let options = between(&current.path, Some(base), Some(current));
        let merged = heavy(move || {
            let content = merge(&began, &mine, &now).content()?;
            Some(CleanMerge { content, foreign: diff(Some(&began), Some(&now), &options) })
        });
        Ok(merged.await)
    }
}

/// Work that takes a while with large documents, off the runtime's threads.
pub(crate) async fn heavy<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // A panic there is a panic here; the runtime does not cancel what it has begun.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
