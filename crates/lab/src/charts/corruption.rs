//! How many trials are corrupt.

use super::canvas::Sheet;
use super::rows::{Reference, Row, lay};
use super::scale::{Scale, decimals};
use super::series::Series;
use super::{Chart, ChartError};
use crate::stats::clopper_pearson;
use crate::summary::published;

fn percent(part: usize, of: usize) -> f64 {
    100.0 * part as f64 / of as f64
}

pub(super) fn draw(series: &[Series], setting: &str) -> Result<Chart, ChartError> {
    let counts = |series: &Series| format!("{} of {}", series.corrupt, series.trials);
    let interval = |series: &Series| {
        let interval = series.corrupt_interval;
        format!("{} to {}", decimals(interval.low * 100.0, 1), decimals(interval.high * 100.0, 1))
    };
    let (bare, locked, of) = (published::RACY_BASELINE, published::RACY_LOCKING, published::TRIALS);
    let reading = format!(
        "Bar: corrupt trials; whisker: exact (Clopper–Pearson) 95 % interval. Dashed line and grey band: the published \
         trials without a lock and their interval; with a Redis lock {locked} of {of} were racy."
    );
    let mut sheet = Sheet::new("How often is an update lost, or a history impossible?", setting, &reading);
    let rows: Vec<Row> = series
        .iter()
        .map(|series| {
            let share = format!("{} %", decimals(percent(series.corrupt, series.trials), 1));
            let cells = vec![counts(series), share, interval(series)];
            Row { name: series.name.clone(), look: Some(series.look), cells }
        })
        .collect();
    let ground = lay(&mut sheet, &["corrupt", "share", "95 % interval"], &rows, 42.0, 0.0);
    let highest = series.iter().map(|series| series.corrupt_interval.high * 100.0).fold(25.0, f64::max);
    let scale = Scale::linear(0.0, highest.min(100.0), 6, (ground.left, ground.right));
    let reach = clopper_pearson(bare, of, 0.95);
    let reference = Reference {
        at: percent(bare, of),
        label: format!("published, no lock: {bare} of {of}"),
        band: Some((reach.low * 100.0, reach.high * 100.0)),
        dashes: &[6.0, 4.0],
    };
    ground.rule(&mut sheet, &scale, &[reference]);
    for (index, series) in series.iter().enumerate() {
        let (y, from) = (ground.row(index), scale.place(0.0));
        let at = scale.place(percent(series.corrupt, series.trials));
        sheet.bar((from, y - 9.0), (at, y + 9.0), series.look.paint);
        let interval = series.corrupt_interval;
        // At zero the sign hides the lower end: it is no tick of the axis.
        sheet.whisker((scale.place(interval.low * 100.0), scale.place(interval.high * 100.0)), y, 5.5);
        sheet.sign((at, y), 6.0, series.look.sign, series.look.paint);
    }
    ground.ticks(&mut sheet, &scale, "corrupt trials, % of a treatment's trials");
    let found: Vec<String> =
        series.iter().map(|series| format!("{} {} ({} %)", series.name, counts(series), interval(series))).collect();
    let caption = format!(
        "Corrupt trials, with exact 95 % intervals: {}. Published: {bare} of {of} without a lock, {locked} of {of} with one.",
        found.join(", ")
    );
    sheet.finish("corrupt-trials", caption, ground.height())
}
