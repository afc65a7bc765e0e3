//! A folder of text files: looked through, read, and written so that nothing of somebody else's is ever lost.
//!
//! Every step goes through the directories' own handles and follows no link, so that neither a link nor a `..` leads
//! out of the folder. A file takes another's place by an exchange of the two, and what comes out of the exchange is
//! looked at: where it is not what was to be replaced, the exchange is undone.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use mutext::DocumentPath;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::digest::Digest;

/// What was last synchronised, hidden in the folder.
pub(super) const STATE: &str = ".mutext-sync.json";
const LOCK: &str = ".mutext-sync.lock";
/// Files that are about to take another's place.
pub(super) const TEMPORARY: &str = ".mutext-sync-tmp-";
/// What stands between a file's name and a number, in a copy of what could not be merged.
const COPY: &str = ".conflict-";

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// Somebody has written it in between; the next look will see that.
    #[error("it was changed meanwhile; the next sync sees to it")]
    Changed,
    /// There is something of that name.
    #[error("something else is in its place, perhaps its own name in other letters; move that away")]
    InTheWay,
    /// It is a link, or one of its directories is, or is none.
    #[error("a link, or something that is neither a file nor a directory, is in the way; links are not followed")]
    NotAFile,
    /// It is too large.
    #[error("it has more than {0} bytes, the limit: split it, or raise document_bytes_max")]
    TooLarge(usize),
    /// It is no text.
    #[error("it is not UTF-8 text at byte {0}; documents hold UTF-8 text or JSON")]
    NotText(usize),
    /// The system refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl From<Errno> for FileError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::LOOP | Errno::NOTDIR | Errno::ISDIR | Errno::MLINK | Errno::NXIO => Self::NotAFile,
            Errno::EXIST => Self::InTheWay,
            other => Self::Io(other.into()),
        }
    }
}

/// A folder that is open, for as long as it is in use.
#[derive(Debug)]
pub(super) struct Folder {
    root: OwnedFd,
    path: PathBuf,
    /// Not looked into: where the engines have their own files.
    except: Vec<PathBuf>,
    limit: usize,
}

