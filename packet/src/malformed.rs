//! Why bytes are no packet, and why a packet does not fit a buffer.

use std::fmt;

/// The reason a frame is refused. Each can be made to happen by one frame, and each is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Malformed {
    /// Shorter than an Ethernet header (14 bytes).
    TooShort,
    /// The frame ends inside a VLAN tag.
    VlanTruncated,
    /// ARP that is truncated, or not about Ethernet and IPv4 (RFC 826).
    ArpMalformed,
    /// Fewer bytes than an IPv4 header needs (RFC 1812 §5.2.2 check 1).
    Ipv4HeaderTruncated,
    /// An IPv4 ethertype over a version other than 4 (check 3).
    Ipv4BadVersion,
    /// An IPv4 header length below 20 bytes (check 4).
    Ipv4BadHeaderLength,
    /// A total length below the header's, or beyond the bytes present (check 5).
    Ipv4BadTotalLength,
    /// The IPv4 header checksum is wrong (check 2).
    Ipv4BadChecksum,
    /// Fewer bytes than an IPv6 header has (40).
    Ipv6HeaderTruncated,
    /// An IPv6 ethertype over a version other than 6.
    Ipv6BadVersion,
    /// A payload length beyond the bytes present, or that makes the packet exceed 65 535 bytes.
    Ipv6BadPayloadLength,
    /// An extension header that is truncated, out of its place, or one too many (RFC 8200 §4, RFC 8504 §5.3).
    Ipv6BadExtension,
    /// A TCP, UDP or ICMP header, or the length that it states, does not fit in the packet.
    /// A first fragment that hides its ports is refused by this too (RFC 1858, RFC 7112).
    L4Truncated,
}

impl Malformed {
    /// All reasons, in the order in which they are found.
    pub const ALL: [Malformed; 13] = [
        Malformed::TooShort,
        Malformed::VlanTruncated,
        Malformed::ArpMalformed,
        Malformed::Ipv4HeaderTruncated,
        Malformed::Ipv4BadVersion,
        Malformed::Ipv4BadHeaderLength,
        Malformed::Ipv4BadTotalLength,
        Malformed::Ipv4BadChecksum,
        Malformed::Ipv6HeaderTruncated,
        Malformed::Ipv6BadVersion,
        Malformed::Ipv6BadPayloadLength,
        Malformed::Ipv6BadExtension,
        Malformed::L4Truncated,
    ];

    /// The name that counters and commands use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Malformed::TooShort => "too_short",
            Malformed::VlanTruncated => "vlan_truncated",
            Malformed::ArpMalformed => "arp_malformed",
            Malformed::Ipv4HeaderTruncated => "ipv4_header_truncated",
            Malformed::Ipv4BadVersion => "ipv4_bad_version",
            Malformed::Ipv4BadHeaderLength => "ipv4_bad_header_length",
            Malformed::Ipv4BadTotalLength => "ipv4_bad_total_length",
            Malformed::Ipv4BadChecksum => "ipv4_bad_checksum",
            Malformed::Ipv6HeaderTruncated => "ipv6_header_truncated",
            Malformed::Ipv6BadVersion => "ipv6_bad_version",
            Malformed::Ipv6BadPayloadLength => "ipv6_bad_payload_length",
            Malformed::Ipv6BadExtension => "ipv6_bad_extension",
            Malformed::L4Truncated => "l4_truncated",
        }
    }

    /// What is wrong with the frame, for people.
    pub const fn explanation(self) -> &'static str {
        match self {
            Malformed::TooShort => "the frame is shorter than an Ethernet header",
            Malformed::VlanTruncated => "the frame ends inside a VLAN tag",
            Malformed::ArpMalformed => "the ARP message is truncated or not about Ethernet and IPv4",
            Malformed::Ipv4HeaderTruncated => "the frame ends inside the IPv4 header",
            Malformed::Ipv4BadVersion => "the IPv4 header's version is not 4",
            Malformed::Ipv4BadHeaderLength => "the IPv4 header length is below 20 bytes",
            Malformed::Ipv4BadTotalLength => {
                "the IPv4 total length is below the header's or beyond the frame's end"
            }
            Malformed::Ipv4BadChecksum => "the IPv4 header checksum is wrong",
            Malformed::Ipv6HeaderTruncated => "the frame ends inside the IPv6 header",
            Malformed::Ipv6BadVersion => "the IPv6 header's version is not 6",
            Malformed::Ipv6BadPayloadLength => "the IPv6 payload length is beyond the frame's end",
            Malformed::Ipv6BadExtension => "an IPv6 extension header is truncated, misplaced or one too many",
            Malformed::L4Truncated => "the TCP, UDP or ICMP header does not fit in the packet",
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.explanation())
    }
}

impl std::error::Error for Malformed {}

/// The caller's buffer is too small for what was to be written; nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a packet of {needed} bytes does not fit in a buffer of {available}: give a larger buffer")]
pub struct NoSpace {
    /// Bytes that the packet takes.
    pub needed: usize,
    /// Bytes that the buffer has.
    pub available: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_name_of_its_own() {
        let mut names: Vec<_> = Malformed::ALL.iter().map(|reason| reason.as_str()).collect();
        assert!(
            names
                .iter()
                .all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'))
        );
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Malformed::ALL.len());
    }

    #[test]
    fn all_is_in_the_order_of_the_numbers() {
        for (number, reason) in Malformed::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
        }
    }
}
