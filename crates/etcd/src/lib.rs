//! Mutext's locks on etcd 3.4 and later.
//!
//! One transaction acquires where nothing is in the way, or queues; whoever queues watches the one that is in its way,
//! and takes what has become its own in one more. The token's counter is the revision of the transaction that grants, its
//! epoch comes from the document store. Everything of a process is bound to one etcd lease, which it keeps as long as it
//! lives; how long a lock lasts without a renewal is judged by the clocks of its holder and of whoever wants it.
//!
//! | key | what it is |
//! |---|---|
//! | `PREFIX/locks/CONTEXT/epoch` | the epoch of the context's tokens, and the cluster that it was begun in |
//! | `PREFIX/locks/CONTEXT/held/ID` | a lease; the revision that made it is its token |
//! | `PREFIX/locks/CONTEXT/waiting/ID` | a request; the revision that made it is its place in the queue |
//! | `PREFIX/locks/CONTEXT/convert/ID` | a request that is to take the place of a lease of its own |
//! | `PREFIX/locks/CONTEXT/converted/ID` | a lease that took the place of another |
//! | `PREFIX/ended/CONTEXT/ID` | for an hour: that an attempt or lease was ended by another, and why |
//! | `PREFIX/news/HOME/ID` | tells a process that this lease was taken from it |

mod attempt;
#[doc(hidden)]
pub mod bare;
mod board;
mod core;
mod examine;
mod keys;
mod link;
mod locks;
mod options;
mod presence;
mod records;
mod steps;
mod trouble;
mod turn;
mod watches;
mod wire;

pub use locks::EtcdLocks;
pub use options::EtcdOptions;
