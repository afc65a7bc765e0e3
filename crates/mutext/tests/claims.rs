//! Claims of elements of a board: one holder each, for as long as its lease stands; on embedded engines and on servers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Duration;

use common::{PROMPTLY, Store, eventually, poll_then_drop, settings};
use mutext::{
    Address, BoardError, ClaimAnswer, Claimed, Claiming, Content, Context, Edit, Error, Loss, Mutext, NoneFree,
    Precondition, Standing, Ttl,
};
use mutext_testbed::{PostgresServer, RedisServer};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// They end with the process: nothing drops them.
static SERVERS: OnceLock<(PostgresServer, RedisServer)> = OnceLock::new();

/// Documents and locks of one test.
struct Place {
    /// Documents and locks, where there are no servers for them.
    store: Store,
    servers: Option<(Address, Address)>,
    name: String,
}

impl Place {
    fn new(on_servers: bool) -> Self {
        let name = format!("c-{:016x}", rand::random::<u64>());
        let servers = on_servers.then(|| {
            let start = || (PostgresServer::start().unwrap(), RedisServer::start().unwrap());
            let (postgres, redis) = SERVERS.get_or_init(start);
            (postgres.url().parse().unwrap(), format!("{}?prefix={name}", redis.url()).parse().unwrap())
        });
        Self { store: Store::new(), servers, name }
    }

    /// An agent with an opening of its own, as good as another process.
    async fn agent(&self, name: &str) -> Context {
        let mutext = match &self.servers {
            Some((store, locks)) => Mutext::open(store, Some(locks)).await,
            None => Mutext::open(&self.store.address(), None).await,
        };
        mutext.unwrap().context(self.name.as_str(), settings(name)).unwrap()
    }
}

macro_rules! on_each {
    ($($name:ident)*) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn embedded() {
                super::$name(&super::Place::new(false)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn servers() {
                super::$name(&super::Place::new(true)).await;
            }
        }
    )*};
}

on_each! {
    of_any_number_of_claimants_one_has_the_element
    many_claimants_get_an_element_each
    a_claim_that_is_dropped_leaves_its_element_to_the_next
    what_is_completed_is_changed_and_never_claimed_again
    what_is_handed_back_is_claimed_by_others
    whoever_was_revoked_completes_nothing
    whoever_was_taken_over_changes_nothing
    a_claim_under_the_same_key_has_the_same_element
    a_claim_dropped_at_any_point_leaves_nothing_that_lasts
    what_cannot_be_claimed_says_why
    items_of_markdown_are_claimed
    a_held_element_does_not_hinder_locks_on_its_document
    whoever_lost_its_claim_is_told
}

async fn board(agent: &Context, tasks: &[Value]) {
    let board = Content::json(&json!({"title": "board", "tasks": tasks})).unwrap();
    agent.put("board.json", board, Precondition::Absent).await.unwrap();
}

async fn tasks(agent: &Context) -> Vec<Value> {
    let board: Value = agent.get("board.json").await.unwrap().unwrap().content.parse().unwrap();
    board["tasks"].as_array().unwrap().clone()
}

fn edit(edit: Value) -> Edit {
    serde_json::from_value(edit).unwrap()
}

async fn claimed(agent: &Context) -> Claimed {
    let answer = agent.claim("board.json", "/tasks").await.unwrap();
    answer.claimed().unwrap_or_else(|| panic!("nothing is free for {}", agent.agent()))
}

async fn none_free(agent: &Context) -> NoneFree {
    match agent.claim("board.json", "/tasks").await.unwrap() {
        ClaimAnswer::NoneFree(none) => none,
        other => panic!("{other:?}"),
    }
}

