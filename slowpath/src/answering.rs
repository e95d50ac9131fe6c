//! What the workers hand up, answered: ICMP errors, ARP and neighbour discovery, and questions for the neighbours that
//! routes or packets wait for.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use model::{Family, PortId, PortKind, Prefix};
use tables::{Inject, Port, Punt, PuntReason};
use tracing::{debug, warn};

use crate::calico::Desired;
use crate::event_loop::Core;
use crate::host_dhcp;
use crate::interfaces::KernelState;
use crate::neighbors;
use crate::neighbors::table::{NeighborOrigin, Wanted};
use crate::port_table::PortTable;
use crate::punt::{Answer, OurAddresses};
use crate::resolve::NeighborAddr;
use crate::target::Target;

/// Packets of a worker that are answered before anything else gets its turn.
const PUNTS_AT_ONCE: usize = 256;

impl Core {
    /// Answers what the workers have sent up.
    pub(crate) fn answer_punts(&mut self) {
        let mut punts = std::mem::take(&mut self.punts);
        for (worker, ring) in punts.iter_mut().enumerate() {
            // Bounded, so that a flood of punts doesn't keep the loop from BGP.
            for _ in 0..PUNTS_AT_ONCE {
                let more = ring.pop(|punt, frame| self.answer_punt(worker, &punt, frame));
                if more.is_none() {
                    break;
                }
            }
        }
        self.punts = punts;
    }

    fn answer_punt(&mut self, worker: usize, punt: &Punt, frame: &[u8]) {
        if punt.reason == PuntReason::InsideSegment {
            return self.hear_inside(worker, frame);
        }
        let failed = punt.reason == PuntReason::Unresolved && self.resolution_failed(punt, frame);
        let port = punt.port.and_then(|id| self.ports.get(id)).cloned();
        let ours = Ours { kernel: &self.kernel, ports: &self.ports, desired: &self.desired };
        let outcome = self.answerer.answer(punt, frame, port.as_ref(), failed, &ours, Instant::now());
        if let (Some((addr, mac)), Some(port)) = (outcome.learned, &port) {
            let before = self.neighbors.mac(port.ifindex, addr);
            // A full table is counted by itself and shown.
            let _ = self.neighbors.learn(port.ifindex, addr, mac, NeighborOrigin::Workload, Instant::now());
            self.neighbor_settled(port.ifindex, addr, before);
        }
        let done = match outcome.answer {
            Answer::Walk(bytes) => {
                self.inject(worker, Inject::Walk, &bytes);
                "icmp_error"
            }
            Answer::Reset(bytes) => {
                self.inject(worker, Inject::WalkAsIs, &bytes);
                "tcp_reset"
            }
            Answer::Transmit(port, bytes) => {
                self.inject(worker, Inject::Transmit(port), &bytes);
                "neighbor_reply"
            }
            Answer::SendBack(port, bytes) => {
                self.inject(worker, Inject::Transmit(port), &bytes);
                "icmp_error"
            }
            Answer::Deliver(port) => self.deliver(port, frame),
            Answer::Nothing(silence) => silence.as_str(),
        };
        if punt.reason == PuntReason::NeighborDiscovery {
            self.let_kernel_hear(port.as_ref(), frame);
        }
        *self.punts_answered.entry(done).or_default() += 1;
    }

    /// Has the kernel receive a workload's neighbour discovery as well, where its own DHCP server is to answer by IPv6.
    fn let_kernel_hear(&mut self, port: Option<&Port>, frame: &[u8]) {
        let port = port.filter(|port| port.kind == PortKind::Workload);
        if !self.desired.felix.openstack || port.is_none() || !host_dhcp::is_discovery(frame) {
            return;
        }
        if let Ok(port) = self.answerer.deliver(port, Instant::now()) {
            self.deliver(port, frame);
        }
    }

