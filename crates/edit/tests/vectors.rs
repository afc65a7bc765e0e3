//! The public JSON Patch test suite, and the table of RFC 7396, against this crate's edits.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its vectors fails")]

use mutext_contract::Content;
use mutext_edit::Edit;
use serde_json::{Value, json};

/// The one vector whose point is lost once it is a value, with each member once; the last test reads it as text.
const UNJUDGED: &str = "duplicate ops";

fn vectors(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap()
}

fn edited(document: &Value, edit: &Value) -> Result<Value, String> {
    let edit: Edit = serde_json::from_str(&edit.to_string()).map_err(|error| error.to_string())?;
    let content = Content::json(document).unwrap();
    let content = edit.apply(Some(&content)).map_err(|error| error.to_string())?;
    Ok(content.parse().unwrap())
}

/// Runs every vector and says how many there were.
fn run(text: &str) -> usize {
    let mut run = 0;
    for vector in vectors(text) {
        if vector.get("patch").is_none() || vector["comment"] == UNJUDGED {
            continue;
        }
        let result = edited(&vector["doc"], &json!({"patch": vector["patch"]}));
        match (vector.get("error"), vector.get("expected")) {
            (Some(_), _) => assert!(result.is_err(), "should fail: {vector}"),
            (None, Some(expected)) => assert_eq!(result.as_ref(), Ok(expected), "{vector}"),
            (None, None) => assert_eq!(result.as_ref(), Ok(&vector["doc"]), "only tests: {vector}"),
        }
        run += 1;
    }
    run
}

#[test]
fn the_json_patch_test_suite_passes() {
    assert_eq!(run(include_str!("vectors/tests.json")), 77);
}

#[test]
fn the_examples_of_the_json_patch_rfc_pass() {
    assert_eq!(run(include_str!("vectors/spec_tests.json")), 17);
}

#[test]
fn the_table_of_the_merge_patch_rfc_passes() {
    let vectors = vectors(include_str!("vectors/merge_patch.json"));
    for vector in &vectors {
        let result = edited(&vector["original"], &json!({"merge_patch": vector["patch"]}));
        assert_eq!(result.as_ref(), Ok(&vector["result"]), "{vector}");
    }
    assert_eq!(vectors.len(), 15);
}

#[test]
fn an_operation_that_says_twice_what_it_is_is_refused() {
    let text = r#"{"patch": [{"op": "add", "path": "/baz", "value": "qux", "op": "move", "from": "/foo"}]}"#;
    assert!(serde_json::from_str::<Edit>(text).is_err());
}
