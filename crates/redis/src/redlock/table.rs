//! One context's lock table as a value: what each operation makes of it. No clock and no connection inside: the rule
//! of who is next is `contract`'s, and whoever calls says what time it is by the table's own clock.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mutext_contract::queue::{self, Entry};
use mutext_contract::{
    AgentName, Blocked, Claim, Holder, HolderId, Holding, LeaseId, LockTable, Loss, Release, Waiter,
};
use serde::{Deserialize, Serialize};

use crate::records::{Answer, Reader};

/// A grant that its asker is yet to learn of lasts so long until a renewal confirms it.
pub(crate) const CONFIRM: Duration = Duration::from_secs(2);
/// How long it is remembered that an attempt or a lease was ended by another, and of how many at most.
const ENDED_KEPT_NS: i64 = 3_600_000_000_000;
const ENDED_MOST: usize = 256;
/// How many changes it is known of that they led to the table.
const PAST_KEPT: usize = 4;
/// The table travels as a whole: more requests and leases than these are refused.
const ENTRIES_MOST: usize = 2_048;

/// What is to be done. Each is as good twice as once: what became of an earlier try may be unknown.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// An attempt looks whether it is granted, and queues for so long where it is not.
    Look {
        attempt: Box<Entry>,
        wait_ns: i64,
    },
    /// An attempt whose time is up leaves the queue.
    Leave(LeaseId),
    Renew {
        id: LeaseId,
        ttl_ns: i64,
    },
    /// A lease or an attempt ends; what is remembered of it, and whether its holder is told.
    End {
        id: LeaseId,
        remembered: String,
        is_told: bool,
    },
    /// All of a process that is dead.
    Bury(Vec<String>),
    /// Serves whoever is next, and looks.
    See,
    /// The epoch is to be above a number, by one that is minted (zero: none yet): whoever makes the change begins it.
    Begin {
        above: u64,
        minted: u64,
    },
}

/// What an operation answers.
#[derive(Debug)]
pub(crate) enum Said {
    Answer(Answer),
    Renewed(Result<(), Loss>),
    Ended(Release),
    /// The table as it is now.
    Seen(Box<Table>),
    /// The epoch is as it is to be; or the last one, where another must be minted.
    Begun(Result<(), u64>),
    Buried,
    /// There is no room for another request.
    Full,
}

/// News for a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tell {
    pub(crate) home: String,
    pub(crate) id: LeaseId,
    pub(crate) what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Granted {
        epoch: u64,
        count: u64,
    },
    Ended,
    Lost,
    /// Somebody else asks for a lease with tokens to spare.
    Wanted,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Ended {
    id: LeaseId,
    what: String,
    at_ns: i64,
}

/// The table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    pub(crate) epoch: u64,
    /// The table's own clock when it was written: it goes on by durations alone, as the nodes measure them.
    pub(crate) clock_ns: i64,
    counter: u64,
    place: i64,
    /// In the order in which they are to be served.
    pub(crate) entries: Vec<Entry>,
    /// The epochs of leases that are older than the table's.
    older: HashMap<LeaseId, u64>,
    ended: Vec<Ended>,
    /// The changes that led here, the latest first: round and proposer of each. Whoever does not know what became of a
    /// try of its own finds it here, or it was not made.
    past: Vec<(u64, u64)>,
}

/// An entry as it is written.
#[derive(Serialize, Deserialize)]
struct Row<'a> {
    p: i64,
    i: LeaseId,
    a: Cow<'a, str>,
    h: HolderId,
    c: Cow<'a, [Claim]>,
    l: i64,
    m: Cow<'a, str>,
    s: i64,
    u: i64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    r: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    n: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    e: Option<u64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty", default)]
    k: Cow<'a, [LeaseId]>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    x: Option<LeaseId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    t: Option<u32>,
}

#[derive(Serialize, Deserialize)]
struct Written<'a> {
    epoch: u64,
    clock: i64,
    counter: u64,
    place: i64,
    #[serde(borrow)]
    entries: Vec<Row<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty", default)]
    ended: Cow<'a, [Ended]>,
    #[serde(skip_serializing_if = "<[_]>::is_empty", default)]
    past: Cow<'a, [(u64, u64)]>,
}

