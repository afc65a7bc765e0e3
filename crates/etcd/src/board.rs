//! What this process holds and asks for, and what it has seen of others.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use mutext_contract::{ContextName, LeaseId};
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;

use crate::link::lock;
use crate::records::{About, Row, Table};

/// How many losses wait for whoever listens.
const LOSSES_KEPT: usize = 1024;
/// How long after a failure something is tried again.
const AGAIN: Duration = Duration::from_millis(200);
/// Contexts whose leases are remembered as seen; beyond, all are seen anew.
const CONTEXTS_KEPT: usize = 1024;

/// A lease of this process.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) context: ContextName,
    pub(crate) key: Vec<u8>,
    /// The etcd lease that it is bound to.
    pub(crate) home: i64,
    pub(crate) about: About,
    /// The revision that wrote it last, as far as this process knows.
    pub(crate) modified: i64,
    pub(crate) valid_until: Instant,
}

/// An attempt that nobody waits for any more, and that may have left something.
#[derive(Debug, Clone)]
pub(crate) struct Left {
    pub(crate) context: ContextName,
    /// Whether a question of it may be under way yet.
    pub(crate) is_asked: bool,
}

enum Entry {
    /// Its asker waits; until when something of it may stay once its asker has gone.
    Attempt(Left, Duration),
    /// To be ended at this moment, if nobody does it before.
    Left(Left, Instant),
    Held(Held),
}

/// What is known of an id that is to be released.
pub(crate) enum Known {
    Held(Box<Held>),
    Left(Left),
    /// Nothing: another process's.
    Unknown,
}

/// What is to be done without being asked for.
pub(crate) enum Chore {
    /// A lease's time has run out, and everybody is to see it.
    Lapse(LeaseId, Box<Held>),
    /// Nobody has ended this.
    End(LeaseId, Left),
}

/// The attempts and leases of this process.
pub(crate) struct Board {
    entries: Mutex<HashMap<LeaseId, Entry>>,
    due: Mutex<Option<Instant>>,
    pub(crate) changed: Notify,
    losses: broadcast::Sender<LeaseId>,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self {
            entries: Mutex::default(),
            due: Mutex::default(),
            changed: Notify::new(),
            losses: broadcast::Sender::new(LOSSES_KEPT),
        }
    }

    pub(crate) fn losses(&self) -> broadcast::Receiver<LeaseId> {
        self.losses.subscribe()
    }

    /// An attempt is made from now on; what is left of it when its asker goes is ended after `ttl`.
    pub(crate) fn expect(&self, id: LeaseId, context: &ContextName, ttl: Duration) -> Expected<'_> {
        let attempt = Left { context: context.clone(), is_asked: false };
        lock(&self.entries).insert(id, Entry::Attempt(attempt, ttl));
        Expected { board: self, id, kept: false }
    }

    /// What `id` is to this process, which forgets it unless somebody waits for it.
    pub(crate) fn take(&self, id: LeaseId) -> Known {
        let mut entries = lock(&self.entries);
        match entries.remove(&id) {
            Some(Entry::Held(held)) => Known::Held(Box::new(held)),
            Some(Entry::Left(left, _)) => Known::Left(left),
            Some(Entry::Attempt(attempt, ttl)) => {
                let known = Known::Left(attempt.clone());
                entries.insert(id, Entry::Attempt(attempt, ttl));
                known
            }
            None => Known::Unknown,
        }
    }

    /// The end of this could not be made sure of: it is tried again.
    pub(crate) fn leave(&self, id: LeaseId, left: Left) {
        self.end_by(id, left, AGAIN);
    }

    fn end_by(&self, id: LeaseId, left: Left, within: Duration) {
        let at = Instant::now() + within;
        let mut entries = lock(&self.entries);
        // Whoever waits for it sees for itself what became of it.
        if !matches!(entries.get(&id), Some(Entry::Attempt(..))) {
            entries.insert(id, Entry::Left(left, at));
            drop(entries);
            self.look_by(at);
        }
    }

    /// A lease of this process.
    pub(crate) fn held(&self, id: LeaseId) -> Option<Held> {
        match lock(&self.entries).get(&id) {
            Some(Entry::Held(held)) => Some(held.clone()),
            _ => None,
        }
    }

    /// A lease was written anew, for longer or as lapsed; nothing changes where it is not ours any more.
    pub(crate) fn rewritten(&self, id: LeaseId, written: &Held) {
        if let Some(Entry::Held(held)) = lock(&self.entries).get_mut(&id)
            && held.modified < written.modified
        {
            *held = written.clone();
        }
        self.look_by(written.valid_until);
    }

    /// A lease that was lost needs no release.
    pub(crate) fn forget(&self, id: LeaseId) -> bool {
        let mut entries = lock(&self.entries);
        let is_held = matches!(entries.get(&id), Some(Entry::Held(_)));
        if is_held {
            entries.remove(&id);
        }
        is_held
    }

    /// A lease was taken from this process.
    pub(crate) fn lose(&self, id: LeaseId) {
        if self.forget(id) {
            // Nobody has to listen.
            let _ = self.losses.send(id);
        }
    }

    /// The etcd lease that all of a process is bound to is gone, and everything with it.
    pub(crate) fn lose_all(&self, home: i64) {
        let mut entries = lock(&self.entries);
        let lost = |entry: &Entry| matches!(entry, Entry::Held(held) if held.home == home);
        let ids: Vec<LeaseId> = entries.iter().filter(|(_, entry)| lost(entry)).map(|(id, _)| *id).collect();
        for id in ids {
            entries.remove(&id);
            let _ = self.losses.send(id);
        }
    }

    fn look_by(&self, at: Instant) {
        let mut due = lock(&self.due);
        if due.is_none_or(|due| at < due) {
            *due = Some(at);
            self.changed.notify_one();
        }
    }

    /// When there may be something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        *lock(&self.due)
    }

    /// What is to be done by now; each is handed out again after a while, unless it is done.
    pub(crate) fn chores(&self) -> Vec<Chore> {
        let now = Instant::now();
        let again = now + AGAIN;
        let mut next: Option<Instant> = None;
        let mut chores = Vec::new();
        *lock(&self.due) = None;
        for (id, entry) in lock(&self.entries).iter_mut() {
            let due = match entry {
                Entry::Held(held) if held.about.lapsed => continue,
                Entry::Held(held) if held.valid_until <= now => {
                    chores.push(Chore::Lapse(*id, Box::new(held.clone())));
                    again
                }
                Entry::Held(held) => held.valid_until,
                Entry::Left(left, at) if *at <= now => {
                    chores.push(Chore::End(*id, left.clone()));
                    *at = again;
                    again
                }
                Entry::Left(_, at) => *at,
                Entry::Attempt(..) => continue,
            };
            next = Some(next.map_or(due, |next| next.min(due)));
        }
        if let Some(next) = next {
            self.look_by(next);
        }
        chores
    }

    /// It has been ended.
    pub(crate) fn is_done(&self, id: LeaseId) {
        let mut entries = lock(&self.entries);
        if matches!(entries.get(&id), Some(Entry::Left(..))) {
            entries.remove(&id);
        }
    }
}

