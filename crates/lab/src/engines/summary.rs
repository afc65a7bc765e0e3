//! What the comparison found: each engine's figures, and the one table that lays them side by side.

use serde::Serialize;

use super::{CONTENDERS, EngineResults, Passing, Results, TREATMENTS};
use crate::report::Table;
use crate::results::{self, Treatment};
use crate::stats::{Distribution, mean, quantile};
use crate::summary::{Summary, TreatmentSummary};

/// One engine's figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EngineSummary {
    /// Its name.
    pub name: String,
    /// Where its documents lie.
    pub store: String,
    /// Where its locks lie.
    pub locks: String,
    /// What its lock service declares: each property, and what it has of it.
    pub declares: Vec<(String, String)>,
    /// Its trials, judged and compared with its store's baseline as in the published experiment.
    pub experiment: Summary,
    /// Time to take a lock that nobody else wants, in milliseconds.
    pub free_acquire_ms: Option<Distribution>,
    /// Time to give one back that nobody else wants, in milliseconds.
    pub free_release_ms: Option<Distribution>,
    /// TCP segments with data for each such lock, the median over probes.
    pub messages: Option<f64>,
    /// From one holder's giving back to the next one's holding, in milliseconds.
    pub hand_over_ms: Option<Distribution>,
    /// Jain's index of how evenly contenders had the lock, the mean over probes.
    pub fairness: Option<f64>,
    /// How often a second contenders had it, the median over probes.
    pub grants_per_second: Option<f64>,
    /// Pairs of contenders that certainly held the lock at the same time.
    pub overlaps: usize,
    /// What went wrong among contenders.
    pub errors: Vec<String>,
}

/// All engines' figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// In the order of the table.
    pub engines: Vec<EngineSummary>,
}

impl Comparison {
    /// Concludes from what was measured.
    pub fn of(results: &Results) -> Self {
        Self { engines: results.engines.iter().map(|engine| summarise(results, engine)).collect() }
    }

    /// Whether any engine corrupted a trial under a lease, let two hold one lock, or could not serve a contender.
    pub fn failed(&self) -> bool {
        self.engines.iter().any(EngineSummary::failed)
    }
}

impl EngineSummary {
    /// One of its treatments.
    pub fn treatment(&self, treatment: Treatment) -> Option<&TreatmentSummary> {
        self.experiment.treatment(treatment)
    }

    /// Its mean overhead under a treatment, in percent.
    pub fn overhead(&self, treatment: Treatment) -> Option<f64> {
        Some(self.experiment.comparison(treatment)?.overhead?.mean)
    }

    /// Whether it broke a promise.
    pub fn failed(&self) -> bool {
        let corrupt = TREATMENTS.into_iter().filter_map(|treatment| self.treatment(treatment));
        corrupt.map(|found| found.corrupt_trials).sum::<usize>() + self.overlaps + self.errors.len() > 0
    }
}

fn summarise(results: &Results, engine: &EngineResults) -> EngineSummary {
    let experiment = Summary::of(&as_experiment(results, engine));
    let passings: Vec<&Passing> = engine.probes.iter().map(|probe| &probe.passing).collect();
    let all = |times: fn(&super::Probe) -> &Vec<f64>| Distribution::of(engine.probes.iter().flat_map(times).copied());
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        quantile(&values, 0.5)
    };
    EngineSummary {
        name: engine.name.clone(),
        store: engine.store.clone(),
        locks: engine.locks.clone(),
        declares: engine.declares.clone(),
        experiment,
        free_acquire_ms: all(|probe| &probe.acquire_ms),
        free_release_ms: all(|probe| &probe.release_ms),
        messages: median(engine.probes.iter().filter_map(|probe| probe.messages).collect()),
        hand_over_ms: Distribution::of(passings.iter().flat_map(|passing| passing.hand_over_ms.iter().copied())),
        fairness: mean(&passings.iter().filter_map(|passing| passing.fairness()).collect::<Vec<_>>()),
        grants_per_second: median(passings.iter().filter_map(|passing| passing.per_second()).collect()),
        overlaps: passings.iter().map(|passing| passing.overlaps).sum(),
        errors: passings.iter().flat_map(|passing| passing.errors.iter().cloned()).collect(),
    }
}

/// One engine's trials as an experiment of their own.
fn as_experiment(results: &Results, engine: &EngineResults) -> results::Results {
    let metadata = &results.metadata;
    results::Results {
        metadata: results::Metadata {
            experiment: metadata.experiment.clone(),
            command: metadata.command.clone(),
            version: metadata.version.clone(),
            commit: metadata.commit.clone(),
            started_at: metadata.started_at.clone(),
            duration_s: metadata.duration_s,
            seed: metadata.seed,
            trials: metadata.trials,
            treatments: [Treatment::Baseline].into_iter().chain(TREATMENTS).collect(),
            workload: metadata.workload.clone(),
            store: engine.store.clone(),
            locks: engine.locks.clone(),
            engines: engine.facts.clone(),
            machine: metadata.machine.clone(),
            interrupted: metadata.interrupted,
        },
        trials: engine.trials.clone(),
        samples: engine.samples.clone(),
    }
}

