//! The MTU that workloads' interfaces should have: the uplinks', less what the tunnels in use add.
//!
//! Calico's CNI plugin sets it when a workload is born, by what Felix wrote down; a workload that is older, or was born with
//! another idea, sends packets that its tunnel can't carry, and learns of each destination's MTU by ICMP. So the interface
//! of every workload is brought down to what the tunnels leave, at both ends, and never up: a smaller one has its reason.

use std::collections::BTreeMap;

use model::{EncapMode, Family, IfIndex, PortKind};
use tables::Port;
use tracing::{info, warn};

use crate::calico::Desired;
use crate::interfaces::{KernelState, Link};
use crate::netlink::Netlink;
use crate::offers::Roles;
use crate::port_table::PortRow;
use crate::workload_side;

/// What each encapsulation adds to a packet, in bytes (`felix/dataplane/linux/int_dataplane.go`, `ConfigureDefaultMTUs`).
const IPIP_OVERHEAD: u32 = 20;
/// See [`IPIP_OVERHEAD`].
const VXLAN_OVERHEAD: u32 = 50;
/// VXLAN over IPv6; see [`IPIP_OVERHEAD`].
const VXLAN_V6_OVERHEAD: u32 = 70;

/// What a new workload's should be: as [`of`], and the uplinks' where there are no tunnels (`determinePodMTU` in
/// `felix/dataplane/linux/int_dataplane.go`). `None` while no uplink is up.
pub fn of_new(kernel: &KernelState, desired: &Desired, roles: &Roles) -> Option<u32> {
    let uplink = of_uplinks(kernel, roles)?;
    Some(of(kernel, desired, roles).unwrap_or(uplink))
}

/// The smallest of the uplinks that are up.
fn of_uplinks(kernel: &KernelState, roles: &Roles) -> Option<u32> {
    let uplinks = kernel.links.iter().filter(|link| link.up && roles.uplinks.contains(&link.name));
    uplinks.map(|link| link.mtu).min()
}

/// The smallest MTU of all tunnels that pools ask for, by FelixConfiguration's own numbers or by the smallest MTU of the
/// uplinks that are up; without tunnels there is nothing to bring anybody down to.
pub fn of(kernel: &KernelState, desired: &Desired, roles: &Roles) -> Option<u32> {
    let uplink = of_uplinks(kernel, roles)?;
    let felix = &desired.felix;
    let pools = || desired.pools.values();
    let ipip = felix.ipip_enabled.unwrap_or_else(|| pools().any(|pool| pool.ipip_mode != EncapMode::Never));
    let vxlan_in =
        |family| pools().any(|pool| pool.cidr.family() == family && pool.vxlan_mode != EncapMode::Never);
    let vxlan = felix.vxlan_enabled.unwrap_or_else(|| vxlan_in(Family::V4));
    let vxlan_v6 = felix.vxlan_enabled != Some(false) && vxlan_in(Family::V6);
    let mtu = |used: bool, set: Option<u16>, overhead: u32| {
        used.then(|| set.map_or(uplink.saturating_sub(overhead), u32::from))
    };
    [
        mtu(ipip, felix.ipip_mtu, IPIP_OVERHEAD),
        mtu(vxlan, felix.vxlan_mtu, VXLAN_OVERHEAD),
        mtu(vxlan_v6, felix.vxlan_mtu_v6, VXLAN_V6_OVERHEAD),
    ]
    .into_iter()
    .flatten()
    .min()
}

/// What is wrong with a port whose link may carry larger packets than its queues take. `frames`: bytes of the largest packet
/// that frames hold.
pub fn unreceivable(row: &PortRow, frames: u32) -> Option<String> {
    let receivable = row.queues.iter().map(|queue| queue.receivable).min()?;
    let Port { name, mtu, .. } = &row.port;
    let to_do = match receivable < frames {
        true => {
            "its driver or kernel gives packets in one piece only: set `mode: copy`, on Linux 6.6 or later"
        }
        false => "frames were made for smaller ones: restart tortie, or raise limits.mtu and restart",
    };
    (u32::from(*mtu) > receivable).then(|| {
        format!(
            "its MTU is {mtu}, but packets above {receivable} bytes are lost before they are looked at; {to_do}, or lower \
             the MTU of every machine on the link, such as by `ip link set {name} mtu {receivable}`"
        )
    })
}

/// What was done to workloads' interfaces.
#[derive(Debug, Default)]
pub struct WorkloadMtus {
    /// What they are to be brought down to.
    pub wanted: Option<u32>,
    /// The MTU that an interface was last brought down to, and why that failed where it did.
    done: BTreeMap<IfIndex, (u32, Option<String>)>,
    /// The MTU of each port that was warned of.
    told: BTreeMap<IfIndex, u16>,
}

impl WorkloadMtus {
    /// Brings the interfaces of all workloads down to [`Self::wanted`], each once for each value: what an administrator sets
    /// later stays.
    pub fn lower(&mut self, kernel: &KernelState, roles: &Roles, netlink: &mut Netlink) {
        let is_workload = |link: &&Link| roles.kind(link) == Some(PortKind::Workload);
        self.done.retain(|ifindex, _| kernel.links.iter().any(|link| link.ifindex == *ifindex));
        let Some(mtu) = self.wanted else { return };
        for link in kernel.links.iter().filter(is_workload) {
            if self.done.get(&link.ifindex).is_some_and(|(done, _)| *done == mtu) {
                continue;
            }
            let problem = workload_side::lower_mtu(netlink, link, mtu).err().map(|error| error.to_string());
            match &problem {
                Some(problem) => warn!(port = link.name, mtu, "the workload's MTU is left alone: {problem}"),
                None => info!(port = link.name, mtu, "the workload's MTU is at most the tunnels'"),
            }
            self.done.insert(link.ifindex, (mtu, problem));
        }
    }

