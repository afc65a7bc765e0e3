//! What was found: each treatment described, compared with the baseline, and held against the success criteria.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::results::{Results, Sample, Treatment};
use crate::stats::{
    Bootstrap, Contingency, Distribution, Interval, Location, RESAMPLES, clopper_pearson, mean, quantile,
};

mod criteria;
mod json;

pub use criteria::{Criterion, Verdict};
pub use json::performance_comparison_json;

/// The published experiment's figures ("Locking Mechanism Tests", August 2025).
pub mod published {
    /// Trials of each treatment.
    pub const TRIALS: usize = 100;
    /// Racy trials without a lock.
    pub const RACY_BASELINE: usize = 15;
    /// Racy trials with the Redis lock.
    pub const RACY_LOCKING: usize = 0;
    /// Overhead of locking, in percent, and its 95 % interval.
    pub const OVERHEAD_PERCENT: (f64, f64, f64) = (12.0, 8.5, 15.5);
    /// The mean time to acquire the lock, in milliseconds.
    pub const ACQUIRE_MS: f64 = 2.3;
    /// What the overhead had to stay below, in percent.
    pub const OVERHEAD_LIMIT_PERCENT: f64 = 20.0;
    /// The range in which a baseline stands for the published one, in percent of trials.
    pub const BASELINE_RANGE_PERCENT: (f64, f64) = (10.0, 20.0);
}

/// A reproduction of the published experiment in Python (redis-py, psycopg2, PostgreSQL 15, Redis 7.0, 2 cores, 100
/// trials), with the parameters of the `published` profile.
pub mod reproduction {
    /// Racy trials of 100 without a lock.
    pub const RACY_BASELINE: usize = 14;
    /// Racy trials of 100 with the lock.
    pub const RACY_LOCKING: usize = 0;
    /// Overhead of locking, in percent: mean, median.
    pub const OVERHEAD_PERCENT: (f64, f64) = (20.6, 6.0);
    /// Time to acquire the lock, in milliseconds: mean, median, 99th percentile.
    pub const ACQUIRE_MS: (f64, f64, f64) = (3.4, 0.68, 101.0);
    /// Time of an update, in milliseconds: without, with the lock.
    pub const UPDATE_MS: (f64, f64) = (18.74, 22.60);
}

/// One treatment, described.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TreatmentSummary {
    /// Which.
    pub treatment: Treatment,
    /// Trials that ended.
    pub trials: usize,
    /// Trials in which a check failed.
    pub corrupt_trials: usize,
    /// The exact 95 % interval of their share.
    pub corrupt_interval: Interval,
    /// Updates acknowledged to an agent.
    pub acknowledged_updates: usize,
    /// Of these, missing at the end.
    pub lost_updates: usize,
    /// Critical sections that certainly overlapped.
    pub overlaps: usize,
    /// Tokens out of order.
    pub token_violations: usize,
    /// Documents whose history no serial order explains.
    pub nonlinearizable_documents: usize,
    /// Documents whose history could not be judged.
    pub undecided_documents: usize,
    /// Conflicts met and retried.
    pub conflicts: usize,
    /// Lock waits that timed out and were tried again.
    pub timeouts: usize,
    /// Writes refused because the lease was lost.
    pub lost_leases: usize,
    /// Operations that failed in another way.
    pub errors: usize,
    /// Time of an update, in milliseconds.
    pub update_ms: Option<Distribution>,
    /// Time to acquire the lease, in milliseconds.
    pub acquire_ms: Option<Distribution>,
    /// Acknowledged updates a second, the median over trials.
    pub updates_per_second: Option<f64>,
}

/// Overhead in percent, from pairs of trials that shared their number and so their workload.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Overhead {
    /// The ratio of the means over all pairs, less one.
    pub mean: f64,
    /// Its 95 % interval: BCa bootstrap over pairs.
    pub ci95: Option<Interval>,
    /// The median of the pairs' ratios, less one.
    pub median: f64,
    /// The ratio of the medians of all updates, less one.
    pub of_medians: f64,
    /// How many pairs.
    pub pairs: usize,
}

