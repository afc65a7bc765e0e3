//! Asking for a lock.

use std::sync::OnceLock;
use std::time::Duration;

use mutext_contract::{
    Acquisition, Claim, Deadline, Effect, GIVEN_BACK, Grant, InvalidName, LeaseId, LockRequest, Mode, Resource, Ttl,
    Wait,
};
use tokio::time::Instant;

use crate::keeper::{Keeper, Left};
use crate::kept::Next;
use crate::metrics::Acquiring;
use crate::{Context, Error, LockGuard, OnLapse};

/// A request for a lock, to be awaited or adjusted first.
///
/// Dropping it, or the future that it becomes, leaves nothing behind.
#[derive(Debug)]
#[must_use = "a lock is asked for only once this is awaited"]
pub struct Lock<'a> {
    context: &'a Context,
    id: OnceLock<LeaseId>,
    within: Option<&'a LockGuard>,
    resources: Vec<Result<Resource, InvalidName>>,
    mode: Mode,
    ttl: Ttl,
    wait: Option<Wait>,
    reason: Option<String>,
    on_lapse: OnLapse,
}

impl<'a> Lock<'a> {
    pub(crate) fn new(context: &'a Context, resource: Result<Resource, InvalidName>) -> Self {
        let settings = context.settings();
        Self {
            context,
            id: OnceLock::new(),
            within: None,
            resources: vec![resource],
            mode: Mode::Exclusive,
            ttl: settings.ttl,
            wait: Some(settings.wait),
            reason: None,
            on_lapse: settings.on_lapse,
        }
    }

    /// What the lease will be called, once granted, and the request as long as it queues: see [`Context::position`].
    /// Whoever asks for this name gets a lease of its own, also where the agent still has another one for the same.
    pub fn id(&self) -> LeaseId {
        *self.id.get_or_init(LeaseId::random)
    }

    /// Where `guard` covers what is asked for, it is shared instead of asking for more.
    pub(crate) const fn within(mut self, guard: &'a LockGuard) -> Self {
        self.within = Some(guard);
        self
    }

    /// Also this resource: all are granted together, or none.
    pub fn and<R: TryInto<Resource, Error = InvalidName>>(mut self, resource: R) -> Self {
        self.resources.push(resource.try_into());
        self
    }

    /// For reading: others may read too.
    pub const fn shared(mut self) -> Self {
        self.mode = Mode::Shared;
        self
    }

    /// How long the lease lasts without renewal.
    pub const fn ttl(mut self, ttl: Ttl) -> Self {
        self.ttl = ttl;
        self
    }

    /// How long to queue at most.
    pub const fn wait(mut self, wait: Wait) -> Self {
        self.wait = Some(wait);
        self
    }

    /// One try, without queueing. Where another agent merely keeps the lease between two uses, it is asked to give it
    /// back first, and has 10 ms for that.
    pub const fn without_waiting(mut self) -> Self {
        self.wait = None;
        self
    }

    /// What for: shown to those who wait.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// What a write does when the lease has lapsed.
    pub const fn on_lapse(mut self, on_lapse: OnLapse) -> Self {
        self.on_lapse = on_lapse;
        self
    }

    /// Queues until granted, at most as long as the wait.
    ///
    /// Errors with [`Error::Timeout`], which names who is in the way, and with [`Error::Deadlock`] at once where those
    /// who are in the way wait for what this context holds. Dropping the future gives back whatever it had got by
    /// then; should even that be lost, the lease ends with its TTL.
    pub async fn acquire(self) -> Result<LockGuard, Error> {
        let deadline = self.wait.map_or_else(Deadline::now, |wait| Deadline::after(wait.get()));
        Ok(self.acquire_by(deadline).await?.0)
    }

    /// The guard, and whether it took queueing.
    pub(crate) async fn acquire_by(self, deadline: Deadline) -> Result<(LockGuard, bool), Error> {
        let context = self.context;
        let resources = self.resources.into_iter().collect::<Result<Vec<_>, _>>()?;
        let claims = resources.iter().map(|resource| Claim { resource: resource.clone(), mode: self.mode });
        let line = context.line();
        let mut request = LockRequest::new(context.name().clone(), line.holder().clone(), self.ttl, claims)?;
        if let Some(guard) = self.within
            && let Some(shared) = guard.sharing(request.claims())?
        {
            return Ok((shared, false));
        }
        (request.reason, request.keeps) = (self.reason, line.keeps());
        if let Some(id) = self.id.get() {
            request.lease = *id;
        }
        let asked = Instant::now();
        match line.habit().next(&request, self.id.get().is_some(), context.keeper()) {
            Next::Here(lease, kept) => {
                context.keeper().meter().kept();
                return Ok((LockGuard::new(context.same(), lease, Some(kept), self.on_lapse, Duration::ZERO), false));
            }
            Next::Ask { spare, after } => {
                request.spare = spare;
                if let Some(given_back) = after {
                    // Who asks then finds others in its way, and not itself. An error says that it has ended.
                    let _ = tokio::time::timeout_at(deadline.at_least(GIVEN_BACK).instant(), given_back).await;
                }
            }
        }
        let (grant, waited) = ask(context, &request, self.wait, asked, deadline).await?;
        let queued = grant.queued;
        let kept = line.habit().granted(&request, &grant, context.keeper());
        Ok((LockGuard::new(context.same(), grant.lease, kept, self.on_lapse, waited), queued))
    }
}

/// Asks the lock service, for a caller who waits since `asked`, and gives back whatever may have been granted without the caller's knowing.
pub(crate) async fn ask(
    context: &Context,
    request: &LockRequest,
    wait: Option<Wait>,
    asked: Instant,
    deadline: Deadline,
) -> Result<(Grant, Duration), Error> {
    let mut attempt = Attempt { keeper: context.keeper(), request, settled: false, left: Left::Perhaps };
    let measured = Acquiring::start(context.keeper().meter(), wait, asked);
    let answer = context.lock_service().acquire(request, deadline).await;
    measured.answered(&answer);
    // What may have been granted without our knowing is given back: for the caller, nothing has happened.
    let acquisition = answer.map_err(|trouble| {
        if trouble.effect == Effect::None {
            attempt.left = Left::Nothing;
        }
        trouble.with_effect(Effect::None)
    })?;
    attempt.settle();
    let (resources, waited) =
        (|| request.claims().iter().map(|claim| claim.resource.clone()).collect(), asked.elapsed());
    match acquisition {
        Acquisition::Granted(grant) => Ok((grant, waited)),
        Acquisition::TimedOut(blocked) => {
            Err(Error::Timeout { resources: resources(), wait, waited, blocked: Box::new(blocked) })
        }
        Acquisition::Deadlock(deadlock) => {
            Err(Error::Deadlock { resources: resources(), deadlock: Box::new(deadlock) })
        }
        Acquisition::Lost(loss) => Err(Error::LeaseLost { resources: resources(), loss, current: None }),
    }
}

impl<'a> IntoFuture for Lock<'a> {
    type Output = Result<LockGuard, Error>;
    type IntoFuture = std::pin::Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.acquire())
    }
}

/// An attempt under way. Dropped before its answer came, it is given back in whatever state it is.
struct Attempt<'a> {
    keeper: &'a Keeper,
    request: &'a LockRequest,
    settled: bool,
    left: Left,
}

impl Attempt<'_> {
    fn settle(mut self) {
        self.settled = true;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.keeper.release(self.request.context.clone(), self.request.lease, self.left);
        }
    }
}
