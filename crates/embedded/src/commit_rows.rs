//! One commit's checks and writes as rows, and the marks of fencing tokens.

use mutext_contract::{
    Action, Change, Commit, Committed, Conflict, ContextName, Cursor, DocumentPath, EPOCH_BELIEVED, EPOCH_MAX, Erosion,
    Expiry, Fenced, FencedRead, FencingToken, Kind, LeaseId, Outcome, Precondition, Refusal, Revision,
};
use rusqlite::{Connection, OptionalExtension, Row, params};
use sha2::{Digest, Sha256};

use crate::document_rows::{now, number, read};
use crate::revocation_rows;

type Result<T> = rusqlite::Result<T>;

/// Where a document stands: its last revision, whether it lives, and the highest token that it has seen.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    revision: u64,
    /// Also not where it has expired.
    live: bool,
    highest: Option<FencingToken>,
    /// The revision that the highest token has last read or written.
    seen: Option<u64>,
}

impl Standing {
    /// Whether a write under this token is for what stands there. Whoever takes no lease may write while somebody holds
    /// one; what a holder writes without naming a revision is for the one that it has read.
    fn is_as_seen_by(&self, token: FencingToken) -> bool {
        self.highest != Some(token) || self.seen.is_none_or(|seen| seen == self.revision)
    }

    const fn current(&self) -> Option<Revision> {
        if self.live { Some(Revision(self.revision)) } else { None }
    }
}

/// An epoch higher than all before it, than `above`, and than those of the marks: this file may have been put back since
/// they were minted. What nothing here shows any more the clock keeps from being minted again.
pub(crate) fn mint_epoch(connection: &Connection, context: &ContextName, above: u64) -> Result<u64> {
    // A mark that cannot have been minted is nobody's, and keeps nobody from beginning an epoch, now or later.
    let sql = "SELECT max(coalesce((SELECT epoch FROM epochs WHERE context = ?1), 0), coalesce((SELECT max(fence_epoch)
               FROM documents WHERE context = ?1 AND fence_epoch <= ?2), 0))";
    let params = params![context.as_str(), EPOCH_BELIEVED.cast_signed()];
    let last = connection.prepare_cached(sql)?.query_row(params, |row| number(row, 0))?;
    let seconds = u64::try_from(now() / 1000).unwrap_or(0);
    let believed = if above <= EPOCH_BELIEVED { above } else { 0 };
    let epoch = last.max(believed).saturating_add(1).max(seconds);
    if above < epoch && epoch <= EPOCH_MAX {
        let sql = "INSERT INTO epochs (context, epoch) VALUES (?1, ?2)
                   ON CONFLICT (context) DO UPDATE SET epoch = excluded.epoch";
        connection.prepare_cached(sql)?.execute(params![context.as_str(), epoch.cast_signed()])?;
    }
    Ok(epoch)
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
    if standing.highest != Some(token) || standing.seen != Some(standing.revision) {
        mark(connection, context, path, standing.revision, token)?;
    }
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
        let unseen = change.precondition == Precondition::Any
            && commit.fence.as_ref().is_some_and(|fence| fenced && !standing.is_as_seen_by(fence.token));
        if unseen || !change.precondition.is_met_by(standing.current()) {
            let current = read(connection, context, &change.path)?;
            let conflict = Conflict { path: change.path.clone(), precondition: change.precondition, current };
            return Ok(Outcome::Refused(Refusal::Conflict(Box::new(conflict))));
        }
    }
    let mut unchanged = Vec::with_capacity(commit.changes.len());
    for (change, standing) in commit.changes.iter().zip(&standings) {
        let there = there(connection, context, change, standing)?;
        if change.erodes(there.bytes) {
            let (path, revision, bytes) = (change.path.clone(), Revision(standing.revision), there.bytes);
            let left = there.to_be;
            return Ok(Outcome::Refused(Refusal::Erodes(Erosion { path, revision, bytes, left })));
        }
        unchanged.push(there.is_same);
    }
    write(connection, context, commit, &standings, &unchanged, fingerprint.as_deref()).map(Outcome::Committed)
}

