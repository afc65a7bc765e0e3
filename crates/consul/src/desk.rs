//! One context's lock table, as this process works on it: everything that its callers ask goes into the next version,
//! which is written by compare-and-set, and what comes of it is handed back.
//!
//! A desk is a task on the engine's own runtime. Whoever asks waits for an answer; whoever stops waiting is noticed.
//! Many requests that come at once share one write.

mod adopting;
mod deciding;
mod reaching;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use mutext_contract::{Acquisition, Blocked, Claim, ContextName, Deadline, EngineError, LeaseId, TroubleKind};
use mutext_reach::Pause;
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;

use crate::asked::{Attempt, Call, Job, Verdict, What, again};
use crate::home::{Home, Homes};
use crate::http::LONGEST_PAUSE;
use crate::keys::Keys;
use crate::kv::Consul;
use crate::plan::Draft;
use crate::sight::Sight;
use crate::table::{Row, Table};
use reaching::{Trouble, Written};

/// A call that must be given a chance has at least this long, also where its deadline has passed.
pub(crate) const LEAST: Duration = Duration::from_secs(1);
/// How often a process looks at what is in the way of its waiters: at a quarter of the shortest TTL, within these.
const LOOK_LEAST: Duration = Duration::from_millis(50);
const LOOK_MOST: Duration = Duration::from_secs(1);
/// How soon after a refusal for the lock-delay it is tried again.
const DELAYED: Duration = Duration::from_millis(200);
/// Behind how many others a waiter looks so much later than the first when a lease runs out: one of them is enough.
const STAGGER: Duration = Duration::from_millis(20);
const STAGGERED_MAX: u32 = 10;
/// A desk that nobody needs for so long is cleared.
const IDLE: Duration = Duration::from_secs(60);

/// A version that was read or written.
struct Known {
    table: Table,
    index: u64,
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
    /// The last epoch that was seen, and the highest index of a version that has it.
    newest: (u64, u64),
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
            newest: (0, 0),
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
        let mut pause = Pause::up_to(LONGEST_PAUSE);
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
                    if self.attempts.is_empty() && jobs.is_empty() {
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

    /// Says to all who ask that it cannot be. Where there is no room for more, it is said to the last who came alone: all
    /// others may fit, and whoever gives something back makes room.
    fn fail(&mut self, jobs: &mut Vec<Job>, trouble: &EngineError) {
        let full = trouble.kind == TroubleKind::Full;
        if let Some(last) = self.attempts.iter().rposition(|attempt| !attempt.placed).filter(|_| full) {
            drop(self.attempts.remove(last).answer.send(Err(again(trouble))));
            return;
        }
        for job in jobs.drain(..) {
            job.fail(again(trouble));
        }
        // Those who wait already go on.
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
}
