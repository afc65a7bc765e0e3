//! What a lock of one engine costs where nobody else wants it, and how it passes on where many do.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use mutext::{Address, AgentName, Error, LeaseId, Mutext, Settings};
use serde::{Deserialize, Serialize};

use super::contender::{ContenderLog, ContenderTask, Held};
use crate::process::Process;
use crate::stats::{Distribution, quantile};
use crate::trial::TrialError;

/// Locks taken and given back, one after the other, to be timed and counted, in slices.
const ALONE: usize = 300;
/// Between slices nobody asks for as long, so that what passes then anyway can be told from what locks need.
const SLICE: usize = 20;
/// Before that, so that nothing is done for the first time.
const WARM_UP: usize = 20;
/// How many want one lock at the same time.
pub const CONTENDERS: usize = 8;
/// How long each holds it.
pub const HOLD: Duration = Duration::from_millis(1);

/// One engine's lock, measured once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// From asking to holding, where nobody else wants the lock, in milliseconds; one a lock.
    pub acquire_ms: Vec<f64>,
    /// From giving back to the answer, in milliseconds; one a lock.
    pub release_ms: Vec<f64>,
    /// TCP segments with data that passed on this machine for each such lock, in both directions and between servers,
    /// less those that pass when nobody asks; `None` where the system does not tell.
    pub messages: Option<f64>,
    /// How the lock passed on among those who contended for it.
    pub passing: Passing,
}

/// How one lock passed on among [`CONTENDERS`] that all wanted it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Passing {
    /// From one's giving back to the next one's holding, where that one had asked before, in milliseconds.
    pub hand_over_ms: Vec<f64>,
    /// How often each held it while all contended.
    pub grants: Vec<usize>,
    /// For how long all contended, in milliseconds.
    pub during_ms: f64,
    /// Pairs of holders that certainly held it at the same time.
    pub overlaps: usize,
    /// What went wrong.
    pub errors: Vec<String>,
}

impl Passing {
    /// From what each contender wrote down.
    pub fn of(logs: &[ContenderLog]) -> Self {
        let all: Vec<(usize, Held)> = (0..)
            .zip(logs)
            .flat_map(|(number, log): (usize, _)| log.held.iter().map(move |held| (number, *held)))
            .collect();
        let mut held: Vec<Held> = all.iter().map(|(_, held)| *held).collect();
        held.sort_unstable_by_key(|held| held.granted);
        let pairs = || held.windows(2).map(|pair| (pair[0], pair[1]));
        let ms = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e6;
        let overlaps = pairs().filter(|(one, next)| next.granted < one.released).count();
        let waited = pairs().filter(|(one, next)| next.asked < one.released);
        let hand_over_ms = waited.map(|(one, next)| ms(one.released, next.granted)).collect();
        // All contend from when the last has come until the first goes.
        let from = logs.iter().filter_map(|log| log.held.first()).map(|held| held.asked).max().unwrap_or(0);
        let until = logs.iter().filter_map(|log| log.held.last()).map(|held| held.released).min().unwrap_or(0);
        let within = |number: usize| {
            all.iter().filter(|(one, held)| *one == number && held.granted >= from && held.released <= until).count()
        };
        Self {
            hand_over_ms,
            grants: (0..logs.len()).map(within).collect(),
            during_ms: ms(from, until),
            overlaps,
            errors: logs.iter().flat_map(|log| log.errors.iter().cloned()).collect(),
        }
    }

    /// Jain's index of how evenly the lock was had: 1 where each had it equally often, 1/n where one alone had it
    /// (R. Jain, D. Chiu, W. Hawe, 1984).
    pub fn fairness(&self) -> Option<f64> {
        let (sum, squares) = self.grants.iter().fold((0.0, 0.0), |(sum, squares), grants| {
            let grants = *grants as f64;
            (sum + grants, squares + grants * grants)
        });
        (squares > 0.0).then(|| sum * sum / (self.grants.len() as f64 * squares))
    }

    /// How often the lock was had, a second.
    pub fn per_second(&self) -> Option<f64> {
        let grants: usize = self.grants.iter().sum();
        (self.during_ms > 0.0).then(|| grants as f64 * 1000.0 / self.during_ms)
    }

    /// The hand-overs.
    pub fn hand_over(&self) -> Option<Distribution> {
        Distribution::of(self.hand_over_ms.iter().copied())
    }
}

/// Where an engine is measured, and with what.
#[derive(Debug)]
pub(super) struct Ground<'a> {
    pub(super) store: Address,
    pub(super) locks: Address,
    /// The program that lives a contender's life, and its arguments.
    pub(super) contender_command: &'a [OsString],
    pub(super) during: Duration,
}

/// Measures one engine's lock once. Dropping the future kills the contenders.
pub(super) async fn probe(ground: &Ground<'_>) -> Result<Probe, TrialError> {
    let (acquire_ms, release_ms, messages) = alone(ground).await?;
    Ok(Probe { acquire_ms, release_ms, messages, passing: together(ground).await? })
}

/// A context that nobody else has.
fn fresh_context() -> String {
    format!("laboratory-{}", &LeaseId::random().to_string()[..12])
}

type Alone = (Vec<f64>, Vec<f64>, Option<f64>);

