//! What to answer to a punted packet. Pure: bytes and facts in, bytes out, and time comes as an argument.
//!
//! | reason | answer |
//! | --- | --- |
//! | ARP, neighbour discovery | by proxy on workload ports ([`arp`], [`nd`]); what the packet teaches is reported |
//! | TTL exceeded, no route, too big | the ICMP error, if the rate allows |
//! | unresolved | none yet; the ICMP error once resolution has failed |
//!
//! Blackholes and denials by policy are dropped in the walk and stay silent.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use ahash::AHashMap;
use model::{Family, MacAddr, PortId, PortKind};
use packet::icmp::{self, Problem};
use packet::{Kind, Parsed};
use tables::{Port, Punt, PuntReason};

use crate::host_port::GATEWAY_V6;
use crate::neighbors::{arp, nd};

/// ICMP errors a second for all ports together and at once after a quiet time: the kernel's own `icmp_msgs_per_sec`
/// and `icmp_msgs_burst`.
const RATE_OF_ALL: Rate = Rate { per_second: 1000, burst: 50 };
/// The same for one port, so that one workload can't use up everybody's.
const RATE_OF_PORT: Rate = Rate { per_second: 100, burst: 20 };
/// Largest ICMP error with an Ethernet header: IPv6's minimum MTU (RFC 4443 §2.4 (c)).
const ERROR_BYTES_MAX: usize = ETHERNET_BYTES + 1280;
const ETHERNET_BYTES: usize = 14;

/// Which addresses are ours.
pub trait OurAddresses {
    /// An address of the port itself, of global scope where there is one.
    fn of_port(&self, port: PortId, family: Family) -> Option<IpAddr>;
    /// The node's address: the one in its Node resource.
    fn of_node(&self, family: Family) -> Option<IpAddr>;
}

/// What to do about a punted packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Inject this frame as one of the host's own, to be routed; its Ethernet addresses are the walk's to write.
    Walk(Vec<u8>),
    /// Send this frame through this port as it is.
    Transmit(PortId, Vec<u8>),
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

/// Answers punted packets, and remembers how many ICMP errors it has sent.
#[derive(Debug, Default)]
pub struct Answerer {
    all: Bucket,
    /// At most one for each row of the table of ports. A port that takes over another's row takes over its bucket,
    /// which is full again in a fifth of a second.
    ports: AHashMap<PortId, Bucket>,
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
            PuntReason::TtlExceeded => Problem::TtlExceeded,
            PuntReason::NoRoute => Problem::NoRoute,
            PuntReason::TooBig => Problem::TooBig { mtu: u32::from(punt.mtu) },
            PuntReason::Unresolved if resolution_failed => Problem::HostUnreachable,
            PuntReason::Unresolved => return Silence::Resolving.into(),
        };
        match self.error(problem, frame, port, ours, now) {
            Ok(frame) => Answer::Walk(frame).into(),
            Err(silence) => silence.into(),
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
        let source = source(port, Family::of(destination), ours).ok_or(Silence::NoAddress)?;
        let mut answer = vec![0; ERROR_BYTES_MAX];
        answer[12..ETHERNET_BYTES].copy_from_slice(&parsed.ethertype.to_be_bytes());
        let length = icmp::build_error(problem, source, frame, &parsed, &mut answer[ETHERNET_BYTES..])
            .map_err(|_| Silence::Forbidden)?;
        answer.truncate(ETHERNET_BYTES + length);
        // Last, so that only what would be sent is counted.
        if self.may_send(port.map(|port| port.id), now) { Ok(answer) } else { Err(Silence::RateLimited) }
    }

    fn may_send(&mut self, port: Option<PortId>, now: Instant) -> bool {
        let Some(port) = port else { return self.all.take(RATE_OF_ALL, now) };
        let bucket = self.ports.entry(port).or_default();
        // The port's first: a port over its own rate must not drain what all share.
        bucket.take(RATE_OF_PORT, now) && self.all.take(RATE_OF_ALL, now)
    }
}

