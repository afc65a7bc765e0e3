//! What is measured: the numbers after a known sequence of events, the text that they are told in, and the warning.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Store, agent_of, eventually, poll_then_drop, until_waiting, wait};
use mutext::{Commit, Content, Context, Error, Loss, Precondition, Prometheus, Release, Strategy};
use tracing::field::{Field, Visit};
use tracing::span;

/// One agent's name, document and lease show that none of them becomes a label.
const AGENT: &str = "zebra-agent";
const DOCUMENT: &str = "zebra-plan.md";

/// Samples by name and labels, as the text has them.
type Samples = BTreeMap<String, f64>;

fn samples(text: &str) -> Samples {
    let mut samples = Samples::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let twice = samples.insert(series.to_owned(), value.parse().unwrap());
        assert!(twice.is_none(), "{series} is told twice");
    }
    samples
}

/// The sum over all series of `name` whose labels contain all of `labels`.
fn sum(samples: &Samples, name: &str, labels: &[&str]) -> f64 {
    let mut found = samples.iter().filter(|(series, _)| {
        let (of, rest) = series.split_once('{').unwrap_or((series, ""));
        of == name && labels.iter().all(|label| rest.contains(label))
    });
    let first = found.next().unwrap_or_else(|| panic!("there is no {name} with {labels:?}: {samples:#?}"));
    found.map(|(_, value)| value).sum::<f64>() + first.1
}

/// Opens `store` with a recorder of its own.
async fn measured(store: &Store) -> (Prometheus, mutext::Mutext) {
    let prometheus = Prometheus::new();
    let recorder = prometheus.recorder();
    let _guard = ::metrics::set_default_local_recorder(&*recorder);
    let opened = store.open().await;
    (prometheus, opened)
}

/// Two grants at once, one after queueing, two time-outs, a request given up, a revocation.
async fn known_sequence(one: &Context, other: &Context) {
    let guard = one.lock(DOCUMENT).await.unwrap();
    let impatient = other.lock(DOCUMENT).wait(wait(Duration::from_millis(20))).await;
    assert!(matches!(impatient, Err(Error::Timeout { .. })));
    let no_queue = other.lock(DOCUMENT).without_waiting().await;
    assert!(matches!(no_queue, Err(Error::Timeout { .. })));
    assert!(poll_then_drop(other.lock(DOCUMENT).acquire(), 2, Duration::from_millis(20)).await.is_none());
    until_waiting(one, 0).await;

    let (queued, ()) = tokio::join!(other.lock(DOCUMENT).wait(wait(Duration::from_secs(20))).acquire(), async {
        until_waiting(one, 1).await;
        assert_eq!(guard.release().await.unwrap(), Release::Released);
    });
    drop(queued.unwrap());

    let victim = one.lock("elsewhere").await.unwrap();
    assert_eq!(other.revoke(victim.token().owner, "a test").await.unwrap(), Release::Released);
    assert!(matches!(victim.lost().await, Loss::Revoked { .. }));
    drop(victim);
}

