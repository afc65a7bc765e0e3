//! Leases that operators broke, as rows: asked in every fenced transaction, and listed as the audit.

use mutext_contract::{AgentName, Claim, ContextName, LeaseId, Revocation, RevocationRecord};
use rusqlite::{Connection, OptionalExtension, Result, params};

use crate::document_rows::{author, damaged, now, time};

/// Who broke the lease, and why; none where it was not broken.
pub(crate) fn of(
    connection: &Connection,
    context: &ContextName,
    lease: LeaseId,
) -> Result<Option<(AgentName, String)>> {
    let sql = "SELECT author, reason FROM revocations WHERE context = ?1 AND lease = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let by_and_reason = |row: &rusqlite::Row<'_>| Ok((author(row, 0)?, row.get(1)?));
    statement.query_row(params![context.as_str(), lease.as_bytes()], by_and_reason).optional()
}

/// Writes a revocation down; the first of a lease stands.
pub(crate) fn insert(connection: &Connection, context: &ContextName, revocation: &Revocation) -> Result<()> {
    let sql = "INSERT INTO revocations (context, lease, number, holder, claims, author, reason, at)
               VALUES (?1, ?2, (SELECT coalesce(max(number), 0) + 1 FROM revocations WHERE context = ?1),
                   ?3, ?4, ?5, ?6, ?7)
               ON CONFLICT (context, lease) DO NOTHING";
    let claims = serde_json::to_string(&revocation.claims[..])
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    connection.prepare_cached(sql)?.execute(params![
        context.as_str(),
        revocation.lease.as_bytes(),
        revocation.holder.as_ref().map(AgentName::as_str),
        claims,
        revocation.by.as_str(),
        revocation.reason,
        now()
    ])?;
    Ok(())
}

/// At most `limit` revocations, newest first.
pub(crate) fn list(connection: &Connection, context: &ContextName, limit: usize) -> Result<Vec<RevocationRecord>> {
    let sql = "SELECT lease, holder, claims, author, reason, at FROM revocations
               WHERE context = ?1 ORDER BY number DESC LIMIT ?2";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![context.as_str(), limit], |row| {
        let (holder, claims): (Option<String>, String) = (row.get(1)?, row.get(2)?);
        let claims: Vec<Claim> = serde_json::from_str(&claims).map_err(|error| damaged(2, error))?;
        let revocation = Revocation {
            lease: LeaseId::from_bytes(row.get(0)?),
            holder: holder.map(AgentName::new).transpose().map_err(|error| damaged(1, error))?,
            claims: claims.into(),
            by: author(row, 3)?,
            reason: row.get(4)?,
        };
        Ok(RevocationRecord { revocation, at: time(row, 5)? })
    })?;
    rows.collect()
}
