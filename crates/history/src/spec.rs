//! What an object does when nobody else is using it: the contract that concurrent histories are
//! held against. The objects themselves live elsewhere ([`Register`](crate::Register)).

use std::fmt::Debug;
use std::hash::Hash;

/// The state of an object, and how one operation after another changes it.
///
/// The state is the implementor itself: small, cheap to clone, compared and hashed often.
pub trait SequentialSpec: Clone + Eq + Hash {
    /// What can be asked of the object.
    type Op: Clone + Debug + Eq;
    /// What it answers.
    type Ret: Clone + Debug + Eq;

    /// The states that `op` may leave behind when it takes effect on this one and returns `ret`;
    /// empty when it cannot have returned that here. `None` is an outcome nobody saw: every state
    /// that the operation could leave behind, whatever it returned.
    fn step(&self, op: &Self::Op, ret: Option<&Self::Ret>) -> Vec<Self>;

    /// Whether `op` leaves every state as it found it, whatever it returns.
    ///
    /// A hint that saves the checker much work: a read that is legal now may as well go now. `true`
    /// for an operation that changes any state makes the verdict wrong; `false` is always safe.
    fn is_read_only(_op: &Self::Op) -> bool {
        false
    }
}
