//! Calico's kinds of resource, as `libcalico-go/lib/backend/model/resource.go` registers them.

use std::fmt;

/// A kind of resource that has a key of its own in a datastore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKind {
    /// `BGPConfiguration`.
    BgpConfiguration,
    /// `BGPFilter`.
    BgpFilter,
    /// `BGPPeer`.
    BgpPeer,
    /// `BlockAffinity`.
    BlockAffinity,
    /// `CalicoNodeStatus`.
    CalicoNodeStatus,
    /// `ClusterInformation`.
    ClusterInformation,
    /// `FelixConfiguration`.
    FelixConfiguration,
    /// `GlobalNetworkPolicy`.
    GlobalNetworkPolicy,
    /// `GlobalNetworkSet`.
    GlobalNetworkSet,
    /// `HostEndpoint`.
    HostEndpoint,
    /// `IPAMConfiguration`.
    IpamConfiguration,
    /// `IPPool`.
    IpPool,
    /// `IPReservation`.
    IpReservation,
    /// `KubeControllersConfiguration`.
    KubeControllersConfiguration,
    /// `LiveMigration`.
    LiveMigration,
    /// `NetworkPolicy`.
    NetworkPolicy,
    /// `NetworkSet`.
    NetworkSet,
    /// `Node`.
    Node,
    /// `Profile`.
    Profile,
    /// `StagedGlobalNetworkPolicy`.
    StagedGlobalNetworkPolicy,
    /// `StagedKubernetesNetworkPolicy`.
    StagedKubernetesNetworkPolicy,
    /// `StagedNetworkPolicy`.
    StagedNetworkPolicy,
    /// `Tier`.
    Tier,
    /// `WorkloadEndpoint`.
    WorkloadEndpoint,
}

impl ResourceKind {
    /// Every kind, by name.
    pub const ALL: [ResourceKind; 24] = [
        ResourceKind::BgpConfiguration,
        ResourceKind::BgpFilter,
        ResourceKind::BgpPeer,
        ResourceKind::BlockAffinity,
        ResourceKind::CalicoNodeStatus,
        ResourceKind::ClusterInformation,
        ResourceKind::FelixConfiguration,
        ResourceKind::GlobalNetworkPolicy,
        ResourceKind::GlobalNetworkSet,
        ResourceKind::HostEndpoint,
        ResourceKind::IpamConfiguration,
        ResourceKind::IpPool,
        ResourceKind::IpReservation,
        ResourceKind::KubeControllersConfiguration,
        ResourceKind::LiveMigration,
        ResourceKind::NetworkPolicy,
        ResourceKind::NetworkSet,
        ResourceKind::Node,
        ResourceKind::Profile,
        ResourceKind::StagedGlobalNetworkPolicy,
        ResourceKind::StagedKubernetesNetworkPolicy,
        ResourceKind::StagedNetworkPolicy,
        ResourceKind::Tier,
        ResourceKind::WorkloadEndpoint,
    ];

    /// The word in a resource's `kind`.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// The word in keys, in lower case.
    pub fn plural(self) -> &'static str {
        self.row().1
    }

    /// Does each resource of this kind live in a namespace?
    pub fn is_namespaced(self) -> bool {
        self.row().2
    }

    /// Is it a kind of policy that belongs to a tier?
    pub fn is_tiered(self) -> bool {
        matches!(
            self,
            ResourceKind::NetworkPolicy
                | ResourceKind::GlobalNetworkPolicy
                | ResourceKind::StagedNetworkPolicy
                | ResourceKind::StagedGlobalNetworkPolicy
        )
    }

    /// The kind of a resource's `kind`, in Calico's very spelling.
    pub fn named(name: &str) -> Option<ResourceKind> {
        ResourceKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The kind of a key's word.
    pub fn of_plural(plural: &str) -> Option<ResourceKind> {
        ResourceKind::ALL.into_iter().find(|kind| kind.plural() == plural)
    }

    fn row(self) -> (&'static str, &'static str, bool) {
        match self {
            ResourceKind::BgpConfiguration => ("BGPConfiguration", "bgpconfigurations", false),
            ResourceKind::BgpFilter => ("BGPFilter", "bgpfilters", false),
            ResourceKind::BgpPeer => ("BGPPeer", "bgppeers", false),
            ResourceKind::BlockAffinity => ("BlockAffinity", "blockaffinities", false),
            ResourceKind::CalicoNodeStatus => ("CalicoNodeStatus", "caliconodestatuses", false),
            ResourceKind::ClusterInformation => ("ClusterInformation", "clusterinformations", false),
            ResourceKind::FelixConfiguration => ("FelixConfiguration", "felixconfigurations", false),
            ResourceKind::GlobalNetworkPolicy => ("GlobalNetworkPolicy", "globalnetworkpolicies", false),
            ResourceKind::GlobalNetworkSet => ("GlobalNetworkSet", "globalnetworksets", false),
            ResourceKind::HostEndpoint => ("HostEndpoint", "hostendpoints", false),
            ResourceKind::IpamConfiguration => ("IPAMConfiguration", "ipamconfigurations", false),
            ResourceKind::IpPool => ("IPPool", "ippools", false),
            ResourceKind::IpReservation => ("IPReservation", "ipreservations", false),
            ResourceKind::KubeControllersConfiguration => {
                ("KubeControllersConfiguration", "kubecontrollersconfigurations", false)
            }
            ResourceKind::LiveMigration => ("LiveMigration", "livemigrations", true),
            ResourceKind::NetworkPolicy => ("NetworkPolicy", "networkpolicies", true),
            ResourceKind::NetworkSet => ("NetworkSet", "networksets", true),
            ResourceKind::Node => ("Node", "nodes", false),
            ResourceKind::Profile => ("Profile", "profiles", false),
            ResourceKind::StagedGlobalNetworkPolicy => {
                ("StagedGlobalNetworkPolicy", "stagedglobalnetworkpolicies", false)
            }
            ResourceKind::StagedKubernetesNetworkPolicy => {
                ("StagedKubernetesNetworkPolicy", "stagedkubernetesnetworkpolicies", true)
            }
            ResourceKind::StagedNetworkPolicy => ("StagedNetworkPolicy", "stagednetworkpolicies", true),
            ResourceKind::Tier => ("Tier", "tiers", false),
            ResourceKind::WorkloadEndpoint => ("WorkloadEndpoint", "workloadendpoints", true),
        }
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_again_by_its_name_and_by_its_plural() {
        for kind in ResourceKind::ALL {
            assert_eq!(ResourceKind::named(kind.name()), Some(kind));
            assert_eq!(ResourceKind::of_plural(kind.plural()), Some(kind));
        }
        assert_eq!(ResourceKind::named("ippool"), None, "aliases are the command line's");
    }
}
