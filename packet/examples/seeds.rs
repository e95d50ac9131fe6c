//! Writes the fuzz target's seeds, one frame a file, to `fuzz/corpus/packet` or the folder given: valid frames of each
//! shape, and one hostile frame for each reason to refuse it.
//!
//! Run it after a change to what a seed should be: `cargo run -p packet --example seeds`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::{env, fs, io};

use model::MacAddr;
use packet::ethernet::{self, LLDP, QINQ, SLOW, VLAN};
use packet::protocol::{
    AUTHENTICATION, DESTINATION_OPTIONS, ESP, FRAGMENT, HOP_BY_HOP, ICMP, ICMPV6, IPIP, NO_NEXT_HEADER,
    ROUTING, TCP, UDP,
};
use packet::{NoSpace, arp, checksum, icmp, ipv4, ipv6, tcp, udp};

const SRC_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const DST_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const SRC_V4: Ipv4Addr = Ipv4Addr::new(10, 65, 0, 7);
const DST_V4: Ipv4Addr = Ipv4Addr::new(10, 65, 1, 9);
const SRC_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7);
const DST_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 9);

type Frame = Result<Vec<u8>, NoSpace>;

/// An Ethernet header, then `l3`.
fn frame(ethertype: u16, l3: &[u8]) -> Frame {
    let mut bytes = vec![0; ethernet::HEADER_LEN];
    ethernet::Repr { dst: DST_MAC, src: SRC_MAC, ethertype }.emit(&mut bytes)?;
    bytes.extend(l3);
    Ok(bytes)
}

fn v4_with(header: ipv4::Repr, payload: &[u8]) -> Frame {
    let mut bytes = vec![0; ipv4::HEADER_LEN + payload.len()];
    ipv4::Repr { src: SRC_V4, dst: DST_V4, payload_len: payload.len() as u16, ..header }.emit(&mut bytes)?;
    bytes[ipv4::HEADER_LEN..].copy_from_slice(payload);
    frame(ethernet::IPV4, &bytes)
}

fn v4(protocol: u8, payload: &[u8]) -> Frame {
    v4_with(ipv4::Repr { protocol, ..Default::default() }, payload)
}

fn v6(next_header: u8, payload: &[u8]) -> Frame {
    let mut bytes = vec![0; ipv6::HEADER_LEN + payload.len()];
    let payload_len = payload.len() as u16;
    ipv6::Repr { src: SRC_V6, dst: DST_V6, next_header, payload_len, ..Default::default() }
        .emit(&mut bytes)?;
    bytes[ipv6::HEADER_LEN..].copy_from_slice(payload);
    frame(ethernet::IPV6, &bytes)
}

fn udp(v6: bool) -> Frame {
    let mut bytes = vec![0; udp::HEADER_LEN + 5];
    let datagram = udp::Repr { sport: 1234, dport: 53, payload: b"hello" };
    let (src, dst) = if v6 { (SRC_V6.into(), DST_V6.into()) } else { (SRC_V4.into(), DST_V4.into()) };
    datagram.emit(src, dst, &mut bytes)?;
    Ok(bytes)
}

fn tcp(flags: u8) -> Frame {
    let mut bytes = vec![0; tcp::HEADER_LEN];
    let segment = tcp::Repr { sport: 40_000, dport: 179, seq: 1, ack: 0, flags, window: 1024, payload: &[] };
    segment.emit(SRC_V4.into(), DST_V4.into(), &mut bytes)?;
    Ok(bytes)
}

/// A frame with VLAN tags put in: ethertype and tag control information, outermost first.
fn tagged(frame: Vec<u8>, tags: &[(u16, u16)]) -> Vec<u8> {
    let tags = tags.iter().flat_map(|(ethertype, control)| [ethertype.to_be_bytes(), control.to_be_bytes()]);
    [&frame[..12], &tags.flatten().collect::<Vec<_>>(), &frame[12..]].concat()
}

/// A frame with some bytes changed.
fn changed(mut frame: Vec<u8>, changes: &[(usize, u8)]) -> Vec<u8> {
    changes.iter().for_each(|(at, byte)| frame[*at] = *byte);
    frame
}

