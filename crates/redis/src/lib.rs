//! Mutext's locks on Redis 6.2 and later, and on Valkey.
//!
//! *Queue atomically, transfer ownership, never retry.* One script call acquires or, in the same atomic step, queues;
//! one script call releases, makes the next waiter the owner and tells its process, which then already holds the lock.
//! What many ask at one moment shares a call. The counter of the fencing tokens lies in Redis, their epoch comes from
//! the document store: whatever Redis forgets, no token is handed out twice with effect.
//!
//! | key | what it is |
//! |---|---|
//! | `PREFIX:{CONTEXT}:locks` | a hash: the epoch and its counter, leases, waiters, who holds which path |
//! | `PREFIX:{CONTEXT}:queue` | a sorted set: waiters, first come first |
//! | `PREFIX:{CONTEXT}:ended:ID` | for an hour: that an attempt or lease was ended by another, and why |
//! | `PREFIX:home:ID` | a channel: one process listens on it, and is alive as long as it does |
//! | `PREFIX:{CONTEXT}:register` | a hash on each node of a Redlock set: the whole table, and what the node promised |
//!
//! The server that has a context may be the only one, the primary that Sentinels name, or a node of a cluster:
//! [`RedisLocks`]. On servers that know nothing of each other a majority decides: [`RedlockLocks`].

mod board;
mod cluster;
mod examine;
mod examine_sets;
mod hosts;
mod keys;
mod link;
mod locks;
mod options;
mod presence;
mod records;
mod redlock;
mod scripts;
mod sentinel;
mod trouble;
mod turns;
mod ways;

pub use locks::RedisLocks;
pub use options::RedisOptions;
pub use redlock::{RedlockLocks, RedlockOptions};
