//! Watches: one stream for the whole process, and a mailbox for each who watches.
//!
//! A watch that asks for what has happened already is served at once only if nothing has, anywhere in etcd; otherwise it
//! waits for a round that a member makes ten times a second (`syncWatchersLoop` in its `watchable_store.go`), and all
//! that happens until then waits with it. So a new watch tells of what happens from now on, and whoever watches is told
//! if that leaves a gap: a look shows what lies in it.
//!
//! A stream may break at any moment, and its member may go: each watch is made again from the revision after the last
//! that it has told of, so that nothing is missed. Where that revision has been compacted away, whoever watches is told
//! to look again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use mutext_reach::Pause;
use tokio::sync::{Notify, mpsc};

use crate::keys::Range;
use crate::link::{LONGEST_PAUSE, Link, lock};
use crate::trouble;
use crate::wire::{DELETED, Event, WatchCancelRequest, WatchCreateRequest, WatchRequest, WatchResponse, WatchWish};

/// So many messages wait in a mailbox; beyond, a look tells as much.
const MAILBOX_MAX: usize = 64;

/// What somebody who watches is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    Written {
        key: Vec<u8>,
        modified: i64,
        value: Vec<u8>,
    },
    Gone {
        key: Vec<u8>,
    },
    /// Something may have happened after what is known, and before the watch began: it tells of all that follows.
    Missed,
    /// Something may have been missed, and the watch may have ended.
    LookAgain,
}

#[derive(Default)]
struct Mailbox {
    news: Mutex<Vec<News>>,
    told: Notify,
}

impl Mailbox {
    fn put(&self, news: News) {
        let mut box_ = lock(&self.news);
        if box_.len() >= MAILBOX_MAX {
            box_.clear();
            box_.push(News::LookAgain);
        } else {
            box_.push(news);
        }
        self.told.notify_one();
    }
}

enum Wish {
    Add(i64, Registration),
    Remove(i64),
}

struct Registration {
    range: Range,
    /// The first revision that has not been told of.
    next: i64,
    /// No member has begun it yet.
    is_new: bool,
    mailbox: Arc<Mailbox>,
}

/// Where watches are asked for.
#[derive(Clone)]
pub(crate) struct Watches {
    wishes: mpsc::UnboundedSender<Wish>,
    numbers: Arc<AtomicI64>,
}

/// Where wishes are heard.
pub(crate) struct Wishes(mpsc::UnboundedReceiver<Wish>);

pub(crate) fn watches() -> (Watches, Wishes) {
    let (wishes, heard) = mpsc::unbounded_channel();
    (Watches { wishes, numbers: Arc::new(AtomicI64::new(1)) }, Wishes(heard))
}

impl Watches {
    pub(crate) fn watcher(&self) -> Watcher {
        Watcher { watches: self.clone(), mailbox: Arc::default(), current: Vec::new() }
    }
}

/// Somebody who watches; dropped, it watches no more.
pub(crate) struct Watcher {
    watches: Watches,
    mailbox: Arc<Mailbox>,
    current: Vec<(Range, i64)>,
}

impl Watcher {
    /// Watches these and nothing else; what was not watched before is known up to the revision before `from`.
    pub(crate) fn set(&mut self, ranges: &[Range], from: i64) {
        let kept = |range: &Range| ranges.contains(range);
        for (_, number) in self.current.extract_if(.., |(range, _)| !kept(range)) {
            let _ = self.watches.wishes.send(Wish::Remove(number));
        }
        for range in ranges {
            if self.current.iter().any(|(current, _)| current == range) {
                continue;
            }
            let number = self.watches.numbers.fetch_add(1, Ordering::Relaxed);
            let mailbox = Arc::clone(&self.mailbox);
            let registration = Registration { range: range.clone(), next: from, is_new: true, mailbox };
            // Where nobody hears it any more, the service has ended.
            let _ = self.watches.wishes.send(Wish::Add(number, registration));
            self.current.push((range.clone(), number));
        }
    }

    /// Watches nothing for now.
    pub(crate) fn reset(&mut self) {
        self.set(&[], 0);
        lock(&self.mailbox.news).clear();
    }

    /// What there is to tell, as soon as there is something.
    pub(crate) async fn news(&self) -> Vec<News> {
        loop {
            let news = std::mem::take(&mut *lock(&self.mailbox.news));
            if !news.is_empty() {
                return news;
            }
            self.mailbox.told.notified().await;
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.set(&[], 0);
    }
}

fn create(number: i64, registration: &Registration) -> WatchRequest {
    let (key, range_end) = registration.range.clone();
    let start_revision = if registration.is_new { 0 } else { registration.next };
    let create = WatchCreateRequest { key, range_end, start_revision, watch_id: number };
    WatchRequest { wish: Some(WatchWish::Create(create)) }
}

/// The stream's side: keeps it open and hands news on, until nobody can wish for anything.
pub(crate) struct Desk {
    registered: HashMap<i64, Registration>,
    wishes: Wishes,
}

impl Desk {
    pub(crate) fn new(wishes: Wishes) -> Self {
        Self { registered: HashMap::new(), wishes }
    }

    /// What is to be sent for a wish.
    fn apply(&mut self, wish: Wish) -> Option<WatchRequest> {
        match wish {
            Wish::Add(number, registration) => {
                let request = create(number, &registration);
                self.registered.insert(number, registration);
                Some(request)
            }
            Wish::Remove(number) => {
                self.registered.remove(&number)?;
                let cancel = WatchCancelRequest { watch_id: number };
                Some(WatchRequest { wish: Some(WatchWish::Cancel(cancel)) })
            }
        }
    }

