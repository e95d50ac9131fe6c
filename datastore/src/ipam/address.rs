//! Addresses by their place in a network.

use std::net::IpAddr;

use model::Prefix;

/// An address as a number; those of IPv4 are below 2^32.
pub(super) fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => u128::from(u32::from(addr)),
        IpAddr::V6(addr) => u128::from(addr),
    }
}

/// The address `n` places after a network's first.
///
/// # Panics
/// Never: places beyond the family's last address are counted on from its first.
pub fn nth(network: Prefix, n: u128) -> IpAddr {
    match network.addr() {
        // The low 32 bits are what an IPv4 address has.
        IpAddr::V4(addr) => IpAddr::V4(u32::from(addr).wrapping_add(n as u32).into()),
        IpAddr::V6(addr) => IpAddr::V6(u128::from(addr).wrapping_add(n).into()),
    }
}

/// How far into a network an address lies; `None` outside.
pub fn ordinal(network: Prefix, addr: IpAddr) -> Option<u128> {
    network.contains(addr).then(|| number(addr) - number(network.addr()))
}

/// How many addresses a network has; all of IPv6 counts as one less than 2^128.
pub(super) fn size(network: Prefix) -> u128 {
    let bits = network.family().bits() - network.len();
    1u128.checked_shl(u32::from(bits)).unwrap_or(u128::MAX)
}
