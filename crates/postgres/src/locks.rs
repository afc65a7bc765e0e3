//! The lock engine: each operation is one statement, which calls one step of the schema.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mutext_contract::{
    Acquisition, AgentName, Begun, Blocked, ContextName, DeadHolder, Deadline, Effect, EngineError, EpochSource,
    ExpiryClock, Fairness, FencingToken, Finding, Grant, Lease, LeaseId, LockCapabilities, LockRequest, LockService,
    LockTable, Minting, Patience, Release, Renewal, Waiting, begin_above, may_be_behind,
};
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_postgres::types::ToSql;

use crate::board::{Board, Expected, Held, Known, News};
use crate::examine::What;
use crate::link::{Link, Links, Repeat};
use crate::lock_rows::{Answer, AnswerRow, LockStatements, Reader, RequestRow, micros, path_of};
use crate::names::Names;
use crate::options::PostgresOptions;
use crate::presence::{Presence, Shared};
use crate::{examine, schema};

/// A statement that must be given a chance has at least this long, also where the deadline has passed.
const PATIENCE: Duration = Duration::from_secs(1);
/// A grant that was told lasts so long until a renewal confirms it; the schema has the same number.
const CONFIRM: Duration = Duration::from_secs(2);
/// A waiter leaves the queue by itself at its deadline; others remove it so much later, in case it died.
const OVERDUE: Duration = Duration::from_millis(100);

/// Locks in PostgreSQL.
pub struct PostgresLocks {
    options: PostgresOptions,
    links: Links,
    shared: Arc<Shared>,
    epochs: Arc<dyn EpochSource>,
    minting: Minting,
    _presence: Presence,
}

impl fmt::Debug for PostgresLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresLocks").field("options", &self.options).finish_non_exhaustive()
    }
}

impl PostgresLocks {
    pub(crate) async fn open(
        options: &PostgresOptions,
        epochs: Arc<dyn EpochSource>,
        deadline: Deadline,
    ) -> Result<Self, EngineError> {
        let deadline = deadline.min(Deadline::after(options.connect_timeout));
        let link = Arc::new(Link::new(options)?);
        let names = Names::new(&options.schema);
        schema::prepare(&link, &names, deadline).await?;
        let kind = if link.is_pooled() { 'p' } else { 'h' };
        let home = format!("{kind}{:016x}", rand::random::<u64>());
        let statements = LockStatements::new(&names);
        let shared = Arc::new(Shared { board: Board::new(), names, statements, home });
        let presence = Presence::start(options, Arc::clone(&shared), deadline).await?;
        Ok(Self {
            options: options.clone(),
            links: Links::new(options.clone(), link),
            shared,
            epochs,
            minting: Minting::default(),
            _presence: presence,
        })
    }

