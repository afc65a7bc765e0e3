//! A context's lock table as a register that a majority of the nodes agrees on, in the manner of CASPaxos: a proposer
//! learns the value by a round of promises, applies the operations of all who wait for it here, and has the outcome
//! accepted. Whoever made the last change needs no promises for its next one: they came with its acceptance.
//!
//! A node that starts again may have forgotten what it promised, and one forgotten promise is enough to lose a grant.
//! So a node votes only in what it remembers without a break since it started, and otherwise takes over first what a
//! majority of those who do remember has decided. Where no majority remembers, an epoch is founded: the document store
//! mints it, ballots begin with it, and every token of an earlier one is behind.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream, StreamExt};
use mutext_contract::{ContextName, Deadline, Effect, EngineError, EpochSource, TroubleKind};
use redis::{FromRedisValue, Value};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::courier::Courier;
use super::nodes::{Nodes, Order};
use super::table::{Op, Said, Table, Tell, nanos};
use crate::keys::Keys;
use crate::link::lock;
use crate::scripts;

/// Contexts whose promises are kept; of others they are asked for again.
const SEATS_KEPT: usize = 4_096;
/// Operations that are done in one change.
const AT_ONCE: usize = 256;
/// A round is taken to last at least and at most so long: others are put off for four of them while one proposer is at
/// it, and whoever lost tries again after up to four.
const QUICKEST: Duration = Duration::from_micros(500);
const SLOWEST: Duration = Duration::from_millis(100);
/// Where no majority answers, a proposer waits so long before it tries again.
const UNREACHED: Duration = Duration::from_millis(20);
/// How long the change that lets a node vote again may take; should it fail, the next one does it.
const AGAIN: Duration = Duration::from_secs(2);

/// Orders proposals. The epoch leads: what an epoch decided is behind all that a later one does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Ballot {
    epoch: u64,
    round: u64,
    proposer: u64,
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.epoch, self.round, self.proposer)
    }
}

impl Ballot {
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(' ').map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self { epoch: next()?, round: next()?, proposer: next()? })
    }

    const fn next(self) -> Self {
        Self { round: self.round + 1, ..self }
    }
}

/// What a node has accepted: by which ballot, and how long ago by its own clock.
struct Accepted {
    ballot: Ballot,
    value: String,
    age: Duration,
}

/// How a node answered a proposer.
enum Vote {
    /// Promised, with what it has.
    Promised(Option<Accepted>),
    Refused(Ballot),
    /// It does not remember; what lies there may be old.
    Forgot {
        ticket: String,
        accepted: Option<Accepted>,
    },
    Nothing,
}

fn vote(value: Option<Value>) -> Vote {
    let Some(Ok(parts)) = value.map(Vec::<Value>::from_redis_value) else { return Vote::Nothing };
    let text = |at: usize| {
        let part = parts.get(at).cloned().unwrap_or(Value::Nil);
        String::from_redis_value(part).unwrap_or_default()
    };
    let accepted = || {
        let age = text(3).parse().map_or(Duration::ZERO, Duration::from_micros);
        Some(Accepted { ballot: Ballot::parse(&text(1))?, value: text(2), age })
    };
    match parts.first() {
        Some(Value::Int(0)) => Ballot::parse(&text(1)).map_or(Vote::Nothing, Vote::Refused),
        Some(Value::Int(1)) => Vote::Promised(accepted()),
        Some(Value::Int(2)) if parts.len() == 2 => Vote::Forgot { ticket: text(1), accepted: None },
        Some(Value::Int(2)) => Vote::Forgot { ticket: text(4), accepted: accepted() },
        _ => Vote::Nothing,
    }
}

/// The value that the latest of ballots has, and since when: the youngest copy counts, so that one node's clock that
/// jumped ends no lease.
fn latest(all: Vec<Accepted>) -> Option<(Ballot, String, Duration)> {
    let ballot = all.iter().map(|one| one.ballot).max()?;
    let age = all.iter().filter(|one| one.ballot == ballot).map(|one| one.age).min()?;
    let value = all.into_iter().find(|one| one.ballot == ballot)?.value;
    Some((ballot, value, age))
}

