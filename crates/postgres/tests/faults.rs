//! What happens when the server dies, hangs, refuses or is full: nothing that was acknowledged is lost, nothing happens
//! twice, and every error says what to do.

#![expect(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mutext_contract::{
    ContextName, Deadline, DocumentStore, Effect, EngineError, Fence, FencedRead, FencingToken, LeaseId, Outcome,
    Precondition, TroubleKind,
};
use mutext_postgres::PostgresStore;
use mutext_testbed::PostgresServer;
use tokio::time::{Instant, sleep};

use crate::support::{
    address, committed, context, fresh_schema, key, opened, options, path, put, shared, soon, started,
};

async fn refusal_to_open(url: &str) -> EngineError {
    let begun = Instant::now();
    let error = options(url).open(soon()).await.expect_err("the store to be refused");
    assert!(begun.elapsed() < Duration::from_secs(7), "{error} took {:?}", begun.elapsed());
    error
}

fn misconfigured(error: &EngineError, what: &str) {
    let TroubleKind::Misconfigured(found) = &error.kind else { panic!("expected a wrong setting; found {error}") };
    assert!(found.contains(what), "expected {what:?} in {error}");
    assert!(!error.remedy.is_empty(), "{error} says no remedy");
    assert_eq!(error.effect, Effect::None);
}

/// Counts up in a document of its own until `ended`, and then ten times more: after the last restart all goes on. Answers
/// what was acknowledged, and what may have happened.
async fn count(
    store: Arc<PostgresStore>,
    context: ContextName,
    worker: usize,
    keyed: bool,
    ended: Arc<AtomicBool>,
) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut acknowledged, mut unknown) = (BTreeSet::new(), BTreeSet::new());
    let mut enough = None;
    for number in 0.. {
        if enough.is_none() && ended.load(Ordering::SeqCst) {
            enough = Some(acknowledged.len() + 10);
        }
        if enough.is_some_and(|enough| acknowledged.len() >= enough) {
            break;
        }
        assert!(unknown.len() < 1_000, "worker {worker} does not get on: {} commits", acknowledged.len());
        let text = format!("{worker}/{number}");
        let mut commit = put(&format!("own/{worker}"), &text, Precondition::Any);
        if keyed {
            commit = commit.key(key(text.clone()));
        }
        match store.commit(&context, &commit, soon()).await {
            Ok(Outcome::Committed(_)) => assert!(acknowledged.insert(text)),
            Ok(Outcome::Refused(refusal)) => panic!("expected {text} to be committed; found {refusal:?}"),
            Err(error) if !keyed && error.effect == Effect::Unknown => assert!(unknown.insert(text)),
            Err(error) => panic!("expected {text} to be committed in the end; found {error}"),
        }
    }
    (acknowledged, unknown)
}

