//! Mutext's documents on PostgreSQL 15 and later.
//!
//! Revision, fence and idempotency key are checked by a function in the server, in the transaction that writes: a
//! commit is one statement and one round trip, and a transaction of its own. See `docs/engines/postgres.md`.

mod bell;
mod contexts;
mod examine;
mod link;
mod names;
mod options;
mod rows;
mod schema;
mod store;
mod tls;
mod trouble;

pub use options::PostgresOptions;
pub use store::PostgresStore;