/// The table as it is known, and the ballot by which it may be changed, unless somebody else has been promised one.
struct Known {
    ballot: Ballot,
    /// The one that the table was accepted by, where that is of the same epoch.
    accepted: Option<Ballot>,
    table: Table,
    /// When the table's clock said what it says.
    at: Instant,
}

/// What is known of a context's register.
#[derive(Default)]
struct Turn {
    known: Option<Known>,
    /// The latest ballot that was heard of.
    seen: Ballot,
    /// Another proposer was in the way the last time.
    is_contended: bool,
}

struct Job {
    op: Op,
    answer: oneshot::Sender<Result<Said, EngineError>>,
    deadline: Deadline,
    /// The last try in which it was there to be ended: that may have happened.
    ended_by: Option<Ballot>,
    /// It did happen.
    ended: bool,
}

/// A context's register, for all of this process.
#[derive(Default)]
struct Seat {
    jobs: Mutex<Jobs>,
}

#[derive(Default)]
struct Jobs {
    waiting: Vec<Job>,
    turn: Turn,
    /// Somebody does what waits.
    is_driven: bool,
}

/// Jobs that are done at one time, by the task that has the turn. Dropped before its end, as with the runtime that it
/// ran on, it leaves the turn: those who wait find their answers gone, and ask again.
struct Batch {
    seat: Arc<Seat>,
    jobs: Vec<Job>,
    turn: Turn,
    is_over: bool,
}

impl Batch {
    /// The next jobs; false where none waits, and the turn is over.
    fn next(&mut self) -> bool {
        let mut all = lock(&self.seat.jobs);
        // Whoever does not wait any more gives back what may have come of it.
        all.waiting.retain(|job| !job.answer.is_closed());
        let most = all.waiting.len().min(AT_ONCE);
        self.jobs = all.waiting.drain(..most).collect();
        if self.jobs.is_empty() {
            all.turn = std::mem::take(&mut self.turn);
            all.is_driven = false;
            self.is_over = true;
        }
        !self.jobs.is_empty()
    }

    /// The epoch that is to be begun, where one of the jobs brings one that serves.
    fn begins(&self, last: u64) -> Option<u64> {
        let serves = |job: &Job| match job.op {
            Op::Begin { above, minted } if last <= above && above < minted => Some(minted),
            _ => None,
        };
        self.jobs.iter().filter_map(serves).max()
    }

    fn deadline(&self) -> Deadline {
        let last = self.jobs.iter().map(|job| job.deadline.instant()).max();
        last.map_or_else(Deadline::now, Deadline::at)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if !self.is_over {
            let mut all = lock(&self.seat.jobs);
            all.is_driven = false;
            all.waiting.clear();
        }
    }
}

/// Why an epoch is begun.
#[derive(Clone, Copy)]
enum Founding {
    /// No majority remembers the last one: nodes that have forgotten vote, too.
    Forgotten,
    /// Its tokens are behind what documents have seen: a majority that remembers decides, as in any change.
    Behind,
}

/// Why a step of a proposal did not succeed.
enum Stop {
    /// Another proposer is at it.
    Conflict,
    /// No majority of the nodes answers.
    Unreached,
    Trouble(EngineError),
}

/// All registers.
pub(crate) struct Register {
    pub(crate) nodes: Arc<Nodes>,
    keys: Arc<Keys>,
    pub(crate) epochs: Arc<dyn EpochSource>,
    proposer: u64,
    seats: Mutex<HashMap<ContextName, Arc<Seat>>>,
    courier: Courier,
    /// How long a round takes, in microseconds.
    pace: AtomicU64,
    /// Nodes that have forgotten a register, by its key: what a later acceptance decides, they take over.
    forgot: Mutex<HashMap<Arc<str>, Vec<Ticket>>>,
}

/// A node, and its name for one time of having forgotten.
type Ticket = (usize, String);

