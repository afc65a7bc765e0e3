//! What documents were, who changed them, and contexts as a whole: `show`, `diff`, `blame`, `restore`, `purge`, `watch`,
//! `search`, `export`, `import`, and reads of less than everything.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use crate::place::{Holder, Place};

/// A place with a plan of three revisions, by two agents.
fn place_with_a_plan() -> Place {
    let place = Place::new();
    place.run(&["--agent", "planner", "put", "plan.md", "# Plan\n\none\n"]).done();
    place.run(&["--agent", "critic", "append", "plan.md", "two", "--message", "there are two"]).done();
    place.run(&["--agent", "planner", "replace", "plan.md", "--old", "one", "--new", "1"]).done();
    place
}

#[test]
fn past_revisions_are_shown_and_compared() {
    let place = place_with_a_plan();
    assert_eq!(place.run(&["show", "plan.md@1"]).done(), "# Plan\n\none\n");
    assert_eq!(place.run(&["show", "plan.md@2", "--json"]).json()["author"], "critic");
    let diff = place.run(&["diff", "plan.md@1..2"]).done();
    assert!(diff.starts_with("--- plan.md@1\n+++ plan.md@2\n") && diff.contains("+two"), "{diff}");
    let diff = place.run(&["diff", "plan.md@1", "--json"]).json();
    assert_eq!((&diff["to"], &diff["diff"]["added"], &diff["diff"]["removed"]), (&3.into(), &2.into(), &1.into()));
    assert_eq!(place.run(&["diff", "plan.md@2..2"]).done(), "");
    place.run(&["show", "plan.md@9"]).refused(6, &["no revision 9", "newest is 3"]);
    place.run(&["show", "plan.md"]).refused(2, &["plan.md@3"]);
    place.run(&["diff", "no.md@1"]).refused(6, &["no.md"]);
    place.run(&["diff", "plan.md@1..x"]).refused(2, &["\"x\" is not a revision"]);
}

#[test]
fn after_a_purge_it_is_told_who_deleted_what_is_asked_for_and_why() {
    let place = place_with_a_plan();
    place.run(&["--agent", "anna", "purge", "plan.md", "--reason", "it held a name"]).done();
    let parts = ["deleted at revision 4 by anna", "purged: it held a name"];
    for command in [["show", "plan.md@1"], ["restore", "plan.md@2"], ["diff", "plan.md@1..2"], ["show", "plan.md@4"]] {
        let ran = place.run(&command);
        ran.refused(6, &parts);
        assert!(!ran.err.contains("retention"), "{ran:?}");
    }
    let error = place.run(&["show", "plan.md@1", "--json"]).error();
    assert_eq!(error["deleted"], serde_json::json!({ "author": "anna", "message": "purged: it held a name" }));
    place.run(&["show", "plan.md@9"]).refused(6, &["the newest is 4"]);
    place.run(&["show", "never.md@1"]).refused(6, &["there has never been such a document"]);
}

/// Whoever watches few of many documents keeps up with the feed.
#[test]
fn a_watch_says_how_far_it_has_come_while_others_change() {
    let place = Place::new();
    place.run(&["put", "elsewhere.md", "x"]).done();
    let mut command = place.mutext(&["watch", "tasks/", "--after", "0", "--cursors", "--json", "--count", "1"]);
    let mut watch = Holder::start_without_word(&mut command);
    let line: Value = serde_json::from_str(&watch.line()).unwrap();
    assert_eq!(line, serde_json::json!({ "cursor": 1, "changes": [] }));
    // It is no commit that counts.
    place.run(&["put", "tasks/1", "x"]).done();
    let line: Value = serde_json::from_str(&watch.line()).unwrap();
    assert_eq!((&line["cursor"], &line["changes"][0]["path"]), (&2.into(), &"tasks/1".into()));
    assert_eq!(watch.end().status, 0);
}

