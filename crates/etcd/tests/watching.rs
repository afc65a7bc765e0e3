//! How those who wait are told, and in which order they are served.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{open, soon};
use mutext_conformance::asking::{context, granted, queued, request};
use mutext_contract::{Acquisition, Deadline, LockService as _};
use mutext_testbed::EtcdServer;

const TTL: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(60);
const WAITERS: usize = 40;
/// How long an engine lets one go first that does not take its turn.
const DAWDLE: Duration = Duration::from_secs(3);
/// How often etcd serves watches that it has put off.
const PUT_OFF: Duration = Duration::from_millis(100);
/// How often what a slow machine says nothing about is tried again.
const ROUNDS: usize = 3;

/// How many watches etcd has put off: they asked for what has happened already, and are served ten times a second.
fn put_off(port: u16) -> f64 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    let line = said.lines().find_map(|line| line.strip_prefix("etcd_debugging_mvcc_slow_watcher_total "));
    line.unwrap_or_else(|| panic!("etcd does not say how many watches are slow:\n{said}")).trim().parse().unwrap()
}

/// Looks how many watches are put off, again and again until it is told to stop: the most at one time, and the longest
/// time between two looks.
fn watch_those_put_off(port: u16, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<(f64, Duration)> {
    std::thread::spawn(move || {
        let (mut most, mut longest, mut last) = (0.0_f64, Duration::ZERO, Instant::now());
        while !stop.load(Ordering::Relaxed) {
            most = most.max(put_off(port));
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        (most, longest)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_come_together_are_told_at_once_each() {
    let server = EtcdServer::start().unwrap();
    let epochs = Arc::default();
    let (anna, bert) = (open(&server.url(), &epochs).await.unwrap(), open(&server.url(), &epochs).await.unwrap());
    for _ in 0..ROUNDS {
        let held = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
        let stop = Arc::new(AtomicBool::new(false));
        let looks = watch_those_put_off(server.port(0), Arc::clone(&stop));
        // Each looks at the table as it queues, and others queue before it watches.
        let waiting: Vec<_> = (0..WAITERS)
            .map(|_| {
                let bert = Arc::clone(&bert);
                tokio::spawn(async move {
                    let next = granted(&bert, &request("bert", "plan", TTL), LONG).await.lease;
                    bert.release(&context(), next.id(), soon()).await.unwrap();
                })
            })
            .collect();
        queued(&anna, WAITERS).await;
        // The last of them are to watch yet.
        tokio::time::sleep(2 * PUT_OFF).await;
        stop.store(true, Ordering::Relaxed);
        let (most, longest) = looks.join().unwrap();
        anna.release(&context(), held.id(), soon()).await.unwrap();
        for waiter in waiting {
            waiter.await.unwrap();
        }
        // Each watches two keys. A few are put off all the same: somebody writes in the very moment in which they begin.
        assert!(most < WAITERS as f64 / 2.0, "of {} watches, {most} were put off at one time", 2 * WAITERS);
        if longest < PUT_OFF {
            return;
        }
        eprintln!("{longest:?} between two looks: watches may have been put off and nobody saw it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_have_waited_long_are_served_in_their_order_though_they_are_in_nobodys_way() {
    const PATHS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let server = EtcdServer::start().unwrap();
    let epochs = Arc::default();
    let (anna, bert) = (open(&server.url(), &epochs).await.unwrap(), open(&server.url(), &epochs).await.unwrap());
    for _ in 0..ROUNDS {
        let held = granted(&anna, &request("anna", "/", TTL), LONG).await.lease;
        let mut waiting = Vec::new();
        for (number, path) in PATHS.into_iter().enumerate() {
            let locks = Arc::clone([&anna, &bert][number % 2]);
            waiting.push(tokio::spawn(async move { granted(&locks, &request("waiter", path, TTL), LONG).await.lease }));
            queued(&anna, number + 1).await;
        }
        // They have waited longer than anybody lets one go first who does not take its turn.
        tokio::time::sleep(DAWDLE + Duration::from_millis(500)).await;
        let released = Instant::now();
        anna.release(&context(), held.id(), soon()).await.unwrap();
        let mut tokens = Vec::new();
        for waiter in waiting {
            let lease = waiter.await.unwrap();
            anna.release(&context(), lease.id(), soon()).await.unwrap();
            tokens.push(lease.token.number());
        }
        if tokens.is_sorted() {
            return;
        }
        // On a machine that is so slow one may have been taken for one that does not take its turn.
        let took = released.elapsed();
        assert!(took >= DAWDLE, "{tokens:?} within {took:?}");
        eprintln!("it took {took:?} to serve {} waiters: their order says nothing", PATHS.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_leaves_a_free_lock_because_of_one_who_does_not_take_its_turn_at_another() {
    let server = EtcdServer::start().unwrap();
    let epochs = Arc::default();
    let (anna, bert) = (open(&server.url(), &epochs).await.unwrap(), open(&server.url(), &epochs).await.unwrap());
    let carl = open(&server.url(), &epochs).await.unwrap();
    for _ in 0..ROUNDS {
        let a = granted(&anna, &request("anna", "a", TTL), LONG).await.lease;
        let b = granted(&anna, &request("anna", "b", TTL), LONG).await.lease;
        // It queues, and does nothing more, as a process that is stopped.
        let idle = request("bert", "a", TTL);
        let mut stopped = std::pin::pin!(bert.acquire(&idle, Deadline::after(LONG)));
        tokio::select! {
            outcome = &mut stopped => panic!("somebody holds it; {outcome:?}"),
            () = queued(&anna, 1) => {}
        }
        let waiter = {
            let (carl, request) = (Arc::clone(&carl), request("carl", "b", TTL));
            let wait = DAWDLE * 5 / 6;
            tokio::spawn(async move { carl.acquire(&request, Deadline::after(wait)).await })
        };
        let are_queued = async || anna.inspect(&context(), soon()).await.unwrap().waiters.len() == 2;
        while !waiter.is_finished() && !are_queued().await {}
        for lease in [&a, &b] {
            anna.release(&context(), lease.id(), soon()).await.unwrap();
        }
        match waiter.await.unwrap().unwrap() {
            Acquisition::Granted(_) => return,
            // The machine is so slow that its time was over before the lock was free.
            Acquisition::TimedOut(blocked) if !blocked.holdings.is_empty() => {}
            other => panic!("nobody held it; {other:?}"),
        }
        bert.release(&context(), idle.lease, soon()).await.unwrap();
    }
}
