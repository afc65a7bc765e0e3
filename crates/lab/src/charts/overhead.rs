//! What each treatment costs, compared with the baseline.

use super::canvas::Sheet;
use super::look::{Paint, Sign};
use super::rows::{Reference, Row, lay};
use super::scale::{Scale, decimals, number};
use super::series::Series;
use super::{Chart, ChartError};
use crate::summary::{Overhead, published, reproduction};

fn percent(value: f64) -> String {
    format!("{} %", decimals(value, 1))
}

fn interval(overhead: &Overhead) -> Option<String> {
    overhead.ci95.map(|ci| format!("{} to {}", decimals(ci.low, 1), decimals(ci.high, 1)))
}

/// The pairs of trials behind the figures, as they are written.
fn pairs(found: &[(&Series, Overhead)]) -> String {
    let pairs = || found.iter().map(|(_, overhead)| overhead.pairs);
    match (pairs().min(), pairs().max()) {
        (Some(least), Some(most)) if least < most => format!("{} to {}", number(least as f64), number(most as f64)),
        (least, _) => number(least.unwrap_or_default() as f64),
    }
}

pub(super) fn draw(series: &[Series], setting: &str) -> Result<Chart, ChartError> {
    let found: Vec<(&Series, Overhead)> = series.iter().filter_map(|series| Some((series, series.overhead?))).collect();
    let (published_mean, published_low, published_high) = published::OVERHEAD_PERCENT;
    let limit = published::OVERHEAD_LIMIT_PERCENT;
    let (python_mean, python_median) = reproduction::OVERHEAD_PERCENT;
    let reading = format!(
        "Sign: ratio of mean update times over {} paired trials, less one; whisker: its bootstrap 95 % interval; upright \
         stroke: median of the pairs. Grey band: the published interval ({published_low} to {published_high} %).",
        pairs(&found)
    );
    let mut sheet = Sheet::new("What does an update cost, compared with no protection?", setting, &reading);
    let mut rows: Vec<Row> = found
        .iter()
        .map(|(series, overhead)| {
            let cells = vec![
                percent(overhead.mean),
                interval(overhead).unwrap_or_else(|| "–".to_owned()),
                percent(overhead.median),
            ];
            Row { name: series.name.clone(), look: Some(series.look), cells }
        })
        .collect();
    // What another machine once measured has no place beside the same thing measured here.
    let is_measured_here = series.iter().any(|series| series.is_peer);
    if !is_measured_here {
        rows.push(Row {
            name: "Python reproduction".to_owned(),
            look: None,
            cells: vec![percent(python_mean), "–".to_owned(), percent(python_median)],
        });
    }
    let ground = lay(&mut sheet, &["mean", "95 % interval", "median"], &rows, 42.0, 0.0);
    let ends = found.iter().flat_map(|(_, overhead)| {
        let ci = overhead.ci95.map_or([overhead.mean; 2], |interval| [interval.low, interval.high]);
        ci.into_iter().chain([overhead.mean, overhead.median])
    });
    let (low, high) = ends.fold((0.0, 24.0), |(low, high): (f64, f64), end| (low.min(end), high.max(end)));
    let scale = Scale::linear(low, high, 6, (ground.left, ground.right));
    let references = [
        Reference {
            at: published_mean,
            label: format!("published: {published_mean:.0} %"),
            band: Some((published_low, published_high)),
            dashes: &[6.0, 4.0],
        },
        Reference { at: limit, label: format!("criterion: below {limit:.0} %"), band: None, dashes: &[2.0, 3.0] },
    ];
    ground.rule(&mut sheet, &scale, &references);
    let median = |sheet: &mut Sheet, value: f64, y: f64, paint: Paint| {
        let x = scale.place(value);
        sheet.line(&[(x, y - 11.0), (x, y + 11.0)], Paint::Paper, 6.0);
        sheet.line(&[(x, y - 10.0), (x, y + 10.0)], paint, 3.0);
    };
    for (index, (series, overhead)) in found.iter().enumerate() {
        let y = ground.row(index);
        if let Some(interval) = overhead.ci95 {
            sheet.whisker((scale.place(interval.low), scale.place(interval.high)), y, 9.0);
        }
        median(&mut sheet, overhead.median, y, series.look.paint);
        sheet.sign((scale.place(overhead.mean), y), 6.0, series.look.sign, series.look.paint);
    }
    if !is_measured_here {
        let y = ground.row(found.len());
        median(&mut sheet, python_median, y, Paint::Faint);
        sheet.sign((scale.place(python_mean), y), 4.5, Sign::Round, Paint::Faint);
    }
    ground.ticks(&mut sheet, &scale, "overhead of an update against the baseline, %");
    let costs: Vec<String> = found
        .iter()
        .map(|(series, overhead)| {
            let interval = interval(overhead).map(|ci| format!(" ({ci} %)")).unwrap_or_default();
            format!("{} {}{interval}", series.name, percent(overhead.mean))
        })
        .collect();
    let caption = format!(
        "Mean overhead of an update against the baseline, with 95 % intervals: {}. Published: {published_mean:.0} %; the criterion is below \
         {limit:.0} %.",
        costs.join(", ")
    );
    sheet.finish("overhead", caption, ground.height())
}