impl Register {
    pub(crate) fn new(nodes: Arc<Nodes>, keys: Arc<Keys>, epochs: Arc<dyn EpochSource>, courier: Courier) -> Self {
        // Lua counts exactly up to 53 bits.
        let proposer = rand::random::<u64>() >> 16;
        Self {
            nodes,
            keys,
            epochs,
            proposer,
            seats: Mutex::default(),
            courier,
            pace: AtomicU64::new(1_000),
            forgot: Mutex::default(),
        }
    }

    /// The next answer. Once one node has refused, whoever has not answered may as well hang: it is not waited for long.
    async fn next<T>(&self, votes: &mut (impl Stream<Item = T> + Unpin), refused: bool) -> Option<T> {
        if refused {
            tokio::time::timeout(8 * self.pace(), votes.next()).await.unwrap_or(None)
        } else {
            votes.next().await
        }
    }

    fn pace(&self) -> Duration {
        Duration::from_micros(self.pace.load(Ordering::Relaxed)).clamp(QUICKEST, SLOWEST)
    }

    fn took(&self, round: Duration) {
        let round = u64::try_from(round.as_micros()).unwrap_or(u64::MAX).min(1_000_000);
        let pace = self.pace.load(Ordering::Relaxed);
        self.pace.store((pace * 7 + round) / 8, Ordering::Relaxed);
    }

    fn seat(&self, context: &ContextName) -> Arc<Seat> {
        let mut seats = lock(&self.seats);
        if let Some(seat) = seats.get(context) {
            return Arc::clone(seat);
        }
        if seats.len() >= SEATS_KEPT {
            seats.retain(|_, seat| Arc::strong_count(seat) > 1);
        }
        Arc::clone(seats.entry(context.clone()).or_default())
    }

    /// Does one thing to a context's table. Dropped, it may have been done or not.
    pub(crate) async fn run(
        self: &Arc<Self>,
        context: &ContextName,
        op: Op,
        deadline: Deadline,
    ) -> Result<Said, EngineError> {
        let seat = self.seat(context);
        let run = async {
            loop {
                let (answer, answered) = oneshot::channel();
                let job = Job { op: op.clone(), answer, deadline, ended_by: None, ended: false };
                let turn = {
                    let mut all = lock(&seat.jobs);
                    all.waiting.push(job);
                    let is_driven = std::mem::replace(&mut all.is_driven, true);
                    (!is_driven).then(|| std::mem::take(&mut all.turn))
                };
                if let Some(turn) = turn {
                    // In a task of its own: nobody waits for somebody who does not go on.
                    let batch = Batch { seat: Arc::clone(&seat), jobs: Vec::new(), turn, is_over: false };
                    tokio::spawn(Arc::clone(self).drive(context.clone(), batch));
                }
                if let Ok(said) = answered.await {
                    return said;
                }
            }
        };
        tokio::time::timeout_at(deadline.instant(), run).await.unwrap_or_else(|_| Err(self.unreached()))
    }

    fn unreached(&self) -> EngineError {
        let remedy = "no majority of the nodes answers: see that they run and can be reached from here";
        EngineError::new(self.keys.subject(), TroubleKind::Unavailable, remedy).with_effect(Effect::Unknown)
    }

    /// Does all that waits at a seat, as much as there is at a time in one change.
    async fn drive(self: Arc<Self>, context: ContextName, mut batch: Batch) {
        let key: Arc<str> = self.keys.register(&context).into();
        while batch.next() {
            let mut earlier: Vec<Tell> = Vec::new();
            while !batch.jobs.is_empty() {
                match self.change(&context, &key, &mut batch, &mut earlier).await {
                    Ok(()) => break,
                    Err(Stop::Trouble(error)) => {
                        // The others ask again, and are told themselves.
                        if let Some(job) = batch.jobs.drain(..).next() {
                            drop(job.answer.send(Err(error)));
                        }
                    }
                    Err(stop) => {
                        // Not longer with each time: who has lost often would lose to who has not.
                        let pause = if matches!(stop, Stop::Conflict) { 4 * self.pace() } else { UNREACHED };
                        tokio::time::sleep(pause.mul_f64(rand::random_range(0.1..1.0))).await;
                        batch.jobs.retain(|job| !job.answer.is_closed());
                    }
                }
            }
        }
    }

