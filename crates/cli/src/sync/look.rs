//! Looking through a folder: which texts are in it, and what is left out, and why.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;

use mutext::DocumentPath;
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::digest::Digest;
use super::folder::{FileError, Folder, TEMPORARY, is_copy, join, open_dir, read};

/// A look at the folder.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Texts, by the paths of their documents.
    pub(super) files: BTreeMap<DocumentPath, Digest>,
    /// What is not synchronised, and why: as paths in the folder.
    pub(super) left: BTreeMap<String, String>,
    /// What is ignored without further ado: links and the like, whose number alone is told.
    pub(super) ignored: Vec<String>,
    /// Copies of what could not be merged, which wait for somebody.
    pub(super) copies: Vec<String>,
}

impl Look {
    /// Whether something at `path` or above it cannot be looked at, so that its document stays as it is.
    pub(super) fn hides(&self, path: &DocumentPath) -> bool {
        let path = path.as_str();
        let above = path.match_indices('/').map(|(at, _)| path.get(..at).unwrap_or_default());
        above.chain([path]).any(|part| self.left.contains_key(part) || self.ignored.iter().any(|other| other == part))
    }
}

/// What a file was when its digest was taken; one that still is so is not read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What came of reading files before: their digests, or why they are left.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<DocumentPath, (Stamp, Result<Digest, String>)>);

impl Folder {
    /// More files than this are no folder for agents, but a mistake in the folder's name.
    const FILES_MAX: usize = 100_000;
    const DEPTH_MAX: usize = 64;

    /// What is in the folder now.
    pub(super) fn look(&self, known: &mut Known) -> Result<Look, FileError> {
        let mut look = Look::default();
        let mut seen = Known::default();
        self.look_into(&self.root, "", 0, known, &mut seen, &mut look)?;
        *known = seen;
        Ok(look)
    }

    fn look_into(
        &self,
        dir: &impl AsFd,
        above: &str,
        depth: usize,
        known: &Known,
        seen: &mut Known,
        look: &mut Look,
    ) -> Result<(), FileError> {
        for entry in rustix::fs::Dir::read_from(dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                let name = entry.file_name().to_string_lossy();
                look.left.insert(join(above, &name), "its name is not UTF-8 text; rename it".to_owned());
                continue;
            };
            if name.starts_with('.') {
                if name.starts_with(TEMPORARY) {
                    let why =
                        "it is left by a sync that was killed: see whether anything in it is missing, then remove it";
                    look.left.insert(join(above, name), why.to_owned());
                }
                continue;
            }
            let path = join(above, name);
            let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => {
                    look.left.insert(path, FileError::from(errno).to_string());
                    continue;
                }
            };
            match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
                rustix::fs::FileType::Directory if self.is_excepted(&path) => {}
                rustix::fs::FileType::Directory => {
                    let inner =
                        if depth < Self::DEPTH_MAX { open_dir(dir, name) } else { Err(Errno::NAMETOOLONG.into()) };
                    let looked = inner.and_then(|inner| self.look_into(&inner, &path, depth + 1, known, seen, look));
                    if let Err(error) = looked {
                        look.left.insert(path, error.to_string());
                    }
                }
                rustix::fs::FileType::RegularFile if is_copy(name) => look.copies.push(path),
                rustix::fs::FileType::RegularFile => self.look_at(dir, name, path, &stat, known, seen, look),
                _ => look.ignored.push(path),
            }
            if look.files.len() > Self::FILES_MAX {
                let what = format!("it holds more than {} files; name a smaller folder", Self::FILES_MAX);
                return Err(io::Error::other(what).into());
            }
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the leaf of a walk, which carries all that the walk carries")]
    fn look_at(
        &self,
        dir: &impl AsFd,
        name: &str,
        path: String,
        stat: &rustix::fs::Stat,
        known: &Known,
        seen: &mut Known,
        look: &mut Look,
    ) {
        let document = match DocumentPath::new(path.as_str()) {
            Ok(document) => document,
            Err(error) => {
                look.left.insert(path, error.to_string());
                return;
            }
        };
        let stamp = Stamp::of(stat);
        let before = known.0.get(&document).filter(|(before, _)| *before == stamp && stamp.is_old());
        let outcome = match before {
            Some((_, outcome)) => outcome.clone(),
            None => match read(dir, name, self.limit) {
                Ok(text) => Ok(Digest::of(&text)),
                // It went between the two looks at it.
                Err(FileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => return,
                Err(error) => Err(error.to_string()),
            },
        };
        match &outcome {
            Ok(digest) => _ = look.files.insert(document.clone(), *digest),
            Err(why) => _ = look.left.insert(path, why.clone()),
        }
        seen.0.insert(document, (stamp, outcome));
    }

    fn is_excepted(&self, path: &str) -> bool {
        self.except.contains(&self.path().join(path))
    }
}

impl Stamp {
    /// A file may be written twice within one tick of its clock: one that was changed just now is read again.
    const TICK_SECONDS: i64 = 2;

    #[allow(
        clippy::cast_possible_wrap,
        clippy::cast_lossless,
        clippy::unnecessary_cast,
        clippy::useless_conversion,
        reason = "each system has numbers of its own width here, and they are only compared"
    )]
    fn of(stat: &rustix::fs::Stat) -> Self {
        Self {
            inode: stat.st_ino as u64,
            size: stat.st_size as i64,
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        }
    }

    fn is_old(self) -> bool {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(now.as_secs()).is_ok_and(|now| now - self.changed.0 > Self::TICK_SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path(), Vec::new(), 100).unwrap();
        (dir, folder)
    }

    fn path(text: &str) -> DocumentPath {
        DocumentPath::new(text).unwrap()
    }

    #[test]
    fn a_look_sees_texts_and_says_what_it_leaves() {
        let (dir, folder) = folder();
        fs::create_dir(dir.path().join("sub")).unwrap();
        for (name, bytes) in [
            ("plan.md", &b"plan"[..]),
            ("sub/a", b"a"),
            (".hidden", b"x"),
            ("binary", b"ab\xff"),
            ("big", &[b'x'; 101]),
            ("con\ntrol", b"x"),
            ("plan.md.conflict-3", b"x"),
            ("plan.md.conflict-3-2", b"x"),
        ] {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        symlink("/etc", dir.path().join("link")).unwrap();
        let look = folder.look(&mut Known::default()).unwrap();
        let paths: Vec<&str> = look.files.keys().map(DocumentPath::as_str).collect();
        assert_eq!(paths, ["plan.md", "sub/a"]);
        assert_eq!(look.files[&path("plan.md")], Digest::of("plan"));
        assert!(look.left["binary"].contains("byte 2") && look.left["big"].contains("100 bytes"), "{look:?}");
        assert!(look.left["con\ntrol"].contains("control character"), "{look:?}");
        assert_eq!((look.ignored.as_slice(), look.copies.len()), (&["link".to_owned()][..], 2));
        assert!(look.hides(&path("link/passwd")) && look.hides(&path("binary")) && !look.hides(&path("sub/b")));
    }

    #[test]
    fn what_was_read_before_is_read_again_once_it_changes() {
        let (dir, folder) = folder();
        let mut known = Known::default();
        fs::write(dir.path().join("a"), "one").unwrap();
        folder.look(&mut known).unwrap();
        fs::write(dir.path().join("a"), "two").unwrap();
        assert_eq!(folder.look(&mut known).unwrap().files[&path("a")], Digest::of("two"));
    }
}
