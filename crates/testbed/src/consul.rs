//! A real Consul: one agent, or three servers.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::process::{Process, Recipe, free_port, fresh_directory};
use crate::{TestbedError, binary};

const PROGRAM: &str = "consul";
const MISSING: TestbedError = TestbedError::Absent {
    program: PROGRAM,
    remedy: "run scripts/need-servers, which fetches Debian bullseye's package into ~/.cache/mutext/consul without \
             installing it; or put the directory of a consul 1.8 or later into PATH",
};
/// How long servers may take to elect a leader.
const ELECTED: Duration = Duration::from_secs(60);

/// Where an agent listens.
#[derive(Debug, Clone, Copy)]
struct Ports {
    http: u16,
    https: u16,
    server: u16,
    serf: u16,
}

impl Ports {
    fn free() -> Result<Self, TestbedError> {
        Ok(Self { http: free_port()?, https: free_port()?, server: free_port()?, serf: free_port()? })
    }
}

/// A running Consul agent, which is a server too; it ends when this is dropped.
#[derive(Debug)]
pub struct ConsulServer {
    // Ends first: its directory goes with it.
    process: Process,
    dir: PathBuf,
    ports: Ports,
    bin: PathBuf,
    dev: bool,
    token: Option<String>,
}

impl ConsulServer {
    /// Starts one that keeps everything in memory (`-dev`).
    pub fn start() -> Result<Self, TestbedError> {
        Self::start_with("{}")
    }

    /// Starts one that keeps everything in memory, with settings of its own, as in `{"session_ttl_min": "1s"}`.
    pub fn start_with(settings: &str) -> Result<Self, TestbedError> {
        Self::launch(settings, true)
    }

    /// Starts one that keeps its data on disk.
    pub fn start_durable(settings: &str) -> Result<Self, TestbedError> {
        Self::launch(settings, false)
    }

    fn launch(settings: &str, dev: bool) -> Result<Self, TestbedError> {
        let mut tries = 3;
        loop {
            tries -= 1;
            let ports = Ports::free()?;
            let alone = if dev { "" } else { r#""bootstrap": true, "# };
            match Self::launch_at(ports, "alone", alone, settings, dev, "New leader elected") {
                // Somebody else was faster at one of these ports.
                Err(TestbedError::NotReady { log, .. }) if tries > 0 && log.contains("address already in use") => {}
                outcome => return outcome,
            }
        }
    }

    fn launch_at(
        ports: Ports,
        node: &str,
        role: &str,
        settings: &str,
        dev: bool,
        ready: &str,
    ) -> Result<Self, TestbedError> {
        let bin = bin()?;
        let dir = fresh_directory("consul")?;
        let Ports { http, https, server, serf } = ports;
        // Without a certificate it cannot be had.
        let https = if settings.contains("cert_file") { i32::from(https) } else { -1 };
        // Elections as fast as Consul's own advice for production makes them.
        let own = format!(
            r#"{{ {role} "node_name": "{node}", "server": true, "data_dir": "{data}", "bind_addr": "127.0.0.1",
                 "client_addr": "127.0.0.1", "disable_update_check": true, "connect": {{ "enabled": false }},
                 "performance": {{ "raft_multiplier": 1 }},
                 "ports": {{ "http": {http}, "https": {https}, "server": {server}, "serf_lan": {serf}, "serf_wan": -1, "dns": -1,
                             "grpc": -1 }} }}"#,
            data = dir.join("data").display(),
        );
        let written =
            fs::write(dir.join("own.json"), own).and_then(|()| fs::write(dir.join("settings.json"), settings));
        let started = written
            .map_err(TestbedError::system("writing Consul's configuration"))
            .and_then(|()| run(&bin, &dir, dev, ready));
        match started {
            Ok(process) => Ok(Self { process, dir, ports, bin, dev, token: None }),
            Err(error) => {
                let _ = fs::remove_dir_all(&dir);
                Err(error)
            }
        }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("consul://127.0.0.1:{}", self.ports.http)
    }

    /// Its port for HTTP on the loopback address.
    pub const fn port(&self) -> u16 {
        self.ports.http
    }

    /// Its port for HTTPS, where it was given a certificate (`cert_file` and `key_file`).
    pub const fn tls_port(&self) -> u16 {
        self.ports.https
    }

    /// Makes one call of its HTTP API, as in `("PUT", "/v1/session/destroy/ID")`; answers the body.
    pub fn api(&self, method: &str, path: &str) -> Result<String, TestbedError> {
        let failed = |what: &str| TestbedError::system(format!("{method} {path}: {what}"));
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports.http)).map_err(failed("connecting"))?;
        let token = self.token.as_ref().map(|token| format!("X-Consul-Token: {token}\r\n")).unwrap_or_default();
        // The older protocol, so that the answer comes in one piece and ends with the connection.
        let request = format!("{method} {path} HTTP/1.0\r\nHost: localhost\r\n{token}Content-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).map_err(failed("asking"))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(failed("reading the answer"))?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        if head.split(' ').nth(1) == Some("200") {
            return Ok(body.trim().to_owned());
        }
        Err(TestbedError::Command { command: format!("{method} {path}"), said: answer.trim().to_owned() })
    }

    /// Its process number.
    pub fn pid(&self) -> i32 {
        self.process.id().as_raw_pid()
    }

    /// The directory with its files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it calls its version, as in `Consul 1.8.7+dfsg1`.
    pub fn version(&self) -> Result<String, TestbedError> {
        let said = binary::output(Command::new(&self.bin).arg("version"))?;
        Ok(said.lines().next().unwrap_or_default().to_owned())
    }

    /// Runs one of its commands, as in `["kv", "get", "a"]`.
    pub fn cli(&self, arguments: &[&str]) -> Result<String, TestbedError> {
        let mut command = Command::new(&self.bin);
        command.args(arguments).env("CONSUL_HTTP_ADDR", format!("127.0.0.1:{}", self.ports.http));
        if let Some(token) = &self.token {
            command.env("CONSUL_HTTP_TOKEN", token);
        }
        binary::output(&mut command)
    }

    /// Its commands are run with this token from now on.
    pub fn use_token(&mut self, token: impl Into<String>) {
        self.token = Some(token.into());
    }

    /// Ends it as a power cut would, and keeps what it has on disk.
    pub fn kill(&mut self) -> Result<(), TestbedError> {
        self.process.signal(Signal::KILL)?;
        self.process.end(true);
        Ok(())
    }

    /// Ends it, unless it has ended, and starts it again on the same ports with what it has on disk.
    pub fn restart(&mut self) -> Result<(), TestbedError> {
        self.process.end(true);
        self.process = run(&self.bin, &self.dir, self.dev, "New leader elected")?;
        Ok(())
    }

    /// Stops it without ending it: it keeps its connections and answers nothing.
    pub fn pause(&self) -> Result<(), TestbedError> {
        self.process.stop()
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<(), TestbedError> {
        self.process.signal(Signal::CONT)
    }
}

