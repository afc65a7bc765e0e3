//! Acquire plus release against bare calls of Consul's HTTP API on the same agent, interleaved in one run.
//!
//! `cargo bench -p mutext-consul` prints rates and their ratio, with one task and with sixteen. Bare are the calls that a
//! client makes by itself: a session, `?acquire`, `?release` and the session's end; and, for comparison, the two in the
//! middle under one session that is kept. They are made by the same HTTP library over connections that are kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use mutext_conformance::Epochs;
use mutext_conformance::asking::{Failure, cycles, median, rate};
use mutext_consul::{ConsulLocks, ConsulOptions};
use mutext_contract::{Deadline, EpochSource};
use mutext_testbed::ConsulServer;

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(400);

/// One connection.
struct Bare(SendRequest<Full<Bytes>>);

impl Bare {
    async fn connect(port: u16) -> Result<Self, Failure> {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    async fn put(&mut self, path: &str, body: &'static str) -> Result<Bytes, Failure> {
        let request = Request::put(path).header("Host", "localhost").body(Full::from(body))?;
        let response = self.0.send_request(request).await?;
        assert!(response.status().is_success(), "{path}: {}", response.status());
        Ok(response.into_body().collect().await?.to_bytes())
    }

    async fn session(&mut self) -> Result<String, Failure> {
        let made = self.put("/v1/session/create", r#"{"TTL":"15s","LockDelay":"0s","NodeChecks":[]}"#).await?;
        let made: serde_json::Value = serde_json::from_slice(&made)?;
        Ok(made["ID"].as_str().unwrap_or_default().to_owned())
    }

    async fn lock_and_unlock(&mut self, key: &str, session: &str) -> Result<(), Failure> {
        let taken = self.put(&format!("/v1/kv/{key}?acquire={session}"), "agent").await?;
        assert!(taken.starts_with(b"true"), "nobody else wants {key}");
        self.put(&format!("/v1/kv/{key}?release={session}"), "agent").await?;
        Ok(())
    }
}

/// Cycles of one task until `until`.
async fn bare(port: u16, key: String, keeps_session: bool, until: Instant) -> Result<u64, Failure> {
    let mut connection = Bare::connect(port).await?;
    let mut cycles = 0;
    let mut kept = None;
    if keeps_session {
        kept = Some(connection.session().await?);
    }
    while Instant::now() < until {
        if let Some(session) = &kept {
            connection.lock_and_unlock(&key, session).await?;
        } else {
            let session = connection.session().await?;
            connection.lock_and_unlock(&key, &session).await?;
            connection.put(&format!("/v1/session/destroy/{session}"), "").await?;
        }
        cycles += 1;
    }
    if let Some(session) = kept {
        connection.put(&format!("/v1/session/destroy/{session}"), "").await?;
    }
    Ok(cycles)
}

#[expect(clippy::print_stdout, reason = "a benchmark's figures are its output")]
#[tokio::main]
async fn main() -> Result<(), Failure> {
    let server = ConsulServer::start()?;
    let epochs: Arc<dyn EpochSource> = Arc::new(Epochs::default());
    let locks = ConsulOptions::parse(&server.url())?.open(epochs, Deadline::after(Duration::from_secs(10))).await?;
    let port = server.port();
    println!("{}", server.version()?);
    println!("acquire plus release against bare calls; medians of {ROUNDS} rounds");
    for tasks in [1, 16] {
        let (mut whole, mut kept, mut own) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let (a, _) = rate(tasks, ROUND, |task, until| bare(port, format!("bare-{task}"), false, until)).await?;
            let (b, _) = rate(tasks, ROUND, |task, until| bare(port, format!("bare-{task}"), true, until)).await?;
            // A context of its own each: tasks in one context share its table, and their writes.
            let ours = |task: usize, until| {
                cycles(Arc::<ConsulLocks>::clone(&locks), format!("ours-{task}"), "plan.md".to_owned(), until)
            };
            let (c, _) = rate(tasks, ROUND, ours).await?;
            // The first round warms up.
            if round > 0 {
                whole.push(a);
                kept.push(b);
                own.push(c);
            }
        }
        let ratio = |bare: &[f64]| median(own.iter().zip(bare).map(|(own, bare)| own / bare).collect());
        let (to_whole, to_kept) = (ratio(&whole), ratio(&kept));
        let (whole, kept, own) = (median(whole), median(kept), median(own));
        println!(
            "{tasks:>3} tasks: session, acquire, release, end {whole:>7.0}/s  ours {own:>7.0}/s  ratio {to_whole:.2}"
        );
        println!("           acquire, release under a kept session {kept:>5.0}/s  ratio {to_kept:.2}");
    }
    Ok(())
}
