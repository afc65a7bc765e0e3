//! The thread that is this process's presence: it keeps the etcd lease that everything of the process is bound to, hears
//! what the process is told, and does what is due without being asked for.
//!
//! It has a runtime of its own, on which all connections live too: neither a caller's blocking code nor the end of its
//! runtime makes the process look dead.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mutext_contract::{Deadline, Effect, EngineError, LeaseId, TroubleKind};
use mutext_reach::Pause;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::board::{Chore, Held, Left};
use crate::core::Core;
use crate::keys::{Keys, Range};
use crate::link::{LONGEST_PAUSE, Link, lock};
use crate::options::EtcdOptions;
use crate::records::Row;
use crate::steps::{self, Scene};
use crate::trouble;
use crate::watches::{Desk, News, Watches, watches};
use crate::wire::{
    DELETE, DeleteRangeRequest, LEASE_GRANT, LEASE_KEEP_ALIVE, LeaseGrantRequest, LeaseKeepAliveRequest, RANGE,
    RangeRequest,
};

/// How long a process may be silent before it is taken for dead, in seconds: the least that a server with the usual
/// election timeout allows; another one says how long it really is.
const SILENT_FOR: i64 = 2;
/// How long one question of this thread may take before it is asked again.
const PATIENCE: Duration = Duration::from_secs(2);

impl Core {
    /// Keeps an etcd lease, and gets another where it was lost.
    async fn keep(&self) {
        let mut pause = Pause::up_to(LONGEST_PAUSE);
        loop {
            let grant = self.link.call(&LEASE_GRANT, LeaseGrantRequest { ttl: SILENT_FOR }, Deadline::after(PATIENCE));
            let granted = match grant.await {
                Ok(granted) => granted.answer,
                Err(error) => {
                    tracing::info!(%error, "no etcd lease yet");
                    pause.wait().await;
                    continue;
                }
            };
            pause = Pause::up_to(LONGEST_PAUSE);
            let silent_for = Duration::from_secs(u64::try_from(granted.ttl).unwrap_or(1).max(1));
            self.home.send_replace(granted.id);
            self.keep_one(granted.id, silent_for).await;
            tracing::info!("this process was silent for too long, and what it held is gone");
            self.home.send_replace(0);
            self.board.lose_all(granted.id);
        }
    }

    /// Keeps one etcd lease until it is lost.
    async fn keep_one(&self, id: i64, silent_for: Duration) {
        let every = silent_for / 4;
        loop {
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = self.doubted.notified() => {}
            }
            let asked = Instant::now();
            let patience = Deadline::after(silent_for / 2);
            match self.link.call(&LEASE_KEEP_ALIVE, LeaseKeepAliveRequest { id }, patience).await {
                Ok(answered) if answered.answer.ttl <= 0 => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "a sign of life could not be given");
                    if asked.elapsed() >= silent_for / 2 {
                        // Nothing comes back on this way.
                        self.link.give_up_current();
                    } else {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        }
    }

    /// Hears what this process is told, under one etcd lease after the other.
    async fn hear(&self, watches: &Watches) {
        let mut home = self.home.subscribe();
        loop {
            let own = *home.borrow_and_update();
            let changed = if own == 0 {
                home.changed().await
            } else {
                tokio::select! {
                    changed = home.changed() => changed,
                    () = self.hear_as(own, watches) => Ok(()),
                }
            };
            if changed.is_err() {
                return;
            }
        }
    }

    async fn hear_as(&self, home: i64, watches: &Watches) {
        let all_news = self.keys.all_news(home);
        let mut watcher = watches.watcher();
        loop {
            // Nothing is known yet: whatever there was before the watch counts as missed.
            watcher.set(std::slice::from_ref(&all_news), 0);
            for news in watcher.news().await {
                match news {
                    News::Written { key, .. } => self.told(key).await,
                    News::Gone { .. } => {}
                    News::Missed => self.catch_up(&all_news).await,
                    News::LookAgain => {
                        watcher.reset();
                        tokio::time::sleep(PATIENCE / 10).await;
                    }
                }
            }
        }
    }

    /// Takes what has been told already, as soon as the cluster answers.
    async fn catch_up(&self, (key, range_end): &Range) {
        let look = RangeRequest { key: key.clone(), range_end: range_end.clone() };
        loop {
            if let Ok(found) = self.link.call(&RANGE, look.clone(), Deadline::after(PATIENCE)).await {
                for kv in found.answer.kvs {
                    self.told(kv.key).await;
                }
                return;
            }
            tokio::time::sleep(PATIENCE / 10).await;
        }
    }

