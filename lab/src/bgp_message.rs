//! BGP messages made by hand, right and wrong ones, octet by octet (RFC 4271 §4).
//!
//! On purpose not the router's own encoder: that one cannot be wrong, and what it got wrong would not show.

use std::net::Ipv4Addr;

/// Type codes of messages.
#[allow(missing_docs, reason = "the names are RFC 4271's")]
pub mod kind {
    pub const OPEN: u8 = 1;
    pub const UPDATE: u8 = 2;
    pub const KEEPALIVE: u8 = 4;
}

/// Attribute flags (RFC 4271 §4.3).
#[allow(missing_docs, reason = "the names are RFC 4271's")]
pub mod flag {
    pub const OPTIONAL: u8 = 0x80;
    pub const TRANSITIVE: u8 = 0x40;
}

/// Attribute type codes (IANA "BGP Path Attributes").
#[allow(missing_docs, reason = "the names are the registry's")]
pub mod code {
    pub const ORIGIN: u8 = 1;
    pub const AS_PATH: u8 = 2;
    pub const NEXT_HOP: u8 = 3;
    pub const MULTI_EXIT_DISC: u8 = 4;
    pub const LOCAL_PREF: u8 = 5;
    pub const ATOMIC_AGGREGATE: u8 = 6;
    pub const AGGREGATOR: u8 = 7;
    pub const COMMUNITIES: u8 = 8;
    pub const ORIGINATOR_ID: u8 = 9;
}

/// A message of any type around any body.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).unwrap_or(u16::MAX);
    [&[0xff; 16][..], &length.to_be_bytes(), &[kind], body].concat()
}

/// An OPEN for IPv4 unicast, AS numbers of two octets, and a hold time of 0: nobody has to say that it lives.
pub fn open(version: u8, as_number: u16, router_id: Ipv4Addr) -> Vec<u8> {
    let body = [&[version][..], &as_number.to_be_bytes(), &[0, 0], &router_id.octets(), &[0]].concat();
    message(kind::OPEN, &body)
}

/// A KEEPALIVE.
pub fn keepalive() -> Vec<u8> {
    message(kind::KEEPALIVE, &[])
}

/// One path attribute, its length in one octet.
pub fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    [&[flags, code, value.len() as u8], value].concat()
}

/// The attributes of a valid route from `as_number` via `nexthop`: ORIGIN, AS_PATH, NEXT_HOP, in this order.
pub fn valid_attributes(as_number: u16, nexthop: Ipv4Addr) -> [Vec<u8>; 3] {
    [
        attribute(flag::TRANSITIVE, code::ORIGIN, &[0]),
        attribute(flag::TRANSITIVE, code::AS_PATH, &[&[2, 1][..], &as_number.to_be_bytes()].concat()),
        attribute(flag::TRANSITIVE, code::NEXT_HOP, &nexthop.octets()),
    ]
}

/// An UPDATE that withdraws the first prefixes and announces the others, all of length 24.
pub fn update(withdrawn: &[Ipv4Addr], attributes: &[u8], announced: &[Ipv4Addr]) -> Vec<u8> {
    let field = |prefixes: &[Ipv4Addr]| -> Vec<u8> {
        prefixes
            .iter()
            .flat_map(|prefix| [24, prefix.octets()[0], prefix.octets()[1], prefix.octets()[2]])
            .collect()
    };
    let counted = |field: &[u8]| [&(field.len() as u16).to_be_bytes()[..], field].concat();
    message(kind::UPDATE, &[counted(&field(withdrawn)), counted(attributes), field(announced)].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_what_rfc_4271_draws() {
        assert_eq!(keepalive(), [&[0xff; 16][..], &[0, 19, 4]].concat());
        let open = open(4, 64999, Ipv4Addr::new(10, 9, 0, 3));
        assert_eq!(open[16..], [0, 29, 1, 4, 0xfd, 0xe7, 0, 0, 10, 9, 0, 3, 0]);
        let prefix = Ipv4Addr::new(192, 0, 2, 0);
        let update = update(&[prefix], &attribute(flag::TRANSITIVE, code::ORIGIN, &[0]), &[prefix]);
        assert_eq!(update[16..], [0, 35, 2, 0, 4, 24, 192, 0, 2, 0, 4, 0x40, 1, 1, 0, 24, 192, 0, 2]);
    }
}
