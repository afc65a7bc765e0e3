//! What happens when a lease's time runs out.

use std::time::Duration;

use mutext_contract::{Lease, Loss, Renewal};
use tokio::time::Instant;

use crate::LockFixture;
use crate::support::{AT_ONCE, Asker, LONG, LONG_TTL, SHORT_TTL, same, served};

/// A waiter is granted what an expired lease held: not before it expired, and soon after.
pub async fn an_expired_lease_is_granted_to_another(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    for taker in [anna.beside("carl"), bert] {
        let asked = Instant::now();
        let lease = anna.take("plan.md", SHORT_TTL).await;
        let grant = taker.granted(&taker.request("plan.md", LONG_TTL), LONG).await;
        let waited = asked.elapsed();
        assert!(grant.queued, "expected the lock to be held at first; found {grant:?}");
        assert!(waited >= SHORT_TTL, "expected the lease to last {SHORT_TTL:?}; it was passed on after {waited:?}");
        assert!(waited < SHORT_TTL + AT_ONCE, "expected expiry after {SHORT_TTL:?}; it took {waited:?}");
        same("who holds it now", &taker.table().await.holdings[0].lease, &grant.lease.id());
        assert_ne!(grant.lease.id(), lease.id(), "expected a lease of its own");
        taker.release(grant.lease.id()).await;
    }
}

/// However a lease was come by (granted, renewed, granted after queueing), its holder stops believing in it before
/// the service grants it to another.
pub async fn validity_never_outlives_the_service(fixture: &dyn LockFixture) {
    const TTL: Duration = Duration::from_millis(300);
    let (anna, bert) = Asker::two(fixture).await;
    let passed_on = async |what: &str, lease: Lease, asked: Instant| {
        let valid_until = lease.valid_until;
        assert!(
            valid_until >= asked + TTL / 2,
            "{what}: expected a lease of use for most of {TTL:?}; it is valid for {:?}",
            valid_until.saturating_duration_since(asked)
        );
        let next = bert.granted(&bert.request("plan.md", LONG_TTL), LONG).await.lease;
        let at = Instant::now();
        assert!(
            valid_until <= at,
            "{what}: expected the holder to stop believing by the next grant; it goes on for {:?}",
            valid_until.saturating_duration_since(at)
        );
        bert.release(next.id()).await;
    };

    let asked = Instant::now();
    passed_on("granted at once", anna.take("plan.md", TTL).await, asked).await;

    let mut lease = anna.take("plan.md", TTL).await;
    let asked = Instant::now();
    match anna.renew(&lease).await {
        Renewal::Renewed { valid_until } => lease.valid_until = valid_until,
        lost @ Renewal::Lost(_) => panic!("expected the lease to be renewed; found {lost:?}"),
    }
    passed_on("renewed", lease, asked).await;

    let first = bert.take("plan.md", LONG_TTL).await;
    let waiting = anna.queue(&anna.request("plan.md", TTL)).await;
    let asked = Instant::now();
    bert.release(first.id()).await;
    let grant = served(waiting, AT_ONCE).await;
    assert!(grant.queued, "expected a grant after queueing to say so; found {grant:?}");
    passed_on("granted after queueing", grant.lease, asked).await;
}

/// A lapsed lease that nobody has taken: an engine that declares revival renews it under its old token, and it
/// excludes others again; any other engine says that it is lost, and the lock is free.
pub async fn an_expired_lease_that_nobody_took(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    let lease = anna.take("plan.md", Duration::from_millis(500)).await;
    anna.until_lapsed(lease.id()).await;
    let asked = Instant::now();
    let renewal = anna.renew(&lease).await;
    if anna.locks.capabilities().revival {
        let Renewal::Renewed { valid_until } = renewal else {
            panic!("expected a lapsed lease that nobody took to be revived; found {renewal:?}");
        };
        assert!(valid_until > asked, "expected a revived lease to be valid again; found {valid_until:?} at {asked:?}");
        let table = bert.table().await;
        let revived = table.holdings.iter().find(|holding| holding.lease == lease.id());
        same("the revived lease's token", &revived.map(|holding| holding.token), &Some(lease.token.number()));
        let next = bert.granted(&bert.request("plan.md", LONG_TTL), LONG).await;
        assert!(
            Instant::now() >= valid_until,
            "expected a revived lease to exclude others until {valid_until:?}; found {next:?}"
        );
    } else {
        same("the renewal of a lapsed lease", &renewal, &Renewal::Lost(Loss::Expired));
        bert.take("plan.md", LONG_TTL).await;
    }
}
