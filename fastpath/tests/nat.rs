//! Source NAT and floating IPs: what leaves, what comes back, and what doesn't.

mod support;

use model::Family;
use packet::{FlowKey, checksum, icmp, nat};
use support::translation::{
    FLOATING, OUT, OUTER, POD, PORT_RANGE, SERVER, error_frame, fragments, icmp_frame, key, outward, rules,
    tcp_frame, translating,
};
use support::{Build, HOST, PORTS, Rig, Sizes, UPLINK, WORKLOAD, mac, neighbor_mac};
use tables::{DropReason, PuntReason};

fn rig() -> Rig {
    translating(&rules(), Sizes::default())
}

fn ends(frame: &[u8]) -> (String, u16, String, u16) {
    let key = key(frame);
    (key.source().to_string(), key.sport, key.destination().to_string(), key.dport)
}

fn ends_are(frame: &[u8], src: &str, sport: u16, dst: &str, dport: u16) {
    assert_eq!(ends(frame), (src.to_owned(), sport, dst.to_owned(), dport));
}

/// What the other end answers to a frame that left, as it comes in by that port.
fn answer_to(frame: &[u8], by: model::PortId) -> Vec<u8> {
    let FlowKey { sport, dport, .. } = key(frame);
    let key = key(frame);
    let build = Build::packet(by, &key.destination().to_string(), &key.source().to_string());
    with_ports(build.sport(dport).frame(), dport, sport)
}

fn with_ports(mut frame: Vec<u8>, sport: u16, dport: u16) -> Vec<u8> {
    let parsed = packet::parse(&frame).unwrap();
    let from = FlowKey::new(&frame, &parsed).unwrap();
    nat::translate(&mut frame, &parsed, &from, &FlowKey { sport, dport, ..from });
    frame
}

#[test]
fn a_packet_out_of_the_pools_leaves_under_the_nodes_address_and_its_answer_comes_back() {
    let mut rig = rig();
    assert_eq!(rig.send(WORKLOAD, &outward(1000).frame()).forwarded(), 1);
    let out = rig.left_by(OUT);
    let (_, sport, ..) = ends(&out);
    assert!(PORT_RANGE.contains(&sport) && sport % 2 == 0, "{sport}");
    ends_are(&out, OUTER, sport, SERVER, 53);
    assert_eq!(rig.send(OUT, &answer_to(&out, OUT)).forwarded(), 1);
    ends_are(&rig.left_by(WORKLOAD), SERVER, 53, POD, 1000);
    // The next packet, and one to another server, keep the port.
    rig.send(WORKLOAD, &outward(1000).frame());
    ends_are(&rig.left_by(OUT), OUTER, sport, SERVER, 53);
    rig.send(WORKLOAD, &outward(1000).to("10.69.0.2").frame());
    ends_are(&rig.left_by(OUT), OUTER, sport, "10.69.0.2", 53);
    rig.audit();
}

#[test]
fn a_translated_flow_has_one_outer_port_from_its_first_packet_on() {
    let mut rig = rig();
    let left = [(); 2].map(|()| {
        rig.send(WORKLOAD, &outward(1000).to("10.73.0.1").frame());
        rig.left_by(UPLINK)
    });
    assert_eq!(ends(&left[0][50..]).0, OUTER);
    assert_eq!(left[0], left[1]);
}

#[test]
fn a_port_in_the_range_is_kept() {
    let mut rig = rig();
    rig.send(WORKLOAD, &outward(50_123).frame());
    ends_are(&rig.left_by(OUT), OUTER, 50_123, SERVER, 53);
}

#[test]
fn packets_within_the_pools_and_to_the_host_stay_as_they_are() {
    let mut rig = rig();
    rig.send(WORKLOAD, &Build::outward().frame());
    ends_are(&rig.left_by(UPLINK), POD, 1000, "10.65.1.2", 53);
    rig.send(WORKLOAD, &Build::outward().to(OUTER).frame());
    ends_are(&rig.left_by(HOST), POD, 1000, OUTER, 53);
    rig.send(WORKLOAD, &Build::packet(WORKLOAD, "fd65::2", "fd69::2").frame());
    assert_eq!(key(&rig.left_by(OUT)).source().to_string(), "fd65::2", "no IPv6 pool is translated");
    assert_eq!(rig.flows.counts().in_use, 0);
}

