//! `embedded:DIR`: a directory on this machine.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use mutext_contract::{Deadline, DocumentStore, EngineError, EpochSource, LockService};
use mutext_embedded::EmbeddedOptions;

use super::Opens;
use crate::Error;

#[derive(Debug, Clone)]
pub(crate) struct Directory {
    dir: PathBuf,
    synced: bool,
    fenced: bool,
}

impl Directory {
    pub(crate) fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), synced: true, fenced: true }
    }

    pub(crate) fn options(&self) -> EmbeddedOptions {
        let options = EmbeddedOptions::new(&self.dir).synced(self.synced);
        #[cfg(feature = "sabotage")]
        if !self.fenced {
            return options.without_fence_check();
        }
        options
    }

    /// The same directory, however it is named.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let full = |dir: &PathBuf| std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
        full(&self.dir) == full(&other.dir)
    }
}

pub(super) fn read(text: &str) -> Result<Arc<dyn Opens>, String> {
    let rest = text.strip_prefix("embedded:").unwrap_or(text);
    let (dir, query) = rest.split_once('?').unwrap_or((rest, ""));
    let dir = dir.strip_prefix("//").unwrap_or(dir);
    if dir.is_empty() {
        return Err("it names no directory; write embedded:DIR, as in embedded:.mutext".to_owned());
    }
    let mut directory = Directory::new(dir);
    for option in query.split('&').filter(|option| !option.is_empty()) {
        match option {
            "sync=full" => directory.synced = true,
            "sync=normal" => directory.synced = false,
            "fence=off" if cfg!(feature = "sabotage") => directory.fenced = false,
            other => return Err(format!("it has no option {other:?}; it has sync=full and sync=normal")),
        }
    }
    Ok(Arc::new(directory))
}

impl fmt::Display for Directory {
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

#[async_trait]
impl Opens for Directory {
    fn engine(&self) -> &'static str {
        "embedded"
    }

    fn url(&self) -> String {
        self.to_string()
    }

    fn directory(&self) -> Option<&Directory> {
        Some(self)
    }

    async fn open_store(&self, deadline: Deadline) -> Result<Arc<dyn DocumentStore>, Error> {
        Ok(self.options().open(deadline).await?.store)
    }

    async fn open_locks(
        &self,
        epochs: Arc<dyn EpochSource>,
        deadline: Deadline,
    ) -> Result<Arc<dyn LockService>, EngineError> {
        Ok(self.options().open_locks(epochs, deadline).await?)
    }
}
