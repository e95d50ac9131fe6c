//! MAC addresses, prefixes and interface addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address family of the internet protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, in order.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// The family an address belongs to.
    pub fn of(addr: IpAddr) -> Family {
        match addr {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// Bits in an address: 32 or 128.
    pub const fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// Why a text is not the address, prefix or MAC it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseAddrError {
    /// What was expected, for example `"prefix"`.
    pub expected: &'static str,
    /// The text that was given.
    pub given: String,
}

impl fmt::Display for ParseAddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a valid {}", self.given, self.expected)
    }
}

impl std::error::Error for ParseAddrError {}

/// A 48-bit Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);

    /// Broadcast and multicast addresses have the lowest bit of the first octet set (IEEE 802-2014 §8.2.2).
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// `00:00:00:00:00:00`, which names nobody.
    pub const fn is_zero(self) -> bool {
        matches!(self.0, [0, 0, 0, 0, 0, 0])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = ParseAddrError;

    /// Octets by twos of digits, or two octets by fours, with one separator throughout: what Go's `net.ParseMAC` takes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseAddrError { expected: "MAC address", given: text.to_owned() };
        let separator = text.chars().find(|c| !c.is_ascii_hexdigit()).ok_or_else(error)?;
        let digits = match separator {
            ':' | '-' => 2,
            '.' => 4,
            _ => return Err(error()),
        };
        let is_group = |group: &str| group.len() == digits && group.bytes().all(|b| b.is_ascii_hexdigit());
        let hex = text.replace(separator, "");
        if !text.split(separator).all(is_group) || hex.len() != 12 {
            return Err(error());
        }
        let number = u64::from_str_radix(&hex, 16).map_err(|_| error())?;
        let [_, _, octets @ ..] = number.to_be_bytes();
        Ok(MacAddr(octets))
    }
}

/// A network: an address whose bits after `len` are zero.
///
/// Ordered by family, then address, then length, so a covering prefix sorts before what it covers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

impl Prefix {
    /// `0.0.0.0/0`.
    pub const DEFAULT_V4: Prefix = Prefix { addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED), len: 0 };
    /// `::/0`.
    pub const DEFAULT_V6: Prefix = Prefix { addr: IpAddr::V6(Ipv6Addr::UNSPECIFIED), len: 0 };

    /// The network of `len` bits that `addr` lies in, or `None` where `len` exceeds 32 or 128.
    pub fn new(addr: IpAddr, len: u8) -> Option<Prefix> {
        if len > Family::of(addr).bits() {
            return None;
        }
        let addr = match addr {
            IpAddr::V4(addr) => IpAddr::V4((u32::from(addr) & mask_v4(len)).into()),
            IpAddr::V6(addr) => IpAddr::V6((u128::from(addr) & mask_v6(len)).into()),
        };
        Some(Prefix { addr, len })
    }

    /// The network that holds just this address: a /32 or a /128.
    pub fn host(addr: IpAddr) -> Prefix {
        Prefix { addr, len: Family::of(addr).bits() }
    }

    /// The first address; host bits are zero.
    pub fn addr(self) -> IpAddr {
        self.addr
    }

    /// Length in bits: 0..=32 or 0..=128.
    #[allow(clippy::len_without_is_empty, reason = "a prefix length is not a count of elements")]
    pub fn len(self) -> u8 {
        self.len
    }

    /// IPv4 or IPv6.
    pub fn family(self) -> Family {
        Family::of(self.addr)
    }

    /// A /32 or a /128.
    pub fn is_host(self) -> bool {
        self.len == self.family().bits()
    }

    /// `0.0.0.0/0` or `::/0`.
    pub fn is_default(self) -> bool {
        self.len == 0
    }

    /// Does the address lie in this network? An address of the other family never does.
    pub fn contains(self, addr: IpAddr) -> bool {
        Prefix::new(addr, self.len) == Some(self)
    }

    /// Does the whole of `other` lie in this network? A network covers itself.
    pub fn covers(self, other: Prefix) -> bool {
        self.len <= other.len && self.contains(other.addr)
    }
}

const fn mask_v4(len: u8) -> u32 {
    if len == 0 { 0 } else { u32::MAX << (32 - len) }
}