    /// A lease was taken from this process.
    async fn told(&self, key: Vec<u8>) {
        if let Some(id) = Keys::told_of(&key) {
            self.board.lose(id);
        }
        // What stays is found again, and goes with the process.
        let _ = self.link.call(&DELETE, DeleteRangeRequest { key }, Deadline::after(PATIENCE)).await;
    }

    /// Does what is due: shows leases whose time has run out, and ends what nobody has ended.
    async fn tend(&self) {
        loop {
            let due = self.board.due();
            let sleep = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => {}
                () = self.board.changed.notified() => continue,
            }
            for chore in self.board.chores() {
                let outcome = match chore {
                    Chore::Lapse(id, held) => self.lapse(id, *held).await,
                    Chore::End(id, left) => self.end(id, &left).await,
                };
                if let Err(error) = outcome {
                    tracing::debug!(%error, "what was due is tried again");
                }
            }
        }
    }

    /// Writes down that the time of a lease of ours has run out.
    async fn lapse(&self, id: LeaseId, held: Held) -> Result<(), EngineError> {
        let scene = Scene { keys: &self.keys, context: &held.context, id };
        let about = held.about.lapsed();
        let step = steps::rewrite(scene, &held.key, held.modified, &about, held.home);
        let written = self.step(step, Deadline::after(PATIENCE)).await?;
        if written.succeeded {
            self.board.rewritten(id, &Held { about, modified: written.revision, ..held });
        } else if let Some(kv) = written.found(0).first() {
            // It was renewed meanwhile, or lapsed by another's hand.
            if let Some(row) = Row::of(&self.keys, &held.context, kv) {
                self.board.rewritten(id, &Held { about: row.about, modified: row.modified, ..held });
            }
        } else {
            self.board.lose(id);
        }
        Ok(())
    }

    async fn end(&self, id: LeaseId, left: &Left) -> Result<(), EngineError> {
        let scene = Scene { keys: &self.keys, context: &left.context, id };
        let deadline = Deadline::after(PATIENCE);
        if left.is_asked {
            self.remembering(deadline, |memory| steps::release(scene, Some(memory))).await?;
        } else {
            self.step(steps::release(scene, None), deadline).await?;
        }
        self.board.is_done(id);
        Ok(())
    }
}

/// The presence of a process; it ends when this is dropped.
pub(crate) struct Presence {
    pub(crate) core: Arc<Core>,
    pub(crate) watches: Watches,
    _stop: watch::Sender<()>,
    thread: std::sync::Mutex<Option<thread::JoinHandle<()>>>,
}

impl Presence {
    /// Ready when the cluster is reached and the process has its etcd lease.
    pub(crate) async fn start(options: EtcdOptions, deadline: Deadline) -> Result<Self, EngineError> {
        let trouble = |error: std::io::Error| {
            let kind = TroubleKind::Unavailable;
            EngineError::new("thread mutext-etcd", kind, "allow more threads for this process").caused_by(error)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(trouble)?;
        let options = Arc::new(options);
        let link = match Link::new(Arc::clone(&options), runtime.handle().clone()) {
            Ok(link) => link,
            Err(error) => {
                // It may not be waited for here.
                runtime.shutdown_background();
                return Err(error);
            }
        };
        let core = Arc::new(Core::new(link, Keys::new(&options)));
        let (watches, wishes) = watches();
        let (stop, mut stopped) = watch::channel(());
        let (ready, is_ready) = oneshot::channel();
        let live = {
            let (core, watches) = (Arc::clone(&core), watches.clone());
            async move {
                let work = async {
                    let begun = core.link.begin(deadline).await;
                    let is_good = begun.is_ok();
                    drop(ready.send(begun));
                    if is_good {
                        let desk = Desk::new(wishes);
                        tokio::join!(core.keep(), core.hear(&watches), core.tend(), desk.run(&core.link));
                    }
                };
                tokio::select! {
                    () = work => {}
                    // An error says that the sender is gone.
                    _ = stopped.changed() => {}
                }
            }
        };
        let run = move || runtime.block_on(live);
        let thread = thread::Builder::new().name("mutext-etcd".to_owned()).spawn(run).map_err(trouble)?;
        let presence = Self { core, watches, _stop: stop, thread: std::sync::Mutex::new(Some(thread)) };
        match tokio::time::timeout_at(deadline.instant(), is_ready).await {
            Ok(Ok(begun)) => begun?,
            _ => return Err(trouble::unanswered(presence.core.link.subject()).with_effect(Effect::None)),
        }
        presence.core.home(deadline).await?;
        Ok(presence)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // The thread ends by itself; whoever drops this may be on a runtime that must not wait.
        drop(lock(&self.thread).take());
    }
}
