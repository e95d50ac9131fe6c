use super::*;
use crate::checksum::{self, L4Checksum, verify_l4};
use crate::{ethernet, parse, tcp, udp};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn addresses(key: &FlowKey) -> (IpAddr, IpAddr) {
    (key.source(), key.destination())
}

/// An IP packet behind an Ethernet header, its upper layer written by `upper`.
fn frame_of(key: &FlowKey, upper_len: usize, upper: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let (src, dst) = addresses(key);
    let l4 = if src.is_ipv4() { 34 } else { 54 };
    let mut frame = vec![0; l4 + upper_len];
    let payload_len = upper_len as u16;
    let ethertype = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let ip =
                ipv4::Repr { src, dst, protocol: key.protocol, ttl: 9, payload_len, ..Default::default() };
            ip.emit(&mut frame[14..]).unwrap();
            ethernet::IPV4
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let next_header = key.protocol;
            let ip = ipv6::Repr { src, dst, next_header, hop_limit: 9, payload_len, ..Default::default() };
            ip.emit(&mut frame[14..]).unwrap();
            ethernet::IPV6
        }
        _ => unreachable!("one family a key"),
    };
    let macs = (model::MacAddr([2; 6]), model::MacAddr([4; 6]));
    ethernet::Repr { dst: macs.0, src: macs.1, ethertype }.emit(&mut frame).unwrap();
    upper(&mut frame[l4..]);
    frame
}

/// A packet of the flow, made from nothing.
fn packet_of(key: &FlowKey, payload: &[u8]) -> Vec<u8> {
    let (src, dst) = addresses(key);
    let (sport, dport) = (key.sport, key.dport);
    match key.protocol {
        protocol::TCP => frame_of(key, 20 + payload.len(), |l4| {
            let tcp = tcp::Repr { sport, dport, seq: 1, ack: 2, flags: 0x10, window: 9, payload };
            tcp.emit(src, dst, l4).unwrap();
        }),
        protocol::UDP => frame_of(key, 8 + payload.len(), |l4| {
            udp::Repr { sport, dport, payload }.emit(src, dst, l4).unwrap();
        }),
        _ => frame_of(key, 8 + payload.len(), |l4| {
            let echo = icmp::Echo { reply: false, ident: sport, seq: 1, payload };
            match (src, dst) {
                (IpAddr::V6(src), IpAddr::V6(dst)) => echo.emit_v6(src, dst, l4).unwrap(),
                _ => echo.emit_v4(l4).unwrap(),
            };
        }),
    }
}

fn keys() -> impl Strategy<Value = (FlowKey, FlowKey)> {
    let part = || (any::<[u128; 2]>(), any::<[u16; 2]>());
    (any::<bool>(), 0usize..3, part(), part()).prop_map(|(v6, protocol, one, other)| {
        let (family, mask) = if v6 { (Family::V6, u128::MAX) } else { (Family::V4, 0xffff_ffff) };
        let icmp = if v6 { protocol::ICMPV6 } else { protocol::ICMP };
        let protocol = [protocol::TCP, protocol::UDP, icmp][protocol];
        let key = |([src, dst], [sport, dport]): ([u128; 2], [u16; 2])| {
            let dport = if protocol == icmp { sport } else { dport };
            FlowKey { src: src & mask, dst: dst & mask, sport, dport, protocol, family }
        };
        (key(one), key(other))
    })
}

/// An ICMP error from `src` to the sender of the quoted packet, made from nothing.
fn error_about(quote: &[u8], src: u128, of: &FlowKey) -> Vec<u8> {
    let v6 = of.family == Family::V6;
    let protocol = if v6 { protocol::ICMPV6 } else { protocol::ICMP };
    let outer = FlowKey { src, dst: of.src, protocol, ..*of };
    let mut frame = frame_of(&outer, 8 + quote.len(), |l4| {
        l4[0] = if v6 { icmp::v6::TIME_EXCEEDED } else { icmp::v4::TIME_EXCEEDED };
        l4[8..].copy_from_slice(quote);
    });
    let parsed = parse(&frame).unwrap();
    checksum::fill_l4(&mut frame, &parsed);
    frame
}

