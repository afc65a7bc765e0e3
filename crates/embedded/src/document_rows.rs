//! Documents, revisions and commits as rows: reading them, and one commit's checks and writes.

use std::time::{Duration, SystemTime};

use mutext_contract::{
    Action, AgentName, Change, Commit, CommitRecord, Committed, Conflict, Content, ContextName, Cursor, Document,
    DocumentPath, Entry, Fenced, FencedRead, FencingToken, Kind, LeaseId, Listing, Outcome, PastRevision, PathPrefix,
    Refusal, Revision,
};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use sha2::{Digest, Sha256};

use crate::revocation_rows;

type Result<T> = rusqlite::Result<T>;

/// Where a document stands: its last revision, whether it lives, and the highest token that it has seen.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    revision: u64,
    live: bool,
    highest: Option<FencingToken>,
}

impl Standing {
    const fn current(&self) -> Option<Revision> {
        if self.live { Some(Revision(self.revision)) } else { None }
    }
}

pub(crate) fn read(connection: &Connection, context: &ContextName, path: &DocumentPath) -> Result<Option<Document>> {
    let sql = "SELECT d.revision, r.kind, r.content, c.author, c.at FROM documents d
               JOIN revisions r ON r.context = d.context AND r.path = d.path AND r.revision = d.revision
               JOIN commits c ON c.seq = r.seq
               WHERE d.context = ?1 AND d.path = ?2 AND d.live";
    let document = |row: &Row<'_>| {
        Ok(Document {
            path: path.clone(),
            revision: Revision(number(row, 0)?),
            content: content(kind(row, 1)?, row.get(2)?)?,
            author: author(row, 3)?,
            written_at: time(row, 4)?,
        })
    };
    connection.prepare_cached(sql)?.query_row(params![context.as_str(), path.as_str()], document).optional()
}

pub(crate) fn list(
    connection: &Connection,
    context: &ContextName,
    prefix: &PathPrefix,
    after: Option<&DocumentPath>,
    limit: usize,
) -> Result<Listing> {
    let sql = "SELECT d.path, d.revision, r.kind, octet_length(r.content), c.author, c.at FROM documents d
               JOIN revisions r ON r.context = d.context AND r.path = d.path AND r.revision = d.revision
               JOIN commits c ON c.seq = r.seq
               WHERE d.context = ?1 AND d.path >= ?2 AND d.path > ?3 AND d.live ORDER BY d.path LIMIT ?4";
    let mut statement = connection.prepare_cached(sql)?;
    let after = after.map_or("", DocumentPath::as_str);
    // One more than asked for tells whether there is a next page.
    let more = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let rows = statement.query_map(params![context.as_str(), prefix.as_str(), after, more], |row| {
        Ok(Entry {
            path: path(row, 0)?,
            revision: Revision(number(row, 1)?),
            kind: kind(row, 2)?,
            size: usize::try_from(row.get::<_, i64>(3)?).unwrap_or(usize::MAX),
            author: author(row, 4)?,
            written_at: time(row, 5)?,
        })
    })?;
    // Paths are in byte order, so that those with the prefix stand together, at the beginning.
    let mut entries = Vec::new();
    for entry in rows {
        let entry = entry?;
        if !prefix.matches(&entry.path) {
            break;
        }
        entries.push(entry);
    }
    let is_last = entries.len() <= limit;
    entries.truncate(limit);
    let next = if is_last { None } else { entries.last().map(|entry| entry.path.clone()) };
    Ok(Listing { entries, next })
}