async fn known_commits(one: &Context, other: &Context) {
    one.put(DOCUMENT, "a", Precondition::Absent).await.unwrap();
    assert!(matches!(other.put(DOCUMENT, "b", Precondition::Absent).await, Err(Error::Conflict(_))));
    let before = one.lock(DOCUMENT).await.unwrap();
    let stale = before.fence();
    before.release().await.unwrap();
    other.lock(DOCUMENT).await.unwrap().get(DOCUMENT).await.unwrap();
    let late = Commit::new(one.agent().clone()).put(DOCUMENT.try_into().unwrap(), "c".into(), Precondition::Any);
    assert!(matches!(one.commit(late.fenced_by(stale)).await, Err(Error::LeaseLost { .. })));

    let change = |_| async { Ok::<Content, Error>("d".into()) };
    one.update("updated", change).await.unwrap();
    let mut options = one.update_options();
    options.strategy = Strategy::CompareAndSet;
    let mut first = true;
    one.update_with("updated", &options, |_| {
        let interferes = std::mem::take(&mut first);
        async move {
            if interferes {
                other.put("updated", "between", Precondition::Any).await?;
            }
            Ok::<Content, Error>("e".into())
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn locks_that_were_granted_and_locks_that_were_kept_are_all_there_were() {
    let store = Store::new();
    let (prometheus, opened) = measured(&store).await;
    let one = agent_of(&opened, AGENT);
    let count = |name: &str| sum(&samples(&prometheus.text()), name, &["engine=\"embedded\""]) as u64;
    let (granted, kept) = ("mutext_locks_acquired_total", "mutext_locks_kept_total");
    let mut taken = 0;
    // On a machine that is busy it may come back too late a few times.
    while count(kept) < 10 {
        drop(one.lock("board").await.unwrap());
        taken += 1;
        assert!(taken < 10_000, "no lease was ever kept");
    }
    assert_eq!(count(granted) + count(kept), taken);
    assert_eq!(count("mutext_lock_acquire_seconds_count"), count(granted));
    assert_eq!(count("mutext_lock_hold_seconds_count"), taken);
}

#[tokio::test]
async fn the_numbers_are_those_of_what_happened() {
    let store = Store::new();
    let (prometheus, opened) = measured(&store).await;
    let (one, other) = (agent_of(&opened, AGENT), agent_of(&opened, "other"));
    known_sequence(&one, &other).await;
    opened.finish().await;

    let seen = samples(&prometheus.text());
    let count = |name: &str, labels: &[&str]| sum(&seen, name, labels) as u64;
    let acquire = "mutext_lock_acquire_seconds_count";
    assert_eq!(count("mutext_locks_acquired_total", &["engine=\"embedded\""]), 3);
    assert_eq!(count(acquire, &["outcome=\"granted\"", "queued=\"false\""]), 2);
    assert_eq!(count(acquire, &["outcome=\"granted\"", "queued=\"true\""]), 1);
    assert_eq!(count("mutext_locks_timed_out_total", &[]), 2);
    assert_eq!(count(acquire, &["outcome=\"timed_out\"", "queued=\"false\""]), 1);
    assert_eq!(count(acquire, &["outcome=\"timed_out\"", "queued=\"true\""]), 1);
    assert_eq!(count(acquire, &["outcome=\"cancelled\""]), 1);
    assert_eq!(count("mutext_locks_queued_total", &[]), 2);
    assert_eq!(count("mutext_lock_queue_ahead_count", &[]), 2);
    assert_eq!(count("mutext_lock_handover_seconds_count", &[]), 1);
    let handed_over = sum(&seen, "mutext_lock_handover_seconds_sum", &[]);
    assert!(handed_over > 0.0 && handed_over < 5.0, "{handed_over}");
    assert_eq!(count("mutext_locks_revoked_total", &[]), 1);
    assert_eq!(count("mutext_lock_hold_seconds_count", &[]), 3);
    assert_eq!(count("mutext_lock_requests_waiting", &[]), 0);
    assert_eq!(count("mutext_locks_lost_total", &["reason=\"revoked\""]), 1);
    assert_eq!(count("mutext_locks_lost_total", &[]), 1);
    assert!(sum(&seen, "mutext_lock_acquire_seconds_sum", &["outcome=\"timed_out\""]) >= 0.02);

    let times = opened.clone().acquisition_times();
    // Three grants, the time-out of the one that waited, and the one that was given up.
    assert_eq!((times.count, times.timed_out), (5, 1));
    assert!(times.p50 <= times.p90 && times.p90 <= times.p99 && times.p99 <= times.max, "{times:?}");
    assert!(times.max >= Duration::from_millis(20), "{times:?}");
}

#[tokio::test]
async fn commits_and_updates_are_told_by_how_they_ended() {
    let store = Store::new();
    let (prometheus, opened) = measured(&store).await;
    let (one, other) = (agent_of(&opened, AGENT), agent_of(&opened, "other"));
    known_commits(&one, &other).await;

    let seen = samples(&prometheus.text());
    let count = |name: &str, labels: &[&str]| sum(&seen, name, labels) as u64;
    let commit = "mutext_commit_seconds_count";
    assert_eq!(count(commit, &["outcome=\"committed\""]), 4);
    assert_eq!(count(commit, &["outcome=\"conflict\""]), 2);
    assert_eq!(count(commit, &["outcome=\"fenced\""]), 1);
    assert_eq!(count("mutext_update_attempts_sum", &["strategy=\"lease\"", "outcome=\"committed\""]), 1);
    assert_eq!(count("mutext_update_attempts_sum", &["strategy=\"compare_and_set\"", "outcome=\"committed\""]), 2);
}

#[tokio::test]
async fn a_document_that_changes_its_strategy_is_counted() {
    let store = Store::new();
    let (prometheus, opened) = measured(&store).await;
    let (one, other) = (agent_of(&opened, AGENT), agent_of(&opened, "other"));
    let mut options = one.update_options();
    options.strategy = Strategy::Adaptive { ttl: one.settings().ttl, wait: one.settings().wait };
    let switches = |to: &str| {
        let told = samples(&prometheus.text());
        sum(&told, "mutext_strategy_switches_total", &[&format!("strategy=\"{to}\"")])
    };
    let interferes = std::sync::atomic::AtomicBool::new(true);
    let update = async || {
        let change = |_| async {
            if interferes.swap(false, std::sync::atomic::Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(100)).await;
                other.put("updated", "between", Precondition::Any).await?;
            }
            Ok::<Content, Error>("e".into())
        };
        one.update_with("updated", &options, change).await.unwrap().token.is_some()
    };
    assert!(update().await, "a conflict that cost so much leads to a lease");
    assert_eq!((switches("lease"), switches("compare_and_set")), (1.0, 0.0));
    while update().await {}
    assert_eq!((switches("lease"), switches("compare_and_set")), (1.0, 1.0));
}

#[tokio::test]
async fn a_lease_that_is_renewed_is_counted_and_one_that_is_held_is_seen_waiting_for() {
    let store = Store::new();
    let (prometheus, opened) = measured(&store).await;
    let (one, other) = (agent_of(&opened, AGENT), agent_of(&opened, "other"));
    let ttl = mutext::Ttl::new(Duration::from_millis(150)).unwrap();
    let guard = one.lock(DOCUMENT).ttl(ttl).await.unwrap();
    let renewed = || sum(&samples(&prometheus.text()), "mutext_lock_renewals_total", &["outcome=\"renewed\""]);
    eventually("it is renewed", async || renewed() >= 2.0).await;

    let (queued, ()) = tokio::join!(other.lock(DOCUMENT).wait(wait(Duration::from_secs(20))).acquire(), async {
        until_waiting(&one, 1).await;
        let recorder = prometheus.recorder();
        let _guard = ::metrics::set_default_local_recorder(&*recorder);
        assert_eq!(one.measure_queue().await.unwrap().waiters.len(), 1);
        let seen = samples(&prometheus.text());
        assert!((sum(&seen, "mutext_lock_requests_waiting", &[]) - 1.0).abs() < 1e-9);
        assert!((sum(&seen, "mutext_lock_queue_length", &["context=\"shared\""]) - 1.0).abs() < 1e-9);
        assert!((sum(&seen, "mutext_lock_leases", &["context=\"shared\""]) - 1.0).abs() < 1e-9);
        drop(guard);
    });
    drop(queued.unwrap());
}

// --- The text ------------------------------------------------------------------------------------------------------

/// Checks one family: its name says its unit, its buckets add up.
fn check_family(name: &str, kind: &str, text: &str) {
    assert!(name.starts_with("mutext_"), "{name}");
    assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
    assert!(["counter", "gauge", "histogram"].contains(&kind), "{name} is a {kind}");
    if kind != "histogram" {
        return;
    }
    let mut buckets: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with(&format!("{name}_bucket{{"))) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (labels, end) = series.split_once("le=\"").unwrap();
        let end = end.trim_end_matches("\"}");
        let end = if end == "+Inf" { f64::INFINITY } else { end.parse().unwrap() };
        buckets.entry(labels.to_owned()).or_default().push((end, value.parse().unwrap()));
    }
    assert!(!buckets.is_empty(), "{name} has no buckets");
    for (labels, ends) in buckets {
        assert!(ends.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "{labels}: {ends:?}");
        assert!(ends.last().unwrap().0.is_infinite(), "{labels}");
        if name.ends_with("_seconds") {
            assert!(ends[0].0 <= 0.000_05 && ends[ends.len() - 2].0 >= 60.0, "{labels}: {ends:?}");
        }
        let count = labels.replace("_bucket{", "_count{").trim_end_matches([',', '{']).to_owned();
        let total: f64 = text
            .lines()
            .find_map(|line| line.strip_prefix(&count))
            .unwrap()
            .rsplit_once(' ')
            .unwrap()
            .1
            .parse()
            .unwrap();
        assert!((total - ends.last().unwrap().1).abs() < 1e-9, "{labels}");
    }
}

#[tokio::test]
async fn the_text_is_what_prometheus_expects_and_its_labels_are_few() {
    let store = Store::new();
    let (prometheus, opened) = measured(&store).await;
    let (one, other) = (agent_of(&opened, AGENT), agent_of(&opened, "other"));
    known_sequence(&one, &other).await;
    known_commits(&one, &other).await;
    // A second opening tells the same series once more.
    let again = {
        let recorder = prometheus.recorder();
        let _guard = ::metrics::set_default_local_recorder(&*recorder);
        store.open().await
    };
    let lease = agent_of(&again, AGENT).lock("third").await.unwrap().token().owner;

    let text = prometheus.text();
    let of = |what: &str| -> Vec<(String, String)> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(what)?.split_once(' '));
        lines.map(|(name, rest)| (name.to_owned(), rest.to_owned())).collect()
    };
    let (kinds, help) = (of("# TYPE "), of("# HELP "));
    let names: BTreeSet<&str> = kinds.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.len(), kinds.len(), "a type is told twice:\n{text}");
    assert_eq!(names, help.iter().map(|(name, _)| name.as_str()).collect(), "help for each, once:\n{text}");
    assert_eq!(names.len(), help.len());
    kinds.iter().for_each(|(name, kind)| check_family(name, kind, &text));

    let seen = samples(&text);
    for series in seen.keys() {
        let (name, labels) = series.trim_end_matches('}').split_once('{').unwrap_or((series, ""));
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(names.contains(family) || names.contains(name), "{name} has no type:\n{text}");
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (label, _) = label.split_once('=').unwrap();
            let known = ["engine", "outcome", "queued", "reason", "strategy", "le"];
            assert!(known.contains(&label), "{series} has a label {label}");
        }
    }
    for word in ["zebra", "shared", "elsewhere", &lease.to_string()] {
        assert!(!text.contains(word), "{word} is told:\n{text}");
    }
    assert!(seen.len() < 500, "{} series", seen.len());
}

