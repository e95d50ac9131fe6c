//! Which links are ports: what should be open against what is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{IfIndex, MacAddr, PortId, PortKind, Prefix, WorkloadEndpoint};
use tables::{Endpoint, Port, Qos, TableFull, Writer};
use tracing::{error, info, warn};

use crate::calico::Desired;
use crate::interfaces::{KernelState, Link};
use crate::netlink::Netlink;
use crate::offers::Roles;
use crate::{OpenPort, PortOpener, QueueReport, host_dhcp, sysctl, workload_side};

/// An open port.
pub struct PortRow {
    /// As the tables have it.
    pub port: Port,
    /// What its queues really got.
    pub queues: Vec<QueueReport>,
    /// May the host's own DHCP server work there?
    pub(crate) serves_dhcp: bool,
}

/// All open ports, and what keeps others from being open.
pub struct PortTable {
    rows: BTreeMap<IfIndex, PortRow>,
    problems: BTreeMap<String, String>,
    limit: usize,
    workers: u16,
}

impl PortTable {
    /// No ports; at most `limit`, served by this many workers.
    pub fn new(limit: usize, workers: u16) -> PortTable {
        PortTable { rows: BTreeMap::new(), problems: BTreeMap::new(), limit, workers }
    }

    /// Opens, closes and changes ports until they are what the links and endpoints ask for. Stages the changes in the
    /// tables; `true` where there were any.
    pub fn reconcile(
        &mut self,
        kernel: &KernelState,
        desired: &Desired,
        roles: &Roles,
        opener: &mut dyn PortOpener,
        netlink: &mut Netlink,
        writer: &mut Writer,
    ) -> bool {
        let mut changed = self.close_gone(kernel, roles, opener, writer);
        let mut problems = BTreeMap::new();
        for link in &kernel.links {
            let Some(kind) = roles.kind(link) else { continue };
            let endpoint = endpoint_of(link, kind, desired);
            match self.rows.get_mut(&link.ifindex) {
                Some(row) => changed |= follow(row, link, endpoint, writer),
                // A socket can't be bound to a link that is down; netlink tells when it comes up.
                None if !link.up => {}
                None => match self.open(link, kind, endpoint, opener, netlink, writer) {
                    Ok(()) => changed = true,
                    Err(problem) => drop(problems.insert(link.name.clone(), problem)),
                },
            }
        }
        self.serve_dhcp(kernel, desired.felix.openstack, netlink);
        for name in &roles.uplinks {
            match kernel.links.iter().find(|link| link.name == *name) {
                None => {
                    drop(problems.insert(name.clone(), "there is no such interface; waiting for it".into()))
                }
                Some(link) if !link.up && !self.rows.contains_key(&link.ifindex) => {
                    drop(problems.insert(name.clone(), "the interface is down; waiting for it".into()));
                }
                Some(_) => {}
            }
        }
        for (name, problem) in &problems {
            if self.problems.get(name) != Some(problem) {
                error!(port = name, "{name} is not a port: {problem}");
            }
        }
        self.problems = problems;
        changed
    }

    /// Lets the host's own DHCP server work on workload ports, or no longer.
    fn serve_dhcp(&mut self, kernel: &KernelState, serves: bool, netlink: &mut Netlink) {
        for link in &kernel.links {
            let row = self.rows.get_mut(&link.ifindex);
            let Some(row) =
                row.filter(|row| row.port.kind == PortKind::Workload && row.serves_dhcp != serves)
            else {
                continue;
            };
            row.serves_dhcp = serves;
            if let Err(error) = host_dhcp::set(netlink, link, serves) {
                warn!(port = link.name, "the host's DHCP server may not reach the workload: {error}");
            }
        }
    }

    fn close_gone(
        &mut self,
        kernel: &KernelState,
        roles: &Roles,
        opener: &mut dyn PortOpener,
        writer: &mut Writer,
    ) -> bool {
        let stays = |ifindex: &IfIndex, row: &PortRow| {
            let link =
                kernel.links.iter().find(|link| link.ifindex == *ifindex && link.name == row.port.name);
            link.is_some_and(|link| roles.kind(link) == Some(row.port.kind))
        };
        let gone: Vec<IfIndex> = self
            .rows
            .iter()
            .filter(|(ifindex, row)| !stays(ifindex, row))
            .map(|(ifindex, _)| *ifindex)
            .collect();
        for ifindex in &gone {
            if let Some(row) = self.rows.remove(ifindex) {
                // Out of the tables first: no frame is sent to a port that is going.
                writer.remove_port(row.port.id);
                writer.publish();
                opener.close(row.port.id);
                info!(port = row.port.name, "port closed");
            }
        }
        !gone.is_empty()
    }

