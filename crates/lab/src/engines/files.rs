//! The comparison's files: raw trials, update times and probes as CSV, all figures as JSON, the report, the chart.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::probe::Passing;
use super::{Comparison, EngineResults, Metadata, Probe, Results};
use crate::files::{FilesError, TrialRow, data_in, malformed, read_text, row, to_csv, trial, write_each};
use crate::results::{Sample, Treatment, Trial};
use crate::{charts, report};

/// Where the data lie, below the root.
pub const DATA: &str = "data/experiments/engines";
/// Where the chart lies, below the root.
pub const DIAGRAMS: &str = "diagrams/engines";

const TRIALS: &str = "trials.csv";
const SAMPLES: &str = "update-samples.csv";
const PROBES: &str = "probes.csv";
const FIGURES: &str = "engine-comparison.json";
const METADATA: &str = "metadata.yaml";

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
        "acquire_ms and release_ms: one process alone, milliseconds; messages: TCP segments with data for each such lock; hand_over_ms: from giving back to the next one's holding, milliseconds; grants: how often one contender had the lock; during_ms: how long all contended; overlaps: pairs of contenders that certainly held it at the same time",
    ),
    ("probe", "repetition, from 1"),
];

#[derive(Debug, Serialize, Deserialize)]
struct MetadataFile {
    metadata: Metadata,
    engines: Vec<EngineFacts>,
    columns: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct EngineFacts {
    name: String,
    documents: String,
    locks: String,
    facts: Vec<String>,
    /// What its lock service declares; nothing where an earlier version has written it.
    #[serde(default)]
    declares: Vec<(String, String)>,
    /// What went wrong among contenders, with the number of the probe.
    #[serde(default)]
    errors: Vec<(usize, String)>,
}

/// What earlier versions wrote among the figures alone.
#[derive(Debug, Deserialize)]
struct Figures {
    engines: Vec<EngineFigures>,
}

#[derive(Debug, Deserialize)]
struct EngineFigures {
    declares: Vec<(String, String)>,
    overlaps: usize,
    errors: Vec<String>,
}

/// Writes every file below `root`, each as a whole or not at all, and returns their paths.
pub fn write_all(root: &Path, results: &Results, comparison: &Comparison) -> Result<Vec<PathBuf>, FilesError> {
    let (data, diagrams) = (root.join(DATA), root.join(DIAGRAMS));
    let chart = charts::engines::draw(results, comparison)?;
    let charts: Vec<charts::Chart> = chart.into_iter().collect();
    let figures = json!({ "metadata": results.metadata, "engines": comparison.engines });
    let figures = serde_json::to_string_pretty(&figures).map_err(|error| malformed(&data.join(FIGURES), &error))?;
    let files = vec![
        (data.join(TRIALS), trials(&data.join(TRIALS), results)?),
        (data.join(SAMPLES), samples(&data.join(SAMPLES), results)?),
        (data.join(PROBES), probes(&data.join(PROBES), results)?),
        (data.join(FIGURES), figures.into_bytes()),
        (data.join(METADATA), metadata(&data.join(METADATA), results)?),
        (data.join("REPORT.md"), report::engines_markdown(results, comparison, &charts).into_bytes()),
        (data.join("report.html"), report::engines_html(results, comparison, &charts).into_bytes()),
    ];
    write_each(files, charts, &diagrams)
}

/// Reads a comparison back, from the root that it was written below or from the folder of its data.
pub fn read(dir: &Path) -> Result<Results, FilesError> {
    let data = data_in(dir, DATA)?;
    let path = data.join(METADATA);
    let file: MetadataFile = serde_saphyr::from_str(&read_text(&path)?).map_err(|error| malformed(&path, &error))?;
    let mut engines: Vec<EngineResults> = file.engines.iter().map(empty).collect();
    let path = data.join(TRIALS);
    for (engine, row) in rows::<TrialRow>(&path)? {
        let trial = trial(&row).map_err(|error| malformed(&path, &format!("column evidence: {error}")))?;
        of(&mut engines, &engine, &path)?.trials.push(trial);
    }
    let path = data.join(SAMPLES);
    for (engine, sample) in rows::<Sample>(&path)? {
        of(&mut engines, &engine, &path)?.samples.push(sample);
    }
    let path = data.join(PROBES);
    for (engine, (number, what, value)) in rows::<(usize, String, f64)>(&path)? {
        let engine = of(&mut engines, &engine, &path)?;
        if number > engine.probes.len() {
            engine.probes.resize_with(number, no_probe);
        }
        let probe = number.checked_sub(1).and_then(|place| engine.probes.get_mut(place));
        let known = probe.is_some_and(|probe| measured(probe, &what, value));
        if !known {
            return Err(malformed(&path, &format!("there is no {what:?} of a probe {number}")));
        }
    }
    for (engine, facts) in engines.iter_mut().zip(&file.engines) {
        for (number, said) in &facts.errors {
            let probe = number.checked_sub(1).and_then(|place| engine.probes.get_mut(place));
            probe.into_iter().for_each(|probe| probe.passing.errors.push(said.clone()));
        }
    }
    if file.engines.iter().all(|engine| engine.declares.is_empty()) {
        add_figures(&data, &mut engines)?;
    }
    Ok(Results { metadata: file.metadata, engines })
}

fn empty(facts: &EngineFacts) -> EngineResults {
    let EngineFacts { name, documents, locks, facts, declares, .. } = facts;
    EngineResults {
        name: name.clone(),
        store: documents.clone(),
        locks: locks.clone(),
        facts: facts.clone(),
        declares: declares.clone(),
        trials: Vec::new(),
        samples: Vec::new(),
        probes: Vec::new(),
    }
}

fn of<'a>(engines: &'a mut [EngineResults], name: &str, path: &Path) -> Result<&'a mut EngineResults, FilesError> {
    let found = engines.iter_mut().find(|engine| engine.name == name);
    found.ok_or_else(|| malformed(path, &format!("{METADATA} knows no engine {name:?}")))
}

