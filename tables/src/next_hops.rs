//! Groups and adjacencies as the walk reads them: one row to a packet, with all that writing it takes.
//!
//! The slow path thinks in ports, adjacencies and groups. A packet would have to go from group to member to adjacency
//! to port, four rows that lie apart; so [`crate::Writer::publish`] compiles them into two: a group's row names its
//! next hop, and a next hop's row, half a cache line, holds what the stages ask. A group of several next hops has
//! buckets between the two, of which a flow's hash picks one (`buckets.rs`).

use model::{PortId, PortKind};
use packet::encapsulation::Template;

use crate::buckets::{Buckets, Member};
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
    /// The group drops what comes: it is for everybody in a network.
    Broadcast,
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
    /// Largest IP packet that needs nothing more than addresses and a TTL; 0 where frames don't leave, or not to another box,
    /// or with an outer header.
    ordinary_mtu: u16,
    /// Largest IP packet that needs nothing more than a TTL, addresses and an outer header; 0 where frames don't leave, or not
    /// to another box, or without one.
    tunnel_mtu: u16,
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
            ordinary_mtu: 0,
            tunnel_mtu: 0,
            encapsulation: NextHop::PLAIN,
        }
    }

    /// Is there nothing more to an IP packet of this length, 1 byte or more, than addresses and a TTL?
    #[inline(always)]
    pub fn is_ordinary_for(&self, len: u16) -> bool {
        len <= self.ordinary_mtu
    }

    /// Is there nothing more to an IP packet of this length, 1 byte or more, than a TTL, addresses and an outer header?
    #[inline(always)]
    pub fn is_tunnel_for(&self, len: u16) -> bool {
        len <= self.tunnel_mtu
    }

    /// Does a frame leave without an outer header?
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.encapsulation == NextHop::PLAIN
    }
}

/// A row of the table of next hops.
pub type HopIndex = u32;

/// A group's row.
#[derive(Clone, Copy, Debug)]
struct GroupRow {
    /// The only next hop, or the first bucket.
    first: u32,
    /// How many buckets, 2 or more; [`Self::READY`] or [`Self::ONLY`] where there is only one next hop, and no bucket.
    len: u32,
}

impl GroupRow {
    /// The only next hop is one that frames can leave by.
    const READY: u32 = 0;
    /// It is another one.
    const ONLY: u32 = 1;
}

/// The next hops of a group as the ways back to a source; none where packets to it would go nowhere, or end here.
#[derive(Clone, Copy, Debug)]
struct WaysBack {
    first: HopIndex,
    len: u32,
}

/// Where a packet to somebody would go, seen by one that comes from there (RFC 3704).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayBack {
    /// Nowhere, or the somebody is this box itself.
    Nowhere,
    /// By another port, or not by a tunnel.
    Elsewhere,
    /// The way that this one came.
    Here,
}

/// How a packet came in, for [`NextHops::way_back`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CameBy {
    /// By this port.
    Port(PortId),
    /// Out of a tunnel that ends here, whatever the port: the outer packet's way is the underlay's.
    Tunnel,
}

/// All groups and their next hops, compiled.
#[derive(Clone, Debug)]
#[repr(align(128))]
pub struct NextHops {
    groups: Vec<GroupRow>,
    ways_back: Vec<WaysBack>,
    buckets: Vec<HopIndex>,
    hops: Vec<NextHop>,
    encapsulations: Vec<Template>,
    has_vxlan: bool,
}

/// Rows that every table of next hops begins with.
const NO_ROUTE: HopIndex = 0;
const BLACKHOLE: HopIndex = 1;
const REJECTED: HopIndex = 2;
const PROHIBITED: HopIndex = 3;
const BROADCAST: HopIndex = 4;

impl Default for NextHops {
    fn default() -> NextHops {
        NextHops {
            groups: Vec::new(),
            ways_back: Vec::new(),
            buckets: Vec::new(),
            hops: [
                HopState::NoRoute,
                HopState::Blackhole,
                HopState::Rejected,
                HopState::Prohibited,
                HopState::Broadcast,
            ]
            .map(NextHop::closed)
            .to_vec(),
            encapsulations: Vec::new(),
            has_vxlan: false,
        }
    }
}

impl NextHops {
    /// Compiles groups, by row. Each group's next hops lie next to each other, so a next hop of two groups is there twice.
    /// `buckets` are those of each group as the last call left them: which flows go where survives from call to call.
    pub(crate) fn compile(
        groups: &[Option<Group>],
        adjacencies: &[Option<Adjacency>],
        ports: &Ports,
        buckets: &mut [Buckets],
    ) -> NextHops {
        let mut compiled = NextHops::default();
        let mut settled = Vec::new();
        for (group, buckets) in groups.iter().zip(buckets) {
            let members = group.as_ref().map_or(&[][..], Group::members);
            let first = compiled.hops.len() as HopIndex;
            for member in members {
                let adjacency = adjacencies.get(member.0 as usize).and_then(Option::as_ref);
                let hop = compiled.next_hop(*member, adjacency, ports);
                compiled.hops.push(hop);
            }
            mark_alive(group.as_ref(), &compiled.hops[first as usize..], &mut settled);
            buckets.settle(&settled);
            let row = match group {
                Some(Group::Blackhole) => compiled.only_row(BLACKHOLE),
                Some(Group::Broadcast) => compiled.only_row(BROADCAST),
                Some(Group::Rejected) => compiled.only_row(REJECTED),
                Some(Group::Prohibited) => compiled.only_row(PROHIBITED),
                _ if members.is_empty() => compiled.only_row(NO_ROUTE),
                _ => compiled.spread(first, buckets),
            };
            compiled.groups.push(row);
            let len = if matches!(group, Some(Group::Local(_))) { 0 } else { members.len() as u32 };
            compiled.ways_back.push(WaysBack { first, len });
        }
        compiled
    }

