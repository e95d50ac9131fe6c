//! IPv6 neighbour discovery on workload ports. Read RFC 4861 §7 first.
//!
//! As for ARP, we are the workload's every neighbour: its link-local gateway, which is our own address, and by proxy
//! every address beyond its link. Router solicitations stay unanswered: Calico's workloads have their routes from the
//! CNI plugin.

use std::net::Ipv6Addr;

use model::MacAddr;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, Icmpv6Message, Icmpv6Packet, Icmpv6Repr,
    IpProtocol, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags, NdiscRepr, RawHardwareAddress,
};

/// RFC 4861 §7.1: with any other hop limit the packet came from beyond the link.
const HOP_LIMIT: u8 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What a neighbour discovery packet from a workload tells, and wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NdOutcome {
    /// The frame to send back through the port it came by.
    pub reply: Option<Vec<u8>>,
    /// An address and MAC of the workload's, in its own words.
    pub learned: Option<(Ipv6Addr, MacAddr)>,
}

/// A valid neighbour discovery message and who sent it.
struct Message<'a> {
    from_mac: MacAddr,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    repr: NdiscRepr<'a>,
}

/// Reads a neighbour discovery frame from a workload port whose MAC is `port_mac`, whose link-local address is
/// `gateway`, and whose workload owns the addresses that `owns` says and any link-local one but the gateway.
///
/// `None` for what is malformed (RFC 4861 §7.1), for other ICMPv6, and for a sender that is not the workload.
pub fn answer(
    frame: &[u8],
    port_mac: MacAddr,
    gateway: Ipv6Addr,
    owns: impl Fn(Ipv6Addr) -> bool,
) -> Option<NdOutcome> {
    let message = parse(frame)?;
    let is_workloads = |addr: Ipv6Addr| addr != gateway && (owns(addr) || addr.is_unicast_link_local());
    match message.repr {
        NdiscRepr::NeighborSolicit { target_addr, lladdr } => {
            let port = Port { mac: port_mac, gateway };
            solicited(&message, target_addr, mac_of(lladdr), &port, is_workloads)
        }
        NdiscRepr::NeighborAdvert { target_addr, lladdr, .. } if is_workloads(target_addr) => {
            // Without the option a solicited unicast advertisement confirms what is known and teaches nothing new.
            let mac = mac_of(lladdr).filter(|mac| *mac == message.from_mac)?;
            Some(NdOutcome { reply: None, learned: Some((target_addr, mac)) })
        }
        _ => None,
    }
}

struct Port {
    mac: MacAddr,
    gateway: Ipv6Addr,
}

fn solicited(
    message: &Message<'_>,
    target: Ipv6Addr,
    said_mac: Option<MacAddr>,
    port: &Port,
    is_workloads: impl Fn(Ipv6Addr) -> bool,
) -> Option<NdOutcome> {
    let is_probe = message.source.is_unspecified();
    if !is_probe && !is_workloads(message.source) {
        return None;
    }
    // Duplicate address detection: only for our own address is there anything to defend. Answering by proxy would
    // take the workload's new address from it.
    let answers = if is_probe {
        target == port.gateway
    } else {
        target == port.gateway || (!is_workloads(target) && is_host(target))
    };
    let reply = answers.then(|| advertise(message, target, port));
    let learned = match said_mac {
        Some(mac) if mac == message.from_mac => Some((message.source, mac)),
        _ => None,
    };
    Some(NdOutcome { reply, learned })
}

