//! What lies in Redis, in the contract's words.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mutext_contract::{
    AgentName, Blocked, Claim, Deadlock, EngineError, Holder, HolderId, Holding, Knot, LeaseId, LockRequest, LockTable,
    Loss, Mode, Obstacle, Resource, TroubleKind, Waiter,
};
use redis::{FromRedisValue, Value};
use serde::{Deserialize, Serialize};

use crate::turns::Reply;

/// What a lease or an attempt is about; scripts read its claims, and carry the rest along.
#[derive(Serialize, Deserialize)]
struct Info {
    agent: String,
    holder: HolderId,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    reason: Option<String>,
    claims: Vec<(char, String)>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    keeps: Vec<LeaseId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    replaces: Option<LeaseId>,
    /// How many tokens it would like to spare; the scripts know that this comes last.
    #[serde(skip_serializing_if = "is_zero", default)]
    spare: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A path as scripts know it: empty for the whole context.
pub(crate) fn path_of(resource: &Resource) -> &str {
    if *resource == Resource::root() { "" } else { resource.as_str() }
}

pub(crate) const fn letter(mode: Mode) -> char {
    match mode {
        Mode::Exclusive => 'X',
        Mode::Shared => 'S',
    }
}

pub(crate) fn info(request: &LockRequest) -> String {
    let claim = |claim: &Claim| (letter(claim.mode), path_of(&claim.resource).to_owned());
    let info = Info {
        agent: request.holder.agent.as_str().to_owned(),
        holder: request.holder.id,
        reason: request.reason.clone(),
        claims: request.claims().iter().map(claim).collect(),
        keeps: request.keeps.clone(),
        replaces: request.replaces,
        spare: request.spare,
    };
    // Strings and characters alone: nothing of it can fail.
    serde_json::to_string(&info).unwrap_or_default()
}

/// How a script answered an attempt.
#[derive(Debug)]
pub(crate) enum Answer {
    NoEpoch,
    Granted {
        epoch: u64,
        count: u64,
        /// How many counts after it are its own, too.
        spare: u32,
    },
    Queued {
        next: Option<Duration>,
    },
    Blocked {
        blocked: Blocked,
        /// Whether nothing is in the way but leases with spare tokens, whose holders were told.
        may_be_kept: bool,
    },
    Deadlock(Deadlock),
    /// The lease that it replaces is no more.
    Lost,
    Gone,
}

/// How a waiter stands.
#[derive(Debug)]
pub(crate) enum State {
    Granted { epoch: u64, count: u64 },
    Waiting,
    Ended,
    Missing,
}

/// What looking after waiters told.
#[derive(Debug)]
pub(crate) struct Tended {
    pub(crate) is_over: bool,
    pub(crate) next: Option<Duration>,
    pub(crate) states: Vec<(LeaseId, State)>,
}

/// Reads answers; whatever is not as it should be is trouble with this server.
pub(crate) struct Reader<'a> {
    pub(crate) subject: &'a str,
}

