//! Documents, revisions and commits as rows: what the statements take, and what their answers mean.

use std::fmt::Display;

use mutext_contract::{
    Action, AgentName, ArchivedChange, ArchivedCommit, Claim, Commit, CommitRecord, Committed, Conflict, Content,
    Cursor, Document, DocumentPath, EngineError, Entry, Erosion, Expiry, Feed, Fence, Fenced, FencedRead, FencingToken,
    Hit, Kind, LeaseId, Outcome, PastRevision, Precondition, Refusal, Revision, Revocation, RevocationRecord,
    TroubleKind,
};
use sha2::{Digest, Sha256};
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use crate::names::Names;

/// A row that cannot be what was written.
#[derive(Debug, thiserror::Error)]
#[error("column {column}: {what}")]
pub(crate) struct Damaged {
    column: String,
    what: String,
}

type Result<T> = std::result::Result<T, Damaged>;

fn damaged(column: &str, what: impl Display) -> Damaged {
    Damaged { column: column.to_owned(), what: what.to_string() }
}

impl Damaged {
    pub(crate) fn told(self, subject: &str) -> EngineError {
        EngineError::new(subject, TroubleKind::Corrupt, "restore the database from a backup").caused_by(self)
    }
}

/// The statements, with the schema's name in them.
#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) read: String,
    pub(crate) read_fenced: String,
    pub(crate) list: String,
    pub(crate) history: String,
    pub(crate) changes: String,
    pub(crate) commit_one: String,
    pub(crate) commit_several: String,
    pub(crate) commit_one_under_lease: String,
    pub(crate) commit_several_under_lease: String,
    pub(crate) revoke: String,
    pub(crate) revocations: String,
    pub(crate) mint_epoch: String,
    pub(crate) head: String,
    pub(crate) oldest: String,
    pub(crate) documents_at: String,
    pub(crate) index_pages: String,
    pub(crate) search: String,
    pub(crate) expire: String,
    pub(crate) forget: String,
    pub(crate) purge: String,
    pub(crate) archive: String,
    pub(crate) restore: String,
}

