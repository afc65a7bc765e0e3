//! Keeps leases alive while their guards live, and gives back what guards leave behind.
//!
//! One thread with a runtime of its own, so that neither a caller's blocking code nor the end of its runtime stops a
//! renewal or a release. Nothing here is waited for: a guard's drop sends a message and goes on.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use mutext_contract::{ContextName, Deadline, EngineError, Lease, LeaseId, LockService, Loss, Renewal, TroubleKind};
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::OnLapse;
use crate::kept::Kept;
use crate::metrics::{Holding, Meter};

/// How long a release in the background may take.
const RELEASE_PATIENCE: Duration = Duration::from_secs(10);

/// What a holder may believe of its lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Status {
    /// It is ours.
    Held,
    /// Its time ran out unconfirmed; nobody is known to have taken it.
    Lapsed,
    /// It is no longer ours.
    Lost(Loss),
}

/// A lease that a guard holds.
#[derive(Debug)]
pub(crate) struct Held {
    lease: Lease,
    valid_until: Mutex<Instant>,
    status: watch::Sender<Status>,
    on_lapse: OnLapse,
    measured: Holding,
}

impl Held {
    pub(crate) const fn lease(&self) -> &Lease {
        &self.lease
    }

    pub(crate) fn valid_until(&self) -> Instant {
        *lock(&self.valid_until)
    }

    /// What may be believed at this moment: the clock decides before any message does.
    pub(crate) fn status(&self) -> Status {
        let status = self.status.borrow().clone();
        if status == Status::Held && Instant::now() >= self.valid_until() {
            self.lapse();
            return self.status.borrow().clone();
        }
        status
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    pub(crate) const fn on_lapse(&self) -> OnLapse {
        self.on_lapse
    }

    pub(crate) const fn measured(&self) -> &Holding {
        &self.measured
    }

    pub(crate) fn lose(&self, loss: Loss) {
        self.status.send_if_modified(|status| {
            let news = !matches!(status, Status::Lost(_));
            if news {
                self.measured.lost(&loss);
                *status = Status::Lost(loss);
            }
            news
        });
    }

    fn lapse(&self) {
        match self.on_lapse {
            OnLapse::Reject => self.lose(Loss::Unconfirmed),
            OnLapse::Revalidate => {
                self.status.send_if_modified(|status| {
                    let news = *status == Status::Held;
                    if news {
                        *status = Status::Lapsed;
                    }
                    news
                });
            }
        }
    }

    fn renewed(&self, valid_until: Instant) {
        *lock(&self.valid_until) = valid_until;
        self.status.send_if_modified(|status| {
            let news = *status == Status::Lapsed;
            if news {
                *status = Status::Held;
            }
            news
        });
    }

    /// Asks the service once, and believes its answer.
    pub(crate) async fn renew(&self, service: &dyn LockService, deadline: Deadline) -> Result<(), EngineError> {
        let answer = service.renew(&self.lease, deadline).await;
        self.measured.meter().renewed(&answer);
        match answer? {
            Renewal::Renewed { valid_until } => self.renewed(valid_until),
            Renewal::Lost(loss) => self.lose(loss),
        }
        Ok(())
    }
}

enum Errand {
    Release(ContextName, LeaseId, Left, oneshot::Sender<()>),
    Soon(Instant, Box<dyn FnOnce() + Send>),
    Finish(oneshot::Sender<()>),
}

/// What is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// A lease, or an attempt that may have become one.
    Perhaps,
    /// An attempt that was refused, or a lease that has lapsed or is lost: it is given back all the same, and whether
    /// that works is nobody's trouble.
    Nothing,
}

#[derive(Debug, Default)]
struct Ward {
    /// Leases, and when each is due.
    leases: HashMap<LeaseId, (Arc<Held>, Instant)>,
    /// When the keeper will look by itself.
    armed: Option<Instant>,
}

