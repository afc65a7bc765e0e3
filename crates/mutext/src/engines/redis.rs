//! `redis://`, whatever else Redis is behind, and `redlock://`: locks in Redis.

use std::sync::Arc;

use mutext_redis::{RedisOptions, RedlockOptions};

use super::Opens;

pub(super) fn read(text: &str) -> Result<Arc<dyn Opens>, String> {
    if text.starts_with("redlock") {
        return Ok(Arc::new(RedlockOptions::parse(text)?));
    }
    Ok(Arc::new(RedisOptions::parse(text)?))
}

locks_alone!(RedisOptions, Self::engine, "Redis");
locks_alone!(RedlockOptions, |_| "redlock", "Redis");
