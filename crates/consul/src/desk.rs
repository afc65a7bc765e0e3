//! One context's lock table, as this process works on it: everything that its callers ask goes into the next version,
//! which is written by compare-and-set, and what comes of it is handed back.
//!
//! A desk is a task on the engine's own runtime. Whoever asks waits for an answer; whoever stops waiting is noticed.
//! Many requests that come at once share one write.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use mutext_contract::{
    Acquisition, AgentName, Blocked, Claim, ContextName, Deadline, EngineError, Grant, Lease, LeaseId, LockRequest,
    LockTable, Loss, Release, TroubleKind,
};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::Instant;

use crate::home::{Home, Homes};
use crate::http::Pause;
use crate::keys::Keys;
use crate::kv::{CallTrouble, Consul, Outcome, Step, base64};
use crate::plan::{Asked, Draft};
use crate::sight::Sight;
use crate::table::{self, CONFIRM_MS, Row, Table, VERSION};
use crate::trouble;

/// How long one question may take before it is asked again, perhaps of another agent.
const PATIENCE: Duration = Duration::from_secs(5);
/// A call that must be given a chance has at least this long, also where its deadline has passed.
pub(crate) const LEAST: Duration = Duration::from_secs(1);
/// How often a process looks at what is in the way of its waiters: at a quarter of the shortest TTL, within these.
const LOOK_LEAST: Duration = Duration::from_millis(50);
const LOOK_MOST: Duration = Duration::from_secs(1);
/// How often it is looked whether whoever is in the way is alive.
const CHECK: Duration = Duration::from_secs(1);
/// How soon after a refusal for the lock-delay it is tried again.
const DELAYED: Duration = Duration::from_millis(200);
/// Behind how many others a waiter looks so much later than the first when a lease runs out: one of them is enough.
const STAGGER: Duration = Duration::from_millis(20);
const STAGGERED_MAX: u32 = 10;
/// A desk that nobody needs for so long is cleared.
const IDLE: Duration = Duration::from_secs(60);
/// The largest table that is put into mailboxes; of a larger one they say only that it is there.
const LETTER_BYTES_MAX: usize = 32 << 10;
/// How much one write may put into mailboxes: a transaction has at most half a mebibyte.
const LETTERS_BYTES_MAX: usize = 256 << 10;
/// The most processes that one write tells, asks after, or buries: a transaction has at most 64 steps.
const TOLD_MAX: usize = 48;
const CHECKED_MAX: usize = 32;
const BURIED_MAX: usize = 4;

type Answer<T> = oneshot::Sender<Result<T, EngineError>>;

/// What a desk is told.
pub(crate) enum Call {
    /// Wants a lease.
    Acquire(Box<Attempt>),
    /// Wants something at once.
    Job(Job),
    /// A version that lay in this process's mailbox; nothing where it was too large.
    Rang { value: Vec<u8>, index: u64 },
    /// The session of this home is no more.
    HomeLost(Arc<str>),
    /// Whether nothing is held and nobody waits.
    IsIdle(oneshot::Sender<bool>),
}

/// What came of an acquire, as far as the desk can tell.
pub(crate) enum Answered {
    Settled(Acquisition),
    /// The context has no epoch: begin one, and ask again.
    NoEpoch,
}

/// Something that is decided at once.
pub(crate) struct Job {
    pub(crate) what: What,
    pub(crate) deadline: Deadline,
    /// A write with it in it may have been done.
    uncertain: bool,
}

pub(crate) enum What {
    Renew { lease: LeaseId, ttl: Duration, answer: Answer<Result<(), Loss>> },
    Release { lease: LeaseId, by: Option<(AgentName, String)>, answer: Answer<Release> },
    Inspect { answer: Answer<LockTable> },
}

impl Job {
    pub(crate) const fn new(what: What, deadline: Deadline) -> Self {
        Self { what, deadline, uncertain: false }
    }

