//! The host port: a veth pair by which the kernel is one more neighbour of the walk (ARCHITECTURE.md, D1a).
//!
//! ```text
//!  kernel's stack ── tortie0 ══════ tortie1 ── a port of the walk (AF_XDP)
//!                    kernel side    far side
//! ```
//!
//! The kernel sends to workloads by `10.65.0.2/32 via 169.254.1.1 dev tortie0 onlink` and knows the gateway's MAC for
//! good, so it never asks by ARP. The far side has no address and the kernel's stack ignores it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::{Family, IfIndex, MacAddr};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::ethtool::{self, EthtoolError};
use crate::interfaces::{self, Link};
use crate::neighbors;
use crate::netlink::{Netlink, NetlinkError};
use crate::sysctl::{self, SysctlError};

/// The kernel's end.
pub const KERNEL_SIDE: &str = "tortie0";
/// The walk's end.
pub const FAR_SIDE: &str = "tortie1";
/// Locally administered (IEEE 802-2014 §8.4), and the same on every node: nobody else is on this link.
const KERNEL_MAC: MacAddr = MacAddr([0x02, 0x74, 0x6f, 0x72, 0x74, 0x00]);
const FAR_MAC: MacAddr = MacAddr([0x02, 0x74, 0x6f, 0x72, 0x74, 0x01]);

/// The gateway that Calico's CNI plugin gives every IPv4 workload, and the kernel's on this link.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The gateway that Calico's CNI plugin gives every IPv6 workload: the link-local address of the host's veth end, whose MAC is always
/// ee:ee:ee:ee:ee:ee (RFC 4291 appendix A makes this of it).
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);

/// The kernel side's own address, which nobody sends from or to: Linux takes an ICMP error from the host's other addresses,
/// or a packet whose route leads elsewhere, only on an interface that has one (`__fib_validate_source`).
pub(crate) const KERNEL_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 116, 1);

/// Why there is no host port.
#[derive(Debug, thiserror::Error)]
pub enum HostPortError {
    /// The kernel refused a step.
    #[error("could not make the host port: {0}")]
    Netlink(#[from] NetlinkError),
    /// A setting could not be made.
    #[error("could not make the host port: {0}")]
    Sysctl(#[from] SysctlError),
    /// The checksum offload could not be switched off.
    #[error("could not make the host port: {0}")]
    Ethtool(#[from] EthtoolError),
    /// One of the names is somebody else's interface.
    #[error("there is an interface {name} that is no end of our veth pair; rename or remove it")]
    NameTaken {
        /// The interface.
        name: &'static str,
    },
    /// It vanished while it was being made.
    #[error("the interface {name} vanished while the host port was being made; is another tortie running?")]
    Vanished {
        /// The interface.
        name: &'static str,
    },
}

/// The host port as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// `tortie0`.
    pub kernel_side: IfIndex,
    /// MAC that the walk sends to.
    pub kernel_mac: MacAddr,
    /// `tortie1`.
    pub far_side: IfIndex,
    /// The name of the walk's port.
    pub far_name: &'static str,
    /// MAC that the kernel sends to.
    pub far_mac: MacAddr,
    /// Bytes of one packet, without the Ethernet header.
    pub mtu: u32,
}

impl HostPort {
    /// Makes the pair, or adopts what an earlier run left, and brings it up: `mtu` the largest of the uplinks',
    /// `queues` as many as there are workers. A pair with another number of queues is made anew.
    ///
    /// # Errors
    /// See [`HostPortError`].
    pub fn create(netlink: &mut Netlink, mtu: u32, queues: u32) -> Result<HostPort, HostPortError> {
        match existing(&interfaces::links(netlink)?)? {
            Some((kernel, _)) if kernel.num_rx_queues != queues => {
                delete(netlink, kernel.ifindex)?;
                make(netlink, mtu, queues)?;
            }
            Some(_) => {}
            None => make(netlink, mtu, queues)?,
        }
        let links = interfaces::links(netlink)?;
        let (kernel, far) = existing(&links)?.ok_or(HostPortError::Vanished { name: KERNEL_SIDE })?;
        let port = HostPort {
            kernel_side: kernel.ifindex,
            kernel_mac: KERNEL_MAC,
            far_side: far.ifindex,
            far_name: FAR_SIDE,
            far_mac: FAR_MAC,
            mtu,
        };
        port.prepare(netlink)?;
        Ok(port)
    }

    fn prepare(&self, netlink: &mut Netlink) -> Result<(), HostPortError> {
        // Settings first: an interface that comes up silent needs no silencing.
        sysctl::prepare_host_port(KERNEL_SIDE)?;
        sysctl::silence_far_side(FAR_SIDE)?;
        // What the kernel sends in must carry whole checksums: the walk passes them on as they are (D8).
        ethtool::disable_transmit_checksum(KERNEL_SIDE)?;
        set_up(netlink, self.far_side, self.far_mac, self.mtu, LinkFlags::Noarp)?;
        set_up(netlink, self.kernel_side, self.kernel_mac, self.mtu, LinkFlags::empty())?;
        set_address(netlink, self.kernel_side, GATEWAY_V4)?;
        for gateway in [IpAddr::V4(GATEWAY_V4), IpAddr::V6(GATEWAY_V6)] {
            neighbors::set_permanent(netlink, self.kernel_side, gateway, self.far_mac)?;
        }
        Ok(())
    }

    /// Gives the kernel's end an address of the node's own, with no network around it: the address is local, and a source
    /// for what the host sends into the walk.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add_address(&self, netlink: &mut Netlink, address: IpAddr) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewAddress(self.naming(address));
        netlink.request("give tortie0 a tunnel address", message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Takes an address from the kernel's end.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_address(&self, netlink: &mut Netlink, address: IpAddr) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelAddress(self.naming(address));
        netlink.request("take a tunnel address from tortie0", message, 0)
    }

    fn naming(&self, address: IpAddr) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.prefix_len = Family::of(address).bits();
        message.header.index = self.kernel_side.0;
        // Nobody else is on this link who could have the address.
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        message
    }

    /// Removes the pair, whoever made it; none there is no error.
    ///
    /// # Errors
    /// See [`HostPortError`].
    pub fn remove(netlink: &mut Netlink) -> Result<(), HostPortError> {
        match existing(&interfaces::links(netlink)?)? {
            Some((kernel, _)) => Ok(delete(netlink, kernel.ifindex)?),
            None => Ok(()),
        }
    }
}

/// Both ends, if the names are those of one veth pair.
fn existing(links: &[Link]) -> Result<Option<(&Link, &Link)>, HostPortError> {
    let find = |name: &str| links.iter().find(|link| link.name == name);
    match (find(KERNEL_SIDE), find(FAR_SIDE)) {
        (None, None) => Ok(None),
        (Some(kernel), Some(far))
            if kernel.peer == Some(far.ifindex) && kernel.kind.as_deref() == Some("veth") =>
        {
            Ok(Some((kernel, far)))
        }
        (Some(_), _) => Err(HostPortError::NameTaken { name: KERNEL_SIDE }),
        (None, Some(_)) => Err(HostPortError::NameTaken { name: FAR_SIDE }),
    }
}

fn make(netlink: &mut Netlink, mtu: u32, queues: u32) -> Result<(), NetlinkError> {
    let far = end(FAR_SIDE, FAR_MAC, mtu, queues);
    let mut message = end(KERNEL_SIDE, KERNEL_MAC, mtu, queues);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
    ]));
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    netlink.request("make the veth pair tortie0, tortie1", RouteNetlinkMessage::NewLink(message), flags)
}

