//! Leases and requests as rows: what the statements take, and what their answers mean.

use std::time::Duration;

use mutext_contract::{
    AgentName, Blocked, Claim, Deadlock, EngineError, Holder, Holding, Knot, LeaseId, LockRequest, LockTable, Loss,
    Mode, Obstacle, Resource, TroubleKind, Waiter,
};
use serde::Deserialize;
use tokio_postgres::Row;

use crate::names::Names;

/// The statements, with the schema's name in them.
#[derive(Debug)]
pub(crate) struct LockStatements {
    pub(crate) acquire: String,
    pub(crate) begin: String,
    pub(crate) release: String,
    pub(crate) leave: String,
    pub(crate) renew: String,
    pub(crate) tend: String,
    pub(crate) table: String,
    pub(crate) arrive: String,
    pub(crate) lost: String,
    pub(crate) sweep: String,
}

impl LockStatements {
    pub(crate) fn new(names: &Names) -> Self {
        let step = |name: &str, params: usize| {
            let params: Vec<String> = (1..=params).map(|number| format!("${number}")).collect();
            format!("SELECT * FROM {}.lock_{name}({})", names.schema, params.join(", "))
        };
        Self {
            acquire: step("acquire", 15),
            begin: step("begin", 5),
            release: step("release", 8),
            leave: step("leave", 5),
            renew: step("renew", 5),
            tend: step("tend", 5),
            table: step("table", 1),
            arrive: format!("SELECT {}.lock_arrive", names.schema),
            lost: format!("SELECT lease FROM {}.lock_lost($1, $2, $3) AS l (lease)", names.schema),
            sweep: format!("SELECT {}.lock_sweep()::text", names.schema),
        }
    }
}

/// A path as the server knows it: empty for the whole context.
pub(crate) fn path_of(resource: &Resource) -> &str {
    if *resource == Resource::root() { "" } else { resource.as_str() }
}

/// What the statements take of a request.
pub(crate) struct RequestRow<'a> {
    /// The path and all above it, where the common case is asked for first.
    pub(crate) above: Option<Vec<&'a str>>,
    pub(crate) paths: Vec<&'a str>,
    pub(crate) exclusives: Vec<bool>,
    pub(crate) ttl_us: i64,
    pub(crate) agent: &'a str,
    pub(crate) holder: &'a [u8],
    pub(crate) reason: Option<&'a [u8]>,
    pub(crate) keeps: Vec<&'a [u8]>,
    pub(crate) replaces: Option<&'a [u8]>,
    /// How many tokens to spare are asked for.
    pub(crate) spare: i32,
}

impl<'a> RequestRow<'a> {
    pub(crate) fn new(request: &'a LockRequest, spare: u32) -> Self {
        let claims = request.claims();
        let above = match &**claims {
            // Whoever wants the whole context has everything to look at.
            [claim] if request.replaces.is_none() && claim.resource != Resource::root() => {
                Some(above(path_of(&claim.resource)))
            }
            _ => None,
        };
        Self {
            above,
            paths: claims.iter().map(|claim| path_of(&claim.resource)).collect(),
            exclusives: claims.iter().map(|claim| claim.mode == Mode::Exclusive).collect(),
            ttl_us: micros(request.ttl.get()),
            agent: request.holder.agent.as_str(),
            holder: request.holder.id.as_bytes(),
            reason: request.reason.as_ref().map(String::as_bytes),
            keeps: request.keeps.iter().map(|lease| &lease.as_bytes()[..]).collect(),
            replaces: request.replaces.as_ref().map(|lease| &lease.as_bytes()[..]),
            spare: i32::try_from(spare).unwrap_or(i32::MAX),
        }
    }
}

/// A path and all above it, the whole context first.
fn above(path: &str) -> Vec<&str> {
    let mut all = vec![""];
    all.extend(path.match_indices('/').map(|(at, _)| &path[..at]));
    all.push(path);
    all
}

pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// How a step ended.
#[derive(Debug)]
pub(crate) struct AnswerRow {
    pub(crate) outcome: i16,
    pub(crate) number: (u64, u64),
    /// In how long the first lease in the way runs out; of a lease that is there, itself.
    pub(crate) next: Option<Duration>,
    detail: Option<String>,
    /// What this process is told.
    pub(crate) told: Vec<String>,
}

