//! Epochs of fencing tokens, minted by the store.

use std::time::SystemTime;

use mutext_contract::{EPOCH_BELIEVED, EPOCH_MAX, FencedRead, Precondition};

use crate::StoreFixture;
use crate::support::{Scribe, fence, fresh_context, path, same, soon};

async fn mint(scribe: &Scribe) -> u64 {
    mint_above(scribe, 0).await
}

async fn mint_above(scribe: &Scribe, above: u64) -> u64 {
    scribe.store.mint_epoch(&scribe.context, above, soon()).await.expect("an epoch without trouble")
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

/// A store that was put back, or that stands in for another one, does not know all that was minted: so an epoch is above
/// the last that the caller remembers, above those of the tokens that documents have seen, and not below the clock.
pub async fn an_epoch_is_above_all_that_anybody_remembers(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since_1970.expect("a clock that is right").as_secs();
    // A server's clock may differ from ours; it is of the same day.
    let first = mint(&anna).await;
    assert!(first > seconds - 86_400, "expected an epoch of about {seconds}, by the clock; found {first}");

    let remembered = first + 1_000_000;
    let second = mint_above(&bert, remembered).await;
    assert!(second > remembered, "expected an epoch above {remembered}; found {second}");
    let third = mint_above(&anna, first).await;
    assert!(third > second, "expected an epoch above {second}, which is the last; found {third}");

    let written = fence(third + 1_000, 7);
    anna.committed(&anna.put("plan.md", "text", Precondition::Absent).fenced_by(written.clone())).await;
    let fourth = mint(&bert).await;
    assert!(fourth > written.token.epoch, "expected an epoch above that of {}; found {fourth}", written.token);
    let read = fence(fourth + 1_000, 7);
    let seen = bert.store.read_fenced(&bert.context, &path("absent.md"), &read, soon()).await;
    same("a fenced read", &seen.expect("a read without trouble"), &FencedRead::Read(None));
    let fifth = mint(&anna).await;
    assert!(fifth > read.token.epoch, "expected an epoch above that of {}; found {fifth}", read.token);

    // What another context has seen is nobody's business here.
    let elsewhere = Scribe { context: fresh_context(), ..bert.clone() };
    let other = mint(&elsewhere).await;
    assert!(other < remembered, "expected an epoch by the clock; found {other}");
}

/// Where no epoch is above the last, none is minted, and the error says so. A document that has seen a token that no lock
/// engine grants keeps nobody from beginning one, and then another; nor does one that has seen the highest that is believed.
pub async fn an_epoch_that_cannot_be_is_refused(fixture: &dyn StoreFixture) {
    let anna = Scribe::one(fixture);
    for above in [EPOCH_MAX - 1, EPOCH_MAX, u64::MAX] {
        let refused = anna.store.mint_epoch(&anna.context, above, soon()).await;
        let told = refused.expect_err("no epoch is left").to_string();
        let last = above.min(EPOCH_MAX).to_string();
        assert!(told.contains(&last) && told.contains(anna.context.as_str()), "found {told}");
    }
    for (at, forged) in [("a", EPOCH_MAX), ("b", EPOCH_MAX - 1), ("c", EPOCH_BELIEVED + 1)] {
        anna.committed(&anna.put(at, "text", Precondition::Absent).fenced_by(fence(forged, 1))).await;
        let (first, second) = (mint(&anna).await, mint(&anna).await);
        assert!(first < second && second < EPOCH_BELIEVED, "expected ordinary epochs; found {first} and {second}");
    }
    anna.committed(&anna.put("d", "text", Precondition::Absent).fenced_by(fence(EPOCH_BELIEVED, 1))).await;
    let (first, second) = (mint(&anna).await, mint(&anna).await);
    assert!(EPOCH_BELIEVED < first && first < second, "expected epochs above the mark; found {first} and {second}");
    let third = mint_above(&anna, second).await;
    assert!(third > second, "expected an epoch above {second}; found {third}");
}
