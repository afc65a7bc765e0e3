//! Boards of claims: who has taken which element of a list, as marks in the list itself.
//!
//! Nothing here knows whether a lease stands, or what time it is: who asks brings that along, and the store's
//! compare-and-set decides which of several claims of one element happens.

use jiff::Timestamp;
use mutext_contract::{Content, Kind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::number::same;
use crate::view::ViewError;
use crate::{Edit, FailedEdit, board_json, board_text};

/// What is written beside an element that somebody has claimed, given back or completed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Which agent.
    pub by: String,
    /// Names the lease under which it was claimed: its claim stands as long as that does.
    pub lease: String,
    /// Since when: for people to read, never for deciding.
    pub at: Timestamp,
    /// The how manieth claim of this element it is, from 1.
    pub attempt: u32,
    /// Names the intention to claim, so that whoever lost the answer gets the same element again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// How an element stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has claimed it yet.
    Open,
    /// Somebody has claimed it.
    Held(Mark),
    /// Whoever had claimed it gave it back.
    Left(Mark),
    /// It is completed; without a mark where somebody ticked it off by hand.
    Done(Option<Mark>),
    /// It cannot be claimed: it is no object, or something else stands where its mark would.
    Unclear,
}

/// One element of a board: an item of a JSON list, or of a Markdown list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// Its place among the elements of its board, from 0.
    pub index: usize,
    /// Its JSON Pointer, or the number of its line, from 1.
    pub at: String,
    /// What it says, without its mark. Of a Markdown item it is the first line without bullet and box.
    pub content: Content,
    /// The lines below the first one of a Markdown item, as they stand.
    pub details: Option<String>,
    /// How it stands.
    pub standing: Standing,
}

/// What an element must be like to be claimed.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Condition {
    /// Any will do.
    #[default]
    Any,
    /// An object with these members, each by its name or, beginning with `/`, by its JSON Pointer. `null` is also
    /// what is missing, and numbers are equal by value.
    Members(Vec<(String, Value)>),
    /// One whose text contains this.
    Contains(String),
}

/// What is claimed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    /// What it must be like.
    pub condition: Condition,
    /// Not one that has been claimed so often already; `None`: however often.
    pub attempts_max: Option<u32>,
}

/// Who claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimant {
    /// Which agent.
    pub by: String,
    /// The lease that the claim is to stand with.
    pub lease: String,
    /// The moment.
    pub at: Timestamp,
    /// Names the intention; see [`Mark::key`].
    pub key: Option<String>,
}

/// What a claim comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// This is the element, and the document with its mark.
    Taken {
        /// The document.
        content: Content,
        /// The element.
        element: Element,
        /// The lease of the claim that this one takes the place of.
        instead_of: Option<String>,
    },
    /// Under this key an element was claimed and is completed already.
    Settled(Element),
    /// Nothing that is wanted is free.
    NoneFree {
        /// What is wanted and held by others.
        held: Vec<Element>,
    },
}

/// What becomes of a claimed element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is changed, and stays claimed.
    Keep,
    /// It is given back, and can be claimed again.
    HandBack,
    /// It is done, and is not claimed again.
    Complete,
}

/// What a step comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stepped {
    /// The document after it, and the element.
    Changed(Content, Element),
    /// It was made before.
    Before(Element),
    /// No element stands with that lease any more: somebody has claimed it instead, or removed it.
    Lost,
}

