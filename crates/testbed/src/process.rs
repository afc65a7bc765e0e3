//! One server process, and the shell beside it that ends it when this process is gone.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::TestbedError;

/// Starts the server, says its number, and waits until its input ends: because it is told to, or because the process
/// that started it is gone. The server is this shell's child: its number is not used again before `wait`.
const WARDEN: &str = r#"
dir=$1; signal=$2; shift 2
"$@" </dev/null >>"$dir/log" 2>&1 &
server=$!
echo "$server"
exec >/dev/null 2>&1
read -r word
kill -CONT "$server"
kill "-$signal" "$server"
wait "$server"
[ "$word" = keep ] || rm -rf "$dir"
"#;

/// How long a server may take to be ready: a busy machine with a slow disk.
const READY: Duration = Duration::from_secs(60);

/// How a program is started, and how one sees that it is ready.
pub(crate) struct Recipe<'a> {
    pub(crate) program: &'static str,
    pub(crate) command: Vec<String>,
    pub(crate) dir: &'a Path,
    /// The line of its log that says that it is ready.
    pub(crate) ready: &'a str,
    /// What ends it at once.
    pub(crate) signal: &'static str,
}

/// A server process that runs, or that was killed and can be started again.
#[derive(Debug)]
pub(crate) struct Process {
    warden: Child,
    leash: Option<ChildStdin>,
    server: Pid,
}

impl Process {
    /// Starts a server and waits until it is ready.
    pub(crate) fn start(recipe: &Recipe<'_>) -> Result<Self, TestbedError> {
        let log = recipe.dir.join("log");
        let seen = fs::metadata(&log).map_or(0, |metadata| metadata.len());
        let mut command = Command::new("/bin/sh");
        command.args(["-c", WARDEN, "warden"]).arg(recipe.dir).arg(recipe.signal).args(&recipe.command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).current_dir("/");
        // Ctrl-C in a terminal goes to a process group: this one ends when its starter has finished with it.
        command.process_group(0);
        let mut warden = command.spawn().map_err(TestbedError::system(format!("starting {}", recipe.program)))?;
        let leash = warden.stdin.take();
        let mut line = String::new();
        if let Some(said) = warden.stdout.take() {
            BufReader::new(said).read_line(&mut line).map_err(TestbedError::system("reading a server's number"))?;
        }
        let server = line.trim().parse().ok().and_then(Pid::from_raw);
        let not_ready = |what: &str| {
            let log = fs::read(&log).unwrap_or_default();
            let new = log.get(usize::try_from(seen).unwrap_or(0)..).unwrap_or_default();
            let lines: Vec<String> = String::from_utf8_lossy(new).lines().map(str::to_owned).collect();
            let log = lines[lines.len().saturating_sub(20)..].join("\n");
            TestbedError::NotReady { program: recipe.program, what: what.to_owned(), log }
        };
        let Some(server) = server else {
            return Err(not_ready("did not start"));
        };
        let mut process = Self { warden, leash, server };
        let until = Instant::now() + READY;
        loop {
            let text = fs::read(&log).unwrap_or_default();
            let new = String::from_utf8_lossy(text.get(usize::try_from(seen).unwrap_or(0)..).unwrap_or_default());
            if new.contains(recipe.ready) {
                return Ok(process);
            }
            let has_ended = !process.runs();
            if has_ended || Instant::now() > until {
                let error = not_ready(if has_ended { "ended before it was ready" } else { "is not ready after 60 s" });
                process.end(true);
                return Err(error);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The server's process number.
    pub(crate) const fn id(&self) -> Pid {
        self.server
    }

    /// Whether it runs: a zombie, which waits to be reaped, does not.
    pub(crate) fn runs(&self) -> bool {
        fs::read_to_string(format!("/proc/{}/stat", self.server.as_raw_pid())).map_or_else(
            // Without /proc: a zombie takes signals too, but then the log says why it ended.
            |_| !Path::new("/proc/self").exists() && rustix::process::test_kill_process(self.server).is_ok(),
            |stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'),
        )
    }

    /// Sends a signal to the server.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), TestbedError> {
        kill_process(self.server, signal)
            .map_err(|errno| TestbedError::system("signalling a server")(std::io::Error::from(errno)))
    }

    /// Stops the server, and waits until each of its threads has stopped: one that runs on may yet answer.
    pub(crate) fn stop(&self) -> Result<(), TestbedError> {
        self.signal(Signal::STOP)?;
        let tasks = format!("/proc/{}/task", self.server.as_raw_pid());
        let is_stopped = |task: fs::DirEntry| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with(['T', 'Z'])
        };
        let until = Instant::now() + Duration::from_secs(2);
        while !fs::read_dir(&tasks).into_iter().flatten().flatten().all(is_stopped) && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Ends it and waits until it is gone; `keep` leaves its directory.
    pub(crate) fn end(&mut self, keep: bool) {
        if let Some(mut leash) = self.leash.take() {
            if keep {
                // A warden that is gone already has nothing to keep or remove.
                let _ = leash.write_all(b"keep\n");
            }
            drop(leash);
            let _ = self.warden.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(false);
    }
}

/// A port of the loopback address that nobody listens on at this moment.
pub(crate) fn free_port() -> Result<u16, TestbedError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(TestbedError::system("finding a free port"))?;
    Ok(listener.local_addr().map_err(TestbedError::system("finding a free port"))?.port())
}

/// A temporary directory that its server's warden removes.
pub(crate) fn fresh_directory(name: &str) -> Result<std::path::PathBuf, TestbedError> {
    let dir = tempfile::Builder::new().prefix(&format!("mutext-{name}-")).tempdir();
    dir.map(tempfile::TempDir::keep).map_err(TestbedError::system("making a temporary directory"))
}
