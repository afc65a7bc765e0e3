//! What this process waits for and holds: where pushed news meet those who wait for it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mutext_contract::{Claim, ContextName, LeaseId, LockRequest};
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;

use crate::link::{Live, lock};
use crate::records::{State, Tended};
use crate::turns::Slot;

/// How often a process looks after its waiters by itself, whatever it is told.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How many losses wait for whoever listens.
const LOSSES_KEPT: usize = 1024;

/// How many losses are remembered, so that nobody is told of one twice.
const LOSSES_REMEMBERED: usize = 64;

/// What a waiter is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// It holds the lock; and how long ago the server granted it, where that was pushed.
    Granted {
        epoch: u64,
        count: u64,
        handed_over_after: Option<Duration>,
    },
    Ended,
    /// The server does not know it any more, or has begun anew: ask again.
    AskAgain,
}

enum Entry {
    /// Asked, and perhaps in the queue.
    Attempt(Attempt),
    /// Its asker has gone; what was asked may be under way yet.
    Left(Option<UnderWay>),
    /// A lease that is ours, and what it covers where that is one claim: what releases it quickly.
    Held(Option<Arc<[Claim]>>),
}

/// A question that may not have reached the server yet.
pub(crate) struct UnderWay {
    /// What is asked on this connection later comes after it, where it went by itself.
    pub(crate) live: Arc<Live>,
    /// Where it went with others: what tells that it has been answered.
    pub(crate) slot: Option<Arc<Slot>>,
}

struct Attempt {
    under_way: Option<UnderWay>,
    news: Option<News>,
    /// Its place in the queue, once it has one.
    place: Option<Place>,
    told: Arc<Notify>,
}

struct Place {
    context: ContextName,
    /// Those who want the same are looked after together.
    wants: Arc<[Claim]>,
    /// Until when it was certainly not granted.
    waiting_at: Instant,
}

/// What is known of an id that is to be released.
pub(crate) enum Known {
    /// A lease that was granted to this process and taken.
    Held(Option<Arc<[Claim]>>),
    /// An attempt that may be under way.
    Left(Option<UnderWay>),
    /// Nothing: another process's, or an attempt that somebody still waits for.
    Other,
}

/// The server's clock as it was seen at one moment, to within half a round trip.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerClock {
    /// Since 1970.
    pub(crate) said: Duration,
    pub(crate) at: Instant,
}

impl ServerClock {
    /// How long ago `moment` of the server's clock was; none where one of the two clocks was set since.
    fn since(self, moment: Duration) -> Option<Duration> {
        let now = self.said + self.at.elapsed();
        let plausible = |ago: &Duration| *ago < Duration::from_secs(10);
        // What is too small to tell may come out below zero.
        let slightly = moment.checked_sub(now).is_some_and(|ahead| ahead < Duration::from_millis(5));
        if slightly { Some(Duration::ZERO) } else { now.checked_sub(moment).filter(plausible) }
    }
}

