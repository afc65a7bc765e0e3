//! The charts that people would show: corruption, overhead, acquisition time, throughput.

mod canvas;
mod scale;

use plotters::style::{RGBColor, WHITE};

use crate::results::{Results, Treatment};
use crate::summary::{Summary, TreatmentSummary, published, reproduction};
use canvas::{Anchor, FAINT, INK, RULE, Sheet};
use scale::Scale;

/// A chart, drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chart {
    /// Its file's name, without ending.
    pub name: &'static str,
    /// What it shows, in a sentence.
    pub caption: String,
    /// It as SVG.
    pub svg: String,
    /// It as PNG, twice as large.
    pub png: Vec<u8>,
}

/// A chart that cannot be drawn: a bug of ours, or a renderer's limit.
#[derive(Debug, thiserror::Error)]
#[error("chart {name} cannot be drawn: {what}")]
pub struct ChartError {
    /// Which.
    pub name: &'static str,
    /// What the renderer says.
    pub what: String,
}

/// Draws every chart that the results allow.
pub fn draw(results: &Results, summary: &Summary) -> Result<Vec<Chart>, ChartError> {
    let mut charts = vec![corruption(results, summary)?];
    if summary.comparisons.iter().any(|comparison| comparison.overhead.is_some()) {
        charts.push(overhead(results, summary)?);
    }
    if summary.treatments.iter().any(|treatment| treatment.acquire_ms.is_some()) {
        charts.push(acquisition(results, summary)?);
    }
    charts.push(throughput(results, summary)?);
    Ok(charts)
}

/// M. Okabe and K. Ito's colours, which most colour-blind people tell apart, and which differ in lightness too.
fn color(treatment: Treatment) -> RGBColor {
    match treatment {
        Treatment::Baseline => RGBColor(213, 94, 0),
        Treatment::Unfenced => RGBColor(230, 159, 0),
        Treatment::Locking => RGBColor(0, 70, 130),
        Treatment::Optimistic => RGBColor(0, 158, 115),
        Treatment::Protected => RGBColor(86, 180, 233),
    }
}

fn setting(results: &Results) -> String {
    let workload = &results.metadata.workload;
    let stops = workload.stop_ms.map(|stop| format!(", one agent stopped for {stop} ms")).unwrap_or_default();
    format!(
        "profile {}: {} agents × {} updates a trial, {} documents{stops}",
        workload.profile, workload.agents, workload.updates_per_agent, workload.documents
    )
}

const LEFT: f64 = 210.0;
const RIGHT: f64 = 860.0;
const TOP: f64 = 86.0;
const BOTTOM: f64 = 440.0;

/// The ruled ground of a chart whose values run to the right.
fn ruled(sheet: &mut Sheet, scale: &Scale, unit: &str) {
    for (value, label) in scale.ticks() {
        let x = scale.place(value);
        sheet.line(&[(x, TOP), (x, BOTTOM)], RULE, 1.0);
        sheet.text((x, BOTTOM + 16.0), &label, 13.0, INK, Anchor::Middle);
    }
    sheet.text((f64::midpoint(LEFT, RIGHT - 120.0), BOTTOM + 42.0), unit, 14.0, INK, Anchor::Middle);
}

fn rows(n: usize) -> impl Iterator<Item = (f64, f64)> {
    let step = (BOTTOM - TOP) / n as f64;
    (0..n).map(move |row| (TOP + step * (row as f64 + 0.5), (step * 0.3).min(18.0)))
}

