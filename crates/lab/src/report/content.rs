//! What the report says.

use super::Block;
use super::beside::{beside_published, has_peer};
use super::tables::{Table, dash, overhead, verdict_tables};
use crate::charts::Chart;
use crate::results::{Results, Treatment};
use crate::summary::{Comparison, Summary, Verdict, p_value};

/// Corrupt trials whose evidence is shown.
const EVIDENCE_MAX: usize = 3;

pub(super) fn content<'a>(results: &Results, summary: &Summary, charts: &'a [Chart]) -> Vec<Block<'a>> {
    let mut blocks = vec![Block::Heading(1, "The locking mechanism, measured".to_owned())];
    blocks.push(Block::Paragraph(in_one_paragraph(results, summary)));
    blocks.extend(hypothesis());
    blocks.extend(setup(results));
    blocks.push(heading("Results"));
    blocks.push(Block::Table(verdict_tables(summary).treatments));
    blocks.push(paragraph(beside_what(summary)));
    blocks.push(Block::Table(beside_published(summary)));
    blocks.extend(summary.baseline_range.clone().map(Block::Paragraph));
    blocks.extend(charts.iter().map(Block::Figure));
    blocks.extend(tests(summary));
    blocks.push(heading("Verdict"));
    if summary.criteria.is_empty() {
        blocks.push(Block::Paragraph("No criterion applies to the treatments that ran.".to_owned()));
    } else {
        blocks.push(Block::Table(verdict_tables(summary).criteria));
    }
    blocks.extend(evidence(results));
    blocks.extend(limits(results));
    blocks.extend(reproduce(results));
    blocks
}

fn beside_what(summary: &Summary) -> &'static str {
    if has_peer(summary) {
        "Beside the published experiment, and the same in Python (redis-py's lock with its defaults, psycopg2, a plain table), whose agents ran in turn with ours on the same servers, with the same choices of documents and pauses, and were timed and judged by the same code. Overhead is against the baseline of the same column's language:"
    } else {
        "Beside the published experiment, and a reproduction of it in Python that was measured on another machine of 2 cores (redis-py, psycopg2, PostgreSQL 15, Redis 7.0; `--compare python` runs it here):"
    }
}

fn heading(text: &str) -> Block<'static> {
    Block::Heading(2, text.to_owned())
}

fn paragraph(text: &str) -> Block<'static> {
    Block::Paragraph(text.to_owned())
}

fn in_one_paragraph(results: &Results, summary: &Summary) -> String {
    let metadata = &results.metadata;
    let counts = summary.treatments.iter().map(|treatment| {
        format!("`{}` {} of {}", treatment.treatment.name(), treatment.corrupt_trials, treatment.trials)
    });
    let failed = summary.criteria.iter().filter(|criterion| criterion.verdict == Verdict::Fail).count();
    let unjudged = summary.criteria.iter().filter(|c| matches!(c.verdict, Verdict::NotJudged(_))).count();
    let verdict = match (failed, unjudged, summary.passed()) {
        (0, 0, true) => "Every success criterion is met.".to_owned(),
        (0, 0, false) => "No criterion applies.".to_owned(),
        (0, n, _) => format!("No criterion failed; {n} could not be judged (not judged is not passed)."),
        (n, _, _) => format!("**{n} of {} criteria failed.**", summary.criteria.len()),
    };
    let costs =
        [Treatment::Locking, Treatment::Protected, Treatment::PythonLocking].into_iter().filter_map(|treatment| {
            summary.comparison(treatment)?.overhead?;
            Some(format!("`{}` costs {}", treatment.name(), overhead(summary, treatment)))
        });
    let stopped =
        if metadata.interrupted { " It was stopped before its end; this is what was measured until then." } else { "" };
    let costs: Vec<String> = costs.collect();
    let costs =
        if costs.is_empty() { String::new() } else { format!(" {}, each over its baseline.", costs.join(", ")) };
    format!("Corrupt trials: {}.{costs} {verdict}{stopped}", counts.collect::<Vec<_>>().join(", "))
}

fn hypothesis() -> Vec<Block<'static>> {
    vec![
        heading("Hypothesis"),
        paragraph(
            "Agents that share documents outside themselves and read, think, and write back without coordination lose updates: all of them are told that all went well. A lease around each update, with a fencing token that the store checks, loses none, and costs less than 20 % of the time of an update.",
        ),
    ]
}

