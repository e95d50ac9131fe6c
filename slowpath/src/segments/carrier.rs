//! Outer headers of what the slow path itself says inside a segment, and of what comes up from there.

use std::net::IpAddr;

use model::MacAddr;
use packet::encapsulation::{Template, VXLAN_HEADER_LEN, vni};
use packet::{checksum, ethernet, ipv4, udp};

use super::Segment;

/// VXLAN's source port for these packets, which are no flow's: the first of those that flows have (RFC 7348 §5).
const SOURCE_PORT: u16 = 49_152;
/// Time to live towards a group, as with Linux's `vxlan` device: it stays on the link.
const GROUP_TTL: u8 = 1;

/// A VXLAN packet, looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Carried<'a> {
    /// The end that sent it.
    pub(crate) from: IpAddr,
    /// The address that it came to: an end's, or a group.
    pub(crate) to: IpAddr,
    /// The UDP port that it came to.
    pub(crate) port: u16,
    /// The network identifier.
    pub(crate) vni: u32,
    /// The Ethernet frame inside.
    pub(crate) inner: &'a [u8],
}

impl<'a> Carried<'a> {
    /// `None` where it is no whole VXLAN packet.
    pub(crate) fn open(frame: &'a [u8]) -> Option<Carried<'a>> {
        let parsed = packet::parse(frame).ok()?;
        let v4 = || Some((parsed.ipv4_source(frame)?.into(), parsed.ipv4_destination(frame)?.into()));
        let v6 = || Some((parsed.ipv6_source(frame)?.into(), parsed.ipv6_destination(frame)?.into()));
        let (from, to): (IpAddr, IpAddr) = v4().or_else(v6)?;
        let datagram = parsed.l4_packet(frame);
        let word = |at: usize| Some(u16::from_be_bytes(datagram.get(at..at + 2)?.try_into().ok()?));
        let (port, len) = (word(2)?, word(4)?);
        let header = datagram.get(udp::HEADER_LEN..usize::from(len))?;
        Some(Carried { from, to, port, vni: vni(header)?, inner: header.get(VXLAN_HEADER_LEN..)? })
    }
}

/// An Ethernet frame of ours inside the segment's VXLAN, to an end or a group. The outer MAC addresses are blank; `None`
/// where `to` is of another family than the segment's ends.
pub(crate) fn wrap(segment: &Segment, to: IpAddr, inner: &[u8]) -> Option<Vec<u8>> {
    let [destination, source] = [0, 6].map(|at| inner.get(at..at + 6)?.try_into().ok().map(MacAddr));
    let (destination, source) = (destination?, source?);
    let Segment { local, port, vni, .. } = *segment;
    let template = match (local, to) {
        (IpAddr::V4(local), IpAddr::V4(to)) => Template::vxlan(local, to, port, vni, destination, source),
        (IpAddr::V6(local), IpAddr::V6(to)) => Template::vxlan_v6(local, to, port, vni, destination, source),
        _ => return None,
    };
    let mut frame = vec![0; template.overhead().into()];
    frame.extend_from_slice(inner);
    let ip_len = u16::try_from(frame.len() - ethernet::HEADER_LEN).ok()?;
    template.write(&mut frame, ip_len, 0, SOURCE_PORT);
    if to.is_multicast() {
        limit_to_link(&mut frame, to);
    }
    Some(frame)
}

fn limit_to_link(frame: &mut [u8], group: IpAddr) {
    let Some(header) = frame.get_mut(ethernet::HEADER_LEN..) else { return };
    if group.is_ipv6() {
        // Neither has the header a checksum, nor is this part of UDP's.
        header[7] = GROUP_TTL;
    } else if let Some(header) = header.get_mut(..ipv4::HEADER_LEN) {
        header[8] = GROUP_TTL;
        header[10..12].fill(0);
        let sum = checksum::of(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// The MAC address that a multicast group has on a link: RFC 1112 §6.4, RFC 2464 §7.
pub(crate) fn group_mac(group: IpAddr) -> MacAddr {
    match group {
        IpAddr::V4(group) => {
            let [_, b, c, d] = group.octets();
            MacAddr([0x01, 0x00, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = group.octets();
            MacAddr([0x33, 0x33, a, b, c, d])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::neighbors::{arp, nd};
    use crate::segments::testing::segment;
    use packet::checksum::L4Checksum;
    use proptest::prelude::*;

    const OWN: MacAddr = MacAddr([0x5a, 0, 0, 0, 0, 7]);

    fn questions() -> [Vec<u8>; 2] {
        [
            arp::request(OWN, [192, 168, 10, 1].into(), [192, 168, 11, 1].into()),
            nd::solicitation(OWN, "fd10::1".parse().unwrap(), "fd11::1".parse().unwrap()),
        ]
    }

    #[test]
    fn what_is_wrapped_comes_out_again_with_right_checksums() {
        for (local, to, is_group) in [
            ("10.57.4.20", "10.57.4.21", false),
            ("10.57.4.20", "239.1.1.1", true),
            ("fd57::20", "fd57::21", false),
            ("fd57::20", "ff05::100", true),
        ] {
            let segment = Segment { local: local.parse().unwrap(), ..segment() };
            for inner in questions() {
                let to: IpAddr = to.parse().unwrap();
                let frame = wrap(&segment, to, &inner).unwrap();
                let parsed = packet::parse(&frame).expect("the header's checksum is right");
                assert_ne!(checksum::verify_l4(&frame, &parsed), L4Checksum::Wrong);
                assert_eq!(parsed.ttl == GROUP_TTL, is_group, "{to}");
                let carried = Carried::open(&frame).unwrap();
                let expected =
                    Carried { from: segment.local, to, port: 4789, vni: segment.vni, inner: &inner };
                assert_eq!(carried, expected);
            }
        }
        assert_eq!(wrap(&segment(), "fd57::21".parse().unwrap(), &questions()[0]), None);
        assert_eq!(wrap(&segment(), "10.57.4.21".parse().unwrap(), &[0; 11]), None);
    }

    #[test]
    fn groups_have_the_mac_addresses_of_the_rfcs() {
        let mac = |group: &str| group_mac(group.parse().unwrap()).to_string();
        assert_eq!(mac("239.1.1.1"), "01:00:5e:01:01:01");
        assert_eq!(mac("239.129.1.1"), "01:00:5e:01:01:01", "32 groups share one");
        assert_eq!(mac("ff05::1:3"), "33:33:00:01:00:03");
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_into_without_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..120),
            at in 0usize..110, byte: u8, len in 0usize..130,
        ) {
            let _ = Carried::open(&bytes);
            let mut frame = wrap(&segment(), [10, 57, 4, 21].into(), &questions()[0]).unwrap();
            if let Some(changed) = frame.get_mut(at) {
                *changed = byte;
            }
            frame.truncate(len);
            let _ = Carried::open(&frame);
            let _ = wrap(&segment(), [10, 57, 4, 21].into(), &bytes);
        }
    }
}
