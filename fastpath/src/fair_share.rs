//! Who gets the last slots of a transmit ring: every port that frames come from gets its fair share.
//!
//! As long as a ring has room to spare nothing here is asked. When it is nearly full, its free slots are dealt to the ports
//! that frames come from, as credit: equally, each up to a share of the headroom, and what one has enough of goes to the
//! others. A frame takes a slot of its port's credit, or one that is nobody's. The credits together are never more than the
//! free slots, so a port that sends no more than is dealt to it finds a slot for every frame, whatever the others send
//! (max-min fairness); and nothing is kept back but the credits, so the link is never idle for fairness' sake.

use model::PortId;
use tables::{DropReason, Fate};

use crate::batch::{BATCH, Batch};

/// Ports told apart in one ring, besides whoever comes next; further ones share the last one's row.
const SOURCES: usize = 64;
/// Part of a ring that credits are dealt of, as a divisor.
const HEADROOM: usize = 4;

/// Where frames come from: a port, or `None` for the slow path and other workers.
type Source = Option<PortId>;

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    source: Source,
    /// Slots of the ring that are kept for it.
    credit: usize,
    /// Frames of this batch.
    demand: usize,
    /// How many of them find a slot.
    granted: usize,
}

/// The shares of one transmit ring.
#[derive(Debug)]
pub(crate) struct FairShare {
    headroom: usize,
    /// Ports that had frames since the ring was nearly full. Its first row is kept for whoever comes next, so that a port
    /// with little to send finds a slot for its first frame already.
    rows: Vec<Row>,
    /// The row that is dealt to next, where there is less than a slot for each.
    dealt_next: usize,
    /// The row that is granted the next slot that is nobody's.
    granted_next: usize,
}

impl FairShare {
    /// For a ring of so many slots.
    pub(crate) fn new(slots: usize) -> FairShare {
        FairShare {
            headroom: slots / HEADROOM,
            rows: Vec::with_capacity(1 + SOURCES),
            dealt_next: 0,
            granted_next: 0,
        }
    }

    /// Slots that must be free besides those for the frames at hand, or else the ring is nearly full.
    #[inline]
    pub(crate) fn headroom(&self) -> usize {
        self.headroom
    }

    /// The ring has room to spare again: what was dealt is forgotten.
    #[inline]
    pub(crate) fn rest(&mut self) {
        self.rows.clear();
    }

    /// Says which of a batch's frames to one port find a slot, `room` slots being free. The others are to be dropped for the
    /// reason given.
    pub(crate) fn share(&mut self, batch: &Batch, port: PortId, room: usize) -> Shared {
        if self.rows.is_empty() {
            self.rows.push(Row::default());
        }
        let mut shared = Shared { rows: [0; BATCH], len: 0, reason: DropReason::OverFairShare };
        self.rows.iter_mut().for_each(|row| row.demand = 0);
        for run in &batch.runs {
            let frames = batch.fates[run.rows()].iter().filter(|fate| **fate == Fate::Forward(port)).count();
            if frames > 0 {
                let row = self.row_of(run.ingress);
                self.rows[row].demand += frames;
                shared.push(row, frames);
            }
        }
        if self.rows.len() == 2 {
            shared.reason = DropReason::TransmitRingFull;
        }
        let open = self.deal(room);
        self.grant(open);
        shared
    }

    /// Takes a slot for the next frame of a row, where one was granted.
    pub(crate) fn take(&mut self, row: usize) -> bool {
        let granted = &mut self.rows[row].granted;
        let has = *granted > 0;
        *granted -= usize::from(has);
        has
    }

    /// The port of a row. Where ports share a row, the first of them.
    pub(crate) fn source(&self, row: usize) -> Option<PortId> {
        self.rows[row].source
    }

    fn row_of(&mut self, source: Source) -> usize {
        let known = self.rows.iter().skip(1).position(|row| row.source == source);
        match known {
            Some(row) => row + 1,
            None if self.rows.len() <= SOURCES => {
                // What was kept for whoever comes next.
                let credit = std::mem::take(&mut self.rows[0].credit);
                self.rows.push(Row { source, credit, ..Row::default() });
                self.rows.len() - 1
            }
            None => SOURCES,
        }
    }

    /// Deals the free slots that are nobody's, and says how many are left because everybody has enough.
    fn deal(&mut self, room: usize) -> usize {
        let mut dealt: usize = self.rows.iter().map(|row| row.credit).sum();
        debug_assert!(dealt <= room, "nobody but this worker fills the ring");
        if dealt > room {
            self.rows.iter_mut().for_each(|row| row.credit = 0);
            dealt = 0;
        }
        let enough = self.headroom / self.rows.len();
        let wants = |row: &Row| enough.saturating_sub(row.credit);
        fill(&mut self.rows, &mut self.dealt_next, room - dealt, wants, |row, slots| row.credit += slots)
    }

    /// Each port's frames take its own slots first, and then those that are nobody's.
    fn grant(&mut self, open: usize) {
        for row in &mut self.rows {
            row.granted = row.demand.min(row.credit);
            row.credit -= row.granted;
        }
        let wants = |row: &Row| row.demand - row.granted;
        fill(&mut self.rows, &mut self.granted_next, open, wants, |row, slots| row.granted += slots);
    }
}

/// Gives `slots` to rows that want some, equally, until none is left or nobody wants more. Begins with row `next`, and leaves
/// there who is next after the one that got the last slot. Says how many are left.
fn fill(
    rows: &mut [Row],
    next: &mut usize,
    mut slots: usize,
    wants: impl Fn(&Row) -> usize,
    give: impl Fn(&mut Row, usize),
) -> usize {
    loop {
        let hungry = rows.iter().filter(|row| wants(row) > 0).count();
        if hungry == 0 || slots == 0 {
            return slots;
        }
        let each = (slots / hungry).max(1);
        let first = *next % rows.len();
        for at in (first..rows.len()).chain(0..first) {
            let row = &mut rows[at];
            let given = wants(row).min(each).min(slots);
            if given > 0 {
                give(row, given);
                slots -= given;
                *next = at + 1;
            }
        }
    }
}

/// What [`FairShare::share`] has found out about a batch's frames to one port.
pub(crate) struct Shared {
    /// The row of each frame's source, in order.
    rows: [u8; BATCH],
    len: usize,
    /// Why those without a slot are dropped.
    pub(crate) reason: DropReason,
}

impl Shared {
    /// The row of each frame's source, in order.
    pub(crate) fn rows(&self) -> impl Iterator<Item = usize> {
        self.rows[..self.len].iter().map(|row| usize::from(*row))
    }

    fn push(&mut self, row: usize, frames: usize) {
        // A batch has no more frames than there is room.
        let end = (self.len + frames).min(BATCH);
        self.rows[self.len..end].fill(row as u8);
        self.len = end;
    }
}
