//! `claim`: one element of a board, for the time of a command, or until it is completed by its handle.
//!
//! A claim's lease stands as long as somebody renews it. Where no command is given, that is a process that this one
//! leaves behind: it ends once the element is completed or given back, and gives it back itself when its time is over.

use std::ffi::OsString;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use clap::Args;
use mutext::{
    ClaimAnswer, ClaimHandle, Claimed, Claiming, Condition, Context, DocumentPath, Edit, Element, PathPrefix, Resource,
    Revision, Ttl,
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep_until};

use crate::config::Common;

use crate::error::CliError;
use crate::exit::Exit;
use crate::inherited;
use crate::lock::{OnLoss, Watch, confirmed_loss, ended, passed_on, spawn, ttl};
use crate::output::{span, to_stdout};
use crate::said::Why;
use crate::signals::{self, Signal, Signals};

/// What the command of a claim finds in its environment: the claim's handle, and what the element says.
const HANDLE: &str = "MUTEXT_CLAIM";
const ELEMENT: &str = "MUTEXT_ELEMENT";
/// How long an element stays with whoever claimed it without a command.
const KEPT: Duration = Duration::from_secs(10 * 60);

/// Take one element of a board, for you alone: of a JSON list, or of Markdown's list items
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mutext claim board.json /tasks --where '{\"state\": \"open\"}' -- ./do-task\n  \
    mutext claim todo.md 'Phase 2' -- sh -c 'echo \"$MUTEXT_ELEMENT\"'\n  \
    mutext claim board.json /tasks --ttl 30m --json | jq -r .handle\n  \
    mutext claim --complete HANDLE --done '{\"state\": \"done\"}'\n  \
    mutext claim --give-back HANDLE\n\n\
    Of any number who claim, exactly one has the element. With a command, it is yours while that runs:\n\
    completed when it ends with status 0, else given back. The command finds the element in\n\
    MUTEXT_ELEMENT, and the claim's handle in MUTEXT_CLAIM.\n\n\
    Without a command you get a handle, and have the element for --ttl (10 minutes): complete it or give\n\
    it back by the handle. A process in the background keeps it for you until then.\n\n\
    Whoever dies loses the element: it can be claimed again soon after. Where nothing is free, the exit\n\
    status is 4, and the answer says who has what, and when to ask again.")]
pub(crate) struct ClaimArgs {
    /// The board
    #[arg(required_unless_present_any = ["complete", "give_back"])]
    path: Option<DocumentPath>,
    /// The list: a JSON Pointer, or a heading of Markdown; all of the document where there is none
    #[arg(default_value = "", hide_default_value = true, value_name = "POINTER")]
    at: String,
    /// Only an element like this: an object of members and their values, or a text that it contains
    #[arg(long = "where", value_name = "JSON", value_parser = condition)]
    condition: Option<Condition>,
    /// Not one that was claimed so often already
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    attempts_max: Option<u32>,
    /// Change the element in the same step, as a JSON Merge Patch
    #[arg(long, value_name = "JSON", value_parser = merge_patch)]
    set: Option<Edit>,
    /// Change the element when it is completed, as a JSON Merge Patch
    #[arg(long, value_name = "JSON", value_parser = merge_patch)]
    done: Option<Edit>,
    /// How long the element stays taken, should the command's lock die; without a command, how long you have it
    /// [default: 10s; 10m]
    #[arg(long, value_name = "DURATION", value_parser = ttl)]
    ttl: Option<Ttl>,
    /// This claim is completed
    #[arg(long, value_name = "HANDLE", conflicts_with_all = ["path", "give_back", "command"])]
    complete: Option<ClaimHandle>,
    /// This claim's element goes back to the board
    #[arg(long, value_name = "HANDLE", conflicts_with_all = ["path", "command", "done"])]
    give_back: Option<ClaimHandle>,
    #[command(flatten)]
    why: Why,
    /// The command and its arguments, after --
    #[arg(last = true)]
    command: Vec<OsString>,
}

fn condition(text: &str) -> Result<Condition, String> {
    if !text.trim_start().starts_with('{') {
        return Ok(Condition::from(text));
    }
    let value: Value = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
    Condition::try_from(value).map_err(|error| error.to_string())
}

fn merge_patch(text: &str) -> Result<Edit, String> {
    serde_json::from_str(text).map(Edit::MergePatch).map_err(|error| format!("it is not JSON: {error}"))
}

pub(crate) async fn run(args: ClaimArgs, common: &Common) -> Result<ExitCode, CliError> {
    match (&args.complete, &args.give_back) {
        (Some(handle), _) => settle(handle, true, args.done.as_ref(), common).await,
        (None, Some(handle)) => settle(handle, false, None, common).await,
        (None, None) if args.command.is_empty() => leave_behind(common).await,
        (None, None) => for_a_command(&args, common).await,
    }
}

