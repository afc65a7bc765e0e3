//! What lies in etcd, in the contract's words: one entry for each request and each lease.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mutext_contract::queue::Entry;
use mutext_contract::{
    AgentName, Claim, ContextName, EngineError, Holder, HolderId, Holding, LeaseId, LockRequest, LockTable, Loss, Mode,
    Resource, Ttl, Waiter,
};
use serde::{Deserialize, Serialize};

use crate::keys::{Class, Keys};
use crate::trouble;
use crate::wire::KeyValue;

/// What an entry's value says; names are short, as a table with many waiters is read often.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct About {
    #[serde(rename = "agent")]
    agent: String,
    #[serde(rename = "holder")]
    holder: HolderId,
    claims: Vec<(char, String)>,
    /// In milliseconds.
    pub(crate) ttl: u64,
    /// Milliseconds since 1970, by the clock of whoever wrote it; for show alone.
    since: u64,
    /// How many milliseconds a request waits at most; zero once it is granted.
    pub(crate) wait: u64,
    /// The epoch of a lease's token.
    #[serde(default)]
    pub(crate) epoch: u64,
    /// Whether a lease's time has run out without a renewal; it is its holder's yet, until somebody wants it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) lapsed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    keeps: Vec<LeaseId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replaces: Option<LeaseId>,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn wall_clock() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis)
}

impl About {
    pub(crate) fn of(request: &LockRequest, wait: Duration) -> Self {
        let letter = |mode| if mode == Mode::Exclusive { 'X' } else { 'S' };
        let claim = |claim: &Claim| (letter(claim.mode), claim.resource.as_str().to_owned());
        Self {
            agent: request.holder.agent.as_str().to_owned(),
            holder: request.holder.id,
            claims: request.claims().iter().map(claim).collect(),
            ttl: millis(request.ttl.get()),
            since: wall_clock(),
            wait: millis(wait),
            epoch: 0,
            lapsed: false,
            reason: request.reason.clone(),
            keeps: request.keeps.clone(),
            replaces: request.replaces,
        }
    }

    /// The same as a lease that is granted now.
    pub(crate) fn granted(&self, epoch: u64) -> Self {
        Self { since: wall_clock(), wait: 0, epoch, ..self.clone() }
    }

    /// The same lease, renewed for so long.
    pub(crate) fn renewed(&self, ttl: Ttl) -> Self {
        Self { ttl: millis(ttl.get()), lapsed: false, ..self.clone() }
    }

    /// The same lease, whose time has run out.
    pub(crate) fn lapsed(&self) -> Self {
        Self { lapsed: true, ..self.clone() }
    }

    pub(crate) fn text(&self) -> Vec<u8> {
        // Strings and numbers alone: nothing of it can fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(crate) const fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl)
    }

    fn claims(&self) -> Option<Arc<[Claim]>> {
        let claim = |(letter, resource): &(char, String)| {
            let mode = match letter {
                'X' => Mode::Exclusive,
                'S' => Mode::Shared,
                _ => return None,
            };
            Some(Claim { resource: Resource::new(resource).ok()?, mode })
        };
        self.claims.iter().map(claim).collect()
    }
}

/// One entry, as it lay there at a revision.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) key: Vec<u8>,
    pub(crate) class: Class,
    pub(crate) id: LeaseId,
    /// The revision that made it: a request's place in the queue, a lease's token.
    pub(crate) created: i64,
    pub(crate) modified: i64,
    /// The etcd lease of the process that it lives in.
    pub(crate) home: i64,
    pub(crate) about: About,
    /// The same in the queue's words.
    pub(crate) entry: Entry,
}

/// Later than any moment that the queue is judged at.
const NEVER_NS: i64 = i64::MAX / 4;
/// The moment at which the queue is judged: whether a lease has lapsed is written in it, and no clock is asked.
pub(crate) const NOW_NS: i64 = 1;

impl Row {
    /// What one key of a context's table says; none where it is not what we write.
    pub(crate) fn of(keys: &Keys, context: &ContextName, kv: &KeyValue) -> Option<Self> {
        let (class, id) = keys.read(context, &kv.key)?;
        Self::read(class, id, kv)
    }

    fn read(class: Class, id: LeaseId, kv: &KeyValue) -> Option<Self> {
        let about: About = serde_json::from_slice(&kv.value).ok()?;
        let entry = Entry {
            place: kv.create_revision,
            id,
            holder: Holder { agent: AgentName::new(about.agent.as_str()).ok()?, id: about.holder },
            claims: about.claims()?,
            ttl_ns: i64::try_from(about.ttl().as_nanos()).unwrap_or(NEVER_NS),
            reason: about.reason.clone(),
            home: String::new(),
            since_ns: 0,
            until_ns: if about.lapsed { 0 } else { NEVER_NS },
            counter: if class.is_held() { Some(u64::try_from(kv.create_revision).ok()?) } else { None },
            keeps: about.keeps.clone(),
            replaces: about.replaces,
            spare: 0,
        };
        Some(Self {
            key: kv.key.clone(),
            class,
            id,
            created: kv.create_revision,
            modified: kv.mod_revision,
            home: kv.lease,
            about,
            entry,
        })
    }

