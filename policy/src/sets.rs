//! Sets of addresses that rules name: what a selector, a network set or a named port has become.

use model::Prefix;

/// Something in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// Every address of a network; a /32 or /128 is one address.
    Net(Prefix),
    /// A port at every address of a network: what a named port stands for. It is in the set for rules that ask for named
    /// ports, and for no others.
    Port {
        /// Where.
        net: Prefix,
        /// IANA's number of the protocol.
        protocol: u8,
        /// The port.
        port: u16,
    },
}

impl Member {
    /// Its addresses.
    pub fn net(&self) -> Prefix {
        match self {
            Member::Net(net) | Member::Port { net, .. } => *net,
        }
    }
}