fn advertise(message: &Message<'_>, target: Ipv6Addr, port: &Port) -> Vec<u8> {
    let mut flags = NdiscNeighborFlags::ROUTER;
    // To a probe, to all nodes and unsolicited (RFC 4861 §7.2.4).
    let (to, to_mac) = if message.source.is_unspecified() {
        (ALL_NODES, multicast_mac(ALL_NODES))
    } else {
        flags |= NdiscNeighborFlags::SOLICITED;
        (message.source, message.from_mac)
    };
    // Our own address overrides; a proxied one gives way to its owner's word (RFC 4861 §7.2.4), as with the
    // kernel's proxy_ndp.
    if target == port.gateway {
        flags |= NdiscNeighborFlags::OVERRIDE;
    }
    let advert = NdiscRepr::NeighborAdvert { flags, target_addr: target, lladdr: Some(raw(port.mac)) };
    emit(port.mac, to_mac, target, to, advert)
}

/// A solicitation that asks a workload for the MAC of its `target`, from the port's link-local address `gateway`.
pub fn solicitation(port_mac: MacAddr, gateway: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let to = solicited_node(target);
    let solicit = NdiscRepr::NeighborSolicit { target_addr: target, lladdr: Some(raw(port_mac)) };
    emit(port_mac, multicast_mac(to), gateway, to, solicit)
}

/// Reads and validates: RFC 4861 §7.1.1 for solicitations, §7.1.2 for advertisements.
fn parse(frame: &[u8]) -> Option<Message<'_>> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    let from_mac = MacAddr(ethernet.src_addr().0);
    if ethernet.ethertype() != EthernetProtocol::Ipv6 || from_mac.is_multicast() || from_mac.is_zero() {
        return None;
    }
    let ipv6 = Ipv6Packet::new_checked(ethernet.payload()).ok()?;
    if ipv6.version() != 6 || ipv6.hop_limit() != HOP_LIMIT || ipv6.next_header() != IpProtocol::Icmpv6 {
        return None;
    }
    let (source, destination) = (ipv6.src_addr(), ipv6.dst_addr());
    let icmp = Icmpv6Packet::new_checked(ipv6.payload()).ok()?;
    let is_neighbor =
        matches!(icmp.msg_type(), Icmpv6Message::NeighborSolicit | Icmpv6Message::NeighborAdvert);
    if !is_neighbor || icmp.msg_code() != 0 || !icmp.verify_checksum(&source, &destination) {
        return None;
    }
    // Refuses options of length zero.
    let repr = NdiscRepr::parse(&icmp).ok()?;
    let message = Message { from_mac, source, destination, repr };
    is_valid(&message).then_some(message)
}

fn is_valid(message: &Message<'_>) -> bool {
    match message.repr {
        NdiscRepr::NeighborSolicit { target_addr, lladdr } => {
            let probe_is_valid = message.destination == solicited_node(target_addr) && lladdr.is_none();
            !target_addr.is_multicast()
                && !message.source.is_multicast()
                && (!message.source.is_unspecified() || probe_is_valid)
        }
        NdiscRepr::NeighborAdvert { flags, target_addr, .. } => {
            let solicited_to_many =
                message.destination.is_multicast() && flags.contains(NdiscNeighborFlags::SOLICITED);
            !target_addr.is_multicast() && !solicited_to_many
        }
        _ => false,
    }
}

