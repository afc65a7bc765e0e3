//! Lines of work: who asks for locks, and what it keeps while it waits for another.

use std::sync::{Arc, Mutex, PoisonError};

use mutext_contract::{Holder, LeaseId, LockRequest};

use crate::kept::Habit;

/// One thing after another, under one holder's name.
///
/// A line that keeps a lease while it waits for another can be part of a deadlock; what is done side by side has a line
/// each, so that it is never taken for one.
#[derive(Debug)]
pub(crate) struct Line {
    holder: Holder,
    /// Leases that its guards hold now.
    leases: Mutex<Vec<LeaseId>>,
    /// Leases that stay as long as it lasts, held by whoever began it.
    around: Vec<LeaseId>,
    /// The line that goes on once this one has ended.
    above: Option<Arc<Self>>,
    /// Which lock it took last: its parts have that in common, as each update is one.
    habit: Arc<Habit>,
}

impl Line {
    /// A line of its own, within `around`.
    pub(crate) fn new(holder: Holder, around: Vec<LeaseId>) -> Arc<Self> {
        Arc::new(Self { holder, leases: Mutex::default(), around, above: None, habit: Arc::default() })
    }

    /// Another thing that the same agent does beside this one.
    pub(crate) fn beside(&self) -> Arc<Self> {
        Self::new(Holder::new(self.holder.agent.clone()), self.around.clone())
    }

    /// A part of this line that may be done beside other parts, and that this line waits for.
    pub(crate) fn below(self: &Arc<Self>) -> Arc<Self> {
        let holder = Holder::new(self.holder.agent.clone());
        let (above, habit) = (Some(Arc::clone(self)), Arc::clone(&self.habit));
        Arc::new(Self { holder, leases: Mutex::default(), around: Vec::new(), above, habit })
    }

    pub(crate) const fn holder(&self) -> &Holder {
        &self.holder
    }

    pub(crate) fn habit(&self) -> &Habit {
        &self.habit
    }

    pub(crate) fn takes(&self, lease: LeaseId) {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner).push(lease);
    }

    pub(crate) fn gives_back(&self, lease: LeaseId) {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner).retain(|held| *held != lease);
    }

    /// Leases that are kept while this line waits. Those beyond what a request may name are left out: a cycle through
    /// them ends with its waits.
    pub(crate) fn keeps(&self) -> Vec<LeaseId> {
        let mut kept = self.leases.lock().unwrap_or_else(PoisonError::into_inner).clone();
        kept.extend(&self.around);
        if let Some(above) = &self.above {
            kept.extend(above.keeps());
        }
        kept.truncate(LockRequest::KEEPS_MAX);
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutext_contract::AgentName;

    #[test]
    fn a_part_keeps_what_its_whole_keeps_and_what_is_beside_it_does_not() {
        let id = |number| LeaseId::from_bytes([number; 16]);
        let line = Line::new(Holder::new(AgentName::new("anna").unwrap()), vec![id(9)]);
        line.takes(id(1));
        line.takes(id(2));
        line.gives_back(id(1));
        let (part, beside) = (line.below(), line.beside());
        part.takes(id(3));
        assert_eq!(part.keeps(), [id(3), id(2), id(9)]);
        assert_eq!(line.keeps(), [id(2), id(9)]);
        assert_eq!(beside.keeps(), [id(9)]);
        assert!(beside.holder().id != line.holder().id && beside.holder().agent == line.holder().agent);
    }
}