/// Why a board cannot be claimed from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BoardError {
    /// The part that was to hold the board is not there.
    #[error(transparent)]
    NotThere(#[from] ViewError),
    /// What is there is no list.
    #[error("{at:?} is no board: {found} is there; give the JSON Pointer of a list")]
    NotAList {
        /// Where it was looked for.
        at: String,
        /// What is there.
        found: String,
    },
    /// There is no item in a Markdown text, or section.
    #[error("there is no list at {at:?}; write items such as `- [ ] a task`")]
    NoItems {
        /// Where it was looked for.
        at: String,
    },
    /// A condition on members, and a board of text.
    #[error("a Markdown item has no members to compare; give a text that it contains")]
    NoMembers,
    /// A condition that is neither members nor a text.
    #[error("{found} is no condition; give an object of members and their values, or a text that is contained")]
    BadCondition {
        /// What was given.
        found: String,
    },
    /// A JSON element that an edit left without the members that its mark stands among.
    #[error("after the edit the element would be {found}; a claimed element stays an object")]
    NotAnObject {
        /// What it would be.
        found: String,
    },
    /// An edit of the element that failed.
    #[error(transparent)]
    Edit(#[from] FailedEdit),
    /// No document, and so no list in it.
    #[error("there is no document; put a list there first")]
    NoDocument,
    /// An element that the same claim has completed before.
    #[error("{at} was completed under this claim before, and stays so; nothing was changed")]
    Settled {
        /// Which element.
        at: String,
    },
    /// A JSON document that this crate cannot take apart.
    #[error("the document's JSON cannot be taken apart, so nothing can be claimed from it: {0}")]
    Unreadable(mutext_contract::InvalidJson),
}

impl Element {
    /// Its mark, whatever it says.
    pub const fn mark(&self) -> Option<&Mark> {
        match &self.standing {
            Standing::Held(mark) | Standing::Left(mark) | Standing::Done(Some(mark)) => Some(mark),
            Standing::Open | Standing::Done(None) | Standing::Unclear => None,
        }
    }

    /// How often it has been claimed.
    pub fn attempts(&self) -> u32 {
        self.mark().map_or(0, |mark| mark.attempt)
    }
}

impl Condition {
    /// Whether an element is like that.
    pub fn is_met_by(&self, element: &Element) -> bool {
        match self {
            Self::Any => true,
            Self::Contains(text) => {
                let below = element.details.as_deref().unwrap_or_default();
                element.content.as_str().contains(text) || below.contains(text)
            }
            Self::Members(members) => {
                let Ok(value) = element.content.parse::<Value>() else { return false };
                let holds = |(name, wanted): &(String, Value)| {
                    let found = if name.starts_with('/') { value.pointer(name) } else { value.get(name) };
                    same(found.unwrap_or(&Value::Null), wanted)
                };
                value.is_object() && members.iter().all(holds)
            }
        }
    }
}

impl Wanted {
    /// Whether an element is wanted, free or not.
    pub fn is_met_by(&self, element: &Element) -> bool {
        self.attempts_max.is_none_or(|most| element.attempts() < most) && self.condition.is_met_by(element)
    }
}

impl TryFrom<Value> for Condition {
    type Error = BoardError;

    fn try_from(value: Value) -> Result<Self, BoardError> {
        match value {
            Value::Null => Ok(Self::Any),
            Value::Object(members) => Ok(Self::Members(members.into_iter().collect())),
            Value::String(text) => Ok(Self::Contains(text)),
            other => Err(BoardError::BadCondition { found: crate::place::described(&other) }),
        }
    }
}

impl From<std::convert::Infallible> for BoardError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl From<&str> for Condition {
    fn from(text: &str) -> Self {
        Self::Contains(text.to_owned())
    }
}

/// The elements of the board at `at`: the JSON Pointer of a list, or a section's heading; "" for the whole document.
pub fn elements(content: &Content, at: &str) -> Result<Vec<Element>, BoardError> {
    match content.kind() {
        Kind::Json => board_json::elements(content, at),
        Kind::Text => board_text::elements(content.as_str(), at),
    }
}

/// Claims the first element that is wanted and free, as far as `has_lapsed` tells of the marks of others; `edits` change
/// it in the same step.
///
/// An element that the same agent claimed under the same key before is its again, whether or not that lease stands.
///
/// ```
/// # use mutext_contract::Content;
/// # use mutext_edit::{Claimant, ClaimOutcome, Wanted, claim};
/// let board = Content::parse_json(r#"{"tasks": [{"name": "write"}]}"#).unwrap();
/// let claimant =
///     Claimant { by: "amber".into(), lease: "f00d".into(), at: "2026-11-25T16:00:00Z".parse().unwrap(), key: None };
/// let ClaimOutcome::Taken { content, .. } = claim(&board, "/tasks", &Wanted::default(), &claimant, |_| false, &[]).unwrap()
/// else {
///     panic!("it is free")
/// };
/// let mark = r#"{"state": "held", "by": "amber", "lease": "f00d", "at": "2026-11-25T16:00:00Z", "attempt": 1}"#;
/// assert_eq!(content.as_str(), format!(r#"{{"tasks": [{{"name": "write", "claim": {mark}}}]}}"#));
/// ```
pub fn claim(
    content: &Content,
    at: &str,
    wanted: &Wanted,
    claimant: &Claimant,
    has_lapsed: impl Fn(&Mark) -> bool,
    edits: &[Edit],
) -> Result<ClaimOutcome, BoardError> {
    if matches!((&wanted.condition, content.kind()), (Condition::Members(_), Kind::Text)) {
        return Err(BoardError::NoMembers);
    }
    let elements = elements(content, at)?;
    let is_same = |mark: &Mark| claimant.key.is_some() && mark.key == claimant.key && mark.by == claimant.by;
    let mut held = Vec::new();
    let mut free = None;
    for element in elements {
        match &element.standing {
            Standing::Held(mark) if is_same(mark) => {
                free = Some(element);
                break;
            }
            Standing::Done(Some(mark)) if is_same(mark) => return Ok(ClaimOutcome::Settled(element)),
            _ if free.is_some() || !wanted.is_met_by(&element) => {}
            Standing::Held(mark) if !has_lapsed(mark) => held.push(element),
            Standing::Open | Standing::Left(_) | Standing::Held(_) => free = Some(element),
            Standing::Done(_) | Standing::Unclear => {}
        }
    }
    let Some(element) = free else { return Ok(ClaimOutcome::NoneFree { held }) };
    let (before, instead_of) = match &element.standing {
        // The same claim again is the same attempt.
        Standing::Held(mark) if is_same(mark) => (mark.attempt - 1, Some(mark.lease.clone())),
        Standing::Held(mark) => (mark.attempt, Some(mark.lease.clone())),
        _ => (element.attempts(), None),
    };
    let Claimant { by, lease, at: moment, key } = claimant.clone();
    let mark = Mark { by, lease, at: moment, attempt: before.saturating_add(1), key };
    // What a repeated claim would change is changed already.
    let edits = if instead_of.is_some() && is_held_by(&element, is_same) { &[] } else { edits };
    let (content, element) = put(content, at, &element, Standing::Held(mark), edits)?;
    Ok(ClaimOutcome::Taken { content, element, instead_of })
}

fn is_held_by(element: &Element, is_same: impl Fn(&Mark) -> bool) -> bool {
    matches!(&element.standing, Standing::Held(mark) if is_same(mark))
}

/// Goes on with the element that stands with `lease`; `edits` change it in the same step.
pub fn step(
    content: &Content,
    at: &str,
    lease: &str,
    step: Step,
    moment: Timestamp,
    edits: &[Edit],
) -> Result<Stepped, BoardError> {
    let is_ours = |element: &Element| element.mark().is_some_and(|mark| mark.lease == lease);
    let Some(element) = elements(content, at)?.into_iter().find(is_ours) else { return Ok(Stepped::Lost) };
    let standing = match (&element.standing, step) {
        (Standing::Held(mark), Step::Keep) => Standing::Held(mark.clone()),
        // An element that is given back is not meant by the key any more.
        (Standing::Held(mark), Step::HandBack) => Standing::Left(Mark { at: moment, key: None, ..mark.clone() }),
        (Standing::Held(mark), Step::Complete) => Standing::Done(Some(Mark { at: moment, ..mark.clone() })),
        (Standing::Left(_), Step::HandBack) | (Standing::Done(_), Step::Complete) => {
            return Ok(Stepped::Before(element));
        }
        (Standing::Done(_), _) => return Err(BoardError::Settled { at: element.at }),
        _ => return Ok(Stepped::Lost),
    };
    let (content, element) = put(content, at, &element, standing, edits)?;
    Ok(Stepped::Changed(content, element))
}

/// The document with that element changed and marked.
fn put(
    content: &Content,
    at: &str,
    element: &Element,
    standing: Standing,
    edits: &[Edit],
) -> Result<(Content, Element), BoardError> {
    let changed = crate::apply_all(edits, Some(&element.content))?;
    let element = Element { content: changed, standing, ..element.clone() };
    let content = match content.kind() {
        Kind::Json => board_json::put(content, at, &element)?,
        Kind::Text => board_text::put(content.as_str(), at, &element)?,
    };
    Ok((content, element))
}

/// A mark as it is written down.
#[derive(Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
enum Written {
    Held(Mark),
    Left(Mark),
    Done(Mark),
}

/// A standing as JSON; `None` where nothing is to be written.
pub(crate) fn written(standing: &Standing) -> Option<Value> {
    let written = match standing.clone() {
        Standing::Held(mark) => Written::Held(mark),
        Standing::Left(mark) => Written::Left(mark),
        Standing::Done(Some(mark)) => Written::Done(mark),
        Standing::Open | Standing::Done(None) | Standing::Unclear => return None,
    };
    serde_json::to_value(written).ok()
}

/// The standing that was written down.
pub(crate) fn read(value: Value) -> Standing {
    match serde_json::from_value(value) {
        Ok(Written::Held(mark)) if mark.attempt > 0 => Standing::Held(mark),
        Ok(Written::Left(mark)) => Standing::Left(mark),
        Ok(Written::Done(mark)) => Standing::Done(Some(mark)),
        _ => Standing::Unclear,
    }
}
