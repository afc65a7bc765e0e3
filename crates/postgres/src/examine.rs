//! Looks at the server's version, settings and reach, and says what would endanger what Mutext promises.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use mutext_contract::{Deadline, EngineError, Finding, Severity};
use tokio_postgres::Row;

use crate::link::{Link, Repeat};
use crate::names::Names;
use crate::options::{Host, PostgresOptions};
use crate::presence::Shared;
use crate::schema;

/// So many round trips are timed.
const ROUND_TRIPS: usize = 20;
/// More difference than this between two clocks makes times in histories hard to compare.
const CLOCK_NOTE: Duration = Duration::from_secs(1);
const CLOCK_WARNING: Duration = Duration::from_secs(60);
/// A server further away than this slows each commit down.
const FAR: Duration = Duration::from_millis(10);
/// A notice to oneself takes no longer than this.
const HEARD: Duration = Duration::from_secs(2);
/// A queue of notices that fills up has a listener that does not read.
const QUEUE_FULL: f64 = 0.5;
/// All that one question answers. Of other users' sessions an ordinary user sees that they are there, and not of what
/// kind (`backend_type`): a session with a database and a user is a client's.
const LOOK: &str = "SELECT current_setting('server_version'),
    current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit'),
    pg_is_in_recovery(), current_setting('transaction_read_only'),
    coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false),
    current_setting('max_connections')::int,
    (SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL AND usesysid IS NOT NULL
        AND coalesce(backend_type, 'client backend') = 'client backend'),
    current_setting('idle_in_transaction_session_timeout'), clock_timestamp(),
    (SELECT count(*) FROM pg_stat_get_wal_senders()), current_setting('synchronous_standby_names')";

/// What is to be kept there. Locks need no disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Documents,
    Locks,
}

pub(crate) async fn examine(
    what: What,
    options: &PostgresOptions,
    link: &Link,
    names: &Names,
    deadline: Deadline,
) -> Result<Vec<Finding>, EngineError> {
    let asked = SystemTime::now();
    let rows = link.rows(Repeat::Reads, deadline, LOOK, &[]).await?;
    let clock = asked + asked.elapsed().unwrap_or_default() / 2;
    let version = format!("SELECT version FROM {}.mutext_schema", names.schema);
    let version = link.rows(Repeat::Reads, deadline, &version, &[]).await?;
    let mut trips = Vec::with_capacity(ROUND_TRIPS);
    for _ in 0..ROUND_TRIPS {
        let begun = Instant::now();
        link.rows(Repeat::Reads, deadline, "SELECT 1", &[]).await?;
        trips.push(begun.elapsed());
    }
    trips.sort_unstable();
    let mut findings = Vec::new();
    if let (Some(row), Some(version)) = (rows.first(), version.first()) {
        findings.push(Finding::fine("server version", row.get::<_, String>(0)));
        if what == What::Documents {
            findings.extend(durability(row));
            findings.push(standbys(row.get(11), row.get(12), &row.get::<_, String>(3)));
        }
        findings.push(writable(row));
        findings.push(encryption(options, row.get(6)));
        findings.push(connections(row.get(7), row.get(8), link.size()));
        findings.push(idle(row.get(9)));
        findings.push(pooler(link));
        findings.push(clocks(row.get(10), clock));
        findings.push(round_trip(trips[ROUND_TRIPS / 2], trips[ROUND_TRIPS - 1]));
        findings.push(schema_of(&names.schema, version.get(0)));
    }
    Ok(findings)
}

fn durability(row: &Row) -> [Finding; 3] {
    let setting = |column: usize| row.get::<_, String>(column);
    let on_or = |subject: &str, found: &str, consequence: &str| {
        if found == "on" {
            return Finding::fine(subject, "on");
        }
        Finding::new(subject, Severity::Danger, format!("{found}: {consequence}"), format!("set {subject} = on"))
    };
    let synchronous = match setting(3).as_str() {
        "off" => Finding::new(
            "synchronous_commit",
            Severity::Danger,
            "off: after a crash of the server, commits of its last moments may be missing although acknowledged",
            "set synchronous_commit = on, for the server, this database or this user",
        ),
        other => Finding::fine("synchronous_commit", other),
    };
    [
        on_or("fsync", &setting(1), "after power loss the database may be damaged"),
        on_or("full_page_writes", &setting(2), "a crash in the middle of a write may damage pages"),
        synchronous,
    ]
}

