//! What an operator sees.

use std::time::Duration;

use crate::LockFixture;
use crate::support::{AT_ONCE, Asker, LONG_TTL, same, served};

/// The table shows every lease and every waiter with holder, claims and reason, from any client; and nothing of
/// those who have gone.
pub async fn inspect_shows_holders_and_waiters(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    let table = anna.table().await;
    assert!(table.holdings.is_empty() && table.waiters.is_empty(), "expected an empty table; found {table:?}");

    let mut first = anna.request("plan.md", LONG_TTL);
    first.reason = Some("writing".to_owned());
    let lease = anna.granted(&first, Duration::ZERO).await.lease;
    let mut second = bert.request("plan.md", LONG_TTL);
    second.reason = Some("checking figures".to_owned());
    let waiting = bert.queue(&second).await;
    let carl = anna.beside("carl");
    let third = carl.request("plan.md", LONG_TTL);
    let last = carl.queue(&third).await;

    for asker in [&anna, &bert] {
        let table = asker.table().await;
        let [holding] = table.holdings.as_slice() else { panic!("expected one lease; found {table:?}") };
        same("the lease", &holding.lease, &lease.id());
        same("its holder", &holding.holder, &anna.holder);
        same("its claims", &holding.claims, first.claims());
        same("its token", &holding.token, &lease.token.number());
        same("its reason", &holding.reason, &first.reason);
        let (held_for, remaining) = (holding.held_for, holding.remaining);
        assert!(held_for < LONG_TTL / 2, "expected a lease of a moment ago; found one of {held_for:?} ago");
        assert!(
            remaining > LONG_TTL / 2 && remaining <= LONG_TTL,
            "expected nearly {LONG_TTL:?} to remain; found {remaining:?}"
        );
        let waiters: Vec<_> = table.waiters.iter().map(|waiter| (waiter.lease, &waiter.holder)).collect();
        same("the queue", &waiters, &vec![(second.lease, &bert.holder), (third.lease, &carl.holder)]);
        same("a waiter's claims", &table.waiters[0].claims, second.claims());
        same("a waiter's reason", &table.waiters[0].reason, &second.reason);
        let waited = table.waiters[0].waited;
        assert!(waited < LONG_TTL / 2, "expected a wait of a moment; found {waited:?}");
    }

    anna.release(lease.id()).await;
    let grant = served(waiting, AT_ONCE).await;
    bert.release(grant.lease.id()).await;
    let grant = served(last, AT_ONCE).await;
    carl.release(grant.lease.id()).await;
    let table = bert.table().await;
    assert!(table.holdings.is_empty() && table.waiters.is_empty(), "expected an empty table; found {table:?}");
}

/// The table shows the oldest grant first, also where the holder of a later grant had asked earlier.
pub async fn inspect_shows_the_oldest_grant_first(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    let first = anna.take("a", LONG_TTL).await;
    let waiting = bert.queue(&bert.request("a", LONG_TTL)).await;
    let between = anna.take("b", LONG_TTL).await;
    anna.release(first.id()).await;
    let last = served(waiting, AT_ONCE).await.lease;
    let table = anna.table().await;
    let found: Vec<_> = table.holdings.iter().map(|holding| holding.token).collect();
    same("the tokens of the leases as shown", &found, &vec![between.token.number(), last.token.number()]);
}
