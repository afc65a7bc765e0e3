//! An experiment's files: what is measured is written as CSV and YAML, read back from there, and everything else
//! (comparison, charts, report) is made from it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::results::{Metadata, Results, Sample, Treatment, Trial};
use crate::summary::{Summary, performance_comparison_json};
use crate::{charts, engines, report};

/// Where the data lie, below the root.
pub const DATA: &str = "data/experiments/locking-mechanism";
/// Where the charts lie, below the root.
pub const DIAGRAMS: &str = "diagrams/locking-mechanism";

const BASELINE: &str = "baseline-test-results.csv";
const LOCKING: &str = "locking-test-results.csv";
const SAMPLES: &str = "update-samples.csv";
const METADATA: &str = "metadata.yaml";

/// What is wrong with an experiment's files.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file or folder cannot be read or written.
    #[error("{} cannot be {verb}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// `read`, `written` or `made`.
        verb: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is no experiment.
    #[error("{} holds no experiment: there is no {METADATA} in it or in {below} below it; name the folder that --out named", dir.display())]
    NotFound {
        /// Where it was looked for.
        dir: PathBuf,
        /// Where below that.
        below: &'static str,
    },
    /// A file does not hold what it should.
    #[error("{} is not what an experiment writes: {what}; restore it, or run the experiment again", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Where and why.
        what: String,
    },
    /// A chart cannot be drawn.
    #[error(transparent)]
    Chart(#[from] charts::ChartError),
}

/// A trial as a row: its evidence is one cell, a JSON array.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TrialRow {
    trial: usize,
    treatment: Treatment,
    order: usize,
    seed: u64,
    started_s: f64,
    duration_ms: f64,
    acknowledged_updates: usize,
    lost_updates: usize,
    overlaps: usize,
    token_violations: usize,
    nonlinearizable_documents: usize,
    undecided_documents: usize,
    conflicts: usize,
    timeouts: usize,
    lost_leases: usize,
    errors: usize,
    corrupt: bool,
    evidence: String,
}

/// What each column means, for `metadata.yaml`.
const COLUMNS: [(&str, &str); 21] = [
    ("trial", "repetition, from 1; trials of one number ran next to each other and share their workload"),
    ("treatment", "what was compared; those named python ran in the Python reproduction"),
    ("order", "place in the whole experiment's order, from 1"),
    ("seed", "seed of the trial's workload"),
    ("started_s", "seconds since the experiment's start"),
    ("duration_ms", "from the starting signal to the last agent's end, milliseconds"),
    ("acknowledged_updates", "updates acknowledged to an agent"),
    ("lost_updates", "of these, missing from the final documents"),
    ("overlaps", "pairs of critical sections that certainly overlapped; judged where a lease is taken"),
    ("token_violations", "tokens out of order; judged where a lease is taken"),
    ("nonlinearizable_documents", "documents whose history no serial order explains"),
    ("undecided_documents", "documents whose history could not be judged within the budget"),
    ("conflicts", "conflicts met and retried"),
    ("timeouts", "lock waits that timed out and were tried again"),
    ("lost_leases", "writes refused because the lease was lost, and made again"),
    ("errors", "operations that failed in another way"),
    ("corrupt", "whether any check failed"),
    ("evidence", "what went wrong, a JSON array of texts"),
    ("agent", "which agent, from 0"),
    ("update_ms", "from the update's start to its acknowledgement, thinking and waiting included, milliseconds"),
    ("acquire_ms", "from asking for the lease to holding it, milliseconds; empty where no lease is taken"),
];

/// `metadata.yaml`: what was run, and what the columns mean.
#[derive(Debug, Serialize, Deserialize)]
struct MetadataFile {
    metadata: Metadata,
    columns: BTreeMap<String, String>,
}

