//! `postgres://`: documents and locks in PostgreSQL.

use std::sync::Arc;

use async_trait::async_trait;
use mutext_contract::{Deadline, DocumentStore, EngineError, EpochSource, LockService};
use mutext_postgres::PostgresOptions;

use super::Opens;
use crate::Error;

pub(super) fn read(text: &str) -> Result<Arc<dyn Opens>, String> {
    Ok(Arc::new(PostgresOptions::parse(text)?))
}

#[async_trait]
impl Opens for PostgresOptions {
    fn engine(&self) -> &'static str {
        "postgres"
    }

    fn url(&self) -> String {
        PostgresOptions::url(self).to_owned()
    }

    async fn open_store(&self, deadline: Deadline) -> Result<Arc<dyn DocumentStore>, Error> {
        Ok(self.open(deadline).await?)
    }

    async fn open_locks(
        &self,
        epochs: Arc<dyn EpochSource>,
        deadline: Deadline,
    ) -> Result<Arc<dyn LockService>, EngineError> {
        Ok(PostgresOptions::open_locks(self, epochs, deadline).await?)
    }
}
