//! What is to be done so that a folder and a context are alike: decided from what both hold and what they held when
//! they were last alike. Opens nothing, asks nobody.
//!
//! The rule behind the table: a side that has not changed since follows the side that has. Where both have changed,
//! nothing is written over: a deletion gives way to a change, and two changes are merged or both kept.

use std::collections::{BTreeMap, BTreeSet};

use mutext::{DocumentPath, Revision};

use super::digest::Digest;

/// What both sides held when they were last alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) revision: Revision,
    pub(super) digest: Digest,
}

/// What happens to one document and its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// It is gone on both sides.
    Forget,
    /// The file is gone, and the document is as it was.
    DeleteDocument { at: Revision },
    /// The document is gone, and the file is as it was.
    DeleteFile { was: Digest },
    /// The file goes into the context: over this revision, or as a new document.
    Upload { file: Digest, over: Option<Revision>, why: Why },
    /// The document goes into the folder: over a file that holds this, or as a new one.
    Download { at: Revision, over: Option<Digest>, why: Why },
    /// Both have changed: to be compared, then merged or both kept.
    Compare { at: Revision, file: Digest, base: Option<Base> },
}

/// Why one side follows the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Only that one has changed.
    Changed,
    /// This side had deleted what was changed on the other: the change stays.
    ChangedWhereDeleted,
}

/// The actions, in an order in which they can be done: what makes room comes first.
pub(super) fn plan(
    files: &BTreeMap<DocumentPath, Digest>,
    documents: &BTreeMap<DocumentPath, Revision>,
    bases: &BTreeMap<DocumentPath, Base>,
) -> Vec<(DocumentPath, Action)> {
    let paths: BTreeSet<&DocumentPath> = files.keys().chain(documents.keys()).chain(bases.keys()).collect();
    let decided = paths.into_iter().filter_map(|path| {
        let action = decide(files.get(path).copied(), documents.get(path).copied(), bases.get(path).copied())?;
        Some((path.clone(), action))
    });
    let mut actions: Vec<_> = decided.collect();
    // A file may be in the way of a directory, or of its own name in other letters.
    actions.sort_by_key(|(_, action)| {
        !matches!(action, Action::Forget | Action::DeleteFile { .. } | Action::DeleteDocument { .. })
    });
    actions
}

fn decide(file: Option<Digest>, document: Option<Revision>, base: Option<Base>) -> Option<Action> {
    let file_as_it_was = file == base.map(|base| base.digest);
    let document_as_it_was = document == base.map(|base| base.revision);
    let changed = Why::Changed;
    let changed_where_deleted = if base.is_some() { Why::ChangedWhereDeleted } else { Why::Changed };
    Some(match (file, document) {
        _ if file_as_it_was && document_as_it_was => return None,
        (None, None) => Action::Forget,
        (None, Some(at)) if document_as_it_was => Action::DeleteDocument { at },
        (Some(was), None) if file_as_it_was => Action::DeleteFile { was },
        (None, Some(at)) => Action::Download { at, over: None, why: changed_where_deleted },
        (Some(file), None) => Action::Upload { file, over: None, why: changed_where_deleted },
        (Some(file), Some(over)) if document_as_it_was => Action::Upload { file, over: Some(over), why: changed },
        (Some(file), Some(at)) if file_as_it_was => Action::Download { at, over: Some(file), why: changed },
        (Some(file), Some(at)) => Action::Compare { at, file, base },
    })
}