#[test]
fn what_belongs_to_no_flow_goes_to_the_host() {
    let mut rig = rig();
    let stranger = with_ports(Build::packet(UPLINK, SERVER, OUTER).frame(), 53, 50_001);
    rig.send(UPLINK, &stranger);
    ends_are(&rig.left_by(HOST), SERVER, 53, OUTER, 50_001);
    // Also where a flow has the port, but not to this sender.
    rig.send(WORKLOAD, &outward(50_001).frame());
    rig.left_by(OUT);
    let other = with_ports(Build::packet(UPLINK, "10.69.0.9", OUTER).frame(), 53, 50_001);
    rig.send(UPLINK, &other);
    ends_are(&rig.left_by(HOST), "10.69.0.9", 53, OUTER, 50_001);
    let echo = icmp_frame(UPLINK, SERVER, OUTER, &echo_reply(77));
    rig.send(UPLINK, &echo);
    assert_eq!(key(&rig.left_by(HOST)).dport, 77);
    let error = error_frame(UPLINK, "10.69.0.99", &Build::packet(UPLINK, OUTER, SERVER).frame());
    rig.send(UPLINK, &error);
    assert_eq!(key(&rig.left_by(HOST)).source().to_string(), "10.69.0.99");
}

fn echo_reply(ident: u16) -> Vec<u8> {
    let mut message = vec![0; 16];
    icmp::Echo { reply: true, ident, seq: 1, payload: &[7; 8] }.emit_v4(&mut message).unwrap();
    message
}

#[test]
fn a_ping_leaves_with_another_identifier_and_its_reply_has_its_own() {
    let mut rig = rig();
    rig.send(WORKLOAD, &support::echo(SERVER, 64));
    let out = rig.left_by(OUT);
    let (source, ident, ..) = ends(&out);
    assert!(source == OUTER && PORT_RANGE.contains(&ident), "{source} {ident}");
    rig.send(OUT, &icmp_frame(OUT, SERVER, OUTER, &echo_reply(ident)));
    let back = rig.left_by(WORKLOAD);
    ends_are(&back, SERVER, 7, POD, 7);
}

/// RFC 5508 §4.2: the pod must recognise what it sent.
#[test]
fn an_icmp_error_about_a_translated_packet_reaches_the_pod_as_about_its_own() {
    let mut rig = rig();
    let sent = outward(1000).frame();
    rig.send(WORKLOAD, &sent);
    let out = rig.left_by(OUT);
    rig.send(OUT, &error_frame(OUT, "10.69.0.99", &out));
    let error = rig.left_by(WORKLOAD);
    assert_eq!(
        (key(&error).source().to_string(), key(&error).destination().to_string()),
        ("10.69.0.99".into(), POD.into())
    );
    let quote = nat::quoted(&error, &packet::parse(&error).unwrap()).unwrap();
    assert_eq!(quote.key, key(&sent));
    assert!(checksum::is_correct(&error[42..62]), "the quoted header's own checksum");
    // The other way round: the pod has closed its socket and says so about an answer.
    rig.send(OUT, &answer_to(&out, OUT));
    let answer = rig.left_by(WORKLOAD);
    rig.send(WORKLOAD, &icmp_frame(WORKLOAD, POD, SERVER, &error_frame(WORKLOAD, POD, &answer)[34..]));
    let error = rig.left_by(OUT);
    assert_eq!(key(&error).source().to_string(), OUTER);
    let quote = nat::quoted(&error, &packet::parse(&error).unwrap()).unwrap();
    assert_eq!(quote.key, key(&out).reversed());
}

#[test]
fn the_slow_path_gets_packets_as_the_workload_sent_them() {
    let mut rig = rig();
    let sent = outward(1000).ttl(1).frame();
    let moved = rig.send(WORKLOAD, &sent);
    assert_eq!(moved.punts(), [(PuntReason::TtlExceeded.as_str(), 1)]);
    assert_eq!(rig.punts.pop(|_, bytes| bytes.to_vec()), Some(sent));
    let large = outward(1000).payload(900).frame();
    let moved = rig.send(WORKLOAD, &large);
    assert_eq!(moved.punts(), [(PuntReason::TooBig.as_str(), 1)]);
    assert_eq!(rig.punts.pop(|_, bytes| bytes.to_vec()), Some(large));
    rig.audit();
}

