//! One history a document: the objects of a run are judged one by one.

use std::collections::BTreeMap;

use crate::Operation;

/// Splits a history by the object that each operation is about.
///
/// Linearizability is local: the whole is linearizable if and only if the history of each object is
/// (Herlihy and Wing 1990; Horn and Kroening 2015). Small histories are far cheaper to check, and
/// the counterexample names one document. An operation on several objects at once belongs to none
/// of them alone: it needs a specification of them all.
pub fn partition<T, O, R, K, F>(history: impl IntoIterator<Item = T>, mut split: F) -> BTreeMap<K, Vec<Operation<O, R>>>
where
    K: Ord,
    F: FnMut(T) -> (K, Operation<O, R>),
{
    let mut parts = BTreeMap::<K, Vec<_>>::new();
    for item in history {
        let (key, operation) = split(item);
        parts.entry(key).or_default().push(operation);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Budget, Register, RegisterOperation, check};

    #[test]
    fn each_document_gets_its_own_verdict() {
        let log = [
            ("plan", RegisterOperation::update(1, 0, 10, 0, 1)),
            ("notes", RegisterOperation::update(2, 0, 10, 0, 1)),
            ("plan", RegisterOperation::update(2, 5, 15, 0, 2)),
            ("notes", RegisterOperation::update(1, 5, 15, 1, 2)),
        ];
        let parts = partition(log, |entry| entry);
        assert_eq!(parts.len(), 2);
        assert!(check(&Register(0), &parts["notes"], Budget::default()).is_linearizable());
        assert!(check(&Register(0), &parts["plan"], Budget::default()).counterexample().is_some());
    }
}
