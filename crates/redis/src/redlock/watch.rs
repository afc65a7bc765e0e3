//! This process's presence on all nodes, and the look after those who wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mutext_contract::{ContextName, Deadline, EngineError, LeaseId};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::register::Register;
use super::table::{Op, Said, Table};
use crate::board::Board;
use crate::keys::Keys;
use crate::link::Link;
use crate::options::RedisOptions;
use crate::presence::{Ear, Presence, listen, next_round};
use crate::records::{State, Tended};
use crate::trouble;

/// How long looking after waiters may take before it is tried again.
const PATIENCE: Duration = Duration::from_secs(2);
/// A process that nobody has heard of on any node for so long is taken for dead.
const GRACE: Duration = Duration::from_millis(400);
/// An absence that nobody asked about for so long is another one.
const FORGOTTEN: Duration = Duration::from_secs(2);

/// Ready when a majority of the nodes is listened to, and the others too or out of reach.
pub(crate) async fn start(
    options: &RedisOptions,
    register: &Arc<Register>,
    board: &Arc<Board>,
    keys: &Arc<Keys>,
    deadline: Deadline,
) -> Result<Presence, EngineError> {
    let subject = options.to_string();
    let links = options.node_hosts().iter().map(|host| Link::new(Arc::new(options.at(host)), Arc::clone(keys)));
    let links = links.collect::<Result<Vec<_>, _>>()?;
    let (register, board, keys) = (Arc::clone(register), Arc::clone(board), Arc::clone(keys));
    let work = move |ready| async move {
        let listening = async {
            let mut first = Vec::new();
            let mut listening = Vec::new();
            for link in links {
                let (said, says) = oneshot::channel();
                first.push(says);
                let ear = Ear { board: Arc::clone(&board), keys: Arc::clone(&keys), node: None };
                listening.push(tokio::spawn(async move { listen(&link, &ear, said).await }));
            }
            report(first, register.nodes.majority(), ready, keys.subject()).await;
            for task in listening {
                drop(task.await);
            }
        };
        tokio::join!(listening, tend(&register, &board, &keys));
    };
    Presence::start(&subject, deadline, work).await
}

type Outcome = Result<(), EngineError>;

async fn report(
    first: Vec<oneshot::Receiver<Outcome>>,
    majority: usize,
    ready: oneshot::Sender<Outcome>,
    subject: &str,
) {
    let (mut well, mut trouble) = (0, None);
    for says in first {
        match says.await {
            Ok(Ok(())) => well += 1,
            Ok(Err(error)) => trouble = Some(error),
            Err(_) => {}
        }
    }
    drop(ready.send(if well >= majority {
        Ok(())
    } else {
        Err(trouble.unwrap_or_else(|| trouble::unanswered(subject)))
    }));
}

/// Looks after those who wait: whether news was missed, whether whoever holds their lock is dead or lapsed.
async fn tend(register: &Arc<Register>, board: &Board, keys: &Keys) {
    let mut absent: HashMap<String, (Instant, Instant)> = HashMap::new();
    loop {
        for (context, ids) in next_round(board).await {
            let asked = Instant::now();
            match look(register, &context, &ids, keys.home(), &mut absent).await {
                Ok(tended) => board.note(&tended, asked),
                Err(error) => {
                    tracing::debug!(%error, "waiters could not be looked after");
                    board.look_again();
                }
            }
        }
        absent.retain(|_, (_, asked)| asked.elapsed() < FORGOTTEN);
    }
}

async fn look(
    register: &Arc<Register>,
    context: &ContextName,
    ids: &[LeaseId],
    own: &str,
    absent: &mut HashMap<String, (Instant, Instant)>,
) -> Result<Tended, EngineError> {
    let seen = register.peek(context).await.filter(|(table, now_ns)| !table.is_due(*now_ns));
    let (mut table, mut now_ns) = match seen {
        Some(seen) => seen,
        None => see(register, context).await?,
    };
    let mut homes: Vec<String> = ids
        .iter()
        .flat_map(|id| table.homes_before(*id, now_ns))
        .filter(|home| *home != own)
        .map(str::to_owned)
        .collect();
    homes.sort_unstable();
    homes.dedup();
    let dead = the_dead(register, homes, absent).await;
    if !dead.is_empty() {
        register.run(context, Op::Bury(dead), Deadline::after(PATIENCE)).await?;
        (table, now_ns) = see(register, context).await?;
    }
    Ok(told(&table, ids, now_ns))
}

async fn see(register: &Arc<Register>, context: &ContextName) -> Result<(Table, i64), EngineError> {
    match register.run(context, Op::See, Deadline::after(PATIENCE)).await? {
        Said::Seen(table) => {
            let now_ns = table.clock_ns;
            Ok((*table, now_ns))
        }
        _ => Ok((Table::default(), 0)),
    }
}

/// Those of which no node has heard for the whole grace. Should one live, the fencing token keeps its writes out.
async fn the_dead(
    register: &Register,
    homes: Vec<String>,
    absent: &mut HashMap<String, (Instant, Instant)>,
) -> Vec<String> {
    if homes.is_empty() {
        return Vec::new();
    }
    let Some(listeners) = register.nodes.listeners(&homes).await else { return Vec::new() };
    let now = Instant::now();
    let mut dead = Vec::new();
    for (home, listeners) in homes.into_iter().zip(listeners) {
        if listeners > 0 {
            absent.remove(&home);
            continue;
        }
        let since = absent.get(&home).filter(|(_, asked)| asked.elapsed() < FORGOTTEN).map_or(now, |(since, _)| *since);
        if now.duration_since(since) >= GRACE {
            absent.remove(&home);
            dead.push(home);
        } else {
            absent.insert(home, (since, now));
        }
    }
    dead
}

fn told(table: &Table, ids: &[LeaseId], now_ns: i64) -> Tended {
    let state = |id: LeaseId| match table.granted(id) {
        Some(crate::records::Answer::Granted { epoch, count, .. }) => State::Granted { epoch, count },
        _ if table.entries.iter().any(|entry| entry.id == id) => State::Waiting,
        _ if table.is_ended(id) => State::Ended,
        _ => State::Missing,
    };
    let states = ids.iter().map(|id| (*id, state(*id))).collect();
    let next = ids.iter().filter_map(|id| table.next(*id, now_ns)).min();
    Tended { is_over: false, next, states }
}
