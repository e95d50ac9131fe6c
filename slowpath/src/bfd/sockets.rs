//! BFD's UDP sockets: two ports to receive at, and a socket a session to send from (RFC 5881 §4, RFC 5883 §4).

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant, UNIX_EPOCH};

use bgp::bfd::{BfdDatagram, BfdPath, CONTROL_LEN};
use model::Family;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt,
    sockopt::{Ipv4PacketInfo, Ipv4RecvTtl, Ipv6RecvHopLimit, Ipv6RecvPacketInfo, ReceiveTimestampns},
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tracing::debug;

use crate::session_guard::send_furthest;

/// Where sessions over one hop are received, and over several.
const PORTS: [(u16, bool); 2] = [(3784, false), (4784, true)];
/// Source ports (RFC 5881 §4).
const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;
/// How many are tried for one session.
const SOURCE_TRIES: usize = 64;
/// Bytes of a datagram that are read: a packet with any authentication there is (RFC 5880 §4.2 ff.).
const READ_BYTES: usize = 128;
/// Datagrams taken of a socket in a row.
const BURST: usize = 256;
/// Network control, as for routing protocols (RFC 2474 §4.2.2.2); BIRD sends so too.
const TOS: u32 = 0xc0;

/// Where packets come in.
pub(super) struct Receivers(Vec<Receiver>);

struct Receiver {
    socket: UdpSocket,
    multihop: bool,
    /// When it was last seen without datagrams: what is in it has come since.
    emptied: Instant,
}

