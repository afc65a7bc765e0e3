//! Documents that have passed the token of a lease that stands: its holder is told at once, the lock service begins a new
//! epoch where the tokens can be its own, and where another one's are higher, nobody wins by asking again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Store, agent_of};
use mutext::{Content, Context, Error, Fence, FencingToken, LeaseId, LockGuard, Loss, Mutext, Ttl, UpdateOptions};
use mutext_testbed::RedisServer;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context as LayerContext, SubscriberExt};

/// An agent with an opening of its own, whose locks are in `locks`.
async fn agent(name: &str, store: &Store, locks: &RedisServer) -> Context {
    let locks = locks.url().parse().unwrap();
    agent_of(&Mutext::open(&store.address(), Some(&locks)).await.unwrap(), name)
}

/// A lease that lasts for as long as a slow machine may take.
async fn long(context: &Context, path: &str) -> LockGuard {
    context.lock(path).ttl(Ttl::new(Duration::from_secs(60)).unwrap()).await.unwrap()
}

/// The lease's document sees a later token of the same epoch, as if the lock service had granted it before it went back.
async fn pass(context: &Context, guard: &LockGuard, path: &str) {
    let token = FencingToken { counter: guard.token().counter + 1_000, owner: LeaseId::random(), ..guard.token() };
    context.get_under(path, &Fence { token, ..guard.fence() }).await.unwrap();
}

fn is_outranked<T: Debug>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::LeaseLost { loss: Loss::Superseded, .. }))
}

/// The epoch that a server's table is in.
fn epoch(server: &RedisServer) -> String {
    server.cli(&["HGET", "mutext:{shared}:locks", "epoch"]).unwrap()
}

/// What the library warns of on this thread.
#[derive(Debug, Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// From now on, for as long as the guard lives.
    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        tracing::subscriber::set_default(tracing_subscriber::registry().with(self.clone()))
    }

    fn that_say(&self, words: &str) -> Vec<String> {
        self.0.lock().unwrap().iter().filter(|told| told.contains(words)).cloned().collect()
    }
}

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event<'_>, _: LayerContext<'_, S>) {
        if *event.metadata().level() == Level::WARN {
            let mut line = Line::default();
            event.record(&mut line);
            self.0.lock().unwrap().push(line.0);
        }
    }
}

#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // A text takes all that is written to it.
        let _ = write!(self.0, "{field}: {value:?}; ");
    }
}

/// Two lock services by mistake, or a primary that some still reach though another one was promoted.
#[tokio::test]
async fn whoever_asks_another_lock_service_stays_refused_and_begins_no_epoch() {
    let warnings = Warnings::default();
    let _listening = warnings.listen();
    let (store, replaced, promoted) = (Store::new(), RedisServer::start().unwrap(), RedisServer::start().unwrap());
    let (anna, bert) = (agent("anna", &store, &replaced).await, agent("bert", &store, &promoted).await);
    let late = long(&anna, "plan").await;
    late.put("plan", Content::text("anna's")).await.unwrap();
    let rightful = long(&bert, "plan").await;
    rightful.get("plan").await.unwrap();
    let before = epoch(&replaced);

    let refused = late.put("plan", Content::text("anna's again")).await;
    assert!(is_outranked(&refused), "{refused:?}");
    drop(late);
    let options = UpdateOptions { patience: Duration::from_millis(500), ..anna.update_options() };
    let outcome = anna.update_with("plan", &options, async |_| Ok::<_, Error>(Content::text("anna's once more"))).await;
    assert!(outcome.is_err(), "{outcome:?}");
    assert_eq!(epoch(&replaced), before, "the epoch of the one that was replaced");

    rightful.put("plan", Content::text("bert's")).await.unwrap();
    rightful.release().await.unwrap();
    let told = warnings.that_say("another lock service");
    let seen = format!("a token of epoch {}, and the last epoch here is {before}", epoch(&promoted));
    assert!(matches!(&told[..], [once] if once.contains(&seen)), "expected {seen:?}, once; found {told:?}");
}

#[tokio::test]
async fn a_new_epoch_is_told_once_when_it_has_begun() {
    let warnings = Warnings::default();
    let _listening = warnings.listen();
    let (store, server) = (Store::new(), RedisServer::start().unwrap());
    let anna = agent("anna", &store, &server).await;
    let (plan, notes) = (long(&anna, "plan").await, long(&anna, "notes").await);
    pass(&anna, &plan, "plan").await;
    pass(&anna, &notes, "notes").await;
    let refused = (plan.put("plan", Content::text("behind")).await, notes.get("notes").await);
    assert!(is_outranked(&refused.0) && is_outranked(&refused.1), "{refused:?}");
    let told = warnings.that_say("has begun a new epoch");
    assert_eq!(told.len(), 1, "{told:?}");
    let before = plan.token();
    drop((plan, notes));
    let next = long(&anna, "plan").await;
    assert!(next.token().epoch > before.epoch, "{} after {before}", next.token());
    next.put("plan", Content::text("anna's")).await.unwrap();
}

#[tokio::test]
async fn a_refused_lease_is_lost_though_the_lock_service_hangs_and_the_caller_goes() {
    let (store, server) = (Store::new(), RedisServer::start().unwrap());
    let anna = agent("anna", &store, &server).await;
    let (plan, notes) = (long(&anna, "plan").await, long(&anna, "notes").await);
    pass(&anna, &plan, "plan").await;
    pass(&anna, &notes, "notes").await;
    server.pause().unwrap();
    // Whichever is ready first ends the other: the write, and the read, still tell the lock service.
    tokio::select! {
        biased;
        refused = plan.put("plan", Content::text("behind")) => panic!("told before it was lost: {refused:?}"),
        loss = plan.lost() => assert_eq!(loss, Loss::Superseded),
    }
    tokio::select! {
        biased;
        refused = notes.get("notes") => panic!("told before it was lost: {refused:?}"),
        loss = notes.lost() => assert_eq!(loss, Loss::Superseded),
    }
    assert!(!plan.is_held() && !notes.is_held());
    server.resume().unwrap();
}
