//! How processes wake each other: one datagram socket a process, in the store's directory.
//!
//! A socket is also a sign of life. The kernel closes it when its process ends, however it ends; a datagram to it
//! is then refused at once, so that dead waiters are skipped and dead holders found well before their TTL.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use mutext_contract::{EngineError, HolderId, LeaseId, TroubleKind};
use tokio::sync::{Notify, broadcast};

use crate::worker::start_thread;

/// Longer socket addresses than this do not fit the kernel's structure (108 bytes, 104 on some systems).
const ADDRESS_BYTES_MAX: usize = 100;
const LOSSES_KEPT: usize = 1024;
/// Before the name of a socket that does not listen yet.
const UNFINISHED: &str = "new-";
/// A process that takes longer than this from one line to the next is gone.
const UNFINISHED_MAX: Duration = Duration::from_secs(60);

/// What a datagram says of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    Granted,
    Lost,
    /// Somebody else asks for a lease with tokens to spare.
    Wanted,
}

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// In the receiver's queue, or the receiver is alive and too busy to take it: it looks for itself now and then.
    Alive,
    /// There is no such process any more.
    Dead,
}

#[derive(Debug)]
struct Inbox {
    waiters: Mutex<HashMap<LeaseId, Arc<Notify>>>,
    losses: broadcast::Sender<LeaseId>,
    wanted: broadcast::Sender<LeaseId>,
}

/// This process's socket, and the way to the others'.
pub(crate) struct Wake {
    inbox: Arc<Inbox>,
    socket: UnixDatagram,
    home: String,
    dir: PathBuf,
    /// Kept open so that a long directory can be addressed through it.
    handle: File,
}

impl fmt::Debug for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wake").field("home", &self.home).finish_non_exhaustive()
    }
}

impl Wake {
    /// Makes this process's socket in `dir` and listens.
    pub(crate) fn open(dir: &Path) -> Result<Self, EngineError> {
        let fail = |error: io::Error| {
            let kind = TroubleKind::Misconfigured("no socket can be made in it".to_owned());
            let remedy = "use a local file system that the process may write";
            EngineError::new(dir.display().to_string(), kind, remedy).caused_by(error)
        };
        fs::create_dir_all(dir).map_err(fail)?;
        let handle = File::open(dir).map_err(fail)?;
        let home = HolderId::random().to_string()[..16].to_owned();
        // A socket's file is there a moment before the kernel listens. Under a name of its own until then, so that a
        // process that sweeps at that moment does not take it for a dead one's.
        let unfinished = format!("{UNFINISHED}{home}");
        let socket = UnixDatagram::bind(address(dir, &handle, &unfinished)).map_err(fail)?;
        fs::rename(dir.join(unfinished), dir.join(&home)).map_err(fail)?;
        let receiver = socket.try_clone().map_err(fail)?;
        socket.set_nonblocking(false).map_err(fail)?;
        let inbox = Arc::new(Inbox {
            waiters: Mutex::default(),
            losses: broadcast::Sender::new(LOSSES_KEPT),
            wanted: broadcast::Sender::new(LOSSES_KEPT),
        });
        let served = Arc::clone(&inbox);
        start_thread("mutext-wake", move || receive(&receiver, &served))?;
        let wake = Self { inbox, socket, home, dir: dir.to_owned(), handle };
        wake.sweep();
        Ok(wake)
    }

    /// This process's name among the sockets.
    pub(crate) fn home(&self) -> &str {
        &self.home
    }

