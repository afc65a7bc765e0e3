//! Whole contexts out and in again.

use std::time::Duration;

use mutext::{Content, Context, Cursor, Error, Expiry, Imported, Part, Precondition, Retention};

use crate::common::settings;
use crate::edits::{append, text};
use crate::place::Place;

async fn export(context: &Context) -> Vec<String> {
    let (mut export, mut lines) = (context.export().await.unwrap(), Vec::new());
    while let Some(line) = export.next().await.unwrap() {
        assert!(!line.contains('\n'));
        lines.push(line);
    }
    lines
}

async fn import(context: &Context, lines: &[String]) -> Result<Imported, Error> {
    let mut import = context.import();
    for line in lines {
        import.line(format!("{line}\n").as_bytes())?;
    }
    import.finish().await
}

/// A context with all that there can be.
async fn furnished(place: &Place) -> Context {
    let anna = place.agent("anna");
    anna.write("a b/ü.md", "zwölf Boxkämpfer\r\n\0\u{1f600}").create().message("odd \"one\"").await.unwrap();
    let json = Content::parse_json("{\"b\": 1.10,\n \"a\": 12345678901234567890123}").unwrap();
    anna.write("data.json", json).create().await.unwrap();
    anna.write("a b/ü.md", "second").overwrite().await.unwrap();
    anna.delete("a b/ü.md", Precondition::Any).await.unwrap();
    place.other("bert").write("a b/ü.md", "third").create().await.unwrap();
    let hour = Expiry::After(Duration::from_secs(3600));
    anna.edit("scratch", [append("for an hour")]).expires(hour).await.unwrap();
    let parts = ["l", "r"].map(|path| Part::put(path.try_into().unwrap(), path.into()).create());
    anna.change_all(parts).message("both").await.unwrap();
    anna.put("person", "secret", Precondition::Absent).await.unwrap();
    anna.purge("person", "asked").await.unwrap();
    anna
}

async fn everything(context: &Context) -> Vec<String> {
    let mut all = Vec::new();
    let documents = context.snapshot("").await.unwrap().all().await.unwrap();
    for document in &documents {
        all.push(format!("{document:?} {:?}", context.history(document.path.as_str(), None, 99).await.unwrap()));
    }
    for commit in context.changes(Cursor::START, 999, Duration::ZERO).await.unwrap() {
        all.push(format!("{} {:?} {:?} {:?}", commit.author, commit.message, commit.written_at, commit.changes));
    }
    all
}

pub(crate) async fn an_archive_brings_everything_into_another_context(place: &Place) {
    let anna = furnished(place).await;
    // More than one page.
    for number in 0..205 {
        anna.edit("log", [append(&number.to_string())]).await.unwrap();
    }
    let lines = export(&anna).await;
    assert!(lines.iter().all(|line| !line.contains("secret")));
    let copy = place.elsewhere("bert");
    let imported = import(&copy, &lines).await.unwrap();
    assert_eq!(imported.documents, 7);
    assert_eq!(imported.cursor, copy.changes(Cursor::START, 999, Duration::ZERO).await.unwrap().pop().unwrap().cursor);
    assert_eq!(everything(&copy).await, everything(&anna).await);
    let next = copy.edit("a b/ü.md", [append("x")]).await.unwrap();
    assert_eq!(next.revision.0, 5);
    // An archive of the copy says the same again, but for the places and what it is called.
    let again = export(&copy).await;
    assert_eq!(again.len(), lines.len() + 2);
}

pub(crate) async fn an_archive_that_is_not_whole_is_refused_and_nothing_is_written(place: &Place) {
    let anna = furnished(place).await;
    let lines = export(&anna).await;
    let copy = place.elsewhere("bert");
    let refused = async |lines: &[String]| import(&copy, lines).await.unwrap_err().to_string();
    for length in 0..lines.len() {
        let said = refused(&lines[..length]).await;
        assert!(said.contains(&format!("cut short after line {length}")), "{said}");
    }
    // In the middle of a line.
    let mut torn = lines.clone();
    let last = torn.pop().unwrap();
    torn.push(last[..last.len() / 2].to_owned());
    assert!(refused(&torn).await.contains(&format!("line {}", lines.len())));
    for place in 1..lines.len() - 1 {
        let mut missing = lines.clone();
        missing.remove(place);
        refused(&missing).await;
    }
    let altered: Vec<_> = lines.iter().map(|line| line.replace("third", "tihrd")).collect();
    assert!(refused(&altered).await.contains("altered"));
    let newer: Vec<_> = lines.iter().map(|line| line.replace("\"format\":1", "\"format\":2")).collect();
    assert!(refused(&newer).await.contains("newer build"));
    let more = [lines.clone(), vec![lines[1].clone()]].concat();
    assert!(refused(&more).await.contains("more after the last line"));
    assert!(refused(&["# notes".to_owned()]).await.contains("does not begin like an archive"));
    let mut bytes = copy.import();
    bytes.line(lines[0].as_bytes()).unwrap();
    assert!(bytes.line(b"{\"commit\": \"\xff\"}").unwrap_err().to_string().contains("line 2: it is not UTF-8"));
    assert_eq!(everything(&copy).await, Vec::<String>::new());
}

pub(crate) async fn an_archive_goes_into_an_empty_context_only(place: &Place) {
    let anna = furnished(place).await;
    let lines = export(&anna).await;
    let copy = place.elsewhere("bert");
    copy.put("plan.md", "mine", Precondition::Absent).await.unwrap();
    let refused = import(&copy, &lines).await;
    assert!(matches!(refused, Err(Error::ContextNotEmpty { .. })), "{refused:?}");
    assert_eq!(text(&copy, "plan.md").await, "mine");
    assert_eq!(copy.list("").await.unwrap().len(), 1);
    // An empty context has an archive too.
    let empty = export(&place.elsewhere("carl")).await;
    assert!(empty.len() > 2);
}

pub(crate) async fn an_archive_of_what_is_forgotten_while_it_is_made_is_not_finished(place: &Place) {
    let mut settings = settings("anna");
    settings.retention = Retention { revisions: Some(1), age: None };
    let anna = place.agent_with(settings);
    anna.put("plan.md", "1", Precondition::Absent).await.unwrap();
    let mut export = anna.export().await.unwrap();
    export.next().await.unwrap().unwrap();
    anna.put("plan.md", "2", Precondition::Any).await.unwrap();
    anna.tend().await.unwrap();
    let error = loop {
        match export.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended as if it were whole"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::CursorGone { .. }), "{error}");
}
