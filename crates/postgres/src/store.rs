//! The document engine.

/// The PostgreSQL document store.
#[derive(Debug)]
pub struct PostgresStore {}
