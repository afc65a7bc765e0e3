//! The lock engine: what is asked of it, and how each question becomes a step of the table.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use mutext_contract::{
    Acquisition, AgentName, ContextName, DeadHolder, Deadline, Effect, EngineError, EpochSource, ExpiryClock, Fairness,
    Finding, Lease, LeaseId, LockCapabilities, LockRequest, LockService, LockTable, Loss, Minting, Release, Renewal,
    TroubleKind, Waiting,
};
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::attempt::Attempt;
use crate::board::{Held, Known, Left, Sightings};
use crate::core::{Core, Step};
use crate::examine;
use crate::keys::Class;
use crate::link::{at_least, lock};
use crate::options::EtcdOptions;
use crate::presence::Presence;
use crate::records::{self, About, Epoch, Row, Table};
use crate::steps::{self, Scene};
use crate::trouble;
use crate::watches::Watches;
use crate::wire::{DELETE, DeleteRangeRequest, KeyValue, RANGE, RangeRequest, TxnRequest};

/// Contexts whose epochs are remembered here; they can be looked up again.
const EPOCHS_KEPT: usize = 4096;
/// How often a step is tried whose conditions others change under its hands.
const TRIES: usize = 20;

/// What this process knows of a context's epoch.
#[derive(Clone, Copy)]
struct KnownEpoch {
    /// As it was seen last.
    epoch: Epoch,
    /// It is so as far as anybody has found. Where not, no epoch below it counts: etcd has gone back to what a backup
    /// remembers.
    is_current: bool,
}

/// Locks in etcd.
pub struct EtcdLocks {
    presence: Presence,
    epochs: Arc<dyn EpochSource>,
    known_epochs: Mutex<HashMap<ContextName, KnownEpoch>>,
    /// Contexts in which others held or waited for something when they were last seen: the server need not be asked
    /// first whether they are free, which costs it a look at all that is in them.
    busy: Mutex<HashSet<ContextName>>,
    minting: Minting,
    pub(crate) sightings: Sightings,
}

impl fmt::Debug for EtcdLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdLocks").field("cluster", &self.core().link.subject()).finish_non_exhaustive()
    }
}

impl EtcdLocks {
    pub(crate) async fn open(
        options: EtcdOptions,
        epochs: Arc<dyn EpochSource>,
        deadline: Deadline,
    ) -> Result<Self, EngineError> {
        Ok(Self {
            presence: Presence::start(options, deadline).await?,
            epochs,
            known_epochs: Mutex::default(),
            busy: Mutex::default(),
            minting: Minting::default(),
            sightings: Sightings::default(),
        })
    }

    pub(crate) fn core(&self) -> &Core {
        &self.presence.core
    }

    pub(crate) const fn watches(&self) -> &Watches {
        &self.presence.watches
    }

    pub(crate) fn scene<'a>(&'a self, context: &'a ContextName, id: LeaseId) -> Scene<'a> {
        Scene { keys: &self.core().keys, context, id }
    }

    /// Takes a step of the table.
    pub(crate) async fn step(&self, step: TxnRequest, deadline: Deadline) -> Result<Step, EngineError> {
        self.core().step(step, deadline).await
    }

    /// Reads the table that a step's `index`-th look found.
    pub(crate) fn table(&self, context: &ContextName, step: &Step, index: usize) -> Result<Table, EngineError> {
        let core = self.core();
        Table::read(core.link.subject(), &core.keys, context, step.found(index), step.revision)
    }

    /// Looks at the table as it is now.
    pub(crate) async fn look(&self, context: &ContextName, deadline: Deadline) -> Result<Table, EngineError> {
        let core = self.core();
        let (key, range_end) = core.keys.table(context);
        let range = core.link.call(&RANGE, RangeRequest { key, range_end }, at_least(deadline)).await;
        // A look changes nothing, whatever became of its answer.
        let range = range.map_err(|trouble| trouble.with_effect(Effect::None))?.answer;
        let revision = range.header.as_ref().map_or(0, |header| header.revision);
        Table::read(core.link.subject(), &core.keys, context, &range.kvs, revision)
    }