    /// [`unreceivable`], once for each MTU of a port.
    pub fn untold(&mut self, row: &PortRow, frames: u32) -> Option<String> {
        let warning = unreceivable(row, frames)?;
        let Port { ifindex, mtu, .. } = row.port;
        (self.told.insert(ifindex, mtu) != Some(mtu)).then_some(warning)
    }

    /// Why the interface could not be brought down.
    pub fn problem(&self, ifindex: IfIndex) -> Option<&str> {
        self.done.get(&ifindex)?.1.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::QueueReport;
    use crate::calico::Calico;
    use model::{IpPool, MacAddr};

    fn link(ifindex: u32, name: &str, mtu: u32, up: bool) -> Link {
        Link {
            ifindex: IfIndex(ifindex),
            name: name.to_owned(),
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            mtu,
            up,
            kind: None,
            peer: None,
            peer_netns: None,
            num_rx_queues: 1,
        }
    }

    fn pool(cidr: &str, ipip_mode: EncapMode, vxlan_mode: EncapMode) -> IpPool {
        IpPool {
            name: cidr.to_owned(),
            cidr: cidr.parse().unwrap(),
            ipip_mode,
            vxlan_mode,
            nat_outgoing: false,
            disabled: false,
            disable_bgp_export: false,
        }
    }

    fn mtu(pools: &[IpPool], change: impl FnOnce(&mut Desired)) -> Option<u32> {
        let (tunnels, of_new) = mtus(pools, change);
        assert_eq!(of_new, Some(tunnels.unwrap_or(1500)), "without tunnels, that of the smallest uplink");
        tunnels
    }

    /// What the tunnels leave, and what a new workload gets.
    fn mtus(pools: &[IpPool], change: impl FnOnce(&mut Desired)) -> (Option<u32>, Option<u32>) {
        let kernel = KernelState {
            links: vec![
                link(2, "eth0", 9000, true),
                link(3, "eth1", 1500, true),
                link(4, "eth2", 1400, false),
                link(5, "mgmt0", 1300, true),
            ],
            ..KernelState::default()
        };
        let roles = Roles {
            uplinks: ["eth0", "eth1", "eth2"].map(str::to_owned).to_vec(),
            workload_prefix: "cali".to_owned(),
            host: None,
        };
        let mut desired = Calico::new("a").desired();
        desired.pools = pools.iter().map(|pool| (pool.name.clone(), pool.clone())).collect();
        change(&mut desired);
        (of(&kernel, &desired, &roles), of_new(&kernel, &desired, &roles))
    }

    #[test]
    fn the_smallest_tunnel_over_the_smallest_uplink_that_is_up_counts() {
        use EncapMode::{Always, CrossSubnet, Never};
        let plain = pool("10.65.0.0/16", Never, Never);
        let ipip = pool("10.66.0.0/16", CrossSubnet, Never);
        let vxlan = pool("10.67.0.0/16", Never, Always);
        let vxlan_v6 = pool("fd67::/48", Never, Always);
        assert_eq!(mtu(std::slice::from_ref(&plain), |_| {}), None, "no tunnel takes anything");
        assert_eq!(mtu(&[plain.clone(), ipip.clone()], |_| {}), Some(1480));
        assert_eq!(mtu(&[ipip.clone(), vxlan.clone()], |_| {}), Some(1450));
        assert_eq!(mtu(&[ipip.clone(), vxlan, vxlan_v6], |_| {}), Some(1430));
        assert_eq!(mtu(&[plain], |desired| desired.felix.ipip_enabled = Some(true)), Some(1480));
        assert_eq!(
            mtu(std::slice::from_ref(&ipip), |desired| desired.felix.ipip_enabled = Some(false)),
            None
        );
        assert_eq!(mtu(&[ipip], |desired| desired.felix.ipip_mtu = Some(1380)), Some(1380));
    }

    #[test]
    fn a_port_whose_frames_do_not_fit_is_warned_of() {
        let queue = |receivable| QueueReport {
            queue: 0,
            worker: 0,
            mode: "copy".to_owned(),
            attach: "native".to_owned(),
            receivable,
            notes: String::new(),
        };
        let port = |mtu| Port {
            id: model::PortId(0),
            name: "eth0".to_owned(),
            ifindex: IfIndex(2),
            kind: PortKind::Uplink,
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            mtu,
            up: true,
            queues: 1,
            endpoint: None,
        };
        let warning = |mtu, queues: &[u32], frames| {
            let queues = queues.iter().map(|receivable| queue(*receivable)).collect();
            unreceivable(&PortRow { port: port(mtu), queues, serves_dhcp: false }, frames)
        };
        assert_eq!(warning(1778, &[1778], 1778), None);
        assert_eq!(warning(9000, &[12_018, 12_018], 12_018), None);
        let started_small = warning(9000, &[1778], 1778).unwrap();
        assert!(started_small.contains("9000") && started_small.contains("1778 bytes"), "{started_small}");
        assert!(started_small.contains("restart tortie"), "{started_small}");
        let in_one_piece = warning(9000, &[12_018, 3826], 12_018).unwrap();
        assert!(in_one_piece.contains("3826 bytes") && in_one_piece.contains("mode: copy"), "{in_one_piece}");
    }
}