/// How a request was answered.
#[derive(Debug)]
pub(crate) enum Answer {
    NoEpoch,
    /// And how long it lasts, where it was there already.
    Granted {
        number: (u64, u64),
        left: Option<Duration>,
        /// How many counters after its own are its own, too.
        spare: u32,
    },
    Queued {
        next: Option<Duration>,
    },
    Blocked {
        blocked: Blocked,
        /// Whether nothing is in the way but leases with tokens to spare, whose holders were told.
        may_be_kept: bool,
    },
    Deadlock(Deadlock),
    /// The lease that it replaces is no more.
    Lost,
    Gone,
}

/// A lease or a request, as the server describes it.
#[derive(Deserialize)]
struct Seen {
    lease: String,
    agent: String,
    holder: String,
    paths: Vec<String>,
    exclusives: Vec<bool>,
    reason: Option<String>,
    #[serde(default)]
    epoch: u64,
    #[serde(default)]
    counter: u64,
    since_us: u64,
    #[serde(default)]
    left_us: u64,
    /// How many tokens it has to spare.
    #[serde(default)]
    spare: Option<u32>,
    #[serde(default)]
    keeps: Vec<String>,
    #[serde(default)]
    replaces: Option<String>,
}

#[derive(Deserialize)]
struct SeenBlocked {
    ahead: usize,
    leases: Vec<Seen>,
}

#[derive(Deserialize)]
struct SeenKnot {
    waiter: Seen,
    lease: Option<Seen>,
    request: Option<Seen>,
}

#[derive(Deserialize)]
struct SeenTable {
    leases: Vec<Seen>,
    waiters: Vec<Seen>,
}

#[derive(Deserialize)]
struct SeenRevocation {
    by: String,
    reason: Option<String>,
}

/// Reads answers; whatever is not as it should be is trouble with this server.
pub(crate) struct Reader<'a> {
    pub(crate) subject: &'a str,
}

