//! Why a command did not do what was asked: its words, its exit status, and its data for machines.

use std::error::Error as _;
use std::io;

use mutext::{
    BoardError, Conflict, Document, EditError, Effect, EngineError, Error, HeldElement, Holding, Kind, Knot, Loss,
    NoneFree, Obstacle, Resource, ViewError, Waiter,
};
use serde_json::{Map, Value, json};

use crate::conflict::Explained;
use crate::exit::Exit;
use crate::output::timestamp;

/// The most bytes of a document that an error carries.
const CONTENT_MAX: usize = 4096;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// What the library says.
    #[error(transparent)]
    Library(#[from] Error),
    /// A setting that is not valid, and where it came from.
    #[error("{origin}: {source}")]
    Setting { origin: String, source: Box<Error> },
    /// What was asked for is not valid; the text names the thing, the value and the remedy.
    #[error("{0}")]
    Input(String),
    /// A document is there, and the write did not say which revision of it it is for.
    #[error(
        "{} is at revision {} by {}: {verb} it, give --if-revision {}, or hold its lease (mutext lock {} -- …), or say --overwrite; nothing was changed",
        current.path, current.revision, current.author, current.revision, current.path
    )]
    PreconditionMissing { verb: &'static str, current: Box<Document> },
    /// What was typed into an editor is not in the document.
    #[error("{source}\nwhat you typed is kept in {file}")]
    NotWritten { source: Box<CliError>, file: String },
    /// The editor did not end well.
    #[error("{0}")]
    Editor(String),
    /// A process of ours has said what went wrong, in the words that were asked for.
    #[error("{said}")]
    Told { said: String, status: u8 },
    /// Nothing on the board is free that was wanted.
    #[error("{0}; nothing was changed")]
    NoneFree(Box<NoneFree>),
    /// The one edit that was asked for does not fit what is there.
    #[error("{}", refused_edit(.0))]
    Edit(Box<Error>),
    /// A conflict, with what led to it.
    #[error("{}", .0.text())]
    Conflict(Box<Explained>),
    /// There is nothing of that name.
    #[error("{0}")]
    NotFound(String),
    /// The lock was not granted because of the very lease that the command runs under.
    #[error("{source}; this command runs under that lease (MUTEXT_LEASE): ask for all of it in the surrounding lock")]
    OwnLease { source: Box<Error> },
    /// The lease that `MUTEXT_LEASE` names is gone from the lock service.
    #[error(
        "the lease on {} that MUTEXT_LEASE names is lost: it was released, revoked or taken over; nothing was written: lock and read again",
        list(.0)
    )]
    LeaseGone(Vec<Resource>),
    /// The lease was lost while the command of `mutext lock` ran.
    #[error(
        "the lease on {} was lost before the command ended: {}; the command {ended}: read again and run it anew",
        list(resources), because(loss.as_ref())
    )]
    LostWhileRunning { resources: Vec<Resource>, loss: Option<Loss>, ended: String },
    /// The command of `mutext lock` does not start.
    #[error("command {program:?} {}; see its name, its path and its permissions", not_started(source))]
    Command { program: String, source: io::Error },
    /// A signal came before the command was done.
    #[error("interrupted by {name} {what}")]
    Interrupted { name: &'static str, number: u8, what: &'static str },
    /// Another `mutext sync` works on the folder.
    #[error("another sync works on folder {0}: wait longer for it (MUTEXT_WAIT), or end it; nothing was changed")]
    SyncedElsewhere(String),
    /// An experiment could not be run, or its files not be read or written.
    #[error("{0}")]
    Experiment(String),
    /// A file, or something like one.
    #[error("{what}: {source}; {remedy}")]
    Io { what: String, remedy: &'static str, source: io::Error },
}

impl CliError {
    pub(crate) fn input(text: impl Into<String>) -> Self {
        Self::Input(text.into())
    }

