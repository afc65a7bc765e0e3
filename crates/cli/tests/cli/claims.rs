//! `claim`: one element of a board, for the time of a command, or by its handle.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::place::{Holder, Place, ran, until};

/// A place with a board of so many open tasks.
fn place_with_tasks(count: usize) -> Place {
    let place = Place::new();
    let tasks: Vec<Value> = (0..count).map(|number| serde_json::json!({"name": number, "state": "open"})).collect();
    place.run(&["put", "board.json", &serde_json::json!({ "tasks": tasks }).to_string()]).done();
    place
}

fn task(place: &Place, number: usize) -> Value {
    let board: Value = serde_json::from_str(&place.content("board.json")).unwrap();
    board["tasks"][number].clone()
}

const OPEN: &str = "{\"state\": \"open\"}";

#[test]
fn a_command_has_the_element_while_it_runs_and_completes_it_by_ending_well() {
    let place = place_with_tasks(2);
    let script = "echo \"$MUTEXT_ELEMENT\"; mutext get board.json --pointer /tasks/0/claim/state";
    let flags = ["claim", "board.json", "/tasks", "--where", OPEN, "--done", "{\"state\": \"done\"}"];
    let worked = place.run(&[&flags[..], &["--", "sh", "-c", script]].concat()).done();
    assert!(worked.contains("\"name\":0") && worked.ends_with("\"held\""), "{worked}");
    assert_eq!((&task(&place, 0)["state"], &task(&place, 0)["claim"]["state"]), (&"done".into(), &"done".into()));
    // One that fails gives it back, with its own status.
    assert_eq!(place.run(&[&flags[..], &["--", "sh", "-c", "exit 9"]].concat()).status, 9);
    assert_eq!((&task(&place, 1)["state"], &task(&place, 1)["claim"]["state"]), (&"open".into(), &"left".into()));
    let attempts = place.run(&[&flags[..], &["--attempts-max", "1", "--", "true"]].concat());
    attempts.refused(4, &["nothing that is wanted is free"]);
    assert_eq!(place.run(&[&flags[..], &["--", "no-such-command"]].concat()).status, 127);
    place.run(&["claim", "board.json", "/tasks", "--where", "{\"name\": 7}", "--", "true"]).refused(4, &["free"]);
    place.run(&["claim", "no.json", "/tasks", "--", "true"]).refused(6, &["no.json"]);
    place.run(&["claim", "board.json", "/nowhere", "--", "true"]).refused(6, &["/nowhere"]);
    place.run(&["claim"]).refused(2, &["<PATH>"]);
}

#[test]
fn an_element_that_was_completed_is_not_given_back_and_not_said_to_be_lost() {
    let place = place_with_tasks(1);
    let claimed = place.run(&["claim", "board.json", "/tasks", "--where", OPEN, "--json"]).json();
    let completed = claimed["handle"].as_str().unwrap().to_owned();
    place.run(&["claim", "--complete", &completed]).done();
    let refused = place.run(&["claim", "--give-back", &completed]);
    refused.refused(3, &["/tasks/0 was completed under this claim before", "nothing was changed"]);
    assert_eq!(place.run(&["claim", "--give-back", &completed, "--json"]).error()["code"], "settled");
    assert_eq!(task(&place, 0)["claim"]["state"], "done");
}

