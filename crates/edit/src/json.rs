//! Edits of JSON: patches, items of lists, and sums.

use json_patch::PatchOperation;
use mutext_contract::Content;
use serde_json::{Map, Number, Value};

use crate::number::{is_zero, same, sum};
use crate::place::{check_depth, described, reach};
use crate::style::written_like;
use crate::{EditError, patch};

/// The document's value; `None` where there is no document.
fn value_of(content: Option<&Content>) -> Result<Option<Value>, EditError> {
    content.map(|content| content.parse().map_err(|source| EditError::Unreadable { source })).transpose()
}

/// The content that holds `after`: byte for byte as it was if that is what it holds.
fn changed(content: Option<&Content>, before: Option<&Value>, after: &Value) -> Content {
    match content {
        Some(content) if before == Some(after) => content.clone(),
        _ => written_like(after, content),
    }
}

pub(crate) fn patch(content: Option<&Content>, operations: &[PatchOperation]) -> Result<Content, EditError> {
    let before = value_of(content)?;
    let begins = matches!(operations.first(), Some(PatchOperation::Add(add)) if add.path.as_str().is_empty());
    if before.is_none() && !begins {
        return Err(EditError::NoDocument {
            edit: "patch",
            remedy: "merge_patch, or an add at \"\" as first operation",
        });
    }
    let mut after = before.clone().unwrap_or(Value::Null);
    patch::apply(&mut after, operations)?;
    Ok(changed(content, before.as_ref(), &after))
}

pub(crate) fn merge_patch(content: Option<&Content>, patch: &Value) -> Result<Content, EditError> {
    let before = value_of(content)?;
    check_depth("", patch)?;
    let mut after = before.clone().unwrap_or_else(|| Value::Object(Map::new()));
    patch::merge(&mut after, patch);
    Ok(changed(content, before.as_ref(), &after))
}

/// A copy of the document to change; where there is none, one that is empty.
fn begin(before: Option<&Value>, pointer: &str, last: fn() -> Value) -> Value {
    match before {
        Some(before) => before.clone(),
        // The whole document is what is missing.
        None if pointer.is_empty() => last(),
        None => Value::Object(Map::new()),
    }
}

pub(crate) fn add(
    content: Option<&Content>,
    pointer: &str,
    item: &Value,
    unless_there: bool,
) -> Result<Content, EditError> {
    let list = || Value::Array(Vec::new());
    let before = value_of(content)?;
    let mut after = begin(before.as_ref(), pointer, list);
    check_depth(&[pointer, "/-"].concat(), item)?;
    match reach(&mut after, pointer, list)? {
        Value::Array(items) if unless_there && items.iter().any(|there| same(there, item)) => {}
        Value::Array(items) => items.push(item.clone()),
        other => return Err(EditError::NotAList { pointer: pointer.to_owned(), found: described(other) }),
    }
    Ok(changed(content, before.as_ref(), &after))
}

pub(crate) fn increment(content: Option<&Content>, pointer: &str, by: &Number) -> Result<Content, EditError> {
    let zero = || Value::from(0);
    let before = value_of(content)?;
    let mut after = begin(before.as_ref(), pointer, zero);
    match reach(&mut after, pointer, zero)? {
        Value::Number(_) if is_zero(by) => {}
        Value::Number(number) => {
            *number = sum(number, by).ok_or_else(|| EditError::Overflow {
                pointer: pointer.to_owned(),
                found: number.to_string(),
                by: by.to_string(),
            })?;
        }
        other => return Err(EditError::NotANumber { pointer: pointer.to_owned(), found: described(other) }),
    }
    Ok(changed(content, before.as_ref(), &after))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Edit;

    fn edited(content: Option<&str>, edit: &Value) -> Result<String, String> {
        let content = content.map(|text| Content::parse_json(text).unwrap());
        let edit: Edit = serde_json::from_str(&edit.to_string()).unwrap();
        let content = edit.apply(content.as_ref()).map_err(|error| error.to_string())?;
        Ok(content.as_str().to_owned())
    }

    #[test]
    fn items_are_added_at_the_end_and_lists_made() {
        let add = |item: Value| json!({"add": {"pointer": "/a/b", "item": item}});
        assert_eq!(edited(Some("{\"z\": 1.10}"), &add(json!(1))).unwrap(), "{\"z\": 1.10, \"a\": {\"b\": [1]}}");
        assert_eq!(edited(None, &add(json!("x"))).unwrap(), "{\"a\":{\"b\":[\"x\"]}}");
        let error = edited(Some("{\"a\":5}"), &add(json!(1))).unwrap_err();
        assert!(error.contains("\"/a\" cannot have members: the number 5"), "{error}");
        assert!(edited(Some("{\"a\":{\"b\":{}}}"), &add(json!(1))).unwrap_err().contains("not a list"));
        assert_eq!(edited(None, &json!({"add": {"pointer": "", "item": 1}})).unwrap(), "[1]");
    }

    #[test]
    fn a_set_takes_each_item_once() {
        let add = |item: Value| json!({"add_to_set": {"pointer": "/s", "item": item}});
        let there = "{ \"s\" : [1.0, {\"a\":1,\"b\":[]}] }";
        assert_eq!(edited(Some(there), &add(json!(1))).unwrap(), there, "byte for byte");
        assert_eq!(edited(Some(there), &add(json!({"b": [], "a": 1}))).unwrap(), there);
        assert!(edited(Some(there), &add(json!({"b": []}))).unwrap().contains("{\"b\": []}"));
    }

    #[test]
    fn sums_neither_round_nor_reorder() {
        let by = |by: Value| json!({"increment": {"pointer": "/n", "by": by}});
        let there = "{\n  \"z\": 0.10000000000000000001,\n  \"n\": 9007199254740993,\n  \"a\": 1\n}\n";
        assert_eq!(edited(Some(there), &by(json!(1))).unwrap(), there.replace("0993", "0994"));
        assert_eq!(edited(Some(there), &by(json!(0))).unwrap(), there);
        assert_eq!(edited(None, &by(json!(-2))).unwrap(), "{\"n\":-2}");
        assert!(edited(Some("{\"n\":\"1\"}"), &by(json!(1))).unwrap_err().contains("the string \"1\""));
        let full = "{\"n\":170141183460469231731687303715884105727}";
        assert!(edited(Some(full), &by(json!(1))).unwrap_err().contains("128 bits"));
    }

    #[test]
    fn a_patch_needs_something_to_patch() {
        let patch = |operation: Value| json!({"patch": [operation]});
        let error = edited(None, &patch(json!({"op": "add", "path": "/a", "value": 1}))).unwrap_err();
        assert!(error.contains("merge_patch"), "{error}");
        assert_eq!(edited(None, &patch(json!({"op": "add", "path": "", "value": [1]}))).unwrap(), "[1]");
        assert_eq!(edited(None, &json!({"merge_patch": {"a": null, "b": 1}})).unwrap(), "{\"b\":1}");
    }

    #[test]
    fn what_cannot_be_taken_apart_is_told() {
        let deep = ["[".repeat(500), "]".repeat(500)].concat();
        assert!(edited(Some(&deep), &json!({"increment": {"pointer": "/0"}})).unwrap_err().contains("taken apart"));
        let pointer = "/a".repeat(100_000);
        assert!(edited(None, &json!({"increment": {"pointer": pointer}})).unwrap_err().contains("levels deep"));
    }
}
