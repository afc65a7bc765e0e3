//! `lock`: runs a command while holding a lease.

use std::convert::Infallible;
use std::ffi::OsString;
use std::pin::pin;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use clap::{Args, ValueEnum};
use mutext::{Context, Error, Holding, LeaseId, LockGuard, Loss, Release, Resource, Ttl, Wait};
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, sleep_until};

use crate::config::Common;
use crate::config_file::parse_duration;
use crate::error::{CliError, holding, list};
use crate::inherited::{self, Inherited};
use crate::signals::{self, Signal, Signals};

/// How long a command that is told to stop may take before it is killed.
const STOPPING: Duration = Duration::from_secs(5);
/// How long a lease that has lapsed may take to be renewed: a machine that slept finds out at once whether somebody
/// has taken the lock meanwhile.
const REVIVAL: Duration = Duration::from_millis(250);
/// How often it is looked what is in the way, and how long nothing is said at first.
const LOOK: Duration = Duration::from_secs(1);

/// When a signal finds no command yet to pass it on to.
const BEFORE: &str = "before the lock was granted; nothing is held";

/// Run a command while holding a lease
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mutext lock plan.md -- ./rewrite-plan\n  \
    mutext lock tasks/ notes.md --wait 10s --reason 're-ordering' -- make reorder\n  \
    mutext lock plan.md --no-wait -- true || echo 'somebody has it'\n  \
    mutext lock plan.md -- sh -c 'mutext get plan.md | sed s/a/b/ | mutext put plan.md -'\n\n\
    Several resources are granted together, or none. A resource covers all below it; / is everything.\n\
    The lease is renewed while the command runs and given back when it ends. `mutext put` inside writes\n\
    under the lease and its fence: once the lease is lost, its writes are refused. `mutext lock` inside\n\
    runs its command under the same lease where that covers what it asks for; else it takes another one,\n\
    and a circle of commands that wait for each other is refused at once.\n\n\
    The command finds MUTEXT_LEASE (what mutext reads), MUTEXT_LOCK (the resources, one a line),\n\
    MUTEXT_FENCE (the fencing token) and where the documents lie in its environment.\n\n\
    SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 are passed on to it; SIGINT and SIGQUIT too, unless they are\n\
    Ctrl-C and Ctrl-\\ of a terminal, which sends them to both. Its own children are its own business.")]
