//! What was found: each treatment described, compared with the baseline, and held against the success criteria.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::results::{Results, Treatment};
use crate::stats::{Contingency, Distribution, Interval, Location, bca_interval, clopper_pearson, mean, quantile};

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

/// One treatment, compared with the baseline.
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

/// How a criterion came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "verdict", content = "because")]
pub enum Verdict {
    /// It is met.
    Pass,
    /// It is not.
    Fail,
    /// It cannot be judged, and why.
    NotJudged(String),
}

/// One success criterion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Criterion {
    /// What it is about.
    pub name: String,
    /// What it takes.
    pub required: String,
    /// What was measured.
    pub measured: String,
    /// How it came out.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Each treatment that ran, in the order of the tables.
    pub treatments: Vec<TreatmentSummary>,
    /// Each of them but the baseline, compared with it.
    pub comparisons: Vec<Comparison>,
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
        let others = treatments.iter().filter(|summary| summary.treatment != Treatment::Baseline);
        let comparisons: Vec<Comparison> = others.map(|other| compare(results, &treatments, other)).collect();
        let criteria = criteria(results, &treatments, &comparisons);
        let baseline_range = baseline_range(results, &treatments);
        Self { treatments, comparisons, criteria, baseline_range }
    }

    /// Whether no criterion failed and at least one was met.
    pub fn passed(&self) -> bool {
        self.criteria.iter().all(|criterion| criterion.verdict != Verdict::Fail)
            && self.criteria.iter().any(|criterion| criterion.verdict == Verdict::Pass)
    }

    /// One treatment's description, if it ran.
    pub fn treatment(&self, treatment: Treatment) -> Option<&TreatmentSummary> {
        self.treatments.iter().find(|summary| summary.treatment == treatment)
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

/// The mean update time of each trial, by its number.
fn trial_means(results: &Results, treatment: Treatment) -> BTreeMap<usize, f64> {
    let mut times: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for sample in results.samples_of(treatment) {
        times.entry(sample.trial).or_default().push(sample.update_ms);
    }
    times.into_iter().filter_map(|(trial, times)| Some((trial, mean(&times)?))).collect()
}

fn compare(results: &Results, treatments: &[TreatmentSummary], other: &TreatmentSummary) -> Comparison {
    let baseline = treatments.iter().find(|summary| summary.treatment == Treatment::Baseline);
    let corruption = baseline.and_then(|baseline| {
        Contingency::of((baseline.corrupt_trials, baseline.trials), (other.corrupt_trials, other.trials))
    });
    let (of_baseline, of_other) = (trial_means(results, Treatment::Baseline), trial_means(results, other.treatment));
    let pairs: Vec<(f64, f64)> =
        of_baseline.iter().filter_map(|(trial, time)| Some((*time, *of_other.get(trial)?))).collect();
    let (times_a, times_b): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let medians = baseline.and_then(|baseline| Some((baseline.update_ms?.p50, other.update_ms?.p50)));
    let overhead =
        medians.filter(|_| pairs.len() > 1).and_then(|medians| overhead(&pairs, medians, results.metadata.seed));
    Comparison { treatment: other.treatment, corruption, overhead, time: Location::of(&times_a, &times_b) }
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
    Some(Overhead {
        mean: ratio_of_means(pairs),
        ci95: bca_interval(pairs, seed, ratio_of_means),
        median: quantile(&ratios, 0.5)?,
        of_medians: percent_over(medians.0, medians.1),
        pairs: pairs.len(),
    })
}

/// The treatments that are meant to keep every update.
fn is_safe(treatment: Treatment) -> bool {
    matches!(treatment, Treatment::Locking | Treatment::Optimistic | Treatment::Protected)
}

fn criteria(results: &Results, treatments: &[TreatmentSummary], comparisons: &[Comparison]) -> Vec<Criterion> {
    let mut criteria = Vec::new();
    for summary in treatments.iter().filter(|summary| is_safe(summary.treatment)) {
        criteria.push(no_corruption(summary));
        criteria.push(same_over_runs(results, summary));
    }
    let baseline = treatments.iter().find(|summary| summary.treatment == Treatment::Baseline);
    for comparison in comparisons.iter().filter(|comparison| is_safe(comparison.treatment)) {
        criteria.extend(baseline.map(|baseline| shows_a_difference(baseline, comparison)));
        if comparison.treatment.takes_lease() && baseline.is_some() {
            criteria.push(overhead_below_limit(comparison));
        }
    }
    criteria.sort_by_key(|criterion| ORDER.iter().position(|name| criterion.name.starts_with(name)));
    criteria
}

const NO_CORRUPTION: &str = "no corruption";
const SAME_RESULT: &str = "same result over runs";
const OVERHEAD: &str = "overhead";
const DIFFERENCE: &str = "fewer corrupt trials than without";
const ORDER: [&str; 4] = [NO_CORRUPTION, SAME_RESULT, DIFFERENCE, OVERHEAD];

fn no_corruption(summary: &TreatmentSummary) -> Criterion {
    let bound = summary.corrupt_interval.high * 100.0;
    let measured = format!(
        "{} of {} trials corrupt (true share below {bound:.1} % with 95 % confidence), {} of {} updates lost",
        summary.corrupt_trials, summary.trials, summary.lost_updates, summary.acknowledged_updates
    );
    let verdict = if summary.corrupt_trials > 0 {
        Verdict::Fail
    } else if summary.errors > 0 {
        Verdict::NotJudged(format!("{} operations failed in ways that no check covers", summary.errors))
    } else if summary.undecided_documents > 0 {
        Verdict::NotJudged(format!("the histories of {} documents could not be judged", summary.undecided_documents))
    } else {
        Verdict::Pass
    };
    let name = format!("{NO_CORRUPTION}: {}", summary.treatment.name());
    Criterion { name, required: "0 corrupt trials".to_owned(), measured, verdict }
}

fn same_over_runs(results: &Results, summary: &TreatmentSummary) -> Criterion {
    const BLOCK: usize = 10;
    let corrupt: Vec<bool> = results.of(summary.treatment).map(|trial| trial.corrupt).collect();
    let blocks: Vec<usize> =
        corrupt.chunks(BLOCK).map(|block| block.iter().filter(|corrupt| **corrupt).count()).collect();
    let clean = blocks.iter().filter(|count| **count == 0).count();
    let verdict = match (clean == blocks.len(), blocks.len()) {
        (false, _) => Verdict::Fail,
        (true, 0 | 1) => Verdict::NotJudged(format!("{} trials make one block only", corrupt.len())),
        (true, _) => Verdict::Pass,
    };
    Criterion {
        name: format!("{SAME_RESULT}: {}", summary.treatment.name()),
        required: format!("every block of {BLOCK} trials free of corruption"),
        measured: format!("{clean} of {} blocks", blocks.len()),
        verdict,
    }
}

fn shows_a_difference(baseline: &TreatmentSummary, comparison: &Comparison) -> Criterion {
    let p = comparison.corruption.map_or(1.0, |corruption| corruption.fisher_p);
    let difference = comparison.corruption.map_or(0.0, |corruption| corruption.risk_difference);
    let verdict = if p < 0.05 {
        if difference > 0.0 { Verdict::Pass } else { Verdict::Fail }
    } else {
        let (corrupt, trials) = (baseline.corrupt_trials, baseline.trials);
        Verdict::NotJudged(format!("the baseline showed too few races to tell: {corrupt} of {trials} trials"))
    };
    Criterion {
        name: format!("{DIFFERENCE}: {}", comparison.treatment.name()),
        required: "Fisher's exact p below 0.05".to_owned(),
        measured: format!(
            "baseline {} of {} corrupt, {:.1} points more; p {}",
            baseline.corrupt_trials,
            baseline.trials,
            difference * 100.0,
            p_value(p)
        ),
        verdict,
    }
}

fn overhead_below_limit(comparison: &Comparison) -> Criterion {
    let limit = published::OVERHEAD_LIMIT_PERCENT;
    let name = format!("{OVERHEAD}: {}", comparison.treatment.name());
    let required = format!("mean below {limit:.0} %");
    let Some(overhead) = comparison.overhead else {
        let verdict = Verdict::NotJudged("fewer than two pairs of trials".to_owned());
        return Criterion { name, required, measured: "no figure".to_owned(), verdict };
    };
    let interval = overhead.ci95.map_or_else(String::new, |ci| {
        let straddles = if ci.contains(limit) { ", which holds the limit" } else { "" };
        format!(" (95 % CI {:.1} to {:.1} %{straddles})", ci.low, ci.high)
    });
    let measured = format!("{:.1} %{interval}, median {:.1} %", overhead.mean, overhead.median);
    let verdict = if overhead.mean < limit { Verdict::Pass } else { Verdict::Fail };
    Criterion { name, required, measured, verdict }
}

/// A p-value as it is written.
pub fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { format!("= {p:.3}") }
}

