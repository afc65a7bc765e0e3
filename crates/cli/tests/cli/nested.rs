//! Locks within locks: what the surrounding one covers, circles of commands, and what one waits for.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::place::{Holder, Place, ran, until};

/// How many requests queue.
fn waiters(place: &Place) -> usize {
    place.run(&["locks", "--json"]).json()["waiters"].as_array().unwrap().len()
}

#[test]
fn what_the_surrounding_lock_covers_is_not_taken_again() {
    let place = Place::new();
    let script = "mutext lock tasks/17 plan -- sh -c 'echo done | mutext put tasks/17 - && mutext locks --json'";
    let run = place.run(&["lock", "tasks", "plan", "--", "sh", "-c", script]);
    let table: Value = serde_json::from_str(run.out.lines().last().unwrap()).unwrap();
    assert_eq!((run.status, table["leases"].as_array().unwrap().len()), (0, 1), "{run:?}");
    assert_eq!(place.content("tasks/17"), "done\n");
    let status = place.run(&["lock", "plan", "--", "mutext", "lock", "plan", "--", "sh", "-c", "exit 42"]).status;
    assert_eq!(status, 42);
    // In another context it is another lock.
    let flags = ["--", "mutext", "--context", "other", "lock", "plan", "--", "mutext", "locks", "--json"];
    let table = place.run(&[&["lock", "plan"][..], &flags].concat()).json();
    assert_eq!((table["context"].as_str(), table["leases"].as_array().unwrap().len()), (Some("other"), 1));
}

#[test]
fn a_surrounding_lease_that_is_gone_covers_nothing() {
    let place = Place::new();
    let script = "mutext revoke plan --reason test >&2; mutext lock plan -- echo ran";
    let run = place.run(&["lock", "plan", "--on-loss", "warn", "--", "sh", "-c", script]);
    assert!(run.status == 5 && run.out.is_empty() && run.err.contains("read again"), "{run:?}");
}

#[test]
fn more_than_the_surrounding_lock_covers_is_refused_at_once() {
    let place = Place::new();
    for flags in [&["lock", "plan", "--"][..], &["lock", "plan", "--shared", "--"]] {
        let asked = Instant::now();
        let inner = ["mutext", "lock", "/", "--wait", "1h", "--", "true"];
        let run = place.run(&[flags, &inner].concat());
        run.refused(4, &["would deadlock", "this command runs under that lease", "in the surrounding lock"]);
        assert!(asked.elapsed() < Duration::from_secs(30));
    }
    let run = place.run(&["lock", "plan", "--", "mutext", "lock", "/", "--no-wait", "--", "true"]);
    run.refused(4, &["this command runs under that lease"]);
}

#[test]
fn commands_that_wait_for_each_other_are_told_and_the_others_go_on() {
    let place = Place::new();
    let script =
        |other: &str| format!("echo ready; read -r _; mutext --json lock {other} --wait 1h -- echo got {other}");
    let started = |agent: &str, own: &str, other: &str| {
        let mut command = place.mutext(&["--agent", agent, "lock", own, "--reason", "a long story"]);
        Holder::start(command.args(["--", "sh", "-c", &script(other)]))
    };
    let mut first = started("anna", "a", "b");
    let mut second = started("bert", "b", "a");
    first.tell("go\n");
    until("the first waits", || waiters(&place) == 1);
    second.tell("go\n");
    let (second, first) = (second.end(), first.end());
    assert_eq!((first.status, first.out.as_str()), (0, "got b\n"), "{first:?}");
    let error: Value = serde_json::from_str(second.err.lines().last().unwrap()).unwrap();
    let error = &error["error"];
    assert_eq!((second.status, error["code"].as_str()), (4, Some("deadlock")), "{second:?}");
    let said = error["message"].as_str().unwrap();
    let story = "bert waits for a, and anna holds a (a long story); anna waits for b, and bert holds b (a long story)";
    assert!(said.contains(story), "{said}");
    let who: Vec<_> = error["cycle"].as_array().unwrap().iter().map(|knot| knot["agent"].as_str().unwrap()).collect();
    assert_eq!(who, ["bert", "anna"]);
    assert_eq!(error["cycle"][0]["waits_for"]["lease"]["agent"], "anna");
}

#[test]
fn commands_side_by_side_under_one_lock_wait_for_each_other() {
    let place = Place::new();
    let script = "for i in 1 2 3 4; do mutext lock b --wait 60s -- sh -c 'echo in; sleep 0.02; echo out' & done; wait";
    let run = place.run(&["lock", "a", "--", "sh", "-c", script]);
    assert_eq!((run.status, run.out.as_str()), (0, "in\nout\n".repeat(4).as_str()), "{run:?}");
}

#[test]
fn whoever_waits_is_told_what_for() {
    let place = Place::new();
    let holder = place.hold(&["plan", "--reason", "rewriting"], "echo ready; read -r _");
    let mut command = place.mutext(&["lock", "plan", "--wait", "60s", "--", "true"]);
    let waiting = Holder::start_without_word(&mut command);
    let mut command = place.mutext(&["--json", "lock", "plan", "--wait", "1500ms", "--", "true"]);
    until("the first waits", || waiters(&place) == 1);
    let second = ran(&mut command);
    let told: Value = serde_json::from_str(second.err.lines().next().unwrap()).unwrap();
    assert_eq!(told["waiting"]["ahead"], 1, "{second:?}");
    assert_eq!(told["waiting"]["holders"][0]["reason"], "rewriting");
    holder.end();
    let first = waiting.end();
    assert!(first.status == 0 && first.err.starts_with("waiting: ") && first.err.contains("rewriting"), "{first:?}");
    assert_eq!(first.err.lines().count(), 1, "{first:?}");
}
