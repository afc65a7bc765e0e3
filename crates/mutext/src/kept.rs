//! Leases that stay with an agent from one lock to the next.
//!
//! Whoever takes the same lock again and again while nobody else wants it need not ask for it each time. Its lease comes
//! with tokens to spare, so that each time has one of its own and the store tells them apart as if each had been granted
//! anew; and the engine tells as soon as somebody else asks, upon which the lease is given back. It is kept for a
//! moment only, so that a table of locks shows what is in use.
//!
//! After the callbacks of J. Howard et al., "Scale and Performance in a Distributed File System" (1988).

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mutext_contract::{Claim, FencingToken, Grant, Lease, LeaseId, LockRequest, Ttl};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::keeper::{Keeper, Left};

/// How soon an agent comes back for a lock that it is worth keeping for.
const SOON: Duration = Duration::from_millis(2);
/// So many times in a row it has come back so soon before it keeps one.
const HABIT: u32 = 3;
/// So many tokens to spare are asked for.
const SPARE: u32 = 1023;
/// How long a lease is passed on at most, from its grant on: word of others who want it may be lost.
const TURN: Duration = Duration::from_millis(100);

/// Which lock an agent took last, and how often in a row.
#[derive(Debug, Default)]
pub(crate) struct Habit {
    last: Mutex<Option<Last>>,
}

#[derive(Debug)]
struct Last {
    claims: Arc<[Claim]>,
    ttl: Ttl,
    reason: Option<String>,
    /// Since when it is not held any more.
    left: Option<Instant>,
    /// How often it came back for it at once.
    times: u32,
    kept: Option<Arc<Kept>>,
    /// Ends when its last lease is given back.
    giving_back: Option<oneshot::Receiver<()>>,
}

impl Last {
    fn is_for(&self, request: &LockRequest) -> bool {
        self.claims == *request.claims() && self.ttl == request.ttl && self.reason == request.reason
    }
}

/// What is to be done for a request.
pub(crate) enum Next {
    /// The lease is here already.
    Here(Lease, Arc<Kept>),
    /// The engine is to be asked, for so many tokens to spare, once what was kept until now is given back.
    Ask { spare: u32, after: Option<oneshot::Receiver<()>> },
}

impl Habit {
    /// What is to be done for `request`. `is_named` says that its lease must have the name that it gives.
    pub(crate) fn next(&self, request: &LockRequest, is_named: bool, keeper: &Keeper) -> Next {
        let now = Instant::now();
        let mut last = lock(&self.last);
        let Some(same) = last.as_mut().filter(|last| last.is_for(request)) else {
            let (claims, ttl, reason) = (Arc::clone(request.claims()), request.ttl, request.reason.clone());
            let new = Last { claims, ttl, reason, left: None, times: 0, kept: None, giving_back: None };
            let old = last.replace(new).and_then(|last| last.kept);
            return Next::Ask { spare: 0, after: old.and_then(|kept| kept.give_back()) };
        };
        let at_once = same.left.take().is_some_and(|left| now.saturating_duration_since(left) < SOON);
        same.times = if at_once { same.times.saturating_add(1) } else { 0 };
        let kept = same.kept.take();
        if !is_named
            && let Some(kept) = &kept
            && let Some(lease) = kept.again(now)
        {
            same.kept = Some(Arc::clone(kept));
            return Next::Here(lease, Arc::clone(kept));
        }
        let is_habit = same.times >= HABIT && !is_named && keeper.tells_who_wants();
        let after = kept.and_then(|kept| kept.give_back()).or_else(|| same.giving_back.take());
        Next::Ask { spare: if is_habit { SPARE } else { 0 }, after }
    }

    /// The engine has granted `request`. Where it spares tokens, the lease may stay here from now on.
    pub(crate) fn granted(
        &self,
        request: &LockRequest,
        Grant { lease, spare, queued, .. }: &Grant,
        keeper: &Keeper,
    ) -> Option<Arc<Kept>> {
        let mut last = lock(&self.last);
        let last = last.as_mut().filter(|last| last.is_for(request))?;
        if *queued {
            // Others want it.
            last.times = 0;
        }
        if *spare == 0 {
            return None;
        }
        let kept = Kept::new(lease.clone(), *spare, keeper.clone());
        last.kept = Some(Arc::clone(&kept));
        Some(kept)
    }

    /// What covers `claims` is not needed for now. Whether its lease, if it is `kept`, stays here; it is good until
    /// `valid_until` then.
    pub(crate) fn leaves(&self, claims: &Arc<[Claim]>, kept: Option<(&Arc<Kept>, Instant)>) -> bool {
        let now = Instant::now();
        let mut last = lock(&self.last);
        let Some(last) = last.as_mut().filter(|last| last.claims == *claims) else { return false };
        last.left = Some(now);
        let Some((kept, valid_until)) = kept else { return false };
        last.kept.as_ref().is_some_and(|own| Arc::ptr_eq(own, kept)) && kept.lay_down(valid_until, now)
    }

    /// What covers `claims` is being given back, until `given_back` ends: who asks for it again before that would queue
    /// behind itself.
    pub(crate) fn gives_back(&self, claims: &Arc<[Claim]>, given_back: oneshot::Receiver<()>) {
        if let Some(last) = lock(&self.last).as_mut().filter(|last| last.claims == *claims) {
            last.giving_back = Some(given_back);
        }
    }
}

