//! What begins a flow, what passes without one, and what neither may: as Linux's connection tracking has it.

use model::{Family, PortKind};
use packet::{protocol, sctp, tcp, udp};
use tables::{Direction, DropReason, Fate, Flow, FlowRules, TcpPacket};

use super::{Judge, Packet};
use crate::dhcp;
use crate::flow::tcp_flags;

/// What a packet of no flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum First {
    /// A flow begins with it.
    Begins,
    /// It stands for itself: policy is asked of each.
    Alone,
    /// It belongs to a flow that nobody knows.
    Invalid,
}

/// Messages of ICMP, and of ICMPv6, that ask for an answer, and the answer. What Linux begins flows with
/// (`nf_conntrack_proto_icmp.c`, `nf_conntrack_proto_icmpv6.c`).
const QUERIES: [&[(u8, u8)]; 2] = [&[(8, 0), (13, 14), (15, 16), (17, 18)], &[(128, 129), (139, 140)]];
/// Listeners, routers and neighbours: Linux doesn't track these.
const UNTRACKED_V6: [u8; 9] = [130, 131, 132, 133, 134, 135, 136, 137, 143];
/// Those that a workload may send to its node whatever its policy says (`felix/rules/static.go`, `ICMPv6Filter`): it would
/// cut itself off in ways that nobody expects.
const EXEMPT_V6: [u8; 6] = [130, 131, 132, 133, 135, 136];
/// DNS, where that and DHCP are exempt as well.
const DNS: u16 = 53;

fn queries(family: Family) -> &'static [(u8, u8)] {
    QUERIES[usize::from(family == Family::V6)]
}

impl First {
    pub(super) fn of(packet: &Packet<'_>) -> First {
        let family = packet.key.family;
        match (packet.key.protocol, packet.icmp()) {
            (protocol::TCP | protocol::UDP | protocol::SCTP, _) => match begins(packet) {
                true => First::Begins,
                false => First::Invalid,
            },
            (protocol::ICMP | protocol::ICMPV6, None) => First::Invalid,
            (protocol::ICMP | protocol::ICMPV6, Some((icmp_type, _))) => {
                if queries(family).iter().any(|(query, _)| *query == icmp_type) {
                    First::Begins
                } else if family == Family::V6 && UNTRACKED_V6.contains(&icmp_type) {
                    First::Alone
                } else {
                    First::Invalid
                }
            }
            _ => First::Begins,
        }
    }
}

/// Does a packet begin a flow of TCP, UDP or SCTP? Not one that isn't as long as it says, whole as it is: Linux calls these
/// invalid, too.
fn begins(packet: &Packet<'_>) -> bool {
    let l4 = packet.parsed.l4_packet(packet.bytes);
    let is_fragment = packet.parsed.is_fragment();
    match packet.key.protocol {
        protocol::TCP => {
            let is_whole = is_fragment || tcp::Packet::new_checked(l4).is_ok();
            is_whole && TcpPacket::of(tcp_flags(packet.bytes, packet.parsed)).may_begin()
        }
        protocol::UDP => is_fragment || udp::Packet::new_checked(l4).is_ok(),
        _ => begins_association(l4),
    }
}

/// May it be the first packet that is seen of an association (`do_basic_checks` and `sctp_new` in
/// `net/netfilter/nf_conntrack_proto_sctp.c`)? Linux has none begin with data, with what acknowledges them or with SHUTDOWN,
/// either; here one may, as a connection of TCP's may be picked up in the middle: Linux's table outlives Felix, and this one
/// ends with its process.
fn begins_association(l4: &[u8]) -> bool {
    let (mut count, mut is_alone) = (0, false);
    for chunk in sctp::chunks(l4) {
        is_alone |= chunk.kind == sctp::INIT;
        let is_answer = matches!(
            chunk.kind,
            sctp::INIT_ACK
                | sctp::COOKIE_ECHO
                | sctp::COOKIE_ACK
                | sctp::ERROR
                | sctp::ABORT
                | sctp::SHUTDOWN_COMPLETE
        );
        let is_tagged_init = chunk.kind == sctp::INIT && sctp::verification_tag(l4) != 0;
        if is_alone && count > 0 || chunk.len == 0 || is_answer || is_tagged_init {
            return false;
        }
        count += 1;
    }
    count > 0
}

/// May a workload send this to its node whatever policy and defaultEndpointToHostAction say?
pub(super) fn is_exempt(packet: &Packet<'_>, rules: &FlowRules) -> bool {
    let key = packet.key;
    match key.protocol {
        protocol::ICMPV6 if key.family == Family::V6 => {
            packet.icmp().is_some_and(|(icmp_type, _)| EXEMPT_V6.contains(&icmp_type))
        }
        protocol::UDP if rules.passes_dhcp_and_dns => key.dport == DNS || is_dhcp(packet, rules),
        _ => false,
    }
}

/// Is it a workload's DHCP request to its node, which the kernel is to receive on the workload's interface? A client renews
/// its lease with the server that gave it, without a broadcast (RFC 2131 §4.4.5).
pub(super) fn is_dhcp(packet: &Packet<'_>, rules: &FlowRules) -> bool {
    let key = packet.key;
    rules.passes_dhcp_and_dns
        && key.protocol == protocol::UDP
        && packet.way.from.is(PortKind::Workload)
        && dhcp::is_clients(key.family, (key.sport, key.dport))
}

impl Judge<'_> {
    /// Is an ICMP message one that its flow may have? Two that ping each other at the same time, with the same identifier,
    /// show the same keys; the flow is that of the first.
    pub(super) fn fits(&self, packet: &Packet<'_>, flow: &Flow) -> bool {
        let Some((icmp_type, _)) = packet.icmp() else { return false };
        let first = self.first_icmp(flow, packet.key).map(|(icmp_type, _)| icmp_type);
        let of_first = queries(packet.key.family).iter().find(|(query, _)| Some(*query) == first);
        of_first.is_some_and(|(query, answer)| match flow.direction {
            Direction::Original => *query == icmp_type,
            Direction::Reply => *answer == icmp_type,
        })
    }

    /// A query or an answer that crosses another's flow: it is held to what policy says of the query, each for itself.
    pub(super) fn crossing(&self, packet: &Packet<'_>) -> Result<(), Fate> {
        let Some((icmp_type, code)) = packet.icmp() else { return Err(DropReason::FlowInvalid.into()) };
        let answered = queries(packet.key.family).iter().find(|(_, answer)| *answer == icmp_type);
        let (key, direction, icmp_type) = match answered {
            Some((query, _)) => (packet.key.reversed(), Direction::Reply, *query),
            None if First::of(packet) == First::Begins => (*packet.key, Direction::Original, icmp_type),
            None => return Err(DropReason::FlowInvalid.into()),
        };
        self.ask(packet, &key, Some((icmp_type, code)), packet.way.between(direction))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use packet::icmp;

    #[test]
    fn every_query_has_an_answer_that_is_none() {
        for family in Family::ALL {
            let queries = queries(family);
            assert!(queries.iter().all(|(_, answer)| queries.iter().all(|(query, _)| query != answer)));
        }
        assert_eq!(queries(Family::V4)[0], (icmp::v4::ECHO_REQUEST, icmp::v4::ECHO_REPLY));
        assert_eq!(queries(Family::V6)[0], (icmp::v6::ECHO_REQUEST, icmp::v6::ECHO_REPLY));
    }
}