fn end(name: &str, mac: MacAddr, mtu: u32, queues: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.into()),
        LinkAttribute::Address(mac.0.to_vec()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::NumTxQueues(queues),
        LinkAttribute::NumRxQueues(queues),
    ];
    message
}

fn set_up(
    netlink: &mut Netlink,
    ifindex: IfIndex,
    mac: MacAddr,
    mtu: u32,
    flags: LinkFlags,
) -> Result<(), NetlinkError> {
    let mut message = LinkMessage::default();
    message.header.index = ifindex.0;
    message.header.flags = LinkFlags::Up | flags;
    message.header.change_mask = LinkFlags::Up | flags;
    message.attributes = vec![LinkAttribute::Address(mac.0.to_vec()), LinkAttribute::Mtu(mtu)];
    netlink.request("bring up the host port", RouteNetlinkMessage::SetLink(message), 0)
}

/// Of scope "host", so that the kernel never chooses it as a source. On the host port the gateway is at the other end of it,
/// which makes a route back to the gateway: without one, reverse-path filtering drops the ICMP errors that come from there.
pub(crate) fn set_address(
    netlink: &mut Netlink,
    ifindex: IfIndex,
    peer: Ipv4Addr,
) -> Result<(), NetlinkError> {
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    let message = RouteNetlinkMessage::NewAddress(kernel_address(ifindex, peer));
    netlink.request("give an interface the kernel side's address", message, flags)
}

/// Takes away what [`set_address`] gave.
pub(crate) fn remove_address(
    netlink: &mut Netlink,
    ifindex: IfIndex,
    peer: Ipv4Addr,
) -> Result<(), NetlinkError> {
    let message = RouteNetlinkMessage::DelAddress(kernel_address(ifindex, peer));
    netlink.request("take the kernel side's address from an interface", message, 0)
}

