//! What a router that translates needs besides: its rules, and frames that they are about.

use std::net::{IpAddr, Ipv4Addr};

use model::IpNat;
use packet::{FlowKey, checksum, icmp, ipv4, protocol, tcp};
use tables::{Nat, NatRules};

use super::{Build, Rig, Sizes, WORKLOAD, mac, neighbor_mac, prefix};

/// The node's own address, and the one that other nodes have.
pub const OUTER: &str = "172.18.0.1";
pub const SERVER: &str = "10.69.0.1";
pub const POD: &str = "10.65.0.2";
pub const FLOATING: &str = "198.51.100.7";
pub const PORT_RANGE: std::ops::RangeInclusive<u16> = 50_000..=50_999;

/// An uplink whose MTU is 576 leads to the server.
pub const OUT: model::PortId = super::NARROW;

/// A pool that is hidden, and a floating IP.
pub fn rules() -> NatRules {
    NatRules {
        outgoing: vec![(OUTER.parse().unwrap(), PORT_RANGE, true)],
        sources: vec![prefix("10.65.0.0/16")],
        exempt: vec![prefix("10.65.0.0/16"), prefix("fd65::/16")],
        floating: vec![IpNat { internal: POD.parse().unwrap(), external: FLOATING.parse().unwrap() }],
        ..NatRules::default()
    }
}

/// A rig with rules.
pub fn translating(rules: &NatRules, sizes: Sizes) -> Rig {
    let mut rig = Rig::sized(sizes);
    rig.writer.set_nat(Nat::new(rules));
    rig.writer.publish();
    rig
}

/// The key of a frame whose checksums are right.
pub fn key(frame: &[u8]) -> FlowKey {
    let parsed = packet::parse(frame).expect("what leaves is well-formed");
    let right = checksum::verify_l4(frame, &parsed);
    assert_ne!(right, checksum::L4Checksum::Wrong, "checksum");
    FlowKey::new(frame, &parsed).unwrap()
}

/// UDP from the pod to the server.
pub fn outward(sport: u16) -> Build {
    Build::packet(WORKLOAD, POD, SERVER).sport(sport)
}

/// An ICMPv4 message in a frame to us.
pub fn icmp_frame(by: model::PortId, src: &str, dst: &str, message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 34 + message.len()];
    let ethertype = packet::ethernet::IPV4;
    packet::ethernet::Repr { dst: mac(by), src: neighbor_mac(by), ethertype }.emit(&mut frame).unwrap();
    let ip = ipv4::Repr {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        protocol: protocol::ICMP,
        ttl: 64,
        payload_len: message.len() as u16,
        ..Default::default()
    };
    ip.emit(&mut frame[14..]).unwrap();
    frame[34..].copy_from_slice(message);
    frame
}

/// TTL exceeded, from a router on the way to the sender of `about`.
pub fn error_frame(by: model::PortId, router: &str, about: &[u8]) -> Vec<u8> {
    let quote = &about[14..];
    let mut message = vec![icmp::v4::TIME_EXCEEDED, 0, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(quote);
    let sum = checksum::of(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let sender = key(about).source().to_string();
    icmp_frame(by, router, &sender, &message)
}

/// Cuts a datagram in two: the second part shows no ports.
pub fn fragments(whole: &[u8], id: u16) -> [Vec<u8>; 2] {
    let (header, payload) = (&whole[..34], &whole[34..]);
    let cut = 24;
    [(0x2000, &payload[..cut]), (cut as u16 / 8, &payload[cut..])].map(|(field, part)| {
        let mut frame = [header, part].concat();
        frame[16..18].copy_from_slice(&(20 + part.len() as u16).to_be_bytes());
        frame[18..20].copy_from_slice(&id.to_be_bytes());
        frame[20..22].copy_from_slice(&u16::to_be_bytes(field));
        frame[24..26].fill(0);
        let sum = checksum::of(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    })
}

/// TCP from the pod to the server, without payload.
pub fn tcp_frame(flags: u8, sport: u16) -> Vec<u8> {
    let (src, dst): (IpAddr, IpAddr) = (POD.parse().unwrap(), SERVER.parse().unwrap());
    let mut frame = vec![0; 54];
    let ethertype = packet::ethernet::IPV4;
    let link = packet::ethernet::Repr { dst: mac(WORKLOAD), src: neighbor_mac(WORKLOAD), ethertype };
    link.emit(&mut frame).unwrap();
    let ip = ipv4::Repr {
        src: Ipv4Addr::new(10, 65, 0, 2),
        dst: Ipv4Addr::new(10, 69, 0, 1),
        protocol: protocol::TCP,
        ttl: 64,
        payload_len: 20,
        ..Default::default()
    };
    ip.emit(&mut frame[14..]).unwrap();
    let segment = tcp::Repr { sport, dport: 80, seq: 1, ack: 1, flags, window: 100, payload: &[] };
    segment.emit(src, dst, &mut frame[34..]).unwrap();
    frame
}
