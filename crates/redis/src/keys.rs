//! Names of keys and channels. All keys of a context share one hash tag, so that a context lies on one shard.

use mutext_contract::{ContextName, HolderId, LeaseId};

use crate::options::RedisOptions;

pub(crate) struct Keys {
    prefix: String,
    subject: String,
    home: String,
}

impl Keys {
    pub(crate) fn new(options: &RedisOptions) -> Self {
        let prefix = options.prefix().to_owned();
        let home = format!("{prefix}:home:{}", HolderId::random());
        Self { prefix, subject: options.to_string(), home }
    }

    /// The channel of this process: a grant is pushed there, and its subscriber is the sign that the process lives.
    pub(crate) fn home(&self) -> &str {
        &self.home
    }

    /// The server, as errors name it.
    pub(crate) fn subject(&self) -> &str {
        &self.subject
    }

    pub(crate) fn table(&self, context: &ContextName) -> String {
        format!("{}:{{{context}}}:locks", self.prefix)
    }

    pub(crate) fn queue(&self, context: &ContextName) -> String {
        format!("{}:{{{context}}}:queue", self.prefix)
    }

    /// One context's register on a node of a Redlock set.
    pub(crate) fn register(&self, context: &ContextName) -> String {
        format!("{}:{{{context}}}:register", self.prefix)
    }

    /// What is remembered of an attempt's or a lease's end.
    pub(crate) fn ended(&self, context: &ContextName, id: LeaseId) -> String {
        format!("{}:{{{context}}}:ended:{id}", self.prefix)
    }
}
