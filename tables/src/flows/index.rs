//! From a key to its row: chains of rows, a bucket for each hash, and a version in each bucket.
//!
//! Whoever changes a chain holds its bucket: an odd version. A look-up reads version and chain, then the version again; had
//! it changed, what was read means nothing. Keys of a row are written only while it is in no chain, and taking it out of
//! one changed a version, so what a look-up confirms was never half of one flow and half of another.

use std::hash::{BuildHasher, Hasher};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use ahash::RandomState;
use crossbeam_utils::Backoff;

use super::row::{Life, Row, Words, is_v6};

/// A row and which of its keys: the row's number counted from 1, twice, plus the side. 0 ends a chain.
pub(super) type Link = u32;

pub(super) fn link(row: u32, side: usize) -> Link {
    (row + 1) << 1 | side as u32
}

/// A look-up that strays onto the stack of free rows reads 1 as a link, which becomes a row that there isn't.
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
    hasher: RandomState,
}

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
        Index { buckets: (0..buckets).map(|_| AtomicU64::new(0)).collect(), hasher: RandomState::new() }
    }

    /// The addresses at which the buckets lie.
    pub(super) fn place(&self) -> Range<usize> {
        let start = self.buckets.as_ptr().addr();
        start..start + size_of_val(&*self.buckets)
    }

    #[inline(always)]
    pub(super) fn bucket(&self, words: &Words) -> usize {
        let [head, a, b, c, d] = *words;
        let two = |a: u64, b: u64| u128::from(a) << 64 | u128::from(b);
        let mut hasher = self.hasher.build_hasher();
        // By their size, in what the hasher takes at once: as an array they would be bytes of some number to it.
        hasher.write_u128(two(head, a));
        if is_v6(words) {
            hasher.write_u128(two(b, c));
            hasher.write_u64(d);
        }
        hasher.finish() as usize & (self.buckets.len() - 1)
    }

    /// The first link of a bucket's chain, whoever changes it.
    #[inline(always)]
    pub(super) fn head(&self, bucket: usize) -> Link {
        self.buckets[bucket].load(Ordering::Relaxed) as Link
    }

    /// The row in whose life the key was found.
    pub(super) fn find_in_bucket(&self, rows: &[Row], bucket: usize, words: &Words) -> Option<(Link, Life)> {
        self.find_and_read(rows, bucket, words, |_, _, _| ()).map(|(link, life, ())| (link, life))
    }

    /// [`Self::find_in_bucket`], and what `read` reads of the row: of the same flow as the key.
    #[inline]
    pub(super) fn find_and_read<T>(
        &self,
        rows: &[Row],
        bucket: usize,
        words: &Words,
        read: impl Fn(Link, Life, &Row) -> T,
    ) -> Option<(Link, Life, T)> {
        let read = |(link, life, row)| (link, life, read(link, life, row));
        for _ in 0..LOOKS {
            let before = self.buckets[bucket].load(Ordering::Acquire);
            if before & HELD != 0 {
                std::hint::spin_loop();
                continue;
            }
            let found = find_in(rows, before as u32, words, STEPS).map(|found| found.map(read));
            if self.is_still(bucket, before)
                && let Ok(found) = found
            {
                return found;
            }
        }
        let held = self.hold(bucket);
        let found = find_in(rows, held.head(), words, u32::MAX).unwrap_or(None).map(read);
        self.release(held, held.head());
        found
    }

    /// [`Self::find_and_read`] by one look at the first row of the chain: mostly, it is the one.
    #[inline(always)]
    pub(super) fn first(
        &self,
        rows: &[Row],
        bucket: usize,
        words: &Words,
        read: impl Fn(&Row) -> u64,
    ) -> Option<(Link, Life, u64)> {
        let before = self.buckets[bucket].load(Ordering::Acquire);
        let (number, side) = row_and_side(before as u32);
        let row = rows.get(number as usize)?;
        let life = row.life();
        if before & HELD != 0 || !life.has(Life::LIVE) || !row.has_words(side, words, life) {
            return None;
        }
        let read = read(row);
        self.is_still(bucket, before).then_some((before as u32, life, read))
    }

    /// Is a bucket as it was when this was read? Everything read before is read before the version is read again.
    #[inline(always)]
    fn is_still(&self, bucket: usize, before: u64) -> bool {
        fence(Ordering::Acquire);
        self.buckets[bucket].load(Ordering::Relaxed) == before
    }

    /// Waits until nobody holds the bucket, and holds it: for some dozens of instructions, unless the holder loses its core.
    pub(super) fn hold(&self, bucket: usize) -> Held {
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

    /// Takes a row out of the chain of one of its keys.
    pub(super) fn unlink(&self, rows: &[Row], row: u32, side: usize) {
        let held = self.hold(self.bucket(&rows[row as usize].words(side)));
        let wanted = link(row, side);
        let after = rows[row as usize].next[side].load(Ordering::Relaxed);
        let mut at = held.head();
        if at == wanted {
            self.release(held, after);
            return;
        }
        while at != 0 {
            let (before, side) = row_and_side(at);
            let next = &rows[before as usize].next[side];
            at = next.load(Ordering::Relaxed);
            if at == wanted {
                next.store(after, Ordering::Relaxed);
                break;
            }
        }
        self.release(held, held.head());
    }
}

/// The first live row with this key in a chain; an error where the chain is longer than `steps`.
#[inline(always)]
pub(super) fn find_in<'a>(
    rows: &'a [Row],
    head: Link,
    words: &Words,
    steps: u32,
) -> Result<Option<(Link, Life, &'a Row)>, Changing> {
    let mut at = head;
    for _ in 0..steps {
        if at == 0 {
            return Ok(None);
        }
        let (number, side) = row_and_side(at);
        let Some(row) = rows.get(number as usize) else { return Err(Changing) };
        let life = row.life();
        if life.has(Life::LIVE) && row.has_words(side, words, life) {
            return Ok(Some((at, life, row)));
        }
        at = row.next[side].load(Ordering::Relaxed);
    }
    Err(Changing)
}
