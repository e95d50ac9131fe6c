//! What names a flow: the classic five-tuple, and its hash for choosing one of several next hops.

use std::net::IpAddr;

use model::Family;

use crate::{Kind, Layout, Parsed, ethernet, icmp, octets, protocol, u16_at};

/// The five-tuple of a packet, and its family.
///
/// Ports are those of TCP, UDP and SCTP. An ICMP echo has its identifier as both ports, so that a reply is the reverse of
/// its request. Everything else, later fragments among them, has 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Source address; an IPv4 address fills the lowest 32 bits.
    pub src: u128,
    /// Destination address, alike.
    pub dst: u128,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Upper-layer protocol.
    pub protocol: u8,
    /// IPv4 or IPv6.
    pub family: Family,
}

/// Odd constants for [`FlowKey::hash`]: the fractional bits of the square roots of 2 (its last bit set), 3, 5 and 7.
const ROOTS: [u64; 4] =
    [0x6a09_e667_f3bc_c909, 0xbb67_ae85_84ca_a73b, 0x3c6e_f372_fe94_f82b, 0xa54f_f53a_5f1d_36f1];

/// A hash for spreading flows over next hops.
///
/// Keys keep two routers in a row from choosing alike (else the second sees only flows that the first's choice has in
/// common, and sends them all one way), and those who don't know them from making flows that collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowHash {
    keys: [u64; 4],
    /// What the high halves of IPv4 addresses, which are 0, come to.
    high_v4: u64,
    symmetric: bool,
}

impl Default for FlowHash {
    /// [`FlowKey::hash`].
    fn default() -> FlowHash {
        FlowHash::keyed(ROOTS, false)
    }
}

impl FlowHash {
    /// The hash with the keys that follow from a seed. A symmetric one is equal for both directions of a flow.
    pub fn new(seed: u64, symmetric: bool) -> FlowHash {
        let mut state = seed;
        // SplitMix64 (Steele, Lea, Flood 2014): neighbouring seeds give unlike keys.
        let keys = ROOTS.map(|root| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            root ^ mixed ^ mixed >> 31
        });
        FlowHash::keyed(keys, symmetric)
    }

    fn keyed(keys: [u64; 4], symmetric: bool) -> FlowHash {
        FlowHash { keys, high_v4: fold(keys[2], keys[3]), symmetric }
    }

    /// The hash of a flow.
    #[inline(always)]
    pub fn of(&self, flow: &FlowKey) -> u32 {
        if self.symmetric && (flow.src, flow.sport) > (flow.dst, flow.dport) {
            return self.one_way(&flow.reversed());
        }
        self.one_way(flow)
    }

    /// [`Self::of`] a flow of IPv4, TCP or UDP. `ports`: the source's in the upper half, the destination's in the lower one.
    #[inline(always)]
    pub fn of_v4(&self, src: u32, dst: u32, ports: u32, protocol: u8) -> u32 {
        let swaps = self.symmetric && (src, ports >> 16) > (dst, ports & 0xffff);
        let (src, dst, ports) = if swaps { (dst, src, ports.rotate_left(16)) } else { (src, dst, ports) };
        let keys = &self.keys;
        let rest = u64::from(ports) << 16 | u64::from(protocol) << 8;
        let low = fold(u64::from(src) ^ keys[0], u64::from(dst) ^ keys[1]);
        let hash = fold(low ^ rest ^ keys[3], self.high_v4 ^ keys[0]);
        (hash ^ hash >> 32) as u32
    }

    #[inline(always)]
    fn one_way(&self, flow: &FlowKey) -> u32 {
        let keys = &self.keys;
        let rest = u64::from(flow.sport) << 32
            | u64::from(flow.dport) << 16
            | u64::from(flow.protocol) << 8
            | u64::from(flow.family == Family::V6);
        let low = fold(flow.src as u64 ^ keys[0], flow.dst as u64 ^ keys[1]);
        let high = match flow.family {
            Family::V4 => self.high_v4,
            Family::V6 => fold((flow.src >> 64) as u64 ^ keys[2], (flow.dst >> 64) as u64 ^ keys[3]),
        };
        let hash = fold(low ^ rest ^ keys[3], high ^ keys[0]);
        (hash ^ hash >> 32) as u32
    }
}

