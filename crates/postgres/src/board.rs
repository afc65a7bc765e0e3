//! What this process waits for and holds: where news meet those who wait for them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mutext_contract::{Claim, ContextName, LeaseId, LockRequest};
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::Instant;

use crate::lock_rows::path_of;

/// How often a process looks after its waiters by itself, where it is told what changes.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// The same where nobody can tell it.
const LOOK_UNTOLD: Duration = Duration::from_millis(20);
/// Who holds for longer than this wants to be told where the lease is taken away; before it, a renewal finds out.
const HELD_LONG: Duration = Duration::from_millis(300);
/// How many losses wait for whoever listens, and how many leases that are wanted.
const LOSSES_KEPT: usize = 1024;

/// What a waiter is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// It holds the lock.
    Granted {
        number: (u64, u64),
        /// Until when it may be believed, where that was asked for.
        until: Option<Instant>,
        /// How long ago the server granted it, where that was pushed.
        handed_over_after: Option<Duration>,
    },
    Ended,
    /// The server does not know it any more, or has begun anew: ask again.
    AskAgain,
}

enum Entry {
    /// Asked, and perhaps in the queue.
    Attempt(Attempt),
    /// A lease that is ours.
    Held(Held),
}

impl Entry {
    /// Whether its process would want to be told what becomes of it.
    fn wants_to_be_told(&self) -> bool {
        match self {
            Self::Attempt(attempt) => attempt.place.is_some() || attempt.may_spare,
            Self::Held(held) => held.has_spare || held.since.elapsed() > HELD_LONG,
        }
    }
}

/// A lease of this process.
pub(crate) struct Held {
    pub(crate) context: ContextName,
    /// Its first path, and whether it has no other.
    pub(crate) path: String,
    pub(crate) alone: bool,
    pub(crate) since: Instant,
    /// Whether it has tokens to spare: then one must hear at once that somebody else asks for it.
    pub(crate) has_spare: bool,
}

/// Whether the process is told what changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ear {
    /// It has no session that could listen.
    Gone,
    /// It could listen.
    Idle,
    Listens,
}

struct Attempt {
    news: Option<News>,
    /// Whether it may be granted tokens to spare: whoever asks for the lease is heard, and nobody has been yet.
    may_spare: bool,
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
    /// A lease that was granted to this process, and its path where it has one alone.
    Held(Option<String>),
    /// Another process's, or an attempt that may be under way.
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
    /// Whether every waiter must be looked after: news may have been missed.
    all: AtomicBool,
    ear: watch::Sender<Ear>,
    pub(crate) changed: Notify,
    /// Somebody began to wait, or wants to be told something else.
    pub(crate) queued: Notify,
    /// Until when somebody wants to see whether the process is told.
    wanted: Mutex<Option<Instant>>,
    clock: Mutex<Option<ServerClock>>,
    losses: broadcast::Sender<LeaseId>,
    /// Leases with tokens to spare that somebody else asks for.
    asked_for: broadcast::Sender<LeaseId>,
    /// The last number that came by the process's own channel: so that one sees whether it is heard.
    echoes: watch::Sender<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    pub(crate) fn new() -> Self {
        Self {
            entries: Mutex::default(),
            due: Mutex::default(),
            all: AtomicBool::new(false),
            ear: watch::Sender::new(Ear::Gone),
            changed: Notify::new(),
            queued: Notify::new(),
            wanted: Mutex::default(),
            clock: Mutex::default(),
            losses: broadcast::Sender::new(LOSSES_KEPT),
            asked_for: broadcast::Sender::new(LOSSES_KEPT),
            echoes: watch::Sender::new(0),
        }
    }

    pub(crate) fn losses(&self) -> broadcast::Receiver<LeaseId> {
        self.losses.subscribe()
    }

    pub(crate) fn asked_for(&self) -> broadcast::Receiver<LeaseId> {
        self.asked_for.subscribe()
    }

    pub(crate) fn echoes(&self) -> watch::Receiver<u64> {
        self.echoes.subscribe()
    }

    /// What the server's clock said, and when. Nothing but the time of a hand-over is reckoned by it.
    pub(crate) fn set_clock(&self, clock: ServerClock) {
        *lock(&self.clock) = Some(clock);
    }

