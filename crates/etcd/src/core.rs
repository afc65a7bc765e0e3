//! What the service and its thread share: the way to the cluster, what this process holds, and how a step is taken.

use std::time::Duration;

use mutext_contract::{Deadline, Effect, EngineError};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::board::Board;
use crate::keys::Keys;
use crate::link::{Link, at_least};
use crate::trouble;
use crate::wire::{KeyValue, LEASE_GRANT, LeaseGrantRequest, Response, TXN, TxnRequest, TxnResponse};

/// How long it is remembered who revoked a lease, in seconds; an hour at least, as one etcd lease serves for a while.
const REMEMBERED_FOR: i64 = 4200;
const MEMORY_SERVES: Duration = Duration::from_secs(600);

/// What a transaction answered.
pub(crate) struct Step {
    pub(crate) succeeded: bool,
    /// The revision that it made, or at which it looked.
    pub(crate) revision: i64,
    /// The cluster that it was made in.
    pub(crate) cluster: u64,
    pub(crate) responses: Vec<Option<Response>>,
    pub(crate) again: bool,
}

impl Step {
    fn of(answer: TxnResponse, again: bool) -> Self {
        let header = answer.header.unwrap_or_default();
        let responses = answer.responses.into_iter().map(|op| op.response).collect();
        Self { succeeded: answer.succeeded, revision: header.revision, cluster: header.cluster_id, responses, again }
    }

    /// The keys that its `index`-th look found.
    pub(crate) fn found(&self, index: usize) -> &[KeyValue] {
        match self.responses.get(index) {
            Some(Some(Response::Range(range))) => &range.kvs,
            _ => &[],
        }
    }

    /// The transaction within, as if it were the whole.
    pub(crate) fn nested(mut self) -> Self {
        let answer = match self.responses.drain(..).next() {
            Some(Some(Response::Txn(answer))) => answer,
            _ => TxnResponse::default(),
        };
        self.succeeded = answer.succeeded;
        self.responses = answer.responses.into_iter().map(|op| op.response).collect();
        self
    }

    /// How many keys it took away.
    pub(crate) fn deleted(&self) -> i64 {
        let deleted = |response: &Option<Response>| match response {
            Some(Response::Delete(delete)) => delete.deleted,
            _ => 0,
        };
        self.responses.iter().map(deleted).sum()
    }
}

/// What the service and its thread share.
pub(crate) struct Core {
    pub(crate) link: Link,
    pub(crate) keys: Keys,
    pub(crate) board: Board,
    /// The etcd lease of this process; zero while there is none.
    pub(crate) home: watch::Sender<i64>,
    /// Somebody has found that the lease may be gone.
    pub(crate) doubted: Notify,
    /// An etcd lease for what is remembered longer than any process lives, and since when.
    memory: tokio::sync::Mutex<Option<(i64, Instant)>>,
}

impl Core {
    pub(crate) fn new(link: Link, keys: Keys) -> Self {
        Self {
            link,
            keys,
            board: Board::new(),
            home: watch::Sender::new(0),
            doubted: Notify::new(),
            memory: tokio::sync::Mutex::default(),
        }
    }

    /// The etcd lease of this process, as soon as there is one.
    pub(crate) async fn home(&self, deadline: Deadline) -> Result<i64, EngineError> {
        let mut home = self.home.subscribe();
        let found = tokio::time::timeout_at(deadline.instant(), home.wait_for(|home| *home != 0)).await;
        match found {
            Ok(Ok(home)) => Ok(*home),
            _ => Err(trouble::unanswered(self.link.subject()).with_effect(Effect::None)),
        }
    }

    /// The lease may be gone: it is asked after at once.
    pub(crate) fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Whether this is not the etcd lease of this process any more.
    pub(crate) fn has_moved(&self, home: i64) -> bool {
        *self.home.borrow() != home
    }

    /// Takes a step of the table.
    pub(crate) async fn step(&self, step: TxnRequest, deadline: Deadline) -> Result<Step, EngineError> {
        let answered = self.link.call(&TXN, step, at_least(deadline)).await?;
        Ok(Step::of(answered.answer, answered.again))
    }

    /// An etcd lease for what is remembered longer than any process lives.
    async fn memory(&self, deadline: Deadline) -> Result<i64, EngineError> {
        let mut memory = self.memory.lock().await;
        if let Some((id, since)) = *memory
            && since.elapsed() < MEMORY_SERVES
        {
            return Ok(id);
        }
        let now = Instant::now();
        let grant = self.link.call(&LEASE_GRANT, LeaseGrantRequest { ttl: REMEMBERED_FOR }, at_least(deadline));
        let id = grant.await?.answer.id;
        *memory = Some((id, now));
        Ok(id)
    }

    /// Takes the step that `step` makes with the memory's etcd lease, with another where that has gone.
    pub(crate) async fn remembering(
        &self,
        deadline: Deadline,
        step: impl Fn(i64) -> TxnRequest,
    ) -> Result<Step, EngineError> {
        let memory = self.memory(deadline).await?;
        match self.step(step(memory), deadline).await {
            Err(error) if trouble::is_lease_gone(&error) => {
                *self.memory.lock().await = None;
                let memory = self.memory(deadline).await?;
                self.step(step(memory), deadline).await
            }
            outcome => outcome,
        }
    }
}