fn corruption(results: &Results, summary: &Summary) -> Result<Chart, ChartError> {
    let detail = format!("{}; bars with exact 95 % intervals", setting(results));
    let mut sheet = Sheet::new("How often is an update lost, or a history impossible?", &detail);
    let highest = summary.treatments.iter().map(|treatment| treatment.corrupt_interval.high * 100.0);
    let scale = Scale::linear(0.0, highest.fold(25.0, f64::max).min(100.0), LEFT, RIGHT - 120.0);
    ruled(&mut sheet, &scale, "corrupt trials, % of all trials");
    let shown = [("published, no lock", published::RACY_BASELINE), ("published, Redis lock", published::RACY_LOCKING)];
    let mut places = rows(shown.len() + summary.treatments.len());
    let label_at = RIGHT + 20.0;
    for ((name, racy), (y, half)) in shown.into_iter().zip(places.by_ref()) {
        let percent = 100.0 * racy as f64 / published::TRIALS as f64;
        let interval = crate::stats::clopper_pearson(racy, published::TRIALS, 0.95);
        sheet.text((LEFT - 12.0, y), name, 14.0, FAINT, Anchor::End);
        sheet.bar((scale.place(0.0), y - half), (scale.place(percent), y + half), FAINT, false);
        sheet.whisker(scale.place(interval.low * 100.0), scale.place(interval.high * 100.0), y, FAINT);
        sheet.text((label_at, y), &format!("{racy} of {}", published::TRIALS), 14.0, FAINT, Anchor::End);
    }
    for (treatment, (y, half)) in summary.treatments.iter().zip(places) {
        let percent = 100.0 * treatment.corrupt_trials as f64 / treatment.trials as f64;
        let interval = treatment.corrupt_interval;
        sheet.text((LEFT - 12.0, y), treatment.treatment.name(), 16.0, INK, Anchor::End);
        sheet.bar((scale.place(0.0), y - half), (scale.place(percent), y + half), color(treatment.treatment), true);
        sheet.whisker(scale.place(interval.low * 100.0), scale.place(interval.high * 100.0), y, INK);
        let count = format!("{} of {}", treatment.corrupt_trials, treatment.trials);
        sheet.text((label_at, y), &count, 16.0, INK, Anchor::End);
    }
    let caption =
        "Corrupt trials of each treatment with exact (Clopper–Pearson) 95 % intervals, beside the published counts.";
    sheet.finish("corrupt-trials", caption.to_owned())
}

fn overhead(results: &Results, summary: &Summary) -> Result<Chart, ChartError> {
    let pairs = summary.comparisons.iter().filter_map(|comparison| Some(comparison.overhead?.pairs)).min().unwrap_or(0);
    let detail = format!("{}; mean over {pairs} paired trials, bootstrap 95 % intervals", setting(results));
    let mut sheet = Sheet::new("What does it cost, compared with no protection?", &detail);
    let (published_mean, published_low, published_high) = published::OVERHEAD_PERCENT;
    let found: Vec<_> = summary.comparisons.iter().filter_map(|c| Some((c.treatment, c.overhead?))).collect();
    let ends = found
        .iter()
        .flat_map(|(_, overhead)| overhead.ci95.map_or([overhead.mean; 2], |interval| [interval.low, interval.high]));
    let (low, high) = ends.fold((0.0, 24.0), |(low, high): (f64, f64), end| (low.min(end), high.max(end)));
    let scale = Scale::linear(low, high, LEFT, RIGHT - 120.0);
    ruled(&mut sheet, &scale, "overhead of an update, %");
    let limit = scale.place(published::OVERHEAD_LIMIT_PERCENT);
    sheet.dashed((limit, TOP - 4.0), (limit, BOTTOM), INK);
    sheet.text((limit, TOP - 14.0), "criterion: below 20 %", 13.0, INK, Anchor::Middle);
    let mut places = rows(found.len() + 2);
    let label_at = RIGHT + 20.0;
    if let Some((y, _)) = places.next() {
        sheet.text((LEFT - 12.0, y), "published, Redis lock", 14.0, FAINT, Anchor::End);
        sheet.whisker(scale.place(published_low), scale.place(published_high), y, FAINT);
        sheet.dot((scale.place(published_mean), y), 6.0, FAINT, true);
        sheet.text((label_at, y), &format!("{published_mean:.0} %"), 14.0, FAINT, Anchor::End);
    }
    if let Some((y, _)) = places.next() {
        let (mean, _) = reproduction::OVERHEAD_PERCENT;
        sheet.text((LEFT - 12.0, y), "Python reproduction", 14.0, FAINT, Anchor::End);
        sheet.dot((scale.place(mean), y), 6.0, FAINT, true);
        sheet.text((label_at, y), &format!("{mean:.1} %"), 14.0, FAINT, Anchor::End);
    }
    for ((treatment, overhead), (y, _)) in found.into_iter().zip(places) {
        sheet.text((LEFT - 12.0, y), treatment.name(), 16.0, INK, Anchor::End);
        if let Some(interval) = overhead.ci95 {
            sheet.whisker(scale.place(interval.low), scale.place(interval.high), y, color(treatment));
        }
        sheet.dot((scale.place(overhead.mean), y), 7.0, color(treatment), true);
        sheet.text((label_at, y), &format!("{:.1} %", overhead.mean), 16.0, INK, Anchor::End);
    }
    let caption = "Overhead of an update against the baseline, mean of paired trials with bootstrap 95 % intervals.";
    sheet.finish("overhead", caption.to_owned())
}

