//! Ours beside the published figures and beside Python: the table that the whole experiment is for.

use super::tables::{Table, dash, overhead, spread};
use crate::results::Treatment;
use crate::stats::Distribution;
use crate::summary::{Summary, TreatmentSummary, published, reproduction};

/// What stands under one heading: a treatment and its baseline.
struct Column<'a> {
    summary: &'a Summary,
    treatment: Treatment,
}

impl Column<'_> {
    fn found(&self, treatment: Treatment, show: impl FnOnce(&TreatmentSummary) -> String) -> String {
        self.summary.treatment(treatment).map_or_else(dash, show)
    }

    fn corrupt(&self, treatment: Treatment) -> String {
        self.found(treatment, |found| format!("{} of {}", found.corrupt_trials, found.trials))
    }

    fn update(&self, treatment: Treatment) -> String {
        let times = |time: Distribution| format!("{:.2} / {:.2} ms", time.mean, time.p50);
        self.found(treatment, |found| found.update_ms.map_or_else(dash, times))
    }

    fn cells(&self) -> [String; 8] {
        let (treatment, baseline) = (self.treatment, self.treatment.baseline());
        let comparison = self.summary.comparison(treatment).and_then(|comparison| comparison.overhead);
        let acquire =
            |found: &TreatmentSummary| found.acquire_ms.map_or_else(dash, |time| format!("{} ms", spread(&time)));
        [
            self.corrupt(baseline),
            self.corrupt(treatment),
            self.update(baseline),
            self.update(treatment),
            overhead(self.summary, treatment),
            comparison.map_or_else(dash, |overhead| format!("{:.1} %", overhead.median)),
            self.found(treatment, acquire),
            self.found(treatment, |found| found.timeouts.to_string()),
        ]
    }
}

const ROWS: [&str; 9] = [
    "corrupt trials without a lock",
    "corrupt trials with it",
    "update without a lock, mean / p50",
    "update with it, mean / p50",
    "overhead, mean (95 % CI)",
    "overhead, median",
    "time to acquire, mean / p50 / p99",
    "waits that timed out",
    "Python's mean time to acquire by ours (95 % CI)",
];

/// Whether a peer ran in this experiment.
pub(super) fn has_peer(summary: &Summary) -> bool {
    Treatment::PEERS.into_iter().any(|treatment| summary.treatment(treatment).is_some())
}

/// Published, Python, ours. Python's figures are those of this run where it was compared with, else those that were
/// measured elsewhere once.
pub(super) fn beside_published(summary: &Summary) -> Table {
    let column = |treatment| Column { summary, treatment };
    let (python, heading) = if has_peer(summary) {
        (column(Treatment::PythonLocking).cells(), "Python, this run")
    } else {
        (measured_elsewhere(), "Python, measured elsewhere")
    };
    let shown = [Treatment::Locking, Treatment::Protected];
    let [locking, protected] = shown.map(|treatment| column(treatment).cells());
    let quicker = shown.map(|treatment| {
        summary.against_peer(treatment).map_or_else(dash, |found| {
            let interval = found.ci95.map_or_else(String::new, |ci| format!(" ({:.1} to {:.1})", ci.low, ci.high));
            format!("{:.1} times{interval}", found.times)
        })
    });
    let cells = published_cells().into_iter().zip(python).zip(locking.into_iter().zip(protected));
    let mut rows: Vec<[String; 5]> = ROWS
        .into_iter()
        .zip(cells)
        .map(|(row, ((published, python), (locking, protected)))| {
            [row.to_owned(), published, python, locking, protected]
        })
        .collect();
    if quicker.iter().any(|times| *times != dash()) {
        let [locking, protected] = quicker;
        rows.push([ROWS[8].to_owned(), dash(), dash(), locking, protected]);
    }
    Table::new(["", "published", heading, "here: locking", "here: protected"], rows)
}

fn published_cells() -> [String; 8] {
    let (percent, low, high) = published::OVERHEAD_PERCENT;
    let trials = published::TRIALS;
    [
        format!("{} of {trials}", published::RACY_BASELINE),
        format!("{} of {trials}", published::RACY_LOCKING),
        dash(),
        dash(),
        format!("{percent:.0} % ({low} to {high})"),
        dash(),
        format!("{} / – / – ms", published::ACQUIRE_MS),
        dash(),
    ]
}

fn measured_elsewhere() -> [String; 8] {
    let (mean, of_median) = reproduction::OVERHEAD_PERCENT;
    let (acquire_mean, acquire_p50, acquire_p99) = reproduction::ACQUIRE_MS;
    let (without, with) = reproduction::UPDATE_MS;
    [
        format!("{} of 100", reproduction::RACY_BASELINE),
        format!("{} of 100", reproduction::RACY_LOCKING),
        format!("{without:.2} / – ms"),
        format!("{with:.2} / – ms"),
        format!("{mean:.1} %"),
        format!("{of_median:.1} %"),
        format!("{acquire_mean:.2} / {acquire_p50:.2} / {acquire_p99:.0} ms"),
        dash(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results_sample::sample;

    #[test]
    fn python_stands_there_as_it_ran_or_as_it_was_measured_elsewhere() {
        let with = beside_published(&Summary::of(&sample(&Treatment::ALL, 20, 3)));
        assert_eq!(with.header[2], "Python, this run");
        assert_eq!(with.rows.len(), 9);
        assert_eq!(with.rows[0], ["corrupt trials without a lock", "15 of 100", "0 of 20", "3 of 20", "3 of 20"]);
        assert_eq!(with.rows[4][2].split(' ').next(), Some("10.0"), "against its own baseline");
        assert_eq!(with.rows[8][3], "1.0 times (1.0 to 1.0)");
        let without = beside_published(&Summary::of(&sample(&Treatment::OURS, 20, 3)));
        assert_eq!((without.header[2].as_str(), without.rows.len()), ("Python, measured elsewhere", 8));
        assert_eq!(without.rows[4][2], "20.6 %");
    }
}
