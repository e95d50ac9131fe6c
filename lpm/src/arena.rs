//! Which units of an arena are free. The units themselves lie elsewhere; this is the writer's book-keeping alone.
//!
//! Blocks have 1..=64 units. Units are counted in chunks of 64, one bit each in a word, so that a freed block grows
//! together with its free neighbours by itself. Chunks are listed by their longest free run, and a block is taken from
//! the tightest fit: chunks in use fill up before untouched ones are begun. An untouched chunk is in no list and its
//! book-keeping unwritten, so that it costs no memory yet.

/// Units in a chunk, and in the largest block.
pub(crate) const CHUNK: usize = 64;
const NONE: u32 = u32::MAX;

/// The free units of one arena.
#[derive(Debug)]
pub(crate) struct Arena {
    /// A bit for each free unit of each chunk.
    free: Box<[u64]>,
    /// Neighbours of each chunk in the list of its longest run.
    next: Box<[u32]>,
    previous: Box<[u32]>,
    /// The first chunk of each longest run, 0..=64.
    heads: [u32; CHUNK + 1],
    /// Chunks from here on are untouched.
    begun: usize,
    used: usize,
}

impl Arena {
    /// An arena of this many units, rounded down to whole chunks, at least one.
    pub(crate) fn new(units: u32) -> Arena {
        let chunks = (units as usize / CHUNK).max(1);
        Arena {
            // Zeroes, which alone come without being written.
            free: vec![0; chunks].into(),
            next: vec![0; chunks].into(),
            previous: vec![0; chunks].into(),
            heads: [NONE; CHUNK + 1],
            begun: 0,
            used: 0,
        }
    }

    /// Units in blocks that were allocated and not yet released.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Units in all.
    pub(crate) fn units(&self) -> usize {
        self.free.len() * CHUNK
    }

    /// Bytes of this book-keeping.
    pub(crate) fn bytes(&self) -> usize {
        self.free.len() * (8 + 4 + 4)
    }

    /// The first unit of `len` (1..=64) that are free next to each other, no longer free from now on.
    pub(crate) fn allocate(&mut self, len: usize) -> Option<u32> {
        debug_assert!((1..=CHUNK).contains(&len), "a block of {len}");
        let run = (len..=CHUNK).find(|run| self.heads[*run] != NONE).or_else(|| self.begin())?;
        let chunk = self.heads[run] as usize;
        let at = first_run(self.free[chunk], len);
        self.set(chunk, self.free[chunk] & !(ones(len) << at));
        self.used += len;
        Some((chunk * CHUNK + at) as u32)
    }

    /// Makes a block free that [`Arena::allocate`] gave.
    pub(crate) fn release(&mut self, start: u32, len: usize) {
        let (chunk, at) = (start as usize / CHUNK, start as usize % CHUNK);
        let block = ones(len) << at;
        debug_assert_eq!(self.free[chunk] & block, 0, "units {start}+{len} are free already");
        self.set(chunk, self.free[chunk] | block);
        self.used -= len;
    }

    /// Takes up the lowest untouched chunk, if there is one; the run that it is listed by.
    fn begin(&mut self) -> Option<usize> {
        let chunk = self.begun;
        *self.free.get_mut(chunk)? = u64::MAX;
        self.begun += 1;
        self.link(chunk, CHUNK);
        Some(CHUNK)
    }

    /// Writes a chunk's free units and keeps it in the right list.
    fn set(&mut self, chunk: usize, free: u64) {
        let (before, after) = (longest_run(self.free[chunk]), longest_run(free));
        self.free[chunk] = free;
        if before != after {
            self.unlink(chunk, before);
            self.link(chunk, after);
        }
    }

    fn link(&mut self, chunk: usize, run: usize) {
        let head = std::mem::replace(&mut self.heads[run], chunk as u32);
        self.next[chunk] = head;
        self.previous[chunk] = NONE;
        if head != NONE {
            self.previous[head as usize] = chunk as u32;
        }
    }

