//! A whole context as lines of JSON, out and in again: loss-free, and all or nothing.
//!
//! The first line says what it is, the last one that it is whole: how many commits there are, and the digest of all lines
//! before. Whatever was cut short or altered on its way is found before anything is written.
//!
//! ```text
//! {"archive":{"format":1,"context":"research-42","until":7,"written_at":"2026-01-02T03:04:05Z"}}
//! {"commit":{"cursor":3,"author":"planner","message":"first","written_at":"…","changes":1}}
//! {"change":{"path":"plan.md","revision":1,"kind":"text","content":"measure"}}
//! {"end":{"commits":1,"sha256":"…"}}
//! ```

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use mutext_contract::{
    AgentName, ArchivedChange, ArchivedCommit, Content, ContextName, Cursor, Deadline, DocumentPath, Kind, PathPrefix,
    Revision, Snapshot,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Context, Error};

/// The one format that there is so far.
const FORMAT: u32 = 1;
/// So many commits are asked of the store at once; it answers with fewer, where they are large.
const PAGE: usize = 200;

/// Why an archive cannot be brought in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// Its first line is not an archive's.
    #[error("it does not begin like an archive ({0}); give a file that `export` has written")]
    NotAnArchive(String),
    /// A later build has written it.
    #[error("it is in format {0}, and this build reads format {FORMAT}; use a newer build")]
    NewerFormat(u32),
    /// A line that cannot be understood, or contradicts those before.
    #[error("line {line}: {why}")]
    BadLine {
        /// Which one, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The last line is missing.
    #[error("it is cut short after line {lines}: the last line is missing; export it anew, or copy it again")]
    CutShort {
        /// How many lines there are.
        lines: u64,
    },
    /// The digest is another than that of the lines.
    #[error("it was altered since it was written: its lines do not have the digest that the last one names")]
    Altered,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Archive(Head),
    Commit(CommitLine),
    Change(ChangeLine),
    End(End),
}

#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    context: String,
    until: Cursor,
    written_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct CommitLine {
    cursor: Cursor,
    author: AgentName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    written_at: Timestamp,
    changes: usize,
}

#[derive(Serialize, Deserialize)]
struct ChangeLine {
    path: DocumentPath,
    revision: Revision,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<Kind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    overwrote: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
}

#[derive(Debug, Serialize, Deserialize)]
struct End {
    commits: u64,
    sha256: String,
}

/// A context on its way out, as of one moment; ask for one line after the other.
#[derive(Debug)]
pub struct Export {
    context: Context,
    until: Cursor,
    after: Cursor,
    lines: VecDeque<String>,
    digest: Sha256,
    commits: u64,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Commits,
    Done,
}

/// An archive on its way in; nothing is written before [`Import::finish`].
#[derive(Debug)]
pub struct Import {
    context: Context,
    digest: Sha256,
    lines: u64,
    bytes: usize,
    commits: Vec<ArchivedCommit>,
    /// How many changes of the last commit are still to come.
    missing: usize,
    revisions: HashMap<DocumentPath, Revision>,
    end: Option<End>,
}

/// An archive that was brought in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imported {
    /// How many commits it had.
    pub commits: u64,
    /// How many documents, counting those that were deleted.
    pub documents: u64,
    /// The place of the last commit in this context's feed.
    pub cursor: Cursor,
}

impl Context {
    /// The whole context as of now, line by line, in bounded memory: documents, history, authors, reasons and times.
    ///
    /// ```
    /// # async fn example(context: &mutext::Context) -> Result<(), mutext::Error> {
    /// context.write("plan.md", "measure").create().await?;
    /// let mut archive = Vec::new();
    /// let mut export = context.export().await?;
    /// while let Some(line) = export.next().await? {
    ///     archive.push(line);
    /// }
    ///
    /// let copy = context.elsewhere("copy")?;
    /// let mut import = copy.import();
    /// for line in &archive {
    ///     import.line(line.as_bytes())?;
    /// }
    /// assert_eq!(import.finish().await?.documents, 1);
    /// # Ok(())
    /// # }
    /// # let dir = std::env::temp_dir().join(format!("mutext-export-{}", std::process::id()));
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// #     let mutext = mutext::Mutext::open(&mutext::Address::embedded(&dir), None).await.unwrap();
    /// #     let settings = mutext::Settings::new("planner".try_into().unwrap());
    /// #     example(&mutext.context("research-42", settings).unwrap()).await.unwrap();
    /// # });
    /// # std::fs::remove_dir_all(&dir).unwrap();
    /// ```
    pub async fn export(&self) -> Result<Export, Error> {
        let until = self.store().head(self.name(), self.deadline()).await?;
        Ok(Export {
            context: self.same(),
            until,
            after: Cursor::START,
            lines: VecDeque::new(),
            digest: Sha256::new(),
            commits: 0,
            stage: Stage::Head,
        })
    }

