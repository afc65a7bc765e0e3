//! Two samples: does one lie above the other, and by how much?

use serde::Serialize;
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

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
    /// H. B. Mann and D. R. Whitney's U (1947): pairs in which the value of B is above that of A, ties as a half.
    pub mann_whitney_u: f64,
    /// Its two-sided p-value: exact for small samples without ties, else corrected for ties and continuity.
    pub mann_whitney_p: f64,
    /// Whether that p-value is exact.
    pub mann_whitney_is_exact: bool,
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
        let dominance = Dominance::of(a, b);
        let (rank_p, is_exact) = mann_whitney_p(a, b, dominance.u());
        let pooled = (((n_a - 1.0) * variance_a + (n_b - 1.0) * variance_b) / (n_a + n_b - 2.0)).sqrt();
        let small_sample = 1.0 - 3.0 / (4.0 * (n_a + n_b) - 9.0);
        Some(Self {
            welch_t: t,
            welch_df: degrees,
            welch_p: (2.0 * student.sf(t.abs())).min(1.0),
            difference,
            difference_interval: Interval { low: difference - reach, high: difference + reach },
            mann_whitney_u: dominance.u(),
            mann_whitney_p: rank_p,
            mann_whitney_is_exact: is_exact,
            hedges_g: small_sample * difference / pooled,
            cliffs_delta: dominance.delta(),
        })
    }
}

/// How much more often a value of `b` is above one of `a` than below it. N. Cliff, "Dominance statistics" (1993).
pub fn cliffs_delta(a: &[f64], b: &[f64]) -> f64 {
    Dominance::of(a, b).delta()
}

/// All pairs of a value of A and one of B: how many there are, and in how many that of B is above or below.
#[derive(Debug, Clone, Copy)]
struct Dominance {
    pairs: f64,
    above: f64,
    below: f64,
}

impl Dominance {
    fn of(a: &[f64], b: &[f64]) -> Self {
        let mut sorted = a.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (mut above, mut below) = (0, 0);
        for value in b {
            above += sorted.partition_point(|other| other < value);
            below += sorted.len() - sorted.partition_point(|other| other <= value);
        }
        Self { pairs: (a.len() * b.len()) as f64, above: above as f64, below: below as f64 }
    }

    fn delta(self) -> f64 {
        if self.pairs == 0.0 { 0.0 } else { (self.above - self.below) / self.pairs }
    }

    fn u(self) -> f64 {
        self.above + (self.pairs - self.above - self.below) / 2.0
    }
}

/// The two-sided p-value of U, and whether it is exact: below 50 values each and without ties, as R's `wilcox.test`
/// decides it. Written here because statrs 0.19 gives the complement of the exact p-value unless the first sample is
/// the larger, and counts every arrangement for it.
fn mann_whitney_p(a: &[f64], b: &[f64], u: f64) -> (f64, bool) {
    const EXACT_BELOW: usize = 50;
    let mut pooled = [a, b].concat();
    pooled.sort_by(f64::total_cmp);
    let has_ties = pooled.windows(2).any(|pair| pair[0] >= pair[1]);
    let middle = (a.len() * b.len()) as f64 / 2.0;
    let distance = (u - middle).abs();
    if !has_ties && a.len().max(b.len()) < EXACT_BELOW {
        // Without ties U is whole, and its distribution symmetric about the middle.
        let chances = chances_of_u(a.len(), b.len());
        let tail: f64 = chances[(middle + distance) as usize..].iter().sum();
        return ((2.0 * tail).min(1.0), true);
    }
    let n = pooled.len() as f64;
    let ties = pooled.chunk_by(|one, next| one >= next).map(|tied| (tied.len() as f64).powi(3) - tied.len() as f64);
    let variance = middle / 6.0 * (n + 1.0 - ties.sum::<f64>() / (n * (n - 1.0)));
    let tail = Normal::standard().sf((distance - 0.5) / variance.sqrt());
    ((2.0 * tail).min(1.0), false)
}

