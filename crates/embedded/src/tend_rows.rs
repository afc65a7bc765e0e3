//! Keeping a context small, as rows: documents that have expired, revisions that need not be kept, and purges.

use mutext_contract::{AgentName, ContextName, DocumentPath, Retention, Revision};
use rusqlite::{Connection, OptionalExtension, params};

use crate::document_rows::{now, number};

type Result<T> = rusqlite::Result<T>;

/// The most documents that expire in one step, and the most revisions that are forgotten in one.
const STEP: i64 = 500;
/// Whoever deletes what has expired.
const EXPIRY_AUTHOR: &str = "mutext";

/// A revision that need not be kept, and the commit that replaced it.
pub(crate) struct Dispensable {
    path: String,
    revision: i64,
    seq: i64,
    replaced_by: i64,
}

/// Whether anything has expired.
pub(crate) fn has_expired(connection: &Connection, context: &ContextName) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM documents WHERE context = ?1 AND expires <= ?2)";
    connection.prepare_cached(sql)?.query_row(params![context.as_str(), now()], |row| row.get(0))
}

/// Some of the revisions that need not be kept. Looked for outside of any write: it reads the whole history.
pub(crate) fn dispensable(
    connection: &Connection,
    context: &ContextName,
    retention: &Retention,
) -> Result<Vec<Dispensable>> {
    let sql = "SELECT r.path, r.revision, r.seq, n.seq FROM revisions r
               JOIN documents d ON d.context = r.context AND d.path = r.path
               JOIN commits c ON c.seq = r.seq
               JOIN revisions n ON n.context = r.context AND n.path = r.path AND n.revision =
                   (SELECT x.revision FROM revisions x WHERE x.context = r.context AND x.path = r.path
                        AND x.revision > r.revision ORDER BY x.revision LIMIT 1)
               JOIN commits nc ON nc.seq = n.seq
               WHERE r.context = ?1 AND (r.revision <= d.revision - ?2 OR nc.at < ?3)
                 AND (c.key IS NULL OR c.at < ?4)
               LIMIT ?5";
    let before = |age: std::time::Duration| now().saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
    let kept = retention.revisions.map_or(i64::MAX, |kept| i64::try_from(kept.max(1)).unwrap_or(i64::MAX));
    let replaced_before = retention.age.map_or(i64::MIN, before);
    let keyed_before = before(Retention::KEYS_KEPT);
    let mut statement = connection.prepare_cached(sql)?;
    let bounds = params![context.as_str(), kept, replaced_before, keyed_before, STEP];
    let rows = statement.query_map(bounds, |row| {
        Ok(Dispensable { path: row.get(0)?, revision: row.get(1)?, seq: row.get(2)?, replaced_by: row.get(3)? })
    })?;
    rows.collect()
}

/// Forgets them; the caller's transaction makes it one step.
pub(crate) fn forget(connection: &Connection, context: &ContextName, revisions: &[Dispensable]) -> Result<u64> {
    let name = context.as_str();
    let mut revision_row =
        connection.prepare_cached("DELETE FROM revisions WHERE context = ?1 AND path = ?2 AND revision = ?3")?;
    // Its other documents may still have a revision of it.
    let mut commit_row = connection
        .prepare_cached("DELETE FROM commits WHERE seq = ?1 AND NOT EXISTS (SELECT 1 FROM revisions WHERE seq = ?1)")?;
    let (mut forgotten, mut oldest) = (0, 0);
    for Dispensable { path, revision, seq, replaced_by } in revisions {
        // Another process may have been faster.
        forgotten += revision_row.execute(params![name, path, revision])?;
        commit_row.execute(params![seq])?;
        oldest = oldest.max(*replaced_by);
    }
    let sql = "INSERT INTO contexts (name, oldest) VALUES (?1, ?2)
               ON CONFLICT (name) DO UPDATE SET oldest = max(oldest, excluded.oldest)";
    connection.prepare_cached(sql)?.execute(params![name, oldest])?;
    Ok(forgotten as u64)
}

