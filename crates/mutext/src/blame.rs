//! Who last touched what: each line of a text, each member of a JSON document.

use std::collections::BTreeMap;

use mutext_contract::{DocumentPath, PastRevision, Revision};
use mutext_edit::{Blamed, Blamer};

use crate::conflict::heavy;
use crate::{Context, Error, Since};

/// So many revisions are read at once.
const PAGE: u64 = 100;

/// Who last touched what of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blame {
    /// The revision that is there.
    pub revision: Revision,
    /// Each line, or each member, and the revision that last touched it.
    pub lines: Vec<Blamed<Revision>>,
    /// Who wrote those revisions, when and why.
    pub revisions: BTreeMap<Revision, Since>,
    /// The oldest revision that was looked at: what that one is named for may be older, unless it is the first.
    pub oldest: Revision,
}

impl Context {
    /// The most revisions that a blame looks at.
    pub const BLAMED_MAX: u64 = 10_000;

    /// Who last touched which line of the text at `path`, or which member of its JSON; none where there is no such
    /// document. Looks at the last [`Context::BLAMED_MAX`] revisions, as far as they are kept, some at a time.
    pub async fn blame<P>(&self, path: P) -> Result<Option<Blame>, Error>
    where
        P: TryInto<DocumentPath>,
        Error: From<P::Error>,
    {
        self.blamed(path.try_into()?).await
    }

    async fn blamed(&self, path: DocumentPath) -> Result<Option<Blame>, Error> {
        let newest = self.page(&path, u64::MAX, 1).await?.pop();
        let Some(newest) = newest.filter(|newest| newest.content.is_some()) else { return Ok(None) };
        let last = newest.revision.0;
        let first = self.first_kept(&path, last).await?.max(last.saturating_sub(Self::BLAMED_MAX - 1));
        let (mut blamer, mut from, mut revisions) = (Blamer::default(), first, BTreeMap::new());
        while from <= last {
            let to = (from + PAGE - 1).min(last);
            let mut page = self.page(&path, to + 1, PAGE as usize).await?;
            page.retain(|past| past.revision.0 >= from);
            revisions.extend(page.iter().map(|past| (past.revision, Since::of(past))));
            blamer = heavy(move || {
                page.iter().rev().for_each(|past| blamer.feed(past.revision, past.content.as_ref()));
                blamer
            })
            .await;
            from = to + 1;
        }
        let lines = heavy(move || blamer.finish()).await;
        let named: std::collections::BTreeSet<_> = lines.iter().map(|line| line.by).collect();
        revisions.retain(|revision, _| named.contains(revision));
        Ok(Some(Blame { revision: newest.revision, lines, revisions, oldest: Revision(first) }))
    }

    async fn page(&self, path: &DocumentPath, before: u64, limit: usize) -> Result<Vec<PastRevision>, Error> {
        let before = (before < u64::MAX).then_some(Revision(before));
        Ok(self.store().history(self.name(), path, before, limit, self.deadline()).await?)
    }

    /// The oldest revision that is kept, found by halving: a page of history begins at its newest end.
    async fn first_kept(&self, path: &DocumentPath, last: u64) -> Result<u64, Error> {
        let (mut forgotten, mut kept) = (0, last);
        while kept - forgotten > 1 {
            let middle = forgotten + (kept - forgotten) / 2;
            // One at or before the middle?
            match self.page(path, middle + 1, 1).await?.pop() {
                Some(past) => kept = past.revision.0,
                None => forgotten = middle,
            }
        }
        Ok(kept)
    }
}
