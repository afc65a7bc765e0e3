//! Leases that stay with an agent that takes the same lock again and again, and that nobody notices.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mutext::{
    Commit, Context, Error, Fence, FencingToken, LeaseId, LockGuard, Loss, Mutext, Precondition, Release, Ttl,
};
use mutext_testbed::{PostgresServer, RedisNodes, RedisServer};

use crate::common::{Store, assert_free, eventually, poll_then_drop, settings, wait};
use crate::{Place, on_each_engine};

on_each_engine! {
    each_time_has_a_token_of_its_own_and_keeps_older_ones_out
    whoever_waits_or_tries_has_its_turn_and_nobody_overlaps
    those_who_come_and_go_never_overlap_and_their_tokens_rise
    nothing_stays_for_long
    what_is_finished_or_dropped_keeps_nothing
    what_was_revoked_is_not_taken_again
    what_is_given_up_half_way_is_given_back
    other_terms_are_another_lease
    an_agent_that_wants_more_than_it_kept_is_not_in_its_own_way
    a_request_with_a_name_has_a_lease_of_that_name
    what_is_released_is_free_at_once
}

/// No test waits it out.
const TTL: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(30);

/// Takes `resource` until the lease is one that it had before.
async fn until_kept(agent: &Context, resource: &str) -> LockGuard {
    let mut before = None;
    for _ in 0..10_000 {
        let guard = agent.lock(resource).ttl(Ttl::new(TTL).unwrap()).await.unwrap();
        let is_same = before.replace(guard.lease().id()) == Some(guard.lease().id());
        if is_same {
            return guard;
        }
        drop(guard);
    }
    panic!("it never kept a lease");
}

/// What is written under this token comes too late.
async fn is_refused(agent: &Context, old: FencingToken) {
    let late = Commit::new(agent.agent().clone()).put("plan".parse().unwrap(), "late".into(), Precondition::Any);
    let outcome = agent.commit(late.fenced_by(Fence::new(old, "plan").unwrap())).await;
    assert!(matches!(outcome, Err(Error::LeaseLost { loss: Loss::Superseded, .. })), "{old}: {outcome:?}");
}

async fn each_time_has_a_token_of_its_own_and_keeps_older_ones_out(place: &Place) {
    let (anna, bert) = (place.agent("anna").await, place.agent("bert").await);
    let guard = until_kept(&anna, "plan").await;
    let mut tokens = vec![guard.token()];
    guard.put("plan", "0").await.unwrap();
    drop(guard);
    for round in 1..200 {
        let guard = anna.lock("plan").ttl(Ttl::new(TTL).unwrap()).await.unwrap();
        tokens.push(guard.token());
        assert_eq!(guard.get("plan").await.unwrap().unwrap().content.as_str(), (round - 1).to_string());
        guard.put("plan", round.to_string()).await.unwrap();
        if round % 20 == 0 {
            is_refused(&anna, tokens[round - 1]).await;
        }
        drop(guard);
    }
    assert!(tokens.windows(2).all(|pair| pair[0].number() < pair[1].number()), "{tokens:?}");

    // A write that was under way when its guard was dropped comes too late, also where the lease is the same.
    for old in &tokens[..199] {
        is_refused(&anna, *old).await;
    }
    let next = bert.lock("plan").await.unwrap().token();
    assert!(tokens.iter().all(|own| own.number() < next.number()), "{next} after {tokens:?}");
    assert_eq!(next.epoch, tokens[0].epoch, "what comes late is no sign of a lock service that went back");
}

/// Takes the lock again and again until it is told to stop; how often.
async fn insists(agent: Context, inside: Arc<AtomicUsize>, stop: Arc<AtomicBool>) -> usize {
    let mut times = 0;
    while !stop.load(Ordering::Relaxed) {
        let guard = agent.lock("board").wait(wait(PATIENCE)).await.unwrap();
        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "somebody else holds it");
        tokio::task::yield_now().await;
        inside.fetch_sub(1, Ordering::SeqCst);
        drop(guard);
        times += 1;
    }
    times
}

