//! What every lock engine promises.

pub mod expiry;
pub mod granting;
pub mod tokens;
pub mod waiting;
