//! Prefixes in as few bytes as they take, as keys of tables of one family.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::Prefix;

/// A prefix of one family in as few bytes as it takes.
pub(crate) trait Key: Copy + Eq + Ord + Hash {
    fn new(prefix: Prefix) -> Self;
    fn prefix(self) -> Prefix;
}

/// Address and length of an IPv4 prefix, without padding; ordered as prefixes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyV4([u8; 5]);

impl Hash for KeyV4 {
    /// As one word, which is quicker than bytes.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, len] = self.0;
        state.write_u64(u64::from_be_bytes([0, 0, 0, a, b, c, d, len]));
    }
}

impl Key for KeyV4 {
    fn new(prefix: Prefix) -> Self {
        let [a, b, c, d] = match prefix.addr() {
            IpAddr::V4(addr) => addr.octets(),
            IpAddr::V6(_) => [0; 4],
        };
        KeyV4([a, b, c, d, prefix.len()])
    }

    fn prefix(self) -> Prefix {
        let [a, b, c, d, len] = self.0;
        Prefix::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), len).unwrap_or(Prefix::DEFAULT_V4)
    }
}

/// Address and length of an IPv6 prefix, without padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KeyV6([u8; 16], u8);

impl Key for KeyV6 {
    fn new(prefix: Prefix) -> Self {
        let addr = match prefix.addr() {
            IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
            IpAddr::V6(addr) => addr,
        };
        KeyV6(addr.octets(), prefix.len())
    }

    fn prefix(self) -> Prefix {
        Prefix::new(IpAddr::V6(Ipv6Addr::from(self.0)), self.1).unwrap_or(Prefix::DEFAULT_V6)
    }
}