fn no_probe() -> Probe {
    let (hand_over_ms, grants, errors) = (Vec::new(), Vec::new(), Vec::new());
    let passing = Passing { hand_over_ms, grants, during_ms: 0.0, overlaps: 0, errors };
    Probe { acquire_ms: Vec::new(), release_ms: Vec::new(), messages: None, passing }
}

/// Puts a measured value where it belongs; false where nothing is called so.
fn measured(probe: &mut Probe, what: &str, value: f64) -> bool {
    let passing = &mut probe.passing;
    match what {
        "acquire_ms" => probe.acquire_ms.push(value),
        "release_ms" => probe.release_ms.push(value),
        "messages" => probe.messages = Some(value),
        "hand_over_ms" => passing.hand_over_ms.push(value),
        "grants" => passing.grants.push(value as usize),
        "during_ms" => passing.during_ms = value,
        "overlaps" => passing.overlaps = value as usize,
        _ => return false,
    }
    true
}

/// Adds what earlier versions kept among the figures.
fn add_figures(data: &Path, engines: &mut [EngineResults]) -> Result<(), FilesError> {
    let path = data.join(FIGURES);
    let figures: Figures = serde_json::from_str(&read_text(&path)?).map_err(|error| malformed(&path, &error))?;
    for (engine, figures) in engines.iter_mut().zip(figures.engines) {
        engine.declares = figures.declares;
        if let Some(probe) = engine.probes.first_mut() {
            (probe.passing.overlaps, probe.passing.errors) = (figures.overlaps, figures.errors);
        }
    }
    Ok(())
}

/// The rows of a file, each with its engine, which is the first column.
fn rows<T: DeserializeOwned>(path: &Path) -> Result<Vec<(String, T)>, FilesError> {
    let text = read_text(path)?;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let fail = |error: csv::Error| malformed(path, &error);
    let header: csv::StringRecord = reader.headers().map_err(fail)?.iter().skip(1).collect();
    let row = |record: csv::Result<csv::StringRecord>| {
        let record = record.map_err(fail)?;
        let mut rest: csv::StringRecord = record.iter().skip(1).collect();
        // Where it stood, for whoever is told of damage.
        rest.set_position(record.position().cloned());
        let row = rest.deserialize(Some(&header)).map_err(fail)?;
        Ok((record.get(0).unwrap_or_default().to_owned(), row))
    };
    reader.records().map(row).collect()
}

