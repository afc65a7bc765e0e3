//! `lock` and the command that it runs: its status, its environment, its signals, its death.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::place::{Holder, Place, ran, until};

#[test]
fn the_commands_own_status_is_passed_on() {
    let place = Place::new();
    for (script, status) in [("exit 0", 0), ("exit 9", 9), ("kill -KILL $$", 137), ("kill -TERM $$", 143)] {
        assert_eq!(place.run(&["lock", "plan.md", "--", "sh", "-c", script]).status, status, "{script}");
    }
    place.run(&["lock", "plan.md", "--", "no-such-command"]).refused(127, &["no-such-command", "not found"]);
    place.write("no-program", "x");
    place.run(&["lock", "plan.md", "--", "./no-program"]).refused(126, &["./no-program", "cannot be executed"]);
    assert_eq!(place.run(&["locks", "--json"]).json()["leases"].as_array().unwrap().len(), 0, "all given back");
    place.run(&["lock", "plan.md"]).refused(2, &["COMMAND"]);
}

#[test]
fn the_command_finds_its_lease_and_its_store_from_any_directory() {
    let place = Place::new();
    let script = "printf '%s\\n' \"$MUTEXT_LOCK\" \"$MUTEXT_FENCE\" \"$MUTEXT_LEASE\"; cd / && mutext put plan.md x";
    let mut command = place.mutext(&["--agent", "planner", "--context", "c"]);
    let out = ran(command.args(["lock", "plan.md", "tasks/", "--", "sh", "-c", script])).done();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..2], ["plan.md", "tasks"]);
    let lease: serde_json::Value = serde_json::from_str(lines[3]).unwrap();
    assert_eq!(lease["token"], lines[2]);
    assert_eq!(lease["context"], "c");
    assert_eq!(lines[4], "plan.md is at revision 1");
    let document = place.run(&["--context", "c", "get", "plan.md", "--json"]).json();
    assert_eq!(document["author"], "planner");
}

#[test]
fn inside_the_lock_a_document_is_replaced_and_outside_it_is_not() {
    let place = Place::new();
    place.run(&["put", "plan.md", "a"]).done();
    place.run(&["put", "other.md", "a"]).done();
    let inside = |script: &str| place.run(&["lock", "plan.md", "--", "sh", "-c", script]);
    assert_eq!(inside("mutext get plan.md | sed s/a/b/ | mutext put plan.md -").done(), "plan.md is at revision 2\n");
    inside("mutext put other.md b").refused(3, &["other.md", "--if-revision 1"]);
    inside("mutext --context elsewhere put plan.md a >/dev/null; mutext --context elsewhere put plan.md b")
        .refused(3, &["--if-revision 1"]);
    inside("mutext --store embedded:new put plan.md a >/dev/null; mutext --store embedded:new put plan.md b")
        .refused(3, &["--if-revision 1"]);
    inside("mutext put plan.md c --if-revision 1").refused(3, &["conflict", "revision 2"]);
    inside("mutext rm plan.md").done();
    place.run(&["get", "plan.md"]).refused(6, &[]);
    let shared = place.run(&["lock", "other.md", "--shared", "--", "mutext", "put", "other.md", "b"]);
    shared.refused(3, &["other.md"]);
}

#[test]
fn what_is_left_running_in_the_background_writes_nothing_once_the_lease_is_given_back() {
    let place = Place::new();
    place.run(&["put", "plan.md", "first"]).done();
    // It waits until the lock is free again, and then tries.
    let script = "(while mutext locks --json | grep -q '\"leases\":\\[{'; do :; done; mutext put plan.md stale; echo $? >left) >/dev/null 2>&1 &";
    place.run(&["lock", "plan.md", "--", "sh", "-c", script]).done();
    until("the one in the background has tried", || {
        std::fs::read_to_string(place.path("left")).is_ok_and(|status| status == "5\n")
    });
    assert_eq!(place.content("plan.md"), "first");
}

