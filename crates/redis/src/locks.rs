//! The lock engine.

/// The Redis lock engine.
#[derive(Debug)]
pub struct RedisLocks {}
