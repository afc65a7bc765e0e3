//! Claims: one element of a board for one agent, for as long as its lease stands.
//!
//! A claim is two things. The *mark* in the document says who has the element; of any number of claimants the store's
//! compare-and-set lets one write it. The *lease* says that whoever wrote the mark is still there. It is taken before
//! the mark is written, on a resource of its own, so that it is renewed, shown, revoked and ended as every other. A
//! mark whose lease can be had by somebody else holds nobody off any more.

mod handle;

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use mutext_contract::{
    AgentName, Content, Deadline, Document, DocumentPath, IdempotencyKey, InvalidName, LeaseId, LockTable, Loss,
    Resource, Revision, Ttl, Wait,
};
use mutext_edit::{
    BoardError, ClaimOutcome, Claimant, Condition, Edit, Element, Mark, Standing, Step, Stepped, Wanted, claim,
    elements, step,
};

pub use self::handle::{ClaimHandle, InvalidHandle};
use crate::keeper::Left;
use crate::update::Wording;
use crate::{Context, Error, LockGuard, Strategy, UpdateOptions};

/// How long a claimant queues for the lease of a holder that may be dead: long enough for the engine to knock.
const KNOCK: Duration = Duration::from_millis(5);

/// A request for one element of a board, to be awaited or adjusted first.
///
/// Dropping the future that it becomes leaves at most a mark whose lease is gone, which holds nobody off.
#[derive(Debug)]
#[must_use = "an element is claimed only once this is awaited"]
pub struct Claiming<'a> {
    context: &'a Context,
    path: Result<DocumentPath, InvalidName>,
    at: String,
    condition: Result<Condition, BoardError>,
    attempts_max: Option<u32>,
    edits: Vec<Edit>,
    ttl: Ttl,
    key: Option<IdempotencyKey>,
    reason: Option<String>,
    patience: Duration,
}

/// What a claim comes to. That nothing is free is an answer, not an error.
#[derive(Debug)]
pub enum ClaimAnswer {
    /// The element is this agent's.
    Claimed(Box<Claimed>),
    /// Under this key it was claimed before, and is completed.
    Settled(Box<Element>),
    /// Nothing that is wanted is free.
    NoneFree(NoneFree),
}

impl ClaimAnswer {
    /// The element in hand, if there is one.
    pub fn claimed(self) -> Option<Claimed> {
        match self {
            Self::Claimed(claimed) => Some(*claimed),
            Self::Settled(_) | Self::NoneFree(_) => None,
        }
    }
}

/// That nothing is free, and when something may be.
#[derive(Debug, Clone, Default)]
pub struct NoneFree {
    /// What is wanted and held by others, in the order of the board.
    pub held: Vec<HeldElement>,
    /// How long the first of them lasts yet if its holder dies now, and so when to ask again at the latest; holders give
    /// elements back earlier. `None` where nothing is held: only a change of the board helps then.
    pub soonest: Option<Duration>,
}

/// An element that somebody has claimed.
#[derive(Debug, Clone)]
pub struct HeldElement {
    /// The element, with the mark of whoever has it.
    pub element: Element,
    /// How long its lease lasts yet without renewal.
    pub remaining: Duration,
}

impl fmt::Display for NoneFree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing that is wanted is free")?;
        for HeldElement { element, .. } in &self.held {
            let by = element.mark().map_or("somebody", |mark| mark.by.as_str());
            write!(f, "; {by} has {}", element.at)?;
        }
        match self.soonest {
            Some(soonest) => write!(f, "; ask again within {soonest:.1?}"),
            None => Ok(()),
        }
    }
}

/// An element in hand: nobody else has it as long as its lease stands, and the lease is renewed while this lives.
///
/// Dropping it gives the lease back, and with it the element: whoever claims next may take it, and sees that this was
/// one attempt.
#[derive(Debug)]
#[must_use = "the element goes back to the board when this is dropped"]
pub struct Claimed {
    context: Context,
    path: DocumentPath,
    at: String,
    id: String,
    guard: LockGuard,
    element: Element,
    revision: Revision,
    patience: Duration,
}

