//! Do fencing tokens grow? Two invariants: grants that follow one another, and revisions of one
//! document.
//!
//! Tokens are recorded here as plain numbers and text, so that the checkers share no code, and no
//! mistake, with the locks that they judge.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};

/// A fencing token as it was handed out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Token {
    /// The epoch of the numbers: a new one begins when a lock engine has lost its memory.
    pub epoch: u64,
    /// The counter in the epoch.
    pub counter: u64,
    /// Whom it was given to.
    pub owner: String,
}

impl Token {
    /// What tokens are ordered by. The owner is no part of it.
    pub fn number(&self) -> (u64, u64) {
        (self.epoch, self.counter)
    }

    /// Whether a document that `other` wrote must refuse this one: its number is lower, or equal
    /// and somebody else's. The holder's own second write is not behind its first.
    pub fn is_behind(&self, other: &Self) -> bool {
        self.number() < other.number() || (self.number() == other.number() && self.owner != other.owner)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} of {}", self.epoch, self.counter, self.owner)
    }
}

/// One answer to a request for a lock: the token, and the interval in which it was given.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grant {
    /// The token granted.
    pub token: Token,
    /// What was locked.
    pub resource: String,
    /// When the lock was asked for.
    pub asked: u64,
    /// When the grant was in the hands of the process that asked.
    pub answered: u64,
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}, {}]", self.token, self.asked, self.answered)
    }
}

/// Two grants that no sound lock gives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum GrantViolation {
    /// A lock asked for after another was granted came with a number that is not higher.
    #[error("tokens did not grow: {later} was asked for after {earlier} had been granted")]
    NotGrowing {
        /// The grant with the highest number among those answered before the later one was asked.
        earlier: Grant,
        /// The grant whose number is not higher.
        later: Grant,
    },
    /// Two owners were given the same number.
    #[error("one number, two owners: {first} and {second}")]
    Shared {
        /// The grant answered first.
        first: Grant,
        /// The grant with the same number and another owner.
        second: Grant,
    },
}

/// What is wrong with the tokens of these grants, all of one context.
///
/// Numbers grow from one grant of a resource to the next. Of different resources nothing is demanded but that their
/// numbers differ: a lease that stays with its holder has numbers that were set aside when it was granted first. Of grants that were under way at the same time nothing is demanded but that their numbers
/// differ. Each grant is reported at most once as not growing, against the highest before it, and
/// at most once as sharing its number, against the first that had it.
pub fn check_grants(grants: &[Grant]) -> Vec<GrantViolation> {
    let mut resources = BTreeMap::<&str, Vec<&Grant>>::new();
    for grant in grants {
        resources.entry(&grant.resource).or_default().push(grant);
    }
    let mut found: Vec<_> = resources.into_values().flat_map(not_growing).collect();
    found.extend(shared(grants));
    found
}

/// Of one resource.
fn not_growing(grants: Vec<&Grant>) -> Vec<GrantViolation> {
    let mut by_asked = grants.clone();
    by_asked.sort_by_key(|grant| grant.asked);
    let mut by_answered = grants;
    by_answered.sort_by_key(|grant| grant.answered);
    let mut answered = by_answered.into_iter().peekable();
    let mut highest: Option<&Grant> = None;
    let mut found = Vec::new();
    for later in by_asked {
        while let Some(grant) = answered.next_if(|grant| grant.answered < later.asked) {
            if highest.is_none_or(|highest| grant.token.number() > highest.token.number()) {
                highest = Some(grant);
            }
        }
        if let Some(earlier) = highest.filter(|earlier| later.token.number() <= earlier.token.number()) {
            found.push(GrantViolation::NotGrowing { earlier: earlier.clone(), later: later.clone() });
        }
    }
    found
}

