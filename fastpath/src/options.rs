//! Within stage 12: what IPv4 options and IPv6 extension headers a forwarded packet may not have.
//!
//! A packet whose sender chose the way is dropped (RFC 7126 §4.3 and §4.4, RFC 5095). An IPv4 option that runs out of the
//! header is told to the sender (RFC 1812 §4.3.3.5). Everything else passes unchanged: the walk records no route and no
//! time, and looks into no hop-by-hop options (RFC 8200 §4.3 leaves that to the router).

use packet::{Kind, Parsed, ipv4, ipv4_options, ipv6};
use tables::{DropReason, Fate, PuntReason};

/// The fate of a packet with such options; `None` lets it go on. Only asked about frames without a plain layout.
#[cold]
pub(crate) fn judge(frame: &[u8], parsed: &Parsed) -> Option<Fate> {
    let source_routed = match parsed.kind {
        Kind::Ipv4 => {
            let packet = ipv4::Packet::new_checked(parsed.l3_packet(frame)).ok()?;
            match ipv4_options::is_source_routed(packet.options()) {
                Ok(found) => found,
                Err(_) => return Some(Fate::Punt(PuntReason::BadOption)),
            }
        }
        Kind::Ipv6 => {
            let packet = ipv6::Packet::new_checked(parsed.l3_packet(frame)).ok()?;
            ipv6::is_source_routed(packet.next_header(), packet.payload())
        }
        Kind::Arp | Kind::Other => false,
    };
    source_routed.then_some(Fate::Drop(DropReason::SourceRouted))
}
