//! Keeping a context small: what has expired is deleted, what need not be kept is forgotten.

use mutext_contract::Tended;

use crate::{Context, Error};

impl Context {
    /// Deletes what has expired (nobody could read it since that moment), and forgets the past revisions that
    /// [`Settings::retention`](crate::Settings::retention) does not keep: all of it, or as much as the patience allows.
    pub async fn tend(&self) -> Result<Tended, Error> {
        let (mut all, deadline) = (Tended::default(), self.deadline());
        loop {
            let step = self.store().tend(self.name(), &self.settings().retention, deadline).await?;
            all.expired += step.expired;
            all.forgotten += step.forgotten;
            if step == Tended::default() || deadline.has_passed() {
                return Ok(all);
            }
        }
    }
}
