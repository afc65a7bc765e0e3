//! A real pgbouncer before a PostgreSQL server.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::postgres::as_its_user;
use crate::process::{Process, Recipe, free_port, fresh_directory};
use crate::{PostgresServer, TestbedError, binary};

const PROGRAM: &str = "pgbouncer";
const MISSING: TestbedError = TestbedError::Missing { program: PROGRAM, package: "pgbouncer" };
/// Debian's place, which is not in everybody's PATH.
const SBIN: &str = "/usr/sbin";

/// A running pgbouncer, which ends when this is dropped.
#[derive(Debug)]
pub struct PgBouncer {
    _process: Process,
    port: u16,
}

impl PgBouncer {
    /// Starts one that lends connections to `server` out by the transaction, at most `connections` of them.
    pub fn start(server: &PostgresServer, connections: usize) -> Result<Self, TestbedError> {
        let sbin = || Some(Path::new(SBIN).to_path_buf()).filter(|dir| dir.join(PROGRAM).is_file());
        let bin = binary::directory_with(&[PROGRAM], &[]).or_else(sbin).ok_or(MISSING)?;
        let mut tries = 3;
        loop {
            let (dir, port) = (fresh_directory(PROGRAM)?, free_port()?);
            tries -= 1;
            let started = configure(&dir, server, port, connections).and_then(|()| run(&bin, &dir));
            match started {
                Ok(process) => return Ok(Self { _process: process, port }),
                // Somebody else was faster at this port.
                Err(TestbedError::NotReady { log, .. }) if tries > 0 && log.contains("in use") => {}
                Err(error) => {
                    let _ = fs::remove_dir_all(&dir);
                    return Err(error);
                }
            }
            let _ = fs::remove_dir_all(&dir);
        }
    }

    /// The address of the database `postgres` behind it.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }
}

fn configure(dir: &Path, server: &PostgresServer, port: u16, connections: usize) -> Result<(), TestbedError> {
    let config = format!(
        "[databases]\npostgres = host=127.0.0.1 port={} dbname=postgres user=postgres\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
         pool_mode = transaction\ndefault_pool_size = {connections}\nmax_client_conn = 500\n\
         server_round_robin = 1\n",
        server.port()
    );
    fs::write(dir.join("pgbouncer.ini"), config).map_err(TestbedError::system("writing pgbouncer.ini"))?;
    let open = fs::set_permissions(dir, fs::Permissions::from_mode(0o755));
    open.map_err(TestbedError::system("opening a temporary directory"))
}

fn run(bin: &Path, dir: &Path) -> Result<Process, TestbedError> {
    // It refuses to run as root, as PostgreSQL does.
    let mut command = as_its_user();
    command.extend([bin.join(PROGRAM), dir.join("pgbouncer.ini")].map(|path| path.display().to_string()));
    // The shell that starts it leaves SIGQUIT ignored, and it does not take that back.
    Process::start(&Recipe { program: PROGRAM, command, dir, ready: "process up", signal: "TERM" })
}
