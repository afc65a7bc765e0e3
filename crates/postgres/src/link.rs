//! The connections of one process, and how a step is run on one of them: within its deadline, and again where that
//! is safe.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::{
    Connect, Manager, ManagerConfig, Object, Pool, PoolError, QueueMode, RecyclingMethod, Runtime, TimeoutType,
    Timeouts,
};
use mutext_contract::{Deadline, Effect, EngineError, TroubleKind};
use tokio::runtime::{self, Handle};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, Error, Row, SimpleQueryMessage};

use crate::options::{Host, PostgresOptions, SslMode};
use crate::pooler;
use crate::tls::Tls;
use crate::trouble::{self, Next};

/// The longest that a statement may run, whatever its caller's patience: what a vanished process left running must
/// not hold locks for ever.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection whose caller went away may take to answer before it is given up.
const SETTLING: Duration = Duration::from_secs(2);
/// Pauses between tries grow from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(500);
/// The server undoes what others were in the way of; so often only where something is wrong.
const AGAIN_MAX: u32 = 50;
const AGAIN_PAUSE: Duration = Duration::from_micros(300);

/// So many runtimes of one process have connections of their own; beyond them, all begin anew.
const LINKS_KEPT: usize = 64;

/// What a session is set to before its first use, whatever the server, the database or the user are set to.
///
/// Every statement here goes by an index, and plans are made while tables are small and kept while they grow: so
/// plans that read a whole table are out, and no time is spent on plans for one set of values. Where the other end of
/// a connection is gone the server notices while it waits; not every system can, so that it may refuse to.
///
/// Nothing is set where the session is not that of `process`: a pooler lends it to others. The answer is the session's
/// own process number.
fn session_setup(process: i32) -> String {
    format!(
        "DO $$ BEGIN
             IF pg_backend_pid() = {process} THEN
                 PERFORM set_config('default_transaction_isolation', 'read committed', false),
                     set_config('statement_timeout', '{}', false), set_config('lock_timeout', '0', false),
                     set_config('plan_cache_mode', 'force_generic_plan', false),
                     set_config('enable_seqscan', 'off', false), set_config('jit', 'off', false),
                     set_config('client_min_messages', 'warning', false);
                 BEGIN
                     PERFORM set_config('client_connection_check_interval', '1s', false);
                 EXCEPTION WHEN OTHERS THEN NULL;
                 END;
             END IF;
         END $$;
         SELECT pg_backend_pid()",
        STATEMENT_TIMEOUT.as_millis()
    )
}

/// What may be done with a statement whose connection broke, so that nobody knows whether it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It only reads: it is sent again.
    Reads,
    /// It writes, and may be sent again: it names its intention, or doing it twice harms nobody.
    Safe,
    /// It writes, and would happen twice.
    Never,
}

/// Makes connections, each set up for its use.
#[derive(Clone)]
pub(crate) struct Connector {
    config: Config,
    tls: Tls,
    /// Whether a pooler was found in between.
    pooled: Arc<AtomicBool>,
}

impl Connector {
    fn new(options: &PostgresOptions) -> Result<Self, EngineError> {
        let mut config = Config::new();
        match &options.host {
            Host::Name(name) => config.host(name),
            Host::Socket(dir) => config.host_path(dir),
        };
        config.port(options.port).application_name("mutext").connect_timeout(options.connect_timeout);
        // What is silent for longer than this is dead: the network, or the machine at its other end.
        config.keepalives_idle(Duration::from_secs(10)).keepalives_interval(Duration::from_secs(5));
        config.keepalives_retries(3);
        if let Some(user) = &options.user {
            config.user(user);
        }
        if let Some(password) = &options.password {
            config.password(password);
        }
        if let Some(database) = &options.database {
            config.dbname(database);
        }
        config.ssl_mode(match (options.ssl_mode, &options.host) {
            // A Unix socket needs no encryption, and has none.
            (SslMode::Disable, _) | (_, Host::Socket(_)) => tokio_postgres::config::SslMode::Disable,
            (SslMode::Prefer, _) => tokio_postgres::config::SslMode::Prefer,
            _ => tokio_postgres::config::SslMode::Require,
        });
        Ok(Self { config, tls: Tls::new(options)?, pooled: Arc::default() })
    }

