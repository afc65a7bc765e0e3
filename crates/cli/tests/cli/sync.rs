//! `sync`: a folder and a context that are kept alike.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::place::{Holder, Place, until};

/// A place with folders of these names.
fn place_with(folders: &[&str]) -> Place {
    let place = Place::new();
    folders.iter().for_each(|folder| fs::create_dir(place.path(folder)).unwrap());
    place
}

fn read(place: &Place, name: &str) -> String {
    fs::read_to_string(place.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A name may hold anything but a slash: what a terminal would do, or take for another line, is shown.
#[test]
fn names_of_files_do_nothing_to_a_terminal() {
    let place = place_with(&["notes"]);
    place.write("notes/red\u{1b}[31m\nwarning: all is lost", "x");
    place.write("notes/left\u{9b}2J", "y");
    for flags in [&["sync", "notes"][..], &["sync", "notes", "--dry-run"]] {
        let ran = place.run(flags);
        let told = ran.err.lines().filter(|line| line.starts_with("warning: ")).count();
        assert_eq!(told, 2, "{ran:?}");
        assert!(ran.err.contains("red\\u{1b}[31m\\nwarning: all is lost is left as it is"), "{ran:?}");
        let moves = |character: char| character.is_control() && character != '\n';
        assert!(!ran.err.chars().chain(ran.out.chars()).any(moves), "{ran:?}");
    }
}

#[test]
fn what_is_new_on_one_side_goes_to_the_other() {
    let place = place_with(&["notes", "notes/sub"]);
    place.write("notes/sub/a.md", "from the folder\n");
    place.write("notes/t.json", "{\"done\": false}");
    place.run(&["--context", "team", "put", "plan.md", "from the context\n"]).done();
    let said = place.run(&["sync", "notes", "team"]).done();
    for line in ["sub/a.md is uploaded, at revision 1", "plan.md is downloaded", "3 documents are alike", "team"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert_eq!(read(&place, "notes/plan.md"), "from the context\n");
    assert_eq!(place.run(&["--context", "team", "get", "sub/a.md"]).done(), "from the folder\n");
    let document = place.run(&["--context", "team", "get", "t.json", "--json"]).json();
    assert_eq!((&document["kind"], &document["content"]), (&"json".into(), &"{\"done\": false}".into()));
    let history = place.run(&["--context", "team", "history", "sub/a.md", "--json"]).json();
    assert_eq!(history["revisions"][0]["message"], "from the folder notes");
    assert_eq!(place.run(&["sync", "notes", "team"]).done(), "3 documents are alike in folder and context team\n");
}

#[test]
fn changes_and_deletions_travel_both_ways() {
    let place = place_with(&["notes"]);
    for name in ["a", "b", "c", "d"] {
        place.write(&format!("notes/{name}"), "1\n");
    }
    place.run(&["sync", "notes"]).done();
    place.write("notes/a", "2\n");
    place.run(&["put", "b", "2\n", "--if-revision", "1"]).done();
    fs::remove_file(place.path("notes/c")).unwrap();
    place.run(&["rm", "d", "--if-revision", "1"]).done();
    let report = place.run(&["sync", "notes", "--json"]).json();
    let done: Vec<(&str, &str)> = report["done"].as_array().unwrap().iter().map(what).collect();
    assert_eq!(done, [("c", "document_deleted"), ("d", "file_deleted"), ("a", "uploaded"), ("b", "downloaded")]);
    assert_eq!((read(&place, "notes/b").as_str(), place.content("a").as_str()), ("2\n", "2\n"));
    assert!(!place.path("notes/d").exists());
    place.run(&["get", "c"]).refused(6, &["c"]);
    assert_eq!(report["alike"], 2);
}

fn what(done: &serde_json::Value) -> (&str, &str) {
    (done["path"].as_str().unwrap(), done["what"].as_str().unwrap())
}

#[test]
fn two_changes_that_do_not_touch_are_merged() {
    let place = place_with(&["notes"]);
    place.write("notes/plan.md", "# Plan\n\none\n\ntwo\n");
    place.write("notes/t.json", "{\"a\": 1, \"b\": 2}");
    place.run(&["sync", "notes"]).done();
    place.write("notes/plan.md", "# Plan\n\none, from the folder\n\ntwo\n");
    place.run(&["put", "plan.md", "# Plan\n\none\n\ntwo, from the context\n", "--if-revision", "1"]).done();
    place.write("notes/t.json", "{\"a\": 10, \"b\": 2}");
    place.run(&["put", "t.json", "{\"a\": 1, \"b\": 20}", "--if-revision", "1"]).done();
    let said = place.run(&["sync", "notes"]).done();
    assert!(said.contains("plan.md is merged, at revision 3") && said.contains("t.json is merged"), "{said}");
    let merged = "# Plan\n\none, from the folder\n\ntwo, from the context\n";
    assert_eq!((read(&place, "notes/plan.md").as_str(), place.content("plan.md").as_str()), (merged, merged));
    assert_eq!(read(&place, "notes/t.json"), "{\"a\": 10, \"b\": 20}");
}

#[test]
fn two_changes_that_contradict_each_other_are_both_kept_and_told() {
    let place = place_with(&["notes"]);
    place.write("notes/plan.md", "one\n");
    place.run(&["sync", "notes"]).done();
    place.write("notes/plan.md", "one, from the folder\n");
    place.run(&["--agent", "critic", "put", "plan.md", "one, from the context\n", "--if-revision", "1"]).done();
    let ran = place.run(&["sync", "notes"]);
    assert_eq!(ran.status, 1, "{ran:?}");
    assert!(ran.out.contains("revision 2 by critic") && ran.out.contains("plan.md.conflict-2"), "{ran:?}");
    assert!(ran.err.contains("plan.md.conflict-2 holds what could not be merged"), "{ran:?}");
    assert_eq!(read(&place, "notes/plan.md"), "one, from the context\n");
    assert_eq!(read(&place, "notes/plan.md.conflict-2"), "one, from the folder\n");
    assert_eq!(place.content("plan.md"), "one, from the context\n");
    let again = place.run(&["sync", "notes", "--json"]);
    assert_eq!(
        (again.status, &again.json()["copies"][0]),
        (1, &"plan.md.conflict-2".into()),
        "it is told until it is gone"
    );
    fs::remove_file(place.path("notes/plan.md.conflict-2")).unwrap();
    place.run(&["sync", "notes"]).done();
    assert_eq!(place.run(&["ls", "--json"]).json()["documents"].as_array().unwrap().len(), 1, "a copy is no document");
}

#[test]
fn a_deletion_gives_way_to_a_change() {
    let place = place_with(&["notes"]);
    place.write("notes/a", "1\n");
    place.write("notes/b", "1\n");
    place.run(&["sync", "notes"]).done();
    place.write("notes/a", "changed\n");
    place.run(&["rm", "a", "--if-revision", "1"]).done();
    fs::remove_file(place.path("notes/b")).unwrap();
    place.run(&["put", "b", "changed\n", "--if-revision", "1"]).done();
    let report = place.run(&["sync", "notes", "--json"]).json();
    assert!(report["done"].as_array().unwrap().iter().all(|done| done["undeleted"] == true), "{report}");
    assert_eq!((place.content("a").as_str(), read(&place, "notes/b").as_str()), ("changed\n", "changed\n"));
}

#[test]
fn what_was_there_on_both_sides_before_the_first_sync_is_never_written_over() {
    let place = place_with(&["notes"]);
    place.write("notes/same", "same\n");
    place.write("notes/other", "folder\n");
    place.run(&["put", "same", "same\n"]).done();
    place.run(&["put", "other", "context\n"]).done();
    assert_eq!(place.run(&["sync", "notes"]).status, 1);
    assert_eq!(read(&place, "notes/other.conflict-1"), "folder\n");
    assert_eq!(read(&place, "notes/other"), "context\n");
    assert_eq!(place.run(&["history", "same", "--json"]).json()["revisions"].as_array().unwrap().len(), 1);
}

#[test]
fn what_cannot_be_a_document_is_told_of_and_left() {
    let place = place_with(&["notes"]);
    place.write("m.yaml", "document_bytes_max: 100\n");
    place.write("notes/good", "good\n");
    place.write("notes/binary", b"ab\xff");
    place.write("notes/big", "x".repeat(101));
    place.write("notes/bad.json", "{");
    place.write("notes/.hidden", "hidden");
    std::os::unix::fs::symlink("/etc/passwd", place.path("notes/link")).unwrap();
    place.run(&["put", ".dot/a", "x"]).done();
    let ran = place.run(&["--config", "m.yaml", "sync", "notes"]);
    assert_eq!(ran.status, 1, "{ran:?}");
    for part in ["binary is left", "byte 2", "big is left", "100 bytes", "bad.json is left", "line 1", ".dot/a is left"]
    {
        assert!(ran.err.contains(part), "{part}: {ran:?}");
    }
    assert!(ran.out.contains("1 ignored") && ran.out.contains("good is uploaded"), "{ran:?}");
    let documents = place.run(&["ls", "--json"]).json();
    assert_eq!(documents["documents"].as_array().unwrap().len(), 2, "{documents}");
    assert_eq!(fs::read(place.path("notes/binary")).unwrap(), b"ab\xff");
}

#[test]
fn a_file_that_is_no_text_any_more_does_not_delete_its_document() {
    let place = place_with(&["notes", "notes/sub", "elsewhere"]);
    place.write("notes/a", "text\n");
    place.write("notes/sub/b", "text\n");
    place.run(&["sync", "notes"]).done();
    place.write("notes/a", b"\xff");
    fs::rename(place.path("notes/sub"), place.path("gone")).unwrap();
    std::os::unix::fs::symlink(place.path("elsewhere"), place.path("notes/sub")).unwrap();
    place.run(&["put", "sub/c", "new\n"]).done();
    let ran = place.run(&["sync", "notes"]);
    assert!(ran.status == 1 && ran.err.contains("a is left"), "{ran:?}");
    assert_eq!((place.content("a").as_str(), place.content("sub/b").as_str()), ("text\n", "text\n"));
    assert!(fs::read_dir(place.path("elsewhere")).unwrap().next().is_none(), "no link leads out of the folder");
}

#[test]
fn a_folder_that_was_emptied_does_not_empty_the_context() {
    let place = place_with(&["notes"]);
    for number in 0..8 {
        place.write(&format!("notes/{number}"), "1\n");
    }
    place.run(&["sync", "notes"]).done();
    for number in 0..7 {
        fs::remove_file(place.path(&format!("notes/{number}"))).unwrap();
    }
    place.run(&["sync", "notes"]).refused(2, &["7 of the 8", "--allow-deletions", "--dry-run", "nothing was changed"]);
    let planned = place.run(&["sync", "notes", "--dry-run"]).done();
    assert!(planned.contains("0: delete the document") && planned.contains("nothing was done: 7 to do"), "{planned}");
    place.run(&["sync", "notes", "--allow-deletions"]).done();
    assert_eq!(place.run(&["ls", "--json"]).json()["documents"].as_array().unwrap().len(), 1);
}

#[test]
fn a_file_that_lost_most_of_itself_does_not_wear_its_document_down() {
    let place = place_with(&["notes"]);
    place.write("notes/plan.md", "line\n".repeat(100));
    place.run(&["sync", "notes"]).done();
    place.write("notes/plan.md", "line\n");
    let ran = place.run(&["sync", "notes"]);
    assert!(ran.status == 1 && ran.err.contains("--allow-shrink") && ran.err.contains("500 bytes"), "{ran:?}");
    assert_eq!(place.content("plan.md").len(), 500);
    place.run(&["sync", "notes", "--allow-shrink"]).done();
    assert_eq!(place.content("plan.md"), "line\n");
}

#[test]
fn a_folder_belongs_to_one_context_and_to_one_sync_at_a_time() {
    let place = place_with(&["notes"]);
    place.run(&["sync", "notes", "team"]).done();
    place.run(&["sync", "notes", "other"]).refused(2, &["context team", "not to other", ".mutext-sync.json"]);
    place.run(&["sync", "nowhere"]).refused(7, &["nowhere", "mkdir"]);
    place.write("notes/a", "1\n");
    let watching = Holder::start_without_word(&mut place.mutext(&["sync", "notes", "team", "--watch"]));
    until("the first round", || place.run(&["--context", "team", "get", "a"]).status == 0);
    place.run(&["sync", "notes", "team"]).refused(4, &["another sync", "nothing was changed"]);
    watching.signal(rustix::process::Signal::INT);
    assert_eq!(watching.end().status, 130);
    place.run(&["sync", "notes", "team"]).done();
}

#[test]
fn a_sync_that_watches_carries_what_comes_later_both_ways() {
    let place = place_with(&["notes"]);
    let mut command = place.mutext(&["sync", "notes", "--watch", "--every", "100ms", "--json"]);
    let mut watching = Holder::start_without_word(&mut command);
    let mut report = || serde_json::from_str::<serde_json::Value>(&watching.line()).unwrap();
    assert_eq!(report()["alike"], 0);
    place.write("notes/a", "folder\n");
    assert_eq!(what(&report()["done"][0]), ("a", "uploaded"));
    place.run(&["put", "b", "context\n"]).done();
    assert_eq!(what(&report()["done"][0]), ("b", "downloaded"));
    assert_eq!(read(&place, "notes/b"), "context\n");
    watching.signal(rustix::process::Signal::TERM);
    assert_eq!(watching.end().status, 143);
}

/// What one of several does next to a file or a document.
struct Life {
    rng: StdRng,
    next: u32,
    written: BTreeSet<String>,
    /// What somebody took away who had it before their eyes.
    removed: BTreeSet<String>,
}

impl Life {
    const NAMES: [&str; 4] = ["a.md", "b.md", "sub/c.md", "sub/deep/d.md"];

    /// One change of a text; none: it is deleted.
    fn change(&mut self, before: Option<&str>) -> Option<String> {
        let lines: Vec<&str> = before.unwrap_or_default().lines().collect();
        self.next += 1;
        let word = format!("word-{}", self.next);
        let kept: Vec<&str> = match self.rng.random_range(0..10) {
            0 if before.is_some() => {
                self.removed.extend(lines.iter().map(|line| (*line).to_owned()));
                return None;
            }
            1 => lines.get(lines.len() / 2..).unwrap_or_default().to_vec(),
            _ => lines.clone(),
        };
        self.removed.extend(lines.iter().filter(|line| !kept.contains(line)).map(|line| (*line).to_owned()));
        let at = self.rng.random_range(0..=kept.len());
        let mut kept: Vec<String> = kept.into_iter().map(str::to_owned).collect();
        kept.insert(at, word.clone());
        self.written.insert(word);
        Some(kept.join("\n") + "\n")
    }

    fn in_folder(&mut self, folder: &Path) {
        let file = folder.join(Self::NAMES.choose(&mut self.rng).unwrap());
        let before = fs::read_to_string(&file).ok();
        match self.change(before.as_deref()) {
            Some(text) => {
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(&file, text).unwrap();
            }
            None => fs::remove_file(&file).unwrap(),
        }
    }

    fn in_context(&mut self, place: &Place) {
        let name = *Self::NAMES.choose(&mut self.rng).unwrap();
        let got = place.run(&["get", name]);
        let before = (got.status == 0).then_some(got.out);
        match self.change(before.as_deref()) {
            Some(text) => _ = place.run(&["put", name, &text, "--overwrite"]).done(),
            None => _ = place.run(&["rm", name, "--overwrite"]).done(),
        }
    }
}

/// Texts of a folder, without what belongs to sync itself; and all that copies hold.
fn texts(folder: &Path) -> (Vec<(String, String)>, String) {
    let (mut texts, mut copies) = (Vec::new(), String::new());
    let mut dirs = vec![folder.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            assert!(!name.contains(".mutext-sync-tmp"), "{name} is left behind");
            if path.is_dir() {
                dirs.push(path);
            } else if name.contains(".conflict-") {
                copies.push_str(&fs::read_to_string(path).unwrap());
            } else if !name.starts_with('.') {
                texts.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    texts.sort();
    (texts, copies)
}

#[test]
fn two_folders_and_a_context_end_alike_after_random_changes_and_no_word_is_lost() {
    let seed = rand::random();
    println!("seed {seed}");
    let place = place_with(&["one", "two"]);
    let folders = [place.path("one"), place.path("two")];
    let (rng, next) = (StdRng::seed_from_u64(seed), 0);
    let mut life = Life { rng, next, written: BTreeSet::new(), removed: BTreeSet::new() };
    let sync = |folder: &Path| {
        let ran = place.run(&["sync", folder.to_str().unwrap(), "--allow-shrink", "--allow-deletions"]);
        assert!(ran.status == 0 || ran.status == 1 && ran.err.contains(".conflict-"), "seed {seed}: {ran:?}");
    };
    for _ in 0..60 {
        match life.rng.random_range(0..8) {
            0..3 => life.in_folder(&folders[0]),
            3..6 => life.in_folder(&folders[1]),
            6 => life.in_context(&place),
            _ => sync(folders.choose(&mut life.rng).unwrap()),
        }
    }
    [0, 1, 0, 1].into_iter().for_each(|which| sync(&folders[which]));
    let [(one, mut copies), (two, others)] = folders.map(|folder| texts(&folder));
    assert_eq!(one, two, "seed {seed}");
    let listed = place.run(&["ls", "--json"]).json();
    let paths: Vec<&str> =
        listed["documents"].as_array().unwrap().iter().map(|entry| entry["path"].as_str().unwrap()).collect();
    let texts: Vec<(String, String)> = paths.iter().map(|path| ((*path).to_owned(), place.content(path))).collect();
    assert_eq!(one, texts, "seed {seed}");
    copies.push_str(&others);
    copies.extend(one.iter().map(|(_, text)| text.as_str()));
    let words: BTreeSet<&str> = copies.lines().collect();
    for word in life.written.difference(&life.removed) {
        assert!(words.contains(word.as_str()), "{word} is lost, seed {seed}");
    }
}
