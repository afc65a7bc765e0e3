//! The thread that is this process's presence: it listens on the process's channel and looks after its waiters.
//!
//! It has a runtime and a connection of its own, so that neither a caller's blocking code nor the end of its runtime
//! makes the process look dead.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;

use mutext_contract::{ContextName, Deadline, Effect, EngineError, LeaseId, TroubleKind};
use mutext_reach::{Host, Pause};
use redis::{FromRedisValue, PushInfo, PushKind, Value};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Duration, Instant};

use crate::board::{Board, ServerClock};
use crate::cluster::Cluster;
use crate::keys::Keys;
use crate::link::{LONGEST_PAUSE, Link, Live, lock};
use crate::options::RedisOptions;
use crate::records::Reader;
use crate::scripts;
use crate::ways::Way;

/// How long looking after waiters may take before it is tried again.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many waiters are looked after in one call: no call holds the server up for long.
const AT_ONCE: usize = 64;

/// Where another server may take its place, one that is listened to is asked so often whether it is there, and has so
/// long to answer.
const IS_THERE: Duration = Duration::from_secs(1);

/// The presence of a process; it ends when this is dropped.
pub(crate) struct Presence {
    _stop: watch::Sender<()>,
    thread: std::sync::Mutex<Option<thread::JoinHandle<()>>>,
}