    /// What there is of one key now.
    pub(crate) async fn get(&self, key: Vec<u8>, deadline: Deadline) -> Result<Option<KeyValue>, EngineError> {
        let look = RangeRequest { key, range_end: Vec::new() };
        let range = self.core().link.call(&RANGE, look, at_least(deadline)).await;
        Ok(range.map_err(|trouble| trouble.with_effect(Effect::None))?.answer.kvs.into_iter().next())
    }

    /// The epoch of a context's tokens, as far as this process knows; begun where there is none, and where the cluster
    /// is not the one that it was begun in.
    pub(crate) async fn epoch(&self, context: &ContextName, deadline: Deadline) -> Result<Epoch, EngineError> {
        let known = || {
            let known = lock(&self.known_epochs);
            known.get(context).filter(|known| known.is_current).map(|known| known.epoch)
        };
        if let Some(epoch) = known() {
            return Ok(epoch);
        }
        let _turn = self.minting.turn(context, at_least(deadline)).await?;
        // Whoever waited here finds what was begun meanwhile.
        match known() {
            Some(epoch) => Ok(epoch),
            None => self.epoch_above(context, 0, deadline).await,
        }
    }

    /// The number of the last epoch that this process has seen in a context; zero where it has seen none.
    pub(crate) fn last_epoch(&self, context: &ContextName) -> u64 {
        lock(&self.known_epochs).get(context).map_or(0, |known| known.epoch.number)
    }

    /// An epoch above `above`, and not below what this process has seen: the one that there is, or one that is begun now.
    async fn epoch_above(&self, context: &ContextName, above: u64, deadline: Deadline) -> Result<Epoch, EngineError> {
        for _ in 0..TRIES {
            let look = vec![steps::one(self.core().keys.epoch(context))];
            let look = TxnRequest { compare: Vec::new(), success: look, failure: Vec::new() };
            let found = self.step(look, deadline).await?;
            let seen = self.table(context, &found, 0)?.epoch;
            let known = self.last_epoch(context);
            let serves = |epoch: &Epoch| epoch.number > above && epoch.number >= known;
            if let Some(epoch) = seen.filter(|epoch| epoch.cluster == found.cluster && serves(epoch)) {
                self.remember_epoch(context, epoch);
                return Ok(epoch);
            }
            let last = seen.map_or(0, |epoch| epoch.number).max(known);
            let number = self.epochs.mint_epoch(context, above.max(last), at_least(deadline)).await?;
            let text = Epoch::text(number, found.cluster);
            let begin = steps::begin_epoch(&self.core().keys, context, seen.map_or(0, |epoch| epoch.modified), text);
            let begun = self.step(begin, deadline).await?;
            if begun.succeeded {
                let epoch = Epoch { number, cluster: begun.cluster, modified: begun.revision };
                self.remember_epoch(context, epoch);
                return Ok(epoch);
            }
        }
        Err(self.unsettled())
    }

    /// Somebody else has begun this epoch, perhaps, and it counts.
    pub(crate) fn saw_epoch(&self, context: &ContextName, epoch: Epoch) {
        if epoch.number > self.last_epoch(context) {
            self.remember_epoch(context, epoch);
        }
    }

    fn remember_epoch(&self, context: &ContextName, epoch: Epoch) {
        let mut known = lock(&self.known_epochs);
        if known.len() >= EPOCHS_KEPT {
            known.clear();
        }
        known.insert(context.clone(), KnownEpoch { epoch, is_current: true });
    }

    /// Whether others hold or wait for something in a context, as far as this process has seen.
    pub(crate) fn seems_busy(&self, context: &ContextName) -> bool {
        lock(&self.busy).contains(context)
    }

    /// A request queued, and this is the table as it was then.
    pub(crate) fn seen(&self, context: &ContextName, table: &Table) {
        let mut busy = lock(&self.busy);
        if table.held.len() + table.waiting.len() <= 1 {
            busy.remove(context);
        } else if !busy.contains(context) {
            if busy.len() >= EPOCHS_KEPT {
                busy.clear();
            }
            busy.insert(context.clone());
        }
    }

