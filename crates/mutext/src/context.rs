//! The one way in: documents of a context, and locks over them.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mutext_contract::{
    Action, AgentName, Blocked, Commit, CommitRecord, Committed, Content, ContextName, Cursor, Deadline, Document,
    DocumentPath, DocumentStore, EngineError, Entry, Fence, Fenced, FencedRead, FencingToken, Finding, Holder,
    InvalidName, LeaseId, Listing, LockCapabilities, LockService, LockTable, Loss, Outcome, PastRevision, PathPrefix,
    Precondition, Refusal, Release, Resource, Retention, Revision, Revocation, RevocationRecord, StoreCapabilities,
    TroubleKind, Ttl, Wait,
};
use tokio::time::Instant;

use crate::adaptive::Adaptive;
use crate::address::{self, Address};
use crate::keeper::Keeper;
use crate::line::Line;
use crate::metrics::{AcquisitionTimes, Meter};
use crate::tending::Tending;
use crate::{Error, Lock, OnLapse};

/// How long the lock service is asked at most whether a lease that the store refuses stands.
const ASKED: Duration = Duration::from_secs(2);

/// So much of what was told is remembered at most; more is told again.
const TOLD_MAX: usize = 1000;

/// How a program uses Mutext; every value has a default.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What this agent calls itself.
    pub agent: AgentName,
    /// How long a lease lasts without renewal: 10 s.
    pub ttl: Ttl,
    /// How long an acquire may queue: 500 ms.
    pub wait: Wait,
    /// How long any other operation may take before it gives up: 10 s.
    pub patience: Duration,
    /// The largest document, in bytes: 1 MiB.
    pub document_bytes_max: usize,
    /// What a write through a guard does when its lease has lapsed: revalidate.
    pub on_lapse: OnLapse,
    /// Which past revisions of documents are kept; more are forgotten now and then, by whoever writes: all.
    pub retention: Retention,
    /// Leases that somebody else keeps until this program ends, such as those of a `mutext lock` that it runs under:
    /// whoever waits for them waits for this program. None.
    pub keeps: Vec<LeaseId>,
}

impl Settings {
    /// The defaults, for an agent of this name.
    pub const fn new(agent: AgentName) -> Self {
        Self {
            agent,
            ttl: Ttl::DEFAULT,
            wait: Wait::DEFAULT,
            patience: Duration::from_secs(10),
            document_bytes_max: 1024 * 1024,
            on_lapse: OnLapse::Revalidate,
            retention: Retention { revisions: None, age: None },
            keeps: Vec::new(),
        }
    }
}

struct Shared {
    store: Arc<dyn DocumentStore>,
    locks: Arc<dyn LockService>,
    keeper: Keeper,
    adaptive: Arc<Adaptive>,
    tending: Arc<Tending>,
    told: Told,
}

/// What was told of lock services that documents have passed: each once.
#[derive(Default)]
struct Told(Mutex<HashSet<(ContextName, u64, bool)>>);

impl Told {
    /// Whether this has not been told yet: that an epoch above `passed` has begun, or not.
    fn is_news(&self, context: &ContextName, passed: u64, has_begun: bool) -> bool {
        // Each change is one call, so that a panic leaves nothing half-done.
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= TOLD_MAX {
            told.clear();
        }
        told.insert((context.clone(), passed, has_begun))
    }
}

/// What an examination of one engine found, or why it could not be made.
pub type Examination = Result<Vec<Finding>, Error>;

/// An open pair of engines: documents and locks. Cloning is cheap; contexts are had from it.
///
/// ```
/// # async fn example(dir: &std::path::Path) -> Result<(), mutext::Error> {
/// use mutext::{Address, Mutext, Precondition, Settings};
///
/// let mutext = Mutext::open(&Address::embedded(dir), None).await?;
/// let context = mutext.context("research-42", Settings::new("planner".try_into()?))?;
/// context.put("plan.md", "1. read", Precondition::Absent).await?;
///
/// let updated = context
///     .update("plan.md", |plan| async move {
///         let plan = plan.map(|plan| plan.content.as_str().to_owned()).unwrap_or_default();
///         Ok::<_, mutext::Error>(format!("{plan}\n2. write").into())
///     })
///     .await?;
/// assert_eq!(updated.revision.0, 2);
/// # Ok(())
/// # }
/// # let dir = std::env::temp_dir().join(format!("mutext-doc-{}", std::process::id()));
/// # tokio::runtime::Runtime::new().unwrap().block_on(example(&dir)).unwrap();
/// # std::fs::remove_dir_all(&dir).unwrap();
/// ```
#[derive(Clone)]
pub struct Mutext {
    shared: Arc<Shared>,
}

