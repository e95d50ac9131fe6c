//! A batch: frames walked together, and what the stages learn about each, in columns.

use std::ops::Range;

use afxdp::Frame;
use model::PortId;
use packet::Parsed;
use tables::{DropReason, Fate, HopIndex, Rows};

use crate::heads::Heads;
use crate::{flow, nat, policy};

/// Frames walked together. Small enough that a batch's headers stay in the first-level cache.
pub const BATCH: usize = 64;
/// Room in what is written at every batch: for a batch and some 128 bytes more, so that its end shares no cache line with the
/// beginning of another worker's, which may be next to it on the heap.
pub(crate) const ROOM: usize = BATCH + 16;
const _: () = assert!(BATCH <= u64::BITS as usize, "`Batch::opened` has a bit for each frame");

/// Frames next to each other that came in the same way: what is asked of a port is asked once a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The port they came from; `None` for the slow path's own packets.
    pub(crate) ingress: Option<PortId>,
    start: u32,
    end: u32,
}

impl Run {
    /// Their rows.
    #[inline]
    pub(crate) fn rows(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Frames and their columns. Row *i* of each column is about frame *i*; rows beyond the last frame mean nothing.
pub struct Batch {
    /// The frames, in order of arrival.
    pub(crate) frames: Vec<Frame>,
    /// Where they came from: runs that follow on each other and cover every frame.
    pub(crate) runs: Vec<Run>,
    /// Some had their fate when they came.
    pub(crate) has_decided: bool,
    /// How each walk ends. Stages skip frames whose fate is decided.
    pub(crate) fates: [Fate; BATCH],
    /// Where the headers begin, from `parse.rs` on.
    pub(crate) parsed: [Parsed; BATCH],
    /// What stages ask of plain frames, from `parse.rs` on.
    pub(crate) heads: Heads,
    /// The next hop, from `route.rs` on, for frames that got that far.
    pub(crate) hops: [HopIndex; BATCH],
    /// Rows whose next hop is a workload port that no endpoint names, from `route.rs` on.
    pub(crate) unnamed: Rows,
    /// Frames that came out of a tunnel, from `decapsulate.rs` on: bit *i* is about frame *i*.
    pub(crate) opened: u64,
    /// Within `reverse_path.rs` and `route.rs`: what is looked up.
    pub(crate) asked: Asked,
    /// What the table of flows knows, from `nat.rs` and `policy.rs` on, of the rows that either asks about.
    pub(crate) flows: flow::Columns,
    /// What `nat.rs` has translated, and what it has yet to.
    pub(crate) nat: nat::Columns,
    /// What `nat.rs` leaves to `policy.rs`, and that to it.
    pub(crate) policy: policy::Columns,
}

/// Destinations to look up, of each family for itself and without gaps, and what came of it. Kept from batch to batch, so
/// that nothing need be cleared.
pub(crate) struct Asked {
    pub(crate) v4: Questions<u32>,
    pub(crate) v6: Questions<u128>,
    /// The group of each row that was asked for.
    pub(crate) groups: [u32; BATCH],
}

/// Addresses of one family, and the row that each belongs to.
pub(crate) struct Questions<K> {
    addrs: [K; BATCH],
    rows: [u8; BATCH],
    len: usize,
}

impl<K: Copy + Default> Questions<K> {
    fn new() -> Self {
        Questions { addrs: [K::default(); BATCH], rows: [0; BATCH], len: 0 }
    }

    #[inline]
    pub(crate) fn push(&mut self, row: usize, addr: K) {
        // A batch has no more rows than there is room, so nothing is overwritten.
        let at = self.len % BATCH;
        (self.addrs[at], self.rows[at]) = (addr, row as u8);
        self.len = at + 1;
    }

    /// Asks for all of them, puts each answer into its row, and forgets the questions.
    #[inline]
    pub(crate) fn answer(&mut self, groups: &mut [u32; BATCH], look_up: impl Fn(&[K], &mut [u32])) {
        if self.len == 0 {
            return;
        }
        let mut answers = [0; BATCH];
        let answers = &mut answers[..self.len];
        look_up(&self.addrs[..self.len], answers);
        for (row, answer) in self.rows.iter().zip(answers) {
            if let Some(group) = groups.get_mut(usize::from(*row)) {
                *group = *answer;
            }
        }
        self.len = 0;
    }
}

impl Batch {
    /// An empty batch with room for [`BATCH`] frames.
    pub fn new() -> Batch {
        Batch {
            frames: Vec::with_capacity(ROOM),
            runs: Vec::with_capacity(ROOM),
            has_decided: false,
            fates: [Fate::Undecided; BATCH],
            parsed: [Parsed::UNTAGGED; BATCH],
            heads: Heads::new(),
            hops: [HopIndex::MAX; BATCH],
            unnamed: Rows::NONE,
            opened: 0,
            asked: Asked { v4: Questions::new(), v6: Questions::new(), groups: [0; BATCH] },
            flows: flow::Columns::new(),
            nat: nat::Columns::new(),
            policy: policy::Columns::new(),
        }
    }

    /// How many frames it holds.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Does it hold no frame?
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// How many more frames it can take.
    pub fn room(&self) -> usize {
        BATCH - self.frames.len()
    }

    /// Says of the frames that were added since the last call where they came from and what is known of their fate.
    pub(crate) fn admit_from(&mut self, ingress: Option<PortId>, fate: Fate) {
        self.has_decided |= fate != Fate::Undecided;
        let start = self.runs.last().map_or(0, |run| run.end);
        let end = self.frames.len() as u32;
        self.fates[start as usize..end as usize].fill(fate);
        match self.runs.last_mut() {
            Some(run) if run.ingress == ingress => run.end = end,
            _ => self.runs.push(Run { ingress, start, end }),
        }
    }

    /// Where a frame came from.
    pub(crate) fn ingress(&self, row: usize) -> Option<PortId> {
        self.runs.iter().find(|run| row < run.end as usize).and_then(|run| run.ingress)
    }

    /// Forgets the columns; the frames must have been taken out before.
    pub(crate) fn clear(&mut self) {
        debug_assert!(self.frames.is_empty(), "frames are given to a ring or a pool, never forgotten");
        self.runs.clear();
        self.has_decided = false;
        self.opened = 0;
        self.flows.clear();
        self.nat.clear();
        self.policy.clear();
    }
}

impl Default for Batch {
    fn default() -> Self {
        Batch::new()
    }
}

/// Drops every frame of some rows that is still on its way.
pub(crate) fn drop_all(fates: &mut [Fate], reason: DropReason) {
    for fate in fates.iter_mut().filter(|fate| **fate == Fate::Undecided) {
        *fate = Fate::Drop(reason);
    }
}
