//! From a key to its row: chains of rows, a bucket for each hash, and a version in each bucket.
//!
//! Whoever changes a chain holds its bucket: an odd version. A look-up reads version and chain, then the version again; had
//! it changed, what was read means nothing. Keys of a row are written only while it is in no chain, and taking it out of
//! one changed a version, so what a look-up confirms was never half of one flow and half of another.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use ahash::RandomState;
use crossbeam_utils::Backoff;
use lpm::prefetch;

use super::row::{AllRows, Life, Row, Words, is_turned, is_v6, undirected};

/// A row and which of its keys: the row's number counted from 1, twice, plus the side. 0 ends a chain.
pub(super) type Link = u32;

#[inline(always)]
pub(super) fn link(row: u32, side: usize) -> Link {
    (row + 1) << 1 | side as u32
}

/// The end of a chain becomes a row that there isn't.
#[inline(always)]
pub(super) fn row_and_side(link: Link) -> (u32, usize) {
    ((link >> 1).wrapping_sub(1), (link & 1) as usize)
}

/// The version's lowest bit: somebody holds the bucket.
const HELD: u64 = 1 << 32;
/// Looks at a chain before the bucket is held for one: only a chain that is changed all the time needs as many.
const LOOKS: u32 = 8;
/// Rows of a chain that are looked at without holding the bucket. Twice as many buckets as rows, and a hash that nobody
/// outside can know: longer chains are rows read while they moved.
const STEPS: u32 = 64;

/// All buckets: version in the high half, the chain's first link in the low one.
pub(super) struct Index {
    buckets: Box<[AtomicU64]>,
    /// How many bits of a hash are none of its bucket's number.
    shift: u32,
    rows: u64,
    /// Secret, and each process has its own: nobody outside can make keys that meet. One for each word, and one to mix with.
    keys: [u64; 6],
}

/// Where a key belongs: in the bucket that its high bits number, and, if it was free, in the row that they point to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hash(pub(super) u32);

/// A chain changed while it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Changing;

/// A bucket that nobody else changes.
#[derive(Clone, Copy)]
pub(super) struct Held {
    pub(super) bucket: usize,
    word: u64,
}

impl Held {
    pub(super) fn head(self) -> Link {
        self.word as u32
    }
}

impl Index {
    pub(super) const BUCKETS_PER_ROW: usize = 2;

    pub(super) fn new(rows: usize) -> Index {
        let buckets = (rows * Index::BUCKETS_PER_ROW).next_power_of_two();
        let secret = RandomState::new();
        Index {
            buckets: (0..buckets).map(|_| AtomicU64::new(0)).collect(),
            shift: u32::BITS - buckets.trailing_zeros(),
            rows: rows as u64,
            keys: std::array::from_fn(|at| secret.hash_one(at)),
        }
    }

    /// The addresses at which the buckets lie.
    pub(super) fn place(&self) -> Range<usize> {
        let start = self.buckets.as_ptr().addr();
        start..start + size_of_val(&*self.buckets)
    }

    /// Where a key belongs, whichever way it goes.
    pub(super) fn hash(&self, words: &Words) -> Hash {
        self.hash_either_way(&undirected(words))
    }

    /// [`Self::hash`] of words without a way: NH, under which two keys meet once in 2^32 times, whichever they are (Black et al.,
    /// UMAC, CRYPTO '99), then its halves mixed. Products of 32 bits are what processors make several of at once.
    #[inline(always)]
    pub(super) fn hash_either_way(&self, words: &Words) -> Hash {
        let [head, a, b, c, d] = *words;
        match is_v6(words) {
            false => self.hash_v4(head, a),
            true => {
                let keys = &self.keys;
                let [b, c, d] = [product(b, keys[2]), product(c, keys[3]), product(d, keys[4])];
                self.mixed(self.of_two(head, a).wrapping_add(b).wrapping_add(c).wrapping_add(d))
            }
        }
    }

    /// [`Self::hash_either_way`] of both words of an IPv4 key.
    #[inline(always)]
    pub(super) fn hash_v4(&self, head: u64, addresses: u64) -> Hash {
        self.mixed(self.of_two(head, addresses))
    }

