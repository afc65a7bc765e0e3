//! Results to test with: a small experiment whose figures are known.

use crate::results::{Metadata, Results, Sample, Treatment, Trial};
use crate::workload::profile;

/// `trials` trials each of `treatments`; the first `corrupt` of each of the baseline are corrupt. Update times rise
/// from treatment to treatment by a tenth.
pub(crate) fn sample(treatments: &[Treatment], trials: usize, corrupt: usize) -> Results {
    let workload = profile("published").unwrap_or_else(|| unreachable!("a profile of ours"));
    let metadata = Metadata {
        experiment: "locking-mechanism".to_owned(),
        command: "mutext experiment locking --seed 7".to_owned(),
        version: "0.1.0".to_owned(),
        commit: Some("0123456789ab".to_owned()),
        started_at: "2026-11-23T12:00:00Z".to_owned(),
        duration_s: 12.5,
        seed: 7,
        trials,
        treatments: treatments.to_vec(),
        workload,
        store: "embedded (a fresh directory for each trial)".to_owned(),
        locks: "embedded (a fresh directory for each trial)".to_owned(),
        engines: vec!["embedded documents: SQLite".to_owned()],
        machine: vec!["cores: 2".to_owned()],
        interrupted: false,
    };
    let mut results = Results { metadata, trials: Vec::new(), samples: Vec::new() };
    for number in 1..=trials {
        for (index, treatment) in treatments.iter().enumerate() {
            let is_corrupt = *treatment == Treatment::Baseline && number <= corrupt;
            let order = results.trials.len() + 1;
            results.trials.push(Trial {
                trial: number,
                treatment: *treatment,
                order,
                seed: number as u64,
                started_s: order as f64 * 0.5,
                duration_ms: 300.0 + number as f64,
                acknowledged_updates: 12,
                lost_updates: usize::from(is_corrupt),
                overlaps: 0,
                token_violations: 0,
                nonlinearizable_documents: usize::from(is_corrupt),
                undecided_documents: 0,
                conflicts: 0,
                timeouts: 0,
                lost_leases: 0,
                errors: 0,
                corrupt: is_corrupt,
                evidence: if is_corrupt {
                    vec!["update 0-1 is lost, \"quoted\" <b>\nsecond line".to_owned()]
                } else {
                    Vec::new()
                },
            });
            for update in 0..12_usize {
                let update_ms = (18.0 + number as f64 / 50.0 + update as f64 / 10.0)
                    * 1.1_f64.powi(i32::try_from(index).unwrap_or(0));
                let acquire_ms = treatment.takes_lease().then_some(0.1 + (number * 12 + update) as f64 / 1e4);
                results.samples.push(Sample {
                    trial: number,
                    treatment: *treatment,
                    agent: update % 4,
                    update_ms,
                    acquire_ms,
                });
            }
        }
    }
    results
}
