//! Changing documents by what changes: `append`, `replace`, `patch` and their like, `commit`; bad input to each.

use std::process::Stdio;

use crate::place::{Place, ran};

#[test]
fn lines_are_put_at_either_end_and_between() {
    let place = Place::new();
    assert_eq!(place.run(&["append", "log.md", "one"]).done(), "log.md is at revision 1\n");
    place.run_with(&["append", "log.md", "-"], b"two\nthree\n").done();
    place.run(&["prepend", "log.md", "# Log"]).done();
    place.write("more", "one and a half\n");
    place.run(&["insert", "log.md", "3", "--file", "more", "--message", "between"]).done();
    assert_eq!(place.content("log.md"), "# Log\none\none and a half\ntwo\nthree\n");
    let answer = place.run(&["append", "log.md", "four", "--json"]).json();
    assert_eq!((&answer["revision"], &answer["base"], &answer["unchanged"]), (&5.into(), &4.into(), &false.into()));
    place.run(&["insert", "log.md", "99", "x"]).refused(3, &["before line 99", "has 6 lines", "1 to 7"]);
    place.run(&["append", "log.md"]).refused(2, &["<TEXT>"]);
}

#[test]
fn a_replacement_must_be_there_exactly_once() {
    let place = Place::new();
    place.run(&["put", "plan.md", "open\nopen\nshut\n"]).done();
    place
        .run(&["replace", "plan.md", "--old", "open", "--new", "done"])
        .refused(3, &["\"open\" is there 2 times, on lines 1, 2"]);
    place
        .run(&["replace", "plan.md", "--old", "shot", "--new", "x"])
        .refused(3, &["\"shot\" is not in", "line is 3: \"shut\""]);
    let error = place.run(&["replace", "plan.md", "--old", "open", "--new", "done", "--json"]).error();
    assert_eq!((&error["code"], &error["edit"]["name"]), (&"edit_failed".into(), &"replace".into()));
    assert_eq!((&error["current"]["revision"], &error["exit"]), (&1.into(), &3.into()));
    assert_eq!(place.run(&["history", "plan.md", "--json"]).json()["revisions"].as_array().unwrap().len(), 1);
    place.run(&["replace", "plan.md", "--old", "open", "--new", "done", "--nth", "2"]).done();
    assert_eq!(place.content("plan.md"), "open\ndone\nshut\n");
    place.write("new", "-\n");
    place.run(&["replace", "plan.md", "--old", "n", "--new-file", "new", "--all"]).done();
    assert_eq!(place.content("plan.md"), "ope-\n\ndo-\ne\nshut\n");
    place.run(&["replace", "plan.md", "--old", "", "--new", "x"]).refused(2, &["is empty"]);
    place.run(&["replace", "plan.md", "--old", "e", "--new", "x", "--nth", "0"]).refused(2, &["count from 1"]);
    place.run(&["replace", "plan.md", "--old", "e"]).refused(2, &["--new"]);
}

#[test]
fn json_is_patched_counted_and_added_to_and_stays_as_it_was_written() {
    let place = Place::new();
    place.run(&["put", "t.json", "{ \"n\": 1.10, \"big\": 12345678901234567890123, \"tags\": [\"a\"] }"]).done();
    assert_eq!(place.run(&["increment", "t.json", "/n", "-0.10"]).done(), "t.json is at revision 2: 1.00\n");
    assert_eq!(place.run(&["increment", "t.json", "/builds", "--json"]).json()["value"], 1);
    place.run(&["add", "t.json", "/tags", "\"b\""]).done();
    let said = place.run(&["add-to-set", "t.json", "/tags", "\"a\""]).done();
    assert_eq!(said, "t.json stays at revision 4: it was so already\n");
    let patch = "[{\"op\": \"test\", \"path\": \"/builds\", \"value\": 1}, {\"op\": \"remove\", \"path\": \"/n\"}]";
    place.run(&["patch", "t.json", "--patch", patch]).done();
    place.run_with(&["merge-patch", "t.json", "-"], b"{\"done\": true, \"builds\": null}").done();
    let content = place.content("t.json");
    assert!(content.contains("12345678901234567890123") && content.contains("\"done\": true"), "{content}");
    assert!(!content.contains("builds") && content.starts_with("{\"big\""), "{content}");
    place.run(&["patch", "t.json", "--patch", patch]).refused(3, &["operation 0", "/builds"]);
    place.run(&["add", "t.json", "/tags", "urgent"]).refused(2, &["not JSON", "'\"urgent\"'"]);
    place.run(&["increment", "t.json", "/tags"]).refused(3, &["/tags", "not a number"]);
    place.run(&["increment", "t.json", "/n", "much"]).refused(2, &["much", "0.5"]);
    place.run(&["append", "t.json", "x"]).refused(2, &["does not work on", "add"]);
    assert_eq!(place.content("t.json"), content, "nothing of that was done");
}

