//! Many at once in one process: their turns share calls, and must come out as if each had gone by itself.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{open, soon};
use mutext_conformance::asking::{context, granted, request};
use mutext_contract::{
    Acquisition, AgentName, Claim, Deadline, Holder, LeaseId, LockRequest, LockService, Mode, Release, Ttl,
};
use mutext_redis::RedisLocks;
use mutext_testbed::RedisServer;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

const TTL: Duration = Duration::from_secs(60);
const TASKS: usize = 64;
const STEPS: usize = 60;
const PATHS: [&str; 12] = ["/", "a", "a/x", "a/y", "a/x/1", "a/x/2", "b", "b/z", "b/z/1/2", "c", "d/e", "f"];

/// Who holds what, as those who hold it see it.
#[derive(Default)]
struct Held {
    leases: Mutex<HashMap<LeaseId, Arc<[Claim]>>>,
    counts: Mutex<HashSet<(u64, u64)>>,
}

impl Held {
    fn take(&self, id: LeaseId, claims: &Arc<[Claim]>, number: (u64, u64)) {
        let mut leases = self.leases.lock().unwrap();
        for (other, theirs) in &*leases {
            let conflict = theirs.iter().any(|theirs| claims.iter().any(|own| own.conflicts(theirs)));
            assert!(!conflict, "{id} was granted {claims:?} while {other} held {theirs:?}");
        }
        leases.insert(id, Arc::clone(claims));
        assert!(self.counts.lock().unwrap().insert(number), "{number:?} was granted twice");
    }

    fn leave(&self, id: LeaseId) {
        self.leases.lock().unwrap().remove(&id);
    }
}

fn any_request(random: &mut StdRng, holder: &Holder) -> LockRequest {
    let count = if random.random_bool(0.15) { 2 } else { 1 };
    let claims = (0..count).map(|_| {
        // The whole context is wanted seldom: nothing else would go on.
        let path = if random.random_bool(0.02) { PATHS[0] } else { PATHS[1..].choose(random).unwrap() };
        let mode = if random.random_bool(0.6) { Mode::Shared } else { Mode::Exclusive };
        Claim { resource: path.parse().unwrap(), mode }
    });
    LockRequest::new(context(), holder.clone(), Ttl::new(TTL).unwrap(), claims).unwrap()
}

/// One task's life: it asks, holds for a moment, gives back, and sometimes goes away in the middle of it.
async fn live(locks: Arc<RedisLocks>, held: Arc<Held>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let holder = Holder::new(AgentName::new("agent").unwrap());
    for _ in 0..STEPS {
        let request = any_request(&mut random, &holder);
        let wait = Duration::from_millis(*[0, 30, 20_000].choose(&mut random).unwrap());
        let asking = locks.acquire(&request, Deadline::after(wait));
        let patience = Duration::from_micros(random.random_range(0..3000));
        let leaves = random.random_bool(0.2);
        let answer = if leaves { tokio::time::timeout(patience, asking).await.ok() } else { Some(asking.await) };
        match answer.transpose().unwrap() {
            Some(Acquisition::Granted(grant)) => {
                held.take(request.lease, request.claims(), grant.lease.token.number());
                tokio::time::sleep(Duration::from_micros(random.random_range(0..500))).await;
                held.leave(request.lease);
                let released = locks.release(&context(), request.lease, soon()).await.unwrap();
                assert_eq!(released, Release::Released);
            }
            Some(Acquisition::TimedOut(_)) => {}
            Some(other) => panic!("nobody keeps or replaces anything, and yet: {other:?}"),
            None => {
                locks.release(&context(), request.lease, soon()).await.unwrap();
            }
        }
    }
}

