//! `mutext experiment`: runs the laboratory's experiments, and rebuilds their reports.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use mutext::{Ttl, Wait};
use mutext_lab::experiment::{self, Plan};
use mutext_lab::report::{self, Table};
use mutext_lab::results::{Results, Treatment, Trial, Workload};
use mutext_lab::summary::{Summary, performance_comparison_json};
use mutext_lab::{agent, files, workload};

use crate::config::{Common, Given, Origin};
use crate::config_file::parse_duration;
use crate::error::CliError;
use crate::exit::Exit;

const LOCKING_EXAMPLES: &str = "\
Examples:
  mutext experiment locking
      100 trials each of baseline, locking and protected; about two minutes
  mutext experiment locking --profile hot --pause 1500ms --trials 10 \\
      --treatments unfenced,locking,protected
      an agent is stopped for longer than its lease lasts: what the fence is for
  mutext experiment locking --seed 7 --trials 30 --out /tmp/locking --json

What it writes, below --out:
  data/experiments/locking-mechanism/      CSV, JSON, metadata.yaml, REPORT.md, report.html
  diagrams/locking-mechanism/              charts as SVG and PNG

Exit status: 0 when every criterion passes, 1 when one fails; 130 after Ctrl-C, with what was measured so far.";

/// 128 plus the number of SIGINT.
const INTERRUPTED: u8 = 130;

/// Run an experiment, or rebuild its report
#[derive(Args)]
pub(crate) struct ExperimentArgs {
    #[command(subcommand)]
    experiment: Experiment,
}

#[derive(Subcommand)]
enum Experiment {
    /// The published experiment: what locking costs, and what it saves
    #[command(after_help = LOCKING_EXAMPLES)]
    Locking(LockingArgs),
    /// Rebuild charts and report from an experiment's files
    #[command(
        after_help = "Examples:\n  mutext experiment report assets\n  mutext experiment report assets/data/experiments/locking-mechanism"
    )]
    Report {
        /// Where the experiment wrote: its --out, or the folder with its CSV files
        #[arg(default_value = "assets")]
        dir: PathBuf,
    },
    /// One agent of a trial; experiments start it
    #[command(hide = true)]
    Agent,
}

#[derive(Args)]
struct LockingArgs {
    /// Trials of each treatment
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    trials: u32,
    /// What agents do: published (think 17 ms, 60 documents), bare (no thinking), hot (one document)
    #[arg(long, default_value = "published", value_parser = workload::PROFILES)]
    profile: String,
    /// What is compared
    #[arg(long, value_delimiter = ',', default_value = "baseline,locking,protected", value_parser = treatment)]
    treatments: Vec<Treatment>,
    /// Agent processes a trial [default: the profile's, 4]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    agents: Option<u32>,
    /// Repeats the same workload [default: a fresh one, printed and kept in metadata.yaml]
    #[arg(long)]
    seed: Option<u64>,
    /// Stop one agent's whole process so long, once a trial, between its read and its write
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    pause: Option<Duration>,
    /// How long leases last without renewal [default: 10s; with --pause a third of it]
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    ttl: Option<Duration>,
    /// How long an acquire may queue [default: 500ms]
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    wait: Option<Duration>,
    /// Start throwaway servers for the trials, as in redis,postgres
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    spawn: Vec<String>,
    /// The root of what is written
    #[arg(long, default_value = "assets", value_name = "DIR")]
    out: PathBuf,
}

fn treatment(name: &str) -> Result<Treatment, String> {
    let known = Treatment::ALL.map(Treatment::name).join(", ");
    let found = Treatment::ALL.into_iter().find(|treatment| treatment.name() == name);
    found.ok_or_else(|| format!("there is no such treatment; there are {known}"))
}

impl ExperimentArgs {
    /// Whether this process is one agent of a trial.
    pub(crate) const fn is_agent(&self) -> bool {
        matches!(self.experiment, Experiment::Agent)
    }
}

/// Runs the experiment that was asked for.
pub(crate) async fn run(args: ExperimentArgs, common: &Common) -> Result<ExitCode, CliError> {
    match args.experiment {
        Experiment::Locking(args) => locking(args, common).await,
        Experiment::Report { dir } => rebuild(&dir, common),
        Experiment::Agent => match agent::live().await {
            Ok(()) => Ok(Exit::Done.into()),
            Err(error) => Err(CliError::Experiment(error.to_string())),
        },
    }
}