    fn fail(self, error: EngineError) {
        // Whoever asked may be gone.
        match self.what {
            What::Renew { answer, .. } => drop(answer.send(Err(error))),
            What::Release { answer, .. } => drop(answer.send(Err(error))),
            What::Inspect { answer } => drop(answer.send(Err(error))),
        }
    }
}

/// An acquire under way.
pub(crate) struct Attempt {
    request: LockRequest,
    deadline: Deadline,
    /// An epoch that its asker has begun, where there was none.
    epoch: Option<u64>,
    asked: Instant,
    answer: Answer<Answered>,
    /// It has been in the table.
    placed: bool,
    /// It was seen to wait.
    queued: bool,
    /// It certainly waited yet when this was asked.
    waiting_at: Option<Instant>,
    /// Another granted it too long ago to believe it: it is to be confirmed first.
    confirm: bool,
}

impl Attempt {
    pub(crate) fn new(request: LockRequest, deadline: Deadline, epoch: Option<u64>, answer: Answer<Answered>) -> Self {
        let asked = Instant::now();
        let (placed, queued, confirm) = (false, false, false);
        Self { request, deadline, epoch, asked, answer, placed, queued, waiting_at: None, confirm }
    }

    fn settle(self, acquisition: Acquisition) {
        drop(self.answer.send(Ok(Answered::Settled(acquisition))));
    }
}

/// What a draft answers a job or an attempt, once it stands.
enum Verdict {
    Renewed(Result<(), Loss>),
    Released(Release),
    Seen,
}

/// How an attempt ends with the draft; it goes on where there is no such thing.
enum End {
    Settled(Acquisition),
    NoEpoch,
    /// Nobody waits for an answer.
    Left,
}

/// A version that was read or written.
struct Known {
    table: Table,
    index: u64,
}

/// How a write came out.
enum Written {
    Done(u64),
    /// Somebody else was first.
    Conflict,
    /// The session is no more.
    NoHome,
    /// Somebody who was to be buried cannot be: not before the lock-delay is over, or not at all.
    NotDead {
        delayed: bool,
    },
}

/// What all desks of a process share.
pub(crate) struct Office {
    pub(crate) consul: Consul,
    pub(crate) keys: Arc<Keys>,
    pub(crate) subject: Arc<str>,
    pub(crate) homes: Arc<Homes>,
    pub(crate) losses: broadcast::Sender<LeaseId>,
}

/// A context's desk.
pub(crate) struct Desk {
    office: Arc<Office>,
    context: ContextName,
    calls: mpsc::UnboundedReceiver<Call>,
    sight: Sight,
    known: Option<Known>,
    /// When the latest look was asked for.
    looked: Instant,
    /// When it was last looked whether others are alive.
    checked: Option<Instant>,
    attempts: Vec<Attempt>,
    held: HashSet<LeaseId>,
    /// Leases that ended with their session, until they are out of the table.
    doomed: HashSet<LeaseId>,
    home: Option<Home>,
    earlier_homes: BTreeSet<Arc<str>>,
    /// Homes that are no more, and when they may be buried.
    dead: BTreeMap<String, Instant>,
    /// A write may have been done, and may yet be: the next one rules that out.
    uncertain: bool,
    /// Somebody could be served as things stood in the version at hand.
    is_ripe: bool,
}

/// Says whether a desk that has been idle may close: nobody has called it meanwhile, and nobody will.
pub(crate) type MayClose = Box<dyn Fn(&mpsc::UnboundedReceiver<Call>) -> bool + Send>;

impl Desk {
    pub(crate) fn new(office: Arc<Office>, context: ContextName, calls: mpsc::UnboundedReceiver<Call>) -> Self {
        Self {
            office,
            context,
            calls,
            sight: Sight::new(),
            known: None,
            looked: Instant::now(),
            checked: None,
            attempts: Vec::new(),
            held: HashSet::new(),
            doomed: HashSet::new(),
            home: None,
            earlier_homes: BTreeSet::new(),
            dead: BTreeMap::new(),
            uncertain: false,
            is_ripe: false,
        }
    }