/// What a write finds where it goes.
#[derive(Default)]
struct There {
    bytes: usize,
    to_be: usize,
    is_same: bool,
}

fn there(connection: &Connection, context: &ContextName, change: &Change, standing: &Standing) -> Result<There> {
    let (Action::Put(content), true) = (&change.action, standing.live) else { return Ok(There::default()) };
    // The comparison reads the content only where the sizes are the same.
    let sql = "SELECT octet_length(content),
                   CASE WHEN kind = ?4 AND octet_length(content) = ?5 THEN content = ?6 ELSE 0 END
               FROM revisions WHERE context = ?1 AND path = ?2 AND revision = ?3";
    let (kind, to_be) = (i64::from(content.kind() == Kind::Json), content.size());
    let size = i64::try_from(to_be).unwrap_or(i64::MAX);
    let (context, path, revision) = (context.as_str(), change.path.as_str(), standing.revision.cast_signed());
    connection.prepare_cached(sql)?.query_row(params![context, path, revision, kind, size, content.as_str()], |row| {
        Ok(There { bytes: usize::try_from(row.get::<_, i64>(0)?).unwrap_or(0), to_be, is_same: row.get(1)? })
    })
}

/// Whether the document's expiry changes, and when it is gone by itself then.
fn expires(change: &Change, standing: &Standing, at: i64) -> (bool, Option<i64>) {
    match (&change.action, change.expiry) {
        (Action::Put(_), Expiry::After(ttl)) => {
            (true, Some(at.saturating_add(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX))))
        }
        (Action::Put(_), Expiry::Keep) if standing.live => (false, None),
        _ => (true, None),
    }
}

fn write(
    connection: &Connection,
    context: &ContextName,
    commit: &Commit,
    standings: &[Standing],
    unchanged: &[bool],
    fingerprint: Option<&[u8]>,
) -> Result<Committed> {
    let (at, name) = (now(), context.as_str());
    let all_unchanged = unchanged.iter().all(|unchanged| *unchanged);
    // A key is remembered, also where it changed nothing.
    let seq = if all_unchanged && commit.key.is_none() {
        last_change(connection, name, commit)?
    } else {
        let sql =
            "INSERT INTO commits (context, author, message, at, key, fingerprint) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let key = commit.key.as_ref().map(mutext_contract::IdempotencyKey::as_str);
        let author = commit.author.as_str();
        connection.prepare_cached(sql)?.execute(params![name, author, commit.message, at, key, fingerprint])?;
        connection.last_insert_rowid()
    };
    let mut revision_row = connection.prepare_cached(
        "INSERT INTO revisions (context, path, revision, seq, kind, content, overwrote) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let mut document_row = connection.prepare_cached(
        "INSERT INTO documents (context, path, revision, live, expires) VALUES (?1, ?2, ?3, ?4, ?6)
         ON CONFLICT (context, path) DO UPDATE SET revision = excluded.revision, live = excluded.live,
             expires = CASE WHEN ?5 THEN excluded.expires ELSE expires END",
    )?;
    let mut revisions = Vec::with_capacity(commit.changes.len());
    for ((change, standing), unchanged) in commit.changes.iter().zip(standings).zip(unchanged) {
        let path = change.path.as_str();
        let (is_set, expires) = expires(change, standing, at);
        let revision = if *unchanged { standing.revision } else { standing.revision + 1 };
        let (kind, text) = match &change.action {
            Action::Put(content) => (content.kind(), Some(content.as_str())),
            Action::Delete => (Kind::Text, None),
        };
        if !unchanged {
            let kind = i64::from(kind == Kind::Json);
            let overwrote = standing.live && commit.fence.is_none() && change.precondition == Precondition::Any;
            revision_row.execute(params![name, path, revision.cast_signed(), seq, kind, text, overwrote])?;
        }
        if let Some(fence) = commit.fence.as_ref().filter(|_| !unchanged) {
            mark(connection, context, &change.path, revision, fence.token)?;
        }
        if !unchanged || is_set {
            document_row.execute(params![name, path, revision.cast_signed(), text.is_some(), is_set, expires])?;
        }
        revisions.push((change.path.clone(), Revision(revision)));
    }
    Ok(Committed { cursor: Cursor(seq.cast_unsigned()), revisions, replayed: false })
}

