//! A context's lock table, as it lies in its key, and as others see it.
//!
//! It has no moment in it that anything is decided by: a moment of one machine means nothing on another. How long a
//! lease has stood unchanged is for each process to see ([`crate::sight`]). The two moments that are in it are wall
//! clock, for people to read.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mutext_contract::queue::Entry;
use mutext_contract::{AgentName, Claim, FencingToken, Holder, Holding, LeaseId, LockRequest, LockTable, Loss, Waiter};
use serde::{Deserialize, Serialize};

/// The version of this format. A later one is refused, not guessed at.
pub(crate) const VERSION: u32 = 1;
/// A transaction has at most half a mebibyte, and values in it take a third more.
const BYTES_MAX: usize = 360 << 10;
/// What a lease says more than the request that it was, at most.
const GRANT_BYTES: usize = 96;
/// What ends that are remembered may take.
const ENDED_BYTES: usize = 24 << 10;
/// A grant by another process lasts so long until the new holder's process confirms it.
pub(crate) const CONFIRM_MS: u64 = 5_000;
/// A waiter leaves by itself at its deadline; others remove it so much later, in case it died.
const OVERDUE_MS: u64 = 2_000;
/// The most ends that are remembered.
const ENDED_MAX: usize = 128;
/// How long at least an end is remembered that somebody may still ask for, unless there are too many.
const ENDED_KEPT_MS: u64 = 3_600_000;
/// The grants of one transaction are told apart in the lowest bits of their counters.
const GRANTS_BITS: u32 = 12;
const NTH_MAX: u32 = (1 << GRANTS_BITS) - 1;

/// The table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) version: u32,
    /// Under which tokens are granted now.
    pub(crate) epoch: u64,
    /// The index of the version that this one was made from: where the key's own is not higher, Consul has lost what
    /// it knew, and its indexes began anew.
    pub(crate) base: u64,
    /// In the order in which they came.
    pub(crate) rows: Vec<Row>,
    /// The latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ended: Vec<Ended>,
    /// The epoch that was found to be over; the next is above it.
    #[serde(skip)]
    pub(crate) over: u64,
}

/// A request that waits or a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) id: LeaseId,
    pub(crate) holder: Holder,
    #[serde(serialize_with = "claims_as_list", deserialize_with = "claims_of_list")]
    pub(crate) claims: Arc<[Claim]>,
    pub(crate) ttl_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// The process that it lives in.
    pub(crate) home: String,
    /// When it was granted or began to wait, by the clock of whoever wrote it: shown, never decided by.
    pub(crate) since_ms: u64,
    /// How long it may wait.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) wait_ms: u64,
    /// Grows with each renewal, so that a lease that is renewed does not stay as it was.
    pub(crate) beat: u64,
    /// None while it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) held: Option<Held>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) keeps: Vec<LeaseId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replaces: Option<LeaseId>,
}

/// What makes a request a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) epoch: u64,
    /// The index of the transaction that granted it. That transaction cannot know it: the next one writes it down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<u64>,
    /// Its place among the grants of that transaction.
    pub(crate) nth: u32,
    /// Its process knows.
    pub(crate) confirmed: bool,
    /// Somebody has watched it for its whole TTL, and it was not renewed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) lapsed: bool,
}

impl Held {
    /// The token's counter; the index is known by now.
    fn counter(&self) -> u64 {
        (self.at.unwrap_or(0) << GRANTS_BITS) | u64::from(self.nth.min(NTH_MAX))
    }
}

/// That an attempt or a lease was ended by another than its holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) id: LeaseId,
    /// Who revoked it, and why; none where it was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<(AgentName, String)>,
    at_ms: u64,
}

fn claims_as_list<S: serde::Serializer>(claims: &Arc<[Claim]>, serializer: S) -> Result<S::Ok, S::Error> {
    claims[..].serialize(serializer)
}

fn claims_of_list<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Arc<[Claim]>, D::Error> {
    Vec::<Claim>::deserialize(deserializer).map(Arc::from)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX >> 8)
}

/// The wall clock, for people.
pub(crate) fn wall_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, milliseconds)
}

impl Row {
    /// A request that begins to wait.
    pub(crate) fn new(request: &LockRequest, home: &str, wait: Duration) -> Self {
        Self {
            id: request.lease,
            holder: request.holder.clone(),
            claims: Arc::clone(request.claims()),
            ttl_ms: milliseconds(request.ttl.get()),
            reason: request.reason.clone(),
            home: home.to_owned(),
            since_ms: wall_ms(),
            wait_ms: milliseconds(wait).max(1),
            // Asked for again under its old name, it must not look like what it was: whoever has watched that would
            // take it for as old. JSON's readers count exactly up to 53 bits.
            beat: rand::random::<u64>() >> 12,
            held: None,
            keeps: request.keeps.clone(),
            replaces: request.replaces,
        }
    }

