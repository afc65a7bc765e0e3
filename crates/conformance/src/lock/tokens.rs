//! Fencing tokens grow with every grant of a context, whatever happens in between.

use std::time::Duration;

use mutext_contract::{FencingToken, Release};

use crate::LockFixture;
use crate::support::{Asker, LONG, LONG_TTL, SHORT_TTL};

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