async fn whoever_waits_or_tries_has_its_turn_and_nobody_overlaps(place: &Place) {
    let (inside, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let anna = place.agent("anna").await;
    let busy = tokio::spawn(insists(anna, Arc::clone(&inside), Arc::clone(&stop)));
    let bert = place.agent("bert").await;
    for _ in 0..20 {
        let guard = bert.lock("board").wait(wait(PATIENCE)).await.unwrap();
        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "somebody else holds it");
        inside.fetch_sub(1, Ordering::SeqCst);
        guard.release().await.unwrap();
        // It has time to make a habit of it again.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut tries = 0;
    let served = async {
        for _ in 0..5 {
            loop {
                tries += 1;
                match bert.lock("board").without_waiting().await {
                    Ok(guard) => {
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "somebody else holds it");
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(guard);
                        break;
                    }
                    Err(error) => assert!(matches!(error, Error::Timeout { .. }), "{error}"),
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, served).await.is_ok(), "{tries} tries, and none of the last was served");
    stop.store(true, Ordering::Relaxed);
    assert!(busy.await.unwrap() > 20);
}

/// In bursts, and between them away for a while, until some have had the lease that they had before often enough; on a
/// busy machine, that may be seldom.
async fn comes_and_goes(agent: Context, highest: Arc<Mutex<(u64, u64)>>, kept: Arc<AtomicUsize>) {
    let (mut before, until) = (None, Instant::now() + PATIENCE / 2);
    while kept.load(Ordering::Relaxed) < 30 && Instant::now() < until {
        for _ in 0..rand::random_range(1..40) {
            let guard = agent.lock("board").wait(wait(PATIENCE)).await.unwrap();
            {
                // Nobody else is here: whoever was before has a lower token.
                let mut highest = highest.try_lock().expect("somebody else holds it");
                assert!(guard.token().number() > *highest, "{} after {highest:?}", guard.token());
                *highest = guard.token().number();
                // Time for somebody else to make a mistake.
                std::thread::sleep(Duration::from_micros(rand::random_range(0..100)));
            }
            let is_same = before.replace(guard.lease().id()) == Some(guard.lease().id());
            kept.fetch_add(usize::from(is_same), Ordering::Relaxed);
            drop(guard);
        }
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..200))).await;
    }
}

async fn those_who_come_and_go_never_overlap_and_their_tokens_rise(place: &Place) {
    let highest = Arc::new(Mutex::new((0, 0)));
    let kept = Arc::new(AtomicUsize::new(0));
    let mut agents = Vec::new();
    // Two of one opening, and another: what one keeps is neither's.
    let opening = place.open().await;
    let two = ["anna", "bert"].map(|name| opening.context("shared", settings(name)).unwrap());
    for agent in two.into_iter().chain([place.agent("carl").await]) {
        agents.push(tokio::spawn(comes_and_goes(agent, Arc::clone(&highest), Arc::clone(&kept))));
    }
    for agent in agents {
        agent.await.unwrap();
    }
    assert!(kept.load(Ordering::Relaxed) > 0, "nobody was ever alone with it");
}

async fn nothing_stays_for_long(place: &Place) {
    let (anna, bert) = (place.agent("anna").await, place.agent("bert").await);
    for agent in [&anna, &bert] {
        drop(until_kept(agent, "plan").await);
        let is_free = async || bert.locks().await.unwrap().holdings.is_empty();
        eventually("the lock is free though nobody asks, long before it expires", is_free).await;
    }
}

async fn what_is_finished_or_dropped_keeps_nothing(place: &Place) {
    let bert = place.agent("bert").await;
    let mutext: Mutext = place.open().await;
    let anna = mutext.context("shared", settings("anna")).unwrap();
    drop(until_kept(&anna, "plan").await);
    mutext.finish().await;
    assert!(bert.locks().await.unwrap().holdings.is_empty(), "all that was kept is given back");

    drop(until_kept(&anna, "plan").await);
    drop(anna);
    mutext.finish().await;
    assert!(bert.locks().await.unwrap().holdings.is_empty(), "nobody comes back for it");
    assert_free(&bert, "plan", "nobody is there").await;
}

async fn what_was_revoked_is_not_taken_again(place: &Place) {
    let (anna, boss) = (place.agent("anna").await, place.agent("boss").await);
    let guard = until_kept(&anna, "plan").await;
    let (lease, token): (LeaseId, FencingToken) = (guard.lease().id(), guard.token());
    boss.revoke(lease, "the plan is closed").await.unwrap();
    drop(guard);
    let guard = anna.lock("plan").await.unwrap();
    assert!(guard.lease().id() != lease && guard.token().number() > token.number());
    guard.put("plan", "mine").await.unwrap();
}

async fn what_is_given_up_half_way_is_given_back(place: &Place) {
    let anna = place.agent("anna").await;
    for round in 0..40 {
        let guard = until_kept(&anna, "plan").await;
        let released = guard.lease().id();
        poll_then_drop(guard.release(), 1, Duration::from_micros(20 * round)).await;
        assert_ne!(anna.lock("plan").ttl(Ttl::new(TTL).unwrap()).await.unwrap().lease().id(), released);

        let guard = until_kept(&anna, "plan").await.downgrade().await.unwrap();
        drop(guard);
        let guard = until_kept(&anna, "plan").await;
        let replaced = guard.lease().id();
        poll_then_drop(guard.downgrade(), 1, Duration::from_micros(20 * round)).await;
        assert_ne!(anna.lock("plan").ttl(Ttl::new(TTL).unwrap()).await.unwrap().lease().id(), replaced);
    }
}

