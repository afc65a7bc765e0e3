//! Where the values of a JSON text stand in it, so that a part can be shown exactly as it was written.
//!
//! The text is known to be JSON, so brackets and quotes are all there is to look at, and no nesting is too deep.

use std::ops::Range;

/// A member of an object, or an item of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Child {
    /// A member's name; `None` for an item.
    pub(crate) name: Option<String>,
    /// Where it begins: with its name, if it has one.
    pub(crate) start: usize,
    /// Where its value stands.
    pub(crate) value: Range<usize>,
}

/// What a value is, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Object,
    List,
    Scalar,
}

/// Where the whole value of a JSON text stands: without blanks around it.
pub(crate) fn root(text: &str) -> Range<usize> {
    let start = text.len() - text.trim_start().len();
    start..text.trim_end().len().max(start)
}

/// What stands there.
pub(crate) fn shape(text: &str, value: &Range<usize>) -> Shape {
    match text.as_bytes().get(value.start) {
        Some(b'{') => Shape::Object,
        Some(b'[') => Shape::List,
        _ => Shape::Scalar,
    }
}

/// The members or items of the value that stands there, in order; none for a scalar.
pub(crate) fn children(text: &str, value: &Range<usize>) -> Vec<Child> {
    let shape = shape(text, value);
    let mut children = Vec::new();
    if shape == Shape::Scalar {
        return children;
    }
    let mut at = blanks(text, value.start + 1);
    while at + 1 < value.end {
        let start = at;
        let mut name = None;
        if shape == Shape::Object {
            let end = value_end(text, at);
            name = Some(text.get(at..end).and_then(|name| serde_json::from_str(name).ok()).unwrap_or_default());
            // The colon, and blanks around it.
            at = blanks(text, blanks(text, end) + 1);
        }
        let end = value_end(text, at);
        if end <= at {
            break;
        }
        children.push(Child { name, start, value: at..end });
        // The comma, or the bracket at the end.
        at = blanks(text, blanks(text, end) + 1);
    }
    children
}

/// The value where a pointer leads, given its tokens; else how many of them lead to something, and to what.
pub(crate) fn find(text: &str, tokens: &[String]) -> Result<Range<usize>, (usize, Range<usize>)> {
    let mut here = root(text);
    for (way, token) in tokens.iter().enumerate() {
        let below = children(text, &here);
        let found = match shape(text, &here) {
            // Of two members with one name the last one counts, as for the parser.
            Shape::Object => below.into_iter().rev().find(|child| child.name.as_deref() == Some(token)),
            Shape::List => crate::place::index(token).and_then(|index| below.into_iter().nth(index)),
            Shape::Scalar => None,
        };
        here = found.ok_or((way, here))?.value;
    }
    Ok(here)
}

/// The first place from `at` that is no blank.
fn blanks(text: &str, at: usize) -> usize {
    let rest = text.as_bytes().get(at..).unwrap_or_default();
    at + rest.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(rest.len())
}

/// Where the value that begins at `at` ends.
fn value_end(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (place, byte) in bytes.iter().enumerate().skip(at) {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => continue,
            }
            if !in_string && depth == 0 {
                return place + 1;
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' | b',' | b':' if depth == 0 => return place,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return place + 1;
                }
            }
            byte if depth == 0 && byte.is_ascii_whitespace() => return place,
            _ => {}
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place;

    fn shown(text: &str, pointer: &str) -> Option<String> {
        let found = find(text, &place::tokens(pointer).unwrap()).ok()?;
        text.get(found).map(str::to_owned)
    }

    #[test]
    fn values_are_found_as_they_were_written() {
        let text = " {\"a\" : [1, \"],\\\\\\\"\" ,{ }, 1.10 ],\n\"b/~\":{\"c\":null}, \"a\":\t[ true,[[ ]] ] } \n";
        assert_eq!(shown(text, "/a/0").as_deref(), Some("true"), "the last of two counts");
        assert_eq!(shown(text, "/a/1").as_deref(), Some("[[ ]]"));
        assert_eq!(shown(text, "/b~1~0/c").as_deref(), Some("null"));
        assert_eq!(shown(text, "/b~1~0").as_deref(), Some("{\"c\":null}"));
        assert_eq!(shown(text, "").as_deref(), Some(text.trim()));
        let first = &children(text, &root(text))[0];
        let items: Vec<_> = children(text, &first.value).into_iter().map(|child| &text[child.value]).collect();
        assert_eq!(items, ["1", "\"],\\\\\\\"\"", "{ }", "1.10"]);
    }

    #[test]
    fn a_pointer_that_leads_nowhere_says_how_far_it_goes() {
        let tokens = place::tokens("/a/1/x").unwrap();
        assert_eq!(find("{\"a\":[0]}", &tokens), Err((1, 5..8)));
        assert_eq!(find("7", &place::tokens("/a").unwrap()), Err((0, 0..1)));
        assert!(children("[]", &(0..2)).is_empty() && children("{ }", &(0..3)).is_empty());
    }

    #[test]
    fn no_nesting_is_too_deep() {
        let deep = ["[".repeat(100_000), "]".repeat(100_000)].concat();
        assert_eq!(children(&deep, &root(&deep)).len(), 1);
    }
}