    /// How long it lasts unchanged.
    pub(crate) fn lasts_ms(&self) -> u64 {
        match &self.held {
            Some(held) if held.confirmed => self.ttl_ms,
            Some(_) => self.ttl_ms.min(CONFIRM_MS),
            None => self.wait_ms.saturating_add(OVERDUE_MS),
        }
    }

    /// The same as a duration; a day is the most that the contract knows.
    pub(crate) fn lasts(&self) -> Duration {
        Duration::from_millis(self.lasts_ms().min(200_000_000))
    }

    /// Its token, once it is granted.
    pub(crate) fn token(&self) -> Option<FencingToken> {
        self.held.as_ref().map(|held| FencingToken::new(held.epoch, held.counter(), self.id))
    }

    /// As the state machine wants it; `until_ns` is what this process has seen of it.
    fn entry(&self, place: usize, until_ns: i64, now_ns: i64) -> Entry {
        let lapsed = self.held.as_ref().is_some_and(|held| held.lapsed);
        Entry {
            place: i64::try_from(place).unwrap_or(i64::MAX),
            id: self.id,
            holder: self.holder.clone(),
            claims: Arc::clone(&self.claims),
            ttl_ns: i64::try_from(self.ttl_ms).unwrap_or(i64::MAX).saturating_mul(1_000_000),
            reason: None,
            home: String::new(),
            since_ns: 0,
            until_ns: if lapsed { until_ns.min(now_ns) } else { until_ns },
            counter: self.held.as_ref().map(Held::counter),
            keeps: Vec::new(),
            replaces: self.replaces,
            spare: 0,
        }
    }
}

impl Table {
    /// An empty one, which begins an epoch.
    pub(crate) const fn new(epoch: u64) -> Self {
        Self { version: VERSION, epoch, base: 0, rows: Vec::new(), ended: Vec::new(), over: 0 }
    }

    /// Reads a key's value. Grants of its very version get its index.
    pub(crate) fn read(value: &[u8], index: u64) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let version = serde_json::from_slice::<Version>(value).map_err(|error| error.to_string())?.version;
        if version != VERSION {
            return Err(format!("it has version {version}, and this build knows {VERSION}"));
        }
        let mut table = serde_json::from_slice::<Self>(value).map_err(|error| error.to_string())?;
        table.granted_at(index);
        Ok(table)
    }

    /// What was granted in this version was granted at its index. Where that is not above the index that the version was
    /// made from, indexes began anew: what was granted at it must not be believed, and another epoch must begin.
    pub(crate) fn granted_at(&mut self, index: u64) {
        if self.base >= index {
            self.end_epoch();
            self.rows.retain(|row| row.held.as_ref().is_none_or(|held| held.at.is_some()));
        }
        for held in self.rows.iter_mut().filter_map(|row| row.held.as_mut()).filter(|held| held.at.is_none()) {
            held.at = Some(index);
        }
    }

    /// Nothing more is granted under the epoch, which is remembered: another must begin.
    pub(crate) fn end_epoch(&mut self) {
        self.over = self.over.max(self.epoch);
        self.epoch = 0;
    }

    /// How many bytes it may have. Newcomers leave room for what follows without them: each request that waits becomes a
    /// lease, and ends are remembered. Otherwise whoever gives something back would find no room for that.
    pub(crate) fn bytes_max(&self, has_newcomers: bool) -> usize {
        let waiting = self.rows.iter().filter(|row| row.held.is_none()).count();
        let room = if has_newcomers { ENDED_BYTES + waiting * GRANT_BYTES } else { 0 };
        BYTES_MAX.saturating_sub(room)
    }

    pub(crate) fn row(&self, id: LeaseId) -> Option<&Row> {
        self.rows.iter().find(|row| row.id == id)
    }

    pub(crate) fn row_mut(&mut self, id: LeaseId) -> Option<&mut Row> {
        self.rows.iter_mut().find(|row| row.id == id)
    }

    pub(crate) fn remove(&mut self, id: LeaseId) -> Option<Row> {
        let place = self.rows.iter().position(|row| row.id == id)?;
        Some(self.rows.remove(place))
    }

    /// Remembers an end, and forgets those that are long past.
    pub(crate) fn end(&mut self, id: LeaseId, by: Option<(AgentName, String)>) {
        let now_ms = wall_ms();
        self.ended.retain(|ended| ended.id != id && ended.at_ms.saturating_add(ENDED_KEPT_MS) > now_ms);
        if self.ended.len() >= ENDED_MAX {
            self.ended.remove(0);
        }
        self.ended.push(Ended { id, by, at_ms: now_ms });
    }

    pub(crate) fn is_ended(&self, id: LeaseId) -> bool {
        self.ended.iter().any(|ended| ended.id == id)
    }

    /// Why a lease that is not in the table any more was lost.
    pub(crate) fn loss(&self, id: LeaseId) -> Loss {
        let ended = self.ended.iter().find(|ended| ended.id == id).and_then(|ended| ended.by.clone());
        ended.map_or(Loss::Expired, |(by, reason)| Loss::Revoked { by, reason })
    }

    /// The rows in the order in which they are to be served: those that replace a lease before all others.
    pub(crate) fn entries(&self, now_ns: i64, until_ns: impl Fn(&Row) -> i64) -> Vec<Entry> {
        let rows = || self.rows.iter().enumerate();
        let ordered = rows().filter(|(_, row)| row.replaces.is_some() && row.held.is_none());
        let ordered = ordered.chain(rows().filter(|(_, row)| row.replaces.is_none() || row.held.is_some()));
        ordered.map(|(place, row)| row.entry(place, until_ns(row), now_ns)).collect()
    }

    /// The table as others see it.
    pub(crate) fn picture(&self, now_ns: i64, until_ns: impl Fn(&Row) -> i64) -> LockTable {
        let wall = wall_ms();
        let ago = |since: u64| Duration::from_millis(wall.saturating_sub(since));
        let holding = |row: &Row, held: &Held| Holding {
            lease: row.id,
            holder: row.holder.clone(),
            claims: Arc::clone(&row.claims),
            token: (held.epoch, held.counter()),
            held_for: ago(row.since_ms),
            // Others wait a little longer than it lasts.
            remaining: if held.lapsed { Duration::ZERO } else { span(now_ns, until_ns(row)).min(row.lasts()) },
            reason: row.reason.clone(),
        };
        let waiter = |row: &Row| Waiter {
            lease: row.id,
            holder: row.holder.clone(),
            claims: Arc::clone(&row.claims),
            waited: ago(row.since_ms),
            reason: row.reason.clone(),
            keeps: row.keeps.clone(),
            replaces: row.replaces,
        };
        let mut holdings: Vec<Holding> =
            self.rows.iter().filter_map(|row| row.held.as_ref().map(|held| holding(row, held))).collect();
        holdings.sort_by_key(|holding| holding.token);
        let waiting = || self.rows.iter().filter(|row| row.held.is_none());
        let ordered = waiting().filter(|row| row.replaces.is_some());
        let ordered = ordered.chain(waiting().filter(|row| row.replaces.is_none()));
        LockTable { holdings, waiters: ordered.map(waiter).collect() }
    }
}