    fn unlink(&mut self, chunk: usize, run: usize) {
        let (previous, next) = (self.previous[chunk], self.next[chunk]);
        if previous == NONE {
            self.heads[run] = next;
        } else {
            self.next[previous as usize] = next;
        }
        if next != NONE {
            self.previous[next as usize] = previous;
        }
    }
}

/// The lowest `count` (1..=64) bits.
fn ones(count: usize) -> u64 {
    u64::MAX >> (CHUNK - count)
}

/// How many bits are set next to each other at most.
fn longest_run(word: u64) -> usize {
    // `begins[n]` has the bits from which on 2^n are set; then as much is added to the longest of these as goes.
    let mut begins = [word; 7];
    for n in 1..begins.len() {
        begins[n] = begins[n - 1] & begins[n - 1] >> (1 << (n - 1));
    }
    let (mut found, mut run) = (u64::MAX, 0);
    for (n, begins) in begins.iter().enumerate().rev() {
        let more = found & begins.checked_shr(run).unwrap_or(0);
        if more != 0 {
            (found, run) = (more, run + (1 << n));
        }
    }
    run as usize
}

/// The lowest bit at which `len` bits are set next to each other; some must be.
fn first_run(mut word: u64, len: usize) -> usize {
    let mut found = 1;
    while found < len {
        let more = found.min(len - found);
        word &= word >> more;
        found += more;
    }
    word.trailing_zeros() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_arena_says_so_and_recovers() {
        let mut arena = Arena::new(128);
        assert_eq!((arena.allocate(64), arena.allocate(60), arena.allocate(5)), (Some(0), Some(64), None));
        assert_eq!(arena.allocate(4), Some(124));
        arena.release(64, 60);
        assert_eq!(arena.allocate(60), Some(64));
    }

    #[test]
    fn freed_neighbours_grow_together() {
        let mut arena = Arena::new(64);
        let blocks: Vec<u32> = (0..8).map(|_| arena.allocate(8).unwrap()).collect();
        assert_eq!(arena.allocate(1), None);
        for block in [3, 1, 0, 2] {
            arena.release(blocks[block], 8);
        }
        assert_eq!(arena.allocate(32), Some(0));
    }

    #[test]
    fn the_tightest_gap_is_taken() {
        let mut arena = Arena::new(256);
        let small = arena.allocate(3).unwrap();
        arena.allocate(61).unwrap();
        arena.allocate(40).unwrap();
        arena.release(small, 3);
        assert_eq!(arena.allocate(2), Some(small));
    }

    proptest! {
        #[test]
        fn the_longest_run_is_found(words: [u64; 4], shift in 0u32..64) {
            let count = |word: u64| {
                (0..64).map(|bit| (word >> bit).trailing_ones()).max().unwrap_or(0) as usize
            };
            let sparse = words[0] & words[1] & words[2];
            for word in [sparse, words[0], words[0] | words[1] | words[2], u64::MAX << shift, u64::MAX >> shift, 0] {
                prop_assert_eq!(longest_run(word), count(word));
            }
        }

        #[test]
        fn blocks_never_overlap_and_all_come_back(steps in proptest::collection::vec((any::<bool>(), 1usize..=64), 1..300)) {
            let mut arena = Arena::new(640);
            let mut owner = vec![None; 640];
            let mut blocks = Vec::new();
            for (number, (give, len)) in steps.into_iter().enumerate() {
                if give && !blocks.is_empty() {
                    let (start, len): (u32, usize) = blocks.swap_remove(len % blocks.len());
                    owner[start as usize..][..len].fill(None);
                    arena.release(start, len);
                } else if let Some(start) = arena.allocate(len) {
                    let units = &mut owner[start as usize..][..len];
                    prop_assert!(units.iter().all(Option::is_none));
                    units.fill(Some(number));
                    blocks.push((start, len));
                }
                prop_assert_eq!(arena.used(), owner.iter().flatten().count());
            }
            blocks.into_iter().for_each(|(start, len)| arena.release(start, len));
            prop_assert_eq!(arena.used(), 0);
            prop_assert!((0..10).all(|_| arena.allocate(64).is_some()));
        }
    }
}