/// One after the other, with nobody else.
async fn alone(ground: &Ground<'_>) -> Result<Alone, TrialError> {
    let mutext = Mutext::open(&ground.store, Some(&ground.locks)).await?;
    let settings = Settings::new(AgentName::new("alone").map_err(Error::from)?);
    let context = mutext.context(fresh_context().as_str(), settings)?;
    for _ in 0..WARM_UP {
        context.lock("alone").await?.release().await?;
    }
    let (mut acquire_ms, mut release_ms) = (Vec::with_capacity(ALONE), Vec::with_capacity(ALONE));
    let mut messages = Vec::with_capacity(ALONE / SLICE);
    for _ in 0..ALONE / SLICE {
        let (before, began) = (data_segments(), Instant::now());
        for _ in 0..SLICE {
            let asked = Instant::now();
            let guard = context.lock("alone").await?;
            let granted = Instant::now();
            guard.release().await?;
            acquire_ms.push((granted - asked).as_secs_f64() * 1000.0);
            release_ms.push(granted.elapsed().as_secs_f64() * 1000.0);
        }
        let (after, took) = (data_segments(), began.elapsed());
        // Servers talk among themselves also when nobody asks.
        tokio::time::sleep(took).await;
        if let (Some(before), Some(after), Some(idle)) = (before, after, data_segments()) {
            let (busy, idle) = (after.saturating_sub(before) as f64, idle.saturating_sub(after) as f64);
            messages.push((busy - idle) / SLICE as f64);
        }
    }
    // What else the machine does disturbs some slices and not the middle one.
    messages.sort_by(f64::total_cmp);
    let messages = quantile(&messages, 0.5).map(|messages| messages.max(0.0));
    mutext.finish().await;
    Ok((acquire_ms, release_ms, messages))
}

/// All at once.
async fn together(ground: &Ground<'_>) -> Result<Passing, TrialError> {
    let context = fresh_context();
    let mut contenders = Vec::with_capacity(CONTENDERS);
    for number in 0..CONTENDERS {
        let task = ContenderTask {
            store: ground.store.clone(),
            locks: ground.locks.clone(),
            context: context.clone(),
            number,
            during_ms: u64::try_from(ground.during.as_millis()).unwrap_or(u64::MAX),
            hold_us: u64::try_from(HOLD.as_micros()).unwrap_or(u64::MAX),
        };
        contenders.push(Process::start(format!("contender {number}"), ground.contender_command, None, &task)?);
    }
    for contender in &mut contenders {
        contender.get_ready().await?;
    }
    for contender in &mut contenders {
        contender.go().await?;
    }
    let patience = ground.during + Duration::from_secs(60);
    let mut logs: Vec<ContenderLog> = Vec::with_capacity(CONTENDERS);
    for contender in contenders {
        logs.push(contender.finish(patience).await?);
    }
    Ok(Passing::of(&logs))
}

/// TCP segments with data that this machine has sent so far, without repeats (`TCPOrigDataSent`, "snmp counter" in the
/// kernel's documentation). What passes within one machine counts once each way.
fn data_segments() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/net/netstat").ok()?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let place = names.split_whitespace().position(|word| word == "TCPOrigDataSent")?;
    values.split_whitespace().nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(held: &[(u64, u64, u64)]) -> ContenderLog {
        let ms = |n: u64| n * 1_000_000;
        let held = held.iter().map(|(asked, granted, released)| Held {
            asked: ms(*asked),
            granted: ms(*granted),
            released: ms(*released),
        });
        ContenderLog { held: held.collect(), errors: Vec::new() }
    }

    #[test]
    fn a_hand_over_is_from_giving_back_to_the_next_ones_holding() {
        let passing = Passing::of(&[log(&[(0, 1, 3), (3, 8, 10)]), log(&[(0, 5, 7), (8, 14, 15)])]);
        // The last one asked after the one before had begun to hold, and before it gave back.
        assert_eq!(passing.hand_over_ms, [2.0, 1.0, 4.0]);
        assert_eq!((passing.overlaps, &passing.grants[..]), (0, &[2, 1][..]));
    }

    #[test]
    fn one_who_asks_after_the_lock_was_free_was_handed_nothing() {
        let passing = Passing::of(&[log(&[(0, 1, 3)]), log(&[(4, 5, 7)])]);
        assert_eq!(passing.hand_over_ms, [0.0; 0]);
    }

    #[test]
    fn two_at_once_are_seen() {
        assert_eq!(Passing::of(&[log(&[(0, 1, 5)]), log(&[(0, 3, 7)])]).overlaps, 1);
    }

    #[test]
    fn fairness_is_one_where_all_had_it_equally_often() {
        let passing = |grants: &[usize]| Passing { grants: grants.to_vec(), ..Passing::of(&[]) };
        assert_eq!(passing(&[5, 5, 5, 5]).fairness(), Some(1.0));
        assert_eq!(passing(&[9, 0, 0]).fairness(), Some(1.0 / 3.0));
        assert_eq!(passing(&[0, 0]).fairness(), None);
    }

    #[test]
    fn segments_with_data_are_counted() {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let before = data_segments().unwrap();
        for _ in 0..100 {
            near.write_all(b"ask").unwrap();
            far.read_exact(&mut [0; 3]).unwrap();
            far.write_all(b"say").unwrap();
            near.read_exact(&mut [0; 3]).unwrap();
        }
        let counted = data_segments().unwrap() - before;
        assert!(counted >= 200, "{counted}: each way there is one");
    }
}
