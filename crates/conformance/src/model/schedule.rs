//! What happens in a schedule, and how it is chosen.

use mutext_contract::Mode;
use proptest::prelude::*;

/// The resources of a schedule.
pub(super) const RESOURCES: [&str; 5] = ["/", "a", "a/b", "a/c", "b"];
/// Its agents: the first ones live in one client, those from [`CRASHING`] on in another, which may crash.
pub(super) const AGENTS: usize = 4;
pub(super) const CRASHING: usize = 2;

/// One step. Leases and requests are named by their place among those that there are, counted round; where there is
/// none, nothing happens.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Asks for claims (resources by number), queueing or not, as one who keeps its other leases or as one who does not.
    Acquire { agent: usize, claims: Vec<(usize, Mode)>, wait: bool, keeps: bool },
    /// Gives a lease back.
    Release(usize),
    /// Gives a request in the queue up.
    Cancel(usize),
    /// Renews a lease.
    Renew(usize),
    /// Lets a lease lapse.
    Expire(usize),
    /// Breaks a lease.
    Revoke(usize),
    /// Puts another lease on the same resources in the place of one, in this mode.
    Convert { lease: usize, mode: Mode, wait: bool },
    /// The second client dies with all that its agents hold and wait for; another takes its place.
    Crash,
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Shared), Just(Mode::Exclusive)]
}

fn step() -> impl Strategy<Value = Step> {
    let claims = prop::collection::vec((0..RESOURCES.len(), mode()), 1..3);
    let which = 0_usize..8;
    prop_oneof![
        48 => (0..AGENTS, claims, prop::bool::weighted(0.75), any::<bool>())
            .prop_map(|(agent, claims, wait, keeps)| Step::Acquire { agent, claims, wait, keeps }),
        24 => which.clone().prop_map(Step::Release),
        8 => which.clone().prop_map(Step::Cancel),
        4 => which.clone().prop_map(Step::Renew),
        4 => which.clone().prop_map(Step::Expire),
        8 => which.clone().prop_map(Step::Revoke),
        16 => (which, mode(), prop::bool::weighted(0.75))
            .prop_map(|(lease, mode, wait)| Step::Convert { lease, mode, wait }),
        // The dead are found by their silence, which takes its time: in few schedules.
        1 => Just(Step::Crash),
    ]
}

/// A schedule of some steps.
pub(super) fn strategy() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..16)
}
