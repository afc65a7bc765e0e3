//! One agent: a process of its own that uses the public library as anyone would, and writes down what happened.
//!
//! It reads its task from standard input, where nobody else sees the passwords in it, tries itself out on a document of
//! its own, answers `ready`, waits for a line, works, and ends with its log as JSON. The log is kept in memory
//! meanwhile, so that writing it costs no update anything. A peer's agents speak the same protocol.

use std::cell::RefCell;
use std::io::{BufRead, Write};
use std::time::Duration;

use mutext::{
    Address, AgentName, Commit, Content, Context, Document, DocumentPath, Error, FencingToken, LockGuard, Mutext,
    Precondition, Settings, Strategy, Ttl, Updated, Wait,
};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::results::{Treatment, Workload};
use crate::workload::Step;

/// How long one update may go on being tried.
const PATIENCE: Duration = Duration::from_secs(30);

/// What an agent is told to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AgentTask {
    /// Where the documents lie.
    pub store: Address,
    /// Where the locks lie.
    pub locks: Address,
    /// The trial's context.
    pub context: String,
    /// Which agent, from 0.
    pub agent: usize,
    /// How it protects its updates.
    pub treatment: Treatment,
    /// The parameters of what it does.
    pub workload: Workload,
    /// What it does.
    pub schedule: Vec<Step>,
    /// The document that it tries itself out on: an update that nobody counts, after which connections, prepared
    /// statements and scripts are in place as they are in any program that has run for a while.
    pub warm_up: String,
}

/// What an agent saw and did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentLog {
    /// Its updates, in order, as far as they ended or may have happened.
    pub updates: Vec<UpdateRecord>,
    /// Conflicts that it met and retried.
    pub conflicts: usize,
    /// Lock waits that timed out and were tried again.
    pub timeouts: usize,
    /// Writes refused because the lease was lost, and made again.
    pub lost_leases: usize,
    /// What went wrong in another way.
    pub errors: Vec<String>,
}

/// One update: moments in nanoseconds of the machine's monotonic clock, which all agents share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpdateRecord {
    /// Names the update; it is what the update adds to the document.
    pub id: String,
    /// The document.
    pub path: String,
    /// Before anything of it.
    pub invoked: u64,
    /// After its acknowledgement; `None` where it may have happened or not.
    pub returned: Option<u64>,
    /// When its read had returned: from here it certainly was between read and write.
    pub entered: u64,
    /// When its write was about to go out: until here it certainly was.
    pub left: u64,
    /// When it asked for its lease.
    pub asked: Option<u64>,
    /// When it certainly held it.
    pub granted: Option<u64>,
    /// From asking for the first time to holding, in milliseconds.
    pub acquire_ms: Option<f64>,
    /// Its lease's token.
    pub token: Option<FencingToken>,
    /// What it read.
    pub read: String,
    /// What it wrote.
    pub written: String,
    /// The revision that it made.
    pub revision: Option<u64>,
}

/// Nanoseconds on the machine's monotonic clock.
pub fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap_or(0)
}

