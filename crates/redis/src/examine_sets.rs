//! What about a set of servers would endanger locks: its Sentinels, its cluster's nodes, its replicas.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;
use mutext_contract::{Deadline, EngineError, Finding, Severity};
use redis::{FromRedisValue, InfoDict};

use crate::cluster::{Cluster, once};
use crate::examine;
use crate::link::Link;
use crate::options::{RedisOptions, Sentinels};
use crate::redlock::Node;
use crate::sentinel;

/// Whether enough Sentinels answer, agree, and have somebody to promote.
pub(crate) async fn sentinels(options: &RedisOptions, sentinels: &Sentinels) -> Vec<Finding> {
    let mut said = Vec::new();
    let mut silent = Vec::new();
    let words = ["MASTER", &sentinels.service];
    let answers = sentinels.hosts.iter().map(|host| sentinel::question(options, sentinels, host, &words));
    for (host, answer) in sentinels.hosts.iter().zip(join_all(answers).await) {
        match answer.ok().and_then(|value| HashMap::<String, String>::from_redis_value(value).ok()) {
            Some(fields) => said.push(fields),
            None => silent.push(host.to_string()),
        }
    }
    let Some(first) = said.first() else {
        let remedy = "bring them back: nobody can say which server is the primary after the next failover";
        return vec![Finding::new("sentinels", Severity::Danger, "none of those in the address answers", remedy)];
    };
    let number = |key: &str| first.get(key).and_then(|value| value.parse::<usize>().ok()).unwrap_or(0);
    let known = number("num-other-sentinels") + 1;
    let found = format!(
        "{} of {} in the address answer; {known} know of each other, quorum {}",
        said.len(),
        sentinels.hosts.len(),
        number("quorum")
    );
    let mut findings = vec![if known < 3 {
        let remedy = "run three on three machines: fewer cannot outvote one that is cut off";
        Finding::new("sentinels", Severity::Warning, found, remedy)
    } else if silent.is_empty() {
        Finding::fine("sentinels", found)
    } else {
        let remedy = format!("see whether {} runs and can be reached from here", silent.join(", "));
        Finding::new("sentinels", Severity::Warning, found, remedy)
    }];
    let primary = |fields: &HashMap<String, String>| {
        format!("{}:{}", fields.get("ip").map_or("?", |ip| ip), fields.get("port").map_or("?", |port| port))
    };
    let named = primary(first);
    findings.push(match said.iter().map(primary).find(|other| *other != named) {
        Some(other) => {
            let remedy = "a failover is under way, or Sentinels are cut off from each other: see their logs";
            Finding::new("primary", Severity::Warning, format!("some name {named}, others {other}"), remedy)
        }
        None => Finding::fine("primary", named),
    });
    let silence = first.get("down-after-milliseconds").map_or("?", |millis| millis);
    let found = format!("{} known, down-after-milliseconds {silence}", number("num-slaves"));
    findings.push(if number("num-slaves") == 0 {
        let remedy = "add a replica: where the primary dies, nobody can take its place";
        Finding::new("failover", Severity::Warning, found, remedy)
    } else {
        Finding::fine("failover", found)
    });
    findings
}

/// What is true of each of several servers, in their order. All are looked at at the same time: one that is away must not
/// take the time that the others need.
async fn each(
    links: impl IntoIterator<Item = Arc<Link>>,
    deadline: Deadline,
) -> Vec<Result<(Vec<Finding>, InfoDict), EngineError>> {
    let look = async |link: Arc<Link>| {
        link.connect_once().await?;
        let findings = examine::one(&link, deadline).await?;
        Ok((findings, link.live(deadline).await?.info.clone()))
    };
    join_all(links.into_iter().map(look)).await
}

/// Whether a grant outlasts a failover.
pub(crate) fn min_replicas(options: &RedisOptions, info: &InfoDict) -> Option<Finding> {
    let (wanted, there) = (options.min_replicas(), info.get::<u32>("connected_slaves").unwrap_or(0));
    if !options.fails_over() {
        return None;
    }
    let found = format!("{wanted}, and {there} are connected");
    Some(if wanted > there {
        let remedy = "bring the replicas back, or lower min_replicas: until then no lock is granted";
        Finding::new("min_replicas", Severity::Danger, found, remedy)
    } else if wanted == 0 {
        let remedy = "min_replicas=1 in the address makes each grant wait for a replica, at one more round trip; without \
                      it a failover may forget the latest grants, whose work is then refused";
        Finding::new("min_replicas", Severity::Note, found, remedy)
    } else {
        Finding::fine("min_replicas", found)
    })
}

