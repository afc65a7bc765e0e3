//! The scripts that run inside Redis: each decides and changes the lock table in one atomic step.

use std::sync::LazyLock;

use redis::Cmd;

/// A script and the hash that the server knows it by.
pub(crate) struct Script {
    text: String,
    hash: String,
}

impl Script {
    fn new(parts: &[&str]) -> Self {
        let text = parts.join("\n");
        // The client's own hashing, so that both sides agree.
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }

    /// The script with its keys, and room for so many words of so many bytes.
    pub(crate) fn start(&self, by_hash: bool, keys: &[String], words: usize, bytes: usize) -> Cmd {
        // Grown word by word, a command is copied many times over.
        let script = if by_hash { self.hash.len() } else { self.text.len() };
        let mut command = Cmd::with_capacity(words + keys.len() + 3, bytes + script + 16);
        if by_hash {
            command.arg("EVALSHA").arg(&self.hash);
        } else {
            command.arg("EVAL").arg(&self.text);
        }
        command.arg(keys.len());
        for key in keys {
            command.arg(key);
        }
        command
    }

    pub(crate) fn command(&self, by_hash: bool, keys: &[String], args: &[&[u8]]) -> Cmd {
        let bytes = keys.iter().map(String::len).sum::<usize>() + args.iter().map(|arg| arg.len()).sum::<usize>();
        let mut command = self.start(by_hash, keys, args.len(), bytes);
        for arg in args {
            command.arg(*arg);
        }
        command
    }
}

const NOW: &str = include_str!("scripts/now.lua");
const COMMON: &str = include_str!("scripts/common.lua");

macro_rules! scripts {
    ($($name:ident: [$($part:expr),*];)*) => {
        $(pub(crate) static $name: LazyLock<Script> = LazyLock::new(|| Script::new(&[$($part),*]));)*
    };
}

// The short way stands first, before the functions that it does not need are even made.
scripts! {
    TURNS: [
        include_str!("scripts/turn_alone.lua"), include_str!("scripts/turns_first.lua"), COMMON, include_str!("scripts/circle.lua"),
        include_str!("scripts/acquire.lua"), include_str!("scripts/release.lua"), include_str!("scripts/turns.lua")
    ];
    LEAVE: [NOW, COMMON, include_str!("scripts/leave.lua")];
    BEGIN: [NOW, COMMON, include_str!("scripts/begin.lua")];
    TEND: [NOW, COMMON, include_str!("scripts/tend.lua")];
    RENEW: [include_str!("scripts/renew.lua")];
    INSPECT: [include_str!("scripts/inspect.lua")];
    PREPARE: [include_str!("scripts/register_prepare.lua")];
    ACCEPT: [include_str!("scripts/register_accept.lua")];
    JOIN: [include_str!("scripts/register_join.lua")];
    READ: [include_str!("scripts/register_read.lua")];
}
