//! Fencing tokens only ever grow.

use mutext_contract::FencingToken;

use crate::{LockFixture, exclusive, grant, pause, release, request};

fn assert_rises(earlier: FencingToken, later: FencingToken) {
    assert!(later.number() > earlier.number(), "{later} does not come after {earlier}");
}

/// Over the whole context: whatever the resource, and whether or not the earlier one is still held.
pub async fn tokens_rise_with_every_grant<F: LockFixture>() {
    let fixture = F::open().await;
    let locks = fixture.locks();
    let mut last = grant(&*locks, &exclusive("a", "first"), 0).await.lease.token;
    for round in 0..20 {
        let got = grant(&*locks, &exclusive("a", &format!("r{}", round % 3)), 0).await.lease;
        assert_rises(last, got.token);
        last = got.token;
        release(&*locks, got.id()).await;
    }
}

/// Also where the earlier holder never gave its lease back.
pub async fn tokens_rise_across_expiry<F: LockFixture>() {
    let fixture = F::open().await;
    let short = request("a", &[("x", mutext_contract::Mode::Exclusive)], 100);
    let first = grant(&*fixture.locks(), &short, 0).await;
    pause(150).await;
    let second = grant(&*fixture.locks(), &exclusive("b", "x"), 1_000).await;
    assert_rises(first.lease.token, second.lease.token);
}

/// Also from one client to the other, and after the first has gone.
pub async fn tokens_rise_across_clients<F: LockFixture>() {
    let fixture = F::open().await;
    let first = grant(&*fixture.locks(), &exclusive("a", "x"), 0).await;
    let second = fixture.second().await;
    let other = grant(&*second, &exclusive("b", "y"), 0).await;
    assert_rises(first.lease.token, other.lease.token);
    drop(second);
    let third = fixture.second().await;
    assert_rises(other.lease.token, grant(&*third, &exclusive("c", "z"), 0).await.lease.token);
}
