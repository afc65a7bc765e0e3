//! Where a JSON Pointer leads, what is there, and how deep a document may be nested.

use json_patch::jsonptr::Pointer;
use serde_json::{Map, Value};

use crate::EditError;
use crate::edit_error::clipped;

/// How deep a document may be nested: as deep as its parser will go.
pub(crate) const DEPTH_MAX: usize = 127;

/// The pointer's tokens, unescaped.
pub(crate) fn tokens(pointer: &str) -> Result<Vec<String>, EditError> {
    let bad = |why| EditError::BadPointer { pointer: pointer.to_owned(), why };
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return Err(bad("it does not begin with `/`"));
    }
    let parsed = Pointer::parse(pointer).map_err(|_| bad("`~` stands before something other than 0 or 1"))?;
    Ok(parsed.tokens().map(|token| token.decoded().into_owned()).collect())
}

/// A token as it stands in a pointer.
pub(crate) fn escaped(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

/// An item's index: digits without leading zeros.
pub(crate) fn index(token: &str) -> Option<usize> {
    let is_plain = token == "0" || !token.starts_with('0');
    if is_plain && token.bytes().all(|byte| byte.is_ascii_digit()) { token.parse().ok() } else { None }
}

/// How many levels of lists and objects a value has; 0 for what has no members.
pub(crate) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Refuses to put `value` where the document would be nested too deeply.
pub(crate) fn check_depth(pointer: &str, value: &Value) -> Result<(), EditError> {
    let depth = pointer.matches('/').count() + depth(value);
    if depth > DEPTH_MAX {
        return Err(EditError::TooDeep { pointer: clipped(pointer, 100), depth, limit: DEPTH_MAX });
    }
    Ok(())
}

/// A value in a few words, for errors.
pub(crate) fn described(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => format!("the number {}", clipped(number.as_str(), 60)),
        Value::String(text) => format!("the string {:?}", clipped(text, 60)),
        Value::Array(items) => format!("a list of {}", counted(items.len(), "item")),
        Value::Object(members) if members.is_empty() => "an empty object".to_owned(),
        Value::Object(members) => {
            let names: Vec<_> = members.keys().take(10).map(|name| clipped(name, 40)).collect();
            let more = if members.len() > names.len() { ", …" } else { "" };
            format!("an object with {}{more}", names.join(", "))
        }
    }
}

/// `1 item`, `2 items`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// What is where the pointer's way ends: `nothing is at "/a/b"; at "/a" is the number 1`.
pub(crate) fn whereabouts(root: &Value, pointer: &str) -> String {
    let mut here = root;
    let mut way = String::new();
    for token in pointer.split('/').skip(1) {
        let next = [way.as_str(), "/", token].concat();
        let Some(there) = here.pointer(&["/", token].concat()) else { break };
        (here, way) = (there, next);
    }
    if way == pointer {
        return format!("at {:?} is {}", clipped(pointer, 100), described(here));
    }
    format!("nothing is at {:?}; at {:?} is {}", clipped(pointer, 100), clipped(&way, 100), described(here))
}

/// The value at `pointer`. What is missing on the way is made: objects, and at its end what `last` makes.
pub(crate) fn reach<'a>(root: &'a mut Value, pointer: &str, last: fn() -> Value) -> Result<&'a mut Value, EditError> {
    let tokens = tokens(pointer)?;
    check_depth(pointer, &last())?;
    let mut here = root;
    let mut way = String::new();
    for (number, token) in tokens.iter().enumerate() {
        let (above, is_last) = (way.clone(), number + 1 == tokens.len());
        way = [&way, "/", &escaped(token)].concat();
        here = match here {
            Value::Object(members) => members
                .entry(token.as_str())
                .or_insert_with(|| if is_last { last() } else { Value::Object(Map::new()) }),
            Value::Array(items) => {
                let found = counted(items.len(), "item");
                let item = index(token).and_then(|index| items.get_mut(index));
                item.ok_or(EditError::NoSuchItem { pointer: way.clone(), found: format!("a list of {found}") })?
            }
            other => return Err(EditError::NotAContainer { pointer: above, found: described(other) }),
        };
    }
    Ok(here)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pointers_are_unescaped_and_bad_ones_told() {
        assert_eq!(tokens("/a~1b/~01/").unwrap(), ["a/b", "~1", ""]);
        assert!(tokens("").unwrap().is_empty());
        assert!(tokens("a").unwrap_err().to_string().contains("begin"));
        assert!(tokens("/~2").unwrap_err().to_string().contains("~0"));
        assert_eq!(escaped("a/~"), "a~1~0");
    }

    #[test]
    fn the_way_is_made_where_it_is_missing() {
        let mut value = json!({"a": [{"b": 1}]});
        *reach(&mut value, "/a/0/c/d", || json!([])).unwrap() = json!(2);
        assert_eq!(value, json!({"a": [{"b": 1, "c": {"d": 2}}]}));
        let error = reach(&mut value, "/a/0/b/x", || json!([])).unwrap_err();
        assert!(error.to_string().contains("\"/a/0/b\"") && error.to_string().contains("number 1"), "{error}");
        assert!(reach(&mut value, "/a/1", || json!([])).unwrap_err().to_string().contains("1 item"));
        assert!(matches!(reach(&mut value, "/a/00", || json!([])), Err(EditError::NoSuchItem { .. })));
        assert!(matches!(reach(&mut value, &"/x".repeat(127), || json!([])), Err(EditError::TooDeep { .. })));
    }

    #[test]
    fn whereabouts_say_how_far_the_way_goes() {
        let value = json!({"a": {"b": 1, "c": 2}});
        assert_eq!(whereabouts(&value, "/a/x/y"), "nothing is at \"/a/x/y\"; at \"/a\" is an object with b, c");
        assert_eq!(whereabouts(&value, "/a/b"), "at \"/a/b\" is the number 1");
    }
}
