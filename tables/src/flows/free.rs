//! Which rows are free: a bit each, so that a certain one can be taken, and a bit for 64 of those, so that any is found soon.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The free rows.
pub(super) struct Free {
    /// A bit for each row.
    rows: Box<[AtomicU64]>,
    /// A bit for each word above that has any. One may be set that has none by now; none is clear that has some.
    words: Box<[AtomicU64]>,
    taken: AtomicUsize,
    all: usize,
}

impl Free {
    /// Bytes for so many rows.
    pub(super) fn bytes(rows: usize) -> usize {
        (rows.div_ceil(64) + rows.div_ceil(64 * 64)) * 8
    }

    /// So many rows, all of them free.
    pub(super) fn new(rows: usize) -> Free {
        let ones = |count: usize| {
            let word = |at: usize| match count - at * 64 {
                64.. => u64::MAX,
                rest => (1 << rest) - 1,
            };
            (0..count.div_ceil(64)).map(|at| AtomicU64::new(word(at))).collect()
        };
        Free { rows: ones(rows), words: ones(rows.div_ceil(64)), taken: AtomicUsize::new(0), all: rows }
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Takes this row if it is free, else any other, near it where there is one.
    pub(super) fn take(&self, wanted: u32) -> Option<u32> {
        let taken = self.take_bit(wanted).then_some(wanted).or_else(|| self.take_any(wanted))?;
        self.taken.fetch_add(1, Ordering::Relaxed);
        Some(taken)
    }

    fn take_bit(&self, row: u32) -> bool {
        let bit = 1 << (row % 64);
        let word = self.rows.get(row as usize / 64);
        // Looked at first: a word that is written goes from core to core.
        word.is_some_and(|word| {
            word.load(Ordering::Relaxed) & bit != 0 && word.fetch_and(!bit, Ordering::SeqCst) & bit != 0
        })
    }

    fn take_any(&self, near: u32) -> Option<u32> {
        if self.taken() >= self.all {
            return None;
        }
        let first = near as usize / 64;
        self.take_from(first).or_else(|| {
            let count = self.words.len();
            (0..count).find_map(|step| self.take_under((first / 64 + step) % count))
        })
    }

    /// One of the 64 rows of a word.
    fn take_from(&self, at: usize) -> Option<u32> {
        let word = self.rows.get(at)?;
        loop {
            let free = word.load(Ordering::SeqCst);
            if free == 0 {
                return None;
            }
            let row = at as u32 * 64 + free.trailing_zeros();
            if self.take_bit(row) {
                return Some(row);
            }
        }
    }

    /// One of the rows that a word of [`Self::words`] stands for.
    fn take_under(&self, at: usize) -> Option<u32> {
        let mut some = self.words[at].load(Ordering::SeqCst);
        while some != 0 {
            let bit = some & some.wrapping_neg();
            some ^= bit;
            let below = at * 64 + bit.trailing_zeros() as usize;
            if let Some(row) = self.take_from(below) {
                return Some(row);
            }
            self.words[at].fetch_and(!bit, Ordering::SeqCst);
            // Given back since: whoever did may have seen the bit still set.
            if self.rows[below].load(Ordering::SeqCst) != 0 {
                self.words[at].fetch_or(bit, Ordering::SeqCst);
            }
        }
        None
    }

    /// Gives a row back.
    pub(super) fn give_back(&self, row: u32) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
        let at = row as usize / 64;
        self.rows[at].fetch_or(1 << (row % 64), Ordering::SeqCst);
        let bit = 1 << (at % 64);
        if self.words[at / 64].load(Ordering::SeqCst) & bit == 0 {
            self.words[at / 64].fetch_or(bit, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_row_that_is_wanted_is_given_while_it_is_free_and_every_row_once() {
        for rows in [1, 63, 64, 65, 4096, 5000] {
            let free = Free::new(rows);
            let wanted = rows as u32 / 2;
            assert_eq!(free.take(wanted), Some(wanted));
            let others: BTreeSet<u32> = (1..rows).map(|_| free.take(wanted).expect("one is left")).collect();
            assert!(
                others.len() == rows - 1
                    && !others.contains(&wanted)
                    && others.iter().all(|row| *row < rows as u32)
            );
            assert_eq!((free.take(wanted), free.take(0), free.taken()), (None, None, rows));
            free.give_back(0);
            assert_eq!(free.take(wanted), Some(0), "however far it is");
            free.give_back(wanted);
            assert_eq!(free.take(wanted), Some(wanted));
        }
    }

    #[test]
    fn threads_that_take_and_give_back_never_have_the_same_row_and_lose_none() {
        const ROWS: usize = 64 * 64 * 2 + 5;
        let free = Free::new(ROWS);
        let owned: Vec<AtomicUsize> = (0..ROWS).map(|_| AtomicUsize::new(0)).collect();
        std::thread::scope(|scope| {
            for thread in 0..3u32 {
                let (free, owned) = (&free, &owned);
                scope.spawn(move || {
                    let mut mine = Vec::new();
                    for round in 0..100_000u32 {
                        let wanted = round.wrapping_mul(2_654_435_761).rotate_left(thread) % ROWS as u32;
                        // Now nearly none of them is taken, now nearly all.
                        if round / 8192 % 2 == 0
                            && let Some(row) = free.take(wanted)
                        {
                            assert_eq!(owned[row as usize].fetch_add(1, Ordering::SeqCst), 0);
                            mine.push(row);
                        } else if let Some(row) = mine.pop() {
                            owned[row as usize].fetch_sub(1, Ordering::SeqCst);
                            free.give_back(row);
                        }
                    }
                    for row in mine {
                        owned[row as usize].fetch_sub(1, Ordering::SeqCst);
                        free.give_back(row);
                    }
                });
            }
        });
        assert_eq!(free.taken(), 0);
        assert!((0..ROWS).all(|_| free.take(7).is_some()) && free.take(7).is_none());
    }
}
