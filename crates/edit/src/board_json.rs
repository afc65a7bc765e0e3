//! Boards that are JSON lists: an element is an object, its mark a member of it.

use mutext_contract::Content;
use serde_json::Value;

use crate::board::{BoardError, Element, Standing, read, written};
use crate::place::{described, tokens};
use crate::style::written_like;
use crate::view;

/// The member that holds the mark.
const MARK: &str = "claim";

pub(crate) fn elements(content: &Content, at: &str) -> Result<Vec<Element>, BoardError> {
    let root: Value = content.parse().map_err(BoardError::Unreadable)?;
    let element = |(index, item): (usize, &Value)| {
        let mut item = item.clone();
        let standing = match item.as_object_mut().map(|members| members.shift_remove(MARK)) {
            Some(None) => Standing::Open,
            Some(Some(mark)) => read(mark),
            None => Standing::Unclear,
        };
        let content = written_like(&item, None);
        Element { index, at: format!("{at}/{index}"), content, details: None, standing }
    };
    match root.pointer(at) {
        Some(Value::Array(items)) => Ok(items.iter().enumerate().map(element).collect()),
        Some(other) => Err(BoardError::NotAList { at: at.to_owned(), found: described(other) }),
        None => Err(nowhere(content, at)),
    }
}

/// Why nothing is there.
fn nowhere(content: &Content, at: &str) -> BoardError {
    match (tokens(at), view::value(content.as_str(), at)) {
        (Err(bad), _) => BoardError::NotThere(view::ViewError::BadPointer(bad)),
        (Ok(_), Err(error)) => BoardError::NotThere(error),
        // Of two members of one name, say: the parser and the text see the same, so this does not happen.
        (Ok(_), Ok(_)) => BoardError::NotAList { at: at.to_owned(), found: "nothing".to_owned() },
    }
}

/// The document with that element in its place, and its mark.
pub(crate) fn put(content: &Content, at: &str, element: &Element) -> Result<Content, BoardError> {
    let mut root: Value = content.parse().map_err(BoardError::Unreadable)?;
    let mut item: Value = element.content.parse().map_err(BoardError::Unreadable)?;
    let Some(members) = item.as_object_mut() else {
        return Err(BoardError::NotAnObject { found: described(&item) });
    };
    members.shift_remove(MARK);
    members.extend(written(&element.standing).map(|mark| (MARK.to_owned(), mark)));
    match root.pointer_mut(at).and_then(|list| list.get_mut(element.index)) {
        Some(place) => *place = item,
        None => return Err(nowhere(content, at)),
    }
    Ok(written_like(&root, Some(content)))
}
