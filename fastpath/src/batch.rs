//! A batch: frames walked together, and what the stages learn about each, in columns.

use afxdp::Frame;
use model::PortId;
use packet::{Fragment, Kind, Parsed};
use tables::{AdjacencyId, DropReason, Fate, PuntReason};

/// Frames walked together. Small enough that a batch's headers stay in the first-level cache.
pub const BATCH: usize = 64;

/// The row of a frame that hasn't been parsed, or couldn't be.
const UNPARSED: Parsed = Parsed {
    kind: Kind::Other,
    ethertype: 0,
    vlan: None,
    inner_vlan: None,
    l3: 0,
    l3_len: 0,
    l4: 0,
    protocol: 0,
    ttl: 0,
    fragment: Fragment::Whole,
    dont_fragment: false,
};

/// Frames and their columns. Row *i* of each column is about frame *i*.
pub struct Batch {
    /// The frames, in order of arrival.
    pub frames: Vec<Frame>,
    /// The port each came from; `None` for the slow path's own packets.
    pub ingress: Vec<Option<PortId>>,
    /// How each walk ends. Stages skip frames whose fate is decided.
    pub fates: Vec<Fate>,
    /// Where the headers begin, from `parse.rs` on.
    pub parsed: Vec<Parsed>,
    /// The next hop, from `route.rs` on, for frames still undecided and for punts of unresolved neighbours.
    pub adjacency: Vec<Option<AdjacencyId>>,
    /// The port each leaves by, from `route.rs` on.
    pub egress: Vec<PortId>,
}

impl Batch {
    /// An empty batch with room for [`BATCH`] frames in every column.
    pub fn new() -> Batch {
        Batch {
            frames: Vec::with_capacity(BATCH),
            ingress: Vec::with_capacity(BATCH),
            fates: Vec::with_capacity(BATCH),
            parsed: Vec::with_capacity(BATCH),
            adjacency: Vec::with_capacity(BATCH),
            egress: Vec::with_capacity(BATCH),
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

    /// Gives the columns a row for every frame that has none yet: all of them came from this port.
    pub fn admit_from(&mut self, ingress: Option<PortId>) {
        let len = self.frames.len();
        self.ingress.resize(len, ingress);
        self.fates.resize(len, Fate::Undecided);
        self.parsed.resize(len, UNPARSED);
        self.adjacency.resize(len, None);
        self.egress.resize(len, PortId(0));
    }

    /// Forgets the columns; the frames must have been taken out before.
    pub fn clear(&mut self) {
        debug_assert!(self.frames.is_empty(), "frames are given to a ring or a pool, never forgotten");
        self.ingress.clear();
        self.fates.clear();
        self.parsed.clear();
        self.adjacency.clear();
        self.egress.clear();
    }

    /// The frames whose fate is still open, by row.
    #[inline]
    pub(crate) fn undecided(&self, row: usize) -> bool {
        self.fates[row] == Fate::Undecided
    }

    #[inline]
    pub(crate) fn drop(&mut self, row: usize, reason: DropReason) {
        self.fates[row] = Fate::Drop(reason);
    }

    #[inline]
    pub(crate) fn punt(&mut self, row: usize, reason: PuntReason) {
        self.fates[row] = Fate::Punt(reason);
    }
}

impl Default for Batch {
    fn default() -> Self {
        Batch::new()
    }
}
