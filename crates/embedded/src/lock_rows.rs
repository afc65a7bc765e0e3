//! The lock table's rows, and each operation on it as one transaction.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mutext_contract::queue::{self, Entry};
use mutext_contract::{
    AgentName, Blocked, Claim, ContextName, Deadline, EngineError, Holder, HolderId, Holding, LeaseId, LockTable, Loss,
    Release, Waiter,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::clock;
use crate::locks::{CONFIRM_NS, Letter, Look, OVERDUE_NS, unreadable};
use crate::sqlite::{self, Schema};
use crate::wake::{Delivery, News, Wake};

/// `Mutl` in ASCII.
pub(crate) const SCHEMA: Schema = Schema {
    application_id: 0x4d75_746c,
    migrations: &[include_str!("locks.sql"), include_str!("locks_2.sql"), include_str!("locks_3.sql")],
};

/// How long it is remembered that an attempt was ended.
const ENDED_KEPT_NS: i64 = 3_600_000_000_000;

/// Whoever sits at the table: one connection, and the way to the other processes.
#[derive(Debug)]
pub(crate) struct Desk {
    connection: Connection,
    file: PathBuf,
    wake: Arc<Wake>,
}

/// A transaction's answer, and what must be told to others once it stands.
type Settled<T> = (T, Vec<Letter>);

impl Desk {
    pub(crate) const fn new(connection: Connection, file: PathBuf, wake: Arc<Wake>) -> Self {
        Self { connection, file, wake }
    }

    /// Looks whether `attempt` holds its lock by now. The first look queues it; the last takes it out again.
    pub(crate) fn look(
        &mut self,
        context: &ContextName,
        attempt: &Entry,
        first: bool,
        last: bool,
        deadline: Deadline,
    ) -> Result<Look, EngineError> {
        self.transact(context, deadline, |desk| {
            let Some((epoch, _)) = desk.epoch(context)? else { return Ok((Look::NoEpoch, Vec::new())) };
            if first {
                desk.insert(context, attempt)?;
            }
            let now_ns = clock::now_ns();
            let (mut entries, mut letters) = desk.settle(context, now_ns, Some(attempt.id))?;
            // Stopped while its turn came and went, or taken for dead: it has lost its place, not its wait.
            let missing = entries.iter().all(|entry| entry.id != attempt.id);
            let mut comes = first;
            if missing {
                let replaced = |entry: &Entry| attempt.replaces == Some(entry.id) && entry.is_held();
                if let Some(lease) = attempt.replaces.filter(|_| !entries.iter().any(replaced)) {
                    return Ok((Look::Lost(desk.loss(lease)?), letters));
                }
                if !last && !desk.is_ended(attempt.id)? {
                    comes = true;
                    desk.insert(context, attempt)?;
                    let more;
                    (entries, more) = desk.settle(context, now_ns, Some(attempt.id))?;
                    letters.extend(more);
                }
            }
            let Some(own) = entries.iter().find(|entry| entry.id == attempt.id) else {
                return Ok((Look::Blocked { blocked: Blocked::default(), may_be_kept: false }, letters));
            };
            if let Some(counter) = own.counter {
                let until_ns = now_ns + own.ttl_ns;
                desk.extend(own.id, until_ns)?;
                // What this very look settled bears its own moment.
                let handed_over_ns = (!first && own.since_ns < now_ns).then_some(own.since_ns);
                let (queued, spare) = (!first, if first { own.spare } else { 0 });
                return Ok((Look::Granted { epoch, counter, until_ns, queued, handed_over_ns, spare }, letters));
            }
            let wanted = || entries.iter().filter(|entry| entry.may_be_given_up_for(own, now_ns));
            letters.extend(wanted().map(|entry| (entry.home.clone(), News::Wanted, entry.id)));
            // Nobody can wait for a request that keeps nothing.
            let may_close = comes && !last && !(own.keeps.is_empty() && own.replaces.is_none());
            let closes = may_close.then(|| picture(&entries, epoch, now_ns).deadlock(own.id)).flatten();
            if last || closes.is_some() {
                let before = picture(&entries, epoch, now_ns).position(own.id).unwrap_or_default();
                let given_up = wanted().count();
                desk.delete(own.id)?;
                // Whoever waited behind it alone need not wait for a look of its own.
                letters.extend(desk.settle(context, now_ns, None)?.1);
                let may_be_kept = !before.holdings.is_empty() && before.ahead == 0 && before.holdings.len() == given_up;
                let blocked = Look::Blocked { blocked: before, may_be_kept };
                return Ok((closes.map_or(blocked, Look::Deadlock), letters));
            }
            if own.spare > 0 {
                // Who queues has none to spare.
                desk.execute("UPDATE entries SET spare = 0 WHERE id = ?1", params![own.id.as_bytes()])?;
            }
            let leases = || entries.iter().filter(|entry| entry.stands(now_ns) && entry.conflicts(own));
            // A dead process's request, too, is in the way of those behind it.
            let before = entries.iter().take_while(|entry| entry.id != own.id);
            let before = before.filter(|entry| !entry.is_held() && entry.conflicts(own));
            let homes: BTreeSet<String> = leases().chain(before).map(|entry| entry.home.clone()).collect();
            let next_ns = leases().map(|entry| entry.until_ns).min();
            Ok((Look::Waits { homes: homes.into_iter().collect(), next_ns }, letters))
        })
    }

    /// Begins an epoch, unless there is one above `above`. Answers with the last one, where it is still to be begun.
    /// The counter goes on: a lease of the last epoch is shown under this one, and its number is nobody else's.
    pub(crate) fn begin_epoch(
        &mut self,
        context: &ContextName,
        above: u64,
        minted: Option<u64>,
        deadline: Deadline,
    ) -> Result<Option<u64>, EngineError> {
        self.transact(context, deadline, |desk| {
            let last = desk.epoch(context)?.map_or(0, |(epoch, _)| epoch);
            if last > above {
                return Ok((None, Vec::new()));
            }
            let Some(epoch) = minted.filter(|epoch| *epoch > last.max(above)) else {
                return Ok((Some(last), Vec::new()));
            };
            desk.execute(
                "INSERT INTO contexts (name, epoch, counter) VALUES (?1, ?2, 0)
                 ON CONFLICT (name) DO UPDATE SET epoch = excluded.epoch",
                params![context.as_str(), epoch.cast_signed()],
            )?;
            Ok((None, Vec::new()))
        })
    }

    /// Makes a lease last again, also one that has lapsed and that nobody has taken.
    pub(crate) fn renew(
        &mut self,
        context: &ContextName,
        id: LeaseId,
        ttl_ns: i64,
        deadline: Deadline,
    ) -> Result<Result<(), Loss>, EngineError> {
        self.transact(context, deadline, |desk| {
            let renewed = desk.extend(id, clock::now_ns().saturating_add(ttl_ns))?;
            let answer = if renewed { Ok(()) } else { Err(desk.loss(id)?) };
            Ok((answer, Vec::new()))
        })
    }

    /// Ends a lease or an attempt and serves the next; with a loss, its holder is told.
    pub(crate) fn release(
        &mut self,
        context: &ContextName,
        id: LeaseId,
        loss: Option<Loss>,
        deadline: Deadline,
    ) -> Result<Release, EngineError> {
        self.transact(context, deadline, |desk| {
            let Some((home, is_taken)) = desk.home_of(context, id)? else {
                return Ok((Release::NotHeld, Vec::new()));
            };
            desk.delete(id)?;
            if !is_taken {
                // Its asker may still wait, and must not take the missing entry for a lost turn.
                desk.end(id, "", "")?;
            }
            let (_, mut letters) = desk.settle(context, clock::now_ns(), None)?;
            if let Some(Loss::Revoked { by, reason }) = loss {
                desk.end(id, by.as_str(), &reason)?;
                letters.push((home, News::Lost, id));
            }
            Ok((Release::Released, letters))
        })
    }

    /// Takes out everything that lived in processes that have ended, and serves the next.
    pub(crate) fn bury(
        &mut self,
        context: &ContextName,
        dead: &[String],
        deadline: Deadline,
    ) -> Result<(), EngineError> {
        self.transact(context, deadline, |desk| {
            let mut contexts = BTreeSet::from([context.clone()]);
            for home in dead {
                contexts.extend(desk.contexts_of(home)?);
                desk.execute("DELETE FROM entries WHERE home = ?1", params![home])?;
            }
            let mut letters = Vec::new();
            for context in contexts {
                letters.extend(desk.settle(&context, clock::now_ns(), None)?.1);
            }
            Ok(((), letters))
        })
    }

    /// Who holds what, and who waits.
    pub(crate) fn inspect(&mut self, context: &ContextName, deadline: Deadline) -> Result<LockTable, EngineError> {
        self.transact(context, deadline, |desk| {
            let now_ns = clock::now_ns();
            let epoch = desk.epoch(context)?.map_or(0, |(epoch, _)| epoch);
            Ok((picture(&desk.entries(context)?, epoch, now_ns), Vec::new()))
        })
    }

    /// Takes the table's write lock and reads it through; says which file it is.
    pub(crate) fn check(&mut self, deadline: Deadline) -> Result<PathBuf, EngineError> {
        sqlite::begin(&self.connection, &self.file, deadline)?;
        let sound = self.one("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        sqlite::rollback(&self.connection);
        match sound?.as_deref() {
            Some("ok") => Ok(self.file.clone()),
            _ => Err(unreadable(&self.file, "a page")),
        }
    }

    /// One transaction; then the letters, and where a receiver turns out to be dead, what follows from that.
    fn transact<T>(
        &mut self,
        context: &ContextName,
        deadline: Deadline,
        step: impl FnOnce(&Self) -> Result<Settled<T>, EngineError>,
    ) -> Result<T, EngineError> {
        sqlite::begin(&self.connection, &self.file, deadline)?;
        let outcome = step(self).and_then(|settled| {
            self.connection.execute_batch("COMMIT").map_err(|error| sqlite::commit_trouble(&self.file, error))?;
            Ok(settled)
        });
        let (answer, letters) = outcome.inspect_err(|_| sqlite::rollback(&self.connection))?;
        let is_dead = |(home, news, id): &Letter| self.wake.tell(home, *news, *id) == Delivery::Dead;
        let dead: BTreeSet<String> = letters.into_iter().filter(is_dead).map(|(home, ..)| home).collect();
        if !dead.is_empty() {
            // Each round takes out at least one dead process's entries, so that this ends.
            // The answer stands whatever becomes of it: what is not buried now is found by the next who waits for it.
            if let Err(error) = self.bury(context, &dead.into_iter().collect::<Vec<_>>(), deadline) {
                tracing::warn!(%error, "the locks of a process that has ended stay for now");
            }
        }
        Ok(answer)
    }

    /// Applies what the state machine decides; returns the table as it stands then. `own` is not written to: it is
    /// the one who asks.
    fn settle(
        &self,
        context: &ContextName,
        now_ns: i64,
        own: Option<LeaseId>,
    ) -> Result<(Vec<Entry>, Vec<Letter>), EngineError> {
        let mut entries = self.entries(context)?;
        // Whoever asks is not overdue, however long it took to get at the table.
        for entry in entries.iter_mut().filter(|entry| own == Some(entry.id) && !entry.is_held()) {
            entry.until_ns = entry.until_ns.max(now_ns + 1);
        }
        let settlement = queue::settle(&entries, now_ns);
        let mut letters = Vec::new();
        let ended: Vec<LeaseId> =
            [settlement.superseded.clone(), settlement.replaced, settlement.gone].into_iter().flatten().collect();
        for id in &ended {
            self.delete(*id)?;
        }
        for entry in entries.iter().filter(|entry| settlement.superseded.contains(&entry.id)) {
            letters.push((entry.home.clone(), News::Lost, entry.id));
        }
        entries.retain(|entry| !ended.contains(&entry.id));
        for id in &settlement.granted {
            let Some(entry) = entries.iter_mut().find(|entry| entry.id == *id) else { continue };
            if own != Some(*id) {
                entry.spare = 0;
            }
            let counter = self.next_counter(context, entry.spare)?;
            entry.counter = Some(counter);
            entry.since_ns = now_ns;
            entry.until_ns = now_ns + entry.ttl_ns.min(CONFIRM_NS);
            let sql = "UPDATE entries SET counter = ?2, since = ?3, until = ?4, spare = ?5 WHERE id = ?1";
            self.execute(sql, params![id.as_bytes(), counter.cast_signed(), now_ns, entry.until_ns, entry.spare])?;
            if own != Some(*id) {
                letters.push((entry.home.clone(), News::Granted, *id));
            }
        }
        Ok((entries, letters))
    }

    fn execute(&self, sql: &str, params: impl rusqlite::Params) -> Result<usize, EngineError> {
        let run = || self.connection.prepare_cached(sql)?.execute(params);
        run().map_err(|error| sqlite::trouble(&self.file, error))
    }

    fn one<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, EngineError> {
        let run = || self.connection.prepare_cached(sql)?.query_row(params, read).optional();
        run().map_err(|error| sqlite::trouble(&self.file, error))
    }

    fn epoch(&self, context: &ContextName) -> Result<Option<(u64, u64)>, EngineError> {
        self.one("SELECT epoch, counter FROM contexts WHERE name = ?1", params![context.as_str()], |row| {
            Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
        })
    }

    /// The next number, where as many after it are nobody else's.
    fn next_counter(&self, context: &ContextName, spare: u32) -> Result<u64, EngineError> {
        let sql = "UPDATE contexts SET counter = counter + 1 + ?2 WHERE name = ?1 RETURNING counter - ?2";
        let counter = self.one(sql, params![context.as_str(), spare], |row| row.get::<_, i64>(0))?;
        counter.map(i64::cast_unsigned).ok_or_else(|| unreadable(&self.file, "a context without an epoch"))
    }

    fn insert(&self, context: &ContextName, entry: &Entry) -> Result<(), EngineError> {
        let sql = "INSERT INTO entries
                       (id, context, agent, holder, claims, ttl, reason, home, since, until, keeps, replaces, spare)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
        let keeps = serde_json::to_string(&entry.keeps).map_err(|_| unreadable(&self.file, "kept leases"))?;
        let claims = serde_json::to_string(&entry.claims[..]).map_err(|_| unreadable(&self.file, "claims"))?;
        self.execute(
            sql,
            params![
                entry.id.as_bytes(),
                context.as_str(),
                entry.holder.agent.as_str(),
                entry.holder.id.as_bytes(),
                claims,
                entry.ttl_ns,
                entry.reason,
                entry.home,
                entry.since_ns,
                // Whatever time it took to get at the table: the request has its one try.
                entry.until_ns.max(clock::now_ns() + OVERDUE_NS),
                keeps,
                entry.replaces.as_ref().map(LeaseId::as_bytes),
                entry.spare,
            ],
        )?;
        Ok(())
    }

    fn extend(&self, id: LeaseId, until_ns: i64) -> Result<bool, EngineError> {
        let sql = "UPDATE entries SET until = ?2 WHERE id = ?1 AND counter IS NOT NULL";
        Ok(self.execute(sql, params![id.as_bytes(), until_ns])? == 1)
    }

    fn delete(&self, id: LeaseId) -> Result<bool, EngineError> {
        Ok(self.execute("DELETE FROM entries WHERE id = ?1", params![id.as_bytes()])? == 1)
    }

    /// Which process an entry lives in, and whether its asker has certainly been told of its grant.
    fn home_of(&self, context: &ContextName, id: LeaseId) -> Result<Option<(String, bool)>, EngineError> {
        let sql = "SELECT home, counter IS NOT NULL AND until - since <> min(ttl, ?3) FROM entries
                   WHERE id = ?1 AND context = ?2";
        self.one(sql, params![id.as_bytes(), context.as_str(), CONFIRM_NS], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// Remembers that an attempt or lease was ended, by an operator or by whoever released it, for an hour.
    fn end(&self, id: LeaseId, agent: &str, reason: &str) -> Result<(), EngineError> {
        let now_ns = clock::now_ns();
        self.execute("DELETE FROM revocations WHERE at < ?1", params![now_ns - ENDED_KEPT_NS])?;
        let sql = "INSERT OR REPLACE INTO revocations (id, agent, reason, at) VALUES (?1, ?2, ?3, ?4)";
        self.execute(sql, params![id.as_bytes(), agent, reason, now_ns])?;
        Ok(())
    }

    fn is_ended(&self, id: LeaseId) -> Result<bool, EngineError> {
        Ok(self.one("SELECT 1 FROM revocations WHERE id = ?1", params![id.as_bytes()], |_| Ok(()))?.is_some())
    }

    fn contexts_of(&self, home: &str) -> Result<Vec<ContextName>, EngineError> {
        let run = || {
            let mut statement =
                self.connection.prepare_cached("SELECT DISTINCT context FROM entries WHERE home = ?1")?;
            statement.query_map(params![home], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()
        };
        let names = run().map_err(|error| sqlite::trouble(&self.file, error))?;
        names.into_iter().map(|name| ContextName::new(name).map_err(|_| unreadable(&self.file, "a context"))).collect()
    }

    /// Why a lease that is not in the table any more was lost.
    fn loss(&self, id: LeaseId) -> Result<Loss, EngineError> {
        let sql = "SELECT agent, reason FROM revocations WHERE id = ?1";
        let row = self.one(sql, params![id.as_bytes()], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
        Ok(match row.map(|(agent, reason)| (AgentName::new(agent), reason)) {
            Some((Ok(by), reason)) => Loss::Revoked { by, reason },
            _ => Loss::Expired,
        })
    }

    fn entries(&self, context: &ContextName) -> Result<Vec<Entry>, EngineError> {
        let sql = "SELECT place, id, agent, holder, claims, ttl, reason, home, since, until, counter, keeps, replaces,
                          spare
                   FROM entries WHERE context = ?1 ORDER BY replaces IS NULL, place";
        let run = || {
            let mut statement = self.connection.prepare_cached(sql)?;
            statement.query_map(params![context.as_str()], entry)?.collect::<rusqlite::Result<Vec<_>>>()
        };
        let rows = run().map_err(|error| sqlite::trouble(&self.file, error))?;
        rows.into_iter().map(|row| row.ok_or_else(|| unreadable(&self.file, "an entry"))).collect()
    }
}

/// A row as an entry; `None` where a part of it is not what it should be.
fn entry(row: &Row<'_>) -> rusqlite::Result<Option<Entry>> {
    let (agent, claims, keeps): (String, String, String) = (row.get(2)?, row.get(4)?, row.get(11)?);
    let claims = serde_json::from_str::<Vec<Claim>>(&claims);
    let (Ok(agent), Ok(claims), Ok(keeps)) = (AgentName::new(agent), claims, serde_json::from_str(&keeps)) else {
        return Ok(None);
    };
    Ok(Some(Entry {
        place: row.get(0)?,
        id: LeaseId::from_bytes(row.get(1)?),
        holder: Holder { agent, id: HolderId::from_bytes(row.get(3)?) },
        claims: claims.into(),
        ttl_ns: row.get(5)?,
        reason: row.get(6)?,
        home: row.get(7)?,
        since_ns: row.get(8)?,
        until_ns: row.get(9)?,
        counter: row.get::<_, Option<i64>>(10)?.map(i64::cast_unsigned),
        keeps,
        replaces: row.get::<_, Option<[u8; 16]>>(12)?.map(LeaseId::from_bytes),
        spare: row.get(13)?,
    }))
}

fn span(from_ns: i64, to_ns: i64) -> Duration {
    u64::try_from(to_ns.saturating_sub(from_ns)).map_or(Duration::ZERO, Duration::from_nanos)
}

/// The table as others see it.
fn picture(entries: &[Entry], epoch: u64, now_ns: i64) -> LockTable {
    let (mut held, waiting): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(|entry| entry.is_held());
    held.sort_by_key(|entry| entry.counter);
    LockTable {
        holdings: held.into_iter().map(|entry| holding(entry, epoch, now_ns)).collect(),
        waiters: waiting.into_iter().map(|entry| waiter(entry, now_ns)).collect(),
    }
}

fn holding(entry: &Entry, epoch: u64, now_ns: i64) -> Holding {
    Holding {
        lease: entry.id,
        holder: entry.holder.clone(),
        claims: Arc::clone(&entry.claims),
        token: (epoch, entry.counter.unwrap_or(0)),
        held_for: span(entry.since_ns, now_ns),
        remaining: span(now_ns, entry.until_ns),
        reason: entry.reason.clone(),
    }
}

fn waiter(entry: &Entry, now_ns: i64) -> Waiter {
    Waiter {
        lease: entry.id,
        holder: entry.holder.clone(),
        claims: Arc::clone(&entry.claims),
        waited: span(entry.since_ns, now_ns),
        reason: entry.reason.clone(),
        keeps: entry.keeps.clone(),
        replaces: entry.replaces,
    }
}
