//! The thread that is this process's presence: it listens on the process's channel while there is anything to hear, and
//! looks after its waiters.
//!
//! It has a runtime and connections of its own, so that neither a caller's blocking code nor the end of its runtime
//! makes the process look dead. A notice wakes every session of the database that listens, whomever it is for: so whoever
//! neither waits, nor holds for long or with tokens to spare, does not listen, and is merely there. Behind a pooler it
//! listens to nobody, and looks more often.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use mutext_contract::{ContextName, Deadline, EngineError, LeaseId, TroubleKind};
use tokio::sync::{oneshot, watch};
use tokio::time::{Duration, Instant};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Row, SimpleQueryMessage};

use crate::board::{Board, ServerClock};
use crate::link::{Link, Mover, Pauses, Repeat};
use crate::lock_rows::{LockStatements, Reader};
use crate::names::Names;
use crate::options::PostgresOptions;
use crate::trouble::Next;

/// How long looking after waiters may take before it is tried again.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many waiters are looked after in one call: no call holds the others of its context up for long.
const AT_ONCE: usize = 64;
/// How often what nobody needs any more is forgotten; by a process that lives so long, and by one of many others.
const SWEEP: Duration = Duration::from_secs(600);
const SWEEPS_AT_ONCE: f64 = 0.02;
/// How often it is looked whether there is anything to hear; and how long there is nothing before nobody listens.
const LOOK: Duration = Duration::from_millis(250);
const IDLE: Duration = Duration::from_secs(10);

/// What the service and its thread share.
pub(crate) struct Shared {
    pub(crate) board: Board,
    pub(crate) names: Names,
    pub(crate) statements: LockStatements,
    /// The process, as others know it. One that begins with `p` does not listen.
    pub(crate) home: String,
}

impl Shared {
    /// The channel that the process listens on.
    pub(crate) fn channel(&self) -> String {
        format!("mutext/{}", self.home)
    }

    pub(crate) fn listens(&self) -> bool {
        !self.home.starts_with('p')
    }
}

