//! The nodes of a Redis Cluster: which of them serves a context, and following it when it moves.
//!
//! All keys of a context share one hash tag, so that a context lies in one slot and each script has all it needs on
//! one node. Who waits where is told by plain channels, not sharded ones: a process listens on each master, as a
//! script sees the listeners of its own node alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mutext_contract::{ContextName, Deadline, Effect, EngineError, TroubleKind};
use mutext_reach::{Host, Pause};
use redis::{ErrorKind, FromRedisValue, RedisError, ServerErrorKind, Value};
use tokio::sync::watch;

use crate::board::ServerClock;
use crate::hosts::host_told;
use crate::keys::Keys;
use crate::link::{Failed, LONGEST_PAUSE, Link, Links, Live, lock};
use crate::options::RedisOptions;
use crate::trouble;

/// How many slots a cluster has.
const SLOTS: usize = 16_384;
/// One node's answer about the others is waited for so long after the first of them.
const OTHERS: Duration = Duration::from_millis(200);
/// A node that cannot be connected to is asked for so long before the others are asked where its slots are.
const ONE_NODE: Duration = Duration::from_millis(500);
/// Nodes that send a question on to each other more often do not agree yet.
const HOPS: u32 = 4;

/// Which node serves which slot, as far as is known.
#[derive(Default)]
struct Map {
    masters: Vec<Host>,
    /// Indexes of `masters`.
    slots: Vec<Option<usize>>,
    /// All that were ever heard of: whoever of them answers knows the others.
    known: Vec<Host>,
}

impl Map {
    fn host(&self, slot: u16) -> Option<&Host> {
        self.slots.get(usize::from(slot)).copied().flatten().and_then(|index| self.masters.get(index))
    }

    fn learn(&mut self, slot: u16, host: &Host) {
        let index = self.masters.iter().position(|known| known == host).unwrap_or_else(|| {
            self.masters.push(host.clone());
            self.masters.len() - 1
        });
        self.slots.resize(SLOTS, None);
        if let Some(place) = self.slots.get_mut(usize::from(slot)) {
            *place = Some(index);
        }
        self.know(host);
    }

    fn know(&mut self, host: &Host) {
        if !self.known.contains(host) {
            self.known.push(host.clone());
        }
    }
}

/// One line of `CLUSTER NODES`, about a master.
struct Claim {
    host: Host,
    epoch: u64,
    ranges: Vec<(u16, u16)>,
}

/// What one node says: the masters and what they serve, and every other node.
struct Told {
    claims: Vec<Claim>,
    others: Vec<Host>,
}

/// Reads `CLUSTER NODES`, as `asked` answered it. A node that does not know its own address is the one that was asked.
fn read(text: &str, asked: &Host, by_name: bool) -> Told {
    let mut told = Told { claims: Vec::new(), others: Vec::new() };
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, place, flags, _, _, _, epoch, _, ranges @ ..] = &words[..] else { continue };
        let (place, names) = place.split_once(',').unwrap_or((place, ""));
        let Some(mut host) = host_told(place.split('@').next().unwrap_or(place)) else { continue };
        let name = names.split(',').next().unwrap_or_default();
        if by_name && !name.is_empty() && !name.contains('=') {
            // Its certificate names it so.
            name.clone_into(&mut host.name);
        }
        if host.name.is_empty() {
            host.name.clone_from(&asked.name);
        }
        let has = |flag| flags.split(',').any(|other| other == flag);
        if has("noaddr") || has("handshake") {
            continue;
        }
        let range = |text: &&str| {
            let (from, to) = text.split_once('-').unwrap_or((text, text));
            Some((from.parse().ok()?, to.parse().ok()?))
        };
        // Slots on their way stand in brackets, and are still here.
        let ranges: Vec<_> = ranges.iter().filter_map(range).collect();
        if has("master") && !ranges.is_empty() {
            told.claims.push(Claim { host, epoch: epoch.parse().unwrap_or(0), ranges });
        } else {
            told.others.push(host);
        }
    }
    told
}

