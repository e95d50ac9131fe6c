//! What became of a datagram's first fragment, for the later ones, which show no ports.
//!
//! A small table, one place for each hash: a newer datagram takes the place of an older one. What it forgets is dropped and
//! counted by whoever needed it, as is a later fragment that overtook its first: holding packets back would need memory that
//! anybody could fill.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use ahash::RandomState;
use packet::FlowKey;

use super::row::{Words, words};
use super::{Ticks, key};

/// Datagrams remembered.
const PLACES: usize = 1024;
/// For how long: what receivers wait for the rest of a datagram at least (RFC 1122 §3.3.2, RFC 8200 §4.5).
const REMEMBERED: u32 = 60 * Ticks::PER_SECOND;
const FORGOTTEN: u64 = u64::MAX;

/// A version, odd while somebody writes, then the datagram, what its fragments become, and when.
#[derive(Default)]
struct Place {
    version: AtomicU64,
    words: [AtomicU64; 11],
}

/// See the file's head.
pub struct Fragments {
    places: Box<[Place]>,
    hasher: RandomState,
}

impl Fragments {
    pub(super) const BYTES: usize = PLACES * size_of::<Place>();

    pub(super) fn new() -> Fragments {
        let places = (0..PLACES).map(|_| {
            let place = Place::default();
            place.words[10].store(FORGOTTEN, Ordering::Relaxed);
            place
        });
        Fragments { places: places.collect(), hasher: RandomState::new() }
    }

    fn place(&self, datagram: &Words) -> &Place {
        &self.places[self.hasher.hash_one(datagram) as usize % PLACES]
    }

    /// Remembers what the addresses of a datagram's fragments become. `datagram`: addresses, protocol, and the identification
    /// as ports. Where another worker writes to the same place, its datagram is the one that stays.
    pub fn remember(&self, datagram: &FlowKey, becomes: &FlowKey, now: Ticks) {
        let (datagram, to) = (words(datagram), words(becomes));
        let place = self.place(&datagram);
        let version = place.version.load(Ordering::Relaxed);
        let free = version.is_multiple_of(2)
            && place
                .version
                .compare_exchange(version, version + 1, Ordering::Acquire, Ordering::Relaxed)
                .is_ok();
        if !free {
            return;
        }
        fence(Ordering::Release);
        let values = datagram.iter().chain(&to).copied().take(10).chain([u64::from(now.0)]);
        for (word, value) in place.words.iter().zip(values) {
            word.store(value, Ordering::Relaxed);
        }
        place.version.store(version + 2, Ordering::Release);
    }

    /// What the addresses of this datagram's fragments become, where its first one came by not long ago.
    pub fn recall(&self, datagram: &FlowKey, now: Ticks) -> Option<FlowKey> {
        let asked = words(datagram);
        let place = self.place(&asked);
        let version = place.version.load(Ordering::Acquire);
        let read: [u64; 11] = std::array::from_fn(|word| place.words[word].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let whole = version.is_multiple_of(2) && place.version.load(Ordering::Relaxed) == version;
        let known = whole && read[..5] == asked && read[10] != FORGOTTEN;
        let fresh = u64::from(now.0).saturating_sub(read[10]) <= REMEMBERED.into();
        (known && fresh).then(|| key(&[read[5], read[6], read[7], read[8], read[9]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Family;

    fn datagram(id: u16) -> FlowKey {
        FlowKey { src: 1, dst: 2, sport: 0, dport: id, protocol: 17, family: Family::V4 }
    }

    #[test]
    fn a_datagram_is_recalled_until_its_time_is_over() {
        let fragments = Fragments::new();
        let becomes = FlowKey { src: 77, ..datagram(5) };
        fragments.remember(&datagram(5), &becomes, Ticks(9));
        assert_eq!(fragments.recall(&datagram(5), Ticks(10)), Some(becomes));
        assert_eq!(fragments.recall(&datagram(6), Ticks(10)), None);
        assert_eq!(fragments.recall(&datagram(5), Ticks(10 + REMEMBERED)), None);
    }

    #[test]
    fn the_latest_datagram_is_always_there() {
        let fragments = Fragments::new();
        for id in 0..10_000 {
            let becomes = FlowKey { src: id.into(), ..datagram(id) };
            fragments.remember(&datagram(id), &becomes, Ticks(0));
            assert_eq!(fragments.recall(&datagram(id), Ticks(0)), Some(becomes));
        }
    }
}
