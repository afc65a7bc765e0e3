//! Addresses of engines: `embedded:.mutext`, `postgres://host/db`, `redis://host`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use mutext_contract::{ContextName, Deadline, DocumentStore, EngineError, EpochSource, LockService, TroubleKind};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::engines::{self, Directory, Opens};
use crate::late::LateLocks;
use crate::stranger;

/// Where documents or locks lie.
///
/// `embedded:DIR` is a directory on this machine, made where there is none; `?sync=normal` after it acknowledges
/// commits before the disk has them. `postgres://USER:PASSWORD@HOST/DATABASE` holds documents and locks;
/// `redis://USER:PASSWORD@HOST`, `etcd://USER:PASSWORD@HOST,HOST,HOST` and `consul://:TOKEN@HOST` hold locks. Each but the
/// first is there where the feature of its name is; docs/engines names the options of each.
///
/// Shown, an address hides its password; serialised, it has it, so that another process can be given it.
///
/// ```
/// use mutext::Address;
/// # #[cfg(feature = "redis")] {
/// let address: Address = "redis://agent:secret@localhost".parse()?;
/// assert_eq!(address.to_string(), "redis://agent:***@localhost:6379/0");
/// # }
/// assert!("zookeeper://localhost".parse::<Address>().unwrap_err().to_string().contains("embedded:"));
/// # Ok::<(), mutext::Error>(())
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(Arc<dyn Opens>);

impl Address {
    /// The embedded store in `dir`.
    pub fn embedded(dir: impl Into<PathBuf>) -> Self {
        Self(Arc::new(Directory::new(dir)))
    }

    /// The engine's name, as it names itself once it is open.
    pub(crate) fn engine(&self) -> &'static str {
        self.0.engine()
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        self.0.url() == other.0.url()
    }
}

impl Eq for Address {}

impl FromStr for Address {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        engines::read(text).map(Self).map_err(|rule| {
            let rule = if is_torn(text) { TORN.to_owned() } else { rule };
            Error::InvalidAddress { address: without_password(text), rule }
        })
    }
}

impl fmt::Display for Address {
    /// Without any password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for Address {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Address> for String {
    /// With the password: whoever is given it must be able to open it.
    fn from(address: Address) -> Self {
        address.0.url()
    }
}

/// What is wrong with an address that is torn.
const TORN: &str = "it has an `@` after the first `/`, `?` or `#`, where no login is expected; write `/` `?` `#` and `@` in \
                    users, passwords and options as %2F %3F %23 and %40";

/// Whether a password may have torn the address: what stands before its first `/`, `?` or `#` is taken for the host,
/// and what follows for a path or for options. A rule that quotes one of them would show a piece of it.
fn is_torn(text: &str) -> bool {
    let rest = text.split_once("//").filter(|(scheme, _)| *scheme != "embedded:").map_or("", |(_, rest)| rest);
    rest.find(['/', '?', '#']).is_some_and(|end| rest[end..].contains('@'))
}

/// An address that could not be read, as it may be shown: whatever stands between the slashes and the last `@` is
/// hidden, and so is whatever an option with a secret's name says. An `@` among the options may be a secret's own: then
/// what follows it is hidden as well.
fn without_password(text: &str) -> String {
    let text = match (text.find("//"), text.rfind('@')) {
        (Some(start), Some(at)) if start + 2 <= at => {
            let rest = match text[at..].split_once('&') {
                _ if !text[..at].contains('?') => text[at..].to_owned(),
                Some((_, options)) => format!("?{options}"),
                None => String::new(),
            };
            format!("{}//***{rest}", &text[..start])
        }
        _ => text.to_owned(),
    };
    let Some((address, query)) = text.split_once('?') else { return text };
    let option = |option: &str| match option.split_once('=') {
        Some((key, _)) if ["pass", "secret", "token"].iter().any(|word| key.contains(word)) => format!("{key}=***"),
        _ => option.to_owned(),
    };
    format!("{address}?{}", query.split('&').map(option).collect::<Vec<_>>().join("&"))
}

/// The two engines behind a pair of addresses.
pub(crate) struct Engines {
    pub(crate) store: Arc<dyn DocumentStore>,
    pub(crate) locks: Arc<dyn LockService>,
}

/// Opens documents and locks; one address for both opens once.
pub(crate) async fn open(store: &Address, locks: &Address, deadline: Deadline) -> Result<Engines, Error> {
    if let Some(engines) = open_as_one(store, locks, deadline).await {
        return engines;
    }
    let store = open_store(store, deadline).await?;
    let locks = open_locks(locks, Arc::new(Arc::clone(&store)), deadline).await?;
    Ok(Engines { store, locks })
}

/// Opens documents; locks that lie elsewhere are opened when they are first needed.
pub(crate) async fn open_late(store: &Address, locks: &Address, deadline: Deadline) -> Result<Engines, Error> {
    if store == locks {
        return open(store, locks, deadline).await;
    }
    if let Some(engines) = open_as_one(store, locks, deadline).await {
        return engines;
    }
    let store = open_store(store, deadline).await?;
    let locks = Arc::new(LateLocks::new(locks.clone(), Arc::new(Arc::clone(&store))));
    Ok(Engines { store, locks })
}

