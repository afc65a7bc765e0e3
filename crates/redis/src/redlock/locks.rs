//! The lock service: each operation is one change of the context's register.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mutext_contract::queue::Entry;
use mutext_contract::{
    Acquisition, AgentName, Begun, Blocked, ContextName, DeadHolder, Deadline, EngineError, EpochSource, ExpiryClock,
    Fairness, FencingToken, Finding, Grant, Lease, LeaseId, LockCapabilities, LockRequest, LockService, LockTable,
    Loss, Patience, Release, Renewal, TroubleKind, Waiting, begin_above,
};
use tokio::sync::broadcast;
use tokio::time::Instant;

use super::courier::Courier;
use super::nodes::Nodes;
use super::register::Register;
use super::table::{CONFIRM, Op, Said, nanos};
use super::watch;
use crate::board::{Board, Expected, Known, News};
use crate::keys::Keys;
use crate::options::RedisOptions;
use crate::presence::Presence;
use crate::records::Answer;

/// What must be given a chance has at least this long, also where the deadline has passed.
const PATIENCE: Duration = Duration::from_secs(1);
/// A waiter leaves the queue by itself at its deadline; others remove it so much later, in case it died.
const OVERDUE: Duration = Duration::from_millis(100);
/// What is remembered of an attempt that was released by another than its asker.
const RELEASED: &str = "released";

/// Locks that a majority of several Redis servers agrees on.
pub struct RedlockLocks {
    keys: Arc<Keys>,
    board: Arc<Board>,
    register: Arc<Register>,
    _presence: Presence,
}

impl fmt::Debug for RedlockLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedlockLocks").field("nodes", &self.keys.subject()).finish_non_exhaustive()
    }
}

/// A grant, as far as the answer tells.
struct Granted {
    number: (u64, u64),
    /// It was certainly not made before.
    since: Instant,
    lasts: Duration,
    queued: bool,
    /// How many numbers after its own it has, too.
    spare: u32,
}

/// A deadline that leaves an operation its chance.
fn at_least(deadline: Deadline) -> Deadline {
    deadline.at_least(PATIENCE)
}

/// Clocks that run at slightly different speeds: a lease is believed so much shorter than the nodes count it.
fn drift(ttl: Duration) -> Duration {
    ttl / 100 + Duration::from_millis(2)
}

impl RedlockLocks {
    pub(crate) async fn open(
        options: &RedisOptions,
        epochs: Arc<dyn EpochSource>,
        deadline: Deadline,
    ) -> Result<Self, EngineError> {
        let keys = Arc::new(Keys::new(options));
        let board = Arc::new(Board::new());
        let nodes = Arc::new(Nodes::new(options, &keys, options.node_hosts()));
        let courier = Courier { board: Arc::clone(&board), keys: Arc::clone(&keys) };
        let register = Arc::new(Register::new(nodes, Arc::clone(&keys), epochs, courier));
        let presence = watch::start(options, &register, &board, &keys, deadline).await?;
        Ok(Self { keys, board, register, _presence: presence })
    }

    fn unreadable(&self) -> EngineError {
        let kind = TroubleKind::Failed("an operation has the answer of another".to_owned());
        EngineError::new(self.keys.subject(), kind, "report this: it is a defect of Mutext")
    }

    async fn answer(&self, context: &ContextName, op: Op, deadline: Deadline) -> Result<Answer, EngineError> {
        match self.register.run(context, op, at_least(deadline)).await? {
            Said::Answer(answer) => Ok(answer),
            Said::Full => {
                let remedy = "fewer requests at once, or several contexts: the table of one travels as a whole";
                Err(EngineError::new(format!("the lock table of {context}"), TroubleKind::Full, remedy))
            }
            _ => Err(self.unreadable()),
        }
    }

    async fn end(&self, context: &ContextName, op: Op, deadline: Deadline) -> Result<Release, EngineError> {
        match self.register.run(context, op, at_least(deadline)).await? {
            Said::Ended(release) => Ok(release),
            _ => Err(self.unreadable()),
        }
    }