fn baseline_range(results: &Results, treatments: &[TreatmentSummary]) -> Option<String> {
    let baseline = treatments.iter().find(|summary| summary.treatment == Treatment::Baseline)?;
    if results.metadata.workload.profile != "published" {
        return None;
    }
    let percent = 100.0 * baseline.corrupt_trials as f64 / baseline.trials as f64;
    let (low, high) = published::BASELINE_RANGE_PERCENT;
    let inside = (low..=high).contains(&percent);
    let meaning = if inside {
        "so that it stands for the published one"
    } else {
        "so that this machine does not stand for the published one; nothing was adjusted"
    };
    Some(format!(
        "The baseline's {percent:.1} % of corrupt trials ({} of {}) {} between {low:.0} and {high:.0} %, {meaning}.",
        baseline.corrupt_trials,
        baseline.trials,
        if inside { "lie" } else { "do not lie" }
    ))
}

/// What scripts read, `performance-comparison.json`:
///
/// - `treatments`: an object by name, each with `trials`, `corrupt_trials`, `corrupt_ci95`, `acknowledged_updates`,
///   `lost_updates`, and `update_ms` and `acquire_ms` (each with `mean`, `p50`, `p90`, `p99`, `max` and more;
///   `acquire_ms` is null where no lease is taken);
/// - `overhead_percent`: an object by name, each with `mean`, `median`, `ci95` (an array of two), `pairs`;
/// - `tests`: an object by name, corruption and time compared with the baseline;
/// - `criteria`: an array; `passed`: whether none failed;
/// - `published`: the published figures.
pub fn performance_comparison_json(results: &Results, summary: &Summary) -> Value {
    let pair = |interval: Interval| json!([interval.low, interval.high]);
    let treatments = summary.treatments.iter().map(|treatment| {
        let mut object = json!(treatment);
        object["corrupt_ci95"] = pair(treatment.corrupt_interval);
        if let Some(object) = object.as_object_mut() {
            object.remove("corrupt_interval");
            object.remove("treatment");
        }
        (treatment.treatment.name().to_owned(), object)
    });
    let overheads = summary.comparisons.iter().filter_map(|comparison| {
        let overhead = comparison.overhead?;
        let mut object = json!(overhead);
        object["ci95"] = overhead.ci95.map_or(Value::Null, pair);
        Some((comparison.treatment.name().to_owned(), object))
    });
    let tests = summary.comparisons.iter().map(|comparison| {
        let object = json!({ "corruption": comparison.corruption, "time": comparison.time });
        (comparison.treatment.name().to_owned(), object)
    });
    let (overhead, low, high) = published::OVERHEAD_PERCENT;
    json!({
        "experiment": results.metadata.experiment,
        "profile": results.metadata.workload.profile,
        "seed": results.metadata.seed,
        "interrupted": results.metadata.interrupted,
        "treatments": treatments.collect::<serde_json::Map<_, _>>(),
        "overhead_percent": overheads.collect::<serde_json::Map<_, _>>(),
        "tests": tests.collect::<serde_json::Map<_, _>>(),
        "criteria": summary.criteria,
        "baseline_range": summary.baseline_range,
        "passed": summary.passed(),
        "published": {
            "trials": published::TRIALS,
            "corrupt_trials": { "baseline": published::RACY_BASELINE, "locking": published::RACY_LOCKING },
            "overhead_percent": { "mean": overhead, "ci95": [low, high] },
            "acquire_ms": { "mean": published::ACQUIRE_MS },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results_sample::sample;

    const DEFAULT: [Treatment; 3] = [Treatment::Baseline, Treatment::Locking, Treatment::Protected];

    fn verdicts(summary: &Summary, name: &str) -> Vec<Verdict> {
        let named = summary.criteria.iter().filter(|criterion| criterion.name.starts_with(name));
        named.map(|criterion| criterion.verdict.clone()).collect()
    }

    #[test]
    fn overhead_is_the_ratio_of_paired_trials() {
        let summary = Summary::of(&sample(&DEFAULT, 20, 3));
        let overhead = summary.comparison(Treatment::Locking).unwrap().overhead.unwrap();
        assert!((overhead.mean - 10.0).abs() < 1e-9 && (overhead.median - 10.0).abs() < 1e-9, "{overhead:?}");
        assert_eq!(overhead.pairs, 20);
        assert_eq!(verdicts(&summary, OVERHEAD), [Verdict::Pass, Verdict::Fail], "10 % passes and 21 % does not");
        assert!(!summary.passed());
    }

    #[test]
    fn a_corrupt_trial_under_locking_fails() {
        let mut results = sample(&DEFAULT[..2], 20, 3);
        results.trials.iter_mut().rfind(|trial| trial.treatment == Treatment::Locking).unwrap().corrupt = true;
        let summary = Summary::of(&results);
        assert_eq!(verdicts(&summary, NO_CORRUPTION), [Verdict::Fail]);
        assert_eq!(verdicts(&summary, SAME_RESULT), [Verdict::Fail]);
    }

    #[test]
    fn a_baseline_without_races_proves_nothing_and_fails_nothing() {
        let summary = Summary::of(&sample(&DEFAULT[..2], 20, 0));
        assert!(matches!(verdicts(&summary, DIFFERENCE)[..], [Verdict::NotJudged(_)]));
        assert!(summary.passed());
        assert!(summary.baseline_range.unwrap().contains("do not lie"));
    }

    #[test]
    fn errors_and_undecided_histories_are_not_called_clean() {
        let mut results = sample(&DEFAULT[..2], 20, 3);
        results.trials[1].undecided_documents = 1;
        assert!(matches!(verdicts(&Summary::of(&results), NO_CORRUPTION)[..], [Verdict::NotJudged(_)]));
        results.trials[1].errors = 1;
        assert!(matches!(verdicts(&Summary::of(&results), NO_CORRUPTION)[..], [Verdict::NotJudged(_)]));
    }

    #[test]
    fn an_experiment_that_was_stopped_early_is_still_summarised() {
        let mut results = sample(&DEFAULT, 20, 3);
        results.trials.truncate(2);
        results.samples.retain(|sample| sample.trial == 1);
        let summary = Summary::of(&results);
        assert_eq!(summary.treatments.len(), 2);
        assert!(summary.comparisons[0].overhead.is_none());
    }

    #[test]
    fn scripts_find_the_names_that_they_rely_on() {
        let results = sample(&DEFAULT, 20, 3);
        let json = performance_comparison_json(&results, &Summary::of(&results));
        for treatment in ["baseline", "locking", "protected"] {
            for name in ["trials", "corrupt_trials", "acknowledged_updates", "lost_updates"] {
                assert!(json["treatments"][treatment][name].is_u64(), "{treatment} {name}");
            }
            for name in ["mean", "p50", "p90", "p99", "max"] {
                assert!(json["treatments"][treatment]["update_ms"][name].is_f64(), "{treatment} {name}");
            }
        }
        assert!(json["treatments"]["locking"]["acquire_ms"]["p99"].is_f64());
        assert!(json["treatments"]["baseline"]["acquire_ms"].is_null());
        assert_eq!(json["overhead_percent"]["locking"]["ci95"].as_array().unwrap().len(), 2);
        assert!(json["overhead_percent"]["protected"]["median"].is_f64());
    }
}
