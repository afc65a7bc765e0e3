//! Documents and their histories as rows, for reading.

use std::time::{Duration, SystemTime};

use mutext_contract::{
    AgentName, Content, ContextName, Document, DocumentPath, Entry, Kind, Listing, PastRevision, PathPrefix, Revision,
};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

type Result<T> = rusqlite::Result<T>;

pub(crate) fn read(connection: &Connection, context: &ContextName, path: &DocumentPath) -> Result<Option<Document>> {
    let sql = "SELECT d.revision, r.kind, r.content, c.author, c.at, d.expires FROM documents d
               JOIN revisions r ON r.context = d.context AND r.path = d.path AND r.revision = d.revision
               JOIN commits c ON c.seq = r.seq
               WHERE d.context = ?1 AND d.path = ?2 AND d.live AND (d.expires IS NULL OR d.expires > ?3)";
    let read = |row: &Row<'_>| document(row, 0, path.clone());
    connection.prepare_cached(sql)?.query_row(params![context.as_str(), path.as_str(), now()], read).optional()
}

/// A document from six columns: revision, kind, content, author, time, expiry.
pub(crate) fn document(row: &Row<'_>, first: usize, path: DocumentPath) -> Result<Document> {
    Ok(Document {
        path,
        revision: Revision(number(row, first)?),
        content: content(kind(row, first + 1)?, row.get(first + 2)?)?,
        author: author(row, first + 3)?,
        written_at: time(row, first + 4)?,
        expires_at: optional_time(row, first + 5)?,
    })
}

pub(crate) fn list(
    connection: &Connection,
    context: &ContextName,
    prefix: &PathPrefix,
    after: Option<&DocumentPath>,
    limit: usize,
) -> Result<Listing> {
    let sql = "SELECT d.path, d.revision, r.kind, octet_length(r.content), c.author, c.at, d.expires
               FROM documents d
               JOIN revisions r ON r.context = d.context AND r.path = d.path AND r.revision = d.revision
               JOIN commits c ON c.seq = r.seq
               WHERE d.context = ?1 AND d.path >= ?2 AND d.path > ?3 AND d.live
                 AND (d.expires IS NULL OR d.expires > ?5) ORDER BY d.path LIMIT ?4";
    let mut statement = connection.prepare_cached(sql)?;
    let after = after.map_or("", DocumentPath::as_str);
    // One more than asked for tells whether there is a next page.
    let more = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let rows = statement.query_map(params![context.as_str(), prefix.as_str(), after, more, now()], |row| {
        Ok(Entry {
            path: path(row, 0)?,
            revision: Revision(number(row, 1)?),
            kind: kind(row, 2)?,
            size: usize::try_from(row.get::<_, i64>(3)?).unwrap_or(usize::MAX),
            author: author(row, 4)?,
            written_at: time(row, 5)?,
            expires_at: optional_time(row, 6)?,
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
    let sql = "SELECT r.revision, r.kind, r.content, c.author, c.message, c.at, r.overwrote FROM revisions r
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
            overwrote: row.get(6)?,
        })
    })?;
    rows.collect()
}

/// This moment, as it is written down.
pub(crate) fn now() -> i64 {
    milliseconds(SystemTime::now())
}

/// A moment as it is written down.
pub(crate) fn milliseconds(moment: SystemTime) -> i64 {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

pub(crate) fn number(row: &Row<'_>, column: usize) -> Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

pub(crate) fn kind(row: &Row<'_>, column: usize) -> Result<Kind> {
    Ok(if row.get::<_, i64>(column)? == 0 { Kind::Text } else { Kind::Json })
}

pub(crate) fn time(row: &Row<'_>, column: usize) -> Result<SystemTime> {
    Ok(SystemTime::UNIX_EPOCH + Duration::from_millis(number(row, column)?))
}

pub(crate) fn optional_time(row: &Row<'_>, column: usize) -> Result<Option<SystemTime>> {
    let at: Option<i64> = row.get(column)?;
    Ok(at.map(|at| SystemTime::UNIX_EPOCH + Duration::from_millis(at.cast_unsigned())))
}

pub(crate) fn damaged(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}

pub(crate) fn author(row: &Row<'_>, column: usize) -> Result<AgentName> {
    AgentName::new(row.get::<_, String>(column)?).map_err(|error| damaged(column, error))
}

pub(crate) fn path(row: &Row<'_>, column: usize) -> Result<DocumentPath> {
    DocumentPath::new(row.get::<_, String>(column)?).map_err(|error| damaged(column, error))
}

pub(crate) fn content(kind: Kind, text: String) -> Result<Content> {
    match kind {
        Kind::Text => Ok(Content::text(text)),
        Kind::Json => Content::parse_json(text).map_err(|error| damaged(2, error)),
    }
}