    async fn extend(
        &self,
        context: &ContextName,
        id: LeaseId,
        ttl: Duration,
        deadline: Deadline,
    ) -> Result<Result<Instant, Loss>, EngineError> {
        let asked = Instant::now();
        match self.register.run(context, Op::Renew { id, ttl_ns: nanos(ttl) }, at_least(deadline)).await? {
            Said::Renewed(Ok(())) => Ok(Ok(asked + ttl - drift(ttl))),
            Said::Renewed(Err(loss)) => {
                self.board.forget(id);
                Ok(Err(loss))
            }
            _ => Err(self.unreadable()),
        }
    }

    /// A grant that may be believed: one that was told long after it was last known to wait is confirmed first.
    async fn granted(
        &self,
        request: &LockRequest,
        Granted { number, since, lasts, queued, spare }: Granted,
        expected: Expected<'_>,
    ) -> Result<Acquisition, EngineError> {
        let mut valid_until = since + lasts - drift(lasts);
        if valid_until < Instant::now() + lasts / 2 {
            let ttl = request.ttl.get();
            let Ok(until) = self.extend(&request.context, request.lease, ttl, Deadline::now()).await? else {
                expected.ends();
                return Ok(Acquisition::TimedOut(Blocked::default()));
            };
            valid_until = until;
        }
        if let Some(replaced) = request.replaces {
            self.board.forget(replaced);
        }
        expected.becomes_held(None);
        let lease = Lease {
            context: request.context.clone(),
            claims: Arc::clone(request.claims()),
            holder: request.holder.clone(),
            token: FencingToken::new(number.0, number.1, request.lease),
            ttl: request.ttl,
            valid_until,
        };
        Ok(Acquisition::Granted(Grant { lease, queued, handed_over_after: None, spare }))
    }

    /// What became of the lease that was to be replaced.
    async fn lost(&self, request: &LockRequest, deadline: Deadline) -> Result<Acquisition, EngineError> {
        let Some(lease) = request.replaces else { return Ok(Acquisition::TimedOut(Blocked::default())) };
        Ok(match self.extend(&request.context, lease, request.ttl.get(), deadline).await? {
            // It is there again: whoever asks may ask once more.
            Ok(_) => Acquisition::TimedOut(Blocked::default()),
            Err(loss) => Acquisition::Lost(loss),
        })
    }

    fn attempt(&self, request: &LockRequest) -> Entry {
        Entry {
            place: 0,
            id: request.lease,
            holder: request.holder.clone(),
            claims: Arc::clone(request.claims()),
            ttl_ns: nanos(request.ttl.get()),
            reason: request.reason.clone(),
            home: self.keys.home().to_owned(),
            since_ns: 0,
            until_ns: 0,
            counter: None,
            keeps: request.keeps.clone(),
            replaces: request.replaces,
            spare: request.spare,
        }
    }
}

#[async_trait]
impl LockService for RedlockLocks {
    fn capabilities(&self) -> LockCapabilities {
        LockCapabilities {
            engine: "redlock",
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
            token_source: "a counter in the context's lock table, which a majority of the nodes agrees on, under an epoch that the document store mints whenever no majority remembers the last one",
            survives: "the death of any client, and of any nodes as long as a majority remembers: a node that starts again votes only after it has taken over what the others have; where no majority remembers, the leases that are still known stand, and a new epoch begins",
        }
    }

