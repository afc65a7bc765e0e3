//! Two groups, each with so many that are corrupt and so many that are not.

use serde::Serialize;
use statrs::distribution::{ChiSquared, ContinuousCDF, Discrete, Hypergeometric, Normal};

use super::Interval;

/// A two-by-two table, judged. Group A is the first (the baseline), group B the second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Contingency {
    /// K. Pearson's chi-square (1900), without correction; `None` where a row or column is empty.
    pub chi_square: Option<f64>,
    /// Its p-value, one degree of freedom.
    pub chi_square_p: Option<f64>,
    /// The statistic with F. Yates's correction for continuity (1934).
    pub chi_square_yates: Option<f64>,
    /// Its p-value.
    pub chi_square_yates_p: Option<f64>,
    /// Whether an expected count is below 5, so that chi-square is only a rough guide and Fisher's test the one to read.
    pub has_small_expected_counts: bool,
    /// R. A. Fisher's exact test (1935), two-sided.
    pub fisher_p: f64,
    /// The odds of A over the odds of B, with half added to every count (Haldane 1956, Anscombe 1956), so that it is
    /// finite where a count is zero.
    pub odds_ratio: f64,
    /// The proportion of A less the proportion of B.
    pub risk_difference: f64,
    /// Its 95 % interval: R. G. Newcombe's method 10 (1998), of Wilson's score intervals.
    pub risk_difference_interval: Interval,
    /// Cohen's h (1988): 0.2 is small, 0.5 medium, 0.8 large.
    pub cohens_h: f64,
}

impl Contingency {
    /// Judges `a` of `a_n` against `b` of `b_n`; `None` where a group is empty.
    pub fn of((a, a_n): (usize, usize), (b, b_n): (usize, usize)) -> Option<Self> {
        if a_n == 0 || b_n == 0 || a > a_n || b > b_n {
            return None;
        }
        let counts = [[a, a_n - a], [b, b_n - b]].map(|row| row.map(|count| count as f64));
        let (chi_square, yates, small) = chi_square(counts);
        let tail = |statistic: f64| ChiSquared::new(1.0).map_or(1.0, |distribution| distribution.sf(statistic));
        let (p_a, p_b) = (a as f64 / a_n as f64, b as f64 / b_n as f64);
        let half = counts.map(|row| row.map(|count| count + 0.5));
        Some(Self {
            chi_square,
            chi_square_p: chi_square.map(tail),
            chi_square_yates: yates,
            chi_square_yates_p: yates.map(tail),
            has_small_expected_counts: small,
            fisher_p: fisher((a, a_n), (b, b_n)),
            odds_ratio: (half[0][0] * half[1][1]) / (half[0][1] * half[1][0]),
            risk_difference: p_a - p_b,
            risk_difference_interval: newcombe((a, a_n), (b, b_n)),
            cohens_h: 2.0 * p_a.sqrt().asin() - 2.0 * p_b.sqrt().asin(),
        })
    }
}

/// The statistic, the one with Yates's correction, and whether an expected count is below 5.
fn chi_square(counts: [[f64; 2]; 2]) -> (Option<f64>, Option<f64>, bool) {
    let rows = counts.map(|row| row[0] + row[1]);
    let columns = [counts[0][0] + counts[1][0], counts[0][1] + counts[1][1]];
    let total = rows[0] + rows[1];
    let (mut plain, mut corrected, mut small) = (0.0, 0.0, false);
    for (row, counts) in counts.iter().enumerate() {
        for (column, count) in counts.iter().enumerate() {
            let expected = rows[row] * columns[column] / total;
            if expected == 0.0 {
                return (None, None, true);
            }
            let distance = (count - expected).abs();
            small |= expected < 5.0;
            plain += distance.powi(2) / expected;
            corrected += (distance - 0.5_f64.min(distance)).powi(2) / expected;
        }
    }
    (Some(plain), Some(corrected), small)
}

/// The chance of every table with these margins that is no more likely than the one found: the two-sided test as R's
/// `fisher.test` does it, with R's tolerance for tables that are equally likely but for rounding. Summed here because
/// statrs 0.19 subtracts from one, which leaves nothing of p-values below 1e-9 and makes some of them negative.
fn fisher((a, a_n): (usize, usize), (b, b_n): (usize, usize)) -> f64 {
    const SAME: f64 = 1.0 + 1e-7;
    let (corrupt, drawn) = (a + b, a_n);
    let Ok(tables) = Hypergeometric::new((a_n + b_n) as u64, corrupt as u64, drawn as u64) else {
        unreachable!("neither group is larger than both together");
    };
    // By its logarithm: the binomial coefficients themselves overflow from about a thousand trials.
    let chance = |count: usize| tables.ln_pmf(count as u64).exp();
    let found = chance(a);
    let possible = corrupt.saturating_sub(b_n)..=corrupt.min(drawn);
    possible.map(chance).filter(|chance| *chance <= found * SAME).sum::<f64>().min(1.0)
}

