//! A real etcd: one member, or a cluster of several.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use rustix::process::Signal;

use crate::process::{Process, Recipe, free_port, fresh_directory};
use crate::{Place, TestbedError, binary};

const PROGRAM: &str = "etcd";
const MISSING: TestbedError = TestbedError::Missing { program: PROGRAM, package: "etcd-server" };
const MISSING_CLIENT: TestbedError = TestbedError::Missing { program: "etcdctl", package: "etcd-client" };

/// A running etcd of one or several members, which end when this is dropped.
#[derive(Debug)]
pub struct EtcdServer {
    members: Vec<Member>,
    bin: PathBuf,
    options: Vec<(String, String)>,
    is_encrypted: bool,
}

#[derive(Debug)]
struct Member {
    // Ends first: its directory goes with it.
    process: Process,
    plan: Plan,
}

/// Where a member's files lie, and where it listens: for clients, and for its peers.
#[derive(Debug)]
struct Plan {
    name: String,
    place: Place,
    peer_port: u16,
}

impl EtcdServer {
    /// Starts one member.
    pub fn start() -> Result<Self, TestbedError> {
        Self::start_with(1, &[])
    }

    /// Starts a cluster of so many members.
    pub fn start_cluster(members: usize) -> Result<Self, TestbedError> {
        Self::start_with(members, &[])
    }