fn shared(grants: &[Grant]) -> Vec<GrantViolation> {
    let mut by_answered: Vec<_> = grants.iter().collect();
    by_answered.sort_by_key(|grant| grant.answered);
    let mut firsts = HashMap::<(u64, u64), &Grant>::new();
    let mut found = Vec::new();
    for second in by_answered {
        let first = *firsts.entry(second.token.number()).or_insert(second);
        if first.token.owner != second.token.owner {
            found.push(GrantViolation::Shared { first: first.clone(), second: second.clone() });
        }
    }
    found
}

/// One committed revision of a document, and the token that came with the commit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Written {
    /// The document.
    pub path: String,
    /// The revision that the commit made.
    pub revision: u64,
    /// The fencing token of the commit; `None` for one without a fence, of which nothing is
    /// demanded.
    pub token: Option<Token>,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revision {} of \"{}\"", self.revision, self.path)?;
        match &self.token {
            Some(token) => write!(f, " by {token}"),
            None => f.write_str(" without a token"),
        }
    }
}

/// Two committed revisions that no sound store lets through.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum WrittenViolation {
    /// A stale write: its token is behind one that had written the document before.
    #[error("tokens went back: {later} came after {earlier}")]
    WentBack {
        /// The revision with the highest token before the later one.
        earlier: Written,
        /// The revision whose token is behind.
        later: Written,
    },
    /// Two acknowledged commits made the same revision, so one of them is gone.
    #[error("one revision, two commits: {first} and {second}")]
    Twice {
        /// One commit.
        first: Written,
        /// The other.
        second: Written,
    },
}

/// What is wrong with the tokens along the revisions of each document.
///
/// Give each acknowledged commit once: a revision listed twice counts as two commits.
pub fn check_written(written: &[Written]) -> Vec<WrittenViolation> {
    let mut documents = BTreeMap::<&str, Vec<&Written>>::new();
    for revision in written {
        documents.entry(&revision.path).or_default().push(revision);
    }
    documents.into_values().flat_map(check_document).collect()
}

