//! Reading no more of a document than is needed: nothing where it is unchanged, what changed, an outline, or a part.

use std::fmt;
use std::pin::Pin;
use std::str::FromStr;

use mutext_contract::{Content, Document, DocumentPath, Entry, InvalidName, Revision};
use mutext_edit::{Diff, DiffOptions, Outline, OutlineOptions, Part, View, ViewError, diff, outline, view};
use serde::{Deserialize, Serialize};

use crate::conflict::heavy;
use crate::{Context, Error};

/// A read, to be awaited or said more of first.
#[derive(Debug)]
#[must_use = "nothing is read until this is awaited"]
pub struct Reading<'a> {
    context: &'a Context,
    path: Result<DocumentPath, InvalidName>,
    known: Option<Revision>,
    what: What,
    budget: usize,
    from: Option<Onward>,
}

#[derive(Debug, Clone)]
enum What {
    Part(Part),
    Outline(OutlineOptions),
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// There is no such document.
    Absent,
    /// What was asked for is as it was at the revision that the reader knows.
    Unchanged(Entry),
    /// What changed since the revision that the reader knows: exactly, and much shorter than the whole.
    Changed(Entry, Diff),
    /// All of it.
    Whole(Document),
    /// The part that was asked for, or as much of it as the budget allows.
    Part(Entry, Section),
    /// What it consists of.
    Outline(Entry, Outline),
}

/// A part of a document, and how to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The text, and where it stands.
    pub view: View,
    /// From where to go on: see [`Reading::go_on`]; `None` at the part's end.
    pub next: Option<Onward>,
}

/// Where a read that its budget cut off goes on: in the same revision, whatever was written meanwhile. As text,
/// `17:4096`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Onward {
    /// The revision that is being read.
    pub revision: Revision,
    /// The byte to go on with.
    pub byte: usize,
}

/// A text that is no place to go on from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no place to go on from; give what the read before returned, as in 17:4096")]
pub struct InvalidOnward(String);

impl fmt::Display for Onward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.revision, self.byte)
    }
}

impl FromStr for Onward {
    type Err = InvalidOnward;
    fn from_str(text: &str) -> Result<Self, InvalidOnward> {
        let parsed = text.split_once(':').and_then(|(revision, byte)| {
            Some(Self { revision: Revision(revision.parse().ok()?), byte: byte.parse().ok()? })
        });
        parsed.ok_or_else(|| InvalidOnward(text.chars().take(100).collect()))
    }
}

impl TryFrom<String> for Onward {
    type Error = InvalidOnward;
    fn try_from(text: String) -> Result<Self, InvalidOnward> {
        text.parse()
    }
}

impl From<Onward> for String {
    fn from(onward: Onward) -> Self {
        onward.to_string()
    }
}

impl Context {
    /// Reads the document at `path`, or as much of it as is needed: say so, and await it.
    ///
    /// ```
    /// # async fn example(context: &mutext::Context) -> Result<(), mutext::Error> {
    /// use mutext::Shown;
    ///
    /// let plan = "# Plan\n\n## Phase 1\nmeasure\n\n## Phase 2\ncut\n";
    /// let read = context.write("plan.md", plan).create().await?.revision;
    ///
    /// let Shown::Unchanged(_) = context.read("plan.md").if_revision(read).await? else { panic!("nobody wrote") };
    /// let Shown::Outline(_, outline) = context.read("plan.md").outline().await? else { panic!("it is there") };
    /// assert_eq!(outline.parts[2].at, "Plan/Phase 2");
    /// let phase = context.read("plan.md").section("Plan/Phase 2").budget(4000).await?;
    /// let Shown::Part(_, section) = phase else { panic!("it is there") };
    /// assert_eq!(section.view.text, "## Phase 2\ncut\n");
    /// # Ok(())
    /// # }
    /// # let dir = std::env::temp_dir().join(format!("mutext-read-{}", std::process::id()));
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// #     let mutext = mutext::Mutext::open(&mutext::Address::embedded(&dir), None).await.unwrap();
    /// #     let settings = mutext::Settings::new("planner".try_into().unwrap());
    /// #     example(&mutext.context("research-42", settings).unwrap()).await.unwrap();
    /// # });
    /// # std::fs::remove_dir_all(&dir).unwrap();
    /// ```
    pub fn read<P>(&self, path: P) -> Reading<'_>
    where
        P: TryInto<DocumentPath>,
        InvalidName: From<P::Error>,
    {
        let path = path.try_into().map_err(InvalidName::from);
        let what = What::Part(Part::Whole);
        Reading { context: self, path, known: None, what, budget: usize::MAX, from: None }
    }
}

