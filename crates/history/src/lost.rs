//! Is what was acknowledged still there? The bluntest check, and the one that needs no theory:
//! each update adds an id of its own to a document, and in the end all of them must be in it, once.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};

/// What documents hold in the end: for each path the ids in it, in order, as often as they occur.
pub type Contents = BTreeMap<String, Vec<String>>;

/// One update that its process was told is done.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Acknowledged {
    /// The document.
    pub path: String,
    /// The id that the update put into it; no other update uses it.
    pub id: String,
    /// The process that was told.
    pub process: u64,
    /// The revision that the commit made, if the answer named it.
    pub revision: Option<u64>,
}

impl fmt::Display for Acknowledged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "update {} of process {} to \"{}\"", self.id, self.process, self.path)?;
        match self.revision {
            Some(revision) => write!(f, " (revision {revision})"),
            None => Ok(()),
        }
    }
}

/// An acknowledged update that the final document does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[error("{update} was acknowledged and is lost{}", if *.document_exists { "" } else { ": there is no such document" })]
pub struct LostUpdate {
    /// The update.
    pub update: Acknowledged,
    /// Whether there is a document at its path at all.
    pub document_exists: bool,
}

/// An update that took effect more than once: a retry that no idempotency key held back.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[error("update {id} is in \"{path}\" {times} times")]
pub struct Duplicate {
    /// The document.
    pub path: String,
    /// The id that it holds too often.
    pub id: String,
    /// How often.
    pub times: usize,
}

/// The acknowledged updates that are missing from the final documents, in the order in which they
/// were acknowledged.
///
/// Ids that nobody acknowledged may be there: an update of unknown outcome may have happened.
pub fn lost_updates(acknowledged: &[Acknowledged], contents: &Contents) -> Vec<LostUpdate> {
    let counts = counts(contents);
    let is_lost = |update: &&Acknowledged| {
        !counts.get(update.path.as_str()).is_some_and(|ids| ids.contains_key(update.id.as_str()))
    };
    let lost = acknowledged.iter().filter(is_lost);
    lost.map(|update| LostUpdate { update: update.clone(), document_exists: contents.contains_key(&update.path) })
        .collect()
}

/// The ids that a final document holds more than once, acknowledged or not, by path and id.
pub fn duplicates(contents: &Contents) -> Vec<Duplicate> {
    let mut found = Vec::new();
    for (path, ids) in counts(contents) {
        for (id, times) in ids.into_iter().filter(|&(_, times)| times > 1) {
            found.push(Duplicate { path: path.to_owned(), id: id.to_owned(), times });
        }
    }
    found.sort_by(|a, b| (&a.path, &a.id).cmp(&(&b.path, &b.id)));
    found
}

fn counts(contents: &Contents) -> HashMap<&str, HashMap<&str, usize>> {
    let mut counts = HashMap::<&str, HashMap<&str, usize>>::new();
    for (path, ids) in contents {
        let document = counts.entry(path).or_default();
        for id in ids {
            *document.entry(id).or_default() += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledged(path: &str, id: &str) -> Acknowledged {
        Acknowledged { path: path.to_owned(), id: id.to_owned(), process: 1, revision: Some(3) }
    }

    fn contents(documents: &[(&str, &[&str])]) -> Contents {
        let owned = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect();
        documents.iter().map(|&(path, ids)| (path.to_owned(), owned(ids))).collect()
    }

    #[test]
    fn nothing_is_lost_when_every_id_is_there_in_any_order() {
        let updates = [acknowledged("plan", "a"), acknowledged("plan", "b")];
        assert_eq!(lost_updates(&updates, &contents(&[("plan", &["b", "unacknowledged", "a"])])), []);
    }

    #[test]
    fn a_missing_id_is_a_lost_update() {
        let updates = [acknowledged("plan", "a"), acknowledged("plan", "b")];
        let found = lost_updates(&updates, &contents(&[("plan", &["b"])]));
        assert_eq!(found, [LostUpdate { update: updates[0].clone(), document_exists: true }]);
        assert_eq!(found[0].to_string(), "update a of process 1 to \"plan\" (revision 3) was acknowledged and is lost");
    }

    #[test]
    fn an_id_in_another_document_does_not_count() {
        let found = lost_updates(&[acknowledged("plan", "a")], &contents(&[("plan", &[]), ("notes", &["a"])]));
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn a_missing_document_loses_all_of_its_updates_and_says_so() {
        let found = lost_updates(&[acknowledged("plan", "a")], &contents(&[]));
        assert!(!found[0].document_exists);
        assert!(found[0].to_string().ends_with("is lost: there is no such document"), "{}", found[0]);
    }

    #[test]
    fn an_id_that_appears_twice_is_a_duplicate_and_is_not_lost() {
        let contents = contents(&[("plan", &["a", "b", "a"]), ("notes", &["a"])]);
        assert_eq!(lost_updates(&[acknowledged("plan", "a")], &contents), []);
        let found = duplicates(&contents);
        assert_eq!(found, [Duplicate { path: "plan".to_owned(), id: "a".to_owned(), times: 2 }]);
        assert_eq!(found[0].to_string(), "update a is in \"plan\" 2 times");
    }
}
