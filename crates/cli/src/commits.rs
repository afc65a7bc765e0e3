//! `commit`: several documents at once, all or none.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use mutext::{
    Changed, Content, DocumentPath, Edit, Error, Expiry, IdempotencyKey, Part, Precondition, Resource, Revision,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::Common;
use crate::conflict::explained;
use crate::error::CliError;
use crate::exit::Exit;
use crate::inherited::{self, Inherited};
use crate::input::Input;
use crate::said::{Why, expiry};

/// Change several documents at once, all or none
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mutext commit change.json --message 'task 17 is done'\n  \
    ./make-change | mutext commit -\n\n\
    The file is JSON:\n\n  \
    {\"message\": \"task 17 is done\", \"changes\": [\n    \
    {\"path\": \"tasks/17.json\", \"delete\": true, \"if_revision\": 3},\n    \
    {\"path\": \"plan.md\", \"text\": \"the whole plan\", \"if_revision\": 8},\n    \
    {\"path\": \"done.json\", \"json\": {\"17\": true}, \"create\": true},\n    \
    {\"path\": \"log.md\", \"edits\": [{\"append\": {\"text\": \"17 is done\"}}]}]}\n\n\
    Each change is one of `text`, `json`, `delete` and `edits`. All but edits say what they take the\n\
    place of: `if_revision`, or `create`, or `overwrite`. `expires` (\"2h\", \"never\") and `allow_shrink`\n\
    may be said. Edits are those of the other commands: append, prepend, insert {line, text}, replace\n\
    {old, new, nth or all}, patch, merge_patch, add and add_to_set {pointer, item}, increment\n\
    {pointer, by}.")]
