//! `mutext experiment`: runs the laboratory's experiments, and rebuilds their reports.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use mutext::{Ttl, Wait};
use mutext_lab::experiment::{self, Place, Plan};
use mutext_lab::files::FilesError;
use mutext_lab::peer::{Peer, Program};
use mutext_lab::report::{self, Table};
use mutext_lab::results::{Results, Treatment, Trial, Workload};
use mutext_lab::servers::{Server, Servers};
use mutext_lab::summary::{Summary, performance_comparison_json};
use mutext_lab::{agent, files, workload};

use crate::config::{Common, Given, Origin};
use crate::config_file::parse_duration;
use crate::engines;
use crate::error::CliError;
use crate::exit::Exit;

const LOCKING_EXAMPLES: &str = "\
Examples:
  mutext experiment locking
      100 trials each of baseline, locking and protected; about two minutes
  mutext experiment locking --spawn redis,postgres
      the same over a real Redis and a real PostgreSQL, started for it and ended after it
  mutext experiment locking --spawn redis,postgres --compare python
      beside the published experiment in Python, in turn with ours on the same servers
  mutext experiment locking --spawn redis,postgres --compare python --profile hot --wait 100ms
      the published failure: a wait of 100 ms is too short for a lock that is polled
  mutext experiment locking --profile hot --pause 1500ms --trials 10 \\
      --treatments unfenced,locking,protected
      an agent is stopped for longer than its lease lasts: what the fence is for
  mutext experiment locking --seed 7 --trials 30 --out /tmp/locking --json

What it writes, below --out:
  data/experiments/locking-mechanism/      CSV, JSON, metadata.yaml, REPORT.md, report.html
  diagrams/locking-mechanism/              charts as SVG and PNG

Exit status: 0 when every criterion passes, 1 when one fails; 130 after Ctrl-C, with what was
measured so far.";

/// 128 plus the number of SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

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
    /// The published experiment on every lock engine at hand, side by side
    #[command(after_help = engines::EXAMPLES)]
    Engines(engines::EnginesArgs),
    /// Rebuild charts and reports from experiments' files
    #[command(
        after_help = "Examples:\n  mutext experiment report assets\n      of every experiment that is there\n  mutext experiment report assets/data/experiments/locking-mechanism\n  mutext experiment report assets/data/experiments/engines"
    )]
    Report {
        /// Where experiments wrote: their --out, or the folder with the CSV files of one
        #[arg(default_value = "assets")]
        dir: PathBuf,
    },
    /// One agent of a trial; experiments start it
    #[command(hide = true)]
    Agent,
    /// One of those who contend for a lock; experiments start it
    #[command(hide = true)]
    Contender,
}

#[derive(Args)]
struct LockingArgs {
    /// Trials of each treatment
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    trials: u32,
    /// What agents do: published (think 17 ms, 60 documents), bare (no thinking), single (one agent, no thinking),
    /// hot (8 agents, one document, no thinking)
    #[arg(long, default_value = "published", value_parser = workload::PROFILES)]
    profile: String,
    /// What is compared, as in baseline,unfenced,locking,optimistic,protected,adaptive
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_value = "baseline,locking,protected", value_parser = treatment)]
    treatments: Vec<Treatment>,
    /// Agent processes a trial, as in 16 [default: the profile's]
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
    /// How long an acquire may queue, as in 100ms [default: 500ms]
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    wait: Option<Duration>,
    /// Start throwaway servers for the trials, redis for locks and postgres for documents, as in redis,postgres
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    spawn: Vec<Server>,
    /// Run the published experiment in Python beside ours, on the same servers; compare/python/setup prepares it
    #[arg(long, value_name = "PEER", value_parser = ["python"])]
    compare: Option<String>,
    /// The root of what is written
    #[arg(long, default_value = "assets", value_name = "DIR")]
    out: PathBuf,
}

fn treatment(name: &str) -> Result<Treatment, String> {
    let known = Treatment::OURS.map(Treatment::name).join(", ");
    let found = Treatment::OURS.into_iter().find(|treatment| treatment.name() == name);
    found.ok_or_else(|| format!("there is no such treatment; there are {known}"))
}