    /// Starts a cluster with settings of its own, as in `[("auto-compaction-retention", "1")]`. Where a `cert-file` is
    /// among them, clients speak TLS to it.
    pub fn start_with(members: usize, options: &[(&str, &str)]) -> Result<Self, TestbedError> {
        let bin = binary::directory_with(&[PROGRAM], &[]).map(|dir| dir.join(PROGRAM)).ok_or(MISSING)?;
        let is_encrypted = options.iter().any(|(key, _)| *key == "cert-file");
        let options: Vec<_> = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let mut tries = 3;
        loop {
            tries -= 1;
            let plans = (0..members.max(1)).map(plan).collect::<Result<Vec<_>, _>>()?;
            let cluster = initial_cluster(&plans);
            let started = start_all(&bin, &plans, &cluster, &options, is_encrypted);
            match started {
                Ok(processes) => {
                    let members = processes.into_iter().zip(plans);
                    let members = members.map(|(process, plan)| Member { process, plan }).collect();
                    return Ok(Self { members, bin, options, is_encrypted });
                }
                Err(error) => {
                    for plan in &plans {
                        let _ = std::fs::remove_dir_all(&plan.place.dir);
                    }
                    // Somebody else was faster at a port.
                    let is_taken = matches!(&error, TestbedError::NotReady { log, .. } if log.contains("in use"));
                    if tries == 0 || !is_taken {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Its address, with all of its members: `etcd://` or `etcds://`.
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.members.iter().map(|member| host(member.plan.place.port)).collect();
        format!("{}://{}", if self.is_encrypted { "etcds" } else { "etcd" }, hosts.join(","))
    }

    /// The address of one member alone.
    pub fn url_of(&self, member: usize) -> String {
        format!("{}://{}", if self.is_encrypted { "etcds" } else { "etcd" }, host(self.members[member].plan.place.port))
    }

    /// The port of a member on the loopback address.
    pub fn port(&self, member: usize) -> u16 {
        self.members[member].plan.place.port
    }

    /// How many members it has.
    pub const fn members(&self) -> usize {
        self.members.len()
    }

    /// A member's process number.
    pub fn pid(&self, member: usize) -> i32 {
        self.members[member].process.id().as_raw_pid()
    }

    /// What it calls its version, as in `etcd Version: 3.4.23`.
    pub fn version(&self) -> Result<String, TestbedError> {
        let text = binary::output(Command::new(&self.bin).arg("--version"))?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }

    /// Runs one command by etcdctl, on all members.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String, TestbedError> {
        let all: Vec<usize> = (0..self.members.len()).collect();
        self.ctl_on(&all, arguments)
    }

    fn client(&self) -> Result<PathBuf, TestbedError> {
        match self.bin.with_file_name("etcdctl") {
            beside if beside.is_file() => Ok(beside),
            _ => binary::directory_with(&["etcdctl"], &[]).map(|dir| dir.join("etcdctl")).ok_or(MISSING_CLIENT),
        }
    }

    fn ctl_on(&self, members: &[usize], arguments: &[&str]) -> Result<String, TestbedError> {
        let ctl = self.client()?;
        let scheme = if self.is_encrypted { "https" } else { "http" };
        let endpoints: Vec<String> =
            members.iter().map(|member| format!("{scheme}://{}", host(self.port(*member)))).collect();
        let mut command = Command::new(ctl);
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(endpoints.join(","));
        if self.is_encrypted {
            command.arg("--insecure-skip-tls-verify").arg("--insecure-transport=false");
        }
        binary::output(command.args(arguments))
    }

    /// Which member leads.
    pub fn leader(&self) -> Result<usize, TestbedError> {
        for member in 0..self.members.len() {
            // Endpoint, id, version, size, whether it leads.
            let status = self.ctl_on(&[member], &["endpoint", "status", "--write-out=simple"]);
            if status.is_ok_and(|status| status.split(", ").nth(4) == Some("true")) {
                return Ok(member);
            }
        }
        Err(TestbedError::Command { command: "etcdctl endpoint status".to_owned(), said: "nobody leads".to_owned() })
    }

    /// Ends a member as a power cut would, and keeps what it has on disk.
    pub fn kill(&mut self, member: usize) -> Result<(), TestbedError> {
        self.members[member].process.signal(Signal::KILL)?;
        self.members[member].process.end(true);
        Ok(())
    }

    /// Starts a member that was killed again, on the same ports with what it has on disk.
    pub fn restart(&mut self, member: usize) -> Result<(), TestbedError> {
        let cluster = initial_cluster(self.members.iter().map(|member| &member.plan));
        let member = &mut self.members[member];
        member.process.end(true);
        member.process = run(&self.bin, &member.plan, &cluster, &self.options, self.is_encrypted)?;
        Ok(())
    }

    /// Puts a snapshot back, as after a disaster: the only member ends, and begins again with what the snapshot has, at
    /// the same place and under the same names, but for another `initial-cluster-token` where one is told.
    pub fn put_back(&mut self, snapshot: &Path, token: Option<&str>) -> Result<(), TestbedError> {
        self.kill(0)?;
        let cluster = initial_cluster(self.members.iter().map(|member| &member.plan));
        let plan = &self.members[0].plan;
        let data = plan.place.dir.join("data");
        std::fs::remove_dir_all(&data).map_err(TestbedError::system("removing etcd's data"))?;
        let mut command = Command::new(self.client()?);
        command.env("ETCDCTL_API", "3").args(["snapshot", "restore"]).arg(snapshot);
        command.args(["--name", &plan.name, "--initial-cluster", &cluster]).arg("--data-dir").arg(&data);
        command.args(["--initial-advertise-peer-urls", &format!("http://{}", host(plan.peer_port))]);
        if let Some(token) = token {
            command.args(["--initial-cluster-token", token]);
        }
        binary::output(&mut command)?;
        self.restart(0)
    }

    /// Stops a member without ending it: it keeps its connections and answers nothing.
    pub fn pause(&self, member: usize) -> Result<(), TestbedError> {
        self.members[member].process.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub fn resume(&self, member: usize) -> Result<(), TestbedError> {
        self.members[member].process.signal(Signal::CONT)
    }
}

fn host(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn plan(number: usize) -> Result<Plan, TestbedError> {
    let place = Place { dir: fresh_directory("etcd")?, port: free_port()? };
    Ok(Plan { name: format!("m{number}"), place, peer_port: free_port()? })
}

fn initial_cluster<'a>(plans: impl IntoIterator<Item = &'a Plan>) -> String {
    let members = plans.into_iter().map(|plan| format!("{}=http://{}", plan.name, host(plan.peer_port)));
    members.collect::<Vec<_>>().join(",")
}

/// Starts all at once: none is ready before a majority is there.
fn start_all(
    bin: &Path,
    plans: &[Plan],
    cluster: &str,
    options: &[(String, String)],
    is_encrypted: bool,
) -> Result<Vec<Process>, TestbedError> {
    thread::scope(|scope| {
        let starting: Vec<_> =
            plans.iter().map(|plan| scope.spawn(move || run(bin, plan, cluster, options, is_encrypted))).collect();
        let ended = || TestbedError::NotReady {
            program: PROGRAM,
            what: "was given up while it started".to_owned(),
            log: String::new(),
        };
        starting.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(ended()))).collect()
    })
}

fn run(
    bin: &Path,
    plan: &Plan,
    cluster: &str,
    options: &[(String, String)],
    is_encrypted: bool,
) -> Result<Process, TestbedError> {
    let client = format!("{}://{}", if is_encrypted { "https" } else { "http" }, host(plan.place.port));
    let peer = format!("http://{}", host(plan.peer_port));
    let data = plan.place.dir.join("data").display().to_string();
    let mut command = vec![bin.display().to_string()];
    let mut set = |key: &str, value: &str| command.push(format!("--{key}={value}"));
    set("name", &plan.name);
    set("data-dir", &data);
    set("listen-client-urls", &client);
    set("advertise-client-urls", &client);
    set("listen-peer-urls", &peer);
    set("initial-advertise-peer-urls", &peer);
    set("initial-cluster", cluster);
    set("logger", "zap");
    set("log-outputs", "stderr");
    for (key, value) in options {
        set(key, value);
    }
    // It says "serving client traffic insecurely" or "securely", once a majority has met.
    let ready = "serving client traffic";
    Process::start(&Recipe { program: PROGRAM, command, dir: &plan.place.dir, ready, signal: "KILL" })
}
