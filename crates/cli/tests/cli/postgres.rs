//! The main commands once through, with the documents on a real PostgreSQL.

use std::fs;

use mutext_testbed::PostgresServer;
use serde_json::Value;

use crate::place::{Holder, Place, Ran, ran};

/// A place whose documents lie on a server, and its locks in its directory.
struct OnPostgres {
    place: Place,
    server: PostgresServer,
}

impl OnPostgres {
    fn mutext(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = self.place.mutext(arguments);
        command.env("MUTEXT_STORE", self.server.url()).env("MUTEXT_LOCKS", "embedded:locks");
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        ran(&mut self.mutext(arguments))
    }
}

#[test]
fn the_main_commands_do_on_postgres_what_they_do_on_the_embedded_store() {
    let on = OnPostgres { place: Place::new(), server: PostgresServer::start().unwrap() };
    on.run(&["put", "plan.md", "# Plan\n\none\n\ntwo\n"]).done();
    on.run(&["--agent", "critic", "replace", "plan.md", "--old", "two", "--new", "2", "-m", "numbers"]).done();
    let mine = ["put", "plan.md", "# Plan\n\nONE\n\ntwo\n", "--if-revision", "1"];
    on.run(&mine).refused(3, &["critic wrote revision 2", "numbers", "a merge would be clean"]);
    assert!(on.run(&[&mine[..], &["--merge"]].concat()).done().contains("merged with revision 2"));
    on.run(&["append", "log.md", "one", "--key", "k"]).done();
    assert!(on.run(&["append", "log.md", "one", "--key", "k"]).done().contains("since an earlier call"));
    on.run(&["put", "t.json", "{\"n\": 41}"]).done();
    assert_eq!(on.run(&["increment", "t.json", "/n", "--json"]).json()["value"], 42);
    on.run(&["patch", "t.json", "--patch", "[{\"op\": \"test\", \"path\": \"/n\", \"value\": 1}]"]).refused(3, &["/n"]);
    let changes = r#"{"changes": [{"path": "t.json", "edits": [{"increment": {"pointer": "/n"}}]},
        {"path": "new.md", "text": "new", "create": true}]}"#;
    on.place.write("change.json", changes);
    on.run(&["commit", "change.json"]).done();
    on.run(&["commit", "change.json"]).refused(3, &["new.md"]);
    assert_eq!(on.run(&["get", "t.json", "--pointer", "/n"]).done(), "43");
    on.run(&["lock", "log.md", "--", "mutext", "append", "log.md", "two"]).done();
    assert_eq!(on.run(&["get", "log.md"]).done(), "one\ntwo\n");

    assert_eq!(on.run(&["show", "plan.md@1"]).done(), "# Plan\n\none\n\ntwo\n");
    assert!(on.run(&["diff", "plan.md@1..3"]).done().contains("+ONE"));
    assert_eq!(on.run(&["blame", "plan.md", "--json"]).json()["lines"][4]["author"], "critic");
    on.run(&["restore", "plan.md@1", "--if-revision", "3"]).done();
    assert_eq!(on.run(&["search", "plan", "--json"]).json()["hits"][0]["path"], "plan.md");
    on.run(&["purge", "new.md", "--reason", "test"]).done();
    on.run(&["get", "new.md"]).refused(6, &["new.md"]);

    let seen = on.run(&["watch", "--after", "0", "--count", "3", "--json"]);
    let last: Value = serde_json::from_str(seen.out.lines().last().unwrap()).unwrap();
    let mut command = on.mutext(&["watch", "--after", &last["cursor"].to_string(), "--json"]);
    let mut watch = Holder::start_without_word(&mut command);
    let next: Value = serde_json::from_str(&watch.line()).unwrap();
    assert!(next["cursor"].as_u64() > last["cursor"].as_u64(), "{next}");
    watch.signal(rustix::process::Signal::INT);
    assert_eq!(watch.end().status, 130);

    on.run(&["export", "all.jsonl"]).done();
    on.run(&["--context", "copy", "import", "all.jsonl"]).done();
    let history = |context: &str| on.run(&["--context", context, "history", "plan.md", "--content", "--json"]).json();
    assert_eq!(history("copy"), history("default"));
    // And from one store to another.
    let here = on.place.run(&["--context", "copy", "import", "all.jsonl"]).done();
    assert!(here.contains("context copy has"), "{here}");
    assert_eq!(on.place.run(&["--context", "copy", "get", "log.md"]).done(), "one\ntwo\n");

    fs::create_dir(on.place.path("notes")).unwrap();
    on.run(&["sync", "notes"]).done();
    on.place.write("notes/log.md", "zero\none\ntwo\n");
    on.run(&["append", "log.md", "three"]).done();
    assert!(on.run(&["sync", "notes"]).done().contains("log.md is merged"));
    assert_eq!(fs::read_to_string(on.place.path("notes/log.md")).unwrap(), "zero\none\ntwo\nthree\n");
    assert_eq!(on.run(&["get", "log.md"]).done(), "zero\none\ntwo\nthree\n");
}
