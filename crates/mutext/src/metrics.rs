//! What is measured of locks and commits, told through the `metrics` facade: whoever uses the library may install a
//! recorder of their own before opening, and pays next to nothing without one.
//!
//! Every label has few values: never a document's path, a holder or a lease. A context's name is a label only of what
//! [`Context::measure_queue`](crate::Context::measure_queue) is asked for.

#[cfg(feature = "prometheus")]
pub(crate) mod prometheus;
mod times;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use mutext_contract::{Acquisition, ContextName, EngineError, LockTable, Loss, Outcome, Refusal, Renewal, Wait};
use tokio::time::Instant;

pub use self::times::AcquisitionTimes;
use self::times::{End, Times};
use crate::adaptive::Switch;

const ACQUIRE: &str = "mutext_lock_acquire_seconds";
const ACQUIRED: &str = "mutext_locks_acquired_total";
const KEPT: &str = "mutext_locks_kept_total";
const QUEUED: &str = "mutext_locks_queued_total";
const TIMED_OUT: &str = "mutext_locks_timed_out_total";
const LOST: &str = "mutext_locks_lost_total";
const REVOKED: &str = "mutext_locks_revoked_total";
const HANDOVER: &str = "mutext_lock_handover_seconds";
const HOLD: &str = "mutext_lock_hold_seconds";
const RENEWALS: &str = "mutext_lock_renewals_total";
const ASKING: &str = "mutext_lock_requests_waiting";
const AHEAD: &str = "mutext_lock_queue_ahead";
const QUEUE_LENGTH: &str = "mutext_lock_queue_length";
const LEASES: &str = "mutext_lock_leases";
const COMMIT: &str = "mutext_commit_seconds";
const ATTEMPTS: &str = "mutext_update_attempts";
const SWITCHES: &str = "mutext_strategy_switches_total";

/// The numbers of one opened pair of engines. They go to the recorder that was installed when it was opened.
#[derive(Debug)]
pub(crate) struct Meter {
    engine: &'static str,
    times: Mutex<Times>,
    acquire: Acquire,
    acquired: Counter,
    kept: Counter,
    queued: Counter,
    timed_out: Counter,
    lost: Losses,
    revoked: Counter,
    handover: Histogram,
    hold: Histogram,
    renewals: Renewals,
    asking: Gauge,
    ahead: Histogram,
    commit: Commits,
    attempts: [[Histogram; 2]; 2],
    to_lease: Counter,
    to_compare_and_set: Counter,
}

#[derive(Debug)]
struct Acquire {
    at_once: Histogram,
    queued: Histogram,
    timed_out_at_once: Histogram,
    timed_out_queued: Histogram,
    deadlock: Histogram,
    failed: Histogram,
    cancelled: Histogram,
}

#[derive(Debug)]
struct Losses {
    expired: Counter,
    revoked: Counter,
    superseded: Counter,
    unconfirmed: Counter,
    gone: Counter,
    other: Counter,
}

#[derive(Debug)]
struct Renewals {
    renewed: Counter,
    lost: Counter,
    failed: Counter,
}

#[derive(Debug)]
struct Commits {
    committed: Histogram,
    conflict: Histogram,
    fenced: Histogram,
    key_reused: Histogram,
    erodes: Histogram,
    failed: Histogram,
}

impl Meter {
    /// For a lock engine and a document engine of these names.
    pub(crate) fn new(locks: &'static str, store: &'static str) -> Self {
        describe();
        let acquire =
            |outcome, queued| histogram!(ACQUIRE, "engine" => locks, "outcome" => outcome, "queued" => queued);
        let lost = |reason| counter!(LOST, "engine" => locks, "reason" => reason);
        let renewal = |outcome| counter!(RENEWALS, "engine" => locks, "outcome" => outcome);
        let commit = |outcome| histogram!(COMMIT, "engine" => store, "outcome" => outcome);
        let attempts = |strategy| {
            let of = |outcome| histogram!(ATTEMPTS, "outcome" => outcome, "strategy" => strategy);
            [of("committed"), of("exhausted")]
        };
        Self {
            engine: locks,
            times: Mutex::new(Times::new(Instant::now())),
            acquire: Acquire {
                at_once: acquire("granted", "false"),
                queued: acquire("granted", "true"),
                timed_out_at_once: acquire("timed_out", "false"),
                timed_out_queued: acquire("timed_out", "true"),
                deadlock: acquire("deadlock", "unknown"),
                failed: acquire("failed", "unknown"),
                cancelled: acquire("cancelled", "unknown"),
            },
            acquired: counter!(ACQUIRED, "engine" => locks),
            kept: counter!(KEPT, "engine" => locks),
            queued: counter!(QUEUED, "engine" => locks),
            timed_out: counter!(TIMED_OUT, "engine" => locks),
            lost: Losses {
                expired: lost("expired"),
                revoked: lost("revoked"),
                superseded: lost("superseded"),
                unconfirmed: lost("unconfirmed"),
                gone: lost("gone"),
                other: lost("other"),
            },
            revoked: counter!(REVOKED, "engine" => locks),
            handover: histogram!(HANDOVER, "engine" => locks),
            hold: histogram!(HOLD, "engine" => locks),
            renewals: Renewals { renewed: renewal("renewed"), lost: renewal("lost"), failed: renewal("failed") },
            asking: gauge!(ASKING, "engine" => locks),
            ahead: histogram!(AHEAD, "engine" => locks),
            commit: Commits {
                committed: commit("committed"),
                conflict: commit("conflict"),
                fenced: commit("fenced"),
                key_reused: commit("key_reused"),
                erodes: commit("erodes"),
                failed: commit("failed"),
            },
            attempts: [attempts("lease"), attempts("compare_and_set")],
            to_lease: counter!(SWITCHES, "strategy" => "lease"),
            to_compare_and_set: counter!(SWITCHES, "strategy" => "compare_and_set"),
        }
    }

