//! Tunnel packets that nobody honest sends, and how each must end. The fuzz target begins with them.

use tables::DropReason;

use super::*;

/// The frame with some bytes changed.
pub fn patched(mut frame: Vec<u8>, patch: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    patch(&mut frame);
    frame
}

/// An IPIP or VXLAN packet over IPv4 made a fragment by its flags and offset.
pub fn fragment(mut frame: Vec<u8>, flags_and_offset: u16) -> Vec<u8> {
    frame[20..22].copy_from_slice(&flags_and_offset.to_be_bytes());
    mend_ipv4_checksum(&mut frame);
    frame
}

fn tagged(mut frame: Vec<u8>) -> Vec<u8> {
    frame.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
    frame
}

/// Packets that come by the uplink, each with its name.
pub fn tunnel_packets() -> Vec<(&'static str, Vec<u8>, DropReason)> {
    use DropReason::*;
    let inner = Build::inward();
    let (ipip, vxlan) = (inner.in_ipip(FAR_END, OUR_END), inner.in_vxlan(FAR_END, OUR_END, VNI));
    let vxlan_v6 = inner.in_vxlan(FAR_END_V6, OUR_END_V6, VNI);
    vec![
        ("IPIP from a stranger", inner.in_ipip("172.18.0.77", OUR_END), UnknownTunnelSource),
        ("VXLAN from a stranger", inner.in_vxlan("172.18.0.77", OUR_END, VNI), UnknownTunnelSource),
        (
            "VXLAN over IPv6 from a stranger",
            inner.in_vxlan("fd18:4::3", OUR_END_V6, VNI),
            UnknownTunnelSource,
        ),
        ("another network", inner.in_vxlan(FAR_END, OUR_END, VNI ^ 1), UnknownVni),
        ("another network over IPv6", inner.in_vxlan(FAR_END_V6, OUR_END_V6, 0), UnknownVni),
        ("no network", patched(vxlan.clone(), |frame| frame[42] = 0), TunnelMalformed),
        (
            "a header cut short",
            patched(vxlan.clone(), |frame| frame.truncate(14 + 20 + 8 + 7)),
            Ipv4BadTotalLength,
        ),
        ("for another station", patched(vxlan.clone(), |frame| frame[50] ^= 2), TunnelNotOurs),
        ("for everybody", patched(vxlan.clone(), |frame| frame[50..56].fill(0xff)), TunnelNotOurs),
        ("over IPv6, for another station", patched(vxlan_v6.clone(), |frame| frame[75] ^= 2), TunnelNotOurs),
        ("ARP inside", in_vxlan(&arp_request(), FAR_END, OUR_END, VNI), TunnelMalformed),
        ("LLDP inside", patched(vxlan.clone(), |frame| frame[62..64].fill(0x88)), TunnelMalformed),
        ("a VLAN inside", in_vxlan(&tagged(inner.frame()), FAR_END, OUR_END, VNI), VlanTagged),
        ("a VLAN outside", tagged(vxlan.clone()), VlanTagged),
        ("to many inside", in_ipip(&inner.clone().to("224.0.0.9").frame(), FAR_END, OUR_END), Multicast),
        ("to many inside VXLAN", inner.clone().to("239.1.1.1").in_vxlan(FAR_END, OUR_END, VNI), Multicast),
        ("loopback inside", inner.clone().source("127.0.0.1").in_ipip(FAR_END, OUR_END), MartianSource),
        ("from us inside IPIP", inner.clone().source(OUR_END).in_ipip(FAR_END, OUR_END), TunnelOwnSource),
        (
            "from our address in the tunnels",
            inner.clone().source(OUR_TUNNEL).in_vxlan(FAR_END, OUR_END, VNI),
            TunnelOwnSource,
        ),
        (
            "from us over IPv6",
            Build::packet(UPLINK, OUR_END_V6, "fd65::2").in_vxlan(FAR_END_V6, OUR_END_V6, VNI),
            TunnelOwnSource,
        ),
        (
            "from us to us",
            inner.clone().source(OUR_END).to(OUR_END).in_ipip(FAR_END, OUR_END),
            TunnelOwnSource,
        ),
        ("first fragment of IPIP", fragment(ipip.clone(), 0x2000), TunnelFragment),
        ("later fragment of IPIP", fragment(ipip.clone(), 0x0010), TunnelFragment),
        ("first fragment of VXLAN", fragment(vxlan.clone(), 0x2000), TunnelFragment),
        ("inner total length too long", patched(ipip.clone(), |frame| frame[36] = 0xff), Ipv4BadTotalLength),
        ("inner packet cut short", in_ipip(&inner.frame()[..14 + 20], FAR_END, OUR_END), Ipv4BadTotalLength),
        ("inner header cut short", in_ipip(&inner.frame()[..14 + 19], FAR_END, OUR_END), Ipv4HeaderTruncated),
        ("nothing inside", in_ipip(&inner.frame()[..14], FAR_END, OUR_END), Ipv4HeaderTruncated),
        ("no whole address inside", in_vxlan(&inner.frame()[..5 + 8], FAR_END, OUR_END, VNI), TooShort),
        ("inner checksum wrong", patched(ipip.clone(), |frame| frame[44] ^= 1), Ipv4BadChecksum),
        ("inner version wrong", patched(ipip.clone(), |frame| frame[34] = 0x65), Ipv4BadVersion),
        (
            "IPv6 in IPIP",
            in_ipip(&Build::packet(UPLINK, "fd65:1::2", "fd65::2").frame(), FAR_END, OUR_END),
            Ipv4BadVersion,
        ),
        (
            "datagram longer than its packet",
            patched(vxlan.clone(), |frame| frame[38] = 0xff),
            TunnelMalformed,
        ),
        ("datagram of no length", patched(vxlan.clone(), |frame| frame[38..40].fill(0)), TunnelMalformed),
        (
            "datagram without a VXLAN header",
            patched(vxlan.clone(), |frame| frame[38..40].copy_from_slice(&[0, 15])),
            TunnelMalformed,
        ),
        ("IPIP in IPIP", in_ipip(&ipip, FAR_END, OUR_END), TunnelNested),
        ("IPIP in IPIP in IPIP", in_ipip(&in_ipip(&ipip, FAR_END, OUR_END), FAR_END, OUR_END), TunnelNested),
        (
            "VXLAN in IPIP in VXLAN",
            in_vxlan(&in_ipip(&vxlan, FAR_END, OUR_END), FAR_END, OUR_END, VNI),
            TunnelNested,
        ),
        ("VXLAN over IPv6 in VXLAN", in_vxlan(&vxlan_v6, FAR_END, OUR_END, VNI), TunnelNested),
        (
            "a stranger's in a friend's",
            in_ipip(&inner.in_ipip("172.18.0.77", OUR_END), FAR_END, OUR_END),
            TunnelNested,
        ),
        (
            "another network's in ours",
            in_ipip(&inner.in_vxlan(FAR_END, OUR_END, 1), FAR_END, OUR_END),
            TunnelNested,
        ),
        ("a fragment in a whole", in_ipip(&fragment(ipip.clone(), 0x2000), FAR_END, OUR_END), TunnelNested),
    ]
}
