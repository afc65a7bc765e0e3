//! What etcd and its client say, in the contract's words.

use std::error::Error;

use mutext_contract::{Effect, EngineError, TroubleKind};
use tonic::{Code, Status};

/// What went wrong with `subject`, and what to do about it.
pub(crate) fn explain(subject: &str, status: Status) -> EngineError {
    let said = status.message().to_owned();
    let says = |what: &str| said.contains(what);
    let (kind, remedy) = match status.code() {
        _ if says("authentication failed") => (
            TroubleKind::Misconfigured("the user or the password is refused".to_owned()),
            "give them in the address, as in etcd://USER:PASSWORD@HOST",
        ),
        _ if says("user name is empty") => (
            TroubleKind::Misconfigured("it wants a user and a password".to_owned()),
            "give them in the address, as in etcd://USER:PASSWORD@HOST",
        ),
        Code::PermissionDenied => (
            TroubleKind::Misconfigured(format!("the user may not do what locks need: {said}")),
            "give the user's role readwrite on the prefix, as in `etcdctl role grant-permission ROLE readwrite --prefix=true mutext/`",
        ),
        _ if says("database space exceeded") => (
            TroubleKind::Full,
            "compact and defragment it, raise its quota-backend-bytes, then disarm the alarm (`etcdctl alarm disarm`)",
        ),
        Code::ResourceExhausted => (TroubleKind::Busy, "it refuses more than it can do at once; try again in a moment"),
        Code::Unimplemented => (
            TroubleKind::Misconfigured("it does not speak etcd's v3 protocol".to_owned()),
            "name a server of etcd 3.4 or later",
        ),
        Code::Unavailable if says("no leader") => (
            TroubleKind::Unavailable,
            "its members elect no leader: see that a majority of them runs and that they reach each other",
        ),
        _ if is_certificate(&status) => (
            TroubleKind::Misconfigured(format!(
                "its certificate is not trusted here, or ours not there: {}",
                chain(&status)
            )),
            "name the authority that signed it with ?tls_ca=FILE, and the host as the certificate names it",
        ),
        _ if is_passing(&status) => {
            (TroubleKind::Unavailable, "see that a majority of its members runs and can be reached from here")
        }
        code => (TroubleKind::Failed(format!("{said} ({code:?})")), ""),
    };
    EngineError::new(subject, kind, remedy).caused_by(status)
}

/// Whether another try, perhaps with another member, may help.
pub(crate) fn is_passing(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::Cancelled | Code::Aborted | Code::DeadlineExceeded => !is_certificate(status),
        // A connection that broke under the question, and not something that a server says.
        Code::Unknown | Code::Internal => status.source().is_some() && !is_certificate(status),
        _ => false,
    }
}

/// Whether nothing can have come of it: no connection was had.
pub(crate) fn is_without_effect(status: &Status) -> bool {
    let text = chain(status).to_lowercase();
    ["connection refused", "tcp connect error", "dns error", "failed to lookup"].iter().any(|part| text.contains(part))
}

/// Whether logging in again may help: etcd forgets who has logged in when it restarts, and after a while.
pub(crate) fn wants_login(status: &Status) -> bool {
    status.code() == Code::Unauthenticated
        || ["invalid auth token", "revision of auth store is old", "user name is empty"]
            .iter()
            .any(|part| status.message().contains(part))
}

/// Whether the etcd lease that a key was to be bound to is gone.
pub(crate) fn is_lease_gone(error: &EngineError) -> bool {
    let status = error.source.as_ref().and_then(|source| source.downcast_ref::<Status>());
    status.is_some_and(|status| status.code() == Code::NotFound && status.message().contains("lease not found"))
}

fn is_certificate(status: &Status) -> bool {
    let text = chain(status);
    ["certificate", "UnknownIssuer", "NotValidForName", "HandshakeFailure", "InvalidContentType", "CertificateRequired"]
        .iter()
        .any(|part| text.contains(part))
}

/// All that the client says about it, from the outside in.
fn chain(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = status.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// Nothing was answered before the deadline.
pub(crate) fn unanswered(subject: &str) -> EngineError {
    EngineError::new(subject, TroubleKind::Unavailable, "it did not answer in time; see that it runs and is not stuck")
        .with_effect(Effect::Unknown)
}

/// Something lies there that we did not write.
pub(crate) fn unreadable(subject: &str, what: &str) -> EngineError {
    EngineError::new(
        subject,
        TroubleKind::Failed(format!("it holds {what} that is not what Mutext writes")),
        "see whether another program writes keys of this prefix; name another with ?prefix=NAME",
    )
}
