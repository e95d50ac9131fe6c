//! Groups and adjacencies as the walk reads them: one row to a packet, with all that writing it takes.
//!
//! The slow path thinks in ports, adjacencies and groups. A packet would have to go from group to member to adjacency
//! to port, four rows that lie apart; so [`crate::Writer::publish`] compiles them into two: a group's row names its
//! first next hop and how many there are, and a next hop's row, half a cache line, holds what the stages ask.

use model::{PortId, PortKind};
use packet::encapsulation::Template;

use crate::{Adjacency, AdjacencyId, Group, GroupId, Ports};

/// Why no frame can leave by a next hop, or that one can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HopState {
    /// Frames leave.
    Ready,
    /// The neighbour's MAC address isn't known yet.
    Unresolved,
    /// A workload port that no endpoint names: closed.
    UnknownEndpoint,
    /// The port is down or gone.
    PortDown,
    /// The group drops what comes.
    Blackhole,
    /// The group has no next hop, or there is no such group.
    NoRoute,
    /// The group refuses what comes: the destination is unreachable.
    Rejected,
    /// The group refuses what comes: the destination is prohibited.
    Prohibited,
}

/// One next hop, in 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(32))]
pub struct NextHop {
    /// Destination and source MAC address as they stand in the frame.
    pub addresses: [u8; 12],
    /// The adjacency it was made of.
    pub adjacency: Option<AdjacencyId>,
    /// The port that frames leave by.
    pub port: PortId,
    /// Largest IP packet that may leave by it, before any encapsulation, in bytes.
    pub mtu: u16,
    /// Can frames leave?
    pub state: HopState,
    /// It leads to this box itself: nothing is forwarded, so the TTL stays.
    pub to_host: bool,
    /// Frames leave, to another box, without an outer header.
    is_ordinary: bool,
    /// A row of [`NextHops::encapsulation`], or [`NextHop::PLAIN`].
    encapsulation: u16,
}

impl NextHop {
    const PLAIN: u16 = u16::MAX;

    /// A next hop that no frame leaves by.
    const fn closed(state: HopState) -> NextHop {
        NextHop {
            addresses: [0; 12],
            adjacency: None,
            port: PortId(0),
            mtu: 0,
            state,
            to_host: false,
            is_ordinary: false,
            encapsulation: NextHop::PLAIN,
        }
    }

    /// Is there nothing more to a frame for it than addresses and a TTL?
    #[inline(always)]
    pub fn is_ordinary(&self) -> bool {
        self.is_ordinary
    }

    /// Does a frame leave without an outer header?
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.encapsulation == NextHop::PLAIN
    }
}

/// A row of the table of next hops.
pub type HopIndex = u32;

/// A group's row: where its next hops begin and how many they are.
#[derive(Clone, Copy, Debug, Default)]
struct GroupRow {
    first: HopIndex,
    len: u32,
}

/// All groups and their next hops, compiled.
#[derive(Clone, Debug)]
pub struct NextHops {
    groups: Vec<GroupRow>,
    hops: Vec<NextHop>,
    encapsulations: Vec<Template>,
}

/// Rows that every table of next hops begins with.
const NO_ROUTE: HopIndex = 0;
const BLACKHOLE: HopIndex = 1;
const REJECTED: HopIndex = 2;
const PROHIBITED: HopIndex = 3;

impl Default for NextHops {
    fn default() -> NextHops {
        NextHops {
            groups: Vec::new(),
            hops: [HopState::NoRoute, HopState::Blackhole, HopState::Rejected, HopState::Prohibited]
                .map(NextHop::closed)
                .to_vec(),
            encapsulations: Vec::new(),
        }
    }
}

impl NextHops {
    /// Compiles groups, by row. Each group's next hops lie next to each other, so a next hop of two groups is there twice.
    pub(crate) fn compile(
        groups: &[Option<Group>],
        adjacencies: &[Option<Adjacency>],
        ports: &Ports,
    ) -> NextHops {
        let mut compiled = NextHops::default();
        for group in groups {
            let row = match group {
                Some(Group::Forward(members)) if !members.is_empty() => {
                    let first = compiled.hops.len() as HopIndex;
                    for member in members {
                        let adjacency = adjacencies.get(member.0 as usize).and_then(Option::as_ref);
                        let hop = compiled.next_hop(*member, adjacency, ports);
                        compiled.hops.push(hop);
                    }
                    GroupRow { first, len: members.len() as u32 }
                }
                Some(Group::Blackhole) => GroupRow { first: BLACKHOLE, len: 1 },
                Some(Group::Rejected) => GroupRow { first: REJECTED, len: 1 },
                Some(Group::Prohibited) => GroupRow { first: PROHIBITED, len: 1 },
                Some(Group::Forward(_) | Group::Unreachable) | None => GroupRow { first: NO_ROUTE, len: 1 },
            };
            compiled.groups.push(row);
        }
        compiled
    }

