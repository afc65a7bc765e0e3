//! Edits: made on what is there now, once, and all or none.

use std::time::Duration;

use mutext::{Content, Context, Edit, Error, Expiry, Precondition, Revision, Strategy, Which};

use crate::common::{eventually, poll_then_drop};
use crate::place::Place;

pub(crate) fn append(text: &str) -> Edit {
    Edit::Append { text: text.to_owned() }
}

pub(crate) fn replace(old: &str, new: &str) -> Edit {
    Edit::Replace { old: old.to_owned(), new: new.to_owned(), which: Which::Only }
}

pub(crate) async fn text(context: &Context, path: &str) -> String {
    context.get(path).await.unwrap().unwrap().content.as_str().to_owned()
}

pub(crate) async fn an_edit_is_made_on_what_is_there_now(place: &Place) {
    let (anna, bert) = (place.agent("anna"), place.other("bert"));
    let first = anna.edit("plan.md", [append("measure")]).message("begin").await.unwrap();
    assert_eq!((first.revision, first.base, first.before), (Revision(1), None, None));
    bert.edit("plan.md", [append("cut")]).await.unwrap();
    let edited = anna.edit("plan.md", [replace("measure", "measure twice"), append("glue")]).await.unwrap();
    assert_eq!((edited.revision, edited.base, edited.attempts), (Revision(3), Some(Revision(2)), 1));
    assert_eq!(edited.before.unwrap().as_str(), "measure\ncut\n");
    assert_eq!(edited.content.unwrap().as_str(), "measure twice\ncut\nglue\n");
    assert_eq!(text(&bert, "plan.md").await, "measure twice\ncut\nglue\n");
    let first = &anna.history("plan.md", None, 9).await.unwrap()[2];
    assert_eq!((first.author.as_str(), first.message.as_deref()), ("anna", Some("begin")));
}

pub(crate) async fn the_same_edits_under_the_same_key_are_made_once(place: &Place) {
    let anna = place.agent("anna");
    anna.put("plan.md", "one\n", Precondition::Absent).await.unwrap();
    let edits = || anna.edit("plan.md", [replace("one", "two")]).key("k1".try_into().unwrap()).message("why");
    let made = edits().await.unwrap();
    assert!(!made.replayed);
    // It does not fit a second time: that is no reason to say that it was not made.
    let again = edits().await.unwrap();
    assert_eq!((again.revision, again.cursor, again.replayed), (made.revision, made.cursor, true));
    assert_eq!(again.content, None);
    let strategy = Strategy::Lease { ttl: anna.settings().ttl, wait: anna.settings().wait };
    let appended = |with: Strategy| anna.edit("plan.md", [append("x")]).key("k2".try_into().unwrap()).strategy(with);
    for (strategy, replayed) in [(Strategy::CompareAndSet, false), (strategy, true), (Strategy::CompareAndSet, true)] {
        let edited = appended(strategy).await.unwrap();
        assert_eq!((edited.revision, edited.replayed), (Revision(3), replayed));
    }
    assert_eq!(text(&anna, "plan.md").await, "two\nx\n");
    let other = anna.edit("plan.md", [append("y")]).key("k2".try_into().unwrap()).await;
    assert!(matches!(other, Err(Error::KeyReused { .. })), "{other:?}");
    // A key that was never used does not help what does not fit.
    let other = anna.edit("plan.md", [replace("zero", "y")]).key("k3".try_into().unwrap()).await;
    assert!(matches!(other, Err(Error::EditFailed { .. })), "{other:?}");
    let absent = anna.edit("absent.md", [replace("a", "b")]).key("k4".try_into().unwrap()).await;
    assert!(matches!(absent, Err(Error::EditFailed { current: None, .. })), "{absent:?}");
    assert_eq!(anna.history("absent.md", None, 9).await.unwrap(), []);
    // Nor is it used up.
    anna.edit("plan.md", [append("z")]).key("k3".try_into().unwrap()).await.unwrap();
}

