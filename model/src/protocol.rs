//! Protocols over IP, by number or by one of the names that Calico has for some.

use std::fmt;
use std::str::FromStr;

/// IANA's number of a protocol over IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// RFC 792.
    pub const ICMP: Protocol = Protocol(1);
    /// RFC 9293.
    pub const TCP: Protocol = Protocol(6);
    /// RFC 768.
    pub const UDP: Protocol = Protocol(17);
    /// RFC 4443.
    pub const ICMPV6: Protocol = Protocol(58);
    /// RFC 9260.
    pub const SCTP: Protocol = Protocol(132);
    /// RFC 3828.
    pub const UDP_LITE: Protocol = Protocol(136);

    /// The names that Calico's resources may use, as they write them (`api/pkg/lib/numorstring/protocol.go`).
    const NAMES: [(&'static str, Protocol); 6] = [
        ("ICMP", Protocol::ICMP),
        ("TCP", Protocol::TCP),
        ("UDP", Protocol::UDP),
        ("ICMPv6", Protocol::ICMPV6),
        ("SCTP", Protocol::SCTP),
        ("UDPLite", Protocol::UDP_LITE),
    ];

    /// May rules ask for its ports?
    pub fn has_ports(self) -> bool {
        matches!(self, Protocol::TCP | Protocol::UDP | Protocol::SCTP)
    }
}

/// A text that names no protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseProtocolError {
    /// What stands there.
    pub given: String,
}

impl fmt::Display for ParseProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = &self.given;
        write!(f, "{given:?} is not a protocol: expected a number, TCP, UDP, ICMP, ICMPv6, SCTP or UDPLite")
    }
}

impl std::error::Error for ParseProtocolError {}

impl FromStr for Protocol {
    type Err = ParseProtocolError;

    /// A name, in whichever case, or a number.
    fn from_str(text: &str) -> Result<Protocol, ParseProtocolError> {
        let named = Protocol::NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        let number = || text.parse().ok().map(Protocol);
        named
            .map(|(_, protocol)| *protocol)
            .or_else(number)
            .ok_or_else(|| ParseProtocolError { given: text.to_owned() })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Protocol::NAMES.iter().find(|(_, protocol)| protocol == self) {
            Some((name, _)) => f.pad(name),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_protocol_is_read_back_as_it_is_printed() {
        for number in 0..=u8::MAX {
            let protocol = Protocol(number);
            assert_eq!(protocol.to_string().parse(), Ok(protocol));
        }
        assert_eq!(
            ["6", "tcp", "TCP"].map(str::parse),
            [Ok(Protocol::TCP), Ok(Protocol::TCP), Ok(Protocol::TCP)]
        );
        for text in ["", "256", "-1", "jolly-UDP", "6 "] {
            assert!(text.parse::<Protocol>().is_err(), "{text:?}");
        }
    }
}