/// The only one that synchronises the folder; others are kept away until it is dropped or its process ends.
#[derive(Debug)]
pub(super) struct Alone {
    _file: OwnedFd,
}

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

    pub(super) fn open(path: &Path, except: Vec<PathBuf>, limit: usize) -> io::Result<Self> {
        let root = rustix::fs::open(path, DIRECTORY.difference(OFlags::NOFOLLOW), Mode::empty())?;
        let path = path.canonicalize()?;
        Ok(Self { root, path, except, limit })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps others away; none where another one does.
    pub(super) fn alone(&self) -> Result<Option<Alone>, FileError> {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.root, LOCK, flags, Mode::from_raw_mode(0o666))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Alone { _file: file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

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
        self.except.contains(&self.path.join(path))
    }

    /// What the file at `path` holds.
    pub(super) fn read(&self, path: &DocumentPath) -> Result<String, FileError> {
        let (dir, name) = self.parent(path.as_str(), false)?;
        read(&dir, name, self.limit)
    }

    /// A file of the folder's own, such as its state; none where there is none.
    pub(super) fn read_own(&self, name: &str, limit: usize) -> Result<Option<String>, FileError> {
        match read(&self.root, name, limit) {
            Err(FileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    /// Writes a file of the folder's own.
    pub(super) fn write_own(&self, name: &str, text: &str) -> Result<(), FileError> {
        let temporary = Temporary::write(&self.root, text, None)?;
        rustix::fs::renameat(&self.root, &temporary.name, &self.root, name)?;
        temporary.done();
        Ok(rustix::fs::fsync(&self.root)?)
    }

    /// Puts `text` in the place of a file that holds `over`, or of no file.
    pub(super) fn write(&self, path: &DocumentPath, over: Option<Digest>, text: &str) -> Result<(), FileError> {
        let (dir, name) = self.parent(path.as_str(), true)?;
        let Some(over) = over else {
            let temporary = Temporary::write(&dir, text, None)?;
            temporary.becomes(name)?;
            return Ok(rustix::fs::fsync(&dir)?);
        };
        let stat = match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Err(FileError::Changed),
            stat => stat?,
        };
        let temporary = Temporary::write(&dir, text, Some(Mode::from_raw_mode(stat.st_mode & 0o777)))?;
        match rustix::fs::renameat_with(&dir, &temporary.name, &dir, name, RenameFlags::EXCHANGE) {
            Ok(()) => temporary.came_out(name, over, text, self.limit)?,
            Err(Errno::NOENT) => return Err(FileError::Changed),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                // A file system that cannot exchange: the look and the rename are two steps.
                if Digest::of(&read(&dir, name, self.limit)?) != over {
                    return Err(FileError::Changed);
                }
                rustix::fs::renameat(&dir, &temporary.name, &dir, name)?;
                temporary.done();
            }
            Err(errno) => return Err(errno.into()),
        }
        Ok(rustix::fs::fsync(&dir)?)
    }

    /// Deletes a file that holds `was`, and directories that are empty then.
    pub(super) fn delete(&self, path: &DocumentPath, was: Digest) -> Result<(), FileError> {
        let (dir, name) = self.parent(path.as_str(), false)?;
        let aside = temporary_name();
        match rename_new(&dir, name, &aside) {
            Err(FileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Err(FileError::Changed),
            renamed => renamed?,
        }
        match read(&dir, &aside, self.limit) {
            Ok(text) if Digest::of(&text) == was => rustix::fs::unlinkat(&dir, &aside, AtFlags::empty())?,
            // Somebody has written it: it goes back, beside whatever has taken its place meanwhile.
            _ => {
                if rename_new(&dir, &aside, name).is_err() {
                    beside(&dir, &aside, name, None)?;
                }
                return Err(FileError::Changed);
            }
        }
        rustix::fs::fsync(&dir)?;
        let mut above = path.as_str();
        while let Some((parent, _)) = above.rsplit_once('/') {
            let Ok((dir, name)) = self.parent(parent, false) else { break };
            if rustix::fs::unlinkat(&dir, name, AtFlags::REMOVEDIR).is_err() {
                break;
            }
            above = parent;
        }
        Ok(())
    }

    /// Keeps `text` beside the file at `path`; the copy's name, as a path in the folder.
    pub(super) fn keep_beside(&self, path: &DocumentPath, text: &str, revision: u64) -> Result<String, FileError> {
        let (dir, name) = self.parent(path.as_str(), true)?;
        let mut copy = format!("{name}{COPY}{revision}");
        // A sync that was killed between the two may have kept it already.
        if !read(&dir, &copy, self.limit).is_ok_and(|kept| kept == text) {
            let temporary = Temporary::write(&dir, text, None)?;
            copy = beside(&dir, &temporary.name, name, Some(revision))?;
            temporary.done();
            rustix::fs::fsync(&dir)?;
        }
        Ok(path.as_str().rsplit_once('/').map_or_else(|| copy.clone(), |(above, _)| join(above, &copy)))
    }

    /// The directory of `path`, and its name there. Each step is taken from the directory before, and follows no link.
    fn parent<'a>(&self, path: &'a str, make: bool) -> Result<(OwnedFd, &'a str), FileError> {
        let mut dir = open_dir(&self.root, ".")?;
        let Some((above, name)) = path.rsplit_once('/') else { return Ok((dir, path)) };
        for segment in above.split('/') {
            if make {
                match rustix::fs::mkdirat(&dir, segment, Mode::from_raw_mode(0o777)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            dir = open_dir(&dir, segment)?;
        }
        Ok((dir, name))
    }
}

/// Whether a file of this name is a copy of what could not be merged.
pub(super) fn is_copy(name: &str) -> bool {
    let Some((before, number)) = name.rsplit_once(COPY) else { return false };
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    !before.is_empty() && number.splitn(2, '-').all(digits)
}

/// Whether the folder keeps documents of this path to itself, or the context does.
pub(super) fn is_unfit(path: &DocumentPath) -> bool {
    path.as_str().split('/').any(|segment| segment.starts_with('.')) || is_copy(path.as_str())
}

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn open_dir(dir: &impl AsFd, name: &str) -> Result<OwnedFd, FileError> {
    Ok(rustix::fs::openat(dir, name, DIRECTORY, Mode::empty())?)
}

fn join(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}/{name}") }
}

/// A regular file's text. Neither a link nor a pipe is opened for good.
fn read(dir: &impl AsFd, name: &str, limit: usize) -> Result<String, FileError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(FileError::NotAFile);
    }
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(FileError::TooLarge(limit));
    }
    String::from_utf8(bytes).map_err(|error| FileError::NotText(error.utf8_error().valid_up_to()))
}

fn temporary_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{TEMPORARY}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Renames to a name that nothing has.
fn rename_new(dir: &OwnedFd, from: &str, to: &str) -> Result<(), FileError> {
    match rustix::fs::renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            rustix::fs::linkat(dir, from, dir, to, AtFlags::empty())?;
            Ok(rustix::fs::unlinkat(dir, from, AtFlags::empty())?)
        }
        renamed => Ok(renamed?),
    }
}

/// Renames to the first free name for a copy of `name`.
fn beside(dir: &OwnedFd, from: &str, name: &str, revision: Option<u64>) -> Result<String, FileError> {
    let mut copy = format!("{name}{COPY}{}", revision.unwrap_or(0));
    for number in 2.. {
        match rename_new(dir, from, &copy) {
            Err(FileError::InTheWay) if number < 10_000 => {
                copy = format!("{name}{COPY}{}-{number}", revision.unwrap_or(0));
            }
            renamed => return renamed.map(|()| copy),
        }
    }
    Err(FileError::InTheWay)
}

/// A file on its way to a name; it goes where it does not get there.
struct Temporary<'a> {
    dir: &'a OwnedFd,
    name: String,
    is_done: bool,
}

impl<'a> Temporary<'a> {
    fn write(dir: &'a OwnedFd, text: &str, mode: Option<Mode>) -> Result<Self, FileError> {
        let name = temporary_name();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(dir, name.as_str(), flags, Mode::from_raw_mode(0o666))?);
        let temporary = Self { dir, name, is_done: false };
        if let Some(mode) = mode {
            rustix::fs::fchmod(&file, mode)?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(temporary)
    }