#[test]
fn of_many_who_claim_each_has_another_element() {
    let place = place_with_tasks(4);
    let claim = ["claim", "board.json", "/tasks", "--where", OPEN, "--done", "{\"state\": \"done\"}"];
    let children: Vec<_> = (0..6)
        .map(|_| {
            let mut command = place.mutext(&claim);
            command.args(["--", "sh", "-c", "echo \"$MUTEXT_ELEMENT\""]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let outputs: Vec<_> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let mut seen: Vec<String> = outputs
        .iter()
        .filter(|output| output.status.success())
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .collect();
    seen.sort();
    let count = seen.len();
    seen.dedup();
    assert_eq!((count, seen.len()), (4, 4), "{outputs:?}");
    assert!((0..4).all(|number| task(&place, number)["state"] == "done"));
}

#[test]
fn a_claim_without_a_command_is_completed_by_its_handle() {
    let place = place_with_tasks(2);
    let claim = ["--agent", "planner", "claim", "board.json", "/tasks", "--where", OPEN, "--ttl", "30s"];
    let answer = place.run(&[&claim[..], &["--json", "--set", "{\"state\": \"doing\"}"]].concat()).json();
    assert_eq!(
        (&answer["status"], &answer["at"], &answer["kept_ms"]),
        (&"claimed".into(), &"/tasks/0".into(), &30_000.into())
    );
    assert_eq!((&answer["value"]["state"], &answer["attempt"]), (&"doing".into(), &1.into()));
    let handle = answer["handle"].as_str().unwrap();
    // It is held although the command that claimed it has ended: another one gets the other element, a third one none.
    let other = place.run(&claim).done();
    assert!(other.contains("/tasks/1 of board.json is yours for 30") && other.contains("--complete"), "{other}");
    let error = place.run(&["claim", "board.json", "/tasks", "--json"]).error();
    assert_eq!((&error["code"], error["held"].as_array().unwrap().len()), (&"none_free".into(), 2), "{error}");
    assert_eq!((&error["held"][0]["by"], error["soonest_ms"].is_u64()), (&"planner".into(), true), "{error}");
    let done = place.run(&["claim", "--complete", handle, "--done", "{\"state\": \"done\"}"]).done();
    assert!(done.starts_with("/tasks/0 of board.json is completed"), "{done}");
    place.run(&["claim", "--complete", handle]).done();
    assert_eq!(task(&place, 0)["state"], "done");
    let back = other.lines().find_map(|line| line.strip_prefix("or:   mutext claim --give-back '")).unwrap();
    place.run(&["claim", "--give-back", back.trim_end_matches('\'')]).done();
    assert_eq!(task(&place, 1)["claim"]["state"], "left");
    // Whoever kept the leases has seen that, and lets them go.
    until("the leases to go back", || place.run(&["locks", "--json"]).json()["leases"].as_array().unwrap().is_empty());
    place.run(&["claim", "--complete", back.trim_end_matches('\'')]).refused(5, &["lost"]);
    place.run(&["claim", "--complete", "nonsense"]).refused(2, &["nonsense", "no handle"]);
}

#[test]
fn an_element_goes_back_when_its_time_is_over_or_its_holder_is_killed() {
    let place = place_with_tasks(1);
    let claim = ["claim", "board.json", "/tasks", "--where", OPEN];
    let first = place.run(&[&claim[..], &["--ttl", "1s", "--json"]].concat()).json();
    until("its time to be over", || task(&place, 0)["claim"]["state"] == "left");
    place.run(&["claim", "--complete", first["handle"].as_str().unwrap()]).refused(5, &["lost", "nothing was written"]);
    let mut command = place.mutext(&[&claim[..], &["--", "sh", "-c", "echo ready; read forever"]].concat());
    let holder = Holder::start(&mut command);
    assert_eq!(task(&place, 0)["claim"]["attempt"], 2);
    holder.signal(Signal::KILL);
    drop(holder);
    let script = "mutext get board.json --pointer /tasks/0/claim/attempt";
    let mut last = None;
    until("somebody else to have it", || {
        let next = place.run(&[&claim[..], &["--", "sh", "-c", script]].concat());
        let has_it = next.status == 0;
        last = Some(next);
        has_it
    });
    assert_eq!(last.unwrap().out, "3");
}

#[test]
fn items_of_markdown_are_claimed_and_checked_off() {
    let place = Place::new();
    place.run(&["put", "todo.md", "# Todo\n\n- [ ] write\n- [ ] test\n"]).done();
    let worked =
        place.run(&["claim", "todo.md", "--where", "test", "--", "sh", "-c", "echo \"$MUTEXT_ELEMENT\""]).done();
    assert_eq!(worked, "test\n");
    let text = place.content("todo.md");
    assert!(text.contains("- [ ] write\n") && text.contains("- [x] test"), "{text}");
}

#[test]
fn the_same_claim_under_a_key_is_the_same_element() {
    let place = place_with_tasks(2);
    let claim = ["claim", "board.json", "/tasks", "--where", OPEN, "--key", "k", "--ttl", "20s", "--json"];
    let (first, again) = (place.run(&claim).json(), place.run(&claim).json());
    assert_eq!((&first["at"], &again["at"]), (&"/tasks/0".into(), &"/tasks/0".into()));
    place.run(&["claim", "--complete", again["handle"].as_str().unwrap()]).done();
    assert_eq!(place.run(&claim).json()["status"], "settled");
    let settled = ran(place.mutext(&claim[..7]).args(["--", "echo", "not run"]));
    assert!(settled.status == 0 && settled.out.is_empty() && settled.err.contains("completed before"), "{settled:?}");
}
