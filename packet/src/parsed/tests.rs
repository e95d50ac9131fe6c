use super::*;
use crate::checksum::{L4Checksum, fill_l4, verify_l4};
use crate::{FlowKey, icmp};
use proptest::prelude::*;

/// Parses a frame that must be good.
#[track_caller]
fn good(frame: &[u8]) -> Parsed {
    parse(frame).unwrap()
}

#[track_caller]
fn check_bad(frame: &[u8], expected: Malformed) {
    assert_eq!(parse(frame), Err(expected));
}

fn changed(mut frame: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut frame);
    frame
}

#[test]
fn an_ipv4_packet_is_found_where_it_lies() {
    let parsed = good(&samples::udp_v4(20));
    assert_eq!((parsed.kind, parsed.l3, parsed.l3_len, parsed.l4), (Kind::Ipv4, 14, 48, 34));
    assert_eq!((parsed.protocol, parsed.ttl, parsed.vlan), (protocol::UDP, 64, None));
    assert!(!parsed.is_fragment() && !parsed.dont_fragment);
}

#[test]
fn an_ipv6_packet_is_found_where_it_lies() {
    let parsed = good(&samples::udp_v6(20));
    assert_eq!((parsed.kind, parsed.l3, parsed.l3_len, parsed.l4), (Kind::Ipv6, 14, 68, 54));
    assert_eq!((parsed.protocol, parsed.ttl), (protocol::UDP, 64));
}

#[test]
fn up_to_two_vlan_tags_are_passed() {
    let one = good(&samples::tagged(&samples::udp_v4(0), &[(ethernet::VLAN, 100)]));
    assert_eq!((one.vlan, one.inner_vlan, one.l3, one.l4), (NonZeroU16::new(100), None, 18, 38));
    let two = good(&samples::tagged(&samples::arp(), &[(ethernet::QINQ, 100), (ethernet::VLAN, 200)]));
    assert_eq!(
        (two.vlan, two.inner_vlan, two.l3, two.kind),
        (NonZeroU16::new(100), NonZeroU16::new(200), 22, Kind::Arp)
    );
    let three = good(&samples::tagged(&samples::arp(), &[(ethernet::VLAN, 1); 3]));
    assert_eq!((three.kind, three.ethertype), (Kind::Other, ethernet::VLAN));
}

#[test]
fn a_priority_tag_belongs_to_no_vlan() {
    let parsed = good(&samples::tagged(&samples::udp_v4(0), &[(ethernet::VLAN, 0xe000)]));
    assert_eq!((parsed.vlan, parsed.l3), (None, 18));
}

#[test]
fn other_ethertypes_are_not_looked_into() {
    for ethertype in [ethernet::LLDP, ethernet::SLOW, 0x0026, 0xffff] {
        let frame = changed(samples::arp(), |f| f[12..14].copy_from_slice(&ethertype.to_be_bytes()));
        let parsed = good(&frame);
        assert_eq!((parsed.kind, parsed.ethertype, parsed.l3), (Kind::Other, ethertype, 14));
        assert_eq!(FlowKey::new(&frame, &parsed), None);
    }
}

#[test]
fn ethernet_padding_is_legal_and_left_out() {
    let frame = changed(samples::udp_v4(0), |f| f.resize(60, 0));
    let parsed = good(&frame);
    assert_eq!((parsed.l3_len, parsed.l3_packet(&frame).len(), parsed.l4_packet(&frame).len()), (28, 28, 8));
    good(&changed(samples::udp_v6(0), |f| f.resize(100, 0)));
    good(&changed(samples::arp(), |f| f.resize(60, 0)));
}

#[test]
fn each_malformed_frame_has_its_reason() {
    use Malformed::*;
    let causes: Vec<(Malformed, Vec<u8>)> = vec![
        (TooShort, samples::udp_v4(0)[..13].to_vec()),
        (VlanTruncated, samples::tagged(&samples::arp(), &[(ethernet::VLAN, 1)])[..17].to_vec()),
        (ArpMalformed, changed(samples::arp(), |f| f[17] = 1)),
        (Ipv4HeaderTruncated, samples::udp_v4(0)[..33].to_vec()),
        (Ipv4BadVersion, changed(samples::udp_v4(0), |f| f[14] = 0x65)),
        (Ipv4BadHeaderLength, changed(samples::udp_v4(0), |f| f[14] = 0x44)),
        (Ipv4BadTotalLength, changed(samples::udp_v4(0), |f| f[17] += 1)),
        (Ipv4BadChecksum, changed(samples::udp_v4(0), |f| f[22] -= 1)),
        (Ipv6HeaderTruncated, samples::udp_v6(0)[..53].to_vec()),
        (Ipv6BadVersion, changed(samples::udp_v6(0), |f| f[14] = 0x45)),
        (Ipv6BadPayloadLength, changed(samples::udp_v6(0), |f| f[19] += 1)),
        (Ipv6BadExtension, samples::ipv6(protocol::ROUTING, &[protocol::UDP, 1, 0, 0, 0, 0, 0, 0])),
        (L4Truncated, samples::ipv6(protocol::UDP, &[0; 7])),
    ];
    for (expected, frame) in &causes {
        check_bad(frame, *expected);
    }
    assert_eq!(causes.iter().map(|(reason, _)| *reason).collect::<Vec<_>>(), Malformed::ALL);
}