/// The chance of each U, from 0 to every pair, where the samples do not differ: Mann and Whitney's recurrence (1947)
/// over what the largest value of all belongs to, in chances rather than counts, which would outgrow a float.
fn chances_of_u(n_a: usize, n_b: usize) -> Vec<f64> {
    // For so many values of A, by the number of values of B; with none of either, U is 0.
    let mut row = vec![vec![1.0]; n_b + 1];
    for a in 1..=n_a {
        let mut next = vec![vec![1.0]];
        for b in 1..=n_b {
            let of_a = a as f64 / (a + b) as f64;
            let mut chances = vec![0.0; a * b + 1];
            for (u, chance) in row[b].iter().enumerate() {
                chances[u] += of_a * chance;
            }
            // A largest value that is B's is above all of A.
            for (u, chance) in next[b - 1].iter().enumerate() {
                chances[u + a] += (1.0 - of_a) * chance;
            }
            next.push(chances);
        }
        row = next;
    }
    row.swap_remove(n_b)
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
        assert_close(found.mann_whitney_p, 0.069_327_6, 7);
        assert!(!found.mann_whitney_is_exact, "-0.1 is in both");
        // SciPy 1.17.1: scipy.stats.mannwhitneyu(drug_2, drug_1) has U = 74.5. By the formulas, in NumPy: Hedges' g
        // 0.797019, Cliff's delta 0.49.
        assert_close(found.mann_whitney_u, 74.5, 10);
        assert_close(found.hedges_g, 0.797_019, 6);
        assert_close(found.cliffs_delta, 0.49, 10);
    }

    /// U and its p-value, of B against A.
    fn ranked(a: &[f64], b: &[f64]) -> (f64, f64, bool) {
        let u = Dominance::of(a, b).u();
        let (p, is_exact) = mann_whitney_p(a, b, u);
        (u, p, is_exact)
    }

    #[test]
    fn the_ranks_of_scipys_documentation_come_out() {
        // scipy.stats.mannwhitneyu: males [19, 22, 16, 29, 24], females [20, 11, 17, 12]: U 17, exact p 0.1111.
        let (u, p, is_exact) = ranked(&[20.0, 11.0, 17.0, 12.0], &[19.0, 22.0, 16.0, 29.0, 24.0]);
        assert!(is_exact);
        assert_close(u, 17.0, 10);
        assert_close(p, 1.0 / 9.0, 10);
    }

    #[test]
    fn exact_ranks_are_scipys_from_either_side() {
        // SciPy 1.17.1: mannwhitneyu(a, b, method="exact"): U 2, p 0.0380952381; exchanged U 22, the same p.
        let (a, b) = ([3.1, 4.7, 2.2, 5.9], [6.3, 7.1, 5.2, 8.8, 9.4, 4.9]);
        for (first, second, expected) in [(&a[..], &b[..], 22.0), (&b[..], &a[..], 2.0)] {
            let (u, p, _) = ranked(first, second);
            assert_close(u, expected, 10);
            assert_close(p, 0.038_095_238_1, 10);
        }
        // The largest that is exact: a = 0..49, b = 1.3 a + 0.05: U 1474, p 0.0521315628.
        let a: Vec<f64> = (0..49).map(f64::from).collect();
        let b: Vec<f64> = a.iter().map(|value| value * 1.3 + 0.05).collect();
        let (u, p, is_exact) = ranked(&a, &b);
        assert!(is_exact);
        assert_close(u, 1474.0, 10);
        assert_close(p, 0.052_131_562_8, 10);
    }

    #[test]
    fn chances_of_u_are_whole_and_symmetric() {
        for (n_a, n_b) in [(1, 1), (2, 5), (5, 2), (7, 7), (49, 30)] {
            let chances = chances_of_u(n_a, n_b);
            assert_eq!(chances.len(), n_a * n_b + 1);
            assert_close(chances.iter().sum(), 1.0, 12);
            for (one, other) in chances.iter().zip(chances.iter().rev()) {
                assert_close(*one, *other, 12);
            }
        }
    }

    #[test]
    fn ranks_with_ties_and_of_large_samples_are_scipys() {
        // SciPy 1.17.1: mannwhitneyu(b, a, method="asymptotic"): U 40.5, p 0.1538256070.
        let (u, p, is_exact) = ranked(&[1.0, 2.0, 2.0, 3.0, 3.0, 3.0, 4.0, 5.0], &[2.0, 3.0, 3.0, 4.0, 5.0, 5.0, 6.0]);
        assert!(!is_exact);
        assert_close(u, 40.5, 10);
        assert_close(p, 0.153_825_607_0, 9);
        // 0..100 against 200..300: p 2.562143669e-34, far out in the tail.
        let a: Vec<f64> = (0..100).map(f64::from).collect();
        let b: Vec<f64> = (200..300).map(f64::from).collect();
        assert_close(ranked(&a, &b).1 / 2.562_143_669e-34, 1.0, 8);
    }

    #[test]
    fn exchanging_the_samples_only_turns_the_signs() {
        let (one, other) = (Location::of(&DRUG_1, &DRUG_2).unwrap(), Location::of(&DRUG_2, &DRUG_1).unwrap());
        assert_close(one.welch_t, -other.welch_t, 12);
        assert_close(one.welch_p, other.welch_p, 12);
        assert_close(one.mann_whitney_u + other.mann_whitney_u, 100.0, 12);
        assert_close(one.mann_whitney_p, other.mann_whitney_p, 12);
        assert_close(one.hedges_g, -other.hedges_g, 12);
        assert_close(one.cliffs_delta, -other.cliffs_delta, 12);
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
