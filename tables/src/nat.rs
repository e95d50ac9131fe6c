//! What is translated: sources of packets that leave the pools, floating IPs, and the way to OpenStack's metadata.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use model::{Family, IpNat, Prefix};
use packet::{FlowKey, protocol};

use crate::flows::has_mapping;
use crate::{FlowTimeouts, OuterAddress};

/// The outer address of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The source that packets leave under, and the ports that they may get.
    pub outer: OuterAddress,
    /// The host has this address, too: only ports tell its packets from translated ones, and what belongs to no flow
    /// is the host's.
    pub is_hosts: bool,
}

/// Where OpenStack's instances ask for their metadata: by TCP, at this port of this address, wherever they are.
pub const METADATA: (Ipv4Addr, u16) = (Ipv4Addr::new(169, 254, 169, 254), 80);

/// The server that answers there (`StaticNATPreroutingChains` in `felix/rules/static.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetadataServer {
    /// `metadataAddr`, this host's or another's.
    pub addr: Ipv4Addr,
    /// `metadataPort`.
    pub port: u16,
}

impl MetadataServer {
    /// Is this end of a packet its?
    fn is_at(&self, address: u128, port: u16) -> bool {
        (address, port) == (u32::from(self.addr).into(), self.port)
    }
}

/// The rules, as the slow path writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatRules {
    /// The outer address of each family that has one: address, ports, is it the host's?
    pub outgoing: Vec<(IpAddr, RangeInclusive<u16>, bool)>,
    /// Sources that packets from workloads don't leave under.
    pub sources: Vec<Prefix>,
    /// Destinations that see the true source all the same.
    pub exempt: Vec<Prefix>,
    /// Networks of workloads anywhere: what goes there stays in the cluster.
    pub pools: Vec<Prefix>,
    /// Floating IPs of local workloads.
    pub floating: Vec<IpNat>,
    /// Who answers OpenStack's instances, under OpenStack.
    pub metadata: Option<MetadataServer>,
    /// How long flows are remembered.
    pub timeouts: FlowTimeouts,
}

/// The rules, as the walk asks them.
#[derive(Clone, Debug, Default)]
#[repr(align(128))]
pub struct Nat {
    outgoing: [Option<Outgoing>; 2],
    sources: Vec<Range>,
    exempt: Vec<Range>,
    pools: Vec<Range>,
    /// External to internal, in order of the first.
    floating: Vec<(Family, u128, u128)>,
    /// Internal to external, in order of the first.
    internal: Vec<(Family, u128, u128)>,
    /// Who answers OpenStack's instances.
    pub metadata: Option<MetadataServer>,
    /// How long flows are remembered.
    pub timeouts: FlowTimeouts,
}

#[derive(Clone, Copy, Debug)]
struct Range {
    family: Family,
    base: u128,
    mask: u128,
}

impl Range {
    fn of(prefix: Prefix) -> Range {
        let family = prefix.family();
        let (bits, all) = match family {
            Family::V4 => (32, u128::from(u32::MAX)),
            Family::V6 => (128, u128::MAX),
        };
        let host_bits = bits - u32::from(prefix.len());
        let mask = all.checked_shl(host_bits).unwrap_or(0) & all;
        Range { family, base: number(prefix.addr()) & mask, mask }
    }

    fn contains(&self, family: Family, address: u128) -> bool {
        self.family == family && address & self.mask == self.base
    }
}

fn within(ranges: &[Range], family: Family, address: u128) -> bool {
    ranges.iter().any(|range| range.contains(family, address))
}

/// An address as in [`FlowKey`].
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

fn row(family: Family) -> usize {
    usize::from(family == Family::V6)
}

fn find(pairs: &[(Family, u128, u128)], family: Family, address: u128) -> Option<u128> {
    let found = pairs.binary_search_by(|(f, a, _)| (*f, *a).cmp(&(family, address)));
    found.ok().and_then(|at| pairs.get(at)).map(|(_, _, other)| *other)
}

impl Nat {
    /// Compiles the rules. Of two floating IPs that are the same, or of one workload's address, the first counts.
    pub fn new(rules: &NatRules) -> Nat {
        let mut outgoing = [None, None];
        for (address, ports, is_hosts) in &rules.outgoing {
            let outer = OuterAddress { address: number(*address), ports: ports.clone() };
            outgoing[row(Family::of(*address))] = Some(Outgoing { outer, is_hosts: *is_hosts });
        }
        let pairs = |of: fn(&IpNat) -> (IpAddr, IpAddr)| {
            let mut pairs: Vec<_> = rules
                .floating
                .iter()
                .map(of)
                .map(|(one, other)| (Family::of(one), number(one), number(other)))
                .collect();
            pairs.sort_by_key(|(family, address, _)| (*family, *address));
            pairs.dedup_by_key(|(family, address, _)| (*family, *address));
            pairs
        };
        Nat {
            outgoing,
            sources: rules.sources.iter().copied().map(Range::of).collect(),
            exempt: rules.exempt.iter().copied().map(Range::of).collect(),
            pools: rules.pools.iter().copied().map(Range::of).collect(),
            floating: pairs(|nat| (nat.external, nat.internal)),
            internal: pairs(|nat| (nat.internal, nat.external)),
            metadata: rules.metadata,
            timeouts: rules.timeouts,
        }
    }

