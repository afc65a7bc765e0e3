//! Leases that operators broke: what comes under them is refused, and who did it is written down.

use mutext_contract::{Claim, Fence, FencedRead, LeaseId, Mode, Outcome, Precondition, Refusal, Revocation};

use crate::StoreFixture;
use crate::support::{Scribe, agent, claim, fence, path, same, soon};

fn revocation(lease: LeaseId, reason: &str, claims: impl IntoIterator<Item = Claim>) -> Revocation {
    let (holder, by) = (Some(agent("anna")), agent("operator"));
    Revocation { lease, holder, claims: claims.into_iter().collect(), by, reason: reason.to_owned() }
}

async fn revoke(scribe: &Scribe, fence: &Fence, reason: &str) {
    let revocation = revocation(fence.token.owner, reason, [claim("plan.md", Mode::Exclusive)]);
    scribe.store.revoke(&scribe.context, &revocation, soon()).await.expect("a revocation without trouble");
}

/// A revoked lease writes no more, though nobody has held the lock since and the revision is right; another lease does.
pub async fn a_revoked_lease_writes_no_more(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    let (own, other) = (fence(1, 1), fence(1, 2));
    let put = |text: &str, precondition| anna.put("plan.md", text, precondition);
    anna.committed(&put("one", Precondition::Absent).fenced_by(own.clone())).await;
    revoke(&bert, &own, "it hangs").await;
    let exact = Precondition::Exact(mutext_contract::Revision(1));
    let several = put("two", exact).put(path("notes.md"), mutext_contract::Content::text("x"), Precondition::Any);
    for commit in [put("two", exact), put("two", Precondition::Any), several] {
        let refusal = anna.refused(&commit.fenced_by(own.clone())).await;
        let expected = Refusal::Revoked { by: agent("operator"), reason: "it hangs".to_owned() };
        same("the refusal", &refusal, &expected);
    }
    same("what is there", &anna.text("plan.md").await, &"one".to_owned());
    anna.committed(&put("three", exact).fenced_by(other)).await;
    anna.committed(&put("four", Precondition::Any)).await;
    // A lease is revoked in its context alone.
    let elsewhere = Scribe { context: crate::support::fresh_context(), ..bert };
    elsewhere.committed(&elsewhere.put("plan.md", "x", Precondition::Any).fenced_by(own)).await;
}

/// A revoked lease's reads raise no mark, and say who revoked it.
pub async fn a_revoked_lease_reads_no_more(fixture: &dyn StoreFixture) {
    let scribe = Scribe::one(fixture);
    let (own, older) = (fence(1, 9), fence(1, 1));
    scribe.overwrite("plan.md", "one").await;
    revoke(&scribe, &own, "it hangs").await;
    let read = scribe.store.read_fenced(&scribe.context, &path("plan.md"), &own, soon()).await;
    let expected = FencedRead::Revoked { by: agent("operator"), reason: "it hangs".to_owned() };
    same("the read", &read.expect("a read without trouble"), &expected);
    let read = scribe.store.read_fenced(&scribe.context, &path("plan.md"), &older, soon()).await;
    assert!(matches!(read, Ok(FencedRead::Read(Some(_)))), "expected an older token to be admitted; found {read:?}");
}

/// What was committed before under a key is told to a retry after the revocation.
pub async fn a_retry_of_what_a_revoked_lease_wrote_is_told(fixture: &dyn StoreFixture) {
    let scribe = Scribe::one(fixture);
    let own = fence(1, 1);
    let commit = scribe.put("plan.md", "one", Precondition::Absent).key(crate::support::key("once"));
    let commit = commit.fenced_by(own.clone());
    let first = scribe.committed(&commit).await;
    revoke(&scribe, &own, "it hangs").await;
    match scribe.send(&commit).await {
        Outcome::Committed(again) => {
            same("the same commit", &(again.cursor, again.replayed), &(first.cursor, true));
        }
        other @ Outcome::Refused(_) => panic!("expected the answer of before; found {other:?}"),
    }
}

/// All that were revoked are listed, newest first; of two revocations of one lease the first stands.
pub async fn revocations_are_listed_newest_first(fixture: &dyn StoreFixture) {
    let scribe = Scribe::one(fixture);
    let leases: Vec<LeaseId> = (0..3).map(|_| LeaseId::random()).collect();
    let odd = "why? \u{1F512} 'quoted' \n and % so";
    let claims = || [claim("a", Mode::Exclusive), claim("/", Mode::Shared)];
    let mut expected = Vec::new();
    for (number, lease) in leases.iter().enumerate() {
        let mut revocation = revocation(*lease, &format!("{odd} {number}"), claims());
        if number == 1 {
            (revocation.holder, revocation.claims) = (None, [].into());
        }
        scribe.store.revoke(&scribe.context, &revocation, soon()).await.expect("a revocation without trouble");
        expected.insert(0, revocation);
    }
    let again = revocation(leases[0], "again", []);
    scribe.store.revoke(&scribe.context, &again, soon()).await.expect("a revocation without trouble");
    let listed = async |limit| {
        let listed = scribe.store.revocations(&scribe.context, limit, soon()).await.expect("a list without trouble");
        listed.into_iter().map(|record| record.revocation).collect::<Vec<_>>()
    };
    same("all of them", &listed(9).await, &expected);
    same("the newest", &listed(2).await, &expected[..2].to_vec());
    let elsewhere = Scribe { context: crate::support::fresh_context(), ..scribe.clone() };
    let none = elsewhere.store.revocations(&elsewhere.context, 9, soon()).await.expect("a list without trouble");
    same("those of another context", &none, &Vec::new());
}
