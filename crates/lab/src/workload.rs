//! What agents do in a trial: profiles, and the choices that a seed makes.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::results::Workload;

/// The names of the profiles.
pub const PROFILES: [&str; 4] = ["published", "bare", "single", "hot"];

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
        // Nobody else is there: what a lock costs that nobody contends.
        "single" => Some(Workload {
            agents: 1,
            updates_per_agent: 50,
            documents: 20,
            think_ms: 0.0,
            pause_ms_mean: 0.0,
            ..published
        }),
        // Everybody on one document, as fast as they can.
        "hot" => Some(Workload {
            agents: 8,
            updates_per_agent: 25,
            documents: 1,
            think_ms: 0.0,
            pause_ms_mean: 0.0,
            ..published
        }),
        _ => None,
    }
}

/// The path of a document by its number.
pub fn path(document: usize) -> String {
    format!("documents/{document:03}")
}

/// The document that an agent tries itself out on, before anything counts.
pub fn warm_up_path(agent: usize) -> String {
    format!("warm-up/{agent:03}")
}

/// One update of one agent, as its seed chose it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The pause before it, in nanoseconds: exponentially distributed.
    pub pause_ns: u64,
    /// The document that it changes.
    pub path: String,
}

impl Step {
    /// The pause before it.
    pub const fn pause(&self) -> Duration {
        Duration::from_nanos(self.pause_ns)
    }
}

/// Everything that one agent does in a trial of this seed: the same whatever the treatment, and whoever's agent it is.
pub fn schedule(workload: &Workload, trial_seed: u64, agent: usize) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(mix(trial_seed ^ mix(agent as u64 + 1)));
    let documents = workload.documents.max(1);
    let step = |_| {
        let uniform: f64 = random.random_range(f64::EPSILON..1.0);
        let pause_ns = (-uniform.ln() * workload.pause_ms_mean * 1e6) as u64;
        Step { pause_ns, path: path(random.random_range(0..documents)) }
    };
    (0..workload.updates_per_agent).map(step).collect()
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
        assert_eq!(schedule(&workload, 1, 0), schedule(&workload, 1, 0));
        assert_ne!(schedule(&workload, 1, 0), schedule(&workload, 1, 1));
        assert_ne!(schedule(&workload, 1, 0), schedule(&workload, 2, 0));
        assert_eq!(schedule(&workload, 1, 0).len(), workload.updates_per_agent);
    }

    #[test]
    fn pauses_have_the_mean_that_the_profile_says() {
        let workload = Workload { updates_per_agent: 20_000, ..profile("published").unwrap() };
        let total: Duration = schedule(&workload, 7, 0).iter().map(Step::pause).sum();
        let mean = total.as_secs_f64() * 1000.0 / 20_000.0;
        assert!((mean - 50.0).abs() < 2.0, "{mean}");
    }

    #[test]
    fn every_profile_is_there_with_its_parameters() {
        let parameters = PROFILES.map(|name| {
            let workload = profile(name).unwrap();
            assert_eq!((workload.profile.as_str(), workload.wait_ms), (name, 500));
            (workload.agents, workload.updates_per_agent, workload.documents, workload.think_ms, workload.pause_ms_mean)
        });
        assert_eq!(
            parameters,
            [(4, 3, 60, 17.0, 50.0), (4, 10, 20, 0.0, 50.0), (1, 50, 20, 0.0, 0.0), (8, 25, 1, 0.0, 0.0)]
        );
        assert_eq!(profile("cold"), None);
    }
}
