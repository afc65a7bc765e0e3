//! The one thread that writes documents: group commit.
//!
//! Whatever has queued while the last transaction was synced goes into the next one together, each write in a
//! savepoint of its own, and all are answered once that transaction stands. One writer pays one sync; sixty-four
//! writers pay one sync too. A caller that goes away does not stop its write.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use mutext_contract::{
    Commit, ContextName, Deadline, DocumentPath, Effect, EngineError, FencedRead, FencingToken, Outcome, TroubleKind,
};
use rusqlite::Connection;
use tokio::sync::{Notify, oneshot};

use crate::commit_rows;
use crate::sqlite::{self, Sync};
use crate::worker::{start_thread, stopped};

/// The most writes in one transaction.
const BATCH_MAX: usize = 64;
const THREAD: &str = "mutext-writer";

/// How the writer works.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WriterOptions {
    pub(crate) sync: Sync,
    /// False only where a test has switched the fence off to see the checkers notice.
    pub(crate) fenced: bool,
}

type Answer<T> = oneshot::Sender<Result<T, EngineError>>;

enum Write {
    Commit {
        context: ContextName,
        commit: Box<Commit>,
        deadline: Deadline,
        answer: Answer<Outcome>,
    },
    ReadFenced {
        context: ContextName,
        path: DocumentPath,
        token: FencingToken,
        deadline: Deadline,
        answer: Answer<FencedRead>,
    },
    /// Whatever is asked for now and then.
    Other(Box<dyn Work>),
}

/// An answer that waits for its transaction to stand.
enum Done {
    Commit(Answer<Outcome>, Outcome),
    ReadFenced(Answer<FencedRead>, FencedRead),
    Other(Box<dyn Told>),
}

/// A piece of work in the writer's transaction.
trait Work: Send {
    fn deadline(&self) -> Deadline;
    fn leaves_no_trace(&self) -> bool;
    fn apply(self: Box<Self>, desk: &Desk) -> Option<Box<dyn Told>>;
    fn fail(self: Box<Self>, error: &EngineError);
}

/// The caller of a piece of work that is done, but for the end of the transaction.
trait Told: Send {
    fn tell(self: Box<Self>);
    fn fail(self: Box<Self>, error: &EngineError);
}

struct Job<T, F> {
    run: F,
    deadline: Deadline,
    leaves_no_trace: bool,
    answer: Answer<T>,
}

impl<T, F> Work for Job<T, F>
where
    T: Send + 'static,
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
{
    fn deadline(&self) -> Deadline {
        self.deadline
    }

    fn leaves_no_trace(&self) -> bool {
        self.leaves_no_trace
    }

    fn apply(self: Box<Self>, desk: &Desk) -> Option<Box<dyn Told>> {
        let Self { run, answer, .. } = *self;
        match desk.step(|| run(&desk.connection)) {
            Ok(value) => Some(Box::new((answer, value))),
            Err(error) => {
                // The caller may have gone.
                let _ = answer.send(Err(error));
                None
            }
        }
    }

    fn fail(self: Box<Self>, error: &EngineError) {
        drop(self.answer.send(Err(again(error))));
    }
}

impl<T: Send> Told for (Answer<T>, T) {
    fn tell(self: Box<Self>) {
        // The caller may have gone: then nobody wants the answer.
        let _ = self.0.send(Ok(self.1));
    }

    fn fail(self: Box<Self>, error: &EngineError) {
        drop(self.0.send(Err(again(error))));
    }
}

pub(crate) struct Writer {
    queue: mpsc::Sender<Write>,
}

impl Writer {
    pub(crate) fn start(
        connection: Connection,
        file: PathBuf,
        options: WriterOptions,
        committed: Arc<Notify>,
    ) -> Result<Self, EngineError> {
        let (queue, writes) = mpsc::channel();
        let mut desk = Desk { connection, file, options, committed, sync: options.sync };
        start_thread(THREAD, move || {
            while let Ok(first) = writes.recv() {
                let batch = std::iter::once(first).chain(writes.try_iter().take(BATCH_MAX - 1)).collect();
                desk.serve(batch);
            }
        })?;
        Ok(Self { queue })
    }