    /// There is a session that could listen.
    pub(crate) fn arrives(&self) {
        self.ear.send_replace(Ear::Idle);
    }

    /// The process is told what changes. Whoever waited while it was not is looked after at once.
    pub(crate) fn listens(&self) {
        self.ear.send_replace(Ear::Listens);
        self.look_at_all();
    }

    /// The process listens no more, unless somebody wants to be told something by now; whether it is so.
    pub(crate) fn rests(&self) -> bool {
        // Whoever asks for tokens to spare says so under the same lock, and looks afterwards whether the process listens.
        let entries = lock(&self.entries);
        if self.examiner_wants() || entries.values().any(Entry::wants_to_be_told) {
            return false;
        }
        self.ear.send_replace(Ear::Idle);
        drop(entries);
        self.look_at_all();
        true
    }

    /// The session that listened is gone. Whatever has tokens to spare may be asked for, and nobody would hear it.
    pub(crate) fn is_cut_off(&self) {
        let mut entries = lock(&self.entries);
        self.ear.send_replace(Ear::Gone);
        for (id, entry) in &mut *entries {
            self.is_asked_for(*id, entry);
        }
        drop(entries);
        self.look_at_all();
    }

    fn look_at_all(&self) {
        self.all.store(true, Ordering::Relaxed);
        self.look_by(Instant::now());
    }

    /// Somebody else wants what `entry` has, or is about to have, tokens to spare for.
    fn is_asked_for(&self, id: LeaseId, entry: &mut Entry) {
        match entry {
            Entry::Attempt(attempt) => attempt.may_spare = false,
            // Nobody has to listen.
            Entry::Held(held) if held.has_spare => drop(self.asked_for.send(id)),
            Entry::Held(_) => {}
        }
    }

    /// Asks to be told for a while, though nobody waits.
    pub(crate) fn want(&self, lasts: Duration) {
        *lock(&self.wanted) = Some(Instant::now() + lasts);
        self.queued.notify_one();
    }

    /// Whether there is anything that the process would want to be told.
    pub(crate) fn wants_to_be_told(&self) -> bool {
        let examined = self.examiner_wants();
        examined || lock(&self.entries).values().any(Entry::wants_to_be_told)
    }

    fn examiner_wants(&self) -> bool {
        lock(&self.wanted).is_some_and(|until| Instant::now() < until)
    }

    pub(crate) fn is_being_told(&self) -> bool {
        *self.ear.borrow() == Ear::Listens
    }

    fn interval(&self) -> Duration {
        if self.is_being_told() { LOOK_AGAIN } else { LOOK_UNTOLD }
    }