#[test]
fn blame_names_who_last_touched_each_line_and_each_key() {
    let place = place_with_a_plan();
    let blame = place.run(&["blame", "plan.md", "--json"]).json();
    let by = |blame: &Value, line: usize| {
        let line = &blame["lines"][line];
        (
            line["text"].as_str().unwrap().to_owned(),
            line["author"].as_str().unwrap().to_owned(),
            line["revision"].clone(),
        )
    };
    assert_eq!(by(&blame, 0), ("# Plan".to_owned(), "planner".to_owned(), 1.into()));
    assert_eq!(by(&blame, 2), ("1".to_owned(), "planner".to_owned(), 3.into()));
    assert_eq!(by(&blame, 3), ("two".to_owned(), "critic".to_owned(), 2.into()));
    assert_eq!(blame["lines"][3]["message"], "there are two");
    let table = place.run(&["blame", "plan.md"]).done();
    assert!(table.lines().any(|line| line.contains("critic") && line.ends_with("two")), "{table}");
    place.run(&["put", "t.json", "{\"a\": 1, \"b\": 2}"]).done();
    place.run(&["--agent", "critic", "increment", "t.json", "/b"]).done();
    let blame = place.run(&["blame", "t.json", "--json"]).json();
    assert_eq!((&blame["lines"][1]["at"], &blame["lines"][1]["author"]), (&"/b".into(), &"critic".into()));
    place.run(&["blame", "no.md"]).refused(6, &["no.md"]);
}

#[test]
fn restoring_is_a_new_revision_under_the_rules_of_replacing() {
    let place = place_with_a_plan();
    place.run(&["restore", "plan.md@1"]).refused(3, &["revision 3", "--if-revision 3", "--overwrite"]);
    place.run(&["restore", "plan.md@1", "--if-revision", "2"]).refused(3, &["revision 3", "next:", "--if-revision 3"]);
    let said = place.run(&["restore", "plan.md@1", "--if-revision", "3", "--message", "better"]).done();
    assert_eq!(said, "plan.md is as it was at revision 1; now at revision 4\n");
    assert_eq!(place.content("plan.md"), "# Plan\n\none\n");
    assert_eq!(place.run(&["history", "plan.md", "--json"]).json()["revisions"][0]["message"], "better");
    place.run(&["rm", "plan.md", "--if-revision", "4"]).done();
    place.run(&["restore", "plan.md@3"]).done();
    assert_eq!(place.content("plan.md"), "# Plan\n\n1\ntwo\n");
    let inside = place.run(&["lock", "plan.md", "--", "mutext", "restore", "plan.md@1"]).done();
    assert!(inside.contains("now at revision 7"), "{inside}");
    place.run(&["restore", "plan.md@99", "--overwrite"]).refused(6, &["no revision 99"]);
}

#[test]
fn purging_leaves_nothing_but_a_word_on_who_and_why() {
    let place = place_with_a_plan();
    place.run(&["purge", "plan.md"]).refused(2, &["--reason"]);
    let said = place.run(&["--agent", "office", "purge", "plan.md", "--reason", "asked to be forgotten"]).done();
    assert!(said.contains("revision 4 says so"), "{said}");
    place.run(&["get", "plan.md"]).refused(6, &["plan.md"]);
    place.run(&["show", "plan.md@1"]).refused(6, &["plan.md"]);
    let history = place.run(&["history", "plan.md", "--json"]).json();
    assert_eq!(history["revisions"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&history["revisions"][0]["author"], &history["revisions"][0]["message"]),
        (&"office".into(), &"purged: asked to be forgotten".into())
    );
    place.run(&["purge", "never.md", "--reason", "x"]).refused(6, &["nothing of never.md"]);
}

#[test]
fn what_the_retention_does_not_keep_is_forgotten() {
    let place = place_with_a_plan();
    let tended = crate::place::ran(place.mutext(&["tend", "--json"]).env("MUTEXT_RETENTION_REVISIONS", "2")).json();
    assert_eq!(tended["forgotten"], 1);
    place.run(&["show", "plan.md@1"]).refused(6, &["forgotten", "retention"]);
    assert_eq!(place.run(&["show", "plan.md@2"]).status, 0);
    place.write("m.yaml", "retention_revisions: 1\n");
    assert_eq!(
        place.run(&["--config", "m.yaml", "tend"]).done(),
        "0 expired documents are deleted, 1 past revisions forgotten\n"
    );
    assert_eq!(place.content("plan.md"), "# Plan\n\n1\ntwo\n");
    // A base that is forgotten is a conflict, not a guess.
    place.run(&["put", "plan.md", "# Plan\n\nuno\ntwo\n", "--if-revision", "1", "--merge"]).refused(3, &["revision 3"]);
}