    /// Registers an attempt: the notify is told when a datagram names it.
    pub(crate) fn expect(&self, lease: LeaseId) -> Expected<'_> {
        let notify = Arc::new(Notify::new());
        self.inbox.lock().insert(lease, Arc::clone(&notify));
        Expected { inbox: &self.inbox, lease, notify }
    }

    pub(crate) fn losses(&self) -> broadcast::Receiver<LeaseId> {
        self.inbox.losses.subscribe()
    }

    pub(crate) fn wanted(&self) -> broadcast::Receiver<LeaseId> {
        self.inbox.wanted.subscribe()
    }

    /// Tells the process at `home` about a lease; never blocks.
    pub(crate) fn tell(&self, home: &str, news: News, lease: LeaseId) -> Delivery {
        if home == self.home {
            self.inbox.deliver(news, lease);
            return Delivery::Alive;
        }
        let mut datagram = [0; 17];
        datagram[0] = match news {
            News::Granted => b'G',
            News::Lost => b'L',
            News::Wanted => b'W',
        };
        datagram[1..].copy_from_slice(lease.as_bytes());
        let sent = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.send_to(&datagram, address(&self.dir, &self.handle, home))
        });
        self.judge(home, sent.map(drop))
    }

    /// Whether the process at `home` still lives.
    pub(crate) fn is_alive(&self, home: &str) -> bool {
        if home == self.home {
            return true;
        }
        let knock = UnixDatagram::unbound().and_then(|socket| socket.connect(address(&self.dir, &self.handle, home)));
        self.judge(home, knock) == Delivery::Alive
    }

    fn judge(&self, home: &str, outcome: io::Result<()>) -> Delivery {
        match outcome.map_err(|error| error.kind()) {
            Err(io::ErrorKind::ConnectionRefused) => {
                // Its process ended without taking the socket's file along.
                let _ = fs::remove_file(self.dir.join(home));
                Delivery::Dead
            }
            Err(io::ErrorKind::NotFound) => Delivery::Dead,
            // A full queue, or too many open files here: no proof of death.
            Ok(()) | Err(_) => Delivery::Alive,
        }
    }

    /// Takes away the sockets that dead processes left.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !name.starts_with(UNFINISHED) {
                self.is_alive(&name);
            } else if entry.metadata().is_ok_and(|file| file.modified().is_ok_and(is_old)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

fn is_old(modified: SystemTime) -> bool {
    modified.elapsed().is_ok_and(|age| age > UNFINISHED_MAX)
}

impl Drop for Wake {
    fn drop(&mut self) {
        // Ends the receiving thread, then the sign of life.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = fs::remove_file(self.dir.join(&self.home));
    }
}

impl Inbox {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<LeaseId, Arc<Notify>>> {
        // The map is whole after any panic: each change is one insertion or removal.
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deliver(&self, news: News, lease: LeaseId) {
        match news {
            News::Granted => {
                if let Some(notify) = self.lock().get(&lease) {
                    notify.notify_one();
                }
            }
            // Nobody listening is no trouble: renewal finds out.
            News::Lost => drop(self.losses.send(lease)),
            News::Wanted => drop(self.wanted.send(lease)),
        }
    }
}

/// An attempt that waits to be told; forgotten when dropped.
#[derive(Debug)]
pub(crate) struct Expected<'a> {
    inbox: &'a Inbox,
    lease: LeaseId,
    notify: Arc<Notify>,
}

impl Expected<'_> {
    /// Ready once the attempt has been named since the last time.
    pub(crate) async fn told(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.inbox.lock().remove(&self.lease);
    }
}

fn receive(socket: &UnixDatagram, inbox: &Inbox) {
    let mut datagram = [0; 32];
    loop {
        match socket.recv(&mut datagram) {
            // A shut-down socket receives nothing, forever.
            Ok(0) => return,
            Ok(17) => {
                let mut id = [0; 16];
                id.copy_from_slice(&datagram[1..17]);
                let news = match datagram[0] {
                    b'L' => News::Lost,
                    b'W' => News::Wanted,
                    _ => News::Granted,
                };
                inbox.deliver(news, LeaseId::from_bytes(id));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::warn!(%error, "the wake-up socket failed; waiters look for themselves from now on");
                return;
            }
        }
    }
}

/// The socket's address: the path, or where that is too long for the kernel, a way through the open directory.
fn address(dir: &Path, handle: &File, home: &str) -> PathBuf {
    let path = dir.join(home);
    if path.as_os_str().len() <= ADDRESS_BYTES_MAX || !cfg!(target_os = "linux") {
        return path;
    }
    PathBuf::from(format!("/proc/self/fd/{}/{home}", handle.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_gone_is_told_apart_from_one_that_lives() {
        let dir = tempfile::tempdir().unwrap();
        let one = Wake::open(dir.path()).unwrap();
        let other = Wake::open(dir.path()).unwrap();
        let home = other.home().to_owned();
        assert!(one.is_alive(&home));
        drop(other);
        assert!(!one.is_alive(&home));
        assert_eq!(one.tell(&home, News::Granted, LeaseId::random()), Delivery::Dead);
    }

    #[tokio::test]
    async fn a_waiter_is_told_once_its_attempt_is_named() {
        // A directory that is too long for a socket's address, as deep work trees are.
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        let (one, other) = (Wake::open(&deep).unwrap(), Wake::open(&deep).unwrap());
        let lease = LeaseId::random();
        let expected = one.expect(lease);
        assert_eq!(other.tell(one.home(), News::Granted, lease), Delivery::Alive);
        expected.told().await;
    }

    #[test]
    fn the_sockets_of_dead_processes_are_swept_away() {
        let dir = tempfile::tempdir().unwrap();
        drop(UnixDatagram::bind(dir.path().join("left-behind")).unwrap());
        let wake = Wake::open(dir.path()).unwrap();
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names, [wake.home()]);
    }
}
