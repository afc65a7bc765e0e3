//! One attempt to acquire: it asks, waits for what is in its way, and claims what has become its own.

use std::sync::Arc;
use std::time::Duration;

use mutext_contract::{
    Acquisition, Blocked, Deadline, Effect, EngineError, FencingToken, Grant, Lease, LeaseId, LockRequest,
};
use tokio::time::Instant;

use crate::board::{Expected, Held};
use crate::keys::{Class, Range};
use crate::link::at_least;
use crate::locks::EtcdLocks;
use crate::records::{About, Row, Table};
use crate::steps::{self, Basis, Scene};
use crate::trouble;
use crate::turn::{self, Ahead, Kind, SUPERSEDED_MAX, Turn};
use crate::watches::{News, Watcher};
use crate::wire::{LEASE_TIME_TO_LIVE, LeaseTimeToLiveRequest};

/// The thread of a holder shows by itself that a lease has lapsed; whoever waits for it comes so much later, in case
/// that thread does not.
const SLACK: Duration = Duration::from_millis(30);
/// A waiter leaves the queue by itself at its deadline; others take it out so much later, in case it cannot.
const OVERDUE: Duration = Duration::from_secs(2);
/// Whoever came before and is in nobody's way is granted first, unless nothing is seen of that for so long, or for half of
/// what is left of the wait: then its process does not take its turn, though it is not taken for dead yet.
const DAWDLE: Duration = Duration::from_secs(3);
/// How often a waiter looks by itself whether what it waits for is there yet: news can only be missed if a member breaks
/// its word.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

pub(crate) struct Attempt<'a> {
    locks: &'a EtcdLocks,
    request: &'a LockRequest,
    deadline: Deadline,
    /// One try: nobody waits.
    is_one_try: bool,
    expected: Expected<'a>,
}

/// A request in the queue, and the etcd lease that it is bound to.
struct Queued {
    table: Table,
    home: i64,
}

/// How asking went.
enum Asked {
    Queued(Queued),
    Done(Acquisition),
}

/// Why a waiter woke.
enum Woken {
    /// Look at the table.
    Look,
    /// All that was in its way has gone.
    Free,
    /// Its time is over.
    Late,
}

impl<'a> Attempt<'a> {
    pub(crate) fn new(locks: &'a EtcdLocks, request: &'a LockRequest, deadline: Deadline) -> Self {
        let expected = locks.core().board.expect(request.lease, &request.context, request.ttl.get());
        Self { locks, request, deadline, is_one_try: deadline.has_passed(), expected }
    }

    pub(crate) async fn run(mut self) -> Result<Acquisition, EngineError> {
        loop {
            let queued = match self.ask().await? {
                Asked::Queued(queued) => queued,
                Asked::Done(acquisition) => return Ok(acquisition),
            };
            // What stands in the queue, or was just granted, stays there where whoever waits cannot go on.
            let waited = self.wait(queued).await.map_err(|error| error.with_effect(Effect::Unknown));
            if let Some(acquisition) = waited? {
                return Ok(acquisition);
            }
            // The process was taken for dead, and its place is gone: it queues again.
        }
    }

    const fn id(&self) -> LeaseId {
        self.request.lease
    }