    /// Does a batch in one change, or says what is in the way.
    async fn change(
        self: &Arc<Self>,
        context: &ContextName,
        key: &Arc<str>,
        batch: &mut Batch,
        earlier: &mut Vec<Tell>,
    ) -> Result<(), Stop> {
        let known = if let Some(known) = batch.turn.known.take() {
            known
        } else {
            let deadline = batch.deadline();
            self.prepare(context, key, &mut batch.turn, deadline).await?
        };
        let known = match batch.begins(known.table.epoch) {
            Some(epoch) => self.found(key, &mut batch.turn, None, epoch, Founding::Behind).await?,
            None => known,
        };
        let Known { ballot, accepted, mut table, at } = known;
        let began = Instant::now();
        if let Some(Ballot { round, proposer, .. }) = accepted {
            table.follows(round, proposer);
        }
        recognise(batch, &table);
        let now_ns = table.clock_ns.saturating_add(nanos(began.duration_since(at)));
        let mut tells = Vec::new();
        let said: Vec<Said> = batch.jobs.iter().map(|job| table.apply(&job.op, now_ns, &mut tells)).collect();
        let accepted = self.accept(context, key, ballot, table.write(), &mut batch.turn).await;
        batch.turn.is_contended = accepted.is_err();
        if let Err(stop) = accepted {
            note(batch, &said, ballot);
            earlier.append(&mut tells);
            return Err(stop);
        }
        // What an earlier try granted stands where somebody completed it.
        earlier.retain(|tell| tell.stands(&table) && !tells.contains(tell));
        tells.append(earlier);
        batch.turn.known = Some(Known { ballot: ballot.next(), accepted: Some(ballot), table, at: began });
        answer(batch, said);
        self.courier.deliver(self, context, tells);
        Ok(())
    }

    /// Learns the table, and is promised that nobody with an older ballot changes it.
    async fn prepare(
        &self,
        context: &ContextName,
        key: &Arc<str>,
        turn: &mut Turn,
        deadline: Deadline,
    ) -> Result<Known, Stop> {
        let Ballot { epoch, round, .. } = turn.seen;
        let ballot = Ballot { epoch, round: round + 1, proposer: self.proposer };
        turn.seen = ballot;
        let (promised, others, refused) = self.promises(key, ballot, "", turn).await;
        if let Some(promised) = promised {
            return match latest(promised) {
                // A value is always of its ballot's epoch.
                Some((accepted, value, age)) if accepted.epoch == epoch => {
                    self.known(ballot, Some(accepted), &value, age)
                }
                // This epoch was to be founded here, and whoever was at it did not come to the end. Nothing has been
                // granted under it, and a majority that remembers lets nobody else decide anything before this ballot:
                // so it is founded now, and neither another one nor nodes that have forgotten are needed.
                best => self.founded(ballot, best),
            };
        }
        if refused {
            turn.is_contended = true;
            return Err(Stop::Conflict);
        }
        let best = latest(others.ok_or(Stop::Unreached)?);
        let last = best.as_ref().map_or(0, |(ballot, ..)| ballot.epoch).max(turn.seen.epoch);
        // All wait for it, renewals too: where no majority remembers, nothing can be done without an epoch.
        let minted = self.epochs.mint_epoch(context, last, deadline).await;
        self.found(key, turn, best, minted.map_err(Stop::Trouble)?, Founding::Forgotten).await
    }

