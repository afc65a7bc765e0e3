//! Addresses of engines: `embedded:.mutext`, `postgres://host/db`, `redis://host`. The one room that names the engines.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
#[cfg(feature = "consul")]
use mutext_consul::ConsulOptions;
use mutext_contract::{ContextName, Deadline, DocumentStore, EngineError, EpochSource, LockService, TroubleKind};
use mutext_embedded::EmbeddedOptions;
#[cfg(feature = "etcd")]
use mutext_etcd::EtcdOptions;
use mutext_postgres::PostgresOptions;
use mutext_redis::{RedisOptions, RedlockOptions};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::late::LateLocks;

/// The engines that other builds have, so that their addresses are recognised and refused by name.
const KNOWN_ELSEWHERE: [&str; 4] = ["etcd", "etcds", "consul", "consuls"];

/// What this build has.
fn known() -> String {
    let mut locks = vec![
        "redis://HOST",
        "rediss://HOST",
        "redis+unix:///PATH",
        "redis+sentinel://HOST,HOST/SERVICE",
        "redis+cluster://HOST,HOST",
        "redlock://HOST,HOST,HOST",
    ];
    if cfg!(feature = "etcd") {
        locks.extend(["etcd://HOST,HOST", "etcds://HOST,HOST"]);
    }
    if cfg!(feature = "consul") {
        locks.extend(["consul://HOST", "consuls://HOST"]);
    }
    let last = locks.pop().unwrap_or_default();
    format!("it has embedded:DIR and postgres://HOST/DATABASE for both, and {} and {last} for locks", locks.join(", "))
}

/// Where documents or locks lie.
///
/// `embedded:DIR` is a directory on this machine, made where there is none; `?sync=normal` after it acknowledges
/// commits before the disk has them. `postgres://USER:PASSWORD@HOST/DATABASE` holds documents and locks,
/// `redis://USER:PASSWORD@HOST` holds locks, and so do `etcd://USER:PASSWORD@HOST,HOST,HOST` with the feature `etcd` and
/// `consul://:TOKEN@HOST` with the feature `consul`;
/// docs/engines names the options of each.
///
/// Shown, an address hides its password; serialised, it has it, so that another process can be given it.
///
/// ```
/// use mutext::Address;
/// let address: Address = "redis://agent:secret@localhost".parse()?;
/// assert_eq!(address.to_string(), "redis://agent:***@localhost:6379/0");
/// assert!("zookeeper://localhost".parse::<Address>().unwrap_err().to_string().contains("embedded:"));
/// # Ok::<(), mutext::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(Engine);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Engine {
    Embedded(Directory),
    Redis(Box<RedisOptions>),
    #[cfg(feature = "consul")]
    Consul(Box<ConsulOptions>),
    Redlock(Box<RedlockOptions>),
    Postgres(Box<PostgresOptions>),
    #[cfg(feature = "etcd")]
    Etcd(Box<EtcdOptions>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Directory {
    dir: PathBuf,
    synced: bool,
    fenced: bool,
}

impl Directory {
    fn options(&self) -> EmbeddedOptions {
        let options = EmbeddedOptions::new(&self.dir).synced(self.synced);
        #[cfg(feature = "sabotage")]
        if !self.fenced {
            return options.without_fence_check();
        }
        options
    }

    fn parse(rest: &str) -> Result<Self, String> {
        let (dir, query) = rest.split_once('?').unwrap_or((rest, ""));
        let dir = dir.strip_prefix("//").unwrap_or(dir);
        if dir.is_empty() {
            return Err("it names no directory; write embedded:DIR, as in embedded:.mutext".to_owned());
        }
        let mut directory = Self { dir: dir.into(), synced: true, fenced: true };
        for option in query.split('&').filter(|option| !option.is_empty()) {
            match option {
                "sync=full" => directory.synced = true,
                "sync=normal" => directory.synced = false,
                "fence=off" if cfg!(feature = "sabotage") => directory.fenced = false,
                other => return Err(format!("it has no option {other:?}; it has sync=full and sync=normal")),
            }
        }
        Ok(directory)
    }

    /// The same directory, however it is named.
    fn is(&self, other: &Self) -> bool {
        let full = |dir: &PathBuf| std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
        full(&self.dir) == full(&other.dir)
    }
}

impl Address {
    /// The embedded store in `dir`.
    pub fn embedded(dir: impl Into<PathBuf>) -> Self {
        Self(Engine::Embedded(Directory { dir: dir.into(), synced: true, fenced: true }))
    }

    /// The engine's name, as it names itself once it is open.
    pub(crate) fn engine(&self) -> &'static str {
        match &self.0 {
            Engine::Embedded(_) => "embedded",
            Engine::Redis(options) => options.engine(),
            #[cfg(feature = "consul")]
            Engine::Consul(_) => "consul",
            Engine::Redlock(_) => "redlock",
            Engine::Postgres(_) => "postgres",
            #[cfg(feature = "etcd")]
            Engine::Etcd(_) => "etcd",
        }
    }

    fn refuse(&self, rule: &str) -> Error {
        Error::InvalidAddress { address: self.to_string(), rule: rule.to_owned() }
    }
}