    #[inline(always)]
    fn of_two(&self, head: u64, second: u64) -> u64 {
        product(head, self.keys[0]).wrapping_add(product(second, self.keys[1]))
    }

    /// High bits of the result depend on all bits of the sum.
    #[inline(always)]
    fn mixed(&self, sum: u64) -> Hash {
        let mixed = product(sum, self.keys[5]);
        Hash((mixed ^ mixed >> 32) as u32)
    }

    /// The row in which a flow with this hash lies if it was free.
    #[inline(always)]
    pub(super) fn home(&self, hash: Hash) -> u32 {
        ((u64::from(hash.0) * self.rows) >> 32) as u32
    }

    #[inline(always)]
    pub(super) fn bucket(&self, hash: Hash) -> usize {
        (hash.0 >> self.shift) as usize
    }

    /// Asks for a bucket.
    #[inline(always)]
    pub(super) fn prefetch(&self, hash: Hash) {
        prefetch(&self.buckets, self.bucket(hash));
    }

    /// The row at the beginning of a chain, whoever changes it; a number that no row has where it is empty.
    #[inline(always)]
    pub(super) fn first(&self, hash: Hash) -> u32 {
        row_and_side(self.buckets[self.bucket(hash)].load(Ordering::Relaxed) as Link).0
    }

    /// The row in whose life the key was found.
    pub(super) fn find(&self, rows: &AllRows, hash: Hash, asked: &Words) -> Option<(Link, Life)> {
        self.find_and_read(rows, hash, asked, |_, _, _| ()).map(|(link, life, ())| (link, life))
    }

    /// [`Self::find`], and what `read` reads of the row: of the same flow as the key.
    #[inline]
    pub(super) fn find_and_read<T>(
        &self,
        rows: &AllRows,
        hash: Hash,
        asked: &Words,
        read: impl Fn(Link, Life, Row<'_>) -> T,
    ) -> Option<(Link, Life, T)> {
        let bucket = self.bucket(hash);
        let read = |(link, life, row)| (link, life, read(link, life, row));
        for _ in 0..LOOKS {
            let before = self.buckets[bucket].load(Ordering::Acquire);
            if before & HELD != 0 {
                std::hint::spin_loop();
                continue;
            }
            let found = find_in(rows, before as u32, asked, STEPS).map(|found| found.map(read));
            if self.is_still(bucket, before)
                && let Ok(found) = found
            {
                return found;
            }
        }
        let held = self.hold(hash);
        let found = find_in(rows, held.head(), asked, u32::MAX).unwrap_or(None).map(read);
        self.release(held, held.head());
        found
    }

    /// Is a bucket as it was when this was read? Everything read before is read before the version is read again.
    #[inline(always)]
    fn is_still(&self, bucket: usize, before: u64) -> bool {
        fence(Ordering::Acquire);
        self.buckets[bucket].load(Ordering::Relaxed) == before
    }

    /// Waits until nobody holds the bucket, and holds it: for some dozens of instructions, unless the holder loses its core.
    pub(super) fn hold(&self, hash: Hash) -> Held {
        let bucket = self.bucket(hash);
        let backoff = Backoff::new();
        loop {
            let word = self.buckets[bucket].load(Ordering::Relaxed);
            let taken = word & HELD == 0
                && self.buckets[bucket]
                    .compare_exchange_weak(word, word | HELD, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok();
            if taken {
                // The odd version is seen before any change under it.
                fence(Ordering::Release);
                return Held { bucket, word };
            }
            backoff.snooze();
        }
    }

    /// Lets go of the bucket, whose chain begins with `head` from now on.
    pub(super) fn release(&self, held: Held, head: Link) {
        let version = (held.word >> 32).wrapping_add(2) as u32;
        self.buckets[held.bucket].store(u64::from(version) << 32 | u64::from(head), Ordering::Release);
    }

    /// Takes a row out of the chain of one of its keys. `hash`: that key's.
    pub(super) fn unlink(&self, rows: &AllRows, number: u32, side: usize, hash: Hash) {
        let row = rows.row(number);
        let held = self.hold(hash);
        let wanted = link(number, side);
        let after = row.near.next[side].load(Ordering::Relaxed);
        let mut at = held.head();
        if at == wanted {
            self.release(held, after);
            return;
        }
        while at != 0 {
            let (before, side) = row_and_side(at);
            let next = &rows.row(before).near.next[side];
            at = next.load(Ordering::Relaxed);
            if at == wanted {
                next.store(after, Ordering::Relaxed);
                break;
            }
        }
        self.release(held, held.head());
    }
}

/// The product of a word's halves, each with its half of a key added.
#[inline(always)]
fn product(word: u64, key: u64) -> u64 {
    let half = |shift: u32| u64::from(((word >> shift) as u32).wrapping_add((key >> shift) as u32));
    half(0) * half(32)
}

/// The first live row with this key in a chain, and which of its keys it is; an error where the chain is longer than `steps`.
#[inline(always)]
pub(super) fn find_in<'a>(
    rows: &'a AllRows,
    head: Link,
    asked: &Words,
    steps: u32,
) -> Result<Option<(Link, Life, Row<'a>)>, Changing> {
    let mut at = head;
    for _ in 0..steps {
        if at == 0 {
            return Ok(None);
        }
        let (number, side) = row_and_side(at);
        let Some(row) = rows.get(number) else { return Err(Changing) };
        let life = row.life();
        if life.has(Life::LIVE) && row.has_words(side, asked) {
            let side =
                if life.has(Life::PLAIN) { way_of(life, is_turned(asked).into()) as usize } else { side };
            return Ok(Some((link(number, side), life, row)));
        }
        at = row.near.next[side].load(Ordering::Relaxed);
    }
    Err(Changing)
}

/// Which key of a plain flow has its source at the lower end, or, where `turned` is 1, at the higher one.
#[inline(always)]
pub(super) fn way_of(life: Life, turned: u64) -> u64 {
    (life.0 >> Life::TURNED.trailing_zeros() ^ turned) & 1
}

#[cfg(test)]
mod tests {
    use super::super::row::words;
    use super::*;
    use model::Family;
    use packet::FlowKey;
    use std::collections::BTreeSet;