/// What a failover would forget.
fn standbys(connected: i64, synchronous: &str, commit: &str) -> Finding {
    let subject = "standbys";
    if connected == 0 && synchronous.is_empty() {
        return Finding::fine(subject, "none");
    }
    let found = format!("{connected} connected, synchronous_standby_names {synchronous:?}");
    let (severity, remedy) = match (synchronous.is_empty(), connected, commit) {
        (true, _, _) => (
            Severity::Warning,
            "name them in synchronous_standby_names if one of them may take over: else its documents lack the last \
             commits that were acknowledged",
        ),
        (false, 0, "on" | "remote_write" | "remote_apply") => (
            Severity::Danger,
            "bring a standby back, or empty synchronous_standby_names: until then no commit is acknowledged",
        ),
        (false, _, "local" | "off") => (
            Severity::Warning,
            "set synchronous_commit = on: commits do not wait for the standbys that synchronous_standby_names names",
        ),
        _ => return Finding::fine(subject, found),
    };
    Finding::new(subject, severity, found, remedy)
}

fn round_trip(median: Duration, longest: Duration) -> Finding {
    let found = format!("{median:.1?} at the median of {ROUND_TRIPS}, {longest:.1?} at most");
    if median <= FAR {
        return Finding::fine("round trip", found);
    }
    let remedy = "bring the server nearer: each step takes at least one round trip";
    Finding::new("round trip", Severity::Warning, found, remedy)
}

fn writable(row: &Row) -> Finding {
    let (in_recovery, read_only): (bool, String) = (row.get(4), row.get(5));
    let found = match (in_recovery, read_only.as_str()) {
        (true, _) => "the server is a standby",
        (_, "on") => "transactions are read-only",
        _ => return Finding::fine("writes", "allowed"),
    };
    Finding::new("writes", Severity::Danger, found, "connect to the primary, with default_transaction_read_only off")
}

fn encryption(options: &PostgresOptions, encrypted: bool) -> Finding {
    let subject = "encryption";
    let near = match &options.host {
        Host::Socket(_) => return Finding::fine(subject, "none needed on a Unix socket"),
        Host::Name(name) => name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback()),
    };
    match (encrypted, near) {
        (true, _) if options.authenticates_server() => Finding::fine(subject, "TLS, and the server is authenticated"),
        (true, true) => Finding::fine(subject, "TLS"),
        (true, false) => {
            let remedy =
                "use sslmode=verify-full with sslrootcert: whoever can redirect the connection can read it now";
            Finding::new(subject, Severity::Note, "TLS, but the server is not authenticated", remedy)
        }
        (false, true) => Finding::fine(subject, "none, on this machine alone"),
        (false, false) => {
            let remedy = "set ssl = on at the server, and use sslmode=verify-full";
            Finding::new(subject, Severity::Warning, "none: documents cross the network in plain text", remedy)
        }
    }
}

fn connections(most: i32, in_use: i64, pool: usize) -> Finding {
    let left = i64::from(most) - in_use;
    let found = format!("{in_use} of {most} in use; this process uses at most {pool}, and one to listen");
    // Its own are in use already, or come yet.
    if left < i64::try_from(pool).unwrap_or(i64::MAX) {
        let remedy = "lower ?pool=N in each process, or raise max_connections";
        return Finding::new("max_connections", Severity::Warning, found, remedy);
    }
    Finding::fine("max_connections", found)
}

fn idle(timeout: String) -> Finding {
    let subject = "idle_in_transaction_session_timeout";
    if timeout == "0" {
        let remedy =
            "set it, as in 5min: another program that idles in a transaction keeps old rows from being cleaned up";
        return Finding::new(subject, Severity::Note, "0: never", remedy);
    }
    Finding::fine(subject, timeout)
}

