//! `mutext experiment engines`: the published experiment on every lock engine at hand, side by side.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use mutext_lab::engines::{self, Comparison, Entrant, Plan, Results, Seen};
use mutext_lab::experiment::Place;
use mutext_lab::results::Treatment;
use mutext_lab::servers::{Server, Servers, ServersError};
use mutext_lab::workload;

use crate::config::{Common, Origin};
use crate::config_file::parse_duration;
use crate::error::CliError;
use crate::exit::Exit;
use crate::experiment::{INTERRUPTED, drawn, interrupted, progress_bar, role, shown, source_commit, with_causes};

pub(crate) const EXAMPLES: &str = "\
Examples:
  mutext experiment engines
      every engine whose servers are installed here; those that are not are named
  mutext experiment engines --spawn all --trials 100
      every engine there is; an error where a server is not installed
  mutext experiment engines --spawn embedded,redis,etcd --json
  mutext --store postgres://db.example/board --locks etcd://etcd.example experiment engines \\
      --spawn redis
      engines that are there beside one that is started for it

What it writes, below --out:
  data/experiments/engines/      CSV, JSON, metadata.yaml, REPORT.md, report.html
  diagrams/engines/              the chart as SVG and PNG

Exit status: 0 when no engine breaks a promise, 1 when one does; 130 after Ctrl-C, with what was
measured so far.";

/// The name of the engines that need no server.
const EMBEDDED: &str = "embedded";

#[derive(Args)]
pub(crate) struct EnginesArgs {
    /// Engines whose servers are started for it and ended after it: all, or some of them, as in
    /// embedded,redis,etcd [default: all that are installed]
    #[arg(long, value_delimiter = ',', value_name = "LIST", value_parser = wanted)]
    spawn: Vec<Wanted>,
    /// Trials of each treatment on each engine
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    trials: u32,
    /// How often each engine's lock is probed, alone and contended for
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    probes: u32,
    /// For how long eight processes contend for one lock in each probe
    #[arg(long, value_name = "D", default_value = "2s", value_parser = parse_duration)]
    contend: Duration,
    /// What agents do: published, bare, single or hot
    #[arg(long, default_value = "published", value_parser = workload::PROFILES)]
    profile: String,
    /// Repeats the same workload [default: a fresh one, printed and kept in metadata.yaml]
    #[arg(long)]
    seed: Option<u64>,
    /// The root of what is written
    #[arg(long, default_value = "assets", value_name = "DIR")]
    out: PathBuf,
}

/// What `--spawn` may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    All,
    Embedded,
    One(Server),
}

fn wanted(name: &str) -> Result<Wanted, String> {
    match name {
        "all" => Ok(Wanted::All),
        EMBEDDED => Ok(Wanted::Embedded),
        other => other.parse().map(Wanted::One).map_err(|_| {
            let servers = Server::ALL.map(Server::name).join(", ");
            format!("there is no such engine to start; there are {EMBEDDED}, {servers}, and all for all of them")
        }),
    }
}

/// What takes part: the servers that were started live as long as this.
struct Field {
    entrants: Vec<Entrant>,
    left_out: Vec<String>,
    _servers: Vec<Servers>,
}

pub(crate) async fn run(args: EnginesArgs, common: &Common) -> Result<ExitCode, CliError> {
    let field = field(&args, common)?;
    for why in &field.left_out {
        common.out.warn("engine_left_out", why);
    }
    let plan = plan(&args, common, &field)?;
    let bar = progress_bar(plan.steps() as u64, common);
    let mut corrupt = 0;
    let watch = |seen: Seen<'_>| {
        if let Seen::Trial(_, trial) = &seen
            && trial.treatment != Treatment::Baseline
        {
            corrupt += usize::from(trial.corrupt);
        }
        let (Seen::Trial(engine, _) | Seen::Probe(engine, _)) = seen;
        bar.set_message(format!("{engine}; corrupt under a lease: {corrupt}"));
        bar.inc(1);
    };
    let outcome = engines::run(&plan, watch, interrupted()).await;
    bar.finish_and_clear();
    let results = outcome.map_err(|error| CliError::Experiment(with_causes(&error)))?;
    let comparison = conclude(&args.out, &results, common)?;
    Ok(match (results.metadata.interrupted, comparison.failed()) {
        (true, _) => INTERRUPTED.into(),
        (false, false) => Exit::Done.into(),
        (false, true) => Exit::CriterionFailed.into(),
    })
}

/// Writes every file and shows the table.
pub(crate) fn conclude(out: &Path, results: &Results, common: &Common) -> Result<Comparison, CliError> {
    let comparison = Comparison::of(results);
    let written =
        engines::write_all(out, results, &comparison).map_err(|error| CliError::Experiment(with_causes(&error)))?;
    let figures = serde_json::json!({ "metadata": results.metadata, "engines": comparison.engines });
    common.out.answer(&figures, || {
        format!(
            "engines, profile {}, {} trials of each treatment, {:.0} s, seed {}{}\n\n{}",
            results.metadata.workload.profile,
            results.metadata.trials,
            results.metadata.duration_s,
            results.metadata.seed,
            if results.metadata.interrupted { ", stopped before its end" } else { "" },
            drawn::<12>(&engines::table(&comparison), common),
        )
    })?;
    if let Some(report) = written.iter().find(|path| path.ends_with("report.html")) {
        common.out.remark(&format!("{} files written; read {}", written.len(), report.display()));
    }
    Ok(comparison)
}

