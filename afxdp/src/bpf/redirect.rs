//! The XDP programs, as listings: those of uplinks and workload ports, and one for frames that are handed back to the kernel.
//!
//! ```text
//! uplink:    not IPv4/IPv6, cut short, link-local             -> pass to the kernel
//!            multicast, but to a group among the node's addresses -> pass
//!            to an address of this node:  a tunnel in the set of those that end here -> redirect
//!                                         what may belong to a translated flow        -> redirect, anything else -> pass
//!            everything else -> redirect
//! workload:  everything -> redirect
//! redirect:  to the socket of the receive queue; where there is none, the fallback
//! ```
//! Loads give fields in the machine's byte order, so constants are compared as the bytes of the wire read that way.
//!
//! A VLAN-tagged frame is "not IP" here. A NIC that strips tags in hardware hides them from XDP: switch that off
//! (`ethtool -K DEV rxvlan off`) where VLANs share an uplink.

use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;

use super::asm::{AsmError, Assembler, Label, Reg, Size};

/// What an XDP program returns. include/uapi/linux/bpf.h, `enum xdp_action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Drop = 1,
    Pass = 2,
}

// include/uapi/linux/bpf.h, `enum bpf_func_id`. Neither is reserved to GPL programs.
const MAP_LOOKUP_ELEM: i32 = 1;
const REDIRECT_MAP: i32 = 51;

// `struct xdp_md`.
const MD_DATA: i16 = 0;
const MD_DATA_END: i16 = 4;
const MD_RX_QUEUE: i16 = 16;

/// Bytes of an Ethernet header.
const ETHERNET: i16 = 14;
const PROTOCOL_IPIP: i32 = 4;
const PROTOCOL_UDP: i32 = 17;
/// Protocols whose ports tell translated flows from the node's own: TCP, UDP, SCTP.
const PORTED: [i32; 3] = [6, PROTOCOL_UDP, 132];
/// Echo reply, and the errors: what the node asked for, or a workload.
const ICMP_ANSWERS: [i32; 6] = [0, 3, 4, 5, 11, 12];
const ICMPV6_ANSWERS: [i32; 5] = [129, 1, 2, 3, 4];

/// The context, kept over calls.
const CONTEXT: Reg = Reg::R6;
/// The frame's first byte.
const DATA: Reg = Reg::R7;
/// Just past its last.
const END: Reg = Reg::R8;

/// The maps that the uplink program asks, and what becomes of a frame without a socket.
#[derive(Clone, Copy)]
pub(crate) struct Uplink<'a> {
    pub(crate) sockets: BorrowedFd<'a>,
    pub(crate) local_ipv4: BorrowedFd<'a>,
    pub(crate) local_ipv6: BorrowedFd<'a>,
    /// The tunnels that end here, by [`tunnel_key`].
    pub(crate) tunnels: BorrowedFd<'a>,
    pub(crate) fallback: Action,
}

/// A tunnel as the set of those that end here has it: the IP protocol, and for UDP the destination port as a half-word
/// load gives it.
pub(crate) fn tunnel_key(udp_port: Option<u16>) -> u32 {
    match udp_port {
        None => (PROTOCOL_IPIP as u32) << 16,
        Some(port) => (PROTOCOL_UDP as u32) << 16 | u32::from(u16::from_ne_bytes(port.to_be_bytes())),
    }
}

/// The ports of translated flows as the value of a local address: first and last port, each as a half-word load gives it, or
/// all zeros for none.
pub(crate) fn translated_ports(ports: Option<&RangeInclusive<u16>>) -> u32 {
    let [first, last] = ports.map_or([0, 0], |ports| [*ports.start(), *ports.end()]).map(u16::to_ne_bytes);
    u32::from_ne_bytes([first[0], first[1], last[0], last[1]])
}

/// Two bytes of the wire as a half-word load gives them.
fn wire(value: u16) -> i32 {
    i32::from(u16::from_ne_bytes(value.to_be_bytes()))
}

