//! Within stage 11: the DSCP that an endpoint's packets leave the node with.

use std::net::IpAddr;

use model::PortKind;
use packet::{Kind, ipv4, ipv6};
use tables::{Fate, HopState, State};

use crate::Batch;

/// Writes the DSCP of its endpoint into every packet from a workload that leaves by an uplink to an address in no pool: what
/// stays in the cluster keeps its own, as in Felix (`cali-egress-dscp`). In a tunnel that is the inner packet: the outer
/// header's DSCP is the tunnel's own (RFC 2983 §3.1, the pipe model).
pub(crate) fn dscp(batch: &mut Batch, state: &State) {
    let Batch { frames, runs, fates, parsed, hops, .. } = batch;
    for run in runs {
        let port = run.ingress.and_then(|ingress| state.ports.get(ingress));
        let endpoint = port.and_then(|port| port.endpoint.as_ref());
        let Some(dscp) = endpoint.and_then(|endpoint| endpoint.qos.as_ref()?.dscp()) else { continue };
        for row in run.rows().filter(|row| fates[*row] == Fate::Undecided) {
            let hop = state.next_hops.get(hops[row]);
            let to = state.ports.get(hop.port).map(|port| port.kind);
            if hop.state != HopState::Ready || to != Some(PortKind::Uplink) {
                continue;
            }
            let Some(header) = frames[row].bytes_mut().get_mut(usize::from(parsed[row].l3)..) else {
                continue;
            };
            let to = match parsed[row].kind {
                Kind::Ipv4 => ipv4::Packet::new_checked(header).map(|packet| IpAddr::from(packet.dst())),
                Kind::Ipv6 => ipv6::Packet::new_checked(header).map(|packet| IpAddr::from(packet.dst())),
                Kind::Arp | Kind::Other => continue,
            };
            match to {
                Ok(to) if state.nat.is_in_a_pool(to) => {}
                Ok(IpAddr::V4(_)) => ipv4::set_dscp(header, dscp),
                Ok(IpAddr::V6(_)) => ipv6::set_dscp(header, dscp),
                // It was parsed before: it is well-formed.
                Err(_) => {}
            }
        }
    }
}