    /// Is nothing translated at all?
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.sources.is_empty() && self.floating.is_empty() && self.metadata.is_none()
    }

    /// The server that a packet is for by asking for metadata.
    #[inline]
    pub fn metadata_for(&self, key: &FlowKey) -> Option<MetadataServer> {
        let (addr, port) = METADATA;
        let asks = key.family == Family::V4
            && (key.dst, key.dport, key.protocol) == (u32::from(addr).into(), port, protocol::TCP);
        self.metadata.filter(|_| asks)
    }

    /// Is a packet for the metadata server itself?
    pub fn is_to_metadata(&self, key: &FlowKey) -> bool {
        let is_at = |server: MetadataServer| server.is_at(key.dst, key.dport);
        key.protocol == protocol::TCP && key.family == Family::V4 && self.metadata.is_some_and(is_at)
    }

    /// May it be an answer of the metadata server's?
    #[inline]
    pub fn is_from_metadata(&self, key: &FlowKey) -> bool {
        self.metadata.is_some() && self.is_to_metadata(&key.reversed())
    }

    /// Must a workload's packet not leave under its own source?
    pub fn hides_source(&self, key: &FlowKey) -> bool {
        within(&self.sources, key.family, key.src) && !within(&self.exempt, key.family, key.dst)
    }

    /// Does an address lie in a pool, whoever has it?
    pub fn is_in_a_pool(&self, address: IpAddr) -> bool {
        within(&self.pools, Family::of(address), number(address))
    }

    /// Would these rules make the same of the first packet of a flow with these keys? True of what isn't translated at all:
    /// it is no rule's.
    pub fn upholds(&self, original: &FlowKey, reply: &FlowKey) -> bool {
        let becomes = reply.reversed();
        let FlowKey { family, src, dst, .. } = *original;
        if becomes == *original {
            return true;
        }
        if let Some(internal) = self.internal_of(family, dst) {
            return becomes.dst == internal && (becomes.src == src || src == internal && becomes.src == dst);
        }
        if let Some(server) = self.metadata_for(original) {
            return server.is_at(becomes.dst, becomes.dport) && becomes.src == src;
        }
        let Some(outgoing) = self.outgoing(family) else { return false };
        let has_port = match has_mapping(original) {
            true => outgoing.outer.ports.contains(&becomes.sport),
            false => !outgoing.is_hosts,
        };
        let by_rule = if becomes.dst == dst {
            self.hides_source(original)
        } else {
            self.is_outer(family, dst) && within(&self.sources, family, becomes.dst)
        };
        by_rule && has_port && self.is_outer(family, becomes.src)
    }

    /// The outer address of a family.
    pub fn outgoing(&self, family: Family) -> Option<&Outgoing> {
        self.outgoing[row(family)].as_ref()
    }

    /// Is this the outer address?
    #[inline]
    pub fn is_outer(&self, family: Family, address: u128) -> bool {
        self.outgoing(family).is_some_and(|outgoing| outgoing.outer.address == address)
    }

    /// The workload's own address behind a floating IP.
    #[inline]
    pub fn internal_of(&self, family: Family, external: u128) -> Option<u128> {
        find(&self.floating, family, external)
    }

    /// The floating IP of a workload's own address.
    #[inline]
    pub fn external_of(&self, family: Family, internal: u128) -> Option<u128> {
        find(&self.internal, family, internal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(src: &str, dst: &str) -> FlowKey {
        let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
        let family = Family::of(src);
        FlowKey { src: number(src), dst: number(dst), sport: 1, dport: 2, protocol: 17, family }
    }

    fn prefixes(texts: &[&str]) -> Vec<Prefix> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn sources_are_hidden_from_all_but_the_exempt() {
        let nat = Nat::new(&NatRules {
            sources: prefixes(&["10.65.0.0/16", "fd65::/48"]),
            exempt: prefixes(&["10.65.0.0/16", "10.99.0.0/24", "fd65::/48", "172.18.0.2/32"]),
            ..NatRules::default()
        });
        assert!(nat.hides_source(&key("10.65.0.2", "192.0.2.1")));
        assert!(!nat.hides_source(&key("10.65.0.2", "10.99.0.7")));
        assert!(!nat.hides_source(&key("10.65.0.2", "172.18.0.2")));
        assert!(nat.hides_source(&key("10.65.0.2", "172.18.0.3")));
        assert!(!nat.hides_source(&key("10.99.0.7", "192.0.2.1")));
        assert!(nat.hides_source(&key("fd65::2", "2001:db8::1")));
        assert!(!nat.hides_source(&key("fd65::2", "fd65::3")));
        assert!(!nat.hides_source(&key("::10.65.0.2", "2001:db8::1")), "families don't mix");
        let everything = Nat::new(&NatRules { sources: prefixes(&["0.0.0.0/0"]), ..NatRules::default() });
        assert!(everything.hides_source(&key("10.65.0.2", "192.0.2.1")));
        assert!(Nat::default().is_idle() && !everything.is_idle());
    }

    #[test]
    fn floating_ips_are_found_from_both_sides_and_the_first_counts() {
        let nat = |internal: &str, external: &str| IpNat {
            internal: internal.parse().unwrap(),
            external: external.parse().unwrap(),
        };
        let floating =
            vec![nat("10.65.0.2", "192.0.2.1"), nat("10.65.0.2", "192.0.2.2"), nat("10.65.0.3", "192.0.2.1")];
        let nat = Nat::new(&NatRules { floating, ..NatRules::default() });
        let address = |text: &str| number(text.parse().unwrap());
        assert_eq!(nat.internal_of(Family::V4, address("192.0.2.1")), Some(address("10.65.0.2")));
        assert_eq!(nat.internal_of(Family::V4, address("192.0.2.2")), Some(address("10.65.0.2")));
        assert_eq!(nat.external_of(Family::V4, address("10.65.0.2")), Some(address("192.0.2.1")));
        assert_eq!(nat.internal_of(Family::V6, address("192.0.2.1")), None);
    }
}