impl Receivers {
    /// Opens both ports, for IPv4 and, where the host has it, IPv6.
    pub(super) fn open() -> io::Result<Receivers> {
        let mut all = Vec::new();
        for (port, multihop) in PORTS {
            for family in Family::ALL {
                match receiver(family, port) {
                    Ok(socket) => {
                        let socket = UdpSocket::from_std(socket.into())?;
                        all.push(Receiver { socket, multihop, emptied: Instant::now() });
                    }
                    // A host without IPv6 has no such socket to give.
                    Err(error) if family == Family::V6 && error.kind() != io::ErrorKind::AddrInUse => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(Receivers(all))
    }

    /// Waits until one of them has something; for ever where there are none.
    pub(super) async fn readable(receivers: Option<&Receivers>) {
        let Some(Receivers(all)) = receivers else { return std::future::pending().await };
        let mut waiting: Vec<_> = all.iter().map(|receiver| Box::pin(receiver.socket.readable())).collect();
        std::future::poll_fn(|context| {
            let ready = waiting.iter_mut().any(|one| one.as_mut().poll(context).is_ready());
            if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }

    /// Hands over what there is; is there more?
    ///
    /// The kernel is asked itself: a thread that is late for its turn may not have heard yet that something has come.
    pub(super) fn receive(&mut self, mut take: impl FnMut(BfdDatagram<'_>)) -> bool {
        let mut more = false;
        for receiver in &mut self.0 {
            more |= !receiver.receive(&mut take);
        }
        more
    }
}

impl Receiver {
    /// Says whether it is empty.
    fn receive(&mut self, take: &mut impl FnMut(BfdDatagram<'_>)) -> bool {
        let mut bytes = [0; READ_BYTES];
        for _ in 0..BURST {
            let now = Instant::now();
            match read(&self.socket, &mut bytes) {
                Ok(Some(Read { len, from, to, link, ttl, at })) => {
                    // The wall clock may have been set meanwhile.
                    let at = at.map_or(self.emptied, |at| at.max(self.emptied));
                    let (multihop, bytes) = (self.multihop, &bytes[..len.min(READ_BYTES)]);
                    take(BfdDatagram { from, to, link, multihop, ttl, at, bytes });
                }
                // Without its addresses or TTL it can't be judged; the kernel always tells them.
                Ok(None) => {}
                // An ICMP error about something sent, or nothing more.
                Err(_) => {
                    self.emptied = now;
                    let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                    // Or it would count as readable on and on.
                    let _ = self.socket.try_io(Interest::READABLE, nothing);
                    return true;
                }
            }
        }
        false
    }
}

fn receiver(family: Family, port: u16) -> io::Result<Socket> {
    let (domain, any): (_, IpAddr) = match family {
        Family::V4 => (Domain::IPV4, Ipv4Addr::UNSPECIFIED.into()),
        Family::V6 => (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    setsockopt(&socket, ReceiveTimestampns, &true)?;
    match family {
        Family::V4 => {
            setsockopt(&socket, Ipv4PacketInfo, &true)?;
            setsockopt(&socket, Ipv4RecvTtl, &true)?;
        }
        Family::V6 => {
            socket.set_only_v6(true)?;
            setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
            setsockopt(&socket, Ipv6RecvHopLimit, &true)?;
        }
    }
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(any, port).into())?;
    Ok(socket)
}

/// What the kernel tells of a datagram.
struct Read {
    len: usize,
    from: IpAddr,
    to: IpAddr,
    link: u32,
    ttl: u8,
    /// When it came; `None`: before there were times.
    at: Option<Instant>,
}

fn read(socket: &UdpSocket, bytes: &mut [u8]) -> io::Result<Option<Read>> {
    let mut pieces = [IoSliceMut::new(bytes)];
    // Room for either family's addresses and TTL, and when it came.
    let mut control = nix::cmsg_space!([u8; 96]);
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut pieces, Some(&mut control), MsgFlags::empty())?;
    let from = message.address.as_ref().and_then(|address| {
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    });
    let (mut to, mut ttl, mut age) = (None, None, Duration::ZERO);
    for piece in message.cmsgs()? {
        match piece {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                let address = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
                to = Some((IpAddr::V4(address), u32::try_from(info.ipi_ifindex).unwrap_or(0)));
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                to = Some((IpAddr::V6(info.ipi6_addr.s6_addr.into()), info.ipi6_ifindex));
            }
            ControlMessageOwned::Ipv4Ttl(value) | ControlMessageOwned::Ipv6HopLimit(value) => {
                ttl = u8::try_from(value).ok();
            }
            ControlMessageOwned::ScmTimestampns(at) => {
                // By the wall clock, which is the kernel's for this.
                age = (UNIX_EPOCH + at.into()).elapsed().unwrap_or_default();
            }
            _ => {}
        }
    }
    // Asked after the age: a thread that stands still between the two takes a packet for later than it was, never for earlier,
    // which would make silence of it.
    let at = Instant::now().checked_sub(age);
    let len = message.bytes;
    Ok(match (from, to, ttl) {
        (Some(from), Some((to, link)), Some(ttl)) => Some(Read { len, from, to, link, ttl, at }),
        _ => None,
    })
}

/// Where packets go out: a socket a session, made when it first sends.
#[derive(Default)]
pub(super) struct Senders(BTreeMap<BfdPath, Socket>);

impl Senders {
    /// Closes those of sessions that are no more.
    pub(super) fn keep(&mut self, is_kept: impl Fn(&BfdPath) -> bool) {
        self.0.retain(|path, _| is_kept(path));
    }

    /// Sends, as far as that can be done at once: a packet that is lost is what BFD is made for.
    pub(super) fn send(&mut self, path: BfdPath, bytes: &[u8; CONTROL_LEN]) {
        let sent = self.socket(path).and_then(|socket| socket.send_to(bytes, &remote(path).into()));
        if let Err(error) = sent {
            debug!(peer = %path.remote, %error, "a BFD packet could not be sent");
            // Our address may have moved: the next one tries anew.
            if error.kind() == io::ErrorKind::AddrNotAvailable || error.kind() == io::ErrorKind::InvalidInput
            {
                self.0.remove(&path);
            }
        }
    }

    fn socket(&mut self, path: BfdPath) -> io::Result<&Socket> {
        if !self.0.contains_key(&path) {
            let socket = sender(path, self.0.len())?;
            self.0.insert(path, socket);
        }
        self.0.get(&path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn sender(path: BfdPath, nth: usize) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(remote(path)), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    send_furthest(&socket, Family::of(path.local))?;
    match path.local {
        IpAddr::V4(_) => socket.set_tos_v4(TOS)?,
        IpAddr::V6(_) => socket.set_tclass_v6(TOS)?,
    }
    // Another number for each, and the next where somebody else has it.
    let ports = SOURCE_PORTS.cycle().skip(nth % SOURCE_PORTS.len()).take(SOURCE_TRIES);
    let mut last = io::ErrorKind::AddrInUse.into();
    for port in ports {
        match socket.bind(&with_link(path.local, port, path.link).into()) {
            Ok(()) => return Ok(socket),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

fn remote(path: BfdPath) -> SocketAddr {
    let [(one_hop, _), (multihop, _)] = PORTS;
    with_link(path.remote, if path.link.is_some() { one_hop } else { multihop }, path.link)
}

/// A link-local address is one on a link.
fn with_link(address: IpAddr, port: u16, link: Option<u32>) -> SocketAddr {
    match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            SocketAddrV6::new(address, port, 0, link.unwrap_or(0)).into()
        }
        address => SocketAddr::new(address, port),
    }
}
