//! Each ICMP error that the RFCs ask a router for, and each that they forbid: the paragraph, the packet, the answer.
//! Which packets come up at all is in `fastpath/tests/hostile_ip.rs`.

use super::tests::{NODE_V4, NODE_V6, Ours, REMOTE, REMOTE_V6, UPLINK_V4, WORKLOAD_MAC, port, to_v4, to_v6};
use super::*;
use packet::{checksum, parse};
use tables::PuntReason::{self, *};

/// What the sender reads: from whom, type, code, the four bytes behind the checksum, and how many bytes are quoted.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    source: IpAddr,
    kind: u8,
    code: u8,
    rest: u32,
    quoted: usize,
}

fn told(reason: PuntReason, kind: PortKind, frame: &[u8]) -> Result<Told, Silence> {
    let punt = Punt { reason, port: None, adjacency: None, mtu: 1400 };
    let outcome =
        Answerer::new().answer(&punt, frame, Some(&port(1, kind)), true, &Ours, Instant::now()).answer;
    let error = match outcome {
        Answer::Walk(error) | Answer::SendBack(_, error) => error,
        Answer::Nothing(silence) => return Err(silence),
        Answer::Transmit(..) | Answer::Reset(_) | Answer::Deliver(_) => panic!("an ICMP error, or nothing"),
    };
    let parsed = parse(&error).expect("the error is a good packet");
    assert_eq!(checksum::verify_l4(&error, &parsed), checksum::L4Checksum::Correct);
    let cause = parse(frame).unwrap();
    let message = parsed.l4_packet(&error);
    assert_eq!(parsed.ipv4_destination(&error), cause.ipv4_source(frame), "to the sender");
    assert_eq!(parsed.ipv6_destination(&error), cause.ipv6_source(frame), "to the sender");
    let quoted = &message[8..];
    assert_eq!(quoted, &cause.l3_packet(frame)[..quoted.len()], "the packet as it was received");
    let v4 = parsed.ipv4_source(&error).map(IpAddr::V4);
    Ok(Told {
        source: v4.or(parsed.ipv6_source(&error).map(IpAddr::V6)).unwrap(),
        kind: message[0],
        code: message[1],
        rest: u32::from_be_bytes([message[4], message[5], message[6], message[7]]),
        quoted: quoted.len(),
    })
}

/// An IPv4 frame with a record route whose length byte is wrong.
fn with_bad_option() -> Vec<u8> {
    let mut frame = to_v4(REMOTE);
    frame.splice(34..34, [1, 7, 1, 0]);
    frame[14] = 0x46;
    frame[17] += 4;
    mend(&mut frame);
    frame
}

