//! `edit`: a document in an editor, with others faster, editors that fail, and people who choose.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use crate::place::{Holder, Place, Ran, ran, until};

/// A place with a plan, and with an editor that runs this script on its file, `$1`.
fn place_with_editor(script: &str) -> Place {
    let place = Place::new();
    place.run(&["put", "plan.md", "# Plan\n\none\n\ntwo\n"]).done();
    fs::create_dir(place.path("drafts")).unwrap();
    editor(&place, script);
    place
}

fn editor(place: &Place, script: &str) {
    let file = place.write("editor", format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}

fn edit(place: &Place, flags: &[&str]) -> Command {
    let mut command = place.mutext(&[&["edit", "plan.md"], flags].concat());
    command.env("EDITOR", "./editor").env("TMPDIR", place.path("drafts"));
    command
}

/// What was typed, in the file that the command names.
#[track_caller]
fn kept(place: &Place, ran: &Ran) -> String {
    let (_, file) = ran.err.split_once("what you typed is kept in ").unwrap_or_else(|| panic!("{ran:?}"));
    let file = PathBuf::from(file.lines().next().unwrap());
    assert!(file.starts_with(place.path("drafts").canonicalize().unwrap()) || file.starts_with(place.path("drafts")));
    assert_eq!(file.file_name().unwrap(), "plan.md");
    assert_eq!(fs::metadata(file.parent().unwrap()).unwrap().permissions().mode() & 0o077, 0, "for nobody else");
    fs::read_to_string(file).unwrap()
}

#[track_caller]
fn nothing_is_kept(place: &Place) {
    assert!(fs::read_dir(place.path("drafts")).unwrap().next().is_none());
}

#[test]
fn an_editor_that_takes_its_file_away_is_told_so_and_nothing_is_said_to_be_kept() {
    let place = place_with_editor("rm \"$1\"");
    let ran = ran(&mut edit(&place, &[]));
    ran.refused(7, &["took its file", "plan.md stays as it was", "mutext rm plan.md"]);
    assert!(!ran.err.contains("is kept in"), "{ran:?}");
    assert_eq!(place.run(&["get", "plan.md", "--json"]).json()["revision"], 1);
    nothing_is_kept(&place);
}

/// Another agent's change, as a line of an editor's script.
const CRITIC: &str = "mutext --agent critic replace plan.md --old two --new 2 --message numbers >&2";

#[test]
fn what_was_typed_is_written() {
    let place = place_with_editor("sed -i s/one/ONE/ \"$1\"");
    assert_eq!(ran(&mut edit(&place, &["--message", "loud"])).done(), "plan.md is at revision 2\n");
    assert_eq!(place.content("plan.md"), "# Plan\n\nONE\n\ntwo\n");
    assert_eq!(place.run(&["history", "plan.md", "--json"]).json()["revisions"][0]["message"], "loud");
    assert_eq!(ran(&mut edit(&place, &[])).done(), "plan.md stays at revision 2\n", "nothing is left to change");
    nothing_is_kept(&place);
}

#[test]
fn a_document_that_is_not_there_is_created_unless_nothing_is_typed() {
    let place = place_with_editor("echo hello > \"$1\"");
    let mut command = place.mutext(&["edit", "new/note.md"]);
    command.env("VISUAL", "./editor").env("EDITOR", "false").env("TMPDIR", place.path("drafts"));
    assert_eq!(ran(&mut command).done(), "new/note.md is at revision 1\n");
    assert_eq!(place.content("new/note.md"), "hello\n");
    let mut command = place.mutext(&["edit", "none.md"]);
    let said = ran(command.env("EDITOR", "true").env("TMPDIR", place.path("drafts"))).done();
    assert_eq!(said, "none.md is not created: nothing was typed\n");
    nothing_is_kept(&place);
}

#[test]
fn a_conflict_fails_where_nobody_is_asked_and_keeps_what_was_typed() {
    let place = place_with_editor(&format!("sed -i s/one/ONE/ \"$1\"; {CRITIC}"));
    let conflict = ran(&mut edit(&place, &[]));
    conflict.refused(3, &["critic wrote revision 2", "numbers", "+2", "a merge would be clean", "--on-conflict merge"]);
    assert_eq!(kept(&place, &conflict), "# Plan\n\nONE\n\ntwo\n");
    assert_eq!(place.content("plan.md"), "# Plan\n\none\n\n2\n");
}

#[test]
fn changes_that_do_not_touch_are_merged_where_that_is_asked_for() {
    let place = place_with_editor(&format!("sed -i s/one/ONE/ \"$1\"; {CRITIC}"));
    let answer = ran(&mut edit(&place, &["--on-conflict", "merge", "--json"]));
    let answer: serde_json::Value = serde_json::from_str(&answer.out).unwrap_or_else(|_| panic!("{answer:?}"));
    assert_eq!((&answer["status"], &answer["merged_with"]), (&"merged".into(), &2.into()));
    assert_eq!(place.content("plan.md"), "# Plan\n\nONE\n\n2\n");
    nothing_is_kept(&place);
}

#[test]
fn changes_that_contradict_each_other_are_never_merged_by_themselves() {
    let place = place_with_editor(&format!("sed -i s/two/TWO/ \"$1\"; {CRITIC}"));
    let conflict = ran(&mut edit(&place, &["--on-conflict", "merge", "--json"]));
    let error = conflict.error();
    assert_eq!((&error["code"], &error["merge"]["clean"]), (&"conflict".into(), &false.into()));
    let typed = fs::read_to_string(error["kept"].as_str().unwrap()).unwrap();
    assert_eq!(typed, "# Plan\n\none\n\nTWO\n");
    assert_eq!(place.content("plan.md"), "# Plan\n\none\n\n2\n");
}

#[test]
fn an_editor_that_fails_crashes_or_is_not_there_loses_nothing() {
    let place = place_with_editor("echo typed >> \"$1\"; exit 3");
    let failed = ran(&mut edit(&place, &[]));
    failed.refused(7, &["./editor", "ended with status 3", "nothing was written"]);
    assert!(kept(&place, &failed).ends_with("typed\n"));
    editor(&place, "echo typed >> \"$1\"; kill -KILL $$");
    let crashed = ran(&mut edit(&place, &[]));
    assert!(crashed.status == 7 && kept(&place, &crashed).ends_with("typed\n"), "{crashed:?}");
    let missing = ran(edit(&place, &[]).env("EDITOR", "no-such-editor"));
    missing.refused(7, &["no-such-editor", "VISUAL or EDITOR"]);
    assert!(!missing.err.contains("what you typed"), "nothing was typed: {missing:?}");
    assert_eq!(place.run(&["history", "plan.md", "--json"]).json()["revisions"].as_array().unwrap().len(), 1);
}

#[test]
fn what_cannot_be_a_document_is_kept() {
    let place = place_with_editor("printf 'a\\377' > \"$1\"");
    let refused = ran(&mut edit(&place, &[]));
    refused.refused(2, &["the draft", "byte 1", "what you typed is kept in"]);
    editor(&place, "echo '{' > \"$1\"");
    place.run(&["put", "t.json", "{}"]).done();
    let mut command = place.mutext(&["edit", "t.json"]);
    let refused = ran(command.env("EDITOR", "./editor").env("TMPDIR", place.path("drafts")));
    refused.refused(2, &["the draft for t.json", "line 2", "what you typed is kept in"]);
    assert_eq!(place.content("t.json"), "{}");
    place.run_with(&["put", "plan.md", "-", "--overwrite"], "a line\n".repeat(100).as_bytes()).done();
    editor(&place, "echo short > \"$1\"");
    let refused = ran(&mut edit(&place, &[]));
    assert_eq!((refused.status, kept(&place, &refused).as_str()), (3, "short\n"), "{refused:?}");
    ran(&mut edit(&place, &["--allow-shrink"])).done();
    assert_eq!(place.content("plan.md"), "short\n");
}

#[test]
fn a_signal_ends_both_and_keeps_what_was_typed() {
    let place = place_with_editor("echo typed >> \"$1\"; echo ready; read forever");
    let holder = Holder::start(&mut edit(&place, &[]));
    holder.signal(Signal::TERM);
    let ended = holder.end();
    assert_eq!(ended.status, 143, "{ended:?}");
    assert!(kept(&place, &ended).ends_with("typed\n"));
    assert_eq!(place.content("plan.md"), "# Plan\n\none\n\ntwo\n");
}

#[test]
fn an_edit_inside_a_lock_is_written_under_its_lease() {
    let place = place_with_editor("sed -i s/one/ONE/ \"$1\"");
    let mut command = place.mutext(&["lock", "plan.md", "--", "mutext", "edit", "plan.md"]);
    command.env("EDITOR", "./editor").env("TMPDIR", place.path("drafts"));
    assert_eq!(ran(&mut command).done(), "plan.md is at revision 2\n");
}

/// `mutext edit plan.md` on a terminal of its own.
struct OnTerminal<'a> {
    place: &'a Place,
    script: Holder,
}

