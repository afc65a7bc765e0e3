//! A real PostgreSQL server.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

use rustix::process::{Pid, Signal};

use crate::process::{Process, Recipe, free_port, fresh_directory};
use crate::{Place, TestbedError, binary};

const PROGRAM: &str = "postgres";
const MISSING: TestbedError = TestbedError::Missing { program: PROGRAM, package: "postgresql" };
/// Debian's and Fedora's places, and those of a build from source: not in PATH.
const ELSEWHERE: [(&str, &str); 2] = [("/usr/lib/postgresql", "bin"), ("/usr/local", "bin")];

/// A running PostgreSQL, which ends when this is dropped. Its superuser is `postgres`, trusted on loopback.
#[derive(Debug)]
pub struct PostgresServer {
    // Ends first: its directory goes with it.
    process: Process,
    place: Place,
    bin: PathBuf,
    options: Vec<(String, String)>,
}

impl PostgresServer {
    /// Starts one that does not sync to disk: quick, and good until the power fails.
    pub fn start() -> Result<Self, TestbedError> {
        Self::start_with(&[("fsync", "off")])
    }

    /// Starts one with settings of its own, as in `[("fsync", "on")]`.
    pub fn start_with(options: &[(&str, &str)]) -> Result<Self, TestbedError> {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self::launch(None, options)
    }

    /// Starts one with a configuration file; port, directory and logging are the testbed's all the same.
    pub fn start_with_config(config: impl Into<PathBuf>) -> Result<Self, TestbedError> {
        Self::launch(Some(&config.into()), Vec::new())
    }

    fn launch(config: Option<&Path>, options: Vec<(String, String)>) -> Result<Self, TestbedError> {
        let bin = binary::directory_with(&["postgres", "initdb", "psql"], &ELSEWHERE).ok_or(MISSING)?;
        let place = Place { dir: fresh_directory("postgres")?, port: 0 };
        let prepared = prepare(&bin, &place.dir, config).and_then(|()| {
            let mut tries = 3;
            loop {
                let place = Place { dir: place.dir.clone(), port: free_port()? };
                tries -= 1;
                match run(&bin, &place, &options) {
                    // Somebody else was faster at this port.
                    Err(TestbedError::NotReady { log, .. }) if tries > 0 && log.contains("already in use") => {}
                    outcome => return outcome.map(|process| (process, place)),
                }
            }
        });
        match prepared {
            Ok((process, place)) => Ok(Self { process, place, bin, options }),
            Err(error) => {
                let _ = fs::remove_dir_all(&place.dir);
                Err(error)
            }
        }
    }

    /// Starts a standby of this server, which follows all that happens here while both run.
    pub fn standby(&self) -> Result<Self, TestbedError> {
        let dir = fresh_directory("postgres")?;
        let follow = || {
            let mut words = own_directory(&dir)?;
            let program = self.bin.join("pg_basebackup").display().to_string();
            let data = dir.join("data").display().to_string();
            words.extend([program, "-d".to_owned(), self.url(), "-D".to_owned(), data]);
            words.extend(["-R", "-X", "stream", "--checkpoint=fast", "--no-sync"].map(str::to_owned));
            binary::output(Command::new(&words[0]).args(&words[1..]).current_dir("/"))?;
            let place = Place { dir: dir.clone(), port: free_port()? };
            let process = run(&self.bin, &place, &self.options)?;
            Ok(Self { process, place, bin: self.bin.clone(), options: self.options.clone() })
        };
        follow().inspect_err(|_| drop(fs::remove_dir_all(&dir)))
    }

    /// Makes a standby a server of its own, which may be written.
    pub fn promote(&self) -> Result<(), TestbedError> {
        self.sql("SELECT pg_promote()").map(drop)
    }