impl Presence {
    /// Ready when the channel is listened on.
    pub(crate) async fn start<W, F>(subject: &str, deadline: Deadline, work: W) -> Result<Self, EngineError>
    where
        W: FnOnce(oneshot::Sender<Result<(), EngineError>>) -> F + Send + 'static,
        F: Future<Output = ()> + Send,
    {
        let trouble = |error: std::io::Error| {
            let kind = TroubleKind::Unavailable;
            EngineError::new("thread mutext-redis", kind, "allow more threads for this process").caused_by(error)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(trouble)?;
        let (stop, mut stopped) = watch::channel(());
        let (ready, is_ready) = oneshot::channel();
        let live = async move {
            tokio::select! {
                () = work(ready) => {}
                // An error says that the sender is gone.
                _ = stopped.changed() => {}
            }
        };
        let run = move || runtime.block_on(live);
        let thread = thread::Builder::new().name("mutext-redis".to_owned()).spawn(run).map_err(trouble)?;
        let presence = Self { _stop: stop, thread: std::sync::Mutex::new(Some(thread)) };
        match tokio::time::timeout_at(deadline.instant(), is_ready).await {
            Ok(Ok(outcome)) => outcome.map(|()| presence),
            _ => Err(EngineError::new(subject, TroubleKind::Unavailable, "see that the server runs and answers")),
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // The thread ends by itself; whoever drops this may be on a runtime that must not wait.
        drop(lock(&self.thread).take());
    }
}

/// The presence on one server, the primary that Sentinels name, or all masters of a cluster.
pub(crate) async fn start(
    options: &Arc<RedisOptions>,
    cluster: Option<Arc<Cluster>>,
    board: Arc<Board>,
    keys: Arc<Keys>,
    deadline: Deadline,
) -> Result<Presence, EngineError> {
    let subject = options.to_string();
    if let Some(cluster) = cluster {
        cluster.refresh(deadline).await?;
        let work = move |ready| async move {
            let way = Way::Cluster(Arc::clone(&cluster));
            tokio::join!(listen_to_all(&cluster, &board, &keys, ready), tend(&way, &board, &keys));
        };
        return Presence::start(&subject, deadline, work).await;
    }
    // It is listened to and asked on the same connection.
    let link = Arc::new(Link::new(Arc::clone(options), Arc::clone(&keys))?);
    let work = move |ready| async move {
        let way = Way::One(Arc::clone(&link));
        let ear = Ear { board: Arc::clone(&board), keys: Arc::clone(&keys), node: None };
        tokio::join!(listen(&link, &ear, ready), tend(&way, &board, &keys));
    };
    Presence::start(&subject, deadline, work).await
}

/// Where what is heard goes.
pub(crate) struct Ear {
    pub(crate) board: Arc<Board>,
    pub(crate) keys: Arc<Keys>,
    /// The node of a cluster that is listened to.
    pub(crate) node: Option<(Arc<Cluster>, Host)>,
}

impl Ear {
    fn set_clock(&self, clock: ServerClock) {
        match &self.node {
            Some((cluster, host)) => cluster.set_clock(host, clock),
            None => self.board.set_clock(clock),
        }
    }

    /// Hands news on; false where the connection is gone.
    fn hear(&self, push: PushInfo) -> bool {
        match push.kind {
            PushKind::Disconnection => return false,
            PushKind::Message => {
                if let Some(Value::BulkString(text)) = push.data.into_iter().nth(1) {
                    // In a cluster each node hears what is told on any; the clock is that of the one that told it.
                    self.board.hear(&String::from_utf8_lossy(&text), |context| match &self.node {
                        Some((cluster, _)) => context.and_then(|context| cluster.clock(context)),
                        None => self.board.clock(),
                    });
                }
            }
            _ => {}
        }
        true
    }
}

/// Listens on each master of a cluster: a script sees those who listen on its own node. Ready when one is listened to,
/// and each of the others too or out of reach.
async fn listen_to_all(
    cluster: &Arc<Cluster>,
    board: &Arc<Board>,
    keys: &Arc<Keys>,
    ready: oneshot::Sender<Result<(), EngineError>>,
) {
    let mut masters = cluster.masters();
    let mut listening: HashMap<Host, tokio::task::JoinHandle<()>> = HashMap::new();
    let mut ready = Some(ready);
    loop {
        let now = masters.borrow_and_update().clone();
        listening.retain(|host, task| {
            let stays = now.contains(host);
            if !stays {
                task.abort();
            }
            stays
        });
        let mut first = Vec::new();
        for host in now {
            if listening.contains_key(&host) {
                continue;
            }
            let (said, says) = oneshot::channel();
            first.push(says);
            let node = Some((Arc::clone(cluster), host.clone()));
            let ear = Ear { board: Arc::clone(board), keys: Arc::clone(keys), node };
            let link = cluster.link_of_its_own(&host);
            listening.insert(
                host,
                tokio::spawn(async move {
                    match link {
                        Ok(link) => listen(&link, &ear, said).await,
                        Err(error) => drop(said.send(Err(error))),
                    }
                }),
            );
        }
        if let Some(ready) = ready.take() {
            let mut outcome = Err(cluster.unreachable());
            for says in first {
                match says.await {
                    Ok(Ok(())) => outcome = Ok(()),
                    Ok(Err(error)) if outcome.is_err() => outcome = Err(error),
                    _ => {}
                }
            }
            drop(ready.send(outcome));
        }
        if masters.changed().await.is_err() {
            return;
        }
    }
}

/// Listens on the process's channel, on one connection after another. The first is reported to `ready`.
pub(crate) async fn listen(link: &Link, ear: &Ear, ready: oneshot::Sender<Result<(), EngineError>>) {
    let mut ready = Some(ready);
    let mut pause = Pause::up_to(LONGEST_PAUSE);
    loop {
        let (sender, mut pushes) = mpsc::unbounded_channel();
        match subscribe(link, ear, sender).await {
            Ok(live) => {
                pause = Pause::up_to(LONGEST_PAUSE);
                match ready.take() {
                    Some(ready) => drop(ready.send(Ok(()))),
                    // What was pushed meanwhile was missed.
                    None => ear.board.look_after_all(),
                }
                let hear = async {
                    while let Some(push) = pushes.recv().await {
                        if !ear.hear(push) {
                            break;
                        }
                    }
                };
                tokio::select! {
                    () = hear => {}
                    () = is_gone(link, &live) => {}
                }
                link.give_up(&live);
                tracing::info!(server = %link.options(), "the connection is gone");
            }
            Err(error) => {
                tracing::info!(%error, "no connection yet");
                if let Some(ready) = ready.take() {
                    // Whoever opens this decides what follows.
                    drop(ready.send(Err(error)));
                }
                pause.wait().await;
            }
        }
    }
}

/// Ends when a server whose place another may take says nothing any more, or is not what it was.
async fn is_gone(link: &Link, live: &Live) {
    if !link.options().fails_over() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(IS_THERE).await;
        match tokio::time::timeout(IS_THERE, live.role()).await {
            Ok(Ok(is_primary)) if is_primary => {}
            _ => return,
        }
    }
}

/// The server's clock, by the quickest of a few answers.
async fn server_clock(live: &Live) -> Option<ServerClock> {
    let mut quickest: Option<(Duration, ServerClock)> = None;
    for _ in 0..3 {
        let asked = Instant::now();
        let (seconds, micros) = <(u64, u64)>::from_redis_value(live.query(&redis::cmd("TIME")).await.ok()?).ok()?;
        let took = asked.elapsed();
        let clock =
            ServerClock { said: Duration::from_secs(seconds) + Duration::from_micros(micros), at: asked + took / 2 };
        if quickest.is_none_or(|(least, _)| took < least) {
            quickest = Some((took, clock));
        }
    }
    quickest.map(|(_, clock)| clock)
}

async fn subscribe(link: &Link, ear: &Ear, sender: mpsc::UnboundedSender<PushInfo>) -> Result<Arc<Live>, EngineError> {
    let live = link.connect(Some(sender)).await?;
    let subscribed = tokio::time::timeout(link.options().connect_timeout(), async {
        live.query(redis::cmd("SUBSCRIBE").arg(ear.keys.home())).await?;
        Ok(server_clock(&live).await)
    });
    match subscribed.await {
        Ok(Ok(clock)) => {
            clock.into_iter().for_each(|clock| ear.set_clock(clock));
            Ok(live)
        }
        Ok(Err(error)) => {
            link.give_up(&live);
            Err(crate::trouble::explain(&link.options().to_string(), error))
        }
        Err(_) => {
            link.give_up(&live);
            Err(crate::trouble::unanswered(&link.options().to_string()).with_effect(Effect::None))
        }
    }
}

/// Those who are to be looked after, as soon as that is due.
pub(crate) async fn next_round(board: &Board) -> HashMap<ContextName, Vec<LeaseId>> {
    loop {
        let due = board.due();
        let sleep = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => return board.round(),
            () = board.changed.notified() => {}
        }
    }
}