/// One treatment, compared with its baseline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Which.
    pub treatment: Treatment,
    /// Corrupt trials, the baseline's against this one's.
    pub corruption: Option<Contingency>,
    /// What it costs.
    pub overhead: Option<Overhead>,
    /// Mean update times of trials, the baseline's against this one's.
    pub time: Option<Location>,
}

/// One of our treatments' time to acquire, held against the peer's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct AgainstPeer {
    /// Which.
    pub treatment: Treatment,
    /// How often our mean fits into the peer's.
    pub times: f64,
    /// Its 95 % interval: BCa bootstrap over pairs of trials. The peer's mean hangs on a few long waits.
    pub ci95: Option<Interval>,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Each treatment that ran, in the order of the tables.
    pub treatments: Vec<TreatmentSummary>,
    /// Each of them but the baselines, compared with its baseline.
    pub comparisons: Vec<Comparison>,
    /// Each of our treatments that takes a lease, held against the peer's lock, where that ran.
    pub against_peer: Vec<AgainstPeer>,
    /// The success criteria.
    pub criteria: Vec<Criterion>,
    /// On the `published` profile, how our baseline stands to the published one, in words.
    pub baseline_range: Option<String>,
}

impl Summary {
    /// Concludes from what was measured.
    pub fn of(results: &Results) -> Self {
        let ran = Treatment::ALL.into_iter().filter(|treatment| results.of(*treatment).next().is_some());
        let treatments: Vec<TreatmentSummary> = ran.map(|treatment| describe(results, treatment)).collect();
        let others = treatments.iter().filter(|summary| !summary.treatment.is_baseline());
        let comparisons: Vec<Comparison> = others.map(|other| compare(results, &treatments, other)).collect();
        let ours = Treatment::OURS.into_iter().filter(|treatment| treatment.takes_lease());
        let against_peer: Vec<AgainstPeer> = ours.filter_map(|treatment| against_peer(results, treatment)).collect();
        let criteria = criteria::judge(results, &treatments, &comparisons, &against_peer);
        let baseline_range = baseline_range(results, &treatments);
        Self { treatments, comparisons, against_peer, criteria, baseline_range }
    }

    /// Whether no criterion failed and at least one was met.
    pub fn passed(&self) -> bool {
        !self.failed() && self.criteria.iter().any(|criterion| criterion.verdict == Verdict::Pass)
    }

    /// Whether a criterion failed. What could not be judged has not.
    pub fn failed(&self) -> bool {
        self.criteria.iter().any(|criterion| criterion.verdict == Verdict::Fail)
    }

    /// One treatment's description, if it ran.
    pub fn treatment(&self, treatment: Treatment) -> Option<&TreatmentSummary> {
        self.treatments.iter().find(|summary| summary.treatment == treatment)
    }

    /// One treatment's time to acquire, held against the peer's, if both were measured.
    pub fn against_peer(&self, treatment: Treatment) -> Option<&AgainstPeer> {
        self.against_peer.iter().find(|found| found.treatment == treatment)
    }

    /// One treatment's comparison, if both ran.
    pub fn comparison(&self, treatment: Treatment) -> Option<&Comparison> {
        self.comparisons.iter().find(|comparison| comparison.treatment == treatment)
    }
}

