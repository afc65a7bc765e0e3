//! Reading, changing and writing back under contention: nothing acknowledged is lost, and nothing goes on for ever.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use common::{Store, agent_of, assert_free, settings, wait};
use mutext::{
    AgentName, Commit, CommitRecord, Content, Context, ContextName, Cursor, Document, DocumentPath, EngineError, Error,
    Fence, IdempotencyKey, Kind, Listing, Mutext, PastRevision, PathPrefix, Precondition, Revision, Settings,
    StoreCapabilities, Strategy, Ttl, UpdateOptions,
};
use mutext_contract::{
    ArchivedCommit, Deadline, DocumentStore, EpochSource, Feed, FencedRead, Finding, Hit, Outcome, Query, Retention,
    Revocation, RevocationRecord, Snapshot, Tended,
};

const PATIENT: Duration = Duration::from_secs(60);

fn under_a_lease() -> Strategy {
    Strategy::Lease { ttl: Ttl::DEFAULT, wait: wait(PATIENT) }
}

fn options(strategy: Strategy) -> UpdateOptions {
    UpdateOptions { strategy, patience: PATIENT, message: None }
}

fn number(document: Option<&Document>) -> u64 {
    document.map_or(0, |document| document.content.parse().unwrap())
}

async fn increment(document: Option<Document>) -> Result<Content, Error> {
    Ok(Content::json(&(number(document.as_ref()) + 1))?)
}

fn path(text: &str) -> DocumentPath {
    text.try_into().unwrap()
}

// --- Nothing is lost -----------------------------------------------------------------------------------------------

