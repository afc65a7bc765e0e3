//! How those who wait are told, and in which order they are served.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use common::{open, soon};
use mutext_conformance::asking::{context, granted, queued, request};
use mutext_contract::LockService as _;
use mutext_testbed::EtcdServer;

const TTL: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(60);
const WAITERS: usize = 40;

/// How many watches etcd has put off: they asked for what has happened already, and are served ten times a second.
fn put_off(server: &EtcdServer) -> f64 {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port(0))).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    let line = said.lines().find_map(|line| line.strip_prefix("etcd_debugging_mvcc_slow_watcher_total "));
    line.unwrap_or_else(|| panic!("etcd does not say how many watches are slow:\n{said}")).trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_come_together_are_told_at_once_each() {
    let server = EtcdServer::start().unwrap();
    let epochs = Arc::default();
    let (anna, bert) = (open(&server.url(), &epochs).await.unwrap(), open(&server.url(), &epochs).await.unwrap());
    let held = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
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
    let all_wait = {
        let anna = Arc::clone(&anna);
        tokio::spawn(async move { queued(&anna, WAITERS).await })
    };
    let (mut most, mut looks) = (0.0_f64, 0);
    // And a few times more: the last of them are to watch yet.
    while looks < 20 {
        most = most.max(put_off(&server));
        looks += u32::from(all_wait.is_finished());
    }
    // Each watches two keys. A few are put off all the same: somebody writes in the very moment in which they begin.
    assert!(most < WAITERS as f64 / 2.0, "of {} watches, {most} were put off at one time", 2 * WAITERS);
    anna.release(&context(), held.id(), soon()).await.unwrap();
    for waiter in waiting {
        waiter.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_have_waited_long_are_served_in_their_order_though_they_are_in_nobodys_way() {
    const PATHS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let server = EtcdServer::start().unwrap();
    let epochs = Arc::default();
    let (anna, bert) = (open(&server.url(), &epochs).await.unwrap(), open(&server.url(), &epochs).await.unwrap());
    let held = granted(&anna, &request("anna", "/", TTL), LONG).await.lease;
    let mut waiting = Vec::new();
    for (number, path) in PATHS.into_iter().enumerate() {
        let locks = Arc::clone([&anna, &bert][number % 2]);
        waiting.push(tokio::spawn(async move { granted(&locks, &request("waiter", path, TTL), LONG).await.lease }));
        queued(&anna, number + 1).await;
    }
    // Longer than anybody lets one go first who does not take its turn.
    tokio::time::sleep(Duration::from_secs(4)).await;
    anna.release(&context(), held.id(), soon()).await.unwrap();
    let mut tokens = Vec::new();
    for waiter in waiting {
        tokens.push(waiter.await.unwrap().token.number());
    }
    assert!(tokens.is_sorted(), "{tokens:?}");
}
