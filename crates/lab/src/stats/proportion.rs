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
    use statrs::distribution::{Binomial, Discrete};

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
            (3, 7, 0.098_988_3, 0.815_948_4),
            (1, 1000, 0.000_025_3, 0.005_558_9),
            (50, 1000, 0.037_335_4, 0.065_390_5),
        ] {
            let interval = clopper_pearson(k, n, 0.95);
            assert_close(interval.low, low, 6);
            assert_close(interval.high, high, 6);
        }
    }

    #[test]
    fn more_confidence_gives_a_wider_interval() {
        // SciPy 1.17.1: binomtest(50, 1000).proportion_ci(0.99, "exact").
        let interval = clopper_pearson(50, 1000, 0.99);
        assert_close(interval.low, 0.033_926_7, 6);
        assert_close(interval.high, 0.070_504_4, 6);
    }

    #[test]
    fn the_true_share_is_covered_at_least_as_often_as_promised() {
        for n in [1, 2, 5, 10, 30, 100] {
            let intervals: Vec<Interval> = (0..=n).map(|k| clopper_pearson(k, n, 0.95)).collect();
            for share in (1..200).map(|step| f64::from(step) / 200.0) {
                let binomial = Binomial::new(share, n as u64).unwrap();
                let covered = intervals.iter().enumerate().filter(|(_, interval)| interval.contains(share));
                let coverage: f64 = covered.map(|(k, _)| binomial.pmf(k as u64)).sum();
                assert!(coverage >= 0.95 - 1e-9, "{coverage} for {share} of {n}");
            }
        }
    }

    #[test]
    fn counting_failures_instead_mirrors_the_interval() {
        for (k, n) in (1..=40).flat_map(|n| (0..=n).map(move |k| (k, n))) {
            let (one, other) = (clopper_pearson(k, n, 0.95), clopper_pearson(n - k, n, 0.95));
            assert_close(one.low, 1.0 - other.high, 9);
            assert!(one.contains(k as f64 / n as f64), "{one:?} for {k} of {n}");
        }
    }

    #[test]
    fn after_nothing_everything_is_possible() {
        assert_eq!(clopper_pearson(0, 0, 0.95), Interval { low: 0.0, high: 1.0 });
    }
}