    /// Works until the engine ends, or nobody needs it.
    pub(crate) async fn run(mut self, may_close: MayClose) {
        loop {
            let due = self.due();
            let idle = self.attempts.is_empty() && self.held.is_empty();
            let mut jobs = Vec::new();
            tokio::select! {
                call = self.calls.recv() => match call {
                    Some(call) => self.take(call, &mut jobs),
                    None => return,
                },
                () = tokio::time::sleep_until(due) => {
                    if idle {
                        if may_close(&self.calls) {
                            return;
                        }
                        continue;
                    }
                    if self.looked + self.look_interval() <= Instant::now() {
                        self.known = None;
                    }
                }
            }
            self.work(jobs).await;
        }
    }

    /// Takes a call in; what is to be decided with others goes to `jobs`.
    fn take(&mut self, call: Call, jobs: &mut Vec<Job>) {
        match call {
            Call::Acquire(attempt) => self.attempts.push(*attempt),
            Call::Job(job) => {
                if let What::Release { lease, by, .. } = &job.what {
                    if by.is_none() {
                        // Its holder needs no news of that.
                        self.held.remove(lease);
                    }
                    // What was given up does not come back, whatever the table says of it.
                    if let Some(place) = self.attempts.iter().position(|attempt| attempt.request.lease == *lease) {
                        self.attempts.remove(place).settle(Acquisition::TimedOut(Blocked::default()));
                    }
                }
                jobs.push(job);
            }
            Call::Rang { value, index } => self.hear(&value, index),
            Call::HomeLost(home) => {
                // There may be another by now.
                if self.home.as_ref().is_some_and(|own| own.id == home) {
                    self.lose_home();
                }
            }
            Call::IsIdle(answer) => {
                let idle = self.attempts.is_empty() && self.held.is_empty() && jobs.is_empty();
                let _ = answer.send(idle);
            }
        }
    }

    /// A version that somebody put into the mailbox.
    fn hear(&mut self, value: &[u8], index: u64) {
        if self.known.as_ref().is_some_and(|known| known.index >= index) {
            return;
        }
        match Table::read(value, index) {
            Ok(table) => self.adopt(table, index, None, false),
            // Too large for a letter.
            Err(_) => self.known = None,
        }
    }

    /// All leases of this process are lost, and their holders are told at once.
    fn lose_home(&mut self) {
        let Some(home) = self.home.take() else { return };
        self.earlier_homes.insert(home.id);
        for lease in std::mem::take(&mut self.held) {
            self.doomed.insert(lease);
            // Nobody has to listen.
            let _ = self.office.losses.send(lease);
        }
    }

    /// When something must be done, whatever anybody asks.
    fn due(&self) -> Instant {
        let now = Instant::now();
        if self.attempts.is_empty() {
            return now + IDLE;
        }
        let deadlines = self.attempts.iter().map(|attempt| attempt.deadline.instant());
        let expiries = self.expiries();
        let dead = self.dead.values().copied();
        let look = self.looked + self.look_interval();
        deadlines.chain(expiries).chain(dead).fold(look, Instant::min)
    }

    /// When leases in the way of this process's waiters run out: the first in the queue looks first.
    fn expiries(&self) -> Option<Instant> {
        let known = self.known.as_ref()?;
        let ids: HashSet<LeaseId> = self.attempts.iter().map(|attempt| attempt.request.lease).collect();
        let rank = known.table.rows.iter().filter(|row| row.held.is_none()).position(|row| ids.contains(&row.id));
        let rank = u32::try_from(rank.unwrap_or(0)).unwrap_or(STAGGERED_MAX).min(STAGGERED_MAX);
        let stands = |row: &&Row| row.held.as_ref().is_some_and(|held| !held.lapsed);
        let until = known.table.rows.iter().filter(stands).filter(|row| self.is_in_the_way(row));
        until.map(|row| self.sight.until(row)).min().map(|until| until + STAGGER * rank + Duration::from_millis(1))
    }

    fn is_in_the_way(&self, row: &Row) -> bool {
        let meets = |claims: &[Claim]| row.claims.iter().any(|own| claims.iter().any(|other| own.conflicts(other)));
        self.attempts.iter().any(|attempt| attempt.request.lease != row.id && meets(attempt.request.claims()))
    }

