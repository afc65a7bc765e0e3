//! What the cases have in common: askers and writers with names, waiting for a state, and how long things may take.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use mutext_contract::{
    Acquisition, AgentName, Blocked, Claim, Commit, Committed, Content, ContextName, Cursor, Deadline, Document,
    DocumentPath, DocumentStore, Fence, FencingToken, Grant, Holder, IdempotencyKey, Lease, LeaseId, LockRequest,
    LockService, LockTable, Mode, Outcome, Precondition, Refusal, Release, Renewal, Resource, Ttl, Waiter,
};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::{LockFixture, StoreFixture};

/// What a loaded machine may take for something that happens at once.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(2);
/// A wait that ends only in failure.
pub(crate) const LONG: Duration = Duration::from_secs(15);
/// A TTL that no case waits out.
pub(crate) const LONG_TTL: Duration = Duration::from_secs(60);
/// A TTL that a case waits out.
pub(crate) const SHORT_TTL: Duration = Duration::from_millis(150);
/// A case that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a case, and fails it where it hangs.
pub async fn within_limit(case: impl Future<Output = ()>) {
    assert!(tokio::time::timeout(LIMIT, case).await.is_ok(), "expected the case to end within {LIMIT:?}; it hangs");
}

/// Waits until `state` gives a value, looking every few milliseconds.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut state: impl FnMut() -> F) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = state().await {
            return value;
        }
        assert!(begun.elapsed() < LONG, "expected within {LONG:?}: {what}; it did not come");
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

/// A request that queues though nothing is in its way. Whoever takes something away serves the next in the same step,
/// so that there is none at any moment, but for those whose processes have died. Leases count also where they have
/// lapsed: nobody need notice that before its next step.
pub fn waits_in_vain(table: &LockTable) -> Option<&Waiter> {
    let conflict =
        |one: &[Claim], other: &[Claim]| one.iter().any(|one| other.iter().any(|other| one.conflicts(other)));
    let is_held = |lease: LeaseId| table.holdings.iter().any(|holding| holding.lease == lease);
    let free = |(place, waiter): &(usize, &Waiter)| {
        let replaces = |lease: LeaseId| waiter.replaces == Some(lease);
        let mut leases = table.holdings.iter().filter(|holding| !replaces(holding.lease));
        let mut before = table.waiters[..*place].iter();
        // What is to take the place of a lease that is no more is told so, and goes.
        waiter.replaces.is_none_or(is_held)
            && !leases.any(|holding| conflict(&holding.claims, &waiter.claims))
            && !before.any(|other| conflict(&other.claims, &waiter.claims))
    };
    table.waiters.iter().enumerate().find(free).map(|(_, waiter)| waiter)
}

/// A context that nobody else uses.
pub(crate) fn fresh_context() -> ContextName {
    ContextName::new(format!("conformance-{}", LeaseId::random())).expect("a plain word")
}

pub(crate) fn agent(name: &str) -> AgentName {
    AgentName::new(name).expect("the cases name agents by plain words")
}

pub(crate) fn path(text: &str) -> DocumentPath {
    DocumentPath::new(text).expect("the cases use valid paths")
}

pub(crate) fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::new(text).expect("the cases use valid keys")
}

pub(crate) fn claim(resource: &str, mode: Mode) -> Claim {
    Claim { resource: Resource::new(resource).expect("the cases use valid resources"), mode }
}

/// One who asks for locks: a holder with a client of the engine.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    pub(crate) locks: Arc<dyn LockService>,
    pub(crate) context: ContextName,
    pub(crate) holder: Holder,
}

impl Asker {
    pub(crate) fn new(locks: Arc<dyn LockService>, context: &ContextName, name: &str) -> Self {
        Self { locks, context: context.clone(), holder: Holder::new(agent(name)) }
    }

    /// One asker on the first client and one on the second, in one fresh context.
    pub(crate) async fn two(fixture: &dyn LockFixture) -> (Self, Self) {
        let context = fresh_context();
        let second = Self::new(fixture.second_locks().await, &context, "bert");
        (Self::new(fixture.locks(), &context, "anna"), second)
    }

    /// Another holder on the same client.
    pub(crate) fn beside(&self, name: &str) -> Self {
        Self::new(Arc::clone(&self.locks), &self.context, name)
    }

