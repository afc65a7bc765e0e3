//! What holds for every difference and every merge: a diff leads from one side to the other, no side's work is lost.

#![expect(clippy::unwrap_used, reason = "a test that cannot make its input fails")]

use std::collections::BTreeMap;

use mutext_contract::{Content, Kind};
use mutext_edit::{DiffOptions, Hunk, Lines, Merge, Place, Resolution, diff, diff_texts, merge};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Few different lines, so that they repeat, some without a final break.
fn text() -> impl Strategy<Value = String> {
    "([abc]{0,1}(\r\n|\n)){0,12}[ab]{0,1}"
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![(0..3_i32).prop_map(Value::from), "[a\n\r\u{2028}]{0,1}".prop_map(Value::from)];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[ab/]{0,1}|id", inner.clone()), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
            prop::collection::vec((0..4_u8, inner), 0..4)
                .prop_map(|items| items.into_iter().map(|(id, item)| json!({"id": id, "x": item})).collect()),
        ]
    })
}

fn json() -> impl Strategy<Value = Content> {
    (json_value(), any::<bool>()).prop_map(|(value, pretty)| {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        Content::parse_json(text.unwrap()).unwrap()
    })
}

fn sides() -> impl Strategy<Value = [Content; 3]> {
    prop_oneof![
        [text(), text(), text()].prop_map(|texts| texts.map(Content::text)),
        [json(), json(), json()],
        (text(), json(), json()).prop_map(|(text, one, other)| [Content::text(text), one, other]),
    ]
}

fn all(merge: &Merge, way: &Resolution) -> Result<Content, String> {
    let ways = merge.hunks().iter().map(|hunk| (hunk.id.clone(), way.clone())).collect::<BTreeMap<_, _>>();
    merge.resolved(&ways).map_err(|error| error.to_string())
}

/// What stands at these lines.
fn at(text: &str, lines: Lines) -> String {
    text.split_inclusive('\n').skip(lines.first - 1).take(lines.count).collect()
}

fn lines(text: &str) -> BTreeMap<&str, usize> {
    let mut lines = BTreeMap::new();
    for line in text.lines() {
        *lines.entry(line).or_default() += 1;
    }
    lines
}

