//! Acquire plus release against three bare calls of the same client on the same server, interleaved in one run: an etcd
//! lease, a transaction that puts a key which is not there, the lease's end.
//!
//! `cargo bench -p mutext-etcd` prints rates and their ratio, with one task and with sixteen, each in a context that
//! nobody else uses and all in one; and what a hand-over takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mutext_conformance::Epochs;
use mutext_conformance::asking::{Failure, cycles, median, rate};
use mutext_contract::{AgentName, ContextName, Deadline, EpochSource, Holder, LockRequest, LockService, Ttl};
use mutext_etcd::bare::Bare;
use mutext_etcd::{EtcdLocks, EtcdOptions};
use mutext_testbed::EtcdServer;

const ROUNDS: usize = 11;
const ROUND: Duration = Duration::from_millis(400);
const HAND_OVERS: usize = 300;

/// Cycles of one task until `until`.
async fn bare(bare: Arc<Bare>, key: String, until: Instant) -> Result<u64, Failure> {
    let mut cycles = 0;
    while Instant::now() < until {
        let owner = mutext_contract::LeaseId::random().to_string();
        let lease = bare.grant(10).await?;
        assert!(bare.create(&key, &owner, lease).await?, "nobody else wants {key}");
        bare.revoke(lease).await?;
        cycles += 1;
    }
    Ok(cycles)
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

fn request(context: &str, path: &str) -> Result<LockRequest, Failure> {
    let (context, holder) = (ContextName::new(context)?, Holder::new(AgentName::new("bench")?));
    Ok(LockRequest::exclusive(context, holder, Ttl::DEFAULT, path.parse()?))
}

/// From the release to the grant of the next in line, which is another process's, in milliseconds; and what one bare
/// write takes in the same run.
async fn hand_overs(locks: [&Arc<EtcdLocks>; 2], bare: &Bare) -> Result<(f64, f64), Failure> {
    let mut times = Vec::new();
    let mut writes = Vec::new();
    let mut held = request("hand-over", "plan")?;
    locks[0].acquire(&held, soon()).await?;
    for round in 0..HAND_OVERS {
        let next = request("hand-over", "plan")?;
        let own = Arc::clone(locks[(round + 1) % 2]);
        let waiting = {
            let next = next.clone();
            tokio::spawn(async move { own.acquire(&next, soon()).await.map(|_| Instant::now()) })
        };
        while locks[0].inspect(&held.context, soon()).await?.waiters.is_empty() {}
        // Its watches are on their way yet.
        tokio::time::sleep(Duration::from_millis(3)).await;
        let released = Instant::now();
        locks[round % 2].release(&held.context, held.lease, soon()).await?;
        times.push(waiting.await??.duration_since(released).as_secs_f64() * 1e3);
        held = next;
        let asked = Instant::now();
        bare.create(&format!("bare/{round}"), "x", 0).await?;
        writes.push(asked.elapsed().as_secs_f64() * 1e3);
    }
    Ok((median(times), median(writes)))
}

#[expect(clippy::print_stdout, reason = "a benchmark's figures are its output")]
#[tokio::main]
async fn main() -> Result<(), Failure> {
    let server = EtcdServer::start()?;
    let epochs: Arc<dyn EpochSource> = Arc::new(Epochs::default());
    let options = EtcdOptions::parse(&server.url())?;
    let locks = options.open(Arc::clone(&epochs), soon()).await?;
    let calls = Arc::new(Bare::open(options.clone())?);
    println!("{}", server.version()?);
    println!("acquire plus release against grant, transaction and revoke; medians of {ROUNDS} rounds");
    for (tasks, is_shared) in [(1, false), (16, false), (16, true)] {
        let place = move |task: usize| {
            if is_shared {
                ("bench".to_owned(), format!("lock-{task}"))
            } else {
                (format!("bench-{task}"), "lock".to_owned())
            }
        };
        let (mut theirs, mut own) = (Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let (a, _) =
                rate(tasks, ROUND, |task, until| bare(Arc::clone(&calls), format!("bare-{task}"), until)).await?;
            let ours = |task, until| {
                let (context, path) = place(task);
                cycles(Arc::<EtcdLocks>::clone(&locks), context, path, until)
            };
            let (b, _) = rate(tasks, ROUND, ours).await?;
            // The first round warms up.
            if round > 0 {
                theirs.push(a);
                own.push(b);
            }
        }
        let ratio = median(own.iter().zip(&theirs).map(|(own, theirs)| own / theirs).collect());
        let (theirs, own) = (median(theirs), median(own));
        let what = if is_shared { "all in one context" } else { "each in its own context" };
        println!("{tasks:>3} tasks, {what}: bare {theirs:>7.0}/s  ours {own:>7.0}/s  ratio {ratio:.2}");
    }
    let second = options.open(epochs, soon()).await?;
    let (hand_over, write) = hand_overs([&locks, &second], &calls).await?;
    println!("release to next grant: {hand_over:.2} ms at the median of {HAND_OVERS}; one bare write {write:.2} ms");
    Ok(())
}
