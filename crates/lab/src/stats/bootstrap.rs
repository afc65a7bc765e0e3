//! Intervals of any figure, by drawing samples from the sample.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use statrs::distribution::{ContinuousCDF, Normal};

use super::{Interval, quantile};

/// How many samples are drawn unless there is a reason for another number.
pub const RESAMPLES: usize = 10_000;

/// The 95 % intervals of a figure, from one set of drawn samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    /// Between the percentiles of the figures drawn: B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap"
    /// (1993), chapter 13. Easy to explain; too narrow, and to one side, where the figure is skewed.
    pub percentile: Interval,
    /// Bias-corrected and accelerated: B. Efron, "Better Bootstrap Confidence Intervals" (1987). The one to report.
    pub bca: Interval,
}

impl Bootstrap {
    /// The intervals of `figure` over `blocks`, of which each sample draws as many as there are, with replacement.
    /// Whatever belongs together (a pair of trials) is one block. The same seed draws the same samples.
    ///
    /// `None` of fewer than two blocks, without resamples, or where the figure is not finite for the whole or for any
    /// sample: intervals that leave such samples out would look better than the data.
    pub fn of<T: Copy>(blocks: &[T], resamples: usize, seed: u64, figure: impl Fn(&[T]) -> f64) -> Option<Self> {
        let n = blocks.len();
        let whole = figure(blocks);
        if n < 2 || resamples == 0 || !whole.is_finite() {
            return None;
        }
        let mut random = StdRng::seed_from_u64(seed);
        let mut sample = blocks.to_vec();
        let mut figures = Vec::with_capacity(resamples);
        for _ in 0..resamples {
            sample.fill_with(|| blocks[random.random_range(0..n)]);
            figures.push(figure(&sample));
        }
        if !figures.iter().all(|figure| figure.is_finite()) {
            return None;
        }
        figures.sort_by(f64::total_cmp);
        let between = |low, high| Some(Interval { low: quantile(&figures, low)?, high: quantile(&figures, high)? });
        let levels = bca_levels(bias(&figures, whole), acceleration(blocks, &figure));
        Some(Self { percentile: between(0.025, 0.975)?, bca: between(levels.0, levels.1)? })
    }
}

/// How far the figures drawn lie to one side of the `whole`, in standard deviations.
fn bias(sorted: &[f64], whole: f64) -> f64 {
    let below = sorted.partition_point(|figure| *figure < whole) as f64;
    let not_above = sorted.partition_point(|figure| *figure <= whole) as f64;
    // Ties with the whole count half, so that a figure that takes few values is not pushed to one side. All on one
    // side counts as all but half a figure, so that the bias stays finite.
    let (n, half) = (sorted.len() as f64, 0.5);
    Normal::standard().inverse_cdf(f64::midpoint(below, not_above).clamp(half, n - half) / n)
}

/// Which quantiles of the figures are the ends of the interval.
fn bca_levels(bias: f64, acceleration: f64) -> (f64, f64) {
    let normal = Normal::standard();
    let level = |p: f64| {
        let z = bias + normal.inverse_cdf(p);
        // The acceleration is at most a sixth, so that only an absurd bias reaches zero; beyond, the ends would cross.
        normal.cdf(bias + z / (1.0 - acceleration * z).max(f64::EPSILON))
    };
    (level(0.025), level(0.975))
}

