//! Merging JSON by structure: members by their names, items of lists by their identity or their neighbours.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use mutext_contract::Content;
use serde_json::{Map, Value};
use similar::{MergeResolution, TextMerge};

use crate::merge::{Hunk, MergeError, Place, Resolution};
use crate::place::{DEPTH_MAX, depth, escaped};

/// Members that say which item one is, so that two sides can mean the same one wherever it stands. The first one that
/// every item has is taken.
const IDENTITIES: [&str; 7] = ["id", "_id", "uuid", "key", "path", "name", "title"];

/// A merged value with holes where two sides contradict each other.
#[derive(Debug, Clone)]
pub(crate) enum Tree {
    /// It is settled.
    Value(Value),
    /// An object's members in order.
    Object(Vec<(String, Self)>),
    /// A list's items in order; what an items conflict is resolved to takes as many places as it has.
    List(Vec<Self>),
    /// The conflict at this place in the list of them: one about a value, or about items where it stands in a list.
    Conflict(usize),
}

/// A value on three sides; `None` where a side has none.
type Sides<'a> = [Option<&'a Value>; 3];

impl Tree {
    /// What two sides are together, and where they contradict each other; `None` where one cannot be taken apart.
    pub(crate) fn merge(base: &Content, ours: &Content, theirs: &Content) -> Option<(Self, Vec<Hunk>)> {
        let [base, ours, theirs] = [base.parse::<Value>().ok()?, ours.parse().ok()?, theirs.parse().ok()?];
        let mut merger = Merger { conflicts: Vec::new() };
        let tree = merger.value("", [Some(&base), Some(&ours), Some(&theirs)])?;
        Some((tree, merger.conflicts))
    }

    /// The value, each conflict resolved as `chosen` says at the same place.
    pub(crate) fn resolved(&self, conflicts: &[Hunk], chosen: &[&Resolution]) -> Result<Value, MergeError> {
        let value = self.filled(conflicts, chosen)?.unwrap_or(Value::Null);
        let depth = depth(&value);
        if depth > DEPTH_MAX {
            return Err(MergeError::TooDeep { depth, limit: DEPTH_MAX });
        }
        Ok(value)
    }

    fn filled(&self, conflicts: &[Hunk], chosen: &[&Resolution]) -> Result<Option<Value>, MergeError> {
        Ok(Some(match self {
            Self::Value(value) => value.clone(),
            Self::Object(members) => {
                let mut object = Map::new();
                for (name, member) in members {
                    if let Some(value) = member.filled(conflicts, chosen)? {
                        object.insert(name.clone(), value);
                    }
                }
                Value::Object(object)
            }
            Self::List(items) => {
                let mut list = Vec::new();
                for item in items {
                    match item {
                        Self::Conflict(at) if is_about_items(conflicts.get(*at)) => {
                            list.extend(chosen_items(conflicts, chosen, *at)?);
                        }
                        item => list.extend(item.filled(conflicts, chosen)?),
                    }
                }
                Value::Array(list)
            }
            Self::Conflict(at) => return chosen_value(conflicts, chosen, *at),
        }))
    }
}

fn is_about_items(conflict: Option<&Hunk>) -> bool {
    conflict.is_some_and(|conflict| matches!(conflict.place, Place::Items { .. }))
}

/// What a conflict about one value is resolved to.
fn chosen_value(conflicts: &[Hunk], chosen: &[&Resolution], at: usize) -> Result<Option<Value>, MergeError> {
    let Some((conflict, resolution)) = conflicts.get(at).zip(chosen.get(at)) else { return Ok(None) };
    if matches!(resolution, Resolution::Both) {
        return Err(MergeError::NotBoth { id: conflict.id.clone() });
    }
    conflict.side(resolution).map(|text| parsed(conflict, text)).transpose()
}

/// What a conflict about items is resolved to.
fn chosen_items(conflicts: &[Hunk], chosen: &[&Resolution], at: usize) -> Result<Vec<Value>, MergeError> {
    let Some((conflict, resolution)) = conflicts.get(at).zip(chosen.get(at)) else { return Ok(Vec::new()) };
    let ours = if matches!(resolution, Resolution::Both) { conflict.ours.as_deref() } else { None };
    let mut items = Vec::new();
    for text in conflict.side(resolution).into_iter().chain(ours) {
        match parsed(conflict, text)? {
            Value::Array(list) => items.extend(list),
            _ => return Err(MergeError::NotAList { id: conflict.id.clone() }),
        }
    }
    Ok(items)
}

fn parsed(conflict: &Hunk, text: &str) -> Result<Value, MergeError> {
    serde_json::from_str(text).map_err(|source| MergeError::NotJson { id: conflict.id.clone(), source: source.into() })
}

