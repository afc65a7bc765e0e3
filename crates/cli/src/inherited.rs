//! The lease that `mutext lock` hands to its command in the environment, and that commands inside it write under.

use mutext::{Context, ContextName, DocumentPath, Fence, FencingToken, Lease, LeaseId, Resource};
use serde::{Deserialize, Serialize};

use crate::config::{Common, Given, Origin, variable};
use crate::error::CliError;

/// The lease, as one JSON text.
pub(crate) const LEASE: &str = "MUTEXT_LEASE";
/// Its resources, one a line: for people and scripts.
const LOCK: &str = "MUTEXT_LOCK";
/// Its token: for scripts that present it elsewhere.
const FENCE: &str = "MUTEXT_FENCE";

/// A lease that another process holds and renews for this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inherited {
    context: ContextName,
    token: FencingToken,
    /// What it covers exclusively; nothing for a shared lock, under which nobody writes.
    resources: Vec<Resource>,
    /// The leases that surround it, of other `mutext lock`s in which its own runs.
    #[serde(default)]
    around: Vec<LeaseId>,
    /// Which documents and which locks it belongs to.
    store: String,
    locks: String,
}

impl Inherited {
    fn new(lease: &Lease, common: &Common) -> Self {
        let (store, locks) = places(common);
        let Fence { token, resources } = lease.fence();
        Self { context: lease.context.clone(), token, resources, around: common.keeps.clone(), store, locks }
    }

    /// The fence of the surrounding `mutext lock`, where it covers all of `resources` and this command works on the very
    /// context, documents and locks that it belongs to.
    pub(crate) fn covering_all(wanted: &[Resource], common: &Common) -> Result<Option<Fence>, CliError> {
        let Some(Self { context, token, resources, store, locks, .. }) = Self::from_environment()? else {
            return Ok(None);
        };
        let here = context == common.context && (store, locks) == places(common);
        let covered = |wanted: &Resource| resources.iter().any(|own| own.contains(wanted));
        let covers = here && !wanted.is_empty() && wanted.iter().all(covered);
        Ok(covers.then_some(Fence { token, resources }))
    }

    /// The leases that stay until this command ends, if it works with the same locks in the same context.
    pub(crate) fn kept(common: &Common) -> Result<Vec<LeaseId>, CliError> {
        let Some(Self { context, token, around, locks, .. }) = Self::from_environment()? else { return Ok(Vec::new()) };
        let here = context == common.context && locks == places(common).1;
        Ok(if here { std::iter::once(token.owner).chain(around).collect() } else { Vec::new() })
    }

    /// The fence of the surrounding `mutext lock`, where it covers `path` in the very context, documents and locks
    /// that this command works on.
    pub(crate) fn covering(path: &DocumentPath, common: &Common) -> Result<Option<Fence>, CliError> {
        let Some(inherited) = Self::from_environment()? else { return Ok(None) };
        let Self { context, token, resources, store, locks, .. } = inherited;
        let here = context == common.context && (store, locks) == places(common);
        let fence = Fence { token, resources };
        Ok((here && fence.covers(path)).then_some(fence))
    }

    fn from_environment() -> Result<Option<Self>, CliError> {
        let Some(text) = variable(LEASE)? else { return Ok(None) };
        let parsed = serde_json::from_str(&text);
        parsed.map(Some).map_err(|error| {
            let what = "is not a lease as `mutext lock` hands it over";
            CliError::input(format!("{LEASE} of {text:?} {what} ({error}); unset it, or run inside `mutext lock`"))
        })
    }
}

fn places(common: &Common) -> (String, String) {
    (common.store.identity(), common.locks.as_ref().unwrap_or(&common.store).identity())
}

/// That the lock service still knows the lease.
///
/// The store refuses a token only once a later holder has been at the document; a lease that was revoked or released
/// and not taken since would pass. A write without a revision to check has nothing else to stand on, so that it asks.
pub(crate) async fn still_stands(fence: &Fence, context: &Context) -> Result<(), CliError> {
    let table = context.locks().await?;
    if table.holdings.iter().any(|holding| holding.lease == fence.token.owner) {
        return Ok(());
    }
    Err(CliError::LeaseGone(fence.resources.clone()))
}

/// The environment of the command that runs under `lease`: it finds the same documents and locks from any directory,
/// and speaks under the same name.
pub(crate) fn environment(lease: &Lease, common: &Common) -> Vec<(&'static str, String)> {
    let resources: Vec<&str> = lease.claims.iter().map(|claim| claim.resource.as_str()).collect();
    let text = serde_json::to_string(&Inherited::new(lease, common)).unwrap_or_default();
    let mut variables = vec![
        (LEASE, text),
        (LOCK, resources.join("\n")),
        (FENCE, lease.token.to_string()),
        ("MUTEXT_CONTEXT", common.context.to_string()),
        ("MUTEXT_AGENT", common.agent.to_string()),
    ];
    // What the config file says, the command reads there itself: passwords stay out of the environment.
    let exported = |given: &Given| (!matches!(given.origin, Origin::File(_))).then(|| given.absolute());
    variables.extend(exported(&common.store).map(|url| ("MUTEXT_STORE", url)));
    variables.extend(common.locks.as_ref().and_then(exported).map(|url| ("MUTEXT_LOCKS", url)));
    let config = common.config.as_deref().and_then(|path| std::path::absolute(path).ok());
    variables
        .extend(config.and_then(|path| path.into_os_string().into_string().ok()).map(|path| ("MUTEXT_CONFIG", path)));
    variables
}