/// Leaves every frame to the kernel.
pub(crate) fn pass() -> Result<Vec<u64>, AsmError> {
    let mut asm = Assembler::new();
    asm.mov_imm(Reg::R0, Action::Pass as i32);
    asm.exit();
    asm.finish()
}

/// Redirects every frame.
pub(crate) fn workload(sockets: BorrowedFd<'_>, fallback: Action) -> Result<Vec<u64>, AsmError> {
    let mut asm = Assembler::new();
    asm.mov(CONTEXT, Reg::R1);
    redirect(&mut asm, sockets, fallback);
    asm.finish()
}

/// Redirects transit traffic and the tunnels that end here, and leaves the rest to the kernel.
pub(crate) fn uplink(program: Uplink<'_>) -> Result<Vec<u64>, AsmError> {
    let mut asm = Assembler::new();
    let (pass, take, ipv6) = (asm.label(), asm.label(), asm.label());
    asm.mov(CONTEXT, Reg::R1);
    asm.load(Size::Word, DATA, CONTEXT, MD_DATA);
    asm.load(Size::Word, END, CONTEXT, MD_DATA_END);
    require(&mut asm, ETHERNET, pass);
    asm.load(Size::Half, Reg::R5, DATA, 12);
    asm.jump_eq(Reg::R5, wire(0x86dd), ipv6);
    asm.jump_ne(Reg::R5, wire(0x0800), pass);
    to_ipv4(&mut asm, &program, pass, take);
    asm.bind(ipv6);
    to_ipv6(&mut asm, &program, pass, take);
    asm.bind(take);
    redirect(&mut asm, program.sockets, program.fallback);
    asm.bind(pass);
    asm.mov_imm(Reg::R0, Action::Pass as i32);
    asm.exit();
    asm.finish()
}

/// Jumps to `short` unless the frame has `bytes` bytes. The verifier allows later loads because of this.
fn require(asm: &mut Assembler, bytes: i16, short: Label) {
    asm.mov(Reg::R4, DATA);
    asm.add_imm(Reg::R4, i32::from(bytes));
    asm.jump_gt(Reg::R4, END, short);
}

/// Jumps to `absent` unless the map has the key, which is on the stack at `key`.
fn look_up(asm: &mut Assembler, map: BorrowedFd<'_>, key: i16, absent: Label) {
    asm.load_map(Reg::R1, map);
    asm.mov(Reg::R2, Reg::R10);
    asm.add_imm(Reg::R2, i32::from(key));
    asm.call(MAP_LOOKUP_ELEM);
    asm.jump_eq(Reg::R0, 0, absent);
}

/// RFC 791: destination at 16, protocol at 9, fragment field at 6, header length in the first byte.
fn to_ipv4(asm: &mut Assembler, program: &Uplink<'_>, pass: Label, take: Label) {
    require(asm, ETHERNET + 20, pass);
    asm.load(Size::Word, Reg::R5, DATA, ETHERNET + 16);
    asm.store(Size::Word, Reg::R10, -4, Reg::R5);
    let (many, ours) = (asm.label(), asm.label());
    // 224.0.0.0/4 is multicast; above it only reserved addresses and the limited broadcast.
    asm.load(Size::Byte, Reg::R5, DATA, ETHERNET + 16);
    asm.jump_ge(Reg::R5, 224, many);
    look_up(asm, program.local_ipv4, -4, take);
    asm.jump(ours);
    asm.bind(many);
    look_up(asm, program.local_ipv4, -4, pass);
    asm.bind(ours);
    translated_ipv4(asm, take);
    let (ipip, ends_here) = (asm.label(), asm.label());
    asm.load(Size::Byte, Reg::R5, DATA, ETHERNET + 9);
    asm.jump_eq(Reg::R5, PROTOCOL_IPIP, ipip);
    asm.jump_ne(Reg::R5, PROTOCOL_UDP, pass);
    // A later fragment has no UDP header: what looks like a port is data.
    asm.load(Size::Half, Reg::R4, DATA, ETHERNET + 6);
    asm.and_imm(Reg::R4, wire(0x1fff));
    asm.jump_ne(Reg::R4, 0, pass);
    asm.load(Size::Byte, Reg::R4, DATA, ETHERNET);
    asm.and_imm(Reg::R4, 0x0f);
    asm.shl_imm(Reg::R4, 2);
    asm.jump_lt(Reg::R4, 20, pass);
    // R9: the IP header's length into the frame; its UDP header is ETHERNET further.
    asm.mov(Reg::R9, DATA);
    asm.add(Reg::R9, Reg::R4);
    asm.mov(Reg::R4, Reg::R9);
    asm.add_imm(Reg::R4, i32::from(ETHERNET) + 8);
    asm.jump_gt(Reg::R4, END, pass);
    asm.load(Size::Half, Reg::R5, Reg::R9, ETHERNET + 2);
    asm.add_imm(Reg::R5, PROTOCOL_UDP << 16);
    asm.jump(ends_here);
    asm.bind(ipip);
    asm.shl_imm(Reg::R5, 16);
    asm.bind(ends_here);
    if_ends_here(asm, program, pass, take);
}