#[test]
fn a_read_costs_no_more_than_what_is_wanted() {
    let place = Place::new();
    let text = format!("# Plan\n\nintro\n\n## Phase 1\n\n{}\n## Phase 2\n\nship\n", "a long line of work\n".repeat(50));
    place.run_with(&["put", "plan.md", "-"], text.as_bytes()).done();
    let get = |flags: &[&str]| place.run(&[&["get", "plan.md"], flags].concat());
    assert_eq!(
        get(&["--if-revision", "1"]).done(),
        format!("plan.md is unchanged; it is at revision 1 by {}\n", "agent")
    );
    assert_eq!(get(&["--if-revision", "1", "--json"]).json()["status"], "unchanged");
    assert_eq!(get(&["--section", "Phase 2"]).done(), "## Phase 2\n\nship\n");
    assert_eq!(get(&["--lines", "1..3"]).done(), "# Plan\n\nintro\n");
    let outline = get(&["--outline"]).done();
    assert!(outline.contains("Plan/Phase 1") && outline.contains("Plan/Phase 2"), "{outline}");
    let first = get(&["--section", "Plan/Phase 1", "--budget", "100", "--json"]).json();
    let next = first["next"].as_str().unwrap();
    place.run(&["replace", "plan.md", "--old", "ship", "--new", "ship it"]).done();
    let rest = get(&["--section", "Plan/Phase 1", "--from", next, "--json"]).json();
    let whole = format!("{}{}", first["content"].as_str().unwrap(), rest["content"].as_str().unwrap());
    assert!(first["content"].as_str().unwrap().len() <= 100 && whole.matches("a long line").count() == 50, "{first}");
    let cut = get(&["--budget", "50"]);
    assert!(cut.err.contains("bytes are left; go on with --from 2:"), "{cut:?}");
    let changed = get(&["--if-revision", "1"]).done();
    assert!(changed.contains("-ship\n+ship it") && changed.len() < 200, "{changed}");
    assert_eq!(get(&["--if-revision", "1", "--section", "Phase 1", "--json"]).json()["status"], "unchanged");
    get(&["--section", "Phase 9"]).refused(6, &["no section \"Phase 9\"", "Plan/Phase 1"]);
    get(&["--pointer", "/a"]).refused(2, &["pointer"]);
    place.run(&["put", "t.json", "{\"tasks\": [{\"a\": 1.10}]}"]).done();
    assert_eq!(place.run(&["get", "t.json", "--pointer", "/tasks/0/a"]).done(), "1.10");
    place.run(&["get", "t.json", "--pointer", "/tasks/7"]).refused(6, &["/tasks/7", "/tasks"]);
    place.run(&["get", "no.md", "--outline"]).refused(6, &["no.md"]);
    get(&["--outline", "--section", "x"]).refused(2, &["--section"]);
    get(&["--lines", "0..3"]).refused(2, &["0..3", "10..20"]);
}