proptest! {
    #[test]
    fn a_translated_packet_is_the_one_that_the_other_flow_would_have_sent(
        (from, to) in keys(), payload in prop::collection::vec(any::<u8>(), 0..80)
    ) {
        let mut frame = packet_of(&from, &payload);
        let parsed = parse(&frame).unwrap();
        prop_assert_eq!(FlowKey::new(&frame, &parsed), Some(from));
        translate(&mut frame, &parsed, &from, &to);
        let parsed = parse(&frame).expect("the header's checksum is right");
        prop_assert_eq!(verify_l4(&frame, &parsed), L4Checksum::Correct);
        prop_assert_eq!(frame, packet_of(&to, &payload));
    }

    /// Whatever its checksums are, and wherever it is cut off.
    #[test]
    fn a_plain_packet_becomes_what_any_other_would(
        (from, to) in keys(), bytes in prop::collection::vec(any::<u8>(), 60), len in 34usize..60, is_tcp: bool,
    ) {
        let protocol = if is_tcp { protocol::TCP } else { protocol::UDP };
        let (from, to) = (FlowKey { protocol, ..from }, FlowKey { protocol, ..to });
        let mut frame = bytes;
        frame.truncate(len);
        let plain = Parsed { layout: Layout::PlainV4, l3: 14, l4: 34, kind: Kind::Ipv4, protocol, ..Parsed::UNTAGGED };
        // A packet of its flow, so that what isn't to change doesn't.
        let from = FlowKey { family: Family::V4, src: from.src & 0xffff_ffff, dst: from.dst & 0xffff_ffff, ..from };
        let to = FlowKey { family: Family::V4, src: to.src & 0xffff_ffff, dst: to.dst & 0xffff_ffff, ..to };
        frame[26..30].copy_from_slice(&(from.src as u32).to_be_bytes());
        frame[30..34].copy_from_slice(&(from.dst as u32).to_be_bytes());
        for (at, byte) in (34..38).zip((u32::from(from.sport) << 16 | u32::from(from.dport)).to_be_bytes()) {
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
        }
        let mut slow = frame.clone();
        translate(&mut frame, &plain, &from, &to);
        translate(&mut slow, &Parsed { layout: Layout::Other, ..plain }, &from, &to);
        prop_assert_eq!(frame, slow);
    }

    #[test]
    fn a_translated_error_is_right_outside_and_inside(
        (from, to) in keys(), payload in prop::collection::vec(any::<u8>(), 0..80), src: u128, new_src: u128
    ) {
        let mask = if from.family == Family::V6 { u128::MAX } else { 0xffff_ffff };
        let (src, new_src) = (src & mask, new_src & mask);
        let mut frame = error_about(&packet_of(&from, &payload)[14..], src, &from);
        // As on a short frame: what follows the packet is padding.
        frame.extend([0xee; 9]);
        let parsed = parse(&frame).unwrap();
        prop_assert!(is_icmp_error(&frame, &parsed));
        let quote = quoted(&frame, &parsed).unwrap();
        prop_assert_eq!(quote.key, from);
        translate_error(&mut frame, &parsed, (new_src, to.src), &quote, &to);
        let mut expected = error_about(&packet_of(&to, &payload)[14..], new_src, &to);
        expected.extend([0xee; 9]);
        prop_assert_eq!(verify_l4(&frame, &parse(&frame).unwrap()), L4Checksum::Correct);
        prop_assert_eq!(frame, expected);
    }

    /// RFC 792 asks for 8 bytes of the upper layer only: all beyond may be missing.
    #[test]
    fn a_quote_cut_short_stays_right_under_the_outer_checksum(
        (from, to) in keys(), payload in prop::collection::vec(any::<u8>(), 0..40), cut in 8usize..60
    ) {
        let whole = packet_of(&from, &payload);
        let header = if from.family == Family::V6 { 40 } else { 20 };
        let quote = &whole[14..(14 + header + cut).min(whole.len())];
        let mut frame = error_about(quote, 7, &from);
        let parsed = parse(&frame).unwrap();
        let quote = quoted(&frame, &parsed).unwrap();
        translate_error(&mut frame, &parsed, (7, to.src), &quote, &to);
        let parsed = parse(&frame).unwrap();
        prop_assert_eq!(verify_l4(&frame, &parsed), L4Checksum::Correct);
        prop_assert_eq!(quoted(&frame, &parsed).unwrap().key, to);
    }

    /// Whatever is quoted, nothing panics, and what can be recognised can be translated.
    #[test]
    fn any_quote_is_translated_or_broken(
        v6: bool, quote in prop::collection::vec(any::<u8>(), 0..120), first in 0u8..3, to in any::<[u128; 2]>()
    ) {
        let family = if v6 { Family::V6 } else { Family::V4 };
        let of = FlowKey { src: 9, dst: 8, sport: 0, dport: 0, protocol: 0, family };
        let mut quote = quote;
        // Half of them begin like a packet.
        if let (Some(byte), true) = (quote.first_mut(), first > 0) {
            *byte = if v6 { 0x60 } else { 0x45 };
        }
        let mut frame = error_about(&quote, 7, &of);
        let parsed = parse(&frame).unwrap();
        if let Ok(quote) = quoted(&frame, &parsed) {
            let mask = if v6 { u128::MAX } else { 0xffff_ffff };
            let other = FlowKey { src: to[0] & mask, dst: to[1] & mask, ..quote.key };
            translate_error(&mut frame, &parsed, (7, 5), &quote, &other);
            let parsed = parse(&frame).unwrap();
            prop_assert_eq!(verify_l4(&frame, &parsed), L4Checksum::Correct);
        }
    }
}

