//! Links and addresses, and the stream of what the kernel changes.
//!
//! Subscribe first ([`Monitor::open`]), dump afterwards ([`dump`]): a change between the two is then seen twice
//! rather than never.

use std::io;
use std::net::IpAddr;

use model::{IfIndex, InterfaceAddr, MacAddr};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use socket2::{SockFilter, SockRef};

use crate::kernel_routes::{KernelRoute, MIRROR_PROTOCOL};
use crate::neighbors::{self, NeighborFact};
use crate::netlink::{self, DATAGRAM_BYTES_MAX, Netlink, NetlinkError};

/// Room for a burst of notices: some tens of thousands, at about 400 bytes each with the kernel's bookkeeping.
const RECEIVE_BUFFER_BYTES: usize = 16 * 1024 * 1024;
/// RTNLGRP_LINK, _NEIGH, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE as bits (`linux/rtnetlink.h`).
const GROUPS: u32 = group(1) | group(3) | group(5) | group(7) | group(9) | group(11);
/// ENOBUFS: the kernel had more notices than the receive buffer had room.
const ENOBUFS: i32 = 105;

const fn group(number: u32) -> u32 {
    1 << (number - 1)
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number.
    pub ifindex: IfIndex,
    /// The kernel's name.
    pub name: String,
    /// Its MAC; zero where it has none of six octets.
    pub mac: MacAddr,
    /// Bytes of one packet, without the Ethernet header.
    pub mtu: u32,
    /// Set up by the administrator, and with a carrier.
    pub up: bool,
    /// The kernel's kind, such as `veth` or `vlan`; `None` for a NIC.
    pub kind: Option<String>,
    /// The other end of a veth, or the lower interface of a VLAN; in another namespace if `peer_netns` is set.
    pub peer: Option<IfIndex>,
    /// The kernel's id of the namespace where `peer` lives, if it is not ours (`IFLA_LINK_NETNSID`).
    pub peer_netns: Option<i32>,
    /// Receive queues it was made with.
    pub num_rx_queues: u32,
}

/// How far an address is valid, the widest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everywhere.
    Global,
    /// On its link only: 169.254.0.0/16 where so marked, and fe80::/10.
    Link,
    /// In this host only: the loopback's.
    Host,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub ifindex: IfIndex,
    /// Its own address and the length of its network.
    pub addr: InterfaceAddr,
    /// How far it is valid.
    pub scope: Scope,
}

/// A change in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelEvent {
    /// A link is new, or something about it changed. When it goes down the kernel drops IPv4 routes through it
    /// without a notice: compare with a fresh [`learned_routes`](crate::kernel_routes::learned_routes).
    LinkChanged(Link),
    /// A link is gone, and with it its addresses, neighbours and routes; IPv4 routes go without a notice.
    LinkRemoved(IfIndex),
    /// An address is new or changed.
    AddressAdded(Address),
    /// An address is gone.
    AddressRemoved(Address),
    /// A neighbour is new or changed.
    NeighborChanged(NeighborFact),
    /// A neighbour was forgotten.
    NeighborRemoved {
        /// The interface it lived on.
        ifindex: IfIndex,
        /// Its address.
        addr: IpAddr,
    },
    /// A route we learn from is new, or replaces the one of the same prefix and metric.
    RouteChanged(KernelRoute),
    /// A route is gone. Of an IPv6 multipath route the kernel may remove, and name here, one next hop alone.
    RouteRemoved(KernelRoute),
    /// Notices were lost: everything must be dumped again.
    Overrun,
}

/// Everything the kernel knows of its network, at one time or near it.
#[derive(Clone, Debug, Default)]
pub struct KernelState {
    /// All links.
    pub links: Vec<Link>,
    /// All addresses.
    pub addresses: Vec<Address>,
    /// All neighbours.
    pub neighbors: Vec<NeighborFact>,
    /// The routes we learn from: see [`KernelRoute::is_learned`].
    pub routes: Vec<KernelRoute>,
}

