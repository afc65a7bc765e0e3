//! The document engine.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mutext_contract::{
    AgentName, ArchivedCommit, Change, Commit, ContextName, Cursor, Deadline, Document, DocumentPath, DocumentStore,
    EPOCH_BELIEVED, Effect, EngineError, EpochSource, Feed, Fence, FencedRead, Finding, Hit, Listing, Outcome,
    PastRevision, PathPrefix, Query, Retention, Revision, Revocation, RevocationRecord, Snapshot, StoreCapabilities,
    Tended, TroubleKind, Waiting, within_epochs,
};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep_until};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::bell::{Bell, News};
use crate::examine::What;
use crate::link::{Link, Repeat};
use crate::names::Names;
use crate::options::PostgresOptions;
use crate::rows::{self, CommitRow, FenceRow, Statements};
use crate::{examine, schema};

/// How long a look at the feed may take beyond its deadline: a look without waiting must not fail only because the
/// answer takes its way.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a waiter looks for itself, in case that it was not told.
const LOOK: Duration = Duration::from_secs(1);
/// The same where nobody can be told, because a pooler is in between.
const LOOK_UNTOLD: Duration = Duration::from_millis(100);
/// The same while a commit is under way that may belong before those that can be seen.
const LOOK_SOON: Duration = Duration::from_millis(15);

/// The PostgreSQL document store.
#[derive(Debug)]
pub struct PostgresStore {
    options: PostgresOptions,
    pub(crate) link: Arc<Link>,
    pub(crate) names: Names,
    pub(crate) statements: Statements,
    pub(crate) bell: Bell,
}

impl PostgresStore {
    pub(crate) async fn open(options: &PostgresOptions, deadline: Deadline) -> Result<Self, EngineError> {
        let link = Arc::new(Link::new(options)?);
        let names = Names::new(&options.schema);
        schema::prepare(&link, &names, deadline.min(Deadline::after(options.connect_timeout))).await?;
        let (statements, bell) = (Statements::new(&names), Bell::new(Arc::clone(&link), &names));
        Ok(Self { options: options.clone(), link, names, statements, bell })
    }

    pub(crate) fn damaged(&self, damaged: rows::Damaged) -> EngineError {
        damaged.told(self.link.subject())
    }

    /// The one row of a statement that always has one.
    pub(crate) fn only<'a>(&self, rows: &'a [Row]) -> Result<&'a Row, EngineError> {
        rows.first().ok_or_else(|| {
            let kind = TroubleKind::Failed("it answered without a row".to_owned());
            EngineError::new(&**self.link.subject(), kind, "")
        })
    }
}

