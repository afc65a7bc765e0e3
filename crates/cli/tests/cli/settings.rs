//! Where settings come from, help, completions, and how errors are told.

use std::process::Stdio;

use crate::place::{Place, ran};

#[test]
fn a_flag_overrides_the_environment_which_overrides_the_file() {
    let place = Place::new();
    place.write("m.yaml", "agent: from-file\ncontext: c\nstore: embedded:store-of-file\n");
    let author = |flags: &[&str], agent: &str| {
        let mut command = place.mutext(flags);
        command.args(["put", "a", "x", "--overwrite"]).env("MUTEXT_CONFIG", "m.yaml").env("MUTEXT_AGENT", agent);
        ran(&mut command).done();
        let document = place.run(&["--config", "m.yaml", "get", "a", "--json"]).json();
        document["author"].as_str().unwrap().to_owned()
    };
    assert_eq!(author(&[], ""), "from-file", "an empty variable counts as missing");
    assert_eq!(author(&[], "from-environment"), "from-environment");
    assert_eq!(author(&["--agent", "from-flag"], "from-environment"), "from-flag");
    assert!(place.path("store-of-file/documents.db").exists());
    assert!(!place.path(".mutext").exists());
}

#[test]
fn a_store_in_a_config_file_lies_beside_the_file() {
    let place = Place::new();
    std::fs::create_dir(place.path("elsewhere")).unwrap();
    place.write("m.yaml", "store: embedded:here\n");
    let mut command = place.mutext(&["--config", "../m.yaml", "put", "a", "x"]);
    ran(command.current_dir(place.path("elsewhere"))).done();
    assert!(place.path("here/documents.db").exists());
}

#[test]
fn the_agent_is_the_user_unless_told_otherwise() {
    let place = Place::new();
    ran(place.mutext(&["put", "a", "x"]).env("USER", "somebody")).done();
    assert_eq!(place.run(&["get", "a", "--json"]).json()["author"], "somebody");
    ran(place.mutext(&["put", "b", "x"]).env("USER", "not a name")).done();
    assert_eq!(place.run(&["get", "b", "--json"]).json()["author"], "agent");
}

#[test]
fn the_published_config_is_read_and_its_engines_are_named_without_the_password() {
    let place = Place::new();
    place.write(
        "experiment.yaml",
        // The published file, but for ports that nobody listens on.
        "redis:\n  host: localhost\n  port: 1\n  db: 0\npostgres:\n  host: localhost\n  port: 1\n  \
         database: external_context_test\n  user: test_user\n  password: test_password\n",
    );
    let run = place.run(&["--config", "experiment.yaml", "ls"]);
    run.refused(7, &["postgres://test_user@localhost:1/external_context_test", "see whether"]);
    assert!(!run.err.contains("test_password"), "{run:?}");
    let run = place.run(&["--config", "experiment.yaml", "--store", "embedded:x", "ls"]);
    run.refused(7, &["redis://localhost:1/0", "see that the server runs"]);
}

#[test]
fn documents_and_locks_may_lie_apart() {
    let place = Place::new();
    let flags = ["--store", "embedded:d", "--locks", "embedded:l"];
    let script = "mutext put a x && cd / && mutext put b y";
    let mut command = place.mutext(&flags);
    ran(command.args(["lock", "/", "--", "sh", "-c", script])).done_with("a is at revision 1\nb is at revision 1\n");
    let mut command = place.mutext(&flags);
    assert_eq!(ran(command.args(["get", "b"])).done(), "y");
}

impl crate::place::Ran {
    fn done_with(self, answer: &str) {
        assert_eq!(self.done(), answer);
    }
}

#[test]
fn help_shows_exit_statuses_and_never_a_variables_value() {
    let place = Place::new();
    let help = ran(place.mutext(&["--help"]).env("MUTEXT_STORE", "postgres://u:hunter2@h/d")).done();
    for part in ["Exit status", "conflict", "MUTEXT_STORE", "embedded:.mutext", "128+N"] {
        assert!(help.contains(part), "{part}: {help}");
    }
    assert!(!help.contains("hunter2"));
    assert!(place.run(&["lock", "--help"]).done().contains("MUTEXT_LEASE"));
}

#[test]
fn completions_need_no_settings() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let mut command = place.mutext(&["completions", shell]);
        let script = ran(command.env("MUTEXT_CONFIG", "no-such-file")).done();
        assert!(script.contains("if-revision"), "{shell}");
    }
    assert!(!place.path(".mutext").exists());
}

#[test]
fn a_mistake_on_the_command_line_is_told_in_json_where_that_is_asked_for() {
    let place = Place::new();
    let error = place.run(&["put", "--json", "a//b", "x"]).error();
    assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some("bad_input"), Some(2)));
    assert!(error["message"].as_str().unwrap().contains("segment 2 is empty"), "{error}");
    place.run(&["lock", "a", "--", "true", "--json", "--bogus"]).done();
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let place = Place::new();
    place.run_with(&["put", "big", "-"], "x".repeat(500_000).as_bytes()).done();
    let mut child = place.mutext(&["get", "big"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn nothing_is_painted_in_a_pipe() {
    let place = Place::new();
    assert!(!place.run(&["get", "none"]).err.contains('\x1b'));
    assert!(!place.run(&["ls", "--bogus"]).err.contains('\x1b'));
}
