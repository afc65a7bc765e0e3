//! `locks` and `revoke`: who holds what, and breaking a lease.

use std::num::NonZeroU64;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use mutext::{Claim, ContextName, Holding, LockTable, Mode, Release, Resource, RevocationRecord, Waiter};
use serde_json::{Value, json};

use crate::config::Common;
use crate::error::{CliError, holding, milliseconds};
use crate::exit::Exit;
use crate::output::{Output, span, timestamp};
use crate::watch;

/// Show who holds what, since when, and who waits
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mutext locks\n  mutext locks --json | jq '.leases[] | {agent, waiting}'\n  \
    mutext locks --watch\n  mutext locks --watch --every 5s --json | jq -c '{at, held: [.leases[].agent]}'\n  \
    mutext locks --watch --count 3 > three-looks.txt\n  mutext locks --revoked\n\n\
    A lease that has lapsed stands in nobody's way; its holder keeps it until somebody takes it.\n\n\
    --watch draws a live view on a terminal: q quits, ? shows the keys. In a pipe or a file, and with\n\
    --json, it writes one table or one line of JSON for each look. A lock server that goes away is told\n\
    of and asked again until it is back.")]
pub(crate) struct LocksArgs {
    /// Look again and again, until q or Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Show instead which leases were broken, by whom and why, newest first
    #[arg(long, conflicts_with = "watch")]
    revoked: bool,
    /// How often to look: 100ms to 1day
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = watch::every, requires = "watch")]
    every: Duration,
    /// End after this many looks; when the last of them failed, with its error
    #[arg(long, value_name = "N", requires = "watch")]
    count: Option<NonZeroU64>,
}

/// Break a lease: the next in the queue is served, and the holder is told
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mutext revoke plan.md --reason 'its agent hangs'\n  \
    mutext revoke --lease 9f86d081 --reason 'one of several readers'\n\n\
    The document store refuses the holder's later writes, whoever holds the lock by then; `mutext lock`\n\
    ends the command that runs under the lease. `mutext locks --revoked` shows who broke what, and why.")]
pub(crate) struct RevokeArgs {
    /// The leases on exactly this resource
    #[arg(required_unless_present = "lease")]
    resource: Option<Resource>,
    /// This lease, by its id as `mutext locks` shows it, or the beginning of it
    #[arg(long, value_name = "ID", conflicts_with = "resource")]
    lease: Option<String>,
    /// Why: told to the holder
    #[arg(long, value_name = "TEXT", value_parser = why)]
    reason: String,
}

/// A reason that must be given is to say something.
pub(crate) fn why(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("it is empty; say why, as others will read it".to_owned());
    }
    Ok(text.to_owned())
}

pub(crate) async fn locks(args: LocksArgs, common: &Common) -> Result<ExitCode, CliError> {
    if args.watch {
        return watch::run(args.every, args.count, common).await;
    }
    if args.revoked {
        return revoked(common).await;
    }
    let table = common.with_context(async |context| Ok(context.locks().await?)).await?;
    let answer = picture(&table, &common.context);
    common.out.answer(&answer, || human(&table, common.out))?;
    if table.holdings.is_empty() && table.waiters.is_empty() {
        common.out.remark(&format!("nobody holds a lock in context {}", common.context));
    }
    Ok(Exit::Done.into())
}

/// So many revocations are shown.
const REVOCATIONS: usize = 1000;

async fn revoked(common: &Common) -> Result<ExitCode, CliError> {
    let records = common.with_context(async |context| Ok(context.revocations(REVOCATIONS).await?)).await?;
    let answer = records.iter().map(|RevocationRecord { revocation, at }| {
        json!({
            "at": timestamp(*at),
            "lease": revocation.lease,
            "agent": revocation.holder,
            "claims": revocation.claims[..],
            "by": revocation.by,
            "reason": revocation.reason,
        })
    });
    let answer = json!({ "context": common.context, "revocations": answer.collect::<Vec<_>>() });
    common.out.answer(&answer, || {
        let rows = records.iter().map(|RevocationRecord { revocation, at }| {
            [
                timestamp(*at),
                resources(&revocation.claims),
                revocation.holder.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string),
                revocation.by.to_string(),
                revocation.reason.clone(),
                revocation.lease.to_string()[..12].to_owned(),
            ]
        });
        common.out.table(["when", "resource", "holder", "by", "reason", "lease"], rows.collect())
    })?;
    if records.is_empty() {
        common.out.remark(&format!("no lease was ever broken in context {}", common.context));
    }
    Ok(Exit::Done.into())
}

/// The table as JSON.
pub(crate) fn picture(table: &LockTable, context: &ContextName) -> Value {
    let leases: Vec<Value> = table
        .holdings
        .iter()
        .map(|lease| {
            let mut value = holding(lease);
            value["lapsed"] = json!(lease.remaining.is_zero());
            value["waiting"] = json!(waiting_for(lease, table).map(waiter).collect::<Vec<_>>());
            value
        })
        .collect();
    let waiters = table.waiters.iter().map(|request| {
        let mut value = waiter(request);
        value["ahead"] = json!(ahead(request, table));
        value
    });
    let waiters: Vec<Value> = waiters.collect();
    json!({ "context": context, "leases": leases, "waiters": waiters })
}