/// Writes every file below `root`, each as a whole or not at all, and returns their paths.
pub fn write_all(root: &Path, results: &Results, summary: &Summary) -> Result<Vec<PathBuf>, FilesError> {
    let (data, diagrams) = (root.join(DATA), root.join(DIAGRAMS));
    let columns = COLUMNS.iter().map(|(name, meaning)| ((*name).to_owned(), (*meaning).to_owned())).collect();
    let metadata = MetadataFile { metadata: results.metadata.clone(), columns };
    let yaml = serde_saphyr::to_string(&metadata).map_err(|error| malformed(&data.join(METADATA), &error))?;
    let comparison = serde_json::to_string_pretty(&performance_comparison_json(results, summary))
        .map_err(|error| malformed(&data.join("performance-comparison.json"), &error))?;
    let (baseline, others): (Vec<&Trial>, Vec<&Trial>) =
        results.trials.iter().partition(|trial| trial.treatment.is_baseline());
    let drawn = charts::draw(results, summary)?;
    let files = vec![
        (data.join(BASELINE), trials_csv(&data.join(BASELINE), &baseline)?),
        (data.join(LOCKING), trials_csv(&data.join(LOCKING), &others)?),
        (data.join(SAMPLES), samples_csv(&data.join(SAMPLES), &results.samples)?),
        (data.join("performance-comparison.json"), comparison.into_bytes()),
        (data.join(METADATA), yaml.into_bytes()),
        (data.join("README.md"), readme(results).into_bytes()),
        (data.join("REPORT.md"), report::markdown(results, summary, &drawn).into_bytes()),
        (data.join("report.html"), report::html(results, summary, &drawn).into_bytes()),
    ];
    write_each(files, drawn, &diagrams)
}

/// Writes files, and charts as SVG and PNG, each as a whole or not at all, and returns their paths.
pub(crate) fn write_each(
    mut files: Vec<(PathBuf, Vec<u8>)>,
    charts: Vec<charts::Chart>,
    diagrams: &Path,
) -> Result<Vec<PathBuf>, FilesError> {
    for chart in charts {
        files.push((diagrams.join(format!("{}.svg", chart.name)), chart.svg.into_bytes()));
        files.push((diagrams.join(format!("{}.png", chart.name)), chart.png));
    }
    let mut written = Vec::with_capacity(files.len());
    for (path, content) in files {
        write_whole(&path, &content)?;
        written.push(path);
    }
    Ok(written)
}

/// Reads an experiment back, from the root that it was written below or from the folder of its data.
pub fn read(dir: &Path) -> Result<Results, FilesError> {
    let data = data_in(dir, DATA)?;
    let yaml = read_text(&data.join(METADATA))?;
    let file: MetadataFile = serde_saphyr::from_str(&yaml).map_err(|error| malformed(&data.join(METADATA), &error))?;
    let mut trials = Vec::new();
    for name in [BASELINE, LOCKING] {
        let path = data.join(name);
        for row in rows::<TrialRow>(&path)? {
            trials.push(trial(&row).map_err(|error| malformed(&path, &format!("column evidence: {error}")))?);
        }
    }
    trials.sort_by_key(|trial| trial.order);
    Ok(Results { metadata: file.metadata, trials, samples: rows(&data.join(SAMPLES))? })
}

/// The folder of an experiment's data: `dir` itself, or `below` it.
pub(crate) fn data_in(dir: &Path, below: &'static str) -> Result<PathBuf, FilesError> {
    let data = [dir.to_owned(), dir.join(below)].into_iter().find(|data| data.join(METADATA).is_file());
    data.ok_or_else(|| FilesError::NotFound { dir: dir.to_owned(), below })
}

/// The experiments that there are in a folder, which is the root that they were written below or the folder of one's
/// data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The root.
    pub root: PathBuf,
    /// Whether the locking mechanism's is there.
    pub locking: bool,
    /// Whether the comparison of engines is there.
    pub engines: bool,
}

