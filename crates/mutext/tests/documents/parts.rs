//! Several documents at once.

use mutext::{Error, Part, Precondition, Revision};

use crate::edits::{append, replace, text};
use crate::place::Place;

fn part(path: &str) -> mutext::DocumentPath {
    path.try_into().unwrap()
}

pub(crate) async fn several_documents_change_together_or_not_at_all(place: &Place) {
    let anna = place.agent("anna");
    let read = anna.put("task", "open", Precondition::Absent).await.unwrap();
    let parts = || {
        [
            Part::delete(part("task")).at(read),
            Part::put(part("done/task"), "it went well".into()).create(),
            Part::edit(part("log.md"), [append("task is done")]),
        ]
    };
    let changed = anna.change_all(parts()).message("finish").await.unwrap();
    let revisions: Vec<_> = changed.revisions.iter().map(|(path, at)| (path.as_str(), at.0)).collect();
    assert_eq!(revisions, [("task", 2), ("done/task", 1), ("log.md", 1)]);
    let commit = anna.changes(mutext::Cursor::START, 9, std::time::Duration::ZERO).await.unwrap().pop().unwrap();
    assert_eq!((commit.cursor, commit.message.as_deref(), commit.changes.len()), (changed.cursor, Some("finish"), 3));

    let again = anna.change_all(parts()).await;
    assert!(matches!(&again, Err(Error::Conflict(conflict)) if conflict.path.as_str() == "task"), "{again:?}");
    let misfit = [Part::put(part("other"), "x".into()).create(), Part::edit(part("log.md"), [replace("?", "!")])];
    let misfit = anna.change_all(misfit).await;
    assert!(matches!(misfit, Err(Error::EditFailed { .. })), "{misfit:?}");
    let unsaid = anna.change_all([Part::put(part("other"), "x".into())]).await;
    assert!(matches!(unsaid, Err(Error::PreconditionRequired { .. })), "{unsaid:?}");
    assert_eq!(anna.get("other").await.unwrap(), None);
    assert_eq!(text(&anna, "log.md").await, "task is done\n");
}

pub(crate) async fn edits_of_several_documents_are_made_again_where_others_were_faster(place: &Place) {
    let agents = [place.agent("a"), place.other("b"), place.other("c")];
    let work = agents.map(|agent| {
        tokio::spawn(async move {
            for number in 0..15 {
                let entry = append(&format!("{} {number}", agent.agent()));
                let parts = [Part::edit(part("left"), [entry.clone()]), Part::edit(part("right"), [entry])];
                agent.change_all(parts).await.unwrap();
            }
        })
    });
    for task in work {
        task.await.unwrap();
    }
    let anna = place.agent("anna");
    let (left, right) = (text(&anna, "left").await, text(&anna, "right").await);
    assert_eq!(left, right);
    assert_eq!(left.lines().count(), 45);
}

pub(crate) async fn a_part_that_names_a_revision_is_not_tried_again(place: &Place) {
    let anna = place.agent("anna");
    let read = anna.put("plan.md", "one\n", Precondition::Absent).await.unwrap();
    anna.edit("plan.md", [append("two")]).await.unwrap();
    for stale in [Part::edit(part("plan.md"), [append("x")]).at(read), Part::put(part("plan.md"), "x".into()).at(read)]
    {
        let parts = [Part::edit(part("log.md"), [append("y")]), stale];
        let refused = anna.change_all(parts).await;
        assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    }
    assert_eq!(anna.get("log.md").await.unwrap(), None);
}

pub(crate) async fn several_changes_under_the_same_key_are_made_once(place: &Place) {
    let anna = place.agent("anna");
    anna.put("plan.md", "one\n", Precondition::Absent).await.unwrap();
    let parts = || [Part::edit(part("plan.md"), [replace("one", "two")]), Part::edit(part("log"), [append("x")])];
    let change = || anna.change_all(parts()).key("k".try_into().unwrap());
    let (made, again) = (change().await.unwrap(), change().await.unwrap());
    assert!(!made.replayed && again.replayed);
    assert_eq!((made.cursor, made.revisions), (again.cursor, again.revisions));
    assert_eq!(anna.get("log").await.unwrap().unwrap().revision, Revision(1));
    // What was never made is not found under its key, and nothing is written by looking.
    let misfit = [Part::edit(part("absent"), [replace("a", "b")]), Part::edit(part("log"), [append("y")])];
    let misfit = anna.change_all(misfit).key("k2".try_into().unwrap()).await;
    assert!(matches!(misfit, Err(Error::EditFailed { .. })), "{misfit:?}");
    assert_eq!(anna.history("absent", None, 9).await.unwrap(), []);
    assert_eq!(text(&anna, "log").await, "x\n");
}