pub(crate) fn limit_of(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// Until there may be something new, at the latest `until`.
async fn told(news: &mut Receiver<News>, context: &ContextName, until: Instant) {
    let of_context = async {
        loop {
            match news.recv().await {
                Ok(News::Committed(other)) if *other != *context.as_str() => {}
                Ok(_) | Err(RecvError::Lagged(_)) => return,
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    };
    tokio::select! {
        () = of_context => {}
        () = sleep_until(until) => {}
    }
}

#[async_trait]
impl EpochSource for PostgresStore {
    async fn mint_epoch(&self, context: &ContextName, above: u64, deadline: Deadline) -> Result<u64, EngineError> {
        let believed = if above <= EPOCH_BELIEVED { above.cast_signed() } else { 0 };
        let most = EPOCH_BELIEVED.cast_signed();
        // Minted twice, one of the two is never used.
        let params: [&(dyn ToSql + Sync); 3] = [&context.as_str(), &believed, &most];
        let rows = self.link.rows(Repeat::Safe, deadline, &self.statements.mint_epoch, &params).await?;
        let epoch = rows::number(self.only(&rows)?, 0).map_err(|error| self.damaged(error))?;
        within_epochs(epoch, above, context, self.link.subject())
    }
}

#[async_trait]
impl DocumentStore for PostgresStore {
    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities {
            engine: "postgres",
            several_documents: true,
            serial_commits: false,
            feed: Waiting::Pushed,
            survives: "power loss: the server syncs its log before a commit is acknowledged (by its own settings)",
        }
    }

    async fn read(
        &self,
        context: &ContextName,
        path: &DocumentPath,
        deadline: Deadline,
    ) -> Result<Option<Document>, EngineError> {
        let params: [&(dyn ToSql + Sync); 2] = [&context.as_str(), &path.as_str()];
        let rows = self.link.rows(Repeat::Reads, deadline, &self.statements.read, &params).await?;
        rows::read(&rows, path).map_err(|error| self.damaged(error))
    }

    async fn read_fenced(
        &self,
        context: &ContextName,
        path: &DocumentPath,
        fence: &Fence,
        deadline: Deadline,
    ) -> Result<FencedRead, EngineError> {
        let row = FenceRow::new(&fence.token, self.link.subject())?;
        let params: [&(dyn ToSql + Sync); 5] =
            [&context.as_str(), &path.as_str(), &row.epoch, &row.counter, &row.owner];
        let rows = self.link.rows(Repeat::Safe, deadline, &self.statements.read_fenced, &params).await?;
        rows::fenced_read(self.only(&rows)?, path, fence).map_err(|error| self.damaged(error))
    }

    async fn list(
        &self,
        context: &ContextName,
        prefix: &PathPrefix,
        after: Option<&DocumentPath>,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Listing, EngineError> {
        let (end, after) = (rows::end_of(prefix.as_str()), after.map_or("", DocumentPath::as_str));
        // One more than asked for tells whether there is a next page.
        let more = limit_of(limit).saturating_add(1);
        let params: [&(dyn ToSql + Sync); 5] = [&context.as_str(), &prefix.as_str(), &end, &after, &more];
        let rows = self.link.rows(Repeat::Reads, deadline, &self.statements.list, &params).await?;
        let entries = rows.iter().take(limit).map(rows::entry).collect::<Result<Vec<_>, _>>();
        let entries = entries.map_err(|error| self.damaged(error))?;
        let is_last = rows.len() <= limit;
        let next = if is_last { None } else { entries.last().map(|entry| entry.path.clone()) };
        Ok(Listing { entries, next })
    }

    async fn commit(&self, context: &ContextName, commit: &Commit, deadline: Deadline) -> Result<Outcome, EngineError> {
        let row = CommitRow::new(commit, self.link.subject())?;
        let (context_name, author, lane) = (context.as_str(), commit.author.as_str(), self.names.lane(context));
        let (fence, fingerprint) = (&row.fence, row.fingerprint.as_deref());
        let guarded_bytes = i64::try_from(Change::GUARDED_BYTES_MIN).unwrap_or(i64::MAX);
        let repeat = if commit.key.is_some() { Repeat::Safe } else { Repeat::Never };
        let rows = if let ([path], [demand], [kind], [content]) =
            (&row.paths[..], &row.demands[..], &row.kinds[..], &row.contents[..])
        {
            let params: [&(dyn ToSql + Sync); 17] = [
                &lane,
                &self.names.watch,
                &context_name,
                path,
                demand,
                kind,
                content,
                &row.ttls[0],
                &row.guards[0],
                &guarded_bytes,
                &fence.epoch,
                &fence.counter,
                &fence.owner,
                &author,
                &row.message,
                &row.key,
                &fingerprint,
            ];
            let (alone, under_lease) = (&self.statements.commit_one, &self.statements.commit_one_under_lease);
            let statement = if fence.owner.is_some() { under_lease } else { alone };
            self.link.rows(repeat, deadline, statement, &params).await?
        } else {
            let params: [&(dyn ToSql + Sync); 17] = [
                &lane,
                &self.names.watch,
                &context_name,
                &row.paths,
                &row.demands,
                &row.kinds,
                &row.contents,
                &row.ttls,
                &row.guards,
                &guarded_bytes,
                &fence.epoch,
                &fence.counter,
                &fence.owner,
                &author,
                &row.message,
                &row.key,
                &fingerprint,
            ];
            let (alone, under_lease) = (&self.statements.commit_several, &self.statements.commit_several_under_lease);
            let statement = if fence.owner.is_some() { under_lease } else { alone };
            self.link.rows(repeat, deadline, statement, &params).await?
        };
        let outcome = self.only(&rows).and_then(|row| rows::outcome(row, commit).map_err(|error| self.damaged(error)));
        let (outcome, watched) = outcome.map_err(|error| error.with_effect(Effect::Unknown))?;
        if matches!(outcome, Outcome::Committed(_)) {
            self.bell.ring(context, watched);
        }
        Ok(outcome)
    }

    async fn history(
        &self,
        context: &ContextName,
        path: &DocumentPath,
        before: Option<Revision>,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Vec<PastRevision>, EngineError> {
        let before = before.map_or(i64::MAX, |revision| i64::try_from(revision.0).unwrap_or(i64::MAX));
        let limit = limit_of(limit);
        let params: [&(dyn ToSql + Sync); 4] = [&context.as_str(), &path.as_str(), &before, &limit];
        let rows = self.link.rows(Repeat::Reads, deadline, &self.statements.history, &params).await?;
        let revisions = rows.iter().map(rows::past_revision).collect::<Result<_, _>>();
        revisions.map_err(|error| self.damaged(error))
    }

    async fn changes(
        &self,
        context: &ContextName,
        after: Cursor,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Feed, EngineError> {
        let (lane, limit) = (self.names.lane(context), limit_of(limit));
        let after = i64::try_from(after.0).unwrap_or(i64::MAX);
        let params: [&(dyn ToSql + Sync); 4] = [&lane, &context.as_str(), &after, &limit];
        // Before the first look: what comes after it is told.
        let mut news = (!deadline.has_passed()).then(|| self.bell.listen());
        loop {
            let busy = Deadline::at(deadline.instant().max(Instant::now()) + PATIENCE);
            let rows = self.link.rows(Repeat::Reads, busy, &self.statements.changes, &params).await?;
            let (page, under_way) = rows::changes(&rows).map_err(|error| self.damaged(error))?;
            let is_empty = matches!(&page, Feed::Page(commits) if commits.is_empty());
            let Some(news) = news.as_mut().filter(|_| is_empty && !deadline.has_passed()) else {
                return Ok(page);
            };
            let pause = if under_way {
                LOOK_SOON
            } else if self.link.is_pooled() {
                LOOK_UNTOLD
            } else {
                LOOK
            };
            told(news, context, deadline.instant().min(Instant::now() + pause)).await;
        }
    }

    async fn revoke(
        &self,
        context: &ContextName,
        revocation: &Revocation,
        deadline: Deadline,
    ) -> Result<(), EngineError> {
        let claims = serde_json::to_string(&revocation.claims[..]).map_err(|error| {
            let kind = TroubleKind::Failed("the revoked claims cannot be written down".to_owned());
            EngineError::new(&**self.link.subject(), kind, "").caused_by(error)
        })?;
        let holder = revocation.holder.as_ref().map(AgentName::as_str);
        let (lease, reason): (&[u8], &[u8]) = (revocation.lease.as_bytes(), revocation.reason.as_bytes());
        let params: [&(dyn ToSql + Sync); 6] =
            [&context.as_str(), &lease, &holder, &claims, &revocation.by.as_str(), &reason];
        // The first of a lease stands, however often it is said.
        self.link.rows(Repeat::Safe, deadline, &self.statements.revoke, &params).await.map(drop)
    }

    async fn revocations(
        &self,
        context: &ContextName,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Vec<RevocationRecord>, EngineError> {
        let limit = limit_of(limit);
        let params: [&(dyn ToSql + Sync); 2] = [&context.as_str(), &limit];
        let rows = self.link.rows(Repeat::Reads, deadline, &self.statements.revocations, &params).await?;
        rows.iter().map(rows::revocation).collect::<Result<_, _>>().map_err(|error| self.damaged(error))
    }

    async fn head(&self, context: &ContextName, deadline: Deadline) -> Result<Cursor, EngineError> {
        self.head_of(context, deadline).await
    }

    async fn documents_at(
        &self,
        context: &ContextName,
        at: Cursor,
        prefix: &PathPrefix,
        after: Option<&DocumentPath>,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Snapshot, EngineError> {
        self.snapshot_page(context, at, prefix, after, limit, deadline).await
    }

    async fn search(
        &self,
        context: &ContextName,
        query: &Query,
        prefix: &PathPrefix,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Vec<Hit>, EngineError> {
        self.find(context, query, prefix, limit, deadline).await
    }

    async fn tend(
        &self,
        context: &ContextName,
        retention: &Retention,
        deadline: Deadline,
    ) -> Result<Tended, EngineError> {
        self.expire_and_forget(context, retention, deadline).await
    }

    async fn purge(
        &self,
        context: &ContextName,
        path: &DocumentPath,
        author: &AgentName,
        reason: &str,
        deadline: Deadline,
    ) -> Result<Option<Revision>, EngineError> {
        self.erase(context, path, author, reason, deadline).await
    }

    async fn archive(
        &self,
        context: &ContextName,
        after: Cursor,
        until: Cursor,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Vec<ArchivedCommit>, EngineError> {
        self.archive_page(context, after, until, limit, deadline).await
    }

    async fn restore(
        &self,
        context: &ContextName,
        commits: &[ArchivedCommit],
        deadline: Deadline,
    ) -> Result<Option<Cursor>, EngineError> {
        self.bring_back(context, commits, deadline).await
    }

    async fn examine(&self, deadline: Deadline) -> Result<Vec<Finding>, EngineError> {
        examine::examine(What::Documents, &self.options, &self.link, &self.names, deadline).await
    }
}
