//! Many agents on one lock: from a release to the next grant, how evenly they are served, and how many writes it takes.
//!
//! `cargo bench -p mutext-consul --bench contended` spreads the agents over four clients, each with a session of its own,
//! and prints medians beside the round trip of a bare write in the same run.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mutext_conformance::Epochs;
use mutext_consul::{ConsulLocks, ConsulOptions};
use mutext_contract::{
    Acquisition, AgentName, ContextName, Deadline, EpochSource, Holder, LockRequest, LockService, Ttl,
};
use mutext_testbed::ConsulServer;

const RUN: Duration = Duration::from_secs(6);
const CLIENTS: usize = 4;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What all agents write down.
#[derive(Default)]
struct Protocol {
    released: Mutex<Option<Instant>>,
    hand_overs: Mutex<Vec<Duration>>,
}

/// One agent's grants until `until`.
async fn work(locks: Arc<ConsulLocks>, protocol: Arc<Protocol>, name: String, until: Instant) -> Result<u64, Failure> {
    let (context, holder) = (ContextName::new(name)?, Holder::new(AgentName::new("bench")?));
    let mut grants = 0;
    while Instant::now() < until {
        let request = LockRequest::exclusive(context.clone(), holder.clone(), Ttl::DEFAULT, "plan.md".parse()?);
        let granted = locks.acquire(&request, Deadline::after(Duration::from_secs(60))).await?;
        assert!(matches!(granted, Acquisition::Granted(_)), "a minute is enough for all");
        if let Some(released) = protocol.released.lock().map_err(|_| "a panic elsewhere")?.take() {
            protocol.hand_overs.lock().map_err(|_| "a panic elsewhere")?.push(released.elapsed());
        }
        grants += 1;
        *protocol.released.lock().map_err(|_| "a panic elsewhere")? = Some(Instant::now());
        locks.release(&context, request.lease, Deadline::after(Duration::from_secs(60))).await?;
    }
    Ok(grants)
}

fn median(mut values: Vec<Duration>) -> Duration {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The index of the last write, and how long writing took.
fn write(server: &ConsulServer) -> Result<(u64, Duration), Failure> {
    // What is there already is not written again.
    let path = format!("/v1/kv/other?flags={}", rand::random::<u32>());
    let asked = Instant::now();
    server.api("PUT", &path)?;
    let took = asked.elapsed();
    let said = server.api("GET", "/v1/kv/other")?;
    let said: Vec<serde_json::Value> = serde_json::from_str(&said)?;
    Ok((said.first().and_then(|key| key["ModifyIndex"].as_u64()).ok_or("no index")?, took))
}

#[expect(clippy::print_stdout, reason = "a benchmark's figures are its output")]
#[tokio::main]
async fn main() -> Result<(), Failure> {
    let server = ConsulServer::start()?;
    println!("{}", server.version()?);
    let epochs = Arc::new(Epochs::default());
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let epochs: Arc<dyn EpochSource> = Arc::<Epochs>::clone(&epochs);
        let options = ConsulOptions::parse(&server.url())?;
        clients.push(options.open(epochs, Deadline::after(Duration::from_secs(10))).await?);
    }
    let round_trips = (0..50).map(|_| write(&server)).collect::<Result<Vec<_>, _>>()?;
    let round_trip = median(round_trips.into_iter().map(|(_, took)| took).collect());
    println!("a bare write on a connection of its own: {round_trip:.0?} at the median");
    for agents in [8, 64] {
        let protocol = Arc::<Protocol>::default();
        let until = Instant::now() + RUN;
        let (before, _) = write(&server)?;
        let running: Vec<_> = (0..agents)
            .map(|agent| {
                let (locks, protocol) = (Arc::clone(&clients[agent % CLIENTS]), Arc::clone(&protocol));
                tokio::spawn(work(locks, protocol, format!("agents-{agents}"), until))
            })
            .collect();
        let mut counts = Vec::new();
        for agent in running {
            counts.push(agent.await?? as f64);
        }
        let (after, _) = write(&server)?;
        let grants: f64 = counts.iter().sum();
        let jain = grants * grants / (counts.len() as f64 * counts.iter().map(|count| count * count).sum::<f64>());
        let hand_over = median(std::mem::take(&mut *protocol.hand_overs.lock().map_err(|_| "a panic elsewhere")?));
        let writes = (after - before) as f64 / grants;
        println!(
            "{agents:>3} agents: {grants:.0} grants, release to next grant {hand_over:.0?}, Jain {jain:.4}, {writes:.2} writes a grant"
        );
    }
    Ok(())
}
