//! Connections: made when they are needed, made again when they break, and never waited for beyond a deadline.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mutext_contract::{Deadline, Effect, EngineError, TroubleKind};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, InfoDict, PushInfo, RedisError, ServerErrorKind, Value};
use tokio::runtime;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use crate::keys::Keys;
use crate::options::RedisOptions;
use crate::scripts::Script;
use crate::trouble;
use crate::turns::Turns;

/// The oldest server whose scripts can do what ours do.
const OLDEST: (u32, u32) = (6, 2);
/// An unanswered command of this age makes its connection suspect: the other end may be gone without a word.
const SUSPECT: Duration = Duration::from_millis(900);
/// Links of other runtimes kept; each is made again when it is needed.
const LINKS_KEPT: usize = 16;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change under these locks is complete at each of its steps, so that a panic leaves nothing half-done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection, and what the server at its other end said of itself.
pub(crate) struct Live {
    connection: MultiplexedConnection,
    /// The server's own id, another one after each start: its memory may have gone with the last.
    pub(crate) run: String,
    pub(crate) info: InfoDict,
    number: u64,
    pub(crate) keys: Arc<Keys>,
    /// What goes to it together.
    pub(crate) turns: Turns,
}

impl Live {
    pub(crate) async fn query(&self, command: &Cmd) -> Result<Value, RedisError> {
        self.connection.clone().send_packed_command(command).await?.extract_error()
    }

    /// Runs a script by its hash, and sends its text where the server does not know it.
    pub(crate) async fn run(&self, script: &Script, keys: &[String], args: &[&[u8]]) -> Result<Value, RedisError> {
        self.known_or_not(|by_hash| script.command(by_hash, keys, args)).await
    }

    /// Sends what names a script by its hash, and again with its text where the server does not know it.
    pub(crate) async fn known_or_not(&self, command: impl Fn(bool) -> Cmd) -> Result<Value, RedisError> {
        match self.query(&command(true)).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.query(&command(false)).await
            }
            outcome => outcome,
        }
    }
}

/// A way to the server: at most one connection at a time.
pub(crate) struct Link {
    options: Arc<RedisOptions>,
    keys: Arc<Keys>,
    client: Client,
    state: Mutex<State>,
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    live: Option<Arc<Live>>,
    made: u64,
}

impl Link {
    pub(crate) fn new(options: Arc<RedisOptions>, keys: Arc<Keys>) -> Result<Self, EngineError> {
        let client = options.client()?;
        Ok(Self { options, keys, client, state: Mutex::default(), connecting: tokio::sync::Mutex::default() })
    }

    /// Connects once, and makes sure that the server can do what is needed.
    pub(crate) async fn connect(&self, pushes: Option<UnboundedSender<PushInfo>>) -> Result<Arc<Live>, EngineError> {
        let patience = self.options.connect_timeout();
        let subject = self.options.to_string();
        let mut config = AsyncConnectionConfig::new().set_connection_timeout(Some(patience)).set_response_timeout(None);
        if let Some(pushes) = pushes {
            config = config.set_push_sender(pushes);
        }
        let explain = |error| trouble::explain(&subject, error);
        let connect = async {
            let mut connection =
                self.client.get_multiplexed_async_connection_with_config(&config).await.map_err(explain)?;
            let info: InfoDict = redis::cmd("INFO").query_async(&mut connection).await.map_err(explain)?;
            Ok((connection, info))
        };
        let connected = tokio::time::timeout(patience, connect).await;
        let (connection, info) = connected.unwrap_or_else(|_| Err(self.unreachable()))?;
        check(&subject, &info)?;
        let run = info.get("run_id").unwrap_or_default();
        let mut state = lock(&self.state);
        state.made += 1;
        let keys = Arc::clone(&self.keys);
        let live = Arc::new(Live { connection, run, info, number: state.made, keys, turns: Turns::default() });
        state.live = Some(Arc::clone(&live));
        Ok(live)
    }

    /// The connection, made anew where there is none, tried again until `deadline`.
    pub(crate) async fn live(&self, deadline: Deadline) -> Result<Arc<Live>, EngineError> {
        if let Some(live) = &lock(&self.state).live {
            return Ok(Arc::clone(live));
        }
        let connect = async {
            let _turn = self.connecting.lock().await;
            let mut pause = Pause::new();
            loop {
                if let Some(live) = &lock(&self.state).live {
                    return Ok(Arc::clone(live));
                }
                match self.connect(None).await {
                    Err(error) if error.kind == TroubleKind::Unavailable && pause.fits(deadline) => pause.wait().await,
                    outcome => return outcome,
                }
            }
        };
        let connected = tokio::time::timeout_at(deadline.instant(), connect).await;
        connected.unwrap_or_else(|_| Err(self.unreachable()))
    }

