//! What a cluster says of itself.

/// `ClusterInformation`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterInformation {
    /// `metadata.name`; only `default` is read.
    pub name: String,
    /// `spec.clusterType`: who set the cluster up, joined by commas, such as `openstack,bgp`.
    pub cluster_type: String,
}

impl ClusterInformation {
    /// Is OpenStack among those who set the cluster up?
    pub fn is_openstack(&self) -> bool {
        self.cluster_type.to_ascii_lowercase().contains("openstack")
    }
}