#[derive(Debug)]
struct Shared {
    service: Arc<dyn LockService>,
    meter: Arc<Meter>,
    ward: Mutex<Ward>,
    outage: Mutex<Outage>,
    sooner: Notify,
    /// Leases that stay with an agent from one lock to the next.
    kept: Mutex<KeptLeases>,
    /// Whether the service tells who wants such a lease.
    tells_who_wants: bool,
}

/// Leases that stay with an agent from one lock to the next, and the latest that somebody asked for and nobody knew: word
/// of that may come before that of the grant.
#[derive(Debug, Default)]
struct KeptLeases {
    known: HashMap<LeaseId, Weak<Kept>>,
    unknown: VecDeque<LeaseId>,
}

impl KeptLeases {
    const UNKNOWN_MOST: usize = 64;

    /// The one of this name, or all where none is given.
    fn of(&self, lease: Option<LeaseId>) -> Vec<Arc<Kept>> {
        match lease {
            Some(lease) => self.known.get(&lease).and_then(Weak::upgrade).into_iter().collect(),
            None => self.known.values().filter_map(Weak::upgrade).collect(),
        }
    }

    fn wanted(&mut self, lease: Option<LeaseId>) -> Vec<Arc<Kept>> {
        if let Some(lease) = lease.filter(|lease| !self.known.contains_key(lease)) {
            self.unknown.truncate(Self::UNKNOWN_MOST - 1);
            self.unknown.push_front(lease);
        }
        self.of(lease)
    }
}

/// Renewals that fail, told once when the first does and once when none does any more: whoever holds many leases, or
/// one through many tries, meets one outage.
#[derive(Debug, Default)]
struct Outage {
    since: Option<Instant>,
    failing: HashSet<LeaseId>,
    lost: usize,
}

/// How an outage ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// What was left is renewed again.
    Renewed { lost: usize },
    /// Nothing is left to be renewed.
    Lost { lost: usize },
}

impl Outage {
    /// Whether it is the first that fails.
    fn failed(&mut self, lease: LeaseId) -> bool {
        self.failing.insert(lease);
        let begins = self.since.is_none();
        if begins {
            (self.since, self.lost) = (Some(Instant::now()), 0);
        }
        begins
    }

    fn renewed(&mut self, lease: LeaseId) -> Option<(Ended, Duration)> {
        let ends = self.failing.remove(&lease) && self.failing.is_empty();
        self.ended(ends, Ended::Renewed { lost: self.lost })
    }

    fn lost(&mut self, lease: LeaseId) -> Option<(Ended, Duration)> {
        let failed = self.failing.remove(&lease);
        self.lost += usize::from(failed);
        self.ended(failed && self.failing.is_empty(), Ended::Lost { lost: self.lost })
    }

    /// One that was given back meanwhile: where it was the last one, nobody knows whether renewing would work again.
    fn forgotten(&mut self, lease: LeaseId) -> Option<(Ended, Duration)> {
        let ends = self.failing.remove(&lease) && self.failing.is_empty();
        self.ended(ends, Ended::Lost { lost: self.lost }).filter(|_| self.lost > 0)
    }

    fn ended(&mut self, ends: bool, how: Ended) -> Option<(Ended, Duration)> {
        let since = self.since.take_if(|_| ends)?;
        Some((how, since.elapsed()))
    }
}

fn tell_of_end(ended: Option<(Ended, Duration)>) {
    let Some((how, after)) = ended else { return };
    let after = format!("{after:.1?}");
    match how {
        Ended::Renewed { lost: 0 } => tracing::warn!(%after, "leases are renewed again, and none was lost"),
        Ended::Renewed { lost } => tracing::warn!(%after, lost, "leases are renewed again; some were lost meanwhile"),
        Ended::Lost { lost } => {
            tracing::warn!(%after, lost, "leases were not renewed in time, and are given up as lost");
        }
    }
}

