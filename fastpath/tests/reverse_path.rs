//! Sources from uplinks against the routes: loose, strict, and out of tunnels (RFC 3704).

mod support;

use model::{PortId, ReversePath};
use support::{Build, FAR_END, HOST, NARROW, OUR_END, Rig, UPLINK, VNI, WORKLOAD};

fn rig(reverse_path: ReversePath) -> Rig {
    let mut rig = Rig::new();
    rig.writer.set_reverse_path(reverse_path);
    rig.writer.publish();
    rig
}

/// The one reason for which the packet is dropped, or none.
fn dropped(rig: &mut Rig, port: PortId, frame: &[u8]) -> Option<&'static str> {
    let moved = rig.send(port, frame);
    let drops = moved.drops();
    assert_eq!(drops.len() as u64 + moved.forwarded(), 1, "{moved:?}");
    drops.first().map(|(name, _)| *name)
}

const NOWHERE: Option<&str> = Some("no_reverse_path");
const ELSEWHERE: Option<&str> = Some("reverse_path_elsewhere");

#[test]
fn a_source_by_what_the_routes_say_of_it() {
    for (source, to, loose, strict) in [
        // The route leads back by the same port, and by another one.
        ("10.65.1.2", "10.65.0.2", None, None),
        ("10.69.0.1", "10.65.0.2", None, ELSEWHERE),
        ("fd65:1::2", "fd65::2", None, None),
        ("fd69::1", "fd65::2", None, ELSEWHERE),
        // One of several next hops is this port.
        ("10.71.0.1", "10.65.0.2", None, None),
        // The neighbour isn't known yet, but the way is.
        ("10.67.0.1", "10.65.0.2", None, None),
        // No route; a blackhole; nobody reachable.
        ("198.51.100.1", "10.65.0.2", NOWHERE, NOWHERE),
        ("2001:db8::1", "fd65::2", NOWHERE, NOWHERE),
        ("10.65.0.9", "10.65.0.2", NOWHERE, NOWHERE),
        ("10.68.0.1", "10.65.0.2", NOWHERE, NOWHERE),
        // Our own address, and the broadcast of our network.
        ("172.18.0.1", "10.65.0.2", NOWHERE, NOWHERE),
        ("fd18::1", "fd65::2", NOWHERE, NOWHERE),
        ("172.18.0.255", "10.65.0.2", NOWHERE, NOWHERE),
        // Our own workload's.
        ("10.65.0.2", "10.65.1.2", None, ELSEWHERE),
    ] {
        let frame = Build::packet(UPLINK, source, to).frame();
        assert_eq!(dropped(&mut rig(ReversePath::Disabled), UPLINK, &frame), None, "{source}");
        assert_eq!(dropped(&mut rig(ReversePath::Loose), UPLINK, &frame), loose, "{source}");
        assert_eq!(dropped(&mut rig(ReversePath::Strict), UPLINK, &frame), strict, "{source}");
    }
}

#[test]
fn a_default_route_leads_back_to_everybody() {
    for (reverse_path, by_uplink, by_narrow) in
        [(ReversePath::Loose, None, None), (ReversePath::Strict, None, ELSEWHERE)]
    {
        let mut rig = rig(reverse_path);
        for (default, like) in [("0.0.0.0/0", "10.65.1.0/26"), ("::/0", "fd65:1::/64")] {
            let group = rig.writer.fib().get(support::prefix(like)).unwrap();
            rig.writer.insert_route(support::prefix(default), group).unwrap();
        }
        for (source, to) in [("198.51.100.1", "10.65.0.2"), ("2001:db8::1", "fd65::2")] {
            let frame = |port| Build::packet(port, source, to).frame();
            assert_eq!(dropped(&mut rig, UPLINK, &frame(UPLINK)), by_uplink, "{source}");
            assert_eq!(dropped(&mut rig, NARROW, &frame(NARROW)), by_narrow, "{source}");
        }
    }
}

#[test]
fn the_host_and_workloads_are_not_asked() {
    let mut rig = rig(ReversePath::Strict);
    let of_host = Build::packet(HOST, "198.51.100.1", "10.65.1.2").frame();
    assert_eq!(dropped(&mut rig, HOST, &of_host), None);
    let spoofed = Build::outward().source("198.51.100.1").frame();
    assert_eq!(dropped(&mut rig, WORKLOAD, &spoofed), Some("spoofed_source"));
}

/// The outer source is a known node's: the tunnel's own check. The inner one must be somebody to whom there is a way,
/// and, where strict, a way by tunnel; which uplink the outer packet came by is the underlay's to choose.
#[test]
fn what_comes_out_of_a_tunnel_is_held_to_the_tunnels_routes() {
    for (inner, loose, strict) in [
        ("10.72.0.1", None, None),
        ("10.73.0.1", None, None),
        ("10.65.1.2", None, ELSEWHERE),
        ("198.51.100.1", NOWHERE, NOWHERE),
        // Our own: refused before routes are asked, whatever the check.
        ("172.18.0.1", Some("tunnel_own_source"), Some("tunnel_own_source")),
    ] {
        for port in [UPLINK, NARROW] {
            let build = Build { from: port, ..Build::inward() }.source(inner);
            let mut vxlan = build.in_vxlan(FAR_END, OUR_END, VNI);
            vxlan[..6].copy_from_slice(&support::mac(port).0);
            for frame in [build.in_ipip(FAR_END, OUR_END), vxlan] {
                assert_eq!(dropped(&mut rig(ReversePath::Loose), port, &frame), loose, "{inner}");
                assert_eq!(dropped(&mut rig(ReversePath::Strict), port, &frame), strict, "{inner}");
            }
        }
    }
}

/// A batch from several ports, some frames decided before: each row gets its own answer.
#[test]
fn rows_of_a_mixed_batch_are_not_confused() {
    let mut rig = rig(ReversePath::Strict);
    let good = Build::inward();
    let frames = [
        (UPLINK, good.frame()),
        (UPLINK, good.clone().source("127.0.0.1").frame()),
        (UPLINK, good.clone().source("10.69.0.1").frame()),
        (UPLINK, good.clone().source("10.72.0.1").in_ipip(FAR_END, OUR_END)),
        (UPLINK, good.clone().source("fd65:1::2").to("fd65::2").frame()),
        (WORKLOAD, Build::outward().frame()),
        (NARROW, Build::packet(NARROW, "10.69.0.1", "10.65.0.2").frame()),
        (NARROW, Build::packet(NARROW, "10.65.1.2", "10.65.0.2").frame()),
    ];
    for (port, frame) in &frames {
        assert!(rig.wire(*port).send(frame));
    }
    let moved = rig.run();
    assert_eq!(moved.forwarded(), 5, "{moved:?}");
    assert_eq!(moved.drops(), [("martian_source", 1), ("reverse_path_elsewhere", 2)]);
    rig.audit();
}
