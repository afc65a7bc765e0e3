//! A comparison to test with, whose figures are known.

use mutext::{Address, Mutext};

use super::probe::{CONTENDERS, Passing, Probe};
use super::{EngineResults, Metadata, Results};
use crate::results::Treatment;
use crate::results_sample;

/// Two engines by these names, each with `trials` trials a treatment; the second one's hand-over takes ten times as long.
pub(crate) fn sample(names: &[&str], trials: usize) -> Results {
    let treatments = [Treatment::Baseline, Treatment::Locking, Treatment::Protected];
    let experiment = results_sample::sample(&treatments, trials, 2);
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_, capabilities) =
        runtime.block_on(Mutext::open(&Address::embedded(dir.path()), None)).unwrap().capabilities();
    let engines = (1_i32..).zip(names).map(|(number, name)| EngineResults {
        name: (*name).to_owned(),
        store: "embedded:there".to_owned(),
        locks: "redis://h:6379/0".to_owned(),
        facts: vec!["a server | of a version".to_owned()],
        declares: super::declared_by(&capabilities),
        trials: experiment.trials.clone(),
        samples: experiment.samples.clone(),
        probes: vec![Probe {
            acquire_ms: vec![0.1, 0.2, 0.3],
            release_ms: vec![0.1, 0.1, 0.1],
            messages: Some(4.0),
            passing: Passing {
                hand_over_ms: vec![10_f64.powi(number.min(3)) * 0.05, 10_f64.powi(number.min(3)) * 0.06],
                grants: vec![50; CONTENDERS],
                during_ms: 1000.0,
                overlaps: 0,
                errors: Vec::new(),
            },
        }],
    });
    let metadata = experiment.metadata.clone();
    Results {
        engines: engines.collect(),
        metadata: Metadata {
            experiment: "engines".to_owned(),
            command: "mutext experiment engines --seed 7".to_owned(),
            version: metadata.version,
            commit: metadata.commit,
            started_at: metadata.started_at,
            duration_s: metadata.duration_s,
            seed: metadata.seed,
            trials,
            probes: 1,
            workload: metadata.workload,
            machine: metadata.machine,
            left_out: vec!["consul: not installed".to_owned()],
            interrupted: false,
        },
    }
}
