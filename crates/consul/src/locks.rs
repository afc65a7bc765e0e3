//! The lock engine: hands what its callers ask to the desks, which work on a thread of their own.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use mutext_contract::{
    Acquisition, AgentName, Begun, ContextName, DeadHolder, Deadline, Effect, EngineError, EpochSource, ExpiryClock,
    Fairness, Finding, Lease, LeaseId, LockCapabilities, LockRequest, LockService, LockTable, Minting, Release,
    Renewal, TroubleKind, Waiting, begin_above,
};
use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

use crate::asked::{Answered, Attempt, Call, Job, What};
use crate::desk::{Desk, LEAST, Office};
use crate::examine;
use crate::home::{Event, Homes};
use crate::http::{Client, lock};
use crate::keys::Keys;
use crate::kv::Consul;
use crate::options::ConsulOptions;
use crate::trouble;

/// How many losses wait for whoever listens.
const LOSSES_KEPT: usize = 1024;
/// How much later than a deadline a desk may answer: one write more, to leave the queue.
const GRACE: Duration = Duration::from_secs(2);
/// How long the desks are given to say that they are idle, when the engine is dropped.
const GOODBYE: Duration = Duration::from_millis(200);

/// How many epochs an attempt has begun for it: the first serves, unless others are at it.
const EPOCHS_TRIED: usize = 20;

/// Locks in Consul.
pub struct ConsulLocks {
    desks: Arc<Desks>,
    options: Arc<ConsulOptions>,
    epochs: Arc<dyn EpochSource>,
    minting: Minting,
    _stop: watch::Sender<()>,
}

impl fmt::Debug for ConsulLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsulLocks").field("consul", &self.desks.office.subject).finish_non_exhaustive()
    }
}

/// The desks of a process, one for each context that is in use.
struct Desks {
    office: Arc<Office>,
    runtime: Handle,
    open: Mutex<HashMap<ContextName, mpsc::UnboundedSender<Call>>>,
}

impl Desks {
    /// Calls a context's desk; opens one where there is none. What is called in vain was said to an engine that ends.
    fn call(self: &Arc<Self>, context: &ContextName, call: Call) {
        let mut open = lock(&self.open);
        let desk = open.entry(context.clone()).or_insert_with(|| {
            // Each caller waits for its answer before it calls again: there are never more calls than callers.
            let (sender, calls) = mpsc::unbounded_channel();
            let desk = Desk::new(Arc::clone(&self.office), context.clone(), calls);
            let (desks, context) = (Arc::downgrade(self), context.clone());
            let may_close = move |calls: &mpsc::UnboundedReceiver<Call>| {
                let Some(desks) = Weak::upgrade(&desks) else { return true };
                let mut open = lock(&desks.open);
                // Nobody can call it once it is not among them.
                let closes = calls.is_empty();
                if closes {
                    open.remove(&context);
                }
                closes
            };
            self.runtime.spawn(desk.run(Box::new(may_close)));
            sender
        });
        let _ = desk.send(call);
    }

    /// Hands on what was heard of the session and its mailboxes.
    fn hear(&self, event: Event) {
        let open = lock(&self.open);
        match event {
            Event::Lost(home) => open.values().for_each(|desk| {
                let _ = desk.send(Call::HomeLost(Arc::clone(&home)));
            }),
            Event::Rang(found) => {
                let desk = open.iter().find(|(context, _)| found.key.ends_with(&Keys::bell_end(context)));
                if let Some((_, desk)) = desk {
                    let _ = desk.send(Call::Rang { value: found.value, index: found.index });
                }
            }
        }
    }

    /// Whether nothing is held and nobody waits, as far as the desks say so in time.
    async fn are_idle(&self) -> bool {
        let desks: Vec<_> = lock(&self.open).values().cloned().collect();
        for desk in desks {
            let (answer, idle) = oneshot::channel();
            if desk.send(Call::IsIdle(answer)).is_ok() && !matches!(timeout(GOODBYE, idle).await, Ok(Ok(true))) {
                return false;
            }
        }
        true
    }
}