pub(crate) fn history(
    connection: &Connection,
    context: &ContextName,
    path: &DocumentPath,
    before: Option<Revision>,
    limit: usize,
) -> Result<Vec<PastRevision>> {
    let sql = "SELECT r.revision, r.kind, r.content, c.author, c.message, c.at FROM revisions r
               JOIN commits c ON c.seq = r.seq
               WHERE r.context = ?1 AND r.path = ?2 AND r.revision < ?3 ORDER BY r.revision DESC LIMIT ?4";
    let before = before.map_or(i64::MAX, |revision| i64::try_from(revision.0).unwrap_or(i64::MAX));
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![context.as_str(), path.as_str(), before, limit], |row| {
        let text: Option<String> = row.get(2)?;
        Ok(PastRevision {
            revision: Revision(number(row, 0)?),
            content: text.map(|text| content(kind(row, 1)?, text)).transpose()?,
            author: author(row, 3)?,
            message: row.get(4)?,
            written_at: time(row, 5)?,
        })
    })?;
    rows.collect()
}

pub(crate) fn changes(
    connection: &Connection,
    context: &ContextName,
    after: Cursor,
    limit: usize,
) -> Result<Vec<CommitRecord>> {
    // One transaction: both reads see the same moment.
    let snapshot = connection.unchecked_transaction()?;
    let sql = "SELECT seq, author, message, at FROM commits WHERE context = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
    let mut statement = snapshot.prepare_cached(sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows =
        statement.query_map(params![context.as_str(), i64::try_from(after.0).unwrap_or(i64::MAX), limit], |row| {
            Ok(CommitRecord {
                cursor: Cursor(number(row, 0)?),
                author: author(row, 1)?,
                message: row.get(2)?,
                written_at: time(row, 3)?,
                changes: Vec::new(),
            })
        })?;
    let mut records = rows.collect::<Result<Vec<_>>>()?;
    let sql = "SELECT path, revision, content IS NULL FROM revisions WHERE seq = ?1 ORDER BY path";
    let mut statement = snapshot.prepare_cached(sql)?;
    for record in &mut records {
        let rows = statement.query_map(params![record.cursor.0.cast_signed()], |row| {
            Ok((path(row, 0)?, Revision(number(row, 1)?), row.get(2)?))
        })?;
        record.changes = rows.collect::<Result<Vec<_>>>()?;
    }
    Ok(records)
}

/// An epoch higher than all before it.
pub(crate) fn mint_epoch(connection: &Connection, context: &ContextName) -> Result<u64> {
    let sql = "INSERT INTO epochs (context, epoch) VALUES (?1, 1)
               ON CONFLICT (context) DO UPDATE SET epoch = epoch + 1 RETURNING epoch";
    connection.prepare_cached(sql)?.query_row(params![context.as_str()], |row| number(row, 0))
}

/// A read under a lease: raises the document's highest token, so that older ones are refused from then on.
pub(crate) fn read_fenced(
    connection: &Connection,
    context: &ContextName,
    path: &DocumentPath,
    token: FencingToken,
) -> Result<FencedRead> {
    if let Some((by, reason)) = revocation_rows::of(connection, context, token.owner)? {
        return Ok(FencedRead::Revoked { by, reason });
    }
    let standing = standing(connection, context, path)?;
    let current = read(connection, context, path)?;
    if let Some(highest) = standing.highest.filter(|highest| !token.is_admitted_after(Some(highest))) {
        return Ok(FencedRead::Fenced(Box::new(Fenced { path: path.clone(), presented: token, highest, current })));
    }
    raise(connection, context, path, &standing, token)?;
    Ok(FencedRead::Read(current))
}

/// Checks and applies one commit; the caller's transaction makes it one step. `fenced` is false only where a test
/// has switched the fence off to see the checkers notice.
pub(crate) fn commit(connection: &Connection, context: &ContextName, commit: &Commit, fenced: bool) -> Result<Outcome> {
    let fingerprint = commit.key.as_ref().map(|_| fingerprint(commit));
    if let Some(earlier) = earlier(connection, context, commit, fingerprint.as_deref())? {
        return Ok(earlier);
    }
    let mut standings = Vec::with_capacity(commit.changes.len());
    for change in &commit.changes {
        standings.push(standing(connection, context, &change.path)?);
    }
    if let Some(fence) = commit.fence.as_ref().filter(|_| fenced) {
        if let Some((by, reason)) = revocation_rows::of(connection, context, fence.token.owner)? {
            return Ok(Outcome::Refused(Refusal::Revoked { by, reason }));
        }
        let behind = |(_, standing): &(&Change, &Standing)| !fence.token.is_admitted_after(standing.highest.as_ref());
        if let Some((change, standing)) = commit.changes.iter().zip(&standings).find(behind) {
            let current = read(connection, context, &change.path)?;
            let highest = standing.highest.unwrap_or(fence.token);
            let refusal = Fenced { path: change.path.clone(), presented: fence.token, highest, current };
            return Ok(Outcome::Refused(Refusal::Fenced(Box::new(refusal))));
        }
        // A good fence raises the mark even where a precondition then fails: the mark only ever grows.
        for (change, standing) in commit.changes.iter().zip(&standings) {
            raise(connection, context, &change.path, standing, fence.token)?;
        }
    }
    for (change, standing) in commit.changes.iter().zip(&standings) {
        if !change.precondition.is_met_by(standing.current()) {
            let current = read(connection, context, &change.path)?;
            let conflict = Conflict { path: change.path.clone(), precondition: change.precondition, current };
            return Ok(Outcome::Refused(Refusal::Conflict(Box::new(conflict))));
        }
    }
    write(connection, context, commit, &standings, fingerprint.as_deref()).map(Outcome::Committed)
}

fn write(
    connection: &Connection,
    context: &ContextName,
    commit: &Commit,
    standings: &[Standing],
    fingerprint: Option<&[u8]>,
) -> Result<Committed> {
    let sql = "INSERT INTO commits (context, author, message, at, key, fingerprint) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let at = now();
    let key = commit.key.as_ref().map(mutext_contract::IdempotencyKey::as_str);
    connection.prepare_cached(sql)?.execute(params![
        context.as_str(),
        commit.author.as_str(),
        commit.message,
        at,
        key,
        fingerprint
    ])?;
    let seq = connection.last_insert_rowid();
    let mut revision_row = connection.prepare_cached(
        "INSERT INTO revisions (context, path, revision, seq, kind, content) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let mut document_row = connection.prepare_cached(
        "INSERT INTO documents (context, path, revision, live) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (context, path) DO UPDATE SET revision = excluded.revision, live = excluded.live",
    )?;
    let mut revisions = Vec::with_capacity(commit.changes.len());
    for (change, standing) in commit.changes.iter().zip(standings) {
        let revision = standing.revision + 1;
        let (kind, text) = match &change.action {
            Action::Put(content) => (content.kind(), Some(content.as_str())),
            Action::Delete => (Kind::Text, None),
        };
        let (context, path) = (context.as_str(), change.path.as_str());
        let kind = i64::from(kind == Kind::Json);
        revision_row.execute(params![context, path, revision.cast_signed(), seq, kind, text])?;
        document_row.execute(params![context, path, revision.cast_signed(), text.is_some()])?;
        revisions.push((change.path.clone(), Revision(revision)));
    }
    Ok(Committed { cursor: Cursor(seq.cast_unsigned()), revisions, replayed: false })
}

/// What the commit's key has named before: the same commit again, or another one.
fn earlier(
    connection: &Connection,
    context: &ContextName,
    commit: &Commit,
    fingerprint: Option<&[u8]>,
) -> Result<Option<Outcome>> {
    let (Some(key), Some(fingerprint)) = (&commit.key, fingerprint) else { return Ok(None) };
    let sql = "SELECT seq, fingerprint FROM commits WHERE context = ?1 AND key = ?2";
    let found = connection
        .prepare_cached(sql)?
        .query_row(params![context.as_str(), key.as_str()], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
        })
        .optional()?;
    let Some((seq, known)) = found else { return Ok(None) };
    if known != fingerprint {
        return Ok(Some(Outcome::Refused(Refusal::KeyReused { key: key.clone() })));
    }
    let sql = "SELECT revision FROM revisions WHERE context = ?1 AND path = ?2 AND seq = ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let mut revisions = Vec::with_capacity(commit.changes.len());
    for change in &commit.changes {
        let of_commit = params![context.as_str(), change.path.as_str(), seq];
        revisions.push((change.path.clone(), Revision(statement.query_row(of_commit, |row| number(row, 0))?)));
    }
    Ok(Some(Outcome::Committed(Committed { cursor: Cursor(seq.cast_unsigned()), revisions, replayed: true })))
}

