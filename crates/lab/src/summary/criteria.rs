//! The success criteria, and how each came out.

use serde::Serialize;

use super::{AgainstPeer, Comparison, TreatmentSummary, exact_interval, p_value, published};
use crate::results::{Results, Treatment};

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

/// The treatments that are meant to keep every update.
fn is_safe(treatment: Treatment) -> bool {
    matches!(treatment, Treatment::Locking | Treatment::Optimistic | Treatment::Protected | Treatment::Adaptive)
}

/// Every criterion that applies to what ran, in the order in which they are shown.
pub(super) fn judge(
    results: &Results,
    treatments: &[TreatmentSummary],
    comparisons: &[Comparison],
    against_peer: &[AgainstPeer],
) -> Vec<Criterion> {
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
    if results.metadata.workload.profile == "published" {
        criteria.extend(against_peer.iter().filter(|found| is_safe(found.treatment)).map(quicker_than_peer));
    }
    criteria.sort_by_key(|criterion| ORDER.iter().position(|name| criterion.name.starts_with(name)));
    criteria
}

const NO_CORRUPTION: &str = "no corruption";
const SAME_RESULT: &str = "same result over runs";
const OVERHEAD: &str = "overhead";
const DIFFERENCE: &str = "fewer corrupt trials than without";
const QUICKER: &str = "time to acquire";
const ORDER: [&str; 5] = [NO_CORRUPTION, SAME_RESULT, DIFFERENCE, OVERHEAD, QUICKER];
/// How often our mean time to acquire is to fit into the peer's on the `published` profile. What makes the peer's mean
/// is the wait for others; other profiles have more of it, or none.
const TIMES_QUICKER: f64 = 10.0;

fn no_corruption(summary: &TreatmentSummary) -> Criterion {
    let measured = format!(
        "{} of {} trials corrupt ({}), {} of {} updates lost",
        summary.corrupt_trials,
        summary.trials,
        exact_interval(summary.corrupt_interval),
        summary.lost_updates,
        summary.acknowledged_updates
    );
    let verdict = if summary.corrupt_trials > 0 {
        Verdict::Fail
    } else {
        why_not_clean(summary).map_or(Verdict::Pass, Verdict::NotJudged)
    };
    let name = format!("{NO_CORRUPTION}: {}", summary.treatment.name());
    Criterion { name, required: "0 corrupt trials".to_owned(), measured, verdict }
}

/// Why trials in which no check failed may still not be called clean.
fn why_not_clean(summary: &TreatmentSummary) -> Option<String> {
    if summary.acknowledged_updates == 0 {
        Some("no update was acknowledged, so that none could be lost".to_owned())
    } else if summary.errors > 0 {
        Some(format!("{} operations failed in ways that no check covers", summary.errors))
    } else if summary.undecided_documents > 0 {
        Some(format!("the histories of {} documents could not be judged", summary.undecided_documents))
    } else {
        None
    }
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
        (true, _) => why_not_clean(summary).map_or(Verdict::Pass, Verdict::NotJudged),
    };
    Criterion {
        name: format!("{SAME_RESULT}: {}", summary.treatment.name()),
        required: format!("every block of {BLOCK} trials free of corruption"),
        measured: format!("{clean} of {} blocks ({} trials)", blocks.len(), corrupt.len()),
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
        let verdict = Verdict::NotJudged("fewer than two pairs of trials with times".to_owned());
        return Criterion { name, required, measured: "no figure".to_owned(), verdict };
    };
    let interval = overhead.ci95.map_or_else(String::new, |ci| {
        let straddles = if ci.contains(limit) { ", which straddles the limit" } else { "" };
        format!(" (95 % CI {:.1} to {:.1} %{straddles})", ci.low, ci.high)
    });
    let measured = format!("{:.1} %{interval}, median {:.1} %", overhead.mean, overhead.median);
    let verdict = if overhead.mean < limit { Verdict::Pass } else { Verdict::Fail };
    Criterion { name, required, measured, verdict }
}

