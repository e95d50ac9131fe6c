//! ARP on workload ports. Read RFC 826 first; it is short.
//!
//! We are the workload's every neighbour: as Calico does by the kernel's `proxy_arp`, a request for any address but
//! the workload's own is answered with the port's MAC, and first of all one for the gateway 169.254.1.1.

use std::net::Ipv4Addr;

use model::MacAddr;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
};

/// What an ARP packet from a workload tells, and wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArpOutcome {
    /// The frame to send back through the port it came by.
    pub reply: Option<Vec<u8>>,
    /// The workload's address and MAC, in its own words.
    pub learned: (Ipv4Addr, MacAddr),
}

/// Reads an ARP frame from a workload port whose MAC is `port_mac` and whose workload owns the addresses that `owns`
/// says.
///
/// `None` for what is malformed, not for us, or a lie: the sender's address must be the workload's and its MAC that of
/// the frame. That leaves out probes (RFC 5227 §2.1.1: sender 0.0.0.0), which must not be answered or the workload
/// would take its own address for a duplicate. An announcement is learned from and not answered.
pub fn answer(frame: &[u8], port_mac: MacAddr, owns: impl Fn(Ipv4Addr) -> bool) -> Option<ArpOutcome> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    let to = MacAddr(ethernet.dst_addr().0);
    if ethernet.ethertype() != EthernetProtocol::Arp || !(to == port_mac || to == MacAddr::BROADCAST) {
        return None;
    }
    let packet = ArpPacket::new_checked(ethernet.payload()).ok()?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&packet).ok()?
    else {
        return None;
    };
    let sender = MacAddr(source_hardware_addr.0);
    let is_honest =
        source_hardware_addr == ethernet.src_addr() && !sender.is_multicast() && !sender.is_zero();
    if !is_honest || sender == port_mac || !owns(source_protocol_addr) {
        return None;
    }
    let wants_reply =
        operation == ArpOperation::Request && !owns(target_protocol_addr) && is_host(target_protocol_addr);
    let reply = wants_reply.then(|| {
        emit(ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: EthernetAddress(port_mac.0),
            source_protocol_addr: target_protocol_addr,
            target_hardware_addr: source_hardware_addr,
            target_protocol_addr: source_protocol_addr,
        })
    });
    Some(ArpOutcome { reply, learned: (source_protocol_addr, sender) })
}

/// A request that asks a workload for the MAC of its `target`. `source` is an address of ours, the gateway's or the
/// node's: the workload may remember it for `port_mac`.
pub fn request(port_mac: MacAddr, source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    emit(ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(port_mac.0),
        source_protocol_addr: source,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    })
}

/// Could this address be one host's?
fn is_host(addr: Ipv4Addr) -> bool {
    let [first, ..] = addr.octets();
    !matches!(first, 0 | 127 | 224..=255)
}

fn emit(arp: ArpRepr) -> Vec<u8> {
    let ArpRepr::EthernetIpv4 { operation, source_hardware_addr, target_hardware_addr, .. } = arp else {
        return Vec::new();
    };
    let dst_addr = match operation {
        ArpOperation::Request => EthernetAddress::BROADCAST,
        _ => target_hardware_addr,
    };
    let ethernet =
        EthernetRepr { src_addr: source_hardware_addr, dst_addr, ethertype: EthernetProtocol::Arp };
    let mut bytes = vec![0; ethernet.buffer_len() + arp.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    ethernet.emit(&mut frame);
    arp.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PORT: MacAddr = MacAddr([0xee; 6]);
    const WORKLOAD: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);
    const OWN: Ipv4Addr = Ipv4Addr::new(10, 65, 0, 2);
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

    fn owns(addr: Ipv4Addr) -> bool {
        addr == OWN
    }

    fn parse(frame: &[u8]) -> (EthernetAddress, ArpRepr) {
        let ethernet = EthernetFrame::new_checked(frame).unwrap();
        let arp = ArpRepr::parse(&ArpPacket::new_checked(ethernet.payload()).unwrap()).unwrap();
        (ethernet.dst_addr(), arp)
    }

    #[test]
    fn the_gateway_is_answered_with_the_ports_mac() {
        let outcome = answer(&request(WORKLOAD, OWN, GATEWAY), PORT, owns).unwrap();
        assert_eq!(outcome.learned, (OWN, WORKLOAD));
        let (to, reply) = parse(&outcome.reply.unwrap());
        assert_eq!(to.0, WORKLOAD.0);
        let expected = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: EthernetAddress(PORT.0),
            source_protocol_addr: GATEWAY,
            target_hardware_addr: EthernetAddress(WORKLOAD.0),
            target_protocol_addr: OWN,
        };
        assert_eq!(reply, expected);
    }

    #[test]
    fn any_other_address_is_answered_by_proxy() {
        for target in ["10.65.0.3", "8.8.8.8", "172.16.6.47"] {
            let outcome = answer(&request(WORKLOAD, OWN, target.parse().unwrap()), PORT, owns).unwrap();
            assert!(outcome.reply.is_some(), "{target}");
        }
    }

    #[test]
    fn an_announcement_is_learned_and_not_answered() {
        let outcome = answer(&request(WORKLOAD, OWN, OWN), PORT, owns).unwrap();
        assert_eq!((outcome.reply, outcome.learned), (None, (OWN, WORKLOAD)));
    }

    #[test]
    fn a_probe_is_neither_answered_nor_learned() {
        assert_eq!(answer(&request(WORKLOAD, Ipv4Addr::UNSPECIFIED, OWN), PORT, owns), None);
        assert_eq!(answer(&request(WORKLOAD, Ipv4Addr::UNSPECIFIED, GATEWAY), PORT, owns), None);
    }

    #[test]
    fn a_sender_that_is_not_the_workload_is_ignored() {
        assert_eq!(answer(&request(WORKLOAD, Ipv4Addr::new(10, 65, 0, 9), GATEWAY), PORT, owns), None);
        let mut forged = request(WORKLOAD, OWN, GATEWAY);
        forged[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 8]);
        assert_eq!(answer(&forged, PORT, owns), None, "the frame's source and the sender's MAC differ");
    }

    #[test]
    fn no_group_and_no_loopback_is_answered() {
        for target in ["224.0.0.1", "255.255.255.255", "0.0.0.0", "127.0.0.1"] {
            let outcome = answer(&request(WORKLOAD, OWN, target.parse().unwrap()), PORT, owns).unwrap();
            assert_eq!(outcome.reply, None, "{target}");
        }
    }

    #[test]
    fn a_reply_to_our_request_is_learned() {
        let ours = request(PORT, GATEWAY, OWN);
        let theirs = answer(&ours, WORKLOAD, |addr| addr == GATEWAY).unwrap().reply.unwrap();
        let outcome = answer(&theirs, PORT, owns).unwrap();
        assert_eq!((outcome.reply, outcome.learned), (None, (OWN, WORKLOAD)));
    }

    #[test]
    fn a_frame_for_another_mac_is_ignored() {
        let mut frame = request(WORKLOAD, OWN, GATEWAY);
        frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
        assert_eq!(answer(&frame, PORT, owns), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(frame in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = answer(&frame, PORT, |_| true);
        }

        #[test]
        fn one_wrong_byte_never_teaches_an_address_that_is_not_the_workloads(at in 0usize..42, byte: u8) {
            let mut frame = request(WORKLOAD, OWN, GATEWAY);
            frame[at] = byte;
            if let Some(outcome) = answer(&frame, PORT, owns) {
                prop_assert_eq!(outcome.learned.0, OWN);
            }
        }
    }
}
