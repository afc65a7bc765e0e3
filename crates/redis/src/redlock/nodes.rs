//! The nodes: each asked at the same time, none waited for once enough have answered.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, FuturesUnordered};
use futures_util::{FutureExt, StreamExt};
use mutext_contract::Deadline;
use mutext_reach::Host;
use redis::Value;
use tokio::time::Instant;

use crate::keys::Keys;
use crate::link::{Link, Links, Live, lock};
use crate::options::RedisOptions;
use crate::scripts::Script;

/// How long one node has to be connected to, and to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// The first node is waited for so long, where it is asked before the others.
const FIRST: Duration = Duration::from_millis(100);
/// One that did not is left alone for so long.
const REST: Duration = Duration::from_millis(100);
/// More questions than these do not wait for one node.
const IN_FLIGHT: usize = 512;

/// A node, from all runtimes of this process.
pub(crate) struct Node {
    pub(crate) host: Host,
    pub(crate) links: Links,
    rests_until: Mutex<Option<Instant>>,
    in_flight: AtomicUsize,
}

impl Node {
    /// What a node answers; none where it did not in time.
    pub(crate) async fn run(&self, script: &Script, key: &str, args: &[String]) -> Option<Value> {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) >= IN_FLIGHT {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let counted = Counted(self);
        let value = self.ask(script, key, args).await;
        drop(counted);
        value
    }

    async fn ask(&self, script: &Script, key: &str, args: &[String]) -> Option<Value> {
        if !self.may_be_asked() {
            return None;
        }
        let (link, live) = self.live().await?;
        let keys = [key.to_owned()];
        let mut words = vec![live.run.as_bytes()];
        words.extend(args.iter().map(String::as_bytes));
        match link.attempt(&live, live.run(script, &keys, &words), Deadline::after(PATIENCE)).await {
            Ok(value) => {
                if let Ok(mut rests) = self.rests_until.try_lock() {
                    *rests = None;
                }
                Some(value)
            }
            Err(failed) => {
                tracing::debug!(node = %self.host, ?failed, "no answer");
                self.rest();
                None
            }
        }
    }

    /// A connection to it. One that takes its time is made to the end, whether or not somebody still waits for it.
    async fn live(&self) -> Option<(Arc<Link>, Arc<Live>)> {
        let link = self.links.here().ok()?;
        if let Some(live) = link.current() {
            return Some((link, live));
        }
        let connecting = Arc::clone(&link);
        let connected = tokio::spawn(async move { connecting.connect_once().await });
        if let Ok(Ok(Ok(live))) = tokio::time::timeout(PATIENCE, connected).await {
            return Some((link, live));
        }
        self.rest();
        None
    }

    /// Whether it has not failed lately. Of those who come when its rest is over, one tries, and the others go by.
    fn may_be_asked(&self) -> bool {
        let mut rests = lock(&self.rests_until);
        match *rests {
            None => true,
            Some(until) if Instant::now() < until => false,
            Some(_) => {
                *rests = Some(Instant::now() + 2 * REST);
                true
            }
        }
    }

    fn rest(&self) {
        *lock(&self.rests_until) = Some(Instant::now() + REST);
    }
}

struct Counted<'a>(&'a Node);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

type Answer = BoxFuture<'static, (usize, Option<Value>)>;

/// Whether all nodes are asked at the same time, or the others after the first that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    AllAtOnce,
    OneFirst,
}

/// All of them.
pub(crate) struct Nodes {
    pub(crate) all: Vec<Arc<Node>>,
}

impl Nodes {
    pub(crate) fn new(options: &RedisOptions, keys: &Arc<Keys>, hosts: &[Host]) -> Self {
        let node = |host: &Host| {
            let links = Links::new(Arc::new(options.at(host)), Arc::clone(keys));
            let (rests_until, in_flight) = (Mutex::default(), AtomicUsize::new(0));
            Arc::new(Node { host: host.clone(), links, rests_until, in_flight })
        };
        Self { all: hosts.iter().map(node).collect() }
    }

    /// How many are a majority: any two majorities have a node in common.
    pub(crate) const fn majority(&self) -> usize {
        self.all.len() / 2 + 1
    }