pub(crate) async fn an_edit_that_does_not_fit_shows_what_is_there(place: &Place) {
    let anna = place.agent("anna");
    anna.put("plan.md", "cut\ncut\n", Precondition::Absent).await.unwrap();
    let error = anna.edit("plan.md", [append("x"), replace("cut", "saw")]).await.unwrap_err();
    let said = error.to_string();
    let Error::EditFailed { failed, current: Some(current), .. } = error else { panic!("{said}") };
    assert_eq!((failed.index, current.content.as_str()), (1, "cut\ncut\n"));
    assert!(said.contains("plan.md, at revision 1, stays as it was: edit 2") && said.contains("nth"), "{said}");
    assert_eq!(text(&anna, "plan.md").await, "cut\ncut\n");

    let patch = serde_json::from_str(r#"{"patch":[{"op":"replace","path":"/missing/x","value":1}]}"#).unwrap();
    anna.put("data.json", Content::parse_json("{\"a\":1}").unwrap(), Precondition::Absent).await.unwrap();
    let said = anna.edit("data.json", [patch]).await.unwrap_err().to_string();
    assert!(said.contains("/missing"), "{said}");
    let said = anna.edit("absent.md", [replace("a", "b")]).await.unwrap_err().to_string();
    assert!(said.contains("absent.md, absent, stays as it was") && said.contains("create it first"), "{said}");
    let said = anna.edit("bad//path", [append("a")]).await.unwrap_err().to_string();
    assert!(said.contains("bad//path"), "{said}");
}

pub(crate) async fn edits_for_a_revision_are_not_tried_again(place: &Place) {
    let (anna, bert) = (place.agent("anna"), place.other("bert"));
    let read = anna.put("plan.md", "one\n", Precondition::Absent).await.unwrap();
    let key = || "k1".try_into().unwrap();
    let edited = anna.edit("plan.md", [append("two")]).at(read).key(key()).await.unwrap();
    let late = bert.edit("plan.md", [append("three")]).at(read).await;
    let Err(Error::Conflict(conflict)) = late else { panic!("{late:?}") };
    assert_eq!(conflict.current.unwrap().revision, edited.revision);
    // The revision that it names is not there any more, because of itself.
    let again = anna.edit("plan.md", [append("two")]).at(read).key(key()).await.unwrap();
    assert_eq!((again.revision, again.replayed), (edited.revision, true));
}

pub(crate) async fn edits_that_change_nothing_keep_the_revision(place: &Place) {
    let anna = place.agent("anna");
    anna.put("tags.json", Content::parse_json("[\"a\"]").unwrap(), Precondition::Absent).await.unwrap();
    let add = || [Edit::AddToSet { pointer: String::new(), item: "a".into() }];
    let edited = anna.edit("tags.json", add()).await.unwrap();
    assert_eq!((edited.revision, edited.unchanged, edited.replayed), (Revision(1), true, false));
    assert_eq!(anna.history("tags.json", None, 9).await.unwrap().len(), 1);
}

pub(crate) async fn appends_side_by_side_are_all_there(place: &Place) {
    const EACH: usize = 25;
    let agents = ["a", "b", "c", "d"].map(|name| if name < "c" { place.agent(name) } else { place.other(name) });
    let work = agents.into_iter().map(|agent| {
        tokio::spawn(async move {
            for number in 0..EACH {
                agent.edit("log.md", [append(&format!("{} {number}", agent.agent()))]).await.unwrap();
            }
        })
    });
    for task in work.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let text = text(&place.agent("z"), "log.md").await;
    for name in ["a", "b", "c", "d"] {
        let own: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(name)).map(str::trim).collect();
        assert_eq!(own, (0..EACH).map(|number| number.to_string()).collect::<Vec<_>>());
    }
}

pub(crate) async fn a_document_is_gone_when_its_time_is_up(place: &Place) {
    let anna = place.agent("anna");
    let soon = Expiry::After(Duration::from_millis(300));
    anna.edit("scratch", [append("note")]).expires(soon).await.unwrap();
    anna.write("draft", "text").create().expires(soon).await.unwrap();
    assert!(anna.get("scratch").await.unwrap().unwrap().expires_at.is_some());
    for path in ["scratch", "draft"] {
        eventually("its time is up", async || anna.get(path).await.unwrap().is_none()).await;
    }
    let edited = anna.edit("scratch", [append("anew")]).await.unwrap();
    assert_eq!((edited.base, edited.content.unwrap().as_str()), (None, "anew\n"));
    assert_eq!(anna.tend().await.unwrap().expired, 1);
}