/// Why an agent could not work at all.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Its task is not what it should be.
    #[error("the task on standard input cannot be read: {0}")]
    Task(#[from] serde_json::Error),
    /// Its parent went away.
    #[error("the parent process is gone: {0}")]
    Parent(#[from] std::io::Error),
    /// The store could not be opened.
    #[error(transparent)]
    Open(#[from] Error),
    /// Not even an update of a document that nobody else uses went through.
    #[error("no update is possible: {0}")]
    WarmUp(String),
}

/// The whole life of an agent process.
pub async fn live() -> Result<(), AgentError> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let task: AgentTask = serde_json::from_str(&line)?;
    let mutext = Mutext::open(&task.store, Some(&task.locks)).await?;
    let settings = settings(&task)?;
    let context = mutext.context(task.context.as_str(), settings)?;
    warm_up(&task, &context).await?;
    say("ready")?;
    std::io::stdin().lock().read_line(&mut line)?;
    let log = work(&task, &context).await;
    mutext.finish().await;
    say(&serde_json::to_string(&log)?)?;
    Ok(())
}

pub(crate) fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn settings(task: &AgentTask) -> Result<Settings, Error> {
    let mut settings = Settings::new(AgentName::new(format!("agent-{}", task.agent))?);
    settings.ttl = Ttl::new(Duration::from_millis(task.workload.ttl_ms))?;
    settings.wait = Wait::new(Duration::from_millis(task.workload.wait_ms))?;
    settings.patience = PATIENCE;
    Ok(settings)
}

async fn warm_up(task: &AgentTask, context: &Context) -> Result<(), AgentError> {
    let log = RefCell::new(AgentLog::default());
    let id = "warm-up".to_owned();
    let update = Update { context, log: &log, id, think: Duration::ZERO, stops: RefCell::new(None) };
    update.run(task.treatment, &DocumentPath::new(task.warm_up.as_str()).map_err(Error::from)?).await;
    let first = log.into_inner().errors.into_iter().next();
    first.map_or(Ok(()), |error| Err(AgentError::WarmUp(error)))
}

async fn work(task: &AgentTask, context: &Context) -> AgentLog {
    let log = RefCell::new(AgentLog::default());
    for (number, step) in task.schedule.iter().enumerate() {
        sleep(step.pause()).await;
        let id = format!("{}-{number}", task.agent);
        let stops = task.workload.stop_ms.filter(|_| task.agent == 0 && number == 0);
        let update = Update { context, log: &log, id, think: think_time(&task.workload), stops: RefCell::new(stops) };
        match DocumentPath::new(step.path.as_str()) {
            Ok(path) => update.run(task.treatment, &path).await,
            Err(error) => log.borrow_mut().errors.push(error.to_string()),
        }
    }
    log.into_inner()
}

/// Sleeps to the microsecond, as a peer's agents do: the runtime's own timer counts in whole milliseconds.
async fn sleep(duration: Duration) {
    if !duration.is_zero() {
        // Where no thread can be had, the runtime's timer is good enough.
        if tokio::task::spawn_blocking(move || std::thread::sleep(duration)).await.is_err() {
            tokio::time::sleep(duration).await;
        }
    }
}

fn think_time(workload: &Workload) -> Duration {
    Duration::from_secs_f64(workload.think_ms / 1000.0)
}

/// One update under way.
struct Update<'a> {
    context: &'a Context,
    log: &'a RefCell<AgentLog>,
    id: String,
    think: Duration,
    /// Its process is to be stopped for so many milliseconds, once.
    stops: RefCell<Option<u64>>,
}

/// One attempt's notes.
#[derive(Debug, Default)]
struct Notes {
    entered: u64,
    left: u64,
    asked: Option<u64>,
    granted: Option<u64>,
    waited: Option<Duration>,
    token: Option<FencingToken>,
    read: String,
    written: String,
}