/// Deletes what has expired, as one commit.
pub(crate) fn expire(connection: &Connection, context: &ContextName) -> Result<u64> {
    let (name, at) = (context.as_str(), now());
    let sql = "SELECT path, revision FROM documents WHERE context = ?1 AND expires <= ?2 AND live LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![name, at, STEP], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let expired = rows.collect::<Result<Vec<(String, i64)>>>()?;
    if expired.is_empty() {
        return Ok(0);
    }
    let seq = commit_row(connection, name, EXPIRY_AUTHOR, "expired", at)?;
    for (path, revision) in &expired {
        tombstone(connection, name, path, revision + 1, seq)?;
    }
    Ok(expired.len() as u64)
}

fn commit_row(connection: &Connection, context: &str, author: &str, message: &str, at: i64) -> Result<i64> {
    let sql = "INSERT INTO commits (context, author, message, at) VALUES (?1, ?2, ?3, ?4)";
    connection.prepare_cached(sql)?.execute(params![context, author, message, at])?;
    Ok(connection.last_insert_rowid())
}

fn tombstone(connection: &Connection, context: &str, path: &str, revision: i64, seq: i64) -> Result<()> {
    let sql = "INSERT INTO revisions (context, path, revision, seq, kind, content) VALUES (?1, ?2, ?3, ?4, 0, NULL)";
    connection.prepare_cached(sql)?.execute(params![context, path, revision, seq])?;
    let sql = "UPDATE documents SET revision = ?3, live = 0, expires = NULL WHERE context = ?1 AND path = ?2";
    connection.prepare_cached(sql)?.execute(params![context, path, revision])?;
    Ok(())
}

/// Deletes a document with all that it ever held; the caller's transaction makes it one step.
pub(crate) fn purge(
    connection: &Connection,
    context: &ContextName,
    path: &DocumentPath,
    author: &AgentName,
    reason: &str,
) -> Result<Option<Revision>> {
    let (name, path) = (context.as_str(), path.as_str());
    let sql = "SELECT d.revision FROM documents d WHERE d.context = ?1 AND d.path = ?2 AND EXISTS
                   (SELECT 1 FROM revisions r WHERE r.context = ?1 AND r.path = ?2 AND r.content IS NOT NULL)";
    let found = connection.prepare_cached(sql)?.query_row(params![name, path], |row| number(row, 0)).optional()?;
    let Some(last) = found else { return Ok(None) };
    let mut statement = connection.prepare_cached("SELECT seq FROM revisions WHERE context = ?1 AND path = ?2")?;
    let seqs = statement.query_map(params![name, path], |row| row.get(0))?.collect::<Result<Vec<i64>>>()?;
    connection
        .prepare_cached("DELETE FROM revisions WHERE context = ?1 AND path = ?2")?
        .execute(params![name, path])?;
    // A commit that changed nothing else is forgotten with its message; a key is kept, so that a late retry of a write
    // does not bring back what was purged.
    let mut keyed = connection.prepare_cached(
        "UPDATE commits SET message = NULL WHERE seq = ?1 AND NOT EXISTS (SELECT 1 FROM revisions WHERE seq = ?1)",
    )?;
    let mut keyless = connection.prepare_cached(
        "DELETE FROM commits WHERE seq = ?1 AND key IS NULL AND NOT EXISTS (SELECT 1 FROM revisions WHERE seq = ?1)",
    )?;
    for seq in seqs {
        keyed.execute(params![seq])?;
        keyless.execute(params![seq])?;
    }
    let seq = commit_row(connection, name, author.as_str(), &format!("purged: {reason}"), now())?;
    let revision = last + 1;
    tombstone(connection, name, path, revision.cast_signed(), seq)?;
    crate::search_rows::forget(connection, name, path)?;
    Ok(Some(Revision(revision)))
}
