//! The lock engine: each operation is one script call.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use mutext_contract::{
    Acquisition, AgentName, Begun, Blocked, Claim, ContextName, DeadHolder, Deadline, Effect, EngineError, EpochSource,
    ExpiryClock, Fairness, FencingToken, Finding, Grant, Lease, LeaseId, LockCapabilities, LockRequest, LockService,
    LockTable, Minting, Patience, Release, Renewal, TroubleKind, Ttl, Waiting, begin_above, may_be_behind,
};
use redis::{RedisError, Value};
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::board::{Board, Expected, Known, News, UnderWay};
use crate::keys::Keys;
use crate::link::Live;
use crate::options::RedisOptions;
use crate::presence::{self, Presence};
use crate::records::{Answer, Reader, info};
use crate::scripts;
use crate::turns::{Turn, Wish};
use crate::ways::{Servers, Way};
use crate::{examine, examine_sets};

/// A command that must be given a chance has at least this long, also where the deadline has passed.
const PATIENCE: Duration = Duration::from_secs(1);
/// A grant that was pushed lasts so long until a renewal confirms it; the scripts have the same number.
const CONFIRM: Duration = Duration::from_secs(2);
/// A waiter leaves the queue by itself at its deadline; others remove it so much later, in case it died.
const OVERDUE: Duration = Duration::from_millis(100);
/// How long a request may queue is told in multiples of so many milliseconds: many requests then say the same.
const COARSE: u128 = 50;

/// Replicas are waited for no longer, and no longer than half a TTL.
const REPLICATE: Duration = Duration::from_secs(1);

/// What is remembered of an attempt that was released by another than its asker.
const RELEASED: &str = "released";

/// Locks in Redis or Valkey.
pub struct RedisLocks {
    options: Arc<RedisOptions>,
    servers: Servers,
    keys: Arc<Keys>,
    board: Arc<Board>,
    epochs: Arc<dyn EpochSource>,
    minting: Minting,
    _presence: Presence,
}

impl fmt::Debug for RedisLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLocks").field("server", &self.keys.subject()).finish_non_exhaustive()
    }
}

impl RedisLocks {
    pub(crate) async fn open(
        options: RedisOptions,
        epochs: Arc<dyn EpochSource>,
        deadline: Deadline,
    ) -> Result<Self, EngineError> {
        let options = Arc::new(options);
        let keys = Arc::new(Keys::new(&options));
        let board = Arc::new(Board::new());
        let servers = Servers::new(&options, &keys);
        let presence =
            presence::start(&options, servers.cluster(), Arc::clone(&board), Arc::clone(&keys), deadline).await?;
        Ok(Self { options, servers, keys, board, epochs, minting: Minting::default(), _presence: presence })
    }

