//! Names, validated once at the edge: contexts, documents, resources, agents.
//!
//! Nothing below the edge validates again: a value of one of these types is good by construction.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest context or agent name, in bytes.
pub const NAME_BYTES_MAX: usize = 100;
/// The longest document path, in bytes.
pub const PATH_BYTES_MAX: usize = 512;
/// The deepest document path, in segments.
pub const PATH_SEGMENTS_MAX: usize = 32;

/// A name that breaks a rule: which kind of name, its value, and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {value:?} is not valid: {rule}")]
pub struct InvalidName {
    /// What was named: `context name`, `document path`, …
    pub kind: &'static str,
    /// The value, shortened when it is long.
    pub value: String,
    /// The rule that it breaks.
    pub rule: NameRule,
}

impl From<std::convert::Infallible> for InvalidName {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// The rule that a name breaks; its text ends with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameRule {
    /// Nothing at all.
    #[error("it is empty; give at least one character")]
    Empty,
    /// More bytes than allowed.
    #[error("it has {bytes} bytes; the limit is {limit}")]
    TooLong {
        /// How many it has.
        bytes: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// More at once than allowed.
    #[error("it names {count} at once; the limit is {limit}; ask for what lies above them, or for fewer")]
    TooMany {
        /// How many it names.
        count: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// More segments than allowed.
    #[error("it has {segments} segments; the limit is {limit}")]
    TooDeep {
        /// How many it has.
        segments: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// Two slashes in a row, or one at the start or the end.
    #[error("segment {segment} is empty; write one `/` between segments, and none at the start or the end")]
    EmptySegment {
        /// Which one, from 1.
        segment: usize,
    },
    /// A segment `.` or `..`.
    #[error("segment {segment} is `{dots}`; paths are names, not directions: write the whole path")]
    DotSegment {
        /// Which one, from 1.
        segment: usize,
        /// `.` or `..`.
        dots: &'static str,
    },
    /// A control character, such as a line break.
    #[error("byte {at} is the control character {character:?}; remove it")]
    ControlCharacter {
        /// Its place in bytes, from 0.
        at: usize,
        /// The character.
        character: char,
    },
    /// A character outside the alphabet of this kind of name.
    #[error("byte {at} is {character:?}; use letters, digits, `.`, `_` and `-`, and begin with a letter or digit")]
    Character {
        /// Its place in bytes, from 0.
        at: usize,
        /// The character.
        character: char,
    },
    /// A mode that is neither `shared` nor `exclusive`, or another word from a closed list.
    #[error("it is not one of {allowed}")]
    Unknown {
        /// What is allowed.
        allowed: &'static str,
    },
}

fn invalid(kind: &'static str, value: &str, rule: NameRule) -> InvalidName {
    let shown = if value.chars().count() > 80 {
        value.chars().take(77).chain("...".chars()).collect()
    } else {
        value.to_owned()
    };
    InvalidName { kind, value: shown, rule }
}

fn check_plain(kind: &'static str, value: &str) -> Result<(), InvalidName> {
    let fail = |rule| Err(invalid(kind, value, rule));
    if value.is_empty() {
        return fail(NameRule::Empty);
    }
    if value.len() > NAME_BYTES_MAX {
        return fail(NameRule::TooLong { bytes: value.len(), limit: NAME_BYTES_MAX });
    }
    for (at, character) in value.char_indices() {
        let inner = at > 0 && matches!(character, '.' | '_' | '-');
        if !(character.is_ascii_alphanumeric() || inner) {
            return fail(NameRule::Character { at, character });
        }
    }
    Ok(())
}

fn check_characters(kind: &'static str, value: &str) -> Result<(), InvalidName> {
    if value.len() > PATH_BYTES_MAX {
        return Err(invalid(kind, value, NameRule::TooLong { bytes: value.len(), limit: PATH_BYTES_MAX }));
    }
    match value.char_indices().find(|(_, character)| character.is_control()) {
        Some((at, character)) => Err(invalid(kind, value, NameRule::ControlCharacter { at, character })),
        None => Ok(()),
    }
}

fn check_path(kind: &'static str, value: &str) -> Result<(), InvalidName> {
    let fail = |rule| Err(invalid(kind, value, rule));
    if value.is_empty() {
        return fail(NameRule::Empty);
    }
    check_characters(kind, value)?;
    let mut segments = 0;
    for (index, segment) in value.split('/').enumerate() {
        segments = index + 1;
        match segment {
            "" => return fail(NameRule::EmptySegment { segment: segments }),
            "." => return fail(NameRule::DotSegment { segment: segments, dots: "." }),
            ".." => return fail(NameRule::DotSegment { segment: segments, dots: ".." }),
            _ => {}
        }
    }
    if segments > PATH_SEGMENTS_MAX {
        return fail(NameRule::TooDeep { segments, limit: PATH_SEGMENTS_MAX });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks the rules and keeps the text as it is.
            pub fn new(value: impl Into<String>) -> Result<Self, InvalidName> {
                let value = value.into();
                $check($kind, &value)?;
                Ok(Self(value))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(value: &str) -> Result<Self, InvalidName> {
                Self::new(value)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidName;
            fn try_from(value: &str) -> Result<Self, InvalidName> {
                Self::new(value)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(value: String) -> Result<Self, InvalidName> {
                Self::new(value)
            }
        }

        impl From<&$name> for $name {
            fn from(value: &$name) -> Self {
                value.clone()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }
    };
}

name! {
    /// A context: a named, shared space of documents; the unit of sharding and of token order.
    ContextName, "context name", check_plain
}
name! {
    /// What an agent calls itself. Not unique: [`Holder`](crate::Holder) adds an unguessable id.
    AgentName, "agent name", check_plain
}
name! {
    /// Where a document lies inside its context: `plan.md`, `tasks/17`.
    ///
    /// Segments are separated by one `/`; none is empty, `.` or `..`; no control characters; at most
    /// [`PATH_BYTES_MAX`] bytes and [`PATH_SEGMENTS_MAX`] segments. Case and every other character count.
    DocumentPath, "document path", check_path
}
name! {
    /// The beginning of document paths, for listing and watching: `tasks/` or `tasks/1`; empty for all.
    PathPrefix, "path prefix", check_characters
}
name! {
    /// Names one intended write, so that a retry after a lost answer happens once.
    IdempotencyKey, "idempotency key", check_key
}

fn check_key(kind: &'static str, value: &str) -> Result<(), InvalidName> {
    if value.is_empty() {
        return Err(invalid(kind, value, NameRule::Empty));
    }
    check_characters(kind, value)
}

impl PathPrefix {
    /// The prefix of every path.
    pub fn all() -> Self {
        Self(String::new())
    }

    /// Whether `path` begins with it.
    pub fn matches(&self, path: &DocumentPath) -> bool {
        path.as_str().starts_with(&self.0)
    }
}

/// What a lock covers: one document, a subtree, or the whole context; all below it is covered too.
///
/// Written as a path; `tasks/` and `tasks` are the same subtree, `/` is the whole context.
///
/// ```
/// use mutext_contract::Resource;
/// let tasks: Resource = "tasks/".parse()?;
/// assert!(tasks.overlaps(&"tasks/17".parse()?));
/// assert!(Resource::root().overlaps(&tasks));
/// assert!(!tasks.overlaps(&"tasks-done".parse()?));
/// # Ok::<(), mutext_contract::InvalidName>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Resource(Option<DocumentPath>);

impl Resource {
    /// The whole context.
    pub const fn root() -> Self {
        Self(None)
    }

    /// Checks the rules of a path; one slash at the end is allowed, and `/` alone is the root.
    pub fn new(value: &str) -> Result<Self, InvalidName> {
        if value == "/" {
            return Ok(Self::root());
        }
        check_path("resource", value.strip_suffix('/').unwrap_or(value))?;
        Ok(Self(Some(DocumentPath(value.trim_end_matches('/').to_owned()))))
    }

    /// Whether it is `path` or lies above it.
    pub fn covers(&self, path: &DocumentPath) -> bool {
        self.0.as_ref().is_none_or(|own| is_at_or_below(path.as_str(), own.as_str()))
    }

    /// Whether the other is this very resource or lies below it.
    pub fn contains(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(other)) => is_at_or_below(other.as_str(), own.as_str()),
        }
    }

    /// Whether one of the two is the other or lies above it.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other) || other.contains(self)
    }

    /// The text: a path, or `/` for the whole context.
    pub fn as_str(&self) -> &str {
        self.0.as_ref().map_or("/", DocumentPath::as_str)
    }
}

fn is_at_or_below(path: &str, ancestor: &str) -> bool {
    path.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Resource {
    type Err = InvalidName;
    fn from_str(value: &str) -> Result<Self, InvalidName> {
        Self::new(value)
    }
}

impl TryFrom<&str> for Resource {
    type Error = InvalidName;
    fn try_from(value: &str) -> Result<Self, InvalidName> {
        Self::new(value)
    }
}

impl TryFrom<String> for Resource {
    type Error = InvalidName;
    fn try_from(value: String) -> Result<Self, InvalidName> {
        Self::new(&value)
    }
}

impl From<Resource> for String {
    fn from(value: Resource) -> Self {
        value.as_str().to_owned()
    }
}

impl From<DocumentPath> for Resource {
    fn from(path: DocumentPath) -> Self {
        Self(Some(path))
    }
}

impl From<&DocumentPath> for Resource {
    fn from(path: &DocumentPath) -> Self {
        Self(Some(path.clone()))
    }
}

impl From<&Resource> for Resource {
    fn from(value: &Resource) -> Self {
        value.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(value: &str) -> NameRule {
        DocumentPath::new(value).unwrap_err().rule
    }

    #[test]
    fn good_paths_are_kept_as_they_are() {
        for path in ["plan.md", "tasks/17", "Notes/Ünïcode und Leerzeichen", "a/.hidden", "a...b"] {
            assert_eq!(DocumentPath::new(path).unwrap().as_str(), path);
        }
    }

    #[test]
    fn a_bad_path_names_the_rule_that_it_breaks() {
        assert_eq!(rule(""), NameRule::Empty);
        assert_eq!(rule("/a"), NameRule::EmptySegment { segment: 1 });
        assert_eq!(rule("a//b"), NameRule::EmptySegment { segment: 2 });
        assert_eq!(rule("a/"), NameRule::EmptySegment { segment: 2 });
        assert_eq!(rule("a/../b"), NameRule::DotSegment { segment: 2, dots: ".." });
        assert_eq!(rule("./b"), NameRule::DotSegment { segment: 1, dots: "." });
        assert_eq!(rule("a\nb"), NameRule::ControlCharacter { at: 1, character: '\n' });
        assert_eq!(rule(&"x".repeat(513)), NameRule::TooLong { bytes: 513, limit: 512 });
        assert_eq!(rule(&["x"; 33].join("/")), NameRule::TooDeep { segments: 33, limit: 32 });
    }

    #[test]
    fn a_context_name_is_a_plain_word() {
        assert!(ContextName::new("research-42").is_ok());
        for bad in ["", "-x", "a b", "a/b", "a{b}", "é"] {
            assert!(ContextName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_resource_covers_what_lies_below_it_and_nothing_beside_it() {
        let tasks = Resource::new("tasks/").unwrap();
        assert_eq!(tasks.as_str(), "tasks");
        assert!(tasks.covers(&DocumentPath::new("tasks/1").unwrap()));
        assert!(tasks.covers(&DocumentPath::new("tasks").unwrap()));
        assert!(!tasks.covers(&DocumentPath::new("tasks-1").unwrap()));
        assert!(Resource::new("/").unwrap().covers(&DocumentPath::new("x").unwrap()));
        assert!(Resource::new("tasks//").is_err());
        assert!(Resource::new("").is_err());
    }

    #[test]
    fn a_message_names_the_value_and_the_remedy() {
        let error = DocumentPath::new("a//b").unwrap_err();
        assert_eq!(
            error.to_string(),
            "document path \"a//b\" is not valid: segment 2 is empty; write one `/` between segments, and none at the start or the end"
        );
    }
}