impl Statements {
    pub(crate) fn new(names: &Names) -> Self {
        let of = |sql: &str| sql.replace("{schema}", &names.schema);
        let commit = |function: &str| {
            let parameters = "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17";
            format!("SELECT * FROM {}.{function}({parameters})", names.schema)
        };
        Self {
            // Not a join: a plan made while the table was empty would read all the history to find the last revision.
            read: of("SELECT r.revision, r.kind, r.content, r.author, r.written_at,
                    (SELECT d.expires_at FROM {schema}.documents d WHERE d.context = $1 AND d.path = $2)
                FROM {schema}.revisions r
                WHERE r.context = $1 AND r.path = $2 AND r.revision =
                    (SELECT d.revision FROM {schema}.documents d WHERE d.context = $1 AND d.path = $2 AND d.live
                        AND (d.expires_at IS NULL OR d.expires_at > clock_timestamp()))"),
            read_fenced: of("SELECT * FROM {schema}.read_under_lease($1, $2, $3, $4, $5)"),
            list: of("SELECT r.path, r.revision, r.kind, octet_length(r.content) AS size, r.author, r.written_at,
                    d.expires_at
                FROM (SELECT * FROM {schema}.documents
                    WHERE context = $1 AND path >= $2 AND path < $3 AND path > $4 AND live
                        AND (expires_at IS NULL OR expires_at > clock_timestamp()) ORDER BY path LIMIT $5) d
                CROSS JOIN LATERAL (SELECT * FROM {schema}.revisions r
                    WHERE r.context = d.context AND r.path = d.path AND r.revision = d.revision LIMIT 1) r
                ORDER BY d.path"),
            history: of("SELECT revision, kind, content, author, message, written_at, overwrote
                FROM {schema}.revisions
                WHERE context = $1 AND path = $2 AND revision < $3 ORDER BY revision DESC LIMIT $4"),
            changes: of("SELECT * FROM {schema}.changes($1, $2, $3, $4)"),
            commit_one: commit("commit_one"),
            commit_several: commit("commit_several"),
            commit_one_under_lease: commit("commit_one_under_lease"),
            commit_several_under_lease: commit("commit_several_under_lease"),
            revoke: of("INSERT INTO {schema}.revocations (context, lease, holder, claims, author, reason, revoked_at)
                VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp()) ON CONFLICT (context, lease) DO NOTHING"),
            revocations: of("SELECT lease, holder, claims, author, reason, revoked_at FROM {schema}.revocations
                WHERE context = $1 ORDER BY number DESC LIMIT $2"),
            // A server that stands in for one that was ahead of it does not know all that was minted: so the marks, what
            // the caller remembers and the clock count as well. A mark that cannot have been minted is nobody's.
            mint_epoch: of("INSERT INTO {schema}.epochs AS e (context, epoch)
                SELECT $1::text, greatest($2::bigint + 1, (SELECT max(d.fence_epoch) + 1 FROM {schema}.documents d
                    WHERE d.context = $1::text AND d.fence_epoch <= $3::bigint),
                    floor(extract(epoch FROM clock_timestamp()))::bigint)
                ON CONFLICT (context) DO UPDATE SET epoch = greatest(e.epoch + 1, excluded.epoch) RETURNING e.epoch"),
            head: of("SELECT place FROM {schema}.settled($1)"),
            oldest: of("SELECT oldest FROM {schema}.contexts WHERE name = $1"),
            documents_at: of("SELECT r.revision, r.kind, r.content, r.author, r.written_at,
                    CASE WHEN d.revision = r.revision THEN d.expires_at END, d.path
                FROM {schema}.documents d
                CROSS JOIN LATERAL (SELECT * FROM {schema}.revisions r
                    WHERE r.context = d.context AND r.path = d.path AND r.place <= $2
                    ORDER BY r.revision DESC LIMIT 1) r
                WHERE d.context = $1 AND d.path >= $3 AND d.path < $4 AND d.path > $5 AND r.content IS NOT NULL
                    AND (d.revision > r.revision OR d.expires_at IS NULL OR d.expires_at > clock_timestamp())
                ORDER BY d.path LIMIT $6"),
            index_pages: of("SELECT {schema}.index_pages($1, $2, $3)"),
            search: of("SELECT path, revision, snippet FROM {schema}.search($1, $2::text::tsquery, $3, $4, $5)"),
            expire: of("SELECT * FROM {schema}.expire($1, $2, $3, $4)"),
            forget: of("SELECT {schema}.forget($1, $2, $3, $4, $5)"),
            purge: of("SELECT * FROM {schema}.purge($1, $2, $3, $4, $5, $6)"),
            archive: of("WITH page AS (
                    SELECT DISTINCT r.place FROM {schema}.revisions r
                    WHERE r.lane = $1 AND r.place > $3 AND r.place <= $4 AND r.context = $2
                    ORDER BY r.place LIMIT $5)
                SELECT r.place, r.author, r.message, r.written_at, r.path, r.revision, r.kind, r.content, r.overwrote,
                    CASE WHEN d.revision = r.revision THEN d.expires_at END
                FROM {schema}.revisions r JOIN {schema}.documents d ON d.context = r.context AND d.path = r.path
                WHERE r.lane = $1 AND r.place > $3 AND r.place <= (SELECT max(p.place) FROM page p) AND r.context = $2
                ORDER BY r.place, r.path"),
            restore: of("SELECT * FROM {schema}.restore($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"),
        }
    }
}

fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T> {
    row.try_get(column).map_err(|error| {
        let name = row.columns().get(column).map_or("?", tokio_postgres::Column::name);
        damaged(name, std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string))
    })
}

pub(crate) fn number(row: &Row, column: usize) -> Result<u64> {
    u64::try_from(get::<i64>(row, column)?).map_err(|error| damaged("number", error))
}

fn author(row: &Row, column: usize) -> Result<AgentName> {
    AgentName::new(get::<&str>(row, column)?).map_err(|error| damaged("author", error))
}

fn path(row: &Row, column: usize) -> Result<DocumentPath> {
    DocumentPath::new(get::<&str>(row, column)?).map_err(|error| damaged("path", error))
}

fn kind(row: &Row, column: usize) -> Result<Kind> {
    Ok(if get::<i16>(row, column)? == 0 { Kind::Text } else { Kind::Json })
}

fn message(row: &Row, column: usize) -> Result<Option<String>> {
    get::<Option<&[u8]>>(row, column)?.map(|bytes| text("message", bytes)).transpose()
}

fn text(column: &str, bytes: &[u8]) -> Result<String> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|error| damaged(column, error))
}

fn content(kind: Kind, bytes: &[u8]) -> Result<Content> {
    let text = text("content", bytes)?;
    match kind {
        Kind::Text => Ok(Content::text(text)),
        Kind::Json => Content::parse_json(text).map_err(|error| damaged("content", error)),
    }
}

/// A document from five columns, revision, kind, content, author and time, and one that says when it expires.
fn document(row: &Row, first: usize, expiry: usize, path: &DocumentPath) -> Result<Document> {
    Ok(Document {
        path: path.clone(),
        revision: Revision(number(row, first)?),
        content: content(kind(row, first + 1)?, get(row, first + 2)?)?,
        author: author(row, first + 3)?,
        written_at: get(row, first + 4)?,
        expires_at: get(row, expiry)?,
    })
}

pub(crate) fn read(rows: &[Row], path: &DocumentPath) -> Result<Option<Document>> {
    rows.first().map(|row| document(row, 0, 5, path)).transpose()
}

pub(crate) fn entry(row: &Row) -> Result<Entry> {
    Ok(Entry {
        path: path(row, 0)?,
        revision: Revision(number(row, 1)?),
        kind: kind(row, 2)?,
        size: usize::try_from(get::<i32>(row, 3)?).unwrap_or(0),
        author: author(row, 4)?,
        written_at: get(row, 5)?,
        expires_at: get(row, 6)?,
    })
}

pub(crate) fn past_revision(row: &Row) -> Result<PastRevision> {
    let kind = kind(row, 1)?;
    Ok(PastRevision {
        revision: Revision(number(row, 0)?),
        content: get::<Option<&[u8]>>(row, 2)?.map(|bytes| content(kind, bytes)).transpose()?,
        author: author(row, 3)?,
        message: message(row, 4)?,
        written_at: get(row, 5)?,
        overwrote: get(row, 6)?,
    })
}

/// A page of the feed, and whether a commit is under way that may belong to it.
pub(crate) fn changes(rows: &[Row]) -> Result<(Feed, bool)> {
    let mut records: Vec<CommitRecord> = Vec::new();
    let mut is_under_way = false;
    for row in rows {
        let Some(place) = get::<Option<i64>>(row, 0)? else {
            if let Some(oldest) = get::<Option<i64>>(row, 7)? {
                return Ok((Feed::Gone { oldest: Cursor(oldest.cast_unsigned()) }, false));
            }
            is_under_way = true;
            continue;
        };
        let cursor = Cursor(place.cast_unsigned());
        if records.last().is_none_or(|record| record.cursor != cursor) {
            let (message, written_at) = (message(row, 2)?, get(row, 3)?);
            records.push(CommitRecord { cursor, author: author(row, 1)?, message, written_at, changes: Vec::new() });
        }
        let change = (path(row, 4)?, Revision(number(row, 5)?), get(row, 6)?);
        if let Some(record) = records.last_mut() {
            record.changes.push(change);
        }
    }
    Ok((Feed::Page(records), is_under_way))
}

/// Documents with their paths behind their columns.
pub(crate) fn documents(rows: &[Row]) -> Result<Vec<Document>> {
    rows.iter().map(|row| document(row, 0, 5, &path(row, 6)?)).collect()
}

/// Commits with all that they wrote.
pub(crate) fn archived(rows: &[Row]) -> Result<Vec<ArchivedCommit>> {
    let mut commits: Vec<ArchivedCommit> = Vec::new();
    for row in rows {
        let cursor = Cursor(number(row, 0)?);
        if commits.last().is_none_or(|commit| commit.cursor != cursor) {
            let (message, written_at) = (message(row, 2)?, get(row, 3)?);
            commits.push(ArchivedCommit { cursor, author: author(row, 1)?, message, written_at, changes: Vec::new() });
        }
        let kind = kind(row, 6)?;
        let change = ArchivedChange {
            path: path(row, 4)?,
            revision: Revision(number(row, 5)?),
            content: get::<Option<&[u8]>>(row, 7)?.map(|bytes| content(kind, bytes)).transpose()?,
            overwrote: get(row, 8)?,
            expires_at: get(row, 9)?,
        };
        if let Some(commit) = commits.last_mut() {
            commit.changes.push(change);
        }
    }
    Ok(commits)
}

/// What a search has found.
pub(crate) fn hit(row: &Row) -> Result<Hit> {
    Ok(Hit { path: path(row, 0)?, revision: Revision(number(row, 1)?), snippet: get(row, 2)? })
}

/// Where a call that writes of its own accord ended: the last place, its revisions, and whether somebody waits to be
/// told; none where it wrote nothing.
pub(crate) fn written(row: &Row) -> Result<Option<(Cursor, Vec<Revision>, bool)>> {
    let place: Option<i64> = get(row, column::PLACE)?;
    let Some(place) = place else { return Ok(None) };
    let revisions = get::<Option<Vec<i64>>>(row, column::REVISIONS)?.unwrap_or_default();
    let revisions = revisions.into_iter().map(|revision| Revision(revision.cast_unsigned())).collect();
    Ok(Some((Cursor(place.cast_unsigned()), revisions, get::<Option<bool>>(row, column::WATCHED)?.unwrap_or(true))))
}

/// The columns of an answer.
mod column {
    pub(super) const OUTCOME: usize = 0;
    pub(super) const PLACE: usize = 1;
    pub(super) const REVISIONS: usize = 2;
    pub(super) const WATCHED: usize = 3;
    pub(super) const ORDINAL: usize = 4;
    pub(super) const FENCE: usize = 5;
    pub(super) const DOCUMENT: usize = 8;
    pub(super) const EXPIRES_AT: usize = 13;
    pub(super) const BYTES: usize = 14;
}

fn current(row: &Row, path: &DocumentPath) -> Result<Option<Document>> {
    let revision: Option<i64> = get(row, column::DOCUMENT)?;
    revision.map(|_| document(row, column::DOCUMENT, column::EXPIRES_AT, path)).transpose()
}

fn fenced(row: &Row, path: &DocumentPath, fence: &Fence) -> Result<Box<Fenced>> {
    let owner: [u8; 16] = get::<&[u8]>(row, column::FENCE + 2)?.try_into().map_err(|error| damaged("owner", error))?;
    let (epoch, counter) = (number(row, column::FENCE)?, number(row, column::FENCE + 1)?);
    let highest = FencingToken::new(epoch, counter, LeaseId::from_bytes(owner));
    Ok(Box::new(Fenced { path: path.clone(), presented: fence.token, highest, current: current(row, path)? }))
}

/// Who broke the lease, and why.
fn revoked(row: &Row) -> Result<(AgentName, String)> {
    Ok((author(row, column::DOCUMENT + 3)?, text("reason", get(row, column::DOCUMENT + 2)?)?))
}

/// A revocation from six columns.
pub(crate) fn revocation(row: &Row) -> Result<RevocationRecord> {
    let lease: [u8; 16] = get::<&[u8]>(row, 0)?.try_into().map_err(|error| damaged("lease", error))?;
    let holder = get::<Option<&str>>(row, 1)?.map(AgentName::new).transpose();
    let claims: Vec<Claim> = serde_json::from_str(get(row, 2)?).map_err(|error| damaged("claims", error))?;
    let revocation = Revocation {
        lease: LeaseId::from_bytes(lease),
        holder: holder.map_err(|error| damaged("holder", error))?,
        claims: claims.into(),
        by: author(row, 3)?,
        reason: text("reason", get(row, 4)?)?,
    };
    Ok(RevocationRecord { revocation, at: get(row, 5)? })
}

pub(crate) fn fenced_read(row: &Row, path: &DocumentPath, fence: &Fence) -> Result<FencedRead> {
    match get::<i16>(row, column::OUTCOME)? {
        0 => Ok(FencedRead::Read(current(row, path)?)),
        5 => {
            let (by, reason) = revoked(row)?;
            Ok(FencedRead::Revoked { by, reason })
        }
        _ => Ok(FencedRead::Fenced(fenced(row, path, fence)?)),
    }
}

/// How a commit ended, and whether somebody waits to be told.
pub(crate) fn outcome(row: &Row, commit: &Commit) -> Result<(Outcome, bool)> {
    let in_the_way = || {
        let ordinal = usize::try_from(get::<i32>(row, column::ORDINAL)?).unwrap_or(0);
        let change = ordinal.checked_sub(1).and_then(|index| commit.changes.get(index));
        change.ok_or_else(|| damaged("ordinal", ordinal))
    };
    let refusal = match (get::<i16>(row, column::OUTCOME)?, &commit.fence, &commit.key) {
        (outcome @ (0 | 1), _, _) => {
            let revisions: Vec<i64> = get(row, column::REVISIONS)?;
            let revisions = commit.changes.iter().zip(revisions);
            let revisions =
                revisions.map(|(change, revision)| (change.path.clone(), Revision(revision.cast_unsigned())));
            let (cursor, replayed) = (Cursor(number(row, column::PLACE)?), outcome == 1);
            let committed = Committed { cursor, revisions: revisions.collect(), replayed };
            return Ok((Outcome::Committed(committed), get::<Option<bool>>(row, column::WATCHED)?.unwrap_or(false)));
        }
        (2, _, _) => {
            let change = in_the_way()?;
            let current = current(row, &change.path)?;
            let conflict = Conflict { path: change.path.clone(), precondition: change.precondition, current };
            Refusal::Conflict(Box::new(conflict))
        }
        (3, Some(fence), _) => Refusal::Fenced(fenced(row, &in_the_way()?.path, fence)?),
        (4, _, Some(key)) => Refusal::KeyReused { key: key.clone() },
        (5, Some(_), _) => {
            let (by, reason) = revoked(row)?;
            Refusal::Revoked { by, reason }
        }
        (6, _, _) => {
            let change = in_the_way()?;
            let (revision, left) = (Revision(number(row, column::DOCUMENT)?), change.size());
            let bytes = usize::try_from(number(row, column::BYTES)?).unwrap_or(usize::MAX);
            Refusal::Erodes(Erosion { path: change.path.clone(), revision, bytes, left })
        }
        (other, _, _) => return Err(damaged("outcome", other)),
    };
    Ok((Outcome::Refused(refusal), false))
}

/// A commit as its statement takes it.
pub(crate) struct CommitRow<'a> {
    pub(crate) paths: Vec<&'a str>,
    pub(crate) demands: Vec<i64>,
    /// None: it is deleted.
    pub(crate) kinds: Vec<Option<i16>>,
    pub(crate) contents: Vec<Option<&'a [u8]>>,
    /// None: as it was; -1: never; else milliseconds.
    pub(crate) ttls: Vec<Option<i64>>,
    pub(crate) guards: Vec<bool>,
    pub(crate) fence: FenceRow<'a>,
    pub(crate) message: Option<&'a [u8]>,
    pub(crate) key: Option<&'a str>,
    pub(crate) fingerprint: Option<Vec<u8>>,
}

/// A token as its three columns.
#[derive(Clone, Copy, Default)]
pub(crate) struct FenceRow<'a> {
    pub(crate) epoch: Option<i64>,
    pub(crate) counter: Option<i64>,
    pub(crate) owner: Option<&'a [u8]>,
}

impl<'a> FenceRow<'a> {
    /// The database's numbers have a sign. No lock engine counts that far; one that did must not seem to be behind.
    pub(crate) fn new(token: &'a FencingToken, subject: &str) -> std::result::Result<Self, EngineError> {
        if let (Ok(epoch), Ok(counter)) = (i64::try_from(token.epoch), i64::try_from(token.counter)) {
            return Ok(Self { epoch: Some(epoch), counter: Some(counter), owner: Some(token.owner.as_bytes()) });
        }
        let kind = TroubleKind::Failed(format!("the fencing token {token} is beyond what it can compare"));
        Err(EngineError::new(subject, kind, "use a lock engine that counts below 2^63"))
    }
}

impl<'a> CommitRow<'a> {
    pub(crate) fn new(commit: &'a Commit, subject: &str) -> std::result::Result<Self, EngineError> {
        let fence = commit.fence.as_ref().map(|fence| FenceRow::new(&fence.token, subject)).transpose()?;
        let changes = || commit.changes.iter();
        Ok(Self {
            paths: changes().map(|change| change.path.as_str()).collect(),
            demands: changes().map(|change| demand(change.precondition)).collect(),
            kinds: changes()
                .map(|change| match &change.action {
                    Action::Put(content) => Some(i16::from(content.kind() == Kind::Json)),
                    Action::Delete => None,
                })
                .collect(),
            contents: changes()
                .map(|change| match &change.action {
                    Action::Put(content) => Some(content.as_str().as_bytes()),
                    Action::Delete => None,
                })
                .collect(),
            ttls: changes().map(|change| ttl(change.expiry)).collect(),
            guards: changes().map(|change| change.guarded).collect(),
            fence: fence.unwrap_or_default(),
            message: commit.message.as_deref().map(str::as_bytes),
            key: commit.key.as_ref().map(mutext_contract::IdempotencyKey::as_str),
            fingerprint: commit.key.is_some().then(|| fingerprint(commit)),
        })
    }
}

const fn ttl(expiry: Expiry) -> Option<i64> {
    match expiry {
        Expiry::Keep => None,
        Expiry::Never => Some(-1),
        // Beyond what an interval can hold is as good as never.
        Expiry::After(ttl) if ttl.as_secs() > 100 * 366 * 24 * 60 * 60 => Some(-1),
        Expiry::After(ttl) => Some(ttl.as_millis().cast_signed() as i64),
    }
}

/// -1 demands nothing, 0 that there is none. No document ever stands at revision 0, or at the last number that there
/// is: a demand for either is never met.
fn demand(precondition: Precondition) -> i64 {
    match precondition {
        Precondition::Any => -1,
        Precondition::Absent => 0,
        Precondition::Exact(Revision(0)) => i64::MAX,
        Precondition::Exact(revision) => i64::try_from(revision.0).unwrap_or(i64::MAX),
    }
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

/// The first text after all that begin with `prefix`, in byte order.
pub(crate) fn end_of(prefix: &str) -> String {
    let mut characters: Vec<char> = prefix.chars().collect();
    while let Some(last) = characters.pop() {
        // A range of characters steps over the numbers that are none.
        if let Some(next) = (last..=char::MAX).nth(1) {
            characters.push(next);
            return characters.into_iter().collect();
        }
    }
    // Longer than any path, of the last character: after all.
    std::iter::repeat_n(char::MAX, mutext_contract::PATH_BYTES_MAX / 4 + 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_after_all_that_begin_with_it_and_before_the_next() {
        for (prefix, end) in [("a", "b"), ("tasks/", "tasks0"), ("é", "ê"), ("\u{d7ff}", "\u{e000}")] {
            assert_eq!(end_of(prefix), end);
        }
        assert_eq!(end_of("a\u{10ffff}"), "b");
        assert!(end_of("").as_str() > "\u{10ffff}".repeat(128).as_str());
    }

    #[test]
    fn a_revision_that_never_was_is_never_met() {
        assert_eq!(demand(Precondition::Exact(Revision(0))), i64::MAX);
        assert_eq!(demand(Precondition::Exact(Revision(u64::MAX))), i64::MAX);
        assert_eq!(demand(Precondition::Exact(Revision(7))), 7);
        assert_eq!((demand(Precondition::Any), demand(Precondition::Absent)), (-1, 0));
    }
}