/// R. G. Newcombe, "Interval estimation for the difference between independent proportions" (1998), method 10.
fn newcombe((a, a_n): (usize, usize), (b, b_n): (usize, usize)) -> Interval {
    let (p_a, p_b) = (a as f64 / a_n as f64, b as f64 / b_n as f64);
    let (wilson_a, wilson_b) = (wilson(p_a, a_n as f64), wilson(p_b, b_n as f64));
    let difference = p_a - p_b;
    let below = ((p_a - wilson_a.low).powi(2) + (wilson_b.high - p_b).powi(2)).sqrt();
    let above = ((wilson_a.high - p_a).powi(2) + (p_b - wilson_b.low).powi(2)).sqrt();
    Interval { low: difference - below, high: difference + above }
}

/// E. B. Wilson's score interval (1927), 95 %.
fn wilson(p: f64, n: f64) -> Interval {
    let z = Normal::standard().inverse_cdf(0.975);
    let (centre, scale) = (p + z * z / (2.0 * n), 1.0 + z * z / n);
    let spread = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    Interval { low: ((centre - spread) / scale).max(0.0), high: ((centre + spread) / scale).min(1.0) }
}

#[cfg(test)]
mod tests {
    use statrs::stats_tests::{Alternative, fishers_exact};

    use super::*;
    use crate::stats::assert_close;

    #[test]
    fn the_published_counts_give_scipys_figures() {
        // SciPy 1.17.1 on [[15, 85], [0, 100]]: chi2_contingency(correction=False) 16.216216, p 5.650833e-05;
        // correction=True 14.126126, p 1.709529e-04; fisher_exact p 3.463412e-05.
        let table = Contingency::of((15, 100), (0, 100)).unwrap();
        assert_close(table.chi_square.unwrap(), 16.216_216, 5);
        assert_close(table.chi_square_p.unwrap() * 1e5, 5.650_833, 4);
        assert_close(table.chi_square_yates.unwrap(), 14.126_126, 5);
        assert_close(table.chi_square_yates_p.unwrap() * 1e4, 1.709_529, 4);
        assert_close(table.fisher_p * 1e5, 3.463_412, 4);
        assert!(!table.has_small_expected_counts);
    }

    #[test]
    fn the_example_of_scipys_documentation_comes_out() {
        // scipy.stats.fisher_exact([[8, 2], [1, 5]]) gives p = 0.03496503496503495.
        let table = Contingency::of((8, 10), (1, 6)).unwrap();
        assert_close(table.fisher_p, 0.034_965, 5);
        assert!(table.has_small_expected_counts);
    }

    #[test]
    fn fishers_test_holds_from_no_difference_to_the_greatest() {
        // SciPy 1.17.1: scipy.stats.fisher_exact([[a, a_n - a], [b, b_n - b]]).
        for (a, b, expected) in [
            ((2, 20), (0, 20), 0.487_179_487_2),
            ((9, 10), (3, 10), 0.019_766_611_1),
            ((600, 1500), (500, 1500), 1.750_292_751e-4),
            ((50, 100), (0, 100), 4.445_939_502e-19),
            ((100, 100), (0, 100), 2.208_760_693e-59),
            ((0, 100), (100, 100), 2.208_760_693e-59),
        ] {
            assert_close(fisher(a, b) / expected, 1.0, 8);
        }
    }

    #[test]
    fn fishers_test_is_that_of_statrs_where_that_is_sound() {
        for (a, b) in (0..=12).flat_map(|a| (0..=9).map(move |b| (a, b))) {
            let table = [a, 12 - a, b, 9 - b];
            let theirs = fishers_exact(&table, Alternative::TwoSided).unwrap();
            assert_close(fisher((a as usize, 12), (b as usize, 9)), theirs, 8);
        }
    }

    #[test]
    fn exchanging_the_groups_only_turns_the_signs() {
        for (a, b) in [((15, 100), (0, 100)), ((3, 7), (11, 20)), ((0, 4), (0, 9)), ((4, 4), (9, 9))] {
            let (one, other) = (Contingency::of(a, b).unwrap(), Contingency::of(b, a).unwrap());
            assert_close(one.fisher_p, other.fisher_p, 10);
            assert_close(one.odds_ratio * other.odds_ratio, 1.0, 10);
            assert_close(one.risk_difference, -other.risk_difference, 10);
            assert_close(one.risk_difference_interval.low, -other.risk_difference_interval.high, 10);
            assert_close(one.cohens_h, -other.cohens_h, 10);
        }
    }

    #[test]
    fn sizes_of_effects_are_their_formulas() {
        // By hand for 15 of 100 against 0 of 100: (15.5 * 100.5) / (85.5 * 0.5); 2 asin(sqrt(0.15)) = 0.7954.
        let table = Contingency::of((15, 100), (0, 100)).unwrap();
        assert_close(table.odds_ratio, 36.4386, 4);
        assert_close(table.cohens_h, 0.7954, 4);
    }

    #[test]
    fn newcombes_own_example_comes_out() {
        // Newcombe (1998), table II (a): 56/70 - 48/80, method 10: 0.0524 to 0.3339.
        let interval = newcombe((56, 70), (48, 80));
        assert_close(interval.low, 0.0524, 4);
        assert_close(interval.high, 0.3339, 4);
    }

    #[test]
    fn two_equal_groups_do_not_differ() {
        let table = Contingency::of((0, 50), (0, 50)).unwrap();
        assert_eq!((table.chi_square, table.fisher_p), (None, 1.0));
        assert_close(table.cohens_h, 0.0, 10);
        assert_eq!(Contingency::of((0, 0), (0, 5)), None);
    }
}
