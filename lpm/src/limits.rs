//! What a table may hold, and the arithmetic of its memory.

/// The sizes of a table, fixed when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Routes at most.
    pub max_routes: u32,
    /// Node slots of 24 bytes, at most 2^31.
    pub max_nodes: u32,
    /// Leaves of 4 bytes (and 1 of the writer's), at most 2^31.
    pub max_leaves: u32,
}

impl Limits {
    /// Room for any table of this many routes, however they lie.
    ///
    /// A route adds at most two nodes, one where it ends and one where its path branches off; each takes a slot in its
    /// parent's run, and a skip above it takes two: 6 slots. Each node has a leaf, and a route splits at most one run
    /// of leaves in two places: 4 leaves. A quarter is added for blocks retired but not yet free and for gaps between
    /// blocks, and a floor of 4096 for small tables. So 6 × 1.25 × 24 + 4 × 1.25 × 5 = 205 bytes a route, and 2 MiB
    /// for the root. What is reserved but never used costs address space only:
    /// the 902 k prefixes of an internet table touch 9 MiB.
    pub fn for_routes(max_routes: u32) -> Limits {
        let scaled = |each: u64| (4096 + u64::from(max_routes) * each * 5 / 4).min(1 << 31) as u32;
        Limits { max_routes, max_nodes: scaled(6), max_leaves: scaled(4) }
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
}
