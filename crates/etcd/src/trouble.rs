//! What etcd and its client say, in the contract's words.

use std::error::Error;
use std::fmt;

use mutext_contract::{Effect, EngineError, TroubleKind};
use tonic::{Code, Status};

/// What etcd or its client said, in words: the client's own texts are for those who look for its faults.
struct Said(Status);

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The layers above what the system says add nothing to it.
        const LAYERS: [&str; 4] = ["transport error", "tcp connect error", "error trying to connect", "http2 error"];
        let text = chain(&self.0);
        let said: Vec<&str> = text.split(": ").filter(|part| !part.is_empty() && !LAYERS.contains(part)).collect();
        match said[..] {
            [] => write!(f, "{}", if text.is_empty() { self.0.code().description() } else { &text }),
            _ => f.write_str(&said.join(": ")),
        }
    }
}

/// All that it says is said in one line.
impl Error for Said {}

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
        code => (TroubleKind::Failed(format!("{} ({code:?})", chain(&status))), ""),
    };
    EngineError::new(subject, kind, remedy).caused_by(Said(status))
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

/// Whether no connection was had, so that nothing of the member is known.
pub(crate) fn is_refused(error: &EngineError) -> bool {
    let said = error.source.as_ref().and_then(|source| source.downcast_ref::<Said>());
    said.is_some_and(|Said(status)| is_without_effect(status))
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
    let said = error.source.as_ref().and_then(|source| source.downcast_ref::<Said>());
    said.is_some_and(|Said(status)| status.code() == Code::NotFound && status.message().contains("lease not found"))
}

fn is_certificate(status: &Status) -> bool {
    let text = chain(status);
    ["certificate", "UnknownIssuer", "NotValidForName", "HandshakeFailure", "InvalidContentType", "CertificateRequired"]
        .iter()
        .any(|part| text.contains(part))
}

/// All that the client says about it, from the outside in, each thing once.
fn chain(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = status.source();
    while let Some(error) = source {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&said);
        }
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
