//! What a desk asks Consul, and what the answers mean.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mutext_contract::{EngineError, TroubleKind};
use tokio::time::Instant;

use super::Desk;
use crate::asked::Attempt;
use crate::home::Home;
use crate::kv::{CallTrouble, Outcome, Step, base64};
use crate::table::{Row, Table};
use crate::trouble;

/// How long one question may take before it is asked again, perhaps of another agent.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether whoever is in the way is alive.
const CHECK: Duration = Duration::from_secs(1);
/// The largest table that is put into mailboxes; of a larger one they say only that it is there.
const LETTER_BYTES_MAX: usize = 32 << 10;
/// How much one write may put into mailboxes: a transaction has at most half a mebibyte.
const LETTERS_BYTES_MAX: usize = 256 << 10;
/// The most processes that one write tells, and one question asks after: a transaction has at most 64 steps.
const TOLD_MAX: usize = 48;
const CHECKED_MAX: usize = 32;

/// Why a step failed.
pub(super) struct Trouble {
    pub(super) explained: EngineError,
    pub(super) is_passing: bool,
}

fn passing(kind: &TroubleKind) -> bool {
    *kind == TroubleKind::Unavailable
}

/// How a write came out.
pub(super) enum Written {
    Done(u64),
    /// Somebody else was first.
    Conflict,
    /// The session is no more.
    NoHome,
    /// Somebody who was to be buried cannot be: not before the lock-delay is over, or not at all.
    NotDead {
        delayed: bool,
    },
}

impl Desk {
    /// Makes sure of a home where somebody waits, and moves over to another one.
    pub(super) async fn settle_in(&mut self) -> Result<(), Trouble> {
        let homes = Arc::clone(&self.office.homes);
        let home = if self.attempts.is_empty() {
            homes.current()
        } else {
            let ensured = homes.ensure().await;
            Some(ensured.map_err(|explained| Trouble { is_passing: passing(&explained.kind), explained })?)
        };
        if self.home.is_some() && self.home != home {
            self.lose_home();
        }
        self.home = home;
        Ok(())
    }

    /// Reads the table.
    pub(super) async fn read(&mut self) -> Result<(), Trouble> {
        let key = self.office.keys.table(&self.context);
        let asked = Instant::now();
        let found = self.office.consul.get(&key, PATIENCE).await.map_err(|error| self.trouble(error))?;
        let (table, index) = match found {
            None => (Table::new(0), 0),
            Some(found) => {
                let read = Table::read(&found.value, found.index);
                let damaged = |what: String| Trouble {
                    explained: trouble::unreadable(&self.office.subject, &key, &what),
                    is_passing: false,
                };
                let mut table = read.map_err(damaged)?;
                self.notice_return(&mut table, found.index);
                (table, found.index)
            }
        };
        self.looked = asked;
        self.adopt(table, index, Some(asked), false);
        Ok(())
    }

    /// Looks whether the processes in the way of those who wait here are alive.
    pub(super) async fn check(&mut self) -> Result<(), Trouble> {
        if self.checked.is_some_and(|at| at.elapsed() < CHECK) {
            return Ok(());
        }
        let Some(known) = &self.known else { return Ok(()) };
        let own = |home: &str| {
            self.home.as_ref().is_some_and(|own| *own.id == *home)
                || self.earlier_homes.iter().any(|earlier| **earlier == *home)
        };
        let in_the_way = |row: &&Row| !own(&row.home) && !self.dead.contains_key(&row.home) && self.is_in_the_way(row);
        let homes: BTreeSet<&str> = known.table.rows.iter().filter(in_the_way).map(|row| &*row.home).collect();
        let homes: Vec<String> = homes.into_iter().take(CHECKED_MAX).map(str::to_owned).collect();
        if homes.is_empty() {
            return Ok(());
        }
        self.checked = Some(Instant::now());
        let steps: Vec<Step<'_>> =
            homes.iter().map(|home| Step::Exists { key: self.office.keys.alive(home) }).collect();
        let outcome = self.office.consul.transact(&steps, PATIENCE).await.map_err(|error| self.trouble(error))?;
        if let Outcome::Undone { steps } = outcome {
            let missing = steps.iter().filter(|(_, what)| what.contains("doesn't exist"));
            for home in missing.filter_map(|(place, _)| homes.get(*place)) {
                self.dead.insert(home.clone(), Instant::now());
            }
        }
        Ok(())
    }

    /// Writes the next version, if the last one is still the last, and tells those whom it concerns.
    pub(super) async fn write(
        &self,
        table: &Table,
        index: u64,
        home: Option<&Home>,
        buried: &[String],
        told: &BTreeSet<String>,
    ) -> Result<Written, Trouble> {
        let keys = &self.office.keys;
        let value = serde_json::to_vec(table).map_err(|error| self.trouble(error.into()))?;
        let comes = |attempt: &Attempt| !attempt.placed && table.row(attempt.request.lease).is_some();
        let most = table.bytes_max(self.attempts.iter().any(comes));
        if value.len() > most {
            let said = format!("its lock table would take {} bytes, and there is room for {most}", value.len());
            return Err(self.trouble(CallTrouble::Refused { status: 413, said }));
        }
        let value = base64(&value);
        let fits = value.len() <= LETTER_BYTES_MAX && value.len() * (told.len() + 1) <= LETTERS_BYTES_MAX;
        let mut steps = Vec::new();
        if let Some(home) = home {
            // Nothing is written in the name of a session that is no more, or into a memory that does not know it.
            steps.push(Step::Check { key: keys.alive(&home.id), session: &home.session });
            for dead in buried {
                steps.push(Step::Lock { key: keys.alive(dead), session: &home.session });
                steps.push(Step::Remove { prefix: keys.home(dead) });
            }
        }
        let at = steps.len();
        steps.push(Step::Swap { key: keys.table(&self.context), value: &value, index });
        let letter = if fits { &*value } else { "" };
        let living = told.iter().filter(|home| !buried.contains(home)).take(TOLD_MAX);
        steps.extend(living.map(|home| Step::Set { key: keys.bell(home, &self.context), value: letter }));
        match self.office.consul.transact(&steps, PATIENCE).await.map_err(|error| self.trouble(error))? {
            Outcome::Done { index } => Ok(Written::Done(index)),
            Outcome::Undone { steps } => Ok(match steps.first() {
                Some((0, _)) if home.is_some() => Written::NoHome,
                Some((place, what)) if *place < at => Written::NotDead { delayed: what.contains("lock delay") },
                _ => Written::Conflict,
            }),
        }
    }

    pub(super) fn trouble(&self, error: CallTrouble) -> Trouble {
        Trouble { is_passing: error.is_passing(), explained: trouble::explain(&self.office.subject, error) }
    }
}
