use std::net::Ipv6Addr;
use std::time::Duration;

use super::*;
use model::IfIndex;
use packet::{ethernet, ipv4, ipv6, protocol};
use proptest::prelude::*;
use tables::Endpoint;

pub(super) const NODE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 6, 47));
pub(super) const NODE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x47));
pub(super) const UPLINK_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const WORKLOAD: Ipv4Addr = Ipv4Addr::new(10, 65, 0, 2);
const WORKLOAD_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
pub(super) const WORKLOAD_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);
pub(super) const REMOTE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
pub(super) const REMOTE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9);

/// Uplinks have an IPv4 address and no IPv6 one.
pub(super) struct Ours;

impl OurAddresses for Ours {
    fn of_port(&self, _: PortId, family: Family) -> Option<IpAddr> {
        (family == Family::V4).then_some(UPLINK_V4)
    }

    fn of_node(&self, family: Family) -> Option<IpAddr> {
        Some(if family == Family::V4 { NODE_V4 } else { NODE_V6 })
    }

    fn is_directed_broadcast(&self, addr: Ipv4Addr) -> bool {
        addr == Ipv4Addr::new(192, 0, 2, 255)
    }
}

pub(super) fn port(id: u16, kind: PortKind) -> Port {
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

pub(super) fn to_v4(dst: Ipv4Addr) -> Vec<u8> {
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

pub(super) fn to_v6(dst: Ipv6Addr) -> Vec<u8> {
    let (src, next_header) = (WORKLOAD_V6, protocol::UDP);
    let header = ipv6::Repr { src, dst, hop_limit: 1, next_header, payload_len: 8, ..Default::default() };
    framed(ethernet::IPV6, ipv6::HEADER_LEN, |packet| {
        header.emit(packet).unwrap();
        packet[ipv6::HEADER_LEN + 5] = 8;
    })
}

#[test]
fn the_kernel_receives_dhcp_requests_but_no_flood_of_them() {
    let (mut answerer, now) = (Answerer::new(), Instant::now());
    let mut asked = |id, later| {
        let port = port(id, PortKind::Workload);
        let outcome = answerer.answer(&punt(PuntReason::Dhcp), &[], Some(&port), false, &Ours, now + later);
        outcome.answer
    };
    let flood: Vec<Answer> = (0..100).map(|_| asked(1, Duration::ZERO)).collect();
    assert!(flood[..20].iter().all(|answer| *answer == Answer::Deliver(PortId(1))));
    assert!(flood[20..].iter().all(|answer| *answer == Answer::Nothing(Silence::RateLimited)));
    assert_eq!(asked(2, Duration::ZERO), Answer::Deliver(PortId(2)), "another instance has its own");
    assert_eq!(asked(1, Duration::from_millis(11)), Answer::Deliver(PortId(1)));
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
    let Answer::Walk(first) = answer(PuntReason::NoRoute, &to_v4(REMOTE), PortKind::Workload, false) else {
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

#[test]
fn resets_have_a_limit_of_their_own() {
    let start = Instant::now();
    let mut answerer = Answerer::new();
    let port = port(1, PortKind::Workload);
    // No segment, so nothing is told, and nothing is drawn.
    let mut refuse = |frame: &[u8]| {
        let punt = punt(PuntReason::EgressConnections);
        answerer.answer(&punt, frame, Some(&port), false, &Ours, start).answer
    };
    assert_eq!(refuse(&to_v4(REMOTE)), Answer::Nothing(Silence::Forbidden));
    let segment = super::reset::tests::segment(0x02, b"", false);
    let told = (0..100).filter(|_| matches!(refuse(&segment), Answer::Reset(_))).count();
    assert_eq!(told, 20);
    assert_eq!(refuse(&segment), Answer::Nothing(Silence::RateLimited));
    assert_eq!(answered(&mut answerer, 1, 30, start), 20, "errors have theirs");
}

proptest! {
    #[test]
    fn any_frame_gets_an_outcome_without_panic(
        frame in prop::collection::vec(any::<u8>(), 0..120), reason in 0usize..PuntReason::ALL.len()
    ) {
        let _ = answer(PuntReason::ALL[reason], &frame, PortKind::Workload, true);
    }
}
