//! Who offers routes, and whose come first.

/// Who offers a route. The order of the variants is the order in `show routes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// One of this box's own addresses.
    Local,
    /// A neighbour's address, once its MAC is known.
    Neighbor,
    /// The network of an interface's address.
    Connected,
    /// BGP, of more than normal priority: a workload that was here has moved to another node.
    Elevated,
    /// A local workload's address.
    Workload,
    /// A block of this node's: what no workload has is nowhere.
    Block,
    /// The kernel's main table, written by the operator (`proto static`, `boot`).
    Static,
    /// A BGPPeer's own way to its peer (`spec.reachableBy`).
    ReachableBy,
    /// The datastore: a block of another node, in a pool of VXLAN, which needs no BGP.
    Vxlan,
    /// The same in a pool of IPIP or a plain one, where `programClusterRoutes` leaves its routes to Felix.
    Ipam,
    /// BGP.
    Bgp,
    /// The kernel's main table, written by another daemon or DHCP.
    Kernel,
    /// Left in the kernel's mirror by the run before this one, until BGP has spoken (RFC 4724: forwarding state is
    /// preserved over a restart).
    Preserved,
}

impl Source {
    /// All sources.
    pub const ALL: [Source; 13] = [
        Source::Local,
        Source::Neighbor,
        Source::Connected,
        Source::Elevated,
        Source::Workload,
        Source::Block,
        Source::Static,
        Source::ReachableBy,
        Source::Vxlan,
        Source::Ipam,
        Source::Bgp,
        Source::Kernel,
        Source::Preserved,
    ];

    /// The higher wins. The scale is BIRD's: direct 240, static 200, BGP 100, inherited from the kernel 10.
    pub const fn preference(self) -> u32 {
        match self {
            Source::Local => 255,
            Source::Neighbor => 250,
            Source::Connected => 240,
            Source::Elevated => 235,
            Source::Workload => 230,
            Source::Block => 220,
            Source::Static => 200,
            Source::ReachableBy => 190,
            Source::Vxlan => 110,
            Source::Ipam => 105,
            Source::Bgp => 100,
            Source::Kernel => 10,
            Source::Preserved => 5,
        }
    }

    /// May gateways be reached by such a route? Not by what itself has gateways far off.
    pub const fn resolves(self) -> bool {
        !matches!(self, Source::Vxlan | Source::Ipam | Source::Bgp | Source::Elevated | Source::Preserved)
    }

    /// May a route that is gone, and that no other takes the place of, be in use a little longer? Of BGP's a million may go at
    /// once; whoever announced one took packets until then. What others take back, as a workload's address, goes at once.
    pub const fn may_linger(self) -> bool {
        matches!(self, Source::Bgp)
    }

    /// The name in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Source::Local => "local",
            Source::Neighbor => "neighbor",
            Source::Connected => "connected",
            Source::Elevated => "elevated",
            Source::Workload => "workload",
            Source::Block => "block",
            Source::Static => "static",
            Source::ReachableBy => "reachable-by",
            Source::Vxlan => "vxlan",
            Source::Ipam => "ipam",
            Source::Bgp => "bgp",
            Source::Kernel => "kernel",
            Source::Preserved => "preserved",
        }
    }
}
