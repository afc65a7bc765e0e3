//! Leases: who holds what, for how long, and until when it may be believed.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{AgentName, ContextName, Fence, FencingToken, InvalidName, NameRule, Resource};

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; 16]);

        impl $name {
            /// 128 fresh random bits.
            pub fn random() -> Self {
                Self(rand::random())
            }

            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                let mut text = [0; 32];
                for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
                    pair[0] = DIGITS[usize::from(byte >> 4)];
                    pair[1] = DIGITS[usize::from(byte & 15)];
                }
                // Digits are text.
                f.pad(std::str::from_utf8(&text).unwrap_or_default())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let parse = || {
                    let mut bytes = [0; 16];
                    if text.len() != 32 || !text.is_ascii() {
                        return None;
                    }
                    for (index, byte) in bytes.iter_mut().enumerate() {
                        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
                    }
                    Some(Self(bytes))
                };
                parse().ok_or_else(|| InvalidName {
                    kind: $kind,
                    value: text.chars().take(80).collect(),
                    rule: NameRule::Unknown { allowed: "32 hexadecimal digits" },
                })
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

random_id! {
    /// Names one attempt to acquire and, once granted, the lease. Chosen by the asker before it asks, so that a
    /// release can name an attempt whose answer never came, and can never hit another's lease.
    LeaseId, "lease id"
}
random_id! {
    /// The unguessable half of a [`Holder`].
    HolderId, "holder id"
}

/// Who holds a lease or writes a commit: an agent's name and an unguessable id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Holder {
    /// What the agent calls itself.
    pub agent: AgentName,
    /// Tells two agents of the same name apart.
    pub id: HolderId,
}

impl Holder {
    /// A holder of this name with a fresh id.
    pub fn new(agent: AgentName) -> Self {
        Self { agent, id: HolderId::random() }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.agent, f)
    }
}

/// Shared leases on overlapping resources stand together; an exclusive one stands alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// For readers: many at once.
    Shared,
    /// For a writer: one alone.
    Exclusive,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Shared => "shared",
            Self::Exclusive => "exclusive",
        })
    }
}

/// One resource in one mode.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claim {
    /// What is covered.
    pub resource: Resource,
    /// How.
    pub mode: Mode,
}

impl Claim {
    /// Whether whoever has this one needs no other: the resource lies in it, and its mode is as strong.
    pub fn covers(&self, other: &Self) -> bool {
        (self.mode == Mode::Exclusive || other.mode == Mode::Shared) && self.resource.contains(&other.resource)
    }

    /// Whether the two cannot be held at once.
    pub fn conflicts(&self, other: &Self) -> bool {
        (self.mode == Mode::Exclusive || other.mode == Mode::Exclusive) && self.resource.overlaps(&other.resource)
    }
}

/// How long a lease lasts without renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ttl(Duration);

/// A duration outside its bounds: what it is for, its value, and the bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} of {value:?} is not valid: {remedy}")]
pub struct InvalidDuration {
    /// `TTL` or `wait`.
    pub what: &'static str,
    /// The value.
    pub value: Duration,
    /// What would be valid, and why.
    pub remedy: &'static str,
}

impl Ttl {
    /// Renewal is due at a third of the TTL; below this, a busy machine cannot keep it.
    pub const MIN: Duration = Duration::from_millis(100);
    /// A day.
    pub const MAX: Duration = Duration::from_secs(24 * 60 * 60);
    /// Ten seconds.
    pub const DEFAULT: Self = Self(Duration::from_secs(10));

    /// A TTL within [`Ttl::MIN`] and [`Ttl::MAX`].
    pub fn new(value: Duration) -> Result<Self, InvalidDuration> {
        if value < Self::MIN {
            let remedy = "renewal runs every third of it, and below 100ms a busy machine cannot keep that up; give 100ms or more";
            return Err(InvalidDuration { what: "TTL", value, remedy });
        }
        if value > Self::MAX {
            let remedy = "a dead holder would block the others for more than a day; give 24h or less";
            return Err(InvalidDuration { what: "TTL", value, remedy });
        }
        Ok(Self(value))
    }

    /// The duration.
    pub const fn get(self) -> Duration {
        self.0
    }

    /// How long after a grant or renewal the next renewal is due: a third.
    pub fn renewal_interval(self) -> Duration {
        self.0 / 3
    }
}

