//! JSON Patch (RFC 6902) and JSON Merge Patch (RFC 7396), keeping the order of members and saying what did not apply.

use json_patch::PatchOperation;
use serde_json::{Map, Value};

use crate::EditError;
use crate::number::same;
use crate::place::{check_depth, described, index, whereabouts};

/// Applies every operation to `root`; after an error, `root` is in between.
pub(crate) fn apply(root: &mut Value, patch: &[PatchOperation]) -> Result<(), EditError> {
    for (index, operation) in patch.iter().enumerate() {
        step(root, operation).map_err(|why| {
            let path = operation.path().to_string();
            EditError::Patch { index, op: name(operation), path, why }
        })?;
    }
    Ok(())
}

/// The word for it.
const fn name(operation: &PatchOperation) -> &'static str {
    match operation {
        PatchOperation::Add(_) => "add",
        PatchOperation::Remove(_) => "remove",
        PatchOperation::Replace(_) => "replace",
        PatchOperation::Move(_) => "move",
        PatchOperation::Copy(_) => "copy",
        PatchOperation::Test(_) => "test",
    }
}

fn step(root: &mut Value, operation: &PatchOperation) -> Result<(), String> {
    match operation {
        PatchOperation::Add(add) => {
            shallow(add.path.as_str(), &add.value)?;
            by_library(root, operation, add.path.as_str())
        }
        PatchOperation::Replace(replace) => {
            shallow(replace.path.as_str(), &replace.value)?;
            by_library(root, operation, replace.path.as_str())
        }
        PatchOperation::Copy(copy) => {
            shallow(copy.path.as_str(), found(root, copy.from.as_str())?)?;
            by_library(root, operation, copy.path.as_str())
        }
        PatchOperation::Remove(remove) => take(root, remove.path.as_str()).map(drop),
        PatchOperation::Move(moved) => {
            let (from, path) = (moved.from.as_str(), moved.path.as_str());
            shallow(path, found(root, from)?)?;
            if from == path {
                return Ok(());
            }
            if path.strip_prefix(from).is_some_and(|below| below.starts_with('/')) {
                return Err(format!("{from:?} cannot be moved into itself; give a path outside it"));
            }
            let value = take(root, from)?;
            let add = json_patch::AddOperation { path: moved.path.clone(), value };
            by_library(root, &PatchOperation::Add(add), path)
        }
        PatchOperation::Test(test) => {
            let path = test.path.as_str();
            // The library compares numbers by how they are written; the RFC, by their value.
            if same(found(root, path)?, &test.value) {
                return Ok(());
            }
            Err(format!("the test wants {}, and {}", described(&test.value), whereabouts(root, path)))
        }
    }
}

fn by_library(root: &mut Value, operation: &PatchOperation, path: &str) -> Result<(), String> {
    let done = json_patch::patch_unsafe(root, std::slice::from_ref(operation));
    done.map_err(|_| whereabouts(root, path))
}

fn shallow(path: &str, value: &Value) -> Result<(), String> {
    check_depth(path, value).map_err(|error| error.to_string())
}

fn found<'a>(root: &'a Value, path: &str) -> Result<&'a Value, String> {
    root.pointer(path).ok_or_else(|| whereabouts(root, path))
}

/// Takes a member or an item out. The library would swap the last member into its place.
fn take(root: &mut Value, path: &str) -> Result<Value, String> {
    let Some((parent, token)) = path.rsplit_once('/') else {
        return Err("the whole document cannot be removed; replace it, or delete the document".to_owned());
    };
    let taken = match root.pointer_mut(parent) {
        Some(Value::Object(members)) => members.shift_remove(&token.replace("~1", "/").replace("~0", "~")),
        Some(Value::Array(items)) => index(token).filter(|index| *index < items.len()).map(|index| items.remove(index)),
        _ => None,
    };
    taken.ok_or_else(|| whereabouts(root, path))
}

/// Merges `patch` into `target`: members that are null there go, others come or are merged in turn.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(members) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            // The order of the others stays, which the library would not keep.
            members.shift_remove(key);
        } else {
            merge(members.entry(key.as_str()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(document: &Value, patch: Value) -> Result<String, String> {
        let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
        let mut root = document.clone();
        apply(&mut root, &patch).map_err(|error| error.to_string())?;
        Ok(root.to_string())
    }

    #[test]
    fn members_keep_their_order() {
        let document = json!({"c": 1, "b": 2, "a": 3});
        assert_eq!(patched(&document, json!([{"op": "remove", "path": "/c"}])).unwrap(), r#"{"b":2,"a":3}"#);
        let moved = json!([{"op": "move", "from": "/c", "path": "/z"}]);
        assert_eq!(patched(&document, moved).unwrap(), r#"{"b":2,"a":3,"z":1}"#);
        let mut merged = document;
        merge(&mut merged, &json!({"c": null, "b": 4}));
        assert_eq!(merged.to_string(), r#"{"b":4,"a":3}"#);
    }

    #[test]
    fn a_test_compares_numbers_by_value() {
        assert!(patched(&json!({"n": 1}), json!([{"op": "test", "path": "/n", "value": 1.0}])).is_ok());
        let error = patched(&json!({"n": 1}), json!([{"op": "test", "path": "/n", "value": 2}])).unwrap_err();
        assert!(error.contains("operation 0") && error.contains("number 2") && error.contains("number 1"), "{error}");
    }

    #[test]
    fn an_operation_that_does_not_apply_is_named_with_what_is_there() {
        let patch = json!([{"op": "add", "path": "/a", "value": 1}, {"op": "replace", "path": "/b/c", "value": 1}]);
        let error = patched(&json!({}), patch).unwrap_err();
        assert!(error.contains("operation 1") && error.contains("replace \"/b/c\""), "{error}");
        assert!(error.contains("an object with a"), "{error}");
        let error = patched(&json!({"a": {}}), json!([{"op": "move", "from": "/a", "path": "/a/b"}])).unwrap_err();
        assert!(error.contains("into itself"), "{error}");
        assert!(patched(&json!([1]), json!([{"op": "remove", "path": ""}])).is_err());
        assert!(patched(&json!([1]), json!([{"op": "remove", "path": "/-"}])).is_err());
    }

    #[test]
    fn a_patch_cannot_nest_a_document_beyond_reading() {
        let deep = json!([{"op": "add", "path": "/b".repeat(128), "value": 1}]);
        assert!(patched(&json!({"a": {}}), deep).unwrap_err().contains("levels deep"));
        let copies: Vec<_> = (0..6).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/a"})).collect();
        assert!(patched(&json!({"a": {}}), Value::from(copies)).is_ok());
    }
}
