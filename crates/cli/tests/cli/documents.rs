//! `get`, `put`, `ls`, `rm`, `history`.

use crate::place::Place;

#[test]
fn a_document_is_created_read_and_listed() {
    let place = Place::new();
    assert_eq!(place.run(&["put", "plan.md", "measure"]).done(), "plan.md is at revision 1\n");
    assert_eq!(place.run(&["get", "plan.md"]).done(), "measure", "nothing is added in a pipe");
    place.run(&["--agent", "critic", "put", "tasks/1.json", "{\"done\": false}"]).done();
    let listing = place.run(&["ls", "--json"]).json();
    assert_eq!(listing["documents"][1]["path"], "tasks/1.json");
    assert_eq!(listing["documents"][1]["kind"], "json");
    assert_eq!(listing["documents"][1]["size"], 15);
    assert_eq!(listing["documents"][1]["author"], "critic");
    let table = place.run(&["ls", "tasks/"]).done();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("path") && lines[1].starts_with("tasks/1.json  1"), "{table}");
    assert_eq!(place.run(&["ls", "none"]).done(), "");
}

#[test]
fn a_document_in_json_tells_all_about_it() {
    let place = Place::new();
    place.run(&["--agent", "planner", "put", "plan.md", "two\nlines"]).done();
    let document = place.run(&["get", "plan.md", "--json"]).json();
    assert_eq!(document["path"], "plan.md");
    assert_eq!(document["revision"], 1);
    assert_eq!(document["kind"], "text");
    assert_eq!(document["author"], "planner");
    assert_eq!(document["content"], "two\nlines");
    let written = document["written_at"].as_str().unwrap();
    assert!(written.parse::<jiff::Timestamp>().is_ok(), "{written}");
}

#[test]
fn a_document_that_is_not_there_is_told_apart_from_trouble() {
    let place = Place::new();
    place.run(&["get", "plan.md"]).refused(6, &["no document plan.md", "context default", "mutext ls"]);
    let error = place.run(&["get", "plan.md", "--json"]).error();
    assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some("not_found"), Some(6)));
    place.run(&["rm", "plan.md", "--overwrite"]).refused(6, &["plan.md"]);
    place.run(&["history", "plan.md"]).refused(6, &["plan.md"]);
    place.run(&["put", "plan.md", "a"]).done();
    place.run(&["get", "plan.md", "--revision", "7"]).refused(6, &["no revision 7"]);
}

#[test]
fn replacing_without_saying_what_is_refused_and_names_the_current_revision() {
    let place = Place::new();
    place.run(&["--agent", "planner", "put", "plan.md", "first"]).done();
    let parts = ["plan.md", "revision 1", "planner", "--if-revision 1", "mutext lock", "--overwrite"];
    place.run(&["put", "plan.md", "second"]).refused(3, &parts);
    let error = place.run(&["put", "plan.md", "second", "--json"]).error();
    assert_eq!(error["code"], "precondition_required");
    assert_eq!(error["current"]["revision"], 1);
    assert_eq!(error["current"]["content"], "first");
    assert_eq!(place.content("plan.md"), "first");
}

#[test]
fn a_write_for_an_old_revision_is_refused_and_carries_what_is_there() {
    let place = Place::new();
    place.run(&["put", "plan.md", "first"]).done();
    assert_eq!(place.run(&["put", "plan.md", "second", "--if-revision", "1"]).done(), "plan.md is at revision 2\n");
    place.run(&["put", "plan.md", "third", "--if-revision", "1"]).refused(3, &["conflict", "revision 2", "revision 1"]);
    let error = place.run(&["put", "plan.md", "third", "--if-revision", "1", "--json"]).error();
    assert_eq!(error["code"], "conflict");
    assert_eq!(error["demanded"], "revision 1");
    assert_eq!(error["current"]["content"], "second");
    place.run(&["put", "new.md", "x", "--if-revision", "1"]).refused(3, &["new.md is absent"]);
    place.run(&["put", "plan.md", "third", "--overwrite"]).done();
    assert_eq!(place.content("plan.md"), "third");
}

