//! The kernel as the event loop sees it: its news taken, its state read, ports and neighbours brought into line with it.

use std::net::IpAddr;
use std::time::Instant;

use ahash::AHashSet;
use model::{IfIndex, MacAddr, PortKind, Prefix};
use tables::AddressSet;
use tracing::{debug, warn};

use crate::error::Error;
use crate::event_loop::Core;
use crate::interfaces::{self, KernelEvent, Link};
use crate::neighbors::NeighborFact;
use crate::neighbors::table::NeighborOrigin;
use crate::offers::{self, Roles};
use crate::workload_mtu;

impl Core {
    pub(crate) fn kernel_changed(&mut self, event: KernelEvent) {
        let now = Instant::now();
        match event {
            KernelEvent::NeighborChanged(fact) => self.observe(&fact, now),
            KernelEvent::NeighborRemoved { ifindex, addr } => self.forget(ifindex, addr),
            KernelEvent::LinkRemoved(ifindex) => {
                self.carrier_lost(ifindex);
                self.neighbors.remove_interface(ifindex);
                self.dirty.kernel.get_or_insert(now);
            }
            KernelEvent::LinkChanged(link) => {
                if !link.up {
                    self.carrier_lost(link.ifindex);
                }
                // The kernel drops routes through a link that goes down and brings none back.
                self.mirroring.mirror_mut().resync();
                self.dirty.kernel.get_or_insert(now);
            }
            KernelEvent::AddressAdded(_)
            | KernelEvent::AddressRemoved(_)
            | KernelEvent::RouteChanged(_)
            | KernelEvent::RouteRemoved(_)
            | KernelEvent::Overrun => {
                self.dirty.kernel.get_or_insert(now);
            }
        }
    }

    /// Takes the kernel's word for a neighbour, where it is one of ours.
    fn observe(&mut self, fact: &NeighborFact, now: Instant) {
        if !is_host_on_uplink(fact, &self.kernel.links, &self.roles) {
            return;
        }
        let before = self.neighbors.mac(fact.ifindex, fact.addr);
        if let Err(full) = self.neighbors.observe(fact, now) {
            debug!(addr = %fact.addr, "{full}");
        }
        self.neighbor_settled(fact.ifindex, fact.addr, before);
    }

    /// The kernel has forgotten a neighbour. What workloads and their endpoints told us isn't the kernel's to forget.
    fn forget(&mut self, ifindex: IfIndex, addr: IpAddr) {
        if self.neighbors.origin(ifindex, addr) == Some(NeighborOrigin::Kernel) {
            let before = self.neighbors.mac(ifindex, addr);
            self.neighbors.remove(ifindex, addr);
            self.managed.forget(ifindex, addr);
            self.dirty.rows = true;
            self.neighbor_settled(ifindex, addr, before);
        }
    }

    pub(crate) fn neighbor_settled(&mut self, ifindex: IfIndex, addr: IpAddr, before: Option<MacAddr>) {
        if self.neighbors.mac(ifindex, addr) != before {
            self.dirty.offers = true;
            self.dirty.rows = true;
        }
    }

    pub(crate) fn read_kernel(&mut self) -> Result<(), Error> {
        self.dirty.kernel = None;
        self.kernel = interfaces::dump(&mut self.netlink)?;
        self.kernel_read = true;
        let now = Instant::now();
        // Not needed again: the neighbour table has them from here on.
        let facts = std::mem::take(&mut self.kernel.neighbors);
        let known: AHashSet<(IfIndex, IpAddr)> = facts.iter().map(|fact| (fact.ifindex, fact.addr)).collect();
        for fact in facts {
            self.observe(&fact, now);
        }
        // News of what the kernel forgot may have been lost in an overrun.
        let gone: Vec<(IfIndex, IpAddr)> = self
            .neighbors
            .iter()
            .map(|(ifindex, addr, _)| (ifindex, addr))
            .filter(|neighbor| !known.contains(neighbor))
            .collect();
        for (ifindex, addr) in gone {
            self.forget(ifindex, addr);
        }
        self.learn_endpoint_macs();
        self.tell_local_addresses();
        self.join_groups();
        self.reconcile_tunnel_addresses();
        self.reconcile_ports();
        self.watch_peers();
        self.dirty.host_policy = true;
        self.dirty.offers = true;
        self.dirty.rows = true;
        Ok(())
    }

    /// What stays with the kernel. A floating IP doesn't, though the host may have the address, to answer ARP for it.
    pub(crate) fn tell_local_addresses(&mut self) {
        let is_floating = |addr: IpAddr| self.translation.floating.iter().any(|nat| nat.external == addr);
        let local = offers::local_addresses(&self.kernel, &self.roles).map(|address| address.addr.addr);
        // Nobody's own, but tunnels end there too.
        let groups = self.overlays.all.iter().filter_map(|overlay| overlay.segment().group());
        let local = local.filter(|addr| !is_floating(*addr)).chain(groups).collect();
        self.opener.set_local(&local);
    }