impl Context {
    /// Asks for one element of the board at `path`: of the list at the JSON Pointer `at`, or, in a Markdown text, of
    /// the lists in the section `at` ("" for the whole document). Await it, or adjust it first.
    ///
    /// Of any number of claimants, in any number of processes, one has the element. A holder that vanishes loses it
    /// with its lease.
    ///
    /// ```
    /// # async fn example(context: &mutext::Context) -> Result<(), mutext::Error> {
    /// use mutext::ClaimAnswer;
    /// use serde_json::json;
    ///
    /// match context.claim("board.json", "/tasks").matching(json!({"status": "open"})).await? {
    ///     ClaimAnswer::Claimed(mut task) => {
    ///         // ... work, for as long as it takes ...
    ///         let result = serde_json::from_value(json!({"merge_patch": {"status": "done"}})).unwrap();
    ///         task.complete(&[result]).await?;
    ///     }
    ///     ClaimAnswer::NoneFree(none) => println!("{none}"),
    ///     ClaimAnswer::Settled(_) => {}
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn claim<P>(&self, path: P, at: impl Into<String>) -> Claiming<'_>
    where
        P: TryInto<DocumentPath>,
        InvalidName: From<P::Error>,
    {
        let settings = self.settings();
        Claiming {
            context: self,
            path: path.try_into().map_err(InvalidName::from),
            at: at.into(),
            condition: Ok(Condition::Any),
            attempts_max: None,
            edits: Vec::new(),
            ttl: settings.ttl,
            key: None,
            reason: None,
            patience: settings.patience,
        }
    }
}

impl Claiming<'_> {
    /// Only an element that is like this: a JSON object of members and their values, or a text that it contains.
    pub fn matching<C>(mut self, condition: C) -> Self
    where
        C: TryInto<Condition>,
        BoardError: From<C::Error>,
    {
        self.condition = condition.try_into().map_err(BoardError::from);
        self
    }

    /// Not an element that has been claimed so often already: it may be what kills its holders.
    pub const fn attempts_max(mut self, attempts: u32) -> Self {
        self.attempts_max = Some(attempts);
        self
    }

    /// Changes the element in the same step; its pointers begin at the element.
    pub fn with(mut self, edits: impl IntoIterator<Item = Edit>) -> Self {
        self.edits.extend(edits);
        self
    }

    /// How long the lease lasts without renewal, and so how soon the element is free after its holder has died.
    pub const fn ttl(mut self, ttl: Ttl) -> Self {
        self.ttl = ttl;
        self
    }

    /// Names the intention: the same agent claiming again under the same key gets the same element, however often
    /// answers are lost; an earlier claim under it, should it still be in somebody's hands, is lost then.
    pub fn key(mut self, key: IdempotencyKey) -> Self {
        self.key = Some(key);
        self
    }

    /// What for: shown beside the lease, and in the history.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Until when attempts are made, counted from the call.
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Makes the claim. Errors where the board cannot be claimed from ([`Error::Board`]), and where an engine cannot
    /// be reached.
    pub async fn claim(self) -> Result<ClaimAnswer, Error> {
        let path = self.path?;
        let condition = self.condition.map_err(|why| board_error(&path, why))?;
        let attempt = Attempt {
            context: self.context,
            wanted: Wanted { condition, attempts_max: self.attempts_max },
            path,
            at: self.at,
            edits: self.edits,
            ttl: self.ttl,
            key: self.key.map(|key| key.as_str().to_owned()),
            reason: self.reason,
            deadline: Deadline::after(self.patience),
            patience: self.patience,
        };
        attempt.claim().await
    }
}

impl<'a> IntoFuture for Claiming<'a> {
    type Output = Result<ClaimAnswer, Error>;
    type IntoFuture = std::pin::Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.claim())
    }
}

/// One claim under way.
struct Attempt<'a> {
    context: &'a Context,
    path: DocumentPath,
    at: String,
    wanted: Wanted,
    edits: Vec<Edit>,
    ttl: Ttl,
    key: Option<String>,
    reason: Option<String>,
    deadline: Deadline,
    patience: Duration,
}

/// What a look at the board suggests.
enum Plan {
    /// An element that is free, or this agent's own: of that, its lease has to make way.
    Take { own: Option<LeaseId> },
    /// One whose holder seems to be gone.
    TakeOver(Mark),
    /// Nothing; here is who has what.
    Nothing(NoneFree),
    /// It is all done.
    Settled(Box<Element>),
}