fn emit(
    from_mac: MacAddr,
    to_mac: MacAddr,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    ndisc: NdiscRepr<'_>,
) -> Vec<u8> {
    let icmp = Icmpv6Repr::Ndisc(ndisc);
    let ethernet = EthernetRepr {
        src_addr: EthernetAddress(from_mac.0),
        dst_addr: EthernetAddress(to_mac.0),
        ethertype: EthernetProtocol::Ipv6,
    };
    let ipv6 = Ipv6Repr {
        src_addr: source,
        dst_addr: destination,
        next_header: IpProtocol::Icmpv6,
        payload_len: icmp.buffer_len(),
        hop_limit: HOP_LIMIT,
    };
    let mut bytes = vec![0; ethernet.buffer_len() + ipv6.buffer_len() + icmp.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    ethernet.emit(&mut frame);
    let mut packet = Ipv6Packet::new_unchecked(frame.payload_mut());
    ipv6.emit(&mut packet);
    let mut message = Icmpv6Packet::new_unchecked(packet.payload_mut());
    icmp.emit(&source, &destination, &mut message, &ChecksumCapabilities::default());
    bytes
}

fn mac_of(lladdr: Option<RawHardwareAddress>) -> Option<MacAddr> {
    let mac = MacAddr(lladdr?.as_bytes().try_into().ok()?);
    (!mac.is_multicast() && !mac.is_zero()).then_some(mac)
}

fn raw(mac: MacAddr) -> RawHardwareAddress {
    RawHardwareAddress::from_bytes(&mac.0)
}

/// RFC 4291 §2.7.1.
fn solicited_node(addr: Ipv6Addr) -> Ipv6Addr {
    const PREFIX: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;
    Ipv6Addr::from(PREFIX | u128::from(addr) & 0xff_ffff)
}

/// RFC 2464 §7.
fn multicast_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

/// Could this address be one host's, beyond the link?
fn is_host(addr: Ipv6Addr) -> bool {
    !addr.is_unspecified() && !addr.is_loopback() && !addr.is_multicast() && !addr.is_unicast_link_local()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host_port::GATEWAY_V6;
    use proptest::prelude::*;

    const PORT: MacAddr = MacAddr([0xee; 6]);
    const WORKLOAD: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);
    const OWN: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7);
    const OWN_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7);
    const REMOTE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, 9);

    fn read(frame: &[u8]) -> Option<NdOutcome> {
        answer(frame, PORT, GATEWAY_V6, |addr| addr == OWN)
    }

    fn solicit(source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
        let to = solicited_node(target);
        let lladdr = (!source.is_unspecified()).then(|| raw(WORKLOAD));
        emit(
            WORKLOAD,
            multicast_mac(to),
            source,
            to,
            NdiscRepr::NeighborSolicit { target_addr: target, lladdr },
        )
    }

    fn advert(frame: &[u8]) -> (Ipv6Addr, Ipv6Addr, NdiscNeighborFlags) {
        let message = parse(frame).expect("the answer is itself valid");
        match message.repr {
            NdiscRepr::NeighborAdvert { flags, target_addr, lladdr } => {
                assert_eq!(mac_of(lladdr), Some(PORT));
                (message.destination, target_addr, flags)
            }
            other => panic!("an advertisement, not {other:?}"),
        }
    }

    #[test]
    fn the_gateway_is_answered_with_override() {
        for source in [OWN, OWN_LINK_LOCAL] {
            let outcome = read(&solicit(source, GATEWAY_V6)).unwrap();
            assert_eq!(outcome.learned, Some((source, WORKLOAD)));
            let all = NdiscNeighborFlags::all();
            assert_eq!(advert(&outcome.reply.unwrap()), (source, GATEWAY_V6, all));
        }
    }

    #[test]
    fn an_address_beyond_the_link_is_answered_by_proxy_without_override() {
        let outcome = read(&solicit(OWN, REMOTE)).unwrap();
        let flags = NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::SOLICITED;
        assert_eq!(advert(&outcome.reply.unwrap()), (OWN, REMOTE, flags));
    }

    #[test]
    fn a_unicast_solicitation_is_answered_too() {
        let lladdr = None;
        let frame = emit(
            WORKLOAD,
            PORT,
            OWN,
            GATEWAY_V6,
            NdiscRepr::NeighborSolicit { target_addr: GATEWAY_V6, lladdr },
        );
        let outcome = read(&frame).unwrap();
        assert!(outcome.reply.is_some() && outcome.learned.is_none());
    }

    #[test]
    fn a_probe_for_the_workloads_own_address_is_never_answered() {
        for own in [OWN, OWN_LINK_LOCAL, REMOTE] {
            let outcome = read(&solicit(Ipv6Addr::UNSPECIFIED, own)).unwrap();
            assert_eq!(outcome, NdOutcome { reply: None, learned: None }, "{own}");
        }
    }

    #[test]
    fn a_probe_for_the_gateway_is_answered_to_all_nodes() {
        let outcome = read(&solicit(Ipv6Addr::UNSPECIFIED, GATEWAY_V6)).unwrap();
        let flags = NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::OVERRIDE;
        assert_eq!(advert(&outcome.reply.unwrap()), (ALL_NODES, GATEWAY_V6, flags));
    }

    #[test]
    fn a_sender_that_is_not_the_workload_is_ignored() {
        assert_eq!(read(&solicit(REMOTE, GATEWAY_V6)), None);
        assert_eq!(read(&solicit(GATEWAY_V6, REMOTE)), None, "nobody else has the gateway's address");
    }

    #[test]
    fn the_workloads_answer_to_our_solicitation_is_learned() {
        let flags = NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE;
        let repr = NdiscRepr::NeighborAdvert { flags, target_addr: OWN, lladdr: Some(raw(WORKLOAD)) };
        let outcome = read(&emit(WORKLOAD, PORT, OWN, GATEWAY_V6, repr)).unwrap();
        assert_eq!(outcome, NdOutcome { reply: None, learned: Some((OWN, WORKLOAD)) });
    }

    #[test]
    fn our_solicitation_is_valid_and_says_who_asks() {
        let frame = solicitation(PORT, GATEWAY_V6, OWN);
        let message = parse(&frame).unwrap();
        assert_eq!((message.source, message.destination), (GATEWAY_V6, solicited_node(OWN)));
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0, 0, 7]);
    }

    #[test]
    fn what_rfc_4861_section_7_1_forbids_is_ignored() {
        let good = solicit(OWN, GATEWAY_V6);
        assert!(read(&good).is_some());
        for (at, value, what) in [
            (14 + 7, 64, "hop limit"),
            (14 + 40 + 1, 1, "code"),
            (14 + 40 + 2, !good[14 + 40 + 2], "checksum"),
            (14 + 40 + 24 + 1, 0, "option of length zero"),
        ] {
            let mut bad = good.clone();
            bad[at] = value;
            if what != "checksum" {
                mend_checksum(&mut bad);
            }
            assert_eq!(read(&bad), None, "{what}");
        }
        let with_option = NdiscRepr::NeighborSolicit { target_addr: GATEWAY_V6, lladdr: Some(raw(WORKLOAD)) };
        let to = solicited_node(GATEWAY_V6);
        assert_eq!(read(&emit(WORKLOAD, multicast_mac(to), Ipv6Addr::UNSPECIFIED, to, with_option)), None);
    }

    fn mend_checksum(frame: &mut [u8]) {
        let packet = Ipv6Packet::new_unchecked(&frame[14..]);
        let (source, destination) = (packet.src_addr(), packet.dst_addr());
        Icmpv6Packet::new_unchecked(&mut frame[54..]).fill_checksum(&source, &destination);
    }

    #[test]
    fn router_solicitations_are_ignored() {
        let all_routers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
        let repr = NdiscRepr::RouterSolicit { lladdr: Some(raw(WORKLOAD)) };
        assert_eq!(
            read(&emit(WORKLOAD, multicast_mac(all_routers), OWN_LINK_LOCAL, all_routers, repr)),
            None
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(frame in prop::collection::vec(any::<u8>(), 0..140)) {
            let _ = read(&frame);
        }

        #[test]
        fn mended_garbage_behind_a_good_header_is_read_without_panic(
            at in 40usize..86, byte: u8, cut in 0usize..32
        ) {
            let mut frame = solicit(OWN, GATEWAY_V6);
            frame[at] = byte;
            frame.truncate(86 - cut);
            frame[18..20].copy_from_slice(&(32u16.saturating_sub(cut as u16)).to_be_bytes());
            if frame.len() >= 58 {
                mend_checksum(&mut frame);
            }
            let _ = read(&frame);
        }
    }
}