#[test]
fn a_packet_beyond_65535_bytes_is_refused() {
    let mut frame = samples::ipv6(protocol::UDP, &vec![0; 65_535]);
    check_bad(&frame, Malformed::Ipv6BadPayloadLength);
    frame[18..20].copy_from_slice(&(65_535u16 - 40).to_be_bytes());
    assert_eq!(good(&frame).l3_len, 65_535);
}

#[test]
fn headers_that_do_not_fit_are_refused_whatever_the_protocol() {
    for (protocol, needed) in [(protocol::TCP, 20), (protocol::UDP, 8), (protocol::ICMPV6, 8), (200, 0)] {
        assert_eq!(good(&samples::ipv6(protocol, &vec![0; needed])).l4, 54);
        if needed > 0 {
            check_bad(&samples::ipv6(protocol, &vec![0; needed - 1]), Malformed::L4Truncated);
        }
    }
}

#[test]
fn fragments_of_ipv4_are_told_apart() {
    let fragment = |flags_and_offset: u16| {
        let mut frame = samples::udp_v4(16);
        frame[20..22].copy_from_slice(&flags_and_offset.to_be_bytes());
        samples::mend_ipv4_checksum(&mut frame);
        let parsed = good(&frame);
        (parsed.fragment, parsed.l4, FlowKey::new(&frame, &parsed).unwrap().dport)
    };
    assert_eq!(fragment(0x4000), (Fragment::Whole, 34, 53));
    assert_eq!(fragment(0x2000), (Fragment::First, 34, 53));
    assert_eq!(fragment(0x2001), (Fragment::Later, 0, 0));
    assert_eq!(fragment(0x0001), (Fragment::Later, 0, 0));
}

#[test]
fn a_first_fragment_that_hides_its_ports_is_refused() {
    let mut frame = samples::udp_v4(0)[..38].to_vec();
    frame[17] = 24;
    frame[20] = 0x20;
    samples::mend_ipv4_checksum(&mut frame);
    check_bad(&frame, Malformed::L4Truncated);
}

#[test]
fn the_upper_layer_is_found_behind_extension_headers() {
    let options = [protocol::UDP, 0, 1, 4, 0, 0, 0, 0];
    let datagram = [4, 210, 0, 53, 0, 8, 0, 0];
    let frame = samples::ipv6(protocol::HOP_BY_HOP, &[options, datagram].concat());
    let parsed = good(&frame);
    assert_eq!((parsed.protocol, parsed.l4), (protocol::UDP, 62));
    assert_eq!(FlowKey::new(&frame, &parsed).unwrap().sport, 1234);
}

#[test]
fn nothing_follows_no_next_header() {
    let parsed = good(&samples::ipv6(protocol::NO_NEXT_HEADER, &[]));
    assert_eq!((parsed.protocol, parsed.l4), (protocol::NO_NEXT_HEADER, 0));
}

#[test]
fn later_fragments_of_ipv6_have_no_upper_layer_here() {
    let parsed = good(&samples::ipv6(protocol::FRAGMENT, &[protocol::TCP, 0, 0, 8, 0, 0, 0, 1]));
    assert_eq!((parsed.fragment, parsed.l4, parsed.protocol), (Fragment::Later, 0, protocol::TCP));
}

#[test]
fn an_echo_and_its_reply_are_one_flow() {
    for (request, reply_type, at) in
        [(samples::echo_v4(), icmp::v4::ECHO_REPLY, 34), (samples::echo_v6(), icmp::v6::ECHO_REPLY, 54)]
    {
        let key = |frame: &[u8]| FlowKey::new(frame, &good(frame)).unwrap();
        let flow = key(&request);
        assert_eq!((flow.sport, flow.dport), (77, 77));
        let mut reply = request.clone();
        reply[at] = reply_type;
        let (src, len) = if at == 34 { (26, 4) } else { (22, 16) };
        reply[src..src + len].copy_from_slice(&request[src + len..src + 2 * len]);
        reply[src + len..src + 2 * len].copy_from_slice(&request[src..src + len]);
        assert_eq!(key(&reply), flow.reversed());
        assert_eq!(key(&reply).hash_symmetric(), flow.hash_symmetric());
    }
}

