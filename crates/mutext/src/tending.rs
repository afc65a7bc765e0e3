//! Keeping a context small: what has expired is deleted, what need not be kept is forgotten.
//!
//! There is no daemon to do it, and it must not be done by each of hundreds of agents: whoever commits does it now and
//! then, by chance and by a clock of its own, and less and less often where it finds nothing left to do, because others
//! do it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mutext_contract::{ContextName, Deadline, Retention, Tended};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::{Context, Error};

/// One commit in so many is followed by tending: so a context is tended where every process ends after one commit.
const ONE_IN: f64 = 256.0;
/// How often a process that stays tends a context that it writes to, at first, at most and at least.
const INTERVAL: Duration = Duration::from_secs(10 * 60);
const INTERVAL_MIN: Duration = Duration::from_secs(60);
const INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);
/// How long, and how many steps, one turn takes at most.
const TURN: Duration = Duration::from_secs(10);
const STEPS: usize = 8;
/// How long a process that ends waits for a turn that it is in.
const FAREWELL: Duration = Duration::from_secs(1);
/// So many contexts are remembered at most.
const CONTEXTS_MAX: usize = 4096;

/// When which context is tended next by this process.
#[derive(Debug, Default)]
pub(crate) struct Tending {
    turns: Mutex<HashMap<ContextName, Turn>>,
    ended: Notify,
}

#[derive(Debug)]
struct Turn {
    /// No sooner than then by chance.
    earliest: Instant,
    /// Not later than with the first commit after this.
    due: Instant,
    interval: Duration,
    is_running: bool,
}