/// The one table: an engine a row.
pub fn table(comparison: &Comparison) -> Table {
    let dash = || "–".to_owned();
    let times = |found: Option<Distribution>| found.map_or_else(dash, |d| format!("{:.2} / {:.2}", d.p50, d.p99));
    let percent = |found: Option<f64>| found.map_or_else(dash, |percent| format!("{percent:.1} %"));
    let corrupt = |engine: &EngineSummary, treatment: Treatment| {
        engine.treatment(treatment).map_or_else(dash, |found| format!("{} of {}", found.corrupt_trials, found.trials))
    };
    let rows = comparison.engines.iter().map(|engine| {
        [
            engine.name.clone(),
            corrupt(engine, Treatment::Baseline),
            corrupt(engine, Treatment::Locking),
            corrupt(engine, Treatment::Protected),
            percent(engine.overhead(Treatment::Locking)),
            percent(engine.overhead(Treatment::Protected)),
            times(engine.treatment(Treatment::Locking).and_then(|found| found.acquire_ms)),
            times(engine.free_acquire_ms),
            times(engine.hand_over_ms),
            engine.fairness.map_or_else(dash, |index| format!("{index:.3}")),
            engine.grants_per_second.map_or_else(dash, |rate| format!("{rate:.0}")),
            engine.messages.map_or_else(dash, |messages| format!("{messages:.1}")),
        ]
    });
    Table::new(
        [
            "engine",
            "corrupt: baseline",
            "locking",
            "protected",
            "overhead: locking",
            "protected",
            "acquire p50 / p99 ms",
            "free acquire p50 / p99 ms",
            "hand-over p50 / p99 ms",
            "fairness",
            "grants/s",
            "messages/lock",
        ],
        rows,
    )
}

/// What each engine declares: an engine a row, a property a column.
pub fn declared(comparison: &Comparison) -> Table {
    let mut header = vec!["engine".to_owned()];
    let properties = comparison.engines.first().map(|engine| &engine.declares);
    header.extend(properties.into_iter().flatten().map(|(property, _)| property.clone()));
    let rows = comparison.engines.iter().map(|engine| {
        let has = engine.declares.iter().map(|(_, has)| has.clone());
        [engine.name.clone()].into_iter().chain(has).collect()
    });
    Table { header, rows: rows.collect() }
}

/// What the columns mean, a line each.
pub(crate) fn legend() -> Vec<String> {
    vec![
        "corrupt: trials with a lost update, overlapping critical sections, tokens out of order or a history that no serial order explains".to_owned(),
        "overhead: ratio of mean update times over paired trials, less one".to_owned(),
        "acquire: in the trials of `locking`, waiting included".to_owned(),
        "free acquire: one process, a lock that nobody else wants".to_owned(),
        format!("hand-over: {CONTENDERS} processes want one lock; from one's giving back to the next one's holding"),
        "fairness: Jain's index of how evenly they had it; 1 is even".to_owned(),
        "grants/s: how often a second they had it, each holding it for a millisecond or a little more".to_owned(),
        "messages/lock: TCP segments with data for one free acquire and release, both directions, also those between an engine's servers".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::sample::sample;

    #[test]
    fn each_engine_is_described_by_its_trials_and_its_probes() {
        let comparison = Comparison::of(&sample(&["embedded", "redis"], 12));
        let [one, other] = &comparison.engines[..] else { panic!("two engines") };
        assert_eq!(one.treatment(Treatment::Baseline).unwrap().corrupt_trials, 2);
        assert!((one.overhead(Treatment::Locking).unwrap() - 10.0).abs() < 1e-6);
        assert_eq!((one.messages, one.fairness, one.grants_per_second), (Some(4.0), Some(1.0), Some(400.0)));
        assert!(other.hand_over_ms.unwrap().p50 > 9.0 * one.hand_over_ms.unwrap().p50);
        assert!(!comparison.failed(), "corrupt trials without a lock are no failure of an engine");
    }

    #[test]
    fn two_who_hold_one_lock_fail_the_comparison() {
        let mut results = sample(&["embedded", "redis"], 3);
        results.engines[1].probes[0].passing.overlaps = 1;
        assert!(Comparison::of(&results).failed());
        let mut results = sample(&["embedded"], 3);
        let locking = results.engines[0].trials.iter_mut().find(|trial| trial.treatment == Treatment::Locking);
        locking.unwrap().corrupt = true;
        assert!(Comparison::of(&results).failed());
    }
}