/// Workers count while the server is killed and started again; what is there afterwards.
async fn killed_while_counting(keyed: bool) {
    const WORKERS: usize = 6;
    let mut server = started();
    let stores = [opened(&server, "counting").await, opened(&server, "counting").await];
    let (context, ended) = (context("counting"), Arc::new(AtomicBool::new(false)));
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let store = Arc::clone(&stores[worker % stores.len()]);
            tokio::spawn(count(store, context.clone(), worker, keyed, Arc::clone(&ended)))
        })
        .collect();
    for pause in [150, 90, 210] {
        sleep(Duration::from_millis(pause)).await;
        server.kill().unwrap();
        server.restart().unwrap();
    }
    ended.store(true, Ordering::SeqCst);
    for (worker, task) in workers.into_iter().enumerate() {
        let (acknowledged, unknown) = task.await.unwrap();
        let own = path(&format!("own/{worker}"));
        let history = stores[0].history(&context, &own, None, 1_000_000, soon()).await.unwrap();
        let texts: Vec<String> =
            history.iter().filter_map(|past| Some(past.content.as_ref()?.as_str().to_owned())).collect();
        let there: BTreeSet<String> = texts.iter().cloned().collect();
        assert_eq!(there.len(), texts.len(), "worker {worker}: something happened twice");
        let lost: Vec<_> = acknowledged.difference(&there).collect();
        assert!(lost.is_empty(), "worker {worker}: acknowledged, and not there: {lost:?}");
        let uninvited: Vec<_> = there.difference(&acknowledged).filter(|text| !unknown.contains(*text)).collect();
        assert!(uninvited.is_empty(), "worker {worker}: there, and neither acknowledged nor unknown: {uninvited:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing_and_a_key_happens_once() {
    killed_while_counting(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_a_lost_answer_is_said_to_be_unknown() {
    killed_while_counting(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_server_holds_nobody_beyond_the_deadline() {
    let server = started();
    let store = opened(&server, "hanging").await;
    let (board, wait) = (context("board"), Duration::from_millis(400));
    committed(&*store, &board, &put("plan.md", "before", Precondition::Any)).await;
    server.pause().unwrap();
    // More than the pool has connections.
    let mut tasks = Vec::new();
    for number in 0..6 {
        let (store, board) = (Arc::clone(&store), board.clone());
        tasks.push(tokio::spawn(async move {
            let begun = Instant::now();
            let commit = put(&format!("late/{number}"), "x", Precondition::Any).key(key(format!("late {number}")));
            let written = store.commit(&board, &commit, Deadline::after(wait)).await;
            let read = store.read(&board, &path("plan.md"), Deadline::after(wait)).await;
            let looked = store.changes(&board, mutext_contract::Cursor(1_000), 1, Deadline::after(wait)).await;
            (written, read, looked, begun.elapsed())
        }));
    }
    for task in tasks {
        let (written, read, looked, took) = task.await.unwrap();
        let error = written.expect_err("no answer to a commit");
        assert!(matches!(error.kind, TroubleKind::Unavailable | TroubleKind::Busy), "{error}");
        let error = read.expect_err("no answer to a read");
        assert!(matches!(error.kind, TroubleKind::Unavailable | TroubleKind::Busy), "{error}");
        assert_eq!(error.effect, Effect::None);
        looked.expect_err("no answer to a look at the feed");
        // A look at the feed may take two seconds more than its deadline.
        assert!(took < 3 * wait + Duration::from_millis(2600), "it took {took:?}");
    }
    server.resume().unwrap();
    // The commits that were on their way happened, or happen now: once.
    for number in 0..6 {
        let commit = put(&format!("late/{number}"), "x", Precondition::Any).key(key(format!("late {number}")));
        committed(&*store, &board, &commit).await;
        let history = store.history(&board, &path(&format!("late/{number}")), None, 9, soon()).await.unwrap();
        assert_eq!(history.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_goes_away_leaves_no_session_in_a_transaction_and_no_statement_behind() {
    const BEFORE_IT_ENDS: Duration = Duration::from_secs(30);
    let (server, schema) = (shared(), fresh_schema());
    let store = opened(server, &schema).await;
    let board = context("board");
    committed(&*store, &board, &put("quick", "x", Precondition::Any)).await;
    let slow = format!(
        "CREATE FUNCTION {schema}.slow() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$;
         CREATE TRIGGER slow BEFORE INSERT ON {schema}.revisions FOR EACH ROW WHEN (NEW.path = 'slow')
             EXECUTE FUNCTION {schema}.slow()"
    );
    server.sql(&slow).unwrap();
    let mut patience = Duration::from_millis(100);
    for way in 0..6 {
        let commit = put("slow", "x", Precondition::Any);
        if way % 2 == 0 {
            loop {
                let error = store.commit(&board, &commit, Deadline::after(patience)).await.unwrap_err();
                if error.effect == Effect::Unknown {
                    break;
                }
                // A machine that is slow has not even asked so soon.
                assert!(error.effect == Effect::None && patience < BEFORE_IT_ENDS, "{error}");
                patience *= 2;
            }
        } else {
            let dropped = store.commit(&board, &commit, Deadline::after(BEFORE_IT_ENDS));
            tokio::time::timeout(patience, dropped).await.unwrap_err();
        }
    }
    // All connections of the pool were left with a statement that sleeps; each is free for use in the end.
    let begun = Instant::now();
    committed(&*store, &board, &put("quick", "y", Precondition::Any)).await;
    assert!(begun.elapsed() < BEFORE_IT_ENDS, "it took {:?}", begun.elapsed());
    let left = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%{schema}%' AND pid <> pg_backend_pid()
         AND state <> 'idle'"
    );
    while server.sql(&left).unwrap().trim() != "0" {
        assert!(begun.elapsed() < BEFORE_IT_ENDS, "a statement is left behind");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_may_take_a_mark_but_never_an_update() {
    let mut server = started();
    let store = opened(&server, "marks").await;
    let board = context("board");
    committed(&*store, &board, &put("plan.md", "one", Precondition::Absent)).await;
    let fence = |counter| Fence::new(FencingToken::new(1, counter, LeaseId::random()), "plan.md").unwrap();
    let (old, new) = (fence(6), fence(7));
    let read = store.read_fenced(&board, &path("plan.md"), &new, soon()).await.unwrap();
    let FencedRead::Read(Some(document)) = read else { panic!("expected to read; found {read:?}") };
    server.kill().unwrap();
    server.restart().unwrap();
    // Whether the mark is there or not: of the two holders at most one changes what the other has read.
    let exact = Precondition::Exact(document.revision);
    let stale = store.commit(&board, &put("plan.md", "stale", exact).fenced_by(old), soon()).await.unwrap();
    let rightful = store.commit(&board, &put("plan.md", "rightful", exact).fenced_by(new), soon()).await.unwrap();
    let happened = |outcome: &Outcome| matches!(outcome, Outcome::Committed(_));
    assert_ne!(happened(&stale), happened(&rightful), "{stale:?}, {rightful:?}");
}

#[tokio::test]
async fn a_server_that_is_down_is_said_to_be() {
    let mut server = started();
    let url = server.url();
    server.kill().unwrap();
    let error = refusal_to_open(&url).await;
    assert_eq!(error.kind, TroubleKind::Unavailable, "{error}");
    assert!(error.to_string().contains("127.0.0.1") && error.to_string().contains("host and port"), "{error}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_after_the_connect_timeout() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let begun = Instant::now();
    let url = format!("postgres://anna:hush@127.0.0.1:{port}/board?connect_timeout=0.5");
    let error = refusal_to_open(&url).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "it took {:?}", begun.elapsed());
    assert_eq!(error.kind, TroubleKind::Unavailable, "{error}");
    assert!(!format!("{error} {error:?}").contains("hush"), "the password is shown: {error:?}");
}

/// Lets `anna` in by password alone.
fn with_password(server: &PostgresServer) {
    let file = server.data().join("pg_hba.conf");
    let rules = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("host all anna 127.0.0.1/32 scram-sha-256\n{rules}")).unwrap();
    server.reload().unwrap();
    server.sql("CREATE USER anna PASSWORD 'hush'").unwrap();
}

#[tokio::test]
async fn a_wrong_password_and_missing_rights_are_said_to_be_so() {
    let server = started();
    with_password(&server);
    let url = |login: &str, rest: &str| format!("postgres://{login}@127.0.0.1:{}/postgres{rest}", server.port());
    misconfigured(&refusal_to_open(&url("anna:wrong", "")).await, "password authentication failed");
    misconfigured(&refusal_to_open(&url("anna", "")).await, "password");
    let error = refusal_to_open(&url("anna:hush", "")).await;
    misconfigured(&error, "permission denied");
    assert!(error.remedy.contains("GRANT CREATE"), "{error}");
    assert!(!format!("{error} {error:?}").contains("hush"), "the password is shown: {error:?}");

    // A schema that another user has made needs no right to make one.
    opened(&server, "theirs").await;
    misconfigured(&refusal_to_open(&url("anna:hush", "?schema=theirs")).await, "theirs");
    server.sql("GRANT USAGE ON SCHEMA theirs TO anna; GRANT SELECT ON ALL TABLES IN SCHEMA theirs TO anna").unwrap();
    misconfigured(&refusal_to_open(&url("anna:hush", "?schema=theirs")).await, "no right to INSERT");
    let rest = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA theirs TO anna;
                GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA theirs TO anna";
    server.sql(rest).unwrap();
    let store = options(&url("anna:hush", "?schema=theirs")).open(soon()).await.unwrap();
    let board = context("board");
    committed(&*store, &board, &put("plan.md", "x", Precondition::Absent)).await;
    assert_eq!(
        store.changes(&board, mutext_contract::Cursor::START, 9, Deadline::now()).await.unwrap().page().unwrap().len(),
        1
    );
    store.mint_epoch(&board, 0, soon()).await.unwrap();
    store.examine(soon()).await.unwrap();
}

use mutext_contract::EpochSource;

#[tokio::test]
async fn a_missing_database_is_said_to_be_missing() {
    let url = format!("postgres://postgres@127.0.0.1:{}/nowhere", shared().port());
    let error = refusal_to_open(&url).await;
    misconfigured(&error, "\"nowhere\" does not exist");
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_as_it_is() {
    let (server, schema) = (shared(), fresh_schema());
    drop(opened(server, &schema).await);
    let version = || server.sql(&format!("SELECT version FROM {schema}.mutext_schema")).unwrap();
    let known = version().trim().parse().unwrap();
    server.sql(&format!("UPDATE {schema}.mutext_schema SET version = 99")).unwrap();
    let error = refusal_to_open(&address(server, &format!("schema={schema}"))).await;
    assert_eq!(error.kind, TroubleKind::TooNew { found: 99, known });
    assert_eq!(version().trim(), "99");
}

#[tokio::test]
async fn another_programs_tables_are_left_alone() {
    let (server, schema) = (shared(), fresh_schema());
    server.sql(&format!("CREATE SCHEMA {schema}; CREATE TABLE {schema}.documents (theirs text)")).unwrap();
    let error = refusal_to_open(&address(server, &format!("schema={schema}"))).await;
    misconfigured(&error, "already exists");
    assert!(error.remedy.contains("?schema="), "{error}");
    let tables = format!("SELECT count(*) FROM pg_tables WHERE schemaname = '{schema}'");
    assert_eq!(server.sql(&tables).unwrap().trim(), "1");
}

#[tokio::test]
async fn a_database_of_another_encoding_is_refused() {
    let server = shared();
    server.sql("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'").unwrap();
    let error = refusal_to_open(&format!("postgres://postgres@127.0.0.1:{}/latin", server.port())).await;
    misconfigured(&error, "LATIN1");
}

#[tokio::test]
async fn what_is_read_only_or_full_says_so() {
    let (server, schema) = (shared(), fresh_schema());
    let store = opened(server, &schema).await;
    let board = context("board");
    committed(&*store, &board, &put("plan.md", "x", Precondition::Any)).await;
    let full = format!(
        "CREATE FUNCTION {schema}.full() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
         CREATE TRIGGER disk BEFORE INSERT ON {schema}.revisions FOR EACH ROW EXECUTE FUNCTION {schema}.full()"
    );
    server.sql(&full).unwrap();
    let error = store.commit(&board, &put("plan.md", "y", Precondition::Any), soon()).await.unwrap_err();
    assert_eq!((&error.kind, error.effect), (&TroubleKind::Full, Effect::None), "{error}");
    assert_eq!(store.read(&board, &path("plan.md"), soon()).await.unwrap().unwrap().content.as_str(), "x");

    server.sql("CREATE DATABASE frozen").unwrap();
    server.sql("ALTER DATABASE frozen SET default_transaction_read_only = on").unwrap();
    let url = format!("postgres://postgres@127.0.0.1:{}/frozen", server.port());
    assert_eq!(refusal_to_open(&url).await.kind, TroubleKind::ReadOnly);
}
