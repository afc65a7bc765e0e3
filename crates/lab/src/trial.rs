//! One trial: prepare the documents, let the agents work, gather, judge.

use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use mutext::{Address, AgentName, Commit, Content, Context, DocumentPath, Mutext, Precondition, Settings};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::agent::{AgentLog, AgentTask};
use crate::judge::{FinalDocuments, Findings, judge};
use crate::results::{Sample, Treatment, Trial, Workload};
use crate::workload;

/// How long an agent may take to get ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// What one trial is to do.
#[derive(Debug, Clone)]
pub struct TrialPlan {
    /// Which repetition, from 1.
    pub trial: usize,
    /// Place in the whole experiment's order, from 1.
    pub order: usize,
    /// What is compared.
    pub treatment: Treatment,
    /// The seed of its workload.
    pub seed: u64,
    /// The workload.
    pub workload: Workload,
    /// Where the documents lie.
    pub store: Address,
    /// Where the locks lie.
    pub locks: Address,
    /// A context that nobody else uses.
    pub context: String,
    /// The program that lives an agent's life, and its arguments.
    pub agent_command: Vec<OsString>,
}

/// Why a trial could not be run.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The store or the locks gave trouble.
    #[error(transparent)]
    Mutext(#[from] mutext::Error),
    /// An agent could not be started.
    #[error("agent process {program} cannot be started: {source}")]
    Start {
        /// The program.
        program: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// An agent ended before its time.
    #[error("agent {agent} {what}{}", said(stderr))]
    Agent {
        /// Which one, from 0.
        agent: usize,
        /// What it did.
        what: String,
        /// What it said on standard error.
        stderr: String,
    },
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!("; it said: {}", stderr.trim()) }
}

/// What a trial leaves behind.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialOutcome {
    /// Its row.
    pub trial: Trial,
    /// One sample an acknowledged update.
    pub samples: Vec<Sample>,
}

/// Runs one trial. Dropping the future kills its agents.
pub async fn run(plan: &TrialPlan, started: Instant) -> Result<TrialOutcome, TrialError> {
    let mutext = Mutext::open(&plan.store, Some(&plan.locks)).await?;
    let context = mutext
        .context(plan.context.as_str(), Settings::new(AgentName::new("laboratory").map_err(mutext::Error::from)?))?;
    prepare(&context, plan.workload.documents).await?;

    let mut agents = Vec::with_capacity(plan.workload.agents);
    for agent in 0..plan.workload.agents {
        agents.push(Agent::start(plan, agent)?);
    }
    for agent in &mut agents {
        agent.get_ready().await?;
    }
    let (started_s, began) = (started.elapsed().as_secs_f64(), Instant::now());
    for agent in &mut agents {
        agent.go().await?;
    }
    let patience = patience(&plan.workload);
    let mut logs = Vec::with_capacity(agents.len());
    for agent in agents {
        logs.push(agent.finish(patience.saturating_sub(began.elapsed())).await?);
    }
    let duration_ms = began.elapsed().as_secs_f64() * 1000.0;
    let documents = finals(&context, plan.workload.documents).await?;
    let findings = judge(plan.treatment, &logs, &documents);
    Ok(outcome(plan, started_s, duration_ms, &logs, findings))
}

/// The documents that the agents share, each an empty list.
async fn prepare(context: &Context, documents: usize) -> Result<(), mutext::Error> {
    let mut commit = Commit::new(context.agent().clone());
    for document in 0..documents {
        let path = DocumentPath::new(workload::path(document))?;
        commit = commit.put(path, Content::parse_json("[]")?, Precondition::Absent);
    }
    context.commit(commit).await.map(drop)
}

async fn finals(context: &Context, documents: usize) -> Result<FinalDocuments, mutext::Error> {
    let mut finals = FinalDocuments::new();
    for document in 0..documents {
        let path = workload::path(document);
        if let Some(document) = context.get(path.as_str()).await? {
            finals.insert(path, document.content.as_str().to_owned());
        }
    }
    Ok(finals)
}

/// How long the agents of a trial may take: far longer than they need, so that a hang is an error and not forever.
fn patience(workload: &Workload) -> Duration {
    let update_ms = workload.think_ms + 10.0 * workload.pause_ms_mean + 2.0 * workload.wait_ms as f64;
    let total_ms = 60_000.0 + update_ms * (workload.updates_per_agent * workload.agents) as f64;
    Duration::from_secs_f64((total_ms + workload.stop_ms.unwrap_or(0) as f64) / 1000.0)
}

