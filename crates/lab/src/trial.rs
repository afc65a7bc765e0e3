//! One trial: prepare the documents, let the agents work, gather, judge.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use mutext::{Address, AgentName, Commit, Content, Context, DocumentPath, Mutext, Precondition, Settings};

use crate::agent::{AgentLog, AgentTask};
use crate::judge::{FinalDocuments, Findings, judge};
use crate::peer::{AGENT, KEEPER, KeeperTask};
use crate::process::Process;
use crate::results::{Sample, Treatment, Trial, Workload};
use crate::workload;

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
    /// The program that lives an agent's life, and its arguments; the peer's, where the treatment is the peer's.
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
    #[error("{name} {what}{}", said(stderr))]
    Agent {
        /// Which one, as in `agent 0`.
        name: String,
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
    let ground = Ground::prepare(plan).await?;
    let role = plan.treatment.is_peer().then_some(AGENT);
    let mut agents = Vec::with_capacity(plan.workload.agents);
    for agent in 0..plan.workload.agents {
        let task = AgentTask {
            store: plan.store.clone(),
            locks: plan.locks.clone(),
            context: plan.context.clone(),
            agent,
            treatment: plan.treatment,
            workload: plan.workload.clone(),
            schedule: workload::schedule(&plan.workload, plan.seed, agent),
            warm_up: workload::warm_up_path(agent),
        };
        agents.push(Process::start(format!("agent {agent}"), &plan.agent_command, role, &task)?);
    }
    for agent in &mut agents {
        agent.get_ready().await?;
    }
    let (started_s, began) = (started.elapsed().as_secs_f64(), Instant::now());
    for agent in &mut agents {
        agent.go().await?;
    }
    let patience = patience(&plan.workload);
    let mut logs: Vec<AgentLog> = Vec::with_capacity(agents.len());
    for agent in agents {
        logs.push(agent.finish(patience.saturating_sub(began.elapsed())).await?);
    }
    let duration_ms = began.elapsed().as_secs_f64() * 1000.0;
    let documents = ground.finals(plan).await?;
    let findings = judge(plan.treatment, &logs, &documents);
    Ok(outcome(plan, started_s, duration_ms, &logs, findings))
}

/// The documents that the agents of a trial share, each an empty list in the beginning.
enum Ground {
    Ours(Box<(Mutext, Context)>),
    /// Only the peer knows how it keeps documents: a process of its makes them, and hands them over in the end.
    Peers(Box<Process>),
}

impl Ground {
    async fn prepare(plan: &TrialPlan) -> Result<Self, TrialError> {
        let shared = (0..plan.workload.documents).map(workload::path);
        if plan.treatment.is_peer() {
            let documents = shared.chain((0..plan.workload.agents).map(workload::warm_up_path)).collect();
            let task = KeeperTask { store: plan.store.clone(), context: plan.context.clone(), documents };
            let mut keeper = Process::start("the keeper".to_owned(), &plan.agent_command, Some(KEEPER), &task)?;
            keeper.get_ready().await?;
            return Ok(Self::Peers(Box::new(keeper)));
        }
        let mutext = Mutext::open(&plan.store, Some(&plan.locks)).await?;
        let laboratory = AgentName::new("laboratory").map_err(mutext::Error::from)?;
        let context = mutext.context(plan.context.as_str(), Settings::new(laboratory))?;
        let content = Content::parse_json("[]").map_err(mutext::Error::from)?;
        let mut commit = Commit::new(context.agent().clone());
        for path in shared {
            let path = DocumentPath::new(path).map_err(mutext::Error::from)?;
            commit = commit.put(path, content.clone(), Precondition::Absent);
        }
        context.commit(commit).await?;
        Ok(Self::Ours(Box::new((mutext, context))))
    }

    /// The shared documents as they are.
    async fn finals(self, plan: &TrialPlan) -> Result<FinalDocuments, TrialError> {
        match self {
            Self::Ours(ours) => {
                let (mutext, context) = *ours;
                let mut finals = FinalDocuments::new();
                for path in (0..plan.workload.documents).map(workload::path) {
                    if let Some(document) = context.get(path.as_str()).await? {
                        finals.insert(path, document.content.as_str().to_owned());
                    }
                }
                mutext.finish().await;
                Ok(finals)
            }
            Self::Peers(mut keeper) => {
                keeper.go().await?;
                keeper.finish(patience(&plan.workload)).await
            }
        }
    }
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
