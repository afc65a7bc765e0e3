//! The index of words: brought up to date by whoever searches, so that no commit pays for it.

use mutext_contract::{ContextName, Hit, PathPrefix, Query, Revision, Term};
use rusqlite::{Connection, OptionalExtension, params};

use crate::document_rows::{number, path};

type Result<T> = rusqlite::Result<T>;

/// The most documents that are indexed in one step, and the bytes after which a step ends.
const STEP: usize = 200;
const STEP_BYTES: usize = 4 * 1024 * 1024;
/// So many changes are looked at for a step: more than one commit can have.
const LOOK: i64 = 1200;
/// How many words a snippet has.
const SNIPPET_WORDS: i64 = 16;

/// Whether commits have come since the index was brought up to date.
pub(crate) fn is_behind(connection: &Connection, context: &ContextName) -> Result<bool> {
    let sql = "SELECT coalesce((SELECT max(seq) FROM commits WHERE context = ?1), 0)
                   > coalesce((SELECT indexed FROM contexts WHERE name = ?1), 0)";
    connection.prepare_cached(sql)?.query_row(params![context.as_str()], |row| row.get(0))
}

/// Indexes some of what has changed; the caller's transaction makes it one step.
pub(crate) fn catch_up(connection: &Connection, context: &ContextName) -> Result<()> {
    let name = context.as_str();
    let sql = "SELECT indexed FROM contexts WHERE name = ?1";
    let indexed = connection.prepare_cached(sql)?.query_row(params![name], |row| row.get(0)).optional()?;
    // Whole commits, in their order: the place up to which is told must have nothing left before it.
    let sql = "SELECT c.seq, r.path FROM commits c LEFT JOIN revisions r ON r.seq = c.seq
               WHERE c.context = ?1 AND c.seq > ?2 ORDER BY c.seq LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let rows =
        statement.query_map(params![name, indexed.unwrap_or(0_i64), LOOK], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let changed = rows.collect::<Result<Vec<(i64, Option<String>)>>>()?;
    let (mut up_to, mut count, mut bytes) = (indexed.unwrap_or(0), 0, 0);
    let mut seen = std::collections::HashSet::new();
    // The last commit of a page that is full may have more documents than the page shows.
    let is_full = i64::try_from(changed.len()).is_ok_and(|count| count == LOOK);
    let last = changed.last().map_or(0, |(seq, _)| *seq);
    for (seq, path) in changed {
        let ends = count >= STEP || bytes > STEP_BYTES;
        if seq > up_to && (ends || (is_full && seq == last)) && count > 0 {
            break;
        }
        up_to = seq;
        if let Some(path) = path.filter(|path| seen.insert(path.clone())) {
            bytes += index(connection, name, &path)?;
            count += 1;
        }
    }
    let sql = "INSERT INTO contexts (name, indexed) VALUES (?1, ?2)
               ON CONFLICT (name) DO UPDATE SET indexed = max(indexed, excluded.indexed)";
    connection.prepare_cached(sql)?.execute(params![name, up_to])?;
    Ok(())
}

/// Indexes one document as it is now; answers with its size.
fn index(connection: &Connection, context: &str, path: &str) -> Result<usize> {
    forget(connection, context, path)?;
    let sql = "SELECT d.revision, r.content FROM documents d
               JOIN revisions r ON r.context = d.context AND r.path = d.path AND r.revision = d.revision
               WHERE d.context = ?1 AND d.path = ?2 AND d.live";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_row(params![context, path], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((revision, text)): Option<(i64, String)> = found else { return Ok(0) };
    let sql = "INSERT INTO pages (context, path, revision) VALUES (?1, ?2, ?3)";
    connection.prepare_cached(sql)?.execute(params![context, path, revision])?;
    let sql = "INSERT INTO words (rowid, text) VALUES (?1, ?2)";
    connection.prepare_cached(sql)?.execute(params![connection.last_insert_rowid(), text])?;
    Ok(text.len())
}

/// Takes a document out of the index.
pub(crate) fn forget(connection: &Connection, context: &str, path: &str) -> Result<()> {
    let sql = "DELETE FROM pages WHERE context = ?1 AND path = ?2 RETURNING id";
    let id =
        connection.prepare_cached(sql)?.query_row(params![context, path], |row| row.get::<_, i64>(0)).optional()?;
    if let Some(id) = id {
        connection.prepare_cached("DELETE FROM words WHERE rowid = ?1")?.execute(params![id])?;
    }
    Ok(())
}

/// At most `limit` documents that are there and have what is looked for, the best first.
pub(crate) fn search(
    connection: &Connection,
    context: &ContextName,
    query: &Query,
    prefix: &PathPrefix,
    limit: usize,
) -> Result<Vec<Hit>> {
    let sql = "SELECT p.path, p.revision, snippet(words, 0, '**', '**', '…', ?5)
               FROM words JOIN pages p ON p.id = words.rowid
               JOIN documents d ON d.context = p.context AND d.path = p.path AND d.live
                   AND (d.expires IS NULL OR d.expires > ?6)
               WHERE words MATCH ?1 AND p.context = ?2 AND substr(p.path, 1, length(?3)) = ?3
               ORDER BY bm25(words), p.path LIMIT ?4";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let now = crate::document_rows::now();
    let mut statement = connection.prepare_cached(sql)?;
    let named = params![expression(query), context.as_str(), prefix.as_str(), limit, SNIPPET_WORDS, now];
    let rows = statement.query_map(named, |row| {
        Ok(Hit { path: path(row, 0)?, revision: Revision(number(row, 1)?), snippet: row.get(2)? })
    })?;
    rows.collect()
}

/// The query in the index's own language.
fn expression(query: &Query) -> String {
    let quoted = |term: &Term| {
        let more = if term.is_prefix { " *" } else { "" };
        format!("\"{}\"{more}", term.text.replace('"', "\"\""))
    };
    let all = |is_excluded: bool, between: &str| {
        let terms = query.terms.iter().filter(|term| term.is_excluded == is_excluded).map(quoted);
        terms.collect::<Vec<_>>().join(between)
    };
    let (wanted, unwanted) = (all(false, " AND "), all(true, " OR "));
    if unwanted.is_empty() { wanted } else { format!("({wanted}) NOT ({unwanted})") }
}