async fn locking(args: LockingArgs, common: &Common) -> Result<ExitCode, CliError> {
    let plan = plan(&args, common)?;
    let total = plan.trials * plan.treatments.len();
    let bar = progress_bar(total as u64, common);
    let mut counts = Counts::new(&plan.treatments);
    let watch = |trial: &Trial| {
        bar.set_message(counts.with(trial));
        bar.inc(1);
    };
    let outcome = experiment::run(&plan, watch, interrupted()).await;
    bar.finish_and_clear();
    let results = outcome.map_err(|error| CliError::Experiment(with_causes(&error)))?;
    if results.trials.is_empty() {
        common.out.warn("nothing_measured", "stopped before the first trial ended; nothing was written");
        return Ok(INTERRUPTED.into());
    }
    let summary = conclude(&args.out, &results, common)?;
    Ok(match (results.metadata.interrupted, summary.failed()) {
        (true, _) => INTERRUPTED.into(),
        (false, false) => Exit::Done.into(),
        (false, true) => Exit::CriterionFailed.into(),
    })
}

fn rebuild(dir: &Path, common: &Common) -> Result<ExitCode, CliError> {
    let results = files::read(dir).map_err(|error| CliError::Experiment(with_causes(&error)))?;
    let summary = conclude(&files::root_of(dir), &results, common)?;
    Ok(if summary.failed() { Exit::CriterionFailed } else { Exit::Done }.into())
}

/// Writes every file and shows the verdict.
fn conclude(out: &Path, results: &Results, common: &Common) -> Result<Summary, CliError> {
    let summary = Summary::of(results);
    let written =
        files::write_all(out, results, &summary).map_err(|error| CliError::Experiment(with_causes(&error)))?;
    common.out.answer(&performance_comparison_json(results, &summary), || verdict(results, &summary, common))?;
    if let Some(report) = written.iter().find(|path| path.ends_with("report.html")) {
        common.out.remark(&format!("{} files written; read {}", written.len(), report.display()));
    }
    Ok(summary)
}

fn verdict(results: &Results, summary: &Summary, common: &Common) -> String {
    let tables = report::verdict_tables(summary);
    let metadata = &results.metadata;
    let stopped = if metadata.interrupted { ", stopped before its end" } else { "" };
    format!(
        "{} experiment, profile {}, {} trials in {:.0} s, seed {}{stopped}\n\n{}\n{}",
        metadata.experiment,
        metadata.workload.profile,
        results.trials.len(),
        metadata.duration_s,
        metadata.seed,
        drawn::<7>(&tables.treatments, common),
        drawn::<4>(&tables.criteria, common),
    )
}

/// A table of the report, as every other table of this command.
fn drawn<const N: usize>(table: &Table, common: &Common) -> String {
    let cell = |cells: &[String], column: usize| cells.get(column).cloned().unwrap_or_default();
    let header: [String; N] = std::array::from_fn(|column| cell(&table.header, column));
    let rows = table.rows.iter().map(|row| std::array::from_fn(|column| cell(row, column)));
    common.out.table(header.each_ref().map(String::as_str), rows.collect())
}

fn plan(args: &LockingArgs, common: &Common) -> Result<Plan, CliError> {
    if !args.spawn.is_empty() {
        let list = args.spawn.join(",");
        return Err(CliError::input(format!(
            "--spawn {list}: this build starts no servers; it has the embedded engines, which need none: leave --spawn out"
        )));
    }
    let mut treatments = args.treatments.clone();
    treatments.sort_unstable();
    treatments.dedup();
    let given = common.store.origin != Origin::Default;
    let store = if given { Some(common.store.address()?) } else { None };
    let locks = common.locks.as_ref().map(Given::address).transpose()?;
    let seed = args.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let executable = std::env::current_exe().map_err(|source| CliError::Io {
        what: "this program cannot find itself, to start agents".to_owned(),
        remedy: "call it by its full path",
        source,
    })?;
    Ok(Plan {
        workload: workload(args, common)?,
        trials: args.trials as usize,
        command: command(args, common, &treatments, seed),
        treatments,
        seed,
        store,
        locks,
        scratch: PathBuf::from(".mutext"),
        agent_command: vec![executable.into(), OsString::from("experiment"), OsString::from("agent")],
        commit: source_commit(),
    })
}