    /// A connection, and the task that moves its messages; `heard` gets what the server says unasked.
    pub(crate) async fn connect(
        self,
        mut heard: impl FnMut(AsyncMessage) + Send + 'static,
    ) -> Result<(Client, Mover), Error> {
        let (client, mut connection) = self.config.connect(self.tls).await?;
        let mover = Mover(Some(tokio::spawn(async move {
            loop {
                match std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                    Some(Ok(message)) => heard(message),
                    Some(Err(error)) => {
                        tracing::debug!(%error, "a connection to PostgreSQL broke");
                        return;
                    }
                    None => return,
                }
            }
        })));
        let process = pooler::process_number(&client).await.unwrap_or_default();
        let answer = client.simple_query(&session_setup(process)).await?;
        let own = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0)?.parse::<i32>().ok(),
            _ => None,
        });
        if own != Some(process) && !self.pooled.swap(true, Ordering::Relaxed) {
            tracing::info!("a pooler is between: nothing is prepared, nobody is listened to");
        }
        Ok((client, mover))
    }
}

impl Connect for Connector {
    fn connect(
        &self,
        _config: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + '_>> {
        let connector = self.clone();
        Box::pin(async move {
            let (client, mover) = Self::connect(connector, |_| {}).await?;
            Ok((client, mover.into_handle()))
        })
    }
}

/// The task that moves a connection's messages. Dropping it closes the connection, whatever it still waits for.
pub(crate) struct Mover(Option<JoinHandle<()>>);

impl Mover {
    fn into_handle(mut self) -> JoinHandle<()> {
        self.0.take().unwrap_or_else(|| tokio::spawn(async {}))
    }

    /// Until the connection has ended.
    pub(crate) async fn ended(&mut self) {
        if let Some(task) = &mut self.0 {
            let _ = task.await;
        }
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// A server, and this process's few connections to it.
pub(crate) struct Link {
    pool: Pool,
    connector: Connector,
    connect_timeout: Duration,
    size: usize,
    subject: Arc<str>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("server", &self.subject).finish_non_exhaustive()
    }
}

/// Why a try did not end well, and what to do next.
struct Failure {
    next: Next,
    error: EngineError,
    /// Whether the statement was on its way to the server by then.
    sent: bool,
    /// Whether the server says that it is not ready yet.
    starting: bool,
}

impl Failure {
    const fn unsent(next: Next, error: EngineError) -> Self {
        Self { next, error, sent: false, starting: false }
    }
}

impl Link {
    pub(crate) fn new(options: &PostgresOptions) -> Result<Self, EngineError> {
        let connector = Connector::new(options)?;
        let how = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_connect(connector.config.clone(), connector.clone(), how);
        // A commit follows its read on the same session, which is awake and has at hand what both of them need.
        let pool = Pool::builder(manager).max_size(options.pool).queue_mode(QueueMode::Lifo);
        let pool = pool.runtime(Runtime::Tokio1).build();
        let subject: Arc<str> = options.to_string().into();
        let pool = pool.map_err(|error| {
            EngineError::new(&*subject, TroubleKind::Failed("no pool could be made".to_owned()), "").caused_by(error)
        })?;
        Ok(Self { pool, connector, connect_timeout: options.connect_timeout, size: options.pool, subject })
    }

    /// The server's address, without the password.
    pub(crate) fn subject(&self) -> &Arc<str> {
        &self.subject
    }

    /// Whether a pooler was found in between, so that no two statements meet the same session for certain.
    pub(crate) fn is_pooled(&self) -> bool {
        self.connector.pooled.load(Ordering::Relaxed)
    }

    /// The most connections that operations of this process share.
    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    /// A connection of its own, outside the pool.
    pub(crate) async fn connect(
        &self,
        heard: impl FnMut(AsyncMessage) + Send + 'static,
    ) -> Result<(Client, Mover), EngineError> {
        match timeout(self.connect_timeout, self.connector.clone().connect(heard)).await {
            Ok(connected) => connected.map_err(|error| self.told(error)),
            Err(_) => Err(self.silent()),
        }
    }

