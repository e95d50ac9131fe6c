//! What goes up: copies of packets that the fast path can't finish.

use model::PortId;

use crate::PuntReason;

/// What the slow path is told about a punted packet; the frame's bytes go with it, of one inside a segment
/// ([`PuntReason::InsideSegment`]) with the outer headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Punt {
    /// Why it came up.
    pub reason: PuntReason,
    /// The port it was received on; `None` for a packet of the slow path's own.
    pub port: Option<PortId>,
    /// The neighbour to ask for, as a row of the table of adjacencies, where the reason is
    /// [`PuntReason::Unresolved`].
    pub adjacency: Option<crate::AdjacencyId>,
    /// The MTU that the packet exceeds, in bytes, where the reason is [`PuntReason::TooBig`].
    pub mtu: u16,
}