    /// Runs a step. All of them are as good twice as once.
    async fn step(
        &self,
        statement: &str,
        deadline: Deadline,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<AnswerRow, EngineError> {
        let link = self.links.here()?;
        let rows = link.rows(Repeat::Safe, at_least(deadline), statement, params).await?;
        let answer = Reader { subject: link.subject() }.row(&rows)?;
        for message in &answer.told {
            self.shared.board.hear(message, None);
        }
        Ok(answer)
    }

    fn read(&self, answer: &AnswerRow) -> Result<Answer, EngineError> {
        Reader { subject: self.links.here()?.subject() }.answer(answer)
    }

    /// How many tokens to spare may be asked for: none where nobody would hear who else asks for the lease.
    async fn spare(&self, request: &LockRequest, expected: &Expected<'_>) -> u32 {
        let possible = request.spare > 0 && request.replaces.is_none() && self.shared.listens();
        if possible && expected.hears_who_asks(PATIENCE).await { request.spare } else { 0 }
    }

    /// Asks for the lock: granted, queued, or not.
    async fn ask(
        &self,
        request: &LockRequest,
        first: bool,
        spare: u32,
        deadline: Deadline,
    ) -> Result<Answer, EngineError> {
        let wait = deadline.remaining();
        let wait_us = if wait.is_zero() { 0 } else { micros(wait + OVERDUE) };
        let (row, lane) = (RequestRow::new(request, spare), self.shared.names.lock_lane(&request.context));
        let lease = &request.lease.as_bytes()[..];
        let above = row.above.filter(|_| first);
        // Who has queued has none.
        let spare = if first { row.spare } else { 0 };
        let params: [&(dyn ToSql + Sync); 15] = [
            &lane,
            &request.context.as_str(),
            &lease,
            &above,
            &row.paths,
            &row.exclusives,
            &row.ttl_us,
            &wait_us,
            &self.shared.home,
            &row.agent,
            &row.holder,
            &row.reason,
            &row.keeps,
            &row.replaces,
            &spare,
        ];
        let answer = self.step(&self.shared.statements.acquire, deadline, &params).await?;
        self.read(&answer)
    }

    /// Leaves the queue: the answer is a grant that came at the last moment, or what was in the way.
    async fn leave(&self, request: &LockRequest) -> Result<Answer, EngineError> {
        let lane = self.shared.names.lock_lane(&request.context);
        let (lease, path) = (&request.lease.as_bytes()[..], first_path(request));
        let params: [&(dyn ToSql + Sync); 5] = [&lane, &request.context.as_str(), &lease, &path, &self.shared.home];
        let answer = self.step(&self.shared.statements.leave, Deadline::now(), &params).await?;
        self.read(&answer)
    }

    /// Ends a lease or an attempt; who ends it and why, where that is not its holder.
    async fn end(
        &self,
        context: &ContextName,
        lease: LeaseId,
        known: Known,
        revoked: Option<(&AgentName, &str)>,
        deadline: Deadline,
    ) -> Result<Release, EngineError> {
        let (lane, id) = (self.shared.names.lock_lane(context), &lease.as_bytes()[..]);
        // Its asker, here or elsewhere, must not bring an attempt back; what is known to be held does not come again.
        let (path, remember) = match known {
            Known::Held(path) => (path, false),
            Known::Other => (None, true),
        };
        let (by, reason) = (revoked.map(|(by, _)| by.as_str()), revoked.map(|(_, reason)| reason.as_bytes()));
        let params: [&(dyn ToSql + Sync); 8] =
            [&lane, &context.as_str(), &id, &path, &self.shared.home, &by, &reason, &remember];
        let answer = self.step(&self.shared.statements.release, deadline, &params).await?;
        Ok(if answer.outcome == 1 { Release::Released } else { Release::NotHeld })
    }

    async fn renewed(
        &self,
        context: &ContextName,
        lease: LeaseId,
        paths: Option<Vec<&str>>,
        ttl: Duration,
        deadline: Deadline,
    ) -> Result<Renewal, EngineError> {
        let asked = Instant::now();
        let (lane, id) = (self.shared.names.lock_lane(context), &lease.as_bytes()[..]);
        let ttl_us = micros(ttl);
        let params: [&(dyn ToSql + Sync); 5] = [&lane, &context.as_str(), &id, &paths, &ttl_us];
        let answer = self.step(&self.shared.statements.renew, deadline, &params).await?;
        if answer.outcome == 1 {
            return Ok(Renewal::Renewed { valid_until: asked + ttl });
        }
        self.shared.board.forget(lease);
        Ok(Renewal::Lost(Reader { subject: self.links.here()?.subject() }.loss(&answer)?))
    }

    /// What became of the lease that was to be replaced.
    async fn lost(&self, request: &LockRequest, deadline: Deadline) -> Result<Acquisition, EngineError> {
        let nobody = Acquisition::TimedOut(Blocked::default());
        let Some(lease) = request.replaces else { return Ok(nobody) };
        match self.renewed(&request.context, lease, None, request.ttl.get(), deadline).await? {
            // It is there again: whoever asks may ask once more.
            Renewal::Renewed { .. } => Ok(nobody),
            Renewal::Lost(loss) => Ok(Acquisition::Lost(loss)),
        }
    }

    /// A grant that may be believed: one that was told long after it was last known to wait is confirmed first.
    async fn granted(
        &self,
        request: &LockRequest,
        granted: Granted,
        expected: Expected<'_>,
    ) -> Result<Acquisition, EngineError> {
        let Granted { number, until, queued, handed_over_after, spare } = granted;
        let mut lease = Lease {
            context: request.context.clone(),
            claims: Arc::clone(request.claims()),
            holder: request.holder.clone(),
            token: FencingToken::new(number.0, number.1, request.lease),
            ttl: request.ttl,
            valid_until: until,
        };
        if lease.valid_until < Instant::now() + request.ttl.get().min(CONFIRM) / 2 {
            match self.renew(&lease, Deadline::now()).await? {
                Renewal::Renewed { valid_until } => lease.valid_until = valid_until,
                Renewal::Lost(_) => return Ok(Acquisition::TimedOut(Blocked::default())),
            }
        }
        if let Some(replaced) = request.replaces {
            self.shared.board.forget(replaced);
        }
        let (context, path) = (request.context.clone(), first_path(request).to_owned());
        let alone = request.claims().len() == 1;
        let held = Held { context, path, alone, since: Instant::now(), has_spare: spare > 0 };
        let spare = if expected.becomes_held(held) { spare } else { 0 };
        Ok(Acquisition::Granted(Grant { lease, queued, handed_over_after, spare }))
    }
}

/// A grant, as far as the answer tells.
struct Granted {
    number: (u64, u64),
    until: Instant,
    queued: bool,
    /// How long ago the server granted it, where that was told.
    handed_over_after: Option<Duration>,
    /// How many counters after its own it has, too.
    spare: u32,
}

fn first_path(request: &LockRequest) -> &str {
    request.claims().first().map_or("", |claim| path_of(&claim.resource))
}

/// A deadline that leaves a statement its chance.
fn at_least(deadline: Deadline) -> Deadline {
    deadline.at_least(PATIENCE)
}

#[async_trait]
impl LockService for PostgresLocks {
    fn capabilities(&self) -> LockCapabilities {
        let listens = self.shared.listens();
        LockCapabilities {
            engine: "postgres",
            waiting: if listens { Waiting::Pushed } else { Waiting::Polled },
            fairness: Fairness::FirstComeFirstServed,
            shared_mode: true,
            subtrees: true,
            several_resources: true,
            deadlock_detection: true,
            revival: true,
            hands_over: true,
            dead_holder: if listens { DeadHolder::Presence } else { DeadHolder::Ttl },
            expiry_clock: ExpiryClock::Server,
            token_source: "a counter of the database, under an epoch that the document store mints for each run of the server",
            survives: "the death of any client, and a restart of the server in good order; a crash forgets all leases, and a new epoch begins",
        }
    }