    fn look_interval(&self) -> Duration {
        let held = self.known.iter().flat_map(|known| &known.table.rows).filter(|row| row.held.is_some());
        let shortest = held.map(Row::lasts_ms).min().map_or(LOOK_MOST, Duration::from_millis);
        (shortest / 4).clamp(LOOK_LEAST, LOOK_MOST)
    }

    /// Whether the table must be looked at or written, though nobody asks anything.
    fn has_business(&self) -> bool {
        let Some(known) = &self.known else {
            return !(self.attempts.is_empty() && self.doomed.is_empty() && self.held.is_empty());
        };
        let now = Instant::now();
        let needs = |attempt: &Attempt| {
            attempt.confirm
                || attempt.answer.is_closed()
                || attempt.deadline.has_passed()
                || known.table.row(attempt.request.lease).is_none()
        };
        let stale = |row: &Row| self.earlier_homes.iter().any(|home| **home == *row.home);
        self.is_ripe
            || self.attempts.iter().any(needs)
            || self.expiries().is_some_and(|at| at <= now)
            || (!self.attempts.is_empty() && self.dead.values().any(|at| *at <= now))
            || known.table.rows.iter().any(stale)
    }

    /// Decides what is asked, and writes it, until all of it is answered.
    async fn work(&mut self, mut jobs: Vec<Job>) {
        let mut pause = Pause::new();
        let mut trouble: Option<EngineError> = None;
        let mut conflicts = 0;
        // Whether the version at hand was seen after all that is asked.
        let mut fresh = false;
        loop {
            while let Ok(call) = self.calls.try_recv() {
                self.take(call, &mut jobs);
                fresh = false;
            }
            self.give_up(&mut jobs, trouble.as_ref());
            if jobs.is_empty() && !self.has_business() {
                return;
            }
            if let Err(error) = self.step(&mut jobs, &mut fresh, &mut conflicts).await {
                // What cannot be helped by waiting is said at once.
                if !error.is_passing {
                    self.fail(&mut jobs, &error.explained);
                    if self.attempts.is_empty() {
                        return;
                    }
                }
                trouble = Some(error.explained);
                (self.known, fresh) = (None, false);
                pause.wait().await;
            }
            if conflicts > 2 {
                // Several processes want the same table: not all at the same moment again.
                tokio::time::sleep(Duration::from_micros(rand::random_range(0..500 * u64::from(conflicts.min(20)))))
                    .await;
            }
        }
    }

    /// Ends what has waited long enough for an answer from Consul.
    fn give_up(&mut self, jobs: &mut Vec<Job>, trouble: Option<&EngineError>) {
        let Some(trouble) = trouble else { return };
        let over = |deadline: Deadline| Instant::now() > deadline.instant() + LEAST;
        for job in jobs.extract_if(.., |job| over(job.deadline)) {
            job.fail(again(trouble));
        }
        for attempt in self.attempts.extract_if(.., |attempt| over(attempt.deadline)) {
            drop(attempt.answer.send(Err(again(trouble))));
        }
    }

    /// Says to all who ask that it cannot be.
    fn fail(&mut self, jobs: &mut Vec<Job>, trouble: &EngineError) {
        for job in jobs.drain(..) {
            job.fail(again(trouble));
        }
        // Where there is no room for more, those who wait already go on.
        let full = trouble.kind == TroubleKind::Full;
        for attempt in self.attempts.extract_if(.., |attempt| !(full && attempt.placed)) {
            drop(attempt.answer.send(Err(again(trouble))));
        }
    }

