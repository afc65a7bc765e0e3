//! Reads that cost no more than they must.

use mutext::{Content, Error, Onward, Precondition, Retention, Revision, Shown};

use crate::common::settings;
use crate::edits::{append, replace};
use crate::place::Place;

fn lines(text: &str) -> String {
    (0..100).map(|number| format!("line {number}{text}\n")).collect::<Vec<_>>().concat()
}

pub(crate) async fn a_reader_who_knows_a_revision_is_told_what_changed_since(place: &Place) {
    let (anna, bert) = (place.agent("anna"), place.other("bert"));
    assert_eq!(anna.read("plan.md").await.unwrap(), Shown::Absent);
    let long = lines(" of the plan");
    let read = anna.write("plan.md", long.as_str()).create().await.unwrap().revision;
    let Shown::Whole(document) = bert.read("plan.md").await.unwrap() else { panic!("expected all of it") };
    assert_eq!((document.revision, document.content.as_str()), (read, long.as_str()));
    let Shown::Unchanged(entry) = bert.read("plan.md").if_revision(read).await.unwrap() else { panic!() };
    assert_eq!((entry.revision, entry.size), (read, long.len()));

    anna.edit("plan.md", [replace("line 50 of", "line fifty of")]).await.unwrap();
    let shown = bert.read("plan.md").if_revision(read).await.unwrap();
    let Shown::Changed(entry, diff) = shown else { panic!("{shown:?}") };
    assert_eq!((entry.revision, entry.author.as_str()), (Revision(2), "anna"));
    assert!(diff.text.contains("-line 50 of the plan\n+line fifty of the plan\n"), "{diff}");
    // Where nearly all is new, the whole is shorter to read; so it is where the reader's revision is not known.
    anna.write("plan.md", "nothing of it is left").overwrite().allow_shrink().await.unwrap();
    for known in [read, Revision(70)] {
        let shown = bert.read("plan.md").if_revision(known).await.unwrap();
        assert!(matches!(&shown, Shown::Whole(document) if document.revision == Revision(3)), "{shown:?}");
    }
}

pub(crate) async fn a_part_is_read_without_the_rest(place: &Place) {
    let anna = place.agent("anna");
    let text = "# Plan\n\n## Phase 1\nmeasure\n\n## Phase 2\ncut\n\n# Notes\nnone\n";
    let read = anna.write("plan.md", text).create().await.unwrap().revision;
    let Shown::Outline(_, outline) = anna.read("plan.md").outline().await.unwrap() else { panic!() };
    let parts: Vec<_> = outline.parts.iter().map(|part| part.at.as_str()).collect();
    assert_eq!(parts, ["Plan", "Plan/Phase 1", "Plan/Phase 2", "Notes"]);
    let shown = anna.read("plan.md").section("Phase 2").await.unwrap();
    let Shown::Part(entry, section) = shown else { panic!("{shown:?}") };
    assert_eq!((section.view.text.as_str(), section.next, entry.size), ("## Phase 2\ncut\n\n", None, text.len()));
    let Shown::Part(_, lines) = anna.read("plan.md").lines(9, 99).await.unwrap() else { panic!() };
    assert_eq!(lines.view.text, "# Notes\nnone\n");
    let json = Content::parse_json("{\"a\": {\"b\": [1.10, 2]}}").unwrap();
    anna.write("data.json", json).create().await.unwrap();
    let Shown::Part(_, value) = anna.read("data.json").pointer("/a/b").await.unwrap() else { panic!() };
    assert_eq!(value.view.text, "[1.10, 2]");

    // A part that is as it was is unchanged, whatever happened to the rest.
    anna.edit("plan.md", [append("more")]).await.unwrap();
    let shown = anna.read("plan.md").section("Phase 2").if_revision(read).await.unwrap();
    assert!(matches!(&shown, Shown::Unchanged(entry) if entry.revision == Revision(2)), "{shown:?}");
    let shown = anna.read("plan.md").section("Notes").if_revision(read).await.unwrap();
    assert!(matches!(shown, Shown::Part(..)), "{shown:?}");

    let error = anna.read("plan.md").section("Phase 3").await.unwrap_err();
    assert!(matches!(error, Error::Unviewable { .. }));
    assert!(error.to_string().contains("plan.md: there is no section \"Phase 3\""), "{error}");
    assert!(anna.read("plan.md").pointer("/a").await.is_err());
}