fn quicker_than_peer(found: &AgainstPeer) -> Criterion {
    let interval = found.ci95.map_or_else(String::new, |ci| format!(" (95 % CI {:.1} to {:.1})", ci.low, ci.high));
    let verdict = if found.times >= TIMES_QUICKER {
        Verdict::Pass
    } else if found.ci95.is_none_or(|ci| ci.contains(TIMES_QUICKER)) {
        // A handful of waits of 100 ms decides the peer's mean, and there were too few of them.
        Verdict::NotJudged("the interval holds the limit; more trials could tell".to_owned())
    } else {
        Verdict::Fail
    };
    Criterion {
        name: format!("{QUICKER}: {}", found.treatment.name()),
        required: format!("its mean {TIMES_QUICKER:.0} times or more in {}'s", Treatment::PythonLocking.name()),
        measured: format!("{:.1} times{interval}", found.times),
        verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Trial;
    use crate::results_sample::sample;
    use crate::summary::Summary;

    const DEFAULT: [Treatment; 3] = [Treatment::Baseline, Treatment::Locking, Treatment::Protected];

    fn named(results: &Results, name: &str) -> Vec<Criterion> {
        let criteria = Summary::of(results).criteria;
        criteria.into_iter().filter(|criterion| criterion.name.starts_with(name)).collect()
    }

    fn verdicts(results: &Results, name: &str) -> Vec<Verdict> {
        named(results, name).into_iter().map(|criterion| criterion.verdict).collect()
    }

    fn each_of(results: &mut Results, treatment: Treatment, change: fn(&mut Trial)) {
        results.trials.iter_mut().filter(|trial| trial.treatment == treatment).for_each(change);
    }

    #[test]
    fn all_met_passes() {
        let summary = Summary::of(&sample(&DEFAULT[..2], 20, 8));
        assert!(summary.criteria.iter().all(|criterion| criterion.verdict == Verdict::Pass), "{:?}", summary.criteria);
        assert_eq!(summary.criteria.len(), 4);
        assert!(summary.passed());
    }

    #[test]
    fn ten_percent_of_overhead_pass_and_twenty_one_do_not() {
        let results = sample(&DEFAULT, 20, 3);
        assert_eq!(verdicts(&results, OVERHEAD), [Verdict::Pass, Verdict::Fail]);
        assert!(!Summary::of(&results).passed());
    }

    #[test]
    fn an_interval_that_straddles_the_limit_is_said_to() {
        let mut results = sample(&DEFAULT[..2], 20, 3);
        let slow = results.samples.iter_mut().filter(|s| s.treatment == Treatment::Locking && s.trial % 4 == 0);
        slow.for_each(|sample| sample.update_ms *= 1.3);
        let overhead = &named(&results, OVERHEAD)[0];
        assert_eq!(overhead.verdict, Verdict::Pass, "the point estimate decides");
        assert!(overhead.measured.contains("straddles the limit"), "{overhead:?}");
        let overhead = &named(&sample(&DEFAULT[..2], 20, 3), OVERHEAD)[0];
        assert!(!overhead.measured.contains("straddles"), "{overhead:?}");
    }

    #[test]
    fn one_pair_of_trials_has_no_overhead_to_judge() {
        assert!(matches!(verdicts(&sample(&DEFAULT[..2], 1, 0), OVERHEAD)[..], [Verdict::NotJudged(_)]));
    }

    #[test]
    fn a_tenth_of_the_peers_time_is_judged_where_others_are_waited_for_as_published() {
        let mut results = sample(&Treatment::ALL, 20, 3);
        assert_eq!(verdicts(&results, QUICKER), [Verdict::Fail, Verdict::Fail], "as quick is not quick enough");
        for sample in results.samples.iter_mut().filter(|sample| sample.treatment == Treatment::PythonLocking) {
            sample.acquire_ms = sample.acquire_ms.map(|time| time * 11.0);
        }
        assert_eq!(verdicts(&results, QUICKER), [Verdict::Pass, Verdict::Pass]);
        assert!(named(&results, QUICKER)[0].measured.starts_with("11.0 times (95 % CI "), "{results:?}");
        let summary = Summary::of(&results);
        assert!((summary.against_peer(Treatment::Locking).unwrap().times - 11.0).abs() < 1e-9);
        assert!(
            !summary.criteria.iter().any(|criterion| criterion.name.contains("python")),
            "the peer is not on trial"
        );
        for sample in results.samples.iter_mut().filter(|sample| sample.treatment == Treatment::PythonLocking) {
            sample.acquire_ms = sample.acquire_ms.map(|time| if sample.trial > 2 { time / 4.0 } else { time * 4.0 });
        }
        let verdict = &verdicts(&results, QUICKER)[0];
        assert!(matches!(verdict, Verdict::NotJudged(_)), "two trials decide it: {verdict:?}");
        results.metadata.workload.profile = "single".to_owned();
        assert!(verdicts(&results, QUICKER).is_empty());
    }

    #[test]
    fn a_corrupt_trial_under_locking_fails() {
        let mut results = sample(&DEFAULT[..2], 20, 3);
        results.trials.iter_mut().rfind(|trial| trial.treatment == Treatment::Locking).unwrap().corrupt = true;
        results.trials[1].undecided_documents = 1;
        assert_eq!(verdicts(&results, NO_CORRUPTION), [Verdict::Fail]);
        assert_eq!(verdicts(&results, SAME_RESULT), [Verdict::Fail]);
        let criterion = &named(&results, NO_CORRUPTION)[0];
        assert!(criterion.measured.contains("1 of 20 trials corrupt (exact 95 % interval 0.1 to 24.9 %)"));
        assert!(named(&results, SAME_RESULT)[0].measured.contains("1 of 2 blocks"));
    }

    #[test]
    fn optimistic_is_judged_and_unfenced_only_reported() {
        let mut results = sample(&[Treatment::Baseline, Treatment::Unfenced, Treatment::Optimistic], 20, 3);
        each_of(&mut results, Treatment::Unfenced, |trial| trial.corrupt = true);
        assert_eq!(verdicts(&results, NO_CORRUPTION), [Verdict::Pass]);
        each_of(&mut results, Treatment::Optimistic, |trial| trial.corrupt = true);
        assert_eq!(verdicts(&results, NO_CORRUPTION), [Verdict::Fail]);
        assert!(verdicts(&results, OVERHEAD).is_empty(), "the limit is on locking");
    }

    #[test]
    fn more_corruption_than_the_baseline_fails() {
        let mut results = sample(&DEFAULT[..2], 20, 3);
        each_of(&mut results, Treatment::Locking, |trial| trial.corrupt = true);
        assert_eq!(verdicts(&results, DIFFERENCE), [Verdict::Fail]);
    }

    #[test]
    fn a_baseline_without_races_proves_nothing_and_fails_nothing() {
        for corrupt in [0, 3] {
            let results = sample(&DEFAULT[..2], 20, corrupt);
            let [Verdict::NotJudged(why)] = &verdicts(&results, DIFFERENCE)[..] else {
                panic!("{corrupt} are too few")
            };
            assert!(why.contains(&format!("too few races to tell: {corrupt} of 20")), "{why}");
            assert!(Summary::of(&results).passed());
        }
    }

    #[test]
    fn what_was_not_seen_is_not_called_clean() {
        let changes: [fn(&mut Trial); 3] =
            [|trial| trial.undecided_documents = 1, |trial| trial.errors = 1, |trial| trial.acknowledged_updates = 0];
        for change in changes {
            let mut results = sample(&DEFAULT[..2], 20, 3);
            each_of(&mut results, Treatment::Locking, change);
            assert!(matches!(verdicts(&results, NO_CORRUPTION)[..], [Verdict::NotJudged(_)]));
            assert!(matches!(verdicts(&results, SAME_RESULT)[..], [Verdict::NotJudged(_)]));
        }
    }

    #[test]
    fn a_single_block_cannot_agree_with_itself() {
        assert!(matches!(verdicts(&sample(&DEFAULT[..2], 10, 3), SAME_RESULT)[..], [Verdict::NotJudged(_)]));
        assert_eq!(verdicts(&sample(&DEFAULT[..2], 11, 3), SAME_RESULT), [Verdict::Pass]);
    }
}