    /// A short word for machines, and the exit status.
    fn kind(&self) -> (&'static str, Exit) {
        match self {
            Self::Library(error) => library_kind(error),
            Self::Setting { source, .. } | Self::OwnLease { source } | Self::Edit(source) => library_kind(source),
            Self::Input(_) => ("bad_input", Exit::BadInput),
            Self::PreconditionMissing { .. } => ("precondition_required", Exit::Conflict),
            Self::Conflict(_) => ("conflict", Exit::Conflict),
            Self::NotWritten { source, .. } => source.kind(),
            Self::Told { .. } => ("told", Exit::Trouble),
            Self::NoneFree(_) => ("none_free", Exit::NotGranted),
            Self::Editor(_) => ("editor", Exit::Trouble),
            Self::NotFound(_) => ("not_found", Exit::NotFound),
            Self::LeaseGone(_) | Self::LostWhileRunning { .. } => ("lease_lost", Exit::LeaseLost),
            Self::Command { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                ("command_not_found", Exit::CommandNotFound)
            }
            Self::Command { .. } => ("command_not_executable", Exit::NotExecutable),
            Self::Interrupted { .. } => ("interrupted", Exit::Trouble),
            Self::SyncedElsewhere(_) => ("synced_elsewhere", Exit::NotGranted),
            Self::Experiment(_) => ("experiment", Exit::Trouble),
            Self::Io { .. } => ("io", Exit::Trouble),
        }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Interrupted { number, .. } => 128 + number,
            Self::Told { status, .. } => *status,
            Self::NotWritten { source, .. } => source.exit_code(),
            other => other.kind().1.code(),
        }
    }

    /// The message, then its causes, as far as they say anything new.
    pub(crate) fn chain(&self) -> Vec<String> {
        let mut texts = vec![self.to_string()];
        let mut source = self.source();
        while let Some(error) = source {
            let text = error.to_string();
            if !texts.iter().any(|known| known.contains(&text) || text.contains(known.as_str())) {
                texts.push(text);
            }
            source = error.source();
        }
        texts
    }

    /// As JSON, with what a program needs to go on.
    pub(crate) fn to_json(&self) -> Value {
        let mut texts = self.chain().into_iter();
        let mut object = Map::new();
        object.insert("code".to_owned(), json!(self.kind().0));
        object.insert("exit".to_owned(), json!(self.exit_code()));
        // What a conflict says on its further lines stands in the data.
        let message = texts.next().map(|text| if self.is_explained() { first_line(&text) } else { text });
        object.insert("message".to_owned(), json!(message));
        let causes: Vec<String> = texts.collect();
        if !causes.is_empty() {
            object.insert("causes".to_owned(), json!(causes));
        }
        if let Value::Object(mut data) = self.data() {
            object.append(&mut data);
        }
        json!({ "error": object })
    }

    fn is_explained(&self) -> bool {
        match self {
            Self::Conflict(_) => true,
            Self::NotWritten { source, .. } => source.is_explained(),
            _ => false,
        }
    }

    fn data(&self) -> Value {
        match self {
            Self::Library(error) => library_data(error),
            Self::Setting { source, .. } | Self::OwnLease { source } | Self::Edit(source) => library_data(source),
            Self::PreconditionMissing { current, .. } => {
                json!({ "path": current.path, "current": standing(current) })
            }
            Self::Conflict(explained) => explained.data(),
            Self::NoneFree(none) => json!({
                "held": none.held.iter().map(held).collect::<Vec<_>>(),
                "soonest_ms": none.soonest.map(milliseconds),
            }),
            Self::NotWritten { source, file } => {
                let mut data = match source.data() {
                    Value::Object(data) => data,
                    _ => Map::new(),
                };
                data.insert("kept".to_owned(), json!(file));
                Value::Object(data)
            }
            Self::LeaseGone(resources) | Self::LostWhileRunning { resources, .. } => json!({ "resources": resources }),
            _ => Value::Null,
        }
    }
}