    /// What an error means, about this server.
    pub(crate) fn told(&self, error: Error) -> EngineError {
        trouble::told(&self.subject, error)
    }

    /// The first connection: waits for a server that is starting, and for nothing else.
    pub(crate) async fn lend_at_opening(&self, deadline: Deadline) -> Result<Lent, EngineError> {
        let mut pauses = Pauses::default();
        loop {
            let failure = match self.lend(deadline).await {
                Ok(lent) => return Ok(lent),
                Err(failure) => failure,
            };
            let pause = if failure.starting { pauses.before(Next::Later) } else { None };
            match pause.map(|pause| Instant::now() + pause).filter(|at| *at < deadline.instant()) {
                Some(at) => sleep_until(at).await,
                None => return Err(failure.error),
            }
        }
    }

    /// Runs one statement until `deadline`; it is a transaction of its own. Where the connection breaks, or the server
    /// undid it because of what others did at the same time, it runs again, unless it must not be repeated.
    pub(crate) async fn rows(
        &self,
        repeat: Repeat,
        deadline: Deadline,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, EngineError> {
        let (mut pauses, mut unknown) = (Pauses::default(), false);
        loop {
            let failure = match self.attempt(deadline, sql, params).await {
                Ok(rows) => return Ok(rows),
                Err(failure) => failure,
            };
            let broken = failure.sent && failure.next == Next::Reconnect;
            unknown |= broken && repeat != Repeat::Reads;
            let pause = if broken && repeat == Repeat::Never { None } else { pauses.before(failure.next) };
            match pause.map(|pause| Instant::now() + pause).filter(|at| *at < deadline.instant()) {
                Some(at) => {
                    tracing::debug!(error = %failure.error, "trying again");
                    sleep_until(at).await;
                }
                None if unknown => return Err(failure.error.with_effect(Effect::Unknown)),
                None => return Err(failure.error),
            }
        }
    }

    async fn attempt(
        &self,
        deadline: Deadline,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Failure> {
        let mut lent = self.lend(deadline).await?;
        lent.in_use = true;
        if self.is_pooled() {
            return match timeout_at(deadline.instant(), pooler::query(&lent, sql, params)).await {
                Ok(Ok(rows)) => {
                    lent.in_use = false;
                    Ok(rows)
                }
                Ok(Err(error)) => Err(self.failed(lent, error)),
                Err(_) => Err(self.unanswered(lent)),
            };
        }
        let prepared = match timeout_at(deadline.instant(), lent.prepare_cached(sql)).await {
            Ok(Ok(statement)) => statement,
            Ok(Err(error)) => return Err(Failure { sent: false, ..self.failed(lent, error) }),
            Err(_) => return Err(Failure { sent: false, ..self.unanswered(lent) }),
        };
        match timeout_at(deadline.instant(), lent.query(&prepared, params)).await {
            Ok(Ok(rows)) => {
                lent.in_use = false;
                Ok(rows)
            }
            Ok(Err(error)) => Err(self.failed(lent, error)),
            Err(_) => Err(self.unanswered(lent)),
        }
    }

    /// A connection from the pool, or a new one.
    async fn lend(&self, deadline: Deadline) -> Result<Lent, Failure> {
        let remaining = deadline.remaining();
        let timeouts =
            Timeouts { wait: Some(remaining), create: Some(remaining.min(self.connect_timeout)), recycle: None };
        // Each part has its own limit; together they must not take the sum.
        let Ok(got) = timeout_at(deadline.instant(), self.pool.timeout_get(&timeouts)).await else {
            return Err(Failure::unsent(Next::Later, self.silent()));
        };
        match got {
            Ok(object) => Ok(Lent { object: Some(object), in_use: false }),
            Err(PoolError::Backend(error)) => {
                let (next, starting) = (trouble::next_connect(&error), trouble::is_starting(&error));
                Err(Failure { starting, ..Failure::unsent(next, self.told(error)) })
            }
            Err(PoolError::Timeout(TimeoutType::Wait)) => {
                let remedy = "this process has all its connections in use: open the store with a larger ?pool=N";
                Err(Failure::unsent(Next::GiveUp, EngineError::new(&*self.subject, TroubleKind::Busy, remedy)))
            }
            Err(PoolError::Timeout(_)) => Err(Failure::unsent(Next::Later, self.silent())),
            Err(error) => {
                let kind = TroubleKind::Failed("its pool gave no connection".to_owned());
                Err(Failure::unsent(Next::GiveUp, EngineError::new(&*self.subject, kind, "").caused_by(error)))
            }
        }
    }

    fn failed(&self, mut lent: Lent, error: Error) -> Failure {
        if error.as_db_error().is_some() && trouble::next(&error) != Next::Reconnect {
            lent.in_use = false;
        } else {
            lent.discard();
        }
        Failure { next: trouble::next(&error), error: self.told(error), sent: true, starting: false }
    }

    /// The deadline has passed without an answer: the connection is of no use to anybody else.
    fn unanswered(&self, lent: Lent) -> Failure {
        lent.discard();
        Failure { next: Next::Reconnect, error: self.silent(), sent: true, starting: false }
    }

    fn silent(&self) -> EngineError {
        let remedy = "it did not answer in time: see whether it hangs or is overloaded, and whether the network drops \
                      packets on the way to it";
        EngineError::new(&*self.subject, TroubleKind::Unavailable, remedy)
    }
}

/// A connection on loan from the pool. Whoever drops it while an answer is still to come does not get anybody else into
/// trouble: it goes back to the pool once that answer has come, and is closed where it does not.
pub(crate) struct Lent {
    object: Option<Object>,
    in_use: bool,
}

impl Lent {
    /// Runs a statement that needs no preparing.
    pub(crate) async fn ask(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        pooler::query(self, sql, params).await
    }

    /// Closes it, whatever it is doing.
    pub(crate) fn discard(mut self) {
        if let Some(object) = self.object.take() {
            drop(Object::take(object));
        }
    }
}

impl Deref for Lent {
    type Target = Object;
    fn deref(&self) -> &Object {
        self.object.as_ref().expect("a connection is there until it is discarded")
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Object {
        self.object.as_mut().expect("a connection is there until it is discarded")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(object) = self.object.take_if(|_| self.in_use) else { return };
        let settled = async move {
            if !matches!(timeout(SETTLING, object.check_connection()).await, Ok(Ok(()))) {
                drop(Object::take(object));
            }
        };
        // Without a runtime nobody moves its messages any more.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(settled);
        }
    }
}

/// One link for each runtime that uses the locks: a connection is driven by the runtime that it was made on, and what
/// runs on one runtime does not wait for another, which may be blocked.
pub(crate) struct Links {
    options: PostgresOptions,
    links: Mutex<HashMap<runtime::Id, Arc<Link>>>,
}

impl Links {
    /// With a first link, which was made on this runtime.
    pub(crate) fn new(options: PostgresOptions, first: Arc<Link>) -> Self {
        Self { options, links: Mutex::new(HashMap::from([(Handle::current().id(), first)])) }
    }

    /// The link of the runtime that this is called on.
    pub(crate) fn here(&self) -> Result<Arc<Link>, EngineError> {
        let id = Handle::current().id();
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(&id) {
            return Ok(Arc::clone(link));
        }
        if links.len() >= LINKS_KEPT {
            links.clear();
        }
        let link = Arc::new(Link::new(&self.options)?);
        links.insert(id, Arc::clone(&link));
        Ok(link)
    }
}

/// Pauses between tries: they grow, and no two processes keep step.
#[derive(Default)]
pub(crate) struct Pauses {
    tries: u32,
}

impl Pauses {
    /// How long to wait before the next try; none where there is to be none.
    pub(crate) fn before(&mut self, next: Next) -> Option<Duration> {
        self.tries += 1;
        let jitter = rand::random_range(0.5..1.5);
        match next {
            Next::GiveUp => None,
            Next::Again if self.tries > AGAIN_MAX => None,
            Next::Again => Some((self.tries * AGAIN_PAUSE).mul_f64(jitter)),
            Next::Reconnect if self.tries == 1 => Some(Duration::ZERO),
            Next::Reconnect | Next::Later => {
                let pause = FIRST_PAUSE.saturating_mul(1 << self.tries.min(10)).min(LAST_PAUSE);
                Some(pause.mul_f64(jitter))
            }
        }
    }
}
