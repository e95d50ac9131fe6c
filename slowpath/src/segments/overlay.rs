//! One segment as it is now: who is known to be where, who is being asked for, and what to say inside. Pure: frames and
//! time in, frames out.
//!
//! An end whose place isn't written down is asked for by ARP or neighbour discovery, flooded as Linux floods by all-zero
//! entries of its forwarding database or to its group. Whoever asks or tells is learned from ([`Fdb`]); whoever asks for an
//! address of this node's is answered. An end in use is asked again from time to time, at its place first, so that it neither
//! ages nor stays where it no longer is.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use model::MacAddr;
use packet::{ethernet, ipv6};

use super::fdb::{Fdb, Heard};
use super::{Segment, Station};
use crate::neighbors::{arp, nd};

/// An end that was heard within this time isn't asked (RFC 4861 §10: REACHABLE_TIME).
const REACHABLE: Duration = Duration::from_secs(30);
/// Between two questions for the same end.
const RETRY: Duration = Duration::from_secs(1);
/// Between two questions for an end that never answers. Each is flooded, so they become rare.
const RETRY_MAX: Duration = Duration::from_secs(8);
/// Questions to an end at its place, and then to everybody, before it counts as gone (Linux: `ucast_solicit` and
/// `mcast_solicit`, 3 each).
const PROBES: u32 = 3;
/// Where the target of neighbour discovery stands in a frame without extension headers (RFC 4861 §4.3, §4.4).
const ND_TARGET: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN + 8;
/// Packets that a second's questions may become, copies to every end that is flooded to counted.
const PACKETS_A_TICK: usize = 256;

/// A frame to be said inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Saying {
    /// To whom.
    pub(crate) to: Audience,
    /// The frame, without outer headers.
    pub(crate) frame: Vec<u8>,
}

/// Who is to hear a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// The end at this address outside.
    End(IpAddr),
    /// Everybody that is flooded to.
    Everybody,
}

/// What has happened in a segment since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SegmentCounts {
    /// Stations learned.
    pub(crate) learned: u64,
    /// Stations that came to be behind another end.
    pub(crate) moved: u64,
    /// Stations forgotten because they weren't heard.
    pub(crate) aged: u64,
    /// Stations that found no room.
    pub(crate) full: u64,
    /// Packets under the MAC address of an end that is written down elsewhere.
    pub(crate) contradicted: u64,
    /// Packets that were malformed, or neither asked nor told anything: router solicitations, for one.
    pub(crate) invalid: u64,
    /// Questions answered.
    pub(crate) answered: u64,
    /// Questions asked, however many copies of them.
    pub(crate) asked: u64,
}

/// What is known of an end whose place isn't written down.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Neighbor {
    /// Its MAC address in its own words.
    pub(crate) mac: Option<MacAddr>,
    /// When it was heard last.
    pub(crate) heard: Option<Instant>,
    /// When it was asked for last.
    asked: Option<Instant>,
    /// Questions since it was heard last.
    pub(crate) unanswered: u32,
}

/// A segment and what is known of it.
#[derive(Clone, Debug)]
pub(crate) struct Overlay {
    segment: Segment,
    fdb: Fdb,
    neighbors: BTreeMap<IpAddr, Neighbor>,
    counts: SegmentCounts,
    changed: bool,
}

impl Overlay {
    /// Knows what is written down.
    pub(crate) fn new(segment: Segment) -> Overlay {
        let written = segment.ends.iter().filter_map(|end| end.station).map(|at| (at.mac, at.remote));
        let (limit, ageing) = segment
            .learning
            .as_ref()
            .map_or((0, Duration::MAX), |learning| (learning.limit, learning.ageing));
        let sought = segment.ends.iter().filter(|end| end.station.is_none());
        Overlay {
            fdb: Fdb::new(written, limit, ageing),
            neighbors: sought.map(|end| (end.address, Neighbor::default())).collect(),
            counts: SegmentCounts::default(),
            changed: false,
            segment,
        }
    }