proptest! {
    #[test]
    // Without context, where nothing of one side stands, the reader is one line off (GNU patch is not).
    fn a_difference_leads_from_one_text_to_the_other(old in text(), new in text(), context in 1..4_usize) {
        let diff = diff_texts(&old, &new, &DiffOptions { context, ..DiffOptions::default() });
        prop_assert_eq!(diff.is_empty(), old == new);
        prop_assert!(diff.is_exact());
        if !diff.is_empty() {
            let patch = diffy::Patch::from_str(&diff.text).unwrap();
            prop_assert_eq!(diffy::apply(&old, &patch).unwrap(), new);
        }
    }

    #[test]
    fn a_difference_keeps_within_its_budget_and_counts_the_rest([old, _, new] in sides(), budget in 0..300_usize) {
        let diff = diff(Some(&old), Some(&new), &DiffOptions::default().within(budget));
        let mut hunks = diff.text.split_inclusive('\n').skip(2);
        prop_assert!(hunks.clone().map(str::len).sum::<usize>() <= budget);
        let shown = hunks.by_ref().filter(|line| line.starts_with(['+', '-'])).count();
        prop_assert_eq!(shown + diff.left_out, diff.added + diff.removed);
    }

    #[test]
    fn a_side_that_changed_nothing_decides_nothing([base, ours, _] in sides()) {
        prop_assert_eq!(merge(&base, &ours, &base).content(), Some(ours.clone()));
        prop_assert_eq!(merge(&base, &base, &ours).content(), Some(ours.clone()));
        prop_assert_eq!(merge(&base, &ours, &ours).content(), Some(ours));
    }

    #[test]
    fn a_merge_is_the_same_from_either_side([base, ours, theirs] in sides()) {
        let (one, other) = (merge(&base, &ours, &theirs), merge(&base, &theirs, &ours));
        prop_assert_eq!(one.is_clean(), other.is_clean());
        let (Some(one), Some(other)) = (one.content(), other.content()) else { return Ok(()) };
        match one.kind() {
            Kind::Text => prop_assert_eq!(one, other),
            // New items and members of the two sides at one place may stand either way round.
            Kind::Json => prop_assert_eq!(one.parse::<Value>().unwrap().to_string().len(), other.parse::<Value>().unwrap().to_string().len()),
        }
    }

    #[test]
    fn however_it_is_resolved_json_stays_json([base, ours, theirs] in [json(), json(), json()]) {
        let merge = merge(&base, &ours, &theirs);
        for way in [Resolution::Base, Resolution::Ours, Resolution::Theirs] {
            let content = all(&merge, &way).unwrap();
            prop_assert_eq!(content.kind(), Kind::Json);
            prop_assert!(Content::parse_json(content.as_str()).is_ok());
        }
        if let Ok(content) = all(&merge, &Resolution::Both) {
            prop_assert!(Content::parse_json(content.as_str()).is_ok());
        }
        prop_assert_eq!(merge.marked("a", "b", "c").contains("<<<<<<< a\n"), !merge.is_clean());
    }

    #[test]
    fn hunks_say_what_stands_where([base, ours, theirs] in [text(), text(), text()]) {
        let merge = merge(&Content::text(base.as_str()), &Content::text(ours.as_str()), &Content::text(theirs.as_str()));
        for Hunk { place, base: b, ours: o, theirs: t, .. } in merge.hunks() {
            let Place::Lines { base: bs, ours: os, theirs: ts } = place else { panic!("a text has lines") };
            prop_assert_eq!(at(&base, *bs), b.clone().unwrap_or_default());
            prop_assert_eq!(at(&ours, *os), o.clone().unwrap_or_default());
            prop_assert_eq!(at(&theirs, *ts), t.clone().unwrap_or_default());
        }
    }

    #[test]
    fn no_line_that_a_side_wrote_is_lost([base, ours, theirs] in [text(), text(), text()]) {
        let merge = merge(&Content::text(base.as_str()), &Content::text(ours.as_str()), &Content::text(theirs.as_str()));
        let both = all(&merge, &Resolution::Both).unwrap();
        let (base, merged) = (lines(&base), lines(both.as_str()));
        for side in [&ours, &theirs] {
            for (line, count) in lines(side) {
                let before = base.get(line).copied().unwrap_or_default();
                if count > before && before == 0 {
                    prop_assert!(merged.contains_key(line), "{line:?} is not in {both:?}");
                }
            }
        }
    }

    #[test]
    fn changes_of_lines_apart_are_both_made(changes in prop::collection::vec(0..3_u8, 1..20)) {
        // Line 2n is changed by nobody; line 2n + 1 by whom `changes` says.
        let side = |who: u8| {
            let line = |(n, by): (usize, &u8)| format!("{n}\n{n} by {}\n", if *by & who != 0 { *by } else { 0 });
            changes.iter().enumerate().map(line).collect::<String>()
        };
        let (base, ours, theirs) = (side(0), side(1), side(2));
        let merged = merge(&base.as_str().into(), &ours.as_str().into(), &theirs.as_str().into());
        prop_assert_eq!(merged.content(), Some(Content::text(side(3))));
    }

    #[test]
    fn changes_of_different_items_are_both_made(changes in prop::collection::vec(0..3_u8, 1..20), pretty in any::<bool>()) {
        let side = |who: u8| {
            let item = |(id, by): (usize, &u8)| json!({"id": id, "n": 1, "by": if *by & who != 0 { *by } else { 0 }});
            let mut items: Vec<_> = changes.iter().enumerate().map(item).collect();
            items.extend([1, 2].into_iter().filter(|by| by & who != 0).map(|by| json!({"id": format!("new {by}")})));
            let board = json!({"board": items});
            let text = if pretty { serde_json::to_string_pretty(&board) } else { serde_json::to_string(&board) };
            Content::parse_json(text.unwrap()).unwrap()
        };
        prop_assert_eq!(merge(&side(0), &side(1), &side(2)).content(), Some(side(3)));
    }
}