impl ExperimentArgs {
    /// Whether this process is one agent of a trial, or one of those who contend.
    pub(crate) const fn is_agent(&self) -> bool {
        matches!(self.experiment, Experiment::Agent | Experiment::Contender)
    }
}

/// Runs the experiment that was asked for.
pub(crate) async fn run(args: ExperimentArgs, common: &Common) -> Result<ExitCode, CliError> {
    match args.experiment {
        Experiment::Locking(args) => locking(args, common).await,
        Experiment::Engines(args) => engines::run(args, common).await,
        Experiment::Report { dir } => rebuild(&dir, common),
        Experiment::Agent => lived(agent::live().await),
        Experiment::Contender => lived(mutext_lab::engines::live().await),
    }
}

/// How a process that an experiment started has ended.
fn lived(life: Result<(), agent::AgentError>) -> Result<ExitCode, CliError> {
    match life {
        Ok(()) => Ok(Exit::Done.into()),
        Err(error) => Err(CliError::Experiment(error.to_string())),
    }
}

async fn locking(args: LockingArgs, common: &Common) -> Result<ExitCode, CliError> {
    let workload = workload(&args, common)?;
    check_spawned(&args, common)?;
    let program = program(&args, common)?;
    let servers = Servers::start(&args.spawn).map_err(|error| CliError::Experiment(with_causes(&error)))?;
    let plan = plan(&args, common, workload, &servers, program)?;
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

/// Rebuilds the report of each experiment that is there.
fn rebuild(dir: &Path, common: &Common) -> Result<ExitCode, CliError> {
    let trouble = |error: FilesError| CliError::Experiment(with_causes(&error));
    let found = files::find(dir).map_err(trouble)?;
    let mut failed = false;
    if found.locking {
        let results = files::read(dir).map_err(trouble)?;
        failed |= conclude(&found.root, &results, common)?.failed();
    }
    if found.engines {
        let results = mutext_lab::engines::read(dir).map_err(trouble)?;
        failed |= engines::conclude(&found.root, &results, common)?.failed();
    }
    Ok(if failed { Exit::CriterionFailed } else { Exit::Done }.into())
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
        "{} experiment, profile {}, {} trials in {:.0} s, seed {}{stopped}\n\n{}\n{}{}",
        metadata.experiment,
        metadata.workload.profile,
        results.trials.len(),
        metadata.duration_s,
        metadata.seed,
        drawn::<7>(&tables.treatments, common),
        tables.beside.map(|table| drawn::<5>(&table, common) + "\n").unwrap_or_default(),
        drawn::<4>(&tables.criteria, common),
    )
}

/// A table of the report, as every other table of this command.
pub(crate) fn drawn<const N: usize>(table: &Table, common: &Common) -> String {
    let cell = |cells: &[String], column: usize| cells.get(column).cloned().unwrap_or_default();
    let header: [String; N] = std::array::from_fn(|column| cell(&table.header, column));
    let rows = table.rows.iter().map(|row| std::array::from_fn(|column| cell(row, column)));
    common.out.table(header.each_ref().map(String::as_str), rows.collect())
}

/// What `--spawn` starts must not be named by another setting too.
fn check_spawned(args: &LockingArgs, common: &Common) -> Result<(), CliError> {
    let locks: Vec<&str> = args.spawn.iter().filter(|server| !server.holds_documents()).map(|s| s.name()).collect();
    if let [one, other, ..] = locks[..] {
        return Err(CliError::input(format!(
            "--spawn names {one} and {other}, both for locks; leave one of them out, or compare them with mutext experiment engines"
        )));
    }
    let named = |server: &Server| {
        if server.holds_documents() {
            Some((&common.store, "documents")).filter(|(given, _)| given.origin != Origin::Default)
        } else {
            common.locks.as_ref().map(|given| (given, "locks"))
        }
    };
    for server in &args.spawn {
        let Some((given, what)) = named(server) else { continue };
        return Err(CliError::input(format!(
            "--spawn {server} starts a server for {what}, but {} names {} for them; leave one of the two out",
            given.origin,
            shown(given)
        )));
    }
    Ok(())
}

