//! Every commit once, in order, from a place on: across outages of the store, and of the watcher itself.
//!
//! A watcher asks the store for what is after its place and hands it out one by one; there is no task behind it, so that
//! its memory is bounded by one page, and dropping it leaves nothing behind.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use mutext_contract::{CommitRecord, Cursor, Deadline, EngineError, InvalidName, PathPrefix, TroubleKind};
use tokio::time::Instant;

use crate::{Context, Error};

/// How long one question waits for the next commit; then it is asked again. A store that went away is known to have
/// only then, and after its own patience with what it waits for.
const QUESTION: Duration = Duration::from_secs(5);
/// The most commits that are read ahead.
const BUFFER_MAX: usize = 10_000;
/// How long a watch waits for the feed to come to the cursor it is to go on from: a commit that others overtook is
/// known by its place a moment before the feed has come there.
const SETTLING: Duration = Duration::from_secs(2);
/// The pauses between questions while the store is away, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A watch to be awaited, or said more of first.
#[derive(Debug)]
#[must_use = "nothing is watched until this is awaited"]
pub struct Watch<'a> {
    context: &'a Context,
    prefix: Result<PathPrefix, InvalidName>,
    after: Option<Cursor>,
    buffer: usize,
    patience: Duration,
}

/// Hands out every commit once, in order. Keep [`Watcher::cursor`] to go on from there after the process has ended.
#[derive(Debug)]
pub struct Watcher {
    context: Context,
    prefix: PathPrefix,
    /// Everything up to here is handed out.
    cursor: Cursor,
    /// Everything up to here has been read.
    read: Cursor,
    buffer: usize,
    kept: VecDeque<CommitRecord>,
    patience: Duration,
    /// Since when the store is away, and how many questions failed.
    away: Option<(Instant, u32)>,
}

impl Context {
    /// Watches the documents whose paths begin with `prefix`: from now on, unless told from where.
    ///
    /// ```
    /// # async fn example(context: &mutext::Context) -> Result<(), mutext::Error> {
    /// context.write("tasks/17", "open").create().message("to do").await?;
    /// let mut watcher = context.watch("tasks/").after(mutext::Cursor::START).await?;
    /// let commit = watcher.next().await?;
    /// assert_eq!(commit.message.as_deref(), Some("to do"));
    ///
    /// // Another process goes on from there.
    /// let mut watcher = context.watch("tasks/").after(watcher.cursor()).await?;
    /// assert_eq!(watcher.next_within(std::time::Duration::from_millis(1)).await?, None);
    /// # Ok(())
    /// # }
    /// # let dir = std::env::temp_dir().join(format!("mutext-watch-{}", std::process::id()));
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// #     let mutext = mutext::Mutext::open(&mutext::Address::embedded(&dir), None).await.unwrap();
    /// #     let settings = mutext::Settings::new("planner".try_into().unwrap());
    /// #     example(&mutext.context("research-42", settings).unwrap()).await.unwrap();
    /// # });
    /// # std::fs::remove_dir_all(&dir).unwrap();
    /// ```
    pub fn watch<P>(&self, prefix: P) -> Watch<'_>
    where
        P: TryInto<PathPrefix>,
        InvalidName: From<P::Error>,
    {
        let prefix = prefix.try_into().map_err(InvalidName::from);
        Watch { context: self, prefix, after: None, buffer: 100, patience: Duration::from_secs(120) }
    }

    /// The place in the feed up to which everything has happened: what is written from now on is after it.
    pub async fn head(&self) -> Result<Cursor, Error> {
        Ok(self.store().head(self.name(), self.deadline()).await?)
    }

    /// The cursor, once the feed has come there.
    async fn has_come_to(&self, after: Cursor) -> Result<Cursor, Error> {
        let settling = Deadline::after(SETTLING);
        loop {
            let head = self.head().await?;
            if after <= head {
                return Ok(after);
            }
            if settling.has_passed() {
                return Err(Error::CursorAhead { after, head });
            }
            tokio::time::sleep(PAUSE_MIN).await;
        }
    }
}

