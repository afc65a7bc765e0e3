//! What goes wrong with a server: whether trying again helps, and what to tell people.

use std::error::Error as StdError;
use std::io;

use mutext_contract::{EngineError, TroubleKind};
use tokio_postgres::Error;
use tokio_postgres::error::{Severity, SqlState};

use crate::tls::TlsTrouble;

/// What to do about a failed step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Try again at once: the server undid it, because of what others did at the same time.
    Again,
    /// Try again on another connection, once there is one: this one is gone, and whether the step happened is unknown.
    Reconnect,
    /// Try again later: the server cannot take another connection right now.
    Later,
    /// Give up: the server undid it, and will again.
    GiveUp,
}

/// What to do about an error of a step that was sent to the server.
pub(crate) fn next(error: &Error) -> Next {
    let Some(db) = error.as_db_error() else {
        // Not the server's words: the connection broke.
        return if is_ours(error) { Next::GiveUp } else { Next::Reconnect };
    };
    let code = db.code();
    if [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED].contains(code) {
        return Next::Again;
    }
    // Another commit has used the key meanwhile: the next try sees which.
    if *code == SqlState::UNIQUE_VIOLATION && matches!(db.constraint(), Some("revisions_by_key" | "keys_pkey")) {
        return Next::Again;
    }
    // A schema that was migrated meanwhile: the prepared statement is of no use any more.
    if *code == SqlState::FEATURE_NOT_SUPPORTED && db.message().contains("cached plan") {
        return Next::Reconnect;
    }
    // The server ends a session with its last words.
    let fatal = matches!(db.parsed_severity(), Some(Severity::Fatal | Severity::Panic));
    if fatal || is_going_away(code) {
        return Next::Reconnect;
    }
    if *code == SqlState::TOO_MANY_CONNECTIONS {
        return Next::Later;
    }
    Next::GiveUp
}

fn is_going_away(code: &SqlState) -> bool {
    [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW].contains(code)
        || code.code().starts_with("08")
}

/// What to do about an error of connecting.
pub(crate) fn next_connect(error: &Error) -> Next {
    match error.as_db_error() {
        Some(db) if is_going_away(db.code()) || *db.code() == SqlState::TOO_MANY_CONNECTIONS => Next::Later,
        Some(_) => Next::GiveUp,
        None => match (tls_trouble(error), io_error(error)) {
            // The one kind that says that the certificate, or what was agreed on, is not good.
            (Some(TlsTrouble::Handshake(trouble)), _) if trouble.kind() != io::ErrorKind::InvalidData => Next::Later,
            (None, Some(_)) => Next::Later,
            _ if error.is_closed() => Next::Later,
            _ => Next::GiveUp,
        },
    }
}

/// Whether the server is up and not ready yet, or stops.
pub(crate) fn is_starting(error: &Error) -> bool {
    error.code().is_some_and(is_going_away)
}

/// Whether the error is one of encoding or decoding in this process: nothing went wrong with the connection.
fn is_ours(error: &Error) -> bool {
    !error.is_closed() && io_error(error).is_none()
}

fn source<E: StdError + 'static>(error: &Error) -> Option<&E> {
    let mut source: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(cause) = source {
        if let Some(found) = cause.downcast_ref() {
            return Some(found);
        }
        source = cause.source();
    }
    None
}

fn io_error(error: &Error) -> Option<&io::Error> {
    source(error)
}

fn tls_trouble(error: &Error) -> Option<&TlsTrouble> {
    source(error)
}

/// What an error means, for people.
pub(crate) fn told(subject: &str, error: Error) -> EngineError {
    let (kind, remedy) = match error.as_db_error() {
        Some(db) => of_server(db.code(), db.message()),
        None => of_connection(&error),
    };
    EngineError::new(subject, kind, remedy).caused_by(error)
}

fn of_connection(error: &Error) -> (TroubleKind, &'static str) {
    if let Some(trouble) = tls_trouble(error) {
        let remedy = "check sslmode and sslrootcert: the server's certificate must be signed by that root and, for \
                      verify-full, name the host";
        return (TroubleKind::Misconfigured(trouble.to_string()), remedy);
    }
    let said = error.to_string();
    if said.contains("TLS") {
        let kind = TroubleKind::Misconfigured(describe(error));
        return (kind, "give the server a certificate (ssl = on), or use another sslmode");
    }
    if said.contains("authentication") || said.contains("password") || said.contains("configuration") {
        return (TroubleKind::Misconfigured(describe(error)), "check user and password in the address");
    }
    if is_ours(error) {
        return (TroubleKind::Failed(describe(error)), "");
    }
    (TroubleKind::Unavailable, "see whether PostgreSQL runs there, and whether host and port are right")
}

fn of_server(code: &SqlState, message: &str) -> (TroubleKind, &'static str) {
    let misconfigured = || TroubleKind::Misconfigured(message.to_owned());
    match code.code() {
        "28P01" | "28000" => (misconfigured(), "check user and password in the address, and the server's pg_hba.conf"),
        "3D000" => (misconfigured(), "create it with `createdb NAME`, or name another database in the address"),
        "42501" => (
            misconfigured(),
            "let an administrator GRANT CREATE ON DATABASE to this user, or create the schema and grant its use: see \
             docs/engines/postgres.md",
        ),
        "3F000" | "42P01" | "42883" | "42704" => {
            let remedy = "the schema is gone or incomplete: restore it, or open the store again to make a new one; or a \
                          newer Mutext has raised it: upgrade this one too";
            (misconfigured(), remedy)
        }
        "42P07" | "42723" | "42710" => {
            (misconfigured(), "the schema has another program's tables: name another one with ?schema=NAME")
        }
        "26000" | "42P05" => (
            misconfigured(),
            "a pooler that shares connections between statements is in between: connect to the server itself, or set \
             the pooler to session mode",
        ),
        "25006" => (TroubleKind::ReadOnly, "connect to the primary server, and see that the database may be written"),
        "53100" => (TroubleKind::Full, "make room on the server's disk and try again"),
        "53300" => (
            TroubleKind::Busy,
            "the server has no connection left: lower ?pool=N in each process, or raise max_connections",
        ),
        "57014" | "55P03" => (TroubleKind::Busy, "look for a session that holds locks, or allow more time"),
        "57P01" | "57P02" | "57P03" => (TroubleKind::Unavailable, "the server is stopping or starting; try again"),
        "XX001" | "XX002" | "58030" => {
            (TroubleKind::Corrupt, "the server reports damage: see its log, and restore from a backup")
        }
        _ => (TroubleKind::Failed(message.to_owned()), ""),
    }
}

/// The error with its causes, in one line.
fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}