/// A cluster, for all runtimes of this process.
pub(crate) struct Cluster {
    options: Arc<RedisOptions>,
    keys: Arc<Keys>,
    map: Mutex<Map>,
    links: Mutex<HashMap<Host, Arc<Links>>>,
    clocks: Mutex<HashMap<Host, ServerClock>>,
    refreshing: tokio::sync::Mutex<()>,
    masters: watch::Sender<Vec<Host>>,
}

/// The slot of a context.
fn slot_of(context: &ContextName) -> u16 {
    crc16::State::<crc16::XMODEM>::calculate(context.as_str().as_bytes()) % 16_384
}

impl Cluster {
    pub(crate) fn new(options: Arc<RedisOptions>, keys: Arc<Keys>, hosts: &[Host]) -> Self {
        let map = Map { known: hosts.to_vec(), ..Map::default() };
        Self {
            options,
            keys,
            map: Mutex::new(map),
            links: Mutex::default(),
            clocks: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
            masters: watch::Sender::new(Vec::new()),
        }
    }

    /// The masters, now and whenever they change: a process listens on each.
    pub(crate) fn masters(&self) -> watch::Receiver<Vec<Host>> {
        self.masters.subscribe()
    }

    /// All nodes that are known of.
    pub(crate) fn known(&self) -> Vec<Host> {
        lock(&self.map).known.clone()
    }

    /// One node's connections.
    pub(crate) fn links(&self, host: &Host) -> Arc<Links> {
        let mut links = lock(&self.links);
        let new = || Arc::new(Links::new(Arc::new(self.options.at(host)), Arc::clone(&self.keys)));
        Arc::clone(links.entry(host.clone()).or_insert_with(new))
    }

    /// The masters, and how many slots they serve.
    pub(crate) fn census(&self) -> (Vec<Host>, usize) {
        let map = lock(&self.map);
        (map.masters.clone(), map.slots.iter().flatten().count())
    }

    /// A connection to one node that nobody else uses.
    pub(crate) fn link_of_its_own(&self, host: &Host) -> Result<Link, EngineError> {
        Link::new(Arc::new(self.options.at(host)), Arc::clone(&self.keys))
    }

    pub(crate) fn unreachable(&self) -> EngineError {
        let remedy = "see that the nodes run and can be reached from here";
        EngineError::new(self.options.to_string(), TroubleKind::Unavailable, remedy)
    }

    /// Takes note of a node's clock.
    pub(crate) fn set_clock(&self, host: &Host, clock: ServerClock) {
        lock(&self.clocks).insert(host.clone(), clock);
    }

    /// The clock of the node that serves a context.
    pub(crate) fn clock(&self, context: &ContextName) -> Option<ServerClock> {
        let map = lock(&self.map);
        map.host(slot_of(context)).and_then(|host| lock(&self.clocks).get(host).copied())
    }

    /// Asks all nodes who serves what; of two claims on a slot the later one counts.
    pub(crate) async fn refresh(&self, deadline: Deadline) -> Result<(), EngineError> {
        let Ok(_turn) = self.refreshing.try_lock() else {
            // Somebody asks already: what is found out is good for all.
            drop(tokio::time::timeout_at(deadline.instant(), self.refreshing.lock()).await);
            return Ok(());
        };
        let hosts = lock(&self.map).known.clone();
        let mut asked: FuturesUnordered<_> = hosts.iter().map(|host| self.ask_about(host)).collect();
        let (mut told, mut trouble) = (Vec::new(), None);
        let mut until = deadline;
        while let Ok(Some(answer)) = tokio::time::timeout_at(until.instant(), asked.next()).await {
            match answer {
                Ok(one) => {
                    told.push(one);
                    until = until.min(Deadline::after(OTHERS));
                }
                Err(error) => trouble = Some(error),
            }
        }
        if told.is_empty() {
            return Err(trouble.unwrap_or_else(|| self.unreachable()));
        }
        self.merge(told);
        Ok(())
    }