fn check_document(mut revisions: Vec<&Written>) -> Vec<WrittenViolation> {
    revisions.sort_by_key(|written| written.revision);
    let mut found = Vec::new();
    for pair in revisions.windows(2).filter(|pair| pair[0].revision == pair[1].revision) {
        found.push(WrittenViolation::Twice { first: pair[0].clone(), second: pair[1].clone() });
    }
    let mut highest: Option<(&Written, &Token)> = None;
    for later in revisions {
        let Some(token) = &later.token else { continue };
        match highest {
            // Two commits of one revision have no order, and are reported as such.
            Some((earlier, before)) if token.is_behind(before) => {
                if earlier.revision < later.revision {
                    found.push(WrittenViolation::WentBack { earlier: earlier.clone(), later: later.clone() });
                }
            }
            _ => highest = Some((later, token)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(epoch: u64, counter: u64, owner: &str) -> Token {
        Token { epoch, counter, owner: owner.to_owned() }
    }

    fn grant(counter: u64, owner: &str, asked: u64, answered: u64) -> Grant {
        Grant { token: token(1, counter, owner), resource: "plan".to_owned(), asked, answered }
    }

    fn written(revision: u64, counter: u64, owner: &str) -> Written {
        Written { path: "plan".to_owned(), revision, token: Some(token(1, counter, owner)) }
    }

    #[test]
    fn growing_tokens_are_sound() {
        let grants = [grant(2, "b", 6, 9), grant(1, "a", 0, 5), grant(7, "c", 10, 11)];
        assert_eq!(check_grants(&grants), []);
    }

    #[test]
    fn grants_under_way_at_the_same_time_may_be_answered_in_any_order() {
        assert_eq!(check_grants(&[grant(2, "a", 0, 5), grant(1, "b", 3, 9)]), []);
        assert_eq!(check_grants(&[grant(2, "a", 0, 5), grant(1, "b", 5, 9)]), []);
    }

    #[test]
    fn a_token_lower_than_one_granted_before_it_was_asked_for_is_found() {
        let (earlier, later) = (grant(2, "a", 0, 5), grant(1, "b", 6, 9));
        let found = check_grants(&[later.clone(), earlier.clone()]);
        assert_eq!(found, [GrantViolation::NotGrowing { earlier, later }]);
        assert_eq!(
            found[0].to_string(),
            "tokens did not grow: 1.1 of b [6, 9] was asked for after 1.2 of a [0, 5] had been granted"
        );
    }

    #[test]
    fn a_token_is_held_against_the_highest_before_it_and_not_just_the_last() {
        let grants = [grant(9, "a", 0, 1), grant(2, "b", 0, 2), grant(3, "c", 5, 6)];
        let expected = GrantViolation::NotGrowing { earlier: grants[0].clone(), later: grants[2].clone() };
        assert_eq!(check_grants(&grants), [expected]);
    }

    #[test]
    fn another_resource_may_have_a_lower_number_but_not_the_same() {
        let other = |counter, owner| Grant { resource: "board".to_owned(), ..grant(counter, owner, 5, 6) };
        assert_eq!(check_grants(&[grant(9, "a", 0, 1), other(2, "b")]), []);
        assert_eq!(check_grants(&[grant(9, "a", 0, 1), other(9, "b")]).len(), 1);
    }

    #[test]
    fn a_later_epoch_outranks_any_counter_and_an_earlier_one_none() {
        let old = grant(900, "a", 0, 1);
        let new = Grant { token: token(2, 1, "b"), ..grant(1, "b", 2, 3) };
        assert_eq!(check_grants(&[old.clone(), new.clone()]), []);
        let relapse = Grant { asked: 4, answered: 5, ..old };
        assert_eq!(check_grants(&[new, relapse]).len(), 1);
    }

    #[test]
    fn a_number_granted_to_two_owners_is_found_even_when_they_asked_at_the_same_time() {
        let (first, second) = (grant(1, "a", 0, 5), grant(1, "b", 3, 9));
        let found = check_grants(&[second.clone(), first.clone()]);
        assert_eq!(found, [GrantViolation::Shared { first, second }]);
    }

    #[test]
    fn a_number_granted_again_to_its_owner_did_not_grow() {
        let found = check_grants(&[grant(1, "a", 0, 1), grant(1, "a", 2, 3)]);
        assert!(matches!(found[..], [GrantViolation::NotGrowing { .. }]), "{found:?}");
    }

    #[test]
    fn a_holder_may_write_twice_and_unfenced_writes_say_nothing() {
        let unfenced = Written { token: None, ..written(3, 0, "") };
        let revisions = [written(1, 4, "a"), written(2, 4, "a"), unfenced, written(4, 5, "b")];
        assert_eq!(check_written(&revisions), []);
    }

    #[test]
    fn a_stale_write_is_found_against_the_highest_token_before_it() {
        let unfenced = Written { token: None, ..written(2, 0, "") };
        let revisions = [written(4, 4, "c"), written(1, 5, "a"), unfenced, written(3, 3, "b")];
        let went_back =
            |later: &Written| WrittenViolation::WentBack { earlier: revisions[1].clone(), later: later.clone() };
        assert_eq!(check_written(&revisions), [went_back(&revisions[3]), went_back(&revisions[0])]);
    }

    #[test]
    fn an_equal_number_of_another_owner_is_behind() {
        let found = check_written(&[written(1, 4, "a"), written(2, 4, "b")]);
        assert!(matches!(found[..], [WrittenViolation::WentBack { .. }]), "{found:?}");
        assert_eq!(
            found[0].to_string(),
            "tokens went back: revision 2 of \"plan\" by 1.4 of b came after revision 1 of \"plan\" by 1.4 of a"
        );
    }

    #[test]
    fn documents_are_judged_apart() {
        let elsewhere = Written { path: "notes".to_owned(), ..written(2, 1, "b") };
        assert_eq!(check_written(&[written(1, 4, "a"), elsewhere]), []);
    }

    #[test]
    fn one_revision_made_by_two_commits_is_found() {
        let found = check_written(&[written(1, 4, "a"), written(1, 3, "b")]);
        assert!(matches!(found[..], [WrittenViolation::Twice { .. }]), "{found:?}");
    }
}
