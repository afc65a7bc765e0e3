//! Charts of all kinds of results. Each sheet is searched for illegible text as it is finished.

use super::series::Rate;
use super::*;
use crate::results::Treatment;
use crate::results_sample::sample;
use crate::stats::{Distribution, Interval, clopper_pearson};
use crate::summary::Overhead;

fn names(charts: &[Chart]) -> Vec<&'static str> {
    charts.iter().map(|chart| chart.name).collect()
}

/// The size and the pixels of a PNG.
fn decoded(png: &[u8]) -> ((u32, u32), Vec<u8>) {
    let mut reader = png::Decoder::new(png).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size()];
    let info = reader.next_frame(&mut pixels).unwrap();
    ((info.width, info.height), pixels)
}

/// The texts of an SVG, in order.
fn texts(svg: &str) -> Vec<String> {
    let parts = svg.split("<text ").skip(1);
    parts.map(|part| part.split_once('>').unwrap().1.split_once("</text>").unwrap().0.to_owned()).collect()
}

/// A series with round figures and a name of twenty letters.
fn named(index: usize, trials: usize, corrupt: usize, overhead: f64) -> Series {
    let name =
        ["baseline", "unfenced", "locking", "optimistic", "protected", "adaptive", "python baseline", "python locking"]
            .get(index)
            .map_or_else(|| format!("treatment number {index:03}"), |name| (*name).to_owned());
    let acquire: Vec<f64> = match index % 3 {
        0 => Vec::new(),
        _ => (1..=trials * 12).map(|rank| 0.02 * (index + rank) as f64).collect(),
    };
    Series {
        name,
        look: look::look(index),
        is_peer: false,
        trials,
        corrupt,
        corrupt_interval: clopper_pearson(corrupt, trials, 0.95),
        overhead: (index > 0).then_some(Overhead {
            mean: overhead,
            ci95: (trials > 3).then_some(Interval { low: overhead - 9.5, high: overhead * 1.5 + 12.25 }),
            median: overhead * 0.8,
            of_medians: overhead * 0.9,
            pairs: trials,
        }),
        acquire_spread: Distribution::of(acquire.iter().copied()),
        acquire,
        rates: (1..=trials)
            .map(|trial| Rate {
                trial,
                per_second: 30.0 + ((trial * 7 + index) % 11) as f64,
                corrupt: trial <= corrupt,
            })
            .collect(),
    }
}

/// Where the variable names a folder, charts are kept there to be looked at: a test cannot tell what is ugly.
fn keep(charts: &[Chart], folder: &str) {
    let Some(root) = std::env::var_os("MUTEXT_CHARTS") else { return };
    let folder = std::path::Path::new(&root).join(folder);
    std::fs::create_dir_all(&folder).unwrap();
    for chart in charts {
        std::fs::write(folder.join(chart.name).with_extension("png"), &chart.png).unwrap();
        std::fs::write(folder.join(chart.name).with_extension("svg"), &chart.svg).unwrap();
    }
}

#[test]
fn every_chart_is_drawn_as_svg_and_png_of_one_shape() {
    let results = sample(&Treatment::ALL, 30, 5);
    let charts = draw(&results, &Summary::of(&results)).unwrap();
    keep(&charts, "sample");
    assert_eq!(names(&charts), ["corrupt-trials", "overhead", "acquisition-time", "throughput"]);
    for chart in charts {
        let ((width, height), pixels) = decoded(&chart.png);
        assert_eq!(width, 1800);
        let shape = format!("viewBox=\"0 0 900 {}\"", height / 2);
        assert!(chart.svg.contains(&shape), "{}: {shape}", chart.name);
        let inked = pixels.chunks(3).filter(|pixel| *pixel != [255, 255, 255]).count();
        assert!(inked > 10_000, "{}: only {inked} pixels are drawn", chart.name);
        assert!(!chart.svg.contains("NaN") && !chart.svg.contains("inf"), "{}", chart.name);
    }
}

#[test]
fn where_a_text_stands_the_bitmap_has_its_ink() {
    let results = sample(&Treatment::ALL, 12, 2);
    for chart in draw(&results, &Summary::of(&results)).unwrap() {
        let ((width, _), pixels) = decoded(&chart.png);
        for part in chart.svg.split("<text ").skip(1) {
            let attribute =
                |name: &str| part.split(&format!("{name}=\"")).nth(1).and_then(|rest| rest.split('"').next());
            let [x, y] = ["x", "y"].map(|name| attribute(&format!(" {name}")).unwrap().parse::<f64>().unwrap());
            // The letters' ends or middle stand at the point: ink is near it.
            let inked = (-24..=24).any(|dx| {
                (-20..=0).any(|dy| {
                    let (column, row) = ((x * 2.0) as i64 + dx, (y * 2.0) as i64 + dy);
                    let first = ((row * i64::from(width) + column) * 3) as usize;
                    pixels.get(first).is_some_and(|red| *red < 140)
                })
            });
            assert!(inked, "{}: nothing at {x}, {y}: {part}", chart.name);
        }
    }
}

