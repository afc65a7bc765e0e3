//! The command line: which commands there are. What each takes stands beside what it does.

use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::{Common, Global};
use crate::error::CliError;
use crate::exit::{self, Exit};
use crate::log::LogArgs;
use crate::metrics::{Exported, MetricsArgs};
use crate::output::{self, Output};
use crate::{
    claim, commits, doctor, documents, edit, edits, experiment, feed, lock, locks, log, past, sync, whole, write,
};

/// Shared context for many agents, with locks that hold
#[derive(Parser)]
#[command(name = "mutext", version, max_term_width = 100, after_help = exit::table())]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    metrics: MetricsArgs,
    /// Set by `mutext claim` for the process that keeps what was claimed
    #[arg(long, hide = true)]
    keep_claim: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one of it, and it is taken apart at once")]
enum Command {
    Get(documents::GetArgs),
    Put(write::PutArgs),
    Ls(documents::LsArgs),
    Rm(write::RmArgs),
    Edit(edit::EditArgs),
    Append(edits::AppendArgs),
    Prepend(edits::PrependArgs),
    Insert(edits::InsertArgs),
    Replace(edits::ReplaceArgs),
    Patch(edits::PatchArgs),
    MergePatch(edits::MergePatchArgs),
    Add(edits::AddArgs),
    AddToSet(edits::AddToSetArgs),
    Increment(edits::IncrementArgs),
    Commit(commits::CommitArgs),
    Claim(claim::ClaimArgs),
    History(past::HistoryArgs),
    Show(past::ShowArgs),
    Diff(past::DiffArgs),
    Blame(past::BlameArgs),
    Restore(past::RestoreArgs),
    Purge(past::PurgeArgs),
    Watch(feed::WatchArgs),
    Search(whole::SearchArgs),
    Export(whole::ExportArgs),
    Import(whole::ImportArgs),
    Tend(whole::TendArgs),
    Sync(sync::SyncArgs),
    Lock(lock::LockArgs),
    Locks(locks::LocksArgs),
    Revoke(locks::RevokeArgs),
    Doctor(doctor::DoctorArgs),
    Experiment(experiment::ExperimentArgs),
    Completions(CompletionsArgs),
}

/// Print shell completions
#[derive(Args)]
#[command(after_help = "Examples:\n  mutext completions bash > ~/.local/share/bash-completion/completions/mutext\n  \
    mutext completions fish > ~/.config/fish/completions/mutext.fish")]
struct CompletionsArgs {
    /// For which shell
    shell: Shell,
}

impl Cli {
    pub(crate) async fn run(self) -> Result<ExitCode, CliError> {
        if let Command::Completions(args) = &self.command {
            // Before any setting is read: a shell that starts up has no use for a complaint about one.
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Self::command(), "mutext", &mut script);
            output::to_stdout(&script)?;
            return Ok(Exit::Done.into());
        }
        log::start(&self.log, Output::new(self.global.json))?;
        let common = Common::resolve(&self.global)?;
        // An experiment's agents are many, and inherit the environment of the one that starts them.
        let is_agent = matches!(&self.command, Command::Experiment(args) if args.is_agent());
        // So is the process that keeps a claim one of two, and the other measures.
        let exported = if is_agent || self.keep_claim { Exported::default() } else { Exported::start(&self.metrics)? };
        let outcome = match self.command {
            Command::Claim(args) if self.keep_claim => claim::keep(args, &common).await,
            command => command.run(&common).await,
        };
        exported.finish(common.out);
        outcome
    }
}

impl Command {
    async fn run(self, common: &Common) -> Result<ExitCode, CliError> {
        match self {
            Self::Get(args) => documents::get(args, common).await,
            Self::Put(args) => write::put(args, common).await,
            Self::Ls(args) => documents::ls(args, common).await,
            Self::Rm(args) => write::rm(args, common).await,
            Self::Edit(args) => edit::run(args, common).await,
            Self::Append(args) => edits::append(args, common).await,
            Self::Prepend(args) => edits::prepend(args, common).await,
            Self::Insert(args) => edits::insert(args, common).await,
            Self::Replace(args) => edits::replace(args, common).await,
            Self::Patch(args) => edits::patch(args, common).await,
            Self::MergePatch(args) => edits::merge_patch(args, common).await,
            Self::Add(args) => edits::add(args, common).await,
            Self::AddToSet(args) => edits::add_to_set(args, common).await,
            Self::Increment(args) => edits::increment(args, common).await,
            Self::Commit(args) => commits::commit(args, common).await,
            Self::Claim(args) => claim::run(args, common).await,
            Self::History(args) => past::history(args, common).await,
            Self::Show(args) => past::show(args, common).await,
            Self::Diff(args) => past::diff(args, common).await,
            Self::Blame(args) => past::blame(args, common).await,
            Self::Restore(args) => past::restore(args, common).await,
            Self::Purge(args) => past::purge(args, common).await,
            Self::Watch(args) => feed::watch(args, common).await,
            Self::Search(args) => whole::search(args, common).await,
            Self::Export(args) => whole::export(args, common).await,
            Self::Import(args) => whole::import(args, common).await,
            Self::Tend(args) => whole::tend(args, common).await,
            Self::Sync(args) => sync::run(args, common).await,
            Self::Lock(args) => lock::run(args, common).await,
            Self::Locks(args) => locks::locks(args, common).await,
            Self::Revoke(args) => locks::revoke(args, common).await,
            Self::Doctor(args) => doctor::run(args, common).await,
            Self::Experiment(args) => experiment::run(args, common).await,
            Self::Completions(_) => Ok(Exit::Done.into()),
        }
    }
}

/// The command line as it was given; a mistake in it is told as every other error, in JSON where that is asked for.
pub(crate) fn parse() -> Result<Cli, ExitCode> {
    let error = match Cli::try_parse() {
        Ok(cli) => return Ok(cli),
        Err(error) => error,
    };
    let ours = |argument: &std::ffi::OsString| argument != "--";
    let json = error.use_stderr() && std::env::args_os().take_while(ours).any(|argument| argument == "--json");
    if json {
        let text = error.render().to_string();
        let text = text.trim_start_matches("error: ");
        // What follows tells people where to read on.
        let ends = ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|tail| text.find(tail));
        let message = &text[..ends.min().unwrap_or(text.len())];
        Output::new(true).error(&CliError::input(message.trim()));
    } else {
        // Where not even help can be printed, there is nobody to tell.
        let _ = error.print();
    }
    Err(if error.use_stderr() { Exit::BadInput } else { Exit::Done }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_whole() {
        Cli::command().debug_assert();
    }

    /// Help is broken at that width, so that a longer line of ours ends in the middle of a sentence.
    #[test]
    fn no_line_after_the_help_is_broken() {
        const WIDTH: usize = 100;
        fn look(command: &clap::Command, broken: &mut Vec<String>) {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let long = after.lines().filter(|line| line.chars().count() > WIDTH);
            broken.extend(long.map(|line| format!("{}: {line}", command.get_name())));
            command.get_subcommands().for_each(|command| look(command, broken));
        }
        let mut broken = Vec::new();
        look(&Cli::command(), &mut broken);
        assert!(broken.is_empty(), "{broken:#?}");
    }

    #[test]
    fn every_command_shows_examples() {
        for command in Cli::command().get_subcommands().filter(|command| command.get_name() != "experiment") {
            let help = command.clone().render_help().to_string();
            assert!(help.contains("Examples:"), "{}", command.get_name());
        }
    }
}
