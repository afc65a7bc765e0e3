//! What documents were, and forgetting it.

use std::time::Duration;

use mutext::{Effected, Error, Precondition, Retention, Revision};

use crate::common::settings;
use crate::edits::{append, replace, text};
use crate::place::Place;

pub(crate) async fn a_past_revision_is_shown_compared_and_brought_back(place: &Place) {
    let (anna, bert) = (place.agent("anna"), place.other("bert"));
    let long = "a line of some length\n".repeat(9);
    anna.write("plan.md", long.as_str()).create().message("begin").await.unwrap();
    bert.edit("plan.md", [append("more")]).await.unwrap();
    bert.write("plan.md", "short\n").overwrite().allow_shrink().await.unwrap();
    let first = anna.revision("plan.md", Revision(1)).await.unwrap();
    assert_eq!((first.message.as_deref(), first.author.as_str()), (Some("begin"), "anna"));
    assert_eq!(first.content.unwrap().as_str(), long);
    let diff = anna.diff("plan.md", Revision(1), Revision(2)).await.unwrap();
    assert!(diff.text.starts_with("--- plan.md@1\n+++ plan.md@2\n") && diff.text.ends_with("+more\n"), "{diff}");
    assert!(anna.diff("plan.md", Revision(2), Revision(2)).await.unwrap().is_empty());

    let stale = anna.restore("plan.md", Revision(1), Precondition::Exact(Revision(2)), None).await;
    assert!(matches!(stale, Err(Error::Conflict(_))), "{stale:?}");
    let restored = anna.restore("plan.md", Revision(1), Precondition::Exact(Revision(3)), None).await.unwrap();
    assert_eq!((restored.revision, restored.effect), (Revision(4), Effected::Written));
    // Also where it makes the document much shorter.
    let why = Some("undo");
    anna.restore("plan.md", Revision(3), Precondition::Exact(Revision(4)), why).await.unwrap();
    assert_eq!(text(&bert, "plan.md").await, "short\n");
    let messages: Vec<_> = anna.history("plan.md", None, 2).await.unwrap();
    let messages: Vec<_> = messages.iter().map(|past| past.message.as_deref().unwrap()).collect();
    assert_eq!(messages, ["undo", "restore revision 1"]);
}

pub(crate) async fn a_revision_that_is_forgotten_is_told_from_one_to_come(place: &Place) {
    let mut settings = settings("anna");
    settings.retention = Retention { revisions: Some(2), age: None };
    let anna = place.agent_with(settings);
    for number in 0..5 {
        anna.edit("plan.md", [append(&number.to_string())]).await.unwrap();
    }
    anna.tend().await.unwrap();
    let said = async |path: &str, revision| anna.revision(path, Revision(revision)).await.unwrap_err().to_string();
    assert!(said("plan.md", 1).await.contains("it is forgotten"));
    assert!(said("plan.md", 9).await.contains("the newest is 5"));
    assert!(said("other.md", 1).await.contains("never been such a document"));
    assert!(anna.revision("plan.md", Revision(4)).await.is_ok());
}

pub(crate) async fn a_deletion_is_brought_back_as_one(place: &Place) {
    let anna = place.agent("anna");
    anna.put("plan.md", "one", Precondition::Absent).await.unwrap();
    anna.delete("plan.md", Precondition::Any).await.unwrap();
    let back = anna.restore("plan.md", Revision(1), Precondition::Absent, None).await.unwrap();
    assert_eq!((back.revision, back.effect), (Revision(3), Effected::Created));
    let gone = anna.restore("plan.md", Revision(2), Precondition::Exact(Revision(3)), None).await.unwrap();
    assert_eq!((gone.revision, gone.effect), (Revision(4), Effected::Deleted));
    assert_eq!(anna.get("plan.md").await.unwrap(), None);
}

pub(crate) async fn a_purge_leaves_nothing_but_a_tombstone(place: &Place) {
    let anna = place.agent("anna");
    anna.put("person.md", "her address", Precondition::Absent).await.unwrap();
    anna.edit("person.md", [replace("address", "number")]).await.unwrap();
    let revision = anna.purge("person.md", "she asked").await.unwrap().unwrap();
    let history = anna.history("person.md", None, 9).await.unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!((history[0].revision, &history[0].content), (revision, &None));
    assert_eq!((history[0].author.as_str(), history[0].message.as_deref()), ("anna", Some("purged: she asked")));
    assert_eq!(anna.purge("person.md", "again").await.unwrap(), None);
    assert_eq!(anna.search("address", "", 9).await.unwrap(), []);
}

pub(crate) async fn what_retention_does_not_keep_is_forgotten(place: &Place) {
    let mut settings = settings("anna");
    settings.retention = Retention { revisions: Some(3), age: Some(Duration::from_secs(3600)) };
    let anna = place.agent_with(settings);
    for number in 0..10 {
        anna.edit("plan.md", [append(&number.to_string())]).await.unwrap();
    }
    assert_eq!(anna.tend().await.unwrap().forgotten, 7);
    let kept: Vec<_> = anna.history("plan.md", None, 99).await.unwrap().iter().map(|past| past.revision.0).collect();
    assert_eq!(kept, [10, 9, 8]);
    assert_eq!(text(&anna, "plan.md").await.lines().count(), 10);
}
