//! How long it takes to hold the lock: the whole distribution, and its figures below.

use super::canvas::{Anchor, BODY, MARGIN, Point, SMALL, Sheet, WIDTH};
use super::look::Paint;
use super::scale::{Scale, milliseconds, number};
use super::series::Series;
use super::{Chart, ChartError, letters};
use crate::stats::Distribution;
use crate::summary::published;

const LEFT: f64 = 76.0;
const RIGHT: f64 = WIDTH - 36.0;
const PLOT: f64 = 300.0;
const ROW: f64 = 25.0;
/// Where the table's figures end, and their heads.
const COLUMNS: [(f64, &str); 5] = [
    (420.0, "acquisitions"),
    (510.0, "mean, ms"),
    (615.0, "median, ms"),
    (770.0, "99th percentile, ms"),
    (WIDTH - MARGIN, "longest, ms"),
];

pub(super) fn draw(series: &[Series], setting: &str) -> Result<Chart, ChartError> {
    let taken: Vec<(&Series, Distribution)> =
        series.iter().filter_map(|series| Some((series, series.acquire_spread?))).collect();
    let reading = "Line: share of acquisitions that took no longer than so many milliseconds, waiting included; signs: \
                   the median and the 99th percentile.";
    let mut sheet = Sheet::new("How long does it take to hold the lock?", setting, reading);
    let top = (sheet.top + 34.0).round();
    let bottom = top + PLOT;
    let positive = taken.iter().flat_map(|(series, _)| &series.acquire).copied().filter(|time| *time > 0.0);
    let (low, high) = positive.fold((0.1, 5.0), |(low, high): (f64, f64), time| (low.min(time), high.max(time)));
    let across = Scale::logarithmic(low, high, (LEFT, RIGHT));
    let up = Scale::linear(0.0, 100.0, 5, (bottom, top));
    ground(&mut sheet, &across, &up, (top, bottom));
    for (series, _) in &taken {
        sheet.dashed(&steps(&series.acquire, &across, &up), series.look.dashes, series.look.paint, 2.2);
    }
    // Signs above all lines: the more rarely hidden ones first.
    for (series, spread) in taken.iter().rev() {
        for (share, at) in [(50.0, spread.p50), (99.0, spread.p99)] {
            sheet.sign((across.place(at), up.place(share)), 5.5, series.look.sign, series.look.paint);
        }
    }
    let table = bottom + 76.0;
    for (end, head) in COLUMNS {
        sheet.text((end, table), head, SMALL, Paint::Faint, Anchor::End);
    }
    for (index, (series, spread)) in taken.iter().enumerate() {
        let y = table + ROW * (index as f64 + 1.0);
        sheet.dashed(&[(MARGIN, y), (MARGIN + 56.0, y)], series.look.dashes, series.look.paint, 2.2);
        sheet.sign((MARGIN + 28.0, y), 5.5, series.look.sign, series.look.paint);
        let name = letters::fitted(&series.name, BODY, 210.0);
        sheet.text((MARGIN + 70.0, y), &name, BODY, Paint::Ink, Anchor::Start);
        let count = number(spread.n as f64);
        let figures = [spread.mean, spread.p50, spread.p99, spread.max].map(milliseconds);
        for ((end, _), figure) in COLUMNS.into_iter().zip([count].into_iter().chain(figures)) {
            sheet.text((end, y), &figure, BODY, Paint::Ink, Anchor::End);
        }
    }
    let found: Vec<String> = taken
        .iter()
        .map(|(series, spread)| {
            let (half, most) = (milliseconds(spread.p50), milliseconds(spread.p99));
            format!("{} within {half} ms half of the time and within {most} ms 99 times of 100", series.name)
        })
        .collect();
    let caption =
        format!("Time to hold the lock: {}. The published mean was {} ms.", found.join(", "), published::ACQUIRE_MS);
    sheet.finish("acquisition-time", caption, table + ROW * (taken.len() as f64 + 1.0) + 2.0)
}

/// Rules, ticks, units, and the published mean.
fn ground(sheet: &mut Sheet, across: &Scale, up: &Scale, (top, bottom): (f64, f64)) {
    for (x, label) in across.ticks() {
        sheet.line(&[(x, top), (x, bottom + 4.0)], Paint::Rule, 1.0);
        sheet.text((x, bottom + 15.0), &label, SMALL, Paint::Ink, Anchor::Middle);
    }
    for (y, label) in up.ticks() {
        let paint = if label == "0" { Paint::Faint } else { Paint::Rule };
        sheet.line(&[(LEFT, y), (RIGHT, y)], paint, 1.0);
        sheet.text((LEFT - 10.0, y), &format!("{label} %"), SMALL, Paint::Ink, Anchor::End);
    }
    let unit = "time to acquire, ms (logarithmic)";
    sheet.text((f64::midpoint(LEFT, RIGHT), bottom + 39.0), unit, BODY, Paint::Ink, Anchor::Middle);
    let share = "share of acquisitions";
    sheet.text((MARGIN, top - 18.0), share, SMALL, Paint::Ink, Anchor::Start);
    let mean = across.place(published::ACQUIRE_MS);
    sheet.dashed(&[(mean, bottom), (mean, top - 25.0)], &[6.0, 4.0], Paint::Faint, 1.5);
    let label = format!("published mean: {} ms", published::ACQUIRE_MS);
    // Before the line there may be the other text; behind it there may be the edge.
    let fits = mean + 6.0 + letters::width(&label, SMALL) <= WIDTH - MARGIN;
    let (x, anchor) = if fits { (mean + 6.0, Anchor::Start) } else { (mean - 6.0, Anchor::End) };
    sheet.text((x, top - 18.0), &label, SMALL, Paint::Faint, anchor);
}

/// The share of values up to each value: it rises at each of them. Steps too short to be seen are drawn as one.
fn steps(times: &[f64], across: &Scale, up: &Scale) -> Vec<Point> {
    let (n, mut height) = (times.len() as f64, up.place(0.0));
    let mut steps: Vec<Point> = Vec::new();
    for (rank, time) in times.iter().enumerate() {
        let (x, risen) = (across.place(*time), up.place(100.0 * (rank as f64 + 1.0) / n));
        match steps.last_mut() {
            Some(last) if x - last.0 < 0.25 => last.1 = risen,
            _ => steps.extend([(x, height), (x, risen)]),
        }
        height = risen;
    }
    steps.push((RIGHT, height));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_rises_at_each_value_and_ends_at_all_of_them() {
        let (across, up) = (Scale::logarithmic(1.0, 100.0, (0.0, 200.0)), Scale::linear(0.0, 100.0, 5, (100.0, 0.0)));
        let steps = steps(&[1.0, 10.0, 10.0, 10.0], &across, &up);
        assert_eq!(steps, [(0.0, 100.0), (0.0, 75.0), (100.0, 75.0), (100.0, 0.0), (RIGHT, 0.0)]);
    }

    #[test]
    fn thousands_of_values_make_few_points() {
        let (across, up) = (Scale::logarithmic(1.0, 100.0, (0.0, 200.0)), Scale::linear(0.0, 100.0, 5, (100.0, 0.0)));
        let times: Vec<f64> = (1000..100_000).map(|time| f64::from(time) / 1000.0).collect();
        assert!(steps(&times, &across, &up).len() < 2000);
    }
}