    fn unreachable(&self) -> EngineError {
        let remedy = "see that the server runs, answers and can be reached from here";
        EngineError::new(self.options.to_string(), TroubleKind::Unavailable, remedy)
    }

    /// Gives a connection up, unless another has taken its place.
    pub(crate) fn give_up(&self, live: &Live) {
        let mut state = lock(&self.state);
        if state.live.as_ref().is_some_and(|current| current.number == live.number) {
            state.live = None;
        }
    }

    /// Runs what `ask` asks on a connection, again on another where one breaks, until `deadline`. `ask` is told
    /// whether an earlier attempt may have happened.
    pub(crate) async fn call<'a, T, F, A>(&self, deadline: Deadline, mut ask: F) -> Result<T, EngineError>
    where
        F: FnMut(Arc<Live>, bool) -> A,
        A: Future<Output = Result<T, RedisError>> + 'a,
    {
        let mut pause = Pause::new();
        let mut again = false;
        loop {
            let unknown = |error: EngineError| if again { error.with_effect(Effect::Unknown) } else { error };
            let live = self.live(deadline).await.map_err(unknown)?;
            let asked = Instant::now();
            let error = match tokio::time::timeout_at(deadline.instant(), ask(Arc::clone(&live), again)).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error,
                Err(_) => {
                    if asked.elapsed() >= SUSPECT {
                        self.give_up(&live);
                    }
                    return Err(trouble::unanswered(&self.options.to_string()));
                }
            };
            let may_have_happened = error.is_io_error() || error.is_connection_dropped() || error.is_timeout();
            if may_have_happened {
                self.give_up(&live);
                again = true;
            }
            if !trouble::is_passing(&error) || !pause.fits(deadline) {
                let error = trouble::explain(&self.options.to_string(), error);
                return Err(if again { error.with_effect(Effect::Unknown) } else { error });
            }
            pause.wait().await;
        }
    }

    pub(crate) fn options(&self) -> &RedisOptions {
        &self.options
    }
}

/// Refuses servers that cannot hold locks.
fn check(subject: &str, info: &InfoDict) -> Result<(), EngineError> {
    let version: String = info.get("redis_version").unwrap_or_default();
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < OLDEST {
        let kind = TroubleKind::Misconfigured(format!("it is Redis {version}"));
        return Err(EngineError::new(subject, kind, "Mutext needs Redis 6.2 or later, or Valkey"));
    }
    if info.get::<String>("role").is_some_and(|role| role == "slave") {
        let of = |key| info.get::<String>(key).unwrap_or_else(|| "?".to_owned());
        let kind = TroubleKind::ReadOnly;
        let said = format!("it is a replica of {}:{}", of("master_host"), of("master_port"));
        return Err(EngineError::new(subject, kind, "name the primary, which INFO replication names as master_host")
            .caused_by(std::io::Error::other(said)));
    }
    Ok(())
}

/// A pause that grows and is never the same for two who wait.
pub(crate) struct Pause {
    most: Duration,
    next: Duration,
}

impl Pause {
    const FIRST: Duration = Duration::from_millis(5);
    const LONGEST: Duration = Duration::from_millis(500);

    pub(crate) fn new() -> Self {
        Self { most: Self::FIRST, next: Self::FIRST }
    }

    pub(crate) fn fits(&self, deadline: Deadline) -> bool {
        deadline.remaining() > self.next
    }

    pub(crate) async fn wait(&mut self) {
        let pause = self.next;
        self.most = (self.most * 2).min(Self::LONGEST);
        self.next = self.most.mul_f64(rand::random_range(0.5..1.0));
        tokio::time::sleep(pause).await;
    }
}

/// One link for each runtime that uses the service: a connection is driven by the runtime that it was made on, and
/// what runs on one runtime does not wait for another.
pub(crate) struct Links {
    options: Arc<RedisOptions>,
    keys: Arc<Keys>,
    by_runtime: Mutex<HashMap<runtime::Id, Arc<Link>>>,
}

impl Links {
    pub(crate) fn new(options: Arc<RedisOptions>, keys: Arc<Keys>) -> Self {
        Self { options, keys, by_runtime: Mutex::default() }
    }

    pub(crate) fn here(&self) -> Result<Arc<Link>, EngineError> {
        let id = runtime::Handle::current().id();
        let mut links = lock(&self.by_runtime);
        if let Some(link) = links.get(&id) {
            return Ok(Arc::clone(link));
        }
        if links.len() >= LINKS_KEPT {
            links.clear();
        }
        let link = Arc::new(Link::new(Arc::clone(&self.options), Arc::clone(&self.keys))?);
        links.insert(id, Arc::clone(&link));
        Ok(link)
    }
}
