//! Plays a schedule on a lock service, and compares it with the reference after each step.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mutext_contract::{
    Acquisition, AgentName, Claim, ContextName, DeadHolder, Deadline, Effect, EngineError, Grant, Holder, Lease,
    LeaseId, LockRequest, LockService, LockTable, Loss, Mode, Release, Renewal, Resource, TroubleKind, Ttl,
};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::reference::{Answer, Entry, Reference};
use super::schedule::{AGENTS, CRASHING, RESOURCES, Step};
use crate::LockFixture;
use crate::support::{self, LONG_TTL, fresh_context};

/// What must come about comes about within so many milliseconds.
static PATIENCE_MS: AtomicU64 = AtomicU64::new(10_000);

/// How long a step is waited for.
fn long() -> Duration {
    Duration::from_millis(PATIENCE_MS.load(Ordering::Relaxed))
}

/// From now on what does not come about soon never will: a failure is played again and again while it shrinks.
pub(super) fn lose_patience() {
    PATIENCE_MS.store(1500, Ordering::Relaxed);
}

/// Where a look at the table takes so long, the machine is slow: it takes a few milliseconds. A request that is not to
/// wait is given four times that.
const SLOW: Duration = Duration::from_millis(250);
/// When a look last took so long, in whichever schedule.
static LAST_SLOW: Mutex<Option<Instant>> = Mutex::new(None);

fn has_been_slow_since(begun: Instant) -> bool {
    LAST_SLOW.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|last| last >= begun)
}

/// How a step came out otherwise than it must.
type Difference = String;

/// Clients of one engine, for one schedule after the other.
pub(super) struct Player<F> {
    fixture: F,
    /// Where the agents before [`CRASHING`] live, and where the others do.
    clients: [Arc<dyn LockService>; 2],
    crashed: bool,
    unanswered: bool,
}

impl<F: LockFixture> Player<F> {
    pub(super) async fn open() -> Self {
        let fixture = F::open().await;
        let clients = [fixture.second_locks().await, fixture.locks()];
        Self { fixture, clients, crashed: false, unanswered: false }
    }

    pub(super) const fn has_crashed(&self) -> bool {
        self.crashed
    }

    /// Whether the last schedule says nothing of the engine: a request that was not to wait had no answer in the second
    /// that an engine gives it at least, and the machine was slow at that time: another request took long as well. Where
    /// none did, the engine has lost the answer.
    pub(super) const fn was_unanswered(&self) -> bool {
        self.unanswered
    }

    pub(super) async fn play(&mut self, steps: &[Step]) -> Result<(), Difference> {
        let holder = |agent| Holder::new(AgentName::new(format!("agent-{agent}")).expect("a plain word"));
        let mut game = Game {
            context: fresh_context(),
            holders: (0..AGENTS).map(holder).collect(),
            reference: Reference::default(),
            leases: HashMap::new(),
            waiting: HashMap::new(),
            highest: (0, 0),
            patience: long(),
            dead: BTreeSet::new(),
            one_try: None,
            unanswered: None,
        };
        for (number, step) in steps.iter().enumerate() {
            let outcome = game.step(self, step).await;
            if let Some(asked) = game.unanswered {
                // Whatever this one finds: it may be the first that shows how slow the machine is.
                let _ = game.look(self).await;
                self.unanswered = has_been_slow_since(asked);
            }
            outcome.map_err(|difference| format!("step {number}, {step:?}: {difference}"))?;
        }
        game.leave(&self.clients).await;
        Ok(())
    }

    fn client(&self, agent: usize) -> &Arc<dyn LockService> {
        &self.clients[usize::from(agent >= CRASHING)]
    }
}

/// One schedule under way.
struct Game {
    context: ContextName,
    holders: Vec<Holder>,
    reference: Reference,
    leases: HashMap<LeaseId, Lease>,
    waiting: HashMap<LeaseId, JoinHandle<Result<Acquisition, EngineError>>>,
    /// The highest token so far, in the order of the reference's grants.
    highest: (u64, u64),
    /// How long what must come about is waited for now.
    patience: Duration,
    /// What died with a client. A lease of these that has lapsed is in nobody's way, and may be shown for long.
    dead: BTreeSet<LeaseId>,
    /// The last request that was not to wait, and when it was asked.
    one_try: Option<(LeaseId, Instant)>,
    /// It had no answer in time: when it was asked.
    unanswered: Option<Instant>,
}

