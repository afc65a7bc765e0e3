//! Searching documents: what is looked for, and what is found.

use std::str::FromStr;

use crate::{DocumentPath, Revision};

/// What a search looks for: all words and phrases, and none of those that are excluded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// In the order in which they were given.
    pub terms: Vec<Term>,
}

/// One thing that a search looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// A word, or several that must follow each other.
    pub text: String,
    /// Whether the last word may go on.
    pub is_prefix: bool,
    /// Whether it must not occur.
    pub is_excluded: bool,
}

/// A search that looks for nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the search {0:?} names no word to look for; as in: plan \"next step\" meas* -done")]
pub struct InvalidQuery(pub String);

impl FromStr for Query {
    type Err = InvalidQuery;

    /// Words, `"phrases"`, `word*` for all that begin so, `-word` for what must not occur.
    fn from_str(text: &str) -> Result<Self, InvalidQuery> {
        let mut terms = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let is_excluded = rest.starts_with('-');
            let begins = if is_excluded { &rest[1..] } else { rest };
            let (term, after) = match begins.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
                None => begins.split_once(char::is_whitespace).unwrap_or((begins, "")),
            };
            let (after, goes_on) = after.strip_prefix('*').map_or((after, false), |after| (after, true));
            let is_prefix = goes_on || term.ends_with('*');
            let term = term.trim_matches(|character: char| !character.is_alphanumeric());
            if !term.is_empty() {
                terms.push(Term { text: term.to_owned(), is_prefix, is_excluded });
            }
            rest = after.trim_start();
        }
        if terms.iter().all(|term| term.is_excluded) {
            return Err(InvalidQuery(text.to_owned()));
        }
        Ok(Self { terms })
    }
}

/// A document that a search has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Which one.
    pub path: DocumentPath,
    /// At which revision.
    pub revision: Revision,
    /// A piece of it, with `**` around what was looked for.
    pub snippet: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(text: &str) -> Vec<(String, bool, bool)> {
        let query: Query = text.parse().unwrap();
        query.terms.into_iter().map(|term| (term.text, term.is_prefix, term.is_excluded)).collect()
    }

    #[test]
    fn words_phrases_beginnings_and_exclusions_are_told_apart() {
        let expected =
            [("plan", false, false), ("next step", false, false), ("meas", true, false), ("done", false, true)];
        let expected: Vec<_> = expected.map(|(text, prefix, excluded)| (text.to_owned(), prefix, excluded)).into();
        assert_eq!(terms("  plan \"next step\" meas* -done"), expected);
        assert_eq!(
            terms("-\"not this\" \"open"),
            [("not this".to_owned(), false, true), ("open".to_owned(), false, false)]
        );
    }

    #[test]
    fn a_query_must_look_for_something() {
        for text in ["", "  ", "-done", "\"\"", "*", "- -"] {
            assert_eq!(text.parse::<Query>(), Err(InvalidQuery(text.to_owned())));
        }
    }
}
