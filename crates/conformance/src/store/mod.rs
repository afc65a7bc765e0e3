//! What every document engine promises.

pub mod commits;
pub mod documents;
pub mod feed;
pub mod fences;

use mutext_contract::{
    AgentName, Commit, Committed, Content, Cursor, Document, DocumentPath, DocumentStore, Outcome, Precondition,
    Refusal, Revision,
};

use crate::{context, soon};

fn path(path: &str) -> DocumentPath {
    DocumentPath::new(path).unwrap_or_else(|error| panic!("{error}"))
}

fn commit() -> Commit {
    Commit::new(AgentName::new("writer").unwrap_or_else(|error| panic!("{error}")))
}

fn put(at: &str, text: &str, precondition: Precondition) -> Commit {
    commit().put(path(at), Content::text(text), precondition)
}

async fn outcome(store: &dyn DocumentStore, commit: &Commit) -> Outcome {
    store.commit(&context(), commit, soon()).await.unwrap_or_else(|error| panic!("commit: {error}"))
}

async fn done(store: &dyn DocumentStore, commit: &Commit) -> Committed {
    match outcome(store, commit).await {
        Outcome::Committed(committed) => committed,
        refused @ Outcome::Refused(_) => panic!("{refused:?}"),
    }
}

async fn refusal(store: &dyn DocumentStore, commit: &Commit) -> Refusal {
    match outcome(store, commit).await {
        Outcome::Refused(refusal) => refusal,
        done @ Outcome::Committed(_) => panic!("was to be refused: {done:?}"),
    }
}

fn revision(committed: &Committed) -> Revision {
    committed.revisions.first().map_or(Revision(0), |(_, revision)| *revision)
}

async fn read(store: &dyn DocumentStore, at: &str) -> Option<Document> {
    store.read(&context(), &path(at), soon()).await.unwrap_or_else(|error| panic!("read: {error}"))
}

async fn text(store: &dyn DocumentStore, at: &str) -> Option<String> {
    read(store, at).await.map(|document| document.content.as_str().to_owned())
}

async fn cursors(store: &dyn DocumentStore, after: Cursor, limit: usize) -> Vec<mutext_contract::CommitRecord> {
    let page = store.changes(&context(), after, limit, mutext_contract::Deadline::now()).await;
    page.unwrap_or_else(|error| panic!("changes: {error}"))
}
