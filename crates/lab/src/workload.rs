//! What agents do in a trial: profiles, and the choices that a seed makes.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::results::Workload;

/// The names of the profiles.
pub const PROFILES: [&str; 3] = ["published", "bare", "hot"];

/// The parameters of a profile, and why they are what they are; `None` for a name that is none.
///
/// `published` stands for the published experiment, which did not state its parameters: 2.3 ms to take a lock being
/// 12 % puts an update at about 19 ms, so agents think between read and write; 15 racy runs of 100 then mean about a
/// dozen updates a run with collisions near 1 %.
pub fn profile(name: &str) -> Option<Workload> {
    let published = Workload {
        profile: name.to_owned(),
        agents: 4,
        updates_per_agent: 3,
        documents: 60,
        think_ms: 17.0,
        pause_ms_mean: 50.0,
        ttl_ms: 10_000,
        wait_ms: 500,
        stop_ms: None,
    };
    match name {
        "published" => Some(published),
        // No thinking: what is left is the engines' own cost.
        "bare" => Some(Workload { updates_per_agent: 10, documents: 20, think_ms: 0.0, ..published }),
        // Everybody on one document.
        "hot" => Some(Workload { documents: 1, ..published }),
        _ => None,
    }
}

/// The path of a document by its number.
pub fn path(document: usize) -> String {
    format!("documents/{document:03}")
}

/// One agent's choices: the same for the same seed, whatever the treatment.
#[derive(Debug)]
pub struct Choices {
    random: StdRng,
    documents: usize,
    pause_ms_mean: f64,
}

impl Choices {
    /// The choices of one agent in a trial of this seed.
    pub fn new(workload: &Workload, trial_seed: u64, agent: usize) -> Self {
        let seed = mix(trial_seed ^ mix(agent as u64 + 1));
        let random = StdRng::seed_from_u64(seed);
        Self { random, documents: workload.documents.max(1), pause_ms_mean: workload.pause_ms_mean }
    }

    /// The pause before the next update, exponentially distributed, and the document that it changes.
    pub fn draw(&mut self) -> (Duration, String) {
        let uniform: f64 = self.random.random_range(f64::EPSILON..1.0);
        let pause = Duration::from_secs_f64(-uniform.ln() * self.pause_ms_mean / 1000.0);
        (pause, path(self.random.random_range(0..self.documents)))
    }
}

/// The seed of a trial: the same for every treatment of one number, so that they meet the same choices.
pub fn trial_seed(seed: u64, trial: usize) -> u64 {
    mix(seed ^ mix(trial as u64))
}

/// Spreads neighbouring numbers apart (the finaliser of SplitMix64, Steele, Lea and Flood 2014).
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_choices_and_another_does_not() {
        let workload = profile("published").unwrap();
        let choices = |seed, agent| {
            let mut choices = Choices::new(&workload, seed, agent);
            (0..5).map(|_| choices.draw()).collect::<Vec<_>>()
        };
        assert_eq!(choices(1, 0), choices(1, 0));
        assert_ne!(choices(1, 0), choices(1, 1));
        assert_ne!(choices(1, 0), choices(2, 0));
    }

    #[test]
    fn pauses_have_the_mean_that_the_profile_says() {
        let workload = profile("published").unwrap();
        let mut choices = Choices::new(&workload, 7, 0);
        let total: Duration = (0..20_000).map(|_| choices.draw().0).sum();
        let mean = total.as_secs_f64() * 1000.0 / 20_000.0;
        assert!((mean - 50.0).abs() < 2.0, "{mean}");
    }
}
