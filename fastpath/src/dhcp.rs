//! DHCP requests of OpenStack's instances, which a server on the node itself answers: Calico's DHCP agent runs dnsmasq on every
//! compute node. The kernel is to receive them on the instance's own interface, so they go up.

use std::net::{IpAddr, Ipv6Addr};

use model::{Family, PortKind};
use packet::{Kind, Parsed, protocol};
use tables::{Port, State};

/// Client's and server's ports, by family: RFC 2131 §4.1, RFC 8415 §7.2.
const PORTS: [(u16, u16); 2] = [(68, 67), (546, 547)];
/// `All_DHCP_Relay_Agents_and_Servers`, RFC 8415 §7.1.
const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// Does a client send these ports' datagrams to a server?
pub(crate) fn is_clients(family: Family, ports: (u16, u16)) -> bool {
    ports == PORTS[usize::from(family == Family::V6)]
}

/// Is it an instance's request to every server on its link? From no address yet, or from one of its own: Felix lets 0.0.0.0
/// through its reverse-path check and nothing else that isn't the workload's (`felix/rules/static.go`).
#[cold]
pub(crate) fn is_to_all_servers(frame: &[u8], parsed: &Parsed, port: &Port, state: &State) -> bool {
    if !state.flow_rules.passes_dhcp_and_dns || port.kind != PortKind::Workload {
        return false;
    }
    let owns = |source| port.endpoint.as_ref().is_some_and(|endpoint| endpoint.owns(source));
    let addresses = match parsed.kind {
        Kind::Ipv4 => parsed.ipv4_source(frame).zip(parsed.ipv4_destination(frame)).map(|(source, to)| {
            (Family::V4, to.is_broadcast() && (source.is_unspecified() || owns(IpAddr::V4(source))))
        }),
        _ => parsed.ipv6_source(frame).zip(parsed.ipv6_destination(frame)).map(|(source, to)| {
            (Family::V6, to == ALL_SERVERS && (source.is_unicast_link_local() || owns(IpAddr::V6(source))))
        }),
    };
    addresses
        .is_some_and(|(family, fit)| fit && udp_ports(frame, parsed).is_some_and(|p| is_clients(family, p)))
}

/// Source and destination port of a whole UDP datagram.
fn udp_ports(frame: &[u8], parsed: &Parsed) -> Option<(u16, u16)> {
    if parsed.protocol != protocol::UDP || parsed.is_fragment() {
        return None;
    }
    let [a, b, c, d] = *parsed.l4_packet(frame).first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}