impl From<mutext::InvalidName> for CliError {
    fn from(error: mutext::InvalidName) -> Self {
        Self::Library(error.into())
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// An edit that is alone needs no word on which of several it was.
fn refused_edit(error: &Error) -> String {
    let Error::EditFailed { path, failed, current } = error else { return error.to_string() };
    let there =
        current.as_ref().map_or_else(|| "absent".to_owned(), |current| format!("at revision {}", current.revision));
    format!("{path}, {there}, stays as it was: {}", failed.source)
}

fn library_kind(error: &Error) -> (&'static str, Exit) {
    match error {
        Error::Conflict(_) => ("conflict", Exit::Conflict),
        Error::KeyReused { .. } => ("key_reused", Exit::Conflict),
        Error::RetriesExhausted { .. } => ("retries_exhausted", Exit::Conflict),
        Error::Timeout { .. } => ("timeout", Exit::NotGranted),
        Error::Deadlock { .. } => ("deadlock", Exit::NotGranted),
        Error::LeaseLost { .. } => ("lease_lost", Exit::LeaseLost),
        Error::Engine(_) => ("engine", Exit::Trouble),
        Error::TooLarge { .. } => ("too_large", Exit::BadInput),
        Error::EditFailed { failed, .. } => edit_kind(&failed.source),
        Error::Unviewable { why, .. } => match **why {
            ViewError::NoSuchSection { .. } | ViewError::NoSuchValue { .. } | ViewError::NoSuchLines { .. } => {
                ("not_found", Exit::NotFound)
            }
            _ => ("bad_input", Exit::BadInput),
        },
        Error::Board { why, .. } => match **why {
            BoardError::NoDocument | BoardError::NotThere(_) => ("not_found", Exit::NotFound),
            BoardError::Settled { .. } => ("settled", Exit::Conflict),
            _ => ("bad_input", Exit::BadInput),
        },
        Error::PreconditionRequired { .. } => ("precondition_required", Exit::Conflict),
        Error::Erosion(_) => ("erosion", Exit::Conflict),
        Error::NoRevision { .. } => ("not_found", Exit::NotFound),
        Error::CursorGone { .. } => ("cursor_gone", Exit::NotFound),
        Error::CursorAhead { .. } => ("cursor_ahead", Exit::NotFound),
        Error::Archive(_) => ("archive", Exit::BadInput),
        Error::ContextNotEmpty { .. } => ("context_not_empty", Exit::Conflict),
        _ => ("bad_input", Exit::BadInput),
    }
}

/// An edit that does not fit what is there is a conflict; one that fits nothing is bad input.
fn edit_kind(error: &EditError) -> (&'static str, Exit) {
    match error {
        EditError::NoDocument { .. } | EditError::NothingToDo => ("not_found", Exit::NotFound),
        EditError::WrongKind { .. } | EditError::EmptyOld | EditError::BadPointer { .. } => {
            ("bad_input", Exit::BadInput)
        }
        _ => ("edit_failed", Exit::Conflict),
    }
}

fn library_data(error: &Error) -> Value {
    match error {
        Error::EditFailed { path, failed, current } => json!({
            "path": path,
            "edit": { "index": failed.index, "name": failed.name },
            "current": current.as_deref().map(standing),
        }),
        Error::PreconditionRequired { path, current } => json!({
            "path": path,
            "current": current.as_deref().map(standing),
        }),
        Error::Erosion(erosion) => json!({
            "path": erosion.path,
            "revision": erosion.revision,
            "bytes": erosion.bytes,
            "left": erosion.left,
        }),
        Error::NoRevision { path, revision, newest, deleted } => json!({
            "path": path, "revision": revision, "newest": newest,
            "deleted": deleted.as_ref().map(|last| json!({ "author": last.author, "message": last.message })),
        }),
        Error::CursorGone { after, oldest } => json!({ "after": after, "oldest": oldest }),
        Error::CursorAhead { after, head } => json!({ "after": after, "head": head }),
        Error::Conflict(conflict) => conflict_data(conflict),
        Error::Timeout { resources, waited, blocked, .. } => json!({
            "resources": resources,
            "waited_ms": milliseconds(*waited),
            "holders": blocked.holdings.iter().map(holding).collect::<Vec<_>>(),
            "ahead": blocked.ahead,
        }),
        Error::Deadlock { resources, deadlock } => json!({
            "resources": resources,
            "cycle": deadlock.cycle.iter().map(knot).collect::<Vec<_>>(),
        }),
        Error::LeaseLost { resources, current, .. } => json!({
            "resources": resources,
            "current": current.as_deref().map(standing),
        }),
        Error::TooLarge { path, size, limit } => json!({ "path": path, "size": size, "limit": limit }),
        Error::Engine(EngineError { effect, .. }) => json!({
            "effect": if *effect == Effect::None { "none" } else { "unknown" },
        }),
        _ => Value::Null,
    }
}

/// An element that somebody else has.
fn held(held: &HeldElement) -> Value {
    json!({
        "at": held.element.at,
        "by": held.element.mark().map(|mark| &mark.by),
        "attempt": held.element.attempts(),
        "remaining_ms": milliseconds(held.remaining),
    })
}

/// One step of a circle of waiters.
fn knot(knot: &Knot) -> Value {
    let Waiter { lease, holder, claims, waited, reason, .. } = &knot.waiter;
    let waits_for = match &knot.obstacle {
        Obstacle::Lease(lease) => json!({ "lease": holding(lease) }),
        Obstacle::Request(before) => json!({ "request": { "lease": before.lease, "agent": before.holder.agent } }),
    };
    json!({
        "lease": lease,
        "agent": holder.agent,
        "claims": claims[..],
        "waited_ms": milliseconds(*waited),
        "reason": reason,
        "waits_for": waits_for,
    })
}

/// A conflict as JSON.
pub(crate) fn conflict_data(conflict: &Conflict) -> Value {
    json!({
        "path": conflict.path,
        "demanded": conflict.precondition.to_string(),
        "current": conflict.current.as_ref().map(standing),
    })
}

/// A document as JSON.
pub(crate) fn document(document: &Document) -> Value {
    json!({
        "path": document.path,
        "revision": document.revision,
        "kind": kind(document.content.kind()),
        "author": document.author,
        "written_at": timestamp(document.written_at),
        "expires_at": document.expires_at.map(timestamp),
        "content": document.content.as_str(),
    })
}

/// What stands there, as an error carries it: without the content where that is long. Whoever needs it reads it, or the
/// part that matters.
fn standing(current: &Document) -> Value {
    let mut value = document(current);
    let size = current.content.as_str().len();
    if size > CONTENT_MAX {
        value["content"] = Value::Null;
        value["size"] = size.into();
    }
    value
}

/// A lease as JSON, as others see it.
pub(crate) fn holding(holding: &Holding) -> Value {
    json!({
        "lease": holding.lease,
        "agent": holding.holder.agent,
        "claims": holding.claims[..],
        "token": format!("{}.{}", holding.token.0, holding.token.1),
        "held_ms": milliseconds(holding.held_for),
        "remaining_ms": milliseconds(holding.remaining),
        "reason": holding.reason,
    })
}

pub(crate) const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "text",
        Kind::Json => "json",
    }
}

pub(crate) fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn list(resources: &[Resource]) -> String {
    resources.iter().map(Resource::as_str).collect::<Vec<_>>().join(", ")
}

fn because(loss: Option<&Loss>) -> String {
    loss.map_or_else(|| "it was revoked or taken over".to_owned(), ToString::to_string)
}

fn not_started(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::NotFound { "is not found" } else { "cannot be executed" }
}