/// What makes two commits the same intention: documents, preconditions and content, not the lease it is made under.
fn fingerprint(commit: &Commit) -> Vec<u8> {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    for change in &commit.changes {
        add(change.path.as_str().as_bytes());
        add(change.precondition.to_string().as_bytes());
        match &change.action {
            Action::Put(content) => {
                add(if content.kind() == Kind::Json { b"json" } else { b"text" });
                add(content.as_str().as_bytes());
            }
            Action::Delete => add(b"delete"),
        }
    }
    add(commit.message.as_deref().unwrap_or_default().as_bytes());
    hash.finalize().to_vec()
}

fn standing(connection: &Connection, context: &ContextName, path: &DocumentPath) -> Result<Standing> {
    let sql = "SELECT revision, live, fence_epoch, fence_counter, fence_owner FROM documents
               WHERE context = ?1 AND path = ?2";
    let read = |row: &Row<'_>| {
        let epoch: Option<i64> = row.get(2)?;
        let highest = match epoch {
            Some(epoch) => {
                Some(FencingToken::new(epoch.cast_unsigned(), number(row, 3)?, LeaseId::from_bytes(row.get(4)?)))
            }
            None => None,
        };
        Ok(Standing { revision: number(row, 0)?, live: row.get(1)?, highest })
    };
    let found = connection.prepare_cached(sql)?.query_row(params![context.as_str(), path.as_str()], read);
    Ok(found.optional()?.unwrap_or_default())
}