    /// Asks for promises: what a majority that remembers has; else what lies on the nodes, where a majority answers;
    /// and whether something newer is promised.
    async fn promises(
        &self,
        key: &Arc<str>,
        ballot: Ballot,
        kind: &str,
        turn: &mut Turn,
    ) -> (Option<Vec<Accepted>>, Option<Vec<Accepted>>, bool) {
        let began = Instant::now();
        let put_off = (4 * self.pace()).as_micros().to_string();
        let args = Arc::new(vec![ballot.to_string(), kind.to_owned(), put_off]);
        // Where others want the same, all begin with the same node: whoever is first there is first everywhere.
        let order = if turn.is_contended { Order::OneFirst } else { Order::AllAtOnce };
        let mut votes = self.nodes.ask_in(
            order,
            &scripts::PREPARE,
            key,
            &args,
            |value| !matches!(value, Some(Value::Array(parts)) if matches!(parts.first(), Some(Value::Int(0)))),
        );
        let (mut promised, mut forgot, mut refused) = (0, 0, false);
        let (mut accepted, mut old) = (Vec::new(), Vec::new());
        while let Some((_, value)) = self.next(&mut votes, refused).await {
            match vote(value) {
                Vote::Promised(one) => {
                    promised += 1;
                    accepted.extend(one);
                }
                Vote::Forgot { accepted: one, .. } => {
                    forgot += 1;
                    old.extend(one);
                }
                Vote::Refused(by) => {
                    refused = true;
                    turn.seen = turn.seen.max(by);
                }
                Vote::Nothing => {}
            }
            if promised >= self.nodes.majority() {
                self.took(began.elapsed());
                return (Some(accepted), None, refused);
            }
        }
        accepted.append(&mut old);
        (None, (promised + forgot >= self.nodes.majority()).then_some(accepted), refused)
    }

    fn known(&self, ballot: Ballot, accepted: Option<Ballot>, value: &str, age: Duration) -> Result<Known, Stop> {
        let now = Instant::now();
        let table = Table::read(value).ok_or_else(|| {
            let kind = TroubleKind::Failed("it holds a register that is not what Mutext writes".to_owned());
            let remedy = "see whether another program writes keys of this prefix; name another with ?prefix=NAME";
            Stop::Trouble(EngineError::new(self.keys.subject(), kind, remedy))
        })?;
        Ok(Known { ballot, accepted, table, at: now.checked_sub(age).unwrap_or(now) })
    }

    /// Begins an epoch that was minted for it. Nodes refuse one that is not above all that they have promised.
    async fn found(
        &self,
        key: &Arc<str>,
        turn: &mut Turn,
        best: Option<(Ballot, String, Duration)>,
        epoch: u64,
        founding: Founding,
    ) -> Result<Known, Stop> {
        let kind = match founding {
            Founding::Forgotten => "F",
            Founding::Behind => "",
        };
        let ballot = Ballot { epoch, round: 1, proposer: self.proposer };
        turn.seen = turn.seen.max(ballot);
        let (promised, _, refused) = self.promises(key, ballot, kind, turn).await;
        let Some(promised) = promised else {
            return Err(if refused { Stop::Conflict } else { Stop::Unreached });
        };
        let best = best.into_iter().chain(latest(promised)).max_by_key(|(ballot, ..)| *ballot);
        self.founded(ballot, best)
    }

    /// The table as an epoch begins with it. Leases that are still known stay, under their old numbers.
    fn founded(&self, ballot: Ballot, best: Option<(Ballot, String, Duration)>) -> Result<Known, Stop> {
        let mut known = match best {
            Some((_, value, age)) => self.known(ballot, None, &value, age)?,
            None => Known { ballot, accepted: None, table: Table::default(), at: Instant::now() },
        };
        known.table.begin(ballot.epoch);
        Ok(known)
    }