    /// The row of a group whose next hops begin at `first`.
    fn spread(&mut self, first: HopIndex, buckets: &Buckets) -> GroupRow {
        let begin = self.buckets.len() as u32;
        self.buckets.extend(buckets.hops(first));
        match self.buckets.len() as u32 - begin {
            0 => self.only_row(first),
            len => GroupRow { first: begin, len },
        }
    }

    /// The row of a group with one next hop.
    fn only_row(&self, first: HopIndex) -> GroupRow {
        let is_ready = self.get(first).state == HopState::Ready;
        GroupRow { first, len: if is_ready { GroupRow::READY } else { GroupRow::ONLY } }
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
            ordinary_mtu: 0,
            tunnel_mtu: 0,
            encapsulation: NextHop::PLAIN,
        };
        if let Some(encapsulation) = &adjacency.encapsulation {
            hop.mtu = port.mtu.saturating_sub(encapsulation.overhead());
            // A table of more distinct tunnels than 16 bits count would need as many adjacencies; what doesn't fit is down.
            match u16::try_from(self.encapsulations.len()) {
                Ok(row) if row != NextHop::PLAIN => hop.encapsulation = row,
                _ => hop.state = HopState::PortDown,
            }
            self.has_vxlan |= encapsulation.is_vxlan();
            self.encapsulations.push(encapsulation.clone());
        }
        hop.mtu = adjacency.mtu.map_or(hop.mtu, |mtu| mtu.min(hop.mtu));
        let goes_on = hop.state == HopState::Ready && !hop.to_host;
        match hop.is_plain() {
            true if goes_on => hop.ordinary_mtu = hop.mtu,
            false if goes_on => hop.tunnel_mtu = hop.mtu,
            _ => {}
        }
        hop
    }

    /// The only next hop of a group, where frames can leave by it; of nearly all groups, this is all there is to ask.
    #[inline(always)]
    pub fn ready(&self, group: GroupId) -> Option<HopIndex> {
        let row = self.groups.get(group.0 as usize)?;
        (row.len == GroupRow::READY).then_some(row.first)
    }

    /// The next hop of a group that a flow takes: by its hash, which is asked for where there is a choice. A group that isn't
    /// there leads nowhere.
    #[inline]
    pub fn choose(&self, group: GroupId, hash: impl FnOnce() -> u32) -> HopIndex {
        match self.groups.get(group.0 as usize) {
            Some(GroupRow { first, len: GroupRow::READY | GroupRow::ONLY }) => *first,
            Some(GroupRow { first, len }) => {
                let bucket = first + Group::choose(*len, hash());
                self.buckets.get(bucket as usize).copied().unwrap_or(NO_ROUTE)
            }
            None => NO_ROUTE,
        }
    }

    /// Where packets to this group would go, for one that came so and has its source there.
    #[inline]
    pub fn way_back(&self, group: GroupId, came_by: CameBy) -> WayBack {
        let Some(WaysBack { first, len }) = self.ways_back.get(group.0 as usize) else {
            return WayBack::Nowhere;
        };
        let hops = (*first..first + len).map(|row| self.get(row));
        let leads_here = |hop: &NextHop| match came_by {
            CameBy::Port(port) => hop.port == port,
            CameBy::Tunnel => !hop.is_plain(),
        };
        match len {
            0 => WayBack::Nowhere,
            _ if { hops }.any(leads_here) => WayBack::Here,
            _ => WayBack::Elsewhere,
        }
    }

    /// Do packets to this group go anywhere but to this box itself?
    #[inline]
    pub fn leads_on(&self, group: GroupId) -> bool {
        self.ways_back.get(group.0 as usize).is_some_and(|ways| ways.len > 0)
    }

    /// A next hop by its row.
    #[inline(always)]
    pub fn get(&self, index: HopIndex) -> &NextHop {
        // Rows come from `choose`, so the row is there.
        static NOWHERE: NextHop = NextHop::closed(HopState::NoRoute);
        self.hops.get(index as usize).unwrap_or(&NOWHERE)
    }

    /// Is any of the outer headers one of VXLAN?
    #[inline]
    pub fn has_vxlan(&self) -> bool {
        self.has_vxlan
    }

    /// The outer header of a next hop that has one.
    #[inline]
    pub fn encapsulation(&self, hop: &NextHop) -> Option<&Template> {
        self.encapsulations.get(usize::from(hop.encapsulation))
    }
}

/// Which members flows should take now: those that frames can leave by; where there are none, those whose neighbour is
/// being asked for, so that packets come up and are answered; else none rather than another.
fn mark_alive(group: Option<&Group>, hops: &[NextHop], marked: &mut Vec<Member>) {
    let any = |state| hops.iter().any(|hop| hop.state == state);
    let best = if any(HopState::Ready) { HopState::Ready } else { HopState::Unresolved };
    marked.clear();
    let Some(group) = group else { return };
    marked.extend(group.members().iter().zip(hops).enumerate().map(|(position, (id, hop))| Member {
        id: *id,
        weight: group.weight(position),
        is_alive: hop.state == best,
    }));
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
        assert_eq!(next_hops.ready(GroupId(7)), None);
        let hop = next_hops.choose(GroupId(7), || unreachable!("there is no choice"));
        assert_eq!(next_hops.get(hop).state, HopState::NoRoute);
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
