//! What Redis and its client say, in the contract's words.

use mutext_contract::{Effect, EngineError, TroubleKind};
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// What went wrong with `subject`, and what to do about it. What was asked may have happened where the connection
/// broke; the caller says so with [`EngineError::with_effect`].
pub(crate) fn explain(subject: &str, error: RedisError) -> EngineError {
    let said = || error.detail().map_or_else(|| error.to_string(), str::to_owned);
    let code = error.code().unwrap_or_default().to_owned();
    let (kind, remedy) = match (error.kind(), code.as_str()) {
        (ErrorKind::AuthenticationFailed, _) | (_, "WRONGPASS" | "NOAUTH") => (
            TroubleKind::Misconfigured("the user or the password is refused".to_owned()),
            "give them in the address, as in redis://USER:PASSWORD@HOST",
        ),
        (ErrorKind::Server(ServerErrorKind::NoPerm), _) => (
            TroubleKind::Misconfigured(format!("the user may not do what locks need: {}", said())),
            "give the user the commands, keys and channels that conf/redis.conf names",
        ),
        (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => (
            TroubleKind::ReadOnly,
            "it is a replica: name the primary, which its INFO replication names as master_host",
        ),
        (ErrorKind::Server(ServerErrorKind::BusyLoading), _) => {
            (TroubleKind::Unavailable, "it loads its data; try again in a moment")
        }
        (_, "OOM") => (TroubleKind::Full, "raise its maxmemory, or give the locks a server of their own"),
        (_, "MISCONF") => (TroubleKind::Full, "it cannot save to its disk: make room, and see its log"),
        (_, "NOREPLICAS") => {
            (TroubleKind::Unavailable, "too few replicas are in touch (min-replicas-to-write): bring them back")
        }
        (_, "BUSY") => (TroubleKind::Busy, "a script of somebody else holds it up; see SCRIPT KILL"),
        (ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::CrossSlot | ServerErrorKind::ClusterDown), _) => {
            let what = "it is a node of a Redis Cluster, and this address speaks to a single server";
            (TroubleKind::Misconfigured(what.to_owned()), "write redis+cluster://HOST:PORT for a cluster")
        }
        (ErrorKind::Server(_), _) if said().contains("cluster support disabled") => (
            TroubleKind::Misconfigured("it is no node of a Redis Cluster".to_owned()),
            "write redis://HOST:PORT for a single server",
        ),
        (ErrorKind::InvalidClientConfig, _) => (TroubleKind::Misconfigured(said()), "mend the address"),
        (ErrorKind::RESP3NotSupported, _) => (
            TroubleKind::Misconfigured("it is older than Redis 6".to_owned()),
            "Mutext needs Redis 6.2 or later, or Valkey",
        ),
        _ if error.to_string().contains("certificate") => (
            TroubleKind::Misconfigured(format!("its certificate is not trusted here: {error}")),
            "name the authority that signed it with ?tls_ca=FILE, and the host as the certificate names it",
        ),
        _ if error.is_io_error() || error.is_connection_dropped() || error.is_timeout() => {
            (TroubleKind::Unavailable, "see that the server runs and can be reached from here")
        }
        (ErrorKind::Server(_), _) if said().contains("DB index") => (
            TroubleKind::Misconfigured("it has no database of that number".to_owned()),
            "name one that it has, as in redis://HOST/0; its setting `databases` says how many",
        ),
        (ErrorKind::Parse, _) => (
            TroubleKind::Misconfigured("what answers there does not speak as Redis does".to_owned()),
            "see that host and port are those of a Redis server, and that no proxy is in between",
        ),
        _ => (TroubleKind::Failed(error.to_string()), ""),
    };
    EngineError::new(subject, kind, remedy).caused_by(error)
}

/// Whether trying again may help: the server is down, starts, or has dropped the connection.
pub(crate) fn is_passing(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_connection_dropped()
        || error.is_connection_refusal()
        || error.is_timeout()
        || matches!(error.kind(), ErrorKind::Server(ServerErrorKind::BusyLoading | ServerErrorKind::TryAgain))
}

/// Whether another server takes the place of this one, which has refused and done nothing.
pub(crate) fn is_failover(error: &RedisError) -> bool {
    let text = || error.to_string();
    matches!(error.kind(), ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown | ServerErrorKind::ClusterDown))
        || error.code() == Some("NOREPLICAS")
        // Within a script, an older server says it in its own words.
        || text().contains("READONLY")
        || text().contains("NOREPLICAS")
}

/// Whether the slot is on its way from one node to another, and nothing was done.
pub(crate) fn is_on_its_way(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::TryAgain))
}

/// Whether the connection broke: what was asked may have happened.
pub(crate) fn is_broken(error: &RedisError) -> bool {
    error.is_io_error() || error.is_connection_dropped() || error.is_timeout()
}

/// Nothing was answered before the deadline.
pub(crate) fn unanswered(subject: &str) -> EngineError {
    EngineError::new(subject, TroubleKind::Unavailable, "it did not answer in time; see that it runs and is not stuck")
        .with_effect(Effect::Unknown)
}