/// Ready once the agent has got something; long before any TTL.
async fn soon_claimed(agent: &Context) -> Claimed {
    let claim = async {
        loop {
            if let Some(claimed) = agent.claim("board.json", "/tasks").await.unwrap().claimed() {
                return claimed;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PROMPTLY, claim).await.expect("it never came free")
}

async fn of_any_number_of_claimants_one_has_the_element(place: &Place) {
    board(&place.agent("founder").await, &[json!({"id": 1})]).await;
    let mut claimants = JoinSet::new();
    for number in 0..8 {
        let agent = place.agent(&format!("a{number}")).await;
        claimants.spawn(async move { agent.claim("board.json", "/tasks").await.unwrap() });
    }
    let answers = claimants.join_all().await;
    let winners: Vec<_> = answers.iter().filter(|answer| matches!(answer, ClaimAnswer::Claimed(_))).collect();
    assert_eq!(winners.len(), 1, "{answers:?}");
    let none = none_free(&place.agent("late").await).await;
    let [held] = &none.held[..] else { panic!("{none:?}") };
    let ClaimAnswer::Claimed(winner) = winners[0] else { unreachable!() };
    assert_eq!(held.element.mark().unwrap().by, winner.agent().as_str());
    assert!(none.soonest.unwrap() <= Ttl::DEFAULT.get() && none.soonest.unwrap() > Duration::ZERO);
    assert!(none.to_string().contains(&format!("{} has /tasks/0; ask again within", winner.agent())), "{none}");
}

async fn many_claimants_get_an_element_each(place: &Place) {
    let elements: Vec<_> = (0..6).map(|id| json!({"id": id})).collect();
    board(&place.agent("founder").await, &elements).await;
    let mut claimants = JoinSet::new();
    for number in 0..6 {
        let agent = place.agent(&format!("a{number}")).await;
        claimants.spawn(async move { claimed(&agent).await });
    }
    let all = claimants.join_all().await;
    let had: BTreeSet<_> = all.iter().map(|claimed| claimed.element().index).collect();
    assert_eq!(had.len(), 6);
    let leases: BTreeSet<_> = all.iter().map(|claimed| claimed.element().mark().unwrap().lease.clone()).collect();
    assert_eq!(leases.len(), 6);
}

async fn a_claim_that_is_dropped_leaves_its_element_to_the_next(place: &Place) {
    let (amber, blue) = (place.agent("amber").await, place.agent("blue").await);
    board(&amber, &[json!({"id": 1}), json!({"id": 2})]).await;
    let first = claimed(&amber).await;
    assert_eq!((first.element().index, first.attempt()), (0, 1));
    drop(first);
    let again = soon_claimed(&blue).await;
    // The first of the board comes first, once its lease has gone back.
    let again = if again.element().index == 0 { again } else { soon_claimed(&blue).await };
    assert_eq!((again.element().index, again.attempt()), (0, 2));
    let capped = amber.claim("board.json", "/tasks").matching(json!({"id": 1})).attempts_max(2).await.unwrap();
    let ClaimAnswer::NoneFree(none) = capped else { panic!("{capped:?}") };
    assert!(none.held.is_empty() && none.soonest.is_none(), "it was tried often enough");
}

async fn what_is_completed_is_changed_and_never_claimed_again(place: &Place) {
    let agent = place.agent("amber").await;
    board(&agent, &[json!({"id": 1, "s": "open"})]).await;
    let begin = edit(json!({"merge_patch": {"s": "doing"}}));
    let claim = agent.claim("board.json", "/tasks").matching(json!({"s": "open"})).with([begin]).reason("work");
    let mut task = claim.await.unwrap().claimed().unwrap();
    assert_eq!(task.content().as_str(), r#"{"id":1,"s":"doing"}"#);
    assert_eq!(tasks(&agent).await[0]["s"], "doing");
    let log = edit(json!({"add": {"pointer": "/log", "item": "half"}}));
    task.edit(&[log]).await.unwrap();
    let done = edit(
        json!({"patch": [{"op": "test", "path": "/log/0", "value": "half"}, {"op": "replace", "path": "/s", "value": "done"}]}),
    );
    let revision = task.complete(std::slice::from_ref(&done)).await.unwrap();
    assert_eq!(task.complete(&[done]).await.unwrap(), revision, "a second time it changes nothing");
    let after = tasks(&agent).await;
    assert_eq!(after[0]["s"], "done");
    assert_eq!((&after[0]["claim"]["state"], &after[0]["claim"]["by"]), (&json!("done"), &json!("amber")));
    drop(task);
    assert!(none_free(&agent).await.held.is_empty());
    let messages: Vec<_> =
        agent.history("board.json", None, 9).await.unwrap().into_iter().map(|past| past.message).collect();
    assert_eq!(
        messages.iter().flatten().map(String::as_str).collect::<Vec<_>>(),
        ["claim completed", "change of a claimed element", "work"]
    );
}

async fn what_is_handed_back_is_claimed_by_others(place: &Place) {
    let (amber, blue) = (place.agent("amber").await, place.agent("blue").await);
    board(&amber, &[json!({"id": 1})]).await;
    let mut task = claimed(&amber).await;
    task.hand_back(&[edit(json!({"merge_patch": {"note": "too hard"}}))]).await.unwrap();
    let next = claimed(&blue).await;
    assert_eq!((next.attempt(), next.content().as_str()), (2, r#"{"id":1,"note":"too hard"}"#));
    assert!(matches!(task.complete(&[]).await, Err(Error::LeaseLost { .. })), "it is not amber's any more");
    assert_eq!(tasks(&blue).await[0]["claim"]["by"], "blue");
}

async fn whoever_was_revoked_completes_nothing(place: &Place) {
    let (amber, operator) = (place.agent("amber").await, place.agent("operator").await);
    board(&amber, &[json!({"id": 1})]).await;
    let mut task = claimed(&amber).await;
    operator.revoke(task.guard().lease().id(), "wrong task").await.unwrap();
    let before = operator.get("board.json").await.unwrap().unwrap();
    match task.complete(&[]).await {
        Err(Error::LeaseLost { loss: Loss::Revoked { by, reason }, .. }) => {
            assert_eq!((by.as_str(), reason.as_str()), ("operator", "wrong task"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(operator.get("board.json").await.unwrap().unwrap(), before);
    assert_eq!(claimed(&operator).await.attempt(), 2, "it is free at once");
}

async fn whoever_was_taken_over_changes_nothing(place: &Place) {
    let (amber, blue) = (place.agent("amber").await, place.agent("blue").await);
    board(&amber, &[json!({"id": 1})]).await;
    let mut task = claimed(&amber).await;
    blue.revoke(task.guard().lease().id(), "mine").await.unwrap();
    let mut next = claimed(&blue).await;
    let before = tasks(&blue).await;
    for result in [task.edit(&[]).await, task.complete(&[]).await, task.hand_back(&[]).await] {
        assert!(matches!(result, Err(Error::LeaseLost { .. })), "{result:?}");
    }
    drop(task);
    assert_eq!(tasks(&blue).await, before);
    next.complete(&[]).await.unwrap();
}

async fn a_claim_under_the_same_key_has_the_same_element(place: &Place) {
    let (amber, twin) = (place.agent("amber").await, place.agent("amber").await);
    board(&amber, &[json!({"id": 1}), json!({"id": 2})]).await;
    let claim = |agent: &Context| {
        let agent = agent.clone();
        let key = "intention-1".try_into().unwrap();
        async move { agent.claim("board.json", "/tasks").key(key).await.unwrap() }
    };
    let mut lost = claim(&amber).await.claimed().unwrap();
    // The answer was lost, and somebody asks again, before or after the first one's lease is gone.
    let mut task = claim(&twin).await.claimed().unwrap();
    assert_eq!((task.element().index, task.attempt()), (0, 1));
    assert!(matches!(lost.complete(&[]).await, Err(Error::LeaseLost { .. })), "the later claim has it");
    drop(lost);
    assert_eq!(claimed(&amber).await.element().index, 1, "without the key it is another claim");
    task.complete(&[]).await.unwrap();
    let settled = claim(&amber).await;
    assert!(matches!(&settled, ClaimAnswer::Settled(element) if element.index == 0), "{settled:?}");
}

async fn a_claim_dropped_at_any_point_leaves_nothing_that_lasts(place: &Place) {
    let (amber, blue) = (place.agent("amber").await, place.agent("blue").await);
    board(&amber, &[json!({"id": 1})]).await;
    for polls in 0..24 {
        let pause = Duration::from_micros(400);
        drop(poll_then_drop(amber.claim("board.json", "/tasks").into_future(), polls, pause).await);
        let mut task = soon_claimed(&blue).await;
        task.hand_back(&[]).await.unwrap();
        drop(task);
    }
    // A commit under way when it was dropped may come yet; nothing of it lasts.
    drop(soon_claimed(&blue).await);
    eventually("no lease is left", async || blue.locks().await.unwrap().holdings.is_empty()).await;
}

async fn refused(claim: Claiming<'_>) -> Error {
    claim.await.unwrap_err()
}

async fn what_cannot_be_claimed_says_why(place: &Place) {
    let agent = place.agent("amber").await;
    let Error::Board { why, .. } = refused(agent.claim("board.json", "/tasks")).await else { panic!("no board") };
    assert!(matches!(*why, BoardError::NoDocument));
    board(&agent, &[json!({"id": 1})]).await;
    let error = refused(agent.claim("board.json", "/task")).await.to_string();
    assert!(error.contains("board.json") && error.contains("an object with title, tasks"), "{error}");
    let error = refused(agent.claim("board.json", "/tasks").matching(json!(7))).await.to_string();
    assert!(error.contains("the number 7 is no condition"), "{error}");
    assert!(matches!(refused(agent.claim("/board", "")).await, Error::InvalidName(_)));
    let bad = edit(json!({"increment": {"pointer": "/id/x"}}));
    let error = refused(agent.claim("board.json", "/tasks").with([bad])).await.to_string();
    assert!(error.contains("\"/id\" cannot have members"), "{error}");
    assert_eq!(tasks(&agent).await, [json!({"id": 1})]);
}

async fn items_of_markdown_are_claimed(place: &Place) {
    let agent = place.agent("amber").await;
    let plan = "# Plan\n\n- [x] think\n- [ ] write the docs\n- [ ] test\n";
    agent.put("plan.md", plan, Precondition::Absent).await.unwrap();
    let mut docs = agent.claim("plan.md", "Plan").matching("docs").await.unwrap().claimed().unwrap();
    assert_eq!((docs.element().at.as_str(), docs.content().as_str()), ("4", "write the docs"));
    let mut test = agent.claim("plan.md", "").await.unwrap().claimed().unwrap();
    docs.complete(&[]).await.unwrap();
    test.hand_back(&[]).await.unwrap();
    let text = agent.get("plan.md").await.unwrap().unwrap().content;
    let lines: Vec<_> = text.as_str().lines().map(|line| line.split(" <!--").next().unwrap()).collect();
    assert_eq!(lines, ["# Plan", "", "- [x] think", "- [x] write the docs", "- [ ] test"]);
}

async fn a_held_element_does_not_hinder_locks_on_its_document(place: &Place) {
    let (amber, blue) = (place.agent("amber").await, place.agent("blue").await);
    board(&amber, &[json!({"id": 1})]).await;
    let mut task = claimed(&amber).await;
    let guard = blue.lock("board.json").await.unwrap();
    let under_lease = guard.get("board.json").await.unwrap().unwrap();
    task.edit(&[edit(json!({"merge_patch": {"n": 1}}))]).await.unwrap();
    match guard.put("board.json", under_lease.content).await {
        Err(Error::Conflict(_)) => {}
        other => panic!("the claim wrote in between: {other:?}"),
    }
    guard.release().await.unwrap();
    task.complete(&[]).await.unwrap();
}

async fn whoever_lost_its_claim_is_told(place: &Place) {
    let (amber, blue) = (place.agent("amber").await, place.agent("blue").await);
    board(&amber, &[json!({"id": 1})]).await;
    let task = amber.claim("board.json", "/tasks").ttl(Ttl::new(Duration::from_millis(600)).unwrap());
    let task = task.await.unwrap().claimed().unwrap();
    assert!(matches!(task.element().standing, Standing::Held(_)) && task.guard().is_held());
    let lease = task.guard().lease().id();
    let told = tokio::spawn(async move { task.lost().await });
    blue.revoke(lease, "enough").await.unwrap();
    let loss = tokio::time::timeout(Duration::from_secs(10), told).await.unwrap().unwrap();
    assert!(matches!(loss, Loss::Revoked { .. } | Loss::Expired), "{loss:?}");
}
