//! Renewal: a lease lasts as long as its holder renews it, and not longer than until another has it.

use std::time::Duration;

use mutext_contract::{Loss, Renewal};
use tokio::time::Instant;

use crate::LockFixture;
use crate::support::{Asker, LONG, LONG_TTL, SHORT_TTL, same};

/// A lease that is renewed in time outlasts its TTL, and each renewal moves its validity on.
pub async fn renewal_extends_the_lease(fixture: &dyn LockFixture) {
    const TTL: Duration = Duration::from_secs(1);
    let (anna, bert) = Asker::two(fixture).await;
    let lease = anna.take("plan.md", TTL).await;
    let begun = Instant::now();
    let waiting = bert.queue(&bert.request("plan.md", LONG_TTL)).await;
    let mut valid_until = lease.valid_until;
    while begun.elapsed() < TTL + TTL / 4 {
        tokio::time::sleep(TTL / 5).await;
        let asked = Instant::now();
        match anna.renew(&lease).await {
            Renewal::Renewed { valid_until: later } => {
                assert!(later > valid_until, "expected validity beyond {valid_until:?}; found {later:?}");
                assert!(later <= Instant::now() + TTL, "expected at most {TTL:?} from the question; found {later:?}");
                assert!(later >= asked + TTL / 2, "expected a full TTL again; found {:?}", later - asked);
                valid_until = later;
            }
            lost @ Renewal::Lost(_) => panic!("expected the lease to be renewed; found {lost:?}"),
        }
    }
    assert!(!waiting.is_finished(), "expected a renewed lease to exclude others beyond its first TTL");
    let table = bert.table().await;
    let holdings: Vec<_> = table.holdings.iter().map(|holding| (holding.lease, holding.token)).collect();
    same("who holds it, under which token", &holdings, &vec![(lease.id(), lease.token.number())]);
    anna.release(lease.id()).await;
    crate::support::served(waiting, LONG).await;
}

/// Once another has been granted the lock, the old lease cannot be renewed, also when the other has gone again; and
/// the attempt harms nobody.
pub async fn renewal_after_another_took_over_is_lost(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    let old = anna.take("plan.md", SHORT_TTL).await;
    let new = bert.granted(&bert.request("plan.md", LONG_TTL), LONG).await.lease;
    let lost = |renewal: &Renewal| matches!(renewal, Renewal::Lost(Loss::Expired | Loss::Superseded));
    let renewal = anna.renew(&old).await;
    assert!(lost(&renewal), "expected the old lease to be lost to another; found {renewal:?}");
    let table = anna.table().await;
    let holders: Vec<_> = table.holdings.iter().map(|holding| holding.lease).collect();
    same("who holds it", &holders, &vec![new.id()]);
    let renewal = bert.renew(&new).await;
    assert!(matches!(renewal, Renewal::Renewed { .. }), "expected the new lease to be renewed; found {renewal:?}");

    bert.release(new.id()).await;
    let renewal = anna.renew(&old).await;
    assert!(lost(&renewal), "expected the old lease to stay lost; found {renewal:?}");
    assert!(bert.could_take("plan.md").await, "expected the lock to be free; found {:?}", bert.table().await);
}