impl fmt::Debug for Mutext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutext").field("store", &self.shared.store).field("locks", &self.shared.locks).finish()
    }
}

impl Mutext {
    /// How long opening may wait for other processes that set the same store up.
    pub(crate) const OPENING: Duration = Duration::from_secs(15);

    /// Opens the documents at `store`, and the locks at `locks` or else at the same address.
    pub async fn open(store: &Address, locks: Option<&Address>) -> Result<Self, Error> {
        let engines = address::open(store, locks.unwrap_or(store), Deadline::after(Self::OPENING)).await?;
        Self::with_engines(engines.store, engines.locks)
    }

    /// Opens the documents at `store`; locks at another address are opened when the first of them is needed. So what
    /// needs none goes on while the lock server is down: reading, and writing by compare-and-set. Whoever asks for a
    /// lock waits for the server at most as long as for the lock, and is then told what is wrong with it.
    pub async fn open_late(store: &Address, locks: Option<&Address>) -> Result<Self, Error> {
        let engines = address::open_late(store, locks.unwrap_or(store), Deadline::after(Self::OPENING)).await?;
        Self::with_engines(engines.store, engines.locks)
    }

    /// Over engines that are open already.
    pub fn with_engines(store: Arc<dyn DocumentStore>, locks: Arc<dyn LockService>) -> Result<Self, Error> {
        let meter = Meter::new(locks.capabilities().engine, store.capabilities().engine);
        let keeper = Keeper::start(Arc::clone(&locks), Arc::new(meter))?;
        let adaptive = Arc::new(Adaptive::new(store.capabilities().serial_commits));
        Ok(Self {
            shared: Arc::new(Shared { store, locks, keeper, adaptive, tending: Arc::default(), told: Told::default() }),
        })
    }

    /// The context of this name; it begins to exist with its first document.
    pub fn context<N>(&self, name: N, settings: Settings) -> Result<Context, Error>
    where
        N: TryInto<ContextName>,
        Error: From<N::Error>,
    {
        let line = Line::new(Holder::new(settings.agent.clone()), settings.keeps.clone());
        Ok(Context { mutext: self.clone(), name: name.try_into()?, line, settings: Arc::new(settings), until: None })
    }

    /// What the two engines can do.
    pub fn capabilities(&self) -> (StoreCapabilities, LockCapabilities) {
        (self.shared.store.capabilities(), self.shared.locks.capabilities())
    }

    /// How long locks took to be had of late, through this opening and its clones.
    pub fn acquisition_times(&self) -> AcquisitionTimes {
        self.shared.keeper.meter().acquisition_times()
    }

    /// Looks at both engines' versions, settings and reach, and says what would endanger their promises: first the
    /// documents', then the locks'. Changes nothing, and takes at most `patience` for each.
    pub async fn examine(&self, patience: Duration) -> (Examination, Examination) {
        let deadline = Deadline::after(patience);
        let (store, locks) = (self.shared.store.examine(deadline), self.shared.locks.examine(deadline));
        let (store, locks) = tokio::join!(store, locks);
        (store.map_err(Error::from), locks.map_err(Error::from))
    }

    /// Opens each of the two engines as far as it can be reached, and examines it: where one cannot be opened, why. The
    /// documents come first, then the locks, which have nothing of their own to tell where they are one engine that
    /// cannot be opened; then both, opened, where that went well. Takes at most twice `patience`.
    pub async fn survey(
        store: &Address,
        locks: Option<&Address>,
        patience: Duration,
    ) -> (Examination, Examination, Option<Self>) {
        let deadline = Deadline::after(patience);
        let (store, locks) = address::open_each(store, locks.unwrap_or(store), deadline).await;
        if let (Ok(store), Some(Ok(locks))) = (&store, &locks) {
            return match Self::with_engines(Arc::clone(store), Arc::clone(locks)) {
                Ok(mutext) => {
                    let (documents, locks) = mutext.examine(patience).await;
                    (documents, locks, Some(mutext))
                }
                Err(error) => (Err(error), Ok(Vec::new()), None),
            };
        }
        let deadline = Deadline::after(patience);
        let documents = match store {
            Ok(store) => store.examine(deadline).await.map_err(Error::from),
            Err(error) => Err(error),
        };
        let locks = match locks {
            Some(Ok(locks)) => locks.examine(deadline).await.map_err(Error::from),
            Some(Err(error)) => Err(error),
            None => Ok(Vec::new()),
        };
        (documents, locks, None)
    }