/// RFC 1812 §4.3.2.4: the address of the interface that the error leaves by, which is where its cause came in. A
/// workload port has no address of its own, so the node's stands for it; so it does where an uplink lacks one.
fn source(port: Option<&Port>, family: Family, ours: &dyn OurAddresses) -> Option<IpAddr> {
    let of_port =
        port.filter(|port| port.kind == PortKind::Uplink).and_then(|port| ours.of_port(port.id, family));
    of_port.or_else(|| ours.of_node(family))
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

/// How often something may happen.
#[derive(Clone, Copy, Debug)]
struct Rate {
    per_second: u32,
    burst: u32,
}

/// A token bucket; full when new. RFC 4443 §2.4 (f) recommends one.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Tokens when last looked at, and when that was.
    last: Option<(f64, Instant)>,
}

impl Bucket {
    fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let burst = f64::from(rate.burst);
        let tokens = match self.last {
            None => burst,
            Some((tokens, then)) => {
                let gained = now.saturating_duration_since(then).as_secs_f64() * f64::from(rate.per_second);
                burst.min(tokens + gained)
            }
        };
        let granted = tokens >= 1.0;
        self.last = Some((if granted { tokens - 1.0 } else { tokens }, now));
        granted
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;
    use std::time::Duration;

    use super::*;
    use model::IfIndex;
    use packet::{ethernet, ipv4, ipv6, protocol};
    use proptest::prelude::*;
    use tables::Endpoint;