    /// Has a majority accept a value. Nodes that were known to have forgotten before it was asked for take it over
    /// afterwards; for those that are found out now, another change follows. What was accepted before a node forgot is
    /// not enough: the node may have accepted something newer in between, and all that is left of that is its own word
    /// and those of a majority less one, which could be outvoted by it.
    async fn accept(
        self: &Arc<Self>,
        context: &ContextName,
        key: &Arc<str>,
        ballot: Ballot,
        value: String,
        turn: &mut Turn,
    ) -> Result<(), Stop> {
        let next = ballot.next();
        let joining = lock(&self.forgot).remove(key).unwrap_or_default();
        let args = Arc::new(vec![ballot.to_string(), next.to_string(), value]);
        let mut votes = self.nodes.ask(&scripts::ACCEPT, key, &args);
        let (mut accepted, mut refused, mut forgot) = (0, false, Vec::new());
        turn.seen = turn.seen.max(next);
        while accepted < self.nodes.majority() {
            let Some((index, value)) = self.next(&mut votes, refused).await else {
                return Err(if refused { Stop::Conflict } else { Stop::Unreached });
            };
            match vote(value) {
                Vote::Promised(_) => accepted += 1,
                Vote::Refused(by) => {
                    refused = true;
                    turn.seen = turn.seen.max(by);
                }
                Vote::Forgot { ticket, .. } => forgot.push((index, ticket)),
                Vote::Nothing => {}
            }
        }
        if votes.is_empty() && forgot.is_empty() && joining.is_empty() {
            return Ok(());
        }
        // The others are not waited for; what they say is.
        let (register, context, key) = (Arc::clone(self), context.clone(), Arc::clone(key));
        tokio::spawn(async move {
            for (index, ticket) in &joining {
                let mut words = vec![ticket.clone()];
                words.extend(args.iter().cloned());
                if let Some(node) = register.nodes.all.get(*index) {
                    node.run(&scripts::JOIN, &key, &words).await;
                }
            }
            while let Some((index, value)) = votes.next().await {
                if let Vote::Forgot { ticket, .. } = vote(value) {
                    forgot.push((index, ticket));
                }
            }
            forgot.retain(|one| !joining.contains(one));
            if !forgot.is_empty() {
                lock(&register.forgot).insert(key, forgot);
                register.change_again(context).await;
            }
        });
        Ok(())
    }

    /// Makes a change that changes nothing. Boxed, since it may come out of a change.
    fn change_again(self: Arc<Self>, context: ContextName) -> BoxFuture<'static, ()> {
        let again = async move {
            if let Err(error) = self.run(&context, Op::See, Deadline::after(AGAIN)).await {
                tracing::debug!(%error, "a node that has forgotten a register waits for its next change");
            }
        };
        again.boxed()
    }

    /// The table as a majority has it, and the time by its clock, without a change to anything; none where that cannot
    /// be told.
    pub(crate) async fn peek(&self, context: &ContextName) -> Option<(Table, i64)> {
        let key: Arc<str> = self.keys.register(context).into();
        let mut votes = self.nodes.ask(&scripts::READ, &key, &Arc::default());
        let (mut empty, mut all) = (0, Vec::<Accepted>::new());
        while let Some((_, value)) = votes.next().await {
            match vote(value) {
                Vote::Promised(None) => empty += 1,
                Vote::Promised(Some(one)) => all.push(one),
                _ => {}
            }
            let last = all.iter().map(|one| one.ballot).max();
            let same = all.iter().filter(|one| Some(one.ballot) == last).count();
            if same >= self.nodes.majority() {
                let (_, value, age) = latest(all)?;
                let table = Table::read(&value)?;
                let now_ns = table.clock_ns.saturating_add(nanos(age));
                return Some((table, now_ns));
            }
        }
        (empty >= self.nodes.majority()).then(|| (Table::default(), 0))
    }
}

fn answer(batch: &mut Batch, said: Vec<Said>) {
    for (job, said) in batch.jobs.drain(..).zip(said) {
        let said = match said {
            Said::Ended(_) if job.ended => Said::Ended(mutext_contract::Release::Released),
            said => said,
        };
        // Whoever has gone gives back what came of it.
        drop(job.answer.send(Ok(said)));
    }
}

/// Takes note of what a try that may have happened would have ended.
fn note(batch: &mut Batch, said: &[Said], ballot: Ballot) {
    for (job, said) in batch.jobs.iter_mut().zip(said) {
        if matches!(said, Said::Ended(mutext_contract::Release::Released)) {
            job.ended_by = Some(ballot);
        }
    }
}

/// Finds out which earlier tries did happen: somebody else completed them.
fn recognise(batch: &mut Batch, table: &Table) {
    for job in &mut batch.jobs {
        job.ended |= job.ended_by.is_some_and(|ballot| table.has_followed(ballot.round, ballot.proposer));
    }
}
