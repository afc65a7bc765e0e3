//! Mutext's locks in Consul 1.8 and later.
//!
//! *One table, changed by compare-and-set; transfer ownership, never retry.* A context's lock table is one key. Whoever
//! acquires or releases decides by the contract's own state machine what follows, and writes the next version in one
//! transaction that holds only if nobody wrote in between. The same transaction puts the new table into the mailbox of
//! each process whose request it granted: that process then already holds the lock.
//!
//! The counter of a fencing token is the index of the transaction that granted it.
//!
//! | key | what it is |
//! |---|---|
//! | `PREFIX/locks/CONTEXT` | the lock table: its epoch, leases, waiters, and what is remembered of ends |
//! | `PREFIX/home/ID/alive` | a process's sign of life: locked by its session, and deleted when that ends |
//! | `PREFIX/home/ID/bell/CONTEXT` | its mailbox: written by whoever grants or takes something of its |

mod asked;
mod desk;
mod examine;
mod home;
mod http;
mod keys;
mod kv;
mod locks;
mod options;
mod plan;
mod sight;
mod table;
mod tls;
mod trouble;

pub use locks::ConsulLocks;
pub use options::ConsulOptions;