/// Reads the kernel's links, addresses, neighbours and the routes to learn.
///
/// # Errors
/// Where the kernel refuses, or its tables change faster than they can be read.
pub fn dump(netlink: &mut Netlink) -> Result<KernelState, NetlinkError> {
    Ok(KernelState {
        links: links(netlink)?,
        addresses: addresses(netlink)?,
        neighbors: dump_neighbors(netlink)?,
        routes: crate::kernel_routes::learned_routes(netlink)?,
    })
}

/// Reads the kernel's links.
///
/// # Errors
/// As [`dump`].
pub fn links(netlink: &mut Netlink) -> Result<Vec<Link>, NetlinkError> {
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    netlink.dump("list links", request, |row| match row {
        RouteNetlinkMessage::NewLink(link) => Link::from_message(&link),
        _ => None,
    })
}

pub(crate) fn addresses(netlink: &mut Netlink) -> Result<Vec<Address>, NetlinkError> {
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    netlink.dump("list addresses", request, |row| match row {
        RouteNetlinkMessage::NewAddress(address) => Address::from_message(&address),
        _ => None,
    })
}

fn dump_neighbors(netlink: &mut Netlink) -> Result<Vec<NeighborFact>, NetlinkError> {
    let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    netlink.dump("list neighbours", request, |row| match row {
        RouteNetlinkMessage::NewNeighbour(neighbor) => NeighborFact::from_message(&neighbor),
        _ => None,
    })
}

impl Link {
    /// `None` for a notice about something else than a link, such as a bridge's port.
    fn from_message(message: &LinkMessage) -> Option<Link> {
        if message.header.interface_family != AddressFamily::Unspec {
            return None;
        }
        let flags = message.header.flags;
        let mut link = Link {
            ifindex: IfIndex(message.header.index),
            name: String::new(),
            mac: MacAddr::default(),
            mtu: 0,
            up: flags.contains(LinkFlags::Up) && flags.contains(LinkFlags::LowerUp),
            kind: None,
            peer: None,
            peer_netns: None,
            num_rx_queues: 1,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(bytes) => {
                    link.mac = bytes.as_slice().try_into().map(MacAddr).unwrap_or_default();
                }
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Link(peer) => link.peer = Some(IfIndex(*peer)),
                LinkAttribute::LinkNetNsId(id) => link.peer_netns = Some(*id),
                LinkAttribute::NumRxQueues(queues) => link.num_rx_queues = *queues,
                LinkAttribute::LinkInfo(infos) => link.kind = kind(infos),
                _ => {}
            }
        }
        Some(link)
    }
}

fn kind(infos: &[LinkInfo]) -> Option<String> {
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

impl Address {
    fn from_message(message: &AddressMessage) -> Option<Address> {
        let mut own = None;
        let mut far_or_own = None;
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(addr) => own = Some(*addr),
                // The far end's on a point-to-point link, else the same as IFA_LOCAL or alone (IPv6).
                AddressAttribute::Address(addr) => far_or_own = Some(*addr),
                _ => {}
            }
        }
        let scope = match message.header.scope {
            AddressScope::Universe | AddressScope::Site => Scope::Global,
            AddressScope::Link => Scope::Link,
            _ => Scope::Host,
        };
        let addr = InterfaceAddr { addr: own.or(far_or_own)?, len: message.header.prefix_len };
        (addr.len <= model::Family::of(addr.addr).bits()).then_some(Address {
            ifindex: IfIndex(message.header.index),
            addr,
            scope,
        })
    }
}

