//! What folder and context held when they were last alike, as it is kept in the folder.

use std::collections::BTreeMap;

use mutext::{ContextName, DocumentPath, Revision};
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::folder::{FileError, Folder, STATE};
use super::plan::Base;
use crate::error::CliError;

/// As it is written down.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    format: u32,
    store: String,
    context: ContextName,
    files: BTreeMap<DocumentPath, WrittenBase>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenBase {
    revision: Revision,
    sha256: Digest,
}

/// The last common state, and whose it is.
#[derive(Debug)]
pub(super) struct State {
    store: String,
    context: ContextName,
    pub(super) bases: BTreeMap<DocumentPath, Base>,
}

impl State {
    const FORMAT: u32 = 1;
    const BYTES_MAX: usize = 256 * 1024 * 1024;

    /// What the folder says of itself; a folder that says nothing has not been synchronised before.
    pub(super) fn read(folder: &Folder, store: String, context: &ContextName) -> Result<Self, CliError> {
        let file = folder.path().join(STATE);
        let file = file.display();
        let refuse = |what: String| {
            CliError::input(format!(
                "{file} {what}; to begin anew, remove it: files and documents that differ are then both kept"
            ))
        };
        let text =
            folder.read_own(STATE, Self::BYTES_MAX).map_err(|error| refuse(format!("cannot be read: {error}")))?;
        let Some(text) = text else { return Ok(Self { store, context: context.clone(), bases: BTreeMap::new() }) };
        let written: Written =
            serde_json::from_str(&text).map_err(|error| refuse(format!("is not what sync has written: {error}")))?;
        if written.format != Self::FORMAT {
            return Err(refuse(format!("has format {}, and this version knows {}", written.format, Self::FORMAT)));
        }
        if (&written.store, &written.context) != (&store, context) {
            let Written { store: other_store, context: other, .. } = written;
            return Err(refuse(format!(
                "belongs to context {other} at {other_store}, not to {context} at {store}: name that one, or another folder"
            )));
        }
        let base = |WrittenBase { revision, sha256 }| Base { revision, digest: sha256 };
        let bases = written.files.into_iter().map(|(path, written)| (path, base(written))).collect();
        Ok(Self { store, context: context.clone(), bases })
    }

    /// Writes it down, so that it is there whole or not at all.
    pub(super) fn write(&self, folder: &Folder) -> Result<(), FileError> {
        let base = |base: &Base| WrittenBase { revision: base.revision, sha256: base.digest };
        let written = Written {
            format: Self::FORMAT,
            store: self.store.clone(),
            context: self.context.clone(),
            files: self.bases.iter().map(|(path, known)| (path.clone(), base(known))).collect(),
        };
        let text = serde_json::to_string_pretty(&written).map_err(std::io::Error::from)?;
        folder.write_own(STATE, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_and_only_by_whom_it_belongs_to() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path(), Vec::new(), 100).unwrap();
        let (team, other) = (ContextName::new("team").unwrap(), ContextName::new("other").unwrap());
        let mut state = State::read(&folder, "embedded:/x".to_owned(), &team).unwrap();
        assert!(state.bases.is_empty());
        let base = Base { revision: Revision(7), digest: Digest::of("text") };
        state.bases.insert(DocumentPath::new("a/b").unwrap(), base);
        state.write(&folder).unwrap();
        let again = State::read(&folder, "embedded:/x".to_owned(), &team).unwrap();
        assert_eq!(again.bases, state.bases);
        for (store, context) in [("embedded:/y", &team), ("embedded:/x", &other)] {
            let refusal = State::read(&folder, store.to_owned(), context).unwrap_err().to_string();
            assert!(refusal.contains("belongs to context team at embedded:/x"), "{refusal}");
        }
        for text in ["{", "{\"format\": 2, \"store\": \"\", \"context\": \"team\", \"files\": {}}"] {
            folder.write_own(STATE, text).unwrap();
            let refusal = State::read(&folder, "embedded:/x".to_owned(), &team).unwrap_err().to_string();
            assert!(refusal.contains(STATE) && refusal.contains("remove it"), "{refusal}");
        }
    }
}
