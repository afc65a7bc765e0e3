//! What a Redlock address says.

use std::fmt;
use std::sync::Arc;

use mutext_contract::{Deadline, EngineError, EpochSource};

use super::RedlockLocks;
use crate::options::RedisOptions;

/// How the nodes of a Redlock set are reached.
///
/// ```
/// use mutext_redis::RedlockOptions;
/// let options = RedlockOptions::parse("redlock://:secret@a:6379,b:6379,c:6379")?;
/// assert_eq!(options.to_string(), "redlock://:***@a:6379,b:6379,c:6379/0");
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedlockOptions(RedisOptions);

impl RedlockOptions {
    /// What an address says: `redlock://[USER][:PASSWORD@]HOST[:PORT],HOST[:PORT],HOST[:PORT][/DB]`, or `redlocks://`
    /// for TLS, with options after `?`. The error says which rule it breaks and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        RedisOptions::nodes(text).map(Self)
    }

    /// The whole address, with its password: for handing it to another process of the same user, never for show.
    pub fn url(&self) -> String {
        self.0.url()
    }

    /// Connects, and makes sure that it can be worked with. `epochs` is the store of the documents that the locks
    /// guard.
    pub async fn open(
        &self,
        epochs: Arc<dyn EpochSource>,
        deadline: Deadline,
    ) -> Result<Arc<RedlockLocks>, EngineError> {
        RedlockLocks::open(&self.0, epochs, deadline).await.map(Arc::new)
    }
}

impl fmt::Display for RedlockOptions {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_its_text_and_hides_its_password() {
        for text in [
            "redlock://a:6379,b:6379,c:6379/0",
            "redlocks://agent:p%40ss@a:1,b:2,[::1]:3/2?prefix=team&tls_ca=%2Fca.pem",
        ] {
            let options = RedlockOptions::parse(text).unwrap();
            assert_eq!(options.url(), text);
            assert!(!format!("{options} {options:?}").contains("p%40ss"));
        }
    }

    #[test]
    fn a_wrong_address_says_what_would_be_right() {
        for (text, part) in [
            ("redlock://a,b", "three"),
            ("redlock://a,b,c/x", "database"),
            ("redlock://a,b,b", "twice"),
            ("redlock://a,b,c?min_replicas=1", "min_replicas"),
        ] {
            let rule = RedlockOptions::parse(text).unwrap_err();
            assert!(rule.contains(part), "{text}: {rule}");
        }
    }
}
