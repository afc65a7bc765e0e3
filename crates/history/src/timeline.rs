//! The calls and returns of a history in order of time, as a list from which operations can be
//! lifted out and put back in constant time. What may go next is read off its front.

use crate::{Operation, Outcome};

/// The end of the list: both what follows the last entry and what precedes the first.
const EDGE: usize = 0;

/// Calls and returns of the operations that may have happened, doubly linked in order of time.
#[derive(Debug)]
pub(crate) struct Timeline {
    entries: Vec<Entry>,
    /// Entry of the call of each operation, by its index in the history.
    calls: Vec<usize>,
    /// Entry of the return of each operation that must have happened.
    returns: Vec<Option<usize>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Index of the operation in the history.
    operation: usize,
    is_return: bool,
    previous: usize,
    next: usize,
}

impl Timeline {
    /// The timeline of the operations of `history` that `wanted` lets through.
    ///
    /// An unknown operation has a call and no return: nothing ever has to wait for it.
    pub(crate) fn new<O, R>(history: &[Operation<O, R>], wanted: impl Fn(usize) -> bool) -> Self {
        // At equal times calls sort before returns: on one tick of the clock nobody can say which
        // came first, and the doubt speaks for the history. No return at all sorts last.
        let mut events = Vec::new();
        for (index, operation) in history.iter().enumerate() {
            if !wanted(index) {
                continue;
            }
            events.push((Some(operation.invoked), false, index));
            if matches!(operation.outcome, Outcome::Ok(_)) {
                events.push((operation.returned, true, index));
            }
        }
        events.sort_unstable_by_key(|&(at, is_return, index)| (at.is_none(), at, is_return, index));

        let mut calls = vec![EDGE; history.len()];
        let mut returns = vec![None; history.len()];
        let edge = Entry {
            operation: usize::MAX,
            is_return: true,
            previous: events.len(),
            next: usize::from(!events.is_empty()),
        };
        let mut entries = vec![edge];
        for &(_, is_return, operation) in &events {
            let here = entries.len();
            if is_return {
                returns[operation] = Some(here);
            } else {
                calls[operation] = here;
            }
            entries.push(Entry { operation, is_return, previous: here - 1, next: (here + 1) % (events.len() + 1) });
        }
        Self { entries, calls, returns }
    }

    /// The operations that may go next: those invoked before any that remains has returned.
    pub(crate) fn candidates(&self) -> impl Iterator<Item = usize> + '_ {
        let mut here = EDGE;
        std::iter::from_fn(move || {
            here = self.entries[here].next;
            let entry = self.entries[here];
            // The edge counts as a return, so it ends the walk as well.
            (!entry.is_return).then_some(entry.operation)
        })
    }

    /// Takes an operation out of the list.
    pub(crate) fn lift(&mut self, operation: usize) {
        self.unlink(self.calls[operation]);
        if let Some(entry) = self.returns[operation] {
            self.unlink(entry);
        }
    }

    /// Puts back the operation that was lifted last.
    pub(crate) fn put_back(&mut self, operation: usize) {
        if let Some(entry) = self.returns[operation] {
            self.link(entry);
        }
        self.link(self.calls[operation]);
    }

    fn unlink(&mut self, here: usize) {
        let Entry { previous, next, .. } = self.entries[here];
        self.entries[previous].next = next;
        self.entries[next].previous = previous;
    }

    fn link(&mut self, here: usize) {
        let Entry { previous, next, .. } = self.entries[here];
        self.entries[previous].next = here;
        self.entries[next].previous = here;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RegisterOperation;

    fn candidates(timeline: &Timeline) -> Vec<usize> {
        timeline.candidates().collect()
    }

    #[test]
    fn an_operation_waits_for_those_that_returned_before_it_was_invoked() {
        let history = [
            RegisterOperation::write(1, 0, 10, 1),
            RegisterOperation::write(2, 5, 30, 2),
            RegisterOperation::write(3, 11, 20, 3),
        ];
        let mut timeline = Timeline::new(&history, |_| true);
        assert_eq!(candidates(&timeline), [0, 1]);
        timeline.lift(0);
        assert_eq!(candidates(&timeline), [1, 2]);
        timeline.lift(2);
        assert_eq!(candidates(&timeline), [1]);
        timeline.put_back(2);
        timeline.put_back(0);
        assert_eq!(candidates(&timeline), [0, 1]);
    }

    #[test]
    fn a_call_on_the_tick_of_a_return_does_not_wait_for_it() {
        let history = [RegisterOperation::write(1, 0, 10, 1), RegisterOperation::write(2, 10, 20, 2)];
        assert_eq!(candidates(&Timeline::new(&history, |_| true)), [0, 1]);
    }

    #[test]
    fn nothing_waits_for_an_unknown_operation() {
        let history =
            [RegisterOperation::unknown(1, 0, crate::RegisterOp::Write(1)), RegisterOperation::write(2, 5, 6, 2)];
        assert_eq!(candidates(&Timeline::new(&history, |_| true)), [0, 1]);
    }

    #[test]
    fn an_empty_timeline_has_no_candidates() {
        let history: [RegisterOperation; 0] = [];
        assert!(candidates(&Timeline::new(&history, |_| true)).is_empty());
    }
}