impl FromStr for Address {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let engine = match text.split_once(':') {
            None => Err("write the engine before a colon, as in embedded:.mutext".to_owned()),
            Some(("embedded", rest)) => Directory::parse(rest).map(Engine::Embedded),
            Some((
                "redis" | "rediss" | "redis+unix" | "redis+sentinel" | "rediss+sentinel" | "redis+cluster"
                | "rediss+cluster",
                _,
            )) => RedisOptions::parse(text).map(|options| Engine::Redis(Box::new(options))),
            Some(("redlock" | "redlocks", _)) => {
                RedlockOptions::parse(text).map(|options| Engine::Redlock(Box::new(options)))
            }
            Some(("postgres" | "postgresql", _)) => {
                PostgresOptions::parse(text).map(|options| Engine::Postgres(Box::new(options)))
            }
            #[cfg(feature = "etcd")]
            Some(("etcd" | "etcds", _)) => EtcdOptions::parse(text).map(|options| Engine::Etcd(Box::new(options))),
            #[cfg(feature = "consul")]
            Some(("consul" | "consuls", _)) => {
                ConsulOptions::parse(text).map(|options| Engine::Consul(Box::new(options)))
            }
            Some((scheme, _)) if KNOWN_ELSEWHERE.contains(&scheme) => {
                let feature = ["etcd", "consul"].into_iter().find(|feature| scheme.starts_with(feature));
                let remedy =
                    feature.map(|feature| format!("build it with the feature {feature}; ")).unwrap_or_default();
                Err(format!("this build has no engine for {scheme}:; {remedy}{}", known()))
            }
            Some((scheme, _)) => Err(format!("there is no engine named {scheme:?}; {}", known())),
        };
        engine.map(Self).map_err(|rule| Error::InvalidAddress { address: without_password(text), rule })
    }
}

impl fmt::Display for Address {
    /// Without any password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Engine::Embedded(directory) => {
                write!(f, "embedded:{}", directory.dir.display())?;
                match (directory.synced, directory.fenced) {
                    (true, true) => Ok(()),
                    (false, true) => f.write_str("?sync=normal"),
                    (true, false) => f.write_str("?fence=off"),
                    (false, false) => f.write_str("?sync=normal&fence=off"),
                }
            }
            Engine::Redis(options) => options.fmt(f),
            #[cfg(feature = "consul")]
            Engine::Consul(options) => options.fmt(f),
            Engine::Redlock(options) => options.fmt(f),
            Engine::Postgres(options) => options.fmt(f),
            #[cfg(feature = "etcd")]
            Engine::Etcd(options) => options.fmt(f),
        }
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
        match &address.0 {
            Engine::Embedded(_) => address.to_string(),
            Engine::Redis(options) => options.url(),
            #[cfg(feature = "consul")]
            Engine::Consul(options) => options.url(),
            Engine::Redlock(options) => options.url(),
            Engine::Postgres(options) => options.url().to_owned(),
            #[cfg(feature = "etcd")]
            Engine::Etcd(options) => options.url(),
        }
    }
}

/// An address that could not be read, as it may be shown: whatever stands between the slashes and the last `@` is
/// hidden, and so is whatever an option with a secret's name says.
fn without_password(text: &str) -> String {
    let text = match (text.find("//"), text.rfind('@')) {
        (Some(start), Some(at)) if start + 2 <= at => format!("{}//***{}", &text[..start], &text[at..]),
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
    let (Engine::Embedded(documents), Engine::Embedded(own)) = (&store.0, &locks.0) else { return None };
    if !documents.is(own) {
        return None;
    }
    let opened = documents.options().open(deadline).await;
    Some(opened.map(|opened| Engines { store: opened.store, locks: opened.locks }).map_err(Error::from))
}

async fn open_store(store: &Address, deadline: Deadline) -> Result<Arc<dyn DocumentStore>, Error> {
    Ok(match &store.0 {
        Engine::Embedded(documents) => documents.options().open(deadline).await?.store,
        Engine::Postgres(options) => options.open(deadline).await?,
        Engine::Redis(_) | Engine::Redlock(_) => {
            return Err(store.refuse(
                "Redis holds locks, not documents; name it with --locks, and a store that holds documents with --store",
            ));
        }
        #[cfg(feature = "etcd")]
        Engine::Etcd(_) => {
            return Err(store.refuse(
                "etcd holds locks, not documents; name it with --locks, and a store that holds documents with --store",
            ));
        }
        #[cfg(feature = "consul")]
        Engine::Consul(_) => {
            return Err(store.refuse(
                "Consul holds locks, not documents; name it with --locks, and a store that holds documents with --store",
            ));
        }
    })
}

pub(crate) async fn open_locks(
    locks: &Address,
    epochs: Arc<dyn EpochSource>,
    deadline: Deadline,
) -> Result<Arc<dyn LockService>, EngineError> {
    Ok(match &locks.0 {
        Engine::Embedded(locks) => locks.options().open_locks(epochs, deadline).await?,
        Engine::Redis(options) => options.open(epochs, deadline).await?,
        #[cfg(feature = "etcd")]
        Engine::Etcd(options) => options.open(epochs, deadline).await?,
        #[cfg(feature = "consul")]
        Engine::Consul(options) => options.open(epochs, deadline).await?,
        Engine::Redlock(options) => options.open(epochs, deadline).await?,
        Engine::Postgres(options) => options.open_locks(epochs, deadline).await?,
    })
}

/// Epochs for locks that are only looked at, while their documents are out of reach: there are none.
#[derive(Debug)]
struct NoEpochs(String);

#[async_trait]
impl EpochSource for NoEpochs {
    async fn mint_epoch(&self, _: &ContextName, _: Deadline) -> Result<u64, EngineError> {
        let remedy = "epochs come from the documents' store, which is out of reach";
        Err(EngineError::new(self.0.as_str(), TroubleKind::Unavailable, remedy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