impl ConsulLocks {
    pub(crate) async fn open(
        options: ConsulOptions,
        epochs: Arc<dyn EpochSource>,
        deadline: Deadline,
    ) -> Result<Self, EngineError> {
        let subject: Arc<str> = options.to_string().into();
        let keys = Arc::new(Keys::new(options.prefix()));
        let consul = Consul::new(Arc::new(Client::new(&options)?), &options);
        let (losses, _) = broadcast::channel(LOSSES_KEPT);
        let (stop, stopped) = watch::channel(());
        let runtime = start(&subject, stopped)?;
        // The desks are told of what the homes hear, and the homes belong to the desks.
        let told: Arc<OnceLock<Weak<Desks>>> = Arc::default();
        let tell = {
            let told = Arc::clone(&told);
            move |event| {
                if let Some(desks) = told.get().and_then(Weak::upgrade) {
                    desks.hear(event);
                }
            }
        };
        let session = (options.session_ttl(), options.lock_delay());
        let homes = Homes::new(consul.clone(), Arc::clone(&keys), Arc::clone(&subject), session, tell);
        let office = Office { consul, keys, subject: Arc::clone(&subject), homes: Arc::new(homes), losses };
        let desks = Arc::new(Desks { office: Arc::new(office), runtime: runtime.handle, open: Mutex::default() });
        let _ = told.set(Arc::downgrade(&desks));
        drop(runtime.desks.send(Arc::clone(&desks)));
        let minting = Minting::default();
        let locks = Self { desks, options: Arc::new(options), epochs, minting, _stop: stop };
        locks.greet(deadline).await?;
        Ok(locks)
    }

    /// Makes sure that there is somebody who answers, and that the token is known.
    async fn greet(&self, deadline: Deadline) -> Result<(), EngineError> {
        let office = Arc::clone(&self.desks.office);
        let patience = deadline.remaining().max(LEAST);
        let greeting = async move {
            let key = office.keys.alive("nobody");
            office.consul.get(&key, patience).await.map_err(|error| trouble::explain(&office.subject, error))
        };
        self.on_thread(greeting, deadline).await?.map(drop)
    }

    /// Runs something on the engine's own runtime, where its connections are.
    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
        deadline: Deadline,
    ) -> Result<T, EngineError> {
        let working = self.desks.runtime.spawn(work);
        match timeout_at(at_least(deadline).instant() + GRACE, working).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) => Err(self.closed()),
            Err(_) => Err(trouble::unanswered(&self.desks.office.subject)),
        }
    }

    fn closed(&self) -> EngineError {
        EngineError::new(&*self.desks.office.subject, TroubleKind::Unavailable, "its thread has ended; open it again")
    }

    /// What a desk answers, not long after the deadline.
    async fn answer<T>(
        &self,
        answer: oneshot::Receiver<Result<T, EngineError>>,
        deadline: Deadline,
    ) -> Result<T, EngineError> {
        match timeout_at(at_least(deadline).instant() + GRACE, answer).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(_)) => Err(self.closed().with_effect(Effect::Unknown)),
            Err(_) => Err(trouble::unanswered(&self.desks.office.subject)),
        }
    }

    /// Epochs are begun and lost again and again.
    fn unsettled(&self) -> EngineError {
        let remedy =
            "others begin one epoch after the other, or the document store mints none above the last: try again";
        EngineError::new(&*self.desks.office.subject, TroubleKind::Busy, remedy)
    }

    async fn job<T>(
        &self,
        context: &ContextName,
        what: impl FnOnce(oneshot::Sender<Result<T, EngineError>>) -> What,
        deadline: Deadline,
    ) -> Result<T, EngineError> {
        let (sender, answer) = oneshot::channel();
        self.desks.call(context, Call::Job(Job::new(what(sender), deadline)));
        self.answer(answer, deadline).await
    }
}

/// The engine's thread, once it runs.
struct Started {
    handle: Handle,
    /// It is told of the desks, to ask them at the end.
    desks: oneshot::Sender<Arc<Desks>>,
}