    pub(crate) fn segment(&self) -> &Segment {
        &self.segment
    }

    pub(crate) fn fdb(&self) -> &Fdb {
        &self.fdb
    }

    pub(crate) fn counts(&self) -> &SegmentCounts {
        &self.counts
    }

    /// Where an end is that isn't written down; `None` while nobody knows.
    pub(crate) fn station(&self, address: IpAddr) -> Option<Station> {
        let mac = self.neighbors.get(&address)?.mac?;
        Some(Station { remote: self.fdb.remote(mac)?, mac })
    }

    /// An end that isn't written down, in its own words; `None` where it is.
    pub(crate) fn neighbor(&self, address: IpAddr) -> Option<&Neighbor> {
        self.neighbors.get(&address)
    }

    /// Has an end come, moved or gone since this was asked last?
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Takes a frame of ARP or neighbour discovery that came from the end at `remote`, and answers it where it asks for this
    /// node.
    pub(crate) fn hear(&mut self, remote: IpAddr, frame: &[u8], now: Instant) -> Option<Saying> {
        let is_one_end = !remote.is_multicast() && !remote.is_unspecified() && remote != self.segment.local;
        let Some(message) = self.read(frame).filter(|_| is_one_end) else {
            self.counts.invalid += 1;
            return None;
        };
        if self.segment.learning.is_some() {
            match self.fdb.hear(message.sender, remote, now) {
                Heard::New => self.counts.learned += 1,
                Heard::Moved => self.counts.moved += 1,
                Heard::Full => self.counts.full += 1,
                // As Linux, which drops such a packet: it is no word of that station's.
                Heard::Contradicted => {
                    self.counts.contradicted += 1;
                    return None;
                }
                Heard::Same => return self.told(message, remote, now),
            }
            self.changed |= self.is_ends(message.sender);
        }
        self.told(message, remote, now)
    }

    /// Takes what a believable message says of an end, and answers it.
    fn told(&mut self, message: Message, remote: IpAddr, now: Instant) -> Option<Saying> {
        if let Some(address) = message.address
            && let Some(neighbor) = self.neighbors.get_mut(&address)
        {
            self.changed |= neighbor.mac != Some(message.sender);
            *neighbor = Neighbor { mac: Some(message.sender), heard: Some(now), unanswered: 0, ..*neighbor };
        }
        let frame = message.reply?;
        self.counts.answered += 1;
        Some(Saying { to: Audience::End(remote), frame })
    }

    /// Is it the MAC address of an end that was asked for?
    fn is_ends(&self, mac: MacAddr) -> bool {
        self.neighbors.values().any(|neighbor| neighbor.mac == Some(mac))
    }

    /// Forgets what is too old, and asks for those ends that it is time for. To be called once a second.
    pub(crate) fn tick(&mut self, now: Instant) -> Vec<Saying> {
        for mac in self.fdb.age(now) {
            self.counts.aged += 1;
            self.changed |= self.is_ends(mac);
        }
        let Some(learning) = &self.segment.learning else { return Vec::new() };
        let copies = learning.flood.len() + usize::from(learning.group.is_some());
        let mut due: Vec<(Option<Instant>, IpAddr)> = self
            .neighbors
            .iter()
            .filter(|(address, neighbor)| self.is_due(**address, neighbor, now))
            .map(|(address, neighbor)| (neighbor.asked, *address))
            .collect();
        // Who was asked longest ago, or never, comes first where not all can be asked at once.
        due.sort_unstable();
        due.truncate((PACKETS_A_TICK / copies.max(1)).max(1));
        due.into_iter().filter_map(|(_, address)| self.ask(address, now)).collect()
    }