    fn merge(&self, told: Vec<Told>) {
        let mut map = lock(&self.map);
        let mut epochs = vec![0; SLOTS];
        (map.masters, map.slots) = (Vec::new(), vec![None; SLOTS]);
        // Nodes that nobody knows any more are not asked for ever.
        map.known = self.options.cluster_hosts().unwrap_or_default().to_vec();
        for Told { claims, others } in told {
            for Claim { host, epoch, ranges } in claims {
                for (from, to) in ranges {
                    for slot in from..=to.min(16_383) {
                        let at = usize::from(slot);
                        if map.slots[at].is_none() || epoch > epochs[at] {
                            epochs[at] = epoch;
                            map.learn(slot, &host);
                        }
                    }
                }
            }
            others.iter().for_each(|host| map.know(host));
        }
        self.tell(&map);
    }

    fn tell(&self, map: &Map) {
        self.masters.send_if_modified(|masters| {
            let is_new = *masters != map.masters;
            if is_new {
                masters.clone_from(&map.masters);
            }
            is_new
        });
    }

    async fn ask_about(&self, host: &Host) -> Result<Told, EngineError> {
        let value = once(&self.options, host, &["CLUSTER", "NODES"]).await?;
        let text = String::from_redis_value(value).unwrap_or_default();
        Ok(read(&text, host, self.options.uses_names()))
    }

    async fn host(&self, slot: u16, deadline: Deadline) -> Result<Host, EngineError> {
        let known = || lock(&self.map).host(slot).cloned();
        if let Some(host) = known() {
            return Ok(host);
        }
        self.refresh(deadline).await?;
        known().ok_or_else(|| {
            let remedy = "no node serves the slot of this context: bring its master or a replica back";
            EngineError::new(format!("slot {slot} of {}", self.options), TroubleKind::Unavailable, remedy)
        })
    }

    /// Runs what `ask` asks on the node that serves the context, on another where it has moved or failed over, until
    /// `deadline`. `ask` is told whether an earlier attempt may have happened.
    pub(crate) async fn call<'a, T, F, A>(
        &self,
        context: &ContextName,
        deadline: Deadline,
        mut ask: F,
    ) -> Result<T, EngineError>
    where
        F: FnMut(Arc<Live>, bool) -> A,
        A: Future<Output = Result<T, RedisError>> + 'a,
    {
        let slot = slot_of(context);
        let (mut pause, mut again, mut hops) = (Pause::up_to(LONGEST_PAUSE), false, 0);
        let mut arriving_at: Option<Host> = None;
        loop {
            let effect = if again { Effect::Unknown } else { Effect::None };
            let asking = arriving_at.take();
            let host = match &asking {
                Some(host) => Ok(host.clone()),
                None => self.host(slot, deadline).await,
            };
            let failed = match host {
                Ok(host) => {
                    match one_try(&*self.links(&host).here()?, asking.is_some(), again, deadline, &mut ask).await {
                        Ok(value) => return Ok(value),
                        Err(failed) => failed,
                    }
                }
                Err(error) => Failed::NoConnection(error),
            };
            if let Failed::Refused(error) = &failed
                && hops < HOPS
                && let Some(host) = error.redirect_node().and_then(|(host, _)| host_told(host))
            {
                hops += 1;
                if error.kind() == ErrorKind::Server(ServerErrorKind::Moved) {
                    let mut map = lock(&self.map);
                    map.learn(slot, &host);
                    self.tell(&map);
                } else {
                    arriving_at = Some(host);
                }
                continue;
            }
            hops = 0;
            let (error, refresh) = match failed {
                Failed::Unanswered => {
                    again = true;
                    (trouble::unanswered(&self.options.to_string()), true)
                }
                Failed::NoConnection(error) if error.kind != TroubleKind::Unavailable => {
                    return Err(error.with_effect(effect));
                }
                Failed::NoConnection(error) => (error.with_effect(effect), true),
                Failed::Refused(error) => {
                    let broken = trouble::is_broken(&error);
                    again |= broken;
                    let fails_over = trouble::is_failover(&error);
                    let passing = broken || fails_over || trouble::is_on_its_way(&error) || trouble::is_passing(&error);
                    let effect = if again { Effect::Unknown } else { Effect::None };
                    let told = trouble::explain(&self.options.to_string(), error).with_effect(effect);
                    if !passing {
                        return Err(told);
                    }
                    (told, broken || fails_over)
                }
            };
            if !pause.fits(deadline) {
                return Err(error);
            }
            pause.wait().await;
            if refresh {
                // Whatever becomes of it, the question is asked again until the deadline.
                drop(self.refresh(deadline).await);
            }
        }
    }
}