    /// Ready once every lease that was given back so far is given back. Call it before the process ends; without it
    /// the next waiter finds out by itself.
    pub async fn finish(&self) {
        self.shared.adaptive.seats.clear();
        self.shared.tending.finish().await;
        self.shared.keeper.finish().await;
    }
}

/// A named, shared space of documents, as one agent sees it.
///
/// It is one line of work: whoever takes a second lock through it while it holds a first is known to keep the first
/// until it has the second, and a circle of such waits is refused at once ([`Error::Deadlock`]). What an agent does
/// side by side has a context each: a clone is cheap, writes under the same name, and is another holder.
#[derive(Debug)]
pub struct Context {
    mutext: Mutext,
    name: ContextName,
    line: Arc<Line>,
    settings: Arc<Settings>,
    /// Within an update, its deadline: no step of it takes longer.
    until: Option<Deadline>,
}

impl Clone for Context {
    /// The same agent in the same context, as another holder: the two wait for each other like any two.
    fn clone(&self) -> Self {
        Self { line: self.line.beside(), ..self.same() }
    }
}

impl Context {
    /// The context of another name, as the same agent, with the same settings, and as another holder.
    pub fn elsewhere<N>(&self, name: N) -> Result<Self, Error>
    where
        N: TryInto<ContextName>,
        Error: From<N::Error>,
    {
        Ok(Self { name: name.try_into()?, ..self.clone() })
    }

    /// Its name.
    pub const fn name(&self) -> &ContextName {
        &self.name
    }

    /// Who takes leases through it.
    pub fn holder(&self) -> &Holder {
        self.line.holder()
    }

    /// The author of its commits.
    pub fn agent(&self) -> &AgentName {
        &self.holder().agent
    }

