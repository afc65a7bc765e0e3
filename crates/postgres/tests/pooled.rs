//! Both engines through a pooler that hands its few connections on after each transaction, in turn, so that no two
//! statements of a client meet the same session. Each keeps all that it promises; nobody is told anything.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be set up fails its case")]

mod support;

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use mutext_conformance::{LockFixture, StoreFixture};
use mutext_contract::{
    AgentName, DeadHolder, DocumentStore, EpochSource, Holder, LockRequest, LockService, Precondition, Severity, Ttl,
    Waiting,
};
use mutext_postgres::{PostgresLocks, PostgresOptions, PostgresStore};
use mutext_testbed::PgBouncer;

use crate::support::{committed, context, fresh_schema, options, put, shared, soon};

/// The pooler that all cases share; it ends with them.
fn pooler() -> &'static PgBouncer {
    static POOLER: OnceLock<PgBouncer> = OnceLock::new();
    POOLER.get_or_init(|| PgBouncer::start(shared(), 4).unwrap_or_else(|error| panic!("this test needs one: {error}")))
}

fn through(schema: &str) -> PostgresOptions {
    options(&format!("{}?schema={schema}&pool=2", pooler().url()))
}

struct Schema {
    name: String,
    first: Mutex<Option<Arc<PostgresStore>>>,
}

#[async_trait]
impl StoreFixture for Schema {
    async fn open() -> Self {
        let name = fresh_schema();
        let first = Mutex::new(Some(through(&name).open(soon()).await.unwrap()));
        Self { name, first }
    }

    fn store(&self) -> Arc<dyn DocumentStore> {
        self.first.lock().unwrap().clone().unwrap()
    }

    async fn second_store(&self) -> Arc<dyn DocumentStore> {
        through(&self.name).open(soon()).await.unwrap()
    }

    async fn vanish(&self) {
        self.first.lock().unwrap().take();
    }
}

struct Clients {
    epochs: Arc<PostgresStore>,
    first: Mutex<Option<Arc<PostgresLocks>>>,
    others: Mutex<Vec<Arc<PostgresLocks>>>,
}

impl Clients {
    async fn client(epochs: &Arc<PostgresStore>) -> Arc<PostgresLocks> {
        let epochs: Arc<dyn EpochSource> = Arc::<PostgresStore>::clone(epochs);
        through("locks").open_locks(epochs, soon()).await.unwrap()
    }
}

#[async_trait]
impl LockFixture for Clients {
    async fn open() -> Self {
        let epochs = through("locks").open(soon()).await.unwrap();
        let first = Self::client(&epochs).await;
        Self { epochs, first: Mutex::new(Some(first)), others: Mutex::default() }
    }

    fn locks(&self) -> Arc<dyn LockService> {
        self.first.lock().unwrap().clone().unwrap()
    }

    async fn second_locks(&self) -> Arc<dyn LockService> {
        let second = Self::client(&self.epochs).await;
        self.others.lock().unwrap().push(Arc::clone(&second));
        second
    }

    async fn vanish(&self) {
        self.first.lock().unwrap().take();
    }
}

mutext_conformance::store_suite!(Schema);
mutext_conformance::lock_suite!(Clients);

#[tokio::test]
async fn a_pooler_is_noticed_and_said_and_leaves_nothing_behind() {
    let schema = fresh_schema();
    let store = through(&schema).open(soon()).await.unwrap();
    let epochs: Arc<dyn EpochSource> = Arc::<PostgresStore>::clone(&store);
    let locks = through(&schema).open_locks(epochs, soon()).await.unwrap();
    let can = locks.capabilities();
    assert_eq!((can.waiting, can.dead_holder), (Waiting::Polled, DeadHolder::Ttl));
    let findings = locks.examine(soon()).await.unwrap();
    for (subject, part) in [("pooler", "one is in between"), ("wake-ups", "none")] {
        let finding = findings.iter().find(|finding| finding.subject == subject).unwrap();
        assert_eq!(finding.severity, Severity::Note, "{finding:?}");
        assert!(finding.found.contains(part) && !finding.remedy.is_empty(), "{finding:?}");
    }
    let board = context("board");
    committed(&*store, &board, &put("plan.md", "x", Precondition::Any)).await;
    let ttl = Ttl::new(Duration::from_secs(9)).unwrap();
    let holder = Holder::new(AgentName::new("anna").unwrap());
    let request = LockRequest::exclusive(board.clone(), holder, ttl, "plan.md".parse().unwrap());
    locks.acquire(&request, soon()).await.unwrap();
    // Other programs share these sessions: nothing is set, prepared, listened to or locked in them.
    let plain = format!("{}?schema={}", shared().url(), fresh_schema());
    options(&plain).open(soon()).await.unwrap();
    let left = shared()
        .sql("SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND a.state = 'idle'")
        .unwrap();
    assert_eq!(left.trim(), "0");
    let (client, connection) = tokio_postgres::connect(&pooler().url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..8 {
        let look = "SELECT current_setting('enable_seqscan'), current_setting('statement_timeout'),
            (SELECT count(*) FROM pg_prepared_statements)::text, (SELECT count(*) FROM pg_listening_channels())::text";
        let rows = client.query_typed(look, &[]).await.unwrap();
        let found: Vec<String> = (0..4).map(|column| rows[0].get(column)).collect();
        assert_eq!(found, ["on", "0", "0", "0"]);
    }
}

#[tokio::test]
async fn a_session_of_our_own_is_not_taken_for_a_poolers() {
    for mode in ["disable", "prefer"] {
        let plain = format!("{}?schema={}&sslmode={mode}", shared().url(), fresh_schema());
        let store = options(&plain).open(soon()).await.unwrap();
        let findings = store.examine(soon()).await.unwrap();
        let pooler = findings.iter().find(|finding| finding.subject == "pooler").unwrap();
        assert_eq!(pooler.severity, Severity::Fine, "{pooler:?}");
    }
}
