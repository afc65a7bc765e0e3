//! What an experiment leaves behind, as plain data: plan, machine, trials, samples.
//!
//! Measuring writes this; statistics, charts and reports read it. `experiment report DIR` rebuilds every
//! page from the files that hold it, so nothing here may depend on a running experiment.

use serde::{Deserialize, Serialize};

/// What is compared: how an agent protects (or fails to protect) one update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Treatment {
    /// Blind read, think, write: no lock, no check.
    Baseline,
    /// A lease around it, but the store checks nothing: the published treatment.
    Unfenced,
    /// A lease, and the store checks the fencing token; no revision check, so that the lock is judged alone.
    Locking,
    /// Compare-and-set on the revision, retried on conflict; no lock.
    Optimistic,
    /// Lease, fence and revision: what the product does.
    Protected,
    /// Compare-and-set where conflicts are rare, lease, fence and revision where they are not: decided for each document
    /// by what its updates meet.
    Adaptive,
    /// The published experiment in Python, without a lock: the baseline of the next.
    #[serde(rename = "python baseline")]
    PythonBaseline,
    /// The published experiment in Python, under redis-py's lock.
    #[serde(rename = "python locking")]
    PythonLocking,
}

impl Treatment {
    /// All of them, in the order in which tables show them.
    pub const ALL: [Self; 8] = [
        Self::Baseline,
        Self::Unfenced,
        Self::Locking,
        Self::Optimistic,
        Self::Protected,
        Self::Adaptive,
        Self::PythonBaseline,
        Self::PythonLocking,
    ];
    /// Those that agents of ours carry out; the others are the peer's.
    pub const OURS: [Self; 6] =
        [Self::Baseline, Self::Unfenced, Self::Locking, Self::Optimistic, Self::Protected, Self::Adaptive];
    /// Those of the peer, whose agents are not ours.
    pub const PEERS: [Self; 2] = [Self::PythonBaseline, Self::PythonLocking];

    /// The name on the command line, in files and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Unfenced => "unfenced",
            Self::Locking => "locking",
            Self::Optimistic => "optimistic",
            Self::Protected => "protected",
            Self::Adaptive => "adaptive",
            Self::PythonBaseline => "python baseline",
            Self::PythonLocking => "python locking",
        }
    }

    /// Whether agents take a lease for every update, so that critical sections and tokens can be judged.
    pub const fn takes_lease(self) -> bool {
        matches!(self, Self::Unfenced | Self::Locking | Self::Protected | Self::PythonLocking)
    }

    /// Whether the peer's agents carry it out.
    pub const fn is_peer(self) -> bool {
        matches!(self, Self::PythonBaseline | Self::PythonLocking)
    }

    /// What it is compared with: the same agents without any protection.
    #[must_use]
    pub const fn baseline(self) -> Self {
        if self.is_peer() { Self::PythonBaseline } else { Self::Baseline }
    }

    /// Whether it is what others are compared with.
    pub const fn is_baseline(self) -> bool {
        matches!(self, Self::Baseline | Self::PythonBaseline)
    }
}

/// The workload's parameters: with the seed, they decide every choice that an agent makes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// The profile's name: `published`, `bare`, `single` or `hot`.
    pub profile: String,
    /// Agent processes a trial.
    pub agents: usize,
    /// Updates that each agent makes in a trial.
    pub updates_per_agent: usize,
    /// Documents that the agents share.
    pub documents: usize,
    /// How long an agent thinks between its read and its write, in milliseconds.
    pub think_ms: f64,
    /// The mean of the exponential pause before each update, in milliseconds.
    pub pause_ms_mean: f64,
    /// The TTL of each lease, in milliseconds.
    pub ttl_ms: u64,
    /// How long an acquire may queue, in milliseconds.
    pub wait_ms: u64,
    /// How long an agent's process is stopped between read and write, once a trial for one agent, in milliseconds.
    /// Longer than the TTL it shows what a lease without a fence is worth.
    pub stop_ms: Option<u64>,
}

/// What was run, and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// The experiment's name: `locking-mechanism`.
    pub experiment: String,
    /// The command line that repeats it.
    pub command: String,
    /// Mutext's version.
    pub version: String,
    /// Commit of the source tree, where it is known.
    pub commit: Option<String>,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// How long it took, in seconds.
    pub duration_s: f64,
    /// The seed of every random choice.
    pub seed: u64,
    /// Trials asked for, of each treatment.
    pub trials: usize,
    /// Treatments, in the order of the tables.
    pub treatments: Vec<Treatment>,
    /// The workload.
    pub workload: Workload,
    /// The document store, without any password.
    pub store: String,
    /// The lock service, without any password.
    pub locks: String,
    /// Versions and settings of the engines, one line each.
    pub engines: Vec<String>,
    /// The machine: one fact a line (processor, cores, memory, kernel, file system).
    pub machine: Vec<String>,
    /// Whether it was stopped before its last trial.
    pub interrupted: bool,
}

/// One run of one treatment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Which repetition, from 1; trials of one number ran next to each other and share their workload.
    pub trial: usize,
    /// What was compared.
    pub treatment: Treatment,
    /// Place in the whole experiment's order, from 1.
    pub order: usize,
    /// The seed of this trial's workload; the same for every treatment of one number.
    pub seed: u64,
    /// Seconds since the experiment's start.
    pub started_s: f64,
    /// From the starting signal to the last agent's end, in milliseconds.
    pub duration_ms: f64,
    /// Updates that were acknowledged to an agent.
    pub acknowledged_updates: usize,
    /// Acknowledged updates that the final documents lack.
    pub lost_updates: usize,
    /// Pairs of critical sections that certainly overlapped; judged where a lease is taken.
    pub overlaps: usize,
    /// Pairs of tokens out of order; judged where a lease is taken.
    pub token_violations: usize,
    /// Documents whose history no serial order explains.
    pub nonlinearizable_documents: usize,
    /// Documents whose history could not be judged within the budget.
    pub undecided_documents: usize,
    /// Conflicts that were met and retried.
    pub conflicts: usize,
    /// Lock waits that ended in a timeout and were tried again.
    pub timeouts: usize,
    /// Writes refused because the lease was lost.
    pub lost_leases: usize,
    /// Operations that failed in another way.
    pub errors: usize,
    /// Whether any check failed.
    pub corrupt: bool,
    /// What went wrong, in words; empty for a clean trial.
    pub evidence: Vec<String>,
}

/// One acknowledged update.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Which repetition.
    pub trial: usize,
    /// What was compared.
    pub treatment: Treatment,
    /// Which agent, from 0.
    pub agent: usize,
    /// From the update's start to its acknowledgement, thinking and waiting included, in milliseconds.
    pub update_ms: f64,
    /// From asking for the lease to holding it, in milliseconds; `None` where no lease is taken.
    pub acquire_ms: Option<f64>,
}

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// What was run, and where.
    pub metadata: Metadata,
    /// One entry a trial, in the order in which they ran.
    pub trials: Vec<Trial>,
    /// One entry an acknowledged update.
    pub samples: Vec<Sample>,
}

impl Results {
    /// The trials of one treatment, in order.
    pub fn of(&self, treatment: Treatment) -> impl Iterator<Item = &Trial> {
        self.trials.iter().filter(move |trial| trial.treatment == treatment)
    }

    /// The samples of one treatment, in order.
    pub fn samples_of(&self, treatment: Treatment) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.treatment == treatment)
    }
}
