//! The XDP program of an interface: which frames go to the sockets, and what happens where there is none.

use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::attach::{self, AttachError, AttachReport, AttachRequest};
use crate::bpf::asm::AsmError;
use crate::bpf::load;
use crate::bpf::redirect::{self, Action, Uplink};
use crate::map::{self, Key16, Map};
use crate::queue::Queue;

/// Addresses of the node an uplink program can know, for IPv4 and IPv6 each.
pub const LOCAL_ADDRESSES_MAX: u32 = 1024;

/// Tunnels that may end at a node, for its uplink programs: IPIP and so many UDP ports of VXLAN, less one.
pub const TUNNELS_MAX: u32 = 64;

/// A kind of tunnel that may end at the node's own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TunnelKind {
    /// IPv4 in IPv4 (protocol 4).
    Ipip,
    /// UDP with this destination port, over IPv4 or IPv6.
    Vxlan {
        /// The port.
        port: u16,
    },
}

impl TunnelKind {
    fn key(self) -> u32 {
        redirect::tunnel_key(match self {
            Self::Ipip => None,
            Self::Vxlan { port } => Some(port),
        })
    }
}

/// What a port is for, which decides what its program takes and what happens without a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramKind {
    /// Towards the network. ARP and all that isn't IP, multicast, link-local, and what is for the node itself stays
    /// with the kernel; transit, and the tunnels that end here, go to the sockets. Where there is no socket the kernel
    /// forwards (`XDP_PASS`).
    Uplink,
    /// Towards a workload, or the host port. Every frame goes to the sockets, so that nothing escapes policy; where
    /// there is no socket it is dropped (`XDP_DROP`).
    Workload,
}

/// A queue that frames are to be steered to later, when everything behind it is ready. It holds the queue's socket: a
/// queue that is closed stays bound until this is dropped.
#[derive(Debug)]
pub struct Steering {
    number: u32,
    socket: OwnedFd,
}

impl Steering {
    /// Of a queue that is bound.
    pub fn of(queue: &Queue) -> io::Result<Steering> {
        Ok(Steering { number: queue.number(), socket: queue.as_fd().try_clone_to_owned()? })
    }
}

/// Why a program can't be loaded or set up.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// Missing privilege.
    #[error("not permitted to {doing}; run as root or with CAP_BPF and CAP_NET_ADMIN")]
    NotPermitted {
        /// What was tried.
        doing: &'static str,
    },
    /// A map can't be made.
    #[error("can't make the map of {what}: {source}")]
    Map {
        /// Which map.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The listing is wrong: a bug here.
    #[error("the XDP program can't be assembled: {0}")]
    Assemble(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The kernel refused the program.
    #[error("the kernel refused the XDP program: {source}\n{log}")]
    Load {
        /// What the kernel said.
        source: io::Error,
        /// The verifier's last lines.
        log: String,
    },
    /// A queue number the program has no place for.
    #[error("queue {queue} is beyond the {max_queues} queues the program was loaded for")]
    NoSuchQueue {
        /// The queue asked for.
        queue: u32,
        /// How many there are.
        max_queues: u32,
    },
    /// A socket for a queue it isn't bound to, which would get nothing: the kernel drops such frames.
    #[error("the socket is bound to queue {bound_to} and can't serve queue {queue}")]
    WrongQueue {
        /// The queue to serve.
        queue: u32,
        /// The queue the socket is bound to.
        bound_to: u32,
    },
    /// The node has more addresses than the program can know.
    #[error(
        "{address} can't be added: the program already knows {LOCAL_ADDRESSES_MAX} addresses of its family"
    )]
    LocalAddressesFull {
        /// The address that doesn't fit.
        address: IpAddr,
    },
    /// More tunnels than the program can know.
    #[error("{tunnel:?} can't be added: the program already knows {TUNNELS_MAX} tunnels that end here")]
    TunnelsFull {
        /// The tunnel that doesn't fit.
        tunnel: TunnelKind,
    },
    /// Only uplink programs ask whether an address is the node's, or a tunnel ends here.
    #[error("a workload program takes every frame and knows neither local addresses nor tunnels")]
    TakesEverything,
    /// A map can't be changed.
    #[error("can't change the map of {what}: {source}")]
    Update {
        /// Which map.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What is for the node, as an uplink program looks it up: its own addresses, and what of that is ours nevertheless.
#[derive(Debug)]
struct ForTheNode {
    ipv4: Map<u32, u32>,
    ipv6: Map<Key16, u32>,
    tunnels: Map<u32, u32>,
}

/// A loaded XDP program and its maps. Dropping it detaches nothing: see [`detach`](crate::detach).
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
    id: u32,
    max_queues: u32,
    sockets: Map<u32, u32>,
    for_the_node: Option<ForTheNode>,
}

