//! Boards of claims: what is claimed by whom, on JSON and on Markdown, and what holds for any board.

#![expect(clippy::unwrap_used, reason = "a test that cannot make its input fails")]

use mutext_contract::Content;
use mutext_edit::{
    BoardError, ClaimOutcome, Claimant, Condition, Edit, Element, Standing, Step, Stepped, Wanted, claim, elements,
    step,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const NOON: &str = "2026-11-25T12:00:00Z";

fn json_board(text: &str) -> Content {
    Content::parse_json(text).unwrap()
}

fn claimant(by: &str, lease: &str) -> Claimant {
    Claimant { by: by.into(), lease: lease.into(), at: NOON.parse().unwrap(), key: None }
}

fn wanted(condition: Value) -> Wanted {
    Wanted { condition: condition.try_into().unwrap(), attempts_max: None }
}

/// Claims, where no lease has lapsed.
fn claimed(board: &Content, at: &str, condition: Value, claimant: &Claimant) -> Option<(Content, Element)> {
    match claim(board, at, &wanted(condition), claimant, |_| false, &[]).unwrap() {
        ClaimOutcome::Taken { content, element, .. } => Some((content, element)),
        ClaimOutcome::Settled(_) | ClaimOutcome::NoneFree { .. } => None,
    }
}

fn stepped(board: &Content, at: &str, lease: &str, next: Step, edits: &[Edit]) -> Option<Content> {
    match step(board, at, lease, next, NOON.parse().unwrap(), edits).unwrap() {
        Stepped::Changed(content, _) => Some(content),
        Stepped::Before(_) => Some(board.clone()),
        Stepped::Lost => None,
    }
}

#[test]
fn the_first_element_that_is_free_and_wanted_is_claimed() {
    let board = json_board(
        r#"{"tasks": [{"id": 1, "s": "done"}, {"id": 2, "s": "open", "n": 1.0}, {"id": 3, "s": "open"}, 7, "open"]}"#,
    );
    let open = || json!({"s": "open"});
    let (board, first) = claimed(&board, "/tasks", open(), &claimant("amber", "l1")).unwrap();
    assert_eq!((first.at.as_str(), first.content.as_str()), ("/tasks/1", r#"{"id":2,"s":"open","n":1.0}"#));
    let (board, second) = claimed(&board, "/tasks", open(), &claimant("blue", "l2")).unwrap();
    assert_eq!((second.index, second.attempts()), (2, 1));
    let none = claim(&board, "/tasks", &wanted(open()), &claimant("cyan", "l3"), |_| false, &[]).unwrap();
    let ClaimOutcome::NoneFree { held } = none else { panic!("{none:?}") };
    let holders: Vec<_> = held.iter().filter_map(Element::mark).map(|mark| mark.by.as_str()).collect();
    assert_eq!(holders, ["amber", "blue"]);
    assert!(claimed(&board, "/tasks", json!({"s": "lost"}), &claimant("cyan", "l3")).is_none());
}

#[test]
fn conditions_look_at_members_and_below() {
    let board = json_board(r#"[{"a": {"b": [1, 2.0]}, "c": null}]"#);
    let is_met = |condition: Value| claimed(&board, "", condition, &claimant("amber", "l")).is_some();
    assert!(is_met(json!({})) && is_met(json!(null)) && is_met(json!("\"b\"")));
    assert!(is_met(json!({"/a/b/1": 2, "c": null, "missing": null})));
    assert!(!is_met(json!({"/a/b/1": 3})) && !is_met(json!({"missing": 1})) && !is_met(json!("x")));
    let error = Condition::try_from(json!([1])).unwrap_err().to_string();
    assert!(error.contains("a list of 1 item is no condition"), "{error}");
}

#[test]
fn a_claim_whose_lease_has_lapsed_is_taken_over_and_counted() {
    let board = json_board(r#"[{"id":1},{"id":2}]"#);
    let (board, _) = claimed(&board, "", json!({}), &claimant("amber", "old")).unwrap();
    let taken = |board: &Content, attempts_max: Option<u32>| {
        let wanted = Wanted { attempts_max, ..Wanted::default() };
        claim(board, "", &wanted, &claimant("blue", "new"), |mark| mark.lease == "old", &[]).unwrap()
    };
    let ClaimOutcome::Taken { content, element, instead_of } = taken(&board, Some(2)) else { panic!("it has lapsed") };
    assert_eq!((element.index, element.attempts(), instead_of.as_deref()), (0, 2, Some("old")));
    assert_eq!(stepped(&content, "", "old", Step::Complete, &[]), None, "it is not amber's any more");
    let ClaimOutcome::Taken { element, .. } = taken(&board, Some(1)) else { panic!("the second is free") };
    assert_eq!(element.index, 1, "the first was claimed often enough");
}

#[test]
fn what_is_handed_back_is_free_again_and_what_is_completed_is_not() {
    let board = json_board(r#"[{"id":1}]"#);
    let (board, _) = claimed(&board, "", json!({}), &claimant("amber", "l1")).unwrap();
    let left = stepped(&board, "", "l1", Step::HandBack, &[]).unwrap();
    assert_eq!(stepped(&left, "", "l1", Step::HandBack, &[]).unwrap(), left, "twice is once");
    assert_eq!(stepped(&left, "", "l1", Step::Complete, &[]), None);
    let (again, element) = claimed(&left, "", json!({}), &claimant("blue", "l2")).unwrap();
    assert_eq!(element.attempts(), 2);
    let result: Edit = serde_json::from_value(json!({"merge_patch": {"result": 7}})).unwrap();
    let going = stepped(&again, "", "l2", Step::Keep, std::slice::from_ref(&result)).unwrap();
    let done = stepped(&going, "", "l2", Step::Complete, std::slice::from_ref(&result)).unwrap();
    let mark = r#""claim":{"state":"done","by":"blue","lease":"l2","at":"2026-11-25T12:00:00Z","attempt":2}"#;
    assert_eq!(done.as_str(), format!(r#"[{{"id":1,"result":7,{mark}}}]"#));
    assert_eq!(stepped(&done, "", "l2", Step::Complete, &[result]).unwrap(), done, "twice is once");
    assert!(claimed(&done, "", json!({}), &claimant("cyan", "l3")).is_none());
}

#[test]
fn the_same_intention_claims_the_same_element_again() {
    let board = json_board(r#"[{"id":1},{"id":2}]"#);
    let keyed = |by: &str, lease: &str| Claimant { key: Some("k".into()), ..claimant(by, lease) };
    let (board, _) = claimed(&board, "", json!({}), &keyed("amber", "l1")).unwrap();
    let (board, again) = claimed(&board, "", json!({}), &keyed("amber", "l2")).unwrap();
    assert_eq!((again.index, again.attempts(), again.mark().unwrap().lease.as_str()), (0, 1, "l2"));
    let (_, other) = claimed(&board, "", json!({}), &keyed("blue", "l3")).unwrap();
    assert_eq!(other.index, 1, "another agent's key is another key");
    let done = stepped(&board, "", "l2", Step::Complete, &[]).unwrap();
    let settled = claim(&done, "", &Wanted::default(), &keyed("amber", "l4"), |_| false, &[]).unwrap();
    assert!(matches!(settled, ClaimOutcome::Settled(Element { index: 0, .. })), "{settled:?}");
}

#[test]
fn items_of_markdown_are_claimed_and_ticked_off() {
    let text = "# Plan\n\n- [x] slept\n- [ ] *write* `docs` -->\n  with examples\n    1. deep\n* plain\n\n\
                ```\n- [ ] no item\n```\n\n# Later\n\n- [ ] rest\n";
    let board = Content::text(text);
    let all: Vec<_> = elements(&board, "").unwrap();
    let shown: Vec<_> = all.iter().map(|item| format!("{} {}", item.at, item.content.as_str())).collect();
    assert_eq!(shown, ["3 slept", "4 *write* `docs` -->", "6 deep", "7 plain", "15 rest"]);
    assert_eq!(all[1].details.as_deref(), Some("  with examples\n    1. deep\n"));

    let (board, item) = claimed(&board, "Plan", json!("docs"), &claimant("am->ber", "l1")).unwrap();
    assert_eq!(item.content.as_str(), "*write* `docs` -->");
    let line = board.as_str().lines().nth(3).unwrap();
    let mark = r#"{"state":"held","by":"am-\u003eber","lease":"l1","at":"2026-11-25T12:00:00Z","attempt":1}"#;
    assert_eq!(line, format!("- [ ] *write* `docs` --> <!-- claim {mark} -->"));
    assert!(claimed(&board, "", json!("docs"), &claimant("blue", "l2")).is_none());

    let note = Edit::Append { text: "took an hour".into() };
    let done = stepped(&board, "Plan", "l1", Step::Complete, &[note]).unwrap();
    assert!(done.as_str().contains("- [x] *write* `docs` --> <!-- claim {\"state\":\"done\""));
    assert!(done.as_str().contains("-->\n  took an hour\n  with examples\n"), "{}", done.as_str());
    let (done, next) = claimed(&done, "", json!(null), &claimant("blue", "l2")).unwrap();
    assert_eq!(next.content.as_str(), "deep");
    assert_eq!(claimed(&done, "Later", json!(null), &claimant("blue", "l3")).unwrap().1.content.as_str(), "rest");
}

#[test]
fn an_item_ticked_off_by_hand_is_done() {
    let (board, _) = claimed(&Content::text("- [ ] a\n"), "", json!(null), &claimant("amber", "l1")).unwrap();
    let ticked = Content::text(board.as_str().replace("[ ]", "[X]"));
    assert!(claimed(&ticked, "", json!(null), &claimant("blue", "l2")).is_none());
    assert_eq!(stepped(&ticked, "", "l1", Step::Complete, &[]).unwrap(), ticked);
}

#[test]
fn what_is_no_board_is_told() {
    let error = |board: &Content, at: &str| elements(board, at).unwrap_err().to_string();
    let board = json_board(r#"{"a": 1}"#);
    assert_eq!(error(&board, "/a"), "\"/a\" is no board: the number 1 is there; give the JSON Pointer of a list");
    assert_eq!(error(&board, "/b"), "nothing is at \"/b\"; at \"\" is an object with a");
    assert!(error(&board, "a").contains("does not begin with `/`"));
    assert!(error(&"text".into(), "").contains("there is no list"));
    assert!(error(&"- a".into(), "Plan").contains("no section \"Plan\""));
    let members = claim(&"- a".into(), "", &wanted(json!({"a": 1})), &claimant("amber", "l"), |_| false, &[]);
    assert!(matches!(members, Err(BoardError::NoMembers)));
    let unclear = json_board(r#"[{"claim": "we claim"}, 1]"#);
    assert!(elements(&unclear, "").unwrap().iter().all(|element| element.standing == Standing::Unclear));
    assert!(claimed(&unclear, "", json!({}), &claimant("amber", "l")).is_none());
    let (board, _) = claimed(&json_board("[{}]"), "", json!({}), &claimant("amber", "l")).unwrap();
    let edit: Edit = serde_json::from_value(json!({"merge_patch": 1})).unwrap();
    assert!(matches!(
        step(&board, "", "l", Step::Keep, NOON.parse().unwrap(), &[edit]),
        Err(BoardError::NotAnObject { .. })
    ));
}

/// A board of so many elements, as JSON or as Markdown.
fn board(size: usize, is_json: bool) -> Content {
    if is_json {
        return Content::json(&(0..size).map(|id| json!({"id": id})).collect::<Vec<_>>()).unwrap();
    }
    let item = |id: usize| format!("{}- [ ] task {id}\n", if id % 3 == 2 { "  " } else { "" });
    Content::text((0..size).map(item).collect::<String>())
}

proptest! {
    #[test]
    fn whatever_happens_each_element_has_one_holder_and_loses_nothing(
        size in 1..6_usize,
        is_json in any::<bool>(),
        steps in prop::collection::vec((0..4_u8, 0..8_usize), 1..30),
    ) {
        let mut board = board(size, is_json);
        let said = |board: &Content| {
            elements(board, "").unwrap().into_iter().map(|element| element.content.as_str().to_owned()).collect::<Vec<_>>()
        };
        let before = said(&board);
        // Which lease holds which element, as a list of pairs.
        let mut holders: Vec<(String, usize)> = Vec::new();
        for (number, (what, which)) in steps.into_iter().enumerate() {
            let lease = format!("l{number}");
            let holder = holders.get(which % holders.len().max(1)).cloned();
            match (what, holder) {
                (0, _) => {
                    let Some((after, element)) = claimed(&board, "", json!(null), &claimant("a", &lease)) else {
                        prop_assert!(holders.len() == size || elements(&board, "").unwrap().iter().all(
                            |element| !matches!(element.standing, Standing::Open | Standing::Left(_))));
                        continue;
                    };
                    prop_assert!(holders.iter().all(|(_, index)| *index != element.index), "it was held");
                    holders.push((lease, element.index));
                    board = after;
                }
                (1, Some((old, index))) => {
                    // Its lease has lapsed: somebody takes it over, unless another is free before it.
                    let has_lapsed = |mark: &mutext_edit::Mark| mark.lease == old;
                    let taken = claim(&board, "", &Wanted::default(), &claimant("b", &lease), has_lapsed, &[]).unwrap();
                    let ClaimOutcome::Taken { content, element, instead_of } = taken else { panic!("one is free") };
                    prop_assert!(element.index <= index);
                    prop_assert_eq!(instead_of.is_some(), element.index == index);
                    holders.retain(|(_, index)| *index != element.index);
                    holders.push((lease, element.index));
                    board = content;
                }
                (2 | 3, Some((lease, index))) => {
                    let next = if what == 2 { Step::HandBack } else { Step::Complete };
                    board = stepped(&board, "", &lease, next, &[]).unwrap();
                    holders.retain(|(_, held)| *held != index);
                }
                _ => {}
            }
            let marked = elements(&board, "").unwrap();
            for (lease, index) in &holders {
                let is_held = matches!(&marked[*index].standing, Standing::Held(mark) if mark.lease == *lease);
                prop_assert!(is_held, "{lease} does not hold {index}: {board:?}");
            }
            prop_assert_eq!(said(&board), before.clone());
        }
    }
}
