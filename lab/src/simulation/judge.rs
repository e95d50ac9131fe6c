//! Where packets would go: walked from table to table, many pairs at one moment.

use std::net::IpAddr;
use std::time::Duration;

use model::Prefix;

use super::network::{Network, NodeId};
use crate::numbers::Numbers;

/// More hops than any way has.
const HOPS: usize = 16;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It arrived after so many hops.
    Arrived(usize),
    /// No route at this node, or a link that is cut.
    Lost(NodeId),
    /// It came by a node again.
    Looped,
}

/// Follows one packet. `flow` chooses among equal next hops, as a hash would.
pub fn walk(network: &Network, from: NodeId, to: IpAddr, flow: u64) -> Way {
    let (mut at, mut been) = (from, Vec::new());
    for hops in 0..HOPS {
        let node = &network.nodes[at];
        if node.own.iter().any(|own| own.contains(to)) {
            return Way::Arrived(hops);
        }
        if been.contains(&at) {
            return Way::Looped;
        }
        been.push(at);
        let covering = (0..=32).rev().filter_map(|len| Prefix::new(to, len));
        let Some(nexthops) = covering.into_iter().find_map(|prefix| node.fib.get(&prefix)) else {
            return Way::Lost(at);
        };
        let choice = Numbers::new(flow ^ at as u64).below(nexthops.len().max(1));
        let next = nexthops.get(choice).and_then(|&nexthop| network.at(nexthop));
        match next.filter(|&next| network.is_linked(at, next)) {
            Some(next) => at = next,
            None => return Way::Lost(at),
        }
    }
    Way::Looped
}

/// What was seen of many packets over some time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Packets followed.
    pub walked: u64,
    /// Of these, looped.
    pub looped: u64,
    /// Of these, lost.
    pub lost: u64,
    /// The last moment at which one was lost or looped.
    pub last_trouble: Option<Duration>,
}

/// Sends packets between random workers.
pub struct Judge {
    destinations: Vec<(NodeId, IpAddr)>,
    numbers: Numbers,
}

impl Judge {
    /// Between these nodes, to these addresses at them.
    pub fn new(destinations: Vec<(NodeId, IpAddr)>, seed: u64) -> Judge {
        Judge { destinations, numbers: Numbers::new(seed) }
    }

    /// Follows `count` packets now.
    pub fn look(&mut self, network: &Network, count: usize, seen: &mut Seen) {
        let many = self.destinations.len();
        for _ in 0..count {
            let (from, _) = self.destinations[self.numbers.below(many)];
            let (_, to) = self.destinations[self.numbers.below(many)];
            seen.walked += 1;
            match walk(network, from, to, self.numbers.next()) {
                Way::Arrived(_) => continue,
                Way::Lost(_) => seen.lost += 1,
                Way::Looped => seen.looped += 1,
            }
            seen.last_trouble = Some(network.elapsed());
        }
    }
}