/// Starts what is wanted. Without a wish whatever is installed takes part, and what is not is left out and named.
fn field(args: &EnginesArgs, common: &Common) -> Result<Field, CliError> {
    let trouble = |error: &ServersError| CliError::Experiment(with_causes(error));
    let (mut entrants, mut left_out, mut servers) = (Vec::new(), Vec::new(), Vec::new());
    let all = args.spawn.is_empty() || args.spawn.contains(&Wanted::All);
    let wants = |one: Wanted| all || args.spawn.contains(&one);
    if wants(Wanted::Embedded) {
        entrants.push(Entrant {
            name: EMBEDDED.to_owned(),
            store: Place::Fresh,
            locks: Place::Fresh,
            facts: Vec::new(),
        });
    }
    let mut start = |server: Server| -> Result<Option<Servers>, CliError> {
        if let Err(error) = server.known() {
            if !args.spawn.is_empty() {
                return Err(error.into());
            }
            left_out.push(format!("{server}: {error}"));
            return Ok(None);
        }
        match Servers::start(&[server]) {
            Ok(started) => Ok(Some(started)),
            Err(error) if error.is_missing() && args.spawn.is_empty() => {
                left_out.push(format!("{server}: {error}"));
                Ok(None)
            }
            Err(error) => Err(trouble(&error)),
        }
    };
    // All engines' documents lie in one store, so that only their locks differ.
    let given = (common.store.origin != Origin::Default).then(|| common.store.address()).transpose()?;
    let needs_documents = Server::ALL.into_iter().any(|server| wants(Wanted::One(server)));
    let (store, documents) = match given {
        Some(address) => (Some(Place::At(address)), None),
        None if needs_documents => {
            let started = start(Server::Postgres)?;
            let address = started.as_ref().map(Servers::store).transpose().map_err(|error| trouble(&error))?.flatten();
            (address.map(Place::At), started)
        }
        None => (None, None),
    };
    let documents_facts = documents.as_ref().map(Servers::facts).unwrap_or_default();
    let store = store.unwrap_or(Place::Fresh);
    for server in Server::ALL.into_iter().filter(|server| wants(Wanted::One(*server))) {
        let mut entrant = Entrant {
            name: server.name().to_owned(),
            store: store.clone(),
            locks: store.clone(),
            facts: documents_facts.clone(),
        };
        if server.holds_documents() {
            if documents.is_none() {
                continue;
            }
        } else {
            let Some(started) = start(server)? else { continue };
            let Some(address) = started.locks().map_err(|error| trouble(&error))? else { continue };
            entrant.locks = Place::At(address);
            entrant.facts.extend(started.facts());
            servers.push(started);
        }
        entrants.push(entrant);
    }
    servers.extend(documents);
    if let Some(locks) = &common.locks {
        let name = shown(locks);
        entrants.push(Entrant { name, store, locks: Place::At(locks.address()?), facts: Vec::new() });
    }
    Ok(Field { entrants, left_out, _servers: servers })
}

fn plan(args: &EnginesArgs, common: &Common, field: &Field) -> Result<Plan, CliError> {
    let Some(mut workload) = workload::profile(&args.profile) else {
        return Err(CliError::input(format!("--profile {}: there is no such profile", args.profile)));
    };
    workload.ttl_ms = u64::try_from(common.ttl.get().as_millis()).unwrap_or(u64::MAX);
    workload.wait_ms = u64::try_from(common.wait.get().as_millis()).unwrap_or(u64::MAX);
    let seed = args.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let spawned: Vec<&str> = args
        .spawn
        .iter()
        .map(|wanted| match wanted {
            Wanted::All => "all",
            Wanted::Embedded => EMBEDDED,
            Wanted::One(server) => server.name(),
        })
        .collect();
    let mut command = format!(
        "mutext experiment engines --trials {} --probes {} --contend {}ms --profile {} --seed {seed}",
        args.trials,
        args.probes,
        args.contend.as_millis(),
        args.profile
    );
    if !spawned.is_empty() {
        command.extend([" --spawn ", &spawned.join(",")]);
    }
    if common.store.origin != Origin::Default {
        command.extend([" --store ", &shown(&common.store)]);
    }
    if let Some(locks) = &common.locks {
        command.extend([" --locks ", &shown(locks)]);
    }
    Ok(Plan {
        entrants: field.entrants.clone(),
        trials: args.trials as usize,
        probes: args.probes as usize,
        contend: args.contend,
        workload,
        seed,
        scratch: PathBuf::from(".mutext"),
        agent_command: role("agent")?,
        contender_command: role("contender")?,
        command,
        commit: source_commit(),
        left_out: field.left_out.clone(),
    })
}