#[test]
fn deleting_has_the_rules_of_replacing_and_keeps_the_history() {
    let place = Place::new();
    place.run(&["put", "plan.md", "first"]).done();
    place.run(&["rm", "plan.md"]).refused(3, &["revision 1", "to delete it", "--if-revision 1"]);
    place.run(&["rm", "plan.md", "--if-revision", "2"]).refused(3, &["conflict"]);
    let gone = place.run(&["rm", "plan.md", "--if-revision", "1", "-m", "done with it", "--json"]).json();
    assert_eq!((gone["revision"].as_u64(), gone["deleted"].as_bool()), (Some(2), Some(true)));
    place.run(&["get", "plan.md"]).refused(6, &["plan.md"]);
    place.run(&["get", "plan.md", "--revision", "2"]).refused(6, &["deleted at revision 2"]);
    assert_eq!(place.run(&["get", "plan.md", "--revision", "1"]).done(), "first");
    assert_eq!(place.run(&["put", "plan.md", "again"]).done(), "plan.md is at revision 3\n");
}

#[test]
fn history_says_who_wrote_what_and_why() {
    let place = Place::new();
    place.run(&["put", "plan.md", "first", "--message", "to begin with"]).done();
    place.run(&["--agent", "critic", "put", "plan.md", "second", "--if-revision", "1"]).done();
    place.run(&["rm", "plan.md", "--overwrite"]).done();
    let history = place.run(&["history", "plan.md", "--content", "--json"]).json();
    let revisions = history["revisions"].as_array().unwrap();
    assert_eq!(revisions.len(), 3);
    assert_eq!((revisions[0]["deleted"].as_bool(), revisions[0]["content"].as_str()), (Some(true), None));
    assert_eq!(revisions[1]["author"], "critic");
    assert_eq!(revisions[2]["message"], "to begin with");
    assert_eq!(revisions[2]["content"], "first");
    let table = place.run(&["history", "plan.md", "--limit", "1"]).done();
    assert!(table.lines().count() == 2 && table.contains("deleted"), "{table}");
    let earlier = place.run(&["history", "plan.md", "--before", "2", "--content"]).done();
    assert!(earlier.contains("revision 1 by") && earlier.ends_with("first\n"), "{earlier}");
}

#[test]
fn content_comes_from_standard_input_or_a_file_only_when_asked() {
    let place = Place::new();
    place.run_with(&["put", "a", "-"], b"from a pipe\n").done();
    assert_eq!(place.content("a"), "from a pipe\n");
    let file = place.write("in.txt", "from a file");
    place.run(&["put", "b", "--file", file.to_str().unwrap()]).done();
    assert_eq!(place.content("b"), "from a file");
    // A pipe that happens to be there, empty as a scheduler leaves it, is not content.
    place.run_with(&["put", "a", "--overwrite"], b"").refused(2, &["TEXT"]);
    assert_eq!(place.content("a"), "from a pipe\n");
    place.run(&["put", "c", "text", "--file", "in.txt"]).refused(2, &["--file"]);
}

#[test]
fn json_is_what_ends_in_json_unless_told_otherwise() {
    let place = Place::new();
    place.run(&["put", "a.json", "{ \"n\": 1.10 }"]).done();
    assert_eq!(place.content("a.json"), "{ \"n\": 1.10 }");
    place.run(&["put", "b.json", "not json", "--type", "text"]).done();
    place.run(&["put", "c", "[1]", "--type", "json"]).done();
    assert_eq!(place.run(&["get", "c", "--json"]).json()["kind"], "json");
}

#[test]
fn a_retry_under_a_key_happens_once() {
    let place = Place::new();
    let put = ["put", "plan.md", "first", "--key", "intent-1"];
    place.run(&put).done();
    assert_eq!(place.run(&put).done(), "plan.md is at revision 1, since an earlier call with this key\n");
    place.run(&["put", "plan.md", "other", "--key", "intent-1"]).refused(3, &["intent-1", "fresh key"]);
    let rm = ["rm", "plan.md", "--if-revision", "1", "--key", "intent-2", "--json"];
    assert_eq!(place.run(&rm).json()["replayed"], false);
    assert_eq!(place.run(&rm).json()["replayed"], true);
}

#[test]
fn contexts_do_not_see_each_other() {
    let place = Place::new();
    place.run(&["--context", "one", "put", "plan.md", "1"]).done();
    place.run(&["--context", "two", "get", "plan.md"]).refused(6, &["context two"]);
}