    /// How long locks took to be had of late.
    pub(crate) fn acquisition_times(&self) -> AcquisitionTimes {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).read(Instant::now())
    }

    fn waited(&self, took: Duration, end: End, wait: Duration, now: Instant) {
        let told = self.times.lock().unwrap_or_else(PoisonError::into_inner).add(took, end, wait, now);
        let Some(seen) = told else { return };
        tracing::warn!(
            engine = self.engine,
            wait = ?wait,
            p99 = format_args!("{:.1?}", seen.p99),
            acquisitions = seen.count,
            timed_out = seen.timed_out,
            "the wait for locks is shorter than the time that 99 of 100 of them take to be had, so that requests time \
             out that a longer wait would serve: wait longer, hold locks for a shorter time, or lock less at once"
        );
    }

    /// A revocation made through this process.
    pub(crate) fn revoked(&self) {
        self.revoked.increment(1);
    }

    /// A lock taken again by an agent that still had its lease: nobody was asked.
    pub(crate) fn kept(&self) {
        self.kept.increment(1);
    }

    pub(crate) fn renewed(&self, answer: &Result<Renewal, EngineError>) {
        let renewals = &self.renewals;
        match answer {
            Ok(Renewal::Renewed { .. }) => &renewals.renewed,
            Ok(Renewal::Lost(_)) => &renewals.lost,
            Err(_) => &renewals.failed,
        }
        .increment(1);
    }

    pub(crate) fn committed(&self, took: Duration, answer: &Result<Outcome, EngineError>) {
        let commit = &self.commit;
        match answer {
            Ok(Outcome::Committed(_)) => &commit.committed,
            Ok(Outcome::Refused(Refusal::Conflict(_))) => &commit.conflict,
            Ok(Outcome::Refused(Refusal::Fenced(_) | Refusal::Revoked { .. })) => &commit.fenced,
            Ok(Outcome::Refused(Refusal::KeyReused { .. })) => &commit.key_reused,
            Ok(Outcome::Refused(Refusal::Erodes(_))) => &commit.erodes,
            Err(_) => &commit.failed,
        }
        .record(took);
    }

    /// An update that came to its end after so many attempts.
    pub(crate) fn updated(&self, under_lease: bool, committed: bool, attempts: u32) {
        self.attempts[usize::from(!under_lease)][usize::from(!committed)].record(f64::from(attempts));
    }

    /// A document whose updates go another way from now on.
    pub(crate) fn switched(&self, switch: Option<Switch>) {
        match switch {
            Some(Switch::ToLease) => self.to_lease.increment(1),
            Some(Switch::ToCompareAndSet) => self.to_compare_and_set.increment(1),
            None => {}
        }
    }

    /// A context's locks at this moment; the one place where its name is a label.
    pub(crate) fn inspected(&self, context: &ContextName, table: &LockTable) {
        let context = context.as_str().to_owned();
        gauge!(QUEUE_LENGTH, "context" => context.clone(), "engine" => self.engine).set(table.waiters.len() as f64);
        gauge!(LEASES, "context" => context, "engine" => self.engine).set(table.holdings.len() as f64);
    }
}

/// A request under way. Dropped before it was answered, it counts as cancelled.
pub(crate) struct Acquiring<'a> {
    meter: &'a Meter,
    asked: Instant,
    /// How long it was to wait; `None` where it takes no for an answer.
    wait: Option<Duration>,
    answered: bool,
}

impl<'a> Acquiring<'a> {
    pub(crate) fn start(meter: &'a Meter, wait: Option<Wait>, asked: Instant) -> Self {
        meter.asking.increment(1);
        Self { meter, asked, wait: wait.map(Wait::get), answered: false }
    }