    /// How long ago it was granted, or began to wait, as far as two clocks agree.
    fn age(&self) -> Duration {
        Duration::from_millis(wall_clock().saturating_sub(self.about.since))
    }

    fn holding(&self, seen_for: Duration) -> Holding {
        let left = self.about.ttl().saturating_sub(seen_for).max(Duration::from_millis(1));
        Holding {
            lease: self.id,
            holder: self.entry.holder.clone(),
            claims: Arc::clone(&self.entry.claims),
            token: (self.about.epoch, self.entry.counter.unwrap_or(0)),
            held_for: self.age(),
            remaining: if self.about.lapsed { Duration::ZERO } else { left },
            reason: self.entry.reason.clone(),
        }
    }

    fn waiter(&self) -> Waiter {
        Waiter {
            lease: self.id,
            holder: self.entry.holder.clone(),
            claims: Arc::clone(&self.entry.claims),
            waited: self.age(),
            reason: self.entry.reason.clone(),
            keeps: self.entry.keeps.clone(),
            replaces: self.entry.replaces,
        }
    }
}

/// The epoch of a context's tokens, and the revision that wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch {
    pub(crate) number: u64,
    /// The cluster that it was begun in: one that was set up anew, or from a backup, begins another.
    pub(crate) cluster: u64,
    pub(crate) modified: i64,
}

impl Epoch {
    pub(crate) fn text(number: u64, cluster: u64) -> Vec<u8> {
        format!("{number} {cluster:x}").into_bytes()
    }

    fn read(kv: &KeyValue) -> Option<Self> {
        let (number, cluster) = std::str::from_utf8(&kv.value).ok()?.split_once(' ')?;
        Some(Self {
            number: number.parse().ok()?,
            cluster: u64::from_str_radix(cluster, 16).ok()?,
            modified: kv.mod_revision,
        })
    }
}

/// A context's leases and requests at one revision.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) revision: i64,
    /// Leases, oldest grant first.
    pub(crate) held: Vec<Row>,
    /// Requests, in the order in which they are to be served.
    pub(crate) waiting: Vec<Row>,
    pub(crate) epoch: Option<Epoch>,
}

impl Table {
    pub(crate) fn read(
        subject: &str,
        keys: &Keys,
        context: &ContextName,
        found: &[KeyValue],
        revision: i64,
    ) -> Result<Self, EngineError> {
        let mut table = Self { revision, held: Vec::new(), waiting: Vec::new(), epoch: None };
        let epoch_key = keys.epoch(context);
        for kv in found {
            if kv.key == epoch_key {
                table.epoch = Some(Epoch::read(kv).ok_or_else(|| trouble::unreadable(subject, "an epoch"))?);
                continue;
            }
            let row = Row::of(keys, context, kv).ok_or_else(|| trouble::unreadable(subject, "a lock table"))?;
            if row.class.is_held() { table.held.push(row) } else { table.waiting.push(row) }
        }
        table.held.sort_by_key(|row| row.created);
        table.waiting.sort_by_key(|row| (row.class != Class::Convert, row.created));
        Ok(table)
    }

    pub(crate) fn waiter(&self, id: LeaseId) -> Option<&Row> {
        self.waiting.iter().find(|row| row.id == id)
    }

    pub(crate) fn lease(&self, id: LeaseId) -> Option<&Row> {
        self.held.iter().find(|row| row.id == id)
    }

    /// All of it in the queue's words: leases, then requests in the order in which they are to be served.
    #[cfg(test)]
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.held.iter().chain(&self.waiting).map(|row| row.entry.clone()).collect()
    }

    /// The table as others are shown it; `seen_for` says how long a lease has been seen without a renewal.
    pub(crate) fn shown(&self, seen_for: impl Fn(&Row) -> Duration) -> LockTable {
        LockTable {
            holdings: self.held.iter().map(|row| row.holding(seen_for(row))).collect(),
            waiters: self.waiting.iter().map(Row::waiter).collect(),
        }
    }
}

/// What is remembered of an end that another made: who revoked it and why, or nothing.
pub(crate) fn revocation(by: &AgentName, reason: &str) -> Vec<u8> {
    // Two strings: nothing of it can fail.
    serde_json::to_vec(&(by.as_str(), reason)).unwrap_or_default()
}

/// Why a lease that is not there was lost.
pub(crate) fn loss(remembered: Option<&KeyValue>) -> Loss {
    let said = remembered.and_then(|kv| serde_json::from_slice::<(String, String)>(&kv.value).ok());
    match said.map(|(by, reason)| (AgentName::new(by), reason)) {
        Some((Ok(by), reason)) => Loss::Revoked { by, reason },
        _ => Loss::Expired,
    }
}