impl KernelEvent {
    fn from_message(message: RouteNetlinkMessage) -> Option<KernelEvent> {
        Some(match message {
            RouteNetlinkMessage::NewLink(link) => KernelEvent::LinkChanged(Link::from_message(&link)?),
            RouteNetlinkMessage::DelLink(link) => {
                KernelEvent::LinkRemoved(Link::from_message(&link)?.ifindex)
            }
            RouteNetlinkMessage::NewAddress(addr) => KernelEvent::AddressAdded(Address::from_message(&addr)?),
            RouteNetlinkMessage::DelAddress(addr) => {
                KernelEvent::AddressRemoved(Address::from_message(&addr)?)
            }
            RouteNetlinkMessage::NewNeighbour(neighbor) => {
                KernelEvent::NeighborChanged(NeighborFact::from_message(&neighbor)?)
            }
            RouteNetlinkMessage::DelNeighbour(neighbor) => {
                let (ifindex, addr) = neighbors::named_in(&neighbor)?;
                KernelEvent::NeighborRemoved { ifindex, addr }
            }
            RouteNetlinkMessage::NewRoute(route) => {
                KernelEvent::RouteChanged(KernelRoute::from_message(&route).filter(KernelRoute::is_learned)?)
            }
            RouteNetlinkMessage::DelRoute(route) => {
                KernelEvent::RouteRemoved(KernelRoute::from_message(&route).filter(KernelRoute::is_learned)?)
            }
            _ => return None,
        })
    }
}

/// A subscription to the kernel's changes.
///
/// A reader that falls behind loses nothing silently: the socket's buffer fills and [`KernelEvent::Overrun`] follows.
pub struct Monitor {
    socket: TokioSocket,
    datagram: Vec<u8>,
    /// Events of the last datagram, last first.
    waiting: Vec<KernelEvent>,
}

impl Monitor {
    /// Subscribes, in the network namespace of the calling thread; needs a tokio runtime with I/O around it.
    ///
    /// # Errors
    /// Where the kernel grants no socket.
    pub fn open() -> Result<Monitor, NetlinkError> {
        let mut async_socket = TokioSocket::new(NETLINK_ROUTE).map_err(NetlinkError::Open)?;
        let socket = async_socket.socket_mut();
        netlink::enlarge_receive_buffer(socket, RECEIVE_BUFFER_BYTES);
        SockRef::from(&*socket).attach_filter(&without_mirror_routes()).map_err(NetlinkError::Open)?;
        socket.bind(&SocketAddr::new(0, GROUPS)).map_err(NetlinkError::Open)?;
        let datagram = Vec::with_capacity(DATAGRAM_BYTES_MAX);
        Ok(Monitor { socket: async_socket, datagram, waiting: Vec::new() })
    }

    /// The next change. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Where the socket fails for good.
    pub async fn next(&mut self) -> Result<KernelEvent, NetlinkError> {
        loop {
            if let Some(event) = self.waiting.pop() {
                return Ok(event);
            }
            self.datagram.clear();
            match self.socket.recv(&mut self.datagram).await {
                Ok(()) => self.waiting = events(&self.datagram),
                Err(error) if error.raw_os_error() == Some(ENOBUFS) => return Ok(KernelEvent::Overrun),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(socket_error(error)),
            }
        }
    }
}

fn socket_error(source: io::Error) -> NetlinkError {
    NetlinkError::Socket { what: "follow the kernel's changes", source }
}

/// The events of a datagram, last first. A notice that can't be parsed is skipped and logged.
fn events(datagram: &[u8]) -> Vec<KernelEvent> {
    let mut events = Vec::new();
    for message in netlink::messages(datagram) {
        match message {
            Ok(NetlinkMessage { payload: NetlinkPayload::InnerMessage(inner), .. }) => {
                events.extend(KernelEvent::from_message(inner));
            }
            Ok(NetlinkMessage { payload: NetlinkPayload::Overrun(_), .. }) => {
                events.push(KernelEvent::Overrun)
            }
            Ok(_) => {}
            Err(reason) => tracing::debug!(%reason, "skipped a kernel notice that could not be parsed"),
        }
    }
    events.reverse();
    events
}

