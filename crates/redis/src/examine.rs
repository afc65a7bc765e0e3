//! What about this server would endanger locks, and what to change.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mutext_contract::{Deadline, EngineError, Finding, Severity};
use redis::{FromRedisValue, InfoDict, Value};
use tokio::time::Instant;

use crate::examine_sets;
use crate::link::{Link, Live};
use crate::options::RedisOptions;

/// How many round trips are timed.
const ROUND_TRIPS: usize = 20;

pub(crate) async fn examine(
    link: &Link,
    options: &RedisOptions,
    deadline: Deadline,
) -> Result<Vec<Finding>, EngineError> {
    let mut findings = one(link, deadline).await?;
    if let Some(sentinels) = options.sentinels() {
        findings.extend(examine_sets::sentinels(options, sentinels).await);
    }
    findings.extend(examine_sets::min_replicas(options, &link.live(deadline).await?.info));
    Ok(findings)
}

/// What is true of each server.
pub(crate) async fn one(link: &Link, deadline: Deadline) -> Result<Vec<Finding>, EngineError> {
    let live = link.live(deadline).await?;
    let mut findings = vec![server(link.options(), &live.info), encryption(link)];
    findings.extend(round_trips(link, deadline).await?);
    findings.push(clock(link, deadline).await?);
    findings.extend(memory(link, &live.info, deadline).await?);
    findings.extend(persistence(link, deadline).await?);
    findings.extend(replicas(link, &live.info, deadline).await?);
    findings.extend(keepalive(link, deadline).await?);
    Ok(findings)
}

async fn ask(link: &Link, words: &[&str], deadline: Deadline) -> Result<Value, EngineError> {
    let ask = |live: Arc<Live>, _| async move {
        let mut command = redis::Cmd::new();
        words.iter().for_each(|word| {
            command.arg(*word);
        });
        live.query(&command).await
    };
    link.call(deadline, ask).await
}

/// A setting; none where the user may not see it, as with most services that others run.
async fn setting(link: &Link, name: &str, deadline: Deadline) -> Option<String> {
    let value = ask(link, &["CONFIG", "GET", name], deadline).await.ok()?;
    let settings = std::collections::HashMap::<String, String>::from_redis_value(value).ok()?;
    settings.into_values().next()
}

fn unseen(name: &str) -> Finding {
    let found = "cannot be seen by this user";
    Finding::new(name, Severity::Note, found, "see the server's own configuration; the user may be given CONFIG GET")
}

fn server(options: &RedisOptions, info: &InfoDict) -> Finding {
    let name = if info.get::<String>("valkey_version").is_some() { "Valkey" } else { "Redis" };
    let version = info.get::<String>("valkey_version").or_else(|| info.get("redis_version")).unwrap_or_default();
    let mode = info.get::<String>("redis_mode").unwrap_or_else(|| "standalone".to_owned());
    if mode == "cluster" && options.cluster_hosts().is_none() {
        let remedy = "write redis+cluster://HOST:PORT: this address speaks to one node, which has a part of the keys";
        return Finding::new("server", Severity::Danger, format!("{name} {version}, a node of a cluster"), remedy);
    }
    Finding::fine("server", format!("{name} {version}, {mode}"))
}

fn encryption(link: &Link) -> Finding {
    if link.options().is_exposed() {
        let remedy = "use rediss:// unless the network between is trusted";
        return Finding::new("encryption", Severity::Warning, "none, and the server is on another machine", remedy);
    }
    let encrypted = link.options().to_string().starts_with("rediss");
    Finding::fine("encryption", if encrypted { "TLS" } else { "none, on this machine alone" })
}

async fn round_trips(link: &Link, deadline: Deadline) -> Result<Vec<Finding>, EngineError> {
    let mut times = Vec::with_capacity(ROUND_TRIPS);
    for _ in 0..ROUND_TRIPS {
        let asked = Instant::now();
        ask(link, &["PING"], deadline).await?;
        times.push(asked.elapsed());
    }
    times.sort_unstable();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    let found = format!("{median:.1?} at the median of {ROUND_TRIPS}, {longest:.1?} at most");
    let slow = Duration::from_millis(10);
    Ok(vec![if median > slow {
        let remedy = "bring the server nearer: each lock takes one round trip to take and one to release";
        Finding::new("round trip", Severity::Warning, found, remedy)
    } else {
        Finding::fine("round trip", found)
    }])
}

/// The server's clock decides expiry; clients count by themselves from before they ask, so that a difference does no
/// harm. A large one says that something is wrong with one of the two machines.
async fn clock(link: &Link, deadline: Deadline) -> Result<Finding, EngineError> {
    let (asked, began) = (SystemTime::now(), Instant::now());
    let value = ask(link, &["TIME"], deadline).await?;
    let middle = asked + began.elapsed() / 2;
    let (seconds, micros) = <(u64, u64)>::from_redis_value(value).unwrap_or((0, 0));
    let theirs = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros);
    let (difference, which) = match theirs.duration_since(middle) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(error) => (error.duration(), "behind"),
    };
    let found = format!("{difference:.1?} {which} this machine's");
    Ok(if difference > Duration::from_secs(2) {
        let remedy = "set one of the two right (NTP); locks do not depend on it, times in listings do";
        Finding::new("clock", Severity::Note, found, remedy)
    } else {
        Finding::fine("clock", found)
    })
}

