//! May an ICMP error be sent about a packet at all? Errors about errors would never end.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{v4, v6};
use crate::{Kind, Parsed, ethernet, protocol};

/// Does RFC 1812 §4.3.2.7 (IPv4) or RFC 4443 §2.4 (e) (IPv6) let a router send an ICMP error about this packet?
///
/// Never about an ICMP error or redirect, a packet to many (by IP or by MAC address), a fragment other than the first,
/// or one whose source names no single host. Stricter than RFC 4443 in two points: later IPv6 fragments and packets to
/// IPv6 multicast groups get no answer either, not even "packet too big", since a router here forwards no multicast.
/// A directed broadcast is only told by its MAC address: which addresses are one, only the routes know.
///
/// `frame` is the one that was parsed.
pub fn may_answer(frame: &[u8], parsed: &Parsed) -> bool {
    let to_one = ethernet::Packet::new_checked(frame).is_ok_and(|ethernet| !ethernet.dst().is_multicast());
    to_one && !parsed.is_later_fragment() && !is_error(frame, parsed) && addresses_are_hosts(frame, parsed)
}

/// Is the packet an ICMP error or a redirect itself?
fn is_error(frame: &[u8], parsed: &Parsed) -> bool {
    let kind = frame.get(usize::from(parsed.l4)).copied().unwrap_or(0);
    match (parsed.kind, parsed.protocol) {
        (Kind::Ipv4, protocol::ICMP) => v4::is_error(kind),
        (Kind::Ipv6, protocol::ICMPV6) => v6::is_error(kind) || kind == v6::REDIRECT,
        _ => false,
    }
}

fn addresses_are_hosts(frame: &[u8], parsed: &Parsed) -> bool {
    match parsed.kind {
        Kind::Ipv4 => {
            parsed.ipv4_source(frame).is_some_and(is_host_v4)
                && parsed
                    .ipv4_destination(frame)
                    .is_some_and(|dst| !dst.is_multicast() && !dst.is_broadcast())
        }
        Kind::Ipv6 => {
            parsed.ipv6_source(frame).is_some_and(is_host_v6)
                && parsed.ipv6_destination(frame).is_some_and(|dst| !dst.is_multicast())
        }
        Kind::Arp | Kind::Other => false,
    }
}

/// Could this address be one host that isn't us? Not of network 0 or 127, no group, nothing of class E (RFC 1812 §5.3.7).
fn is_host_v4(addr: Ipv4Addr) -> bool {
    let [first, ..] = addr.octets();
    !matches!(first, 0 | 127 | 224..=255)
}

/// Could this address be one host that isn't us?
fn is_host_v6(addr: Ipv6Addr) -> bool {
    !addr.is_unspecified() && !addr.is_loopback() && !addr.is_multicast()
}
