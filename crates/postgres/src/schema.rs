//! The schema: made where there is none, raised where it is older, refused where it is newer; by one process at a time.

use mutext_contract::{Deadline, EngineError, TroubleKind};
use tokio::time::timeout_at;
use tokio_postgres::{Error, Row};

use crate::link::{Lent, Link};
use crate::names::Names;
use crate::trouble;

/// The steps of the schema. Each runs in the transaction that raises the version; none is ever changed.
const MIGRATIONS: [&str; 6] = [
    include_str!("schema.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    concat!(include_str!("schema_4.sql"), include_str!("schema_4_steps.sql")),
    include_str!("schema_5.sql"),
    include_str!("schema_6.sql"),
];
/// The oldest server that has what the schema needs.
const OLDEST_SERVER: i32 = 15;

/// The highest version of the schema that this build knows.
pub(crate) const VERSION: u32 = MIGRATIONS.len() as u32;

/// Looks at the server and brings the schema up to date.
pub(crate) async fn prepare(link: &Link, names: &Names, deadline: Deadline) -> Result<(), EngineError> {
    let mut lent = link.lend_at_opening(deadline).await?;
    let prepared = timeout_at(deadline.instant(), look_and_migrate(&mut lent, link.subject(), names)).await;
    match prepared {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            // It may be in a transaction.
            lent.discard();
            Err(error)
        }
        Err(_) => {
            lent.discard();
            let remedy = "another process sets the same schema up and does not go on, or the server hangs: look for \
                          sessions named mutext in pg_stat_activity";
            Err(EngineError::new(&**link.subject(), TroubleKind::Busy, remedy))
        }
    }
}

async fn look_and_migrate(lent: &mut Lent, subject: &str, names: &Names) -> Result<(), EngineError> {
    let told = |error: Error| trouble::told(subject, error);
    let look = "SELECT current_setting('server_version_num')::int / 10000, current_setting('server_encoding'),
                       pg_is_in_recovery() OR current_setting('transaction_read_only')::bool,
                       current_setting('transaction_isolation')";
    let row = only(lent.ask(look, &[]).await.map_err(told)?, subject)?;
    let (server, encoding, read_only, isolation): (i32, String, bool, String) =
        (row.get(0), row.get(1), row.get(2), row.get(3));
    let misconfigured = |what: String, remedy| EngineError::new(subject, TroubleKind::Misconfigured(what), remedy);
    if server < OLDEST_SERVER {
        let what = format!("the server is PostgreSQL {server}, and Mutext needs {OLDEST_SERVER} or later");
        return Err(misconfigured(what, "upgrade the server, or name another one"));
    }
    // SQL_ASCII takes bytes as they come.
    if !["UTF8", "SQL_ASCII"].contains(&encoding.as_str()) {
        let what = format!("the database's encoding is {encoding}, which not every path fits into");
        return Err(misconfigured(what, "create a database with ENCODING 'UTF8' and name it in the address"));
    }
    if isolation != "read committed" {
        // A session of our own is set to it; what comes through a pooler is not.
        let what = format!("transactions are {isolation}, and Mutext needs read committed");
        return Err(misconfigured(what, "ALTER ROLE … SET default_transaction_isolation = 'read committed'"));
    }
    if let Some(version) = version(lent, subject, names).await?
        && version == VERSION
    {
        return may_be_used(lent, subject, names).await;
    }
    if read_only {
        let remedy = "connect to the primary server, and see that the database may be written";
        return Err(EngineError::new(subject, TroubleKind::ReadOnly, remedy));
    }
    migrate(lent, subject, names).await
}

/// The one row of a statement that always has one.
fn only(rows: Vec<Row>, subject: &str) -> Result<Row, EngineError> {
    rows.into_iter()
        .next()
        .ok_or_else(|| EngineError::new(subject, TroubleKind::Failed("it answered without a row".to_owned()), ""))
}