pub(crate) async fn edits_under_a_lease_are_refused_once_that_is_lost(place: &Place) {
    let (anna, bert) = (place.agent("anna"), place.other("bert"));
    let guard = anna.lock("notes/").await.unwrap();
    let edited = guard.edit("notes/plan.md", [append("one")]).message("mine").await.unwrap();
    assert_eq!(edited.revision, Revision(1));
    // Somebody writes past the lock: that is not lost.
    bert.put("notes/plan.md", "one\npast\n", Precondition::Any).await.unwrap();
    guard.edit("notes/plan.md", [append("two")]).await.unwrap();
    assert_eq!(text(&bert, "notes/plan.md").await, "one\npast\ntwo\n");
    let outside = guard.edit("other.md", [append("x")]).await;
    assert!(matches!(outside, Err(Error::NotCovered { .. })), "{outside:?}");

    // What runs under the lease in another process has its fence alone.
    let fence = guard.fence();
    let path = || mutext::DocumentPath::new("notes/plan.md").unwrap();
    bert.edit("notes/plan.md", [append("three")]).under(fence.clone()).await.unwrap();
    let parts = || [mutext::Part::edit(path(), [append("four")])];
    bert.change_all(parts()).under(fence.clone()).await.unwrap();
    let read = bert.get("notes/plan.md").await.unwrap().unwrap();
    let whole = format!("{}five\n", read.content.as_str());
    bert.write("notes/plan.md", whole.as_str()).at(read.revision).under(fence.clone()).await.unwrap();

    bert.revoke(fence_lease(&guard), "for a test").await.unwrap();
    let late = [
        guard.edit("notes/plan.md", [append("late")]).await.map(drop),
        bert.edit("notes/plan.md", [append("late")]).under(fence.clone()).await.map(drop),
        bert.change_all(parts()).under(fence.clone()).await.map(drop),
        bert.write("notes/plan.md", "late").overwrite().allow_shrink().under(fence).await.map(drop),
    ];
    for late in late {
        assert!(matches!(late, Err(Error::LeaseLost { .. })), "{late:?}");
    }
    assert_eq!(text(&bert, "notes/plan.md").await, whole);
}

fn fence_lease(guard: &mutext::LockGuard) -> mutext::LeaseId {
    guard.lease().id()
}

pub(crate) async fn an_edit_that_was_dropped_happens_once_when_it_is_asked_for_again(place: &Place) {
    const ROUNDS: usize = 60;
    let (anna, bert) = (place.agent("anna"), place.other("bert"));
    let (ttl, wait) = (anna.settings().ttl, anna.settings().wait);
    let strategies = [Strategy::CompareAndSet, Strategy::Lease { ttl, wait }, Strategy::Adaptive { ttl, wait }];
    let mut dropped = 0;
    for round in 0..ROUNDS {
        let entry = format!("entry {round}");
        let edit = || {
            let edit = anna.edit("log.md", [append(&entry)]).strategy(strategies[round % 3]);
            edit.key(entry.replace(' ', "-").as_str().try_into().unwrap())
        };
        let polls = u32::try_from(round * 7 % 20).unwrap();
        let pause = Duration::from_micros(u64::try_from(round * 37 % 500).unwrap());
        dropped += usize::from(poll_then_drop(edit().make(), polls, pause).await.is_none());
        bert.edit("log.md", [append(&format!("other {round}"))]).await.unwrap();
        edit().await.unwrap();
    }
    assert!(dropped > 2, "only {dropped} were dropped on their way");
    let text = text(&anna, "log.md").await;
    for round in 0..ROUNDS {
        let count = text.lines().filter(|line| *line == format!("entry {round}")).count();
        assert_eq!(count, 1, "entry {round}");
    }
    eventually("no lock is left", async || anna.locks().await.unwrap().holdings.is_empty()).await;
}
