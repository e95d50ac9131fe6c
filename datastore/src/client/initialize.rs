//! What a datastore needs before anything else: the cluster's own resource, and the tiers that always exist
//! (`clientv3/client.go`).

use super::{ApiObject, Client, ClientError, hex, random};
use crate::ResourceKind;

/// Tiers that always exist, with their orders and what becomes of a packet at their end.
const TIERS: [(&str, u64, &str); 3] =
    [("default", 1_000_000, "Deny"), ("kube-admin", 1_000, "Pass"), ("kube-baseline", 10_000_000, "Pass")];

/// Is it a tier that always exists?
pub(super) fn is_standard_tier(name: &str) -> bool {
    TIERS.iter().any(|(tier, _, _)| *tier == name)
}

impl Client<'_> {
    /// Writes what every datastore has, unless it is there. May be called at any time.
    ///
    /// # Errors
    /// The first thing that couldn't be written; the others are.
    pub fn ensure_initialized(&self) -> Result<(), ClientError> {
        let cluster = self.ensure_cluster_information();
        let tiers = TIERS.map(|(name, order, action)| {
            let mut tier = ApiObject::named(ResourceKind::Tier, "", name);
            tier.set_spec("order", order);
            tier.set_spec("defaultAction", action);
            match self.create_as_is(tier.canonical()) {
                Ok(_) | Err(ClientError::AlreadyExists(_)) => Ok(()),
                Err(error) => Err(error),
            }
        });
        cluster.and(tiers.into_iter().collect())
    }

    fn ensure_cluster_information(&self) -> Result<(), ClientError> {
        loop {
            let result = match self.get(ResourceKind::ClusterInformation, "", "default") {
                Ok(cluster) => {
                    let mut complete = cluster.clone();
                    complete.default_spec("datastoreReady", true);
                    if cluster.spec_text("clusterGUID").is_empty() {
                        complete.set_spec("clusterGUID", hex(&random()?));
                    }
                    if complete == cluster {
                        return Ok(());
                    }
                    self.update_as_is(complete.canonical())
                }
                Err(ClientError::NotFound(_)) => {
                    let mut cluster = ApiObject::named(ResourceKind::ClusterInformation, "", "default");
                    cluster.set_spec("clusterGUID", hex(&random()?));
                    cluster.set_spec("datastoreReady", true);
                    self.create_as_is(cluster.canonical())
                }
                Err(error) => return Err(error),
            };
            match result {
                // Somebody else was quicker: see what they wrote.
                Err(ClientError::AlreadyExists(_) | ClientError::Conflict(_)) => {}
                result => return result.map(drop),
            }
        }
    }

    /// Says whether nodes may work from what is stored, or wait (`datastoreReady`).
    ///
    /// # Errors
    /// That it couldn't be read or written.
    pub fn set_ready(&self, ready: bool) -> Result<(), ClientError> {
        let mut cluster = self.get(ResourceKind::ClusterInformation, "", "default")?;
        cluster.set_spec("datastoreReady", ready);
        self.write_cluster_information(cluster)
    }

    /// Writes the cluster's own resource anew, which no other write may touch.
    ///
    /// # Errors
    /// That it has been written since it was read, or that the store can't be asked.
    pub fn write_cluster_information(&self, cluster: ApiObject) -> Result<(), ClientError> {
        self.update_as_is(cluster.canonical()).map(drop)
    }
}
