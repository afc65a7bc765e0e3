//! The tables of the verdict, for the terminal and for the report.

use super::beside::{beside_published, has_peer};
use crate::stats::Distribution;
use crate::summary::{Summary, Verdict};

/// A table of texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// One text a column.
    pub header: Vec<String>,
    /// One text a column, in each row.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> Self {
        Self { header: header.map(str::to_owned).to_vec(), rows: rows.into_iter().map(Vec::from).collect() }
    }
}

/// What the terminal shows at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerdictTables {
    /// One row a treatment.
    pub treatments: Table,
    /// Ours beside the published figures and Python's, where a peer ran.
    pub beside: Option<Table>,
    /// One row a criterion.
    pub criteria: Table,
}

/// All of them.
pub fn verdict_tables(summary: &Summary) -> VerdictTables {
    let beside = has_peer(summary).then(|| beside_published(summary));
    VerdictTables { treatments: treatments(summary), beside, criteria: criteria(summary) }
}

fn treatments(summary: &Summary) -> Table {
    let header = [
        "treatment",
        "corrupt trials",
        "95 % interval",
        "lost updates",
        "update mean / p50 ms",
        "acquire mean / p50 / p99 ms",
        "overhead (95 % CI)",
    ];
    let rows = summary.treatments.iter().map(|treatment| {
        let interval = treatment.corrupt_interval;
        let update = treatment.update_ms.map_or_else(dash, |d| format!("{:.2} / {:.2}", d.mean, d.p50));
        let acquire = treatment.acquire_ms.map_or_else(dash, |d| spread(&d));
        [
            treatment.treatment.name().to_owned(),
            format!("{} of {}", treatment.corrupt_trials, treatment.trials),
            format!("{:.1} to {:.1} %", interval.low * 100.0, interval.high * 100.0),
            format!("{} of {}", treatment.lost_updates, treatment.acknowledged_updates),
            update,
            acquire,
            overhead(summary, treatment.treatment),
        ]
    });
    Table::new(header, rows)
}

pub(super) fn dash() -> String {
    "–".to_owned()
}

pub(super) fn spread(distribution: &Distribution) -> String {
    format!("{:.2} / {:.2} / {:.2}", distribution.mean, distribution.p50, distribution.p99)
}

pub(super) fn overhead(summary: &Summary, treatment: crate::results::Treatment) -> String {
    let Some(overhead) = summary.comparison(treatment).and_then(|comparison| comparison.overhead) else {
        return dash();
    };
    let interval = overhead.ci95.map_or_else(String::new, |ci| format!(" ({:.1} to {:.1})", ci.low, ci.high));
    format!("{:.1} %{interval}", overhead.mean)
}

fn criteria(summary: &Summary) -> Table {
    let rows = summary.criteria.iter().map(|criterion| {
        let verdict = match &criterion.verdict {
            Verdict::Pass => "pass".to_owned(),
            Verdict::Fail => "FAIL".to_owned(),
            Verdict::NotJudged(why) => format!("not judged: {why}"),
        };
        [criterion.name.clone(), criterion.required.clone(), criterion.measured.clone(), verdict]
    });
    Table::new(["criterion", "required", "measured", "verdict"], rows)
}