    /// Takes an archive in, line by line; all of it happens in [`Import::finish`], or nothing.
    pub fn import(&self) -> Import {
        Import {
            context: self.same(),
            digest: Sha256::new(),
            lines: 0,
            bytes: 0,
            commits: Vec::new(),
            missing: 0,
            revisions: HashMap::new(),
            end: None,
        }
    }
}

impl Export {
    /// The place in the feed up to which it reaches.
    pub const fn until(&self) -> Cursor {
        self.until
    }

    /// The next line, without its line break; `None` after the last.
    ///
    /// Errors with [`Error::CursorGone`] where what was there when it began was forgotten meanwhile: begin anew.
    pub async fn next(&mut self) -> Result<Option<String>, Error> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Ok(Some(line));
            }
            match self.stage {
                Stage::Head => {
                    let (context, written_at) = (self.context.name().to_string(), Timestamp::now());
                    self.tell(&Line::Archive(Head { format: FORMAT, context, until: self.until, written_at }))?;
                    self.stage = Stage::Commits;
                }
                Stage::Commits => self.page().await?,
                Stage::Done => return Ok(None),
            }
        }
    }

    async fn page(&mut self) -> Result<(), Error> {
        let context = &self.context;
        let (after, until, deadline) = (self.after, self.until, context.deadline());
        let page = context.store().archive(context.name(), after, until, PAGE, deadline).await?;
        let Some(last) = page.last() else {
            self.check_kept().await?;
            let end = End { commits: self.commits, sha256: hex(std::mem::take(&mut self.digest)) };
            self.tell(&Line::End(end))?;
            self.stage = Stage::Done;
            return Ok(());
        };
        self.after = last.cursor;
        for commit in page {
            self.commit(commit)?;
        }
        Ok(())
    }

    /// What was replaced after this began may have been forgotten since, while it was still to be told.
    async fn check_kept(&self) -> Result<(), Error> {
        let (context, deadline) = (&self.context, self.context.deadline());
        let all = PathPrefix::all();
        match context.store().documents_at(context.name(), self.until, &all, None, 1, deadline).await? {
            Snapshot::Page(..) => Ok(()),
            Snapshot::Gone { oldest } => Err(Error::CursorGone { after: self.until, oldest }),
        }
    }

    fn commit(&mut self, commit: ArchivedCommit) -> Result<(), Error> {
        self.commits += 1;
        self.tell(&Line::Commit(CommitLine {
            cursor: commit.cursor,
            author: commit.author,
            message: commit.message,
            written_at: timestamp(commit.written_at)?,
            changes: commit.changes.len(),
        }))?;
        for change in commit.changes {
            self.tell(&Line::Change(ChangeLine {
                path: change.path,
                revision: change.revision,
                kind: change.content.as_ref().map(Content::kind),
                content: change.content.map(|content| content.as_str().to_owned()),
                overwrote: change.overwrote,
                expires_at: change.expires_at.map(timestamp).transpose()?,
            }))?;
        }
        Ok(())
    }

    fn tell(&mut self, line: &Line) -> Result<(), Error> {
        let line = serde_json::to_string(line).map_err(mutext_contract::InvalidJson::from)?;
        told(&mut self.digest, line.as_bytes());
        self.lines.push_back(line);
        Ok(())
    }
}

impl Import {
    /// Takes the next line in, with or without its line break.
    ///
    /// Errors with [`Error::Archive`] or [`Error::TooLarge`] at the first line that is wrong; nothing is written then.
    pub fn line(&mut self, line: &[u8]) -> Result<(), Error> {
        self.lines += 1;
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let text = std::str::from_utf8(line).map_err(|error| self.bad(format!("it is not UTF-8: {error}")))?;
        if self.end.is_some() {
            return Err(self.bad("there is more after the last line of the archive".to_owned()));
        }
        let parsed = serde_json::from_str(text);
        if self.lines == 1 {
            match parsed {
                Ok(Line::Archive(Head { format, .. })) if format > FORMAT => {
                    return Err(ArchiveError::NewerFormat(format).into());
                }
                Ok(Line::Archive(_)) => {}
                Ok(_) => return Err(ArchiveError::NotAnArchive("the first line is missing".to_owned()).into()),
                Err(error) => return Err(ArchiveError::NotAnArchive(error.to_string()).into()),
            }
        } else {
            let parsed = parsed.map_err(|error: serde_json::Error| self.bad(error.to_string()))?;
            self.take(parsed)?;
        }
        if self.end.is_none() {
            told(&mut self.digest, line);
        }
        Ok(())
    }