fn acquisition(results: &Results, summary: &Summary) -> Result<Chart, ChartError> {
    let taken: Vec<(&TreatmentSummary, Vec<f64>)> = summary
        .treatments
        .iter()
        .map(|treatment| {
            let samples = results.samples_of(treatment.treatment).filter_map(|sample| sample.acquire_ms);
            let mut times: Vec<f64> = samples.collect();
            times.sort_by(f64::total_cmp);
            (treatment, times)
        })
        .filter(|(_, times)| !times.is_empty())
        .collect();
    let n: usize = taken.iter().map(|(_, times)| times.len()).sum();
    let mut sheet =
        Sheet::new("How long does it take to hold the lock?", &format!("{}; {n} acquisitions", setting(results)));
    let positive = taken.iter().flat_map(|(_, times)| times).copied().filter(|time| *time > 0.0);
    let (low, high) = positive.fold((0.05, 5.0), |(low, high): (f64, f64), time| (low.min(time), high.max(time)));
    let across = Scale::logarithmic(low, high, 90.0, RIGHT);
    let up = Scale::linear(0.0, 100.0, BOTTOM, TOP);
    for (value, label) in across.ticks() {
        sheet.line(&[(across.place(value), TOP), (across.place(value), BOTTOM)], RULE, 1.0);
        sheet.text((across.place(value), BOTTOM + 16.0), &label, 13.0, INK, Anchor::Middle);
    }
    for (value, label) in up.ticks() {
        sheet.line(&[(90.0, up.place(value)), (RIGHT, up.place(value))], RULE, 1.0);
        sheet.text((80.0, up.place(value)), &format!("{label} %"), 13.0, INK, Anchor::End);
    }
    sheet.text(
        (f64::midpoint(90.0, RIGHT), BOTTOM + 42.0),
        "acquired within, ms (logarithmic)",
        14.0,
        INK,
        Anchor::Middle,
    );
    let mean = across.place(published::ACQUIRE_MS);
    sheet.dashed((mean, TOP - 4.0), (mean, BOTTOM), FAINT);
    sheet.text((mean, TOP - 14.0), "published mean 2.3 ms", 13.0, FAINT, Anchor::Middle);
    let legend_top = BOTTOM - 26.0 * taken.len() as f64 - 18.0;
    for (index, (treatment, times)) in taken.iter().enumerate() {
        if index == 0 {
            sheet.bar((RIGHT - 345.0, legend_top), (RIGHT - 4.0, BOTTOM - 8.0), WHITE, true);
        }
        let color = color(treatment.treatment);
        let last = times.len() as f64;
        let steps = times
            .iter()
            .enumerate()
            .map(|(rank, time)| (across.place(time.max(low)), up.place(100.0 * (rank as f64 + 1.0) / last)));
        sheet.line(&steps.collect::<Vec<_>>(), color, 2.5);
        let (Some(spread), y) = (treatment.acquire_ms, BOTTOM - 26.0 * (taken.len() - index) as f64) else { continue };
        sheet.line(&[(RIGHT - 330.0, y), (RIGHT - 300.0, y)], color, 4.0);
        let legend = format!("{}: p50 {:.2}, p99 {:.2} ms", treatment.treatment.name(), spread.p50, spread.p99);
        sheet.text((RIGHT - 292.0, y), &legend, 14.0, INK, Anchor::Start);
        for (p, at) in [(50.0, spread.p50), (99.0, spread.p99)] {
            sheet.dot((across.place(at.max(low)), up.place(p)), 5.0, color, true);
        }
    }
    let caption = "Share of acquisitions that took no longer than so many milliseconds; dots at the median and the 99th percentile.";
    sheet.finish("acquisition-time", caption.to_owned())
}

