//! `locks`, `revoke`, and who is told what about whom.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use mutext_testbed::RedisServer;

use crate::place::{Holder, Place, ran, until};

#[test]
fn the_table_says_who_holds_what_and_who_waits() {
    let place = Place::new();
    assert_eq!(place.run(&["locks"]).done(), "");
    let holder = place.hold(&["--agent", "planner", "tasks/", "plan.md", "--reason", "re-ordering"], "echo ready; cat");
    let mut waiting = place.mutext(&["--agent", "critic", "lock", "tasks/17", "--wait", "30s", "--", "echo", "ready"]);
    let mut waiting = Holder::start_without_word(&mut waiting);
    until("the critic waits", || place.run(&["locks", "--json"]).json()["waiters"][0].is_object());
    let table = place.run(&["locks", "--json"]).json();
    let lease = &table["leases"][0];
    assert_eq!(lease["agent"], "planner");
    assert_eq!(lease["reason"], "re-ordering");
    assert_eq!(lease["claims"][0]["resource"], "plan.md");
    assert_eq!(lease["claims"][1]["resource"], "tasks");
    assert_eq!(lease["claims"][1]["mode"], "exclusive");
    assert_eq!(lease["waiting"][0]["agent"], "critic");
    assert_eq!(lease["lapsed"], false);
    assert!((5_000..=10_000).contains(&lease["remaining_ms"].as_u64().unwrap()), "{lease}");
    let human = place.run(&["locks"]).done();
    for part in ["plan.md, tasks", "exclusive", "planner", "1: critic", "re-ordering", "waiting for", "tasks/17"] {
        assert!(human.contains(part), "{part}: {human}");
    }
    assert_eq!(holder.end().status, 0);
    assert_eq!(waiting.line(), "ready\n");
    assert_eq!(waiting.end().status, 0);
}

#[test]
fn readers_stand_together_and_keep_writers_out() {
    let place = Place::new();
    let one = place.hold(&["plan.md", "--shared"], "echo ready; cat");
    let other = place.hold(&["plan.md", "--shared"], "echo ready; cat");
    place.run(&["lock", "plan.md", "--no-wait", "--", "true"]).refused(4, &["plan.md"]);
    assert_eq!((one.end().status, other.end().status), (0, 0));
    place.run(&["lock", "plan.md", "--no-wait", "--", "true"]).done();
}

#[test]
fn a_wait_that_runs_out_names_the_holder() {
    let place = Place::new();
    let _holder = place.hold(&["--agent", "planner", "tasks/", "--reason", "re-ordering"], "echo ready; cat");
    let refused = place.run(&["lock", "tasks/17", "--wait", "100ms", "--", "touch", "ran"]);
    refused.refused(4, &["tasks/17", "planner holds tasks", "re-ordering", "wait longer"]);
    assert!(!place.path("ran").exists());
    let error = place.run(&["lock", "tasks/17", "--no-wait", "--json", "--", "true"]).error();
    assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some("timeout"), Some(4)));
    assert_eq!(error["holders"][0]["agent"], "planner");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("not granted at once") && !message.contains("wait longer"), "{message}");
    place.run(&["lock", "elsewhere", "--no-wait", "--", "true"]).done();
}

#[test]
fn anothers_words_cannot_move_the_terminals_cursor() {
    let place = Place::new();
    let _holder = place.hold(&["plan.md", "--reason", "\x1b[2Jgone"], "echo ready; cat");
    let table = place.run(&["locks"]).done();
    assert!(!table.contains('\x1b') && table.contains("gone"), "{table}");
    assert!(!place.run(&["lock", "plan.md", "--no-wait", "--", "true"]).err.contains('\x1b'));
}

#[test]
fn a_command_that_outlives_its_revoked_lease_can_write_nothing() {
    let place = Place::new();
    place.run(&["put", "plan.md", "first"]).done();
    // It is deaf to SIGTERM, says so when it has got it, and then tries to write.
    let script = "trap 'echo told' TERM; echo ready; read go; read go; mutext put plan.md stale; echo put $?; exit 0";
    let mut holder = place.hold(&["--agent", "planner", "plan.md"], script);
    let revoked = place.run(&["--agent", "ops", "revoke", "plan.md", "--reason", "it hangs", "--json"]).json();
    assert_eq!(revoked["revoked"][0]["agent"], "planner");
    assert_eq!(holder.line(), "told\n");
    // Nobody has taken the lock since, so that only the lock service knows.
    holder.tell("go\ngo\n");
    assert_eq!(holder.line(), "put 5\n");
    let ran = holder.end();
    ran.refused(5, &["lease on plan.md", "ops revoked it: it hangs", "ended with status 0", "read again"]);
    assert_eq!(place.content("plan.md"), "first");
}

#[test]
fn a_later_holder_fences_the_earlier_one_off() {
    let place = Place::new();
    place.run(&["put", "plan.md", "first"]).done();
    // With a revision the lock service is not asked: the store's fence decides alone.
    let script = "trap '' TERM; echo ready; read go; mutext put plan.md stale --if-revision 2; echo put $?";
    let mut holder = place.hold(&["plan.md"], script);
    place.run(&["revoke", "plan.md", "--reason", "test"]).done();
    place.run(&["lock", "plan.md", "--", "mutext", "put", "plan.md", "second"]).done();
    holder.tell("go\n");
    assert_eq!(holder.line(), "put 5\n");
    assert_eq!(holder.end().status, 5);
    assert_eq!(place.content("plan.md"), "second");
}