async fn other_terms_are_another_lease(place: &Place) {
    let anna = place.agent("anna").await;
    let (short, long) = (Ttl::new(Duration::from_secs(5)).unwrap(), Ttl::new(TTL).unwrap());
    let lock = async |ttl| anna.lock("plan").shared().ttl(ttl).await.unwrap();
    for _ in 0..50 {
        // The two are of one line, side by side.
        let (one, other) = tokio::join!(lock(short), lock(long));
        drop((one, other));
        for ttl in [long, short, short, short, short, short, long] {
            let guard = lock(ttl).await;
            assert_eq!(guard.lease().ttl, ttl);
        }
        let guard = anna.lock("plan").shared().ttl(long).reason("reading").await.unwrap();
        let table = anna.locks().await.unwrap();
        let own = table.holdings.iter().find(|holding| holding.lease == guard.lease().id());
        assert_eq!(own.unwrap().reason.as_deref(), Some("reading"));
    }
}

async fn an_agent_that_wants_more_than_it_kept_is_not_in_its_own_way(place: &Place) {
    let anna = place.agent("anna").await;
    for _ in 0..5 {
        drop(until_kept(&anna, "tasks/17").await);
        drop(anna.lock("tasks/").and("plan").without_waiting().await.unwrap());
        drop(until_kept(&anna, "tasks/17").await);
        drop(anna.lock("tasks/17").shared().without_waiting().await.unwrap());
        drop(anna.lock("tasks/17").shared().without_waiting().await.unwrap());
    }
}

async fn a_request_with_a_name_has_a_lease_of_that_name(place: &Place) {
    let anna = place.agent("anna").await;
    drop(until_kept(&anna, "plan").await);
    let lock = anna.lock("plan").ttl(Ttl::new(TTL).unwrap()).without_waiting();
    let id = lock.id();
    assert_eq!(lock.await.unwrap().lease().id(), id);
}

async fn what_is_released_is_free_at_once(place: &Place) {
    let (anna, bert) = (place.agent("anna").await, place.agent("bert").await);
    for _ in 0..20 {
        let guard = until_kept(&anna, "plan").await;
        assert_eq!(guard.release().await.unwrap(), Release::Released);
        assert!(bert.locks().await.unwrap().holdings.is_empty(), "whoever waits for the answer has given it back");
    }
}

/// All of the above, each in a place of its own.
async fn as_on_each_engine(new: impl Fn() -> Place) {
    each_time_has_a_token_of_its_own_and_keeps_older_ones_out(&new()).await;
    whoever_waits_or_tries_has_its_turn_and_nobody_overlaps(&new()).await;
    those_who_come_and_go_never_overlap_and_their_tokens_rise(&new()).await;
    nothing_stays_for_long(&new()).await;
    what_is_finished_or_dropped_keeps_nothing(&new()).await;
    what_was_revoked_is_not_taken_again(&new()).await;
    what_is_given_up_half_way_is_given_back(&new()).await;
    other_terms_are_another_lease(&new()).await;
    an_agent_that_wants_more_than_it_kept_is_not_in_its_own_way(&new()).await;
    a_request_with_a_name_has_a_lease_of_that_name(&new()).await;
    what_is_released_is_free_at_once(&new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_that_are_opened_late_are_kept_as_well() {
    let (server, store) = (RedisServer::start().unwrap(), Store::new());
    let open = async || {
        let mutext = Mutext::open_late(&store.address(), Some(&server.url().parse().unwrap())).await.unwrap();
        mutext.context("shared", settings("late")).unwrap()
    };
    let (anna, bert) = (open().await, open().await);
    for _ in 0..20 {
        drop(until_kept(&anna, "plan").await);
        drop(bert.lock("plan").without_waiting().await.unwrap());
    }
}

fn of_its_own() -> String {
    format!("m{:031x}", rand::random::<u128>() >> 4)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql() {
    let server = PostgresServer::start().unwrap();
    as_on_each_engine(|| Place::locked_by(&format!("{}?schema={}", server.url(), of_its_own()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_independent_nodes() {
    let nodes = RedisNodes::start(3).unwrap();
    let url = nodes.url();
    as_on_each_engine(|| Place::locked_by(&format!("{url}?prefix={}", of_its_own()))).await;
}

#[tokio::test]
async fn whoever_comes_back_at_once_asks_seldom() {
    let (redis, store) = (RedisServer::start().unwrap(), Store::new());
    let mutext = Mutext::open(&store.address(), Some(&redis.url().parse().unwrap())).await.unwrap();
    let anna = mutext.context("shared", settings("anna")).unwrap();
    let asked = async || {
        let mut connection =
            redis::Client::open(redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
        let stats: redis::InfoDict = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.unwrap();
        let calls = stats.get::<String>("cmdstat_evalsha").unwrap();
        calls.split(['=', ',']).nth(1).unwrap().parse::<usize>().unwrap()
    };
    drop(anna.lock("plan").await.unwrap());
    let before = asked().await;
    for _ in 0..5_000 {
        drop(anna.lock("plan").await.unwrap());
    }
    let calls = asked().await - before;
    assert!(calls < 5_000, "{calls} calls for 5,000 locks: without keeping any they would be twice as many");
}
