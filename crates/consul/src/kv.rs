//! The handful of Consul's calls that locks need, and what they answer.

use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::Method;
use hyper::body::Bytes;
use mutext_reach::encoded;
use serde::{Deserialize, Serialize};

use crate::http::{HttpTrouble, Question, Reply, SharedClient};
use crate::options::ConsulOptions;

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallTrouble {
    /// No answer.
    #[error(transparent)]
    Http(#[from] HttpTrouble),
    /// An answer that is none of those that were to be expected.
    #[error("it answered {status}: {said}")]
    Refused { status: u16, said: String },
    /// An answer that cannot be read.
    #[error("its answer cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

impl CallTrouble {
    /// Whether what was asked may have been done.
    pub(crate) const fn may_have_happened(&self) -> bool {
        match self {
            Self::Http(trouble) => trouble.may_have_happened(),
            // A leader that steps down does not know what becomes of what it was doing.
            Self::Refused { status, .. } => *status >= 500,
            Self::Unreadable(_) => true,
        }
    }

    /// Whether asking again may help.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Http(HttpTrouble::Tls { .. }) | Self::Unreadable(_) => false,
            Self::Http(_) => true,
            Self::Refused { status, said } => {
                *status == 429 || (*status >= 500 && !said.contains("Invalid Session TTL"))
            }
        }
    }
}

/// A key's value, and the index of what wrote it.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) key: String,
    pub(crate) value: Vec<u8>,
    pub(crate) index: u64,
}

/// What is below a prefix, and how far that had come.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) found: Vec<Found>,
    pub(crate) index: u64,
}