/// The attempts and leases of this process.
pub(crate) struct Board {
    entries: Mutex<HashMap<LeaseId, Entry>>,
    due: Mutex<Option<Instant>>,
    /// Whether every waiter must be looked after: a push may have been missed.
    all: Mutex<bool>,
    pub(crate) changed: Notify,
    clock: Mutex<Option<ServerClock>>,
    losses: broadcast::Sender<LeaseId>,
    /// Leases with spare tokens that somebody else asks for.
    wanted: broadcast::Sender<LeaseId>,
    /// The latest losses that were told, newest first.
    told: Mutex<VecDeque<LeaseId>>,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self {
            entries: Mutex::default(),
            due: Mutex::default(),
            all: Mutex::default(),
            changed: Notify::new(),
            clock: Mutex::default(),
            losses: broadcast::Sender::new(LOSSES_KEPT),
            wanted: broadcast::Sender::new(LOSSES_KEPT),
            told: Mutex::default(),
        }
    }

    pub(crate) fn losses(&self) -> broadcast::Receiver<LeaseId> {
        self.losses.subscribe()
    }

    pub(crate) fn wanted(&self) -> broadcast::Receiver<LeaseId> {
        self.wanted.subscribe()
    }

    /// What the server's clock said, and when. Nothing but the time of a hand-over is reckoned by it.
    pub(crate) fn set_clock(&self, clock: ServerClock) {
        *lock(&self.clock) = Some(clock);
    }

    /// The server's clock, where there is one server.
    pub(crate) fn clock(&self) -> Option<ServerClock> {
        *lock(&self.clock)
    }

    /// Expects news of an attempt from now on.
    pub(crate) fn expect(&self, id: LeaseId) -> Expected<'_> {
        let told = Arc::new(Notify::new());
        let attempt = Attempt { under_way: None, news: None, place: None, told: Arc::clone(&told) };
        lock(&self.entries).insert(id, Entry::Attempt(attempt));
        Expected { board: self, id, told, kept: false }
    }

    /// What `id` is to this process, which forgets it.
    pub(crate) fn take(&self, id: LeaseId) -> Known {
        let mut entries = lock(&self.entries);
        match entries.remove(&id) {
            Some(Entry::Held(claim)) => Known::Held(claim),
            Some(Entry::Left(under_way)) => Known::Left(under_way),
            Some(attempt @ Entry::Attempt(_)) => {
                entries.insert(id, attempt);
                Known::Other
            }
            None => Known::Other,
        }
    }

    /// A lease that was lost needs no release.
    pub(crate) fn forget(&self, id: LeaseId) {
        let mut entries = lock(&self.entries);
        if matches!(entries.get(&id), Some(Entry::Held(_))) {
            entries.remove(&id);
        }
    }

    /// Reads a pushed message.
    pub(crate) fn hear(&self, message: &str, clock_of: impl Fn(Option<&ContextName>) -> Option<ServerClock>) {
        let mut words = message.split(' ');
        let (what, id) = (words.next(), words.next().and_then(|id| id.parse::<LeaseId>().ok()));
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
        match (what, id) {
            (Some("G"), Some(id)) => {
                if let (Some(epoch), Some(count), Some(sec), Some(usec)) = (number(), number(), number(), number()) {
                    let at = Duration::from_secs(sec) + Duration::from_micros(usec);
                    let context = match lock(&self.entries).get(&id) {
                        Some(Entry::Attempt(attempt)) => attempt.place.as_ref().map(|place| place.context.clone()),
                        _ => None,
                    };
                    let handed_over_after = clock_of(context.as_ref()).and_then(|clock| clock.since(at));
                    self.tell(id, News::Granted { epoch, count, handed_over_after });
                }
            }
            (Some("E"), Some(id)) => self.tell(id, News::Ended),
            // Nobody has to listen.
            (Some("W"), Some(id)) => drop(self.wanted.send(id)),
            (Some("L"), Some(id)) => {
                self.forget(id);
                let mut told = lock(&self.told);
                if told.contains(&id) {
                    // Each node of a cluster hears what is told on any.
                    return;
                }
                told.truncate(LOSSES_REMEMBERED - 1);
                told.push_front(id);
                // Nobody has to listen.
                let _ = self.losses.send(id);
            }
            _ => tracing::warn!(message, "a message that no release of Mutext sends"),
        }
    }

    fn tell(&self, id: LeaseId, news: News) {
        if let Some(Entry::Attempt(attempt)) = lock(&self.entries).get_mut(&id) {
            attempt.news = Some(news);
            attempt.told.notify_one();
        }
    }

    /// Looks after every waiter soon: the connection was gone for a while.
    pub(crate) fn look_after_all(&self) {
        *lock(&self.all) = true;
        self.look_by(Instant::now());
    }

    fn look_by(&self, at: Instant) {
        let mut due = lock(&self.due);
        if due.is_none_or(|due| at < due) {
            *due = Some(at);
            self.changed.notify_one();
        }
    }

    /// When somebody must be looked after, if anybody waits.
    pub(crate) fn due(&self) -> Option<Instant> {
        *lock(&self.due)
    }

    /// Who is to be looked after now, by context: of those who want the same the one who came first, or all of them
    /// after a push may have been missed.
    pub(crate) fn round(&self) -> HashMap<ContextName, Vec<LeaseId>> {
        let all = std::mem::take(&mut *lock(&self.all));
        *lock(&self.due) = None;
        let entries = lock(&self.entries);
        let mut first: HashMap<(&ContextName, &[Claim]), (Instant, LeaseId)> = HashMap::new();
        let mut round: HashMap<ContextName, Vec<LeaseId>> = HashMap::new();
        for (id, entry) in &*entries {
            let Entry::Attempt(Attempt { news: None, place: Some(place), .. }) = entry else { continue };
            let Place { context, wants, waiting_at: at } = place;
            if all {
                round.entry(context.clone()).or_default().push(*id);
                continue;
            }
            let kept = first.entry((context, wants)).or_insert((*at, *id));
            // Whoever was looked after longest ago: all of them have their turn.
            if *at < kept.0 {
                *kept = (*at, *id);
            }
        }
        for ((context, _), (_, id)) in first {
            round.entry(context.clone()).or_default().push(id);
        }
        round
    }

    /// Takes note of how waiters stood when they were asked for at `asked`.
    pub(crate) fn note(&self, tended: &Tended, asked: Instant) {
        for (id, state) in &tended.states {
            match state {
                State::Granted { epoch, count } => {
                    self.tell(*id, News::Granted { epoch: *epoch, count: *count, handed_over_after: None });
                }
                State::Ended => self.tell(*id, News::Ended),
                State::Missing => self.tell(*id, News::AskAgain),
                State::Waiting if tended.is_over => self.tell(*id, News::AskAgain),
                State::Waiting => {
                    if let Some(Entry::Attempt(attempt)) = lock(&self.entries).get_mut(id)
                        && let Some(place) = &mut attempt.place
                    {
                        place.waiting_at = place.waiting_at.max(asked);
                    }
                }
            }
        }
        let next = tended.next.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN);
        self.look_by(Instant::now() + next.max(Duration::from_millis(1)));
    }

    /// Another look soon, after one that failed.
    pub(crate) fn look_again(&self) {
        self.look_by(Instant::now() + LOOK_AGAIN);
    }
}

