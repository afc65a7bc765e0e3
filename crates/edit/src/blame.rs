//! Who last touched each line of a text, or each top-level member of a JSON document.

use mutext_contract::{Content, Kind};
use serde::{Deserialize, Serialize};
use similar::{Algorithm, DiffTag, capture_diff_slices};

use crate::lines::without_break;
use crate::place::escaped;
use crate::spans::{Shape, children, root, shape};

/// One line or member, and who last touched it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blamed<R> {
    /// What it is: the line's number, from 1, or the member's JSON Pointer.
    pub at: String,
    /// The line without its break, or the member's value as it was written.
    pub text: String,
    /// The revision that last touched it.
    pub by: R,
}

/// Follows a document through its revisions, oldest first.
///
/// ```
/// # use mutext_edit::Blamer;
/// let mut blamer = Blamer::default();
/// blamer.feed(1, Some(&"a\nb\n".into()));
/// blamer.feed(2, Some(&"a\nB\nc\n".into()));
/// let by: Vec<_> = blamer.finish().into_iter().map(|line| (line.text, line.by)).collect();
/// assert_eq!(by, [("a".to_owned(), 1), ("B".to_owned(), 2), ("c".to_owned(), 2)]);
/// ```
#[derive(Debug, Clone)]
pub struct Blamer<R> {
    kind: Option<Kind>,
    pieces: Vec<Piece<R>>,
}

/// A line, a member, or an item.
#[derive(Debug, Clone)]
struct Piece<R> {
    name: Option<String>,
    text: String,
    /// What it means, for telling whether it changed: blanks between JSON's values mean nothing.
    meaning: String,
    by: R,
}

impl<R> Default for Blamer<R> {
    fn default() -> Self {
        Self { kind: None, pieces: Vec::new() }
    }
}

impl<R: Clone> Blamer<R> {
    /// Goes on to the next revision; `None` for a deletion, after which nothing is left to blame.
    pub fn feed(&mut self, revision: R, content: Option<&Content>) {
        let Some(content) = content else {
            *self = Self::default();
            return;
        };
        let mut pieces = pieces(content, &revision);
        if self.kind == Some(content.kind()) {
            match pieces.first() {
                Some(Piece { name: Some(_), .. }) => self.keep_members(&mut pieces),
                _ => self.keep_runs(&mut pieces),
            }
        }
        (self.kind, self.pieces) = (Some(content.kind()), pieces);
    }

    /// Members that mean the same as before stay with whom they were.
    fn keep_members(&self, pieces: &mut [Piece<R>]) {
        let before: std::collections::HashMap<_, _> = self.pieces.iter().map(|piece| (&piece.name, piece)).collect();
        for piece in pieces {
            if let Some(before) = before.get(&piece.name)
                && before.meaning == piece.meaning
            {
                piece.by = before.by.clone();
            }
        }
    }

    /// Lines, or items, that are still there stay with whom they were.
    fn keep_runs(&self, pieces: &mut [Piece<R>]) {
        let meanings = |pieces: &[Piece<R>]| pieces.iter().map(|piece| piece.meaning.clone()).collect::<Vec<_>>();
        let (before, after) = (meanings(&self.pieces), meanings(pieces));
        for op in capture_diff_slices(Algorithm::Myers, &before, &after) {
            if op.tag() != DiffTag::Equal {
                continue;
            }
            for (old, new) in op.old_range().zip(op.new_range()) {
                if let Some((old, new)) = self.pieces.get(old).zip(pieces.get_mut(new)) {
                    new.by = old.by.clone();
                }
            }
        }
    }

    /// Who last touched what is there now.
    ///
    /// Where the oldest revision fed was not the document's first, what that one is named for may be older.
    pub fn finish(self) -> Vec<Blamed<R>> {
        let is_json = self.kind == Some(Kind::Json);
        let blamed = |(index, piece): (usize, Piece<R>)| {
            let at = match (&piece.name, is_json) {
                (Some(name), _) => format!("/{}", escaped(name)),
                (None, true) => format!("/{index}"),
                (None, false) => (index + 1).to_string(),
            };
            Blamed { at, text: piece.text, by: piece.by }
        };
        // A document that is one number or string has nothing inside it that could be pointed to.
        let is_scalar = |piece: &Piece<R>| piece.name.as_deref() == Some(SCALAR);
        if let (true, [piece]) = (is_json, self.pieces.as_slice())
            && is_scalar(piece)
        {
            return vec![Blamed { at: String::new(), text: piece.text.clone(), by: piece.by.clone() }];
        }
        self.pieces.into_iter().enumerate().map(blamed).collect()
    }
}

