//! SQLite as both engines use it: opening, waiting for the write lock until a deadline, and errors with a remedy.

use std::path::Path;
use std::time::Duration;

use mutext_contract::{Deadline, Effect, EngineError, TroubleKind};
use rusqlite::{Connection, ErrorCode, OpenFlags};

/// How long an operation may wait for another process's write, beyond its own deadline: a try without waiting must
/// not fail only because somebody is writing at that very moment.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// How durable a commit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    /// Survives power loss: synced before it is acknowledged.
    Full,
    /// Survives the death of any process; after power loss the last commits may be missing, and nothing is damaged.
    Normal,
    /// Survives the death of any process; after power loss the file may be damaged.
    Off,
}

impl Sync {
    pub(crate) const fn pragma(self) -> &'static str {
        match self {
            Self::Full => "PRAGMA synchronous = FULL",
            Self::Normal => "PRAGMA synchronous = NORMAL",
            Self::Off => "PRAGMA synchronous = OFF",
        }
    }
}

/// One step of a schema: its statements, run in the transaction that raises the version.
pub(crate) type Migration = &'static str;

/// What a database file is: its mark, the name of its kind, and its schema's steps.
#[derive(Debug)]
pub(crate) struct Schema {
    pub(crate) application_id: i32,
    pub(crate) migrations: &'static [Migration],
}

/// Opens `file`, brings its schema up to date, and sets it up for many processes.
pub(crate) fn open(file: &Path, schema: &Schema, sync: Sync, deadline: Deadline) -> Result<Connection, EngineError> {
    let translate = |error| trouble(file, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags).map_err(translate)?;
    connection.busy_timeout(Duration::ZERO).map_err(translate)?;
    connection.set_prepared_statement_cache_capacity(64);
    // Before the first write, be it only to the file's journal mode: it may be somebody else's database.
    version(&connection, file, schema, deadline)?;
    let mode = retry(file, deadline, || {
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))
    })?;
    if mode != "wal" {
        let kind = TroubleKind::Misconfigured(format!("its file system allows no write-ahead log (mode {mode})"));
        return Err(EngineError::new(file.display().to_string(), kind, "put the store on a local file system"));
    }
    connection.execute_batch(sync.pragma()).map_err(translate)?;
    connection.execute_batch("PRAGMA temp_store = MEMORY; PRAGMA cache_size = -16000").map_err(translate)?;
    migrate(&connection, file, schema, deadline)?;
    Ok(connection)
}

/// The schema's version in the file; refuses other programs' databases and newer versions.
fn version(connection: &Connection, file: &Path, schema: &Schema, deadline: Deadline) -> Result<usize, EngineError> {
    // One statement, one snapshot: another process may migrate between two of them.
    let sql = "SELECT (SELECT application_id FROM pragma_application_id),
                      (SELECT user_version FROM pragma_user_version),
                      (SELECT count(*) FROM sqlite_schema)";
    let read = || connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let (id, version, objects): (i32, i32, i64) = retry(file, deadline, read)?;
    if id != schema.application_id && (id, version, objects) != (0, 0, 0) {
        return Err(not_ours(file));
    }
    let (found, known) = (u32::try_from(version).unwrap_or(u32::MAX), schema.migrations.len());
    match usize::try_from(found) {
        Ok(version) if version <= known => Ok(version),
        _ => {
            let kind = TroubleKind::TooNew { found, known: u32::try_from(known).unwrap_or(u32::MAX) };
            Err(EngineError::new(file.display().to_string(), kind, "use the newer Mutext that wrote it"))
        }
    }
}

fn migrate(connection: &Connection, file: &Path, schema: &Schema, deadline: Deadline) -> Result<(), EngineError> {
    let translate = |error| trouble(file, error);
    let known = schema.migrations.len();
    if version(connection, file, schema, deadline)? == known {
        return Ok(());
    }
    begin(connection, file, deadline)?;
    // Another process may have migrated between the first look and this one.
    let outcome = version(connection, file, schema, deadline).and_then(|version| {
        for step in &schema.migrations[version..] {
            connection.execute_batch(step).map_err(translate)?;
        }
        connection.pragma_update(None, "application_id", schema.application_id).map_err(translate)?;
        connection.pragma_update(None, "user_version", u32::try_from(known).unwrap_or(u32::MAX)).map_err(translate)?;
        connection.execute_batch("COMMIT").map_err(translate)
    });
    if outcome.is_err() {
        rollback(connection);
    }
    outcome
}

fn not_ours(file: &Path) -> EngineError {
    EngineError::new(
        file.display().to_string(),
        TroubleKind::Corrupt,
        "it is a database of another program; nothing was changed: name another store directory",
    )
}

/// `BEGIN IMMEDIATE`: the write lock, or `Busy` once the deadline has passed. Other writers hold it for a commit's
/// length, so that short pauses that grow a little find the gap.
pub(crate) fn begin(connection: &Connection, file: &Path, deadline: Deadline) -> Result<(), EngineError> {
    retry(file, deadline, || connection.execute_batch("BEGIN IMMEDIATE"))
}

/// Runs `step` again while others keep the database busy, until the deadline.
pub(crate) fn retry<T>(
    file: &Path,
    deadline: Deadline,
    mut step: impl FnMut() -> rusqlite::Result<T>,
) -> Result<T, EngineError> {
    let mut pause = Duration::from_micros(30);
    loop {
        match step() {
            Ok(value) => return Ok(value),
            Err(error) if is_busy(&error) && !deadline.has_passed() => {
                std::thread::sleep(pause.mul_f64(rand::random_range(0.5..1.5)));
                pause = (pause * 3 / 2).min(Duration::from_millis(2));
            }
            Err(error) => return Err(trouble(file, error)),
        }
    }
}

/// Leaves whatever transaction is open; the connection is good for the next one.
pub(crate) fn rollback(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        tracing::warn!(%error, "a transaction could not be rolled back");
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// What a SQLite error means, on which file, and what to do about it.
pub(crate) fn trouble(file: &Path, error: rusqlite::Error) -> EngineError {
    let (kind, remedy) = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (TroubleKind::Busy, "look for a stopped process that uses this store, or allow more time")
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            (TroubleKind::ReadOnly, "make the store directory and the files in it writable, or name another store")
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => (
            TroubleKind::Corrupt,
            "nothing was changed; move the file away and put a backup in its place, or salvage it with `sqlite3 FILE .recover`",
        ),
        Some(ErrorCode::DiskFull) => (TroubleKind::Full, "make room on the disk and try again"),
        Some(ErrorCode::CannotOpen) => {
            (TroubleKind::Unavailable, "see that the store directory exists and may be read and written")
        }
        _ => (TroubleKind::Failed(error.to_string()), ""),
    };
    EngineError::new(file.display().to_string(), kind, remedy).caused_by(error)
}

/// What a failed `COMMIT` means: where the disk gave up half-way, it may have happened.
pub(crate) fn commit_trouble(file: &Path, error: rusqlite::Error) -> EngineError {
    let certain = matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DiskFull | ErrorCode::ReadOnly | ErrorCode::ConstraintViolation)
    );
    trouble(file, error).with_effect(if certain { Effect::None } else { Effect::Unknown })
}
