//! Fencing tokens grow with every grant of a context, whatever happens in between.

use std::time::Duration;

use mutext_contract::{Deadline, FencingToken, Release, Renewal, TroubleKind};

use crate::LockFixture;
use crate::support::{AT_ONCE, Asker, LONG, LONG_TTL, SHORT_TTL, served};

fn rises(what: &str, tokens: &[FencingToken]) {
    for pair in tokens.windows(2) {
        let (before, after) = (pair[0].number(), pair[1].number());
        assert!(after > before, "{what}: expected a token above {before:?}; found {after:?}");
    }
}

/// Each grant has a higher token than all before it in the context: on the same resource and on others, from one
/// client and from another, also where several are granted at once.
pub async fn tokens_rise_with_every_grant(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    let mut tokens = Vec::new();
    for resource in ["a", "b", "a/b", "c", "a"] {
        for asker in [&anna, &bert] {
            let lease = asker.take(resource, LONG_TTL).await;
            tokens.push(lease.token);
            assert_eq!(asker.release(lease.id()).await, Release::Released, "release of {resource}");
        }
    }
    rises("one after the other", &tokens);
    let last = tokens.pop();

    let mut tasks = Vec::new();
    for number in 0..10 {
        let asker = if number % 2 == 0 { anna.clone() } else { bert.clone() };
        tasks.push(tokio::spawn(async move { asker.take(&format!("at-once-{number}"), LONG_TTL).await.token }));
    }
    let mut at_once: Vec<FencingToken> = last.into_iter().collect();
    for task in tasks {
        at_once.push(task.await.expect("the asker does not panic"));
    }
    at_once[1..].sort_by_key(FencingToken::number);
    rises("several at once, in the order of their numbers", &at_once);
}

/// A lease that runs out uses its token up.
pub async fn tokens_rise_across_expiry(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    let mut tokens = Vec::new();
    for _ in 0..2 {
        for asker in [&anna, &bert] {
            let grant = asker.granted(&asker.request("plan.md", SHORT_TTL), LONG).await;
            tokens.push(grant.lease.token);
        }
    }
    rises("across expiry", &tokens);
}

/// The counter does not begin again when every client has gone and a new one comes.
pub async fn tokens_rise_across_reopening(fixture: &dyn LockFixture) {
    let context = crate::support::fresh_context();
    let first = Asker::new(fixture.locks(), &context, "anna");
    let mut tokens = vec![];
    for resource in ["a", "b"] {
        let lease = first.take(resource, LONG_TTL).await;
        tokens.push(lease.token);
        first.release(lease.id()).await;
    }
    drop(first);
    fixture.vanish().await;
    let second = Asker::new(fixture.second_locks().await, &context, "bert");
    let grant = second.granted(&second.request("a", LONG_TTL), Duration::ZERO).await;
    tokens.push(grant.lease.token);
    rises("across reopening", &tokens);
}

/// Where documents have passed the tokens that are granted, the service is told: every later grant is of an epoch above
/// theirs, whoever is granted, also to those who wait already, and leases stand as they are.
pub async fn a_new_epoch_begins_above_what_documents_have_seen(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    let kept = anna.take("kept", LONG_TTL).await;
    let passed_on = anna.take("passed-on", LONG_TTL).await;
    let free = bert.take("free", LONG_TTL).await;
    assert_eq!(bert.release(free.id()).await, Release::Released, "release of what is free from then on");
    let waiting = bert.queue(&bert.request("passed-on", LONG_TTL)).await;

    let above = kept.token.epoch;
    let begin = async |asker: &Asker, above: u64| {
        let begun = asker.locks.begin_epoch(&asker.context, above, Deadline::after(LONG)).await;
        begun.expect("an epoch without trouble");
    };
    begin(&anna, above).await;
    bert.refused(&bert.request("kept", LONG_TTL)).await;
    assert!(matches!(anna.renew(&kept).await, Renewal::Renewed { .. }), "expected the lease to stand");
    assert_eq!(anna.release(passed_on.id()).await, Release::Released, "release of what others wait for");
    let served = served(waiting, AT_ONCE).await.lease;
    let mut epochs = vec![served.token.epoch];
    for (asker, resource) in [(&anna, "free"), (&bert, "new"), (&anna, "new/below")] {
        let lease = asker.take(resource, LONG_TTL).await;
        epochs.push(lease.token.epoch);
        asker.release(lease.id()).await;
    }
    // What was held when the epoch began is free one day.
    assert_eq!(anna.release(kept.id()).await, Release::Released, "release of what was held all the time");
    let again = bert.take("kept", LONG_TTL).await;
    epochs.push(again.token.epoch);
    assert!(epochs.iter().all(|epoch| *epoch > above), "expected epochs above {above}; found {epochs:?}");

    // Told again, it is as it is.
    for asker in [&anna, &bert] {
        begin(asker, above).await;
    }
    let after = bert.take("new", LONG_TTL).await;
    assert_eq!(after.token.epoch, again.token.epoch, "the epoch after being told the same again");
    assert!(after.token.number() > again.token.number(), "{} after {}", after.token, again.token);
    begin(&bert, after.token.epoch).await;
    let last = anna.take("free", LONG_TTL).await;
    assert!(last.token.epoch > after.token.epoch, "{} after {}", last.token, after.token);

    // An epoch that was never begun here: a quorum that does not know it has gone back. One server alone may as well be
    // the one that was replaced, and begins none.
    let ahead = last.token.epoch + 1_000;
    let told = anna.locks.begin_epoch(&anna.context, ahead, Deadline::after(LONG)).await;
    let next = bert.take("later", LONG_TTL).await.token.epoch;
    match told {
        Ok(()) => assert!(next > ahead, "expected an epoch above {ahead}; found {next}"),
        Err(error) => {
            assert!(
                matches!(error.kind, TroubleKind::Misconfigured(_)),
                "expected an error of the set-up; found {error}"
            );
            assert_eq!(next, last.token.epoch, "the epoch after {error}");
        }
    }
}