#[test]
fn a_warned_command_goes_on() {
    let place = Place::new();
    let mut holder = place.hold(&["plan.md", "--on-loss", "warn"], "echo ready; cat; exit 9");
    place.run(&["revoke", "plan.md", "--reason", "it hangs"]).done();
    holder.tell("still here\n");
    assert_eq!(holder.line(), "still here\n");
    let ran = holder.end();
    assert_eq!(ran.status, 9, "{ran:?}");
    assert!(ran.err.contains("warning: the lease on plan.md"), "{ran:?}");
}

#[test]
fn a_lease_is_revoked_by_its_id_too() {
    let place = Place::new();
    let holder = place.hold(&["plan.md", "--shared"], "echo ready; cat");
    let other = place.hold(&["plan.md", "--shared"], "echo ready; cat");
    let leases = place.run(&["locks", "--json"]).json();
    let id = leases["leases"][0]["lease"].as_str().unwrap().to_owned();
    place.run(&["revoke", "--lease", "abc", "--reason", "x"]).refused(2, &["abc", "too short"]);
    place.run(&["revoke", "--lease", &id[..12], "--reason", "x"]).done();
    assert_eq!(holder.end().status, 5);
    assert_eq!(other.end().status, 0);
    place.run(&["revoke", "plan.md", "--reason", "x"]).refused(6, &["plan.md", "mutext locks"]);
    place.run(&["revoke", "--lease", &id, "--reason", "x"]).refused(6, &[&id]);
    place.run(&["revoke", "plan.md"]).refused(2, &["--reason"]);
}

#[test]
fn what_was_revoked_is_listed_with_who_did_it_and_why() {
    let place = Place::new();
    assert_eq!(place.run(&["locks", "--revoked", "--json"]).json()["revocations"], serde_json::json!([]));
    let holder = place.hold(&["plan.md", "--on-loss", "warn"], "echo ready; read -r _");
    let flags = ["--agent", "operator", "revoke", "plan.md", "--reason", "it hangs"];
    place.run(&flags).done();
    drop(holder);
    let record = &place.run(&["locks", "--revoked", "--json"]).json()["revocations"][0];
    assert_eq!((record["by"].as_str(), record["reason"].as_str()), (Some("operator"), Some("it hangs")));
    assert_eq!(record["claims"][0]["resource"], "plan.md");
    let table = place.run(&["locks", "--revoked"]).done();
    assert!(table.starts_with("when") && table.contains("plan.md") && table.contains("it hangs"), "{table}");
    place.run(&["locks", "--revoked", "--watch"]).refused(2, &["--watch"]);
}

#[test]
fn documents_are_read_and_written_while_the_lock_server_is_down() {
    let place = Place::new();
    let locks = "redis://127.0.0.1:1";
    let run = |arguments: &[&str]| ran(place.mutext(&["--locks", locks]).args(arguments));
    run(&["put", "plan.md", "one\n"]).done();
    run(&["put", "plan.md", "two\n", "--if-revision", "1"]).done();
    run(&["put", "plan.md", "three\n", "--if-revision", "1"]).refused(3, &["revision 2"]);
    run(&["append", "plan.md", "three"]).done();
    assert_eq!(run(&["get", "plan.md"]).done(), "two\nthree\n");
    assert_eq!(run(&["history", "plan.md", "--json"]).json()["revisions"].as_array().unwrap().len(), 3);
    // What needs a lock says what is wrong, and does not run.
    for needs in [&["lock", "plan.md", "--", "echo", "ran"][..], &["lock", "plan.md", "--no-wait", "--", "echo", "ran"]]
    {
        run(needs).refused(7, &[locks, "is not available", "see that the server runs"]);
    }
    run(&["locks"]).refused(7, &[locks, "is not available"]);
}

#[test]
fn whoever_waits_for_a_lock_waits_for_its_server_too() {
    let place = Place::new();
    let mut server = RedisServer::start().unwrap();
    let locks = server.url();
    server.kill().unwrap();
    let mut waiting = place.mutext(&["--locks", &locks, "lock", "plan.md", "--wait", "30s", "--", "echo", "ready"]);
    let mut waiting = Holder::start_without_word(&mut waiting);
    std::thread::sleep(Duration::from_millis(300));
    server.restart().unwrap();
    assert_eq!(waiting.line(), "ready\n");
    assert_eq!(waiting.end().status, 0);
}

#[test]
fn a_server_that_is_not_redis_is_named_as_that() {
    let place = Place::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let locks = format!("redis://{}", server.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in server.incoming().flatten() {
            let _ = (&stream).write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            let _ = (&stream).read(&mut [0; 1024]);
        }
    });
    let run = ran(&mut place.mutext(&["--locks", &locks, "lock", "plan.md", "--", "true"]));
    run.refused(7, &[&locks, "an HTTP server answers there", "name the host and the port of a Redis server"]);
}

#[test]
fn a_reason_that_must_be_given_says_something() {
    let place = Place::new();
    place.run(&["revoke", "plan.md", "--reason", " "]).refused(2, &["--reason", "say why"]);
    place.run(&["purge", "plan.md", "--reason", ""]).refused(2, &["--reason", "say why"]);
}
