//! How long a lock takes from one process to the next: from just before the release to the grant in the other.
//!
//! Two processes pass a lock to and fro. Beside it, in the same run, the same two pass a raw datagram to and fro:
//! what waking a process costs on this machine, whatever one does. Both are told one way, in microseconds of the
//! clock that processes share.
//!
//! `cargo run --release --package mutext --example hand_over [ROUNDS]`

#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use mutext::{Address, Mutext, Settings, Wait};
use rustix::time::{ClockId, clock_gettime};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Between a grant and the release, so that the other has gone to sleep in the queue and must be woken.
const HOLD: Duration = Duration::from_millis(1);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, dir, name, rounds] = &arguments[..] {
        let (dir, rounds) = (Path::new(dir), rounds.parse()?);
        return if role == "lock" { pass_lock(dir, name, rounds) } else { pass_datagram(dir, name, rounds) };
    }
    let rounds = arguments.first().map_or(Ok(2000), |rounds| rounds.parse())?;
    let datagram = measure("datagram", rounds)?;
    let lock = measure("lock", rounds)?;
    println!("{:>10} {:>8} {:>8} {:>8} {:>8}", "us one way", "passes", "p50", "p90", "p99");
    show("datagram", &datagram);
    show("lock", &lock);
    println!("A hand-over takes {:.1} times a raw datagram at the median.", at(&lock, 50) / at(&datagram, 50));
    Ok(())
}

fn now_ns() -> i64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Runs both processes; each prints what it saw. Returns the microseconds of each pass, in order of size.
fn measure(role: &str, rounds: u64) -> Result<Vec<f64>> {
    let dir = tempfile::tempdir()?;
    let start = |name: &str| {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(role).arg(dir.path()).args([name, &rounds.to_string()]);
        command.stdout(Stdio::piped()).spawn()
    };
    // Each pass has a number; one process says when it let go of it, the other when it had it.
    let mut passes: BTreeMap<i64, (Option<i64>, Option<i64>)> = BTreeMap::new();
    for mut child in [start("one")?, start("other")?] {
        for line in BufReader::new(child.stdout.take().ok_or("no output")?).lines() {
            let line = line?;
            let [what, number, at] = line.split(' ').collect::<Vec<_>>()[..] else { return Err(line.into()) };
            let pass = passes.entry(number.parse()?).or_default();
            if what == "sent" { pass.0 = Some(at.parse()?) } else { pass.1 = Some(at.parse()?) }
        }
        if !child.wait()?.success() {
            return Err(format!("{role} failed").into());
        }
    }
    let mut micros: Vec<f64> =
        passes.into_values().filter_map(|(sent, got)| Some((got? - sent?) as f64 / 1000.0)).collect();
    micros.sort_by(f64::total_cmp);
    Ok(micros)
}

/// Holds the lock for a moment and lets go, again and again; meanwhile the other waits in the queue.
fn pass_lock(dir: &Path, name: &str, rounds: u64) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut log = Vec::new();
    runtime.block_on(async {
        let mutext = Mutext::open(&Address::embedded(dir), None).await?;
        let agent = mutext.context("hand-over", Settings::new(name.try_into()?))?;
        let wait = Wait::new(Duration::from_secs(10))?;
        for _ in 0..rounds / 2 {
            let asked = now_ns();
            let guard = agent.lock("baton").wait(wait).await?;
            let granted = now_ns();
            let number = i64::try_from(guard.token().counter)?;
            // A lock that was free passed from nobody.
            if guard.waited() > HOLD / 2 {
                log.push(format!("got {number} {granted}"));
            }
            tokio::time::sleep(HOLD).await;
            // Let go only of what somebody waits for.
            while agent.locks().await?.waiters.is_empty() && now_ns() - asked < 1_000_000_000 {
                tokio::time::sleep(HOLD).await;
            }
            log.push(format!("sent {} {}", number + 1, now_ns()));
            guard.release().await?;
        }
        mutext.finish().await;
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    log.iter().for_each(|line| println!("{line}"));
    Ok(())
}

/// The same with a bare datagram: one sends, the other is woken, waits a moment, and sends back.
fn pass_datagram(dir: &Path, name: &str, rounds: u64) -> Result<()> {
    let other = dir.join(if name == "one" { "other" } else { "one" });
    let socket = UnixDatagram::bind(dir.join(name))?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    while !other.exists() {
        std::thread::sleep(HOLD);
    }
    let mut log = Vec::new();
    let mut buffer = [0; 17];
    // The one takes the even numbers, the other the odd ones.
    for number in (u64::from(name == "other")..rounds).step_by(2) {
        if number > 0 {
            socket.recv(&mut buffer)?;
            log.push(format!("got {number} {}", now_ns()));
        }
        std::thread::sleep(HOLD);
        // Nobody waits for the last one any more.
        if number + 1 < rounds {
            log.push(format!("sent {} {}", number + 1, now_ns()));
            socket.send_to(&buffer, &other)?;
        }
    }
    log.iter().for_each(|line| println!("{line}"));
    Ok(())
}

fn at(sorted: &[f64], percent: usize) -> f64 {
    sorted.get(sorted.len().saturating_sub(1) * percent / 100).copied().unwrap_or(f64::NAN)
}

fn show(what: &str, sorted: &[f64]) {
    let [p50, p90, p99] = [50, 90, 99].map(|percent| at(sorted, percent));
    println!("{what:>10} {:>8} {p50:>8.0} {p90:>8.0} {p99:>8.0}", sorted.len());
}
