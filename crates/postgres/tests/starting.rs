//! Many processes that start at once on an empty database.

#![expect(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]

mod support;

use std::collections::BTreeSet;

use mutext_contract::{Cursor, Deadline, DocumentStore, Precondition};

use crate::support::{address, committed, context, fresh_schema, options, put, shared, soon};

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
        let feed = store.changes(&context("board"), Cursor::START, 100, Deadline::now()).await.unwrap();
        assert_eq!(feed.iter().map(|record| record.cursor).collect::<BTreeSet<_>>(), cursors);
        assert_eq!(feed.len(), 16);
    }
    let versions = server.sql(&format!("SELECT array_agg(version) FROM {schema}.mutext_schema")).unwrap();
    assert_eq!(versions.trim(), "{1}");
}

#[tokio::test]
async fn schemas_on_one_server_do_not_meet() {
    let server = shared();
    let (one, other) = (fresh_schema(), format!("{}-b", fresh_schema()));
    let one = options(&address(server, &format!("schema={one}"))).open(soon()).await.unwrap();
    let other = options(&address(server, &format!("schema={other}"))).open(soon()).await.unwrap();
    let board = context("board");
    committed(&*one, &board, &put("plan.md", "here", Precondition::Absent)).await;
    assert_eq!(other.read(&board, &support::path("plan.md"), soon()).await.unwrap(), None);
    committed(&*other, &board, &put("plan.md", "there", Precondition::Absent)).await;
    let feed = one.changes(&board, Cursor::START, 9, Deadline::now()).await.unwrap();
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
