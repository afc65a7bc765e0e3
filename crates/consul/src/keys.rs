//! Names of keys.

use mutext_contract::ContextName;
use mutext_reach::encoded;

/// Names of keys, all below one prefix.
#[derive(Debug)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// A context's lock table.
    pub(crate) fn table(&self, context: &ContextName) -> String {
        format!("{}/locks/{}", self.prefix, encoded(context.as_str()))
    }

    /// All processes.
    pub(crate) fn homes(&self) -> String {
        format!("{}/home/", self.prefix)
    }

    /// All of a process: its sign of life and its mailboxes.
    pub(crate) fn home(&self, home: &str) -> String {
        format!("{}/home/{home}/", self.prefix)
    }

    /// A process's sign of life.
    pub(crate) fn alive(&self, home: &str) -> String {
        format!("{}/home/{home}/alive", self.prefix)
    }

    /// A process's mailbox for one context.
    pub(crate) fn bell(&self, home: &str, context: &ContextName) -> String {
        format!("{}/home/{home}/bell/{}", self.prefix, encoded(context.as_str()))
    }

    /// What the name of every mailbox for this context ends in.
    pub(crate) fn bell_end(context: &ContextName) -> String {
        format!("/bell/{}", encoded(context.as_str()))
    }
}
