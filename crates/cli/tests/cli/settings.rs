//! Where settings come from, help, completions, and how errors are told.

use std::process::Stdio;

use crate::place::{Place, Ran, ran};

#[test]
fn a_flag_overrides_the_environment_which_overrides_the_file() {
    let place = Place::new();
    place.write("m.yaml", "agent: from-file\ncontext: c\nstore: embedded:store-of-file\n");
    let author = |flags: &[&str], agent: &str| {
        let mut command = place.mutext(flags);
        // A write of what is there already would leave its author as it is.
        command
            .args(["put", "a", &format!("{flags:?} {agent}"), "--overwrite"])
            .env("MUTEXT_CONFIG", "m.yaml")
            .env("MUTEXT_AGENT", agent);
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

/// Where `mutext doctor` says that a setting comes from, and its value.
#[track_caller]
fn setting(run: &Ran, name: &str) -> String {
    let report = run.json();
    let mut rows = report["findings"].as_array().unwrap().iter();
    let row = rows.find(|row| row["of"] == "settings" && row["subject"] == name).unwrap();
    row["found"].as_str().unwrap().to_owned()
}

#[test]
fn every_setting_has_the_same_precedence() {
    for (name, by_flag, by_environment, by_file, by_default) in [
        ("store", Some("embedded:1"), "embedded:2", "embedded:3", "embedded:.mutext (from the default)"),
        ("locks", Some("embedded:1"), "embedded:2", "embedded:3", "with the documents"),
        ("context", Some("one"), "two", "three", "default (from the default)"),
        ("agent", Some("one"), "two", "three", "agent (from the default)"),
        // The flags of these two are those of `mutext lock`.
        ("wait", None, "200ms", "300ms", "500ms (from the default)"),
        ("ttl", None, "200ms", "300ms", "10.0s (from the default)"),
        ("document_bytes_max", None, "2", "3", "1048576 bytes (from the default)"),
        ("retention_revisions", None, "2", "3", "all are kept (from the default)"),
        ("retention_age", None, "2days", "3days", "all are kept (from the default)"),
    ] {
        let place = Place::new();
        place.write("m.yaml", format!("{name}: {by_file}\n"));
        let (flag, variable) = (format!("--{name}"), format!("MUTEXT_{}", name.to_uppercase()));
        let mut expected = vec![
            (by_default.to_owned(), ""),
            (by_file.to_owned(), "(from config file m.yaml)"),
            (by_environment.to_owned(), &variable),
        ];
        expected.extend(by_flag.map(|value| (value.to_owned(), &*flag)));
        for (given, (value, origin)) in expected.into_iter().enumerate() {
            let mut command = place.mutext(&["doctor", "--look-only", "--json"]);
            if given > 0 {
                command.args(["--config", "m.yaml"]);
            }
            if given > 1 {
                command.env(&variable, by_environment);
            }
            if given > 2 {
                command.args([&flag, &value]);
            }
            let found = setting(&ran(&mut command), name);
            assert!(found.starts_with(&value) && found.contains(origin), "{name}, {given} given: {found}");
        }
    }
}

#[test]
fn the_config_file_itself_is_named_by_a_flag_or_by_a_variable() {
    let place = Place::new();
    place.write("one.yaml", "agent: one\n");
    place.write("two.yaml", "agent: two\n");
    let flags = ["doctor", "--look-only", "--json"];
    let run = |more: &[&str]| ran(place.mutext(&flags).args(more).env("MUTEXT_CONFIG", "two.yaml"));
    assert_eq!(setting(&run(&[]), "agent"), "two (from config file two.yaml)");
    assert_eq!(setting(&run(&["--config", "one.yaml"]), "agent"), "one (from config file one.yaml)");
}

#[test]
fn the_flags_of_lock_override_the_environment_which_overrides_the_file() {
    let place = Place::new();
    place.write("m.yaml", "wait: 60s\nttl: 20m\n");
    let held = |variables: &[(&str, &str)], flags: &[&str]| {
        let mut command = place.mutext(&["--config", "m.yaml", "lock", "a"]);
        command.envs(variables.iter().copied()).args(flags).args(["--", "mutext", "locks", "--json"]);
        ran(&mut command).json()["leases"][0]["remaining_ms"].as_u64().unwrap() / 60_000
    };
    assert_eq!(held(&[], &[]), 19);
    assert_eq!(held(&[("MUTEXT_TTL", "40m")], &[]), 39);
    assert_eq!(held(&[("MUTEXT_TTL", "40m")], &["--ttl", "60m"]), 59);

    let holder = place.hold(&["a"], "echo ready; read -r _");
    // Neither the 60 s of the file nor those of the environment; how long 50 ms take is the machine's business.
    let waited = |variable: &str, flags: &[&str]| {
        let mut command = place.mutext(&["--config", "m.yaml", "lock", "a", "--json"]);
        let error = ran(command.env("MUTEXT_WAIT", variable).args(flags).args(["--", "true"])).error();
        error["waited_ms"].as_u64().unwrap()
    };
    assert!((50..30_000).contains(&waited("50ms", &[])));
    assert!((50..30_000).contains(&waited("60s", &["--wait", "50ms"])));
    holder.end();
}

#[test]
fn a_variable_that_is_no_amount_names_itself_the_value_and_the_remedy() {
    let place = Place::new();
    for (variable, value, part) in [
        ("MUTEXT_WAIT", "soon", "500ms"),
        ("MUTEXT_WAIT", "0s", "1ms or more"),
        ("MUTEXT_TTL", "20ms", "100ms or more"),
        ("MUTEXT_DOCUMENT_BYTES_MAX", "1 MiB", "number from 1"),
    ] {
        ran(place.mutext(&["ls"]).env(variable, value)).refused(2, &[variable, value, part]);
    }
    let run = ran(place.mutext(&["put", "a", "xyz"]).env("MUTEXT_DOCUMENT_BYTES_MAX", "2"));
    run.refused(2, &["2 bytes"]);
}

#[test]
fn no_password_is_ever_said() {
    let place = Place::new();
    let (store, locks) = ("postgres://u:hunter1@127.0.0.1:1/d?schema=s", "redis://u:hunter2@127.0.0.1:1/0");
    place.write(
        "good.yaml",
        "redis: {host: 127.0.0.1, port: 1, username: u, password: hunter3, tls: true}\n\
         postgres: {host: 127.0.0.1, port: 1, password: hunter4, sslmode: disable}\n",
    );
    place.write("socket.yaml", "redis: {socket: /none, password: hunter5}\n");
    let bad = "postgres: {password: hunter6, sslmode: maybe}\nredis: {password: hunter7, prefix: 'a b'}\n";
    place.write("bad.yaml", bad);
    place.write("worse.yaml", "postgres:\n  password: hunter8\n  passwort: hunter9\n");
    let settings = [
        &["--store", store, "--locks", locks][..],
        &["--store", "etcd://u:hunter1@h", "--locks", "redis://h?password=hunter2"],
        &[
            "--store",
            "postgres://u:hunter1@127.0.0.1:1/d",
            "--locks",
            "etcd://u:hunter1@127.0.0.1:1,127.0.0.1:2?connect_timeout=0.3",
        ],
        &["--store", "redlock://u:hunter1@h", "--locks", "etcds://h?password=hunter2"],
        &["--store", "postgres://u:hunter1@h:port/d", "--locks", "redis+unix:///none?password=hunter2"],
        &["--store", "redis://u:hunter1@127.0.0.1:1", "--locks", "postgres://u:hunter2@127.0.0.1:1/d"],
        &["--config", "good.yaml"],
        &["--config", "socket.yaml"],
        &["--config", "bad.yaml"],
        &["--config", "worse.yaml"],
    ];
    let commands = [
        &["doctor", "--timeout", "300ms"][..],
        &["ls"],
        &["put", "a", "x"],
        &["lock", "a", "--", "env"],
        &["locks"],
        &["experiment", "locking", "--trials", "1"],
    ];
    let silent = |command: &[&str], run: &Ran| {
        // Where the documents lie on this machine, whoever needs no lock does not ask where the locks lie.
        let needs_no_lock = matches!(command, ["ls" | "put", ..]);
        assert!(run.status != 0 || needs_no_lock, "nothing listens there: {run:?}");
        assert!(!format!("{run:?}").contains("hunter"), "{run:?}");
    };
    for setting in settings {
        for command in commands {
            silent(command, &ran(place.mutext(setting).arg("-vv").args(command)));
            silent(command, &ran(place.mutext(setting).arg("--json").args(command)));
        }
    }
    for command in commands {
        let mut run = place.mutext(command);
        silent(command, &ran(run.env("MUTEXT_STORE", store).env("MUTEXT_LOCKS", locks)));
    }
}

/// A page of the documentation.
fn documented(name: &str) -> String {
    std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)).unwrap()
}

