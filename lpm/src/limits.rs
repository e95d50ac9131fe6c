//! What a table may hold, and the arithmetic of its memory.

/// The sizes of a table, fixed when it is made.
///
/// Each family derives its own units from nodes and leaves. IPv6: three lines of 64 bytes for four nodes. IPv4: a group
/// of 16 bytes for four nodes, and a block of 64 leaves for four leaves; for the root's blocks, 256 leaves
/// for each route that there may be, or each of the root's slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Routes at most.
    pub max_routes: u32,
    /// Nodes, at most 2^31.
    pub max_nodes: u32,
    /// Leaves, at most 2^31.
    pub max_leaves: u32,
}

impl Limits {
    /// Room for any table of this many routes, however they lie. [`Table::bytes`](crate::Table::bytes) says how many
    /// bytes that is; what is reserved but never used costs address space only.
    ///
    /// **IPv6**: a route's worst case is 5.25 lines of 64 bytes, and a page of 1 KiB for the first route longer than /16 in
    /// each /16; there are three lines for every four nodes, each with 16 bytes of the writer's and 64 for large values. So
    /// about 810 bytes a route, and 145 MiB for the root and its pages. Leaves are not used.
    /// An internet table of 160 k prefixes has readers read 3.6 MiB.
    ///
    /// **IPv4**: a route longer than /24 adds at most a group, a word that leads to it, and a block of 64 leaves; it
    /// and any other may need a block of 256 below its root slot, of which there are 2^16. A leaf is a byte, 2 for a code
    /// that doesn't fit in it, and 1 of the writer's. So, with the same quarter, 64 × 1.25 × 4 + 1.5 × 20 = 350 bytes for
    /// a route longer than /24 that has no neighbours, and 1 KiB for each of the first 2^16 routes; and 65 MiB for the root,
    /// the words that lead to groups and the values.
    /// An internet table of 902 k prefixes touches 10 MiB of it, of which readers read 5, and up to 10 more of both where
    /// there are more than 255 values.
    pub fn for_routes(max_routes: u32) -> Limits {
        let scaled = |each: u64| (4096 + u64::from(max_routes) * each * 5 / 4).min(1 << 31) as u32;
        Limits { max_routes, max_nodes: scaled(6), max_leaves: scaled(4) }
    }

    /// Leaves in IPv4's blocks; a slot can't number more than 2^28 leaves.
    pub(crate) fn ipv4_leaves(&self) -> u32 {
        let at_root = u64::from(self.max_routes.min(1 << 16)) * 256;
        let in_groups = u64::from(self.max_leaves) * 16;
        (at_root + in_groups).min((1 << 28) - (1 << 20)) as u32
    }

    /// IPv4's groups.
    pub(crate) fn ipv4_groups(&self) -> u32 {
        self.max_nodes / 4
    }
}

/// There is no room for the route: one of the [`Limits`] is reached. The table is as it was before.
///
/// Where it was nodes or leaves, blocks that wait for [`crate::Table::retire`] may make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// `max_routes` are there already.
    #[error("the table holds its limit of {max} routes: raise the limit or announce fewer")]
    Routes {
        /// The limit.
        max: u32,
    },
    /// Not enough node slots are free next to each other.
    #[error("the table's {max} node slots are used up: retire old blocks or raise the limit")]
    Nodes {
        /// The limit.
        max: u32,
    },
    /// Not enough leaves are free next to each other.
    #[error("the table's {max} leaves are used up: retire old blocks or raise the limit")]
    Leaves {
        /// The limit.
        max: u32,
    },
    /// Too many different values at once.
    #[error("the table's routes have {max} different values already, the most it can tell apart")]
    Values {
        /// How many there may be.
        max: u32,
    },
}
