//! Names and numbers that follow from the schema's name, the same in every process.

use mutext_contract::ContextName;
use sha2::{Digest, Sha256};

/// What the schema's name is in SQL, and what it makes of advisory locks and channels.
#[derive(Debug)]
pub(crate) struct Names {
    /// Quoted for SQL.
    pub(crate) schema: String,
    /// The channel on which commits are told.
    pub(crate) channel: String,
    /// The class of advisory locks that are the schema's own: object 0 says that somebody waits for commits, object 1
    /// that somebody sets the schema up.
    pub(crate) watch: i32,
    seed: Sha256,
}

impl Names {
    pub(crate) fn new(schema: &str) -> Self {
        let mut seed = Sha256::new();
        seed.update(b"mutext\0");
        seed.update(schema.as_bytes());
        seed.update(b"\0");
        // The option allows no quotes in it.
        Self { schema: format!("\"{schema}\""), channel: format!("mutext/{schema}"), watch: class(seed.clone()), seed }
    }

    /// The schema's name as the catalogue has it.
    pub(crate) fn plain(&self) -> &str {
        self.schema.trim_matches('"')
    }

    /// The advisory lock under which the steps of a context's locks are made. Two contexts may share one: then their
    /// steps wait for each other, and nothing else.
    pub(crate) fn lock_lane(&self, context: &ContextName) -> i64 {
        let mut hash = self.seed.clone();
        hash.update(b"locks\0");
        hash.update(context.as_str().as_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        digest.iter().take(8).fold(0, |lane, byte| (lane << 8) | i64::from(*byte))
    }

    /// The class of advisory locks that are a context's commits under way. Two contexts may share one: then a reader
    /// of one may wait for a commit of the other.
    pub(crate) fn lane(&self, context: &ContextName) -> i32 {
        let mut hash = self.seed.clone();
        hash.update(context.as_str().as_bytes());
        class(hash)
    }
}

fn class(hash: Sha256) -> i32 {
    let digest = hash.finalize();
    i32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_processes_share_does_not_change_between_versions() {
        let names = Names::new("mutext");
        let lane = names.lane(&ContextName::new("board").unwrap());
        assert_eq!((names.channel.as_str(), names.watch, lane), ("mutext/mutext", -564_239_730, -629_782_273));
    }
}
