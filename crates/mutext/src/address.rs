//! Addresses of engines: `embedded:.mutext`. The one room that names the engines.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use mutext_contract::{Deadline, DocumentStore, LockService};
use mutext_embedded::EmbeddedOptions;
use serde::{Deserialize, Serialize};

use crate::Error;

/// The engines that other builds have, so that their addresses are recognised and refused by name.
const KNOWN_ELSEWHERE: [&str; 8] =
    ["postgres", "postgresql", "redis", "rediss", "redis+sentinel", "redis+cluster", "redlock", "etcd"];

/// Where documents or locks lie.
///
/// `embedded:DIR` is a directory on this machine, made where there is none; `?sync=normal` after it acknowledges
/// commits before the disk has them.
///
/// ```
/// use mutext::Address;
/// let address: Address = "embedded:.mutext".parse()?;
/// assert_eq!(address.to_string(), "embedded:.mutext");
/// assert!("redis://localhost".parse::<Address>().unwrap_err().to_string().contains("embedded:"));
/// # Ok::<(), mutext::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    dir: PathBuf,
    synced: bool,
    fenced: bool,
}

impl Address {
    /// The embedded store in `dir`.
    pub fn embedded(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), synced: true, fenced: true }
    }

    fn options(&self) -> EmbeddedOptions {
        let options = EmbeddedOptions::new(&self.dir).synced(self.synced);
        #[cfg(feature = "sabotage")]
        if !self.fenced {
            return options.without_fence_check();
        }
        options
    }
}

impl FromStr for Address {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |rule: String| Err(Error::InvalidAddress { address: without_password(text), rule });
        let Some((scheme, rest)) = text.split_once(':') else {
            return refuse("write the engine before a colon, as in embedded:.mutext".to_owned());
        };
        if scheme != "embedded" {
            let known = if KNOWN_ELSEWHERE.contains(&scheme) || scheme == "consul" {
                format!("this build has no engine for {scheme}:")
            } else {
                format!("there is no engine named {scheme:?}")
            };
            return refuse(format!("{known}; it has embedded:DIR"));
        }
        let (dir, query) = rest.split_once('?').unwrap_or((rest, ""));
        let dir = dir.strip_prefix("//").unwrap_or(dir);
        if dir.is_empty() {
            return refuse("it names no directory; write embedded:DIR, as in embedded:.mutext".to_owned());
        }
        let mut address = Self::embedded(dir);
        for option in query.split('&').filter(|option| !option.is_empty()) {
            match option {
                "sync=full" => address.synced = true,
                "sync=normal" => address.synced = false,
                "fence=off" if cfg!(feature = "sabotage") => address.fenced = false,
                other => return refuse(format!("it has no option {other:?}; it has sync=full and sync=normal")),
            }
        }
        Ok(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "embedded:{}", self.dir.display())?;
        match (self.synced, self.fenced) {
            (true, true) => Ok(()),
            (false, true) => f.write_str("?sync=normal"),
            (true, false) => f.write_str("?fence=off"),
            (false, false) => f.write_str("?sync=normal&fence=off"),
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
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

/// An address as it may be shown: whatever stands between the slashes and the last `@` is hidden.
fn without_password(text: &str) -> String {
    match (text.find("//"), text.rfind('@')) {
        (Some(start), Some(at)) if start + 2 <= at => format!("{}//***{}", &text[..start], &text[at..]),
        _ => text.to_owned(),
    }
}

/// The two engines behind a pair of addresses.
pub(crate) struct Engines {
    pub(crate) store: Arc<dyn DocumentStore>,
    pub(crate) locks: Arc<dyn LockService>,
}

/// Opens documents and locks; one address for both opens once.
pub(crate) async fn open(store: &Address, locks: &Address, deadline: Deadline) -> Result<Engines, Error> {
    let opened = store.options().open(deadline).await?;
    let documents: Arc<dyn DocumentStore> = opened.store;
    let full = |dir: &PathBuf| std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
    if full(&store.dir) == full(&locks.dir) {
        return Ok(Engines { store: documents, locks: opened.locks });
    }
    let epochs = Arc::new(Arc::clone(&documents));
    let locks: Arc<dyn LockService> = locks.options().open_locks(epochs, deadline).await?;
    Ok(Engines { store: documents, locks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let error = "postgres://user:secret@host/db".parse::<Address>().unwrap_err().to_string();
        assert!(!error.contains("secret") && error.contains("postgres"), "{error}");
    }

    #[test]
    fn an_address_survives_its_text() {
        for text in ["embedded:.mutext", "embedded:/var/lib/mutext?sync=normal"] {
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
            ("redis://localhost", "no engine for redis:"),
            ("file:x", "no engine named"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
