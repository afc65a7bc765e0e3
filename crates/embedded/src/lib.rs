//! The embedded engines: documents and locks that several processes on one machine share, without a server.
//!
//! A store is a directory:
//!
//! | file | what it is |
//! |---|---|
//! | `documents.db` | the documents, their history and their feed (SQLite, WAL, synced at each commit) |
//! | `locks-BOOT.db` | the lock table of this boot of the machine (SQLite, never synced) |
//! | `wake/` | one socket for each process that has the store open |
//!
//! It must lie on a local file system: processes on two machines cannot share it.

mod clock;
mod commit_rows;
mod document_rows;
mod feed_rows;
mod lock_rows;
mod locks;
mod revocation_rows;
mod search_rows;
mod sqlite;
mod store;
mod tend_rows;
mod wake;
mod worker;
mod writer;

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mutext_contract::{Deadline, Effect, EngineError, EpochSource, TroubleKind};
use rustix::fs::Access;

pub use locks::EmbeddedLocks;
pub use store::EmbeddedStore;

use crate::sqlite::Sync;
use crate::writer::WriterOptions;

/// The version of SQLite that is built in.
pub const SQLITE_VERSION: &str = {
    // Nul-terminated ASCII, as SQLite gives it to C.
    match rusqlite::ffi::SQLITE_VERSION.to_str() {
        Ok(version) => version,
        Err(_) => "unknown",
    }
};

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    dir: PathBuf,
    sync: Sync,
    fenced: bool,
    look_again: Option<Duration>,
}

/// A store that is open: its two engines.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// The documents.
    pub store: Arc<EmbeddedStore>,
    /// The locks.
    pub locks: Arc<EmbeddedLocks>,
}

impl EmbeddedOptions {
    /// The store in `dir`; it is made where there is none.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), sync: Sync::Full, fenced: true, look_again: None }
    }

    /// Whether each commit is synced to disk before it is acknowledged (the default). Without it a commit survives
    /// the death of any process, but the last ones may be missing after power loss; the file is never damaged.
    #[must_use]
    pub const fn synced(mut self, synced: bool) -> Self {
        self.sync = if synced { Sync::Full } else { Sync::Normal };
        self
    }

    /// How often a waiter looks for itself in case a wake-up was missed, 200 ms unless told otherwise.
    #[must_use]
    pub const fn look_again(mut self, interval: Duration) -> Self {
        self.look_again = Some(interval);
        self
    }

    /// Switches the store's fence check off, so that a test can see the checkers notice.
    #[cfg(feature = "sabotage")]
    #[must_use]
    pub const fn without_fence_check(mut self) -> Self {
        self.fenced = false;
        self
    }

    /// Opens the locks alone, for documents that lie elsewhere: `epochs` is their store.
    pub async fn open_locks(
        self,
        epochs: Arc<dyn EpochSource>,
        deadline: Deadline,
    ) -> Result<Arc<EmbeddedLocks>, EngineError> {
        let open = move || {
            let dir = self.make_directory()?;
            EmbeddedLocks::open(&dir, epochs, self.look_again, deadline).map(Arc::new)
        };
        let opened = tokio::task::spawn_blocking(open).await;
        opened.unwrap_or_else(|_| Err(worker::stopped("opening the locks", Effect::Unknown)))
    }

    /// Makes the directory where there is none, and sees that it can be written. Its full path: a program that changes
    /// its own directory later goes on with the same store.
    fn make_directory(&self) -> Result<PathBuf, EngineError> {
        let ready = fs::create_dir_all(&self.dir).and_then(|()| self.dir.canonicalize()).and_then(|dir| {
            rustix::fs::access(&dir, Access::WRITE_OK | Access::EXEC_OK)?;
            Ok(dir)
        });
        ready.map_err(|error| {
            let (kind, remedy) = match error.kind() {
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                    (TroubleKind::ReadOnly, "make it writable, or name a store directory that can be made and written")
                }
                _ => (TroubleKind::Unavailable, "name a store directory that can be made and written"),
            };
            EngineError::new(self.dir.display().to_string(), kind, remedy).caused_by(error)
        })
    }

    /// Opens it. Blocks for as long as other processes set the same store up, at most until `deadline`.
    pub fn open_blocking(self, deadline: Deadline) -> Result<Embedded, EngineError> {
        let dir = self.make_directory()?;
        let options = WriterOptions { sync: self.sync, fenced: self.fenced };
        let store = Arc::new(EmbeddedStore::open(dir.join("documents.db"), options, deadline)?);
        let locks = EmbeddedLocks::open(&dir, store.clone(), self.look_again, deadline)?;
        Ok(Embedded { store, locks: Arc::new(locks) })
    }

    /// Opens it, off the runtime's threads. Dropping the future lets the opening finish and closes what it opened.
    pub async fn open(self, deadline: Deadline) -> Result<Embedded, EngineError> {
        let opened = tokio::task::spawn_blocking(move || self.open_blocking(deadline)).await;
        opened.unwrap_or_else(|_| Err(worker::stopped("opening the store", Effect::Unknown)))
    }
}