    /// Has the kernel receive a frame; what came of it.
    fn deliver(&mut self, port: PortId, frame: &[u8]) -> &'static str {
        let Err(error) = self.opener.deliver(port, frame) else { return "delivered" };
        if self.not_delivered.as_ref() != Some(&error) {
            warn!("the host's DHCP server doesn't hear a workload: {error}");
            self.not_delivered = Some(error);
        }
        "not_delivered"
    }

    /// Asks for the neighbour that a packet waits for; `true` where it has been asked for in vain.
    fn resolution_failed(&mut self, punt: &Punt, frame: &[u8]) -> bool {
        let tables = self.installer.tables().staged();
        let adjacency = punt.adjacency.and_then(|id| tables.adjacency(id));
        let nexthop =
            adjacency.filter(|adjacency| !adjacency.neighbor.is_unspecified()).and_then(|adjacency| {
                let ifindex = self.ports.get(adjacency.port)?.ifindex;
                Some(NeighborAddr { ifindex, addr: adjacency.neighbor })
            });
        let neighbor = nexthop.or_else(|| {
            // The route leads to the link itself: the destination is the neighbour.
            let parsed = packet::parse(frame).ok()?;
            let v4 = parsed.ipv4_destination(frame).map(IpAddr::V4);
            let addr = v4.or_else(|| parsed.ipv6_destination(frame).map(IpAddr::V6))?;
            let (_, offer) = self.rib.covering(addr, |_, _| true)?;
            match self.rib.targets().get(offer.target)? {
                Target::Attached(ifindex) => Some(NeighborAddr { ifindex: *ifindex, addr }),
                _ => None,
            }
        });
        let Some(neighbor) = neighbor else { return false };
        self.ask_for(neighbor);
        self.neighbors.times_asked(neighbor.ifindex, neighbor.addr) > 3
    }

    /// Has the kernel keep gateways fresh, and asks for every neighbour that a route needs and nobody knows.
    pub(crate) fn ask_for_neighbors(&mut self) {
        // The kernel sees none of the traffic that would confirm a next hop, so it is told to keep probing itself.
        let gateways =
            self.installer.gateways(&self.rib).map(|neighbor| (neighbor.ifindex, neighbor.addr)).collect();
        if let Err(error) = self.managed.keep(&mut self.netlink, &gateways) {
            debug!(%error, "the kernel doesn't keep a neighbour; it is asked again");
        }
        let unknown: Vec<NeighborAddr> = self
            .installer
            .needed_hops()
            .map(|(hop, _)| hop.neighbor)
            .filter(|neighbor| self.neighbors.mac(neighbor.ifindex, neighbor.addr).is_none())
            .collect();
        for neighbor in unknown {
            self.ask_for(neighbor);
        }
    }

    fn ask_for(&mut self, neighbor: NeighborAddr) {
        let NeighborAddr { ifindex, addr } = neighbor;
        if self.neighbors.want(ifindex, addr, Instant::now()) != Wanted::Ask {
            return;
        }
        let Some(port) = self.ports.on(ifindex) else { return };
        if port.kind == PortKind::Workload {
            let (id, mac) = (port.id, port.mac);
            let question = match addr {
                IpAddr::V4(addr) => neighbors::arp::request(mac, crate::host_port::GATEWAY_V4, addr),
                IpAddr::V6(addr) => neighbors::nd::solicitation(mac, crate::host_port::GATEWAY_V6, addr),
            };
            self.inject(0, Inject::Transmit(id), &question);
        } else if let Err(error) = neighbors::resolve(&mut self.netlink, ifindex, addr) {
            debug!(%addr, %error, "the kernel doesn't resolve the neighbour");
        }
    }

    pub(crate) fn inject(&mut self, worker: usize, how: Inject, bytes: &[u8]) {
        let pushed = self.injects.get_mut(worker).map(|ring| ring.push(how, bytes));
        if !matches!(pushed, Some(Ok(()))) {
            *self.punts_answered.entry("inject_ring_full").or_default() += 1;
        }
    }
}

/// Our addresses, as answers to punted packets need them.
struct Ours<'a> {
    kernel: &'a KernelState,
    ports: &'a PortTable,
    desired: &'a Desired,
}

impl OurAddresses for Ours<'_> {
    fn of_port(&self, port: PortId, family: Family) -> Option<IpAddr> {
        let ifindex = self.ports.get(port)?.ifindex;
        let of_family = self
            .kernel
            .addresses
            .iter()
            .filter(|address| address.ifindex == ifindex && Family::of(address.addr.addr) == family);
        of_family.min_by_key(|address| address.scope).map(|address| address.addr.addr)
    }

    fn of_node(&self, family: Family) -> Option<IpAddr> {
        self.desired.node_address(family)
    }

    fn is_directed_broadcast(&self, addr: Ipv4Addr) -> bool {
        self.kernel.addresses.iter().any(|address| broadcast_of(address.addr.network()) == Some(addr))
    }
}

/// The address that means every host of a network; point-to-point networks have none (RFC 3021).
fn broadcast_of(network: Prefix) -> Option<Ipv4Addr> {
    match network.addr() {
        IpAddr::V4(addr) if network.len() <= 30 => Some(addr | Ipv4Addr::from(u32::MAX >> network.len())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_networks_with_room_for_it_have_a_broadcast_address() {
        let broadcast = |text: &str| broadcast_of(text.parse().unwrap());
        assert_eq!(broadcast("172.18.0.0/24"), Some(Ipv4Addr::new(172, 18, 0, 255)));
        assert_eq!(broadcast("172.18.0.4/30"), Some(Ipv4Addr::new(172, 18, 0, 7)));
        assert_eq!(["172.18.0.4/31", "172.18.0.4/32", "fd18::/64"].map(broadcast), [None; 3]);
    }
}