fn raise(
    connection: &Connection,
    context: &ContextName,
    path: &DocumentPath,
    standing: &Standing,
    token: FencingToken,
) -> Result<()> {
    if standing.highest == Some(token) {
        return Ok(());
    }
    let sql = "INSERT INTO documents (context, path, revision, live, fence_epoch, fence_counter, fence_owner)
               VALUES (?1, ?2, 0, 0, ?3, ?4, ?5)
               ON CONFLICT (context, path) DO UPDATE SET fence_epoch = excluded.fence_epoch,
                   fence_counter = excluded.fence_counter, fence_owner = excluded.fence_owner";
    connection.prepare_cached(sql)?.execute(params![
        context.as_str(),
        path.as_str(),
        token.epoch.cast_signed(),
        token.counter.cast_signed(),
        token.owner.as_bytes()
    ])?;
    Ok(())
}

/// This moment, as it is written down.
pub(crate) fn now() -> i64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |elapsed| i64::try_from(elapsed.as_millis()).unwrap_or(0))
}

fn number(row: &Row<'_>, column: usize) -> Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

fn kind(row: &Row<'_>, column: usize) -> Result<Kind> {
    Ok(if row.get::<_, i64>(column)? == 0 { Kind::Text } else { Kind::Json })
}

pub(crate) fn time(row: &Row<'_>, column: usize) -> Result<SystemTime> {
    Ok(SystemTime::UNIX_EPOCH + Duration::from_millis(number(row, column)?))
}

pub(crate) fn damaged(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}

pub(crate) fn author(row: &Row<'_>, column: usize) -> Result<AgentName> {
    AgentName::new(row.get::<_, String>(column)?).map_err(|error| damaged(column, error))
}

fn path(row: &Row<'_>, column: usize) -> Result<DocumentPath> {
    DocumentPath::new(row.get::<_, String>(column)?).map_err(|error| damaged(column, error))
}

fn content(kind: Kind, text: String) -> Result<Content> {
    match kind {
        Kind::Text => Ok(Content::text(text)),
        Kind::Json => Content::parse_json(text).map_err(|error| damaged(2, error)),
    }
}
