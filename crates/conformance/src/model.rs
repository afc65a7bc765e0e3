//! Random schedules of all that a lock service does, compared after each step with a small reference model.
//!
//! An engine calls [`check`] in a test of its own, with its fixture and a number of schedules. What fails is shrunk to
//! the shortest schedule that still fails, and shown with the step, what was expected and what was found.
//! `MUTEXT_MODEL_SCHEDULES` plays another number of them, `MUTEXT_MODEL_SEED` repeats a run.

mod player;
mod reference;
mod schedule;

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::LockFixture;
use player::Player;

/// So many schedules are played side by side: most of them wait for something now and then.
const SIDE_BY_SIDE: usize = 16;
/// So often, and so many milliseconds long, a schedule that fails is tried in a shorter form.
const SHRINKS: u32 = 200;
const SHRINKING_MS: u32 = 60_000;
/// Of so many schedules one may end without a verdict, because a slow machine left a question unanswered.
const UNANSWERED_ONE_OF: u32 = 20;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Plays so many random schedules on the engine of `F`, each in a context of its own. Panics with the shortest schedule
/// that shows a difference between the engine and the reference.
#[expect(clippy::print_stderr, reason = "what was played, and how to repeat it")]
pub fn check<F: LockFixture + 'static>(schedules: u32) {
    let schedules = from_environment("MUTEXT_MODEL_SCHEDULES").and_then(|n| u32::try_from(n).ok()).unwrap_or(schedules);
    let seed = from_environment("MUTEXT_MODEL_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("{schedules} schedules; MUTEXT_MODEL_SEED={seed} plays them again");
    let (has_failed, unanswered) = (AtomicBool::new(false), AtomicU32::new(0));
    let failures: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..SIDE_BY_SIDE)
            .map(|thread| {
                let (from, to) = (share(schedules, thread), share(schedules, thread + 1));
                let (has_failed, unanswered) = (&has_failed, &unanswered);
                scope.spawn(move || play::<F>(to - from, seed.wrapping_add(thread as u64), has_failed, unanswered))
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().expect("a player's thread")).collect()
    });
    assert!(failures.is_empty(), "MUTEXT_MODEL_SEED={seed}\n{}", failures.join("\n\n"));
    let unanswered = unanswered.into_inner();
    if unanswered > 0 {
        eprintln!(
            "{unanswered} of {schedules} schedules ended without a verdict: an answer was missing on a slow machine"
        );
    }
    assert!(
        unanswered <= schedules / UNANSWERED_ONE_OF,
        "{unanswered} of {schedules} schedules had an answer missing, while other requests took long: the machine is too slow"
    );
}

fn share(schedules: u32, thread: usize) -> u32 {
    u32::try_from(u64::from(schedules) * thread as u64 / SIDE_BY_SIDE as u64).unwrap_or(0)
}

/// One thread's schedules; how the first of them failed.
#[expect(clippy::print_stderr, reason = "shrinking takes a while")]
fn play<F: LockFixture + 'static>(
    schedules: u32,
    seed: u64,
    has_failed: &AtomicBool,
    unanswered: &AtomicU32,
) -> Option<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let player: RefCell<Option<Player<F>>> = RefCell::default();
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases: schedules,
        max_shrink_iters: SHRINKS,
        max_shrink_time: SHRINKING_MS,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let own = Cell::new(false);
    let outcome = runner.run(&schedule::strategy(), |steps| {
        if has_failed.load(Ordering::Relaxed) && !own.get() {
            // Another thread has found something, and shrinks it.
            return Ok(());
        }
        let played = runtime.block_on(async {
            let mut current = match player.take() {
                Some(player) => player,
                None => Player::open().await,
            };
            let outcome = current.play(&steps).await;
            if outcome.is_err() && current.was_unanswered() {
                unanswered.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            // After a failure, or a crash, the next schedule begins afresh.
            if outcome.is_ok() && !current.has_crashed() {
                player.replace(Some(current));
            }
            outcome
        });
        played.map_err(|difference| {
            if !own.replace(true) {
                eprintln!("found, and shrinking: {difference}\nin {steps:?}");
            }
            player::lose_patience();
            has_failed.store(true, Ordering::Relaxed);
            TestCaseError::fail(difference)
        })
    });
    match outcome {
        Err(TestError::Fail(difference, steps)) => Some(format!("{difference}\nthe schedule: {steps:#?}")),
        Err(TestError::Abort(why)) => Some(format!("the schedules could not be made: {why}")),
        Ok(()) => None,
    }
}
