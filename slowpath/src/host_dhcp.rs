//! The host's own DHCP server, on workload ports. Under OpenStack Calico's DHCP agent runs dnsmasq on every compute node, which
//! listens on the instances' interfaces.
//!
//! ```text
//!  request, by broadcast, multicast or to the host   XDP -> walk -> punt (`dhcp`) -> the kernel receives it on the port
//!  router and neighbour discovery                    the same way, beside what the slow path answers itself
//!  the server's answer                               the kernel sends it out of the port: AF_XDP takes what is received only
//! ```
//!
//! So that every frame of a workload is still the walk's to judge (ARCHITECTURE.md, D1). The kernel then needs what
//! it has nowhere else on such a port: an address, since Linux takes a packet whose route leads elsewhere (to the host port) only
//! on an interface that has one, and IPv6 of its own; and the guard (`forwarding_guard.rs`) lets in what is for the server.

use crate::host_port::{self, KERNEL_ADDRESS};
use crate::interfaces::{self, Link};
use crate::netlink::{Netlink, NetlinkError};
use crate::sysctl::{self, SysctlError};

/// Why a server may not work on a port.
#[derive(Debug, thiserror::Error)]
pub enum HostDhcpError {
    /// A setting can't be made.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The address can't be given.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Lets a server work on a workload port, or no longer.
///
/// # Errors
/// See [`HostDhcpError`].
pub fn set(netlink: &mut Netlink, link: &Link, serves: bool) -> Result<(), HostDhcpError> {
    if serves {
        sysctl::open_workload_port(&link.name)?;
        host_port::set_address(netlink, link.ifindex, KERNEL_ADDRESS)?;
    } else {
        sysctl::silence_workload_port(&link.name)?;
        host_port::remove_address(netlink, link.ifindex, KERNEL_ADDRESS)?;
    }
    Ok(())
}

/// Takes the address from every interface whose name begins with `prefix`. For a clean uninstall.
///
/// # Errors
/// The kernel refuses.
pub fn remove(netlink: &mut Netlink, prefix: &str) -> Result<(), NetlinkError> {
    let kernel = interfaces::dump(netlink)?;
    for link in kernel.links.iter().filter(|link| link.name.starts_with(prefix)) {
        let has = |address: &interfaces::Address| {
            address.ifindex == link.ifindex && address.addr.addr == KERNEL_ADDRESS
        };
        if kernel.addresses.iter().any(has) {
            host_port::remove_address(netlink, link.ifindex, KERNEL_ADDRESS)?;
        }
    }
    Ok(())
}

/// Is it neighbour or router discovery that the kernel needs to hear, so that its server's answers by IPv6 find their way: a
/// solicitation, or a neighbour's advertisement? Not a router's: no workload is the host's.
pub fn is_discovery(frame: &[u8]) -> bool {
    let Ok(parsed) = packet::parse(frame) else { return false };
    matches!(parsed.l4_packet(frame).first(), Some(133 | 135 | 136))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
    use std::path::Path;
    use std::time::Duration;

    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::testing::{Neighborhood, has, in_namespace, ip, uninterrupted};
    use crate::{forwarding_guard, sysctl};

    const WORKLOAD: Ipv4Addr = Ipv4Addr::new(10, 65, 0, 2);
    /// An address of the server's, on another interface.
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 65, 0, 1);
    /// How long a request may take that will come.
    const SURELY: Duration = Duration::from_secs(60);
    /// How long to wait for one that won't.
    const IN_VAIN: Duration = Duration::from_millis(300);

    fn link(netlink: &mut Netlink) -> Link {
        let links = interfaces::links(netlink).unwrap();
        links.into_iter().find(|link| link.name == "tap1").unwrap()
    }