/// Collects conflicts on the way through three values.
struct Merger {
    conflicts: Vec<Hunk>,
}

impl Merger {
    /// What a value is after both sides; `None` where it is gone.
    fn value(&mut self, pointer: &str, sides: Sides<'_>) -> Option<Tree> {
        let [base, ours, theirs] = sides;
        if ours == theirs || base == ours {
            return theirs.cloned().map(Tree::Value);
        }
        if base == theirs {
            return ours.cloned().map(Tree::Value);
        }
        let no_members = Map::new();
        match (base, ours, theirs) {
            (Some(Value::Object(base)), Some(Value::Object(ours)), Some(Value::Object(theirs))) => {
                Some(self.object(pointer, [base, ours, theirs]))
            }
            // Both began it: what only one of them has is taken from it.
            (None, Some(Value::Object(ours)), Some(Value::Object(theirs))) => {
                Some(self.object(pointer, [&no_members, ours, theirs]))
            }
            (Some(Value::Array(base)), Some(Value::Array(ours)), Some(Value::Array(theirs))) => {
                Some(self.list(pointer, [base, ours, theirs]))
            }
            _ => Some(self.conflict(Place::Value(pointer.to_owned()), sides.map(|side| side.map(Value::to_string)))),
        }
    }

    fn conflict(&mut self, place: Place, [base, ours, theirs]: [Option<String>; 3]) -> Tree {
        self.conflicts.push(Hunk { id: String::new(), place, base, ours, theirs });
        Tree::Conflict(self.conflicts.len() - 1)
    }

    fn object(&mut self, pointer: &str, sides: [&Map<String, Value>; 3]) -> Tree {
        let [_, ours, theirs] = sides;
        let (ours, theirs): (Vec<_>, Vec<_>) = (ours.keys().collect(), theirs.keys().collect());
        let mut members = Vec::new();
        for name in together(&ours, &theirs) {
            let below = [pointer, "/", &escaped(name)].concat();
            let member = self.value(&below, sides.map(|side| side.get(name)));
            members.extend(member.map(|member| (name.clone(), member)));
        }
        Tree::Object(members)
    }

    /// A list: what only one side changed is taken from it, where unchanged items, or identities, keep it apart.
    fn list(&mut self, pointer: &str, sides: [&[Value]; 3]) -> Tree {
        // Each item on a line of its own, so that lists merge as texts do. JSON on one line has no line breaks.
        let [base, ours, theirs] = sides.map(on_lines);
        let merge = TextMerge::from_lines(base.as_str(), ours.as_str(), theirs.as_str());
        let mut list = Vec::new();
        for region in merge.regions() {
            let ranges = [region.base_range(), region.ours_range(), region.theirs_range()];
            let [_, ours, theirs] = [0, 1, 2].map(|side| part(sides, &ranges, side));
            match region.resolution() {
                MergeResolution::Unchanged | MergeResolution::Ours | MergeResolution::Both => {
                    list.extend(ours.iter().cloned().map(Tree::Value));
                }
                MergeResolution::Theirs => list.extend(theirs.iter().cloned().map(Tree::Value)),
                _ => {
                    let parts = [0, 1, 2].map(|side| part(sides, &ranges, side));
                    let first = ranges[2].start;
                    let by_identity = self.by_identity(pointer, first, parts);
                    list.extend(by_identity.unwrap_or_else(|| vec![self.items(pointer, first, parts)]));
                }
            }
        }
        Tree::List(list)
    }

    /// A conflict about neighbouring items.
    fn items(&mut self, pointer: &str, first: usize, parts: [&[Value]; 3]) -> Tree {
        let place = Place::Items { pointer: pointer.to_owned(), first, count: parts[2].len() };
        let written = |items: &[Value]| (!items.is_empty()).then(|| Value::from(items).to_string());
        self.conflict(place, parts.map(written))
    }

