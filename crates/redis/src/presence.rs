//! The thread that is this process's presence: it listens on the process's channel and looks after its waiters.
//!
//! It has a runtime and a connection of its own, so that neither a caller's blocking code nor the end of its runtime
//! makes the process look dead.

use std::sync::Arc;
use std::thread;

use mutext_contract::{Deadline, EngineError, TroubleKind};
use redis::{FromRedisValue, PushInfo, PushKind, Value};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Duration, Instant};

use crate::board::{Board, ServerClock};
use crate::keys::Keys;
use crate::link::{Link, Live, Pause, lock};
use crate::records::Reader;
use crate::scripts;

/// How long looking after waiters may take before it is tried again.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many waiters are looked after in one call: no call holds the server up for long.
const AT_ONCE: usize = 64;

/// The presence of a process; it ends when this is dropped.
pub(crate) struct Presence {
    _stop: watch::Sender<()>,
    thread: std::sync::Mutex<Option<thread::JoinHandle<()>>>,
}

impl Presence {
    /// Ready when the channel is listened on.
    pub(crate) async fn start(
        link: Link,
        board: Arc<Board>,
        keys: Arc<Keys>,
        deadline: Deadline,
    ) -> Result<Self, EngineError> {
        let subject = link.options().to_string();
        let trouble = |error: std::io::Error| {
            let kind = TroubleKind::Unavailable;
            EngineError::new("thread mutext-redis", kind, "allow more threads for this process").caused_by(error)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(trouble)?;
        let (stop, mut stopped) = watch::channel(());
        let (ready, is_ready) = oneshot::channel();
        let live = async move {
            let link = Arc::new(link);
            let work = async { tokio::join!(listen(&link, &board, &keys, ready), tend(&link, &board, &keys)) };
            tokio::select! {
                _ = work => {}
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

/// Listens on the process's channel, on one connection after another. The first is reported to `ready`.
async fn listen(link: &Link, board: &Board, keys: &Keys, ready: oneshot::Sender<Result<(), EngineError>>) {
    let mut ready = Some(ready);
    let mut pause = Pause::new();
    loop {
        let (sender, mut pushes) = mpsc::unbounded_channel();
        match subscribe(link, board, keys, sender).await {
            Ok(live) => {
                pause = Pause::new();
                match ready.take() {
                    Some(ready) => drop(ready.send(Ok(()))),
                    // What was pushed meanwhile was missed.
                    None => board.look_after_all(),
                }
                while let Some(push) = pushes.recv().await {
                    if !hear(board, push) {
                        break;
                    }
                }
                link.give_up(&live);
                tracing::info!(server = %link.options(), "the connection is gone");
            }
            Err(error) => {
                if let Some(ready) = ready.take() {
                    drop(ready.send(Err(error)));
                    return;
                }
                tracing::info!(%error, "no connection yet");
                pause.wait().await;
            }
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

async fn subscribe(
    link: &Link,
    board: &Board,
    keys: &Keys,
    sender: mpsc::UnboundedSender<PushInfo>,
) -> Result<Arc<Live>, EngineError> {
    let live = link.connect(Some(sender)).await?;
    let subscribed = live.query(redis::cmd("SUBSCRIBE").arg(keys.home())).await;
    match subscribed {
        Ok(_) => {
            if let Some(clock) = server_clock(&live).await {
                board.set_clock(clock);
            }
            Ok(live)
        }
        Err(error) => {
            link.give_up(&live);
            Err(crate::trouble::explain(&link.options().to_string(), error))
        }
    }
}

/// Hands news on; false where the connection is gone.
fn hear(board: &Board, push: PushInfo) -> bool {
    match push.kind {
        PushKind::Disconnection => return false,
        PushKind::Message => {
            if let Some(Value::BulkString(text)) = push.data.into_iter().nth(1) {
                board.hear(&String::from_utf8_lossy(&text));
            }
        }
        _ => {}
    }
    true
}

/// Looks after those who wait: whether a push was missed, whether whoever holds their lock is dead or lapsed.
async fn tend(link: &Link, board: &Board, keys: &Keys) {
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
        for (context, ids) in board.round() {
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
                        live.run(&scripts::TEND, all, &args).await
                    }
                };
                let reader = Reader { subject: keys.subject() };
                match link.call(Deadline::after(PATIENCE), ask).await.and_then(|value| reader.tended(value)) {
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
