//! The one thread that writes documents: group commit.
//!
//! Whatever has queued while the last transaction was synced goes into the next one together, each write in a
//! savepoint of its own, and all are answered once that transaction stands. One writer pays one sync; sixty-four
//! writers pay one sync too. A caller that goes away does not stop its write.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use mutext_contract::{
    Commit, ContextName, Deadline, DocumentPath, Effect, EngineError, FencedRead, FencingToken, Outcome, Revocation,
    TroubleKind,
};
use rusqlite::Connection;
use tokio::sync::{Notify, oneshot};

use crate::document_rows;
use crate::revocation_rows;
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
    MintEpoch {
        context: ContextName,
        deadline: Deadline,
        answer: Answer<u64>,
    },
    Revoke {
        context: ContextName,
        revocation: Revocation,
        deadline: Deadline,
        answer: Answer<()>,
    },
}

/// An answer that waits for its transaction to stand.
enum Done {
    Commit(Answer<Outcome>, Outcome),
    ReadFenced(Answer<FencedRead>, FencedRead),
    MintEpoch(Answer<u64>, u64),
    Revoke(Answer<()>),
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

    pub(crate) async fn mint_epoch(&self, context: ContextName, deadline: Deadline) -> Result<u64, EngineError> {
        self.ask(|answer| Write::MintEpoch { context, deadline, answer }).await
    }

    pub(crate) async fn revoke(
        &self,
        context: ContextName,
        revocation: Revocation,
        deadline: Deadline,
    ) -> Result<(), EngineError> {
        self.ask(|answer| Write::Revoke { context, revocation, deadline, answer }).await
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
        let done: Vec<Done> = batch.into_iter().filter_map(|write| self.apply(write)).collect();
        match self.connection.execute_batch("COMMIT") {
            Ok(()) => {
                let changed = done.iter().any(|done| matches!(done, Done::Commit(_, Outcome::Committed(_))));
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

    /// Applies one write in a savepoint of its own; where it fails, the others stand.
    fn apply(&self, write: Write) -> Option<Done> {
        let connection = &self.connection;
        match write {
            Write::Commit { context, commit, answer, .. } => {
                let outcome = self.step(|| document_rows::commit(connection, &context, &commit, self.options.fenced));
                keep(answer, outcome, Done::Commit)
            }
            Write::ReadFenced { context, path, token, answer, .. } => {
                let outcome = self.step(|| document_rows::read_fenced(connection, &context, &path, token));
                keep(answer, outcome, Done::ReadFenced)
            }
            Write::MintEpoch { context, answer, .. } => {
                keep(answer, self.step(|| document_rows::mint_epoch(connection, &context)), Done::MintEpoch)
            }
            Write::Revoke { context, revocation, answer, .. } => {
                let outcome = self.step(|| revocation_rows::insert(connection, &context, &revocation));
                keep(answer, outcome, |answer, ()| Done::Revoke(answer))
            }
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
    const fn deadline(&self) -> Deadline {
        match self {
            Self::Commit { deadline, .. }
            | Self::ReadFenced { deadline, .. }
            | Self::MintEpoch { deadline, .. }
            | Self::Revoke { deadline, .. } => *deadline,
        }
    }

    fn fail(self, error: &EngineError) {
        match self {
            Self::Commit { answer, .. } => drop(answer.send(Err(again(error)))),
            Self::ReadFenced { answer, .. } => drop(answer.send(Err(again(error)))),
            Self::MintEpoch { answer, .. } => drop(answer.send(Err(again(error)))),
            Self::Revoke { answer, .. } => drop(answer.send(Err(again(error)))),
        }
    }
}

impl Done {
    /// The caller may have gone: then nobody wants the answer.
    fn tell(self) {
        match self {
            Self::Commit(answer, outcome) => drop(answer.send(Ok(outcome))),
            Self::ReadFenced(answer, outcome) => drop(answer.send(Ok(outcome))),
            Self::MintEpoch(answer, epoch) => drop(answer.send(Ok(epoch))),
            Self::Revoke(answer) => drop(answer.send(Ok(()))),
        }
    }

    fn fail(self, error: &EngineError) {
        match self {
            Self::Commit(answer, _) => drop(answer.send(Err(again(error)))),
            Self::ReadFenced(answer, _) => drop(answer.send(Err(again(error)))),
            Self::MintEpoch(answer, _) => drop(answer.send(Err(again(error)))),
            Self::Revoke(answer) => drop(answer.send(Err(again(error)))),
        }
    }
}

/// The same trouble for each of a batch; what the engine said goes along as text.
fn again(error: &EngineError) -> EngineError {
    let mut copy = EngineError::new(error.subject.clone(), error.kind.clone(), error.remedy).with_effect(error.effect);
    copy.source = error.source.as_ref().map(|source| source.to_string().into());
    copy
}
