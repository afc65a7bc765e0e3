//! The configurations that the search has been in, so that it explores none of them twice (Lowe's
//! memoisation), nor one that is no better than another.

use std::collections::HashMap;
use std::hash::Hash;

/// A set of operations, one bit each.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Bits(Box<[u64]>);

impl Bits {
    /// The empty set, with room for `size` members.
    pub(crate) fn new(size: usize) -> Self {
        Self(vec![0; size.div_ceil(64)].into())
    }

    /// Puts `member` in if it is not in, and takes it out if it is.
    pub(crate) fn toggle(&mut self, member: usize) {
        self.0[member / 64] ^= 1 << (member % 64);
    }

    pub(crate) fn contains(&self, member: usize) -> bool {
        self.0[member / 64] & (1 << (member % 64)) != 0
    }

    fn is_subset(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(mine, theirs)| mine & !theirs == 0)
    }
}

/// The configurations seen: a state, the operations it took, and the unknown ones among them.
#[derive(Debug)]
pub(crate) struct Visited<S> {
    /// For each state and set of certain operations, the least sets of unknown operations spent.
    spent: HashMap<(Bits, S), Vec<Bits>>,
}

impl<S: Eq + Hash> Visited<S> {
    pub(crate) fn new() -> Self {
        Self { spent: HashMap::new() }
    }

    /// Notes a configuration; `false` if it need not be explored.
    ///
    /// Nothing ever waits for an unknown operation, and none of them has to happen: to have spent
    /// fewer on the way to the same place is never worse. A place reached before with a subset of
    /// the unknown operations therefore leads wherever this one does. Without this rule k unknown
    /// operations would cost a factor of 2^k.
    pub(crate) fn insert(&mut self, certain: &Bits, unknown: &Bits, state: S) -> bool {
        let spent = self.spent.entry((certain.clone(), state)).or_default();
        if spent.iter().any(|before| before.is_subset(unknown)) {
            return false;
        }
        spent.retain(|before| !unknown.is_subset(before));
        spent.push(unknown.clone());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(members: &[usize]) -> Bits {
        let mut bits = Bits::new(130);
        members.iter().for_each(|&member| bits.toggle(member));
        bits
    }

    #[test]
    fn the_same_configuration_is_new_once() {
        let mut visited = Visited::new();
        assert!(visited.insert(&bits(&[1, 129]), &bits(&[]), 7));
        assert!(!visited.insert(&bits(&[1, 129]), &bits(&[]), 7));
        assert!(visited.insert(&bits(&[1, 129]), &bits(&[]), 8));
        assert!(visited.insert(&bits(&[1, 65]), &bits(&[]), 7));
    }

    #[test]
    fn spending_more_unknown_operations_is_nothing_new_and_spending_others_is() {
        let mut visited = Visited::new();
        assert!(visited.insert(&bits(&[1]), &bits(&[2]), 7));
        assert!(!visited.insert(&bits(&[1]), &bits(&[2, 3]), 7));
        assert!(visited.insert(&bits(&[1]), &bits(&[3]), 7));
        assert!(visited.insert(&bits(&[1]), &bits(&[]), 7));
        assert!(!visited.insert(&bits(&[1]), &bits(&[3]), 7));
    }
}
