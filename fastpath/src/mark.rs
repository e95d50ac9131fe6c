//! Within stage 11: the DSCP that an endpoint's packets leave the node with.

use model::PortKind;
use packet::{Kind, ipv4, ipv6};
use tables::{Fate, HopState, State};

use crate::Batch;

/// Writes the DSCP of its endpoint into every packet from a workload that leaves by an uplink. In a tunnel that is the inner
/// packet: the outer header's DSCP is the tunnel's own (RFC 2983 §3.1, the pipe model).
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
            match parsed[row].kind {
                Kind::Ipv4 => ipv4::set_dscp(header, dscp),
                Kind::Ipv6 => ipv6::set_dscp(header, dscp),
                Kind::Arp | Kind::Other => {}
            }
        }
    }
}
