//! A place to run the command in, and what came of a run.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_mutext");
/// A test that waits longer than this has failed.
const ENOUGH: Duration = Duration::from_secs(30);

/// A directory with a store of its own.
pub(crate) struct Place {
    dir: TempDir,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Its answer as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Its error as JSON: what stands under `error`.
    #[track_caller]
    pub(crate) fn error(&self) -> Value {
        let text = self.err.lines().last().unwrap_or_default();
        let mut value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        value["error"].take()
    }

    /// That it ended so, and said all of this on standard error.
    #[track_caller]
    pub(crate) fn refused(&self, status: i32, parts: &[&str]) {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.out.is_empty(), "an answer in spite of an error: {self:?}");
        for part in parts {
            assert!(self.err.contains(part), "{part:?} is missing: {self:?}");
        }
    }

    /// That it went well; its answer.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!((self.status, self.err.as_str()), (0, ""), "{self:?}");
        self.out
    }
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A program with a clean environment, in this directory; `mutext` is on its path.
    pub(crate) fn program(&self, program: &str) -> Command {
        let home = Path::new(BINARY).parent().unwrap().to_str().unwrap();
        // Whoever runs the tests in the background may have switched signals off, for all that is started from there.
        let mut command = Command::new("env");
        command.args(["--default-signal", program]);
        command.env_clear().env("PATH", format!("{home}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"));
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    pub(crate) fn mutext(&self, arguments: &[&str]) -> Command {
        let mut command = self.program(BINARY);
        command.args(arguments);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        ran(&mut self.mutext(arguments))
    }

    pub(crate) fn run_with(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut command = self.mutext(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // It may refuse before it has read everything.
        let _ = child.stdin.take().unwrap().write_all(input);
        outcome(&child.wait_with_output().unwrap())
    }

    /// `mutext lock` with these flags around this script, once the script has said a line.
    pub(crate) fn hold(&self, flags: &[&str], script: &str) -> Holder {
        let mut command = self.mutext(&["lock"]);
        command.args(flags).args(["--", "sh", "-c", script]);
        Holder::start(&mut command)
    }

    /// What the document at `path` holds.
    #[track_caller]
    pub(crate) fn content(&self, path: &str) -> String {
        self.run(&["get", path]).done()
    }
}

pub(crate) fn ran(command: &mut Command) -> Ran {
    outcome(&command.output().unwrap())
}

fn outcome(output: &std::process::Output) -> Ran {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { status: code(output.status), out: text(&output.stdout), err: text(&output.stderr) }
}

/// As a shell shows it.
fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap()
}

/// A command that runs; killed when it is dropped.
pub(crate) struct Holder {
    child: Child,
    /// Its lines, read by a thread: a test that waits for one that never comes fails and does not hang.
    lines: mpsc::Receiver<String>,
}

impl Holder {
    /// Starts it, and waits for its first line.
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut holder = Self::start_without_word(command);
        assert_eq!(holder.line(), "ready\n");
        holder
    }

    pub(crate) fn start_without_word(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            while out.read_line(&mut line).is_ok_and(|bytes| bytes > 0) && sender.send(line.split_off(0)).is_ok() {}
        });
        Self { child, lines }
    }

    /// Its next line; nothing at its end.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        match self.lines.recv_timeout(ENOUGH) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Disconnected) => String::new(),
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("it says nothing"),
        }
    }

    /// Writes a line to the command's standard input.
    pub(crate) fn tell(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).unwrap();
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Closes its standard input and waits for its end.
    pub(crate) fn end(mut self) -> Ran {
        drop(self.child.stdin.take());
        until("its end", || self.child.try_wait().unwrap().is_some());
        let status = code(self.child.wait().unwrap());
        let lines = std::iter::from_fn(|| Some(self.line()).filter(|line| !line.is_empty()));
        let (out, mut err) = (lines.collect(), String::new());
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        Ran { status, out, err }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `holds` does.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < ENOUGH, "never came: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
