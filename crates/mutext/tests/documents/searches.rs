//! Finding documents, and reading many of them as of one moment.

use mutext::{Error, Precondition};

use crate::edits::{append, replace};
use crate::place::Place;

pub(crate) async fn a_search_shows_where_the_words_are(place: &Place) {
    let anna = place.agent("anna");
    anna.put("plans/a", "measure twice, cut once", Precondition::Absent).await.unwrap();
    anna.put("plans/b", "the next step is to measure", Precondition::Absent).await.unwrap();
    anna.put("notes/c", "measure nothing", Precondition::Absent).await.unwrap();
    let found = async |query: &str, prefix: &str| {
        let hits = anna.search(query, prefix, 9).await.unwrap();
        let mut paths: Vec<_> = hits.iter().map(|hit| hit.path.to_string()).collect();
        paths.sort_unstable();
        paths.join(" ")
    };
    assert_eq!(found("measure", "").await, "notes/c plans/a plans/b");
    assert_eq!(found("measure", "plans/").await, "plans/a plans/b");
    assert_eq!(found("\"next step\" meas* -twice", "").await, "plans/b");
    let hit = anna.search("twice", "", 9).await.unwrap().remove(0);
    assert!(hit.snippet.contains("**twice**"), "{}", hit.snippet);
    let nothing = anna.search(" -done ", "", 9).await;
    assert!(matches!(nothing, Err(Error::InvalidQuery(_))), "{nothing:?}");
}

pub(crate) async fn a_snapshot_stays_as_it_was(place: &Place) {
    let (anna, bert) = (place.agent("anna"), place.other("bert"));
    for number in 0..150 {
        anna.put(format!("notes/{number:03}").as_str(), "before", Precondition::Absent).await.unwrap();
    }
    let mut snapshot = bert.snapshot("notes/").await.unwrap();
    let mut watcher = bert.watch("").after(snapshot.cursor()).await.unwrap();
    let mut count = 0;
    while let Some(document) = snapshot.next().await.unwrap() {
        assert_eq!((document.path.as_str(), document.content.as_str()), (&*format!("notes/{count:03}"), "before"));
        if count == 10 {
            anna.edit("notes/149", [replace("before", "after")]).await.unwrap();
            anna.delete("notes/148", Precondition::Any).await.unwrap();
            anna.edit("notes/new", [append("new")]).await.unwrap();
        }
        count += 1;
    }
    assert_eq!(count, 150);
    // Whoever goes on from its place misses nothing.
    let mut changed = Vec::new();
    while let Some(commit) = watcher.next_within(std::time::Duration::from_millis(100)).await.unwrap() {
        changed.extend(commit.changes.into_iter().map(|(path, ..)| path.to_string()));
    }
    assert_eq!(changed, ["notes/149", "notes/148", "notes/new"]);
    assert_eq!(bert.snapshot("notes/1").await.unwrap().all().await.unwrap().len(), 49);
}