/// A socket filter that keeps out notices of our own mirror routes: a full internet table going in would otherwise
/// come back as a million notices, overrun the socket, and cause the resync that causes the next.
///
/// Classic BPF reads halfwords in network order while netlink writes them in the host's, hence `to_be`.
fn without_mirror_routes() -> [SockFilter; 7] {
    const LOAD_HALFWORD: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const RTM_NEWROUTE: u16 = 24;
    const RTM_DELROUTE: u16 = 25;
    /// `nlmsghdr.nlmsg_type`.
    const TYPE_AT: u32 = 4;
    /// `rtmsg.rtm_protocol`, after the 16 bytes of `nlmsghdr`.
    const PROTOCOL_AT: u32 = 16 + 5;
    let kind = |kind: u16| u32::from(kind.to_be());
    // A jump's two numbers are the instructions to skip when equal and when not.
    [
        SockFilter::new(LOAD_HALFWORD, 0, 0, TYPE_AT),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, kind(RTM_NEWROUTE)),
        SockFilter::new(JUMP_IF_EQUAL, 0, 2, kind(RTM_DELROUTE)),
        SockFilter::new(LOAD_BYTE, 0, 0, PROTOCOL_AT),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, u32::from(MIRROR_PROTOCOL)),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// Brings a link's MTU down to `mtu` bytes, where it is larger.