    pub(crate) async fn run(mut self, link: &Link) {
        let mut pause = Pause::up_to(LONGEST_PAUSE);
        loop {
            // A member answers a stream with its first watch: without one there is nothing to wait for.
            while self.registered.is_empty() {
                match self.wishes.0.recv().await {
                    Some(wish) => drop(self.apply(wish)),
                    None => return,
                }
            }
            match self.stream(link).await {
                End::Served => pause = Pause::up_to(LONGEST_PAUSE),
                End::Failed => pause.wait().await,
                End::Over => return,
            }
        }
    }

    /// One stream, until it ends.
    async fn stream(&mut self, link: &Link) -> End {
        let mut changes = link.changes();
        let (send, heard) = mpsc::unbounded_channel();
        for (number, registration) in &self.registered {
            let _ = send.send(create(*number, registration));
        }
        let (mut answers, number) = match link.watch(heard).await {
            Ok(opened) => opened,
            Err((status, number)) => {
                tracing::debug!(%status, "no stream of watches yet");
                link.recover(&status, number).await;
                return End::Failed;
            }
        };
        let mut has_served = false;
        loop {
            tokio::select! {
                wish = self.wishes.0.recv() => match wish {
                    Some(wish) => {
                        if let Some(request) = self.apply(wish) {
                            let _ = send.send(request);
                        }
                    }
                    None => return End::Over,
                },
                // The way was given up, by whoever found that it does not serve.
                _ = changes.changed() => {
                    if *changes.borrow_and_update() != number {
                        return if has_served { End::Served } else { End::Failed };
                    }
                }
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => {
                        has_served = true;
                        if !self.hear(answer) {
                            link.recover(&tonic::Status::unauthenticated("a watch was refused"), number).await;
                            return End::Failed;
                        }
                    }
                    Ok(None) => {
                        link.give_up(number);
                        return if has_served { End::Served } else { End::Failed };
                    }
                    Err(status) => {
                        tracing::debug!(%status, "the stream of watches broke");
                        link.recover(&status, number).await;
                        return if has_served && !trouble::wants_login(&status) { End::Served } else { End::Failed };
                    }
                },
            }
        }
    }

    /// Hands news on; false where the stream is of no use.
    fn hear(&mut self, answer: WatchResponse) -> bool {
        if answer.canceled && answer.watch_id < 0 {
            // Nobody is named: it may be any of those that were asked for.
            tracing::debug!(reason = answer.cancel_reason, "a watch was refused");
            for (_, registration) in self.registered.drain() {
                registration.mailbox.put(News::LookAgain);
            }
            return false;
        }
        if answer.canceled {
            // Compacted away, or it says why not; nothing where we asked for the end ourselves.
            if let Some(registration) = self.registered.remove(&answer.watch_id) {
                tracing::debug!(reason = answer.cancel_reason, "a watch was ended by the server");
                registration.mailbox.put(News::LookAgain);
            }
            return true;
        }
        if let Some(registration) = self.registered.get_mut(&answer.watch_id) {
            if answer.created && registration.is_new {
                registration.is_new = false;
                let before = answer.header.as_ref().map_or(registration.next, |header| header.revision);
                if before >= registration.next {
                    registration.next = before + 1;
                    registration.mailbox.put(News::Missed);
                }
            }
            for Event { kind, kv } in answer.events {
                let Some(kv) = kv else { continue };
                registration.next = registration.next.max(kv.mod_revision + 1);
                registration.mailbox.put(if kind == DELETED {
                    News::Gone { key: kv.key }
                } else {
                    News::Written { key: kv.key, modified: kv.mod_revision, value: kv.value }
                });
            }
        }
        true
    }
}

/// How a stream ended.
enum End {
    /// It was of use, and another may be opened at once.
    Served,
    /// It was of none.
    Failed,
    /// The service has ended.
    Over,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ResponseHeader;

    fn starts_at(request: &WatchRequest) -> i64 {
        match &request.wish {
            Some(WatchWish::Create(create)) => create.start_revision,
            other => panic!("expected a watch to be asked for; found {other:?}"),
        }
    }

    #[test]
    fn a_new_watch_asks_for_nothing_that_has_happened_and_says_where_that_leaves_a_gap() {
        // What is known ends at revision 7.
        for (begun_at, expected) in [(7, vec![]), (8, vec![News::Missed]), (20, vec![News::Missed])] {
            let (watches, wishes) = watches();
            let mut desk = Desk::new(wishes);
            let mut watcher = watches.watcher();
            watcher.set(&[(b"key".to_vec(), Vec::new())], 8);
            let wish = desk.wishes.0.try_recv().unwrap();
            assert_eq!(starts_at(&desk.apply(wish).unwrap()), 0);
            let header = Some(ResponseHeader { revision: begun_at, ..ResponseHeader::default() });
            assert!(desk.hear(WatchResponse { header, watch_id: 1, created: true, ..WatchResponse::default() }));
            assert_eq!(*lock(&watcher.mailbox.news), expected, "begun at {begun_at}");
            // On another stream it goes on from there, and leaves no gap.
            assert_eq!(starts_at(&create(1, &desk.registered[&1])), begun_at + 1);
        }
    }

    #[test]
    fn a_watch_that_no_member_has_begun_is_new_on_the_next_stream_as_well() {
        let (watches, wishes) = watches();
        let mut desk = Desk::new(wishes);
        let mut watcher = watches.watcher();
        watcher.set(&[(b"key".to_vec(), Vec::new())], 8);
        let wish = desk.wishes.0.try_recv().unwrap();
        desk.apply(wish);
        assert_eq!(starts_at(&create(1, &desk.registered[&1])), 0);
    }
}