fn setup(results: &Results) -> Vec<Block<'static>> {
    let metadata = &results.metadata;
    let workload = &metadata.workload;
    let mut parameters = vec![
        ["profile".to_owned(), format!("`{}`", workload.profile), profile_reason(&workload.profile).to_owned()],
        [
            "agents".to_owned(),
            workload.agents.to_string(),
            "each an operating-system process; an update that is not counted comes first".to_owned(),
        ],
        [
            "updates".to_owned(),
            format!("{} an agent", workload.updates_per_agent),
            "about a dozen a trial in the published regime".to_owned(),
        ],
        [
            "documents".to_owned(),
            workload.documents.to_string(),
            "collisions near 1 % in the published regime".to_owned(),
        ],
        [
            "thinking".to_owned(),
            format!("{} ms", workload.think_ms),
            "between read and write; 2.3 ms being 12 % puts a published update at about 19 ms".to_owned(),
        ],
        [
            "pauses".to_owned(),
            format!("{} ms on average", workload.pause_ms_mean),
            "exponential, before each update".to_owned(),
        ],
        ["TTL".to_owned(), format!("{} ms", workload.ttl_ms), "how long a lease lasts without renewal".to_owned()],
        [
            "wait".to_owned(),
            format!("{} ms", workload.wait_ms),
            "how long an acquire may queue; the published experiment met timeouts at 100 ms and none at 500".to_owned(),
        ],
    ];
    if let Some(stop) = workload.stop_ms {
        let why =
            "one agent's whole process, once a trial, between its read and its write: longer than its lease lasts"
                .to_owned();
        parameters.push(["stopped".to_owned(), format!("{stop} ms"), why]);
    }
    let treatments =
        metadata.treatments.iter().map(|treatment| format!("`{}`: {}", treatment.name(), meaning(*treatment)));
    let mut facts = vec![
        format!("documents: {}", metadata.store),
        format!("locks: {}", metadata.locks),
        format!(
            "Mutext {}{}",
            metadata.version,
            metadata.commit.as_ref().map(|commit| format!(", commit {commit}")).unwrap_or_default()
        ),
    ];
    facts.extend(metadata.engines.iter().chain(&metadata.machine).cloned());
    facts.push(format!("begun {}, {:.0} s, seed {}", metadata.started_at, metadata.duration_s, metadata.seed));
    vec![
        heading("Setup"),
        paragraph(
            "Treatments, each trial of them on documents of its own, interleaved in random order within each round; all treatments of one round meet the same choices of documents and pauses:",
        ),
        Block::List(treatments.collect()),
        paragraph(
            "The published experiment did not state its parameters. Those of the `published` profile are inferred from its figures and put a Python reproduction into the same regime.",
        ),
        Block::Table(Table::new(["parameter", "value", "why"], parameters)),
        paragraph(
            "After each trial, four questions are asked of the agents' logs and the final documents: is an acknowledged update missing; did critical sections certainly overlap (where a lease is taken); were tokens out of order; is there a serial order that explains each document's history (linearizability). A trial with any of these is corrupt.",
        ),
        Block::List(facts),
    ]
}

const fn meaning(treatment: Treatment) -> &'static str {
    match treatment {
        Treatment::Baseline => "blind read, think, write; no lock, no check",
        Treatment::Unfenced => "a lease around it, but the store checks nothing: the published treatment",
        Treatment::Locking => {
            "a lease, and the store checks its fencing token at read and write; no revision check, so that the lock is judged alone"
        }
        Treatment::Optimistic => "compare-and-set on the revision, retried on conflict; no lock",
        Treatment::Protected => "lease, fence and revision: what `Context::update` does",
        Treatment::Adaptive => {
            "compare-and-set, and `protected` for documents on which conflicts cost more than leases"
        }
        Treatment::PythonBaseline => "the published experiment in Python: psycopg2, a plain table, no lock",
        Treatment::PythonLocking => "the same under redis-py's lock with its defaults: a try every 100 ms",
    }
}

fn profile_reason(profile: &str) -> &'static str {
    match profile {
        "bare" => "no thinking: the engines' own cost shows",
        "single" => "one agent, alone, without thinking: what a lock costs that nobody contends",
        "hot" => "every agent on one document, as fast as it can",
        _ => "stands for the published experiment",
    }
}

fn tests(summary: &Summary) -> Vec<Block<'static>> {
    let mut blocks = vec![heading("Tests")];
    if summary.comparisons.is_empty() {
        blocks.push(paragraph("Without a second treatment there is nothing to compare."));
        return blocks;
    }
    let corruption = summary.comparisons.iter().filter_map(corruption_row);
    blocks.push(Block::Table(Table::new(
        [
            "corrupt trials, its baseline against",
            "difference (95 % CI), points",
            "Fisher's exact p",
            "chi-square (p)",
            "odds ratio",
            "Cohen's h",
        ],
        corruption.collect::<Vec<_>>(),
    )));
    let time = summary.comparisons.iter().filter_map(time_row);
    blocks.push(Block::Table(Table::new(
        [
            "mean update time of a trial, against its baseline",
            "difference (95 % CI), ms",
            "Welch's t (df), p",
            "Mann–Whitney p",
            "Hedges' g",
            "Cliff's delta",
        ],
        time.collect::<Vec<_>>(),
    )));
    blocks.push(paragraph("Counts: Newcombe's interval; odds ratio with half a count added to each cell; a star where an expected count is below 5, so that Fisher's test is the one to read. Overhead: ratio of the means over paired trials, with a bias-corrected and accelerated bootstrap interval (10,000 resamples). All tests are two-sided; none is corrected for their number."));
    blocks
}