/// An untagged IPv4 frame with its header checksum written anew, over a header of this length.
fn mended(mut frame: Vec<u8>, header_len: usize) -> Vec<u8> {
    frame[24..26].fill(0);
    let checksum = checksum::of(&frame[14..14 + header_len]);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame
}

fn valid() -> Result<Vec<(&'static str, Vec<u8>)>, NoSpace> {
    let mut echo_v4 = [0; icmp::HEADER_LEN + 4];
    icmp::Echo { reply: false, ident: 7, seq: 1, payload: b"ping" }.emit_v4(&mut echo_v4)?;
    let mut echo_v6 = [0; icmp::HEADER_LEN + 4];
    icmp::Echo { reply: true, ident: 7, seq: 1, payload: b"ping" }.emit_v6(SRC_V6, DST_V6, &mut echo_v6)?;
    let mut request = [0; arp::LEN];
    arp::Repr::request(SRC_MAC, SRC_V4, DST_V4).emit(&mut request)?;
    let mut reply = [0; arp::LEN];
    arp::Repr::request(SRC_MAC, SRC_V4, DST_V4).reply_with(DST_MAC).emit(&mut reply)?;
    let udp_v4 = v4(UDP, &udp(false)?)?;
    let options = [&[0x94, 4, 0, 0][..], &udp(false)?].concat();
    let unreachable = [&[icmp::v4::UNREACHABLE, 3, 0, 0, 0, 0, 0, 0][..], &udp_v4[14..42]].concat();
    let first = ipv4::Repr { protocol: UDP, more_fragments: true, ident: 9, ..Default::default() };
    let later = ipv4::Repr { protocol: UDP, fragment_offset: 2, ident: 9, ..Default::default() };
    let chain = [
        &[DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0, ROUTING, 0, 1, 4, 0, 0, 0, 0][..],
        &[AUTHENTICATION, 0, 4, 0, 0, 0, 0, 0, UDP, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1],
        &udp(true)?,
    ];
    let padded = |mut frame: Vec<u8>| {
        frame.resize(64, 0);
        frame
    };
    Ok(vec![
        ("arp-request", frame(ethernet::ARP, &request)?),
        ("arp-reply-padded", padded(frame(ethernet::ARP, &reply)?)),
        ("arp-vlan", tagged(frame(ethernet::ARP, &request)?, &[(VLAN, 100)])),
        ("ipv4-udp", udp_v4.clone()),
        ("ipv4-udp-padded", padded(udp_v4.clone())),
        ("ipv4-udp-no-checksum", changed(udp_v4.clone(), &[(40, 0), (41, 0)])),
        ("ipv4-udp-vlan", tagged(udp_v4.clone(), &[(VLAN, 0x6064)])),
        ("ipv4-udp-qinq", tagged(udp_v4.clone(), &[(QINQ, 7), (VLAN, 8)])),
        ("ipv4-udp-broadcast-mac", changed(udp_v4.clone(), &[(0, 0xff)])),
        ("ipv4-udp-ttl-zero", mended(changed(udp_v4.clone(), &[(22, 0)]), 20)),
        ("ipv4-udp-ttl-one", mended(changed(udp_v4.clone(), &[(22, 1)]), 20)),
        ("ipv4-udp-from-loopback", mended(changed(udp_v4.clone(), &[(26, 127)]), 20)),
        ("ipv4-udp-to-multicast", mended(changed(udp_v4.clone(), &[(30, 224)]), 20)),
        ("ipv4-options", mended(changed(v4(UDP, &options)?, &[(14, 0x46)]), 24)),
        ("ipv4-tcp-syn", v4(TCP, &tcp(tcp::SYN)?)?),
        ("ipv4-tcp-rst", v4(TCP, &tcp(tcp::RST | tcp::ACK)?)?),
        ("ipv4-echo", v4(ICMP, &echo_v4)?),
        ("ipv4-unreachable", v4(ICMP, &unreachable)?),
        ("ipv4-ipip", v4(IPIP, &udp_v4[14..])?),
        ("ipv4-empty", v4(253, &[])?),
        ("ipv4-fragment-first", v4_with(first, &[&udp(false)?[..], &[0; 3]].concat())?),
        ("ipv4-fragment-later", v4_with(later, &[1; 8])?),
        ("ipv6-udp", v6(UDP, &udp(true)?)?),
        ("ipv6-echo-reply", v6(ICMPV6, &echo_v6)?),
        ("ipv6-too-big", v6(ICMPV6, &[icmp::v6::PACKET_TOO_BIG, 0, 0, 0, 0, 0, 5, 0])?),
        ("ipv6-chain", v6(HOP_BY_HOP, &chain.concat())?),
        ("ipv6-fragment-first", v6(FRAGMENT, &[&[UDP, 0, 0, 1, 0, 0, 0, 9][..], &udp(true)?].concat())?),
        ("ipv6-fragment-later", v6(FRAGMENT, &[TCP, 0, 0, 17, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8])?),
        ("ipv6-fragment-atomic", v6(FRAGMENT, &[&[UDP, 0, 0, 0, 0, 0, 0, 9][..], &udp(true)?].concat())?),
        ("ipv6-esp", v6(ESP, &[0xab; 16])?),
        ("ipv6-nothing", v6(NO_NEXT_HEADER, &[])?),
        ("lldp", frame(LLDP, &[2, 7, 4, 2, 0, 0, 0, 0, 1])?),
        ("lacp", frame(SLOW, &[1, 1, 1, 20])?),
        ("llc", frame(3, &[0x42, 0x42, 3])?),
        ("three-tags", tagged(udp_v4, &[(VLAN, 1), (VLAN, 2), (VLAN, 3)])),
    ])
}