#[test]
fn a_waiting_packet_that_the_slow_path_sends_again_is_translated() {
    let mut rig = rig();
    rig.inject.push(tables::Inject::Walk, &outward(50_007).frame()).unwrap();
    rig.run();
    ends_are(&rig.left_by(OUT), OUTER, 50_007, SERVER, 53);
}

/// A client outside asked the pod itself, so it knows no other address.
#[test]
fn a_reset_in_the_name_of_a_pod_has_its_own_address() {
    const RST_ACK: u8 = 0x14;
    let mut rig = rig();
    rig.inject.push(tables::Inject::WalkAsIs, &tcp_frame(RST_ACK, 1000)).unwrap();
    rig.run();
    ends_are(&rig.left_by(OUT), POD, 1000, SERVER, 80);
    rig.audit();
}

#[test]
fn a_floating_ip_leads_to_its_workload_and_back() {
    let mut rig = rig();
    let from_outside = Build::packet(UPLINK, "10.69.0.9", FLOATING).frame();
    rig.send(UPLINK, &from_outside);
    let inside = rig.left_by(WORKLOAD);
    ends_are(&inside, "10.69.0.9", 1000, POD, 53);
    rig.send(WORKLOAD, &answer_to(&inside, WORKLOAD));
    ends_are(&rig.left_by(OUT), FLOATING, 53, "10.69.0.9", 1000);
    // Not a source NAT: what the workload begins leaves under the node's address.
    rig.send(WORKLOAD, &outward(50_002).frame());
    ends_are(&rig.left_by(OUT), OUTER, 50_002, SERVER, 53);
    // From the host, too.
    rig.send(HOST, &Build::packet(HOST, OUTER, FLOATING).frame());
    let inside = rig.left_by(WORKLOAD);
    rig.send(WORKLOAD, &answer_to(&inside, WORKLOAD));
    ends_are(&rig.left_by(HOST), FLOATING, 53, OUTER, 1000);
    rig.audit();
}

#[test]
fn a_workload_reaches_itself_by_its_floating_ip() {
    let mut rig = rig();
    for sport in [1000, 53] {
        rig.send(WORKLOAD, &Build::packet(WORKLOAD, POD, FLOATING).sport(sport).frame());
        let inside = rig.left_by(WORKLOAD);
        let (source, seen, destination, dport) = ends(&inside);
        assert_eq!((source.as_str(), destination.as_str(), dport), (FLOATING, POD, 53));
        rig.send(WORKLOAD, &answer_to(&inside, WORKLOAD));
        ends_are(&rig.left_by(WORKLOAD), FLOATING, 53, POD, sport);
        assert!(seen == sport || sport == 53, "another port only where both are the same");
    }
}

#[test]
fn a_workload_pings_itself_by_its_floating_ip() {
    let mut rig = rig();
    rig.send(WORKLOAD, &support::echo(FLOATING, 64));
    let inside = rig.left_by(WORKLOAD);
    let (source, ident, destination, _) = ends(&inside);
    assert_eq!((source.as_str(), destination.as_str()), (FLOATING, POD));
    rig.send(WORKLOAD, &icmp_frame(WORKLOAD, POD, FLOATING, &echo_reply(ident)));
    ends_are(&rig.left_by(WORKLOAD), FLOATING, 7, POD, 7);
}

/// RFC 4787 REQ-9: peers behind one router that know each other's outer address and port only. Here both are on one port of
/// the router; the walk doesn't care.
#[test]
fn workloads_reach_each_other_by_their_outer_ports() {
    let mut rig = rig();
    rig.send(WORKLOAD, &outward(50_100).frame());
    ends_are(&rig.left_by(OUT), OUTER, 50_100, SERVER, 53);
    let to_outer = |sport, dport| with_ports(Build::packet(WORKLOAD, POD, OUTER).frame(), sport, dport);
    let sent = to_outer(1000, 50_100);
    rig.send(WORKLOAD, &sent);
    let inside = rig.left_by(WORKLOAD);
    let (_, seen, ..) = ends(&inside);
    ends_are(&inside, OUTER, seen, POD, 50_100);
    assert!(PORT_RANGE.contains(&seen), "{seen}");
    rig.send(WORKLOAD, &answer_to(&inside, WORKLOAD));
    ends_are(&rig.left_by(WORKLOAD), OUTER, 50_100, POD, 1000);
    // The receiver has no such socket and says so: the sender recognises what it sent.
    rig.send(WORKLOAD, &error_frame(WORKLOAD, POD, &inside));
    let error = rig.left_by(WORKLOAD);
    assert_eq!(key(&error).source().to_string(), OUTER);
    let quote = nat::quoted(&error, &packet::parse(&error).unwrap()).unwrap();
    assert_eq!(quote.key, key(&sent));
    // Nobody talks to itself.
    let moved = rig.send(WORKLOAD, &to_outer(50_100, 50_100));
    assert_eq!(moved.drops(), [(DropReason::NatInvalid.as_str(), 1)]);
    rig.audit();
}

