//! Several processes on one store: mixed work, deaths, stops, who comes first, and who sees what.
//!
//! This binary starts itself again as the processes that it watches; that is why it has a `main` of its own. Its
//! tests run one after the other, since some of them measure time.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and tells what it measured")]

mod appends;
mod child;
mod claims;
mod mix;
mod roles;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use appends::{
    eight_processes_append_and_a_killed_watcher_sees_all_on_postgres,
    eight_processes_append_and_a_killed_watcher_sees_all_on_the_embedded_store,
};
use child::Child;
use claims::{
    a_holder_stopped_past_its_lease_completes_nothing,
    of_eight_processes_on_servers_one_wins_each_of_a_thousand_rounds,
    of_eight_processes_one_wins_each_of_a_thousand_rounds, the_element_of_a_killed_holder_is_claimed_by_another,
};
use libtest_mimic::{Arguments, Trial};
use mutext::{Address, Context, Error, Mutext, Precondition, Wait};
use roles::{agent, appended, ids};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::runtime::Runtime;

macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        vec![$(Trial::test(stringify!($name), || { $name(); Ok(()) })),*]
    };
}

fn main() -> ExitCode {
    if let Ok(role) = std::env::var(child::ROLE) {
        roles::play(&role, &std::env::args().skip(1).collect::<Vec<_>>());
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(1);
    let trials = trials![
        a_new_store_that_many_open_at_once_opens_for_all_of_them,
        ten_thousand_random_operations_by_eight_processes_lose_nothing,
        random_operations_synced_to_disk_lose_nothing,
        the_lock_of_a_killed_holder_passes_on_within_its_ttl_and_its_updates_stay,
        a_holder_stopped_past_its_ttl_writes_nothing_over_its_successor,
        a_stopped_holder_that_wrote_without_protection_would_lose_an_update,
        a_process_killed_in_a_stream_of_commits_leaves_every_acknowledged_one,
        a_killed_waiter_holds_up_nobody,
        a_waiter_that_was_stopped_when_its_turn_came_goes_on_waiting,
        processes_are_served_in_the_order_in_which_they_asked,
        a_store_opened_by_a_relative_path_stays_the_same_store_elsewhere,
        eight_processes_append_and_a_killed_watcher_sees_all_on_the_embedded_store,
        eight_processes_append_and_a_killed_watcher_sees_all_on_postgres,
        of_eight_processes_one_wins_each_of_a_thousand_rounds,
        of_eight_processes_on_servers_one_wins_each_of_a_thousand_rounds,
        the_element_of_a_killed_holder_is_claimed_by_another,
        a_holder_stopped_past_its_lease_completes_nothing,
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A store, and this process's own view of it.
struct Scene {
    dir: TempDir,
    runtime: Runtime,
    address: String,
    agent: Context,
}

impl Scene {
    /// Synced to disk, as by default.
    fn new() -> Self {
        Self::with("")
    }

    fn with(options: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = format!("embedded:{}{options}", dir.path().join("store").display());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let agent = runtime.block_on(agent(&address, "parent"));
        Self { dir, runtime, address, agent }
    }

    fn list(&self) -> Vec<u64> {
        ids(self.runtime.block_on(self.agent.get("list")).unwrap().as_ref())
    }

    /// Ready once `count` requests wait.
    fn until_waiting(&self, count: usize) {
        let start = Instant::now();
        while self.runtime.block_on(self.agent.locks()).unwrap().waiters.len() != count {
            assert!(start.elapsed() < Duration::from_secs(20), "{count} requests never waited");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Takes the lock and appends under it, as a holder does; says when it was granted.
    fn append_under_the_lock(&self, id: u64, wait: Duration) -> Instant {
        self.runtime.block_on(async {
            let guard = self.agent.lock("list").wait(Wait::new(wait).unwrap()).await.unwrap();
            let granted = Instant::now();
            let list = guard.get("list").await.unwrap();
            guard.put("list", appended(list.as_ref(), id).unwrap()).await.unwrap();
            guard.release().await.unwrap();
            granted
        })
    }
}

fn acknowledged(lines: &[String]) -> BTreeSet<u64> {
    let ids = lines.iter().filter_map(|line| line.strip_prefix("ack "));
    ids.map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect()
}

fn a_new_store_that_many_open_at_once_opens_for_all_of_them() {
    const OPENINGS: usize = 8;
    for round in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        let address: Address = format!("embedded:{}", dir.path().join("store").display()).parse().unwrap();
        let start = Barrier::new(OPENINGS);
        let open = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            start.wait();
            runtime.block_on(Mutext::open(&address, None))
        };
        let opened: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..OPENINGS).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for opened in &opened {
            assert!(opened.is_ok(), "round {round}: {opened:?}");
        }
        // Each opening's socket is its sign of life: without it, others would take its locks away.
        let sockets = std::fs::read_dir(dir.path().join("store/wake")).unwrap().count();
        assert_eq!(sockets, OPENINGS, "round {round}: a living socket was swept away");
    }
}

fn ten_thousand_random_operations_by_eight_processes_lose_nothing() {
    let scene = Scene::with("?sync=normal");
    eprintln!("\n  {}", mix::run_all(&scene.address, 8, 1250));
}

fn random_operations_synced_to_disk_lose_nothing() {
    let scene = Scene::new();
    eprintln!("\n  {}", mix::run_all(&scene.address, 4, 100));
}

fn the_lock_of_a_killed_holder_passes_on_within_its_ttl_and_its_updates_stay() {
    const TTL: Duration = Duration::from_secs(2);
    for round in 0..3 {
        let scene = Scene::new();
        let holder = Child::start("hold", &[&scene.address, "2000"]);
        let (said, _) = holder.until("held");
        let waiter = Child::start("wait", &[&scene.address, "w7", "5000"]);
        scene.until_waiting(1);
        // Not at the same moment of the waiter's and the holder's rounds each time.
        std::thread::sleep(Duration::from_millis(170 * round));
        let (_, killed) = holder.kill();
        let (_, granted) = waiter.until("granted");
        let after = granted.saturating_duration_since(killed);
        eprintln!("\n  killed holder with a TTL of {TTL:?}: the waiter held the lock {after:.3?} later");
        assert!(after <= TTL + Duration::from_millis(100), "{after:?}");
        assert_eq!(acknowledged(&waiter.finish()), [7].into());
        assert_eq!(acknowledged(&said), [1, 2, 3].into());
        assert_eq!(scene.list(), [1, 2, 3, 7]);
    }
}

/// Stops a holder right after it has read, lets another take over, read and write, and lets the first go on.
fn stop_and_go(how: &str) -> (Scene, String, Duration) {
    let scene = Scene::new();
    scene.append_under_the_lock(1, Duration::from_secs(5));
    // Fresh from its grant: its next renewal is half a second away, so that the stop meets no transaction.
    let mut holder = Child::start("stale", &[&scene.address, "1500", how]);
    holder.until("read");
    let stopped = holder.signal(Signal::STOP);
    let granted = scene.append_under_the_lock(2, Duration::from_secs(10));
    holder.signal(Signal::CONT);
    holder.say("go on");
    let answer = holder.finish().pop().unwrap();
    (scene, answer, granted.saturating_duration_since(stopped))
}

fn a_holder_stopped_past_its_ttl_writes_nothing_over_its_successor() {
    for how in ["read", "blind", "fence"] {
        let (scene, answer, after) = stop_and_go(how);
        eprintln!("\n  stopped holder ({how}) with a TTL of 1.5s: the next held the lock {after:.3?} later");
        assert_eq!(answer, "refused LeaseLost", "{how}");
        assert_eq!(scene.list(), [1, 2], "{how}");
        // A stopped process lives: only its TTL tells. Counted from the stop, since its last renewal came before.
        assert!(after <= Duration::from_millis(1600), "{after:?}");
        assert!(after >= Duration::from_millis(500), "taken from a process that was alive, after {after:?}");
    }
}

fn a_stopped_holder_that_wrote_without_protection_would_lose_an_update() {
    let (scene, answer, _) = stop_and_go("unprotected");
    assert_eq!((answer.as_str(), scene.list()), ("written", vec![1, 666]), "the control shows nothing");
}

fn a_process_killed_in_a_stream_of_commits_leaves_every_acknowledged_one() {
    let scene = Scene::new();
    let mut expected: Vec<u64> = Vec::new();
    for round in 0..10_u64 {
        let strategy = if round % 2 == 0 { "set" } else { "lease" };
        let child = Child::start("stream", &[&scene.address, &(round * 1000).to_string(), strategy]);
        let mut said: Vec<String> = (0..5 + round * 4).map(|_| child.line().unwrap()).collect();
        // At any moment of the next commits.
        std::thread::sleep(Duration::from_micros(rand::random_range(0..8000)));
        said.extend(child.kill().0);
        let acknowledged: Vec<u64> = acknowledged(&said).into_iter().collect();

        // A fresh opening, as after the crash.
        let found = scene.runtime.block_on(async {
            let mutext = Mutext::open(&scene.address.parse().unwrap(), None).await.unwrap();
            let agent = mutext.context("shared", scene.agent.settings().clone()).unwrap();
            let found = agent.get("list").await.unwrap();
            let history = agent.history("list", None, 10_000).await.unwrap();
            assert_eq!(history.len() as u64, found.as_ref().unwrap().revision.0);
            assert_eq!(history[0].content, found.as_ref().map(|found| found.content.clone()));
            ids(found.as_ref())
        });
        expected.extend(&acknowledged);
        let unacknowledged = found.len().checked_sub(expected.len()).expect("acknowledged commits are missing");
        assert_eq!(found[..expected.len()], expected, "round {round}");
        // At most the one that was under way happened too.
        assert!(unacknowledged <= 1, "round {round}: {unacknowledged} that nobody made");
        expected = found;
    }
    // The last one's lock, if it held any, passes on.
    scene.append_under_the_lock(99_999, Duration::from_secs(11));
    assert!(expected.len() >= 230, "only {} commits", expected.len());
}

fn a_killed_waiter_holds_up_nobody() {
    let scene = Scene::new();
    let guard = scene.runtime.block_on(scene.agent.lock("list").acquire()).unwrap();
    let first = Child::start("wait", &[&scene.address, "w1", "60000"]);
    scene.until_waiting(1);
    let second = Child::start("wait", &[&scene.address, "w2", "60000"]);
    scene.until_waiting(2);
    first.kill();
    let start = Instant::now();
    scene.runtime.block_on(guard.release()).unwrap();
    let (_, granted) = second.until("granted");
    assert!(granted - start < Duration::from_secs(1), "handed to a dead process first: {:?}", granted - start);
    second.finish();
    assert_eq!(scene.list(), [2]);
}

fn a_waiter_that_was_stopped_when_its_turn_came_goes_on_waiting() {
    let scene = Scene::new();
    let guard = scene.runtime.block_on(scene.agent.lock("list").acquire()).unwrap();
    let waiter = Child::start("wait", &[&scene.address, "w1", "60000"]);
    scene.until_waiting(1);
    waiter.signal(Signal::STOP);
    scene.runtime.block_on(guard.release()).unwrap();
    // It was granted the lock and did not confirm it, so that the next one got it.
    scene.append_under_the_lock(2, Duration::from_secs(10));
    waiter.signal(Signal::CONT);
    // It asked to wait for a minute: that has not passed.
    waiter.finish();
    assert_eq!(scene.list(), [2, 1]);
}

fn processes_are_served_in_the_order_in_which_they_asked() {
    let scene = Scene::new();
    let guard = scene.runtime.block_on(scene.agent.lock("list").acquire()).unwrap();
    let mut last = guard.token().number();
    let waiters: Vec<Child> = (1..=5)
        .map(|place| {
            let waiter = Child::start("wait", &[&scene.address, &format!("w{place}"), "60000"]);
            scene.until_waiting(place);
            waiter
        })
        .collect();
    scene.runtime.block_on(guard.release()).unwrap();
    for waiter in waiters {
        let (said, _) = waiter.until("granted");
        let [_, epoch, counter] = said[0].split(' ').collect::<Vec<_>>()[..] else { panic!("{said:?}") };
        let token = (epoch.parse().unwrap(), counter.parse().unwrap());
        assert!(token > last, "{token:?} came after {last:?}");
        last = token;
        waiter.finish();
    }
    assert_eq!(scene.list(), [1, 2, 3, 4, 5]);
}

fn a_store_opened_by_a_relative_path_stays_the_same_store_elsewhere() {
    let scene = Scene::new();
    scene.append_under_the_lock(1, Duration::from_secs(5));
    let elsewhere = scene.dir.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let guard = scene.runtime.block_on(scene.agent.lock("list").acquire()).unwrap();
    // As the default address, `embedded:.mutext`, is; another project's store lies where it goes.
    let wanderer = Child::start_in(scene.dir.path(), "wander", &["embedded:store", elsewhere.to_str().unwrap()]);
    assert_eq!(wanderer.finish(), ["read [1]", "timeout", "wrote 1"]);
    assert!(guard.is_held());
    let written = scene.runtime.block_on(scene.agent.put("elsewhere", "2", Precondition::Absent));
    assert!(matches!(written, Err(Error::Conflict(_))), "{written:?}");
    drop(guard);
}
