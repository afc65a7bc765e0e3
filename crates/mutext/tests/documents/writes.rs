//! Whole documents: never over what the writer has not seen.

use mutext::{Content, Effected, Error, Expiry, Precondition, Retention, Revision};

use crate::common::settings;
use crate::edits::{append, replace, text};
use crate::place::Place;

pub(crate) async fn a_whole_document_needs_a_word_on_what_it_replaces(place: &Place) {
    let anna = place.agent("anna");
    let said = anna.write("plan.md", "one").await.unwrap_err().to_string();
    assert!(said.contains("what it takes the place of") && said.contains("absent"), "{said}");
    anna.write("plan.md", "one").create().await.unwrap();
    let error = anna.write("plan.md", "two").await.unwrap_err();
    assert!(error.to_string().contains("revision that was read (at revision 1)"), "{error}");
    let Error::PreconditionRequired { current: Some(current), .. } = error else { panic!("{error:?}") };
    assert_eq!(current.revision, Revision(1));
    let taken = anna.write("plan.md", "two").create().await;
    assert!(matches!(taken, Err(Error::Conflict(_))), "{taken:?}");
    assert_eq!(text(&anna, "plan.md").await, "one");
}

pub(crate) async fn a_write_says_what_it_did(place: &Place) {
    let anna = place.agent("anna");
    let created = anna.write("plan.md", "one").create().await.unwrap();
    assert_eq!((created.effect, created.revision), (Effected::Created, Revision(1)));
    let written = anna.write("plan.md", "two").at(created.revision).message("better").await.unwrap();
    assert_eq!((written.effect, written.revision), (Effected::Written, Revision(2)));
    let same = anna.write("plan.md", "two").at(written.revision).await.unwrap();
    assert_eq!((same.effect, same.revision, same.cursor), (Effected::Unchanged, Revision(2), written.cursor));
    // What was to be written is there: nothing is lost by saying so.
    let late = anna.write("plan.md", "two").at(created.revision).await.unwrap();
    assert_eq!((late.effect, late.revision), (Effected::Unchanged, Revision(2)));
    let also = anna.write("plan.md", "two").create().await.unwrap();
    assert_eq!((also.effect, also.revision), (Effected::Unchanged, Revision(2)));
    let over = anna.write("plan.md", "three").overwrite().await.unwrap();
    assert_eq!((over.effect, over.revision), (Effected::Written, Revision(3)));
    let over = anna.write("new.md", "new").overwrite().await.unwrap();
    assert_eq!((over.effect, over.revision), (Effected::Created, Revision(1)));
    let history = anna.history("plan.md", None, 9).await.unwrap();
    assert_eq!(history.iter().map(|past| past.overwrote).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(history[1].message.as_deref(), Some("better"));
}

pub(crate) async fn what_would_wear_a_document_down_is_refused(place: &Place) {
    let anna = place.agent("anna");
    let long = "a line of some length\n".repeat(20);
    let revision = anna.write("plan.md", long.as_str()).create().await.unwrap().revision;
    for writing in [anna.write("plan.md", "a line").at(revision), anna.write("plan.md", "a line").overwrite()] {
        let error = writing.await.unwrap_err();
        assert!(error.to_string().contains("only 6 would be left"), "{error}");
    }
    assert_eq!(text(&anna, "plan.md").await, long);
    anna.write("plan.md", "a line").at(revision).allow_shrink().await.unwrap();
}

pub(crate) async fn a_stale_whole_document_is_merged_or_a_conflict_but_never_a_loss(place: &Place) {
    let (curator, user) = (place.agent("curator"), place.other("user"));
    let began = "# Memory\n\nlikes tea\nlives in Ulm\n\n# Log\n\n";
    let read = user.write("memory.md", began).create().await.unwrap().revision;
    // It reads, thinks for two minutes, and meanwhile others go on.
    let theirs: Vec<_> = (0..20).map(|number| format!("entry {number}")).collect();
    for entry in &theirs {
        user.edit("memory.md", [append(entry)]).await.unwrap();
    }
    let mine = began.replace("likes tea", "likes green tea");
    let plain = curator.write("memory.md", mine.as_str()).at(read).await;
    let Err(Error::Conflict(conflict)) = plain else { panic!("{plain:?}") };
    assert_eq!(conflict.precondition, Precondition::Exact(read));
    let merged = curator.write("memory.md", mine.as_str()).at(read).merge().message("curate").await.unwrap();
    let Effected::Merged(how) = merged.effect else { panic!("{merged:?}") };
    assert_eq!((how.with, merged.revision), (Revision(21), Revision(22)));
    assert_eq!((how.foreign.added, how.foreign.removed), (20, 0));
    let now = text(&user, "memory.md").await;
    assert_eq!(now, how.content.as_str());
    assert!(now.contains("likes green tea"), "{now}");
    assert_eq!(now.lines().filter(|line| line.starts_with("entry")).collect::<Vec<_>>(), theirs);

    // Where both touched the same line, nothing is written.
    user.edit("memory.md", [replace("lives in Ulm", "lives in Bonn")]).await.unwrap();
    let mine = began.replace("lives in Ulm", "lives in Kiel");
    let late = curator.write("memory.md", mine.as_str()).at(read).merge().await;
    let Err(Error::Conflict(conflict)) = late else { panic!("{late:?}") };
    assert_eq!(conflict.current.unwrap().revision, Revision(23));
    assert!(text(&user, "memory.md").await.contains("lives in Bonn"));
    // So it is where the document is gone.
    user.delete("memory.md", Precondition::Any).await.unwrap();
    let late = curator.write("memory.md", mine.as_str()).at(read).merge().await;
    assert!(matches!(late, Err(Error::Conflict(_))), "{late:?}");
}

pub(crate) async fn a_merge_of_a_forgotten_base_is_a_conflict(place: &Place) {
    let mut settings = settings("anna");
    settings.retention = Retention { revisions: Some(2), age: None };
    let anna = place.agent_with(settings);
    let read = anna.write("plan.md", "one\ntwo\nthree\n").create().await.unwrap().revision;
    for number in 0..5 {
        anna.edit("plan.md", [append(&number.to_string())]).await.unwrap();
    }
    anna.tend().await.unwrap();
    let late = anna.write("plan.md", "zero\ntwo\nthree\n").at(read).merge().await;
    let Err(Error::Conflict(conflict)) = late else { panic!("{late:?}") };
    let mine = Content::text("zero\ntwo\nthree\n");
    let explained = anna.explain(&conflict, Some(&mine)).await.unwrap();
    assert!(explained.diff.is_none() && explained.merge.is_none() && !explained.since.is_empty(), "{explained:?}");
    // A revision that is still to come is no base either.
    let early = anna.write("plan.md", "zero\n").at(Revision(70)).merge().await;
    assert!(matches!(early, Err(Error::Conflict(_))), "{early:?}");
}

pub(crate) async fn the_same_write_under_the_same_key_happens_once(place: &Place) {
    let (anna, bert) = (place.agent("anna"), place.other("bert"));
    let read = anna.write("plan.md", "one\ntwo\nthree\n").create().await.unwrap().revision;
    bert.edit("plan.md", [append("four")]).await.unwrap();
    let key = || "k".try_into().unwrap();
    let write = || anna.write("plan.md", "1\ntwo\nthree\n").at(read).merge().expires(Expiry::Never).key(key());
    let written = write().await.unwrap();
    assert!(matches!(written.effect, Effected::Merged(_)), "{written:?}");
    bert.edit("plan.md", [append("five")]).await.unwrap();
    let again = write().await.unwrap();
    assert_eq!((again.revision, again.cursor, again.replayed), (written.revision, written.cursor, true));
    let other = anna.write("plan.md", "1\n").at(read).merge().key(key()).await;
    assert!(matches!(other, Err(Error::KeyReused { .. })), "{other:?}");
    assert_eq!(text(&anna, "plan.md").await, "1\ntwo\nthree\nfour\nfive\n");
}
