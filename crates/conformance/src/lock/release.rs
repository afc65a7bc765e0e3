//! How a lease ends before its time: released by its holder, or revoked by an operator.

use mutext_contract::{LeaseId, Loss, Release, Renewal};

use crate::LockFixture;
use crate::support::{AT_ONCE, Asker, LONG, LONG_TTL, SHORT_TTL, eventually, same, served};

/// The first release ends the lease; every other one, and one of an id that never was, changes nothing and says so.
pub async fn release_is_idempotent(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    same("release of what never was", &anna.release(LeaseId::random()).await, &Release::NotHeld);
    let lease = anna.take("plan.md", LONG_TTL).await;
    same("the first release", &anna.release(lease.id()).await, &Release::Released);
    same("the second release", &anna.release(lease.id()).await, &Release::NotHeld);
    same("a release from another client", &bert.release(lease.id()).await, &Release::NotHeld);
    let renewal = anna.renew(&lease).await;
    assert!(matches!(renewal, Renewal::Lost(_)), "expected a released lease to be gone; found {renewal:?}");
    bert.take("plan.md", LONG_TTL).await;
}

/// A release that comes after another has been granted the lock does not touch the other's lease.
pub async fn a_late_release_harms_nobody(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    let old = anna.take("plan.md", SHORT_TTL).await;
    let new = bert.granted(&bert.request("plan.md", LONG_TTL), LONG).await.lease;
    same("the late release", &anna.release(old.id()).await, &Release::NotHeld);
    let carl = anna.beside("carl");
    let blocked = carl.refused(&carl.request("plan.md", LONG_TTL)).await;
    same("whose lease stands", &blocked.holdings.first().map(|holding| holding.lease), &Some(new.id()));
    let renewal = bert.renew(&new).await;
    assert!(matches!(renewal, Renewal::Renewed { .. }), "expected the new lease to be renewed; found {renewal:?}");
}

/// An operator breaks a lease, from its client or from another: the next waiter is served, the holder's renewal says
/// who and why, and where the engine pushes news the holder's client hears of it.
pub async fn a_revoked_lease_is_lost_and_its_holder_told(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    same("revocation of what never was", &bert.revoke(LeaseId::random(), "op", "why").await, &Release::NotHeld);
    let mut news = anna.locks.losses();
    for operator in [&bert, &anna] {
        let lease = anna.take("plan.md", LONG_TTL).await;
        let waiting = bert.queue(&bert.request("plan.md", LONG_TTL)).await;
        let revoked = operator.revoke(lease.id(), "operator", "it hangs, see ticket 17").await;
        same("the revocation", &revoked, &Release::Released);
        let next = served(waiting, AT_ONCE).await.lease;

        if let Some(news) = &mut news {
            let told = tokio::time::timeout(AT_ONCE, news.recv()).await;
            same("the news to the holder's client", &told.map_err(|_| "none came"), &Ok(Ok(lease.id())));
        }
        let loss =
            Loss::Revoked { by: crate::support::agent("operator"), reason: "it hangs, see ticket 17".to_owned() };
        same("the holder's renewal", &anna.renew(&lease).await, &Renewal::Lost(loss));
        same("the holder's release", &anna.release(lease.id()).await, &Release::NotHeld);
        same("the next one's release", &bert.release(next.id()).await, &Release::Released);
    }

    let held = anna.take("plan.md", LONG_TTL).await;
    let request = bert.request("plan.md", LONG_TTL);
    let waiting = bert.queue(&request).await;
    same("revocation of a waiter", &anna.revoke(request.lease, "operator", "enough").await, &Release::Released);
    let gone = || async { anna.table().await.waiters.is_empty().then_some(()) };
    eventually("the revoked waiter is gone", gone).await;
    waiting.abort();
    same("the holder was not touched", &anna.release(held.id()).await, &Release::Released);
}