impl Reader<'_> {
    fn unreadable(&self, what: &str) -> EngineError {
        EngineError::new(
            self.subject,
            TroubleKind::Failed(format!("it holds {what} that is not what Mutext writes")),
            "see whether another program writes keys of this prefix; name another with ?prefix=NAME",
        )
    }

    fn read<T: FromRedisValue>(&self, value: Value) -> Result<T, EngineError> {
        T::from_redis_value(value).map_err(|_| self.unreadable("an answer"))
    }

    /// Whether an attempt was granted.
    pub(crate) fn is_granted(value: &Value) -> bool {
        match value {
            Value::Int(_) | Value::BulkString(_) => true,
            Value::Array(parts) => matches!(parts.first(), Some(Value::Int(1))),
            _ => false,
        }
    }

    /// Whether looking after waiters told that the epoch is over.
    pub(crate) fn is_over(value: &Value) -> bool {
        matches!(value, Value::Array(parts) if matches!(parts.first(), Some(Value::Int(1))))
    }

    /// What became of an attempt: the count of a grant by the short way, or a list.
    pub(crate) fn reply(&self, reply: Reply) -> Result<Answer, EngineError> {
        let Value::Int(count) = reply.value else { return self.answer(reply.value) };
        let number = reply.epoch.and_then(|epoch| Some((epoch, u64::try_from(count).ok()?)));
        let (epoch, count) = number.ok_or_else(|| self.unreadable("an answer"))?;
        Ok(Answer::Granted { epoch, count, spare: 0 })
    }

    pub(crate) fn answer(&self, value: Value) -> Result<Answer, EngineError> {
        let mut parts = self.read::<Vec<Value>>(value)?.into_iter();
        let mut next = || parts.next().ok_or_else(|| self.unreadable("an answer"));
        Ok(match self.read::<u8>(next()?)? {
            0 => Answer::NoEpoch,
            1 => Answer::Granted {
                epoch: self.read(next()?)?,
                count: self.read(next()?)?,
                // One that was made before has none to tell of.
                spare: parts.next().map_or(Ok(0), |spare| self.read(spare))?,
            },
            2 => Answer::Queued { next: span(self.read(next()?)?) },
            3 => {
                let (ahead, now) = (self.read(next()?)?, self.read(next()?)?);
                let rest: Vec<String> = parts.map(|part| self.read(part)).collect::<Result<_, _>>()?;
                let holding = |pair: &[String]| self.holding(&pair[0], &pair[1], now);
                let holdings: Vec<_> = rest.chunks_exact(2).map(holding).collect::<Result<_, _>>()?;
                let has_spare = |pair: &[String]| pair[1].contains("\"spare\":");
                let may_be_kept = ahead == 0 && !holdings.is_empty() && rest.chunks_exact(2).all(has_spare);
                Answer::Blocked { blocked: Blocked { holdings, ahead }, may_be_kept }
            }
            5 => Answer::Lost,
            6 => {
                let now = self.read(next()?)?;
                let rest: Vec<String> = parts.map(|part| self.read(part)).collect::<Result<_, _>>()?;
                let knot = |step: &[String]| self.knot(step, now);
                Answer::Deadlock(Deadlock { cycle: rest.chunks_exact(5).map(knot).collect::<Result<_, _>>()? })
            }
            _ => Answer::Gone,
        })
    }

    pub(crate) fn tended(&self, value: Value) -> Result<Tended, EngineError> {
        let (is_over, next, states): (u8, i64, Vec<Vec<Value>>) = self.read(value)?;
        let mut read = Vec::with_capacity(states.len());
        for state in states {
            let mut parts = state.into_iter();
            let mut next = || parts.next().ok_or_else(|| self.unreadable("an answer"));
            let id = self.id(&self.read::<String>(next()?)?)?;
            let state = match self.read::<String>(next()?)?.as_str() {
                "G" => State::Granted { epoch: self.read(next()?)?, count: self.read(next()?)? },
                "W" => State::Waiting,
                "E" => State::Ended,
                _ => State::Missing,
            };
            read.push((id, state));
        }
        Ok(Tended { is_over: is_over == 1, next: span(next), states: read })
    }

    /// Why a lease that cannot be renewed was lost: nothing is remembered, or who revoked it.
    pub(crate) fn loss(remembered: &str) -> Loss {
        match serde_json::from_str::<(String, String)>(remembered).map(|(by, reason)| (AgentName::new(by), reason)) {
            Ok((Ok(by), reason)) => Loss::Revoked { by, reason },
            _ => Loss::Expired,
        }
    }

    pub(crate) fn text(&self, value: Value) -> Result<String, EngineError> {
        self.read(value)
    }

    pub(crate) fn flag(&self, value: Value) -> Result<bool, EngineError> {
        Ok(self.read::<i64>(value)? == 1)
    }

    pub(crate) fn table(&self, value: Value) -> Result<LockTable, EngineError> {
        let (now, fields, queue): (i64, HashMap<String, String>, Vec<String>) = self.read(value)?;
        // A lease's field is its id; all others have a slash or are words.
        let leases = fields.iter().filter(|(field, _)| field.parse::<LeaseId>().is_ok());
        let mut holdings = leases.map(|(id, text)| self.holding(id, text, now)).collect::<Result<Vec<_>, _>>()?;
        holdings.sort_by_key(|holding| holding.token);
        let waiter = |id: &String| match fields.get(&format!("w/{id}")) {
            Some(text) => self.waiter(id, text, now),
            None => Err(self.unreadable("a queue")),
        };
        Ok(LockTable { holdings, waiters: queue.iter().map(waiter).collect::<Result<_, _>>()? })
    }

    fn id(&self, text: &str) -> Result<LeaseId, EngineError> {
        text.parse().map_err(|_| self.unreadable("a lease id"))
    }

    /// One step of a circle: who waits, and what for.
    fn knot(&self, step: &[String], now: i64) -> Result<Knot, EngineError> {
        let [id, text, kind, other, what] = step else { return Err(self.unreadable("a circle of waiters")) };
        let obstacle = match kind.as_str() {
            "L" => Obstacle::Lease(self.holding(other, what, now)?),
            _ => Obstacle::Request(self.waiter(other, what, now)?),
        };
        Ok(Knot { waiter: self.waiter(id, text, now)?, obstacle })
    }

    fn holding(&self, id: &str, text: &str, now: i64) -> Result<Holding, EngineError> {
        let ([epoch, count, sec, usec, lasts], info) = numbers(text).ok_or_else(|| self.unreadable("a lease"))?;
        let since = sec.saturating_mul(1000).saturating_add(usec / 1000);
        let About { holder, claims, reason, .. } = self.about(info)?;
        Ok(Holding {
            lease: self.id(id)?,
            holder,
            claims,
            token: (epoch.unsigned_abs(), count.unsigned_abs()),
            held_for: between(since, now),
            remaining: between(now, since.saturating_add(lasts)),
            reason,
        })
    }

    fn waiter(&self, id: &str, text: &str, now: i64) -> Result<Waiter, EngineError> {
        let ([since, _ends, _ttl], info) = numbers(text).ok_or_else(|| self.unreadable("a waiter"))?;
        let About { holder, claims, reason, keeps, replaces } = self.about(info)?;
        Ok(Waiter { lease: self.id(id)?, holder, claims, waited: between(since, now), reason, keeps, replaces })
    }

    fn about(&self, info: &str) -> Result<About, EngineError> {
        let parse = || {
            let info: Info = serde_json::from_str(info).ok()?;
            let claims = info.claims.iter().map(|(mode, path)| {
                let resource = if path.is_empty() { Resource::root() } else { path.parse().ok()? };
                Some(Claim { resource, mode: if *mode == 'X' { Mode::Exclusive } else { Mode::Shared } })
            });
            let claims: Option<Vec<Claim>> = claims.collect();
            let holder = Holder { agent: AgentName::new(info.agent).ok()?, id: info.holder };
            let (reason, keeps, replaces) = (info.reason, info.keeps, info.replaces);
            Some(About { holder, claims: claims?.into(), reason, keeps, replaces })
        };
        parse().ok_or_else(|| self.unreadable("a holder"))
    }
}

/// Who, what, and what for.
struct About {
    holder: Holder,
    claims: Arc<[Claim]>,
    reason: Option<String>,
    keeps: Vec<LeaseId>,
    replaces: Option<LeaseId>,
}

/// The numbers that a record begins with; then comes a home, and then what it is about.
fn numbers<const N: usize>(text: &str) -> Option<([i64; N], &str)> {
    let mut parts = text.splitn(N + 2, ' ');
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = parts.next()?.parse().ok()?;
    }
    let _home = parts.next()?;
    Some((numbers, parts.next()?))
}

fn between(from: i64, to: i64) -> Duration {
    Duration::from_millis(u64::try_from(to.saturating_sub(from)).unwrap_or(0))
}

fn span(millis: i64) -> Option<Duration> {
    u64::try_from(millis).ok().map(Duration::from_millis)
}