/// The version that is there; none where there is no schema of ours.
async fn version(lent: &Lent, subject: &str, names: &Names) -> Result<Option<u32>, EngineError> {
    let told = |error: Error| trouble::told(subject, error);
    // In the catalogue itself: what a session has cached of it may be older than the lock that it has just waited for.
    let look =
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = $1 AND c.relname = 'mutext_schema')";
    let is_there = only(lent.ask(look, &[&names.plain()]).await.map_err(told)?, subject)?;
    if !is_there.get::<_, bool>(0) {
        return Ok(None);
    }
    let look = format!("SELECT version FROM {}.mutext_schema", names.schema);
    let row = only(lent.ask(&look, &[]).await.map_err(told)?, subject)?;
    let found = u32::try_from(row.get::<_, i32>(0)).unwrap_or(u32::MAX);
    if found > VERSION {
        let kind = TroubleKind::TooNew { found, known: VERSION };
        return Err(EngineError::new(subject, kind, "use the newer Mutext that wrote it, or name another schema"));
    }
    Ok(Some(found))
}

async fn migrate(lent: &mut Lent, subject: &str, names: &Names) -> Result<(), EngineError> {
    let told = |error: Error| trouble::told(subject, error);
    lent.batch_execute("BEGIN").await.map_err(told)?;
    // Processes that start at once do this one after the other.
    let lock = "SELECT pg_advisory_xact_lock($1, 1)";
    lent.ask(lock, &[&names.watch]).await.map_err(told)?;
    let found = version(lent, subject, names).await?;
    let schema = &names.schema;
    if found.is_none() {
        // Not `IF NOT EXISTS`: that asks for the right to make one even where there is one.
        let look = "SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1";
        let exists = lent.ask(look, &[&names.plain()]).await.map_err(told)?;
        if exists.is_empty() {
            lent.batch_execute(&format!("CREATE SCHEMA {schema}")).await.map_err(told)?;
        }
        let table = format!(
            "CREATE TABLE {schema}.mutext_schema (version integer NOT NULL);
             INSERT INTO {schema}.mutext_schema VALUES (0)"
        );
        lent.batch_execute(&table).await.map_err(told)?;
    }
    let from = found.unwrap_or(0);
    for step in &MIGRATIONS[from as usize..] {
        lent.batch_execute(&step.replace("{schema}", schema)).await.map_err(told)?;
    }
    let raise = format!("UPDATE {schema}.mutext_schema SET version = {VERSION}; COMMIT");
    lent.batch_execute(&raise).await.map_err(told)
}

/// Whether this user may do what is needed; or what it may not.
async fn may_be_used(lent: &Lent, subject: &str, names: &Names) -> Result<(), EngineError> {
    let sql = format!(
        "SELECT t.name, p.what
         FROM unnest(ARRAY['documents', 'revisions', 'epochs', 'revocations', 'contexts', 'keys', 'pages',
                 'lock_contexts', 'lock_claims', 'lock_waiters', 'lock_endings', 'lock_homes']) AS t (name),
             unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p (what)
         WHERE NOT (t.name = 'revocations' AND p.what = 'UPDATE')
             AND NOT (t.name IN ('documents', 'epochs', 'revocations', 'contexts', 'lock_contexts') AND p.what = 'DELETE')
             AND NOT has_table_privilege('{schema}.' || t.name, p.what)
         UNION ALL SELECT s.name, p.what FROM unnest(ARRAY['places', 'lock_numbers']) AS s (name),
             unnest(ARRAY['SELECT', 'USAGE']) AS p (what)
         WHERE NOT has_sequence_privilege('{schema}.' || s.name, p.what) LIMIT 1",
        schema = names.schema
    );
    let missing = lent.ask(&sql, &[]).await.map_err(|error| trouble::told(subject, error))?;
    let Some(row) = missing.first() else { return Ok(()) };
    let (table, what): (String, String) = (row.get(0), row.get(1));
    let kind = TroubleKind::Misconfigured(format!("this user has no right to {what} on {}.{table}", names.schema));
    let remedy = "let the schema's owner grant it: see docs/engines/postgres.md";
    Err(EngineError::new(subject, kind, remedy))
}
