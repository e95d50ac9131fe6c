//! Packets that a router must not simply forward, each with the paragraph that says so and the fate that it gets.
//! What a sender is told about a punted one is in `slowpath/src/punt/rfc.rs`.

mod support;

use model::PortId;
use support::{Build, FAR_END, HOST, OUR_END, Rig, UPLINK, VNI, WORKLOAD, with_extensions, with_options};
use tables::{DropReason, PuntReason};

#[derive(Debug, PartialEq, Eq)]
enum End {
    Leaves(PortId),
    Punt(PuntReason),
    Drop(DropReason),
}

/// What becomes of a frame; where it leaves by, or what came up, with its bytes.
fn end(from: PortId, frame: &[u8]) -> (End, Vec<u8>) {
    let mut rig = Rig::new();
    let moved = rig.send(from, frame);
    let end = if let [(name, 1)] = moved.punts()[..] {
        let (punt, bytes) = rig.punts.pop(|punt, bytes| (punt, bytes.to_vec())).expect("a copy came up");
        assert_eq!(punt.reason.as_str(), name);
        (End::Punt(punt.reason), bytes)
    } else if let [(name, 1)] = moved.drops()[..] {
        let reason = DropReason::ALL.iter().find(|reason| reason.as_str() == name).unwrap();
        (End::Drop(*reason), Vec::new())
    } else {
        let left = support::PORTS.into_iter().find_map(|port| Some((port, rig.wire(port).receive()?)));
        let (port, bytes) = left.unwrap_or_else(|| panic!("no frame left: {moved:?}"));
        (End::Leaves(port), bytes)
    };
    rig.audit();
    end
}

#[track_caller]
fn check(rule: &str, from: PortId, frame: &[u8], expected: End) -> Vec<u8> {
    let (end, bytes) = end(from, frame);
    assert_eq!(end, expected, "{rule}");
    bytes
}

fn v4(to: &str) -> Build {
    Build::outward().to(to)
}

fn v6(to: &str) -> Build {
    Build::packet(WORKLOAD, "fd65::2", to)
}

#[test]
fn a_ttl_of_one_ends_here_wherever_it_was_going() {
    let punt = || End::Punt(PuntReason::TtlExceeded);
    for ttl in [0, 1] {
        for (rule, build) in [
            ("RFC 1812 5.3.1: forwarded plain", v4("10.65.1.2")),
            ("RFC 8200 3: forwarded plain", v6("fd65:1::2")),
            ("RFC 2003 3.1: to be encapsulated in IPIP", v4("10.72.0.1")),
            ("RFC 2003 3.1: to be encapsulated in VXLAN", v4("10.73.0.1")),
            ("RFC 8200 3: to be encapsulated in VXLAN", v6("fd73::1")),
            ("RFC 1812 5.3.1: larger than the MTU as well", v4("10.69.0.1").payload(1000)),
        ] {
            let frame = build.ttl(ttl).frame();
            assert_eq!(
                check(rule, WORKLOAD, &frame, punt()),
                frame,
                "{rule}: the packet comes up as it came"
            );
        }
    }
    let inside = Build::inward().ttl(1);
    for frame in [inside.in_ipip(FAR_END, OUR_END), inside.in_vxlan(FAR_END, OUR_END, VNI)] {
        let up = check("RFC 2003 3.1: out of a tunnel", UPLINK, &frame, punt());
        assert_eq!(up[14..], inside.frame()[14..], "the inner packet, whose sender is to be told");
    }
}

#[test]
fn a_ttl_of_one_reaches_this_box_and_its_workloads_from_it() {
    let to_host = v4("172.18.0.1").ttl(1).frame();
    let left = check("RFC 1812 5.3.1: to the router itself", WORKLOAD, &to_host, End::Leaves(HOST));
    assert_eq!(left[22], 1);
    let from_host = Build::packet(HOST, "172.18.0.1", "10.65.0.2").ttl(1).frame();
    let left = check("RFC 1812 5.3.1: from the router itself", HOST, &from_host, End::Leaves(WORKLOAD));
    assert_eq!(left[22], 1);
}

#[test]
fn source_routes_are_dropped() {
    let drop = || End::Drop(DropReason::SourceRouted);
    for (rule, options) in [
        ("RFC 7126 4.3: loose", &[131, 7, 4, 10, 65, 1, 3, 0][..]),
        ("RFC 7126 4.4: strict", &[137, 7, 4, 10, 65, 1, 3, 0]),
        ("RFC 7126 4.3: behind padding", &[1, 131, 7, 4, 10, 65, 1, 3]),
        ("RFC 7126 4.3: used up", &[131, 7, 8, 10, 65, 1, 3, 0]),
        ("RFC 7126 4.4: behind a router alert", &[148, 4, 0, 0, 137, 3, 4, 0]),
    ] {
        check(rule, WORKLOAD, &with_options(&v4("10.65.1.2").frame(), options), drop());
        check(rule, WORKLOAD, &with_options(&v4("172.18.0.1").frame(), options), drop());
        check(rule, WORKLOAD, &with_options(&v4("10.72.0.1").frame(), options), drop());
    }
    let routing = |kind: u8, left: u8| {
        let mut header = vec![17, 2, kind, left, 0, 0, 0, 0];
        header.extend([0xfd; 16]);
        with_extensions(&v6("fd65:1::2").frame(), 43, &header)
    };
    check("RFC 5095 3: routing header type 0", WORKLOAD, &routing(0, 1), drop());
    check("RFC 5095 3: with no segment left", WORKLOAD, &routing(0, 0), End::Leaves(UPLINK));
    check("RFC 8754: segment routing is another type", WORKLOAD, &routing(4, 1), End::Leaves(UPLINK));
    let behind = {
        let mut headers = vec![43, 0, 5, 2, 0, 0, 1, 0];
        headers.extend([17, 2, 0, 1, 0, 0, 0, 0]);
        headers.extend([0xfd; 16]);
        with_extensions(&v6("fd65:1::2").frame(), 0, &headers)
    };
    check("RFC 5095 3: behind hop-by-hop options", WORKLOAD, &behind, drop());
}

