//! Many documents as they were at one moment, page by page, and what a search finds in them.

use std::collections::VecDeque;

use mutext_contract::{Cursor, Document, DocumentPath, Hit, PathPrefix, Query, Snapshot as Page};

use crate::{Context, Error};

/// So many documents are read at once; each may be as large as the context allows.
const PAGE: usize = 64;

/// Documents as of one place in the feed, whatever is committed meanwhile.
#[derive(Debug)]
pub struct Snapshot {
    context: Context,
    prefix: PathPrefix,
    at: Cursor,
    after: Option<DocumentPath>,
    page: VecDeque<Document>,
    is_last: bool,
}

impl Context {
    /// The documents whose paths begin with `prefix`, all as they are at this moment, however long reading them takes.
    ///
    /// ```
    /// # async fn example(context: &mutext::Context) -> Result<(), mutext::Error> {
    /// context.write("tasks/17", "open").create().await?;
    /// let mut snapshot = context.snapshot("tasks/").await?;
    /// context.write("tasks/17", "done").overwrite().await?;
    /// while let Some(task) = snapshot.next().await? {
    ///     assert_eq!(task.content.as_str(), "open");
    /// }
    /// # Ok(())
    /// # }
    /// # let dir = std::env::temp_dir().join(format!("mutext-snapshot-{}", std::process::id()));
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// #     let mutext = mutext::Mutext::open(&mutext::Address::embedded(&dir), None).await.unwrap();
    /// #     let settings = mutext::Settings::new("planner".try_into().unwrap());
    /// #     example(&mutext.context("research-42", settings).unwrap()).await.unwrap();
    /// # });
    /// # std::fs::remove_dir_all(&dir).unwrap();
    /// ```
    pub async fn snapshot<P>(&self, prefix: P) -> Result<Snapshot, Error>
    where
        P: TryInto<PathPrefix>,
        Error: From<P::Error>,
    {
        let at = self.head().await?;
        self.snapshot_at(prefix, at)
    }

    /// The same, as they were at the place `at` of the feed, if that is not forgotten.
    pub fn snapshot_at<P>(&self, prefix: P, at: Cursor) -> Result<Snapshot, Error>
    where
        P: TryInto<PathPrefix>,
        Error: From<P::Error>,
    {
        let (context, prefix) = (self.same(), prefix.try_into()?);
        Ok(Snapshot { context, prefix, at, after: None, page: VecDeque::new(), is_last: false })
    }

    /// At most `limit` documents whose paths begin with `prefix` and in which all that `query` looks for is found, the
    /// best first, each with a snippet. Words, `"phrases"`, `word*` for all that begin so, `-word` for what must not
    /// occur.
    ///
    /// ```
    /// # async fn example(context: &mutext::Context) -> Result<(), mutext::Error> {
    /// context.write("plans/a", "the next step is to measure").create().await?;
    /// let hits = context.search("\"next step\" meas* -done", "plans/", 10).await?;
    /// assert_eq!(hits[0].snippet, "the **next step** is to **measure**");
    /// # Ok(())
    /// # }
    /// # let dir = std::env::temp_dir().join(format!("mutext-search-{}", std::process::id()));
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// #     let mutext = mutext::Mutext::open(&mutext::Address::embedded(&dir), None).await.unwrap();
    /// #     let settings = mutext::Settings::new("planner".try_into().unwrap());
    /// #     example(&mutext.context("research-42", settings).unwrap()).await.unwrap();
    /// # });
    /// # std::fs::remove_dir_all(&dir).unwrap();
    /// ```
    pub async fn search<P>(&self, query: &str, prefix: P, limit: usize) -> Result<Vec<Hit>, Error>
    where
        P: TryInto<PathPrefix>,
        Error: From<P::Error>,
    {
        self.searched(query, &prefix.try_into()?, limit).await
    }

    async fn searched(&self, query: &str, prefix: &PathPrefix, limit: usize) -> Result<Vec<Hit>, Error> {
        let query: Query = query.parse()?;
        Ok(self.store().search(self.name(), &query, prefix, limit, self.deadline()).await?)
    }
}

impl Snapshot {
    /// The place in the feed that it shows: a watch that goes on after it misses nothing.
    pub const fn cursor(&self) -> Cursor {
        self.at
    }

    /// The next document, in the order of their paths; `None` after the last.
    ///
    /// Errors with [`Error::CursorGone`] where what was there at its place was forgotten meanwhile: take a new one.
    pub async fn next(&mut self) -> Result<Option<Document>, Error> {
        loop {
            if let Some(document) = self.page.pop_front() {
                return Ok(Some(document));
            }
            if self.is_last {
                return Ok(None);
            }
            let (context, at, after) = (&self.context, self.at, self.after.as_ref());
            let page = context.store().documents_at(context.name(), at, &self.prefix, after, PAGE, context.deadline());
            match page.await? {
                Page::Page(documents, next) => {
                    (self.page, self.is_last) = (documents.into(), next.is_none());
                    self.after = next;
                }
                Page::Gone { oldest } => return Err(Error::CursorGone { after: at, oldest }),
            }
        }
    }

    /// All that are left, at once.
    pub async fn all(mut self) -> Result<Vec<Document>, Error> {
        let mut all = Vec::new();
        while let Some(document) = self.next().await? {
            all.push(document);
        }
        Ok(all)
    }
}