pub(crate) struct CommitArgs {
    /// The file with the changes; - reads standard input
    #[arg(default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    message: Option<String>,
    key: Option<IdempotencyKey>,
    changes: Vec<WrittenChange>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a member of its own in the file")]
struct WrittenChange {
    path: DocumentPath,
    text: Option<String>,
    /// A member that says `null` is a document that holds `null`.
    #[serde(default, deserialize_with = "present")]
    json: Option<Value>,
    #[serde(default)]
    delete: bool,
    edits: Option<Vec<Edit>>,
    if_revision: Option<u64>,
    #[serde(default)]
    create: bool,
    #[serde(default)]
    overwrite: bool,
    expires: Option<String>,
    #[serde(default)]
    allow_shrink: bool,
}

fn present<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

impl WrittenChange {
    /// As the library wants it, or what is wrong with it.
    fn part(self) -> Result<Part, String> {
        let path = self.path;
        let mut part = match (self.text, self.json, self.delete, self.edits) {
            (Some(text), None, false, None) => Part::put(path.clone(), Content::text(text)),
            (None, Some(json), false, None) => {
                Part::put(path.clone(), Content::json(&json).map_err(|error| error.to_string())?)
            }
            (None, None, true, None) => Part::delete(path.clone()),
            (None, None, false, Some(edits)) => Part::edit(path.clone(), edits),
            _ => return Err(format!("the change of {path} must be one of text, json, delete and edits")),
        };
        part.precondition = match (self.if_revision, self.create, self.overwrite) {
            (None, false, false) => None,
            (Some(revision), false, false) if revision > 0 => Some(Precondition::Exact(Revision(revision))),
            (Some(_), false, false) => return Err(format!("if_revision of {path} is 0; revisions count from 1")),
            (None, true, false) => Some(Precondition::Absent),
            (None, false, true) => Some(Precondition::Any),
            _ => return Err(format!("the change of {path} says two of if_revision, create and overwrite; keep one")),
        };
        part.expiry = match self.expires.as_deref() {
            None => Expiry::Keep,
            Some(text) => expiry(text).map_err(|error| format!("expires of {path} is {text:?}: {error}"))?,
        };
        part.may_shrink = self.allow_shrink;
        Ok(part)
    }
}

/// The file may hold as many documents as a commit, but is read into memory: so much is enough for anybody.
const DOCUMENTS_MAX: usize = 64;

pub(crate) async fn commit(args: CommitArgs, common: &Common) -> Result<ExitCode, CliError> {
    let CommitArgs { file, why } = args;
    let input = if file == Path::new("-") { Input::Standard } else { Input::File(&file) };
    let name = input.name();
    let limit = common.document_bytes_max.saturating_mul(DOCUMENTS_MAX);
    let Written { message, key, changes } = input.json("a commit as `mutext commit --help` shows it", limit)?;
    let why = Why { message: why.message.or(message), key: why.key.or(key) };
    let parts: Result<Vec<Part>, String> = changes.into_iter().map(WrittenChange::part).collect();
    let parts = parts.map_err(|error| CliError::input(format!("{name}: {error}; nothing was changed")))?;
    let resources: Vec<Resource> = parts.iter().map(|part| Resource::from(&part.path)).collect();
    let fence = Inherited::covering_all(&resources, common)?;
    let outcome = common.with_context(async |context| {
        let mut changes = context.change_all(parts.clone());
        if let Some(fence) = fence {
            inherited::still_stands(&fence, &context).await?;
            changes = changes.under(fence);
        }
        if let Some(message) = &why.message {
            changes = changes.message(message);
        }
        if let Some(key) = &why.key {
            changes = changes.key(key.clone());
        }
        let made = changes.await.map_err(CliError::from);
        match made {
            Ok(changed) => Ok(changed),
            Err(CliError::Library(Error::Conflict(conflict))) => {
                let path = conflict.path.clone();
                let mine = parts.iter().find(|part| part.path == path).and_then(|part| match &part.doing {
                    mutext::Doing::Put(content) => Some(content),
                    _ => None,
                });
                let error = Error::Conflict(conflict).into();
                Err(explained(error, &context, mine, |current, _| match current {
                    Some(current) => format!("look at {path} (`mutext get {path}`), make its change for revision {current}, and commit all of it again"),
                    None => format!("there is no {path}: leave it out, or create it, and commit all of it again"),
                })
                .await)
            }
            Err(error) => Err(error),
        }
    });
    tell(&outcome.await?, common)
}

fn tell(changed: &Changed, common: &Common) -> Result<ExitCode, CliError> {
    let Changed { cursor, revisions, replayed, attempts } = changed;
    let list: Vec<Value> =
        revisions.iter().map(|(path, revision)| json!({ "path": path, "revision": revision })).collect();
    let answer = json!({ "revisions": list, "cursor": cursor, "replayed": replayed, "attempts": attempts });
    common.out.answer(&answer, || {
        let earlier = if *replayed { ", since an earlier call with this key" } else { "" };
        let line = |(path, revision): &(DocumentPath, Revision)| format!("{path} is at revision {revision}{earlier}\n");
        revisions.iter().map(line).collect()
    })?;
    Ok(Exit::Done.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(text: &str) -> Result<Part, String> {
        serde_json::from_str::<WrittenChange>(text).map_err(|error| error.to_string())?.part()
    }

    #[test]
    fn a_change_is_one_thing_and_says_what_it_takes_the_place_of() {
        let path = || DocumentPath::new("a").unwrap();
        let json = Content::json(&Value::Null).unwrap();
        assert_eq!(part(r#"{"path": "a", "json": null, "create": true}"#), Ok(Part::put(path(), json).create()));
        let text = Part::put(path(), "x".into()).at(Revision(3)).allow_shrink().expires(Expiry::Never);
        let written = r#"{"path": "a", "text": "x", "if_revision": 3, "allow_shrink": true, "expires": "never"}"#;
        assert_eq!(part(written), Ok(text));
        assert_eq!(part(r#"{"path": "a", "delete": true, "overwrite": true}"#), Ok(Part::delete(path()).overwrite()));
        let append = Edit::Append { text: "l".into() };
        assert_eq!(part(r#"{"path": "a", "edits": [{"append": {"text": "l"}}]}"#), Ok(Part::edit(path(), [append])));
        for (text, said) in [
            (r#"{"path": "a"}"#, "one of text"),
            (r#"{"path": "a", "text": "x", "delete": true}"#, "one of text"),
            (r#"{"path": "a", "delete": true, "create": true, "overwrite": true}"#, "keep one"),
            (r#"{"path": "a", "delete": true, "if_revision": 0}"#, "count from 1"),
            (r#"{"path": "a", "text": "x", "expires": "soon"}"#, "soon"),
            (r#"{"path": "a", "txet": "x"}"#, "txet"),
            (r#"{"path": "../a", "text": "x"}"#, "`..`"),
        ] {
            let refusal = part(text).unwrap_err();
            assert!(refusal.contains(said), "{text}: {refusal}");
        }
    }
}