/// A lease with tokens to spare, from its grant until it is given back for good.
pub(crate) struct Kept {
    keeper: Keeper,
    id: LeaseId,
    /// The first and the last counter that are its own.
    first: u64,
    last: u64,
    since: Instant,
    state: Mutex<State>,
}

struct State {
    /// With the token of its latest use.
    lease: Lease,
    place: Place,
    /// Whether somebody else has asked for it.
    wanted: bool,
    /// Whether it was taken away, or may have been, while a guard had it.
    may_be_lost: bool,
    /// When it was used last.
    used: Instant,
    /// Whether a look at it is due anyway.
    watched: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A guard holds it.
    InHand,
    /// It waits for its agent to come back.
    Idle,
    /// It is given back, or lost.
    Gone,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("id", &self.id).field("place", &lock(&self.state).place).finish_non_exhaustive()
    }
}

impl Kept {
    /// One that is in its agent's hand.
    fn new(lease: Lease, spare: u32, keeper: Keeper) -> Arc<Self> {
        let (now, id, first) = (Instant::now(), lease.id(), lease.token.counter);
        let state = State { lease, place: Place::InHand, wanted: false, may_be_lost: false, used: now, watched: false };
        let last = first + u64::from(spare);
        let kept = Arc::new(Self { keeper, id, first, last, since: now, state: Mutex::new(state) });
        if kept.keeper.keeps(id, Arc::downgrade(&kept)) {
            lock(&kept.state).wanted = true;
        }
        kept
    }

    /// Whether the engine was asked for the lease under this token.
    pub(crate) const fn was_asked_for(&self, token: FencingToken) -> bool {
        token.counter == self.first
    }

    /// The lease under its next token, if it may still be believed for a while and nobody else wants it.
    fn again(&self, now: Instant) -> Option<Lease> {
        let mut state = lock(&self.state);
        let left = state.lease.valid_until.saturating_duration_since(now);
        let good = state.place == Place::Idle && left >= state.lease.ttl.renewal_interval();
        if !good || !self.may_stay(&state, now) {
            return None;
        }
        state.lease.token.counter += 1;
        state.place = Place::InHand;
        Some(state.lease.clone())
    }

    fn may_stay(&self, state: &State, now: Instant) -> bool {
        !state.wanted && now.saturating_duration_since(self.since) < TURN && state.lease.token.counter < self.last
    }

    /// Its guard is gone: whether it stays for the next.
    fn lay_down(self: &Arc<Self>, valid_until: Instant, now: Instant) -> bool {
        let mut state = lock(&self.state);
        if state.place != Place::InHand || !self.may_stay(&state, now) {
            self.ends(&mut state);
            return false;
        }
        (state.place, state.used, state.lease.valid_until) = (Place::Idle, now, valid_until);
        if !state.watched {
            state.watched = true;
            self.watch(now + SOON);
        }
        true
    }

    /// Looks at `when` whether it is still in use.
    fn watch(self: &Arc<Self>, when: Instant) {
        let kept = Arc::downgrade(self);
        self.keeper.soon(when, move || {
            let Some(kept) = kept.upgrade() else { return };
            let mut state = lock(&kept.state);
            let next = state.used + SOON;
            match state.place {
                Place::Idle if Instant::now() < next => kept.watch(next),
                Place::Idle => drop(kept.hand_in(&mut state)),
                // Whoever lays it down has it watched again.
                Place::InHand | Place::Gone => state.watched = false,
            }
        });
    }

    /// Somebody else asks for it.
    pub(crate) fn is_wanted(&self) {
        let mut state = lock(&self.state);
        state.wanted = true;
        if state.place == Place::Idle {
            drop(self.hand_in(&mut state));
        }
    }

    /// It was taken away, or that may be (`certainly` or not). One in hand finds out by itself.
    pub(crate) fn is_lost(&self, certainly: bool) {
        let mut state = lock(&self.state);
        state.wanted = true;
        match state.place {
            Place::Idle if certainly => self.ends(&mut state),
            Place::Idle => drop(self.hand_in(&mut state)),
            Place::InHand => state.may_be_lost = true,
            Place::Gone => {}
        }
    }

    /// Whether there has been word that it was taken away, or may have been.
    pub(crate) fn may_be_lost(&self) -> bool {
        lock(&self.state).may_be_lost
    }

    /// Whoever has it in hand gives it back, or puts another in its place.
    pub(crate) fn is_given_back(&self) {
        self.ends(&mut lock(&self.state));
    }

    /// Gives it back, unless it is in hand: then whoever has it does.
    pub(crate) fn give_back(&self) -> Option<oneshot::Receiver<()>> {
        let mut state = lock(&self.state);
        state.wanted = true;
        (state.place == Place::Idle).then(|| self.hand_in(&mut state))
    }

    fn hand_in(&self, state: &mut State) -> oneshot::Receiver<()> {
        self.ends(state);
        self.keeper.release(state.lease.context.clone(), self.id, Left::Perhaps)
    }

    fn ends(&self, state: &mut State) {
        state.place = Place::Gone;
        self.keeper.keeps_no_more(self.id);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.place == Place::Idle {
            self.keeper.release(state.lease.context.clone(), self.id, Left::Perhaps);
        }
        self.keeper.keeps_no_more(self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change under these locks is complete at each of its steps, so that a panic leaves nothing half-done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
