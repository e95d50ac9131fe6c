//! Calico's IPPool resource.

use crate::Prefix;

/// When packets to a pool's addresses on other nodes are encapsulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum EncapMode {
    /// Plainly routed.
    #[default]
    Never,
    /// Always encapsulated.
    Always,
    /// Encapsulated where the other node is in another subnet than this one.
    CrossSubnet,
}

/// A range of addresses that workloads get theirs from (`api/pkg/apis/projectcalico/v3/ippool.go`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpPool {
    /// `metadata.name`.
    pub name: String,
    /// `spec.cidr`.
    pub cidr: Prefix,
    /// `spec.ipipMode`.
    pub ipip_mode: EncapMode,
    /// `spec.vxlanMode`.
    pub vxlan_mode: EncapMode,
    /// `spec.natOutgoing`.
    pub nat_outgoing: bool,
    /// `spec.disabled`: no new allocations. Addresses already given out are routed, announced and translated as before.
    pub disabled: bool,
    /// `spec.disableBGPExport`: nothing inside the pool is announced.
    pub disable_bgp_export: bool,
}
