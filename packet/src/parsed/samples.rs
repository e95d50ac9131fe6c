//! Frames that tests start from.

use model::MacAddr;

use crate::{checksum, ethernet, icmp, ipv4, ipv6, parse, protocol, udp};

const SRC_V4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 65, 0, 7);
const DST_V4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 65, 1, 9);
const SRC_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7);
const DST_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 9);

/// An Ethernet header before `l3_len` bytes of zeros.
fn frame(ethertype: u16, l3_len: usize) -> Vec<u8> {
    let mut frame = vec![0; ethernet::HEADER_LEN + l3_len];
    let (dst, src) = (MacAddr([2, 0, 0, 0, 0, 2]), MacAddr([2, 0, 0, 0, 0, 1]));
    ethernet::Repr { dst, src, ethertype }.emit(&mut frame).unwrap();
    frame
}

fn frame_v4(protocol: u8, payload_len: usize) -> Vec<u8> {
    let mut frame = frame(ethernet::IPV4, ipv4::HEADER_LEN + payload_len);
    let payload_len = payload_len as u16;
    let header = ipv4::Repr { src: SRC_V4, dst: DST_V4, protocol, payload_len, ..Default::default() };
    header.emit(&mut frame[14..]).unwrap();
    frame
}

fn frame_v6(next_header: u8, payload_len: usize) -> Vec<u8> {
    let mut frame = frame(ethernet::IPV6, ipv6::HEADER_LEN + payload_len);
    let payload_len = payload_len as u16;
    let header = ipv6::Repr { src: SRC_V6, dst: DST_V6, next_header, payload_len, ..Default::default() };
    header.emit(&mut frame[14..]).unwrap();
    frame
}

/// UDP over IPv4 with this much payload.
pub(crate) fn udp_v4(len: usize) -> Vec<u8> {
    let mut frame = frame_v4(protocol::UDP, udp::HEADER_LEN + len);
    let datagram = udp::Repr { sport: 1234, dport: 53, payload: &vec![0x5a; len] };
    datagram.emit(SRC_V4.into(), DST_V4.into(), &mut frame[34..]).unwrap();
    frame
}

/// UDP over IPv6 with this much payload.
pub(crate) fn udp_v6(len: usize) -> Vec<u8> {
    let mut frame = frame_v6(protocol::UDP, udp::HEADER_LEN + len);
    let datagram = udp::Repr { sport: 1234, dport: 53, payload: &vec![0x5a; len] };
    datagram.emit(SRC_V6.into(), DST_V6.into(), &mut frame[54..]).unwrap();
    frame
}

/// An ICMPv4 echo request with identifier 77.
pub(crate) fn echo_v4() -> Vec<u8> {
    let mut frame = frame_v4(protocol::ICMP, icmp::HEADER_LEN);
    icmp::Echo { reply: false, ident: 77, seq: 1, payload: &[] }.emit_v4(&mut frame[34..]).unwrap();
    frame
}

/// An ICMPv6 echo request with identifier 77.
pub(crate) fn echo_v6() -> Vec<u8> {
    let mut frame = frame_v6(protocol::ICMPV6, icmp::HEADER_LEN);
    let echo = icmp::Echo { reply: false, ident: 77, seq: 1, payload: &[] };
    echo.emit_v6(SRC_V6, DST_V6, &mut frame[54..]).unwrap();
    frame
}

/// IPv6 whose payload is `payload`.
pub(crate) fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = frame_v6(next_header, payload.len());
    frame[54..].copy_from_slice(payload);
    frame
}

/// An ARP request.
pub(crate) fn arp() -> Vec<u8> {
    let mut frame = frame(ethernet::ARP, crate::arp::LEN);
    crate::arp::Repr::request(MacAddr([2, 0, 0, 0, 0, 1]), SRC_V4, DST_V4).emit(&mut frame[14..]).unwrap();
    frame
}

/// Puts VLAN tags between the Ethernet header and the rest: (ethertype, VLAN), outermost first.
pub(crate) fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let mut bytes = frame[..12].to_vec();
    for (ethertype, vid) in tags {
        bytes.extend(ethertype.to_be_bytes());
        bytes.extend(vid.to_be_bytes());
    }
    bytes.extend(&frame[12..]);
    bytes
}

/// Writes the header checksum of an untagged IPv4 frame anew, after a test changed the header.
pub(crate) fn mend_ipv4_checksum(frame: &mut [u8]) {
    if frame[12..14] == ethernet::IPV4.to_be_bytes() {
        let end = 14 + usize::from(frame[14] & 15) * 4;
        frame[24..26].fill(0);
        let checksum = checksum::of(&frame[14..end]);
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// One of each.
pub(crate) fn all() -> Vec<Vec<u8>> {
    let fragment = [protocol::UDP, 0, 0, 1, 0, 0, 0, 7, 4, 210, 0, 53, 0, 8, 0, 0];
    let frames = vec![
        udp_v4(0),
        udp_v4(20),
        udp_v6(5),
        echo_v4(),
        echo_v6(),
        arp(),
        tagged(&udp_v4(3), &[(ethernet::VLAN, 7)]),
        tagged(&udp_v6(3), &[(ethernet::QINQ, 7), (ethernet::VLAN, 8)]),
        ipv6(protocol::FRAGMENT, &fragment),
    ];
    assert!(frames.iter().all(|frame| parse(frame).is_ok()));
    frames
}
