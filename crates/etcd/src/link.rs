//! The way to the cluster: one member at a time, another one where that fails, and never waited for beyond a deadline.
//!
//! All connections live on the runtime of the service's own thread, so that neither a caller's blocking code nor the end
//! of its runtime cuts them. Every question that goes through here may be asked twice: what we send either changes
//! nothing the second time, or says in its answer that it has happened already.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::uri::PathAndQuery;
use mutext_contract::{Deadline, Effect, EngineError, TroubleKind};
use mutext_reach::Pause;
use prost::Message;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::options::EtcdOptions;
use crate::trouble;
use crate::wire::{self, AuthenticateRequest, Method, StatusRequest, StatusResponse};

/// The oldest server that can do what is needed: watches whose numbers the client chooses.
const OLDEST: (u32, u32) = (3, 4);
/// A member of several that has not answered for so long is given up for another: as long as a follower, with the usual
/// settings, takes a leader that has died for one that lives, and hands it what nobody will answer.
const SUSPECT: Duration = Duration::from_secs(1);
/// The longest pause between tries.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// A context with thousands of waiters.
const ANSWER_BYTES_MAX: usize = 64 << 20;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change under these locks is complete at each of its steps, so that a panic leaves nothing half-done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A deadline that leaves a question its chance, also where the caller's has passed.
pub(crate) fn at_least(deadline: Deadline) -> Deadline {
    const PATIENCE: Duration = Duration::from_secs(1);
    deadline.at_least(PATIENCE)
}

/// What came of a question.
pub(crate) struct Answered<A> {
    pub(crate) answer: A,
    /// Whether it was asked more than once, so that an earlier time may have had the effect.
    pub(crate) again: bool,
}

/// A way to one member, as long as it serves.
#[derive(Clone)]
pub(crate) struct Live {
    channel: Channel,
    /// Another one for each way.
    number: u64,
}

pub(crate) struct Link {
    options: Arc<EtcdOptions>,
    subject: String,
    runtime: Handle,
    endpoints: Vec<Endpoint>,
    state: Mutex<State>,
    login: tokio::sync::Mutex<()>,
    /// The number of the way that serves: whoever has a stream on another begins anew.
    current: watch::Sender<u64>,
    /// Nothing has been answered yet: what is refused by every member is not waited for.
    is_beginning: AtomicBool,
}

/// How many members in a row could not be connected to.
#[derive(Default)]
struct Refusals(usize);

struct State {
    member: usize,
    live: Option<Live>,
    made: u64,
    token: Option<MetadataValue<Ascii>>,
}

impl Link {
    pub(crate) fn new(options: Arc<EtcdOptions>, runtime: Handle) -> Result<Self, EngineError> {
        let state = State { member: 0, live: None, made: 0, token: None };
        Ok(Self {
            subject: options.to_string(),
            endpoints: options.endpoints()?,
            options,
            runtime,
            state: Mutex::new(state),
            login: tokio::sync::Mutex::default(),
            current: watch::Sender::new(0),
            is_beginning: AtomicBool::new(true),
        })
    }

    /// Whether to go on asking. Members that were there before come back, or others take their place; where none has
    /// ever been there, and each refuses, whoever opens this is told at once.
    fn is_hopeless(&self, refusals: &mut Refusals, status: &Status) -> bool {
        refusals.0 = if trouble::is_without_effect(status) { refusals.0 + 1 } else { 0 };
        self.is_beginning.load(Ordering::Relaxed) && refusals.0 >= self.endpoints.len()
    }

    /// The cluster, as errors name it.
    pub(crate) fn subject(&self) -> &str {
        &self.subject
    }

    pub(crate) fn options(&self) -> &EtcdOptions {
        &self.options
    }

    /// How many members the address names.
    pub(crate) const fn members(&self) -> usize {
        self.endpoints.len()
    }

