//! Processes that a test starts, watches, stops and kills: this very binary, in another role.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The variable that tells this binary that it is such a process, and which.
pub(crate) const ROLE: &str = "MUTEXT_TEST_ROLE";
/// No child is silent for so long unless something is wrong.
const SILENCE: Duration = Duration::from_secs(300);

/// A child process; killed when dropped.
pub(crate) struct Child {
    process: std::process::Child,
    lines: Receiver<String>,
    stdin: ChildStdin,
    story: String,
}

impl Child {
    pub(crate) fn start(role: &str, arguments: &[&str]) -> Self {
        Self::start_in(Path::new("."), role, arguments)
    }

    pub(crate) fn start_in(dir: &Path, role: &str, arguments: &[&str]) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(arguments)
            .env(ROLE, role)
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let (sender, lines) = channel();
        // Reads all that comes, so that the child never waits for a full pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { process, lines, stdin, story: format!("{role} {}", arguments.join(" ")) }
    }

    /// The next line that it prints; `None` once it has closed its output, which its death does too.
    pub(crate) fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(SILENCE) {
            Ok(line) => Some(line),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("{} says nothing", self.story),
        }
    }

    /// Its lines up to the one that begins with `word`, which comes last, and when that came.
    pub(crate) fn until(&self, word: &str) -> (Vec<String>, Instant) {
        let mut lines = Vec::new();
        loop {
            let Some(line) = self.line() else { panic!("{} ended before {word:?}: {lines:?}", self.story) };
            let found = line.starts_with(word);
            lines.push(line);
            if found {
                return (lines, Instant::now());
            }
        }
    }

    /// All that it says until it ends by itself, successfully.
    pub(crate) fn finish(mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.line() {
            lines.push(line);
        }
        let status = self.process.wait().unwrap();
        let mut tail = String::new();
        for line in lines.iter().rev().take(3) {
            let _ = writeln!(tail, "{line}");
        }
        assert!(status.success(), "{} ended with {status}; its last lines, newest first:\n{tail}", self.story);
        lines
    }

    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
        self.stdin.flush().unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) -> Instant {
        let pid = Pid::from_raw(self.process.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
        Instant::now()
    }

    /// `kill -9`: no destructor runs, no socket is closed by hand. Returns what it had still said.
    pub(crate) fn kill(mut self) -> (Vec<String>, Instant) {
        let at = self.signal(Signal::KILL);
        self.process.wait().unwrap();
        let mut lines = Vec::new();
        while let Some(line) = self.line() {
            lines.push(line);
        }
        (lines, at)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Ours, by its handle; it may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