#[test]
fn an_edit_of_what_is_not_there_says_how_to_begin() {
    let place = Place::new();
    place.run(&["patch", "no.json", "--patch", "[]"]).refused(6, &["no.json, absent", "create it first"]);
    place.run(&["replace", "no.md", "--old", "a", "--new", "b"]).refused(6, &["no.md, absent"]);
    assert_eq!(place.run(&["replace", "no.md", "--old", "a", "--new", "b", "--json"]).error()["code"], "not_found");
    place.run(&["merge-patch", "yes.json", "--patch", "{\"a\": 1}"]).done();
    assert_eq!(place.run(&["ls", "--json"]).json()["documents"].as_array().unwrap().len(), 1);
}

#[test]
fn bytes_that_are_no_text_and_text_that_is_no_patch_change_nothing() {
    let place = Place::new();
    place.run(&["put", "t.json", "{}"]).done();
    place.run(&["put", "plan.md", "x"]).done();
    place
        .run_with(&["append", "plan.md", "-"], b"ab\xff")
        .refused(2, &["standard input", "byte 2", "nothing was changed"]);
    place.run_with(&["patch", "t.json", "-"], b"[\xff").refused(2, &["standard input", "byte 1"]);
    place.run_with(&["patch", "t.json", "-"], b"").refused(2, &["standard input is not a JSON Patch"]);
    place.run(&["patch", "t.json", "--patch", "{}"]).refused(2, &["is not a JSON Patch"]);
    place.run(&["patch", "t.json", "--patch", "[{\"op\": \"frob\"}]"]).refused(2, &["not a JSON Patch", "frob"]);
    place.run(&["merge-patch", "t.json", "nowhere.json"]).refused(7, &["nowhere.json", "No such file"]);
    place.run_with(&["append", "plan.md", "-"], "x".repeat(1024 * 1024 + 1).as_bytes()).refused(2, &["1048576"]);
    assert_eq!((place.content("plan.md").as_str(), place.content("t.json").as_str()), ("x", "{}"));
}

#[test]
fn an_edit_under_a_key_happens_once_and_one_for_another_revision_is_a_conflict() {
    let place = Place::new();
    let append = ["append", "log.md", "built", "--key", "build-17"];
    place.run(&append).done();
    assert_eq!(place.run(&append).done(), "log.md is at revision 1, since an earlier call with this key\n");
    assert_eq!(place.content("log.md"), "built\n");
    place.run(&["append", "log.md", "other", "--key", "build-17"]).refused(3, &["build-17", "another commit"]);
    place.run(&["--agent", "critic", "append", "log.md", "more", "--message", "because"]).done();
    let refused = place.run(&["append", "log.md", "late", "--if-revision", "1"]);
    refused.refused(3, &["critic wrote revision 2", "because", "+more", "next:", "--if-revision 2"]);
    assert_eq!(place.content("log.md"), "built\nmore\n");
}

