//! Tunnels that end at this router: whose packets are opened.

use std::net::Ipv4Addr;

/// What a tunnel's packets look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelKind {
    /// IPv4 in IPv4 (RFC 2003).
    Ipip,
    /// Ethernet in UDP (RFC 7348).
    Vxlan {
        /// The UDP port that packets come to.
        port: u16,
        /// The network identifier that they must carry.
        vni: u32,
    },
}

/// One end of tunnels, here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelEnd {
    /// The address that packets come to.
    pub local: Ipv4Addr,
    /// What they look like.
    pub kind: TunnelKind,
    /// Who may send them, in order; from anybody else they are dropped.
    remotes: Vec<Ipv4Addr>,
}

impl TunnelEnd {
    /// An end that opens packets from these addresses.
    pub fn new(local: Ipv4Addr, kind: TunnelKind, remotes: impl IntoIterator<Item = Ipv4Addr>) -> TunnelEnd {
        let mut remotes: Vec<Ipv4Addr> = remotes.into_iter().collect();
        remotes.sort_unstable();
        TunnelEnd { local, kind, remotes }
    }

    /// May this address send packets here?
    #[inline]
    pub fn knows(&self, remote: Ipv4Addr) -> bool {
        self.remotes.binary_search(&remote).is_ok()
    }
}
