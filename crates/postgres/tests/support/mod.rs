//! What the tests have in common: one server for the tests of a file, and a schema of its own for each.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]
#![allow(dead_code, reason = "each file of tests uses its own part of it")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mutext_contract::{
    AgentName, Commit, Committed, Content, ContextName, Deadline, DocumentPath, DocumentStore, IdempotencyKey, Outcome,
    Precondition,
};
use mutext_postgres::{PostgresOptions, PostgresStore};
use mutext_testbed::PostgresServer;

/// The server that the tests of one file share; it ends with them.
pub(crate) fn shared() -> &'static PostgresServer {
    static SERVER: OnceLock<PostgresServer> = OnceLock::new();
    // Sixteen schedules side by side, each with its clients, and other cases beside them.
    SERVER.get_or_init(|| started_with(&[("fsync", "off"), ("max_connections", "500")]))
}

/// A server of its own, for a test that ends it.
pub(crate) fn started() -> PostgresServer {
    PostgresServer::start().unwrap_or_else(|error| panic!("this test needs a PostgreSQL server: {error}"))
}

/// The same with settings of its own.
pub(crate) fn started_with(settings: &[(&str, &str)]) -> PostgresServer {
    PostgresServer::start_with(settings).unwrap_or_else(|error| panic!("this test needs a PostgreSQL server: {error}"))
}

/// A schema's name that no other test uses.
pub(crate) fn fresh_schema() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

/// A server's address with options added.
pub(crate) fn address(server: &PostgresServer, options: &str) -> String {
    format!("{}?{options}", server.url())
}

pub(crate) fn options(url: &str) -> PostgresOptions {
    PostgresOptions::parse(url).unwrap_or_else(|rule| panic!("{url}: {rule}"))
}

pub(crate) async fn opened(server: &PostgresServer, schema: &str) -> Arc<PostgresStore> {
    options(&address(server, &format!("schema={schema}"))).open(soon()).await.unwrap()
}

pub(crate) fn context(name: &str) -> ContextName {
    ContextName::new(name).unwrap()
}

pub(crate) fn path(name: &str) -> DocumentPath {
    DocumentPath::new(name).unwrap()
}

pub(crate) fn put(at: &str, text: &str, precondition: Precondition) -> Commit {
    Commit::new(AgentName::new("anna").unwrap()).put(path(at), Content::text(text), precondition)
}

pub(crate) fn key(name: impl Into<String>) -> IdempotencyKey {
    IdempotencyKey::new(name).unwrap()
}

/// Commits what must be accepted.
pub(crate) async fn committed(store: &dyn DocumentStore, context: &ContextName, commit: &Commit) -> Committed {
    match store.commit(context, commit, soon()).await {
        Ok(Outcome::Committed(committed)) => committed,
        other => panic!("expected {commit:?} to be committed; found {other:?}"),
    }
}