    async fn acquire(&self, request: &LockRequest, deadline: Deadline) -> Result<Acquisition, EngineError> {
        let expected = self.shared.board.expect(request.lease);
        let mut turn = None;
        let (mut first, mut queued) = (true, false);
        let mut patience = Patience::until(deadline);
        let spare = self.spare(request, &expected).await;
        loop {
            let deadline = patience.deadline();
            let asked = Instant::now();
            match self.ask(request, first, spare, deadline).await? {
                Answer::Granted { number, left, spare } => {
                    let until = asked + left.unwrap_or(request.ttl.get());
                    let granted = Granted { number, until, queued, handed_over_after: None, spare };
                    return self.granted(request, granted, expected).await;
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
                Answer::Blocked { blocked, may_be_kept } => match patience.blocked(blocked, may_be_kept) {
                    Some(ended) => return Ok(ended),
                    None => continue,
                },
                Answer::Deadlock(deadlock) => return Ok(patience.deadlock(deadlock)),
                Answer::Lost => return self.lost(request, deadline).await,
                Answer::Gone => return Ok(Acquisition::TimedOut(Blocked::default())),
                Answer::Queued { next } => expected.queues(request, asked, next),
            }
            turn = None;
            (first, queued) = (false, true);
            let news = tokio::time::timeout_at(deadline.instant(), expected.news()).await;
            let until = expected.waiting_at().unwrap_or(asked) + request.ttl.get().min(CONFIRM);
            match news {
                Ok(News::Granted { number, until: known, handed_over_after }) => {
                    let granted =
                        Granted { number, until: known.unwrap_or(until), queued, handed_over_after, spare: 0 };
                    return self.granted(request, granted, expected).await;
                }
                Ok(News::Ended) => return Ok(Acquisition::TimedOut(Blocked::default())),
                Ok(News::AskAgain) => {}
                Err(_) => {
                    let asked = Instant::now();
                    return match self.leave(request).await? {
                        Answer::Granted { number, left, .. } => {
                            let until = asked + left.unwrap_or_default();
                            let granted = Granted { number, until, queued, handed_over_after: None, spare: 0 };
                            self.granted(request, granted, expected).await
                        }
                        Answer::Blocked { blocked, .. } => Ok(Acquisition::TimedOut(blocked)),
                        _ => Ok(Acquisition::TimedOut(Blocked::default())),
                    };
                }
            }
        }
    }

    async fn renew(&self, lease: &Lease, deadline: Deadline) -> Result<Renewal, EngineError> {
        let paths = lease.claims.iter().map(|claim| path_of(&claim.resource)).collect();
        self.renewed(&lease.context, lease.id(), Some(paths), lease.ttl.get(), deadline).await
    }

    async fn release(&self, context: &ContextName, lease: LeaseId, deadline: Deadline) -> Result<Release, EngineError> {
        self.end(context, lease, self.shared.board.take(lease), None, deadline).await
    }

    async fn inspect(&self, context: &ContextName, deadline: Deadline) -> Result<LockTable, EngineError> {
        let link = self.links.here()?;
        let rows = link
            .rows(Repeat::Reads, at_least(deadline), &self.shared.statements.table, &[&context.as_str()])
            .await
            // A look changes nothing, whatever became of its answer.
            .map_err(|trouble| trouble.with_effect(Effect::None))?;
        Reader { subject: link.subject() }.table(&rows)
    }

    async fn revoke(
        &self,
        context: &ContextName,
        lease: LeaseId,
        by: &AgentName,
        reason: &str,
        deadline: Deadline,
    ) -> Result<Release, EngineError> {
        self.end(context, lease, Known::Other, Some((by, reason)), deadline).await
    }

    async fn begin_epoch(&self, context: &ContextName, above: u64, deadline: Deadline) -> Result<(), EngineError> {
        let (deadline, lane) = (at_least(deadline), self.shared.names.lock_lane(context));
        let least = i64::try_from(above).unwrap_or(i64::MAX);
        let subject = Arc::clone(self.links.here()?.subject());
        let begin = async |minted: u64| {
            let minted = (minted > 0).then(|| i64::try_from(minted).unwrap_or(i64::MAX));
            let params: [&(dyn ToSql + Sync); 5] = [&lane, &context.as_str(), &minted, &least, &self.shared.home];
            let answer = self.step(&self.shared.statements.begin, deadline, &params).await?;
            if answer.outcome == 1 {
                return Ok(Begun::Done);
            }
            let last = answer.number.0;
            may_be_behind(last, above, context, &subject)?;
            Ok(Begun::Behind(last))
        };
        begin_above(&*self.epochs, context, (above, 0), deadline, &subject, begin).await
    }

    fn losses(&self) -> Option<broadcast::Receiver<LeaseId>> {
        // Behind a pooler nobody is told; renewals find out.
        self.shared.listens().then(|| self.shared.board.losses())
    }

    fn wanted(&self) -> Option<broadcast::Receiver<LeaseId>> {
        self.shared.listens().then(|| self.shared.board.asked_for())
    }

    async fn examine(&self, deadline: Deadline) -> Result<Vec<Finding>, EngineError> {
        let link = self.links.here()?;
        let mut findings = examine::examine(What::Locks, &self.options, &link, &self.shared.names, deadline).await?;
        findings.push(examine::wake_ups(&link, &self.shared, deadline).await?);
        Ok(findings)
    }
}
