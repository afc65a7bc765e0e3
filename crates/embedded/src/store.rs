//! Documents that several processes on one machine share: one SQLite file in WAL mode.
//!
//! Reads go to a small pool of connections and never wait for writers. Writes go to one thread, which takes what has
//! queued meanwhile into one transaction (see [`crate::writer`]), so that many writers share one sync of the disk.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mutext_contract::{
    AgentName, ArchivedCommit, Commit, ContextName, Cursor, Deadline, Document, DocumentPath, DocumentStore, Effect,
    EngineError, EpochSource, Feed, Fence, FencedRead, Finding, Hit, Listing, Outcome, PastRevision, PathPrefix, Query,
    Retention, Revision, Revocation, RevocationRecord, Severity, Snapshot, StoreCapabilities, Tended, TroubleKind,
    Waiting, within_epochs,
};
use rusqlite::Connection;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::commit_rows;
use crate::document_rows;
use crate::feed_rows;
use crate::revocation_rows;
use crate::search_rows;
use crate::sqlite::{self, Schema, Sync};
use crate::tend_rows;
use crate::worker;
use crate::writer::{Writer, WriterOptions};

/// `Mutd` in ASCII.
const SCHEMA: Schema = Schema {
    application_id: 0x4d75_7464,
    migrations: &[include_str!("documents.sql"), include_str!("revocations.sql"), include_str!("documents_3.sql")],
};
/// Connections kept open for the next read.
const READERS_KEPT: usize = 4;
/// How often a watcher looks for commits of other processes.
const LOOK_FOR_COMMITS: Duration = Duration::from_millis(10);

/// The embedded document store.
pub struct EmbeddedStore {
    file: Arc<PathBuf>,
    readers: Arc<Mutex<Vec<Connection>>>,
    writer: Writer,
    committed: Arc<Notify>,
    sync: Sync,
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore").field("file", &self.file).finish_non_exhaustive()
    }
}

impl EmbeddedStore {
    pub(crate) fn open(file: PathBuf, options: WriterOptions, deadline: Deadline) -> Result<Self, EngineError> {
        let connection = sqlite::open(&file, &SCHEMA, options.sync, deadline)?;
        let (committed, sync) = (Arc::new(Notify::new()), options.sync);
        let writer = Writer::start(connection, file.clone(), options, Arc::clone(&committed))?;
        Ok(Self { file: Arc::new(file), readers: Arc::default(), writer, committed, sync })
    }

    /// Runs a read on a connection of its own, off the runtime's threads.
    async fn read_with<T: Send + 'static>(
        &self,
        deadline: Deadline,
        read: impl Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, EngineError> {
        let (file, readers) = (Arc::clone(&self.file), Arc::clone(&self.readers));
        let run = move || {
            let kept = readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match kept {
                Some(connection) => connection,
                None => sqlite::open(&file, &SCHEMA, Sync::Normal, deadline)?,
            };
            let value = sqlite::retry(&file, deadline, || read(&connection))?;
            let mut readers = readers.lock().unwrap_or_else(PoisonError::into_inner);
            if readers.len() < READERS_KEPT {
                readers.push(connection);
            }
            Ok(value)
        };
        let answer = tokio::task::spawn_blocking(run).await;
        answer.unwrap_or_else(|_| Err(worker::stopped("reader of documents", Effect::None)))
    }
}

#[async_trait]
impl EpochSource for EmbeddedStore {
    async fn mint_epoch(&self, context: &ContextName, above: u64, deadline: Deadline) -> Result<u64, EngineError> {
        let of = context.clone();
        let mint = move |connection: &Connection| commit_rows::mint_epoch(connection, &of, above);
        within_epochs(self.writer.run(deadline, mint).await?, above, context, &self.file.display().to_string())
    }
}

