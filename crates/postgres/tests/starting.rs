//! What begins with an empty database: many processes that start at once, and plans that are made then.

mod support;

use std::collections::BTreeSet;

use mutext_contract::{
    Cursor, Deadline, DocumentStore, EpochSource, Fence, FencingToken, LeaseId, Outcome, PathPrefix, Precondition,
};

use crate::support::{
    address, committed, context, fresh_schema, key, opened, options, path, put, shared, soon, started,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_that_open_a_fresh_schema_at_once_share_it() {
    let (server, schema) = (shared(), fresh_schema());
    let url = address(server, &format!("schema={schema}&pool=1"));
    let tasks: Vec<_> = (0..16)
        .map(|number| {
            let options = options(&url);
            tokio::spawn(async move {
                let store = options.open(soon()).await.unwrap();
                let commit = put(&format!("from/{number}"), "x", Precondition::Absent);
                (committed(&*store, &context("board"), &commit).await.cursor, store)
            })
        })
        .collect();
    let (mut cursors, mut stores) = (BTreeSet::new(), Vec::new());
    for task in tasks {
        let (cursor, store) = task.await.unwrap();
        cursors.insert(cursor);
        stores.push(store);
    }
    for store in stores {
        let feed = store.changes(&context("board"), Cursor::START, 100, Deadline::now()).await.unwrap().page().unwrap();
        assert_eq!(feed.iter().map(|record| record.cursor).collect::<BTreeSet<_>>(), cursors);
        assert_eq!(feed.len(), 16);
    }
    let versions = server.sql(&format!("SELECT array_agg(version) FROM {schema}.mutext_schema")).unwrap();
    assert_eq!(versions.trim(), "{6}");
}

/// The schema as earlier versions of this program made it: none of these scripts is ever changed.
const EARLIER: [&str; 5] = [
    include_str!("../src/schema.sql"),
    include_str!("../src/schema_2.sql"),
    include_str!("../src/schema_3.sql"),
    concat!(include_str!("../src/schema_4.sql"), include_str!("../src/schema_4_steps.sql")),
    include_str!("../src/schema_5.sql"),
];

#[tokio::test]
async fn a_schema_of_an_earlier_version_is_raised_and_its_documents_stay() {
    let server = shared();
    let board = context("board");
    let keyed = || put("plan.md", "kept", Precondition::Absent).key(key("once"));
    for version in 1..=EARLIER.len() {
        let (old, kept) = (fresh_schema(), fresh_schema());
        let store = opened(server, &old).await;
        let made = committed(&*store, &board, &keyed()).await;
        drop(store);
        let scripts = EARLIER[..version].join("\n").replace("{schema}", &old);
        let columns =
            "context, path, revision, place, ordinal, lane, written_at, author, kind, key, fingerprint, content";
        server
            .sql(&format!(
                "CREATE SCHEMA {kept};
                 CREATE TABLE {kept}.documents AS SELECT context, path, revision, live FROM {old}.documents;
                 CREATE TABLE {kept}.revisions AS SELECT {columns} FROM {old}.revisions;
                 DROP SCHEMA {old} CASCADE; CREATE SCHEMA {old};
                 CREATE TABLE {old}.mutext_schema AS SELECT {version} AS version; {scripts}
                 INSERT INTO {old}.documents (context, path, revision, live) SELECT * FROM {kept}.documents;
                 INSERT INTO {old}.revisions ({columns}) SELECT * FROM {kept}.revisions;
                 SELECT setval('{old}.places', (SELECT max(place) FROM {kept}.revisions))"
            ))
            .unwrap();
        let store = opened(server, &old).await;
        let document = store.read(&board, &path("plan.md"), soon()).await.unwrap().unwrap();
        assert_eq!((document.content.as_str(), document.revision), ("kept", made.revisions[0].1));
        let again = committed(&*store, &board, &keyed()).await;
        assert_eq!((again.cursor, again.replayed), (made.cursor, true));
        let next = put("plan.md", "changed", Precondition::Exact(document.revision));
        assert_eq!(committed(&*store, &board, &next).await.revisions[0].1.0, 2);
        let feed = store.changes(&board, Cursor::START, 9, Deadline::now()).await.unwrap().page().unwrap();
        assert_eq!(feed.len(), 2);
        assert_eq!(store.revocations(&board, 9, soon()).await.unwrap(), []);
    }
}

/// A process that had the schema open while a newer one raised it goes on in its sessions, which keep plans of before.
#[tokio::test]
async fn a_session_that_is_open_while_the_schema_is_raised_goes_on_with_its_locks() {
    let (server, schema) = (shared(), fresh_schema());
    let scripts = EARLIER.join("\n").replace("{schema}", &schema);
    let version = EARLIER.len();
    server
        .sql(&format!(
            "CREATE SCHEMA {schema}; CREATE TABLE {schema}.mutext_schema AS SELECT {version} AS version; {scripts}"
        ))
        .unwrap();
    let (client, connection) = tokio_postgres::connect(&server.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let acquire = |lease: u8, paths: &str, wait: u32, home: &str, keeps: &str| {
        format!(
            "lock_acquire(1, 'board', '\\x0{lease}', null, '{{{paths}}}', array_fill(true, array[cardinality('{{{paths}}}'::text[])]),
                 60000000, {wait}, '{home}', 'anna', '\\x01', null, '{keeps}', null)"
        )
    };
    let release =
        |lease: u8, by: &str| format!("lock_release(1, 'board', '\\x0{lease}', null, 'h1', {by}, null, false)");
    // What each step meets, and how it ends.
    let steps = [
        (acquire(1, "a", 0, "h1", "{}"), 1),
        (acquire(2, "a/b", 0, "h2", "{}"), 3),
        (acquire(3, "c,d", 0, "h2", "{}"), 1),
        (acquire(4, "a,c", 60_000_000, "h2", "{\\\\x03}"), 6),
        (acquire(5, "c,d", 60_000_000, "h1", "{\\\\x01}"), 2),
        ("lock_tend(1, 'board', '{\\\\x05}', '{c}', 'h1')".to_owned(), 1),
        ("lock_leave(1, 'board', '\\x05', 'c', 'h1')".to_owned(), 3),
        ("lock_renew(1, 'board', '\\x01', '{a}', 60000000)".to_owned(), 1),
        (acquire(6, "c", 60_000_000, "h1", "{}"), 2),
        (release(3, "'bert'"), 1),
        (release(1, "null"), 1),
        (release(6, "null"), 1),
    ];
    server.sql(&format!("SELECT {schema}.lock_begin(1, 'board', 7, 'h1')")).unwrap();
    // A plan is kept from its sixth use on.
    for round in 0..9 {
        if round == 7 {
            opened(server, &schema).await;
        }
        for (step, expected) in &steps {
            let rows = client.query_typed(&format!("SELECT outcome FROM {schema}.{step}"), &[]).await;
            let rows = rows.unwrap_or_else(|error| panic!("{step} in round {round}: {error:?}"));
            assert_eq!(rows[0].get::<_, i16>(0), *expected, "{step} in round {round}");
        }
    }
}

#[tokio::test]
async fn schemas_on_one_server_do_not_meet() {
    let server = shared();
    let (one, other) = (fresh_schema(), format!("{}-b", fresh_schema()));
    let one = options(&address(server, &format!("schema={one}"))).open(soon()).await.unwrap();
    let other = options(&address(server, &format!("schema={other}"))).open(soon()).await.unwrap();
    let board = context("board");
    committed(&*one, &board, &put("plan.md", "here", Precondition::Absent)).await;
    assert_eq!(other.read(&board, &path("plan.md"), soon()).await.unwrap(), None);
    committed(&*other, &board, &put("plan.md", "there", Precondition::Absent)).await;
    let feed = one.changes(&board, Cursor::START, 9, Deadline::now()).await.unwrap().page().unwrap();
    assert_eq!(feed.len(), 1);
}

#[tokio::test]
async fn a_unix_socket_is_as_good() {
    let (server, schema) = (shared(), fresh_schema());
    let socket = server.socket_dir().display();
    let url = format!("postgres://postgres@/postgres?host={socket}&schema={schema}");
    // The socket's file has the port in its name.
    let url = url.replace("@/", &format!("@:{}/", server.port()));
    let store = options(&url).open(soon()).await.unwrap();
    committed(&*store, &context("board"), &put("plan.md", "x", Precondition::Absent)).await;
    let findings = store.examine(soon()).await.unwrap();
    let encryption = findings.iter().find(|finding| finding.subject == "encryption").unwrap();
    assert!(encryption.found.contains("Unix socket"), "{encryption:?}");
}

/// Plans are made while the tables are empty, and are kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_does_not_grow_with_the_history() {
    const ROUNDS: u64 = 400;
    let (server, schema) = (started(), fresh_schema());
    let store = opened(&server, &schema).await;
    let (board, plan) = (context("board"), path("plan.md"));
    for round in 1..=ROUNDS {
        let fence = Fence::new(FencingToken::new(1, round, LeaseId::random()), "plan.md").unwrap();
        let keyed = put("plan.md", &format!("{round}"), Precondition::Any).key(key(format!("{round}")));
        let cursor = committed(&*store, &board, &keyed.clone().fenced_by(fence.clone())).await.cursor;
        assert_eq!(store.read(&board, &plan, soon()).await.unwrap().unwrap().revision.0, round);
        assert!(committed(&*store, &board, &keyed).await.replayed);
        store.read_fenced(&board, &plan, &fence, soon()).await.unwrap();
        assert_eq!(store.history(&board, &plan, None, 1, soon()).await.unwrap().len(), 1);
        assert_eq!(store.list(&board, &PathPrefix::all(), None, 9, soon()).await.unwrap().entries.len(), 1);
        assert_eq!(store.changes(&board, cursor, 9, Deadline::now()).await.unwrap().page().unwrap(), []);
        let stale = put("plan.md", "y", Precondition::Absent);
        assert!(matches!(store.commit(&board, &stale, soon()).await.unwrap(), Outcome::Refused(_)));
    }
    // A session counts what it has read when it ends, if not before.
    drop(store);
    let looked = format!(
        "SELECT coalesce(sum(idx_tup_read), 0)::bigint, coalesce(sum(idx_scan), 0)::bigint
         FROM pg_stat_user_indexes WHERE schemaname = '{schema}'"
    );
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let counts = server.sql(&looked).unwrap();
        let counts: Vec<u64> = counts.trim().split('|').map(|count| count.parse().unwrap()).collect();
        assert!(counts[0] < 60 * ROUNDS, "{} entries of indexes were read in {ROUNDS} rounds", counts[0]);
        if counts[1] >= 8 * ROUNDS {
            return;
        }
        assert!(tokio::time::Instant::now() < until, "only {} looks at indexes were counted", counts[1]);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

/// An epoch is above all that documents have seen, and the highest of them is found without a look at each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_epoch_costs_does_not_grow_with_the_documents() {
    const DOCUMENTS: u64 = 20_000;
    const MINTED: u64 = 20;
    // Above the seconds of the clock.
    const SEEN: u64 = 1 << 40;
    let (server, schema) = (started(), fresh_schema());
    let store = opened(&server, &schema).await;
    let board = context("board");
    // The plan is made while there is no document.
    store.mint_epoch(&board, 0, soon()).await.unwrap();
    server
        .sql(&format!(
            "INSERT INTO {schema}.documents (context, path, revision, live, fence_epoch, fence_counter, fence_owner)
             SELECT 'board', n::text, 1, true, {SEEN} - n, 1, '' FROM generate_series(0, {DOCUMENTS} - 1) AS n"
        ))
        .unwrap();
    for number in 1..=MINTED {
        assert_eq!(store.mint_epoch(&board, 0, soon()).await.unwrap(), SEEN + number);
    }
    drop(store);
    let looked = format!(
        "SELECT sum(idx_scan)::bigint, sum(idx_tup_read)::bigint FROM pg_stat_user_indexes
         WHERE schemaname = '{schema}' AND indexrelname = 'documents_by_epoch'
         UNION ALL SELECT coalesce(sum(i.idx_tup_read), 0)::bigint, (SELECT sum(t.seq_tup_read)::bigint
             FROM pg_stat_user_tables t WHERE t.schemaname = '{schema}' AND t.relname = 'documents')
         FROM pg_stat_user_indexes i
         WHERE i.schemaname = '{schema}' AND i.relname = 'documents' AND i.indexrelname <> 'documents_by_epoch'"
    );
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let counts = server.sql(&looked).unwrap();
        let counts: Vec<u64> = counts.trim().split(['|', '\n']).map(|count| count.parse().unwrap()).collect();
        let read = counts[1] + counts[2] + counts[3];
        assert!(read < DOCUMENTS, "{read} rows were read for {MINTED} epochs of {DOCUMENTS} documents");
        if counts[0] >= MINTED {
            return;
        }
        assert!(tokio::time::Instant::now() < until, "only {} looks at the index were counted", counts[0]);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}