impl FlowKey {
    /// The flow that a parsed frame belongs to; `None` for what isn't IP.
    #[inline]
    pub fn new(frame: &[u8], parsed: &Parsed) -> Option<FlowKey> {
        let l3 = usize::from(parsed.l3);
        let (family, src, dst) = match parsed.kind {
            Kind::Ipv4 => {
                let address = |at| u128::from(u32::from_be_bytes(octets(frame, l3 + at)));
                (Family::V4, address(12), address(16))
            }
            Kind::Ipv6 => {
                let address = |at| u128::from_be_bytes(octets(frame, l3 + at));
                (Family::V6, address(8), address(24))
            }
            Kind::Arp | Kind::Other => return None,
        };
        let (sport, dport) = ports(frame, parsed);
        Some(FlowKey { src, dst, sport, dport, protocol: parsed.protocol, family })
    }

    /// [`FlowKey::new`] for TCP and UDP in a plain IPv4 frame, where all stands at fixed places; `None` says nothing of others.
    #[inline(always)]
    pub fn plain_v4(frame: &[u8], parsed: &Parsed) -> Option<FlowKey> {
        const L3: usize = ethernet::HEADER_LEN;
        const L4: usize = Layout::PLAIN_V4_LEN;
        let has_ports = matches!(parsed.protocol, protocol::TCP | protocol::UDP);
        if parsed.layout != Layout::PlainV4 || !has_ports {
            return None;
        }
        let head: &[u8; L4 + 4] = frame.first_chunk()?;
        let address = |at| u128::from(u32::from_be_bytes(octets(head, L3 + at)));
        let (sport, dport) = (u16_at(head, L4), u16_at(head, L4 + 2));
        let (src, dst) = (address(12), address(16));
        Some(FlowKey { src, dst, sport, dport, protocol: parsed.protocol, family: Family::V4 })
    }

    /// The same flow as its other end sends it.
    #[must_use]
    pub fn reversed(&self) -> FlowKey {
        FlowKey { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, ..*self }
    }

    /// Source address.
    pub fn source(&self) -> IpAddr {
        address(self.family, self.src)
    }

    /// Destination address.
    pub fn destination(&self) -> IpAddr {
        address(self.family, self.dst)
    }

    /// A hash for spreading flows: the same on every machine, in every run and every release of this function. Routers
    /// hash with keys of their own: see [`FlowHash`].
    ///
    /// Three 64×64→128-bit multiplications whose halves are xored ("folded"): the low and the high halves of both
    /// addresses, then both results with ports, protocol and family. Whoever knows the constants can choose flows that
    /// collide, so it spreads load; it must not index a table that an attacker could overfill.
    #[inline]
    pub fn hash(&self) -> u32 {
        FlowHash::default().of(self)
    }

    /// [`FlowKey::hash`] of the flow or of its reverse, whichever orders first: equal for both directions.
    #[inline]
    pub fn hash_symmetric(&self) -> u32 {
        FlowHash::keyed(ROOTS, true).of(self)
    }
}

fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4((number as u32).into()),
        Family::V6 => IpAddr::V6(number.into()),
    }
}

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[inline]
fn ports(frame: &[u8], parsed: &Parsed) -> (u16, u16) {
    if parsed.l4 == 0 {
        return (0, 0);
    }
    let l4 = usize::from(parsed.l4);
    match parsed.protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => (u16_at(frame, l4), u16_at(frame, l4 + 2)),
        protocol::ICMP | protocol::ICMPV6
            if icmp::is_echo(parsed.kind, frame.get(l4).copied().unwrap_or(0)) =>
        {
            let ident = u16_at(frame, l4 + 4);
            (ident, ident)
        }
        _ => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn flows()(v6: bool, src: u128, dst: u128, sport: u16, dport: u16, protocol: u8) -> FlowKey {
            let (family, mask) = if v6 { (Family::V6, u128::MAX) } else { (Family::V4, u128::from(u32::MAX)) };
            FlowKey { src: src & mask, dst: dst & mask, sport, dport, protocol, family }
        }
    }

    fn flow(number: u32) -> FlowKey {
        FlowKey {
            src: 0x0a41_0001,
            dst: 0x0a41_0101,
            sport: number as u16,
            dport: 443,
            protocol: protocol::TCP,
            family: Family::V4,
        }
    }

    #[test]
    fn the_hash_never_changes() {
        // Routers of different releases in one ECMP group must agree, and a restart must not move flows.
        // The numbers come from the description at `FlowKey::hash`, worked out apart from this code.
        assert_eq!(flow(40_000).hash(), 0xa44e1f35);
        let v6 =
            FlowKey { src: 0xfd00 << 112 | 7, dst: 0xfd00 << 112 | 9, family: Family::V6, ..flow(40_000) };
        assert_eq!(v6.hash(), 0x2f768d82);
    }

    #[test]
    fn neighbouring_ports_spread_evenly_over_next_hops() {
        for next_hops in [2, 3, 4, 7, 64] {
            let mut load = vec![0u32; next_hops];
            (0..60_000).for_each(|port| load[flow(port).hash() as usize % next_hops] += 1);
            let fair = 60_000 / next_hops as u32;
            assert!(load.iter().all(|n| n.abs_diff(fair) < fair / 5), "{next_hops}: {load:?}");
        }
    }

    #[test]
    fn without_a_seed_of_its_own_a_router_hashes_as_described() {
        assert_eq!(FlowHash::default().of(&flow(40_000)), flow(40_000).hash());
    }

    /// Two routers in a row, each with four next hops: what the first sends one way, the second spreads evenly.
    #[test]
    fn two_seeds_choose_independently() {
        for symmetric in [false, true] {
            for seed in 0..8 {
                let (first, second) = (FlowHash::new(seed, symmetric), FlowHash::new(seed + 1, symmetric));
                let mut load = [[0u32; 4]; 4];
                for port in 0..40_000 {
                    let way = |hash: FlowHash| (hash.of(&flow(port)) >> 30) as usize;
                    load[way(first)][way(second)] += 1;
                }
                let (fair, off) = (2500, 250);
                assert!(load.iter().flatten().all(|flows| flows.abs_diff(fair) < off), "{seed}: {load:?}");
            }
        }
    }

    #[test]
    fn neighbouring_addresses_spread_evenly_over_next_hops() {
        let mut load = [0u32; 4];
        for host in 0..=0xffff {
            load[FlowKey { dst: 0x0a41_0000 + host, sport: 0, ..flow(0) }.hash() as usize % 4] += 1;
        }
        assert!(load.iter().all(|n| n.abs_diff(0x4000) < 0x4000 / 20), "{load:?}");
    }

    proptest! {
        #[test]
        fn a_flow_of_ipv4_has_the_hash_of_its_numbers(
            src: u32, dst: u32, same: bool, ports: u32, protocol: u8, seed: u64, symmetric: bool,
        ) {
            let dst = if same { src } else { dst };
            let (sport, dport) = ((ports >> 16) as u16, ports as u16);
            let flow = FlowKey { src: src.into(), dst: dst.into(), sport, dport, protocol, family: Family::V4 };
            let hash = FlowHash::new(seed, symmetric);
            prop_assert_eq!(hash.of_v4(src, dst, ports, protocol), hash.of(&flow));
        }

        #[test]
        fn both_directions_share_the_symmetric_hash(flow in flows(), seed: u64) {
            let symmetric = FlowHash::new(seed, true);
            prop_assert_eq!(symmetric.of(&flow), symmetric.of(&flow.reversed()));
            prop_assert_eq!(flow.reversed().reversed(), flow);
        }
    }
}
