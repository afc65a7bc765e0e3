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
        Ok(Some(order)) => Finding::Order(order),
        Ok(None) => Finding::DeadEnd { prefix: search.longest.path, state: search.longest.state },
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
    /// The certain operations taken so far.
    certain: Bits,
    longest: Longest<S>,
}

/// The path that took the most certain operations so far.
struct Longest<S> {
    depth: usize,
    path: Vec<usize>,
    state: S,
}

/// The place after some number of certain operations: one level of the stack.
struct Level<S> {
    /// The operations that may go next.
    certain: Vec<usize>,
    unknown: Vec<usize>,
    /// The configurations here, which differ in the unknown operations spent. Found breadth first,
    /// so that one is reached with few of them spent before it is with many, which the memory of
    /// visited configurations then rules out.
    nodes: Vec<Node<S>>,
    /// The node being explored; what is left to try from it; what is being tried, and the states
    /// that it may still leave behind.
    here: usize,
    untried: IntoIter<usize>,
    trying: usize,
    successors: IntoIter<S>,
    /// Whether unknown operations are worth trying from this node.
    may_spend: bool,
}

/// A configuration: the unknown operations spent on the way, and the state they left.
struct Node<S> {
    state: S,
    unknown: Bits,
    /// The node of the same level that it came from, and by which unknown operation.
    via: Option<(usize, usize)>,
}

impl<S> Level<S> {
    /// The unknown operations that lead from the first node to the one being explored.
    fn spent_here(&self) -> Vec<usize> {
        let mut spent = Vec::new();
        let mut node = self.here;
        while let Some((from, operation)) = self.nodes.get(node).and_then(|node| node.via) {
            spent.push(operation);
            node = from;
        }
        spent.reverse();
        spent
    }
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
            certain: Bits::new(history.len()),
            longest: Longest { depth: 0, path: Vec::new(), state: initial },
        }
    }

    /// The order found, if there is one.
    fn run(&mut self) -> Result<Option<Vec<usize>>, Undecided> {
        let initial = Node { state: self.longest.state.clone(), unknown: Bits::new(self.history.len()), via: None };
        self.visited.insert(&self.certain, &initial.unknown, initial.state.clone());
        let mut stack = vec![self.level(initial)?];
        while stack.len() <= self.required {
            let Some(level) = stack.last_mut() else { return Ok(None) };
            if let Some(state) = level.successors.next() {
                if let Some(node) = self.take(level.trying, state, &level.nodes[level.here].unknown) {
                    let next = self.level(node)?;
                    stack.push(next);
                }
            } else if let Some(operation) = level.untried.next() {
                level.trying = operation;
                level.successors = self.step(&level.nodes[level.here].state, operation)?.into_iter();
            } else {
                if level.may_spend {
                    self.spend(level)?;
                }
                level.here += 1;
                if level.here < level.nodes.len() {
                    self.enter(level)?;
                } else {
                    self.turn_back(&mut stack);
                }
            }
        }
        Ok(Some(path(&stack)))
    }

    /// The level that begins with this node.
    fn level(&mut self, first: Node<S>) -> Result<Level<S>, Undecided> {
        let (mut certain, unknown): (Vec<_>, _) = self.timeline.candidates().partition(|&index| self.is_certain(index));
        // What returned first is the most urgent: until it has gone, nothing invoked later can.
        certain.sort_by_key(|&index| self.history[index].effective_until().unwrap_or(u64::MAX));
        let mut level = Level {
            certain,
            unknown,
            nodes: vec![first],
            here: 0,
            untried: Vec::new().into_iter(),
            trying: usize::MAX,
            successors: Vec::new().into_iter(),
            may_spend: true,
        };
        self.enter(&mut level)?;
        Ok(level)
    }

    /// Decides what to try from the node that is explored next.
    ///
    /// A read that is legal here can go here: it changes nothing for those after it. So if there is
    /// one, nothing else need be tried. Reads that are not legal need no second look.
    fn enter(&mut self, level: &mut Level<S>) -> Result<(), Undecided> {
        let state = &level.nodes[level.here].state;
        let mut untried = Vec::with_capacity(level.certain.len());
        level.may_spend = true;
        for &operation in &level.certain {
            if !S::is_read_only(&self.history[operation].op) {
                untried.push(operation);
            } else if !self.step(state, operation)?.is_empty() {
                untried = vec![operation];
                level.may_spend = false;
                break;
            }
        }
        level.untried = untried.into_iter();
        Ok(())
    }

    /// Takes a certain operation, unless that leads to a place that was visited.
    fn take(&mut self, operation: usize, state: S, unknown: &Bits) -> Option<Node<S>> {
        self.certain.toggle(operation);
        if !self.visited.insert(&self.certain, unknown, state.clone()) {
            self.certain.toggle(operation);
            return None;
        }
        self.timeline.lift(operation);
        Some(Node { state, unknown: unknown.clone(), via: None })
    }

    /// Adds the nodes that one more unknown operation leads to. One that leaves the state alone
    /// leads to none: the memory rules it out.
    fn spend(&mut self, level: &mut Level<S>) -> Result<(), Undecided> {
        for &operation in &level.unknown {
            let from = &level.nodes[level.here];
            if from.unknown.contains(operation) {
                continue;
            }
            let mut unknown = from.unknown.clone();
            unknown.toggle(operation);
            let via = Some((level.here, operation));
            let mut found = self.step(&from.state, operation)?;
            found.retain(|state| self.visited.insert(&self.certain, &unknown, state.clone()));
            level.nodes.extend(found.into_iter().map(|state| Node { state, unknown: unknown.clone(), via }));
        }
        Ok(())
    }

    /// Leaves a level that leads nowhere. Paths are compared here: each longest one ends in one.
    fn turn_back(&mut self, stack: &mut Vec<Level<S>>) {
        let depth = stack.len() - 1;
        if let Some(level) = stack.last().filter(|_| depth > self.longest.depth) {
            // All nodes of the level are behind it, so the path stops short of its unknown operations.
            let state = level.nodes[0].state.clone();
            self.longest = Longest { depth, path: path(stack), state };
        }
        stack.pop();
        if let Some(below) = stack.last() {
            self.certain.toggle(below.trying);
            self.timeline.put_back(below.trying);
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

/// The operations that lead to the top of the stack.
fn path<S>(stack: &[Level<S>]) -> Vec<usize> {
    let mut path = Vec::new();
    for (depth, level) in stack.iter().enumerate() {
        path.extend(level.spent_here());
        if depth + 1 < stack.len() {
            path.push(level.trying);
        }
    }
    path
}