    pub(crate) async fn commit(
        &self,
        context: ContextName,
        commit: Commit,
        deadline: Deadline,
    ) -> Result<Outcome, EngineError> {
        self.ask(|answer| Write::Commit { context, commit: Box::new(commit), deadline, answer }).await
    }

    pub(crate) async fn read_fenced(
        &self,
        context: ContextName,
        path: DocumentPath,
        token: FencingToken,
        deadline: Deadline,
    ) -> Result<FencedRead, EngineError> {
        self.ask(|answer| Write::ReadFenced { context, path, token, deadline, answer }).await
    }

    /// Runs a piece of work in the next transaction. Dropping the future does not stop it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        deadline: Deadline,
        run: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, EngineError> {
        self.ask(|answer| Write::Other(Box::new(Job { run, deadline, leaves_no_trace: false, answer }))).await
    }

    /// The same for a deletion: what it deletes is overwritten in the files.
    pub(crate) async fn erase<T: Send + 'static>(
        &self,
        deadline: Deadline,
        run: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, EngineError> {
        self.ask(|answer| Write::Other(Box::new(Job { run, deadline, leaves_no_trace: true, answer }))).await
    }

    async fn ask<T>(&self, write: impl FnOnce(Answer<T>) -> Write) -> Result<T, EngineError> {
        let (answer, answered) = oneshot::channel();
        self.queue.send(write(answer)).map_err(|_| stopped(THREAD, Effect::None))?;
        answered.await.unwrap_or_else(|_| Err(stopped(THREAD, Effect::Unknown)))
    }
}

struct Desk {
    connection: Connection,
    file: PathBuf,
    options: WriterOptions,
    committed: Arc<Notify>,
    sync: Sync,
}

impl Desk {
    /// One batch: those whose deadline passes while others keep the file busy are told so; the rest go on waiting.
    fn serve(&mut self, mut batch: Vec<Write>) {
        loop {
            let Some(first_deadline) = batch.iter().map(Write::deadline).min() else { return };
            let begun =
                self.set_sync(&batch).and_then(|()| sqlite::begin(&self.connection, &self.file, first_deadline));
            match begun {
                Ok(()) => return self.write(batch),
                Err(error) if error.kind == TroubleKind::Busy => {
                    let (late, rest): (Vec<_>, Vec<_>) =
                        batch.into_iter().partition(|write| write.deadline().has_passed());
                    late.into_iter().for_each(|write| write.fail(&error));
                    batch = rest;
                }
                Err(error) => return batch.into_iter().for_each(|write| write.fail(&error)),
            }
        }
    }

    /// A batch of reads under a lease need not wait for the disk: their marks matter only to processes that die with
    /// the power too. The next commit's sync takes them along.
    fn set_sync(&mut self, batch: &[Write]) -> Result<(), EngineError> {
        let marks_only = batch.iter().all(|write| matches!(write, Write::ReadFenced { .. }));
        let sync = if marks_only { Sync::Normal } else { self.options.sync };
        if sync != self.sync {
            let set = self.connection.execute_batch(sync.pragma());
            set.map_err(|error| sqlite::trouble(&self.file, error))?;
            self.sync = sync;
        }
        Ok(())
    }

    fn write(&self, batch: Vec<Write>) {
        let erases = batch.iter().any(|write| matches!(write, Write::Other(work) if work.leaves_no_trace()));
        if erases {
            // Where it cannot be had, the pages are free all the same, and are written over sooner or later.
            let _ = self.connection.pragma_update(None, "secure_delete", true);
        }
        let done: Vec<Done> = batch.into_iter().filter_map(|write| self.apply(write)).collect();
        match self.connection.execute_batch("COMMIT") {
            Ok(()) => {
                let changed = done.iter().any(Done::changes_documents);
                if erases {
                    self.empty_log();
                }
                done.into_iter().for_each(Done::tell);
                if changed {
                    self.committed.notify_waiters();
                }
            }
            Err(error) => {
                let error = sqlite::commit_trouble(&self.file, error);
                sqlite::rollback(&self.connection);
                done.into_iter().for_each(|done| done.fail(&error));
            }
        }
    }

