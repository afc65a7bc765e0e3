//! Two samples: does one lie above the other, and by how much?

use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};
use statrs::stats_tests::Alternative;
use statrs::stats_tests::mannwhitneyu::{MannWhitneyUMethod, mannwhitneyu};

use super::{Interval, mean, standard_deviation};

/// Two samples, compared: B against A (the baseline).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Location {
    /// B. L. Welch's t (1947), of B less A.
    pub welch_t: f64,
    /// Its degrees of freedom, after Welch and Satterthwaite.
    pub welch_df: f64,
    /// Its two-sided p-value.
    pub welch_p: f64,
    /// The mean of B less the mean of A.
    pub difference: f64,
    /// Its 95 % interval.
    pub difference_interval: Interval,
    /// The two-sided p-value of H. B. Mann and D. R. Whitney's U (1947), corrected for ties and continuity.
    pub mann_whitney_p: f64,
    /// L. V. Hedges's g (1981): the difference in pooled standard deviations, corrected for small samples.
    pub hedges_g: f64,
    /// N. Cliff's delta (1993): how much more often a value of B is above one of A than below it, from -1 to 1.
    pub cliffs_delta: f64,
}

impl Location {
    /// Compares two samples; `None` where one has fewer than two values or neither varies.
    pub fn of(a: &[f64], b: &[f64]) -> Option<Self> {
        let (n_a, n_b) = (a.len() as f64, b.len() as f64);
        let (variance_a, variance_b) = (standard_deviation(a)?.powi(2), standard_deviation(b)?.powi(2));
        let difference = mean(b)? - mean(a)?;
        let (share_a, share_b) = (variance_a / n_a, variance_b / n_b);
        let error = (share_a + share_b).sqrt();
        if error == 0.0 {
            return None;
        }
        let degrees = (share_a + share_b).powi(2) / (share_a.powi(2) / (n_a - 1.0) + share_b.powi(2) / (n_b - 1.0));
        let student = StudentsT::new(0.0, 1.0, degrees).ok()?;
        let t = difference / error;
        let reach = student.inverse_cdf(0.975) * error;
        let (_, rank_p) =
            mannwhitneyu(a, b, MannWhitneyUMethod::AsymptoticInclContinuityCorrection, Alternative::TwoSided).ok()?;
        let pooled = (((n_a - 1.0) * variance_a + (n_b - 1.0) * variance_b) / (n_a + n_b - 2.0)).sqrt();
        let small_sample = 1.0 - 3.0 / (4.0 * (n_a + n_b) - 9.0);
        Some(Self {
            welch_t: t,
            welch_df: degrees,
            welch_p: (2.0 * student.sf(t.abs())).min(1.0),
            difference,
            difference_interval: Interval { low: difference - reach, high: difference + reach },
            mann_whitney_p: rank_p.clamp(0.0, 1.0),
            hedges_g: small_sample * difference / pooled,
            cliffs_delta: cliffs_delta(a, b),
        })
    }
}

/// How much more often a value of `b` is above one of `a` than below it. N. Cliff, "Dominance statistics" (1993).
pub fn cliffs_delta(a: &[f64], b: &[f64]) -> f64 {
    let mut sorted = a.to_vec();
    sorted.sort_by(f64::total_cmp);
    let dominance = |value: &f64| {
        let below = sorted.partition_point(|other| other < value) as f64;
        let above = (sorted.len() - sorted.partition_point(|other| other <= value)) as f64;
        below - above
    };
    let pairs = (a.len() * b.len()) as f64;
    if pairs == 0.0 { 0.0 } else { b.iter().map(dominance).sum::<f64>() / pairs }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::assert_close;

    /// R's data set `sleep`: extra hours of sleep under two drugs (Student 1908).
    const DRUG_1: [f64; 10] = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0];
    const DRUG_2: [f64; 10] = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4];

    #[test]
    fn students_sleep_data_give_rs_figures() {
        // R: t.test(extra ~ group, data = sleep): t = -1.8608, df = 17.776, p = 0.07939, CI -3.3654832 to 0.2054832.
        let found = Location::of(&DRUG_1, &DRUG_2).unwrap();
        assert_close(found.welch_t, 1.8608, 4);
        assert_close(found.welch_df, 17.776, 3);
        assert_close(found.welch_p, 0.07939, 5);
        assert_close(found.difference_interval.low, -0.205_483_2, 6);
        assert_close(found.difference_interval.high, 3.365_483_2, 6);
        // R: wilcox.test(extra ~ group, data = sleep, exact = FALSE): p = 0.06933.
        assert_close(found.mann_whitney_p, 0.06933, 4);
    }

    #[test]
    fn dominance_is_whole_where_nothing_overlaps() {
        assert_close(cliffs_delta(&[1.0, 2.0], &[3.0, 4.0]), 1.0, 10);
        assert_close(cliffs_delta(&[1.0, 2.0], &[1.0, 2.0]), 0.0, 10);
        assert_close(cliffs_delta(&[1.0, 2.0, 3.0], &[2.0]), 0.0, 10);
    }

    #[test]
    fn samples_that_do_not_vary_are_not_compared() {
        assert_eq!(Location::of(&[1.0, 1.0], &[1.0, 1.0]), None);
        assert_eq!(Location::of(&[1.0], &[1.0, 2.0]), None);
    }
}