/// Each of the two as far as it can be opened, whatever became of the other.
pub(crate) async fn open_each(
    store: &Address,
    locks: &Address,
    deadline: Deadline,
) -> (Result<Arc<dyn DocumentStore>, Error>, Option<Result<Arc<dyn LockService>, Error>>) {
    if let Some(engines) = open_as_one(store, locks, deadline).await {
        return match engines {
            Ok(engines) => (Ok(engines.store), Some(Ok(engines.locks))),
            Err(error) => (Err(error), None),
        };
    }
    let store = open_store(store, deadline).await;
    let epochs: Arc<dyn EpochSource> = match &store {
        Ok(store) => Arc::new(Arc::clone(store)),
        Err(_) => Arc::new(NoEpochs(locks.to_string())),
    };
    (store, Some(open_locks(locks, epochs, deadline).await.map_err(Error::from)))
}

/// Where documents and locks are one engine.
async fn open_as_one(store: &Address, locks: &Address, deadline: Deadline) -> Option<Result<Engines, Error>> {
    let documents = store.0.directory()?;
    if !documents.is(locks.0.directory()?) {
        return None;
    }
    let opened = documents.options().open(deadline).await;
    Some(opened.map(|opened| Engines { store: opened.store, locks: opened.locks }).map_err(Error::from))
}

async fn open_store(store: &Address, deadline: Deadline) -> Result<Arc<dyn DocumentStore>, Error> {
    stranger::or_stranger(&store.to_string(), deadline, store.0.open_store(deadline)).await
}

pub(crate) async fn open_locks(
    locks: &Address,
    epochs: Arc<dyn EpochSource>,
    deadline: Deadline,
) -> Result<Arc<dyn LockService>, EngineError> {
    stranger::or_stranger(&locks.to_string(), deadline, locks.0.open_locks(epochs, deadline)).await
}

/// Epochs for locks that are only looked at, while their documents are out of reach: there are none.
#[derive(Debug)]
struct NoEpochs(String);

#[async_trait]
impl EpochSource for NoEpochs {
    async fn mint_epoch(&self, _: &ContextName, _: u64, _: Deadline) -> Result<u64, EngineError> {
        let remedy = "epochs come from the documents' store, which is out of reach";
        Err(EngineError::new(self.0.as_str(), TroubleKind::Unavailable, remedy))
    }
}

#[cfg(all(test, feature = "consul", feature = "etcd", feature = "postgres", feature = "redis"))]
mod tests {
    use super::*;

    /// Neither where it is read nor where it is refused; and then it is said how it would be written.
    fn never_shown(text: &str) {
        let (shown, is_login) = match text.parse::<Address>() {
            Ok(address) => (format!("{address} {address:?}"), false),
            Err(error) => (error.to_string(), is_torn(text)),
        };
        // An address without an `@` has no login that one could know: it is shown, and its rule adds nothing.
        let shown = if text.contains('@') { shown } else { shown.replacen(text, "", 1) };
        assert!(!shown.contains("hush") && !shown.contains("hash"), "{text}: {shown}");
        assert!(!is_login || shown.contains("%2F"), "{text}: {shown}");
    }

    #[test]
    fn a_password_is_never_shown() {
        for text in [
            "redis://user:hush@host/x",
            "redlock://user:hush@host",
            "redis://host?password=hush",
            "redis://host?x=1&passwd=hush",
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(!error.contains("hush") && error.contains("host"), "{error}");
        }
        // A password that tears the address.
        for scheme in [
            "redis",
            "rediss",
            "redis+sentinel",
            "rediss+sentinel",
            "redis+cluster",
            "rediss+cluster",
            "redlock",
            "redlocks",
            "postgres",
            "postgresql",
            "etcd",
            "etcds",
            "consul",
            "consuls",
        ] {
            for login in
                ["anna:hush/hash", "anna:hush?hash", "anna:hush#hash", ":hush/hash", ":hush?hash", ":hush#hash"]
            {
                let text = format!("{scheme}://{login}@host");
                never_shown(&text);
                never_shown(&text.replace("hush", "1"));
                never_shown(&format!("{text}/0?prefix=a%20b"));
                never_shown(&format!("{text}/0?nonsense=1"));
            }
            never_shown(&format!("{scheme}://host/x?password=hush@hash"));
            never_shown(&format!("{scheme}://host/x?nonsense=1&password=1@hash&pool=0&token=hush"));
            never_shown(&format!("{scheme}://anna:hush"));
            never_shown(&format!("{scheme}://:hush@host:port"));
        }
        let address: Address = "redis://user:hush@host".parse().unwrap();
        assert!(!format!("{address} {address:?}").contains("hush"));
        assert!(String::from(address).contains("hush"));
    }

    #[cfg(feature = "consul")]
    #[test]
    fn a_consul_address_survives_its_text_without_its_token() {
        let address: Address = "consul://:hush@one,two:8600?prefix=team".parse().unwrap();
        assert_eq!(address.to_string(), "consul://:***@one:8500,two:8600?prefix=team");
        assert_eq!(String::from(address), "consul://:hush@one:8500,two:8600?prefix=team");
    }

    #[test]
    fn an_address_survives_its_text() {
        for text in [
            "embedded:.mutext",
            "embedded:/var/lib/mutext?sync=normal",
            "redis://h:1/2",
            "redis+sentinel://h:1,g:2/s",
            "redis+cluster://h:1,g:2",
            "redlock://a:1,b:1,c:1/0",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("embedded:///srv/x".parse::<Address>().unwrap(), Address::embedded("/srv/x"));
    }

    #[test]
    fn a_wrong_address_says_what_would_be_right() {
        for (text, part) in [
            (".mutext", "embedded:.mutext"),
            ("embedded:", "names no directory"),
            ("embedded:x?sync=maybe", "sync=maybe"),
            ("redlock://localhost", "a majority needs three"),
            ("file:x", "no engine named"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
