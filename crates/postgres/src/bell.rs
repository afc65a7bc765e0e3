//! News of commits: told to whoever waits, in this process and in others.
//!
//! `NOTIFY` takes a lock of the whole server until its transaction has ended. In a commit that would make all commits
//! of the server wait for each other's disk; so it goes out afterwards, in a transaction of its own that waits for no
//! disk, for many commits at once, and only where somebody listens. It may be lost: waiters look for themselves too.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mutext_contract::{ContextName, Deadline, EngineError};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_postgres::AsyncMessage;

use crate::link::{Link, Repeat};
use crate::names::Names;

/// News that a slow waiter may be behind; one that is further behind looks for itself.
const BACKLOG: usize = 256;
/// How long nobody has to wait for commits before the connection that listens is closed.
const IDLE: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// News older than this is of no use: waiters have looked for themselves.
const NEWS_LIFETIME: Duration = Duration::from_secs(2);
const NOTIFY: &str = "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, told.context)
                      FROM unnest($2::text[]) AS told (context)";

/// What waiters hear.
#[derive(Debug, Clone)]
pub(crate) enum News {
    /// There was a commit in this context.
    Committed(Arc<str>),
    /// Something may have been missed: look.
    Look,
}

/// What this process tells, and what it hears.
#[derive(Debug)]
pub(crate) struct Bell {
    link: Arc<Link>,
    channel: String,
    watch: i32,
    heard: broadcast::Sender<News>,
    listener: Arc<Mutex<Option<JoinHandle<()>>>>,
    /// Contexts to be told of; none while nobody tells.
    untold: Arc<Mutex<Option<BTreeSet<ContextName>>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bell {
    pub(crate) fn new(link: Arc<Link>, names: &Names) -> Self {
        let (heard, _) = broadcast::channel(BACKLOG);
        let (channel, watch) = (names.channel.clone(), names.watch);
        Self { link, channel, watch, heard, listener: Arc::default(), untold: Arc::default() }
    }

    /// News from now on. Begins to listen where nobody did.
    pub(crate) fn listen(&self) -> broadcast::Receiver<News> {
        let mut listener = locked(&self.listener);
        let receiver = self.heard.subscribe();
        // A pooler has no session to listen in.
        if !self.link.is_pooled() && listener.as_ref().is_none_or(JoinHandle::is_finished) {
            let (link, heard, slot) = (Arc::clone(&self.link), self.heard.clone(), Arc::clone(&self.listener));
            // Whoever holds the lock that stands here is seen by those who commit: they tell.
            let register =
                format!("LISTEN \"{}\"; SELECT pg_catalog.pg_advisory_lock_shared({}, 0)", self.channel, self.watch);
            *listener = Some(tokio::spawn(async move {
                let mut pause = FIRST_PAUSE;
                loop {
                    match hear(&link, &heard, &register).await {
                        Ok(()) => pause = FIRST_PAUSE,
                        Err(error) => tracing::debug!(%error, "nothing is heard of other processes' commits"),
                    }
                    if is_idle(&heard, &slot) {
                        return;
                    }
                    sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
                    pause = (pause * 2).min(LAST_PAUSE);
                }
            }));
        }
        receiver
    }

    /// Tells of a commit: those in this process at once, the others, where there are any, soon.
    pub(crate) fn ring(&self, context: &ContextName, others: bool) {
        // Without receivers there is nobody to be told.
        let _ = self.heard.send(News::Committed(context.as_str().into()));
        if !others {
            return;
        }
        let mut untold = locked(&self.untold);
        if let Some(contexts) = &mut *untold {
            contexts.insert(context.clone());
            return;
        }
        *untold = Some(BTreeSet::from([context.clone()]));
        let (link, channel, untold) = (Arc::clone(&self.link), self.channel.clone(), Arc::clone(&self.untold));
        tokio::spawn(async move {
            while let Some(contexts) = take(&untold) {
                let contexts: Vec<&str> = contexts.iter().map(ContextName::as_str).collect();
                let deadline = Deadline::after(NEWS_LIFETIME);
                if let Err(error) = link.rows(Repeat::Safe, deadline, NOTIFY, &[&channel, &contexts]).await {
                    tracing::debug!(%error, "others were not told of a commit, and will find it for themselves");
                }
            }
        });
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        if let Some(listener) = locked(&self.listener).take() {
            listener.abort();
        }
    }
}

/// What has gathered; nobody tells any more where nothing has.
fn take(untold: &Mutex<Option<BTreeSet<ContextName>>>) -> Option<BTreeSet<ContextName>> {
    let mut untold = locked(untold);
    let contexts = untold.take().filter(|contexts| !contexts.is_empty())?;
    *untold = Some(BTreeSet::new());
    Some(contexts)
}

/// Whether nobody waits any more; then the next to wait starts anew.
fn is_idle(heard: &broadcast::Sender<News>, slot: &Mutex<Option<JoinHandle<()>>>) -> bool {
    let mut slot = locked(slot);
    let idle = heard.receiver_count() == 0;
    if idle {
        *slot = None;
    }
    idle
}

/// Listens on a connection of its own until that breaks, or nobody waits any more.
async fn hear(link: &Link, heard: &broadcast::Sender<News>, register: &str) -> Result<(), EngineError> {
    let told = heard.clone();
    let on_message = move |message| {
        if let AsyncMessage::Notification(notification) = message {
            let _ = told.send(News::Committed(notification.payload().into()));
        }
    };
    let (client, mut mover) = link.connect(on_message).await?;
    client.batch_execute(register).await.map_err(|error| link.told(error))?;
    // What came before is not told.
    let _ = heard.send(News::Look);
    loop {
        tokio::select! {
            () = mover.ended() => break,
            () = sleep(IDLE) => if heard.receiver_count() == 0 { return Ok(()) },
        }
    }
    let _ = heard.send(News::Look);
    Ok(())
}
