//! The published experiment over many lock engines side by side, and what each one's lock costs by itself.
//!
//! Every round has each engine's treatments once, in an order that the seed shuffles, so that whatever drifts on the
//! machine drifts for all of them alike. Engines whose documents lie in the same store share its baseline. Then each
//! engine's lock is probed: with nobody else, and among many who want it at the same time.

mod contender;
mod files;
mod probe;
#[cfg(test)]
pub(crate) mod sample;
mod summary;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mutext::{LeaseId, LockCapabilities};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::experiment::{ExperimentError, Place, Scratch, fresh_directory};
use crate::machine;
use crate::results::{Sample, Treatment, Trial, Workload};
use crate::trial::{self, TrialError, TrialPlan};
use crate::workload::trial_seed;

pub use contender::{ContenderLog, ContenderTask, Held, live};
pub use files::{DATA, DIAGRAMS, read, write_all};
pub use probe::{CONTENDERS, HOLD, Passing, Probe};
pub(crate) use summary::legend;
pub use summary::{Comparison, EngineSummary, declared, table};

/// What every engine is judged by.
const TREATMENTS: [Treatment; 2] = [Treatment::Locking, Treatment::Protected];

/// One engine that takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrant {
    /// Its name in tables.
    pub name: String,
    /// Where its documents lie.
    pub store: Place,
    /// Where its locks lie.
    pub locks: Place,
    /// Versions and settings of its servers, one fact a line.
    pub facts: Vec<String>,
}

/// What the comparison is to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The engines, in the order of the table.
    pub entrants: Vec<Entrant>,
    /// Trials of each treatment on each engine.
    pub trials: usize,
    /// How often each engine's lock is probed.
    pub probes: usize,
    /// For how long contenders contend in each probe.
    pub contend: Duration,
    /// The workload of the trials.
    pub workload: Workload,
    /// The seed of every random choice.
    pub seed: u64,
    /// Where fresh embedded stores are made.
    pub scratch: PathBuf,
    /// The program that lives an agent's life, and its arguments.
    pub agent_command: Vec<OsString>,
    /// The program that lives a contender's life, and its arguments.
    pub contender_command: Vec<OsString>,
    /// The command line that repeats the comparison.
    pub command: String,
    /// Commit of the source tree, where it is known.
    pub commit: Option<String>,
    /// Engines that were left out, and why.
    pub left_out: Vec<String>,
}

impl Plan {
    /// How many steps there are, for a progress bar.
    pub fn steps(&self) -> usize {
        let stores = distinct_stores(&self.entrants).len();
        self.trials * (stores + self.entrants.len() * TREATMENTS.len()) + self.probes * self.entrants.len()
    }
}

/// What was run, and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// The experiment's name: `engines`.
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
    /// Trials asked for, of each treatment on each engine.
    pub trials: usize,
    /// Probes asked for, of each engine.
    pub probes: usize,
    /// The workload of the trials.
    pub workload: Workload,
    /// The machine: one fact a line.
    pub machine: Vec<String>,
    /// Engines that were left out, and why.
    pub left_out: Vec<String>,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
}

/// What one engine declares and what was measured on it.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineResults {
    /// Its name in tables.
    pub name: String,
    /// Where its documents lie, without any password.
    pub store: String,
    /// Where its locks lie, without any password.
    pub locks: String,
    /// Versions and settings, one fact a line.
    pub facts: Vec<String>,
    /// What its lock service declares: each property, and what it has of it.
    pub declares: Vec<(String, String)>,
    /// Its trials, and those of its store's baseline.
    pub trials: Vec<Trial>,
    /// One sample an acknowledged update of those trials.
    pub samples: Vec<Sample>,
    /// Its lock, probed.
    pub probes: Vec<Probe>,
}

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Results {
    /// What was run, and where.
    pub metadata: Metadata,
    /// In the order of the table.
    pub engines: Vec<EngineResults>,
}

/// Why the comparison could not go on.
#[derive(Debug, thiserror::Error)]
pub enum EnginesError {
    /// On one engine something could not be run.
    #[error("{engine}: {what} could not be run: {source}")]
    Engine {
        /// Which engine.
        engine: String,
        /// What was to be run.
        what: String,
        /// Why.
        source: Box<TrialError>,
    },
    /// A fresh store could not be made.
    #[error(transparent)]
    Scratch(#[from] ExperimentError),
}

/// One thing to do: a trial, or a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A trial of a treatment, on the entrant at this place; a baseline stands for all who share its store.
    Trial { trial: usize, entrant: usize, treatment: Treatment },
    /// A probe of the entrant at this place.
    Probe { entrant: usize },
}