#[test]
fn many_that_append_at_once_are_all_there() {
    let place = Place::new();
    place.run(&["put", "counter.json", "{\"n\": 0}"]).done();
    let children: Vec<_> = (0..12)
        .map(|number| {
            let line = format!("line {number}");
            let arguments: &[&str] =
                if number % 2 == 0 { &["append", "log.md", &line] } else { &["increment", "counter.json", "/n"] };
            place.mutext(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let mut lines: Vec<String> = place.content("log.md").lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["line 0", "line 10", "line 2", "line 4", "line 6", "line 8"]);
    assert_eq!(place.content("counter.json"), "{\"n\": 6}");
}

#[test]
fn a_note_with_an_expiry_is_gone_after_it() {
    let place = Place::new();
    place.run(&["put", "note", "x", "--expires", "1s"]).done();
    place.run(&["append", "kept", "x", "--expires", "2h"]).done();
    place.run(&["append", "kept", "x", "--expires", "soon"]).refused(2, &["soon", "never"]);
    crate::place::until("its end", || place.run(&["get", "note"]).status == 6);
    assert_eq!(place.run(&["tend", "--json"]).json()["expired"], 1);
    assert_eq!(place.content("kept"), "x\n");
}

#[test]
fn several_documents_are_changed_together_or_not_at_all() {
    let place = Place::new();
    place.run(&["put", "tasks/17.json", "{}"]).done();
    place.run(&["put", "plan.md", "the plan"]).done();
    let changes = r#"{"message": "task 17 is done", "changes": [
        {"path": "tasks/17.json", "delete": true, "if_revision": 1},
        {"path": "plan.md", "text": "the new plan", "if_revision": 1},
        {"path": "done.json", "json": {"17": true}, "create": true},
        {"path": "log.md", "edits": [{"append": {"text": "17"}}, {"append": {"text": "done"}}]}]}"#;
    let said = place.run_with(&["commit", "-", "--key", "k"], changes.as_bytes()).done();
    for line in
        ["tasks/17.json is at revision 2", "plan.md is at revision 2", "done.json is", "log.md is at revision 1"]
    {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert_eq!(
        (place.content("done.json").as_str(), place.content("log.md").as_str()),
        ("{\"17\":true}", "17\ndone\n")
    );
    assert_eq!(place.run(&["history", "log.md", "--json"]).json()["revisions"][0]["message"], "task 17 is done");
    let again = place.run_with(&["commit", "--key", "k", "--json"], changes.as_bytes()).json();
    assert_eq!((&again["replayed"], &again["revisions"][1]["revision"]), (&true.into(), &2.into()));
    // The second time as a new intention: the first part fails, and nothing of the rest happens.
    place.write("change.json", changes);
    place.run(&["commit", "change.json"]).refused(3, &["tasks/17.json", "next:"]);
    let change = r#"{"changes": [{"path": "log.md", "edits": [{"append": {"text": "x"}}]},
        {"path": "plan.md", "text": "third", "if_revision": 1}]}"#;
    let error = place.run_with(&["commit", "--json"], change.as_bytes()).error();
    assert_eq!(
        (&error["code"], &error["path"], &error["current"]["revision"]),
        (&"conflict".into(), &"plan.md".into(), &2.into())
    );
    assert_eq!((place.content("plan.md").as_str(), place.content("log.md").as_str()), ("the new plan", "17\ndone\n"));
}

#[test]
fn a_commit_that_is_not_one_says_what_is_wrong_with_it() {
    let place = Place::new();
    let refused =
        |text: &str, status, parts: &[&str]| place.run_with(&["commit"], text.as_bytes()).refused(status, parts);
    refused("{", 2, &["standard input", "mutext commit --help", "line 1"]);
    refused("{\"changes\": [{\"path\": \"a\", \"txet\": \"x\"}]}", 2, &["txet"]);
    refused("{\"changes\": []}", 2, &["changes 0 documents"]);
    refused(
        "{\"changes\": [{\"path\": \"a\", \"text\": \"x\"}]}",
        3,
        &["a", "does not say what it takes the place of"],
    );
    refused(
        "{\"changes\": [{\"path\": \"a\", \"text\": \"x\", \"create\": true}, {\"path\": \"a\", \"delete\": true, \"overwrite\": true}]}",
        2,
        &["twice"],
    );
    assert_eq!(place.run(&["ls"]).done(), "");
}

#[test]
fn edits_inside_a_lock_are_made_under_its_lease_and_refused_once_that_is_lost() {
    let place = Place::new();
    place.run(&["put", "plan.md", "1\n"]).done();
    let script = "mutext append plan.md 2 && mutext append plan.md 3 --key k && mutext append plan.md 3 --key k && \
                  printf '{\"changes\": [{\"path\": \"plan.md\", \"edits\": [{\"append\": {\"text\": \"4\"}}]}]}' | mutext commit";
    let ran_inside = place.run(&["lock", "plan.md", "--", "sh", "-c", script]);
    assert!(ran_inside.status == 0 && ran_inside.out.contains("since an earlier call"), "{ran_inside:?}");
    assert_eq!(place.content("plan.md"), "1\n2\n3\n4\n");
    // Whoever has lost the lock does not append, although an append fits whatever is there.
    let mut holder = place
        .hold(&["plan.md", "--on-loss", "warn"], "echo ready; read go; mutext append plan.md late; echo \"status $?\"");
    place.run(&["revoke", "plan.md", "--reason", "test"]).done();
    holder.tell("go\n");
    assert_eq!(holder.line(), "status 5\n");
    assert_eq!(place.content("plan.md"), "1\n2\n3\n4\n");
}