impl Reader<'_> {
    fn unreadable(&self, what: &str) -> EngineError {
        let kind = TroubleKind::Corrupt;
        let remedy =
            "see whether another program writes to the tables named lock_…; they may be emptied while no agent runs";
        let said = std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
        EngineError::new(self.subject, kind, remedy).caused_by(said)
    }

    pub(crate) fn row(&self, rows: &[Row]) -> Result<AnswerRow, EngineError> {
        let read = || {
            let row = rows.first()?;
            let number = |column| row.try_get::<_, Option<i64>>(column).ok();
            let part = |column| number(column).map(|part| u64::try_from(part.unwrap_or(0)).unwrap_or(0));
            Some(AnswerRow {
                outcome: row.try_get(0).ok()?,
                number: (part(1)?, part(2)?),
                next: number(3)?.and_then(|next| u64::try_from(next).ok()).map(Duration::from_micros),
                detail: row.try_get(4).ok()?,
                told: row.try_get::<_, Option<Vec<String>>>(5).ok()?.unwrap_or_default(),
            })
        };
        read().ok_or_else(|| self.unreadable("an answer"))
    }

    pub(crate) fn answer(&self, row: &AnswerRow) -> Result<Answer, EngineError> {
        Ok(match row.outcome {
            0 => Answer::NoEpoch,
            1 => {
                let spare = if row.detail.is_some() { self.detail(row)? } else { 0 };
                Answer::Granted { number: row.number, left: row.next, spare }
            }
            2 => Answer::Queued { next: row.next },
            3 => {
                let blocked: SeenBlocked = self.detail(row)?;
                let kept = |lease: &Seen| lease.spare.is_some();
                let may_be_kept = blocked.ahead == 0 && !blocked.leases.is_empty() && blocked.leases.iter().all(kept);
                let holdings = blocked.leases.into_iter().map(|lease| self.holding(lease)).collect::<Result<_, _>>()?;
                Answer::Blocked { blocked: Blocked { holdings, ahead: blocked.ahead }, may_be_kept }
            }
            5 => Answer::Lost,
            6 => {
                let knots: Vec<SeenKnot> = self.detail(row)?;
                let cycle = knots.into_iter().map(|knot| self.knot(knot)).collect::<Result<_, _>>()?;
                Answer::Deadlock(Deadlock { cycle })
            }
            _ => Answer::Gone,
        })
    }

    /// Why a lease that cannot be renewed was lost.
    pub(crate) fn loss(&self, row: &AnswerRow) -> Result<Loss, EngineError> {
        if row.detail.is_none() {
            return Ok(Loss::Expired);
        }
        let revocation: SeenRevocation = self.detail(row)?;
        let by = AgentName::new(revocation.by).map_err(|_| self.unreadable("who revoked a lease"))?;
        Ok(Loss::Revoked { by, reason: self.reason(revocation.reason)?.unwrap_or_default() })
    }

    pub(crate) fn table(&self, rows: &[Row]) -> Result<LockTable, EngineError> {
        let text = rows.first().and_then(|row| row.try_get::<_, String>(0).ok());
        let seen: Option<SeenTable> = text.and_then(|text| serde_json::from_str(&text).ok());
        let seen = seen.ok_or_else(|| self.unreadable("a table of locks"))?;
        Ok(LockTable {
            holdings: seen.leases.into_iter().map(|lease| self.holding(lease)).collect::<Result<_, _>>()?,
            waiters: seen.waiters.into_iter().map(|waiter| self.waiter(waiter)).collect::<Result<_, _>>()?,
        })
    }

    fn detail<'a, T: Deserialize<'a>>(&self, row: &'a AnswerRow) -> Result<T, EngineError> {
        let detail = row.detail.as_deref().and_then(|text| serde_json::from_str(text).ok());
        detail.ok_or_else(|| self.unreadable("what is in the way"))
    }

    fn knot(&self, knot: SeenKnot) -> Result<Knot, EngineError> {
        let obstacle = match (knot.lease, knot.request) {
            (Some(lease), _) => Obstacle::Lease(self.holding(lease)?),
            (None, Some(request)) => Obstacle::Request(self.waiter(request)?),
            (None, None) => return Err(self.unreadable("a circle of waiters")),
        };
        Ok(Knot { waiter: self.waiter(knot.waiter)?, obstacle })
    }

    fn holding(&self, seen: Seen) -> Result<Holding, EngineError> {
        Ok(Holding {
            lease: self.id(&seen.lease)?,
            holder: self.holder(&seen)?,
            claims: self.claims(&seen)?.into(),
            token: (seen.epoch, seen.counter),
            held_for: Duration::from_micros(seen.since_us),
            remaining: Duration::from_micros(seen.left_us),
            reason: self.reason(seen.reason)?,
        })
    }

    fn waiter(&self, seen: Seen) -> Result<Waiter, EngineError> {
        Ok(Waiter {
            lease: self.id(&seen.lease)?,
            holder: self.holder(&seen)?,
            claims: self.claims(&seen)?.into(),
            waited: Duration::from_micros(seen.since_us),
            keeps: seen.keeps.iter().map(|id| self.id(id)).collect::<Result<_, _>>()?,
            replaces: seen.replaces.as_ref().map(|id| self.id(id)).transpose()?,
            reason: self.reason(seen.reason)?,
        })
    }

    fn id(&self, text: &str) -> Result<LeaseId, EngineError> {
        text.parse().map_err(|_| self.unreadable("a lease id"))
    }

    fn holder(&self, seen: &Seen) -> Result<Holder, EngineError> {
        let agent = AgentName::new(seen.agent.clone()).map_err(|_| self.unreadable("a holder's name"))?;
        Ok(Holder { agent, id: seen.holder.parse().map_err(|_| self.unreadable("a holder's id"))? })
    }

    fn claims(&self, seen: &Seen) -> Result<Vec<Claim>, EngineError> {
        let claim = |(path, exclusive): (&String, &bool)| {
            let resource = if path.is_empty() { Some(Resource::root()) } else { path.parse().ok() };
            let mode = if *exclusive { Mode::Exclusive } else { Mode::Shared };
            Some(Claim { resource: resource?, mode })
        };
        let claims: Option<Vec<Claim>> = seen.paths.iter().zip(&seen.exclusives).map(claim).collect();
        claims.ok_or_else(|| self.unreadable("a claim"))
    }

    /// What may hold any character at all comes in hexadecimal digits.
    fn reason(&self, digits: Option<String>) -> Result<Option<String>, EngineError> {
        let Some(digits) = digits else { return Ok(None) };
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(byte).collect();
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        text.map(Some).ok_or_else(|| self.unreadable("a reason"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_named_with_all_above_it() {
        assert_eq!(above("plan.md"), ["", "plan.md"]);
        assert_eq!(above("a/b/c"), ["", "a", "a/b", "a/b/c"]);
    }
}