    /// Tells the walk which addresses nobody else may send from: the host's, and this node's in the tunnels' networks. A
    /// floating IP is a workload's, whoever has the address.
    pub(crate) fn tell_own_addresses(&mut self) {
        let is_floating = |addr: IpAddr| self.translation.floating.iter().any(|nat| nat.external == addr);
        let local = offers::local_addresses(&self.kernel, &self.roles).map(|address| address.addr.addr);
        let own =
            local.filter(|addr| !is_floating(*addr)).chain(self.desired.tunnels.addresses.iter().copied());
        let own = AddressSet::new(own.map(Prefix::host));
        let writer = self.installer.writer();
        if *writer.staged().own_addresses != own {
            writer.set_own_addresses(own);
            writer.publish();
        }
    }

    pub(crate) fn reconcile_ports(&mut self) {
        if !self.in_sync || !self.kernel_read {
            return;
        }
        self.workload_mtus.wanted = if self.config.lower_workload_mtu {
            workload_mtu::of(&self.kernel, &self.desired, &self.roles)
        } else {
            None
        };
        if let Some(mtu) = workload_mtu::of_new(&self.kernel, &self.desired, &self.roles) {
            self.mtu_file.tell(mtu.min(self.config.receivable));
        }
        self.workload_mtus.lower(&self.kernel, &self.roles, &mut self.netlink);
        let writer = self.installer.writer();
        let opener = self.opener.as_mut();
        if self.ports.reconcile(&self.kernel, &self.desired, &self.roles, opener, &mut self.netlink, writer) {
            self.installer.writer().publish();
            for row in self.ports.iter() {
                if let Some(warning) = self.workload_mtus.untold(row, self.config.receivable) {
                    warn!(port = row.port.name, "{warning}");
                }
            }
            self.dirty.rows = true;
            self.dirty.offers = true;
        }
    }

    pub(crate) fn learn_endpoint_macs(&mut self) {
        let now = Instant::now();
        for endpoint in self.desired.endpoints.values() {
            let link = self.kernel.links.iter().find(|link| link.name == endpoint.interface);
            let (Some(link), Some(mac)) = (link, endpoint.mac) else { continue };
            for address in &endpoint.ip_networks {
                // A full table is counted by itself and shown.
                let _ =
                    self.neighbors.learn(link.ifindex, address.addr(), mac, NeighborOrigin::Endpoint, now);
            }
        }
    }
}

/// Is this the kernel's to tell: one host, on an uplink? On workload ports Tortie asks and answers itself (D9). Of a
/// link that isn't known yet nothing is taken; the link's own news has the kernel read anew.
fn is_host_on_uplink(fact: &NeighborFact, links: &[Link], roles: &Roles) -> bool {
    let link = links.iter().find(|link| link.ifindex == fact.ifindex);
    let on_uplink = link.is_some_and(|link| roles.kind(link) == Some(PortKind::Uplink));
    // The kernel keeps groups and broadcast addresses as neighbours too, as `noarp`.
    on_uplink && !fact.addr.is_multicast() && !fact.mac.is_some_and(MacAddr::is_multicast)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::neighbors::NeighborState;

    #[test]
    fn the_kernels_neighbors_are_hosts_on_uplinks_and_nothing_else() {
        let link = |ifindex, name: &str| Link {
            ifindex: IfIndex(ifindex),
            name: name.to_owned(),
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            up: true,
            kind: None,
            peer: None,
            peer_netns: None,
            num_rx_queues: 1,
        };
        let links = [link(2, "eth0"), link(3, "cali1"), link(4, "mgmt0")];
        let roles =
            Roles { uplinks: vec!["eth0".to_owned()], workload_prefix: "cali".to_owned(), host: None };
        let host = Some(MacAddr([2, 0, 0, 0, 0, 9]));
        for (ifindex, addr, mac, taken) in [
            (2, "172.18.0.3", host, true),
            (2, "172.18.0.3", None, true),
            (2, "fe80::3", host, true),
            (3, "10.65.0.1", host, false),
            (4, "192.0.2.3", host, false),
            (9, "172.18.0.3", host, false),
            (2, "ff02::16", Some(MacAddr([0x33, 0x33, 0, 0, 0, 0x16])), false),
            (2, "224.0.0.22", Some(MacAddr([1, 0, 0x5e, 0, 0, 0x16])), false),
            (2, "224.0.0.22", None, false),
            (2, "172.18.0.255", Some(MacAddr::BROADCAST), false),
        ] {
            let ifindex = IfIndex(ifindex);
            let fact =
                NeighborFact { ifindex, addr: addr.parse().unwrap(), mac, state: NeighborState::Noarp };
            assert_eq!(is_host_on_uplink(&fact, &links, &roles), taken, "{addr} on {ifindex:?}");
        }
    }
}