/// Looks at the table again and again: at no moment does anybody wait whom nothing is in the way of.
async fn watch(locks: Arc<RedisLocks>) {
    loop {
        let table = locks.inspect(&context(), soon()).await.unwrap();
        let in_vain = mutext_conformance::waits_in_vain(&table);
        assert!(in_vain.is_none(), "{in_vain:?} waits for nothing; found {table:?}");
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

fn left(server: &RedisServer) -> Vec<String> {
    let fields = server.cli(&["HKEYS", "mutext:{research-42}:locks"]).unwrap();
    let is_left = |field: &&str| field.contains('/') && !field.starts_with("a/") || field.len() == 32;
    fields.lines().filter(is_left).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_that_share_calls_come_out_as_if_each_went_alone() {
    let server = RedisServer::start().unwrap();
    let epochs = Arc::default();
    let clients = [open(&server.url(), &epochs).await.unwrap(), open(&server.url(), &epochs).await.unwrap()];
    let held = Arc::new(Held::default());
    let seed: u64 = std::env::var("MUTEXT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let locks = Arc::clone(&clients[task % clients.len()]);
            tokio::spawn(live(locks, Arc::clone(&held), seed.wrapping_add(task as u64)))
        })
        .collect();
    let watch = tokio::spawn(watch(open(&server.url(), &epochs).await.unwrap()));
    for task in tasks {
        // The server may forget its scripts at any time.
        server.cli(&["SCRIPT", "FLUSH"]).unwrap();
        let outcome = tokio::time::timeout(Duration::from_secs(120), task).await;
        outcome.unwrap_or_else(|_| panic!("a task does not end; MUTEXT_SEED={seed}")).unwrap();
    }
    watch.abort();
    if let Err(failure) = watch.await {
        assert!(failure.is_cancelled(), "MUTEXT_SEED={seed}: {failure}");
    }
    let table = clients[0].inspect(&context(), soon()).await.unwrap();
    assert_eq!((table.holdings.len(), table.waiters.len()), (0, 0), "{table:?}");
    assert_eq!(left(&server), Vec::<String>::new(), "MUTEXT_SEED={seed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_ask_at_one_moment_only_those_are_granted_that_do_not_conflict() {
    let server = RedisServer::start().unwrap();
    let locks = open(&server.url(), &Arc::default()).await.unwrap();
    let mut random = StdRng::seed_from_u64(1);
    let holder = Holder::new(AgentName::new("agent").unwrap());
    for _ in 0..40 {
        let held = Arc::new(Held::default());
        let asking: Vec<_> = (0..TASKS)
            .map(|_| {
                let (locks, held, request) = (Arc::clone(&locks), Arc::clone(&held), any_request(&mut random, &holder));
                tokio::spawn(async move {
                    // They hold it until all have been answered.
                    let answer = locks.acquire(&request, Deadline::now()).await.unwrap();
                    let Acquisition::Granted(grant) = answer else { return None };
                    held.take(request.lease, request.claims(), grant.lease.token.number());
                    Some(request.lease)
                })
            })
            .collect();
        let mut leases = Vec::new();
        for asking in asking {
            leases.extend(asking.await.unwrap());
        }
        assert!(!leases.is_empty(), "the first of them has nothing in its way");
        for lease in leases {
            assert_eq!(locks.release(&context(), lease, soon()).await.unwrap(), Release::Released);
        }
    }
    assert_eq!(left(&server), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_take_few_calls() {
    let server = RedisServer::start().unwrap();
    let locks = open(&server.url(), &Arc::default()).await.unwrap();
    // The epoch begins.
    let first = granted(&locks, &request("anna", "first", TTL), TTL).await.lease;
    locks.release(&context(), first.id(), soon()).await.unwrap();
    server.cli(&["CONFIG", "RESETSTAT"]).unwrap();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let locks = Arc::clone(&locks);
            tokio::spawn(async move {
                for _ in 0..STEPS {
                    let lease = granted(&locks, &request("anna", &format!("task-{task}"), TTL), TTL).await.lease;
                    locks.release(&context(), lease.id(), soon()).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let stats = server.cli(&["INFO", "commandstats"]).unwrap();
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap();
    let calls: usize = calls.split(',').next().unwrap().parse().unwrap();
    let turns = 2 * TASKS * STEPS;
    assert!(calls < turns / 3, "{turns} turns took {calls} calls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_cannot_be_read_harms_nobody_else() {
    let server = RedisServer::start().unwrap();
    let locks = open(&server.url(), &Arc::default()).await.unwrap();
    let bad = granted(&locks, &request("anna", "bad", TTL), TTL).await.lease;
    server.cli(&["HSET", "mutext:{research-42}:locks", &bad.id().to_string(), "no lease"]).unwrap();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let locks = Arc::clone(&locks);
            tokio::spawn(async move {
                for _ in 0..10 {
                    if task % 8 == 0 {
                        let asked = locks.acquire(&request("bert", "bad", TTL), Deadline::now()).await;
                        assert!(asked.is_err(), "what is in the way cannot be read: {asked:?}");
                    } else {
                        let lease = granted(&locks, &request("bert", &format!("task-{task}"), TTL), TTL).await.lease;
                        locks.release(&context(), lease.id(), soon()).await.unwrap();
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_runtime_asked_that_has_ended_can_be_given_back() {
    let server = RedisServer::start().unwrap();
    let locks = open(&server.url(), &Arc::default()).await.unwrap();
    for round in 0..20_u64 {
        let ends = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let requests: Vec<_> = (0..TASKS).map(|task| request("anna", &format!("task-{task}"), TTL)).collect();
        for request in requests.clone() {
            let locks = Arc::clone(&locks);
            ends.spawn(async move { locks.acquire(&request, Deadline::after(TTL)).await });
        }
        tokio::time::sleep(Duration::from_micros(300 * round)).await;
        // All that it ran is dropped when this returns.
        tokio::task::spawn_blocking(|| drop(ends)).await.unwrap();
        for request in &requests {
            locks.release(&context(), request.lease, soon()).await.unwrap();
        }
        let again = granted(&locks, &request("bert", "task-0", TTL), Duration::from_secs(10)).await.lease;
        locks.release(&context(), again.id(), soon()).await.unwrap();
    }
    let table = locks.inspect(&context(), soon()).await.unwrap();
    assert_eq!((table.holdings.len(), table.waiters.len()), (0, 0), "{table:?}");
}