/// Looks after those who wait: whether a push was missed, whether whoever holds their lock is dead or lapsed.
async fn tend(way: &Way, board: &Board, keys: &Keys) {
    loop {
        for (context, ids) in next_round(board).await {
            for ids in ids.chunks(AT_ONCE) {
                let asked = Instant::now();
                let mut all = vec![keys.table(&context), keys.queue(&context)];
                all.extend(ids.iter().map(|id| keys.ended(&context, *id)));
                let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
                let ask = |live: Arc<Live>, _| {
                    let (all, ids) = (&all, &ids);
                    async move {
                        let mut args = vec![live.run.as_bytes()];
                        args.extend(ids.iter().map(String::as_bytes));
                        let value = live.run(&scripts::TEND, all, &args).await?;
                        if Reader::is_over(&value) {
                            // Perhaps another epoch has begun since this connection was made.
                            live.is_as_it_was().await?;
                        }
                        Ok(value)
                    }
                };
                let reader = Reader { subject: keys.subject() };
                match way.call(&context, Deadline::after(PATIENCE), ask).await.and_then(|value| reader.tended(value)) {
                    Ok(tended) => board.note(&tended, asked),
                    Err(error) => {
                        tracing::debug!(%error, "waiters could not be looked after");
                        board.look_again();
                    }
                }
            }
        }
    }
}
