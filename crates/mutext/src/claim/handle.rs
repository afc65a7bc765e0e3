//! Claims by handle: for whoever cannot keep a value in its hands from claiming to completing, as an agent that runs one
//! command after the other.
//!
//! Somebody still has to hold the [`Claimed`] meanwhile, for its lease to stand. The handle says which claim it is: its
//! completion is written only while that lease stands and the element bears its mark.

use std::fmt;
use std::str::FromStr;

use mutext_contract::{Deadline, DocumentPath, Loss, Revision};
use mutext_edit::{BoardError, Edit, Element, Standing, Step, Stepped, elements, step};

use super::{Claimed, Slot, board_error, holding, now, resource, write};
use crate::{Context, Error};

/// Names one claim. As text, `ID:POINTER:PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClaimHandle {
    path: DocumentPath,
    at: String,
    id: String,
}

/// A text that is no handle of a claim.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no handle of a claim; give what the claim returned, as in 0123456789abcdef:/tasks:board.json")]
pub struct InvalidHandle(String);

impl fmt::Display for ClaimHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.id, self.at.replace('%', "%25").replace(':', "%3A"), self.path)
    }
}

impl FromStr for ClaimHandle {
    type Err = InvalidHandle;

    fn from_str(text: &str) -> Result<Self, InvalidHandle> {
        let parse = || {
            let (id, rest) = text.split_once(':')?;
            let (at, path) = rest.split_once(':')?;
            let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            let at = at.replace("%3A", ":").replace("%25", "%");
            let path = DocumentPath::new(path).ok()?;
            is_id.then(|| Self { path, at, id: id.to_owned() })
        };
        parse().ok_or_else(|| InvalidHandle(text.chars().take(100).collect()))
    }
}

impl ClaimHandle {
    /// The document in which the element lies.
    pub const fn path(&self) -> &DocumentPath {
        &self.path
    }
}

impl Claimed {
    /// Names this claim for others that are to complete it while this value is kept: see
    /// [`Context::complete_claim`].
    pub fn handle(&self) -> ClaimHandle {
        ClaimHandle { path: self.path.clone(), at: self.at.clone(), id: self.id.clone() }
    }
}

impl Context {
    /// Says that a claim is done, as [`Claimed::complete`] does, by its handle. A second time it changes nothing.
    ///
    /// Errors with [`Error::LeaseLost`] where the claim's lease does not stand any more, or somebody else has the element;
    /// nothing is written then.
    pub async fn complete_claim(&self, handle: &ClaimHandle, edits: &[Edit]) -> Result<(Element, Revision), Error> {
        self.step_claim(handle, Step::Complete, edits).await
    }

    /// Gives the element of a claim back to the board, as [`Claimed::hand_back`] does, by its handle. A second time it
    /// changes nothing. Errors as [`Context::complete_claim`] does, and with [`BoardError::Settled`] where the claim was
    /// completed before.
    pub async fn hand_back_claim(&self, handle: &ClaimHandle, edits: &[Edit]) -> Result<(Element, Revision), Error> {
        self.step_claim(handle, Step::HandBack, edits).await
    }

    /// Whether the element still bears the claim's mark and is not settled: whoever keeps its lease may stop otherwise.
    pub async fn is_claimed(&self, handle: &ClaimHandle) -> Result<bool, Error> {
        let Some(document) = self.get(handle.path.clone()).await? else { return Ok(false) };
        let elements = elements(&document.content, &handle.at);
        Ok(elements.is_ok_and(|elements| {
            let is_ours = |element: &Element| match &element.standing {
                Standing::Held(mark) => mark.lease == handle.id,
                _ => false,
            };
            elements.iter().any(is_ours)
        }))
    }

    async fn step_claim(&self, handle: &ClaimHandle, next: Step, edits: &[Edit]) -> Result<(Element, Revision), Error> {
        let deadline = Deadline::after(self.settings().patience);
        let ClaimHandle { path, at, id } = handle;
        // The mark alone would let a claim go on whose lease has ended, until somebody takes the element over.
        let table = self.lock_service().inspect(self.name(), deadline).await?;
        let stands = holding(&table, path, id).is_some();
        let (slot, before) = (Slot::default(), Slot::default());
        let change = |content: &mutext_contract::Content| match step(content, at, id, next, now(), edits)? {
            Stepped::Changed(content, element) if stands => Ok(Some(slot.keep(element, content))),
            Stepped::Before(element) => {
                before.keep(element, content.clone());
                Ok(None)
            }
            Stepped::Changed(..) | Stepped::Lost => Ok(None),
        };
        let message = match next {
            Step::HandBack => "claim handed back",
            _ => "claim completed",
        };
        let written = write(self, path, Some(message.to_owned()), deadline.remaining(), change).await?;
        match (written, slot.take(), before.take()) {
            (Some(revision), Some(element), _) => Ok((element, revision)),
            (_, _, Some(element)) => {
                let now = self.get(path.clone()).await?.ok_or_else(|| board_error(path, BoardError::NoDocument))?;
                Ok((element, now.revision))
            }
            _ => Err(Error::LeaseLost {
                resources: vec![resource(path, id)?],
                loss: if stands { Loss::Superseded } else { Loss::Expired },
                current: None,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_read_as_it_was_written() {
        for (at, path) in [("", "board.md"), ("/tasks", "a:b"), ("Plan: 50%3A/x", "t/board.json")] {
            let path = DocumentPath::new(path).unwrap();
            let handle = ClaimHandle { path, at: at.to_owned(), id: "f00d".to_owned() };
            assert_eq!(handle.to_string().parse(), Ok(handle));
        }
        for text in ["", "f00d", "f00d:/a", "f00d:/a:", "f/d:/a:b", ":/a:b", "f00d:/a:../b"] {
            assert!(text.parse::<ClaimHandle>().is_err(), "{text}");
        }
    }
}