    /// Tells whoever listens that another way is used from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.current.subscribe()
    }

    fn live(&self) -> Live {
        let mut state = lock(&self.state);
        if let Some(live) = &state.live {
            return live.clone();
        }
        state.made += 1;
        let _entered = self.runtime.enter();
        let channel = self.endpoints[state.member].connect_lazy();
        let live = Live { channel, number: state.made };
        state.live = Some(live.clone());
        self.current.send_replace(live.number);
        live
    }

    /// Gives a way up for one to the next member, unless another has taken its place already.
    pub(crate) fn give_up(&self, number: u64) {
        let mut state = lock(&self.state);
        if state.live.as_ref().is_some_and(|live| live.number == number) {
            state.live = None;
            state.member = (state.member + 1) % self.endpoints.len();
            drop(state);
            // Streams on it begin anew, also where nobody asks anything.
            self.current.send_replace(0);
        }
    }

    /// Does what may help after a stream failed: a login, or another member.
    pub(crate) async fn recover(&self, status: &Status, number: u64) {
        if trouble::wants_login(status) && self.options.login().is_some() {
            if let Err(error) = self.log_in(Deadline::after(self.options.connect_timeout())).await {
                tracing::info!(%error, "no login");
            }
        } else {
            self.give_up(number);
        }
    }

    /// Gives up whatever way is used: it does not serve.
    pub(crate) fn give_up_current(&self) {
        let number = lock(&self.state).live.as_ref().map(|live| live.number);
        if let Some(number) = number {
            self.give_up(number);
        }
    }

    fn request<Q>(&self, path: &str, question: Q) -> Request<Q> {
        let mut request = Request::new(question);
        // A member that is cut off from the others says so at once.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        // Whoever logs in must not show a login that has been forgotten.
        if let Some(token) = lock(&self.state).token.as_ref().filter(|_| path != wire::AUTHENTICATE.path) {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    /// Asks one member, once.
    async fn ask<Q, A>(&self, live: &Live, method: &Method<Q, A>, question: Q) -> Result<A, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut grpc = Grpc::new(live.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
        let path = PathAndQuery::from_static(method.path);
        let codec = ProstCodec::<Q, A>::default();
        if !method.is_stream {
            return grpc.unary(self.request(method.path, question), path, codec).await.map(tonic::Response::into_inner);
        }
        let request = self.request(method.path, tokio_stream::once(question));
        let mut answers = grpc.streaming(request, path, codec).await?.into_inner();
        let answer = answers.message().await?;
        answer.ok_or_else(|| Status::unavailable("the member ended the stream without an answer"))
    }

    /// Opens a stream of watches; the number says which way it is on.
    pub(crate) async fn watch(
        &self,
        wishes: tokio::sync::mpsc::UnboundedReceiver<wire::WatchRequest>,
    ) -> Result<(tonic::Streaming<wire::WatchResponse>, u64), (Status, u64)> {
        let live = self.live();
        let number = live.number;
        let open = async {
            let mut grpc = Grpc::new(live.channel).max_decoding_message_size(ANSWER_BYTES_MAX);
            grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
            let request = self.request(wire::WATCH, tokio_stream::wrappers::UnboundedReceiverStream::new(wishes));
            let codec = ProstCodec::<wire::WatchRequest, wire::WatchResponse>::default();
            grpc.streaming(request, PathAndQuery::from_static(wire::WATCH), codec).await
        };
        let opened = tokio::time::timeout(self.options.connect_timeout(), open).await;
        let opened = opened.unwrap_or_else(|_| Err(Status::deadline_exceeded("the member does not answer")));
        opened.map(|stream| (stream.into_inner(), number)).map_err(|status| (status, number))
    }

    /// Asks until an answer comes or `deadline` passes: another member where one fails, and again after a login where
    /// etcd has forgotten the last.
    pub(crate) async fn call<Q, A>(
        &self,
        method: &Method<Q, A>,
        question: Q,
        deadline: Deadline,
    ) -> Result<Answered<A>, EngineError>
    where
        Q: Message + Clone + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let (mut pause, mut refusals) = (Pause::up_to(LONGEST_PAUSE), Refusals::default());
        let (mut again, mut logins) = (false, 0);
        loop {
            let live = self.live();
            let asked = Instant::now();
            let suspect = if self.endpoints.len() > 1 { deadline.min(Deadline::at(asked + SUSPECT)) } else { deadline };
            let asking = self.ask(&live, method, question.clone());
            let status = match tokio::time::timeout_at(suspect.instant(), asking).await {
                Ok(Ok(answer)) => return Ok(Answered { answer, again }),
                Ok(Err(status)) => status,
                Err(_) => {
                    if asked.elapsed() >= SUSPECT {
                        self.give_up(live.number);
                    }
                    if deadline.has_passed() {
                        return Err(trouble::unanswered(&self.subject));
                    }
                    again = true;
                    continue;
                }
            };
            if trouble::wants_login(&status) && self.options.login().is_some() && logins < 2 {
                logins += 1;
                self.log_in(deadline).await?;
                continue;
            }
            if trouble::is_passing(&status) {
                self.give_up(live.number);
                again |= !trouble::is_without_effect(&status);
                if pause.fits(deadline) && !self.is_hopeless(&mut refusals, &status) {
                    pause.wait().await;
                    continue;
                }
            }
            let error = trouble::explain(&self.subject, status);
            return Err(if again { error.with_effect(Effect::Unknown) } else { error });
        }
    }

    /// Logs in anew: the token serves with every member.
    async fn log_in(&self, deadline: Deadline) -> Result<(), EngineError> {
        let Some((name, password)) = self.options.login() else { return Ok(()) };
        let before = lock(&self.state).token.clone();
        let _turn = self.login.lock().await;
        if lock(&self.state).token != before {
            // Another has done it meanwhile.
            return Ok(());
        }
        let (mut pause, mut refusals) = (Pause::up_to(LONGEST_PAUSE), Refusals::default());
        loop {
            let live = self.live();
            let question = AuthenticateRequest { name: name.to_owned(), password: password.to_owned() };
            let asking = self.ask(&live, &wire::AUTHENTICATE, question);
            let status = match tokio::time::timeout_at(deadline.instant(), asking).await {
                Ok(Ok(answer)) => {
                    lock(&self.state).token = answer.token.parse().ok();
                    return Ok(());
                }
                Ok(Err(status)) => status,
                Err(_) => return Err(trouble::unanswered(&self.subject).with_effect(Effect::None)),
            };
            // Whoever gives a password to a cluster that asks for none may go on without.
            if status.code() == Code::FailedPrecondition && status.message().contains("not enabled") {
                return Ok(());
            }
            if trouble::is_passing(&status) {
                self.give_up(live.number);
                if pause.fits(deadline) && !self.is_hopeless(&mut refusals, &status) {
                    pause.wait().await;
                    continue;
                }
            }
            return Err(trouble::explain(&self.subject, status));
        }
    }

    /// Connects, logs in, and makes sure that this cluster can hold locks.
    pub(crate) async fn begin(&self, deadline: Deadline) -> Result<(), EngineError> {
        let deadline = deadline.min(Deadline::after(self.options.connect_timeout()));
        let reached = self.reach(deadline).await;
        self.is_beginning.store(false, Ordering::Relaxed);
        reached.map_err(|mut error| {
            // A refused connection is no matter of TLS.
            if error.kind == TroubleKind::Unavailable && !trouble::is_refused(&error) {
                error.remedy = self.options.hint();
            }
            error.with_effect(Effect::None)
        })
    }

    async fn reach(&self, deadline: Deadline) -> Result<(), EngineError> {
        self.log_in(deadline).await?;
        let status = self.status(deadline).await?;
        check(&self.subject, &status.version)?;
        // Reads need a leader and, where users are known, a permission: better told now than at the first lock.
        let range =
            wire::RangeRequest { key: format!("{}/", self.options.prefix()).into_bytes(), range_end: Vec::new() };
        self.call(&wire::RANGE, range, deadline).await.map(drop)
    }

    /// What the member at hand says of itself.
    pub(crate) async fn status(&self, deadline: Deadline) -> Result<StatusResponse, EngineError> {
        Ok(self.call(&wire::STATUS, StatusRequest {}, deadline).await?.answer)
    }
}

/// Refuses servers that are too old.
fn check(subject: &str, version: &str) -> Result<(), EngineError> {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < OLDEST {
        let kind = TroubleKind::Misconfigured(format!("it is etcd {version}"));
        return Err(EngineError::new(subject, kind, "Mutext needs etcd 3.4 or later"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_too_old_is_refused_by_its_version() {
        for version in ["3.3.27", "2.3.8", ""] {
            let error = check("etcd://h", version).unwrap_err().to_string();
            assert!(error.contains(version) && error.contains("3.4 or later"), "{error}");
        }
        for version in ["3.4.0", "3.5.17", "3.6.1", "4.0.0-alpha"] {
            assert!(check("etcd://h", version).is_ok(), "{version}");
        }
    }
}