fn corruption_row(comparison: &Comparison) -> Option<[String; 6]> {
    let found = comparison.corruption?;
    let interval = found.risk_difference_interval;
    let star = if found.has_small_expected_counts { "*" } else { "" };
    let chi_square = match (found.chi_square, found.chi_square_p) {
        (Some(statistic), Some(p)) => format!("{statistic:.2} (p {}){star}", p_value(p)),
        _ => dash(),
    };
    Some([
        format!("`{}`", comparison.treatment.name()),
        format!("{:.1} ({:.1} to {:.1})", found.risk_difference * 100.0, interval.low * 100.0, interval.high * 100.0),
        format!("p {}", p_value(found.fisher_p)),
        chi_square,
        format!("{:.1}", found.odds_ratio),
        format!("{:.2}", found.cohens_h),
    ])
}

fn time_row(comparison: &Comparison) -> Option<[String; 6]> {
    let found = comparison.time?;
    let interval = found.difference_interval;
    Some([
        format!("`{}`", comparison.treatment.name()),
        format!("{:.3} ({:.3} to {:.3})", found.difference, interval.low, interval.high),
        format!("{:.2} ({:.0}), p {}", found.welch_t, found.welch_df, p_value(found.welch_p)),
        format!("p {}", p_value(found.mann_whitney_p)),
        format!("{:.2}", found.hedges_g),
        format!("{:.2}", found.cliffs_delta),
    ])
}

fn evidence(results: &Results) -> Vec<Block<'static>> {
    let mut blocks = Vec::new();
    for treatment in Treatment::ALL {
        let corrupt = results.of(treatment).filter(|trial| trial.corrupt || trial.errors > 0);
        for trial in corrupt.take(EVIDENCE_MAX) {
            let summary = format!("Evidence: trial {} of {}", trial.trial, treatment.name());
            blocks.push(Block::Details { summary, text: trial.evidence.join("\n") });
        }
    }
    if !blocks.is_empty() {
        blocks.insert(0, paragraph("What proves it, for the first corrupt trials of each treatment (all of it is in the CSV files). Moments are nanoseconds of the machine's monotonic clock, values are numbers for a document's contents:"));
    }
    blocks
}

fn limits(results: &Results) -> Vec<Block<'static>> {
    let mut limits = vec![
        "One machine, one pair of engines, one workload: the figures are ratios within this run, and its absolute times belong to this machine.".to_owned(),
        "A clean trial proves that nothing was found in it, not that nothing can be: the interval beside each count says how much corruption could still hide.".to_owned(),
        "The published parameters are inferred, not known.".to_owned(),
        "Agents here think by sleeping: they leave the processor free, as an agent that waits for a model does.".to_owned(),
    ];
    if results.metadata.store.starts_with("embedded") {
        limits.push("The published engines (Redis beside PostgreSQL) cost round trips that embedded engines do not; `--spawn redis,postgres` runs on those.".to_owned());
    } else {
        limits.push("Servers and agents share this machine and its processors; a network between them would add its round trips to every figure.".to_owned());
    }
    if results.metadata.treatments.iter().any(|treatment| treatment.is_peer()) {
        limits.push("An update in Python ends when its lock is released, as redis-py has it; ours ends with its acknowledgement, and the release follows behind. Python's agents check no revision and no fence: their lock is judged by what was lost and by who was inside at once.".to_owned());
    }
    if results.metadata.workload.stop_ms.is_none() {
        limits.push("No agent was stopped for longer than its lease lasts, so that `unfenced` looks as good as `locking`. Run with `--pause 1500ms --profile hot` to see the difference.".to_owned());
    }
    vec![heading("Limits"), Block::List(limits)]
}

fn reproduce(results: &Results) -> Vec<Block<'static>> {
    vec![
        heading("How to reproduce"),
        Block::Code(results.metadata.command.clone()),
        paragraph(
            "repeats the same choices of documents and pauses; times, and with them which updates meet, differ from run to run. `mutext experiment report DIR` rebuilds this report from the CSV and YAML files beside it.",
        ),
    ]
}