impl Tending {
    fn with<T>(&self, look: impl FnOnce(&mut HashMap<ContextName, Turn>) -> T) -> T {
        look(&mut self.turns.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a commit to this context is to be followed by tending; if so, that has begun. `dice` and `jitter` are
    /// from 0 to 1.
    fn begins(&self, context: &ContextName, now: Instant, dice: f64, jitter: f64) -> bool {
        self.with(|turns| {
            if turns.len() >= CONTEXTS_MAX && !turns.contains_key(context) {
                turns.retain(|_, turn| turn.is_running);
            }
            let turn = turns.entry(context.clone()).or_insert_with(|| Turn {
                earliest: now,
                due: now + INTERVAL.mul_f64(0.5 + jitter),
                interval: INTERVAL,
                is_running: false,
            });
            let by_chance = dice * ONE_IN < 1.0 && now >= turn.earliest;
            let begins = !turn.is_running && (by_chance || now >= turn.due);
            turn.is_running |= begins;
            begins
        })
    }

    /// A turn is over, and found something to do, or not.
    fn ends(&self, context: &ContextName, found: bool, now: Instant, jitter: f64) {
        self.with(|turns| {
            let Some(turn) = turns.get_mut(context) else { return };
            turn.interval = if found { turn.interval / 2 } else { turn.interval * 2 };
            turn.interval = turn.interval.clamp(INTERVAL_MIN, INTERVAL_MAX);
            (turn.earliest, turn.due) = (now + INTERVAL_MIN, now + turn.interval.mul_f64(0.5 + jitter));
            turn.is_running = false;
        });
        self.ended.notify_waiters();
    }

    /// Ready once no turn is under way, or soon.
    pub(crate) async fn finish(&self) {
        let until = Deadline::after(FAREWELL).instant();
        loop {
            let ended = self.ended.notified();
            if !self.with(|turns| turns.values().any(|turn| turn.is_running)) {
                return;
            }
            if tokio::time::timeout_at(until, ended).await.is_err() {
                return;
            }
        }
    }
}

/// Ends the turn also where its task is dropped half-way.
struct Running {
    tending: Arc<Tending>,
    context: ContextName,
    found: bool,
}

impl Running {
    fn found(&mut self, tended: Tended) {
        self.found = tended != Tended::default();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tending.ends(&self.context, self.found, Instant::now(), rand::random_range(0.0..1.0));
    }
}

impl Context {
    /// Deletes what has expired (nobody could read it since that moment), and forgets the past revisions that
    /// [`Settings::retention`](crate::Settings::retention) does not keep: all of it, or as much as the patience allows.
    ///
    /// Whoever commits does a bounded piece of the same now and then, in the background.
    pub async fn tend(&self) -> Result<Tended, Error> {
        self.tend_as(&self.settings().retention).await
    }

    /// The same with another retention than this context's.
    pub async fn tend_as(&self, retention: &Retention) -> Result<Tended, Error> {
        self.tend_by(retention, self.deadline(), usize::MAX).await
    }

    async fn tend_by(&self, retention: &Retention, deadline: Deadline, steps: usize) -> Result<Tended, Error> {
        let mut all = Tended::default();
        for _ in 0..steps {
            let step = self.store().tend(self.name(), retention, deadline).await?;
            all.expired += step.expired;
            all.forgotten += step.forgotten;
            if step == Tended::default() || deadline.has_passed() {
                break;
            }
        }
        Ok(all)
    }

    /// After a commit: now and then, a bounded piece of upkeep behind the answer.
    pub(crate) fn tend_now_and_then(&self) {
        let (tending, jitter) = (self.tending(), rand::random_range(0.0..1.0));
        if !tending.begins(self.name(), Instant::now(), rand::random_range(0.0..1.0), jitter) {
            return;
        }
        let mut running = Running { tending: Arc::clone(tending), context: self.name().clone(), found: false };
        let context = self.same();
        tokio::spawn(async move {
            let deadline = Deadline::after(TURN);
            match context.tend_by(&context.settings().retention, deadline, STEPS).await {
                Ok(tended) => {
                    running.found(tended);
                    tracing::debug!(context = %context.name(), ?tended, "tended");
                }
                // Nobody waits for it, and the next one does it.
                Err(error) => tracing::debug!(context = %context.name(), %error, "could not be tended"),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: f64 = 0.999;

    fn context(name: &str) -> ContextName {
        ContextName::new(name).unwrap()
    }

    #[test]
    fn one_commit_in_many_is_followed_by_tending_but_not_soon_again() {
        let (tending, c) = (Tending::default(), context("c"));
        let now = Instant::now();
        assert!(!tending.begins(&c, now, NEVER, 0.5));
        assert!(tending.begins(&c, now, 0.001, 0.5));
        assert!(!tending.begins(&c, now, 0.001, 0.5), "one turn at a time");
        tending.ends(&c, true, now, 0.5);
        assert!(!tending.begins(&c, now + Duration::from_secs(59), 0.001, 0.5));
        assert!(tending.begins(&c, now + Duration::from_secs(60), 0.001, 0.5));
    }

    #[test]
    fn a_process_that_stays_tends_by_its_clock_and_less_often_where_nothing_is_left_to_do() {
        let (tending, c) = (Tending::default(), context("c"));
        let mut now = Instant::now();
        assert!(!tending.begins(&c, now, NEVER, 0.5));
        for found in [false, false, false, true, true] {
            now += tending.with(|turns| turns[&c].due).duration_since(now);
            assert!(tending.begins(&c, now, NEVER, 0.5));
            tending.ends(&c, found, now, 0.5);
        }
        let interval = tending.with(|turns| turns[&c].interval);
        assert_eq!(interval, INTERVAL_MAX / 4);
    }

    #[test]
    fn a_bounded_number_of_contexts_is_remembered() {
        let tending = Tending::default();
        for number in 0..3 * CONTEXTS_MAX {
            tending.begins(&context(&format!("c{number}")), Instant::now(), NEVER, 0.5);
        }
        assert!(tending.with(|turns| turns.len()) <= CONTEXTS_MAX);
    }

    #[tokio::test]
    async fn what_is_dropped_half_way_is_over() {
        let (tending, c) = (Arc::new(Tending::default()), context("c"));
        assert!(tending.begins(&c, Instant::now(), 0.0, 0.5));
        drop(Running { tending: Arc::clone(&tending), context: c, found: false });
        tending.finish().await;
        assert!(tending.with(|turns| turns.values().all(|turn| !turn.is_running)));
    }

    #[tokio::test]
    async fn whoever_commits_when_it_is_due_forgets_what_need_not_be_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mutext = crate::Mutext::open(&crate::Address::embedded(dir.path()), None).await.unwrap();
        let mut settings = crate::Settings::new("anna".try_into().unwrap());
        settings.retention.revisions = Some(1);
        let anna = mutext.context("c", settings).unwrap();
        let write = async |text: &str| anna.put("plan.md", text, mutext_contract::Precondition::Any).await.unwrap();
        for text in ["1", "2", "3"] {
            write(text).await;
        }
        anna.tending().with(|turns| turns.values_mut().for_each(|turn| turn.due = Instant::now()));
        write("4").await;
        mutext.finish().await;
        let history = anna.history("plan.md", None, 9).await.unwrap();
        assert_eq!(history.iter().map(|past| past.revision.0).collect::<Vec<_>>(), [4]);
        assert!(anna.tending().with(|turns| turns[anna.name()].due) > Instant::now());
    }
}