fn metadata(path: &Path, results: &Results) -> Result<Vec<u8>, FilesError> {
    let errors = |engine: &EngineResults| {
        let probes = (1..).zip(&engine.probes);
        probes.flat_map(|(number, probe)| probe.passing.errors.iter().map(move |said| (number, said.clone()))).collect()
    };
    let engines = results.engines.iter().map(|engine| EngineFacts {
        name: engine.name.clone(),
        documents: engine.store.clone(),
        locks: engine.locks.clone(),
        facts: engine.facts.clone(),
        declares: engine.declares.clone(),
        errors: errors(engine),
    });
    let file = MetadataFile {
        metadata: results.metadata.clone(),
        engines: engines.collect(),
        columns: COLUMNS.iter().map(|(name, meaning)| ((*name).to_owned(), (*meaning).to_owned())).collect(),
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
            add("overlaps", found.passing.overlaps as f64);
        }
    }
    to_csv(path, &["engine", "probe", "what", "value"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::sample::sample;

    #[test]
    fn what_is_written_is_read_back_to_the_last_digit() {
        let dir = tempfile::tempdir().unwrap();
        let mut results = sample(&["embedded", "redis"], 3);
        results.engines[1].trials[1].started_s = 1.0 / 3.0;
        results.engines[0].samples[2].update_ms = 0.1 + 0.2;
        let second = results.engines[0].probes[0].clone();
        results.engines[0].probes.push(Probe { messages: None, ..second });
        results.engines[0].probes[1].passing.errors.push("it was \"refused\", twice".to_owned());
        results.engines[1].probes[0].passing.overlaps = 2;
        write_all(dir.path(), &results, &Comparison::of(&results)).unwrap();
        assert_eq!(read(dir.path()).unwrap(), results);
        assert_eq!(read(&dir.path().join(DATA)).unwrap(), results);
    }

    /// Earlier versions kept among the figures what is not derived from any other file.
    #[test]
    fn what_an_earlier_version_wrote_is_read_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let mut results = sample(&["embedded", "redis"], 3);
        results.engines[1].probes[0].passing.overlaps = 2;
        results.engines[1].probes[0].passing.errors.push("refused".to_owned());
        write_all(dir.path(), &results, &Comparison::of(&results)).unwrap();
        let edit = |name: &str, change: &dyn Fn(&str) -> String| {
            let path = dir.path().join(DATA).join(name);
            std::fs::write(&path, change(&std::fs::read_to_string(&path).unwrap())).unwrap();
        };
        edit(PROBES, &|text| {
            text.lines().filter(|line| !line.contains("overlaps")).fold(String::new(), |all, line| all + line + "\n")
        });
        edit(METADATA, &|text| {
            let mut file: MetadataFile = serde_saphyr::from_str(text).unwrap();
            file.engines.iter_mut().for_each(|engine| (engine.declares, engine.errors) = Default::default());
            serde_saphyr::to_string(&file).unwrap()
        });
        assert_eq!(read(dir.path()).unwrap(), results);
    }

    #[test]
    fn damage_is_named_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let results = sample(&["embedded"], 2);
        write_all(dir.path(), &results, &Comparison::of(&results)).unwrap();
        let path = dir.path().join(DATA).join(PROBES);
        let whole = std::fs::read_to_string(&path).unwrap();
        for (good, bad, part) in
            [("acquire_ms", "nonsense", "nonsense"), ("embedded,1", "another,1", "another"), (",0.1", ",x", "line: 2")]
        {
            std::fs::write(&path, whole.replacen(good, bad, 1)).unwrap();
            let error = read(dir.path()).unwrap_err().to_string();
            assert!(error.contains(PROBES) && error.contains(part), "{error}");
        }
        let error = read(&dir.path().join("elsewhere")).unwrap_err().to_string();
        assert!(error.contains("elsewhere") && error.contains(DATA), "{error}");
    }

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