/// News that an asker expects. Dropped, it leaves a note for whoever releases the attempt.
pub(crate) struct Expected<'a> {
    board: &'a Board,
    id: LeaseId,
    told: Arc<Notify>,
    kept: bool,
}

impl Expected<'_> {
    fn with<T>(&self, change: impl FnOnce(&mut Attempt) -> T) -> Option<T> {
        match lock(&self.board.entries).get_mut(&self.id) {
            Some(Entry::Attempt(attempt)) => Some(change(attempt)),
            _ => None,
        }
    }

    /// It is asked for now.
    pub(crate) fn asks(&self, under_way: UnderWay) {
        self.with(|attempt| attempt.under_way = Some(under_way));
    }

    /// It queues since `asked`, and the first lease in its way runs out in `next`.
    pub(crate) fn queues(&self, request: &LockRequest, asked: Instant, next: Option<Duration>) {
        let (context, wants) = (request.context.clone(), Arc::clone(request.claims()));
        self.with(|attempt| {
            attempt.place = Some(Place { context, wants, waiting_at: asked });
            attempt.under_way = None;
        });
        let next = next.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN);
        self.board.look_by(Instant::now() + next.max(Duration::from_millis(1)));
    }

    /// The news, as soon as there is some.
    pub(crate) async fn news(&self) -> News {
        loop {
            if let Some(news) = self.with(|attempt| attempt.news.take()).flatten() {
                return news;
            }
            self.told.notified().await;
        }
    }

    /// Until when it was certainly not granted yet.
    pub(crate) fn waiting_at(&self) -> Option<Instant> {
        self.with(|attempt| attempt.place.as_ref().map(|place| place.waiting_at)).flatten()
    }

    /// It is a lease of this process.
    pub(crate) fn becomes_held(mut self, claim: Option<Arc<[Claim]>>) {
        self.kept = true;
        lock(&self.board.entries).insert(self.id, Entry::Held(claim));
    }

    /// There is nothing of it any more.
    pub(crate) fn ends(mut self) {
        self.kept = true;
        lock(&self.board.entries).remove(&self.id);
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        if !self.kept {
            let mut entries = lock(&self.board.entries);
            if let Some(Entry::Attempt(attempt)) = entries.remove(&self.id) {
                entries.insert(self.id, Entry::Left(attempt.under_way));
            }
        }
    }
}
