//! What must hold for any bytes; the fuzz target and the replay of its corpus share it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::checksum::{L4Checksum, fill_l4, verify_l4};
use packet::icmp::{NotBuilt, Problem, build_error, may_answer};
use packet::{FlowKey, Kind, Parsed, arp, ethernet, icmp, ipv4, ipv6, nat, parse, protocol, tcp, udp, vlan};

/// Reads the bytes as a frame and as every header; panics where a promise of the room is broken.
pub fn run(bytes: &[u8]) {
    every_view(bytes);
    let Ok(parsed) = parse(bytes) else { return };
    offsets(bytes, &parsed);
    truncations(bytes, &parsed);
    flow(bytes, &parsed);
    checksums(bytes, &parsed);
    hop(bytes, &parsed);
    errors(bytes, &parsed);
    translation(bytes, &parsed);
}

/// Reads the bytes as each header in turn; what a view shows must emit and read back the same.
fn every_view(bytes: &[u8]) {
    let mut buffer = vec![0; bytes.len() + 60];
    if let Ok(view) = ethernet::Packet::new_checked(bytes) {
        let repr = ethernet::Repr::parse(&view);
        repr.emit(&mut buffer).unwrap();
        assert_eq!(ethernet::Repr::parse(&ethernet::Packet::new_checked(&buffer).unwrap()), repr);
    }
    if let Ok(view) = vlan::Packet::new_checked(bytes) {
        let repr = vlan::Repr::parse(&view);
        repr.emit(&mut buffer).unwrap();
        assert_eq!(vlan::Repr::parse(&vlan::Packet::new_checked(&buffer).unwrap()), repr);
    }
    if let Ok(view) = arp::Packet::new_checked(bytes) {
        let repr = arp::Repr::parse(&view);
        repr.emit(&mut buffer).unwrap();
        assert_eq!(arp::Repr::parse(&arp::Packet::new_checked(&buffer).unwrap()), repr);
    }
    if let Ok(view) = ipv4::Packet::new_checked(bytes) {
        let repr = ipv4::Repr::parse(&view);
        repr.emit(&mut buffer).unwrap();
        assert_eq!(ipv4::Repr::parse(&ipv4::Packet::new_checked(&buffer).unwrap()), repr);
        assert_eq!(view.header_len() + view.payload().len(), usize::from(view.total_len()));
    }
    if let Ok(view) = ipv6::Packet::new_checked(bytes) {
        let repr = ipv6::Repr::parse(&view);
        repr.emit(&mut buffer).unwrap();
        assert_eq!(ipv6::Repr::parse(&ipv6::Packet::new_checked(&buffer).unwrap()), repr);
        if let Ok(chain) = ipv6::walk(view.next_header(), view.payload()) {
            assert!(chain.len <= view.payload().len());
        }
    }
    let ends: (IpAddr, IpAddr) = (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::BROADCAST.into());
    if let Ok(view) = udp::Packet::new_checked(bytes) {
        let repr = udp::Repr::parse(&view);
        let len = repr.emit(ends.0, ends.1, &mut buffer).unwrap();
        assert_eq!(udp::Repr::parse(&udp::Packet::new_checked(&buffer[..len]).unwrap()), repr);
    }
    if let Ok(view) = tcp::Packet::new_checked(bytes) {
        let repr = tcp::Repr::parse(&view);
        let len = repr.emit(ends.0, ends.1, &mut buffer).unwrap();
        assert_eq!(tcp::Repr::parse(&tcp::Packet::new_checked(&buffer[..len]).unwrap()), repr);
    }
    if let Ok(view) = icmp::Packet::new_checked(bytes) {
        let _ = (view.code(), view.checksum(), view.mtu(), view.next_hop_mtu());
        if let Some(echo) = icmp::Echo::parse(Kind::Ipv4, &view) {
            let len = echo.emit_v4(&mut buffer).unwrap();
            let again = icmp::Packet::new_checked(&buffer[..len]).unwrap();
            assert_eq!(icmp::Echo::parse(Kind::Ipv4, &again), Some(echo));
        }
    }
}

/// Offsets are in order and inside the frame, and agree with the views.
fn offsets(frame: &[u8], parsed: &Parsed) {
    let l3 = usize::from(parsed.l3);
    assert!(matches!(l3, 14 | 18 | 22) && l3 <= frame.len());
    assert!(parsed.l3_end() <= frame.len());
    assert!(parsed.l4 == 0 || (l3..=parsed.l3_end()).contains(&usize::from(parsed.l4)));
    assert!(!(parsed.is_later_fragment() && parsed.l4 != 0));
    match parsed.kind {
        Kind::Ipv4 => {
            let view = ipv4::Packet::new_checked(&frame[l3..]).unwrap();
            assert_eq!((view.ttl(), view.protocol()), (parsed.ttl, parsed.protocol));
            assert_eq!(parsed.ipv4_destination(frame), Some(view.dst()));
            assert_eq!(parsed.ipv6_destination(frame), None);
        }
        Kind::Ipv6 => {
            let view = ipv6::Packet::new_checked(&frame[l3..]).unwrap();
            assert_eq!(view.hop_limit(), parsed.ttl);
            assert_eq!(parsed.ipv6_source(frame), Some(view.src()));
            assert_eq!(parsed.ipv4_source(frame), None);
        }
        Kind::Arp => drop(arp::Packet::new_checked(&frame[l3..]).unwrap()),
        Kind::Other => {}
    }
    if parsed.l4 != 0 {
        let l4 = parsed.l4_packet(frame);
        match parsed.protocol {
            protocol::TCP => assert!(l4.len() >= tcp::HEADER_LEN),
            protocol::UDP | protocol::ICMP | protocol::ICMPV6 => assert!(l4.len() >= 8),
            _ => {}
        }
    }
}