fn span(from_ns: i64, to_ns: i64) -> Duration {
    u64::try_from(to_ns.saturating_sub(from_ns)).map_or(Duration::ZERO, Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutext_contract::{ContextName, Ttl};

    fn row(agent: &str) -> Row {
        let holder = Holder::new(AgentName::new(agent).unwrap());
        let context = ContextName::new("c").unwrap();
        let request = LockRequest::exclusive(context, holder, Ttl::DEFAULT, "plan.md".parse().unwrap());
        Row::new(&request, "home", Duration::from_secs(1))
    }

    fn granted(nth: u32) -> Held {
        Held { epoch: 3, at: None, nth, confirmed: true, lapsed: false }
    }

    #[test]
    fn a_table_survives_its_text_and_its_grants_get_the_index_that_wrote_them() {
        let mut table = Table::new(3);
        table.rows = vec![
            Row { held: Some(granted(0)), ..row("anna") },
            Row { held: Some(granted(1)), ..row("bert") },
            row("carl"),
        ];
        table.end(LeaseId::random(), Some((AgentName::new("op").unwrap(), "why".to_owned())));
        let read = Table::read(&serde_json::to_vec(&table).unwrap(), 77).unwrap();
        let numbers: Vec<_> = read.rows.iter().map(|row| row.token().map(|token| token.number())).collect();
        assert_eq!(numbers, [Some((3, 77 << 12)), Some((3, (77 << 12) + 1)), None]);
        // A later version does not change them.
        let again = Table::read(&serde_json::to_vec(&read).unwrap(), 90).unwrap();
        assert_eq!(again, read);
    }

    #[test]
    fn where_indexes_began_anew_nothing_of_that_version_is_believed() {
        let mut table = Table::new(3);
        let old = Held { at: Some(80), ..granted(0) };
        table.rows = vec![Row { held: Some(old), ..row("anna") }, Row { held: Some(granted(0)), ..row("bert") }];
        table.base = 90;
        let read = Table::read(&serde_json::to_vec(&table).unwrap(), 50).unwrap();
        assert_eq!((read.epoch, read.rows.len(), &read.rows[0].id), (0, 1, &table.rows[0].id));
    }

    #[test]
    fn a_later_format_is_refused() {
        assert!(Table::read(br#"{"version":2,"else":1}"#, 1).unwrap_err().contains("version 2"));
        assert!(Table::read(b"junk", 1).is_err());
    }

    #[test]
    fn only_so_many_ends_are_remembered() {
        let mut table = Table::new(1);
        let ids: Vec<LeaseId> = (0..ENDED_MAX + 3).map(|_| LeaseId::random()).collect();
        ids.iter().for_each(|id| table.end(*id, None));
        assert_eq!(table.ended.len(), ENDED_MAX);
        assert!(!table.is_ended(ids[2]) && table.is_ended(ids[3]));
    }
}
