//! Were two processes inside at once? Critical sections, and the pairs of them that certainly
//! overlapped.
//!
//! Only certainty convicts: a section is counted from the moment at which its process was in the
//! lock beyond doubt to the last at which it still had to be. Overlaps that fall outside these
//! moments go unseen here; what harm they do, the other checkers find.

use serde::{Deserialize, Serialize};

use crate::Token;

/// One stay of one process inside a lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Section {
    /// The process that was inside.
    pub process: u64,
    /// The lease that let it in.
    pub lease: String,
    /// The path that the lock covers, with everything below it; the empty path covers all.
    pub resource: String,
    /// Whether the lock was exclusive; a shared one admits other shared ones.
    pub exclusive: bool,
    /// When the process certainly was inside: the read that it made under the lock had returned.
    pub entered: u64,
    /// When it certainly still was: its commit was about to be invoked.
    pub left: u64,
    /// The fencing token that came with the lease.
    pub token: Option<Token>,
}

impl Section {
    /// Whether the section ended before it began: a fault of the harness. [`overlaps`] finds
    /// nothing in such a section, so whoever records sections should see that there are none.
    pub fn is_backwards(&self) -> bool {
        self.left < self.entered
    }

    /// Whether the two should never have been inside at the same time.
    fn excludes(&self, other: &Self) -> bool {
        // A lease may be used several times, each under a token of its own.
        let one_holder = self.process == other.process && self.lease == other.lease && self.token == other.token;
        (self.exclusive || other.exclusive) && !one_holder && covers_common(&self.resource, &other.resource)
    }

    /// Whether both were inside at some moment. Sections that only touch were not: on one tick of
    /// the clock the one may have left before the other entered.
    fn meets(&self, other: &Self) -> bool {
        self.entered < other.left && other.entered < self.left
    }
}

/// Two sections that excluded each other, and yet were entered at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[error(
    "processes {} and {} were both inside for {} ns from {}: {} on \"{}\" and {} on \"{}\"",
    .first.process, .second.process, .until - .from, .from,
    describe(.first), .first.resource, describe(.second), .second.resource
)]
pub struct Overlap {
    /// The section entered first.
    pub first: Section,
    /// The section entered while the first was not left.
    pub second: Section,
    /// The first moment at which both certainly were inside.
    pub from: u64,
    /// The last such moment.
    pub until: u64,
}

fn describe(section: &Section) -> String {
    let mode = if section.exclusive { "exclusive" } else { "shared" };
    match &section.token {
        Some(token) => format!("{mode} lease {} with token {token}", section.lease),
        None => format!("{mode} lease {}", section.lease),
    }
}

/// Whether some document lies under both paths: they are equal, or one is an ancestor of the other.
/// Paths are compared by segment, so `task` is no ancestor of `tasks/1`.
fn covers_common(one: &str, other: &str) -> bool {
    let segments = |path| str::split(path, '/').filter(|segment| !segment.is_empty());
    segments(one).zip(segments(other)).all(|(one, other)| one == other)
}

