//! How lock engines begin epochs with what the document store mints.

use crate::{ContextName, Deadline, EngineError, EpochSource, TroubleKind};

/// How many epochs are minted for one that is above what the engine remembers: the second is, unless others are at it.
const EPOCHS_TRIED: usize = 20;

/// How a lock engine took an epoch that was minted for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// There is one as it is to be.
    Done,
    /// What was minted is not above this one, which the engine remembers.
    Behind(u64),
    /// What was minted was not looked at.
    Again,
}

/// Has an engine begin an epoch above `above`: `begin` is given what was minted, `minted` first (zero where that is
/// nothing yet), and then what `epochs` mints above all that the engine says it remembers. For engines.
///
/// Errors with what `begin` or the minting fails of, and where others begin one epoch after the other.
pub async fn begin_above<B, A>(
    epochs: &dyn EpochSource,
    context: &ContextName,
    (above, mut minted): (u64, u64),
    deadline: Deadline,
    subject: &str,
    mut begin: B,
) -> Result<(), EngineError>
where
    B: FnMut(u64) -> A,
    A: Future<Output = Result<Begun, EngineError>>,
{
    for _ in 0..EPOCHS_TRIED {
        match begin(minted).await? {
            Begun::Done => return Ok(()),
            Begun::Behind(last) => minted = epochs.mint_epoch(context, above.max(last), deadline).await?,
            Begun::Again => {}
        }
    }
    let remedy = "others begin one epoch after the other, or the document store mints none above the last: try again";
    Err(EngineError::new(subject, TroubleKind::Busy, remedy))
}
