//! The comparison's files: raw trials, update times and probes as CSV, all figures as JSON, the report, the chart.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;

use super::{Comparison, Metadata, Results};
use crate::files::{FilesError, malformed, row, to_csv, write_each};
use crate::results::{Sample, Treatment, Trial};
use crate::{charts, report};

/// Where the data lie, below the root.
pub const DATA: &str = "data/experiments/engines";
/// Where the chart lies, below the root.
pub const DIAGRAMS: &str = "diagrams/engines";

/// One update of one engine.
#[derive(Debug, Serialize)]
struct SampleRow<'a> {
    engine: &'a str,
    trial: usize,
    treatment: Treatment,
    agent: usize,
    update_ms: f64,
    acquire_ms: Option<f64>,
}

/// One time of one probe.
#[derive(Debug, Serialize)]
struct ProbeRow<'a> {
    engine: &'a str,
    probe: usize,
    what: &'static str,
    value: f64,
}

/// What each file's columns mean, for `metadata.yaml`.
const COLUMNS: [(&str, &str); 6] = [
    ("engine", "the engine, as named on the command line"),
    (
        "trials.csv",
        "one row a trial of one engine; those of the baseline stand once for each engine that shares it; columns as in the locking-mechanism experiment",
    ),
    ("update-samples.csv", "one row an acknowledged update: update_ms and acquire_ms in milliseconds"),
    ("probes.csv", "one row a measured value of a probe: what it is, and the value"),
    (
        "what",
        "acquire_ms and release_ms: one process alone, milliseconds; messages: TCP segments with data for each such lock; hand_over_ms: from giving back to the next one's holding, milliseconds; grants: how often one contender had the lock; during_ms: how long all contended",
    ),
    ("probe", "repetition, from 1"),
];

#[derive(Debug, Serialize)]
struct MetadataFile<'a> {
    metadata: &'a Metadata,
    engines: Vec<EngineFacts<'a>>,
    columns: std::collections::BTreeMap<&'static str, &'static str>,
}

#[derive(Debug, Serialize)]
struct EngineFacts<'a> {
    name: &'a str,
    documents: &'a str,
    locks: &'a str,
    facts: &'a [String],
}

/// Writes every file below `root`, each as a whole or not at all, and returns their paths.
pub fn write_all(root: &Path, results: &Results, comparison: &Comparison) -> Result<Vec<PathBuf>, FilesError> {
    let (data, diagrams) = (root.join(DATA), root.join(DIAGRAMS));
    let chart = charts::engines::draw(results, comparison)?;
    let charts: Vec<charts::Chart> = chart.into_iter().collect();
    let figures = json!({ "metadata": results.metadata, "engines": comparison.engines });
    let figures = serde_json::to_string_pretty(&figures)
        .map_err(|error| malformed(&data.join("engine-comparison.json"), &error))?;
    let files = vec![
        (data.join("trials.csv"), trials(&data.join("trials.csv"), results)?),
        (data.join("update-samples.csv"), samples(&data.join("update-samples.csv"), results)?),
        (data.join("probes.csv"), probes(&data.join("probes.csv"), results)?),
        (data.join("engine-comparison.json"), figures.into_bytes()),
        (data.join("metadata.yaml"), metadata(&data.join("metadata.yaml"), results)?),
        (data.join("REPORT.md"), report::engines_markdown(results, comparison, &charts).into_bytes()),
        (data.join("report.html"), report::engines_html(results, comparison, &charts).into_bytes()),
    ];
    write_each(files, charts, &diagrams)
}

fn metadata(path: &Path, results: &Results) -> Result<Vec<u8>, FilesError> {
    let engines = results.engines.iter().map(|engine| EngineFacts {
        name: &engine.name,
        documents: &engine.store,
        locks: &engine.locks,
        facts: &engine.facts,
    });
    let file = MetadataFile {
        metadata: &results.metadata,
        engines: engines.collect(),
        columns: COLUMNS.into_iter().collect(),
    };
    Ok(serde_saphyr::to_string(&file).map_err(|error| malformed(path, &error))?.into_bytes())
}

fn trials(path: &Path, results: &Results) -> Result<Vec<u8>, FilesError> {
    let all = results.engines.iter().flat_map(|engine| engine.trials.iter().map(|trial| (engine.name.as_str(), trial)));
    let mut header = vec!["engine"];
    header.extend(crate::files::trial_columns());
    let rows: Vec<(&str, _)> = all.map(|(engine, trial): (_, &Trial)| (engine, row(trial))).collect();
    to_csv(path, &header, rows)
}

fn samples(path: &Path, results: &Results) -> Result<Vec<u8>, FilesError> {
    let rows = results.engines.iter().flat_map(|engine| {
        engine.samples.iter().map(|sample: &Sample| SampleRow {
            engine: &engine.name,
            trial: sample.trial,
            treatment: sample.treatment,
            agent: sample.agent,
            update_ms: sample.update_ms,
            acquire_ms: sample.acquire_ms,
        })
    });
    to_csv(path, &["engine", "trial", "treatment", "agent", "update_ms", "acquire_ms"], rows)
}

fn probes(path: &Path, results: &Results) -> Result<Vec<u8>, FilesError> {
    let mut rows = Vec::new();
    for engine in &results.engines {
        for (probe, found) in (1..).zip(&engine.probes) {
            let mut add = |what: &'static str, value: f64| {
                rows.push(ProbeRow { engine: &engine.name, probe, what, value });
            };
            found.acquire_ms.iter().for_each(|time| add("acquire_ms", *time));
            found.release_ms.iter().for_each(|time| add("release_ms", *time));
            found.messages.into_iter().for_each(|messages| add("messages", messages));
            found.passing.hand_over_ms.iter().for_each(|time| add("hand_over_ms", *time));
            found.passing.grants.iter().for_each(|grants| add("grants", *grants as f64));
            add("during_ms", found.passing.during_ms);
        }
    }
    to_csv(path, &["engine", "probe", "what", "value"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::sample::sample;

    /// Chart and report are looked over while they are made: a text that stands on another is an error there.
    #[test]
    fn every_file_is_written_whole() {
        let dir = tempfile::tempdir().unwrap();
        let names = [
            "embedded",
            "postgres",
            "redis",
            "sentinel",
            "cluster",
            "redlock",
            "etcd",
            "consul",
            "redis://elsewhere.example:6379/0",
        ];
        let results = sample(&names, 6);
        let written = write_all(dir.path(), &results, &Comparison::of(&results)).unwrap();
        assert_eq!(written.len(), 9);
        let read = |name: &str| std::fs::read_to_string(dir.path().join(DATA).join(name)).unwrap();
        assert_eq!(read("trials.csv").lines().count(), 1 + names.len() * 3 * 6);
        assert!(read("probes.csv").contains("consul,1,hand_over_ms,"));
        let report = read("REPORT.md");
        for part in [
            "side by side",
            "a server | of a version",
            "../../../diagrams/engines/engines.svg",
            "left out: consul",
            "tokens come from",
        ] {
            assert!(report.contains(part), "{part:?} is missing");
        }
        let page = read("report.html");
        assert!(page.contains("<svg") && !page.contains("NaN"));
    }
}
