//! Neighbours on uplinks that the kernel keeps fresh for us.

use std::net::IpAddr;

use ahash::AHashSet;
use model::IfIndex;

use super::{release, resolve};
use crate::netlink::{Netlink, NetlinkError};

/// The next hops on uplinks, which the kernel is asked to resolve, to probe again by itself, and in the end to let go.
///
/// A next hop that the kernel happens to know already needs this no less: the kernel sees none of our traffic, so
/// without it the entry would stay stale and its MAC unquestioned.
#[derive(Debug, Default)]
pub struct ManagedNeighbors {
    kept: AHashSet<(IfIndex, IpAddr)>,
}

impl ManagedNeighbors {
    /// Keeps none yet.
    pub fn new() -> ManagedNeighbors {
        ManagedNeighbors::default()
    }

    /// Keeps exactly `needed` from now on; costs nothing where nothing changed. What the kernel refuses is tried
    /// again with the next call; the last refusal is returned.
    ///
    /// # Errors
    /// The kernel's last refusal.
    pub fn keep(
        &mut self,
        netlink: &mut Netlink,
        needed: &AHashSet<(IfIndex, IpAddr)>,
    ) -> Result<(), NetlinkError> {
        for &(ifindex, addr) in self.kept.difference(needed) {
            // A neighbour whose interface is gone has been let go with it.
            if let Err(reason) = release(netlink, ifindex, addr) {
                tracing::debug!(%addr, %reason, "the kernel did not release a neighbour");
            }
        }
        self.kept.retain(|neighbor| needed.contains(neighbor));
        let mut outcome = Ok(());
        for &(ifindex, addr) in needed {
            if self.kept.contains(&(ifindex, addr)) {
                continue;
            }
            match resolve(netlink, ifindex, addr) {
                Ok(()) => drop(self.kept.insert((ifindex, addr))),
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    /// The kernel dropped this entry, as it does when a link goes down: the next [`keep`](Self::keep) asks anew.
    pub fn forget(&mut self, ifindex: IfIndex, addr: IpAddr) {
        self.kept.remove(&(ifindex, addr));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::ifindex;
    use super::*;
    use crate::testing::{Neighborhood, in_namespace, ip};

    #[test]
    fn exactly_the_needed_neighbours_are_managed() {
        in_namespace(|| {
            let _there = Neighborhood::behind("up0", "far0");
            ip("addr add 192.0.2.1/24 dev up0");
            // Known to the kernel already, but nobody would ever question it.
            ip("neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 nud stale dev up0");
            let mut netlink = Netlink::open().unwrap();
            let uplink = ifindex("up0");
            let set = |last: &[u8]| last.iter().map(|n| (uplink, IpAddr::from([192, 0, 2, *n]))).collect();
            let managed = || {
                let shown = ip("neigh show dev up0");
                let lines = shown.lines().filter(|line| line.contains("managed"));
                let mut addrs: Vec<String> =
                    lines.map(|line| line.split(' ').next().unwrap().to_owned()).collect();
                addrs.sort();
                addrs
            };
            let mut neighbors = ManagedNeighbors::new();
            neighbors.keep(&mut netlink, &set(&[8, 9])).unwrap();
            neighbors.keep(&mut netlink, &set(&[8, 9])).unwrap();
            assert_eq!(managed(), ["192.0.2.8", "192.0.2.9"]);
            neighbors.keep(&mut netlink, &set(&[9])).unwrap();
            assert_eq!(managed(), ["192.0.2.9"]);
            ip("neigh del 192.0.2.9 dev up0");
            neighbors.forget(uplink, "192.0.2.9".parse().unwrap());
            neighbors.keep(&mut netlink, &set(&[9])).unwrap();
            assert_eq!(managed(), ["192.0.2.9"]);
        });
    }

    #[test]
    fn a_refusal_is_returned_and_tried_again() {
        let mut netlink = Netlink::open().unwrap();
        let needed = [(IfIndex(0x7fff_0000), "192.0.2.1".parse().unwrap())].into_iter().collect();
        let mut neighbors = ManagedNeighbors::new();
        assert!(neighbors.keep(&mut netlink, &needed).is_err());
        assert!(neighbors.keep(&mut netlink, &needed).is_err());
    }
}