fn workload(args: &LockingArgs, common: &Common) -> Result<Workload, CliError> {
    let Some(mut workload) = workload::profile(&args.profile) else {
        return Err(CliError::input(format!("--profile {}: there is no such profile", args.profile)));
    };
    if let Some(agents) = args.agents {
        workload.agents = agents as usize;
    }
    let ttl = match (args.ttl, args.pause) {
        (Some(ttl), _) => Ttl::new(ttl).map_err(mutext::Error::from)?,
        (None, Some(pause)) => Ttl::new((pause / 3).max(Ttl::MIN)).map_err(mutext::Error::from)?,
        (None, None) => common.ttl,
    };
    let wait = args.wait.map(Wait::new).transpose().map_err(mutext::Error::from)?.unwrap_or(common.wait);
    if let Some(pause) = args.pause.filter(|pause| *pause <= ttl.get()) {
        return Err(CliError::input(format!(
            "--pause {pause:?} is not longer than the lease lasts ({:?}), so that it would show nothing; give more than that, or a shorter --ttl",
            ttl.get()
        )));
    }
    workload.ttl_ms = u64::try_from(ttl.get().as_millis()).unwrap_or(u64::MAX);
    workload.wait_ms = u64::try_from(wait.get().as_millis()).unwrap_or(u64::MAX);
    workload.stop_ms = args.pause.map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
    Ok(workload)
}

/// The command that repeats the experiment. Addresses are shown as they are parsed: without any password.
fn command(args: &LockingArgs, common: &Common, treatments: &[Treatment], seed: u64) -> String {
    let names: Vec<&str> = treatments.iter().map(|treatment| treatment.name()).collect();
    let mut command = format!(
        "mutext experiment locking --trials {} --profile {} --treatments {} --seed {seed}",
        args.trials,
        args.profile,
        names.join(",")
    );
    let mut add = |flag: &str, value: Option<String>| {
        if let Some(value) = value {
            command.extend([" ", flag, " ", &value]);
        }
    };
    let milliseconds = |duration: Duration| format!("{}ms", duration.as_millis());
    add("--agents", args.agents.map(|agents| agents.to_string()));
    add("--pause", args.pause.map(milliseconds));
    add("--ttl", args.ttl.map(milliseconds));
    add("--wait", args.wait.map(milliseconds));
    let store = (common.store.origin != Origin::Default).then_some(&common.store);
    add("--store", store.map(Given::identity));
    add("--locks", common.locks.as_ref().map(Given::identity));
    command
}

/// The source's commit, where this build still stands beside its source.
fn source_commit() -> Option<String> {
    let mut git = std::process::Command::new("git");
    git.args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*"]);
    let output = git.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned()).filter(|commit| !commit.is_empty())
}

fn progress_bar(total: u64, common: &Common) -> ProgressBar {
    if common.out.json {
        return ProgressBar::hidden();
    }
    let template = "{bar:30} {pos}/{len} trials, {elapsed_precise} (yet {eta})  {msg}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(total).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Corrupt trials so far, for the progress bar.
struct Counts(Vec<(Treatment, usize, usize)>);

impl Counts {
    fn new(treatments: &[Treatment]) -> Self {
        Self(treatments.iter().map(|treatment| (*treatment, 0, 0)).collect())
    }

    fn with(&mut self, trial: &Trial) -> String {
        for (_, corrupt, of) in self.0.iter_mut().filter(|(treatment, ..)| *treatment == trial.treatment) {
            *corrupt += usize::from(trial.corrupt);
            *of += 1;
        }
        let counts = self.0.iter().map(|(treatment, corrupt, of)| format!("{} {corrupt}/{of}", treatment.name()));
        format!("corrupt: {}", counts.collect::<Vec<_>>().join("  "))
    }
}

/// Ready once somebody asks this process to stop.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.extend([": ", &cause_text]);
        }
        source = cause.source();
    }
    text
}