#[async_trait]
impl DocumentStore for EmbeddedStore {
    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities {
            engine: "embedded",
            several_documents: true,
            serial_commits: true,
            feed: Waiting::Polled,
            survives: "power loss: synced to disk before it is acknowledged (unless opened with sync=normal)",
        }
    }

    async fn read(
        &self,
        context: &ContextName,
        path: &DocumentPath,
        deadline: Deadline,
    ) -> Result<Option<Document>, EngineError> {
        let (context, path) = (context.clone(), path.clone());
        self.read_with(deadline, move |connection| document_rows::read(connection, &context, &path)).await
    }

    async fn read_fenced(
        &self,
        context: &ContextName,
        path: &DocumentPath,
        fence: &Fence,
        deadline: Deadline,
    ) -> Result<FencedRead, EngineError> {
        self.writer.read_fenced(context.clone(), path.clone(), fence.token, deadline).await
    }

    async fn list(
        &self,
        context: &ContextName,
        prefix: &PathPrefix,
        after: Option<&DocumentPath>,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Listing, EngineError> {
        let (context, prefix, after) = (context.clone(), prefix.clone(), after.cloned());
        self.read_with(deadline, move |connection| {
            document_rows::list(connection, &context, &prefix, after.as_ref(), limit)
        })
        .await
    }

    async fn commit(&self, context: &ContextName, commit: &Commit, deadline: Deadline) -> Result<Outcome, EngineError> {
        self.writer.commit(context.clone(), commit.clone(), deadline).await
    }

    async fn history(
        &self,
        context: &ContextName,
        path: &DocumentPath,
        before: Option<Revision>,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Vec<PastRevision>, EngineError> {
        let (context, path) = (context.clone(), path.clone());
        self.read_with(deadline, move |connection| document_rows::history(connection, &context, &path, before, limit))
            .await
    }

    async fn changes(
        &self,
        context: &ContextName,
        after: Cursor,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Feed, EngineError> {
        loop {
            let committed = self.committed.notified();
            let context = context.clone();
            let busy = Deadline::after(deadline.remaining() + sqlite::PATIENCE);
            let page =
                self.read_with(busy, move |connection| feed_rows::changes(connection, &context, after, limit)).await?;
            let is_empty = matches!(&page, Feed::Page(commits) if commits.is_empty());
            if !is_empty || deadline.has_passed() {
                return Ok(page);
            }
            // Commits of this process are told; those of others are looked for.
            tokio::select! {
                () = committed => {}
                () = tokio::time::sleep_until(deadline.instant().min(Instant::now() + LOOK_FOR_COMMITS)) => {}
            }
        }
    }

    async fn revoke(
        &self,
        context: &ContextName,
        revocation: &Revocation,
        deadline: Deadline,
    ) -> Result<(), EngineError> {
        let (context, revocation) = (context.clone(), revocation.clone());
        self.writer.run(deadline, move |connection| revocation_rows::insert(connection, &context, &revocation)).await
    }

    async fn revocations(
        &self,
        context: &ContextName,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Vec<RevocationRecord>, EngineError> {
        let context = context.clone();
        self.read_with(deadline, move |connection| revocation_rows::list(connection, &context, limit)).await
    }

    async fn head(&self, _context: &ContextName, deadline: Deadline) -> Result<Cursor, EngineError> {
        self.read_with(deadline, feed_rows::head).await
    }

    async fn documents_at(
        &self,
        context: &ContextName,
        at: Cursor,
        prefix: &PathPrefix,
        after: Option<&DocumentPath>,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Snapshot, EngineError> {
        let (context, prefix, after) = (context.clone(), prefix.clone(), after.cloned());
        self.read_with(deadline, move |connection| {
            feed_rows::documents_at(connection, &context, at, &prefix, after.as_ref(), limit)
        })
        .await
    }

    async fn search(
        &self,
        context: &ContextName,
        query: &Query,
        prefix: &PathPrefix,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Vec<Hit>, EngineError> {
        loop {
            let of = context.clone();
            if !self.read_with(deadline, move |connection| search_rows::is_behind(connection, &of)).await? {
                break;
            }
            if deadline.has_passed() {
                let remedy = "it goes on where it stopped: search again, or allow more time";
                let kind = TroubleKind::Failed("the documents could not all be indexed in time".to_owned());
                return Err(EngineError::new(self.file.display().to_string(), kind, remedy));
            }
            let of = context.clone();
            self.writer.run(deadline, move |connection| search_rows::catch_up(connection, &of)).await?;
        }
        let (context, query, prefix) = (context.clone(), query.clone(), prefix.clone());
        self.read_with(deadline, move |connection| search_rows::search(connection, &context, &query, &prefix, limit))
            .await
    }

    async fn tend(
        &self,
        context: &ContextName,
        retention: &Retention,
        deadline: Deadline,
    ) -> Result<Tended, EngineError> {
        let (of, retention) = (context.clone(), *retention);
        let look = move |connection: &Connection| {
            let bounded = !retention.is_unbounded();
            let dispensable = bounded.then(|| tend_rows::dispensable(connection, &of, &retention)).transpose()?;
            Ok((tend_rows::has_expired(connection, &of)?, dispensable.unwrap_or_default()))
        };
        let (has_expired, dispensable) = self.read_with(deadline, look).await?;
        let mut tended = Tended::default();
        if has_expired {
            let of = context.clone();
            tended.expired = self.writer.run(deadline, move |connection| tend_rows::expire(connection, &of)).await?;
        }
        if !dispensable.is_empty() {
            let of = context.clone();
            let forget = move |connection: &Connection| tend_rows::forget(connection, &of, &dispensable);
            tended.forgotten = self.writer.run(deadline, forget).await?;
        }
        Ok(tended)
    }

    async fn purge(
        &self,
        context: &ContextName,
        path: &DocumentPath,
        author: &AgentName,
        reason: &str,
        deadline: Deadline,
    ) -> Result<Option<Revision>, EngineError> {
        let (context, path, author, reason) = (context.clone(), path.clone(), author.clone(), reason.to_owned());
        let purge = move |connection: &Connection| tend_rows::purge(connection, &context, &path, &author, &reason);
        self.writer.erase(deadline, purge).await
    }

    async fn archive(
        &self,
        context: &ContextName,
        after: Cursor,
        until: Cursor,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Vec<ArchivedCommit>, EngineError> {
        let context = context.clone();
        self.read_with(deadline, move |connection| feed_rows::archive(connection, &context, after, until, limit)).await
    }

    async fn restore(
        &self,
        context: &ContextName,
        commits: &[ArchivedCommit],
        deadline: Deadline,
    ) -> Result<Option<Cursor>, EngineError> {
        let (context, commits) = (context.clone(), commits.to_vec());
        self.writer.run(deadline, move |connection| feed_rows::restore(connection, &context, &commits)).await
    }

    async fn examine(&self, deadline: Deadline) -> Result<Vec<Finding>, EngineError> {
        let check = |connection: &Connection| {
            let journal: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
            // The first trouble is enough; a sound file answers "ok".
            let sound: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            Ok((journal, sound))
        };
        let (journal, sound) = self.read_with(deadline, check).await?;
        let synced = match self.sync {
            Sync::Full => Finding::fine("sync", "full: on disk before it is acknowledged"),
            Sync::Normal | Sync::Off => {
                let found = "normal: the last commits may be missing after power loss";
                Finding::new("sync", Severity::Warning, found, "open the store without sync=normal")
            }
        };
        let damage = match sound.as_str() {
            "ok" => Finding::fine("file", format!("{} is sound", self.file.display())),
            trouble => {
                let remedy = "keep a copy of the directory and restore the documents from a backup";
                Finding::new("file", Severity::Danger, format!("{}: {trouble}", self.file.display()), remedy)
            }
        };
        let journal = match journal.as_str() {
            "wal" => Finding::fine("journal", "wal: readers and writers do not wait for each other"),
            other => {
                let remedy = "put the store on a local file system: this one cannot share memory between processes";
                Finding::new("journal", Severity::Danger, other, remedy)
            }
        };
        Ok(vec![Finding::fine("SQLite", crate::SQLITE_VERSION), damage, journal, synced])
    }
}
