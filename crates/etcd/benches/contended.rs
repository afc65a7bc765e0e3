//! Many agents on one lock: from a release to the next grant, and how evenly they are served.
//!
//! `cargo bench -p mutext-etcd --bench contended` gives each agent a client of its own, as if it were a process, and prints
//! how hand-overs are spread: a few that take long are what agents feel, and no median shows them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mutext_conformance::Epochs;
use mutext_conformance::asking::{Failure, context, request};
use mutext_contract::{Acquisition, Deadline, EpochSource, LockService};
use mutext_etcd::{EtcdLocks, EtcdOptions};
use mutext_testbed::EtcdServer;

const RUN: Duration = Duration::from_secs(6);
const AGENTS: usize = 8;
/// How long each holds it.
const HOLD: Duration = Duration::from_millis(1);
const TTL: Duration = Duration::from_secs(30);

/// When one had asked, held, and gave back.
struct Held {
    asked: Instant,
    granted: Instant,
    released: Instant,
}

/// One agent's grants until `until`.
async fn work(locks: Arc<EtcdLocks>, until: Instant) -> Result<Vec<Held>, Failure> {
    let mut grants = Vec::new();
    while Instant::now() < until {
        let request = request("bench", "plan.md", TTL);
        let asked = Instant::now();
        let acquired = locks.acquire(&request, Deadline::after(Duration::from_secs(60))).await?;
        let granted = Instant::now();
        assert!(matches!(acquired, Acquisition::Granted(_)), "a minute is enough for all");
        tokio::time::sleep(HOLD).await;
        let released = Instant::now();
        locks.release(&context(), request.lease, Deadline::after(Duration::from_secs(60))).await?;
        grants.push(Held { asked, granted, released });
    }
    Ok(grants)
}

/// One that stands so far from the shortest to the longest, in milliseconds.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let place = (sorted.len().saturating_sub(1)) as f64 * part;
    sorted.get(place.round() as usize).copied().unwrap_or(f64::NAN)
}

#[expect(clippy::print_stdout, reason = "a benchmark's figures are its output")]
#[tokio::main]
async fn main() -> Result<(), Failure> {
    for members in [1, 3] {
        let server = EtcdServer::start_cluster(members)?;
        let epochs: Arc<dyn EpochSource> = Arc::new(Epochs::default());
        let options = EtcdOptions::parse(&server.url())?;
        let mut clients = Vec::new();
        for _ in 0..AGENTS {
            clients.push(options.open(Arc::clone(&epochs), Deadline::after(Duration::from_secs(10))).await?);
        }
        let until = Instant::now() + RUN;
        let running: Vec<_> = clients.iter().map(|locks| tokio::spawn(work(Arc::clone(locks), until))).collect();
        let (mut held, mut counts) = (Vec::new(), Vec::new());
        for agent in running {
            let grants = agent.await??;
            counts.push(grants.len() as f64);
            held.extend(grants);
        }
        held.sort_unstable_by_key(|held| held.granted);
        // Only who had asked before was waiting for it.
        let waited = held.windows(2).filter(|pair| pair[1].asked < pair[0].released);
        let mut times: Vec<f64> =
            waited.map(|pair| pair[1].granted.duration_since(pair[0].released).as_secs_f64() * 1e3).collect();
        times.sort_unstable_by(f64::total_cmp);
        let grants: f64 = counts.iter().sum();
        let jain = grants * grants / (counts.len() as f64 * counts.iter().map(|count| count * count).sum::<f64>());
        let spread = [0.5, 0.9, 0.99, 1.0].map(|part| format!("{:.1}", quantile(&times, part))).join(" / ");
        let late = times.iter().filter(|time| **time > 20.0).count();
        println!(
            "{}, {members} members, {AGENTS} agents: {:.0} grants/s, Jain {jain:.4}; release to next grant p50 / p90 / p99 / max {spread} ms, {late} of {} above 20 ms",
            server.version()?,
            grants / RUN.as_secs_f64(),
            times.len(),
        );
    }
    Ok(())
}