/// The name of the one piece of a document that has no parts. No member can be called so by its own text.
const SCALAR: &str = "\u{0}the whole document";

fn pieces<R: Clone>(content: &Content, revision: &R) -> Vec<Piece<R>> {
    let text = content.as_str();
    let piece = |name: Option<String>, text: &str, meaning: String| Piece {
        name,
        text: text.to_owned(),
        meaning,
        by: revision.clone(),
    };
    if content.kind() == Kind::Text {
        return text.split_inclusive('\n').map(|line| piece(None, without_break(line), line.to_owned())).collect();
    }
    let whole = root(text);
    if shape(text, &whole) == Shape::Scalar {
        let text = text.get(whole).unwrap_or_default();
        return vec![piece(Some(SCALAR.to_owned()), text, text.to_owned())];
    }
    let of_child = |child: crate::spans::Child| {
        let text = text.get(child.value).unwrap_or_default();
        piece(child.name, text, meaning(text))
    };
    children(text, &whole).into_iter().map(of_child).collect()
}

/// A JSON text without the blanks between its values; as it stands where it cannot be taken apart.
fn meaning(text: &str) -> String {
    serde_json::from_str::<serde_json::Value>(text).map_or_else(|_| text.to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blamed(revisions: &[Option<Content>]) -> Vec<(String, usize)> {
        let mut blamer = Blamer::default();
        for (number, content) in revisions.iter().enumerate() {
            blamer.feed(number + 1, content.as_ref());
        }
        blamer.finish().into_iter().map(|piece| (format!("{} {}", piece.at, piece.text), piece.by)).collect()
    }

    fn expected<const N: usize>(pieces: [(&str, usize); N]) -> Vec<(String, usize)> {
        pieces.map(|(text, by)| (text.to_owned(), by)).to_vec()
    }

    #[test]
    fn lines_stay_with_whoever_wrote_them() {
        let text = |text: &str| Some(Content::text(text));
        let lines = blamed(&[text("a\nb\nc\n"), text("b\nc\nd"), text("b\nC\nd\n"), text("b\nC\nd\n")]);
        assert_eq!(lines, expected([("1 b", 1), ("2 C", 3), ("3 d", 3)]));
    }

    #[test]
    fn members_stay_with_whoever_changed_their_value() {
        let json = |text: &str| Some(Content::parse_json(text).unwrap());
        let members = blamed(&[
            json(r#"{"a": 1, "b": {"c": [1]}, "gone": 1}"#),
            json(r#"{"b": {"c": [1, 2]}, "a": 1}"#),
            json("{\"b\": {\n\"c\": [1,2]}, \"a\": 1, \"x/y\": 1.0}"),
            json(r#"{"b":{"c":[1,2]},"a":1,"x/y":1.00}"#),
        ]);
        assert_eq!(members, expected([("/b {\"c\":[1,2]}", 2), ("/a 1", 1), ("/x~1y 1.00", 4)]));
        let items = blamed(&[json("[1, {\"a\": 2}]"), json("[0, 1, {\"a\":2}]")]);
        assert_eq!(items, expected([("/0 0", 2), ("/1 1", 1), ("/2 {\"a\":2}", 1)]));
        assert_eq!(blamed(&[json("7"), json(" 7 "), json("8")]), expected([(" 8", 3)]));
    }

    #[test]
    fn after_a_deletion_everything_is_new() {
        let text = |text: &str| Some(Content::text(text));
        assert_eq!(blamed(&[text("a\n"), None, text("a\n")]), expected([("1 a", 3)]));
        assert_eq!(blamed(&[text("a\n"), None]), []);
        assert_eq!(blamed(&[text("[1]"), Some(Content::parse_json("[1]").unwrap())]), expected([("/0 1", 2)]));
    }
}
