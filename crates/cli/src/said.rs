//! What a change says of itself, beside what it changes.

use std::time::Duration;

use clap::Args;
use mutext::{Expiry, IdempotencyKey, Revision};

use crate::config_file::parse_duration;

/// What every edit may say of itself.
#[derive(Debug, Clone, Args)]
pub(crate) struct Said {
    /// Only on exactly this revision; else what is there is changed, whoever wrote it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    if_revision: Option<u64>,
    #[command(flatten)]
    pub(crate) why: Why,
    /// How long the document stays from now on, as in 2h; or never, for always
    #[arg(long, value_name = "DURATION", value_parser = expiry)]
    expires: Option<Expiry>,
}

/// Why a change is made, and which one it is.
#[derive(Debug, Clone, Args)]
pub(crate) struct Why {
    /// Why, for the history
    #[arg(long, short, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// Names this change, so that a retry after a lost answer happens once
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<IdempotencyKey>,
}

impl Said {
    pub(crate) fn at(&self) -> Option<Revision> {
        self.if_revision.map(Revision)
    }

    pub(crate) fn expiry(&self) -> Expiry {
        self.expires.unwrap_or_default()
    }
}

/// The shortest time that a document can be given.
const EXPIRY_MIN: Duration = Duration::from_secs(1);
/// The longest: ten years, within which every store can name the moment.
const EXPIRY_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// How long a document stays.
pub(crate) fn expiry(text: &str) -> Result<Expiry, String> {
    if text == "never" {
        return Ok(Expiry::Never);
    }
    let after = parse_duration(text).map_err(|error| format!("{error}; or write never"))?;
    if (EXPIRY_MIN..=EXPIRY_MAX).contains(&after) {
        Ok(Expiry::After(after))
    } else {
        Err("give 1s to ten years, or never".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_a_duration_or_never() {
        assert_eq!(expiry("2h"), Ok(Expiry::After(Duration::from_secs(7200))));
        assert_eq!(expiry("never"), Ok(Expiry::Never));
        for text in ["", "5", "0s", "11y", "forever"] {
            assert!(expiry(text).is_err(), "{text}");
        }
    }
}
