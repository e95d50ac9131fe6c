//! Frames to forward: UDP in 64 bytes (or more) to addresses of one's choice.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::MacAddr;
use packet::encapsulation::{Template, VXLAN_PORT};
use packet::{ethernet, ipv4, ipv6, protocol, udp};

use crate::router::{Encapsulate, LOCAL, LOCAL_V6, REMOTE, REMOTE_V6, VNI};

/// The router's address on the port that frames come in by.
pub const ROUTER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// Who sends them.
pub const SENDER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
/// Bytes of a frame without its check sequence where nothing else is asked for.
pub const SMALL: usize = 64;

/// Where IPv4 packets come from, unless told otherwise.
pub const SOURCE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// A UDP packet to `destination` in a frame of `len` bytes (or the least that holds its headers). `flow` becomes the source
/// port.
pub fn udp(destination: IpAddr, flow: u16, len: usize) -> Vec<u8> {
    let source = match destination {
        IpAddr::V4(_) => IpAddr::V4(SOURCE),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    };
    udp_from(source, destination, flow, len)
}

/// [`udp`] from an address of one's choice, of the same family.
pub fn udp_from(source: IpAddr, destination: IpAddr, flow: u16, len: usize) -> Vec<u8> {
    let l3 = ethernet::HEADER_LEN;
    let header = if destination.is_ipv4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
    let len = len.max(l3 + header + udp::HEADER_LEN);
    let mut frame = vec![0; len];
    let payload = len - l3 - header - udp::HEADER_LEN;
    let ethertype = if destination.is_ipv4() { ethernet::IPV4 } else { ethernet::IPV6 };
    let written = ethernet::Repr { dst: ROUTER, src: SENDER, ethertype }.emit(&mut frame);
    written.expect("the frame has room for its headers");
    let payload_len = (payload + udp::HEADER_LEN) as u16;
    let network = match (source, destination) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let repr = ipv4::Repr { src, dst, protocol: protocol::UDP, payload_len, ..ipv4::Repr::default() };
            repr.emit(&mut frame[l3..])
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let repr =
                ipv6::Repr { src, dst, next_header: protocol::UDP, payload_len, ..ipv6::Repr::default() };
            repr.emit(&mut frame[l3..])
        }
        _ => panic!("one family a packet"),
    };
    network.expect("the frame has room for its headers");
    let repr = udp::Repr { sport: 1024 + flow % 60_000, dport: 9, payload: &vec![0; payload] };
    repr.emit(source, destination, &mut frame[l3 + header..]).expect("the frame has room for its headers");
    frame
}

/// Is it an address that packets may be sent to?
pub fn is_routable(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => !matches!(addr.octets(), [0 | 127 | 224.., ..] | [169, 254, ..]),
        IpAddr::V6(addr) => addr.segments()[0] >> 13 == 1,
    }
}

/// A packet as it comes by a tunnel to the router.
pub fn tunnelled(inner: &[u8], encapsulate: Encapsulate) -> Vec<u8> {
    let template = match encapsulate {
        Encapsulate::Plain => return inner.to_vec(),
        Encapsulate::Ipip => Template::ipip(REMOTE, LOCAL),
        Encapsulate::Vxlan => Template::vxlan(REMOTE, LOCAL, VXLAN_PORT, VNI, ROUTER, SENDER),
        Encapsulate::VxlanV6 => Template::vxlan_v6(REMOTE_V6, LOCAL_V6, VXLAN_PORT, VNI, ROUTER, SENDER),
    };
    let overhead = usize::from(template.overhead());
    let mut frame = vec![0; overhead];
    frame.extend_from_slice(inner);
    frame[..6].copy_from_slice(&ROUTER.0);
    frame[6..12].copy_from_slice(&SENDER.0);
    let ip_len = (frame.len() - ethernet::HEADER_LEN) as u16;
    template.write(&mut frame, ip_len, 0, 50_000);
    frame
}