#[test]
fn upper_layer_checksums_are_verified_and_filled() {
    for mut frame in [samples::udp_v4(21), samples::udp_v6(21), samples::echo_v4(), samples::echo_v6()] {
        let parsed = good(&frame);
        let original = frame.clone();
        assert_eq!(verify_l4(&frame, &parsed), L4Checksum::Correct);
        *frame.last_mut().unwrap() ^= 1;
        assert_eq!(verify_l4(&frame, &parsed), L4Checksum::Wrong);
        assert!(fill_l4(&mut frame, &parsed));
        assert_eq!(verify_l4(&frame, &parsed), L4Checksum::Correct);
        *frame.last_mut().unwrap() ^= 1;
        assert!(fill_l4(&mut frame, &parsed));
        assert_eq!(frame, original);
    }
}

#[test]
fn udp_over_ipv4_may_do_without_a_checksum_over_ipv6_it_may_not() {
    let v4 = changed(samples::udp_v4(0), |f| f[40..42].fill(0));
    assert_eq!(verify_l4(&v4, &good(&v4)), L4Checksum::Absent);
    let v6 = changed(samples::udp_v6(0), |f| f[60..62].fill(0));
    assert_eq!(verify_l4(&v6, &good(&v6)), L4Checksum::Wrong);
}

#[test]
fn every_truncation_of_every_sample_is_refused_or_parses_without_panic() {
    for frame in samples::all() {
        for len in 0..frame.len() {
            // None has padding, so no shorter frame is whole.
            assert!(parse(&frame[..len]).is_err(), "{len} of {frame:02x?}");
        }
    }
}

#[test]
fn accessors_given_another_frame_do_not_panic() {
    for frame in samples::all() {
        let parsed = good(&frame);
        for len in 0..frame.len() {
            let other = &frame[..len];
            let _ =
                (FlowKey::new(other, &parsed), icmp::may_answer(other, &parsed), verify_l4(other, &parsed));
            let _ = (parsed.l3_packet(other), parsed.l4_packet(other), fill_l4(&mut other.to_vec(), &parsed));
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_parse_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn damaged_samples_parse_or_are_refused(
        which in 0usize..9, damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut frame = samples::all().swap_remove(which);
        for (at, byte) in damage {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        if frame[14] & 15 < 5 || frame.len() < 14 + usize::from(frame[14] & 15) * 4 {
            frame[14] = 0x45;
        }
        samples::mend_ipv4_checksum(&mut frame);
        if let Ok(parsed) = parse(&frame) {
            prop_assert!(parsed.l3_end() <= frame.len());
            prop_assert!(usize::from(parsed.l4) <= frame.len());
            prop_assert_eq!(FlowKey::new(&frame, &parsed).is_some(), parsed.is_ip());
        }
    }
}

fn frames() -> Vec<Vec<u8>> {
    vec![
        samples::udp_v4(20),
        samples::udp_v6(20),
        samples::udp_v4(0),
        samples::udp_v6(0),
        samples::tagged(&samples::udp_v4(0), &[(ethernet::VLAN, 100)]),
    ]
}

#[test]
fn plain_frames_take_the_short_way() {
    for frame in &frames()[..4] {
        let parsed = parse_plain(frame).expect("a plain frame");
        assert_eq!(FlowKey::plain_v4(frame, &parsed).is_some(), parsed.kind == Kind::Ipv4);
    }
}

proptest! {
    /// The short way through [`parse`] never tells anything else than the long one.
    #[test]
    fn the_short_way_agrees_with_the_long_one(
        which in 0usize..5,
        changes in proptest::collection::vec((0usize..70, any::<u8>()), 0..4),
        len in 0usize..90,
        mend: bool,
    ) {
        let mut frame = frames().swap_remove(which);
        for (at, byte) in changes {
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
        }
        frame.resize(len.max(34), 0);
        // Mostly, what was changed would fall at the checksum; mended, it gets further.
        if mend {
            frame[24..26].fill(0);
            let sum = checksum::of(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        if let Some(parsed) = parse_plain(&frame) {
            prop_assert_eq!(parse_any(&frame), Ok(Parsed { layout: Layout::Other, ..parsed }));
            if let Some(flow) = FlowKey::plain_v4(&frame, &parsed) {
                prop_assert_eq!(FlowKey::new(&frame, &parsed), Some(flow));
            }
        }
    }
}