#[test]
fn a_watch_goes_on_where_it_was_interrupted_and_misses_nothing() {
    let place = Place::new();
    place.run(&["--agent", "planner", "put", "tasks/1", "x", "--message", "first"]).done();
    place.run(&["put", "other", "x"]).done();
    place.run(&["rm", "tasks/1", "--if-revision", "1"]).done();
    let lines = place.run(&["watch", "tasks/", "--after", "0", "--count", "2"]).done();
    let lines: Vec<&str> = lines.lines().collect();
    assert!(lines[0].contains("planner  tasks/1@1  first") && lines[1].ends_with("tasks/1@2 (deleted)"), "{lines:?}");
    let mut command = place.mutext(&["watch", "--after", "0", "--json"]);
    let mut watch = Holder::start_without_word(&mut command);
    let mut seen: Vec<Value> = (0..3).map(|_| serde_json::from_str(&watch.line()).unwrap()).collect();
    watch.signal(Signal::INT);
    assert_eq!(watch.end().status, 130);
    for number in 0..3 {
        place.run(&["append", "log", &format!("line {number}")]).done();
    }
    let cursor = seen.last().unwrap()["cursor"].to_string();
    let later = place.run(&["watch", "--after", &cursor, "--count", "3", "--json"]);
    seen.extend(later.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
    let paths: Vec<&str> = seen.iter().map(|commit| commit["changes"][0]["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["tasks/1", "other", "tasks/1", "log", "log", "log"]);
    assert!(later.err.contains("{\"began\":{\"after\":"), "{later:?}");
    place.run(&["watch", "--after", "999"]).refused(6, &["cursor 999", "another store's"]);
}

#[test]
fn a_watch_from_now_on_hears_of_the_next_commit() {
    let place = Place::new();
    place.run(&["put", "old", "x"]).done();
    let mut command = place.mutext(&["watch", "--count", "1"]);
    let mut watch = Holder::start_without_word(&mut command);
    // It may have begun by now or not: what is written until it answers is new to it.
    let line = std::thread::scope(|scope| {
        let line = scope.spawn(|| watch.line());
        let mut number = 0;
        while !line.is_finished() {
            number += 1;
            place.run(&["append", "new", &format!("line {number}")]).done();
        }
        line.join().unwrap()
    });
    assert!(line.contains("new@"), "{line}");
    assert_eq!(watch.end().status, 0);
}

#[test]
fn a_search_finds_words_phrases_and_beginnings() {
    let place = place_with_a_plan();
    place.run(&["put", "notes/a.md", "measure twice, cut once"]).done();
    let hits = place.run(&["search", "\"measure twice\" cut", "--json"]).json();
    assert_eq!((&hits["hits"][0]["path"], hits["hits"].as_array().unwrap().len()), (&"notes/a.md".into(), 1));
    assert!(hits["hits"][0]["snippet"].as_str().unwrap().contains("**"), "{hits}");
    let table = place.run(&["search", "meas* -plan", "notes/"]).done();
    assert!(table.contains("notes/a.md"), "{table}");
    assert_eq!(place.run(&["search", "nowhere"]).done(), "");
    place.run(&["search", "-only"]).refused(2, &["names no word"]);
}

#[test]
fn an_archive_holds_everything_and_comes_in_whole_or_not_at_all() {
    let place = place_with_a_plan();
    place.run(&["put", "t.json", "{ \"n\": 1.10 }"]).done();
    place.run(&["rm", "t.json", "--if-revision", "1", "--message", "not needed"]).done();
    let said = place.run(&["export", "all.jsonl"]).done();
    assert!(said.contains("all.jsonl"), "{said}");
    place.run(&["export", "all.jsonl"]).refused(2, &["all.jsonl is there already", "--overwrite"]);
    let archive = fs::read_to_string(place.path("all.jsonl")).unwrap();
    let team = |arguments: &[&str]| place.run(&[&["--context", "team"], arguments].concat());
    // Cut short anywhere, or altered: nothing of it comes in.
    let lines: Vec<&str> = archive.lines().collect();
    for end in [0, 1, lines.len() / 2, lines.len() - 1] {
        place.write("cut.jsonl", lines[..end].join("\n") + "\n");
        let refused = team(&["import", "cut.jsonl"]);
        assert_eq!((refused.status, refused.out.as_str()), (2, ""), "{end}: {refused:?}");
        assert!(
            refused.err.contains("nothing of it was") || refused.err.contains("begin like an archive"),
            "{refused:?}"
        );
    }
    place.write("cut.jsonl", &archive.as_bytes()[..archive.len() - 20]);
    team(&["import", "cut.jsonl"]).refused(2, &["archive"]);
    place.write("cut.jsonl", archive.replace("two", "six"));
    team(&["import", "cut.jsonl"]).refused(2, &["altered"]);
    place.write("cut.jsonl", b"\xff\n");
    team(&["import", "cut.jsonl"]).refused(2, &["UTF-8"]);
    team(&["import", "nowhere.jsonl"]).refused(7, &["nowhere.jsonl"]);
    assert_eq!(team(&["ls"]).done(), "");
    team(&["import", "all.jsonl"]).done();
    for command in [
        &["history", "plan.md", "--content", "--json"][..],
        &["history", "t.json", "--json"],
        &["get", "plan.md", "--json"],
    ] {
        assert_eq!(team(command).json(), place.run(command).json(), "{command:?}");
    }
    team(&["import", "all.jsonl"]).refused(3, &["team", "has documents already"]);
}