#[test]
fn other_options_pass_unchanged() {
    for (rule, options) in [
        ("RFC 1812 5.2.4: record route", &[7, 7, 4, 0, 0, 0, 0, 0][..]),
        ("RFC 1812 5.2.4: time stamp", &[68, 8, 5, 0, 0, 0, 0, 0]),
        ("RFC 6398: router alert", &[148, 4, 0, 0]),
        ("RFC 1812 5.3.13.1: unknown", &[222, 3, 9, 0]),
        ("RFC 791 3.1: nothing but padding", &[1, 1, 1, 0]),
        ("RFC 791 3.1: nothing counts behind the end", &[0, 131, 0, 0]),
    ] {
        let left =
            check(rule, WORKLOAD, &with_options(&v4("10.65.1.2").frame(), options), End::Leaves(UPLINK));
        assert_eq!(left[34..34 + options.len()], *options, "{rule}");
        assert!(packet::parse(&left).is_ok_and(|parsed| parsed.ttl == 63), "{rule}");
    }
    for (rule, option) in [
        ("RFC 2711: router alert", [5, 2, 0, 0]),
        ("RFC 8200 4.3: an option that asks for an error is for nodes that look", [0xc5, 2, 0, 0]),
    ] {
        let header = [&[17, 0][..], &option, &[1, 0]].concat();
        let left = check(
            rule,
            WORKLOAD,
            &with_extensions(&v6("fd65:1::2").frame(), 0, &header),
            End::Leaves(UPLINK),
        );
        assert_eq!((left[21], &left[54..62]), (63, &header[..]), "{rule}");
    }
}

#[test]
fn an_option_that_runs_out_of_the_header_is_told() {
    for options in [[7, 0, 0, 0], [7, 1, 0, 0], [7, 5, 0, 0], [1, 148, 255, 0], [1, 1, 1, 7]] {
        let frame = with_options(&v4("10.65.1.2").frame(), &options);
        check("RFC 1812 4.3.3.5: bad option", WORKLOAD, &frame, End::Punt(PuntReason::BadOption));
    }
}

#[test]
fn routes_that_refuse_say_how() {
    for (to, reason) in [("10.76.0.1", PuntReason::Rejected), ("10.77.0.1", PuntReason::Prohibited)] {
        check("RFC 1812 5.2.7.1: reject route", WORKLOAD, &v4(to).frame(), End::Punt(reason));
    }
    for (to, reason) in [("fd76::1", PuntReason::Rejected), ("fd77::1", PuntReason::Prohibited)] {
        check("RFC 4443 3.1: reject route", WORKLOAD, &v6(to).frame(), End::Punt(reason));
    }
    let silent = Build::inward().to("10.65.0.9").frame();
    check("a blackhole is silent", UPLINK, &silent, End::Drop(DropReason::Blackhole));
}

#[test]
fn a_link_local_source_never_leaves_its_link() {
    let from = |to: &str| Build::packet(UPLINK, "fe80::7", to).frame();
    let told = End::Punt(PuntReason::BeyondScope);
    check("RFC 4443 3.1: beyond the scope of its source", UPLINK, &from("fd65::2"), told);
    let own_link = End::Drop(DropReason::LinkLocal);
    check("RFC 4291 2.5.6: to its own link", UPLINK, &from("fe80::1"), own_link);
    let multicast = End::Drop(DropReason::Multicast);
    check("RFC 4443 2.4 (e.3): to a group", UPLINK, &from("ff0e::1"), multicast);
    let v4 = Build::packet(UPLINK, "169.254.7.7", "10.65.0.2").frame();
    check("RFC 3927 7: IPv4 has no word for it", UPLINK, &v4, End::Drop(DropReason::LinkLocal));
}

#[test]
fn what_is_too_large_is_told_or_cut() {
    let told = || End::Punt(PuntReason::TooBig);
    let large = |to: &str| v4(to).payload(1472);
    check("RFC 1191 3: don't fragment", WORKLOAD, &v4("10.69.0.1").payload(1000).frame(), told());
    check("RFC 8200 5: routers cut no IPv6", WORKLOAD, &v6("fd69::1").payload(1000).frame(), told());
    check("RFC 2003 5.1: into IPIP", WORKLOAD, &large("10.72.0.1").frame(), told());
    check("RFC 4459 3.1: into VXLAN", WORKLOAD, &large("10.73.0.1").frame(), told());
    let v6_fragment = {
        let frame = v6("fd73::1").payload(1412).frame();
        with_extensions(&frame, 44, &[17, 0, 0, 1, 0, 0, 0, 7])
    };
    check("RFC 8201 4: an IPv6 fragment", WORKLOAD, &v6_fragment, told());
}
