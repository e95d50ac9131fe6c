//! Network layer reachability information: prefixes on the wire (RFC 4271 §4.3, RFC 4760 §5, RFC 7911 §3).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::{Family, Prefix};

/// Address family and subsequent address family, as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AfiSafi {
    /// Address family identifier.
    pub afi: u16,
    /// Subsequent address family identifier.
    pub safi: u8,
}

impl AfiSafi {
    /// The unicast routes of a family.
    pub const fn unicast(family: Family) -> AfiSafi {
        match family {
            Family::V4 => AfiSafi { afi: 1, safi: 1 },
            Family::V6 => AfiSafi { afi: 2, safi: 1 },
        }
    }

    /// Which family's unicast routes these are, if any.
    pub fn family(self) -> Option<Family> {
        Family::ALL.into_iter().find(|&family| AfiSafi::unicast(family) == self)
    }
}

impl fmt::Display for AfiSafi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.afi, self.safi)
    }
}

/// A prefix, and which of its paths is meant; 0 where add-path is not in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nlri {
    /// Path identifier (RFC 7911).
    pub path_id: u32,
    /// To where.
    pub prefix: Prefix,
}

/// A field of prefixes that is known to be well-formed.
#[derive(Clone, Copy, Debug)]
pub struct NlriField<'a> {
    bytes: &'a [u8],
    family: Family,
    add_path: bool,
}

impl<'a> NlriField<'a> {
    /// No prefixes.
    pub const EMPTY: NlriField<'static> = NlriField { bytes: &[], family: Family::V4, add_path: false };

    /// Checks that `bytes` are whole prefixes of the family with lengths it allows; otherwise `None`.
    pub fn parse(bytes: &'a [u8], family: Family, add_path: bool) -> Option<NlriField<'a>> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if add_path {
                rest = rest.get(4..)?;
            }
            let (&len, after) = rest.split_first()?;
            if len > family.bits() {
                return None;
            }
            rest = after.get(usize::from(len.div_ceil(8))..)?;
        }
        Some(NlriField { bytes, family, add_path })
    }

    /// Of which family the prefixes are.
    pub fn family(&self) -> Family {
        self.family
    }

    /// No prefix at all?
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl Iterator for NlriField<'_> {
    type Item = Nlri;

    #[inline]
    fn next(&mut self) -> Option<Nlri> {
        let mut path_id = 0;
        if self.add_path {
            let (id, rest) = self.bytes.split_first_chunk()?;
            (path_id, self.bytes) = (u32::from_be_bytes(*id), rest);
        }
        let (&len, rest) = self.bytes.split_first()?;
        let (octets, rest) = rest.split_at_checked(usize::from(len.div_ceil(8)))?;
        self.bytes = rest;
        let addr = match self.family {
            Family::V4 => {
                let addr = match *octets {
                    [] => [0; 4],
                    [a] => [a, 0, 0, 0],
                    [a, b] => [a, b, 0, 0],
                    [a, b, c] => [a, b, c, 0],
                    [a, b, c, d] => [a, b, c, d],
                    _ => return None,
                };
                IpAddr::V4(Ipv4Addr::from(addr))
            }
            Family::V6 => {
                let mut addr = [0; 16];
                addr.get_mut(..octets.len())?.copy_from_slice(octets);
                IpAddr::V6(Ipv6Addr::from(addr))
            }
        };
        // Bits after the length are of no meaning (RFC 4271 §4.3); `Prefix` clears them.
        Some(Nlri { path_id, prefix: Prefix::new(addr, len)? })
    }
}

/// Appends one prefix, with its path identifier where `add_path`.
pub fn emit(out: &mut Vec<u8>, nlri: Nlri, add_path: bool) {
    if add_path {
        out.extend_from_slice(&nlri.path_id.to_be_bytes());
    }
    let len = nlri.prefix.len();
    let octets = usize::from(len.div_ceil(8));
    let end = out.len() + 1 + octets;
    // All of the address, then what is too much away: a copy of a length that is known is much quicker.
    match nlri.prefix.addr() {
        IpAddr::V4(addr) => {
            let [a, b, c, d] = addr.octets();
            out.extend_from_slice(&[len, a, b, c, d]);
        }
        IpAddr::V6(addr) => {
            out.push(len);
            out.extend_from_slice(&addr.octets());
        }
    }
    out.truncate(end);
}

/// Octets that one prefix takes.
pub fn emitted_len(prefix: Prefix, add_path: bool) -> usize {
    1 + usize::from(prefix.len().div_ceil(8)) + if add_path { 4 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_prefix() -> impl Strategy<Value = Prefix> {
        prop_oneof![
            (any::<u32>(), 0u8..=32).prop_map(|(addr, len)| Prefix::new(IpAddr::V4(addr.into()), len)),
            (any::<u128>(), 0u8..=128).prop_map(|(addr, len)| Prefix::new(IpAddr::V6(addr.into()), len)),
        ]
        .prop_map(|prefix| prefix.expect("the length is within the family"))
    }

    proptest! {
        #[test]
        fn a_prefix_comes_back_from_its_own_bytes(prefix in any_prefix(), path_id: u32, add_path: bool) {
            let nlri = Nlri { path_id: if add_path { path_id } else { 0 }, prefix };
            let mut bytes = Vec::new();
            emit(&mut bytes, nlri, add_path);
            prop_assert_eq!(bytes.len(), emitted_len(prefix, add_path));
            let field = NlriField::parse(&bytes, prefix.family(), add_path).expect("well-formed");
            prop_assert_eq!(field.collect::<Vec<_>>(), vec![nlri]);
        }

        #[test]
        fn any_bytes_are_refused_or_yield_every_prefix(bytes: Vec<u8>, v6: bool, add_path: bool) {
            let family = if v6 { Family::V6 } else { Family::V4 };
            if let Some(field) = NlriField::parse(&bytes, family, add_path) {
                let used: usize = field.map(|nlri| emitted_len(nlri.prefix, add_path)).sum();
                prop_assert_eq!(used, bytes.len());
            }
        }
    }

    #[test]
    fn a_length_beyond_the_family_is_refused() {
        assert!(NlriField::parse(&[33, 1, 2, 3, 4, 5], Family::V4, false).is_none());
        assert!(NlriField::parse(&[129; 18], Family::V6, false).is_none());
        assert!(NlriField::parse(&[24, 192, 0], Family::V4, false).is_none());
    }
}