    /// One look, one draft, and one write where something changes.
    async fn step(&mut self, jobs: &mut Vec<Job>, fresh: &mut bool, conflicts: &mut u32) -> Result<(), Trouble> {
        self.settle_in().await?;
        if self.known.is_none() {
            self.read().await?;
            *fresh = true;
            self.check().await?;
            if jobs.is_empty() && !self.has_business() {
                return Ok(());
            }
        }
        self.check().await?;
        let home = self.home.clone();
        if let Some(known) = &self.known {
            self.dead.retain(|home, _| known.table.rows.iter().any(|row| row.home == *home));
        }
        let home_id = home.as_ref().map_or("", |home| &*home.id);
        let Some(known) = &self.known else { return Ok(()) };
        self.is_ripe = false;
        let mut draft = Draft::new(&known.table, home_id, &self.sight);
        let buried = self.bury(&mut draft, home.as_ref());
        let verdicts: Vec<Verdict> = jobs.iter().map(|job| self.decide(&mut draft, job)).collect();
        let ends = self.decide_attempts(&mut draft);
        let (table, changed, told) = (draft.table, draft.changed, draft.told);
        let base = known.index;
        if !changed && !self.uncertain {
            if *fresh {
                self.finish(jobs, verdicts, ends);
            } else {
                self.known = None;
            }
            return Ok(());
        }
        let mut table = table;
        table.base = base;
        let asked = Instant::now();
        match self.write(&table, base, home.as_ref(), &buried, &told).await {
            Ok(Written::Done(index)) => {
                self.uncertain = false;
                *conflicts = 0;
                self.dead.retain(|home, _| !buried.contains(home));
                (*fresh, self.looked) = (true, asked);
                self.adopt(table, index, Some(asked), true);
                self.finish(jobs, verdicts, ends);
            }
            Ok(outcome) => {
                *conflicts += 1;
                (self.known, *fresh) = (None, false);
                match outcome {
                    Written::NoHome => {
                        if let Some(home) = &home {
                            self.office.homes.lose(home);
                        }
                        self.lose_home();
                    }
                    // They may be buried a little later.
                    Written::NotDead { delayed: true } => {
                        for home in &buried {
                            self.dead.insert(home.clone(), Instant::now() + DELAYED);
                        }
                    }
                    Written::NotDead { delayed: false } => self.dead.retain(|home, _| !buried.contains(home)),
                    Written::Conflict | Written::Done(_) => {}
                }
            }
            Err(trouble) => {
                let unknown = trouble.explained.effect == mutext_contract::Effect::Unknown;
                self.uncertain |= unknown;
                jobs.iter_mut().for_each(|job| job.uncertain |= unknown);
                return Err(trouble);
            }
        }
        Ok(())
    }

    /// Makes sure of a home where somebody waits, and moves over to another one.
    async fn settle_in(&mut self) -> Result<(), Trouble> {
        let homes = Arc::clone(&self.office.homes);
        let home = if self.attempts.is_empty() {
            homes.current()
        } else {
            let ensured = homes.ensure().await;
            Some(ensured.map_err(|explained| Trouble { is_passing: passing(&explained.kind), explained })?)
        };
        if self.home.is_some() && self.home != home {
            self.lose_home();
        }
        self.home = home;
        Ok(())
    }

    /// Reads the table.
    async fn read(&mut self) -> Result<(), Trouble> {
        let key = self.office.keys.table(&self.context);
        let asked = Instant::now();
        let found = self.office.consul.get(&key, PATIENCE).await.map_err(|error| self.trouble(error))?;
        let (table, index) = match found {
            None => (Table::new(0), 0),
            Some(found) => {
                let read = Table::read(&found.value, found.index);
                let damaged = |what: String| Trouble {
                    explained: trouble::unreadable(&self.office.subject, &key, &what),
                    is_passing: false,
                };
                (read.map_err(damaged)?, found.index)
            }
        };
        self.looked = asked;
        self.adopt(table, index, Some(asked), false);
        Ok(())
    }

