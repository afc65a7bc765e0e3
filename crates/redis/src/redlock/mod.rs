//! Locks on several Redis servers that know nothing of each other: what a majority of them agrees on counts.

mod courier;
mod locks;
mod nodes;
mod options;
mod register;
mod table;
mod watch;

pub(crate) use nodes::Node;

pub use locks::RedlockLocks;
pub use options::RedlockOptions;
