//! The steps of the lock table, each of them one transaction of etcd whose conditions make it safe.
//!
//! Why no two leases that stand conflict, whoever takes which step at which moment:
//!
//! - Nobody is granted anything unless the whole context is free ([`ask`]) or after having been in the queue ([`claim`]).
//! - A request looks at the table as it is when it queues, or later. Whoever queues after it sees it there, and waits for
//!   it if the two conflict. So what may come in its way later is only what it has seen before it, which it waits for to
//!   go, or a request that comes before all others because it is to replace a lease: a claim fails if one of those came
//!   since the look that it rests on.
//! - Those who replace leases wait for each other in the same way, and for no one in the queue; a claim from the queue
//!   fails, as said, if they came after its look, and waits for them if they came before.
//! - A lapsed lease goes in the step that grants its resource to another, and only if it has not been renewed since it
//!   was looked at.

use mutext_contract::{ContextName, LeaseId};

use crate::keys::{Class, Keys, Range};
use crate::records::{About, Epoch, Row};
use crate::wire::{
    CREATED, Compare, DeleteRangeRequest, EQUAL, LESS, MODIFIED, PutRequest, RangeRequest, Request, RequestOp, Target,
    TxnRequest,
};

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

pub(crate) fn range((key, range_end): Range) -> RequestOp {
    op(Request::Range(RangeRequest { key, range_end }))
}

pub(crate) fn one(key: Vec<u8>) -> RequestOp {
    range((key, Vec::new()))
}

fn put(key: Vec<u8>, value: Vec<u8>, lease: i64) -> RequestOp {
    op(Request::Put(PutRequest { key, value, lease }))
}

fn delete(key: Vec<u8>) -> RequestOp {
    op(Request::Delete(DeleteRangeRequest { key }))
}

fn created(key: Vec<u8>, revision: i64) -> Compare {
    let with = Some(Target::Created(revision));
    Compare { result: EQUAL, target: CREATED, key, with, range_end: Vec::new() }
}

fn is_absent(key: Vec<u8>) -> Compare {
    created(key, 0)
}

fn modified(key: Vec<u8>, revision: i64) -> Compare {
    let with = Some(Target::Modified(revision));
    Compare { result: EQUAL, target: MODIFIED, key, with, range_end: Vec::new() }
}

/// That nothing lies in a range.
fn is_empty((key, range_end): Range) -> Compare {
    Compare { result: EQUAL, target: CREATED, key, with: Some(Target::Created(0)), range_end }
}

/// That nothing in a range was made after a revision; what was made and is gone again does no harm.
fn nothing_since((key, range_end): Range, revision: i64) -> Compare {
    Compare { result: LESS, target: CREATED, key, with: Some(Target::Created(revision + 1)), range_end }
}

/// Who takes a step, and where.
#[derive(Clone, Copy)]
pub(crate) struct Scene<'a> {
    pub(crate) keys: &'a Keys,
    pub(crate) context: &'a ContextName,
    pub(crate) id: LeaseId,
}

impl Scene<'_> {
    fn key(&self, class: Class) -> Vec<u8> {
        self.keys.entry(self.context, class, self.id)
    }

    fn all_keys(&self) -> impl Iterator<Item = Vec<u8>> {
        Class::ALL.into_iter().map(|class| self.key(class))
    }

    fn ended(&self) -> Vec<u8> {
        self.keys.ended(self.context, self.id)
    }

    fn table(&self) -> RequestOp {
        range(self.keys.table(self.context))
    }
}

/// Granted at once where the whole context is free, if that is worth a try; queued otherwise, with the table as it is then; where the attempt has
/// been made before, was ended, or belongs to another epoch, nothing happens and the answer is the table and what is
/// remembered of its end.
pub(crate) fn ask(scene: Scene<'_>, about: &About, epoch: Epoch, home: i64, may_be_free: bool) -> TxnRequest {
    let class = Class::of_request(about.replaces);
    let mut is_new: Vec<Compare> = scene.all_keys().chain([scene.ended()]).map(is_absent).collect();
    is_new.push(modified(scene.keys.epoch(scene.context), epoch.modified));
    let queue = TxnRequest {
        compare: is_new.clone(),
        success: vec![put(scene.key(class), about.text(), home), scene.table()],
        failure: vec![scene.table(), one(scene.ended())],
    };
    if !may_be_free {
        return queue;
    }
    let is_free = [scene.keys.conversions(scene.context), scene.keys.ordinary(scene.context)].map(is_empty);
    TxnRequest {
        // Free as it is, nothing of the attempt is there: its end and the epoch are left to check.
        compare: is_new.drain(Class::ALL.len()..).chain(is_free).collect(),
        success: vec![put(scene.key(Class::Held), about.granted(epoch.number).text(), home)],
        failure: vec![op(Request::Txn(queue))],
    }
}