    pub(crate) fn request(&self, resource: &str, ttl: Duration) -> LockRequest {
        self.request_all([claim(resource, Mode::Exclusive)], ttl)
    }

    pub(crate) fn request_all(&self, claims: impl IntoIterator<Item = Claim>, ttl: Duration) -> LockRequest {
        let ttl = Ttl::new(ttl).expect("the cases use valid TTLs");
        LockRequest::new(self.context.clone(), self.holder.clone(), ttl, claims).expect("at least one claim")
    }

    pub(crate) async fn ask(&self, request: &LockRequest, wait: Duration) -> Acquisition {
        let deadline = if wait.is_zero() { Deadline::now() } else { Deadline::after(wait) };
        self.locks.acquire(request, deadline).await.expect("an acquire without trouble")
    }

    /// Waits for what must be granted.
    pub(crate) async fn granted(&self, request: &LockRequest, wait: Duration) -> Grant {
        let claims = request.claims();
        match self.ask(request, wait).await {
            Acquisition::Granted(grant) => grant,
            other => panic!("{}: expected {claims:?} to be granted within {wait:?}; found {other:?}", self.holder),
        }
    }

    /// Takes one resource, which must be free.
    pub(crate) async fn take(&self, resource: &str, ttl: Duration) -> Lease {
        self.granted(&self.request(resource, ttl), Duration::ZERO).await.lease
    }

    /// Tries once for what must be held by another.
    pub(crate) async fn refused(&self, request: &LockRequest) -> Blocked {
        let claims = request.claims();
        match self.ask(request, Duration::ZERO).await {
            Acquisition::TimedOut(blocked) => blocked,
            other => panic!("{}: expected {claims:?} to be held by another; found {other:?}", self.holder),
        }
    }

    /// Whether one try for the resource is granted; what it got is released.
    pub(crate) async fn could_take(&self, resource: &str) -> bool {
        let request = self.request(resource, LONG_TTL);
        match self.ask(&request, Duration::ZERO).await {
            Acquisition::Granted(grant) => {
                assert_eq!(self.release(grant.lease.id()).await, Release::Released, "release of a try's grant");
                true
            }
            _ => false,
        }
    }

    /// Asks on a task of its own, and returns once the request queues.
    pub(crate) async fn queue(&self, request: &LockRequest) -> JoinHandle<Acquisition> {
        let (asker, own) = (self.clone(), request.clone());
        let waiting = tokio::spawn(async move { asker.ask(&own, LONG).await });
        self.until_queued(request.lease).await;
        waiting
    }

    pub(crate) async fn until_queued(&self, lease: LeaseId) {
        let queued = || async { self.table().await.waiters.iter().any(|waiter| waiter.lease == lease).then_some(()) };
        eventually("the request is shown among the waiters", queued).await;
    }

    /// Until the service regards the lease as lapsed, or has forgotten it.
    pub(crate) async fn until_lapsed(&self, lease: LeaseId) {
        let lapsed = || async {
            let table = self.table().await;
            let stands = |holding: &mutext_contract::Holding| holding.lease == lease && !holding.remaining.is_zero();
            (!table.holdings.iter().any(stands)).then_some(())
        };
        eventually("the lease's time runs out", lapsed).await;
    }

    pub(crate) async fn renew(&self, lease: &Lease) -> Renewal {
        self.locks.renew(lease, Deadline::after(LONG)).await.expect("a renewal without trouble")
    }

    pub(crate) async fn release(&self, lease: LeaseId) -> Release {
        self.locks.release(&self.context, lease, Deadline::after(LONG)).await.expect("a release without trouble")
    }

    pub(crate) async fn revoke(&self, lease: LeaseId, by: &str, reason: &str) -> Release {
        let revoked = self.locks.revoke(&self.context, lease, &agent(by), reason, Deadline::after(LONG)).await;
        revoked.expect("a revocation without trouble")
    }

    pub(crate) async fn table(&self) -> LockTable {
        self.locks.inspect(&self.context, Deadline::after(LONG)).await.expect("an inspection without trouble")
    }
}

/// What a waiting task was granted.
pub(crate) async fn served(waiting: JoinHandle<Acquisition>, within: Duration) -> Grant {
    match tokio::time::timeout(within, waiting).await {
        Ok(Ok(Acquisition::Granted(grant))) => grant,
        other => panic!("expected the waiter to be granted within {within:?}; found {other:?}"),
    }
}

