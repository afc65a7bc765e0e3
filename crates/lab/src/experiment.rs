//! The experiment: trials of each treatment in turn, interleaved and in random order within each round, so that
//! whatever drifts on the machine drifts for all of them alike.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mutext::{Address, LeaseId};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::machine;
use crate::peer::Peer;
use crate::results::{Metadata, Results, Treatment, Trial, Workload};
use crate::trial::{self, TrialError, TrialPlan};
use crate::workload::trial_seed;

/// Where documents or locks lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a fresh embedded store for each trial.
    Fresh,
    /// In engines that are there, and that others may use too.
    At(Address),
}

impl Place {
    pub(crate) fn in_trial(&self, fresh: &Path) -> Address {
        match self {
            Self::Fresh => Address::embedded(fresh),
            Self::At(address) => address.clone(),
        }
    }

    /// As a report may show it: without any password.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Fresh => "embedded (a fresh directory for each trial)".to_owned(),
            Self::At(address) => address.to_string(),
        }
    }

    pub(crate) fn is_embedded(&self) -> bool {
        self.shown().starts_with("embedded")
    }
}

/// What an experiment is to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Treatments, in the order of the tables.
    pub treatments: Vec<Treatment>,
    /// Trials of each treatment.
    pub trials: usize,
    /// The workload.
    pub workload: Workload,
    /// The seed of every random choice.
    pub seed: u64,
    /// Where the documents lie.
    pub store: Place,
    /// Where the locks lie.
    pub locks: Place,
    /// Versions and settings of the servers, as far as they are known, one fact a line.
    pub servers: Vec<String>,
    /// Who carries out the treatments that are not ours.
    pub peer: Option<Peer>,
    /// Where fresh stores are made: on the disk that is to be measured.
    pub scratch: PathBuf,
    /// The program that lives an agent's life, and its arguments.
    pub agent_command: Vec<OsString>,
    /// The command line that repeats the experiment.
    pub command: String,
    /// Commit of the source tree, where it is known.
    pub commit: Option<String>,
}

/// Why an experiment could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ExperimentError {
    /// A trial could not be run.
    #[error("trial {trial} of {} could not be run: {source}", treatment.name())]
    Trial {
        /// Which repetition.
        trial: usize,
        /// Of what.
        treatment: Treatment,
        /// Why.
        source: TrialError,
    },
    /// A fresh store could not be made.
    #[error("no fresh store can be made in {}: {source}; name another with --store", dir.display())]
    Scratch {
        /// Where.
        dir: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A treatment is the peer's, and there is none.
    #[error("{} needs the peer that carries it out; add --compare python", _0.name())]
    NoPeer(Treatment),
}

/// Runs the whole experiment; `watch` is shown each trial as it ends. Where `stop` is ready first, the trial under
/// way is given up, and what was measured so far is the result.
pub async fn run(
    plan: &Plan,
    mut watch: impl FnMut(&Trial),
    stop: impl Future<Output = ()>,
) -> Result<Results, ExperimentError> {
    let (started, started_at) = (Instant::now(), machine::now());
    let mut results = Results { metadata: metadata(plan, started_at), trials: Vec::new(), samples: Vec::new() };
    let mut stop = std::pin::pin!(stop);
    for (order, (trial, treatment)) in (1..).zip(schedule(plan)) {
        let fail = |source| ExperimentError::Trial { trial, treatment, source };
        let (plan, scratch) = trial_plan(plan, trial, order, treatment)?;
        let outcome = tokio::select! {
            biased;
            () = &mut stop => {
                results.metadata.interrupted = true;
                break;
            }
            outcome = trial::run(&plan, started) => outcome,
        };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            // The key that stops this process stops its agents too, and their end may be seen first.
            Err(error) => {
                let grace = Duration::from_millis(300);
                if tokio::time::timeout(grace, &mut stop).await.is_ok() {
                    results.metadata.interrupted = true;
                    break;
                }
                return Err(fail(error));
            }
        };
        if let Some(scratch) = scratch {
            scratch.remove();
        }
        watch(&outcome.trial);
        results.trials.push(outcome.trial);
        results.samples.extend(outcome.samples);
    }
    results.metadata.duration_s = started.elapsed().as_secs_f64();
    Ok(results)
}

/// Round after round, each with every treatment once, in an order that the seed shuffles.
fn schedule(plan: &Plan) -> Vec<(usize, Treatment)> {
    let mut random = StdRng::seed_from_u64(plan.seed);
    let round = |trial| {
        let mut treatments = plan.treatments.clone();
        treatments.shuffle(&mut random);
        treatments.into_iter().map(move |treatment| (trial, treatment))
    };
    (1..=plan.trials).flat_map(round).collect()
}