/// The nodes of a cluster: whether all slots are served, each master has a replica, and each server is as it should be.
pub(crate) async fn cluster(
    cluster: &Cluster,
    options: &RedisOptions,
    deadline: Deadline,
) -> Result<Vec<Finding>, EngineError> {
    cluster.refresh(deadline).await?;
    let (masters, served) = cluster.census();
    let found =
        format!("{} masters serve {served} of 16384 slots; {} nodes known", masters.len(), cluster.known().len());
    let mut findings = vec![if served < 16_384 {
        let remedy = "bring back the masters that are missing, or give their slots to others: contexts in them have no \
                      locks, and with cluster-require-full-coverage no context has";
        Finding::new("cluster", Severity::Danger, found, remedy)
    } else if masters.len() < 3 {
        let remedy = "run three masters or more: fewer cannot agree on a failover";
        Finding::new("cluster", Severity::Warning, found, remedy)
    } else {
        Finding::fine("cluster", found)
    }];
    let known = cluster.known();
    let pings = join_all(known.iter().map(|host| once(options, host, &["PING"]))).await;
    let unreachable: Vec<String> =
        known.iter().zip(pings).filter(|(_, pong)| pong.is_err()).map(|(host, _)| host.to_string()).collect();
    if !unreachable.is_empty() {
        let remedy = "bring them back, or let the others forget them";
        findings.push(Finding::new(
            "nodes",
            Severity::Warning,
            format!("no answer from {}", unreachable.join(", ")),
            remedy,
        ));
    }
    let links = masters.iter().map(|host| cluster.links(host).here()).collect::<Result<Vec<_>, _>>()?;
    for (host, looked) in masters.iter().zip(each(links, deadline).await) {
        let of_node = |finding: Finding| Finding { subject: format!("{host} {}", finding.subject), ..finding };
        match looked {
            Ok((all, info)) => {
                // What is well is said of the server and of its settings as a whole.
                let worth_saying =
                    |finding: &Finding| finding.severity != Severity::Fine || finding.subject == "server";
                findings.extend(all.into_iter().filter(worth_saying).map(of_node));
                if info.get::<u64>("connected_slaves").unwrap_or(0) == 0 {
                    let remedy = "give it a replica: where it dies, the contexts in its slots have no locks";
                    findings.push(of_node(Finding::new("replicas", Severity::Warning, "none", remedy)));
                }
                findings.extend(min_replicas(options, &info).map(of_node));
            }
            Err(error) => {
                let found = format!("it cannot be examined: {error}");
                findings.push(of_node(Finding::new("server", Severity::Danger, found, "bring it back")));
            }
        }
    }
    Ok(findings)
}

/// Servers that know nothing of each other: whether a majority answers, whether two of them are one, and whether each
/// is as it should be.
pub(crate) async fn nodes(nodes: &[Arc<Node>], deadline: Deadline) -> Result<Vec<Finding>, EngineError> {
    let mut findings = Vec::new();
    let mut runs: HashMap<String, String> = HashMap::new();
    let (mut answering, mut first_error) = (0, None);
    let links = nodes.iter().map(|node| node.links.here()).collect::<Result<Vec<_>, _>>()?;
    for (node, looked) in nodes.iter().zip(each(links, deadline).await) {
        let host = &node.host;
        let of_node = |finding: Finding| Finding { subject: format!("{host} {}", finding.subject), ..finding };
        match looked {
            Ok((all, info)) => {
                answering += 1;
                let run = info.get::<String>("run_id").unwrap_or_default();
                if let Some(other) = runs.insert(run, host.to_string()) {
                    let remedy = "name each server once: one that counts as two decides more than it may";
                    findings.push(of_node(Finding::new(
                        "server",
                        Severity::Danger,
                        format!("the same as {other}"),
                        remedy,
                    )));
                }
                // Leases outlast a restart because of the others, whatever a node keeps.
                let matters = |finding: &Finding| !["appendonly", "replicas"].contains(&finding.subject.as_str());
                let worth_saying =
                    |finding: &Finding| finding.severity != Severity::Fine || finding.subject == "server";
                findings
                    .extend(all.into_iter().filter(|finding| matters(finding) && worth_saying(finding)).map(of_node));
            }
            Err(error) => {
                let remedy = "bring it back: as long as it is away, one more may not fail";
                findings.push(of_node(Finding::new(
                    "server",
                    Severity::Warning,
                    format!("no answer: {error}"),
                    remedy,
                )));
                first_error = Some(error);
            }
        }
    }
    if let Some(error) = first_error.filter(|_| answering == 0) {
        return Err(error);
    }
    let majority = nodes.len() / 2 + 1;
    let found = format!("{answering} of {} answer, {majority} decide", nodes.len());
    let summary = if answering < majority {
        let remedy = "bring them back: without a majority no lock is granted, renewed or released";
        Finding::new("nodes", Severity::Danger, found, remedy)
    } else if answering == majority {
        Finding::new("nodes", Severity::Warning, found, "bring the others back: not one more may fail")
    } else if nodes.len().is_multiple_of(2) {
        let remedy = "an odd number outlives as many failures with one node less";
        Finding::new("nodes", Severity::Note, found, remedy)
    } else {
        Finding::fine("nodes", found)
    };
    findings.insert(0, summary);
    Ok(findings)
}
