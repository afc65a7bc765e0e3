//! What holds for every view: pieces together are the part, parts are what stands in the document, blame is complete.

#![expect(clippy::unwrap_used, reason = "a test that cannot make its input fails")]

use mutext_contract::Content;
use mutext_edit::{Blamer, OutlineOptions, Part, outline, view};
use proptest::prelude::*;
use serde_json::{Map, Value};

fn markdown() -> impl Strategy<Value = String> {
    "((#{1,3} [ab/]{1,2}|[aä> -]{0,3}|```|---|===)(\r\n|\n)){0,12}[ab]{0,1}"
}

fn json_text() -> impl Strategy<Value = (Value, String)> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        "[a\\\\\"{}\\[\\],: ]{0,4}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[ab/~\"\\\\]{0,2}", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    });
    (value, any::<bool>()).prop_map(|(value, pretty)| {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        (value, format!(" {}\n", text.unwrap()))
    })
}

/// Everything that a part shows, in pieces of at most so many bytes.
fn pieces(content: &Content, part: &Part, bytes_max: usize) -> String {
    let (mut text, mut from) = (String::new(), None);
    loop {
        let view = view(content, part, from, bytes_max).unwrap();
        assert!(view.text.len() <= bytes_max || view.text.chars().count() == 1);
        text.push_str(&view.text);
        from = view.next;
        if from.is_none() {
            return text;
        }
    }
}

proptest! {
    #[test]
    fn pieces_together_are_the_part(text in markdown(), bytes_max in 0..20_usize) {
        let content = Content::text(text.as_str());
        prop_assert_eq!(pieces(&content, &Part::Whole, bytes_max), text);
    }

    #[test]
    fn every_section_of_an_outline_can_be_asked_for(text in markdown()) {
        let content = Content::text(text.as_str());
        let outline = outline(&content, OutlineOptions::default());
        for part in &outline.parts {
            let lines = Part::Lines { first: part.lines.first, last: part.lines.first + part.lines.count - 1 };
            let shown = view(&content, &lines, None, usize::MAX).unwrap().text;
            prop_assert_eq!(shown.len(), part.bytes, "a section is whole lines");
            if outline.parts.iter().filter(|other| other.at == part.at).count() == 1 {
                let section = Part::Section(part.at.clone());
                prop_assert_eq!(view(&content, &section, None, usize::MAX).unwrap().text, shown);
            }
        }
    }

    #[test]
    fn every_value_of_an_outline_is_what_its_pointer_means((value, text) in json_text(), depth in 0..4_usize) {
        let content = Content::parse_json(text).unwrap();
        for part in outline(&content, OutlineOptions { depth: Some(depth), ..OutlineOptions::default() }).parts {
            let shown = view(&content, &Part::Pointer(part.at.clone()), None, usize::MAX).unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(&shown.text).ok(), value.pointer(&part.at).cloned());
            prop_assert_eq!((shown.text.len(), shown.lines), (part.bytes, part.lines));
        }
    }

    #[test]
    fn blame_names_every_line_and_nobody_who_did_not_change_it(texts in prop::collection::vec("([abc]\n){0,6}", 1..6)) {
        let mut blamer = Blamer::default();
        for (revision, text) in texts.iter().enumerate() {
            blamer.feed(revision, Some(&text.as_str().into()));
        }
        let blamed = blamer.finish();
        let last = texts.last().unwrap();
        prop_assert!(blamed.iter().map(|line| line.text.as_str()).eq(last.lines()));
        for line in blamed {
            // It was there in each revision from the one that is blamed for it.
            prop_assert!(texts.iter().skip(line.by).all(|text| text.lines().any(|one| one == line.text)));
        }
    }
}