    /// Items that both sides changed, item by item; `None` where they do not say which is which.
    fn by_identity(&mut self, pointer: &str, first: usize, parts: [&[Value]; 3]) -> Option<Vec<Tree>> {
        let name = IDENTITIES.into_iter().find(|name| parts.iter().all(|part| has_identities(part, name)))?;
        let [base, ours, theirs] = parts.map(|part| identities(part, name));
        let [ours_order, theirs_order] = [parts[1], parts[2]]
            .map(|part| part.iter().filter_map(|item| item.get(name).map(Value::to_string)).collect::<Vec<_>>());
        let [ours_order, theirs_order]: [Vec<&String>; 2] =
            [ours_order.iter().collect(), theirs_order.iter().collect()];
        let shared = |order: &[&String], other: &HashMap<String, (usize, &Value)>| {
            order.iter().filter(|id| other.contains_key(**id)).map(|id| (*id).clone()).collect::<Vec<_>>()
        };
        // One of them moved items about: whose order would hold?
        if shared(&ours_order, &theirs) != shared(&theirs_order, &ours) {
            return None;
        }
        let mut items = Vec::new();
        for id in together(&ours_order, &theirs_order) {
            let [base, ours, theirs] = [&base, &ours, &theirs].map(|side| side.get(id).copied());
            let values = [base, ours, theirs].map(|side| side.map(|(_, value)| value));
            let at = first + theirs.map_or(0, |(at, _)| at);
            let is_simple = values[1] == values[2] || values[0] == values[1] || values[0] == values[2];
            if is_simple || (ours.is_some() && theirs.is_some()) {
                items.extend(self.value(&format!("{pointer}/{at}"), values));
            } else {
                let parts = values.map(|value| value.map_or(&[][..], std::slice::from_ref));
                items.push(self.items(pointer, at, parts));
            }
        }
        Some(items)
    }
}

/// Items, each on a line of its own.
fn on_lines(items: &[Value]) -> String {
    items.iter().flat_map(|item| [item.to_string(), "\n".to_owned()]).collect()
}

/// A side's part of a region.
fn part<'a>(sides: [&'a [Value]; 3], ranges: &[Range<usize>; 3], side: usize) -> &'a [Value] {
    sides[side].get(ranges[side].clone()).unwrap_or_default()
}

/// Whether each item says by this member which one it is, no two the same.
fn has_identities(items: &[Value], name: &str) -> bool {
    let is_identity = |value: &Value| matches!(value, Value::String(_) | Value::Number(_));
    items.iter().all(|item| item.get(name).is_some_and(is_identity)) && identities(items, name).len() == items.len()
}

