//! Fields of one resource → its noun in `model`. One file per kind; this one chooses among them.

mod bgp_configuration;
mod bgp_filter;
mod bgp_peer;
mod block_affinity;
mod cluster_information;
mod felix_configuration;
mod host_endpoint;
mod ip_pool;
mod ipam_block;
mod kubernetes_policy;
mod network_set;
mod node;
mod node_status;
mod policy;
mod profile;
mod rule;
mod tier;
pub(crate) mod unread;
mod workload_endpoint;
mod workload_endpoint_name;
pub(crate) mod written;

use std::collections::BTreeMap;
use std::time::SystemTime;

use model::{PolicyKind, Resource};

use crate::fields::{Fault, Field, Object};
use crate::invalid::Position;

/// The group and version of all of Calico's resources.
pub(crate) const API_VERSION: &str = "projectcalico.org/v3";
/// That of Calico's own books, as Kubernetes keeps them and `kubectl get -o yaml` shows them.
const CRD_API_VERSION: &str = "crd.projectcalico.org/v1";
/// Where a namespaced resource lives that names no namespace, as with calicoctl.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

/// The kinds that the router reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Node,
    IpPool,
    WorkloadEndpoint,
    BgpConfiguration,
    BgpPeer,
    BgpFilter,
    BlockAffinity,
    IpamBlock,
    ClusterInformation,
    FelixConfiguration,
    Tier,
    Policy(PolicyKind),
    Profile,
    NetworkSet,
    GlobalNetworkSet,
    HostEndpoint,
    NodeStatus,
}

impl Kind {
    pub(crate) fn named(kind: &str) -> Option<Kind> {
        Some(match kind {
            "Node" => Kind::Node,
            "IPPool" => Kind::IpPool,
            "WorkloadEndpoint" => Kind::WorkloadEndpoint,
            "BGPConfiguration" => Kind::BgpConfiguration,
            "BGPPeer" => Kind::BgpPeer,
            "BGPFilter" => Kind::BgpFilter,
            "BlockAffinity" => Kind::BlockAffinity,
            "IPAMBlock" => Kind::IpamBlock,
            "ClusterInformation" => Kind::ClusterInformation,
            "FelixConfiguration" => Kind::FelixConfiguration,
            "Tier" => Kind::Tier,
            "GlobalNetworkPolicy" => Kind::Policy(PolicyKind::GlobalNetworkPolicy),
            "NetworkPolicy" => Kind::Policy(PolicyKind::NetworkPolicy),
            "StagedGlobalNetworkPolicy" => Kind::Policy(PolicyKind::StagedGlobalNetworkPolicy),
            "StagedNetworkPolicy" => Kind::Policy(PolicyKind::StagedNetworkPolicy),
            "StagedKubernetesNetworkPolicy" => Kind::Policy(PolicyKind::StagedKubernetesNetworkPolicy),
            "Profile" => Kind::Profile,
            "NetworkSet" => Kind::NetworkSet,
            "GlobalNetworkSet" => Kind::GlobalNetworkSet,
            "HostEndpoint" => Kind::HostEndpoint,
            "CalicoNodeStatus" => Kind::NodeStatus,
            _ => return None,
        })
    }
}

/// May resources of a kind be of this group and version? Those of IPAM's books have the same fields in either.
pub(crate) fn is_version_of(version: &str, kind: &str) -> bool {
    version == API_VERSION || version == CRD_API_VERSION && is_book(kind)
}

/// The kinds that IPAM keeps its books in.
const IPAM_KINDS: [&str; 4] = ["BlockAffinity", "IPAMBlock", "IPAMConfig", "IPAMHandle"];

/// Is a kind one of those?
pub(crate) fn is_book(kind: &str) -> bool {
    IPAM_KINDS.contains(&kind)
}

/// Calico's kinds that have no effect here (`libcalico-go/lib/backend/model/resource.go`).
const UNUSED_KINDS: [&str; 6] = [
    "IPAMConfig",
    "IPAMConfiguration",
    "IPAMHandle",
    "IPReservation",
    "KubeControllersConfiguration",
    "LiveMigration",
];

/// Is this a kind of Calico's, read here or not?
pub(crate) fn is_known(kind: &str) -> bool {
    Kind::named(kind).is_some() || UNUSED_KINDS.contains(&kind)
}

/// What names a resource.
pub(crate) struct Identity<'a> {
    pub(crate) name: String,
    pub(crate) name_field: Field<'a>,
    pub(crate) namespace: String,
    /// Where the resource says so.
    pub(crate) created: Option<SystemTime>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: Object<'a>,
}

/// What became of a resource's fields.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Nothing where a valid resource has no effect, such as an affinity marked deleted.
    pub(crate) resource: Option<Resource>,
    /// Fields that ask for something that isn't done, with their places.
    pub(crate) unused: Vec<(String, Option<Position>)>,
    /// What is wrong with fields without which the resource means what it meant.
    pub(crate) left_out: Vec<Fault>,
}

impl Outcome {
    fn of(resource: Resource) -> Outcome {
        Outcome { resource: Some(resource), ..Outcome::default() }
    }

    fn nothing_because_of(path: String, position: Option<Position>) -> Outcome {
        Outcome { unused: vec![(path, position)], ..Outcome::default() }
    }
}

/// Converts the `spec` of a resource.
///
/// # Errors
/// The first field that is missing or that breaks one of Calico's rules.
pub(crate) fn resource(kind: Kind, identity: &Identity<'_>, spec: &Object<'_>) -> Result<Outcome, Fault> {
    match kind {
        Kind::Node => node::convert(identity, spec),
        Kind::IpPool => ip_pool::convert(identity, spec),
        Kind::WorkloadEndpoint => workload_endpoint::convert(identity, spec),
        Kind::BgpConfiguration => bgp_configuration::convert(identity, spec),
        Kind::BgpPeer => bgp_peer::convert(identity, spec),
        Kind::BgpFilter => bgp_filter::convert(identity, spec),
        Kind::BlockAffinity => block_affinity::convert(identity, spec),
        Kind::IpamBlock => ipam_block::convert(identity, spec),
        Kind::ClusterInformation => cluster_information::convert(identity, spec),
        Kind::FelixConfiguration => felix_configuration::convert(identity, spec),
        Kind::Tier => tier::convert(identity, spec),
        Kind::Policy(PolicyKind::StagedKubernetesNetworkPolicy) => kubernetes_policy::convert(identity, spec),
        Kind::Policy(kind) => policy::convert(kind, identity, spec),
        Kind::Profile => profile::convert(identity, spec),
        Kind::NetworkSet => network_set::convert(Some(&identity.namespace), identity, spec),
        Kind::GlobalNetworkSet => network_set::convert(None, identity, spec),
        Kind::HostEndpoint => host_endpoint::convert(identity, spec),
        Kind::NodeStatus => node_status::convert(identity, spec),
    }
}

pub(crate) use workload_endpoint_name::{join as join_endpoint_name, name as endpoint_name};

#[cfg(test)]
mod tests;
