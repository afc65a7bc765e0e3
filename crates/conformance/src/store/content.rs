//! Content comes back as it went in.

use mutext_contract::{Content, PathPrefix, Precondition};

use crate::StoreFixture;
use crate::support::{Scribe, path, same, soon};

/// JSON keeps its spacing, its key order and its numbers; text keeps every character, also none at all and a great
/// many; to every way of reading it.
pub async fn content_survives_byte_for_byte(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    let json = |text: &str| Content::parse_json(text).expect("valid JSON");
    let contents = [
        Content::text(""),
        Content::text(" \n\r\n\t trailing space \n"),
        Content::text("nul \0, bell \u{7}, byte order mark \u{feff}, e\u{301} and é, עברית, 🦀👩‍👩‍👧"),
        Content::text("'; DROP TABLE documents; -- %s \\ \\u0041 \"${x}\""),
        Content::text("123"),
        Content::text("{\"looks like\": \"JSON\"}"),
        json("{ \"b\": 1.10,\n\n  \"a\" : 12345678901234567890123456789, \"a\": 1e400, \"ü\":\"\\u00fc\\/\" }\n"),
        json("  null"),
        json("-0.0"),
        json("\"\""),
        Content::text("0123456789abcdef".repeat(65_536)),
        Content::text("ü".repeat(300_001)),
    ];
    for (number, content) in contents.iter().enumerate() {
        let at = format!("content/{number:02}");
        anna.committed(&anna.commit().put(path(&at), content.clone(), Precondition::Absent)).await;
        let found = bert.read(&at).await.expect("what was written").content;
        // Not printed whole: it may have a million characters.
        let shown: String = content.as_str().chars().take(80).collect();
        assert!(
            found == *content,
            "expected {:?} of {} bytes, {shown:?}; found {:?} of {} bytes",
            content.kind(),
            content.size(),
            found.kind(),
            found.size()
        );
        let past = bert.history(&at).await.into_iter().next().and_then(|past| past.content);
        assert!(past.as_ref() == Some(content), "expected {shown:?} in the history of {at}");
    }
    let prefix = PathPrefix::new("content/").expect("a valid prefix");
    let listing = bert.store.list(&bert.context, &prefix, None, 100, soon()).await;
    let entries = listing.expect("a listing without trouble").entries;
    let found: Vec<_> = entries.iter().map(|entry| (entry.kind, entry.size)).collect();
    let expected: Vec<_> = contents.iter().map(|content| (content.kind(), content.size())).collect();
    same("kinds and sizes in the listing", &found, &expected);
}