fn trial_plan(
    plan: &Plan,
    trial: usize,
    order: usize,
    treatment: Treatment,
) -> Result<(TrialPlan, Option<Scratch>), ExperimentError> {
    let needs_scratch = !treatment.is_peer() && [&plan.store, &plan.locks].contains(&&Place::Fresh);
    let scratch = needs_scratch.then(|| fresh_directory(&plan.scratch)).transpose()?;
    let fresh = scratch.as_ref().map_or(plan.scratch.as_path(), Scratch::path);
    let (store, locks, agent_command) = if treatment.is_peer() {
        let peer = plan.peer.clone().ok_or(ExperimentError::NoPeer(treatment))?;
        (peer.store, peer.locks, peer.command)
    } else {
        (plan.store.in_trial(fresh), plan.locks.in_trial(fresh), plan.agent_command.clone())
    };
    let plan = TrialPlan {
        trial,
        order,
        treatment,
        seed: trial_seed(plan.seed, trial),
        workload: plan.workload.clone(),
        store,
        locks,
        // A store that others use, or that was used before, is not touched: nobody else has this context.
        context: format!("laboratory-{}", &LeaseId::random().to_string()[..12]),
        agent_command,
    };
    Ok((plan, scratch))
}

/// A trial's directory, removed with all that is in it.
pub(crate) struct Scratch {
    dir: tempfile::TempDir,
    /// Whether the trial has come to its end: nobody is at work in it any more.
    is_over: bool,
}

impl Scratch {
    /// Of a trial that was given up, agents that were killed take a moment to die, and a store that was being opened is
    /// opened to the end by a thread that nobody waits for: either may make the directory anew. It is gone once it has
    /// been for so long, and looked after no longer than the other.
    const QUIET: Duration = Duration::from_millis(200);
    const PATIENCE: Duration = Duration::from_secs(3);

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Of a trial that came to its end: gone at once.
    pub(crate) fn remove(mut self) {
        self.is_over = true;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let (began, quiet) = (Instant::now(), if self.is_over { Duration::ZERO } else { Self::QUIET });
        let mut gone = None;
        while began.elapsed() < Self::PATIENCE {
            match std::fs::remove_dir_all(self.path()).map_err(|error| error.kind()) {
                Err(std::io::ErrorKind::NotFound) => {}
                Ok(()) => gone = Some(Instant::now()),
                Err(_) => gone = None,
            }
            if gone.get_or_insert_with(Instant::now).elapsed() >= quiet && !self.path().exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

pub(crate) fn fresh_directory(dir: &Path) -> Result<Scratch, ExperimentError> {
    let made = std::fs::create_dir_all(dir).and_then(|()| tempfile::Builder::new().prefix("trial-").tempdir_in(dir));
    made.map(|dir| Scratch { dir, is_over: false })
        .map_err(|source| ExperimentError::Scratch { dir: dir.to_owned(), source })
}

fn metadata(plan: &Plan, started_at: String) -> Metadata {
    let mut engines = machine::engines(plan.store.is_embedded(), plan.locks.is_embedded());
    engines.extend(plan.servers.iter().chain(plan.peer.iter().flat_map(|peer| &peer.facts)).cloned());
    Metadata {
        experiment: "locking-mechanism".to_owned(),
        command: plan.command.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: plan.commit.clone(),
        started_at,
        duration_s: 0.0,
        seed: plan.seed,
        trials: plan.trials,
        treatments: plan.treatments.clone(),
        workload: plan.workload.clone(),
        locks: plan.locks.shown(),
        store: plan.store.shown(),
        engines,
        machine: machine::describe(&plan.scratch),
        interrupted: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::profile;

    fn plan() -> Plan {
        Plan {
            treatments: vec![Treatment::Baseline, Treatment::Locking, Treatment::Protected],
            trials: 20,
            workload: profile("published").unwrap(),
            seed: 42,
            store: Place::Fresh,
            locks: Place::Fresh,
            servers: Vec::new(),
            peer: None,
            scratch: PathBuf::from("."),
            agent_command: Vec::new(),
            command: String::new(),
            commit: None,
        }
    }

    #[test]
    fn every_round_has_every_treatment_once_in_changing_order() {
        let schedule = schedule(&plan());
        assert_eq!(schedule.len(), 60);
        let mut firsts = Vec::new();
        for (round, trials) in (1..).zip(schedule.chunks(3)) {
            assert!(trials.iter().all(|(trial, _)| *trial == round));
            let mut treatments: Vec<_> = trials.iter().map(|(_, treatment)| *treatment).collect();
            firsts.push(treatments[0]);
            treatments.sort_unstable();
            assert_eq!(treatments, plan().treatments);
        }
        firsts.sort_unstable();
        firsts.dedup();
        assert_eq!(firsts.len(), 3, "the order never changes");
    }

    #[test]
    fn the_same_seed_makes_the_same_schedule() {
        assert_eq!(schedule(&plan()), schedule(&plan()));
    }
}