impl Update<'_> {
    /// Tries until it is acknowledged, or nothing can be done about it.
    async fn run(&self, treatment: Treatment, path: &DocumentPath) {
        let invoked = now_ns();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        // Waits that came to nothing are part of what it took to get the lease.
        let mut in_vain = Duration::ZERO;
        loop {
            let notes = RefCell::new(Notes::default());
            let outcome = match treatment {
                Treatment::Baseline => self.blind(path, &notes).await,
                Treatment::Unfenced | Treatment::Locking => self.locked(treatment, path, &notes).await,
                Treatment::Optimistic => self.by_library(Strategy::CompareAndSet, path, &notes).await,
                Treatment::Protected => {
                    let settings = self.context.settings();
                    let strategy = Strategy::Lease { ttl: settings.ttl, wait: settings.wait };
                    self.by_library(strategy, path, &notes).await
                }
                Treatment::Adaptive => {
                    let settings = self.context.settings();
                    let strategy = Strategy::Adaptive { ttl: settings.ttl, wait: settings.wait };
                    self.by_library(strategy, path, &notes).await
                }
                Treatment::PythonBaseline | Treatment::PythonLocking => {
                    self.log.borrow_mut().errors.push(format!("{} is for the peer's agents", treatment.name()));
                    return;
                }
            };
            match outcome {
                Ok(revision) => {
                    let mut notes = notes.into_inner();
                    notes.waited = notes.waited.map(|waited| waited + in_vain);
                    return self.record(path, invoked, notes, Some(revision));
                }
                Err(error) if tokio::time::Instant::now() < deadline && self.may_retry(&error) => {
                    if let Error::Timeout { waited, .. } = error {
                        in_vain += waited;
                    }
                }
                Err(error) => {
                    let may_have_happened =
                        matches!(&error, Error::Engine(trouble) if trouble.effect == mutext::Effect::Unknown);
                    self.log.borrow_mut().errors.push(error.to_string());
                    if may_have_happened {
                        self.record(path, invoked, notes.into_inner(), None);
                    }
                    return;
                }
            }
        }
    }

    fn may_retry(&self, error: &Error) -> bool {
        let mut log = self.log.borrow_mut();
        match error {
            Error::Timeout { .. } => log.timeouts += 1,
            Error::LeaseLost { .. } => log.lost_leases += 1,
            Error::Conflict(_) => log.conflicts += 1,
            _ => return false,
        }
        true
    }

    fn record(&self, path: &DocumentPath, invoked: u64, notes: Notes, revision: Option<u64>) {
        self.log.borrow_mut().updates.push(UpdateRecord {
            id: self.id.clone(),
            path: path.as_str().to_owned(),
            invoked,
            returned: revision.map(|_| now_ns()),
            entered: notes.entered,
            left: notes.left,
            asked: notes.asked,
            granted: notes.granted,
            acquire_ms: notes.waited.map(|waited| waited.as_secs_f64() * 1000.0),
            token: notes.token,
            read: notes.read,
            written: notes.written,
            revision,
        });
    }

    /// Baseline: read, think, write, and hope.
    async fn blind(&self, path: &DocumentPath, notes: &RefCell<Notes>) -> Result<u64, Error> {
        let document = self.context.get(path).await?;
        let content = self.change(document.as_ref(), notes).await?;
        self.context.put(path, content, Precondition::Any).await.map(|revision| revision.0)
    }

    /// Under a lease, without any revision check: the lock is judged alone. `Locking` presents its fence with the
    /// read and with the write; `Unfenced` shows the store nothing, as the published treatment did.
    async fn locked(&self, treatment: Treatment, path: &DocumentPath, notes: &RefCell<Notes>) -> Result<u64, Error> {
        notes.borrow_mut().asked = Some(now_ns());
        let guard: LockGuard = self.context.lock(path).await?;
        {
            let mut notes = notes.borrow_mut();
            notes.granted = Some(now_ns());
            notes.waited = Some(guard.waited());
            notes.token = Some(guard.token());
        }
        let fenced = treatment == Treatment::Locking;
        let document = if fenced { guard.get(path).await? } else { self.context.get(path).await? };
        let content = self.change(document.as_ref(), notes).await?;
        let commit = Commit::new(self.context.agent().clone()).put(path.clone(), content, Precondition::Any);
        let commit = if fenced { commit.fenced_by(guard.fence()) } else { commit };
        let committed = self.context.commit(commit).await?;
        Ok(committed.revisions.first().map_or(0, |(_, revision)| revision.0))
    }

    /// As the product does it: `Context::update`, by compare-and-set or under a lease.
    async fn by_library(&self, strategy: Strategy, path: &DocumentPath, notes: &RefCell<Notes>) -> Result<u64, Error> {
        let mut options = self.context.update_options();
        options.strategy = strategy;
        let asked = now_ns();
        let change = |document: Option<Document>| async move {
            notes.borrow_mut().granted = Some(now_ns());
            self.change(document.as_ref(), notes).await
        };
        let updated: Updated = self.context.update_with(path, &options, change).await?;
        self.log.borrow_mut().conflicts += updated.attempts as usize - 1;
        let mut notes = notes.borrow_mut();
        notes.token = updated.token;
        notes.waited = updated.waited;
        notes.asked = updated.token.map(|_| asked);
        if updated.token.is_none() {
            notes.granted = None;
        }
        Ok(updated.revision.0)
    }

    /// What every treatment does between its read and its write: think, and add the update's id to the list.
    async fn change(&self, document: Option<&Document>, notes: &RefCell<Notes>) -> Result<Content, Error> {
        let entered = now_ns();
        let read = document.map_or("[]", |document| document.content.as_str()).to_owned();
        if let Some(stop_ms) = self.stops.borrow_mut().take() {
            stop_this_process(stop_ms, &mut self.log.borrow_mut().errors);
        }
        sleep(self.think).await;
        let mut ids: Vec<String> = match document {
            Some(document) => document.content.parse()?,
            None => Vec::new(),
        };
        ids.push(self.id.clone());
        let content = Content::json(&ids)?;
        let mut notes = notes.borrow_mut();
        notes.entered = entered;
        notes.read = read;
        content.as_str().clone_into(&mut notes.written);
        notes.left = now_ns();
        Ok(content)
    }
}

/// Stops the whole process, renewal and all, as a suspended machine or a long collection of garbage would. A helper
/// wakes it up again, whatever becomes of the parent.
fn stop_this_process(stop_ms: u64, errors: &mut Vec<String>) {
    let own = rustix::process::getpid();
    #[expect(clippy::cast_precision_loss, reason = "a pause of milliseconds")]
    let seconds = stop_ms as f64 / 1000.0;
    let alarm = format!("sleep {seconds}; kill -CONT {}", own.as_raw_nonzero());
    let started = std::process::Command::new("sh").args(["-c", &alarm]).spawn();
    let stopped = started.map_err(|error| error.to_string()).and_then(|_| {
        rustix::process::kill_process(own, rustix::process::Signal::STOP).map_err(|error| error.to_string())
    });
    if let Err(error) = stopped {
        errors.push(format!("the process could not be stopped: {error}"));
    }
}