/// The claim as it is asked for.
fn claiming<'a>(args: &ClaimArgs, context: &'a Context, lease: Ttl) -> Result<Claiming<'a>, CliError> {
    let path = args.path.clone().ok_or_else(|| CliError::input("no board is named"))?;
    let mut claiming = context.claim(path.as_str(), &*args.at).ttl(lease);
    if let Some(condition) = &args.condition {
        claiming = claiming.matching(condition.clone());
    }
    if let Some(attempts) = args.attempts_max {
        claiming = claiming.attempts_max(attempts);
    }
    if let Some(message) = &args.why.message {
        claiming = claiming.reason(message);
    }
    if let Some(key) = &args.why.key {
        claiming = claiming.key(key.clone());
    }
    Ok(claiming.with(args.set.clone()))
}

// --- For a command -------------------------------------------------------------------------------------------------

async fn for_a_command(args: &ClaimArgs, common: &Common) -> Result<ExitCode, CliError> {
    let mut signals = Signals::listen()?;
    let common = &Common { keeps: inherited::Inherited::kept(common)?, ..common.clone() };
    let (mutext, context) = tokio::select! {
        opened = common.open() => opened?,
        signal = signals.next() => return Err(signals::interrupted(signal)),
    };
    let outcome = work(args, common, &context, &mut signals).await;
    mutext.finish().await;
    outcome
}

async fn work(
    args: &ClaimArgs,
    common: &Common,
    context: &Context,
    signals: &mut Signals,
) -> Result<ExitCode, CliError> {
    let answer = tokio::select! {
        answer = claiming(args, context, args.ttl.unwrap_or(common.ttl))? => answer?,
        signal = signals.next() => return Err(signals::interrupted(signal)),
    };
    let mut claimed = match answer {
        ClaimAnswer::Claimed(claimed) => claimed,
        ClaimAnswer::NoneFree(none) => return Err(CliError::NoneFree(Box::new(none))),
        ClaimAnswer::Settled(element) => {
            common.out.warn("settled", &format!("under this key {} was completed before", element.at));
            return Ok(Exit::Done.into());
        }
    };
    let lease = claimed.guard().lease();
    let mut environment = inherited::environment(lease, common);
    environment.push((HANDLE, claimed.handle().to_string()));
    environment.push((ELEMENT, claimed.content().as_str().to_owned()));
    let resources: Vec<Resource> = lease.claims.iter().map(|claim| claim.resource.clone()).collect();
    let mut watch = Watch::new(OnLoss::Kill, common, &resources);
    let status = match spawn(&args.command, environment) {
        Ok(mut child) => watch.until_it_ends(&mut child, Some(claimed.guard()), signals).await?,
        Err(error) => {
            claimed.hand_back(&[]).await?;
            return Err(error);
        }
    };
    if let Some(loss) = watch.loss {
        return Err(CliError::LostWhileRunning { resources, loss: Some(loss), ended: ended(status) });
    }
    // It may have completed it itself, by the handle.
    if status.success() {
        claimed.complete(args.done.as_slice()).await?;
    } else if context.is_claimed(&claimed.handle()).await? {
        claimed.hand_back(&[]).await?;
    }
    Ok(passed_on(status))
}

// --- By its handle -------------------------------------------------------------------------------------------------

/// Starts the process that claims and keeps, and hands its answer on.
async fn leave_behind(common: &Common) -> Result<ExitCode, CliError> {
    let mut signals = Signals::listen()?;
    let trouble = |source| CliError::Io {
        what: "the process that keeps the claim cannot be started".to_owned(),
        remedy: "allow more processes, or claim around a command",
        source,
    };
    let program = std::env::current_exe().map_err(trouble)?;
    let mut command = Command::new(program);
    command.arg("--keep-claim").args(std::env::args_os().skip(1));
    // A group of its own: Ctrl-C at the terminal is not meant for it.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(trouble)?;
    let pid = child.id();
    tokio::select! {
        answer = answer(&mut child) => hand_on(answer.map_err(trouble)?, &mut child, common).await,
        signal = signals.next() => {
            signals::send(pid, Signal::TERM);
            Err(signals::interrupted(signal))
        }
    }
}

/// The first line that the process says; nothing, where it ends without one.
async fn answer(child: &mut Child) -> std::io::Result<Option<Value>> {
    let Some(stdout) = child.stdout.take() else { return Ok(None) };
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).await?;
    Ok(serde_json::from_str(&line).ok())
}

async fn hand_on(answer: Option<Value>, child: &mut Child, common: &Common) -> Result<ExitCode, CliError> {
    let Some(answer) = answer else {
        // It has said why in our own words, and with our status.
        let mut said = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            let _ = stderr.read_to_string(&mut said).await;
        }
        let status = child.wait().await.map_err(|source| CliError::Io {
            what: "the process that keeps the claim cannot be waited for".to_owned(),
            remedy: "see `mutext locks` for what is claimed",
            source,
        })?;
        return Err(CliError::Told { said, status: passed_on_code(status) });
    };
    let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    common.out.answer(&answer, || {
        let (at, path, content, handle) = (text("at"), text("path"), text("content"), text("handle"));
        if text("status") == "settled" {
            return format!("{at} of {path} was completed before, under this key: {content}\n");
        }
        let kept = span(Duration::from_millis(answer["kept_ms"].as_u64().unwrap_or_default()));
        format!(
            "{at} of {path} is yours for {kept}: {content}\nthen: mutext claim --complete '{handle}'\nor:   mutext claim \
             --give-back '{handle}'\n"
        )
    })?;
    Ok(Exit::Done.into())
}