/// All pairs of sections that excluded each other and certainly overlapped, in order of the second
/// one's entry.
///
/// A sweep over the moments of entry: n log n to sort, and each section is held against those that
/// are still inside, of which a sound lock leaves few. One lease of one process may cover several
/// paths: its sections do not exclude each other.
pub fn overlaps(sections: &[Section]) -> Vec<Overlap> {
    let mut by_entry: Vec<_> = sections.iter().filter(|section| !section.is_backwards()).collect();
    by_entry.sort_by_key(|section| (section.entered, section.left));
    let mut found = Vec::new();
    let mut inside = Vec::<&Section>::new();
    for second in by_entry {
        inside.retain(|first| first.left > second.entered);
        for first in inside.iter().filter(|first| first.meets(second) && first.excludes(second)) {
            found.push(Overlap {
                first: (*first).clone(),
                second: second.clone(),
                from: second.entered,
                until: first.left.min(second.left),
            });
        }
        inside.push(second);
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn section(process: u64, resource: &str, entered: u64, left: u64) -> Section {
        Section {
            process,
            lease: format!("lease-{process}"),
            resource: resource.to_owned(),
            exclusive: true,
            entered,
            left,
            token: None,
        }
    }

    fn shared(section: Section) -> Section {
        Section { exclusive: false, ..section }
    }

    #[test]
    fn two_processes_inside_one_document_at_once_are_found() {
        let sections = [section(2, "plan", 15, 30), section(1, "plan", 10, 20)];
        let found = overlaps(&sections);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].first.process, found[0].second.process), (1, 2));
        assert_eq!((found[0].from, found[0].until), (15, 20));
        assert_eq!(
            found[0].to_string(),
            "processes 1 and 2 were both inside for 5 ns from 15: \
             exclusive lease lease-1 on \"plan\" and exclusive lease lease-2 on \"plan\""
        );
    }

    #[test]
    fn sections_that_only_touch_do_not_overlap() {
        assert_eq!(overlaps(&[section(1, "a", 0, 10), section(2, "a", 10, 20)]), []);
        assert_eq!(overlaps(&[section(1, "a", 0, 10), section(2, "a", 11, 20)]), []);
        assert_eq!(overlaps(&[section(1, "a", 10, 10), section(2, "a", 10, 20)]), []);
    }

    #[test]
    fn a_moment_inside_another_section_is_an_overlap() {
        assert_eq!(overlaps(&[section(1, "a", 0, 10), section(2, "a", 5, 5)]).len(), 1);
    }

    #[test]
    fn an_ancestor_covers_what_is_below_it_and_the_root_covers_all() {
        let with = |one: &str, other: &str| overlaps(&[section(1, one, 0, 10), section(2, other, 5, 15)]).len();
        assert_eq!(with("tasks", "tasks/17/notes"), 1);
        assert_eq!(with("tasks/17/notes", "tasks"), 1);
        assert_eq!(with("", "plan"), 1);
        assert_eq!(with("", ""), 1);
        assert_eq!(with("task", "tasks/17"), 0);
        assert_eq!(with("tasks/1", "tasks/17"), 0);
        assert_eq!(with("plan", "notes"), 0);
    }

    #[test]
    fn shared_sections_admit_each_other_and_exclude_exclusive_ones() {
        let both = [shared(section(1, "a", 0, 10)), shared(section(2, "a", 5, 15))];
        assert_eq!(overlaps(&both), []);
        let one = [shared(section(1, "a", 0, 10)), section(2, "a", 5, 15)];
        assert_eq!(overlaps(&one).len(), 1);
    }

    #[test]
    fn one_lease_may_cover_several_paths_but_a_second_lease_of_the_process_may_not() {
        let mut sections = [section(1, "a", 0, 10), section(1, "a/b", 5, 15)];
        assert_eq!(overlaps(&sections), []);
        sections[1].lease = "another".to_owned();
        assert_eq!(overlaps(&sections).len(), 1);
    }

    #[test]
    fn two_processes_do_not_share_a_lease() {
        let second = Section { lease: "lease-1".to_owned(), ..section(2, "a", 5, 15) };
        assert_eq!(overlaps(&[section(1, "a", 0, 10), second]).len(), 1);
    }

    #[test]
    fn a_backwards_section_convicts_nobody() {
        let backwards = section(2, "a", 8, 4);
        assert!(backwards.is_backwards());
        assert_eq!(overlaps(&[section(1, "a", 0, 10), backwards]), []);
    }

    #[test]
    fn every_pair_among_three_is_found() {
        let sections = [section(1, "a", 0, 10), section(2, "a", 1, 10), section(3, "a", 2, 10)];
        assert_eq!(overlaps(&sections).len(), 3);
    }

    fn arbitrary_section() -> impl Strategy<Value = Section> {
        let resource = prop::sample::select(vec!["", "a", "a/b", "a/bc", "d"]);
        (0..4_u64, resource, 0..20_u64, 0..6_u64, any::<bool>()).prop_map(
            |(process, resource, entered, length, exclusive)| Section {
                exclusive,
                ..section(process, resource, entered, entered + length)
            },
        )
    }

    proptest! {
        #[test]
        fn the_sweep_finds_what_comparing_all_pairs_finds(
            sections in prop::collection::vec(arbitrary_section(), 0..12)
        ) {
            let mut pairs = 0;
            for (index, one) in sections.iter().enumerate() {
                for other in &sections[index + 1..] {
                    pairs += usize::from(one.meets(other) && one.excludes(other));
                }
            }
            prop_assert_eq!(overlaps(&sections).len(), pairs);
        }
    }
}
