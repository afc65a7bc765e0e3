//! One agent's process as its parent sees it: started, told its task, let go, and listened to. Whose agent it is makes
//! no difference.

use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::trial::TrialError;

/// How long an agent may take to get ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A process that answers `ready` to its task, waits for a line, and ends with one line of JSON. Killed when dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    task: String,
}

impl Process {
    /// Starts it. The task goes by its standard input and nowhere else: it may hold passwords.
    pub(crate) fn start(
        name: String,
        command: &[OsString],
        role: Option<&str>,
        task: &impl Serialize,
    ) -> Result<Self, TrialError> {
        let refuse =
            |what: &str| TrialError::Agent { name: name.clone(), what: what.to_owned(), stderr: String::new() };
        let task = serde_json::to_string(task).map_err(|error| refuse(&format!("has no task: {error}")))?;
        let Some((program, arguments)) = command.split_first() else {
            return Err(refuse("has no program"));
        };
        let mut command = Command::new(program);
        command.args(arguments).args(role).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let program = program.to_string_lossy().into_owned();
        let mut child = command.kill_on_drop(true).spawn().map_err(|source| TrialError::Start { program, source })?;
        let (stdin, stdout) = match (child.stdin.take(), child.stdout.take()) {
            (Some(stdin), Some(stdout)) => (stdin, BufReader::new(stdout)),
            _ => return Err(refuse("has no pipes")),
        };
        Ok(Self { name, child, stdin, stdout, task })
    }

    /// Tells it its task, and waits until it is ready.
    pub(crate) async fn get_ready(&mut self) -> Result<(), TrialError> {
        let task = format!("{}\n", self.task);
        if self.stdin.write_all(task.as_bytes()).await.is_err() {
            return Err(self.failed("ended before its task").await);
        }
        match tokio::time::timeout(READY_WITHIN, self.line()).await {
            Ok(Some(line)) if line == "ready" => Ok(()),
            Ok(_) => Err(self.failed("ended before it was ready").await),
            Err(_) => Err(self.failed("was not ready in time").await),
        }
    }

    /// Lets it go.
    pub(crate) async fn go(&mut self) -> Result<(), TrialError> {
        match self.stdin.write_all(b"go\n").await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failed("ended before its work").await),
        }
    }

    /// What it ends with.
    pub(crate) async fn finish<T: DeserializeOwned>(mut self, patience: Duration) -> Result<T, TrialError> {
        let Ok(line) = tokio::time::timeout(patience, self.line()).await else {
            return Err(self.failed("did not finish in time").await);
        };
        match line.as_deref().map(serde_json::from_str) {
            Some(Ok(log)) => {
                // It has said all it had to say; reap it.
                let _ = tokio::time::timeout(READY_WITHIN, self.child.wait()).await;
                Ok(log)
            }
            _ => Err(self.failed("ended without its log").await),
        }
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stdout.read_line(&mut line).await {
            Ok(1..) => Some(line.trim_end().to_owned()),
            _ => None,
        }
    }

    /// What became of it, with what it said; it is killed if it still lives.
    async fn failed(&mut self, what: &str) -> TrialError {
        let _ = self.child.start_kill();
        let status = self.child.wait().await.ok();
        let mut stderr = String::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            let _ = pipe.read_to_string(&mut stderr).await;
        }
        let status = status.map(|status: ExitStatus| format!(" ({status})")).unwrap_or_default();
        TrialError::Agent { name: self.name.clone(), what: format!("{what}{status}"), stderr }
    }
}