impl<'a> OnTerminal<'a> {
    fn run(place: &'a Place) -> Self {
        let mut script = place.program("script");
        script.env("SHELL", "/bin/sh").env("EDITOR", "./editor").env("TMPDIR", place.path("drafts"));
        script.args(["--quiet", "--return", "--flush", "--command", "mutext edit plan.md", "typescript"]);
        Self { place, script: Holder::start_without_word(&mut script) }
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.place.path("typescript")).unwrap_or_default()).into_owned()
    }

    #[track_caller]
    fn asks(&self, part: &str) {
        until(part, || self.seen().contains(part));
    }

    #[track_caller]
    fn ends(self) -> (i32, String) {
        until("its end", || self.seen().contains("COMMAND_EXIT_CODE"));
        let seen = self.seen();
        (self.script.end().status, seen)
    }
}

#[test]
fn whoever_sits_at_the_terminal_is_asked_and_merges() {
    let place = place_with_editor(&format!("sed -i s/one/ONE/ \"$1\"; {CRITIC}"));
    let mut terminal = OnTerminal::run(&place);
    terminal.asks("[m]erge, [e]dit again with both, [a]bandon");
    assert!(terminal.seen().contains("critic wrote revision 2"), "{}", terminal.seen());
    terminal.script.tell("what?\n");
    until("it asks again", || terminal.seen().matches("[m]erge").count() == 2);
    terminal.script.tell("m\n");
    assert_eq!(terminal.ends().0, 0);
    assert_eq!(place.content("plan.md"), "# Plan\n\nONE\n\n2\n");
    nothing_is_kept(&place);
}