    fn reader(&self) -> Reader<'_> {
        Reader { subject: self.keys.subject() }
    }

    /// Asks for the lock: granted, queued, or not.
    async fn ask(
        &self,
        request: &LockRequest,
        asker: &Asker,
        first: bool,
        deadline: Deadline,
        expected: &Expected<'_>,
    ) -> Result<Answer, EngineError> {
        let wait = deadline.remaining();
        let wait = if wait.is_zero() { 0 } else { (wait + OVERDUE).as_millis().next_multiple_of(COARSE) };
        let until = at_least(deadline);
        let ask = |live: Arc<Live>, again: bool| {
            let asked = live.ask(asker.turn(first && !again, wait), until);
            expected.asks(UnderWay { live: Arc::clone(&live), slot: asked.slot() });
            async move {
                let reply = asked.answer().await?;
                if Reader::is_granted(&reply.value) {
                    self.replicate(&live, &asker.replicas, request.ttl, until).await?;
                }
                Ok(reply)
            }
        };
        let reply = self.servers.way()?.call(&request.context, until, ask).await?;
        let answer = self.reader().reply(reply)?;
        if matches!(answer, Answer::Granted { .. }) {
            self.check_replicas(&asker.replicas)?;
        }
        Ok(answer)
    }

    /// Begins an epoch with a minted one, unless this run of the server has one above `above`.
    async fn begin_with(
        &self,
        context: &ContextName,
        minted: u64,
        above: u64,
        deadline: Deadline,
    ) -> Result<Begun, EngineError> {
        let keys = [self.keys.table(context), self.keys.queue(context)];
        let (minted, above) = (minted.to_string(), above.to_string());
        let ask = |live: Arc<Live>, _| {
            let (keys, minted, above) = (&keys, &minted, &above);
            async move {
                // Where the server has become another one behind this connection, somebody may have begun its epoch.
                if !live.is_as_it_was().await? {
                    return Ok(Value::Nil);
                }
                let args = [live.run.as_bytes(), minted.as_bytes(), above.as_bytes()];
                live.run(&scripts::BEGIN, keys, &args).await
            }
        };
        match self.servers.way()?.call(context, deadline, ask).await? {
            Value::Nil => Ok(Begun::Again),
            value => Ok(self.reader().text(value)?.parse().map_or(Begun::Done, Begun::Behind)),
        }
    }

    /// Leaves the queue: the answer is a grant that came at the last moment, or what was in the way.
    async fn leave(&self, request: &LockRequest) -> Result<Answer, EngineError> {
        let keys = [self.keys.table(&request.context), self.keys.queue(&request.context)];
        let id = request.lease.to_string();
        let value =
            self.simple(&request.context, &scripts::LEAVE, &keys, &[id.as_bytes()], at_least(Deadline::now())).await?;
        self.reader().answer(value)
    }

    /// Runs a script that is as good twice as once.
    async fn simple(
        &self,
        context: &ContextName,
        script: &scripts::Script,
        keys: &[String],
        args: &[&[u8]],
        deadline: Deadline,
    ) -> Result<Value, EngineError> {
        let ask = |live: Arc<Live>, _| async move {
            let mut all = vec![live.run.as_bytes()];
            all.extend(args);
            live.run(script, keys, &all).await
        };
        self.servers.way()?.call(context, at_least(deadline), ask).await
    }

    /// Waits until enough replicas have what was answered on this connection; takes note of how many have.
    async fn replicate(&self, live: &Live, have: &AtomicU32, ttl: Ttl, until: Deadline) -> Result<(), RedisError> {
        let wanted = self.options.min_replicas();
        if wanted > 0 {
            // What remains of the lease is to be of use, and the answer, how many there are, must come in time.
            let patience = REPLICATE.min(ttl.get() / 2).min(until.remaining() * 3 / 4);
            have.store(live.replicas(wanted, patience).await?, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether enough replicas have a grant. Where not, it stands all the same until it is given back.
    fn check_replicas(&self, have: &AtomicU32) -> Result<(), EngineError> {
        let (wanted, have) = (self.options.min_replicas(), have.load(Ordering::Relaxed));
        if have >= wanted {
            return Ok(());
        }
        let remedy = "bring its replicas back, or lower min_replicas";
        let error = EngineError::new(self.keys.subject(), TroubleKind::Unavailable, remedy);
        let found = format!("{have} replicas confirmed the lease in time, and min_replicas={wanted} asks for more");
        let error = error.caused_by(std::io::Error::other(found));
        Err(error.with_effect(Effect::Unknown))
    }

    /// Makes a lease last a full TTL again, from `asked` on.
    async fn extend(
        &self,
        context: &ContextName,
        id: LeaseId,
        ttl: Ttl,
        deadline: Deadline,
    ) -> Result<Value, EngineError> {
        let (keys, id) = (self.keys_of(context, id), id.to_string());
        let millis = ttl.get().as_millis().to_string();
        let (have, until) = (AtomicU32::new(0), at_least(deadline));
        let ask = |live: Arc<Live>, _| {
            let (keys, id, millis, have) = (&keys, &id, &millis, &have);
            async move {
                let args = [live.run.as_bytes(), id.as_bytes(), millis.as_bytes()];
                let value = live.run(&scripts::RENEW, keys, &args).await?;
                if matches!(value, Value::Int(1)) {
                    self.replicate(&live, have, ttl, until).await?;
                }
                Ok(value)
            }
        };
        let value = self.servers.way()?.call(context, until, ask).await?;
        if matches!(value, Value::Int(1)) {
            self.check_replicas(&have)?;
        }
        Ok(value)
    }

    fn keys_of(&self, context: &ContextName, id: LeaseId) -> [String; 3] {
        [self.keys.table(context), self.keys.queue(context), self.keys.ended(context, id)]
    }

    async fn end(
        &self,
        context: &ContextName,
        id: LeaseId,
        ending: Ending,
        deadline: Deadline,
    ) -> Result<Release, EngineError> {
        let turn = Turn {
            context: context.clone(),
            id,
            wish: Wish::Release { told: ending.told },
            claim: ending.claim,
            ended: !ending.remembered.is_empty(),
            text: ending.remembered.into(),
        };
        let until = at_least(deadline);
        if let Some(UnderWay { live, slot }) = ending.under_way {
            // Where another server may take its place, it may have gone without a word.
            let until = if self.options.fails_over() { until.min(Deadline::after(PATIENCE)) } else { until };
            if let Some(slot) = slot {
                // It went with others, and may yet be sent after what is asked now.
                let _ = tokio::time::timeout_at(until.instant(), slot.settled()).await;
            }
            // What was asked on that connection comes before what follows on it. Where it is gone, so is the question,
            // or it was answered.
            let ended = tokio::time::timeout_at(until.instant(), live.ask(turn.clone(), until).answer());
            if let Ok(Ok(reply)) = ended.await {
                return self.released(reply.value);
            }
        }
        let ask = |live: Arc<Live>, _| live.ask(turn.clone(), until).answer();
        let reply = self.servers.way()?.call(context, until, ask).await?;
        self.released(reply.value)
    }

    /// What became of the lease that was to be replaced.
    async fn lost(&self, request: &LockRequest, deadline: Deadline) -> Result<Acquisition, EngineError> {
        let Some(lease) = request.replaces else { return Ok(Acquisition::TimedOut(Blocked::default())) };
        let value = self.extend(&request.context, lease, request.ttl, deadline).await?;
        if matches!(value, Value::Int(1)) {
            // It is there again: whoever asks may ask once more.
            return Ok(Acquisition::TimedOut(Blocked::default()));
        }
        self.board.forget(lease);
        Ok(Acquisition::Lost(Reader::loss(&self.reader().text(value)?)))
    }

    fn released(&self, value: Value) -> Result<Release, EngineError> {
        Ok(if self.reader().flag(value)? { Release::Released } else { Release::NotHeld })
    }

    /// A grant that may be believed: one that was pushed long after it was last known to wait is confirmed first.
    async fn granted(
        &self,
        request: &LockRequest,
        Granted { number, since, lasts, queued, pushed, handed_over_after, spare }: Granted,
        expected: Expected<'_>,
        asker: Asker,
    ) -> Result<Acquisition, EngineError> {
        let mut lease = Lease {
            context: request.context.clone(),
            claims: Arc::clone(request.claims()),
            holder: request.holder.clone(),
            token: FencingToken::new(number.0, number.1, request.lease),
            ttl: request.ttl,
            valid_until: since + lasts,
        };
        // A pushed grant is believed from when it was certainly not made yet: where that is long ago, it is confirmed.
        // What replicas have of it is asked for by the same.
        let unconfirmed = pushed && self.options.min_replicas() > 0;
        if unconfirmed || lease.valid_until < Instant::now() + lasts / 2 {
            match self.renew(&lease, Deadline::now()).await? {
                Renewal::Renewed { valid_until } => lease.valid_until = valid_until,
                Renewal::Lost(_) => {
                    expected.ends();
                    return Ok(Acquisition::TimedOut(Blocked::default()));
                }
            }
        }
        if let Some(replaced) = request.replaces {
            self.board.forget(replaced);
        }
        expected.becomes_held(asker.claim);
        Ok(Acquisition::Granted(Grant { lease, queued, handed_over_after, spare }))
    }
}

/// An attempt, as the scripts want it.
struct Asker {
    context: ContextName,
    id: LeaseId,
    ttl: u128,
    /// Its process, and what it is about.
    about: Arc<str>,
    /// What it is about, where that is one claim.
    claim: Option<Arc<[Claim]>>,
    /// Whether it is to take the place of another, or to have spare tokens: the short way knows nothing of either.
    goes_the_long_way: bool,
    /// How many replicas have its grant.
    replicas: AtomicU32,
}

impl Asker {
    fn turn(&self, is_first: bool, wait: u128) -> Turn {
        Turn {
            context: self.context.clone(),
            id: self.id,
            wish: Wish::Acquire { ttl: self.ttl, wait },
            claim: self.claim.clone().filter(|_| is_first && !self.goes_the_long_way),
            text: Arc::clone(&self.about),
            // What is remembered of its end matters to a second look only.
            ended: !is_first,
        }
    }
}

/// How a lease or an attempt is ended.
#[derive(Default)]
struct Ending {
    /// What is remembered of it; nothing where its holder ends it.
    remembered: String,
    /// Whether its holder is to be told.
    told: bool,
    /// What it covers, where that is known and one claim.
    claim: Option<Arc<[Claim]>>,
    /// The question that it ends, which may be on its way.
    under_way: Option<UnderWay>,
}

/// A grant, as far as the answer tells.
struct Granted {
    number: (u64, u64),
    /// It was certainly not made before.
    since: Instant,
    lasts: Duration,
    queued: bool,
    /// Whether it was heard of otherwise than by an answer on a connection of ours.
    pushed: bool,
    /// How long ago the server granted it, where that was pushed.
    handed_over_after: Option<Duration>,
    /// How many numbers after its own it has, too.
    spare: u32,
}

/// A deadline that leaves a command its chance.
fn at_least(deadline: Deadline) -> Deadline {
    deadline.at_least(PATIENCE)
}

#[async_trait]
impl LockService for RedisLocks {
    fn capabilities(&self) -> LockCapabilities {
        LockCapabilities {
            engine: self.options.engine(),
            waiting: Waiting::Pushed,
            fairness: Fairness::FirstComeFirstServed,
            shared_mode: true,
            subtrees: true,
            several_resources: true,
            deadlock_detection: true,
            revival: true,
            hands_over: true,
            dead_holder: DeadHolder::Presence,
            expiry_clock: ExpiryClock::Server,
            token_source: self.options.token_source(),
            survives: self.options.survives(),
        }
    }

    async fn acquire(&self, request: &LockRequest, deadline: Deadline) -> Result<Acquisition, EngineError> {
        let asker = Asker {
            context: request.context.clone(),
            id: request.lease,
            ttl: request.ttl.get().as_millis(),
            about: format!("{} {}", self.keys.home(), info(request)).into(),
            claim: Some(request.claims()).filter(|claims| claims.len() == 1).cloned(),
            goes_the_long_way: request.replaces.is_some() || request.spare > 0,
            replicas: AtomicU32::new(0),
        };
        let expected = self.board.expect(request.lease);
        let mut turn = None;
        let mut first = true;
        let mut queued = false;
        let mut patience = Patience::until(deadline);
        loop {
            let deadline = patience.deadline();
            let asked = Instant::now();
            match self.ask(request, &asker, first, deadline, &expected).await? {
                Answer::Granted { epoch, count, spare } => {
                    // A second question may find a grant that was made in between.
                    let (since, lasts) = match expected.waiting_at() {
                        Some(at) if queued => (at, request.ttl.get().min(CONFIRM)),
                        _ => (asked, request.ttl.get()),
                    };
                    let (pushed, handed_over_after) = (false, None);
                    let number = (epoch, count);
                    let granted = Granted { number, since, lasts, queued, pushed, handed_over_after, spare };
                    return self.granted(request, granted, expected, asker).await;
                }
                Answer::NoEpoch => {
                    if turn.is_none() {
                        // Whoever waited here asks again: somebody may have begun one.
                        turn = Some(self.minting.turn(&request.context, at_least(deadline)).await?);
                    } else {
                        self.begin_epoch(&request.context, 0, deadline).await?;
                    }
                    continue;
                }
                Answer::Blocked { blocked, may_be_kept } => {
                    let Some(ended) = patience.blocked(blocked, may_be_kept) else { continue };
                    expected.ends();
                    return Ok(ended);
                }
                Answer::Deadlock(deadlock) => {
                    expected.ends();
                    return Ok(patience.deadlock(deadlock));
                }
                Answer::Lost => {
                    expected.ends();
                    return self.lost(request, deadline).await;
                }
                Answer::Gone => {
                    expected.ends();
                    return Ok(Acquisition::TimedOut(Blocked::default()));
                }
                Answer::Queued { next } => expected.queues(request, asked, next),
            }
            turn = None;
            (first, queued) = (false, true);
            let news = tokio::time::timeout_at(deadline.instant(), expected.news()).await;
            let lasts = request.ttl.get().min(CONFIRM);
            let since = expected.waiting_at().unwrap_or(asked);
            match news {
                Ok(News::Granted { epoch, count, handed_over_after }) => {
                    let (number, pushed) = ((epoch, count), true);
                    let granted = Granted { number, since, lasts, queued, pushed, handed_over_after, spare: 0 };
                    return self.granted(request, granted, expected, asker).await;
                }
                Ok(News::Ended) => {
                    expected.ends();
                    return Ok(Acquisition::TimedOut(Blocked::default()));
                }
                Ok(News::AskAgain) => {}
                Err(_) => match self.leave(request).await? {
                    Answer::Granted { epoch, count, .. } => {
                        let (pushed, handed_over_after) = (true, None);
                        let number = (epoch, count);
                        let granted = Granted { number, since, lasts, queued, pushed, handed_over_after, spare: 0 };
                        return self.granted(request, granted, expected, asker).await;
                    }
                    Answer::Blocked { blocked, .. } => {
                        expected.ends();
                        return Ok(Acquisition::TimedOut(blocked));
                    }
                    _ => {
                        expected.ends();
                        return Ok(Acquisition::TimedOut(Blocked::default()));
                    }
                },
            }
        }
    }

    async fn renew(&self, lease: &Lease, deadline: Deadline) -> Result<Renewal, EngineError> {
        let asked = Instant::now();
        let value = self.extend(&lease.context, lease.id(), lease.ttl, deadline).await?;
        if matches!(value, Value::Int(1)) {
            return Ok(Renewal::Renewed { valid_until: asked + lease.ttl.get() });
        }
        self.board.forget(lease.id());
        Ok(Renewal::Lost(Reader::loss(&self.reader().text(value)?)))
    }

    async fn release(&self, context: &ContextName, lease: LeaseId, deadline: Deadline) -> Result<Release, EngineError> {
        match self.board.take(lease) {
            Known::Held(claim) => self.end(context, lease, Ending { claim, ..Ending::default() }, deadline).await,
            // Its asker, here or elsewhere, must not take a missing entry for a lost turn.
            Known::Left(under_way) => {
                let ending = Ending { remembered: RELEASED.to_owned(), under_way, ..Ending::default() };
                self.end(context, lease, ending, deadline).await
            }
            Known::Other => {
                let ending = Ending { remembered: RELEASED.to_owned(), ..Ending::default() };
                self.end(context, lease, ending, deadline).await
            }
        }
    }

    async fn inspect(&self, context: &ContextName, deadline: Deadline) -> Result<LockTable, EngineError> {
        let keys = [self.keys.table(context), self.keys.queue(context)];
        // A look changes nothing, whatever became of its answer.
        let value = self.simple(context, &scripts::INSPECT, &keys, &[], deadline).await;
        self.reader().table(value.map_err(|trouble| trouble.with_effect(Effect::None))?)
    }

    async fn revoke(
        &self,
        context: &ContextName,
        lease: LeaseId,
        by: &AgentName,
        reason: &str,
        deadline: Deadline,
    ) -> Result<Release, EngineError> {
        // Two strings: nothing of it can fail.
        let remembered = serde_json::to_string(&(by.as_str(), reason)).unwrap_or_default();
        let ending = Ending { remembered, told: true, ..Ending::default() };
        self.end(context, lease, ending, deadline).await
    }

    async fn begin_epoch(&self, context: &ContextName, above: u64, deadline: Deadline) -> Result<(), EngineError> {
        let deadline = at_least(deadline);
        let mut minted = 0;
        if above == 0 {
            // There is none, as far as anybody knows: most often nothing is remembered, and this one is good.
            minted = self.epochs.mint_epoch(context, above, deadline).await?;
        }
        let subject = self.keys.subject();
        let begin = async |minted| {
            let begun = self.begin_with(context, minted, above, deadline).await?;
            if let Begun::Behind(last) = begun {
                may_be_behind(last, above, context, subject)?;
            }
            Ok(begun)
        };
        begin_above(&*self.epochs, context, (above, minted), deadline, subject, begin).await
    }

    fn losses(&self) -> Option<broadcast::Receiver<LeaseId>> {
        Some(self.board.losses())
    }

    fn wanted(&self) -> Option<broadcast::Receiver<LeaseId>> {
        Some(self.board.wanted())
    }

    async fn examine(&self, deadline: Deadline) -> Result<Vec<Finding>, EngineError> {
        match self.servers.way()? {
            Way::One(link) => examine::examine(&link, &self.options, deadline).await,
            Way::Cluster(cluster) => examine_sets::cluster(&cluster, &self.options, deadline).await,
        }
    }
}