pub(crate) struct LockArgs {
    /// What to lock: a document, or a path with all below it
    #[arg(required = true)]
    resources: Vec<Resource>,
    /// How long to queue at most [env: MUTEXT_WAIT] [default: 500ms]
    #[arg(long, value_name = "DURATION", value_parser = wait)]
    wait: Option<Wait>,
    /// One try, without queueing
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
    /// How long the lease lasts, should this process die [env: MUTEXT_TTL] [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = ttl)]
    ttl: Option<Ttl>,
    /// What for: shown to those who wait
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// For reading: others may read too
    #[arg(long)]
    shared: bool,
    /// What to do with the command when the lease is lost
    #[arg(long, value_name = "WHAT", default_value = "kill")]
    on_loss: OnLoss,
    /// The command and its arguments, after --
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnLoss {
    /// SIGTERM, after five seconds SIGKILL; exit status 5
    Kill,
    /// Say so, and let it go on
    Warn,
}

fn wait(text: &str) -> Result<Wait, String> {
    let duration = parse_duration(text)?;
    let flag = if duration < Wait::MIN { " (--no-wait)" } else { "" };
    Wait::new(duration).map_err(|error| format!("{error}{flag}"))
}

/// How long a lease lasts without renewal.
pub(crate) fn ttl(text: &str) -> Result<Ttl, String> {
    Ttl::new(parse_duration(text)?).map_err(|error| error.to_string())
}

pub(crate) async fn run(args: LockArgs, common: &Common) -> Result<ExitCode, CliError> {
    let mut signals = Signals::listen()?;
    let common = &Common { keeps: Inherited::kept(common)?, ..common.clone() };
    let (mutext, context) = tokio::select! {
        opened = common.open() => opened?,
        signal = signals.next() => return Err(signals::interrupted_when(signal, BEFORE)),
    };
    let outcome = hold(&args, common, &context, &mut signals).await;
    mutext.finish().await;
    outcome
}

/// From asking for the lock to giving it back, whatever happens in between.
async fn hold(
    args: &LockArgs,
    common: &Common,
    context: &Context,
    signals: &mut Signals,
) -> Result<ExitCode, CliError> {
    if let Some(fence) = Inherited::covering_all(&args.resources, common)? {
        // The surrounding lock covers it: its holder renews it, and ends this command where it is lost.
        inherited::still_stands(&fence, context).await?;
        let mut watch = Watch::new(args.on_loss, common, &args.resources);
        let status = watch.until_it_ends(&mut spawn(&args.command, Vec::new())?, None, signals).await?;
        return Ok(passed_on(status));
    }
    let guard = tokio::select! {
        granted = acquire(args, common, context) => granted?,
        signal = signals.next() => return Err(signals::interrupted_when(signal, BEFORE)),
    };
    let mut child = spawn(&args.command, inherited::environment(guard.lease(), common))?;
    let resources: Vec<Resource> = guard.lease().claims.iter().map(|claim| claim.resource.clone()).collect();
    let mut watch = Watch::new(args.on_loss, common, &resources);
    let status = watch.until_it_ends(&mut child, Some(&guard), signals).await?;
    let mut lost = watch.loss.map(Some);
    match guard.release().await {
        // It was taken from us, and the news is still on its way.
        Ok(Release::NotHeld) => lost = lost.or(Some(None)),
        Ok(Release::Released | Release::Kept) => {}
        // Giving it back is tried again behind this command, which says so where it cannot be.
        Err(error) => tracing::debug!(%error, "the lease could not be given back at once"),
    }
    match lost {
        Some(loss) if args.on_loss == OnLoss::Kill => {
            Err(CliError::LostWhileRunning { resources, loss, ended: ended(status) })
        }
        Some(None) => {
            let text = format!("the lease on {} was lost before the command ended", list(&resources));
            common.out.warn("lease_lost", &text);
            Ok(passed_on(status))
        }
        _ => Ok(passed_on(status)),
    }
}

/// Starts the command that runs under a lease.
pub(crate) fn spawn(command: &[OsString], environment: Vec<(&'static str, String)>) -> Result<Child, CliError> {
    let Some((program, arguments)) = command.split_first() else { return Err(CliError::input("no command")) };
    let mut command = Command::new(program);
    command.args(arguments).envs(environment).env_remove(crate::metrics::VARIABLE);
    command.spawn().map_err(|source| {
        let program = program.to_string_lossy().into_owned();
        CliError::Command { program, source }
    })
}

async fn acquire(args: &LockArgs, common: &Common, context: &Context) -> Result<LockGuard, CliError> {
    let [first, others @ ..] = args.resources.as_slice() else { return Err(CliError::input("no resource")) };
    let mut lock = context.lock(first).ttl(args.ttl.unwrap_or(common.ttl)).wait(args.wait.unwrap_or(common.wait));
    for resource in others {
        lock = lock.and(resource.as_str());
    }
    if args.shared {
        lock = lock.shared();
    }
    if args.no_wait {
        lock = lock.without_waiting();
    }
    if let Some(reason) = &args.reason {
        lock = lock.reason(reason);
    }
    let id = lock.id();
    let granted = tokio::select! {
        granted = lock.acquire() => granted,
        never = tell_of_waiting(id, common, context) => match never {},
    };
    granted.map_err(|error| {
        let is_own = |lease: &Holding| common.keeps.contains(&lease.lease);
        let own = match &error {
            Error::Timeout { blocked, .. } => blocked.holdings.iter().any(is_own),
            // Whoever waits for itself.
            Error::Deadlock { deadlock, .. } => deadlock.cycle.len() == 1,
            _ => false,
        };
        if own { CliError::OwnLease { source: Box::new(error) } } else { error.into() }
    })
}

/// Says what is in the way, once it takes a while, and again whenever that changes.
async fn tell_of_waiting(id: LeaseId, common: &Common, context: &Context) -> Infallible {
    let mut told = None;
    loop {
        sleep(LOOK).await;
        // A look that fails is no news: the request itself says what is wrong.
        let Ok(Some(blocked)) = context.position(id).await else { continue };
        let leases: Vec<LeaseId> = blocked.holdings.iter().map(|lease| lease.lease).collect();
        let news = Some((leases, blocked.ahead));
        if told != news {
            let data = json!({
                "holders": blocked.holdings.iter().map(holding).collect::<Vec<_>>(),
                "ahead": blocked.ahead,
            });
            common.out.waiting(&blocked.to_string(), &data);
            told = news;
        }
    }
}

/// Watches over a command and its lease.
pub(crate) struct Watch<'a> {
    on_loss: OnLoss,
    common: &'a Common,
    resources: &'a [Resource],
    /// Why the lease was lost, where it was.
    pub(crate) loss: Option<Loss>,
    kill_at: Option<Instant>,
}

impl<'a> Watch<'a> {
    pub(crate) const fn new(on_loss: OnLoss, common: &'a Common, resources: &'a [Resource]) -> Self {
        Self { on_loss, common, resources, loss: None, kill_at: None }
    }