    fn scene(&self) -> Scene<'a> {
        self.locks.scene(&self.request.context, self.request.lease)
    }

    /// Asks, until the request is granted or in the queue.
    async fn ask(&mut self) -> Result<Asked, EngineError> {
        let context = &self.request.context;
        let began = Instant::now();
        loop {
            let home = self.locks.core().home(at_least(self.deadline)).await?;
            let epoch = self.locks.epoch(context, self.deadline).await?;
            let about = About::of(self.request, self.deadline.remaining());
            let asked = Instant::now();
            self.expected.is_asked(true);
            // The lease that a request replaces is there, so that the context is not free.
            let may_be_free = about.replaces.is_none() && !self.locks.seems_busy(context);
            let ask = steps::ask(self.scene(), &about, epoch, home, may_be_free);
            let step = match self.locks.step(ask, self.deadline).await {
                Ok(step) => step,
                Err(error) if trouble::is_lease_gone(&error) => {
                    self.expected.is_asked(false);
                    if self.is_over(began) {
                        return Err(error);
                    }
                    self.lost_home(home).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.expected.is_asked(false);
            if step.cluster != epoch.cluster {
                // Another cluster answers under the same address: its revisions begin anew, and so must the epoch.
                self.locks.doubt_epoch(context);
                let released = self.locks.step(steps::release(self.scene(), None), self.deadline).await;
                // Where that fails, what was asked for may stand.
                released.map_err(|error| error.with_effect(Effect::Unknown))?;
                if self.is_over(began) {
                    return Err(self.locks.unsettled());
                }
                continue;
            }
            let step = if !may_be_free {
                step
            } else if step.succeeded {
                let key = self.locks.core().keys.entry(context, Class::Held, self.id());
                let about = about.granted(epoch.number);
                let held = Granted { key, home, about, token: step.revision, modified: step.revision };
                return Ok(Asked::Done(self.granted(held, asked, false)));
            } else {
                step.nested()
            };
            if step.succeeded {
                let table = self.locks.table(context, &step, 1)?;
                self.locks.seen(context, &table);
                return Ok(Asked::Queued(Queued { table, home }));
            }
            // An earlier time that it was asked may have been answered by nobody, and done all the same.
            let table = self.locks.table(context, &step, 0)?;
            if !step.found(1).is_empty() {
                self.expected.ends();
                return Ok(Asked::Done(Acquisition::TimedOut(Blocked::default())));
            }
            if let Some(row) = table.lease(self.id()).cloned() {
                return Ok(Asked::Done(self.granted(Granted::of(row), began, false)));
            }
            if let Some(row) = table.waiter(self.id()) {
                let home = row.home;
                return Ok(Asked::Queued(Queued { table, home }));
            }
            self.locks.doubt_epoch(context);
            if self.is_over(began) {
                return Err(self.locks.unsettled());
            }
        }
    }

    /// Whether it has been asked for long enough, since `began`: also where nobody waits, others may be in the way of a
    /// few tries.
    fn is_over(&self, began: Instant) -> bool {
        self.deadline.has_passed() && began.elapsed() > OVERDUE
    }

    /// The process's etcd lease is gone: its thread gets another.
    async fn lost_home(&self, home: i64) {
        self.locks.core().doubt();
        let until = at_least(self.deadline);
        while !self.locks.core().has_moved(home) && !until.has_passed() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits in the queue; none where the place in it is gone with the process's etcd lease.
    async fn wait(&mut self, Queued { mut table, home }: Queued) -> Result<Option<Acquisition>, EngineError> {
        let context = &self.request.context;
        let mut watcher = self.locks.watches().watcher();
        let mut is_first = true;
        // Whose turn has come before ours, and until when it is left to them.
        let (mut others, mut courteous) = (Vec::new(), Instant::now());
        loop {
            self.locks.sightings.note(context, &table);
            // Whoever has not waited itself owes nobody anything: those who come at one time do not queue for it.
            // And nobody leaves what is free because of those whom it is not in the way of.
            let owes = !self.is_one_try && !is_first && !self.deadline.has_passed();
            let yields = |due: &[&Row]| {
                let due: Vec<LeaseId> = due.iter().map(|row| row.id).collect();
                if others != due {
                    // One has taken its turn: the next has its time.
                    (others, courteous) = (due, Instant::now() + DAWDLE.min(self.deadline.remaining() / 2));
                }
                owes && Instant::now() < courteous
            };
            let ahead = match turn::of(&table, self.id(), yields) {
                Turn::Absent => return self.absent(&table, home).await,
                Turn::Orphan => return self.orphan(&table).await.map(Some),
                Turn::Now(superseded) => match self.claim(&table, superseded, Vec::new()).await? {
                    Ok(granted) => return Ok(Some(granted)),
                    Err(newer) => {
                        table = newer;
                        continue;
                    }
                },
                Turn::Later(ahead) => ahead,
            };
            if is_first && let Some(deadlock) = self.deadlock(&table) {
                self.leave(&table).await?;
                return Ok(Some(Acquisition::Deadlock(deadlock)));
            }
            is_first = false;
            let all: Vec<Vec<u8>> = ahead.rows.iter().map(|row| row.key.clone()).collect();
            table = match self.until(&table, ahead, courteous, &mut watcher).await? {
                Woken::Late => return self.give_up(&table, home).await,
                Woken::Look => self.locks.look(context, self.deadline).await?,
                Woken::Free => match self.claim(&table, Vec::new(), all).await? {
                    Ok(granted) => return Ok(Some(granted)),
                    Err(newer) => newer,
                },
            };
        }
    }

    /// The circle that this request closes. The table is the one of the moment in which it queued, so that of all in
    /// the circle exactly the last to come finds it.
    fn deadlock(&self, table: &Table) -> Option<mutext_contract::Deadlock> {
        if self.is_one_try || (self.request.keeps.is_empty() && self.request.replaces.is_none()) {
            return None;
        }
        table.shown(|row| self.locks.sightings.age(&self.request.context, row)).deadlock(self.id())
    }

    /// Asks to be granted, on what `table` shows; a newer table where that does not hold any more.
    async fn claim(
        &mut self,
        table: &Table,
        mut superseded: Vec<Row>,
        gone: Vec<Vec<u8>>,
    ) -> Result<Result<Acquisition, Table>, EngineError> {
        let context = &self.request.context;
        let Some(own) = table.waiter(self.id()) else { return Ok(Err(table.clone())) };
        let Some(epoch) = table.epoch else { return Err(self.locks.unsettled()) };
        if epoch.number < self.locks.last_epoch(context) {
            // etcd has gone back to what a backup remembers, and this request with it.
            self.locks.doubt_epoch(context);
            self.locks.epoch(context, self.deadline).await?;
            return Ok(Err(self.locks.look(context, self.deadline).await?));
        }
        // A transaction has room for so many; the rest goes before.
        while superseded.len() > SUPERSEDED_MAX {
            if let Some(row) = superseded.pop() {
                self.locks.step(steps::supersede(self.scene(), &row), self.deadline).await?;
            }
        }
        let replaced = self.request.replaces.and_then(|lease| table.lease(lease)).cloned();
        let basis = Basis { revision: table.revision, epoch, superseded, replaced, gone };
        let asked = Instant::now();
        let step = self.locks.step(steps::claim(self.scene(), own, &basis), self.deadline).await?;
        if step.succeeded {
            self.locks.saw_epoch(context, epoch);
            let granted = Granted {
                key: self.locks.core().keys.entry(context, own.class.granted(), self.id()),
                home: own.home,
                about: own.about.granted(epoch.number),
                token: step.revision,
                modified: step.revision,
            };
            return Ok(Ok(self.granted(granted, asked, true)));
        }
        let newer = self.locks.table(context, &step, 0)?;
        match newer.lease(self.id()).cloned() {
            // Asked twice, the first time has done it.
            Some(row) => Ok(Ok(self.granted(Granted::of(row), asked, true))),
            None => Ok(Err(newer)),
        }
    }

    /// A lease of ours; believed from before it was asked for.
    fn granted(&mut self, granted: Granted, asked: Instant, queued: bool) -> Acquisition {
        let (request, valid_until) = (self.request, asked + self.request.ttl.get());
        let token = FencingToken::new(granted.about.epoch, u64::try_from(granted.token).unwrap_or(0), request.lease);
        self.expected.becomes_held(Held {
            context: request.context.clone(),
            key: granted.key,
            home: granted.home,
            about: granted.about,
            modified: granted.modified,
            valid_until,
        });
        if let Some(replaced) = request.replaces {
            self.locks.core().board.forget(replaced);
        }
        let lease = Lease {
            context: request.context.clone(),
            claims: Arc::clone(request.claims()),
            holder: request.holder.clone(),
            token,
            ttl: request.ttl,
            valid_until,
        };
        // Whoever made it free did so by another's clock.
        Acquisition::Granted(Grant { lease, queued: queued && !self.is_one_try, handed_over_after: None, spare: 0 })
    }

    /// It is not in the queue: somebody ended it, or the process was taken for dead; none for the latter.
    async fn absent(&mut self, table: &Table, home: i64) -> Result<Option<Acquisition>, EngineError> {
        if let Some(row) = table.lease(self.id()).cloned() {
            // It was granted, and nobody said so: written anew, it may be believed from now on.
            let asked = Instant::now();
            let rewrite = steps::rewrite(self.scene(), &row.key, row.modified, &row.about, row.home);
            let step = self.locks.step(rewrite, self.deadline).await?;
            if step.succeeded {
                let granted = Granted { modified: step.revision, ..Granted::of(row) };
                return Ok(Some(self.granted(granted, asked, true)));
            }
        }
        let question = LeaseTimeToLiveRequest { id: home };
        let left = self.locks.core().link.call(&LEASE_TIME_TO_LIVE, question, at_least(self.deadline)).await?;
        if left.answer.ttl <= 0 {
            self.lost_home(home).await;
            if !self.deadline.has_passed() {
                return Ok(None);
            }
        }
        self.expected.ends();
        Ok(Some(Acquisition::TimedOut(Blocked::default())))
    }

    /// The lease that it was to take the place of is no more.
    async fn orphan(&mut self, table: &Table) -> Result<Acquisition, EngineError> {
        self.leave(table).await?;
        let Some(replaces) = self.request.replaces else { return Ok(Acquisition::TimedOut(Blocked::default())) };
        let loss = self.locks.loss(&self.request.context, replaces, self.deadline).await?;
        self.locks.core().board.forget(replaces);
        Ok(Acquisition::Lost(loss))
    }

    /// Its deadline has passed: it leaves, and says what was in its way.
    async fn give_up(&mut self, table: &Table, home: i64) -> Result<Option<Acquisition>, EngineError> {
        match self.leave(table).await? {
            Some(last) => {
                let shown = last.shown(|row| self.locks.sightings.age(&self.request.context, row));
                Ok(Some(Acquisition::TimedOut(shown.position(self.id()).unwrap_or_default())))
            }
            None => {
                self.absent(table, home).await.map(|found| found.or(Some(Acquisition::TimedOut(Blocked::default()))))
            }
        }
    }

    /// Takes it out of the queue; the table from just before, if it was there.
    async fn leave(&mut self, table: &Table) -> Result<Option<Table>, EngineError> {
        let Some(own) = table.waiter(self.id()) else { return Ok(None) };
        let step = self.locks.step(steps::leave(self.scene(), own), self.deadline).await?;
        let last = self.locks.table(&self.request.context, &step, 0)?;
        if step.succeeded {
            self.expected.ends();
        }
        Ok(step.succeeded.then_some(last))
    }

    /// Sleeps until something changes about what is in the way; others are let go first until `courteous`.
    async fn until(
        &self,
        table: &Table,
        mut ahead: Ahead,
        courteous: Instant,
        watcher: &mut Watcher,
    ) -> Result<Woken, EngineError> {
        let context = &self.request.context;
        let Some(own) = table.waiter(self.id()) else { return Ok(Woken::Look) };
        let one = |row: &Row| -> Range { (row.key.clone(), Vec::new()) };
        let replaced = self.request.replaces.and_then(|lease| table.lease(lease));
        // What nothing is in the way of is not left as late.
        let late = if ahead.kind == Kind::Courtesy { Woken::Look } else { Woken::Late };
        loop {
            if self.deadline.has_passed() {
                return Ok(late);
            }
            let Some(row) = ahead.rows.last() else { return Ok(Woken::Free) };
            let watched: Vec<Range> = [Some(own), replaced, Some(row)].into_iter().flatten().map(one).collect();
            watcher.set(&watched, table.revision + 1);
            let seen = self.locks.sightings.since(context, row);
            let expires = match ahead.kind {
                Kind::Lease => seen.checked_add(row.about.ttl() + row.about.ttl() / 1000 + SLACK),
                Kind::Request => seen.checked_add(Duration::from_millis(row.about.wait).saturating_add(OVERDUE)),
                Kind::Courtesy => Some(courteous),
            };
            let expires = expires.unwrap_or_else(|| Instant::now() + LOOK_AGAIN);
            let look = Instant::now() + LOOK_AGAIN;
            let news = tokio::select! {
                news = watcher.news() => news,
                () = tokio::time::sleep_until(expires.min(look).min(self.deadline.instant())) => {
                    if self.deadline.has_passed() {
                        return Ok(late);
                    }
                    if expires <= Instant::now() {
                        self.expire(row, ahead.kind).await?;
                        return Ok(Woken::Look);
                    }
                    // It may be gone, or renewed, and nobody told of it.
                    if !self.stand(&[row]).await? {
                        return Ok(Woken::Look);
                    }
                    continue;
                }
            };
            let mut has_missed = false;
            for news in news {
                match news {
                    News::Missed => has_missed = true,
                    News::LookAgain => {
                        watcher.reset();
                        // A watch that is refused again and again must not keep anybody busy.
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        return Ok(Woken::Look);
                    }
                    News::Gone { key } if key == own.key => return Ok(Woken::Look),
                    News::Gone { key } if replaced.is_some_and(|row| row.key == key) => return Ok(Woken::Look),
                    News::Gone { key } if ahead.rows.last().is_some_and(|row| row.key == key) => {
                        if !ahead.is_all {
                            return Ok(Woken::Look);
                        }
                        ahead.rows.pop();
                    }
                    News::Written { key, modified, value } => {
                        let Some(row) = ahead.rows.last_mut().filter(|row| row.key == key) else { continue };
                        let Ok(about) = serde_json::from_slice::<About>(&value) else { return Ok(Woken::Look) };
                        if about.lapsed {
                            return Ok(Woken::Look);
                        }
                        // Renewed: its time begins anew.
                        self.locks.sightings.note_one(context, row.id, modified);
                        if modified > row.modified {
                            row.about = about;
                            row.modified = modified;
                        }
                    }
                    News::Gone { .. } => {}
                }
            }
            if has_missed {
                let seen: Vec<&Row> = [Some(own), replaced, ahead.rows.last()].into_iter().flatten().collect();
                if !self.stand(&seen).await? {
                    return Ok(Woken::Look);
                }
            }
        }
    }

    /// Whether these are still as they were seen.
    async fn stand(&self, seen: &[&Row]) -> Result<bool, EngineError> {
        let found = self.locks.step(steps::look(seen), self.deadline).await?;
        let stands =
            |(index, row): (usize, &&Row)| found.found(index).first().is_some_and(|kv| kv.mod_revision == row.modified);
        Ok(seen.iter().enumerate().all(stands))
    }

    /// What is in the way has been seen as it is for as long as it may be.
    async fn expire(&self, row: &Row, kind: Kind) -> Result<(), EngineError> {
        let context = &self.request.context;
        let step = match kind {
            Kind::Lease => {
                let scene = self.locks.scene(context, row.id);
                steps::rewrite(scene, &row.key, row.modified, &row.about.lapsed(), row.home)
            }
            Kind::Request => steps::bury(row),
            Kind::Courtesy => return Ok(()),
        };
        match self.locks.step(step, self.deadline).await {
            // The process that it was bound to is gone, and it with that.
            Err(error) if trouble::is_lease_gone(&error) => Ok(()),
            outcome => outcome.map(drop),
        }
    }
}

/// What is known of a lease when it is granted.
struct Granted {
    key: Vec<u8>,
    home: i64,
    about: About,
    token: i64,
    modified: i64,
}

impl Granted {
    /// A lease that was found to be granted.
    fn of(row: Row) -> Self {
        Self { key: row.key, home: row.home, about: row.about, token: row.created, modified: row.modified }
    }
}
