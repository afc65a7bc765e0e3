//! Leases end: by their time, by release, by an operator.

use std::time::Duration;

use mutext_contract::{AgentName, Loss, Mode, Release, Renewal};
use tokio::time::Instant;

use crate::{LockFixture, context, exclusive, grant, pause, refused, release, request, soon};

const X: &[(&str, Mode)] = &[("x", Mode::Exclusive)];

/// What died holding a lock frees it when its time is out, and not before.
pub async fn an_expired_lease_is_granted_to_another<F: LockFixture>() {
    let fixture = F::open().await;
    grant(&*fixture.locks(), &request("a", X, 400), 0).await;
    let second = fixture.second().await;
    let asked = Instant::now();
    refused(&*second, &exclusive("b", "x"), 100).await;
    grant(&*second, &exclusive("b", "x"), 5_000).await;
    let waited = asked.elapsed();
    assert!(waited >= Duration::from_millis(300), "granted after {waited:?}, while the lease still stood");
    assert!(waited < Duration::from_millis(1_500), "granted only after {waited:?}");
}

/// The holder never believes longer than the service does.
pub async fn validity_never_outlives_the_lease<F: LockFixture>() {
    let fixture = F::open().await;
    for _ in 0..5 {
        let got = grant(&*fixture.locks(), &request("a", X, 150), 2_000).await;
        assert!(got.lease.valid_until <= Instant::now() + Duration::from_millis(150));
        let next = grant(&*fixture.locks(), &request("b", X, 150), 2_000).await;
        assert!(Instant::now() >= got.lease.valid_until, "another holds it while the first still believes");
        release(&*fixture.locks(), next.lease.id()).await;
    }
}

/// A renewed lease outlasts its first TTL.
pub async fn renewal_extends_the_lease<F: LockFixture>() {
    let fixture = F::open().await;
    let got = grant(&*fixture.locks(), &request("a", X, 500), 0).await;
    for _ in 0..4 {
        pause(200).await;
        let renewal = fixture.locks().renew(&got.lease, soon()).await.unwrap_or_else(|error| panic!("{error}"));
        let Renewal::Renewed { valid_until } = renewal else { panic!("{renewal:?}") };
        assert!(valid_until > Instant::now() && valid_until <= Instant::now() + Duration::from_millis(500));
        refused(&*fixture.locks(), &exclusive("b", "x"), 0).await;
    }
}

/// What another has taken is not renewed.
pub async fn renewal_after_another_took_over_is_lost<F: LockFixture>() {
    let fixture = F::open().await;
    let first = grant(&*fixture.locks(), &request("a", X, 100), 0).await;
    pause(150).await;
    let second = grant(&*fixture.locks(), &exclusive("b", "x"), 1_000).await;
    let renewal = fixture.locks().renew(&first.lease, soon()).await.unwrap_or_else(|error| panic!("{error}"));
    assert!(matches!(renewal, Renewal::Lost(_)), "{renewal:?}");
    let renewal = fixture.locks().renew(&second.lease, soon()).await.unwrap_or_else(|error| panic!("{error}"));
    assert!(matches!(renewal, Renewal::Renewed { .. }), "{renewal:?}");
}

/// A lapsed lease that nobody has taken revives, or is lost: as the engine declares.
pub async fn an_expired_lease_that_nobody_took_is_as_declared<F: LockFixture>() {
    let fixture = F::open().await;
    let locks = fixture.locks();
    let got = grant(&*locks, &request("a", X, 200), 0).await;
    pause(300).await;
    let renewal = locks.renew(&got.lease, soon()).await.unwrap_or_else(|error| panic!("{error}"));
    if locks.capabilities().revival {
        assert!(matches!(renewal, Renewal::Renewed { .. }), "{renewal:?}");
        refused(&*locks, &exclusive("b", "x"), 0).await;
    } else {
        assert!(matches!(renewal, Renewal::Lost(_)), "{renewal:?}");
        grant(&*locks, &exclusive("b", "x"), 1_000).await;
    }
}

/// Giving back twice is as good as once.
pub async fn release_is_idempotent<F: LockFixture>() {
    let fixture = F::open().await;
    let got = grant(&*fixture.locks(), &exclusive("a", "x"), 0).await;
    assert_eq!(release(&*fixture.locks(), got.lease.id()).await, Release::Released);
    assert_eq!(release(&*fixture.locks(), got.lease.id()).await, Release::NotHeld);
    assert_eq!(release(&*fixture.locks(), mutext_contract::LeaseId::random()).await, Release::NotHeld);
}

/// A release can only ever hit its own attempt.
pub async fn a_late_release_harms_nobody<F: LockFixture>() {
    let fixture = F::open().await;
    let first = grant(&*fixture.locks(), &request("a", X, 100), 0).await;
    pause(150).await;
    grant(&*fixture.locks(), &exclusive("b", "x"), 1_000).await;
    release(&*fixture.locks(), first.lease.id()).await;
    refused(&*fixture.locks(), &exclusive("c", "x"), 0).await;
}

/// An operator's word ends a lease; its holder learns who and why.
pub async fn a_revoked_lease_is_lost_and_its_holder_told<F: LockFixture>() {
    let fixture = F::open().await;
    let (locks, second) = (fixture.locks(), fixture.second().await);
    let mut losses = locks.losses();
    let got = grant(&*locks, &exclusive("a", "x"), 0).await;
    let by = AgentName::new("operator").unwrap_or_else(|error| panic!("{error}"));
    let revoked = second.revoke(&context(), got.lease.id(), &by, "it hangs", soon()).await;
    assert_eq!(revoked.unwrap_or_else(|error| panic!("{error}")), Release::Released);
    if let Some(losses) = &mut losses {
        let told = tokio::time::timeout(Duration::from_secs(2), losses.recv()).await;
        assert!(matches!(told, Ok(Ok(lease)) if lease == got.lease.id()), "{told:?}");
    }
    let renewal = locks.renew(&got.lease, soon()).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(renewal, Renewal::Lost(Loss::Revoked { by, reason: "it hangs".to_owned() }));
    grant(&*second, &exclusive("b", "x"), 0).await;
}