    /// The address of its database `postgres`, as its superuser.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.place.port)
    }

    /// Its port on the loopback address.
    pub const fn port(&self) -> u16 {
        self.place.port
    }

    /// The directory of its Unix socket.
    pub fn socket_dir(&self) -> &Path {
        &self.place.dir
    }

    /// Its data directory, with `pg_hba.conf` and `postgresql.conf`.
    pub fn data(&self) -> PathBuf {
        self.place.dir.join("data")
    }

    /// The process number of its first process.
    pub fn pid(&self) -> i32 {
        self.process.id().as_raw_pid()
    }

    /// What it calls its version, as in `postgres (PostgreSQL) 15.18`.
    pub fn version(&self) -> Result<String, TestbedError> {
        binary::output(Command::new(self.bin.join("postgres")).arg("--version"))
    }

    /// Runs SQL as its superuser by psql; answers rows without decoration.
    pub fn sql(&self, sql: &str) -> Result<String, TestbedError> {
        let mut command = Command::new(self.bin.join("psql"));
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.url(), "-c", sql]);
        binary::output(&mut command)
    }

    /// Reads its configuration files again.
    pub fn reload(&self) -> Result<(), TestbedError> {
        self.process.signal(Signal::HUP)
    }

    /// Ends it as a power cut would, and keeps what it has on disk.
    pub fn kill(&mut self) -> Result<(), TestbedError> {
        self.process.signal(Signal::KILL)?;
        self.process.end(true);
        Ok(())
    }

    /// Ends it in good order, as an administrator would: whoever is connected is cut off, and all is written down.
    pub fn shut_down(&mut self) -> Result<(), TestbedError> {
        self.process.signal(Signal::INT)?;
        let until = Instant::now() + Duration::from_secs(60);
        while self.process.runs() {
            if Instant::now() > until {
                let what = "does not shut down within 60 s".to_owned();
                return Err(TestbedError::NotReady { program: PROGRAM, what, log: String::new() });
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.process.end(true);
        Ok(())
    }

    /// Ends it, unless it has ended, and starts it again on the same port with what it has on disk.
    pub fn restart(&mut self) -> Result<(), TestbedError> {
        self.process.end(true);
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            match run(&self.bin, &self.place, &self.options) {
                // The children of a killed server take a moment to notice.
                Err(TestbedError::NotReady { log, .. })
                    if Instant::now() < until
                        && (log.contains("still in use")
                            || log.contains("already in use")
                            || log.contains("lock file")) =>
                {
                    thread::sleep(Duration::from_millis(50));
                }
                Err(error) => return Err(error),
                Ok(process) => {
                    self.process = process;
                    return Ok(());
                }
            }
        }
    }

    /// Stops it and all its children without ending them: they keep their connections and answer nothing.
    pub fn pause(&self) -> Result<(), TestbedError> {
        self.process.signal(Signal::STOP)?;
        self.signal_children(Signal::STOP);
        Ok(())
    }

    /// Lets them go on.
    pub fn resume(&self) -> Result<(), TestbedError> {
        self.signal_children(Signal::CONT);
        self.process.signal(Signal::CONT)
    }

    fn signal_children(&self, signal: Signal) {
        let own = self.process.id().as_raw_pid().to_string();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // pid (name) state parent …
            let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
            if parent == Some(own.as_str())
                && let Some(pid) = Pid::from_raw(pid)
            {
                // A child that has ended meanwhile needs no signal.
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
    }
}

/// PostgreSQL refuses to run as root: then its own user runs it.
pub(crate) fn as_its_user() -> Vec<String> {
    if rustix::process::geteuid().is_root() {
        let words = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"];
        words.map(str::to_owned).to_vec()
    } else {
        Vec::new()
    }
}

/// Gives its user a directory; the words before what that user is to run.
fn own_directory(dir: &Path) -> Result<Vec<String>, TestbedError> {
    let open = fs::set_permissions(dir, fs::Permissions::from_mode(0o755));
    open.map_err(TestbedError::system("opening a temporary directory"))?;
    let words = as_its_user();
    if !words.is_empty() {
        binary::output(Command::new("chown").arg("postgres").arg(dir))?;
    }
    Ok(words)
}

/// Makes its data directory.
fn prepare(bin: &Path, dir: &Path, config: Option<&Path>) -> Result<(), TestbedError> {
    let mut words = own_directory(dir)?;
    let data = dir.join("data");
    words.extend([bin.join("initdb").display().to_string(), "-D".to_owned(), data.display().to_string()]);
    let how = ["--no-sync", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"];
    words.extend(how.map(str::to_owned));
    binary::output(Command::new(&words[0]).args(&words[1..]).current_dir("/"))?;
    if let Some(config) = config {
        fs::copy(config, data.join("postgresql.conf"))
            .map_err(TestbedError::system(format!("reading {}", config.display())))?;
    }
    Ok(())
}

fn run(bin: &Path, place: &Place, options: &[(String, String)]) -> Result<Process, TestbedError> {
    let mut command = as_its_user();
    let (data, dir) = (place.dir.join("data").display().to_string(), place.dir.display().to_string());
    command.extend([bin.join("postgres").display().to_string(), "-D".to_owned(), data]);
    let port = place.port.to_string();
    let own = [
        ("listen_addresses", "127.0.0.1"),
        ("port", port.as_str()),
        ("unix_socket_directories", dir.as_str()),
        ("logging_collector", "off"),
        ("log_destination", "stderr"),
        ("lc_messages", "C"),
    ];
    let given = options.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    for (key, value) in given.chain(own) {
        command.extend(["-c".to_owned(), format!("{key}={value}")]);
    }
    let ready = "database system is ready to accept";
    Process::start(&Recipe { program: PROGRAM, command, dir: &place.dir, ready, signal: "QUIT" })
}
