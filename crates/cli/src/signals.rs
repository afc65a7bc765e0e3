//! Signals that `lock` receives, and those that it sends.

use std::fs;
use std::future::poll_fn;
use std::process::ExitCode;
use std::task::Poll;

pub(crate) use rustix::process::Signal;
use rustix::process::{Pid, getpgrp, kill_process};
use rustix::termios::tcgetpgrp;
use tokio::signal::unix::{self, SignalKind};

use crate::error::CliError;

const PASSED_ON: [(Signal, &str); 6] = [
    (Signal::INT, "SIGINT"),
    (Signal::TERM, "SIGTERM"),
    (Signal::HUP, "SIGHUP"),
    (Signal::QUIT, "SIGQUIT"),
    (Signal::USR1, "SIGUSR1"),
    (Signal::USR2, "SIGUSR2"),
];

/// The signals that this process takes instead of being ended by them.
pub(crate) struct Signals {
    streams: Vec<(Signal, unix::Signal)>,
}

impl Signals {
    /// Begins to take them, but for those that whoever started us has switched off, as `nohup` does: they stay off,
    /// for the command too.
    pub(crate) fn listen() -> Result<Self, CliError> {
        let ignored = ignored();
        let mut streams = Vec::new();
        for (signal, name) in PASSED_ON {
            if ignored & (1 << (signal.as_raw() - 1)) != 0 {
                continue;
            }
            let stream = unix::signal(SignalKind::from_raw(signal.as_raw())).map_err(|source| CliError::Io {
                what: format!("{name} cannot be listened for"),
                remedy: "nothing was changed; see the process's limits",
                source,
            })?;
            streams.push((signal, stream));
        }
        Ok(Self { streams })
    }

    /// The next signal. Dropping the future loses none.
    pub(crate) async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            let mut streams = self.streams.iter_mut();
            let ready = streams.find_map(|(signal, stream)| stream.poll_recv(context).is_ready().then_some(*signal));
            ready.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// The mask of signals that were switched off when this process was started; none where the system does not tell.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Sends it to the command; one that has ended needs it no more.
pub(crate) fn send(pid: Option<u32>, signal: Signal) {
    let pid = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = kill_process(pid, signal);
    }
}

/// Whether the command has got it already: Ctrl-C and Ctrl-\ go to every process in the terminal's foreground, and
/// a second one means something else to many programs.
pub(crate) fn reaches_both(signal: Signal) -> bool {
    if signal != Signal::INT && signal != Signal::QUIT {
        return false;
    }
    let foreground = fs::File::open("/dev/tty").ok().and_then(|terminal| tcgetpgrp(terminal).ok());
    foreground == Some(getpgrp())
}

/// The status of a command that goes on until a signal ends it, and has nothing to say then.
pub(crate) fn ended_by(signal: Signal) -> ExitCode {
    ExitCode::from(128 + u8::try_from(signal.as_raw()).unwrap_or(0))
}

/// A command that was ended before it was done.
pub(crate) fn interrupted(signal: Signal) -> CliError {
    interrupted_when(signal, "before it was done; nothing is held")
}

/// The same, with what it was at.
pub(crate) fn interrupted_when(signal: Signal, what: &'static str) -> CliError {
    let name = PASSED_ON.iter().find(|(known, _)| *known == signal).map_or("a signal", |(_, name)| name);
    CliError::Interrupted { name, number: u8::try_from(signal.as_raw()).unwrap_or(0), what }
}