#[test]
fn whoever_edits_again_has_both_changes_before_them() {
    // The first time it contradicts what the critic writes meanwhile; the second time it keeps the marked sides' words.
    let script = format!(
        "if grep -q '^<<<<<<<' \"$1\"; then cp \"$1\" marked; sed -i -e '/^<<<<<<</d' -e '/^|||||||/,/^=======/d' \
         -e '/^>>>>>>>/d' \"$1\"; else sed -i s/two/TWO/ \"$1\"; {CRITIC}; fi"
    );
    let place = place_with_editor(&script);
    let mut terminal = OnTerminal::run(&place);
    terminal.asks("[e]dit again with both, [a]bandon");
    assert!(terminal.seen().contains("contradict each other at line 5"), "{}", terminal.seen());
    assert!(!terminal.seen().contains("[m]erge"), "{}", terminal.seen());
    terminal.script.tell("e\n");
    let (status, seen) = terminal.ends();
    assert!(status == 0 && seen.contains("plan.md.yours-1"), "{seen}");
    let marked = fs::read_to_string(place.path("marked")).unwrap();
    assert!(
        marked.contains("<<<<<<< what you wrote\nTWO\n") && marked.contains("2\n>>>>>>> what is there now"),
        "{marked}"
    );
    assert_eq!(place.content("plan.md"), "# Plan\n\none\n\nTWO\n2\n");
}

#[test]
fn marks_that_are_left_are_not_written() {
    let script = format!("if grep -q '^<<<<<<<' \"$1\"; then :; else sed -i s/two/TWO/ \"$1\"; {CRITIC}; fi");
    let place = place_with_editor(&script);
    let mut terminal = OnTerminal::run(&place);
    terminal.asks("[e]dit again with both");
    terminal.script.tell("e\n");
    terminal.asks("still marks a conflict");
    terminal.script.tell("a\n");
    let (status, seen) = terminal.ends();
    assert!(status == 2 && seen.contains("what you typed is kept in"), "{status}: {seen}");
    assert_eq!(place.content("plan.md"), "# Plan\n\none\n\n2\n");
}

#[test]
fn whoever_abandons_loses_nothing() {
    let place = place_with_editor(&format!("sed -i s/one/ONE/ \"$1\"; {CRITIC}"));
    let mut terminal = OnTerminal::run(&place);
    terminal.asks("[a]bandon");
    terminal.script.tell("a\n");
    let (status, seen) = terminal.ends();
    assert!(status == 3 && seen.contains("what you typed is kept in"), "{status}: {seen}");
    assert_eq!(place.content("plan.md"), "# Plan\n\none\n\n2\n");
}

#[test]
fn a_document_that_was_deleted_meanwhile_is_written_anew_where_that_is_wanted() {
    let place = place_with_editor("sed -i s/one/ONE/ \"$1\"; mutext rm plan.md --overwrite >&2");
    let gone = ran(&mut edit(&place, &["--on-conflict", "merge"]));
    assert!(gone.status == 3 && kept(&place, &gone).contains("ONE"), "{gone:?}");
    place.run(&["restore", "plan.md@1"]).done();
    let mut terminal = OnTerminal::run(&place);
    terminal.asks("[w]rite it anew");
    terminal.script.tell("w\n");
    assert_eq!(terminal.ends().0, 0);
    assert_eq!(place.content("plan.md"), "# Plan\n\nONE\n\ntwo\n");
}

#[test]
fn ctrl_c_at_the_question_keeps_what_was_typed() {
    let place = place_with_editor(&format!("sed -i s/one/ONE/ \"$1\"; {CRITIC}"));
    let mut terminal = OnTerminal::run(&place);
    terminal.asks("[a]bandon");
    terminal.script.tell("\x03");
    let (status, seen) = terminal.ends();
    assert!(status == 130 && seen.contains("what you typed is kept in"), "{status}: {seen}");
}
