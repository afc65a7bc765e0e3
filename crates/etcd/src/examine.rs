//! What about this cluster would endanger locks, and what to change.

use std::time::Duration;

use mutext_contract::{Deadline, EngineError, Finding, Severity};
use tokio::time::Instant;

use crate::keys::Keys;
use crate::link::Link;
use crate::wire::{MEMBERS, MemberListRequest, RANGE, RangeRequest, StatusResponse};

/// How many round trips are timed.
const ROUND_TRIPS: usize = 20;
/// What a member may hold unless it is told otherwise.
const QUOTA_BYTES: i64 = 2 << 30;

pub(crate) async fn examine(link: &Link, keys: &Keys, deadline: Deadline) -> Result<Vec<Finding>, EngineError> {
    let status = link.status(deadline).await?;
    let mut findings = vec![server(&status), encryption(link), login(link)];
    findings.extend(members(link, deadline).await);
    findings.push(round_trips(link, keys, deadline).await?);
    findings.push(size(&status));
    findings.push(complaints(&status));
    Ok(findings)
}

fn server(status: &StatusResponse) -> Finding {
    let found = format!("etcd {}", status.version);
    if status.leader == 0 {
        let remedy = "see that a majority of its members runs and that they reach each other";
        return Finding::new("server", Severity::Danger, format!("{found}, without a leader"), remedy);
    }
    let leads = status.header.as_ref().is_some_and(|header| header.member_id == status.leader);
    let role = match (status.is_learner, leads) {
        (true, _) => "a learner",
        (false, true) => "the leader",
        (false, false) => "a follower",
    };
    Finding::fine("server", format!("{found}, {role}"))
}

fn encryption(link: &Link) -> Finding {
    if link.options().is_exposed() {
        let remedy = "use etcds:// unless the network between is trusted";
        return Finding::new("encryption", Severity::Warning, "none, and a member is on another machine", remedy);
    }
    Finding::fine("encryption", if link.options().is_encrypted() { "TLS" } else { "none, on this machine alone" })
}

fn login(link: &Link) -> Finding {
    match link.options().login() {
        Some((user, _)) => Finding::fine("user", user),
        None if link.options().is_exposed() => {
            let remedy =
                "enable authentication, and give the agents a user whose role has readwrite on the prefix alone";
            Finding::new("user", Severity::Warning, "none: whoever reaches the members may change locks", remedy)
        }
        None => Finding::fine("user", "none"),
    }
}

/// How many members may fail; nothing where this user may not see them.
async fn members(link: &Link, deadline: Deadline) -> Option<Finding> {
    let members = link.call(&MEMBERS, MemberListRequest {}, deadline).await.ok()?.answer.members;
    let named = link.members();
    let voting = members.iter().filter(|member| !member.is_learner).count();
    let found = format!("{voting}, of which {} may fail; the address names {named}", voting.saturating_sub(1) / 2);
    Some(if voting < 3 {
        let remedy = "run three: with one or two, the failure of one stops the locks (documents stay safe)";
        Finding::new("members", Severity::Note, found, remedy)
    } else if named < voting {
        let remedy = "name all of them in the address, as in etcd://HOST1,HOST2,HOST3: only those are tried";
        Finding::new("members", Severity::Warning, found, remedy)
    } else {
        Finding::fine("members", found)
    })
}

async fn round_trips(link: &Link, keys: &Keys, deadline: Deadline) -> Result<Finding, EngineError> {
    let mut times = Vec::with_capacity(ROUND_TRIPS);
    for _ in 0..ROUND_TRIPS {
        let asked = Instant::now();
        let (key, range_end) = keys.all_news(0);
        link.call(&RANGE, RangeRequest { key, range_end }, deadline).await?;
        times.push(asked.elapsed());
    }
    times.sort_unstable();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    let found = format!("{median:.1?} at the median of {ROUND_TRIPS}, {longest:.1?} at most");
    Ok(if median > Duration::from_millis(20) {
        let remedy =
            "bring the members nearer, and give them quick disks: each lock takes two or three writes of a majority";
        Finding::new("round trip", Severity::Warning, found, remedy)
    } else {
        Finding::fine("round trip", found)
    })
}

fn size(status: &StatusResponse) -> Finding {
    let found = format!("{} MiB", status.db_size >> 20);
    if status.db_size > QUOTA_BYTES / 10 * 8 {
        let remedy = "compact and defragment it (auto-compaction-retention): a member that is full refuses to lock; its quota-backend-bytes is 2 GiB unless it is told otherwise";
        return Finding::new("database", Severity::Warning, found, remedy);
    }
    Finding::fine("database", found)
}

fn complaints(status: &StatusResponse) -> Finding {
    if status.errors.is_empty() {
        return Finding::fine("alarms", "none");
    }
    let remedy =
        "see `etcdctl alarm list`: with NOSPACE it refuses to lock until it is compacted, defragmented and disarmed";
    Finding::new("alarms", Severity::Danger, status.errors.join("; "), remedy)
}