    /// A version that is true: those whom it concerns hear of it. `asked` is the moment before it was asked for, and
    /// `own` says that this process wrote it.
    fn adopt(&mut self, mut table: Table, index: u64, asked: Option<Instant>, own: bool) {
        if index > 0 && table.base >= index {
            // Indexes began anew, and with them the counters of tokens: they need another epoch.
            table.epoch = 0;
        }
        table.granted_at(index);
        self.sight.note(&table);
        if own && table.epoch == 0 {
            // What this version granted must not be believed.
            self.known = None;
            return;
        }
        let has_epoch = table.epoch != 0;
        let mut going = Vec::new();
        let mut replaced = HashSet::new();
        for (place, attempt) in self.attempts.iter_mut().enumerate() {
            if has_epoch {
                // Somebody has begun one; should it be lost again, the next is minted after that.
                attempt.epoch = None;
            }
            let Some(row) = table.row(attempt.request.lease) else { continue };
            attempt.placed = true;
            let Some(held) = &row.held else {
                attempt.queued = true;
                attempt.waiting_at = asked.or(attempt.waiting_at);
                continue;
            };
            replaced.extend(attempt.request.replaces);
            let ttl = attempt.request.ttl.get();
            let (since, lasts) = match (held.confirmed, own) {
                (true, true) => (asked.unwrap_or(attempt.asked), ttl),
                (true, false) => (attempt.asked, ttl),
                (false, _) => (attempt.waiting_at.unwrap_or(attempt.asked), ttl.min(Duration::from_millis(CONFIRM_MS))),
            };
            let valid_until = since + lasts;
            if valid_until < Instant::now() + lasts / 2 {
                attempt.confirm = true;
            } else if let Some(token) = row.token() {
                going.push((place, token, valid_until));
            }
        }
        for (place, token, valid_until) in going.into_iter().rev() {
            let attempt = self.attempts.remove(place);
            let request = attempt.request;
            let lease = Lease {
                context: request.context.clone(),
                claims: Arc::clone(request.claims()),
                holder: request.holder.clone(),
                token,
                ttl: request.ttl,
                valid_until,
            };
            self.held.insert(request.lease);
            let grant = Grant { lease, queued: attempt.queued, handed_over_after: None };
            // Whoever went away in this very moment gives it back: that is the caller's part of the contract.
            drop(attempt.answer.send(Ok(Answered::Settled(Acquisition::Granted(grant)))));
        }
        for lease in self.held.extract_if(|lease| table.row(*lease).is_none()) {
            if !replaced.contains(&lease) {
                let _ = self.office.losses.send(lease);
            }
        }
        self.doomed.retain(|lease| table.row(*lease).is_some());
        if self.doomed.is_empty() && !self.earlier_homes.is_empty() {
            self.earlier_homes.retain(|home| table.rows.iter().any(|row| *row.home == **home));
        }
        self.is_ripe = !self.attempts.is_empty() && Draft::is_ripe(&table, &self.sight);
        self.known = Some(Known { table, index });
    }

    /// Looks whether the processes in the way of those who wait here are alive.
    async fn check(&mut self) -> Result<(), Trouble> {
        if self.checked.is_some_and(|at| at.elapsed() < CHECK) {
            return Ok(());
        }
        let Some(known) = &self.known else { return Ok(()) };
        let own = |home: &str| {
            self.home.as_ref().is_some_and(|own| *own.id == *home)
                || self.earlier_homes.iter().any(|earlier| **earlier == *home)
        };
        let in_the_way = |row: &&Row| !own(&row.home) && !self.dead.contains_key(&row.home) && self.is_in_the_way(row);
        let homes: BTreeSet<&str> = known.table.rows.iter().filter(in_the_way).map(|row| &*row.home).collect();
        let homes: Vec<String> = homes.into_iter().take(CHECKED_MAX).map(str::to_owned).collect();
        if homes.is_empty() {
            return Ok(());
        }
        self.checked = Some(Instant::now());
        let steps: Vec<Step<'_>> =
            homes.iter().map(|home| Step::Exists { key: self.office.keys.alive(home) }).collect();
        let outcome = self.office.consul.transact(&steps, PATIENCE).await.map_err(|error| self.trouble(error))?;
        if let Outcome::Undone { steps } = outcome {
            let missing = steps.iter().filter(|(_, what)| what.contains("doesn't exist"));
            for home in missing.filter_map(|(place, _)| homes.get(*place)) {
                self.dead.insert(home.clone(), Instant::now());
            }
        }
        Ok(())
    }

