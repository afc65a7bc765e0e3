//! What the charts draw: one series a treatment, whatever its name, gathered from the results once.

use super::look::{Look, look};
use crate::results::{Results, Treatment};
use crate::stats::{Distribution, Interval};
use crate::summary::{Overhead, Summary};

/// One trial's throughput.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    /// Which repetition, from 1.
    pub(super) trial: usize,
    /// Acknowledged updates.
    pub(super) per_second: f64,
    pub(super) corrupt: bool,
}

/// One treatment, to be drawn.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) look: Look,
    /// Whether it ran in another program than ours.
    pub(super) is_peer: bool,
    pub(super) trials: usize,
    pub(super) corrupt: usize,
    pub(super) corrupt_interval: Interval,
    pub(super) overhead: Option<Overhead>,
    /// Every time to acquire, in milliseconds, sorted; none where no lease is taken.
    pub(super) acquire: Vec<f64>,
    pub(super) acquire_spread: Option<Distribution>,
    /// In order.
    pub(super) rates: Vec<Rate>,
}

/// Every treatment that ran, in the order of the tables. Each looks the same in all charts of all runs.
pub(super) fn of(results: &Results, summary: &Summary) -> Vec<Series> {
    let series = summary.treatments.iter().map(|found| {
        let treatment = found.treatment;
        let place = Treatment::ALL.iter().position(|other| *other == treatment).unwrap_or_default();
        let mut acquire: Vec<f64> =
            results.samples_of(treatment).filter_map(|sample| sample.acquire_ms).filter(|t| t.is_finite()).collect();
        acquire.sort_by(f64::total_cmp);
        let mut rates: Vec<Rate> = results
            .of(treatment)
            .map(|trial| Rate {
                trial: trial.trial,
                per_second: trial.acknowledged_updates as f64 / (trial.duration_ms / 1000.0),
                corrupt: trial.corrupt,
            })
            .filter(|found| found.per_second.is_finite())
            .collect();
        rates.sort_by_key(|rate| rate.trial);
        Series {
            name: treatment.name().to_owned(),
            look: look(place),
            is_peer: treatment.is_peer(),
            trials: found.trials,
            corrupt: found.corrupt_trials,
            corrupt_interval: found.corrupt_interval,
            overhead: summary.comparison(treatment).and_then(|comparison| comparison.overhead),
            acquire,
            acquire_spread: found.acquire_ms,
            rates,
        }
    });
    series.collect()
}
