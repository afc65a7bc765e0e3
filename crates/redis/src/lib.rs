//! Mutext's locks on Redis 6.2 and later, and on Valkey.

mod locks;
mod options;

pub use locks::RedisLocks;
pub use options::RedisOptions;