/// What came of trying to write the mark.
enum Tried {
    Taken(Element, Revision),
    /// The board is not as it was when the plan was made.
    Replan,
}

impl Attempt<'_> {
    async fn claim(&self) -> Result<ClaimAnswer, Error> {
        // Holders that turned out to be there, whatever the table says.
        let mut standing = HashSet::new();
        loop {
            let plan = self.plan(&standing).await?;
            let has_time = !self.deadline.has_passed();
            let (old, own) = match plan {
                Plan::Settled(element) => return Ok(ClaimAnswer::Settled(element)),
                Plan::Take { own } => (None, own),
                Plan::TakeOver(mark) => (Some(mark), None),
                Plan::Nothing(none) => match suspect(&none, &standing) {
                    Some(mark) if has_time => (Some(mark), None),
                    _ => return Ok(ClaimAnswer::NoneFree(none)),
                },
            };
            let id = LeaseId::random().to_string();
            let Some(guard) = self.lease(&id, old.as_ref()).await? else {
                standing.extend(old.map(|mark| mark.lease));
                continue;
            };
            let old = old.map(|mark| mark.lease);
            if let Tried::Taken(element, revision) = self.mark(&id, old.as_deref()).await? {
                if let Some(lease) = own {
                    self.context.keeper().release(self.context.name().clone(), lease, Left::Perhaps);
                }
                let (context, path, at) = (self.context.same(), self.path.clone(), self.at.clone());
                let claimed = Claimed { context, path, at, id, guard, element, revision, patience: self.patience };
                return Ok(ClaimAnswer::Claimed(Box::new(claimed)));
            }
            if !has_time {
                // Others were faster all the time: there may well be something when it is tried again.
                return Ok(ClaimAnswer::NoneFree(NoneFree { held: Vec::new(), soonest: Some(Duration::ZERO) }));
            }
        }
    }

    /// Looks at the board and, where somebody has marked an element, at the leases.
    async fn plan(&self, standing: &HashSet<String>) -> Result<Plan, Error> {
        let document = self.context.get_by(&self.path, self.deadline).await?;
        let content = document.map(|document| document.content);
        let content = content.ok_or_else(|| board_error(&self.path, BoardError::NoDocument))?;
        // Only after the marks: a lease is taken before its mark is written.
        let mut table = None;
        let mut none = NoneFree::default();
        let mut free = None;
        for element in elements(&content, &self.at).map_err(|why| board_error(&self.path, why))? {
            let is_own = element.mark().is_some_and(|mark| self.is_own(mark));
            match &element.standing {
                Standing::Done(_) if is_own => return Ok(Plan::Settled(Box::new(element))),
                Standing::Held(mark) if is_own => {
                    let table = self.table(&mut table).await?;
                    let lease = holding(table, &self.path, &mark.lease).map(|(lease, _)| lease);
                    return Ok(Plan::Take { own: lease });
                }
                _ if free.is_some() || !self.wanted.is_met_by(&element) => {}
                Standing::Open | Standing::Left(_) => free = Some(Plan::Take { own: None }),
                Standing::Held(mark) => {
                    let table = self.table(&mut table).await?;
                    let remaining = holding(table, &self.path, &mark.lease).map_or(Duration::ZERO, |(_, left)| left);
                    if remaining.is_zero() && !standing.contains(&mark.lease) {
                        free = Some(Plan::TakeOver(mark.clone()));
                    } else {
                        none.held.push(HeldElement { element, remaining });
                    }
                }
                Standing::Done(_) | Standing::Unclear => {}
            }
        }
        none.soonest = none.held.iter().map(|held| held.remaining).min();
        Ok(free.unwrap_or(Plan::Nothing(none)))
    }

    async fn table<'t>(&self, known: &'t mut Option<LockTable>) -> Result<&'t LockTable, Error> {
        if let Some(table) = known {
            return Ok(table);
        }
        let table = self.context.lock_service().inspect(self.context.name(), self.deadline).await?;
        Ok(known.insert(table))
    }

    /// Whether a mark comes from an earlier try of this very claim.
    fn is_own(&self, mark: &Mark) -> bool {
        self.key.is_some() && mark.key == self.key && mark.by == self.context.agent().as_str()
    }

    /// Takes the lease that the mark is to name, together with that of the holder whose place it takes; `None` where
    /// that holder is there.
    async fn lease(&self, id: &str, old: Option<&Mark>) -> Result<Option<LockGuard>, Error> {
        let reason = self.reason.clone().unwrap_or_else(|| format!("a claim from {:?} of {}", self.at, self.path));
        let lock = self.context.lock(resource(&self.path, id)?).ttl(self.ttl).reason(reason);
        let Some(old) = old else { return Ok(Some(lock.acquire().await?)) };
        match lock.and(resource(&self.path, &old.lease)?.as_str()).wait(Wait::new(KNOCK)?).acquire().await {
            Ok(guard) => Ok(Some(guard)),
            // Its holder may be this very context.
            Err(Error::Timeout { .. } | Error::Deadlock { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the mark, in the place of `old` or where nobody has any.
    async fn mark(&self, id: &str, old: Option<&str>) -> Result<Tried, Error> {
        let claimant = Claimant {
            by: self.context.agent().as_str().to_owned(),
            lease: id.to_owned(),
            at: now(),
            key: self.key.clone(),
        };
        let taken = Slot::default();
        let change = |content: &Content| {
            let has_lapsed = |mark: &Mark| old == Some(mark.lease.as_str());
            match claim(content, &self.at, &self.wanted, &claimant, has_lapsed, &self.edits)? {
                ClaimOutcome::Taken { content, element, instead_of } => {
                    let is_own = old.is_none() && self.key.is_some();
                    let is_as_planned = instead_of.as_deref() == old || is_own;
                    Ok(is_as_planned.then(|| taken.keep(element, content)))
                }
                ClaimOutcome::Settled(_) | ClaimOutcome::NoneFree { .. } => Ok(None),
            }
        };
        let message = self.reason.clone().or_else(|| Some("claim".to_owned()));
        match write(self.context, &self.path, message, self.deadline.remaining(), change).await? {
            Some(revision) => Ok(taken.take().map_or(Tried::Replan, |element| Tried::Taken(element, revision))),
            None => Ok(Tried::Replan),
        }
    }
}

/// The holder that is most likely dead: whoever lives renews its lease, and this one was not renewed for longest.
fn suspect(none: &NoneFree, standing: &HashSet<String>) -> Option<Mark> {
    let marks = none.held.iter().filter_map(|held| Some((held.remaining, held.element.mark()?)));
    let (_, mark) = marks.min_by_key(|(remaining, _)| *remaining)?;
    (!standing.contains(&mark.lease)).then(|| mark.clone())
}

/// The lease that stands on a claim's resource, and how long it lasts yet.
fn holding(table: &LockTable, path: &DocumentPath, id: &str) -> Option<(LeaseId, Duration)> {
    let resource = resource(path, id).ok()?;
    let holding = table.holdings.iter().find(|one| one.claims.iter().any(|claim| claim.resource == resource))?;
    Some((holding.lease, holding.remaining))
}

/// What a claim's lease covers. It lies apart from documents, so that a lock on a document, or on a part of the
/// context, does not wait for claims; a lock on `.claims/board.json` stops the claims from that board.
fn resource(path: &DocumentPath, id: &str) -> Result<Resource, InvalidName> {
    Resource::new(&format!(".claims/{path}/{id}")).or_else(|_| Resource::new(&format!(".claims/{id}")))
}

fn now() -> Timestamp {
    let now = Timestamp::now();
    // Nobody reads nanoseconds.
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

fn board_error(path: &DocumentPath, why: BoardError) -> Error {
    Error::Board { path: path.clone(), why: Box::new(why) }
}

/// What the last try of a change came to, kept beside the content that it returns.
#[derive(Debug, Default)]
struct Slot(Mutex<Option<Element>>);

impl Slot {
    fn keep(&self, element: Element, content: Content) -> Content {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(element);
        content
    }

    fn take(&self) -> Option<Element> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Changes a board, as long as it takes: `None` where `change` finds nothing to do on what is there.
async fn write(
    context: &Context,
    path: &DocumentPath,
    message: Option<String>,
    patience: Duration,
    mut change: impl FnMut(&Content) -> Result<Option<Content>, BoardError> + Send,
) -> Result<Option<Revision>, Error> {
    let ttl = context.settings().ttl;
    let wait = Wait::new(patience.clamp(Wait::MIN, Wait::MAX))?;
    let options = UpdateOptions { strategy: Strategy::Adaptive { ttl, wait }, patience, message };
    let stopped = Arc::new(Mutex::new(false));
    let changed = |document: Option<Document>| {
        *stopped.lock().unwrap_or_else(PoisonError::into_inner) = false;
        let changed = match document {
            Some(document) => change(&document.content),
            None => Err(BoardError::NoDocument),
        };
        let changed = changed.map_err(|why| board_error(path, why)).and_then(|content| {
            *stopped.lock().unwrap_or_else(PoisonError::into_inner) = content.is_none();
            content.ok_or_else(|| board_error(path, BoardError::NoDocument))
        });
        std::future::ready(changed)
    };
    let updated = context.update_as(path.clone(), &options, &Wording::default(), changed).await;
    match updated {
        Ok(updated) => Ok(Some(updated.revision)),
        Err(Error::Board { .. }) if *stopped.lock().unwrap_or_else(PoisonError::into_inner) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Claimed {
    /// The element, as it was when it was claimed or last changed through this.
    pub const fn element(&self) -> &Element {
        &self.element
    }

    /// What it says.
    pub const fn content(&self) -> &Content {
        &self.element.content
    }

    /// The how manieth claim of this element it is: more than 1 where others have tried before.
    pub fn attempt(&self) -> u32 {
        self.element.attempts()
    }

    /// The document that it lies in.
    pub const fn path(&self) -> &DocumentPath {
        &self.path
    }

    /// The document's revision after the last change through this.
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// Who has it.
    pub fn agent(&self) -> &AgentName {
        self.context.agent()
    }

    /// The lease that it stands with.
    pub const fn guard(&self) -> &LockGuard {
        &self.guard
    }

    /// Ready when the lease is lost, and with it the element: see [`LockGuard::lost`].
    pub async fn lost(&self) -> Loss {
        self.guard.lost().await
    }

    /// Changes the element, and keeps it. Errors as [`Claimed::complete`] does.
    pub async fn edit(&mut self, edits: &[Edit]) -> Result<Revision, Error> {
        self.step(Step::Keep, edits).await
    }

    /// Says that it is done: changes the element, and nobody claims it again. A second time it changes nothing.
    ///
    /// Errors with [`Error::LeaseLost`] where somebody else has it by now, or where the lease was revoked: nothing is
    /// written then. After any other error it can be tried again. Its lease goes back when this value is dropped.
    pub async fn complete(&mut self, edits: &[Edit]) -> Result<Revision, Error> {
        self.step(Step::Complete, edits).await
    }

    /// Gives the element back to the board, for anybody to claim: changes it, and takes the mark away. A second time it
    /// changes nothing. Errors as [`Claimed::complete`] does, and with [`BoardError::Settled`] where it was completed
    /// before.
    pub async fn hand_back(&mut self, edits: &[Edit]) -> Result<Revision, Error> {
        self.step(Step::HandBack, edits).await
    }

    async fn step(&mut self, next: Step, edits: &[Edit]) -> Result<Revision, Error> {
        let deadline = Deadline::after(self.patience);
        // The mark alone would let a holder go on whose lease was revoked, until somebody takes the element over.
        self.guard.confirm(deadline).await?;
        let (slot, before) = (Slot::default(), Slot::default());
        let change = |content: &Content| {
            // What an earlier look came to is of no account.
            drop((slot.take(), before.take()));
            match step(content, &self.at, &self.id, next, now(), edits)? {
                Stepped::Changed(content, element) => Ok(Some(slot.keep(element, content))),
                Stepped::Before(element) => {
                    before.keep(element, content.clone());
                    Ok(None)
                }
                Stepped::Lost => Ok(None),
            }
        };
        let message = match next {
            Step::Keep => "change of a claimed element",
            Step::HandBack => "claim handed back",
            Step::Complete => "claim completed",
        };
        let message = Some(message.to_owned());
        let written = write(&self.context, &self.path, message, deadline.remaining(), change).await;
        match (written, slot.take(), before.take()) {
            (Ok(Some(revision)), Some(element), _) => {
                (self.element, self.revision) = (element, revision);
                Ok(revision)
            }
            (Ok(_), _, Some(element)) => {
                self.element = element;
                Ok(self.revision)
            }
            (Ok(_), ..) => Err(self.guard.superseded(None)),
            (Err(error), ..) => Err(error),
        }
    }
}