/// Items and where they stand by what that member says.
fn identities<'a>(items: &'a [Value], name: &str) -> HashMap<String, (usize, &'a Value)> {
    let named = |(at, item): (usize, &'a Value)| Some((item.get(name)?.to_string(), (at, item)));
    items.iter().enumerate().filter_map(named).collect()
}

/// Every name of both sides once: in their order, each of ours that they lack behind the one that it follows there.
fn together<'a>(ours: &[&'a String], theirs: &[&'a String]) -> Vec<&'a String> {
    let known: HashSet<_> = theirs.iter().copied().collect();
    let mut following: HashMap<Option<&String>, Vec<&'a String>> = HashMap::new();
    let mut last = None;
    for name in ours {
        if known.contains(name) {
            last = Some(*name);
        } else {
            following.entry(last).or_default().push(name);
        }
    }
    let mut all = following.remove(&None).unwrap_or_default();
    for name in theirs {
        all.push(name);
        all.extend(following.remove(&Some(*name)).unwrap_or_default());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Merge, merge};

    fn merged(base: &str, ours: &str, theirs: &str) -> Merge {
        let json = |text: &str| Content::parse_json(text).unwrap();
        merge(&json(base), &json(ours), &json(theirs))
    }

    fn clean(base: &str, ours: &str, theirs: &str) -> String {
        let merged = merged(base, ours, theirs);
        merged.content().unwrap_or_else(|| panic!("conflicts: {:?}", merged.hunks())).as_str().to_owned()
    }

    fn places(merge: &Merge) -> Vec<String> {
        merge.hunks().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn members_changed_on_one_side_are_taken_from_it() {
        let base = r#"{"a": 1.10, "b": {"c": 2, "d": 3}, "e": 4}"#;
        let ours = r#"{"a": 1.10, "b": {"c": 20, "d": 3}, "new": [1], "e": 4}"#;
        let theirs = r#"{"a": 1.1, "b": {"c": 2}, "e": 4}"#;
        assert_eq!(clean(base, ours, theirs), r#"{"a": 1.1, "b": {"c": 20}, "new": [1], "e": 4}"#);
        assert_eq!(clean(theirs, base, theirs), base);
        assert_eq!(clean("{}", r#"{"a": {"x": 1}}"#, r#"{"a": {"y": 2}}"#), r#"{"a": {"x": 1, "y": 2}}"#);
    }

    #[test]
    fn what_is_written_in_an_uncommon_way_stays_so_where_lines_do_not_meet() {
        let base = "{ \"a\" :1,\n\n\n \"b\": [1,2,\n 3],\n\n\"c\":  3 }";
        let (ours, theirs) = (base.replace(":1", ":10"), base.replace("  3 }", "  30 }"));
        assert_eq!(clean(base, &ours, &theirs), ours.replace("  3 }", "  30 }"));
    }

    #[test]
    fn lines_that_merge_into_something_else_are_not_trusted() {
        // By lines this is clean, and the member is there twice.
        let base = "{\n\"a\": 1,\n\"b\": 2,\n\"c\": 3\n}";
        let (ours, theirs) = (base.replace("{\n", "{\n\"n\": 5,\n"), base.replace("2,\n", "2,\n\"n\": 6,\n"));
        assert_eq!(places(&merged(base, &ours, &theirs)), ["h1 at \"/n\""]);
    }

    #[test]
    fn the_same_member_changed_differently_is_a_conflict_with_its_pointer() {
        let merge = merged(r#"{"a/b":[{"n":1}],"c":1}"#, r#"{"a/b":[{"n":2}],"c":2}"#, r#"{"a/b":[{"n":3}]}"#);
        assert_eq!(places(&merge), ["h1 at \"/a~1b\", 1 items from 0", "h2 at \"/c\""]);
        let [first, second] = merge.hunks() else { panic!("two") };
        assert_eq!((first.ours.as_deref(), first.theirs.as_deref()), (Some("[{\"n\":2}]"), Some("[{\"n\":3}]")));
        assert_eq!(
            (second.base.as_deref(), second.ours.as_deref(), second.theirs.as_deref()),
            (Some("1"), Some("2"), None)
        );
        assert!(merge.content().is_none());
    }

    #[test]
    fn conflicts_are_resolved_one_by_one() {
        let merge = merged(r#"{"a":1,"b":[1],"c":1}"#, r#"{"a":2,"b":[2],"c":2}"#, r#"{"a":3,"b":[3]}"#);
        let resolved = |h1: Resolution, h2: Resolution, h3: Resolution| {
            let resolutions = [("h1".to_owned(), h1), ("h2".to_owned(), h2), ("h3".to_owned(), h3)].into();
            merge.resolved(&resolutions).map(|content| content.as_str().to_owned()).map_err(|error| error.to_string())
        };
        let text = |text: &str| Resolution::Text(text.to_owned());
        let one = resolved(Resolution::Ours, Resolution::Both, Resolution::Theirs);
        assert_eq!(one.unwrap(), r#"{"a":2,"b":[3,2]}"#);
        let other = resolved(text("{\"x\":1.0}"), text("[]"), Resolution::Base);
        assert_eq!(other.unwrap(), r#"{"a":{"x":1.0},"b":[],"c":1}"#);
        let refused = |h1, h2| resolved(h1, h2, Resolution::Base).unwrap_err();
        assert!(refused(text("x"), Resolution::Ours).contains("h1 is not valid JSON"));
        assert!(refused(Resolution::Base, text("1")).contains("must be a JSON list"));
        assert!(refused(Resolution::Both, Resolution::Base).contains("cannot hold both"));
        let deep = ["[".repeat(127), "]".repeat(127)].concat();
        assert!(refused(text(&deep), Resolution::Base).contains("128 levels"));
    }

    #[test]
    fn items_keep_their_identity_wherever_both_sides_touch_the_list() {
        let base = r#"[{"id":1,"s":"open"},{"id":2,"s":"open"}]"#;
        let ours = r#"[{"id":1,"s":"done"},{"id":2,"s":"open"},{"id":3,"s":"ours"}]"#;
        let theirs = r#"[{"id":1,"s":"open"},{"id":2,"s":"done"},{"id":4,"s":"theirs"}]"#;
        let both = r#"[{"id":1,"s":"done"},{"id":2,"s":"done"},{"id":3,"s":"ours"},{"id":4,"s":"theirs"}]"#;
        assert_eq!(clean(base, ours, theirs), both);
        let gone = r#"[{"id":2,"s":"done"}]"#;
        let merge = merged(base, ours, gone);
        assert_eq!(places(&merge), ["h1 at \"\", 0 items from 0"], "one changed what the other removed");
        let moved = r#"[{"id":2,"s":"x"},{"id":1,"s":"x"}]"#;
        assert!(!merged(base, moved, theirs).is_clean(), "whose order would hold?");
    }

    #[test]
    fn items_without_identity_merge_only_where_others_keep_them_apart() {
        assert_eq!(clean("[1,2,3,4,5]", "[0,1,2,3,4,5]", "[1,2,3,5,6]"), "[0,1,2,3,5,6]");
        assert!(!merged("[1]", "[1,2]", "[1,3]").is_clean());
        assert!(!merged(r#"[{"n":1,"m":1}]"#, r#"[{"n":2,"m":1}]"#, r#"[{"n":1,"m":2}]"#).is_clean());
    }
}
