//! Connections: made when they are needed, made again when they break, and never waited for beyond a deadline.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mutext_contract::{Deadline, Effect, EngineError, TroubleKind};
use mutext_reach::Pause;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, InfoDict, PushInfo, RedisError, ServerErrorKind, Value};
use tokio::runtime;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use crate::keys::Keys;
use crate::options::RedisOptions;
use crate::scripts::Script;
use crate::turns::Turns;
use crate::{sentinel, trouble};

/// The oldest server whose scripts can do what ours do.
const OLDEST: (u32, u32) = (6, 2);
/// An unanswered command of this age makes its connection suspect: the other end may be gone without a word.
const SUSPECT: Duration = Duration::from_millis(900);
/// Where another server may take its place, one that has not answered for so long is asked no more.
const HANGS: Duration = Duration::from_secs(2);
/// The longest pause between tries.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Links of other runtimes kept; each is made again when it is needed.
const LINKS_KEPT: usize = 16;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change under these locks is complete at each of its steps, so that a panic leaves nothing half-done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection, and what the server at its other end said of itself.
pub(crate) struct Live {
    connection: MultiplexedConnection,
    /// What the server remembers without a break; another after each start and each failover: its memory may have
    /// gone, or gone back, with the last.
    pub(crate) run: String,
    pub(crate) info: InfoDict,
    number: u64,
    /// Whether each command asks to be let in where its slot only arrives.
    asking: bool,
    /// The server has become another one behind this connection.
    is_stale: AtomicBool,
    replicated: Replicated,
    pub(crate) keys: Arc<Keys>,
    /// What goes to it together.
    pub(crate) turns: Turns,
}

/// Those who wait for replicas at the same time wait together: each such wait holds up its connection.
#[derive(Default)]
struct Replicated {
    asked: AtomicU64,
    /// Up to which of those who asked it is known how many replicas had it.
    known: tokio::sync::Mutex<(u64, u32)>,
}

/// What a server says of its memory: its own id, which it is given at each start, and the id of its history, which it
/// is given at each failover.
fn run_of(info: &InfoDict) -> String {
    let half = |key: &str| info.get::<String>(key).unwrap_or_default().chars().take(20).collect::<String>();
    half("run_id") + &half("master_replid")
}

impl Live {
    pub(crate) async fn query(&self, command: &Cmd) -> Result<Value, RedisError> {
        let mut connection = self.connection.clone();
        if self.asking {
            // Both in one piece: nobody's command may come in between.
            let mut both = redis::pipe();
            both.cmd("ASKING").ignore().add_command(command.clone());
            let mut answers = connection.send_packed_commands(&both, 0, 2).await?;
            return answers.pop().unwrap_or(Value::Nil).extract_error();
        }
        connection.send_packed_command(command).await?.extract_error()
    }

    /// The same connection, for a slot that only arrives at its server.
    pub(crate) fn asking(&self) -> Self {
        let (connection, run, info) = (self.connection.clone(), self.run.clone(), self.info.clone());
        let (is_stale, replicated) = (AtomicBool::default(), Replicated::default());
        let (keys, turns) = (Arc::clone(&self.keys), Turns::default());
        Self { connection, run, info, number: self.number, asking: true, is_stale, replicated, keys, turns }
    }

    /// How many replicas have all that was answered on this connection, asked within `patience`.
    pub(crate) async fn replicas(&self, wanted: u32, patience: Duration) -> Result<u32, RedisError> {
        let own = self.replicated.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let mut known = self.replicated.known.lock().await;
        if known.0 < own {
            let all = self.replicated.asked.load(Ordering::Relaxed);
            let millis = patience.as_millis().clamp(1, 60_000).to_string();
            let value = self.query(redis::cmd("WAIT").arg(wanted).arg(millis)).await?;
            *known = (all, redis::FromRedisValue::from_redis_value(value).unwrap_or(0));
        }
        Ok(known.1)
    }

    /// Whether the server is a primary.
    pub(crate) async fn role(&self) -> Result<bool, RedisError> {
        let value = self.query(&redis::cmd("ROLE")).await?;
        Ok(
            matches!(value, Value::Array(parts) if matches!(parts.first(), Some(Value::BulkString(role)) if role == b"master")),
        )
    }

    /// Whether the server remembers what it did when this connection was made. Where it does not, the next command
    /// has a new one.
    pub(crate) async fn is_as_it_was(&self) -> Result<bool, RedisError> {
        let value = self.query(&redis::cmd("INFO")).await?;
        let info = <InfoDict as redis::FromRedisValue>::from_redis_value(value)?;
        let is_so = run_of(&info) == self.run;
        if !is_so {
            self.is_stale.store(true, Ordering::Relaxed);
        }
        Ok(is_so)
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

/// Why one question has no answer.
#[derive(Debug)]
pub(crate) enum Failed {
    NoConnection(EngineError),
    /// It may have happened.
    Unanswered,
    Refused(RedisError),
}

/// A way to the server: at most one connection at a time.
pub(crate) struct Link {
    options: Arc<RedisOptions>,
    keys: Arc<Keys>,
    /// None where Sentinels are asked for the server.
    client: Option<Client>,
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
        let client = if options.sentinels().is_some() { None } else { Some(options.client()?) };
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
            let client = match (&self.client, self.options.sentinels()) {
                (None, Some(sentinels)) => {
                    self.options.at(&sentinel::primary(&self.options, sentinels).await?).client()?
                }
                (client, _) => client.clone().ok_or_else(|| self.unreachable())?,
            };
            let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.map_err(explain)?;
            let info: InfoDict = redis::cmd("INFO").query_async(&mut connection).await.map_err(explain)?;
            Ok((connection, info))
        };
        let connected = tokio::time::timeout(patience, connect).await;
        let (connection, info) = connected.unwrap_or_else(|_| Err(self.unreachable()))?;
        check(&self.options, &info)?;
        let run = run_of(&info);
        let mut state = lock(&self.state);
        state.made += 1;
        let (number, is_stale, replicated) = (state.made, AtomicBool::default(), Replicated::default());
        let (keys, turns) = (Arc::clone(&self.keys), Turns::default());
        let live = Arc::new(Live { connection, run, info, number, asking: false, is_stale, replicated, keys, turns });
        state.live = Some(Arc::clone(&live));
        Ok(live)
    }