pub(crate) async fn a_long_document_is_read_in_pieces_of_one_revision(place: &Place) {
    let mut settings = settings("anna");
    settings.retention = Retention { revisions: Some(1), age: None };
    let (anna, bert) = (place.agent_with(settings), place.other("bert"));
    let long = lines(" of the plan, with an ü");
    anna.write("plan.md", long.as_str()).create().await.unwrap();
    let (mut read, mut next, mut pieces) = (String::new(), None::<Onward>, 0);
    loop {
        let reading = bert.read("plan.md").budget(500);
        let shown = match next {
            // As text, as an agent hands it in.
            Some(next) => {
                let next: Onward = next.to_string().parse().unwrap();
                reading.if_revision(next.revision).go_on(next).await.unwrap()
            }
            None => reading.await.unwrap(),
        };
        let Shown::Part(entry, section) = shown else { panic!("{shown:?}") };
        assert!(section.view.text.len() <= 500 && section.view.text.ends_with('\n'));
        assert_eq!(entry.revision, Revision(1));
        read.push_str(&section.view.text);
        pieces += 1;
        // What is written meanwhile does not mix with it.
        if pieces == 2 {
            anna.put("plan.md", format!("changed\n{long}"), Precondition::Any).await.unwrap();
        }
        match section.next {
            Some(_) => next = section.next,
            None => break,
        }
    }
    assert_eq!(read, long);
    assert!(pieces > 5);
    anna.tend().await.unwrap();
    let gone = bert.read("plan.md").budget(500).go_on(next.unwrap()).await;
    assert!(matches!(gone, Err(Error::NoRevision { .. })), "{gone:?}");
    assert!("17".parse::<Onward>().unwrap_err().to_string().contains("17:4096"));
    let beyond = bert.read("plan.md").go_on(Onward { revision: Revision(2), byte: 1 << 40 }).await;
    assert!(matches!(beyond, Err(Error::Unviewable { .. })), "{beyond:?}");
}

pub(crate) async fn blame_names_who_last_touched_each_line(place: &Place) {
    let (anna, bert) = (place.agent("anna"), place.other("bert"));
    assert_eq!(anna.blame("plan.md").await.unwrap(), None);
    anna.write("plan.md", "one\ntwo\n").create().message("begin").await.unwrap();
    for number in 0..250 {
        bert.edit("plan.md", [append(&number.to_string())]).await.unwrap();
    }
    anna.edit("plan.md", [replace("two\n0\n", "2\n0\n")]).message("shorter").await.unwrap();
    let blame = bert.blame("plan.md").await.unwrap().unwrap();
    assert_eq!((blame.revision, blame.oldest, blame.lines.len()), (Revision(252), Revision(1), 252));
    let by = |line: usize| {
        let line = &blame.lines[line];
        let who = &blame.revisions[&line.by];
        (line.text.as_str(), who.author.as_str(), who.message.as_deref())
    };
    assert_eq!(by(0), ("one", "anna", Some("begin")));
    assert_eq!(by(1), ("2", "anna", Some("shorter")));
    assert_eq!((by(2), by(251)), (("0", "bert", None), ("249", "bert", None)));
    assert_eq!(blame.revisions.len(), 252);

    // Where the past is forgotten, it is said how far it goes back.
    let mut settings = settings("carl");
    settings.retention = Retention { revisions: Some(10), age: None };
    place.agent_with(settings).tend().await.unwrap();
    let blame = bert.blame("plan.md").await.unwrap().unwrap();
    assert_eq!((blame.oldest, blame.lines[0].by, blame.lines[251].by), (Revision(243), Revision(243), Revision(251)));
}
