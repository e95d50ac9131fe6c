//! Tunnels that end at this router: whose packets are opened.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::{MacAddr, Prefix};
use packet::encapsulation::VXLAN_PORT;

use crate::AddressSet;

/// What a tunnel's packets look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelKind {
    /// IPv4 in IPv4 (RFC 2003).
    Ipip,
    /// Ethernet in UDP (RFC 7348), over IPv4 or IPv6.
    Vxlan {
        /// The UDP port that packets come to.
        port: u16,
        /// The network identifier that they must carry, 24 bits.
        vni: u32,
        /// The end's own MAC address, to which the frame inside must be addressed.
        mac: MacAddr,
    },
}

/// One end of tunnels, here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelEnd {
    /// The address that packets come to: this node's, or a multicast group that it has joined. IPIP comes to IPv4 addresses
    /// only.
    pub local: IpAddr,
    /// What they look like.
    pub kind: TunnelKind,
    /// Do ARP and neighbour discovery inside go to the slow path? Otherwise there is no place for them inside.
    pub resolves: bool,
    /// Who may send them; from anybody else they are dropped.
    remotes: AddressSet,
}

impl TunnelEnd {
    /// An end that opens packets from these networks: hosts ([`Prefix::host`]) or wider ones, as `externalNodesList` may
    /// name. Those of another family than `local` never match.
    pub fn new(local: IpAddr, kind: TunnelKind, remotes: impl IntoIterator<Item = Prefix>) -> TunnelEnd {
        TunnelEnd { local, kind, resolves: false, remotes: AddressSet::new(remotes) }
    }

    /// The same, where ARP and neighbour discovery inside go to the slow path.
    #[must_use]
    pub fn resolving(self) -> TunnelEnd {
        TunnelEnd { resolves: true, ..self }
    }

    /// May this IPv4 address send packets here?
    #[inline]
    pub fn knows_v4(&self, remote: Ipv4Addr) -> bool {
        self.remotes.has_v4(remote)
    }

    /// May this IPv6 address send packets here?
    #[inline]
    pub fn knows_v6(&self, remote: Ipv6Addr) -> bool {
        self.remotes.has_v6(remote)
    }
}

/// Tunnel packets that workloads may not send, wherever they go: a workload's own tunnel would carry it past policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkloadTunnels {
    /// IPIP isn't theirs to send (Felix: unless `allowIPIPPacketsFromWorkloads`).
    pub ipip_refused: bool,
    /// UDP to this port isn't (Felix: unless `allowVXLANPacketsFromWorkloads`).
    pub refused_vxlan_port: Option<u16>,
}

impl Default for WorkloadTunnels {
    /// As Felix without a FelixConfiguration.
    fn default() -> WorkloadTunnels {
        WorkloadTunnels { ipip_refused: true, refused_vxlan_port: Some(VXLAN_PORT) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn end(remotes: &[&str]) -> TunnelEnd {
        let remotes = remotes.iter().map(|text| text.parse().unwrap());
        TunnelEnd::new("172.18.0.1".parse().unwrap(), TunnelKind::Ipip, remotes)
    }

    fn knows(end: &TunnelEnd, remote: &str) -> bool {
        match remote.parse().unwrap() {
            IpAddr::V4(remote) => end.knows_v4(remote),
            IpAddr::V6(remote) => end.knows_v6(remote),
        }
    }

    #[test]
    fn hosts_and_networks_of_both_families_are_known_and_their_neighbours_are_not() {
        let end = end(&["172.18.0.9/32", "10.1.0.0/16", "10.1.2.0/24", "fd00:1::/64", "fd00::7/128"]);
        for remote in
            ["172.18.0.9", "10.1.0.0", "10.1.2.3", "10.1.255.255", "fd00:1::", "fd00:1::9", "fd00::7"]
        {
            assert!(knows(&end, remote), "{remote}");
        }
        for remote in
            ["172.18.0.8", "172.18.0.10", "10.0.255.255", "10.2.0.0", "fd00::6", "fd00:1:0:1::", "::"]
        {
            assert!(!knows(&end, remote), "{remote}");
        }
    }

    #[test]
    fn everybody_and_nobody() {
        assert!(["0.0.0.0", "255.255.255.255"].iter().all(|remote| knows(&end(&["0.0.0.0/0"]), remote)));
        assert!(knows(&end(&["::/0"]), "ffff::") && !knows(&end(&["::/0"]), "1.2.3.4"));
        assert!(!knows(&end(&[]), "0.0.0.0"));
    }

    proptest! {
        #[test]
        fn the_ranges_answer_as_the_prefixes_do(
            networks in prop::collection::vec((any::<u32>(), 0u8..=32), 0..12),
            // Few distinct addresses, so that many are inside.
            at in any::<prop::sample::Index>(), flip in 0u32..34, stranger: u32,
        ) {
            let networks: Vec<Prefix> = networks
                .into_iter()
                .map(|(addr, len)| Prefix::new(Ipv4Addr::from(addr).into(), len).unwrap())
                .collect();
            let near = match networks.is_empty() {
                true => stranger,
                false => match at.get(&networks).addr() {
                    IpAddr::V4(addr) => u32::from(addr) ^ 1u32.checked_shl(flip).unwrap_or(0),
                    IpAddr::V6(_) => unreachable!(),
                },
            };
            let end = TunnelEnd::new(Ipv4Addr::LOCALHOST.into(), TunnelKind::Ipip, networks.clone());
            for addr in [near, stranger].map(Ipv4Addr::from) {
                let expected = networks.iter().any(|network| network.contains(addr.into()));
                prop_assert_eq!(end.knows_v4(addr), expected, "{} in {:?}", addr, networks);
            }
        }
    }
}