// --- The warning ---------------------------------------------------------------------------------------------------

/// Keeps what is said at the level of a warning.
#[derive(Debug, Clone, Default)]
struct Said(Arc<Mutex<Vec<String>>>);

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0.lock().unwrap().last_mut().unwrap(), "{}={value:?} ", field.name()).unwrap();
    }
}

impl tracing::Subscriber for Said {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        self.0.lock().unwrap().push(String::new());
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[tokio::test]
async fn a_wait_below_the_observed_p99_is_told_once_and_not_before_a_hundred_requests() {
    let said = Said::default();
    let _guard = tracing::subscriber::set_default(said.clone());
    let store = Store::new();
    let opened = store.open().await;
    let (holder, impatient) = (agent_of(&opened, AGENT), agent_of(&opened, "impatient"));
    let warnings = || said.0.lock().unwrap().clone();

    for _ in 0..95 {
        holder.lock(DOCUMENT).await.unwrap().release().await.unwrap();
    }
    let held = holder.lock(DOCUMENT).await.unwrap();
    for _ in 0..3 {
        assert!(impatient.lock(DOCUMENT).wait(wait(Duration::from_millis(2))).await.is_err());
        // Takes no for an answer: it says nothing about waiting.
        assert!(impatient.lock(DOCUMENT).without_waiting().await.is_err());
    }
    assert_eq!(opened.acquisition_times().count, 99);
    assert_eq!(warnings(), Vec::<String>::new(), "99 are not enough");

    assert!(impatient.lock(DOCUMENT).wait(wait(Duration::from_millis(2))).await.is_err());
    let [warning] = &warnings()[..] else { panic!("{:?}", warnings()) };
    for part in ["wait=2ms", "p99=", "acquisitions=100", "timed_out=4", "wait longer"] {
        assert!(warning.contains(part), "{part} is missing: {warning}");
    }
    for _ in 0..20 {
        assert!(impatient.lock(DOCUMENT).wait(wait(Duration::from_millis(2))).await.is_err());
    }
    assert_eq!(warnings().len(), 1, "once a minute is enough");
    held.release().await.unwrap();
}

#[tokio::test]
async fn a_wait_above_the_observed_p99_is_not_told() {
    let said = Said::default();
    let _guard = tracing::subscriber::set_default(said.clone());
    let store = Store::new();
    let context = store.agent(AGENT).await;
    for _ in 0..150 {
        let lock = context.lock(DOCUMENT).wait(wait(Duration::from_secs(20)));
        lock.await.unwrap().release().await.unwrap();
    }
    assert!(said.0.lock().unwrap().is_empty(), "{said:?}");
}
