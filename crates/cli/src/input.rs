//! What commands are given to write: an argument, standard input or a file, of a limited size.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use mutext::{Content, DocumentPath, Kind};
use serde::de::DeserializeOwned;

use crate::error::CliError;

/// Where a document's content comes from.
pub(crate) enum Input<'a> {
    Argument(String),
    Standard,
    File(&'a Path),
}

impl<'a> Input<'a> {
    pub(crate) fn of(text: Option<String>, file: Option<&'a Path>) -> Self {
        match (text, file) {
            (_, Some(file)) => Self::File(file),
            (Some(text), None) if text != "-" => Self::Argument(text),
            _ => Self::Standard,
        }
    }

    /// Whether it is what another program wrote, perhaps nothing at all.
    pub(crate) const fn is_piped(&self) -> bool {
        matches!(self, Self::Standard | Self::File(_))
    }

    /// What it is called in a message.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Argument(_) => "the argument TEXT".to_owned(),
            Self::Standard => "standard input".to_owned(),
            Self::File(path) => format!("file {}", path.display()),
        }
    }

    /// As what `path` is to hold.
    pub(crate) fn content(self, path: &DocumentPath, kind: Kind, limit: usize) -> Result<Content, CliError> {
        let name = self.name();
        let text = self.text(path, limit)?;
        match kind {
            Kind::Text => Ok(Content::text(text)),
            Kind::Json => Content::parse_json(text).map_err(|error| {
                CliError::input(format!("{name} for {path}: {error}; correct it, or store it with --type text"))
            }),
        }
    }

    /// As text, of which no document may hold more than `limit` bytes.
    pub(crate) fn text(self, path: &DocumentPath, limit: usize) -> Result<String, CliError> {
        let name = self.name();
        let bytes = self.read(limit)?;
        if bytes.len() > limit {
            return Err(CliError::input(format!(
                "document {path} would have more than {limit} bytes, the limit, from {name}: split it, or raise \
                 document_bytes_max in the config file; nothing was changed"
            )));
        }
        utf8(bytes, &name)
    }

    /// As JSON that says what is to be done, of at most `limit` bytes.
    pub(crate) fn json<T: DeserializeOwned>(self, what: &str, limit: usize) -> Result<T, CliError> {
        let name = self.name();
        let bytes = self.read(limit)?;
        if bytes.len() > limit {
            return Err(CliError::input(format!(
                "{name} has more than {limit} bytes, the limit for {what}: split it; nothing was changed"
            )));
        }
        let text = utf8(bytes, &name)?;
        serde_json::from_str(&text)
            .map_err(|error| CliError::input(format!("{name} is not {what}: {error}; nothing was changed")))
    }

    /// At most one byte more than the limit: whoever never stops writing does not fill the memory.
    fn read(self, limit: usize) -> Result<Vec<u8>, CliError> {
        let what = format!("{} cannot be read", self.name());
        let mut bytes = Vec::new();
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        let outcome = match self {
            Self::Argument(text) => return Ok(text.into_bytes()),
            Self::Standard => io::stdin().lock().take(most).read_to_end(&mut bytes),
            Self::File(path) => File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)),
        };
        let remedy = "nothing was changed; name a file that can be read";
        outcome.map(|_| bytes).map_err(|source| CliError::Io { what, remedy, source })
    }
}

/// Text, or where it is none.
pub(crate) fn utf8(bytes: Vec<u8>, name: &str) -> Result<String, CliError> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        CliError::input(format!(
            "{name} is not UTF-8 text at byte {at}; documents hold UTF-8 text or JSON: convert it first; nothing was \
             changed"
        ))
    })
}

/// What a document is by its name.
pub(crate) fn kind_of(path: &DocumentPath) -> Kind {
    let is_json = Path::new(path.as_str()).extension().is_some_and(|extension| extension == "json");
    if is_json { Kind::Json } else { Kind::Text }
}
