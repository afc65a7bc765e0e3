//! Epochs of fencing tokens, minted by the store.

use crate::StoreFixture;
use crate::support::{Scribe, fresh_context, same, soon};

async fn mint(scribe: &Scribe) -> u64 {
    scribe.store.mint_epoch(&scribe.context, soon()).await.expect("an epoch without trouble")
}

/// Each epoch is higher than all before it, whichever client asks; none is minted twice, also at the same moment;
/// and none is zero, which stands for no epoch at all.
pub async fn epochs_rise(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    let mut last = 0;
    for scribe in [&anna, &bert, &bert, &anna] {
        let epoch = mint(scribe).await;
        assert!(epoch > last, "expected an epoch above {last}; found {epoch}");
        last = epoch;
    }
    let mut tasks = Vec::new();
    for number in 0..10 {
        let scribe = if number % 2 == 0 { anna.clone() } else { bert.clone() };
        tasks.push(tokio::spawn(async move { mint(&scribe).await }));
    }
    let mut epochs = Vec::new();
    for task in tasks {
        epochs.push(task.await.expect("the asker does not panic"));
    }
    epochs.sort_unstable();
    let mut once = epochs.clone();
    once.dedup();
    same("epochs minted at the same moment", &epochs, &once);
    assert!(epochs[0] > last, "expected epochs above {last}; found {epochs:?}");

    // Another context is not held up, and does not hold up this one.
    let elsewhere = Scribe { context: fresh_context(), ..bert.clone() };
    mint(&elsewhere).await;
    let (before, after) = (epochs[epochs.len() - 1], mint(&bert).await);
    assert!(after > before, "expected an epoch above {before}; found {after}");
}