    /// How it is used.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn lock_service(&self) -> &Arc<dyn LockService> {
        &self.mutext.shared.locks
    }

    pub(crate) fn keeper(&self) -> &Keeper {
        &self.mutext.shared.keeper
    }

    pub(crate) fn adaptive(&self) -> &Arc<Adaptive> {
        &self.mutext.shared.adaptive
    }

    pub(crate) fn tending(&self) -> &Arc<Tending> {
        &self.mutext.shared.tending
    }

    pub(crate) fn deadline(&self) -> Deadline {
        let own = Deadline::after(self.settings.patience);
        self.until.map_or(own, |until| until.min(own))
    }

    pub(crate) const fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// This very context again: the same line of work.
    pub(crate) fn same(&self) -> Self {
        let (line, settings) = (Arc::clone(&self.line), Arc::clone(&self.settings));
        Self { mutext: self.mutext.clone(), name: self.name.clone(), line, settings, until: self.until }
    }

    /// The same, for a part of its work that must end by `deadline`.
    pub(crate) fn by(&self, deadline: Deadline) -> Self {
        Self { line: self.line.below(), until: Some(deadline), ..self.same() }
    }

    pub(crate) fn store(&self) -> &dyn DocumentStore {
        &*self.mutext.shared.store
    }

    /// The document at `path`, or none.
    pub async fn get<P>(&self, path: P) -> Result<Option<Document>, Error>
    where
        P: TryInto<DocumentPath>,
        Error: From<P::Error>,
    {
        self.get_by(&path.try_into()?, self.deadline()).await
    }

    pub(crate) async fn get_by(&self, path: &DocumentPath, deadline: Deadline) -> Result<Option<Document>, Error> {
        Ok(self.store().read(&self.name, path, deadline).await?)
    }

    /// The document at `path`, read under a lease that this process may not hold itself, such as one inherited from
    /// `mutext lock`: the store refuses older tokens for it from then on.
    ///
    /// Errors with [`Error::LeaseLost`] where a later holder has been there, [`Error::NotCovered`] outside the fence.
    pub async fn get_under<P>(&self, path: P, fence: &Fence) -> Result<Option<Document>, Error>
    where
        P: TryInto<DocumentPath>,
        Error: From<P::Error>,
    {
        let path = path.try_into()?;
        if !fence.covers(&path) {
            return Err(Error::NotCovered { path, resources: fence.resources.clone() });
        }
        match self.read_fenced(&path, fence).await? {
            FencedRead::Read(document) => Ok(document),
            FencedRead::Fenced(fenced) => Err(self.refused_by(Some(fence), Refusal::Fenced(fenced)).await),
            FencedRead::Revoked { by, reason } => Err(refused_under(fence, Refusal::Revoked { by, reason })),
        }
    }

    pub(crate) async fn read_fenced(&self, path: &DocumentPath, fence: &Fence) -> Result<FencedRead, Error> {
        Ok(self.store().read_fenced(&self.name, path, fence, self.deadline()).await?)
    }

    /// Writes `content` to `path` where `precondition` holds.
    ///
    /// Errors with [`Error::Conflict`], which carries the current document. Dropping the future does not stop the
    /// write: it happens or not; a [`Commit`] with an idempotency key learns which by trying again.
    pub async fn put<P>(
        &self,
        path: P,
        content: impl Into<Content>,
        precondition: Precondition,
    ) -> Result<Revision, Error>
    where
        P: TryInto<DocumentPath>,
        Error: From<P::Error>,
    {
        let commit = Commit::new(self.agent().clone()).put(path.try_into()?, content.into(), precondition);
        self.commit(commit).await.map(|committed| only(&committed))
    }

    /// Deletes the document at `path` where `precondition` holds; its history stays.
    pub async fn delete<P>(&self, path: P, precondition: Precondition) -> Result<Revision, Error>
    where
        P: TryInto<DocumentPath>,
        Error: From<P::Error>,
    {
        let commit = Commit::new(self.agent().clone()).delete(path.try_into()?, precondition);
        self.commit(commit).await.map(|committed| only(&committed))
    }

    /// Makes one atomic change of one or more documents: all or none.
    ///
    /// With an idempotency key, a retry after a lost answer happens once and returns the first answer.
    pub async fn commit(&self, commit: Commit) -> Result<Committed, Error> {
        let fence = commit.fence.clone();
        match self.try_commit(commit).await? {
            Outcome::Committed(committed) => Ok(committed),
            Outcome::Refused(refusal) => Err(self.refused_by(fence.as_ref(), refusal).await),
        }
    }

    /// What a refusal is called, of what was made under a lease, or without.
    pub(crate) async fn refused_by(&self, fence: Option<&Fence>, refusal: Refusal) -> Error {
        if let Refusal::Fenced(fenced) = &refusal {
            self.outranked(fenced).await;
        }
        match fence {
            Some(fence) => refused_under(fence, refusal),
            None => refused(refusal),
        }
    }

    /// A document has seen a higher token than the one that was presented: a later holder has been there.
    ///
    /// Unless nobody can have: where the lease still is in the lock table, the lock service grants tokens that are behind
    /// those of earlier leases. It has gone back, as after a backup was put back, and does not know; or the tokens are of
    /// another one. It is told, so that whoever takes the lock next, as an update does by itself, has a token that is good,
    /// where it finds that it may be behind.
    pub(crate) async fn outranked(&self, fenced: &Fenced) {
        if fenced.presented.owner == fenced.highest.owner && fenced.presented.epoch == fenced.highest.epoch {
            // A later use of the very lease: it stays with its agent, and what an earlier use left under way comes late.
            return;
        }
        let (context, path, presented, highest) = (self.same(), fenced.path.clone(), fenced.presented, fenced.highest);
        // A task of its own: it is told though nobody waits for that any more.
        let telling = tokio::spawn(async move { context.tell_outranked(&path, presented, highest).await });
        // What ended with its runtime, the next refusal tells.
        drop(telling.await);
    }

    async fn tell_outranked(&self, path: &DocumentPath, presented: FencingToken, highest: FencingToken) {
        let (context, locks) = (&self.name, self.lock_service());
        let deadline = Deadline::after(ASKED).min(self.deadline());
        // A service that is only opened now may take longer than it is told.
        let until = deadline.instant();
        let table = match tokio::time::timeout_at(until, locks.inspect(context, deadline)).await {
            Ok(Ok(table)) => table,
            Ok(Err(error)) => {
                tracing::debug!(%error, %context, "the lock service does not say whether a lease stands");
                return;
            }
            Err(_) => {
                tracing::debug!(%context, "the lock service does not say in time whether a lease stands");
                return;
            }
        };
        if table.holdings.iter().all(|holding| holding.lease != presented.owner) {
            return;
        }
        let begun = match tokio::time::timeout_at(until, locks.begin_epoch(context, highest.epoch, deadline)).await {
            Ok(begun) => begun,
            Err(late) => {
                let remedy = "see that it answers; whoever is refused next tells it again";
                Err(EngineError::new(format!("the locks of {context}"), TroubleKind::Busy, remedy).caused_by(late))
            }
        };
        // An update meets the same until its patience ends: the first time says it all.
        let is_news = self.mutext.shared.told.is_news(context, highest.epoch, begun.is_ok());
        match begun {
            Ok(()) if is_news => tracing::warn!(%context, %path, %presented, %highest,
                "the lock service had gone back, and granted tokens that documents have passed: it has begun a new epoch"),
            Err(error) if is_news => tracing::warn!(%error, %context, %path, %presented, %highest,
                "a document has passed the token of a lease that stands, and the lock service begins no new epoch: \
                 writes under its leases are refused"),
            Ok(()) => tracing::debug!(%context, %path, %presented, %highest, "a new epoch has begun"),
            Err(error) => tracing::debug!(%error, %context, %path, %presented, %highest, "no new epoch has begun"),
        }
    }

    pub(crate) async fn try_commit(&self, commit: Commit) -> Result<Outcome, Error> {
        self.check(&commit)?;
        let asked = Instant::now();
        let answer = self.store().commit(&self.name, &commit, self.deadline()).await;
        self.keeper().meter().committed(asked.elapsed(), &answer);
        if let Ok(Outcome::Committed(_)) = &answer {
            self.tend_now_and_then();
        }
        Ok(answer?)
    }

    fn check(&self, commit: &Commit) -> Result<(), Error> {
        let limit = self.settings.document_bytes_max;
        let count = commit.changes.len();
        if count == 0 || count > Commit::CHANGES_MAX {
            let rule = format!("it changes {count} documents; it must change 1 to {}", Commit::CHANGES_MAX);
            return Err(Error::InvalidCommit(rule));
        }
        let mut paths: Vec<&DocumentPath> = commit.changes.iter().map(|change| &change.path).collect();
        paths.sort_unstable();
        if let Some([twice, ..]) = paths.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::InvalidCommit(format!("it changes {twice} twice; make one change of the two")));
        }
        for change in &commit.changes {
            if let Action::Put(content) = &change.action
                && content.size() > limit
            {
                return Err(Error::TooLarge { path: change.path.clone(), size: content.size(), limit });
            }
            if let Some(fence) = commit.fence.as_ref().filter(|fence| !fence.covers(&change.path)) {
                return Err(Error::NotCovered { path: change.path.clone(), resources: fence.resources.clone() });
            }
        }
        Ok(())
    }

    /// All documents whose paths begin with `prefix`, in the order of their paths.
    pub async fn list<P>(&self, prefix: P) -> Result<Vec<Entry>, Error>
    where
        P: TryInto<PathPrefix>,
        Error: From<P::Error>,
    {
        let prefix = prefix.try_into()?;
        let mut entries = Vec::new();
        let mut after = None;
        loop {
            let mut page = self.list_page(&prefix, after.as_ref(), 1000).await?;
            entries.append(&mut page.entries);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(entries),
            }
        }
    }

    /// At most `limit` documents whose paths begin with `prefix`, after `after`.
    pub async fn list_page(
        &self,
        prefix: &PathPrefix,
        after: Option<&DocumentPath>,
        limit: usize,
    ) -> Result<Listing, Error> {
        Ok(self.store().list(&self.name, prefix, after, limit, self.deadline()).await?)
    }

    /// At most `limit` revisions of the document at `path`, newest first, before `before`.
    pub async fn history<P>(&self, path: P, before: Option<Revision>, limit: usize) -> Result<Vec<PastRevision>, Error>
    where
        P: TryInto<DocumentPath>,
        Error: From<P::Error>,
    {
        Ok(self.store().history(&self.name, &path.try_into()?, before, limit, self.deadline()).await?)
    }

    /// At most `limit` commits after `after`, in order and without gaps; waits for one for at most `wait`.
    ///
    /// Errors with [`Error::CursorGone`] where some of them are forgotten.
    pub async fn changes(&self, after: Cursor, limit: usize, wait: Duration) -> Result<Vec<CommitRecord>, Error> {
        let feed = self.store().changes(&self.name, after, limit, Deadline::after(wait)).await?;
        feed.page().map_err(|oldest| Error::CursorGone { after, oldest })
    }

    /// Asks for the lock on `resource` and all below it: await it, or adjust it first.
    ///
    /// ```
    /// # async fn example(context: &mutext::Context) -> Result<(), mutext::Error> {
    /// let guard = context.lock("tasks/").reason("re-ordering").await?;
    /// let board = guard.get("tasks/board").await?;
    /// // ... think ...
    /// guard.put("tasks/board", "reordered").await?;
    /// guard.release().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn lock<R>(&self, resource: R) -> Lock<'_>
    where
        R: TryInto<Resource>,
        InvalidName: From<R::Error>,
    {
        Lock::new(self, resource.try_into().map_err(InvalidName::from))
    }

    /// Who holds what, and who waits.
    pub async fn locks(&self) -> Result<LockTable, Error> {
        Ok(self.lock_service().inspect(&self.name, self.deadline()).await?)
    }

    /// Looks at the context's locks, as [`Context::locks`] does, and tells the recorder of metrics how many requests
    /// queue and how many leases stand. These are the only metrics with the context's name in a label: call it for
    /// as many contexts as your monitoring can bear, every few seconds.
    pub async fn measure_queue(&self) -> Result<LockTable, Error> {
        let table = self.locks().await?;
        self.keeper().meter().inspected(&self.name, &table);
        Ok(table)
    }

    /// What is in the way of a request that queues, and how many are before it; `None` where no such request queues.
    /// [`Lock::id`] names the request before it is made.
    pub async fn position(&self, request: LeaseId) -> Result<Option<Blocked>, Error> {
        Ok(self.locks().await?.position(request))
    }

    /// Breaks another's lease: the next waiter is served, and the holder is told who did it and why.
    ///
    /// The document store is told first, and refuses whatever comes under that lease from then on, also where the lock
    /// service cannot be reached afterwards. What it wrote down is there for good: see [`Context::revocations`].
    pub async fn revoke(&self, lease: LeaseId, reason: &str) -> Result<Release, Error> {
        let deadline = self.deadline();
        let table = self.lock_service().inspect(&self.name, deadline).await;
        let held = table.map(|table| table.holdings.into_iter().find(|holding| holding.lease == lease));
        // What is not held is not written down; where nobody can tell, it is.
        if !matches!(held, Ok(None)) {
            let held = held.ok().flatten();
            let revocation = Revocation {
                lease,
                holder: held.as_ref().map(|holding| holding.holder.agent.clone()),
                claims: held.map_or_else(|| Arc::from([]), |holding| holding.claims),
                by: self.agent().clone(),
                reason: reason.to_owned(),
            };
            self.store().revoke(&self.name, &revocation, deadline).await?;
        }
        let revoked = self.lock_service().revoke(&self.name, lease, self.agent(), reason, deadline).await?;
        if revoked == Release::Released {
            self.keeper().meter().revoked();
        }
        Ok(revoked)
    }

    /// At most `limit` leases that were broken, newest first: which, by whom and why.
    pub async fn revocations(&self, limit: usize) -> Result<Vec<RevocationRecord>, Error> {
        Ok(self.store().revocations(&self.name, limit, self.deadline()).await?)
    }
}

/// The revision of a commit of one document.
pub(crate) fn only(committed: &Committed) -> Revision {
    committed.revisions.first().map_or(Revision(0), |(_, revision)| *revision)
}

pub(crate) fn refused(refusal: Refusal) -> Error {
    match refusal {
        Refusal::Conflict(conflict) => Error::Conflict(conflict),
        Refusal::KeyReused { key } => Error::KeyReused { key },
        Refusal::Erodes(erosion) => Error::Erosion(erosion),
        Refusal::Revoked { by, reason } => {
            Error::LeaseLost { resources: Vec::new(), loss: Loss::Revoked { by, reason }, current: None }
        }
        Refusal::Fenced(fenced) => Error::LeaseLost {
            resources: vec![Resource::from(fenced.path)],
            loss: Loss::Superseded,
            current: fenced.current.map(Box::new),
        },
    }
}

fn refused_under(fence: &Fence, refusal: Refusal) -> Error {
    match refused(refusal) {
        Error::LeaseLost { loss, current, .. } => {
            Error::LeaseLost { resources: fence.resources.clone(), loss, current }
        }
        other => other,
    }
}