    /// Expects news of an attempt from now on.
    pub(crate) fn expect(&self, id: LeaseId) -> Expected<'_> {
        let told = Arc::new(Notify::new());
        let attempt = Attempt { news: None, may_spare: false, place: None, told: Arc::clone(&told) };
        lock(&self.entries).insert(id, Entry::Attempt(attempt));
        Expected { board: self, id, told, kept: false }
    }

    /// What `id` is to this process, which forgets it where it is a lease.
    pub(crate) fn take(&self, id: LeaseId) -> Known {
        let mut entries = lock(&self.entries);
        match entries.remove(&id) {
            Some(Entry::Held(held)) => Known::Held(held.alone.then_some(held.path)),
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
        if matches!(entries.get(&id), Some(Entry::Held(..))) {
            entries.remove(&id);
        }
    }

    /// The leases that this process has: where they lie, and the first path of each.
    pub(crate) fn held(&self) -> Vec<(ContextName, String, LeaseId)> {
        let entries = lock(&self.entries);
        let held = entries.iter().filter_map(|(id, entry)| match entry {
            Entry::Held(held) => Some((held.context.clone(), held.path.clone(), *id)),
            Entry::Attempt(_) => None,
        });
        held.collect()
    }

    /// These are no more, and it may be that nobody was told. Whoever releases one meanwhile need not be.
    pub(crate) fn were_lost(&self, leases: impl Iterator<Item = LeaseId>) {
        for id in leases {
            if matches!(lock(&self.entries).get(&id), Some(Entry::Held(_))) {
                self.forget(id);
                // Nobody has to listen.
                let _ = self.losses.send(id);
            }
        }
    }

    /// Reads what the server says; `asked` is when it was asked, where this is part of an answer.
    pub(crate) fn hear(&self, message: &str, asked: Option<Instant>) {
        let mut words = message.split(' ');
        let (what, id) = (words.next(), words.next());
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
        let lease = id.and_then(|id| id.parse::<LeaseId>().ok());
        match (what, lease, asked) {
            (Some("G"), Some(id), _) => {
                if let (Some(epoch), Some(counter), Some(micros)) = (number(), number(), number()) {
                    let clock = *lock(&self.clock);
                    let handed_over_after = clock.and_then(|clock| clock.since(Duration::from_micros(micros)));
                    self.tell(id, News::Granted { number: (epoch, counter), until: None, handed_over_after });
                }
            }
            (Some("H"), Some(id), Some(asked)) => {
                if let (Some(epoch), Some(counter), Some(left)) = (number(), number(), number()) {
                    let until = Some(asked + Duration::from_micros(left));
                    self.tell(id, News::Granted { number: (epoch, counter), until, handed_over_after: None });
                }
            }
            (Some("W"), Some(id), Some(asked)) => self.waits(id, asked),
            (Some("E"), Some(id), _) => self.tell(id, News::Ended),
            (Some("A"), Some(id), _) => self.tell(id, News::AskAgain),
            (Some("L"), Some(id), _) => {
                self.forget(id);
                // Nobody has to listen.
                let _ = self.losses.send(id);
            }
            (Some("K"), Some(id), _) => {
                if let Some(entry) = lock(&self.entries).get_mut(&id) {
                    self.is_asked_for(id, entry);
                }
            }
            (Some("T"), None, None) => {
                if let Some(number) = id.and_then(|number| number.parse().ok()) {
                    self.echoes.send_replace(number);
                }
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

    fn waits(&self, id: LeaseId, asked: Instant) {
        if let Some(Entry::Attempt(Attempt { place: Some(place), .. })) = lock(&self.entries).get_mut(&id) {
            place.waiting_at = place.waiting_at.max(asked);
        }
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

    /// Who is to be looked after now, by context, each with its first path: of those who want the same the one who was
    /// looked after longest ago; all of them where news may have been missed.
    pub(crate) fn round(&self) -> HashMap<ContextName, Vec<(LeaseId, String)>> {
        let all = self.all.swap(false, Ordering::Relaxed) || !self.is_being_told();
        *lock(&self.due) = None;
        let entries = lock(&self.entries);
        let mut first: HashMap<(&ContextName, &[Claim]), (Instant, LeaseId)> = HashMap::new();
        let mut round: HashMap<ContextName, Vec<(LeaseId, String)>> = HashMap::new();
        let path = |wants: &[Claim]| wants.first().map(|claim| path_of(&claim.resource).to_owned()).unwrap_or_default();
        for (id, entry) in &*entries {
            let Entry::Attempt(Attempt { news: None, place: Some(place), .. }) = entry else { continue };
            let Place { context, wants, waiting_at: at } = place;
            if all {
                round.entry(context.clone()).or_default().push((*id, path(wants)));
                continue;
            }
            let kept = first.entry((context, wants)).or_insert((*at, *id));
            if *at < kept.0 {
                *kept = (*at, *id);
            }
        }
        for ((context, wants), (_, id)) in first {
            round.entry(context.clone()).or_default().push((id, path(wants)));
        }
        round
    }

    /// Another look after the usual time, or once the first lease in the way has run out.
    pub(crate) fn look_again(&self, next: Option<Duration>) {
        let interval = self.interval();
        let next = next.unwrap_or(interval).clamp(Duration::from_millis(1), interval);
        self.look_by(Instant::now() + next);
    }
}

/// News that an asker expects.
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

    /// Sees to it that the process hears who asks for the lease, before that is granted; whether it will. That it begins
    /// to listen takes one round trip; it then goes on for a while.
    pub(crate) async fn hears_who_asks(&self, patience: Duration) -> bool {
        self.with(|attempt| attempt.may_spare = true);
        let mut ear = self.board.ear.subscribe();
        let listens = async {
            self.board.queued.notify_one();
            ear.wait_for(|ear| *ear != Ear::Idle).await.is_ok_and(|ear| *ear == Ear::Listens)
        };
        let hears = self.board.is_being_told() || tokio::time::timeout(patience, listens).await.unwrap_or(false);
        if !hears {
            self.with(|attempt| attempt.may_spare = false);
        }
        hears
    }

    /// It queues since `asked`, and the first lease in its way runs out in `next`.
    pub(crate) fn queues(&self, request: &LockRequest, asked: Instant, next: Option<Duration>) {
        let (context, wants) = (request.context.clone(), Arc::clone(request.claims()));
        self.with(|attempt| attempt.place = Some(Place { context, wants, waiting_at: asked }));
        self.board.queued.notify_one();
        self.board.look_again(next);
    }

    /// The news, as soon as there are some.
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

    /// It is a lease of this process; whether it has tokens to spare. Where somebody has asked for it meanwhile, nobody
    /// would be told so any more: they are left unused.
    pub(crate) fn becomes_held(mut self, mut held: Held) -> bool {
        self.kept = true;
        let mut entries = lock(&self.board.entries);
        held.has_spare &= matches!(entries.get(&self.id), Some(Entry::Attempt(attempt)) if attempt.may_spare);
        let has_spare = held.has_spare;
        entries.insert(self.id, Entry::Held(held));
        has_spare
    }
}

impl Drop for Expected<'_> {
    /// Nothing is expected of it any more. Whoever releases it then makes sure that it does not come back.
    fn drop(&mut self) {
        if !self.kept {
            lock(&self.board.entries).remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use mutext_contract::{AgentName, Holder, Ttl};

    use super::*;

    fn request() -> LockRequest {
        let (context, anna) = (ContextName::new("board").unwrap(), Holder::new(AgentName::new("anna").unwrap()));
        LockRequest::exclusive(context, anna, Ttl::DEFAULT, "plan.md".parse().unwrap())
    }

    fn held(has_spare: bool) -> Held {
        let context = ContextName::new("board").unwrap();
        Held { context, path: "plan.md".to_owned(), alone: true, since: Instant::now(), has_spare }
    }

    #[tokio::test]
    async fn the_process_listens_as_long_as_it_has_tokens_to_spare() {
        let board = Board::new();
        board.arrives();
        let (plain, kept) = (request().lease, request().lease);
        assert!(!board.expect(plain).becomes_held(held(false)));
        assert!(!board.wants_to_be_told(), "of a lease that it has had for a moment");
        let expected = board.expect(kept);
        let listener = async {
            board.queued.notified().await;
            board.listens();
        };
        let (hears, ()) = tokio::join!(expected.hears_who_asks(Duration::from_secs(9)), listener);
        assert!(hears && !board.rests());
        assert!(expected.becomes_held(held(true)));
        assert!(!board.rests() && board.is_being_told());
        let mut asked_for = board.asked_for();
        for lease in [plain, kept] {
            board.hear(&format!("K {lease}"), None);
        }
        assert_eq!(asked_for.try_recv().unwrap(), kept);
        board.is_cut_off();
        assert_eq!(asked_for.try_recv().unwrap(), kept);
        board.take(kept);
        board.listens();
        assert!(board.rests() && !board.is_being_told());
    }

    #[tokio::test]
    async fn whoever_would_miss_that_its_lease_is_wanted_has_no_tokens_to_spare() {
        let board = Board::new();
        assert!(!board.expect(request().lease).hears_who_asks(Duration::from_secs(9)).await, "nobody could listen");
        board.arrives();
        assert!(!board.expect(request().lease).hears_who_asks(Duration::from_millis(5)).await, "nobody listens");
        board.listens();
        let asked_for = |lease: LeaseId| board.hear(&format!("K {lease}"), None);
        let cut_off = |_| board.is_cut_off();
        let happenings: [&dyn Fn(LeaseId); 2] = [&asked_for, &cut_off];
        for happens in happenings {
            let (lease, mut heard) = (request().lease, board.asked_for());
            let expected = board.expect(lease);
            assert!(expected.hears_who_asks(Duration::from_secs(9)).await);
            happens(lease);
            assert!(!expected.becomes_held(held(true)));
            assert!(heard.try_recv().is_err());
        }
    }
}
