//! Workloads as Calico's CNI plugin leaves them: a /32 and a /128, and a gateway that is nobody's address.

use std::net::IpAddr;

use anyhow::{Context, Result};
use model::{Family, InterfaceAddr, MacAddr, Prefix};

use crate::Lab;
use crate::link::{self, End};
use crate::netns::Namespace;
use crate::resources::{Endpoint, Resources, endpoint_file};

/// The IPv4 gateway of every workload; the host answers ARP for it by proxy.
const GATEWAY_V4: &str = "169.254.1.1";
/// The IPv6 gateway of every workload: the link-local address that goes with [`HOST_MAC`].
const GATEWAY_V6: &str = "fe80::ecee:eeff:feee:eeee";
/// The MAC address of the host's end of every workload's veth pair.
pub const HOST_MAC: MacAddr = MacAddr([0xee; 6]);

/// The workload's own interface.
pub const INTERFACE: &str = "eth0";

/// A workload: a namespace with one interface, joined to a node.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Where it lives.
    pub namespace: Namespace,
    /// The node it runs on.
    pub node: String,
    /// The host's end of its veth pair.
    pub interface: String,
    /// The MAC address of its own interface.
    pub mac: MacAddr,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
}

impl Workload {
    /// Raises the workload `name` on a node and writes its WorkloadEndpoint.
    ///
    /// # Errors
    /// A namespace, link or address cannot be made.
    pub fn raise(
        lab: &Lab,
        resources: &Resources,
        node: &Namespace,
        name: &str,
        addresses: &[IpAddr],
    ) -> Result<Workload> {
        let namespace = lab.namespace(name)?;
        let interface = link::interface_name(&format!("cali{name}"));
        // From birth: the kernel derives the link-local address from the MAC address when the link comes up.
        let host_end = End { mac: Some(HOST_MAC), ..End::new(node, &interface) };
        link::veth(End::new(&namespace, INTERFACE), host_end)?;
        link::transmit_checksums_by_software(&namespace, INTERFACE)?;
        for &address in addresses {
            let host = InterfaceAddr { addr: address, len: Family::of(address).bits() };
            link::add_address(&namespace, INTERFACE, host)?;
        }
        default_routes(&namespace, addresses)?;
        let workload = Workload {
            mac: link::mac(&namespace, INTERFACE)?,
            namespace,
            node: node.name().to_owned(),
            interface,
            addresses: addresses.to_vec(),
        };
        resources.workload_endpoint(&Endpoint {
            name,
            node: &workload.node,
            interface: &workload.interface,
            mac: workload.mac,
            addresses,
        })?;
        Ok(workload)
    }

    /// Its name within the lab.
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// Its address of a family.
    ///
    /// # Errors
    /// It has none.
    pub fn address(&self, family: Family) -> Result<IpAddr> {
        let found = self.addresses.iter().copied().find(|&address| Family::of(address) == family);
        found.with_context(|| format!("{} has no {family:?} address", self.name()))
    }

    /// The file of its WorkloadEndpoint.
    pub fn endpoint_file(&self) -> String {
        endpoint_file(&self.node, self.name())
    }

    /// What Felix does on a node whose kernel forwards: a host route per address, ARP and ND answered by proxy.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn plug_into_kernel(&self, node: &Namespace) -> Result<()> {
        let interface = &self.interface;
        node.set(&[
            (&format!("net/ipv4/conf/{interface}/proxy_arp"), "1"),
            // The kernel would wait up to 0.8 s before it answers for somebody else.
            (&format!("net/ipv4/neigh/{interface}/proxy_delay"), "0"),
            (&format!("net/ipv6/conf/{interface}/proxy_ndp"), "1"),
        ])?;
        for &address in &self.addresses {
            node.ip(&format!("route add {} dev {interface} scope link", Prefix::host(address)))?;
        }
        Ok(())
    }
}

/// Everything goes to the gateway, which is on the link without being anybody's neighbour.
fn default_routes(namespace: &Namespace, addresses: &[IpAddr]) -> Result<()> {
    let has = |family| addresses.iter().any(|&address| Family::of(address) == family);
    if has(Family::V4) {
        namespace.ip(&format!("route add {GATEWAY_V4} dev {INTERFACE} scope link"))?;
        namespace.ip(&format!("route add default via {GATEWAY_V4} dev {INTERFACE}"))?;
    }
    if has(Family::V6) {
        namespace.ip(&format!("-6 route add default via {GATEWAY_V6} dev {INTERFACE}"))?;
    }
    Ok(())
}