pub(crate) fn waiting_for<'a>(lease: &'a Holding, table: &'a LockTable) -> impl Iterator<Item = &'a Waiter> {
    let in_the_way =
        |waiter: &&Waiter| waiter.claims.iter().any(|claim| lease.claims.iter().any(|own| own.conflicts(claim)));
    table.waiters.iter().filter(in_the_way)
}

/// How many requests are to be served before this one.
fn ahead(request: &Waiter, table: &LockTable) -> usize {
    table.position(request.lease).map_or(0, |blocked| blocked.ahead)
}

fn waiter(waiter: &Waiter) -> Value {
    json!({
        "lease": waiter.lease,
        "agent": waiter.holder.agent,
        "claims": waiter.claims[..],
        "waited_ms": milliseconds(waiter.waited),
        "reason": waiter.reason,
    })
}

pub(crate) fn human(table: &LockTable, out: Output) -> String {
    let held = table.holdings.iter().map(|lease| {
        let waiting: Vec<String> = waiting_for(lease, table).map(|waiter| waiter.holder.to_string()).collect();
        [
            resources(&lease.claims),
            mode(&lease.claims),
            lease.holder.to_string(),
            format!("{}.{}", lease.token.0, lease.token.1),
            span(lease.held_for),
            if lease.remaining.is_zero() { "lapsed".to_owned() } else { span(lease.remaining) },
            if waiting.is_empty() { "0".to_owned() } else { format!("{}: {}", waiting.len(), waiting.join(", ")) },
            lease.reason.clone().unwrap_or_default(),
            lease.lease.to_string()[..12].to_owned(),
        ]
    });
    let header = ["resource", "mode", "holder", "token", "held for", "good for", "waiting", "reason", "lease"];
    let mut text = out.table(header, held.collect());
    let queued = table.waiters.iter().map(|waiter| {
        [
            resources(&waiter.claims),
            mode(&waiter.claims),
            waiter.holder.to_string(),
            ahead(waiter, table).to_string(),
            span(waiter.waited),
            waiter.reason.clone().unwrap_or_default(),
        ]
    });
    let queue = out.table(["waiting for", "mode", "agent", "ahead", "since", "reason"], queued.collect());
    if !queue.is_empty() {
        text.push('\n');
        text.push_str(&queue);
    }
    text
}

pub(crate) fn resources(claims: &[Claim]) -> String {
    claims.iter().map(|claim| claim.resource.as_str()).collect::<Vec<_>>().join(", ")
}

/// One word for the request: `mutext lock` claims all of its resources in one mode, other programs may not.
pub(crate) fn mode(claims: &[Claim]) -> String {
    let shared = claims.iter().filter(|claim| claim.mode == Mode::Shared).count();
    match shared {
        0 => Mode::Exclusive.to_string(),
        n if n == claims.len() => Mode::Shared.to_string(),
        _ => "mixed".to_owned(),
    }
}

pub(crate) async fn revoke(args: RevokeArgs, common: &Common) -> Result<ExitCode, CliError> {
    let revoked = common
        .with_context(async |context| {
            let mut revoked = Vec::new();
            for lease in chosen(&args, context.locks().await?.holdings)? {
                // One that ended by itself meanwhile is not ours to report.
                if context.revoke(lease.lease, &args.reason).await? == Release::Released {
                    revoked.push(lease);
                }
            }
            Ok(revoked)
        })
        .await?;
    let answer = json!({ "revoked": revoked.iter().map(holding).collect::<Vec<_>>() });
    common.out.answer(&answer, || {
        let line = |lease: &Holding| format!("{}'s lease on {} is revoked\n", lease.holder, resources(&lease.claims));
        revoked.iter().map(line).collect()
    })?;
    Ok(Exit::Done.into())
}

fn chosen(args: &RevokeArgs, holdings: Vec<Holding>) -> Result<Vec<Holding>, CliError> {
    let (name, chosen): (String, Vec<Holding>) = match (&args.lease, &args.resource) {
        (Some(id), _) => {
            let id = id.to_ascii_lowercase();
            if id.len() < 6 {
                return Err(CliError::input(format!("lease id {id:?} is too short: give 6 digits of it or more")));
            }
            let with_id = holdings.into_iter().filter(|lease| lease.lease.to_string().starts_with(&id));
            (format!("with an id that begins with {id:?}"), with_id.collect())
        }
        (None, Some(resource)) => {
            let on_it = |lease: &Holding| lease.claims.iter().any(|claim| claim.resource == *resource);
            (format!("on exactly {resource}"), holdings.into_iter().filter(on_it).collect())
        }
        (None, None) => (String::new(), Vec::new()),
    };
    if chosen.is_empty() {
        return Err(CliError::NotFound(format!("there is no lease {name}; see `mutext locks` for those that are")));
    }
    if args.lease.is_some() && chosen.len() > 1 {
        return Err(CliError::input(format!("there are {} leases {name}; give more digits", chosen.len())));
    }
    Ok(chosen)
}