/// What is told of each step as it ends.
#[derive(Debug)]
pub enum Seen<'a> {
    /// A trial of an engine ended.
    Trial(&'a str, &'a Trial),
    /// A probe of an engine ended.
    Probe(&'a str, &'a Probe),
}

/// Runs the whole comparison; `watch` is shown each step as it ends. Where `stop` is ready first, the step under way is
/// given up, and what was measured so far is the result.
pub async fn run(
    plan: &Plan,
    mut watch: impl FnMut(Seen<'_>),
    stop: impl Future<Output = ()>,
) -> Result<Results, EnginesError> {
    let started = Instant::now();
    let mut results = Results { metadata: metadata(plan), engines: Vec::with_capacity(plan.entrants.len()) };
    for entrant in &plan.entrants {
        results.engines.push(begin(plan, entrant).await?);
    }
    let mut stop = std::pin::pin!(stop);
    for (order, step) in (1..).zip(schedule(plan)) {
        let done = tokio::select! {
            biased;
            () = &mut stop => {
                results.metadata.interrupted = true;
                break;
            }
            done = take(plan, step, order, started, &mut results) => done,
        };
        if let Err(error) = done {
            // The key that stops this process stops its agents too, and their end may be seen first.
            if tokio::time::timeout(Duration::from_millis(300), &mut stop).await.is_ok() {
                results.metadata.interrupted = true;
                break;
            }
            return Err(error);
        }
        show(plan, step, &results, &mut watch);
    }
    results.metadata.duration_s = started.elapsed().as_secs_f64();
    Ok(results)
}

fn show(plan: &Plan, step: Step, results: &Results, watch: &mut impl FnMut(Seen<'_>)) {
    let (Step::Trial { entrant, .. } | Step::Probe { entrant }) = step;
    let (engine, name) = (&results.engines[entrant], &plan.entrants[entrant].name);
    match step {
        Step::Trial { .. } => engine.trials.last().into_iter().for_each(|trial| watch(Seen::Trial(name, trial))),
        Step::Probe { .. } => engine.probes.last().into_iter().for_each(|probe| watch(Seen::Probe(name, probe))),
    }
}

/// Round after round, each with every store's baseline and every engine's treatments once, shuffled; then the probes.
fn schedule(plan: &Plan) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(plan.seed);
    let mut steps = Vec::with_capacity(plan.steps());
    for trial in 1..=plan.trials {
        let baselines = distinct_stores(&plan.entrants).into_iter().map(|entrant| Step::Trial {
            trial,
            entrant,
            treatment: Treatment::Baseline,
        });
        let others = (0..plan.entrants.len())
            .flat_map(|entrant| TREATMENTS.map(|treatment| Step::Trial { trial, entrant, treatment }));
        let mut round: Vec<Step> = baselines.chain(others).collect();
        round.shuffle(&mut random);
        steps.extend(round);
    }
    for _ in 0..plan.probes {
        let mut round: Vec<Step> = (0..plan.entrants.len()).map(|entrant| Step::Probe { entrant }).collect();
        round.shuffle(&mut random);
        steps.extend(round);
    }
    steps
}

/// The first entrant of each store.
fn distinct_stores(entrants: &[Entrant]) -> Vec<usize> {
    let is_first = |place: &usize| entrants[..*place].iter().all(|other| other.store != entrants[*place].store);
    (0..entrants.len()).filter(is_first).collect()
}

/// What an engine declares, before anything is measured: it shows, too, that it can be opened.
async fn begin(plan: &Plan, entrant: &Entrant) -> Result<EngineResults, EnginesError> {
    let (store, locks, _scratch) = places(plan, entrant)?;
    let opened = mutext::Mutext::open(&store, Some(&locks)).await;
    let mutext = opened.map_err(|error| EnginesError::Engine {
        engine: entrant.name.clone(),
        what: "opening it".to_owned(),
        source: Box::new(error.into()),
    })?;
    let (_, capabilities) = mutext.capabilities();
    let mut facts = machine::engines(entrant.store.is_embedded(), entrant.locks.is_embedded());
    facts.extend(entrant.facts.iter().cloned());
    Ok(EngineResults {
        name: entrant.name.clone(),
        store: entrant.store.shown(),
        locks: entrant.locks.shown(),
        facts,
        declares: declared_by(&capabilities),
        trials: Vec::new(),
        samples: Vec::new(),
        probes: Vec::new(),
    })
}

/// Each property that a lock service declares, in words.
pub(crate) fn declared_by(capabilities: &LockCapabilities) -> Vec<(String, String)> {
    capabilities.described().into_iter().map(|(property, has)| (property.to_owned(), has)).collect()
}

type Places = (mutext::Address, mutext::Address, Option<Scratch>);

fn places(plan: &Plan, entrant: &Entrant) -> Result<Places, EnginesError> {
    let needs_scratch = [&entrant.store, &entrant.locks].contains(&&Place::Fresh);
    let scratch = needs_scratch.then(|| fresh_directory(&plan.scratch)).transpose()?;
    let fresh: &Path = scratch.as_ref().map_or(plan.scratch.as_path(), Scratch::path);
    Ok((entrant.store.in_trial(fresh), entrant.locks.in_trial(fresh), scratch))
}

/// Takes one step, and keeps what it found.
async fn take(
    plan: &Plan,
    step: Step,
    order: usize,
    started: Instant,
    results: &mut Results,
) -> Result<(), EnginesError> {
    match step {
        Step::Trial { trial, entrant, treatment } => {
            let entrant = &plan.entrants[entrant];
            let (store, locks, scratch) = places(plan, entrant)?;
            let trial_plan = TrialPlan {
                trial,
                order,
                treatment,
                seed: trial_seed(plan.seed, trial),
                workload: plan.workload.clone(),
                store,
                locks,
                context: format!("laboratory-{}", &LeaseId::random().to_string()[..12]),
                agent_command: plan.agent_command.clone(),
            };
            let outcome = trial::run(&trial_plan, started).await.map_err(|source| EnginesError::Engine {
                engine: entrant.name.clone(),
                what: format!("trial {trial} of {}", treatment.name()),
                source: Box::new(source),
            })?;
            let shares = |other: &Entrant| {
                if treatment.is_baseline() { other.store == entrant.store } else { other.name == entrant.name }
            };
            if let Some(scratch) = scratch {
                scratch.remove();
            }
            for (_, engine) in plan.entrants.iter().zip(&mut results.engines).filter(|(other, _)| shares(other)) {
                engine.trials.push(outcome.trial.clone());
                engine.samples.extend(outcome.samples.iter().copied());
            }
        }
        Step::Probe { entrant: place } => {
            let entrant = &plan.entrants[place];
            let (store, locks, scratch) = places(plan, entrant)?;
            let ground =
                probe::Ground { store, locks, contender_command: &plan.contender_command, during: plan.contend };
            let found = probe::probe(&ground).await.map_err(|source| EnginesError::Engine {
                engine: entrant.name.clone(),
                what: "probing its lock".to_owned(),
                source: Box::new(source),
            })?;
            if let Some(scratch) = scratch {
                scratch.remove();
            }
            results.engines[place].probes.push(found);
        }
    }
    Ok(())
}

fn metadata(plan: &Plan) -> Metadata {
    Metadata {
        experiment: "engines".to_owned(),
        command: plan.command.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: plan.commit.clone(),
        started_at: machine::now(),
        duration_s: 0.0,
        seed: plan.seed,
        trials: plan.trials,
        probes: plan.probes,
        workload: plan.workload.clone(),
        machine: machine::describe(&plan.scratch),
        left_out: plan.left_out.clone(),
        interrupted: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::profile;

    fn plan() -> Plan {
        let entrant = |name: &str, store: &str| Entrant {
            name: name.to_owned(),
            store: Place::At(store.parse().unwrap()),
            locks: Place::Fresh,
            facts: Vec::new(),
        };
        Plan {
            entrants: vec![entrant("a", "embedded:x"), entrant("b", "embedded:y"), entrant("c", "embedded:y")],
            trials: 4,
            probes: 2,
            contend: Duration::from_secs(1),
            workload: profile("published").unwrap(),
            seed: 5,
            scratch: PathBuf::from("."),
            agent_command: Vec::new(),
            contender_command: Vec::new(),
            command: String::new(),
            commit: None,
            left_out: Vec::new(),
        }
    }

    #[test]
    fn engines_that_share_a_store_share_its_baseline() {
        let (plan, steps) = (plan(), schedule(&plan()));
        assert_eq!(steps.len(), plan.steps());
        let baselines = steps.iter().filter(|step| matches!(step, Step::Trial { treatment: Treatment::Baseline, .. }));
        assert_eq!(baselines.count(), 2 * plan.trials);
    }

    #[test]
    fn every_round_has_every_engine_once_in_changing_order() {
        let (plan, steps) = (plan(), schedule(&plan()));
        let length = 2 + 3 * TREATMENTS.len();
        for (number, round) in (1..=plan.trials).zip(steps.chunks(length)) {
            assert!(round.iter().all(|step| matches!(step, Step::Trial { trial, .. } if *trial == number)));
        }
        assert_ne!(steps[0..length], steps[length..2 * length], "the order never changes");
        assert_eq!(schedule(&plan), steps, "the same seed makes the same order");
    }
}