    /// Asks all nodes the same at once; answers come as they come.
    pub(crate) fn ask(
        &self,
        script: &'static Script,
        key: &Arc<str>,
        args: &Arc<Vec<String>>,
    ) -> FuturesUnordered<Answer> {
        let ask = |(index, node): (usize, &Arc<Node>)| {
            let (node, key, args) = (Arc::clone(node), Arc::clone(key), Arc::clone(args));
            async move { (index, node.run(script, &key, &args).await) }.boxed()
        };
        self.all.iter().enumerate().map(ask).collect()
    }

    /// Asks all nodes; in [`Order::OneFirst`] the others only where the first that answers does so `well`.
    pub(crate) fn ask_in(
        &self,
        order: Order,
        script: &'static Script,
        key: &Arc<str>,
        args: &Arc<Vec<String>>,
        well: impl Fn(&Option<Value>) -> bool + Send + 'static,
    ) -> BoxStream<'static, (usize, Option<Value>)> {
        if order == Order::AllAtOnce {
            return self.ask(script, key, args).boxed();
        }
        let one = move |(index, node): (usize, Arc<Node>), key: Arc<str>, args: Arc<Vec<String>>| async move {
            (index, node.run(script, &key, &args).await)
        };
        let (nodes, key, args) = (self.all.clone(), Arc::clone(key), Arc::clone(args));
        let first = async move {
            let mut answers = Vec::new();
            let mut rest = nodes.into_iter().enumerate();
            for node in rest.by_ref() {
                let index = node.0;
                let asked = tokio::time::timeout(FIRST, one(node, Arc::clone(&key), Arc::clone(&args)));
                let answer = asked.await.map_or(None, |(_, value)| value);
                let (has_answered, stops) = (answer.is_some(), answer.is_some() && !well(&answer));
                answers.push((index, answer));
                if stops {
                    return futures_util::stream::iter(answers).boxed();
                }
                if has_answered {
                    break;
                }
            }
            let others: FuturesUnordered<_> = rest.map(|node| one(node, Arc::clone(&key), Arc::clone(&args))).collect();
            futures_util::stream::iter(answers).chain(others).boxed()
        };
        futures_util::stream::once(first).flatten().boxed()
    }

    /// How many listen on a process's channel, summed over the nodes that answer; none where no majority does.
    pub(crate) async fn listeners(&self, homes: &[String]) -> Option<Vec<u64>> {
        let mut command = redis::cmd("PUBSUB");
        command.arg("NUMSUB").arg(homes);
        let (mut sums, mut answered) = (vec![0; homes.len()], 0);
        let mut asked: FuturesUnordered<_> = self.all.iter().map(|node| node.query(&command)).collect();
        while let Some(answer) = asked.next().await {
            let Some(Value::Array(parts)) = answer else { continue };
            answered += 1;
            for (sum, count) in sums.iter_mut().zip(parts.iter().skip(1).step_by(2)) {
                *sum += if let Value::Int(count) = count { count.unsigned_abs() } else { 0 };
            }
        }
        (answered >= self.majority()).then_some(sums)
    }

    /// Tells a process; false where a majority of the nodes have nobody who listens on its channel, and the others do
    /// not answer.
    pub(crate) async fn publish(&self, home: &str, message: &str) -> bool {
        let mut command = redis::cmd("PUBLISH");
        command.arg(home).arg(message);
        let mut deaf = 0;
        let mut asked: FuturesUnordered<_> = self.all.iter().map(|node| node.query(&command)).collect();
        while let Some(answer) = asked.next().await {
            match answer {
                Some(Value::Int(0)) => deaf += 1,
                Some(Value::Int(_)) => return true,
                _ => {}
            }
        }
        deaf < self.majority()
    }
}

impl Node {
    pub(crate) async fn query(&self, command: &redis::Cmd) -> Option<Value> {
        if !self.may_be_asked() {
            return None;
        }
        let (link, live) = self.live().await?;
        let asked = link.attempt(&live, live.query(command), Deadline::after(PATIENCE)).await;
        if asked.is_err() {
            self.rest();
        }
        asked.ok()
    }
}
