//! Commits in their order as rows: the feed, documents as of one place in it, and archives.

use mutext_contract::{
    ArchivedChange, ArchivedCommit, CommitRecord, Content, ContextName, Cursor, DocumentPath, Feed, Kind, PathPrefix,
    Revision, Snapshot,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::document_rows::{author, content, document, kind, milliseconds, now, number, optional_time, path, time};

type Result<T> = rusqlite::Result<T>;

/// No page of an archive is much larger than this.
const ARCHIVE_BYTES: usize = 8 * 1024 * 1024;

fn numbered(cursor: Cursor) -> i64 {
    i64::try_from(cursor.0).unwrap_or(i64::MAX)
}

fn limit_of(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// Up to which place something has been forgotten.
fn oldest(connection: &Connection, context: &ContextName) -> Result<Cursor> {
    let sql = "SELECT oldest FROM contexts WHERE name = ?1";
    let oldest = connection.prepare_cached(sql)?.query_row(params![context.as_str()], |row| number(row, 0));
    Ok(Cursor(oldest.optional()?.unwrap_or(0)))
}

pub(crate) fn changes(connection: &Connection, context: &ContextName, after: Cursor, limit: usize) -> Result<Feed> {
    // One transaction: all reads see the same moment.
    let snapshot = connection.unchecked_transaction()?;
    let oldest = oldest(&snapshot, context)?;
    if after < oldest {
        return Ok(Feed::Gone { oldest });
    }
    // A commit that changed nothing is written down for its key's sake alone.
    let sql = "SELECT seq, author, message, at FROM commits WHERE context = ?1 AND seq > ?2
                 AND EXISTS (SELECT 1 FROM revisions r WHERE r.seq = commits.seq) ORDER BY seq LIMIT ?3";
    let mut statement = snapshot.prepare_cached(sql)?;
    let rows = statement.query_map(params![context.as_str(), numbered(after), limit_of(limit)], |row| {
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
    Ok(Feed::Page(records))
}

/// The place of the last commit.
/// The last place that was given out, in whatever context: it never goes back, also where commits are forgotten.
pub(crate) fn head(connection: &Connection) -> Result<Cursor> {
    let sql = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'commits'), 0)";
    connection.prepare_cached(sql)?.query_row([], |row| number(row, 0)).map(Cursor)
}

pub(crate) fn documents_at(
    connection: &Connection,
    context: &ContextName,
    at: Cursor,
    prefix: &PathPrefix,
    after: Option<&DocumentPath>,
    limit: usize,
) -> Result<Snapshot> {
    let snapshot = connection.unchecked_transaction()?;
    let oldest = oldest(&snapshot, context)?;
    if at < oldest {
        return Ok(Snapshot::Gone { oldest });
    }
    let sql = "SELECT d.path, r.revision, r.kind, r.content, c.author, c.at,
                   CASE WHEN d.revision = r.revision THEN d.expires END
               FROM documents d
               JOIN revisions r ON r.context = d.context AND r.path = d.path AND r.revision =
                   (SELECT x.revision FROM revisions x WHERE x.context = d.context AND x.path = d.path AND x.seq <= ?4
                    ORDER BY x.revision DESC LIMIT 1)
               JOIN commits c ON c.seq = r.seq
               WHERE d.context = ?1 AND d.path >= ?2 AND d.path > ?3 AND r.content IS NOT NULL
                 AND (d.revision > r.revision OR d.expires IS NULL OR d.expires > ?5) ORDER BY d.path";
    let mut statement = snapshot.prepare_cached(sql)?;
    let begins = after.map_or("", DocumentPath::as_str);
    let mut rows = statement.query(params![context.as_str(), prefix.as_str(), begins, numbered(at), now()])?;
    let mut documents = Vec::new();
    while let Some(row) = rows.next()? {
        let at = path(row, 0)?;
        // Paths are in byte order, so that those with the prefix stand together, at the beginning.
        if !prefix.matches(&at) {
            break;
        }
        if documents.len() == limit {
            let next = documents.last().map(|document: &mutext_contract::Document| document.path.clone());
            return Ok(Snapshot::Page(documents, next));
        }
        documents.push(document(row, 1, at)?);
    }
    Ok(Snapshot::Page(documents, None))
}

pub(crate) fn archive(
    connection: &Connection,
    context: &ContextName,
    after: Cursor,
    until: Cursor,
    limit: usize,
) -> Result<Vec<ArchivedCommit>> {
    let snapshot = connection.unchecked_transaction()?;
    let sql = "SELECT seq, author, message, at FROM commits WHERE context = ?1 AND seq > ?2 AND seq <= ?3
                 AND EXISTS (SELECT 1 FROM revisions r WHERE r.seq = commits.seq) ORDER BY seq LIMIT ?4";
    let mut statement = snapshot.prepare_cached(sql)?;
    let rows =
        statement.query_map(params![context.as_str(), numbered(after), numbered(until), limit_of(limit)], |row| {
            Ok(ArchivedCommit {
                cursor: Cursor(number(row, 0)?),
                author: author(row, 1)?,
                message: row.get(2)?,
                written_at: time(row, 3)?,
                changes: Vec::new(),
            })
        })?;
    let (mut commits, mut bytes) = (Vec::new(), 0);
    for commit in rows {
        let mut commit = commit?;
        commit.changes = archived_changes(&snapshot, context, commit.cursor)?;
        bytes += commit.changes.iter().filter_map(|change| change.content.as_ref()).map(Content::size).sum::<usize>();
        commits.push(commit);
        if bytes > ARCHIVE_BYTES {
            break;
        }
    }
    Ok(commits)
}

fn archived_changes(connection: &Connection, context: &ContextName, cursor: Cursor) -> Result<Vec<ArchivedChange>> {
    let sql = "SELECT r.path, r.revision, r.kind, r.content, r.overwrote,
                   CASE WHEN d.revision = r.revision THEN d.expires END
               FROM revisions r JOIN documents d ON d.context = r.context AND d.path = r.path
               WHERE r.seq = ?2 AND r.context = ?1 ORDER BY r.path";
    let mut statement = connection.prepare_cached(sql)?;
    let change = |row: &Row<'_>| {
        let text: Option<String> = row.get(3)?;
        Ok(ArchivedChange {
            path: path(row, 0)?,
            revision: Revision(number(row, 1)?),
            content: text.map(|text| content(kind(row, 2)?, text)).transpose()?,
            overwrote: row.get(4)?,
            expires_at: optional_time(row, 5)?,
        })
    };
    statement.query_map(params![context.as_str(), numbered(cursor)], change)?.collect()
}

/// Archived commits, all of them, where the context has no document yet; the caller's transaction makes it one step.
pub(crate) fn restore(
    connection: &Connection,
    context: &ContextName,
    commits: &[ArchivedCommit],
) -> Result<Option<Cursor>> {
    let name = context.as_str();
    let sql = "SELECT EXISTS (SELECT 1 FROM revisions WHERE context = ?1)";
    if connection.prepare_cached(sql)?.query_row(params![name], |row| row.get(0))? {
        return Ok(None);
    }
    let mut commit_row =
        connection.prepare_cached("INSERT INTO commits (context, author, message, at) VALUES (?1, ?2, ?3, ?4)")?;
    let mut revision_row = connection.prepare_cached(
        "INSERT INTO revisions (context, path, revision, seq, kind, content, overwrote) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let mut document_row = connection.prepare_cached(
        "INSERT INTO documents (context, path, revision, live, expires) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (context, path) DO UPDATE SET revision = excluded.revision, live = excluded.live,
             expires = excluded.expires",
    )?;
    let mut last = 0;
    for commit in commits {
        let at = milliseconds(commit.written_at);
        commit_row.execute(params![name, commit.author.as_str(), commit.message, at])?;
        last = connection.last_insert_rowid();
        for change in &commit.changes {
            let (path, revision) = (change.path.as_str(), change.revision.0.cast_signed());
            let content = change.content.as_ref();
            let kind = i64::from(content.is_some_and(|content| content.kind() == Kind::Json));
            let text = content.map(Content::as_str);
            revision_row.execute(params![name, path, revision, last, kind, text, change.overwrote])?;
            let expires = change.expires_at.map(milliseconds);
            document_row.execute(params![name, path, revision, text.is_some(), expires])?;
        }
    }
    Ok(Some(Cursor(last.cast_unsigned())))
}