/// One step of a transaction.
#[derive(Debug, Clone)]
pub(crate) enum Step<'a> {
    /// The key is locked by this session.
    Check { key: String, session: &'a str },
    /// Writes, if the key was last written by `index`; zero where there must be none.
    Swap { key: String, value: &'a str, index: u64 },
    /// Writes, whatever is there.
    Set { key: String, value: &'a str },
    /// Takes the key for the session: refused while another has it, and for the lock-delay after another lost it.
    Lock { key: String, session: &'a str },
    /// Removes all below a prefix.
    Remove { prefix: String },
    /// The key is there.
    Exists { key: String },
}

/// How a transaction came out.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// All of it was done, under this index.
    Done { index: u64 },
    /// Nothing was done: these steps could not be, and why.
    Undone { steps: Vec<(usize, String)> },
}

#[derive(Serialize)]
struct Operation<'a> {
    #[serde(rename = "KV")]
    kv: Words<'a>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Words<'a> {
    verb: &'static str,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
}

impl Step<'_> {
    fn operation(&self) -> Operation<'_> {
        let none = Words::default();
        let kv = match self {
            Self::Check { key, session } => Words { verb: "check-session", key, session: Some(session), ..none },
            Self::Swap { key, value, index } => {
                Words { verb: "cas", key, value: Some(value), index: Some(*index), ..none }
            }
            Self::Set { key, value } => Words { verb: "set", key, value: Some(value), ..none },
            Self::Lock { key, session } => Words { verb: "lock", key, session: Some(session), ..none },
            Self::Remove { prefix } => Words { verb: "delete-tree", key: prefix, ..none },
            Self::Exists { key } => Words { verb: "get", key, ..none },
        };
        Operation { kv }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pair {
    key: String,
    value: Option<String>,
    modify_index: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TxnAnswer {
    results: Option<Vec<TxnResult>>,
    errors: Option<Vec<TxnError>>,
}

#[derive(Deserialize)]
struct TxnResult {
    #[serde(rename = "KV")]
    kv: Option<TxnKv>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TxnKv {
    modify_index: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TxnError {
    op_index: usize,
    what: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SessionMade {
    #[serde(rename = "ID")]
    id: String,
}

/// Bytes as a transaction's values are written.
pub(crate) fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

fn refused(reply: &Reply) -> CallTrouble {
    let said: String = String::from_utf8_lossy(&reply.body).trim().chars().take(300).collect();
    CallTrouble::Refused { status: reply.status, said }
}

/// A duration as Consul reads it.
fn span(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

/// Consul, as locks need it.
#[derive(Debug, Clone)]
pub(crate) struct Consul {
    client: SharedClient,
    /// `dc=NAME&`, where another datacentre is meant than the agent's.
    dc: String,
}

impl Consul {
    pub(crate) fn new(client: SharedClient, options: &ConsulOptions) -> Self {
        let dc = options.dc().map(|dc| format!("dc={}&", encoded(dc))).unwrap_or_default();
        Self { client, dc }
    }

    async fn ask(&self, method: Method, path: String, body: Bytes, patience: Duration) -> Result<Reply, CallTrouble> {
        Ok(self.client.ask(&Question { method, path, body }, patience).await?)
    }

    /// Any path that is only read.
    pub(crate) async fn read(&self, path: &str, patience: Duration) -> Result<Reply, CallTrouble> {
        let reply = self.ask(Method::GET, format!("{path}?{}", self.dc), Bytes::new(), patience).await?;
        if reply.status == 200 { Ok(reply) } else { Err(refused(&reply)) }
    }

    fn path(&self, key: &str) -> String {
        let mut path = "/v1/kv/".to_owned();
        for (number, part) in key.split('/').enumerate() {
            let slash = if number == 0 { "" } else { "/" };
            let _ = write!(path, "{slash}{}", encoded(part));
        }
        let _ = write!(path, "?{}", self.dc);
        path
    }

    /// A key's value, as a majority of the servers knows it; none where there is no such key.
    pub(crate) async fn get(&self, key: &str, patience: Duration) -> Result<Option<Found>, CallTrouble> {
        let reply = self.ask(Method::GET, format!("{}consistent", self.path(key)), Bytes::new(), patience).await?;
        Ok(listing(&reply)?.found.pop())
    }

    /// What is below `prefix`, as soon as it is not what it was at `index` any more, or after `wait`.
    pub(crate) async fn list(&self, prefix: &str, index: u64, wait: Duration) -> Result<Listing, CallTrouble> {
        let path = format!("{}recurse&index={index}&wait={}", self.path(prefix), span(wait));
        // Consul waits for a little longer than it is told, so that not all questions end at once.
        let patience = wait + wait / 16 + Duration::from_secs(5);
        let question = Question { method: Method::GET, path, body: Bytes::new() };
        listing(&self.client.listen(&question, patience).await?)
    }

    /// The names of all keys below `prefix`.
    pub(crate) async fn names(&self, prefix: &str, patience: Duration) -> Result<Vec<String>, CallTrouble> {
        let reply = self.ask(Method::GET, format!("{}keys", self.path(prefix)), Bytes::new(), patience).await?;
        match reply.status {
            200 => Ok(serde_json::from_slice(&reply.body)?),
            404 if reply.body.is_empty() => Ok(Vec::new()),
            _ => Err(refused(&reply)),
        }
    }

    /// All steps together, or none.
    pub(crate) async fn transact(&self, steps: &[Step<'_>], patience: Duration) -> Result<Outcome, CallTrouble> {
        let operations: Vec<Operation<'_>> = steps.iter().map(Step::operation).collect();
        let body = Bytes::from(serde_json::to_vec(&operations)?);
        let reply = self.ask(Method::PUT, format!("/v1/txn?{}", self.dc), body, patience).await?;
        if reply.status != 200 && reply.status != 409 {
            return Err(refused(&reply));
        }
        let answer: TxnAnswer = serde_json::from_slice(&reply.body)?;
        if let Some(errors) = answer.errors.filter(|errors| !errors.is_empty()) {
            let steps: Vec<(usize, String)> = errors.into_iter().map(|error| (error.op_index, error.what)).collect();
            return match steps.iter().find(|(_, what)| what.contains("Permission denied")) {
                Some((_, what)) => Err(CallTrouble::Refused { status: 403, said: what.clone() }),
                None => Ok(Outcome::Undone { steps }),
            };
        }
        let results = answer.results.unwrap_or_default();
        let index = results.iter().filter_map(|result| result.kv.as_ref()).map(|kv| kv.modify_index).max();
        Ok(Outcome::Done { index: index.unwrap_or(0) })
    }

    /// A new session, which depends on nothing but its renewal. Not on the health of the agent's node either: another
    /// agent may go on with it.
    pub(crate) async fn begin_session(
        &self,
        ttl: Duration,
        lock_delay: Duration,
        patience: Duration,
    ) -> Result<String, CallTrouble> {
        let body = serde_json::json!({
            "Name": "mutext", "TTL": span(ttl), "LockDelay": span(lock_delay), "Behavior": "delete", "NodeChecks": [],
        });
        let path = format!("/v1/session/create?{}", self.dc);
        let reply = self.ask(Method::PUT, path, Bytes::from(body.to_string()), patience).await?;
        if reply.status != 200 {
            return Err(refused(&reply));
        }
        Ok(serde_json::from_slice::<SessionMade>(&reply.body)?.id)
    }

    /// Renews a session; false where it is no more.
    pub(crate) async fn renew_session(&self, session: &str, patience: Duration) -> Result<bool, CallTrouble> {
        let path = format!("/v1/session/renew/{session}?{}", self.dc);
        let reply = self.ask(Method::PUT, path, Bytes::new(), patience).await?;
        match reply.status {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(refused(&reply)),
        }
    }

    /// Ends a session, and with it what it had locked.
    pub(crate) async fn end_session(&self, session: &str, patience: Duration) -> Result<(), CallTrouble> {
        let path = format!("/v1/session/destroy/{session}?{}", self.dc);
        let reply = self.ask(Method::PUT, path, Bytes::new(), patience).await?;
        if reply.status == 200 { Ok(()) } else { Err(refused(&reply)) }
    }
}

fn listing(reply: &Reply) -> Result<Listing, CallTrouble> {
    let index = reply.index.unwrap_or(0);
    // Nothing is there. An agent that cannot tell says 500.
    if reply.status == 404 && reply.body.is_empty() {
        return Ok(Listing { found: Vec::new(), index });
    }
    if reply.status != 200 {
        return Err(refused(reply));
    }
    let pairs: Vec<Pair> = serde_json::from_slice(&reply.body)?;
    let found = pairs.into_iter().map(|pair| {
        let value = pair.value.and_then(|value| BASE64.decode(value).ok()).unwrap_or_default();
        Found { key: pair.key, value, index: pair.modify_index }
    });
    Ok(Listing { found: found.collect(), index })
}