/// The way to the keeper's thread. The thread ends when the last of its senders is gone and its errands are done.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    errands: mpsc::UnboundedSender<Errand>,
}

impl Keeper {
    pub(crate) fn start(service: Arc<dyn LockService>, meter: Arc<Meter>) -> Result<Self, EngineError> {
        let trouble = |error: std::io::Error| {
            let kind = TroubleKind::Unavailable;
            EngineError::new("thread mutext-keeper", kind, "allow more threads for this process").caused_by(error)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(trouble)?;
        let (errands, queue) = mpsc::unbounded_channel();
        let (losses, wanted) = (service.losses(), service.wanted());
        let shared = Arc::new(Shared {
            service,
            meter,
            ward: Mutex::default(),
            outage: Mutex::default(),
            sooner: Notify::new(),
            kept: Mutex::default(),
            tells_who_wants: wanted.is_some(),
        });
        let kept = Arc::clone(&shared);
        let run = move || runtime.block_on(keep(kept, queue, losses, wanted));
        std::thread::Builder::new().name("mutext-keeper".to_owned()).spawn(run).map_err(trouble)?;
        Ok(Self { shared, errands })
    }

    /// The numbers of what is asked of this service.
    pub(crate) fn meter(&self) -> &Meter {
        &self.shared.meter
    }

    /// Renews `lease` from now on.
    pub(crate) fn hold(&self, lease: Lease, on_lapse: OnLapse) -> Arc<Held> {
        // A lease that was handed over lasts for a short time only until it is confirmed.
        let now = Instant::now();
        let due = now + lease.ttl.renewal_interval().min(lease.valid_until.saturating_duration_since(now) / 3);
        let (id, valid_until) = (lease.id(), Mutex::new(lease.valid_until));
        let (status, measured) = (watch::Sender::new(Status::Held), Holding::start(&self.shared.meter, now));
        let held = Arc::new(Held { lease, valid_until, status, on_lapse, measured });
        let mut ward = lock(&self.shared.ward);
        ward.leases.insert(id, (Arc::clone(&held), due));
        if ward.armed.is_none_or(|armed| due < armed) {
            self.shared.sooner.notify_one();
        }
        held
    }

    /// Stops renewing; the lease lapses unless it is released.
    pub(crate) fn forget(&self, lease: LeaseId) {
        let held = lock(&self.shared.ward).leases.remove(&lease);
        let mut outage = lock(&self.shared.outage);
        let ended = match held {
            Some((held, _)) if matches!(held.status(), Status::Lost(_)) => outage.lost(lease),
            _ => outage.forgotten(lease),
        };
        drop(outage);
        tell_of_end(ended);
    }

    /// Gives the lease, or the attempt, back in the background. The receiver ends when it is given back, or cannot be.
    pub(crate) fn release(&self, context: ContextName, lease: LeaseId, left: Left) -> oneshot::Receiver<()> {
        self.forget(lease);
        let (done, given_back) = oneshot::channel();
        // A keeper that is gone went with its process: the lease lapses.
        let _ = self.errands.send(Errand::Release(context, lease, left, done));
        given_back
    }

    /// Does something small at `when`, whatever becomes of the caller's runtime.
    pub(crate) fn soon(&self, when: Instant, work: impl FnOnce() + Send + 'static) {
        let _ = self.errands.send(Errand::Soon(when, Box::new(work)));
    }

    /// Asks the service soon whether the lease still stands.
    pub(crate) fn ask_about(&self, lease: LeaseId) {
        self.shared.ask_about(Some(lease));
        self.shared.sooner.notify_one();
    }

    /// Whether whoever keeps a lease without using it is told when somebody else wants it.
    pub(crate) fn tells_who_wants(&self) -> bool {
        self.shared.tells_who_wants
    }

    /// Tells `kept` from now on what becomes of its lease. Whether somebody has asked for it already.
    pub(crate) fn keeps(&self, lease: LeaseId, kept: Weak<Kept>) -> bool {
        let mut leases = lock(&self.shared.kept);
        leases.known.insert(lease, kept);
        leases.unknown.contains(&lease)
    }

    /// What was kept is given back, or lost.
    pub(crate) fn keeps_no_more(&self, lease: LeaseId) {
        lock(&self.shared.kept).known.remove(&lease);
    }

    /// Ready once everything given back so far, or kept without a use, is given back.
    pub(crate) async fn finish(&self) {
        let kept = lock(&self.shared.kept).of(None);
        kept.iter().for_each(|kept| kept.is_wanted());
        let (done, finished) = oneshot::channel();
        if self.errands.send(Errand::Finish(done)).is_ok() {
            let _ = finished.await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change under these locks is one assignment, so that a panic leaves nothing half-done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn keep(
    shared: Arc<Shared>,
    mut errands: mpsc::UnboundedReceiver<Errand>,
    mut losses: Option<broadcast::Receiver<LeaseId>>,
    mut wanted: Option<broadcast::Receiver<LeaseId>>,
) {
    let mut running = JoinSet::new();
    loop {
        let next = shared.arm();
        tokio::select! {
            errand = errands.recv() => match errand {
                Some(Errand::Release(context, lease, left, done)) => {
                    let service = Arc::clone(&shared.service);
                    running.spawn(async move {
                        let deadline = Deadline::after(RELEASE_PATIENCE);
                        match (service.release(&context, lease, deadline).await, left) {
                            (Ok(_), _) => {}
                            (Err(error), Left::Perhaps) => {
                                tracing::warn!(%error, %lease, "a lease could not be released; it ends with its TTL");
                            }
                            (Err(error), Left::Nothing) => {
                                tracing::debug!(%error, %lease, "what was refused, lapsed or lost could not be given back");
                            }
                        }
                        // Told by its end.
                        drop(done);
                    });
                }
                Some(Errand::Soon(when, work)) => {
                    running.spawn(async move {
                        tokio::time::sleep_until(when).await;
                        work();
                    });
                }
                Some(Errand::Finish(done)) => {
                    while running.join_next().await.is_some() {}
                    let _ = done.send(());
                }
                None => break,
            },
            () = sleep_until(next) => shared.renew_due(&mut running),
            () = shared.sooner.notified() => {}
            news = next_of(&mut losses) => {
                shared.ask_about(news);
                let kept = lock(&shared.kept).of(news);
                kept.iter().for_each(|kept| kept.is_lost(news.is_some()));
            }
            lease = next_of(&mut wanted) => {
                let kept = lock(&shared.kept).wanted(lease);
                kept.iter().for_each(|kept| kept.is_wanted());
            }
            Some(_) = running.join_next() => {}
        }
    }
    while running.join_next().await.is_some() {}
}

async fn sleep_until(next: Option<Instant>) {
    match next {
        Some(next) => tokio::time::sleep_until(next).await,
        None => std::future::pending().await,
    }
}

/// A lease that the service has news of, or `None` where news was missed and there may be some of every lease.
async fn next_of(news: &mut Option<broadcast::Receiver<LeaseId>>) -> Option<LeaseId> {
    let Some(receiver) = news else { return std::future::pending().await };
    match receiver.recv().await {
        Ok(lease) => Some(lease),
        Err(broadcast::error::RecvError::Lagged(_)) => None,
        Err(broadcast::error::RecvError::Closed) => {
            *news = None;
            std::future::pending().await
        }
    }
}

impl Shared {
    /// When to look next: at the first renewal that is due, or the first lease whose time runs out.
    fn arm(&self) -> Option<Instant> {
        let mut ward = lock(&self.ward);
        let moments = ward.leases.values().map(|(held, due)| {
            let lapses = if *held.status.borrow() == Status::Held { held.valid_until() } else { *due };
            lapses.min(*due)
        });
        let next = moments.min();
        // Without leases it looks in vain once more: so whoever takes and gives back leases one after the other does
        // not have to wake it for each.
        ward.armed = next.or(ward.armed.filter(|at| *at > Instant::now()));
        ward.armed
    }

    fn ask_about(&self, lease: Option<LeaseId>) {
        let now = Instant::now();
        for (id, (_, due)) in &mut lock(&self.ward).leases {
            if lease.is_none_or(|lease| lease == *id) {
                *due = now;
            }
        }
    }

    fn renew_due(self: &Arc<Self>, running: &mut JoinSet<()>) {
        let now = Instant::now();
        let mut ward = lock(&self.ward);
        let lost = ward.leases.extract_if(|_, (held, _)| matches!(held.status(), Status::Lost(_)));
        let ended = lost.filter_map(|(lease, _)| lock(&self.outage).lost(lease)).last();
        for (held, due) in ward.leases.values_mut().filter(|(_, due)| *due <= now) {
            let retry_after = held.lease.ttl.renewal_interval() / 2;
            *due = now + held.lease.ttl.renewal_interval();
            let (shared, held) = (Arc::clone(self), Arc::clone(held));
            running.spawn(async move {
                let deadline = Deadline::after(held.lease.ttl.renewal_interval());
                let id = held.lease.id();
                match held.renew(&*shared.service, deadline).await {
                    Ok(()) => {
                        let is_lost = matches!(held.status(), Status::Lost(_));
                        let mut outage = lock(&shared.outage);
                        let ended = if is_lost { outage.lost(id) } else { outage.renewed(id) };
                        drop(outage);
                        tell_of_end(ended);
                    }
                    Err(error) => {
                        // One that was given back meanwhile is nobody's trouble.
                        let begins = lock(&shared.ward).leases.get_mut(&id).map(|(_, due)| {
                            *due = (*due).min(Instant::now() + retry_after);
                            lock(&shared.outage).failed(id)
                        });
                        match begins {
                            Some(true) => {
                                tracing::warn!(%error, lease = %id, "a lease could not be renewed; trying again");
                            }
                            Some(false) => tracing::debug!(%error, lease = %id, "a lease could not be renewed again"),
                            None => {}
                        }
                        shared.sooner.notify_one();
                    }
                }
            });
        }
        drop(ward);
        tell_of_end(ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leases<const N: usize>() -> [LeaseId; N] {
        std::array::from_fn(|_| LeaseId::random())
    }

    #[test]
    fn an_outage_is_told_when_it_begins_and_when_it_ends() {
        let [one, other] = leases();
        let mut outage = Outage::default();
        assert_eq!(outage.renewed(one), None, "what works is not worth a word");
        assert!(outage.failed(one));
        assert!(!outage.failed(one) && !outage.failed(other) && !outage.failed(one));
        assert_eq!(outage.renewed(other), None, "one still fails");
        assert_eq!(outage.renewed(one).unwrap().0, Ended::Renewed { lost: 0 });
        assert!(outage.failed(one), "another outage");
    }

    #[test]
    fn what_is_lost_in_an_outage_is_counted_at_its_end() {
        let [one, other, third] = leases();
        let mut outage = Outage::default();
        assert_eq!(outage.lost(one), None, "it was taken, and no renewal failed");
        assert!(outage.failed(one) && !outage.failed(other));
        assert_eq!((outage.lost(one), outage.lost(one), outage.lost(third)), (None, None, None));
        assert_eq!(outage.renewed(other).unwrap().0, Ended::Renewed { lost: 1 });
        assert!(outage.failed(one));
        assert_eq!(outage.lost(one).unwrap().0, Ended::Lost { lost: 1 });
        // Given back, it is nobody's any more.
        assert!(outage.failed(one) && !outage.failed(other));
        assert_eq!((outage.forgotten(one), outage.forgotten(other)), (None, None));
        assert!(outage.failed(third), "it is over");
    }
}