/// Jumps to `take` if the tunnel whose key is in R5 ends here, else to `pass`.
fn if_ends_here(asm: &mut Assembler, program: &Uplink<'_>, pass: Label, take: Label) {
    asm.store(Size::Word, Reg::R10, -4, Reg::R5);
    look_up(asm, program.tunnels, -4, pass);
    asm.jump(take);
}

/// Jumps to `take` if a packet to the local address whose value R0 points to may belong to a translated flow: RFC 5508 for
/// what an ICMP message may be an answer to.
fn translated_ipv4(asm: &mut Assembler, take: Label) {
    let (icmp, ports, none) = (asm.label(), asm.label(), asm.label());
    asm.load(Size::Word, Reg::R5, Reg::R0, 0);
    asm.jump_eq(Reg::R5, 0, none);
    // Only a datagram's first fragment has ports, and only the walk remembers them.
    asm.load(Size::Half, Reg::R4, DATA, ETHERNET + 6);
    asm.and_imm(Reg::R4, wire(0x3fff));
    asm.jump_ne(Reg::R4, 0, take);
    asm.load(Size::Byte, Reg::R4, DATA, ETHERNET);
    asm.and_imm(Reg::R4, 0x0f);
    asm.shl_imm(Reg::R4, 2);
    asm.jump_lt(Reg::R4, 20, none);
    // R3: the IP header's length into the frame; its upper layer is ETHERNET further.
    asm.mov(Reg::R3, DATA);
    asm.add(Reg::R3, Reg::R4);
    asm.mov(Reg::R4, Reg::R3);
    asm.add_imm(Reg::R4, i32::from(ETHERNET) + 4);
    asm.jump_gt(Reg::R4, END, none);
    asm.load(Size::Byte, Reg::R5, DATA, ETHERNET + 9);
    asm.jump_eq(Reg::R5, 1, icmp);
    for protocol in PORTED {
        asm.jump_eq(Reg::R5, protocol, ports);
    }
    asm.jump(none);
    asm.bind(icmp);
    asm.load(Size::Byte, Reg::R5, Reg::R3, ETHERNET);
    for kind in ICMP_ANSWERS {
        asm.jump_eq(Reg::R5, kind, take);
    }
    asm.jump(none);
    asm.bind(ports);
    if_translated_port(asm, ETHERNET, none, take);
    asm.bind(none);
}