fn kernel_address(ifindex: IfIndex, peer: Ipv4Addr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = 32;
    message.header.scope = AddressScope::Host;
    message.header.index = ifindex.0;
    let (address, peer) = (IpAddr::V4(KERNEL_ADDRESS), IpAddr::V4(peer));
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(peer)];
    message
}

fn delete(netlink: &mut Netlink, ifindex: IfIndex) -> Result<(), NetlinkError> {
    let mut message = LinkMessage::default();
    message.header.index = ifindex.0;
    netlink.request("remove the host port", RouteNetlinkMessage::DelLink(message), 0)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::kernel_routes::mirror::MirrorTarget;
    use crate::kernel_routes::mirror::testing::Mirrored;
    use crate::kernel_routes::policy_rules::install_rules;
    use crate::testing::{Neighborhood, has, in_namespace, ip, run};

    #[test]
    fn it_is_made_adopted_and_removed() {
        in_namespace(|| {
            let mut netlink = Netlink::open().unwrap();
            let port = HostPort::create(&mut netlink, 1400, 2).unwrap();
            let kernel = ip("-d link show tortie0");
            assert!(kernel.contains("mtu 1400") && kernel.contains("02:74:6f:72:74:00"), "{kernel}");
            assert!(kernel.contains("numrxqueues 2") && kernel.contains("numtxqueues 2"), "{kernel}");
            let far = ip("link show tortie1");
            assert!(far.contains("NOARP") && far.contains("UP,LOWER_UP"), "{far}");
            assert_eq!(ip("addr show tortie1").matches("inet").count(), 0);
            let address = ip("-4 addr show tortie0");
            assert!(address.contains("inet 169.254.116.1 peer 169.254.1.1/32 scope host"), "{address}");
            assert!(
                ip("route get 169.254.1.1").contains("dev tortie0"),
                "there is a way back to the gateway"
            );
            let neighbors = ip("neigh show dev tortie0 nud permanent");
            assert!(neighbors.contains("169.254.1.1 lladdr 02:74:6f:72:74:01"), "{neighbors}");
            assert!(neighbors.contains("fe80::ecee:eeff:feee:eeee lladdr 02:74:6f:72:74:01"), "{neighbors}");

            ip("link set tortie0 down");
            let adopted = HostPort::create(&mut netlink, 9000, 2).unwrap();
            assert_eq!((adopted.kernel_side, adopted.far_side), (port.kernel_side, port.far_side));
            assert!(
                ip("link show tortie0").contains("mtu 9000")
                    && ip("link show tortie0").contains("UP,LOWER_UP")
            );
            let anew = HostPort::create(&mut netlink, 1500, 4).unwrap();
            assert_ne!(anew.kernel_side, port.kernel_side, "another number of queues needs another pair");

            HostPort::remove(&mut netlink).unwrap();
            HostPort::remove(&mut netlink).unwrap();
            assert_eq!(ip("link show type veth"), "");
        });
    }

    #[test]
    fn the_kernels_end_gets_addresses_that_are_local_and_have_no_network() {
        in_namespace(|| {
            let mut netlink = Netlink::open().unwrap();
            let port = HostPort::create(&mut netlink, 1500, 1).unwrap();
            let addresses =
                ["192.168.187.192", "fd00:187::1"].map(|address| address.parse::<IpAddr>().unwrap());
            for address in addresses {
                port.add_address(&mut netlink, address).unwrap();
                // Left by the run before.
                port.add_address(&mut netlink, address).unwrap();
                // The kernel makes an IPv6 address local a moment later.
                let deadline = Instant::now() + Duration::from_secs(60);
                while !ip(&format!("route get {address}")).starts_with("local ") {
                    assert!(Instant::now() < deadline, "{address} doesn't become local");
                }
            }
            let shown = ip("addr show dev tortie0");
            assert!(shown.contains("inet 192.168.187.192/32 "), "{shown}");
            assert!(shown.contains("inet6 fd00:187::1/128 ") && !shown.contains("tentative"), "{shown}");
            let state = interfaces::dump(&mut netlink).unwrap();
            let there = crate::tunneling::addresses_on(&state, port.kernel_side);
            assert_eq!(there, addresses.into_iter().collect());
            for address in addresses {
                port.remove_address(&mut netlink, address).unwrap();
            }
            let state = interfaces::dump(&mut netlink).unwrap();
            assert!(crate::tunneling::addresses_on(&state, port.kernel_side).is_empty());
        });
    }

    #[test]
    fn the_kernel_sends_whole_checksums() {
        if !has("ethtool") {
            return;
        }
        in_namespace(|| {
            HostPort::create(&mut Netlink::open().unwrap(), 1500, 1).unwrap();
            let features = run("ethtool", "-k tortie0");
            assert!(features.contains("tx-checksumming: off"), "{features}");
            assert!(features.contains("tx-tcp-segmentation: off"), "{features}");
        });
    }

    #[test]
    fn a_strangers_interface_of_that_name_is_left_alone() {
        in_namespace(|| {
            ip("link add tortie0 type veth peer name somebody");
            let error = HostPort::create(&mut Netlink::open().unwrap(), 1500, 1).unwrap_err();
            assert!(matches!(error, HostPortError::NameTaken { name: "tortie0" }), "{error}");
            assert!(ip("link show").contains("somebody"));
        });
    }

    #[test]
    fn what_the_host_sends_to_a_workload_comes_out_at_the_far_side_without_any_question() {
        in_namespace(|| {
            let mut netlink = Netlink::open().unwrap();
            sysctl::enable_forwarding([]).unwrap();
            let port = HostPort::create(&mut netlink, 1500, 1).unwrap();
            install_rules(&mut netlink).unwrap();
            ip("addr add 172.16.6.47/32 dev lo");
            // Without duplicate address detection: a tentative address is no source for a route yet.
            ip("addr add 2001:db8::47/128 dev lo nodad");
            let mut mirrored = Mirrored::start(10);
            let (v4, v6): (IpAddr, IpAddr) =
                ("172.16.6.47".parse().unwrap(), "2001:db8::47".parse().unwrap());
            for (prefix, via, source) in
                [("10.65.0.2/32", GATEWAY_V4.into(), v4), ("fd00::2/128", IpAddr::V6(GATEWAY_V6), v6)]
            {
                let target = MirrorTarget::HostPort {
                    ifindex: port.kernel_side,
                    via,
                    source: Some(source),
                    mtu: None,
                };
                mirrored.install(prefix, target);
            }
            mirrored.settle();
            assert_eq!(mirrored.mirror.status().failed, 0, "{:?}", mirrored.mirror.status());
            let route = ip("route get 10.65.0.2");
            assert!(
                route.contains("via 169.254.1.1 dev tortie0") && route.contains("src 172.16.6.47"),
                "{route}"
            );
            assert!(ip("route get fd00::2").contains("dev tortie0"));

            let received = || {
                let shown = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
                let line =
                    shown.lines().find(|line| line.trim_start().starts_with("tortie1:")).unwrap().to_owned();
                line.split_whitespace().nth(2).unwrap().parse::<u64>().unwrap()
            };
            for destination in ["10.65.0.2:9", "[fd00::2]:9"] {
                let source = if destination.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
                let before = received();
                let socket = std::net::UdpSocket::bind(source).unwrap();
                socket.send_to(b"hello", destination).unwrap();
                // The kernel's multicast reports may come in between; a packet that circles comes by 64 times.
                let count = received() - before;
                assert!((1..10).contains(&count), "{count} packets came out");
            }
            for state in ["incomplete", "failed"] {
                assert_eq!(ip(&format!("neigh show dev tortie0 nud {state}")), "", "nobody was asked for");
            }
        });
    }

    #[test]
    fn a_ping_from_a_workload_beyond_the_far_side_is_answered_despite_a_strict_reverse_path_filter() {
        if !has("ping") {
            return;
        }
        in_namespace(|| {
            std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").unwrap();
            let mut netlink = Netlink::open().unwrap();
            let port = HostPort::create(&mut netlink, 1500, 1).unwrap();
            install_rules(&mut netlink).unwrap();
            ip("addr add 172.16.6.47/32 dev lo");
            // Without duplicate address detection: a tentative address is no source for a route yet.
            ip("addr add 2001:db8::47/128 dev lo nodad");
            let mut mirrored = Mirrored::start(10);
            for (prefix, via) in [("10.65.0.0/24", GATEWAY_V4.into()), ("fd00::/64", IpAddr::V6(GATEWAY_V6))]
            {
                let target =
                    MirrorTarget::HostPort { ifindex: port.kernel_side, via, source: None, mtu: None };
                mirrored.install(prefix, target);
            }
            mirrored.settle();

            // Another kernel plays the walk: it has the far side's MAC and knows ours for good.
            let walk = Neighborhood::empty();
            walk.take(FAR_SIDE);
            walk.ip(&format!("link set {FAR_SIDE} arp on up"));
            for (own, host) in [("10.65.0.2/32", "172.16.6.47"), ("fd00::2/128", "2001:db8::47")] {
                let nodad = if own.contains(':') { "nodad" } else { "" };
                walk.ip(&format!("addr add {own} dev {FAR_SIDE} {nodad}"));
                walk.ip(&format!("route add {host} dev {FAR_SIDE}"));
                walk.ip(&format!("neigh add {host} lladdr {} dev {FAR_SIDE}", port.kernel_mac));
                assert!(walk.succeeds(&format!("ping -c 1 -W 2 {host}")), "{own} pings {host}");
            }
        });
    }
}
