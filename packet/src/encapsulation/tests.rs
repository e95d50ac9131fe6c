//! What is written parses, holds the packet, and sums up right.

use proptest::prelude::*;

use super::*;
use crate::checksum::{L4Checksum, verify_l4};
use crate::parse;

const LOCAL: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);
const REMOTE: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 3);

/// An inner Ethernet frame behind `room` bytes, as `grow_front` leaves it.
fn grown(room: usize, tos: u8) -> (Vec<u8>, usize) {
    let payload_len = 100;
    let inner = ipv4::Repr {
        src: [10, 65, 0, 2].into(),
        dst: [10, 65, 1, 2].into(),
        protocol: 253,
        tos,
        payload_len,
        ..ipv4::Repr::default()
    };
    let mut frame = vec![0; room + 14 + 20 + 100];
    frame[room + 12..room + 14].copy_from_slice(&ethernet::IPV4.to_be_bytes());
    inner.emit(&mut frame[room + 14..]).unwrap();
    let len = frame.len() - 14;
    (frame, len)
}

#[test]
fn an_ipip_packet_parses_and_holds_the_inner_one() {
    let template = Template::ipip(LOCAL, REMOTE);
    let (mut frame, ip_len) = grown(template.overhead().into(), 0b11);
    template.write(&mut frame, ip_len as u16, 0b11, 0);
    let parsed = parse(&frame).unwrap();
    assert_eq!((parsed.protocol, parsed.l4, usize::from(parsed.l3_len)), (protocol::IPIP, 34, ip_len));
    assert_eq!(parsed.ipv4_source(&frame).zip(parsed.ipv4_destination(&frame)), Some((LOCAL, REMOTE)));
    assert_eq!(frame[15], 0b11, "congestion experienced shows outside (RFC 6040)");
    assert_eq!(ipv4::Packet::new_checked(&frame[34..]).unwrap().dst(), Ipv4Addr::new(10, 65, 1, 2));
}

#[test]
fn a_vxlan_packet_parses_and_holds_the_inner_frame() {
    let (destination, source) = (MacAddr([2; 6]), MacAddr([4; 6]));
    let template = Template::vxlan(LOCAL, REMOTE, VXLAN_PORT, 4096, destination, source);
    let (mut frame, ip_len) = grown(template.overhead().into(), 0b10 | 0x20);
    template.write(&mut frame, ip_len as u16, 0b10 | 0x20, 50_000);
    let parsed = parse(&frame).unwrap();
    assert_eq!(parsed.protocol, protocol::UDP);
    let outer = udp::Packet::new_checked(parsed.l4_packet(&frame)).unwrap();
    assert_eq!((outer.sport(), outer.dport(), outer.checksum()), (50_000, VXLAN_PORT, 0));
    assert_eq!(vni(outer.payload()), Some(4096));
    assert_eq!(frame[15], 0b10, "only ECN is taken over");
    let inner = &outer.payload()[VXLAN_HEADER_LEN..];
    assert_eq!((&inner[..6], &inner[6..12]), (&destination.0[..], &source.0[..]));
    assert!(parse(inner).is_ok_and(|inner| inner.l3_len == 120));
}

#[test]
fn a_header_without_an_identifier_has_none() {
    assert_eq!(vni(&[0, 0, 0, 0, 0, 16, 0, 0]), None);
    assert_eq!(vni(&[8, 0, 0, 0, 0, 16, 0]), None);
    assert_eq!(vni(&[8, 0, 0, 0, 0, 16, 0, 0]), Some(4096));
}

#[test]
fn a_frame_that_is_too_short_is_left_alone() {
    let mut frame = [7; 20];
    Template::ipip(LOCAL, REMOTE).write(&mut frame, 20, 0, 0);
    assert_eq!(frame, [7; 20]);
}

const LOCAL_V6: Ipv6Addr = Ipv6Addr::new(0xfd18, 0, 0, 0, 0, 0, 0, 2);
const REMOTE_V6: Ipv6Addr = Ipv6Addr::new(0xfd18, 0, 0, 0, 0, 0, 0, 3);

#[test]
fn a_vxlan_packet_over_ipv6_parses_and_holds_the_inner_frame() {
    let (destination, source) = (MacAddr([2; 6]), MacAddr([4; 6]));
    let template = Template::vxlan_v6(LOCAL_V6, REMOTE_V6, VXLAN_PORT, 4096, destination, source);
    assert_eq!(template.overhead(), 70);
    let (mut frame, ip_len) = grown(template.overhead().into(), 0xb8 | 0b11);
    template.write(&mut frame, ip_len as u16, 0xb8 | 0b11, 0xc123);
    let parsed = parse(&frame).unwrap();
    assert_eq!((parsed.protocol, usize::from(parsed.l3_len)), (protocol::UDP, ip_len));
    let outer = ipv6::Packet::new_checked(&frame[14..]).unwrap();
    assert_eq!((outer.src(), outer.dst(), outer.hop_limit()), (LOCAL_V6, REMOTE_V6, 64));
    assert_eq!((outer.traffic_class(), outer.flow_label()), (0b11, 0xc123), "ECN, and the flow's label");
    let datagram = udp::Packet::new_checked(parsed.l4_packet(&frame)).unwrap();
    assert_eq!((datagram.sport(), datagram.dport()), (0xc123, VXLAN_PORT));
    assert_eq!(vni(datagram.payload()), Some(4096));
    assert_eq!(verify_l4(&frame, &parsed), L4Checksum::Correct);
    let inner = &datagram.payload()[VXLAN_HEADER_LEN..];
    assert_eq!((&inner[..6], &inner[6..12]), (&destination.0[..], &source.0[..]));
    assert!(parse(inner).is_ok_and(|inner| inner.l3_len == 120));
}

proptest! {
    /// Whatever is inside, of whatever length: a Linux end checks this sum and drops the packet where it is wrong or zero.
    #[test]
    fn the_checksum_over_ipv6_is_right_and_never_none(
        local: [u8; 16], remote: [u8; 16], macs: [[u8; 6]; 2], port: u16, id in 0u32..1 << 24, entropy: u16, tos: u8,
        inner in prop::collection::vec(any::<u8>(), 2..200),
    ) {
        let [destination, source] = macs.map(MacAddr);
        let template = Template::vxlan_v6(local.into(), remote.into(), port, id, destination, source);
        let mut frame = vec![0; ADDRESSES + usize::from(template.overhead())];
        frame.extend_from_slice(&inner);
        let ip_len = (frame.len() - ethernet::HEADER_LEN) as u16;
        template.write(&mut frame, ip_len, tos, entropy);
        let parsed = parse(&frame).unwrap();
        let datagram = udp::Packet::new_checked(parsed.l4_packet(&frame)).unwrap();
        prop_assert_ne!(datagram.checksum(), 0);
        prop_assert_eq!(verify_l4(&frame, &parsed), L4Checksum::Correct);
        prop_assert_eq!(frame.last_chunk::<2>(), inner.last_chunk::<2>());
    }
}
