//! Calico's BGPFilter resource (`api/pkg/apis/projectcalico/v3/bgpfilter.go`).

use crate::{AsNumber, Prefix};

/// Rules about routes that BGPPeers may name, a list for each family and direction; the first that matches decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BgpFilter {
    /// `metadata.name`.
    pub name: String,
    /// `spec.importV4`.
    pub import_v4: Vec<BgpFilterRule>,
    /// `spec.importV6`.
    pub import_v6: Vec<BgpFilterRule>,
    /// `spec.exportV4`.
    pub export_v4: Vec<BgpFilterRule>,
    /// `spec.exportV6`.
    pub export_v6: Vec<BgpFilterRule>,
}

/// One rule: a route must be all that it asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpFilterRule {
    /// `action: Accept`; otherwise the route is rejected.
    pub accept: bool,
    /// `cidr` with `matchOperator` and `prefixLength`.
    pub cidr: Option<BgpFilterCidr>,
    /// `source: RemotePeers`: learned by BGP.
    pub from_peers: bool,
    /// `interface`: a name, in which `*` stands for any characters.
    pub interface: Option<String>,
    /// `peerType`: the peer is in our AS, or in another.
    pub internal_peer: Option<bool>,
    /// `communities.values`, of which there is one.
    pub community: Option<BgpCommunity>,
    /// `asPathPrefix`: how the AS path begins, the nearest AS first.
    pub as_path_prefix: Vec<AsNumber>,
    /// `priority`: the kernel metric that the LOCAL_PREF stands for.
    pub priority: Option<u32>,
    /// `operations`, in order, on a route that is accepted.
    pub operations: Vec<BgpFilterOperation>,
}

/// The prefixes that a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BgpFilterCidr {
    /// `cidr`.
    pub cidr: Prefix,
    /// `matchOperator`.
    pub operator: BgpFilterOperator,
    /// `prefixLength.min` and `prefixLength.max`, the CIDR's own and the family's longest where one is absent.
    pub lengths: Option<(u8, u8)>,
}

/// How a prefix is compared with a rule's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BgpFilterOperator {
    /// Equal to it, or inside it.
    In,
    /// Not so.
    NotIn,
    /// Equal to it.
    Equal,
    /// Not so.
    NotEqual,
}

/// A community: `aa:nn` (RFC 1997) or `aa:nn:mm` (RFC 8092).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BgpCommunity {
    /// An AS and a value.
    Standard(u16, u16),
    /// An AS and two values.
    Large(u32, u32, u32),
}

/// What happens to a route that a rule accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BgpFilterOperation {
    /// `addCommunity`.
    AddCommunity(BgpCommunity),
    /// `prependASPath`: the path then begins with these, in this order.
    PrependAsPath(Vec<AsNumber>),
    /// `setPriority`: the kernel metric that the LOCAL_PREF is to stand for.
    SetPriority(u32),
}
