//! Fencing tokens grow with every grant of a context, whatever happens in between.

use std::time::Duration;

use mutext_contract::{Acquisition, Deadline, FencingToken, Release, Renewal, TroubleKind};

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

/// A lease with tokens to spare has those that follow its own; whoever is granted anything next has one above them. Who
/// queued for it has none to spare, and neither has anybody where the engine tells no holder that its lease is wanted.
pub async fn tokens_to_spare_are_nobody_elses(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    let mut request = anna.request("plan.md", LONG_TTL);
    request.spare = 5;
    let grant = anna.granted(&request, LONG).await;
    let tells = anna.locks.wanted().is_some();
    assert_eq!(
        grant.spare,
        if tells { 5 } else { 0 },
        "tokens to spare of an engine that tells who wants them: {tells}"
    );
    let (epoch, first) = grant.lease.token.number();
    let other = bert.take("other", LONG_TTL).await.token.number();
    assert!(
        other > (epoch, first + u64::from(grant.spare)),
        "{other:?} was granted after {first} and {} more",
        grant.spare
    );

    let mut next = bert.request("plan.md", LONG_TTL);
    next.spare = 5;
    let waiting = bert.queue(&next).await;
    assert_eq!(anna.release(request.lease).await, Release::Released);
    let handed_over = served(waiting, LONG).await;
    assert!(handed_over.lease.token.number() > other);
    assert_eq!(handed_over.spare, 0, "somebody had to wait for this very lease");
    let (anna, more) = (anna.take("more", LONG_TTL).await.token.number(), handed_over.lease.token.number());
    assert!(anna > more, "{anna:?} was granted after {more:?}");
}

/// Whoever holds a lease with tokens to spare is told when somebody queues for it, and when somebody tries for it
/// without waiting; such a try has the lock where it is given back thereupon. Nobody is told of an ordinary lease.
pub async fn whoever_has_tokens_to_spare_is_told_who_wants_the_lease(fixture: &dyn LockFixture) {
    let (anna, bert) = Asker::two(fixture).await;
    let Some(mut wanted) = anna.locks.wanted() else { return };
    anna.take("tasks/1", LONG_TTL).await;
    bert.refused(&bert.request("tasks/1", LONG_TTL)).await;

    let mut request = anna.request("tasks/2", LONG_TTL);
    request.spare = 5;
    anna.granted(&request, LONG).await;
    let waiting = bert.queue(&bert.request("tasks/2", LONG_TTL)).await;
    let told = tokio::time::timeout(AT_ONCE, wanted.recv()).await;
    assert!(matches!(told, Ok(Ok(lease)) if lease == request.lease), "told of {told:?}, not of {}", request.lease);
    assert_eq!(anna.release(request.lease).await, Release::Released);
    let grant = served(waiting, LONG).await;
    assert_eq!(bert.release(grant.lease.id()).await, Release::Released);

    // A try that is answered late may find it in use still, and is told so; another one follows then.
    let served = async {
        loop {
            let mut request = anna.request("tasks/3", LONG_TTL);
            request.spare = 5;
            anna.granted(&request, LONG).await;
            let above = bert.request("tasks/", LONG_TTL);
            let (asked, given_back) = tokio::join!(bert.ask(&above, Duration::ZERO), async {
                while wanted.recv().await.is_ok_and(|lease| lease != request.lease) {}
                anna.release(request.lease).await
            });
            assert_eq!(given_back, Release::Released);
            match asked {
                Acquisition::Granted(_) => break,
                Acquisition::TimedOut(blocked) => {
                    assert!(!blocked.holdings.is_empty(), "a try that was refused names who holds the lease");
                }
                other => panic!("expected a grant or a refusal; found {other:?}"),
            }
        }
    };
    // "tasks/1" stands in the way of all of it.
    let table = anna.table().await;
    for holding in &table.holdings {
        anna.release(holding.lease).await;
    }
    assert!(tokio::time::timeout(LONG, served).await.is_ok(), "no try was served though its lease was given back");
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