    fn next_hop(&mut self, id: AdjacencyId, adjacency: Option<&Adjacency>, ports: &Ports) -> NextHop {
        let Some((adjacency, port)) =
            adjacency.and_then(|adjacency| Some((adjacency, ports.get(adjacency.port)?)))
        else {
            return NextHop::closed(HopState::PortDown);
        };
        let state = if !port.up {
            HopState::PortDown
        } else if port.kind == PortKind::Workload && port.endpoint.is_none() {
            HopState::UnknownEndpoint
        } else if adjacency.addresses.is_none() {
            HopState::Unresolved
        } else {
            HopState::Ready
        };
        let mut hop = NextHop {
            addresses: adjacency.addresses.unwrap_or_default(),
            adjacency: Some(id),
            port: port.id,
            mtu: port.mtu,
            state,
            to_host: port.kind == PortKind::Host,
            is_ordinary: false,
            encapsulation: NextHop::PLAIN,
        };
        if let Some(encapsulation) = &adjacency.encapsulation {
            hop.mtu = port.mtu.saturating_sub(encapsulation.overhead());
            // A table of more distinct tunnels than 16 bits count would need as many adjacencies; what doesn't fit is down.
            match u16::try_from(self.encapsulations.len()) {
                Ok(row) if row != NextHop::PLAIN => hop.encapsulation = row,
                _ => hop.state = HopState::PortDown,
            }
            self.encapsulations.push(encapsulation.clone());
        }
        hop.mtu = adjacency.mtu.map_or(hop.mtu, |mtu| mtu.min(hop.mtu));
        hop.is_ordinary = hop.state == HopState::Ready && !hop.to_host && hop.is_plain();
        hop
    }

    /// Where a group's next hops begin, and how many they are, at least one. A group that isn't there leads nowhere.
    #[inline(always)]
    pub fn of_group(&self, group: GroupId) -> (HopIndex, u32) {
        match self.groups.get(group.0 as usize) {
            Some(row) => (row.first, row.len),
            None => (NO_ROUTE, 1),
        }
    }

    /// A next hop by its row.
    #[inline(always)]
    pub fn get(&self, index: HopIndex) -> &NextHop {
        // Rows come from `of_group`, so the row is there.
        static NOWHERE: NextHop = NextHop::closed(HopState::NoRoute);
        self.hops.get(index as usize).unwrap_or(&NOWHERE)
    }

    /// The outer header of a next hop that has one.
    #[inline]
    pub fn encapsulation(&self, hop: &NextHop) -> Option<&Template> {
        self.encapsulations.get(usize::from(hop.encapsulation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_half_a_cache_line() {
        assert_eq!((size_of::<NextHop>(), align_of::<NextHop>()), (32, 32));
    }

    #[test]
    fn a_group_that_is_not_there_leads_nowhere() {
        let next_hops = NextHops::default();
        let (first, len) = next_hops.of_group(GroupId(7));
        assert_eq!((next_hops.get(first).state, len), (HopState::NoRoute, 1));
    }

    #[test]
    fn a_tunnels_mtu_is_the_ports_less_the_header_or_the_smaller_one_that_is_set() {
        let mut ports = Ports::default();
        let port = crate::Port {
            id: PortId(0),
            name: "eth0".to_owned(),
            ifindex: model::IfIndex(2),
            kind: PortKind::Uplink,
            mac: model::MacAddr::default(),
            mtu: 1500,
            up: true,
            queues: 1,
            endpoint: None,
        };
        ports.put(port);
        let ends = [[172, 18, 0, 2], [172, 18, 0, 3]].map(std::net::Ipv4Addr::from);
        let mac = model::MacAddr::default();
        let plain = Adjacency::resolved(PortId(0), ends[1].into(), mac, mac);
        let tunnel = plain.clone().encapsulated(Template::ipip(ends[0], ends[1]));
        for (adjacency, mtu) in [
            (plain, 1500),
            (tunnel.clone(), 1480),
            (tunnel.clone().limited(Some(1400)), 1400),
            (tunnel.limited(Some(1499)), 1480),
        ] {
            let hop = NextHops::default().next_hop(AdjacencyId(0), Some(&adjacency), &ports);
            assert_eq!((hop.mtu, hop.state), (mtu, HopState::Ready));
        }
    }
}
