//! The flow inside a tunnel that only passes through.
//!
//! All packets between two tunnel ends share their outer addresses, so a router that spreads flows over equal paths by
//! those alone sends them all one way. IP in IP has nothing else outside; VXLAN has the source port, but not every sender
//! varies it. So the flow inside is taken, read at fixed places and no deeper than one tunnel.

use model::Family;

use crate::encapsulation::{VXLAN_HEADER_LEN, VXLAN_PORT, VXLAN_PORT_OF_LINUX, vni};
use crate::{FlowKey, Parsed, ethernet, ipv4, ipv6, octets, protocol, u16_at, udp};

impl FlowKey {
    /// Could there be a flow inside a TCP or UDP packet of this flow? Only [`FlowKey::inside`] knows.
    #[inline(always)]
    pub fn may_hold_a_tunnel(&self) -> bool {
        matches!(self.dport, VXLAN_PORT | VXLAN_PORT_OF_LINUX) && self.protocol == protocol::UDP
    }

    /// The flow inside a packet of IPIP, of IPv6 in IP, or of VXLAN to one of its usual ports; `None` for any other packet,
    /// for fragments, of which only one would show it, and where there is no IP inside.
    ///
    /// Nothing inside is checked but what reading it takes. A fragment inside has no ports, and neither has what isn't TCP
    /// or UDP.
    pub fn inside(frame: &[u8], parsed: &Parsed) -> Option<FlowKey> {
        if parsed.is_fragment() || parsed.l4 == 0 {
            return None;
        }
        let outer = frame.get(parsed.l4.into()..parsed.l3_end())?;
        match parsed.protocol {
            protocol::IPIP | protocol::IPV6 => within(outer),
            protocol::UDP if matches!(u16_at(outer, 2), VXLAN_PORT | VXLAN_PORT_OF_LINUX) => {
                let vxlan = outer.get(udp::HEADER_LEN..)?;
                vni(vxlan)?;
                let link = vxlan.get(VXLAN_HEADER_LEN..)?;
                let is_ip = matches!(u16_at(link, 12), ethernet::IPV4 | ethernet::IPV6);
                within(link.get(ethernet::HEADER_LEN..)?).filter(|_| is_ip)
            }
            _ => None,
        }
    }
}

/// The flow of an IP packet.
fn within(packet: &[u8]) -> Option<FlowKey> {
    match packet.first()? >> 4 {
        4 => within_v4(packet.first_chunk()?, packet),
        6 => within_v6(packet.first_chunk()?, packet),
        _ => None,
    }
}

fn within_v4(header: &[u8; ipv4::HEADER_LEN], packet: &[u8]) -> Option<FlowKey> {
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let is_whole = u16_at(header, 6) & !ipv4::DONT_FRAGMENT == 0;
    let protocol = header[9];
    let behind = packet.get(header_len..).filter(|_| is_whole && header_len >= ipv4::HEADER_LEN);
    let (sport, dport) = ports(protocol, behind);
    let address = |at| u128::from(u32::from_be_bytes(octets(header, at)));
    Some(FlowKey { src: address(12), dst: address(16), sport, dport, protocol, family: Family::V4 })
}

/// Behind extension headers, a fragment header among them, no ports are looked for.
fn within_v6(header: &[u8; ipv6::HEADER_LEN], packet: &[u8]) -> Option<FlowKey> {
    let protocol = header[6];
    let (sport, dport) = ports(protocol, packet.get(ipv6::HEADER_LEN..));
    let address = |at| u128::from_be_bytes(octets(header, at));
    Some(FlowKey { src: address(8), dst: address(24), sport, dport, protocol, family: Family::V6 })
}