    const NODE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 6, 47));
    const NODE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x47));
    const UPLINK_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const WORKLOAD: Ipv4Addr = Ipv4Addr::new(10, 65, 0, 2);
    const WORKLOAD_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
    const WORKLOAD_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);
    const REMOTE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
    const REMOTE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9);

    /// Uplinks have an IPv4 address and no IPv6 one.
    struct Ours;

    impl OurAddresses for Ours {
        fn of_port(&self, _: PortId, family: Family) -> Option<IpAddr> {
            (family == Family::V4).then_some(UPLINK_V4)
        }

        fn of_node(&self, family: Family) -> Option<IpAddr> {
            Some(if family == Family::V4 { NODE_V4 } else { NODE_V6 })
        }
    }

    fn port(id: u16, kind: PortKind) -> Port {
        let addresses = vec!["10.65.0.2/32".parse().unwrap(), "fd00::2/128".parse().unwrap()];
        let endpoint =
            (kind == PortKind::Workload).then(|| Endpoint { name: "default/a".into(), addresses, qos: None });
        Port {
            id: PortId(id),
            name: "port".into(),
            ifindex: IfIndex(7),
            kind,
            mac: MacAddr([0xee; 6]),
            mtu: 1500,
            up: true,
            queues: 1,
            endpoint,
        }
    }

    fn punt(reason: PuntReason) -> Punt {
        Punt { reason, port: None, adjacency: None, mtu: 1400 }
    }

    fn framed(ethertype: u16, header_bytes: usize, emit: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut frame = vec![0; ETHERNET_BYTES + header_bytes + 8];
        let dst = MacAddr([0xee; 6]);
        ethernet::Repr { dst, src: WORKLOAD_MAC, ethertype }.emit(&mut frame).unwrap();
        emit(&mut frame[ETHERNET_BYTES..]);
        frame
    }

    fn to_v4(dst: Ipv4Addr) -> Vec<u8> {
        let header = ipv4::Repr {
            src: WORKLOAD,
            dst,
            ttl: 1,
            protocol: protocol::UDP,
            payload_len: 8,
            ..Default::default()
        };
        framed(ethernet::IPV4, ipv4::HEADER_LEN, |packet| {
            header.emit(packet).unwrap();
            packet[ipv4::HEADER_LEN + 5] = 8; // UDP's own length
        })
    }

    fn to_v6(dst: Ipv6Addr) -> Vec<u8> {
        let (src, next_header) = (WORKLOAD_V6, protocol::UDP);
        let header = ipv6::Repr { src, dst, hop_limit: 1, next_header, payload_len: 8, ..Default::default() };
        framed(ethernet::IPV6, ipv6::HEADER_LEN, |packet| {
            header.emit(packet).unwrap();
            packet[ipv6::HEADER_LEN + 5] = 8;
        })
    }

    fn answer(reason: PuntReason, frame: &[u8], kind: PortKind, failed: bool) -> Answer {
        let now = Instant::now();
        Answerer::new().answer(&punt(reason), frame, Some(&port(1, kind)), failed, &Ours, now).answer
    }

    /// Source, ICMP type and ICMP code of the error.
    #[track_caller]
    fn error(answer: Answer) -> (IpAddr, u8, u8) {
        let Answer::Walk(frame) = answer else { panic!("an ICMP error, not {answer:?}") };
        let parsed = packet::parse(&frame).expect("the error is a valid packet");
        let source = match parsed.kind {
            Kind::Ipv4 => IpAddr::V4(parsed.ipv4_source(&frame).unwrap()),
            _ => IpAddr::V6(parsed.ipv6_source(&frame).unwrap()),
        };
        let message = parsed.l4_packet(&frame);
        (source, message[0], message[1])
    }

    #[test]
    fn each_reason_has_its_icmp_error() {
        use PuntReason::*;
        for (reason, v4, v6) in [
            (TtlExceeded, (11, 0), (3, 0)),
            (NoRoute, (3, 0), (1, 0)),
            (Unresolved, (3, 1), (1, 3)),
            (TooBig, (3, 4), (2, 0)),
        ] {
            let (source, kind, code) = error(answer(reason, &to_v4(REMOTE), PortKind::Workload, true));
            assert_eq!((source, (kind, code)), (NODE_V4, v4), "{reason}");
            let (source, kind, code) = error(answer(reason, &to_v6(REMOTE_V6), PortKind::Workload, true));
            assert_eq!((source, (kind, code)), (NODE_V6, v6), "{reason}");
        }
    }

    #[test]
    fn an_uplink_answers_from_its_own_address_and_else_from_the_nodes() {
        assert_eq!(error(answer(PuntReason::NoRoute, &to_v4(REMOTE), PortKind::Uplink, false)).0, UPLINK_V4);
        assert_eq!(error(answer(PuntReason::NoRoute, &to_v6(REMOTE_V6), PortKind::Uplink, false)).0, NODE_V6);
    }

    #[test]
    fn an_unresolved_next_hop_is_silent_until_resolution_fails() {
        let silent = answer(PuntReason::Unresolved, &to_v4(REMOTE), PortKind::Workload, false);
        assert_eq!(silent, Answer::Nothing(Silence::Resolving));
    }

    #[test]
    fn the_gateway_and_other_link_local_destinations_get_no_answer() {
        for gateway in [crate::host_port::GATEWAY_V4, Ipv4Addr::new(169, 254, 169, 254)] {
            let silent = answer(PuntReason::NoRoute, &to_v4(gateway), PortKind::Workload, false);
            assert_eq!(silent, Answer::Nothing(Silence::LinkLocal));
        }
        let silent = answer(PuntReason::NoRoute, &to_v6(GATEWAY_V6), PortKind::Workload, false);
        assert_eq!(silent, Answer::Nothing(Silence::LinkLocal));
    }

    #[test]
    fn an_error_is_never_answered_with_an_error() {
        let Answer::Walk(first) = answer(PuntReason::NoRoute, &to_v4(REMOTE), PortKind::Workload, false)
        else {
            panic!("an ICMP error")
        };
        let second = answer(PuntReason::TtlExceeded, &first, PortKind::Workload, false);
        assert_eq!(second, Answer::Nothing(Silence::Forbidden));
    }

    #[test]
    fn a_workloads_arp_and_neighbour_discovery_are_answered_and_learned_from() {
        let asked = arp::request(WORKLOAD_MAC, WORKLOAD, Ipv4Addr::new(169, 254, 1, 1));
        let workload = port(1, PortKind::Workload);
        let mut answerer = Answerer::new();
        let mut answer = |reason, frame: &[u8], port: &Port| {
            answerer.answer(&punt(reason), frame, Some(port), false, &Ours, Instant::now())
        };
        let outcome = answer(PuntReason::Arp, &asked, &workload);
        assert!(matches!(outcome.answer, Answer::Transmit(PortId(1), _)));
        assert_eq!(outcome.learned, Some((IpAddr::V4(WORKLOAD), WORKLOAD_MAC)));

        let asked = nd::solicitation(WORKLOAD_MAC, WORKLOAD_V6, GATEWAY_V6);
        let outcome = answer(PuntReason::NeighborDiscovery, &asked, &workload);
        assert!(matches!(outcome.answer, Answer::Transmit(PortId(1), _)));
        assert_eq!(outcome.learned, Some((IpAddr::V6(WORKLOAD_V6), WORKLOAD_MAC)));

        let stranger = arp::request(WORKLOAD_MAC, REMOTE, Ipv4Addr::new(169, 254, 1, 1));
        assert_eq!(answer(PuntReason::Arp, &stranger, &workload), Silence::Invalid.into());
        let uplink = port(2, PortKind::Uplink);
        let asked = arp::request(WORKLOAD_MAC, WORKLOAD, REMOTE);
        assert_eq!(answer(PuntReason::Arp, &asked, &uplink), Silence::NotAsked.into());
    }

    /// Sends `count` answerable packets from a port at one time; how many were answered.
    fn answered(answerer: &mut Answerer, port_id: u16, count: usize, now: Instant) -> usize {
        let (frame, port) = (to_v4(REMOTE), port(port_id, PortKind::Workload));
        let mut answer =
            || answerer.answer(&punt(PuntReason::NoRoute), &frame, Some(&port), false, &Ours, now).answer;
        (0..count).filter(|_| matches!(answer(), Answer::Walk(_))).count()
    }

    #[test]
    fn one_port_gets_its_burst_then_its_rate_and_leaves_the_rest_to_others() {
        let start = Instant::now();
        let mut answerer = Answerer::new();
        assert_eq!(answered(&mut answerer, 1, 500, start), 20);
        assert_eq!(answered(&mut answerer, 1, 500, start + Duration::from_millis(100)), 10);
        assert_eq!(answered(&mut answerer, 2, 500, start + Duration::from_millis(100)), 20);
        assert_eq!(answered(&mut answerer, 1, 500, start + Duration::from_secs(1)), 20);
    }

    #[test]
    fn all_ports_together_have_a_limit_too() {
        let start = Instant::now();
        let mut answerer = Answerer::new();
        let total: usize = (0..10).map(|id| answered(&mut answerer, id, 20, start)).sum();
        assert_eq!(total, 50);
    }

    proptest! {
        #[test]
        fn any_frame_gets_an_outcome_without_panic(
            frame in prop::collection::vec(any::<u8>(), 0..120), reason in 0usize..PuntReason::ALL.len()
        ) {
            let _ = answer(PuntReason::ALL[reason], &frame, PortKind::Workload, true);
        }

        #[test]
        fn a_bucket_never_grants_more_than_its_burst_and_rate(
            gaps in prop::collection::vec(0u64..50, 1..300)
        ) {
            let rate = Rate { per_second: 100, burst: 20 };
            let start = Instant::now();
            let (mut bucket, mut elapsed, mut granted) = (Bucket::default(), 0, 0);
            for gap in gaps {
                elapsed += gap;
                granted += u64::from(bucket.take(rate, start + Duration::from_millis(elapsed)));
            }
            prop_assert!(granted <= 20 + elapsed / 10 + 1);
        }
    }
}
