//! The charts that people would show: corruption, overhead, acquisition time, throughput.

mod acquisition;
mod bitmap;
mod canvas;
mod corruption;
pub(crate) mod engines;
mod letters;
mod look;
mod overhead;
mod rows;
mod scale;
mod series;
mod svg;
#[cfg(test)]
mod tests;
mod throughput;

pub(crate) use look::dark_style;

use crate::results::Results;
use crate::summary::Summary;
use series::Series;

/// A chart, drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chart {
    /// Its file's name, without ending.
    pub name: &'static str,
    /// What is seen in it, in a sentence or two.
    pub caption: String,
    /// It as SVG.
    pub svg: String,
    /// It as PNG, twice as large.
    pub png: Vec<u8>,
}

/// A chart that cannot be drawn: a bug of ours.
#[derive(Debug, thiserror::Error)]
#[error("chart {name} cannot be drawn: {what}")]
pub struct ChartError {
    /// Which.
    pub name: &'static str,
    /// What the renderer says.
    pub what: String,
}

/// Draws every chart that the results allow; none where nothing was measured.
pub fn draw(results: &Results, summary: &Summary) -> Result<Vec<Chart>, ChartError> {
    draw_series(&series::of(results, summary), &setting(results))
}

fn draw_series(series: &[Series], setting: &str) -> Result<Vec<Chart>, ChartError> {
    let mut charts = Vec::new();
    if series.is_empty() {
        return Ok(charts);
    }
    charts.push(corruption::draw(series, setting)?);
    if series.iter().any(|series| series.overhead.is_some()) {
        charts.push(overhead::draw(series, setting)?);
    }
    if series.iter().any(|series| series.acquire_spread.is_some()) {
        charts.push(acquisition::draw(series, setting)?);
    }
    charts.push(throughput::draw(series, setting)?);
    Ok(charts)
}

/// What was run, in a line.
fn setting(results: &Results) -> String {
    let workload = &results.metadata.workload;
    let stops = workload
        .stop_ms
        .map(|stop| format!(", one agent stopped for {} ms", scale::number(stop as f64)))
        .unwrap_or_default();
    let interrupted = if results.metadata.interrupted { "; stopped before its end" } else { "" };
    let trials = results.trials.iter().map(|trial| trial.trial).max().unwrap_or_default();
    format!(
        "Profile {}, {trials} trial{} of each treatment: {} agents × {} updates, {} document{}{stops}{interrupted}.",
        workload.profile,
        if trials == 1 { "" } else { "s" },
        workload.agents,
        workload.updates_per_agent,
        workload.documents,
        if workload.documents == 1 { "" } else { "s" },
    )
}
