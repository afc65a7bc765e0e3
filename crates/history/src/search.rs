//! The search for an order: Wing and Gong's, depth first, with its own stack.
//!
//! It knows operations by their index in the history; [`check`](crate::check()) makes a verdict of
//! what it finds.

use std::vec::IntoIter;

use crate::timeline::Timeline;
use crate::visited::{Bits, Visited};
use crate::{Budget, Operation, Outcome, SequentialSpec, Undecided};

/// How often the clock is read: once every so many steps.
const STEPS_PER_LOOK_AT_THE_CLOCK: u64 = 1024;

/// What a search finds.
#[derive(Debug)]
pub(crate) enum Finding<S> {
    /// An order that explains the history.
    Order(Vec<usize>),
    /// There is none. This one explains as many certain operations as any, and leaves this state.
    DeadEnd { prefix: Vec<usize>, state: S },
    /// The budget ran out first.
    GaveUp(Undecided),
}

/// Searches for an order of `history` that `initial` allows.
pub(crate) fn search<S: SequentialSpec>(
    initial: &S,
    history: &[Operation<S::Op, S::Ret>],
    budget: Budget,
) -> Finding<S> {
    let mut search = Search::new(initial.clone(), history, budget);
    match search.run() {
        Err(undecided) => Finding::GaveUp(undecided),
        Ok(true) => Finding::Order(search.path),
        Ok(false) => Finding::DeadEnd { prefix: search.longest.path, state: search.longest.state },
    }
}

/// Whether an operation takes part in the search: a failed one did not happen, and a read whose
/// answer nobody saw says nothing.
fn takes_part<S: SequentialSpec>(operation: &Operation<S::Op, S::Ret>) -> bool {
    match operation.outcome {
        Outcome::Ok(_) => true,
        Outcome::Failed => false,
        Outcome::Unknown => !S::is_read_only(&operation.op),
    }
}

struct Search<'h, S: SequentialSpec> {
    history: &'h [Operation<S::Op, S::Ret>],
    timeline: Timeline,
    visited: Visited<S>,
    budget: Budget,
    steps: u64,
    /// How many operations must have happened.
    required: usize,
    /// The operations taken so far, in order; the certain and the unknown ones as sets.
    path: Vec<usize>,
    certain: Bits,
    unknown: Bits,
    /// How many of the path are certain.
    depth: usize,
    longest: Longest<S>,
}

/// The path that took the most certain operations so far.
struct Longest<S> {
    depth: usize,
    path: Vec<usize>,
    state: S,
}

/// One configuration on the stack, and what is left to try from it.
struct Level<S> {
    state: S,
    candidates: IntoIter<usize>,
    /// The candidate being tried, and the states it may still leave behind.
    trying: usize,
    successors: IntoIter<S>,
}

impl<'h, S: SequentialSpec> Search<'h, S> {
    fn new(initial: S, history: &'h [Operation<S::Op, S::Ret>], budget: Budget) -> Self {
        Self {
            history,
            timeline: Timeline::new(history, |index| takes_part::<S>(&history[index])),
            visited: Visited::new(),
            budget,
            steps: 0,
            required: history.iter().filter(|op| matches!(op.outcome, Outcome::Ok(_))).count(),
            path: Vec::new(),
            certain: Bits::new(history.len()),
            unknown: Bits::new(history.len()),
            depth: 0,
            longest: Longest { depth: 0, path: Vec::new(), state: initial },
        }
    }

    /// Whether there is an order; it is left in `path`.
    fn run(&mut self) -> Result<bool, Undecided> {
        let mut stack = vec![self.level(self.longest.state.clone())?];
        while let Some(level) = stack.last_mut() {
            if self.depth == self.required {
                return Ok(true);
            }
            if let Some(state) = level.successors.next() {
                // Leaving the state alone, an unknown operation explains nothing.
                if self.is_certain(level.trying) || state != level.state {
                    let taken = level.trying;
                    if self.take(taken, &state) {
                        let next = self.level(state)?;
                        stack.push(next);
                    }
                }
            } else if let Some(candidate) = level.candidates.next() {
                level.trying = candidate;
                level.successors = self.step(&level.state, candidate)?.into_iter();
            } else {
                let Some(Level { state, .. }) = stack.pop() else { break };
                self.note_longest(state);
                self.untake();
            }
        }
        Ok(false)
    }

    /// What can be tried from `state` after the operations on the path.
    fn level(&mut self, state: S) -> Result<Level<S>, Undecided> {
        let (mut candidates, unknown): (Vec<_>, Vec<_>) =
            self.timeline.candidates().partition(|&index| self.is_certain(index));
        // A read that is legal here can go here: it changes nothing for those after it. So if
        // there is one, it is the only candidate. Otherwise reads that are not legal are dropped.
        let mut legal_read = None;
        let mut rest = Vec::with_capacity(candidates.len() + unknown.len());
        for candidate in candidates.drain(..) {
            if !S::is_read_only(&self.history[candidate].op) {
                rest.push(candidate);
            } else if !self.step(&state, candidate)?.is_empty() {
                legal_read = Some(candidate);
                break;
            }
        }
        // Unknown operations come last, so that a place is first reached with few of them spent.
        rest.extend(unknown);
        let candidates = legal_read.map_or(rest, |read| vec![read]);
        Ok(Level { state, candidates: candidates.into_iter(), trying: usize::MAX, successors: Vec::new().into_iter() })
    }

    /// Puts an operation on the path unless that leads to a place that was visited.
    fn take(&mut self, operation: usize, state: &S) -> bool {
        let is_certain = self.is_certain(operation);
        self.toggle(operation);
        if !self.visited.insert(&self.certain, &self.unknown, state.clone()) {
            self.toggle(operation);
            return false;
        }
        self.timeline.lift(operation);
        self.path.push(operation);
        self.depth += usize::from(is_certain);
        true
    }

    fn untake(&mut self) {
        if let Some(operation) = self.path.pop() {
            self.toggle(operation);
            self.timeline.put_back(operation);
            self.depth -= usize::from(self.is_certain(operation));
        }
    }

    fn toggle(&mut self, operation: usize) {
        if self.is_certain(operation) {
            self.certain.toggle(operation);
        } else {
            self.unknown.toggle(operation);
        }
    }

    /// Paths are compared where the search turns back: each longest one ends there. Among equals
    /// the one with the fewest unknown operations is the easiest to read.
    fn note_longest(&mut self, state: S) {
        let longest = &self.longest;
        let is_shorter = self.depth == longest.depth && self.path.len() < longest.path.len();
        if self.depth > longest.depth || is_shorter {
            self.longest = Longest { depth: self.depth, path: self.path.clone(), state };
        }
    }

    fn is_certain(&self, operation: usize) -> bool {
        matches!(self.history[operation].outcome, Outcome::Ok(_))
    }

    fn step(&mut self, state: &S, operation: usize) -> Result<Vec<S>, Undecided> {
        if self.steps >= self.budget.steps {
            return Err(Undecided::Steps(self.steps));
        }
        if self.steps.is_multiple_of(STEPS_PER_LOOK_AT_THE_CLOCK) && self.budget.is_past_deadline() {
            return Err(Undecided::Deadline { steps: self.steps });
        }
        self.steps += 1;
        let Operation { op, outcome, .. } = &self.history[operation];
        Ok(match outcome {
            Outcome::Ok(ret) => state.step(op, Some(ret)),
            Outcome::Unknown => state.step(op, None),
            Outcome::Failed => Vec::new(),
        })
    }
}
