//! Addresses that IPReservations keep from being assigned on their own (`libcalico-go/lib/ipam/addr_filter.go`).

use std::net::IpAddr;

use model::Prefix;
use serde_json::Value;

use super::address::size;

/// The networks that are reserved; none covers another, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservations(Vec<Prefix>);

impl FromIterator<Prefix> for Reservations {
    fn from_iter<T: IntoIterator<Item = Prefix>>(networks: T) -> Reservations {
        let mut networks: Vec<Prefix> = networks.into_iter().collect();
        // A network sorts before what it covers.
        networks.sort_unstable();
        let mut kept: Vec<Prefix> = Vec::new();
        for network in networks {
            if !kept.last().is_some_and(|last| last.covers(network)) {
                kept.push(network);
            }
        }
        Reservations(kept)
    }
}

impl Reservations {
    /// Of stored IPReservations. What isn't a network is left out: it was checked when it was written.
    pub fn of<'a>(resources: impl IntoIterator<Item = &'a Value>) -> Reservations {
        let cidrs = |resource: &'a Value| resource["spec"]["reservedCIDRs"].as_array().into_iter().flatten();
        let networks = resources.into_iter().flat_map(cidrs);
        networks.filter_map(|network| network.as_str()?.trim().parse().ok()).collect()
    }

    /// Is this address reserved?
    pub fn holds(&self, addr: IpAddr) -> bool {
        self.covering(Prefix::host(addr)).is_some()
    }

    /// The reserved network that a whole network lies in.
    pub fn covering(&self, network: Prefix) -> Option<Prefix> {
        let after = self.0.partition_point(|reserved| *reserved <= network);
        self.0[..after].last().copied().filter(|reserved| reserved.covers(network))
    }

    /// Is any of its addresses reserved?
    pub fn overlaps(&self, network: Prefix) -> bool {
        self.covering(network).is_some() || self.within(network).next().is_some()
    }

    /// How many of its addresses are.
    pub fn count(&self, network: Prefix) -> u128 {
        if self.covering(network).is_some() {
            return size(network);
        }
        self.within(network).map(size).sum()
    }

    fn within(&self, network: Prefix) -> impl Iterator<Item = Prefix> {
        self.0.iter().copied().filter(move |reserved| network.covers(*reserved))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ipam::nth;

    proptest! {
        #[test]
        fn reserved_addresses_are_those_of_any_of_the_networks(
            networks in prop::collection::vec((0u32..64, 26u8..=32), 0..6), asked in (0u32..64, 26u8..=32)
        ) {
            let network = |(addr, len): (u32, u8)| Prefix::new(IpAddr::V4(addr.into()), len).unwrap();
            let networks: Vec<Prefix> = networks.into_iter().map(network).collect();
            let asked = network(asked);
            let reservations: Reservations = networks.iter().copied().collect();
            let reserved: Vec<bool> = (0..size(asked))
                .map(|place| networks.iter().any(|network| network.contains(nth(asked, place))))
                .collect();
            for (place, reserved) in reserved.iter().enumerate() {
                prop_assert_eq!(reservations.holds(nth(asked, place as u128)), *reserved);
            }
            prop_assert_eq!(reservations.count(asked), reserved.iter().filter(|reserved| **reserved).count() as u128);
            prop_assert_eq!(reservations.overlaps(asked), reserved.contains(&true));
        }
    }

    #[test]
    fn what_is_no_network_reserves_nothing() {
        let resource = serde_json::json!({"spec": {"reservedCIDRs": [" 10.0.0.0/30 ", "", "x", "10.0.0.9"]}});
        let reservations = Reservations::of([&resource]);
        assert!(reservations.holds("10.0.0.3".parse().unwrap()));
        assert!(reservations.holds("10.0.0.9".parse().unwrap()));
        assert!(!reservations.holds("10.0.0.4".parse().unwrap()));
    }
}