/// So many tokens to spare are asked for by the agent who asks for any.
const SPARE: u32 = 3;

/// The n-th, counted round.
fn nth<'a>(entries: &[&'a Entry], n: usize) -> Option<&'a Entry> {
    if entries.is_empty() { None } else { entries.get(n % entries.len()).copied() }
}

fn deadline() -> Deadline {
    Deadline::after(long())
}

impl Game {
    async fn step<F: LockFixture>(&mut self, player: &mut Player<F>, step: &Step) -> Result<(), Difference> {
        match step {
            Step::Acquire { agent, claims, wait, keeps } => {
                let claims = claims.iter().map(|(resource, mode)| (RESOURCES[*resource], *mode));
                let mut request = self.request(*agent, claims);
                request.keeps = if *keeps { self.reference.of_agent(*agent) } else { Vec::new() };
                self.ask(player, *agent, request, *wait).await?;
            }
            Step::Convert { lease, mode, wait } => {
                let Some((id, agent)) = nth(&self.reference.leases(), *lease).map(|lease| (lease.id, lease.agent))
                else {
                    return Ok(());
                };
                let request = LockRequest::converting(&self.leases[&id], *mode);
                self.ask(player, agent, request, *wait).await?;
            }
            Step::Release(n) => {
                let Some((id, agent)) = nth(&self.reference.leases(), *n).map(|lease| (lease.id, lease.agent)) else {
                    return Ok(());
                };
                let released = player.client(agent).release(&self.context, id, deadline()).await;
                expect("the release", released, &Release::Released)?;
                let granted = self.reference.end(id);
                self.granted(player, &granted).await?;
            }
            Step::Cancel(n) => {
                let waiters = self.reference.waiters();
                let Some(waiter) = nth(&waiters, *n) else { return Ok(()) };
                let (id, agent, replaces) = (waiter.id, waiter.agent, waiter.replaces);
                let released = player.client(agent).release(&self.context, id, deadline()).await;
                expect("the release of a request", released, &Release::Released)?;
                let granted = self.reference.end(id);
                let stands = self.reference.leases().iter().any(|lease| Some(lease.id) == replaces);
                match self.ended(id).await? {
                    Acquisition::TimedOut(_) => {}
                    // Another request to replace the same lease was served meanwhile: both answers are true.
                    Acquisition::Lost(_) if replaces.is_some() && !stands => {}
                    other => return Err(format!("a request that was given up answered {other:?}")),
                }
                self.granted(player, &granted).await?;
            }
            Step::Renew(n) => {
                let Some((id, agent)) = nth(&self.reference.leases(), *n).map(|lease| (lease.id, lease.agent)) else {
                    return Ok(());
                };
                self.renew(player, agent, id, self.leases[&id].ttl).await?;
                let granted = self.reference.lapse(id, false);
                self.granted(player, &granted).await?;
            }
            Step::Expire(n) => {
                let Some((id, agent)) = nth(&self.reference.leases(), *n).map(|lease| (lease.id, lease.agent)) else {
                    return Ok(());
                };
                self.renew(player, agent, id, Ttl::new(Ttl::MIN).expect("the least")).await?;
                self.until_lapsed(player, id).await?;
                let granted = self.reference.lapse(id, true);
                self.granted(player, &granted).await?;
            }
            Step::Revoke(n) => {
                let Some((id, agent)) = nth(&self.reference.leases(), *n).map(|lease| (lease.id, lease.agent)) else {
                    return Ok(());
                };
                let by = AgentName::new("operator").expect("a plain word");
                let revoked = player.clients[0].revoke(&self.context, id, &by, "a whim", deadline()).await;
                expect("the revocation", revoked, &Release::Released)?;
                let lost = Renewal::Lost(Loss::Revoked { by, reason: "a whim".to_owned() });
                expect("a renewal then", player.client(agent).renew(&self.leases[&id], deadline()).await, &lost)?;
                let granted = self.reference.end(id);
                self.granted(player, &granted).await?;
            }
            Step::Crash => {
                // Once: the fixture has one client that can die.
                if player.crashed {
                    return Ok(());
                }
                player.crashed = true;
                if player.clients[0].capabilities().dead_holder == DeadHolder::Ttl {
                    // No sooner than a lease of theirs runs out, an engine says.
                    self.patience = LONG_TTL + long();
                }
                self.crash(player).await?;
                self.patience = long();
            }
        }
        self.compare(player).await
    }

