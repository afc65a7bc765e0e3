//! What engines share in reaching their servers: the parts of their addresses, and pauses between tries.
//!
//! What one engine's address has of its own is written in that engine, and so is what it does with a connection. Nobody
//! but engines sees this crate.

mod address;
mod pause;
mod tls;

pub use address::{Host, Secret, decoded, encoded, hosts, list, options, prefix, seconds};
pub use pause::Pause;
pub use tls::{TlsFiles, pem};
