//! One contender: a process of its own that takes and gives back one lock, again and again, and writes down when.
//!
//! It speaks the protocol of an agent: its task on standard input, `ready`, a line, its log.

use std::io::BufRead;
use std::time::{Duration, Instant};

use mutext::{Address, AgentName, Error, Mutext, Settings, Wait};
use serde::{Deserialize, Serialize};

use crate::agent::{AgentError, now_ns, say};

/// How long one acquire may queue: a contender that gives up has not been measured.
const WAIT: Duration = Duration::from_secs(30);

/// What a contender is told to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContenderTask {
    /// Where the documents lie: they mint epochs.
    pub store: Address,
    /// Where the locks lie.
    pub locks: Address,
    /// The context that all contenders share.
    pub context: String,
    /// Which contender, from 0.
    pub number: usize,
    /// For how long it goes on, in milliseconds.
    pub during_ms: u64,
    /// How long it holds the lock each time, in microseconds.
    pub hold_us: u64,
}

/// One time that a contender held the lock: moments in nanoseconds of the machine's monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// When it asked.
    pub asked: u64,
    /// When it certainly held it.
    pub granted: u64,
    /// When it began to give it back.
    pub released: u64,
}

/// What a contender saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContenderLog {
    /// Each time that it held the lock, in order.
    pub held: Vec<Held>,
    /// What went wrong.
    pub errors: Vec<String>,
}

/// The lock that all of them want.
const RESOURCE: &str = "contended";

/// The whole life of a contender process.
pub async fn live() -> Result<(), AgentError> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let task: ContenderTask = serde_json::from_str(&line)?;
    let mutext = Mutext::open(&task.store, Some(&task.locks)).await?;
    let mut settings = Settings::new(AgentName::new(format!("contender-{}", task.number)).map_err(Error::from)?);
    settings.wait = Wait::new(WAIT).map_err(Error::from)?;
    let context = mutext.context(task.context.as_str(), settings)?;
    // Connections and scripts are in place as in any program that has run for a while.
    context.lock(format!("warm-up-{}", task.number).as_str()).await?.release().await?;
    say("ready")?;
    std::io::stdin().lock().read_line(&mut line)?;
    let mut log = ContenderLog::default();
    let until = Instant::now() + Duration::from_millis(task.during_ms);
    while Instant::now() < until {
        let asked = now_ns();
        match context.lock(RESOURCE).await {
            Ok(guard) => {
                let granted = now_ns();
                tokio::time::sleep(Duration::from_micros(task.hold_us)).await;
                let released = now_ns();
                log.held.push(Held { asked, granted, released });
                if let Err(error) = guard.release().await {
                    log.errors.push(error.to_string());
                }
            }
            Err(error) => log.errors.push(error.to_string()),
        }
    }
    mutext.finish().await;
    say(&serde_json::to_string(&log)?)?;
    Ok(())
}
