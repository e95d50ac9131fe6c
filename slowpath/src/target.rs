//! Targets: where a route leads, before it is known how to get there.
//!
//! Routes share targets, so that a million routes of one peer are one target, one group in the tables, and one row
//! to rewrite when the way to that peer changes.

use std::net::IpAddr;

use ahash::AHashMap;
use model::IfIndex;

use crate::tunnel::Tunnel;

/// A neighbour to send through. Without an interface it is looked up in the RIB, recursively.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gateway {
    /// Its address.
    pub addr: IpAddr,
    /// The interface it is on, where the route says so.
    pub ifindex: Option<IfIndex>,
    /// The tunnel that it is the far end of, where packets go there by one.
    pub tunnel: Option<Tunnel>,
    /// How large its part of the flows is, beside the weights of the target's other gateways; at least 1.
    pub weight: u8,
}

impl Gateway {
    /// A gateway that is looked up in the RIB.
    pub fn at(addr: IpAddr) -> Gateway {
        Gateway { addr, ifindex: None, tunnel: None, weight: 1 }
    }

    /// A neighbour on this interface.
    pub fn on(ifindex: IfIndex, addr: IpAddr) -> Gateway {
        Gateway { addr, ifindex: Some(ifindex), tunnel: None, weight: 1 }
    }

    /// The far end of a tunnel; the way there is looked up in the RIB.
    pub fn behind(tunnel: Tunnel) -> Gateway {
        Gateway { addr: tunnel.remote, ifindex: None, tunnel: Some(tunnel), weight: 1 }
    }

    /// The same with another weight.
    #[must_use]
    pub fn weighing(self, weight: u8) -> Gateway {
        Gateway { weight: weight.max(1), ..self }
    }
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// Nowhere, silently.
    Blackhole,
    /// To everybody in a network of this box's: a directed broadcast, which no router forwards unless told to
    /// (RFC 2644).
    Broadcast,
    /// Nowhere, and the sender is told that it is unreachable: a reject route.
    Rejected,
    /// Nowhere, and the sender is told that it is prohibited.
    Prohibited,
    /// To this box's own kernel.
    Local,
    /// To the destination itself, a neighbour on this interface.
    Attached(IfIndex),
    /// To the one host that has this address, behind this interface: a workload, or a neighbour on an uplink.
    Host(IfIndex, IpAddr),
    /// Through one of these; sorted, never empty.
    Via(Vec<Gateway>),
}

impl Target {
    /// Through these gateways, in the one order that makes equal sets equal; `None` for an empty set.
    pub fn via(mut gateways: Vec<Gateway>) -> Option<Target> {
        gateways.sort_unstable();
        gateways.dedup();
        (!gateways.is_empty()).then_some(Target::Via(gateways))
    }

    /// The gateways, where there are any.
    pub fn gateways(&self) -> &[Gateway] {
        match self {
            Target::Via(gateways) => gateways,
            _ => &[],
        }
    }

    /// A tunnel that packets go by, where there is one.
    pub fn tunnel(&self) -> Option<&Tunnel> {
        self.gateways().iter().find_map(|gateway| gateway.tunnel.as_ref())
    }
}

/// A target's number; never given to another target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId(pub u32);

/// Every target in use, once, counted.
#[derive(Default)]
pub struct Targets {
    rows: AHashMap<TargetId, (Target, usize)>,
    ids: AHashMap<Target, TargetId>,
    next: u32,
    /// The one asked for last: routes that come together mostly lead to the same.
    latest: Option<TargetId>,
}

impl Targets {
    /// The number of a target, which counts as used once more.
    pub fn intern(&mut self, target: &Target) -> TargetId {
        if let Some(latest) = self.latest
            && let Some((there, uses)) = self.rows.get_mut(&latest)
            && there == target
        {
            *uses += 1;
            return latest;
        }
        self.latest = self.ids.get(target).copied();
        if let Some(id) = self.ids.get(target) {
            if let Some((_, uses)) = self.rows.get_mut(id) {
                *uses += 1;
            }
            return *id;
        }
        let id = TargetId(self.next);
        self.next += 1;
        self.rows.insert(id, (target.clone(), 1));
        self.ids.insert(target.clone(), id);
        id
    }

    /// Counts one use less; with the last the target is forgotten.
    pub fn release(&mut self, id: TargetId) {
        let Some((target, uses)) = self.rows.get_mut(&id) else { return };
        *uses -= 1;
        if *uses == 0 {
            self.ids.remove(target);
            self.rows.remove(&id);
        }
    }

    /// The target.
    pub fn get(&self, id: TargetId) -> Option<&Target> {
        self.rows.get(&id).map(|(target, _)| target)
    }

    /// Is none in use?
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_targets_share_a_number_until_the_last_use_ends() {
        let mut targets = Targets::default();
        let gateway = |last| Gateway::at(IpAddr::from([10, 0, 0, last]));
        let one = targets.intern(&Target::via(vec![gateway(2), gateway(1), gateway(2)]).unwrap());
        let two = targets.intern(&Target::via(vec![gateway(1), gateway(2)]).unwrap());
        assert_eq!(one, two);
        targets.release(one);
        assert!(targets.get(one).is_some());
        targets.release(one);
        assert!(targets.get(one).is_none());
        assert_ne!(targets.intern(&Target::Local), one, "a number is never given to another target");
    }
}