/// Starts the thread that all connections and desks live on: neither a caller's blocking code nor the end of its
/// runtime stops a renewal of the session. It ends when `stopped` says so.
fn start(subject: &str, mut stopped: watch::Receiver<()>) -> Result<Started, EngineError> {
    let failed = |error: std::io::Error| {
        let what = format!("{subject}: thread mutext-consul");
        EngineError::new(what, TroubleKind::Unavailable, "allow more threads for this process").caused_by(error)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let handle = runtime.handle().clone();
    let (sender, desks) = oneshot::channel::<Arc<Desks>>();
    let live = async move {
        let desks = desks.await.ok();
        // An error says that the sender is gone.
        let _ = stopped.changed().await;
        let Some(desks) = desks else { return };
        if desks.are_idle().await {
            desks.office.homes.leave().await;
        }
    };
    let run = move || runtime.block_on(live);
    thread::Builder::new().name("mutext-consul".to_owned()).spawn(run).map_err(failed)?;
    Ok(Started { handle, desks: sender })
}

/// A deadline that leaves a call its chance.
fn at_least(deadline: Deadline) -> Deadline {
    deadline.at_least(LEAST)
}

#[async_trait]
impl LockService for ConsulLocks {
    fn capabilities(&self) -> LockCapabilities {
        LockCapabilities {
            engine: "consul",
            waiting: Waiting::Pushed,
            fairness: Fairness::FirstComeFirstServed,
            shared_mode: true,
            subtrees: true,
            several_resources: true,
            deadlock_detection: true,
            revival: true,
            hands_over: true,
            dead_holder: DeadHolder::Ttl,
            expiry_clock: ExpiryClock::Observer,
            token_source: "the index of the transaction that grants, under an epoch that the document store mints where Consul has lost what it knew",
            survives: "the death of any client, and what a minority of Consul's servers do not survive; a client whose session ends loses its leases; where Consul's data are lost, leases are too, and a new epoch begins",
        }
    }

    async fn acquire(&self, request: &LockRequest, deadline: Deadline) -> Result<Acquisition, EngineError> {
        for _ in 0..EPOCHS_TRIED {
            let (sender, answer) = oneshot::channel();
            let attempt = Attempt::new(request.clone(), deadline, sender);
            self.desks.call(&request.context, Call::Acquire(Box::new(attempt)));
            match self.answer(answer, deadline).await? {
                Answered::Settled(acquisition) => return Ok(acquisition),
                Answered::NoEpoch => {
                    // Nobody keeps the turn while it queues. Whoever waited for it finds what was begun meanwhile.
                    let _turn = self.minting.turn(&request.context, at_least(deadline)).await?;
                    self.begin_epoch(&request.context, 0, deadline).await?;
                }
            }
        }
        Err(self.unsettled())
    }

    async fn renew(&self, lease: &Lease, deadline: Deadline) -> Result<Renewal, EngineError> {
        let asked = Instant::now();
        let (id, ttl) = (lease.id(), lease.ttl.get());
        let renewed = self.job(&lease.context, |answer| What::Renew { lease: id, ttl, answer }, deadline).await?;
        Ok(match renewed {
            Ok(()) => Renewal::Renewed { valid_until: asked + ttl },
            Err(loss) => Renewal::Lost(loss),
        })
    }

    async fn release(&self, context: &ContextName, lease: LeaseId, deadline: Deadline) -> Result<Release, EngineError> {
        self.job(context, |answer| What::Release { lease, by: None, answer }, deadline).await
    }

    async fn inspect(&self, context: &ContextName, deadline: Deadline) -> Result<LockTable, EngineError> {
        // A look ends nothing, whatever became of its answer.
        let looked = self.job(context, |answer| What::Inspect { answer }, deadline).await;
        looked.map_err(|trouble| trouble.with_effect(Effect::None))
    }

    async fn revoke(
        &self,
        context: &ContextName,
        lease: LeaseId,
        by: &AgentName,
        reason: &str,
        deadline: Deadline,
    ) -> Result<Release, EngineError> {
        let by = Some((by.clone(), reason.to_owned()));
        self.job(context, |answer| What::Release { lease, by, answer }, deadline).await
    }

    async fn begin_epoch(&self, context: &ContextName, above: u64, deadline: Deadline) -> Result<(), EngineError> {
        let begin = async |minted| {
            let begun = self.job(context, |answer| What::Begin { above, minted, answer }, deadline).await?;
            Ok(begun.map_or(Begun::Done, Begun::Behind))
        };
        let (deadline, subject) = (at_least(deadline), &*self.desks.office.subject);
        begin_above(&*self.epochs, context, (above, 0), deadline, subject, begin).await
    }

    fn losses(&self) -> Option<broadcast::Receiver<LeaseId>> {
        Some(self.desks.office.losses.subscribe())
    }

    async fn examine(&self, deadline: Deadline) -> Result<Vec<Finding>, EngineError> {
        let (office, options) = (Arc::clone(&self.desks.office), Arc::clone(&self.options));
        let examining = async move { examine::examine(&office, &options, deadline).await };
        self.on_thread(examining, deadline).await?
    }
}