/// Several Consul servers that elect a leader.
#[derive(Debug)]
pub struct ConsulCluster {
    servers: Vec<Option<ConsulServer>>,
}

impl ConsulCluster {
    /// Starts so many servers, and waits until they have a leader and all of them vote.
    pub fn start(number: usize) -> Result<Self, TestbedError> {
        let ports = (0..number).map(|_| Ports::free()).collect::<Result<Vec<_>, _>>()?;
        let join: Vec<String> = ports.iter().map(|ports| format!(r#""127.0.0.1:{}""#, ports.serf)).collect();
        let role =
            format!(r#""bootstrap_expect": {number}, "retry_join": [{}], "retry_interval": "1s","#, join.join(","));
        let mut cluster = Self { servers: Vec::new() };
        for (number, ports) in ports.into_iter().enumerate() {
            let node = format!("server-{number}");
            let server = ConsulServer::launch_at(ports, &node, &role, "{}", false, "Consul agent running!")?;
            cluster.servers.push(Some(server));
        }
        let until = Instant::now() + ELECTED;
        loop {
            let peers = cluster.ask(&["operator", "raft", "list-peers"]).unwrap_or_default();
            let voters = peers.lines().filter(|line| line.contains("true")).count();
            if voters == number && peers.contains("leader") {
                return Ok(cluster);
            }
            if Instant::now() > until {
                let what = "has elected no leader after 60 s".to_owned();
                return Err(TestbedError::NotReady { program: PROGRAM, what, log: peers });
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// One of those that run.
    pub fn any(&self) -> Option<&ConsulServer> {
        self.servers.iter().flatten().next()
    }

    /// An address that names all of those that run.
    pub fn url(&self) -> String {
        let agents: Vec<String> =
            self.servers.iter().flatten().map(|server| format!("127.0.0.1:{}", server.port())).collect();
        format!("consul://{}", agents.join(","))
    }

    fn ask(&self, arguments: &[&str]) -> Result<String, TestbedError> {
        self.any().ok_or(MISSING)?.cli(arguments)
    }

    /// The number of the server that leads.
    pub fn leader(&self) -> Result<usize, TestbedError> {
        let peers = self.ask(&["operator", "raft", "list-peers"])?;
        let leads = |name: &str| peers.lines().any(|line| line.starts_with(name) && line.contains("leader"));
        let leader = (0..self.servers.len()).find(|number| leads(&format!("server-{number} ")));
        leader.ok_or_else(|| TestbedError::Command { command: "raft list-peers".to_owned(), said: peers })
    }

    /// Ends one of them as a power cut would.
    pub fn kill(&mut self, number: usize) -> Result<(), TestbedError> {
        match self.servers.get_mut(number).and_then(Option::take) {
            Some(mut server) => {
                server.process.signal(Signal::KILL)?;
                server.process.end(false);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// In PATH, else where scripts/need-servers puts it.
fn bin() -> Result<PathBuf, TestbedError> {
    if let Some(dir) = binary::directory_with(&[PROGRAM], &[]) {
        return Ok(dir.join(PROGRAM));
    }
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from).or(home);
    let fetched = cache.map(|cache| cache.join("mutext/consul/usr/bin/consul"));
    fetched.filter(|file| file.is_file()).ok_or(MISSING)
}

fn run(bin: &Path, dir: &Path, dev: bool, ready: &str) -> Result<Process, TestbedError> {
    let mut command = vec![bin.display().to_string(), "agent".to_owned()];
    command.extend(dev.then(|| "-dev".to_owned()));
    for file in ["own.json", "settings.json"] {
        command.push(format!("-config-file={}", dir.join(file).display()));
    }
    command.push("-log-level=info".to_owned());
    Process::start(&Recipe { program: PROGRAM, command, dir, ready, signal: "KILL" })
}