    /// A host whose routes to its workload lead elsewhere, and which filters strictly; the guard and the port's settings are
    /// as they are on a workload port.
    fn host() -> (Neighborhood, UdpSocket) {
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").unwrap();
        let workload = Neighborhood::behind("tap1", "eth0");
        for line in [
            "link add elsewhere type veth peer name nowhere",
            "link set elsewhere up",
            "link set nowhere up",
            "addr add 10.65.0.1/32 dev elsewhere",
            "route add 10.65.0.0/26 dev elsewhere",
        ] {
            ip(line);
        }
        workload.ip("addr add 10.65.0.2/32 dev eth0");
        workload.ip("route add default dev eth0");
        workload
            .ip(&format!("neigh add {SERVER} lladdr {} dev eth0", link(&mut Netlink::open().unwrap()).mac));
        sysctl::silence_workload_port("tap1").unwrap();
        forwarding_guard::install(&["tap"], false).unwrap();
        let server = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        server.bind_device(Some(b"tap1")).unwrap();
        server.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 67).into()).unwrap();
        (workload, UdpSocket::from(server))
    }

    /// The workload renews its lease: from this port, by a broadcast and with its server alone. How often it is heard, which is
    /// waited for as far as it is to be.
    fn heard(workload: &Neighborhood, server: &UdpSocket, from: u16, due: usize) -> usize {
        workload.inside(|| {
            let client = UdpSocket::bind(SocketAddrV4::new(WORKLOAD, from)).unwrap();
            client.set_broadcast(true).unwrap();
            for to in [Ipv4Addr::BROADCAST, SERVER] {
                client.send_to(b"request", SocketAddrV4::new(to, 67)).unwrap();
            }
        });
        let mut heard = 0;
        loop {
            server.set_read_timeout(Some(if heard < due { SURELY } else { IN_VAIN })).unwrap();
            match uninterrupted(|| server.recv_from(&mut [0; 16])) {
                Ok((_, by)) if by == SocketAddr::from((WORKLOAD, from)) => heard += 1,
                Ok(_) => {}
                Err(_) => return heard,
            }
        }
    }

    #[test]
    fn a_server_hears_requests_and_nothing_else_and_only_where_it_may() {
        if !has("nft") {
            return;
        }
        in_namespace(|| {
            let mut netlink = Netlink::open().unwrap();
            let (workload, server) = host();
            let link = link(&mut netlink);
            assert_eq!(heard(&workload, &server, 68, 0), 0);
            forwarding_guard::install(&["tap"], true).unwrap();
            assert_eq!(heard(&workload, &server, 68, 0), 0, "a strict host: the way back leads elsewhere");
            for _ in 0..2 {
                set(&mut netlink, &link, true).unwrap();
            }
            assert_eq!(heard(&workload, &server, 68, 2), 2);
            assert_eq!(heard(&workload, &server, 1068, 0), 0, "no client's port");
            let ipv6 = Path::new("/proc/sys/net/ipv6/conf/tap1/disable_ipv6");
            assert_eq!(sysctl::read(ipv6).unwrap(), "0");
            assert!(!ip("-4 route get 8.8.8.8 from 10.65.0.1 oif tap1").contains("169.254.116.1"));
            set(&mut netlink, &link, false).unwrap();
            forwarding_guard::install(&["tap"], false).unwrap();
            assert_eq!((heard(&workload, &server, 68, 0), sysctl::read(ipv6).unwrap()), (0, "1".into()));
            assert_eq!(ip("-4 addr show dev tap1"), "");
        });
    }

    #[test]
    fn an_uninstall_takes_the_addresses_back() {
        in_namespace(|| {
            let mut netlink = Netlink::open().unwrap();
            let _workload = Neighborhood::behind("tap1", "eth0");
            let link = link(&mut netlink);
            set(&mut netlink, &link, true).unwrap();
            assert!(ip("-4 addr show dev tap1").contains("169.254.116.1/32 scope host"));
            for _ in 0..2 {
                remove(&mut netlink, "tap").unwrap();
            }
            assert_eq!(ip("-4 addr show dev tap1"), "");
        });
    }

    #[test]
    fn solicitations_and_neighbours_advertisements_are_the_kernels_too() {
        let said = |icmp_type: u8| {
            let mut frame = vec![0; 14 + 40 + 24];
            frame[12..14].copy_from_slice(&[0x86, 0xdd]);
            frame[14] = 0x60;
            frame[19] = 24;
            frame[20] = 58;
            frame[54] = icmp_type;
            is_discovery(&frame)
        };
        assert_eq!((128..=140).filter(|icmp_type| said(*icmp_type)).collect::<Vec<u8>>(), [133, 135, 136]);
    }
}
