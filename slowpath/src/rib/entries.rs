//! The array of prefixes: what is known of each, in as few bytes as it takes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ahash::AHashMap;
use model::Prefix;

use super::{Offer, Place, Source};
use crate::target::TargetId;

/// What is known of a place besides its best offer, a bit each.
pub(super) mod mark {
    /// It waits to be told of by [`Rib::take_changed`](super::super::Rib::take_changed).
    pub(in super::super) const CHANGED: u8 = 1;
    /// Somebody holds the place.
    pub(in super::super) const HELD: u8 = 1 << 1;
    /// There are offers besides the best.
    pub(in super::super) const SEVERAL: u8 = 1 << 2;
    /// It waits to be told of by [`Rib::take_gone`](super::super::Rib::take_gone).
    pub(in super::super) const GOING: u8 = 1 << 7;
    /// Any of these, and the prefix keeps its place even without a route.
    pub(super) const NEEDS: u8 = CHANGED | HELD | SEVERAL | GOING;
    /// Nothing is known of the prefix, which still has the place: it may well come back.
    pub(super) const IDLE: u8 = 1 << 3;
    /// The place is nobody's.
    pub(super) const VACANT: u8 = 1 << 4;
    /// The prefix is of IPv6.
    pub(super) const V6: u8 = 1 << 5;
    /// The best offer's metric isn't 0.
    pub(super) const METRIC: u8 = 1 << 6;
}

/// One prefix; there can be a million of them.
struct Entry {
    /// The address, or the number of an IPv6 one in [`Entries::v6`]: so IPv4 has no room for them.
    addr: u32,
    /// The best offer's; says nothing where there is none.
    target: TargetId,
    source: Option<Source>,
    len: u8,
    marks: u8,
}

const _: () = assert!(size_of::<Entry>() == 12);

/// All prefixes that have a place, by it.
#[derive(Default)]
pub(super) struct Entries {
    entries: Vec<Entry>,
    v6: Vec<Ipv6Addr>,
    v6_free: Vec<u32>,
    /// The best offers' that aren't 0: the kernel's routes have some.
    metrics: AHashMap<Place, u32>,
    free: Vec<Place>,
    idle: usize,
}

impl Entries {
    /// Gives a prefix a place.
    pub(super) fn add(&mut self, prefix: Prefix) -> Place {
        let (addr, marks) = match prefix.addr() {
            IpAddr::V4(addr) => (addr.to_bits(), 0),
            IpAddr::V6(addr) => (self.add_v6(addr), mark::V6),
        };
        let entry = Entry { addr, target: TargetId(0), source: None, len: prefix.len(), marks };
        match self.free.pop() {
            Some(place) => {
                self.entries[place.at()] = entry;
                place
            }
            None => {
                self.entries.push(entry);
                Place(self.entries.len() as u32 - 1)
            }
        }
    }

    fn add_v6(&mut self, addr: Ipv6Addr) -> u32 {
        match self.v6_free.pop() {
            Some(number) => {
                self.v6[number as usize] = addr;
                number
            }
            None => {
                self.v6.push(addr);
                self.v6.len() as u32 - 1
            }
        }
    }

    /// The place's prefix.
    pub(super) fn prefix(&self, place: Place) -> Prefix {
        let Entry { addr, len, .. } = self.entries[place.at()];
        let (addr, default) = match self.has(place, mark::V6) {
            false => (IpAddr::V4(Ipv4Addr::from(addr)), Prefix::DEFAULT_V4),
            true => (IpAddr::V6(self.v6[addr as usize]), Prefix::DEFAULT_V6),
        };
        Prefix::new(addr, len).unwrap_or(default)
    }

    /// Is the place this prefix's?
    pub(super) fn is(&self, place: Place, prefix: Prefix) -> bool {
        let Some(entry) = self.entries.get(place.at()).filter(|entry| entry.len == prefix.len()) else {
            return false;
        };
        match (prefix.addr(), entry.marks & (mark::V6 | mark::VACANT)) {
            (IpAddr::V4(addr), 0) => entry.addr == addr.to_bits(),
            (IpAddr::V6(addr), mark::V6) => self.v6[entry.addr as usize] == addr,
            _ => false,
        }
    }

