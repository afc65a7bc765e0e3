//! This process as the others see it: a session, the key that it locks, and the mailboxes beside that key.
//!
//! Consul ends a session that was not renewed for its TTL: not before that, and at the latest twice as late. The key
//! goes with it, and whatever this process held or waited for is anybody's. So is what it holds when it cannot renew
//! for so long: it judges that by its own clock, before Consul can, and tells its holders.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mutext_contract::{EngineError, HolderId, TroubleKind};
use mutext_reach::Pause;
use tokio::time::{Instant, sleep, timeout_at};

use crate::http::{LONGEST_PAUSE, lock};
use crate::keys::Keys;
use crate::kv::{Consul, Found, Outcome, Step};
use crate::trouble;

/// How long one question for news lasts. Consul answers at once when there is some.
const LISTEN: Duration = Duration::from_secs(30);
/// How long renewing or beginning a session may take before it is tried again.
const PATIENCE: Duration = Duration::from_secs(3);
/// The most mailboxes that a new session clears away.
const SWEPT_MAX: usize = 32;

/// A home: who this process is, for as long as its session lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home {
    /// Names it in the lock tables.
    pub(crate) id: Arc<str>,
    pub(crate) session: Arc<str>,
}

/// What the rest of the engine hears of.
#[derive(Debug)]
pub(crate) enum Event {
    /// What lies in a mailbox of this process now.
    Rang(Found),
    /// The session of this home is no more; what was held under it is lost.
    Lost(Arc<str>),
}

#[derive(Debug)]
struct State {
    home: Home,
    /// Until when Consul cannot have ended the session for want of renewal.
    good_until: Instant,
}

/// Makes homes and keeps them.
pub(crate) struct Homes {
    consul: Consul,
    keys: Arc<Keys>,
    subject: Arc<str>,
    ttl: Duration,
    lock_delay: Duration,
    state: Mutex<Option<State>>,
    /// One session is enough, whoever finds that there is none.
    making: tokio::sync::Mutex<()>,
    tell: Box<dyn Fn(Event) + Send + Sync>,
}

impl Homes {
    pub(crate) fn new(
        consul: Consul,
        keys: Arc<Keys>,
        subject: Arc<str>,
        (ttl, lock_delay): (Duration, Duration),
        tell: impl Fn(Event) + Send + Sync + 'static,
    ) -> Self {
        let (state, making, tell) = (Mutex::default(), tokio::sync::Mutex::default(), Box::new(tell));
        Self { consul, keys, subject, ttl, lock_delay, state, making, tell }
    }

    /// The home, where there is one.
    pub(crate) fn current(&self) -> Option<Home> {
        let state = lock(&self.state);
        state.as_ref().filter(|state| Instant::now() < state.good_until).map(|state| state.home.clone())
    }

    /// The home; begins a session where there is none. On the engine's own runtime.
    pub(crate) async fn ensure(self: &Arc<Self>) -> Result<Home, EngineError> {
        if let Some(home) = self.current() {
            return Ok(home);
        }
        let _turn = self.making.lock().await;
        if let Some(home) = self.current() {
            return Ok(home);
        }
        let asked = Instant::now();
        let explain = |trouble| trouble::explain(&self.subject, trouble);
        let session = self.consul.begin_session(self.ttl, self.lock_delay, PATIENCE).await.map_err(explain)?;
        let home = Home { id: HolderId::random().to_string().into(), session: session.into() };
        let locked = [Step::Lock { key: self.keys.alive(&home.id), session: &home.session }];
        if let Outcome::Undone { steps } = self.consul.transact(&locked, PATIENCE).await.map_err(explain)? {
            let kind = TroubleKind::Failed(format!("a new session could not lock a new key: {steps:?}"));
            return Err(EngineError::new(&*self.subject, kind, ""));
        }
        *lock(&self.state) = Some(State { home: home.clone(), good_until: asked + self.ttl });
        tokio::spawn(Arc::clone(self).keep(home.clone()));
        tokio::spawn(Arc::clone(self).sweep(home.clone()));
        Ok(home)
    }