    fn take(&mut self, line: Line) -> Result<(), Error> {
        match line {
            Line::Change(change) => return self.change(change),
            _ if self.missing > 0 => {
                return Err(self.bad(format!("{} changes of the commit before are missing", self.missing)));
            }
            Line::Archive(_) => return Err(self.bad("a second archive begins".to_owned())),
            Line::End(end) => self.end = Some(end),
            Line::Commit(commit) => {
                if self.commits.last().is_some_and(|last| last.cursor >= commit.cursor) {
                    return Err(self.bad(format!("commit {} is not behind the one before", commit.cursor.0)));
                }
                if commit.changes == 0 {
                    return Err(self.bad("a commit without a change".to_owned()));
                }
                self.missing = commit.changes;
                self.commits.push(ArchivedCommit {
                    cursor: commit.cursor,
                    author: commit.author,
                    message: commit.message,
                    written_at: self.moment(commit.written_at)?,
                    changes: Vec::new(),
                });
            }
        }
        Ok(())
    }

    fn change(&mut self, change: ChangeLine) -> Result<(), Error> {
        if self.missing == 0 {
            return Err(self.bad("a change without its commit".to_owned()));
        }
        let (path, revision) = (change.path, change.revision);
        let before = self.revisions.insert(path.clone(), revision);
        if revision.0 == 0 || before.is_some_and(|before| before >= revision) {
            return Err(self.bad(format!("revision {revision} of {path} is not higher than the one before")));
        }
        let content = match (change.kind, change.content) {
            (None, None) => None,
            (Some(Kind::Text), Some(text)) => Some(Content::text(text)),
            (Some(Kind::Json), Some(text)) => {
                Some(Content::parse_json(text).map_err(|error| self.bad(error.to_string()))?)
            }
            _ => return Err(self.bad("`kind` and `content` go together".to_owned())),
        };
        let (size, limit) = (content.as_ref().map_or(0, Content::size), self.context.settings().document_bytes_max);
        if size > limit {
            return Err(Error::TooLarge { path, size, limit });
        }
        self.bytes += size;
        self.missing -= 1;
        let expires_at = change.expires_at.map(|at| self.moment(at)).transpose()?;
        let overwrote = change.overwrote;
        if let Some(commit) = self.commits.last_mut() {
            commit.changes.push(ArchivedChange { path, revision, content, overwrote, expires_at });
        }
        Ok(())
    }

    fn moment(&self, written: Timestamp) -> Result<SystemTime, Error> {
        SystemTime::try_from(written).map_err(|error| self.bad(error.to_string()))
    }

    fn bad(&self, why: String) -> Error {
        ArchiveError::BadLine { line: self.lines, why }.into()
    }

    /// Brings all of it in, in one step; the context must never have had a document.
    ///
    /// Errors with [`Error::Archive`] where the archive is not whole, [`Error::ContextNotEmpty`] where there is
    /// something already. The time that it may take grows with the archive.
    pub async fn finish(self) -> Result<Imported, Error> {
        let Some(end) = self.end else { return Err(ArchiveError::CutShort { lines: self.lines }.into()) };
        let commits = self.commits.len() as u64;
        if end.sha256 != hex(self.digest) || end.commits != commits {
            return Err(ArchiveError::Altered.into());
        }
        let mebibytes = u32::try_from(self.bytes / (1024 * 1024)).unwrap_or(u32::MAX);
        let patience = self.context.settings().patience + Duration::from_secs(1).saturating_mul(mebibytes);
        let context = &self.context;
        let restored = context.store().restore(context.name(), &self.commits, Deadline::after(patience)).await?;
        let name: &ContextName = context.name();
        let cursor = restored.ok_or_else(|| Error::ContextNotEmpty { context: name.clone() })?;
        Ok(Imported { commits, documents: self.revisions.len() as u64, cursor })
    }
}

fn told(digest: &mut Sha256, line: &[u8]) {
    digest.update(line);
    digest.update(b"\n");
}

fn hex(digest: Sha256) -> String {
    digest.finalize().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// A store's time as text; every store's is within the years that can be written down.
fn timestamp(time: SystemTime) -> Result<Timestamp, Error> {
    Timestamp::try_from(time).map_err(|error| Error::InvalidCommit(format!("its time cannot be written down: {error}")))
}
