//! The event loop's end of tunnels: what the resources ask for, brought to tables, uplinks, addresses and BGP's routes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use model::IfIndex;
use tables::{TunnelEnd, TunnelKind};
use tracing::{info, warn};

use crate::TunnelTraffic;
use crate::calico::Tunnels;
use crate::event_loop::Core;
use crate::interfaces::{KernelState, Scope};

impl Core {
    /// Acts on tunnels that are others now than they were in `before`.
    pub(crate) fn apply_tunnels(&mut self, before: &Tunnels) {
        let after = &self.desired.tunnels;
        if before == after {
            return;
        }
        if before.ends != after.ends {
            // The tables know an end before its packets come to the walk, and until they come no more.
            let leaving = before.ends.iter().filter(|end| !after.ends.contains(end));
            let both = after.ends.iter().chain(leaving).cloned().collect();
            let (after, writer) = (after.ends.clone(), self.installer.writer());
            writer.set_tunnel_ends(both);
            writer.publish();
            self.opener.set_tunnels(&traffic(&after));
            writer.set_tunnel_ends(after);
            writer.publish();
        }
        self.bgp_routes.offer_all(&mut self.rib, &self.desired);
        self.dirty.offers = true;
    }

    /// Gives the host port's kernel side the node's tunnel addresses, so that they are the kernel's own (D1a), and takes
    /// from it those of before.
    pub(crate) fn reconcile_tunnel_addresses(&mut self) {
        if !self.in_sync || !self.kernel_read {
            return;
        }
        let tortie0 = self.host.kernel_side;
        let there = addresses_on(&self.kernel, tortie0);
        let wanted = &self.desired.tunnels.addresses;
        for address in wanted.difference(&there) {
            match self.host.add_address(&mut self.netlink, *address) {
                Ok(()) => info!(%address, "the host has a tunnel address"),
                Err(error) => warn!(%address, "the host goes without its tunnel address: {error}"),
            }
        }
        for address in there.difference(wanted) {
            if let Err(error) = self.host.remove_address(&mut self.netlink, *address) {
                warn!(%address, "a former tunnel address stays: {error}");
            }
            // The kernel drops routes whose source address goes.
            self.mirroring.mirror_mut().resync();
        }
    }
}

/// The addresses that the host port's kernel side has from us.
pub(crate) fn addresses_on(kernel: &KernelState, ifindex: IfIndex) -> BTreeSet<IpAddr> {
    let here = kernel.addresses.iter().filter(|address| address.ifindex == ifindex);
    here.filter(|address| address.scope == Scope::Global).map(|address| address.addr.addr).collect()
}

/// What of the traffic to the node's addresses is for these ends.
pub(crate) fn traffic(ends: &[TunnelEnd]) -> TunnelTraffic {
    let mut traffic = TunnelTraffic::default();
    for end in ends {
        match end.kind {
            TunnelKind::Ipip => traffic.ipip = true,
            TunnelKind::Vxlan { port, .. } => drop(traffic.vxlan_ports.insert(port)),
        }
    }
    traffic
}