///
/// # Errors
/// The kernel refuses.
pub fn lower_mtu(netlink: &mut Netlink, link: &Link, mtu: u32) -> Result<(), NetlinkError> {
    if link.mtu <= mtu {
        return Ok(());
    }
    let mut message = LinkMessage::default();
    message.header.index = link.ifindex.0;
    message.attributes = vec![LinkAttribute::Mtu(mtu)];
    netlink.request("lower an interface's MTU", RouteNetlinkMessage::SetLink(message), 0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::{Neighborhood, in_namespace, in_namespace_async, ip};
    use model::Prefix;

    /// Reads events until one is `expected`; panics after a minute, naming what came instead.
    async fn wait_for(
        monitor: &mut Monitor,
        what: &str,
        expected: impl Fn(&KernelEvent) -> bool,
    ) -> KernelEvent {
        let mut seen = Vec::new();
        let found = tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                let event = monitor.next().await.unwrap();
                if expected(&event) {
                    return event;
                }
                seen.push(event);
            }
        });
        match found.await {
            Ok(event) => event,
            Err(_) => panic!("no event: {what}; saw {seen:#?}"),
        }
    }

    #[test]
    fn links_addresses_neighbours_and_routes_are_seen_to_come_and_go() {
        in_namespace_async(async || {
            let mut monitor = Monitor::open().unwrap();
            ip("link add up0 type veth peer name far0");
            ip("link set far0 up");
            ip("link set up0 address 02:00:00:00:00:01 mtu 1400 up");
            let is_up =
                |event: &KernelEvent| matches!(event, KernelEvent::LinkChanged(l) if l.up && l.name == "up0");
            let KernelEvent::LinkChanged(link) = wait_for(&mut monitor, "link up", is_up).await else {
                return;
            };
            assert_eq!((link.mtu, link.kind.as_deref()), (1400, Some("veth")));
            assert_eq!(link.mac.to_string(), "02:00:00:00:00:01");
            let ifindex = link.ifindex;

            ip("addr add 192.0.2.1/24 dev up0");
            let addr = "192.0.2.1/24".parse().unwrap();
            let address = Address { ifindex, addr, scope: Scope::Global };
            wait_for(&mut monitor, "address", |e| *e == KernelEvent::AddressAdded(address)).await;

            ip("neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev up0");
            let expected = |e: &KernelEvent| {
                matches!(e, KernelEvent::NeighborChanged(n)
                if n.addr.to_string() == "192.0.2.9" && (n.mac.is_some() && n.state.is_usable()) && n.ifindex == ifindex)
            };
            wait_for(&mut monitor, "neighbour", expected).await;
            ip("neigh del 192.0.2.9 dev up0");
            let gone = |e: &KernelEvent| match e {
                KernelEvent::NeighborRemoved { addr, .. } => addr.to_string() == "192.0.2.9",
                KernelEvent::NeighborChanged(fact) => !fact.state.is_usable(),
                _ => false,
            };
            wait_for(&mut monitor, "neighbour gone", gone).await;

            ip("route add 198.51.100.0/24 via 192.0.2.9 metric 7");
            let prefix: Prefix = "198.51.100.0/24".parse().unwrap();
            let added = |e: &KernelEvent| matches!(e, KernelEvent::RouteChanged(r) if r.prefix == prefix && r.metric == 7);
            wait_for(&mut monitor, "route", added).await;
            ip("route del 198.51.100.0/24");
            let removed = |e: &KernelEvent| matches!(e, KernelEvent::RouteRemoved(r) if r.prefix == prefix);
            wait_for(&mut monitor, "route gone", removed).await;

            ip("addr del 192.0.2.1/24 dev up0");
            wait_for(&mut monitor, "address gone", |e| *e == KernelEvent::AddressRemoved(address)).await;
            ip("link del up0");
            wait_for(&mut monitor, "link gone", |e| *e == KernelEvent::LinkRemoved(ifindex)).await;
        });
    }

    #[test]
    fn our_mirror_routes_make_no_events() {
        in_namespace_async(async || {
            let mut monitor = Monitor::open().unwrap();
            ip("route add blackhole 198.51.100.0/24 table 116 proto 116");
            ip("route add blackhole 2001:db8:1::/48 table 116 proto 116");
            ip("route del blackhole 198.51.100.0/24 table 116 proto 116");
            ip("route add blackhole 203.0.113.0/24");
            let first = monitor.next().await.unwrap();
            assert!(
                matches!(&first, KernelEvent::RouteChanged(r) if r.prefix.to_string() == "203.0.113.0/24"),
                "{first:?}"
            );
        });
    }

    #[test]
    fn a_reader_that_falls_behind_is_told() {
        in_namespace_async(async || {
            let mut monitor = Monitor::open().unwrap();
            // The smallest buffer the kernel grants, so that a few notices overrun it.
            SockRef::from(monitor.socket.socket_ref()).set_recv_buffer_size(1).unwrap();
            for n in 0..50 {
                ip(&format!("route add blackhole 198.51.100.{n}"));
            }
            wait_for(&mut monitor, "overrun", |e| *e == KernelEvent::Overrun).await;
        });
    }

    #[test]
    fn a_dump_shows_all_of_it() {
        in_namespace(|| {
            let _there = Neighborhood::behind("up0", "far0");
            ip("addr add 192.0.2.1/24 dev up0");
            ip("addr add 2001:db8::1/64 dev up0 nodad");
            ip("neigh add 2001:db8::9 lladdr 02:00:00:00:00:09 dev up0");
            ip("route add default via 192.0.2.9");
            ip("route add 10.9.0.0/16 proto static nexthop via 192.0.2.7 weight 3 nexthop via 192.0.2.8");
            ip("route add unreachable 2001:db8:f::/48 metric 9");
            ip("route add blackhole 10.1.0.0/16 table 116 proto 116");
            let state = dump(&mut Netlink::open().unwrap()).unwrap();
            let link = state.links.iter().find(|link| link.name == "up0").unwrap();
            assert_eq!(link.kind.as_deref(), Some("veth"));
            assert!(link.peer.is_some() && link.peer_netns.is_some() && link.num_rx_queues > 0, "{link:?}");
            let addresses: Vec<String> = state
                .addresses
                .iter()
                .filter(|a| a.ifindex == link.ifindex && a.scope == Scope::Global)
                .map(|a| a.addr.to_string())
                .collect();
            assert_eq!(addresses, ["192.0.2.1/24", "2001:db8::1/64"]);
            assert!(
                state
                    .neighbors
                    .iter()
                    .any(|n| n.addr.to_string() == "2001:db8::9" && (n.mac.is_some() && n.state.is_usable()))
            );
            let routes: Vec<(String, usize, u32)> =
                state.routes.iter().map(|r| (r.prefix.to_string(), r.nexthops.len(), r.metric)).collect();
            assert_eq!(routes.len(), 3, "neither connected routes nor our own: {routes:?}");
            assert!(routes.contains(&("0.0.0.0/0".into(), 1, 0)));
            assert!(routes.contains(&("2001:db8:f::/48".into(), 0, 9)));
            let multipath = state.routes.iter().find(|r| r.nexthops.len() == 2).unwrap();
            assert_eq!(multipath.nexthops.iter().map(|n| n.weight).collect::<Vec<_>>(), [3, 1]);
        });
    }
}