const fn mask_v6(len: u8) -> u128 {
    if len == 0 { 0 } else { u128::MAX << (128 - len) }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad` honours the width that a table asks for.
        f.pad(&format!("{}/{}", self.addr, self.len))
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Prefix {
    type Err = ParseAddrError;

    /// Host bits are cleared; a bare address is a /32 or /128.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let InterfaceAddr { addr, len } = parse_addr_and_len(text, "prefix")?;
        Ok(Prefix::new(addr, len).expect("the length was checked against the family"))
    }
}

/// An address on an interface together with its network's length, such as `172.16.6.47/24`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceAddr {
    /// The address itself, host bits included.
    pub addr: IpAddr,
    /// Length of the network in bits, at most 32 or 128.
    pub len: u8,
}

impl InterfaceAddr {
    /// The connected network.
    ///
    /// # Panics
    /// Where `len` was set beyond the family's bits; parsing never yields that.
    pub fn network(self) -> Prefix {
        Prefix::new(self.addr, self.len).expect("an interface address has a length within its family")
    }
}

impl fmt::Display for InterfaceAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.addr, self.len))
    }
}

impl fmt::Debug for InterfaceAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for InterfaceAddr {
    type Err = ParseAddrError;

    /// A bare address is a /32 or /128, as Calico reads it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_addr_and_len(text, "address")
    }
}

fn parse_addr_and_len(text: &str, expected: &'static str) -> Result<InterfaceAddr, ParseAddrError> {
    let error = || ParseAddrError { expected, given: text.to_owned() };
    let (addr, len) = match text.split_once('/') {
        Some((addr, len)) => (addr, Some(len)),
        None => (text, None),
    };
    let addr: IpAddr = addr.parse().map_err(|_| error())?;
    let bits = Family::of(addr).bits();
    let len = match len {
        None => bits,
        Some(len) if !len.is_empty() && len.bytes().all(|b| b.is_ascii_digit()) => {
            len.parse().ok().filter(|len| *len <= bits).ok_or_else(error)?
        }
        Some(_) => return Err(error()),
    };
    Ok(InterfaceAddr { addr, len })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_prefix_loses_its_host_bits() {
        assert_eq!("10.65.0.7/26".parse::<Prefix>().unwrap().to_string(), "10.65.0.0/26");
        assert_eq!("fd00::1:2/112".parse::<Prefix>().unwrap().to_string(), "fd00::1:0/112");
        assert_eq!("192.0.2.1".parse::<Prefix>().unwrap().to_string(), "192.0.2.1/32");
    }

    #[test]
    fn an_interface_address_keeps_its_host_bits() {
        let addr: InterfaceAddr = "172.16.6.47/24".parse().unwrap();
        assert_eq!(addr.to_string(), "172.16.6.47/24");
        assert_eq!(addr.network().to_string(), "172.16.6.0/24");
    }

    #[test]
    fn bad_texts_are_refused() {
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/8/8"] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
        for text in [
            "",
            "00:11:22:33:44",
            "00:11:22:33:44:55:66",
            "00:11:22:33:44:gg",
            "+0:11:22:33:44:55",
            "001122334455",
            "0:11:22:33:44:55",
            "00:11:22-33:44:55",
            "0011.2233.44.55",
            "001.1223.3445.5",
        ] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
        for text in ["00:11:22:aA:BB:55", "00-11-22-aa-bb-55", "0011.22aa.bb55"] {
            assert_eq!(text.parse(), Ok(MacAddr([0, 0x11, 0x22, 0xaa, 0xbb, 0x55])));
        }
    }

    #[test]
    fn families_never_contain_each_other() {
        assert!(!Prefix::DEFAULT_V4.contains("::".parse().unwrap()));
        assert!(!Prefix::DEFAULT_V6.contains("0.0.0.0".parse().unwrap()));
        assert!(Prefix::DEFAULT_V4.covers("10.0.0.0/8".parse().unwrap()));
        assert!(!"10.0.0.0/8".parse::<Prefix>().unwrap().covers(Prefix::DEFAULT_V4));
    }

    proptest! {
        #[test]
        fn prefixes_print_and_parse_back(addr: u128, len in 0u8..=128) {
            let prefix = Prefix::new(IpAddr::V6(addr.into()), len).unwrap();
            prop_assert_eq!(prefix.to_string().parse::<Prefix>().unwrap(), prefix);
            prop_assert!(prefix.contains(IpAddr::V6(addr.into())));
        }

        #[test]
        fn mac_addresses_print_and_parse_back(octets: [u8; 6]) {
            prop_assert_eq!(MacAddr(octets).to_string().parse::<MacAddr>().unwrap(), MacAddr(octets));
        }
    }
}