/// One who reads and writes documents: an author with a client of the engine.
#[derive(Debug, Clone)]
pub(crate) struct Scribe {
    pub(crate) store: Arc<dyn DocumentStore>,
    pub(crate) context: ContextName,
    pub(crate) author: AgentName,
}

impl Scribe {
    pub(crate) fn new(store: Arc<dyn DocumentStore>, context: &ContextName, name: &str) -> Self {
        Self { store, context: context.clone(), author: agent(name) }
    }

    /// A scribe on the first client, in a fresh context.
    pub(crate) fn one(fixture: &dyn StoreFixture) -> Self {
        Self::new(fixture.store(), &fresh_context(), "anna")
    }

    /// One scribe on the first client and one on the second, in one fresh context.
    pub(crate) async fn two(fixture: &dyn StoreFixture) -> (Self, Self) {
        let first = Self::one(fixture);
        let second = Self::new(fixture.second_store().await, &first.context, "bert");
        (first, second)
    }

    pub(crate) async fn read(&self, at: &str) -> Option<Document> {
        self.store.read(&self.context, &path(at), soon()).await.expect("a read without trouble")
    }

    /// The document's text, which must be there.
    pub(crate) async fn text(&self, at: &str) -> String {
        match self.read(at).await {
            Some(document) => document.content.as_str().to_owned(),
            None => panic!("expected a document at {at}; found none"),
        }
    }

    /// A commit of one text.
    pub(crate) fn put(&self, at: &str, text: &str, precondition: Precondition) -> Commit {
        self.commit().put(path(at), Content::text(text), precondition)
    }

    pub(crate) fn commit(&self) -> Commit {
        Commit::new(self.author.clone())
    }

    pub(crate) async fn send(&self, commit: &Commit) -> Outcome {
        self.store.commit(&self.context, commit, soon()).await.expect("a commit without trouble")
    }

    /// Commits what must be accepted.
    pub(crate) async fn committed(&self, commit: &Commit) -> Committed {
        match self.send(commit).await {
            Outcome::Committed(committed) => committed,
            other @ Outcome::Refused(_) => panic!("expected {commit:?} to be committed; found {other:?}"),
        }
    }

    /// Commits what must be refused.
    pub(crate) async fn refused(&self, commit: &Commit) -> Refusal {
        match self.send(commit).await {
            Outcome::Refused(refusal) => refusal,
            other @ Outcome::Committed(_) => panic!("expected {commit:?} to be refused; found {other:?}"),
        }
    }

    /// Writes one text over whatever is there; the new revision.
    pub(crate) async fn overwrite(&self, at: &str, text: &str) -> u64 {
        only_revision(&self.committed(&self.put(at, text, Precondition::Any)).await)
    }

    /// The whole feed after `after`, as far as it goes now.
    pub(crate) async fn feed(&self, after: Cursor) -> Vec<mutext_contract::CommitRecord> {
        let page = self.store.changes(&self.context, after, 10_000, Deadline::now()).await;
        page.expect("a look at the feed without trouble").page().expect("nothing of the feed is forgotten")
    }

    pub(crate) async fn history(&self, at: &str) -> Vec<mutext_contract::PastRevision> {
        let all = self.store.history(&self.context, &path(at), None, 10_000, soon()).await;
        all.expect("a look at the history without trouble")
    }
}

/// A deadline that only trouble reaches.
pub(crate) fn soon() -> Deadline {
    Deadline::after(LONG)
}

/// The revision that a commit of one document made.
pub(crate) fn only_revision(committed: &Committed) -> u64 {
    match committed.revisions.as_slice() {
        [(_, revision)] => revision.0,
        other => panic!("expected one revision; found {other:?}"),
    }
}

/// A fence over the whole context.
pub(crate) fn fence(epoch: u64, counter: u64) -> Fence {
    Fence { token: FencingToken::new(epoch, counter, LeaseId::random()), resources: vec![Resource::root()] }
}

/// Asserts that two values are equal, and says what they are.
pub(crate) fn same<T: PartialEq + Debug>(what: &str, found: &T, expected: &T) {
    assert!(found == expected, "{what}: expected {expected:?}; found {found:?}");
}
