//! The machine's monotonic clock, which all its processes share, and the id of its present boot.
//!
//! Leases expire by this clock: it never jumps, and it goes on while the machine sleeps.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// Nanoseconds since the machine started.
pub(crate) fn now_ns() -> i64 {
    let time = clock_gettime(CLOCK);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// The instant at which the machine clock shows `at_ns`, never later.
pub(crate) fn instant_at(at_ns: i64) -> Instant {
    let instant = Instant::now();
    let ahead = at_ns.saturating_sub(now_ns());
    u64::try_from(ahead).map_or(instant, |ns| instant + Duration::from_nanos(ns))
}

/// How long ago the machine clock showed `at_ns`.
pub(crate) fn since(at_ns: i64) -> Duration {
    u64::try_from(now_ns().saturating_sub(at_ns)).map_or(Duration::ZERO, Duration::from_nanos)
}

/// Names the present boot: what was leased in an earlier one is gone, and its clock means nothing.
pub(crate) fn boot_id() -> String {
    if let Ok(id) = std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        return id.trim().chars().filter(char::is_ascii_alphanumeric).take(12).collect();
    }
    // Elsewhere, the minute in which the machine started: wall clock less uptime. A clock set by hand gives it
    // another name, and with it a new epoch; the fence keeps that safe.
    let wall = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |wall| wall.as_secs());
    let up = u64::try_from(now_ns() / 1_000_000_000).unwrap_or(0);
    format!("m{}", wall.saturating_sub(up) / 60)
}