async fn one_try<'a, T, F, A>(
    link: &Link,
    asking: bool,
    again: bool,
    deadline: Deadline,
    ask: &mut F,
) -> Result<T, Failed>
where
    F: FnMut(Arc<Live>, bool) -> A,
    A: Future<Output = Result<T, RedisError>> + 'a,
{
    let live = link.live(deadline.min(Deadline::after(ONE_NODE))).await.map_err(Failed::NoConnection)?;
    let asked = if asking { Arc::new(live.asking()) } else { Arc::clone(&live) };
    link.attempt(&live, ask(asked, again), deadline).await
}

/// Asks one node one thing, on a connection of its own.
pub(crate) async fn once(options: &RedisOptions, host: &Host, words: &[&str]) -> Result<Value, EngineError> {
    let at = options.at(host);
    let (subject, patience) = (options.to_string(), options.connect_timeout());
    let explain = |error| trouble::explain(&subject, error);
    let config =
        redis::AsyncConnectionConfig::new().set_connection_timeout(Some(patience)).set_response_timeout(Some(patience));
    let ask = async {
        let client = at.client()?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.map_err(explain)?;
        let mut command = redis::Cmd::new();
        words.iter().for_each(|word| {
            command.arg(*word);
        });
        command.query_async::<Value>(&mut connection).await.map_err(explain)
    };
    let answered = tokio::time::timeout(patience, ask).await;
    answered.unwrap_or_else(|_| Err(trouble::unanswered(&subject).with_effect(Effect::None)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_has_the_slot_that_its_hash_tag_has() {
        // As CLUSTER KEYSLOT says.
        assert_eq!(slot_of(&ContextName::new("research-42").unwrap()), 9_392);
        assert_eq!(slot_of(&ContextName::new("a").unwrap()), 15_495);
    }

    #[test]
    fn the_later_claim_on_a_slot_counts() {
        let asked = Host { name: "n1".to_owned(), port: 1 };
        let old = "a 10.0.0.1:1@2 master - 0 0 1 connected 0-100 [5->-b]\nb 10.0.0.2:1@2 slave a 0 0 1 connected";
        let new = "b :1@2,node-b,shard-id=x myself,master - 0 0 7 connected 0-99\n\
                   a 10.0.0.1:1@2,,x=y master,fail - 0 0 1 disconnected 100";
        let options = Arc::new(RedisOptions::parse("redis+cluster://n1:1").unwrap());
        let keys = Arc::new(Keys::new(&options));
        let cluster = Cluster::new(options, keys, std::slice::from_ref(&asked));
        cluster.merge(vec![read(old, &asked, false), read(new, &asked, false)]);
        let map = lock(&cluster.map);
        assert_eq!(map.host(5).unwrap().to_string(), "n1:1");
        assert_eq!(map.host(100).unwrap().to_string(), "10.0.0.1:1");
        assert_eq!(map.host(101), None);
        assert_eq!(map.known.len(), 3);
        assert_eq!(read(new, &asked, true).claims[0].host.name, "node-b");
    }
}
