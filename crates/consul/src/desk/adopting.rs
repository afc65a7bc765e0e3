//! What follows for this process from a version of the table.

use std::collections::HashSet;

use tokio::time::Instant;

use super::{Desk, Known};
use crate::plan::Draft;
use crate::table::Table;

impl Desk {
    /// A version that somebody put into the mailbox.
    pub(super) fn hear(&mut self, value: &[u8], index: u64) {
        if self.known.as_ref().is_some_and(|known| known.index >= index) {
            return;
        }
        // It came late, or Consul has gone back: a look at the table itself tells.
        if index < self.newest.1 {
            self.known = None;
            return;
        }
        match Table::read(value, index) {
            Ok(table) => self.adopt(table, index, None, false),
            // Too large for a letter.
            Err(_) => self.known = None,
        }
    }

    /// All leases of this process are lost, and their holders are told at once.
    pub(super) fn lose_home(&mut self) {
        let Some(home) = self.home.take() else { return };
        self.earlier_homes.insert(home.id);
        for lease in std::mem::take(&mut self.held) {
            self.doomed.insert(lease);
            // Nobody has to listen.
            let _ = self.office.losses.send(lease);
        }
    }

    /// Where the index of a version that was just read is behind one that was seen, Consul knows an earlier state again,
    /// as after a snapshot was restored into other servers. Tokens that were granted since then would be granted again:
    /// so another epoch begins, unless somebody has begun one already.
    pub(super) fn notice_return(&self, table: &mut Table, index: u64) {
        let (epoch, highest) = self.newest;
        if index < highest && table.epoch <= epoch {
            table.end_epoch();
        }
    }

    fn note_epoch(&mut self, table: &Table, index: u64) {
        let (epoch, highest) = &mut self.newest;
        if table.epoch > *epoch {
            (*epoch, *highest) = (table.epoch, index);
        } else if table.epoch != 0 {
            *highest = (*highest).max(index);
        }
        *epoch = (*epoch).max(table.over);
    }

    /// A version that is true: those whom it concerns hear of it. `asked` is the moment before it was asked for, and
    /// `own` says that this process wrote it.
    pub(super) fn adopt(&mut self, mut table: Table, index: u64, asked: Option<Instant>, own: bool) {
        if index > 0 {
            table.granted_at(index);
        }
        self.note_epoch(&table, index);
        self.sight.note(&table);
        if own && table.epoch == 0 {
            // What this version granted must not be believed.
            self.known = None;
            return;
        }
        let mut going = Vec::new();
        let mut replaced = HashSet::new();
        for (place, attempt) in self.attempts.iter_mut().enumerate() {
            let Some(row) = table.row(attempt.request.lease) else { continue };
            attempt.placed = true;
            let Some(held) = &row.held else {
                attempt.queued = true;
                attempt.waiting_at = asked.or(attempt.waiting_at);
                continue;
            };
            replaced.extend(attempt.request.replaces);
            let (since, lasts) = attempt.believes(held.confirmed, asked.filter(|_| own));
            let valid_until = since + lasts;
            if valid_until < Instant::now() + lasts / 2 {
                attempt.confirm = true;
            } else if let Some(token) = row.token() {
                going.push((place, token, valid_until));
            }
        }
        for (place, token, valid_until) in going.into_iter().rev() {
            let attempt = self.attempts.remove(place);
            self.held.insert(attempt.request.lease);
            attempt.grant(token, valid_until);
        }
        for lease in self.held.extract_if(|lease| table.row(*lease).is_none()) {
            if !replaced.contains(&lease) {
                let _ = self.office.losses.send(lease);
            }
        }
        self.doomed.retain(|lease| table.row(*lease).is_some());
        if self.doomed.is_empty() && !self.earlier_homes.is_empty() {
            self.earlier_homes.retain(|home| table.rows.iter().any(|row| *row.home == **home));
        }
        self.is_ripe = !self.attempts.is_empty() && Draft::is_ripe(&table, &self.sight);
        self.known = Some(Known { table, index });
    }
}
