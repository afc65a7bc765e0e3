//! Is there one order of the operations that explains what every process saw? The verdict, its
//! budget, and the counterexample that convicts a history.
//!
//! A history is *linearizable* (Herlihy and Wing 1990) if each operation can be given one moment
//! between its invocation and its return so that, done one after another at those moments, all of
//! them return what they returned. The search is that of Wing and Gong ("Testing and verifying
//! concurrent objects", 1993) with the memoisation of Lowe ("Testing for linearizability", 2017):
//! a set of operations taken and the state that they left is explored once. Horn and Kroening
//! ("Faster linearizability checking via P-compositionality", 2015) justify checking each object by
//! itself: [`partition`](crate::partition()). The Go library porcupine is the model of the whole.
//!
//! Deciding it is NP-complete, so there is a [`Budget`], and a third verdict for when it runs out.

use std::fmt;
use std::time::Instant;

use crate::search::{Finding, search};
use crate::witness::explains;
use crate::{Operation, Outcome, SequentialSpec};

/// How many operations of a long prefix are printed: those next to the trouble.
const PRINTED_PREFIX: usize = 20;

/// How much work a check may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// How many times the specification may be asked for a step. Each configuration remembered
    /// came of a step, so this bounds memory too. The same history and the same number of steps
    /// always lead to the same verdict.
    pub steps: u64,
    /// When to stop whatever the steps. A verdict that hangs on it may differ from run to run.
    pub deadline: Option<Instant>,
}

impl Budget {
    /// A budget of so many steps, however long they take.
    pub fn steps(steps: u64) -> Self {
        Self { steps, deadline: None }
    }

    /// The same budget, and no later than `deadline`.
    #[must_use]
    pub fn until(self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    pub(crate) fn is_past_deadline(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// Two million steps: seconds of work and some hundreds of megabytes at the very worst, where an
/// ordinary history of a few hundred operations takes some thousand steps and milliseconds. What
/// takes more is dozens of operations in flight at once where many of them have an unknown outcome
/// or are blind writes.
impl Default for Budget {
    fn default() -> Self {
        Self::steps(2_000_000)
    }
}

/// What a check found out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict<S: SequentialSpec> {
    /// Some order of the operations explains the history.
    Linearizable,
    /// No order does.
    Violated(Counterexample<S>),
    /// Nothing was proved, one way or the other. Neither a pass nor a finding.
    Undecided(Undecided),
}

/// Why a check proved nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecided {
    /// The steps were used up.
    #[error("undecided: all {0} steps of the budget were used")]
    Steps(u64),
    /// The deadline passed.
    #[error("undecided: the deadline passed after {steps} steps")]
    Deadline {
        /// How many steps were taken until then.
        steps: u64,
    },
    /// An operation returned before it was invoked: the harness, not the system, is at fault.
    #[error("undecided: operation {index} of the history returned before it was invoked")]
    Malformed {
        /// Its index in the history.
        index: usize,
    },
}

/// Why a history is not linearizable: how far an order gets, and what is then in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counterexample<S: SequentialSpec> {
    /// A longest order that explains a part of the history: no other one takes more of the
    /// operations that certainly happened.
    pub prefix: Vec<Operation<S::Op, S::Ret>>,
    /// The state that it leaves.
    pub state: S,
    /// The operations that had to come next, one or another of them, and none of which could.
    pub stuck: Vec<Operation<S::Op, S::Ret>>,
    /// Operations of unknown outcome that were under way. Supposing that they happened helps no
    /// more than supposing that they did not.
    pub unknown: Vec<Operation<S::Op, S::Ret>>,
}

/// Checks `history` against an object that starts as `initial`.
///
/// Operations come in any order. Failed ones are dropped; unknown ones may have happened, at any
/// time from their invocation on, or not at all. An operation with an answer but no time of return
/// happened at some time after its invocation. On equal times operations count as concurrent, so
/// that the grain of the clock convicts nobody.
pub fn check<S: SequentialSpec>(initial: &S, history: &[Operation<S::Op, S::Ret>], budget: Budget) -> Verdict<S> {
    if let Some(index) = history.iter().position(Operation::is_backwards) {
        return Verdict::Undecided(Undecided::Malformed { index });
    }
    match search(initial, history, budget) {
        Finding::Order(order) => {
            debug_assert!(explains(initial, history, &order), "the search found an order that explains nothing");
            Verdict::Linearizable
        }
        Finding::GaveUp(undecided) => Verdict::Undecided(undecided),
        Finding::DeadEnd { prefix, state } => Verdict::Violated(counterexample(history, &prefix, state)),
    }
}

fn counterexample<S: SequentialSpec>(
    history: &[Operation<S::Op, S::Ret>],
    prefix: &[usize],
    state: S,
) -> Counterexample<S> {
    let mut taken = vec![false; history.len()];
    for &index in prefix {
        taken[index] = true;
    }
    let left = || history.iter().zip(&taken).filter(|&(_, taken)| !taken).map(|(operation, _)| operation);
    let certain = || left().filter(|operation| matches!(operation.outcome, Outcome::Ok(_)));
    // What was invoked after another remaining operation had returned has to wait for that one.
    let horizon = certain().filter_map(Operation::effective_until).min().unwrap_or(u64::MAX);
    let under_way = |operation: &&Operation<_, _>| operation.invoked <= horizon;
    let unknown = left().filter(|operation| matches!(operation.outcome, Outcome::Unknown));
    Counterexample {
        prefix: prefix.iter().map(|&index| history[index].clone()).collect(),
        state,
        stuck: certain().filter(under_way).cloned().collect(),
        unknown: unknown.filter(under_way).cloned().collect(),
    }
}

impl<S: SequentialSpec> Verdict<S> {
    /// Whether the history was proved linearizable.
    pub fn is_linearizable(&self) -> bool {
        matches!(self, Self::Linearizable)
    }

    /// What convicts the history, if it was proved not to be linearizable.
    pub fn counterexample(&self) -> Option<&Counterexample<S>> {
        match self {
            Self::Violated(counterexample) => Some(counterexample),
            Self::Linearizable | Self::Undecided(_) => None,
        }
    }
}

impl<S> fmt::Display for Verdict<S>
where
    S: SequentialSpec<Op: fmt::Display, Ret: fmt::Display> + fmt::Display,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linearizable => f.write_str("linearizable"),
            Self::Violated(counterexample) => counterexample.fmt(f),
            Self::Undecided(undecided) => undecided.fmt(f),
        }
    }
}

impl<S> fmt::Display for Counterexample<S>
where
    S: SequentialSpec<Op: fmt::Display, Ret: fmt::Display> + fmt::Display,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not linearizable: no order of these operations explains what they returned")?;
        if self.prefix.is_empty() {
            write!(f, "\nfrom {}, where it all began, none of these can go first:", self.state)?;
        } else {
            write!(f, "\nthe longest order that holds takes {} of them:", self.prefix.len())?;
            let hidden = self.prefix.len().saturating_sub(PRINTED_PREFIX);
            if hidden > 0 {
                write!(f, "\n  … {hidden} earlier")?;
            }
            list(f, &self.prefix[hidden..])?;
            write!(f, "\nand leaves {}, from where none of these can go on:", self.state)?;
        }
        list(f, &self.stuck)?;
        if !self.unknown.is_empty() {
            f.write_str("\nwhether or not these happened:")?;
            list(f, &self.unknown)?;
        }
        Ok(())
    }
}

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, operations: &[T]) -> fmt::Result {
    operations.iter().try_for_each(|operation| write!(f, "\n  {operation}"))
}
