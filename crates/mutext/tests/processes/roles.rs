//! What the child processes do. Each says what was acknowledged to it, line by line, as soon as it knows.

use std::io::{BufRead, Write};
use std::time::Duration;

use mutext::{Commit, Content, Context, Document, Error, Mutext, Precondition, Settings, Strategy, Ttl, Wait};

use crate::{appends, claims, mix};

/// One line at once: whoever kills this process must not take an acknowledgement with it.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).expect("the parent listens");
}

/// Waits for a line.
pub(crate) fn hear_from_the_parent() {
    std::io::stdin().lock().read_line(&mut String::new()).expect("the parent speaks");
}

pub(crate) async fn open(address: &str) -> Mutext {
    Mutext::open(&address.parse().unwrap(), None).await.unwrap()
}

pub(crate) fn agent_of(mutext: &Mutext, name: &str) -> Context {
    mutext.context("shared", Settings::new(name.try_into().unwrap())).unwrap()
}

/// An agent with an opening of its own.
pub(crate) async fn agent(address: &str, name: &str) -> Context {
    agent_of(&open(address).await, name)
}

pub(crate) fn milliseconds(text: &str) -> Duration {
    Duration::from_millis(text.parse().unwrap())
}

pub(crate) fn ids(document: Option<&Document>) -> Vec<u64> {
    document.map(|document| document.content.parse().unwrap()).unwrap_or_default()
}

/// The list with `id` at its end.
pub(crate) fn appended(document: Option<&Document>, id: u64) -> Result<Content, Error> {
    let mut ids = ids(document);
    ids.push(id);
    Ok(Content::json(&ids)?)
}

/// Runs `role` in this process.
pub(crate) fn play(role: &str, arguments: &[String]) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        match (role, &arguments[..]) {
            ("mix", [address, index, operations, seed]) => {
                mix::run(address, index.parse().unwrap(), operations.parse().unwrap(), seed.parse().unwrap()).await;
            }
            ("hold", [address, ttl]) => hold(address, milliseconds(ttl)).await,
            ("wait", [address, name, wait]) => queue(address, name, milliseconds(wait)).await,
            ("stale", [address, ttl, how]) => stale(address, milliseconds(ttl), how).await,
            ("stream", [address, first, strategy]) => stream(address, first.parse().unwrap(), strategy).await,
            ("append", [store, locks, name]) => appends::append(store, locks, name).await,
            ("watch", [store, locks, after]) => appends::watch(store, locks, after.parse().unwrap()).await,
            ("claim-in-rounds", [store, locks, name, rounds]) => {
                claims::claim_in_rounds(store, locks, name, rounds.parse().unwrap()).await;
            }
            ("claim-and-keep", [store, locks, ttl]) => claims::claim_and_keep(store, locks, milliseconds(ttl)).await,
            ("wander", [address, elsewhere]) => wander(address, elsewhere).await,
            other => panic!("no such role: {other:?}"),
        }
    });
}

/// Takes the lock, makes three updates under it, and keeps it until it is killed.
async fn hold(address: &str, ttl: Duration) {
    let agent = agent(address, "holder").await;
    let guard = agent.lock("list").ttl(Ttl::new(ttl).unwrap()).await.unwrap();
    for id in 1..=3 {
        let list = guard.get("list").await.unwrap();
        guard.put("list", appended(list.as_ref(), id).unwrap()).await.unwrap();
        say(&format!("ack {id}"));
    }
    say("held");
    let loss = guard.lost().await;
    say(&format!("lost {loss}"));
}

/// Queues for the lock, appends its name's number under it, and gives it back.
async fn queue(address: &str, name: &str, wait: Duration) {
    let agent = agent(address, name).await;
    let guard = agent.lock("list").wait(Wait::new(wait).unwrap()).await.unwrap();
    let (epoch, counter) = guard.token().number();
    say(&format!("granted {epoch} {counter}"));
    let list = guard.get("list").await.unwrap();
    let id = name.trim_start_matches('w').parse().unwrap();
    guard.put("list", appended(list.as_ref(), id).unwrap()).await.unwrap();
    say(&format!("ack {id}"));
    guard.release().await.unwrap();
}

/// Reads under a lease, waits to be told, and then writes, in one of four ways, what it made of what it read.
async fn stale(address: &str, ttl: Duration, how: &str) {
    let agent = agent(address, "stale").await;
    let guard = agent.lock("list").ttl(Ttl::new(ttl).unwrap()).await.unwrap();
    let list = if how == "blind" { agent.get("list").await.unwrap() } else { guard.get("list").await.unwrap() };
    let content = appended(list.as_ref(), 666).unwrap();
    say("read");
    hear_from_the_parent();
    let path = "list".try_into().unwrap();
    let commit = Commit::new(agent.agent().clone());
    let written = match how {
        // With the revision that was read, or without any: the lease alone protects.
        "read" | "blind" => guard.put("list", content).await.map(drop),
        // Past the guard, which knows the time: the store alone decides, by the token.
        "fence" => agent.commit(commit.put(path, content, Precondition::Any).fenced_by(guard.fence())).await.map(drop),
        // The control, unprotected: it writes over what came meanwhile.
        "unprotected" => agent.commit(commit.put(path, content, Precondition::Any)).await.map(drop),
        other => panic!("no such way: {other}"),
    };
    say(&match written {
        Ok(()) => "written".to_owned(),
        Err(Error::LeaseLost { .. }) => "refused LeaseLost".to_owned(),
        Err(error) => format!("refused {error:?}"),
    });
}

/// Appends number after number until it is killed.
async fn stream(address: &str, first: u64, strategy: &str) {
    let agent = agent(address, "stream").await;
    let mut options = agent.update_options();
    if strategy == "set" {
        options.strategy = Strategy::CompareAndSet;
    }
    for id in first.. {
        let change = async |list: Option<Document>| appended(list.as_ref(), id);
        let updated = agent.update_with("list", &options, change).await.unwrap();
        say(&format!("ack {id} {}", updated.revision));
    }
}

/// Opens a store by a relative path, goes elsewhere, and uses it there.
async fn wander(address: &str, elsewhere: &str) {
    let agent = agent(address, "wanderer").await;
    std::env::set_current_dir(elsewhere).unwrap();
    let read = agent.get("list").await;
    say(&match read {
        Ok(list) => format!("read {:?}", ids(list.as_ref())),
        Err(error) => format!("read failed: {error}"),
    });
    say(&match agent.lock("list").wait(Wait::new(Duration::from_millis(600)).unwrap()).await {
        Ok(_) => "granted over a lease that stands".to_owned(),
        Err(Error::Timeout { .. }) => "timeout".to_owned(),
        Err(error) => format!("lock failed: {error}"),
    });
    let update = agent.put("elsewhere", "1", Precondition::Any).await;
    say(&match update {
        Ok(revision) => format!("wrote {revision}"),
        Err(error) => format!("write failed: {error}"),
    });
}
