//! The summary as scripts read it. The names are a promise: what is added may be added, what is here stays.

use serde_json::{Value, json};

use super::{Summary, published};
use crate::results::Results;
use crate::stats::Interval;

/// What scripts read, `performance-comparison.json`:
///
/// - `treatments`: an object by name, each with `trials`, `corrupt_trials`, `corrupt_ci95`, `acknowledged_updates`,
///   `lost_updates`, and `update_ms` and `acquire_ms` (each with `mean`, `p50`, `p90`, `p99`, `max` and more;
///   `acquire_ms` is null where no lease is taken);
/// - `overhead_percent`: an object by name, each with `mean`, `median`, `ci95` (an array of two, or null), `of_medians`,
///   `pairs`; a treatment with fewer than two pairs of trials is not there;
/// - `tests`: an object by name, each with `corruption` (a [`Contingency`](crate::stats::Contingency)) and `time` (a
///   [`Location`](crate::stats::Location)) against its baseline, or null;
/// - `against_peer`: an object by name, each with `times` (how often our mean time to acquire fits into the peer's) and
///   `ci95`; empty without `--compare`;
/// - `criteria`: an array, each with `name`, `required`, `measured`, `verdict` (`pass`, `fail` or `notjudged`) and, where
///   it was not judged, `because`; `passed`: whether none failed and one was met;
/// - `baseline_range`: on the `published` profile a sentence, else null;
/// - `published`: the published figures;
/// - `experiment`, `profile`, `seed`, `interrupted`: what was run.
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
    let against_peer = summary.against_peer.iter().map(|found| {
        let object = json!({ "times": found.times, "ci95": found.ci95.map_or(Value::Null, pair) });
        (found.treatment.name().to_owned(), object)
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
        "against_peer": against_peer.collect::<serde_json::Map<_, _>>(),
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
    use crate::results::Treatment;
    use crate::results_sample::sample;

    const DEFAULT: [Treatment; 3] = [Treatment::Baseline, Treatment::Locking, Treatment::Protected];

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
            assert_eq!(json["treatments"][treatment]["corrupt_ci95"].as_array().unwrap().len(), 2);
        }
        assert!(json["treatments"]["locking"]["acquire_ms"]["p99"].is_f64());
        assert!(json["treatments"]["baseline"]["acquire_ms"].is_null());
        assert_eq!(json["overhead_percent"]["locking"]["ci95"].as_array().unwrap().len(), 2);
        assert!(json["overhead_percent"]["protected"]["median"].is_f64());
        assert!(json["overhead_percent"].get("baseline").is_none());
        for name in ["fisher_p", "chi_square", "chi_square_yates", "cohens_h", "odds_ratio"] {
            assert!(json["tests"]["locking"]["corruption"][name].is_f64(), "{name}");
        }
        for name in ["welch_p", "mann_whitney_p", "hedges_g", "cliffs_delta"] {
            assert!(json["tests"]["locking"]["time"][name].is_f64(), "{name}");
        }
        assert_eq!(json["published"]["corrupt_trials"]["baseline"], 15);
        assert_eq!(json["against_peer"], json!({}), "no peer ran");
        let results = sample(&Treatment::ALL, 20, 3);
        let json = performance_comparison_json(&results, &Summary::of(&results));
        assert!(
            json["against_peer"]["protected"]["times"].is_f64() && json["treatments"]["python locking"].is_object()
        );
        assert!(json["overhead_percent"]["python locking"]["mean"].is_f64());
    }

    #[test]
    fn scripts_find_each_verdict_and_its_reason() {
        let results = sample(&DEFAULT[..2], 20, 0);
        let json = performance_comparison_json(&results, &Summary::of(&results));
        let verdicts: Vec<_> =
            json["criteria"].as_array().unwrap().iter().map(|c| c["verdict"].as_str().unwrap()).collect();
        assert_eq!(verdicts, ["pass", "pass", "notjudged", "pass"]);
        assert!(json["criteria"][2]["because"].as_str().unwrap().contains("0 of 20"));
        assert_eq!(json["passed"], true);
    }
}