/// The place of the last change of these documents.
fn last_change(connection: &Connection, context: &str, commit: &Commit) -> Result<i64> {
    let sql = "SELECT seq FROM revisions WHERE context = ?1 AND path = ?2 ORDER BY revision DESC LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut last = 0;
    for change in &commit.changes {
        let seq = statement.query_row(params![context, change.path.as_str()], |row| row.get(0)).optional()?;
        last = last.max(seq.unwrap_or(0));
    }
    Ok(last)
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
    // As of that commit: what it did not change stood at an earlier revision, which may be forgotten since.
    let sql = "SELECT coalesce((SELECT revision FROM revisions WHERE context = ?1 AND path = ?2 AND seq <= ?3
                   ORDER BY revision DESC LIMIT 1), 0)";
    let mut statement = connection.prepare_cached(sql)?;
    let mut revisions = Vec::with_capacity(commit.changes.len());
    for change in &commit.changes {
        let as_of_commit = params![context.as_str(), change.path.as_str(), seq];
        revisions.push((change.path.clone(), Revision(statement.query_row(as_of_commit, |row| number(row, 0))?)));
    }
    Ok(Some(Outcome::Committed(Committed { cursor: Cursor(seq.cast_unsigned()), revisions, replayed: true })))
}

/// What makes two commits the same intention.
fn fingerprint(commit: &Commit) -> Vec<u8> {
    let mut hash = Sha256::new();
    commit.intention(|part| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    });
    hash.finalize().to_vec()
}

fn standing(connection: &Connection, context: &ContextName, path: &DocumentPath) -> Result<Standing> {
    let sql = "SELECT revision, live AND (expires IS NULL OR expires > ?3), fence_epoch, fence_counter, fence_owner,
                   fence_revision FROM documents WHERE context = ?1 AND path = ?2";
    let read = |row: &Row<'_>| {
        let epoch: Option<i64> = row.get(2)?;
        let highest = match epoch {
            Some(epoch) => {
                Some(FencingToken::new(epoch.cast_unsigned(), number(row, 3)?, LeaseId::from_bytes(row.get(4)?)))
            }
            None => None,
        };
        Ok(Standing {
            revision: number(row, 0)?,
            live: row.get(1)?,
            highest,
            seen: row.get::<_, Option<i64>>(5)?.map(i64::cast_unsigned),
        })
    };
    let found = connection.prepare_cached(sql)?.query_row(params![context.as_str(), path.as_str(), now()], read);
    Ok(found.optional()?.unwrap_or_default())
}

/// Raises the document's mark to a good token.
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
    mark(connection, context, path, standing.revision, token)
}

/// Writes down that this token has seen the document at `revision`.
fn mark(
    connection: &Connection,
    context: &ContextName,
    path: &DocumentPath,
    revision: u64,
    token: FencingToken,
) -> Result<()> {
    let sql =
        "INSERT INTO documents (context, path, revision, live, fence_epoch, fence_counter, fence_owner, fence_revision)
               VALUES (?1, ?2, 0, 0, ?3, ?4, ?5, ?6)
               ON CONFLICT (context, path) DO UPDATE SET fence_epoch = excluded.fence_epoch,
                   fence_counter = excluded.fence_counter, fence_owner = excluded.fence_owner,
                   fence_revision = excluded.fence_revision";
    connection.prepare_cached(sql)?.execute(params![
        context.as_str(),
        path.as_str(),
        token.epoch.cast_signed(),
        token.counter.cast_signed(),
        token.owner.as_bytes(),
        revision.cast_signed()
    ])?;
    Ok(())
}