/// The presence of a process; it ends when this is dropped.
pub(crate) struct Presence {
    _stop: watch::Sender<()>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Presence {
    /// Ready when others see the process.
    pub(crate) async fn start(
        options: &PostgresOptions,
        shared: Arc<Shared>,
        deadline: Deadline,
    ) -> Result<Self, EngineError> {
        let subject = options.to_string();
        let trouble = |error: std::io::Error| {
            let kind = TroubleKind::Unavailable;
            EngineError::new("thread mutext-postgres", kind, "allow more threads for this process").caused_by(error)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(trouble)?;
        let link = Link::new(options)?;
        let (stop, mut stopped) = watch::channel(());
        let (ready, is_ready) = oneshot::channel();
        let live = async move {
            let work =
                async { tokio::join!(listen(&link, &shared, ready), tend(&link, &shared), sweep(&link, &shared)) };
            tokio::select! {
                _ = work => {}
                // An error says that the sender is gone.
                _ = stopped.changed() => {}
            }
        };
        let run = move || runtime.block_on(live);
        let thread = thread::Builder::new().name("mutext-postgres".to_owned()).spawn(run).map_err(trouble)?;
        let presence = Self { _stop: stop, thread: Mutex::new(Some(thread)) };
        match tokio::time::timeout_at(deadline.instant(), is_ready).await {
            Ok(Ok(outcome)) => outcome.map(|()| presence),
            _ => Err(EngineError::new(subject, TroubleKind::Unavailable, "see that the server runs and answers")),
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // The thread ends by itself; whoever drops this may be on a runtime that must not wait.
        drop(self.thread.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Is there, on one connection after another, and listens on the process's channel. The first is reported to `ready`.
async fn listen(link: &Link, shared: &Arc<Shared>, ready: oneshot::Sender<Result<(), EngineError>>) {
    if !shared.listens() {
        drop(ready.send(Ok(())));
        return;
    }
    let mut ready = Some(ready);
    let mut pauses = Pauses::default();
    loop {
        match arrive(link, shared).await {
            Ok((client, mut mover)) => {
                pauses = Pauses::default();
                shared.board.arrives();
                if let Some(ready) = ready.take() {
                    drop(ready.send(Ok(())));
                }
                tokio::select! {
                    () = mover.ended() => {}
                    error = hear(link, &client, shared) => tracing::info!(%error, "the channel cannot be listened on"),
                }
                shared.board.is_cut_off();
                tracing::info!(server = %link.subject(), "the connection that listens is gone");
            }
            Err(error) => {
                if let Some(ready) = ready.take() {
                    drop(ready.send(Err(error)));
                    return;
                }
                tracing::info!(%error, "nothing is heard of other processes' releases");
            }
        }
        tokio::time::sleep(pauses.before(Next::Reconnect).unwrap_or_default()).await;
    }
}

/// Listens while there is anything to hear, until that fails.
async fn hear(link: &Link, client: &Client, shared: &Shared) -> tokio_postgres::Error {
    let board = &shared.board;
    let (mut listens, mut last_wanted) = (false, Instant::now());
    loop {
        if board.wants_to_be_told() {
            last_wanted = Instant::now();
            if !listens {
                if let Err(error) = client.batch_execute(&format!("LISTEN \"{}\"", shared.channel())).await {
                    return error;
                }
                listens = true;
                // What was told before was missed.
                board.listens();
                if let Err(error) = find_lost(link, shared).await {
                    tracing::debug!(%error, "a loss that nobody was told of is found by a renewal");
                }
            }
        } else if listens && last_wanted.elapsed() > IDLE && board.rests() {
            listens = false;
            if let Err(error) = client.batch_execute("UNLISTEN *").await {
                return error;
            }
        }
        tokio::select! {
            () = board.queued.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Finds leases of this process that were taken away while nobody listened.
async fn find_lost(link: &Link, shared: &Shared) -> Result<(), EngineError> {
    let held = shared.board.held();
    if held.is_empty() {
        return Ok(());
    }
    let contexts: Vec<&str> = held.iter().map(|(context, ..)| context.as_str()).collect();
    let paths: Vec<&str> = held.iter().map(|(_, path, _)| path.as_str()).collect();
    let leases: Vec<&[u8]> = held.iter().map(|(.., lease)| &lease.as_bytes()[..]).collect();
    let params: [&(dyn ToSql + Sync); 3] = [&contexts, &paths, &leases];
    let rows = link.rows(Repeat::Reads, Deadline::after(PATIENCE), &shared.statements.lost, &params).await?;
    let lease = |row: &Row| row.try_get::<_, &[u8]>(0).ok().and_then(|id| id.try_into().ok()).map(LeaseId::from_bytes);
    shared.board.were_lost(rows.iter().filter_map(lease));
    Ok(())
}

/// A connection that is known to others as the process's presence.
async fn arrive(link: &Link, shared: &Arc<Shared>) -> Result<(Client, Mover), EngineError> {
    let (hearing, channel) = (Arc::clone(shared), shared.channel());
    let heard = move |message| {
        if let AsyncMessage::Notification(notification) = message
            && notification.channel() == channel
        {
            hearing.board.hear(notification.payload(), None);
        }
    };
    let (client, mover) = link.connect(heard).await?;
    if link.is_pooled() {
        let what = "a pooler is in between now, and was not when this process began".to_owned();
        let remedy = "start the process again: it then works without being told";
        return Err(EngineError::new(&**link.subject(), TroubleKind::Misconfigured(what), remedy));
    }
    let told = |error| link.told(error);
    // The server's clock, by the quickest of a few answers.
    let mut quickest: Option<(Duration, ServerClock)> = None;
    for _ in 0..3 {
        let asked = Instant::now();
        // The home is made of hexadecimal digits and one letter.
        let arrival = format!("{}('{}')", shared.statements.arrive, shared.home);
        let answer = client.simple_query(&arrival).await.map_err(told)?;
        let took = asked.elapsed();
        let micros = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0)?.parse::<u64>().ok(),
            _ => None,
        });
        if let Some(micros) = micros
            && quickest.is_none_or(|(least, _)| took < least)
        {
            quickest = Some((took, ServerClock { said: Duration::from_micros(micros), at: asked + took / 2 }));
        }
    }
    if let Some((_, clock)) = quickest {
        shared.board.set_clock(clock);
    }
    Ok((client, mover))
}

/// Looks after those who wait: whether news were missed, whether whoever holds their lock is dead or lapsed.
async fn tend(link: &Link, shared: &Shared) {
    let board = &shared.board;
    loop {
        let due = board.due();
        let sleep = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {}
            () = board.changed.notified() => continue,
        }
        for (context, waiters) in board.round() {
            for waiters in waiters.chunks(AT_ONCE) {
                match look_after(link, shared, &context, waiters).await {
                    Ok(next) => board.look_again(next),
                    Err(error) => {
                        tracing::debug!(%error, "waiters could not be looked after");
                        board.look_again(None);
                    }
                }
            }
        }
    }
}

/// One look after some waiters of a context; when the first lease in their way runs out.
async fn look_after(
    link: &Link,
    shared: &Shared,
    context: &ContextName,
    waiters: &[(LeaseId, String)],
) -> Result<Option<Duration>, EngineError> {
    let asked = Instant::now();
    let lane = shared.names.lock_lane(context);
    let leases: Vec<&[u8]> = waiters.iter().map(|(lease, _)| &lease.as_bytes()[..]).collect();
    let paths: Vec<&str> = waiters.iter().map(|(_, path)| path.as_str()).collect();
    let rows = link
        .rows(
            Repeat::Safe,
            Deadline::after(PATIENCE),
            &shared.statements.tend,
            &[&lane, &context.as_str(), &leases, &paths, &shared.home],
        )
        .await?;
    let answer = Reader { subject: link.subject() }.row(&rows)?;
    for message in &answer.told {
        shared.board.hear(message, Some(asked));
    }
    Ok(answer.next)
}

/// Forgets what nobody needs any more, now and then.
async fn sweep(link: &Link, shared: &Shared) {
    if !rand::random_bool(SWEEPS_AT_ONCE) {
        tokio::time::sleep(SWEEP.mul_f64(rand::random_range(0.5..1.5))).await;
    }
    loop {
        let swept = link.rows(Repeat::Safe, Deadline::after(PATIENCE * 5), &shared.statements.sweep, &[]).await;
        if let Err(error) = swept {
            tracing::debug!(%error, "nothing was forgotten");
        }
        tokio::time::sleep(SWEEP.mul_f64(rand::random_range(0.5..1.5))).await;
    }
}
