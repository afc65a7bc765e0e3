//! Does an order explain a history? Asked of every order that the search finds, by code that shares
//! nothing with the search.

use crate::{Operation, Outcome, SequentialSpec};

/// Whether doing the operations of `history` in this `order`, by index, explains all of it.
pub(crate) fn explains<S: SequentialSpec>(initial: &S, history: &[Operation<S::Op, S::Ret>], order: &[usize]) -> bool {
    is_complete(history, order) && keeps_time(history, order) && is_legal(initial, history, order)
}

/// Nothing happens twice, what certainly happened is there, and what failed is not.
fn is_complete<O, R>(history: &[Operation<O, R>], order: &[usize]) -> bool {
    let mut times = vec![0; history.len()];
    order.iter().for_each(|&index| times[index] += 1);
    history.iter().zip(times).all(|(operation, times)| match operation.outcome {
        Outcome::Ok(_) => times == 1,
        Outcome::Failed => times == 0,
        Outcome::Unknown => times <= 1,
    })
}

/// No operation comes after one that was invoked when it had returned already.
fn keeps_time<O, R>(history: &[Operation<O, R>], order: &[usize]) -> bool {
    let mut earliest_return = u64::MAX;
    order.iter().rev().all(|&index| {
        let operation = &history[index];
        earliest_return = earliest_return.min(operation.effective_until().unwrap_or(u64::MAX));
        operation.invoked <= earliest_return
    })
}

fn is_legal<S: SequentialSpec>(initial: &S, history: &[Operation<S::Op, S::Ret>], order: &[usize]) -> bool {
    let mut states = vec![initial.clone()];
    for &index in order {
        let operation = &history[index];
        let ret = match &operation.outcome {
            Outcome::Ok(ret) => Some(ret),
            Outcome::Failed | Outcome::Unknown => None,
        };
        let mut next = Vec::new();
        for state in states.iter().flat_map(|state| state.step(&operation.op, ret)) {
            if !next.contains(&state) {
                next.push(state);
            }
        }
        states = next;
    }
    !states.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Register, RegisterOp, RegisterOperation};

    fn history() -> [RegisterOperation; 4] {
        [
            RegisterOperation::write(1, 0, 10, 1),
            RegisterOperation::read(2, 5, 15, 1),
            RegisterOperation::unknown(3, 11, RegisterOp::Write(2)),
            RegisterOperation::failed(4, 0, 9, RegisterOp::Write(3)),
        ]
    }

    #[test]
    fn an_order_explains_with_or_without_what_is_unknown() {
        assert!(explains(&Register(0), &history(), &[0, 1]));
        assert!(explains(&Register(0), &history(), &[0, 1, 2]));
    }

    #[test]
    fn an_order_does_not_explain_what_it_leaves_out_repeats_or_makes_up() {
        assert!(!explains(&Register(0), &history(), &[0]));
        assert!(!explains(&Register(0), &history(), &[0, 1, 1]));
        assert!(!explains(&Register(0), &history(), &[3, 0, 1]));
    }

    #[test]
    fn an_order_does_not_explain_against_time_or_against_the_object() {
        assert!(!explains(&Register(0), &history(), &[2, 0, 1]));
        assert!(!explains(&Register(0), &history(), &[1, 0]));
    }
}
