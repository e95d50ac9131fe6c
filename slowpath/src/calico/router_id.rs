//! What a node is called among BGP's speakers.

use std::net::{IpAddr, Ipv4Addr};

use model::Node;
use sha2::{Digest, Sha256};

/// Where a node's BGP identifier comes from: what calico/node is told by `CALICO_ROUTER_ID`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouterId {
    /// From its IPv4 address; a node without one has none.
    #[default]
    NodeAddress,
    /// From its name, for nodes that have IPv6 alone.
    HashOfName,
    /// It is this one.
    Is(Ipv4Addr),
}

impl RouterId {
    /// The identifier of a node.
    pub(super) fn of(self, node: &Node) -> Option<Ipv4Addr> {
        match self {
            RouterId::Is(address) => Some(address),
            RouterId::HashOfName => Some(hashed(&node.name)),
            RouterId::NodeAddress => match node.ipv4?.addr {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            },
        }
    }
}

/// As confd makes it of a name (`HashToIPv4`): the first octets of its SHA-256, moved out of what is no unicast address.
fn hashed(name: &str) -> Ipv4Addr {
    let [first, rest @ ..]: [u8; 32] = Sha256::digest(name).into();
    let first = if first > 223 { first - 32 } else { first };
    Ipv4Addr::new(first, rest[0], rest[1], rest[2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_identifier_that_calico_gives_it() {
        assert_eq!(hashed("kube-master"), Ipv4Addr::new(25, 79, 212, 8));
        // Its hash begins with 245.
        assert_eq!(hashed("node-18"), Ipv4Addr::new(213, 194, 139, 227));
    }
}
