//! Links between namespaces, and the layer-2 fabric in the middle.

use anyhow::{Context, Result};
use model::{Family, InterfaceAddr, MacAddr};
use serde_json::Value;
use sha1::{Digest, Sha1};

use crate::Lab;
use crate::netns::Namespace;

/// The MTU of every link of a lab, in bytes.
pub const MTU: u32 = 1500;

/// One end of a veth pair to be made.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Where the end is born.
    pub namespace: &'a Namespace,
    /// What it is called there.
    pub interface: &'a str,
    /// Its MAC address; the kernel chooses one where none is given.
    pub mac: Option<MacAddr>,
}

impl<'a> End<'a> {
    /// An end whose MAC address the kernel chooses.
    pub fn new(namespace: &'a Namespace, interface: &'a str) -> End<'a> {
        End { namespace, interface, mac: None }
    }

    /// What `ip link add` is told of this end.
    fn words(&self, queues: u32) -> String {
        let mac = self.mac.map(|mac| format!(" address {mac}")).unwrap_or_default();
        format!("name {}{mac} mtu {MTU} numrxqueues {queues} numtxqueues {queues}", self.interface)
    }
}

/// Joins two namespaces with a veth pair, both ends born inside them, up, with one queue each way.
///
/// # Errors
/// `ip` refuses: a name is taken.
pub fn veth(left: End<'_>, right: End<'_>) -> Result<()> {
    veth_with_queues(left, right, 1)
}

/// [`veth`] with this many receive and transmit queues on both ends.
///
/// # Errors
/// As [`veth`].
pub fn veth_with_queues(left: End<'_>, right: End<'_>, queues: u32) -> Result<()> {
    let (near, far) = (left.words(queues), right.words(queues));
    left.namespace.ip(&format!("link add {near} type veth peer {far} netns {}", right.namespace.full()))?;
    for end in [left, right] {
        end.namespace.ip(&format!("link set {} up", end.interface))?;
    }
    Ok(())
}

/// Gives an interface an address.
///
/// # Errors
/// `ip` refuses.
pub fn add_address(namespace: &Namespace, interface: &str, address: InterfaceAddr) -> Result<()> {
    // Nobody else can have the address in a network that we made ourselves.
    let nodad = if Family::of(address.addr) == Family::V6 { "nodad" } else { "" };
    namespace.ip(&format!("address add {address} dev {interface} {nodad}")).map(|_| ())
}

/// The MAC address of an interface.
///
/// # Errors
/// There is no such interface.
pub fn mac(namespace: &Namespace, interface: &str) -> Result<MacAddr> {
    let json: Value = serde_json::from_str(&namespace.ip(&format!("-j link show dev {interface}"))?)?;
    let text = json[0]["address"].as_str().with_context(|| format!("{interface} has no MAC address"))?;
    text.parse().with_context(|| format!("MAC address of {interface}"))
}

/// Makes the sender complete every checksum itself: nothing tells an AF_XDP receiver that one is still partial (D8).
///
/// # Errors
/// `ethtool` refuses.
pub fn transmit_checksums_by_software(namespace: &Namespace, interface: &str) -> Result<()> {
    namespace.run("ethtool", &["-K", interface, "tx", "off"]).map(|_| ())
}

/// A switch: a bridge in a namespace of its own.
pub struct Fabric {
    namespace: Namespace,
}

impl Fabric {
    /// The interface of the bridge.
    pub const BRIDGE: &str = "br0";

    /// A bridge called `name` within the lab, without spanning tree: ports forward at once.
    ///
    /// # Errors
    /// The namespace or the bridge cannot be made.
    pub fn raise(lab: &Lab, name: &str) -> Result<Fabric> {
        let namespace = lab.namespace(name)?;
        namespace.ip(&format!("link add {} type bridge stp_state 0 forward_delay 0", Self::BRIDGE))?;
        namespace.ip(&format!("link set {} up", Self::BRIDGE))?;
        Ok(Fabric { namespace })
    }

    /// The namespace of the bridge: the place to capture what passes.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Plugs `namespace` in, by an interface called `interface` on its side.
    ///
    /// # Errors
    /// The link cannot be made.
    pub fn attach(&self, namespace: &Namespace, interface: &str) -> Result<()> {
        let port = self.port(namespace, interface);
        veth(End::new(namespace, interface), End::new(&self.namespace, &port))?;
        self.namespace.ip(&format!("link set {port} master {}", Self::BRIDGE)).map(|_| ())
    }

    /// A machine that is only there to talk: a namespace plugged in by `eth0`, with these addresses.
    /// As on a wire, its checksums are complete when they leave it.
    ///
    /// # Errors
    /// Something cannot be made.
    pub fn host(&self, lab: &Lab, name: &str, addresses: &[&str]) -> Result<Namespace> {
        let namespace = lab.namespace(name)?;
        self.attach(&namespace, "eth0")?;
        transmit_checksums_by_software(&namespace, "eth0")?;
        for address in addresses {
            add_address(&namespace, "eth0", address.parse()?)?;
        }
        Ok(namespace)
    }

    /// The name of the bridge's port towards `namespace`.
    pub fn port(&self, namespace: &Namespace, interface: &str) -> String {
        interface_name(&format!("{}-{interface}", namespace.name()))
    }
}

/// A name for an interface: this one where the kernel takes it, and its begin and a hash of it where it is too long, so that
/// two with the same begin are told apart.
pub(crate) fn interface_name(wanted: &str) -> String {
    /// `IFNAMSIZ`, less the zero octet at its end (`linux/if.h`).
    const LONGEST: usize = 15;
    /// Two octets of the hash, in hexadecimal.
    const HASH: usize = 4;
    if wanted.len() <= LONGEST {
        return wanted.to_owned();
    }
    let [one, other, ..]: [u8; 20] = Sha1::digest(wanted).into();
    let begin: String = wanted.chars().take(LONGEST - HASH).collect();
    format!("{begin}{one:02x}{other:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_whose_names_begin_alike_are_told_apart() {
        assert_eq!(interface_name("node-a-eth0"), "node-a-eth0");
        assert_eq!(interface_name("cali012345678ab"), "cali012345678ab", "as long as it may be");
        let names = ["reflector-1-eth0", "reflector-2-eth0", "reflector-1-eth1"].map(interface_name);
        for (number, name) in names.iter().enumerate() {
            assert!(name.len() == 15 && name.starts_with("reflector-"), "{name}");
            assert!(!names[..number].contains(name), "{names:?}");
        }
    }
}
