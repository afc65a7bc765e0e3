//! What Consul says, in the contract's words.

use mutext_contract::{Effect, EngineError, TroubleKind};

use crate::http::HttpTrouble;
use crate::kv::CallTrouble;

/// What went wrong with `subject`, and what to do about it.
pub(crate) fn explain(subject: &str, trouble: CallTrouble) -> EngineError {
    let misconfigured = |what: String, remedy| (TroubleKind::Misconfigured(what), remedy);
    let (kind, remedy) = match &trouble {
        CallTrouble::Http(HttpTrouble::Tls { source, .. }) => misconfigured(
            format!("TLS could not be agreed on: {source}"),
            "name the authority that signed its certificate with ?tls_ca=FILE, and the host as the certificate names it",
        ),
        CallTrouble::Http(_) => {
            (TroubleKind::Unavailable, "see that an agent runs and can be reached from here, as in consul://HOST:8500")
        }
        CallTrouble::Refused { status: 403, said } if said.contains("ACL not found") => misconfigured(
            "it does not know the token".to_owned(),
            "give one that it knows, as in consul://:TOKEN@HOST or ?token_file=FILE",
        ),
        CallTrouble::Refused { status: 403, said } => misconfigured(
            format!("the token may not do what locks need: {said}"),
            "give a token whose policy has key_prefix \"mutext/\" and session_prefix \"\" with policy = \"write\"",
        ),
        CallTrouble::Refused { status: 400, said } if said.contains("HTTP request to an HTTPS server") => {
            misconfigured("it speaks TLS".to_owned(), "write consuls:// instead")
        }
        CallTrouble::Refused { said, .. } if said.contains("Invalid Session TTL") => misconfigured(
            format!("it does not let a session last so short: {said}"),
            "raise ?session_ttl=SECONDS, or lower session_ttl_min in the configuration of its servers",
        ),
        CallTrouble::Refused { status: 413, .. } => {
            (TroubleKind::Full, "the context has more leases and waiters than one key holds; spread them over contexts")
        }
        CallTrouble::Refused { status, said } if *status == 429 || *status >= 500 => {
            tracing::debug!(status, said, "Consul is not at work");
            (TroubleKind::Unavailable, "see that its servers have a leader: `consul operator raft list-peers`")
        }
        CallTrouble::Refused { .. } | CallTrouble::Unreadable(_) => (TroubleKind::Failed(trouble.to_string()), ""),
    };
    let effect = if trouble.may_have_happened() { Effect::Unknown } else { Effect::None };
    EngineError::new(subject, kind, remedy).with_effect(effect).caused_by(trouble)
}

/// Nothing was answered before the deadline.
pub(crate) fn unanswered(subject: &str) -> EngineError {
    EngineError::new(subject, TroubleKind::Unavailable, "it did not answer in time; see that it runs and has a leader")
        .with_effect(Effect::Unknown)
}

/// What lies in a context's key is not a lock table.
pub(crate) fn unreadable(subject: &str, key: &str, what: &str) -> EngineError {
    let remedy = "remove the key while nobody uses the context: leases end, documents stay, a new epoch begins";
    EngineError::new(format!("{subject}, key {key} ({what})"), TroubleKind::Corrupt, remedy)
}
