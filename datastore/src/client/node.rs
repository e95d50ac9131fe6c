//! What goes with a node: its endpoints, peers and settings (`clientv3/node.go`).

use super::{ApiObject, Client, ClientError};
use crate::ResourceKind;

impl Client<'_> {
    /// Removes what belongs to one node alone. Its addresses are the IPAM library's to release.
    pub(super) fn remove_belongings_of_node(&self, node: &str) -> Result<(), ClientError> {
        for kind in [ResourceKind::WorkloadEndpoint, ResourceKind::BgpPeer, ResourceKind::HostEndpoint] {
            for object in self.list(kind, None)?.items {
                if object.spec_text("node") == node {
                    self.remove_if_there(&object)?;
                }
            }
        }
        let own = format!("node.{node}");
        for kind in [ResourceKind::FelixConfiguration, ResourceKind::BgpConfiguration] {
            self.remove_if_there(&ApiObject::named(kind, "", &own))?;
        }
        Ok(())
    }

    fn remove_if_there(&self, object: &ApiObject) -> Result<(), ClientError> {
        let named = ApiObject::named(object.kind(), object.namespace(), object.name());
        match self.delete(&named) {
            Ok(_) | Err(ClientError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
