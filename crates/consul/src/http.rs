//! Requests to one agent after the other: connections that are kept, made again, and never waited for without end.
//!
//! All of it runs on the engine's own thread. A request that nobody waits for any more takes its connection with it.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use mutext_contract::EngineError;
use mutext_reach::Host;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::options::ConsulOptions;
use crate::tls::Tls;

/// The largest answer that is read: a lock table is at most half a mebibyte, in a third more of text.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// The most questions under way at once, and with them the most connections, beside the one that listens: Consul lets
/// all processes of one machine have 200.
const ASKED_MAX: usize = 12;
/// The longest pause before something is asked again.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpTrouble {
    /// No agent could be connected to: nothing was asked.
    #[error("{agent}: {source}")]
    Connect { agent: Host, source: std::io::Error },
    /// No TLS with it: nothing was asked.
    #[error("{agent}: TLS could not be agreed on: {source}")]
    Tls { agent: Host, source: std::io::Error },
    /// The connection broke while the answer was awaited.
    #[error("{agent}: the connection broke: {source}")]
    Broken { agent: Host, source: Box<dyn std::error::Error + Send + Sync> },
    /// The answer did not come in time.
    #[error("{agent} did not answer within {patience:?}")]
    Silent { agent: Host, patience: Duration },
}

impl HttpTrouble {
    /// Whether the agent may have done what it was asked.
    pub(crate) const fn may_have_happened(&self) -> bool {
        matches!(self, Self::Broken { .. } | Self::Silent { .. })
    }
}

/// What an agent answers.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// `X-Consul-Index`: how far what was read had come.
    pub(crate) index: Option<u64>,
    pub(crate) body: Bytes,
}

type Connection = SendRequest<Full<Bytes>>;

/// What is to be asked: a method, a path with its query, and a body.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Bytes,
}

/// The agents, one of which is asked until it fails.
pub(crate) struct Client {
    agents: Vec<Host>,
    /// Which one is asked.
    current: AtomicUsize,
    idle: Mutex<Vec<(usize, Connection)>>,
    turns: Semaphore,
    tls: Option<Tls>,
    token: Option<HeaderValue>,
    connect_timeout: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("agents", &self.agents).finish_non_exhaustive()
    }
}