/// Behind a pooler, what belongs to a session is lost: so nothing here belongs to one, and nobody can be told.
fn pooler(link: &Link) -> Finding {
    if !link.is_pooled() {
        return Finding::fine("pooler", "none: the session is our own");
    }
    let found = "one is in between: waiters look by themselves, for locks every 20 ms and for commits every 100 ms, and \
                 a dead holder is found by its TTL alone";
    let remedy = "connect to the server itself where hand-over matters; all else works through it";
    Finding::new("pooler", Severity::Note, found, remedy)
}

/// Whether this process hears what is told on its channel, and how soon.
pub(crate) async fn wake_ups(link: &Link, shared: &Shared, deadline: Deadline) -> Result<Finding, EngineError> {
    let subject = "wake-ups";
    if !shared.listens() {
        let remedy = "connect to the server itself, not through a pooler";
        return Ok(Finding::new(subject, Severity::Note, "none: a waiter asks again every 20 ms", remedy));
    }
    let mut echoes = shared.board.echoes();
    shared.board.want(HEARD * 2);
    let until = deadline.min(Deadline::after(HEARD));
    while !shared.board.is_being_told() && !until.has_passed() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (channel, number) = (shared.channel(), rand::random::<u32>());
    let begun = Instant::now();
    let tell = "SELECT pg_notify($1, $2), pg_notification_queue_usage()";
    let rows = link.rows(Repeat::Safe, deadline, tell, &[&channel, &format!("T {number}")]).await?;
    let heard = echoes.wait_for(|last| *last == u64::from(number));
    if !matches!(tokio::time::timeout_at(until.instant(), heard).await, Ok(Ok(_))) {
        let found = format!("nothing was heard within {HEARD:?}: waiters look by themselves");
        let remedy = "see whether the connection that listens was cut, and what is between this process and the server";
        return Ok(Finding::new(subject, Severity::Warning, found, remedy));
    }
    let took = begun.elapsed();
    let full = rows.first().map_or(0.0, |row| row.get::<_, f64>(1));
    let found = format!("heard after {took:.1?}; the server's queue of notices is {:.0} % full", full * 100.0);
    if full < QUEUE_FULL {
        return Ok(Finding::fine(subject, found));
    }
    let remedy = "look for a session that listens and idles in a transaction: it keeps old notices from being dropped";
    Ok(Finding::new(subject, Severity::Warning, found, remedy))
}

fn clocks(theirs: SystemTime, ours: SystemTime) -> Finding {
    let (difference, which) = match theirs.duration_since(ours) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    let found = format!("{difference:.1?} {which} this machine's; safety does not depend on it");
    let severity = match difference {
        difference if difference >= CLOCK_WARNING => Severity::Warning,
        difference if difference >= CLOCK_NOTE => Severity::Note,
        _ => return Finding::fine("server's clock", found),
    };
    Finding::new("server's clock", severity, found, "set both by NTP, so that times in histories can be compared")
}

fn schema_of(schema: &str, version: i32) -> Finding {
    let found = format!("{schema}, version {version}");
    if u32::try_from(version) == Ok(schema::VERSION) {
        return Finding::fine("schema", found);
    }
    let remedy = "another process has raised it meanwhile: upgrade this one too";
    Finding::new("schema", Severity::Warning, format!("{found}; this build is made for {}", schema::VERSION), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failover_would_forget_is_told() {
        assert_eq!(standbys(0, "", "on").severity, Severity::Fine);
        assert_eq!(standbys(2, "", "on").severity, Severity::Warning);
        assert_eq!(standbys(1, "*", "on").severity, Severity::Fine);
        assert_eq!(standbys(1, "*", "local").severity, Severity::Warning);
        assert_eq!(standbys(0, "*", "on").severity, Severity::Danger);
    }

    #[test]
    fn a_server_far_away_is_told() {
        let trip = |median| round_trip(Duration::from_millis(median), Duration::from_millis(90)).severity;
        assert_eq!((trip(1), trip(40)), (Severity::Fine, Severity::Warning));
    }
}