    /// The epoch is not what this process took it for.
    pub(crate) fn doubt_epoch(&self, context: &ContextName) {
        if let Some(known) = lock(&self.known_epochs).get_mut(context) {
            known.is_current = false;
        }
    }

    /// Others change what a step rests on, again and again.
    pub(crate) fn unsettled(&self) -> EngineError {
        EngineError::new(self.core().link.subject(), TroubleKind::Busy, "try again in a moment")
    }

    /// Why a lease that is not there was lost.
    pub(crate) async fn loss(
        &self,
        context: &ContextName,
        id: LeaseId,
        deadline: Deadline,
    ) -> Result<Loss, EngineError> {
        Ok(records::loss(self.get(self.core().keys.ended(context, id), deadline).await?.as_ref()))
    }

    /// Whatever there is of an attempt, and what is remembered of its end.
    async fn find(
        &self,
        context: &ContextName,
        id: LeaseId,
        deadline: Deadline,
    ) -> Result<(Option<Row>, Option<KeyValue>), EngineError> {
        let found = self.step(steps::find(self.scene(context, id)), deadline).await?;
        let kv = (0..Class::ALL.len()).find_map(|index| found.found(index).first());
        let ended = found.found(Class::ALL.len()).first().cloned();
        Ok((kv.map(|kv| self.row(context, kv)).transpose()?, ended))
    }

    fn row(&self, context: &ContextName, kv: &KeyValue) -> Result<Row, EngineError> {
        let core = self.core();
        Row::of(&core.keys, context, kv).ok_or_else(|| trouble::unreadable(core.link.subject(), "a lease"))
    }

    async fn end(
        &self,
        context: &ContextName,
        id: LeaseId,
        known: &Known,
        deadline: Deadline,
    ) -> Result<Release, EngineError> {
        let (deleted, again) = match known {
            Known::Held(held) => {
                let delete = DeleteRangeRequest { key: held.key.clone() };
                let answered = self.core().link.call(&DELETE, delete, at_least(deadline)).await?;
                (answered.answer.deleted, answered.again)
            }
            // What asks for it may be under way yet, and must find that it comes too late.
            Known::Left(Left { is_asked: true, .. }) => {
                let step = |memory| steps::release(self.scene(context, id), Some(memory));
                let ended = self.core().remembering(deadline, step).await?;
                (ended.deleted(), ended.again)
            }
            Known::Left(_) | Known::Unknown => {
                let ended = self.step(steps::release(self.scene(context, id), None), deadline).await?;
                (ended.deleted(), ended.again)
            }
        };
        // Asked twice, the first time may have done it.
        let is_ours = again && matches!(known, Known::Held(_));
        Ok(if deleted > 0 || is_ours { Release::Released } else { Release::NotHeld })
    }
}

#[async_trait]
impl LockService for EtcdLocks {
    fn capabilities(&self) -> LockCapabilities {
        LockCapabilities {
            engine: "etcd",
            waiting: Waiting::Pushed,
            fairness: Fairness::FirstComeFirstServed,
            shared_mode: true,
            subtrees: true,
            several_resources: true,
            deadlock_detection: true,
            revival: true,
            hands_over: false,
            dead_holder: DeadHolder::Presence,
            expiry_clock: ExpiryClock::Observer,
            token_source: "the revision of the transaction that grants, under an epoch that the document store mints for each life of the cluster",
            survives: "the death of any client, and of any minority of the members; leases stand through a change of leader and a restart of the cluster",
        }
    }

    async fn acquire(&self, request: &LockRequest, deadline: Deadline) -> Result<Acquisition, EngineError> {
        Attempt::new(self, request, deadline).run().await
    }

