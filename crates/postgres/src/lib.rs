//! Mutext's documents and locks on PostgreSQL 15 and later.
//!
//! Revision, fence and idempotency key are checked by a function in the server, in the transaction that writes: a
//! commit is one statement and one round trip, and a transaction of its own; so is each step of a lock. See `docs/engines/postgres.md`.

mod bell;
mod board;
mod contexts;
mod examine;
mod link;
mod lock_rows;
mod locks;
mod names;
mod options;
mod pooler;
mod presence;
mod rows;
mod schema;
mod store;
mod tls;
mod trouble;

pub use locks::PostgresLocks;
pub use options::PostgresOptions;
pub use store::PostgresStore;
