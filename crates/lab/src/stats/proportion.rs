//! Intervals of proportions: how many of so many.

use statrs::distribution::{Beta, ContinuousCDF};

use super::Interval;

/// The exact interval of a proportion, after C. J. Clopper and E. S. Pearson, "The Use of Confidence or Fiducial
/// Limits Illustrated in the Case of the Binomial" (1934), by way of quantiles of the beta distribution. Its coverage
/// is never below `confidence`. Everything is possible after nothing: (0, 1) for `n` = 0.
pub fn clopper_pearson(successes: usize, n: usize, confidence: f64) -> Interval {
    let successes = successes.min(n);
    let tail = (1.0 - confidence) / 2.0;
    let (k, failures) = (successes as f64, (n - successes) as f64);
    let beta = |a: f64, b: f64, p: f64, otherwise: f64| Beta::new(a, b).map_or(otherwise, |beta| beta.inverse_cdf(p));
    let low = if successes == 0 { 0.0 } else { beta(k, failures + 1.0, tail, 0.0) };
    let high = if successes == n { 1.0 } else { beta(k + 1.0, failures, 1.0 - tail, 1.0) };
    Interval { low, high }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::assert_close;

    #[test]
    fn the_interval_is_that_of_r_and_scipy() {
        // SciPy 1.x: scipy.stats.binomtest(k, n).proportion_ci(0.95, "exact"); R: binom.test(k, n)$conf.int.
        for (k, n, low, high) in [
            (15, 100, 0.086_454_1, 0.235_307_4),
            (0, 100, 0.0, 0.036_216_7),
            (100, 100, 0.963_783_3, 1.0),
            (1, 10, 0.002_528_6, 0.445_016_1),
        ] {
            let interval = clopper_pearson(k, n, 0.95);
            assert_close(interval.low, low, 5);
            assert_close(interval.high, high, 5);
        }
    }

    #[test]
    fn after_nothing_everything_is_possible() {
        assert_eq!(clopper_pearson(0, 0, 0.95), Interval { low: 0.0, high: 1.0 });
    }
}
