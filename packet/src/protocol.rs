//! Upper-layer protocol numbers (IANA "Assigned Internet Protocol Numbers").

/// IPv6 hop-by-hop options (RFC 8200 §4.3).
pub const HOP_BY_HOP: u8 = 0;
/// ICMP for IPv4 (RFC 792).
pub const ICMP: u8 = 1;
/// IPv4 inside IP: an IPIP tunnel (RFC 2003).
pub const IPIP: u8 = 4;
/// TCP (RFC 9293).
pub const TCP: u8 = 6;
/// UDP (RFC 768).
pub const UDP: u8 = 17;
/// IPv6 inside IP (RFC 2473).
pub const IPV6: u8 = 41;
/// IPv6 routing header (RFC 8200 §4.4).
pub const ROUTING: u8 = 43;
/// IPv6 fragment header (RFC 8200 §4.5).
pub const FRAGMENT: u8 = 44;
/// Encapsulating security payload (RFC 4303); what follows is encrypted.
pub const ESP: u8 = 50;
/// Authentication header (RFC 4302).
pub const AUTHENTICATION: u8 = 51;
/// ICMP for IPv6 (RFC 4443).
pub const ICMPV6: u8 = 58;
/// SCTP (RFC 9260).
pub const SCTP: u8 = 132;
/// IPv6: nothing follows (RFC 8200 §4.7).
pub const NO_NEXT_HEADER: u8 = 59;
/// IPv6 destination options (RFC 8200 §4.6).
pub const DESTINATION_OPTIONS: u8 = 60;
/// IPv6 mobility header (RFC 6275).
pub const MOBILITY: u8 = 135;

/// The shortest header of a protocol whose ports or types a router reads; 0 for the rest.
///
/// TCP 20 (RFC 9293 §3.1), UDP 8 (RFC 768), ICMP 8 (RFC 792: every message has 8 bytes), ICMPv6 8 (RFC 4443 §3, §4).
pub(crate) const fn header_len_min(protocol: u8) -> usize {
    match protocol {
        TCP => 20,
        UDP | ICMP | ICMPV6 => 8,
        _ => 0,
    }
}