    /// As many as chance would fill, give or take some deviations: of keys that differ in few bits.
    #[test]
    fn keys_that_differ_little_are_spread_over_all_buckets() {
        let index = Index::new(1 << 15);
        let key = |family| FlowKey { src: 1, dst: 1 << 24, sport: 1, dport: 53, protocol: 17, family };
        for base in Family::ALL.map(key) {
            let kinds: [&dyn Fn(u128) -> FlowKey; 4] = [
                &|n| FlowKey { sport: n as u16, ..base },
                &|n| FlowKey { dport: n as u16, ..base },
                &|n| FlowKey { src: base.src + (n << 8), ..base },
                &|n| FlowKey { dst: base.dst + n, ..base },
            ];
            for (kind, key) in kinds.into_iter().enumerate() {
                let hashes = (0..1 << 16).map(|n| index.hash(&words(&key(n))));
                let buckets: BTreeSet<usize> = hashes.map(|hash| index.bucket(hash)).collect();
                // 1 - 1/e of 65,536 is 41,427.
                assert!((40_500..=65_536).contains(&buckets.len()), "{base:?} {kind}: {}", buckets.len());
            }
        }
    }

    #[test]
    fn both_ways_of_a_flow_belong_to_one_place_which_there_is() {
        for rows in [1, 2, 3, 1000, 4096] {
            let index = Index::new(rows);
            for n in 0..5_000u32 {
                let family = Family::ALL[n as usize % 2];
                let key = FlowKey { src: n.into(), dst: 7, sport: n as u16, dport: 9, protocol: 6, family };
                let hash = index.hash(&words(&key));
                assert_eq!(hash, index.hash(&words(&key.reversed())));
                assert!(index.bucket(hash) < index.buckets.len() && index.home(hash) < rows as u32);
            }
        }
    }
}