    fn request(&self, agent: usize, claims: impl Iterator<Item = (&'static str, Mode)>) -> LockRequest {
        let claim = |(resource, mode)| Claim { resource: Resource::new(resource).expect("a resource"), mode };
        let ttl = Ttl::new(LONG_TTL).expect("a TTL");
        let holder = self.holders[agent].clone();
        let mut request = LockRequest::new(self.context.clone(), holder, ttl, claims.map(claim)).expect("a claim");
        // One of them would like to keep its leases, and never gives one back when it is asked to.
        request.spare = if agent == 0 { SPARE } else { 0 };
        request
    }

    async fn ask<F: LockFixture>(
        &mut self,
        player: &Player<F>,
        agent: usize,
        request: LockRequest,
        wait: bool,
    ) -> Result<(), Difference> {
        let name = |resource: &Resource| RESOURCES.into_iter().find(|name| *name == resource.as_str());
        let claims = request.claims().iter().filter_map(|claim| Some((name(&claim.resource)?, claim.mode)));
        let entry = Entry {
            id: request.lease,
            agent,
            claims: claims.collect(),
            keeps: request.keeps.clone(),
            replaces: request.replaces,
            grant: None,
            lapsed: false,
        };
        let (expected, mut granted) = self.reference.ask(entry.clone(), wait);
        let (client, own) = (Arc::clone(player.client(agent)), request.clone());
        let until = if wait { Deadline::after(LONG_TTL) } else { Deadline::now() };
        self.one_try = Some((request.lease, Instant::now())).filter(|_| !wait);
        let asking = tokio::spawn(async move { client.acquire(&own, until).await });
        if matches!(expected, Answer::Queued) {
            self.waiting.insert(request.lease, asking);
            // Others may have been granted something by a lease that lapsed meanwhile; none here.
            return self.granted(player, &granted).await;
        }
        self.waiting.insert(request.lease, asking);
        let found = self.ended(request.lease).await?;
        match (expected, found) {
            (Answer::Granted, Acquisition::Granted(grant)) => {
                granted.retain(|id| *id != request.lease);
                self.hold(grant)?;
                self.granted(player, &granted).await
            }
            (Answer::Blocked(leases, ahead), Acquisition::TimedOut(blocked)) => {
                let found: BTreeSet<LeaseId> = blocked.holdings.iter().map(|holding| holding.lease).collect();
                if (&found, blocked.ahead) == (&leases, ahead) {
                    return Ok(());
                }
                Err(format!("expected {leases:?} in the way and {ahead} ahead; found {blocked:?}"))
            }
            (Answer::Deadlock, Acquisition::Deadlock(deadlock)) => {
                if self.reference.is_circle(&entry, &deadlock) {
                    return Ok(());
                }
                Err(format!("this is no circle that begins with the asker: {deadlock:?}"))
            }
            (expected, found) => Err(format!("expected {expected:?}; found {found:?}")),
        }
    }

    /// What a request came to.
    async fn ended(&mut self, id: LeaseId) -> Result<Acquisition, Difference> {
        let Some(waiting) = self.waiting.remove(&id) else { return Err(format!("nobody waits for {id}")) };
        match tokio::time::timeout(self.patience, waiting).await {
            Ok(Ok(Ok(acquisition))) => Ok(acquisition),
            Ok(Ok(Err(trouble))) => {
                let is_unanswered = trouble.kind == TroubleKind::Unavailable && trouble.effect == Effect::Unknown;
                self.unanswered =
                    self.one_try.filter(|(one_try, _)| *one_try == id && is_unanswered).map(|(_, asked)| asked);
                Err(format!("expected {id} to be answered without trouble; found {trouble}"))
            }
            Ok(Err(failure)) => Err(format!("the request failed: {failure}")),
            Err(_) => Err(format!("expected {id} to be answered within {:?}", self.patience)),
        }
    }

    /// A lease in hand: its token is above all that were granted before, those to spare among them.
    fn hold(&mut self, Grant { lease, spare, .. }: Grant) -> Result<(), Difference> {
        let (number, before) = (lease.token.number(), self.highest);
        self.highest = (number.0, number.1 + u64::from(spare));
        self.leases.insert(lease.id(), lease);
        if number > before { Ok(()) } else { Err(format!("expected a token above {before:?}; found {number:?}")) }
    }

    /// These were granted, in this order; each confirms that it has heard so, as the library does.
    async fn granted<F: LockFixture>(&mut self, player: &Player<F>, granted: &[LeaseId]) -> Result<(), Difference> {
        if !granted.is_empty() {
            // Before anybody has had the time to look again by itself.
            let table = self.look(player).await?;
            self.nobody_waits_in_vain(player, &table)?;
        }
        for id in granted {
            match self.ended(*id).await? {
                Acquisition::Granted(grant) => {
                    let ttl = grant.lease.ttl;
                    self.hold(grant)?;
                    let agent = self.reference.leases().iter().find(|lease| lease.id == *id).map(|lease| lease.agent);
                    if let Some(agent) = agent {
                        self.renew(player, agent, *id, ttl).await?;
                    }
                }
                other => return Err(format!("expected {id} to be granted; found {other:?}")),
            }
        }
        // Those who were to replace a lease that is no more are told so.
        let standing: BTreeSet<LeaseId> = self.reference.waiters().iter().map(|waiter| waiter.id).collect();
        let orphans: Vec<LeaseId> = self.waiting.keys().filter(|id| !standing.contains(*id)).copied().collect();
        for id in orphans {
            match self.ended(id).await? {
                Acquisition::Lost(_) => {}
                other => return Err(format!("expected {id} to have lost what it was to replace; found {other:?}")),
            }
        }
        Ok(())
    }

    async fn renew<F: LockFixture>(
        &self,
        player: &Player<F>,
        agent: usize,
        id: LeaseId,
        ttl: Ttl,
    ) -> Result<(), Difference> {
        let lease = Lease { ttl, ..self.leases[&id].clone() };
        match player.client(agent).renew(&lease, deadline()).await {
            Ok(Renewal::Renewed { .. }) => Ok(()),
            other => Err(format!("expected {id} to be renewed; found {other:?}")),
        }
    }

    async fn until_lapsed<F: LockFixture>(&self, player: &Player<F>, id: LeaseId) -> Result<(), Difference> {
        tokio::time::sleep(Ttl::MIN).await;
        let begun = Instant::now();
        while begun.elapsed() < long() {
            let table = self.look(player).await?;
            if !table.holdings.iter().any(|lease| lease.lease == id && !lease.remaining.is_zero()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        Err(format!("expected {id} to lapse"))
    }

    /// Both agents of the second client die. Somebody asks for everything, so that somebody cares, until none of the
    /// dead is left.
    async fn crash<F: LockFixture>(&mut self, player: &mut Player<F>) -> Result<(), Difference> {
        for waiter in self.reference.waiters().iter().filter(|waiter| waiter.agent >= CRASHING) {
            if let Some(waiting) = self.waiting.remove(&waiter.id) {
                waiting.abort();
                let _ = waiting.await;
            }
        }
        let (dead, granted) = self.reference.crash(CRASHING);
        player.clients[1] = Arc::clone(&player.clients[0]);
        player.fixture.vanish().await;
        player.clients[1] = player.fixture.second_locks().await;

        self.granted(player, &granted).await?;
        let begun = Instant::now();
        self.dead.extend(dead);
        while self.ask_for_everything(player).await? {
            if begun.elapsed() > self.patience {
                return Err(format!("expected the dead to be found: {:?}", self.dead));
            }
        }
        Ok(())
    }

    /// A live agent asks for the whole context until it has it, or nothing of the dead is left; whether something is.
    async fn ask_for_everything<F: LockFixture>(&mut self, player: &Player<F>) -> Result<bool, Difference> {
        let request = self.request(0, [("/", Mode::Exclusive)].into_iter());
        self.ask(player, 0, request.clone(), true).await?;
        let begun = Instant::now();
        let left = loop {
            let table = self.look(player).await?;
            let standing = table.holdings.iter().filter(|lease| !lease.remaining.is_zero());
            let leases = standing.map(|lease| lease.lease);
            let ids: Vec<LeaseId> = leases.chain(table.waiters.iter().map(|waiter| waiter.lease)).collect();
            let left = ids.iter().any(|id| self.dead.contains(id));
            let is_held = self.leases.contains_key(&request.lease);
            if ids.contains(&request.lease) && (!left || is_held) {
                break left;
            }
            if begun.elapsed() > self.patience {
                return Err(format!("expected the dead to be found: {:?}; found {table:?}", self.dead));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let released = player.clients[0].release(&self.context, request.lease, deadline()).await;
        expect("the release of everything", released, &Release::Released)?;
        if self.waiting.contains_key(&request.lease) {
            self.ended(request.lease).await?;
        }
        let granted = self.reference.end(request.lease);
        self.granted(player, &granted).await?;
        Ok(left)
    }

    /// The table of the context as it is now.
    async fn look<F: LockFixture>(&self, player: &Player<F>) -> Result<LockTable, Difference> {
        let asked = Instant::now();
        let table = player.clients[0].inspect(&self.context, deadline()).await;
        if asked.elapsed() >= SLOW {
            *LAST_SLOW.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        table.map_err(|error| error.to_string())
    }

    /// The table as everybody sees it is the reference's.
    async fn compare<F: LockFixture>(&self, player: &Player<F>) -> Result<(), Difference> {
        let mut leases = self.reference.leases();
        leases.sort_by_key(|lease| lease.grant);
        let leases: Vec<(LeaseId, bool)> = leases.iter().map(|lease| (lease.id, lease.lapsed)).collect();
        let waiters: Vec<LeaseId> = self.reference.waiters().iter().map(|waiter| waiter.id).collect();
        let begun = Instant::now();
        loop {
            let table = self.look(player).await?;
            self.nobody_waits_in_vain(player, &table)?;
            let found = table.holdings.iter().map(|lease| (lease.lease, lease.remaining.is_zero()));
            let found: Vec<_> = found.filter(|(lease, lapsed)| !(*lapsed && self.dead.contains(lease))).collect();
            let queue: Vec<LeaseId> = table.waiters.iter().map(|waiter| waiter.lease).collect();
            if (&found, &queue) == (&leases, &waiters) {
                return Ok(());
            }
            // A request on its way may not be in the queue yet, an engine may have to look again.
            if begun.elapsed() > long() {
                return Err(format!("expected leases {leases:?} and waiters {waiters:?}; found {table:?}"));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// At no moment does anybody wait whom nothing is in the way of: whoever takes it away serves the next in the same
    /// step, and leaves it to nobody's later look. A lease that has lapsed may be in the way until the next step. Where
    /// waiters take the lock by steps of their own, they may be on their way to it.
    fn nobody_waits_in_vain<F: LockFixture>(&self, player: &Player<F>, table: &LockTable) -> Result<(), Difference> {
        if self.dead.is_empty()
            && player.clients[0].capabilities().hands_over
            && let Some(waiter) = support::waits_in_vain(table)
        {
            return Err(format!("{waiter:?} waits for nothing; found {table:?}"));
        }
        Ok(())
    }

    /// Leaves the context: nothing of it is looked after any more.
    async fn leave(mut self, clients: &[Arc<dyn LockService>; 2]) {
        for (id, waiting) in self.waiting.drain() {
            waiting.abort();
            let _ = waiting.await;
            let _ = clients[0].release(&self.context, id, deadline()).await;
        }
        for id in self.leases.keys() {
            let _ = clients[0].release(&self.context, *id, deadline()).await;
        }
    }
}

/// That an answer is as it must be.
fn expect<T: PartialEq + std::fmt::Debug, E: std::fmt::Debug>(
    what: &str,
    found: Result<T, E>,
    expected: &T,
) -> Result<(), Difference> {
    match found {
        Ok(found) if found == *expected => Ok(()),
        found => Err(format!("{what}: expected {expected:?}; found {found:?}")),
    }
}