fn throughput(results: &Results, summary: &Summary) -> Result<Chart, ChartError> {
    let mut sheet = Sheet::new("Does it hold over time?", &format!("{}; one dot a trial, in order", setting(results)));
    let rate = |trial: &crate::results::Trial| trial.acknowledged_updates as f64 / (trial.duration_ms / 1000.0);
    let last = results.trials.iter().map(|trial| trial.trial).max().unwrap_or(1);
    let highest = results.trials.iter().map(rate).fold(1.0, f64::max);
    let across = Scale::linear(0.0, last as f64, 90.0, RIGHT - 10.0);
    let up = Scale::linear(0.0, highest * 1.1, BOTTOM, TOP + 24.0);
    for (value, label) in up.ticks() {
        sheet.line(&[(90.0, up.place(value)), (RIGHT, up.place(value))], RULE, 1.0);
        sheet.text((80.0, up.place(value)), &label, 13.0, INK, Anchor::End);
    }
    for (value, label) in across.ticks() {
        sheet.text((across.place(value), BOTTOM + 16.0), &label, 13.0, INK, Anchor::Middle);
    }
    sheet.text((f64::midpoint(90.0, RIGHT), BOTTOM + 42.0), "trial", 14.0, INK, Anchor::Middle);
    sheet.text((24.0, TOP), "acknowledged updates a second (pauses and thinking included)", 13.0, INK, Anchor::Start);
    let mut legend_x = 90.0;
    let beside = ((RIGHT - 100.0) / last as f64 / 6.0).min(5.0);
    for (index, treatment) in summary.treatments.iter().enumerate() {
        let color = color(treatment.treatment);
        for trial in results.of(treatment.treatment) {
            // Treatments of one trial stand side by side: they are often equal to the pixel.
            let x = across.place(trial.trial as f64) + beside * (index as f64 - summary.treatments.len() as f64 / 2.0);
            sheet.dot((x, up.place(rate(trial))), 3.0, color, !trial.corrupt);
        }
        if let Some(median) = treatment.updates_per_second {
            sheet.line(&[(90.0, up.place(median)), (RIGHT, up.place(median))], color, 2.0);
            let legend = format!("{} {median:.1}", treatment.treatment.name());
            sheet.dot((legend_x, BOTTOM - 14.0), 5.0, color, true);
            sheet.text((legend_x + 10.0, BOTTOM - 14.0), &legend, 13.0, INK, Anchor::Start);
            legend_x += 150.0;
        }
    }
    let caption = "Acknowledged updates a second in each trial, with each treatment's median as a line; corrupt trials are hollow.";
    sheet.finish("throughput", caption.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results_sample::sample;

    #[test]
    fn every_chart_is_drawn_as_svg_and_png() {
        let results = sample(&Treatment::ALL, 30, 5);
        let charts = draw(&results, &Summary::of(&results)).unwrap();
        let names: Vec<_> = charts.iter().map(|chart| chart.name).collect();
        assert_eq!(names, ["corrupt-trials", "overhead", "acquisition-time", "throughput"]);
        for chart in charts {
            let image = image::load_from_memory(&chart.png).unwrap();
            assert_eq!((image.width(), image.height()), (1800, 1000));
            let pixels = image.to_rgb8();
            let inked = pixels.pixels().filter(|pixel| pixel.0 != [255, 255, 255]).count();
            assert!(inked > 10_000, "{}: only {inked} pixels are drawn", chart.name);
            assert!(chart.svg.contains("</svg>") && chart.svg.matches("<text").count() > 10, "{}", chart.name);
            assert!(!chart.svg.contains("NaN"), "{}", chart.name);
        }
    }

    #[test]
    fn what_was_not_measured_is_not_drawn() {
        let results = sample(&[Treatment::Baseline], 1, 1);
        let charts = draw(&results, &Summary::of(&results)).unwrap();
        assert_eq!(charts.iter().map(|chart| chart.name).collect::<Vec<_>>(), ["corrupt-trials", "throughput"]);
    }
}
