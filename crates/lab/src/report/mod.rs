//! The report to read: one content, rendered as Markdown and as a single HTML page, so that the two never disagree.

mod beside;
mod content;
mod engines;
mod html;
mod markdown;
mod tables;

pub use tables::{Table, VerdictTables, verdict_tables};

use crate::charts::Chart;
use crate::engines::Comparison;
use crate::files::DIAGRAMS;
use crate::results::Results;
use crate::summary::Summary;

/// A part of the report.
#[derive(Debug, Clone, PartialEq)]
enum Block<'a> {
    Heading(u8, String),
    /// Text; what stands between backticks is code.
    Paragraph(String),
    List(Vec<String>),
    Table(Table),
    Code(String),
    Figure(&'a Chart),
    /// Something long that is folded away where the medium can.
    Details {
        summary: String,
        text: String,
    },
}

/// The report as Markdown; its pictures lie beside it, in the diagrams' folder.
pub fn markdown(results: &Results, summary: &Summary, charts: &[Chart]) -> String {
    markdown::render(&content::content(results, summary, charts), DIAGRAMS)
}

/// The report as one self-contained page: its charts are in it, and nothing is loaded from anywhere.
pub fn html(results: &Results, summary: &Summary, charts: &[Chart]) -> String {
    html::render(&content::content(results, summary, charts))
}

/// The comparison of engines as Markdown; its picture lies beside it, in the diagrams' folder.
pub fn engines_markdown(results: &crate::engines::Results, comparison: &Comparison, charts: &[Chart]) -> String {
    markdown::render(&engines::content(results, comparison, charts), crate::engines::DIAGRAMS)
}

/// The comparison of engines as one self-contained page.
pub fn engines_html(results: &crate::engines::Results, comparison: &Comparison, charts: &[Chart]) -> String {
    html::render(&engines::content(results, comparison, charts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charts;
    use crate::results::Treatment;
    use crate::results_sample::sample;

    fn both(results: &Results) -> [String; 2] {
        let summary = Summary::of(results);
        let charts = charts::draw(results, &summary).unwrap();
        [markdown(results, &summary, &charts), html(results, &summary, &charts)]
    }

    #[test]
    fn both_say_everything_that_a_reader_needs() {
        for report in both(&sample(&Treatment::ALL, 20, 3)) {
            for part in [
                "Hypothesis",
                "Setup",
                "Results",
                "Tests",
                "Verdict",
                "Limits",
                "How to reproduce",
                "15 of 100",
                "3 of 20",
                "--seed 7",
                "17 ms",
                "Fisher",
                "Mann",
                "95 % CI",
                "do not lie",
                "Python, this run",
                "python locking",
                "Python's mean time to acquire by ours",
            ] {
                let found = report.contains(part) || (part == "do not lie" && report.contains("lie between"));
                assert!(found, "{part:?} is missing");
            }
            assert!(!report.contains("NaN"));
        }
    }

    #[test]
    fn the_page_loads_nothing_and_trusts_no_evidence() {
        let [markdown, html] = both(&sample(&Treatment::ALL[..3], 20, 3));
        for load in ["<script", "<link", "src=\"http", "href=\"http", "url(http"] {
            assert!(!html.contains(load), "{load}");
        }
        assert!(html.contains("&lt;b&gt;") && !html.contains("\" <b>"), "evidence is escaped");
        assert_eq!(html.matches("<svg").count(), 4);
        assert!(markdown.contains("../../../diagrams/locking-mechanism/overhead.svg"));
    }

    #[test]
    fn an_experiment_of_one_trial_still_has_a_report() {
        for report in both(&sample(&[Treatment::Unfenced], 1, 0)) {
            assert!(report.contains("not judged") || report.contains("No criterion"), "{report}");
        }
    }
}
