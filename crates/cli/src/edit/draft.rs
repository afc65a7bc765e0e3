//! The file that a person's editor works on. It outlives everything but its own success.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mutext::DocumentPath;

use crate::error::CliError;

/// A directory of its own, with the draft in it. It stays unless it is discarded: also where this process is killed.
#[derive(Debug)]
pub(super) struct Draft {
    dir: PathBuf,
    file: PathBuf,
    /// How many earlier versions are kept beside it.
    kept: u32,
}

/// A longer name than this is none that every file system takes.
const NAME_BYTES_MAX: usize = 200;

impl Draft {
    /// A draft of the document at `path`, readable to nobody else.
    pub(super) fn new(path: &DocumentPath, text: &str) -> Result<Self, CliError> {
        let base = base();
        let mut builder = tempfile::Builder::new();
        builder.prefix("mutext-edit-").permissions(fs::Permissions::from_mode(0o700));
        let made = builder.tempdir_in(&base).map(tempfile::TempDir::keep);
        let dir = made.map_err(|source| trouble(&base, source))?;
        // Its own name, by which an editor knows what it is.
        let name = path.as_str().rsplit('/').next().unwrap_or_default();
        let name = if name.len() > NAME_BYTES_MAX { "document" } else { name };
        let draft = Self { file: dir.join(name), dir, kept: 0 };
        draft.write(text)?;
        Ok(draft)
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn write(&self, text: &str) -> Result<(), CliError> {
        fs::write(&self.file, text).map_err(|source| trouble(&self.file, source))
    }

    /// What is in it; at most one byte more than `limit`.
    pub(super) fn read(&self, limit: usize) -> Result<Vec<u8>, CliError> {
        use io::Read;
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        let mut bytes = Vec::new();
        let read = fs::File::open(&self.file).and_then(|file| file.take(most).read_to_end(&mut bytes));
        read.map(|_| bytes).map_err(|source| trouble(&self.file, source))
    }

    /// Whether the editor has taken it away.
    pub(super) fn is_gone(&self) -> bool {
        !self.file.exists()
    }

    /// Keeps what was typed so far under a name of its own, before the draft is written anew.
    pub(super) fn keep(&mut self) -> Result<PathBuf, CliError> {
        self.kept += 1;
        let copy = self.copy();
        fs::copy(&self.file, &copy).map_err(|source| trouble(&copy, source))?;
        Ok(copy)
    }

    /// The last version that was kept, where one was.
    pub(super) fn kept(&self) -> Option<PathBuf> {
        (self.kept > 0).then(|| self.copy())
    }

    fn copy(&self) -> PathBuf {
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        self.dir.join(format!("{name}.yours-{}", self.kept))
    }

    /// What was typed is in the document, or nothing was: the draft goes.
    pub(super) fn discard(self) {
        // One that cannot be removed is no harm.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Where drafts lie: not where a restart of the machine sweeps, unless that is asked for.
fn base() -> PathBuf {
    let lasting = || Some(PathBuf::from("/var/tmp")).filter(|dir| dir.is_dir());
    let asked = std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    asked.or_else(lasting).unwrap_or_else(std::env::temp_dir)
}

fn trouble(path: &Path, source: io::Error) -> CliError {
    CliError::Io {
        what: format!("the draft {} cannot be read or written", path.display()),
        remedy: "nothing was changed in the context; name a directory that can be written in TMPDIR",
        source,
    }
}