fn mend(frame: &mut [u8]) {
    let end = 14 + usize::from(frame[14] & 0x0f) * 4;
    frame[24..26].fill(0);
    let sum = checksum::of(&frame[14..end]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

fn long(mut frame: Vec<u8>, len: usize) -> Vec<u8> {
    frame.resize(14 + len, 0x5a);
    if frame[14] >> 4 == 4 {
        frame[16..18].copy_from_slice(&(len as u16).to_be_bytes());
        frame[38..40].copy_from_slice(&(len as u16 - 20).to_be_bytes());
        mend(&mut frame);
    } else {
        frame[18..20].copy_from_slice(&(len as u16 - 40).to_be_bytes());
        frame[58..60].copy_from_slice(&(len as u16 - 40).to_be_bytes());
    }
    frame
}

#[test]
fn every_error_that_a_router_owes() {
    let (v4, v6) = (to_v4(REMOTE), to_v6(REMOTE_V6));
    let link_local = {
        let mut frame = v6.clone();
        frame[22..38].copy_from_slice(&"fe80::7".parse::<std::net::Ipv6Addr>().unwrap().octets());
        frame
    };
    for (rule, reason, frame, kind, code, rest) in [
        ("RFC 1812 5.3.1: TTL ran out", TtlExceeded, &v4, 11, 0, 0),
        ("RFC 4443 3.3: hop limit ran out", TtlExceeded, &v6, 3, 0, 0),
        ("RFC 1812 5.2.7.1: no route", NoRoute, &v4, 3, 0, 0),
        ("RFC 4443 3.1: no route", NoRoute, &v6, 1, 0, 0),
        ("RFC 1812 5.2.7.1: nobody answers ARP", Unresolved, &v4, 3, 1, 0),
        ("RFC 4861 7.2.2: nobody answers solicitations", Unresolved, &v6, 1, 3, 0),
        ("ip-route(8): unreachable", Rejected, &v4, 3, 1, 0),
        ("RFC 4443 3.1: reject route", Rejected, &v6, 1, 6, 0),
        ("RFC 1812 5.2.7.1: administratively prohibited", Prohibited, &v4, 3, 13, 0),
        ("RFC 4443 3.1: administratively prohibited", Prohibited, &v6, 1, 1, 0),
        ("nft(8), reject: port unreachable", Denied, &v4, 3, 3, 0),
        ("nft(8), reject: port unreachable", Denied, &v6, 1, 4, 0),
        ("RFC 1191 4: fragmentation needed, with the MTU", TooBig, &v4, 3, 4, 1400),
        ("RFC 4443 3.2: packet too big", TooBig, &v6, 2, 0, 1400),
        ("RFC 1812 4.3.3.5: parameter problem", BadOption, &with_bad_option(), 12, 0, 22 << 24),
        ("RFC 4443 3.1: beyond scope of source address", BeyondScope, &link_local, 1, 2, 0),
    ] {
        let told = told(reason, PortKind::Workload, frame);
        let source = if frame[14] >> 4 == 4 { NODE_V4 } else { NODE_V6 };
        let quoted = parse(frame).unwrap().l3_packet(frame).len();
        assert_eq!(told, Ok(Told { source, kind, code, rest, quoted }), "{rule}");
    }
}

#[test]
fn as_much_is_quoted_as_the_rfcs_allow() {
    let quoted = |frame: &[u8]| told(TtlExceeded, PortKind::Uplink, frame).map(|told| told.quoted);
    assert_eq!(quoted(&long(to_v4(REMOTE), 1400)), Ok(576 - 28), "RFC 1812 4.3.2.3");
    assert_eq!(quoted(&long(to_v6(REMOTE_V6), 1400)), Ok(1280 - 48), "RFC 4443 2.4 (c)");
}

#[test]
fn a_traceroute_sees_the_interface_that_its_packet_came_in_by() {
    let source = |kind, frame: &[u8]| told(TtlExceeded, kind, frame).map(|told| told.source);
    assert_eq!(source(PortKind::Uplink, &to_v4(REMOTE)), Ok(UPLINK_V4), "RFC 1812 4.3.2.4");
    assert_eq!(source(PortKind::Workload, &to_v4(REMOTE)), Ok(NODE_V4), "it has no address of its own");
    // The kernel drops what comes in under an address of its own.
    assert_eq!(source(PortKind::Host, &to_v4(REMOTE)), Ok(GATEWAY_V4.into()));
    assert_eq!(source(PortKind::Host, &to_v6(REMOTE_V6)), Ok(GATEWAY_V6.into()));
    assert_eq!(source(PortKind::Uplink, &to_v6(REMOTE_V6)), Ok(NODE_V6), "this uplink has no IPv6 address");
}

/// Changes an answerable frame so that no error may be sent about it.
#[track_caller]
fn silent(rule: &str, mut frame: Vec<u8>, change: impl FnOnce(&mut [u8])) {
    assert!(told(TtlExceeded, PortKind::Uplink, &frame).is_ok(), "answerable before the change: {rule}");
    change(&mut frame);
    if frame[14] >> 4 == 4 {
        mend(&mut frame);
    }
    for reason in [TtlExceeded, NoRoute, Unresolved, Rejected, Prohibited, Denied, TooBig] {
        assert_eq!(told(reason, PortKind::Uplink, &frame), Err(Silence::Forbidden), "{rule}: {reason}");
    }
}

#[test]
fn no_error_is_sent_where_none_may_be() {
    let (v4, v6) = (|| to_v4(REMOTE), || to_v6(REMOTE_V6));
    for kind in [3, 4, 5, 11, 12] {
        silent("RFC 1812 4.3.2.7: about an error", v4(), |frame| {
            frame[23] = 1;
            frame[34] = kind;
        });
    }
    for kind in [1, 2, 3, 4, 100, 127, 137] {
        silent("RFC 4443 2.4 (e.1, e.2): about an error or redirect", v6(), |frame| {
            frame[20] = 58;
            frame[54] = kind;
        });
    }
    silent("RFC 1812 4.3.2.7: to a group", v4(), |frame| frame[30..34].copy_from_slice(&[224, 0, 0, 9]));
    silent("RFC 1812 4.3.2.7: to everybody", v4(), |frame| frame[30..34].fill(255));
    silent("RFC 1812 4.3.2.7: to a network's broadcast", v4(), |frame| {
        frame[30..34].copy_from_slice(&[192, 0, 2, 255]);
    });
    silent("RFC 1812 4.3.2.7: as a link-layer broadcast", v4(), |frame| frame[..6].fill(0xff));
    silent("RFC 1812 4.3.2.7: a later fragment", v4(), |frame| frame[21] = 9);
    for source in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [240, 0, 0, 1], [255; 4], [192, 0, 2, 255]] {
        silent("RFC 1812 4.3.2.7: from no single host", v4(), |frame| frame[26..30].copy_from_slice(&source));
    }
    silent("RFC 4443 2.4 (e.3): to a group", v6(), |frame| frame[38] = 0xff);
    silent("RFC 4443 2.4 (e.4): as a link-layer multicast", v6(), |frame| frame[0] = 0x33);
    for source in ["::", "::1", "ff02::1"] {
        let source: std::net::Ipv6Addr = source.parse().unwrap();
        silent("RFC 4443 2.4 (e.6): from no single node", v6(), |frame| {
            frame[22..38].copy_from_slice(&source.octets());
        });
    }
}

#[test]
fn a_sender_on_its_own_link_is_told_there() {
    let mut frame = to_v6(REMOTE_V6);
    frame[22..38].copy_from_slice(&"fe80::7".parse::<std::net::Ipv6Addr>().unwrap().octets());
    let punt = Punt { reason: BeyondScope, port: None, adjacency: None, mtu: 0 };
    let port = port(3, PortKind::Uplink);
    let answer = Answerer::new().answer(&punt, &frame, Some(&port), false, &Ours, Instant::now()).answer;
    let Answer::SendBack(id, error) = answer else { panic!("back by the port: {answer:?}") };
    assert_eq!((id, &error[..6], &error[6..12]), (port.id, &WORKLOAD_MAC.0[..], &port.mac.0[..]));
}

/// RFC 1812 §4.3.2.8 and RFC 4443 §2.4 (f).
#[test]
fn a_scan_cannot_blind_path_mtu_discovery() {
    let now = Instant::now();
    let (mut answerer, frame, port) = (Answerer::new(), to_v4(REMOTE), port(1, PortKind::Uplink));
    let mut is_told = |reason| {
        let punt = Punt { reason, port: None, adjacency: None, mtu: 1400 };
        matches!(answerer.answer(&punt, &frame, Some(&port), false, &Ours, now).answer, Answer::Walk(_))
    };
    assert_eq!((0..1000).filter(|_| is_told(NoRoute)).count(), 20);
    assert_eq!((0..1000).filter(|_| is_told(TooBig)).count(), 20);
    let sent: Vec<_> = answerer.sent().iter().map(|((_, name), count)| (*name, *count)).collect();
    assert_eq!(sent, [("no_route", 20), ("too_big", 20)]);
}