fn describe(results: &Results, treatment: Treatment) -> TreatmentSummary {
    let trials: Vec<_> = results.of(treatment).collect();
    let sum = |count: fn(&crate::results::Trial) -> usize| trials.iter().map(|trial| count(trial)).sum();
    let corrupt_trials = trials.iter().filter(|trial| trial.corrupt).count();
    let mut rates: Vec<f64> =
        trials.iter().map(|trial| trial.acknowledged_updates as f64 / (trial.duration_ms / 1000.0)).collect();
    rates.sort_by(f64::total_cmp);
    TreatmentSummary {
        treatment,
        trials: trials.len(),
        corrupt_trials,
        corrupt_interval: clopper_pearson(corrupt_trials, trials.len(), 0.95),
        acknowledged_updates: sum(|trial| trial.acknowledged_updates),
        lost_updates: sum(|trial| trial.lost_updates),
        overlaps: sum(|trial| trial.overlaps),
        token_violations: sum(|trial| trial.token_violations),
        nonlinearizable_documents: sum(|trial| trial.nonlinearizable_documents),
        undecided_documents: sum(|trial| trial.undecided_documents),
        conflicts: sum(|trial| trial.conflicts),
        timeouts: sum(|trial| trial.timeouts),
        lost_leases: sum(|trial| trial.lost_leases),
        errors: sum(|trial| trial.errors),
        update_ms: Distribution::of(results.samples_of(treatment).map(|sample| sample.update_ms)),
        acquire_ms: Distribution::of(results.samples_of(treatment).filter_map(|sample| sample.acquire_ms)),
        updates_per_second: quantile(&rates, 0.5),
    }
}

/// The mean time of each trial, by its number.
fn trial_means(results: &Results, treatment: Treatment, time: impl Fn(&Sample) -> Option<f64>) -> BTreeMap<usize, f64> {
    let mut times: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for sample in results.samples_of(treatment) {
        times.entry(sample.trial).or_default().extend(time(sample));
    }
    times.into_iter().filter_map(|(trial, times)| Some((trial, mean(&times)?))).collect()
}

fn compare(results: &Results, treatments: &[TreatmentSummary], other: &TreatmentSummary) -> Comparison {
    let base = other.treatment.baseline();
    let baseline = treatments.iter().find(|summary| summary.treatment == base);
    let corruption = baseline.and_then(|baseline| {
        Contingency::of((baseline.corrupt_trials, baseline.trials), (other.corrupt_trials, other.trials))
    });
    let pairs = pairs(results, base, other.treatment, |sample| Some(sample.update_ms));
    let (times_a, times_b): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let medians = baseline.and_then(|baseline| Some((baseline.update_ms?.p50, other.update_ms?.p50)));
    let overhead =
        medians.filter(|_| pairs.len() > 1).and_then(|medians| overhead(&pairs, medians, results.metadata.seed));
    Comparison { treatment: other.treatment, corruption, overhead, time: Location::of(&times_a, &times_b) }
}

/// Both treatments' mean times, of each trial that has both.
fn pairs(
    results: &Results,
    one: Treatment,
    other: Treatment,
    time: impl Fn(&Sample) -> Option<f64>,
) -> Vec<(f64, f64)> {
    let (of_one, of_other) = (trial_means(results, one, &time), trial_means(results, other, &time));
    of_one.iter().filter_map(|(trial, time)| Some((*time, *of_other.get(trial)?))).collect()
}

fn against_peer(results: &Results, treatment: Treatment) -> Option<AgainstPeer> {
    let pairs = pairs(results, Treatment::PythonLocking, treatment, |sample| sample.acquire_ms);
    let ratio = |pairs: &[(f64, f64)]| {
        let (peer, ours) = pairs.iter().fold((0.0, 0.0), |sums, pair| (sums.0 + pair.0, sums.1 + pair.1));
        peer / ours
    };
    let times = ratio(&pairs);
    let ci95 = Bootstrap::of(&pairs, RESAMPLES, results.metadata.seed, ratio).map(|found| found.bca);
    times.is_finite().then_some(AgainstPeer { treatment, times, ci95 })
}

fn percent_over(base: f64, value: f64) -> f64 {
    (value / base - 1.0) * 100.0
}

