//! Lock servers that are put back to an earlier state, and grant tokens again that were out already: nothing is
//! corrupted, and work goes on by itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::Duration;

use mutext::{AgentName, Content, Context, Error, Fence, FencingToken, LeaseId, Loss, Mutext, Settings, Wait};
use mutext_testbed::{ConsulServer, EtcdServer};
use tempfile::TempDir;

/// An agent over documents in `dir`, as if in a process of its own.
async fn agent(name: &str, dir: &Path, locks: &str) -> Context {
    let store = format!("embedded:{}?sync=normal", dir.display());
    let mutext = Mutext::open(&store.parse().unwrap(), Some(&locks.parse().unwrap())).await.unwrap();
    let mut settings = Settings::new(AgentName::new(name).unwrap());
    // A server that begins again, and a busy machine, take their time.
    (settings.wait, settings.patience) = (Wait::new(Duration::from_secs(30)).unwrap(), Duration::from_secs(40));
    mutext.context("shared", settings).unwrap()
}

/// One update under a lease; its token's number.
async fn update(context: &Context, path: &str, text: &str) -> (u64, u64) {
    let updated = context.update(path, async |_| Ok::<_, Error>(Content::text(text))).await.unwrap();
    updated.token.unwrap().number()
}

/// Whoever has seen a document under a token that is out of the lock server's memory, and the last token.
async fn before(context: &Context) -> (u64, u64) {
    let mut last = (0, 0);
    for number in 0..10 {
        for path in ["plan", "notes"] {
            last = update(context, path, &number.to_string()).await;
        }
    }
    last
}

/// After the lock server was put back: the first write under a lease is refused, although nobody else holds the lock, and
/// the next one has a token above all that were granted before. An update sees to that by itself.
async fn goes_on(dir: &Path, locks: &str, last: (u64, u64)) {
    let anna = agent("anna", dir, locks).await;
    let guard = anna.lock("plan").await.unwrap();
    let behind = guard.token().number();
    assert!(behind <= last, "expected a token that was granted before, up to {last:?}; found {behind:?}");
    let refused = guard.put("plan", Content::text("stale")).await;
    assert!(matches!(&refused, Err(Error::LeaseLost { loss: Loss::Superseded, .. })), "{refused:?}");
    drop(guard);
    let guard = anna.lock("plan").await.unwrap();
    let next = guard.token().number();
    assert!(next.0 > last.0, "expected an epoch above that of {last:?}; found {next:?}");
    guard.put("plan", Content::text("anna's")).await.unwrap();
    guard.release().await.unwrap();
    // The other document is good as well: the epoch is the context's.
    let bert = agent("bert", dir, locks).await;
    let guard = bert.lock("notes").await.unwrap();
    assert!(guard.token().number() > next, "{:?} after {next:?}", guard.token());
    assert_eq!(guard.get("notes").await.unwrap().unwrap().content.as_str(), "9");
    guard.put("notes", Content::text("bert's")).await.unwrap();
    assert_eq!(bert.get("plan").await.unwrap().unwrap().content.as_str(), "anna's");
}

/// Whoever works under a lease that another process holds, as the command of a `mutext lock` does, tells as well.
async fn another_process_goes_on(dir: &Path, locks: &str, last: (u64, u64)) {
    let (anna, command) = (agent("anna", dir, locks).await, agent("command", dir, locks).await);
    for tries in 0..2 {
        let guard = anna.lock("plan").await.unwrap();
        let fence = guard.fence();
        let read = command.get_under("plan", &fence).await;
        if tries == 0 {
            assert!(matches!(&read, Err(Error::LeaseLost { loss: Loss::Superseded, .. })), "{read:?}");
        } else {
            assert!(guard.token().epoch > last.0, "expected an epoch above that of {last:?}; found {}", guard.token());
            assert_eq!(read.unwrap().unwrap().content.as_str(), "9");
        }
        guard.release().await.unwrap();
    }
}