/// The peer's program, if one is to be compared with, and whether what was named can hold its data.
fn program(args: &LockingArgs, common: &Common) -> Result<Option<Program>, CliError> {
    let Some(peer) = &args.compare else { return Ok(None) };
    let starts = |server| args.spawn.contains(&server);
    let documents = starts(Server::Postgres) || common.store.url.starts_with("postgres");
    let locks = starts(Server::Redis) || common.locks.as_ref().is_some_and(|given| given.url.starts_with("redis"));
    if !(documents && locks) {
        return Err(CliError::input(format!(
            "--compare {peer} needs PostgreSQL for documents and Redis for locks: add --spawn redis,postgres, or name both with --store and --locks"
        )));
    }
    // The source tree: this one, or that which this build comes from.
    let roots = [Path::new("."), Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))];
    Program::python(&roots).map(Some).map_err(|error| CliError::Experiment(with_causes(&error)))
}

fn plan(
    args: &LockingArgs,
    common: &Common,
    workload: Workload,
    servers: &Servers,
    program: Option<Program>,
) -> Result<Plan, CliError> {
    let trouble = |error: &dyn std::error::Error| CliError::Experiment(with_causes(error));
    let mut treatments = args.treatments.clone();
    treatments.sort_unstable();
    treatments.dedup();
    let seed = args.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let command = command(args, common, &treatments, seed);
    let store = match servers.store().map_err(|error| trouble(&error))? {
        Some(spawned) => Place::At(spawned),
        None if common.store.origin == Origin::Default => Place::Fresh,
        None => Place::At(common.store.address()?),
    };
    let locks = match (servers.locks().map_err(|error| trouble(&error))?, &common.locks) {
        (Some(spawned), _) => Place::At(spawned),
        (None, Some(given)) => Place::At(given.address()?),
        // A server that was started for documents alone leaves the locks to this machine.
        (None, None) if args.spawn.contains(&Server::Postgres) => Place::Fresh,
        (None, None) => store.clone(),
    };
    let peer: Option<Peer> = match (program, &store, &locks) {
        (Some(program), Place::At(store), Place::At(locks)) => {
            treatments.extend(Treatment::PEERS);
            Some(program.on(store.clone(), locks.clone()))
        }
        _ => None,
    };
    Ok(Plan {
        workload,
        trials: args.trials as usize,
        command,
        treatments,
        seed,
        store,
        locks,
        servers: servers.facts(),
        peer,
        scratch: PathBuf::from(".mutext"),
        agent_command: role("agent")?,
        commit: source_commit(),
    })
}

/// The command that starts this very program in one of an experiment's roles.
pub(crate) fn role(name: &str) -> Result<Vec<OsString>, CliError> {
    let executable = std::env::current_exe().map_err(|source| CliError::Io {
        what: "this program cannot find itself, to start agents".to_owned(),
        remedy: "call it by its full path",
        source,
    })?;
    Ok(vec![executable.into(), OsString::from("experiment"), OsString::from(name)])
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

/// The command that repeats the experiment, without any password.
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
    let spawn: Vec<&str> = args.spawn.iter().map(|server| server.name()).collect();
    add("--spawn", (!spawn.is_empty()).then(|| spawn.join(",")));
    add("--compare", args.compare.clone());
    let store = (common.store.origin != Origin::Default).then_some(&common.store);
    add("--store", store.map(shown));
    add("--locks", common.locks.as_ref().map(shown));
    command
}

/// A place as others may read it: in full where it is a directory, without any password where it is a server.
pub(crate) fn shown(given: &Given) -> String {
    match given.address() {
        Ok(_) if given.url.starts_with("embedded:") => given.identity(),
        Ok(address) => address.to_string(),
        Err(_) => "an address that cannot be read".to_owned(),
    }
}

/// The source's commit, where this build still stands beside its source.
pub(crate) fn source_commit() -> Option<String> {
    let mut git = std::process::Command::new("git");
    git.args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*"]);
    let output = git.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned()).filter(|commit| !commit.is_empty())
}

pub(crate) fn progress_bar(total: u64, common: &Common) -> ProgressBar {
    if common.out.json {
        return ProgressBar::hidden();
    }
    let template = "{bar:30} {pos}/{len}, {elapsed_precise} (yet {eta})  {msg}";
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
pub(crate) async fn interrupted() {
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

pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
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