    /// It takes a name that nothing has.
    fn becomes(self, name: &str) -> Result<(), FileError> {
        rename_new(self.dir, &self.name, name)?;
        self.done();
        Ok(())
    }

    /// It has taken the place of `name`, and has become what was there: which is to be `over`, else it goes back.
    fn came_out(self, name: &str, over: Digest, text: &str, limit: usize) -> Result<(), FileError> {
        if read(self.dir, &self.name, limit).is_ok_and(|was| Digest::of(&was) == over) {
            // Dropped, and with it what was replaced.
            return Ok(());
        }
        rustix::fs::renameat_with(self.dir, &self.name, self.dir, name, RenameFlags::EXCHANGE)?;
        // Whoever wrote once more in that very moment has written over our text, and finds theirs beside it.
        if !read(self.dir, &self.name, limit).is_ok_and(|back| back == text) {
            beside(self.dir, &self.name, name, None)?;
            self.done();
        }
        Err(FileError::Changed)
    }

    fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            // One that stays is told of by the next look.
            let _ = rustix::fs::unlinkat(self.dir, &self.name, AtFlags::empty());
        }
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
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path(), Vec::new(), 100).unwrap();
        (dir, folder)
    }

    fn path(text: &str) -> DocumentPath {
        DocumentPath::new(text).unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
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

    #[test]
    fn a_file_is_replaced_only_where_it_is_what_was_to_be_replaced() {
        let (dir, folder) = folder();
        folder.write(&path("sub/a"), None, "one").unwrap();
        let file = dir.path().join("sub/a");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(folder.write(&path("sub/a"), None, "two"), Err(FileError::InTheWay)));
        assert!(matches!(folder.write(&path("sub/a"), Some(Digest::of("x")), "two"), Err(FileError::Changed)));
        assert_eq!(fs::read_to_string(&file).unwrap(), "one");
        folder.write(&path("sub/a"), Some(Digest::of("one")), "two").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(matches!(folder.write(&path("sub/b"), Some(Digest::of("x")), "two"), Err(FileError::Changed)));
        assert_eq!(names(&dir.path().join("sub")), ["a"], "nothing is left behind");
    }

    #[test]
    fn a_file_is_deleted_only_where_it_is_what_was_to_be_deleted() {
        let (dir, folder) = folder();
        folder.write(&path("x/y/a"), None, "one").unwrap();
        assert!(matches!(folder.delete(&path("x/y/a"), Digest::of("other")), Err(FileError::Changed)));
        assert_eq!(folder.read(&path("x/y/a")).unwrap(), "one");
        folder.delete(&path("x/y/a"), Digest::of("one")).unwrap();
        assert_eq!(names(dir.path()), Vec::<String>::new(), "empty directories go too");
        assert!(matches!(folder.delete(&path("a"), Digest::of("one")), Err(FileError::Changed)));
    }

    #[test]
    fn no_link_leads_out_of_the_folder() {
        let (dir, folder) = folder();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("a"), "precious").unwrap();
        symlink(outside.path(), dir.path().join("sub")).unwrap();
        symlink(outside.path().join("a"), dir.path().join("b")).unwrap();
        let precious = Digest::of("precious");
        for name in ["sub/a", "b"] {
            assert!(folder.read(&path(name)).is_err(), "{name}");
            assert!(folder.write(&path(name), None, "x").is_err(), "{name}");
            assert!(folder.write(&path(name), Some(precious), "x").is_err(), "{name}");
            assert!(folder.delete(&path(name), precious).is_err(), "{name}");
        }
        assert_eq!(fs::read_to_string(outside.path().join("a")).unwrap(), "precious");
        assert_eq!(names(outside.path()), ["a"]);
        assert_eq!(names(dir.path()), ["b", "sub"], "and the links are as they were");
    }

    #[test]
    fn copies_never_take_each_others_names() {
        let (dir, folder) = folder();
        assert_eq!(folder.keep_beside(&path("d/a.md"), "1", 7).unwrap(), "d/a.md.conflict-7");
        assert_eq!(folder.keep_beside(&path("d/a.md"), "1", 7).unwrap(), "d/a.md.conflict-7", "it is kept already");
        assert_eq!(folder.keep_beside(&path("d/a.md"), "2", 7).unwrap(), "d/a.md.conflict-7-2");
        assert_eq!(fs::read_to_string(dir.path().join("d/a.md.conflict-7-2")).unwrap(), "2");
        assert!(is_copy("a.md.conflict-7-2") && !is_copy(".conflict-7") && !is_copy("a.conflict-7-x"));
    }

    #[test]
    fn only_one_is_alone() {
        let (dir, folder) = folder();
        let alone = folder.alone().unwrap();
        assert!(alone.is_some());
        assert!(Folder::open(dir.path(), Vec::new(), 100).unwrap().alone().unwrap().is_none());
        drop(alone);
        assert!(folder.alone().unwrap().is_some());
    }
}
