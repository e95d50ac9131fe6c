//! One row of the flow table: two keys, a life, links of the two chains that it is in, and what policy said. Two cache lines:
//! one that the packets of a flow need which nobody translates, and one with the rest.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use model::Family;
use packet::FlowKey;

use super::verdict::{Beginning, Between, counted_of, counted_word, icmp_word};

/// A [`FlowKey`] as it lies in a row and is hashed: ports, protocol and family in the first word; then both IPv4 addresses in
/// one and zeros, or the source and the destination by IPv6.
pub(super) type Words = [u64; 5];

#[inline(always)]
pub(super) fn words(key: &FlowKey) -> Words {
    let ports = u64::from(key.sport) << 48 | u64::from(key.dport) << 32;
    let head = ports | u64::from(key.protocol) << 8 | u64::from(key.family == Family::V6);
    match key.family {
        Family::V4 => [head, (key.src as u64) << 32 | key.dst as u64 & V4, 0, 0, 0],
        Family::V6 => [head, (key.src >> 64) as u64, key.src as u64, (key.dst >> 64) as u64, key.dst as u64],
    }
}

const V4: u64 = u32::MAX as u64;

/// Are they of an IPv6 key?
#[inline(always)]
pub(super) fn is_v6(words: &Words) -> bool {
    words[0] & 1 != 0
}

/// The words of the same key turned round.
#[inline(always)]
pub(super) fn reversed(words: &Words) -> Words {
    let [head, a, b, c, d] = *words;
    let head = head >> 16 & 0xffff << 32 | head << 16 & 0xffff << 48 | head & V4;
    match is_v6(words) {
        false => [head, a.rotate_left(32), 0, 0, 0],
        true => [head, c, d, a, b],
    }
}

/// What a row stands for that no packet's key finds: bits of their own in the first word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shared {
    /// A mapping, by the workload's port.
    Inner = 1,
    /// A mapping, by its outer port.
    Outer = 2,
    /// How many ports a sender's address has.
    Sender = 3,
    /// The same: a row has two keys.
    SenderToo = 4,
}

/// The words of a key that no packet has.
pub(super) fn shared(kind: Shared, key: &FlowKey) -> Words {
    let mut words = words(key);
    words[0] |= (kind as u64) << 16;
    words
}

/// Is it such a key?
pub(super) fn is_shared(kind: Shared, words: &Words) -> bool {
    words[0] >> 16 & 7 == kind as u64
}

pub(super) fn key(words: &Words) -> FlowKey {
    let [head, a, b, c, d] = *words;
    let (family, src, dst) = match is_v6(words) {
        false => (Family::V4, u128::from(a >> 32), u128::from(a & V4)),
        true => (Family::V6, u128::from(a) << 64 | u128::from(b), u128::from(c) << 64 | u128::from(d)),
    };
    let (sport, dport) = ((head >> 48) as u16, (head >> 32) as u16);
    FlowKey { src, dst, sport, dport, protocol: (head >> 8) as u8, family }
}

/// What changes while a row is in use, in one word, so that a change is one compare-and-swap: flags in the low 16 bits, then
/// the tick of the last packet, then how often the row was taken. The last keeps a late change from hitting the row's next
/// flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life(pub(super) u64);

impl Life {
    /// In use: linked, and found by look-ups.
    pub(super) const LIVE: u16 = 1;
    /// A packet came the other way.
    pub(super) const ANSWERED: u16 = 1 << 1;
    /// Both sides take part: never evicted for a new flow.
    pub(super) const ESTABLISHED: u16 = 1 << 2;
    /// The opener has sent its last byte (TCP).
    pub(super) const FIN_ORIGINAL: u16 = 1 << 3;
    /// The other side has.
    pub(super) const FIN_REPLY: u16 = 1 << 4;
    /// A reset was the last packet.
    pub(super) const RESET: u16 = 1 << 5;
    /// No flow but what flows share: a mapping of a workload's port, or the count of them (`mappings.rs`).
    pub(super) const MAPPING: u16 = 1 << 6;
    /// No row has this.
    pub(super) const NEVER: u16 = 1 << 15;
    /// Nothing is translated: one key is the other one turned round.
    pub(super) const PLAIN: u16 = 1 << 7;

    pub(super) fn flags(self) -> u16 {
        self.0 as u16
    }

    pub(super) fn has(self, flags: u16) -> bool {
        self.flags() & flags == flags
    }

    pub(super) fn seen(self) -> u32 {
        (self.0 >> 16) as u32
    }

    pub(super) fn generation(self) -> u16 {
        (self.0 >> 48) as u16
    }

    pub(super) fn with(self, flags: u16, seen: u32) -> Life {
        Life(u64::from(self.generation()) << 48 | u64::from(seen) << 16 | u64::from(flags))
    }

    /// The life of the row's next flow, before it begins.
    pub(super) fn next(self) -> Life {
        Life(u64::from(self.generation().wrapping_add(1)) << 48)
    }
}

