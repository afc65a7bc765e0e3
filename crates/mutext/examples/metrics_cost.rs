//! What measuring costs: acquire and release with a recorder installed and without, in turns, at the median.
//!
//! Once on the embedded engine, and once on an engine that grants everything at once and does nothing else: there,
//! what is left is the library's own work, and the share that measuring has in it.
//!
//! `cargo run --release --package mutext --features prometheus --example metrics_cost [ROUNDS]`

#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use mutext::{
    Address, AgentName, Context, ContextName, EngineError, FencingToken, Finding, Lease, LeaseId, LockCapabilities,
    LockTable, Mutext, Prometheus, Release, Settings,
};
use mutext_contract::{Acquisition, Deadline, Grant, LockRequest, LockService, Renewal};
use mutext_embedded::EmbeddedOptions;
use tokio::sync::broadcast;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// So many in a row are one sample: a clock that ticks too roughly is no trouble then.
const BATCH: u32 = 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let rounds: u32 = std::env::args().nth(1).map_or(Ok(1000), |rounds| rounds.parse())?;
    let dir = tempfile::tempdir()?;
    let (plain_dir, measured_dir) = (dir.path().join("plain"), dir.path().join("measured"));
    let prometheus = Prometheus::new();
    let recorder = prometheus.recorder();

    let plain = Mutext::open(&Address::embedded(&plain_dir), None).await?;
    let measured = {
        let _guard = metrics::set_default_local_recorder(&*recorder);
        Mutext::open(&Address::embedded(&measured_dir), None).await?
    };
    println!("{:>22} {:>10} {:>10} {:>7}", "ns acquire + release", "without", "with", "ratio");
    compare("embedded", &plain, &measured, rounds).await?;

    let store = EmbeddedOptions::new(dir.path().join("store")).open(Deadline::after(Duration::from_secs(10))).await?;
    let (plain, measured) = (Generous::over(&plain), Generous::over(&measured));
    let plain = Mutext::with_engines(Arc::clone(&store.store) as _, Arc::new(plain))?;
    let measured = {
        let _guard = metrics::set_default_local_recorder(&*recorder);
        Mutext::with_engines(store.store, Arc::new(measured))?
    };
    compare("an engine of no cost", &plain, &measured, rounds).await?;
    println!("{} lines of text", prometheus.text().lines().count());
    Ok(())
}

async fn compare(name: &str, plain: &Mutext, measured: &Mutext, rounds: u32) -> Result<()> {
    let context = |of: &Mutext| of.context("cost", Settings::new(AgentName::new("agent")?));
    let (plain, measured) = (context(plain)?, context(measured)?);
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // In turns, and each as often first as second: whatever else the machine does meets both.
        if round % 2 == 0 {
            without.push(batch(&plain).await?);
            with.push(batch(&measured).await?);
        } else {
            with.push(batch(&measured).await?);
            without.push(batch(&plain).await?);
        }
    }
    let median = |samples: &mut Vec<f64>| {
        samples.sort_by(f64::total_cmp);
        samples[samples.len() / 2]
    };
    let (without, with) = (median(&mut without), median(&mut with));
    println!("{name:>22} {without:>10.0} {with:>10.0} {:>7.3}", with / without);
    Ok(())
}

/// Nanoseconds for one acquire and its release.
async fn batch(context: &Context) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..BATCH {
        context.lock("document").await?.release().await?;
    }
    Ok(start.elapsed().as_nanos() as f64 / f64::from(BATCH))
}

/// Grants everything at once.
#[derive(Debug)]
struct Generous(LockCapabilities);

impl Generous {
    fn over(other: &Mutext) -> Self {
        Self(LockCapabilities { engine: "generous", ..other.capabilities().1 })
    }
}

#[async_trait]
impl LockService for Generous {
    fn capabilities(&self) -> LockCapabilities {
        self.0.clone()
    }
    async fn acquire(&self, request: &LockRequest, _: Deadline) -> std::result::Result<Acquisition, EngineError> {
        let lease = Lease {
            context: request.context.clone(),
            claims: Arc::clone(request.claims()),
            holder: request.holder.clone(),
            token: FencingToken::new(1, 1, request.lease),
            ttl: request.ttl,
            valid_until: tokio::time::Instant::now() + request.ttl.get(),
        };
        Ok(Acquisition::Granted(Grant { lease, queued: false, handed_over_after: None, spare: 0 }))
    }
    async fn renew(&self, lease: &Lease, _: Deadline) -> std::result::Result<Renewal, EngineError> {
        Ok(Renewal::Renewed { valid_until: tokio::time::Instant::now() + lease.ttl.get() })
    }
    async fn release(&self, _: &ContextName, _: LeaseId, _: Deadline) -> std::result::Result<Release, EngineError> {
        Ok(Release::Released)
    }
    async fn inspect(&self, _: &ContextName, _: Deadline) -> std::result::Result<LockTable, EngineError> {
        Ok(LockTable::default())
    }
    async fn revoke(
        &self,
        _: &ContextName,
        _: LeaseId,
        _: &AgentName,
        _: &str,
        _: Deadline,
    ) -> std::result::Result<Release, EngineError> {
        Ok(Release::NotHeld)
    }
    async fn begin_epoch(&self, _: &ContextName, _: u64, _: Deadline) -> std::result::Result<(), EngineError> {
        Ok(())
    }
    fn losses(&self) -> Option<broadcast::Receiver<LeaseId>> {
        None
    }
    async fn examine(&self, _: Deadline) -> std::result::Result<Vec<Finding>, EngineError> {
        Ok(Vec::new())
    }
}
