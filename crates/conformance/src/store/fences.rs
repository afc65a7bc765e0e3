//! Fencing tokens, checked with the write.

use mutext_contract::{
    Commit, DocumentStore, Fence, FencedRead, FencingToken, LeaseId, Precondition, Refusal, Revision,
};

use super::{done, path, put, read, refusal, text};
use crate::{StoreFixture, context, soon};

fn token(epoch: u64, counter: u64, owner: u8) -> FencingToken {
    FencingToken::new(epoch, counter, LeaseId::from_bytes([owner; 16]))
}

fn fence(token: FencingToken) -> Fence {
    Fence::new(token, "/").unwrap_or_else(|error| panic!("{error}"))
}

fn under(token: FencingToken, text: &str, precondition: Precondition) -> Commit {
    put("a", text, precondition).fenced_by(fence(token))
}

async fn assert_fenced(store: &dyn DocumentStore, commit: &Commit, highest: FencingToken) {
    let before = read(store, "a").await;
    let refused = refusal(store, commit).await;
    let Refusal::Fenced(fenced) = refused else { panic!("{refused:?}") };
    assert_eq!((Some(fenced.presented), fenced.highest), (commit.fence.as_ref().map(|fence| fence.token), highest));
    assert_eq!(fenced.current, before);
    assert_eq!(read(store, "a").await, before, "a refused write changed something");
}

/// The revision alone would let it through.
pub async fn an_older_fence_is_refused_even_at_the_right_revision<F: StoreFixture>() {
    let fixture = F::open().await;
    let store = fixture.store();
    done(&*store, &under(token(1, 5, 1), "five", Precondition::Absent)).await;
    assert_fenced(&*store, &under(token(1, 4, 2), "four", Precondition::Exact(Revision(1))), token(1, 5, 1)).await;
    assert_fenced(&*fixture.second().await, &under(token(1, 4, 2), "four", Precondition::Any), token(1, 5, 1)).await;
}

/// A holder writes as often as it likes.
pub async fn the_same_fence_may_write_twice<F: StoreFixture>() {
    let fixture = F::open().await;
    for expected in 1..=3 {
        let committed = done(&*fixture.store(), &under(token(1, 5, 1), "x", Precondition::Any)).await;
        assert_eq!(super::revision(&committed), Revision(expected));
    }
}

/// The first writer wins.
pub async fn an_equal_number_of_another_owner_is_refused<F: StoreFixture>() {
    let fixture = F::open().await;
    done(&*fixture.store(), &under(token(1, 5, 1), "x", Precondition::Any)).await;
    assert_fenced(&*fixture.store(), &under(token(1, 5, 2), "y", Precondition::Any), token(1, 5, 1)).await;
}

/// However far the old one had counted.
pub async fn a_newer_epoch_outranks_every_counter_of_the_old<F: StoreFixture>() {
    let fixture = F::open().await;
    done(&*fixture.store(), &under(token(1, 1_000_000, 1), "old", Precondition::Any)).await;
    done(&*fixture.store(), &under(token(2, 1, 2), "new", Precondition::Any)).await;
    assert_fenced(&*fixture.store(), &under(token(1, 2_000_000, 1), "old", Precondition::Any), token(2, 1, 2)).await;
}

/// From the moment of the read, also where there was nothing to read, and for other readers too.
pub async fn a_fenced_read_keeps_older_tokens_out<F: StoreFixture>() {
    let fixture = F::open().await;
    let (store, second) = (fixture.store(), fixture.second().await);
    let read_under = |client: std::sync::Arc<dyn DocumentStore>, token| async move {
        let read = client.read_fenced(&context(), &path("a"), &fence(token), soon()).await;
        read.unwrap_or_else(|error| panic!("{error}"))
    };
    assert_eq!(read_under(store.clone(), token(1, 7, 1)).await, FencedRead::Read(None));
    assert_fenced(&*second, &under(token(1, 6, 2), "late", Precondition::Absent), token(1, 7, 1)).await;
    done(&*store, &under(token(1, 7, 1), "mine", Precondition::Absent)).await;
    let seen = read_under(second.clone(), token(1, 8, 3)).await;
    assert!(matches!(&seen, FencedRead::Read(Some(document)) if document.content.as_str() == "mine"), "{seen:?}");
    assert_fenced(&*store, &under(token(1, 7, 1), "late", Precondition::Any), token(1, 8, 3)).await;
    assert!(matches!(read_under(store.clone(), token(1, 7, 1)).await, FencedRead::Fenced(_)));
    done(&*store, &put("a", "unfenced", Precondition::Exact(Revision(1)))).await;
    assert_eq!(text(&*store, "a").await.as_deref(), Some("unfenced"), "a write without a lease goes by its revision");
}

/// The mark only ever grows.
pub async fn a_good_fence_raises_the_mark_even_where_the_precondition_fails<F: StoreFixture>() {
    let fixture = F::open().await;
    let store = fixture.store();
    done(&*store, &under(token(1, 5, 1), "x", Precondition::Absent)).await;
    let refused = refusal(&*store, &under(token(1, 9, 2), "y", Precondition::Absent)).await;
    assert!(matches!(refused, Refusal::Conflict(_)), "{refused:?}");
    assert_fenced(&*store, &under(token(1, 5, 1), "z", Precondition::Any), token(1, 9, 2)).await;
}

/// Each is higher than all before it, whoever asks.
pub async fn epochs_rise<F: StoreFixture>() {
    let fixture = F::open().await;
    let clients = [fixture.store(), fixture.second().await];
    let mut last = 0;
    for number in 0..6 {
        let epoch = clients[number % 2].mint_epoch(&context(), soon()).await.unwrap_or_else(|error| panic!("{error}"));
        assert!(epoch > last, "{epoch} does not come after {last}");
        last = epoch;
    }
}
