//! How long a request may queue, where one that is not to wait gives others a moment to give back what they keep.

use std::time::Duration;

use crate::{Acquisition, Blocked, Deadline, Deadlock};

/// A request that takes no waiting gives others so long to give back what they keep without using it.
pub const GIVEN_BACK: Duration = Duration::from_millis(10);

/// The deadline of a request, for an engine that tells holders who wants their leases ([`crate::LockService::wanted`]).
#[derive(Debug)]
pub struct Patience {
    deadline: Deadline,
    is_one_try: bool,
    /// What the one try found in its way, once it has got its moment.
    found: Option<Blocked>,
}

impl Patience {
    /// Until `deadline`; one that has passed means one try.
    pub fn until(deadline: Deadline) -> Self {
        Self { deadline, is_one_try: deadline.has_passed(), found: None }
    }

    /// Until when it may queue now.
    pub const fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// What was asked is not granted: how that ends, or `None` where it is to be asked once more, until the new deadline.
    /// `may_be_kept` says that nothing is in the way but leases with tokens to spare, whose holders were told: they give
    /// them back unless they are at work.
    pub fn blocked(&mut self, blocked: Blocked, may_be_kept: bool) -> Option<Acquisition> {
        if may_be_kept && self.is_one_try && self.found.is_none() {
            (self.deadline, self.found) = (Deadline::after(GIVEN_BACK), Some(blocked));
            return None;
        }
        Some(Acquisition::TimedOut(blocked))
    }

    /// Waiting would close a cycle. Who asked not to wait waits for nobody, and is told what was in its way.
    pub fn deadlock(self, deadlock: Deadlock) -> Acquisition {
        self.found.map_or(Acquisition::Deadlock(deadlock), Acquisition::TimedOut)
    }
}