    /// Takes out what lived in processes that are no more, and what this one had under an earlier session.
    fn bury(&self, draft: &mut Draft<'_>, home: Option<&Home>) -> Vec<String> {
        let goes_on = |id: LeaseId| self.attempts.iter().any(|attempt| attempt.request.lease == id);
        for earlier in &self.earlier_homes {
            draft.move_from(earlier, goes_on);
        }
        if home.is_none() || self.attempts.is_empty() {
            return Vec::new();
        }
        let now = Instant::now();
        let due = self.dead.iter().filter(|(_, at)| **at <= now).map(|(home, _)| home);
        let due: Vec<String> = due.take(BURIED_MAX).cloned().collect();
        due.iter().for_each(|home| draft.bury(home));
        due
    }

    fn decide(&self, draft: &mut Draft<'_>, job: &Job) -> Verdict {
        match &job.what {
            What::Renew { lease, .. } if self.doomed.contains(lease) => Verdict::Renewed(Err(Loss::Expired)),
            What::Renew { lease, ttl, .. } => Verdict::Renewed(draft.renew(*lease, table::milliseconds(*ttl))),
            What::Release { lease, by, .. } => {
                let released = draft.release(*lease, by.clone());
                let done = released == Release::Released || job.uncertain;
                Verdict::Released(if done { Release::Released } else { Release::NotHeld })
            }
            What::Inspect { .. } => {
                draft.mark_lapsed();
                Verdict::Seen
            }
        }
    }

    /// How those who wait stand in the draft: those whose wait ends with it.
    fn decide_attempts(&self, draft: &mut Draft<'_>) -> HashMap<LeaseId, End> {
        let decide = |attempt: &Attempt| Some((attempt.request.lease, self.decide_attempt(draft, attempt)?));
        let ends = self.attempts.iter().filter_map(decide).collect();
        if !self.attempts.is_empty() {
            // What is written down as lapsed needs no more looks.
            draft.mark_lapsed();
            draft.settle();
        }
        ends
    }

    fn decide_attempt(&self, draft: &mut Draft<'_>, attempt: &Attempt) -> Option<End> {
        let request = &attempt.request;
        let id = request.lease;
        let last = attempt.deadline.has_passed();
        if attempt.answer.is_closed() {
            draft.leave(id);
            return Some(End::Left);
        }
        if draft.table.epoch == 0 {
            let Some(epoch) = attempt.epoch else { return Some(End::NoEpoch) };
            draft.begin(epoch);
        }
        match draft.table.row(id).map(|row| row.held.is_some()) {
            Some(true) if attempt.confirm => {
                draft.confirm(id);
                None
            }
            Some(false) if last => Some(End::Settled(Acquisition::TimedOut(draft.leave(id)))),
            Some(_) => None,
            None => {
                let replaced = request.replaces.map(|lease| (lease, draft.table.row(lease)));
                if let Some((lease, row)) = replaced
                    && (row.is_none_or(|row| row.held.is_none()) || self.doomed.contains(&lease))
                {
                    return Some(End::Settled(Acquisition::Lost(draft.table.loss(lease))));
                }
                // One that was placed and is gone: its turn came and went while this process was stopped, or it was
                // taken for dead. It has lost its place, not its wait.
                let over = attempt.placed && (last || draft.table.is_ended(id));
                if over {
                    return Some(End::Settled(Acquisition::TimedOut(Blocked::default())));
                }
                let home = self.home.as_ref().map_or("", |home| &*home.id);
                let row = Row::new(request, home, attempt.deadline.remaining());
                match draft.ask(row, last) {
                    Asked::Granted | Asked::Queued => None,
                    Asked::Blocked(blocked) => Some(End::Settled(Acquisition::TimedOut(blocked))),
                    Asked::Deadlock(deadlock) => Some(End::Settled(Acquisition::Deadlock(deadlock))),
                }
            }
        }
    }