fn hostile() -> Result<Vec<(&'static str, Vec<u8>)>, NoSpace> {
    let udp_v4 = v4(UDP, &udp(false)?)?;
    let udp_v6 = v6(UDP, &udp(true)?)?;
    let tiny = ipv4::Repr { protocol: TCP, more_fragments: true, ..Default::default() };
    let nine: Vec<u8> = [[DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0]; 9].concat();
    Ok(vec![
        ("bad-too-short", udp_v4[..13].to_vec()),
        ("bad-vlan-truncated", tagged(udp_v4.clone(), &[(VLAN, 1)])[..17].to_vec()),
        ("bad-arp", frame(ethernet::ARP, &[0, 6, 8, 0, 6, 4, 0, 1])?),
        ("bad-ipv4-truncated", udp_v4[..30].to_vec()),
        ("bad-ipv4-version", changed(udp_v4.clone(), &[(14, 0x65)])),
        ("bad-ipv4-header-length", changed(udp_v4.clone(), &[(14, 0x41)])),
        ("bad-ipv4-header-length-long", changed(udp_v4.clone(), &[(14, 0x4f)])),
        ("bad-ipv4-total-length", changed(udp_v4.clone(), &[(16, 0xff)])),
        ("bad-ipv4-total-length-zero", mended(changed(udp_v4.clone(), &[(16, 0), (17, 0)]), 20)),
        ("bad-ipv4-checksum", changed(udp_v4.clone(), &[(24, !udp_v4[24])])),
        ("bad-ipv6-truncated", udp_v6[..50].to_vec()),
        ("bad-ipv6-version", changed(udp_v6.clone(), &[(14, 0x40)])),
        ("bad-ipv6-payload-length", changed(udp_v6, &[(18, 0xff)])),
        ("bad-ipv6-nine-extensions", v6(DESTINATION_OPTIONS, &nine)?),
        (
            "bad-ipv6-hop-by-hop-late",
            v6(ROUTING, &[HOP_BY_HOP, 0, 0, 0, 0, 0, 0, 0, UDP, 0, 0, 0, 0, 0, 0, 0])?,
        ),
        ("bad-ipv6-extension-long", v6(AUTHENTICATION, &[UDP, 255, 0, 0, 0, 0, 0, 0])?),
        ("bad-tiny-fragment", v4_with(tiny, &[0; 8])?),
        ("bad-icmpv6-truncated", v6(ICMPV6, &[128, 0, 0, 0])?),
        ("empty", Vec::new()),
    ])
}

fn main() -> io::Result<()> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/packet");
    let folder = env::args_os().nth(1).map_or_else(beside, PathBuf::from);
    fs::create_dir_all(&folder)?;
    let seeds = valid().and_then(|valid| Ok([valid, hostile()?].concat())).map_err(io::Error::other)?;
    for (name, frame) in &seeds {
        fs::write(folder.join(name), frame)?;
    }
    println!("{} frames in {}", seeds.len(), folder.display());
    Ok(())
}
