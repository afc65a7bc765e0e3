//! What a conflict says to whoever met it.

use mutext::{Content, Error, Precondition, Revision};

use crate::edits::{append, replace};
use crate::place::Place;

async fn conflict(writing: mutext::Writing<'_>) -> Box<mutext::Conflict> {
    match writing.await {
        Err(Error::Conflict(conflict)) => conflict,
        other => panic!("expected a conflict; found {other:?}"),
    }
}

pub(crate) async fn a_conflict_says_who_wrote_why_and_what(place: &Place) {
    let (anna, bert) = (place.agent("anna"), place.other("bert"));
    let read = anna.write("plan.md", "one\ntwo\n").create().await.unwrap().revision;
    bert.edit("plan.md", [append("three")]).message("there is more").await.unwrap();
    place.agent("carl").edit("plan.md", [replace("two", "2")]).await.unwrap();
    let mine = Content::text("one!\ntwo\n");
    let met = conflict(anna.write("plan.md", mine.clone()).at(read)).await;
    let explained = anna.explain(&met, Some(&mine)).await.unwrap();
    assert_eq!((explained.base, explained.more), (Some(read), 0));
    assert_eq!(explained.current.as_ref().unwrap().revision, Revision(3));
    let since: Vec<_> = explained.since.iter().map(|since| (since.author.as_str(), since.message.as_deref())).collect();
    assert_eq!(since, [("carl", None), ("bert", Some("there is more"))]);
    let diff = explained.diff.as_ref().unwrap();
    assert!(diff.text.starts_with("--- plan.md@1\n+++ plan.md@3\n"), "{diff}");
    assert!(diff.text.contains("-two\n+2\n+three\n"), "{diff}");

    // What was to be created is there, or what was to be replaced is not.
    let met = conflict(bert.write("plan.md", "mine").create()).await;
    let explained = bert.explain(&met, Some(&Content::text("mine"))).await.unwrap();
    assert_eq!((explained.base, explained.since.len()), (None, 1));
    assert!(explained.diff.is_none() && explained.merge.is_none());
    bert.delete("plan.md", Precondition::Any).await.unwrap();
    let met = conflict(anna.write("plan.md", mine.clone()).at(read)).await;
    let explained = anna.explain(&met, Some(&mine)).await.unwrap();
    assert!(explained.since[0].deleted && explained.current.is_none() && explained.merge.is_none());
    assert!(explained.diff.unwrap().text.contains("-one\n-two\n"));
}

pub(crate) async fn a_conflict_says_where_both_sides_contradict_each_other(place: &Place) {
    let (anna, bert) = (place.agent("anna"), place.other("bert"));
    let read = anna.write("plan.md", "one\ntwo\nthree\n").create().await.unwrap().revision;
    bert.edit("plan.md", [replace("two", "2")]).await.unwrap();
    let clean = Content::text("one\ntwo\nthree\nfour\n");
    let met = conflict(anna.write("plan.md", clean.clone()).at(read)).await;
    let explained = anna.explain(&met, Some(&clean)).await.unwrap();
    assert_eq!(explained.merges_cleanly(), Some(true));
    let mine = Content::text("one\nzwei\nthree\n");
    let explained = anna.explain(&met, Some(&mine)).await.unwrap();
    assert_eq!(explained.merges_cleanly(), Some(false));
    let merge = explained.merge.unwrap();
    let hunk = &merge.hunks()[0];
    assert_eq!((hunk.ours.as_deref(), hunk.theirs.as_deref()), (Some("zwei\n"), Some("2\n")));
    // Resolved, it can be written.
    let resolved = [(hunk.id.clone(), mutext::Resolution::Both)].into();
    let content = merge.resolved(&resolved).unwrap();
    anna.write("plan.md", content).at(explained.current.unwrap().revision).await.unwrap();
}

pub(crate) async fn a_long_difference_is_clipped(place: &Place) {
    let anna = place.agent("anna");
    let line = |number: usize| format!("line {number} of many that are all there\n");
    let read = anna.write("plan.md", (0..2000).map(line).collect::<String>()).create().await.unwrap().revision;
    for round in 0..14 {
        let other: String = (0..2000).map(|number| line(number + round * 7 + 7)).collect();
        anna.write("plan.md", other).overwrite().await.unwrap();
    }
    let mine = Content::text("mine\n".repeat(9000));
    let met = conflict(anna.write("plan.md", mine.clone()).at(read)).await;
    let explained = anna.explain(&met, Some(&mine)).await.unwrap();
    assert_eq!((explained.since.len(), explained.more), (10, 4));
    let diff = explained.diff.unwrap();
    assert!(diff.text.len() <= 8 * 1024 && diff.left_out > 0, "{}", diff.text.len());
}