    pub(crate) fn answered(mut self, answer: &Result<Acquisition, EngineError>) {
        self.answered = true;
        let (meter, took, acquire) = (self.meter, self.asked.elapsed(), &self.meter.acquire);
        let (histogram, end) = match answer {
            Ok(Acquisition::Granted(grant)) => {
                meter.acquired.increment(1);
                meter.queued.increment(u64::from(grant.queued));
                if let Some(after) = grant.handed_over_after {
                    meter.handover.record(after);
                }
                (if grant.queued { &acquire.queued } else { &acquire.at_once }, Some(End::Granted))
            }
            Ok(Acquisition::TimedOut(blocked)) => {
                meter.timed_out.increment(1);
                meter.queued.increment(u64::from(self.wait.is_some()));
                meter.ahead.record(blocked.ahead as f64);
                let queued = self.wait.is_some();
                (if queued { &acquire.timed_out_queued } else { &acquire.timed_out_at_once }, Some(End::TimedOut))
            }
            Ok(Acquisition::Deadlock(_)) => (&acquire.deadlock, None),
            Ok(Acquisition::Lost(_)) | Err(_) => (&acquire.failed, None),
        };
        histogram.record(took);
        tracing::debug!(engine = meter.engine, ?took, ?end, "a lock was asked for");
        if let (Some(wait), Some(end)) = (self.wait, end) {
            meter.waited(took, end, wait, self.asked + took);
        }
    }
}

impl Drop for Acquiring<'_> {
    fn drop(&mut self) {
        self.meter.asking.decrement(1);
        if !self.answered {
            let took = self.asked.elapsed();
            self.meter.acquire.cancelled.record(took);
            if let Some(wait) = self.wait {
                self.meter.waited(took, End::GivenUp, wait, self.asked + took);
            }
        }
    }
}

/// A lease in hand, from its grant until it is given back or lost, whichever is first.
#[derive(Debug)]
pub(crate) struct Holding {
    meter: Arc<Meter>,
    since: Instant,
    ended: AtomicBool,
}

impl Holding {
    pub(crate) fn start(meter: &Arc<Meter>, since: Instant) -> Self {
        Self { meter: Arc::clone(meter), since, ended: AtomicBool::new(false) }
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Its holder gives it back. Whether it was held until now, as far as was known.
    pub(crate) fn given_back(&self) -> bool {
        let first = !self.ended.swap(true, Ordering::Relaxed);
        if first {
            self.meter.hold.record(self.since.elapsed());
        }
        first
    }

    /// It is no longer its holder's. A loss that is found after it was given back is none.
    pub(crate) fn lost(&self, loss: &Loss) {
        if !self.given_back() {
            return;
        }
        tracing::info!(engine = self.meter.engine, %loss, held = ?self.since.elapsed(), "a lease was lost");
        let lost = &self.meter.lost;
        match loss {
            Loss::Expired => &lost.expired,
            Loss::Revoked { .. } => &lost.revoked,
            Loss::Superseded => &lost.superseded,
            Loss::Unconfirmed => &lost.unconfirmed,
            _ => &lost.other,
        }
        .increment(1);
    }

    /// When it was given back, the service did not know it any more.
    pub(crate) fn gone(&self) {
        self.meter.lost.gone.increment(1);
    }
}

/// Units and help. Told at each opening: a recorder keeps one of each.
fn describe() {
    use Unit::{Count, Seconds};
    describe_histogram!(ACQUIRE, Seconds, "How long requests for locks took, from asking to the answer.");
    describe_counter!(ACQUIRED, Count, "Locks granted.");
    describe_counter!(KEPT, Count, "Locks taken again by an agent that still had the lease, besides those granted.");
    describe_counter!(QUEUED, Count, "Requests for locks that had to queue, whatever came of them.");
    describe_counter!(TIMED_OUT, Count, "Requests for locks that were not granted in time.");
    describe_counter!(LOST, Count, "Leases that were lost before their holder in this process gave them back.");
    describe_counter!(REVOKED, Count, "Leases that this process broke, whoever held them.");
    describe_histogram!(
        HANDOVER,
        Seconds,
        "From the end of the lease before until the next in the queue knew its grant."
    );
    describe_histogram!(HOLD, Seconds, "How long leases were held, from the grant until given back or lost.");
    describe_counter!(RENEWALS, Count, "Renewals of leases.");
    describe_gauge!(ASKING, Count, "Requests for locks that this process has under way.");
    describe_histogram!(AHEAD, Count, "How many requests were ahead in the queue of one that timed out.");
    describe_gauge!(QUEUE_LENGTH, Count, "Requests of all processes that queue in the context, when last looked at.");
    describe_gauge!(LEASES, Count, "Leases of all processes that stand in the context, when last looked at.");
    describe_histogram!(COMMIT, Seconds, "How long commits took, from asking to the answer.");
    describe_histogram!(ATTEMPTS, Count, "How many attempts an update took.");
    describe_counter!(
        SWITCHES,
        Count,
        "Documents whose adaptive updates changed from compare-and-set to leases, or back."
    );
}
