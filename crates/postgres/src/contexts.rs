//! What concerns a context as a whole: snapshots, searching, upkeep, archives.

use std::time::{Duration, SystemTime};

use mutext_contract::{
    AgentName, ArchivedChange, ArchivedCommit, Content, ContextName, Cursor, Deadline, Document, DocumentPath, Effect,
    EngineError, Hit, Kind, PathPrefix, Query, Retention, Revision, Snapshot, Tended, Term, TroubleKind,
};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::link::Repeat;
use crate::rows;
use crate::store::{PostgresStore, limit_of};

/// The most commits that are indexed in one statement.
const INDEX_STEP: i64 = 200;
/// The most documents that expire in one statement, and the most revisions that are forgotten in one.
const UPKEEP_STEP: i64 = 500;

fn milliseconds(duration: Duration) -> i64 {
    // A century is as good as for ever, and an interval can hold it.
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).min(100 * 366 * 24 * 60 * 60 * 1000)
}

fn numbered(cursor: Cursor) -> i64 {
    i64::try_from(cursor.0).unwrap_or(i64::MAX)
}

impl PostgresStore {
    pub(crate) async fn head_of(&self, context: &ContextName, deadline: Deadline) -> Result<Cursor, EngineError> {
        let lane = self.names.lane(context);
        let rows = self.link.rows(Repeat::Reads, deadline, &self.statements.head, &[&lane]).await?;
        rows::number(self.only(&rows)?, 0).map(Cursor).map_err(|error| self.damaged(error))
    }

