//! What about these servers would endanger locks, and what to change.

use std::time::Duration;

use mutext_contract::{Deadline, EngineError, Finding, Severity};
use serde::Deserialize;
use tokio::time::Instant;

use crate::desk::Office;
use crate::kv::CallTrouble;
use crate::options::ConsulOptions;
use crate::trouble;

/// How many round trips are timed.
const ROUND_TRIPS: usize = 20;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Agent {
    config: AgentConfig,
    #[serde(default)]
    debug_config: DebugConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AgentConfig {
    version: String,
    #[serde(default)]
    server: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DebugConfig {
    #[serde(default)]
    dev_mode: bool,
    #[serde(default, rename = "HTTPMaxConnsPerClient")]
    http_max_conns_per_client: Option<u64>,
}

pub(crate) async fn examine(
    office: &Office,
    options: &ConsulOptions,
    deadline: Deadline,
) -> Result<Vec<Finding>, EngineError> {
    let explain = |error| trouble::explain(&office.subject, error);
    let patience = deadline.remaining().max(Duration::from_secs(1));
    let mut findings = Vec::new();
    findings.extend(agent(office, patience).await.map_err(explain)?);
    findings.push(encryption(options));
    findings.push(servers(office, patience).await.map_err(explain)?);
    findings.push(round_trips(office, patience).await.map_err(explain)?);
    findings.push(session(options));
    Ok(findings)
}

/// The agent's version and mode; a note where the token may not see them.
async fn agent(office: &Office, patience: Duration) -> Result<Vec<Finding>, CallTrouble> {
    let reply = match office.consul.read("/v1/agent/self", patience).await {
        Ok(reply) => reply,
        Err(CallTrouble::Refused { status: 403, .. }) => {
            let remedy = "the token may be given agent_prefix \"\" { policy = \"read\" }; locks do not need it";
            return Ok(vec![Finding::new("agent", Severity::Note, "cannot be seen with this token", remedy)]);
        }
        Err(error) => return Err(error),
    };
    let Agent { config, debug_config } = serde_json::from_slice(&reply.body)?;
    let role = if config.server { "a server" } else { "a client" };
    let found = format!("Consul {}, {role}", config.version);
    let mut findings = vec![if is_older_than_1_8(&config.version) {
        Finding::new("agent", Severity::Danger, found, "raise it: locks need Consul 1.8 or later")
    } else {
        Finding::fine("agent", found)
    }];
    if debug_config.dev_mode {
        let remedy = "run it with a data directory: leases go with a restart (nothing is corrupted: holders are told, \
                      and a new epoch begins)";
        findings.push(Finding::new("data", Severity::Warning, "kept in memory alone (-dev)", remedy));
    }
    if let Some(most) = debug_config.http_max_conns_per_client {
        let found = format!("{most}; each process uses two, and more while it is busy");
        findings.push(if most != 0 && most < 100 {
            let remedy = "raise limits.http_max_conns_per_client to 200 or more, or set it to 0 for no limit";
            Finding::new("http_max_conns_per_client", Severity::Warning, found, remedy)
        } else {
            Finding::fine("http_max_conns_per_client", found)
        });
    }
    Ok(findings)
}

fn is_older_than_1_8(version: &str) -> bool {
    let mut parts = version.split(['.', '+', '-']).map_while(|part| part.parse::<u32>().ok());
    (parts.next(), parts.next()) < (Some(1), Some(8))
}

fn encryption(options: &ConsulOptions) -> Finding {
    if options.is_exposed() {
        let remedy = "use consuls:// unless the network between is trusted: the token is sent with each request";
        return Finding::new("encryption", Severity::Warning, "none, and the agent is on another machine", remedy);
    }
    Finding::fine("encryption", if options.is_encrypted() { "TLS" } else { "none, on this machine alone" })
}

async fn servers(office: &Office, patience: Duration) -> Result<Finding, CallTrouble> {
    let leader = office.consul.read("/v1/status/leader", patience).await?;
    let leader: String = serde_json::from_slice(&leader.body)?;
    let peers = office.consul.read("/v1/status/peers", patience).await?;
    let peers: Vec<String> = serde_json::from_slice(&peers.body)?;
    if leader.is_empty() {
        let remedy = "see `consul operator raft list-peers` and the servers' logs: nothing is granted meanwhile";
        return Ok(Finding::new("servers", Severity::Danger, "they have no leader", remedy));
    }
    Ok(match peers.len() {
        1 => {
            let remedy = "run three or five: with one, nothing is granted while it is down";
            Finding::new("servers", Severity::Note, "one", remedy)
        }
        number if number % 2 == 0 => {
            let remedy = "run an odd number: an even one survives no more failures than one less";
            Finding::new("servers", Severity::Note, format!("{number}, led by {leader}"), remedy)
        }
        number => Finding::fine("servers", format!("{number}, led by {leader}")),
    })
}

async fn round_trips(office: &Office, patience: Duration) -> Result<Finding, CallTrouble> {
    let key = office.keys.alive("nobody");
    let mut times = Vec::with_capacity(ROUND_TRIPS);
    for _ in 0..ROUND_TRIPS {
        let asked = Instant::now();
        office.consul.get(&key, patience).await?;
        times.push(asked.elapsed());
    }
    times.sort_unstable();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    let found = format!("{median:.1?} at the median of {ROUND_TRIPS}, {longest:.1?} at most");
    Ok(if median > Duration::from_millis(20) {
        let remedy = "bring the servers nearer: each lock takes one write to take and one to release";
        Finding::new("round trip", Severity::Warning, found, remedy)
    } else {
        Finding::fine("round trip", found)
    })
}

fn session(options: &ConsulOptions) -> Finding {
    let ttl = options.session_ttl();
    let found = format!(
        "ends {:.0?} to {:.0?} after its process died, and {:.1?} later its leases (session_ttl, lock_delay)",
        ttl,
        2 * ttl,
        options.lock_delay(),
    );
    Finding::fine("session", found)
}

#[cfg(test)]
mod tests {
    use super::is_older_than_1_8;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (version, is_older) in [("1.8.7+dfsg1", false), ("1.10.2", false), ("1.7.9", true), ("2.0.0", false)] {
            assert_eq!(is_older_than_1_8(version), is_older, "{version}");
        }
    }
}