impl Program {
    /// Assembles a program for `kind` and loads it. `max_queues`: receive queues of the interface it will serve.
    pub fn load(kind: ProgramKind, max_queues: u32) -> Result<Self, ProgramError> {
        let fallback = match kind {
            ProgramKind::Uplink => Action::Pass,
            ProgramKind::Workload => Action::Drop,
        };
        Self::load_with(kind, max_queues, fallback)
    }

    /// As [`load`](Self::load), with another action where there is no socket.
    pub(crate) fn load_with(
        kind: ProgramKind,
        max_queues: u32,
        fallback: Action,
    ) -> Result<Self, ProgramError> {
        let sockets = map::sockets(max_queues).map_err(|source| cant_make("sockets", source))?;
        let (name, code, for_the_node) = match kind {
            ProgramKind::Workload => {
                ("tortie_workload", redirect::workload(sockets.fd(), fallback).map_err(assemble)?, None)
            }
            ProgramKind::Uplink => {
                let maps = ForTheNode {
                    ipv4: map::local_ipv4(LOCAL_ADDRESSES_MAX)
                        .map_err(|source| cant_make("local IPv4 addresses", source))?,
                    ipv6: map::local_ipv6(LOCAL_ADDRESSES_MAX)
                        .map_err(|source| cant_make("local IPv6 addresses", source))?,
                    tunnels: map::tunnels(TUNNELS_MAX)
                        .map_err(|source| cant_make("tunnels that end here", source))?,
                };
                let code = redirect::uplink(Uplink {
                    sockets: sockets.fd(),
                    local_ipv4: maps.ipv4.fd(),
                    local_ipv6: maps.ipv6.fd(),
                    tunnels: maps.tunnels.fd(),
                    fallback,
                });
                ("tortie_uplink", code.map_err(assemble)?, Some(maps))
            }
        };
        let fd = load::program(name, &code).map_err(|failed| refused(failed.source, failed.log))?;
        let (id, _) = load::describe(fd.as_fd()).map_err(|source| refused(source, String::new()))?;
        Ok(Self { fd, id, max_queues, sockets, for_the_node })
    }

    /// The program's id, as bpftool shows it.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Attaches to an interface of this thread's network namespace. It stays when the process ends.
    ///
    /// A program of ours, left by an earlier process, is replaced in one step. Anybody else's is left alone and is an
    /// error. Packets may come in pieces, so an MTU above a page is no reason for a refusal since Linux 5.18.
    pub fn attach(&self, ifindex: u32, request: AttachRequest) -> Result<AttachReport, AttachError> {
        attach::attach(self.fd.as_fd(), ifindex, request)
    }

    /// From now on frames of this receive queue go to this socket. The kernel forgets it when the socket closes.
    ///
    /// `queue_index` must be the queue the socket is bound to, on an interface this program is attached to.
    pub fn set_socket(&self, queue_index: u32, queue: &Queue) -> Result<(), ProgramError> {
        self.check_queue(queue_index)?;
        if queue.number() != queue_index {
            return Err(ProgramError::WrongQueue { queue: queue_index, bound_to: queue.number() });
        }
        let descriptor = queue.as_fd().as_raw_fd() as u32;
        self.sockets.insert(&queue_index, &descriptor).map_err(|source| cant_change("sockets", source))
    }

    /// As [`Self::set_socket`], of a queue that its owner has by now.
    pub fn steer(&self, queue: Steering) -> Result<(), ProgramError> {
        self.check_queue(queue.number)?;
        let descriptor = queue.socket.as_raw_fd() as u32;
        self.sockets.insert(&queue.number, &descriptor).map_err(|source| cant_change("sockets", source))
    }

