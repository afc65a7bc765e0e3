//! What a desk is asked, and how it answers.

use std::sync::Arc;
use std::time::Duration;

use mutext_contract::{
    Acquisition, AgentName, Deadline, EngineError, FencingToken, Grant, Lease, LeaseId, LockRequest, LockTable, Loss,
    Release,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::table::CONFIRM_MS;

type Answer<T> = oneshot::Sender<Result<T, EngineError>>;

/// What a desk is told.
pub(crate) enum Call {
    /// Wants a lease.
    Acquire(Box<Attempt>),
    /// Wants something at once.
    Job(Job),
    /// A version that lay in this process's mailbox; nothing where it was too large.
    Rang { value: Vec<u8>, index: u64 },
    /// The session of this home is no more.
    HomeLost(Arc<str>),
    /// Whether nothing is held and nobody waits.
    IsIdle(oneshot::Sender<bool>),
}

/// What came of an acquire, as far as the desk can tell.
pub(crate) enum Answered {
    Settled(Acquisition),
    /// The context has no epoch: begin one, and ask again.
    NoEpoch,
}

/// Something that is decided at once.
pub(crate) struct Job {
    pub(crate) what: What,
    pub(crate) deadline: Deadline,
    /// A write with it in it may have been done.
    pub(crate) uncertain: bool,
}

pub(crate) enum What {
    Renew {
        lease: LeaseId,
        ttl: Duration,
        answer: Answer<Result<(), Loss>>,
    },
    Release {
        lease: LeaseId,
        by: Option<(AgentName, String)>,
        answer: Answer<Release>,
    },
    /// The epoch is to be above a number, by one that is minted (zero: none yet). Answers with the last one, where
    /// another must be minted.
    Begin {
        above: u64,
        minted: u64,
        answer: Answer<Option<u64>>,
    },
    Inspect {
        answer: Answer<LockTable>,
    },
}

impl Job {
    pub(crate) const fn new(what: What, deadline: Deadline) -> Self {
        Self { what, deadline, uncertain: false }
    }

    /// Says that it cannot be.
    pub(crate) fn fail(self, error: EngineError) {
        // Whoever asked may be gone.
        match self.what {
            What::Renew { answer, .. } => drop(answer.send(Err(error))),
            What::Release { answer, .. } => drop(answer.send(Err(error))),
            What::Begin { answer, .. } => drop(answer.send(Err(error))),
            What::Inspect { answer } => drop(answer.send(Err(error))),
        }
    }
}

/// An acquire under way.
pub(crate) struct Attempt {
    pub(crate) request: LockRequest,
    pub(crate) deadline: Deadline,
    pub(crate) asked: Instant,
    pub(crate) answer: Answer<Answered>,
    /// It has been in the table.
    pub(crate) placed: bool,
    /// It was seen to wait.
    pub(crate) queued: bool,
    /// It certainly waited yet when this was asked.
    pub(crate) waiting_at: Option<Instant>,
    /// Another granted it too long ago to believe it: it is to be confirmed first.
    pub(crate) confirm: bool,
}

impl Attempt {
    pub(crate) fn new(request: LockRequest, deadline: Deadline, answer: Answer<Answered>) -> Self {
        let asked = Instant::now();
        let (placed, queued, confirm) = (false, false, false);
        Self { request, deadline, asked, answer, placed, queued, waiting_at: None, confirm }
    }

    /// Since when its grant may be believed, and for how long. `written` is the moment before this process asked for
    /// the write that granted or confirmed it, where that is how it is known.
    pub(crate) fn believes(&self, confirmed: bool, written: Option<Instant>) -> (Instant, Duration) {
        let ttl = self.request.ttl.get();
        match (confirmed, written) {
            (true, Some(written)) => (written, ttl),
            // A write whose answer was lost.
            (true, None) => (self.asked, ttl),
            // Another granted it, and not before it was last seen to wait.
            (false, _) => (self.waiting_at.unwrap_or(self.asked), ttl.min(Duration::from_millis(CONFIRM_MS))),
        }
    }

    /// Hands the lease over. Whoever went away in this very moment gives it back: that is the caller's part of the
    /// contract.
    pub(crate) fn grant(self, token: FencingToken, valid_until: Instant) {
        let request = &self.request;
        let lease = Lease {
            context: request.context.clone(),
            claims: Arc::clone(request.claims()),
            holder: request.holder.clone(),
            token,
            ttl: request.ttl,
            valid_until,
        };
        let grant = Grant { lease, queued: self.queued, handed_over_after: None, spare: 0 };
        self.settle(Acquisition::Granted(grant));
    }

    /// Answers; whoever asked may be gone.
    pub(crate) fn settle(self, acquisition: Acquisition) {
        drop(self.answer.send(Ok(Answered::Settled(acquisition))));
    }
}

/// What a draft answers a job or an attempt, once it stands.
pub(crate) enum Verdict {
    Renewed(Result<(), Loss>),
    Released(Release),
    Begun(Option<u64>),
    Seen,
}

/// How an attempt ends with the draft; it goes on where there is no such thing.
pub(crate) enum End {
    Settled(Acquisition),
    /// There is no token to be had.
    NoEpoch,
    /// Nobody waits for an answer.
    Left,
}

/// The same trouble for another who asks.
pub(crate) fn again(error: &EngineError) -> EngineError {
    EngineError::new(error.subject.clone(), error.kind.clone(), error.remedy).with_effect(error.effect)
}
