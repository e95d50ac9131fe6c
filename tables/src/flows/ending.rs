//! Flows end: by time, because what they rested on is gone, or to make room.

use std::ops::Range;
use std::sync::atomic::{Ordering, fence};

use packet::FlowKey;

use super::row::{Life, Row};
use super::{Between, Flow, FlowTimeouts, Flows, Table, Ticks};

impl Flows {
    /// Removes a flow that has just begun and may not go on.
    pub fn forget(&self, flow: &Flow) {
        let life = self.0.rows.row(flow.row).life();
        if life.generation() == flow.life.generation() && life.has(Life::LIVE) && !life.has(Life::ANSWERED) {
            self.remove(flow.row, life);
        }
    }

    /// Removes a flow that is still what `life` says: `false` where it has changed.
    pub(super) fn remove(&self, number: u32, life: Life) -> bool {
        let is_emptied = self.empty(number, life);
        if is_emptied {
            self.0.free.give_back(number);
        }
        is_emptied
    }

    /// [`Self::remove`], and the row is the caller's alone.
    pub(super) fn empty(&self, number: u32, life: Life) -> bool {
        let Table { rows, index, .. } = &*self.0;
        let row = rows.row(number);
        if row.change(life, life.with(0, life.seen())).is_err() {
            return false;
        }
        match life.has(Life::PLAIN) {
            true => index.unlink(rows, number, 0, row.hash()),
            false => (0..2).for_each(|side| index.unlink(rows, number, side, index.hash(&row.words(side)))),
        }
        let (mut mappings, mut counted) = ([0; 2], Between::default());
        if life.has(Life::FAR) {
            (mappings, counted) = (row.take_mappings(), row.take_counted());
        }
        row.near.life.store(row.life().next().0, Ordering::Release);
        self.0.connections.give_back(counted);
        mappings.into_iter().for_each(|mapping| self.release_shared(mapping));
        true
    }

    /// Looks at the next so many rows and removes flows whose time is over; says how many went. Little work at a time, so
    /// that no packet waits for it.
    pub fn age(&self, count: usize, now: Ticks, timeouts: &FlowTimeouts) -> usize {
        let rows = &self.0.rows;
        let count = count.min(rows.len());
        let first = self.0.ageing_hand.fetch_add(count, Ordering::Relaxed);
        let mut removed = 0;
        for number in (first..first + count).map(|number| (number % rows.len()) as u32) {
            let row = rows.row(number);
            let life = row.life();
            if life.has(Life::LIVE)
                && timeouts.is_over(row.protocol(), life, now)
                && self.remove(number, life)
            {
                removed += 1;
            }
        }
        removed
    }

    /// Ends the flows of some rows that `ended` says this of by their original key and that of their replies; says how many
    /// went.
    pub fn end(&self, rows: Range<usize>, ended: impl Fn(&FlowKey, &FlowKey) -> bool) -> usize {
        let all = &self.0.rows;
        let within = rows.start.min(all.len())..rows.end.min(all.len());
        within
            .map(|number| number as u32)
            .filter(|number| self.end_one(*number, all.row(*number), &ended))
            .count()
    }

    fn end_one(&self, number: u32, row: Row<'_>, ended: impl Fn(&FlowKey, &FlowKey) -> bool) -> bool {
        loop {
            let life = Life(row.near.life.load(Ordering::Acquire));
            if !life.has(Life::LIVE) || life.has(Life::MAPPING) {
                return false;
            }
            let [original, reply] = row.keys(life);
            let is_over = ended(&original, &reply);
            // Keys of another flow than `life`'s were read where this fails; a packet that is noted fails it, too.
            fence(Ordering::Acquire);
            if !is_over && row.life().generation() == life.generation() {
                return false;
            }
            if is_over && self.remove(number, life) {
                return true;
            }
        }
    }
}