    /// From now on frames of this receive queue meet the fallback, if they didn't already.
    pub fn remove_socket(&self, queue_index: u32) -> Result<(), ProgramError> {
        self.check_queue(queue_index)?;
        self.sockets.remove(&queue_index).map(drop).map_err(|source| cant_change("sockets", source))
    }

    fn check_queue(&self, queue: u32) -> Result<(), ProgramError> {
        if queue < self.max_queues {
            Ok(())
        } else {
            Err(ProgramError::NoSuchQueue { queue, max_queues: self.max_queues })
        }
    }

    /// What is for this address stays with the kernel, except tunnels that end here. Twice is as good as once.
    ///
    /// A subnet's broadcast address counts as one of the node's: add it too. So does a multicast group that tunnels end at;
    /// all other multicast stays with the kernel in any case.
    ///
    /// `translated`: of TCP, UDP and SCTP to these ports, of fragments, and of ICMP other than echo requests, the walk must
    /// say whether they belong to a translated flow, so they go to the sockets.
    pub fn add_local(
        &self,
        address: IpAddr,
        translated: Option<&RangeInclusive<u16>>,
    ) -> Result<(), ProgramError> {
        let local = self.for_the_node()?;
        let ports = redirect::translated_ports(translated);
        match address {
            IpAddr::V4(ip) => local.ipv4.insert(&u32::from_ne_bytes(ip.octets()), &ports),
            IpAddr::V6(ip) => local.ipv6.insert(&Key16(ip.octets()), &ports),
        }
        .map_err(|source| match source.raw_os_error() {
            Some(libc::E2BIG) => ProgramError::LocalAddressesFull { address },
            _ => cant_change("local addresses", source),
        })
    }

    /// What is for this address is transit again. `false` if it was already.
    pub fn remove_local(&self, address: IpAddr) -> Result<bool, ProgramError> {
        let local = self.for_the_node()?;
        match address {
            IpAddr::V4(ip) => local.ipv4.remove(&u32::from_ne_bytes(ip.octets())),
            IpAddr::V6(ip) => local.ipv6.remove(&Key16(ip.octets())),
        }
        .map_err(|source| cant_change("local addresses", source))
    }

    /// From the next frame on, this tunnel's packets to the node's addresses go to the sockets. Twice is as good as
    /// once.
    pub fn add_tunnel(&self, tunnel: TunnelKind) -> Result<(), ProgramError> {
        let known = &self.for_the_node()?.tunnels;
        known.insert(&tunnel.key(), &1).map_err(|source| match source.raw_os_error() {
            Some(libc::E2BIG) => ProgramError::TunnelsFull { tunnel },
            _ => cant_change("tunnels that end here", source),
        })
    }

    /// From the next frame on, this tunnel's packets to the node's addresses stay with the kernel. `false` if they did
    /// already.
    pub fn remove_tunnel(&self, tunnel: TunnelKind) -> Result<bool, ProgramError> {
        let known = &self.for_the_node()?.tunnels;
        known.remove(&tunnel.key()).map_err(|source| cant_change("tunnels that end here", source))
    }

    fn for_the_node(&self) -> Result<&ForTheNode, ProgramError> {
        self.for_the_node.as_ref().ok_or(ProgramError::TakesEverything)
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

pub(crate) fn refused(source: io::Error, log: String) -> ProgramError {
    match source.raw_os_error() {
        Some(libc::EPERM) => ProgramError::NotPermitted { doing: "load an XDP program" },
        _ => ProgramError::Load { source, log },
    }
}

pub(crate) fn assemble(error: AsmError) -> ProgramError {
    ProgramError::Assemble(Box::new(error))
}

fn cant_make(what: &'static str, source: io::Error) -> ProgramError {
    match source.raw_os_error() {
        Some(libc::EPERM) => ProgramError::NotPermitted { doing: "make BPF maps" },
        _ => ProgramError::Map { what, source },
    }
}

fn cant_change(what: &'static str, source: io::Error) -> ProgramError {
    ProgramError::Update { what, source }
}