    /// The best offer for the place's prefix.
    pub(super) fn best(&self, place: Place) -> Option<Offer> {
        let Entry { target, source, .. } = self.entries[place.at()];
        Some(Offer { source: source?, target, metric: self.metric(place) })
    }

    fn metric(&self, place: Place) -> u32 {
        match self.has(place, mark::METRIC) {
            true => self.metrics.get(&place).copied().unwrap_or_default(),
            false => 0,
        }
    }

    pub(super) fn set_best(&mut self, place: Place, best: Option<Offer>) {
        let metric = best.map_or(0, |offer| offer.metric);
        if metric != 0 {
            self.metrics.insert(place, metric);
        } else if self.has(place, mark::METRIC) {
            self.metrics.remove(&place);
        }
        self.set(place, mark::METRIC, metric != 0);
        let entry = &mut self.entries[place.at()];
        entry.source = best.map(|offer| offer.source);
        entry.target = best.map_or(TargetId(0), |offer| offer.target);
    }

    pub(super) fn has(&self, place: Place, mark: u8) -> bool {
        self.entries[place.at()].marks & mark != 0
    }

    pub(super) fn set(&mut self, place: Place, mark: u8, is: bool) {
        let marks = &mut self.entries[place.at()].marks;
        *marks = if is { *marks | mark } else { *marks & !mark };
    }

    /// Something is to be known of the place's prefix again.
    pub(super) fn wake(&mut self, place: Place) {
        if self.has(place, mark::IDLE) {
            self.set(place, mark::IDLE, false);
            self.idle -= 1;
        }
    }

    /// Nothing may be left to know of the place's prefix.
    pub(super) fn may_rest(&mut self, place: Place) {
        let entry = &self.entries[place.at()];
        if entry.source.is_none() && entry.marks & (mark::NEEDS | mark::IDLE | mark::VACANT) == 0 {
            self.set(place, mark::IDLE, true);
            self.idle += 1;
        }
    }

    /// Prefixes that have a place, and how many of them are idle.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.entries.len() - self.free.len(), self.idle)
    }

    /// Places of idle prefixes are nobody's from here on, and memory behind the last place in use is given back. Gives every
    /// other place to `taken`.
    pub(super) fn vacate(&mut self, mut taken: impl FnMut(Place, Prefix)) {
        self.free.clear();
        let mut end = 0;
        for place in (0..self.entries.len() as u32).map(Place) {
            if self.has(place, mark::IDLE) {
                let entry = &mut self.entries[place.at()];
                if entry.marks & mark::V6 != 0 {
                    self.v6_free.push(entry.addr);
                }
                entry.marks = mark::VACANT;
            }
            if self.has(place, mark::VACANT) {
                self.free.push(place);
            } else {
                taken(place, self.prefix(place));
                end = place.at() + 1;
            }
        }
        let Entries { entries, v6, v6_free, free, idle, .. } = self;
        *idle = 0;
        entries.truncate(end);
        if entries.capacity() > 4 * end + 2048 {
            entries.shrink_to(2 * end);
        }
        free.truncate(free.partition_point(|place| place.at() < end));
        // Those in front are taken first.
        free.reverse();
        free.shrink_to_fit();
        if v6.len() == v6_free.len() {
            (*v6, *v6_free) = (Vec::new(), Vec::new());
        }
    }

    /// All places that are a prefix's.
    pub(super) fn taken(&self) -> impl Iterator<Item = Place> + '_ {
        let all = (0..).map(Place).zip(&self.entries);
        all.filter(|(_, entry)| entry.marks & mark::VACANT == 0).map(|(place, _)| place)
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.entries.capacity() + self.free.capacity()
    }
}
