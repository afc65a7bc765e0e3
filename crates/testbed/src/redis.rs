//! A real redis-server.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::process::{Process, Recipe, free_port, fresh_directory};
use crate::{Place, TestbedError, binary};

const PROGRAM: &str = "redis-server";
const MISSING: TestbedError = TestbedError::Missing { program: PROGRAM, package: "redis-server" };

/// A running redis-server (or valkey-server), which ends when this is dropped.
#[derive(Debug)]
pub struct RedisServer {
    // Ends first: its directory goes with it.
    process: Process,
    place: Place,
    bin: PathBuf,
    options: Vec<(String, String)>,
    config: Option<PathBuf>,
}

impl RedisServer {
    /// Starts one that keeps nothing on disk.
    pub fn start() -> Result<Self, TestbedError> {
        Self::start_with(&[])
    }

    /// Starts one with settings of its own, as in `[("appendonly", "yes")]`.
    pub fn start_with(options: &[(&str, &str)]) -> Result<Self, TestbedError> {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self::launch(None, options)
    }

    /// Starts one with a configuration file; port, directory and logging are the testbed's all the same.
    pub fn start_with_config(config: impl Into<PathBuf>) -> Result<Self, TestbedError> {
        Self::launch(Some(config.into()), Vec::new())
    }

    fn launch(config: Option<PathBuf>, options: Vec<(String, String)>) -> Result<Self, TestbedError> {
        let bin = bin()?;
        let config = match config {
            Some(file) => {
                Some(file.canonicalize().map_err(TestbedError::system(format!("reading {}", file.display())))?)
            }
            None => None,
        };
        let mut tries = 3;
        loop {
            let place = Place { dir: fresh_directory("redis")?, port: free_port()? };
            tries -= 1;
            match run(&bin, &place, config.as_deref(), &options) {
                Ok(process) => return Ok(Self { process, place, bin, options, config }),
                // Somebody else was faster at this port.
                Err(TestbedError::NotReady { log, .. }) if tries > 0 && log.contains("Address already in use") => {}
                Err(error) => {
                    let _ = std::fs::remove_dir_all(&place.dir);
                    return Err(error);
                }
            }
            let _ = std::fs::remove_dir_all(&place.dir);
        }
    }

    /// Its address: database 0, without a password.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.place.port)
    }

    /// Its port on the loopback address.
    pub const fn port(&self) -> u16 {
        self.place.port
    }

    /// Its Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.place.dir.join("redis.sock")
    }

    /// Its process number.
    pub fn pid(&self) -> i32 {
        self.process.id().as_raw_pid()
    }

    /// What it calls its version, as in `Redis server v=7.0.15 …`.
    pub fn version(&self) -> Result<String, TestbedError> {
        binary::output(Command::new(&self.bin).arg("--version"))
    }

    /// Runs one command by redis-cli; answers without decoration.
    pub fn cli(&self, arguments: &[&str]) -> Result<String, TestbedError> {
        let mut command = cli_in(&self.bin, self.place.port);
        if let Some((_, password)) = self.options.iter().find(|(key, _)| key == "requirepass") {
            command.env("REDISCLI_AUTH", password);
        }
        binary::output(command.args(arguments))
    }

    /// Ends it as a power cut would, and keeps what it has on disk.
    pub fn kill(&mut self) -> Result<(), TestbedError> {
        self.process.signal(Signal::KILL)?;
        self.process.end(true);
        Ok(())
    }

    /// Ends it, unless it has ended, and starts it again on the same port with what it has on disk.
    pub fn restart(&mut self) -> Result<(), TestbedError> {
        self.process.end(true);
        self.process = run(&self.bin, &self.place, self.config.as_deref(), &self.options)?;
        Ok(())
    }

    /// Stops it without ending it: it keeps its connections and answers nothing.
    pub fn pause(&self) -> Result<(), TestbedError> {
        self.process.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<(), TestbedError> {
        self.process.signal(Signal::CONT)
    }
}

/// The redis-cli beside a server's program, which speaks to a port of this machine.
pub(crate) fn cli_in(bin: &Path, port: u16) -> Command {
    let cli = match bin.with_file_name("redis-cli") {
        cli if cli.is_file() => cli,
        _ => bin.with_file_name("valkey-cli"),
    };
    let mut command = Command::new(cli);
    command.args(["-e", "-h", "127.0.0.1", "-p", &port.to_string()]);
    command
}

fn bin() -> Result<PathBuf, TestbedError> {
    let found = |name: &str| binary::directory_with(&[name], &[]).map(|dir| dir.join(name));
    found(PROGRAM).or_else(|| found("valkey-server")).ok_or(MISSING)
}

fn run(
    bin: &Path,
    place: &Place,
    config: Option<&Path>,
    options: &[(String, String)],
) -> Result<Process, TestbedError> {
    let mut command = vec![bin.display().to_string()];
    command.extend(config.map(|file| file.display().to_string()));
    let mut set = |key: &str, values: &[&str]| {
        command.push(format!("--{key}"));
        command.extend(values.iter().map(|value| (*value).to_owned()));
    };
    if config.is_none() {
        set("save", &[""]);
        set("appendonly", &["no"]);
    }
    for (key, value) in options {
        // `replicaof HOST PORT` and the like take several values.
        set(key, &if value.is_empty() { vec![""] } else { value.split(' ').collect::<Vec<_>>() });
    }
    let (dir, socket) = (place.dir.display().to_string(), place.dir.join("redis.sock").display().to_string());
    set("bind", &["127.0.0.1"]);
    if !options.iter().any(|(key, _)| key == "port") {
        set("port", &[&place.port.to_string()]);
    }
    set("dir", &[&dir]);
    set("unixsocket", &[&socket]);
    set("daemonize", &["no"]);
    set("logfile", &[""]);
    let ready = "eady to accept connections";
    Process::start(&Recipe { program: PROGRAM, command, dir: &place.dir, ready, signal: "KILL" })
}