/// Padding changes nothing, and no shorter frame reads past its end.
fn truncations(frame: &[u8], parsed: &Parsed) {
    if parsed.is_ip() {
        assert_eq!(parse(&frame[..parsed.l3_end()]), Ok(*parsed));
        assert!(parsed.l3_len == 0 || parse(&frame[..parsed.l3_end() - 1]).is_err());
    }
}

fn flow(frame: &[u8], parsed: &Parsed) {
    let flow = FlowKey::new(frame, parsed);
    assert_eq!(flow.is_some(), parsed.is_ip());
    if let Some(flow) = flow {
        assert_eq!(flow.hash_symmetric(), flow.reversed().hash_symmetric());
        let shown = (flow.source(), flow.destination());
        match (parsed.ipv4_source(frame), parsed.ipv6_source(frame)) {
            (Some(src), None) => assert_eq!(shown.0, src),
            (None, Some(src)) => assert_eq!(shown.0, src),
            sources => panic!("an IP packet has one source, not {sources:?}"),
        }
    }
}

fn checksums(frame: &[u8], parsed: &Parsed) {
    let mut filled = frame.to_vec();
    if fill_l4(&mut filled, parsed) {
        assert_eq!(verify_l4(&filled, parsed), L4Checksum::Correct);
        assert_eq!(parse(&filled), Ok(*parsed));
    } else {
        assert_eq!(verify_l4(frame, parsed), L4Checksum::Absent);
        assert_eq!(filled, frame);
    }
}

/// One hop less leaves a frame that parses as before.
fn hop(frame: &[u8], parsed: &Parsed) {
    let mut next = frame.to_vec();
    let header = &mut next[usize::from(parsed.l3)..];
    let ttl = match parsed.kind {
        Kind::Ipv4 => ipv4::decrement_ttl(header),
        Kind::Ipv6 => ipv6::decrement_hop_limit(header),
        Kind::Arp | Kind::Other => return,
    };
    assert_eq!(ttl, parsed.ttl.checked_sub(1));
    let expected = Parsed { ttl: ttl.unwrap_or(0), ..*parsed };
    assert_eq!(parse(&next), Ok(expected));
}

/// An ICMP error is built exactly where one may be, is itself a good packet, and is never answered.
fn errors(frame: &[u8], parsed: &Parsed) {
    let source: IpAddr = match parsed.kind {
        Kind::Ipv4 => Ipv4Addr::new(192, 0, 2, 1).into(),
        _ => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    };
    for problem in [Problem::TtlExceeded, Problem::NoRoute, Problem::TooBig { mtu: 1280 }] {
        let mut buffer = vec![0; 14 + 1280];
        let built = build_error(problem, source, frame, parsed, &mut buffer[14..]);
        if !may_answer(frame, parsed) {
            assert_eq!(built, Err(NotBuilt::Forbidden));
            continue;
        }
        let len = built.unwrap();
        let header = ethernet::Repr {
            dst: ethernet::Packet::new_checked(frame).unwrap().src(),
            src: ethernet::Packet::new_checked(frame).unwrap().dst(),
            ethertype: parsed.ethertype,
        };
        header.emit(&mut buffer).unwrap();
        let answer = &buffer[..14 + len];
        let answer_parsed = parse(answer).unwrap();
        assert_eq!(usize::from(answer_parsed.l3_len), len);
        assert!(len <= if parsed.kind == Kind::Ipv4 { 576 } else { 1280 });
        assert_eq!(verify_l4(answer, &answer_parsed), L4Checksum::Correct);
        assert!(!may_answer(answer, &answer_parsed));
    }
}

/// A right packet stays right when it is translated, and so does an ICMP error, whatever it quotes.
fn translation(frame: &[u8], parsed: &Parsed) {
    let Some(key) = FlowKey::new(frame, parsed) else { return };
    let mut right = frame.to_vec();
    if !fill_l4(&mut right, parsed) || verify_l4(&right, parsed) != L4Checksum::Correct {
        return;
    }
    let mask = if parsed.kind == Kind::Ipv4 { u128::from(u32::MAX) } else { u128::MAX };
    let other = |key: &FlowKey| FlowKey {
        src: key.dst ^ (0x5a5a_1234 & mask),
        dst: !key.src & mask,
        sport: key.sport ^ 0x00ff,
        dport: key.dport.wrapping_add(0x1234),
        ..*key
    };
    let mut translated = right.clone();
    let is_error = nat::is_icmp_error(&right, parsed);
    if is_error {
        let Ok(quote) = nat::quoted(&right, parsed) else { return };
        nat::translate_error(&mut translated, parsed, (1, 2), &quote, &other(&quote.key));
    } else {
        nat::translate(&mut translated, parsed, &key, &other(&key));
    }
    let again = parse(&translated).expect("the headers are as right as before");
    assert_eq!(verify_l4(&translated, &again), L4Checksum::Correct);
    assert_eq!(again.is_fragment(), nat::fragment_id(frame, parsed).is_some());
}