    pub(crate) async fn snapshot_page(
        &self,
        context: &ContextName,
        at: Cursor,
        prefix: &PathPrefix,
        after: Option<&DocumentPath>,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Snapshot, EngineError> {
        let (end, begin) = (rows::end_of(prefix.as_str()), after.map_or("", DocumentPath::as_str));
        // One more than asked for tells whether there is a next page.
        let more = limit_of(limit).saturating_add(1);
        let params: [&(dyn ToSql + Sync); 6] =
            [&context.as_str(), &numbered(at), &prefix.as_str(), &end, &begin, &more];
        let found = self.link.rows(Repeat::Reads, deadline, &self.statements.documents_at, &params).await?;
        // Looked at afterwards: what was forgotten before the page was read is told.
        let oldest = self.link.rows(Repeat::Reads, deadline, &self.statements.oldest, &[&context.as_str()]).await?;
        let oldest = oldest.first().map(|row| rows::number(row, 0)).transpose().map_err(|error| self.damaged(error))?;
        if let Some(oldest) = oldest.map(Cursor).filter(|oldest| at < *oldest) {
            return Ok(Snapshot::Gone { oldest });
        }
        let mut documents: Vec<Document> = rows::documents(&found).map_err(|error| self.damaged(error))?;
        let is_last = documents.len() <= limit;
        documents.truncate(limit);
        let next = if is_last { None } else { documents.last().map(|document| document.path.clone()) };
        Ok(Snapshot::Page(documents, next))
    }

    pub(crate) async fn find(
        &self,
        context: &ContextName,
        query: &Query,
        prefix: &PathPrefix,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Vec<Hit>, EngineError> {
        let (lane, name) = (self.names.lane(context), context.as_str());
        loop {
            let params: [&(dyn ToSql + Sync); 3] = [&lane, &name, &INDEX_STEP];
            let rows = self.link.rows(Repeat::Safe, deadline, &self.statements.index_pages, &params).await?;
            if !self.only(&rows)?.try_get::<_, bool>(0).unwrap_or(false) {
                break;
            }
            if deadline.has_passed() {
                let remedy = "it goes on where it stopped: search again, or allow more time";
                let kind = TroubleKind::Failed("the documents could not all be indexed in time".to_owned());
                return Err(EngineError::new(&**self.link.subject(), kind, remedy));
            }
        }
        let Some(words) = self.expression(query, deadline).await? else { return Ok(Vec::new()) };
        let (end, limit) = (rows::end_of(prefix.as_str()), limit_of(limit));
        let params: [&(dyn ToSql + Sync); 5] = [&name, &words, &prefix.as_str(), &end, &limit];
        let rows = self.link.rows(Repeat::Reads, deadline, &self.statements.search, &params).await?;
        rows.iter().map(rows::hit).collect::<Result<_, _>>().map_err(|error| self.damaged(error))
    }

    /// The query in the server's own language; none where nothing of it is a word to the server. The server itself takes
    /// the words apart, as it does those of the documents.
    async fn expression(&self, query: &Query, deadline: Deadline) -> Result<Option<String>, EngineError> {
        const PARSE: &str = "SELECT phraseto_tsquery('simple', term)::text FROM unnest($1::text[]) AS term";
        let texts: Vec<String> = query.terms.iter().map(|term| term.text.replace('\0', " ")).collect();
        let rows = self.link.rows(Repeat::Reads, deadline, PARSE, &[&texts]).await?;
        let parsed = |(term, row): (&Term, &Row)| {
            let mut words: String = row.try_get(0).unwrap_or_default();
            if words.is_empty() {
                return None;
            }
            if term.is_prefix {
                words.push_str(":*");
            }
            Some(if term.is_excluded { format!("!({words})") } else { format!("({words})") })
        };
        let terms: Vec<String> = query.terms.iter().zip(&rows).filter_map(parsed).collect();
        Ok(terms.iter().any(|term| term.starts_with('(')).then(|| terms.join(" & ")))
    }

    /// What a call of its own wrote is told to those who wait for commits.
    fn told(&self, context: &ContextName, rows: &[Row]) -> Result<Option<(Cursor, Vec<Revision>)>, EngineError> {
        let written = rows::written(self.only(rows)?).map_err(|error| self.damaged(error))?;
        Ok(written.map(|(cursor, revisions, watched)| {
            self.bell.ring(context, watched);
            (cursor, revisions)
        }))
    }

    pub(crate) async fn expire_and_forget(
        &self,
        context: &ContextName,
        retention: &Retention,
        deadline: Deadline,
    ) -> Result<Tended, EngineError> {
        let (lane, name) = (self.names.lane(context), context.as_str());
        let params: [&(dyn ToSql + Sync); 4] = [&lane, &self.names.watch, &name, &UPKEEP_STEP];
        let rows = self.link.rows(Repeat::Safe, deadline, &self.statements.expire, &params).await?;
        let expired = self.told(context, &rows)?.map_or(0, |(_, revisions)| revisions.len() as u64);
        let mut tended = Tended { expired, forgotten: 0 };
        if !retention.is_unbounded() {
            let kept = retention.revisions.map_or(i64::MAX, |kept| i64::try_from(kept.max(1)).unwrap_or(i64::MAX));
            let age = retention.age.map_or(milliseconds(Duration::MAX), milliseconds);
            let keys_kept = milliseconds(Retention::KEYS_KEPT);
            let params: [&(dyn ToSql + Sync); 5] = [&name, &kept, &age, &keys_kept, &UPKEEP_STEP];
            let rows = self.link.rows(Repeat::Safe, deadline, &self.statements.forget, &params).await?;
            tended.forgotten = rows::number(self.only(&rows)?, 0).map_err(|error| self.damaged(error))?;
        }
        Ok(tended)
    }

    pub(crate) async fn erase(
        &self,
        context: &ContextName,
        path: &DocumentPath,
        author: &AgentName,
        reason: &str,
        deadline: Deadline,
    ) -> Result<Option<Revision>, EngineError> {
        let (lane, message) = (self.names.lane(context), format!("purged: {reason}"));
        let params: [&(dyn ToSql + Sync); 6] =
            [&lane, &self.names.watch, &context.as_str(), &path.as_str(), &author.as_str(), &message.as_bytes()];
        // Purged twice, the second time there is nothing left.
        let rows = self.link.rows(Repeat::Safe, deadline, &self.statements.purge, &params).await?;
        Ok(self.told(context, &rows)?.and_then(|(_, revisions)| revisions.first().copied()))
    }

    pub(crate) async fn archive_page(
        &self,
        context: &ContextName,
        after: Cursor,
        until: Cursor,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Vec<ArchivedCommit>, EngineError> {
        let (lane, limit) = (self.names.lane(context), limit_of(limit));
        let params: [&(dyn ToSql + Sync); 5] = [&lane, &context.as_str(), &numbered(after), &numbered(until), &limit];
        let rows = self.link.rows(Repeat::Reads, deadline, &self.statements.archive, &params).await?;
        rows::archived(&rows).map_err(|error| self.damaged(error))
    }

    pub(crate) async fn bring_back(
        &self,
        context: &ContextName,
        commits: &[ArchivedCommit],
        deadline: Deadline,
    ) -> Result<Option<Cursor>, EngineError> {
        let changes: Vec<(i64, &ArchivedCommit, &ArchivedChange)> = (1..)
            .zip(commits)
            .flat_map(|(number, commit)| commit.changes.iter().map(move |change| (number, commit, change)))
            .collect();
        let numbers: Vec<i64> = changes.iter().map(|(number, ..)| *number).collect();
        let authors: Vec<&str> = changes.iter().map(|(_, commit, _)| commit.author.as_str()).collect();
        let message = |commit: &ArchivedCommit| commit.message.as_ref().map(|message| message.as_bytes().to_vec());
        let messages: Vec<Option<Vec<u8>>> = changes.iter().map(|(_, commit, _)| message(commit)).collect();
        let times: Vec<SystemTime> = changes.iter().map(|(_, commit, _)| commit.written_at).collect();
        let paths: Vec<&str> = changes.iter().map(|(.., change)| change.path.as_str()).collect();
        let revisions: Vec<i64> = changes.iter().map(|(.., change)| change.revision.0.cast_signed()).collect();
        let kind = |content: &Content| i16::from(content.kind() == Kind::Json);
        let kinds: Vec<Option<i16>> = changes.iter().map(|(.., change)| change.content.as_ref().map(kind)).collect();
        let contents: Vec<Option<&[u8]>> =
            changes.iter().map(|(.., change)| change.content.as_ref().map(|text| text.as_str().as_bytes())).collect();
        let overwrote: Vec<bool> = changes.iter().map(|(.., change)| change.overwrote).collect();
        let expiries: Vec<Option<SystemTime>> = changes.iter().map(|(.., change)| change.expires_at).collect();
        let lane = self.names.lane(context);
        let params: [&(dyn ToSql + Sync); 13] = [
            &lane,
            &self.names.watch,
            &context.as_str(),
            &numbers,
            &authors,
            &messages,
            &times,
            &paths,
            &revisions,
            &kinds,
            &contents,
            &overwrote,
            &expiries,
        ];
        // Sent twice, the second one finds what the first has brought.
        let rows = self.link.rows(Repeat::Never, deadline, &self.statements.restore, &params).await?;
        let brought = self.told(context, &rows).map_err(|error| error.with_effect(Effect::Unknown))?;
        Ok(brought.map(|(cursor, _)| cursor))
    }
}
