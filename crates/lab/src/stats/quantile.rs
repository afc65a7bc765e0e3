//! Means, quantiles, and the description of a sample.

use serde::{Deserialize, Serialize};

/// The arithmetic mean; `None` of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    if values.is_empty() { None } else { Some(values.iter().sum::<f64>() / values.len() as f64) }
}

/// The standard deviation with n − 1 in the denominator; `None` of fewer than two values.
pub fn standard_deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() > 1)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// The quantile at `p` in 0..=1 of values in ascending order, by linear interpolation between order statistics:
/// type 7 of R. J. Hyndman and Y. Fan, "Sample Quantiles in Statistical Packages" (1996). `None` of nothing.
pub fn quantile(sorted: &[f64], p: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = p.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    Some(sorted[below] + (place - place.floor()) * (sorted[above] - sorted[below]))
}

/// What a sample looks like, in the unit of its values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// How many values.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation; zero of a single value.
    pub sd: f64,
    /// The smallest.
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// Nine of ten are below.
    pub p90: f64,
    /// 99 of 100 are below.
    pub p99: f64,
    /// 999 of 1,000 are below.
    pub p999: f64,
    /// The largest.
    pub max: f64,
}

impl Distribution {
    /// Describes `values`; `None` of nothing.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |p| quantile(&sorted, p);
        Some(Self {
            n: sorted.len(),
            mean: mean(&sorted)?,
            sd: standard_deviation(&sorted).unwrap_or(0.0),
            min: at(0.0)?,
            p50: at(0.5)?,
            p90: at(0.9)?,
            p99: at(0.99)?,
            p999: at(0.999)?,
            max: at(1.0)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::assert_close;

    #[test]
    fn quantiles_are_those_of_r_and_numpy() {
        // R: quantile(c(1, 2, 3, 4, 10), c(.25, .5, .9), type = 7) gives 2, 3, 7.6; numpy.percentile agrees.
        let values = [1.0, 2.0, 3.0, 4.0, 10.0];
        for (p, expected) in [(0.0, 1.0), (0.25, 2.0), (0.5, 3.0), (0.9, 7.6), (1.0, 10.0)] {
            assert_close(quantile(&values, p).unwrap(), expected, 10);
        }
    }

    #[test]
    fn a_distribution_is_that_of_numpy() {
        // NumPy, v = numpy.arange(1, 1002) ** 1.5: numpy.percentile(v, [50, 90, 99, 99.9]), v.mean(), v.std(ddof=1).
        let found = Distribution::of((1..=1001).rev().map(|value| f64::from(value).powf(1.5))).unwrap();
        assert_eq!(found.n, 1001);
        assert_close(found.p50, 11_213.897_67, 4);
        assert_close(found.p90, 27_045.012_50, 4);
        assert_close(found.p99, 31_196.831_11, 4);
        assert_close(found.p999, 31_622.776_60, 4);
        assert_close(found.mean, 12_683.912_27, 4);
        assert_close(found.sd, 9_511.085_16, 4);
        // Between the order statistics: numpy.percentile([0.3, 1.7, 2.9, 4.1, 8.8, 15.2, 31], [50, 90, 99, 99.9]).
        let found = Distribution::of([0.3, 1.7, 2.9, 4.1, 8.8, 15.2, 31.0]).unwrap();
        for (found, expected) in [(found.p50, 4.1), (found.p90, 21.52), (found.p99, 30.052), (found.p999, 30.9052)] {
            assert_close(found, expected, 9);
        }
        assert_eq!((found.min, found.max), (0.3, 31.0));
    }

    #[test]
    fn the_deviation_is_that_of_a_sample() {
        // R: sd(c(2, 4, 4, 4, 5, 5, 7, 9)) = 2.13809.
        assert_close(standard_deviation(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap(), 2.13809, 5);
    }

    #[test]
    fn nothing_has_no_distribution() {
        assert_eq!(Distribution::of([]), None);
        assert!(Distribution::of([3.0]).unwrap().sd.abs() < f64::EPSILON);
    }
}