/// A mutex that a panic elsewhere has not spoilt: what it guards is changed in single steps.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// Reads tokens and certificates; connects to nothing yet.
    pub(crate) fn new(options: &ConsulOptions) -> Result<Self, EngineError> {
        let token = options.token()?.and_then(|token| HeaderValue::try_from(token).ok()).map(|mut token| {
            token.set_sensitive(true);
            token
        });
        Ok(Self {
            agents: options.agents().to_vec(),
            current: AtomicUsize::new(0),
            idle: Mutex::default(),
            turns: Semaphore::new(ASKED_MAX),
            tls: if options.is_encrypted() { Some(Tls::new(options)?) } else { None },
            token,
            connect_timeout: options.connect_timeout(),
        })
    }

    /// Asks once, as soon as it is its turn.
    pub(crate) async fn ask(&self, question: &Question, patience: Duration) -> Result<Reply, HttpTrouble> {
        // It is never closed.
        let _turn = self.turns.acquire().await;
        self.listen(question, patience).await
    }

    /// Asks what may take long to be answered, of the first agent that can be connected to.
    pub(crate) async fn listen(&self, question: &Question, patience: Duration) -> Result<Reply, HttpTrouble> {
        let number = self.current.load(Ordering::Relaxed) % self.agents.len();
        let answered = timeout(patience, self.ask_in_turn(question)).await;
        let outcome = answered.unwrap_or_else(|_| {
            let agent = self.agents[number].clone();
            Err(HttpTrouble::Silent { agent, patience })
        });
        if !matches!(&outcome, Ok(reply) if reply.status < 500) {
            // This one hangs, or has no leader: another may do better.
            self.turn(number);
        }
        outcome
    }

    /// Goes over to the agent after that one, unless somebody has.
    fn turn(&self, from: usize) {
        let next = (from + 1) % self.agents.len();
        let _ = self.current.compare_exchange(from, next, Ordering::Relaxed, Ordering::Relaxed);
        lock(&self.idle).retain(|(number, _)| *number != from);
    }

    async fn ask_in_turn(&self, question: &Question) -> Result<Reply, HttpTrouble> {
        let mut tries = self.agents.len();
        loop {
            let number = self.current.load(Ordering::Relaxed) % self.agents.len();
            while let Some(connection) = self.idle(number) {
                // A connection that was closed meanwhile has asked nothing.
                if let Some(outcome) = self.ask_on(connection, number, question).await {
                    return outcome;
                }
            }
            match self.connect(number).await {
                Ok(connection) => {
                    if let Some(outcome) = self.ask_on(connection, number, question).await {
                        return outcome;
                    }
                    tries = tries.saturating_sub(1);
                    if tries == 0 {
                        let source = "it was closed at once".into();
                        return Err(HttpTrouble::Broken { agent: self.agents[number].clone(), source });
                    }
                }
                Err(trouble) => {
                    self.turn(number);
                    tries = tries.saturating_sub(1);
                    if tries == 0 {
                        return Err(trouble);
                    }
                }
            }
        }
    }

    fn idle(&self, number: usize) -> Option<Connection> {
        let mut idle = lock(&self.idle);
        idle.retain(|(of, connection)| *of == number && !connection.is_closed());
        idle.pop().map(|(_, connection)| connection)
    }

    /// Asks on one connection; none where it was closed before anything was sent.
    async fn ask_on(
        &self,
        mut connection: Connection,
        number: usize,
        question: &Question,
    ) -> Option<Result<Reply, HttpTrouble>> {
        let broken = |source: Box<dyn std::error::Error + Send + Sync>| {
            Some(Err(HttpTrouble::Broken { agent: self.agents[number].clone(), source }))
        };
        let request = match self.request(number, question) {
            Ok(request) => request,
            Err(error) => return broken(Box::new(error)),
        };
        connection.ready().await.ok()?;
        let response = match connection.try_send_request(request).await {
            Ok(response) => response,
            Err(mut error) => {
                // What was not sent comes back.
                error.take_message().is_none().then_some(())?;
                return broken(Box::new(error.into_error()));
            }
        };
        let status = response.status().as_u16();
        let index = response.headers().get("X-Consul-Index").and_then(|index| index.to_str().ok()?.parse().ok());
        let body = match Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return broken(error),
        };
        let mut idle = lock(&self.idle);
        if idle.len() < ASKED_MAX && !connection.is_closed() {
            idle.push((number, connection));
        }
        Some(Ok(Reply { status, index, body }))
    }

    fn request(&self, number: usize, question: &Question) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let mut request = Request::builder().method(&question.method).uri(&question.path);
        request = request.header(HOST, self.agents[number].to_string());
        if !question.body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(token) = &self.token {
            request = request.header("X-Consul-Token", token);
        }
        request.body(Full::new(question.body.clone()))
    }

    async fn connect(&self, number: usize) -> Result<Connection, HttpTrouble> {
        let agent = &self.agents[number];
        let refused = |source| HttpTrouble::Connect { agent: agent.clone(), source };
        let slow = |_| refused(std::io::Error::from(std::io::ErrorKind::TimedOut));
        let connecting = TcpStream::connect((agent.name.as_str(), agent.port));
        let stream = timeout(self.connect_timeout, connecting).await.map_err(slow)?.map_err(refused)?;
        // A question is small, and waits for its answer.
        stream.set_nodelay(true).map_err(refused)?;
        let Some(tls) = &self.tls else { return handshake(agent, stream).await };
        let encrypting = timeout(self.connect_timeout, tls.connect(&agent.name, stream)).await.map_err(slow)?;
        let stream = encrypting.map_err(|source| HttpTrouble::Tls { agent: agent.clone(), source })?;
        handshake(agent, stream).await
    }
}

async fn handshake<S>(agent: &Host, stream: S) -> Result<Connection, HttpTrouble>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(stream);
    let (sender, connection) = http1::handshake(io)
        .await
        .map_err(|error| HttpTrouble::Connect { agent: agent.clone(), source: std::io::Error::other(error) })?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to Consul ended");
        }
    });
    Ok(sender)
}

/// Shared by all that asks.
pub(crate) type SharedClient = Arc<Client>;