    /// Answers what the draft decided; it stands.
    fn finish(&mut self, jobs: &mut Vec<Job>, verdicts: Vec<Verdict>, mut ends: HashMap<LeaseId, End>) {
        for (job, verdict) in jobs.drain(..).zip(verdicts) {
            match (job.what, verdict) {
                (What::Renew { lease, answer, .. }, Verdict::Renewed(outcome)) => {
                    if outcome.is_err() {
                        self.held.remove(&lease);
                    }
                    drop(answer.send(Ok(outcome)));
                }
                (What::Release { answer, .. }, Verdict::Released(release)) => drop(answer.send(Ok(release))),
                (What::Inspect { answer }, _) => {
                    let now_ns = self.sight.now_ns();
                    let known = self.known.as_ref();
                    let picture = known.map(|known| known.table.picture(now_ns, |row| self.sight.until_ns(row)));
                    drop(answer.send(Ok(picture.unwrap_or_default())));
                }
                _ => {}
            }
        }
        for attempt in std::mem::take(&mut self.attempts) {
            match ends.remove(&attempt.request.lease) {
                None => self.attempts.push(attempt),
                Some(End::Settled(acquisition)) => attempt.settle(acquisition),
                Some(End::NoEpoch) => drop(attempt.answer.send(Ok(Answered::NoEpoch))),
                Some(End::Left) => {}
            }
        }
    }

    /// Writes the next version, if the last one is still the last, and tells those whom it concerns.
    async fn write(
        &self,
        table: &Table,
        index: u64,
        home: Option<&Home>,
        buried: &[String],
        told: &BTreeSet<String>,
    ) -> Result<Written, Trouble> {
        let keys = &self.office.keys;
        let value = serde_json::to_vec(table).map_err(|error| self.trouble(error.into()))?;
        if value.len() > table::BYTES_MAX {
            let said =
                format!("its lock table would take {} bytes, and one key holds {}", value.len(), table::BYTES_MAX);
            return Err(self.trouble(CallTrouble::Refused { status: 413, said }));
        }
        let value = base64(&value);
        let fits = value.len() <= LETTER_BYTES_MAX && value.len() * (told.len() + 1) <= LETTERS_BYTES_MAX;
        let mut steps = Vec::new();
        if let Some(home) = home {
            // Nothing is written in the name of a session that is no more, or into a memory that does not know it.
            steps.push(Step::Check { key: keys.alive(&home.id), session: &home.session });
            for dead in buried {
                steps.push(Step::Lock { key: keys.alive(dead), session: &home.session });
                steps.push(Step::Remove { prefix: keys.home(dead) });
            }
        }
        let at = steps.len();
        steps.push(Step::Swap { key: keys.table(&self.context), value: &value, index });
        let letter = if fits { &*value } else { "" };
        let living = told.iter().filter(|home| !buried.contains(home)).take(TOLD_MAX);
        steps.extend(living.map(|home| Step::Set { key: keys.bell(home, &self.context), value: letter }));
        match self.office.consul.transact(&steps, PATIENCE).await.map_err(|error| self.trouble(error))? {
            Outcome::Done { index } => Ok(Written::Done(index)),
            Outcome::Undone { steps } => Ok(match steps.first() {
                Some((0, _)) if home.is_some() => Written::NoHome,
                Some((place, what)) if *place < at => Written::NotDead { delayed: what.contains("lock delay") },
                _ => Written::Conflict,
            }),
        }
    }

    fn trouble(&self, error: CallTrouble) -> Trouble {
        Trouble { is_passing: error.is_passing(), explained: trouble::explain(&self.office.subject, error) }
    }
}

/// Why a step failed.
struct Trouble {
    explained: EngineError,
    is_passing: bool,
}

fn passing(kind: &TroubleKind) -> bool {
    *kind == TroubleKind::Unavailable
}

/// The same trouble for another who asks.
fn again(error: &EngineError) -> EngineError {
    EngineError::new(error.subject.clone(), error.kind.clone(), error.remedy).with_effect(error.effect)
}

const _: () = assert!(VERSION == 1, "another version of the table needs a way to read this one");