/// How many documents and files would be deleted, of how many.
pub(super) fn deletions(actions: &[(DocumentPath, Action)]) -> usize {
    let deletes = |action: &Action| matches!(action, Action::DeleteDocument { .. } | Action::DeleteFile { .. });
    actions.iter().filter(|(_, action)| deletes(action)).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One side's or both sides' contents: a small number stands for a text.
    type Texts = BTreeMap<DocumentPath, u8>;

    #[derive(Debug, Clone, Default)]
    struct World {
        files: Texts,
        documents: BTreeMap<DocumentPath, (Revision, u8)>,
        bases: BTreeMap<DocumentPath, Base>,
        /// The last revision ever used for a path.
        last: BTreeMap<DocumentPath, u64>,
        /// What was put aside where both had changed.
        kept: Vec<(DocumentPath, u8)>,
    }

    fn digest(text: u8) -> Digest {
        Digest::of(&text.to_string())
    }

    impl World {
        fn write(&mut self, path: &DocumentPath, text: u8) -> Revision {
            let last = self.last.entry(path.clone()).or_default();
            *last += 1;
            self.documents.insert(path.clone(), (Revision(*last), text));
            Revision(*last)
        }

        fn delete(&mut self, path: &DocumentPath) {
            if self.documents.remove(path).is_some() {
                *self.last.entry(path.clone()).or_default() += 1;
            }
        }

        fn plan(&self) -> Vec<(DocumentPath, Action)> {
            let files = self.files.iter().map(|(path, text)| (path.clone(), digest(*text))).collect();
            let documents = self.documents.iter().map(|(path, (revision, _))| (path.clone(), *revision)).collect();
            plan(&files, &documents, &self.bases)
        }

        /// As `run` does it, but that two changes never merge.
        fn sync(&mut self) {
            for (path, action) in self.plan() {
                let alike = match action {
                    Action::Forget => None,
                    Action::DeleteDocument { at } => {
                        assert_eq!(self.documents[&path].0, at);
                        self.delete(&path);
                        None
                    }
                    Action::DeleteFile { was } => {
                        assert_eq!(digest(self.files.remove(&path).unwrap()), was);
                        None
                    }
                    Action::Upload { over, .. } => {
                        assert_eq!(self.documents.get(&path).map(|(revision, _)| *revision), over);
                        let text = self.files[&path];
                        Some((self.write(&path, text), text))
                    }
                    Action::Download { over, .. } => {
                        assert_eq!(self.files.get(&path).map(|text| digest(*text)), over);
                        let (revision, text) = self.documents[&path];
                        self.files.insert(path.clone(), text);
                        Some((revision, text))
                    }
                    Action::Compare { .. } => {
                        let (revision, text) = self.documents[&path];
                        let own = self.files.insert(path.clone(), text).unwrap();
                        if own != text {
                            self.kept.push((path.clone(), own));
                        }
                        Some((revision, text))
                    }
                };
                match alike {
                    Some((revision, text)) => self.bases.insert(path, Base { revision, digest: digest(text) }),
                    None => self.bases.remove(&path),
                };
            }
        }

        fn contents(&self) -> Texts {
            self.documents.iter().map(|(path, (_, text))| (path.clone(), *text)).collect()
        }
    }

    fn path(number: u8) -> DocumentPath {
        DocumentPath::new(format!("d/{number}")).unwrap()
    }

    /// A change of either side: which side, which path, and what it holds then.
    fn changes() -> impl Strategy<Value = Vec<(bool, u8, Option<u8>)>> {
        prop::collection::vec((any::<bool>(), 0..4_u8, prop::option::of(0..3_u8)), 0..12)
    }

    fn make(world: &mut World, changes: &[(bool, u8, Option<u8>)]) {
        for (in_folder, number, text) in changes {
            match (in_folder, text) {
                (true, Some(text)) => _ = world.files.insert(path(*number), *text),
                (true, None) => _ = world.files.remove(&path(*number)),
                (false, Some(text)) => _ = world.write(&path(*number), *text),
                (false, None) => world.delete(&path(*number)),
            }
        }
    }

    proptest! {
        #[test]
        fn both_sides_end_alike_and_no_change_is_lost(rounds in prop::collection::vec(changes(), 1..6)) {
            let mut world = World::default();
            for changes in rounds {
                let before = world.contents();
                make(&mut world, &changes);
                let (files, documents, kept) = (world.files.clone(), world.contents(), world.kept.len());
                world.sync();
                prop_assert_eq!(&world.files, &world.contents());
                prop_assert_eq!(world.plan(), vec![]);
                for number in 0..4 {
                    let path = path(number);
                    for side in [&files, &documents] {
                        // What somebody has written since is there, or was put aside, or gave way to what the other
                        // side wrote with the very same revision in view, which the history keeps.
                        if let Some(text) = side.get(&path).filter(|text| before.get(&path) != Some(text)) {
                            let aside = world.kept[kept..].contains(&(path.clone(), *text));
                            prop_assert!(world.files.get(&path) == Some(text) || aside, "{path} lost {text}");
                        }
                    }
                }
            }
        }

        #[test]
        fn a_deletion_never_takes_what_was_changed(file: Option<u8>, document in prop::option::of((1..9_u64, any::<u8>())),
                                                   base in prop::option::of((1..9_u64, any::<u8>()))) {
            let base = base.map(|(revision, text)| Base { revision: Revision(revision), digest: digest(text) });
            let action = decide(file.map(digest), document.map(|(revision, _)| Revision(revision)), base);
            match action {
                Some(Action::DeleteDocument { at }) => prop_assert_eq!(Some(at), base.map(|base| base.revision)),
                Some(Action::DeleteFile { was }) => prop_assert_eq!(Some(was), base.map(|base| base.digest)),
                Some(Action::Download { over: Some(over), .. }) => {
                    prop_assert_eq!(Some(over), base.map(|base| base.digest));
                }
                Some(Action::Upload { over: Some(over), .. }) => {
                    prop_assert_eq!(Some(over), base.map(|base| base.revision));
                }
                _ => {}
            }
        }
    }

    #[test]
    fn what_makes_room_comes_first() {
        let bases = BTreeMap::from([(path(9), Base { revision: Revision(1), digest: digest(1) })]);
        let files = BTreeMap::from([(path(9), digest(1))]);
        let documents = BTreeMap::from([(path(1), Revision(1))]);
        let actions = plan(&files, &documents, &bases);
        assert!(matches!(actions[0], (_, Action::DeleteFile { .. })), "{actions:?}");
        assert_eq!((actions.len(), deletions(&actions)), (2, 1));
    }
}
