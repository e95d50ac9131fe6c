//! # packet: bytes to headers and back
//!
//! **What this room is for.** Ethernet, VLAN, ARP, IPv4, IPv6, ICMP, UDP, TCP, SCTP and VXLAN headers: where they begin, what
//! they say, how they are written, and the checksums that hold them together.
//!
//! **How things pass through it.** The fast path calls [`parse`] once a frame and keeps the plain-data [`Parsed`];
//! [`FlowKey`] names the flow. The slow path reads a header by its checked view (`ipv4::Packet::new_checked`)
//! and writes one by its representation (`ipv4::Repr::emit`), or has [`icmp::build_error`] answer a whole packet.
//!
//! **What it promises.** Any byte string either parses or is refused with a [`Malformed`] reason; no accessor of a
//! checked view panics; what [`parse`] accepts, it has validated as RFC 1812 §5.2.2 asks.
//!
//! **What it never does.** Allocate, keep state, or know ports, routes, policy or where the bytes came from.
//! Whether a source address is a plausible one (a "martian") is the walk's question, not this room's.
//!
//! ```
//! use packet::{FlowKey, Kind, Malformed, parse};
//!
//! // An echo request from 10.65.0.1 to 10.65.1.2.
//! let mut frame = vec![0u8; 14 + 20 + 8];
//! let ethernet = packet::ethernet::Repr { dst: "02:00:00:00:00:02".parse()?, src: "02:00:00:00:00:01".parse()?,
//!     ethertype: packet::ethernet::IPV4 };
//! let ip = packet::ipv4::Repr { src: "10.65.0.1".parse()?, dst: "10.65.1.2".parse()?, ttl: 64,
//!     protocol: packet::protocol::ICMP, payload_len: 8, ..Default::default() };
//! let echo = packet::icmp::Echo { reply: false, ident: 7, seq: 1, payload: &[] };
//! ethernet.emit(&mut frame)?;
//! ip.emit(&mut frame[14..])?;
//! echo.emit_v4(&mut frame[34..])?;
//!
//! let parsed = parse(&frame)?;
//! assert_eq!((parsed.kind, parsed.l3, parsed.l4, parsed.ttl), (Kind::Ipv4, 14, 34, 64));
//! let flow = FlowKey::new(&frame, &parsed).expect("an IP packet has a flow");
//! assert_eq!(flow.destination().to_string(), "10.65.1.2");
//!
//! frame[22] = 0; // the TTL changes, the header checksum doesn't
//! assert_eq!(parse(&frame), Err(Malformed::Ipv4BadChecksum));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod arp;
pub mod checksum;
pub mod ecn;
pub mod encapsulation;
pub mod ethernet;
mod flow_key;
mod fragmentation;
pub mod icmp;
mod inner_flow;
pub mod ipv4;
pub mod ipv4_options;
pub mod ipv6;
mod ipv6_extension;
mod malformed;
pub mod nat;
mod parsed;
pub mod protocol;
pub mod sctp;
pub mod tcp;
pub mod udp;
pub mod vlan;

pub use flow_key::{FlowHash, FlowKey};
pub use fragmentation::Fragments;
pub use malformed::{Malformed, NoSpace};
pub use parsed::{Fragment, Kind, Layout, Parsed, PlainHead, parse, parse_plain, parse_plain_into};

/// The first `N` bytes of `buffer` for writing, or how much room is missing.
fn room<const N: usize>(buffer: &mut [u8]) -> Result<&mut [u8; N], NoSpace> {
    let available = buffer.len();
    buffer.first_chunk_mut().ok_or(NoSpace { needed: N, available })
}

/// The first `needed` bytes of `buffer` for writing, or how much room is missing.
fn room_for(buffer: &mut [u8], needed: usize) -> Result<&mut [u8], NoSpace> {
    let available = buffer.len();
    buffer.get_mut(..needed).ok_or(NoSpace { needed, available })
}

/// `N` bytes of a header from `at` on. Views call it with offsets inside the length they checked, where it compiles to
/// a plain load; anywhere else it reads zeros rather than panic.
#[inline(always)]
fn octets<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

/// A big-endian 16-bit field of a header; see [`octets`].
#[inline(always)]
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(octets(bytes, at))
}

/// A big-endian 32-bit field of a header; see [`octets`].
#[inline(always)]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(octets(bytes, at))
}