    /// The connection, made anew where there is none, tried again until `deadline`.
    pub(crate) async fn live(&self, deadline: Deadline) -> Result<Arc<Live>, EngineError> {
        if let Some(live) = self.current() {
            return Ok(live);
        }
        let connect = async {
            let _turn = self.connecting.lock().await;
            let mut pause = Pause::up_to(LONGEST_PAUSE);
            loop {
                if let Some(live) = self.current() {
                    return Ok(live);
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

    /// The connection, made anew where there is none, with one try.
    pub(crate) async fn connect_once(&self) -> Result<Arc<Live>, EngineError> {
        let _turn = self.connecting.lock().await;
        match self.current() {
            Some(live) => Ok(live),
            None => self.connect(None).await,
        }
    }

    /// The connection, where there is one.
    pub(crate) fn current(&self) -> Option<Arc<Live>> {
        lock(&self.state).live.as_ref().filter(|live| !live.is_stale.load(Ordering::Relaxed)).map(Arc::clone)
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
        let mut pause = Pause::up_to(LONGEST_PAUSE);
        let mut again = false;
        loop {
            let unknown = |error: EngineError| if again { error.with_effect(Effect::Unknown) } else { error };
            let live = self.live(deadline).await.map_err(unknown)?;
            let error = match self.attempt(&live, ask(Arc::clone(&live), again), deadline).await {
                Ok(value) => return Ok(value),
                Err(Failed::NoConnection(error)) => return Err(unknown(error)),
                Err(Failed::Unanswered) if self.options.fails_over() && pause.fits(deadline) => {
                    again = true;
                    continue;
                }
                Err(Failed::Unanswered) => return Err(trouble::unanswered(&self.options.to_string())),
                Err(Failed::Refused(error)) => error,
            };
            again |= trouble::is_broken(&error);
            let fails_over = self.options.fails_over() && trouble::is_failover(&error);
            if !(fails_over || trouble::is_passing(&error)) || !pause.fits(deadline) {
                let error = trouble::explain(&self.options.to_string(), error);
                return Err(if again { error.with_effect(Effect::Unknown) } else { error });
            }
            pause.wait().await;
        }
    }

    /// Waits for one answer on a connection, which is given up where it breaks, hangs, or leads to a server that is
    /// not the primary any more.
    pub(crate) async fn attempt<T, A>(&self, live: &Live, asked: A, deadline: Deadline) -> Result<T, Failed>
    where
        A: Future<Output = Result<T, RedisError>>,
    {
        let began = Instant::now();
        let fails_over = self.options.fails_over();
        let limit = if fails_over { deadline.min(Deadline::after(HANGS)) } else { deadline };
        let error = match tokio::time::timeout_at(limit.instant(), asked).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(_) => {
                if began.elapsed() >= SUSPECT {
                    self.give_up(live);
                }
                return Err(Failed::Unanswered);
            }
        };
        if trouble::is_broken(&error) || (fails_over && trouble::is_failover(&error)) {
            self.give_up(live);
        }
        Err(Failed::Refused(error))
    }

    pub(crate) fn options(&self) -> &RedisOptions {
        &self.options
    }
}

/// Refuses servers that cannot hold locks.
fn check(options: &RedisOptions, info: &InfoDict) -> Result<(), EngineError> {
    let subject = options.to_string();
    let version: String = info.get("redis_version").unwrap_or_default();
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < OLDEST {
        let kind = TroubleKind::Misconfigured(format!("it is Redis {version}"));
        return Err(EngineError::new(subject, kind, "Mutext needs Redis 6.2 or later, or Valkey"));
    }
    if info.get::<String>("role").is_some_and(|role| role == "slave") {
        let of = |key| info.get::<String>(key).unwrap_or_else(|| "?".to_owned());
        if options.fails_over() {
            // Whoever named it has not heard of the last failover yet.
            let remedy = "another server is the primary now; ask again in a moment";
            return Err(EngineError::new(subject, TroubleKind::Unavailable, remedy));
        }
        let kind = TroubleKind::ReadOnly;
        let said = format!("it is a replica of {}:{}", of("master_host"), of("master_port"));
        return Err(EngineError::new(subject, kind, "name the primary, which INFO replication names as master_host")
            .caused_by(std::io::Error::other(said)));
    }
    Ok(())
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