impl Watch<'_> {
    /// From behind this place on: [`Cursor::START`] for all that is kept.
    pub const fn after(mut self, cursor: Cursor) -> Self {
        self.after = Some(cursor);
        self
    }

    /// How many commits are read ahead at most: 100 unless said otherwise, and never more than 10,000.
    pub fn buffer(mut self, commits: usize) -> Self {
        self.buffer = commits.clamp(1, BUFFER_MAX);
        self
    }

    /// How long the store may be away before [`Watcher::next`] says so by an error: two minutes unless said otherwise.
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Begins.
    ///
    /// Errors with [`Error::CursorAhead`] where the feed has never been at the cursor: what is written until it comes
    /// there would be missed without a word.
    pub async fn begin(self) -> Result<Watcher, Error> {
        let prefix = self.prefix?;
        let cursor = match self.after {
            Some(Cursor::START) => Cursor::START,
            Some(cursor) => self.context.has_come_to(cursor).await?,
            None => self.context.head().await?,
        };
        Ok(Watcher {
            context: self.context.same(),
            prefix,
            cursor,
            read: cursor,
            buffer: self.buffer,
            kept: VecDeque::new(),
            patience: self.patience,
            away: None,
        })
    }
}

impl<'a> IntoFuture for Watch<'a> {
    type Output = Result<Watcher, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.begin())
    }
}

impl Watcher {
    /// Everything up to here has been handed out, or did not concern the prefix: go on from here with
    /// [`Watch::after`].
    pub fn cursor(&self) -> Cursor {
        // What has been read and was not kept is done too, once nothing before it is left.
        if self.kept.is_empty() { self.read } else { self.cursor }
    }

    /// The next commit, as soon as there is one: with those of its changes that concern the prefix.
    ///
    /// Dropping the future loses nothing: the next call goes on. So it does after any error but
    /// [`Error::CursorGone`], which says that commits before it was asked for are forgotten: read the documents anew,
    /// and watch from where that was. While the store is away it is asked again, with pauses that grow, and a warning
    /// says so; for longer than the patience, the store's error is returned.
    pub async fn next(&mut self) -> Result<CommitRecord, Error> {
        loop {
            if let Some(commit) = self.next_by(self.question()).await? {
                return Ok(commit);
            }
        }
    }

    /// The same, or nothing where there is none within `wait`.
    pub async fn next_within(&mut self, wait: Duration) -> Result<Option<CommitRecord>, Error> {
        let deadline = Deadline::after(wait);
        loop {
            let question = deadline.min(self.question());
            if let Some(commit) = self.next_by(question).await? {
                return Ok(Some(commit));
            }
            if deadline.has_passed() {
                return Ok(None);
            }
        }
    }

    fn question(&self) -> Deadline {
        Deadline::after(QUESTION.min(self.patience))
    }

    async fn next_by(&mut self, deadline: Deadline) -> Result<Option<CommitRecord>, Error> {
        if let Some(commit) = self.kept.pop_front() {
            self.cursor = commit.cursor;
            return Ok(Some(commit));
        }
        let (context, after, asked) = (&self.context, self.read, Instant::now());
        let page = match context.store().changes(context.name(), after, self.buffer, deadline).await {
            Ok(feed) => feed.page().map_err(|oldest| Error::CursorGone { after, oldest })?,
            Err(trouble) => {
                self.is_away(trouble, asked, deadline).await?;
                return Ok(None);
            }
        };
        if let Some((since, _)) = self.away.take() {
            tracing::info!(context = %self.context.name(), away = ?since.elapsed(), "the documents can be watched again");
        }
        if let Some(last) = page.last() {
            self.read = last.cursor;
        }
        for mut commit in page {
            commit.changes.retain(|(path, ..)| self.prefix.matches(path));
            if !commit.changes.is_empty() {
                self.kept.push_back(commit);
            }
        }
        let next = self.kept.pop_front();
        self.cursor = next.as_ref().map_or(self.read, |commit| commit.cursor);
        Ok(next)
    }

    /// Waits a moment before the store is asked again; gives up once it has been away for too long.
    async fn is_away(&mut self, trouble: EngineError, asked: Instant, deadline: Deadline) -> Result<(), Error> {
        if !matches!(trouble.kind, TroubleKind::Unavailable | TroubleKind::Busy) {
            return Err(trouble.into());
        }
        let (since, failed) = self.away.get_or_insert((asked, 0));
        *failed += 1;
        if *failed == 1 {
            tracing::warn!(context = %self.context.name(), %trouble, "the documents cannot be watched; trying again");
        }
        if since.elapsed() >= self.patience {
            // Whoever asks once more is patient once more.
            self.away = None;
            return Err(trouble.into());
        }
        let most = PAUSE_MIN.saturating_mul(1 << (*failed).min(10)).min(PAUSE_MAX);
        let pause = most.mul_f64(rand::random_range(0.5..1.0));
        tokio::time::sleep_until((Instant::now() + pause).min(deadline.instant())).await;
        Ok(())
    }
}