/// A holder whom a later one has outranked is refused, and nothing else: the epoch stays.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_really_came_too_late_begins_no_epoch() {
    let (dir, server) = (TempDir::new().unwrap(), ConsulServer::start().unwrap());
    let (anna, bert) = (agent("anna", dir.path(), &server.url()).await, agent("bert", dir.path(), &server.url()).await);
    let late = anna.lock("plan").await.unwrap();
    bert.revoke(late.lease().id(), "to see what becomes of it").await.unwrap();
    let next = bert.lock("plan").await.unwrap();
    next.put("plan", Content::text("bert's")).await.unwrap();
    let refused = late.put("plan", Content::text("late")).await;
    assert!(matches!(&refused, Err(Error::LeaseLost { .. })), "{refused:?}");
    // Its token alone, as if nobody had told of the revocation.
    let behind = Fence { token: FencingToken { counter: next.token().counter - 1, ..next.token() }, ..next.fence() };
    let behind = Fence { token: FencingToken { owner: LeaseId::random(), ..behind.token }, ..behind };
    let refused = anna.get_under("plan", &behind).await;
    assert!(matches!(&refused, Err(Error::LeaseLost { loss: Loss::Superseded, .. })), "{refused:?}");
    next.release().await.unwrap();
    let after = bert.lock("plan").await.unwrap();
    assert_eq!(after.token().epoch, late.token().epoch);
}

/// The same, by nothing but updates.
async fn updates_go_on(dir: &Path, locks: &str, last: (u64, u64)) {
    let anna = agent("anna", dir, locks).await;
    let next = update(&anna, "plan", "anna's").await;
    assert!(next.0 > last.0, "expected an epoch above that of {last:?}; found {next:?}");
    assert_eq!(anna.get("plan").await.unwrap().unwrap().content.as_str(), "anna's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_consul_in_other_servers_costs_one_refused_write() {
    let (dir, files) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let snapshot = files.path().join("snapshot").display().to_string();
    for way in 0..3 {
        let server = ConsulServer::start().unwrap();
        let context = agent("early", dir.path(), &server.url()).await;
        update(&context, "plan", "first").await;
        server.cli(&["snapshot", "save", &snapshot]).unwrap();
        let last = before(&context).await;
        let other = ConsulServer::start().unwrap();
        other.cli(&["snapshot", "restore", &snapshot]).unwrap();
        drop((context, server));
        match way {
            0 => goes_on(dir.path(), &other.url(), last).await,
            1 => updates_go_on(dir.path(), &other.url(), last).await,
            _ => another_process_goes_on(dir.path(), &other.url(), last).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_etcd_that_was_put_back_costs_one_refused_write() {
    let (dir, files) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for by_updates in [false, true] {
        let snapshot = files.path().join(format!("snapshot-{by_updates}"));
        let mut server = EtcdServer::start().unwrap();
        let context = agent("early", dir.path(), &server.url()).await;
        update(&context, "plan", "first").await;
        server.ctl(&["snapshot", "save", &snapshot.display().to_string()]).unwrap();
        let last = before(&context).await;
        drop(context);
        server.put_back(&snapshot, None).unwrap();
        if by_updates {
            updates_go_on(dir.path(), &server.url(), last).await;
        } else {
            goes_on(dir.path(), &server.url(), last).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_etcd_that_was_put_back_under_another_name_begins_an_epoch_at_once() {
    let (dir, files) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let snapshot = files.path().join("snapshot");
    let mut server = EtcdServer::start().unwrap();
    let context = agent("early", dir.path(), &server.url()).await;
    update(&context, "plan", "first").await;
    server.ctl(&["snapshot", "save", &snapshot.display().to_string()]).unwrap();
    let last = before(&context).await;
    server.put_back(&snapshot, Some("after-the-fire")).unwrap();
    for agent in [context, agent("late", dir.path(), &server.url()).await] {
        let guard = agent.lock("plan").await.unwrap();
        assert!(guard.token().epoch > last.0, "expected an epoch above that of {last:?}; found {}", guard.token());
        guard.put("plan", Content::text("after the fire")).await.unwrap();
        guard.release().await.unwrap();
    }
}