#[test]
fn signals_are_passed_on_and_the_command_decides() {
    for (signal, name) in [
        (Signal::TERM, "TERM"),
        (Signal::INT, "INT"),
        (Signal::HUP, "HUP"),
        (Signal::QUIT, "QUIT"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
    ] {
        let place = Place::new();
        let script = format!("trap 'exit 42' {name}; echo ready; while :; do read line; done");
        let mut command = place.mutext(&["lock", "plan.md", "--", "sh", "-c", &script]);
        // A terminal's foreground group gets Ctrl-C by itself; there is none where tests usually run.
        let has_terminal = std::fs::File::open("/dev/tty").is_ok();
        if has_terminal && matches!(name, "INT" | "QUIT") {
            continue;
        }
        let holder = Holder::start(&mut command);
        holder.signal(signal);
        let ran = holder.end();
        assert_eq!(ran.status, 42, "{name}: {ran:?}");
        place.run(&["lock", "plan.md", "--no-wait", "--", "true"]).done();
    }
}

#[test]
fn a_terminals_interrupt_reaches_the_command_once() {
    let place = Place::new();
    let script = "trap 'n=x$n; echo got' INT; echo ready; read line; read line; echo count=$n; exit 7";
    place.write("run", script);
    let mut command = place.program("script");
    command.args(["-qec", "exec mutext lock plan.md -- sh run", "/dev/null"]);
    let mut terminal = Holder::start_without_word(&mut command);
    let until_said = |terminal: &mut Holder, word: &str| until(word, || terminal.line().contains(word));
    until_said(&mut terminal, "ready");
    terminal.tell("\x03");
    until_said(&mut terminal, "got");
    // Where the signal came before the first read, that one is still to be served.
    terminal.tell("go\ngo\n");
    until_said(&mut terminal, "count=x\r\n");
    assert_eq!(terminal.end().status, 7);
    place.run(&["lock", "plan.md", "--no-wait", "--", "true"]).done();
}

#[test]
fn a_signal_that_ends_the_command_is_the_status_and_the_lock_is_free_at_once() {
    let place = Place::new();
    let holder = place.hold(&["plan.md"], "echo ready; exec sleep 60");
    holder.signal(Signal::TERM);
    assert_eq!(holder.end().status, 143);
    place.run(&["lock", "plan.md", "--no-wait", "--", "true"]).done();
}

#[test]
fn a_signal_while_waiting_leaves_nothing_behind() {
    let place = Place::new();
    let holder = place.hold(&["plan.md"], "echo ready; cat");
    let waits = || place.run(&["locks", "--json"]).json()["waiters"].as_array().unwrap().len();
    let mut command = place.mutext(&["lock", "plan.md", "--wait", "60s", "--", "touch", "ran"]);
    let waiting = Holder::start_without_word(&mut command);
    until("it waits", || waits() == 1);
    waiting.signal(Signal::TERM);
    waiting.end().refused(143, &["SIGTERM", "nothing is held"]);
    assert_eq!(waits(), 0);
    assert_eq!(holder.end().status, 0);
    assert!(!place.path("ran").exists());
}

#[test]
fn what_nohup_has_switched_off_stays_off() {
    let place = Place::new();
    let script = "trap '' HUP; exec mutext lock plan.md -- grep SigIgn /proc/self/status";
    let out = ran(place.program("sh").args(["-c", script])).done();
    let mask = u64::from_str_radix(out.trim().rsplit('\t').next().unwrap(), 16).unwrap();
    assert_eq!(mask & 1, 1, "{out}");
}

#[test]
fn a_lease_is_renewed_for_as_long_as_the_command_runs() {
    let place = Place::new();
    let holder = place.hold(&["plan.md", "--ttl", "500ms"], "echo ready; cat");
    let begun = Instant::now();
    until("three TTLs have passed", || {
        assert_eq!(place.run(&["lock", "plan.md", "--no-wait", "--", "true"]).status, 4);
        begun.elapsed() > Duration::from_millis(1500)
    });
    assert_eq!(holder.end().status, 0);
}

#[test]
fn a_holder_that_is_killed_is_followed_well_before_its_ttl() {
    let place = Place::new();
    // It would outlive its `mutext lock`; the pipe's end ends it.
    let holder = place.hold(&["plan.md", "--ttl", "5s"], "echo ready; cat");
    let mut command = place.mutext(&["lock", "plan.md", "--wait", "20s", "--", "echo", "ready"]);
    let mut waiting = Holder::start_without_word(&mut command);
    until("it waits", || place.run(&["locks", "--json"]).json()["waiters"][0].is_object());
    let killed = Instant::now();
    holder.signal(Signal::KILL);
    assert_eq!(waiting.line(), "ready\n");
    let took = killed.elapsed();
    assert!(took < Duration::from_millis(5100), "{took:?}");
    assert!(took < Duration::from_secs(2), "by its presence, not by its TTL: {took:?}");
    assert_eq!(waiting.end().status, 0);
    assert_eq!(holder.end().status, 137);
}

#[test]
fn a_holder_that_is_stopped_past_its_ttl_is_followed_and_then_told() {
    let place = Place::new();
    place.run(&["put", "plan.md", "first"]).done();
    let script = "trap '' TERM; echo ready; read go; mutext put plan.md stale; echo put $?";
    let mut holder = place.hold(&["plan.md", "--ttl", "300ms"], script);
    holder.signal(Signal::STOP);
    let follower = place.run(&["lock", "plan.md", "--wait", "20s", "--", "mutext", "put", "plan.md", "second"]);
    assert_eq!(follower.done(), "plan.md is at revision 2\n");
    holder.signal(Signal::CONT);
    holder.tell("go\n");
    assert_eq!(holder.line(), "put 5\n");
    holder.end().refused(5, &["lease on plan.md"]);
    assert_eq!(place.content("plan.md"), "second");
}

#[test]
fn a_holder_that_is_stopped_past_its_ttl_goes_on_where_nobody_has_come() {
    let place = Place::new();
    let holder = place.hold(&["plan.md", "--ttl", "200ms"], "echo ready; cat");
    holder.signal(Signal::STOP);
    until("it has lapsed", || place.run(&["locks", "--json"]).json()["leases"][0]["lapsed"] == true);
    holder.signal(Signal::CONT);
    until("it is renewed", || place.run(&["locks", "--json"]).json()["leases"][0]["lapsed"] == false);
    let ran = holder.end();
    assert_eq!((ran.status, ran.err.as_str()), (0, ""), "{ran:?}");
}

#[test]
fn two_processes_that_create_ten_documents_each_make_twenty() {
    let place = Place::new();
    let loops = ["a", "b"].map(|name| {
        let script = format!("for n in 1 2 3 4 5 6 7 8 9 10; do mutext put {name}/$n $n & done; wait");
        Holder::start_without_word(place.program("sh").args(["-c", &script]))
    });
    for process in loops {
        let ran = process.end();
        assert_eq!((ran.status, ran.err.as_str(), ran.out.lines().count()), (0, "", 10), "{ran:?}");
    }
    assert_eq!(place.run(&["ls", "--json"]).json()["documents"].as_array().unwrap().len(), 20);
}

#[test]
fn of_many_that_create_the_same_document_one_succeeds() {
    let place = Place::new();
    let children: Vec<_> =
        (0..8).map(|n| Holder::start_without_word(&mut place.mutext(&["put", "plan.md", &n.to_string()]))).collect();
    let mut ran: Vec<_> = children.into_iter().map(Holder::end).collect();
    ran.sort_unstable_by_key(|ran| ran.status);
    let statuses: Vec<i32> = ran.iter().map(|ran| ran.status).collect();
    assert_eq!(statuses, [0, 3, 3, 3, 3, 3, 3, 3], "{ran:?}");
}

#[test]
fn appends_under_the_lock_are_all_there() {
    let place = Place::new();
    place.run(&["put", "log", ""]).done();
    let script = "{ mutext get log; echo line; } | mutext put log -";
    let children: Vec<_> = (0..8)
        .map(|_| {
            let flags = ["lock", "log", "--wait", "30s", "--", "sh", "-c", script];
            Holder::start_without_word(&mut place.mutext(&flags))
        })
        .collect();
    for child in children {
        let ran = child.end();
        assert_eq!(ran.status, 0, "{ran:?}");
    }
    assert_eq!(place.content("log"), "line\n".repeat(8));
}