/// See the file's head. Keys are written only while the row is linked nowhere.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(super) struct Row {
    /// The key that the flow's first packet showed.
    original: [AtomicU64; 5],
    pub(super) life: AtomicU64,
    /// The link after this one in the chain of each key.
    pub(super) next: [AtomicU32; 2],
    /// What policy has said of the flow, and of whom (`verdict.rs`).
    pub(super) verdict: AtomicU64,
    /// The key that replies show. Of a plain flow nobody need look.
    reply: [AtomicU64; 5],
    /// The rows that it is counted in, from 1; 0 is none. A flow: its sender's mapping, and the one that it was sent to. A
    /// mapping: its sender's count.
    pub(super) mappings: [AtomicU32; 2],
    /// Of what flows share: its generation in the high half, how many are counted in it in the low one.
    pub(super) uses: AtomicU64,
    /// Type and code of its first packet, of ICMP.
    pub(super) icmp: AtomicU32,
    /// The ports whose connections it is counted among.
    pub(super) counted: AtomicU32,
}

const _: () = assert!(size_of::<Row>() == Row::BYTES);
const _: () = assert!(std::mem::offset_of!(Row, reply) == 64, "what a plain flow needs fills a cache line");

impl Row {
    pub(super) const BYTES: usize = 128;

    pub(super) fn life(&self) -> Life {
        Life(self.life.load(Ordering::Relaxed))
    }

    /// Takes over a change where nobody was faster.
    pub(super) fn change(&self, from: Life, to: Life) -> Result<(), Life> {
        self.life.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Relaxed).map(drop).map_err(Life)
    }

    /// A word of its second cache line.
    #[inline(always)]
    pub(super) fn far(&self) -> u64 {
        self.reply[0].load(Ordering::Relaxed)
    }

    /// What policy has said of the flow, as it lies here.
    #[inline(always)]
    pub(super) fn verdict_word(&self) -> u64 {
        self.verdict.load(Ordering::Relaxed)
    }

    fn side(&self, side: usize) -> &[AtomicU64; 5] {
        if side == 0 { &self.original } else { &self.reply }
    }

    pub(super) fn words(&self, side: usize) -> Words {
        // One by one, here and below: as a loop over arrays, it isn't always made into a few loads.
        let [a, b, c, d, e] = self.side(side);
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        [load(a), load(b), load(c), load(d), load(e)]
    }

    pub(super) fn set_mappings(&self, mappings: [u32; 2]) {
        for (mapping, value) in self.mappings.iter().zip(mappings) {
            mapping.store(value, Ordering::Relaxed);
        }
    }

    /// Forgets what was remembered of the last flow's first packet.
    pub(super) fn clear(&self) {
        self.verdict.store(0, Ordering::Relaxed);
        self.icmp.store(0, Ordering::Relaxed);
        self.counted.store(0, Ordering::Relaxed);
    }

    /// Remembers the first packet of this generation's flow; `false`: another flow is counted here by now.
    pub(super) fn begin(&self, generation: u16, beginning: &Beginning) -> bool {
        self.verdict.store(beginning.verdict.word(generation), Ordering::Relaxed);
        self.icmp.store(icmp_word(beginning.icmp), Ordering::Relaxed);
        let counted = counted_word(beginning.counted);
        counted == 0 || self.counted.compare_exchange(0, counted, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Is the flow counted among these connections still? Then it isn't any more.
    pub(super) fn uncount(&self, counted: Between) -> bool {
        let word = counted_word(counted);
        word != 0 && self.counted.compare_exchange(word, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    pub(super) fn take_counted(&self) -> Between {
        counted_of(self.counted.swap(0, Ordering::Relaxed))
    }

    pub(super) fn take_mappings(&self) -> [u32; 2] {
        let [one, other] = &self.mappings;
        [one.swap(0, Ordering::Relaxed), other.swap(0, Ordering::Relaxed)]
    }

    /// Is this its key of that side? `life`: the row's.
    #[inline(always)]
    pub(super) fn has_words(&self, side: usize, words: &Words, life: Life) -> bool {
        let alike = |key: &[AtomicU64; 5], words: &Words| {
            // Ports and protocol first: they tell most flows of one pair of hosts apart.
            let same = |word: usize| key[word].load(Ordering::Relaxed) == words[word];
            same(0) && same(1) && (!is_v6(words) || same(2) && same(3) && same(4))
        };
        match side {
            0 => alike(&self.original, words),
            _ if life.has(Life::PLAIN) => alike(&self.original, &reversed(words)),
            _ => alike(&self.reply, words),
        }
    }

    pub(super) fn set_words(&self, side: usize, words: &Words) {
        let ([a, b, c, d, e], words) = (self.side(side), *words);
        let store = |word: &AtomicU64, value| word.store(value, Ordering::Relaxed);
        store(a, words[0]);
        store(b, words[1]);
        store(c, words[2]);
        store(d, words[3]);
        store(e, words[4]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_key_comes_back_from_its_words_and_they_turn_as_it_does(
            src: u128, dst: u128, sport: u16, dport: u16, protocol: u8, v6: bool,
        ) {
            let (family, mask) = if v6 { (Family::V6, u128::MAX) } else { (Family::V4, u128::from(u32::MAX)) };
            let flow = FlowKey { src: src & mask, dst: dst & mask, sport, dport, protocol, family };
            prop_assert_eq!(key(&words(&flow)), flow);
            prop_assert_eq!(reversed(&words(&flow)), words(&flow.reversed()));
        }

        #[test]
        fn a_life_keeps_its_parts_apart(word: u64, flags: u16, seen: u32) {
            let life = Life(word).with(flags, seen);
            prop_assert_eq!((life.flags(), life.seen(), life.generation()), (flags, seen, Life(word).generation()));
        }
    }
}
