//! One operation as its client saw it: who, when, what, and what came of it.
//!
//! What an operation means is not here: that is a [`SequentialSpec`](crate::SequentialSpec).

use std::fmt;

use serde::{Deserialize, Serialize};

/// One operation of one process, with the interval in which it took effect if it did.
///
/// Times are nanoseconds on one monotonic clock that all processes of a run share. Without that
/// nothing can be said about which operation came first, and no checker here is sound.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Operation<O, R> {
    /// The process that asked.
    pub process: u64,
    /// When it asked: read before the request was sent.
    pub invoked: u64,
    /// When the answer was in its hands; `None` when no answer came or the answer settled nothing.
    pub returned: Option<u64>,
    /// What it asked for.
    pub op: O,
    /// What came of it.
    pub outcome: Outcome<R>,
}

/// What the process that asked knows about the effect of its operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome<R> {
    /// It happened, and this is what it returned.
    Ok(R),
    /// It certainly did not happen, and never will: a conflict, a refusal, a request never sent.
    Failed,
    /// It may have happened, at any time after it was invoked, even after the client gave up:
    /// requests that time out still travel.
    Unknown,
}

impl<O, R> Operation<O, R> {
    /// An operation that happened between `invoked` and `returned`.
    pub fn ok(process: u64, invoked: u64, returned: u64, op: O, result: R) -> Self {
        Self { process, invoked, returned: Some(returned), op, outcome: Outcome::Ok(result) }
    }

    /// An operation that certainly did not happen.
    pub fn failed(process: u64, invoked: u64, returned: u64, op: O) -> Self {
        Self { process, invoked, returned: Some(returned), op, outcome: Outcome::Failed }
    }

    /// An operation that may have happened at any time after `invoked`.
    pub fn unknown(process: u64, invoked: u64, op: O) -> Self {
        Self { process, invoked, returned: None, op, outcome: Outcome::Unknown }
    }

    /// The last moment at which the operation can have taken effect; `None` when there is no such
    /// moment. The return of an unknown operation says only when its client stopped waiting.
    pub fn effective_until(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Ok(_) | Outcome::Failed => self.returned,
            Outcome::Unknown => None,
        }
    }

    /// Whether the operation returned before it was invoked: a fault of the harness, not a finding.
    pub fn is_backwards(&self) -> bool {
        self.returned.is_some_and(|returned| returned < self.invoked)
    }
}

impl<O: fmt::Display, R: fmt::Display> fmt::Display for Operation<O, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} [{}, ", self.process, self.invoked)?;
        match self.effective_until() {
            Some(returned) => write!(f, "{returned}] ")?,
            None => f.write_str("…) ")?,
        }
        write!(f, "{} -> {}", self.op, self.outcome)
    }
}

impl<R: fmt::Display> fmt::Display for Outcome<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok(result) => result.fmt(f),
            Self::Failed => f.write_str("failed"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_reads_as_one_line() {
        let seen = Operation::ok(3, 120, 450, "read", 7);
        assert_eq!(seen.to_string(), "process 3 [120, 450] read -> 7");
        let lost = Operation::<_, u64>::unknown(4, 130, "write 8");
        assert_eq!(lost.to_string(), "process 4 [130, …) write 8 -> unknown");
    }

    #[test]
    fn the_return_of_an_unknown_operation_does_not_bound_its_effect() {
        let mut op = Operation::<_, u64>::unknown(1, 10, "write");
        op.returned = Some(20);
        assert_eq!(op.effective_until(), None);
    }

    #[test]
    fn an_operation_survives_a_round_trip_through_json() {
        let op = Operation::ok(1, 2, 3, "read".to_owned(), 9_u64);
        let text = serde_json::to_string(&op).unwrap();
        assert_eq!(serde_json::from_str::<Operation<String, u64>>(&text).unwrap(), op);
    }
}
