//! What a lock costs on each engine: where nobody else wants it, and where everybody does.

use super::canvas::Sheet;
use super::look::{Look, Paint, Sign, look};
use super::rows::{Row, lay};
use super::scale::{Scale, decimals, milliseconds};
use super::{Chart, ChartError};
use crate::engines::{Comparison, EngineSummary, Results};
use crate::results::Treatment;
use crate::stats::Distribution;

/// The two times that are drawn for each engine, apart from each other.
const APART: f64 = 8.0;

/// One chart; none where nothing was measured.
pub(crate) fn draw(results: &Results, comparison: &Comparison) -> Result<Option<Chart>, ChartError> {
    let times = |engine: &EngineSummary| [engine.free_acquire_ms, engine.hand_over_ms];
    let ends = comparison.engines.iter().flat_map(times).flatten().flat_map(|found| [found.p50, found.p99]);
    let ends: Vec<f64> = ends.filter(|time| *time > 0.0).collect();
    if ends.is_empty() {
        return Ok(None);
    }
    let workload = &results.metadata.workload;
    let setting = format!(
        "{} probes of each engine; overhead: profile {}, {} trials of each treatment.",
        results.metadata.probes, workload.profile, results.metadata.trials
    );
    let reading = "Round: time to take a lock that nobody else wants. Square: from giving back to the next one's holding, where \
                   8 processes want it. Signs: medians; whiskers reach to the 99th percentile.";
    let mut sheet = Sheet::new("What does a lock cost on each engine?", &setting, reading);
    let rows: Vec<Row> = comparison.engines.iter().map(row).collect();
    let ground = lay(&mut sheet, &["free, ms", "hand-over, ms", "overhead"], &rows, 46.0, 0.0);
    let (low, high) = ends.iter().fold((1.0_f64, 1.0_f64), |(low, high), time| (low.min(*time), high.max(*time)));
    let scale = Scale::logarithmic(low, high, (ground.left, ground.right));
    ground.rule(&mut sheet, &scale, &[]);
    for (index, engine) in comparison.engines.iter().enumerate() {
        let y = ground.row(index);
        for (found, look, y) in
            [(engine.free_acquire_ms, look(0), y - APART), (engine.hand_over_ms, look(2), y + APART)]
        {
            let Some(found) = found else { continue };
            sheet.whisker((scale.place(found.p50), scale.place(found.p99)), y, 5.0);
            sheet.sign((scale.place(found.p50), y), 5.5, look.sign, look.paint);
        }
    }
    ground.ticks(&mut sheet, &scale, "milliseconds (logarithmic)");
    let told: Vec<String> = comparison.engines.iter().map(told).collect();
    let caption = format!("Medians: {}.", told.join("; "));
    sheet.finish("engines", caption, ground.height()).map(Some)
}

fn row(engine: &EngineSummary) -> Row {
    let time = |found: Option<Distribution>| found.map_or_else(|| "–".to_owned(), |d| milliseconds(d.p50));
    let overhead = engine.overhead(Treatment::Protected);
    let overhead = overhead.map_or_else(|| "–".to_owned(), |percent| format!("{} %", decimals(percent, 1)));
    let cells = vec![time(engine.free_acquire_ms), time(engine.hand_over_ms), overhead];
    let look = Look { paint: Paint::Ink, sign: Sign::Bar, dashes: &[] };
    Row { name: engine.name.clone(), look: Some(look), cells }
}

fn told(engine: &EngineSummary) -> String {
    let time = |found: Option<Distribution>| {
        found.map_or_else(|| "not measured".to_owned(), |d| format!("{} ms", milliseconds(d.p50)))
    };
    format!("{} free {}, handed over {}", engine.name, time(engine.free_acquire_ms), time(engine.hand_over_ms))
}
