//! Brings news of a change to those whom it concerns.

use std::sync::Arc;
use std::time::Duration;

use mutext_contract::{ContextName, Deadline};

use super::register::Register;
use super::table::{Op, Table, Tell, What};
use crate::board::Board;
use crate::keys::Keys;

/// How long giving back what a dead process was granted may take; whoever waits for it looks after it otherwise.
const PATIENCE: Duration = Duration::from_secs(5);

impl Tell {
    /// As it is said on a channel.
    fn message(&self) -> String {
        match self.what {
            // No two clocks are compared: the moment is left out.
            What::Granted { epoch, count } => format!("G {} {epoch} {count} 0 0", self.id),
            What::Ended => format!("E {}", self.id),
            What::Lost => format!("L {}", self.id),
            What::Wanted => format!("W {}", self.id),
        }
    }

    /// Whether it is still so.
    pub(crate) fn stands(&self, table: &Table) -> bool {
        let entry = table.entries.iter().find(|entry| entry.id == self.id);
        match self.what {
            What::Granted { count, .. } => entry.is_some_and(|entry| entry.counter == Some(count)),
            What::Ended | What::Lost => entry.is_none(),
            What::Wanted => entry.is_some(),
        }
    }
}

pub(crate) struct Courier {
    pub(crate) board: Arc<Board>,
    pub(crate) keys: Arc<Keys>,
}

impl Courier {
    /// To this process at once, to others by a channel, and not waited for: whoever is missed looks by itself. What
    /// was granted to a process that nobody hears from any more goes to the next.
    pub(crate) fn deliver(&self, register: &Arc<Register>, context: &ContextName, tells: Vec<Tell>) {
        let (own, others): (Vec<_>, Vec<_>) = tells.into_iter().partition(|tell| tell.home == self.keys.home());
        for tell in own {
            self.board.hear(&tell.message(), |_| None);
        }
        for tell in others {
            tokio::spawn(carry(Arc::clone(register), context.clone(), tell));
        }
    }
}

/// A future of a named type: what it runs may have news to deliver itself.
fn carry(
    register: Arc<Register>,
    context: ContextName,
    tell: Tell,
) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let is_heard = register.nodes.publish(&tell.home, &tell.message()).await;
        if is_heard || !matches!(tell.what, What::Granted { .. }) {
            return;
        }
        let op = Op::End { id: tell.id, remembered: String::new(), is_told: false };
        if let Err(error) = register.run(&context, op, Deadline::after(PATIENCE)).await {
            tracing::debug!(%error, "what a dead process was granted stays until its time is up");
        }
    })
}