#[test]
fn a_conflict_tells_who_wrote_since_what_they_changed_and_what_to_do() {
    let place = Place::new();
    place.run(&["put", "plan.md", "# Plan\n\none\n\ntwo\n"]).done();
    place.run(&["--agent", "critic", "replace", "plan.md", "--old", "two", "--new", "2", "-m", "numbers"]).done();
    let mine = "# Plan\n\nONE\n\ntwo\n";
    let put = ["put", "plan.md", mine, "--if-revision", "1"];
    let parts =
        ["critic wrote revision 2", "numbers", "-two", "+2", "a merge would be clean", "next: repeat it with --merge"];
    place.run(&put).refused(3, &parts);
    let error = place.run(&[&put[..], &["--json"]].concat()).error();
    assert_eq!((&error["merge"]["clean"], &error["since"][0]["author"]), (&true.into(), &"critic".into()));
    assert!(error["diff"]["text"].as_str().unwrap().contains("+2"), "{error}");
    let merged = place.run(&[&put[..], &["--merge"]].concat()).done();
    assert!(merged.contains("merged with revision 2") && merged.contains("+2"), "{merged}");
    assert_eq!(place.content("plan.md"), "# Plan\n\nONE\n\n2\n");
    let late = ["put", "plan.md", "# Plan\n\nuno\n\ntwo\n", "--if-revision", "1", "--merge"];
    place.run(&late).refused(3, &["contradict each other at line 3", "next: put your change", "--if-revision 3"]);
    let error = place.run(&[&late[..], &["--json"]].concat()).error();
    assert_eq!(error["merge"]["hunks"][0]["ours"], "uno\n");
    place.run(&["put", "plan.md", "x", "--merge"]).refused(2, &["--if-revision"]);
    place.run(&["rm", "plan.md", "--if-revision", "1"]).refused(3, &["revision 3", "next:"]);
}

#[test]
fn a_write_that_drops_most_of_a_document_is_refused_unless_that_is_meant() {
    let place = Place::new();
    place.run(&["put", "plan.md", &"a line\n".repeat(100)]).done();
    let refused = place.run(&["put", "plan.md", "empty", "--overwrite"]);
    refused.refused(3, &["of the 700 bytes", "only 5 would be left", "nothing was written"]);
    let inside = ["lock", "plan.md", "--", "sh", "-c", "true | mutext put plan.md -"];
    place.run(&inside).refused(3, &["only 0 would be left"]);
    assert_eq!(place.run(&["put", "plan.md", "x", "--overwrite", "--json"]).error()["code"], "erosion");
    place.run(&["put", "plan.md", "short", "--overwrite", "--allow-shrink"]).done();
    assert_eq!(place.content("plan.md"), "short");
    assert_eq!(
        place.run(&["put", "plan.md", "short", "--if-revision", "2"]).done(),
        "plan.md stays at revision 2: it holds that already\n"
    );
}

#[test]
fn nothing_from_a_pipe_or_a_file_is_no_line() {
    let place = Place::new();
    place.write("empty", "");
    for command in ["append", "prepend"] {
        place.run(&[command, "log.md", "--file", "empty"]).done();
        let answer = place.run(&[command, "log.md", "-", "--json"]).json();
        assert_eq!((&answer["revision"], &answer["unchanged"]), (&serde_json::Value::Null, &true.into()), "{command}");
    }
    place.run(&["get", "log.md"]).refused(6, &["no document"]);
    place.run(&["append", "log.md", "one"]).done();
    let said = place.run(&["insert", "log.md", "1", "-"]).done();
    assert!(said.contains("stays at revision 1: there was nothing"), "{said}");
    assert_eq!(place.content("log.md"), "one\n");
    // An argument that is empty is meant.
    place.run(&["append", "log.md", ""]).done();
    assert_eq!(place.content("log.md"), "one\n\n");
}

#[test]
fn a_reader_that_has_gone_ends_a_watch_and_an_export() {
    let place = Place::new();
    for number in 0..50 {
        place.run(&["put", &format!("d/{number}"), &"x\n".repeat(2000)]).done();
    }
    for command in ["watch --after 0", "export"] {
        let shell = format!("mutext {command} | head -n 1");
        let ended = ran(place.program("timeout").args(["30", "sh", "-c", &shell]));
        assert!(ended.status == 0 && ended.out.lines().count() == 1, "{command}: {ended:?}");
    }
}

#[test]
fn an_error_does_not_carry_a_long_document() {
    let place = Place::new();
    let long = "a line\n".repeat(1000);
    place.run(&["put", "long.md", &long]).done();
    place.run(&["append", "long.md", "one more"]).done();
    let told = |args: &[&str]| {
        let refused = place.run(args);
        assert!(refused.err.len() < 4096, "{} bytes: {}", refused.err.len(), refused.err);
        let error: serde_json::Value = serde_json::from_str(&refused.err).unwrap();
        assert_eq!(error["error"]["current"]["content"], serde_json::Value::Null);
        assert_eq!(error["error"]["current"]["size"], 7009);
    };
    told(&["put", "long.md", &long, "--if-revision", "1", "--json"]);
    told(&["put", "long.md", &long, "--json"]);
    told(&["replace", "long.md", "--old", "line", "--new", "row", "--json"]);
}