    /// Waits for the command's end, passes signals on to it, and stops it where the lease is lost.
    pub(crate) async fn until_it_ends(
        &mut self,
        child: &mut Child,
        guard: Option<&LockGuard>,
        signals: &mut Signals,
    ) -> Result<ExitStatus, CliError> {
        let pid = child.id();
        let mut lost = pin!(async {
            match guard {
                Some(guard) => confirmed_loss(guard).await,
                None => std::future::pending().await,
            }
        });
        loop {
            tokio::select! {
                biased;
                status = child.wait() => return status.map_err(|source| CliError::Io {
                    what: "the command cannot be waited for".to_owned(),
                    remedy: "see whether it still runs",
                    source,
                }),
                signal = signals.next() => if !signals::reaches_both(signal) { signals::send(pid, signal) },
                loss = &mut lost, if self.loss.is_none() => self.lose(loss, pid),
                () = sleep_until(self.kill_at.unwrap_or_else(Instant::now)), if self.kill_at.is_some() => {
                    self.kill_at = None;
                    signals::send(pid, Signal::KILL);
                }
            }
        }
    }

    fn lose(&mut self, loss: Loss, pid: Option<u32>) {
        let what = format!("the lease on {} is lost: {loss}", list(self.resources));
        match self.on_loss {
            OnLoss::Kill => {
                let stop = format!("{what}; the command is told to stop (SIGTERM), and killed in {STOPPING:?}");
                self.common.out.warn("lease_lost", &stop);
                signals::send(pid, Signal::TERM);
                self.kill_at = Some(Instant::now() + STOPPING);
            }
            OnLoss::Warn => self.common.out.warn("lease_lost", &format!("{what}; the command goes on without it")),
        }
        self.loss = Some(loss);
    }
}

/// Ready when the lease is lost for good: one that has only lapsed is given the time of a renewal.
pub(crate) async fn confirmed_loss(guard: &LockGuard) -> Loss {
    loop {
        let loss = guard.lost().await;
        if loss != Loss::Unconfirmed {
            return loss;
        }
        let enough = Instant::now() + REVIVAL;
        while !guard.is_held() {
            if Instant::now() >= enough {
                return guard.lost().await;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// How the command ended, in words.
pub(crate) fn ended(status: ExitStatus) -> String {
    status.code().map_or_else(|| format!("was ended by {status}"), |code| format!("ended with status {code}"))
}

/// The command's own status; 128 and the signal where one ended it.
pub(crate) fn passed_on(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let signalled = || status.signal().and_then(|signal| u8::try_from(128 + signal).ok());
    let code = status.code().and_then(|code| u8::try_from(code).ok()).or_else(signalled);
    ExitCode::from(code.unwrap_or(u8::MAX))
}
