//! What holds for every content and every edit: nothing panics, failures change nothing, commuting edits commute.

#![expect(clippy::unwrap_used, reason = "a test that cannot make its input fails")]

use std::collections::BTreeMap;

use mutext_contract::{Content, Kind};
use mutext_edit::{Edit, Which, apply_all};
use proptest::prelude::*;
use serde_json::{Map, Number, Value, json};

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1000..1000_i32).prop_map(|n| json!(f64::from(n) / 8.0)),
        "[a-c \\\\\"\n]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[ab/~]{0,2}", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn text() -> impl Strategy<Value = String> {
    "([ab](\r\n|\n)?){0,8}|\\PC{0,12}"
}

fn content() -> impl Strategy<Value = Option<Content>> {
    prop_oneof![
        1 => Just(None),
        4 => text().prop_map(|text| Some(Content::text(text))),
        2 => json_value().prop_map(|value| Some(Content::json(&value).unwrap())),
        2 => json_value()
            .prop_map(|value| Some(Content::parse_json(serde_json::to_string_pretty(&value).unwrap()).unwrap())),
    ]
}

fn pointer() -> impl Strategy<Value = String> {
    "(/(a|b|0|1|-|~0|~1|)){0,3}|[a/~]{0,3}"
}

fn operation() -> impl Strategy<Value = Value> {
    let good = "(/(a|b|0|1|-|~0|~1|)){0,3}";
    let op = prop::sample::select(vec!["add", "remove", "replace", "move", "copy", "test"]);
    (op, good, good, json_value())
        .prop_map(|(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}))
}

fn edit() -> impl Strategy<Value = Edit> {
    let which = prop_oneof![Just(Which::Only), (0..4_usize).prop_map(Which::Nth), Just(Which::All)];
    prop_oneof![
        ("[ab\n\",:{}\\[\\]0-9]{0,2}", text(), which).prop_map(|(old, new, which)| Edit::Replace { old, new, which }),
        (0..9_usize, text()).prop_map(|(line, text)| Edit::Insert { line, text }),
        text().prop_map(|text| Edit::Append { text }),
        text().prop_map(|text| Edit::Prepend { text }),
        prop::collection::vec(operation(), 0..4)
            .prop_map(|patch| Edit::Patch(serde_json::from_value(Value::from(patch)).unwrap())),
        json_value().prop_map(Edit::MergePatch),
        (pointer(), json_value()).prop_map(|(pointer, item)| Edit::Add { pointer, item }),
        (pointer(), json_value()).prop_map(|(pointer, item)| Edit::AddToSet { pointer, item }),
        (pointer(), any::<i64>()).prop_map(|(pointer, by)| Edit::Increment { pointer, by: by.into() }),
    ]
}

/// How often each line of a text is there, breaks aside.
fn lines(text: &str) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    for line in text.lines() {
        *lines.entry(line.to_owned()).or_default() += 1;
    }
    lines
}

fn sorted(content: &Content, pointer: &str) -> Vec<String> {
    let value: Value = content.parse().unwrap();
    let mut items: Vec<_> = value.pointer(pointer).unwrap().as_array().unwrap().iter().map(Value::to_string).collect();
    items.sort();
    items
}

proptest! {
    #[test]
    fn an_edit_of_anything_gives_content_of_its_kind_or_an_error(content in content(), edit in edit()) {
        let before = content.clone();
        if let Ok(after) = edit.apply(content.as_ref()) {
            prop_assert!(content.as_ref().is_none_or(|content| content.kind() == after.kind()));
            if after.kind() == Kind::Json {
                prop_assert!(Content::parse_json(after.as_str()).is_ok());
            }
        }
        prop_assert_eq!(content, before);
    }

    #[test]
    fn an_edit_is_read_as_it_was_written(edit in edit()) {
        prop_assume!(!matches!(edit, Edit::Replace { which: Which::Nth(0), .. }));
        let written = serde_json::to_string(&edit).unwrap();
        prop_assert_eq!(serde_json::from_str::<Edit>(&written).unwrap(), edit);
    }

    #[test]
    fn a_list_of_edits_is_all_or_none(content in content(), edits in prop::collection::vec(edit(), 1..4)) {
        let mut one_by_one = content.clone();
        let mut failed = None;
        for (index, edit) in edits.iter().enumerate() {
            let Ok(after) = edit.apply(one_by_one.as_ref()) else {
                failed = Some(index);
                break;
            };
            one_by_one = Some(after);
        }
        match apply_all(&edits, content.as_ref()) {
            Ok(after) => prop_assert!(failed.is_none() && Some(after) == one_by_one),
            Err(error) => prop_assert_eq!(Some(error.index), failed),
        }
    }

    #[test]
    fn appended_lines_are_the_same_in_any_order(there in text(), texts in prop::collection::vec(text(), 0..5)) {
        let edits: Vec<_> = texts.into_iter().map(|text| Edit::Append { text }).collect();
        let reversed: Vec<_> = edits.iter().rev().cloned().collect();
        let content = Content::text(there);
        let (one, other) = (apply_all(&edits, Some(&content)).unwrap(), apply_all(&reversed, Some(&content)).unwrap());
        prop_assert_eq!(lines(one.as_str()), lines(other.as_str()));
    }

    #[test]
    fn added_items_are_the_same_in_any_order(items in prop::collection::vec(json_value(), 1..6), set in any::<bool>()) {
        let pointer = String::from("/x/y");
        let edits: Vec<_> = items
            .into_iter()
            .map(|item| {
                if set { Edit::AddToSet { pointer: pointer.clone(), item } } else { Edit::Add { pointer: pointer.clone(), item } }
            })
            .collect();
        let reversed: Vec<_> = edits.iter().rev().cloned().collect();
        let (one, other) = (apply_all(&edits, None).unwrap(), apply_all(&reversed, None).unwrap());
        if set {
            prop_assert_eq!(sorted(&one, &pointer).len(), sorted(&other, &pointer).len());
        } else {
            prop_assert_eq!(sorted(&one, &pointer), sorted(&other, &pointer));
        }
    }

    #[test]
    fn sums_are_the_same_in_any_order(
        parts in prop::collection::vec("-?[1-9][0-9]{0,20}(\\.[0-9]{1,6})?", 1..8)
    ) {
        let by = |text: &str| serde_json::from_str::<Number>(text).unwrap();
        let mut edits: Vec<_> =
            parts.iter().map(|part| Edit::Increment { pointer: "/n".into(), by: by(part) }).collect();
        let one = apply_all(&edits, None).unwrap();
        edits.reverse();
        let other = apply_all(&edits, None).unwrap();
        prop_assert_eq!(one.as_str(), other.as_str());
    }
}
