//! Whether the throughput holds over the trials: one strip a series, all on one scale.

use super::canvas::{Anchor, SMALL, Sheet};
use super::look::Paint;
use super::rows::{Row, lay};
use super::scale::{Scale, decimals};
use super::series::{Rate, Series};
use super::{Chart, ChartError};
use crate::stats::quantile;

/// Free between two strips.
const APART: f64 = 18.0;

/// The lower quartile, the median and the upper quartile.
fn quartiles(rates: &[Rate]) -> Option<[f64; 3]> {
    let mut values: Vec<f64> = rates.iter().map(|rate| rate.per_second).collect();
    values.sort_by(f64::total_cmp);
    Some([quantile(&values, 0.25)?, quantile(&values, 0.5)?, quantile(&values, 0.75)?])
}

/// The median and the quartiles, as they are written.
fn written(rates: &[Rate]) -> Option<(String, String)> {
    let [low, middle, high] = quartiles(rates)?.map(|rate| decimals(rate, 1));
    // A few trials have no half.
    let half = if rates.len() < 4 { "–".to_owned() } else { format!("{low} to {high}") };
    Some((middle, half))
}

pub(super) fn draw(series: &[Series], setting: &str) -> Result<Chart, ChartError> {
    let reading = "One sign a trial, in order; line and band: the median and the middle half of the trials; ×: a corrupt \
                   trial. Thinking and random pauses are included: trials differ by what was drawn for them.";
    let mut sheet = Sheet::new("Does the throughput hold from the first trial to the last?", setting, reading);
    let rows: Vec<Row> = series
        .iter()
        .map(|series| {
            let (middle, half) = written(&series.rates).unwrap_or_else(|| ("–".to_owned(), "–".to_owned()));
            Row { name: series.name.clone(), look: Some(series.look), cells: vec![format!("{middle} / s"), half] }
        })
        .collect();
    // Few series have room for more.
    let (step, parts) = match series.len() {
        ..=3 => (96.0, 4),
        4..=5 => (84.0, 4),
        _ => (72.0, 3),
    };
    let ground = lay(&mut sheet, &["median", "middle half"], &rows, step, 44.0);
    let all = || series.iter().flat_map(|series| &series.rates);
    let last = all().map(|rate| rate.trial).max().unwrap_or(1);
    let highest = all().map(|rate| rate.per_second).fold(1.0, f64::max);
    let across = Scale::counted(last, (ground.left, ground.right));
    let radius = (0.42 * (ground.right - ground.left) / last as f64).clamp(1.2, 4.5);
    sheet.text((ground.left - 34.0, ground.top - 14.0), "acknowledged updates / s", SMALL, Paint::Ink, Anchor::Start);
    for (index, series) in series.iter().enumerate() {
        let half = (step - APART) / 2.0;
        let (top, bottom) = (ground.row(index) - half, ground.row(index) + half);
        let up = Scale::from_zero(highest, parts, (bottom, top));
        let found = quartiles(&series.rates);
        if let Some([low, _, high]) = found {
            sheet.bar((ground.left, up.place(low)), (ground.right, up.place(high)), Paint::Band);
        }
        for (y, label) in up.ticks() {
            let paint = if label == "0" { Paint::Faint } else { Paint::Rule };
            sheet.line(&[(ground.left, y), (ground.right, y)], paint, 1.0);
            sheet.text((ground.left - 8.0, y), &label, SMALL, Paint::Ink, Anchor::End);
        }
        if let Some([_, median, _]) = found {
            let y = up.place(median);
            sheet.line(&[(ground.left, y), (ground.right, y)], series.look.paint, 1.5);
        }
        for rate in &series.rates {
            let at = (across.place(rate.trial as f64), up.place(rate.per_second));
            if rate.corrupt {
                sheet.cross(at, radius.max(3.0));
            } else {
                sheet.sign(at, radius, series.look.sign, series.look.paint);
            }
        }
    }
    ground.ticks(&mut sheet, &across, "trial");
    let found: Vec<String> = series
        .iter()
        .filter_map(|series| {
            let (middle, half) = written(&series.rates)?;
            let half = if half == "–" { String::new() } else { format!(" ({half})") };
            Some(format!("{} {middle}{half}", series.name))
        })
        .collect();
    let caption = format!(
        "Acknowledged updates a second, the median over trials and the middle half of them: {}.",
        found.join(", ")
    );
    sheet.finish("throughput", caption, ground.height())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_those_of_the_rates_in_any_order() {
        let rate = |(index, per_second)| Rate { trial: index, per_second, corrupt: false };
        let rates: Vec<Rate> = [50.0, 10.0, 40.0, 20.0, 30.0].into_iter().enumerate().map(rate).collect();
        assert_eq!(quartiles(&rates), Some([20.0, 30.0, 40.0]));
        assert_eq!(written(&rates), Some(("30.0".to_owned(), "20.0 to 40.0".to_owned())));
        assert_eq!(quartiles(&[]), None);
    }
}