/// Which experiments a folder holds.
pub fn find(dir: &Path) -> Result<Found, FilesError> {
    let full = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    for below in [DATA, engines::DATA] {
        if full.ends_with(below) && full.join(METADATA).is_file() {
            let levels = Path::new(below).components().count();
            let root = full.ancestors().nth(levels).map_or_else(|| dir.to_owned(), Path::to_owned);
            return Ok(Found { root, locking: below == DATA, engines: below == engines::DATA });
        }
    }
    let is_there = |below: &str| dir.join(below).join(METADATA).is_file();
    let found = Found { root: dir.to_owned(), locking: is_there(DATA), engines: is_there(engines::DATA) };
    if found.locking || found.engines {
        return Ok(found);
    }
    // A folder of data under another name: what it holds is told by what its metadata say.
    let path = data_in(dir, "data/experiments/…")?.join(METADATA);
    let of: NameOnly = serde_saphyr::from_str(&read_text(&path)?).map_err(|error| malformed(&path, &error))?;
    let is_engines = of.metadata.experiment == "engines";
    Ok(Found { locking: !is_engines, engines: is_engines, ..found })
}

/// As much of `metadata.yaml` as says which experiment it is of.
#[derive(Debug, Deserialize)]
struct NameOnly {
    metadata: Experiment,
}

#[derive(Debug, Deserialize)]
struct Experiment {
    experiment: String,
}

pub(crate) fn malformed(path: &Path, what: &impl ToString) -> FilesError {
    FilesError::Malformed { path: path.to_owned(), what: what.to_string() }
}

pub(crate) fn read_text(path: &Path) -> Result<String, FilesError> {
    fs::read_to_string(path).map_err(|source| FilesError::Io { path: path.to_owned(), verb: "read", source })
}

fn rows<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Vec<T>, FilesError> {
    let text = read_text(path)?;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    reader.deserialize().collect::<Result<_, _>>().map_err(|error| malformed(path, &error))
}

/// Beside its place first, then moved there: nobody ever sees half a file.
fn write_whole(path: &Path, content: &[u8]) -> Result<(), FilesError> {
    let fail = |verb| move |source| FilesError::Io { path: path.to_owned(), verb, source };
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(fail("made"))?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(fail("written"))?;
    std::io::Write::write_all(&mut file, content).map_err(fail("written"))?;
    // As any other file: readable by all, where the user's mask does not say otherwise.
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(permissions).map_err(fail("written"))?;
    file.persist(path).map_err(|error| fail("written")(error.error))?;
    Ok(())
}

fn trials_csv(path: &Path, trials: &[&Trial]) -> Result<Vec<u8>, FilesError> {
    to_csv(path, &trial_columns().collect::<Vec<_>>(), trials.iter().map(|trial| row(trial)))
}

fn samples_csv(path: &Path, samples: &[Sample]) -> Result<Vec<u8>, FilesError> {
    to_csv(path, &["trial", "treatment", "agent", "update_ms", "acquire_ms"], samples)
}

/// The columns of a trial's row.
pub(crate) fn trial_columns() -> impl Iterator<Item = &'static str> {
    COLUMNS[..18].iter().map(|(name, _)| *name)
}

/// A header and rows, as CSV.
pub(crate) fn to_csv(
    path: &Path,
    header: &[&str],
    rows: impl IntoIterator<Item = impl Serialize>,
) -> Result<Vec<u8>, FilesError> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    let fail = |error: csv::Error| malformed(path, &error);
    writer.write_record(header).map_err(fail)?;
    for row in rows {
        writer.serialize(row).map_err(fail)?;
    }
    writer.into_inner().map_err(|error| malformed(path, &error.error()))
}

pub(crate) fn row(trial: &Trial) -> TrialRow {
    TrialRow {
        trial: trial.trial,
        treatment: trial.treatment,
        order: trial.order,
        seed: trial.seed,
        started_s: trial.started_s,
        duration_ms: trial.duration_ms,
        acknowledged_updates: trial.acknowledged_updates,
        lost_updates: trial.lost_updates,
        overlaps: trial.overlaps,
        token_violations: trial.token_violations,
        nonlinearizable_documents: trial.nonlinearizable_documents,
        undecided_documents: trial.undecided_documents,
        conflicts: trial.conflicts,
        timeouts: trial.timeouts,
        lost_leases: trial.lost_leases,
        errors: trial.errors,
        corrupt: trial.corrupt,
        evidence: serde_json::Value::from(trial.evidence.clone()).to_string(),
    }
}

