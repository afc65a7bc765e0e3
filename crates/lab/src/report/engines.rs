//! What the comparison of engines says.

use super::Block;
use crate::charts::Chart;
use crate::engines::{Comparison, EngineSummary, Results, declared, legend, table};
use crate::results::Treatment;

pub(super) fn content<'a>(results: &Results, comparison: &Comparison, charts: &'a [Chart]) -> Vec<Block<'a>> {
    let metadata = &results.metadata;
    let heading = |text: &str| Block::Heading(2, text.to_owned());
    let mut blocks = vec![
        Block::Heading(1, "Lock engines, side by side".to_owned()),
        Block::Paragraph(in_one_paragraph(results, comparison)),
        heading("Results"),
        Block::Table(table(comparison)),
        Block::List(legend()),
    ];
    blocks.extend(charts.iter().map(Block::Figure));
    let failed: Vec<String> = comparison.engines.iter().filter(|engine| engine.failed()).map(evidence).collect();
    if !failed.is_empty() {
        blocks.push(heading("What went wrong"));
        blocks.push(Block::List(failed));
    }
    blocks.push(heading("What each engine declares"));
    blocks.push(Block::Table(declared(comparison)));
    blocks.push(heading("Setup"));
    let workload = &metadata.workload;
    blocks.push(Block::Paragraph(format!(
        "Profile `{}`: {} agents, each an operating-system process, make {} updates each of {} documents, think {} ms between read and write, and pause {} ms on average before each. {} trials of each treatment on each engine, interleaved in random order within each round; engines whose documents lie in the same store share its baseline. Then {} probes of each engine's lock, in turn.",
        workload.profile,
        workload.agents,
        workload.updates_per_agent,
        workload.documents,
        workload.think_ms,
        workload.pause_ms_mean,
        metadata.trials,
        metadata.probes,
    )));
    let mut facts: Vec<String> = Vec::new();
    for engine in &results.engines {
        facts.push(format!(
            "`{}`: documents: {}; locks: {}; {}",
            engine.name,
            engine.store,
            engine.locks,
            engine.facts.join("; ")
        ));
    }
    facts.extend(metadata.machine.iter().cloned());
    facts.push(format!(
        "Mutext {}{}; begun {}, {:.0} s, seed {}",
        metadata.version,
        metadata.commit.as_ref().map(|commit| format!(", commit {commit}")).unwrap_or_default(),
        metadata.started_at,
        metadata.duration_s,
        metadata.seed
    ));
    facts.extend(metadata.left_out.iter().map(|why| format!("left out: {why}")));
    blocks.push(Block::List(facts));
    blocks.push(heading("Limits"));
    blocks.push(Block::List(limits()));
    blocks.push(heading("How to reproduce"));
    blocks.push(Block::Code(metadata.command.clone()));
    blocks
}

fn in_one_paragraph(results: &Results, comparison: &Comparison) -> String {
    let failed = comparison.engines.iter().filter(|engine| engine.failed()).count();
    let trials = |treatment: Treatment| -> (usize, usize) {
        let found = comparison.engines.iter().filter_map(|engine| engine.treatment(treatment));
        found.fold((0, 0), |(corrupt, all), found| (corrupt + found.corrupt_trials, all + found.trials))
    };
    let ((locking, of), (protected, _)) = (trials(Treatment::Locking), trials(Treatment::Protected));
    let verdict = match failed {
        0 => "No engine corrupted a trial under a lease, and nowhere did two hold one lock.".to_owned(),
        failed => format!("**{failed} of {} engines broke a promise.**", comparison.engines.len()),
    };
    let stopped = if results.metadata.interrupted { " It was stopped before its end." } else { "" };
    format!(
        "{} engines on one machine: corrupt trials under `locking` {locking} of {of}, under `protected` {protected} of {of}. {verdict}{stopped}",
        comparison.engines.len()
    )
}

fn evidence(engine: &EngineSummary) -> String {
    let corrupt = |treatment: Treatment| engine.treatment(treatment).map_or(0, |found| found.corrupt_trials);
    let first = engine.errors.first().map(|error| format!("; the first error: {error}")).unwrap_or_default();
    format!(
        "`{}`: {} corrupt trials under `locking`, {} under `protected`; {} overlaps and {} errors among contenders{first}",
        engine.name,
        corrupt(Treatment::Locking),
        corrupt(Treatment::Protected),
        engine.overlaps,
        engine.errors.len()
    )
}

fn limits() -> Vec<String> {
    vec![
        "All servers, agents and contenders share one machine and its loopback network: between machines each message costs more, and engines that send more of them lose more.".to_owned(),
        "All engines' servers run during the whole comparison; those that are not asked still talk among themselves a little.".to_owned(),
        "Servers keep what they keep by the settings named above; a set of several servers on one disk syncs that disk several times.".to_owned(),
        "Messages are TCP segments with data as the system counts them for the whole machine, less those of an equal time in which nobody asks; what else runs is counted too.".to_owned(),
    ]
}
