//! The engines that an address can name, a room for each. What a build has of them is decided by its features.

/// An engine that holds locks alone: its options, its name in use, and its name in words.
#[cfg(any(feature = "redis", feature = "etcd", feature = "consul"))]
macro_rules! locks_alone {
    ($options:ty, $engine:expr, $name:literal) => {
        #[async_trait::async_trait]
        impl super::Opens for $options {
            fn engine(&self) -> &'static str {
                let engine: fn(&Self) -> &'static str = $engine;
                engine(self)
            }

            fn url(&self) -> String {
                <$options>::url(self)
            }

            async fn open_store(
                &self,
                _: mutext_contract::Deadline,
            ) -> Result<std::sync::Arc<dyn mutext_contract::DocumentStore>, crate::Error> {
                let rule = concat!(
                    $name,
                    " holds locks, not documents; name it with --locks, and a store that holds documents with --store"
                );
                Err(crate::Error::InvalidAddress { address: self.to_string(), rule: rule.to_owned() })
            }

            async fn open_locks(
                &self,
                epochs: std::sync::Arc<dyn mutext_contract::EpochSource>,
                deadline: mutext_contract::Deadline,
            ) -> Result<std::sync::Arc<dyn mutext_contract::LockService>, mutext_contract::EngineError> {
                Ok(<$options>::open(self, epochs, deadline).await?)
            }
        }
    };
}

#[cfg(feature = "consul")]
mod consul;
mod embedded;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use mutext_contract::{Deadline, DocumentStore, EngineError, EpochSource, LockService};

use crate::Error;
pub(crate) use embedded::Directory;

/// What an address says, as its engine reads it. Shown, it hides its password.
#[async_trait]
pub(crate) trait Opens: fmt::Debug + fmt::Display + Send + Sync {
    /// The engine's name, as it names itself once it is open.
    fn engine(&self) -> &'static str;

    /// All of it, with the password.
    fn url(&self) -> String;

    /// Where it is a directory on this machine, which holds documents and locks as one: that.
    fn directory(&self) -> Option<&Directory> {
        None
    }

    async fn open_store(&self, deadline: Deadline) -> Result<Arc<dyn DocumentStore>, Error>;

    async fn open_locks(
        &self,
        epochs: Arc<dyn EpochSource>,
        deadline: Deadline,
    ) -> Result<Arc<dyn LockService>, EngineError>;
}

/// Reads an address, or says what is wrong with it.
type Read = fn(&str) -> Result<Arc<dyn Opens>, String>;

/// An engine, whether this build has it or not.
struct Kind {
    /// The feature that a build needs for it; none where every build has it.
    feature: Option<&'static str>,
    /// What its addresses begin with.
    schemes: &'static [&'static str],
    /// How its addresses look.
    shown: &'static [&'static str],
    /// What it holds.
    holds: Holds,
    /// Reads an address of it, or says what is wrong with one; nothing where this build lacks it.
    read: Option<Read>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    Locks,
    DocumentsAndLocks,
}

const KINDS: [Kind; 5] = [
    Kind {
        feature: None,
        schemes: &["embedded"],
        shown: &["embedded:DIR"],
        holds: Holds::DocumentsAndLocks,
        read: Some(embedded::read),
    },
    Kind {
        feature: Some("postgres"),
        schemes: &["postgres", "postgresql"],
        shown: &["postgres://HOST/DATABASE"],
        holds: Holds::DocumentsAndLocks,
        #[cfg(feature = "postgres")]
        read: Some(postgres::read),
        #[cfg(not(feature = "postgres"))]
        read: None,
    },
    Kind {
        feature: Some("redis"),
        schemes: &[
            "redis",
            "rediss",
            "redis+unix",
            "redis+sentinel",
            "rediss+sentinel",
            "redis+cluster",
            "rediss+cluster",
            "redlock",
            "redlocks",
        ],
        shown: &[
            "redis://HOST",
            "rediss://HOST",
            "redis+unix:///PATH",
            "redis+sentinel://HOST,HOST/SERVICE",
            "redis+cluster://HOST,HOST",
            "redlock://HOST,HOST,HOST",
        ],
        holds: Holds::Locks,
        #[cfg(feature = "redis")]
        read: Some(redis::read),
        #[cfg(not(feature = "redis"))]
        read: None,
    },
    Kind {
        feature: Some("etcd"),
        schemes: &["etcd", "etcds"],
        shown: &["etcd://HOST,HOST", "etcds://HOST,HOST"],
        holds: Holds::Locks,
        #[cfg(feature = "etcd")]
        read: Some(etcd::read),
        #[cfg(not(feature = "etcd"))]
        read: None,
    },
    Kind {
        feature: Some("consul"),
        schemes: &["consul", "consuls"],
        shown: &["consul://HOST", "consuls://HOST"],
        holds: Holds::Locks,
        #[cfg(feature = "consul")]
        read: Some(consul::read),
        #[cfg(not(feature = "consul"))]
        read: None,
    },
];

/// What an address says, or why it is none.
pub(crate) fn read(text: &str) -> Result<Arc<dyn Opens>, String> {
    let Some((scheme, _)) = text.split_once(':') else {
        return Err("write the engine before a colon, as in embedded:.mutext".to_owned());
    };
    let kind = KINDS.iter().find(|kind| kind.schemes.contains(&scheme));
    match kind.map(|kind| (kind.read, kind.feature)) {
        Some((Some(read), _)) => read(text),
        Some((None, feature)) => {
            let feature = feature.unwrap_or(scheme);
            Err(format!("this build has no engine for {scheme}:; build it with the feature {feature}; {}", known()))
        }
        None => Err(format!("there is no engine named {scheme:?}; {}", known())),
    }
}

/// What this build has.
fn known() -> String {
    let shown = |holds| {
        let kinds = KINDS.iter().filter(move |kind| kind.read.is_some() && kind.holds == holds);
        let mut shown: Vec<&str> = kinds.flat_map(|kind| kind.shown).copied().collect();
        let last = shown.pop()?;
        Some(if shown.is_empty() { last.to_owned() } else { format!("{} and {last}", shown.join(", ")) })
    };
    let both = shown(Holds::DocumentsAndLocks).map(|both| format!("{both} for documents and locks"));
    let locks = shown(Holds::Locks).map(|locks| format!("{locks} for locks"));
    format!("it has {}", both.into_iter().chain(locks).collect::<Vec<_>>().join(", and "))
}
