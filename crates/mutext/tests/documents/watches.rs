//! Watching: every commit once, in order.

use std::time::Duration;

use mutext::{Context, Cursor, Error, Part, Precondition, Retention};

use crate::common::{poll_then_drop, settings};
use crate::edits::append;
use crate::place::Place;

const LONG: Duration = Duration::from_secs(20);

async fn note(agent: &Context, path: &str, message: &str) {
    agent.edit(path, [append(message)]).message(message).await.unwrap();
}

pub(crate) async fn a_watcher_sees_every_commit_of_its_prefix_once_and_in_order(place: &Place) {
    let (anna, bert) = (place.agent("anna"), place.other("bert"));
    let mut watcher = bert.watch("notes/").after(Cursor::START).buffer(3).await.unwrap();
    let watching = tokio::spawn(async move {
        let mut seen = Vec::new();
        while seen.len() < 20 {
            let commit = watcher.next().await.unwrap();
            assert!(commit.changes.iter().all(|(path, ..)| path.as_str().starts_with("notes/")), "{commit:?}");
            assert_eq!(watcher.cursor(), commit.cursor.max(watcher.cursor()));
            seen.push(commit.message.unwrap());
        }
        seen
    });
    for number in 0..20 {
        note(&anna, "elsewhere", "not told").await;
        let entry = [append("x")];
        let parts =
            [Part::edit("else".try_into().unwrap(), entry.clone()), Part::edit("notes/a".try_into().unwrap(), entry)];
        anna.change_all(parts).message(number.to_string()).await.unwrap();
    }
    assert_eq!(watching.await.unwrap(), (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
}

pub(crate) async fn a_watcher_resumes_from_its_cursor(place: &Place) {
    let (anna, bert) = (place.agent("anna"), place.other("bert"));
    for number in 0..30 {
        note(&anna, if number % 3 == 0 { "notes/a" } else { "b" }, &number.to_string()).await;
    }
    let (mut seen, mut cursor) = (Vec::new(), Cursor::START);
    while seen.len() < 10 {
        let mut watcher = bert.watch("notes/").after(cursor).buffer(4).await.unwrap();
        seen.push(watcher.next_within(LONG).await.unwrap().unwrap().message.unwrap());
        cursor = watcher.cursor();
    }
    assert_eq!(seen, (0..30).step_by(3).map(|number| number.to_string()).collect::<Vec<_>>());
    let mut watcher = bert.watch("notes/").after(cursor).buffer(4).await.unwrap();
    assert_eq!(watcher.next_within(Duration::from_millis(100)).await.unwrap(), None);
    // Others may have committed elsewhere since.
    let head = bert.head().await.unwrap();
    assert!(head >= cursor, "{head:?} is before {cursor:?}");
}

pub(crate) async fn a_watcher_begins_with_now_unless_told_otherwise(place: &Place) {
    let (anna, bert) = (place.agent("anna"), place.other("bert"));
    note(&anna, "a", "before").await;
    let mut watcher = bert.watch("").await.unwrap();
    assert_eq!(watcher.next_within(Duration::from_millis(30)).await.unwrap(), None);
    note(&anna, "a", "after").await;
    let commit = watcher.next_within(LONG).await.unwrap().unwrap();
    assert_eq!((commit.message.as_deref(), commit.author.as_str()), (Some("after"), "anna"));
}

pub(crate) async fn a_watcher_that_is_dropped_while_it_waits_misses_nothing(place: &Place) {
    let anna = place.agent("anna");
    let mut watcher = anna.watch("").after(Cursor::START).buffer(2).await.unwrap();
    let mut seen = Vec::new();
    for number in 0..20 {
        for polls in 0..6 {
            let next = poll_then_drop(watcher.next(), polls, Duration::from_millis(1)).await;
            seen.extend(next.map(|commit| commit.unwrap().message.unwrap()));
        }
        note(&anna, "a", &number.to_string()).await;
    }
    while seen.len() < 20 {
        seen.push(watcher.next_within(LONG).await.unwrap().unwrap().message.unwrap());
    }
    assert_eq!(seen, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
}

pub(crate) async fn a_cursor_that_is_too_old_is_said_to_be(place: &Place) {
    let mut settings = settings("anna");
    settings.retention = Retention { revisions: Some(1), age: None };
    let anna = place.agent_with(settings);
    for number in 0..9 {
        anna.put("a", number.to_string(), Precondition::Any).await.unwrap();
    }
    anna.tend().await.unwrap();
    let mut watcher = anna.watch("").after(Cursor::START).await.unwrap();
    let error = watcher.next().await.unwrap_err();
    let Error::CursorGone { oldest, .. } = error else { panic!("{error}") };
    let mut watcher = anna.watch("").after(oldest).await.unwrap();
    note(&anna, "b", "later").await;
    assert_eq!(watcher.next_within(LONG).await.unwrap().unwrap().message.as_deref(), Some("later"));
}

pub(crate) async fn a_cursor_that_the_feed_has_not_come_to_is_said_to_be(place: &Place) {
    let anna = place.agent("anna");
    note(&anna, "a", "first").await;
    let head = anna.head().await.unwrap();
    // Other cases go on in the same feed of the server.
    let after = Cursor(head.0 + 1_000_000_000);
    let error = anna.watch("").after(after).await.unwrap_err();
    assert!(matches!(error, Error::CursorAhead { after: told, .. } if told == after), "{error}");
    let watcher = anna.watch("").after(head).await.unwrap();
    assert_eq!(watcher.cursor(), head);
}

/// A write under a key that changes nothing has a place of its own; so has what is written elsewhere.
pub(crate) async fn any_place_that_was_given_out_can_be_gone_on_from(place: &Place) {
    let anna = place.agent("anna");
    note(&anna, "a", "first").await;
    let same = anna.write("a", "first\n").overwrite().key("k".try_into().unwrap()).await.unwrap();
    let mut watcher = anna.watch("").after(same.cursor).await.unwrap();
    note(&anna, "a", "second").await;
    assert_eq!(watcher.next_within(LONG).await.unwrap().unwrap().message.as_deref(), Some("second"));
}