#[test]
fn every_key_and_every_variable_is_documented() {
    let (place, text) = (Place::new(), documented("configuration.md"));
    for section in ["nonsense: 1\n", "redis:\n  nonsense: 1\n", "postgres:\n  nonsense: 1\n"] {
        place.write("m.yaml", section);
        let run = place.run(&["--config", "m.yaml", "ls"]);
        let keys = run.err.trim().split_once("the keys are ").unwrap_or_else(|| panic!("{run:?}")).1;
        for key in keys.split(", ") {
            assert!(text.contains(&format!("`{key}`")), "{key} is not in docs/configuration.md");
        }
    }
    let help = place.run(&["lock", "--help"]).done();
    let words = help.split(|letter: char| !letter.is_ascii_uppercase() && letter != '_');
    for variable in words.filter(|word| word.starts_with("MUTEXT_")) {
        assert!(text.contains(&format!("`{variable}`")), "{variable} is not in docs/configuration.md");
    }
}

#[test]
fn a_store_in_a_config_file_lies_beside_the_file() {
    let place = Place::new();
    std::fs::create_dir(place.path("elsewhere")).unwrap();
    place.write("m.yaml", "store: embedded:here\n");
    let mut command = place.mutext(&["--config", "../m.yaml", "put", "a", "x"]);
    ran(command.current_dir(place.path("elsewhere"))).done();
    assert!(place.path("here/documents.db").exists());
    place.write("t.yaml", "redis: {tls: true, tls_ca: ca.pem}\n");
    let mut command = place.mutext(&["--config", "../t.yaml", "--store", "embedded:here", "locks"]);
    ran(command.current_dir(place.path("elsewhere"))).refused(7, &["../ca.pem cannot be read"]);
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
    let run = place.run(&["--config", "experiment.yaml", "--store", "embedded:x", "locks"]);
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

impl Ran {
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
