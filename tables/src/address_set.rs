//! Sets of addresses that the walk asks: who may send into a tunnel, and which addresses are this router's own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::Prefix;

/// A set of addresses: the ranges that its networks cover, first and last address of each, in order and apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressSet {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl AddressSet {
    /// The addresses of these networks.
    pub fn new(networks: impl IntoIterator<Item = Prefix>) -> AddressSet {
        let mut networks: Vec<Prefix> = networks.into_iter().collect();
        // A covering network sorts before what it covers, so what is covered is seen at once.
        networks.sort_unstable();
        let mut set = AddressSet::default();
        for network in networks {
            match network.addr() {
                IpAddr::V4(first) => {
                    let first = u32::from(first);
                    push(&mut set.v4, first, first | u32::MAX.checked_shr(network.len().into()).unwrap_or(0));
                }
                IpAddr::V6(first) => {
                    let first = u128::from(first);
                    push(
                        &mut set.v6,
                        first,
                        first | u128::MAX.checked_shr(network.len().into()).unwrap_or(0),
                    );
                }
            }
        }
        set
    }

    /// Is this IPv4 address one of them?
    #[inline]
    pub fn has_v4(&self, addr: Ipv4Addr) -> bool {
        within(&self.v4, addr.into())
    }

    /// Is this IPv6 address one of them?
    #[inline]
    pub fn has_v6(&self, addr: Ipv6Addr) -> bool {
        within(&self.v6, addr.into())
    }
}

/// Adds the next range in order, unless the one before covers it.
fn push<A: Copy + Ord>(ranges: &mut Vec<(A, A)>, first: A, last: A) {
    if ranges.last().is_none_or(|(_, covered)| *covered < first) {
        ranges.push((first, last));
    }
}

#[inline]
fn within<A: Copy + Ord>(ranges: &[(A, A)], addr: A) -> bool {
    // A node's own addresses are few, and so are a segment's other ends: looking at all of them is less than halving.
    if ranges.len() <= 4 {
        return ranges.iter().any(|(first, last)| (*first..=*last).contains(&addr));
    }
    let after = ranges.partition_point(|(first, _)| *first <= addr);
    after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|(_, last)| addr <= *last)
}
