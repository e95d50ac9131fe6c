//! What goes with a node: its endpoints, peers and settings (`clientv3/node.go`).

use std::net::IpAddr;

use super::{ApiObject, Client, ClientError};
use crate::ResourceKind;
use crate::ipam::{Ipam, Release};

impl Client<'_> {
    /// Removes what belongs to one node alone.
    pub(super) fn remove_belongings_of_node(&self, node: &str) -> Result<(), ClientError> {
        self.release_addresses_of_node(node)?;
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

    /// Gives back the addresses of the node's workloads and tunnels, and its claims of blocks.
    fn release_addresses_of_node(&self, node: &str) -> Result<(), ClientError> {
        let mut texts = Vec::new();
        for object in self.list(ResourceKind::WorkloadEndpoint, None)?.items {
            if object.spec_text("node") == node {
                let networks = object.spec("ipNetworks").as_array().cloned().unwrap_or_default();
                texts.extend(networks.iter().filter_map(|text| text.as_str().map(str::to_owned)));
            }
        }
        match self.get(ResourceKind::Node, "", node) {
            Ok(node) => {
                let of_ipip = node.spec("bgp")["ipv4IPIPTunnelAddr"].as_str().unwrap_or_default();
                texts.push(of_ipip.to_owned());
                for field in ["ipv4VXLANTunnelAddr", "ipv6VXLANTunnelAddr"] {
                    texts.push(node.spec_text(field).to_owned());
                }
                for field in ["interfaceIPv4Address", "interfaceIPv6Address"] {
                    texts.push(node.spec("wireguard")[field].as_str().unwrap_or_default().to_owned());
                }
            }
            Err(ClientError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        let address = |text: &String| text.split('/').next().and_then(|text| text.parse::<IpAddr>().ok());
        let asked: Vec<Release> = texts.iter().filter_map(address).map(Release::of).collect();
        let ipam = Ipam::new(self.store);
        let failed = |error: crate::ipam::IpamError| ClientError::Other(error.to_string());
        ipam.release(&asked).map_err(failed)?;
        ipam.release_host_affinities(node, false).map_err(failed)
    }

    fn remove_if_there(&self, object: &ApiObject) -> Result<(), ClientError> {
        let named = ApiObject::named(object.kind(), object.namespace(), object.name());
        match self.delete(&named) {
            Ok(_) | Err(ClientError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