/// As [`translated_ipv4`]. Of extension headers only the fragment header, where it comes first, is known.
fn translated_ipv6(asm: &mut Assembler, take: Label) {
    let (icmp, ports, none) = (asm.label(), asm.label(), asm.label());
    asm.load(Size::Word, Reg::R5, Reg::R0, 0);
    asm.jump_eq(Reg::R5, 0, none);
    require(asm, ETHERNET + 40 + 4, none);
    asm.load(Size::Byte, Reg::R5, DATA, ETHERNET + 6);
    asm.jump_eq(Reg::R5, 44, take);
    asm.jump_eq(Reg::R5, 58, icmp);
    for protocol in PORTED {
        asm.jump_eq(Reg::R5, protocol, ports);
    }
    asm.jump(none);
    asm.bind(icmp);
    asm.load(Size::Byte, Reg::R5, DATA, ETHERNET + 40);
    for kind in ICMPV6_ANSWERS {
        asm.jump_eq(Reg::R5, kind, take);
    }
    asm.jump(none);
    asm.bind(ports);
    asm.mov(Reg::R3, DATA);
    if_translated_port(asm, ETHERNET + 40, none, take);
    asm.bind(none);
}

/// Jumps to `take` if the destination port, in the header `offset` behind R3, is in the range that R0 points to.
fn if_translated_port(asm: &mut Assembler, offset: i16, none: Label, take: Label) {
    asm.load(Size::Byte, Reg::R5, Reg::R3, offset + 2);
    asm.shl_imm(Reg::R5, 8);
    asm.load(Size::Byte, Reg::R4, Reg::R3, offset + 3);
    asm.add(Reg::R5, Reg::R4);
    asm.load(Size::Half, Reg::R4, Reg::R0, 0);
    asm.jump_gt(Reg::R4, Reg::R5, none);
    asm.load(Size::Half, Reg::R4, Reg::R0, 2);
    asm.jump_gt(Reg::R5, Reg::R4, none);
    asm.jump(take);
}

/// RFC 8200: destination at 24, next header at 6. A datagram behind extension headers is left to the kernel.
fn to_ipv6(asm: &mut Assembler, program: &Uplink<'_>, pass: Label, take: Label) {
    require(asm, ETHERNET + 40, pass);
    for word in 0..4 {
        asm.load(Size::Word, Reg::R5, DATA, ETHERNET + 24 + 4 * word);
        asm.store(Size::Word, Reg::R10, -16 + 4 * word, Reg::R5);
    }
    let (many, ours) = (asm.label(), asm.label());
    // ff00::/8 is multicast, fe80::/10 link-local: with them goes all neighbour discovery.
    asm.load(Size::Half, Reg::R5, DATA, ETHERNET + 24);
    asm.mov(Reg::R4, Reg::R5);
    asm.and_imm(Reg::R4, wire(0xff00));
    asm.jump_eq(Reg::R4, wire(0xff00), many);
    asm.and_imm(Reg::R5, wire(0xffc0));
    asm.jump_eq(Reg::R5, wire(0xfe80), pass);
    look_up(asm, program.local_ipv6, -16, take);
    asm.jump(ours);
    asm.bind(many);
    look_up(asm, program.local_ipv6, -16, pass);
    asm.bind(ours);
    translated_ipv6(asm, take);
    asm.load(Size::Byte, Reg::R5, DATA, ETHERNET + 6);
    asm.jump_ne(Reg::R5, PROTOCOL_UDP, pass);
    require(asm, ETHERNET + 40 + 8, pass);
    asm.load(Size::Half, Reg::R5, DATA, ETHERNET + 40 + 2);
    asm.add_imm(Reg::R5, PROTOCOL_UDP << 16);
    if_ends_here(asm, program, pass, take);
}

/// `return bpf_redirect_map(&sockets, ctx->rx_queue_index, fallback)`. The fallback as flag: Linux 5.3 and later.
fn redirect(asm: &mut Assembler, sockets: BorrowedFd<'_>, fallback: Action) {
    asm.load(Size::Word, Reg::R2, CONTEXT, MD_RX_QUEUE);
    asm.load_map(Reg::R1, sockets);
    asm.mov_imm(Reg::R3, fallback as i32);
    asm.call(REDIRECT_MAP);
    asm.exit();
}
