//! What to answer to a punted packet. Pure: bytes and facts in, bytes out, and time comes as an argument.
//!
//! | reason | answer |
//! | --- | --- |
//! | ARP, neighbour discovery | by proxy on workload ports ([`arp`], [`nd`]); what the packet teaches is reported |
//! | TTL exceeded, no route, rejected, prohibited, too big, bad option | the ICMP error, if the rate allows |
//! | denied | port unreachable, if the rate allows: senders are to be told of what policy denies |
//! | too many connections | a TCP reset, if the rate allows |
//! | beyond scope | the ICMP error, on the link that it came by |
//! | DHCP | the kernel receives it after all, if the rate allows: its DHCP server answers |
//! | unresolved | none yet; the ICMP error once resolution has failed |
//! | inside a segment | none here: `flooding.rs` knows the segments |
//!
//! Blackholes, source routes and other denials by policy are dropped in the walk and stay silent. Redirects are not sent: a
//! frame has one fate, so there is no copy of a forwarded packet to answer, and the routers and hosts on an uplink that
//! would be told are forwarding themselves and believe none (RFC 1812 §5.2.7.2 asks that a router be able to).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use model::{Family, MacAddr, PortId, PortKind};
use packet::icmp::{self, Problem};
use packet::{Kind, Parsed, ethernet, ipv4, ipv4_options};
use tables::{Port, Punt, PuntReason};

use crate::host_port::{GATEWAY_V4, GATEWAY_V6};
use crate::neighbors::{arp, nd};

mod rate;
mod reset;

use rate::{Budget, Limiter};

/// Largest ICMP error with an Ethernet header: IPv6's minimum MTU (RFC 4443 §2.4 (c)).
const ERROR_BYTES_MAX: usize = ETHERNET_BYTES + 1280;
const ETHERNET_BYTES: usize = ethernet::HEADER_LEN;

/// Which addresses are ours.
pub trait OurAddresses {
    /// An address of the port itself, of global scope where there is one.
    fn of_port(&self, port: PortId, family: Family) -> Option<IpAddr>;
    /// The node's address: the one in its Node resource.
    fn of_node(&self, family: Family) -> Option<IpAddr>;
    /// Is it the broadcast address of a network that one of our interfaces is on?
    fn is_directed_broadcast(&self, addr: Ipv4Addr) -> bool;
}

/// What to do about a punted packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Inject this frame as one of the host's own, to be routed; its Ethernet addresses are the walk's to write.
    Walk(Vec<u8>),
    /// The same with a TCP reset.
    Reset(Vec<u8>),
    /// Send this frame through this port as it is: ARP or neighbour discovery.
    Transmit(PortId, Vec<u8>),
    /// Send this frame, an ICMP error, back through the port that its cause came by, as it is.
    SendBack(PortId, Vec<u8>),
    /// Have the kernel receive the packet itself on this port.
    Deliver(PortId),
    /// Nothing, and why.
    Nothing(Silence),
}

/// Why a punted packet gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Silence {
    /// It asks for nothing, or for nothing of ours: an announcement, a probe, a reply, a port where the kernel answers.
    NotAsked,
    /// It is malformed, or claims to be somebody else.
    Invalid,
    /// No ICMP error may answer it (RFC 1812 §4.3.2.7, RFC 4443 §2.4 (e)).
    Forbidden,
    /// It is for a link-local address, which no router forwards and none answers for (RFC 3927 §7, RFC 4291 §2.5.6);
    /// among them the workloads' gateway 169.254.1.1.
    LinkLocal,
    /// We have no address of that family to answer from.
    NoAddress,
    /// Too many answers of late (RFC 1812 §4.3.2.8, RFC 4443 §2.4 (f)).
    RateLimited,
    /// Its neighbour is being asked for.
    Resolving,
}

impl Silence {
    /// All there are.
    pub const ALL: [Silence; 7] = [
        Silence::NotAsked,
        Silence::Invalid,
        Silence::Forbidden,
        Silence::LinkLocal,
        Silence::NoAddress,
        Silence::RateLimited,
        Silence::Resolving,
    ];

    /// The name in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Silence::NotAsked => "not_asked",
            Silence::Invalid => "invalid",
            Silence::Forbidden => "forbidden",
            Silence::LinkLocal => "link_local",
            Silence::NoAddress => "no_address",
            Silence::RateLimited => "rate_limited",
            Silence::Resolving => "resolving",
        }
    }
}

/// The answer, and what was learned on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What to do.
    pub answer: Answer,
    /// The workload's address and MAC in its own words, from ARP or neighbour discovery.
    pub learned: Option<(IpAddr, MacAddr)>,
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Outcome {
        Outcome { answer, learned: None }
    }
}

impl From<Silence> for Outcome {
    fn from(silence: Silence) -> Outcome {
        Answer::Nothing(silence).into()
    }
}

