//! A document as a register: one value, read and replaced whole. Also the [`Interner`] that turns
//! contents into small numbers, so that states are cheap to compare.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;

use serde::{Deserialize, Serialize};

use crate::{Operation, SequentialSpec};

/// One document: the value that it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Register<V = u64>(pub V);

/// What can be asked of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RegisterOp<V = u64> {
    /// Look at the value.
    Read,
    /// Replace the value without looking.
    Write(V),
    /// Look at the value and replace it, as one step that returns what it saw.
    ///
    /// This is what an agent *means* by reading a document, thinking, and writing it back, so it is
    /// how such a cycle is recorded, whatever protected it: invoked before the read, returned after
    /// the write. If another update got between the two, no order explains both, and the history is
    /// not linearizable. Recorded as a read and a write apart, the same lost update would be
    /// linearizable and go unseen.
    Update {
        /// The value that it leaves behind.
        to: V,
    },
}

/// What a document answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RegisterRet<V = u64> {
    /// The value that a [`RegisterOp::Read`] or [`RegisterOp::Update`] saw.
    Saw(V),
    /// A [`RegisterOp::Write`] was done.
    Written,
}

/// One operation on a document.
pub type RegisterOperation<V = u64> = Operation<RegisterOp<V>, RegisterRet<V>>;

impl<V: Clone + fmt::Debug + Eq + Hash> SequentialSpec for Register<V> {
    type Op = RegisterOp<V>;
    type Ret = RegisterRet<V>;

    /// An update of unknown outcome may apply to any state: what it saw was never acknowledged. So
    /// linearizability alone cannot convict an unanswered blind write of destroying an update;
    /// [`lost_updates`](crate::lost_updates) does, from the final document.
    fn step(&self, op: &Self::Op, ret: Option<&Self::Ret>) -> Vec<Self> {
        let next = match (op, ret) {
            (RegisterOp::Read, None) => Some(self.0.clone()),
            (RegisterOp::Read, Some(RegisterRet::Saw(value))) => (*value == self.0).then(|| value.clone()),
            (RegisterOp::Write(to), None | Some(RegisterRet::Written)) | (RegisterOp::Update { to }, None) => {
                Some(to.clone())
            }
            (RegisterOp::Update { to }, Some(RegisterRet::Saw(value))) => (*value == self.0).then(|| to.clone()),
            // An answer that belongs to another kind of operation is never right.
            (RegisterOp::Read | RegisterOp::Update { .. }, Some(RegisterRet::Written))
            | (RegisterOp::Write(_), Some(RegisterRet::Saw(_))) => None,
        };
        next.map(Self).into_iter().collect()
    }

    fn is_read_only(op: &Self::Op) -> bool {
        matches!(op, RegisterOp::Read)
    }
}

impl<V> RegisterOperation<V> {
    /// A read that saw `value`.
    pub fn read(process: u64, invoked: u64, returned: u64, value: V) -> Self {
        let (op, ret) = (RegisterOp::Read, RegisterRet::Saw(value));
        Self::ok(process, invoked, returned, op, ret)
    }

    /// A blind write of `value` that was acknowledged.
    pub fn write(process: u64, invoked: u64, returned: u64, value: V) -> Self {
        let (op, ret) = (RegisterOp::Write(value), RegisterRet::Written);
        Self::ok(process, invoked, returned, op, ret)
    }

    /// An acknowledged update that saw `from` and left `to`.
    pub fn update(process: u64, invoked: u64, returned: u64, from: V, to: V) -> Self {
        let (op, ret) = (RegisterOp::Update { to }, RegisterRet::Saw(from));
        Self::ok(process, invoked, returned, op, ret)
    }
}

impl<V: fmt::Display> fmt::Display for Register<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<V: fmt::Display> fmt::Display for RegisterOp<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => f.write_str("read"),
            Self::Write(value) => write!(f, "write {value}"),
            Self::Update { to } => write!(f, "update to {to}"),
        }
    }
}

impl<V: fmt::Display> fmt::Display for RegisterRet<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Saw(value) => write!(f, "saw {value}"),
            Self::Written => f.write_str("written"),
        }
    }
}

/// Gives each distinct text a small number, in order of first sight, and the text back for a number.
#[derive(Clone, Debug, Default)]
pub struct Interner {
    numbers: HashMap<String, u64>,
    texts: Vec<String>,
}

impl Interner {
    /// An interner that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of `text`: the same for equal texts, different for different ones.
    pub fn intern(&mut self, text: &str) -> u64 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = self.texts.len() as u64;
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }

    /// The text that was given `number`.
    pub fn resolve(&self, number: u64) -> Option<&str> {
        let index = usize::try_from(number).ok()?;
        self.texts.get(index).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_is_legal_only_on_the_value_it_saw() {
        let op = RegisterOp::Update { to: 2 };
        assert_eq!(Register(1).step(&op, Some(&RegisterRet::Saw(1))), [Register(2)]);
        assert_eq!(Register(0).step(&op, Some(&RegisterRet::Saw(1))), []);
    }

    #[test]
    fn an_unknown_update_applies_to_any_state() {
        let op = RegisterOp::Update { to: 2 };
        for before in [0, 1, 2, 99] {
            assert_eq!(Register(before).step(&op, None), [Register(2)]);
        }
    }

    #[test]
    fn a_read_sees_the_value_and_nothing_else() {
        let read = RegisterOp::Read;
        assert_eq!(Register(1).step(&read, Some(&RegisterRet::Saw(1))), [Register(1)]);
        assert_eq!(Register(1).step(&read, Some(&RegisterRet::Saw(2))), []);
        assert_eq!(Register(1).step(&read, None), [Register(1)]);
    }

    #[test]
    fn an_answer_of_the_wrong_kind_is_never_legal() {
        let state = Register(1);
        assert_eq!(state.step(&RegisterOp::Read, Some(&RegisterRet::Written)), []);
        let update = RegisterOp::Update { to: 1 };
        assert_eq!(state.step(&update, Some(&RegisterRet::Written)), []);
        let write = RegisterOp::Write(1);
        assert_eq!(state.step(&write, Some(&RegisterRet::Saw(1))), []);
    }

    #[test]
    fn equal_texts_share_a_number_and_numbers_lead_back_to_texts() {
        let mut interner = Interner::new();
        let (a, b) = (interner.intern("a"), interner.intern("b"));
        assert_ne!(a, b);
        assert_eq!(interner.intern("a"), a);
        assert_eq!(interner.resolve(b), Some("b"));
        assert_eq!(interner.resolve(2), None);
    }
}
