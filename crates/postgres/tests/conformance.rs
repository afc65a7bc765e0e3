//! The engine in the conformance suite: a schema of its own on a real server, and a second opening of it, which has its
//! own connections, as another process would.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be set up fails its case")]

mod support;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use mutext_conformance::StoreFixture;
use mutext_contract::DocumentStore;
use mutext_postgres::PostgresStore;

use crate::support::{fresh_schema, opened, shared};

struct Schema {
    name: String,
    first: Mutex<Option<Arc<PostgresStore>>>,
}

#[async_trait]
impl StoreFixture for Schema {
    async fn open() -> Self {
        let name = fresh_schema();
        let first = Mutex::new(Some(opened(shared(), &name).await));
        Self { name, first }
    }

    fn store(&self) -> Arc<dyn DocumentStore> {
        self.first.lock().unwrap().clone().unwrap()
    }

    async fn second_store(&self) -> Arc<dyn DocumentStore> {
        opened(shared(), &self.name).await
    }

    async fn vanish(&self) {
        let first = self.first.lock().unwrap().take().unwrap();
        assert_eq!(Arc::strong_count(&first), 1, "the case keeps handles of a client");
    }
}

mutext_conformance::store_suite!(Schema);