/// From the figures without each block in turn.
fn acceleration<T: Copy>(blocks: &[T], figure: impl Fn(&[T]) -> f64) -> f64 {
    let mut rest = blocks[1..].to_vec();
    let mut figures = Vec::with_capacity(blocks.len());
    for left_out in 0..blocks.len() {
        figures.push(figure(&rest));
        if left_out < rest.len() {
            rest[left_out] = blocks[left_out];
        }
    }
    let mean = figures.iter().sum::<f64>() / figures.len() as f64;
    let sum = |power: i32| figures.iter().map(|figure| (mean - figure).powi(power)).sum::<f64>();
    let spread = 6.0 * sum(2).powf(1.5);
    if spread > 0.0 { sum(3) / spread } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{assert_close, mean};

    /// Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), table 14.1: spatial data A, 26 children.
    const SPATIAL_A: [f64; 26] = [
        48.0, 36.0, 20.0, 29.0, 42.0, 42.0, 20.0, 42.0, 22.0, 41.0, 45.0, 14.0, 6.0, 0.0, 33.0, 28.0, 34.0, 4.0, 32.0,
        24.0, 47.0, 41.0, 24.0, 26.0, 30.0, 41.0,
    ];

    fn variance(values: &[f64]) -> f64 {
        let mean = mean(values).unwrap();
        values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64
    }

    fn mean_of(values: &[f64]) -> f64 {
        mean(values).unwrap()
    }

    fn assert_near(found: Interval, (low, high): (f64, f64), tolerance: f64) {
        assert!((found.low - low).abs() < tolerance && (found.high - high).abs() < tolerance, "{found:?}");
    }

    #[test]
    fn the_textbooks_and_scipys_intervals_come_out() {
        // Efron and Tibshirani (1993), section 14: variance 171.5, acceleration 0.061. SciPy 1.17.1, 50,000 resamples:
        // scipy.stats.bootstrap((A,), numpy.var): method="BCa" 105.5 to 278.5, "percentile" 86.2 to 249.9; of numpy.mean,
        // "BCa" 24.15 to 34.27. Tolerances are those of drawing.
        assert_close(variance(&SPATIAL_A), 171.5, 1);
        assert_close(acceleration(&SPATIAL_A, variance), 0.061, 3);
        let found = Bootstrap::of(&SPATIAL_A, RESAMPLES, 1, variance).unwrap();
        assert_near(found.bca, (105.5, 278.5), 4.0);
        assert_near(found.percentile, (86.2, 249.9), 3.0);
        let found = Bootstrap::of(&SPATIAL_A, RESAMPLES, 3, mean_of).unwrap();
        assert_near(found.bca, (24.15, 34.27), 0.3);
    }

    #[test]
    fn the_ratio_of_means_over_pairs_has_scipys_intervals() {
        // SciPy 1.17.1: scipy.stats.bootstrap((base, value), lambda x, y: 100 * (y.mean() / x.mean() - 1), paired=True,
        // n_resamples=100000): 9.0026 %, "BCa" 5.83 to 15.80, "percentile" 5.28 to 14.13.
        let base = [18.2, 18.9, 17.5, 21.0, 19.3, 18.1, 25.4, 18.8, 19.9, 18.4];
        let value = [20.1, 19.9, 19.2, 22.5, 24.8, 19.0, 26.0, 20.7, 20.3, 20.6];
        let pairs: Vec<(f64, f64)> = base.into_iter().zip(value).collect();
        let ratio = |pairs: &[(f64, f64)]| {
            let sums = pairs.iter().fold((0.0, 0.0), |sums, pair| (sums.0 + pair.0, sums.1 + pair.1));
            (sums.1 / sums.0 - 1.0) * 100.0
        };
        assert_close(ratio(&pairs), 9.0026, 4);
        let found = Bootstrap::of(&pairs, 50_000, 7, ratio).unwrap();
        assert_near(found.bca, (5.83, 15.80), 0.2);
        assert_near(found.percentile, (5.28, 14.13), 0.2);
    }

    #[test]
    fn the_same_seed_gives_the_same_interval_and_another_a_similar_one() {
        let of = |seed| Bootstrap::of(&SPATIAL_A, 1000, seed, mean_of).unwrap();
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
        assert_near(of(7).bca, (of(8).bca.low, of(8).bca.high), 1.5);
    }

    #[test]
    fn ends_never_cross_however_far_the_bias() {
        for bias in [-6.0, -3.0, 0.0, 3.0, 6.0] {
            for acceleration in [-1.0 / 6.0, 0.0, 1.0 / 6.0] {
                let (low, high) = bca_levels(bias, acceleration);
                assert!(low <= high && (0.0..=1.0).contains(&low) && (0.0..=1.0).contains(&high), "{low} {high}");
            }
        }
    }

    #[test]
    fn one_block_or_a_figure_that_is_no_number_has_no_interval() {
        assert_eq!(Bootstrap::of(&[1.0], RESAMPLES, 7, mean_of), None);
        assert_eq!(Bootstrap::of(&[1.0, 2.0], 0, 7, mean_of), None);
        assert_eq!(Bootstrap::of(&[1.0, 0.0], 100, 7, |values| 1.0 / mean_of(values)), None);
        let constant = Bootstrap::of(&[2.0, 2.0], 100, 7, mean_of).unwrap();
        assert_eq!(constant.bca, Interval { low: 2.0, high: 2.0 });
    }
}