    /// What was deleted stands in the write-ahead log until that is written over; readers may keep it for a while.
    fn empty_log(&self) {
        let _ = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        let _ = self.connection.pragma_update(None, "secure_delete", false);
    }

    /// Applies one write in a savepoint of its own; where it fails, the others stand.
    fn apply(&self, write: Write) -> Option<Done> {
        let connection = &self.connection;
        match write {
            Write::Commit { context, commit, answer, .. } => {
                let outcome = self.step(|| commit_rows::commit(connection, &context, &commit, self.options.fenced));
                keep(answer, outcome, Done::Commit)
            }
            Write::ReadFenced { context, path, token, answer, .. } => {
                let outcome = self.step(|| commit_rows::read_fenced(connection, &context, &path, token));
                keep(answer, outcome, Done::ReadFenced)
            }
            Write::Other(work) => work.apply(self).map(Done::Other),
        }
    }

    fn step<T>(&self, step: impl FnOnce() -> rusqlite::Result<T>) -> Result<T, EngineError> {
        let translate = |error| sqlite::trouble(&self.file, error);
        self.connection.execute_batch("SAVEPOINT one").map_err(translate)?;
        let outcome = step();
        let end = if outcome.is_ok() { "RELEASE one" } else { "ROLLBACK TO one; RELEASE one" };
        let ended = self.connection.execute_batch(end);
        outcome.and_then(|value| ended.map(|()| value)).map_err(translate)
    }
}

fn keep<T>(
    answer: Answer<T>,
    outcome: Result<T, EngineError>,
    done: impl FnOnce(Answer<T>, T) -> Done,
) -> Option<Done> {
    match outcome {
        Ok(value) => Some(done(answer, value)),
        Err(error) => {
            // The caller may have gone.
            let _ = answer.send(Err(error));
            None
        }
    }
}

impl Write {
    fn deadline(&self) -> Deadline {
        match self {
            Self::Commit { deadline, .. } | Self::ReadFenced { deadline, .. } => *deadline,
            Self::Other(work) => work.deadline(),
        }
    }

    fn fail(self, error: &EngineError) {
        match self {
            Self::Commit { answer, .. } => drop(answer.send(Err(again(error)))),
            Self::ReadFenced { answer, .. } => drop(answer.send(Err(again(error)))),
            Self::Other(work) => work.fail(error),
        }
    }
}

impl Done {
    /// Whether there may be something new in the feed.
    const fn changes_documents(&self) -> bool {
        matches!(self, Self::Commit(_, Outcome::Committed(_)) | Self::Other(_))
    }

    /// The caller may have gone: then nobody wants the answer.
    fn tell(self) {
        match self {
            Self::Commit(answer, outcome) => drop(answer.send(Ok(outcome))),
            Self::ReadFenced(answer, outcome) => drop(answer.send(Ok(outcome))),
            Self::Other(told) => told.tell(),
        }
    }

    fn fail(self, error: &EngineError) {
        match self {
            Self::Commit(answer, _) => drop(answer.send(Err(again(error)))),
            Self::ReadFenced(answer, _) => drop(answer.send(Err(again(error)))),
            Self::Other(told) => told.fail(error),
        }
    }
}

/// The same trouble for each of a batch; what the engine said goes along as text.
fn again(error: &EngineError) -> EngineError {
    let mut copy = EngineError::new(error.subject.clone(), error.kind.clone(), error.remedy).with_effect(error.effect);
    copy.source = error.source.as_ref().map(|source| source.to_string().into());
    copy
}