    fn open(
        &mut self,
        link: &Link,
        kind: PortKind,
        endpoint: Option<Endpoint>,
        opener: &mut dyn PortOpener,
        netlink: &mut Netlink,
        writer: &mut Writer,
    ) -> Result<(), String> {
        let id = self.free_id().map_err(|full| full.to_string())?;
        if kind == PortKind::Workload {
            if let Err(error) = sysctl::silence_workload_port(&link.name) {
                warn!(port = link.name, "{error}");
            }
            if let Err(error) = workload_side::disable_transmit_checksum(netlink, link) {
                warn!(port = link.name, "the workload's checksums may be left undone: {error}");
            }
        }
        let request = OpenPort {
            port: id,
            kind,
            name: link.name.clone(),
            ifindex: link.ifindex,
            queues: link.num_rx_queues,
        };
        let queues = opener.open(&request).map_err(|error| error.to_string())?;
        for report in &queues {
            info!(
                port = link.name,
                queue = report.queue,
                worker = report.worker,
                mode = report.mode,
                attach = report.attach,
                notes = report.notes,
                "queue open"
            );
        }
        let port = Port {
            id,
            name: link.name.clone(),
            ifindex: link.ifindex,
            kind,
            mac: link.mac,
            mtu: mtu(link),
            up: link.up,
            queues: (queues.len() as u16).clamp(1, self.workers),
            endpoint,
        };
        if let Err(full) = writer.put_port(port.clone()) {
            opener.close(id);
            return Err(full.to_string());
        }
        self.rows.insert(link.ifindex, PortRow { port, queues, serves_dhcp: false });
        Ok(())
    }

    fn free_id(&self) -> Result<PortId, TableFull> {
        let taken: BTreeSet<u16> = self.rows.values().map(|row| row.port.id.0).collect();
        let limit = self.limit.min(usize::from(u16::MAX));
        (0..limit as u16)
            .find(|id| !taken.contains(id))
            .map(PortId)
            .ok_or(TableFull { table: "ports", limit: self.limit })
    }

    /// The port on a link.
    pub fn on(&self, ifindex: IfIndex) -> Option<&Port> {
        self.rows.get(&ifindex).map(|row| &row.port)
    }

    /// The port with this number.
    pub fn get(&self, id: PortId) -> Option<&Port> {
        self.rows.values().map(|row| &row.port).find(|port| port.id == id)
    }

    /// All open ports, by number of their link.
    pub fn iter(&self) -> impl Iterator<Item = &PortRow> {
        self.rows.values()
    }

    /// Interfaces that should be ports and aren't, with the reason.
    pub fn problems(&self) -> &BTreeMap<String, String> {
        &self.problems
    }

    /// The MAC address of a port.
    pub fn mac(&self, ifindex: IfIndex) -> Option<(PortId, MacAddr)> {
        self.on(ifindex).map(|port| (port.id, port.mac))
    }
}

/// Changes an open port where its link or endpoint has changed; `true` where it has.
fn follow(row: &mut PortRow, link: &Link, mut endpoint: Option<Endpoint>, writer: &mut Writer) -> bool {
    keep_buckets(row.port.endpoint.as_ref(), endpoint.as_mut(), mtu(link));
    let port = Port { mac: link.mac, mtu: mtu(link), up: link.up, endpoint, ..row.port.clone() };
    if port == row.port {
        return false;
    }
    // The row exists, so the table has room for it.
    if writer.put_port(port.clone()).is_ok() {
        row.port = port;
    }
    true
}

/// Makes new limits of an endpoint follow those before: neither its buckets nor its counts begin anew.
fn keep_buckets(before: Option<&Endpoint>, endpoint: Option<&mut Endpoint>, mtu: u16) {
    let Some((before, endpoint)) = before.zip(endpoint) else { return };
    if before.name != endpoint.name {
        return;
    }
    if let (Some(old), Some(new)) = (&before.qos, &endpoint.qos) {
        endpoint.qos = match old == new {
            true => Some(Arc::clone(old)),
            false => Qos::new(new.controls(), mtu, Some(old)),
        };
    }
}

fn mtu(link: &Link) -> u16 {
    u16::try_from(link.mtu).unwrap_or(u16::MAX)
}

fn endpoint_of(link: &Link, kind: PortKind, desired: &Desired) -> Option<Endpoint> {
    if kind != PortKind::Workload {
        return None;
    }
    desired.endpoints.values().find(|endpoint| endpoint.interface == link.name).map(|endpoint| Endpoint {
        name: format!("{}/{}", endpoint.namespace, endpoint.name),
        addresses: sources(endpoint),
        qos: Qos::new(&endpoint.qos, mtu(link), None),
    })
}

/// What a workload may send from: its own addresses, and what its endpoint allows besides. Where FelixConfiguration doesn't, there
/// is no such endpoint (`spoofing.rs`).
fn sources(endpoint: &WorkloadEndpoint) -> Vec<Prefix> {
    endpoint.ip_networks.iter().chain(&endpoint.allowed_sources).copied().collect()
}

#[cfg(test)]
mod tests;