    fn is_due(&self, address: IpAddr, neighbor: &Neighbor, now: Instant) -> bool {
        let since = |then: Instant| now.saturating_duration_since(then);
        let is_fresh = neighbor.heard.is_some_and(|heard| since(heard) < self.reachable());
        if is_fresh && self.station(address).is_some() {
            return false;
        }
        // One that answered a moment ago is asked every second; one that doesn't, less and less.
        let patience = neighbor.unanswered.saturating_sub(2 * PROBES).min(8);
        let wait = (RETRY * 2u32.pow(patience)).min(RETRY_MAX);
        neighbor.asked.is_none_or(|asked| since(asked) >= wait)
    }

    /// How long an end counts as there without a word: well within the ageing time, so that one in use doesn't age.
    fn reachable(&self) -> Duration {
        let ageing = self.segment.learning.as_ref().map_or(Duration::MAX, |learning| learning.ageing);
        REACHABLE.min(ageing / 4)
    }

    fn ask(&mut self, address: IpAddr, now: Instant) -> Option<Saying> {
        let known = self.station(address);
        let frame = self.question(address)?;
        let neighbor = self.neighbors.get_mut(&address)?;
        if known.is_some() && neighbor.unanswered >= 2 * PROBES {
            neighbor.mac = None;
            self.changed = true;
        }
        let to = match known {
            Some(station) if neighbor.unanswered < PROBES => Audience::End(station.remote),
            _ => Audience::Everybody,
        };
        neighbor.asked = Some(now);
        neighbor.unanswered = neighbor.unanswered.saturating_add(1);
        self.counts.asked += 1;
        Some(Saying { to, frame })
    }

    /// Who has this address? `None` where this node has none of the family to ask from.
    fn question(&self, address: IpAddr) -> Option<Vec<u8>> {
        let mac = self.segment.mac;
        let mut own = self.segment.addresses.iter();
        match address {
            IpAddr::V4(target) => own.find_map(|own| match own {
                IpAddr::V4(own) => Some(arp::request(mac, *own, target)),
                IpAddr::V6(_) => None,
            }),
            IpAddr::V6(target) => own.find_map(|own| match own {
                IpAddr::V6(own) => Some(nd::solicitation(mac, *own, target)),
                IpAddr::V4(_) => None,
            }),
        }
    }

    /// What a frame says, where it is valid, for us or for everybody, and not under our own MAC address.
    fn read(&self, frame: &[u8]) -> Option<Message> {
        let own = self.segment.mac;
        let [to, sender] = [0, 6].map(|at| frame.get(at..at + 6)?.try_into().ok().map(MacAddr));
        let (to, sender) = (to?, sender?);
        if !(to == own || to.is_multicast()) || sender == own || sender.is_multicast() || sender.is_zero() {
            return None;
        }
        let is_own = |addr: IpAddr| self.segment.addresses.contains(&addr);
        // To the segment this node is what a workload's gateway is to a workload: the one that answers for some addresses,
        // where everybody else has the others.
        if frame.get(12..14) == Some(&ethernet::ARP.to_be_bytes()) {
            let outcome = arp::answer(frame, own, |addr| !is_own(addr.into()))?;
            let address = Some(IpAddr::V4(outcome.learned.0));
            return Some(Message { sender, address, reply: outcome.reply });
        }
        // Where it isn't about an address of ours it is read for what it teaches.
        let target: [u8; 16] = frame.get(ND_TARGET..ND_TARGET + 16)?.try_into().ok()?;
        let target = Some(Ipv6Addr::from(target)).filter(|target| is_own((*target).into()));
        let gateway = target.unwrap_or(Ipv6Addr::UNSPECIFIED);
        let outcome = nd::answer(frame, own, gateway, |addr| !is_own(addr.into()))?;
        let address = outcome.learned.map(|(addr, _)| IpAddr::V6(addr));
        Some(Message { sender, address, reply: outcome.reply })
    }
}

/// A valid message of ARP or neighbour discovery.
struct Message {
    /// The station that sent it.
    sender: MacAddr,
    /// The address that it says is its own.
    address: Option<IpAddr>,
    /// The answer, where it asks for an address of ours.
    reply: Option<Vec<u8>>,
}

#[cfg(test)]
mod tests;
