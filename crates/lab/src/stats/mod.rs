//! Statistics of the experiments: small functions over plain numbers, each with its source, each checked against
//! published reference values. Distributions and ready-made tests are statrs's; only what it lacks is written here.

mod bootstrap;
mod contingency;
mod location;
mod proportion;
mod quantile;

pub use bootstrap::{Bootstrap, RESAMPLES};
pub use contingency::Contingency;
pub use location::{Location, cliffs_delta};
pub use proportion::clopper_pearson;
pub use quantile::{Distribution, mean, quantile, standard_deviation};

use serde::{Deserialize, Serialize};

/// A confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Interval {
    /// Whether `value` lies in it, ends included.
    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// Asserts that two numbers agree to `digits` decimal places.
#[cfg(test)]
pub(crate) fn assert_close(found: f64, expected: f64, digits: i32) {
    assert!((found - expected).abs() < 0.5 * 10_f64.powi(-digits), "found {found}, expected {expected}");
}
