//! Locks that are opened by whoever first needs one: documents are read, and written by compare-and-set, where the
//! lock server is down.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use mutext_contract::{
    Acquisition, AgentName, ContextName, DeadHolder, Deadline, EngineError, EpochSource, ExpiryClock, Fairness,
    Finding, Lease, LeaseId, LockCapabilities, LockRequest, LockService, LockTable, Release, Renewal, TroubleKind,
    Waiting,
};
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, broadcast};
use tokio::time::Instant;

use crate::Mutext;
use crate::address::{self, Address};

/// How long it is waited between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// News of leases that are kept for a listener who is behind.
const NEWS: usize = 256;

/// A lock service that is opened when it is first asked something.
pub(crate) struct LateLocks {
    inner: Arc<Inner>,
    /// Where it was named: an engine lives on the runtime that opens it, and the first who asks may be on another.
    home: Handle,
}

struct Inner {
    address: Address,
    epochs: Arc<dyn EpochSource>,
    opened: OnceCell<Arc<dyn LockService>>,
    has_failed: AtomicBool,
    losses: broadcast::Sender<LeaseId>,
    wanted: broadcast::Sender<LeaseId>,
}

impl fmt::Debug for LateLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LateLocks").field("address", &self.inner.address.to_string()).finish_non_exhaustive()
    }
}

impl Inner {
    async fn open(&self) -> Result<Arc<dyn LockService>, EngineError> {
        let open = || async {
            let deadline = Deadline::after(Mutext::OPENING);
            let service = address::open_locks(&self.address, Arc::clone(&self.epochs), deadline).await?;
            if let Some(news) = service.losses() {
                tokio::spawn(pass_on(news, self.losses.clone()));
            }
            if let Some(news) = service.wanted() {
                tokio::spawn(pass_on(news, self.wanted.clone()));
            }
            Ok(service)
        };
        let opened = self.opened.get_or_try_init(open).await.cloned();
        opened.inspect_err(|_| self.has_failed.store(true, Ordering::Relaxed))
    }
}

/// Ends with the service that the news come from.
async fn pass_on(mut news: broadcast::Receiver<LeaseId>, listeners: broadcast::Sender<LeaseId>) {
    loop {
        match news.recv().await {
            // Nobody listens before the first guard does.
            Ok(lease) => drop(listeners.send(lease)),
            // Renewals find out what was missed, and nothing is kept for long.
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

impl LateLocks {
    /// Must be called on the runtime that is to serve it.
    pub(crate) fn new(address: Address, epochs: Arc<dyn EpochSource>) -> Self {
        let (opened, has_failed) = (OnceCell::new(), AtomicBool::new(false));
        let (losses, wanted) = (broadcast::Sender::new(NEWS), broadcast::Sender::new(NEWS));
        Self { inner: Arc::new(Inner { address, epochs, opened, has_failed, losses, wanted }), home: Handle::current() }
    }

    /// The service, opened by now; by one try.
    async fn service(&self) -> Result<Arc<dyn LockService>, EngineError> {
        if let Some(service) = self.inner.opened.get() {
            return Ok(Arc::clone(service));
        }
        let inner = Arc::clone(&self.inner);
        // A task of its own: whoever gives up leaves no opening half-done to the next.
        self.home.spawn(async move { inner.open().await }).await.unwrap_or_else(|ended| {
            let remedy = "its runtime has ended: open it anew";
            let subject = self.inner.address.to_string();
            Err(EngineError::new(subject, TroubleKind::Unavailable, remedy).caused_by(ended))
        })
    }

    /// The service, asked for until `deadline` where it is not there; and how long the try took that found it, which
    /// is no part of anybody's wait.
    async fn service_by(&self, deadline: Deadline) -> Result<(Arc<dyn LockService>, Duration), EngineError> {
        loop {
            let asked = Instant::now();
            match self.service().await {
                Ok(service) => return Ok((service, asked.elapsed())),
                Err(error) if error.kind != TroubleKind::Unavailable || deadline.remaining() <= PAUSE => {
                    return Err(error);
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

#[async_trait]
impl LockService for LateLocks {
    /// Before it is opened, no more than its name is known.
    fn capabilities(&self) -> LockCapabilities {
        self.inner.opened.get().map_or_else(
            || LockCapabilities {
                engine: self.inner.address.engine(),
                waiting: Waiting::Polled,
                fairness: Fairness::Barging,
                shared_mode: false,
                subtrees: false,
                several_resources: false,
                deadlock_detection: false,
                revival: false,
                hands_over: false,
                dead_holder: DeadHolder::Ttl,
                expiry_clock: ExpiryClock::Observer,
                token_source: "not known before the first lock",
                survives: "not known before the first lock",
            },
            |service| service.capabilities(),
        )
    }

    async fn acquire(&self, request: &LockRequest, deadline: Deadline) -> Result<Acquisition, EngineError> {
        let (service, took) = self.service_by(deadline).await?;
        service.acquire(request, Deadline::at(deadline.instant() + took)).await
    }

    async fn renew(&self, lease: &Lease, deadline: Deadline) -> Result<Renewal, EngineError> {
        self.service().await?.renew(lease, deadline).await
    }

    async fn release(&self, context: &ContextName, lease: LeaseId, deadline: Deadline) -> Result<Release, EngineError> {
        // What could not be asked for need not be given back.
        if self.inner.opened.get().is_none() && self.inner.has_failed.load(Ordering::Relaxed) {
            return Ok(Release::NotHeld);
        }
        self.service().await?.release(context, lease, deadline).await
    }

    async fn inspect(&self, context: &ContextName, deadline: Deadline) -> Result<LockTable, EngineError> {
        self.service().await?.inspect(context, deadline).await
    }

    async fn revoke(
        &self,
        context: &ContextName,
        lease: LeaseId,
        by: &AgentName,
        reason: &str,
        deadline: Deadline,
    ) -> Result<Release, EngineError> {
        self.service().await?.revoke(context, lease, by, reason, deadline).await
    }

    async fn begin_epoch(&self, context: &ContextName, above: u64, deadline: Deadline) -> Result<(), EngineError> {
        self.service().await?.begin_epoch(context, above, deadline).await
    }

    fn losses(&self) -> Option<broadcast::Receiver<LeaseId>> {
        Some(self.inner.losses.subscribe())
    }

    /// News of an engine that has none never come: it grants no tokens to spare.
    fn wanted(&self) -> Option<broadcast::Receiver<LeaseId>> {
        Some(self.inner.wanted.subscribe())
    }

    async fn examine(&self, deadline: Deadline) -> Result<Vec<Finding>, EngineError> {
        self.service().await?.examine(deadline).await
    }
}