impl Reading<'_> {
    /// The reader has this revision before it, still: it is told that nothing changed, or what.
    pub const fn if_revision(mut self, revision: Revision) -> Self {
        self.known = Some(revision);
        self
    }

    /// What it consists of, with sizes: headings, or members.
    pub fn outline(self) -> Self {
        self.outline_as(OutlineOptions::default())
    }

    /// The same, as deep and as long as `options` say.
    pub fn outline_as(mut self, options: OutlineOptions) -> Self {
        self.what = What::Outline(options);
        self
    }

    /// A section of Markdown by its heading, with those above it where it takes them to tell it from others.
    pub fn section(self, path: impl Into<String>) -> Self {
        self.part(Part::Section(path.into()))
    }

    /// A value of a JSON document by its JSON Pointer.
    pub fn pointer(self, pointer: impl Into<String>) -> Self {
        self.part(Part::Pointer(pointer.into()))
    }

    /// Lines, counted from 1; beyond the end means to the end.
    pub fn lines(self, first: usize, last: usize) -> Self {
        self.part(Part::Lines { first, last })
    }

    /// Any part.
    pub fn part(mut self, part: Part) -> Self {
        self.what = What::Part(part);
        self
    }

    /// At most so many bytes of text, in whole lines where they fit; what is left is read with [`Reading::go_on`].
    pub const fn budget(mut self, bytes: usize) -> Self {
        self.budget = bytes;
        self
    }

    /// Goes on where a read of the same part was cut off, in the revision that it read.
    pub const fn go_on(mut self, from: Onward) -> Self {
        self.from = Some(from);
        self
    }

    /// Reads.
    ///
    /// Errors: [`Error::Unviewable`] where there is no such part; [`Error::NoRevision`] where the revision in which it
    /// was to go on is forgotten.
    pub async fn make(self) -> Result<Shown, Error> {
        let path = self.path.clone()?;
        let context = self.context;
        let Some(document) = context.get_by(&path, context.deadline()).await? else { return Ok(Shown::Absent) };
        let document = self.at_its_revision(document).await?;
        // Whoever goes on wants the rest, and has seen what came before it.
        let known = self.known.filter(|_| self.from.is_none());
        if known == Some(document.revision) {
            return Ok(Shown::Unchanged(entry(&document)));
        }
        let before = match (known, &self.what) {
            (Some(known), What::Part(_)) if known < document.revision => context.past(&path, known).await?,
            _ => None,
        };
        let known = before.and_then(|past| Some((past.revision, past.content?)));
        let shown =
            heavy(move || show(document, known.as_ref(), &self.what, self.from.map(|from| from.byte), self.budget));
        shown.await.map_err(|why| Error::Unviewable { path, why: Box::new(why) })
    }

    /// Where a read goes on, the document as it was when it began.
    async fn at_its_revision(&self, document: Document) -> Result<Document, Error> {
        let Some(from) = self.from.filter(|from| from.revision != document.revision) else { return Ok(document) };
        let past = self.context.kept(document.path.clone(), from.revision).await?;
        let (path, revision, expires_at) = (document.path, past.revision, document.expires_at);
        match past.content {
            Some(content) => {
                Ok(Document { path, revision, content, author: past.author, written_at: past.written_at, expires_at })
            }
            None => Err(Error::NoRevision { path, revision, newest: Some(document.revision), deleted: None }),
        }
    }
}

fn entry(document: &Document) -> Entry {
    Entry {
        path: document.path.clone(),
        revision: document.revision,
        kind: document.content.kind(),
        size: document.content.size(),
        author: document.author.clone(),
        written_at: document.written_at,
        expires_at: document.expires_at,
    }
}

fn show(
    document: Document,
    known: Option<&(Revision, Content)>,
    what: &What,
    from: Option<usize>,
    budget: usize,
) -> Result<Shown, ViewError> {
    let entry = entry(&document);
    let part = match what {
        What::Outline(options) => return Ok(Shown::Outline(entry, outline(&document.content, *options))),
        What::Part(part) => part,
    };
    let shown = view(&document.content, part, from, budget)?;
    if let Some((revision, content)) = known {
        match part {
            Part::Whole => {
                if let Some(diff) = shorter_diff(&document, *revision, content, budget) {
                    return Ok(Shown::Changed(entry, diff));
                }
            }
            // The document has changed, but perhaps not there.
            part => {
                let before = view(content, part, None, usize::MAX);
                let now = view(&document.content, part, None, usize::MAX)?;
                if before.is_ok_and(|before| before.text == now.text) {
                    return Ok(Shown::Unchanged(entry));
                }
            }
        }
    }
    if *part == Part::Whole && shown.next.is_none() && from.is_none() {
        return Ok(Shown::Whole(document));
    }
    let next = shown.next.map(|byte| Onward { revision: document.revision, byte });
    Ok(Shown::Part(entry, Section { view: shown, next }))
}

/// What changed, where that is all of it and worth it.
fn shorter_diff(document: &Document, known: Revision, content: &Content, budget: usize) -> Option<Diff> {
    let path = &document.path;
    let options = DiffOptions::default().labels(&format!("{path}@{known}"), &format!("{path}@{}", document.revision));
    let most = (document.content.size() / 2).min(budget);
    let diff = diff(Some(content), Some(&document.content), &options.within(most));
    (diff.is_exact() && diff.text.len() <= most).then_some(diff)
}

impl<'a> IntoFuture for Reading<'a> {
    type Output = Result<Shown, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.make())
    }
}