/// What a claim rests on: a look at the table.
pub(crate) struct Basis {
    pub(crate) revision: i64,
    pub(crate) epoch: Epoch,
    /// Lapsed leases that go with the grant.
    pub(crate) superseded: Vec<Row>,
    /// The lease whose place is taken.
    pub(crate) replaced: Option<Row>,
    /// What was in the way, and must have gone.
    pub(crate) gone: Vec<Vec<u8>>,
}

/// Makes a request in the queue a lease, if what it has seen still holds; the table otherwise.
pub(crate) fn claim(scene: Scene<'_>, own: &Row, basis: &Basis) -> TxnRequest {
    let mut compare =
        vec![modified(own.key.clone(), own.modified), modified(scene.keys.epoch(scene.context), basis.epoch.modified)];
    if own.class == Class::Waiting {
        compare.push(nothing_since(scene.keys.conversions(scene.context), basis.revision));
    }
    let granted = own.about.granted(basis.epoch.number).text();
    let mut success = vec![put(scene.key(own.class.granted()), granted, own.home), delete(own.key.clone())];
    for row in &basis.superseded {
        compare.push(modified(row.key.clone(), row.modified));
        success.push(delete(row.key.clone()));
        success.push(tell(scene, row));
    }
    if let Some(row) = &basis.replaced {
        compare.push(created(row.key.clone(), row.created));
        success.push(delete(row.key.clone()));
    }
    compare.extend(basis.gone.iter().cloned().map(is_absent));
    TxnRequest { compare, success, failure: vec![scene.table()] }
}

/// Takes a lapsed lease away, if it has not been renewed since it was looked at.
pub(crate) fn supersede(scene: Scene<'_>, row: &Row) -> TxnRequest {
    TxnRequest {
        compare: vec![modified(row.key.clone(), row.modified)],
        success: vec![delete(row.key.clone()), tell(scene, row)],
        failure: Vec::new(),
    }
}

/// Tells a lease's process that it was taken; what is told goes with the process.
fn tell(scene: Scene<'_>, row: &Row) -> RequestOp {
    put(scene.keys.news(row.home, row.id), scene.context.as_str().as_bytes().to_vec(), row.home)
}

/// Takes a request out of the queue, if it is as it was looked at; the table from just before.
pub(crate) fn leave(scene: Scene<'_>, own: &Row) -> TxnRequest {
    TxnRequest {
        compare: vec![modified(own.key.clone(), own.modified)],
        success: vec![scene.table(), delete(own.key.clone())],
        failure: vec![scene.table()],
    }
}

/// Ends whatever there is of an attempt. `remembered` binds a note to that etcd lease, so that a question which is under
/// way yet finds that it comes too late.
pub(crate) fn release(scene: Scene<'_>, remembered: Option<i64>) -> TxnRequest {
    let mut success: Vec<RequestOp> = scene.all_keys().map(delete).collect();
    success.extend(remembered.map(|lease| put(scene.ended(), Vec::new(), lease)));
    TxnRequest { compare: Vec::new(), success, failure: Vec::new() }
}

/// Ends an entry that was found, remembers why and tells its process.
pub(crate) fn revoke(scene: Scene<'_>, row: &Row, why: Vec<u8>, memory: i64) -> TxnRequest {
    let success = vec![put(scene.ended(), why, memory), tell(scene, row), delete(row.key.clone())];
    TxnRequest { compare: vec![created(row.key.clone(), row.created)], success, failure: vec![] }
}

/// Whatever there is of an attempt, and what is remembered of its end.
pub(crate) fn find(scene: Scene<'_>) -> TxnRequest {
    let looks = scene.all_keys().chain([scene.ended()]).map(one).collect();
    TxnRequest { compare: Vec::new(), success: looks, failure: Vec::new() }
}

/// What there is of entries that were seen.
pub(crate) fn look(seen: &[&Row]) -> TxnRequest {
    let looks = seen.iter().map(|row| one(row.key.clone())).collect();
    TxnRequest { compare: Vec::new(), success: looks, failure: Vec::new() }
}

/// Writes a lease anew, if it is as it was last seen; what it is now otherwise, and what is remembered of its end.
pub(crate) fn rewrite(scene: Scene<'_>, key: &[u8], seen: i64, about: &About, home: i64) -> TxnRequest {
    TxnRequest {
        compare: vec![modified(key.to_vec(), seen)],
        success: vec![put(key.to_vec(), about.text(), home)],
        failure: vec![one(key.to_vec()), one(scene.ended())],
    }
}

/// Takes out an entry that stands there longer than it may, if it is as it was last seen.
pub(crate) fn bury(row: &Row) -> TxnRequest {
    let compare = vec![modified(row.key.clone(), row.modified)];
    TxnRequest { compare, success: vec![delete(row.key.clone())], failure: Vec::new() }
}

/// Begins an epoch, unless another has begun one since `seen` (zero where there was none).
pub(crate) fn begin_epoch(keys: &Keys, context: &ContextName, seen: i64, text: Vec<u8>) -> TxnRequest {
    let key = keys.epoch(context);
    TxnRequest { compare: vec![modified(key.clone(), seen)], success: vec![put(key, text, 0)], failure: Vec::new() }
}
