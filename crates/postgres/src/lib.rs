//! Mutext's documents on PostgreSQL 15 and later.

mod options;
mod store;

pub use options::PostgresOptions;
pub use store::PostgresStore;
