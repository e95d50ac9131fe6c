//! Routes to the workloads of other nodes, and who has them.

/// For which pools somebody has the routes to other nodes' workloads: a value of `spec.programClusterRoutes`, which
/// FelixConfiguration has for the datastore's routes and BGPConfiguration for BGP's (`design/cluster-routes` of Calico).
/// Pools of VXLAN are not asked about: their routes are always the datastore's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterRoutes {
    /// Pools of IPIP.
    pub ipip: bool,
    /// Pools without encapsulation.
    pub no_encap: bool,
}

impl ClusterRoutes {
    /// As they are written.
    pub const WORDS: [&'static str; 4] = ["Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly", "Enabled"];
    /// What each of [`Self::WORDS`] means.
    pub const MEANINGS: [ClusterRoutes; 4] = [
        ClusterRoutes { ipip: false, no_encap: false },
        ClusterRoutes { ipip: true, no_encap: false },
        ClusterRoutes { ipip: false, no_encap: true },
        ClusterRoutes { ipip: true, no_encap: true },
    ];
}