/// ICMP errors by family and by what they tell.
pub type ErrorCounts = BTreeMap<(Family, &'static str), u64>;

/// Answers punted packets, and remembers how many ICMP errors it has sent.
#[derive(Debug, Default)]
pub struct Answerer {
    limiter: Limiter,
    sent: ErrorCounts,
}

impl Answerer {
    /// Has sent nothing yet.
    pub fn new() -> Answerer {
        Answerer::default()
    }

    /// Decides about one punted packet. `port` is the row of `punt.port`; `resolution_failed` says for
    /// [`PuntReason::Unresolved`] that the neighbour was asked for often enough without an answer.
    pub fn answer(
        &mut self,
        punt: &Punt,
        frame: &[u8],
        port: Option<&Port>,
        resolution_failed: bool,
        ours: &dyn OurAddresses,
        now: Instant,
    ) -> Outcome {
        let problem = match punt.reason {
            PuntReason::Arp => return answer_arp(frame, port),
            PuntReason::NeighborDiscovery => return answer_nd(frame, port),
            PuntReason::EgressConnections | PuntReason::IngressConnections => {
                return self.reset(frame, port, now).unwrap_or_else(Answer::Nothing).into();
            }
            PuntReason::Dhcp => {
                return self.deliver(port, now).map_or_else(Answer::Nothing, Answer::Deliver).into();
            }
            // Answered inside (`flooding.rs`): nothing on this link asked.
            PuntReason::InsideSegment => return Silence::NotAsked.into(),
            PuntReason::TtlExceeded => Problem::TtlExceeded,
            PuntReason::NoRoute => Problem::NoRoute,
            PuntReason::Rejected => Problem::Rejected,
            PuntReason::Prohibited => Problem::Prohibited,
            // As Linux's REJECT and nft's reject say where nothing else is asked for.
            PuntReason::Denied => Problem::PortUnreachable,
            PuntReason::TooBig => Problem::TooBig { mtu: u32::from(punt.mtu) },
            PuntReason::BeyondScope => Problem::BeyondScope,
            PuntReason::BadOption => match bad_option(frame) {
                Some(problem) => problem,
                None => return Silence::Invalid.into(),
            },
            PuntReason::Unresolved if resolution_failed => Problem::HostUnreachable,
            PuntReason::Unresolved => return Silence::Resolving.into(),
        };
        match self.error(problem, frame, port, ours, now) {
            // The sender is on the link, and by no route.
            Ok(error) if problem == Problem::BeyondScope => send_back(error, frame, port).into(),
            // From a link-local address, which the walk doesn't forward from.
            Ok(error) if is_host_port(port) => send_back(error, frame, port).into(),
            Ok(error) => Answer::Walk(error).into(),
            Err(silence) => silence.into(),
        }
    }

    /// How many ICMP errors were made so far.
    pub fn sent(&self) -> &ErrorCounts {
        &self.sent
    }

    /// The port on which the kernel may receive a packet now.
    ///
    /// # Errors
    /// It has received too many of late, or the port is gone.
    pub fn deliver(&mut self, port: Option<&Port>, now: Instant) -> Result<PortId, Silence> {
        let port = port.ok_or(Silence::Invalid)?.id;
        match self.limiter.may_send(Budget::Deliveries, Some(port), now) {
            true => Ok(port),
            false => Err(Silence::RateLimited),
        }
    }

    fn reset(&mut self, frame: &[u8], port: Option<&Port>, now: Instant) -> Result<Answer, Silence> {
        let reset = reset::build(frame).ok_or(Silence::Forbidden)?;
        match self.limiter.may_send(Budget::Resets, port.map(|port| port.id), now) {
            true => Ok(Answer::Reset(reset)),
            false => Err(Silence::RateLimited),
        }
    }

    fn error(
        &mut self,
        problem: Problem,
        frame: &[u8],
        port: Option<&Port>,
        ours: &dyn OurAddresses,
        now: Instant,
    ) -> Result<Vec<u8>, Silence> {
        let parsed = packet::parse(frame).map_err(|_| Silence::Invalid)?;
        let destination = destination(frame, &parsed).ok_or(Silence::Invalid)?;
        // A local sender may well exceed the path's MTU to a link-local neighbour, but none of those is behind us.
        if is_link_local(destination) {
            return Err(Silence::LinkLocal);
        }
        if !icmp::may_answer(frame, &parsed) {
            return Err(Silence::Forbidden);
        }
        if ours_is_broadcast(frame, &parsed, ours) {
            return Err(Silence::Forbidden);
        }
        let source = source(port, Family::of(destination), ours).ok_or(Silence::NoAddress)?;
        let mut answer = vec![0; ERROR_BYTES_MAX];
        answer[12..ETHERNET_BYTES].copy_from_slice(&parsed.ethertype.to_be_bytes());
        let length = icmp::build_error(problem, source, frame, &parsed, &mut answer[ETHERNET_BYTES..])
            .map_err(|_| Silence::Forbidden)?;
        answer.truncate(ETHERNET_BYTES + length);
        // Last, so that only what would be sent is counted.
        if !self.limiter.may_send(Budget::of(problem), port.map(|port| port.id), now) {
            return Err(Silence::RateLimited);
        }
        *self.sent.entry((Family::of(destination), problem.as_str())).or_default() += 1;
        Ok(answer)
    }
}

/// Where an IPv4 packet's options go wrong.
fn bad_option(frame: &[u8]) -> Option<Problem> {
    let parsed = packet::parse(frame).ok()?;
    let packet = ipv4::Packet::new_checked(parsed.l3_packet(frame)).ok()?;
    let bad = ipv4_options::is_source_routed(packet.options()).err()?;
    Some(Problem::Parameter { pointer: bad.at })
}

/// The error to whoever sent `cause` on the link.
fn send_back(mut error: Vec<u8>, cause: &[u8], port: Option<&Port>) -> Answer {
    let (Some(port), Some(sender)) = (port, cause.get(6..12)) else {
        return Answer::Nothing(Silence::NoAddress);
    };
    error[..6].copy_from_slice(sender);
    error[6..12].copy_from_slice(&port.mac.0);
    Answer::SendBack(port.id, error)
}

/// Is a packet from or to all of a network of ours? Its addresses don't show it (RFC 1812 §4.3.2.7).
fn ours_is_broadcast(frame: &[u8], parsed: &Parsed, ours: &dyn OurAddresses) -> bool {
    let addresses = [parsed.ipv4_source(frame), parsed.ipv4_destination(frame)];
    addresses.into_iter().flatten().any(|addr| ours.is_directed_broadcast(addr))
}

/// RFC 1812 §4.3.2.4: the address of the interface that the error leaves by, which is where its cause came in. A
/// workload port has no address of its own, so the node's stands for it; so it does where an uplink lacks one.
/// To the host itself an error comes from its gateway on this link: the kernel believes nothing that comes in under an
/// address of its own.
fn source(port: Option<&Port>, family: Family, ours: &dyn OurAddresses) -> Option<IpAddr> {
    if is_host_port(port) {
        return Some(match family {
            Family::V4 => GATEWAY_V4.into(),
            Family::V6 => GATEWAY_V6.into(),
        });
    }
    let of_port =
        port.filter(|port| port.kind == PortKind::Uplink).and_then(|port| ours.of_port(port.id, family));
    of_port.or_else(|| ours.of_node(family))
}

fn is_host_port(port: Option<&Port>) -> bool {
    port.is_some_and(|port| port.kind == PortKind::Host)
}

fn destination(frame: &[u8], parsed: &Parsed) -> Option<IpAddr> {
    match parsed.kind {
        Kind::Ipv4 => parsed.ipv4_destination(frame).map(IpAddr::V4),
        Kind::Ipv6 => parsed.ipv6_destination(frame).map(IpAddr::V6),
        Kind::Arp | Kind::Other => None,
    }
}

fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// On uplinks and in the host the kernel answers; a workload port without an endpoint has nobody to believe.
fn workload(port: Option<&Port>) -> Option<(&Port, &tables::Endpoint)> {
    let port = port.filter(|port| port.kind == PortKind::Workload)?;
    Some((port, port.endpoint.as_ref()?))
}

fn answer_arp(frame: &[u8], port: Option<&Port>) -> Outcome {
    let Some((port, endpoint)) = workload(port) else { return Silence::NotAsked.into() };
    let owns = |addr: Ipv4Addr| endpoint.owns(IpAddr::V4(addr));
    let Some(outcome) = arp::answer(frame, port.mac, owns) else { return Silence::Invalid.into() };
    let (addr, mac) = outcome.learned;
    Outcome { answer: transmit(port, outcome.reply), learned: Some((IpAddr::V4(addr), mac)) }
}

fn answer_nd(frame: &[u8], port: Option<&Port>) -> Outcome {
    let Some((port, endpoint)) = workload(port) else { return Silence::NotAsked.into() };
    let outcome = nd::answer(frame, port.mac, GATEWAY_V6, |addr| endpoint.owns(IpAddr::V6(addr)));
    let Some(outcome) = outcome else { return Silence::Invalid.into() };
    let learned = outcome.learned.map(|(addr, mac)| (IpAddr::V6(addr), mac));
    Outcome { answer: transmit(port, outcome.reply), learned }
}

fn transmit(port: &Port, reply: Option<Vec<u8>>) -> Answer {
    match reply {
        Some(frame) => Answer::Transmit(port.id, frame),
        None => Answer::Nothing(Silence::NotAsked),
    }
}

#[cfg(test)]
mod rfc;
#[cfg(test)]
mod tests;