#[test]
fn eight_series_of_all_kinds_are_legible() {
    for (folder, trials, overhead) in [("eight", 100, 6.0), ("eight-dear", 12, 310.0), ("eight-cheap", 2, -30.0)] {
        let series: Vec<Series> =
            (0..8).map(|index| named(index, trials, if index == 0 { trials / 6 } else { 0 }, overhead)).collect();
        let charts =
            draw_series(&series, "Profile published, 100 trials: 4 agents × 3 updates, 60 documents.").unwrap();
        keep(&charts, folder);
        assert_eq!(charts.len(), 4);
        for chart in &charts {
            let texts = texts(&chart.svg);
            for series in series.iter().filter(|series| chart.name != "overhead" || series.overhead.is_some()) {
                let drawn = chart.name != "acquisition-time" || !series.acquire.is_empty();
                assert_eq!(texts.contains(&series.name), drawn, "{}: {}", chart.name, series.name);
            }
        }
    }
}

#[test]
fn long_names_and_many_series_find_room() {
    for count in [1, 4, 7, 10] {
        let series: Vec<Series> = (8..8 + count).map(|index| named(index, 3, 3, 1.0)).collect();
        let charts = draw_series(&series, "Any.").unwrap();
        assert!(
            charts.iter().all(|chart| texts(&chart.svg).contains(&series[0].name) || chart.name == "acquisition-time")
        );
    }
    let endless = Series { name: "a name that has no end, ".repeat(9), ..named(1, 3, 3, 1.0) };
    draw_series(&[endless], &"A setting that goes on and on. ".repeat(12)).unwrap();
}

#[test]
fn extremes_are_legible() {
    for (index, overhead) in [0.0, -99.0, 7.0, 25.0, 100.0, 1e3, 1e5].into_iter().enumerate() {
        let mut series = vec![named(0, 1000, 1000, 0.0), named(2, 1000, 0, overhead)];
        series[1].acquire = vec![0.0, 1e-4, 1e4];
        series[1].acquire_spread = Distribution::of(series[1].acquire.iter().copied());
        series[1].rates[0].per_second = 12_345.678;
        let charts = draw_series(&series, "Extremes.").unwrap();
        keep(&charts, &format!("extreme-{index}"));
    }
}

#[test]
fn captions_and_alternative_texts_say_what_is_seen() {
    let results = sample(&Treatment::ALL, 20, 3);
    let charts = draw(&results, &Summary::of(&results)).unwrap();
    for (chart, words) in charts.iter().zip([
        "baseline 3 of 20 (3.2 to 37.9 %)",
        "locking 21.0 %",
        "99 times of 100",
        "baseline 38.6 (38.1 to 39.2)",
    ]) {
        assert!(chart.caption.contains(words), "{}", chart.caption);
        assert!(
            chart.svg.contains(&svg::escape(&chart.caption)) && chart.svg.contains("role=\"img\""),
            "{}",
            chart.name
        );
    }
    for (chart, published) in charts.iter().zip(["15 of 100", "published: 12 %", "published mean: 2.3 ms"]) {
        assert!(texts(&chart.svg).iter().any(|text| text.contains(published)), "{}: {published}", chart.name);
    }
}

#[test]
fn a_treatment_looks_the_same_whatever_ran_beside_it() {
    let looks = |treatments: &[Treatment]| {
        let results = sample(treatments, 2, 0);
        let series = series::of(&results, &Summary::of(&results));
        series.into_iter().find(|series| series.name == "protected").unwrap().look
    };
    assert_eq!(looks(&[Treatment::Protected]), looks(&Treatment::ALL));
}

#[test]
fn what_was_not_measured_is_not_drawn() {
    let results = sample(&[Treatment::Baseline], 1, 1);
    let charts = draw(&results, &Summary::of(&results)).unwrap();
    keep(&charts, "one");
    assert_eq!(names(&charts), ["corrupt-trials", "throughput"]);
    let mut nothing = results;
    nothing.trials.clear();
    nothing.samples.clear();
    assert!(draw(&nothing, &Summary::of(&nothing)).unwrap().is_empty());
}
