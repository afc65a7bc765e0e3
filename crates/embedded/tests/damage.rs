//! A store that cannot be opened: each error names the file and the remedy, and the file stays as it was.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mutext_contract::{
    AgentName, Commit, Content, ContextName, Deadline, DocumentPath, DocumentStore, Effect, EngineError, Precondition,
    TroubleKind,
};
use mutext_embedded::EmbeddedOptions;
use tempfile::TempDir;

fn deadline() -> Deadline {
    Deadline::after(Duration::from_secs(5))
}

/// Tries to open the store and says what kept it from opening.
fn trouble(dir: &Path) -> EngineError {
    match EmbeddedOptions::new(dir).open_blocking(deadline()) {
        Ok(_) => panic!("expected {} not to open; it did", dir.display()),
        Err(error) => error,
    }
}

/// Asserts that an error is of a kind, about a file, says what to do, and that nothing happened.
fn assert_helps(error: &EngineError, file: &Path, is_kind: impl Fn(&TroubleKind) -> bool, remedy: &str) {
    assert!(is_kind(&error.kind), "found another kind of trouble: {error:?}");
    let text = error.to_string();
    assert!(text.contains(&file.display().to_string()), "expected {} to be named; found {text}", file.display());
    assert!(text.contains(remedy), "expected the remedy {remedy:?}; found {text}");
    assert_eq!(error.effect, Effect::None, "{text}");
}

/// A store directory whose `documents.db` has a document in it, and which nobody has open.
fn written() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("documents.db");
    let opened = EmbeddedOptions::new(dir.path()).open_blocking(deadline()).unwrap();
    let commit = Commit::new(AgentName::new("anna").unwrap()).put(
        DocumentPath::new("plan.md").unwrap(),
        Content::text("x".repeat(50_000)),
        Precondition::Absent,
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let context = ContextName::new("main").unwrap();
    runtime.block_on(opened.store.commit(&context, &commit, deadline())).unwrap();
    drop(opened);
    // The last connection takes the log into the file and away when its thread ends.
    let log = dir.path().join("documents.db-wal");
    until_gone(&log);
    (dir, file)
}

fn until_gone(file: &Path) {
    let begun = std::time::Instant::now();
    while file.exists() {
        assert!(begun.elapsed() < Duration::from_secs(10), "expected {} to go; it stays", file.display());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Asserts that opening fails with this trouble, twice, and leaves the file byte for byte as it was.
fn assert_untouched(file: &Path, is_kind: impl Fn(&TroubleKind) -> bool, remedy: &str) {
    let before = fs::read(file).unwrap();
    for _ in 0..2 {
        let error = trouble(file.parent().unwrap());
        assert_helps(&error, file, &is_kind, remedy);
        let after = fs::read(file).unwrap();
        let first = before.iter().zip(&after).position(|(one, other)| one != other);
        assert!(
            before == after,
            "expected {} unchanged; it had {} bytes and has {}, and differs first at byte {first:?}",
            file.display(),
            before.len(),
            after.len()
        );
        let names = fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with("documents.db-")).collect();
        assert!(left.is_empty(), "expected nothing to be left beside it; found {left:?}");
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a-file");
    fs::write(&file, "not a directory").unwrap();
    for below in [file.clone(), file.join("store")] {
        let error = trouble(&below);
        assert_helps(
            &error,
            &below,
            |kind| *kind == TroubleKind::Unavailable,
            "name a store directory that can be made",
        );
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "not a directory");
}

/// The root user may write everywhere but where the kernel forbids it.
#[cfg(target_os = "linux")]
#[test]
fn a_directory_that_may_not_be_written_is_named() {
    let below = Path::new("/sys/mutext-store");
    let error = trouble(below);
    assert_helps(&error, below, |kind| *kind == TroubleKind::ReadOnly, "name a store directory that can be made");
}

#[test]
fn a_directory_in_the_files_place_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("documents.db");
    fs::create_dir(&file).unwrap();
    let error = trouble(dir.path());
    assert_helps(&error, &file, |kind| *kind == TroubleKind::Unavailable, "may be read and written");
    assert_eq!(fs::read_dir(&file).unwrap().count(), 0);
}

#[test]
fn garbage_is_left_as_it_is() {
    for garbage in [b"This is a letter to my mother.\n".repeat(300), vec![0xa5; 100], vec![0; 8192]] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("documents.db");
        fs::write(&file, garbage).unwrap();
        assert_untouched(&file, |kind| *kind == TroubleKind::Corrupt, "move the file away");
    }
}

