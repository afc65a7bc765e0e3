//! The command as its users meet it: the real binary, in a directory and an environment of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_input;
mod claims;
mod documents;
mod editing;
mod edits;
mod locks;
mod monitoring;
mod nested;
mod outages;
mod past;
mod place;
mod postgres;
mod running;
mod settings;
mod sync;