    async fn renew(&self, lease: &Lease, deadline: Deadline) -> Result<Renewal, EngineError> {
        let asked = Instant::now();
        let (context, id) = (&lease.context, lease.id());
        let mut known = self.core().board.held(id).map(|held| (held.key, held.home, held.about, held.modified));
        for _ in 0..TRIES {
            let (key, home, about, modified) = match known.take() {
                Some(known) => known,
                None => match self.find(context, id, deadline).await? {
                    (Some(row), _) if row.class.is_held() => (row.key, row.home, row.about, row.modified),
                    (_, ended) => {
                        self.core().board.forget(id);
                        return Ok(Renewal::Lost(records::loss(ended.as_ref())));
                    }
                },
            };
            let about: About = about.renewed(lease.ttl);
            let rewritten = self.step(steps::rewrite(self.scene(context, id), &key, modified, &about, home), deadline);
            match rewritten.await {
                Ok(step) if step.succeeded => {
                    let valid_until = asked + lease.ttl.get();
                    let context = context.clone();
                    let held = Held { context, key, home, about, modified: step.revision, valid_until };
                    self.core().board.rewritten(id, &held);
                    return Ok(Renewal::Renewed { valid_until });
                }
                Ok(step) => {
                    let Some(kv) = step.found(0).first() else {
                        self.core().board.forget(id);
                        return Ok(Renewal::Lost(records::loss(step.found(1).first())));
                    };
                    // It has been marked as lapsed meanwhile, or an earlier question has renewed it.
                    let row = self.row(context, kv)?;
                    known = Some((row.key, row.home, row.about, row.modified));
                }
                // The process that it was bound to is gone, and it with that.
                Err(error) if trouble::is_lease_gone(&error) => self.core().doubt(),
                Err(error) => return Err(error),
            }
        }
        Err(self.unsettled())
    }

    async fn release(&self, context: &ContextName, lease: LeaseId, deadline: Deadline) -> Result<Release, EngineError> {
        let known = self.core().board.take(lease);
        // Dropped or failed, it is tried again by the thread.
        let mut unsure = Unsure { locks: self, context, id: lease, is_asked: None };
        unsure.is_asked = match &known {
            Known::Held(_) => Some(false),
            Known::Left(left) => Some(left.is_asked),
            Known::Unknown => None,
        };
        let ended = self.end(context, lease, &known, deadline).await?;
        unsure.is_asked = None;
        Ok(ended)
    }

    async fn inspect(&self, context: &ContextName, deadline: Deadline) -> Result<LockTable, EngineError> {
        let table = self.look(context, deadline).await?;
        self.sightings.note(context, &table);
        Ok(table.shown(|row| self.sightings.age(context, row)))
    }

    async fn revoke(
        &self,
        context: &ContextName,
        lease: LeaseId,
        by: &AgentName,
        reason: &str,
        deadline: Deadline,
    ) -> Result<Release, EngineError> {
        for _ in 0..TRIES {
            let (Some(row), _) = self.find(context, lease, deadline).await? else { return Ok(Release::NotHeld) };
            let why = records::revocation(by, reason);
            let step = |memory| steps::revoke(self.scene(context, lease), &row, why.clone(), memory);
            match self.core().remembering(deadline, step).await {
                Ok(step) if step.succeeded => return Ok(Release::Released),
                // It was granted, released or taken meanwhile.
                Ok(_) => {}
                // Its process is gone, and it with that.
                Err(error) if trouble::is_lease_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Err(self.unsettled())
    }

    async fn begin_epoch(&self, context: &ContextName, above: u64, deadline: Deadline) -> Result<(), EngineError> {
        let _turn = self.minting.turn(context, at_least(deadline)).await?;
        self.epoch_above(context, above, deadline).await.map(drop)
    }

    fn losses(&self) -> Option<broadcast::Receiver<LeaseId>> {
        Some(self.core().board.losses())
    }

    async fn examine(&self, deadline: Deadline) -> Result<Vec<Finding>, EngineError> {
        examine::examine(&self.core().link, &self.core().keys, deadline).await
    }
}

/// A release that is under way: unless it is sure, the thread tries it again.
struct Unsure<'a> {
    locks: &'a EtcdLocks,
    context: &'a ContextName,
    id: LeaseId,
    /// What is left of it; none where nothing is to be done.
    is_asked: Option<bool>,
}

impl Drop for Unsure<'_> {
    fn drop(&mut self) {
        if let Some(is_asked) = self.is_asked {
            self.locks.core().board.leave(self.id, Left { context: self.context.clone(), is_asked });
        }
    }
}
