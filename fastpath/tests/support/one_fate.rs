//! What must hold of a whole walk, whatever bytes come in; the fuzz target and the replay of its corpus share it.

use super::*;

/// Lets a router walk one frame and panics where it ends in no fate or in two, where the router keeps a frame for itself,
/// or where it sends on what it should have refused.
///
/// `bytes`: the port that the frame comes in by, as the first byte modulo their number, then the frame.
pub fn run(rig: &mut Rig, bytes: &[u8]) {
    let Some((port, frame)) = bytes.split_first() else { return };
    let port = PORTS[usize::from(*port) % PORTS.len()];
    if frame.is_empty() || frame.len() > 1600 {
        return;
    }
    let moved = rig.send(port, frame);
    let punts: u64 = moved.punts().iter().map(|(_, count)| count).sum();
    let drops: u64 = moved.drops().iter().map(|(_, count)| count).sum();
    let fragments = moved.after.fragments - moved.before.fragments;
    let cut = moved.after.fragmented - moved.before.fragmented;
    let ends = moved.forwarded() + cut + punts + drops;
    assert_eq!((moved.received(), ends), (1, 1 + fragments), "{moved:?}");

    let mut left = 0;
    for port in PORTS {
        while let Some(sent) = rig.wire(port).receive() {
            left += 1;
            leaves_well_formed(frame, &sent, port);
        }
    }
    assert_eq!(moved.forwarded(), left, "what is counted as forwarded has left");
    while rig.punts.pop(|_, _| ()).is_some() {}
}

/// What a frame may look like when it leaves.
fn leaves_well_formed(came: &[u8], left: &[u8], port: PortId) {
    let parsed = packet::parse(left).expect("a well-formed packet leaves");
    assert!(parsed.is_ip() && parsed.vlan.is_none(), "only IP is forwarded");
    let mtu = usize::from(super::port(port).mtu);
    assert!(usize::from(parsed.l3_len) <= mtu, "{} bytes by a port with an MTU of {mtu}", parsed.l3_len);
    // One tunnel may be put around a packet, and one taken off.
    assert!(left.len() <= came.len() + 70, "{} bytes became {}", came.len(), left.len());
    assert_eq!(left[..12], [neighbor_mac(port).0, mac(port).0].concat()[..], "from us to the neighbour");
}

/// The seeds of the fuzz target, by name: a packet of each kind by each way, and the hostile ones.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut add = |name: &str, port: PortId, frame: Vec<u8>| {
        let at = PORTS.iter().position(|other| *other == port).unwrap() as u8;
        seeds.push((name.replace(' ', "-"), [vec![at], frame].concat()));
    };
    let (v4, v6) = (Build::inward(), Build::packet(UPLINK, "fd65:1::2", "fd65::2"));
    add("plain", UPLINK, v4.frame());
    add("plain-ipv6", UPLINK, v6.frame());
    add("ipip", UPLINK, v4.in_ipip(FAR_END, OUR_END));
    add("vxlan", UPLINK, v4.in_vxlan(FAR_END, OUR_END, VNI));
    add("vxlan-over-ipv6", UPLINK, v4.in_vxlan(FAR_END_V6, OUR_END_V6, VNI));
    add("ipv6-in-vxlan-over-ipv6", UPLINK, v6.in_vxlan(FAR_END_V6, OUR_END_V6, VNI));
    for (name, to) in
        [("into-ipip", "10.72.0.1"), ("into-vxlan", "10.73.0.1"), ("into-vxlan-over-ipv6", "10.74.0.1")]
    {
        add(name, WORKLOAD, Build::outward().to(to).frame());
        add(&format!("{name}-from-ipip"), UPLINK, v4.clone().to(to).in_ipip(FAR_END, OUR_END));
    }
    add("to-one-of-two", UPLINK, v4.clone().to("10.71.0.1").frame());
    add("transit-ipip-to-one-of-two", UPLINK, v4.in_ipip("10.65.1.9", "10.71.0.9"));
    add("transit-vxlan-to-one-of-two", UPLINK, v4.in_vxlan("10.65.1.9", "10.71.0.9", 7));
    add("workload-vxlan", WORKLOAD, Build::outward().dport(4789).frame());
    add("arp", WORKLOAD, arp_request());
    add("neighbor-solicitation", WORKLOAD, neighbor_solicitation());
    add("arp-inside-a-segment", UPLINK, in_vxlan(&arp_request(), FAR_END, OUR_END, SEGMENT));
    add(
        "nd-to-a-segments-group",
        UPLINK,
        to_group(in_vxlan(&neighbor_solicitation(), FAR_END, GROUP, SEGMENT)),
    );
    for (name, frame, _) in hostile::tunnel_packets() {
        add(&format!("bad-{name}"), UPLINK, frame);
    }
    seeds
}