async fn memory(link: &Link, info: &InfoDict, deadline: Deadline) -> Result<Vec<Finding>, EngineError> {
    let limit = info.get::<u64>("maxmemory").unwrap_or(0);
    let used = info.get::<u64>("used_memory").unwrap_or(0);
    let mut findings = Vec::new();
    findings.push(match setting(link, "maxmemory-policy", deadline).await {
        Some(policy) if policy == "noeviction" => Finding::fine("maxmemory-policy", policy),
        Some(policy) => {
            let severity =
                if limit == 0 || policy.starts_with("volatile") { Severity::Warning } else { Severity::Danger };
            let remedy = "set it to noeviction: a server short of memory must refuse, not drop locks that are held";
            Finding::new("maxmemory-policy", severity, policy, remedy)
        }
        None => unseen("maxmemory-policy"),
    });
    if limit > 0 {
        let found = format!("{} of {} MiB used", used >> 20, limit >> 20);
        findings.push(if used > limit / 10 * 9 {
            let remedy = "raise it, or give the locks a server of their own: a full server refuses to lock";
            Finding::new("maxmemory", Severity::Warning, found, remedy)
        } else {
            Finding::fine("maxmemory", found)
        });
    }
    Ok(findings)
}

async fn persistence(link: &Link, deadline: Deadline) -> Result<Vec<Finding>, EngineError> {
    let appends = setting(link, "appendonly", deadline).await;
    let syncs = setting(link, "appendfsync", deadline).await;
    let safe = "nothing is corrupted: a restart begins a new epoch, and older holders are refused";
    Ok(vec![match (appends.as_deref(), syncs.as_deref()) {
        (None, _) => unseen("appendonly"),
        (Some("yes"), Some("always")) => {
            Finding::fine("appendonly", "yes, appendfsync always: leases survive a restart")
        }
        (Some("yes"), syncs) => {
            let found =
                format!("yes, appendfsync {}: the leases of the last second may go with a crash", syncs.unwrap_or("?"));
            Finding::new("appendonly", Severity::Note, found, format!("set appendfsync to always to keep them; {safe}"))
        }
        (Some(_), _) => {
            let found = "no: leases go with a restart, and their holders are told that they are lost";
            Finding::new("appendonly", Severity::Warning, found, format!("set it to yes to keep them; {safe}"))
        }
    }])
}

async fn replicas(link: &Link, info: &InfoDict, deadline: Deadline) -> Result<Vec<Finding>, EngineError> {
    let connected = info.get::<u64>("connected_slaves").unwrap_or(0);
    let wanted = setting(link, "min-replicas-to-write", deadline).await;
    let wanted_number = wanted.as_deref().and_then(|wanted| wanted.parse::<u64>().ok());
    let found = |wanted: &str| format!("{connected} connected, min-replicas-to-write {wanted}");
    Ok(vec![match (connected, wanted.as_deref(), wanted_number) {
        (_, Some(wanted), Some(number)) if number > connected => {
            let remedy =
                "bring the replicas back, or lower min-replicas-to-write: until then the server grants nothing";
            Finding::new("replicas", Severity::Danger, found(wanted), remedy)
        }
        (0, _, _) => Finding::fine("replicas", "none"),
        (_, None, _) => unseen("min-replicas-to-write"),
        (_, Some("0"), _) => {
            let remedy = "set min-replicas-to-write to 1: a primary that is cut off from its replicas then grants \
                          nothing that a failover would forget (the epoch keeps such grants from doing harm, their \
                          work is refused)";
            Finding::new("replicas", Severity::Warning, found("0"), remedy)
        }
        (_, Some(wanted), _) => Finding::fine("replicas", found(wanted)),
    }])
}

/// A process is alive as long as it listens; the server learns by its probes alone that a machine is gone without a
/// word.
async fn keepalive(link: &Link, deadline: Deadline) -> Result<Vec<Finding>, EngineError> {
    let Some(seconds) = setting(link, "tcp-keepalive", deadline).await else { return Ok(Vec::new()) };
    // The server's own default.
    let most = 300;
    Ok(vec![match seconds.parse::<u64>() {
        Ok(seconds) if (1..=most).contains(&seconds) => Finding::fine("tcp-keepalive", format!("{seconds} s")),
        _ => {
            let found = if seconds == "0" { "0: never".to_owned() } else { format!("{seconds} s") };
            let remedy = "set it to 10: a machine that loses power then looks alive for 20 s at most, and its leases \
                          need not sit out a long TTL";
            Finding::new("tcp-keepalive", Severity::Note, found, remedy)
        }
    }])
}
