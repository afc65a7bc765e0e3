//! What is asked, decided on the next version of the table.

use std::collections::HashMap;

use mutext_contract::{Acquisition, Blocked, LeaseId, Loss, Release};
use tokio::time::Instant;

use super::Desk;
use crate::asked::{Answered, Attempt, End, Job, Verdict, What};
use crate::home::Home;
use crate::plan::{Asked, Draft};
use crate::table::{self, Row};

/// The most processes that one write buries: a transaction has at most 64 steps.
const BURIED_MAX: usize = 4;

impl Desk {
    /// Takes out what lived in processes that are no more, and what this one had under an earlier session.
    pub(super) fn bury(&self, draft: &mut Draft<'_>, home: Option<&Home>) -> Vec<String> {
        let goes_on = |id: LeaseId| self.attempts.iter().any(|attempt| attempt.request.lease == id);
        for earlier in &self.earlier_homes {
            draft.move_from(earlier, goes_on);
        }
        if home.is_none() || self.attempts.is_empty() {
            return Vec::new();
        }
        let now = Instant::now();
        let due = self.dead.iter().filter(|(_, at)| **at <= now).map(|(home, _)| home);
        let due: Vec<String> = due.take(BURIED_MAX).cloned().collect();
        due.iter().for_each(|home| draft.bury(home));
        due
    }

    pub(super) fn decide(&self, draft: &mut Draft<'_>, job: &Job) -> Verdict {
        match &job.what {
            What::Renew { lease, .. } if self.doomed.contains(lease) => Verdict::Renewed(Err(Loss::Expired)),
            What::Renew { lease, ttl, .. } => Verdict::Renewed(draft.renew(*lease, table::milliseconds(*ttl))),
            What::Release { lease, by, .. } => {
                let released = draft.release(*lease, by.clone());
                let done = released == Release::Released || job.uncertain;
                Verdict::Released(if done { Release::Released } else { Release::NotHeld })
            }
            What::Begin { above, minted, .. } => {
                let last = self.last_epoch(draft);
                if draft.table.epoch > *above {
                    Verdict::Begun(None)
                } else if *minted > last.max(*above) {
                    draft.begin(*minted);
                    draft.settle();
                    Verdict::Begun(None)
                } else {
                    Verdict::Begun(Some(last))
                }
            }
            What::Inspect { .. } => {
                draft.mark_lapsed();
                Verdict::Seen
            }
        }
    }

    /// How those who wait stand in the draft: those whose wait ends with it.
    pub(super) fn decide_attempts(&self, draft: &mut Draft<'_>) -> HashMap<LeaseId, End> {
        let decide = |attempt: &Attempt| Some((attempt.request.lease, self.decide_attempt(draft, attempt)?));
        let ends = self.attempts.iter().filter_map(decide).collect();
        if !self.attempts.is_empty() {
            // What is written down as lapsed needs no more looks.
            draft.mark_lapsed();
            draft.settle();
        }
        ends
    }

    /// The last epoch that this process or the table knows of; the next is above it.
    fn last_epoch(&self, draft: &Draft<'_>) -> u64 {
        self.newest.0.max(draft.table.epoch).max(draft.table.over)
    }

    fn decide_attempt(&self, draft: &mut Draft<'_>, attempt: &Attempt) -> Option<End> {
        let request = &attempt.request;
        let id = request.lease;
        let last = attempt.deadline.has_passed();
        if attempt.answer.is_closed() {
            draft.leave(id);
            return Some(End::Left);
        }
        if draft.table.epoch == 0 {
            return Some(End::NoEpoch);
        }
        match draft.table.row(id).map(|row| row.held.is_some()) {
            Some(true) if attempt.confirm => {
                draft.confirm(id);
                None
            }
            Some(false) if last => Some(End::Settled(Acquisition::TimedOut(draft.leave(id)))),
            Some(_) => None,
            None => {
                let replaced = request.replaces.map(|lease| (lease, draft.table.row(lease)));
                if let Some((lease, row)) = replaced
                    && (row.is_none_or(|row| row.held.is_none()) || self.doomed.contains(&lease))
                {
                    return Some(End::Settled(Acquisition::Lost(draft.table.loss(lease))));
                }
                // One that was placed and is gone: its turn came and went while this process was stopped, or it was
                // taken for dead. It has lost its place, not its wait.
                let over = attempt.placed && (last || draft.table.is_ended(id));
                if over {
                    return Some(End::Settled(Acquisition::TimedOut(Blocked::default())));
                }
                let home = self.home.as_ref().map_or("", |home| &*home.id);
                let row = Row::new(request, home, attempt.deadline.remaining());
                match draft.ask(row, last) {
                    Asked::Granted | Asked::Queued => None,
                    Asked::Blocked(blocked) => Some(End::Settled(Acquisition::TimedOut(blocked))),
                    Asked::Deadlock(deadlock) => Some(End::Settled(Acquisition::Deadlock(deadlock))),
                }
            }
        }
    }

    /// Answers what the draft decided; it stands.
    pub(super) fn finish(&mut self, jobs: &mut Vec<Job>, verdicts: Vec<Verdict>, mut ends: HashMap<LeaseId, End>) {
        for (job, verdict) in jobs.drain(..).zip(verdicts) {
            match (job.what, verdict) {
                (What::Renew { lease, answer, .. }, Verdict::Renewed(outcome)) => {
                    if outcome.is_err() {
                        self.held.remove(&lease);
                    }
                    drop(answer.send(Ok(outcome)));
                }
                (What::Release { answer, .. }, Verdict::Released(release)) => drop(answer.send(Ok(release))),
                (What::Begin { answer, .. }, Verdict::Begun(last)) => drop(answer.send(Ok(last))),
                (What::Inspect { answer }, _) => {
                    let now_ns = self.sight.now_ns();
                    let known = self.known.as_ref();
                    let picture = known.map(|known| known.table.picture(now_ns, |row| self.sight.until_ns(row)));
                    drop(answer.send(Ok(picture.unwrap_or_default())));
                }
                _ => {}
            }
        }
        for attempt in std::mem::take(&mut self.attempts) {
            match ends.remove(&attempt.request.lease) {
                None => self.attempts.push(attempt),
                Some(End::Settled(acquisition)) => attempt.settle(acquisition),
                Some(End::NoEpoch) => drop(attempt.answer.send(Ok(Answered::NoEpoch))),
                Some(End::Left) => {}
            }
        }
    }
}
