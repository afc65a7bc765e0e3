//! Fencing tokens: (epoch, counter, owner), and the one comparison in the product.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{DocumentPath, InvalidName, LeaseId, Resource};

/// A number that grows with every grant in a context, so that a store can refuse a writer whose lease has passed on.
///
/// The *counter* grows over the whole context, so that locks of different granularity are comparable. The
/// *epoch* is minted by the document store, anew whenever a lock engine turns out to have lost its memory:
/// numbers are never handed out twice with effect. The *owner* is the lease itself; it tells two grants apart
/// that a failover gave the same number.
///
/// After M. Kleppmann, "How to do distributed locking" (2016), with the epoch and owner added.
///
/// ```
/// use mutext_contract::{FencingToken, LeaseId};
/// let token = FencingToken::new(1, 7, LeaseId::random());
/// assert_eq!(token.to_string().parse::<FencingToken>()?, token);
/// # Ok::<(), mutext_contract::InvalidToken>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FencingToken {
    /// Which memory of the lock engine minted it.
    pub epoch: u64,
    /// Its place among the grants of that memory.
    pub counter: u64,
    /// The lease that it was granted to.
    pub owner: LeaseId,
}

impl FencingToken {
    /// Puts the three parts together.
    pub const fn new(epoch: u64, counter: u64, owner: LeaseId) -> Self {
        Self { epoch, counter, owner }
    }

    /// Whether a document whose highest token is `highest` admits a write under this one.
    ///
    /// Not behind: a higher number, or the very same token again (a holder writes many times). An equal number
    /// with another owner counts as behind: the first writer wins.
    pub fn is_admitted_after(&self, highest: Option<&Self>) -> bool {
        highest.is_none_or(|highest| self.number() > highest.number() || self == highest)
    }

    /// The part that grows.
    pub const fn number(&self) -> (u64, u64) {
        (self.epoch, self.counter)
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.epoch, self.counter, self.owner)
    }
}

/// A text that is not `EPOCH.COUNTER.OWNER`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "fencing token {0:?} is not valid: it is written EPOCH.COUNTER.OWNER, as in 1.42.9f86d081884c7d659a2feaa0c55ad015"
)]
pub struct InvalidToken(pub String);

impl FromStr for FencingToken {
    type Err = InvalidToken;
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let parse = || {
            let mut parts = text.splitn(3, '.');
            Some(Self {
                epoch: parts.next()?.parse().ok()?,
                counter: parts.next()?.parse().ok()?,
                owner: parts.next()?.parse().ok()?,
            })
        };
        parse().ok_or_else(|| InvalidToken(text.to_owned()))
    }
}

impl TryFrom<String> for FencingToken {
    type Error = InvalidToken;
    fn try_from(text: String) -> Result<Self, InvalidToken> {
        text.parse()
    }
}

impl From<FencingToken> for String {
    fn from(token: FencingToken) -> Self {
        token.to_string()
    }
}

/// What a write presents: the token, and the resources that its lease covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The lease's token.
    pub token: FencingToken,
    /// What the lease covers exclusively.
    pub resources: Vec<Resource>,
}

impl Fence {
    /// A fence over one resource.
    pub fn new(
        token: FencingToken,
        resource: impl TryInto<Resource, Error = InvalidName>,
    ) -> Result<Self, InvalidName> {
        Ok(Self { token, resources: vec![resource.try_into()?] })
    }

    /// Whether the lease covers `path`.
    pub fn covers(&self, path: &DocumentPath) -> bool {
        self.resources.iter().any(|resource| resource.covers(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(epoch: u64, counter: u64, owner: u8) -> FencingToken {
        FencingToken::new(epoch, counter, LeaseId::from_bytes([owner; 16]))
    }

    #[test]
    fn the_first_token_is_admitted() {
        assert!(token(1, 1, 1).is_admitted_after(None));
    }

    #[test]
    fn a_holder_may_write_many_times() {
        assert!(token(1, 5, 1).is_admitted_after(Some(&token(1, 5, 1))));
    }

    #[test]
    fn an_older_token_is_refused() {
        assert!(!token(1, 4, 1).is_admitted_after(Some(&token(1, 5, 1))));
        assert!(!token(1, 9, 1).is_admitted_after(Some(&token(2, 1, 1))));
    }

    #[test]
    fn an_equal_number_of_another_owner_is_refused() {
        assert!(!token(1, 5, 2).is_admitted_after(Some(&token(1, 5, 1))));
    }

    #[test]
    fn a_new_epoch_outranks_every_counter_of_the_old() {
        assert!(token(2, 1, 2).is_admitted_after(Some(&token(1, 900, 1))));
    }

    #[test]
    fn a_damaged_token_is_named() {
        assert!("1.x.2".parse::<FencingToken>().unwrap_err().to_string().contains("1.x.2"));
    }
}