    /// Removes mailboxes of processes that are gone: news may have been put there after their end.
    async fn sweep(self: Arc<Self>, home: Home) {
        let homes = self.keys.homes();
        let Ok(names) = self.consul.names(&homes, PATIENCE).await else { return };
        let parts = names.iter().filter_map(|name| name.strip_prefix(&homes)?.split_once('/'));
        let (mut alive, mut left) = (BTreeSet::new(), BTreeSet::new());
        for (id, rest) in parts {
            if rest == "alive" {
                alive.insert(id)
            } else {
                left.insert(id)
            };
        }
        for gone in left.difference(&alive).take(SWEPT_MAX) {
            let session = &*home.session;
            let steps =
                [Step::Lock { key: self.keys.alive(gone), session }, Step::Remove { prefix: self.keys.home(gone) }];
            if let Err(error) = self.consul.transact(&steps, PATIENCE).await {
                tracing::debug!(%error, "the mailbox of a process that is gone stays for now");
                return;
            }
        }
    }

    /// Keeps one home for as long as it lasts, and says when it is lost.
    async fn keep(self: Arc<Self>, home: Home) {
        tokio::select! {
            () = self.renew(&home) => {}
            () = self.listen(&home) => {}
        }
        self.lose(&home);
        // Where it still is there, nobody needs to wait for its end.
        let _ = self.consul.end_session(&home.session, PATIENCE).await;
    }

    /// The home is gone: its holders are told.
    pub(crate) fn lose(&self, home: &Home) {
        let mut state = lock(&self.state);
        if state.as_ref().is_some_and(|state| state.home == *home) {
            *state = None;
            drop(state);
            tracing::warn!(consul = &*self.subject, "the session is no more: what this process held is lost");
            (self.tell)(Event::Lost(Arc::clone(&home.id)));
        }
    }

    fn good_until(&self, home: &Home) -> Option<Instant> {
        lock(&self.state).as_ref().filter(|state| state.home == *home).map(|state| state.good_until)
    }

    /// Renews the session until it cannot any more.
    async fn renew(&self, home: &Home) {
        sleep(self.ttl / 3).await;
        let mut pause = Pause::up_to(LONGEST_PAUSE);
        while let Some(good_until) = self.good_until(home) {
            let asked = Instant::now();
            match timeout_at(good_until, self.consul.renew_session(&home.session, PATIENCE)).await {
                Err(_) | Ok(Ok(false)) => return,
                Ok(Ok(true)) => {
                    if let Some(state) = lock(&self.state).as_mut().filter(|state| state.home == *home) {
                        state.good_until = asked + self.ttl;
                    }
                    pause = Pause::up_to(LONGEST_PAUSE);
                    sleep(self.ttl / 3).await;
                }
                Ok(Err(error)) => {
                    tracing::info!(%error, "the session could not be renewed yet");
                    if timeout_at(good_until, pause.wait()).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Listens for news until the home's key is gone.
    async fn listen(&self, home: &Home) {
        let (prefix, alive) = (self.keys.home(&home.id), self.keys.alive(&home.id));
        let mut seen: HashMap<String, u64> = HashMap::new();
        let mut index = 0;
        let mut pause = Pause::up_to(LONGEST_PAUSE);
        loop {
            match self.consul.list(&prefix, index, LISTEN).await {
                Ok(listing) => {
                    pause = Pause::up_to(LONGEST_PAUSE);
                    if !listing.found.iter().any(|found| found.key == alive) {
                        return;
                    }
                    // One that went back is of another memory: everything is new.
                    index = if listing.index < index { 0 } else { listing.index };
                    for found in listing.found.into_iter().filter(|found| found.key != alive) {
                        if seen.insert(found.key.clone(), found.index) != Some(found.index) {
                            (self.tell)(Event::Rang(found));
                        }
                    }
                }
                Err(error) => {
                    tracing::info!(%error, "no news from Consul for now");
                    pause.wait().await;
                }
            }
        }
    }

    /// Ends the session of a process that holds nothing.
    pub(crate) async fn leave(&self) {
        let Some(home) = lock(&self.state).take().map(|state| state.home) else { return };
        let removed = [Step::Remove { prefix: self.keys.home(&home.id) }];
        let _ = self.consul.transact(&removed, PATIENCE).await;
        let _ = self.consul.end_session(&home.session, PATIENCE).await;
    }
}