impl Default for Ttl {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How long an acquire may queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wait(Duration);

impl Wait {
    /// The shortest wait.
    pub const MIN: Duration = Duration::from_millis(1);
    /// The longest wait.
    pub const MAX: Duration = Duration::from_secs(24 * 60 * 60);
    /// Half a second: the published experiment met timeouts at 100 ms and none at 500.
    pub const DEFAULT: Self = Self(Duration::from_millis(500));

    /// A wait within [`Wait::MIN`] and [`Wait::MAX`].
    pub fn new(value: Duration) -> Result<Self, InvalidDuration> {
        let remedy = if value < Self::MIN {
            "nobody could be granted a lock in it; give 1ms or more, or ask to try once without waiting"
        } else if value > Self::MAX {
            "every wait is bounded; give 24h or less"
        } else {
            return Ok(Self(value));
        };
        Err(InvalidDuration { what: "wait", value, remedy })
    }

    /// The duration.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl Default for Wait {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The instant by which an operation must have answered. Computed once at the edge: no layer restarts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// So long from now.
    pub fn after(duration: Duration) -> Self {
        let now = Instant::now();
        // An instant that the clock cannot represent is as good as one in thirty years.
        Self(now.checked_add(duration).unwrap_or_else(|| now + Duration::from_secs(30 * 365 * 24 * 60 * 60)))
    }

    /// Already passed: one try, no waiting.
    pub fn now() -> Self {
        Self(Instant::now())
    }

    /// At this instant.
    pub const fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// The instant.
    pub const fn instant(self) -> Instant {
        self.0
    }

    /// What is left of it; zero once passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    pub fn has_passed(self) -> bool {
        Instant::now() >= self.0
    }

    /// This one, or one so long from now where less is left: what must be given a chance is given one.
    #[must_use]
    pub fn at_least(self, patience: Duration) -> Self {
        if self.remaining() < patience { Self::after(patience) } else { self }
    }

    /// The earlier of the two.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self(self.0.min(other.0))
    }
}

/// A lock held for a bounded time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The context that its resources lie in.
    pub context: ContextName,
    /// What it covers, and how.
    pub claims: Arc<[Claim]>,
    /// Who holds it.
    pub holder: Holder,
    /// Its fencing token; `token.owner` is the lease's id.
    pub token: FencingToken,
    /// How long each renewal makes it last.
    pub ttl: Ttl,
    /// Until when the holder may believe in it without asking again. Counted from *before* the question, so that a
    /// slow answer never makes the holder believe longer than the service does.
    pub valid_until: Instant,
}

impl Lease {
    /// The lease's id.
    pub const fn id(&self) -> LeaseId {
        self.token.owner
    }

    /// What its writes present: the token over the resources that it covers exclusively.
    pub fn fence(&self) -> Fence {
        let exclusive = self.claims.iter().filter(|claim| claim.mode == Mode::Exclusive);
        Fence { token: self.token, resources: exclusive.map(|claim| claim.resource.clone()).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(resource: &str, mode: Mode) -> Claim {
        Claim { resource: resource.parse().unwrap(), mode }
    }

    #[test]
    fn readers_stand_together_and_writers_alone() {
        use Mode::{Exclusive, Shared};
        assert!(!claim("a", Shared).conflicts(&claim("a", Shared)));
        assert!(claim("a", Shared).conflicts(&claim("a/b", Exclusive)));
        assert!(claim("a", Exclusive).conflicts(&claim("a", Exclusive)));
        assert!(!claim("a", Exclusive).conflicts(&claim("b", Exclusive)));
    }

    #[test]
    fn an_id_survives_its_text() {
        let id = LeaseId::random();
        assert_eq!(id.to_string().parse::<LeaseId>().unwrap(), id);
        assert!("zz".parse::<LeaseId>().is_err());
    }

    #[test]
    fn a_duration_outside_its_bounds_says_what_would_be_valid() {
        let error = Ttl::new(Duration::from_millis(20)).unwrap_err().to_string();
        assert!(error.contains("TTL of 20ms") && error.contains("100ms or more"), "{error}");
        let error = Wait::new(Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains("wait of 0ns") && error.contains("1ms or more"), "{error}");
    }
}
