//! How a JSON document is written, and writing another value in the same way.

use std::io;

use mutext_contract::Content;
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use crate::lines::line_break;

/// What is between two values of a JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Style {
    /// The indentation of one level; `None`: on one line.
    indent: Option<String>,
    /// On one line: with a blank after commas.
    comma_blank: bool,
    /// On one line: with a blank after colons.
    colon_blank: bool,
    line_break: &'static str,
    /// What follows the value: a final line break, most often.
    end: String,
}

/// The widest indentation that is taken for one.
const INDENT_MAX: usize = 8;

impl Style {
    /// How `text`, which is JSON, is written.
    pub(crate) fn of(text: &str) -> Self {
        let end = text.get(text.trim_end().len()..).unwrap_or_default();
        let text = text.trim();
        let indents = text.split('\n').skip(1).map(|line| &line[..line.len() - line.trim_start().len()]);
        let indent = text.contains('\n').then(|| {
            let mut found = indents.filter(|indent| !indent.is_empty() && indent.len() <= INDENT_MAX);
            found.next().unwrap_or("  ").to_owned()
        });
        let (comma, colon) = (is_blank_after(text, b','), is_blank_after(text, b':'));
        Self {
            indent,
            comma_blank: comma.or(colon).unwrap_or(false),
            colon_blank: colon.or(comma).unwrap_or(false),
            line_break: line_break(text),
            end: end.to_owned(),
        }
    }

    /// `value` written in this way.
    pub(crate) fn write(&self, value: &Value) -> String {
        let mut bytes = Vec::new();
        let written = if let Some(indent) = &self.indent {
            let formatter = PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut bytes, formatter))
        } else {
            let formatter = OnOneLine { comma_blank: self.comma_blank, colon_blank: self.colon_blank };
            value.serialize(&mut Serializer::with_formatter(&mut bytes, formatter))
        };
        debug_assert!(written.is_ok(), "a value can always be written to memory");
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        if self.line_break != "\n" {
            // Inside strings a line break is always escaped, so these are the ones between values.
            text = text.replace('\n', self.line_break);
        }
        text + &self.end
    }
}

/// Whether the first `mark` outside a string is followed by a blank; `None` where there is none.
fn is_blank_after(text: &str, mark: u8) -> Option<bool> {
    let (mut in_string, mut escaped) = (false, false);
    for pair in text.as_bytes().windows(2) {
        match (in_string, pair[0]) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, byte) if byte == mark => return Some(pair[1] == b' '),
            _ => {}
        }
    }
    None
}

struct OnOneLine {
    comma_blank: bool,
    colon_blank: bool,
}

impl OnOneLine {
    fn comma<W: ?Sized + io::Write>(&self, writer: &mut W, first: bool) -> io::Result<()> {
        match (first, self.comma_blank) {
            (true, _) => Ok(()),
            (false, true) => writer.write_all(b", "),
            (false, false) => writer.write_all(b","),
        }
    }
}

impl Formatter for OnOneLine {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.comma(writer, first)
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.comma(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(if self.colon_blank { b": " } else { b":" })
    }
}

/// `value` as JSON content, written like `like`; where there is nothing to be like, on one line.
pub(crate) fn written_like(value: &Value, like: Option<&Content>) -> Content {
    let style = like.map_or_else(|| Style::of(""), |like| Style::of(like.as_str()));
    let text = style.write(value);
    // What was just written as JSON is JSON: the fallback is for the compiler.
    Content::parse_json(text.as_str()).unwrap_or_else(|_| Content::text(text))
}

/// A JSON document's value on lines of its own, two blanks a level; `None` where it cannot be taken apart.
pub(crate) fn laid_out(content: &Content) -> Option<String> {
    let style = Style {
        indent: Some("  ".to_owned()),
        comma_blank: false,
        colon_blank: true,
        line_break: "\n",
        end: "\n".to_owned(),
    };
    Some(style.write(&content.parse::<Value>().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(text: &str) -> String {
        Style::of(text).write(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn what_is_written_in_a_common_way_is_written_the_same_again() {
        for text in [
            "{\"a\":[1,2],\"b\":{}}",
            "{\"a\":[1,2],\"b\":{}}\n",
            "{\"a\": [1, 2], \"b\": {\"c:,\": 1.10}}",
            "{\n  \"a\": [\n    1,\n    2\n  ],\n  \"b\": {}\n}\n",
            "{\n    \"a\": [\n        1e+5\n    ]\n}",
            "[\n\t{\n\t\t\"a\": \"x\\ny, z: \\\" ,\"\n\t}\n]\n\n",
            "{\r\n  \"a\": 12345678901234567890123\r\n}\r\n",
            "7",
        ] {
            assert_eq!(rewritten(text), text);
        }
        assert_eq!(rewritten("[\n1]"), "[\n  1\n]");
    }
}