/// Ports of the range that nobody has, and all beside it, are the host's.
#[test]
fn a_workload_reaches_the_host_where_no_outer_port_is_anybodys() {
    let mut rig = rig();
    rig.send(WORKLOAD, &outward(50_100).frame());
    rig.left_by(OUT);
    for port in [50_101, 80] {
        rig.send(WORKLOAD, &with_ports(Build::packet(WORKLOAD, POD, OUTER).frame(), 1000, port));
        ends_are(&rig.left_by(HOST), POD, 1000, OUTER, port);
    }
}

#[test]
fn errors_about_packets_to_a_floating_ip_hide_the_workload() {
    let mut rig = rig();
    let sent = Build::packet(UPLINK, "10.69.0.9", FLOATING).frame();
    rig.send(UPLINK, &sent);
    let inside = rig.left_by(WORKLOAD);
    rig.send(WORKLOAD, &error_frame(WORKLOAD, POD, &inside));
    let error = rig.left_by(OUT);
    assert_eq!(key(&error).source().to_string(), FLOATING);
    let quote = nat::quoted(&error, &packet::parse(&error).unwrap()).unwrap();
    assert_eq!(quote.key, key(&sent));
}

/// Puts the parts together again.
fn whole(first: &[u8], later: &[u8]) -> Vec<u8> {
    let mut frame = [first, &later[34..]].concat();
    let len = frame.len() as u16 - 14;
    frame[16..18].copy_from_slice(&len.to_be_bytes());
    frame[20..22].fill(0);
    frame[24..26].fill(0);
    let sum = checksum::of(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[test]
fn later_fragments_go_the_way_of_their_first() {
    let mut rig = rig();
    let [first, later] = fragments(&outward(50_009).fragmentable().payload(40).frame(), 99);
    rig.send(WORKLOAD, &first);
    let first_out = rig.left_by(OUT);
    rig.send(WORKLOAD, &later);
    ends_are(&whole(&first_out, &rig.left_by(OUT)), OUTER, 50_009, SERVER, 53);
    let answer = with_ports(Build::packet(OUT, SERVER, OUTER).fragmentable().payload(40).frame(), 53, 50_009);
    let [first, later] = fragments(&answer, 98);
    rig.send(OUT, &first);
    let first_back = rig.left_by(WORKLOAD);
    rig.send(OUT, &later);
    ends_are(&whole(&first_back, &rig.left_by(WORKLOAD)), SERVER, 53, POD, 50_009);
    // A datagram of the host's own passes by.
    let [_, unknown] = fragments(&answer, 97);
    rig.send(OUT, &unknown);
    assert_eq!(rig.left_by(HOST), unknown_to_host(&unknown));
}

fn unknown_to_host(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[..6].copy_from_slice(&neighbor_mac(HOST).0);
    frame[6..12].copy_from_slice(&mac(HOST).0);
    frame
}

#[test]
fn a_connection_from_before_a_restart_keeps_its_port() {
    let mut rig = rig();
    rig.send(WORKLOAD, &tcp_frame(0x10, 50_044));
    assert_eq!(ends(&rig.left_by(OUT)).1, 50_044);
}

#[test]
fn nothing_of_another_family_or_direction_is_touched() {
    let mut rig = rig();
    for id in PORTS {
        let transit = Build::packet(id, "10.70.9.9", "10.69.0.1").frame();
        rig.send(id, &transit);
        while let Some(left) = rig.wire(OUT).receive() {
            assert_eq!(key(&left).source().to_string(), "10.70.9.9");
        }
    }
    assert_eq!((rig.flows.counts().in_use, Family::ALL.len()), (0, 2));
}