/// An attempt that is made. Dropped, it leaves a note for whoever releases it.
pub(crate) struct Expected<'a> {
    board: &'a Board,
    id: LeaseId,
    kept: bool,
}

impl Expected<'_> {
    /// Whether a question is under way that might make the attempt anew.
    pub(crate) fn is_asked(&self, is_asked: bool) {
        if let Some(Entry::Attempt(attempt, _)) = lock(&self.board.entries).get_mut(&self.id) {
            attempt.is_asked = is_asked;
        }
    }

    /// It is a lease of this process.
    pub(crate) fn becomes_held(&mut self, held: Held) {
        self.kept = true;
        let valid_until = held.valid_until;
        lock(&self.board.entries).insert(self.id, Entry::Held(held));
        self.board.look_by(valid_until);
    }

    /// There is nothing of it any more.
    pub(crate) fn ends(&mut self) {
        self.kept = true;
        lock(&self.board.entries).remove(&self.id);
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let attempt = match lock(&self.board.entries).remove(&self.id) {
            Some(Entry::Attempt(attempt, ttl)) => Some((attempt, ttl)),
            _ => None,
        };
        if let Some((attempt, ttl)) = attempt {
            self.board.end_by(self.id, attempt, ttl);
        }
    }
}

/// Since when this process has seen entries unchanged, by its own monotonic clock: nobody else's clock is asked how long
/// a lease has been without a renewal.
#[derive(Default)]
pub(crate) struct Sightings(Mutex<HashMap<ContextName, Seen>>);

/// The revision that wrote each entry of a context last, and since when it has been seen so.
type Seen = HashMap<LeaseId, (i64, Instant)>;

impl Sightings {
    /// Takes note of a table that was seen just now.
    pub(crate) fn note(&self, context: &ContextName, table: &Table) {
        let now = Instant::now();
        let mut contexts = lock(&self.0);
        if contexts.len() >= CONTEXTS_KEPT && !contexts.contains_key(context) {
            contexts.clear();
        }
        let before = contexts.remove(context).unwrap_or_default();
        let rows = table.held.iter().chain(&table.waiting);
        let seen = rows.map(|row| match before.get(&row.id) {
            // An older look may come in late.
            Some(&(modified, since)) if modified >= row.modified => (row.id, (modified, since)),
            _ => (row.id, (row.modified, now)),
        });
        let seen: Seen = seen.collect();
        if !seen.is_empty() {
            contexts.insert(context.clone(), seen);
        }
    }

    /// Takes note of one entry that was written.
    pub(crate) fn note_one(&self, context: &ContextName, id: LeaseId, modified: i64) {
        if let Some(seen) = lock(&self.0).get_mut(context).and_then(|seen| seen.get_mut(&id))
            && seen.0 < modified
        {
            *seen = (modified, Instant::now());
        }
    }

    /// How long this entry has been seen as it is.
    pub(crate) fn age(&self, context: &ContextName, row: &Row) -> Duration {
        self.since(context, row).elapsed()
    }

    /// Since when this entry has been seen as it is.
    pub(crate) fn since(&self, context: &ContextName, row: &Row) -> Instant {
        let contexts = lock(&self.0);
        let seen = contexts.get(context).and_then(|seen| seen.get(&row.id));
        seen.map_or_else(Instant::now, |(_, since)| *since)
    }
}