#[test]
fn a_file_that_was_cut_off_is_left_as_it_is() {
    for keep in [|length| length / 2, |_| 4096, |_| 1000, |_| 100, |_| 20] {
        let (_dir, file) = written();
        let whole = fs::read(&file).unwrap();
        let keep: usize = keep(whole.len());
        fs::write(&file, &whole[..keep]).unwrap();
        println!("{keep} of {} bytes", whole.len());
        assert_untouched(&file, |kind| *kind == TroubleKind::Corrupt, "move the file away");
    }
}

#[test]
fn a_file_whose_first_page_is_damaged_is_left_as_it_is() {
    let (_dir, file) = written();
    let mut bytes = fs::read(&file).unwrap();
    bytes[100..4096].fill(0xa5);
    fs::write(&file, bytes).unwrap();
    assert_untouched(&file, |kind| *kind == TroubleKind::Corrupt, "move the file away");
}

#[test]
fn another_programs_database_is_left_as_it_is() {
    // All of them, so that a failure shows which.
    let mut changed = Vec::new();
    for setup in [
        "CREATE TABLE mails (id INTEGER PRIMARY KEY, text TEXT); INSERT INTO mails VALUES (1, 'hello')",
        "PRAGMA application_id = 7; PRAGMA user_version = 3; CREATE TABLE mails (text TEXT)",
        "PRAGMA user_version = 1",
        "PRAGMA application_id = 7",
        "PRAGMA journal_mode = WAL; CREATE TABLE mails (text TEXT)",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("documents.db");
        rusqlite::Connection::open(&file).unwrap().execute_batch(setup).unwrap();
        let before = fs::read(&file).unwrap();
        let error = trouble(dir.path());
        assert_helps(&error, &file, |kind| *kind == TroubleKind::Corrupt, "database of another program");
        if fs::read(&file).unwrap() != before {
            changed.push(setup);
        }
    }
    assert!(changed.is_empty(), "expected every file to stay as it was; these were changed: {changed:#?}");
}

#[test]
fn a_lock_table_in_the_documents_place_is_left_as_it_is() {
    let (dir, file) = written();
    let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let locks = names.into_iter().find(|path| path.to_string_lossy().contains("locks-")).unwrap();
    until_gone(&dir.path().join(format!("{}-wal", locks.display())));
    fs::copy(locks, &file).unwrap();
    assert_untouched(&file, |kind| *kind == TroubleKind::Corrupt, "database of another program");
}

#[test]
fn a_file_of_a_newer_release_is_left_as_it_is() {
    let (dir, file) = written();
    rusqlite::Connection::open(&file).unwrap().execute_batch("PRAGMA user_version = 41").unwrap();
    let too_new = |kind: &TroubleKind| matches!(kind, TroubleKind::TooNew { found: 41, known } if *known < 41);
    assert_untouched(&file, too_new, "newer Mutext");
    drop(dir);
}

#[test]
fn a_damaged_lock_table_is_named_and_left_as_it_is() {
    let (dir, _file) = written();
    let names: Vec<PathBuf> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let is_table = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "db");
    let table = names.iter().filter(is_table).find(|path| path.to_string_lossy().contains("locks-")).unwrap();
    until_gone(&PathBuf::from(format!("{}-wal", table.display())));
    let garbage = b"garbage ".repeat(2000);
    fs::write(table, &garbage).unwrap();
    let error = trouble(dir.path());
    assert_helps(&error, table, |kind| *kind == TroubleKind::Corrupt, "the file");
    assert_eq!(fs::read(table).unwrap(), garbage);
    // A lock table of before would hand out its tokens once more.
    assert!(!error.remedy.contains("backup"), "expected no advice to put an old lock table back; found {error}");
}
