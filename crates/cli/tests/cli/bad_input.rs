//! Bad input: each names the thing, the value and the remedy, ends with its own status, and loses nothing.

use crate::place::{Place, Ran, ran};

/// A place where something could be lost, and the check that it was not.
fn with_a_document(attempt: impl FnOnce(&Place)) {
    let place = Place::new();
    place.run(&["put", "plan.md", "precious"]).done();
    attempt(&place);
    assert_eq!(place.content("plan.md"), "precious");
    assert_eq!(place.run(&["history", "plan.md", "--json"]).json()["revisions"].as_array().unwrap().len(), 1);
}

#[test]
fn a_malformed_path() {
    with_a_document(|place| {
        place.run(&["put", "a//b", "x"]).refused(2, &["a//b", "segment 2 is empty", "write one `/`"]);
        place.run(&["get", "../etc/passwd"]).refused(2, &["../etc/passwd", "`..`", "whole path"]);
        place.run(&["put", "a\nb", "x"]).refused(2, &["control character", "remove it"]);
        place.run(&["put", "", "x"]).refused(2, &["empty"]);
        place.run(&["put", &"x".repeat(600), "x"]).refused(2, &["600 bytes", "limit is 512"]);
        place.run(&["lock", "/plan.md", "--", "true"]).refused(2, &["/plan.md", "segment 1 is empty"]);
    });
}

#[test]
fn an_oversized_document() {
    with_a_document(|place| {
        let big = "x".repeat(1024 * 1024 + 1);
        let parts = ["plan.md", "1048576", "split it", "document_bytes_max"];
        place.run_with(&["put", "plan.md", "-", "--overwrite"], big.as_bytes()).refused(2, &parts);
        place.write("big", &big);
        let refused = place.run(&["put", "plan.md", "--file", "big", "--overwrite"]);
        refused.refused(2, &["file big", "1048576"]);
        place.write("m.yaml", "document_bytes_max: 2000000\n");
        place.run(&["--config", "m.yaml", "put", "big", "--file", "big"]).done();
    });
}

#[test]
fn an_input_without_end_is_refused_and_not_swallowed() {
    with_a_document(|place| place.run(&["put", "a", "--file", "/dev/zero"]).refused(2, &["/dev/zero", "1048576"]));
}

#[test]
fn invalid_json() {
    with_a_document(|place| {
        let parts = ["tasks.json", "line 2, column 8", "--type text"];
        place.write("t", "{\n  \"a\": }");
        place.run(&["put", "tasks.json", "--file", "t"]).refused(2, &[&parts[..], &["file t"]].concat());
        place.run_with(&["put", "tasks.json", "-"], b"{\n  \"a\": }").refused(2, &parts);
        place.run(&["put", "plan.md", "{", "--type", "json", "--overwrite"]).refused(2, &["the argument TEXT"]);
    });
}

#[test]
fn bytes_that_are_not_text() {
    with_a_document(|place| {
        let refused = place.run_with(&["put", "plan.md", "-", "--overwrite"], b"abc\xff");
        refused.refused(2, &["standard input", "not UTF-8", "byte 3"]);
    });
}

#[test]
fn a_file_that_is_not_there() {
    with_a_document(|place| {
        place.run(&["put", "a", "--file", "nowhere.md"]).refused(7, &["nowhere.md", "No such file", "name a file"]);
        place.run(&["--config", "nowhere.yaml", "ls"]).refused(7, &["nowhere.yaml", "No such file", "--config"]);
    });
}

#[test]
fn a_config_file_with_an_unknown_key_or_a_wrong_type() {
    with_a_document(|place| {
        place.write("m.yaml", "context: c\nstroe: embedded:x\n");
        place.run(&["--config", "m.yaml", "ls"]).refused(2, &["m.yaml", "line 2", "\"stroe\"", "store"]);
        place.write("m.yaml", "wait: 5\n");
        place.run(&["--config", "m.yaml", "ls"]).refused(2, &["m.yaml", "line 1", "wait", "number 5", "500ms"]);
        place.write("m.yaml", "context: [a, b]\n");
        place.run(&["--config", "m.yaml", "ls"]).refused(2, &["m.yaml", "line 1", "context", "a list", "must be text"]);
        place.write("m.yaml", "context: a b\n");
        place.run(&["--config", "m.yaml", "ls"]).refused(2, &["m.yaml", "\"a b\"", "use letters"]);
    });
}