fn passed_on_code(status: std::process::ExitStatus) -> u8 {
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(Exit::Trouble.code())
}

/// Claims, says so in one line, and keeps the claim until it is settled or its time is over.
pub(crate) async fn keep(args: ClaimArgs, common: &Common) -> Result<ExitCode, CliError> {
    let mut signals = Signals::listen()?;
    let (mutext, context) = common.open().await?;
    let kept = args.ttl.map_or(KEPT, Ttl::get);
    let outcome = match claiming(&args, &context, common.ttl)?.await {
        Ok(ClaimAnswer::Claimed(mut claimed)) => {
            let until = Instant::now() + kept;
            let mut answer = as_json(claimed.path(), claimed.element(), "claimed", claimed.revision());
            answer["handle"] = json!(claimed.handle().to_string());
            answer["attempt"] = json!(claimed.attempt());
            answer["kept_ms"] = json!(crate::error::milliseconds(kept));
            match to_stdout(format!("{answer}\n").as_bytes()) {
                Ok(()) => {
                    keep_until(&mut claimed, &context, until, &mut signals).await;
                    Ok(Exit::Done.into())
                }
                Err(error) => Err(error),
            }
        }
        Ok(ClaimAnswer::Settled(element)) => {
            let path = args.path.clone().ok_or_else(|| CliError::input("no board is named"))?;
            let current = context.get(path.clone()).await?.map_or(Revision(0), |document| document.revision);
            let answer = as_json(&path, &element, "settled", current);
            to_stdout(format!("{answer}\n").as_bytes()).map(|()| Exit::Done.into())
        }
        Ok(ClaimAnswer::NoneFree(none)) => Err(CliError::NoneFree(Box::new(none))),
        Err(error) => Err(error.into()),
    };
    mutext.finish().await;
    outcome
}

async fn keep_until(claimed: &mut Claimed, context: &Context, until: Instant, signals: &mut Signals) {
    let handle = claimed.handle();
    let is_settled = async {
        let Ok(prefix) = PathPrefix::new(handle.path().as_str()) else { return std::future::pending().await };
        let Ok(mut watcher) = context.watch(prefix).await else { return std::future::pending().await };
        loop {
            // What happened before the watch began is looked at, too.
            if matches!(context.is_claimed(&handle).await, Ok(false)) {
                return;
            }
            if watcher.next().await.is_err() {
                // Somebody may still complete it: the time runs out, and that is all.
                return std::future::pending().await;
            }
        }
    };
    tokio::select! {
        () = is_settled => return,
        _ = confirmed_loss(claimed.guard()) => return,
        () = sleep_until(until) => {}
        () = ends(signals) => {}
    }
    // Where that cannot be written, the lease that goes back says it.
    let _ = claimed.hand_back(&[]).await;
}

/// Ready once a signal asks for the end; a terminal that closes does not.
async fn ends(signals: &mut Signals) {
    while signals.next().await == Signal::HUP {}
}

fn as_json(path: &DocumentPath, element: &Element, status: &str, revision: Revision) -> Value {
    let mut answer = json!({
        "path": path,
        "status": status,
        "at": element.at,
        "content": element.content.as_str(),
        "revision": revision,
    });
    if let Ok(value) = element.content.parse::<Value>() {
        answer["value"] = value;
    }
    answer
}

async fn settle(
    handle: &ClaimHandle,
    is_complete: bool,
    done: Option<&Edit>,
    common: &Common,
) -> Result<ExitCode, CliError> {
    let edits = done.map(std::slice::from_ref).unwrap_or_default();
    let settled = common.with_context(async |context| {
        Ok(if is_complete {
            context.complete_claim(handle, edits).await?
        } else {
            context.hand_back_claim(handle, &[]).await?
        })
    });
    let (element, revision) = settled.await?;
    let status = if is_complete { "completed" } else { "given_back" };
    let answer = as_json(handle.path(), &element, status, revision);
    common.out.answer(&answer, || {
        let what = if is_complete { "is completed" } else { "is given back" };
        format!("{} of {} {what}, at revision {revision}\n", element.at, handle.path())
    })?;
    Ok(Exit::Done.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_an_object_or_a_text() {
        assert_eq!(condition("urgent").unwrap(), Condition::from("urgent"));
        assert!(matches!(condition("{\"state\": \"open\"}").unwrap(), Condition::Members(_)));
        assert!(condition("{\"state\": ").is_err());
    }

    #[test]
    fn kept_is_a_time_to_live() {
        assert!(Ttl::new(KEPT).is_ok() && crate::config_file::parse_duration("10m") == Ok(KEPT));
    }
}