    async fn acquire(&self, request: &LockRequest, deadline: Deadline) -> Result<Acquisition, EngineError> {
        let attempt = Box::new(self.attempt(request));
        let expected = self.board.expect(request.lease);
        let (ttl, short) = (request.ttl.get(), request.ttl.get().min(CONFIRM));
        let mut queued = false;
        let mut patience = Patience::until(deadline);
        loop {
            let deadline = patience.deadline();
            let asked = Instant::now();
            let wait = deadline.remaining();
            let wait_ns = if wait.is_zero() { 0 } else { nanos(wait + OVERDUE) };
            let op = Op::Look { attempt: attempt.clone(), wait_ns };
            match self.answer(&request.context, op, deadline).await? {
                Answer::Granted { epoch, count, spare } => {
                    // A second question may find a grant that was made in between.
                    let (since, lasts) = match expected.waiting_at() {
                        Some(at) if queued => (at, short),
                        _ => (asked, ttl),
                    };
                    let granted = Granted { number: (epoch, count), since, lasts, queued, spare };
                    return self.granted(request, granted, expected).await;
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
                Answer::Gone | Answer::NoEpoch => {
                    expected.ends();
                    return Ok(Acquisition::TimedOut(Blocked::default()));
                }
                Answer::Queued { next } => expected.queues(request, asked, next),
            }
            queued = true;
            let news = tokio::time::timeout_at(deadline.instant(), expected.news()).await;
            let since = expected.waiting_at().unwrap_or(asked);
            match news {
                Ok(News::Granted { epoch, count, .. }) => {
                    let granted = Granted { number: (epoch, count), since, lasts: short, queued, spare: 0 };
                    return self.granted(request, granted, expected).await;
                }
                Ok(News::Ended) => {
                    expected.ends();
                    return Ok(Acquisition::TimedOut(Blocked::default()));
                }
                Ok(News::AskAgain) => {}
                Err(_) => {
                    let answer = self.answer(&request.context, Op::Leave(request.lease), Deadline::now()).await?;
                    if let Answer::Granted { epoch, count, .. } = answer {
                        let granted = Granted { number: (epoch, count), since, lasts: short, queued, spare: 0 };
                        return self.granted(request, granted, expected).await;
                    }
                    expected.ends();
                    let Answer::Blocked { blocked, .. } = answer else {
                        return Ok(Acquisition::TimedOut(Blocked::default()));
                    };
                    return Ok(Acquisition::TimedOut(blocked));
                }
            }
        }
    }

    async fn renew(&self, lease: &Lease, deadline: Deadline) -> Result<Renewal, EngineError> {
        let renewed = self.extend(&lease.context, lease.id(), lease.ttl.get(), deadline).await?;
        Ok(match renewed {
            Ok(valid_until) => Renewal::Renewed { valid_until },
            Err(loss) => Renewal::Lost(loss),
        })
    }

    async fn release(&self, context: &ContextName, lease: LeaseId, deadline: Deadline) -> Result<Release, EngineError> {
        let remembered = match self.board.take(lease) {
            Known::Held(_) => String::new(),
            // Its asker, here or elsewhere, must not take a missing entry for a lost turn.
            Known::Left(_) | Known::Other => RELEASED.to_owned(),
        };
        self.end(context, Op::End { id: lease, remembered, is_told: false }, deadline).await
    }

    async fn inspect(&self, context: &ContextName, deadline: Deadline) -> Result<LockTable, EngineError> {
        if let Some((table, now_ns)) = self.register.peek(context).await {
            return Ok(table.picture(now_ns));
        }
        match self.register.run(context, Op::See, at_least(deadline)).await? {
            Said::Seen(table) => Ok(table.picture(table.clock_ns)),
            _ => Err(self.unreadable()),
        }
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
        self.end(context, Op::End { id: lease, remembered, is_told: true }, deadline).await
    }

    async fn begin_epoch(&self, context: &ContextName, above: u64, deadline: Deadline) -> Result<(), EngineError> {
        // Minted before it is asked for: whoever shares a change with it does not wait for the document store.
        let deadline = at_least(deadline);
        let begin = async |minted| match self.register.run(context, Op::Begin { above, minted }, deadline).await? {
            Said::Begun(Ok(())) => Ok(Begun::Done),
            Said::Begun(Err(last)) => Ok(Begun::Behind(last)),
            _ => Err(self.unreadable()),
        };
        let epochs = &*self.register.epochs;
        begin_above(epochs, context, (above, 0), deadline, self.keys.subject(), begin).await
    }

    fn losses(&self) -> Option<broadcast::Receiver<LeaseId>> {
        Some(self.board.losses())
    }

    fn wanted(&self) -> Option<broadcast::Receiver<LeaseId>> {
        Some(self.board.wanted())
    }

    async fn examine(&self, deadline: Deadline) -> Result<Vec<Finding>, EngineError> {
        crate::examine_sets::nodes(&self.register.nodes.all, deadline).await
    }
}
