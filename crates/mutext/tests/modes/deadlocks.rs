//! The dining philosophers (E. W. Dijkstra, 1965): five forks, and each philosopher needs the two beside it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mutext::{Context, Error, LockGuard};
use tokio::sync::Barrier;

use crate::common::wait;
use crate::{Place, on_each_engine};

on_each_engine! {
    each_circle_of_philosophers_is_told_and_every_round_ends
    philosophers_who_ask_for_both_forks_at_once_never_meet_a_circle
}

const PHILOSOPHERS: usize = 5;
const ROUNDS: usize = 40;
/// How soon whoever closes a circle is to be told.
const SOON: Duration = Duration::from_millis(50);

fn forks(philosopher: usize) -> (String, String) {
    (format!("forks/{philosopher}"), format!("forks/{}", (philosopher + 1) % PHILOSOPHERS))
}

/// What one has seen: how long each circle took to be told, from the request that closed it, and how many were in it.
#[derive(Default)]
struct Seen {
    circles: Vec<(Duration, usize)>,
    meals: usize,
}

impl Seen {
    /// Takes the second fork while holding the first; the circle that it would have closed, else.
    async fn second(&mut self, first: &LockGuard, fork: &str) -> Option<LockGuard> {
        let asked = Instant::now();
        match first.lock(fork).wait(wait(Duration::from_secs(30))).await {
            Ok(second) => Some(second),
            Err(Error::Deadlock { deadlock, .. }) => {
                let agents: BTreeSet<_> = deadlock.cycle.iter().map(|knot| knot.waiter.holder.agent.clone()).collect();
                assert_eq!(agents.len(), deadlock.cycle.len(), "each is named once: {deadlock}");
                assert_eq!(deadlock.cycle[0].waiter.holder, first.lease().holder, "it begins with the asker");
                self.circles.push((asked.elapsed(), deadlock.cycle.len()));
                None
            }
            Err(other) => panic!("expected the fork or a circle; found {other}"),
        }
    }

    async fn dine(mut self, context: Context, philosopher: usize, table: Arc<Barrier>) -> Self {
        let (left, right) = forks(philosopher);
        for round in 0..ROUNDS {
            // In every second round all of them have one fork before any asks for the other: a circle closes for sure.
            let mut all_at_once = round % 2 == 0;
            table.wait().await;
            loop {
                let first = context.lock(&*left).wait(wait(Duration::from_secs(30))).await.unwrap();
                if std::mem::take(&mut all_at_once) {
                    table.wait().await;
                }
                if let Some(second) = self.second(&first, &right).await {
                    self.meals += 1;
                    drop((first, second));
                    break;
                }
                // It puts its fork down, and lets the others eat first.
                first.release().await.unwrap();
                tokio::time::sleep(Duration::from_millis(rand::random_range(0..3))).await;
            }
        }
        self
    }
}

#[expect(clippy::print_stderr, reason = "what was measured")]
async fn each_circle_of_philosophers_is_told_and_every_round_ends(place: &Place) {
    let table = Arc::new(Barrier::new(PHILOSOPHERS));
    let mut dining = Vec::new();
    for philosopher in 0..PHILOSOPHERS {
        let context = place.agent(&format!("philosopher-{philosopher}")).await;
        dining.push(tokio::spawn(Seen::default().dine(context, philosopher, Arc::clone(&table))));
    }
    let mut circles = Vec::new();
    for dining in dining {
        let seen = dining.await.unwrap();
        assert_eq!(seen.meals, ROUNDS);
        circles.extend(seen.circles);
    }
    circles.sort_unstable();
    let full = circles.iter().filter(|(_, length)| *length == PHILOSOPHERS).count();
    let (median, longest) = (circles[circles.len() / 2].0, circles[circles.len() - 1].0);
    eprintln!(
        "{} circles, {full} of all five; told within {median:.1?} at the median, {longest:.1?} at most",
        circles.len()
    );
    assert!(full >= ROUNDS / 2, "a circle of all five closes in every second round: {full}");
    // A machine under load may stop a test for longer than that now and then.
    let late = circles.iter().filter(|(took, _)| *took > SOON).count();
    assert!(late * 20 <= circles.len(), "{late} of {} circles were told later than {SOON:?}", circles.len());
}

async fn philosophers_who_ask_for_both_forks_at_once_never_meet_a_circle(place: &Place) {
    let mut dining = Vec::new();
    for philosopher in 0..PHILOSOPHERS {
        let context = place.agent(&format!("philosopher-{philosopher}")).await;
        dining.push(tokio::spawn(async move {
            let (left, right) = forks(philosopher);
            for _ in 0..ROUNDS {
                let both = context.lock(&*left).and(&*right).wait(wait(Duration::from_secs(30))).await.unwrap();
                assert_eq!(both.lease().claims.len(), 2);
            }
        }));
    }
    for dining in dining {
        dining.await.unwrap();
    }
}