fn outcome(plan: &TrialPlan, started_s: f64, duration_ms: f64, logs: &[AgentLog], findings: Findings) -> TrialOutcome {
    let mut samples = Vec::new();
    for (agent, log) in logs.iter().enumerate() {
        for update in &log.updates {
            let Some(returned) = update.returned else { continue };
            samples.push(Sample {
                trial: plan.trial,
                treatment: plan.treatment,
                agent,
                update_ms: returned.saturating_sub(update.invoked) as f64 / 1e6,
                acquire_ms: update.acquire_ms,
            });
        }
    }
    let sum = |count: fn(&AgentLog) -> usize| logs.iter().map(count).sum::<usize>();
    let corrupt = findings.is_corrupt();
    let mut evidence = findings.evidence;
    evidence.extend(logs.iter().flat_map(|log| log.errors.iter().take(3).map(|error| format!("error: {error}"))));
    let trial = Trial {
        trial: plan.trial,
        treatment: plan.treatment,
        order: plan.order,
        seed: plan.seed,
        started_s,
        duration_ms,
        acknowledged_updates: samples.len(),
        lost_updates: findings.lost_updates,
        overlaps: findings.overlaps,
        token_violations: findings.token_violations,
        nonlinearizable_documents: findings.nonlinearizable_documents,
        undecided_documents: findings.undecided_documents,
        conflicts: sum(|log| log.conflicts),
        timeouts: sum(|log| log.timeouts),
        lost_leases: sum(|log| log.lost_leases),
        errors: sum(|log| log.errors.len()),
        corrupt,
        evidence,
    };
    TrialOutcome { trial, samples }
}

/// An agent's process, as its parent sees it. Killed when dropped.
struct Agent {
    number: usize,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    task: String,
}

impl Agent {
    fn start(plan: &TrialPlan, agent: usize) -> Result<Self, TrialError> {
        let task = AgentTask {
            store: plan.store.clone(),
            locks: plan.locks.clone(),
            context: plan.context.clone(),
            agent,
            treatment: plan.treatment,
            workload: plan.workload.clone(),
            seed: plan.seed,
        };
        let refuse = |what: &str| TrialError::Agent { agent, what: what.to_owned(), stderr: String::new() };
        let task = serde_json::to_string(&task).map_err(|error| refuse(&format!("has no task: {error}")))?;
        let Some((program, arguments)) = plan.agent_command.split_first() else {
            return Err(refuse("has no program"));
        };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let program = program.to_string_lossy().into_owned();
        let mut child = command.spawn().map_err(|source| TrialError::Start { program, source })?;
        let (stdin, stdout) = match (child.stdin.take(), child.stdout.take()) {
            (Some(stdin), Some(stdout)) => (stdin, BufReader::new(stdout)),
            _ => return Err(refuse("has no pipes")),
        };
        Ok(Self { number: agent, child, stdin, stdout, task })
    }

    async fn get_ready(&mut self) -> Result<(), TrialError> {
        let task = format!("{}\n", self.task);
        if self.stdin.write_all(task.as_bytes()).await.is_err() {
            return Err(self.failed("ended before its task").await);
        }
        match tokio::time::timeout(READY_WITHIN, self.line()).await {
            Ok(Some(line)) if line == "ready" => Ok(()),
            Ok(_) => Err(self.failed("ended before it was ready").await),
            Err(_) => Err(self.failed("was not ready in time").await),
        }
    }

    async fn go(&mut self) -> Result<(), TrialError> {
        match self.stdin.write_all(b"go\n").await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failed("ended before its work").await),
        }
    }

    async fn finish(mut self, patience: Duration) -> Result<AgentLog, TrialError> {
        let Ok(line) = tokio::time::timeout(patience, self.line()).await else {
            return Err(self.failed("did not finish in time").await);
        };
        match line.as_deref().map(serde_json::from_str) {
            Some(Ok(log)) => {
                // It has said all it had to say; reap it.
                let _ = tokio::time::timeout(READY_WITHIN, self.child.wait()).await;
                Ok(log)
            }
            _ => Err(self.failed("ended without its log").await),
        }
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stdout.read_line(&mut line).await {
            Ok(1..) => Some(line.trim_end().to_owned()),
            _ => None,
        }
    }

    /// What became of it, with what it said; it is killed if it still lives.
    async fn failed(&mut self, what: &str) -> TrialError {
        let _ = self.child.start_kill();
        let status = self.child.wait().await.ok();
        let mut stderr = String::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            let _ = pipe.read_to_string(&mut stderr).await;
        }
        let status = status.map(|status: ExitStatus| format!(" ({status})")).unwrap_or_default();
        TrialError::Agent { agent: self.number, what: format!("{what}{status}"), stderr }
    }
}