fn v4(protocol: u8, sport: u16, dport: u16) -> FlowKey {
    FlowKey { src: 0x0a00_0001, dst: 0x0a00_0002, sport, dport, protocol, family: Family::V4 }
}

#[test]
fn a_udp_packet_without_checksum_gets_none() {
    let (from, to) = (v4(protocol::UDP, 1, 2), FlowKey { src: 0xc0a8_0101, sport: 77, ..v4(17, 1, 2) });
    let mut frame = packet_of(&from, b"x");
    frame[40..42].fill(0);
    let parsed = parse(&frame).unwrap();
    translate(&mut frame, &parsed, &from, &to);
    assert_eq!((&frame[40..42], &frame[34..36]), (&[0, 0][..], &[0, 77][..]));
    assert!(parse(&frame).is_ok());
}

#[test]
fn of_a_later_fragment_only_addresses_change() {
    let from = v4(protocol::UDP, 0, 0);
    let mut frame = packet_of(&from, &[0x5a; 24]);
    frame[20..22].copy_from_slice(&[0, 3]);
    frame[18..20].copy_from_slice(&[0x12, 0x34]);
    frame[24..26].fill(0);
    let header = checksum::of(&frame[14..34]);
    frame[24..26].copy_from_slice(&header.to_be_bytes());
    let parsed = parse(&frame).unwrap();
    assert_eq!(fragment_id(&frame, &parsed), Some(0x1234));
    let before = frame.clone();
    let to = FlowKey { dst: u128::from(u32::from(Ipv4Addr::new(192, 0, 2, 9))), sport: 5, ..from };
    translate(&mut frame, &parsed, &from, &to);
    assert_eq!((parse(&frame).unwrap().ipv4_destination(&frame)), Some(Ipv4Addr::new(192, 0, 2, 9)));
    assert_eq!(frame[34..], before[34..]);
}

#[test]
fn the_identification_of_ipv6_stands_behind_other_headers() {
    let key = FlowKey {
        src: Ipv6Addr::LOCALHOST.into(),
        dst: 9,
        protocol: protocol::HOP_BY_HOP,
        family: Family::V6,
        ..v4(0, 0, 0)
    };
    let frame = frame_of(&key, 8 + 8 + 16, |l4| {
        l4[..16].copy_from_slice(&[
            protocol::FRAGMENT,
            0,
            1,
            4,
            0,
            0,
            0,
            0,
            17,
            0,
            0,
            9,
            0xde,
            0xad,
            0xbe,
            0xef,
        ]);
    });
    assert_eq!(fragment_id(&frame, &parse(&frame).unwrap()), Some(0xdead_beef));
}

#[test]
fn an_error_about_an_error_and_a_fragmented_error_are_broken() {
    let echo = packet_of(&v4(protocol::ICMP, 7, 7), b"");
    let error = error_about(&echo[14..], 7, &v4(protocol::ICMP, 7, 7));
    let about_it = error_about(&error[14..], 7, &v4(protocol::ICMP, 7, 7));
    let parsed = parse(&about_it).unwrap();
    assert_eq!(quoted(&about_it, &parsed), Err(BrokenQuote));
    let parsed = Parsed { fragment: Fragment::First, ..parse(&error).unwrap() };
    assert_eq!(quoted(&error, &parsed), Err(BrokenQuote));
}