pub(crate) fn trial(row: &TrialRow) -> Result<Trial, serde_json::Error> {
    Ok(Trial {
        trial: row.trial,
        treatment: row.treatment,
        order: row.order,
        seed: row.seed,
        started_s: row.started_s,
        duration_ms: row.duration_ms,
        acknowledged_updates: row.acknowledged_updates,
        lost_updates: row.lost_updates,
        overlaps: row.overlaps,
        token_violations: row.token_violations,
        nonlinearizable_documents: row.nonlinearizable_documents,
        undecided_documents: row.undecided_documents,
        conflicts: row.conflicts,
        timeouts: row.timeouts,
        lost_leases: row.lost_leases,
        errors: row.errors,
        corrupt: row.corrupt,
        evidence: serde_json::from_str(&row.evidence)?,
    })
}

fn readme(results: &Results) -> String {
    let Metadata { command, started_at, seed, .. } = &results.metadata;
    format!(
        "# The locking mechanism, measured

Measured on {started_at} by

```sh
{command}
```

which repeats the same workload (seed {seed}). `mutext experiment report DIR` rebuilds the charts and the report from
these files.

| file | what it holds |
|---|---|
| `REPORT.md`, `report.html` | the report to read: results beside the published ones, tests, verdict, limits |
| `{BASELINE}` | one row a trial without any lock |
| `{LOCKING}` | one row a trial of every other treatment |
| `{SAMPLES}` | one row an acknowledged update: the raw times |
| `performance-comparison.json` | each treatment's figures, overheads, tests and criteria, for programs |
| `{METADATA}` | command, seed, workload, machine, engines, and what every column means |
| `../../../{DIAGRAMS}/` | the charts, as SVG and PNG |
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results_sample::sample;

    fn write(root: &Path, results: &Results) -> Vec<PathBuf> {
        write_all(root, results, &Summary::of(results)).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back_to_the_last_digit() {
        let dir = tempfile::tempdir().unwrap();
        let mut results = sample(&Treatment::ALL, 12, 2);
        results.samples[3].update_ms = 0.1 + 0.2;
        results.trials[5].started_s = 1.0 / 3.0;
        write(dir.path(), &results);
        assert_eq!(read(dir.path()).unwrap(), results);
        assert_eq!(read(&dir.path().join(DATA)).unwrap(), results);
        let root = dir.path().canonicalize().unwrap();
        let found = Found { root, locking: true, engines: false };
        assert_eq!(find(&dir.path().join(DATA)).unwrap(), found);
        assert_eq!(find(&found.root).unwrap(), found);
        // Moved elsewhere, it is still what it is.
        fs::rename(dir.path().join(DATA), dir.path().join("moved")).unwrap();
        assert!(find(&dir.path().join("moved")).unwrap().locking);
    }

    #[test]
    fn an_experiment_without_a_baseline_has_its_files_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let mut results = sample(&[Treatment::Unfenced], 1, 0);
        results.metadata.interrupted = true;
        for path in write(dir.path(), &results) {
            assert!(fs::metadata(&path).unwrap().len() > 0, "{}", path.display());
        }
        assert_eq!(read(dir.path()).unwrap(), results);
    }

    #[test]
    fn damage_is_named_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &sample(&Treatment::ALL[..2], 3, 1));
        let path = dir.path().join(DATA).join(SAMPLES);
        let damaged = fs::read_to_string(&path).unwrap().replacen("baseline", "nonsense", 1);
        fs::write(&path, damaged).unwrap();
        let error = read(dir.path()).unwrap_err().to_string();
        assert!(error.contains(SAMPLES) && error.contains("nonsense") && error.contains("line"), "{error}");
        let error = read(&dir.path().join("elsewhere")).unwrap_err().to_string();
        assert!(error.contains("elsewhere") && error.contains("--out"), "{error}");
    }
}