fn ports(protocol: u8, behind: Option<&[u8]>) -> (u16, u16) {
    match (protocol, behind) {
        (protocol::TCP | protocol::UDP, Some(behind)) => (u16_at(behind, 0), u16_at(behind, 2)),
        _ => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use model::MacAddr;
    use proptest::prelude::*;

    use super::*;
    use crate::encapsulation::Template;
    use crate::parse;

    /// What isn't part of a flow's name.
    #[derive(Clone, Copy, Debug)]
    struct Rest {
        ttl: u8,
        tos: u8,
        ident: u16,
        payload_len: u16,
        fragment: Option<u16>,
    }

    prop_compose! {
        fn rests()(ttl: u8, tos: u8, ident: u16, payload_len in 8u16..80) -> Rest {
            Rest { ttl, tos, ident, payload_len, fragment: None }
        }
    }

    prop_compose! {
        fn flows()(
            v6: bool, src: u128, dst: u128, sport: u16, dport: u16, protocol in prop::sample::select(&[6u8, 17, 1, 47][..]),
        ) -> FlowKey {
            let (family, mask) = if v6 { (Family::V6, u128::MAX) } else { (Family::V4, u128::from(u32::MAX)) };
            let (sport, dport) = if matches!(protocol, 6 | 17) { (sport, dport) } else { (0, 0) };
            FlowKey { src: src & mask, dst: dst & mask, sport, dport, protocol, family }
        }
    }

    /// A frame of this flow, with bytes that tell nothing behind its ports.
    fn frame(flow: &FlowKey, rest: Rest) -> Vec<u8> {
        let FlowKey { protocol, .. } = *flow;
        let Rest { ttl, tos, ident, payload_len, fragment } = rest;
        let mut frame = vec![ident as u8; 14 + 40 + usize::from(payload_len)];
        let (ethertype, header) = match flow.family {
            Family::V4 => (ethernet::IPV4, ipv4::HEADER_LEN),
            Family::V6 => (ethernet::IPV6, ipv6::HEADER_LEN),
        };
        frame.truncate(14 + header + usize::from(payload_len));
        frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
        if flow.family == Family::V4 {
            let (src, dst) = ((flow.src as u32).into(), (flow.dst as u32).into());
            let fragment_offset = fragment.unwrap_or(0);
            let more_fragments = fragment == Some(0);
            let repr = ipv4::Repr {
                src,
                dst,
                protocol,
                ttl,
                tos,
                ident,
                payload_len,
                more_fragments,
                fragment_offset,
                ..ipv4::Repr::default()
            };
            repr.emit(&mut frame[14..]).unwrap();
        } else {
            let (src, dst) = (flow.src.into(), flow.dst.into());
            let repr = ipv6::Repr {
                src,
                dst,
                next_header: protocol,
                hop_limit: ttl,
                traffic_class: tos,
                flow_label: ident.into(),
                payload_len,
            };
            repr.emit(&mut frame[14..]).unwrap();
        }
        if matches!(protocol, protocol::TCP | protocol::UDP) {
            frame[14 + header..][..2].copy_from_slice(&flow.sport.to_be_bytes());
            frame[14 + header..][2..4].copy_from_slice(&flow.dport.to_be_bytes());
        }
        frame
    }

    /// The frame in each tunnel that can carry it.
    fn tunnelled(inner: &[u8]) -> Vec<Vec<u8>> {
        let (a, b) = (MacAddr([2; 6]), MacAddr([4; 6]));
        let mut templates = vec![
            Template::vxlan([172, 18, 0, 2].into(), [172, 18, 0, 3].into(), VXLAN_PORT, 7, a, b),
            Template::vxlan([172, 18, 0, 2].into(), [172, 18, 0, 3].into(), VXLAN_PORT_OF_LINUX, 1, a, b),
            Template::vxlan_v6([2; 16].into(), [3; 16].into(), VXLAN_PORT, 7, a, b),
        ];
        if inner[14] >> 4 == 4 {
            templates.push(Template::ipip([172, 18, 0, 2].into(), [172, 18, 0, 3].into()));
        }
        let carry = |template: Template| {
            let mut frame = vec![0; template.overhead().into()];
            frame.extend_from_slice(inner);
            let ip_len = frame.len() as u16 - 14;
            template.write(&mut frame, ip_len, 0, 50_000);
            frame
        };
        templates.into_iter().map(carry).collect()
    }

    fn inside(frame: &[u8]) -> Option<FlowKey> {
        FlowKey::inside(frame, &parse(frame).unwrap())
    }

    const REST: Rest = Rest { ttl: 64, tos: 0, ident: 0, payload_len: 20, fragment: None };

    proptest! {
        #[test]
        fn every_packet_of_a_flow_shows_it_whatever_else_is_in_it(flow in flows(), rest in rests()) {
            for frame in tunnelled(&frame(&flow, rest)) {
                prop_assert_eq!(inside(&frame), Some(flow));
            }
        }

        #[test]
        fn the_fragments_inside_share_a_hash(flow in flows(), rest in rests(), offset in 1u16..100) {
            let flow = FlowKey { family: Family::V4, src: flow.src & 0xffff_ffff, dst: flow.dst & 0xffff_ffff, ..flow };
            let [first, later] = [0, offset].map(|offset| frame(&flow, Rest { fragment: Some(offset), ..rest }));
            for (first, later) in tunnelled(&first).into_iter().zip(tunnelled(&later)) {
                prop_assert_eq!(inside(&first), inside(&later));
                prop_assert!(inside(&first).is_some());
            }
        }

        #[test]
        fn any_bytes_are_survived(mut inner in prop::collection::vec(any::<u8>(), 15..90), version: bool) {
            // Half of the packets inside begin as IP does.
            inner[14] = if version { inner[14] & 0x2f | 0x40 } else { inner[14] };
            for frame in tunnelled(&inner) {
                if let Ok(parsed) = parse(&frame) {
                    FlowKey::inside(&frame, &parsed);
                }
            }
        }
    }

    #[test]
    fn the_flows_between_two_ends_spread_evenly() {
        for kind in 0..4 {
            let mut load = [0u32; 4];
            for sport in 0..4_000 {
                let flow = FlowKey { src: 1, dst: 2, sport, dport: 443, protocol: 6, family: Family::V4 };
                let frame = &tunnelled(&frame(&flow, REST))[kind];
                load[inside(frame).unwrap().hash() as usize % 4] += 1;
            }
            assert!(load.iter().all(|flows| flows.abs_diff(1_000) < 120), "{kind}: {load:?}");
        }
    }

    #[test]
    fn other_packets_hold_none() {
        let flow = FlowKey { src: 1, dst: 2, sport: 3, dport: 4, protocol: 17, family: Family::V4 };
        let plain = frame(&flow, REST);
        let mut fragment = tunnelled(&plain).pop().unwrap();
        fragment[20] = 0x20;
        fragment[24..26].fill(0);
        let checksum = crate::checksum::of(&fragment[14..34]);
        fragment[24..26].copy_from_slice(&checksum.to_be_bytes());
        let mut arp = tunnelled(&plain)[0].clone();
        arp[62..64].copy_from_slice(&ethernet::ARP.to_be_bytes());
        let mut no_network = tunnelled(&plain)[0].clone();
        no_network[42] = 0;
        assert_eq!([plain, fragment, arp, no_network].map(|frame| inside(&frame)), [None; 4]);
    }

    #[test]
    fn packets_that_may_hold_a_tunnel_are_those_to_its_ports() {
        let to = |dport, protocol| FlowKey { src: 1, dst: 2, sport: 3, dport, protocol, family: Family::V4 };
        let may: BTreeSet<u16> = (0..=u16::MAX).filter(|port| to(*port, 17).may_hold_a_tunnel()).collect();
        assert_eq!(may, BTreeSet::from([4789, 8472]));
        assert!(!to(4789, 6).may_hold_a_tunnel());
    }
}
