//! A Calico node's end of VXLAN, and Linux as one.

use std::net::IpAddr;

use anyhow::Result;
use model::{MacAddr, Prefix};
use sha1::{Digest, Sha1};

use crate::netns::Namespace;

/// Linux's device, as Calico names it.
const DEVICE: &str = "vxlan.calico";

/// One end, by IPv4.
#[derive(Clone, Copy, Debug)]
pub struct Vtep {
    /// The node's name.
    pub node: &'static str,
    /// Its address outside the tunnel.
    pub outside: IpAddr,
    /// Its address inside.
    pub inside: IpAddr,
    /// What is behind it.
    pub block: Prefix,
}

impl Vtep {
    /// Its MAC address inside, where the node's resource gives none: f and five octets of the name's SHA-1
    /// (`felix/calc/vxlan_resolver.go`).
    pub fn mac(&self) -> MacAddr {
        let [a, b, c, d, e, ..]: [u8; 20] = Sha1::digest(self.node).into();
        MacAddr([b'f', a, b, c, d, e])
    }

    /// What Felix makes of VXLAN on a node whose router is the kernel: a device that learns nothing, and of each other node
    /// its VTEP as a neighbour, in the forwarding database, and as the gateway of its block.
    ///
    /// # Errors
    /// `ip` or `bridge` refuses.
    pub fn raise_on_linux(&self, inside: &Namespace, uplink: &str, others: &[Vtep]) -> Result<()> {
        inside.ip(&format!(
            "link add {DEVICE} address {} type vxlan id 4096 dstport 4789 local {} dev {uplink} nolearning",
            self.mac(),
            self.outside
        ))?;
        inside.ip(&format!("address add {}/32 dev {DEVICE}", self.inside))?;
        inside.ip(&format!("link set {DEVICE} up"))?;
        for other in others {
            let (mac, outside) = (other.mac().to_string(), other.outside.to_string());
            inside
                .run("bridge", &["fdb", "add", &mac, "dev", DEVICE, "dst", &outside, "self", "permanent"])?;
            inside.ip(&format!("neigh add {} lladdr {mac} dev {DEVICE} nud permanent", other.inside))?;
            inside.ip(&format!(
                "route add {} via {} dev {DEVICE} src {} onlink",
                other.block, other.inside, self.inside
            ))?;
        }
        Ok(())
    }
}