impl Table {
    pub(crate) fn write(&self) -> String {
        let rows = self.entries.iter().map(|entry| Row {
            p: entry.place,
            i: entry.id,
            a: Cow::Borrowed(entry.holder.agent.as_str()),
            h: entry.holder.id,
            c: Cow::Borrowed(&entry.claims),
            l: entry.ttl_ns,
            m: Cow::Borrowed(&entry.home),
            s: entry.since_ns,
            u: entry.until_ns,
            r: entry.reason.as_deref().map(Cow::Borrowed),
            n: entry.counter,
            e: self.older.get(&entry.id).copied(),
            k: Cow::Borrowed(&entry.keeps),
            x: entry.replaces,
            t: Some(entry.spare).filter(|spare| *spare > 0),
        });
        let written = Written {
            epoch: self.epoch,
            clock: self.clock_ns,
            counter: self.counter,
            place: self.place,
            entries: rows.collect(),
            ended: Cow::Borrowed(&self.ended),
            past: Cow::Borrowed(&self.past),
        };
        // Names, numbers and strings alone: nothing of it can fail.
        serde_json::to_string(&written).unwrap_or_default()
    }

    /// Reads what was written; none where it was not by us.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let written: Written<'_> = serde_json::from_str(text).ok()?;
        let mut older = HashMap::new();
        let mut entry = |row: Row<'_>| {
            older.extend(row.e.map(|epoch| (row.i, epoch)));
            Some(Entry {
                place: row.p,
                id: row.i,
                holder: Holder { agent: AgentName::new(row.a).ok()?, id: row.h },
                claims: row.c.into_owned().into(),
                ttl_ns: row.l,
                reason: row.r.map(Cow::into_owned),
                home: row.m.into_owned(),
                since_ns: row.s,
                until_ns: row.u,
                counter: row.n,
                keeps: row.k.into_owned(),
                replaces: row.x,
                spare: row.t.unwrap_or(0),
            })
        };
        let entries = written.entries.into_iter().map(&mut entry).collect::<Option<Vec<_>>>()?;
        Some(Self {
            epoch: written.epoch,
            clock_ns: written.clock,
            counter: written.counter,
            place: written.place,
            entries,
            older,
            ended: written.ended.into_owned(),
            past: written.past.into_owned(),
        })
    }

    /// Begins an epoch: leases stay under their old numbers.
    pub(crate) fn begin(&mut self, epoch: u64) {
        let held = self.entries.iter().filter(|entry| entry.is_held());
        for entry in held {
            self.older.entry(entry.id).or_insert(self.epoch);
        }
        (self.epoch, self.counter) = (epoch, 0);
        self.past.clear();
    }

    /// Takes note of the change that it was read from, before the next is made.
    pub(crate) fn follows(&mut self, round: u64, proposer: u64) {
        self.past.truncate(PAST_KEPT - 1);
        self.past.insert(0, (round, proposer));
    }

    /// Whether a change led here.
    pub(crate) fn has_followed(&self, round: u64, proposer: u64) -> bool {
        self.past.contains(&(round, proposer))
    }

    /// Does what is to be done at `now_ns` of the table's clock; whom it makes news for goes into `tells`.
    pub(crate) fn apply(&mut self, op: &Op, now_ns: i64, tells: &mut Vec<Tell>) -> Said {
        self.clock_ns = now_ns;
        match op {
            Op::Look { attempt, wait_ns } => self.look(attempt, *wait_ns, now_ns, tells),
            Op::Leave(id) => Said::Answer(self.leave(*id, now_ns, tells)),
            Op::Renew { id, ttl_ns } => {
                let Some(lease) = self.entries.iter_mut().find(|entry| entry.id == *id && entry.is_held()) else {
                    let remembered = self.ended.iter().find(|ended| ended.id == *id);
                    return Said::Renewed(Err(Reader::loss(remembered.map_or("", |ended| &ended.what))));
                };
                lease.until_ns = now_ns.saturating_add(*ttl_ns);
                Said::Renewed(Ok(()))
            }
            Op::End { id, remembered, is_told } => {
                let Some(entry) = self.remove(*id) else { return Said::Ended(Release::NotHeld) };
                let what = if entry.is_held() { What::Lost } else { What::Ended };
                if *is_told || !entry.is_held() {
                    tells.push(Tell { home: entry.home, id: *id, what });
                }
                if !remembered.is_empty() {
                    self.ended.retain(|ended| ended.at_ns > now_ns - ENDED_KEPT_NS);
                    self.ended.truncate(ENDED_MOST - 1);
                    self.ended.insert(0, Ended { id: *id, what: remembered.clone(), at_ns: now_ns });
                }
                self.settle(now_ns, None, tells);
                Said::Ended(Release::Released)
            }
            Op::Bury(homes) => {
                self.entries.retain(|entry| !homes.contains(&entry.home));
                self.settle(now_ns, None, tells);
                Said::Buried
            }
            Op::See => {
                self.settle(now_ns, None, tells);
                Said::Seen(Box::new(self.clone()))
            }
            Op::Begin { above, .. } => Said::Begun(if self.epoch > *above { Ok(()) } else { Err(self.epoch) }),
        }
    }

    fn look(&mut self, attempt: &Entry, wait_ns: i64, now_ns: i64, tells: &mut Vec<Tell>) -> Said {
        let id = attempt.id;
        if let Some(answer) = self.granted(id) {
            return Said::Answer(answer);
        }
        let is_there = |lease: &LeaseId| self.entries.iter().any(|entry| entry.id == *lease && entry.is_held());
        if attempt.replaces.is_some_and(|lease| !is_there(&lease)) {
            self.remove(id);
            return Said::Answer(Answer::Lost);
        }
        let comes = !self.entries.iter().any(|entry| entry.id == id);
        if comes {
            if self.is_ended(id) {
                return Said::Answer(Answer::Gone);
            }
            if self.entries.len() >= ENTRIES_MOST {
                return Said::Full;
            }
            self.place += 1;
            let until_ns = now_ns.saturating_add(wait_ns.max(1));
            let entry = Entry { place: self.place, since_ns: now_ns, until_ns, ..attempt.clone() };
            let key = |entry: &Entry| (entry.replaces.is_none(), entry.place);
            let at = self.entries.partition_point(|other| key(other) < key(&entry));
            self.entries.insert(at, entry);
        }
        if !comes {
            self.entries.iter_mut().filter(|entry| entry.id == id).for_each(|entry| entry.spare = 0);
        }
        self.settle(now_ns, Some(id), tells);
        if let Some(answer) = self.granted(id) {
            if comes && let Some(own) = self.entries.iter_mut().find(|entry| entry.id == id) {
                // It is told by this very answer.
                own.until_ns = now_ns.saturating_add(own.ttl_ns);
                if let Answer::Granted { epoch, count, .. } = answer {
                    return Said::Answer(Answer::Granted { epoch, count, spare: own.spare });
                }
            }
            return Said::Answer(answer);
        }
        let wanted = self.wanted_by(id, now_ns);
        let want = |entry: &&Entry| Tell { home: entry.home.clone(), id: entry.id, what: What::Wanted };
        tells.extend(wanted.iter().map(want));
        if wait_ns <= 0 {
            return Said::Answer(self.leave(id, now_ns, tells));
        }
        if comes && let Some(deadlock) = self.picture(now_ns).deadlock(id) {
            self.remove(id);
            return Said::Answer(Answer::Deadlock(deadlock));
        }
        Said::Answer(Answer::Queued { next: self.next(id, now_ns) })
    }

    fn leave(&mut self, id: LeaseId, now_ns: i64, tells: &mut Vec<Tell>) -> Answer {
        if let Some(answer) = self.granted(id) {
            return answer;
        }
        let blocked: Option<Blocked> = self.picture(now_ns).position(id);
        let Some(blocked) = blocked else { return Answer::Gone };
        let wanted = self.wanted_by(id, now_ns).len();
        let may_be_kept = wanted > 0 && wanted == blocked.holdings.len() && blocked.ahead == 0;
        self.remove(id);
        self.settle(now_ns, None, tells);
        Answer::Blocked { blocked, may_be_kept }
    }

    pub(crate) fn granted(&self, id: LeaseId) -> Option<Answer> {
        let lease = self.entries.iter().find(|entry| entry.id == id)?;
        let count = lease.counter?;
        Some(Answer::Granted { epoch: self.older.get(&id).copied().unwrap_or(self.epoch), count, spare: 0 })
    }

    /// The leases in the way of a request whose holders, told of that, may give them back.
    fn wanted_by(&self, id: LeaseId, now_ns: i64) -> Vec<&Entry> {
        let Some(own) = self.entries.iter().find(|entry| entry.id == id) else { return Vec::new() };
        self.entries.iter().filter(|entry| entry.may_be_given_up_for(own, now_ns)).collect()
    }

    pub(crate) fn is_ended(&self, id: LeaseId) -> bool {
        self.ended.iter().any(|ended| ended.id == id)
    }

    /// In how long the first lease in a waiter's way runs out.
    pub(crate) fn next(&self, id: LeaseId, now_ns: i64) -> Option<Duration> {
        let own = self.entries.iter().find(|entry| entry.id == id)?;
        let in_the_way = self.entries.iter().filter(|entry| entry.stands(now_ns) && entry.conflicts(own));
        in_the_way.map(|entry| entry.until_ns).min().map(|until_ns| span(now_ns, until_ns))
    }

    /// Whether somebody would be served or would go if the queue were looked at.
    pub(crate) fn is_due(&self, now_ns: i64) -> bool {
        let queue::Settlement { granted, gone, .. } = queue::settle(&self.entries, now_ns);
        !granted.is_empty() || !gone.is_empty()
    }

    /// Other processes in a waiter's way: those that hold, and those that came before it.
    pub(crate) fn homes_before(&self, id: LeaseId, now_ns: i64) -> impl Iterator<Item = &str> {
        let place = self.entries.iter().position(|entry| entry.id == id);
        let own = place.and_then(|place| self.entries.get(place));
        let in_the_way = move |(at, entry): &(usize, &Entry)| {
            let before = entry.stands(now_ns) || (!entry.is_held() && place.is_some_and(|place| *at < place));
            before && own.is_some_and(|own| entry.conflicts(own))
        };
        self.entries.iter().enumerate().filter(in_the_way).map(|(_, entry)| entry.home.as_str())
    }

    fn remove(&mut self, id: LeaseId) -> Option<Entry> {
        let at = self.entries.iter().position(|entry| entry.id == id)?;
        self.older.remove(&id);
        Some(self.entries.remove(at))
    }

    /// Applies what the state machine decides. `own` is not told: it is the one who asks.
    fn settle(&mut self, now_ns: i64, own: Option<LeaseId>, tells: &mut Vec<Tell>) {
        // Whoever asks is not overdue, however long it took to get here.
        for entry in self.entries.iter_mut().filter(|entry| own == Some(entry.id) && !entry.is_held()) {
            entry.until_ns = entry.until_ns.max(now_ns + 1);
        }
        let settlement = queue::settle(&self.entries, now_ns);
        for id in &settlement.superseded {
            if let Some(lease) = self.remove(*id) {
                tells.push(Tell { home: lease.home, id: *id, what: What::Lost });
            }
        }
        for id in settlement.replaced.iter().chain(&settlement.gone) {
            self.remove(*id);
        }
        for id in &settlement.granted {
            let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == *id) else { continue };
            self.counter += 1;
            entry.counter = Some(self.counter);
            entry.since_ns = now_ns;
            entry.until_ns = now_ns.saturating_add(entry.ttl_ns.min(nanos(CONFIRM)));
            if own == Some(*id) {
                self.counter += u64::from(entry.spare);
            } else {
                // Others wanted it while it queued.
                entry.spare = 0;
                let what = What::Granted { epoch: self.epoch, count: self.counter };
                tells.push(Tell { home: entry.home.clone(), id: *id, what });
            }
        }
    }

    /// The table as others see it.
    pub(crate) fn picture(&self, now_ns: i64) -> LockTable {
        let (mut held, waiting): (Vec<&Entry>, Vec<&Entry>) = self.entries.iter().partition(|entry| entry.is_held());
        let number =
            |entry: &Entry| (self.older.get(&entry.id).copied().unwrap_or(self.epoch), entry.counter.unwrap_or(0));
        held.sort_by_key(|entry| number(entry));
        let holding = |entry: &Entry| Holding {
            lease: entry.id,
            holder: entry.holder.clone(),
            claims: Arc::clone(&entry.claims),
            token: number(entry),
            held_for: span(entry.since_ns, now_ns),
            remaining: span(now_ns, entry.until_ns),
            reason: entry.reason.clone(),
        };
        let waiter = |entry: &Entry| Waiter {
            lease: entry.id,
            holder: entry.holder.clone(),
            claims: Arc::clone(&entry.claims),
            waited: span(entry.since_ns, now_ns),
            reason: entry.reason.clone(),
            keeps: entry.keeps.clone(),
            replaces: entry.replaces,
        };
        LockTable {
            holdings: held.into_iter().map(holding).collect(),
            waiters: waiting.into_iter().map(waiter).collect(),
        }
    }
}

/// As many nanoseconds as there is room for.
pub(crate) fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn span(from_ns: i64, to_ns: i64) -> Duration {
    u64::try_from(to_ns.saturating_sub(from_ns)).map_or(Duration::ZERO, Duration::from_nanos)
}
