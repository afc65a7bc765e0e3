//! Changes inside `mutext lock`: made under its lease, so that they are refused once that is lost.
//!
//! Edits are made on what is there, and again should somebody without the lock have been faster; a retry under the same
//! key learns what the first one did, as the library's own edits do.

use std::time::Duration;

use mutext::{
    Action, Change, Changed, Commit, Committed, Conflict, Context, Doing, Error, Fence, Part, Precondition, Revision,
};
use tokio::time::{Instant, sleep};

use crate::error::CliError;
use crate::inherited;
use crate::said::Why;

/// Makes all parts under `fence`, or none.
pub(crate) async fn change_all(
    context: &Context,
    fence: &Fence,
    parts: &[Part],
    why: &Why,
) -> Result<Changed, CliError> {
    if parts.iter().any(|part| !matches!(part.precondition, Some(Precondition::Exact(_)))) {
        inherited::still_stands(fence, context).await?;
    }
    let until = Instant::now() + context.settings().patience;
    for attempts in 1.. {
        let commit = match prepared(context, fence, parts, why).await {
            Ok(commit) => commit,
            Err(error @ Error::Engine(_)) => return Err(error.into()),
            Err(error) => return made_before(context, fence, parts, why).await?.ok_or(error.into()),
        };
        match context.commit(commit).await {
            Ok(Committed { cursor, revisions, replayed }) => {
                return Ok(Changed { cursor, revisions, replayed, attempts });
            }
            Err(Error::Conflict(conflict)) if is_retried(parts, &conflict) && Instant::now() < until => {
                sleep(Duration::from_millis(u64::from(attempts.min(20)))).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(CliError::input("no attempt was made"))
}

fn is_retried(parts: &[Part], conflict: &Conflict) -> bool {
    let of = parts.iter().find(|part| part.path == conflict.path);
    of.is_some_and(|part| matches!(part.doing, Doing::Edit(_)) && part.precondition.is_none())
}

/// The commit as of what is there now.
async fn prepared(context: &Context, fence: &Fence, parts: &[Part], why: &Why) -> Result<Commit, Error> {
    let mut commit = empty(context, fence, parts, why);
    for part in parts {
        let (precondition, action) = match &part.doing {
            Doing::Put(content) => (part.precondition, Action::Put(content.clone())),
            Doing::Delete => (part.precondition, Action::Delete),
            Doing::Edit(edits) => {
                let current = context.get_under(part.path.clone(), fence).await?;
                let revision = current.as_ref().map(|current| current.revision);
                if let Some(precondition) = part.precondition.filter(|demanded| !demanded.is_met_by(revision)) {
                    let path = part.path.clone();
                    return Err(Error::Conflict(Box::new(Conflict { path, precondition, current })));
                }
                let edited = mutext_edit::apply_all(edits, current.as_ref().map(|current| &current.content));
                let edited = edited.map_err(|failed| Error::EditFailed {
                    path: part.path.clone(),
                    failed: Box::new(failed),
                    current: current.clone().map(Box::new),
                })?;
                (Some(Precondition::unchanged(current.as_ref())), Action::Put(edited))
            }
        };
        // Under a lease, "whatever is there" means what the lease has read.
        let mut change = Change::new(part.path.clone(), precondition.unwrap_or(Precondition::Any), action);
        change.expiry = part.expiry;
        change.guarded = matches!(part.doing, Doing::Put(_)) && !part.may_shrink;
        commit.changes.push(change);
    }
    Ok(commit)
}

/// What the same changes did under the same key; nothing, where they were never made, or have none.
async fn made_before(context: &Context, fence: &Fence, parts: &[Part], why: &Why) -> Result<Option<Changed>, CliError> {
    if why.key.is_none() {
        return Ok(None);
    }
    let mut commit = empty(context, fence, parts, why);
    // No document ever stands at revision 0: this writes nothing, and the key is looked at first.
    let never = Precondition::Exact(Revision(0));
    commit.changes.extend(parts.iter().map(|part| Change::new(part.path.clone(), never, Action::Delete)));
    match context.commit(commit).await {
        Ok(Committed { cursor, revisions, replayed }) => Ok(Some(Changed { cursor, revisions, replayed, attempts: 1 })),
        Err(Error::Conflict(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn empty(context: &Context, fence: &Fence, parts: &[Part], why: &Why) -> Commit {
    let mut commit = Commit::new(context.agent().clone()).fenced_by(fence.clone());
    commit.message.clone_from(&why.message);
    commit.key.clone_from(&why.key);
    if why.key.is_some() {
        commit.intent = Some(format!("{parts:?} {:?}", why.message));
    }
    commit
}
