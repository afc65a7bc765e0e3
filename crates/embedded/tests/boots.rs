//! Lock tables of earlier boots, and a lock table that has gone: tokens rise all the same.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mutext_contract::{
    Acquisition, AgentName, ContextName, Deadline, DocumentPath, DocumentStore, FencedRead, FencingToken, Holder,
    Lease, LockRequest, LockService, Resource, Ttl,
};
use mutext_embedded::EmbeddedOptions;

fn deadline() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

fn context() -> ContextName {
    ContextName::new("main").unwrap()
}

/// Opens the store, takes the lock, reads under it, and closes everything without releasing.
async fn take_and_close(dir: &Path) -> Lease {
    let opened = EmbeddedOptions::new(dir).open(deadline()).await.unwrap();
    let holder = Holder::new(AgentName::new("anna").unwrap());
    let resource = Resource::new("plan.md").unwrap();
    let request = LockRequest::exclusive(context(), holder, Ttl::DEFAULT, resource);
    let lease = match opened.locks.acquire(&request, deadline()).await.unwrap() {
        Acquisition::Granted(grant) => grant.lease,
        other => panic!("expected a grant; found {other:?}"),
    };
    let path = DocumentPath::new("plan.md").unwrap();
    let read = opened.store.read_fenced(&context(), &path, &lease.fence(), deadline()).await.unwrap();
    assert_eq!(read, FencedRead::Read(None), "expected {:?} to be admitted", lease.token);
    drop(opened);
    let begun = std::time::Instant::now();
    // The last connections take their logs away when their threads end.
    while files(dir).iter().any(|file| file.to_string_lossy().ends_with("-wal")) {
        assert!(begun.elapsed() < Duration::from_secs(10), "expected the store to close; found {:?}", files(dir));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    lease
}

fn files(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn lock_tables(dir: &Path) -> Vec<PathBuf> {
    files(dir).into_iter().filter(|file| file.to_string_lossy().contains("locks-")).collect()
}

fn assert_new_epoch(before: FencingToken, after: FencingToken) {
    assert!(after.epoch > before.epoch, "expected an epoch above {}; found {}", before.epoch, after.epoch);
}

#[tokio::test]
async fn a_reopened_store_goes_on_counting_in_the_same_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let first = take_and_close(dir.path()).await;
    let second = take_and_close(dir.path()).await;
    assert_eq!(second.token.epoch, first.token.epoch);
    assert!(second.token.counter > first.token.counter, "found {:?} after {:?}", second.token, first.token);
}

#[tokio::test]
async fn another_boots_lock_table_is_removed_and_a_new_epoch_begins() {
    let dir = tempfile::tempdir().unwrap();
    let first = take_and_close(dir.path()).await;
    let [table] = &lock_tables(dir.path())[..] else { panic!("expected one lock table") };
    let earlier = dir.path().join("locks-anotherboot1.db");
    fs::rename(table, &earlier).unwrap();
    fs::write(dir.path().join("locks-anotherboot1.db-wal"), "").unwrap();
    fs::write(dir.path().join("locks-anotherboot1.db-shm"), "").unwrap();
    fs::write(dir.path().join("locks-explained.txt"), "stays").unwrap();

    // The lease of the earlier boot has not run out; it is gone with its boot.
    let second = take_and_close(dir.path()).await;
    assert_new_epoch(first.token, second.token);
    assert_eq!(
        lock_tables(dir.path()).len(),
        2,
        "expected this boot's table and the note; found {:?}",
        files(dir.path())
    );
    assert!(!earlier.exists() && table.exists());
    assert_eq!(fs::read_to_string(dir.path().join("locks-explained.txt")).unwrap(), "stays");
    let third = take_and_close(dir.path()).await;
    assert_eq!(third.token.epoch, second.token.epoch);
}

#[tokio::test]
async fn tokens_rise_although_the_lock_table_was_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = take_and_close(dir.path()).await;
    for _ in 0..2 {
        for table in lock_tables(dir.path()) {
            fs::remove_file(table).unwrap();
        }
        let next = take_and_close(dir.path()).await;
        assert_new_epoch(last.token, next.token);
        last = next;
    }
}