fn overhead(pairs: &[(f64, f64)], medians: (f64, f64), seed: u64) -> Option<Overhead> {
    let ratio_of_means = |pairs: &[(f64, f64)]| {
        let (base, value) = pairs.iter().fold((0.0, 0.0), |sums, pair| (sums.0 + pair.0, sums.1 + pair.1));
        percent_over(base, value)
    };
    let mut ratios: Vec<f64> = pairs.iter().map(|(base, value)| percent_over(*base, *value)).collect();
    ratios.sort_by(f64::total_cmp);
    let mean = ratio_of_means(pairs);
    if !mean.is_finite() {
        return None;
    }
    Some(Overhead {
        mean,
        ci95: Bootstrap::of(pairs, RESAMPLES, seed, ratio_of_means).map(|found| found.bca),
        median: quantile(&ratios, 0.5)?,
        of_medians: percent_over(medians.0, medians.1),
        pairs: pairs.len(),
    })
}

/// A p-value as it is written.
pub fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { format!("= {p:.3}") }
}

/// An exact interval of a share, as it is written.
fn exact_interval(interval: Interval) -> String {
    format!("exact 95 % interval {:.1} to {:.1} %", interval.low * 100.0, interval.high * 100.0)
}

fn baseline_range(results: &Results, treatments: &[TreatmentSummary]) -> Option<String> {
    let baseline = treatments.iter().find(|summary| summary.treatment == Treatment::Baseline)?;
    if results.metadata.workload.profile != "published" {
        return None;
    }
    let percent = 100.0 * baseline.corrupt_trials as f64 / baseline.trials as f64;
    let (low, high) = published::BASELINE_RANGE_PERCENT;
    let interval = baseline.corrupt_interval;
    let (lie, meaning) = if (low..=high).contains(&percent) {
        ("lie", "so that it stands for the published one")
    } else if interval.low * 100.0 <= high && interval.high * 100.0 >= low {
        ("do not lie", "although their interval reaches there: more trials could tell; nothing was adjusted")
    } else {
        ("do not lie", "so that this machine does not stand for the published one; nothing was adjusted")
    };
    Some(format!(
        "The baseline's {percent:.1} % of corrupt trials ({} of {}, {}) {lie} between {low:.0} and {high:.0} %, {meaning}.",
        baseline.corrupt_trials,
        baseline.trials,
        exact_interval(interval),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results_sample::sample;

    const DEFAULT: [Treatment; 3] = [Treatment::Baseline, Treatment::Locking, Treatment::Protected];

    #[test]
    fn a_treatment_is_described_by_its_trials_and_samples() {
        let mut results = sample(&DEFAULT, 20, 3);
        for trial in results.trials.iter_mut().filter(|trial| trial.treatment == Treatment::Locking) {
            (trial.timeouts, trial.lost_leases, trial.duration_ms) = (2, 1, 1000.0);
        }
        let summary = Summary::of(&results);
        let baseline = summary.treatment(Treatment::Baseline).unwrap();
        assert_eq!((baseline.trials, baseline.corrupt_trials, baseline.acknowledged_updates), (20, 3, 240));
        assert_eq!((baseline.lost_updates, baseline.nonlinearizable_documents), (3, 3));
        assert_eq!(baseline.corrupt_interval, clopper_pearson(3, 20, 0.95));
        assert_eq!((baseline.acquire_ms, baseline.update_ms.unwrap().n), (None, 240));
        let locking = summary.treatment(Treatment::Locking).unwrap();
        assert_eq!((locking.timeouts, locking.lost_leases, locking.updates_per_second), (40, 20, Some(12.0)));
        assert!(summary.treatment(Treatment::Optimistic).is_none() && locking.acquire_ms.is_some());
    }

    #[test]
    fn overhead_is_the_ratio_of_paired_trials() {
        let summary = Summary::of(&sample(&DEFAULT, 20, 3));
        let overhead = summary.comparison(Treatment::Locking).unwrap().overhead.unwrap();
        for figure in [overhead.mean, overhead.median, overhead.of_medians] {
            assert!((figure - 10.0).abs() < 1e-9, "{overhead:?}");
        }
        assert_eq!(overhead.pairs, 20);
    }

    #[test]
    fn mean_and_median_overhead_differ_where_one_trial_was_slow() {
        let mut results = sample(&DEFAULT[..2], 20, 3);
        let slow = results.samples.iter_mut().filter(|s| s.treatment == Treatment::Locking && s.trial == 5);
        slow.for_each(|sample| sample.update_ms *= 5.0);
        let overhead = Summary::of(&results).comparison(Treatment::Locking).unwrap().overhead.unwrap();
        let interval = overhead.ci95.unwrap();
        assert!(overhead.mean > 25.0 && (overhead.median - 10.0).abs() < 1e-9, "{overhead:?}");
        assert!(interval.low < overhead.mean && overhead.mean < interval.high, "{overhead:?}");
        assert_eq!(Summary::of(&results).comparison(Treatment::Locking).unwrap().overhead, Some(overhead));
    }

    #[test]
    fn the_comparison_names_the_baseline_first() {
        let summary = Summary::of(&sample(&DEFAULT, 20, 8));
        let comparison = summary.comparison(Treatment::Locking).unwrap();
        assert!(comparison.corruption.unwrap().risk_difference > 0.0, "the baseline is corrupt more often");
        let time = comparison.time.unwrap();
        assert!(time.difference > 0.0 && time.cliffs_delta > 0.0 && time.hedges_g > 0.0, "locking is slower: {time:?}");
    }

    #[test]
    fn trials_without_a_partner_are_left_out_of_the_pairs() {
        let mut results = sample(&DEFAULT[..2], 20, 3);
        results.samples.retain(|sample| sample.treatment == Treatment::Baseline || sample.trial > 13);
        let summary = Summary::of(&results);
        let overhead = summary.comparison(Treatment::Locking).unwrap().overhead.unwrap();
        assert_eq!(overhead.pairs, 7);
        assert!((overhead.mean - 10.0).abs() < 1e-9, "{overhead:?}");
    }

    #[test]
    fn an_experiment_that_was_stopped_early_is_still_summarised() {
        let mut results = sample(&DEFAULT, 20, 3);
        results.trials.truncate(2);
        results.samples.retain(|sample| sample.trial == 1);
        let summary = Summary::of(&results);
        assert_eq!(summary.treatments.len(), 2);
        assert!(summary.comparisons[0].overhead.is_none());
        results.trials.clear();
        results.samples.clear();
        let summary = Summary::of(&results);
        assert!(summary.treatments.is_empty() && summary.criteria.is_empty() && !summary.passed());
    }

    #[test]
    fn without_a_baseline_nothing_is_compared() {
        let summary = Summary::of(&sample(&DEFAULT[1..], 20, 0));
        let comparison = summary.comparison(Treatment::Locking).unwrap();
        assert!(comparison.corruption.is_none() && comparison.overhead.is_none() && comparison.time.is_none());
        assert_eq!(summary.baseline_range, None);
        assert!(summary.passed(), "what locking is judged by alone is met");
    }

    #[test]
    fn the_baseline_is_held_against_the_published_one() {
        for (corrupt, words) in [
            (15, "15.0 % of corrupt trials (15 of 100, exact 95 % interval 8.6 to 23.5 %) lie between 10 and 20 %"),
            (7, "do not lie between 10 and 20 %, although their interval reaches there"),
            (60, "do not lie between 10 and 20 %, so that this machine does not stand"),
        ] {
            let range = Summary::of(&sample(&DEFAULT[..1], 100, corrupt)).baseline_range.unwrap();
            assert!(range.contains(words), "{range}");
        }
        let mut results = sample(&DEFAULT[..1], 100, 15);
        results.metadata.workload.profile = "hot".to_owned();
        assert_eq!(Summary::of(&results).baseline_range, None);
    }
}