#[test]
fn a_wait_of_zero_and_a_ttl_that_cannot_be_kept() {
    with_a_document(|place| {
        place
            .run(&["lock", "plan.md", "--wait", "0", "--", "true"])
            .refused(2, &["--wait", "wait of 0ns", "1ms", "--no-wait"]);
        place.run(&["lock", "plan.md", "--wait", "5", "--", "true"]).refused(2, &["'5'", "--wait", "500ms"]);
        place.run(&["lock", "plan.md", "--wait", "2d", "--", "true"]).refused(2, &["--wait", "24h or less"]);
        place.run(&["lock", "plan.md", "--ttl", "20ms", "--", "true"]).refused(2, &["--ttl", "20ms", "100ms or more"]);
    });
}

#[test]
fn revision_zero_is_not_a_way_around_the_check() {
    with_a_document(|place| {
        place.run(&["put", "plan.md", "x", "--if-revision", "0"]).refused(2, &["'0'", "--if-revision"]);
    });
}

#[test]
fn a_name_or_an_address_that_is_not_valid_says_where_it_came_from() {
    with_a_document(|place| {
        place.run(&["--context", "a b", "ls"]).refused(2, &["--context", "\"a b\"", "use letters"]);
        let run = ran(place.mutext(&["ls"]).env("MUTEXT_STORE", "redis://:hunter2@localhost/0"));
        run.refused(2, &["MUTEXT_STORE", "redis", "locks, not documents", "--locks"]);
        assert!(!run.err.contains("hunter2"), "{run:?}");
        place.run(&["--locks", "file:x", "ls"]).refused(2, &["--locks", "file:x", "embedded:DIR"]);
        let run = ran(place.mutext(&["put", "plan.md", "x"]).env("MUTEXT_LEASE", "{}"));
        run.refused(2, &["MUTEXT_LEASE", "unset it"]);
    });
}

#[test]
fn a_store_directory_that_cannot_be_made() {
    with_a_document(|place| {
        place.write("a-file", "x");
        let refused = place.run(&["--store", "embedded:a-file/store", "ls"]);
        refused.refused(7, &["a-file/store", "directory that can be made and written"]);
    });
}

#[test]
fn a_store_directory_that_is_read_only() {
    with_a_document(|place| {
        let script =
            "mount --bind .mutext .mutext && mount -o remount,ro,bind .mutext && exec mutext put plan.md x --overwrite";
        let unshared = |script: &str| -> Ran { ran(place.program("unshare").args(["-rm", "sh", "-c", script])) };
        // Root writes where it likes, so that it needs a mount; for others the directory's mode is enough.
        if !rustix::process::geteuid().is_root() {
            let set_mode = |mode| {
                let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
                std::fs::set_permissions(place.path(".mutext"), permissions).unwrap();
            };
            set_mode(0o555);
            let refused = place.run(&["put", "plan.md", "x", "--overwrite"]);
            set_mode(0o755);
            refused.refused(7, &[".mutext", "read-only", "writable"]);
            return;
        }
        unshared(script).refused(7, &[".mutext", "read-only", "writable"]);
    });
}

#[test]
fn a_corrupt_database_file() {
    let place = Place::new();
    std::fs::create_dir(place.path(".mutext")).unwrap();
    let damaged = "this was a database once".repeat(1000);
    place.write(".mutext/documents.db", &damaged);
    let parts = [".mutext/documents.db", "damaged", "backup"];
    place.run(&["put", "plan.md", "x", "--overwrite"]).refused(7, &parts);
    let error = place.run(&["ls", "--json"]).error();
    assert_eq!((error["code"].as_str(), error["effect"].as_str()), (Some("engine"), Some("none")));
    assert_eq!(std::fs::read_to_string(place.path(".mutext/documents.db")).unwrap(), damaged, "left as it was");
}