/// Eight agents, each in an opening of its own, count one document up 25 times.
async fn count_together(strategies: &[Strategy]) {
    let store = Store::new();
    let reader = store.agent("reader").await;
    let tasks: Vec<_> = strategies
        .iter()
        .copied()
        .map(|strategy| {
            let address = store.address();
            tokio::spawn(async move {
                let mutext = Mutext::open(&address, None).await.unwrap();
                let agent = agent_of(&mutext, "counter");
                let mut attempts = 0;
                for _ in 0..25 {
                    let updated = agent.update_with("count", &options(strategy), increment).await.unwrap();
                    assert_eq!(updated.base.map_or(0, |base| base.0) + 1, updated.revision.0);
                    assert_eq!(updated.token.is_some(), strategy != Strategy::CompareAndSet);
                    attempts += updated.attempts;
                }
                attempts
            })
        })
        .collect();
    let mut attempts = 0;
    for task in tasks {
        attempts += task.await.unwrap();
    }
    let count = reader.get("count").await.unwrap().unwrap();
    assert_eq!((number(Some(&count)), count.revision.0), (200, 200), "after {attempts} attempts");
    let history = reader.history("count", None, 1000).await.unwrap();
    let numbers: Vec<u64> = history.iter().rev().map(|past| past.content.as_ref().unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, (1..=200).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_agents_counting_under_a_lease_lose_nothing() {
    count_together(&[under_a_lease(); 8]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_agents_counting_by_compare_and_set_lose_nothing() {
    count_together(&[Strategy::CompareAndSet; 8]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_and_compare_and_set_on_one_document_lose_nothing_between_them() {
    let (lease, set) = (under_a_lease(), Strategy::CompareAndSet);
    count_together(&[lease, set, lease, set, lease, set, lease, set]).await;
}

#[tokio::test]
async fn reading_and_writing_back_without_protection_loses_an_update() {
    let store = Store::new();
    let (one, other) = (store.agent("one").await, store.agent("other").await);
    // Both read, both think, both write: the control, without which the tests above would prove nothing.
    let (first, second) = (one.get("count").await.unwrap(), other.get("count").await.unwrap());
    one.put("count", increment(first).await.unwrap(), Precondition::Any).await.unwrap();
    let revision = other.put("count", increment(second).await.unwrap(), Precondition::Any).await.unwrap();
    let count = one.get("count").await.unwrap();
    assert_eq!(number(count.as_ref()), 1, "two were acknowledged, one is there");
    assert_eq!(revision.0, 1, "what was there already has made no revision");
}

#[tokio::test]
async fn an_update_is_made_again_on_the_newest_content() {
    let store = Store::new();
    let (one, other) = (store.agent("one").await, store.agent("other").await);
    for (strategy, name) in [(Strategy::CompareAndSet, "set"), (under_a_lease(), "lease")] {
        one.put(name, "a", Precondition::Absent).await.unwrap();
        let seen = Mutex::new(Vec::new());
        let updated = one
            .update_with(name, &options(strategy), async |document: Option<Document>| {
                let text = document.unwrap().content.as_str().to_owned();
                seen.lock().unwrap().push(text.clone());
                let round = seen.lock().unwrap().len();
                if round <= 2 {
                    // Somebody is faster, twice, and past the lock.
                    other.put(name, format!("{text}{round}"), Precondition::Any).await?;
                }
                Ok::<_, Error>(format!("{text}!").into())
            })
            .await
            .unwrap();
        assert_eq!(*seen.lock().unwrap(), ["a", "a1", "a12"], "{name}");
        assert_eq!((updated.attempts, updated.base, updated.revision), (3, Some(Revision(3)), Revision(4)));
        assert_eq!(one.get(name).await.unwrap().unwrap().content.as_str(), "a12!");
    }
}

#[tokio::test]
async fn an_update_whose_lease_is_revoked_half_way_takes_another_and_loses_nothing() {
    let store = Store::new();
    let (one, other) = (store.agent("one").await, store.agent("other").await);
    let mut rounds = 0;
    let updated = one
        .update_with("count", &options(under_a_lease()), |document| {
            rounds += 1;
            let (first, other) = (rounds == 1, other.clone());
            async move {
                if first {
                    let lease = other.locks().await?.holdings[0].lease;
                    other.revoke(lease, "too slow").await?;
                    // The next holder has been here, and has gone again.
                    let guard = other.lock("count").await?;
                    guard.get("count").await?;
                    guard.put("count", Content::json(&10)?).await?;
                    guard.release().await?;
                }
                increment(document).await
            }
        })
        .await
        .unwrap();
    assert_eq!((updated.attempts, updated.revision), (2, Revision(2)));
    assert_eq!(number(one.get("count").await.unwrap().as_ref()), 11);
}

// --- Bounds ----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn an_update_that_always_meets_a_conflict_gives_up_at_its_deadline_and_says_what_it_met() {
    let store = Store::new();
    let (one, other) = (store.agent("one").await, store.agent("other").await);
    for strategy in [Strategy::CompareAndSet, under_a_lease()] {
        let patience = Duration::from_millis(300);
        let start = Instant::now();
        let error = one
            .update_with("plan", &UpdateOptions { patience, ..options(strategy) }, async |_| {
                let now = format!("faster at {:?}", start.elapsed());
                other.put("plan", now, Precondition::Any).await?;
                Ok::<_, Error>("slower".into())
            })
            .await
            .unwrap_err();
        let took = start.elapsed();
        let Error::RetriesExhausted { attempts, last, limit, .. } = error else { panic!("{error}") };
        assert!(matches!(*last, Error::Conflict(_)), "{last}");
        assert!(attempts > 1 && limit == patience, "{attempts} attempts");
        assert!(took >= patience && took < Duration::from_secs(5), "{took:?}");
        assert!(other.get("plan").await.unwrap().unwrap().content.as_str().starts_with("faster"));
        assert_free(&other, "plan", "given up").await;
    }
}

#[tokio::test]
async fn an_update_that_does_not_get_its_lock_times_out_and_names_the_holder() {
    let store = Store::new();
    let (holder, one) = (store.agent("holder").await, store.agent("one").await);
    let guard = holder.lock("plan").await.unwrap();
    let short = Strategy::Lease { ttl: Ttl::DEFAULT, wait: wait(Duration::from_millis(50)) };
    for (strategy, patience) in [(short, PATIENT), (under_a_lease(), Duration::from_millis(50))] {
        let start = Instant::now();
        let options = UpdateOptions { strategy, patience, message: None };
        let error = one.update_with("plan", &options, increment).await.unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }) && error.to_string().contains("holder holds plan"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
    assert!(one.get("plan").await.unwrap().is_none());
    drop(guard);
}

/// The embedded store, and the deadlines that it was given for commits.
#[derive(Debug)]
struct Watched {
    store: Arc<mutext_embedded::EmbeddedStore>,
    deadlines: Mutex<Vec<Deadline>>,
}

#[async_trait]
impl EpochSource for Watched {
    async fn mint_epoch(&self, context: &ContextName, above: u64, deadline: Deadline) -> Result<u64, EngineError> {
        self.store.mint_epoch(context, above, deadline).await
    }
}

#[async_trait]
impl DocumentStore for Watched {
    fn capabilities(&self) -> StoreCapabilities {
        self.store.capabilities()
    }

    async fn read(
        &self,
        context: &ContextName,
        path: &DocumentPath,
        deadline: Deadline,
    ) -> Result<Option<Document>, EngineError> {
        self.deadlines.lock().unwrap().push(deadline);
        self.store.read(context, path, deadline).await
    }

    async fn read_fenced(
        &self,
        context: &ContextName,
        path: &DocumentPath,
        fence: &Fence,
        deadline: Deadline,
    ) -> Result<FencedRead, EngineError> {
        self.deadlines.lock().unwrap().push(deadline);
        self.store.read_fenced(context, path, fence, deadline).await
    }

    async fn list(
        &self,
        context: &ContextName,
        prefix: &PathPrefix,
        after: Option<&DocumentPath>,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Listing, EngineError> {
        self.store.list(context, prefix, after, limit, deadline).await
    }

    async fn commit(&self, context: &ContextName, commit: &Commit, deadline: Deadline) -> Result<Outcome, EngineError> {
        self.deadlines.lock().unwrap().push(deadline);
        self.store.commit(context, commit, deadline).await
    }

    async fn history(
        &self,
        context: &ContextName,
        path: &DocumentPath,
        before: Option<Revision>,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Vec<PastRevision>, EngineError> {
        self.store.history(context, path, before, limit, deadline).await
    }

    async fn changes(
        &self,
        context: &ContextName,
        after: Cursor,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Feed, EngineError> {
        self.store.changes(context, after, limit, deadline).await
    }

    async fn head(&self, context: &ContextName, deadline: Deadline) -> Result<Cursor, EngineError> {
        self.store.head(context, deadline).await
    }

    async fn documents_at(
        &self,
        context: &ContextName,
        at: Cursor,
        prefix: &PathPrefix,
        after: Option<&DocumentPath>,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Snapshot, EngineError> {
        self.store.documents_at(context, at, prefix, after, limit, deadline).await
    }

    async fn search(
        &self,
        context: &ContextName,
        query: &Query,
        prefix: &PathPrefix,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Vec<Hit>, EngineError> {
        self.store.search(context, query, prefix, limit, deadline).await
    }

    async fn tend(
        &self,
        context: &ContextName,
        retention: &Retention,
        deadline: Deadline,
    ) -> Result<Tended, EngineError> {
        self.store.tend(context, retention, deadline).await
    }

    async fn purge(
        &self,
        context: &ContextName,
        path: &DocumentPath,
        author: &AgentName,
        reason: &str,
        deadline: Deadline,
    ) -> Result<Option<Revision>, EngineError> {
        self.store.purge(context, path, author, reason, deadline).await
    }

    async fn archive(
        &self,
        context: &ContextName,
        after: Cursor,
        until: Cursor,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Vec<ArchivedCommit>, EngineError> {
        self.store.archive(context, after, until, limit, deadline).await
    }

    async fn restore(
        &self,
        context: &ContextName,
        commits: &[ArchivedCommit],
        deadline: Deadline,
    ) -> Result<Option<Cursor>, EngineError> {
        self.store.restore(context, commits, deadline).await
    }

    async fn revoke(
        &self,
        context: &ContextName,
        revocation: &Revocation,
        deadline: Deadline,
    ) -> Result<(), EngineError> {
        self.store.revoke(context, revocation, deadline).await
    }

    async fn revocations(
        &self,
        context: &ContextName,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Vec<RevocationRecord>, EngineError> {
        self.store.revocations(context, limit, deadline).await
    }

    async fn examine(&self, deadline: Deadline) -> Result<Vec<Finding>, EngineError> {
        self.store.examine(deadline).await
    }
}

#[tokio::test]
async fn every_step_of_an_update_has_the_updates_own_deadline() {
    let store = Store::new();
    let opened = mutext_embedded::EmbeddedOptions::new(store.path()).synced(false);
    let opened = opened.open(Deadline::after(PATIENT)).await.unwrap();
    let watched = Arc::new(Watched { store: opened.store, deadlines: Mutex::default() });
    let agent = agent_of(&Mutext::with_engines(watched.clone(), opened.locks).unwrap(), "one");
    for strategy in [Strategy::CompareAndSet, under_a_lease()] {
        let patience = Duration::from_secs(3);
        agent.update_with("count", &UpdateOptions { patience, ..options(strategy) }, increment).await.unwrap();
        let latest = Deadline::after(patience);
        let deadlines = std::mem::take(&mut *watched.deadlines.lock().unwrap());
        assert!(deadlines.len() >= 2);
        // Counted from the call, whatever the context's own patience is: no layer restarts it.
        let late: Vec<Duration> = deadlines.iter().filter(|one| **one > latest).map(|one| one.remaining()).collect();
        assert!(late.is_empty(), "{strategy:?}: a step of an update that may take {patience:?} may take {late:?}");
    }
}

// --- What is refused ---------------------------------------------------------------------------------------------------

#[tokio::test]
async fn an_error_of_the_callers_own_passes_through_and_frees_the_lock() {
    let store = Store::new();
    let (one, other) = (store.agent("one").await, store.agent("other").await);
    for strategy in [under_a_lease(), Strategy::CompareAndSet] {
        let error = one.update_with("plan", &options(strategy), async |_| Err("the model refused")).await.unwrap_err();
        let Error::Edit(cause) = &error else { panic!("{error}") };
        assert_eq!(cause.to_string(), "the model refused");
        assert!(error.to_string().contains("the model refused"));
        assert_free(&other, "plan", "after an error of the caller's").await;
        assert!(other.get("plan").await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_document_over_the_limit_is_refused_with_its_size_and_leaves_what_is_there() {
    let store = Store::new();
    let mutext = store.open().await;
    let small = mutext.context("shared", Settings { document_bytes_max: 100, ..settings("small") }).unwrap();
    small.put("plan", "x".repeat(100), Precondition::Absent).await.unwrap();
    let error = small.put("plan", "x".repeat(101), Precondition::Any).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { size: 101, limit: 100, .. }), "{error}");
    let update = small.update("plan", async |_| Ok::<_, Error>("é".repeat(51).into())).await;
    assert!(matches!(update, Err(Error::TooLarge { size: 102, .. })), "{update:?}");
    assert_eq!(small.get("plan").await.unwrap().unwrap().revision.0, 1);

    let usual = agent_of(&mutext, "usual");
    let most = usual.settings().document_bytes_max;
    assert_eq!(most, 1024 * 1024);
    usual.put("large", "x".repeat(most), Precondition::Absent).await.unwrap();
    assert!(usual.put("larger", "x".repeat(most + 1), Precondition::Absent).await.is_err());
    assert_eq!(usual.get("large").await.unwrap().unwrap().content.size(), most);
}

#[tokio::test]
async fn a_commit_changes_every_document_or_none() {
    let store = Store::new();
    let one = store.agent("one").await;
    let commit = |third| {
        Commit::new(one.agent().clone())
            .put(path("a"), "a".into(), Precondition::Absent)
            .put(path("b"), "b".into(), Precondition::Absent)
            .delete(path("c"), third)
            .message("moved house")
    };
    let Err(Error::Conflict(conflict)) = one.commit(commit(Precondition::Exact(Revision(7)))).await else { panic!() };
    assert_eq!((conflict.path.as_str(), conflict.current), ("c", None));
    assert!(one.list("").await.unwrap().is_empty());
    let first = one.put("c", "c", Precondition::Absent).await.unwrap();
    let committed = one.commit(commit(Precondition::Exact(first))).await.unwrap();
    assert_eq!(committed.revisions, [(path("a"), Revision(1)), (path("b"), Revision(1)), (path("c"), Revision(2))]);
    let paths: Vec<String> = one.list("").await.unwrap().into_iter().map(|entry| entry.path.into()).collect();
    assert_eq!(paths, ["a", "b"]);
    let past = one.history("c", None, 10).await.unwrap();
    assert_eq!(past[0].message.as_deref(), Some("moved house"));
    assert!(past[0].content.is_none() && past[1].content.is_some());
}

#[tokio::test]
async fn a_commit_without_changes_or_with_one_document_twice_is_refused() {
    let store = Store::new();
    let one = store.agent("one").await;
    let empty = one.commit(Commit::new(one.agent().clone())).await.unwrap_err();
    assert!(matches!(&empty, Error::InvalidCommit(rule) if rule.contains("0 documents")), "{empty}");
    let twice = Commit::new(one.agent().clone())
        .put(path("plan"), "1".into(), Precondition::Any)
        .put(path("notes"), "1".into(), Precondition::Any)
        .delete(path("plan"), Precondition::Any);
    let twice = one.commit(twice).await.unwrap_err();
    assert!(matches!(&twice, Error::InvalidCommit(rule) if rule.contains("plan twice")), "{twice}");
    let mut many = Commit::new(one.agent().clone());
    for index in 0..=Commit::CHANGES_MAX {
        many = many.put(path(&format!("many/{index}")), "x".into(), Precondition::Any);
    }
    assert!(matches!(one.commit(many.clone()).await, Err(Error::InvalidCommit(_))));
    assert!(one.list("").await.unwrap().is_empty());
    many.changes.pop();
    assert_eq!(one.commit(many).await.unwrap().revisions.len(), Commit::CHANGES_MAX);
    one.put("many-more", "x", Precondition::Absent).await.unwrap();
    assert_eq!(one.list("many/").await.unwrap().len(), Commit::CHANGES_MAX);
    assert_eq!(one.list("").await.unwrap().len(), Commit::CHANGES_MAX + 1, "the last page of a listing is missing");
}

#[tokio::test]
async fn an_idempotency_key_names_one_intention_for_ever() {
    let store = Store::new();
    let one = store.agent("one").await;
    let key: IdempotencyKey = "order-17".try_into().unwrap();
    let commit = |text: &str| {
        Commit::new(one.agent().clone()).put(path("plan"), text.into(), Precondition::Any).key(key.clone())
    };
    let first = one.commit(commit("once")).await.unwrap();
    one.put("plan", "since then", Precondition::Any).await.unwrap();
    // Also from another opening, as after a restart.
    let again = store.agent("one").await.commit(commit("once")).await.unwrap();
    assert!(again.replayed && !first.replayed);
    assert_eq!((again.cursor, &again.revisions), (first.cursor, &first.revisions));
    let Err(Error::KeyReused { key: reused }) = one.commit(commit("something else")).await else { panic!() };
    assert_eq!(reused, key);
    let plan = one.get("plan").await.unwrap().unwrap();
    assert_eq!((plan.content.as_str(), plan.revision.0), ("since then", 2));
    // Another context has keys of its own.
    let elsewhere = store.open().await.context("elsewhere", settings("one")).unwrap();
    assert!(!elsewhere.commit(commit("something else")).await.unwrap().replayed);
}

#[tokio::test]
async fn content_keeps_its_kind_and_every_byte() {
    let store = Store::new();
    let one = store.agent("one").await;
    let json = Content::parse_json("{ \"b\": 1.10,\n \"a\": [] }").unwrap();
    let text = Content::text("{\"a\": 1}\u{0}\n€");
    for (name, content) in [("json", json.clone()), ("text", text.clone()), ("empty", "".into())] {
        one.put(name, content.clone(), Precondition::Absent).await.unwrap();
        assert_eq!(one.get(name).await.unwrap().unwrap().content, content);
    }
    let listed = one.list("").await.unwrap();
    assert_eq!(listed.iter().map(|entry| entry.size).collect::<Vec<_>>(), [0, json.size(), text.size()]);
    let kinds: Vec<Kind> = listed.into_iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [Kind::Text, Kind::Json, Kind::Text]);
    assert!(matches!(one.put("a//b", "x", Precondition::Any).await, Err(Error::InvalidName(_))));
}

// --- The feed ------------------------------------------------------------------------------------------------------------

async fn follow(context: &Context, until: u64) -> Vec<CommitRecord> {
    let mut seen: Vec<CommitRecord> = Vec::new();
    let mut after = Cursor::START;
    while seen.iter().map(|record| record.changes.len() as u64).sum::<u64>() < until {
        let page = context.changes(after, 7, Duration::from_secs(10)).await.unwrap();
        assert!(!page.is_empty(), "the feed stands still after {} commits", seen.len());
        after = page.last().unwrap().cursor;
        seen.extend(page);
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_the_feed_meanwhile_sees_every_commit_once_and_in_order() {
    let store = Store::new();
    let watcher = store.agent("watcher").await;
    let followed = tokio::spawn(async move { follow(&watcher, 4 * 40 * 2).await });
    let mut writers = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let agent = store.agent(name).await;
        writers.push(tokio::spawn(async move {
            for round in 0..40 {
                let text = format!("{} {round}", agent.agent());
                let commit = Commit::new(agent.agent().clone())
                    .put(path("everyones"), text.clone().into(), Precondition::Any)
                    .put(path(agent.agent().as_str()), text.into(), Precondition::Any);
                agent.commit(commit).await.unwrap();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let records = followed.await.unwrap();
    assert_eq!(records.len(), 160);
    assert!(records.windows(2).all(|pair| pair[0].cursor < pair[1].cursor));
    for name in ["everyones", "a", "b", "c", "d"] {
        let changes = records.iter().flat_map(|record| &record.changes);
        let revisions: Vec<u64> = changes.filter(|change| change.0.as_str() == name).map(|change| change.1.0).collect();
        assert_eq!(revisions, (1..=revisions.len() as u64).collect::<Vec<_>>(), "{name}");
    }
    let reader = store.agent("reader").await;
    let history = reader.history("everyones", None, 1000).await.unwrap();
    for (past, record) in history.iter().rev().zip(&records) {
        assert_eq!(past.author, record.author);
    }
}

#[tokio::test]
async fn the_feed_answers_at_its_deadline_where_nothing_happens() {
    let store = Store::new();
    let one = store.agent("one").await;
    one.put("plan", "1", Precondition::Any).await.unwrap();
    let first = one.changes(Cursor::START, 10, Duration::ZERO).await.unwrap();
    let start = Instant::now();
    assert!(one.changes(first[0].cursor, 10, Duration::from_millis(60)).await.unwrap().is_empty());
    assert!(start.elapsed() >= Duration::from_millis(60) && start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_place_or_revision_beyond_the_last_is_beyond_the_last() {
    let store = Store::new();
    let one = store.agent("one").await;
    one.put("plan", "1", Precondition::Any).await.unwrap();
    for far in [2, i64::MAX as u64, u64::MAX] {
        let feed = one.changes(Cursor(far), 10, Duration::ZERO).await.unwrap();
        assert!(feed.is_empty(), "after {far} came {feed:?}");
        let history = one.history("plan", Some(Revision(far)), 10).await.unwrap();
        assert_eq!(history.len(), 1, "before revision {far}");
        let put = one.put("plan", "2", Precondition::Exact(Revision(far))).await;
        assert!(matches!(put, Err(Error::Conflict(_))), "{put:?}");
    }
}
